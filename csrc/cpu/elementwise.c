/* elementwise.c: broadcasting ops of one, two and three inputs. Reductions and layers are elsewhere. */
#include "cpu.h"

/* ---- walking ---- */

/* A last dim of a few elements (channels of a picture) would cost a call for each few: the longest dim takes its place. */
static void short_last(lbr_walk *w)
{
    int last = w->ndim - 1, longest = last;
    for (int d = 0; d < last; d++)
        if (w->shape[d] > w->shape[longest]) longest = d;
    if (w->shape[last] >= 16 || w->shape[longest] < 4 * w->shape[last]) return;
    int64_t shape = w->shape[last];
    w->shape[last] = w->shape[longest], w->shape[longest] = shape;
    for (int k = 0; k < w->operands; k++) {
        int64_t stride = w->stride[k][last];
        w->stride[k][last] = w->stride[k][longest], w->stride[k][longest] = stride;
    }
}

void lbr_walk_init(lbr_walk *w, const lbr_tensor *out, const lbr_tensor *const *in, int nin)
{
    const lbr_tensor *all[4] = {out};
    for (int i = 0; i < nin; i++) all[1 + i] = in[i];
    w->operands = nin + 1;
    w->ndim = 0;
    for (int k = 0; k < w->operands; k++) w->data[k] = all[k]->data;
    for (int d = 0; d < out->ndim; d++) {
        int64_t size = out->shape[d], stride[4];
        if (size == 1) continue;
        for (int k = 0; k < w->operands; k++) {
            int own = d - (out->ndim - all[k]->ndim);
            stride[k] = own < 0 || all[k]->shape[own] == 1 ? 0 : (int64_t)all[k]->stride[own] * lbr_dtype_size(all[k]->dtype);
        }
        bool joins = w->ndim > 0;
        for (int k = 0; joins && k < w->operands; k++) joins = w->stride[k][w->ndim - 1] == stride[k] * size;
        if (joins) w->shape[w->ndim - 1] *= size;
        else w->shape[w->ndim++] = size;
        for (int k = 0; k < w->operands; k++) w->stride[k][w->ndim - 1] = stride[k];
    }
    if (!w->ndim) {
        w->ndim = 1;
        w->shape[0] = 1;
        for (int k = 0; k < w->operands; k++) w->stride[k][0] = 0;
    }
    short_last(w);
}

struct run {
    const lbr_walk *w;
    void (*inner)(void *ctx, int64_t n, char *const *data, const int64_t *stride);
    void *ctx;
    int64_t parts, part;
};

static void run_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct run *r = ctx;
    const lbr_walk *w = r->w;
    int last = w->ndim - 1;
    int64_t stride[4], at[LBR_MAX_DIMS], row = begin / r->parts, part = begin % r->parts; /* a division takes as long as a short row: none inside the loop */
    char *start[4], *data[4];
    for (int k = 0; k < w->operands; k++) stride[k] = w->stride[k][last], start[k] = w->data[k];
    for (int d = last - 1; d >= 0; d--) {
        at[d] = row % w->shape[d], row /= w->shape[d];
        for (int k = 0; k < w->operands; k++) start[k] += at[d] * w->stride[k][d];
    }
    for (int64_t job = begin; job < end; job++) {
        int64_t first = part * r->part, n = w->shape[last] - first < r->part ? w->shape[last] - first : r->part;
        for (int k = 0; k < w->operands; k++) data[k] = start[k] + first * stride[k];
        r->inner(r->ctx, n, data, stride);
        if (++part < r->parts) continue;
        part = 0;
        for (int d = last - 1; d >= 0; d--) {
            bool on = ++at[d] < w->shape[d];
            for (int k = 0; k < w->operands; k++) start[k] += (on ? 1 : 1 - w->shape[d]) * w->stride[k][d];
            if (on) break;
            at[d] = 0;
        }
    }
}

void lbr_walk_run(const lbr_walk *w, void (*inner)(void *ctx, int64_t n, char *const *data, const int64_t *stride), void *ctx)
{
    enum { PART = 16384 };
    int64_t rows = 1, n = w->shape[w->ndim - 1];
    for (int d = 0; d < w->ndim - 1; d++) rows *= w->shape[d];
    if (!rows || !n) return;
    struct run r = {w, inner, ctx, (n + PART - 1) / PART, PART};
    int64_t grain = n < PART ? 2 * PART / n : 2;
    lbr_parallel(rows * r.parts, grain, run_range, &r);
}

/* ---- loops: the common stride patterns are spelled out so that they vectorise ---- */

typedef void (*loop1)(int64_t n, const void *x, int64_t sx, void *y, double p, double q);
typedef void (*loop2)(int64_t n, const void *a, int64_t sa, const void *b, int64_t sb, void *y);

#define LOOP1(name, T, R, expression)                                                                       \
    LBR_CLONES static void name##_##T(int64_t n, const void *px, int64_t sx, void *py, double p, double q)   \
    {                                                                                                       \
        const T *x = px;                                                                                    \
        R *y = py;                                                                                          \
        (void)p, (void)q;                                                                                   \
        if (sx == 1) for (int64_t i = 0; i < n; i++) { T v = x[i]; y[i] = (R)(expression); }                \
        else for (int64_t i = 0; i < n; i++) { T v = x[i * sx]; y[i] = (R)(expression); }                   \
    }
#define LOOP2(name, T, R, expression)                                                                                     \
    LBR_CLONES static void name##_##T(int64_t n, const void *pa, int64_t sa, const void *pb, int64_t sb, void *py)         \
    {                                                                                                                     \
        const T *a = pa, *b = pb;                                                                                         \
        R *y = py;                                                                                                        \
        if (sa == 1 && sb == 1) for (int64_t i = 0; i < n; i++) { T u = a[i], v = b[i]; y[i] = (R)(expression); }         \
        else if (sa == 1 && sb == 0) { T v = b[0]; for (int64_t i = 0; i < n; i++) { T u = a[i]; y[i] = (R)(expression); } } \
        else if (sa == 0 && sb == 1) { T u = a[0]; for (int64_t i = 0; i < n; i++) { T v = b[i]; y[i] = (R)(expression); } } \
        else for (int64_t i = 0; i < n; i++) { T u = a[i * sa], v = b[i * sb]; y[i] = (R)(expression); }                   \
    }
#define LOOP2_ALL(name, ef, ed, ei) LOOP2(name, float, float, ef) LOOP2(name, double, double, ed) LOOP2(name, int32_t, int32_t, ei)
#define COMPARE_ALL(name, e) LOOP2(name, float, uint8_t, e) LOOP2(name, double, uint8_t, e) LOOP2(name, int32_t, uint8_t, e)
#define LOOP1_ALL(name, ef, ed, ei) LOOP1(name, float, float, ef) LOOP1(name, double, double, ed) LOOP1(name, int32_t, int32_t, ei)
#define LOOP1_FLOAT(name, ef, ed) LOOP1(name, float, float, ef) LOOP1(name, double, double, ed)

static inline int32_t wrap(int64_t v) { return (int32_t)(uint32_t)v; }
static int32_t ipow(int32_t u, int32_t v)
{
    int64_t r = 1;
    if (v < 0) return u == 1 ? 1 : u == -1 ? (v & 1 ? -1 : 1) : 0;
    for (; v > 0; v--) r = wrap(r * u);
    return (int32_t)r;
}

/* the rest r of a division by v, with the sign of v */
static inline double towards(double r, double v) { return r != 0 && (r < 0) != (v < 0) ? r + v : r; }

LOOP2_ALL(add, u + v, u + v, wrap((int64_t)u + v))
LOOP2_ALL(sub, u - v, u - v, wrap((int64_t)u - v))
LOOP2_ALL(mul, u * v, u * v, wrap((int64_t)u * v))
LOOP2_ALL(div, u / v, u / v, v == 0 ? 0 : wrap((int64_t)u / v))
/* NaN in either operand survives */
LOOP2_ALL(maximum, u > v || u != u ? u : v, u > v || u != u ? u : v, u > v ? u : v)
LOOP2_ALL(minimum, u < v || u != u ? u : v, u < v || u != u ? u : v, u < v ? u : v)
LOOP2_ALL(pow, powf(u, v), pow(u, v), ipow(u, v))
LOOP2_ALL(prelu, u > 0 ? u : u * v, u > 0 ? u : u * v, u > 0 ? u : wrap((int64_t)u * v))
COMPARE_ALL(eq, u == v)
COMPARE_ALL(ne, u != v)
COMPARE_ALL(lt, u < v)
COMPARE_ALL(le, u <= v)
/* the sign of v; of whole numbers x mod 0 is 0 */
LOOP2_ALL(mod, towards(fmod(u, v), v), towards(fmod(u, v), v), v == 0 || v == -1 ? 0 : u % v + (u % v != 0 && (u % v < 0) != (v < 0) ? v : 0))
LOOP2_ALL(fmod, fmodf(u, v), fmod(u, v), v == 0 || v == -1 ? 0 : u % v)
LOOP2(bit_and, int32_t, int32_t, u & v)
LOOP2(bit_or, int32_t, int32_t, u | v)
LOOP2(bit_xor, int32_t, int32_t, u ^ v)
LOOP2(shift_left, int32_t, int32_t, (uint32_t)v > 31 ? 0 : wrap((int64_t)((uint64_t)u << v)))
LOOP2(shift_right, int32_t, int32_t, u >> ((uint32_t)v > 31 ? 31 : v))
/* u = dy, v = x */
LOOP2(gelu_backward, float, float, u * (0.5f * (1 + lbr_erff(v * 0.70710678f)) + v * 0.39894228f * lbr_expf(-0.5f * v * v)))
LOOP2(gelu_backward, double, double, u * (0.5 * (1 + erf(v * M_SQRT1_2)) + v * 0.3989422804014327 * exp(-0.5 * v * v)))

LOOP1_ALL(neg, -v, -v, wrap(-(int64_t)v))
LOOP1_ALL(abs, fabsf(v), fabs(v), v < 0 ? wrap(-(int64_t)v) : v)
LOOP1_ALL(sign, v != v ? v : (float)((v > 0) - (v < 0)), v != v ? v : (double)((v > 0) - (v < 0)), (v > 0) - (v < 0))
LOOP1_ALL(square, v * v, v * v, wrap((int64_t)v * v))
LOOP1_ALL(relu, v < 0 ? 0 : v, v < 0 ? 0 : v, v < 0 ? 0 : v)
LOOP1_ALL(affine, v * (float)p + (float)q, v * p + q, wrap((int64_t)((double)v * p + q)))
LOOP1_ALL(clamp, v < (float)p ? (float)p : v > (float)q ? (float)q : v, v < p ? p : v > q ? q : v, (double)v < p ? (int32_t)p : (double)v > q ? (int32_t)q : v)
LOOP1_FLOAT(exp, lbr_expf(v), exp(v))
LOOP1_FLOAT(log, logf(v), log(v))
LOOP1_FLOAT(sqrt, sqrtf(v), sqrt(v))
LOOP1_FLOAT(reciprocal, 1 / v, 1 / v)
LOOP1_FLOAT(sin, sinf(v), sin(v))
LOOP1_FLOAT(cos, cosf(v), cos(v))
LOOP1_FLOAT(sigmoid, lbr_sigmoidf(v), 1 / (1 + exp(-v)))
LOOP1_FLOAT(tanh, lbr_tanhf(v), tanh(v))
LOOP1_FLOAT(gelu, 0.5f * v * (1 + lbr_erff(v * 0.70710678f)), 0.5 * v * (1 + erf(v * M_SQRT1_2)))
LOOP1_FLOAT(silu, v * lbr_sigmoidf(v), v / (1 + exp(-v)))

/* unary's kinds */
LOOP1_FLOAT(tan, tanf(v), tan(v))
LOOP1_FLOAT(asin, asinf(v), asin(v))
LOOP1_FLOAT(acos, acosf(v), acos(v))
LOOP1_FLOAT(atan, atanf(v), atan(v))
LOOP1_FLOAT(sinh, sinhf(v), sinh(v))
LOOP1_FLOAT(cosh, coshf(v), cosh(v))
LOOP1_FLOAT(asinh, asinhf(v), asinh(v))
LOOP1_FLOAT(acosh, acoshf(v), acosh(v))
LOOP1_FLOAT(atanh, atanhf(v), atanh(v))
LOOP1_FLOAT(erf, lbr_erff(v), erf(v))
LOOP1_FLOAT(ceil, ceilf(v), ceil(v))
LOOP1_FLOAT(floor, floorf(v), floor(v))
LOOP1_FLOAT(rint, rintf(v), rint(v))
LOOP1_FLOAT(trunc, truncf(v), trunc(v))
LOOP1_FLOAT(rsqrt, 1 / sqrtf(v), 1 / sqrt(v))
LOOP1_FLOAT(softplus, (v > 0 ? v : v != v ? v : 0) + log1pf(lbr_expf(-fabsf(v))), (v > 0 ? v : v != v ? v : 0) + log1p(exp(-fabs(v))))
LOOP1_FLOAT(softsign, v / (1 + fabsf(v)), v / (1 + fabs(v)))
LOOP1_FLOAT(elu, v > 0 ? v : (float)p * (lbr_expf(v) - 1), v > 0 ? v : p * expm1(v))
LOOP1_FLOAT(selu, (float)q * (v > 0 ? v : (float)p * (lbr_expf(v) - 1)), q * (v > 0 ? v : p * expm1(v)))
LOOP1_FLOAT(celu, v > 0 ? v : (float)p * (lbr_expf(v / (float)p) - 1), v > 0 ? v : p * expm1(v / p))
LOOP1_FLOAT(gelu_tanh, 0.5f * v * (1 + lbr_tanhf(0.79788456f * (v + 0.044715f * v * v * v))), 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))))
static inline float gate_f32(float v) { return v < 0 ? 0 : v > 1 ? 1 : v; }
static inline double gate_f64(double v) { return v < 0 ? 0 : v > 1 ? 1 : v; }
LOOP1_FLOAT(hard_sigmoid, gate_f32(v * (float)p + (float)q), gate_f64(v * p + q))
LOOP1_FLOAT(hard_swish, v * gate_f32(v * (1 / 6.0f) + 0.5f), v * gate_f64(v / 6 + 0.5))
static inline float mish_f32(float v)
{
    float e = lbr_expf(v > 20 ? 20 : v), n = e * (e + 2); /* the tanh as a ratio of e^x alone */
    return v * (n / (n + 2));
}
LOOP1_FLOAT(mish, mish_f32(v), v * tanh(v > 30 ? v : log1p(exp(v))))
LOOP1_FLOAT(thresholded_relu, v > (float)p || v != v ? v : 0, v > p || v != v ? v : 0)
LOOP1_FLOAT(shrink, v < -(float)p ? v + (float)q : v > (float)p ? v - (float)q : v != v ? v : 0, v < -p ? v + q : v > p ? v - q : v != v ? v : 0)
LOOP1_FLOAT(leaky_relu, v > 0 ? v : v * (float)p, v > 0 ? v : v * p)

LOOP1(isnan, float, uint8_t, v != v)
LOOP1(isnan, double, uint8_t, v != v)
LOOP1(isnan, int32_t, uint8_t, (v & 0))

/* ---- kernels: f32, f64 and i32 run as they are, other dtypes through blocks ---- */

enum { BLOCK = 512 };

struct job {
    loop1 one[3];
    loop2 two[3];
    bool flag;    /* the loop writes u8 0 or 1 */
    int operands; /* 1 or 2 */
    int in, out;  /* dtypes */
    double p, q;
};

/* Which of the three loops serves a dtype. */
static int loop_of(int dtype) { return dtype == LBR_F64 ? 1 : dtype == LBR_I32 || dtype == LBR_U8 ? 2 : 0; }
static bool direct(int dtype) { return dtype == LBR_F32 || dtype == LBR_F64 || dtype == LBR_I32; }

typedef union block { float f[BLOCK]; double d[BLOCK]; int32_t i[BLOCK]; uint8_t u[BLOCK]; } block;

static void load(int dtype, const char *p, int64_t stride, int64_t n, block *b)
{
    if (dtype == LBR_U8) for (int64_t i = 0; i < n; i++) b->i[i] = ((const uint8_t *)p)[i * stride];
    else lbr_load_f32(dtype, p, stride, n, b->f);
}

static void store(int dtype, int loop, const block *b, int64_t n, char *p, int64_t stride)
{
    if (loop == 2) for (int64_t i = 0; i < n; i++) ((uint8_t *)p)[i * stride] = b->i[i] < 0 ? 0 : b->i[i] > 255 ? 255 : (uint8_t)b->i[i];
    else lbr_store_f32(dtype, b->f, n, p, stride);
}

/* y is computed in place when it is dense and of the loop's own result type, else in a block. */
static void job_run(void *ctx, int64_t n, char *const *data, const int64_t *stride)
{
    const struct job *j = ctx;
    int loop = loop_of(j->in), size = lbr_dtype_size(j->in), out_size = lbr_dtype_size(j->out);
    bool plain = direct(j->in);
    bool in_place = stride[0] == out_size && (j->flag || plain);
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        if (in_place && plain) m = n;
        block a, b, r;
        const void *pa = data[1] + i * stride[1], *pb = j->operands == 2 ? data[2] + i * stride[2] : NULL;
        int64_t sa = stride[1] / size, sb = j->operands == 2 ? stride[2] / size : 0;
        if (!plain) {
            load(j->in, pa, sa, m, &a);
            pa = &a, sa = 1;
            if (pb) {
                load(j->in, pb, sb, m, &b);
                pb = &b, sb = 1;
            }
        }
        void *y = in_place ? data[0] + i * stride[0] : (void *)&r;
        if (j->operands == 2) j->two[loop](m, pa, sa, pb, sb, y);
        else j->one[loop](m, pa, sa, y, j->p, j->q);
        if (!in_place) {
            char *out = data[0] + i * stride[0];
            int64_t so = stride[0] / out_size;
            if (j->flag) for (int64_t k = 0; k < m; k++) ((uint8_t *)out)[k * so] = r.u[k];
            else if (plain && size == 8) for (int64_t k = 0; k < m; k++) ((double *)out)[k * so] = r.d[k];
            else if (plain) for (int64_t k = 0; k < m; k++) ((int32_t *)out)[k * so] = r.i[k];
            else store(j->out, loop, &r, m, out, so);
        }
        if (in_place && plain) break;
    }
}

/* Step over a dense operand beside an output of n elements: 1, or 0 for a single element; -1 where it needs a walk. */
static int64_t step_of(const lbr_tensor *t, const lbr_tensor *out, int64_t n)
{
    if (lbr_same_shape(t, out)) return lbr_tensor_contiguous(t) ? 1 : -1;
    return n > 0 && lbr_tensor_numel(t) == 1 ? 0 : -1;
}

/* Small dense operands: no walk, no threads; its divisions would cost more than the work. */
static bool run_small(const lbr_call *c, const struct job *j)
{
    enum { SMALL = 8192 };
    int64_t n = lbr_tensor_numel(&c->out[0]);
    if (n > SMALL || !direct(j->in) || !lbr_tensor_contiguous(&c->out[0])) return false;
    int loop = loop_of(j->in);
    int64_t sa = step_of(&c->in[0], &c->out[0], n), sb = j->operands == 2 ? step_of(&c->in[1], &c->out[0], n) : 0;
    if (sa < 0 || sb < 0) return false;
    if (j->operands == 2) j->two[loop](n, c->in[0].data, sa, c->in[1].data, sb, c->out[0].data);
    else j->one[loop](n, c->in[0].data, sa, c->out[0].data, j->p, j->q);
    return true;
}

static int run(lbr_call *c, struct job *j)
{
    const lbr_tensor *in[2] = {&c->in[0], &c->in[1]};
    lbr_walk w;
    j->operands = c->nin, j->in = c->in[0].dtype, j->out = c->out[0].dtype;
    if (run_small(c, j)) return 0;
    lbr_walk_init(&w, &c->out[0], in, j->operands);
    lbr_walk_run(&w, job_run, j);
    return 0;
}

#define TWO(name) \
    int lbr_cpu_##name(lbr_call *c) { struct job j = {.two = {name##_float, name##_double, name##_int32_t}}; return run(c, &j); }
TWO(add) TWO(sub) TWO(mul) TWO(div) TWO(maximum) TWO(minimum) TWO(pow) TWO(prelu)
#define FLAG(name) \
    int lbr_cpu_##name(lbr_call *c) { struct job j = {.two = {name##_float, name##_double, name##_int32_t}, .flag = true}; return run(c, &j); }
FLAG(eq) FLAG(ne) FLAG(lt) FLAG(le)
int lbr_cpu_isnan(lbr_call *c) { struct job j = {.one = {isnan_float, isnan_double, isnan_int32_t}, .flag = true}; return run(c, &j); }
int lbr_cpu_gelu_backward(lbr_call *c) { struct job j = {.two = {gelu_backward_float, gelu_backward_double}}; return run(c, &j); }

#define ONE(name) \
    int lbr_cpu_##name(lbr_call *c) { struct job j = {.one = {name##_float, name##_double, name##_int32_t}}; return run(c, &j); }
#define ONE_FLOAT(name) \
    int lbr_cpu_##name(lbr_call *c) { struct job j = {.one = {name##_float, name##_double}}; return run(c, &j); }
ONE(neg) ONE(abs) ONE(sign) ONE(square) ONE(relu)
ONE_FLOAT(exp) ONE_FLOAT(log) ONE_FLOAT(sqrt) ONE_FLOAT(reciprocal) ONE_FLOAT(sin) ONE_FLOAT(cos) ONE_FLOAT(sigmoid) ONE_FLOAT(tanh) ONE_FLOAT(gelu) ONE_FLOAT(silu)

int lbr_cpu_unary(lbr_call *c)
{
#define KIND(name) {name##_float, name##_double},
    static const loop1 loops[LBR_UNARIES][2] = {LBR_UNARY_KINDS(KIND)};
#undef KIND
    const lbr_unary_attr *a = c->attr;
    struct job j = {.one = {loops[a->kind][0], loops[a->kind][1]}, .p = a->p, .q = a->q};
    return run(c, &j);
}

int lbr_cpu_binary(lbr_call *c)
{
    static const loop2 loops[LBR_BINARIES][3] = {
        [LBR_BINARY_mod] = {mod_float, mod_double, mod_int32_t}, [LBR_BINARY_fmod] = {fmod_float, fmod_double, fmod_int32_t},
        [LBR_BINARY_bit_and] = {[2] = bit_and_int32_t}, [LBR_BINARY_bit_or] = {[2] = bit_or_int32_t}, [LBR_BINARY_bit_xor] = {[2] = bit_xor_int32_t},
        [LBR_BINARY_shift_left] = {[2] = shift_left_int32_t}, [LBR_BINARY_shift_right] = {[2] = shift_right_int32_t},
    };
    const loop2 *l = loops[((const lbr_binary_attr *)c->attr)->kind];
    struct job j = {.two = {l[0], l[1], l[2]}};
    return run(c, &j);
}

int lbr_cpu_affine(lbr_call *c)
{
    const lbr_affine_attr *a = c->attr;
    struct job j = {.one = {affine_float, affine_double, affine_int32_t}, .p = a->scale, .q = a->shift};
    return run(c, &j);
}

int lbr_cpu_clamp(lbr_call *c)
{
    const lbr_clamp_attr *a = c->attr;
    struct job j = {.one = {clamp_float, clamp_double, clamp_int32_t}, .p = a->low, .q = a->high};
    return run(c, &j);
}

/* ---- where: bytes by element size ---- */

/* dense, either side one number or as many as y */
#define CHOOSE_STEPS(a, b) for (int64_t i = 0; i < n; i++) { const __typeof__(*y) u = a, v = b; y[i] = c[i] ? u : v; }
#define CHOOSE_DENSE(T) \
    { \
        T *y = (T *)data[0]; \
        const T *p = (const T *)data[2], *q = (const T *)data[3], p0 = *p, q0 = *q; \
        if (s[2] && s[3]) CHOOSE_STEPS(p[i], q[i]) \
        else if (s[2]) CHOOSE_STEPS(p[i], q0) \
        else if (s[3]) CHOOSE_STEPS(p0, q[i]) \
        else CHOOSE_STEPS(p0, q0) \
        break; \
    }

LBR_CLONES static void where_dense(int size, int64_t n, char *const *data, const int64_t *s)
{
    const uint8_t *c = (const uint8_t *)data[1];
    switch (size) {
    case 1: CHOOSE_DENSE(uint8_t)
    case 2: CHOOSE_DENSE(uint16_t)
    case 4: CHOOSE_DENSE(uint32_t)
    case 8: CHOOSE_DENSE(uint64_t)
    }
}

#define CHOOSE(T) \
    { for (int64_t i = 0; i < n; i++) *(T *)(data[0] + i * s[0]) = *(const uint8_t *)(data[1] + i * s[1]) ? *(const T *)(data[2] + i * s[2]) : *(const T *)(data[3] + i * s[3]); break; }

static void where_run(void *ctx, int64_t n, char *const *data, const int64_t *s)
{
    const int size = *(const int *)ctx;
    if (s[0] == size && s[1] == 1 && (s[2] == size || !s[2]) && (s[3] == size || !s[3])) {
        where_dense(size, n, data, s);
        return;
    }
    switch (size) {
    case 1: CHOOSE(uint8_t)
    case 2: CHOOSE(uint16_t)
    case 4: CHOOSE(uint32_t)
    case 8: CHOOSE(uint64_t)
    }
}

int lbr_cpu_where(lbr_call *c)
{
    int size = lbr_dtype_size(c->in[1].dtype);
    const lbr_tensor *in[] = {&c->in[0], &c->in[1], &c->in[2]};
    lbr_walk w;
    lbr_walk_init(&w, &c->out[0], in, 3);
    lbr_walk_run(&w, where_run, &size);
    return 0;
}
