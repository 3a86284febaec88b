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

enum { MOST = 256 }; /* libgomp ends the process when it cannot start them */

static cpu_set_t allowed; /* processors of the thread that chose the number of threads */
static int processors;    /* in that set */

static int cores(void)
{
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return processors = CPU_COUNT(&allowed);
    processors = 0;
    return omp_get_num_procs();
}

/* Where each thread of the team was when its last region began. */
static int places[MOST];

/* A worker that has slept for some milliseconds may be woken on the processor of the thread that waits for it, and stay there while another one idles (seen on
 * Linux in a virtual machine: twice the time of one thread). It moves off the processors of the threads before it. */
static void stand_apart(int id)
{
    int here = sched_getcpu();
    bool shared = false;
    for (int k = 0; k < id; k++) shared |= __atomic_load_n(&places[k], __ATOMIC_RELAXED) == here;
    if (shared && id < processors) {
        cpu_set_t free = allowed;
        for (int k = 0; k < id; k++) {
            int cpu = __atomic_load_n(&places[k], __ATOMIC_RELAXED);
            if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_CLR(cpu, &free);
        }
        if (CPU_COUNT(&free) > 0 && sched_setaffinity(0, sizeof free, &free) == 0) here = sched_getcpu();
    }
    __atomic_store_n(&places[id], here, __ATOMIC_RELAXED);
}

int lbr_threads(void)
{
    if (chosen < 1) lbr_set_threads(0);
    return chosen;
}

void lbr_set_threads(int n)
{
    int all = cores();
    chosen = n < 1 ? all : n < MOST ? n : MOST;
    omp_set_num_threads(chosen); /* oneDNN's own regions follow */
}

typedef struct {
    int64_t next, done;
} counter;

/* Until all tasks are done: others have the last ones in their hands, so this is short unless they were interrupted; then the processor is theirs. Sleeps by the
 * clock: whom another thread wakes the system may move to that one's processor. */
static void await(counter *c, int64_t tasks)
{
    enum { SPINS = 1000 };
    for (int i = 0; __atomic_load_n(&c->done, __ATOMIC_ACQUIRE) < tasks; i++) {
        if (i < SPINS) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        }
    }
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
    counter shares = {0};
#pragma omp parallel num_threads(team)
    {
        int id = omp_get_thread_num(), count = omp_get_num_threads();
        stand_apart(id);
        int64_t begin = n * id / count, end = n * (id + 1) / count;
        if (begin < end) body(ctx, begin, end, id);
        if (id > 0) __atomic_fetch_add(&shares.done, 1, __ATOMIC_RELEASE);
        else await(&shares, count - 1);
    }
}

/* ---- phases ---- */

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
        stand_apart(id);
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
