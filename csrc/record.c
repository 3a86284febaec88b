/* record.c: a plan is the list of calls made while recording; replaying it runs the same kernels on the same memory. No graph rewriting. */
#include "record.h"

#include <math.h>
#include <stdlib.h>

static lbr_plan *recording;
static bool lazy;     /* calls are written down and not run */
static int64_t began; /* lbr_shared_uses() when it began */

int lbr_recording(void) { return recording != NULL; }
bool lbr_recording_lazily(void) { return recording && lazy; }

lbr_plan *lbr_record_begin(int lazily)
{
    if (recording) {
        lbr_fail(LBR_EINVAL, "record: already recording");
        return NULL;
    }
    recording = calloc(1, sizeof *recording);
    if (!recording) lbr_fail(LBR_ENOMEM, "record: out of memory");
    began = lbr_shared_uses();
    lazy = lazily;
    return recording;
}

static void each_tensor(lbr_step *s, void (*visit)(lbr_tensor *t, void *ctx), void *ctx)
{
    for (int i = 0; i < s->call.nin; i++)
        if (s->call.in[i].storage) visit(&s->call.in[i], ctx);
    for (int i = 0; i < s->call.nout; i++)
        if (s->call.out[i].storage) visit(&s->call.out[i], ctx);
}

static void retain(lbr_tensor *t, void *ctx)
{
    (void)ctx;
    lbr_storage_retain(t->storage);
}

static void release(lbr_tensor *t, void *ctx)
{
    (void)ctx;
    lbr_tensor_release(t);
}

int lbr_plan_grow(lbr_plan *p)
{
    if (p->size < p->room) return 0;
    int room = p->room ? 2 * p->room : 16;
    lbr_step *steps = realloc(p->steps, (size_t)room * sizeof *steps);
    if (!steps) return lbr_fail(LBR_ENOMEM, "plan: out of memory at call %d", p->size + 1);
    p->steps = steps;
    p->room = room;
    return 0;
}

int lbr_record_reserve(size_t attr_bytes)
{
    lbr_plan *p = recording;
    int rc = lbr_plan_grow(p);
    if (rc) return rc;
    free(p->spare);
    p->spare = malloc(attr_bytes + 1);
    return p->spare ? 0 : lbr_fail(LBR_ENOMEM, "record: out of memory at call %d", p->size + 1);
}

void lbr_record_append(const lbr_call *c, size_t attr_bytes)
{
    lbr_plan *p = recording;
    p->device = p->size == 0 || p->device == c->device ? c->device : -1;
    lbr_step *s = &p->steps[p->size++];
    s->call = *c;
    s->seconds = 0;
    s->attr = NULL;
    if (c->attr) {
        s->call.attr = s->attr = p->spare;
        p->spare = NULL;
        memcpy(s->attr, c->attr, attr_bytes);
    }
    each_tensor(s, retain, NULL);
}

/* ---- liveness: storages that only the plan holds share one arena ---- */

typedef struct life {
    lbr_storage *storage;
    int first, last, uses;
    bool written_first;
    int64_t offset, size;
} life;

typedef struct lives {
    life *list;
    int size, now;
} lives;

static int by_storage(const void *a, const void *b)
{
    const life *x = a, *y = b;
    return x->storage < y->storage ? -1 : x->storage > y->storage;
}

static void collect(lbr_tensor *t, void *ctx)
{
    lives *l = ctx;
    l->list[l->size++].storage = t->storage;
}

static life *find(lives *l, lbr_storage *s)
{
    life key = {.storage = s};
    return bsearch(&key, l->list, (size_t)l->size, sizeof key, by_storage);
}

/* Does t cover its whole storage? */
static bool whole(const lbr_tensor *t)
{
    return t->data == t->storage->base && lbr_tensor_contiguous(t) && lbr_tensor_numel(t) * lbr_dtype_size(t->dtype) == t->storage->bytes;
}

static void touch(lives *l, lbr_tensor *t, bool output)
{
    if (!t->storage) return;
    life *x = find(l, t->storage);
    if (x->uses++ == 0) {
        x->first = l->now;
        x->written_first = output;
    }
    x->last = l->now;
}

static int by_size(const void *a, const void *b)
{
    const life *x = *(life *const *)a, *y = *(life *const *)b;
    if (x->size != y->size) return x->size > y->size ? -1 : 1;
    return x->first - y->first;
}

/* First-fit by decreasing size: each storage goes to the lowest offset free over its whole life. */
static int64_t place(life **order, int n)
{
    int64_t top = 0;
    for (int i = 0; i < n; i++) {
        life *x = order[i];
        int64_t offset = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (int k = 0; k < i; k++) {
                life *y = order[k];
                if (y->first > x->last || y->last < x->first) continue;
                if (offset < y->offset + y->size && y->offset < offset + x->size) {
                    offset = y->offset + y->size;
                    moved = true;
                }
            }
        }
        x->offset = offset;
        if (offset + x->size > top) top = offset + x->size;
    }
    return top;
}

int lbr_record_end(lbr_plan *p)
{
    if (recording != p) return lbr_fail(LBR_EINVAL, "record: this plan is not recording");
    recording = NULL;
    p->alone = p->device == LBR_CPU && lbr_shared_uses() == began;
    int tensors = 0;
    for (int i = 0; i < p->size; i++) tensors += p->steps[i].call.nin + p->steps[i].call.nout;
    if (!tensors) return 0;
    lives l = {.list = calloc((size_t)tensors, sizeof *l.list)};
    life **order = calloc((size_t)tensors, sizeof *order);
    if (!l.list || !order) {
        free(l.list), free(order);
        return lbr_fail(LBR_ENOMEM, "record: out of memory");
    }
    for (int i = 0; i < p->size; i++) each_tensor(&p->steps[i], collect, &l);
    qsort(l.list, (size_t)l.size, sizeof *l.list, by_storage);
    int unique = 0;
    for (int i = 0; i < l.size; i++)
        if (!unique || l.list[unique - 1].storage != l.list[i].storage) l.list[unique++] = l.list[i];
    l.size = unique;
    for (l.now = 0; l.now < p->size; l.now++) {
        lbr_call *c = &p->steps[l.now].call;
        bool inplace = lbr_op_flags(c->op) & INPLACE;
        for (int i = 0; i < c->nin; i++) touch(&l, &c->in[i], false);
        for (int i = 0; i < c->nout; i++) touch(&l, &c->out[i], (!inplace || c->op == LBR_OP_fill_into) && c->out[i].storage && whole(&c->out[i]));
    }
    int n = 0;
    for (int i = 0; i < l.size; i++) {
        life *x = &l.list[i];
        x->offset = -1;
        x->size = (x->storage->bytes + 255) / 256 * 256;
        /* Only the plan holds it, and a call fills it before any reads it. A view of part of a storage that is filled piecewise stays out. */
        if (x->storage->refs == x->uses && x->written_first && x->size > 0 && x->storage->device == p->device) order[n++] = x;
    }
    qsort(order, (size_t)n, sizeof *order, by_size);
    p->arena_bytes = place(order, n);
    if (n) {
        p->arena = lbr_alloc_on(p->device, p->arena_bytes);
        if (!p->arena) {
            int rc = lbr_out_of_memory(p->device, "record: the arena of a plan: ", p->arena_bytes);
            p->arena_bytes = 0;
            free(l.list), free(order);
            return rc;
        }
        for (int i = 0; i < p->size; i++) {
            lbr_call *c = &p->steps[i].call;
            for (int k = 0; k < c->nin + c->nout; k++) {
                lbr_tensor *t = k < c->nin ? &c->in[k] : &c->out[k - c->nin];
                if (!t->storage) continue;
                life *x = find(&l, t->storage);
                if (x->offset >= 0) t->data = p->arena + x->offset + (t->data - t->storage->base);
            }
        }
        for (int i = 0; i < n; i++) {
            lbr_storage *s = order[i]->storage;
            lbr_free_on(s->device, s->base, s->bytes);
            s->base = p->arena + order[i]->offset;
            s->flags |= LBR_STORAGE_LENT;
        }
    }
    free(l.list), free(order);
    return 0;
}

void lbr_plan_free(lbr_plan *p)
{
    if (!p) return;
    if (recording == p) recording = NULL;
    for (int i = 0; i < p->size; i++) {
        lbr_step *s = &p->steps[i];
        if (s->call.state && s->call.state_free) s->call.state_free(s->call.state);
        each_tensor(s, release, NULL);
        free(s->attr);
    }
    for (int i = 0; p->ports && i < p->inputs + p->outputs; i++) {
        lbr_tensor_release(&p->ports[i].tensor);
        free(p->ports[i].name);
    }
    free(p->ports);
    if (p->graph) lbr_backend_of(p->device)->graph_free(lbr_device_number(p->device), p->graph);
    if (p->arena) lbr_free_on(p->device, p->arena, p->arena_bytes);
    lbr_reader_close(p->file);
    free(p->spare);
    free(p->steps);
    free(p);
}

void lbr_record_abort(lbr_plan *p) { lbr_plan_free(p); }

/* A run inside a recording would be done once and never replayed. */
int lbr_plan_ready(void)
{
    if (recording) return lbr_fail(LBR_EINVAL, "plan_run: another plan is being recorded");
    return lbr_interrupted() ? lbr_fail(LBR_EINTR, "interrupted") : 0;
}

static bool share_memory(const lbr_tensor *a, int na, const lbr_tensor *b, int nb)
{
    const char *a0, *a1, *b0, *b1;
    for (int i = 0; i < na; i++)
        for (int k = 0; k < nb; k++) {
            if (!a[i].storage || !b[k].storage || !lbr_tensor_numel(&a[i]) || !lbr_tensor_numel(&b[k])) continue;
            lbr_span(&a[i], &a0, &a1);
            lbr_span(&b[k], &b0, &b1);
            if (a0 < b1 && b0 < a1) return true;
        }
    return false;
}

/* May call b be done at once with call a before it? */
static bool goes_with(const lbr_call *a, const lbr_call *b)
{
    size_t bytes = (size_t)lbr_op_attr_bytes(a->op);
    if (a->op != b->op || a->in[0].dtype != b->in[0].dtype || a->out[0].dtype != b->out[0].dtype) return false;
    if (!a->attr != !b->attr || (a->attr && memcmp(a->attr, b->attr, bytes))) return false;
    for (int i = 1; i < a->nin; i++)
        if (a->in[i].data != b->in[i].data) return false;
    if (a->op == LBR_OP_square_sum_into) return a->out[0].data == b->out[0].data && !share_memory(a->out, 1, b->in, 1) && !share_memory(a->in, 1, b->out, 1);
    return !share_memory(a->out, a->nout, b->in, b->nin) && !share_memory(a->out, a->nout, b->out, b->nout) && !share_memory(a->in, a->nin, b->out, b->nout);
}

/* Runs call i, and those after it that the device takes with it; *n: how many. */
static int run_together(lbr_plan *p, const lbr_backend *b, int i, int *n)
{
    lbr_call *calls[LBR_MOST_TOGETHER] = {&p->steps[i].call};
    lbr_together_fn together = b->together[calls[0]->op];
    bool fits = together != NULL;
    for (*n = 1; fits && *n < LBR_MOST_TOGETHER && i + *n < p->size; *n += fits) {
        calls[*n] = &p->steps[i + *n].call;
        for (int k = 0; k < *n && fits; k++) fits = goes_with(calls[k], calls[*n]);
    }
    if (*n == 1) return lbr_call_run(calls[0]);
    int rc = together(calls, *n);
    if (!rc) rc = b->check(lbr_device_number(p->device), lbr_op_name(calls[0]->op));
    for (int k = 0; k < *n && !rc; k++) lbr_call_wrote(calls[k]);
    return rc;
}

/* The calls as one graph of the device: captured by running the same loop, so that a replay queues the same kernels on the same memory. Neighbours of one op that
 * the device takes together (an optimiser's parameters) are one kernel. */
static int run_graph(lbr_plan *p, const lbr_backend *b)
{
    int device = lbr_device_number(p->device), rc = 0;
    if (!p->graph) {
        if ((rc = b->graph_begin(device))) return rc;
        for (int i = 0, n; i < p->size && !rc; i += n) rc = run_together(p, b, i, &n);
        int ended = b->graph_end(device, &p->graph);
        if (rc && p->graph) { /* part of the plan is no graph of it */
            b->graph_free(device, p->graph);
            p->graph = NULL;
        }
        if (rc || ended) return rc ? rc : ended;
        return b->graph_run(device, p->graph);
    }
    rc = b->graph_run(device, p->graph);
    for (int i = 0; i < p->size && !rc; i++) lbr_call_wrote(&p->steps[i].call);
    return rc;
}

int lbr_plan_run(lbr_plan *p)
{
    int ready = lbr_plan_ready();
    if (ready) return ready;
    const lbr_backend *b = p->size ? lbr_backend_of(p->device) : NULL;
    if (b && !lbr_device_exact() && !lbr_tracing()) return run_graph(p, b);
    int64_t uses = lbr_shared_uses();
    int rc = 0;
    for (int i = 0; i < p->size && !rc; i++) rc = lbr_call_run(&p->steps[i].call);
    if (lbr_shared_uses() != uses) p->alone = false;
    return rc;
}

int lbr_plan_time(lbr_plan *p)
{
    int ready = lbr_plan_ready();
    if (ready) return ready;
    for (int i = 0; i < p->size; i++) {
        double start = lbr_clock();
        int rc = lbr_call_run(&p->steps[i].call);
        if (!rc) rc = lbr_device_synchronize(p->steps[i].call.device);
        p->steps[i].seconds = lbr_clock() - start;
        if (rc) return rc;
    }
    return 0;
}

int lbr_plan_size(const lbr_plan *p) { return p->size; }
int lbr_plan_device(const lbr_plan *p) { return p->size ? p->device : -1; }
int64_t lbr_plan_arena(const lbr_plan *p) { return p->arena_bytes; }

int lbr_plan_at(const lbr_plan *p, int i, lbr_plan_call *out)
{
    if (i < 0 || i >= p->size) return lbr_fail(LBR_EINVAL, "plan_at: call %d of %d", i + 1, p->size);
    const lbr_step *s = &p->steps[i];
    *out = (lbr_plan_call){.name = lbr_op_name(s->call.op), .inputs = s->call.nin, .outputs = s->call.nout, .in = s->call.in, .out = s->call.out, .seconds = s->seconds, .flops = lbr_call_flops(&s->call)};
    for (int k = 0; k < s->call.nin + s->call.nout; k++) {
        const lbr_tensor *t = k < s->call.nin ? &s->call.in[k] : &s->call.out[k - s->call.nin];
        if (t->storage) out->bytes += lbr_tensor_numel(t) * lbr_dtype_size(t->dtype);
    }
    return 0;
}

/* ---- comparison with the slow twins, and with the kernels of another device ---- */

static double element(const lbr_tensor *t, int64_t i)
{
    double v;
    lbr_element_get(t, i, &v);
    return v;
}

/* Largest difference of two contiguous tensors on the CPU, relative to the largest value wanted. Not finite where only one of two values is. */
static double distance(const lbr_tensor *want, const lbr_tensor *have)
{
    int64_t n = lbr_tensor_numel(want);
    double size = 1e-30, off = 0;
    for (int64_t e = 0; e < n; e++) {
        double a = element(want, e), b = element(have, e);
        if ((isnan(a) && isnan(b)) || a == b) continue;
        if (isfinite(a) && fabs(a) > size) size = fabs(a);
        if (!(fabs(a - b) <= off)) off = fabs(a - b);
    }
    return off / size;
}

int lbr_plan_compare(lbr_plan *p, double tolerance, int *index, double *difference)
{
    int ready = lbr_plan_ready();
    if (ready) return ready;
    *index = -1;
    *difference = 0;
    for (int i = 0; i < p->size; i++) {
        lbr_call *c = &p->steps[i].call;
        lbr_kernel_fn twin = c->device == LBR_CPU ? lbr_reference_table[c->op] : NULL;
        int rc;
        if (!twin || (lbr_op_flags(c->op) & INPLACE)) {
            if ((rc = lbr_call_run(c))) return rc;
            continue;
        }
        lbr_call slow = *c;
        slow.state = NULL;
        for (int k = 0; k < c->nout; k++) {
            slow.out[k].storage = NULL;
            if (c->out[k].storage && (rc = lbr_tensor_new(&slow.out[k], c->out[k].dtype, c->out[k].ndim, c->out[k].shape, LBR_CPU))) {
                while (k-- > 0) lbr_tensor_release(&slow.out[k]);
                return rc;
            }
        }
        rc = twin(&slow);
        if (!rc) rc = lbr_call_run(c);
        double worst = 0;
        for (int k = 0; k < c->nout && !rc; k++) {
            if (!c->out[k].storage || !lbr_tensor_contiguous(&c->out[k])) continue;
            double off = distance(&slow.out[k], &c->out[k]);
            if (!(off <= worst)) worst = off;
        }
        for (int k = 0; k < c->nout; k++) lbr_tensor_release(&slow.out[k]);
        if (rc) return rc;
        if (!(worst <= tolerance)) {
            *index = i;
            *difference = worst;
            return 0;
        }
    }
    return 0;
}

/* t on another device, strides and place in its storage as they are: the bytes of the whole storage are copied. seen: storages that were copied before, so that
 * tensors that share memory share it there. */
struct carried { const lbr_storage *from; lbr_tensor bytes; };

static int carry(const lbr_tensor *t, int device, struct carried *seen, int *n, lbr_tensor *out)
{
    int k = 0, rc;
    while (k < *n && seen[k].from != t->storage) k++;
    if (k == *n) {
        if (t->storage->bytes > INT32_MAX) return lbr_fail(LBR_ENOMEM, "compare: a storage of %lld bytes", (long long)t->storage->bytes);
        int32_t size = (int32_t)t->storage->bytes;
        lbr_tensor all = {.storage = t->storage, .data = t->storage->base, .shape = {size}, .stride = {1}, .ndim = 1, .dtype = LBR_U8, .device = t->device};
        if ((rc = lbr_tensor_new(&seen[k].bytes, LBR_U8, 1, &size, device))) return rc;
        seen[k].from = t->storage;
        (*n)++;
        if ((rc = lbr_transfer(&all, &seen[k].bytes))) return rc;
    }
    *out = *t;
    out->storage = seen[k].bytes.storage;
    out->data = seen[k].bytes.data + (t->data - t->storage->base);
    out->device = (uint8_t)device;
    return 0;
}

/* Carries the tensors of a call; outputs: only what the call wrote, to read it. */
static int carry_call(lbr_call *c, int device, bool outputs, struct carried *seen, int *n, lbr_tensor *out)
{
    int rc = 0;
    for (int k = outputs ? c->nin : 0; k < c->nin + c->nout && !rc; k++) {
        lbr_tensor *t = k < c->nin ? &c->in[k] : &c->out[k - c->nin];
        if (t->storage) rc = carry(t, device, seen, n, &out[k]);
        else out[k] = *t;
    }
    return rc;
}

static void drop(struct carried *seen, int n)
{
    while (n-- > 0) lbr_tensor_release(&seen[n].bytes);
}

enum { MOST = LBR_MAX_IN + LBR_MAX_OUT };

/* Runs call c where it belongs, and from the same inputs on another device: the largest relative difference of an output. */
static int compare_call(lbr_call *c, int device, double *worst)
{
    struct carried there[MOST], mine[MOST], back[MOST];
    lbr_tensor moved[MOST], own[MOST], theirs[MOST];
    int n = 0, m = 0, b = 0, rc = carry_call(c, device, false, there, &n, moved);
    lbr_call other = *c;
    other.device = device, other.state = NULL, other.state_free = NULL;
    memcpy(other.in, moved, (size_t)c->nin * sizeof *moved);
    memcpy(other.out, moved + c->nin, (size_t)c->nout * sizeof *moved);
    if (!rc) rc = lbr_call_run(&other);
    if (!rc) rc = lbr_call_run(c);
    if (!rc) rc = carry_call(&other, LBR_CPU, true, back, &b, theirs);
    if (!rc) rc = carry_call(c, LBR_CPU, true, mine, &m, own);
    for (int k = c->nin; k < c->nin + c->nout && !rc; k++) {
        if (!own[k].storage || !lbr_tensor_contiguous(&own[k])) continue;
        double off = distance(&own[k], &theirs[k]);
        if (!(off <= *worst)) *worst = off;
    }
    if (other.state && other.state_free) other.state_free(other.state);
    drop(there, n), drop(mine, m), drop(back, b);
    return rc;
}

int lbr_plan_compare_device(lbr_plan *p, int device, double tolerance, int *index, double *difference)
{
    int rc = lbr_plan_ready();
    if (rc) return rc;
    *index = -1;
    *difference = 0;
    if (device != LBR_CPU && !lbr_backend_of(device)) return lbr_fail(LBR_EDEVICE, "compare: no device %s", lbr_device_label(device));
    for (int i = 0; i < p->size; i++) {
        double worst = 0;
        if ((rc = compare_call(&p->steps[i].call, device, &worst))) return rc;
        if (!(worst <= tolerance)) {
            *index = i;
            *difference = worst;
            return 0;
        }
    }
    return 0;
}
