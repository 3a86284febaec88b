/* status.c: the thread-local error text and small facts about the library. Never prints, exits or aborts. */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static __thread char error_text[512];

int lbr_fail(int code, const char *format, ...)
{
    char text[sizeof error_text];   /* lbr_error() may be among the arguments */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(error_text, text, sizeof text);
    return code;
}

const char *lbr_error(void) { return error_text; }

int lbr_abi(void) { return LBR_ABI; }

static const char cdef_text[] =
#include "cdef.inc"
    ;

const char *lbr_cdef(void) { return cdef_text; }

double lbr_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint64_t lbr_hash(const void *bytes, int64_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t h = seed ^ 0xcbf29ce484222325u;
    while (n >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
        p += 8, n -= 8;
    }
    while (n-- > 0) h = (h ^ *p++) * 0x100000001b3u;
    return h ^ h >> 32;
}
