/* threads.c: the only file with OpenMP; splits loops over the cores. Background threads (loaders, media) live elsewhere and never enter here. */
#define _GNU_SOURCE
#include "core.h"

#include <omp.h>
#include <sched.h>

static int chosen;

static int cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return omp_get_num_procs();
}

int lbr_threads(void)
{
    if (chosen < 1) lbr_set_threads(0);
    return chosen;
}

void lbr_set_threads(int n)
{
    enum { MOST = 256 }; /* libgomp ends the process when it cannot start them */
    chosen = n < 1 ? cores() : n < MOST ? n : MOST;
    omp_set_num_threads(chosen); /* oneDNN's own regions follow */
}

void lbr_parallel(int64_t n, int64_t grain, void (*body)(void *ctx, int64_t begin, int64_t end, int thread), void *ctx)
{
    if (n <= 0) return;
    if (grain < 1) grain = 1;
    int64_t chunks = (n + grain - 1) / grain;
    int team = lbr_threads();
    if (chunks < team) team = (int)chunks;
    if (team <= 1) {
        body(ctx, 0, n, 0);
        return;
    }
#pragma omp parallel num_threads(team)
    {
        int id = omp_get_thread_num(), count = omp_get_num_threads();
        int64_t begin = n * id / count, end = n * (id + 1) / count;
        if (begin < end) body(ctx, begin, end, id);
    }
}
