// norm.cu: softmax, layer norm and batch norm, forward and backward. Rows belong to a warp, long ones to a block. Sums run in double, and so do the norms;
// exponentials in the type that the tensor computes in.
#include "reduce.cuh"

// Elements i .. i + 3 of a row of n, shared out over LANES threads.
#define LBR_ROW4(i, n) for (int i = 4 * lbr_cuda_lane<LANES>(); i < (n); i += 4 * LANES)
#define LBR_ROWS(r) for (int64_t r = lbr_cuda_group<LANES>(); r < rows; r += lbr_cuda_groups<LANES>())

enum { LONG = 1024 }; // rows of more elements belong to a block

struct Room { double value[LBR_CUDA_WARPS]; };

struct Largest { // NaN survives
    template <class A> __device__ A operator()(A a, A b) const { return b > a || b != b ? b : a; }
};

// A kernel of either size of row: kernel<LANES, type>.
#define LBR_LAUNCH_ROWS(kernel, T, ...)                                                                               \
    do {                                                                                                              \
        lbr_cuda_grid g = lbr_cuda_grid_of(c, rows, n > LONG ? (int)LBR_CUDA_BLOCK : 32);                              \
        if (n > LONG) LBR_LAUNCH((kernel<LBR_CUDA_BLOCK, T>), g, __VA_ARGS__);                                         \
        else LBR_LAUNCH((kernel<32, T>), g, __VA_ARGS__);                                                              \
    } while (0)

// ---- softmax ----

template <int LANES, class S> static __global__ void softmax(bool logarithm, int64_t rows, int n, const S *xs, S *ys)
{
    typedef decltype(lbr_cuda_load(S())) A;
    LBR_SHARED(Room, s);
    LBR_ROWS(r) {
        const S *x = xs + r * n;
        S *y = ys + r * n;
        A most = (A)-INFINITY;
        lbr_cuda_each<LANES>(x, n, [&](int64_t, S e) { most = Largest()(most, lbr_cuda_load(e)); });
        const A top = (A)lbr_cuda_combine_lanes<LANES>(s.value, (double)most, Largest());
        double sum = 0;
        lbr_cuda_each<LANES>(x, n, [&](int64_t, S e) { sum += (double)exp(lbr_cuda_load(e) - top); });
        sum = lbr_cuda_combine_lanes<LANES>(s.value, sum, lbr_cuda_add());
        const A scale = (A)(1 / sum), shift = (A)log(sum);
        LBR_ROW4(i, n) {
            lbr_cuda_four<S> v = lbr_cuda_read4(x + i, n - i);
            for (int k = 0; k < 4; k++) {
                A d = lbr_cuda_load(v.v[k]) - top;
                v.v[k] = lbr_cuda_store<S>(logarithm ? d - shift : exp(d) * scale);
            }
            lbr_cuda_write4(y + i, n - i, v);
        }
    }
}

template <int LANES, class T> static __global__ void softmax_backward(bool logarithm, int64_t rows, int n, const T *dys, const T *ys, T *dxs)
{
    LBR_SHARED(Room, s);
    LBR_ROWS(r) {
        const T *dy = dys + r * n, *y = ys + r * n;
        double sum = 0;
        LBR_ROW4(i, n) {
            lbr_cuda_four<T> d = lbr_cuda_read4(dy + i, n - i), p = lbr_cuda_read4(y + i, n - i);
            for (int k = 0; k < 4; k++) sum += i + k < n ? (logarithm ? (double)d.v[k] : (double)d.v[k] * (double)p.v[k]) : 0;
        }
        const double dot = lbr_cuda_combine_lanes<LANES>(s.value, sum, lbr_cuda_add());
        LBR_ROW4(i, n) {
            lbr_cuda_four<T> d = lbr_cuda_read4(dy + i, n - i), p = lbr_cuda_read4(y + i, n - i);
            for (int k = 0; k < 4; k++) d.v[k] = (T)(logarithm ? (double)d.v[k] - (double)exp(p.v[k]) * dot : ((double)d.v[k] - dot) * (double)p.v[k]);
            lbr_cuda_write4(dxs + r * n + i, n - i, d);
        }
    }
}

// Rows of the last dim.
static bool rows_of(const lbr_tensor *x, int64_t *rows, int *n)
{
    *n = x->ndim ? x->shape[x->ndim - 1] : 1;
    *rows = *n ? lbr_tensor_numel(x) / *n : 0;
    return *rows > 0;
}

static int forward(lbr_call *c, bool logarithm)
{
    int64_t rows;
    int n;
    if (!rows_of(&c->in[0], &rows, &n)) return 0;
#define CASE(id, S) case id: LBR_LAUNCH_ROWS(softmax, S, logarithm, rows, n, (const S *)c->in[0].data, (S *)c->out[0].data); break;
    switch (c->in[0].dtype) { CASE(LBR_F32, float) CASE(LBR_F64, double) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16) }
#undef CASE
    return 0;
}

static int backward(lbr_call *c, bool logarithm)
{
    int64_t rows;
    int n;
    if (!rows_of(&c->in[0], &rows, &n)) return 0;
#define CASE(id, T) case id: LBR_LAUNCH_ROWS(softmax_backward, T, logarithm, rows, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (T *)c->out[0].data); break;
    switch (c->in[0].dtype) { CASE(LBR_F32, float) CASE(LBR_F64, double) }
#undef CASE
    return 0;
}

int lbr_cuda_softmax(lbr_call *c) { return forward(c, false); }
int lbr_cuda_log_softmax(lbr_call *c) { return forward(c, true); }
int lbr_cuda_softmax_backward(lbr_call *c) { return backward(c, false); }
int lbr_cuda_log_softmax_backward(lbr_call *c) { return backward(c, true); }

// ---- layer norm ----

template <int LANES, class T>
static __global__ void layer_norm(double eps, int64_t rows, int n, const T *xs, const T *weight, const T *bias, T *ys, T *means, T *rstds)
{
    LBR_SHARED(Room, s);
    LBR_ROWS(r) {
        const T *x = xs + r * n;
        double sum = 0, square = 0;
        lbr_cuda_each<LANES>(x, n, [&](int64_t, T e) { sum += (double)e; });
        const double mean = lbr_cuda_combine_lanes<LANES>(s.value, sum, lbr_cuda_add()) / n;
        lbr_cuda_each<LANES>(x, n, [&](int64_t, T e) { square += ((double)e - mean) * ((double)e - mean); });
        const double rstd = 1 / sqrt(lbr_cuda_combine_lanes<LANES>(s.value, square, lbr_cuda_add()) / n + eps);
        LBR_ROW4(i, n) {
            lbr_cuda_four<T> v = lbr_cuda_read4(x + i, n - i), w = {}, b = {};
            if (weight) w = lbr_cuda_read4(weight + i, n - i);
            if (bias) b = lbr_cuda_read4(bias + i, n - i);
            for (int k = 0; k < 4; k++) {
                double d = ((double)v.v[k] - mean) * rstd;
                if (weight) d *= (double)w.v[k];
                if (bias) d += (double)b.v[k];
                v.v[k] = (T)d;
            }
            lbr_cuda_write4(ys + r * n + i, n - i, v);
        }
        if (lbr_cuda_lane<LANES>() == 0) means[r] = (T)mean, rstds[r] = (T)rstd;
    }
}

template <int LANES, class T>
static __global__ void layer_norm_dx(int64_t rows, int n, const T *dys, const T *xs, const T *means, const T *rstds, const T *weight, T *dxs)
{
    LBR_SHARED(Room, s);
    LBR_ROWS(r) {
        const T *dy = dys + r * n, *x = xs + r * n;
        const double mean = (double)means[r], rstd = (double)rstds[r];
        double sum = 0, dot = 0;
        LBR_ROW4(i, n) {
            lbr_cuda_four<T> d = lbr_cuda_read4(dy + i, n - i), v = lbr_cuda_read4(x + i, n - i), w = {};
            if (weight) w = lbr_cuda_read4(weight + i, n - i);
            for (int k = 0; k < 4; k++) {
                if (i + k >= n) break;
                double e = weight ? (double)d.v[k] * (double)w.v[k] : (double)d.v[k];
                sum += e;
                dot += e * (((double)v.v[k] - mean) * rstd);
            }
        }
        const double a = lbr_cuda_combine_lanes<LANES>(s.value, sum, lbr_cuda_add()) / n, b = lbr_cuda_combine_lanes<LANES>(s.value, dot, lbr_cuda_add()) / n;
        LBR_ROW4(i, n) {
            lbr_cuda_four<T> d = lbr_cuda_read4(dy + i, n - i), v = lbr_cuda_read4(x + i, n - i), w = {};
            if (weight) w = lbr_cuda_read4(weight + i, n - i);
            for (int k = 0; k < 4; k++) {
                double e = weight ? (double)d.v[k] * (double)w.v[k] : (double)d.v[k];
                d.v[k] = (T)(rstd * (e - a - ((double)v.v[k] - mean) * rstd * b));
            }
            lbr_cuda_write4(dxs + r * n + i, n - i, d);
        }
    }
}

typedef lbr_cuda_sums<2> Pair; // of a column: dweight, dbias; of batch norm's forward pass: x - shift and its square
typedef lbr_cuda_column_room<2> Pairs;

// Gradients of scale and shift, a column each; mean and rstd belong to the row (layer norm) or to the column (batch norm).
template <class T> static __global__ void scale_parts(bool by_row, int64_t rows, int n, const T *dy, const T *x, const T *mean, const T *rstd, Pair *partial)
{
    LBR_SHARED(Pairs, s);
    lbr_cuda_sum_columns<2>(s, rows, n, partial, [=](int64_t r, int column) {
        int64_t at = r * n + column, k = by_row ? r : column;
        double d = (double)dy[at];
        return Pair{{d * ((double)x[at] - (double)mean[k]) * (double)rstd[k], d}};
    });
}

// total: the sums once more, for what follows in double; may be the first part itself.
template <class T> static __global__ void scale_end(const Pair *partial, int parts, int n, T *dweight, T *dbias, Pair *total)
{
    const int column = (int)lbr_cuda_group<1>();
    if (column >= n) return;
    Pair sum = lbr_cuda_sum_parts(partial, parts, n, column);
    dweight[column] = (T)sum.v[0], dbias[column] = (T)sum.v[1];
    total[column] = sum;
}

template <class T> static Pair *scale(lbr_call *c, bool by_row, int64_t rows, int n)
{
    int parts = lbr_cuda_column_parts(c, rows, n);
    Pair *partial = (Pair *)lbr_cuda_workspace(c, (int64_t)parts * n * (int64_t)sizeof(Pair));
    if (!partial) return NULL;
    lbr_cuda_grid g = lbr_cuda_column_grid(c, n, parts), end = {dim3((unsigned)(n + LBR_CUDA_BLOCK - 1) / LBR_CUDA_BLOCK), dim3(LBR_CUDA_BLOCK), g.stream};
    LBR_LAUNCH(scale_parts<T>, g, by_row, rows, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data, (const T *)c->in[3].data, partial);
    LBR_LAUNCH(scale_end<T>, end, (const Pair *)partial, parts, n, (T *)c->out[1].data, (T *)c->out[2].data, partial);
    return partial;
}

int lbr_cuda_layer_norm(lbr_call *c)
{
    const double eps = ((const lbr_layer_norm_attr *)c->attr)->eps;
    int64_t rows;
    int n;
    if (!rows_of(&c->in[0], &rows, &n)) return 0;
#define CASE(id, T)                                                                                                                                     \
    case id:                                                                                                                                            \
        LBR_LAUNCH_ROWS(layer_norm, T, eps, rows, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data, (T *)c->out[0].data,  \
                        (T *)c->out[1].data, (T *)c->out[2].data);                                                                                      \
        break;
    switch (c->in[0].dtype) { CASE(LBR_F32, float) CASE(LBR_F64, double) }
#undef CASE
    return 0;
}

template <class T> static int layer_norm_backward(lbr_call *c)
{
    int64_t rows;
    int n;
    if (rows_of(&c->in[1], &rows, &n))
        LBR_LAUNCH_ROWS(layer_norm_dx, T, rows, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data, (const T *)c->in[3].data,
                        (const T *)c->in[4].data, (T *)c->out[0].data);
    return scale<T>(c, true, rows, n) ? 0 : LBR_ENOMEM;
}

int lbr_cuda_layer_norm_backward(lbr_call *c) { return c->in[0].dtype == LBR_F64 ? layer_norm_backward<double>(c) : layer_norm_backward<float>(c); }

// ---- batch norm: channels last, statistics over everything else ----

// What is taken off before squares are summed, so that they stay small beside nothing: the column's first element.
template <class T> static __device__ __forceinline__ double shift_of(const T *x, int column) { return isfinite((double)x[column]) ? (double)x[column] : 0; }

template <class T> static __global__ void moments(int64_t rows, int n, const T *x, Pair *partial)
{
    LBR_SHARED(Pairs, s);
    lbr_cuda_sum_columns<2>(s, rows, n, partial, [=](int64_t r, int column) {
        double d = (double)x[r * n + column] - shift_of(x, column);
        return Pair{{d, d * d}};
    });
}

// Statistics of the batch from the parts, or the running ones where there are none.
template <class T>
static __global__ void statistics(lbr_batch_norm_attr a, int64_t rows, int n, const T *x, const Pair *partial, int parts, T *running_mean, T *running_var, T *means, T *rstds)
{
    const int column = (int)lbr_cuda_group<1>();
    if (column >= n) return;
    double mean = (double)running_mean[column], var = (double)running_var[column];
    if (a.training) {
        Pair sum = lbr_cuda_sum_parts(partial, parts, n, column);
        double all = sum.v[1] - sum.v[0] * sum.v[0] / (double)rows, now = shift_of(x, column) + sum.v[0] / (double)rows;
        if (all < 0) all = 0;
        running_mean[column] = (T)(mean + a.momentum * (now - mean));
        running_var[column] = (T)(var + a.momentum * (all / (double)(rows - 1) - var));
        mean = now, var = all / (double)rows;
    }
    means[column] = (T)mean, rstds[column] = (T)(1 / sqrt(var + a.eps));
}

#define LBR_EACH4(i) for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < count; i += (int64_t)gridDim.x * blockDim.x * 4)

template <class T> static __global__ void normalise(int64_t count, int n, const T *x, const T *weight, const T *bias, const T *mean, const T *rstd, T *y)
{
    LBR_EACH4(i) {
        lbr_cuda_four<T> v = lbr_cuda_read4(x + i, count - i);
        int column = (int)(i % n);
        for (int k = 0; k < 4; k++, column = column + 1 < n ? column + 1 : 0)
            v.v[k] = (T)(((double)v.v[k] - (double)mean[column]) * (double)rstd[column] * (double)weight[column] + (double)bias[column]);
        lbr_cuda_write4(y + i, count - i, v);
    }
}

template <class T>
static __global__ void batch_norm_dx(bool training, int64_t rows, int n, const T *dy, const T *x, const T *mean, const T *rstd, const T *weight, const Pair *total, T *dx)
{
    const int64_t count = rows * n;
    LBR_EACH4(i) {
        lbr_cuda_four<T> d = lbr_cuda_read4(dy + i, count - i), v = lbr_cuda_read4(x + i, count - i);
        int column = (int)(i % n);
        for (int k = 0; k < 4; k++, column = column + 1 < n ? column + 1 : 0) {
            double e = (double)d.v[k], r = (double)rstd[column];
            if (training) e -= (total[column].v[1] + ((double)v.v[k] - (double)mean[column]) * r * total[column].v[0]) / (double)rows;
            d.v[k] = (T)(e * (double)weight[column] * r);
        }
        lbr_cuda_write4(dx + i, count - i, d);
    }
}

template <class T> static int batch_norm(lbr_call *c)
{
    const lbr_batch_norm_attr a = *(const lbr_batch_norm_attr *)c->attr;
    const T *x = (const T *)c->in[0].data;
    T *mean = (T *)c->out[1].data, *rstd = (T *)c->out[2].data;
    int64_t rows;
    int n, parts = 1;
    rows_of(&c->in[0], &rows, &n);
    if (!n) return 0;
    Pair *partial = NULL;
    if (a.training) {
        parts = lbr_cuda_column_parts(c, rows, n);
        partial = (Pair *)lbr_cuda_workspace(c, (int64_t)parts * n * (int64_t)sizeof(Pair));
        if (!partial) return LBR_ENOMEM;
        lbr_cuda_grid g = lbr_cuda_column_grid(c, n, parts);
        LBR_LAUNCH(moments<T>, g, rows, n, x, partial);
    }
    lbr_cuda_grid end = {dim3((unsigned)(n + LBR_CUDA_BLOCK - 1) / LBR_CUDA_BLOCK), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
    LBR_LAUNCH(statistics<T>, end, a, rows, n, x, (const Pair *)partial, parts, (T *)c->in[3].data, (T *)c->in[4].data, mean, rstd);
    if (!rows) return 0;
    lbr_cuda_grid each = lbr_cuda_grid_of(c, (rows * n + 3) / 4, 1);
    LBR_LAUNCH(normalise<T>, each, rows * n, n, x, (const T *)c->in[1].data, (const T *)c->in[2].data, (const T *)mean, (const T *)rstd, (T *)c->out[0].data);
    return 0;
}

int lbr_cuda_batch_norm(lbr_call *c) { return c->in[0].dtype == LBR_F64 ? batch_norm<double>(c) : batch_norm<float>(c); }

template <class T> static int batch_norm_backward(lbr_call *c)
{
    const bool training = ((const lbr_batch_norm_backward_attr *)c->attr)->training != 0;
    int64_t rows;
    int n;
    rows_of(&c->in[1], &rows, &n);
    Pair *total = scale<T>(c, false, rows, n);
    if (!total) return LBR_ENOMEM;
    if (!rows) return 0;
    lbr_cuda_grid each = lbr_cuda_grid_of(c, (rows * n + 3) / 4, 1);
    LBR_LAUNCH(batch_norm_dx<T>, each, training, rows, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data, (const T *)c->in[3].data,
               (const T *)c->in[4].data, (const Pair *)total, (T *)c->out[0].data);
    return 0;
}

int lbr_cuda_batch_norm_backward(lbr_call *c) { return c->in[0].dtype == LBR_F64 ? batch_norm_backward<double>(c) : batch_norm_backward<float>(c); }
