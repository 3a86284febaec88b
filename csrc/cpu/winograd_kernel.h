/* winograd_kernel.h: the inner loops of winograd.c over GCC vectors; winograd.c includes it once an instruction set. Not a header: it makes code. Knows no tensors and no threads.
 *
 * winograd.c sets before: WG_SUFFIX, WG_TARGET (function attribute), WG_VL (floats a vector), WG_SHAPES (the register tiles: most rows x vectors), SPLAT, FMA,
 * SOME(p, n) and PUT_SOME(p, v, n) (the first n < WG_VL floats). */

#define FN(name) JOIN(name, WG_SUFFIX)
#define V FN(wg_v)
#define VU FN(wg_vu)
#define INLINE static inline __attribute__((always_inline)) WG_TARGET

typedef float V __attribute__((vector_size(WG_VL * 4)));
typedef float VU __attribute__((vector_size(WG_VL * 4), aligned(4), may_alias));

INLINE V FN(read)(const float *p, int64_t n) { return n >= WG_VL ? (V)*(const VU *)p : SOME(p, n); }

/* The input's transform of six numbers, in place. */
INLINE void FN(analyse)(V *d, const int step)
{
    V d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    V a = FMA(SPLAT(-4), d2, d4), b = FMA(SPLAT(-4), d1, d3), c = d4 - d2, e = (d3 - d1) * SPLAT(2);
    d[0] = FMA(SPLAT(4), d0, FMA(SPLAT(-5), d2, d4));
    d[step] = a + b;
    d[2 * step] = a - b;
    d[3 * step] = c + e;
    d[4 * step] = c - e;
    d[5 * step] = FMA(SPLAT(4), d1, FMA(SPLAT(-5), d3, d5));
}

/* Six products to four outputs. */
INLINE void FN(compose)(const V *m, const int step, V *y, const int across)
{
    V s = m[step] + m[2 * step], d = m[step] - m[2 * step], t = m[3 * step] + m[4 * step], e = m[3 * step] - m[4 * step];
    y[0] = m[0] + s + t;
    y[across] = FMA(SPLAT(2), e, d);
    y[2 * across] = FMA(SPLAT(4), t, s);
    y[3 * across] = FMA(SPLAT(8), e, d) + m[5 * step];
}

/* One tile: its 36 pixels `from`, C channels each, to 36 places `gap` floats apart. */
WG_TARGET static void FN(gather)(const float *const *from, int64_t C, float *to, int64_t gap)
{
    for (int64_t c = 0; c < C; c += WG_VL, to += WG_VL) {
        V d[36];
        for (int i = 0; i < 6; i++) {
            for (int k = 0; k < 6; k++) d[6 * i + k] = FN(read)(from[6 * i + k] + c, C - c);
            FN(analyse)(d + 6 * i, 1);
        }
        for (int k = 0; k < 6; k++) {
            FN(analyse)(d + k, 6);
            for (int i = 0; i < 6; i++) *(V *)(to + (6 * i + k) * gap) = d[6 * i + k];
        }
    }
}

/* One tile: 36 sums, `gap` floats apart, to the `rows` x `columns` pixels that there are, y and residual (or NULL) with `line` floats a row and O a pixel. */
WG_TARGET static void FN(scatter)(const float *from, int64_t gap, int64_t O, const float *bias, const float *residual, float *y, int64_t line, int rows, int columns)
{
    for (int64_t o = 0; o < O; o += WG_VL, from += WG_VL) {
        V m[36], half[24], out[16], b = bias ? FN(read)(bias + o, O - o) : SPLAT(0);
        for (int k = 0; k < 6; k++) {
            for (int i = 0; i < 6; i++) m[6 * i + k] = *(const V *)(from + (6 * i + k) * gap);
            FN(compose)(m + k, 6, half + k, 6);
        }
        for (int i = 0; i < 4; i++) FN(compose)(half + 6 * i, 1, out + 4 * i, 1);
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < columns; k++) {
                int64_t at = i * line + k * O + o;
                V v = out[4 * i + k] + b;
                if (residual) v += FN(read)(residual + at, O - o);
                if (O - o >= WG_VL) *(VU *)(y + at) = (VU)v;
                else PUT_SOME(y + at, v, O - o);
            }
    }
}

/* T rows of v times N blocks of columns of u, `block` floats apart. */
INLINE void FN(product)(const float *v, int64_t pitch, const float *u, int64_t block, int64_t C, float *m, int64_t wide, const int T, const int N)
{
    V acc[WG_MOST];
    UNROLL for (int i = 0; i < T * N; i++) acc[i] = SPLAT(0);
    for (int64_t c = 0; c < C; c++, v++, u += WG_VL) {
        V weight[4];
        UNROLL for (int n = 0; n < N; n++) weight[n] = *(const V *)(u + n * block);
        UNROLL for (int t = 0; t < T; t++) {
            V x = SPLAT(v[t * pitch]);
            UNROLL for (int n = 0; n < N; n++) acc[t * N + n] = FMA(x, weight[n], acc[t * N + n]);
        }
    }
    UNROLL for (int i = 0; i < T * N; i++) *(V *)(m + i / N * wide + i % N * WG_VL) = acc[i];
}

#define PRODUCT_OF(T, N)                                                                                                                               \
    WG_TARGET static void FN(product##T##x##N)(const float *v, int64_t pitch, const float *u, int64_t block, int64_t C, float *m, int64_t wide)        \
    {                                                                                                                                                  \
        FN(product)(v, pitch, u, block, C, m, wide, T, N);                                                                                             \
    }
WG_SHAPES(PRODUCT_OF)
#undef PRODUCT_OF

#undef FN
#undef V
#undef VU
#undef INLINE
#undef WG_SUFFIX
#undef WG_TARGET
#undef WG_VL
#undef WG_MOST
#undef WG_SHAPES
#undef SPLAT
#undef FMA
#undef SOME
#undef PUT_SOME
