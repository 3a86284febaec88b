/* infer_index.c: shapes and dtypes of ops that read and write by index: gather, scatter, the best, what is not 0, suppression, a detector's boxes. */
#include "core.h"

#define NAME lbr_op_name(c->op)

static int index_dim(lbr_call *c, const lbr_tensor *x, int32_t dim)
{
    if (c->in[1].dtype != LBR_I32) return lbr_fail(LBR_EDTYPE, "%s: index is %s, want i32", NAME, lbr_describe(&c->in[1]));
    if (dim < 0 || dim >= x->ndim) return lbr_fail(LBR_ESHAPE, "%s: dim %d of %s", NAME, (int)(dim + 1u), lbr_describe(x));
    return 0;
}

int lbr_infer_gather(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *index = &c->in[1];
    int32_t dim = ((const lbr_gather_attr *)c->attr)->dim, shape[2 * LBR_MAX_DIMS];
    int n = 0, rc = index_dim(c, x, dim);
    if (rc) return rc;
    if (index->ndim + x->ndim - 1 > LBR_MAX_DIMS) return lbr_fail(LBR_ESHAPE, "gather: x is %s, index %s, want at most %d dims together", lbr_describe(x), lbr_describe(index), LBR_MAX_DIMS + 1);
    for (int i = 0; i < dim; i++) shape[n++] = x->shape[i];
    for (int i = 0; i < index->ndim; i++) shape[n++] = index->shape[i];
    for (int i = dim + 1; i < x->ndim; i++) shape[n++] = x->shape[i];
    lbr_out(c, 0, x->dtype, n, shape);
    return 0;
}

int lbr_infer_gather_backward(lbr_call *c)
{
    const lbr_gather_backward_attr *a = c->attr;
    const lbr_tensor *dy = &c->in[0], *index = &c->in[1];
    int32_t shape[LBR_MAX_DIMS];
    bool fits = index->dtype == LBR_I32 && a->dim >= 0 && dy->ndim - index->ndim >= a->dim && dy->ndim - index->ndim < LBR_MAX_DIMS && dy->dtype <= LBR_F64 && a->rows >= 0;
    for (int i = 0; fits && i < index->ndim; i++) fits = dy->shape[a->dim + i] == index->shape[i];
    if (!fits) return lbr_fail(LBR_ESHAPE, "gather_backward: dy %s, index %s, rows %d, dim %d", lbr_describe(dy), lbr_describe(index), a->rows, (int)(a->dim + 1u));
    int n = 0;
    for (int i = 0; i < a->dim; i++) shape[n++] = dy->shape[i];
    shape[n++] = a->rows;
    for (int i = a->dim + index->ndim; i < dy->ndim; i++) shape[n++] = dy->shape[i];
    lbr_out(c, 0, dy->dtype, n, shape);
    return 0;
}

static int elements(lbr_call *c, int32_t dim)
{
    const lbr_tensor *x = &c->in[0], *index = &c->in[1];
    int rc = index_dim(c, x, dim);
    if (rc) return rc;
    bool fits = x->ndim == index->ndim;
    for (int i = 0; fits && i < x->ndim; i++) fits = i == dim || index->shape[i] <= x->shape[i];
    return fits ? 0 : lbr_fail(LBR_ESHAPE, "%s: index %s in x %s along dim %d", NAME, lbr_describe(index), lbr_describe(x), dim + 1);
}

int lbr_infer_gather_elements(lbr_call *c)
{
    int rc = elements(c, ((const lbr_gather_elements_attr *)c->attr)->dim);
    if (rc) return rc;
    lbr_out(c, 0, c->in[0].dtype, c->in[1].ndim, c->in[1].shape);
    return 0;
}

int lbr_infer_scatter_elements(lbr_call *c)
{
    const lbr_scatter_elements_attr *a = c->attr;
    int rc = elements(c, a->dim);
    if (rc) return rc;
    if (!lbr_same_shape(&c->in[1], &c->in[2]) || c->in[2].dtype != c->in[0].dtype)
        return lbr_fail(LBR_ESHAPE, "scatter_elements: values are %s, want x's dtype and the shape of index %s", lbr_describe(&c->in[2]), lbr_describe(&c->in[1]));
    if (a->kind < 0 || a->kind > 4) return lbr_fail(LBR_EINVAL, "scatter_elements: kind %d, want 0..4", a->kind);
    lbr_out_like(c, 0, &c->in[0]);
    return 0;
}

int lbr_infer_topk(lbr_call *c)
{
    const lbr_topk_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0];
    int32_t shape[LBR_MAX_DIMS];
    if (a->dim < 0 || a->dim >= x->ndim) return lbr_fail(LBR_ESHAPE, "topk: dim %d of %s", (int)(a->dim + 1u), lbr_describe(x));
    if (a->k < 0 || a->k > x->shape[a->dim]) return lbr_fail(LBR_EINVAL, "topk: %d of dim %d of %s", a->k, a->dim + 1, lbr_describe(x));
    memcpy(shape, x->shape, sizeof shape);
    shape[a->dim] = a->k;
    lbr_out(c, 0, x->dtype, x->ndim, shape);
    lbr_out(c, 1, LBR_I32, x->ndim, shape);
    return 0;
}

static const int32_t one[1] = {1};

int lbr_infer_nonzero(lbr_call *c)
{
    int64_t n = lbr_tensor_numel(&c->in[0]);
    if (n > INT32_MAX) return lbr_fail(LBR_ESHAPE, "nonzero: x is %s, want less than 2^31 elements", lbr_describe(&c->in[0]));
    int32_t shape[2] = {(int32_t)n, c->in[0].ndim};
    lbr_out(c, 0, LBR_I32, 2, shape);
    lbr_out(c, 1, LBR_I32, 1, one);
    return 0;
}

int lbr_infer_nms(lbr_call *c)
{
    const lbr_nms_attr *a = c->attr;
    const lbr_tensor *b = &c->in[0], *s = &c->in[1];
    if (b->ndim != 3 || s->ndim != 3 || b->shape[2] != 4 || b->shape[0] != s->shape[0] || b->shape[1] != s->shape[2] || b->dtype > LBR_BF16 || s->dtype > LBR_BF16)
        return lbr_fail(LBR_ESHAPE, "nms: boxes are %s, scores %s, want floating point [B,N,4] and [B,C,N]", lbr_describe(b), lbr_describe(s));
    if (a->most < 0) return lbr_fail(LBR_EINVAL, "nms: at most %d, want 0 or more", a->most);
    int64_t capacity = (int64_t)s->shape[0] * s->shape[1];
    int32_t most = a->most < b->shape[1] ? a->most : b->shape[1];
    if (most && capacity > INT32_MAX / most) return lbr_fail(LBR_ESHAPE, "nms: room for %d of each class of %s, want less than 2^31", most, lbr_describe(s));
    int32_t shape[2] = {(int32_t)(capacity * most), 3};
    lbr_out(c, 0, LBR_I32, 2, shape);
    lbr_out(c, 1, LBR_I32, 1, one);
    return 0;
}

int lbr_infer_ssd_detections(lbr_call *c)
{
    const lbr_ssd_detections_attr *a = c->attr;
    const lbr_tensor *b = &c->in[0], *s = &c->in[1], *at = &c->in[2];
    if (b->ndim != 3 || b->dtype != LBR_F32 || b->shape[2] < 4 || b->shape[2] % 2) return lbr_fail(LBR_ESHAPE, "ssd_detections: boxes are %s, want f32 [B,N,4 + 2P]", lbr_describe(b));
    const int32_t B = b->shape[0], N = b->shape[1];
    if (s->dtype != LBR_F32 || !(s->ndim == 2 || (s->ndim == 3 && s->shape[2] == 1)) || s->shape[0] != B || s->shape[1] != N)
        return lbr_fail(LBR_ESHAPE, "ssd_detections: scores are %s, want f32 [%d,%d]", lbr_describe(s), B, N);
    if (at->dtype != LBR_F32 || at->ndim != 2 || at->shape[0] != N || at->shape[1] != 2)
        return lbr_fail(LBR_ESHAPE, "ssd_detections: anchors are %s, want f32 [%d,2]", lbr_describe(at), N);
    if (!(a->least > 0)) return lbr_fail(LBR_EINVAL, "ssd_detections: least score %g, want more than 0", a->least);
    if (a->size < 1 || a->most < 1) return lbr_fail(LBR_EINVAL, "ssd_detections: an input of %d pixels, at most %d, want 1 and more", a->size, a->most);
    if ((int64_t)B * a->most * (b->shape[2] + 1) > INT32_MAX) return lbr_fail(LBR_ESHAPE, "ssd_detections: room for %d of each picture of %s, want less than 2^31 numbers", a->most, lbr_describe(b));
    int32_t shape[3] = {B, a->most, b->shape[2] + 1};
    lbr_out(c, 0, LBR_F32, 3, shape);
    return 0;
}
