/* meter.c: a preloaded malloc that remembers its largest request, and lets the nth request of chosen libraries fail. For specs; not for AddressSanitizer. */
#define _GNU_SOURCE
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static _Atomic size_t largest;
static _Atomic int64_t left;   /* requests until one fails, and all after it where `stays`; 0: none fails */
static _Atomic int failed, stays;
static struct { uintptr_t from, to; } watched[64];
static _Atomic int count;

/* Largest request since the last call. */
size_t meter_take(void) { return atomic_exchange(&largest, 0); }

static int add(struct dl_phdr_info *info, size_t size, void *name)
{
    (void)size;
    if (!strstr(info->dlpi_name, name)) return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        int k = count;
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || k == 64) continue;
        watched[k].from = info->dlpi_addr + p->p_vaddr;
        watched[k].to = watched[k].from + p->p_memsz;
        count = k + 1;
    }
    return 0;
}

/* From now on requests by code of the loaded libraries whose path holds `name` count too; NULL: none. Returns how many pieces of code are watched. */
int meter_watch(const char *name)
{
    if (!name) count = 0;
    else dl_iterate_phdr(add, (void *)name);
    return count;
}

/* The nth request of the watched code from now on fails, with `all` every one after it too; n = 0: none. Returns how many have failed since the last call. */
int meter_fail(int64_t n, int all)
{
    atomic_store(&left, 0);
    int sum = atomic_exchange(&failed, 0);
    atomic_store(&stays, all);
    atomic_store(&left, n);
    return sum;
}

static int grant(size_t bytes, void *caller)
{
    size_t before = atomic_load(&largest);
    while (bytes > before && !atomic_compare_exchange_weak(&largest, &before, bytes)) {}
    if (atomic_load(&left) == 0) return 1;
    uintptr_t at = (uintptr_t)caller;
    int ours = 0;
    for (int i = 0; i < count && !ours; i++) ours = at >= watched[i].from && at < watched[i].to;
    if (!ours) return 1;
    int64_t n = atomic_load(&left);
    while (n > 0 && !atomic_compare_exchange_weak(&left, &n, n > 1 ? n - 1 : atomic_load(&stays) ? 1 : 0)) {}
    if (n != 1) return 1;
    atomic_fetch_add(&failed, 1);
    return 0;
}

#define GRANT(bytes) grant(bytes, __builtin_return_address(0))

void *malloc(size_t bytes) { return GRANT(bytes) ? __libc_malloc(bytes) : NULL; }
void *calloc(size_t n, size_t bytes)
{
    size_t all;
    return !__builtin_mul_overflow(n, bytes, &all) && GRANT(all) ? __libc_calloc(n, bytes) : NULL;
}
void *realloc(void *p, size_t bytes) { return GRANT(bytes) ? __libc_realloc(p, bytes) : NULL; }
void *memalign(size_t alignment, size_t bytes) { return GRANT(bytes) ? __libc_memalign(alignment, bytes) : NULL; }
void *aligned_alloc(size_t alignment, size_t bytes) { return GRANT(bytes) ? __libc_memalign(alignment, bytes) : NULL; }
int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    void *p = GRANT(bytes) ? __libc_memalign(alignment, bytes) : NULL;
    if (!p) return 12; /* ENOMEM */
    *out = p;
    return 0;
}
char *strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = GRANT(bytes) ? __libc_malloc(bytes) : NULL;
    return copy ? memcpy(copy, text, bytes) : NULL;
}
