/* ceiling.c: what the processor can do at most: fused multiply-adds from registers and a copy of memory, on n threads. Built by tools/bench.lua for this machine; not part of the library. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
enum { CHAINS = 12, MOST = 256 };

struct job { pthread_t thread; double work; char *from, *to; size_t bytes; float sink; };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *multiply(void *p)
{
    struct job *j = p;
    vec a[CHAINS], x = (vec){0} + 1.0000001f, y = (vec){0} + 1e-7f;
    for (int i = 0; i < CHAINS; i++) a[i] = (vec){0} + (float)i;
    long rounds = (long)j->work;
    for (long r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) a[i] = a[i] * x + y;
    for (int i = 0; i < CHAINS; i++) j->sink += a[i][0];
    return NULL;
}

static void *copy(void *p)
{
    struct job *j = p;
    memcpy(j->to, j->from, j->bytes);
    return NULL;
}

static double run(struct job *jobs, int n, void *(*body)(void *))
{
    double start = now();
    for (int i = 1; i < n; i++)
        if (pthread_create(&jobs[i].thread, NULL, body, &jobs[i])) return -1;
    body(&jobs[0]);
    for (int i = 1; i < n; i++) pthread_join(jobs[i].thread, NULL);
    return now() - start;
}

/* Floating point operations a second of n threads, best of `times` runs of about 20 ms; negative: no threads. */
double ceiling_flops(int n, int times)
{
    struct job jobs[MOST] = {0};
    double best = 0;
    const double rounds = 4e6;
    if (n > MOST) n = MOST;
    for (int k = 0; k < times; k++) {
        for (int i = 0; i < n; i++) jobs[i].work = rounds;
        double s = run(jobs, n, multiply);
        if (s < 0) return -1;
        double rate = 2.0 * LANES * CHAINS * rounds * n / s;
        if (rate > best) best = rate;
    }
    return best;
}

/* Bytes a second, read and written together, that n threads copy; best of `times` copies of 64 MiB; negative: no memory or threads. */
double ceiling_bytes(int n, int times)
{
    struct job jobs[MOST] = {0};
    double best = 0;
    size_t bytes = (size_t)64 << 20;
    if (n > MOST) n = MOST;
    char *from = malloc(bytes), *to = malloc(bytes);
    if (from && to) {
        memset(from, 1, bytes), memset(to, 2, bytes);
        for (int k = 0; k < times; k++) {
            for (int i = 0; i < n; i++) {
                size_t begin = bytes / (size_t)n * (size_t)i;
                jobs[i].from = from + begin, jobs[i].to = to + begin, jobs[i].bytes = bytes / (size_t)n;
            }
            double s = run(jobs, n, copy);
            if (s < 0) break;
            if (2.0 * (double)bytes / s > best) best = 2.0 * (double)bytes / s;
        }
    }
    free(from), free(to);
    return best > 0 ? best : -1;
}
