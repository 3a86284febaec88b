/* lstm_op.c: the ops lstm_forward and lstm_backward over lstm.h: tensors to pointers, odd strides made dense, f16 and bf16 widened and rounded. No arithmetic. */
#include "lstm.h"

#include "cpu.h"

#include <stdlib.h>

enum { TEMPORARIES = 17, BLOCK = 256 };

/* Dense copies that live as long as one call; outputs of a narrower type than the kernels' are made in one and rounded from it. */
typedef struct {
    const char *op;
    int dtype, count, rc; /* dtype: what the kernels take, f32 or f64 */
    void *memory[TEMPORARIES];
    int64_t bytes[TEMPORARIES];
    const lbr_tensor *rounded[TEMPORARIES]; /* the output that a copy stands for, or NULL */
} borrowed;

static void *borrow(borrowed *s, int64_t bytes)
{
    void *memory = lbr_alloc(bytes);
    if (!memory) {
        s->rc = lbr_fail(LBR_ENOMEM, "%s: out of memory, %lld bytes wanted", s->op, (long long)bytes);
        return NULL;
    }
    s->rounded[s->count] = NULL;
    s->memory[s->count] = memory, s->bytes[s->count++] = bytes;
    return memory;
}

/* dst (contiguous, of type `to`) = src by its strides; returns the end of what it wrote. */
static char *gather(char *dst, int to, const char *src, const lbr_tensor *t, int dim)
{
    int size = lbr_dtype_size(t->dtype), n = t->shape[dim];
    if (dim == t->ndim - 1) {
        if (to == LBR_F64) lbr_load_f64(t->dtype, src, t->stride[dim], n, (double *)dst);
        else lbr_load_f32(t->dtype, src, t->stride[dim], n, (float *)dst);
        return dst + (int64_t)n * lbr_dtype_size(to);
    }
    for (int32_t i = 0; i < n; i++) dst = gather(dst, to, src + (int64_t)i * t->stride[dim] * size, t, dim + 1);
    return dst;
}

/* Data of t when its type is the kernels' and its layout will do, else of a dense copy; NULL for an absent input or, with s->rc set, on failure. */
static const void *dense(borrowed *s, const lbr_tensor *t, bool layout_will_do, bool *copied)
{
    if (copied) *copied = false;
    if (!lbr_present(t) || s->rc) return NULL;
    if (t->dtype == s->dtype && (layout_will_do || lbr_tensor_contiguous(t))) return t->data;
    void *memory = borrow(s, lbr_tensor_numel(t) * lbr_dtype_size(s->dtype));
    if (!memory) return NULL;
    gather(memory, s->dtype, t->data, t, 0);
    if (copied) *copied = true;
    return memory;
}

/* f32 weights as products in `dtype` take them: rounded to it. */
static const void *weights(borrowed *s, const lbr_tensor *t, int dtype)
{
    if (dtype == s->dtype) return dense(s, t, false, NULL);
    float *w = s->rc ? NULL : borrow(s, lbr_tensor_numel(t) * (int64_t)sizeof(float));
    if (!w) return NULL;
    gather((char *)w, LBR_F32, t->data, t, 0);
    for (int64_t i = 0, n = lbr_tensor_numel(t); i < n; i += BLOCK) {
        uint16_t block[BLOCK];
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        lbr_store_f32(dtype, w + i, m, (char *)block, 1);
        lbr_load_f32(dtype, (const char *)block, 1, m, w + i);
    }
    return w;
}

/* A [B,T,n] input whose features may lie anywhere over b and t, but side by side; its strides over b and t. */
static const void *sequence(borrowed *s, const lbr_tensor *t, int64_t *over_b, int64_t *over_t)
{
    bool copied;
    const void *data = dense(s, t, t->stride[2] == 1 || t->shape[2] == 1, &copied);
    bool own = copied || (lbr_present(t) && lbr_tensor_contiguous(t));
    *over_t = own ? t->shape[2] : t->stride[1];
    *over_b = own ? (int64_t)t->shape[1] * t->shape[2] : t->stride[0];
    return data;
}

static void *output(borrowed *s, lbr_tensor *t, int i)
{
    if (!s->rc && !lbr_tensor_contiguous(t)) s->rc = lbr_fail(LBR_ESHAPE, "%s: output %d %s is not contiguous", s->op, i + 1, lbr_describe(t));
    if (t->dtype == s->dtype || s->rc) return t->data;
    void *memory = borrow(s, lbr_tensor_numel(t) * lbr_dtype_size(s->dtype));
    if (memory) s->rounded[s->count - 1] = t;
    return memory;
}

/* Ends a call: outputs that were made in a wider type are rounded, copies freed. */
static int end(borrowed *s)
{
    for (int i = 0; i < s->count; i++) {
        const lbr_tensor *t = s->rounded[i];
        if (t && !s->rc) lbr_store_f32(t->dtype, s->memory[i], lbr_tensor_numel(t), t->data, 1);
        lbr_free(s->memory[i], s->bytes[i]);
    }
    return s->rc;
}

static borrowed begin(const char *op, const lbr_tensor *x) { return (borrowed){.op = op, .dtype = x->dtype == LBR_F64 ? LBR_F64 : LBR_F32}; }

static void sizes(lbr_lstm *a, const lbr_tensor *x, const lbr_tensor *r)
{
    a->B = x->shape[0], a->T = x->shape[1], a->F = x->shape[2], a->H = r->shape[1];
}

/* Packed weights of a call, kept as long as its plan, and what they were packed from. */
typedef struct {
    lbr_lstm_packed packed;
    struct { uint64_t storage; uint32_t version; const char *data; } from[3];
} kept_weights;

static void forget(void *state)
{
    kept_weights *k = state;
    lbr_free(k->packed.memory, k->packed.bytes);
    free(k);
}

/* NULL: nothing to be kept. Weights that were written since are packed anew. */
static lbr_lstm_packed *keep_packed(lbr_call *c)
{
    for (int i = 0; i < 3; i++)
        if (!lbr_tensor_contiguous(&c->in[1 + i])) return NULL;
    kept_weights *k = c->state ? c->state : calloc(1, sizeof *k);
    if (!k) return NULL;
    c->state = k, c->state_free = forget;
    for (int i = 0; i < 3; i++) {
        const lbr_tensor *t = &c->in[1 + i];
        if (k->from[i].storage == t->storage->id && k->from[i].version == t->storage->version && k->from[i].data == t->data) continue;
        k->packed.valid = 0;
        k->from[i].storage = t->storage->id, k->from[i].version = t->storage->version, k->from[i].data = t->data;
    }
    return &k->packed;
}

static int forward(lbr_call *c, int (*run_f32)(const lbr_lstm *))
{
    const lbr_lstm_forward_attr *attr = c->attr;
    borrowed s = begin("lstm_forward", &c->in[0]);
    lbr_lstm a = {0};
    sizes(&a, &c->in[0], &c->in[2]);
    a.x = sequence(&s, &c->in[0], &a.xb, &a.xt);
    a.w = weights(&s, &c->in[1], c->in[0].dtype), a.r = weights(&s, &c->in[2], c->in[0].dtype);
    const void **in[] = {&a.b, &a.h0, &a.c0};
    for (int i = 0; i < 3; i++) *in[i] = dense(&s, &c->in[3 + i], false, NULL);
    void **out[] = {&a.y, &a.hn, &a.cn, &a.gates, &a.cells};
    for (int i = 0; i < (attr->save ? 5 : 3); i++) *out[i] = output(&s, &c->out[i], i);
    if (!s.rc && run_f32 == lbr_lstm_forward_f32 && s.dtype == LBR_F32) a.packed = keep_packed(c);
    if (!s.rc) s.rc = s.dtype == LBR_F32 ? run_f32(&a) : lbr_lstm_twin_forward_f64(&a);
    return end(&s);
}

static int backward(lbr_call *c, int (*run_f32)(const lbr_lstm *, const lbr_lstm_grad *))
{
    const lbr_lstm_backward_attr *attr = c->attr;
    borrowed s = begin("lstm_backward", &c->in[0]);
    lbr_lstm a = {0};
    lbr_lstm_grad g = {0};
    sizes(&a, &c->in[0], &c->in[2]);
    a.x = sequence(&s, &c->in[0], &a.xb, &a.xt);
    const void *y, *gates, *cells;
    a.w = weights(&s, &c->in[1], c->in[0].dtype), a.r = weights(&s, &c->in[2], c->in[0].dtype);
    const void **in[] = {&a.h0, &a.c0, &y, &gates, &cells};
    for (int i = 0; i < 5; i++) *in[i] = dense(&s, &c->in[3 + i], false, NULL);
    a.y = (void *)y, a.gates = (void *)gates, a.cells = (void *)cells;
    g.dy = sequence(&s, &c->in[8], &g.dyb, &g.dyt);
    g.dhn = dense(&s, &c->in[9], false, NULL);
    g.dcn = dense(&s, &c->in[10], false, NULL);
    void **out[] = {&g.dx, &g.dw, &g.dr, &g.db, &g.dh0, &g.dc0};
    for (int i = attr->need_dx ? 0 : 1; i < 6; i++) *out[i] = output(&s, &c->out[i], i);
    if (!s.rc) s.rc = s.dtype == LBR_F32 ? run_f32(&a, &g) : lbr_lstm_twin_backward_f64(&a, &g);
    return end(&s);
}

int lbr_cpu_lstm_forward(lbr_call *c) { return forward(c, lbr_lstm_forward_f32); }
int lbr_cpu_lstm_backward(lbr_call *c) { return backward(c, lbr_lstm_backward_f32); }
int lbr_reference_lstm_forward(lbr_call *c) { return forward(c, lbr_lstm_twin_forward_f32); }
int lbr_reference_lstm_backward(lbr_call *c) { return backward(c, lbr_lstm_twin_backward_f32); }
