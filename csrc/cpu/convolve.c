/* convolve.c: forward convolutions in f32 whose sums run in one fixed order: bias first, then tap by tap in rows, channel by channel, each a fused
 * multiply-add into one accumulator; depthwise taps run in columns. That is the order of XNNPACK's kernels, so imported networks answer what
 * TensorFlow Lite answers, to the last bit. For AVX-512; elsewhere, and for groups, it declines. */
#include "convolve.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdlib.h>

#define WIDE __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
enum { TILE = 8, MOST_TAPS = 64 };

/* Weights packed for the kernels, kept with the call as long as its plan lives. */
struct packed {
    uint64_t storage;
    uint32_t version;
    const char *data;
    float *weights;    /* [blocks of 16, K, 16] or [taps, C rounded up to 16] */
    float *zeros;      /* what taps outside of the picture read */
};

struct job {
    const float *x, *bias, *residual, *slope, *weights, *zeros;
    float *y;
    int64_t B, H, W, C, OH, OW, O, KH, KW;
    const int32_t *stride, *pad, *dilation;
    int act;
    int64_t tiles, pixels;
    int blocks, wide;
    bool plain;        /* 1x1, stride 1, no padding: pixel for pixel */
};

static void forget(void *state)
{
    struct packed *p = state;
    free(p->weights);
    free(p->zeros);
    free(p);
}

static float *aligned(int64_t count)
{
    void *p = NULL;
    return posix_memalign(&p, 64, (size_t)(count + 16) * sizeof(float)) ? NULL : p;
}

/* The call's packed weights: kept ones, or new ones of `count` floats that fill() writes. */
static struct packed *pack(lbr_call *c, int64_t count, int64_t channels, void (*fill)(const lbr_tensor *w, float *out))
{
    const lbr_tensor *w = &c->in[1];
    struct packed *p = c->state;
    if (p && p->storage == w->storage->id && p->version == w->storage->version && p->data == w->data) return p;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p) return NULL;
        c->state = p, c->state_free = forget;
    }
    if (!p->weights) p->weights = aligned(count);
    if (!p->zeros) {
        p->zeros = aligned(channels);
        if (p->zeros) memset(p->zeros, 0, (size_t)(channels + 16) * sizeof(float));
    }
    if (!p->weights || !p->zeros) return NULL;
    fill(w, p->weights);
    p->storage = w->storage->id, p->version = w->storage->version, p->data = w->data;
    return p;
}

static void fill_blocks(const lbr_tensor *w, float *out)
{
    const float *v = (const float *)w->data;
    int64_t O = w->shape[0], K = (int64_t)w->shape[1] * w->shape[2] * w->shape[3];
    for (int64_t block = 0; block < O; block += 16)
        for (int64_t k = 0; k < K; k++, out += 16)
            for (int64_t o = 0; o < 16; o++) out[o] = block + o < O ? v[(block + o) * K + k] : 0;
}

static void fill_channels(const lbr_tensor *w, float *out)
{
    const float *v = (const float *)w->data;
    int64_t C = w->shape[2], whole = (C + 15) / 16 * 16;
    for (int64_t t = 0; t < (int64_t)w->shape[0] * w->shape[1]; t++)
        for (int64_t ch = 0; ch < whole; ch++) out[t * whole + ch] = ch < C ? v[t * C + ch] : 0;
}

WIDE static inline __m512 activate(__m512 v, int act, __m512 slope)
{
    if (act == 1 || act == 2) v = _mm512_max_ps(_mm512_setzero_ps(), v); /* this order of operands lets NaN through */
    if (act == 2) v = _mm512_min_ps(_mm512_set1_ps(6), v);
    if (act == 3) v = _mm512_mask_mul_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), v, slope);
    return v;
}

#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

/* 8 pixels x n blocks of 16 channels. from: where each pixel's window begins, per tap [taps][8], `run` numbers to be read there; w: n packed blocks; to: the pixels' outputs. */
#define KERNEL(N, DECLARE, START, STEP, STORE)                                                                                                 \
    WIDE static void kernel##N(const struct job *j, const float *const *from, int64_t taps, int64_t run, int64_t first, float *const *to, const float *const *add, int valid) \
    {                                                                                                                                          \
        int64_t K = taps * run, o = first * 16;                                                                                                \
        const float *w = j->weights + first * K * 16;                                                                                          \
        EACH(DECLARE)                                                                                                                          \
        START                                                                                                                                  \
        for (int64_t t = 0; t < taps; t++, from += TILE) {                                                                                     \
            const float *p0 = from[0], *p1 = from[1], *p2 = from[2], *p3 = from[3], *p4 = from[4], *p5 = from[5], *p6 = from[6], *p7 = from[7]; \
            for (int64_t i = 0; i < run; i++, w += 16) {                                                                                       \
                STEP                                                                                                                           \
            }                                                                                                                                  \
        }                                                                                                                                      \
        STORE                                                                                                                                  \
    }

#define PUT(acc, m, n)                                                                                                                         \
    if ((m) < valid) {                                                                                                                         \
        int64_t at = o + 16 * (n);                                                                                                             \
        __mmask16 mask = j->O - at >= 16 ? 0xffff : (__mmask16)((1u << (j->O - at)) - 1);                                                      \
        __m512 v = acc;                                                                                                                        \
        if (add) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, add[m] + at));                                                               \
        v = activate(v, j->act, j->act == 3 ? _mm512_maskz_loadu_ps(mask, j->slope + at) : v);                                                 \
        _mm512_mask_storeu_ps(to[m] + at, mask, v);                                                                                            \
    }
#define BIAS(n) (j->bias ? _mm512_maskz_loadu_ps(j->O - o - 16 * (n) >= 16 ? 0xffff : (__mmask16)((1u << (j->O - o - 16 * (n))) - 1), j->bias + o + 16 * (n)) : _mm512_setzero_ps())

#define D1(m) __m512 a##m;
#define S1(m) a##m = b0;
#define F1(m) a##m = _mm512_fmadd_ps(_mm512_set1_ps(p##m[i]), w0, a##m);
#define P1(m) PUT(a##m, m, 0)
KERNEL(1, D1, __m512 b0 = BIAS(0); EACH(S1), __m512 w0 = _mm512_load_ps(w); EACH(F1), EACH(P1))

#define D2(m) __m512 a##m, c##m;
#define S2(m) a##m = b0; c##m = b1;
#define F2(m) { __m512 x = _mm512_set1_ps(p##m[i]); a##m = _mm512_fmadd_ps(x, w0, a##m); c##m = _mm512_fmadd_ps(x, w1, c##m); }
#define P2(m) PUT(a##m, m, 0) PUT(c##m, m, 1)
KERNEL(2, D2, __m512 b0 = BIAS(0); __m512 b1 = BIAS(1); EACH(S2), __m512 w0 = _mm512_load_ps(w); __m512 w1 = _mm512_load_ps(w + K * 16); EACH(F2), EACH(P2))

#define D3(m) __m512 a##m, c##m, d##m;
#define S3(m) a##m = b0; c##m = b1; d##m = b2;
#define F3(m) { __m512 x = _mm512_set1_ps(p##m[i]); a##m = _mm512_fmadd_ps(x, w0, a##m); c##m = _mm512_fmadd_ps(x, w1, c##m); d##m = _mm512_fmadd_ps(x, w2, d##m); }
#define P3(m) PUT(a##m, m, 0) PUT(c##m, m, 1) PUT(d##m, m, 2)
KERNEL(3, D3, __m512 b0 = BIAS(0); __m512 b1 = BIAS(1); __m512 b2 = BIAS(2); EACH(S3),
       __m512 w0 = _mm512_load_ps(w); __m512 w1 = _mm512_load_ps(w + K * 16); __m512 w2 = _mm512_load_ps(w + K * 32); EACH(F3), EACH(P3))

/* Where the windows of 8 outputs in a row begin, tap by tap; what lies outside of the picture reads zeros. columns: the order of taps. */
static void windows(const struct job *j, int64_t pixel, int valid, bool columns, const float **from)
{
    int64_t b = pixel / (j->OH * j->OW), oy = pixel / j->OW % j->OH, ox = pixel % j->OW;
    int64_t outer = columns ? j->KW : j->KH, inner = columns ? j->KH : j->KW;
    for (int m = 0; m < TILE; m++) {
        int64_t top = oy * j->stride[0] - j->pad[0], left = ox * j->stride[1] - j->pad[2];
        const float *picture = j->x + b * j->H * j->W * j->C, **f = from + m;
        for (int64_t u = 0; u < outer; u++)
            for (int64_t v = 0; v < inner; v++, f += TILE) {
                int64_t iy = top + (columns ? v : u) * j->dilation[0], ix = left + (columns ? u : v) * j->dilation[1];
                *f = iy >= 0 && iy < j->H && ix >= 0 && ix < j->W ? picture + (iy * j->W + ix) * j->C : j->zeros;
            }
        if (m + 1 < valid && ++ox == j->OW) {
            ox = 0;
            if (++oy == j->OH) oy = 0, b++;
        }
    }
}

/* The same for few channels and a tile whose windows lie side by side inside the picture: a row of taps is one run of KW * C numbers. False elsewhere. */
static bool rows_of(const struct job *j, int64_t pixel, int valid, const float **from)
{
    int64_t ox = pixel % j->OW, row = pixel / j->OW, b = row / j->OH, top = row % j->OH * j->stride[0] - j->pad[0], left = ox * j->stride[1] - j->pad[2];
    if (j->C >= 16 || j->dilation[1] != 1 || valid < TILE || ox + TILE > j->OW || left < 0 || left + (TILE - 1) * j->stride[1] + j->KW > j->W) return false;
    if (top < 0 || top + (j->KH - 1) * j->dilation[0] >= j->H) return false;
    const float *base = j->x + ((b * j->H + top) * j->W + left) * j->C;
    for (int64_t u = 0; u < j->KH; u++, base += j->dilation[0] * j->W * j->C, from += TILE)
        for (int m = 0; m < TILE; m++) from[m] = base + m * j->stride[1] * j->C;
    return true;
}

/* Item = (group of up to 3 blocks, tile of 8 pixels); pixels are counted through all pictures. */
static void convolve(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    int64_t taps = j->KH * j->KW, first = begin / j->tiles, tile = begin % j->tiles;
    const float *from[MOST_TAPS * TILE], *add[TILE];
    float *to[TILE];
    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        int64_t block = first * j->wide, pixel = tile * TILE;
        int n = j->blocks - block < j->wide ? (int)(j->blocks - block) : j->wide, valid = j->pixels - pixel < TILE ? (int)(j->pixels - pixel) : TILE;
        for (int m = 0; m < TILE; m++) {
            int64_t p = pixel + (m < valid ? m : valid - 1);
            to[m] = j->y + p * j->O;
            add[m] = j->residual + p * j->O;
            if (j->plain) from[m] = j->x + p * j->C;
        }
        int64_t reads = taps, run = j->C;
        if (!j->plain && rows_of(j, pixel, valid, from)) reads = j->KH, run = j->KW * j->C;
        else if (!j->plain) windows(j, pixel, valid, false, from);
        (n == 3 ? kernel3 : n == 2 ? kernel2 : kernel1)(j, from, reads, run, block, to, j->residual ? add : NULL, valid);
        if (++tile == j->tiles) tile = 0, first++;
    }
}

#define SB(m) a##m = bias;
#define FD(m) a##m = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, f[m] + o), w, a##m);
#define FI(m) a##m = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, q + (m) * step), w, a##m);
#define PD(m)                                                                                          \
    if ((m) < valid) {                                                                                 \
        int64_t at = (row * j->OW + ox + (m)) * j->C + o;                                              \
        __m512 v = a##m;                                                                               \
        if (j->residual) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, j->residual + at));          \
        _mm512_mask_storeu_ps(j->y + at, mask, activate(v, j->act, slope));                            \
    }

/* Item = row of outputs; 8 pixels at a time, 16 channels at a time. Taps run in columns. */
WIDE static void depthwise(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    int64_t taps = j->KH * j->KW, whole = (j->C + 15) / 16 * 16, step = j->stride[1] * j->C;
    const float *from[MOST_TAPS * TILE];
    int64_t tap_w[MOST_TAPS], tap_x[MOST_TAPS];
    (void)thread;
    for (int64_t t = 0; t < taps; t++) {
        int64_t ky = t % j->KH, kx = t / j->KH;
        tap_w[t] = (ky * j->KW + kx) * whole;
        tap_x[t] = (ky * j->dilation[0] * j->W + kx * j->dilation[1]) * j->C;
    }
    for (int64_t row = begin; row < end; row++) {
        int64_t b = row / j->OH, top = row % j->OH * j->stride[0] - j->pad[0];
        bool tall = top >= 0 && top + (j->KH - 1) * j->dilation[0] < j->H;
        for (int64_t ox = 0; ox < j->OW; ox += TILE) {
            int valid = j->OW - ox < TILE ? (int)(j->OW - ox) : TILE;
            int64_t left = ox * j->stride[1] - j->pad[2];
            bool inside = tall && valid == TILE && left >= 0 && left + (TILE - 1) * j->stride[1] + (j->KW - 1) * j->dilation[1] < j->W;
            const float *base = inside ? j->x + ((b * j->H + top) * j->W + left) * j->C : NULL;
            if (!inside) windows(j, row * j->OW + ox, valid, true, from);
            for (int64_t o = 0; o < j->C; o += 16) {
                __mmask16 mask = j->C - o >= 16 ? 0xffff : (__mmask16)((1u << (j->C - o)) - 1);
                __m512 bias = j->bias ? _mm512_maskz_loadu_ps(mask, j->bias + o) : _mm512_setzero_ps();
                EACH(D1)
                EACH(SB)
                if (inside)
                    for (int64_t t = 0; t < taps; t++) {
                        const float *q = base + tap_x[t] + o;
                        __m512 w = _mm512_load_ps(j->weights + tap_w[t] + o);
                        EACH(FI)
                    }
                else {
                    const float *const *f = from;
                    for (int64_t t = 0; t < taps; t++, f += TILE) {
                        __m512 w = _mm512_load_ps(j->weights + tap_w[t] + o);
                        EACH(FD)
                    }
                }
                __m512 slope = j->act == 3 ? _mm512_maskz_loadu_ps(mask, j->slope + o) : bias;
                EACH(PD)
            }
        }
    }
}

static bool dense_f32(const lbr_tensor *t) { return !lbr_present(t) || t->dtype == LBR_F32; }

static bool serves(const lbr_call *c)
{
    if (lbr_cpu_isa() < LBR_ISA_AVX512) return false;
    for (int i = 0; i < 5; i++) if (!dense_f32(&c->in[i])) return false;
    return c->out[0].dtype == LBR_F32;
}

static struct job job_of(lbr_call *c, const int32_t *stride, const int32_t *pad, const int32_t *dilation, int act)
{
    const lbr_tensor *x = &c->in[0], *y = &c->out[0];
    return (struct job){
        .x = (const float *)x->data, .y = (float *)y->data, .B = x->shape[0], .H = x->shape[1], .W = x->shape[2], .C = x->shape[3],
        .OH = y->shape[1], .OW = y->shape[2], .O = y->shape[3], .stride = stride, .pad = pad, .dilation = dilation, .act = act,
        .bias = lbr_present(&c->in[2]) ? (const float *)c->in[2].data : NULL, .residual = lbr_present(&c->in[3]) ? (const float *)c->in[3].data : NULL,
        .slope = lbr_present(&c->in[4]) ? (const float *)c->in[4].data : NULL,
    };
}

int lbr_convolve(lbr_call *c, int *served)
{
    const lbr_conv2d_attr *a = c->attr;
    const lbr_tensor *w = &c->in[1];
    int64_t taps = (int64_t)w->shape[1] * w->shape[2];
    *served = a->groups == 1 && taps <= MOST_TAPS && serves(c);
    if (!*served || !lbr_tensor_numel(&c->out[0])) return 0;
    struct job j = job_of(c, a->stride, a->pad, a->dilation, a->act);
    j.KH = w->shape[1], j.KW = w->shape[2];
    j.blocks = (int)((j.O + 15) / 16), j.wide = j.blocks == 4 ? 2 : j.blocks < 3 ? j.blocks : 3;
    j.plain = taps == 1 && a->stride[0] == 1 && a->stride[1] == 1 && !a->pad[0] && !a->pad[1] && !a->pad[2] && !a->pad[3];
    j.pixels = j.B * j.OH * j.OW, j.tiles = (j.pixels + TILE - 1) / TILE;
    struct packed *p = pack(c, j.blocks * 16 * taps * j.C, j.C, fill_blocks);
    if (!p) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    j.weights = p->weights, j.zeros = p->zeros;
    int64_t groups = (j.blocks + j.wide - 1) / j.wide, work = taps * j.C * TILE * j.wide;
    lbr_parallel(groups * j.tiles, work < 30000 ? 30000 / work + 1 : 1, convolve, &j);
    return 0;
}

int lbr_convolve_depthwise(lbr_call *c, int *served)
{
    const lbr_depthwise_attr *a = c->attr;
    const lbr_tensor *w = &c->in[1];
    int64_t taps = (int64_t)w->shape[0] * w->shape[1];
    *served = taps <= MOST_TAPS && serves(c);
    if (!*served || !lbr_tensor_numel(&c->out[0])) return 0;
    struct job j = job_of(c, a->stride, a->pad, a->dilation, a->act);
    j.KH = w->shape[0], j.KW = w->shape[1];
    struct packed *p = pack(c, taps * ((j.C + 15) / 16 * 16), (j.C + 15) / 16 * 16, fill_channels);
    if (!p) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    j.weights = p->weights, j.zeros = p->zeros;
    int64_t work = taps * j.C * j.OW / 16 + 1;
    lbr_parallel(j.B * j.OH, work < 20000 ? 20000 / work + 1 : 1, depthwise, &j);
    return 0;
}

#else

int lbr_convolve(lbr_call *c, int *served) { (void)c; *served = 0; return 0; }
int lbr_convolve_depthwise(lbr_call *c, int *served) { (void)c; *served = 0; return 0; }

#endif
