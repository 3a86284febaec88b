// convolve.cu: conv2d and its gradients as products whose operands are found, not laid out: no picture is unfolded. Depthwise convolutions are in depthwise.cu.
#include "convolve.cuh"

// Weights as columns: row n of group z, k = (tap, channel) as they lie.
template <class T, int N> struct Weights {
    enum { V = N, ALONG_K = 1 };
    const T *w;
    int rows, k;
    struct Place { const T *row; };
    __device__ void begin(int z) { w += (int64_t)z * rows * k; }
    __device__ Place place(int row) const { return {row < rows ? w + (int64_t)row * k : NULL}; }
    __device__ void load(const Place &p, int at, int last, lbr_cuda_pack<T, V> &out) const
    {
        if (p.row && at < last) out = *(const lbr_cuda_pack<T, V> *)(p.row + at);
        else out = {};
    }
};

// Windows of x as rows: output pixels, k = (tap, channel).
template <class T, int N> struct Windows {
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
    __device__ void load(const Place &p, int at, int last, lbr_cuda_pack<T, V> &out) const
    {
        const int tap = g.by_tap.over(at), ky = g.by_width.over(tap), y = p.y + ky * g.dilation[0], x = p.x + (tap - ky * g.KW) * g.dilation[1];
        if (p.image && at < last && y >= 0 && y < g.H && x >= 0 && x < g.W)
            out = *(const lbr_cuda_pack<T, V> *)(p.image + ((int64_t)y * g.W + x) * g.C + (at - tap * g.inputs));
        else out = {};
    }
};

// Results of group z: columns are its channels.
template <class T> struct Outputs {
    lbr_cuda_finish<T, T> f;
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

template <class T> static int forward(lbr_call *c, const lbr_cuda_window &g, int act)
{
    Outputs<T> y;
    int rc = lbr_cuda_finish_of(c, act, &y.f);
    if (rc) return rc;
    y.outputs = g.outputs, y.pitch = g.O, y.channel = 0;
    y.wide = g.outputs % 4 == 0 && lbr_cuda_packs<T>(y.f.y, 4) && lbr_cuda_packs<T>(y.f.residual, 4);
    const int64_t rows = (int64_t)g.B * g.OH * g.OW, depth = (int64_t)g.KH * g.KW * g.inputs;
    const T *x = (const T *)c->in[0].data, *w = (const T *)c->in[1].data;
    if (g.inputs % 4 == 0 && lbr_cuda_packs<T>(x, 4) && lbr_cuda_packs<T>(w, 4))
        return lbr_cuda_tile_run<T>(c, Windows<T, 4>{g, x, (int)rows, (int)depth}, Weights<T, 4>{w, g.outputs, (int)depth}, y, rows, g.outputs, depth, g.groups, 64);
    return lbr_cuda_tile_run<T>(c, Windows<T, 1>{g, x, (int)rows, (int)depth}, Weights<T, 1>{w, g.outputs, (int)depth}, y, rows, g.outputs, depth, g.groups, 64);
}

/* f32 and f64 sum in the CPU's order with the CPU's fused steps, so that f32 answers are the CPU's to the bit where k is not shared among blocks. f16 and bf16: tensor cores. */
int lbr_cuda_conv2d(lbr_call *c)
{
    const lbr_conv2d_attr *a = (const lbr_conv2d_attr *)c->attr;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_cuda_window g = lbr_cuda_window_of(c->in[0].shape, c->out[0].shape, c->in[1].shape[1], c->in[1].shape[2], a->groups, a->stride, a->pad, a->dilation);
    switch (c->in[0].dtype) {
    case LBR_F64: return forward<double>(c, g, a->act);
    case LBR_F32: return forward<float>(c, g, a->act);
    default: return lbr_cuda_convolve_halves(c, g, a->act);
    }
}
