/* dispatch.c: the typed doors and the one corridor behind them: check, infer, allocate, run, record. */
#include "device.h"

#include <math.h>
#include <stdio.h>

/* ---- rows as data ---- */

#define IN(name) #name " "
#define OPT(name) #name "? "
#define OUT(name) #name " "
#define ATTR(type, name) #type " " #name ";"
#define ATTRS(type, name, n) #type " " #name "[" #n "];"
#define LBR_OP(name, ins, outs, attrs, flags) {#name, "" ins, "" outs, "" attrs, sizeof(lbr_##name##_attr)},
static const lbr_op_row rows[LBR_OPS] = {
#include "ops.def"
};
#undef LBR_OP
#undef IN
#undef OPT
#undef OUT
#undef ATTR
#undef ATTRS

#define LBR_OP(name, ins, outs, attrs, flags) flags,
static const int row_flags[LBR_OPS] = {
#include "ops.def"
};
#undef LBR_OP

/* One bit an input: 1 = it may be absent. */
#define IN(name) "0"
#define OPT(name) "1"
#define LBR_OP(name, ins, outs, attrs, flags) "" ins,
static const char *const row_optional[LBR_OPS] = {
#include "ops.def"
};
#undef LBR_OP
#undef IN
#undef OPT

const lbr_op_row *lbr_op_info(int i) { return i >= 0 && i < LBR_OPS ? &rows[i] : NULL; }
const char *lbr_op_name(int op) { return rows[op].name; }
int lbr_op_flags(int op) { return row_flags[op]; }
int lbr_op_attr_bytes(int op) { return rows[op].attribute_bytes; }

/* ---- the doors: tools/doors.awk writes one function a row from ops.def ---- */

#include "doors.inc"

/* ---- NaN tracing ---- */

static int trace_nan;
void lbr_debug_nan(int on) { trace_nan = on; }

bool lbr_tracing(void) { return trace_nan; }

static bool nan_among(const char *data, int dtype, int64_t n)
{
    if (dtype == LBR_F32) {
        const float *p = (const float *)data;
        for (int64_t i = 0; i < n; i++)
            if (isnan(p[i])) return true;
    } else if (dtype == LBR_F64) {
        const double *p = (const double *)data;
        for (int64_t i = 0; i < n; i++)
            if (isnan(p[i])) return true;
    }
    return false;
}

static bool has_nan(const lbr_tensor *t)
{
    if (!t->storage || !lbr_tensor_contiguous(t) || t->dtype > LBR_F64) return false;
    int64_t n = lbr_tensor_numel(t);
    if (t->device == LBR_CPU) return nan_among(t->data, t->dtype, n);
    lbr_tensor here;
    bool found = false;
    if (lbr_tensor_new(&here, t->dtype, t->ndim, t->shape, LBR_CPU)) return false;
    if (!lbr_transfer(t, &here)) found = nan_among(here.data, t->dtype, n);
    lbr_tensor_release(&here);
    return found;
}

/* ---- shapes without numbers ---- */

static int dry;
int lbr_dry_run(int on)
{
    int before = dry;
    dry = on;
    return before;
}

/* ---- the corridor ---- */

void lbr_call_wrote(const lbr_call *c)
{
    for (int i = 0; i < c->nout; i++)
        if (c->out[i].storage) c->out[i].storage->version++;
    if (c->op == LBR_OP_batch_norm && ((const lbr_batch_norm_attr *)c->attr)->training) { /* running statistics */
        c->in[3].storage->version++;
        c->in[4].storage->version++;
    }
}

int lbr_call_run(lbr_call *c)
{
    bool before = false;
    if (trace_nan)
        for (int i = 0; i < c->nin; i++) before |= has_nan(&c->in[i]);
    const lbr_backend *b = lbr_backend_of(c->device);
    if (b && !b->kernels[c->op]) return lbr_fail(LBR_EUNSUPPORTED, "%s has no kernel for %s", rows[c->op].name, lbr_device_label(c->device));
    int rc = b ? b->kernels[c->op](c) : lbr_cpu_table[c->op](c);
    if (!rc && b) rc = b->check(lbr_device_number(c->device), rows[c->op].name);
    if (rc) return rc;
    lbr_call_wrote(c);
    if (trace_nan && !before)
        for (int i = 0; i < c->nout; i++)
            if (has_nan(&c->out[i]))
                return lbr_fail(LBR_EINVAL, "%s: made the first NaN: output %d %s from %s", rows[c->op].name, i + 1, lbr_describe(&c->out[i]), c->nin ? lbr_describe(&c->in[0]) : "nothing");
    return 0;
}

static int dense_copy(int op, const lbr_tensor *t, lbr_tensor *dense)
{
    memset(dense, 0, sizeof *dense);
    int rc = lbr_copy(t, dense, NULL);
    if (rc == LBR_ENOMEM || rc == LBR_ESHAPE) return lbr_fail(rc, "%s: no room for a contiguous copy of %s", rows[op].name, lbr_describe(t));
    return rc;
}

void lbr_span(const lbr_tensor *t, const char **low, const char **high)
{
    int64_t size = lbr_dtype_size(t->dtype), above = 1, below = 0;
    for (int i = 0; i < t->ndim; i++) *(t->stride[i] < 0 ? &below : &above) += ((int64_t)t->shape[i] - 1) * t->stride[i];
    *low = t->data + below * size;
    *high = t->data + above * size;
}

static bool same_layout(const lbr_tensor *a, const lbr_tensor *b)
{
    if (a->data != b->data || a->dtype != b->dtype || !lbr_same_shape(a, b)) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != 1 && a->stride[i] != b->stride[i]) return false;
    return true;
}

/* Do a and b share bytes? equal: also when it is element by element. */
static bool collide(const lbr_tensor *a, const lbr_tensor *b, bool equal)
{
    const char *a0, *a1, *b0, *b1;
    if (a->storage != b->storage || !lbr_tensor_numel(a) || !lbr_tensor_numel(b)) return false;
    if (same_layout(a, b)) return equal;
    lbr_span(a, &a0, &a1);
    lbr_span(b, &b0, &b1);
    return a0 < b1 && b0 < a1;
}

/* May two elements of t lie at one place (expanded dims, windows)? */
static bool overlaps_itself(const lbr_tensor *t)
{
    int64_t reach = 0;
    bool done[LBR_MAX_DIMS] = {false};
    if (!lbr_tensor_numel(t)) return false;
    for (int round = 0; round < t->ndim; round++) {
        int least = -1;
        for (int i = 0; i < t->ndim; i++)
            if (!done[i] && t->shape[i] > 1 && (least < 0 || t->stride[i] < t->stride[least])) least = i;
        if (least < 0) return false;
        if (t->stride[least] <= reach) return true;
        done[least] = true;
        reach += ((int64_t)t->shape[least] - 1) * t->stride[least];
    }
    return false;
}

/* A result of a plan (flag 2) may be used until a replay writes its storage; `seen` is the version it was handed out at. */
static int usable(int op, const lbr_tensor *t, int i)
{
    if (!(t->flags & 2) || t->seen == t->storage->version) return 0;
    return lbr_fail(LBR_EINVAL, "%s: input %d %s is a result that a later replay of its plan overwrote; clone() it before replaying", rows[op].name, i + 1, lbr_describe(t));
}

/* Outputs that exist: what may be written. */
static int check_given(int op, const lbr_call *c, const lbr_tensor *t, int i)
{
    bool inplace = row_flags[op] & INPLACE;
    if ((row_flags[op] & DENSE) && !lbr_tensor_contiguous(t)) return lbr_fail(LBR_ESHAPE, "%s: output %d %s is not contiguous", rows[op].name, i + 1, lbr_describe(t));
    if (op != LBR_OP_fill_into && overlaps_itself(t)) return lbr_fail(LBR_ESHAPE, "%s: elements of output %d %s share memory", rows[op].name, i + 1, lbr_describe(t));
    for (int k = 0; !inplace && k < c->nin; k++)
        if (lbr_present(&c->in[k]) && collide(&c->in[k], t, row_flags[op] & DENSE))
            return lbr_fail(LBR_EINVAL, "%s: output %d %s shares memory with input %d", rows[op].name, i + 1, lbr_describe(t), k + 1);
    return 0;
}

/* The one device of all operands; the CPU where there are none. */
static int device_of(int op, const lbr_tensor *const *in, int nin, lbr_tensor *const *out, int nout, int *device)
{
    const lbr_tensor *first = NULL;
    *device = LBR_CPU;
    for (int i = 0; i < nin + nout; i++) {
        const lbr_tensor *t = i < nin ? in[i] : out[i - nin];
        if (!t || !t->storage) continue;
        if (!first) {
            first = t;
            *device = t->device;
        } else if (t->device != *device)
            return lbr_fail(LBR_EDEVICE, "%s: %s is on %s, %s on %s", rows[op].name, lbr_describe(first), lbr_device_label(*device), lbr_describe(t), lbr_device_label(t->device));
    }
    return 0;
}

static bool same_memory(const lbr_tensor *a, const lbr_tensor *b)
{
    const char *a0, *a1, *b0, *b1;
    if (!a->storage || !b->storage || !lbr_tensor_numel(a) || !lbr_tensor_numel(b)) return false;
    lbr_span(a, &a0, &a1);
    lbr_span(b, &b0, &b1);
    return a0 < b1 && b0 < a1;
}

int lbr_call_check(const lbr_call *c)
{
    lbr_call made = *c;
    bool dense = row_flags[c->op] & DENSE, inplace = row_flags[c->op] & INPLACE;
    int rc;
    for (int i = 0; i < c->nin; i++) {
        const lbr_tensor *t = &c->in[i];
        if (!t->storage && row_optional[c->op][i] == '0') return lbr_fail(LBR_EINVAL, "%s: input %d is missing", rows[c->op].name, i + 1);
        if (t->storage && dense && !lbr_tensor_contiguous(t)) return lbr_fail(LBR_ESHAPE, "%s: input %d %s is not contiguous", rows[c->op].name, i + 1, lbr_describe(t));
    }
    for (int i = 0; i < c->nout; i++)
        if (!c->out[i].storage) return lbr_fail(LBR_EINVAL, "%s: output %d is missing", rows[c->op].name, i + 1);
    if ((rc = lbr_infer_table[c->op](&made))) return rc;
    for (int i = 0; i < c->nout; i++) {
        const lbr_tensor *t = &c->out[i];
        if (!lbr_same_shape(&made.out[i], t) || made.out[i].dtype != t->dtype)
            return lbr_fail(LBR_ESHAPE, "%s: output %d is %s, want %s", rows[c->op].name, i + 1, lbr_describe(t), lbr_describe(&made.out[i]));
        if (t->storage->flags & LBR_STORAGE_CONSTANT) return lbr_fail(LBR_EINVAL, "%s: output %d %s is a constant", rows[c->op].name, i + 1, lbr_describe(t));
        if ((rc = check_given(c->op, c, t, i))) return rc;
        for (int k = 0; k < c->nin + i; k++) {
            const lbr_tensor *other = k < c->nin ? &c->in[k] : &c->out[k - c->nin];
            bool allowed = k < c->nin && other->storage == t->storage && !(inplace && collide(other, t, c->nout > 1));
            if (!allowed && same_memory(other, t)) return lbr_fail(LBR_EINVAL, "%s: output %d %s shares memory with another operand", rows[c->op].name, i + 1, lbr_describe(t));
        }
    }
    if (c->op == LBR_OP_batch_norm && ((const lbr_batch_norm_attr *)c->attr)->training)
        for (int i = 3; i < 5; i++)
            if (c->in[i].storage->flags & LBR_STORAGE_CONSTANT) return lbr_fail(LBR_EINVAL, "batch_norm: running statistics %s are a constant", lbr_describe(&c->in[i]));
    return 0;
}

int lbr_submit(int op, const lbr_tensor *const *in, int nin, lbr_tensor *const *out, int nout, const void *attr)
{
    lbr_call c;
    c.op = op, c.nin = nin, c.nout = nout, c.attr = attr, c.state = NULL, c.state_free = NULL;
    uint32_t temporary = 0, made = 0, fresh = 0;
    int rc = 0;
    if (lbr_interrupted()) return lbr_fail(LBR_EINTR, "interrupted");
    for (int i = 0; i < nout; i++)
        if (!out[i]) return lbr_fail(LBR_EINVAL, "%s: output %d is missing", rows[op].name, i + 1);
    if ((rc = device_of(op, in, nin, out, nout, &c.device))) return rc;
    for (int i = 0; i < nin; i++) {
        if (!in[i] || !in[i]->storage) {
            memset(&c.in[i], 0, sizeof c.in[i]);
            if (row_optional[op][i] == '0') {
                rc = lbr_fail(LBR_EINVAL, "%s: input %d is %s", rows[op].name, i + 1, in[i] ? "a tensor that was released" : "missing");
                goto done;
            }
            continue;
        }
        if ((rc = usable(op, in[i], i))) {
            memset(&c.in[i], 0, sizeof c.in[i]);
            goto done;
        }
        bool copied = (row_flags[op] & DENSE) && !lbr_tensor_contiguous(in[i]);
        /* What an op in place reads must not change under it. */
        for (int k = 0; !copied && (row_flags[op] & INPLACE) && k < nout; k++)
            copied = out[k]->storage && collide(in[i], out[k], nout > 1);
        if (copied) {
            if (op == LBR_OP_batch_norm && i >= 3) {
                rc = lbr_fail(LBR_ESHAPE, "batch_norm: running statistics %s are updated, want them contiguous", lbr_describe(in[i]));
                goto done;
            }
            if ((rc = dense_copy(op, in[i], &c.in[i]))) goto done;
            temporary |= 1u << i;
        } else {
            c.in[i] = *in[i];
        }
    }
    for (int i = 0; i < nout; i++) {
        if (out[i]->storage) c.out[i] = *out[i];
        else if (row_flags[op] & INPLACE) {
            rc = lbr_fail(LBR_EINVAL, "%s: output %d must exist, it is updated in place", rows[op].name, i + 1);
            goto done;
        } else
            memset(&c.out[i], 0, sizeof c.out[i]);
    }
    if ((rc = lbr_infer_table[op](&c))) goto done;
    for (int i = 0; i < nout; i++) {
        if (out[i]->storage) {
            /* A given output keeps its own strides; its shape and dtype must be what the op makes. */
            if (!lbr_same_shape(&c.out[i], out[i]) || c.out[i].dtype != out[i]->dtype) {
                rc = lbr_fail(LBR_ESHAPE, "%s: output %d is %s, want %s", rows[op].name, i + 1, lbr_describe(out[i]), (c.out[i].storage = out[i]->storage, lbr_describe(&c.out[i])));
                goto done;
            }
            c.out[i] = *out[i];
            if ((rc = check_given(op, &c, &c.out[i], i))) goto done;
            continue;
        }
        int32_t shape[LBR_MAX_DIMS];
        memcpy(shape, c.out[i].shape, sizeof shape);
        if ((rc = (dry ? lbr_tensor_new_dry : lbr_tensor_new)(&c.out[i], c.out[i].dtype, c.out[i].ndim, shape, c.device))) {
            c.out[i].storage = NULL;
            char text[256];
            snprintf(text, sizeof text, "%s", lbr_error());
            lbr_fail(rc, "%s: output %d: %s", rows[op].name, i + 1, text);
            goto done;
        }
        made |= 1u << i;
    }
    for (int i = 0; i < nout; i++) fresh |= (uint32_t)((c.out[i].flags & 2) && c.out[i].seen == c.out[i].storage->version) << i;
    if (dry) goto done;
    if (lbr_recording() && (rc = lbr_record_reserve((size_t)rows[op].attribute_bytes))) goto done;
    if (!lbr_recording_lazily() && (rc = lbr_call_run(&c))) goto done;
    if (lbr_recording()) lbr_record_append(&c, (size_t)rows[op].attribute_bytes);
done:
    if (!lbr_recording() || rc)
        if (c.state && c.state_free) c.state_free(c.state);
    for (int i = 0; i < nin; i++)
        if (temporary >> i & 1) lbr_tensor_release(&c.in[i]);
    for (int i = 0; i < nout; i++)
        if (made >> i & 1) {
            if (rc) lbr_tensor_release(&c.out[i]);
            else *out[i] = c.out[i];
        } else if (fresh >> i & 1)
            out[i]->seen = out[i]->storage->version; /* its owner wrote it, not a replay */
    return rc;
}
