// window.cuh: where the taps of a convolution lie: pictures [B,H,W,C], results [B,OH,OW,O]. The same numbers serve forward and backward.
#pragma once
#include "tile.cuh"

struct lbr_cuda_window {
    int B, H, W, C, OH, OW, O, KH, KW;
    int stride[2], pad[2], dilation[2]; // pad: top and left
    int groups, inputs, outputs;        // channels of a group
    lbr_cuda_divider by_row, by_image, by_tap, by_width; // OW, OH, inputs, KW
};

static inline lbr_cuda_window lbr_cuda_window_of(const int32_t *x, const int32_t *y, int kh, int kw, int groups, const int32_t *stride, const int32_t *pad, const int32_t *dilation)
{
    lbr_cuda_window w = {x[0], x[1], x[2], x[3], y[1], y[2], y[3], kh, kw, {stride[0], stride[1]}, {pad[0], pad[2]}, {dilation[0], dilation[1]}, groups, x[3] / groups, y[3] / groups,
                         lbr_cuda_divide_by(y[2]), lbr_cuda_divide_by(y[1]), lbr_cuda_divide_by(x[3] / groups), lbr_cuda_divide_by(kw)};
    return w;
}

// Output pixel `i` of all: its picture and place.
struct lbr_cuda_pixel {
    int b, y, x;
};
static __device__ __forceinline__ lbr_cuda_pixel lbr_cuda_pixel_of(const lbr_cuda_window &w, int i)
{
    const int line = w.by_row.over(i), b = w.by_image.over(line);
    return {b, line - b * w.OH, i - line * w.OW};
}

// Taps of one dim that join input place `at` with outputs: first, first + step, ... below the kernel's size; none: first is that size.
struct lbr_cuda_taps {
    int first, step, n;
};
static __device__ inline lbr_cuda_taps lbr_cuda_taps_of(int at, int kernel, int stride, int pad, int dilation)
{
    lbr_cuda_taps t = {kernel, kernel, 0};
    int second = kernel;
    for (int k = 0; k < kernel && second == kernel; k++)
        if ((at + pad - k * dilation) % stride == 0) {
            if (t.first == kernel) t.first = k;
            else second = k;
        }
    if (second < kernel) t.step = second - t.first;
    if (t.first < kernel) t.n = (kernel - 1 - t.first) / t.step + 1;
    return t;
}
