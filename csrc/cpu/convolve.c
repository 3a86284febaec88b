/* convolve.c: forward convolutions in f32 whose sums run in one fixed order: bias first, then tap by tap in rows, channel by channel, each a fused
 * multiply-add into one accumulator; depthwise taps run in columns. That is the order of XNNPACK's kernels, so imported networks answer what
 * TensorFlow Lite answers, to the last bit, on every processor. The inner loops are in convolve_kernel.h; groups and other types are declined. */
#include <pthread.h>
#include "convolve.h"
#include "vectors.h"

#include <stdlib.h>

enum { MOST_TILE = 12, MOST_WIDE = 4, MOST_TAPS = 64, PITCH = 16, RING = 65536, ROW_TILE = 8 }; /* ROW_TILE: pixels of a depthwise tile */
enum { CACHED = 3 << 16, PARTIAL = 1 << 14, PIECE = 128, MOST_TILES = 64 }; /* floats: weights of a group that stay in the second-level cache; sums of tiles, channels at a time, tiles of a heavier group */

struct loops;

/* What of a tile is summed at once: taps of all that it has, of each `count` channels from `skip` on; what it has summed before and where to keep what it sums (NULL: begin
 * with the bias, finish); ahead: weights that are wanted next, half a line of which is fetched with each product (NULL: none). */
struct span { int64_t first, last, taps, skip, count; const float *before; float *after; const float *ahead; };

struct job {
    const struct loops *loops;
    const float *x, *bias, *residual, *slope, *weights, *zeros;
    float *y;
    int64_t B, H, W, C, OH, OW, O, KH, KW;
    const int32_t *stride, *pad, *dilation;
    int act;
    void (*finish)(int act, float *y, int64_t n); /* activations past prelu */
    int64_t tiles, pixels, strip;   /* tiles in all; tiles that all channels are made of before the next ones come */
    int blocks, groups, tile;
    bool plain;                     /* 1x1, stride 1, no padding: pixel for pixel */
    /* depthwise: channels at a time; a thread's ring of input rows [slabs of PITCH channels][span][wide][PITCH], its floats and those of a slab */
    int64_t chunk, span, wide, each, slab;
    float *ring;
    void (*row)(const struct job *j, const float *const *rows, int64_t first, int64_t n, int64_t pixel);
};

/* ---- one set of inner loops an instruction set ---- */

#if defined(__x86_64__)
#define CV_SUFFIX _avx512
#define CV_TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define CV_VL 16
#define CV_SHAPES(X) X(8, 1) X(8, 2) X(8, 3) X(12, 2) X(6, 3) X(6, 4)
#define SPLAT(x) ((cv_v_avx512)_mm512_set1_ps(x))
#define FMA(a, b, c) ((cv_v_avx512)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define SOME(p, n) ((cv_v_avx512)_mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), (p)))
#define PUT_SOME(p, v, n) _mm512_mask_storeu_ps((p), (__mmask16)((1u << (n)) - 1), (__m512)(v))
#define RAISE(v) ((cv_v_avx512)_mm512_max_ps(_mm512_setzero_ps(), (__m512)(v))) /* the second operand is what comes back of NaN and of equals */
#define LIMIT(v) ((cv_v_avx512)_mm512_min_ps(_mm512_set1_ps(6), (__m512)(v)))
#define SLOPED(v, s) ((cv_v_avx512)_mm512_mask_mul_ps((__m512)(v), _mm512_cmp_ps_mask((__m512)(v), _mm512_setzero_ps(), _CMP_LT_OQ), (__m512)(v), (__m512)(s)))
#include "convolve_kernel.h"

static const int32_t lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1}; /* from lanes + 8 - n: n of eight */
#define CV_SUFFIX _avx2
#define CV_TARGET __attribute__((target("avx2,fma")))
#define CV_VL 8
#define CV_SHAPES(X) X(8, 1) X(6, 2) X(4, 2) X(4, 3)
#define SPLAT(x) ((cv_v_avx2)_mm256_set1_ps(x))
#define FMA(a, b, c) ((cv_v_avx2)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES(n) _mm256_loadu_si256((const __m256i *)(lanes + 8 - (n)))
#define SOME(p, n) ((cv_v_avx2)_mm256_maskload_ps((p), LANES(n)))
#define PUT_SOME(p, v, n) _mm256_maskstore_ps((p), LANES(n), (__m256)(v))
#define RAISE(v) ((cv_v_avx2)_mm256_max_ps(_mm256_setzero_ps(), (__m256)(v)))
#define LIMIT(v) ((cv_v_avx2)_mm256_min_ps(_mm256_set1_ps(6), (__m256)(v)))
#define SLOPED(v, s) ((cv_v_avx2)_mm256_blendv_ps((__m256)(v), (__m256)((v) * (s)), _mm256_cmp_ps((__m256)(v), _mm256_setzero_ps(), _CMP_LT_OQ)))
#include "convolve_kernel.h"
#undef LANES
#endif

typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

static inline v4 choose(i4 mask, v4 a, v4 b) { return (v4)((mask & (i4)a) | (~mask & (i4)b)); }

#if defined(__x86_64__) && !defined(FP_FAST_FMAF)
/* a * b + c in f64 such that rounding it to f32 is right: the product is exact; a sum that is not is made odd, one step towards what is missing.
 * Source: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008. */
static inline __m128d odd_sum(__m128d a, __m128d b, __m128d c)
{
    __m128d p = _mm_mul_pd(a, b), s = _mm_add_pd(p, c), t = _mm_sub_pd(s, p), zero = _mm_setzero_pd();
    __m128d missing = _mm_add_pd(_mm_sub_pd(p, _mm_sub_pd(s, t)), _mm_sub_pd(c, t)); /* NaN, and so no step, where s is not finite */
    __m128i bits = _mm_castpd_si128(s), down = _mm_castpd_si128(_mm_cmplt_pd(s, zero));
    __m128i step = _mm_sub_epi64(_mm_castpd_si128(_mm_cmplt_pd(missing, zero)), _mm_castpd_si128(_mm_cmpgt_pd(missing, zero)));
    __m128i even = _mm_add_epi64(_mm_and_si128(bits, _mm_set1_epi64x(1)), _mm_set1_epi64x(-1));
    step = _mm_sub_epi64(_mm_xor_si128(step, down), down);
    return _mm_castsi128_pd(_mm_add_epi64(bits, _mm_and_si128(step, even)));
}

static inline v4 fma4(v4 x, v4 y, v4 z)
{
    __m128 a = (__m128)x, b = (__m128)y, c = (__m128)z;
    __m128d low = odd_sum(_mm_cvtps_pd(a), _mm_cvtps_pd(b), _mm_cvtps_pd(c));
    __m128d high = odd_sum(_mm_cvtps_pd(_mm_movehl_ps(a, a)), _mm_cvtps_pd(_mm_movehl_ps(b, b)), _mm_cvtps_pd(_mm_movehl_ps(c, c)));
    return (v4)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
#else
static inline v4 fma4(v4 a, v4 b, v4 c)
{
    for (int i = 0; i < 4; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}
#endif

static inline v4 some4(const float *p, int64_t n)
{
    v4 v = {0};
    for (int64_t i = 0; i < n; i++) v[i] = p[i];
    return v;
}

#define CV_SUFFIX _portable
#define CV_TARGET
#define CV_VL 4
#define CV_SHAPES(X) X(8, 1)
#define SPLAT(x) ((v4){(x), (x), (x), (x)})
#define FMA(a, b, c) fma4((a), (b), (c))
#define SOME(p, n) some4((p), (n))
#define PUT_SOME(p, v, n) for (int64_t i = 0; i < (n); i++) (p)[i] = (v)[i]
#define RAISE(v) choose((v) < SPLAT(0), SPLAT(0), (v))
#define LIMIT(v) choose((v) > SPLAT(6), SPLAT(6), (v))
#define SLOPED(v, s) choose((v) < SPLAT(0), (v) * (s), (v))
#include "convolve_kernel.h"

typedef void tile_fn(const struct job *j, const float *const *from, const struct span *span, int64_t run, int64_t block, int64_t pixel, int valid);

typedef void row_fn(const struct job *j, const float *const *rows, int64_t first, int64_t n, int64_t pixel);

struct loops {
    int vector;                                   /* floats */
    int wide;                                     /* most vectors of channels in a tile */
    struct { int tile; tile_fn *of[MOST_WIDE + 1]; } shape[MOST_WIDE + 1]; /* by the widest tile of a call: its pixels, the loops by vectors */
    void (*gather)(float *to, const float *x, int64_t pixels, int64_t C, int64_t slab, int64_t n);
    row_fn *row_any, *row[2][2];                  /* depthwise; by sides 3 and 5, strides 1 and 2 */
};

#define ROWS(set) gather_##set, row_any_##set, {{row31_##set, row32_##set}, {row51_##set, row52_##set}}

static const struct loops *pick(void)
{
    static const struct loops table[] = {
        [LBR_ISA_PORTABLE] = {4, 1, {[1] = {8, {[1] = tile8x1_portable}}}, gather_portable, row_any_portable, {{NULL}}},
#if defined(__x86_64__)
        [LBR_ISA_AVX2] = {8, 3, {[1] = {8, {[1] = tile8x1_avx2}}, [2] = {6, {[2] = tile6x2_avx2}}, [3] = {4, {[2] = tile4x2_avx2, [3] = tile4x3_avx2}}}, ROWS(avx2)},
        [LBR_ISA_AVX512] = {16, 4, {[1] = {8, {[1] = tile8x1_avx512}}, [2] = {12, {[2] = tile12x2_avx512}}, [3] = {8, {[2] = tile8x2_avx512, [3] = tile8x3_avx512}},
                                    [4] = {6, {[3] = tile6x3_avx512, [4] = tile6x4_avx512}}}, ROWS(avx512)},
#endif
    };
    return &table[lbr_cpu_isa()];
}

/* ---- weights packed for the loops, one copy for all plans that have them, kept as long as one of these lives ---- */

typedef void fill_weights(const lbr_tensor *w, int vector, float *out);

struct packed {
    struct packed *next;
    int64_t users;
    uint64_t storage;  /* what is packed, from here on */
    uint32_t version;
    const char *data;
    int64_t count, shape[4];
    fill_weights *fill;
    const struct loops *loops;
    float *weights;    /* [blocks of a vector, K, vector] or [slabs of PITCH channels, taps in columns, PITCH] */
    float *zeros;      /* what taps outside of the picture read */
};

static pthread_mutex_t packing = PTHREAD_MUTEX_INITIALIZER;
static struct packed *all_packed;

static void release(struct packed *p)
{
    free(p->weights);
    free(p->zeros);
    free(p);
}

static void forget(void *state)
{
    struct packed *p = state;
    pthread_mutex_lock(&packing);
    bool last = --p->users == 0;
    struct packed **at = &all_packed;
    while (last && *at != p) at = &(*at)->next;
    if (last) *at = p->next;
    pthread_mutex_unlock(&packing);
    if (last) release(p);
}

static float *aligned(int64_t count)
{
    void *p = NULL;
    return posix_memalign(&p, 64, (size_t)(count + PITCH) * sizeof(float)) ? NULL : p;
}

static int64_t rounded(int64_t channels) { return (channels + PITCH - 1) / PITCH * PITCH; }

static bool is_of(const struct packed *p, const struct packed *q)
{
    return p->storage == q->storage && p->version == q->version && p->data == q->data && p->count == q->count && p->fill == q->fill && p->loops == q->loops &&
           !memcmp(p->shape, q->shape, sizeof p->shape);
}

/* The call's packed weights: its own, those of another call with the same, or new ones of `count` floats that fill() writes. */
static struct packed *pack(lbr_call *c, const struct loops *loops, int64_t count, int64_t channels, fill_weights *fill)
{
    const lbr_tensor *w = &c->in[1];
    struct packed want = { .storage = w->storage->id, .version = w->storage->version, .data = w->data, .count = count, .fill = fill, .loops = loops };
    for (int i = 0; i < w->ndim && i < 4; i++) want.shape[i] = w->shape[i];
    if (c->state && c->state_free == forget && is_of(c->state, &want)) return c->state;
    if (c->state) c->state_free(c->state), c->state = NULL;   /* the weights or the limit of instruction sets have changed since */
    pthread_mutex_lock(&packing);
    struct packed *p = all_packed;
    while (p && !is_of(p, &want)) p = p->next;
    if (!p && (p = calloc(1, sizeof *p))) {
        *p = want;
        p->weights = aligned(count), p->zeros = aligned(channels);
        if (p->weights && p->zeros) {
            memset(p->zeros, 0, (size_t)(channels + PITCH) * sizeof(float));
            fill(w, loops->vector, p->weights);
            p->next = all_packed, all_packed = p;
        } else {
            release(p);
            p = NULL;
        }
    }
    if (p) p->users++, c->state = p, c->state_free = forget;
    pthread_mutex_unlock(&packing);
    return p;
}

static void fill_blocks(const lbr_tensor *w, int vector, float *out)
{
    const float *v = (const float *)w->data;
    int64_t O = w->shape[0], K = (int64_t)w->shape[1] * w->shape[2] * w->shape[3];
    for (int64_t block = 0; block < O; block += vector)
        for (int64_t k = 0; k < K; k++, out += vector)
            for (int64_t o = 0; o < vector; o++) out[o] = block + o < O ? v[(block + o) * K + k] : 0;
}

static void fill_channels(const lbr_tensor *w, int vector, float *out)
{
    (void)vector;
    const float *v = (const float *)w->data;
    int64_t KH = w->shape[0], KW = w->shape[1], C = w->shape[2];
    for (int64_t slab = 0; slab < C; slab += PITCH)
        for (int64_t t = 0; t < KH * KW; t++, out += PITCH)
            for (int64_t ch = 0; ch < PITCH; ch++) out[ch] = slab + ch < C ? v[(t % KH * KW + t / KH) * C + slab + ch] : 0;
}

/* ---- walking over the outputs ---- */

/* Where the windows of a tile's outputs begin, tap by tap; what lies outside of the picture reads zeros. */
static void windows(const struct job *j, int64_t pixel, int valid, const float **from)
{
    int64_t b = pixel / (j->OH * j->OW), oy = pixel / j->OW % j->OH, ox = pixel % j->OW;
    for (int m = 0; m < j->tile; m++) {
        int64_t top = oy * j->stride[0] - j->pad[0], left = ox * j->stride[1] - j->pad[2];
        const float *picture = j->x + b * j->H * j->W * j->C, **f = from + m;
        for (int64_t u = 0; u < j->KH; u++)
            for (int64_t v = 0; v < j->KW; v++, f += MOST_TILE) {
                int64_t iy = top + u * j->dilation[0], ix = left + v * j->dilation[1];
                *f = iy >= 0 && iy < j->H && ix >= 0 && ix < j->W ? picture + (iy * j->W + ix) * j->C : j->zeros;
            }
        if (m + 1 < valid && ++ox == j->OW) {
            ox = 0;
            if (++oy == j->OH) oy = 0, b++;
        }
    }
}

/* The same for a tile whose windows lie side by side inside the picture; as_rows: a row of taps is one run of KW * C numbers. False elsewhere. */
static bool beside(const struct job *j, int64_t pixel, int valid, bool as_rows, const float **from)
{
    int64_t ox = pixel % j->OW, row = pixel / j->OW, top = row % j->OH * j->stride[0] - j->pad[0], left = ox * j->stride[1] - j->pad[2];
    if (valid < j->tile || ox + j->tile > j->OW || left < 0 || left + (j->tile - 1) * j->stride[1] + (j->KW - 1) * j->dilation[1] >= j->W) return false;
    if (top < 0 || top + (j->KH - 1) * j->dilation[0] >= j->H) return false;
    const float *base = j->x + ((row / j->OH * j->H + top) * j->W + left) * j->C;
    for (int64_t u = 0; u < j->KH; u++, base += j->dilation[0] * j->W * j->C)
        for (int64_t v = 0; v < (as_rows ? 1 : j->KW); v++, from += MOST_TILE)
            for (int m = 0; m < j->tile; m++) from[m] = base + (v * j->dilation[1] + m * j->stride[1]) * j->C;
    return true;
}

/* Where one tap of each of a tile's outputs lies. */
static void window(const struct job *j, int64_t pixel, int64_t tap, const float **from)
{
    for (int m = 0; m < j->tile; m++) {
        int64_t at = pixel + m < j->pixels ? pixel + m : j->pixels - 1, row = at / j->OW;
        int64_t y = row % j->OH * j->stride[0] - j->pad[0] + tap / j->KW * j->dilation[0], x = at % j->OW * j->stride[1] - j->pad[2] + tap % j->KW * j->dilation[1];
        from[m] = y >= 0 && y < j->H && x >= 0 && x < j->W ? j->x + ((row / j->OH * j->H + y) * j->W + x) * j->C : j->zeros;
    }
}

/* What the loops leave to be activated: n channels from `first` on of some pixels, while they are in the cache. */
static void activate(const struct job *j, int64_t pixel, int64_t pixels, int64_t first, int64_t n)
{
    float *y = j->y + pixel * j->O + first;
    if (n == j->O) j->finish(j->act, y, pixels * n);
    else for (int64_t m = 0; m < pixels; m++) j->finish(j->act, y + m * j->O, n);
}

/* Where tile `i` fetches what comes after the weights from number `at` of each block on: half of a block's share, so that two tiles fetch what one block has. */
static const float *next_weights(const struct job *j, int64_t block, int64_t blocks, int64_t at, int64_t count, int64_t i)
{
    int64_t all = j->KH * j->KW * j->C;
    if (at >= all) at = 0, block += blocks;
    block += i / 2;
    return i < 2 * blocks && block < j->blocks ? j->weights + (block * all + at + i % 2 * count / 2) * j->loops->vector : NULL;
}

/* Tiles whose group has more weights than the second-level cache holds: a few channels of a tap at a time for all tiles, from the first-level cache, while the next few are fetched. */
static void convolve_heavy(const struct job *j, tile_fn *run_tile, int64_t block, int64_t blocks, int64_t first, int64_t tiles)
{
    const float *from[MOST_TILES][MOST_TILE];
    float partial[PARTIAL] __attribute__((aligned(64)));
    int64_t taps = j->KH * j->KW, each = j->tile * blocks * j->loops->vector;
    for (int64_t tap = 0; tap < taps; tap++) {
        for (int64_t i = 0; i < tiles; i++) window(j, (first + i) * j->tile, tap, from[i]);
        for (int64_t skip = 0; skip < j->C; skip += PIECE) {
            int64_t count = j->C - skip < PIECE ? j->C - skip : PIECE, at = tap * j->C + skip;
            bool begins = at == 0, ends = at + count == taps * j->C;
            for (int64_t i = 0; i < tiles; i++) {
                float *sums = partial + i * each;
                struct span span = {tap, tap + 1, taps, skip, count, begins ? NULL : sums, ends ? NULL : sums, next_weights(j, block, blocks, at + count, count, i)};
                int64_t pixel = (first + i) * j->tile;
                run_tile(j, from[i], &span, j->C, block, pixel, j->pixels - pixel < j->tile ? (int)(j->pixels - pixel) : j->tile);
            }
        }
    }
}

/* Item = (strip of tiles, group of blocks, tile); pixels are counted through all pictures. */
static void convolve(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    tile_fn *const *of = j->loops->shape[(j->blocks + j->groups - 1) / j->groups].of;
    const float *from[MOST_TAPS * MOST_TILE];
    (void)thread;
    while (begin < end) {
        int64_t strip = begin / (j->strip * j->groups), first = strip * j->strip, tiles = j->tiles - first < j->strip ? j->tiles - first : j->strip;
        int64_t inside = begin - first * j->groups, group = inside / tiles, tile = inside % tiles, stop = tiles - tile < end - begin ? tiles : tile + end - begin;
        int64_t block = group * j->blocks / j->groups, blocks = (group + 1) * j->blocks / j->groups - block;
        int64_t channel = block * j->loops->vector, channels = blocks * j->loops->vector, taps = j->KH * j->KW;
        bool heavy = !j->plain && taps * j->C * channels > CACHED;
        tile_fn *run_tile = of[blocks];
        begin += stop - tile;
        int64_t most = PARTIAL / (j->tile * channels) < MOST_TILES ? PARTIAL / (j->tile * channels) : MOST_TILES;
        if (channels > j->O - channel) channels = j->O - channel;
        for (int64_t i = tile, n; i < stop; i += n) {
            int64_t pixel = (first + i) * j->tile, run = j->C;
            n = heavy ? stop - i < most ? stop - i : most : 1;
            int valid = j->pixels - pixel < n * j->tile ? (int)(j->pixels - pixel) : (int)(n * j->tile);
            struct span span = {0, taps, taps, 0, run, NULL, NULL, NULL};
            if (heavy) convolve_heavy(j, run_tile, block, blocks, first + i, n);
            else if (j->plain) run_tile(j, NULL, &span, run, block, pixel, valid);
            else {
                bool as_rows = j->C < 16 && j->dilation[1] == 1;
                if (!beside(j, pixel, valid, as_rows, from)) windows(j, pixel, valid, from);
                else if (as_rows) span.last = span.taps = j->KH, span.count = run = j->KW * j->C;
                run_tile(j, from, &span, run, block, pixel, valid);
            }
            if (j->act > LBR_ACT_PRELU) activate(j, pixel, valid, channel, channels);
        }
    }
}

/* Item = (picture, chunk of channels, row of outputs). The input rows under the kernel lie in a ring, padded with zeros, so that nothing need be asked inside the loops. */
static void depthwise(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    int64_t chunks = (j->C + j->chunk - 1) / j->chunk, row_floats = j->wide * PITCH, ready = 0;
    float *ring = j->ring + thread * j->each;
    for (int64_t o = 0; o < j->chunk / PITCH * j->span; o++) { /* rows fill all but the columns beside the picture */
        float *row = ring + o * row_floats;
        memset(row, 0, (size_t)(j->pad[2] * PITCH) * sizeof *row);
        memset(row + (j->pad[2] + j->W) * PITCH, 0, (size_t)((j->wide - j->pad[2] - j->W) * PITCH) * sizeof *row);
    }
    for (int64_t item = begin; item < end; item++) {
        int64_t oy = item % j->OH, first = item / j->OH % chunks * j->chunk, b = item / j->OH / chunks, n = j->C - first < j->chunk ? j->C - first : j->chunk;
        int64_t top = oy * j->stride[0]; /* rows are counted from the first padded one */
        if (item == begin || !oy || ready < top) ready = top;
        for (; ready < top + j->span; ready++) {
            int64_t iy = ready - j->pad[0];
            float *to = ring + ready % j->span * row_floats + j->pad[2] * PITCH;
            if (iy >= 0 && iy < j->H) j->loops->gather(to, j->x + (b * j->H + iy) * j->W * j->C + first, j->W, j->C, j->slab, n);
            else for (int64_t o = 0; o < n; o += PITCH) memset(to + o / PITCH * j->slab, 0, (size_t)(j->W * PITCH) * sizeof *to);
        }
        const float *rows[MOST_TAPS];
        for (int64_t ky = 0; ky < j->KH; ky++) rows[ky] = ring + (top + ky * j->dilation[0]) % j->span * row_floats;
        j->row(j, rows, first, n, (b * j->OH + oy) * j->OW);
        if (j->act > LBR_ACT_PRELU) activate(j, (b * j->OH + oy) * j->OW, j->OW, first, n);
    }
}

/* ---- the ops ---- */

static bool serves(const lbr_call *c)
{
    for (int i = 0; i < 5; i++) if (lbr_present(&c->in[i]) && c->in[i].dtype != LBR_F32) return false;
    return c->out[0].dtype == LBR_F32;
}

static struct job job_of(lbr_call *c, const int32_t *stride, const int32_t *pad, const int32_t *dilation, int act)
{
    const lbr_tensor *x = &c->in[0], *y = &c->out[0];
    return (struct job){
        .x = (const float *)x->data, .y = (float *)y->data, .B = x->shape[0], .H = x->shape[1], .W = x->shape[2], .C = x->shape[3],
        .OH = y->shape[1], .OW = y->shape[2], .O = y->shape[3], .stride = stride, .pad = pad, .dilation = dilation, .act = act, .finish = lbr_activate, .loops = pick(),
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
    if (a->loose) j.finish = lbr_activate_loose;
    j.blocks = (int)((j.O + j.loops->vector - 1) / j.loops->vector), j.groups = (j.blocks + j.loops->wide - 1) / j.loops->wide;
    int wide = (j.blocks + j.groups - 1) / j.groups;
    j.plain = taps == 1 && a->stride[0] == 1 && a->stride[1] == 1 && !a->pad[0] && !a->pad[1] && !a->pad[2] && !a->pad[3];
    j.tile = j.loops->shape[wide].tile, j.pixels = j.B * j.OH * j.OW, j.tiles = (j.pixels + j.tile - 1) / j.tile;
    struct packed *p = pack(c, j.loops, rounded(j.O) * taps * j.C, j.C, fill_blocks);
    if (!p) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    j.weights = p->weights, j.zeros = p->zeros;
    /* few products a number: all channels of some pixels at once, while these are in the first-level cache */
    j.strip = j.plain && j.C * j.O <= 32768 ? (4096 / j.C + j.tile - 1) / j.tile + 4 : j.tiles;
    int64_t work = taps * j.C * j.tile * wide * j.loops->vector / 16;
    lbr_parallel(j.groups * j.tiles, work < 30000 ? 30000 / work + 1 : 1, convolve, &j);
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
    struct packed *p = pack(c, j.loops, taps * rounded(j.C), rounded(j.C), fill_channels);
    if (!p) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    j.weights = p->weights;
    bool known = j.KH == j.KW && (j.KH == 3 || j.KH == 5) && a->stride[1] <= 2 && a->dilation[1] == 1;
    j.row = known && j.loops->row[0][0] ? j.loops->row[j.KH == 5][a->stride[1] - 1] : j.loops->row_any;
    j.span = (j.KH - 1) * a->dilation[0] + 1;
    int64_t reach = ((j.OW + ROW_TILE - 1) / ROW_TILE * ROW_TILE - 1) * a->stride[1] + (j.KW - 1) * a->dilation[1] + 1; /* columns that whole tiles read */
    j.wide = reach > j.W + a->pad[2] ? reach : j.W + a->pad[2];
    j.chunk = RING / (j.span * j.wide) / PITCH * PITCH;
    j.chunk = j.chunk < PITCH ? PITCH : j.chunk < rounded(j.C) ? j.chunk : rounded(j.C);
    j.slab = j.span * j.wide * PITCH, j.each = j.chunk / PITCH * j.slab;
    int64_t bytes = j.each * (int64_t)sizeof(float) * lbr_threads();
    j.ring = lbr_alloc(bytes);
    if (!j.ring) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    int64_t work = taps * j.chunk * j.OW / 16 + 1;
    lbr_parallel(j.B * ((j.C + j.chunk - 1) / j.chunk) * j.OH, work < 20000 ? 20000 / work + 1 : 1, depthwise, &j);
    lbr_free(j.ring, bytes);
    return 0;
}
