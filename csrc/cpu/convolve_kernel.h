/* convolve_kernel.h: the inner loops of convolve.c over GCC vectors; convolve.c includes it once an instruction set. Not a header: it makes code. Knows no tensors and no threads.
 *
 * convolve.c sets before: CV_SUFFIX, CV_TARGET (function attribute), CV_VL (floats a vector), CV_SHAPES (the register tiles: pixels x vectors), SPLAT, FMA (rounded once),
 * SOME(p, n) and PUT_SOME(p, v, n) (the first n < CV_VL floats), RAISE(v) and LIMIT(v) (max with 0, min with 6; NaN and -0 pass), SLOPED(v, s) (v * s where v < 0).
 * Each output is one accumulator that takes its products in the same order whatever the width, so every instruction set gives the same bits. */

#define FN(name) JOIN(name, CV_SUFFIX)
#define V FN(cv_v)
#define VU FN(cv_vu)
#define INLINE static inline __attribute__((always_inline)) CV_TARGET

typedef float V __attribute__((vector_size(CV_VL * 4)));
typedef float VU __attribute__((vector_size(CV_VL * 4), aligned(4), may_alias));

INLINE V FN(read)(const float *p, int64_t n) { return n >= CV_VL ? (V)*(const VU *)p : SOME(p, n); }

INLINE V FN(activate)(V v, int act, V slope)
{
    if (act == 1 || act == 2) v = RAISE(v);
    if (act == 2) v = LIMIT(v);
    return act == 3 ? SLOPED(v, slope) : v;
}

/* The same as finish for the edges: the last vector has n channels, the first `valid` pixels are there. */
CV_TARGET static __attribute__((noinline)) void FN(finish_some)(const V *acc, int N, const float *residual, int act, const V *slope, float *y, int64_t step, int64_t n, int64_t valid)
{
    for (int64_t m = 0; m < valid; m++)
        for (int k = 0; k < N; k++) {
            int64_t at = m * step + k * CV_VL, left = k + 1 < N ? CV_VL : n;
            V v = acc[m * N + k];
            if (residual) v += FN(read)(residual + at, left);
            v = FN(activate)(v, act, slope[k]);
            if (left >= CV_VL) *(VU *)(y + at) = (VU)v;
            else PUT_SOME(y + at, v, left);
        }
}

/* T x N vectors, plus the residual, activated, to y [T pixels, `step` floats apart][N vectors]; of the last vector n channels, of the pixels the first `valid`. */
INLINE void FN(finish)(V *acc, const int T, const int N, const float *residual, int act, const V *slope, float *y, int64_t step, int64_t n, int64_t valid)
{
    if (valid < T || n < CV_VL) {
        V copy[MOST_TILE * MOST_WIDE];
        UNROLL for (int i = 0; i < T * N; i++) copy[i] = acc[i];
        FN(finish_some)(copy, N, residual, act, slope, y, step, n, valid < T ? valid : T);
        return;
    }
    if (residual) UNROLL for (int i = 0; i < T * N; i++) acc[i] += (V)*(const VU *)(residual + i / N * step + i % N * CV_VL);
    if (act == 1 || act == 2) UNROLL for (int i = 0; i < T * N; i++) acc[i] = RAISE(acc[i]);
    if (act == 2) UNROLL for (int i = 0; i < T * N; i++) acc[i] = LIMIT(acc[i]);
    if (act == 3) UNROLL for (int i = 0; i < T * N; i++) acc[i] = SLOPED(acc[i], slope[i % N]);
    UNROLL for (int i = 0; i < T * N; i++) *(VU *)(y + i / N * step + i % N * CV_VL) = (VU)acc[i];
}

/* T pixels x N packed blocks of channels, the first of them `block`. from: where each pixel's window begins, per tap [taps][MOST_TILE], `run` numbers to be read there, or NULL: pixel for pixel. */
INLINE void FN(tile)(const struct job *j, const float *const *from, const struct span *span, int64_t run, int64_t block, int64_t pixel, int valid, const int T, const int N)
{
    const int64_t O = j->O, o = block * CV_VL, gap = span->taps * run * CV_VL;
    const float *w = j->weights + block * gap + (span->first * run + span->skip) * CV_VL, *ahead = span->ahead, *p[MOST_TILE];
    V acc[MOST_TILE * MOST_WIDE], slope[MOST_WIDE];
    if (span->before) {
        UNROLL for (int i = 0; i < T * N; i++) acc[i] = *(const V *)(span->before + i * CV_VL);
    } else {
        UNROLL for (int n = 0; n < N; n++) {
            V bias = j->bias ? FN(read)(j->bias + o + n * CV_VL, O - o - n * CV_VL) : SPLAT(0);
            UNROLL for (int m = 0; m < T; m++) acc[m * N + n] = bias;
        }
    }
    for (int64_t t = span->first; t < span->last; t++) {
        if (from) {
            UNROLL for (int m = 0; m < T; m++) p[m] = from[(t - span->first) * MOST_TILE + m] + span->skip;
        } else {
            UNROLL for (int m = 0; m < T; m++) p[m] = j->x + (pixel + (m < valid ? m : 0)) * run;
        }
        for (int64_t i = 0; i < span->count; i++, w += CV_VL) {
            V weight[MOST_WIDE];
            if (ahead) __builtin_prefetch(ahead, 0, 2), ahead += CV_VL / 2;
            UNROLL for (int n = 0; n < N; n++) weight[n] = *(const V *)(w + n * gap);
            UNROLL for (int m = 0; m < T; m++) {
                V x = SPLAT(p[m][i]);
                UNROLL for (int n = 0; n < N; n++) acc[m * N + n] = FMA(x, weight[n], acc[m * N + n]);
            }
        }
    }
    if (span->after) {
        UNROLL for (int i = 0; i < T * N; i++) *(V *)(span->after + i * CV_VL) = acc[i];
        return;
    }
    UNROLL for (int n = 0; n < N; n++) slope[n] = j->act == 3 ? FN(read)(j->slope + o + n * CV_VL, O - o - n * CV_VL) : SPLAT(0);
    FN(finish)(acc, T, N, j->residual ? j->residual + pixel * O + o : NULL, j->act, slope, j->y + pixel * O + o, O, O - o - (N - 1) * CV_VL, valid);
}

#define TILE_OF(T, N)                                                                                                                               \
    CV_TARGET static void FN(tile##T##x##N)(const struct job *j, const float *const *from, const struct span *span, int64_t run, int64_t block, int64_t pixel, int valid) \
    {                                                                                                                                               \
        if (from) FN(tile)(j, from, span, run, block, pixel, valid, T, N);                                                                          \
        else FN(tile)(j, NULL, span, run, block, pixel, valid, T, N);                                                                               \
    }
CV_SHAPES(TILE_OF)
#undef TILE_OF

/* n channels of each of `pixels` pixels, C floats apart, to the ring's slabs of PITCH channels, `slab` floats apart. */
CV_TARGET static void FN(gather)(float *to, const float *x, int64_t pixels, int64_t C, int64_t slab, int64_t n)
{
    for (int64_t o = 0; o < n; o += CV_VL) {
        float *lane = to + o / PITCH * slab + o % PITCH;
        if (n - o >= CV_VL) for (int64_t i = 0; i < pixels; i++) *(V *)(lane + i * PITCH) = (V)*(const VU *)(x + i * C + o);
        else for (int64_t i = 0; i < pixels; i++) *(V *)(lane + i * PITCH) = SOME(x + i * C + o, n - o);
    }
}

INLINE void FN(tap)(V *acc, const float *q, const float *w, const int64_t step)
{
    V weight = *(const V *)w;
    UNROLL for (int m = 0; m < ROW_TILE; m++) acc[m] = FMA(*(const V *)(q + m * step), weight, acc[m]);
}

/* A row of outputs of n channels from `first` on, taps in columns. rows: the padded input rows under the kernel in the ring's first slab. side: of a square kernel without dilation; 0: any. */
INLINE void FN(row)(const struct job *j, const float *const *rows, int64_t first, int64_t n, int64_t pixel, const int64_t stride, const int side)
{
    const int64_t KH = j->KH, KW = j->KW, C = j->C, OW = j->OW, step = stride * PITCH, hop = j->dilation[1] * PITCH, gap = KH * KW * PITCH;
    const int act = j->act;
    for (int64_t o = 0; o < n; o += CV_VL) {
        const float *weights = j->weights + (first + o) / PITCH * gap + o % PITCH, *residual = j->residual ? j->residual + pixel * C + first + o : NULL;
        float *y = j->y + pixel * C + first + o;
        int64_t left = n - o, lane = o / PITCH * j->slab + o % PITCH;
        V bias = j->bias ? FN(read)(j->bias + first + o, left) : SPLAT(0), slope = act == 3 ? FN(read)(j->slope + first + o, left) : SPLAT(0);
        for (int64_t ox = 0; ox < OW; ox += ROW_TILE, lane += ROW_TILE * step) {
            V acc[ROW_TILE];
            UNROLL for (int m = 0; m < ROW_TILE; m++) acc[m] = bias;
            if (side) {
                const float *at[ROW_TILE];
                UNROLL for (int ky = 0; ky < side; ky++) at[ky] = rows[ky] + lane;
                UNROLL for (int kx = 0; kx < side; kx++)
                    UNROLL for (int ky = 0; ky < side; ky++) FN(tap)(acc, at[ky] + kx * PITCH, weights + (kx * side + ky) * PITCH, step);
            } else {
                const float *w = weights;
                for (int64_t kx = 0; kx < KW; kx++)
                    for (int64_t ky = 0; ky < KH; ky++, w += PITCH) FN(tap)(acc, rows[ky] + lane + kx * hop, w, step);
            }
            FN(finish)(acc, ROW_TILE, 1, residual ? residual + ox * C : NULL, act, &slope, y + ox * C, C, left, OW - ox);
        }
    }
}

#define ROW_OF(name, stride, side)                                                                                                                  \
    CV_TARGET static void FN(name)(const struct job *j, const float *const *rows, int64_t first, int64_t n, int64_t pixel)                          \
    {                                                                                                                                               \
        FN(row)(j, rows, first, n, pixel, stride, side);                                                                                            \
    }
#if CV_VL > 4
ROW_OF(row31, 1, 3)
ROW_OF(row32, 2, 3)
ROW_OF(row51, 1, 5)
ROW_OF(row52, 2, 5)
#endif
ROW_OF(row_any, j->stride[1], 0)
#undef ROW_OF

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
