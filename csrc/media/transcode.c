/* transcode.c: a video encoded anew with masks on its frames: one ring of frames that a reading thread, the caller, a masking and an encoding thread go
 * around one after the other. Opening: transcode_open.c; what is done to a frame: planes.c; decoding, masks, encoding: decode.c, mask.c, encode.c. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "transcode.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- stages ---- */

/* With the lock held. */
static void fail(lbr_transcode *t, int status)
{
    if (t->status == LBR_OK) {
        t->status = status;
        snprintf(t->error, sizeof t->error, "%s", lbr_error());
    }
    pthread_cond_broadcast(&t->moved);
}

static bool halted(const lbr_transcode *t) { return t->stop || t->status != LBR_OK; }

/* Waits until the ring has a free place, and hands it out empty; NULL: everything stops. */
static struct place *free_place(lbr_transcode *t)
{
    pthread_mutex_lock(&t->lock);
    while (!halted(t) && t->read - t->encoded >= t->queue) pthread_cond_wait(&t->moved, &t->lock);
    struct place *place = halted(t) ? NULL : &t->places[t->read % t->queue];
    pthread_mutex_unlock(&t->lock);
    return place;
}

static void push(lbr_transcode *t, struct place *place, int64_t pts, int64_t duration, int damaged)
{
    if (t->read > 0 && pts <= t->last_pts) pts = t->last_pts + 1;   /* broken timestamps: order is kept */
    t->last_pts = pts;
    place->pts = pts - t->shift;
    place->duration = duration;
    place->time = (double)pts * t->base.num / t->base.den - t->decoder.origin;
    place->damaged = damaged;
    place->index = t->read;
    place->masks = NULL;
    place->count = 0;
    pthread_mutex_lock(&t->lock);
    t->read++;
    pthread_cond_broadcast(&t->moved);
    pthread_mutex_unlock(&t->lock);
}

static int make_coarse(lbr_transcode *t, struct place *place)
{
    return t->coarsely ? lbr_coarse_of(t->name, place->frame, t->orientation, &t->coarse, &place->coarse) : LBR_OK;
}

/* Black frames where packets before this time gave none. False: everything stops. */
static bool push_lost(lbr_transcode *t, int64_t before)
{
    int64_t pts;
    while (lbr_decoder_lost(&t->decoder, before, &pts)) {
        struct place *place = free_place(t);
        if (!place) return false;
        int status = av_frame_ref(place->frame, t->blank) < 0 ? lbr_fail(LBR_ENOMEM, "transcode: no memory") : make_coarse(t, place);
        if (status != LBR_OK) {
            pthread_mutex_lock(&t->lock);
            fail(t, status);
            pthread_mutex_unlock(&t->lock);
            return false;
        }
        push(t, place, pts, 0, 2);
    }
    return true;
}

static int64_t duration_of(const AVFrame *frame)
{
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 30, 100)
    return frame->duration;
#else
    return frame->pkt_duration;
#endif
}

static void worked(lbr_transcode *t, double *busy, double since)
{
    double took = now() - since;
    pthread_mutex_lock(&t->lock);
    *busy += took;
    pthread_mutex_unlock(&t->lock);
}

/* One decoded frame into the ring. LBR_EEND after the last. */
static int read_one(lbr_transcode *t)
{
    struct lbr_decoder *d = &t->decoder;
    lbr_ffmpeg_forget();
    double start = now();
    int code = t->first ? 0 : lbr_decoder_next(d);
    t->first = false;
    worked(t, &t->busy.decode, start);
    if (code == AVERROR_EXIT) return lbr_fail(LBR_EINTR, "%s: interrupted", t->name);
    if (code < 0 && code != AVERROR_EOF) return lbr_fail(lbr_ffmpeg_status(code), "%s: %s", t->name, lbr_ffmpeg_text(code));
    if (code == AVERROR_EOF) {
        lbr_decoder_check(d);
        return push_lost(t, INT64_MAX) ? LBR_EEND : LBR_OK;
    }
    int64_t pts = d->frame->best_effort_timestamp;
    if (pts == AV_NOPTS_VALUE) pts = t->origin + llrint(d->clock / av_q2d(t->base));
    if (!push_lost(t, pts)) return LBR_OK;
    struct place *place = free_place(t);
    if (!place) return LBR_OK;
    int damaged = d->frame->decode_error_flags || d->frame->flags & AV_FRAME_FLAG_CORRUPT;
    int64_t duration = duration_of(d->frame);
    start = now();
    int status = lbr_planes_take(&t->planes, d->frame, place->frame);
    if (status == LBR_OK) status = make_coarse(t, place);
    worked(t, &t->busy.decode, start);
    if (status == LBR_OK) push(t, place, pts, duration, damaged);
    return status;
}

static void *read_frames(void *argument)
{
    lbr_transcode *t = argument;
    int status = LBR_OK;
    bool going = true;
    while (going) {
        status = read_one(t);
        pthread_mutex_lock(&t->lock);
        if (status == LBR_EEND) t->ended = true;
        else if (status != LBR_OK) fail(t, status);
        going = status == LBR_OK && !halted(t);
        pthread_cond_broadcast(&t->moved);
        pthread_mutex_unlock(&t->lock);
    }
    return NULL;
}

static int convert_one(lbr_transcode *t, struct place *place)
{
    return lbr_converter_run(t->name, &t->converter, place->frame, t->orientation, &place->rgb);
}

static int mask_one(lbr_transcode *t, struct place *place)
{
    if (place->count == 0) return LBR_OK;
    struct lbr_canvas canvas;
    int status = lbr_planes_own(&t->planes, place->frame);
    if (status == LBR_OK && !lbr_canvas_of(place->frame, &canvas)) status = lbr_fail(LBR_EUNSUPPORTED, "transcode: no masks on this pixel format");
    if (status == LBR_OK) status = lbr_mask_draw(&canvas, t->orientation, place->masks, place->count, &t->room);
    return status;
}

static int encode_one(lbr_transcode *t, struct place *place)
{
    int status = lbr_planes_pad(&t->planes, place->frame);
    if (status != LBR_OK) return status;
    int code = lbr_encoder_send(&t->encoder, place->frame, place->pts, place->duration);
    return code < 0 ? lbr_encoder_failed(&t->encoder, code) : LBR_OK;
}

/* A thread that takes the frames between two counts through a stage. */
static void run_stage(lbr_transcode *t, const int64_t *from, int64_t *to, double *busy, int (*stage)(lbr_transcode *, struct place *))
{
    pthread_mutex_lock(&t->lock);
    while (!halted(t)) {
        bool over = t->ending && *to == t->read;
        if (over && stage != encode_one) break;
        if (!over && *to == *from) {
            pthread_cond_wait(&t->moved, &t->lock);
            continue;
        }
        struct place *place = &t->places[*to % t->queue];
        bool idle = t->idle;
        pthread_mutex_unlock(&t->lock);
        lbr_ffmpeg_forget();
        double start = now();
        int status;
        if (idle && stage != convert_one) {
            status = LBR_OK;
        } else if (over) {
            int code = lbr_encoder_complete(&t->encoder);
            status = code < 0 ? lbr_encoder_failed(&t->encoder, code) : LBR_OK;
        } else {
            status = stage(t, place);
        }
        double took = now() - start;
        if (!over && stage == encode_one) av_frame_unref(place->frame);
        if (!over && stage == mask_one) free(place->masks), place->masks = NULL;
        pthread_mutex_lock(&t->lock);
        *busy += took;
        if (status != LBR_OK) fail(t, status);
        else if (over) t->finished = true;
        else ++*to;
        pthread_cond_broadcast(&t->moved);
        if (over) break;
    }
    pthread_mutex_unlock(&t->lock);
}

static void *convert_frames(void *argument)
{
    lbr_transcode *t = argument;
    run_stage(t, &t->read, &t->converted, &t->busy.convert, convert_one);
    return NULL;
}

static void *mask_frames(void *argument)
{
    lbr_transcode *t = argument;
    run_stage(t, &t->given, &t->masked, &t->busy.mask, mask_one);
    return NULL;
}

static void *encode_frames(void *argument)
{
    lbr_transcode *t = argument;
    run_stage(t, &t->masked, &t->encoded, &t->busy.encode, encode_one);
    return NULL;
}

int lbr_transcode_start(lbr_transcode *t)
{
    t->began = now();
    const struct { void *(*run)(void *); bool wanted; } stages[STAGES] = {
        { read_frames, true }, { convert_frames, t->converting }, { mask_frames, t->writing }, { encode_frames, t->writing },
    };
    for (int i = 0; i < STAGES; i++) {
        if (!stages[i].wanted) continue;
        int error = pthread_create(&t->threads[t->running], NULL, stages[i].run, t);
        t->running += !error;
        if (error) return lbr_fail(LBR_ENOMEM, "transcode: no thread: %s", strerror(error));
    }
    return LBR_OK;
}

/* ---- the caller's side ---- */

/* With the lock held: a pause until something moved. */
static int wait_a_little(lbr_transcode *t)
{
    if (lbr_interrupted()) return lbr_fail(LBR_EINTR, "%s: interrupted", t->name);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 50 * 1000 * 1000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_cond_timedwait(&t->moved, &t->lock, &until);
    return LBR_OK;
}

/* With the lock held, only reading: frames that nobody asks for any more make room. */
static void let_go(lbr_transcode *t)
{
    while (t->taken - t->encoded > t->queue / 2) av_frame_unref(t->places[t->encoded++ % t->queue].frame);
    t->given = t->masked = t->encoded;
    pthread_cond_broadcast(&t->moved);
}

int lbr_transcode_describe(const lbr_transcode *t, lbr_transcode_info *out)
{
    *out = t->info;
    return LBR_OK;
}

int lbr_transcode_next(lbr_transcode *t, int64_t *index, double *time, int *damaged)
{
    int status = LBR_OK;
    pthread_mutex_lock(&t->lock);
    if (!t->writing) let_go(t);
    if (t->taken - t->given >= t->queue - 1)
        status = lbr_fail(LBR_EINVAL, "transcode: %s: %d frames wait for their masks, and there is no room for more", t->name, t->queue - 1);
    while (status == LBR_OK && t->taken == (t->converting ? t->converted : t->read)) {
        if (t->status != LBR_OK) status = lbr_fail(t->status, "%s", t->error);
        else if (t->ended && t->taken == t->read) status = LBR_EEND;
        else status = wait_a_little(t);
    }
    if (status == LBR_OK && t->status != LBR_OK) status = lbr_fail(t->status, "%s", t->error);
    if (status == LBR_OK) {
        const struct place *place = &t->places[t->taken++ % t->queue];
        *index = place->index;
        *time = place->time;
        *damaged = place->damaged;
    }
    pthread_mutex_unlock(&t->lock);
    return status;
}

int lbr_transcode_rgb(lbr_transcode *t, int64_t index, uint8_t *rgb)
{
    double start = now();
    if (index < t->given || index >= t->taken)
        return lbr_fail(LBR_EINVAL, "transcode: %s: frame %lld is not in hand", t->name, (long long)index + 1);
    struct place *place = &t->places[index % t->queue];
    struct lbr_frame *picture = t->converting ? &place->rgb : &t->places[0].rgb;
    int status = t->converting ? LBR_OK : lbr_converter_run(t->name, &t->converter, place->frame, t->orientation, picture);
    if (status != LBR_OK) return status;
    int crop[4] = { 0, 0, t->info.width, t->info.height };
    lbr_turn_copy(picture, crop, 0, rgb);
    worked(t, &t->busy.convert, start);
    return LBR_OK;
}

int lbr_transcode_coarse(lbr_transcode *t, int64_t index, uint8_t *rgb)
{
    if (!t->coarsely) return lbr_fail(LBR_EINVAL, "transcode: %s: it was opened without coarse pictures", t->name);
    if (index < t->given || index >= t->taken)
        return lbr_fail(LBR_EINVAL, "transcode: %s: frame %lld is not in hand", t->name, (long long)index + 1);
    int crop[4] = { 0, 0, t->info.across, t->info.down };
    lbr_turn_copy(&t->places[index % t->queue].coarse, crop, 0, rgb);
    return LBR_OK;
}

int lbr_transcode_write(lbr_transcode *t, int64_t index, const lbr_mask *masks, int64_t count)
{
    if (!t->writing) return lbr_fail(LBR_EINVAL, "transcode: %s: it is only read, there is no output", t->name);
    if (index != t->given || index >= t->taken)
        return lbr_fail(LBR_EINVAL, "transcode: %s: masks of frame %lld, want those of frame %lld", t->name, (long long)index + 1, (long long)t->given + 1);
    int status = lbr_mask_check(masks, count);
    if (status != LBR_OK) return status;
    lbr_mask *copy = count > 0 ? lbr_mask_copy(masks, count) : NULL;
    if (count > 0 && !copy) return lbr_fail(LBR_ENOMEM, "transcode: no memory");
    pthread_mutex_lock(&t->lock);
    if (t->status != LBR_OK) status = lbr_fail(t->status, "%s", t->error);
    if (status == LBR_OK) {
        struct place *place = &t->places[index % t->queue];
        place->masks = copy;
        place->count = count;
        t->given++;
        pthread_cond_broadcast(&t->moved);
    }
    pthread_mutex_unlock(&t->lock);
    if (status != LBR_OK) free(copy);
    return status;
}

void lbr_transcode_abandon(lbr_transcode *t)
{
    pthread_mutex_lock(&t->lock);
    t->idle = true;
    pthread_mutex_unlock(&t->lock);
}

static void join(lbr_transcode *t)
{
    while (t->running > 0) pthread_join(t->threads[--t->running], NULL);
}

int lbr_transcode_finish(lbr_transcode *t)
{
    if (!t->writing || t->encoder.published) return LBR_OK;
    int status = LBR_OK;
    pthread_mutex_lock(&t->lock);
    while (status == LBR_OK && !t->ended && t->given == t->read) {   /* is there another frame? */
        if (t->status != LBR_OK) status = lbr_fail(t->status, "%s", t->error);
        else status = wait_a_little(t);
    }
    if (status == LBR_OK && t->given < t->read)
        status = lbr_fail(LBR_EINVAL, "transcode: %s: frame %lld has not been given its masks", t->name, (long long)t->given + 1);
    t->ending = status == LBR_OK;
    pthread_cond_broadcast(&t->moved);
    while (status == LBR_OK && !t->finished) {
        if (t->status != LBR_OK) status = lbr_fail(t->status, "%s", t->error);
        else status = wait_a_little(t);
    }
    pthread_mutex_unlock(&t->lock);
    if (status != LBR_OK) return status;
    join(t);
    return t->idle ? LBR_OK : lbr_encoder_publish(&t->encoder);
}

void lbr_transcode_busy_now(lbr_transcode *t, lbr_transcode_busy *out)
{
    pthread_mutex_lock(&t->lock);
    *out = t->busy;
    out->read = t->read;
    out->encoded = t->writing ? t->encoded : 0;
    pthread_mutex_unlock(&t->lock);
    out->elapsed = now() - t->began;
}

const char *lbr_transcode_dropped(const lbr_transcode *t) { return t->dropped; }

const char *lbr_transcode_warning(lbr_transcode *t)
{
    const char *input = atomic_load(&t->decoder.warned) ? t->decoder.warning : "", *output = t->encoder.warning;
    snprintf(t->text, sizeof t->text, "%s%s%s", input, *input && *output ? "; " : "", output);
    return t->text;
}

void lbr_transcode_free(lbr_transcode *t)
{
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->moved);
    pthread_mutex_unlock(&t->lock);
    atomic_store(&t->decoder.cancelled, true);
    join(t);
    lbr_encoder_close(&t->encoder);
    lbr_decoder_close(&t->decoder);
    for (int i = 0; i < MOST; i++) {
        av_frame_free(&t->places[i].frame);
        lbr_frame_release(&t->places[i].rgb);
        lbr_frame_release(&t->places[i].coarse);
        free(t->places[i].masks);
    }
    av_frame_free(&t->blank);
    lbr_planes_release(&t->planes);
    lbr_converter_release(&t->converter);
    lbr_coarse_release(&t->coarse);
    lbr_mask_room_release(&t->room);
    pthread_cond_destroy(&t->moved);
    pthread_mutex_destroy(&t->lock);
    free(t->dropped);
    free(t->name);
    free(t);
    atomic_fetch_sub(&lbr_media_count, 1);
}
