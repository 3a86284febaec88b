/* video_in.c: a video file as a producer of frames: demuxing, decoding, timestamps, seeking, signs of damage. Not the threads around it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/avutil.h>
#include <libavutil/cpu.h>
#include "internal.h"

struct video {
    char *path;
    AVFormatContext *format;
    AVCodecContext *decoder;
    AVPacket *packet;
    AVFrame *frame;
    struct lbr_converter converter;
    struct lbr_hardware hardware;
    int stream;
    double origin;             /* the container's start, seconds */
    double start, stop;        /* what is delivered */
    double duration, fps;
    int64_t frames;            /* announced by the file or estimated; 0 unknown */
    bool draining, held;       /* held: frame holds a decoded picture not yet delivered (after a seek) */
    bool from_beginning;
    int64_t decoded;           /* pictures that came out of the decoder */
    int64_t damaged;           /* packets or pictures that were broken */
    int read_error;
    double clock, reached;     /* time of the last picture; end of the last packet of any stream */
    atomic_bool cancelled, warned;
    char warning[512];
};

static double seconds_of(int64_t ticks, AVRational base) { return (double)ticks * base.num / base.den; }

static int interrupted(void *state)
{
    struct video *v = state;
    return atomic_load(&v->cancelled) || lbr_interrupted();
}

static void warn(struct video *v, const char *text)
{
    if (atomic_load(&v->warned)) return;
    snprintf(v->warning, sizeof v->warning, "%s: %s", v->path, text);
    atomic_store(&v->warned, true);
}

/* At the end of the file: was it all there? */
static void check_completeness(struct video *v)
{
    if (!v->from_beginning || interrupted(v)) return;
    double frame = v->fps > 0 ? 1 / v->fps : 0.04;
    bool cut = v->duration > 0 && v->reached < v->duration - fmax(0.25, 3 * frame);
    if (!cut && v->damaged == 0 && v->read_error == 0) return;
    char text[400];
    int n = snprintf(text, sizeof text, "the file is %s: %lld frames, to %.2f s, could be read", cut || v->read_error ? "truncated" : "damaged",
                     (long long)v->decoded, v->clock < 0 ? 0 : v->clock);
    if (v->duration > 0) n += snprintf(text + n, sizeof text - (size_t)n, " of %.2f s", v->duration);
    if (v->damaged > 0) snprintf(text + n, sizeof text - (size_t)n, "; %lld %s broken", (long long)v->damaged, v->damaged == 1 ? "packet was" : "packets were");
    warn(v, text);
}

static void note_packet(struct video *v)
{
    const AVPacket *p = v->packet;
    const AVStream *s = v->format->streams[p->stream_index];
    int64_t ticks = p->pts != AV_NOPTS_VALUE ? p->pts : p->dts;
    if (ticks == AV_NOPTS_VALUE) return;
    double end = seconds_of(ticks + (p->duration > 0 ? p->duration : 0), s->time_base) - v->origin;
    if (end > v->reached) v->reached = end;
}

/* One packet into the decoder, or the end of the file. */
static int feed(struct video *v)
{
    int code;
    while ((code = av_read_frame(v->format, v->packet)) >= 0) {
        note_packet(v);
        if (v->packet->stream_index == v->stream) break;
        av_packet_unref(v->packet);
        if (interrupted(v)) return AVERROR_EXIT;
    }
    if (code == AVERROR(EAGAIN)) return 0;
    if (code < 0) {
        if (interrupted(v)) return AVERROR_EXIT;
        if (code != AVERROR_EOF || (v->format->pb && v->format->pb->error < 0)) v->read_error = code;
        v->draining = true;
        return avcodec_send_packet(v->decoder, NULL) < 0 ? AVERROR_EOF : 0;
    }
    if (v->packet->flags & AV_PKT_FLAG_CORRUPT) v->damaged++;
    code = avcodec_send_packet(v->decoder, v->packet);
    av_packet_unref(v->packet);
    if (code == AVERROR(ENOMEM)) return code;
    if (code < 0 && code != AVERROR(EAGAIN)) v->damaged++;   /* the rest of the file may be sound */
    return 0;
}

static double frame_time(struct video *v, const AVFrame *frame)
{
    double step = v->fps > 0 ? 1 / v->fps : 0.04;
    int64_t ticks = frame->best_effort_timestamp;
    if (ticks == AV_NOPTS_VALUE) return v->clock < 0 ? 0 : v->clock + step;
    return seconds_of(ticks, v->format->streams[v->stream]->time_base) - v->origin;
}

/* Next decoded picture into v->frame, its time into v->clock: 0, AVERROR_EOF, AVERROR_EXIT or another error. */
static int decode(struct video *v)
{
    for (;;) {
        if (interrupted(v)) return AVERROR_EXIT;
        int code = avcodec_receive_frame(v->decoder, v->frame);
        if (code == 0) {
            v->decoded++;
            if (v->frame->decode_error_flags || v->frame->flags & AV_FRAME_FLAG_CORRUPT) v->damaged++;
            v->clock = frame_time(v, v->frame);
            return lbr_hardware_planes(&v->hardware, v->frame);
        }
        if (code == AVERROR_EOF || code == AVERROR(ENOMEM)) return code;
        if (code != AVERROR(EAGAIN)) {
            v->damaged++;
            if (v->draining && v->damaged > 1000000) return AVERROR_EOF;
            continue;
        }
        if (v->draining) return AVERROR_EOF;
        code = feed(v);
        if (code < 0) return code;
    }
}

static int produce(void *state, int64_t ticket, struct lbr_frame *picture)
{
    struct video *v = state;
    (void)ticket;
    lbr_ffmpeg_forget();
    for (;;) {
        int code = v->held ? 0 : decode(v);
        v->held = false;
        if (code == AVERROR_EOF) {
            check_completeness(v);
            if (v->decoded > 0) return LBR_EEND;
            return lbr_fail(LBR_EFORMAT, "video_open: %s: no frame of the %s video could be decoded", v->path, avcodec_get_name(v->decoder->codec_id));
        }
        if (code == AVERROR_EXIT) return lbr_fail(LBR_EINTR, "%s: interrupted", v->path);
        if (code < 0) return lbr_fail(lbr_ffmpeg_status(code), "%s: %s", v->path, lbr_ffmpeg_text(code));
        if (v->clock < v->start - LBR_TIME_SLACK) {
            av_frame_unref(v->frame);
            continue;
        }
        if (v->stop > 0 && v->clock >= v->stop - LBR_TIME_SLACK) {
            v->held = true;   /* and stays at the end */
            return LBR_EEND;
        }
        bool exact;
        int orientation = lbr_turn_of_frame(v->frame, v->format->streams[v->stream], &exact);
        int status = lbr_converter_run(v->path, &v->converter, v->frame, orientation, picture);
        if (status != LBR_OK) return status;
        if (!exact) warn(v, "its display matrix turns by an angle that is no quarter turn; the picture is left as stored");
        picture->time = v->clock;
        av_frame_unref(v->frame);
        return LBR_OK;
    }
}

/* Goes to the last key frame at or before seconds; earlier and earlier, and at last to the beginning, until the first picture is early enough. */
static int seek(void *state, double seconds)
{
    struct video *v = state;
    v->start = seconds > 0 ? seconds : 0;
    AVRational base = v->format->streams[v->stream]->time_base;
    static const double back[] = { 0, 1, 5, 30, INFINITY };
    for (size_t i = 0; i < sizeof back / sizeof *back; i++) {
        double target = v->start - back[i];
        bool beginning = target <= 0 || i + 1 == sizeof back / sizeof *back;
        int64_t ticks = beginning ? INT64_MIN / 2 : (int64_t)floor((target + v->origin) * base.den / base.num);
        lbr_ffmpeg_forget();
        int code = avformat_seek_file(v->format, v->stream, INT64_MIN, ticks, beginning ? INT64_MAX : ticks, AVSEEK_FLAG_BACKWARD);
        if (code < 0 && beginning) code = av_seek_frame(v->format, -1, 0, AVSEEK_FLAG_BYTE);
        if (code < 0 && !beginning) continue;
        if (code < 0) return lbr_fail(LBR_EIO, "video_seek: %s: %s", v->path, lbr_ffmpeg_text(code));
        avcodec_flush_buffers(v->decoder);
        av_frame_unref(v->frame);
        v->draining = v->held = false;
        v->clock = -1;
        v->from_beginning = beginning;
        v->decoded = v->damaged = v->read_error = 0;
        v->reached = 0;
        code = decode(v);
        v->held = code == 0;
        if (beginning || (v->held && v->clock <= v->start + LBR_TIME_SLACK)) break;
    }
    return LBR_OK;
}

static void describe(void *state, lbr_source_info *info)
{
    struct video *v = state;
    info->fps = v->fps;
    info->duration = v->duration;
    info->has_audio = av_find_best_stream(v->format, AVMEDIA_TYPE_AUDIO, -1, -1, NULL, 0) >= 0;
    info->frames = v->frames;
    bool whole = v->start <= 0 && (v->stop <= 0 || (v->duration > 0 && v->stop >= v->duration));
    if (!whole && v->fps > 0) {
        double to = v->stop > 0 && (v->duration <= 0 || v->stop < v->duration) ? v->stop : v->duration;
        double count = round((to - v->start) * v->fps);
        info->frames = to <= 0 ? 0 : count < 1 ? 1 : (int64_t)count;
    }
    snprintf(info->codec, sizeof info->codec, "%s", avcodec_get_name(v->decoder->codec_id));
    snprintf(info->decoder, sizeof info->decoder, "%s", lbr_hardware_decoder(&v->hardware));
}

static void cancel(void *state, bool on) { atomic_store(&((struct video *)state)->cancelled, on); }

static const char *warning(void *state)
{
    struct video *v = state;
    return atomic_load(&v->warned) ? v->warning : "";
}

static void close_video(void *state)
{
    struct video *v = state;
    if (!v) return;
    lbr_converter_release(&v->converter);
    av_frame_free(&v->frame);
    av_packet_free(&v->packet);
    avcodec_free_context(&v->decoder);
    avformat_close_input(&v->format);
    free(v->path);
    free(v);
}

static const struct lbr_producer producer = { produce, seek, describe, cancel, warning, close_video };

static int open_decoder(struct video *v, int threads, bool hardware)
{
    AVFormatContext *f = v->format;
    v->stream = av_find_best_stream(f, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (v->stream < 0 || f->streams[v->stream]->disposition & AV_DISPOSITION_ATTACHED_PIC)
        return lbr_fail(LBR_EFORMAT, "video_open: %s: no video in it (FFmpeg reads it as %s)", v->path, f->iformat->name);
    AVStream *stream = f->streams[v->stream];
    const AVCodec *codec = avcodec_find_decoder(stream->codecpar->codec_id);
    if (!codec)
        return lbr_fail(LBR_EUNSUPPORTED, "video_open: %s: this FFmpeg has no decoder for %s", v->path, avcodec_get_name(stream->codecpar->codec_id));
    v->decoder = avcodec_alloc_context3(codec);
    v->packet = av_packet_alloc();
    v->frame = av_frame_alloc();
    if (!v->decoder || !v->packet || !v->frame) return lbr_fail(LBR_ENOMEM, "video_open: no memory");
    int code = avcodec_parameters_to_context(v->decoder, stream->codecpar);
    v->decoder->pkt_timebase = stream->time_base;
    if (threads <= 0) threads = av_cpu_count();
    v->decoder->thread_count = threads > 16 ? 16 : threads;
    snprintf(v->hardware.reason, sizeof v->hardware.reason, "the CPU: as asked");
    if (hardware) lbr_hardware_offer(&v->hardware, v->decoder, codec);
    if (code >= 0) code = avcodec_open2(v->decoder, codec, NULL);
    if (code < 0) return lbr_fail(lbr_ffmpeg_status(code), "video_open: %s: %s", v->path, lbr_ffmpeg_text(code));

    v->origin = f->start_time != AV_NOPTS_VALUE ? (double)f->start_time / AV_TIME_BASE : 0;
    AVRational rate = av_guess_frame_rate(f, stream, NULL);
    v->fps = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
    bool own = stream->duration != AV_NOPTS_VALUE && stream->duration > 0;
    if (own) {
        double first = stream->start_time != AV_NOPTS_VALUE ? seconds_of(stream->start_time, stream->time_base) - v->origin : 0;
        v->duration = first + seconds_of(stream->duration, stream->time_base);
    } else if (f->duration != AV_NOPTS_VALUE && f->duration > 0) {
        v->duration = (double)f->duration / AV_TIME_BASE;
    }
    v->frames = stream->nb_frames > 0 ? stream->nb_frames : v->fps > 0 ? (int64_t)llround(v->duration * v->fps) : 0;
    /* where only the container tells its length, the other streams' packets show whether the end was reached */
    for (unsigned i = 0; own && i < f->nb_streams; i++)
        if ((int)i != v->stream) f->streams[i]->discard = AVDISCARD_ALL;
    return LBR_OK;
}

int lbr_video_open(const char *path, const lbr_source_options *options, lbr_source **out)
{
    *out = NULL;
    struct video *v = calloc(1, sizeof *v);
    if (!v || !(v->path = strdup(path))) {
        free(v);
        return lbr_fail(LBR_ENOMEM, "video_open: no memory");
    }
    v->clock = -1;
    v->stop = options->stop;
    v->from_beginning = true;
    AVIOInterruptCB interrupt = { interrupted, v };
    int status = lbr_ffmpeg_input("video_open", path, &interrupt, &v->format);
    if (status == LBR_OK) status = open_decoder(v, options->threads, options->hardware != 0);
    if (status == LBR_OK && options->start > 0) {
        if (v->duration > 0 && options->start >= v->duration)
            status = lbr_fail(LBR_EINVAL, "video_open: %s: start is %g s, but it lasts %.2f s", path, options->start, v->duration);
        else
            status = seek(v, options->start);
    }
    if (status != LBR_OK) {
        close_video(v);
        return status;
    }
    return lbr_source_make("video_open", path, &producer, v, 1, options, out);
}
