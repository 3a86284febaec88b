// ptx.h (emulator): what csrc/cuda/ptx.cuh says in PTX, with the fragments that the chip has. Copies that do not wait arrive when they are waited for, not before.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

namespace emu {
template <class T> static inline void halves(unsigned two, float *out)
{
    T v[2];
    memcpy(v, &two, 4);
    out[0] = (float)v[0], out[1] = (float)v[1];
}

template <class T> static inline void mma(float *d, const unsigned *a, const unsigned *b)
{
    float mine[12]; // a's eight numbers, b's four
    for (int i = 0; i < 4; i++) halves<T>(a[i], mine + 2 * i);
    for (int i = 0; i < 2; i++) halves<T>(b[i], mine + 8 + 2 * i);
    const char *all = (const char *)warp_exchange(0xffffffffu, mine, sizeof mine);
    unsigned g = lane() >> 2, t = lane() & 3;
    for (unsigned half = 0; half < 2; half++) // k from 0 and from 8
        for (unsigned j = 0; j < 4; j++) {
            const float *from = (const float *)(all + 64 * (4 * g + j)), *c0 = (const float *)(all + 64 * (8 * t + j)), *c1 = c0 + 64;
            for (unsigned e = 0; e < 2; e++) {
                float upper = from[4 * half + e], lower = from[4 * half + 2 + e], left = c0[8 + 2 * half + e], right = c1[8 + 2 * half + e];
                d[0] += upper * left, d[1] += upper * right, d[2] += lower * left, d[3] += lower * right;
            }
        }
}

template <int MATRICES> static inline void ldmatrix(unsigned *r, const void *row, bool transposed)
{
    if (lane() < 8 * MATRICES && (uintptr_t)row % 16) {
        fprintf(stderr, "emulated device: ldmatrix of a row that is not aligned to 16 bytes\n");
        abort();
    }
    const void *slots = warp_exchange(0xffffffffu, &row, sizeof row);
    unsigned g = lane() >> 2, t = lane() & 3;
    for (unsigned i = 0; i < MATRICES; i++) {
        uint16_t two[2];
        for (unsigned e = 0; e < 2; e++) two[e] = emu_read<const uint16_t *>(slots, 8 * i + (transposed ? 2 * t + e : g))[transposed ? g : 2 * t + e];
        memcpy(&r[i], two, 4);
    }
}

// As far off as the chip may be: 11 bits of fraction, the rest cut off.
static inline float tanh_approx(float v)
{
    const float y = tanhf(v);
    return y != y ? y : __uint_as_float(__float_as_uint(y) & 0xfffff000u);
}
}
