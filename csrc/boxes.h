/* boxes.h: a detector's boxes, one at a time: decoding beside an anchor and overlap, what the kernels of both devices work out alike. Knows no tensors.
 * Each number is rounded where MediaPipe rounds it, so what includes this is compiled without contraction. */
#ifndef LBR_BOXES_H
#define LBR_BOXES_H

#include "points.h"

#ifdef __cplusplus
#define BOTH static __host__ __device__ inline
#else
#define BOTH static inline
#endif

/* Probability of a logit; below 0 where it is none: NaN, or too small to be one. */
BOTH float lbr_box_score(float v) { return v > -100 ? lbr_logistic(v < 100 ? v : 100) : -1; }

/* Box i of p[n] = centre x, y, width, height, points x, y in pixels beside the anchor -> d[n] corners x0, y0, x1, y1, points: fractions of an input of `size` pixels. */
BOTH void lbr_box_decode(const float *p, int32_t n, const float anchor[2], float size, float *d)
{
    const float x = p[0] / size + anchor[0], y = p[1] / size + anchor[1], w = p[2] / size / 2, h = p[3] / size / 2;
    d[0] = x - w, d[1] = y - h, d[2] = x + w, d[3] = y + h;
    for (int32_t k = 4; k < n; k++) d[k] = p[k] / size + anchor[k & 1];
}

/* Intersection over union of two boxes, corners x0, y0, x1, y1. */
BOTH float lbr_box_iou(const float *a, const float *b)
{
    const float w = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]), h = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    if (!(w > 0 && h > 0)) return 0;
    const float both = w * h, all = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both;
    return all > 0 ? both / all : 0;
}

#undef BOTH

#endif
