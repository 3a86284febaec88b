/* infer.c: shapes and dtypes of elementwise ops, reductions, copies, random numbers and optimisers; infer_network.c has the layers. */
#include "core.h"
#include "points.h"

#define LBR_OP(name, ins, outs, attrs, flags) int lbr_infer_##name(lbr_call *c);
#include "ops.def"
#undef LBR_OP
#define LBR_OP(name, ins, outs, attrs, flags) [LBR_OP_##name] = lbr_infer_##name,
const lbr_infer_fn lbr_infer_table[LBR_OPS] = {
#include "ops.def"
};
#undef LBR_OP

#define NAME lbr_op_name(c->op)

static int broadcast(lbr_call *c, const lbr_tensor *a, const lbr_tensor *b, int *ndim, int32_t *shape)
{
    int n = a->ndim > b->ndim ? a->ndim : b->ndim;
    for (int i = 0; i < n; i++) {
        int32_t x = i < n - a->ndim ? 1 : a->shape[i - (n - a->ndim)], y = i < n - b->ndim ? 1 : b->shape[i - (n - b->ndim)];
        if (x != y && x != 1 && y != 1) return lbr_fail(LBR_ESHAPE, "%s: %s and %s do not broadcast", NAME, lbr_describe(a), lbr_describe(b));
        shape[i] = x == 1 ? y : x;
    }
    *ndim = n;
    return 0;
}

static int binary(lbr_call *c, int dtype)
{
    int ndim;
    int32_t shape[LBR_MAX_DIMS];
    if (c->in[0].dtype != c->in[1].dtype)
        return lbr_fail(LBR_EDTYPE, "%s: %s and %s, want one dtype", NAME, lbr_describe(&c->in[0]), lbr_describe(&c->in[1]));
    int rc = broadcast(c, &c->in[0], &c->in[1], &ndim, shape);
    if (rc) return rc;
    lbr_out(c, 0, dtype < 0 ? c->in[0].dtype : dtype, ndim, shape);
    return 0;
}

#define BINARY(name, dtype) int lbr_infer_##name(lbr_call *c) { return binary(c, dtype); }
BINARY(add, -1) BINARY(sub, -1) BINARY(mul, -1) BINARY(div, -1) BINARY(maximum, -1) BINARY(minimum, -1) BINARY(pow, -1)
BINARY(eq, LBR_U8) BINARY(ne, LBR_U8) BINARY(lt, LBR_U8) BINARY(le, LBR_U8)

int lbr_infer_binary(lbr_call *c)
{
    int kind = ((const lbr_binary_attr *)c->attr)->kind;
    if (kind < 0 || kind >= LBR_BINARIES) return lbr_fail(LBR_EINVAL, "binary: kind %d, want 0..%d", kind, LBR_BINARIES - 1);
    if (kind >= LBR_BINARY_bit_and && c->in[0].dtype <= LBR_BF16) return lbr_fail(LBR_EDTYPE, "binary: bits of %s, want i32 or u8", lbr_describe(&c->in[0]));
    return binary(c, -1);
}

int lbr_infer_gelu_backward(lbr_call *c)
{
    if (c->in[0].dtype > LBR_BF16) return lbr_fail(LBR_EDTYPE, "gelu_backward: dy is %s, want a floating point dtype", lbr_describe(&c->in[0]));
    return binary(c, -1);
}

int lbr_infer_where(lbr_call *c)
{
    int ndim;
    int32_t shape[LBR_MAX_DIMS];
    if (c->in[0].dtype != LBR_U8) return lbr_fail(LBR_EDTYPE, "where: condition is %s, want u8", lbr_describe(&c->in[0]));
    if (c->in[1].dtype != c->in[2].dtype) return lbr_fail(LBR_EDTYPE, "where: %s and %s, want one dtype", lbr_describe(&c->in[1]), lbr_describe(&c->in[2]));
    int rc = broadcast(c, &c->in[1], &c->in[2], &ndim, shape);
    if (rc) return rc;
    lbr_tensor both = c->in[1];
    both.ndim = (uint8_t)ndim;
    memcpy(both.shape, shape, sizeof shape);
    if ((rc = broadcast(c, &c->in[0], &both, &ndim, shape))) return rc;
    lbr_out(c, 0, c->in[1].dtype, ndim, shape);
    return 0;
}

static int floating(lbr_call *c)
{
    if (c->in[0].dtype > LBR_BF16) return lbr_fail(LBR_EDTYPE, "%s: x is %s, want a floating point dtype", NAME, lbr_describe(&c->in[0]));
    lbr_out_like(c, 0, &c->in[0]);
    return 0;
}

static int same(lbr_call *c)
{
    lbr_out_like(c, 0, &c->in[0]);
    return 0;
}

#define UNARY(name) int lbr_infer_##name(lbr_call *c) { return floating(c); }
UNARY(exp) UNARY(log) UNARY(sqrt) UNARY(reciprocal) UNARY(sin) UNARY(cos) UNARY(sigmoid) UNARY(tanh) UNARY(gelu) UNARY(silu)
UNARY(softmax) UNARY(log_softmax)
int lbr_infer_unary(lbr_call *c)
{
    int kind = ((const lbr_unary_attr *)c->attr)->kind;
    if (kind < 0 || kind >= LBR_UNARIES) return lbr_fail(LBR_EINVAL, "unary: kind %d, want 0..%d", kind, LBR_UNARIES - 1);
    return floating(c);
}

int lbr_infer_neg(lbr_call *c) { return same(c); }
int lbr_infer_abs(lbr_call *c) { return same(c); }
int lbr_infer_sign(lbr_call *c) { return same(c); }
int lbr_infer_square(lbr_call *c) { return same(c); }
int lbr_infer_relu(lbr_call *c) { return same(c); }
int lbr_infer_affine(lbr_call *c) { return same(c); }
int lbr_infer_clamp(lbr_call *c) { return same(c); }
int lbr_infer_copy(lbr_call *c) { return same(c); }

int lbr_infer_isnan(lbr_call *c)
{
    lbr_out(c, 0, LBR_U8, c->in[0].ndim, c->in[0].shape);
    return 0;
}

int lbr_infer_prelu(lbr_call *c)
{
    int rc = binary(c, -1);
    if (rc) return rc;
    if (!lbr_same_shape(&c->out[0], &c->in[0])) return lbr_fail(LBR_ESHAPE, "prelu: slope %s does not broadcast to x %s", lbr_describe(&c->in[1]), lbr_describe(&c->in[0]));
    return 0;
}

int lbr_infer_cast(lbr_call *c)
{
    const lbr_cast_attr *a = c->attr;
    if (a->dtype < 0 || a->dtype >= LBR_DTYPES) return lbr_fail(LBR_EDTYPE, "cast: dtype %d", a->dtype);
    lbr_out(c, 0, a->dtype, c->in[0].ndim, c->in[0].shape);
    return 0;
}

int lbr_infer_to_bytes(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    if (x->dtype != LBR_F32) return lbr_fail(LBR_EDTYPE, "to_bytes: x is %s, want f32", lbr_describe(x));
    lbr_out(c, 0, LBR_U8, x->ndim, x->shape);
    return 0;
}

int lbr_infer_copy_into(lbr_call *c)
{
    int ndim;
    int32_t shape[LBR_MAX_DIMS];
    int rc = broadcast(c, &c->in[0], &c->out[0], &ndim, shape);
    if (rc) return rc;
    lbr_tensor given = c->out[0];
    if (ndim != given.ndim || memcmp(shape, given.shape, (size_t)ndim * sizeof *shape)) return lbr_fail(LBR_ESHAPE, "copy_into: x %s does not broadcast to %s", lbr_describe(&c->in[0]), lbr_describe(&given));
    return 0;
}

static int from_attr(lbr_call *c, int dtype, int ndim, const int32_t *shape)
{
    if (dtype < 0 || dtype >= LBR_DTYPES) return lbr_fail(LBR_EDTYPE, "%s: dtype %d", NAME, dtype);
    if (ndim < 0 || ndim > LBR_MAX_DIMS) return lbr_fail(LBR_ESHAPE, "%s: %d dims, want at most %d", NAME, ndim, LBR_MAX_DIMS);
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0) return lbr_fail(LBR_ESHAPE, "%s: size %d in dim %d", NAME, shape[i], i + 1);
    lbr_out(c, 0, dtype, ndim, shape);
    return 0;
}

int lbr_infer_fill(lbr_call *c)
{
    const lbr_fill_attr *a = c->attr;
    return from_attr(c, a->dtype, a->ndim, a->shape);
}

int lbr_infer_fill_into(lbr_call *c) { (void)c; return 0; }

int lbr_infer_random(lbr_call *c)
{
    const lbr_random_attr *a = c->attr;
    if (a->dtype != LBR_F32 && a->dtype != LBR_F64) return lbr_fail(LBR_EDTYPE, "random: dtype %d, want f32 or f64", a->dtype);
    if (a->kind < 0 || a->kind > 1) return lbr_fail(LBR_EINVAL, "random: kind %d, want 0 or 1", a->kind);
    if (lbr_present(&c->in[0]) && (c->in[0].dtype != LBR_I32 || lbr_tensor_numel(&c->in[0]) != 1)) return lbr_fail(LBR_EDTYPE, "random: counter is %s, want i32 [1]", lbr_describe(&c->in[0]));
    return from_attr(c, a->dtype, a->ndim, a->shape);
}

int lbr_infer_dropout(lbr_call *c)
{
    const lbr_dropout_attr *a = c->attr;
    int rc = floating(c);
    if (rc) return rc;
    if (c->in[1].dtype != LBR_I32 || lbr_tensor_numel(&c->in[1]) != 1) return lbr_fail(LBR_EDTYPE, "dropout: counter is %s, want i32 [1]", lbr_describe(&c->in[1]));
    if (!(a->p >= 0 && a->p < 1)) return lbr_fail(LBR_EINVAL, "dropout: p %g, want 0 <= p < 1", a->p);
    lbr_out(c, 1, LBR_U8, c->in[0].ndim, c->in[0].shape);
    return 0;
}

/* ---- reductions ---- */

static int reduce(lbr_call *c, uint32_t dims, int keep, int dtype)
{
    const lbr_tensor *x = &c->in[0];
    int32_t shape[LBR_MAX_DIMS];
    int n = 0;
    if (dims >> x->ndim) return lbr_fail(LBR_ESHAPE, "%s: a dim past the %d of %s", NAME, x->ndim, lbr_describe(x));
    for (int i = 0; i < x->ndim; i++) {
        if (!(dims >> i & 1)) shape[n++] = x->shape[i];
        else if (keep) shape[n++] = 1;
    }
    lbr_out(c, 0, dtype, n, shape);
    return 0;
}

int lbr_infer_sum(lbr_call *c) { const lbr_sum_attr *a = c->attr; return reduce(c, a->dims, a->keep, c->in[0].dtype == LBR_U8 ? LBR_I32 : c->in[0].dtype); }
int lbr_infer_prod(lbr_call *c) { const lbr_prod_attr *a = c->attr; return reduce(c, a->dims, a->keep, c->in[0].dtype == LBR_U8 ? LBR_I32 : c->in[0].dtype); }
static int cumulative(lbr_call *c, int dim)
{
    if (dim < 0 || dim >= c->in[0].ndim) return lbr_fail(LBR_ESHAPE, "%s: dim %d of %s", NAME, (int)(dim + 1u), lbr_describe(&c->in[0]));
    return same(c);
}
int lbr_infer_cumsum(lbr_call *c) { return cumulative(c, ((const lbr_cumsum_attr *)c->attr)->dim); }
int lbr_infer_cumprod(lbr_call *c) { return cumulative(c, ((const lbr_cumprod_attr *)c->attr)->dim); }
int lbr_infer_mean(lbr_call *c)
{
    const lbr_mean_attr *a = c->attr;
    if (c->in[0].dtype > LBR_BF16) return lbr_fail(LBR_EDTYPE, "mean: x is %s, want a floating point dtype", lbr_describe(&c->in[0]));
    return reduce(c, a->dims, a->keep, c->in[0].dtype);
}
static int extreme(lbr_call *c, uint32_t dims, int keep)
{
    int64_t n = 1;
    for (int i = 0; i < c->in[0].ndim; i++) if (dims >> i & 1) n *= c->in[0].shape[i];
    if (!n) return lbr_fail(LBR_ESHAPE, "%s: %s has no element to choose from", NAME, lbr_describe(&c->in[0]));
    return reduce(c, dims, keep, c->in[0].dtype);
}
int lbr_infer_max(lbr_call *c) { const lbr_max_attr *a = c->attr; return extreme(c, a->dims, a->keep); }
int lbr_infer_min(lbr_call *c) { const lbr_min_attr *a = c->attr; return extreme(c, a->dims, a->keep); }
int lbr_infer_argmax(lbr_call *c)
{
    const lbr_argmax_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0];
    if (a->dim < 0 || a->dim >= x->ndim || !x->shape[a->dim]) return lbr_fail(LBR_ESHAPE, "argmax: dim %d of %s", (int)(a->dim + 1u), lbr_describe(x));
    return reduce(c, 1u << a->dim, a->keep, LBR_I32);
}

/* ---- losses ---- */

static int pair(lbr_call *c, int kind, const lbr_tensor *x, const lbr_tensor *target, const lbr_tensor *mask)
{
    if (kind < 0 || kind > 2) return lbr_fail(LBR_EINVAL, "%s: kind %d, want 0..2", NAME, kind);
    if (!lbr_same_shape(x, target) || x->dtype != target->dtype) return lbr_fail(LBR_ESHAPE, "%s: x is %s, target %s", NAME, lbr_describe(x), lbr_describe(target));
    if (x->dtype > LBR_F64) return lbr_fail(LBR_EDTYPE, "%s: x is %s, want f32 or f64", NAME, lbr_describe(x));
    if (lbr_present(mask) && (!lbr_same_shape(x, mask) || mask->dtype != x->dtype)) return lbr_fail(LBR_ESHAPE, "%s: mask is %s, want %s", NAME, lbr_describe(mask), lbr_describe(x));
    return 0;
}

int lbr_infer_loss(lbr_call *c)
{
    int rc = pair(c, ((const lbr_loss_attr *)c->attr)->kind, &c->in[0], &c->in[1], &c->in[2]);
    if (rc) return rc;
    lbr_out(c, 0, c->in[0].dtype, 0, NULL);
    lbr_out(c, 1, LBR_F64, 0, NULL);
    return 0;
}

int lbr_infer_loss_backward(lbr_call *c)
{
    int rc = pair(c, ((const lbr_loss_backward_attr *)c->attr)->kind, &c->in[1], &c->in[2], &c->in[3]);
    if (rc) return rc;
    if (lbr_tensor_numel(&c->in[0]) != 1 || c->in[0].dtype != c->in[1].dtype) return lbr_fail(LBR_ESHAPE, "loss_backward: dy is %s, want one element of x's dtype", lbr_describe(&c->in[0]));
    if (lbr_tensor_numel(&c->in[4]) != 1 || c->in[4].dtype != LBR_F64) return lbr_fail(LBR_ESHAPE, "loss_backward: weight is %s, want one element f64", lbr_describe(&c->in[4]));
    lbr_out_like(c, 0, &c->in[1]);
    return 0;
}

int lbr_infer_cross_entropy(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *t = &c->in[1];
    if (x->ndim != 2 || x->dtype > LBR_F64 || t->ndim != 1 || t->dtype != LBR_I32 || t->shape[0] != x->shape[0])
        return lbr_fail(LBR_ESHAPE, "cross_entropy: logits %s and classes %s, want f32 [N,C] and i32 [N]", lbr_describe(x), lbr_describe(t));
    lbr_out(c, 0, x->dtype, 0, NULL);
    lbr_out_like(c, 1, x);
    return 0;
}

int lbr_infer_cross_entropy_backward(lbr_call *c)
{
    const lbr_tensor *p = &c->in[1], *t = &c->in[2];
    if (p->ndim != 2 || p->dtype > LBR_F64 || t->ndim != 1 || t->dtype != LBR_I32 || t->shape[0] != p->shape[0])
        return lbr_fail(LBR_ESHAPE, "cross_entropy_backward: p %s and classes %s, want f32 [N,C] and i32 [N]", lbr_describe(p), lbr_describe(t));
    if (lbr_tensor_numel(&c->in[0]) != 1 || c->in[0].dtype != c->in[1].dtype) return lbr_fail(LBR_ESHAPE, "cross_entropy_backward: dy is %s, want one element of p's dtype", lbr_describe(&c->in[0]));
    lbr_out_like(c, 0, &c->in[1]);
    return 0;
}

/* ---- windows ---- */

int lbr_infer_windows(lbr_call *c)
{
    const lbr_windows_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *start = &c->in[1];
    if (x->ndim != 2 || x->dtype != LBR_F64 || !x->shape[1]) return lbr_fail(LBR_ESHAPE, "windows: x is %s, want f64 [rows,D]", lbr_describe(x));
    if (start->ndim != 1 || start->dtype != LBR_I32) return lbr_fail(LBR_ESHAPE, "windows: start is %s, want i32 [B]", lbr_describe(start));
    int32_t D = x->shape[1];
    if (a->groups < 1 || D % a->groups) return lbr_fail(LBR_EINVAL, "windows: %d groups of %d numbers", a->groups, D);
    if (a->window < 1 || a->window > x->shape[0]) return lbr_fail(LBR_EINVAL, "windows: window %d of %d rows", a->window, x->shape[0]);
    if (a->centre < 0 || a->centre > 2) return lbr_fail(LBR_EINVAL, "windows: centre %d, want 0..2", a->centre);
    for (int i = 2; i < 5; i++) {
        const lbr_tensor *t = &c->in[i];
        int32_t want = i < 4 ? D : a->groups;
        if (lbr_present(t) && (t->ndim != 1 || t->dtype != LBR_F64 || t->shape[0] != want))
            return lbr_fail(LBR_ESHAPE, "windows: %s is %s, want f64 [%d]", i == 2 ? "mean" : i == 3 ? "sd" : "certainty", lbr_describe(t), want);
    }
    int32_t shape[3] = {start->shape[0], a->window, D + (a->mask ? a->groups : 0)};
    lbr_out(c, 0, LBR_F32, 3, shape);
    lbr_out(c, 1, LBR_F32, 3, shape);
    return 0;
}

/* ---- pictures and points (points.h) ---- */

int lbr_infer_crop(lbr_call *c)
{
    const lbr_crop_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *r = &c->in[1];
    if (x->ndim != 3 || x->dtype != LBR_U8 || x->shape[2] != 3 || x->shape[0] < 1 || x->shape[1] < 1 || x->shape[0] > INT32_MAX / 64 || x->shape[1] > INT32_MAX / 64)
        return lbr_fail(LBR_ESHAPE, "crop: x is %s, want u8 [H,W,3] of at least one pixel", lbr_describe(x));
    if (r->ndim != 2 || r->dtype != LBR_F32 || r->shape[1] != 5) return lbr_fail(LBR_ESHAPE, "crop: region is %s, want f32 [B,5]", lbr_describe(r));
    if (a->size[0] < 1 || a->size[1] < 1) return lbr_fail(LBR_EINVAL, "crop: size %d, %d, want at least 1", a->size[0], a->size[1]);
    if (a->border != LBR_BORDER_ZERO && a->border != LBR_BORDER_REPLICATE) return lbr_fail(LBR_EINVAL, "crop: border %d, want 0 or 1", a->border);
    if (a->rim < 0 || a->rim > x->shape[0] || a->rim > x->shape[1]) return lbr_fail(LBR_EINVAL, "crop: a rim of %d, want 0 to the sides of %s", a->rim, lbr_describe(x));
    lbr_out(c, 0, LBR_F32, 4, (const int32_t[]){r->shape[0], a->size[0], a->size[1], 3});
    return 0;
}

int lbr_infer_place_points(lbr_call *c)
{
    const lbr_place_points_attr *a = c->attr;
    const lbr_tensor *points = &c->in[0], *heat = &c->in[1], *world = &c->in[2], *rect = &c->in[3];
    if (heat->ndim != 4 || heat->dtype != LBR_F32) return lbr_fail(LBR_ESHAPE, "place_points: heat is %s, want f32 [B,h,w,M]", lbr_describe(heat));
    const int32_t B = heat->shape[0], M = heat->shape[3];
    if (points->dtype != LBR_F32 || lbr_tensor_numel(points) != (int64_t)B * M * 5) return lbr_fail(LBR_ESHAPE, "place_points: points are %s, want f32 [%d,%d]", lbr_describe(points), B, 5 * M);
    if (world->dtype != LBR_F32 || lbr_tensor_numel(world) != (int64_t)B * M * 3) return lbr_fail(LBR_ESHAPE, "place_points: world is %s, want f32 [%d,%d]", lbr_describe(world), B, 3 * M);
    if (rect->ndim != 2 || rect->dtype != LBR_F32 || rect->shape[0] != B || rect->shape[1] != 5) return lbr_fail(LBR_ESHAPE, "place_points: rect is %s, want f32 [%d,5]", lbr_describe(rect), B);
    if (a->n < 1 || a->n > M) return lbr_fail(LBR_EINVAL, "place_points: %d of %d points", a->n, M);
    if (a->width < 1 || a->height < 1 || a->size < 1) return lbr_fail(LBR_EINVAL, "place_points: crop of %d pixels in a picture of %d x %d", a->size, a->width, a->height);
    if (a->kernel < 1 || a->kernel > LBR_MOST_KERNEL || a->kernel % 2 == 0) return lbr_fail(LBR_EINVAL, "place_points: kernel %d, want an odd one up to %d", a->kernel, LBR_MOST_KERNEL);
    lbr_out(c, 0, LBR_F32, 3, (const int32_t[]){B, a->n, LBR_POINT});
    return 0;
}

/* ---- in place ---- */

int lbr_infer_follow_points(lbr_call *c)
{
    const lbr_follow_points_attr *a = c->attr;
    const lbr_tensor *y = &c->out[3];
    if (y->ndim != 2 || y->dtype != LBR_F32 || y->shape[0] < 3 || y->shape[0] > INT32_MAX / 32 || y->shape[1] != LBR_POINT)
        return lbr_fail(LBR_ESHAPE, "follow_points: y is %s, want f32 [n+2,%d]", lbr_describe(y), LBR_POINT);
    const int32_t n = y->shape[0] - 2;
    const struct { const char *name; const lbr_tensor *t; int dtype; int64_t numel; } wanted[] = {
        {"points", &c->in[0], LBR_F32, (int64_t)(n + 2) * LBR_POINT}, {"flag", &c->in[1], LBR_F32, 1}, {"time", &c->in[2], LBR_F64, 1},
        {"place", &c->out[0], LBR_F32, 10}, {"state", &c->out[1], LBR_F32, lbr_following_state(n)}, {"clock", &c->out[2], LBR_F64, LBR_CLOCKS},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (wanted[i].t->dtype != wanted[i].dtype || lbr_tensor_numel(wanted[i].t) != wanted[i].numel)
            return lbr_fail(LBR_ESHAPE, "follow_points: %s is %s, want %s with %lld elements", wanted[i].name, lbr_describe(wanted[i].t), lbr_dtype_name(wanted[i].dtype),
                            (long long)wanted[i].numel);
    if (a->width < 1 || a->height < 1) return lbr_fail(LBR_EINVAL, "follow_points: a picture of %d x %d", a->width, a->height);
    return 0;
}

int lbr_infer_add_into(lbr_call *c)
{
    if (!lbr_same_shape(&c->in[0], &c->out[0]) || c->in[0].dtype != c->out[0].dtype || c->in[0].dtype > LBR_F64)
        return lbr_fail(LBR_ESHAPE, "add_into: %s into %s", lbr_describe(&c->in[0]), lbr_describe(&c->out[0]));
    return 0;
}

int lbr_infer_tally(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *sums = &c->out[0];
    if (lbr_tensor_numel(x) != 1 || x->dtype > LBR_F64) return lbr_fail(LBR_ESHAPE, "tally: x is %s, want one element f32 or f64", lbr_describe(x));
    if (sums->ndim != 1 || sums->shape[0] != 2 || sums->dtype != LBR_F64) return lbr_fail(LBR_ESHAPE, "tally: sums is %s, want f64 [2]", lbr_describe(sums));
    return 0;
}

static int control(lbr_call *c, const lbr_tensor *t)
{
    if (t->dtype != LBR_F64 || t->ndim != 1 || t->shape[0] != 8) return lbr_fail(LBR_ESHAPE, "%s: control is %s, want f64 [8]", NAME, lbr_describe(t));
    return 0;
}

static int norm(lbr_call *c, const lbr_tensor *t)
{
    if (t->dtype != LBR_F64 || lbr_tensor_numel(t) != 1) return lbr_fail(LBR_ESHAPE, "%s: norm is %s, want f64 [1]", NAME, lbr_describe(t));
    return 0;
}

int lbr_infer_optim_begin(lbr_call *c)
{
    int rc = norm(c, &c->in[0]);
    return rc ? rc : control(c, &c->out[0]);
}

static int step(lbr_call *c)
{
    int rc = control(c, &c->in[1]);
    if (rc || (rc = norm(c, &c->in[2]))) return rc;
    for (int i = 0; i < c->nout; i++) {
        const lbr_tensor *t = &c->out[i];
        if (!lbr_same_shape(t, &c->in[0]) || t->dtype != c->in[0].dtype || t->dtype > LBR_F64 || !lbr_tensor_contiguous(t))
            return lbr_fail(LBR_ESHAPE, "%s: gradient %s for output %d %s, want contiguous, equal shape, f32 or f64", NAME, lbr_describe(&c->in[0]), i + 1, lbr_describe(t));
    }
    return 0;
}

int lbr_infer_sgd(lbr_call *c) { return step(c); }
int lbr_infer_adam(lbr_call *c) { return step(c); }

int lbr_infer_square_sum_into(lbr_call *c)
{
    if (c->in[0].dtype > LBR_F64) return lbr_fail(LBR_EDTYPE, "square_sum_into: x is %s, want f32 or f64", lbr_describe(&c->in[0]));
    return norm(c, &c->out[0]);
}
