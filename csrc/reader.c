/* Bounds-checked reading of a file's bytes: the one place where file content is dereferenced. Knows numbers, not formats. */
#include "libration.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LBR_READER_EXACT 9007199254740992.0 /* 2^53: whole numbers up to here are exact in a double */

struct lbr_reader {
    const unsigned char *bytes;
    size_t size;
    char *name;
    enum { COPIED, MAPPED, BORROWED } kept;
};

static const struct {
    const char *name;
    int width;
    int whole;
} kinds[] = {
    [LBR_READ_U8] = {"u8", 1, 1},   [LBR_READ_I8] = {"i8", 1, 1},    [LBR_READ_U16] = {"u16", 2, 1}, [LBR_READ_I16] = {"i16", 2, 1},
    [LBR_READ_U32] = {"u32", 4, 1}, [LBR_READ_I32] = {"i32", 4, 1},  [LBR_READ_U64] = {"u64", 8, 1}, [LBR_READ_I64] = {"i64", 8, 1},
    [LBR_READ_F16] = {"f16", 2, 0}, [LBR_READ_BF16] = {"bf16", 2, 0}, [LBR_READ_F32] = {"f32", 4, 0}, [LBR_READ_F64] = {"f64", 8, 0},
};
_Static_assert(sizeof kinds / sizeof kinds[0] == LBR_READ_KINDS, "a row for each kind");

static lbr_reader *reader_new(const char *name)
{
    lbr_reader *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->name = strdup(name ? name : "memory");
    if (!r->name) {
        free(r);
        return NULL;
    }
    return r;
}

int lbr_reader_open(const char *path, lbr_reader **out)
{
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return lbr_fail(LBR_EIO, "%s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int code = lbr_fail(LBR_EIO, "%s: %s", path, strerror(errno));
        close(fd);
        return code;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return lbr_fail(LBR_EIO, "%s: %s, want a file", path, S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
    }
    if (st.st_size == 0) {
        close(fd);
        return lbr_fail(LBR_EFORMAT, "%s: the file is empty", path);
    }
    lbr_reader *r = reader_new(path);
    if (!r) {
        close(fd);
        return lbr_fail(LBR_ENOMEM, "%s: no memory for a reader", path);
    }
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int failed = errno;
    close(fd);
    if (bytes == MAP_FAILED) {
        lbr_reader_close(r);
        return lbr_fail(failed == ENOMEM ? LBR_ENOMEM : LBR_EIO, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size, strerror(failed));
    }
    r->bytes = bytes;
    r->size = (size_t)st.st_size;
    r->kept = MAPPED;
    *out = r;
    return LBR_OK;
}

int lbr_reader_borrow(const char *name, const void *bytes, size_t size, lbr_reader **out)
{
    *out = NULL;
    if (size == 0)
        return lbr_fail(LBR_EFORMAT, "%s: no bytes", name ? name : "memory");
    lbr_reader *r = reader_new(name);
    if (!r)
        return lbr_fail(LBR_ENOMEM, "%s: no memory for a reader", name ? name : "memory");
    r->bytes = bytes;
    r->size = size;
    r->kept = BORROWED;
    *out = r;
    return LBR_OK;
}

int lbr_reader_memory(const char *name, const void *bytes, size_t size, lbr_reader **out)
{
    int code = lbr_reader_borrow(name, bytes, size, out);
    if (code)
        return code;
    unsigned char *copy = malloc(size);
    if (!copy) {
        lbr_reader_close(*out);
        *out = NULL;
        return lbr_fail(LBR_ENOMEM, "%s: no memory for %zu bytes", name ? name : "memory", size);
    }
    memcpy(copy, bytes, size);
    (*out)->bytes = copy;
    (*out)->kept = COPIED;
    return LBR_OK;
}

void lbr_reader_close(lbr_reader *r)
{
    if (!r)
        return;
    if (r->kept == MAPPED)
        munmap((void *)r->bytes, r->size);
    else if (r->kept == COPIED)
        free((void *)r->bytes);
    free(r->name);
    free(r);
}

double lbr_reader_size(const lbr_reader *r)
{
    return (double)r->size;
}

const char *lbr_reader_name(const lbr_reader *r)
{
    return r->name;
}

/* Where `count` elements of `width` bytes lie, or NULL with the error set. The file's size bounds both factors before they are multiplied. */
static const unsigned char *reader_span(const lbr_reader *r, double at, double count, int width, const char *what)
{
    double size = (double)r->size;
    if (!(at >= 0 && at <= size) || at != floor(at)) {
        lbr_fail(LBR_EFORMAT, "%s: %s wanted at byte %.17g, the file has %zu bytes", r->name, what, at, r->size);
        return NULL;
    }
    if (!(count >= 0 && count <= size) || count != floor(count) || count * width > size - at) {
        lbr_fail(LBR_EFORMAT, "%s: %.17g x %s wanted at byte %.17g, the file has %zu bytes", r->name, count, what, at, r->size);
        return NULL;
    }
    return r->bytes + (size_t)at;
}

static int reader_kind(const lbr_reader *r, int kind)
{
    if (kind < 0 || kind >= LBR_READ_KINDS)
        return lbr_fail(LBR_EINVAL, "%s: number kind %d, want 0..%d", r->name, kind, LBR_READ_KINDS - 1);
    return LBR_OK;
}

static uint64_t little(const unsigned char *p, int width)
{
    uint64_t v = 0;
    for (int i = width - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* NaN without its payload: LuaJIT keeps tags of its own values there, so a NaN of a file's choosing would be taken for one of them. */
static float f32_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return isnan(f) ? copysignf(NAN, f) : f;
}

static float f32_of_f16(uint32_t h)
{
    uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 1023u;
    if (exponent == 31)
        return f32_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) /* zero and subnormals: fraction * 2^-24 is exact */
        return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
    return f32_of_bits(sign | (exponent + 112u) << 23 | fraction << 13);
}

/* Whole kinds only. */
static int64_t whole_at(const unsigned char *p, int kind)
{
    switch (kind) {
    case LBR_READ_U8: return p[0];
    case LBR_READ_I8: return (int8_t)p[0];
    case LBR_READ_U16: return (uint16_t)little(p, 2);
    case LBR_READ_I16: return (int16_t)little(p, 2);
    case LBR_READ_U32: return (uint32_t)little(p, 4);
    case LBR_READ_I32: return (int32_t)little(p, 4);
    default: return (int64_t)little(p, 8);
    }
}

/* Floating kinds only. */
static double real_at(const unsigned char *p, int kind)
{
    switch (kind) {
    case LBR_READ_F16: return f32_of_f16((uint32_t)little(p, 2));
    case LBR_READ_BF16: return f32_of_bits((uint32_t)little(p, 2) << 16);
    case LBR_READ_F32: return f32_of_bits((uint32_t)little(p, 4));
    default: {
        uint64_t bits = little(p, 8);
        double d;
        memcpy(&d, &bits, sizeof d);
        return isnan(d) ? copysign(NAN, d) : d;
    }
    }
}

int lbr_reader_number(const lbr_reader *r, double at, int kind, double *value)
{
    int code = reader_kind(r, kind);
    if (code)
        return code;
    const unsigned char *p = reader_span(r, at, 1, kinds[kind].width, kinds[kind].name);
    if (!p)
        return LBR_EFORMAT;
    if (!kinds[kind].whole) {
        *value = real_at(p, kind);
        return LBR_OK;
    }
    int64_t whole = whole_at(p, kind);
    double v = kind == LBR_READ_U64 ? (double)(uint64_t)whole : (double)whole;
    if (fabs(v) > LBR_READER_EXACT)
        return lbr_fail(LBR_EFORMAT, "%s: %s at byte %.17g is %.17g, want at most 2^53", r->name, kinds[kind].name, at, v);
    *value = v;
    return LBR_OK;
}

/* Whether dst holds what was asked for: a caller's mistake, not the file's. */
static int reader_capacity(const lbr_reader *r, double count, double capacity)
{
    if (!(count <= capacity))
        return lbr_fail(LBR_EINVAL, "%s: %.17g elements for a destination of %.17g", r->name, count, capacity);
    return LBR_OK;
}

int lbr_reader_copy(const lbr_reader *r, double at, double bytes, void *dst, double capacity)
{
    const unsigned char *p = reader_span(r, at, bytes, 1, "bytes");
    if (!p)
        return LBR_EFORMAT;
    int code = reader_capacity(r, bytes, capacity);
    if (code)
        return code;
    if (bytes > 0)
        memcpy(dst, p, (size_t)bytes);
    return LBR_OK;
}

const void *lbr_reader_span(const lbr_reader *r, double at, double bytes)
{
    return reader_span(r, at, bytes, 1, "bytes");
}

int lbr_reader_reals(const lbr_reader *r, double at, double count, int kind, void *dst, double capacity)
{
    int code = reader_kind(r, kind);
    if (code)
        return code;
    if (kinds[kind].whole)
        return lbr_fail(LBR_EINVAL, "%s: real numbers from %s", r->name, kinds[kind].name);
    double width = kinds[kind].width;
    code = lbr_reader_copy(r, at, count * width, dst, capacity * width);
    size_t n = code ? 0 : (size_t)count;
    if (kind == LBR_READ_F32) {
        float *f = dst;
        for (size_t i = 0; i < n; i++)
            if (isnan(f[i])) f[i] = copysignf(NAN, f[i]);
    } else if (kind == LBR_READ_F64) {
        double *d = dst;
        for (size_t i = 0; i < n; i++)
            if (isnan(d[i])) d[i] = copysign(NAN, d[i]);
    } else {
        uint16_t *h = dst, infinity = kind == LBR_READ_F16 ? 0x7c00 : 0x7f80, quiet = kind == LBR_READ_F16 ? 0x7e00 : 0x7fc0;
        for (size_t i = 0; i < n; i++)
            if ((h[i] & 0x7fff) > infinity) h[i] = (uint16_t)((h[i] & 0x8000) | quiet);
    }
    return code;
}

int lbr_reader_i32(const lbr_reader *r, double at, double count, int kind, int32_t *dst, double capacity)
{
    int code = reader_kind(r, kind);
    if (code)
        return code;
    if (!kinds[kind].whole)
        return lbr_fail(LBR_EINVAL, "%s: integers from %s, want a whole kind", r->name, kinds[kind].name);
    const unsigned char *p = reader_span(r, at, count, kinds[kind].width, kinds[kind].name);
    if (!p)
        return LBR_EFORMAT;
    code = reader_capacity(r, count, capacity);
    if (code)
        return code;
    size_t n = (size_t)count, width = (size_t)kinds[kind].width;
    for (size_t i = 0; i < n; i++, p += width) {
        int64_t v = whole_at(p, kind);
        if (v < INT32_MIN || v > INT32_MAX)
            return lbr_fail(LBR_EFORMAT, "%s: %s at byte %.17g does not fit an int32", r->name, kinds[kind].name, at + (double)(i * width));
        dst[i] = (int32_t)v;
    }
    return LBR_OK;
}
