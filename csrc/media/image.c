/* image.c: single pictures: PNG both ways through libpng, JPEG in through jpeg.c, others through FFmpeg's decoders. Not sequences of them. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <png.h>
#include <libavutil/mem.h>
#include "internal.h"

/* ---- PNG in ---- */

struct png_input {
    const uint8_t *data;
    size_t size, position;
    jmp_buf jump;
    char message[128];
};

static void png_failed(png_structp png, png_const_charp message)
{
    struct png_input *in = png_get_error_ptr(png);
    snprintf(in->message, sizeof in->message, "%s", message);
    longjmp(in->jump, 1);
}

static void png_warned(png_structp png, png_const_charp message) { (void)png, (void)message; }

static void png_take(png_structp png, png_bytep out, png_size_t bytes)
{
    struct png_input *in = png_get_io_ptr(png);
    if (bytes > in->size - in->position) png_error(png, "the file ends too early");
    memcpy(out, in->data + in->position, bytes);
    in->position += bytes;
}

static int png_decode(const char *function, const char *path, const uint8_t *data, size_t size, struct lbr_frame *picture)
{
    struct png_input in = { .data = data, .size = size };
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &in, png_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    volatile int status = LBR_OK;
    if (!info) {
        status = lbr_fail(LBR_ENOMEM, "%s: %s: no memory", function, path);
    } else if (setjmp(in.jump)) {
        status = lbr_fail(LBR_EFORMAT, "%s: %s: broken PNG: %s", function, path, in.message);
    } else {
        png_set_read_fn(png, &in, png_take);
        png_set_chunk_malloc_max(png, 65536 + 4 * size);   /* texts and profiles, packed */
        png_read_info(png, info);
        if ((double)png_get_rowbytes(png, info) * png_get_image_height(png, info) > (double)LBR_PICTURE_RATIO * (double)size)
            png_error(png, "it claims more pixels than its bytes can hold");
        png_set_expand(png);          /* palette -> RGB, grey below 8 bits -> 8, transparency -> alpha */
        png_set_scale_16(png);
        png_set_gray_to_rgb(png);
        png_set_strip_alpha(png);
        int passes = png_set_interlace_handling(png);
        png_read_update_info(png, info);
        status = lbr_frame_begin(picture, (int)png_get_image_width(png, info), (int)png_get_image_height(png, info), size);
        if (status != LBR_OK) status = lbr_fail(status, "%s: %s: %s", function, path, lbr_error());
        else if (png_get_rowbytes(png, info) != 3 * (size_t)picture->width) png_error(png, "unknown kind of pixels");
        for (int pass = 0; status == LBR_OK && pass < passes; pass++)
            for (int y = 0; status == LBR_OK && y < picture->height; y++) {
                status = lbr_frame_reach(picture, y);
                if (status == LBR_OK) png_read_row(png, picture->data + y * picture->stride, NULL);
            }
        if (status == LBR_OK) {
            png_read_end(png, info);
#ifdef PNG_eXIf_SUPPORTED
            png_bytep exif;
            png_uint_32 bytes;
            if (png_get_eXIf_1(png, info, &bytes, &exif)) picture->orientation = lbr_exif_orientation(exif, bytes);
#endif
        }
    }
    png_destroy_read_struct(&png, &info, NULL);
    return status;
}

/* ---- the others in ---- */

static int ffmpeg_decode(const char *function, const char *path, enum AVCodecID id, uint8_t *data, size_t size, struct lbr_frame *picture)
{
    const AVCodec *codec = avcodec_find_decoder(id);
    if (!codec) return lbr_fail(LBR_EUNSUPPORTED, "%s: %s: this FFmpeg has no decoder for %s", function, path, avcodec_get_name(id));
    lbr_ffmpeg_start();
    AVCodecContext *decoder = avcodec_alloc_context3(codec);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    struct lbr_converter converter = { 0 };
    int code = decoder && packet && frame ? 0 : AVERROR(ENOMEM);
    if (code == 0) {
        decoder->thread_count = 1;
        code = avcodec_open2(decoder, codec, NULL);
    }
    if (code >= 0) {
        packet->data = data;
        packet->size = (int)size;
        code = avcodec_send_packet(decoder, packet);
    }
    if (code >= 0) code = avcodec_send_packet(decoder, NULL);
    if (code >= 0) code = avcodec_receive_frame(decoder, frame);
    int status = LBR_OK;
    if (code < 0) {
        status = code == AVERROR(ENOMEM) ? LBR_ENOMEM : LBR_EFORMAT;
        lbr_fail(status, "%s: %s: broken %s picture: %s", function, path, avcodec_get_name(id), lbr_ffmpeg_text(code));
    } else if (frame->decode_error_flags || frame->flags & AV_FRAME_FLAG_CORRUPT) {
        status = lbr_fail(LBR_EFORMAT, "%s: %s: broken %s picture", function, path, avcodec_get_name(id));
    } else {
        bool exact;
        int32_t matrix[9];
        int orientation = id == AV_CODEC_ID_TIFF ? lbr_exif_orientation(data, size) : id == AV_CODEC_ID_WEBP ? lbr_exif_of_webp(data, size) : 0;
        if (lbr_turn_matrix(frame, NULL, matrix)) orientation = lbr_turn_of_frame(frame, NULL, &exact);   /* a later FFmpeg has read it too */
        status = lbr_converter_run(path, &converter, frame, orientation, picture);
    }
    lbr_converter_release(&converter);
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&decoder);
    return status;
}

/* What a picture file begins with, at an offset. */
static enum AVCodecID kind_of(const uint8_t *data, size_t size)
{
    static const struct {
        const char *magic;
        size_t offset, bytes;
        enum AVCodecID id;
    } kinds[] = {
        { "\x89PNG\r\n\x1a\n", 0, 8, AV_CODEC_ID_PNG }, { "\xff\xd8\xff", 0, 3, AV_CODEC_ID_MJPEG }, { "BM", 0, 2, AV_CODEC_ID_BMP },
        { "WEBP", 8, 4, AV_CODEC_ID_WEBP }, { "II*\0", 0, 4, AV_CODEC_ID_TIFF }, { "MM\0*", 0, 4, AV_CODEC_ID_TIFF },
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (size >= kinds[i].offset + kinds[i].bytes && memcmp(data + kinds[i].offset, kinds[i].magic, kinds[i].bytes) == 0) return kinds[i].id;
    return AV_CODEC_ID_NONE;
}

int lbr_picture_is(const char *path)
{
    uint8_t head[16];
    FILE *file = fopen(path, "rb");
    size_t size = file ? fread(head, 1, sizeof head, file) : 0;
    if (file) fclose(file);
    return kind_of(head, size) != AV_CODEC_ID_NONE;
}

/* data is followed by AV_INPUT_BUFFER_PADDING_SIZE bytes where `padded`: FFmpeg's decoders read them. */
static int decode(const char *function, const char *path, uint8_t *data, size_t size, bool padded, struct lbr_frame *picture)
{
    enum AVCodecID id = kind_of(data, size);
    if (id == AV_CODEC_ID_NONE) return lbr_fail(LBR_EFORMAT, "%s: %s: not a picture (want PNG, JPEG, BMP, WebP or TIFF)", function, path);
    if (id == AV_CODEC_ID_PNG) return png_decode(function, path, data, size, picture);
    if (id == AV_CODEC_ID_MJPEG) return lbr_jpeg_decode(function, path, data, size, picture);
    if (padded) return ffmpeg_decode(function, path, id, data, size, picture);
    uint8_t *copy = av_mallocz(size + AV_INPUT_BUFFER_PADDING_SIZE);
    if (!copy) return lbr_fail(LBR_ENOMEM, "%s: %s: no memory", function, path);
    memcpy(copy, data, size);
    int status = ffmpeg_decode(function, path, id, copy, size, picture);
    av_free(copy);
    return status;
}

int lbr_picture_decode(const char *function, const char *path, struct lbr_frame *picture)
{
    uint8_t *data;
    size_t size;
    int status = lbr_file_read(function, path, &data, &size);
    if (status != LBR_OK) return status;
    status = decode(function, path, data, size, true, picture);
    av_free(data);
    return status;
}

/* A decoded picture upright and without gaps; frees picture. */
static int hand_out(const char *path, int status, struct lbr_frame *picture, uint8_t **rgb, int *width, int *height)
{
    if (status == LBR_OK) {
        int crop[4] = { 0, 0, picture->orientation & 1 ? picture->height : picture->width, picture->orientation & 1 ? picture->width : picture->height };
        *width = crop[2];
        *height = crop[3];
        *rgb = av_malloc(3 * (size_t)crop[2] * (size_t)crop[3]);
        if (*rgb) lbr_turn_copy(picture, crop, 0, *rgb);
        else status = lbr_fail(LBR_ENOMEM, "picture_read: %s: no memory", path);
    }
    lbr_frame_release(picture);
    return status;
}

int lbr_picture_read(const char *path, uint8_t **rgb, int *width, int *height)
{
    *rgb = NULL;
    struct lbr_frame picture = { 0 };
    return hand_out(path, lbr_picture_decode("picture_read", path, &picture), &picture, rgb, width, height);
}

int lbr_picture_parse(const char *name, const void *data, size_t size, uint8_t **rgb, int *width, int *height)
{
    *rgb = NULL;
    if (size == 0) return lbr_fail(LBR_EFORMAT, "picture_read: %s: no bytes", name);
    struct lbr_frame picture = { 0 };
    return hand_out(name, decode("picture_read", name, (uint8_t *)data, size, false, &picture), &picture, rgb, width, height);
}

void lbr_picture_free(uint8_t *rgb) { av_free(rgb); }

/* ---- PNG out ---- */

struct png_output {
    FILE *file;
    int error;
    jmp_buf jump;
};

static void png_out_failed(png_structp png, png_const_charp message)
{
    (void)message;
    longjmp(((struct png_output *)png_get_error_ptr(png))->jump, 1);
}

static void png_give(png_structp png, png_bytep data, png_size_t bytes)
{
    struct png_output *out = png_get_io_ptr(png);
    if (fwrite(data, 1, bytes, out->file) == bytes) return;
    out->error = errno;
    png_error(png, "write");
}

static void png_flush_nothing(png_structp png) { (void)png; }

static int png_encode(struct png_output *out, const uint8_t *pixels, int width, int height, int channels)
{
    static const int types[] = { 0, PNG_COLOR_TYPE_GRAY, 0, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA };
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, out, png_out_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    volatile int failed = !info;
    if (!failed && setjmp(out->jump)) {
        failed = 1;
    } else if (!failed) {
        png_set_write_fn(png, out, png_give, png_flush_nothing);
        png_set_compression_level(png, 3);
        png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB | PNG_FILTER_UP);
        png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, types[channels], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                     PNG_FILTER_TYPE_DEFAULT);
        png_write_info(png, info);
        for (int y = 0; y < height; y++) png_write_row(png, pixels + (size_t)y * (size_t)width * (size_t)channels);
        png_write_end(png, info);
    }
    png_destroy_write_struct(&png, &info);
    return failed;
}

int lbr_png_write(const char *path, const uint8_t *pixels, int width, int height, int channels)
{
    if ((channels != 1 && channels != 3 && channels != 4) || width < 1 || height < 1)
        return lbr_fail(LBR_EINVAL, "png_write: %d x %d pixels of %d channels, want 1, 3 or 4 channels and at least a pixel", width, height, channels);
    char *temporary = lbr_file_temporary(path);
    if (!temporary) return lbr_fail(LBR_ENOMEM, "png_write: no memory");
    struct png_output out = { .file = fopen(temporary, "wb") };
    int status;
    if (!out.file) {
        status = lbr_fail(LBR_EIO, "png_write: %s: %s", path, strerror(errno));
    } else {
        int failed = png_encode(&out, pixels, width, height, channels);
        if (fclose(out.file) != 0 && !failed) failed = 1, out.error = errno;
        if (!failed) {
            status = lbr_file_publish("png_write", temporary, path);
        } else {
            unlink(temporary);
            status = out.error ? lbr_fail(LBR_EIO, "png_write: %s: %s", path, strerror(out.error)) : lbr_fail(LBR_ENOMEM, "png_write: %s: no memory", path);
        }
    }
    free(temporary);
    return status;
}
