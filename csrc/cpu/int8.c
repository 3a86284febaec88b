/* int8.c: convolutions of 8-bit numbers: unsigned inputs with a scale and a zero, weights rounded per output channel to signed ones, sums in i32, the rest of the layer in f32.
 * Four products at a time (VNNI) where the processor has them; elsewhere it only answers the same. Sums are exact, so the order of them is free. */
#include "cpu.h"
#include "vectors.h"

#include <stdlib.h>

enum { LANES = 16, MOST_TILE = 12, MOST_WIDE = 4, MOST_TAPS = 64, MOST_ROW = 64 }; /* MOST_ROW: bytes of a row of taps that is read as one */

/* ---- weights, packed and kept with the call as long as its plan lives ---- */

struct packed {
    uint64_t storage;
    uint32_t version;
    const char *data;
    int8_t *weights;          /* [blocks of LANES][runs][fours of a run][LANES][4] */
    int32_t *start;           /* [O rounded up] what the input's zero adds up to, negated */
    float *scale;             /* [O rounded up] of a sum */
    uint8_t *zeros;           /* a run outside of the picture */
};

struct job {
    const struct packed *p;
    const lbr_conv2d_int8_attr *a;
    const uint8_t *x, *residual;
    const float *bias;
    uint8_t *bytes;           /* one of the two: the output */
    float *numbers;
    int64_t H, W, C, OH, OW, O, KH, KW, pixels, tiles, blocks, groups, runs, run, fours;
    int tile;
    bool rows, plain;         /* rows: a row of taps is one run; plain: 1x1, pixel for pixel */
    void (*shape[MOST_WIDE + 1])(const struct job *j, const uint8_t *const *from, int64_t block, int64_t pixel, int valid);
};

static void forget(void *state)
{
    struct packed *p = state;
    free(p->weights), free(p->start), free(p->scale), free(p->zeros);
    free(p);
}

static void *aligned(int64_t bytes)
{
    void *p = NULL;
    return posix_memalign(&p, 64, (size_t)bytes) ? NULL : p;
}

static void fill(const struct job *j, const lbr_tensor *w, struct packed *p)
{
    int64_t K = j->runs * j->run, block = j->runs * j->fours * LANES * 4;
    memset(p->weights, 0, (size_t)(j->blocks * block));
    for (int64_t o = 0; o < j->blocks * LANES; o++) {
        const float *v = (const float *)w->data + o * K;
        float most = 0;
        int32_t sum = 0;
        p->start[o] = 0, p->scale[o] = 0;
        if (o >= j->O) continue;
        for (int64_t k = 0; k < K; k++) most = fabsf(v[k]) > most ? fabsf(v[k]) : most;
        float scale = most > 0 ? most / 127 : 1;
        int8_t *to = p->weights + o / LANES * block + o % LANES * 4;
        for (int64_t k = 0; k < K; k++) {
            int32_t q = (int32_t)rintf(v[k] / scale);
            to[(k / j->run * j->fours + k % j->run / 4) * LANES * 4 + k % j->run % 4] = (int8_t)q;
            sum += q;
        }
        p->start[o] = -j->a->x_zero * sum, p->scale[o] = scale * (float)j->a->x_scale;
    }
    memset(p->zeros, j->a->x_zero, (size_t)(j->run + 4));
}

static struct packed *pack(lbr_call *c, const struct job *j)
{
    const lbr_tensor *w = &c->in[1];
    struct packed *p = c->state;
    if (p && p->storage == w->storage->id && p->version == w->storage->version && p->data == w->data) return p;
    if (!p) {
        if (!(p = calloc(1, sizeof *p))) return NULL;
        c->state = p, c->state_free = forget;
    }
    if (!p->weights) p->weights = aligned(j->blocks * j->runs * j->fours * LANES * 4);
    if (!p->start) p->start = aligned(j->blocks * LANES * 4);
    if (!p->scale) p->scale = aligned(j->blocks * LANES * 4);
    if (!p->zeros) p->zeros = aligned(j->run + 4);
    if (!p->weights || !p->start || !p->scale || !p->zeros) return NULL;
    fill(j, w, p);
    p->storage = w->storage->id, p->version = w->storage->version, p->data = w->data;
    return p;
}

/* ---- a tile: pixels x blocks of channels ---- */

static void portable(const struct job *j, const uint8_t *const *from, int64_t block, int64_t pixel, int valid)
{
    const lbr_conv2d_int8_attr *a = j->a;
    int64_t o = block * LANES, n = j->O - o < LANES ? j->O - o : LANES;
    for (int m = 0; m < valid; m++) {
        const int8_t *w = j->p->weights + block * j->runs * j->fours * LANES * 4;
        int64_t at = (pixel + m) * j->O + o;
        int32_t sum[LANES];
        float v[LANES];
        memcpy(sum, j->p->start + o, sizeof sum);
        for (int64_t t = 0; t < j->runs; t++, w += j->fours * LANES * 4) {
            const uint8_t *p = from[t * MOST_TILE + m];
            for (int64_t i = 0; i < j->run; i++)
                for (int k = 0; k < LANES; k++) sum[k] += p[i] * w[(i / 4 * LANES + k) * 4 + i % 4];
        }
        for (int k = 0; k < n; k++) {
            float add = j->residual ? (float)((j->residual[at + k] - a->r_zero) * a->r_scale) : 0;
            v[k] = (float)sum[k] * j->p->scale[o + k] + (j->bias ? j->bias[o + k] : 0) + (a->late ? 0 : add);
        }
        lbr_activate(a->act, v, n);
        for (int k = 0; k < n; k++) {
            if (j->residual && a->late) v[k] += (float)((j->residual[at + k] - a->r_zero) * a->r_scale);
            if (j->numbers) j->numbers[at + k] = v[k];
            else {
                float q = rintf(v[k] * (float)(1 / a->y_scale) + (float)a->y_zero);
                j->bytes[at + k] = (uint8_t)(q > 0 ? q < 255 ? q : 255 : 0);
            }
        }
    }
}

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* As the intrinsic of its name, which gcc 12 copies to and fro between registers and memory. */
INLINE void four_products(__m512i *acc, __m512i x, __m512i w)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(x), "v"(w));
}

INLINE __m512 widened(const uint8_t *p, __mmask16 some, __m512 zero, __m512 scale)
{
    return _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(some, p))), zero), scale);
}

/* Sums to the layer's numbers or bytes. */
INLINE void finish(const struct job *j, const __m512i *acc, int64_t block, int64_t pixel, int valid, const int T, const int N)
{
    const lbr_conv2d_int8_attr *a = j->a;
    __m512 v[MOST_TILE * MOST_WIDE], rs = _mm512_set1_ps((float)a->r_scale), rz = _mm512_set1_ps((float)a->r_zero);
    int64_t o = block * LANES;
    __mmask16 last = j->O - o - (N - 1) * LANES >= LANES ? 0xffff : (__mmask16)((1u << (j->O - o - (N - 1) * LANES)) - 1);
    UNROLL for (int n = 0; n < N; n++) {
        __mmask16 some = n + 1 < N ? 0xffff : last;
        __m512 scale = _mm512_load_ps(j->p->scale + o + n * LANES), bias = j->bias ? _mm512_maskz_loadu_ps(some, j->bias + o + n * LANES) : _mm512_setzero_ps();
        UNROLL for (int m = 0; m < T; m++) v[m * N + n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[m * N + n]), scale, bias);
    }
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1 && a->act) lbr_activate_loose(a->act, (float *)v, T * N * LANES);
        if (j->residual && pass == (a->late != 0))
            for (int i = 0; i < valid * N; i++) {
                const uint8_t *r = j->residual + (pixel + i / N) * j->O + o + i % N * LANES;
                v[i] = _mm512_add_ps(v[i], widened(r, i % N + 1 < N ? 0xffff : last, rz, rs));
            }
    }
    __m512 inverse = _mm512_set1_ps(j->bytes ? (float)(1 / a->y_scale) : 1), zero = _mm512_set1_ps((float)a->y_zero);
    for (int i = 0; i < valid * N; i++) {
        int64_t at = (pixel + i / N) * j->O + o + i % N * LANES;
        __mmask16 some = i % N + 1 < N ? 0xffff : last;
        if (j->numbers) {
            _mm512_mask_storeu_ps(j->numbers + at, some, v[i]);
            continue;
        }
        __m512 q = _mm512_fmadd_ps(v[i], inverse, zero);
        q = _mm512_min_ps(_mm512_max_ps(q, _mm512_setzero_ps()), _mm512_set1_ps(255));
        _mm_mask_storeu_epi8(j->bytes + at, some, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(q)));
    }
}

INLINE void tile(const struct job *j, const uint8_t *const *from, int64_t block, int64_t pixel, int valid, const int T, const int N)
{
    const int64_t gap = j->runs * j->fours * LANES * 4, whole = j->run / 4;
    const int rest = (int)(j->run % 4);
    const int8_t *w = j->p->weights + block * gap;
    __m512i acc[MOST_TILE * MOST_WIDE];
    UNROLL for (int n = 0; n < N; n++) {
        __m512i start = _mm512_load_si512(j->p->start + (block + n) * LANES);
        UNROLL for (int m = 0; m < T; m++) acc[m * N + n] = start;
    }
    for (int64_t t = 0; t < j->runs; t++) {
        const uint8_t *p[MOST_TILE];
        UNROLL for (int m = 0; m < T; m++) p[m] = from[t * MOST_TILE + m];
        for (int64_t i = 0; i < whole; i++, w += LANES * 4) {
            __m512i weight[MOST_WIDE];
            UNROLL for (int n = 0; n < N; n++) weight[n] = _mm512_load_si512(w + n * gap);
            UNROLL for (int m = 0; m < T; m++) {
                int32_t four;
                memcpy(&four, p[m] + 4 * i, 4);
                __m512i x = _mm512_set1_epi32(four);
                UNROLL for (int n = 0; n < N; n++) four_products(&acc[m * N + n], x, weight[n]);
            }
        }
        if (rest) {
            __m512i weight[MOST_WIDE];
            UNROLL for (int n = 0; n < N; n++) weight[n] = _mm512_load_si512(w + n * gap);
            UNROLL for (int m = 0; m < T; m++) {
                const uint8_t *q = p[m] + 4 * whole;
                uint32_t some = q[0] | (rest > 1 ? (uint32_t)q[1] << 8 : 0) | (rest > 2 ? (uint32_t)q[2] << 16 : 0);
                __m512i x = _mm512_set1_epi32((int32_t)some);
                UNROLL for (int n = 0; n < N; n++) four_products(&acc[m * N + n], x, weight[n]);
            }
            w += LANES * 4;
        }
    }
    finish(j, acc, block, pixel, valid, T, N);
}

#define TILE_OF(T, N)                                                                                                                    \
    TARGET static void tile##T##x##N(const struct job *j, const uint8_t *const *from, int64_t block, int64_t pixel, int valid)           \
    {                                                                                                                                    \
        tile(j, from, block, pixel, valid, T, N);                                                                                        \
    }
TILE_OF(8, 1) TILE_OF(8, 2) TILE_OF(8, 3) TILE_OF(12, 2) TILE_OF(6, 3) TILE_OF(6, 4)
#endif

/* Which tiles serve this many blocks: at most `wide` of them at once. */
static void choose(struct job *j)
{
    j->tile = 8, j->groups = j->blocks, j->shape[1] = portable;
#if defined(__x86_64__)
    if (lbr_cpu_isa() != LBR_ISA_AVX512 || !__builtin_cpu_supports("avx512vnni")) return;
    j->groups = (j->blocks + MOST_WIDE - 1) / MOST_WIDE;
    switch ((j->blocks + j->groups - 1) / j->groups) {
    case 1: j->tile = 8, j->shape[1] = tile8x1; break;
    case 2: j->tile = 12, j->shape[2] = tile12x2; break;
    case 3: j->tile = 8, j->shape[2] = tile8x2, j->shape[3] = tile8x3; break;
    default: j->tile = 6, j->shape[3] = tile6x3, j->shape[4] = tile6x4;
    }
#endif
}

/* ---- walking over the outputs ---- */

/* The same where the windows lie side by side inside the picture. False elsewhere. */
static bool beside(const struct job *j, int64_t pixel, int valid, const uint8_t **from)
{
    const lbr_conv2d_int8_attr *a = j->a;
    int64_t ox = pixel % j->OW, row = pixel / j->OW, top = row % j->OH * a->stride[0] - a->pad[0], left = ox * a->stride[1] - a->pad[2], step = a->stride[1] * j->C;
    if (valid < j->tile || ox + j->tile > j->OW || left < 0 || left + (j->tile - 1) * a->stride[1] + (j->KW - 1) * a->dilation[1] >= j->W) return false;
    if (top < 0 || top + (j->KH - 1) * a->dilation[0] >= j->H) return false;
    const uint8_t *base = j->x + ((row / j->OH * j->H + top) * j->W + left) * j->C;
    for (int64_t u = 0; u < j->KH; u++, base += a->dilation[0] * j->W * j->C)
        for (int64_t v = 0; v < (j->rows ? 1 : j->KW); v++, from += MOST_TILE)
            for (int m = 0; m < j->tile; m++) from[m] = base + v * a->dilation[1] * j->C + m * step;
    return true;
}

/* Where the runs of a tile's windows begin; a row of taps that reaches outside of the picture is put together in `room`. */
static void windows(const struct job *j, int64_t pixel, int valid, const uint8_t **from, uint8_t (*room)[MOST_ROW])
{
    const lbr_conv2d_int8_attr *a = j->a;
    for (int m = 0; m < j->tile; m++) {
        int64_t at = pixel + (m < valid ? m : 0), b = at / (j->OH * j->OW), top = at / j->OW % j->OH * a->stride[0] - a->pad[0], left = at % j->OW * a->stride[1] - a->pad[2];
        const uint8_t *picture = j->x + b * j->H * j->W * j->C, **f = from + m;
        for (int64_t u = 0; u < j->KH; u++) {
            int64_t y = top + u * a->dilation[0];
            bool inside = y >= 0 && y < j->H;
            if (!j->rows) {
                for (int64_t v = 0; v < j->KW; v++, f += MOST_TILE) {
                    int64_t x = left + v * a->dilation[1];
                    *f = inside && x >= 0 && x < j->W ? picture + (y * j->W + x) * j->C : j->p->zeros;
                }
                continue;
            }
            *f = inside ? picture + (y * j->W + left) * j->C : j->p->zeros;
            if (inside && (left < 0 || left + j->KW > j->W)) {
                uint8_t *to = room[u * MOST_TILE + m];
                memset(to, a->x_zero, (size_t)j->run);
                for (int64_t v = 0; v < j->KW; v++)
                    if (left + v >= 0 && left + v < j->W) memcpy(to + v * j->C, picture + (y * j->W + left + v) * j->C, (size_t)j->C);
                *f = to;
            }
            f += MOST_TILE;
        }
    }
}

/* Item = (group of blocks, tile); pixels are counted through all pictures. */
static void convolve(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    const uint8_t *from[MOST_TAPS * MOST_TILE];
    uint8_t room[MOST_TILE * 8][MOST_ROW];
    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        int64_t group = item / j->tiles, pixel = item % j->tiles * j->tile, block = group * j->blocks / j->groups, n = (group + 1) * j->blocks / j->groups - block;
        int valid = j->pixels - pixel < j->tile ? (int)(j->pixels - pixel) : j->tile;
        if (j->plain) for (int m = 0; m < j->tile; m++) from[m] = j->x + (pixel + (m < valid ? m : 0)) * j->C;
        else if (!beside(j, pixel, valid, from)) windows(j, pixel, valid, from, room);
        j->shape[n](j, from, block, pixel, valid);
    }
}

int lbr_cpu_conv2d_int8(lbr_call *c)
{
    const lbr_conv2d_int8_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    if (!lbr_tensor_numel(y)) return 0;
    struct job j = {
        .a = a, .x = (const uint8_t *)x->data, .H = x->shape[1], .W = x->shape[2], .C = x->shape[3], .OH = y->shape[1], .OW = y->shape[2], .O = y->shape[3],
        .KH = w->shape[1], .KW = w->shape[2], .bias = lbr_present(&c->in[2]) ? (const float *)c->in[2].data : NULL,
        .residual = lbr_present(&c->in[3]) ? (const uint8_t *)c->in[3].data : NULL, .bytes = y->dtype == LBR_U8 ? (uint8_t *)y->data : NULL,
        .numbers = y->dtype == LBR_F32 ? (float *)y->data : NULL,
    };
    j.rows = j.C < 16 && j.KH <= 8 && j.KW * j.C <= MOST_ROW && a->dilation[1] == 1;
    j.plain = j.KH == 1 && j.KW == 1 && a->stride[0] == 1 && a->stride[1] == 1 && !a->pad[0] && !a->pad[1] && !a->pad[2] && !a->pad[3];
    j.runs = j.rows ? j.KH : j.KH * j.KW, j.run = j.rows ? j.KW * j.C : j.C, j.fours = (j.run + 3) / 4;
    j.blocks = (j.O + LANES - 1) / LANES;
    choose(&j);
    j.pixels = (int64_t)x->shape[0] * j.OH * j.OW, j.tiles = (j.pixels + j.tile - 1) / j.tile;
    if (!(j.p = pack(c, &j))) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    int64_t work = j.runs * j.fours * j.tile * MOST_WIDE + 1;
    lbr_parallel(j.groups * j.tiles, work < 30000 ? 30000 / work + 1 : 1, convolve, &j);
    return 0;
}
