// depthwise.cu: depthwise convolution on [B,H,W,C], forward and backward. Neighbouring threads take neighbouring channels, V of them each in one load; no shared memory
// in the forward pass: a thread keeps a column of its input in registers, and what threads of neighbouring columns read again is in the first-level cache.
#include "finish.cuh"
#include "window.cuh"

// ---- forward ----

enum { THREADS = 128, STRIP = 4 }; // output rows a thread makes of one column

/* Item: (picture, strip of rows, column, V channels). Taps are added column by column as on the CPU, each in a fused step. KH: rows of the kernel, 0: known at run time only;
 * with KH and the stride SY known (and no dilation) each input number is loaded once for all rows that use it. */
template <class S, int V, int KH, int SY>
static __global__ void __launch_bounds__(THREADS) spread(lbr_cuda_window g, const S *x, const S *w, lbr_cuda_finish<S, typename lbr_cuda_sum<S>::type> f, lbr_cuda_divider by_chunk, lbr_cuda_divider by_strip, int64_t items)
{
    typedef typename lbr_cuda_sum<S>::type T;
    typedef lbr_cuda_pack<S, V> Pack;
    enum { LINES = KH ? (STRIP - 1) * SY + KH : 1 };
    const int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (item >= items) return;
    const int at = (int)item, cell = by_chunk.over(at), channel = (at - cell * (int)by_chunk.d) * V, line = g.by_row.over(cell), ox = cell - line * g.OW;
    const int b = by_strip.over(line), oy0 = (line - b * (int)by_strip.d) * STRIP, y0 = oy0 * g.stride[0] - g.pad[0], x0 = ox * g.stride[1] - g.pad[1];
    const S *image = x + (int64_t)b * g.H * g.W * g.C + channel, *weights = w + channel;
    T sum[STRIP][V];
    LBR_UNROLL for (int e = 0; e < V; e++) {
        const T start = f.start(channel + e);
        LBR_UNROLL for (int r = 0; r < STRIP; r++) sum[r][e] = start;
    }
    for (int kx = 0; kx < g.KW; kx++) {
        const int ix = x0 + kx * g.dilation[1];
        const bool inside = ix >= 0 && ix < g.W;
        Pack lines[LINES];
        if (KH) {
            LBR_UNROLL for (int i = 0; i < LINES; i++) {
                const int iy = y0 + i;
                if (inside && iy >= 0 && iy < g.H) lines[i] = *(const Pack *)(image + ((int64_t)iy * g.W + ix) * g.C);
                else lines[i] = {};
            }
        }
        LBR_UNROLL for (int ky = 0; ky < (KH ? KH : g.KH); ky++) {
            const Pack u = *(const Pack *)(weights + (int64_t)(ky * g.KW + kx) * g.C);
            LBR_UNROLL for (int r = 0; r < STRIP; r++) {
                Pack v = {};
                if (KH) v = lines[KH ? r * SY + ky : 0];
                else {
                    const int iy = y0 + r * g.stride[0] + ky * g.dilation[0];
                    if (inside && iy >= 0 && iy < g.H) v = *(const Pack *)(image + ((int64_t)iy * g.W + ix) * g.C);
                }
                LBR_UNROLL for (int e = 0; e < V; e++) sum[r][e] = lbr_cuda_fma((T)lbr_cuda_load(v.v[e]), (T)lbr_cuda_load(u.v[e]), sum[r][e]);
            }
        }
    }
    LBR_UNROLL for (int r = 0; r < STRIP; r++)
        if (oy0 + r < g.OH) f.template put<V>((((int64_t)b * g.OH + oy0 + r) * g.OW + ox) * g.C + channel, channel, sum[r]);
}

static int blocks_of(const lbr_call *c, int64_t items, lbr_cuda_grid *grid)
{
    if (items > INT32_MAX - THREADS) return lbr_fail(LBR_EUNSUPPORTED, "%s: %lld places", lbr_op_name(c->op), (long long)items);
    *grid = {dim3((unsigned)((items + THREADS - 1) / THREADS)), dim3(THREADS), lbr_cuda_stream(c->device - LBR_CUDA)};
    return 0;
}

template <class S, int V> static int forward_by(lbr_call *c, const lbr_cuda_window &g, const lbr_cuda_finish<S, typename lbr_cuda_sum<S>::type> &f)
{
    const int strips = (g.OH + STRIP - 1) / STRIP;
    const int64_t items = (int64_t)g.B * strips * g.OW * (g.C / V);
    const lbr_cuda_divider by_chunk = lbr_cuda_divide_by(g.C / V), by_strip = lbr_cuda_divide_by(strips);
    const S *x = (const S *)c->in[0].data, *w = (const S *)c->in[1].data;
    lbr_cuda_grid grid = {};
    int rc = blocks_of(c, items, &grid);
    if (rc) return rc;
    if (g.dilation[0] == 1 && g.KH == 3 && g.stride[0] == 1) LBR_LAUNCH((spread<S, V, 3, 1>), grid, g, x, w, f, by_chunk, by_strip, items);
    else if (g.dilation[0] == 1 && g.KH == 3 && g.stride[0] == 2) LBR_LAUNCH((spread<S, V, 3, 2>), grid, g, x, w, f, by_chunk, by_strip, items);
    else if (g.dilation[0] == 1 && g.KH == 5 && g.stride[0] == 1) LBR_LAUNCH((spread<S, V, 5, 1>), grid, g, x, w, f, by_chunk, by_strip, items);
    else if (g.dilation[0] == 1 && g.KH == 5 && g.stride[0] == 2) LBR_LAUNCH((spread<S, V, 5, 2>), grid, g, x, w, f, by_chunk, by_strip, items);
    else LBR_LAUNCH((spread<S, V, 0, 1>), grid, g, x, w, f, by_chunk, by_strip, items);
    return 0;
}

template <class S> static int forward(lbr_call *c, const lbr_cuda_window &g, int act)
{
    enum { V = 16 / sizeof(S) };
    const lbr_cuda_finish<S, typename lbr_cuda_sum<S>::type> f = lbr_cuda_finish_of<S, typename lbr_cuda_sum<S>::type>(c, act);
    const bool wide = g.C % V == 0 && lbr_cuda_packs<S>(c->in[0].data, V) && lbr_cuda_packs<S>(c->in[1].data, V) && lbr_cuda_packs<S>(f.y, V) && lbr_cuda_packs<S>(f.residual, V);
    return wide ? forward_by<S, V>(c, g, f) : forward_by<S, 1>(c, g, f);
}

int lbr_cuda_depthwise(lbr_call *c)
{
    const lbr_depthwise_attr *a = (const lbr_depthwise_attr *)c->attr;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_cuda_window g = lbr_cuda_window_of(c->in[0].shape, c->out[0].shape, c->in[1].shape[0], c->in[1].shape[1], c->in[0].shape[3], a->stride, a->pad, a->dilation);
    switch (c->in[0].dtype) {
    case LBR_F64: return forward<double>(c, g, a->act);
    case LBR_F16: return forward<__half>(c, g, a->act);
    case LBR_BF16: return forward<__nv_bfloat16>(c, g, a->act);
    default: return forward<float>(c, g, a->act);
    }
}

// ---- gradient of the input: an input place collects from the outputs that read it ----

template <class T, int V>
static __global__ void __launch_bounds__(THREADS) gather(lbr_cuda_window g, const T *dy, const T *w, T *dx, lbr_cuda_divider by_chunk, lbr_cuda_divider by_column, lbr_cuda_divider by_line, int64_t items)
{
    typedef lbr_cuda_pack<T, V> Pack;
    const int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (item >= items) return;
    const int at = (int)item, cell = by_chunk.over(at), channel = (at - cell * (int)by_chunk.d) * V, line = by_column.over(cell), ix = cell - line * g.W, b = by_line.over(line), iy = line - b * g.H;
    const lbr_cuda_taps down = lbr_cuda_taps_of(iy, g.KH, g.stride[0], g.pad[0], g.dilation[0]), across = lbr_cuda_taps_of(ix, g.KW, g.stride[1], g.pad[1], g.dilation[1]);
    const T *image = dy + (int64_t)b * g.OH * g.OW * g.C + channel;
    Pack sum = {};
    for (int ky = down.first; ky < g.KH; ky += down.step) {
        const int y = iy + g.pad[0] - ky * g.dilation[0], oy = y / g.stride[0];
        if (y < 0 || oy >= g.OH) continue;
        for (int kx = across.first; kx < g.KW; kx += across.step) {
            const int x = ix + g.pad[1] - kx * g.dilation[1], ox = x / g.stride[1];
            if (x < 0 || ox >= g.OW) continue;
            const Pack u = *(const Pack *)(w + (int64_t)(ky * g.KW + kx) * g.C + channel), v = *(const Pack *)(image + ((int64_t)oy * g.OW + ox) * g.C);
            LBR_UNROLL for (int e = 0; e < V; e++) sum.v[e] = lbr_cuda_fma(v.v[e], u.v[e], sum.v[e]);
        }
    }
    *(Pack *)(dx + (int64_t)cell * g.C + channel) = sum;
}

template <class T, int V> static int input_by(lbr_call *c, const lbr_cuda_window &g)
{
    const int64_t items = (int64_t)g.B * g.H * g.W * (g.C / V);
    lbr_cuda_grid grid = {};
    int rc = blocks_of(c, items, &grid);
    if (rc) return rc;
    LBR_LAUNCH((gather<T, V>), grid, g, (const T *)c->in[0].data, (const T *)c->in[1].data, (T *)c->out[0].data, lbr_cuda_divide_by(g.C / V), lbr_cuda_divide_by(g.W), lbr_cuda_divide_by(g.H), items);
    return 0;
}

template <class T> static int input(lbr_call *c, const lbr_cuda_window &g)
{
    enum { V = 16 / sizeof(T) };
    const bool wide = g.C % V == 0 && lbr_cuda_packs<T>(c->in[0].data, V) && lbr_cuda_packs<T>(c->in[1].data, V) && lbr_cuda_packs<T>(c->out[0].data, V);
    return wide ? input_by<T, V>(c, g) : input_by<T, 1>(c, g);
}

int lbr_cuda_depthwise_backward_input(lbr_call *c)
{
    const lbr_depthwise_backward_input_attr *a = (const lbr_depthwise_backward_input_attr *)c->attr;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_cuda_window g = lbr_cuda_window_of(c->out[0].shape, c->in[0].shape, c->in[1].shape[0], c->in[1].shape[1], c->in[0].shape[3], a->stride, a->pad, a->dilation);
    return c->in[0].dtype == LBR_F64 ? input<double>(c, g) : input<float>(c, g);
}

// ---- gradient of the weights: blocks sum parts of the pixels, then the parts are added up ----

enum { WIDTH = 32, DEPTH = 8, TAPS = 4 }; // channels and pixels side by side in a block; taps of a row at a time
template <class T> struct Lanes { T sum[DEPTH][TAPS][WIDTH]; };

/* Block: WIDTH channels, one row ky of the kernel, TAPS of its taps, one part of the output pixels, of which thread (x, y) takes every DEPTH-th. */
template <class T> static __global__ void __launch_bounds__(WIDTH * DEPTH) collect(lbr_cuda_window g, const T *dy, const T *x, T *partial, int64_t pixels, int64_t each)
{
    LBR_SHARED(Lanes<T>, s);
    const int lane = threadIdx.x, deep = threadIdx.y, channel = blockIdx.x * WIDTH + lane, groups = (g.KW + TAPS - 1) / TAPS, ky = blockIdx.y / groups, kx0 = (blockIdx.y - ky * groups) * TAPS;
    const int64_t first = blockIdx.z * each, last = first + each < pixels ? first + each : pixels;
    T sum[TAPS] = {};
    if (channel < g.C)
        for (int64_t i = first + deep; i < last; i += DEPTH) {
            const lbr_cuda_pixel p = lbr_cuda_pixel_of(g, (int)i);
            const int iy = p.y * g.stride[0] - g.pad[0] + ky * g.dilation[0];
            if (iy < 0 || iy >= g.H) continue;
            const T slope = dy[i * g.C + channel], *row = x + ((int64_t)p.b * g.H + iy) * g.W * g.C + channel;
            LBR_UNROLL for (int t = 0; t < TAPS; t++) {
                const int ix = p.x * g.stride[1] - g.pad[1] + (kx0 + t) * g.dilation[1];
                if (kx0 + t < g.KW && ix >= 0 && ix < g.W) sum[t] = lbr_cuda_fma(slope, row[(int64_t)ix * g.C], sum[t]);
            }
        }
    LBR_UNROLL for (int t = 0; t < TAPS; t++) s.sum[deep][t][lane] = sum[t];
    __syncthreads();
    if (deep >= TAPS || kx0 + deep >= g.KW || channel >= g.C) return; // row `deep` of threads adds up tap kx0 + deep
    T all = 0;
    for (int d = 0; d < DEPTH; d++) all += s.sum[d][deep][lane];
    partial[((int64_t)blockIdx.z * g.KH * g.KW + ky * g.KW + kx0 + deep) * g.C + channel] = all;
}

template <class T> static __global__ void total(const T *partial, T *dw, int64_t n, int parts)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        T sum = 0;
        for (int p = 0; p < parts; p++) sum += partial[p * n + i];
        dw[i] = sum;
    }
}

template <class T> static int weight(lbr_call *c, const lbr_cuda_window &g)
{
    const int device = c->device - LBR_CUDA;
    const int64_t pixels = (int64_t)g.B * g.OH * g.OW, n = (int64_t)g.KH * g.KW * g.C, rows = (int64_t)g.KH * ((g.KW + TAPS - 1) / TAPS), across = (g.C + WIDTH - 1) / WIDTH;
    if (pixels > INT32_MAX || rows > 65535) return lbr_fail(LBR_EUNSUPPORTED, "%s: %lld pixels, %d x %d taps", lbr_op_name(c->op), (long long)pixels, g.KH, g.KW);
    int64_t parts = (int64_t)lbr_cuda_processors(device) * 4 / (rows * across), most = pixels / (DEPTH * 16); // at least 16 pixels a thread
    parts = parts < most ? parts : most;
    parts = parts < 1 ? 1 : parts > 256 ? 256 : parts;
    T *dw = (T *)c->out[0].data, *partial = parts == 1 ? dw : (T *)lbr_cuda_workspace(c, (int64_t)sizeof(T) * parts * n);
    if (!partial) return LBR_ENOMEM;
    lbr_cuda_grid grid = {dim3((unsigned)across, (unsigned)rows, (unsigned)parts), dim3(WIDTH, DEPTH), lbr_cuda_stream(device)};
    LBR_LAUNCH(collect<T>, grid, g, (const T *)c->in[0].data, (const T *)c->in[1].data, partial, pixels, (pixels + parts - 1) / parts);
    if (parts == 1) return 0;
    lbr_cuda_grid over = {dim3((unsigned)((n + 255) / 256)), dim3(256), lbr_cuda_stream(device)};
    LBR_LAUNCH(total<T>, over, (const T *)partial, dw, n, (int)parts);
    return 0;
}

int lbr_cuda_depthwise_backward_weight(lbr_call *c)
{
    const lbr_depthwise_backward_weight_attr *a = (const lbr_depthwise_backward_weight_attr *)c->attr;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_cuda_window g = lbr_cuda_window_of(c->in[1].shape, c->in[0].shape, a->kernel[0], a->kernel[1], c->in[1].shape[3], a->stride, a->pad, a->dilation);
    return c->in[0].dtype == LBR_F64 ? weight<double>(c, g) : weight<float>(c, g);
}
