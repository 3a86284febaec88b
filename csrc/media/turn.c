/* turn.c: the eight orientations of a picture, and the one copy that crops and turns a frame. Knows no files. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <string.h>
#include <libavutil/display.h>
#include <libavutil/mem.h>
#include <libavutil/pixdesc.h>
#include "internal.h"

/* Room for at least `rows` rows; what the picture held of this width is kept. */
static int frame_grow(struct lbr_frame *picture, int width, int height, int rows)
{
    if (width < 1 || height < 1 || width > 65536 || height > 65536 || (int64_t)width * height > INT_MAX / 4)
        return lbr_fail(LBR_EFORMAT, "a picture of %d x %d is not supported", width, height);
    /* Whole blocks of 64 pixels: swscale's vector code skips the columns whose block would not fit into the row. */
    ptrdiff_t stride = 3 * (((ptrdiff_t)width + 63) & ~(ptrdiff_t)63);
    size_t bytes = (size_t)stride * (size_t)rows + 64;
    if (bytes > picture->capacity) {
        uint8_t *data = av_malloc(bytes);
        if (data && picture->data && stride == picture->stride) memcpy(data, picture->data, picture->capacity);
        av_freep(&picture->data);
        picture->capacity = data ? bytes : 0;
        picture->data = data;
        if (!data) return lbr_fail(LBR_ENOMEM, "no memory for a picture of %d x %d", width, height);
    }
    picture->width = width;
    picture->height = height;
    picture->stride = stride;
    return LBR_OK;
}

static int frame_room(const struct lbr_frame *picture)
{
    return picture->stride && picture->capacity ? (int)((picture->capacity - 64) / (size_t)picture->stride) : 0;
}

int lbr_frame_begin(struct lbr_frame *picture, int width, int height, size_t bytes)
{
    picture->stride = picture->orientation = 0;
    int64_t rows = (int64_t)(16 * bytes / (3 * (size_t)(width < 1 ? 1 : width)));
    return frame_grow(picture, width, height, rows < 1 ? 1 : rows > height ? height : (int)rows);
}

int lbr_frame_reach(struct lbr_frame *picture, int row)
{
    int room = frame_room(picture), height = picture->height;
    return row < room ? LBR_OK : frame_grow(picture, picture->width, height, room < height / 2 ? 2 * room : height);
}

int lbr_frame_reserve(struct lbr_frame *picture, int width, int height)
{
    picture->stride = picture->orientation = 0;   /* nothing in it is worth keeping */
    return frame_grow(picture, width, height, height);
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

/* Copies width x height elements of size bytes that stand across and down bytes apart. */
static inline __attribute__((always_inline)) void gather(const uint8_t *in, ptrdiff_t across, ptrdiff_t down, size_t size, int width, int height,
                                                         uint8_t *out, ptrdiff_t stride)
{
    enum { BLOCK = 32 };  /* a quarter turn reads columns: blocks keep both sides in the cache */
    for (int y0 = 0; y0 < height; y0 += BLOCK)
        for (int x0 = 0; x0 < width; x0 += BLOCK) {
            int y1 = y0 + BLOCK < height ? y0 + BLOCK : height, x1 = x0 + BLOCK < width ? x0 + BLOCK : width;
            for (int y = y0; y < y1; y++) {
                const uint8_t *from = in + y * down + x0 * across;
                uint8_t *to = out + y * stride + x0 * (ptrdiff_t)size;
                for (int x = x0; x < x1; x++, from += across, to += size) memcpy(to, from, size);
            }
        }
}

static void copy(const uint8_t *in, ptrdiff_t across, ptrdiff_t down, int size, int width, int height, uint8_t *out, ptrdiff_t stride)
{
    if (across == size) {
        for (int y = 0; y < height; y++) memcpy(out + y * stride, in + y * down, (size_t)size * (size_t)width);
        return;
    }
    switch (size) {
    case 1: gather(in, across, down, 1, width, height, out, stride); break;
    case 2: gather(in, across, down, 2, width, height, out, stride); break;
    case 3: gather(in, across, down, 3, width, height, out, stride); break;
    case 4: gather(in, across, down, 4, width, height, out, stride); break;
    default: gather(in, across, down, (size_t)size, width, height, out, stride);
    }
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
    copy(picture->data + base, across, down, 3, width, height, out, 3 * (ptrdiff_t)width);
}

/* Bytes an element of each plane; false where the format is no set of planes whose elements may be moved one by one. */
static bool plane_sizes(const AVPixFmtDescriptor *format, bool quarter, int sizes[4])
{
    const uint64_t odd = AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_HWACCEL;
    if (!format || format->flags & odd || (quarter && format->log2_chroma_w != format->log2_chroma_h)) return false;
    memset(sizes, 0, 4 * sizeof *sizes);
    for (int i = 0; i < format->nb_components; i++) {
        int plane = format->comp[i].plane, size = format->comp[i].step;
        if (sizes[plane] && sizes[plane] != size) return false;
        sizes[plane] = size;
    }
    return true;
}

int lbr_turn_planes(const AVFrame *in, int orientation, AVFrame *out)
{
    const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(in->format);
    int sizes[4];
    if (!plane_sizes(format, orientation & 1, sizes)) return AVERROR(ENOSYS);
    int width = orientation & 1 ? in->height : in->width, height = orientation & 1 ? in->width : in->height;
    if (out->format != in->format || out->width != width || out->height != height || !out->data[0]) {
        av_frame_unref(out);
        out->format = in->format;
        out->width = width;
        out->height = height;
        int code = av_frame_get_buffer(out, 0);
        if (code < 0) return code;
    }
    out->colorspace = in->colorspace;
    out->color_range = in->color_range;
    for (int p = 0; p < 4 && sizes[p]; p++) {
        bool chroma = (p == 1 || p == 2) && !(format->flags & AV_PIX_FMT_FLAG_RGB);
        int sx = chroma ? format->log2_chroma_w : 0, sy = chroma ? format->log2_chroma_h : 0;
        int w = AV_CEIL_RSHIFT(in->width, sx), h = AV_CEIL_RSHIFT(in->height, sy), u, v;
        ptrdiff_t steps[3];
        for (int i = 0; i < 3; i++) {
            untransform(orientation, w, h, i == 1, i == 2, &u, &v);
            steps[i] = v * (ptrdiff_t)in->linesize[p] + u * (ptrdiff_t)sizes[p];
        }
        copy(in->data[p] + steps[0], steps[1] - steps[0], steps[2] - steps[0], sizes[p], orientation & 1 ? h : w, orientation & 1 ? w : h,
             out->data[p], out->linesize[p]);
    }
    return 0;
}
