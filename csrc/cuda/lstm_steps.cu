// lstm_steps.cu: the LSTM of any size and type, a product and a launch a step: what lstm_fused does not take. W_hh is read once a step for all sequences.
#include "lstm.cuh"
#include "product.cuh"

enum { THREADS = 256 };

static lbr_cuda_grid spread(int64_t n, cudaStream_t stream) { return {dim3((unsigned)((n + THREADS - 1) / THREADS)), dim3(THREADS), stream}; }

// Step t of unit u of a sequence a thread; recurrent [B][even][4] = h r^T, or NULL. The cell state waits in cn.
template <class S> static __global__ void step_forward(lbr_cuda_lstm a, int t, const S *recurrent)
{
    typedef typename lbr_lstm_wide<S>::type W;
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, b = i / a.H;
    const int u = (int)(i - b * a.H);
    if (b >= a.B) return;
    const S *in = (const S *)a.input + ((b * a.pb + t * a.pt) * a.even + u) * 4;
    W v[4];
    for (int g = 0; g < 4; g++) {
        v[g] = lbr_cuda_load(in[g]) + ((const W *)a.b)[g * a.H + u];
        if (recurrent) v[g] += lbr_cuda_load(recurrent[(b * a.even + u) * 4 + g]);
    }
    W *cn = (W *)a.cn + i, c = t > 0 ? *cn : a.c0 ? ((const W *)a.c0)[i] : (W)0;
    const W gi = lbr_lstm_sigmoid(v[0]), gf = lbr_lstm_sigmoid(v[1]), gn = tanh(v[2]), go = lbr_lstm_sigmoid(v[3]);
    c = gf * c + gi * gn;
    const S h = lbr_cuda_store<S>(go * tanh(c));
    *cn = c;
    ((S *)a.y)[(b * a.steps + t) * a.H + u] = h;
    if (t == a.steps - 1) ((S *)a.hn)[i] = h;
    if (a.gates) {
        int width, at = lbr_lstm_place(u, a.H, &width);
        S *save = (S *)a.gates + ((int64_t)t * a.B + b) * 4 * a.H + at;
        save[0] = lbr_cuda_store<S>(gi), save[width] = lbr_cuda_store<S>(gf), save[2 * width] = lbr_cuda_store<S>(gn), save[3 * width] = lbr_cuda_store<S>(go);
        ((W *)a.cells)[((int64_t)t * a.B + b) * a.H + u] = c;
    }
}

// dh waits in dh0 and dc in dc0.
template <class S> static __global__ void step_backward(lbr_cuda_lstm a, lbr_cuda_lstm_grad g, int t)
{
    typedef typename lbr_lstm_wide<S>::type W;
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, b = i / a.even;
    const int u = (int)(i - b * a.even);
    if (b >= a.B) return;
    S *slope = (S *)g.slopes + ((b * a.steps + t) * a.even + u) * 4;
    if (u >= a.H) {
        for (int k = 0; k < 4; k++) slope[k] = lbr_cuda_store<S>((W)0);
        return;
    }
    const int64_t at = b * a.H + u, kept = ((int64_t)t * a.B + b) * a.H + u;
    int width, place = lbr_lstm_place(u, a.H, &width);
    const S *v = (const S *)a.gates + ((int64_t)t * a.B + b) * 4 * a.H + place;
    const W *cells = (const W *)a.cells;
    const bool last = t == a.steps - 1;
    const W gi = lbr_cuda_load(v[0]), gf = lbr_cuda_load(v[width]), gn = lbr_cuda_load(v[2 * width]), go = lbr_cuda_load(v[3 * width]), tc = tanh(cells[kept]);
    const W old = t > 0 ? cells[kept - (int64_t)a.B * a.H] : a.c0 ? ((const W *)a.c0)[at] : (W)0;
    W dh = last ? (g.dhn ? (W)lbr_cuda_load(((const S *)g.dhn)[at]) : (W)0) : (W)lbr_cuda_load(((const S *)g.dh0)[at]);
    W dc = last ? (g.dcn ? ((const W *)g.dcn)[at] : (W)0) : ((const W *)g.dc0)[at];
    if (g.dy) dh += lbr_cuda_load(((const S *)g.dy)[b * g.dyb + t * g.dyt + u]);
    dc += dh * go * (1 - tc * tc);
    slope[0] = lbr_cuda_store<S>(dc * gn * gi * (1 - gi));
    slope[1] = lbr_cuda_store<S>(dc * old * gf * (1 - gf));
    slope[2] = lbr_cuda_store<S>(dc * gi * (1 - gn * gn));
    slope[3] = lbr_cuda_store<S>(dh * tc * go * (1 - go));
    ((W *)g.dc0)[at] = dc * gf;
}

void lbr_cuda_lstm_steps_forward(int dtype, const lbr_cuda_lstm *a, const void *packed, void *room, cudaStream_t stream)
{
    const lbr_cuda_grid g = spread((int64_t)a->B * a->H, stream);
    const int size = lbr_dtype_size(dtype);
    for (int t = 0; t < a->steps; t++) {
        const char *before = t > 0 ? (const char *)a->y + (int64_t)(t - 1) * a->H * size : (const char *)a->h0;
        if (before)
            lbr_cuda_product(dtype, lbr_cuda_rows(before, t > 0 ? (int64_t)a->steps * a->H : a->H, 1), lbr_cuda_rows(packed, a->H, 1), NULL, 0, room, a->B, 4 * a->even, a->H, 1, 0, 0, stream);
        switch (dtype) {
#define CASE(id, S) case id: LBR_LAUNCH(step_forward<S>, g, *a, t, before ? (const S *)room : (const S *)NULL); break;
            CASE(LBR_F32, float) CASE(LBR_F64, double) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16)
#undef CASE
        }
    }
}

void lbr_cuda_lstm_steps_backward(int dtype, const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, const void *packed, cudaStream_t stream)
{
    const lbr_cuda_grid grid = spread((int64_t)a->B * a->even, stream);
    const int64_t row = (int64_t)a->even * 4 * lbr_dtype_size(dtype);
    for (int t = a->steps - 1; t >= 0; t--) {
        switch (dtype) {
#define CASE(id, S) case id: LBR_LAUNCH(step_backward<S>, grid, *a, *g, t); break;
            CASE(LBR_F32, float) CASE(LBR_F64, double) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16)
#undef CASE
        }
        lbr_cuda_product(dtype, lbr_cuda_rows((const char *)g->slopes + t * row, (int64_t)a->steps * a->even * 4, 1), lbr_cuda_rows(packed, 1, a->H), NULL, 0, g->dh0, a->B, a->H,
                         4 * a->even, 1, 0, 0, stream);
    }
}
