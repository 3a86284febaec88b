/* cpu.h: what the CPU kernels share: element conversion, vector-friendly math, walking over strides. */
#ifndef LBR_CPU_H
#define LBR_CPU_H

#include "../clones.h"
#include "../core.h"

#include <math.h>

/* Blocks of elements to and from wider types (convert.c); stride counts elements. i32 and u8 saturate and round to nearest even, NaN -> 0. */
void lbr_load_f32(int dtype, const char *p, int64_t stride, int64_t n, float *out);
void lbr_store_f32(int dtype, const float *in, int64_t n, char *p, int64_t stride);
void lbr_load_f64(int dtype, const char *p, int64_t stride, int64_t n, double *out);
void lbr_store_f64(int dtype, const double *in, int64_t n, char *p, int64_t stride);
float lbr_half_to_float(uint16_t h);
uint16_t lbr_float_to_half(float f);

/* Up to three inputs broadcast to one output: dims collapsed, strides in bytes; operand 0 is the output. */
typedef struct lbr_walk {
    int ndim, operands;
    int64_t shape[LBR_MAX_DIMS];
    int64_t stride[4][LBR_MAX_DIMS];
    char *data[4];
} lbr_walk;
void lbr_walk_init(lbr_walk *w, const lbr_tensor *out, const lbr_tensor *const *in, int nin);
/* Calls inner for runs along the last collapsed dim, over all threads. */
void lbr_walk_run(const lbr_walk *w, void (*inner)(void *ctx, int64_t n, char *const *data, const int64_t *stride), void *ctx);

/* Runs a kernel of f32 on a call whose operands are f16 or bf16: dense inputs are widened, outputs rounded once (widen.c). */
int lbr_widened(lbr_call *c, lbr_kernel_fn kernel);

/* y [m,n] = a [m,k] b [k,n], dense f32; ta, tb: a, b are given transposed. 1: too large for it or no memory, nothing done. */
int lbr_gemm_small(int ta, int tb, int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *y);

/* In place: y[i] = act(y[i]) for an activation of libration.h that has no slope (activate.c). The same bits on every processor. */
void lbr_activate(int act, float *y, int64_t n);
/* The same to about 3e-7, whatever is quickest on this processor. */
void lbr_activate_loose(int act, float *y, int64_t n);
/* The same of one number, for the slow twins. */
double lbr_activated(int act, double v);

/* matmul of i32 (matmul_whole.c). */
int lbr_matmul_whole(lbr_call *c);

/* exp in f32, relative error below 2e-7, exact at infinities, NaN passes. Branch-free, so loops over it vectorise. Source: Cephes' range reduction. */
static inline float lbr_expf(float x)
{
    float c = x > 88.72283f ? 88.72283f : x;
    c = c < -87.33654f ? -87.33654f : c;
    float n = c * 1.44269504f + 12582912.0f;
    union { float f; int32_t i; } bits = {.f = n};
    n -= 12582912.0f;
    float r = c - n * 0.693145752f;
    r -= n * 1.42860677e-6f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t exponent = bits.i - 0x4b400000;
    /* two factors, so that 2^128 does not overflow before the product */
    union { uint32_t i; float f; } half = {.i = (uint32_t)((exponent >> 1) + 127) << 23}, rest = {.i = (uint32_t)(exponent - (exponent >> 1) + 127) << 23};
    float y = p * half.f * rest.f;
    y = x > 88.72283f ? INFINITY : y;
    return x < -87.33654f ? 0.0f : y;
}

static inline float lbr_sigmoidf(float x) { return 1.0f / (1.0f + lbr_expf(-x)); }

/* erf in f32, relative error below 3e-7: a polynomial near 0, 1 - exp(-polynomial) beyond 1 (least squares fits of our own). Branch-free. */
static inline float lbr_erff(float x)
{
    float a = fabsf(x), z = x * x;
    float p = -5.66799519e-4f;
    p = p * z + 4.92741985e-3f;
    p = p * z - 2.67208936e-2f;
    p = p * z + 1.12805789e-1f;
    p = p * z - 3.76123936e-1f;
    p = p * z + 1.12837915f;
    float t = a < 4.0f ? a : 4.0f, q = -1.87370092e-4f;
    q = q * t + 2.95709163e-3f;
    q = q * t - 2.1874697e-2f;
    q = q * t + 1.03181084e-1f;
    q = q * t + 6.38061658e-1f;
    q = q * t + 1.1271379f;
    q = q * t + 3.29847067e-4f;
    float large = copysignf(1.0f - lbr_expf(-q), x);
    return a > 1.0f ? large : p * x;
}

/* tanh in f32, relative error below 3e-7. Source: Cephes. */
static inline float lbr_tanhf(float x)
{
    float a = fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float small = p * z * x + x;
    float e = lbr_expf(-2.0f * a);
    float large = copysignf((1.0f - e) / (1.0f + e), x);
    return a < 0.625f ? small : large;
}

#endif
