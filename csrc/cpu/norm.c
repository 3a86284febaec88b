/* norm.c: softmax, layer norm and batch norm, forward and backward. Rows are computed in double, whatever the dtype, but for softmax and layer norm of f32. */
#include "cpu.h"
#include "vectors.h"

#include <stdlib.h>

struct rows {
    lbr_call *c;
    int64_t n; /* length of a row */
    void (*row)(lbr_call *c, int64_t r, int64_t n, double *buffer);
    int buffers;
    bool failed;
};

static void each_row(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    struct rows *k = ctx;
    double *buffer = malloc(sizeof(double) * (size_t)(k->n * k->buffers + 1));
    if (!buffer) {
        k->failed = true;
        return;
    }
    for (int64_t r = begin; r < end; r++) k->row(k->c, r, k->n, buffer);
    free(buffer);
}

static int by_row(lbr_call *c, const lbr_tensor *x, int buffers, void (*row)(lbr_call *c, int64_t r, int64_t n, double *buffer))
{
    int64_t n = x->ndim ? x->shape[x->ndim - 1] : 1, total = lbr_tensor_numel(x);
    if (!total) return 0;
    struct rows k = {c, n, row, buffers, false};
    lbr_parallel(total / n, 1 + 8192 / n, each_row, &k);
    return k.failed ? lbr_fail(LBR_ENOMEM, "%s: out of memory for a row of %lld", lbr_op_name(c->op), (long long)n) : 0;
}

static void load(const lbr_tensor *t, int64_t r, int64_t n, double *out) { lbr_load_f64(t->dtype, t->data + r * n * lbr_dtype_size(t->dtype), 1, n, out); }
static void store(const lbr_tensor *t, int64_t r, int64_t n, const double *in) { lbr_store_f64(t->dtype, in, n, t->data + r * n * lbr_dtype_size(t->dtype), 1); }

/* ---- softmax ---- */

static double log_sum(const double *x, int64_t n)
{
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) top = x[i] > top || x[i] != x[i] ? x[i] : top;
    if (isinf(top) && top < 0) return top;
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

static void softmax_row(lbr_call *c, int64_t r, int64_t n, double *x)
{
    load(&c->in[0], r, n, x);
    double lse = log_sum(x, n);
    for (int64_t i = 0; i < n; i++) x[i] = c->op == LBR_OP_softmax ? exp(x[i] - lse) : x[i] - lse;
    store(&c->out[0], r, n, x);
}

static void softmax_backward_row(lbr_call *c, int64_t r, int64_t n, double *dy)
{
    double *y = dy + n, dot = 0;
    load(&c->in[0], r, n, dy);
    load(&c->in[1], r, n, y);
    if (c->op == LBR_OP_softmax_backward) {
        for (int64_t i = 0; i < n; i++) dot += dy[i] * y[i];
        for (int64_t i = 0; i < n; i++) dy[i] = (dy[i] - dot) * y[i];
    } else {
        for (int64_t i = 0; i < n; i++) dot += dy[i];
        for (int64_t i = 0; i < n; i++) dy[i] -= exp(y[i]) * dot;
    }
    store(&c->out[0], r, n, dy);
}

/* f32 in sixteen lanes, summed in double and folded in a fixed order; what is not finite ends as in softmax_row: NaN, or -infinity beside numbers as 0. */
enum { LANES = 16 };
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define SUM_OF(a, b) ((a) + (b))
#define FOLD(lane, n, join) for (int k = 0; k < n; k++) lane[k] = join(lane[k], lane[k + n]);
#define FOLDED(lane, join) FOLD(lane, 8, join) FOLD(lane, 4, join) FOLD(lane, 2, join) FOLD(lane, 1, join)

LBR_CLONES static void softmax_f32(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const lbr_call *c = ctx;
    const lbr_tensor *in = &c->in[0];
    const bool logarithm = c->op == LBR_OP_log_softmax;
    int64_t n = in->ndim ? in->shape[in->ndim - 1] : 1, whole = n / LANES * LANES;
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)in->data + r * n;
        float *restrict y = (float *)c->out[0].data + r * n, top[LANES];
        double sum[LANES];
        for (int k = 0; k < LANES; k++) top[k] = -INFINITY, sum[k] = 0;
        for (int64_t i = 0; i < whole; i += LANES)
            for (int k = 0; k < LANES; k++) top[k] = LARGER(x[i + k], top[k]);
        for (int64_t i = whole; i < n; i++) top[i - whole] = LARGER(x[i], top[i - whole]);
        FOLDED(top, LARGER)
        for (int64_t i = 0; i < n; i++) y[i] = lbr_expf(x[i] - top[0]);
        for (int64_t i = 0; i < whole; i += LANES)
            for (int k = 0; k < LANES; k++) sum[k] += (double)y[i + k];
        for (int64_t i = whole; i < n; i++) sum[i - whole] += (double)y[i];
        FOLDED(sum, SUM_OF)
        float by = logarithm ? top[0] + (float)log(sum[0]) : (float)(1 / sum[0]);
        if (logarithm) for (int64_t i = 0; i < n; i++) y[i] = x[i] - by;
        else for (int64_t i = 0; i < n; i++) y[i] *= by;
    }
}

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx512f,avx512dq")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define EACH UNROLL for (int k = 0; k < n; k++)

/* e^v of n vectors of numbers that are not above 0, as lbr_expf, step by step beside one another. */
INLINE void exponentials(__m512 *v, const int n)
{
    const __m512 least = _mm512_set1_ps(-87.33654f), one = _mm512_set1_ps(1);
    const float taylor[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    __m512 r[8], whole[8], p[8];
    EACH r[k] = _mm512_max_ps(least, v[k]);
    EACH whole[k] = _mm512_roundscale_ps(_mm512_mul_ps(r[k], _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    EACH r[k] = _mm512_fnmadd_ps(whole[k], _mm512_set1_ps(0.693145752f), r[k]);
    EACH r[k] = _mm512_fnmadd_ps(whole[k], _mm512_set1_ps(1.42860677e-6f), r[k]);
    EACH p[k] = _mm512_set1_ps(taylor[0]);
    UNROLL for (int i = 1; i < 6; i++) EACH p[k] = _mm512_fmadd_ps(p[k], r[k], _mm512_set1_ps(taylor[i]));
    EACH p[k] = _mm512_fmadd_ps(_mm512_mul_ps(p[k], r[k]), r[k], r[k]);
    EACH p[k] = _mm512_scalef_ps(_mm512_add_ps(p[k], one), whole[k]);
    EACH v[k] = _mm512_mask_mov_ps(p[k], _mm512_cmp_ps_mask(v[k], least, _CMP_LT_OQ), _mm512_setzero_ps());
}

INLINE __m512d widened(__m512 v) { return _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))); }

/* n rows of at most LANES numbers, side by side: one alone waits for itself. */
INLINE void short_rows(const float *x, float *y, int64_t length, bool logarithm, const int n)
{
    const __m512 low = _mm512_set1_ps(-INFINITY);
    const __mmask16 some = (__mmask16)((1u << length) - 1);
    __m512 v[8];
    float top[8];
    double sum[8];
    EACH v[k] = _mm512_maskz_loadu_ps(some, x + k * length);
    EACH top[k] = _mm512_reduce_max_ps(_mm512_mask_max_ps(low, some, v[k], low));
    EACH v[k] = _mm512_maskz_sub_ps(some, v[k], _mm512_set1_ps(top[k]));
    exponentials(v, n);
    EACH sum[k] = _mm512_reduce_add_pd(widened(_mm512_maskz_mov_ps(some, v[k])));
    if (logarithm) EACH _mm512_mask_storeu_ps(y + k * length, some, _mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + k * length), _mm512_set1_ps(top[k] + (float)log(sum[k]))));
    else EACH _mm512_mask_storeu_ps(y + k * length, some, _mm512_mul_ps(v[k], _mm512_set1_ps((float)(1 / sum[k]))));
}

INLINE void long_row(const float *x, float *y, int64_t length, bool logarithm)
{
    const __m512 low = _mm512_set1_ps(-INFINITY);
    const __mmask16 rest = (__mmask16)((1u << length % LANES) - 1);
    const int64_t whole = length / LANES * LANES;
    __m512 most = _mm512_mask_max_ps(low, rest, _mm512_maskz_loadu_ps(rest, x + whole), low), v[4];
    __m512d sum = _mm512_setzero_pd();
    for (int64_t i = 0; i < whole; i += LANES) most = _mm512_max_ps(_mm512_loadu_ps(x + i), most);
    float top = _mm512_reduce_max_ps(most);
    int64_t i = 0;
    for (; i + 4 * LANES <= length; i += 4 * LANES) {
        UNROLL for (int k = 0; k < 4; k++) v[k] = _mm512_sub_ps(_mm512_loadu_ps(x + i + k * LANES), _mm512_set1_ps(top));
        exponentials(v, 4);
        UNROLL for (int k = 0; k < 4; k++) _mm512_storeu_ps(y + i + k * LANES, v[k]);
        UNROLL for (int k = 0; k < 4; k++) sum = _mm512_add_pd(sum, widened(v[k]));
    }
    for (; i < length; i += LANES) {
        __mmask16 some = i < whole ? 0xffff : rest;
        v[0] = _mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), _mm512_set1_ps(top));
        exponentials(v, 1);
        _mm512_mask_storeu_ps(y + i, some, v[0]);
        sum = _mm512_add_pd(sum, widened(_mm512_maskz_mov_ps(some, v[0])));
    }
    double total = _mm512_reduce_add_pd(sum);
    __m512 by = _mm512_set1_ps(logarithm ? top + (float)log(total) : (float)(1 / total));
    for (i = 0; i < length; i += LANES) {
        __mmask16 some = i < whole ? 0xffff : rest;
        _mm512_mask_storeu_ps(y + i, some, logarithm ? _mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), by) : _mm512_mul_ps(_mm512_maskz_loadu_ps(some, y + i), by));
    }
}

TARGET static void softmax_avx512(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const lbr_call *c = ctx;
    const lbr_tensor *in = &c->in[0];
    const bool logarithm = c->op == LBR_OP_log_softmax;
    const int64_t n = in->ndim ? in->shape[in->ndim - 1] : 1;
    const float *x = (const float *)in->data;
    float *y = (float *)c->out[0].data;
    for (; n <= LANES && begin + 8 <= end; begin += 8) short_rows(x + begin * n, y + begin * n, n, logarithm, 8);
    for (; begin < end; begin++) long_row(x + begin * n, y + begin * n, n, logarithm);
}
#endif

static int softmax(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    int64_t n = x->ndim ? x->shape[x->ndim - 1] : 1, total = lbr_tensor_numel(x);
    if (x->dtype != LBR_F32) return by_row(c, x, 1, softmax_row);
    void (*rows)(void *ctx, int64_t begin, int64_t end, int thread) = softmax_f32;
#if defined(__x86_64__)
    if (lbr_cpu_isa() == LBR_ISA_AVX512) rows = softmax_avx512;
#endif
    if (total) lbr_parallel(total / n, 1 + 16384 / n, rows, c);
    return 0;
}

int lbr_cpu_softmax(lbr_call *c) { return softmax(c); }
int lbr_cpu_log_softmax(lbr_call *c) { return softmax(c); }
int lbr_cpu_softmax_backward(lbr_call *c) { return by_row(c, &c->in[0], 2, softmax_backward_row); }
int lbr_cpu_log_softmax_backward(lbr_call *c) { return by_row(c, &c->in[0], 2, softmax_backward_row); }

/* ---- layer norm ---- */

static void layer_norm_row(lbr_call *c, int64_t r, int64_t n, double *x)
{
    double *w = x + n, mean = 0, var = 0;
    load(&c->in[0], r, n, x);
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
    double rstd = 1 / sqrt(var / (double)n + ((const lbr_layer_norm_attr *)c->attr)->eps);
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * rstd;
    if (lbr_present(&c->in[1])) {
        load(&c->in[1], 0, n, w);
        for (int64_t i = 0; i < n; i++) x[i] *= w[i];
    }
    if (lbr_present(&c->in[2])) {
        load(&c->in[2], 0, n, w);
        for (int64_t i = 0; i < n; i++) x[i] += w[i];
    }
    store(&c->out[0], r, n, x);
    store(&c->out[1], r, 1, &mean);
    store(&c->out[2], r, 1, &rstd);
}

/* f32: sums of a row in eight doubles, everything else in f32. */
LBR_CLONES static void layer_norm_f32(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const lbr_call *c = ctx;
    const lbr_tensor *in = &c->in[0];
    const float *w = (const float *)c->in[1].data, *b = (const float *)c->in[2].data;
    const bool weighted = lbr_present(&c->in[1]), shifted = lbr_present(&c->in[2]);
    int64_t n = in->shape[in->ndim - 1], whole = n / 8 * 8;
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)in->data + r * n;
        float *restrict y = (float *)c->out[0].data + r * n;
        double sum[8] = {0}, square[8] = {0};
        for (int64_t i = 0; i < whole; i += 8)
            for (int k = 0; k < 8; k++) sum[k] += x[i + k];
        for (int64_t i = whole; i < n; i++) sum[i - whole] += x[i];
        double exact = (((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]))) / (double)n;
        float mean = (float)exact, rest = (float)(exact - mean);
        for (int64_t i = 0; i < n; i++) y[i] = x[i] - mean - rest;
        for (int64_t i = 0; i < whole; i += 8)
            for (int k = 0; k < 8; k++) square[k] += (double)y[i + k] * y[i + k];
        for (int64_t i = whole; i < n; i++) square[i - whole] += (double)y[i] * y[i];
        double variance = (((square[0] + square[1]) + (square[2] + square[3])) + ((square[4] + square[5]) + (square[6] + square[7]))) / (double)n;
        float rstd = (float)(1 / sqrt(variance + ((const lbr_layer_norm_attr *)c->attr)->eps));
        if (weighted) for (int64_t i = 0; i < n; i++) y[i] = y[i] * rstd * w[i];
        else for (int64_t i = 0; i < n; i++) y[i] *= rstd;
        if (shifted) for (int64_t i = 0; i < n; i++) y[i] += b[i];
        ((float *)c->out[1].data)[r] = mean;
        ((float *)c->out[2].data)[r] = rstd;
    }
}

static bool narrow(const lbr_tensor *t) { return !lbr_present(t) || t->dtype == LBR_F32; }

int lbr_cpu_layer_norm(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    int64_t n = x->shape[x->ndim - 1];
    if (x->dtype != LBR_F32 || !narrow(&c->in[1]) || !narrow(&c->in[2])) return by_row(c, x, 2, layer_norm_row);
    lbr_parallel(lbr_tensor_numel(x) / n, 1 + 16384 / n, layer_norm_f32, c);
    return 0;
}

static void layer_norm_backward_row(lbr_call *c, int64_t r, int64_t n, double *dy)
{
    double *x = dy + n, *w = x + n, mean, rstd, a = 0, b = 0;
    load(&c->in[0], r, n, dy);
    load(&c->in[1], r, n, x);
    load(&c->in[2], r, 1, &mean);
    load(&c->in[3], r, 1, &rstd);
    if (lbr_present(&c->in[4])) {
        load(&c->in[4], 0, n, w);
        for (int64_t i = 0; i < n; i++) dy[i] *= w[i];
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = (x[i] - mean) * rstd;
        a += dy[i];
        b += dy[i] * x[i];
    }
    for (int64_t i = 0; i < n; i++) dy[i] = rstd * (dy[i] - a / (double)n - x[i] * b / (double)n);
    store(&c->out[0], r, n, dy);
}

int lbr_cpu_layer_norm_backward(lbr_call *c)
{
    const lbr_tensor *x = &c->in[1];
    int64_t n = x->shape[x->ndim - 1], rows = lbr_tensor_numel(x) / (n ? n : 1);
    int rc = by_row(c, x, 3, layer_norm_backward_row);
    if (rc) return rc;
    double *sum = calloc((size_t)(4 * n), sizeof *sum), mean, rstd;
    if (!sum) return lbr_fail(LBR_ENOMEM, "layer_norm_backward: out of memory for a row of %lld", (long long)n);
    double *db = sum + n, *v = db + n, *dy = v + n;
    for (int64_t r = 0; r < rows; r++) {
        load(&c->in[0], r, n, dy);
        load(x, r, n, v);
        load(&c->in[2], r, 1, &mean);
        load(&c->in[3], r, 1, &rstd);
        for (int64_t i = 0; i < n; i++) {
            sum[i] += dy[i] * (v[i] - mean) * rstd;
            db[i] += dy[i];
        }
    }
    store(&c->out[1], 0, n, sum);
    store(&c->out[2], 0, n, db);
    free(sum);
    return 0;
}

/* ---- batch norm: channels last, statistics over everything else ---- */

static void batch_norm_row(lbr_call *c, int64_t r, int64_t n, double *x)
{
    double *mean = x + n, *rstd = mean + n, *w = rstd + n, *b = w + n;
    load(&c->in[0], r, n, x);
    load(&c->out[1], 0, n, mean);
    load(&c->out[2], 0, n, rstd);
    load(&c->in[1], 0, n, w);
    load(&c->in[2], 0, n, b);
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean[i]) * rstd[i] * w[i] + b[i];
    store(&c->out[0], r, n, x);
}

int lbr_cpu_batch_norm(lbr_call *c)
{
    const lbr_batch_norm_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0];
    int64_t n = x->shape[x->ndim - 1], rows = n ? lbr_tensor_numel(x) / n : 0;
    if (!n) return 0;
    double *mean = calloc((size_t)(4 * n), sizeof *mean);
    if (!mean) return lbr_fail(LBR_ENOMEM, "batch_norm: out of memory for %lld channels", (long long)n);
    double *var = mean + n, *v = var + n, *running = v + n;
    if (a->training) {
        for (int64_t r = 0; r < rows; r++) {
            load(x, r, n, v);
            for (int64_t i = 0; i < n; i++) mean[i] += v[i];
        }
        for (int64_t i = 0; i < n; i++) mean[i] /= (double)rows;
        for (int64_t r = 0; r < rows; r++) {
            load(x, r, n, v);
            for (int64_t i = 0; i < n; i++) var[i] += (v[i] - mean[i]) * (v[i] - mean[i]);
        }
        load(&c->in[3], 0, n, running);
        for (int64_t i = 0; i < n; i++) running[i] += a->momentum * (mean[i] - running[i]);
        store(&c->in[3], 0, n, running);
        load(&c->in[4], 0, n, running);
        for (int64_t i = 0; i < n; i++) running[i] += a->momentum * (var[i] / (double)(rows - 1) - running[i]);
        store(&c->in[4], 0, n, running);
        for (int64_t i = 0; i < n; i++) var[i] /= (double)rows;
    } else {
        load(&c->in[3], 0, n, mean);
        load(&c->in[4], 0, n, var);
    }
    for (int64_t i = 0; i < n; i++) var[i] = 1 / sqrt(var[i] + a->eps);
    store(&c->out[1], 0, n, mean);
    store(&c->out[2], 0, n, var);
    free(mean);
    return by_row(c, x, 5, batch_norm_row);
}

int lbr_cpu_batch_norm_backward(lbr_call *c)
{
    const lbr_tensor *x = &c->in[1];
    int training = ((const lbr_batch_norm_backward_attr *)c->attr)->training;
    int64_t n = x->shape[x->ndim - 1], rows = n ? lbr_tensor_numel(x) / n : 0;
    if (!n) return 0;
    double *dy = calloc((size_t)(7 * n), sizeof *dy);
    if (!dy) return lbr_fail(LBR_ENOMEM, "batch_norm_backward: out of memory for %lld channels", (long long)n);
    double *v = dy + n, *mean = v + n, *rstd = mean + n, *w = rstd + n, *dw = w + n, *db = dw + n;
    load(&c->in[2], 0, n, mean);
    load(&c->in[3], 0, n, rstd);
    load(&c->in[4], 0, n, w);
    for (int64_t r = 0; r < rows; r++) {
        load(&c->in[0], r, n, dy);
        load(x, r, n, v);
        for (int64_t i = 0; i < n; i++) {
            dw[i] += dy[i] * (v[i] - mean[i]) * rstd[i];
            db[i] += dy[i];
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        load(&c->in[0], r, n, dy);
        load(x, r, n, v);
        for (int64_t i = 0; i < n; i++) {
            double d = dy[i];
            if (training) d -= (db[i] + (v[i] - mean[i]) * rstd[i] * dw[i]) / (double)rows;
            dy[i] = d * w[i] * rstd[i];
        }
        store(&c->out[0], r, n, dy);
    }
    store(&c->out[1], 0, n, dw);
    store(&c->out[2], 0, n, db);
    free(dy);
    return 0;
}
