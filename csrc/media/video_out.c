/* video_out.c: RGB frames to an H.264 file: a bounded queue, an encoder thread, a temporary file that is renamed at the end. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <libavutil/avstring.h>
#include <libavutil/opt.h>
#include "internal.h"

enum { QUEUE = 8, QUEUE_BYTES = 256 << 20 };

struct lbr_writer {
    char *path, *temporary;
    int width, height;        /* as given; the file's are even */
    double start, fps;
    AVFormatContext *format;
    AVStream *stream;
    AVCodecContext *encoder;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *sws;
    struct lbr_audio *audio;
    char warning[512];
    bool published;

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

static void warn(lbr_writer *w, const char *text)
{
    size_t n = strlen(w->warning);
    snprintf(w->warning + n, sizeof w->warning - n, "%s%s", n ? "; " : "", text);
}

static int failed(lbr_writer *w, int code)
{
    int status = code == AVERROR(ENOMEM) ? LBR_ENOMEM : code == AVERROR(EINVAL) ? LBR_EINVAL : LBR_EIO;
    /* what the disk said is the cause of what the muxer says after it */
    int disk = w->format && w->format->pb ? w->format->pb->error : 0;
    if (disk < 0) lbr_ffmpeg_forget();
    return lbr_fail(disk < 0 ? LBR_EIO : status, "writer: %s: %s", w->path, lbr_ffmpeg_text(disk < 0 ? disk : code));
}

/* ---- opening ---- */

static int open_codec(lbr_writer *w, const char *name, const lbr_writer_options *o)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(name);
    if (!codec) return AVERROR_ENCODER_NOT_FOUND;
    if (avformat_query_codec(w->format->oformat, codec->id, FF_COMPLIANCE_NORMAL) == 0) return AVERROR_MUXER_NOT_FOUND;
    AVCodecContext *c = w->encoder = avcodec_alloc_context3(codec);
    if (!c) return AVERROR(ENOMEM);
    bool x264 = strcmp(name, "libx264") == 0, mpeg4 = codec->id == AV_CODEC_ID_MPEG4;
    c->width = (w->width + 1) & ~1;
    c->height = (w->height + 1) & ~1;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->framerate = av_d2q(w->fps, 60000);
    c->time_base = (AVRational){ 1, mpeg4 ? 60000 : 90000 };   /* MPEG-4's own clock has 16 bits */
    if (strcmp(w->format->oformat->name, "avi") == 0) {   /* it knows a constant rate only, and no reordering */
        c->time_base = av_inv_q(c->framerate);
        c->max_b_frames = 0;
    }
    c->thread_count = o->threads > 0 ? o->threads : 0;
    /* players take BT.601 below 720 lines and BT.709 above where nothing is said; it is said as well */
    bool large = c->height >= 720;
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = large ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
    c->color_primaries = large ? AVCOL_PRI_BT709 : AVCOL_PRI_SMPTE170M;
    c->color_trc = large ? AVCOL_TRC_BT709 : AVCOL_TRC_SMPTE170M;
    if (w->format->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    int crf = o->crf < 0 ? 20 : o->crf > 51 ? 51 : o->crf;
    AVDictionary *options = NULL;
    if (x264) {
        av_dict_set(&options, "preset", o->preset && *o->preset ? o->preset : "veryfast", 0);
        av_dict_set_int(&options, "crf", crf, 0);
    } else {
        c->flags |= AV_CODEC_FLAG_QSCALE;
        c->global_quality = FF_QP2LAMBDA * (crf / 5 < 1 ? 1 : crf / 5);
        c->bit_rate = (int64_t)c->width * c->height * 4;
    }
    int code = avcodec_open2(c, codec, &options);
    av_dict_free(&options);
    if (code < 0) avcodec_free_context(&w->encoder);
    return code;
}

/* x264 prints its complaint about an unknown preset, so it never hears of one. */
static bool known_preset(const char *preset)
{
    static const char *const presets[] = { "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo" };
    if (!preset || !*preset) return true;
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (strcmp(preset, presets[i]) == 0) return true;
    return false;
}

static int open_encoder(lbr_writer *w, const lbr_writer_options *o)
{
    bool mpeg4 = o->codec && strcmp(o->codec, "mpeg4") == 0;
    if (o->codec && !mpeg4 && strcmp(o->codec, "h264") != 0)
        return lbr_fail(LBR_EINVAL, "writer: codec is \"%s\", want \"h264\" or \"mpeg4\"", o->codec);
    if (!known_preset(o->preset))
        return lbr_fail(LBR_EINVAL, "writer: %s: preset is \"%s\", want ultrafast, superfast, veryfast, faster, fast, medium, slow, slower, veryslow "
                        "or placebo", w->path, o->preset);
    int code = AVERROR_ENCODER_NOT_FOUND;
    const char *const names[] = { "libx264", "libopenh264", "mpeg4" };
    for (size_t i = mpeg4 ? 2 : 0; i < 3 && code == AVERROR_ENCODER_NOT_FOUND; i++) {
        code = open_codec(w, names[i], o);
        if (code >= 0 && i == 2 && !mpeg4) warn(w, "this FFmpeg has no H.264 encoder; the video is MPEG-4 part 2");
    }
    if (code == AVERROR_MUXER_NOT_FOUND)
        return lbr_fail(LBR_EINVAL, "writer: %s: a %s file cannot hold this video, want .mp4, .mkv or .mov", w->path, w->format->oformat->name);
    return code < 0 ? lbr_fail(lbr_ffmpeg_status(code), "writer: %s: no encoder: %s", w->path, lbr_ffmpeg_text(code)) : LBR_OK;
}

static int open_conversion(lbr_writer *w)
{
    AVCodecContext *c = w->encoder;
    w->sws = sws_getContext(c->width, c->height, AV_PIX_FMT_RGB24, c->width, c->height, AV_PIX_FMT_YUV420P, SWS_BILINEAR, NULL, NULL, NULL);
    if (!w->sws) return lbr_fail(LBR_EUNSUPPORTED, "writer: no conversion from rgb24");
    int *inverse, *table, in_full, out_full, brightness, contrast, saturation;
    if (sws_getColorspaceDetails(w->sws, &inverse, &in_full, &table, &out_full, &brightness, &contrast, &saturation) >= 0)
        sws_setColorspaceDetails(w->sws, inverse, 1, sws_getCoefficients(c->colorspace), 0, brightness, contrast, saturation);
    w->packet = av_packet_alloc();
    w->frame = av_frame_alloc();
    if (!w->packet || !w->frame) return lbr_fail(LBR_ENOMEM, "writer: no memory");
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

static int open_file(lbr_writer *w, const lbr_writer_options *o)
{
    const AVOutputFormat *guess = av_guess_format(NULL, w->path, NULL);
    if (!guess || guess->flags & AVFMT_NOFILE || guess->video_codec == AV_CODEC_ID_NONE)
        return lbr_fail(LBR_EINVAL, "writer: %s: no known kind of video, want a name that ends in .mp4, .mkv, .mov or .avi", w->path);
    w->temporary = lbr_file_temporary(w->path);
    char *url = w->temporary ? av_asprintf("file:%s", w->temporary) : NULL;
    int code = url ? avformat_alloc_output_context2(&w->format, NULL, guess->name, url) : AVERROR(ENOMEM), status = LBR_OK;
    if (code >= 0) {
        status = open_encoder(w, o);
        if (status == LBR_OK) status = open_conversion(w);
        if (status == LBR_OK && !(w->stream = avformat_new_stream(w->format, NULL))) code = AVERROR(ENOMEM);
        if (status == LBR_OK && code >= 0) code = avcodec_parameters_from_context(w->stream->codecpar, w->encoder);
    }
    if (status == LBR_OK && code >= 0) {
        w->stream->time_base = w->encoder->time_base;
        w->stream->avg_frame_rate = w->encoder->framerate;
        if (o->audio_from && lbr_audio_open(o->audio_from, w->format, o->start, o->stop, &w->audio) != LBR_OK) warn(w, lbr_error());
        if (w->audio && lbr_audio_encodes(w->audio)) warn(w, "the audio was encoded anew, as AAC");
        lbr_ffmpeg_forget();
        code = avio_open(&w->format->pb, url, AVIO_FLAG_WRITE);
        if (code >= 0) code = avformat_write_header(w->format, NULL);
    }
    av_free(url);
    return status != LBR_OK ? status : code < 0 ? failed(w, code) : LBR_OK;
}

/* ---- the encoder thread ---- */

static int drain(lbr_writer *w)
{
    int code;
    while ((code = avcodec_receive_packet(w->encoder, w->packet)) >= 0) {
        AVPacket *p = w->packet;
        if (p->duration <= 0) p->duration = llrint(1 / (w->fps * av_q2d(w->encoder->time_base)));
        double t = (double)p->dts * av_q2d(w->encoder->time_base);
        p->stream_index = w->stream->index;
        av_packet_rescale_ts(p, w->encoder->time_base, w->stream->time_base);
        if ((code = av_interleaved_write_frame(w->format, p)) < 0) return code;
        if (w->audio && (code = lbr_audio_until(w->audio, t)) < 0) return code;
        if (w->format->pb->error < 0) return w->format->pb->error;
    }
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF ? 0 : code;
}

static int encode(lbr_writer *w, const struct lbr_frame *picture)
{
    int code = av_frame_make_writable(w->frame);
    if (code < 0) return code;
    const uint8_t *planes[4] = { picture->data };
    int strides[4] = { (int)picture->stride };
    if (sws_scale(w->sws, planes, strides, 0, picture->height, w->frame->data, w->frame->linesize) <= 0) return AVERROR(EINVAL);
    int64_t pts = llrint(picture->time / av_q2d(w->encoder->time_base));
    w->frame->pts = w->encoded > 0 && pts <= w->frame->pts ? w->frame->pts + 1 : pts;
    w->frame->pict_type = AV_PICTURE_TYPE_NONE;
    code = avcodec_send_frame(w->encoder, w->frame);
    return code < 0 ? code : drain(w);
}

static int complete(lbr_writer *w)
{
    int code = avcodec_send_frame(w->encoder, NULL);
    if (code >= 0) code = drain(w);
    if (code >= 0 && w->audio) code = lbr_audio_until(w->audio, INFINITY);
    if (code >= 0) code = av_write_trailer(w->format);
    if (code >= 0) avio_flush(w->format->pb);
    return code >= 0 && w->format->pb->error < 0 ? w->format->pb->error : code;
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
        int code = empty ? complete(w) : encode(w, slot);
        int status = code < 0 ? failed(w, code) : LBR_OK;
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
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return lbr_fail(LBR_ENOMEM, "writer: no memory");
    }
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
    int status = open_file(w, options);
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
        if (lbr_interrupted()) return lbr_fail(LBR_EINTR, "writer: %s: interrupted", w->path);
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
        return lbr_fail(LBR_EINVAL, "writer: %s: time of frame %lld is %.6f s, want more than %.6f s", w->path, (long long)w->written + 1, time, w->last);
    pthread_mutex_lock(&w->lock);
    int status = w->ending ? lbr_fail(LBR_EINVAL, "writer: %s: already finished", w->path) : wait_for(w, w->queue);
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
    if (w->published) return LBR_OK;
    if (w->written == 0) return lbr_fail(LBR_EINVAL, "writer: %s: no frame was written", w->path);
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->filled);
    int status = wait_for(w, 0);
    pthread_mutex_unlock(&w->lock);
    if (status != LBR_OK) return status;
    join(w);
    int code = avio_closep(&w->format->pb);
    if (code < 0) return failed(w, code);
    status = lbr_file_publish("writer", w->temporary, w->path);
    w->published = status == LBR_OK;
    return status;
}

const char *lbr_writer_warning(const lbr_writer *w) { return w->warning; }

void lbr_writer_free(lbr_writer *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->cancelled = true;
    pthread_cond_signal(&w->filled);
    pthread_mutex_unlock(&w->lock);
    join(w);
    lbr_audio_close(w->audio);
    if (w->format && w->format->pb) avio_closep(&w->format->pb);
    avformat_free_context(w->format);
    if (!w->published && w->temporary) unlink(w->temporary);
    sws_freeContext(w->sws);
    av_frame_free(&w->frame);
    av_packet_free(&w->packet);
    avcodec_free_context(&w->encoder);
    for (int i = 0; i < QUEUE; i++) lbr_frame_release(&w->slots[i]);
    pthread_cond_destroy(&w->filled);
    pthread_cond_destroy(&w->emptied);
    pthread_mutex_destroy(&w->lock);
    free(w->temporary);
    free(w->path);
    free(w);
    atomic_fetch_sub(&lbr_media_count, 1);
}
