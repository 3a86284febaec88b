/* encode.c: frames to an H.264 stream in a file with the sound of another beside it, under a temporary name until it is whole. No threads, no queue. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <libavutil/avstring.h>
#include <libavutil/cpu.h>
#include <libavutil/display.h>
#include <libavutil/pixdesc.h>
#include "internal.h"

void lbr_encoder_warn(struct lbr_encoder *e, const char *text)
{
    size_t n = strlen(e->warning);
    snprintf(e->warning + n, sizeof e->warning - n, "%s%s", n ? "; " : "", text);
}

int lbr_encoder_failed(struct lbr_encoder *e, int code)
{
    int status = code == AVERROR(ENOMEM) ? LBR_ENOMEM : code == AVERROR(EINVAL) ? LBR_EINVAL : LBR_EIO;
    /* what the disk said is the cause of what the muxer says after it */
    int disk = e->format && e->format->pb ? e->format->pb->error : 0;
    if (disk < 0) lbr_ffmpeg_forget();
    return lbr_fail(disk < 0 ? LBR_EIO : status, "writer: %s: %s", e->path, lbr_ffmpeg_text(disk < 0 ? disk : code));
}

/* ---- the codec ---- */

static enum AVPixelFormat nearest(const AVCodec *codec, enum AVPixelFormat format)
{
    const enum AVPixelFormat *list = NULL;
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(61, 13, 100)
    if (avcodec_get_supported_config(NULL, codec, AV_CODEC_CONFIG_PIX_FORMAT, 0, (const void **)&list, NULL) < 0) list = NULL;
#else
    list = codec->pix_fmts;
#endif
    return list ? avcodec_find_best_pix_fmt_of_list(list, format, 0, NULL) : format;
}

static int open_codec(struct lbr_encoder *e, const char *name, const struct lbr_encoder_options *o)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(name);
    if (!codec) return AVERROR_ENCODER_NOT_FOUND;
    if (avformat_query_codec(e->format->oformat, codec->id, FF_COMPLIANCE_NORMAL) == 0) return AVERROR_MUXER_NOT_FOUND;
    AVCodecContext *c = e->context = avcodec_alloc_context3(codec);
    if (!c) return AVERROR(ENOMEM);
    bool x264 = strcmp(name, "libx264") == 0, mpeg4 = codec->id == AV_CODEC_ID_MPEG4;
    c->pix_fmt = nearest(codec, o->format);
    const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(c->pix_fmt);
    c->width = AV_CEIL_RSHIFT(o->width, format->log2_chroma_w) << format->log2_chroma_w;
    c->height = AV_CEIL_RSHIFT(o->height, format->log2_chroma_h) << format->log2_chroma_h;
    c->framerate = o->rate;
    c->time_base = mpeg4 ? (AVRational){ 1, 60000 } : e->base;   /* MPEG-4's own clock has 16 bits */
    if (strcmp(e->format->oformat->name, "avi") == 0) {   /* it knows a constant rate only, and no reordering */
        c->time_base = av_inv_q(c->framerate);
        c->max_b_frames = 0;
    }
    c->thread_count = o->threads > 0 ? o->threads : 0;
    c->color_range = o->range;
    c->colorspace = o->space;
    c->color_primaries = o->primaries;
    c->color_trc = o->transfer;
    c->chroma_sample_location = o->chroma;
    c->sample_aspect_ratio = o->aspect;
    if (e->format->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (o->exact) c->flags |= AV_CODEC_FLAG_BITEXACT;
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
    if (code < 0) avcodec_free_context(&e->context);
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

static int choose_codec(struct lbr_encoder *e, const struct lbr_encoder_options *o)
{
    bool mpeg4 = o->codec && strcmp(o->codec, "mpeg4") == 0;
    if (o->codec && !mpeg4 && strcmp(o->codec, "h264") != 0)
        return lbr_fail(LBR_EINVAL, "writer: codec is \"%s\", want \"h264\" or \"mpeg4\"", o->codec);
    if (!known_preset(o->preset))
        return lbr_fail(LBR_EINVAL, "writer: %s: preset is \"%s\", want ultrafast, superfast, veryfast, faster, fast, medium, slow, slower, veryslow "
                        "or placebo", e->path, o->preset);
    int code = AVERROR_ENCODER_NOT_FOUND;
    const char *const names[] = { "libx264", "libopenh264", "mpeg4" };
    for (size_t i = mpeg4 ? 2 : 0; i < 3 && code == AVERROR_ENCODER_NOT_FOUND; i++) {
        code = open_codec(e, names[i], o);
        if (code >= 0 && i == 2 && !mpeg4) lbr_encoder_warn(e, "this FFmpeg has no H.264 encoder; the video is MPEG-4 part 2");
    }
    if (code == AVERROR_MUXER_NOT_FOUND)
        return lbr_fail(LBR_EINVAL, "writer: %s: a %s file cannot hold this video, want .mp4, .mkv or .mov", e->path, e->format->oformat->name);
    return code < 0 ? lbr_fail(lbr_ffmpeg_status(code), "writer: %s: no encoder: %s", e->path, lbr_ffmpeg_text(code)) : LBR_OK;
}

/* ---- the file ---- */

static int set_matrix(AVStream *stream, const int32_t *matrix)
{
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102)
    AVCodecParameters *p = stream->codecpar;
    AVPacketSideData *side = av_packet_side_data_new(&p->coded_side_data, &p->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof *matrix, 0);
    uint8_t *data = side ? side->data : NULL;
#else
    uint8_t *data = av_stream_new_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof *matrix);
#endif
    if (!data) return AVERROR(ENOMEM);
    memcpy(data, matrix, 9 * sizeof *matrix);
    return 0;
}

int lbr_encoder_open(struct lbr_encoder *e, const char *path, const struct lbr_encoder_options *o)
{
    if (!(e->path = strdup(path))) return lbr_fail(LBR_ENOMEM, "writer: no memory");
    const AVOutputFormat *guess = av_guess_format(NULL, path, NULL);
    if (!guess || guess->flags & AVFMT_NOFILE || guess->video_codec == AV_CODEC_ID_NONE)
        return lbr_fail(LBR_EINVAL, "writer: %s: no known kind of video, want a name that ends in .mp4, .mkv, .mov or .avi", path);
    e->base = o->base;
    e->temporary = lbr_file_temporary(path);
    e->url = e->temporary ? av_asprintf("file:%s", e->temporary) : NULL;
    int code = e->url ? avformat_alloc_output_context2(&e->format, NULL, guess->name, e->url) : AVERROR(ENOMEM);
    if (code >= 0 && !(e->packet = av_packet_alloc())) code = AVERROR(ENOMEM);
    if (code < 0) return lbr_encoder_failed(e, code);
    if (o->exact) e->format->flags |= AVFMT_FLAG_BITEXACT;
    int status = choose_codec(e, o);
    if (status != LBR_OK) return status;
    e->stream = avformat_new_stream(e->format, NULL);
    code = e->stream ? avcodec_parameters_from_context(e->stream->codecpar, e->context) : AVERROR(ENOMEM);
    if (code >= 0 && o->matrix) code = set_matrix(e->stream, o->matrix);
    if (code < 0) return lbr_encoder_failed(e, code);
    e->stream->time_base = e->context->time_base;
    e->stream->avg_frame_rate = e->context->framerate;
    e->stream->sample_aspect_ratio = o->aspect;
    return LBR_OK;
}

void lbr_encoder_sound(struct lbr_encoder *e, const char *path, const struct lbr_audio_options *options)
{
    struct lbr_audio *audio;
    if (e->audio_count == LBR_SOUNDS || lbr_audio_open(path, e->format, options, &audio) != LBR_OK) {
        lbr_encoder_warn(e, e->audio_count == LBR_SOUNDS ? "there are more sound streams than can be kept" : lbr_error());
        return;
    }
    if (!audio) return;
    e->audio[e->audio_count++] = audio;
    if (lbr_audio_encodes(audio) && !options->distort) lbr_encoder_warn(e, "the audio was encoded anew, as AAC");
}

int lbr_encoder_begin(struct lbr_encoder *e)
{
    lbr_ffmpeg_forget();
    int code = avio_open(&e->format->pb, e->url, AVIO_FLAG_WRITE);
    if (code >= 0) code = avformat_write_header(e->format, NULL);
    return code < 0 ? lbr_encoder_failed(e, code) : LBR_OK;
}

static int write_packet(struct lbr_encoder *e)
{
    AVPacket *p = e->packet;
    AVRational base = e->context->time_base;
    if (p->pts == e->last_pts && e->last_duration > 0) p->duration = e->last_duration;
    if (p->duration <= 0) p->duration = llrint(1 / (av_q2d(e->context->framerate) * av_q2d(base)));
    double t = (double)p->dts * av_q2d(base);
    p->stream_index = e->stream->index;
    av_packet_rescale_ts(p, base, e->stream->time_base);
    int code = av_interleaved_write_frame(e->format, p);
    for (int i = 0; i < e->audio_count && code >= 0; i++) code = lbr_audio_until(e->audio[i], t);
    return code >= 0 && e->format->pb->error < 0 ? e->format->pb->error : code;
}

static int drain(struct lbr_encoder *e)
{
    int code;
    while ((code = avcodec_receive_packet(e->context, e->packet)) >= 0)
        if ((code = write_packet(e)) < 0) return code;
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF ? 0 : code;
}

int lbr_encoder_send(struct lbr_encoder *e, AVFrame *frame, int64_t pts, int64_t duration)
{
    AVRational base = e->context->time_base;
    pts = av_rescale_q(pts, e->base, base);
    e->last_pts = e->sent > 0 && pts <= e->last_pts ? e->last_pts + 1 : pts;
    e->last_duration = av_rescale_q(duration, e->base, base);
    e->sent++;
    frame->pts = e->last_pts;
    frame->pict_type = AV_PICTURE_TYPE_NONE;
    int code = avcodec_send_frame(e->context, frame);
    return code < 0 ? code : drain(e);
}

int lbr_encoder_complete(struct lbr_encoder *e)
{
    int code = avcodec_send_frame(e->context, NULL);
    if (code >= 0) code = drain(e);
    for (int i = 0; i < e->audio_count && code >= 0; i++) code = lbr_audio_until(e->audio[i], INFINITY);
    if (code >= 0) code = av_write_trailer(e->format);
    if (code >= 0) avio_flush(e->format->pb);
    return code >= 0 && e->format->pb->error < 0 ? e->format->pb->error : code;
}

int lbr_encoder_publish(struct lbr_encoder *e)
{
    int code = avio_closep(&e->format->pb);
    if (code < 0) return lbr_encoder_failed(e, code);
    int status = lbr_file_publish("writer", e->temporary, e->path);
    e->published = status == LBR_OK;
    return status;
}

void lbr_encoder_close(struct lbr_encoder *e)
{
    for (int i = 0; i < e->audio_count; i++) lbr_audio_close(e->audio[i]);
    e->audio_count = 0;
    if (e->format && e->format->pb) avio_closep(&e->format->pb);
    avformat_free_context(e->format);
    e->format = NULL;
    if (!e->published && e->temporary) unlink(e->temporary);
    av_packet_free(&e->packet);
    avcodec_free_context(&e->context);
    av_freep(&e->url);
    free(e->temporary);
    free(e->path);
    e->temporary = e->path = NULL;
}
