// reduce.cu: sum, mean, prod, max, min and argmax over dims, sums along one, of a dense tensor, in an order that does not change from run to run. Sums run in double.
#include "reduce.cuh"

// Kept and reduced dims of a dense tensor, neighbours joined, strides in elements.
struct Dims {
    int kept, gone;
    int kept_shape[LBR_MAX_DIMS], kept_step[LBR_MAX_DIMS], gone_shape[LBR_MAX_DIMS], gone_step[LBR_MAX_DIMS];
    int64_t outputs, each; // results, and elements that each is made of
};

static Dims dims_of(const lbr_tensor *x, uint32_t mask)
{
    Dims d = {};
    int step = 1;
    d.outputs = d.each = 1;
    for (int i = 0; i < x->ndim; i++) {
        *(mask >> i & 1 ? &d.each : &d.outputs) *= x->shape[i];
        step *= x->shape[i];
    }
    for (int i = 0; i < x->ndim && step; i++) { // strides of dims of size 1 mean nothing
        bool gone = mask >> i & 1;
        int *n = gone ? &d.gone : &d.kept, *shapes = gone ? d.gone_shape : d.kept_shape, *steps = gone ? d.gone_step : d.kept_step, size = x->shape[i];
        step /= size;
        if (size == 1) continue;
        if (*n && steps[*n - 1] == step * size) shapes[*n - 1] *= size, steps[*n - 1] = step;
        else shapes[*n] = size, steps[*n] = step, ++*n;
    }
    return d;
}

static __device__ __forceinline__ int64_t place(int n, const int *shape, const int *step, unsigned i)
{
    int64_t at = 0;
    for (int d = n - 1; d > 0; d--) {
        unsigned q = i / shape[d];
        at += (int64_t)(i - q * shape[d]) * step[d];
        i = q;
    }
    return n ? at + (int64_t)i * step[0] : 0;
}

struct Join {
    int op;
    __device__ double operator()(double a, double b) const
    {
        if (op == LBR_OP_max) return b > a || b != b ? b : a; // NaN survives
        if (op == LBR_OP_min) return b < a || b != b ? b : a;
        if (op == LBR_OP_prod) return a * b;
        return a + b;
    }
    __device__ double start() const { return op == LBR_OP_max ? -INFINITY : op == LBR_OP_min ? INFINITY : op == LBR_OP_prod ? 1 : 0; }
};

// The result itself where there is one part, else what is summed up by `finish`.
template <class D> static __device__ __forceinline__ void put(const Dims &d, Join join, int64_t o, double v, D *y, double *partial)
{
    if (gridDim.y > 1) partial[blockIdx.y * d.outputs + o] = v;
    else y[o] = lbr_cuda_to<D>::of(join.op == LBR_OP_mean ? v / (double)d.each : v);
}

struct Room { double value[LBR_CUDA_WARPS]; };

// LANES threads a result; the grid's y: parts of the elements.
template <int LANES, class S, class D> static __global__ void across(Join join, Dims d, const S *x, D *y, double *partial)
{
    LBR_SHARED(Room, s);
    int64_t begin, end;
    lbr_cuda_part(blockIdx.y, gridDim.y, d.each, &begin, &end);
    for (int64_t o = lbr_cuda_group<LANES>(); o < d.outputs; o += lbr_cuda_groups<LANES>()) {
        const S *base = x + place(d.kept, d.kept_shape, d.kept_step, (unsigned)o);
        double v = join.start();
        if (d.gone == 1 && d.gone_step[0] == 1)
            lbr_cuda_each<LANES>(base + begin, end - begin, [&](int64_t, S e) { v = join(v, (double)lbr_cuda_load(e)); });
        else
            for (int64_t i = begin + lbr_cuda_lane<LANES>(); i < end; i += LANES) v = join(v, (double)lbr_cuda_load(base[place(d.gone, d.gone_shape, d.gone_step, (unsigned)i)]));
        v = lbr_cuda_combine_lanes<LANES>(s.value, v, join);
        if (lbr_cuda_lane<LANES>() == 0) put(d, join, o, v, y, partial);
    }
}

struct Columns { double value[LBR_CUDA_WARPS][LBR_CUDA_COLUMNS]; };

// Results that lie side by side, as their elements do: a block has 32 of them, eight elements of each at a time.
template <class S, class D> static __global__ void down(Join join, Dims d, const S *x, D *y, double *partial)
{
    LBR_SHARED(Columns, s);
    const int column = threadIdx.x % LBR_CUDA_COLUMNS, row = threadIdx.x / LBR_CUDA_COLUMNS;
    const int64_t o = (int64_t)blockIdx.x * LBR_CUDA_COLUMNS + column;
    int64_t begin, end;
    lbr_cuda_part(blockIdx.y, gridDim.y, d.each, &begin, &end);
    double v = join.start();
    if (o < d.outputs) {
        const S *base = x + place(d.kept, d.kept_shape, d.kept_step, (unsigned)o);
        for (int64_t i = begin + row; i < end; i += LBR_CUDA_WARPS) v = join(v, (double)lbr_cuda_load(base[place(d.gone, d.gone_shape, d.gone_step, (unsigned)i)]));
    }
    s.value[row][column] = v;
    __syncthreads();
    if (row || o >= d.outputs) return;
    for (int w = 1; w < LBR_CUDA_WARPS; w++) v = join(v, s.value[w][column]);
    put(d, join, o, v, y, partial);
}

template <class D> static __global__ void finish(Join join, Dims d, int parts, const double *partial, D *y)
{
    for (int64_t o = lbr_cuda_group<1>(); o < d.outputs; o += lbr_cuda_groups<1>()) {
        double v = partial[o];
        for (int p = 1; p < parts; p++) v = join(v, partial[p * d.outputs + o]);
        put(d, join, o, v, y, nullptr);
    }
}

template <class S, class D> static int run_as(lbr_call *c, const Dims &d)
{
    const S *x = (const S *)c->in[0].data;
    D *y = (D *)c->out[0].data;
    Join join = {c->op};
    bool columns = d.kept && d.kept_step[d.kept - 1] == 1 && d.kept_shape[d.kept - 1] >= 8 && d.each > 1;
    int lanes = d.each <= 8 ? 1 : d.each <= 1024 && d.outputs > 1 ? 32 : LBR_CUDA_BLOCK;
    lbr_cuda_grid g = columns ? lbr_cuda_column_grid(c, (int)d.outputs, 1) : lbr_cuda_grid_of(c, d.outputs, lanes);
    int parts = lbr_cuda_parts(c, g.blocks.x, d.each, columns ? 128 : 4096);
    double *partial = parts > 1 ? (double *)lbr_cuda_workspace(c, parts * d.outputs * (int64_t)sizeof(double)) : nullptr;
    if (parts > 1 && !partial) return LBR_ENOMEM;
    g.blocks.y = (unsigned)parts;
    if (columns) LBR_LAUNCH((down<S, D>), g, join, d, x, y, partial);
    else if (lanes == 1) LBR_LAUNCH((across<1, S, D>), g, join, d, x, y, partial);
    else if (lanes == 32) LBR_LAUNCH((across<32, S, D>), g, join, d, x, y, partial);
    else LBR_LAUNCH((across<LBR_CUDA_BLOCK, S, D>), g, join, d, x, y, partial);
    g = lbr_cuda_grid_of(c, d.outputs, 1);
    if (parts > 1) LBR_LAUNCH(finish<D>, g, join, d, parts, partial, y);
    return 0;
}

static int run(lbr_call *c, uint32_t mask)
{
    Dims d = dims_of(&c->in[0], mask);
    if (!d.outputs) return 0;
    if (c->in[0].dtype == LBR_U8 && c->out[0].dtype == LBR_I32) return run_as<uint8_t, int32_t>(c, d);
#define CASE(id, S) case id: return run_as<S, S>(c, d);
    switch (c->in[0].dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}

int lbr_cuda_sum(lbr_call *c) { return run(c, ((const lbr_sum_attr *)c->attr)->dims); }
int lbr_cuda_mean(lbr_call *c) { return run(c, ((const lbr_mean_attr *)c->attr)->dims); }
int lbr_cuda_max(lbr_call *c) { return run(c, ((const lbr_max_attr *)c->attr)->dims); }
int lbr_cuda_min(lbr_call *c) { return run(c, ((const lbr_min_attr *)c->attr)->dims); }

int lbr_cuda_prod(lbr_call *c) { return run(c, ((const lbr_prod_attr *)c->attr)->dims); }

// ---- sums and products along a dim: a thread a line, neighbours side by side ----

template <class S> static __global__ void accumulate(Join join, int64_t lines, int n, int inner, bool exclusive, bool reverse, const S *x, S *y)
{
    for (int64_t l = lbr_cuda_group<1>(); l < lines; l += lbr_cuda_groups<1>()) {
        const int64_t base = l / inner * inner * n + l % inner;
        double acc = join.start();
        for (int k = 0; k < n; k++) {
            const int64_t at = base + (int64_t)(reverse ? n - 1 - k : k) * inner;
            const double v = (double)lbr_cuda_load(x[at]);
            y[at] = lbr_cuda_to<S>::of(exclusive ? acc : join(acc, v));
            acc = join(acc, v);
        }
    }
}

static int cumulate(lbr_call *c, int dim, bool exclusive, bool reverse)
{
    const lbr_tensor *x = &c->in[0];
    const Join join = {c->op == LBR_OP_cumprod ? LBR_OP_prod : LBR_OP_sum};
    const int n = x->shape[dim];
    int inner = 1;
    for (int d = dim + 1; d < x->ndim; d++) inner *= x->shape[d];
    const int64_t all = lbr_tensor_numel(x);
    if (!all) return 0;
    lbr_cuda_grid g = lbr_cuda_grid_of(c, all / n, 1);
#define CASE(id, S) case id: LBR_LAUNCH(accumulate<S>, g, join, all / n, n, inner, exclusive, reverse, (const S *)x->data, (S *)c->out[0].data); break;
    switch (x->dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}

int lbr_cuda_cumsum(lbr_call *c)
{
    const lbr_cumsum_attr *a = (const lbr_cumsum_attr *)c->attr;
    return cumulate(c, a->dim, a->exclusive != 0, a->reverse != 0);
}

int lbr_cuda_cumprod(lbr_call *c)
{
    const lbr_cumprod_attr *a = (const lbr_cumprod_attr *)c->attr;
    return cumulate(c, a->dim, a->exclusive != 0, a->reverse != 0);
}

// ---- argmax ----

struct Firsts { int index[LBR_CUDA_WARPS]; double value[LBR_CUDA_WARPS]; };

// Result o is over n elements `inner` apart. Neither NaN nor -infinity is larger than anything; where nothing is, the first is taken.
template <int LANES, class S> static __global__ void first_largest(int64_t outputs, int n, int inner, const S *x, int32_t *y)
{
    LBR_SHARED(Firsts, s);
    for (int64_t o = lbr_cuda_group<LANES>(); o < outputs; o += lbr_cuda_groups<LANES>()) {
        const S *base = x + o / inner * inner * n + o % inner;
        double best = -INFINITY;
        int at = n;
        for (int i = lbr_cuda_lane<LANES>(); i < n; i += LANES) {
            double v = (double)lbr_cuda_load(base[(int64_t)i * inner]);
            if (v > best) best = v, at = i;
        }
        double top = lbr_cuda_combine_lanes<LANES>(s.value, best, [](double a, double b) { return a > b ? a : b; });
        at = lbr_cuda_combine_lanes<LANES>(s.index, best == top ? at : n, [](int a, int b) { return a < b ? a : b; });
        if (lbr_cuda_lane<LANES>() == 0) y[o] = at < n ? at : 0;
    }
}

template <class S> static void argmax(lbr_call *c, int n, int inner)
{
    int64_t outputs = lbr_tensor_numel(&c->out[0]);
    int lanes = inner > 1 || n <= 8 ? 1 : n <= 1024 ? 32 : LBR_CUDA_BLOCK;
    lbr_cuda_grid g = lbr_cuda_grid_of(c, outputs, lanes);
    const S *x = (const S *)c->in[0].data;
    int32_t *y = (int32_t *)c->out[0].data;
    if (lanes == 1) LBR_LAUNCH((first_largest<1, S>), g, outputs, n, inner, x, y);
    else if (lanes == 32) LBR_LAUNCH((first_largest<32, S>), g, outputs, n, inner, x, y);
    else LBR_LAUNCH((first_largest<LBR_CUDA_BLOCK, S>), g, outputs, n, inner, x, y);
}

int lbr_cuda_argmax(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    int dim = ((const lbr_argmax_attr *)c->attr)->dim, inner = 1;
    for (int d = dim + 1; d < x->ndim; d++) inner *= x->shape[d];
    if (!lbr_tensor_numel(&c->out[0])) return 0;
#define CASE(id, S) case id: argmax<S>(c, x->shape[dim], inner); break;
    switch (x->dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}
