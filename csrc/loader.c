/* loader.c: batches of windows gathered by background threads in a counter-based order. Knows no tensors, files or epochs beyond a number. */
#include "core.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum slot_state { EMPTY, FILLING, READY };

struct lbr_loader {
    lbr_loader_options o;
    int64_t *row_bytes;
    const char **data;
    int32_t *sequence, *start;
    char **slots;
    enum slot_state *state;
    pthread_t *threads;
    int running;
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    /* the epoch; under the lock */
    uint64_t seed;
    uint32_t epoch;
    bool shuffle, quit;
    int32_t batches, next_fill, next_take, held, filling;
};

/* ---- order ---- */

/* A bijection of [0, 4^half): Feistel network whose round function is Philox. */
static uint32_t feistel(uint64_t seed, uint32_t epoch, int half, uint32_t i)
{
    uint32_t mask = (1u << half) - 1, left = i >> half, right = i & mask;
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t u[4];
        lbr_philox(seed, (uint64_t)round << 32 | right, (uint64_t)epoch << 32 | 0x6f72646eu, u);
        uint32_t next = left ^ (u[0] & mask);
        left = right;
        right = next;
    }
    return left << half | right;
}

uint32_t lbr_permute(uint64_t seed, uint32_t epoch, uint32_t n, uint32_t i)
{
    int half = 1;
    while (half < 16 && (uint64_t)1 << (2 * half) < n) half++;
    if (n < 2 || i >= n) return i;
    do i = feistel(seed, epoch, half, i);
    while (i >= n); /* cycle walking: ends, since the cycle holds the i < n it began with */
    return i;
}

/* ---- gathering ---- */

static int32_t batch_count(const lbr_loader *l, int32_t k)
{
    int32_t left = l->o.windows - k * l->o.batch;
    return left < l->o.batch ? left : l->o.batch;
}

static void gather(lbr_loader *l, int32_t k)
{
    int32_t n = batch_count(l, k), slot = k % l->o.depth;
    for (int32_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)(k * l->o.batch + i), w = l->shuffle ? lbr_permute(l->seed, l->epoch, (uint32_t)l->o.windows, at) : at;
        for (int32_t s = 0; s < l->o.streams; s++) {
            int64_t row = l->row_bytes[s], bytes = row * l->o.window;
            memcpy(l->slots[slot * l->o.streams + s] + i * bytes, l->data[s * l->o.sequences + l->sequence[w]] + l->start[w] * row, (size_t)bytes);
        }
    }
}

static void *worker(void *ctx)
{
    lbr_loader *l = ctx;
    pthread_mutex_lock(&l->lock);
    while (!l->quit) {
        int32_t k = l->next_fill;
        if (k >= l->batches || l->state[k % l->o.depth] != EMPTY) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        l->next_fill++;
        l->filling++;
        l->state[k % l->o.depth] = FILLING;
        pthread_mutex_unlock(&l->lock);
        gather(l, k);
        pthread_mutex_lock(&l->lock);
        l->filling--;
        l->state[k % l->o.depth] = READY;
        pthread_cond_broadcast(&l->ready);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- life ---- */

static void *copy_of(const void *p, size_t bytes)
{
    void *copy = malloc(bytes ? bytes : 1);
    if (copy) memcpy(copy, p, bytes);
    return copy;
}

static int check(const lbr_loader_options *o)
{
    if (o->streams < 1 || o->sequences < 1 || o->windows < 1 || o->window < 1 || o->batch < 1 || o->depth < 1 || o->workers < 0)
        return lbr_fail(LBR_EINVAL, "loader: %d streams, %d sequences, %d windows of %d frames, batch %d, depth %d, %d workers; want at least 1 of each (workers 0)",
                        o->streams, o->sequences, o->windows, o->window, o->batch, o->depth, o->workers);
    if (o->workers > 0 && o->depth < 2) return lbr_fail(LBR_EINVAL, "loader: depth %d with workers, want at least 2", o->depth);
    if ((int64_t)o->windows + o->batch > INT32_MAX) return lbr_fail(LBR_EINVAL, "loader: %d windows, want fewer", o->windows);
    for (int32_t w = 0; w < o->windows; w++) {
        int32_t s = o->sequence[w];
        if (s < 0 || s >= o->sequences || o->start[w] < 0 || o->start[w] > o->frames[s] - o->window)
            return lbr_fail(LBR_EINVAL, "loader: window %d starts at frame %d of sequence %d, which does not hold %d frames from there", w, o->start[w], s, o->window);
    }
    return 0;
}

int lbr_loader_new(const lbr_loader_options *o, lbr_loader **out)
{
    *out = NULL;
    int rc = check(o);
    if (rc) return rc;
    lbr_loader *l = calloc(1, sizeof *l);
    if (!l) return lbr_fail(LBR_ENOMEM, "loader: out of memory");
    l->o = *o;
    l->held = -1;
    l->row_bytes = copy_of(o->row_bytes, (size_t)o->streams * sizeof *l->row_bytes);
    l->data = copy_of(o->data, (size_t)o->streams * (size_t)o->sequences * sizeof *l->data);
    l->sequence = copy_of(o->sequence, (size_t)o->windows * sizeof *l->sequence);
    l->start = copy_of(o->start, (size_t)o->windows * sizeof *l->start);
    l->slots = copy_of(o->slots, (size_t)o->streams * (size_t)o->depth * sizeof *l->slots);
    l->state = calloc((size_t)o->depth, sizeof *l->state);
    l->threads = calloc((size_t)o->workers + 1, sizeof *l->threads);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->ready, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (!l->row_bytes || !l->data || !l->sequence || !l->start || !l->slots || !l->state || !l->threads) {
        lbr_loader_free(l);
        return lbr_fail(LBR_ENOMEM, "loader: out of memory for %d windows", o->windows);
    }
    sigset_t all, before; /* Ctrl-C belongs to the Lua thread */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (l->running < o->workers && pthread_create(&l->threads[l->running], NULL, worker, l) == 0) l->running++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (l->running < o->workers) {
        lbr_loader_free(l);
        return lbr_fail(LBR_ENOMEM, "loader: only %d of %d threads could be started", l->running, o->workers);
    }
    *out = l;
    return 0;
}

void lbr_loader_free(lbr_loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->quit = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->running; i++) pthread_join(l->threads[i], NULL);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->ready);
    free(l->row_bytes), free(l->data), free(l->sequence), free(l->start), free(l->slots), free(l->state), free(l->threads);
    free(l);
}

/* ---- an epoch ---- */

int lbr_loader_start(lbr_loader *l, uint64_t seed, uint32_t epoch, int32_t shuffle, int32_t first)
{
    int32_t batches = (l->o.windows + l->o.batch - 1) / l->o.batch;
    if (first < 0 || first > batches) return lbr_fail(LBR_EINVAL, "loader: batch %d of %d", first, batches);
    pthread_mutex_lock(&l->lock);
    l->batches = 0;
    while (l->filling > 0) pthread_cond_wait(&l->ready, &l->lock);
    for (int32_t i = 0; i < l->o.depth; i++) l->state[i] = EMPTY;
    l->seed = seed, l->epoch = epoch, l->shuffle = shuffle != 0;
    l->next_fill = l->next_take = first, l->held = -1;
    l->batches = batches;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

int lbr_loader_next(lbr_loader *l, int32_t *slot, int32_t *count)
{
    int rc = 0;
    pthread_mutex_lock(&l->lock);
    if (l->held >= 0) {
        l->state[l->held] = EMPTY;
        l->held = -1;
        pthread_cond_broadcast(&l->work);
    }
    int32_t k = l->next_take, at = k % l->o.depth;
    if (k >= l->batches) {
        rc = LBR_EEND;
    } else if (l->running == 0) {
        gather(l, k);
    } else {
        while (l->state[at] != READY && rc == 0) {
            if (lbr_interrupted()) rc = lbr_fail(LBR_EINTR, "interrupted");
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_nsec += 50000000;
            if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
            if (rc == 0) pthread_cond_timedwait(&l->ready, &l->lock, &until);
        }
    }
    if (rc == 0) {
        l->next_take++;
        l->held = at;
        *slot = at;
        *count = batch_count(l, k);
    }
    pthread_mutex_unlock(&l->lock);
    return rc;
}
