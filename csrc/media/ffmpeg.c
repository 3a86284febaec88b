/* ffmpeg.c: what every user of FFmpeg here shares: its messages, opening inputs, and the conversion to rgb24. Versions 4.4 to 7. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <libavutil/avstring.h>
#include <libavutil/display.h>
#include <libavutil/log.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include "internal.h"

static __thread char last_line[256], text[384];

static void keep_line(void *context, int level, const char *format, va_list args)
{
    if (level > AV_LOG_ERROR) return;
    int prefix = 0;
    char line[sizeof last_line];
    av_log_format_line2(NULL, level, format, args, line, sizeof line, &prefix);
    (void)context;
    size_t n = strcspn(line, "\r\n");
    line[n] = 0;
    if (n > 0) memcpy(last_line, line, n + 1);
}

static void install(void) { av_log_set_callback(keep_line); }

void lbr_ffmpeg_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    lbr_ffmpeg_forget();
}

void lbr_ffmpeg_forget(void) { last_line[0] = 0; }

const char *lbr_ffmpeg_text(int code)
{
    char reason[AV_ERROR_MAX_STRING_SIZE];
    if (av_strerror(code, reason, sizeof reason) < 0) snprintf(reason, sizeof reason, "error %d", code);
    if (last_line[0]) snprintf(text, sizeof text, "%s (%s)", last_line, reason);
    else snprintf(text, sizeof text, "%s", reason);
    return text;
}

int lbr_ffmpeg_status(int code)
{
    if (code >= 0) return LBR_OK;
    if (code == AVERROR(ENOMEM)) return LBR_ENOMEM;
    if (code == AVERROR_EXIT) return LBR_EINTR;
    if (code == AVERROR_INVALIDDATA || code == AVERROR_EOF || code == AVERROR_PATCHWELCOME) return LBR_EFORMAT;
    if (code == AVERROR_DECODER_NOT_FOUND || code == AVERROR_DEMUXER_NOT_FOUND || code == AVERROR_ENCODER_NOT_FOUND) return LBR_EUNSUPPORTED;
    return LBR_EIO;
}

int lbr_ffmpeg_input(const char *function, const char *path, const AVIOInterruptCB *interrupt, AVFormatContext **out)
{
    *out = NULL;
    lbr_ffmpeg_start();
    struct stat status;
    if (stat(path, &status) != 0) return lbr_fail(LBR_EIO, "%s: %s: %s", function, path, strerror(errno));
    if (S_ISDIR(status.st_mode)) return lbr_fail(LBR_EIO, "%s: %s: is a folder, want a file", function, path);
    if (S_ISREG(status.st_mode) && status.st_size == 0) return lbr_fail(LBR_EFORMAT, "%s: %s: the file is empty", function, path);

    char *url = av_asprintf("file:%s", path);   /* a name with a colon is no address */
    AVFormatContext *format = avformat_alloc_context();
    AVDictionary *options = NULL;
    int code = url && format ? av_dict_set(&options, "protocol_whitelist", "file", 0) : AVERROR(ENOMEM);
    if (code >= 0) {
        if (interrupt) format->interrupt_callback = *interrupt;
        code = avformat_open_input(&format, url, NULL, &options);   /* frees format when it fails */
        if (code >= 0) code = avformat_find_stream_info(format, NULL);
    }
    av_dict_free(&options);
    av_free(url);
    if (code >= 0) {
        *out = format;
        return LBR_OK;
    }
    avformat_close_input(&format);
    if (code == AVERROR(EACCES) || code == AVERROR(EIO)) return lbr_fail(LBR_EIO, "%s: %s: %s", function, path, lbr_ffmpeg_text(code));
    int lbr = lbr_ffmpeg_status(code);
    return lbr_fail(lbr == LBR_EIO ? LBR_EFORMAT : lbr, "%s: %s: not a readable video: %s", function, path, lbr_ffmpeg_text(code));
}

static int converter_make(struct lbr_converter *c)
{
    sws_freeContext(c->sws);
    c->sws = sws_alloc_context();
    if (!c->sws) return AVERROR(ENOMEM);
    /* ffmpeg's scale filter: bicubic, and MPEG-2 chroma siting for plain yuv420p alone */
    const struct { const char *name; int64_t value; } options[] = {
        { "srcw", c->width }, { "srch", c->height }, { "src_format", c->format }, { "dstw", c->out_width }, { "dsth", c->out_height },
        { "dst_format", AV_PIX_FMT_RGB24 }, { "sws_flags", SWS_BICUBIC }, { "src_h_chr_pos", -513 },
        { "src_v_chr_pos", c->format == AV_PIX_FMT_YUV420P ? 128 : -513 },
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) av_opt_set_int(c->sws, options[i].name, options[i].value, 0);
    int code = sws_init_context(c->sws, NULL, NULL);
    if (code < 0) return code;

    int *inverse, *table, in_full, out_full, brightness, contrast, saturation;
    if (sws_getColorspaceDetails(c->sws, &inverse, &in_full, &table, &out_full, &brightness, &contrast, &saturation) >= 0) {
        int space = c->colorspace;   /* what the stream names, BT.601 where it names none or one without coefficients */
        if (space < 1 || space > 10 || space == 8) space = AVCOL_SPC_BT470BG;
        const int *coefficients = sws_getCoefficients(space);
        if (c->range != AVCOL_RANGE_UNSPECIFIED) in_full = c->range == AVCOL_RANGE_JPEG;
        sws_setColorspaceDetails(c->sws, coefficients, in_full, coefficients, out_full, brightness, contrast, saturation);
    }
    return 0;
}

int lbr_converter_run(const char *function, struct lbr_converter *c, const AVFrame *frame, int orientation, struct lbr_frame *out)
{
    if (orientation) {   /* before the conversion, as ffmpeg does it: chroma between two samples depends on it */
        if (!c->turned && !(c->turned = av_frame_alloc())) return lbr_fail(LBR_ENOMEM, "%s: no memory", function);
        int code = lbr_turn_planes(frame, orientation, c->turned);
        if (code == AVERROR(ENOMEM)) return lbr_fail(LBR_ENOMEM, "%s: no memory", function);
        if (code >= 0) frame = c->turned, orientation = 0;
    }
    if (c->out_width == 0) c->out_width = frame->width, c->out_height = frame->height;
    if (!c->sws || c->width != frame->width || c->height != frame->height || c->format != frame->format ||
        c->colorspace != (int)frame->colorspace || c->range != (int)frame->color_range) {
        c->width = frame->width;
        c->height = frame->height;
        c->format = frame->format;
        c->colorspace = frame->colorspace;
        c->range = frame->color_range;
        int code = converter_make(c);
        if (code < 0) {
            const char *name = av_get_pix_fmt_name(frame->format);
            sws_freeContext(c->sws);
            c->sws = NULL;
            return lbr_fail(LBR_EUNSUPPORTED, "%s: no conversion of %s to rgb24: %s", function, name ? name : "this format", lbr_ffmpeg_text(code));
        }
    }
    int status = lbr_frame_reserve(out, c->out_width, c->out_height);
    if (status != LBR_OK) return status;
    out->orientation = orientation;
    uint8_t *planes[4] = { out->data };
    int strides[4] = { (int)out->stride };
    int rows = sws_scale(c->sws, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height, planes, strides);
    return rows > 0 ? LBR_OK : lbr_fail(LBR_EFORMAT, "%s: conversion to rgb24 failed: %s", function, lbr_ffmpeg_text(rows));
}

void lbr_converter_release(struct lbr_converter *c)
{
    sws_freeContext(c->sws);
    av_frame_free(&c->turned);
    memset(c, 0, sizeof *c);
}

static const int32_t *stream_matrix(const AVStream *stream)
{
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102)
    const AVPacketSideData *side = av_packet_side_data_get(stream->codecpar->coded_side_data, stream->codecpar->nb_coded_side_data,
                                                           AV_PKT_DATA_DISPLAYMATRIX);
    return side && side->size >= 9 * sizeof(int32_t) ? (const int32_t *)side->data : NULL;
#else
    return (const int32_t *)av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, NULL);
#endif
}

static const int32_t *matrix_of(const AVFrame *frame, const AVStream *stream)
{
    const AVFrameSideData *side = av_frame_get_side_data(frame, AV_FRAME_DATA_DISPLAYMATRIX);
    return side ? (const int32_t *)side->data : stream ? stream_matrix(stream) : NULL;
}

int lbr_turn_of_frame(const AVFrame *frame, const AVStream *stream, bool *exact)
{
    *exact = true;
    const int32_t *matrix = matrix_of(frame, stream);
    return matrix ? lbr_turn_from_matrix(matrix, exact) : 0;
}

bool lbr_turn_matrix(const AVFrame *frame, const AVStream *stream, int32_t matrix[9])
{
    const int32_t *found = matrix_of(frame, stream);
    if (found) memcpy(matrix, found, 9 * sizeof *matrix);
    return found != NULL;
}
