// optim.cu: optimiser steps in place, decided on the device from the control tensor, so that a step never waits for the host. Arithmetic as csrc/cpu/optim.c.
#include "convert.cuh"
#include "reduce.cuh"

enum { LEARNING_RATE, STEP, INVERSE_SCALE, SKIP, SCALE, GOOD, OVERFLOWS };

template <class T> static __global__ void add_scaled(int64_t n, T scale, const T *x, T *y)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) y[i] += scale * x[i];
}

struct Squares { double value[LBR_CUDA_BLOCK]; };

template <class T> static __global__ void squares(int64_t n, const T *x, double *partial)
{
    LBR_SHARED(Squares, s);
    double sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) sum += (double)x[i] * (double)x[i];
    sum = lbr_cuda_combine(s.value, sum, [](double a, double b) { return a + b; });
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

static __global__ void squares_end(int parts, const double *partial, double *norm)
{
    double sum = 0;
    for (int i = 0; i < parts; i++) sum += partial[i];
    *norm += sum;
}

static __global__ void begin(lbr_optim_begin_attr a, const double *norm, double *control)
{
    control[INVERSE_SCALE] = control[SCALE] > 0 ? 1 / control[SCALE] : 1;
    control[SKIP] = !isfinite(*norm);
    if (control[SKIP] != 0) {
        control[SCALE] *= a.interval ? a.backoff : 1;
        control[GOOD] = 0;
        control[OVERFLOWS] += 1;
        return;
    }
    control[STEP] += 1;
    if (a.interval && ++control[GOOD] >= a.interval) {
        control[SCALE] *= a.growth;
        control[GOOD] = 0;
    }
}

static __device__ double gradient_factor(const double *control, const double *norm, double clip)
{
    double factor = control[INVERSE_SCALE];
    if (clip > 0) {
        double size = sqrt(*norm) * factor, limit = clip / (size + 1e-6);
        if (limit < 1) factor *= limit;
    }
    return factor;
}

template <class T> static __global__ void adam(lbr_adam_attr a, int64_t n, const T *g, const double *control, const double *norm, T *p, T *m, T *v)
{
    if (control[SKIP] != 0) return;
    double t = control[STEP] < 1 ? 1 : control[STEP], rate = control[LEARNING_RATE];
    T factor = (T)gradient_factor(control, norm, a.clip), b1 = (T)a.beta1, b2 = (T)a.beta2, c1 = (T)(1 - a.beta1), c2 = (T)(1 - a.beta2), eps = (T)a.eps;
    T step = (T)(rate / (1 - pow(a.beta1, t))), correction = (T)(1 / sqrt(1 - pow(a.beta2, t)));
    T keep = (T)(a.decoupled ? 1 - rate * a.weight_decay : 1.), coupled = a.decoupled ? (T)0 : (T)a.weight_decay;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        T d = g[i] * factor + coupled * p[i];
        m[i] = b1 * m[i] + c1 * d;
        v[i] = b2 * v[i] + c2 * d * d;
        p[i] = p[i] * keep - step * m[i] / (sqrt(v[i]) * correction + eps);
    }
}

template <class T> static __global__ void sgd(lbr_sgd_attr a, int64_t n, const T *g, const double *control, const double *norm, T *p, T *v)
{
    if (control[SKIP] != 0) return;
    T factor = (T)gradient_factor(control, norm, a.clip), rate = (T)control[LEARNING_RATE], w = (T)a.weight_decay, mu = (T)a.momentum;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        T d = g[i] * factor + w * p[i];
        v[i] = mu * v[i] + d;
        p[i] -= rate * (a.nesterov ? d + mu * v[i] : v[i]);
    }
}

static lbr_cuda_grid grid_of(const lbr_call *c, int64_t n, int most)
{
    int64_t blocks = (n + LBR_CUDA_BLOCK - 1) / LBR_CUDA_BLOCK;
    return {dim3((unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most)), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
}

int lbr_cuda_add_into(lbr_call *c)
{
    double scale = ((const lbr_add_into_attr *)c->attr)->scale;
    int64_t n = lbr_tensor_numel(&c->in[0]);
    lbr_cuda_grid g = grid_of(c, n, 4096);
    if (c->in[0].dtype == LBR_F64) LBR_LAUNCH(add_scaled<double>, g, n, scale, (const double *)c->in[0].data, (double *)c->out[0].data);
    else LBR_LAUNCH(add_scaled<float>, g, n, (float)scale, (const float *)c->in[0].data, (float *)c->out[0].data);
    return 0;
}

int lbr_cuda_square_sum_into(lbr_call *c)
{
    enum { PARTS = 128 };
    int64_t n = lbr_tensor_numel(&c->in[0]);
    lbr_cuda_grid g = grid_of(c, n, PARTS), one = {dim3(1), dim3(1), g.stream};
    double *partial = (double *)lbr_cuda_workspace(c, PARTS * sizeof(double));
    if (!partial) return LBR_ENOMEM;
    if (c->in[0].dtype == LBR_F64) LBR_LAUNCH(squares<double>, g, n, (const double *)c->in[0].data, partial);
    else LBR_LAUNCH(squares<float>, g, n, (const float *)c->in[0].data, partial);
    LBR_LAUNCH(squares_end, one, (int)g.blocks.x, partial, (double *)c->out[0].data);
    return 0;
}

int lbr_cuda_optim_begin(lbr_call *c)
{
    lbr_cuda_grid one = {dim3(1), dim3(1), lbr_cuda_stream(c->device - LBR_CUDA)};
    lbr_optim_begin_attr a = *(const lbr_optim_begin_attr *)c->attr;
    LBR_LAUNCH(begin, one, a, (const double *)c->in[0].data, (double *)c->out[0].data);
    return 0;
}

int lbr_cuda_adam(lbr_call *c)
{
    int64_t n = lbr_tensor_numel(&c->in[0]);
    lbr_cuda_grid g = grid_of(c, n, 4096);
    lbr_adam_attr a = *(const lbr_adam_attr *)c->attr;
    const double *control = (const double *)c->in[1].data, *norm = (const double *)c->in[2].data;
#define RUN(T) LBR_LAUNCH(adam<T>, g, a, n, (const T *)c->in[0].data, control, norm, (T *)c->out[0].data, (T *)c->out[1].data, (T *)c->out[2].data)
    if (c->in[0].dtype == LBR_F64) RUN(double);
    else RUN(float);
#undef RUN
    return 0;
}

int lbr_cuda_sgd(lbr_call *c)
{
    int64_t n = lbr_tensor_numel(&c->in[0]);
    lbr_cuda_grid g = grid_of(c, n, 4096);
    lbr_sgd_attr a = *(const lbr_sgd_attr *)c->attr;
    const double *control = (const double *)c->in[1].data, *norm = (const double *)c->in[2].data;
#define RUN(T) LBR_LAUNCH(sgd<T>, g, a, n, (const T *)c->in[0].data, control, norm, (T *)c->out[0].data, (T *)c->out[1].data)
    if (c->in[0].dtype == LBR_F64) RUN(double);
    else RUN(float);
#undef RUN
    return 0;
}
