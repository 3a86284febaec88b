/* dispatch.c: the typed doors and the one corridor behind them: check, infer, allocate, run, record. */
#include "core.h"

#include <math.h>

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

static bool has_nan(const lbr_tensor *t)
{
    if (!t->storage || !lbr_tensor_contiguous(t)) return false;
    int64_t n = lbr_tensor_numel(t);
    if (t->dtype == LBR_F32) {
        const float *p = (const float *)t->data;
        for (int64_t i = 0; i < n; i++)
            if (isnan(p[i])) return true;
    } else if (t->dtype == LBR_F64) {
        const double *p = (const double *)t->data;
        for (int64_t i = 0; i < n; i++)
            if (isnan(p[i])) return true;
    }
    return false;
}

/* ---- the corridor ---- */

int lbr_call_run(lbr_call *c)
{
    bool before = false;
    if (trace_nan)
        for (int i = 0; i < c->nin; i++) before |= has_nan(&c->in[i]);
    int rc = lbr_cpu_table[c->op](c);
    if (rc) return rc;
    for (int i = 0; i < c->nout; i++)
        if (c->out[i].storage) c->out[i].storage->version++;
    if (trace_nan && !before)
        for (int i = 0; i < c->nout; i++)
            if (has_nan(&c->out[i]))
                return lbr_fail(LBR_EINVAL, "%s: made the first NaN: output %d %s from %s", rows[c->op].name, i + 1, lbr_describe(&c->out[i]), c->nin ? lbr_describe(&c->in[0]) : "nothing");
    return 0;
}

static int dense_copy(const lbr_tensor *t, lbr_tensor *dense)
{
    memset(dense, 0, sizeof *dense);
    return lbr_copy(t, dense, NULL);
}

int lbr_submit(int op, const lbr_tensor *const *in, int nin, lbr_tensor *const *out, int nout, const void *attr)
{
    lbr_call c;
    c.op = op, c.nin = nin, c.nout = nout, c.attr = attr, c.state = NULL, c.state_free = NULL;
    uint32_t temporary = 0, made = 0;
    int rc = 0;
    if (lbr_interrupted()) return lbr_fail(LBR_EINTR, "interrupted");
    for (int i = 0; i < nin; i++) {
        if (!in[i] || !in[i]->storage) {
            memset(&c.in[i], 0, sizeof c.in[i]);
            if (row_optional[op][i] == '0') {
                rc = lbr_fail(LBR_EINVAL, "%s: input %d is %s", rows[op].name, i + 1, in[i] ? "a tensor that was released" : "missing");
                goto done;
            }
            continue;
        }
        if ((row_flags[op] & DENSE) && !lbr_tensor_contiguous(in[i])) {
            if ((rc = dense_copy(in[i], &c.in[i]))) goto done;
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
            continue;
        }
        int device = LBR_CPU;
        int32_t shape[LBR_MAX_DIMS];
        memcpy(shape, c.out[i].shape, sizeof shape);
        if ((rc = lbr_tensor_new(&c.out[i], c.out[i].dtype, c.out[i].ndim, shape, device))) {
            c.out[i].storage = NULL;
            goto done;
        }
        made |= 1u << i;
    }
    if ((rc = lbr_call_run(&c))) goto done;
    if (lbr_recording() && (rc = lbr_record_append(&c, (size_t)rows[op].attribute_bytes))) goto done;
done:
    if (!lbr_recording() || rc)
        if (c.state && c.state_free) c.state_free(c.state);
    for (int i = 0; i < nin; i++)
        if (temporary >> i & 1) lbr_tensor_release(&c.in[i]);
    for (int i = 0; i < nout; i++)
        if (made >> i & 1) {
            if (rc) lbr_tensor_release(&c.out[i]);
            else *out[i] = c.out[i];
        }
    return rc;
}
