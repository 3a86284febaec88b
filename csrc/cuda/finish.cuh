// finish.cuh: what convolutions do to their sums: bias first, then residual, activation, store. The rounding is that of csrc/cpu/convolve_kernel.h.
#pragma once
#include "activate.cuh"
#include "tile.cuh"

// A row of numbers of any floating dtype; NULL data: zeros.
struct lbr_cuda_row {
    const void *data;
    int dtype;
    __device__ __forceinline__ double at(int i) const
    {
        switch (dtype) {
        case LBR_F64: return ((const double *)data)[i];
        case LBR_F16: return lbr_cuda_load(((const __half *)data)[i]);
        case LBR_BF16: return lbr_cuda_load(((const __nv_bfloat16 *)data)[i]);
        default: return ((const float *)data)[i];
        }
    }
};

// S: element, T: what sums are made in.
template <class S, class T> struct lbr_cuda_finish {
    lbr_cuda_row bias, slope;
    const S *residual;
    S *y;
    int act;
    __device__ __forceinline__ T start(int channel) const { return bias.data ? (T)bias.at(channel) : (T)0; }
    __device__ __forceinline__ T activate(T v, int channel) const
    {
        if (act == LBR_ACT_PRELU) return v < 0 ? v * (T)slope.at(channel) : v;
        return lbr_cuda_activate(act, v);
    }
    // W numbers from channel `channel` on, element `at` of y
    template <int W> __device__ __forceinline__ void put(int64_t at, int channel, const T *v) const
    {
        lbr_cuda_pack<S, W> out, more;
        if (residual) more = *(const lbr_cuda_pack<S, W> *)(residual + at);
        LBR_UNROLL for (int e = 0; e < W; e++) out.v[e] = lbr_cuda_store<S>(activate(residual ? v[e] + (T)lbr_cuda_load(more.v[e]) : v[e], channel + e));
        *(lbr_cuda_pack<S, W> *)(y + at) = out;
    }
};

// What a forward convolution was called with: x, w, b, residual, slope -> y. Bias and slope may be of any floating dtype.
template <class S, class T> static lbr_cuda_finish<S, T> lbr_cuda_finish_of(const lbr_call *c, int act)
{
    const lbr_tensor *b = &c->in[2], *residual = &c->in[3], *slope = &c->in[4];
    return {{lbr_present(b) ? b->data : NULL, b->dtype}, {lbr_present(slope) ? slope->data : NULL, slope->dtype}, lbr_present(residual) ? (const S *)residual->data : NULL,
            (S *)c->out[0].data, act};
}
