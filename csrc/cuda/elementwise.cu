// elementwise.cu: broadcasting ops of one, two and three inputs. One kernel a number type, the op is a switch that all threads take alike. Copies are in convert.cu.
#include "activate.cuh"
#include "walk.cuh"

// ---- what each op does to values of the type that it computes in: float (also for f16, bf16), double, int (also for u8) ----

static __device__ __forceinline__ int wrap(int64_t v) { return (int)(unsigned)v; }

template <class T> static __device__ T power(T u, T v) { return pow(u, v); }
template <> __device__ float power(float u, float v) { return powf(u, v); }
template <> __device__ int power(int u, int v)
{
    int r = 1;
    if (v < 0) return u == 1 ? 1 : u == -1 ? (v & 1 ? -1 : 1) : 0;
    for (; v > 0; v--) r = wrap((int64_t)r * u);
    return r;
}

// The row binary's kinds come after the ops' numbers, and so do unary's.
template <class T> static __device__ T whole2(int op, T u, T v) // i32, u8
{
    const bool odd = v == 0 || v == -1; // x / 0 has no rest, the rest of x / -1 is 0
    switch (op) {
    case LBR_OPS + LBR_BINARY_mod: return odd ? 0 : u % v + (u % v != 0 && (u % v < 0) != (v < 0) ? v : 0);
    case LBR_OPS + LBR_BINARY_fmod: return odd ? 0 : u % v;
    case LBR_OPS + LBR_BINARY_bit_and: return u & v;
    case LBR_OPS + LBR_BINARY_bit_or: return u | v;
    case LBR_OPS + LBR_BINARY_bit_xor: return u ^ v;
    case LBR_OPS + LBR_BINARY_shift_left: return (unsigned)v > 31 ? 0 : (int)((unsigned)u << v);
    case LBR_OPS + LBR_BINARY_shift_right: return u >> ((unsigned)v > 31 ? 31 : v);
    case LBR_OP_add: return wrap((int64_t)u + v);
    case LBR_OP_sub: return wrap((int64_t)u - v);
    case LBR_OP_mul: return wrap((int64_t)u * v);
    case LBR_OP_div: return v == 0 ? 0 : wrap((int64_t)u / v);
    case LBR_OP_maximum: return u > v ? u : v;
    case LBR_OP_minimum: return u < v ? u : v;
    case LBR_OP_pow: return power(u, v);
    case LBR_OP_prelu: return u > 0 ? u : wrap((int64_t)u * v);
    }
    return 0;
}

template <class T> static __device__ T real2(int op, T u, T v)
{
    const double rest = op == LBR_OPS + LBR_BINARY_mod || op == LBR_OPS + LBR_BINARY_fmod ? fmod((double)u, (double)v) : 0;
    switch (op) {
    case LBR_OPS + LBR_BINARY_mod: return (T)(rest != 0 && (rest < 0) != (v < 0) ? rest + v : rest);
    case LBR_OPS + LBR_BINARY_fmod: return (T)rest;
    case LBR_OP_add: return u + v;
    case LBR_OP_sub: return u - v;
    case LBR_OP_mul: return u * v;
    case LBR_OP_div: return u / v;
    case LBR_OP_maximum: return u > v || u != u ? u : v; // NaN in either operand survives
    case LBR_OP_minimum: return u < v || u != u ? u : v;
    case LBR_OP_pow: return power(u, v);
    case LBR_OP_prelu: return u > 0 ? u : u * v;
    case LBR_OP_gelu_backward: return u * ((T).5 * (1 + lbr_cuda_erf(v * (T)0.7071067811865476)) + v * (T)0.3989422804014327 * exp((T)-.5 * v * v)); // u = dy, v = x
    }
    return 0;
}
static __device__ float apply2(int op, float u, float v) { return real2(op, u, v); }
static __device__ double apply2(int op, double u, double v) { return real2(op, u, v); }
static __device__ int apply2(int op, int u, int v) { return whole2(op, u, v); }

template <class T> static __device__ bool holds(int op, T u, T v)
{
    switch (op) {
    case LBR_OP_eq: return u == v;
    case LBR_OP_ne: return u != v;
    case LBR_OP_lt: return u < v;
    case LBR_OP_le: return u <= v;
    }
    return u != u; // isnan
}

template <class T> static __device__ T curve(int kind, T v, T p, T q)
{
    const T line = kind == LBR_UNARY_hard_sigmoid ? v * p + q : v / 6 + (T).5, gate = line < 0 ? (T)0 : line > 1 ? (T)1 : line;
    switch (kind) {
    case LBR_UNARY_tan: return tan(v);
    case LBR_UNARY_asin: return asin(v);
    case LBR_UNARY_acos: return acos(v);
    case LBR_UNARY_atan: return atan(v);
    case LBR_UNARY_sinh: return sinh(v);
    case LBR_UNARY_cosh: return cosh(v);
    case LBR_UNARY_asinh: return asinh(v);
    case LBR_UNARY_acosh: return acosh(v);
    case LBR_UNARY_atanh: return atanh(v);
    case LBR_UNARY_erf: return lbr_cuda_erf(v);
    case LBR_UNARY_ceil: return ceil(v);
    case LBR_UNARY_floor: return floor(v);
    case LBR_UNARY_rint: return rint(v);
    case LBR_UNARY_trunc: return trunc(v);
    case LBR_UNARY_rsqrt: return 1 / sqrt(v);
    case LBR_UNARY_softplus: return (v > 0 || v != v ? v : 0) + log1p(exp(v < 0 ? v : -v));
    case LBR_UNARY_softsign: return v / (1 + (v < 0 ? -v : v));
    case LBR_UNARY_elu: return v > 0 ? v : p * expm1(v);
    case LBR_UNARY_selu: return q * (v > 0 ? v : p * expm1(v));
    case LBR_UNARY_celu: return v > 0 ? v : p * expm1(v / p);
    case LBR_UNARY_gelu_tanh: return (T).5 * v * (1 + tanh((T)0.7978845608028654 * (v + (T).044715 * v * v * v)));
    case LBR_UNARY_hard_sigmoid: return gate;
    case LBR_UNARY_hard_swish: return v * gate;
    case LBR_UNARY_mish: return v * tanh(v > 30 ? v : log1p(exp(v)));
    case LBR_UNARY_thresholded_relu: return v > p || v != v ? v : 0;
    case LBR_UNARY_shrink: return v < -p ? v + q : v > p ? v - q : v != v ? v : 0;
    case LBR_UNARY_leaky_relu: return v > 0 ? v : v * p;
    }
    return v;
}

template <class T> static __device__ T real1(int op, T v, T p, T q)
{
    if (op >= LBR_OPS) return curve(op - LBR_OPS, v, p, q);
    switch (op) {
    case LBR_OP_neg: return -v;
    case LBR_OP_abs: return v < 0 ? -v : v == 0 ? 0 : v;
    case LBR_OP_sign: return v != v ? v : (T)((v > 0) - (v < 0));
    case LBR_OP_square: return v * v;
    case LBR_OP_relu: return v < 0 ? 0 : v;
    case LBR_OP_affine: return v * p + q;
    case LBR_OP_clamp: return v < p ? p : v > q ? q : v;
    case LBR_OP_exp: return exp(v);
    case LBR_OP_log: return log(v);
    case LBR_OP_sqrt: return sqrt(v);
    case LBR_OP_reciprocal: return 1 / v;
    case LBR_OP_sin: return sin(v);
    case LBR_OP_cos: return cos(v);
    case LBR_OP_sigmoid: return 1 / (1 + exp(-v));
    case LBR_OP_tanh: return tanh(v);
    case LBR_OP_gelu: return (T).5 * v * (1 + lbr_cuda_erf(v * (T)0.7071067811865476));
    case LBR_OP_silu: return v / (1 + exp(-v));
    }
    return v;
}
static __device__ float apply1(int op, float v, double p, double q) { return real1(op, v, (float)p, (float)q); }
static __device__ double apply1(int op, double v, double p, double q) { return real1(op, v, p, q); }
static __device__ int apply1(int op, int v, double p, double q)
{
    switch (op) {
    case LBR_OP_neg: return wrap(-(int64_t)v);
    case LBR_OP_abs: return v < 0 ? wrap(-(int64_t)v) : v;
    case LBR_OP_sign: return (v > 0) - (v < 0);
    case LBR_OP_square: return wrap((int64_t)v * v);
    case LBR_OP_relu: return v < 0 ? 0 : v;
    case LBR_OP_affine: return wrap((int64_t)((double)v * p + q));
    case LBR_OP_clamp: return (double)v < p ? (int)p : (double)v > q ? (int)q : v;
    }
    return v;
}

// ---- kernels ----

#define LBR_EACH(i) for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < w.n; i += gridDim.x * blockDim.x)
#define LBR_EACH4(i) for (unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) * 4; i < w.n; i += gridDim.x * blockDim.x * 4)

template <class S> static __global__ void map1(int op, lbr_cuda_walk w, const S *x, S *y, double p, double q)
{
    if (w.flat) {
        LBR_EACH4(i) {
            lbr_cuda_four<S> v = lbr_cuda_next4(w, 1, x, i);
            for (int k = 0; k < 4; k++) v.v[k] = lbr_cuda_store<S>(apply1(op, lbr_cuda_load(v.v[k]), p, q));
            lbr_cuda_write4(y + i, w.n - i, v);
        }
        return;
    }
    LBR_EACH(i) {
        int64_t at[2];
        lbr_cuda_place<2>(w, i, at);
        y[at[0]] = lbr_cuda_store<S>(apply1(op, lbr_cuda_load(x[at[1]]), p, q));
    }
}

template <class S> static __global__ void map2(int op, lbr_cuda_walk w, const S *a, const S *b, S *y)
{
    if (w.flat) {
        LBR_EACH4(i) {
            lbr_cuda_four<S> u = lbr_cuda_next4(w, 1, a, i), v = lbr_cuda_next4(w, 2, b, i);
            for (int k = 0; k < 4; k++) v.v[k] = lbr_cuda_store<S>(apply2(op, lbr_cuda_load(u.v[k]), lbr_cuda_load(v.v[k])));
            lbr_cuda_write4(y + i, w.n - i, v);
        }
        return;
    }
    LBR_EACH(i) {
        int64_t at[3];
        lbr_cuda_place<3>(w, i, at);
        y[at[0]] = lbr_cuda_store<S>(apply2(op, lbr_cuda_load(a[at[1]]), lbr_cuda_load(b[at[2]])));
    }
}

template <class S> static __global__ void flag2(int op, lbr_cuda_walk w, const S *a, const S *b, uint8_t *y)
{
    if (w.flat) {
        LBR_EACH4(i) {
            lbr_cuda_four<S> u = lbr_cuda_next4(w, 1, a, i), v = lbr_cuda_next4(w, 2, b, i);
            lbr_cuda_four<uint8_t> r;
            for (int k = 0; k < 4; k++) r.v[k] = holds(op, lbr_cuda_load(u.v[k]), lbr_cuda_load(v.v[k]));
            lbr_cuda_write4(y + i, w.n - i, r);
        }
        return;
    }
    LBR_EACH(i) {
        int64_t at[3];
        lbr_cuda_place<3>(w, i, at);
        y[at[0]] = holds(op, lbr_cuda_load(a[at[1]]), lbr_cuda_load(b[at[2]]));
    }
}

template <class W> static __global__ void choose(lbr_cuda_walk w, const uint8_t *condition, const W *a, const W *b, W *y)
{
    if (w.flat) {
        LBR_EACH4(i) {
            lbr_cuda_four<uint8_t> c = lbr_cuda_next4(w, 1, condition, i);
            lbr_cuda_four<W> u = lbr_cuda_next4(w, 2, a, i), v = lbr_cuda_next4(w, 3, b, i);
            for (int k = 0; k < 4; k++)
                if (c.v[k]) v.v[k] = u.v[k];
            lbr_cuda_write4(y + i, w.n - i, v);
        }
        return;
    }
    LBR_EACH(i) {
        int64_t at[4];
        lbr_cuda_place<4>(w, i, at);
        y[at[0]] = condition[at[1]] ? a[at[2]] : b[at[3]];
    }
}

// ---- launches ----

static int run1(lbr_call *c, int op, double p, double q)
{
    const lbr_tensor *in[] = {&c->in[0]};
    lbr_cuda_walk w = lbr_cuda_walk_of(&c->out[0], in, 1);
    lbr_cuda_grid g = lbr_cuda_spread(w, c->device);
    if (!w.n) return 0;
#define CASE(id, S) case id: LBR_LAUNCH(map1<S>, g, op, w, (const S *)c->in[0].data, (S *)c->out[0].data, p, q); break;
    switch (c->in[0].dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}

static int run2(lbr_call *c, int op)
{
    const lbr_tensor *in[] = {&c->in[0], &c->in[1]};
    lbr_cuda_walk w = lbr_cuda_walk_of(&c->out[0], in, 2);
    lbr_cuda_grid g = lbr_cuda_spread(w, c->device);
    if (!w.n) return 0;
#define CASE(id, S) case id: LBR_LAUNCH(map2<S>, g, op, w, (const S *)c->in[0].data, (const S *)c->in[1].data, (S *)c->out[0].data); break;
    switch (c->in[0].dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}

static int flag(lbr_call *c)
{
    const lbr_tensor *b = c->nin > 1 ? &c->in[1] : &c->in[0], *in[] = {&c->in[0], b};
    lbr_cuda_walk w = lbr_cuda_walk_of(&c->out[0], in, 2);
    lbr_cuda_grid g = lbr_cuda_spread(w, c->device);
    if (!w.n) return 0;
#define CASE(id, S) case id: LBR_LAUNCH(flag2<S>, g, c->op, w, (const S *)c->in[0].data, (const S *)b->data, (uint8_t *)c->out[0].data); break;
    switch (c->in[0].dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}

#define OP(name, call) int lbr_cuda_##name(lbr_call *c) { return call; }
OP(add, run2(c, c->op)) OP(sub, run2(c, c->op)) OP(mul, run2(c, c->op)) OP(div, run2(c, c->op)) OP(maximum, run2(c, c->op)) OP(minimum, run2(c, c->op)) OP(pow, run2(c, c->op)) OP(prelu, run2(c, c->op)) OP(gelu_backward, run2(c, c->op))
OP(eq, flag(c)) OP(ne, flag(c)) OP(lt, flag(c)) OP(le, flag(c)) OP(isnan, flag(c))
OP(neg, run1(c, c->op, 0, 0)) OP(abs, run1(c, c->op, 0, 0)) OP(sign, run1(c, c->op, 0, 0)) OP(square, run1(c, c->op, 0, 0)) OP(relu, run1(c, c->op, 0, 0)) OP(exp, run1(c, c->op, 0, 0)) OP(log, run1(c, c->op, 0, 0))
OP(sqrt, run1(c, c->op, 0, 0)) OP(reciprocal, run1(c, c->op, 0, 0)) OP(sin, run1(c, c->op, 0, 0)) OP(cos, run1(c, c->op, 0, 0)) OP(sigmoid, run1(c, c->op, 0, 0)) OP(tanh, run1(c, c->op, 0, 0)) OP(gelu, run1(c, c->op, 0, 0))
OP(silu, run1(c, c->op, 0, 0))

int lbr_cuda_unary(lbr_call *c)
{
    const lbr_unary_attr *a = (const lbr_unary_attr *)c->attr;
    return run1(c, LBR_OPS + a->kind, a->p, a->q);
}

int lbr_cuda_binary(lbr_call *c) { return run2(c, LBR_OPS + ((const lbr_binary_attr *)c->attr)->kind); }

int lbr_cuda_affine(lbr_call *c)
{
    const lbr_affine_attr *a = (const lbr_affine_attr *)c->attr;
    return run1(c, c->op, a->scale, a->shift);
}

int lbr_cuda_clamp(lbr_call *c)
{
    const lbr_clamp_attr *a = (const lbr_clamp_attr *)c->attr;
    return run1(c, c->op, a->low, a->high);
}

int lbr_cuda_where(lbr_call *c)
{
    const lbr_tensor *in[] = {&c->in[0], &c->in[1], &c->in[2]};
    lbr_cuda_walk w = lbr_cuda_walk_of(&c->out[0], in, 3);
    lbr_cuda_grid g = lbr_cuda_spread(w, c->device);
    if (!w.n) return 0;
#define CASE(size, W) \
    case size: LBR_LAUNCH(choose<W>, g, w, (const uint8_t *)c->in[0].data, (const W *)c->in[1].data, (const W *)c->in[2].data, (W *)c->out[0].data); break;
    switch (lbr_dtype_size(c->in[1].dtype)) { CASE(1, uint8_t) CASE(2, uint16_t) CASE(4, uint32_t) CASE(8, uint64_t) }
#undef CASE
    return 0;
}
