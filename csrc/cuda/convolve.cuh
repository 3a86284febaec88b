// convolve.cuh: what the forward convolutions of f32, f64 (convolve.cu) and of f16, bf16 (convolve_halves.cu) share: where the operands of their products lie.
#pragma once
#include "finish.cuh"
#include "sources.cuh"
#include "window.cuh"

// Pixel for pixel: a plain matrix product, whose rows are found without a division.
static inline bool lbr_cuda_pointwise(const lbr_cuda_window &g)
{
    return g.KH * g.KW == 1 && g.groups == 1 && g.stride[0] == 1 && g.stride[1] == 1 && !g.pad[0] && !g.pad[1] && g.OH == g.H && g.OW == g.W;
}

// Weights as columns: row n of group z, k = (tap, channel) as they lie.
template <class T, int N> struct lbr_cuda_weights {
    enum { V = N, ALONG_K = 1 };
    const T *w;
    int rows, k;
    typedef const T *Place;
    __device__ void begin(int z) { w += (int64_t)z * rows * k; }
    __device__ Place place(int row) const { return row < rows ? w + (int64_t)row * k : NULL; }
    __device__ const T *any() const { return w; }
    __device__ const T *find(Place row, int at, int last) const { return row && at < last ? row + at : NULL; }
};

// Windows of x as rows: output pixels, k = (tap, channel).
template <class T, int N> struct lbr_cuda_windows {
    enum { V = N, ALONG_K = 1 };
    lbr_cuda_window g;
    const T *x;
    int rows, depth;
    struct Place { const T *image; int y, x; };
    __device__ void begin(int z) { x += z * g.inputs; }
    __device__ Place place(int row) const
    {
        if (row >= rows) return {NULL, 0, 0};
        const lbr_cuda_pixel p = lbr_cuda_pixel_of(g, row);
        return {x + (int64_t)p.b * g.H * g.W * g.C, p.y * g.stride[0] - g.pad[0], p.x * g.stride[1] - g.pad[1]};
    }
    __device__ const T *any() const { return x; }
    __device__ const T *find(const Place &p, int at, int last) const
    {
        const int tap = g.by_tap.over(at), ky = g.by_width.over(tap), y = p.y + ky * g.dilation[0], x = p.x + (tap - ky * g.KW) * g.dilation[1];
        if (!p.image || at >= last || y < 0 || y >= g.H || x < 0 || x >= g.W) return NULL;
        return p.image + ((int64_t)y * g.W + x) * g.C + (at - tap * g.inputs);
    }
};

// Results of group z: columns are its channels. S: element, T: sums.
template <class S, class T> struct lbr_cuda_outputs {
    lbr_cuda_finish<S, T> f;
    int outputs, pitch, wide, channel;
    __device__ void begin(int z) { channel = z * outputs; }
    __device__ T start(int column) const { return f.start(channel + column); }
    template <int W> __device__ void put(int row, int column, const T *v, int columns) const
    {
        const int64_t at = (int64_t)row * pitch + channel + column;
        if (wide && column + W <= columns) f.template put<W>(at, channel + column, v);
        else
            for (int e = 0; e < W && column + e < columns; e++) f.template put<1>(at + e, channel + column + e, v + e);
    }
};

int lbr_cuda_convolve_halves(lbr_call *c, const lbr_cuda_window &g, int act);
