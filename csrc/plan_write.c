/* plan_write.c: writes a recorded plan to a file: network, weights and calls. Reads none. */
#include "plan_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct kept {
    lbr_storage *storage;
    int kind, dtype;
    int64_t place; /* in the arena, or in the file behind the calls */
    int number;    /* in the file: by first use, so that the same plan gives the same bytes */
    bool seen;
} kept;

typedef struct writer {
    FILE *file;
    const char *path;
    int64_t at;
    bool failed;
    kept *list;    /* by address */
    kept **order;  /* by number */
    int size, numbered;
} writer;

static void put(writer *w, const void *bytes, int64_t n)
{
    if (n > 0 && !w->failed && fwrite(bytes, 1, (size_t)n, w->file) != (size_t)n) w->failed = true;
    w->at += n;
}

static void put_u32(writer *w, uint32_t v) { put(w, &v, 4); }
static void put_u64(writer *w, int64_t v) { put(w, &v, 8); }

static void put_text(writer *w, const char *text)
{
    put_u32(w, (uint32_t)strlen(text));
    put(w, text, (int64_t)strlen(text));
}

static void pad(writer *w, int64_t to)
{
    static const char zeros[ARENA_ALIGNMENT];
    put(w, zeros, aligned(w->at, to) - w->at);
}

static int by_storage(const void *a, const void *b)
{
    const kept *x = a, *y = b;
    return x->storage < y->storage ? -1 : x->storage > y->storage;
}

static kept *find(const writer *w, lbr_storage *s)
{
    kept key = {.storage = s};
    return bsearch(&key, w->list, (size_t)w->size, sizeof key, by_storage);
}

static void put_tensor(writer *w, const lbr_tensor *t)
{
    if (!t->storage) {
        put_u32(w, UINT32_MAX);
        return;
    }
    put_u32(w, (uint32_t)find(w, t->storage)->number);
    put_u32(w, t->ndim);
    put_u64(w, t->data - t->storage->base);
    for (int i = 0; i < t->ndim; i++) put_u32(w, (uint32_t)t->shape[i]), put_u32(w, (uint32_t)t->stride[i]);
}

static bool whole(const lbr_tensor *t)
{
    return t->data == t->storage->base && lbr_tensor_contiguous(t) && lbr_tensor_numel(t) * lbr_dtype_size(t->dtype) == t->storage->bytes;
}

/* What a call does to a storage, in the order of the calls: the first touch says whether what lies there before matters. */
static int touch(writer *w, const lbr_tensor *t, bool written, bool filled)
{
    if (!t->storage) return 0;
    kept *k = find(w, t->storage);
    if (!k->seen) {
        *k = (kept){.storage = t->storage, .kind = filled ? SCRATCH : written ? VARIABLE : CONSTANT, .dtype = t->dtype, .number = w->numbered, .seen = true};
        w->order[w->numbered++] = k;
    } else if (written && k->kind == CONSTANT) k->kind = VARIABLE;
    return k->dtype == t->dtype ? 0 : lbr_fail(LBR_EUNSUPPORTED, "plan_write: one memory as %s and %s", lbr_dtype_name(k->dtype), lbr_dtype_name(t->dtype));
}

static int classify(writer *w, const lbr_plan *p, const lbr_plan_port *inputs, int n, const lbr_plan_port *outputs, int m)
{
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        if (!whole(inputs[i].tensor)) return lbr_fail(LBR_EINVAL, "plan_write: input %d '%s' is part of a tensor", i + 1, inputs[i].name);
        rc = touch(w, inputs[i].tensor, true, true);
    }
    for (int s = 0; s < p->size && !rc; s++) {
        const lbr_call *c = &p->steps[s].call;
        bool inplace = lbr_op_flags(c->op) & INPLACE;
        for (int i = 0; i < c->nin && !rc; i++)
            rc = touch(w, &c->in[i], c->op == LBR_OP_batch_norm && i >= 3 && ((const lbr_batch_norm_attr *)c->attr)->training, false);
        for (int i = 0; i < c->nout && !rc; i++) rc = touch(w, &c->out[i], true, (!inplace || c->op == LBR_OP_fill_into) && c->out[i].storage && whole(&c->out[i]));
    }
    for (int i = 0; i < m && !rc; i++) rc = touch(w, outputs[i].tensor, false, false);
    return rc;
}

/* The storages of the plan, each once, what they are and where they will lie; *arena: bytes. */
static int gather(writer *w, const lbr_plan *p, const lbr_plan_port *inputs, int n, const lbr_plan_port *outputs, int m, int64_t *arena)
{
    int64_t most = n + m;
    for (int i = 0; i < p->size; i++) most += p->steps[i].call.nin + p->steps[i].call.nout;
    w->list = calloc((size_t)most + 1, sizeof *w->list);
    w->order = calloc((size_t)most + 1, sizeof *w->order);
    if (!w->list || !w->order) return lbr_fail(LBR_ENOMEM, "plan_write: out of memory");
    for (int i = 0; i < n + m; i++) w->list[w->size++].storage = (i < n ? &inputs[i] : &outputs[i - n])->tensor->storage;
    for (int i = 0; i < p->size; i++) {
        const lbr_call *c = &p->steps[i].call;
        for (int k = 0; k < c->nin + c->nout; k++) {
            lbr_storage *s = k < c->nin ? c->in[k].storage : c->out[k - c->nin].storage;
            if (s) w->list[w->size++].storage = s;
        }
    }
    qsort(w->list, (size_t)w->size, sizeof *w->list, by_storage);
    int unique = 0;
    for (int i = 0; i < w->size; i++)
        if (!unique || w->list[unique - 1].storage != w->list[i].storage) w->list[unique++] = w->list[i];
    w->size = unique;
    int rc = classify(w, p, inputs, n, outputs, m);
    int64_t file = 0, top = aligned(p->arena_bytes, ARENA_ALIGNMENT);
    for (int i = 0; i < w->size && !rc; i++) {
        kept *k = w->order[i];
        const char *base = k->storage->base;
        if (k->kind != SCRATCH) {
            k->place = file;
            file += aligned(k->storage->bytes, ALIGNMENT);
        } else if (p->arena && base >= p->arena && base < p->arena + p->arena_bytes) {
            k->place = base - p->arena;
        } else {
            k->place = top;
            top += aligned(k->storage->bytes, ARENA_ALIGNMENT);
        }
    }
    *arena = top;
    return rc;
}

static void put_ports(writer *w, const lbr_plan_port *ports, int n)
{
    for (int i = 0; i < n; i++) {
        put_text(w, ports[i].name);
        put_tensor(w, ports[i].tensor);
    }
}

/* Header, ops, storages, ports, calls, data; the header once more when its numbers are known. */
static void put_plan(writer *w, const lbr_plan *p, const lbr_plan_port *inputs, int n, const lbr_plan_port *outputs, int m, int64_t arena)
{
    int number[LBR_OPS], ops = 0;
    int64_t data = 0;
    for (int round = 0; round < 2; round++) {
        if (round && fseek(w->file, 0, SEEK_SET)) w->failed = true;
        int64_t end = w->at;
        w->at = 0;
        put(w, LBR_PLAN_MAGIC, 8);
        put_u32(w, VERSION), put_u32(w, 0), put_u32(w, (uint32_t)ops), put_u32(w, (uint32_t)w->size), put_u32(w, (uint32_t)p->size);
        put_u32(w, (uint32_t)n), put_u32(w, (uint32_t)m), put_u32(w, 0), put_u64(w, arena), put_u64(w, data), put_u64(w, end);
        if (round) return;
        memset(number, -1, sizeof number);
        for (int i = 0; i < p->size; i++) {
            int op = p->steps[i].call.op;
            if (number[op] >= 0) continue;
            number[op] = ops++;
            const lbr_op_row *row = lbr_op_info(op);
            put_text(w, row->name), put_text(w, row->inputs), put_text(w, row->outputs), put_text(w, row->attributes), put_u32(w, (uint32_t)row->attribute_bytes);
        }
        for (int i = 0; i < w->size; i++) {
            const kept *k = w->order[i];
            put_u32(w, (uint32_t)k->kind), put_u32(w, (uint32_t)k->dtype), put_u64(w, k->storage->bytes), put_u64(w, k->place);
        }
        put_ports(w, inputs, n);
        put_ports(w, outputs, m);
        for (int i = 0; i < p->size; i++) {
            const lbr_call *c = &p->steps[i].call;
            put_u32(w, (uint32_t)number[c->op]);
            for (int k = 0; k < c->nin; k++) put_tensor(w, &c->in[k]);
            for (int k = 0; k < c->nout; k++) put_tensor(w, &c->out[k]);
            put_u32(w, c->attr != NULL);
            if (c->attr) put(w, c->attr, lbr_op_attr_bytes(c->op));
        }
        pad(w, ALIGNMENT);
        data = w->at;
        for (int i = 0; i < w->size; i++) {
            if (w->order[i]->kind == SCRATCH) continue;
            put(w, w->order[i]->storage->base, w->order[i]->storage->bytes);
            pad(w, ALIGNMENT);
        }
    }
}

int lbr_plan_write(const lbr_plan *p, const char *path, const lbr_plan_port *inputs, int n, const lbr_plan_port *outputs, int m)
{
    int rc = lbr_plan_ready();
    int64_t arena = 0;
    if (rc) return rc;
    if (!p->size) return lbr_fail(LBR_EINVAL, "plan_write: the plan has no call");
    if (p->device != LBR_CPU) return lbr_fail(LBR_EDEVICE, "plan_write: the plan is on %s, want one of the CPU", p->device < 0 ? "several devices" : lbr_device_label(p->device));
    for (int i = 0; i < n + m; i++) {
        const lbr_plan_port *port = i < n ? &inputs[i] : &outputs[i - n];
        if (!port->tensor->storage || port->tensor->device != LBR_CPU) return lbr_fail(LBR_EINVAL, "plan_write: '%s' is no tensor on the CPU", port->name);
        if (stretched(port->tensor)) return lbr_fail(LBR_EUNSUPPORTED, "plan_write: '%s' %s repeats its elements; copy it in the recorded function", port->name, lbr_describe(port->tensor));
        if (strlen(port->name) > LONGEST_NAME) return lbr_fail(LBR_EINVAL, "plan_write: a name of %zu bytes, want at most %d", strlen(port->name), LONGEST_NAME);
    }
    writer w = {.path = path};
    rc = gather(&w, p, inputs, n, outputs, m, &arena);
    if (!rc && !(w.file = fopen(path, "wb"))) rc = lbr_fail(LBR_EIO, "%s: %s", path, strerror(errno));
    if (!rc) {
        errno = 0;
        put_plan(&w, p, inputs, n, outputs, m, arena);
        int closed = fclose(w.file);
        if (w.failed || closed) rc = lbr_fail(LBR_EIO, "cannot write %s: %s", path, errno == ENOSPC ? "the disk is full (no space left)" : strerror(errno));
    }
    free(w.list), free(w.order);
    return rc;
}
