/* int8.c: convolutions of 8-bit numbers: unsigned inputs with a scale and a zero, weights rounded per output channel to signed ones, sums in i32, the rest of the layer in f32.
 * Four products at a time (VNNI) where the processor has them; elsewhere it only answers the same. Sums are exact, so the order of them is free. */
#include "cpu.h"
#include "gate.h"
#include "vectors.h"

#include <stdlib.h>

enum { LANES = 16, MOST_TILE = 16, MOST_WIDE = 4, MOST_TAPS = 64, BAND = 1 << 16, AHEAD = 512 }; /* BAND: bytes of input rows that are laid out at once */

/* ---- weights, packed and kept with the call as long as its plan lives ---- */

struct packed {
    uint64_t storage;
    uint32_t version;
    const char *data;
    int8_t *weights;          /* [blocks of LANES][runs][fours of a run][LANES][4], zeros behind a run's end */
    int32_t *start;           /* [O rounded up] what the input's zero adds up to, negated */
    float *scale;             /* [O rounded up] of a sum */
};

struct job;
/* from: where the windows of the tile's pixels begin; even: the first one's is enough, the others lie a step from each to the next. */
typedef void tile_fn(const struct job *j, const uint8_t *const *from, int64_t block, int64_t pixel, int valid);

struct job {
    const struct packed *p;
    const lbr_conv2d_int8_attr *a;
    const uint8_t *x, *residual;
    const float *bias;
    uint8_t *bytes;           /* one of the two: the output */
    float *numbers;
    int64_t H, W, C, OH, OW, O, KH, KW;
    int64_t blocks, groups, rows;                                  /* rows of outputs in all pictures; 1x1: tiles */
    int64_t runs, run, fours, offset[MOST_TAPS];                   /* run: bytes of a window that lie behind one another; offset: of each from the window's first */
    int64_t across, step, turn;                                    /* outputs in a row; bytes from a window to the next, and to that of the next row */
    int64_t band, columns, each;                                   /* rows of outputs that are served at once, columns of the input laid out, bytes of a thread's room */
    const uint8_t *end;                                            /* of x: the last four may reach past it */
    uint8_t *room;
    float inverse;                                                 /* of the output's scale */
    int tile;
    tile_fn *shape[MOST_WIDE + 1], *even[MOST_WIDE + 1];
};

static void forget(void *state)
{
    struct packed *p = state;
    free(p->weights), free(p->start), free(p->scale);
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
    if (!p->weights || !p->start || !p->scale) return NULL;
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
        int64_t to = (pixel + m) * j->O + o;
        const uint8_t *r = j->residual ? j->residual + to : NULL;
        int32_t sum[LANES];
        float v[LANES];
        memcpy(sum, j->p->start + o, sizeof sum);
        for (int64_t t = 0; t < j->runs; t++, w += j->fours * LANES * 4) {
            const uint8_t *p = from[m] + j->offset[t];
            for (int64_t i = 0; i < j->run; i++)
                for (int k = 0; k < LANES; k++) sum[k] += p[i] * w[(i / 4 * LANES + k) * 4 + i % 4];
        }
        for (int k = 0; k < n; k++) {
            float add = r ? (float)((r[k] - a->r_zero) * a->r_scale) : 0;
            v[k] = (float)sum[k] * j->p->scale[o + k] + (j->bias ? j->bias[o + k] : 0) + (a->late ? 0 : add);
        }
        lbr_activate(a->act, v, n);
        for (int k = 0; k < n; k++) {
            if (r && a->late) v[k] += (float)((r[k] - a->r_zero) * a->r_scale);
            if (j->numbers) j->numbers[to + k] = v[k];
            else {
                float q = rintf(v[k] * j->inverse + (float)a->y_zero);
                j->bytes[to + k] = (uint8_t)(q > 0 ? q < 255 ? q : 255 : 0);
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

INLINE __m512 widened(const uint8_t *p, __mmask16 some)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(some, p)));
}

INLINE void activated(int act, __m512 *v, const int n)
{
    float lanes[8 * LANES];
    switch (act) {
    case LBR_ACT_NONE: return;
    case LBR_ACT_RELU: UNROLL for (int k = 0; k < n; k++) v[k] = _mm512_max_ps(_mm512_setzero_ps(), v[k]); return;
    case LBR_ACT_SILU: lbr_gates(v, n, true); return;
    }
    UNROLL for (int k = 0; k < n; k++) _mm512_storeu_ps(lanes + k * LANES, v[k]);
    lbr_activate_loose(act, lanes, n * LANES);
    UNROLL for (int k = 0; k < n; k++) v[k] = _mm512_loadu_ps(lanes + k * LANES);
}

/* To bytes, n vectors (at most four) one behind the other. Saturates; NaN is 0. */
INLINE __m512i narrowed(const __m512 *v, const int n, __m512 inverse, __m512 zero)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i q[4];
    UNROLL for (int k = 0; k < 4; k++) q[k] = k < n ? _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(255), _mm512_fmadd_ps(v[k], inverse, zero))) : _mm512_setzero_si512();
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3])));
}

/* Sums [valid][N][LANES] to the layer's numbers or bytes. */
INLINE void finish_as(const struct job *j, const int32_t *sums, int64_t block, int64_t pixel, int valid, const int N, const int act)
{
    const lbr_conv2d_int8_attr *a = j->a;
    const int G = 8 / N; /* pixels at once: a vector alone waits for each step of its activation */
    const int64_t o = block * LANES, rest = j->O - o - (N - 1) * LANES;
    const __mmask16 last = rest >= LANES ? 0xffff : (__mmask16)((1u << rest) - 1);
    const __m512 rs = _mm512_set1_ps((float)a->r_scale), rz = _mm512_set1_ps((float)a->r_zero);
    const __m512 inverse = _mm512_set1_ps(j->inverse), zero = _mm512_set1_ps((float)a->y_zero);
    const bool dense = last == 0xffff && (N == 4 || (N != 3 && j->O == N * LANES)); /* four vectors lie behind one another */
    __m512 scale[4], bias[4];
    UNROLL for (int n = 0; n < N; n++) {
        scale[n] = _mm512_load_ps(j->p->scale + o + n * LANES);
        bias[n] = j->bias ? _mm512_maskz_loadu_ps(n + 1 < N ? 0xffff : last, j->bias + o + n * LANES) : _mm512_setzero_ps();
    }
    for (int m = 0; m < valid; m += G, sums += G * N * LANES) {
        __m512 v[8], r[8];
        int64_t to = (pixel + m) * j->O + o;
        UNROLL for (int k = 0; k < 8; k++) r[k] = zero;
        UNROLL for (int k = 0; k < G * N; k++) v[k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + k * LANES)), scale[k % N], bias[k % N]);
        if (j->residual) {
            UNROLL for (int k = 0; k < G * N; k++) {
                __mmask16 some = m + k / N >= valid ? 0 : k % N + 1 < N ? 0xffff : last;
                r[k] = widened(j->residual + to + k / N * j->O + k % N * LANES, some);
                r[k] = _mm512_sub_ps(r[k], rz);
                if (!a->late) v[k] = _mm512_fmadd_ps(r[k], rs, v[k]);
            }
        }
        activated(act, v, G * N);
        if (j->residual && a->late) UNROLL for (int k = 0; k < G * N; k++) v[k] = _mm512_fmadd_ps(r[k], rs, v[k]);
        if (j->bytes) {
            const int half = N == 3 ? 3 : 4;
            uint8_t line[2][4 * LANES] __attribute__((aligned(64)));
            __m512i low = narrowed(v, half, inverse, zero), high = narrowed(v + half, half, inverse, zero);
            if (dense && m + G <= valid) {
                _mm512_storeu_si512(j->bytes + to, low);
                _mm512_storeu_si512(j->bytes + to + G / 2 * j->O, high);
                continue;
            }
            _mm512_store_si512(line[0], low);
            _mm512_store_si512(line[1], high);
            UNROLL for (int k = 0; k < G * N; k++) {
                __m128i y = _mm_load_si128((const __m128i *)(line[k / half] + k % half * LANES));
                if (m + k / N < valid) _mm_mask_storeu_epi8(j->bytes + to + k / N * j->O + k % N * LANES, k % N + 1 < N ? 0xffff : last, y);
            }
        } else {
            UNROLL for (int k = 0; k < G * N; k++)
                if (m + k / N < valid) _mm512_mask_storeu_ps(j->numbers + to + k / N * j->O + k % N * LANES, k % N + 1 < N ? 0xffff : last, v[k]);
        }
    }
}

INLINE void finish(const struct job *j, const int32_t *sums, int64_t block, int64_t pixel, int valid, const int N)
{
    switch (j->a->act) {
    case LBR_ACT_NONE: finish_as(j, sums, block, pixel, valid, N, LBR_ACT_NONE); break;
    case LBR_ACT_RELU: finish_as(j, sums, block, pixel, valid, N, LBR_ACT_RELU); break;
    case LBR_ACT_SILU: finish_as(j, sums, block, pixel, valid, N, LBR_ACT_SILU); break;
    default: finish_as(j, sums, block, pixel, valid, N, j->a->act);
    }
}

#define FINISH_OF(N)                                                                                                                    \
    TARGET static __attribute__((noinline)) void finish##N(const struct job *j, const int32_t *sums, int64_t block, int64_t pixel, int valid) \
    {                                                                                                                                   \
        finish(j, sums, block, pixel, valid, N);                                                                                        \
    }
FINISH_OF(1) FINISH_OF(2) FINISH_OF(3) FINISH_OF(4)

/* Even: windows at even steps, three of four of which need no register of their own. */
INLINE void tile(const struct job *j, const uint8_t *const *from, int64_t block, int64_t pixel, int valid, const int T, const int N, const bool even)
{
    const int64_t gap = j->runs * j->fours * LANES * 4;
    const int8_t *w = j->p->weights + block * gap;
    int32_t sums[MOST_TILE * MOST_WIDE * LANES] __attribute__((aligned(64)));
    __m512i acc[MOST_TILE * MOST_WIDE];
    UNROLL for (int n = 0; n < N; n++) {
        __m512i start = _mm512_load_si512(j->p->start + (block + n) * LANES);
        UNROLL for (int m = 0; m < T; m++) acc[m * N + n] = start;
    }
    for (int64_t t = 0; t < j->runs; t++) {
        const uint8_t *p[MOST_TILE];
        int64_t step = j->step, steps = 3 * step;
        UNROLL for (int m = 0; m < T; m += even ? 4 : 1) p[m] = even ? from[0] + m * step + j->offset[t] : from[m] + j->offset[t];
        for (int64_t i = 0; i < j->fours; i++, w += LANES * 4) {
            __m512i weight[MOST_WIDE];
            UNROLL for (int n = 0; n < N; n++) {
                weight[n] = _mm512_load_si512(w + n * gap);
                if (N > 2) _mm_prefetch((const char *)(w + n * gap + AHEAD), _MM_HINT_T0); /* they leave the first-level cache from tile to tile */
            }
            if (even) __asm__("" : "+r"(step), "+r"(steps)); /* or the compiler makes as many pointers as pixels */
            UNROLL for (int m = 0; m < T; m++) {
                int32_t four;
                memcpy(&four, (even ? p[m / 4 * 4] + (m % 4 < 3 ? m % 4 * step : steps) : p[m]) + 4 * i, 4);
                __m512i x = _mm512_set1_epi32(four);
                UNROLL for (int n = 0; n < N; n++) four_products(&acc[m * N + n], x, weight[n]);
            }
        }
    }
    UNROLL for (int i = 0; i < T * N; i++) _mm512_store_si512(sums + i * LANES, acc[i]);
    (N == 1 ? finish1 : N == 2 ? finish2 : N == 3 ? finish3 : finish4)(j, sums, block, pixel, valid);
}

#define TILE_OF(T, N, even)                                                                                                           \
    TARGET static void tile##T##x##N##even(const struct job *j, const uint8_t *const *from, int64_t block, int64_t pixel, int valid)     \
    {                                                                                                                                 \
        tile(j, from, block, pixel, valid, T, N, #even[0]);                                                                             \
    }
TILE_OF(16, 1, ) TILE_OF(12, 2, ) TILE_OF(8, 2, ) TILE_OF(8, 3, ) TILE_OF(6, 3, ) TILE_OF(6, 4, ) TILE_OF(16, 1, e) TILE_OF(12, 2, e)
#endif

/* Which tiles serve this many blocks: at most `wide` of them at once. */
static void choose(struct job *j)
{
    j->tile = 8, j->groups = j->blocks, j->shape[1] = portable;
#if defined(__x86_64__)
    if (lbr_cpu_isa() != LBR_ISA_AVX512 || !__builtin_cpu_supports("avx512vnni")) return;
    j->groups = (j->blocks + MOST_WIDE - 1) / MOST_WIDE;
    switch ((j->blocks + j->groups - 1) / j->groups) {
    case 1: j->tile = 16, j->shape[1] = tile16x1, j->even[1] = tile16x1e; break;
    case 2: j->tile = 12, j->shape[2] = tile12x2, j->even[2] = tile12x2e; break;
    case 3: j->tile = 8, j->shape[2] = tile8x2, j->shape[3] = tile8x3; break;
    default: j->tile = 6, j->shape[3] = tile6x3, j->shape[4] = tile6x4;
    }
#endif
}

/* ---- walking over the outputs ---- */

/* Input rows under `rows` rows of outputs from `oy` on, one behind the other, the input's zero around the picture, so that no window need be asked where it lies. */
static void lay_out(const struct job *j, const uint8_t *picture, int64_t oy, int64_t rows, uint8_t *room)
{
    const lbr_conv2d_int8_attr *a = j->a;
    int64_t top = oy * a->stride[0] - a->pad[0], n = (rows - 1) * a->stride[0] + (j->KH - 1) * a->dilation[0] + 1, wide = j->columns * j->C;
    int64_t left = a->pad[2] < j->columns ? a->pad[2] : j->columns, within = j->columns - left < j->W ? j->columns - left : j->W, right = j->columns - left - within;
    for (int64_t y = top; y < top + n; y++, room += wide) {
        if (y < 0 || y >= j->H) {
            memset(room, a->x_zero, (size_t)wide);
            continue;
        }
        memset(room, a->x_zero, (size_t)(left * j->C));
        memcpy(room + left * j->C, picture + y * j->W * j->C, (size_t)(within * j->C));
        memset(room + (left + within) * j->C, a->x_zero, (size_t)(right * j->C));
    }
}

/* A tile whose first window begins at `first`, ox places from the left. */
static void run_tile(const struct job *j, int64_t block, int64_t blocks, int64_t pixel, int valid, const uint8_t *first, int64_t ox)
{
    const uint8_t *from[MOST_TILE] = {first};
    bool even = j->even[blocks] && valid == j->tile && ox + valid <= j->across;
    for (int m = 1; m < j->tile && !even; m++) {
        if (m < valid && ++ox == j->across) ox = 0, first += j->turn;
        else if (m < valid) first += j->step;
        from[m] = first;
    }
    (even ? j->even : j->shape)[blocks](j, from, block, pixel, valid);
}

/* Item = (group of blocks, row of outputs), some rows at a time; rows are counted through all pictures. */
static void convolve(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    const lbr_conv2d_int8_attr *a = j->a;
    uint8_t *room = j->room + thread * j->each;
    int64_t laid = -1, laid_rows = 0, rows;
    for (int64_t item = begin; item < end; item += rows) {
        int64_t group = item / j->rows, block = group * j->blocks / j->groups, blocks = (group + 1) * j->blocks / j->groups - block;
        int64_t row = item % j->rows, oy = row % j->OH, ox = 0;
        rows = j->OH - oy < j->band ? j->OH - oy : j->band;
        if (rows > end - item) rows = end - item;
        if (row != laid || rows > laid_rows) lay_out(j, j->x + row / j->OH * j->H * j->W * j->C, oy, rows, room);
        laid = row, laid_rows = rows;
        const uint8_t *from = room;
        for (int64_t pixel = row * j->OW, left = rows * j->OW; left > 0; pixel += j->tile, left -= j->tile) {
            run_tile(j, block, blocks, pixel, left < j->tile ? (int)left : j->tile, from + ox * j->step, ox);
            for (ox += j->tile; ox >= j->OW; ox -= j->OW) from += a->stride[0] * j->columns * j->C;
        }
    }
}

/* 1x1, pixel for pixel. Item = (group of blocks, tile); pixels are counted through all pictures. */
static void pointwise(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    while (begin < end) {
        int64_t group = begin / j->rows, first = begin % j->rows, block = group * j->blocks / j->groups, blocks = (group + 1) * j->blocks / j->groups - block;
        int64_t last = j->rows - first < end - begin ? j->rows : first + end - begin;
        begin += last - first;
        for (int64_t pixel = first * j->tile; pixel < last * j->tile; pixel += j->tile) {
            int64_t left = j->across - pixel;
            int valid = left < j->tile ? (int)left : j->tile;
            const uint8_t *from = j->x + pixel * j->step;
            if (from + (valid - 1) * j->step + 4 * j->fours > j->end)
                from = memcpy(j->room + thread * j->each, from, (size_t)((valid - 1) * j->step + j->C));
            run_tile(j, block, blocks, pixel, valid, from, 0);
        }
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
    j.inverse = j.bytes ? (float)(1 / a->y_scale) : 1;
    bool plain = j.KH == 1 && j.KW == 1 && a->stride[0] == 1 && a->stride[1] == 1 && !a->pad[0] && !a->pad[1] && !a->pad[2] && !a->pad[3];
    int64_t apart = a->dilation[1] == 1 ? 1 : j.KW, pixels = x->shape[0] * j.OH * j.OW; /* apart: runs in a row of taps */
    j.columns = (j.OW - 1) * a->stride[1] + (j.KW - 1) * a->dilation[1] + 1;
    j.runs = j.KH * apart, j.run = j.KW / apart * j.C, j.fours = (j.run + 3) / 4;
    for (int64_t t = 0; t < j.runs; t++) j.offset[t] = (t / apart * a->dilation[0] * j.columns + t % apart * a->dilation[1]) * j.C;
    j.blocks = (j.O + LANES - 1) / LANES;
    choose(&j);
    int64_t row = j.columns * j.C, under = (j.KH - 1) * a->dilation[0] + 1, work = j.runs * j.fours * MOST_WIDE + 1;
    if (plain) {
        j.rows = (pixels + j.tile - 1) / j.tile, j.across = pixels, j.step = j.C, j.each = j.tile * j.step, j.end = j.x + pixels * j.C;
        work *= j.tile;
    } else {
        j.rows = x->shape[0] * j.OH, j.across = j.OW, j.step = a->stride[1] * j.C, j.turn = a->stride[0] * row - (j.OW - 1) * j.step;
        j.band = BAND / (row + 1) < under ? 1 : (BAND / (row + 1) - under) / a->stride[0] + 1;
        if (j.band > j.OH) j.band = j.OH;
        j.each = ((j.band - 1) * a->stride[0] + under) * row;
        work *= j.OW;
    }
    j.each = (j.each + 4 + 63) / 64 * 64; /* there too the last four may reach past the end */
    if (!(j.p = pack(c, &j))) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    int64_t bytes = j.each * lbr_threads();
    if (!(j.room = lbr_alloc(bytes))) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    lbr_parallel(j.groups * j.rows, work < 30000 ? 30000 / work + 1 : 1, plain ? pointwise : convolve, &j);
    lbr_free(j.room, bytes);
    return 0;
}
