/* points.c: points of crops put back into the picture, and followed from picture to picture. The numbers are points.h's; finds nothing itself. */
#include "cpu.h"

#include "../points.h"

int lbr_cpu_place_points(lbr_call *c)
{
    const lbr_place_points_attr *a = c->attr;
    const lbr_tensor *heat = &c->in[1];
    const int32_t B = heat->shape[0], h = heat->shape[1], w = heat->shape[2], M = heat->shape[3];
    for (int32_t b = 0; b < B; b++) {
        const float *points = (const float *)c->in[0].data + (int64_t)b * M * 5, *map = (const float *)heat->data + (int64_t)b * h * w * M;
        const float *world = (const float *)c->in[2].data + (int64_t)b * M * 3, *rect = (const float *)c->in[3].data + b * 5;
        float *y = (float *)c->out[0].data + (int64_t)b * a->n * LBR_POINT;
        for (int32_t i = 0; i < a->n; i++) {
            const float *raw = points + 5 * i;
            float p[LBR_MOST_KERNEL * LBR_MOST_KERNEL], at_x = raw[0] / (float)a->size, at_y = raw[1] / (float)a->size;
            int32_t cell[4], k = 0;
            if (lbr_surroundings(at_x, at_y, h, w, a->kernel / 2, cell)) {
                for (int32_t row = cell[0]; row <= cell[1]; row++)
                    for (int32_t column = cell[2]; column <= cell[3]; column++) p[k++] = lbr_logistic(map[((int64_t)row * w + column) * M + i]);
                lbr_refine(p, cell, h, w, (float)a->least, &at_x, &at_y);
            }
            lbr_project(raw, at_x, at_y, world + 3 * i, rect, a->width, a->height, a->size, y + i * LBR_POINT);
        }
    }
    return 0;
}

int lbr_cpu_follow_points(lbr_call *c)
{
    const lbr_follow_points_attr *a = c->attr;
    lbr_following f = {
        .n = c->out[3].shape[0] - 2, .width = a->width, .height = a->height, .follow = a->follow, .smooth = a->smooth, .alpha = a->alpha,
        .points = (const float *)c->in[0].data, .flag = *(const float *)c->in[1].data, .time = *(const double *)c->in[2].data,
        .place = (float *)c->out[0].data, .state = (float *)c->out[1].data, .clock = (double *)c->out[2].data, .y = (float *)c->out[3].data,
    };
    memcpy(f.filters, a->filters, sizeof f.filters);
    lbr_turn turn = lbr_follow_begin(&f);
    for (int32_t i = 0; i < f.n; i++) lbr_follow_point(&f, &turn, i);
    return 0;
}
