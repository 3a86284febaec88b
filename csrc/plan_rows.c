/* plan_rows.c: a batch through several plans of one network, each of one row, side by side: for networks too small to keep all cores busy with one picture. */
#include "record.h"

#include <stdio.h>

typedef struct {
    lbr_plan *const *plans;
    lbr_tensor *const *own;    /* of each plan: what it reads, what it writes */
    lbr_tensor *const *batch;
    int inputs, outputs;
    int code;                  /* of the first row that failed; the rows after it are left out */
    char reason[512];
} crew;

static int64_t bytes_of(const lbr_tensor *t) { return lbr_tensor_numel(t) * lbr_dtype_size(t->dtype); }

static int run_row(crew *c, int64_t row, int thread)
{
    lbr_plan *p = c->plans[thread];
    lbr_tensor *const *own = c->own + thread * (c->inputs + c->outputs);
    for (int i = 0; i < c->inputs; i++) {
        int64_t n = bytes_of(own[i]);
        memcpy(own[i]->data, c->batch[i]->data + row * n, (size_t)n);
        own[i]->storage->version++;
    }
    int rc = lbr_plan_run(p);
    for (int i = c->inputs; i < c->inputs + c->outputs && !rc; i++) {
        int64_t n = bytes_of(own[i]);
        memcpy(c->batch[i]->data + row * n, own[i]->data, (size_t)n);
    }
    return rc;
}

static void body(void *ctx, int phase, int64_t row, int thread)
{
    crew *c = ctx;
    int none = 0;
    (void)phase;
    if (__atomic_load_n(&c->code, __ATOMIC_RELAXED)) return;
    int rc = run_row(c, row, thread);
    if (rc && __atomic_compare_exchange_n(&c->code, &none, rc, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) snprintf(c->reason, sizeof c->reason, "%s", lbr_error());
}

static bool fits(const lbr_tensor *own, const lbr_tensor *batch, int rows)
{
    return own->dtype == batch->dtype && own->device == LBR_CPU && batch->device == LBR_CPU && lbr_tensor_contiguous(own) && lbr_tensor_contiguous(batch) &&
           lbr_tensor_numel(batch) == rows * lbr_tensor_numel(own);
}

int lbr_plan_rows(lbr_plan *const *plans, int count, lbr_tensor *const *own, int inputs, int outputs, lbr_tensor *const *batch, int rows)
{
    int ready = lbr_plan_ready();
    if (ready) return ready;
    int width = inputs + outputs;
    if (rows < 1 || count < (lbr_threads() < rows ? lbr_threads() : rows)) return lbr_fail(LBR_EINVAL, "plan_rows: %d plans for %d rows on %d threads", count, rows, lbr_threads());
    for (int k = 0; k < count; k++) {
        if (!plans[k]->alone) return lbr_fail(LBR_EUNSUPPORTED, "plan_rows: plan %d uses what works for one plan at a time", k + 1);
        for (int i = 0; i < width; i++)
            if (!fits(own[k * width + i], batch[i], rows))
                return lbr_fail(LBR_ESHAPE, "plan_rows: tensor %d is %s, a batch of %d rows of %s is wanted", i + 1, lbr_describe(batch[i]), rows, lbr_describe(own[k * width + i]));
    }
    crew c = {.plans = plans, .own = own, .batch = batch, .inputs = inputs, .outputs = outputs};
    int64_t tasks = rows;
    lbr_side_by_side(true);
    lbr_phases(1, &tasks, body, &c);
    lbr_side_by_side(false);
    return c.code ? lbr_fail(c.code, "%s", c.reason) : 0;
}
