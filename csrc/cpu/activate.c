/* activate.c: the activations that layers apply to rows that they have just made. Gradients and the ops of the same names are elsewhere.
 * Compiled without contraction of a * b + c, so that every processor gives the same bits. */
#include "cpu.h"
#include "gate.h"

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
__attribute__((target("avx512f,avx512dq"))) static void gate_avx512(float *y, int64_t n, bool silu)
{
    __m512 v[8];
    for (; n >= 128; y += 128, n -= 128) {
        UNROLL for (int k = 0; k < 8; k++) v[k] = _mm512_loadu_ps(y + 16 * k);
        lbr_gates(v, 8, silu);
        UNROLL for (int k = 0; k < 8; k++) _mm512_storeu_ps(y + 16 * k, v[k]);
    }
    for (; n > 0; y += 16, n -= 16) {
        __mmask16 some = n < 16 ? (__mmask16)((1u << n) - 1) : 0xffff;
        v[0] = _mm512_maskz_loadu_ps(some, y);
        lbr_gates(v, 1, silu);
        _mm512_mask_storeu_ps(y, some, v[0]);
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
