/* mask.c: covers masks in a picture's samples, packed RGB or YUV planes of 8 to 16 bits: solid, mosaic or blurred. Where they lie: mask_shape.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/pixdesc.h>
#include "clones.h"
#include "internal.h"

/* A blur is three box filters of 7 cells over a grid of means, drawn with bilinear interpolation: its standard deviation is 3.5 cells
 * (three boxes 12, the cell 1/12, the interpolation 1/6: 3.5 squared). */
enum { RADIUS = 3 };
#define CELLS_A_DEVIATION 3.5
#define LEAST_BLOCK 4

bool lbr_canvas_of(const AVFrame *frame, struct lbr_canvas *canvas)
{
    const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(frame->format);
    const uint64_t odd = AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_BE | AV_PIX_FMT_FLAG_FLOAT;
    if (!format || format->flags & odd) return false;
    bool rgb = format->flags & AV_PIX_FMT_FLAG_RGB;
    *canvas = (struct lbr_canvas){ .count = format->nb_components >= 3 ? 3 : 1, .width = frame->width, .height = frame->height };
    for (int i = 0; i < canvas->count; i++) {
        const AVComponentDescriptor *from = &format->comp[i];
        bool chroma = i > 0 && !rgb;
        if (from->depth < 8 || from->depth + from->shift > 16) return false;
        unsigned level = rgb || frame->color_range == AVCOL_RANGE_JPEG ? 0 : 16u << (from->depth - 8);
        canvas->parts[i] = (struct lbr_component){
            .data = frame->data[from->plane] + from->offset, .stride = frame->linesize[from->plane], .step = from->step, .wide = from->depth > 8,
            .shift = from->shift, .sx = chroma ? format->log2_chroma_w : 0, .sy = chroma ? format->log2_chroma_h : 0,
            .black = chroma ? 1u << (from->depth - 1) : level,
        };
    }
    return true;
}

/* ---- means of cells ---- */

static inline __attribute__((always_inline)) void add(uint32_t *sums, const uint8_t *p, int step, bool wide, int shift, int n)
{
    if (wide) for (int i = 0; i < n; i++) sums[i] += *(const uint16_t *)(p + (ptrdiff_t)i * step) >> shift;
    else for (int i = 0; i < n; i++) sums[i] += p[(ptrdiff_t)i * step];
}

LBR_CLONES
void lbr_cells_of(const struct lbr_component *c, int x, int y, int width, int height, struct lbr_cells *cells, uint32_t *columns)
{
    for (int j = 0; j < cells->down; j++) {
        int top = j * cells->height, h = height - top < cells->height ? height - top : cells->height;
        memset(columns, 0, (size_t)width * sizeof *columns);
        for (int k = 0; k < h; k++) {
            const uint8_t *p = c->data + (y + top + k) * c->stride + (ptrdiff_t)x * c->step;
            if (c->wide) add(columns, p, c->step, true, c->shift, width);
            else if (c->step == 1) add(columns, p, 1, false, 0, width);
            else add(columns, p, c->step, false, 0, width);
        }
        for (int i = 0; i < cells->across; i++) {
            int left = i * cells->width, w = width - left < cells->width ? width - left : cells->width;
            uint64_t sum = 0, n = (uint64_t)w * (uint64_t)h;
            for (int k = 0; k < w; k++) sum += columns[left + k];
            cells->values[j * cells->across + i] = (uint32_t)((sum * 256 + n / 2) / n);
        }
    }
}

/* One box filter along lines of n values that stand `step` apart; the ends are repeated. */
static void smooth_line(const uint32_t *in, uint32_t *out, int n, int step)
{
    for (int i = 0; i < n; i++) {
        uint32_t sum = RADIUS;
        for (int k = i - RADIUS; k <= i + RADIUS; k++) sum += in[(k < 0 ? 0 : k < n ? k : n - 1) * step];
        out[i * step] = sum / (2 * RADIUS + 1);
    }
}

static void smooth(struct lbr_cells *cells, uint32_t *spare)
{
    for (int pass = 0; pass < 3; pass++) {
        for (int j = 0; j < cells->down; j++) smooth_line(cells->values + j * cells->across, spare + j * cells->across, cells->across, 1);
        for (int i = 0; i < cells->across; i++) smooth_line(spare + i, cells->values + i, cells->down, cells->across);
    }
}

/* ---- rows of the effect ---- */

/* Place of a sample's centre among the centres of cells, in 1/256: clipped to the first and last. */
static int place(int sample, int cell, int count)
{
    int at = ((2 * sample + 1) * 128) / cell - 128, last = (count - 1) * 256;
    return at < 0 ? 0 : at > last ? last : at;
}

static void mosaic_row(const struct lbr_cells *cells, int y, uint16_t *out, int width)
{
    const uint32_t *row = cells->values + y / cells->height * cells->across;
    for (int i = 0, x = 0; i < cells->across; i++)
        for (int end = x + cells->width < width ? x + cells->width : width; x < end; x++) out[x] = (uint16_t)((row[i] + 128) >> 8);
}

/* line: room for a row of cells and one more; places: of the samples of a row. */
static void blur_row(const struct lbr_cells *cells, int y, uint32_t *line, const uint32_t *places, uint16_t *out, int width)
{
    int at = place(y, cells->height, cells->down), w = at & 255;
    const uint32_t *upper = cells->values + (at >> 8) * cells->across, *lower = w ? upper + cells->across : upper;
    for (int i = 0; i < cells->across; i++) line[i] = (upper[i] * (uint32_t)(256 - w) + lower[i] * (uint32_t)w + 128) >> 8;
    line[cells->across] = line[cells->across - 1];
    for (int x = 0; x < width; x++) {
        uint32_t cell = places[x] >> 8, v = places[x] & 255;
        out[x] = (uint16_t)((line[cell] * (256 - v) + line[cell + 1] * v + 32768) >> 16);   /* 16 bits a value and 16 behind the point: it fits */
    }
}

static inline __attribute__((always_inline)) void lay(uint8_t *p, int step, bool wide, int shift, const uint8_t *alpha, const uint16_t *effect, int n)
{
    for (int x = 0; x < n; x++) {
        uint8_t *at = p + (ptrdiff_t)x * step;
        if (wide) {
            uint32_t a = alpha[x];
            *(uint16_t *)at = (uint16_t)((((*(uint16_t *)at >> shift) * (255 - a) + effect[x] * a + 127) / 255) << shift);
        } else {
            uint16_t a = alpha[x], mixed = (uint16_t)(*at * (uint16_t)(255 - a) + (uint16_t)effect[x] * a + 128);
            *at = (uint8_t)((uint16_t)(mixed + (mixed >> 8)) >> 8);   /* by 255, rounded */
        }
    }
}

static void lay_row(const struct lbr_component *c, uint8_t *p, const uint8_t *alpha, const uint16_t *effect, int n)
{
    if (c->wide) lay(p, c->step, true, c->shift, alpha, effect, n);
    else if (c->step == 1) lay(p, 1, false, 0, alpha, effect, n);
    else lay(p, c->step, false, 0, alpha, effect, n);
}

/* Coverage of a row of a subsampled component: what any of its pixels has. */
static const uint8_t *alpha_row(const struct lbr_coverage *cover, const struct lbr_component *c, int y, uint8_t *line)
{
    size_t width = (size_t)cover->width;
    const uint8_t *row = cover->alpha + ((size_t)y << c->sy) * width;
    if (!c->sx && !c->sy) return row;
    int rows = cover->height - (y << c->sy) < 1 << c->sy ? cover->height - (y << c->sy) : 1 << c->sy, n = 1 << c->sx;
    memcpy(line, row, width);
    for (int j = 1; j < rows; j++)
        for (size_t x = 0; x < width; x++) line[x] = row[(size_t)j * width + x] > line[x] ? row[(size_t)j * width + x] : line[x];
    for (int x = 0; x << c->sx < cover->width; x++) {
        int first = x << c->sx, end = first + n < cover->width ? first + n : cover->width;
        uint8_t most = line[first];
        for (int k = first + 1; k < end; k++) most = line[k] > most ? line[k] : most;
        line[x] = most;
    }
    return line;
}

/* ---- drawing ---- */

/* Side of a cell in pixels, a multiple of what the coarsest component is subsampled by. */
static int cell_side(const lbr_mask *m, int coarsest)
{
    double side = lbr_mask_side(m) * m->strength;
    if (m->style == LBR_STYLE_BLUR) side /= CELLS_A_DEVIATION;
    int cell = (int)ceil(fmin(side, 65536));
    if (m->style == LBR_STYLE_MOSAIC && cell < LEAST_BLOCK) cell = LEAST_BLOCK;
    if (cell < 1) cell = 1;
    return cell + (coarsest - cell % coarsest) % coarsest;
}

static int draw_component(const struct lbr_component *c, const lbr_mask *m, const struct lbr_coverage *cover, int cell, struct lbr_mask_room *room)
{
    int x = cover->x >> c->sx, y = cover->y >> c->sy;
    int width = AV_CEIL_RSHIFT(cover->width, c->sx), height = AV_CEIL_RSHIFT(cover->height, c->sy);
    struct lbr_cells cells = { .width = cell >> c->sx, .height = cell >> c->sy };
    cells.across = (width + cells.width - 1) / cells.width;
    cells.down = (height + cells.height - 1) / cells.height;
    int status = lbr_room_for(&room->line, &room->sizes[1], (size_t)cover->width);
    if (status == LBR_OK) status = lbr_room_for(&room->effect, &room->sizes[3], (size_t)width * sizeof *room->effect);
    if (status == LBR_OK && m->style != LBR_STYLE_BOX) {
        size_t count = (size_t)cells.across * (size_t)cells.down, rest = (size_t)cells.across + 1 + (size_t)width;
        status = lbr_room_for(&room->grid, &room->sizes[4], count * sizeof *room->grid);
        if (status == LBR_OK) status = lbr_room_for(&room->spare, &room->sizes[5], (count > rest ? count : rest) * sizeof *room->spare);
    }
    if (status != LBR_OK) return status;
    cells.values = room->grid;
    if (m->style != LBR_STYLE_BOX) lbr_cells_of(c, x, y, width, height, &cells, room->spare);
    uint32_t *places = m->style == LBR_STYLE_BLUR ? room->spare + cells.across + 1 : NULL;
    if (m->style == LBR_STYLE_BLUR) {
        smooth(&cells, room->spare);
        for (int i = 0; i < width; i++) places[i] = (uint32_t)place(i, cells.width, cells.across);
    }
    if (m->style == LBR_STYLE_BOX)
        for (int i = 0; i < width; i++) room->effect[i] = (uint16_t)c->black;
    for (int j = 0; j < height; j++) {
        if (m->style == LBR_STYLE_BLUR) blur_row(&cells, j, room->spare, places, room->effect, width);
        else if (m->style == LBR_STYLE_MOSAIC && j % cells.height == 0) mosaic_row(&cells, j, room->effect, width);
        lay_row(c, c->data + (y + j) * c->stride + (ptrdiff_t)x * c->step, alpha_row(cover, c, j, room->line), room->effect, width);
    }
    return LBR_OK;
}

static int draw(const struct lbr_canvas *canvas, const lbr_mask *m, struct lbr_mask_room *room)
{
    int sx = 0, sy = 0;
    for (int i = 0; i < canvas->count; i++) {
        if (canvas->parts[i].sx > sx) sx = canvas->parts[i].sx;
        if (canvas->parts[i].sy > sy) sy = canvas->parts[i].sy;
    }
    struct lbr_coverage cover;
    int status = lbr_mask_cover(m, canvas->width, canvas->height, 1 << sx, 1 << sy, room, &cover);
    if (status != LBR_OK || cover.width == 0) return status;
    int cell = cell_side(m, 1 << (sx > sy ? sx : sy));
    for (int i = 0; i < canvas->count && status == LBR_OK; i++) status = draw_component(&canvas->parts[i], m, &cover, cell, room);
    return status;
}

int lbr_mask_draw(const struct lbr_canvas *canvas, int orientation, const lbr_mask *masks, int64_t count, struct lbr_mask_room *room)
{
    double points[2 * LBR_MASK_POINTS];
    int status = LBR_OK;
    for (int64_t i = 0; i < count && status == LBR_OK; i++) {
        lbr_mask stored = lbr_mask_stored(&masks[i], orientation, canvas->width, canvas->height, points);
        status = draw(canvas, &stored, room);
    }
    return status;
}

int lbr_mask_apply(uint8_t *rgb, int width, int height, const lbr_mask *masks, int64_t count)
{
    int status = lbr_mask_check(masks, count);
    if (status != LBR_OK) return status;
    struct lbr_canvas canvas = { .count = 3, .width = width, .height = height };
    for (int i = 0; i < 3; i++) canvas.parts[i] = (struct lbr_component){ .data = rgb + i, .stride = 3 * (ptrdiff_t)width, .step = 3 };
    struct lbr_mask_room room = { 0 };
    status = lbr_mask_draw(&canvas, 0, masks, count, &room);
    lbr_mask_room_release(&room);
    return status;
}
