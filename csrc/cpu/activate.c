/* activate.c: the activations that layers apply to rows that they have just made. Gradients and the ops of the same names are elsewhere.
 * Compiled without contraction of a * b + c, so that every processor gives the same bits. */
#include "cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static inline float hard_sigmoid(float v)
{
    v = v * (1 / 6.0f) + 0.5f;
    v = v < 0 ? 0 : v;
    return v > 1 ? 1 : v;
}

/* x tanh(log(1 + e^x)), the tanh as a ratio of e^x alone */
static inline float mish(float v)
{
    float e = lbr_expf(v > 20 ? 20 : v), n = e * (e + 2);
    return v * (n / (n + 2));
}

#define ROW(expression) for (int64_t i = 0; i < n; i++) { float v = y[i]; y[i] = (expression); } break;

LBR_CLONES void lbr_activate(int act, float *y, int64_t n)
{
    switch (act) {
    case LBR_ACT_RELU: ROW(v < 0 ? 0 : v)
    case LBR_ACT_RELU6: ROW(v < 0 ? 0 : v > 6 ? 6 : v)
    case LBR_ACT_SILU: ROW(v * lbr_sigmoidf(v))
    case LBR_ACT_HARD_SWISH: ROW(v * hard_sigmoid(v))
    case LBR_ACT_SIGMOID: ROW(lbr_sigmoidf(v))
    case LBR_ACT_HARD_SIGMOID: ROW(hard_sigmoid(v))
    case LBR_ACT_TANH: ROW(lbr_tanhf(v))
    case LBR_ACT_GELU: ROW(0.5f * v * (1 + lbr_erff(v * 0.70710678f)))
    case LBR_ACT_MISH: ROW(mish(v))
    }
}

#if defined(__x86_64__)
/* x / (1 + e^-x), or without the x: e^-x = 2^n 2^r by a polynomial in r, one step of Newton's behind the estimate of the reciprocal */
__attribute__((target("avx512f,avx512dq"))) static void gate_avx512(float *y, int64_t n, bool silu)
{
    static const float taylor[6] = {1.540353039e-4f, 1.333355815e-3f, 9.618129108e-3f, 5.550410866e-2f, 2.402265070e-1f, 6.931471806e-1f};
    const __m512 one = _mm512_set1_ps(1), two = _mm512_set1_ps(2), limit = _mm512_set1_ps(125);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        __m512 v = _mm512_maskz_loadu_ps(some, y + i), t = _mm512_mul_ps(v, _mm512_set1_ps(-1.44269504f));
        t = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), limit), _mm512_min_ps(limit, t));
        __m512 whole = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(t, whole), p = _mm512_set1_ps(taylor[0]);
        for (int k = 1; k < 6; k++) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(taylor[k]));
        p = _mm512_scalef_ps(_mm512_fmadd_ps(p, r, one), whole);
        __m512 d = _mm512_add_ps(p, one), g = _mm512_rcp14_ps(d);
        g = _mm512_mul_ps(g, _mm512_fnmadd_ps(d, g, two));
        _mm512_mask_storeu_ps(y + i, some, silu ? _mm512_mul_ps(v, g) : g);
    }
}
#endif

void lbr_activate_loose(int act, float *y, int64_t n)
{
#if defined(__x86_64__)
    if (lbr_cpu_isa() == LBR_ISA_AVX512 && (act == LBR_ACT_SILU || act == LBR_ACT_SIGMOID)) {
        gate_avx512(y, n, act == LBR_ACT_SILU);
        return;
    }
#endif
    lbr_activate(act, y, n);
}

double lbr_activated(int act, double v)
{
    double gate = v < -3 ? 0 : v > 3 ? 1 : v / 6 + 0.5;
    switch (act) {
    case LBR_ACT_RELU: return v < 0 ? 0 : v;
    case LBR_ACT_RELU6: return v < 0 ? 0 : v > 6 ? 6 : v;
    case LBR_ACT_SILU: return v / (1 + exp(-v));
    case LBR_ACT_HARD_SWISH: return v * gate;
    case LBR_ACT_SIGMOID: return 1 / (1 + exp(-v));
    case LBR_ACT_HARD_SIGMOID: return gate;
    case LBR_ACT_TANH: return tanh(v);
    case LBR_ACT_GELU: return 0.5 * v * (1 + erf(v * M_SQRT1_2));
    case LBR_ACT_MISH: return v * tanh(v > 30 ? v : log1p(exp(v)));
    }
    return v;
}
