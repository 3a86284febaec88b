/* plan_file.c: plans from files, checked and run without Lua. plan_write.c writes them. */
#include "plan_file.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- reading ---- */

typedef struct cursor {
    const lbr_reader *r;
    const char *name;
    double at;
    int rc;
} cursor;

#define BROKEN(c, ...) ((c)->rc ? (c)->rc : ((c)->rc = lbr_fail(LBR_EFORMAT, __VA_ARGS__)))

static double take(cursor *c, int kind, int width)
{
    double v = 0;
    if (!c->rc) c->rc = lbr_reader_number(c->r, c->at, kind, &v);
    c->at += width;
    return c->rc ? 0 : v;
}

static uint32_t take_u32(cursor *c) { return (uint32_t)take(c, LBR_READ_U32, 4); }
static int32_t take_i32(cursor *c) { return (int32_t)take(c, LBR_READ_I32, 4); }
static int64_t take_u64(cursor *c) { return (int64_t)take(c, LBR_READ_U64, 8); }

/* A text of the file, to be freed. */
static char *take_text(cursor *c)
{
    uint32_t n = take_u32(c);
    if (!c->rc && n > LONGEST_NAME) BROKEN(c, "%s: a text of %u bytes at byte %.17g", c->name, n, c->at);
    const char *bytes = c->rc ? NULL : lbr_reader_span(c->r, c->at, n);
    c->at += n;
    if (!bytes) {
        c->rc = c->rc ? c->rc : LBR_EFORMAT;
        return NULL;
    }
    char *text = malloc((size_t)n + 1);
    if (!text) {
        c->rc = lbr_fail(LBR_ENOMEM, "%s: out of memory", c->name);
        return NULL;
    }
    memcpy(text, bytes, n);
    text[n] = 0;
    if (strlen(text) != n) BROKEN(c, "%s: a zero byte in a text at byte %.17g", c->name, c->at - n);
    return text;
}

/* Does the file have this text next? */
static bool same_text(cursor *c, const char *want)
{
    char *text = take_text(c);
    bool same = text && !strcmp(text, want);
    free(text);
    return same;
}

typedef struct opening {
    cursor c;
    lbr_plan *plan;
    int ops, storages, calls;
    int64_t data;
    int number[LBR_OPS];
    lbr_storage **storage; /* by number in the file; holds of the opening's own */
    uint8_t *dtype;
    int64_t *reach;        /* last byte that a tensor of it touches */
} opening;

static void read_header(opening *o)
{
    cursor *c = &o->c;
    const char *head = lbr_reader_span(c->r, 0, sizeof LBR_PLAN_MAGIC);
    if (!head || memcmp(head, LBR_PLAN_MAGIC, sizeof LBR_PLAN_MAGIC)) {
        c->rc = lbr_fail(LBR_EFORMAT, "%s: not a plan file", c->name);
        return;
    }
    c->at = sizeof LBR_PLAN_MAGIC;
    uint32_t version = take_u32(c);
    if (!c->rc && version != VERSION) c->rc = lbr_fail(LBR_EUNSUPPORTED, "%s: a plan file of version %u, this library reads %d", c->name, version, VERSION);
    take_u32(c);
    uint32_t ops = take_u32(c), storages = take_u32(c), calls = take_u32(c), inputs = take_u32(c), outputs = take_u32(c);
    take_u32(c);
    int64_t arena = take_u64(c), data = take_u64(c), end = take_u64(c), size = (int64_t)lbr_reader_size(c->r);
    if (c->rc) return;
    if (end != size) BROKEN(c, "%s: the file has %lld bytes, it was written with %lld", c->name, (long long)size, (long long)end);
    if (ops > LBR_OPS || !calls || calls > size / 8 || storages > size / 24 || inputs > size / 8 || outputs > size / 8 || data > size || data % ALIGNMENT)
        BROKEN(c, "%s: %u ops, %u storages, %u calls, %u inputs, %u outputs, data at %lld in a file of %lld bytes", c->name, ops, storages, calls, inputs, outputs, (long long)data,
               (long long)size);
    o->ops = (int)ops, o->storages = (int)storages, o->calls = (int)calls, o->data = data;
    o->plan->inputs = (int)inputs, o->plan->outputs = (int)outputs, o->plan->arena_bytes = arena;
}

static void read_ops(opening *o)
{
    cursor *c = &o->c;
    for (int i = 0; i < o->ops && !c->rc; i++) {
        char *name = take_text(c);
        if (!name) return;
        int op = 0;
        while (op < LBR_OPS && strcmp(lbr_op_name(op), name)) op++;
        const lbr_op_row *row = lbr_op_info(op);
        bool same = row && same_text(c, row->inputs) && same_text(c, row->outputs) && same_text(c, row->attributes) && take_u32(c) == (uint32_t)row->attribute_bytes;
        if (!c->rc && !same) c->rc = lbr_fail(LBR_EUNSUPPORTED, "%s: op '%.64s' is %s in this library; save the plan again", c->name, name, row ? "another one" : "not");
        free(name);
        o->number[i] = op;
    }
}

/* A NaN with a number inside, which Lua would take for one of its own values (reader.c). */
static bool odd_nan(const char *bytes, int dtype, int64_t n)
{
    if (dtype == LBR_F32 || dtype == LBR_F64) {
        int width = lbr_dtype_size(dtype);
        for (int64_t i = 0; i < n; i++) {
            uint64_t bits = 0;
            memcpy(&bits, bytes + i * width, (size_t)width);
            if (width == 4 ? (bits & 0x7fffffff) > 0x7fc00000 || ((bits & 0x7fffffff) > 0x7f800000 && (bits & 0x7fffffff) != 0x7fc00000)
                           : (bits << 1) > 0xffe0000000000000u && (bits << 1) != 0xfff0000000000000u) return true;
        }
    } else if (dtype == LBR_F16 || dtype == LBR_BF16) {
        int infinity = dtype == LBR_F16 ? 0x7c00 : 0x7f80, quiet = dtype == LBR_F16 ? 0x7e00 : 0x7fc0;
        for (int64_t i = 0; i < n; i++) {
            uint16_t bits;
            memcpy(&bits, bytes + 2 * i, 2);
            if ((bits & 0x7fff) > infinity && (bits & 0x7fff) != quiet) return true;
        }
    }
    return false;
}

static const int reading[LBR_DTYPES] = {[LBR_F32] = LBR_READ_F32, [LBR_F64] = LBR_READ_F64, [LBR_F16] = LBR_READ_F16, [LBR_BF16] = LBR_READ_BF16};

/* Numbers of the file: constants where they lie, others in memory of their own. */
static lbr_storage *stored(opening *o, int kind, int dtype, int64_t bytes, int64_t place)
{
    cursor *c = &o->c;
    int width = lbr_dtype_size(dtype);
    const char *there = lbr_reader_span(c->r, (double)(o->data + place), (double)bytes);
    if (!there) {
        c->rc = LBR_EFORMAT;
        return NULL;
    }
    bool odd = odd_nan(there, dtype, bytes / width);
    if (kind == CONSTANT && !odd && (uintptr_t)there % ALIGNMENT == 0) return lbr_storage_over((char *)there, bytes, LBR_STORAGE_LENT | LBR_STORAGE_CONSTANT);
    char *own = lbr_alloc(bytes);
    if (!own) return NULL;
    if (odd) c->rc = lbr_reader_reals(c->r, (double)(o->data + place), (double)(bytes / width), reading[dtype], own, (double)(bytes / width));
    else memcpy(own, there, (size_t)bytes);
    lbr_storage *s = lbr_storage_over(own, bytes, kind == CONSTANT ? LBR_STORAGE_CONSTANT : 0);
    if (!s) lbr_free(own, bytes);
    return s;
}

static void read_storages(opening *o)
{
    cursor *c = &o->c;
    lbr_plan *p = o->plan;
    double list = c->at, room = 0;
    for (int i = 0; i < o->storages && !c->rc; i++) { /* the arena is no larger than what lies in it */
        uint32_t kind = take_u32(c), dtype = take_u32(c);
        int64_t bytes = take_u64(c), place = take_u64(c);
        if (!c->rc && (kind >= STORAGES || dtype >= LBR_DTYPES || bytes % lbr_dtype_size((int)dtype) || place % ALIGNMENT))
            BROKEN(c, "%s: storage %d of kind %u, type %u: %lld bytes at %lld", c->name, i + 1, kind, dtype, (long long)bytes, (long long)place);
        if (kind == SCRATCH) room += (double)aligned(bytes, ARENA_ALIGNMENT);
        if (!c->rc && kind == SCRATCH && (place > p->arena_bytes || bytes > p->arena_bytes - place))
            BROKEN(c, "%s: storage %d: %lld bytes at %lld of an arena of %lld", c->name, i + 1, (long long)bytes, (long long)place, (long long)p->arena_bytes);
    }
    if (!c->rc && (double)p->arena_bytes > room) BROKEN(c, "%s: an arena of %lld bytes for %.17g", c->name, (long long)p->arena_bytes, room);
    if (c->rc) return;
    o->storage = calloc((size_t)o->storages + 1, sizeof *o->storage);
    o->dtype = calloc((size_t)o->storages + 1, 1);
    o->reach = calloc((size_t)o->storages + 1, sizeof *o->reach);
    if (!o->storage || !o->dtype || !o->reach) c->rc = lbr_fail(LBR_ENOMEM, "%s: out of memory", c->name);
    c->at = list;
    for (int i = 0; i < o->storages && !c->rc; i++) {
        int kind = (int)take_u32(c);
        o->dtype[i] = (uint8_t)take_u32(c);
        int64_t bytes = take_u64(c), place = take_u64(c);
        /* the arena comes when all of the file is checked: until then a scratch storage is an offset from nothing */
        o->storage[i] = kind == SCRATCH ? lbr_storage_over((char *)(intptr_t)(ARENA_ALIGNMENT + place), bytes, LBR_STORAGE_LENT) : stored(o, kind, o->dtype[i], bytes, place);
        if (!c->rc && !o->storage[i]) c->rc = lbr_out_of_memory(LBR_CPU, "plan file: ", bytes);
    }
}

static void read_tensor(opening *o, lbr_tensor *t)
{
    cursor *c = &o->c;
    memset(t, 0, sizeof *t);
    uint32_t number = take_u32(c);
    if (c->rc || number == UINT32_MAX) return;
    uint32_t ndim = take_u32(c);
    int64_t offset = take_u64(c);
    int32_t shape[LBR_MAX_DIMS], stride[LBR_MAX_DIMS];
    if (!c->rc && (number >= (uint32_t)o->storages || ndim > LBR_MAX_DIMS)) BROKEN(c, "%s: storage %u of %d, %u dims before byte %.17g", c->name, number, o->storages, ndim, c->at);
    for (uint32_t i = 0; i < ndim && !c->rc; i++) shape[i] = take_i32(c), stride[i] = take_i32(c);
    if (c->rc) return;
    lbr_storage *s = o->storage[number];
    int width = lbr_dtype_size(o->dtype[number]);
    lbr_tensor all = {.storage = s, .data = s->base, .dtype = o->dtype[number]};
    if (offset % width || lbr_tensor_view(&all, t, (int)ndim, shape, stride, offset / width)) {
        memset(t, 0, sizeof *t);
        BROKEN(c, "%s: a tensor before byte %.17g lies outside of storage %u", c->name, c->at, number + 1);
        return;
    }
    if (!lbr_tensor_numel(t)) return;
    const char *low, *high;
    lbr_span(t, &low, &high);
    if (high - s->base > o->reach[number]) o->reach[number] = high - s->base;
}

static void read_ports(opening *o)
{
    cursor *c = &o->c;
    lbr_plan *p = o->plan;
    int n = p->inputs + p->outputs;
    p->ports = calloc((size_t)n + 1, sizeof *p->ports);
    if (!p->ports) c->rc = lbr_fail(LBR_ENOMEM, "%s: out of memory", c->name);
    for (int i = 0; i < n && !c->rc; i++) {
        lbr_port *port = &p->ports[i];
        port->name = take_text(c);
        read_tensor(o, &port->tensor);
        if (c->rc) return;
        const lbr_tensor *t = &port->tensor;
        if (!t->storage || stretched(t)) BROKEN(c, "%s: input or output %d has no tensor, or one larger than its storage", c->name, i + 1);
        else if (i < p->inputs && (!lbr_tensor_contiguous(t) || t->storage->flags & LBR_STORAGE_CONSTANT)) BROKEN(c, "%s: input %d is a constant or part of a tensor", c->name, i + 1);
    }
}

/* How many words, each followed by a blank. */
static int words(const char *text)
{
    int n = 0;
    for (; *text; text++) n += *text == ' ';
    return n;
}

static void read_call(opening *o, int i)
{
    cursor *c = &o->c;
    lbr_plan *p = o->plan;
    uint32_t number = take_u32(c);
    if (!c->rc && number >= (uint32_t)o->ops) BROKEN(c, "%s: call %d of op %u, there are %d", c->name, i + 1, number, o->ops);
    if (c->rc || (c->rc = lbr_plan_grow(p))) return;
    lbr_step *s = &p->steps[p->size++];
    memset(s, 0, sizeof *s);
    lbr_call *call = &s->call;
    call->op = o->number[number];
    const lbr_op_row *row = lbr_op_info(call->op);
    call->nin = words(row->inputs), call->nout = words(row->outputs);
    for (int k = 0; k < call->nin; k++) read_tensor(o, &call->in[k]);
    for (int k = 0; k < call->nout; k++) read_tensor(o, &call->out[k]);
    uint32_t has = take_u32(c);
    if (!c->rc && (has > 1 || (!has && *row->attributes))) BROKEN(c, "%s: call %d (%s): no attributes", c->name, i + 1, row->name);
    if (!c->rc && has) {
        call->attr = s->attr = malloc((size_t)row->attribute_bytes);
        if (!s->attr) c->rc = lbr_fail(LBR_ENOMEM, "%s: out of memory", c->name);
        else c->rc = lbr_reader_copy(c->r, c->at, row->attribute_bytes, s->attr, row->attribute_bytes);
        c->at += row->attribute_bytes;
    }
    if (c->rc || !lbr_call_check(call)) return;
    char why[400];
    snprintf(why, sizeof why, "%s", lbr_error());
    BROKEN(c, "%s: call %d: %s", c->name, i + 1, why);
}

/* Memory for what calls make, of zeros, and every scratch tensor moved into it. */
static void place_arena(opening *o)
{
    cursor *c = &o->c;
    lbr_plan *p = o->plan;
    for (int i = 0; i < o->storages && !c->rc; i++)
        if (!(o->storage[i]->flags & LBR_STORAGE_CONSTANT) && o->storage[i]->flags & LBR_STORAGE_LENT && o->storage[i]->bytes > o->reach[i])
            BROKEN(c, "%s: storage %d has %lld bytes, %lld of them are used", c->name, i + 1, (long long)o->storage[i]->bytes, (long long)o->reach[i]);
    if (c->rc) return;
    p->arena = lbr_alloc(p->arena_bytes);
    if (!p->arena) {
        c->rc = lbr_out_of_memory(LBR_CPU, "plan file: ", p->arena_bytes);
        return;
    }
    memset(p->arena, 0, (size_t)p->arena_bytes);
    for (int i = 0; i < p->size + p->inputs + p->outputs; i++) {
        lbr_call *call = i < p->size ? &p->steps[i].call : NULL;
        int n = call ? call->nin + call->nout : 1;
        for (int k = 0; k < n; k++) {
            lbr_tensor *t = !call ? &p->ports[i - p->size].tensor : k < call->nin ? &call->in[k] : &call->out[k - call->nin];
            if (t->storage && (t->storage->flags & (LBR_STORAGE_LENT | LBR_STORAGE_CONSTANT)) == LBR_STORAGE_LENT) t->data = p->arena + ((intptr_t)t->data - ARENA_ALIGNMENT);
        }
    }
    for (int i = 0; i < o->storages; i++)
        if ((o->storage[i]->flags & (LBR_STORAGE_LENT | LBR_STORAGE_CONSTANT)) == LBR_STORAGE_LENT)
            o->storage[i]->base = p->arena + ((intptr_t)o->storage[i]->base - ARENA_ALIGNMENT);
}

int lbr_plan_read(lbr_reader *reader, lbr_plan **plan)
{
    *plan = NULL;
    int ready = lbr_plan_ready();
    opening o = {.c = {.r = reader, .name = lbr_reader_name(reader)}, .plan = ready ? NULL : calloc(1, sizeof *o.plan)};
    if (!o.plan) {
        lbr_reader_close(reader);
        return ready ? ready : lbr_fail(LBR_ENOMEM, "plan_open: out of memory");
    }
    o.plan->file = reader;
    read_header(&o);
    if (!o.c.rc) read_ops(&o);
    if (!o.c.rc) read_storages(&o);
    if (!o.c.rc) read_ports(&o);
    for (int i = 0; i < o.calls && !o.c.rc; i++) read_call(&o, i);
    if (!o.c.rc && (o.c.at > (double)o.data || (double)o.data - o.c.at >= ALIGNMENT)) BROKEN(&o.c, "%s: the calls end at byte %.17g, the data begins at %lld", o.c.name, o.c.at, (long long)o.data);
    if (!o.c.rc) place_arena(&o);
    for (int i = 0; o.storage && i < o.storages; i++)
        if (o.storage[i]) lbr_storage_release(o.storage[i]);
    free(o.storage), free(o.dtype), free(o.reach);
    if (o.c.rc) {
        if (!o.plan->arena) o.plan->arena_bytes = 0;
        lbr_plan_free(o.plan);
        return o.c.rc;
    }
    *plan = o.plan;
    return 0;
}

int lbr_plan_open(const char *path, lbr_plan **plan)
{
    lbr_reader *reader;
    *plan = NULL;
    int rc = lbr_reader_open(path, &reader);
    return rc ? rc : lbr_plan_read(reader, plan);
}

/* ---- running ---- */

int lbr_plan_inputs(const lbr_plan *p) { return p->inputs; }
int lbr_plan_outputs(const lbr_plan *p) { return p->outputs; }

static int value_of(const lbr_plan *p, const char *what, int i, int n, int first, lbr_plan_value *value)
{
    if (i < 0 || i >= n) return lbr_fail(LBR_EINVAL, "plan: %s %d of %d", what, i + 1, n);
    const lbr_tensor *t = &p->ports[first + i].tensor;
    *value = (lbr_plan_value){.name = p->ports[first + i].name, .dtype = t->dtype, .ndim = t->ndim, .bytes = lbr_tensor_numel(t) * lbr_dtype_size(t->dtype)};
    memcpy(value->shape, t->shape, sizeof value->shape);
    return 0;
}

int lbr_plan_input(const lbr_plan *p, int i, lbr_plan_value *value) { return value_of(p, "input", i, p->inputs, 0, value); }
int lbr_plan_output(const lbr_plan *p, int i, lbr_plan_value *value) { return value_of(p, "output", i, p->outputs, p->inputs, value); }

/* Elements of t from dim d on to `to`, in C order; returns where the next goes. */
static char *spill(const lbr_tensor *t, int d, const char *from, char *to)
{
    int width = lbr_dtype_size(t->dtype);
    if (d == t->ndim) {
        memcpy(to, from, (size_t)width);
        return to + width;
    }
    for (int i = 0; i < t->shape[d]; i++) to = spill(t, d + 1, from + (int64_t)i * t->stride[d] * width, to);
    return to;
}

int lbr_plan_apply(lbr_plan *p, const void *const *in, void *const *out)
{
    if (!p->ports) return lbr_fail(LBR_EINVAL, "plan_apply: the plan is not from a file");
    for (int i = 0; i < p->inputs; i++)
        if (!in || !in[i]) return lbr_fail(LBR_EINVAL, "plan_apply: input %d '%s' is missing", i + 1, p->ports[i].name);
    for (int i = 0; i < p->inputs; i++) {
        lbr_tensor *t = &p->ports[i].tensor;
        memcpy(t->data, in[i], (size_t)(lbr_tensor_numel(t) * lbr_dtype_size(t->dtype)));
        t->storage->version++;
    }
    int rc = lbr_plan_run(p);
    for (int i = 0; i < p->outputs && !rc; i++) {
        const lbr_tensor *t = &p->ports[p->inputs + i].tensor;
        if (!out || !out[i] || !lbr_tensor_numel(t)) continue;
        if (lbr_tensor_contiguous(t)) memcpy(out[i], t->data, (size_t)(lbr_tensor_numel(t) * lbr_dtype_size(t->dtype)));
        else spill(t, 0, t->data, out[i]);
    }
    return rc;
}
