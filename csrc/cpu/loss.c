/* loss.c: masked mean losses and cross entropy. Sums in double, in a fixed order. */
#include "cpu.h"

enum { BLOCK = 256 };

static void load(const lbr_tensor *t, int64_t i, int64_t n, double *out) { lbr_load_f64(t->dtype, t->data + i * lbr_dtype_size(t->dtype), 1, n, out); }
static void store(const lbr_tensor *t, int64_t i, int64_t n, const double *in) { lbr_store_f64(t->dtype, in, n, t->data + i * lbr_dtype_size(t->dtype), 1); }

static inline double value(int kind, double delta, double d)
{
    double a = fabs(d);
    switch (kind) {
    case 1: return a;
    case 2: return a <= delta ? 0.5 * d * d : delta * (a - 0.5 * delta);
    default: return d * d;
    }
}

static inline double slope(int kind, double delta, double d)
{
    switch (kind) {
    case 1: return (d > 0) - (d < 0);
    case 2: return d > delta ? delta : d < -delta ? -delta : d;
    default: return 2 * d;
    }
}

typedef double lanes __attribute__((vector_size(64), aligned(8), may_alias)); /* written out: compilers do not find it */

/* x = what each of n elements comes to, 0 where m is 0, and m = 1 where it is not; kind is a constant at every call. */
static inline __attribute__((always_inline)) void values(int kind, double delta, double *x, const double *t, double *m, int64_t n)
{
    for (int64_t e = 0; e < n; e++) {
        double v = value(kind, delta, x[e] - t[e]);
        x[e] = m[e] != 0 ? v : 0;
        m[e] = m[e] != 0 ? 1 : 0;
    }
}

/* Adds n elements (a multiple of 8) and how many of them count to 8 lanes of each. */
LBR_CLONES static void add_block(int kind, double delta, double *x, const double *t, double *m, int64_t n, double *sum, double *count)
{
    if (kind == 1) values(1, delta, x, t, m, n);
    else if (kind == 2) values(2, delta, x, t, m, n);
    else values(0, delta, x, t, m, n);
    lanes s = *(lanes *)sum, c = *(lanes *)count;
    for (int64_t e = 0; e < n; e += 8) s += *(const lanes *)(x + e), c += *(const lanes *)(m + e);
    *(lanes *)sum = s, *(lanes *)count = c;
}

/* Mask of elements i .. i + n - 1, all ones when absent; zeros up to the next multiple of 8. */
static void load_mask(const lbr_tensor *mask, int64_t i, int64_t n, double *m)
{
    if (lbr_present(mask)) load(mask, i, n, m);
    else
        for (int64_t e = 0; e < n; e++) m[e] = 1;
    for (; n % 8; n++) m[n] = 0;
}

int lbr_cpu_loss(lbr_call *c)
{
    const lbr_loss_attr *a = c->attr;
    int64_t n = lbr_tensor_numel(&c->in[0]);
    double sum[8] = {0}, count[8] = {0}, x[BLOCK] = {0}, t[BLOCK] = {0}, m[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t k = n - i < BLOCK ? n - i : BLOCK;
        load(&c->in[0], i, k, x);
        load(&c->in[1], i, k, t);
        load_mask(&c->in[2], i, k, m);
        add_block(a->kind, a->delta, x, t, m, (k + 7) / 8 * 8, sum, count);
    }
    for (int l = 1; l < 8; l++) sum[0] += sum[l], count[0] += count[l];
    double weight = count[0] > 0 ? 1 / count[0] : 0, y = sum[0] * weight;
    store(&c->out[0], 0, 1, &y);
    store(&c->out[1], 0, 1, &weight);
    return 0;
}

static inline __attribute__((always_inline)) void slopes(int kind, double delta, double dy, double *x, const double *t, const double *m, int64_t n)
{
    for (int64_t e = 0; e < n; e++) {
        double v = dy * slope(kind, delta, x[e] - t[e]);
        x[e] = m[e] != 0 ? v : 0;
    }
}

LBR_CLONES static void slope_block(int kind, double delta, double dy, double *x, const double *t, const double *m, int64_t n)
{
    if (kind == 1) slopes(1, delta, dy, x, t, m, n);
    else if (kind == 2) slopes(2, delta, dy, x, t, m, n);
    else slopes(0, delta, dy, x, t, m, n);
}

int lbr_cpu_loss_backward(lbr_call *c)
{
    const lbr_loss_backward_attr *a = c->attr;
    int64_t n = lbr_tensor_numel(&c->in[1]);
    double dy, weight, x[BLOCK], t[BLOCK], m[BLOCK];
    load(&c->in[0], 0, 1, &dy);
    load(&c->in[4], 0, 1, &weight);
    dy *= weight;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t k = n - i < BLOCK ? n - i : BLOCK;
        load(&c->in[1], i, k, x);
        load(&c->in[2], i, k, t);
        load_mask(&c->in[3], i, k, m);
        slope_block(a->kind, a->delta, dy, x, t, m, k);
        store(&c->out[0], i, k, x);
    }
    return 0;
}

/* ---- cross entropy ---- */

int lbr_cpu_cross_entropy(lbr_call *c)
{
    const int32_t *class = (const int32_t *)c->in[1].data;
    int64_t rows = c->in[0].shape[0], n = c->in[0].shape[1], used = 0;
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        double top = -INFINITY, total = 0, v;
        if (class[r] >= n) return lbr_fail(LBR_EINVAL, "cross_entropy: class %d in row %lld, there are %lld", class[r], (long long)r + 1, (long long)n);
        for (int64_t i = 0; i < n; i++) {
            load(&c->in[0], r * n + i, 1, &v);
            top = v > top || v != v ? v : top;
        }
        for (int64_t i = 0; i < n; i++) {
            load(&c->in[0], r * n + i, 1, &v);
            total += exp(v - top);
        }
        for (int64_t i = 0; i < n; i++) {
            load(&c->in[0], r * n + i, 1, &v);
            if (i == class[r]) sum -= v - top - log(total), used++;
            v = exp(v - top) / total;
            store(&c->out[1], r * n + i, 1, &v);
        }
    }
    double y = used ? sum / (double)used : 0;
    store(&c->out[0], 0, 1, &y);
    return 0;
}

int lbr_cpu_cross_entropy_backward(lbr_call *c)
{
    const int32_t *class = (const int32_t *)c->in[2].data;
    int64_t rows = c->in[1].shape[0], n = c->in[1].shape[1], used = 0;
    double dy, v;
    load(&c->in[0], 0, 1, &dy);
    for (int64_t r = 0; r < rows; r++) used += class[r] >= 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) {
            load(&c->in[1], r * n + i, 1, &v);
            v = class[r] < 0 ? 0 : (v - (i == class[r])) * dy / (double)used;
            store(&c->out[0], r * n + i, 1, &v);
        }
    return 0;
}
