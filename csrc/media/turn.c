/* turn.c: the eight orientations of a picture, and the one copy that crops and turns a frame. Knows no files. */
#include <limits.h>
#include <math.h>
#include <string.h>
#include <libavutil/display.h>
#include <libavutil/mem.h>
#include "internal.h"

int lbr_frame_reserve(struct lbr_frame *picture, int width, int height)
{
    if (width < 1 || height < 1 || width > 65536 || height > 65536 || (int64_t)width * height > INT_MAX / 4)
        return lbr_fail(LBR_EFORMAT, "a picture of %d x %d is not supported", width, height);
    /* Whole blocks of 64 pixels: swscale's vector code skips the columns whose block would not fit into the row. */
    ptrdiff_t stride = 3 * (((ptrdiff_t)width + 63) & ~(ptrdiff_t)63);
    size_t bytes = (size_t)stride * (size_t)height + 64;
    if (bytes > picture->capacity) {
        av_freep(&picture->data);
        picture->capacity = 0;
        picture->data = av_malloc(bytes);
        if (!picture->data) return lbr_fail(LBR_ENOMEM, "no memory for a picture of %d x %d", width, height);
        picture->capacity = bytes;
    }
    picture->width = width;
    picture->height = height;
    picture->stride = stride;
    picture->orientation = 0;
    return LBR_OK;
}

void lbr_frame_release(struct lbr_frame *picture)
{
    av_freep(&picture->data);
    picture->capacity = 0;
}

int lbr_turn_from_matrix(const int32_t *matrix, bool *exact)
{
    *exact = true;
    double angle = -round(av_display_rotation_get(matrix));
    if (isnan(angle)) return 0;
    angle -= 360 * floor(angle / 360 + 0.9 / 360);
    /* as ffmpeg's autorotation picks its filters, mirrored matrices included */
    if (fabs(angle - 90) < 1) return matrix[3] > 0 ? 4 + 3 : 1;
    if (fabs(angle - 180) < 1) {
        bool mirror = matrix[0] < 0, flip = matrix[4] < 0;
        return mirror && flip ? 2 : mirror ? 4 : flip ? 4 + 2 : 0;
    }
    if (fabs(angle - 270) < 1) return matrix[3] < 0 ? 4 + 1 : 3;
    if (fabs(angle) > 1) *exact = false;
    else if (matrix[4] < 0) return 4 + 2;
    return 0;
}

int lbr_turn_then(int first, int second)
{
    int q1 = first & 3, m1 = first >> 2, q2 = second & 3, m2 = second >> 2;
    return (m2 ? q2 - q1 + 4 : q2 + q1) % 4 + 4 * (m1 ^ m2);
}

/* The pixel of a width x height picture that stands at (x, y) once it was turned. */
static void untransform(int orientation, int width, int height, int x, int y, int *u, int *v)
{
    int a = x, b = y;
    switch (orientation & 3) {
    case 1: a = y, b = height - 1 - x; break;
    case 2: a = width - 1 - x, b = height - 1 - y; break;
    case 3: a = width - 1 - y, b = x; break;
    }
    *u = orientation & 4 ? width - 1 - a : a;
    *v = b;
}

static ptrdiff_t source_offset(const struct lbr_frame *p, const int crop[4], int rotate, int x, int y)
{
    int u, v;
    untransform(rotate, crop[2], crop[3], x, y, &u, &v);
    untransform(p->orientation, p->width, p->height, u + crop[0], v + crop[1], &u, &v);
    return v * p->stride + 3 * (ptrdiff_t)u;
}

void lbr_turn_copy(const struct lbr_frame *picture, const int crop[4], int rotate, uint8_t *out)
{
    int width = rotate & 1 ? crop[3] : crop[2], height = rotate & 1 ? crop[2] : crop[3];
    ptrdiff_t base = source_offset(picture, crop, rotate, 0, 0);
    ptrdiff_t across = source_offset(picture, crop, rotate, 1, 0) - base, down = source_offset(picture, crop, rotate, 0, 1) - base;
    const uint8_t *in = picture->data + base;
    if (across == 3) {
        for (int y = 0; y < height; y++) memcpy(out + (size_t)y * 3 * (size_t)width, in + y * down, 3 * (size_t)width);
        return;
    }
    enum { BLOCK = 32 };  /* a quarter turn reads columns: blocks keep both sides in the cache */
    for (int y0 = 0; y0 < height; y0 += BLOCK)
        for (int x0 = 0; x0 < width; x0 += BLOCK) {
            int y1 = y0 + BLOCK < height ? y0 + BLOCK : height, x1 = x0 + BLOCK < width ? x0 + BLOCK : width;
            for (int y = y0; y < y1; y++) {
                const uint8_t *from = in + y * down + x0 * across;
                uint8_t *to = out + 3 * ((size_t)y * (size_t)width + (size_t)x0);
                for (int x = x0; x < x1; x++, from += across, to += 3) to[0] = from[0], to[1] = from[1], to[2] = from[2];
            }
        }
}
