/* hardware.c: decoding by NVDEC through FFmpeg's hwaccel where a GPU and its driver are: 8 bits a sample, 4:2:0, which gives the planes of the CPU's decoder.
 * Everything else stays with the CPU; who decodes and why is told. No conversion of colours. */
#include <stdio.h>
#include <string.h>
#include <libavutil/hwcontext.h>
#include <libavutil/pixdesc.h>
#include "internal.h"

static AVBufferRef *gpu;
static char missing[160];

static void find_gpu(void)
{
    lbr_ffmpeg_forget();
    int code = av_hwdevice_ctx_create(&gpu, AV_HWDEVICE_TYPE_CUDA, NULL, NULL, 0);
    if (code < 0) snprintf(missing, sizeof missing, "the CPU: %s", lbr_ffmpeg_text(code));
    lbr_ffmpeg_forget();
}

static bool plain(enum AVPixelFormat format) { return format == AV_PIX_FMT_YUV420P || format == AV_PIX_FMT_YUVJ420P; }

/* Asked when a stream begins or changes, and again without CUDA among the formats where NVDEC does not take it. */
static enum AVPixelFormat choose(AVCodecContext *decoder, const enum AVPixelFormat *formats)
{
    struct lbr_hardware *h = decoder->opaque;
    for (const enum AVPixelFormat *f = formats; *f != AV_PIX_FMT_NONE; f++)
        if (*f == AV_PIX_FMT_CUDA && plain(decoder->sw_pix_fmt)) {
            h->planes = decoder->sw_pix_fmt;
            atomic_store(&h->used, true);
            return *f;
        }
    atomic_store(&h->used, false);
    for (const enum AVPixelFormat *f = formats; *f != AV_PIX_FMT_NONE; f++) {
        const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(*f);
        if (d && !(d->flags & AV_PIX_FMT_FLAG_HWACCEL)) return *f;
    }
    return AV_PIX_FMT_NONE;
}

void lbr_hardware_offer(struct lbr_hardware *h, AVCodecContext *decoder, const AVCodec *codec)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    bool takes = false;
    for (int i = 0; avcodec_get_hw_config(codec, i); i++) {
        const AVCodecHWConfig *c = avcodec_get_hw_config(codec, i);
        takes = takes || (c->device_type == AV_HWDEVICE_TYPE_CUDA && c->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX);
    }
    snprintf(h->reason, sizeof h->reason, "the CPU: NVDEC does not take this %s", codec->name);
    if (!takes) return;
    pthread_once(&once, find_gpu);
    if (!gpu) snprintf(h->reason, sizeof h->reason, "%s", missing);
    else if ((decoder->hw_device_ctx = av_buffer_ref(gpu))) decoder->opaque = h, decoder->get_format = choose;
}

const char *lbr_hardware_decoder(struct lbr_hardware *h) { return atomic_load(&h->used) ? "NVDEC" : h->reason; }

/* NV12 has the chroma samples in pairs; the CPU's decoder gives a plane of each. */
static void part(const AVFrame *pairs, AVFrame *planes)
{
    const int width = (planes->width + 1) / 2, height = (planes->height + 1) / 2;
    for (int y = 0; y < planes->height; y++)
        memcpy(planes->data[0] + (ptrdiff_t)y * planes->linesize[0], pairs->data[0] + (ptrdiff_t)y * pairs->linesize[0], (size_t)planes->width);
    for (int y = 0; y < height; y++) {
        const uint8_t *from = pairs->data[1] + (ptrdiff_t)y * pairs->linesize[1];
        uint8_t *u = planes->data[1] + (ptrdiff_t)y * planes->linesize[1], *v = planes->data[2] + (ptrdiff_t)y * planes->linesize[2];
        for (int x = 0; x < width; x++) u[x] = from[2 * x], v[x] = from[2 * x + 1];
    }
}

int lbr_hardware_planes(const struct lbr_hardware *h, AVFrame *frame)
{
    if (frame->format != AV_PIX_FMT_CUDA) return 0;
    AVFrame *pairs = av_frame_alloc(), *planes = av_frame_alloc();
    int code = pairs && planes ? av_hwframe_transfer_data(pairs, frame, 0) : AVERROR(ENOMEM);
    if (!code && pairs->format != AV_PIX_FMT_NV12) code = AVERROR(ENOSYS);
    if (!code) {
        planes->format = h->planes, planes->width = frame->width, planes->height = frame->height;
        code = av_frame_get_buffer(planes, 0);
    }
    if (!code) code = av_frame_copy_props(planes, frame);
    if (!code) {
        part(pairs, planes);
        av_frame_unref(frame);
        av_frame_move_ref(frame, planes);
    }
    av_frame_free(&pairs);
    av_frame_free(&planes);
    return code;
}
