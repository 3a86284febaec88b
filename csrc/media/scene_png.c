/* scene_png.c: rendered frames as PNG files, packed for speed; pictures for people go through lbr_png_write. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <png.h>
#include <zlib.h>
#include "../libration.h"
#include "scene.h"

struct sink {
    FILE *file;
    int error;
    jmp_buf jump;
};

static void failed(png_structp png, png_const_charp message)
{
    (void)message;
    longjmp(((struct sink *)png_get_error_ptr(png))->jump, 1);
}

static void warned(png_structp png, png_const_charp message) { (void)png, (void)message; }

static void give(png_structp png, png_bytep data, png_size_t bytes)
{
    struct sink *s = png_get_io_ptr(png);
    if (fwrite(data, 1, bytes, s->file) == bytes) return;
    s->error = errno;
    png_error(png, "write");
}

static void flush(png_structp png) { (void)png; }

static int encode(struct sink *s, const uint8_t *rgb, int width, int height)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, s, failed, warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    volatile int bad = !info;
    if (!bad && setjmp(s->jump)) {
        bad = 1;
    } else if (!bad) {
        png_set_write_fn(png, s, give, flush);
        png_set_compression_level(png, 1);
        png_set_compression_strategy(png, Z_HUFFMAN_ONLY);
        png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
        png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                     PNG_FILTER_TYPE_DEFAULT);
        png_write_info(png, info);
        for (int y = 0; y < height; y++) png_write_row(png, rgb + (size_t)y * (size_t)width * 3);
        png_write_end(png, info);
    }
    png_destroy_write_struct(&png, &info);
    return bad;
}

int lbr_scene_png(const char *path, const uint8_t *rgb, int width, int height)
{
    struct sink s = {.file = fopen(path, "wb")};
    if (!s.file) return lbr_fail(LBR_EIO, "scene_write: %s: %s", path, strerror(errno));
    int bad = encode(&s, rgb, width, height);
    if (fclose(s.file) != 0 && !bad) bad = 1, s.error = errno;
    if (!bad) return LBR_OK;
    remove(path);
    if (s.error) return lbr_fail(LBR_EIO, "scene_write: %s: %s", path, strerror(s.error));
    return lbr_fail(LBR_ENOMEM, "scene_write: %s: no memory", path);
}
