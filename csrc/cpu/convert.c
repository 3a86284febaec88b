/* convert.c: elements of every dtype to and from f32 and f64 in blocks, and the cast op. No arithmetic. */
#include "../device.h"
#include "cpu.h"

float lbr_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    union { uint32_t u; float f; } v;
    if (e == 31) v.u = sign | 0x7f800000 | m << 13;
    else if (e) v.u = sign | (e + 112) << 23 | m << 13;
    else {
        v.f = (float)m * 5.9604644775390625e-8f; /* 2^-24 */
        v.u |= sign;
    }
    return v.f;
}

uint16_t lbr_float_to_half(float f)
{
    union { float f; uint32_t u; } v = {f};
    uint32_t sign = v.u >> 16 & 0x8000, a = v.u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more round to infinity */
    if (a < 0x38800000) { /* subnormal: let the FPU round */
        union { float f; uint32_t u; } s;
        s.f = fabsf(f) + 0.5f;
        return (uint16_t)(sign | (s.u - 0x3f000000));
    }
    uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + odd) >> 13));
}

static inline float bf16_to_float(uint16_t h)
{
    union { uint32_t u; float f; } v = {(uint32_t)h << 16};
    return v.f;
}

static inline uint16_t float_to_bf16(float f)
{
    union { float f; uint32_t u; } v = {f};
    if ((v.u & 0x7fffffff) > 0x7f800000) return (uint16_t)(v.u >> 16 | 0x40);
    return (uint16_t)((v.u + 0x7fff + (v.u >> 16 & 1)) >> 16);
}

static inline uint8_t to_u8(double v) { return v != v ? 0 : v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)nearbyint(v); }
static inline int32_t to_i32(double v) { return v != v ? 0 : v <= -2147483648.0 ? INT32_MIN : v >= 2147483647.0 ? INT32_MAX : (int32_t)nearbyint(v); }

#define LOAD(T, expression) \
    { const T *q = (const T *)p; for (int64_t i = 0; i < n; i++) { T e = q[i * stride]; out[i] = expression; } break; }
#define STORE(T, expression) \
    { T *q = (T *)p; for (int64_t i = 0; i < n; i++) { q[i * stride] = expression; } break; }

LBR_CLONES void lbr_load_f32(int dtype, const char *p, int64_t stride, int64_t n, float *out)
{
    switch (dtype) {
    case LBR_F32: LOAD(float, e)
    case LBR_F64: LOAD(double, (float)e)
    case LBR_F16: LOAD(uint16_t, lbr_half_to_float(e))
    case LBR_BF16: LOAD(uint16_t, bf16_to_float(e))
    case LBR_U8: LOAD(uint8_t, (float)e)
    case LBR_I32: LOAD(int32_t, (float)e)
    }
}

LBR_CLONES void lbr_load_f64(int dtype, const char *p, int64_t stride, int64_t n, double *out)
{
    switch (dtype) {
    case LBR_F32: LOAD(float, (double)e)
    case LBR_F64: LOAD(double, e)
    case LBR_F16: LOAD(uint16_t, (double)lbr_half_to_float(e))
    case LBR_BF16: LOAD(uint16_t, (double)bf16_to_float(e))
    case LBR_U8: LOAD(uint8_t, (double)e)
    case LBR_I32: LOAD(int32_t, (double)e)
    }
}

LBR_CLONES void lbr_store_f32(int dtype, const float *in, int64_t n, char *p, int64_t stride)
{
    switch (dtype) {
    case LBR_F32: STORE(float, in[i])
    case LBR_F64: STORE(double, (double)in[i])
    case LBR_F16: STORE(uint16_t, lbr_float_to_half(in[i]))
    case LBR_BF16: STORE(uint16_t, float_to_bf16(in[i]))
    case LBR_U8: STORE(uint8_t, (uint8_t)(int32_t)rintf(in[i] >= 0 ? in[i] <= 255 ? in[i] : 255 : 0))
    case LBR_I32: STORE(int32_t, to_i32(in[i]))
    }
}

LBR_CLONES void lbr_store_f64(int dtype, const double *in, int64_t n, char *p, int64_t stride)
{
    switch (dtype) {
    case LBR_F32: STORE(float, (float)in[i])
    case LBR_F64: STORE(double, in[i])
    case LBR_F16: STORE(uint16_t, lbr_float_to_half((float)in[i]))
    case LBR_BF16: STORE(uint16_t, float_to_bf16((float)in[i]))
    case LBR_U8: STORE(uint8_t, to_u8(in[i]))
    case LBR_I32: STORE(int32_t, to_i32(in[i]))
    }
}

struct cast { int from, to; };

static void cast_run(void *ctx, int64_t n, char *const *data, const int64_t *stride)
{
    const struct cast *k = ctx;
    int to = lbr_dtype_size(k->to), from = lbr_dtype_size(k->from);
    bool wide = k->from == LBR_F64 || k->to == LBR_F64 || k->from == LBR_I32 || k->to == LBR_I32;
    for (int64_t i = 0; i < n; i += 256) {
        int64_t m = n - i < 256 ? n - i : 256;
        const char *x = data[1] + i * stride[1];
        char *y = data[0] + i * stride[0];
        if (wide) {
            double block[256];
            lbr_load_f64(k->from, x, stride[1] / from, m, block);
            lbr_store_f64(k->to, block, m, y, stride[0] / to);
        } else {
            float block[256];
            lbr_load_f32(k->from, x, stride[1] / from, m, block);
            lbr_store_f32(k->to, block, m, y, stride[0] / to);
        }
    }
}

int lbr_cpu_cast(lbr_call *c)
{
    struct cast k = {c->in[0].dtype, c->out[0].dtype};
    const lbr_tensor *in[] = {&c->in[0]};
    lbr_walk w;
    lbr_walk_init(&w, &c->out[0], in, 1);
    lbr_walk_run(&w, cast_run, &k);
    return 0;
}

int lbr_element_get(const lbr_tensor *t, int64_t offset, double *value)
{
    int size = lbr_dtype_size(t->dtype);
    const char *p = t->data + offset * size;
    const lbr_backend *b = lbr_backend_of(t->device);
    char bytes[8];
    int rc = b ? b->download(lbr_device_number(t->device), bytes, p, size) : 0;
    if (rc) *value = NAN;
    else lbr_load_f64(t->dtype, b ? bytes : p, 1, 1, value);
    return rc;
}

int lbr_element_set(lbr_tensor *t, int64_t offset, double value)
{
    int size = lbr_dtype_size(t->dtype), rc = 0;
    char *p = t->data + offset * size, bytes[8];
    const lbr_backend *b = lbr_backend_of(t->device);
    lbr_store_f64(t->dtype, &value, 1, b ? bytes : p, 1);
    if (b) rc = b->upload(lbr_device_number(t->device), p, bytes, size);
    if (!rc) t->storage->version++;
    return rc;
}

/* ---- copies: bytes by element size ---- */

#define MOVE(T) \
    { for (int64_t i = 0; i < n; i++) *(T *)(y + i * stride[0]) = *(const T *)(x + i * stride[1]); break; }

static void copy_run(void *ctx, int64_t n, char *const *data, const int64_t *stride)
{
    int size = *(const int *)ctx;
    const char *x = data[1];
    char *y = data[0];
    if (stride[0] == size && stride[1] == size) {
        memmove(y, x, (size_t)(n * size));
        return;
    }
    switch (size) {
    case 1: MOVE(uint8_t)
    case 2: MOVE(uint16_t)
    case 4: MOVE(uint32_t)
    case 8: MOVE(uint64_t)
    }
}

/* Short dense runs, one behind the other in two dims: parts of pixels. */
struct runs { const char *x; char *y; int64_t bytes, from, to; };

#define RUNS(size) \
    { for (int64_t i = begin; i < end; i++) memcpy(r->y + i * r->to, r->x + i * r->from, size); return; }

static void copy_runs(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct runs *r = ctx;
    switch (r->bytes) {
    case 4: RUNS(4)
    case 8: RUNS(8)
    case 16: RUNS(16)
    case 32: RUNS(32)
    case 64: RUNS(64)
    }
    for (int64_t i = begin; i < end; i++) {
        const char *x = r->x + i * r->from;
        char *y = r->y + i * r->to;
        int64_t k = 0;
        for (; k + 16 <= r->bytes; k += 16) memcpy(y + k, x + k, 16);
        for (; k + 4 <= r->bytes; k += 4) memcpy(y + k, x + k, 4);
        for (; k < r->bytes; k++) y[k] = x[k];
    }
}

static bool by_runs(const lbr_walk *w, int size)
{
    enum { MOST = 512, GRAIN = 1 << 16 };
    if (w->ndim != 2) return false;
    const int d = w->stride[0][0] == size && w->stride[1][0] == size ? 0 : 1; /* the dim of a run: a short one is not the last */
    if (w->stride[0][d] != size || w->stride[1][d] != size || w->shape[d] < 1 || w->shape[d] * size > MOST) return false;
    struct runs r = {w->data[1], w->data[0], w->shape[d] * size, w->stride[1][1 - d], w->stride[0][1 - d]};
    lbr_parallel(w->shape[1 - d], 1 + GRAIN / r.bytes, copy_runs, &r);
    return true;
}

/* A change of the order of dims: dim `down` lies dense in x, dim `across` in y. Squares of them go through the cache together. */
struct turn {
    const lbr_walk *w;
    int size, down, across;
    int64_t strips; /* of TILE along `down` */
};

enum { TILE = 32 };

#define SQUARE(T) \
    { for (int64_t i = 0; i < m; i++) for (int64_t k = 0; k < n; k++) *(T *)(y + i * sy + k * (int64_t)sizeof(T)) = *(const T *)(x + i * (int64_t)sizeof(T) + k * sx); break; }

static void square(int size, char *y, int64_t sy, const char *x, int64_t sx, int64_t m, int64_t n)
{
    switch (size) {
    case 1: SQUARE(uint8_t)
    case 2: SQUARE(uint16_t)
    case 4: SQUARE(uint32_t)
    case 8: SQUARE(uint64_t)
    }
}

static void turn_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct turn *t = ctx;
    const lbr_walk *w = t->w;
    for (int64_t job = begin; job < end; job++) {
        int64_t rest = job / t->strips, first = job % t->strips * TILE, m = w->shape[t->down] - first;
        char *y = w->data[0] + first * w->stride[0][t->down];
        const char *x = w->data[1] + first * t->size;
        if (m > TILE) m = TILE;
        for (int d = w->ndim - 1; d >= 0; d--) {
            if (d == t->down || d == t->across) continue;
            y += rest % w->shape[d] * w->stride[0][d];
            x += rest % w->shape[d] * w->stride[1][d];
            rest /= w->shape[d];
        }
        for (int64_t k = 0; k < w->shape[t->across]; k += TILE) {
            int64_t n = w->shape[t->across] - k < TILE ? w->shape[t->across] - k : TILE;
            square(t->size, y + k * t->size, w->stride[0][t->down], x + k * w->stride[1][t->across], w->stride[1][t->across], m, n);
        }
    }
}

/* Does it as a turn where it is one that is worth it. */
static bool turned(const lbr_walk *w, int size)
{
    enum { LEAST = 8, GRAIN = 16384 };
    struct turn t = {w, size, -1, -1, 0};
    int64_t jobs = 1, work;
    for (int d = 0; d < w->ndim; d++) {
        if (w->stride[0][d] == size && w->shape[d] >= LEAST) t.across = d;
        if (w->stride[1][d] == size && w->shape[d] >= LEAST) t.down = d;
    }
    if (t.across < 0 || t.down < 0 || t.across == t.down) return false;
    for (int d = 0; d < w->ndim; d++)
        if (d != t.down && d != t.across) jobs *= w->shape[d];
    t.strips = (w->shape[t.down] + TILE - 1) / TILE;
    work = TILE * w->shape[t.across];
    lbr_parallel(jobs * t.strips, 1 + GRAIN / work, turn_range, &t);
    return true;
}

static int copy(const lbr_tensor *x, const lbr_tensor *y)
{
    if (x->dtype != y->dtype) {
        struct cast k = {x->dtype, y->dtype};
        const lbr_tensor *in[] = {x};
        lbr_walk w;
        lbr_walk_init(&w, y, in, 1);
        lbr_walk_run(&w, cast_run, &k);
        return 0;
    }
    int size = lbr_dtype_size(x->dtype);
    const lbr_tensor *in[] = {x};
    lbr_walk w;
    lbr_walk_init(&w, y, in, 1);
    if (!turned(&w, size) && !by_runs(&w, size)) lbr_walk_run(&w, copy_run, &size);
    return 0;
}

int lbr_cpu_copy(lbr_call *c) { return copy(&c->in[0], &c->out[0]); }
int lbr_cpu_copy_into(lbr_call *c) { return copy(&c->in[0], &c->out[0]); }

int lbr_cpu_concat(lbr_call *c)
{
    const lbr_concat_attr *a = c->attr;
    int64_t at = 0;
    for (int i = 0; i < c->nin; i++) {
        if (!lbr_present(&c->in[i])) continue;
        lbr_tensor part = c->out[0];
        part.data += at * part.stride[a->dim] * lbr_dtype_size(part.dtype);
        part.shape[a->dim] = c->in[i].shape[a->dim];
        at += part.shape[a->dim];
        if (lbr_tensor_numel(&part)) copy(&c->in[i], &part);
    }
    return 0;
}

static int fill(lbr_tensor *y, double value)
{
    double wide = value;
    char element[8];
    lbr_store_f64(y->dtype, &wide, 1, element, 1);
    lbr_tensor one = *y;
    one.data = element;
    memset(one.stride, 0, sizeof one.stride);
    return copy(&one, y);
}

int lbr_cpu_fill(lbr_call *c) { return fill(&c->out[0], ((const lbr_fill_attr *)c->attr)->value); }
int lbr_cpu_fill_into(lbr_call *c) { return fill(&c->out[0], ((const lbr_fill_into_attr *)c->attr)->value); }

int lbr_cpu_pad(lbr_call *c)
{
    const lbr_pad_attr *a = c->attr;
    lbr_tensor inner = c->out[0];
    fill(&c->out[0], a->value);
    for (int i = 0; i < inner.ndim; i++) {
        inner.data += (int64_t)a->before[i] * inner.stride[i] * lbr_dtype_size(inner.dtype);
        inner.shape[i] = c->in[0].shape[i];
    }
    return lbr_tensor_numel(&inner) ? copy(&c->in[0], &inner) : 0;
}
