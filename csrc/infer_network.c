/* infer_network.c: shapes and dtypes of the layers' ops, forward and backward; infer.c has the rest. */
#include "core.h"

#include <math.h>

#define NAME lbr_op_name(c->op)

/* ---- matmul ---- */

int lbr_infer_matmul(lbr_call *c)
{
    const lbr_matmul_attr *attr = c->attr;
    const lbr_tensor *a = &c->in[0], *b = &c->in[1];
    if (a->ndim < 2 || b->ndim < 2 || (b->ndim != a->ndim && b->ndim != 2) || a->dtype != b->dtype || a->dtype == LBR_U8)
        return lbr_fail(LBR_ESHAPE, "matmul: %s and %s, want [..,M,K] and [..,K,N] or [K,N] of one dtype that is not u8", lbr_describe(a), lbr_describe(b));
    if (attr->ta && a->ndim != b->ndim) return lbr_fail(LBR_ESHAPE, "matmul: a transposed a wants b with as many dims");
    int32_t shape[LBR_MAX_DIMS];
    for (int i = 0; i < a->ndim - 2; i++) {
        if (b->ndim == a->ndim && b->shape[i] != a->shape[i]) return lbr_fail(LBR_ESHAPE, "matmul: %s and %s, leading dims differ", lbr_describe(a), lbr_describe(b));
        shape[i] = a->shape[i];
    }
    int32_t m = a->shape[a->ndim - 2 + (attr->ta != 0)], ka = a->shape[a->ndim - 1 - (attr->ta != 0)];
    int32_t n = b->shape[b->ndim - 1 - (attr->tb != 0)], kb = b->shape[b->ndim - 2 + (attr->tb != 0)];
    if (ka != kb) return lbr_fail(LBR_ESHAPE, "matmul: %s%s and %s%s, inner sizes %d and %d differ", lbr_describe(a), attr->ta ? "^T" : "", lbr_describe(b), attr->tb ? "^T" : "", ka, kb);
    shape[a->ndim - 2] = m, shape[a->ndim - 1] = n;
    lbr_out(c, 0, a->dtype, a->ndim, shape);
    return 0;
}

int lbr_infer_linear(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    if (x->ndim < 1 || w->ndim != 2 || x->dtype != w->dtype || x->dtype > LBR_BF16 || x->shape[x->ndim - 1] != w->shape[1])
        return lbr_fail(LBR_ESHAPE, "linear: x is %s, w %s, want [..,I] and [O,I] of one floating dtype", lbr_describe(x), lbr_describe(w));
    if (lbr_present(b) && (b->ndim != 1 || b->shape[0] != w->shape[0] || b->dtype != x->dtype))
        return lbr_fail(LBR_ESHAPE, "linear: b is %s, want [%d]", lbr_describe(b), w->shape[0]);
    int act = ((const lbr_linear_attr *)c->attr)->act;
    if (act < 0 || act >= LBR_ACTS || act == LBR_ACT_PRELU) return lbr_fail(LBR_EINVAL, "linear: act %d, want 0..%d, not %d", act, LBR_ACTS - 1, LBR_ACT_PRELU);
    int32_t shape[LBR_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = w->shape[0];
    lbr_out(c, 0, x->dtype, x->ndim, shape);
    return 0;
}

/* ---- convolutions ---- */

static int image(lbr_call *c, const lbr_tensor *x, const char *name)
{
    if (x->ndim != 4 || x->dtype > LBR_BF16) return lbr_fail(LBR_ESHAPE, "%s: %s is %s, want [B,H,W,C] floating point", NAME, name, lbr_describe(x));
    return 0;
}

static int extent(lbr_call *c, int32_t size, int32_t kernel, int32_t stride, int32_t before, int32_t after, int32_t dilation, int32_t *out)
{
    if (stride < 1 || dilation < 1 || before < 0 || after < 0 || kernel < 1) return lbr_fail(LBR_EINVAL, "%s: kernel %d, stride %d, dilation %d, pad %d %d", NAME, kernel, stride, dilation, before, after);
    int64_t span = (int64_t)size + before + after - ((int64_t)dilation * (kernel - 1) + 1);
    if (span < 0) return lbr_fail(LBR_ESHAPE, "%s: a kernel of %d (dilation %d) does not fit into %d + %d + %d", NAME, kernel, dilation, before, size, after);
    if (span / stride >= INT32_MAX) return lbr_fail(LBR_ESHAPE, "%s: %d + %d + %d positions, want less than 2^31", NAME, before, size, after);
    *out = (int32_t)(span / stride + 1);
    return 0;
}

static int optional_row(lbr_call *c, const lbr_tensor *t, const char *name, int32_t n)
{
    if (lbr_present(t) && (lbr_tensor_numel(t) != n || t->dtype > LBR_BF16)) return lbr_fail(LBR_ESHAPE, "%s: %s is %s, want [%d]", NAME, name, lbr_describe(t), n);
    return 0;
}

static int epilogue(lbr_call *c, int act)
{
    int rc;
    const lbr_tensor *y = &c->out[0];
    int32_t channels = y->shape[3];
    if ((rc = optional_row(c, &c->in[2], "b", channels))) return rc;
    if (lbr_present(&c->in[3]) && (!lbr_same_shape(&c->in[3], y) || c->in[3].dtype != y->dtype)) return lbr_fail(LBR_ESHAPE, "%s: residual is %s, want the output's shape", NAME, lbr_describe(&c->in[3]));
    if (act < 0 || act >= LBR_ACTS) return lbr_fail(LBR_EINVAL, "%s: act %d, want 0..%d", NAME, act, LBR_ACTS - 1);
    if ((act == LBR_ACT_PRELU) != lbr_present(&c->in[4])) return lbr_fail(LBR_EINVAL, "%s: a slope goes with act 3 (prelu) and only with it", NAME);
    return optional_row(c, &c->in[4], "slope", channels);
}

int lbr_infer_conv2d(lbr_call *c)
{
    const lbr_conv2d_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *w = &c->in[1];
    int32_t shape[4];
    int rc = image(c, x, "x");
    if (rc) return rc;
    if (w->ndim != 4 || w->dtype != x->dtype) return lbr_fail(LBR_ESHAPE, "conv2d: w is %s, want [O,KH,KW,C/groups] of x's dtype", lbr_describe(w));
    if (a->groups < 1 || x->shape[3] % a->groups || w->shape[0] % a->groups || w->shape[3] != x->shape[3] / a->groups)
        return lbr_fail(LBR_ESHAPE, "conv2d: x is %s, w %s, groups %d", lbr_describe(x), lbr_describe(w), a->groups);
    shape[0] = x->shape[0], shape[3] = w->shape[0];
    for (int i = 0; i < 2; i++)
        if ((rc = extent(c, x->shape[1 + i], w->shape[1 + i], a->stride[i], a->pad[2 * i], a->pad[2 * i + 1], a->dilation[i], &shape[1 + i]))) return rc;
    lbr_out(c, 0, x->dtype, 4, shape);
    return epilogue(c, a->act);
}

static bool is_scale(double v) { return v > 0 && v < INFINITY; }
static bool is_byte(int32_t v) { return v >= 0 && v <= 255; }

int lbr_infer_conv2d_int8(lbr_call *c)
{
    const lbr_conv2d_int8_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *b = &c->in[2], *r = &c->in[3];
    int32_t shape[4];
    int rc;
    if (x->ndim != 4 || x->dtype != LBR_U8 || w->ndim != 4 || w->dtype != LBR_F32 || w->shape[3] != x->shape[3] || (int64_t)w->shape[1] * w->shape[2] > 64)
        return lbr_fail(LBR_ESHAPE, "conv2d_int8: x is %s, w %s, want u8 [B,H,W,C] and f32 [O,KH,KW,C] of at most 64 taps", lbr_describe(x), lbr_describe(w));
    if ((int64_t)w->shape[1] * w->shape[2] * w->shape[3] > 65536) return lbr_fail(LBR_ESHAPE, "conv2d_int8: w is %s, its sums may not fit 32 bits", lbr_describe(w));
    if (lbr_present(b) && (lbr_tensor_numel(b) != w->shape[0] || b->dtype != LBR_F32)) return lbr_fail(LBR_ESHAPE, "conv2d_int8: b is %s, want f32 [%d]", lbr_describe(b), w->shape[0]);
    if (a->act < 0 || a->act >= LBR_ACTS || a->act == LBR_ACT_PRELU) return lbr_fail(LBR_EINVAL, "conv2d_int8: act %d, want 0..%d, not %d", a->act, LBR_ACTS - 1, LBR_ACT_PRELU);
    if (!is_scale(a->x_scale) || !is_byte(a->x_zero) || (a->y_scale != 0 && (!is_scale(a->y_scale) || !is_byte(a->y_zero))) ||
        (lbr_present(r) && (!is_scale(a->r_scale) || !is_byte(a->r_zero))))
        return lbr_fail(LBR_EINVAL, "conv2d_int8: scales %g, %g, %g and zeros %d, %d, %d of x, y, residual: want scales above 0 and zeros 0..255", a->x_scale, a->y_scale, a->r_scale,
                        a->x_zero, a->y_zero, a->r_zero);
    shape[0] = x->shape[0], shape[3] = w->shape[0];
    for (int i = 0; i < 2; i++)
        if ((rc = extent(c, x->shape[1 + i], w->shape[1 + i], a->stride[i], a->pad[2 * i], a->pad[2 * i + 1], a->dilation[i], &shape[1 + i]))) return rc;
    lbr_out(c, 0, a->y_scale != 0 ? LBR_U8 : LBR_F32, 4, shape);
    if (lbr_present(r) && (!lbr_same_shape(r, &c->out[0]) || r->dtype != LBR_U8)) return lbr_fail(LBR_ESHAPE, "conv2d_int8: residual is %s, want u8 of the output's shape", lbr_describe(r));
    return 0;
}

int lbr_infer_depthwise(lbr_call *c)
{
    const lbr_depthwise_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *w = &c->in[1];
    int32_t shape[4];
    int rc = image(c, x, "x");
    if (rc) return rc;
    if (w->ndim != 3 || w->dtype != x->dtype || w->shape[2] != x->shape[3]) return lbr_fail(LBR_ESHAPE, "depthwise: x is %s, w %s, want w [KH,KW,C]", lbr_describe(x), lbr_describe(w));
    shape[0] = x->shape[0], shape[3] = x->shape[3];
    for (int i = 0; i < 2; i++)
        if ((rc = extent(c, x->shape[1 + i], w->shape[i], a->stride[i], a->pad[2 * i], a->pad[2 * i + 1], a->dilation[i], &shape[1 + i]))) return rc;
    lbr_out(c, 0, x->dtype, 4, shape);
    return epilogue(c, a->act);
}

static int backward_pair(lbr_call *c)
{
    int rc = image(c, &c->in[0], "dy");
    if (rc) return rc;
    if (c->in[0].dtype > LBR_F64 || c->in[1].dtype != c->in[0].dtype) return lbr_fail(LBR_EDTYPE, "%s: %s and %s, want f32 or f64", NAME, lbr_describe(&c->in[0]), lbr_describe(&c->in[1]));
    return 0;
}

static int check_extents(lbr_call *c, const int32_t *size, const int32_t *kernel, const int32_t *stride, const int32_t *pad, const int32_t *dilation)
{
    for (int i = 0; i < 2; i++) {
        int32_t out = 0;
        int rc = extent(c, size[i], kernel[i], stride[i], pad[2 * i], pad[2 * i + 1], dilation[i], &out);
        if (rc) return rc;
        if (out != c->in[0].shape[1 + i]) return lbr_fail(LBR_ESHAPE, "%s: dy is %s, its dim %d wants %d", NAME, lbr_describe(&c->in[0]), i + 2, out);
    }
    return 0;
}

int lbr_infer_conv2d_backward_input(lbr_call *c)
{
    const lbr_conv2d_backward_input_attr *a = c->attr;
    const lbr_tensor *dy = &c->in[0], *w = &c->in[1];
    int rc = backward_pair(c);
    if (rc) return rc;
    if (w->ndim != 4 || w->shape[0] != dy->shape[3] || a->groups < 1 || w->shape[0] % a->groups || (int64_t)w->shape[3] * a->groups > INT32_MAX)
        return lbr_fail(LBR_ESHAPE, "%s: dy %s, w %s, groups %d", NAME, lbr_describe(dy), lbr_describe(w), a->groups);
    if (a->size[0] < 0 || a->size[1] < 0) return lbr_fail(LBR_ESHAPE, "%s: size %d x %d", NAME, a->size[0], a->size[1]);
    if ((rc = check_extents(c, a->size, w->shape + 1, a->stride, a->pad, a->dilation))) return rc;
    int32_t shape[4] = {dy->shape[0], a->size[0], a->size[1], w->shape[3] * a->groups};
    lbr_out(c, 0, dy->dtype, 4, shape);
    return 0;
}

int lbr_infer_conv2d_backward_weight(lbr_call *c)
{
    const lbr_conv2d_backward_weight_attr *a = c->attr;
    const lbr_tensor *dy = &c->in[0], *x = &c->in[1];
    int rc = backward_pair(c);
    if (rc || (rc = image(c, x, "x"))) return rc;
    if (a->groups < 1 || x->shape[3] % a->groups || dy->shape[3] % a->groups || x->shape[0] != dy->shape[0]) return lbr_fail(LBR_ESHAPE, "%s: dy %s, x %s, groups %d", NAME, lbr_describe(dy), lbr_describe(x), a->groups);
    if ((rc = check_extents(c, x->shape + 1, a->kernel, a->stride, a->pad, a->dilation))) return rc;
    int32_t shape[4] = {dy->shape[3], a->kernel[0], a->kernel[1], x->shape[3] / a->groups};
    lbr_out(c, 0, dy->dtype, 4, shape);
    return 0;
}

int lbr_infer_depthwise_backward_input(lbr_call *c)
{
    const lbr_depthwise_backward_input_attr *a = c->attr;
    const lbr_tensor *dy = &c->in[0], *w = &c->in[1];
    int rc = backward_pair(c);
    if (rc) return rc;
    if (w->ndim != 3 || w->shape[2] != dy->shape[3]) return lbr_fail(LBR_ESHAPE, "%s: dy %s, w %s", NAME, lbr_describe(dy), lbr_describe(w));
    if (a->size[0] < 0 || a->size[1] < 0) return lbr_fail(LBR_ESHAPE, "%s: size %d x %d", NAME, a->size[0], a->size[1]);
    if ((rc = check_extents(c, a->size, w->shape, a->stride, a->pad, a->dilation))) return rc;
    int32_t shape[4] = {dy->shape[0], a->size[0], a->size[1], dy->shape[3]};
    lbr_out(c, 0, dy->dtype, 4, shape);
    return 0;
}

int lbr_infer_depthwise_backward_weight(lbr_call *c)
{
    const lbr_depthwise_backward_weight_attr *a = c->attr;
    const lbr_tensor *dy = &c->in[0], *x = &c->in[1];
    int rc = backward_pair(c);
    if (rc || (rc = image(c, x, "x"))) return rc;
    if (x->shape[0] != dy->shape[0] || x->shape[3] != dy->shape[3]) return lbr_fail(LBR_ESHAPE, "%s: dy %s, x %s", NAME, lbr_describe(dy), lbr_describe(x));
    if ((rc = check_extents(c, x->shape + 1, a->kernel, a->stride, a->pad, a->dilation))) return rc;
    int32_t shape[3] = {a->kernel[0], a->kernel[1], dy->shape[3]};
    lbr_out(c, 0, dy->dtype, 3, shape);
    return 0;
}

/* ---- pooling, resize ---- */

static const int32_t no_dilation[2] = {1, 1};

/* Every window holds at least one pixel. */
static int pool_padding(lbr_call *c, const lbr_tensor *x, const int32_t *kernel, const int32_t *pad)
{
    if (!x->shape[1] || !x->shape[2]) return lbr_fail(LBR_ESHAPE, "%s: x is %s, it has no pixel", NAME, lbr_describe(x));
    for (int i = 0; i < 2; i++)
        if (pad[2 * i] >= kernel[i] || pad[2 * i + 1] >= kernel[i]) return lbr_fail(LBR_EINVAL, "%s: pad %d %d reaches past a kernel of %d", NAME, pad[2 * i], pad[2 * i + 1], kernel[i]);
    return 0;
}

static int pool(lbr_call *c, const int32_t *kernel, const int32_t *stride, const int32_t *pad)
{
    const lbr_tensor *x = &c->in[0];
    int32_t shape[4];
    bool bytes = c->op == LBR_OP_max_pool2d && x->ndim == 4 && x->dtype == LBR_U8;
    int rc = bytes ? 0 : image(c, x, "x");
    if (rc || (rc = pool_padding(c, x, kernel, pad))) return rc;
    shape[0] = x->shape[0], shape[3] = x->shape[3];
    for (int i = 0; i < 2; i++)
        if ((rc = extent(c, x->shape[1 + i], kernel[i], stride[i], pad[2 * i], pad[2 * i + 1], 1, &shape[1 + i]))) return rc;
    lbr_out(c, 0, x->dtype, 4, shape);
    return 0;
}

static int pool_backward(lbr_call *c, const int32_t *kernel, const int32_t *stride, const int32_t *pad)
{
    int rc = backward_pair(c);
    const lbr_tensor *dy = &c->in[0], *x = &c->in[1];
    if (rc || (rc = image(c, x, "x")) || (rc = pool_padding(c, x, kernel, pad))) return rc;
    if (x->shape[0] != dy->shape[0] || x->shape[3] != dy->shape[3]) return lbr_fail(LBR_ESHAPE, "%s: dy %s, x %s", NAME, lbr_describe(dy), lbr_describe(x));
    if ((rc = check_extents(c, x->shape + 1, kernel, stride, pad, no_dilation))) return rc;
    lbr_out_like(c, 0, &c->in[1]);
    return 0;
}

int lbr_infer_max_pool2d(lbr_call *c) { const lbr_max_pool2d_attr *a = c->attr; return pool(c, a->kernel, a->stride, a->pad); }
int lbr_infer_avg_pool2d(lbr_call *c) { const lbr_avg_pool2d_attr *a = c->attr; return pool(c, a->kernel, a->stride, a->pad); }
int lbr_infer_max_pool2d_backward(lbr_call *c) { const lbr_max_pool2d_backward_attr *a = c->attr; return pool_backward(c, a->kernel, a->stride, a->pad); }
int lbr_infer_avg_pool2d_backward(lbr_call *c) { const lbr_avg_pool2d_backward_attr *a = c->attr; return pool_backward(c, a->kernel, a->stride, a->pad); }

static int resize(lbr_call *c, const int32_t *size)
{
    int rc = image(c, &c->in[0], c->op == LBR_OP_resize_bilinear ? "x" : "dy");
    if (rc) return rc;
    if (size[0] < 1 || size[1] < 1 || !c->in[0].shape[1] || !c->in[0].shape[2]) return lbr_fail(LBR_ESHAPE, "%s: %s to %d x %d", NAME, lbr_describe(&c->in[0]), size[0], size[1]);
    int32_t shape[4] = {c->in[0].shape[0], size[0], size[1], c->in[0].shape[3]};
    lbr_out(c, 0, c->in[0].dtype, 4, shape);
    return 0;
}

int lbr_infer_resize_bilinear(lbr_call *c) { return resize(c, ((const lbr_resize_bilinear_attr *)c->attr)->size); }
int lbr_infer_resize_bilinear_backward(lbr_call *c) { return resize(c, ((const lbr_resize_bilinear_backward_attr *)c->attr)->size); }

int lbr_infer_depth_to_space(lbr_call *c)
{
    const lbr_depth_to_space_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0];
    int64_t square = (int64_t)a->block * a->block;
    if (x->ndim != 4 || a->block < 1 || x->shape[3] % square || (int64_t)x->shape[1] * a->block > INT32_MAX || (int64_t)x->shape[2] * a->block > INT32_MAX) return lbr_fail(LBR_ESHAPE, "depth_to_space: x is %s, block %d", lbr_describe(x), a->block);
    int32_t shape[4] = {x->shape[0], x->shape[1] * a->block, x->shape[2] * a->block, (int32_t)(x->shape[3] / square)};
    lbr_out(c, 0, x->dtype, 4, shape);
    return 0;
}

/* ---- moving elements ---- */

int lbr_infer_pad(lbr_call *c)
{
    const lbr_pad_attr *a = c->attr;
    int32_t shape[LBR_MAX_DIMS];
    for (int i = 0; i < c->in[0].ndim; i++) {
        if (a->before[i] < 0 || a->after[i] < 0) return lbr_fail(LBR_EINVAL, "pad: %d and %d in dim %d", a->before[i], a->after[i], i + 1);
        int64_t size = (int64_t)c->in[0].shape[i] + a->before[i] + a->after[i];
        if (size > INT32_MAX) return lbr_fail(LBR_ESHAPE, "pad: %d and %d in dim %d of %s, want less than 2^31", a->before[i], a->after[i], i + 1, lbr_describe(&c->in[0]));
        shape[i] = (int32_t)size;
    }
    lbr_out(c, 0, c->in[0].dtype, c->in[0].ndim, shape);
    return 0;
}

int lbr_infer_concat(lbr_call *c)
{
    const lbr_concat_attr *a = c->attr;
    const lbr_tensor *first = &c->in[0];
    int32_t shape[LBR_MAX_DIMS];
    if (a->dim < 0 || a->dim >= first->ndim) return lbr_fail(LBR_ESHAPE, "concat: dim %d of %s", (int)(a->dim + 1u), lbr_describe(first));
    memcpy(shape, first->shape, sizeof shape);
    for (int i = 1; i < c->nin; i++) {
        const lbr_tensor *t = &c->in[i];
        if (!lbr_present(t)) continue;
        bool fits = t->ndim == first->ndim && t->dtype == first->dtype;
        for (int k = 0; fits && k < t->ndim; k++) fits = k == a->dim || t->shape[k] == first->shape[k];
        if (!fits) return lbr_fail(LBR_ESHAPE, "concat: %s and %s along dim %d", lbr_describe(first), lbr_describe(t), a->dim + 1);
        if ((int64_t)shape[a->dim] + t->shape[a->dim] > INT32_MAX) return lbr_fail(LBR_ESHAPE, "concat: dim %d grows past 2^31", a->dim + 1);
        shape[a->dim] += t->shape[a->dim];
    }
    lbr_out(c, 0, first->dtype, first->ndim, shape);
    return 0;
}

/* ---- normalisation ---- */

static int like_second(lbr_call *c)
{
    if (!lbr_same_shape(&c->in[0], &c->in[1]) || c->in[0].dtype != c->in[1].dtype || c->in[0].dtype > LBR_F64)
        return lbr_fail(LBR_ESHAPE, "%s: %s and %s, want one shape, f32 or f64", NAME, lbr_describe(&c->in[0]), lbr_describe(&c->in[1]));
    lbr_out_like(c, 0, &c->in[0]);
    return 0;
}

int lbr_infer_softmax_backward(lbr_call *c) { return like_second(c); }
int lbr_infer_log_softmax_backward(lbr_call *c) { return like_second(c); }

int lbr_infer_layer_norm(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    int rc;
    if (x->ndim < 1 || x->dtype > LBR_F64 || x->shape[x->ndim - 1] < 1) return lbr_fail(LBR_ESHAPE, "layer_norm: x is %s, want f32 or f64 [..,C]", lbr_describe(x));
    int32_t channels = x->shape[x->ndim - 1];
    if ((rc = optional_row(c, &c->in[1], "weight", channels)) || (rc = optional_row(c, &c->in[2], "bias", channels))) return rc;
    lbr_out_like(c, 0, x);
    lbr_out(c, 1, x->dtype, x->ndim - 1, x->shape);
    lbr_out(c, 2, x->dtype, x->ndim - 1, x->shape);
    return 0;
}

/* dy, x [..,C] and what forward saved: mean, rstd of `count` elements. */
static int norm_backward(lbr_call *c, bool over_rows, int32_t *channels)
{
    const lbr_tensor *x = &c->in[1];
    int rc = like_second(c);
    if (rc) return rc;
    if (x->ndim < 1 || x->shape[x->ndim - 1] < 1) return lbr_fail(LBR_ESHAPE, "%s: x is %s, want [..,C]", NAME, lbr_describe(x));
    *channels = x->shape[x->ndim - 1];
    int64_t count = over_rows ? lbr_tensor_numel(x) / *channels : *channels;
    for (int i = 2; i < 4; i++)
        if (lbr_tensor_numel(&c->in[i]) != count || c->in[i].dtype != x->dtype)
            return lbr_fail(LBR_ESHAPE, "%s: %s is %s, want %lld elements for x %s", NAME, i == 2 ? "mean" : "rstd", lbr_describe(&c->in[i]), (long long)count, lbr_describe(x));
    return 0;
}

int lbr_infer_layer_norm_backward(lbr_call *c)
{
    int32_t channels;
    int rc = norm_backward(c, true, &channels);
    if (rc) return rc;
    if ((rc = optional_row(c, &c->in[4], "weight", channels))) return rc;
    lbr_out(c, 1, c->in[0].dtype, 1, &channels);
    lbr_out(c, 2, c->in[0].dtype, 1, &channels);
    return 0;
}

int lbr_infer_batch_norm(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    if (x->ndim < 2 || x->dtype > LBR_F64) return lbr_fail(LBR_ESHAPE, "batch_norm: x is %s, want f32 or f64 [..,C]", lbr_describe(x));
    int32_t channels = x->shape[x->ndim - 1];
    static const char *const names[] = {"weight", "bias", "running_mean", "running_var"};
    for (int i = 1; i < 5; i++)
        if (c->in[i].ndim != 1 || c->in[i].shape[0] != channels || c->in[i].dtype != x->dtype)
            return lbr_fail(LBR_ESHAPE, "batch_norm: %s is %s, want [%d]", names[i - 1], lbr_describe(&c->in[i]), channels);
    if (((const lbr_batch_norm_attr *)c->attr)->training && lbr_tensor_numel(x) / (channels ? channels : 1) < 2)
        return lbr_fail(LBR_ESHAPE, "batch_norm: x is %s, training wants at least 2 values a channel", lbr_describe(x));
    lbr_out_like(c, 0, x);
    lbr_out(c, 1, x->dtype, 1, &channels);
    lbr_out(c, 2, x->dtype, 1, &channels);
    return 0;
}

int lbr_infer_batch_norm_backward(lbr_call *c)
{
    int32_t channels;
    int rc = norm_backward(c, false, &channels);
    if (rc || (rc = optional_row(c, &c->in[4], "weight", channels))) return rc;
    lbr_out(c, 1, c->in[0].dtype, 1, &channels);
    lbr_out(c, 2, c->in[0].dtype, 1, &channels);
    return 0;
}

/* ---- lstm ---- */

/* Weights, cells and weight gradients: f64 beside x of f64, else f32. */
static int lstm_wide(const lbr_call *c) { return c->in[0].dtype == LBR_F64 ? LBR_F64 : LBR_F32; }

static int state(lbr_call *c, const lbr_tensor *t, const char *name, int dtype, int32_t batch, int32_t hidden)
{
    if (lbr_present(t) && (t->ndim != 2 || t->shape[0] != batch || t->shape[1] != hidden || t->dtype != dtype))
        return lbr_fail(LBR_ESHAPE, "%s: %s is %s, want %s [%d,%d]", NAME, name, lbr_describe(t), lbr_dtype_name(dtype), batch, hidden);
    return 0;
}

static int lstm_weights(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *r = &c->in[2];
    int wide = lstm_wide(c);
    if (x->ndim != 3 || x->dtype > LBR_BF16) return lbr_fail(LBR_ESHAPE, "%s: x is %s, want f32, f64, f16 or bf16 [B,T,F]", NAME, lbr_describe(x));
    if (x->shape[1] < 1) return lbr_fail(LBR_ESHAPE, "%s: x is %s, want at least one step", NAME, lbr_describe(x));
    if (r->ndim != 2 || r->shape[0] != 4 * (int64_t)r->shape[1] || r->shape[1] < 1 || r->dtype != wide)
        return lbr_fail(LBR_ESHAPE, "%s: x is %s, r is %s, want r %s [4H,H]", NAME, lbr_describe(x), lbr_describe(r), lbr_dtype_name(wide));
    if (w->ndim != 2 || w->shape[0] != r->shape[0] || w->shape[1] != x->shape[2] || w->dtype != wide)
        return lbr_fail(LBR_ESHAPE, "%s: x is %s, w is %s, want w %s [%d,%d]", NAME, lbr_describe(x), lbr_describe(w), lbr_dtype_name(wide), r->shape[0], x->shape[2]);
    return 0;
}

int lbr_infer_lstm_forward(lbr_call *c)
{
    const lbr_lstm_forward_attr *a = c->attr;
    int rc = lstm_weights(c);
    if (rc) return rc;
    const lbr_tensor *x = &c->in[0], *b = &c->in[3];
    int32_t batch = x->shape[0], steps = x->shape[1], hidden = c->in[2].shape[1];
    int wide = lstm_wide(c);
    if (b->ndim != 1 || b->shape[0] != 4 * hidden || b->dtype != wide) return lbr_fail(LBR_ESHAPE, "lstm_forward: b is %s, want %s [%d]", lbr_describe(b), lbr_dtype_name(wide), 4 * hidden);
    if ((rc = state(c, &c->in[4], "h0", x->dtype, batch, hidden)) || (rc = state(c, &c->in[5], "c0", wide, batch, hidden))) return rc;
    int32_t y[3] = {batch, steps, hidden}, last[2] = {batch, hidden}, none[3] = {0, batch, hidden};
    int32_t gates[3] = {steps, batch, 4 * hidden}, cells[3] = {steps, batch, hidden};
    lbr_out(c, 0, x->dtype, 3, y);
    lbr_out(c, 1, x->dtype, 2, last);
    lbr_out(c, 2, wide, 2, last);
    lbr_out(c, 3, x->dtype, 3, a->save ? gates : none);
    lbr_out(c, 4, wide, 3, a->save ? cells : none);
    return 0;
}

int lbr_infer_lstm_backward(lbr_call *c)
{
    const lbr_lstm_backward_attr *a = c->attr;
    int rc = lstm_weights(c);
    if (rc) return rc;
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *r = &c->in[2];
    int32_t batch = x->shape[0], steps = x->shape[1], hidden = r->shape[1], four = 4 * hidden;
    static const char *const names[] = {"h0", "c0", "y", "gates", "cells", "dy", "dhn", "dcn"};
    int32_t want[8][3] = {{batch, hidden, 0}, {batch, hidden, 0}, {batch, steps, hidden}, {steps, batch, four}, {steps, batch, hidden}, {batch, steps, hidden}, {batch, hidden, 0}, {batch, hidden, 0}};
    int wide = lstm_wide(c), dtypes[8] = {x->dtype, wide, x->dtype, x->dtype, wide, x->dtype, x->dtype, wide};
    for (int i = 0; i < 8; i++) {
        const lbr_tensor *t = &c->in[3 + i];
        if (!lbr_present(t)) continue;
        int ndim = want[i][2] ? 3 : 2;
        if (t->ndim != ndim || t->dtype != dtypes[i] || memcmp(t->shape, want[i], (size_t)ndim * sizeof(int32_t)))
            return lbr_fail(LBR_ESHAPE, "lstm_backward: %s is %s, want %s of %d dims for x %s (was forward run with save = 1?)", names[i], lbr_describe(t), lbr_dtype_name(dtypes[i]), ndim, lbr_describe(x));
    }
    int32_t none = 0, last[2] = {batch, hidden};
    if (a->need_dx) lbr_out(c, 0, x->dtype, 3, x->shape);
    else lbr_out(c, 0, x->dtype, 1, &none);
    lbr_out_like(c, 1, w);
    lbr_out_like(c, 2, r);
    lbr_out(c, 3, wide, 1, &four);
    lbr_out(c, 4, x->dtype, 2, last);
    lbr_out(c, 5, wide, 2, last);
    return 0;
}
