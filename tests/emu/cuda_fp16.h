// cuda_fp16.h (emulator): half precision numbers as csrc/cuda uses them.
#pragma once
#include "cuda_runtime.h"

struct __half {
    _Float16 v;
    __half() = default;
    __half(float f) : v((_Float16)f) {}
    operator float() const { return (float)v; }
};
struct __half2 { __half x, y; };
static inline __half __float2half(float f) { return __half(f); }
static inline __half __float2half_rn(float f) { return __half(f); }
static inline float __half2float(__half h) { return (float)h.v; }
static inline __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
static inline float __low2float(__half2 h) { return (float)h.x.v; }
static inline float __high2float(__half2 h) { return (float)h.y.v; }
