// convert.cuh: elements of every dtype on the device: the type that each computes in, and conversions that answer what csrc/cpu/convert.c answers.
#pragma once
#include "cuda.cuh"

#include <math.h>

// CASE(dtype, element type) for each dtype.
#define LBR_CUDA_TYPES(CASE) \
    CASE(LBR_F32, float) CASE(LBR_F64, double) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16) CASE(LBR_U8, uint8_t) CASE(LBR_I32, int32_t)

static __host__ __device__ __forceinline__ float lbr_cuda_load(float v) { return v; }
static __host__ __device__ __forceinline__ double lbr_cuda_load(double v) { return v; }
static __host__ __device__ __forceinline__ float lbr_cuda_load(__half v) { return __half2float(v); }
static __host__ __device__ __forceinline__ float lbr_cuda_load(__nv_bfloat16 v) { return __bfloat162float(v); }
static __host__ __device__ __forceinline__ int lbr_cuda_load(uint8_t v) { return v; }
static __host__ __device__ __forceinline__ int lbr_cuda_load(int32_t v) { return v; }

// From the type that an op computed in to the element: integers saturate.
template <class S> struct lbr_cuda_element;
template <> struct lbr_cuda_element<float> { static __host__ __device__ float of(float v) { return v; } };
template <> struct lbr_cuda_element<double> { static __host__ __device__ double of(double v) { return v; } };
template <> struct lbr_cuda_element<__half> { static __host__ __device__ __half of(float v) { return __float2half(v); } };
template <> struct lbr_cuda_element<__nv_bfloat16> { static __host__ __device__ __nv_bfloat16 of(float v) { return __float2bfloat16(v); } };
template <> struct lbr_cuda_element<uint8_t> { static __host__ __device__ uint8_t of(int v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); } };
template <> struct lbr_cuda_element<int32_t> { static __host__ __device__ int32_t of(int v) { return v; } };
template <class S, class T> static __host__ __device__ __forceinline__ S lbr_cuda_store(T v) { return lbr_cuda_element<S>::of(v); }

// Between dtypes: to integers by rounding to nearest even and saturating, NaN becomes 0; to the same dtype bit for bit.
template <class D> struct lbr_cuda_to {
    template <class V> static __host__ __device__ D of(V v) { return lbr_cuda_store<D>((float)v); }
};
template <> struct lbr_cuda_to<double> {
    template <class V> static __host__ __device__ double of(V v) { return (double)v; }
};
template <> struct lbr_cuda_to<uint8_t> {
    template <class V> static __host__ __device__ uint8_t of(V v) { return v != v || v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)rint((double)v); }
};
template <> struct lbr_cuda_to<int32_t> {
    template <class V> static __host__ __device__ int32_t of(V v)
    {
        double d = (double)v;
        return d != d ? 0 : d <= -2147483648. ? INT32_MIN : d >= 2147483647. ? INT32_MAX : (int32_t)rint(d);
    }
};
template <class D> struct lbr_cuda_same {
    static __host__ __device__ D from(D v) { return v; }
    template <class S> static __host__ __device__ D from(S v) { return lbr_cuda_to<D>::of(lbr_cuda_load(v)); }
};
template <class D, class S> static __host__ __device__ __forceinline__ D lbr_cuda_cast(S v) { return lbr_cuda_same<D>::from(v); }

// Four elements that lie side by side, moved at once where all four are there and their place allows it.
template <class S> struct alignas(4 * sizeof(S)) lbr_cuda_four { S v[4]; };
template <class S> static __device__ __forceinline__ lbr_cuda_four<S> lbr_cuda_read4(const S *p, int64_t left)
{
    if (left >= 4 && (uintptr_t)p % sizeof(lbr_cuda_four<S>) == 0) return *(const lbr_cuda_four<S> *)p;
    lbr_cuda_four<S> q = {};
    for (int k = 0; k < 4; k++)
        if (k < left) q.v[k] = p[k];
    return q;
}
template <class S> static __device__ __forceinline__ void lbr_cuda_write4(S *p, int64_t left, const lbr_cuda_four<S> &q)
{
    if (left >= 4 && (uintptr_t)p % sizeof(lbr_cuda_four<S>) == 0) *(lbr_cuda_four<S> *)p = q;
    else
        for (int k = 0; k < 4; k++)
            if (k < left) p[k] = q.v[k];
}
