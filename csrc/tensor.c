/* tensor.c: storages, views, and the caching allocator behind them. No arithmetic. */
#include "device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- allocator: power-of-two-ish size classes, 64-byte aligned blocks, freed blocks kept up to a budget ---- */

enum { CLASSES = 160, ALIGNMENT = 64 };
static const int64_t cache_budget = (int64_t)1 << 30;

struct block { struct block *next; };
static struct block *cache[CLASSES];
static int64_t live, peak, cached, held, storages[LBR_DEVICES], fail_countdown, fail_stays; /* held: by storages on other devices */

static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER; /* for plans that run side by side; else only the Lua thread comes here */

static void *take(int64_t bytes)
{
    int64_t size;
    if (fail_countdown > 0 && --fail_countdown == 0) {
        fail_countdown = fail_stays;
        return NULL;
    }
    if (bytes < 0 || bytes > (int64_t)1 << 46) return NULL;
    int k = lbr_size_class(bytes < 1 ? 1 : bytes, 256, CLASSES, &size);
    struct block *b = cache[k];
    if (b) {
        cache[k] = b->next;
        cached -= size;
    } else {
        b = aligned_alloc(ALIGNMENT, (size_t)size);
        if (!b && cached) {
            lbr_memory_trim(LBR_CPU);
            b = aligned_alloc(ALIGNMENT, (size_t)size);
        }
        if (!b) return NULL;
    }
    live += size;
    if (live > peak) peak = live;
    return b;
}

void *lbr_alloc(int64_t bytes)
{
    if (!lbr_is_side_by_side()) return take(bytes);
    pthread_mutex_lock(&door);
    void *p = take(bytes);
    pthread_mutex_unlock(&door);
    return p;
}

static void give(void *p, int64_t bytes)
{
    int64_t size;
    int k = lbr_size_class(bytes < 1 ? 1 : bytes, 256, CLASSES, &size);
    live -= size;
    if (cached + size > cache_budget) {
        free(p);
        return;
    }
    struct block *b = p;
    b->next = cache[k];
    cache[k] = b;
    cached += size;
}

void lbr_free(void *p, int64_t bytes)
{
    if (!p) return;
    bool locked = lbr_is_side_by_side();
    if (locked) pthread_mutex_lock(&door);
    give(p, bytes);
    if (locked) pthread_mutex_unlock(&door);
}

void *lbr_alloc_on(int device, int64_t bytes)
{
    const lbr_backend *b = lbr_backend_of(device);
    return b ? b->alloc(lbr_device_number(device), bytes) : lbr_alloc(bytes);
}

void lbr_free_on(int device, void *p, int64_t bytes)
{
    const lbr_backend *b = lbr_backend_of(device);
    if (b) b->free(lbr_device_number(device), p, bytes);
    else lbr_free(p, bytes);
}

void lbr_memory_trim(int device)
{
    const lbr_backend *b = lbr_backend_of(device);
    if (b) b->trim(lbr_device_number(device));
    if (device != LBR_CPU) return;
    for (int k = 0; k < CLASSES; k++)
        while (cache[k]) {
            struct block *b = cache[k];
            cache[k] = b->next;
            free(b);
        }
    cached = 0;
}

static int64_t figure(int device, int what, int64_t of_cpu)
{
    const lbr_backend *b = lbr_backend_of(device);
    return b ? b->memory(lbr_device_number(device), what) : device == LBR_CPU ? of_cpu : 0;
}

int64_t lbr_memory_live(int device) { return figure(device, LBR_MEMORY_LIVE, live); }
int64_t lbr_memory_peak(int device) { return figure(device, LBR_MEMORY_PEAK, peak); }
int64_t lbr_memory_cached(int device) { return figure(device, LBR_MEMORY_CACHED, cached); }
int64_t lbr_memory_storages(int device) { return device >= 0 && device < LBR_DEVICES ? storages[device] : 0; }
void lbr_memory_reset_peak(int device)
{
    const lbr_backend *b = lbr_backend_of(device);
    if (b) b->reset_peak(lbr_device_number(device));
    else if (device == LBR_CPU) peak = live;
}
int64_t lbr_memory_total(int device) { return figure(device, LBR_MEMORY_TOTAL, 0); }
int64_t lbr_memory_held(void) { return live + held; }

int lbr_out_of_memory(int device, const char *what, int64_t bytes)
{
    const lbr_backend *b = lbr_backend_of(device);
    char all[96] = "";
    int gone = b ? b->synchronize(lbr_device_number(device)) : 0;
    if (gone) { /* a device that failed gives no memory either */
        char why[256];
        snprintf(why, sizeof why, "%s", lbr_error());
        return lbr_fail(gone, "%s%s", what, why);
    }
    if (b) snprintf(all, sizeof all, ", %lld free of %lld; a smaller batch wants less", (long long)figure(device, LBR_MEMORY_FREE, 0), (long long)lbr_memory_total(device));
    return lbr_fail(LBR_ENOMEM, "%sout of memory on %s: %lld bytes wanted, %lld live, %lld cached%s", what, lbr_device_label(device), (long long)bytes,
                    (long long)lbr_memory_live(device), (long long)lbr_memory_cached(device), all);
}

void lbr_memory_fail_at(int64_t n)
{
    fail_countdown = n < 0 ? -n : n;
    fail_stays = n < 0;
}

/* ---- storages ---- */

void lbr_storage_retain(lbr_storage *s) { s->refs++; }

void lbr_storage_release(lbr_storage *s)
{
    if (--s->refs > 0) return;
    if (s->base && !(s->flags & LBR_STORAGE_LENT)) lbr_free_on(s->device, s->base, s->bytes); /* lent: the memory belongs to a plan's arena or file, or there is none */
    if (s->device != LBR_CPU) held -= s->bytes;
    storages[s->device]--;
    free(s);
}

/* ---- tensors ---- */

static const int dtype_sizes[LBR_DTYPES] = {[LBR_F32] = 4, [LBR_F64] = 8, [LBR_F16] = 2, [LBR_BF16] = 2, [LBR_U8] = 1, [LBR_I32] = 4};
static const char *const dtype_names[LBR_DTYPES] = {[LBR_F32] = "f32", [LBR_F64] = "f64", [LBR_F16] = "f16", [LBR_BF16] = "bf16", [LBR_U8] = "u8", [LBR_I32] = "i32"};
const char *lbr_dtype_name(int dtype) { return dtype_names[dtype]; }

int lbr_dtype_size(int dtype) { return dtype >= 0 && dtype < LBR_DTYPES ? dtype_sizes[dtype] : 0; }

const char *lbr_describe(const lbr_tensor *t)
{
    static __thread char text[4][256];
    static __thread int turn;
    char *s = text[turn = (turn + 1) & 3];
    if (!t->storage) return "nothing";
    int n = snprintf(s, 256, "%s [", t->dtype < LBR_DTYPES ? dtype_names[t->dtype] : "?");
    for (int i = 0; i < t->ndim && n < 240; i++) n += snprintf(s + n, (size_t)(256 - n), i ? ",%d" : "%d", t->shape[i]);
    snprintf(s + n, (size_t)(256 - n), "]");
    return s;
}

int64_t lbr_tensor_numel(const lbr_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

int lbr_tensor_contiguous(const lbr_tensor *t)
{
    int64_t want = 1;
    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] == 0) return 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != want) return 0;
        want *= t->shape[i];
    }
    return 1;
}

static int set_shape(lbr_tensor *t, int dtype, int ndim, const int32_t *shape)
{
    if (dtype < 0 || dtype >= LBR_DTYPES) return lbr_fail(LBR_EDTYPE, "tensor_new: dtype %d, want 0..%d", dtype, LBR_DTYPES - 1);
    if (ndim < 0 || ndim > LBR_MAX_DIMS) return lbr_fail(LBR_ESHAPE, "tensor_new: %d dims, want at most %d", ndim, LBR_MAX_DIMS);
    int64_t n = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        if (shape[i] < 0) return lbr_fail(LBR_ESHAPE, "tensor_new: size %d in dim %d", shape[i], i + 1);
        t->shape[i] = shape[i];
        t->stride[i] = (int32_t)n;
        n *= shape[i];
        if (n > INT32_MAX) return lbr_fail(LBR_ESHAPE, "tensor_new: more than 2^31 elements");
    }
    t->ndim = (uint8_t)ndim;
    t->dtype = (uint8_t)dtype;
    return 0;
}

static uint64_t last_id;

lbr_storage *lbr_storage_over(char *base, int64_t bytes, uint32_t flags)
{
    lbr_storage *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    *s = (lbr_storage){.base = base, .bytes = bytes, .id = ++last_id, .refs = 1, .device = LBR_CPU, .flags = flags};
    storages[LBR_CPU]++;
    return s;
}

static int make_tensor(lbr_tensor *t, int dtype, int ndim, const int32_t *shape, int device, bool dry)
{
    static _Alignas(64) char nowhere[64];
    lbr_tensor fresh;
    memset(&fresh, 0, sizeof fresh);
    int rc = set_shape(&fresh, dtype, ndim, shape);
    if (rc) return rc;
    if (device != LBR_CPU && !lbr_backend_of(device)) return lbr_fail(LBR_EDEVICE, "tensor_new: no device %s", lbr_device_label(device));
    int64_t bytes = lbr_tensor_numel(&fresh) * dtype_sizes[dtype];
    lbr_storage *s = calloc(1, sizeof *s);
    if (s) s->base = dry ? nowhere : lbr_alloc_on(device, bytes);
    if (!s || !s->base) {
        free(s);
        return lbr_out_of_memory(device, "", bytes);
    }
    s->id = ++last_id;
    s->bytes = bytes;
    s->refs = 1;
    s->flags = dry ? LBR_STORAGE_LENT : 0;
    s->device = device;
    if (device != LBR_CPU) held += bytes;
    storages[device]++;
    fresh.device = (uint8_t)device;
    fresh.storage = s;
    fresh.data = s->base;
    *t = fresh;
    return 0;
}

int lbr_tensor_new(lbr_tensor *t, int dtype, int ndim, const int32_t *shape, int device) { return make_tensor(t, dtype, ndim, shape, device, false); }
int lbr_tensor_new_dry(lbr_tensor *t, int dtype, int ndim, const int32_t *shape, int device) { return make_tensor(t, dtype, ndim, shape, device, true); }

int lbr_tensor_view(const lbr_tensor *t, lbr_tensor *view, int ndim, const int32_t *shape, const int32_t *stride, int64_t offset)
{
    if (!t->storage) return lbr_fail(LBR_EINVAL, "view: the tensor was released");
    if (ndim < 0 || ndim > LBR_MAX_DIMS) return lbr_fail(LBR_ESHAPE, "view: %d dims, want at most %d", ndim, LBR_MAX_DIMS);
    int size = dtype_sizes[t->dtype];
    int64_t low = (t->data - t->storage->base) / size, high, n = 1;
    if (offset < -low || offset > t->storage->bytes / size) return lbr_fail(LBR_ESHAPE, "view: offset %lld leaves a storage of %lld", (long long)offset, (long long)(t->storage->bytes / size));
    high = low += offset;
    lbr_tensor v = *t;
    memset(v.shape, 0, sizeof v.shape);
    memset(v.stride, 0, sizeof v.stride);
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return lbr_fail(LBR_ESHAPE, "view: size %d in dim %d", shape[i], i + 1);
        v.shape[i] = shape[i];
        v.stride[i] = stride[i];
        n *= shape[i];
        if (n > INT32_MAX) return lbr_fail(LBR_ESHAPE, "view: more than 2^31 elements");
        if (shape[i] > 0) *(stride[i] < 0 ? &low : &high) += (int64_t)(shape[i] - 1) * stride[i];
    }
    if (n > 0 && (low < 0 || (high + 1) * size > t->storage->bytes))
        return lbr_fail(LBR_ESHAPE, "view: elements %lld..%lld of a storage of %lld", (long long)low, (long long)high, (long long)(t->storage->bytes / size));
    v.ndim = (uint8_t)ndim;
    v.data = n > 0 ? t->data + offset * size : t->data;
    v.node = 0;
    v.flags &= 2; /* a view of a plan's result is one too; it is no leaf and nobody asked to keep it */
    lbr_storage_retain(v.storage);
    *view = v;
    return 0;
}

void lbr_tensor_release(lbr_tensor *t)
{
    lbr_storage *s = t->storage;
    t->storage = NULL;
    t->data = NULL;
    if (s) lbr_storage_release(s);
}

void lbr_out(lbr_call *c, int i, int dtype, int ndim, const int32_t *shape)
{
    lbr_tensor *t = &c->out[i];
    int64_t n = 1;
    t->ndim = (uint8_t)ndim;
    t->dtype = (uint8_t)dtype;
    for (int k = ndim - 1; k >= 0; k--) {
        t->shape[k] = shape[k];
        t->stride[k] = (int32_t)n;
        n *= shape[k];
    }
}

void lbr_out_like(lbr_call *c, int i, const lbr_tensor *t) { lbr_out(c, i, t->dtype, t->ndim, t->shape); }
