/* decode.c: a video file's demuxer and decoder: pictures in order, their times, pictures that were lost, signs of damage. No threads, no colours. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/avutil.h>
#include <libavutil/cpu.h>
#include "internal.h"

static double seconds_of(int64_t ticks, AVRational base) { return (double)ticks * base.num / base.den; }

int lbr_decoder_interrupted(void *state)
{
    struct lbr_decoder *v = state;
    return atomic_load(&v->cancelled) || lbr_interrupted();
}

void lbr_decoder_warn(struct lbr_decoder *v, const char *text)
{
    if (atomic_load(&v->warned)) return;
    snprintf(v->warning, sizeof v->warning, "%s: %s", v->path, text);
    atomic_store(&v->warned, true);
}

void lbr_decoder_check(struct lbr_decoder *v)
{
    if (!v->from_beginning || lbr_decoder_interrupted(v)) return;
    double frame = v->fps > 0 ? 1 / v->fps : 0.04;
    bool cut = v->duration > 0 && v->reached < v->duration - fmax(0.25, 3 * frame);
    if (!cut && v->damaged == 0 && v->read_error == 0) return;
    char text[400];
    int n = snprintf(text, sizeof text, "the file is %s: %lld frames, to %.2f s, could be read", cut || v->read_error ? "truncated" : "damaged",
                     (long long)v->decoded, v->clock < 0 ? 0 : v->clock);
    if (v->duration > 0) n += snprintf(text + n, sizeof text - (size_t)n, " of %.2f s", v->duration);
    if (v->damaged > 0) snprintf(text + n, sizeof text - (size_t)n, "; %lld %s broken", (long long)v->damaged, v->damaged == 1 ? "packet was" : "packets were");
    lbr_decoder_warn(v, text);
}

static void note_packet(struct lbr_decoder *v)
{
    const AVPacket *p = v->packet;
    const AVStream *s = v->format->streams[p->stream_index];
    int64_t ticks = p->pts != AV_NOPTS_VALUE ? p->pts : p->dts;
    if (ticks == AV_NOPTS_VALUE) return;
    double end = seconds_of(ticks + (p->duration > 0 ? p->duration : 0), s->time_base) - v->origin;
    if (end > v->reached) v->reached = end;
}

/* ---- pictures that never came out ---- */

/* The packet's picture is awaited. */
static void await(struct lbr_decoder *v)
{
    enum { MOST = sizeof v->awaited / sizeof *v->awaited };
    if (v->packet->pts == AV_NOPTS_VALUE || v->packet->flags & AV_PKT_FLAG_DISCARD) return;
    if (v->awaiting == MOST) memmove(v->awaited, v->awaited + 1, (size_t)--v->awaiting * sizeof *v->awaited);
    v->awaited[v->awaiting++] = v->packet->pts;
}

static void arrived(struct lbr_decoder *v, int64_t pts)
{
    for (int i = 0; i < v->awaiting; i++)
        if (v->awaited[i] == pts) {
            v->awaited[i] = v->awaited[--v->awaiting];
            return;
        }
}

static void failed(struct lbr_decoder *v)
{
    v->damaged++;
    v->failed++;
    v->suspect = v->context->codec_id != AV_CODEC_ID_VP8;   /* of whose packets some have no picture of their own */
}

bool lbr_decoder_lost(struct lbr_decoder *v, int64_t before, int64_t *pts)
{
    for (;;) {
        int first = -1;
        for (int i = 0; i < v->awaiting; i++)
            if (v->awaited[i] < before && (first < 0 || v->awaited[i] < v->awaited[first])) first = i;
        if (first < 0) break;
        *pts = v->awaited[first];
        v->awaited[first] = v->awaited[--v->awaiting];
        if (v->failed == 0 && !v->suspect) continue;
        if (v->failed > 0) v->failed--;
        return true;
    }
    if (v->frame->pict_type == AV_PICTURE_TYPE_I) v->suspect = false;
    return false;
}

/* One packet into the decoder, or the end of the file. */
static int feed(struct lbr_decoder *v)
{
    int code;
    while ((code = av_read_frame(v->format, v->packet)) >= 0) {
        note_packet(v);
        if (v->packet->stream_index == v->stream) break;
        av_packet_unref(v->packet);
        if (lbr_decoder_interrupted(v)) return AVERROR_EXIT;
    }
    if (code == AVERROR(EAGAIN)) return 0;
    if (code < 0) {
        if (lbr_decoder_interrupted(v)) return AVERROR_EXIT;
        if (code != AVERROR_EOF || (v->format->pb && v->format->pb->error < 0)) v->read_error = code;
        v->draining = true;
        return avcodec_send_packet(v->context, NULL) < 0 ? AVERROR_EOF : 0;
    }
    if (v->packet->flags & AV_PKT_FLAG_CORRUPT) v->damaged++;
    await(v);
    code = avcodec_send_packet(v->context, v->packet);
    av_packet_unref(v->packet);
    if (code == AVERROR(ENOMEM)) return code;
    if (code < 0 && code != AVERROR(EAGAIN)) failed(v);   /* the rest of the file may be sound */
    return 0;
}

static double frame_time(struct lbr_decoder *v, const AVFrame *frame)
{
    double step = v->fps > 0 ? 1 / v->fps : 0.04;
    int64_t ticks = frame->best_effort_timestamp;
    if (ticks == AV_NOPTS_VALUE) return v->clock < 0 ? 0 : v->clock + step;
    return seconds_of(ticks, v->format->streams[v->stream]->time_base) - v->origin;
}

int lbr_decoder_next(struct lbr_decoder *v)
{
    for (;;) {
        if (lbr_decoder_interrupted(v)) return AVERROR_EXIT;
        int code = avcodec_receive_frame(v->context, v->frame);
        if (code == 0) {
            v->decoded++;
            if (v->frame->decode_error_flags || v->frame->flags & AV_FRAME_FLAG_CORRUPT) v->damaged++;
            v->clock = frame_time(v, v->frame);
            arrived(v, v->frame->best_effort_timestamp);
            return 0;
        }
        if (code == AVERROR_EOF || code == AVERROR(ENOMEM)) return code;
        if (code != AVERROR(EAGAIN)) {
            failed(v);
            if (v->draining && v->damaged > 1000000) return AVERROR_EOF;
            continue;
        }
        if (v->draining) return AVERROR_EOF;
        code = feed(v);
        if (code < 0) return code;
    }
}

static int open_codec(struct lbr_decoder *v, int threads)
{
    AVFormatContext *f = v->format;
    v->stream = av_find_best_stream(f, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (v->stream < 0 || f->streams[v->stream]->disposition & AV_DISPOSITION_ATTACHED_PIC)
        return lbr_fail(LBR_EFORMAT, "video_open: %s: no video in it (FFmpeg reads it as %s)", v->path, f->iformat->name);
    AVStream *stream = f->streams[v->stream];
    const AVCodec *codec = avcodec_find_decoder(stream->codecpar->codec_id);
    if (!codec)
        return lbr_fail(LBR_EUNSUPPORTED, "video_open: %s: this FFmpeg has no decoder for %s", v->path, avcodec_get_name(stream->codecpar->codec_id));
    v->context = avcodec_alloc_context3(codec);
    v->packet = av_packet_alloc();
    v->frame = av_frame_alloc();
    if (!v->context || !v->packet || !v->frame) return lbr_fail(LBR_ENOMEM, "video_open: no memory");
    int code = avcodec_parameters_to_context(v->context, stream->codecpar);
    v->context->pkt_timebase = stream->time_base;
    if (threads <= 0) threads = av_cpu_count();
    v->context->thread_count = threads > 16 ? 16 : threads;
    if (code >= 0) code = avcodec_open2(v->context, codec, NULL);
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

int lbr_decoder_open(struct lbr_decoder *v, const char *path, int threads)
{
    v->clock = -1;
    v->from_beginning = true;
    if (!(v->path = strdup(path))) return lbr_fail(LBR_ENOMEM, "video_open: no memory");
    AVIOInterruptCB interrupt = { lbr_decoder_interrupted, v };
    int status = lbr_ffmpeg_input("video_open", path, &interrupt, &v->format);
    return status == LBR_OK ? open_codec(v, threads) : status;
}

void lbr_decoder_close(struct lbr_decoder *v)
{
    av_frame_free(&v->frame);
    av_packet_free(&v->packet);
    avcodec_free_context(&v->context);
    avformat_close_input(&v->format);
    free(v->path);
    v->path = NULL;
}
