/* video_in.c: a video file as a producer of frames: what lies between start and stop, in RGB, seeking. Decoding: decode.c; the threads around it: source.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

struct video {
    struct lbr_decoder d;
    struct lbr_converter converter;
    double start, stop;        /* what is delivered */
    bool held;                 /* d.frame holds a decoded picture not yet delivered (after a seek) */
};

static int produce(void *state, int64_t ticket, struct lbr_frame *picture)
{
    struct video *v = state;
    (void)ticket;
    lbr_ffmpeg_forget();
    for (;;) {
        int code = v->held ? 0 : lbr_decoder_next(&v->d);
        v->held = false;
        if (code == AVERROR_EOF) {
            lbr_decoder_check(&v->d);
            if (v->d.decoded > 0) return LBR_EEND;
            return lbr_fail(LBR_EFORMAT, "video_open: %s: no frame of the %s video could be decoded", v->d.path, avcodec_get_name(v->d.context->codec_id));
        }
        if (code == AVERROR_EXIT) return lbr_fail(LBR_EINTR, "%s: interrupted", v->d.path);
        if (code < 0) return lbr_fail(lbr_ffmpeg_status(code), "%s: %s", v->d.path, lbr_ffmpeg_text(code));
        if (v->d.clock < v->start - LBR_TIME_SLACK) {
            av_frame_unref(v->d.frame);
            continue;
        }
        if (v->stop > 0 && v->d.clock >= v->stop - LBR_TIME_SLACK) {
            v->held = true;   /* and stays at the end */
            return LBR_EEND;
        }
        bool exact;
        int orientation = lbr_turn_of_frame(v->d.frame, v->d.format->streams[v->d.stream], &exact);
        int status = lbr_converter_run(v->d.path, &v->converter, v->d.frame, orientation, picture);
        if (status != LBR_OK) return status;
        if (!exact) lbr_decoder_warn(&v->d, "its display matrix turns by an angle that is no quarter turn; the picture is left as stored");
        picture->time = v->d.clock;
        av_frame_unref(v->d.frame);
        return LBR_OK;
    }
}

/* Goes to the last key frame at or before seconds; earlier and earlier, and at last to the beginning, until the first picture is early enough. */
static int seek(void *state, double seconds)
{
    struct video *v = state;
    v->start = seconds > 0 ? seconds : 0;
    AVRational base = v->d.format->streams[v->d.stream]->time_base;
    static const double back[] = { 0, 1, 5, 30, INFINITY };
    for (size_t i = 0; i < sizeof back / sizeof *back; i++) {
        double target = v->start - back[i];
        bool beginning = target <= 0 || i + 1 == sizeof back / sizeof *back;
        int64_t ticks = beginning ? INT64_MIN / 2 : (int64_t)floor((target + v->d.origin) * base.den / base.num);
        lbr_ffmpeg_forget();
        int code = avformat_seek_file(v->d.format, v->d.stream, INT64_MIN, ticks, beginning ? INT64_MAX : ticks, AVSEEK_FLAG_BACKWARD);
        if (code < 0 && beginning) code = av_seek_frame(v->d.format, -1, 0, AVSEEK_FLAG_BYTE);
        if (code < 0 && !beginning) continue;
        if (code < 0) return lbr_fail(LBR_EIO, "video_seek: %s: %s", v->d.path, lbr_ffmpeg_text(code));
        avcodec_flush_buffers(v->d.context);
        av_frame_unref(v->d.frame);
        v->d.draining = v->held = false;
        v->d.awaiting = v->d.failed = v->d.suspect = 0;
        v->d.clock = -1;
        v->d.from_beginning = beginning;
        v->d.decoded = v->d.damaged = v->d.read_error = 0;
        v->d.reached = 0;
        code = lbr_decoder_next(&v->d);
        v->held = code == 0;
        if (beginning || (v->held && v->d.clock <= v->start + LBR_TIME_SLACK)) break;
    }
    return LBR_OK;
}

static void describe(void *state, lbr_source_info *info)
{
    struct video *v = state;
    info->fps = v->d.fps;
    info->duration = v->d.duration;
    info->has_audio = av_find_best_stream(v->d.format, AVMEDIA_TYPE_AUDIO, -1, -1, NULL, 0) >= 0;
    info->frames = v->d.frames;
    bool whole = v->start <= 0 && (v->stop <= 0 || (v->d.duration > 0 && v->stop >= v->d.duration));
    if (!whole && v->d.fps > 0) {
        double to = v->stop > 0 && (v->d.duration <= 0 || v->stop < v->d.duration) ? v->stop : v->d.duration;
        double count = round((to - v->start) * v->d.fps);
        info->frames = to <= 0 ? 0 : count < 1 ? 1 : (int64_t)count;
    }
    snprintf(info->codec, sizeof info->codec, "%s", avcodec_get_name(v->d.context->codec_id));
}

static void cancel(void *state, bool on) { atomic_store(&((struct video *)state)->d.cancelled, on); }

static const char *warning(void *state)
{
    struct video *v = state;
    return atomic_load(&v->d.warned) ? v->d.warning : "";
}

static void close_video(void *state)
{
    struct video *v = state;
    if (!v) return;
    lbr_converter_release(&v->converter);
    lbr_decoder_close(&v->d);
    free(v);
}

static const struct lbr_producer producer = { produce, seek, describe, cancel, warning, close_video };

int lbr_video_open(const char *path, const lbr_source_options *options, lbr_source **out)
{
    *out = NULL;
    struct video *v = calloc(1, sizeof *v);
    if (!v) return lbr_fail(LBR_ENOMEM, "video_open: no memory");
    v->stop = options->stop;
    int status = lbr_decoder_open(&v->d, path, options->threads);
    if (status == LBR_OK && options->start > 0) {
        if (v->d.duration > 0 && options->start >= v->d.duration)
            status = lbr_fail(LBR_EINVAL, "video_open: %s: start is %g s, but it lasts %.2f s", path, options->start, v->d.duration);
        else
            status = seek(v, options->start);
    }
    if (status != LBR_OK) {
        close_video(v);
        return status;
    }
    return lbr_source_make("video_open", path, &producer, v, 1, options, out);
}
