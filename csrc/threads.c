/* threads.c: the only file with OpenMP; splits loops over the cores. Background threads (loaders, media) live elsewhere and never enter here. */
#define _GNU_SOURCE
#include "core.h"

#include <omp.h>
#include <sched.h>
#include <time.h>

static int chosen;
static bool side_by_side;

void lbr_side_by_side(bool on) { side_by_side = on; }
bool lbr_is_side_by_side(void) { return side_by_side; }

static int64_t shared_uses;
int64_t lbr_shared_uses(void) { return shared_uses; }
int lbr_use_shared(const char *what)
{
    if (side_by_side) return lbr_fail(LBR_EUNSUPPORTED, "%s works for one plan at a time", what);
    shared_uses++;
    return 0;
}

/* Inside a region of the threads a loop stays where it is. */
static int team_of(int64_t most)
{
    int team = side_by_side && omp_in_parallel() ? 1 : lbr_threads();
    return most < team ? (int)most : team;
}

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
    int team = team_of(chunks);
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

/* ---- phases ---- */

typedef struct {
    int64_t next, done;
} counter;

/* Until all tasks are done: others have the last ones in their hands, so this is short unless they were interrupted; then the processor is theirs. */
static void await(counter *c, int64_t tasks)
{
    enum { SPINS = 300, YIELDS = 100 };
    for (int i = 0; __atomic_load_n(&c->done, __ATOMIC_ACQUIRE) < tasks; i++) {
        if (i < SPINS) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        } else if (i < SPINS + YIELDS) {
            sched_yield();
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        }
    }
}

void lbr_phases(int phases, const int64_t *tasks, void (*body)(void *ctx, int phase, int64_t task, int thread), void *ctx)
{
    counter counters[LBR_MOST_PHASES] = {0};
    int64_t most = 0;
    for (int p = 0; p < phases; p++) most = tasks[p] > most ? tasks[p] : most;
    int team = team_of(most);
    if (team <= 1) {
        for (int p = 0; p < phases; p++)
            for (int64_t i = 0; i < tasks[p]; i++) body(ctx, p, i, 0);
        return;
    }
#pragma omp parallel num_threads(team)
    {
        int id = omp_get_thread_num();
        for (int p = 0; p < phases; p++) {
            counter *c = &counters[p];
            for (int64_t i; (i = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED)) < tasks[p];) {
                body(ctx, p, i, id);
                __atomic_fetch_add(&c->done, 1, __ATOMIC_RELEASE);
            }
            if (p + 1 < phases || id == 0) await(c, tasks[p]);
        }
    }
}
