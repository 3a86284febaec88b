/* coarse.c: a frame as the mean colours of its square cells, from the decoder's planes: what tells scenes and moving parts apart at a part of a conversion's price. */
#include <stdlib.h>
#include <libavutil/common.h>
#include <libavutil/pixdesc.h>
#include "internal.h"

int lbr_coarse_cell(int width, int height)
{
    int longer = width > height ? width : height;
    return 4 * ((longer + 479) / 480);
}

/* Means of all components as out's bytes, in the canvas's colours; extra: bits of a sample beyond eight. */
static int means(const struct lbr_canvas *canvas, int extra, struct lbr_coarse *state, struct lbr_frame *out)
{
    int cell = lbr_coarse_cell(canvas->width, canvas->height), across = (canvas->width + cell - 1) / cell, down = (canvas->height + cell - 1) / cell;
    int status = lbr_frame_reserve(out, across, down);
    if (status == LBR_OK) status = lbr_room_for(&state->values, &state->sizes[0], (size_t)across * (size_t)down * sizeof *state->values);
    if (status == LBR_OK) status = lbr_room_for(&state->columns, &state->sizes[1], (size_t)canvas->width * sizeof *state->columns);
    for (int i = 0; i < canvas->count && status == LBR_OK; i++) {
        const struct lbr_component *c = &canvas->parts[i];
        int width = AV_CEIL_RSHIFT(canvas->width, c->sx), height = AV_CEIL_RSHIFT(canvas->height, c->sy);
        struct lbr_cells cells = { .values = state->values, .width = FFMAX(cell >> c->sx, 1), .height = FFMAX(cell >> c->sy, 1) };
        cells.across = (width + cells.width - 1) / cells.width;
        cells.down = (height + cells.height - 1) / cells.height;
        lbr_cells_of(c, 0, 0, width, height, &cells, state->columns);
        for (int y = 0; y < down; y++)
            for (int x = 0; x < across; x++) {
                uint32_t v = cells.values[FFMIN(y, cells.down - 1) * cells.across + FFMIN(x, cells.across - 1)] >> (8 + extra);
                out->data[y * out->stride + 3 * x + i] = (uint8_t)FFMIN(v, 255);
            }
    }
    return status;
}

static uint8_t clip(int v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* Y or Y U V to RGB in place, by one matrix for all: it is compared with its like only. */
static void to_rgb(struct lbr_frame *picture, bool grey, bool full)
{
    int low = full ? 0 : 16, gain = full ? 256 : 298;
    for (int y = 0; y < picture->height; y++) {
        uint8_t *p = picture->data + y * picture->stride;
        for (int x = 0; x < picture->width; x++, p += 3) {
            int l = (p[0] - low) * gain, u = grey ? 0 : p[1] - 128, v = grey ? 0 : p[2] - 128;
            p[0] = clip((l + 409 * v + 128) >> 8);
            p[1] = clip((l - 100 * u - 208 * v + 128) >> 8);
            p[2] = clip((l + 516 * u + 128) >> 8);
        }
    }
}

int lbr_coarse_of(const char *name, const AVFrame *frame, int orientation, struct lbr_coarse *state, struct lbr_frame *out)
{
    struct lbr_canvas canvas;
    int status;
    if (lbr_canvas_of(frame, &canvas)) {
        const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(frame->format);
        status = means(&canvas, format->comp[0].depth - 8, state, out);
        if (status == LBR_OK && !(format->flags & AV_PIX_FMT_FLAG_RGB && canvas.count == 3))
            to_rgb(out, canvas.count == 1, format->flags & AV_PIX_FMT_FLAG_RGB || lbr_planes_range(frame) == AVCOL_RANGE_JPEG);
    } else {   /* palettes, bits, floats, big endian */
        status = lbr_converter_run(name, &state->converter, frame, 0, &state->rgb);
        if (status != LBR_OK) return status;
        canvas = (struct lbr_canvas){ .count = 3, .width = frame->width, .height = frame->height };
        for (int i = 0; i < 3; i++) canvas.parts[i] = (struct lbr_component){ .data = state->rgb.data + i, .stride = state->rgb.stride, .step = 3 };
        status = means(&canvas, 0, state, out);
    }
    out->orientation = orientation;
    return status;
}

void lbr_coarse_release(struct lbr_coarse *state)
{
    free(state->values);
    free(state->columns);
    lbr_converter_release(&state->converter);
    lbr_frame_release(&state->rgb);
}
