/* meter.c: a preloaded malloc that remembers its largest request since it was asked last. For specs of hostile files; not for AddressSanitizer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static _Atomic size_t largest;
static _Atomic int64_t countdown;   /* 0: nothing fails; n: the nth request from now on fails, and all after it; < 0: has failed */

static int note(size_t bytes)
{
    size_t before = atomic_load(&largest);
    while (bytes > before && !atomic_compare_exchange_weak(&largest, &before, bytes)) {}
    int64_t n = atomic_load(&countdown);
    if (n == 0) return 1;
    if (n > 0) n = atomic_fetch_sub(&countdown, 1) - 1;
    if (n == 0) atomic_store(&countdown, -1);
    return n > 0;
}

/* Largest request since the last call. */
size_t meter_take(void) { return atomic_exchange(&largest, 0); }
/* The nth request from now on fails, and every one after it; 0: none. Returns whether one has failed since the last call. */
int meter_fail(int64_t n) { return atomic_exchange(&countdown, n) < 0; }

void *malloc(size_t bytes) { return note(bytes) ? __libc_malloc(bytes) : NULL; }
void *calloc(size_t n, size_t bytes)
{
    size_t all;
    return !__builtin_mul_overflow(n, bytes, &all) && note(all) ? __libc_calloc(n, bytes) : NULL;
}
void *realloc(void *p, size_t bytes) { return note(bytes) ? __libc_realloc(p, bytes) : NULL; }
void *memalign(size_t alignment, size_t bytes) { return note(bytes) ? __libc_memalign(alignment, bytes) : NULL; }
void *aligned_alloc(size_t alignment, size_t bytes) { return note(bytes) ? __libc_memalign(alignment, bytes) : NULL; }
int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    void *p = note(bytes) ? __libc_memalign(alignment, bytes) : NULL;
    if (!p) return 12; /* ENOMEM */
    *out = p;
    return 0;
}
