/* reduce.c: sums, means, products and extremes over any set of dims, sums along one. Sums run in double in a fixed order, so results do not depend on the thread count. */
#include "cpu.h"

#include <stdlib.h>

enum { BLOCK = 256, WIDE = 512 };
enum kind { SUM, MEAN, MAX, MIN, PROD };

/* Kept and reduced dims of a contiguous tensor, neighbours joined, strides in elements. */
struct plan {
    const lbr_tensor *x;
    lbr_tensor *y;
    enum kind kind;
    int kept, reduced;
    int64_t kept_shape[LBR_MAX_DIMS], kept_stride[LBR_MAX_DIMS], reduced_shape[LBR_MAX_DIMS], reduced_stride[LBR_MAX_DIMS];
    int64_t outputs, count; /* outputs of y, elements behind each */
    int64_t row;            /* > 1: so many outputs lie side by side in x and y */
};

static void add_dim(int *n, int64_t *shape, int64_t *stride, int64_t size, int64_t step)
{
    if (size == 1) return;
    if (*n && stride[*n - 1] == step * size) {
        shape[*n - 1] *= size;
        stride[*n - 1] = step;
    } else {
        shape[*n] = size;
        stride[(*n)++] = step;
    }
}

static int64_t offset(int64_t index, int n, const int64_t *shape, const int64_t *stride)
{
    int64_t at = 0;
    for (int d = n - 1; d > 0; d--) { /* no division for the outermost */
        at += index % shape[d] * stride[d];
        index /= shape[d];
    }
    return n ? at + index * stride[0] : 0;
}

static inline double combine(enum kind kind, double acc, double v)
{
    switch (kind) {
    case MAX: return v > acc || v != v ? v : acc;
    case MIN: return v < acc || v != v ? v : acc;
    case PROD: return acc * v;
    default: return acc + v;
    }
}

static inline double start(enum kind kind) { return kind == MAX ? -INFINITY : kind == MIN ? INFINITY : kind == PROD ? 1 : 0; }

/* Sum of a block in eight lanes, folded in a fixed order. */
LBR_CLONES static double block_sum(const double *b, int64_t n)
{
    typedef double lanes __attribute__((vector_size(64), aligned(8), may_alias)); /* written out: compilers do not find it */
    lanes sum = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) sum += *(const lanes *)(b + i);
    double lane[8];
    memcpy(lane, &sum, sizeof lane);
    for (; i < n; i++) lane[i & 7] += b[i];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

typedef double lanes8 __attribute__((vector_size(64), aligned(8), may_alias)); /* written out: compilers do not find it */
typedef int64_t mask8 __attribute__((vector_size(64)));
#define CHOSEN(mask, a, b) (lanes8)(((mask) & (mask8)(a)) | (~(mask) & (mask8)(b)))

/* Largest (smallest) of a block beside acc, in eight lanes; NaN survives. */
LBR_CLONES static double block_extreme(bool largest, const double *b, int64_t n, double acc)
{
    lanes8 most = {acc, acc, acc, acc, acc, acc, acc, acc};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        lanes8 v = *(const lanes8 *)(b + i);
        mask8 wins = (largest ? v > most : v < most) | (v != v);
        most = CHOSEN(wins, v, most);
    }
    for (int k = 0; k < 8; k++) acc = combine(largest ? MAX : MIN, acc, most[k]);
    for (; i < n; i++) acc = combine(largest ? MAX : MIN, acc, b[i]);
    return acc;
}

/* acc[k] = the larger (smaller, product) of acc[k] and b[k]. */
LBR_CLONES static void combine_row(enum kind kind, double *acc, const double *b, int64_t n)
{
    if (kind == MAX) for (int64_t k = 0; k < n; k++) acc[k] = ((b[k] > acc[k]) | (b[k] != b[k])) ? b[k] : acc[k];
    else if (kind == MIN) for (int64_t k = 0; k < n; k++) acc[k] = ((b[k] < acc[k]) | (b[k] != b[k])) ? b[k] : acc[k];
    else for (int64_t k = 0; k < n; k++) acc[k] *= b[k];
}

static double finish(const struct plan *p, double acc) { return p->kind == MEAN ? acc / (double)p->count : acc; }

/* One output at a time: the innermost reduced run is read in blocks. */
static void by_output(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct plan *p = ctx;
    int size = lbr_dtype_size(p->x->dtype), last = p->reduced - 1;
    int64_t run = last >= 0 ? p->reduced_shape[last] : 1, step = last >= 0 ? p->reduced_stride[last] : 1, runs = run ? p->count / run : 0;
    for (int64_t o = begin; o < end; o++) {
        const char *base = p->x->data + offset(o, p->kept, p->kept_shape, p->kept_stride) * size;
        double acc = start(p->kind);
        for (int64_t r = 0; r < runs; r++) {
            const char *q = base + offset(r, last < 0 ? 0 : last, p->reduced_shape, p->reduced_stride) * size;
            for (int64_t i = 0; i < run; i += BLOCK) {
                double block[BLOCK];
                int64_t m = run - i < BLOCK ? run - i : BLOCK;
                lbr_load_f64(p->x->dtype, q + i * step * size, step, m, block);
                if (p->kind <= MEAN) acc += block_sum(block, m);
                else if (p->kind != PROD) acc = block_extreme(p->kind == MAX, block, m, acc);
                else for (int64_t k = 0; k < m; k++) acc *= block[k];
            }
        }
        acc = finish(p, acc);
        lbr_store_f64(p->y->dtype, &acc, 1, p->y->data + o * lbr_dtype_size(p->y->dtype), 1);
    }
}

LBR_CLONES static void add_row_f32(double *acc, const float *x, int64_t n)
{
    for (int64_t k = 0; k < n; k++) acc[k] += (double)x[k];
}

/* The last dim is kept: blocks of neighbouring outputs accumulate row by row. */
static void by_row(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct plan *p = ctx;
    int size = lbr_dtype_size(p->x->dtype);
    int64_t parts = (p->row + WIDE - 1) / WIDE;
    bool plain = p->x->dtype == LBR_F32 && p->kind <= MEAN;
    for (int64_t job = begin; job < end; job++) {
        int64_t first = job % parts * WIDE, m = p->row - first < WIDE ? p->row - first : WIDE, o = job / parts * p->row + first;
        const char *base = p->x->data + offset(o, p->kept, p->kept_shape, p->kept_stride) * size;
        double acc[WIDE], block[WIDE];
        for (int64_t k = 0; k < m; k++) acc[k] = start(p->kind);
        for (int64_t r = 0; r < p->count; r++) {
            const char *x = base + offset(r, p->reduced, p->reduced_shape, p->reduced_stride) * size;
            if (plain) {
                add_row_f32(acc, (const float *)x, m);
                continue;
            }
            lbr_load_f64(p->x->dtype, x, 1, m, block);
            if (p->kind <= MEAN) for (int64_t k = 0; k < m; k++) acc[k] += block[k];
            else combine_row(p->kind, acc, block, m);
        }
        for (int64_t k = 0; k < m; k++) acc[k] = finish(p, acc[k]);
        lbr_store_f64(p->y->dtype, acc, m, p->y->data + o * lbr_dtype_size(p->y->dtype), 1);
    }
}

static int reduce(lbr_call *c, enum kind kind, uint32_t dims)
{
    struct plan p = {.x = &c->in[0], .y = &c->out[0], .kind = kind, .outputs = lbr_tensor_numel(&c->out[0]), .count = 1, .row = 1};
    for (int d = 0; d < p.x->ndim; d++) {
        if (dims >> d & 1) {
            add_dim(&p.reduced, p.reduced_shape, p.reduced_stride, p.x->shape[d], p.x->stride[d]);
            p.count *= p.x->shape[d];
        } else
            add_dim(&p.kept, p.kept_shape, p.kept_stride, p.x->shape[d], p.x->stride[d]);
    }
    if (!p.outputs) return 0;
    if (p.kept && p.kept_stride[p.kept - 1] == 1) p.row = p.kept_shape[p.kept - 1];
    if (p.row > 1) {
        int64_t parts = (p.row + WIDE - 1) / WIDE;
        lbr_parallel(p.outputs / p.row * parts, 1 + 65536 / (p.count * (p.row < WIDE ? p.row : WIDE) + 1), by_row, &p);
    } else
        lbr_parallel(p.outputs, 1 + 65536 / (p.count + 1), by_output, &p);
    return 0;
}

int lbr_cpu_sum(lbr_call *c) { return reduce(c, SUM, ((const lbr_sum_attr *)c->attr)->dims); }
int lbr_cpu_mean(lbr_call *c) { return reduce(c, MEAN, ((const lbr_mean_attr *)c->attr)->dims); }
int lbr_cpu_max(lbr_call *c) { return reduce(c, MAX, ((const lbr_max_attr *)c->attr)->dims); }
int lbr_cpu_min(lbr_call *c) { return reduce(c, MIN, ((const lbr_min_attr *)c->attr)->dims); }

int lbr_cpu_prod(lbr_call *c) { return reduce(c, PROD, ((const lbr_prod_attr *)c->attr)->dims); }

/* ---- along one dim ---- */

/* Lines [outer][n][inner], WIDE neighbours at a time. */
struct lines { const lbr_tensor *x, *y; int64_t n, inner, parts; enum kind kind; bool exclusive, reverse; };

static void run_lines(const lbr_tensor *x, const lbr_tensor *y, int dim, struct lines l, void (*body)(void *ctx, int64_t begin, int64_t end, int thread))
{
    l.x = x, l.y = y, l.n = x->shape[dim], l.inner = 1;
    for (int d = dim + 1; d < x->ndim; d++) l.inner *= x->shape[d]; /* strides of dims of size 1 mean nothing */
    int64_t all = lbr_tensor_numel(x);
    if (!all) return;
    l.parts = (l.inner + WIDE - 1) / WIDE;
    lbr_parallel(all / (l.n * l.inner) * l.parts, 1 + 65536 / (l.n * (l.inner < WIDE ? l.inner : WIDE) + 1), body, &l);
}

/* One line of neighbours in blocks. */
static void accumulate_line(const struct lines *l, int64_t base)
{
    int dtype = l->x->dtype, size = lbr_dtype_size(dtype), way = l->reverse ? -1 : 1;
    double acc = start(l->kind), block[BLOCK];
    for (int64_t i = 0; i < l->n; i += BLOCK) {
        int64_t m = l->n - i < BLOCK ? l->n - i : BLOCK, at = (base + (l->reverse ? l->n - 1 - i : i)) * size;
        lbr_load_f64(dtype, l->x->data + at, way, m, block);
        for (int64_t k = 0; k < m; k++) {
            double next = combine(l->kind, acc, block[k]);
            block[k] = l->exclusive ? acc : next;
            acc = next;
        }
        lbr_store_f64(dtype, block, m, l->y->data + at, way);
    }
}

static void accumulate(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct lines *l = ctx;
    int dtype = l->x->dtype, size = lbr_dtype_size(dtype);
    double acc[WIDE], block[WIDE];
    for (int64_t job = begin; job < end; job++) {
        int64_t first = job % l->parts * WIDE, m = l->inner - first < WIDE ? l->inner - first : WIDE, base = job / l->parts * l->n * l->inner + first;
        if (l->inner == 1) {
            accumulate_line(l, base);
            continue;
        }
        for (int64_t k = 0; k < m; k++) acc[k] = start(l->kind);
        for (int64_t i = 0; i < l->n; i++) {
            int64_t at = (base + (l->reverse ? l->n - 1 - i : i) * l->inner) * size;
            lbr_load_f64(dtype, l->x->data + at, 1, m, block);
            if (l->exclusive) lbr_store_f64(dtype, acc, m, l->y->data + at, 1);
            for (int64_t k = 0; k < m; k++) acc[k] = combine(l->kind, acc[k], block[k]);
            if (!l->exclusive) lbr_store_f64(dtype, acc, m, l->y->data + at, 1);
        }
    }
}

int lbr_cpu_cumsum(lbr_call *c)
{
    const lbr_cumsum_attr *a = c->attr;
    run_lines(&c->in[0], &c->out[0], a->dim, (struct lines){.kind = SUM, .exclusive = a->exclusive != 0, .reverse = a->reverse != 0}, accumulate);
    return 0;
}

int lbr_cpu_cumprod(lbr_call *c)
{
    const lbr_cumprod_attr *a = c->attr;
    run_lines(&c->in[0], &c->out[0], a->dim, (struct lines){.kind = PROD, .exclusive = a->exclusive != 0, .reverse = a->reverse != 0}, accumulate);
    return 0;
}

/* Where b has something larger than best, that and its place. */
LBR_CLONES static void larger_row(double *best, int32_t *y, const double *b, int64_t n, int32_t place)
{
    for (int64_t k = 0; k < n; k++) {
        bool larger = b[k] > best[k];
        best[k] = larger ? b[k] : best[k];
        y[k] = larger ? place : y[k];
    }
}

/* Largest of a block in eight lanes, NaN left out. */
LBR_CLONES static double block_largest(const double *b, int64_t n)
{
    lanes8 most = (lanes8){0} - INFINITY;
    double top = -INFINITY;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        lanes8 v = *(const lanes8 *)(b + i);
        most = CHOSEN(v > most, v, most);
    }
    for (int k = 0; k < 8; k++) top = most[k] > top ? most[k] : top;
    for (; i < n; i++) top = b[i] > top ? b[i] : top;
    return top;
}

static int32_t first_largest(const struct lines *l, int64_t base)
{
    int dtype = l->x->dtype, size = lbr_dtype_size(dtype);
    double best = -INFINITY, block[BLOCK];
    int32_t place = 0;
    for (int64_t i = 0; i < l->n; i += BLOCK) {
        int64_t m = l->n - i < BLOCK ? l->n - i : BLOCK, k = 0;
        lbr_load_f64(dtype, l->x->data + (base + i) * size, 1, m, block);
        double top = block_largest(block, m);
        if (!(top > best)) continue;
        while (block[k] != top) k++;
        best = top, place = (int32_t)(i + k);
    }
    return place;
}

static void find_largest(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct lines *l = ctx;
    int size = lbr_dtype_size(l->x->dtype);
    for (int64_t job = begin; job < end; job++) {
        int64_t first = job % l->parts * WIDE, m = l->inner - first < WIDE ? l->inner - first : WIDE, outer = job / l->parts, base = outer * l->n * l->inner + first;
        int32_t *y = (int32_t *)l->y->data + outer * l->inner + first;
        double best[WIDE], block[WIDE];
        if (l->inner == 1) {
            *y = first_largest(l, base);
            continue;
        }
        for (int64_t k = 0; k < m; k++) best[k] = -INFINITY, y[k] = 0;
        for (int64_t i = 0; i < l->n; i++) {
            lbr_load_f64(l->x->dtype, l->x->data + (base + i * l->inner) * size, 1, m, block);
            larger_row(best, y, block, m, (int32_t)i);
        }
    }
}

int lbr_cpu_argmax(lbr_call *c)
{
    run_lines(&c->in[0], &c->out[0], ((const lbr_argmax_attr *)c->attr)->dim, (struct lines){.kind = MAX}, find_largest);
    return 0;
}

/* ---- norm of gradients ---- */

LBR_CLONES static double square_sum_f32(const float *x, int64_t n)
{
    typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
    typedef double lanes __attribute__((vector_size(64)));
    lanes a = {0}, b = {0};
    double acc = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        lanes v = __builtin_convertvector(*(const eight *)(x + i), lanes), w = __builtin_convertvector(*(const eight *)(x + i + 8), lanes);
        a += v * v, b += w * w;
    }
    for (; i < n; i++) acc += (double)x[i] * x[i];
    a += b;
    for (int k = 0; k < 8; k++) acc += a[k];
    return acc;
}

int lbr_cpu_square_sum_into(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    int64_t n = lbr_tensor_numel(x), size = lbr_dtype_size(x->dtype);
    double acc = 0, block[BLOCK];
    if (x->dtype == LBR_F32) {
        *(double *)c->out[0].data += square_sum_f32((const float *)x->data, n);
        return 0;
    }
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        lbr_load_f64(x->dtype, x->data + i * size, 1, m, block);
        for (int64_t k = 0; k < m; k++) block[k] *= block[k];
        acc += block_sum(block, m);
    }
    *(double *)c->out[0].data += acc;
    return 0;
}
