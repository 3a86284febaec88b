/* source.c: frame sources: worker threads fill a ring of reused pictures, the reader takes them in order. Knows no file formats. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <libavutil/mem.h>
#include "internal.h"

atomic_llong lbr_media_count;

int64_t lbr_media_live(void) { return atomic_load(&lbr_media_count); }

static void pin(void)
{
    Dl_info self;
    if (dladdr((void *)&lbr_media_count, &self)) dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

void lbr_media_pin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, pin);
}

enum { MAX_QUEUE = 64, MAX_WORKERS = 8, QUEUE_BYTES = 256 << 20 };

struct slot {
    struct lbr_frame picture;
    int64_t ticket;   /* of the picture in it; -1 while empty */
};

struct lbr_source {
    const struct lbr_producer *producer;
    void *state;
    char *name;
    int crop[4], rotate;      /* rotate in quarter turns */
    lbr_source_info info;
    double last;              /* time of the last frame delivered; < 0 before the first */
    int workers, queue;
    pthread_t threads[MAX_WORKERS];
    int running;

    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    struct slot slots[MAX_QUEUE];
    int64_t next_ticket;      /* that the next free worker takes */
    int64_t taken;            /* tickets delivered to the reader */
    int64_t end;              /* no frame from this ticket on: status says why */
    int status;
    char text[512];
    bool stop;
};

static void *work(void *argument)
{
    struct lbr_source *s = argument;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        int64_t ticket = s->next_ticket;
        if (ticket >= s->end) break;
        struct slot *slot = &s->slots[ticket % s->queue];
        if (ticket >= s->taken + s->queue || slot->ticket >= 0) {
            pthread_cond_wait(&s->emptied, &s->lock);
            continue;
        }
        s->next_ticket++;
        pthread_mutex_unlock(&s->lock);
        int status = s->producer->produce(s->state, ticket, &slot->picture);
        pthread_mutex_lock(&s->lock);
        if (status == LBR_OK) {
            slot->ticket = ticket;
        } else if (ticket < s->end) {
            s->end = ticket;
            s->status = status;
            snprintf(s->text, sizeof s->text, "%s", status == LBR_EEND ? "" : lbr_error());
        }
        pthread_cond_broadcast(&s->filled);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void stop_workers(struct lbr_source *s)
{
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->emptied);
    pthread_mutex_unlock(&s->lock);
    if (s->producer->cancel) s->producer->cancel(s->state, true);
    while (s->running > 0) pthread_join(s->threads[--s->running], NULL);
    if (s->producer->cancel) s->producer->cancel(s->state, false);
    s->stop = false;
}

static int start_workers(struct lbr_source *s)
{
    s->next_ticket = s->taken = 0;
    s->end = INT64_MAX;
    s->status = LBR_OK;
    s->text[0] = 0;
    s->last = -1;
    for (int i = 0; i < s->queue; i++) s->slots[i].ticket = -1;
    while (s->running < s->workers) {
        int error = pthread_create(&s->threads[s->running], NULL, work, s);
        if (error && s->running == 0) return lbr_fail(LBR_ENOMEM, "frame source: no thread: %s", strerror(error));
        if (error) break;
        s->running++;
    }
    return LBR_OK;
}

static void wait_a_little(pthread_cond_t *condition, pthread_mutex_t *lock)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 50 * 1000 * 1000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_cond_timedwait(condition, lock, &until);
}

/* Waits for the picture of the next ticket. */
static int await(struct lbr_source *s, struct slot **out)
{
    int status = LBR_OK;
    pthread_mutex_lock(&s->lock);
    struct slot *slot = &s->slots[s->taken % s->queue];
    for (;;) {
        if (lbr_interrupted()) status = lbr_fail(LBR_EINTR, "%s: interrupted", s->name);
        else if (slot->ticket == s->taken) status = LBR_OK;
        else if (s->taken >= s->end) status = s->status == LBR_EEND ? LBR_EEND : lbr_fail(s->status, "%s", s->text);
        else {
            wait_a_little(&s->filled, &s->lock);
            continue;
        }
        break;
    }
    pthread_mutex_unlock(&s->lock);
    *out = slot;
    return status;
}

static void upright_size(const struct lbr_frame *p, int *width, int *height)
{
    *width = p->orientation & 1 ? p->height : p->width;
    *height = p->orientation & 1 ? p->width : p->height;
}

/* Sizes, from the first picture; then room for no more pictures than the byte limit allows. */
static int measure(const char *function, struct lbr_source *s)
{
    struct slot *first;
    int status = await(s, &first);
    if (status == LBR_EEND) return lbr_fail(LBR_EINVAL, "%s: %s: no frame between start and stop", function, s->name);
    if (status != LBR_OK) return status;
    upright_size(&first->picture, &s->info.source_width, &s->info.source_height);
    int *c = s->crop;
    if (c[2] == 0) c[0] = c[1] = 0, c[2] = s->info.source_width, c[3] = s->info.source_height;
    if (c[0] < 0 || c[1] < 0 || c[2] < 1 || c[3] < 1 || c[2] > s->info.source_width - c[0] || c[3] > s->info.source_height - c[1])
        return lbr_fail(LBR_EINVAL, "%s: %s: crop %d,%d,%d,%d, want a rectangle inside %d x %d", function, s->name, c[0], c[1], c[2], c[3],
                        s->info.source_width, s->info.source_height);
    s->info.width = s->rotate & 1 ? c[3] : c[2];
    s->info.height = s->rotate & 1 ? c[2] : c[3];
    return LBR_OK;
}

int lbr_source_make(const char *function, const char *name, const struct lbr_producer *producer, void *state, int workers,
                    const lbr_source_options *options, lbr_source **out)
{
    *out = NULL;
    struct lbr_source *s = calloc(1, sizeof *s);
    if (!s || !(s->name = strdup(name))) {
        free(s);
        producer->close(state);
        return lbr_fail(LBR_ENOMEM, "%s: no memory", function);
    }
    atomic_fetch_add(&lbr_media_count, 1);
    lbr_media_pin();
    s->producer = producer;
    s->state = state;
    s->workers = workers < 1 ? 1 : workers > MAX_WORKERS ? MAX_WORKERS : workers;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->filled, &attributes);
    pthread_cond_init(&s->emptied, &attributes);
    pthread_condattr_destroy(&attributes);

    int status = LBR_OK;
    memcpy(s->crop, options->crop, sizeof s->crop);
    s->rotate = options->rotate / 90;
    if (options->rotate % 90 != 0 || s->rotate < 0 || s->rotate > 3)
        status = lbr_fail(LBR_EINVAL, "%s: rotate is %d, want 0, 90, 180 or 270", function, options->rotate);
    int queue = options->queue > 0 ? options->queue : 8;
    s->queue = 1;   /* one picture tells the size, and with it how many fit */
    if (status == LBR_OK) status = start_workers(s);
    if (status == LBR_OK) status = measure(function, s);
    if (status == LBR_OK) {
        int64_t bytes = (int64_t)s->slots[0].picture.capacity, fit = QUEUE_BYTES / (bytes > 0 ? bytes : 1);
        if (queue > MAX_QUEUE) queue = MAX_QUEUE;
        if (queue > fit) queue = fit < 2 ? 2 : (int)fit;
        pthread_mutex_lock(&s->lock);
        for (int i = 1; i < queue; i++) s->slots[i].ticket = -1;
        s->queue = queue;   /* ticket 0 is still untaken, so slot 0 stays its slot */
        pthread_cond_broadcast(&s->emptied);
        pthread_mutex_unlock(&s->lock);
        producer->describe(state, &s->info);
        *out = s;
        return LBR_OK;
    }
    lbr_source_close(s);
    return status;
}

int lbr_source_describe(const lbr_source *source, lbr_source_info *out)
{
    *out = source->info;
    return LBR_OK;
}

int lbr_source_next(lbr_source *s, uint8_t *rgb, double *time, int64_t *index)
{
    struct slot *slot;
    int status = await(s, &slot);
    if (status != LBR_OK) return status;
    int width, height;
    upright_size(&slot->picture, &width, &height);
    if (width != s->info.source_width || height != s->info.source_height)
        return lbr_fail(LBR_EFORMAT, "%s: frame %lld is %d x %d, want %d x %d as the first", s->name, (long long)slot->ticket + 1, width,
                        height, s->info.source_width, s->info.source_height);
    lbr_turn_copy(&slot->picture, s->crop, s->rotate, rgb);
    double t = slot->picture.time;
    if (s->last >= 0 && t <= s->last) t = s->last + 1e-6;   /* broken timestamps: order is kept */
    s->last = *time = t;
    *index = slot->ticket;
    pthread_mutex_lock(&s->lock);
    slot->ticket = -1;
    s->taken++;
    pthread_cond_broadcast(&s->emptied);
    pthread_mutex_unlock(&s->lock);
    return LBR_OK;
}

int lbr_source_seek(lbr_source *s, double seconds)
{
    stop_workers(s);
    int status = s->producer->seek(s->state, seconds);
    if (status == LBR_OK) return start_workers(s);
    for (int i = 0; i < s->queue; i++) s->slots[i].ticket = -1;
    s->taken = s->end = 0;
    s->status = status;
    snprintf(s->text, sizeof s->text, "%s", lbr_error());
    return status;
}

const char *lbr_source_warning(const lbr_source *s)
{
    return s->producer->warning ? s->producer->warning(s->state) : "";
}

void lbr_source_close(lbr_source *s)
{
    if (!s) return;
    stop_workers(s);
    s->producer->close(s->state);
    for (int i = 0; i < MAX_QUEUE; i++) lbr_frame_release(&s->slots[i].picture);
    pthread_cond_destroy(&s->filled);
    pthread_cond_destroy(&s->emptied);
    pthread_mutex_destroy(&s->lock);
    free(s->name);
    free(s);
    atomic_fetch_sub(&lbr_media_count, 1);
}
