// optim.cu: optimiser steps in place, decided on the device from the control tensor, so that a step never waits for the host. Arithmetic as csrc/cpu/optim.c.
// What is done to each parameter takes many tensors a launch: their places are the kernel's argument, a block has a share of one of them.
#include "reduce.cuh"

enum { LEARNING_RATE, STEP, INVERSE_SCALE, SKIP, SCALE, GOOD, OVERFLOWS };
enum { SHARE = 2048 }; // elements a block

// Tensor t has n[t] elements, its blocks are first[t] .. first[t + 1] - 1; data[k][t]: its k-th operand.
template <int OPERANDS> struct Table {
    int tensors, first[LBR_MOST_TOGETHER + 1], n[LBR_MOST_TOGETHER];
    void *data[OPERANDS][LBR_MOST_TOGETHER];
};

// Operand 0 is the first input, the others are the outputs.
template <int OPERANDS> static Table<OPERANDS> table_of(lbr_call *const *calls, int n)
{
    Table<OPERANDS> t = {};
    t.tensors = n;
    for (int i = 0; i < n; i++) {
        t.n[i] = (int)lbr_tensor_numel(&calls[i]->in[0]);
        t.first[i + 1] = t.first[i] + (t.n[i] + SHARE - 1) / SHARE;
        t.data[0][i] = calls[i]->in[0].data;
        for (int k = 1; k < OPERANDS; k++) t.data[k][i] = calls[i]->out[k - 1].data;
    }
    return t;
}
template <int OPERANDS> static lbr_cuda_grid grid_of(const lbr_call *c, const Table<OPERANDS> &t)
{
    return {dim3((unsigned)t.first[t.tensors]), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
}

// This block's tensor, and its elements begin .. end - 1.
struct Share { int tensor, begin, end; };
template <int OPERANDS> static __device__ __forceinline__ Share share_of(const Table<OPERANDS> &t)
{
    int low = 0, high = t.tensors; // first[low] <= block < first[high]
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (t.first[middle] <= (int)blockIdx.x) low = middle;
        else high = middle;
    }
    int begin = ((int)blockIdx.x - t.first[low]) * SHARE;
    return {low, begin, t.n[low] - begin < SHARE ? t.n[low] : begin + SHARE};
}
#define LBR_EACH4(i, s) for (int i = (s).begin + 4 * (int)threadIdx.x; i < (s).end; i += 4 * LBR_CUDA_BLOCK)

// ---- sums ----

template <class T> static __global__ void add_scaled(Table<2> t, T scale)
{
    const Share s = share_of(t);
    const T *x = (const T *)t.data[0][s.tensor];
    T *y = (T *)t.data[1][s.tensor];
    LBR_EACH4(i, s) {
        lbr_cuda_four<T> u = lbr_cuda_read4(x + i, s.end - i), v = lbr_cuda_read4(y + i, s.end - i);
        for (int k = 0; k < 4; k++) v.v[k] += scale * u.v[k];
        lbr_cuda_write4(y + i, s.end - i, v);
    }
}

struct Squares { double value[LBR_CUDA_WARPS]; };

// Operand 1: the sums of the tensor's blocks, in the workspace of its own call, as nothing may be allocated while a graph is captured.
template <class T> static __global__ void squares(Table<2> t)
{
    LBR_SHARED(Squares, room);
    const Share s = share_of(t);
    double sum = 0;
    lbr_cuda_each<LBR_CUDA_BLOCK>((const T *)t.data[0][s.tensor] + s.begin, s.end - s.begin, [&](int64_t, T v) { sum += (double)v * (double)v; });
    sum = lbr_cuda_combine<false>(room.value, sum, lbr_cuda_add());
    if (threadIdx.x == 0) ((double *)t.data[1][s.tensor])[s.begin / SHARE] = sum;
}

struct Totals { double value[LBR_MOST_TOGETHER]; };

// A warp a tensor; the norm takes them in their order, as when they come one at a time.
static __global__ void squares_end(Table<2> t, double *norm)
{
    LBR_SHARED(Totals, total);
    for (int i = threadIdx.x / 32; i < t.tensors; i += LBR_CUDA_WARPS) {
        const double *partial = (const double *)t.data[1][i];
        double sum = 0;
        for (int b = threadIdx.x % 32; b < t.first[i + 1] - t.first[i]; b += 32) sum += partial[b];
        sum = lbr_cuda_combine_warp(sum, lbr_cuda_add());
        if (threadIdx.x % 32 == 0) total.value[i] = sum;
    }
    __syncthreads();
    if (threadIdx.x) return;
    double sum = *norm;
    for (int i = 0; i < t.tensors; i++) sum += total.value[i];
    *norm = sum;
}

// ---- steps ----

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

// What all elements of a step share: one thread of a block works it out.
struct Factors { double gradient, rate, correction, keep; };

template <class T> static __global__ void adam(lbr_adam_attr a, Table<4> t, const double *control, const double *norm)
{
    LBR_SHARED(Factors, f);
    if (control[SKIP] != 0) return;
    if (threadIdx.x == 0) {
        double step = control[STEP] < 1 ? 1 : control[STEP], rate = control[LEARNING_RATE];
        f.gradient = gradient_factor(control, norm, a.clip);
        f.rate = rate / (1 - pow(a.beta1, step));
        f.correction = 1 / sqrt(1 - pow(a.beta2, step));
        f.keep = a.decoupled ? 1 - rate * a.weight_decay : 1;
    }
    __syncthreads();
    const Share s = share_of(t);
    const T *gs = (const T *)t.data[0][s.tensor];
    T *ps = (T *)t.data[1][s.tensor], *ms = (T *)t.data[2][s.tensor], *vs = (T *)t.data[3][s.tensor];
    const T factor = (T)f.gradient, rate = (T)f.rate, correction = (T)f.correction, keep = (T)f.keep, coupled = a.decoupled ? (T)0 : (T)a.weight_decay;
    const T b1 = (T)a.beta1, b2 = (T)a.beta2, c1 = (T)(1 - a.beta1), c2 = (T)(1 - a.beta2), eps = (T)a.eps;
    LBR_EACH4(i, s) {
        int left = s.end - i;
        lbr_cuda_four<T> g = lbr_cuda_read4(gs + i, left), p = lbr_cuda_read4(ps + i, left), m = lbr_cuda_read4(ms + i, left), v = lbr_cuda_read4(vs + i, left);
        for (int k = 0; k < 4; k++) {
            T d = g.v[k] * factor + coupled * p.v[k];
            m.v[k] = b1 * m.v[k] + c1 * d;
            v.v[k] = b2 * v.v[k] + c2 * d * d;
            p.v[k] = p.v[k] * keep - rate * m.v[k] / (sqrt(v.v[k]) * correction + eps);
        }
        lbr_cuda_write4(ps + i, left, p);
        lbr_cuda_write4(ms + i, left, m);
        lbr_cuda_write4(vs + i, left, v);
    }
}

template <class T> static __global__ void sgd(lbr_sgd_attr a, Table<3> t, const double *control, const double *norm)
{
    if (control[SKIP] != 0) return;
    const Share s = share_of(t);
    const T *gs = (const T *)t.data[0][s.tensor];
    T *ps = (T *)t.data[1][s.tensor], *vs = (T *)t.data[2][s.tensor];
    const T factor = (T)gradient_factor(control, norm, a.clip), rate = (T)control[LEARNING_RATE], w = (T)a.weight_decay, mu = (T)a.momentum;
    LBR_EACH4(i, s) {
        int left = s.end - i;
        lbr_cuda_four<T> g = lbr_cuda_read4(gs + i, left), p = lbr_cuda_read4(ps + i, left), v = lbr_cuda_read4(vs + i, left);
        for (int k = 0; k < 4; k++) {
            T d = g.v[k] * factor + w * p.v[k];
            v.v[k] = mu * v.v[k] + d;
            p.v[k] -= rate * (a.nesterov ? d + mu * v.v[k] : v.v[k]);
        }
        lbr_cuda_write4(ps + i, left, p);
        lbr_cuda_write4(vs + i, left, v);
    }
}

// ---- launches ----

int lbr_cuda_add_into_together(lbr_call *const *calls, int n)
{
    double scale = ((const lbr_add_into_attr *)calls[0]->attr)->scale;
    Table<2> t = table_of<2>(calls, n);
    lbr_cuda_grid g = grid_of(calls[0], t);
    if (!g.blocks.x) return 0;
    if (calls[0]->in[0].dtype == LBR_F64) LBR_LAUNCH(add_scaled<double>, g, t, scale);
    else LBR_LAUNCH(add_scaled<float>, g, t, (float)scale);
    return 0;
}

int lbr_cuda_square_sum_into_together(lbr_call *const *calls, int n)
{
    Table<2> t = table_of<2>(calls, n);
    lbr_cuda_grid g = grid_of(calls[0], t), one = {dim3(1), dim3(LBR_CUDA_BLOCK), g.stream};
    if (!g.blocks.x) return 0;
    for (int i = 0; i < n; i++) {
        int blocks = t.first[i + 1] - t.first[i];
        if (blocks && !(t.data[1][i] = lbr_cuda_workspace(calls[i], blocks * (int64_t)sizeof(double)))) return LBR_ENOMEM;
    }
    if (calls[0]->in[0].dtype == LBR_F64) LBR_LAUNCH(squares<double>, g, t);
    else LBR_LAUNCH(squares<float>, g, t);
    LBR_LAUNCH(squares_end, one, t, (double *)calls[0]->out[0].data);
    return 0;
}

int lbr_cuda_adam_together(lbr_call *const *calls, int n)
{
    const lbr_call *c = calls[0];
    Table<4> t = table_of<4>(calls, n);
    lbr_cuda_grid g = grid_of(c, t);
    lbr_adam_attr a = *(const lbr_adam_attr *)c->attr;
    if (!g.blocks.x) return 0;
    const double *control = (const double *)c->in[1].data, *norm = (const double *)c->in[2].data;
    if (c->in[0].dtype == LBR_F64) LBR_LAUNCH(adam<double>, g, a, t, control, norm);
    else LBR_LAUNCH(adam<float>, g, a, t, control, norm);
    return 0;
}

int lbr_cuda_sgd_together(lbr_call *const *calls, int n)
{
    const lbr_call *c = calls[0];
    Table<3> t = table_of<3>(calls, n);
    lbr_cuda_grid g = grid_of(c, t);
    lbr_sgd_attr a = *(const lbr_sgd_attr *)c->attr;
    if (!g.blocks.x) return 0;
    const double *control = (const double *)c->in[1].data, *norm = (const double *)c->in[2].data;
    if (c->in[0].dtype == LBR_F64) LBR_LAUNCH(sgd<double>, g, a, t, control, norm);
    else LBR_LAUNCH(sgd<float>, g, a, t, control, norm);
    return 0;
}

int lbr_cuda_add_into(lbr_call *c) { return lbr_cuda_add_into_together(&c, 1); }
int lbr_cuda_square_sum_into(lbr_call *c) { return lbr_cuda_square_sum_into_together(&c, 1); }
int lbr_cuda_adam(lbr_call *c) { return lbr_cuda_adam_together(&c, 1); }
int lbr_cuda_sgd(lbr_call *c) { return lbr_cuda_sgd_together(&c, 1); }

int lbr_cuda_optim_begin(lbr_call *c)
{
    lbr_cuda_grid one = {dim3(1), dim3(1), lbr_cuda_stream(c->device - LBR_CUDA)};
    lbr_optim_begin_attr a = *(const lbr_optim_begin_attr *)c->attr;
    LBR_LAUNCH(begin, one, a, (const double *)c->in[0].data, (double *)c->out[0].data);
    return 0;
}
