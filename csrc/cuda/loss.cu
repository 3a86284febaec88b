// loss.cu: masked mean losses and their gradients; everything stays on the device.
#include "convert.cuh"
#include "reduce.cuh"

static __device__ double value_of(int kind, double delta, double d)
{
    double a = fabs(d);
    if (kind == 1) return a;
    if (kind == 2) return a <= delta ? .5 * d * d : delta * (a - .5 * delta);
    return d * d;
}

static __device__ double slope_of(int kind, double delta, double d)
{
    if (kind == 1) return (d > 0) - (d < 0);
    if (kind == 2) return d > delta ? delta : d < -delta ? -delta : d;
    return 2 * d;
}

struct Partial { double sum[LBR_CUDA_BLOCK], count[LBR_CUDA_BLOCK]; };

// Sums and counts of each block's share go to partial[2 * block].
template <class T> static __global__ void loss_parts(int kind, double delta, int64_t n, const T *x, const T *target, const T *mask, double *partial)
{
    LBR_SHARED(Partial, s);
    double sum = 0, count = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        if (!mask || mask[i] != 0) sum += value_of(kind, delta, (double)x[i] - (double)target[i]), count += 1;
    auto add = [](double a, double b) { return a + b; };
    sum = lbr_cuda_combine(s.sum, sum, add);
    count = lbr_cuda_combine(s.count, count, add);
    if (threadIdx.x == 0) partial[2 * blockIdx.x] = sum, partial[2 * blockIdx.x + 1] = count;
}

template <class T> static __global__ void loss_end(int parts, const double *partial, T *y, double *weight)
{
    double sum = 0, count = 0;
    for (int i = 0; i < parts; i++) sum += partial[2 * i], count += partial[2 * i + 1];
    *weight = count > 0 ? 1 / count : 0;
    *y = (T)(sum * *weight);
}

template <class T>
static __global__ void loss_slope(int kind, double delta, int64_t n, const T *dy, const T *x, const T *target, const T *mask, const double *weight, T *dx)
{
    double scale = (double)*dy * *weight;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        dx[i] = !mask || mask[i] != 0 ? (T)(scale * slope_of(kind, delta, (double)x[i] - (double)target[i])) : (T)0;
}

static lbr_cuda_grid parts_of(const lbr_call *c, int64_t n, int most)
{
    int64_t blocks = (n + LBR_CUDA_BLOCK * 4 - 1) / (LBR_CUDA_BLOCK * 4);
    return {dim3((unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most)), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
}

int lbr_cuda_loss(lbr_call *c)
{
    const lbr_loss_attr *a = (const lbr_loss_attr *)c->attr;
    int64_t n = lbr_tensor_numel(&c->in[0]);
    lbr_cuda_grid g = parts_of(c, n, 256), one = {dim3(1), dim3(1), g.stream};
    double *partial = (double *)lbr_cuda_workspace(c, 256 * 2 * sizeof(double));
    if (!partial) return LBR_ENOMEM;
#define CASE(id, T)                                                                                                                                             \
    case id:                                                                                                                                                    \
        LBR_LAUNCH(loss_parts<T>, g, a->kind, a->delta, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data, partial);                \
        LBR_LAUNCH(loss_end<T>, one, (int)g.blocks.x, partial, (T *)c->out[0].data, (double *)c->out[1].data);                                                   \
        break;
    switch (c->in[0].dtype) { CASE(LBR_F32, float) CASE(LBR_F64, double) }
#undef CASE
    return 0;
}

int lbr_cuda_loss_backward(lbr_call *c)
{
    const lbr_loss_backward_attr *a = (const lbr_loss_backward_attr *)c->attr;
    int64_t n = lbr_tensor_numel(&c->in[1]);
    if (!n) return 0;
    lbr_cuda_grid g = parts_of(c, n, 65535);
#define CASE(id, T)                                                                                                                                   \
    case id:                                                                                                                                          \
        LBR_LAUNCH(loss_slope<T>, g, a->kind, a->delta, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data,                \
                   (const T *)c->in[3].data, (const double *)c->in[4].data, (T *)c->out[0].data);                                                      \
        break;
    switch (c->in[1].dtype) { CASE(LBR_F32, float) CASE(LBR_F64, double) }
#undef CASE
    return 0;
}
