/* onednn.c: the only file that knows oneDNN: matmul, linear, convolutions. f64 goes to the slow twins. API 2.x (Debian 12) and 3.x. */
#include "convolve.h"
#include "cpu.h"
#include "reference/reference.h"

#include <dnnl.h>
#include <stdlib.h>

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t descriptor;
typedef const_dnnl_memory_desc_t descriptor_ref;
#define REF(d) (d)
#else
typedef dnnl_memory_desc_t descriptor;
typedef const dnnl_memory_desc_t *descriptor_ref;
#define REF(d) (&(d))
#endif

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static int start(void)
{
    int rc = lbr_use_shared("oneDNN");
    if (rc || stream) return rc;
    lbr_threads();
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success || dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success)
        return lbr_fail(LBR_EDEVICE, "oneDNN: no CPU engine");
    return 0;
}

static dnnl_data_type_t type_of(int dtype) { return dtype == LBR_BF16 ? dnnl_bf16 : dtype == LBR_F16 ? dnnl_f16 : dnnl_f32; }

static int check(dnnl_status_t status, const lbr_call *c, const char *what)
{
    if (status == dnnl_success) return 0;
    if (status == dnnl_out_of_memory) return lbr_fail(LBR_ENOMEM, "%s: out of memory in oneDNN (%s)", lbr_op_name(c->op), what);
    return lbr_fail(LBR_EUNSUPPORTED, "%s: oneDNN cannot do %s on this processor (%s, status %d)", lbr_op_name(c->op), lbr_describe(&c->out[0]), what, (int)status);
}

/* ---- descriptors ---- */

static dnnl_status_t describe(descriptor *d, int n, const dnnl_dims_t dims, dnnl_data_type_t type, const dnnl_dims_t strides)
{
#if DNNL_VERSION_MAJOR >= 3
    return strides ? dnnl_memory_desc_create_with_strides(d, n, dims, type, strides) : dnnl_memory_desc_create_with_tag(d, n, dims, type, dnnl_format_tag_any);
#else
    return strides ? dnnl_memory_desc_init_by_strides(d, n, dims, type, strides) : dnnl_memory_desc_init_by_tag(d, n, dims, type, dnnl_format_tag_any);
#endif
}

static void forget(descriptor *d)
{
#if DNNL_VERSION_MAJOR >= 3
    if (*d) dnnl_memory_desc_destroy(*d);
    *d = NULL;
#else
    (void)d;
#endif
}

/* [B,H,W,C] tensor as oneDNN's logical NCHW with channels-last strides. */
static dnnl_status_t describe_image(descriptor *d, const int32_t *shape, dnnl_data_type_t type)
{
    dnnl_dims_t dims = {shape[0], shape[3], shape[1], shape[2]};
    dnnl_dims_t strides = {(dnnl_dim_t)shape[1] * shape[2] * shape[3], 1, (dnnl_dim_t)shape[2] * shape[3], shape[3]};
    return describe(d, 4, dims, type, strides);
}

/* ---- a cache of prepared convolutions: shapes decide, packed weights hang below ---- */

enum direction { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT };
/* How a residual gets in: a second operand of the kernel, or copied to where the result goes and added to by the kernel. */
enum residual { NONE, ADDED, SUMMED };

struct geometry {
    int32_t direction, dtype, groups, act, has_bias, has_residual, threads;
    int32_t x[4], y[4], kernel[2], stride[2], pad[4], dilation[2];
    int32_t depthwise;
};

struct prepared {
    struct geometry key;
    dnnl_primitive_t primitive;
    dnnl_memory_t src, dst, weights, plain, bias, residual, slope;
    dnnl_primitive_t pack;      /* plain -> packed weights, or packed gradient -> plain; NULL when the layouts agree */
    uint64_t used;
    struct packed { uint64_t id; const char *data; uint32_t version; dnnl_memory_t memory; uint64_t used; } packed[8];
    struct prepared *next;
};

enum { BUCKETS = 64, MOST = 512 };
static struct prepared *buckets[BUCKETS];
static int count;
static uint64_t tick;

static void destroy_memory(dnnl_memory_t *m)
{
    if (*m) dnnl_memory_destroy(*m);
    *m = NULL;
}

static void destroy(struct prepared *p)
{
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->pack) dnnl_primitive_destroy(p->pack);
    destroy_memory(&p->src), destroy_memory(&p->dst), destroy_memory(&p->weights), destroy_memory(&p->plain);
    destroy_memory(&p->bias), destroy_memory(&p->residual), destroy_memory(&p->slope);
    for (int i = 0; i < 8; i++) destroy_memory(&p->packed[i].memory);
    free(p);
}

static void evict(void)
{
    struct prepared **oldest = NULL;
    for (int b = 0; b < BUCKETS; b++)
        for (struct prepared **p = &buckets[b]; *p; p = &(*p)->next)
            if (!oldest || (*p)->used < (*oldest)->used) oldest = p;
    struct prepared *gone = *oldest;
    *oldest = gone->next;
    destroy(gone);
    count--;
}

static dnnl_status_t weight_descriptors(const struct geometry *k, dnnl_data_type_t type, descriptor *plain, descriptor *any)
{
    dnnl_dim_t O = k->y[3] / k->groups, I = k->x[3] / k->groups, KH = k->kernel[0], KW = k->kernel[1];
    dnnl_dims_t grouped = {k->groups, O, I, KH, KW}, dims = {O, I, KH, KW}, strides = {KH * KW * I, 1, KW * I, I};
    dnnl_dims_t grouped_strides = {O * KH * KW * I, KH * KW * I, 1, KW * I, I}, depthwise_strides = {1, 1, 1, KW * k->groups, k->groups};
    bool many = k->groups > 1;
    dnnl_status_t s = describe(plain, many ? 5 : 4, many ? grouped : dims, type, !many ? strides : k->depthwise ? depthwise_strides : grouped_strides);
    if (s != dnnl_success) return s;
    return describe(any, many ? 5 : 4, many ? grouped : dims, type, NULL);
}

/* Activations as oneDNN's elementwise steps, one after another (hard_sigmoid by itself came with 2.7). */
static const struct step { dnnl_alg_kind_t kind; float alpha, beta; } steps[LBR_ACTS][2] = {
    [LBR_ACT_RELU] = {{dnnl_eltwise_relu, 0, 0}},
    [LBR_ACT_RELU6] = {{dnnl_eltwise_clip, 0, 6}},
    [LBR_ACT_SILU] = {{dnnl_eltwise_swish, 1, 0}},
    [LBR_ACT_HARD_SWISH] = {{dnnl_eltwise_hardswish, 1 / 6.0f, 0.5f}},
    [LBR_ACT_SIGMOID] = {{dnnl_eltwise_logistic, 0, 0}},
    [LBR_ACT_HARD_SIGMOID] = {{dnnl_eltwise_linear, 1 / 6.0f, 0.5f}, {dnnl_eltwise_clip, 0, 1}},
    [LBR_ACT_TANH] = {{dnnl_eltwise_tanh, 0, 0}},
    [LBR_ACT_GELU] = {{dnnl_eltwise_gelu_erf, 0, 0}},
    [LBR_ACT_MISH] = {{dnnl_eltwise_mish, 0, 0}},
};

static dnnl_status_t attributes(const struct geometry *k, descriptor_ref y, dnnl_primitive_attr_t *attr)
{
    dnnl_post_ops_t post;
    dnnl_status_t s = dnnl_primitive_attr_create(attr);
    if (s == dnnl_success) s = dnnl_post_ops_create(&post);
    if (s != dnnl_success) return s;
#if DNNL_VERSION_MAJOR >= 3
    if (k->has_residual == SUMMED) s = dnnl_post_ops_append_sum(post, 1, 0, dnnl_data_type_undef);
#else
    if (k->has_residual == SUMMED) s = dnnl_post_ops_append_sum(post, 1);
#endif
    if (k->has_residual == ADDED) s = dnnl_post_ops_append_binary(post, dnnl_binary_add, y);
    const struct step *a = steps[k->act];
    for (int i = 0; i < 2 && a[i].kind && s == dnnl_success; i++)
#if DNNL_VERSION_MAJOR >= 3
        s = dnnl_post_ops_append_eltwise(post, a[i].kind, a[i].alpha, a[i].beta);
#else
        s = dnnl_post_ops_append_eltwise(post, 1, a[i].kind, a[i].alpha, a[i].beta);
#endif
    if (k->act == LBR_ACT_PRELU && s == dnnl_success) s = dnnl_post_ops_append_prelu(post, 1 << 1);
    if (s == dnnl_success) s = dnnl_primitive_attr_set_post_ops(*attr, post);
    dnnl_post_ops_destroy(post);
    return s;
}

static dnnl_status_t convolution(const struct geometry *k, descriptor x, descriptor w, descriptor b, descriptor y, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *pd)
{
    dnnl_dims_t stride = {k->stride[0], k->stride[1]}, dilation = {k->dilation[0] - 1, k->dilation[1] - 1};
    dnnl_dims_t before = {k->pad[0], k->pad[2]}, after = {k->pad[1], k->pad[3]};
    dnnl_primitive_desc_t forward = NULL;
    dnnl_status_t s;
    /* oneDNN wants the padding that the output size implies; a larger one at the end is never read */
    for (int i = 0; i < 2; i++) after[i] = (dnnl_dim_t)(k->y[1 + i] - 1) * k->stride[i] + (k->kernel[i] - 1) * k->dilation[i] + 1 - k->x[1 + i] - before[i];
#if DNNL_VERSION_MAJOR >= 3
    s = dnnl_convolution_forward_primitive_desc_create(k->direction == FORWARD ? pd : &forward, engine, k->direction == FORWARD ? dnnl_forward_inference : dnnl_forward_training,
                                                       dnnl_convolution_direct, x, w, k->has_bias ? b : NULL, y, stride, dilation, before, after, attr);
    if (k->direction == FORWARD || s != dnnl_success) return s;
    if (k->direction == BACKWARD_INPUT)
        s = dnnl_convolution_backward_data_primitive_desc_create(pd, engine, dnnl_convolution_direct, x, w, y, stride, dilation, before, after, forward, NULL);
    else
        s = dnnl_convolution_backward_weights_primitive_desc_create(pd, engine, dnnl_convolution_direct, x, w, NULL, y, stride, dilation, before, after, forward, NULL);
#else
    dnnl_convolution_desc_t d;
    s = dnnl_dilated_convolution_forward_desc_init(&d, k->direction == FORWARD ? dnnl_forward_inference : dnnl_forward_training, dnnl_convolution_direct, &x, &w, k->has_bias ? &b : NULL, &y,
                                                   stride, dilation, before, after);
    if (s == dnnl_success) s = dnnl_primitive_desc_create(k->direction == FORWARD ? pd : &forward, &d, attr, engine, NULL);
    if (k->direction == FORWARD || s != dnnl_success) return s;
    if (k->direction == BACKWARD_INPUT) s = dnnl_dilated_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &x, &w, &y, stride, dilation, before, after);
    else s = dnnl_dilated_convolution_backward_weights_desc_init(&d, dnnl_convolution_direct, &x, &w, NULL, &y, stride, dilation, before, after);
    if (s == dnnl_success) s = dnnl_primitive_desc_create(pd, &d, NULL, engine, forward);
#endif
    dnnl_primitive_desc_destroy(forward);
    return s;
}

static descriptor_ref query(const_dnnl_primitive_desc_t pd, dnnl_query_t what) { return dnnl_primitive_desc_query_md(pd, what, 0); }

static int build(const lbr_call *c, struct prepared *p)
{
    const struct geometry *k = &p->key;
    descriptor x = {0}, w = {0}, any = {0}, b = {0}, y = {0}, slope = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL, reorder = NULL;
    dnnl_data_type_t type = type_of(k->dtype);
    dnnl_dims_t row = {k->y[3]}, one = {1}, slope_dims = {1, k->y[3], 1, 1}, slope_strides = {k->y[3], 1, 1, 1};
    const char *what = "descriptors";
    dnnl_status_t s = describe_image(&x, k->x, type);
    if (s == dnnl_success) s = describe_image(&y, k->y, type);
    if (s == dnnl_success) s = weight_descriptors(k, type, &w, &any);
    if (s == dnnl_success) s = describe(&b, 1, row, dnnl_f32, one);
    if (s == dnnl_success) s = describe(&slope, 4, slope_dims, dnnl_f32, slope_strides);
    if (s == dnnl_success) s = attributes(k, REF(y), &attr);
    if (s == dnnl_success) {
        what = "convolution";
        s = convolution(k, x, any, b, y, attr, &pd);
    }
    if (s == dnnl_success) s = dnnl_primitive_create(&p->primitive, pd);
    if (s == dnnl_success) s = dnnl_memory_create(&p->src, REF(x), engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success) s = dnnl_memory_create(&p->dst, REF(y), engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success) s = dnnl_memory_create(&p->plain, REF(w), engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success && k->has_bias) s = dnnl_memory_create(&p->bias, REF(b), engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success && k->has_residual == ADDED) s = dnnl_memory_create(&p->residual, REF(y), engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success && k->act == LBR_ACT_PRELU) s = dnnl_memory_create(&p->slope, REF(slope), engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success) {
        descriptor_ref packed = query(pd, k->direction == BACKWARD_WEIGHT ? dnnl_query_diff_weights_md : dnnl_query_weights_md);
        what = "weight layout";
        if (!dnnl_memory_desc_equal(packed, REF(w))) {
            if (k->direction == BACKWARD_WEIGHT) s = dnnl_reorder_primitive_desc_create(&reorder, packed, engine, REF(w), engine, NULL);
            else s = dnnl_reorder_primitive_desc_create(&reorder, REF(w), engine, packed, engine, NULL);
            if (s == dnnl_success) s = dnnl_primitive_create(&p->pack, reorder);
            if (s == dnnl_success) s = dnnl_memory_create(&p->weights, packed, engine, k->direction == BACKWARD_WEIGHT ? DNNL_MEMORY_ALLOCATE : DNNL_MEMORY_NONE);
        }
    }
    if (reorder) dnnl_primitive_desc_destroy(reorder);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    forget(&x), forget(&w), forget(&any), forget(&b), forget(&y), forget(&slope);
    return check(s, c, what);
}

static int prepare(const lbr_call *c, struct geometry *k, struct prepared **out)
{
    int rc = start();
    if (rc) return rc;
    k->threads = lbr_threads();
    struct prepared **head = &buckets[lbr_hash(k, sizeof *k, 0) % BUCKETS];
    for (struct prepared *p = *head; p; p = p->next)
        if (!memcmp(&p->key, k, sizeof *k)) {
            p->used = ++tick;
            *out = p;
            return 0;
        }
    while (count >= MOST) evict();
    struct prepared *p = calloc(1, sizeof *p);
    if (!p) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    p->key = *k;
    if ((rc = build(c, p))) {
        destroy(p);
        return rc;
    }
    p->used = ++tick;
    p->next = *head;
    *head = p;
    count++;
    *out = p;
    return 0;
}

/* Weights in the primitive's layout: packed again only when they were written since. */
static int pack_weights(const lbr_call *c, struct prepared *p, const lbr_tensor *w, dnnl_memory_t *out)
{
    dnnl_memory_set_data_handle(p->plain, w->data);
    if (!p->pack) {
        *out = p->plain;
        return 0;
    }
    struct packed *slot = &p->packed[0];
    for (int i = 0; i < 8; i++) {
        struct packed *s = &p->packed[i];
        if (s->memory && s->id == w->storage->id && s->data == w->data) {
            slot = s;
            break;
        }
        if (s->used < slot->used) slot = s;
    }
    slot->used = ++tick;
    *out = slot->memory;
    if (slot->memory && slot->id == w->storage->id && slot->data == w->data && slot->version == w->storage->version) return 0;
    dnnl_status_t s = dnnl_success;
    if (!slot->memory) {
#if DNNL_VERSION_MAJOR >= 3
        const_dnnl_memory_desc_t d;
#else
        const dnnl_memory_desc_t *d;
#endif
        s = dnnl_memory_get_memory_desc(p->weights, &d);
        if (s == dnnl_success) s = dnnl_memory_create(&slot->memory, d, engine, DNNL_MEMORY_ALLOCATE);
    }
    if (s == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, p->plain}, {DNNL_ARG_TO, slot->memory}};
        s = dnnl_primitive_execute(p->pack, stream, 2, args);
    }
    if (s == dnnl_success) s = dnnl_stream_wait(stream);
    slot->id = s == dnnl_success ? w->storage->id : 0, slot->data = w->data, slot->version = w->storage->version;
    *out = slot->memory;
    return check(s, c, "packing of weights");
}

struct twins { char *to; const char *from; };

static void duplicate(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct twins *t = ctx;
    memcpy(t->to + begin, t->from + begin, (size_t)(end - begin));
}

static int forward(lbr_call *c, struct geometry *k)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *b = &c->in[2], *residual = &c->in[3], *slope = &c->in[4];
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    if ((lbr_present(b) && b->dtype != LBR_F32) || (lbr_present(slope) && slope->dtype != LBR_F32)) return lbr_fail(LBR_EDTYPE, "%s: b is %s, slope %s, want f32", lbr_op_name(c->op), lbr_describe(b), lbr_describe(slope));
    k->direction = FORWARD, k->dtype = x->dtype, k->has_bias = lbr_present(b);
    /* the sum is 1.1 to 1.5 times as fast, except where half a vector of channels is left over */
    bool sum = !k->depthwise && (c->out[0].shape[3] < 16 || c->out[0].shape[3] % 16 == 0);
    k->has_residual = !lbr_present(residual) ? NONE : sum ? SUMMED : ADDED;
    memcpy(k->x, x->shape, sizeof k->x);
    memcpy(k->y, c->out[0].shape, sizeof k->y);
    struct prepared *p;
    dnnl_memory_t weights;
    int rc = prepare(c, k, &p);
    if (rc || (rc = pack_weights(c, p, w, &weights))) return rc;
    dnnl_exec_arg_t args[6];
    int n = 0, post = k->has_residual == SUMMED;
    if (k->has_residual == SUMMED && residual->data != c->out[0].data) {
        struct twins t = {c->out[0].data, residual->data};
        lbr_parallel(lbr_tensor_numel(residual) * lbr_dtype_size(residual->dtype), 1 << 18, duplicate, &t);
    }
    dnnl_memory_set_data_handle(p->src, x->data);
    dnnl_memory_set_data_handle(p->dst, c->out[0].data);
    args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SRC, p->src};
    args[n++] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, weights};
    args[n++] = (dnnl_exec_arg_t){DNNL_ARG_DST, p->dst};
    if (p->bias) {
        dnnl_memory_set_data_handle(p->bias, b->data);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, p->bias};
    }
    if (p->residual) {
        dnnl_memory_set_data_handle(p->residual, residual->data);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_ATTR_MULTIPLE_POST_OP(post++) | DNNL_ARG_SRC_1, p->residual};
    }
    if (p->slope) {
        dnnl_memory_set_data_handle(p->slope, slope->data);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_ATTR_MULTIPLE_POST_OP(post) | DNNL_ARG_WEIGHTS, p->slope};
    }
    dnnl_status_t s = dnnl_primitive_execute(p->primitive, stream, n, args);
    if (s == dnnl_success) s = dnnl_stream_wait(stream);
    return check(s, c, "execution");
}

#define GEOMETRY(k, a, kh, kw) \
    struct geometry k; \
    memset(&k, 0, sizeof k); \
    k.kernel[0] = kh, k.kernel[1] = kw; \
    memcpy(k.stride, a->stride, sizeof k.stride); \
    memcpy(k.pad, a->pad, sizeof k.pad); \
    memcpy(k.dilation, a->dilation, sizeof k.dilation);

/* oneDNN leaves outputs alone where an input holds nothing, and refuses some sizes (padding past the kernel): the slow twins do those. */
static bool empty(const lbr_call *c) { return !lbr_tensor_numel(&c->in[0]) || !lbr_tensor_numel(&c->in[1]); }
/* Windows that lie in the padding altogether: oneDNN 2.6 forgets their residual. */
static bool beyond(const struct geometry *k)
{
    for (int i = 0; i < 2; i++)
        for (int side = 0; side < 2; side++)
            if (k->pad[2 * i + side] > (int64_t)(k->kernel[i] - 1) * k->dilation[i]) return true;
    return false;
}
static int else_twin(int rc, lbr_call *c, lbr_kernel_fn twin) { return rc == LBR_EUNSUPPORTED && c->in[0].dtype == LBR_F32 ? twin(c) : rc; }

int lbr_cpu_conv2d(lbr_call *c)
{
    const lbr_conv2d_attr *a = c->attr;
    if (c->in[0].dtype == LBR_F64 || empty(c)) return lbr_reference_conv2d(c);
    if (c->in[0].dtype == LBR_F16) return lbr_widened(c, lbr_cpu_conv2d);
    int served = 0, rc = a->loose ? lbr_winograd(c, &served) : 0;
    if (!rc && !served) rc = lbr_convolve(c, &served);
    if (rc || served) return rc;
    GEOMETRY(k, a, c->in[1].shape[1], c->in[1].shape[2])
    k.groups = a->groups, k.act = a->act;
    return beyond(&k) ? lbr_reference_conv2d(c) : else_twin(forward(c, &k), c, lbr_reference_conv2d);
}

int lbr_cpu_depthwise(lbr_call *c)
{
    const lbr_depthwise_attr *a = c->attr;
    if (c->in[0].dtype == LBR_F64 || c->in[0].shape[3] == 1 || empty(c)) return lbr_reference_depthwise(c);
    if (c->in[0].dtype == LBR_F16) return lbr_widened(c, lbr_cpu_depthwise);
    int served, rc = lbr_convolve_depthwise(c, &served);
    if (rc || served) return rc;
    GEOMETRY(k, a, c->in[1].shape[0], c->in[1].shape[1])
    k.groups = c->in[0].shape[3], k.act = a->act, k.depthwise = 1;
    return beyond(&k) ? lbr_reference_depthwise(c) : else_twin(forward(c, &k), c, lbr_reference_depthwise);
}

static int backward_input(lbr_call *c, struct geometry *k)
{
    struct prepared *p;
    dnnl_memory_t weights;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    k->direction = BACKWARD_INPUT, k->dtype = c->in[0].dtype;
    memcpy(k->x, c->out[0].shape, sizeof k->x);
    memcpy(k->y, c->in[0].shape, sizeof k->y);
    int rc = prepare(c, k, &p);
    if (rc || (rc = pack_weights(c, p, &c->in[1], &weights))) return rc;
    dnnl_memory_set_data_handle(p->dst, c->in[0].data);
    dnnl_memory_set_data_handle(p->src, c->out[0].data);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_DIFF_DST, p->dst}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DIFF_SRC, p->src}};
    dnnl_status_t s = dnnl_primitive_execute(p->primitive, stream, 3, args);
    if (s == dnnl_success) s = dnnl_stream_wait(stream);
    return check(s, c, "execution");
}

static int backward_weight(lbr_call *c, struct geometry *k)
{
    struct prepared *p;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    k->direction = BACKWARD_WEIGHT, k->dtype = c->in[0].dtype;
    memcpy(k->x, c->in[1].shape, sizeof k->x);
    memcpy(k->y, c->in[0].shape, sizeof k->y);
    int rc = prepare(c, k, &p);
    if (rc) return rc;
    dnnl_memory_set_data_handle(p->dst, c->in[0].data);
    dnnl_memory_set_data_handle(p->src, c->in[1].data);
    dnnl_memory_set_data_handle(p->plain, c->out[0].data);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_DIFF_DST, p->dst}, {DNNL_ARG_SRC, p->src}, {DNNL_ARG_DIFF_WEIGHTS, p->pack ? p->weights : p->plain}};
    dnnl_status_t s = dnnl_primitive_execute(p->primitive, stream, 3, args);
    if (s == dnnl_success && p->pack) {
        dnnl_exec_arg_t move[] = {{DNNL_ARG_FROM, p->weights}, {DNNL_ARG_TO, p->plain}};
        s = dnnl_primitive_execute(p->pack, stream, 2, move);
    }
    if (s == dnnl_success) s = dnnl_stream_wait(stream);
    return check(s, c, "execution");
}

int lbr_cpu_conv2d_backward_input(lbr_call *c)
{
    const lbr_conv2d_backward_input_attr *a = c->attr;
    if (c->in[0].dtype == LBR_F64 || empty(c)) return lbr_reference_conv2d_backward_input(c);
    GEOMETRY(k, a, c->in[1].shape[1], c->in[1].shape[2])
    k.groups = a->groups;
    return else_twin(backward_input(c, &k), c, lbr_reference_conv2d_backward_input);
}

int lbr_cpu_conv2d_backward_weight(lbr_call *c)
{
    const lbr_conv2d_backward_weight_attr *a = c->attr;
    if (c->in[0].dtype == LBR_F64 || empty(c)) return lbr_reference_conv2d_backward_weight(c);
    GEOMETRY(k, a, a->kernel[0], a->kernel[1])
    k.groups = a->groups;
    return else_twin(backward_weight(c, &k), c, lbr_reference_conv2d_backward_weight);
}

int lbr_cpu_depthwise_backward_input(lbr_call *c)
{
    const lbr_depthwise_backward_input_attr *a = c->attr;
    if (c->in[0].dtype == LBR_F64 || c->in[0].shape[3] == 1 || empty(c)) return lbr_reference_depthwise_backward_input(c);
    GEOMETRY(k, a, c->in[1].shape[0], c->in[1].shape[1])
    k.groups = c->in[0].shape[3], k.depthwise = 1;
    return else_twin(backward_input(c, &k), c, lbr_reference_depthwise_backward_input);
}

int lbr_cpu_depthwise_backward_weight(lbr_call *c)
{
    const lbr_depthwise_backward_weight_attr *a = c->attr;
    if (c->in[0].dtype == LBR_F64 || c->in[0].shape[3] == 1 || empty(c)) return lbr_reference_depthwise_backward_weight(c);
    GEOMETRY(k, a, a->kernel[0], a->kernel[1])
    k.groups = c->in[0].shape[3], k.depthwise = 1;
    return else_twin(backward_weight(c, &k), c, lbr_reference_depthwise_backward_weight);
}

/* ---- matmul ---- */

static int gemm(const lbr_call *c, int ta, int tb, int64_t m, int64_t n, int64_t k, const char *a, const char *b, char *y)
{
    if (!lbr_gemm_small(ta, tb, m, n, k, (const float *)a, (const float *)b, (float *)y)) return 0;
    int rc = start();
    if (rc) return rc;
    dnnl_status_t s = dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.0f, (const float *)a, ta ? m : k, (const float *)b, tb ? k : n, 0.0f, (float *)y, n);
    return check(s, c, "sgemm");
}

/* bf16 product of two matrices, accumulated in f32. */
static int gemm_bf16(const lbr_call *c, int ta, int tb, int64_t m, int64_t n, int64_t k, const char *a, const char *b, char *y)
{
    int rc = start();
    if (rc) return rc;
    descriptor da = {0}, db = {0}, dy = {0};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t ma = NULL, mb = NULL, my = NULL;
    dnnl_dims_t dims_a = {m, k}, dims_b = {k, n}, dims_y = {m, n}, sa = {ta ? 1 : k, ta ? m : 1}, sb = {tb ? 1 : n, tb ? k : 1}, sy = {n, 1};
    dnnl_status_t s = describe(&da, 2, dims_a, dnnl_bf16, sa);
    if (s == dnnl_success) s = describe(&db, 2, dims_b, dnnl_bf16, sb);
    if (s == dnnl_success) s = describe(&dy, 2, dims_y, dnnl_bf16, sy);
#if DNNL_VERSION_MAJOR >= 3
    if (s == dnnl_success) s = dnnl_matmul_primitive_desc_create(&pd, engine, da, db, NULL, dy, NULL);
#else
    dnnl_matmul_desc_t d;
    if (s == dnnl_success) s = dnnl_matmul_desc_init(&d, &da, &db, NULL, &dy);
    if (s == dnnl_success) s = dnnl_primitive_desc_create(&pd, &d, NULL, engine, NULL);
#endif
    if (s == dnnl_success) s = dnnl_primitive_create(&primitive, pd);
    if (s == dnnl_success) s = dnnl_memory_create(&ma, REF(da), engine, (void *)a);
    if (s == dnnl_success) s = dnnl_memory_create(&mb, REF(db), engine, (void *)b);
    if (s == dnnl_success) s = dnnl_memory_create(&my, REF(dy), engine, y);
    if (s == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, ma}, {DNNL_ARG_WEIGHTS, mb}, {DNNL_ARG_DST, my}};
        s = dnnl_primitive_execute(primitive, stream, 3, args);
    }
    if (s == dnnl_success) s = dnnl_stream_wait(stream);
    destroy_memory(&ma), destroy_memory(&mb), destroy_memory(&my);
    if (primitive) dnnl_primitive_destroy(primitive);
    if (pd) dnnl_primitive_desc_destroy(pd);
    forget(&da), forget(&db), forget(&dy);
    return check(s, c, "matmul");
}

int lbr_cpu_matmul(lbr_call *c)
{
    const lbr_matmul_attr *attr = c->attr;
    const lbr_tensor *a = &c->in[0], *b = &c->in[1], *y = &c->out[0];
    if (a->dtype == LBR_F64) return lbr_reference_matmul(c);
    if (a->dtype == LBR_I32) return lbr_matmul_whole(c);
    if (a->dtype == LBR_F16) return lbr_widened(c, lbr_cpu_matmul);
    int64_t m = y->shape[y->ndim - 2], n = y->shape[y->ndim - 1], k = a->shape[a->ndim - 1 - (attr->ta != 0)], batch = 1;
    if (!lbr_tensor_numel(y)) return 0;
    if (!k) {
        memset(y->data, 0, (size_t)(lbr_tensor_numel(y) * lbr_dtype_size(y->dtype)));
        return 0;
    }
    for (int i = 0; i < y->ndim - 2; i++) batch *= y->shape[i];
    bool shared = b->ndim == 2;
    if (shared && !attr->ta) m *= batch, batch = 1;
    int64_t size = lbr_dtype_size(a->dtype);
    for (int64_t i = 0; i < batch; i++) {
        int rc = (a->dtype == LBR_BF16 ? gemm_bf16 : gemm)(c, attr->ta != 0, attr->tb != 0, m, n, k, a->data + i * m * k * size, b->data + (shared ? 0 : i * k * n * size), y->data + i * m * n * size);
        if (rc) return rc;
    }
    return 0;
}

struct rows { float *y; const float *b; int64_t n; int act; };

LBR_CLONES static void add_bias(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct rows *r = ctx;
    for (int64_t i = begin; i < end; i++) {
        float *y = r->y + i * r->n;
        if (r->b) for (int64_t k = 0; k < r->n; k++) y[k] += r->b[k];
        lbr_activate(r->act, y, r->n);
    }
}

int lbr_cpu_linear(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    int act = ((const lbr_linear_attr *)c->attr)->act;
    if (x->dtype == LBR_F64) return lbr_reference_linear(c);
    if (x->dtype != LBR_F32) return lbr_widened(c, lbr_cpu_linear);
    int64_t k = w->shape[1], n = w->shape[0], m = n ? lbr_tensor_numel(&c->out[0]) / n : 0;
    if (!m) return 0;
    if (!k) memset(c->out[0].data, 0, (size_t)(m * n) * 4);
    else {
        int rc = gemm(c, 0, 1, m, n, k, x->data, w->data, c->out[0].data);
        if (rc) return rc;
    }
    struct rows r = {(float *)c->out[0].data, lbr_present(b) ? (const float *)b->data : NULL, n, act};
    if (r.b || act) lbr_parallel(m, 1 + 16384 / n, add_bias, &r);
    return 0;
}
