/* lstm.c: the LSTM on the CPU: packing, choice of path, threads, and the ops' kernels. The inner loops are in lstm_kernel.h.
 *
 * Weights are packed [16-unit block][k][4 gates][16]; a tile keeps 6 rows x 4 gates in registers. Chunks of batch rows are handed out to the threads, each walks
 * through all time steps without a barrier. Where x holds the same frame several times (windows that overlap, an input expanded over time) each distinct frame is
 * multiplied once. Backward: a chunk goes back through time in spans; a span's gate gradients stay in the second-level cache while dx and the chunk's own sums of
 * weight gradients take them up. Chunks depend on the sizes alone, and their sums are added in order, so that bits do not depend on the threads. */
#include "lstm.h"
#include "vectors.h"

#include "../core.h"

enum lstm_mode { LSTM_FUSED, LSTM_BY_STEP, LSTM_FRAMES, LSTM_CONSTANT };

typedef struct {
    const lbr_lstm *a;
    int64_t blocks, Hp, G, K, stride; /* 16-unit blocks, units and gate columns with padding, F + H, floats from one row of input and state to the next */
    const float *w, *bias;            /* packed [blocks][K][64], [blocks][64] */
    enum lstm_mode mode;
    int64_t hop; /* frames between windows, for LSTM_FRAMES */
} lstm_forward_job;

typedef struct {
    const lbr_lstm *a;
    const lbr_lstm_grad *g;
    int64_t blocks, Hp, G, span, rows; /* steps a span, batch rows a chunk */
    int64_t sw, sr;                       /* floats from row to row of the sums for w, for r */
    const float *w, *r;                   /* packed [panel][G][<= 64 columns of F, of H] */
} lstm_backward_job;

/* What `multiply` of lstm_kernel.h computes. */
typedef struct {
    const float *start, *a, *w;
    float *out;
    int64_t start_row, out_row, ra, ka, wk, n;
} lstm_product;

/* ---- one set of inner loops an instruction set ---- */

#if defined(__x86_64__)
#define LSTM_SUFFIX _avx512
#define LSTM_TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define LSTM_VL 16
#define LSTM_TILE 6
#define LSTM_CHAINS 6
#define LSTM_PAIR 2
#define SPLAT(x) ((lstm_v_avx512)_mm512_set1_ps(x))
#define FMA(a, b, c) ((lstm_v_avx512)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define VMIN(a, b) ((lstm_v_avx512)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define VMAX(a, b) ((lstm_v_avx512)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define RECIPROCAL(x) ((lstm_v_avx512)_mm512_rcp14_ps((__m512)(x)))
#define KEEP(x) __asm__("" : "+v"(x))
#include "lstm_kernel.h"

#define LSTM_SUFFIX _avx2
#define LSTM_TARGET __attribute__((target("avx2,fma")))
#define LSTM_VL 8
#define LSTM_TILE 3
#define LSTM_CHAINS 3
#define LSTM_PAIR 1
#define SPLAT(x) ((lstm_v_avx2)_mm256_set1_ps(x))
#define FMA(a, b, c) ((lstm_v_avx2)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define VMIN(a, b) ((lstm_v_avx2)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define VMAX(a, b) ((lstm_v_avx2)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define RECIPROCAL(x) (SPLAT(1.0f) / (x))
#define KEEP(x) __asm__("" : "+x"(x))
#include "lstm_kernel.h"
#endif

#define LSTM_SUFFIX _portable
#define LSTM_TARGET
#define LSTM_VL 4
#define LSTM_TILE 3
#define LSTM_CHAINS 3
#define LSTM_PAIR 1
#define SPLAT(x) ((lstm_v_portable){(x), (x), (x), (x)})
#define FMA(a, b, c) ((a) * (b) + (c))
#define VMIN(limit, x) lstm_limit((limit), (x), (x) > (limit))
#define VMAX(limit, x) lstm_limit((limit), (x), (x) < (limit))
#define RECIPROCAL(x) (SPLAT(1.0f) / (x))
#define KEEP(x) (void)(x)
typedef float lstm_v4 __attribute__((vector_size(16)));
typedef int32_t lstm_i4 __attribute__((vector_size(16)));
static inline lstm_v4 lstm_limit(lstm_v4 limit, lstm_v4 x, lstm_i4 beyond)
{
    return (lstm_v4)((beyond & (lstm_i4)limit) | (~beyond & (lstm_i4)x));
}
#include "lstm_kernel.h"

typedef struct {
    void (*forward_rows)(const lstm_forward_job *j, int64_t b0, int64_t b1, float *scratch);
    void (*backward_rows)(const lstm_backward_job *j, int64_t b0, int64_t b1, float *sums, float *scratch);
} lstm_loops;

static const lstm_loops *lstm_pick(void)
{
    static const lstm_loops table[] = {
        [LBR_ISA_PORTABLE] = {forward_rows_portable, backward_rows_portable},
#if defined(__x86_64__)
        [LBR_ISA_AVX2] = {forward_rows_avx2, backward_rows_avx2},
        [LBR_ISA_AVX512] = {forward_rows_avx512, backward_rows_avx512},
#endif
    };
    return &table[lbr_cpu_isa()];
}

/* ---- packing ---- */

typedef float four __attribute__((vector_size(16)));
typedef float four_anywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t four_places __attribute__((vector_size(16)));

#if defined(__clang__)
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (four_places){i, j, k, l})
#endif

/* Column of unit block ub in dst [n][64]: (k, gate, unit) = src[gate*H + ub*16 + unit][k] of src [4H,n]; zeros beyond H. */
static void pack_gates(float *dst, const float *src, int64_t H, int64_t n, int64_t ub)
{
    for (int64_t k0 = 0; k0 < n; k0 += 16)
        for (int64_t i = 0; i < 64; i += 4) {
            int64_t u = ub * 16 + i % 16, k = k0, end = k0 + 16 < n ? k0 + 16 : n;
            const float *row = src + (i / 16 * H + u) * n;
            for (int64_t e = 0; e < 4 && u + 4 <= H; e++) __builtin_prefetch(row + e * n + k0 + 32);
            for (; u + 4 <= H && k + 4 <= end; k += 4) {
                four a = (four)*(const four_anywhere *)(row + k), b = (four)*(const four_anywhere *)(row + n + k);
                four c = (four)*(const four_anywhere *)(row + 2 * n + k), d = (four)*(const four_anywhere *)(row + 3 * n + k);
                four ab = PICK(a, b, 0, 4, 1, 5), cd = PICK(c, d, 0, 4, 1, 5);
                *(four_anywhere *)(dst + k * 64 + i) = (four_anywhere)PICK(ab, cd, 0, 1, 4, 5);
                *(four_anywhere *)(dst + (k + 1) * 64 + i) = (four_anywhere)PICK(ab, cd, 2, 3, 6, 7);
                ab = PICK(a, b, 2, 6, 3, 7), cd = PICK(c, d, 2, 6, 3, 7);
                *(four_anywhere *)(dst + (k + 2) * 64 + i) = (four_anywhere)PICK(ab, cd, 0, 1, 4, 5);
                *(four_anywhere *)(dst + (k + 3) * 64 + i) = (four_anywhere)PICK(ab, cd, 2, 3, 6, 7);
            }
            for (; k < end; k++)
                for (int64_t e = 0; e < 4; e++) dst[k * 64 + i + e] = u + e < H ? row[e * n + k] : 0;
        }
}

/* dst [panel][blocks*64][width] from src [4H,n]: the same rows in block order, columns in panels of 64, the last one rounded up to 16; zeros beyond H and n. */
static void pack_rows(float *dst, const float *src, int64_t H, int64_t n, int64_t blocks, int64_t ub)
{
    for (int64_t first = 0; first < n; first += 64) {
        int64_t width = n - first >= 64 ? 64 : (n - first + 15) / 16 * 16, valid = n - first < width ? n - first : width;
        for (int64_t i = 0; i < 64; i++) {
            int64_t u = ub * 16 + i % 16;
            float *to = dst + blocks * 64 * first + (ub * 64 + i) * width;
            if (u < H && valid == 64) memcpy(to, src + (i / 16 * H + u) * n + first, 256);
            else {
                memset(to, 0, (size_t)width * 4);
                if (u < H) memcpy(to, src + (i / 16 * H + u) * n + first, (size_t)valid * 4);
            }
        }
    }
}

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Floats a row: n rounded up to an odd number of cache lines, so that rows spread over the cache. */
static int64_t row_floats(int64_t n) { return (round_up(n, 16) / 16 | 1) * 16; }

/* ---- forward ---- */

typedef struct {
    lstm_forward_job j;
    const lstm_loops *loops;
    float *w, *bias, *scratch;
    int64_t chunk, each; /* batch rows a task, scratch floats a thread */
} forward_run;

static void forward_body(void *ctx, int phase, int64_t i, int thread)
{
    forward_run *f = ctx;
    const lbr_lstm *a = f->j.a;
    if (phase == 0) {
        float *to = f->w + i * f->j.K * 64;
        pack_gates(to, a->w, a->H, a->F, i);
        pack_gates(to + a->F * 64, a->r, a->H, a->H, i);
        pack_gates(f->bias + i * 64, a->b, a->H, 1, i);
        return;
    }
    int64_t b0 = i * f->chunk, b1 = b0 + f->chunk < a->B ? b0 + f->chunk : a->B;
    f->loops->forward_rows(&f->j, b0, b1, f->scratch + thread * f->each);
}

/* Rows a task: even shares of at most `most` rows, several tasks a thread where that leaves at least 32 rows, at least one where the batch allows. */
static int64_t share_rows(int64_t B, int64_t most)
{
    int64_t threads = lbr_threads(), tasks = (B + most - 1) / most, wanted = B / 32 < 4 * threads ? B / 32 : 4 * threads;
    if (wanted < threads) wanted = threads;
    if (tasks < wanted) tasks = wanted;
    tasks = (tasks + threads - 1) / threads * threads;
    int64_t rows = (B + tasks - 1) / tasks;
    return rows < 1 ? 1 : rows;
}

int lbr_lstm_forward_f32(const lbr_lstm *a)
{
    forward_run f = {.j = {.a = a}, .loops = lstm_pick()};
    lstm_forward_job *j = &f.j;
    if (a->B == 0) return 0;
    j->blocks = (a->H + 15) / 16, j->Hp = j->blocks * 16, j->G = j->blocks * 64, j->K = a->F + a->H;
    int64_t most = 64;
    if (a->T > 1 && a->xt == 0) {
        j->mode = LSTM_CONSTANT;
    } else if (a->T > 1 && a->B > 1 && a->xb % a->xt == 0 && a->xb / a->xt >= 0 && a->xb / a->xt * 2 <= a->T) {
        j->mode = LSTM_FRAMES;
        j->hop = a->xb / a->xt;
        most = 96;
        if (j->hop > 5) most = j->hop < 80 ? 480 / j->hop : 6; /* the products of a task stay in the cache */
    }
    f.chunk = share_rows(a->B, most);
    if (j->mode == LSTM_FUSED && f.chunk < 4) j->mode = LSTM_BY_STEP;
    int64_t products = 0;
    if (j->mode == LSTM_BY_STEP) products = f.chunk * a->T;
    if (j->mode == LSTM_FRAMES) products = (f.chunk - 1) * j->hop + a->T;
    if (j->mode == LSTM_CONSTANT) products = f.chunk;
    j->stride = row_floats(j->mode == LSTM_FUSED ? j->K : a->H);
    f.each = round_up(f.chunk * (2 * j->stride + j->Hp) + products * j->G, 16);
    lbr_lstm_packed own = {0}, *packed = a->packed ? a->packed : &own;
    int64_t scratch = f.each * lbr_threads() * 4;
    if (!packed->memory) {
        packed->bytes = j->G * (j->K + 1) * 4;
        packed->memory = lbr_alloc(packed->bytes);
    }
    f.scratch = packed->memory ? lbr_alloc(scratch) : NULL;
    int rc = 0;
    if (f.scratch) {
        f.w = packed->memory, f.bias = f.w + j->G * j->K;
        j->w = f.w, j->bias = f.bias;
        lbr_phases(2, (int64_t[]){packed->valid ? 0 : j->blocks, (a->B + f.chunk - 1) / f.chunk}, forward_body, &f);
        packed->valid = 1;
    } else {
        rc = lbr_fail(LBR_ENOMEM, "lstm_forward: out of memory, %lld bytes wanted", (long long)(packed->memory ? scratch : packed->bytes));
    }
    lbr_free(f.scratch, scratch);
    lbr_free(own.memory, own.bytes);
    return rc;
}

/* ---- backward ---- */

typedef struct {
    lstm_backward_job j;
    const lstm_loops *loops;
    float *w, *r, *sums, *scratch;
    int64_t chunk, chunks, share, each; /* batch rows a task; tasks; floats of a task's sums, of a thread's scratch */
} backward_run;

/* to[n] = the sum of the chunks' from[n]. */
static void add_rows(const backward_run *f, float *to, const float *from, int64_t n)
{
    for (int64_t k = 0; k < n; k++) to[k] = f->chunks > 1 ? from[k] + from[f->share + k] : from[k];
    for (int64_t c = 2; c < f->chunks; c++)
        for (int64_t k = 0; k < n; k++) to[k] += from[c * f->share + k];
}

/* The weight gradients of unit block ub. */
static void add_sums(const backward_run *f, int64_t ub)
{
    const lstm_backward_job *j = &f->j;
    int64_t F = j->a->F, H = j->a->H;
    const float *w = f->sums, *r = w + j->G * j->sw, *bias = r + j->G * j->sr;
    for (int64_t i = 0; i < 64; i++) {
        int64_t u = ub * 16 + i % 16, row = i / 16 * H + u, at = ub * 64 + i;
        if (u >= H) continue;
        add_rows(f, (float *)j->g->dw + row * F, w + at * j->sw, F);
        add_rows(f, (float *)j->g->dr + row * H, r + at * j->sr, H);
        add_rows(f, (float *)j->g->db + row, bias + at, 1);
    }
}

static void backward_body(void *ctx, int phase, int64_t i, int thread)
{
    backward_run *f = ctx;
    const lbr_lstm *a = f->j.a;
    if (phase == 0) {
        if (f->j.g->dx) pack_rows(f->w, a->w, a->H, a->F, f->j.blocks, i);
        pack_rows(f->r, a->r, a->H, a->H, f->j.blocks, i);
    } else if (phase == 1) {
        int64_t b0 = i * f->chunk, b1 = b0 + f->chunk < a->B ? b0 + f->chunk : a->B;
        f->loops->backward_rows(&f->j, b0, b1, f->sums + i * f->share, f->scratch + thread * f->each);
    } else {
        add_sums(f, i);
    }
}

int lbr_lstm_backward_f32(const lbr_lstm *a, const lbr_lstm_grad *g)
{
    enum { LEAST_ROWS = 16, MOST_CHUNKS = 8, SPAN = 128 };
    backward_run f = {.j = {.a = a, .g = g}, .loops = lstm_pick()};
    lstm_backward_job *j = &f.j;
    int64_t threads = lbr_threads(), F = a->F, H = a->H;
    if (a->B == 0 || a->T == 0) {
        memset(g->dw, 0, (size_t)(4 * H * F) * 4), memset(g->dr, 0, (size_t)(4 * H * H) * 4), memset(g->db, 0, (size_t)(4 * H) * 4);
        for (int i = 0; i < 2 && a->B > 0; i++) {
            const void *from = i ? g->dcn : g->dhn;
            void *to = i ? g->dc0 : g->dh0;
            if (from) memcpy(to, from, (size_t)(a->B * H) * 4);
            else memset(to, 0, (size_t)(a->B * H) * 4);
        }
        return 0;
    }
    j->blocks = (H + 15) / 16, j->Hp = j->blocks * 16, j->G = j->blocks * 64;
    j->sw = row_floats(F), j->sr = row_floats(H);
    f.chunk = a->B <= LEAST_ROWS * MOST_CHUNKS ? LEAST_ROWS : (a->B + MOST_CHUNKS - 1) / MOST_CHUNKS;
    if (f.chunk > a->B) f.chunk = a->B;
    f.chunks = (a->B + f.chunk - 1) / f.chunk;
    j->rows = f.chunk;
    j->span = f.chunk < SPAN ? SPAN / f.chunk : 1;
    if (j->span > a->T) j->span = a->T;
    f.share = j->G * (j->sw + j->sr + 1);
    f.each = f.chunk * (2 * j->Hp + j->G + j->span * (j->G + round_up(F, 64) + round_up(H, 64)));
    int64_t columns_w = g->dx ? round_up(F, 16) : 0;
    int64_t floats = j->G * (columns_w + j->Hp) + f.share * f.chunks + f.each * threads;
    float *memory = lbr_alloc(floats * 4);
    if (!memory) return lbr_fail(LBR_ENOMEM, "lstm_backward: out of memory, %lld bytes wanted", (long long)floats * 4);
    f.r = memory, f.w = f.r + j->G * j->Hp, f.sums = f.w + j->G * columns_w, f.scratch = f.sums + f.share * f.chunks;
    j->w = f.w, j->r = f.r;
    lbr_phases(3, (int64_t[]){j->blocks, f.chunks, j->blocks}, backward_body, &f);
    lbr_free(memory, floats * 4);
    return 0;
}
