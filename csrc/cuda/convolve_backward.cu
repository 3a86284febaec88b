// convolve_backward.cu: the gradients of conv2d with respect to its input and its weights, in f32 and f64. Sums have a fixed order; nothing is added by atomics.
#include "window.cuh"

// ---- input ----

/* Input pixels that lie alike towards the stride have the same taps: part z of the product is one such class of one group, so no tap is tried that joins nothing. */
struct Alike {
    int group, at[2], n[2]; // first row and column of the class, how many there are
    lbr_cuda_taps taps[2];
    __device__ void begin(const lbr_cuda_window &g, int z)
    {
        const int classes = g.stride[0] * g.stride[1], size[2] = {g.H, g.W}, kernel[2] = {g.KH, g.KW};
        group = z / classes, z -= group * classes;
        at[0] = z / g.stride[1], at[1] = z - at[0] * g.stride[1];
        for (int i = 0; i < 2; i++) {
            n[i] = size[i] > at[i] ? (size[i] - at[i] - 1) / g.stride[i] + 1 : 0;
            taps[i] = lbr_cuda_taps_of(at[i], kernel[i], g.stride[i], g.pad[i], g.dilation[i]);
        }
    }
};

// Rows: pixels of a class; k = (tap, output channel).
template <class T, int N> struct Slopes {
    enum { V = N, ALONG_K = 1 };
    lbr_cuda_window g;
    const T *dy;
    int rows, depth;
    Alike alike;
    struct Place { const T *image; int y, x; };
    __device__ void begin(int z)
    {
        alike.begin(g, z);
        rows = g.B * alike.n[0] * alike.n[1];
        depth = alike.taps[0].n * alike.taps[1].n * g.outputs;
        dy += alike.group * g.outputs;
    }
    __device__ Place place(int row) const
    {
        if (row >= rows) return {NULL, 0, 0};
        const int line = row / alike.n[1], b = line / alike.n[0];
        return {dy + (int64_t)b * g.OH * g.OW * g.O, alike.at[0] + (line - b * alike.n[0]) * g.stride[0] + g.pad[0], alike.at[1] + (row - line * alike.n[1]) * g.stride[1] + g.pad[1]};
    }
    __device__ const T *find(const Place &p, int at, int last) const
    {
        if (!p.image || at >= last) return NULL;
        const int tap = at / g.outputs, ky = tap / alike.taps[1].n, kx = tap - ky * alike.taps[1].n;
        const int y = p.y - (alike.taps[0].first + ky * alike.taps[0].step) * g.dilation[0], x = p.x - (alike.taps[1].first + kx * alike.taps[1].step) * g.dilation[1];
        if (y < 0 || x < 0) return NULL;
        const int oy = y / g.stride[0], ox = x / g.stride[1];
        return oy < g.OH && ox < g.OW ? p.image + ((int64_t)oy * g.OW + ox) * g.O + (at - tap * g.outputs) : NULL;
    }
};

// Columns: input channels of the group; side by side in memory.
template <class T, int N> struct Across {
    enum { V = N, ALONG_K = 0 };
    lbr_cuda_window g;
    const T *w;
    int rows;
    Alike alike;
    typedef int Place;
    __device__ void begin(int z)
    {
        alike.begin(g, z);
        rows = g.inputs;
        w += (int64_t)alike.group * g.outputs * g.KH * g.KW * g.inputs;
    }
    __device__ Place place(int row) const { return row; }
    __device__ const T *find(Place channel, int at, int last) const
    {
        if (channel >= rows || at >= last) return NULL;
        const int tap = at / g.outputs, o = at - tap * g.outputs, j = tap / alike.taps[1].n, ky = alike.taps[0].first + j * alike.taps[0].step;
        const int kx = alike.taps[1].first + (tap - j * alike.taps[1].n) * alike.taps[1].step;
        return w + (((int64_t)o * g.KH + ky) * g.KW + kx) * g.inputs + channel;
    }
};

template <class T> struct Inputs {
    lbr_cuda_window g;
    T *dx;
    int wide;
    Alike alike;
    __device__ void begin(int z) { alike.begin(g, z); }
    __device__ T start(int) const { return 0; }
    template <int W> __device__ void put(int row, int column, const T *v, int columns) const
    {
        const int line = row / alike.n[1], b = line / alike.n[0], y = alike.at[0] + (line - b * alike.n[0]) * g.stride[0], x = alike.at[1] + (row - line * alike.n[1]) * g.stride[1];
        T *to = dx + (((int64_t)b * g.H + y) * g.W + x) * g.C + alike.group * g.inputs + column;
        if (wide && column + W <= columns) {
            lbr_cuda_pack<T, W> out;
            for (int e = 0; e < W; e++) out.v[e] = v[e];
            *(lbr_cuda_pack<T, W> *)to = out;
        } else
            for (int e = 0; e < W && column + e < columns; e++) to[e] = v[e];
    }
};

template <class T> static int input(lbr_call *c, const lbr_cuda_window &g)
{
    const T *dy = (const T *)c->in[0].data, *w = (const T *)c->in[1].data;
    T *dx = (T *)c->out[0].data;
    const int64_t classes = (int64_t)g.stride[0] * g.stride[1];
    const bool k4 = g.outputs % 4 == 0 && lbr_cuda_packs<T>(dy, 4), n4 = g.inputs % 4 == 0 && lbr_cuda_packs<T>(w, 4) && lbr_cuda_packs<T>(dx, 4);
    // rows of the largest class; k is shared only where there is one class, as the others' sizes differ
    lbr_cuda_job j = {};
    int rc = lbr_cuda_job_of(c, (int64_t)g.B * ((g.H - 1) / g.stride[0] + 1) * ((g.W - 1) / g.stride[1] + 1), g.inputs, (int64_t)g.KH * g.KW * g.outputs, g.groups * classes,
                             classes == 1 ? 64 : 1, &j);
    if (rc) return rc;
    const Inputs<T> y = {g, dx, n4, {}};
    if constexpr (sizeof(T) == 4)
        if (k4 && n4) return lbr_cuda_tile_run<T>(j, Slopes<T, 4>{g, dy, 0, 0, {}}, Across<T, 4>{g, w, 0, {}}, y);
    return lbr_cuda_tile_run<T>(j, Slopes<T, 1>{g, dy, 0, 0, {}}, Across<T, 1>{g, w, 0, {}}, y);
}

int lbr_cuda_conv2d_backward_input(lbr_call *c)
{
    const lbr_conv2d_backward_input_attr *a = (const lbr_conv2d_backward_input_attr *)c->attr;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_cuda_window g = lbr_cuda_window_of(c->out[0].shape, c->in[0].shape, c->in[1].shape[1], c->in[1].shape[2], a->groups, a->stride, a->pad, a->dilation);
    return c->in[0].dtype == LBR_F64 ? input<double>(c, g) : input<float>(c, g);
}

// ---- weights: k runs over the output pixels, of which there are many, so it is shared among blocks wherever the weights alone are too few ----

template <class T, int N> struct Channels {
    enum { V = N, ALONG_K = 0 };
    lbr_cuda_window g;
    const T *dy;
    int rows, depth;
    typedef int Place;
    __device__ void begin(int z) { dy += z * g.outputs; }
    __device__ Place place(int row) const { return row; }
    __device__ const T *find(Place o, int pixel, int last) const { return o < rows && pixel < last ? dy + (int64_t)pixel * g.O + o : NULL; }
};

template <class T, int N> struct Taps {
    enum { V = N, ALONG_K = 0 };
    lbr_cuda_window g;
    const T *x;
    int rows;
    struct Place { const T *channel; int y, x; };
    __device__ void begin(int z) { x += z * g.inputs; }
    __device__ Place place(int row) const
    {
        if (row >= rows) return {NULL, 0, 0};
        const int tap = g.by_tap.over(row), ky = g.by_width.over(tap);
        return {x + (row - tap * g.inputs), ky * g.dilation[0] - g.pad[0], (tap - ky * g.KW) * g.dilation[1] - g.pad[1]};
    }
    __device__ const T *find(const Place &p, int pixel, int last) const
    {
        if (!p.channel || pixel >= last) return NULL;
        const lbr_cuda_pixel q = lbr_cuda_pixel_of(g, pixel);
        const int y = q.y * g.stride[0] + p.y, x = q.x * g.stride[1] + p.x;
        return y >= 0 && y < g.H && x >= 0 && x < g.W ? p.channel + (((int64_t)q.b * g.H + y) * g.W + x) * g.C : NULL;
    }
};

template <class T> struct Plain {
    T *dw;
    int outputs, columns;
    __device__ void begin(int z) { dw += (int64_t)z * outputs * columns; }
    __device__ T start(int) const { return 0; }
    template <int W> __device__ void put(int row, int column, const T *v, int columns) const
    {
        for (int e = 0; e < W && column + e < columns; e++) dw[(int64_t)row * columns + column + e] = v[e];
    }
};

template <class T> static int weight(lbr_call *c, const lbr_cuda_window &g)
{
    const T *dy = (const T *)c->in[0].data, *x = (const T *)c->in[1].data;
    lbr_cuda_job j = {};
    int rc = lbr_cuda_job_of(c, g.outputs, (int64_t)g.KH * g.KW * g.inputs, (int64_t)g.B * g.OH * g.OW, g.groups, 64, &j);
    if (rc) return rc;
    const Plain<T> y = {(T *)c->out[0].data, j.rows, j.columns};
    if constexpr (sizeof(T) == 4)
        if (g.outputs % 4 == 0 && g.inputs % 4 == 0 && lbr_cuda_packs<T>(dy, 4) && lbr_cuda_packs<T>(x, 4))
            return lbr_cuda_tile_run<T>(j, Channels<T, 4>{g, dy, j.rows, j.depth}, Taps<T, 4>{g, x, j.columns}, y);
    return lbr_cuda_tile_run<T>(j, Channels<T, 1>{g, dy, j.rows, j.depth}, Taps<T, 1>{g, x, j.columns}, y);
}

int lbr_cuda_conv2d_backward_weight(lbr_call *c)
{
    const lbr_conv2d_backward_weight_attr *a = (const lbr_conv2d_backward_weight_attr *)c->attr;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_cuda_window g = lbr_cuda_window_of(c->in[1].shape, c->in[0].shape, a->kernel[0], a->kernel[1], a->groups, a->stride, a->pad, a->dilation);
    return c->in[0].dtype == LBR_F64 ? weight<double>(c, g) : weight<float>(c, g);
}
