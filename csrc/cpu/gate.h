/* gate.h: x / (1 + e^-x) and 1 / (1 + e^-x) to about 3e-7, for loops of AVX-512 that have their numbers in registers. */
#ifndef LBR_CPU_GATE_H
#define LBR_CPU_GATE_H

#include "vectors.h"

#include <stdbool.h>

#if defined(__x86_64__)
/* n vectors of sixteen, at most eight, step by step beside one another: each alone waits for its last step. silu: with the x.
 * e^-x = 2^n 2^r by a polynomial in r, one step of Newton's behind the estimate of the reciprocal. */
__attribute__((target("avx512f,avx512dq"), always_inline)) static inline void lbr_gates(__m512 *v, const int n, const bool silu)
{
    const float taylor[7] = {1.540353039e-4f, 1.333355815e-3f, 9.618129108e-3f, 5.550410866e-2f, 2.402265070e-1f, 6.931471806e-1f, 1};
    const __m512 one = _mm512_set1_ps(1), two = _mm512_set1_ps(2), least = _mm512_set1_ps(-125), most = _mm512_set1_ps(125);
    __m512 r[8], whole[8], p[8], g[8];
#define EACH UNROLL for (int k = 0; k < n; k++)
    EACH r[k] = _mm512_mul_ps(v[k], _mm512_set1_ps(-1.44269504f));
    EACH r[k] = _mm512_min_ps(most, r[k]);
    EACH r[k] = _mm512_max_ps(least, r[k]);
    EACH whole[k] = _mm512_roundscale_ps(r[k], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    EACH r[k] = _mm512_sub_ps(r[k], whole[k]);
    EACH p[k] = _mm512_set1_ps(taylor[0]);
    UNROLL for (int i = 1; i < 7; i++) EACH p[k] = _mm512_fmadd_ps(p[k], r[k], _mm512_set1_ps(taylor[i]));
    EACH p[k] = _mm512_scalef_ps(p[k], whole[k]);
    EACH p[k] = _mm512_add_ps(p[k], one);
    EACH g[k] = _mm512_rcp14_ps(p[k]);
    EACH p[k] = _mm512_fnmadd_ps(p[k], g[k], two);
    EACH g[k] = _mm512_mul_ps(g[k], p[k]);
    EACH v[k] = silu ? _mm512_mul_ps(v[k], g[k]) : g[k];
#undef EACH
}
#endif

#endif
