/* winograd.c: 3x3 convolutions of stride 1 in f32 by Winograd's algorithm, F(4x4, 3x3): 36 products where 144 stand in the definition. Sums run in another order than
 * anywhere else, so only calls that say `loose` come here. The inner loops are in winograd_kernel.h.
 * Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016. */
#include "convolve.h"
#include "vectors.h"

#include <stdlib.h>

enum { PLACES = 36, SIDE = 4, MOST_ROWS = 12, MOST_VECTORS = 4 };

typedef void product_fn(const float *v, int64_t pitch, const float *u, int64_t block, int64_t C, float *m, int64_t wide);

struct loops {
    int vector, most_vectors, most_rows[MOST_VECTORS + 1];
    product_fn *product[MOST_VECTORS + 1][MOST_ROWS + 1]; /* by vectors and rows */
    void (*gather)(const float *const *from, int64_t C, float *to, int64_t gap);
    void (*scatter)(const float *from, int64_t gap, int64_t O, const float *bias, const float *residual, float *y, int64_t line, int rows, int columns);
};

#if defined(__x86_64__)
#define WG_SUFFIX _avx512
#define WG_TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define WG_VL 16
#define WG_MOST 24
#define ROWS12(X, N) X(1, N) X(2, N) X(3, N) X(4, N) X(5, N) X(6, N) X(7, N) X(8, N) X(9, N) X(10, N) X(11, N) X(12, N)
#define ROWS8(X, N) X(1, N) X(2, N) X(3, N) X(4, N) X(5, N) X(6, N) X(7, N) X(8, N)
#define ROWS6(X, N) X(1, N) X(2, N) X(3, N) X(4, N) X(5, N) X(6, N)
#define WG_SHAPES(X) ROWS12(X, 1) ROWS12(X, 2) ROWS8(X, 3) ROWS6(X, 4)
#define SPLAT(x) ((wg_v_avx512)_mm512_set1_ps(x))
#define FMA(a, b, c) ((wg_v_avx512)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define SOME(p, n) ((wg_v_avx512)_mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), (p)))
#define PUT_SOME(p, v, n) _mm512_mask_storeu_ps((p), (__mmask16)((1u << (n)) - 1), (__m512)(v))
#define ENTRY(T, N) [N][T] = product##T##x##N##_avx512,
#include "winograd_kernel.h"
static const struct loops wide_loops = {16, 4, {0, 12, 12, 8, 6}, {ROWS12(ENTRY, 1) ROWS12(ENTRY, 2) ROWS8(ENTRY, 3) ROWS6(ENTRY, 4)}, gather_avx512, scatter_avx512};
#undef ENTRY

static const int32_t lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1}; /* from lanes + 8 - n: n of eight */
#define WG_SUFFIX _avx2
#define WG_TARGET __attribute__((target("avx2,fma")))
#define WG_VL 8
#define WG_MOST 12
#define WG_SHAPES(X) ROWS8(X, 1) ROWS6(X, 2)
#define SPLAT(x) ((wg_v_avx2)_mm256_set1_ps(x))
#define FMA(a, b, c) ((wg_v_avx2)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES(n) _mm256_loadu_si256((const __m256i *)(lanes + 8 - (n)))
#define SOME(p, n) ((wg_v_avx2)_mm256_maskload_ps((p), LANES(n)))
#define PUT_SOME(p, v, n) _mm256_maskstore_ps((p), LANES(n), (__m256)(v))
#define ENTRY(T, N) [N][T] = product##T##x##N##_avx2,
#include "winograd_kernel.h"
static const struct loops narrow_loops = {8, 2, {0, 8, 6}, {ROWS8(ENTRY, 1) ROWS6(ENTRY, 2)}, gather_avx2, scatter_avx2};
#undef LANES
#endif

static const struct loops *pick(void)
{
#if defined(__x86_64__)
    if (lbr_cpu_isa() == LBR_ISA_AVX512) return &wide_loops;
    if (lbr_cpu_isa() == LBR_ISA_AVX2) return &narrow_loops;
#endif
    return NULL;
}

/* ---- weights, transformed and kept with the call as long as its plan lives ---- */

struct packed {
    uint64_t storage;
    uint32_t version;
    const char *data;
    const struct loops *loops;
    float *weights;    /* [places][blocks of a vector][C][vector] */
    float *zeros;      /* what lies outside of the picture */
};

static void forget(void *state)
{
    struct packed *p = state;
    free(p->weights);
    free(p->zeros);
    free(p);
}

static void transform(const float *w, int64_t C, float out[PLACES])
{
    static const double g[6][3] = {{.25, 0, 0}, {-1 / 6., -1 / 6., -1 / 6.}, {-1 / 6., 1 / 6., -1 / 6.}, {1 / 24., 1 / 12., 1 / 6.}, {1 / 24., -1 / 12., 1 / 6.}, {0, 0, 1}};
    double half[6][3];
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 3; k++) half[i][k] = g[i][0] * w[k * C] + g[i][1] * w[(3 + k) * C] + g[i][2] * w[(6 + k) * C];
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 6; k++) out[6 * i + k] = (float)(half[i][0] * g[k][0] + half[i][1] * g[k][1] + half[i][2] * g[k][2]);
}

static struct packed *pack(lbr_call *c, const struct loops *loops, int64_t blocks)
{
    const lbr_tensor *w = &c->in[1];
    int64_t O = w->shape[0], C = w->shape[3], count = PLACES * blocks * C * loops->vector;
    if (c->state && c->state_free != forget) c->state_free(c->state), c->state = NULL; /* the limit of instruction sets has changed since */
    struct packed *p = c->state;
    if (p && p->storage == w->storage->id && p->version == w->storage->version && p->data == w->data && p->loops == loops) return p;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p) return NULL;
        c->state = p, c->state_free = forget;
    }
    if (p->loops != loops) free(p->weights), p->weights = NULL;
    void *memory = NULL;
    if (!p->weights && !posix_memalign(&memory, 64, (size_t)count * sizeof(float))) p->weights = memory;
    if (!p->zeros) p->zeros = calloc((size_t)C, sizeof(float));
    if (!p->weights || !p->zeros) return NULL;
    memset(p->weights, 0, (size_t)count * sizeof(float));
    for (int64_t o = 0; o < O; o++)
        for (int64_t i = 0; i < C; i++) {
            float place[PLACES];
            transform((const float *)w->data + o * 9 * C + i, C, place);
            float *to = p->weights + (o / loops->vector * C + i) * loops->vector + o % loops->vector;
            for (int k = 0; k < PLACES; k++) to[k * blocks * C * loops->vector] = place[k];
        }
    p->storage = w->storage->id, p->version = w->storage->version, p->data = w->data, p->loops = loops;
    return p;
}

/* ---- walking over the tiles ---- */

struct job {
    const struct loops *loops;
    const float *x, *bias, *residual, *weights, *zeros;
    float *y, *scratch;
    int64_t H, W, C, OH, OW, O, top, left;
    int64_t down, across, tiles;           /* tiles of a picture, and of all */
    int64_t blocks, groups;                /* vectors of outputs; products that share them */
    int64_t pitch, wide;                   /* floats of a tile before and behind the product */
    int64_t chunk, gap_in, gap_out, each;  /* tiles at once; floats of a place before and behind; of a chunk's scratch */
    int act;
};

static void take_in(const struct job *j, int64_t tile, float *to)
{
    int64_t b = tile / (j->down * j->across), y = tile / j->across % j->down * SIDE - j->top, x = tile % j->across * SIDE - j->left;
    const float *from[PLACES], *picture = j->x + b * j->H * j->W * j->C;
    for (int64_t i = 0; i < 6; i++)
        for (int64_t k = 0; k < 6; k++)
            from[6 * i + k] = y + i >= 0 && y + i < j->H && x + k >= 0 && x + k < j->W ? picture + ((y + i) * j->W + x + k) * j->C : j->zeros;
    j->loops->gather(from, j->C, to, j->gap_in);
}

static void give_out(const struct job *j, int64_t tile, const float *from)
{
    int64_t b = tile / (j->down * j->across), y = tile / j->across % j->down * SIDE, x = tile % j->across * SIDE, at = ((b * j->OH + y) * j->OW + x) * j->O;
    int rows = (int)(j->OH - y < SIDE ? j->OH - y : SIDE), columns = (int)(j->OW - x < SIDE ? j->OW - x : SIDE);
    j->loops->scatter(from, j->gap_out, j->O, j->bias, j->residual ? j->residual + at : NULL, j->y + at, j->OW * j->O, rows, columns);
    if (j->act) for (int i = 0; i < rows; i++) lbr_activate_loose(j->act, j->y + at + i * j->OW * j->O, columns * j->O);
}

/* A place's product for one group of outputs: the rows in parts as even as they can be. */
static void multiply(const struct job *j, int64_t place, int64_t group, int64_t tiles, const float *in, float *out)
{
    int64_t first = group * j->blocks / j->groups, n = (group + 1) * j->blocks / j->groups - first, block = j->C * j->loops->vector;
    const float *v = in + place * j->gap_in, *u = j->weights + (place * j->blocks + first) * block;
    float *m = out + place * j->gap_out + first * j->loops->vector;
    int64_t parts = (tiles + j->loops->most_rows[n] - 1) / j->loops->most_rows[n];
    for (int64_t i = 0; i < parts; i++) {
        int64_t row = i * tiles / parts, rows = (i + 1) * tiles / parts - row;
        j->loops->product[n][rows](v + row * j->pitch, j->pitch, u, block, j->C, m + row * j->wide, j->wide);
    }
}

/* Tasks are chunks of tiles, each from end to end in scratch of the thread's own. */
static void by_chunks(void *ctx, int phase, int64_t task, int thread)
{
    const struct job *j = ctx;
    int64_t first = task * j->chunk, n = j->tiles - first < j->chunk ? j->tiles - first : j->chunk;
    float *in = j->scratch + thread * j->each, *out = in + PLACES * j->gap_in;
    (void)phase;
    for (int64_t t = 0; t < n; t++) take_in(j, first + t, in + t * j->pitch);
    for (int64_t place = 0; place < PLACES; place++)
        for (int64_t g = 0; g < j->groups; g++) multiply(j, place, g, n, in, out);
    for (int64_t t = 0; t < n; t++) give_out(j, first + t, out + t * j->wide);
}

/* Few tiles of many channels: all are taken in, then each place's weights are read once. */
static void by_phases(void *ctx, int phase, int64_t task, int thread)
{
    const struct job *j = ctx;
    float *in = j->scratch, *out = in + PLACES * j->gap_in;
    (void)thread;
    if (phase == 0) take_in(j, task, in + task * j->pitch);
    else if (phase == 1) multiply(j, task / j->groups, task % j->groups, j->tiles, in, out);
    else give_out(j, task, out + task * j->wide);
}

int lbr_winograd(lbr_call *c, int *served)
{
    enum { CHUNK = 1 << 17, WHOLE = 1 << 20, HEAVY = 1 << 19 }; /* floats: of a chunk in the second-level cache, of all tiles in the third, of weights that are not read again and again */
    const lbr_conv2d_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    const struct loops *loops = pick();
    bool fits = loops && a->groups == 1 && a->act != LBR_ACT_PRELU && w->shape[1] == 3 && w->shape[2] == 3 && a->stride[0] == 1 && a->stride[1] == 1 && a->dilation[0] == 1 && a->dilation[1] == 1;
    for (int i = 0; i < 4; i++) fits = fits && a->pad[i] <= 2 && (!lbr_present(&c->in[i]) || c->in[i].dtype == LBR_F32);
    *served = 0;
    if (!fits) return 0;
    struct job j = {
        .loops = loops, .x = (const float *)x->data, .y = (float *)y->data, .H = x->shape[1], .W = x->shape[2], .C = x->shape[3], .OH = y->shape[1], .OW = y->shape[2], .O = y->shape[3],
        .top = a->pad[0], .left = a->pad[2], .bias = lbr_present(&c->in[2]) ? (const float *)c->in[2].data : NULL, .residual = lbr_present(&c->in[3]) ? (const float *)c->in[3].data : NULL,
        .act = a->act,
    };
    j.down = (j.OH + SIDE - 1) / SIDE, j.across = (j.OW + SIDE - 1) / SIDE, j.tiles = x->shape[0] * j.down * j.across;
    /* few channels are not worth the transforms; few tiles not the weights, which are four times as many */
    if (j.C < 12 || j.O < 8 || j.tiles < 12) return 0;
    int64_t vector = loops->vector;
    j.blocks = (j.O + vector - 1) / vector, j.groups = (j.blocks + loops->most_vectors - 1) / loops->most_vectors;
    j.pitch = (j.C + vector - 1) / vector * vector, j.wide = j.blocks * vector;
    int64_t of_tile = PLACES * (j.pitch + j.wide);
    bool whole = PLACES * j.C * j.wide > HEAVY && j.tiles * of_tile <= WHOLE;
    j.chunk = CHUNK / of_tile > MOST_ROWS ? CHUNK / of_tile : MOST_ROWS;
    if (whole || j.chunk > j.tiles) j.chunk = j.tiles;
    int64_t tasks = (j.tiles + j.chunk - 1) / j.chunk, threads = lbr_threads();
    if (!whole && tasks < 2 * threads) tasks = 2 * threads < j.tiles ? 2 * threads : j.tiles, j.chunk = (j.tiles + tasks - 1) / tasks, tasks = (j.tiles + j.chunk - 1) / j.chunk;
    j.gap_in = j.chunk * j.pitch + vector, j.gap_out = j.chunk * j.wide + vector; /* not a power of two apart */
    j.each = PLACES * (j.gap_in + j.gap_out);
    struct packed *p = pack(c, loops, j.blocks);
    int64_t bytes = (whole ? 1 : threads) * j.each * (int64_t)sizeof(float);
    if (!p || !(j.scratch = lbr_alloc(bytes))) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    j.weights = p->weights, j.zeros = p->zeros;
    if (whole) lbr_phases(3, (const int64_t[]){j.tiles, PLACES * j.groups, j.tiles}, by_phases, &j);
    else lbr_phases(1, &tasks, by_chunks, &j);
    lbr_free(j.scratch, bytes);
    *served = 1;
    return 0;
}
