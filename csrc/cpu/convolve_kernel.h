/* convolve_kernel.h: the inner loops of convolve.c over GCC vectors; convolve.c includes it once an instruction set. Not a header: it makes code. Knows no tensors and no threads.
 *
 * convolve.c sets before: CV_SUFFIX, CV_TARGET (function attribute), CV_VL (floats a vector), CV_SHAPES (the register tiles: pixels x vectors), SPLAT, FMA (rounded once),
 * SOME(p, n) and PUT_SOME(p, v, n) (the first n < CV_VL floats), RAISE(v) and LIMIT(v) (max with 0, min with 6; NaN and -0 pass), SLOPED(v, s) (v * s where v < 0).
 * Each output is one accumulator that takes its products in the same order whatever the width, so every instruction set gives the same bits. */

#define CV_JOIN2(a, b) a##b
#define CV_JOIN(a, b) CV_JOIN2(a, b)
#define FN(name) CV_JOIN(name, CV_SUFFIX)
#define V FN(cv_v)
#define VU FN(cv_vu)
#define INLINE static inline __attribute__((always_inline)) CV_TARGET

typedef float V __attribute__((vector_size(CV_VL * 4)));
typedef float VU __attribute__((vector_size(CV_VL * 4), aligned(4), may_alias));

INLINE V FN(read)(const float *p, int64_t n) { return n >= CV_VL ? (V)*(const VU *)p : SOME(p, n); }

/* v, plus the residual, activated, to y: n channels. */
INLINE void FN(finish)(const struct job *j, V v, const float *residual, V slope, float *y, int64_t n)
{
    if (residual) v += FN(read)(residual, n);
    if (j->act == 1 || j->act == 2) v = RAISE(v);
    if (j->act == 2) v = LIMIT(v);
    if (j->act == 3) v = SLOPED(v, slope);
    if (n >= CV_VL) *(VU *)y = (VU)v;
    else PUT_SOME(y, v, n);
}

/* T pixels x N packed blocks of channels, the first of them `block`. from: where each pixel's window begins, per tap [taps][MOST_TILE], `run` numbers to be read there; `pixel`: the first output. */
INLINE void FN(tile)(const struct job *j, const float *const *from, int64_t taps, int64_t run, int64_t block, int64_t pixel, int valid, const int T, const int N)
{
    int64_t K = taps * run, o = block * CV_VL;
    const float *w = j->weights + block * K * CV_VL;
    V acc[MOST_TILE * MOST_WIDE];
    UNROLL for (int n = 0; n < N; n++) {
        V bias = j->bias ? FN(read)(j->bias + o + n * CV_VL, j->O - o - n * CV_VL) : SPLAT(0);
        UNROLL for (int m = 0; m < T; m++) acc[m * N + n] = bias;
    }
    for (int64_t t = 0; t < taps; t++, from += MOST_TILE) {
        const float *p[MOST_TILE];
        UNROLL for (int m = 0; m < T; m++) p[m] = from[m];
        for (int64_t i = 0; i < run; i++, w += CV_VL) {
            V weight[MOST_WIDE];
            UNROLL for (int n = 0; n < N; n++) weight[n] = *(const V *)(w + n * K * CV_VL);
            UNROLL for (int m = 0; m < T; m++) {
                V x = SPLAT(p[m][i]);
                UNROLL for (int n = 0; n < N; n++) acc[m * N + n] = FMA(x, weight[n], acc[m * N + n]);
            }
        }
    }
    UNROLL for (int n = 0; n < N; n++) {
        int64_t at = o + n * CV_VL, left = j->O - at;
        V slope = j->act == 3 ? FN(read)(j->slope + at, left) : SPLAT(0);
        UNROLL for (int m = 0; m < T; m++)
            if (m < valid) FN(finish)(j, acc[m * N + n], j->residual ? j->residual + (pixel + m) * j->O + at : NULL, slope, j->y + (pixel + m) * j->O + at, left);
    }
}

#define TILE_OF(T, N)                                                                                                                               \
    CV_TARGET static void FN(tile##T##x##N)(const struct job *j, const float *const *from, int64_t taps, int64_t run, int64_t block, int64_t pixel, int valid) \
    {                                                                                                                                               \
        FN(tile)(j, from, taps, run, block, pixel, valid, T, N);                                                                                    \
    }
CV_SHAPES(TILE_OF)
#undef TILE_OF

/* Outputs ox .. ox + 7 of a row, all channels, taps in columns. from: windows [taps][MOST_TILE], or NULL where all lie inside: base is then the first one, tap_x its taps. */
CV_TARGET static void FN(columns)(const struct job *j, const float *const *from, const float *base, const int64_t *tap_x, const int64_t *tap_w, int64_t pixel, int valid)
{
    int64_t taps = j->KH * j->KW, step = j->stride[1] * j->C;
    for (int64_t o = 0; o < j->C; o += CV_VL) {
        int64_t left = j->C - o;
        V bias = j->bias ? FN(read)(j->bias + o, left) : SPLAT(0), slope = j->act == 3 ? FN(read)(j->slope + o, left) : SPLAT(0), acc[MOST_TILE];
        UNROLL for (int m = 0; m < MOST_TILE; m++) acc[m] = bias;
        if (!from && left >= CV_VL)
            for (int64_t t = 0; t < taps; t++) {
                const float *q = base + tap_x[t] + o;
                V w = *(const V *)(j->weights + tap_w[t] + o);
                UNROLL for (int m = 0; m < MOST_TILE; m++) acc[m] = FMA((V)*(const VU *)(q + m * step), w, acc[m]);
            }
        else
            for (int64_t t = 0; t < taps; t++) {
                V w = *(const V *)(j->weights + tap_w[t] + o);
                UNROLL for (int m = 0; m < MOST_TILE; m++) acc[m] = FMA(FN(read)((from ? from[t * MOST_TILE + m] : base + tap_x[t] + m * step) + o, left), w, acc[m]);
            }
        UNROLL for (int m = 0; m < MOST_TILE; m++)
            if (m < valid) FN(finish)(j, acc[m], j->residual ? j->residual + (pixel + m) * j->C + o : NULL, slope, j->y + (pixel + m) * j->C + o, left);
    }
}

#undef CV_JOIN2
#undef CV_JOIN
#undef FN
#undef V
#undef VU
#undef INLINE
#undef CV_SUFFIX
#undef CV_TARGET
#undef CV_VL
#undef CV_SHAPES
#undef SPLAT
#undef FMA
#undef SOME
#undef PUT_SOME
#undef RAISE
#undef LIMIT
#undef SLOPED
