/* planes.c: decoded frames made fit for an encoder without passing through RGB: turned, converted or padded only where they must be, copied before a change. */
#include <string.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include "internal.h"

/* The "j" formats are old names for full range. */
static const struct { enum AVPixelFormat old, plain; } FULL[] = {
    { AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUV420P }, { AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUV422P }, { AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_YUV444P },
    { AV_PIX_FMT_YUVJ440P, AV_PIX_FMT_YUV440P }, { AV_PIX_FMT_YUVJ411P, AV_PIX_FMT_YUV411P },
};

enum AVPixelFormat lbr_planes_format(int format)
{
    for (size_t i = 0; i < sizeof FULL / sizeof *FULL; i++)
        if (FULL[i].old == format) return FULL[i].plain;
    return format;
}

static bool is_rgb(const AVFrame *frame)
{
    const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(frame->format);
    return format && format->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL);
}

enum AVColorRange lbr_planes_range(const AVFrame *frame)
{
    if (is_rgb(frame)) return AVCOL_RANGE_MPEG;
    return lbr_planes_format(frame->format) != (enum AVPixelFormat)frame->format ? AVCOL_RANGE_JPEG : frame->color_range;
}

enum AVColorSpace lbr_planes_space(const AVFrame *frame)
{
    if (!is_rgb(frame)) return frame->colorspace;
    return frame->height >= 720 ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;   /* what players take where nothing is said */
}

static int no_memory(void) { return lbr_fail(LBR_ENOMEM, "transcode: no memory for a frame"); }

/* An empty frame of the encoder's padded size out of the pool; its width and height are those of the picture in it. */
static int lend(struct lbr_planes *p, int width, int height, AVFrame *out)
{
    int size = av_image_get_buffer_size(p->format, p->padded_width, p->padded_height, 64);
    if (size < 0) return lbr_fail(LBR_EFORMAT, "transcode: a frame of %d x %d is not supported", width, height);
    if (!p->pool && !(p->pool = av_buffer_pool_init((size_t)size + 64, NULL))) return no_memory();
    if (!(out->buf[0] = av_buffer_pool_get(p->pool))) return no_memory();
    uint8_t *start = (uint8_t *)(((uintptr_t)out->buf[0]->data + 63) & ~(uintptr_t)63);
    av_image_fill_arrays(out->data, out->linesize, start, p->format, p->padded_width, p->padded_height, 64);
    out->extended_data = out->data;
    out->format = p->format;
    out->width = width;
    out->height = height;
    return LBR_OK;
}

static void copy_colours(AVFrame *to, const AVFrame *from)
{
    to->color_range = lbr_planes_range(from);
    to->colorspace = lbr_planes_space(from);
    to->color_primaries = from->color_primaries;
    to->color_trc = from->color_trc;
    to->chroma_location = from->chroma_location;
}

static int convert(struct lbr_planes *p, const AVFrame *in, AVFrame *out)
{
    p->sws = sws_getCachedContext(p->sws, in->width, in->height, in->format, out->width, out->height, p->format, SWS_BICUBIC | SWS_ACCURATE_RND, NULL, NULL, NULL);
    if (!p->sws) return lbr_fail(LBR_EUNSUPPORTED, "transcode: no conversion of %s to %s", av_get_pix_fmt_name(in->format), av_get_pix_fmt_name(p->format));
    int *inverse, *table, in_full, out_full, brightness, contrast, saturation;
    if (sws_getColorspaceDetails(p->sws, &inverse, &in_full, &table, &out_full, &brightness, &contrast, &saturation) >= 0) {
        int space = out->colorspace < 1 || out->colorspace > 10 || out->colorspace == 8 ? AVCOL_SPC_BT470BG : out->colorspace;
        const int *coefficients = sws_getCoefficients(space);
        if (is_rgb(in)) in_full = 1;
        else if (in->color_range != AVCOL_RANGE_UNSPECIFIED) in_full = in->color_range == AVCOL_RANGE_JPEG;
        sws_setColorspaceDetails(p->sws, coefficients, in_full, coefficients, out->color_range == AVCOL_RANGE_JPEG, brightness, contrast, saturation);
    }
    int rows = sws_scale(p->sws, (const uint8_t *const *)in->data, in->linesize, 0, in->height, out->data, out->linesize);
    return rows > 0 ? LBR_OK : lbr_fail(LBR_EFORMAT, "transcode: conversion of a frame failed: %s", lbr_ffmpeg_text(rows));
}

int lbr_planes_take(struct lbr_planes *p, AVFrame *in, AVFrame *out)
{
    if (p->turn) {
        AVFrame *turned = av_frame_alloc();
        int code = turned ? lbr_turn_planes(in, p->turn, turned) : AVERROR(ENOMEM);
        if (code >= 0) {
            copy_colours(turned, in);
            av_frame_unref(in);
            av_frame_move_ref(in, turned);
        }
        av_frame_free(&turned);
        if (code == AVERROR(ENOMEM)) return no_memory();
        if (code < 0) return lbr_fail(LBR_EUNSUPPORTED, "transcode: frames of this format cannot be turned upright for Matroska; want .mp4");
    }
    if (p->width == 0) p->width = in->width, p->height = in->height;
    enum AVColorRange range = lbr_planes_range(in);
    bool same = lbr_planes_format(in->format) == p->format, sized = in->width == p->width && in->height == p->height;
    if (same && sized && p->width == p->padded_width && p->height == p->padded_height) {
        while (in->nb_side_data > 0) av_frame_remove_side_data(in, in->side_data[0]->type);   /* captions, positions: not for the encoder */
        av_dict_free(&in->metadata);
        av_frame_move_ref(out, in);
        out->format = p->format;
        out->color_range = range;
        return LBR_OK;
    }
    int status = lend(p, p->width, p->height, out);
    if (status == LBR_OK) {
        copy_colours(out, in);
        if (same && sized) av_image_copy(out->data, out->linesize, (const uint8_t **)in->data, in->linesize, p->format, in->width, in->height);
        else status = convert(p, in, out);
    }
    av_frame_unref(in);
    return status;
}

int lbr_planes_own(struct lbr_planes *p, AVFrame *frame)
{
    if (av_frame_is_writable(frame)) return LBR_OK;   /* no decoder refers to it any more */
    AVFrame *copy = av_frame_alloc();
    int status = copy ? lend(p, frame->width, frame->height, copy) : no_memory();
    if (status == LBR_OK) {
        copy_colours(copy, frame);
        av_image_copy(copy->data, copy->linesize, (const uint8_t **)frame->data, frame->linesize, p->format, frame->width, frame->height);
        av_frame_unref(frame);
        av_frame_move_ref(frame, copy);
    }
    av_frame_free(&copy);
    return status;
}

int lbr_planes_blank(struct lbr_planes *p, const AVFrame *like, AVFrame **out)
{
    bool quarter = p->turn & 1;
    AVFrame *frame = *out = av_frame_alloc();
    int status = frame ? lend(p, quarter ? like->height : like->width, quarter ? like->width : like->height, frame) : no_memory();
    if (status != LBR_OK) return status;
    copy_colours(frame, like);
    ptrdiff_t strides[4] = { frame->linesize[0], frame->linesize[1], frame->linesize[2], frame->linesize[3] };
    if (av_image_fill_black(frame->data, strides, p->format, frame->color_range, p->padded_width, p->padded_height) < 0)
        return lbr_fail(LBR_EUNSUPPORTED, "transcode: no black in this pixel format");
    return LBR_OK;
}

int lbr_planes_pad(struct lbr_planes *p, AVFrame *frame)
{
    if (frame->width == p->padded_width && frame->height == p->padded_height) return LBR_OK;
    int status = lbr_planes_own(p, frame);
    struct lbr_canvas canvas;
    if (status == LBR_OK && !lbr_canvas_of(frame, &canvas)) status = lbr_fail(LBR_EUNSUPPORTED, "transcode: this pixel format cannot be padded");
    if (status != LBR_OK) return status;
    for (int i = 0; i < canvas.count; i++) {
        const struct lbr_component *c = &canvas.parts[i];
        int width = AV_CEIL_RSHIFT(frame->width, c->sx), height = AV_CEIL_RSHIFT(frame->height, c->sy), bytes = c->wide ? 2 : 1;
        int to_x = AV_CEIL_RSHIFT(p->padded_width, c->sx), to_y = AV_CEIL_RSHIFT(p->padded_height, c->sy);
        for (int y = 0; y < to_y; y++) {
            const uint8_t *from = c->data + (y < height ? y : height - 1) * c->stride;
            uint8_t *to = c->data + y * c->stride;
            for (int x = y < height ? width : 0; x < to_x; x++)
                memcpy(to + (ptrdiff_t)x * c->step, from + (ptrdiff_t)(x < width ? x : width - 1) * c->step, (size_t)bytes);
        }
    }
    frame->width = p->padded_width;
    frame->height = p->padded_height;
    return LBR_OK;
}

void lbr_planes_release(struct lbr_planes *p)
{
    av_buffer_pool_uninit(&p->pool);
    sws_freeContext(p->sws);
    p->sws = NULL;
}
