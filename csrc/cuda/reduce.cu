// reduce.cu: sum, mean, max, min and argmax over dims of a dense tensor, in an order that does not change from run to run.
#include "convert.cuh"
#include "reduce.cuh"

// Kept and reduced dims of a dense tensor, each with its strides in elements.
struct Dims {
    int kept, gone;
    int kept_shape[LBR_MAX_DIMS], kept_step[LBR_MAX_DIMS], gone_shape[LBR_MAX_DIMS], gone_step[LBR_MAX_DIMS];
    int64_t outputs, each; // results, and elements that each is made of
};

static Dims dims_of(const lbr_tensor *x, uint32_t mask)
{
    Dims d = {};
    d.outputs = d.each = 1;
    for (int i = 0; i < x->ndim; i++) {
        bool gone = mask >> i & 1;
        int *n = gone ? &d.gone : &d.kept, *shape = gone ? d.gone_shape : d.kept_shape, *step = gone ? d.gone_step : d.kept_step;
        *(gone ? &d.each : &d.outputs) *= x->shape[i];
        if (i && *n && (mask >> (i - 1) & 1) == gone) shape[*n - 1] *= x->shape[i], step[*n - 1] = x->stride[i]; // dense: neighbours of one kind join
        else shape[*n] = x->shape[i], step[*n] = x->stride[i], ++*n;
    }
    return d;
}

static __device__ int64_t place(int n, const int *shape, const int *step, int64_t i)
{
    int64_t at = 0;
    for (int d = n - 1; d >= 0; d--) {
        at += i % shape[d] * step[d];
        i /= shape[d];
    }
    return at;
}

template <class A> static __device__ A join(int op, A a, A b)
{
    if (op == LBR_OP_max) return a > b || a != a ? a : b;
    if (op == LBR_OP_min) return a < b || a != a ? a : b;
    return a + b;
}

template <class A> struct Room { A value[LBR_CUDA_BLOCK]; };

// A block a result, or a thread a result where each is made of few elements. A: the type of the sums.
template <class S, class D, class A> static __global__ void reduce(int op, Dims d, double scale, bool wide, const S *x, D *y)
{
    LBR_SHARED(Room<A>, s);
    const int64_t first = wide ? blockIdx.x : (int64_t)blockIdx.x * blockDim.x + threadIdx.x, more = wide ? gridDim.x : (int64_t)gridDim.x * blockDim.x;
    const bool sums = op == LBR_OP_sum || op == LBR_OP_mean;
    for (int64_t o = first; o < d.outputs; o += more) {
        int64_t base = place(d.kept, d.kept_shape, d.kept_step, o), from = wide ? threadIdx.x : 0, by = wide ? blockDim.x : 1;
        A v = sums || d.each == 0 ? (A)0 : (A)lbr_cuda_load(x[base]);
        for (int64_t i = from; i < d.each; i += by) v = join(op, v, (A)lbr_cuda_load(x[base + place(d.gone, d.gone_shape, d.gone_step, i)]));
        if (wide) v = lbr_cuda_combine(s.value, v, [=](A a, A b) { return join(op, a, b); });
        if (!wide || threadIdx.x == 0) y[o] = lbr_cuda_to<D>::of(op == LBR_OP_mean ? v * (A)scale : v);
    }
}

template <class S> static __global__ void first_largest(Dims d, const S *x, int *y)
{
    for (int64_t o = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; o < d.outputs; o += (int64_t)gridDim.x * blockDim.x) {
        int64_t base = place(d.kept, d.kept_shape, d.kept_step, o);
        int best = 0;
        auto top = lbr_cuda_load(x[base]);
        for (int i = 1; i < (int)d.each; i++) {
            auto v = lbr_cuda_load(x[base + (int64_t)i * d.gone_step[0]]);
            if (v > top || (v != v && top == top)) top = v, best = i;
        }
        y[o] = best;
    }
}

static int run(lbr_call *c, uint32_t mask)
{
    Dims d = dims_of(&c->in[0], mask);
    if (!d.outputs) return 0;
    bool wide = d.each >= 64;
    int64_t blocks = wide ? d.outputs : (d.outputs + LBR_CUDA_BLOCK - 1) / LBR_CUDA_BLOCK;
    lbr_cuda_grid g = {dim3((unsigned)(blocks < 65535 ? blocks : 65535)), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
    double scale = d.each ? 1. / (double)d.each : NAN;
    const void *x = c->in[0].data;
    void *y = c->out[0].data;
#define CASE(S, D, A) LBR_LAUNCH((reduce<S, D, A>), g, c->op, d, scale, wide, (const S *)x, (D *)y)
    switch (c->in[0].dtype) {
    case LBR_F32: CASE(float, float, float); break;
    case LBR_F64: CASE(double, double, double); break;
    case LBR_F16: CASE(__half, __half, float); break;
    case LBR_BF16: CASE(__nv_bfloat16, __nv_bfloat16, float); break;
    case LBR_U8:
        if (c->out[0].dtype == LBR_U8) CASE(uint8_t, uint8_t, int);
        else CASE(uint8_t, int32_t, int);
        break;
    case LBR_I32: CASE(int32_t, int32_t, int); break;
    }
#undef CASE
    return 0;
}

int lbr_cuda_sum(lbr_call *c) { return run(c, ((const lbr_sum_attr *)c->attr)->dims); }
int lbr_cuda_mean(lbr_call *c) { return run(c, ((const lbr_mean_attr *)c->attr)->dims); }
int lbr_cuda_max(lbr_call *c) { return run(c, ((const lbr_max_attr *)c->attr)->dims); }
int lbr_cuda_min(lbr_call *c) { return run(c, ((const lbr_min_attr *)c->attr)->dims); }

int lbr_cuda_argmax(lbr_call *c)
{
    Dims d = dims_of(&c->in[0], 1u << ((const lbr_argmax_attr *)c->attr)->dim);
    if (!d.outputs) return 0;
    int64_t blocks = (d.outputs + LBR_CUDA_BLOCK - 1) / LBR_CUDA_BLOCK;
    lbr_cuda_grid g = {dim3((unsigned)(blocks < 65535 ? blocks : 65535)), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
#define CASE(id, S) case id: LBR_LAUNCH(first_largest<S>, g, d, (const S *)c->in[0].data, (int *)c->out[0].data); break;
    switch (c->in[0].dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}
