// activate.cuh: the activations that products and convolutions apply to their sums; those that need a slope are the caller's. The twins are in csrc/cpu/activate.c.
#pragma once
#include "convert.cuh"

static __device__ __forceinline__ float lbr_cuda_erf(float v) { return erff(v); }
static __device__ __forceinline__ double lbr_cuda_erf(double v) { return erf(v); }

template <class T> static __device__ __attribute__((noinline)) T lbr_cuda_curved(int act, T v) // a call, as each of many kernels would have it else
{
    const T line = v / 6 + (T).5, gate = line < 0 ? (T)0 : line > 1 ? (T)1 : line;
    switch (act) {
    case LBR_ACT_SILU: return v / (1 + exp(-v));
    case LBR_ACT_HARD_SWISH: return v * gate;
    case LBR_ACT_SIGMOID: return 1 / (1 + exp(-v));
    case LBR_ACT_HARD_SIGMOID: return gate;
    case LBR_ACT_TANH: return tanh(v);
    case LBR_ACT_GELU: return (T).5 * v * (1 + lbr_cuda_erf(v * (T)0.7071067811865476));
    case LBR_ACT_MISH: return v * tanh(v > 30 ? v : log1p(exp(v)));
    }
    return v;
}

template <class T> static __device__ __forceinline__ T lbr_cuda_activate(int act, T v)
{
    if (act == LBR_ACT_NONE) return v;
    if (act == LBR_ACT_RELU || act == LBR_ACT_RELU6) return v < 0 ? (T)0 : act == LBR_ACT_RELU6 && v > 6 ? (T)6 : v; // NaN passes
    return lbr_cuda_curved(act, v);
}
