/* lstm.c: the LSTM on the CPU: packing, choice of path, threads, and the ops' kernels. The inner loops are in lstm_kernel.h.
 *
 * Weights are packed [16-unit block][k][4 gates][16]; a tile keeps 6 rows x 4 gates in registers, applies the activations there and writes h, c, y at once. Batch rows are split
 * over the threads and each walks its rows through all time steps without a barrier. Where x holds the same frame several times (windows that overlap, an input
 * expanded over time) each distinct frame is multiplied once. Backward: gate gradients and dh = d R a step, then dx, dw, dr, db as products over all B*T rows;
 * each weight gradient is summed by one thread in one order. */
#include "lstm.h"

#include "../core.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

enum lstm_mode { LSTM_FUSED, LSTM_BY_STEP, LSTM_FRAMES, LSTM_CONSTANT };

typedef struct {
    const lbr_lstm *a;
    int64_t blocks, Hp, G; /* 16-unit blocks, units and gate columns with padding */
    const float *w, *r, *bias; /* packed [blocks][F][64], [blocks][H][64], [blocks][64] */
    enum lstm_mode mode;
    int64_t hop; /* frames between windows, for LSTM_FRAMES */
} lstm_forward_job;

typedef struct {
    const lbr_lstm *a;
    const lbr_lstm_grad *g;
    int64_t blocks, Hp, N; /* N = B*T */
    const float *w, *r;    /* packed [panel][blocks*64][<= 64 columns of F, of H] */
    float *d;              /* gate gradients [blocks][N][64], row b*T + t */
} lstm_backward_job;

/* What `multiply` of lstm_kernel.h adds to acc [rows][64]. */
typedef struct {
    float *acc;
    const float *a, *w;
    int64_t ra, ka, ao, wk, wo, n, outer;
} lstm_product;

/* ---- one set of inner loops an instruction set ---- */

#if defined(__x86_64__)
#define LSTM_SUFFIX _avx512
#define LSTM_TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define LSTM_VL 16
#define LSTM_TILE 6
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
    void (*backward_rows)(const lstm_backward_job *j, int64_t b0, int64_t b1, float *scratch);
    void (*weight_gradients)(const lstm_backward_job *j, int64_t ub, int64_t f0, int64_t f1, float *scratch);
    int tile;
} lstm_loops;

static const lstm_loops *lstm_pick(void)
{
    static const lstm_loops table[] = {
        [LBR_ISA_PORTABLE] = {forward_rows_portable, backward_rows_portable, weight_gradients_portable, 3},
#if defined(__x86_64__)
        [LBR_ISA_AVX2] = {forward_rows_avx2, backward_rows_avx2, weight_gradients_avx2, 3},
        [LBR_ISA_AVX512] = {forward_rows_avx512, backward_rows_avx512, weight_gradients_avx512, 6},
#endif
    };
    return &table[lbr_cpu_isa()];
}

/* ---- packing ---- */

/* dst [blocks][n][64] from src [4H,n]: column (block, k, gate, unit) = src[gate*H + block*16 + unit][k]; zeros beyond H. */
static void pack_gates(float *dst, const float *src, int64_t H, int64_t n, int64_t ub)
{
    dst += ub * n * 64;
    for (int64_t k0 = 0; k0 < n; k0 += 16)
        for (int64_t i = 0; i < 64; i++) {
            int64_t u = ub * 16 + i % 16, end = k0 + 16 < n ? k0 + 16 : n;
            const float *row = src + (i / 16 * H + u) * n;
            for (int64_t k = k0; k < end; k++) dst[k * 64 + i] = u < H ? row[k] : 0;
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
            memset(to, 0, (size_t)width * 4);
            if (u < H) memcpy(to, src + (i / 16 * H + u) * n + first, (size_t)valid * 4);
        }
    }
}

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* ---- forward ---- */

typedef struct {
    lstm_forward_job j;
    const lstm_loops *loops;
    float *w, *r, *bias, *scratch;
    int64_t chunk, each; /* batch rows a task, scratch floats a thread */
} forward_run;

static void forward_pack(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    forward_run *f = ctx;
    const lbr_lstm *a = f->j.a;
    for (int64_t ub = begin; ub < end; ub++) {
        pack_gates(f->w, a->w, a->H, a->F, ub);
        pack_gates(f->r, a->r, a->H, a->H, ub);
        pack_gates(f->bias, a->b, a->H, 1, ub);
    }
}

static void forward_body(void *ctx, int64_t begin, int64_t end, int thread)
{
    forward_run *f = ctx;
    int64_t B = f->j.a->B;
    for (int64_t i = begin; i < end; i++) {
        int64_t b0 = i * f->chunk, b1 = b0 + f->chunk < B ? b0 + f->chunk : B;
        f->loops->forward_rows(&f->j, b0, b1, f->scratch + thread * f->each);
    }
}

/* Rows a task: even shares of at most `most` rows, at least one task a thread where the batch allows. */
static int64_t share_rows(int64_t B, int64_t most)
{
    if (B < 1) return 1;
    int64_t threads = lbr_threads(), tasks = (B + most - 1) / most;
    tasks = (tasks + threads - 1) / threads * threads;
    int64_t rows = (B + tasks - 1) / tasks;
    return rows < 1 ? 1 : rows;
}

int lbr_lstm_forward_f32(const lbr_lstm *a)
{
    forward_run f = {.j = {.a = a}, .loops = lstm_pick()};
    lstm_forward_job *j = &f.j;
    if (a->B == 0) return 0;
    j->blocks = (a->H + 15) / 16, j->Hp = j->blocks * 16, j->G = j->blocks * 64;
    int64_t most = 96;
    if (a->T > 1 && a->xt == 0) {
        j->mode = LSTM_CONSTANT;
    } else if (a->T > 1 && a->B > 1 && a->xb % a->xt == 0 && a->xb / a->xt >= 0 && a->xb / a->xt * 2 <= a->T) {
        j->mode = LSTM_FRAMES;
        j->hop = a->xb / a->xt;
        if (j->hop > 5) most = j->hop < 80 ? 480 / j->hop : 6; /* the products of a task stay in the cache */
    }
    f.chunk = share_rows(a->B, most);
    if (j->mode == LSTM_FUSED && f.chunk < 4) j->mode = LSTM_BY_STEP;
    int64_t products = 0;
    if (j->mode == LSTM_BY_STEP) products = f.chunk * a->T;
    if (j->mode == LSTM_FRAMES) products = (f.chunk - 1) * j->hop + a->T;
    if (j->mode == LSTM_CONSTANT) products = f.chunk;
    f.each = round_up(3 * f.chunk * j->Hp + products * j->G, 16);
    int64_t floats = j->blocks * 64 * (a->F + a->H + 1) + f.each * lbr_threads();
    float *memory = lbr_alloc(floats * 4);
    if (!memory) return lbr_fail(LBR_ENOMEM, "lstm_forward: out of memory, %lld bytes wanted", (long long)floats * 4);
    f.w = memory, f.r = f.w + j->blocks * 64 * a->F, f.bias = f.r + j->blocks * 64 * a->H, f.scratch = f.bias + j->blocks * 64;
    j->w = f.w, j->r = f.r, j->bias = f.bias;
    lbr_parallel(j->blocks, 1 + 16384 / (64 * (a->F + a->H + 1)), forward_pack, &f);
    lbr_parallel((a->B + f.chunk - 1) / f.chunk, 1, forward_body, &f);
    lbr_free(memory, floats * 4);
    return 0;
}

/* ---- backward ---- */

typedef struct {
    lstm_backward_job j;
    const lstm_loops *loops;
    float *w, *r, *scratch;
    int64_t chunk, each, groups, group; /* batch rows a task; scratch floats a thread; groups of features a unit block, features a group */
} backward_run;

static void backward_pack(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    backward_run *f = ctx;
    const lbr_lstm *a = f->j.a;
    for (int64_t ub = begin; ub < end; ub++) {
        if (f->j.g->dx) pack_rows(f->w, a->w, a->H, a->F, f->j.blocks, ub);
        pack_rows(f->r, a->r, a->H, a->H, f->j.blocks, ub);
    }
}

static void backward_body(void *ctx, int64_t begin, int64_t end, int thread)
{
    backward_run *f = ctx;
    int64_t B = f->j.a->B;
    for (int64_t i = begin; i < end; i++) {
        int64_t b0 = i * f->chunk, b1 = b0 + f->chunk < B ? b0 + f->chunk : B;
        f->loops->backward_rows(&f->j, b0, b1, f->scratch + thread * f->each);
    }
}

static void weights_body(void *ctx, int64_t begin, int64_t end, int thread)
{
    backward_run *f = ctx;
    int64_t features = f->j.a->F + f->j.a->H;
    for (int64_t i = begin; i < end; i++) {
        int64_t f0 = i % f->groups * f->group, f1 = f0 + f->group < features ? f0 + f->group : features;
        if (f0 < f1) f->loops->weight_gradients(&f->j, i / f->groups, f0, f1, f->scratch + thread * f->each);
    }
}

int lbr_lstm_backward_f32(const lbr_lstm *a, const lbr_lstm_grad *g)
{
    backward_run f = {.j = {.a = a, .g = g}, .loops = lstm_pick()};
    lstm_backward_job *j = &f.j;
    int64_t threads = lbr_threads(), features = a->F + a->H;
    j->blocks = (a->H + 15) / 16, j->Hp = j->blocks * 16, j->N = a->B * a->T;
    f.chunk = share_rows(a->B, 96);
    f.groups = (threads * 2 + j->blocks - 1) / j->blocks;
    f.group = round_up((features + f.groups - 1) / f.groups, f.loops->tile);
    int64_t state = 2 * f.chunk * j->Hp, sums = (f.group + 1) * 64;
    f.each = round_up(state > sums ? state : sums, 16);
    int64_t columns_w = g->dx ? round_up(a->F, 16) : 0;
    int64_t floats = j->blocks * 64 * (j->N + columns_w + j->Hp) + f.each * threads;
    float *memory = lbr_alloc(floats * 4);
    if (!memory) return lbr_fail(LBR_ENOMEM, "lstm_backward: out of memory, %lld bytes wanted", (long long)floats * 4);
    j->d = memory, f.r = j->d + j->blocks * 64 * j->N, f.w = f.r + j->blocks * 64 * j->Hp, f.scratch = f.w + j->blocks * 64 * columns_w;
    j->w = f.w, j->r = f.r;
    lbr_parallel(j->blocks, 1 + 16384 / (64 * features), backward_pack, &f);
    if (a->B > 0) lbr_parallel((a->B + f.chunk - 1) / f.chunk, 1, backward_body, &f);
    lbr_parallel(j->blocks * f.groups, 1, weights_body, &f);
    lbr_free(memory, floats * 4);
    return 0;
}
