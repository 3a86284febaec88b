/* video_out.c: RGB frames to an H.264 file: a bounded queue and a thread that converts and encodes. The file and its codec: encode.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "internal.h"

enum { QUEUE = 8, QUEUE_BYTES = 256 << 20, CLOCK = 90000 };

struct lbr_writer {
    struct lbr_encoder encoder;
    int width, height;        /* as given; the file's are even */
    double start, fps;
    AVFrame *frame;
    struct SwsContext *sws;

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    struct lbr_frame slots[QUEUE];
    int queue;
    int64_t written, encoded; /* frames into and out of the queue */
    double last;
    bool ending, cancelled, finished;
    int status;               /* of the encoder thread */
    char text[512];
};

/* ---- opening ---- */

static int open_conversion(lbr_writer *w)
{
    AVCodecContext *c = w->encoder.context;
    w->sws = sws_getContext(c->width, c->height, AV_PIX_FMT_RGB24, c->width, c->height, AV_PIX_FMT_YUV420P, SWS_BILINEAR, NULL, NULL, NULL);
    if (!w->sws) return lbr_fail(LBR_EUNSUPPORTED, "writer: no conversion from rgb24");
    int *inverse, *table, in_full, out_full, brightness, contrast, saturation;
    if (sws_getColorspaceDetails(w->sws, &inverse, &in_full, &table, &out_full, &brightness, &contrast, &saturation) >= 0)
        sws_setColorspaceDetails(w->sws, inverse, 1, sws_getCoefficients(c->colorspace), 0, brightness, contrast, saturation);
    w->frame = av_frame_alloc();
    if (!w->frame) return lbr_fail(LBR_ENOMEM, "writer: no memory");
    w->frame->format = c->pix_fmt;
    w->frame->width = c->width;
    w->frame->height = c->height;
    w->frame->color_range = c->color_range;
    w->frame->colorspace = c->colorspace;
    if (av_frame_get_buffer(w->frame, 0) < 0) return lbr_fail(LBR_ENOMEM, "writer: no memory");
    for (int i = 0; i < QUEUE; i++) {
        if (i >= 2 && (int64_t)(i + 1) * (int64_t)w->slots[0].capacity > QUEUE_BYTES) break;
        int status = lbr_frame_reserve(&w->slots[i], c->width, c->height);
        if (status != LBR_OK) return status;
        w->queue = i + 1;
    }
    return LBR_OK;
}

static int open_file(lbr_writer *w, const char *path, const lbr_writer_options *o)
{
    /* players take BT.601 below 720 lines and BT.709 above where nothing is said; it is said as well */
    bool large = o->height + (o->height & 1) >= 720;
    struct lbr_encoder_options options = {
        .width = o->width, .height = o->height, .format = AV_PIX_FMT_YUV420P, .base = { 1, CLOCK }, .rate = av_d2q(w->fps, 60000),
        .range = AVCOL_RANGE_MPEG, .space = large ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M,
        .primaries = large ? AVCOL_PRI_BT709 : AVCOL_PRI_SMPTE170M, .transfer = large ? AVCOL_TRC_BT709 : AVCOL_TRC_SMPTE170M,
        .crf = o->crf, .threads = o->threads, .preset = o->preset, .codec = o->codec,
    };
    int status = lbr_encoder_open(&w->encoder, path, &options);
    if (status == LBR_OK) status = open_conversion(w);
    if (status != LBR_OK) return status;
    if (o->audio_from)
        lbr_encoder_sound(&w->encoder, o->audio_from, &(struct lbr_audio_options){ .stream = -1, .start = o->start, .stop = o->stop });
    return lbr_encoder_begin(&w->encoder);
}

/* ---- the encoder thread ---- */

static int encode(lbr_writer *w, const struct lbr_frame *picture)
{
    int code = av_frame_make_writable(w->frame);
    if (code < 0) return code;
    const uint8_t *planes[4] = { picture->data };
    int strides[4] = { (int)picture->stride };
    if (sws_scale(w->sws, planes, strides, 0, picture->height, w->frame->data, w->frame->linesize) <= 0) return AVERROR(EINVAL);
    return lbr_encoder_send(&w->encoder, w->frame, llrint(picture->time * CLOCK), 0);
}

static void *work(void *argument)
{
    lbr_writer *w = argument;
    pthread_mutex_lock(&w->lock);
    while (!w->cancelled && w->status == LBR_OK) {
        bool empty = w->encoded == w->written;
        if (empty && !w->ending) {
            pthread_cond_wait(&w->filled, &w->lock);
            continue;
        }
        struct lbr_frame *slot = &w->slots[w->encoded % w->queue];
        pthread_mutex_unlock(&w->lock);
        lbr_ffmpeg_forget();
        int code = empty ? lbr_encoder_complete(&w->encoder) : encode(w, slot);
        int status = code < 0 ? lbr_encoder_failed(&w->encoder, code) : LBR_OK;
        pthread_mutex_lock(&w->lock);
        w->status = status;
        if (status != LBR_OK) snprintf(w->text, sizeof w->text, "%s", lbr_error());
        if (!empty) w->encoded++;
        else if (status == LBR_OK) w->finished = true;
        pthread_cond_broadcast(&w->emptied);
        if (empty) break;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the caller's side ---- */

int lbr_writer_open(const char *path, const lbr_writer_options *options, lbr_writer **out)
{
    *out = NULL;
    if (options->width < 1 || options->height < 1)
        return lbr_fail(LBR_EINVAL, "writer: %s: size is %d x %d, want at least 1 x 1", path, options->width, options->height);
    lbr_writer *w = calloc(1, sizeof *w);
    if (!w) return lbr_fail(LBR_ENOMEM, "writer: no memory");
    atomic_fetch_add(&lbr_media_count, 1);
    lbr_media_pin();
    lbr_ffmpeg_start();
    w->width = options->width;
    w->height = options->height;
    w->fps = options->fps > 0 && options->fps < 1000 ? options->fps : 25;
    w->start = options->start > 0 ? options->start : 0;
    w->last = -INFINITY;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->filled, &attributes);
    pthread_cond_init(&w->emptied, &attributes);
    pthread_condattr_destroy(&attributes);
    int status = open_file(w, path, options);
    if (status == LBR_OK) {
        int error = pthread_create(&w->thread, NULL, work, w);
        if (error) status = lbr_fail(LBR_ENOMEM, "writer: no thread: %s", strerror(error));
        else w->started = true;
    }
    if (status != LBR_OK) {
        lbr_writer_free(w);
        return status;
    }
    *out = w;
    return LBR_OK;
}

static void put(lbr_writer *w, struct lbr_frame *slot, const uint8_t *rgb)
{
    size_t row = 3 * (size_t)w->width;
    for (int y = 0; y < slot->height; y++) {
        uint8_t *to = slot->data + y * slot->stride;
        memcpy(to, rgb + (size_t)(y < w->height ? y : w->height - 1) * row, row);
        if (w->width & 1) memcpy(to + row, to + row - 3, 3);
    }
}

/* With the lock held: waits until the queue holds fewer than limit frames, or for the end of the file. */
static int wait_for(lbr_writer *w, int64_t limit)
{
    while (w->status == LBR_OK && (limit > 0 ? w->written - w->encoded >= limit : !w->finished)) {
        if (lbr_interrupted()) return lbr_fail(LBR_EINTR, "writer: %s: interrupted", w->encoder.path);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 50 * 1000 * 1000;
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&w->emptied, &w->lock, &until);
    }
    return w->status == LBR_OK ? LBR_OK : lbr_fail(w->status, "%s", w->text);
}

int lbr_writer_write(lbr_writer *w, const uint8_t *rgb, double time)
{
    time -= w->start;
    if (!isfinite(time) || time <= w->last || fabs(time) > 1e8)
        return lbr_fail(LBR_EINVAL, "writer: %s: time of frame %lld is %.6f s, want more than %.6f s", w->encoder.path, (long long)w->written + 1, time, w->last);
    pthread_mutex_lock(&w->lock);
    int status = w->ending ? lbr_fail(LBR_EINVAL, "writer: %s: already finished", w->encoder.path) : wait_for(w, w->queue);
    struct lbr_frame *slot = &w->slots[w->written % w->queue];
    pthread_mutex_unlock(&w->lock);
    if (status != LBR_OK) return status;
    put(w, slot, rgb);
    slot->time = w->last = time;
    pthread_mutex_lock(&w->lock);
    w->written++;
    pthread_cond_signal(&w->filled);
    pthread_mutex_unlock(&w->lock);
    return LBR_OK;
}

static void join(lbr_writer *w)
{
    if (w->started) pthread_join(w->thread, NULL);
    w->started = false;
}

int lbr_writer_finish(lbr_writer *w)
{
    if (w->encoder.published) return LBR_OK;
    if (w->written == 0) return lbr_fail(LBR_EINVAL, "writer: %s: no frame was written", w->encoder.path);
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->filled);
    int status = wait_for(w, 0);
    pthread_mutex_unlock(&w->lock);
    if (status != LBR_OK) return status;
    join(w);
    return lbr_encoder_publish(&w->encoder);
}

const char *lbr_writer_warning(const lbr_writer *w) { return w->encoder.warning; }

void lbr_writer_free(lbr_writer *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->cancelled = true;
    pthread_cond_signal(&w->filled);
    pthread_mutex_unlock(&w->lock);
    join(w);
    lbr_encoder_close(&w->encoder);
    sws_freeContext(w->sws);
    av_frame_free(&w->frame);
    for (int i = 0; i < QUEUE; i++) lbr_frame_release(&w->slots[i]);
    pthread_cond_destroy(&w->filled);
    pthread_cond_destroy(&w->emptied);
    pthread_mutex_destroy(&w->lock);
    free(w);
    atomic_fetch_sub(&lbr_media_count, 1);
}
