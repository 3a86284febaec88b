// image_ops.cu: pooling, bilinear resizing and depth to space on [B,H,W,C], forward and backward. Gradients are collected by the places that receive them, in the
// order in which the CPU adds them, so nothing is added by atomics. Rounded step by step as csrc/cpu/image_ops.c, never contracted. Convolutions are elsewhere.
#include "tile.cuh"

enum { THREADS = 128 };

static __device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
static __device__ __forceinline__ double plus(double a, double b) { return __dadd_rn(a, b); }
static __device__ __forceinline__ float minus(float a, float b) { return __fsub_rn(a, b); }
static __device__ __forceinline__ double minus(double a, double b) { return __dsub_rn(a, b); }
static __device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
static __device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }

// CASE(element type) by the dtype of a call.
#define BY_DTYPE(dtype, CASE)                \
    switch (dtype) {                         \
    case LBR_F64: return CASE(double);       \
    case LBR_F16: return CASE(__half);       \
    case LBR_BF16: return CASE(__nv_bfloat16); \
    default: return CASE(float);             \
    }

// One thread an item: (picture, row, column, V channels) of a picture [B,H,W,C].
struct Items {
    int H, W, C;
    lbr_cuda_divider by_chunk, by_column, by_line;
    int64_t n;
};
struct Item {
    int b, y, x, channel;
};
static Items items_of(const lbr_tensor *t, int V)
{
    const int32_t *s = t->shape;
    return {s[1], s[2], s[3], lbr_cuda_divide_by(s[3] / V), lbr_cuda_divide_by(s[2]), lbr_cuda_divide_by(s[1]), (int64_t)s[0] * s[1] * s[2] * (s[3] / V)};
}
static __device__ __forceinline__ bool item_of(const Items &all, int V, Item *it)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= all.n) return false;
    const int at = (int)i, cell = all.by_chunk.over(at), line = all.by_column.over(cell), b = all.by_line.over(line);
    *it = {b, line - b * all.H, cell - line * all.W, (at - cell * (int)all.by_chunk.d) * V};
    return true;
}
static int grid_of(const lbr_call *c, const Items &all, lbr_cuda_grid *grid)
{
    if (all.n > INT32_MAX - THREADS) return lbr_fail(LBR_EUNSUPPORTED, "%s: %lld places", lbr_op_name(c->op), (long long)all.n);
    *grid = {dim3((unsigned)((all.n + THREADS - 1) / THREADS)), dim3(THREADS), lbr_cuda_stream(c->device - LBR_CUDA)};
    return 0;
}
// May channels be moved 16 bytes at a time in all of these?
template <class S> static bool wide(int channels, const void *a, const void *b, const void *c)
{
    enum { V = 16 / sizeof(S) };
    return channels % V == 0 && lbr_cuda_packs<S>(a, V) && lbr_cuda_packs<S>(b, V) && lbr_cuda_packs<S>(c, V);
}

// ---- pooling ----

struct Pool {
    int H, W, C, OH, OW, kernel[2], stride[2], pad[2];
};

// The part of a window that lies inside, along one dim: from, to.
static __device__ __forceinline__ int2 window(const Pool &p, int dim, int o, int size)
{
    const int from = o * p.stride[dim] - p.pad[dim], to = from + p.kernel[dim];
    return make_int2(from < 0 ? 0 : from, to < size ? to : size);
}

template <class S, int V, bool MEAN> static __global__ void __launch_bounds__(THREADS) pool(Pool p, Items all, const S *x, S *y)
{
    typedef typename lbr_cuda_sum<S>::type T;
    typedef lbr_cuda_pack<T, V> Pack;
    Item it;
    if (!item_of(all, V, &it)) return;
    const int2 down = window(p, 0, it.y, p.H), across = window(p, 1, it.x, p.W);
    const S *image = x + (int64_t)it.b * p.H * p.W * p.C + it.channel;
    Pack best = {};
    if (!MEAN) best = lbr_cuda_widen<V>(image + ((int64_t)down.x * p.W + across.x) * p.C);
    for (int i = down.x; i < down.y; i++)
        for (int j = across.x; j < across.y; j++) {
            const Pack v = lbr_cuda_widen<V>(image + ((int64_t)i * p.W + j) * p.C);
            LBR_UNROLL for (int e = 0; e < V; e++) best.v[e] = MEAN ? plus(best.v[e], v.v[e]) : v.v[e] > best.v[e] || v.v[e] != v.v[e] ? v.v[e] : best.v[e];
        }
    if (MEAN) {
        const T scale = (T)1 / (T)((int64_t)(down.y - down.x) * (across.y - across.x));
        LBR_UNROLL for (int e = 0; e < V; e++) best.v[e] = times(best.v[e], scale);
    }
    lbr_cuda_narrow(y + (((int64_t)it.b * p.OH + it.y) * p.OW + it.x) * p.C + it.channel, best);
}

/* An input place collects from the windows that hold it. Of a maximum it gets the gradient when it is the one that won: the first of equals, the last NaN; each window
 * is looked through again, which for kernels of two or three costs less than keeping the winners. */
template <class S, int V, bool MEAN> static __global__ void __launch_bounds__(THREADS) pool_back(Pool p, Items all, const S *dy, const S *x, S *dx)
{
    typedef typename lbr_cuda_sum<S>::type T;
    typedef lbr_cuda_pack<T, V> Pack;
    Item it;
    if (!item_of(all, V, &it)) return;
    const S *image = x + (int64_t)it.b * p.H * p.W * p.C + it.channel, *slopes = dy + (int64_t)it.b * p.OH * p.OW * p.C + it.channel;
    Pack sum = {};
    const int first_y = it.y + p.pad[0] - p.kernel[0] + 1, first_x = it.x + p.pad[1] - p.kernel[1] + 1; // place of the first window's first element
    const int oy0 = first_y <= 0 ? 0 : (first_y - 1) / p.stride[0] + 1, ox0 = first_x <= 0 ? 0 : (first_x - 1) / p.stride[1] + 1;
    const int oy1 = min(p.OH - 1, (it.y + p.pad[0]) / p.stride[0]), ox1 = min(p.OW - 1, (it.x + p.pad[1]) / p.stride[1]), mine = it.y * p.W + it.x;
    for (int oy = oy0; oy <= oy1; oy++)
        for (int ox = ox0; ox <= ox1; ox++) {
            const int2 down = window(p, 0, oy, p.H), across = window(p, 1, ox, p.W);
            const Pack slope = lbr_cuda_widen<V>(slopes + ((int64_t)oy * p.OW + ox) * p.C);
            if (MEAN) {
                const T scale = (T)1 / (T)((int64_t)(down.y - down.x) * (across.y - across.x));
                LBR_UNROLL for (int e = 0; e < V; e++) sum.v[e] = plus(sum.v[e], times(slope.v[e], scale));
                continue;
            }
            int won[V];
            Pack best = lbr_cuda_widen<V>(image + ((int64_t)down.x * p.W + across.x) * p.C);
            LBR_UNROLL for (int e = 0; e < V; e++) won[e] = down.x * p.W + across.x;
            for (int i = down.x; i < down.y; i++)
                for (int j = across.x; j < across.y; j++) {
                    const Pack v = lbr_cuda_widen<V>(image + ((int64_t)i * p.W + j) * p.C);
                    LBR_UNROLL for (int e = 0; e < V; e++)
                        if (v.v[e] > best.v[e] || v.v[e] != v.v[e]) best.v[e] = v.v[e], won[e] = i * p.W + j;
                }
            LBR_UNROLL for (int e = 0; e < V; e++)
                if (won[e] == mine) sum.v[e] = plus(sum.v[e], slope.v[e]);
        }
    lbr_cuda_narrow(dx + (((int64_t)it.b * p.H + it.y) * p.W + it.x) * p.C + it.channel, sum);
}

static Pool pool_of(const lbr_tensor *x, const lbr_tensor *y, const int32_t *kernel, const int32_t *stride, const int32_t *pad)
{
    return {x->shape[1], x->shape[2], x->shape[3], y->shape[1], y->shape[2], {kernel[0], kernel[1]}, {stride[0], stride[1]}, {pad[0], pad[2]}};
}

template <class S, int V> static int pool_by(lbr_call *c, const Pool &p, bool mean, bool back)
{
    const Items all = items_of(&c->out[0], V);
    const S *first = (const S *)c->in[0].data, *second = (const S *)c->in[1].data;
    S *out = (S *)c->out[0].data;
    lbr_cuda_grid grid = {};
    int rc = grid_of(c, all, &grid);
    if (rc) return rc;
    if (back && mean) LBR_LAUNCH((pool_back<S, V, true>), grid, p, all, first, second, out);
    else if (back) LBR_LAUNCH((pool_back<S, V, false>), grid, p, all, first, second, out);
    else if (mean) LBR_LAUNCH((pool<S, V, true>), grid, p, all, first, out);
    else LBR_LAUNCH((pool<S, V, false>), grid, p, all, first, out);
    return 0;
}

template <class S> static int pool_run(lbr_call *c, const Pool &p, bool mean, bool back)
{
    return wide<S>(p.C, c->in[0].data, back ? c->in[1].data : NULL, c->out[0].data) ? pool_by<S, 16 / sizeof(S)>(c, p, mean, back) : pool_by<S, 1>(c, p, mean, back);
}

static int pools(lbr_call *c, const int32_t *kernel, const int32_t *stride, const int32_t *pad, bool mean, bool back)
{
    if (c->out[0].dtype == LBR_U8) return lbr_fail(LBR_EUNSUPPORTED, "%s: %s on a CUDA device, want floating point", lbr_op_name(c->op), lbr_describe(&c->in[0]));
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const Pool p = back ? pool_of(&c->in[1], &c->in[0], kernel, stride, pad) : pool_of(&c->in[0], &c->out[0], kernel, stride, pad);
#define CASE(S) pool_run<S>(c, p, mean, back)
    BY_DTYPE(c->out[0].dtype, CASE)
#undef CASE
}

#define POOL(name, mean, back)                                                  \
    int lbr_cuda_##name(lbr_call *c)                                            \
    {                                                                           \
        const lbr_##name##_attr *a = (const lbr_##name##_attr *)c->attr;        \
        return pools(c, a->kernel, a->stride, a->pad, mean, back);              \
    }
POOL(max_pool2d, false, false)
POOL(avg_pool2d, true, false)
POOL(max_pool2d_backward, false, true)
POOL(avg_pool2d_backward, true, true)

// ---- bilinear resize; coordinates as TFLite's reference kernel, worked out in f64 ----

struct Resize {
    int H, W, C, OH, OW, align, half; // H, W: small picture
};
struct Between { // two neighbours and the weight of the second
    int low, high;
    double weight;
};

static __host__ __device__ __forceinline__ double scale_of(int in, int out, int align) { return align && out > 1 ? (double)(in - 1) / (double)(out - 1) : (double)in / (double)out; }

static __device__ Between between(int i, int in, int out, int align, int half)
{
    const double scale = scale_of(in, out, align), at = half ? minus(times((double)i + 0.5, scale), 0.5) : times((double)i, scale), f = floor(at);
    const int low = f < 0 ? 0 : (int)f, high = f + 1 < 0 ? 0 : (int)f + 1;
    return {low > in - 1 ? in - 1 : low, high > in - 1 ? in - 1 : high, minus(at, f)};
}

enum { PIXELS = 32 }; // of an output row in a block
struct Columns { Between row, column[PIXELS]; };

// Block: PIXELS pixels of one output row, whose places and weights are worked out once for all channels.
template <class S, int V> static __global__ void __launch_bounds__(THREADS) resize(Resize r, const S *x, S *y, int chunks, int64_t line0)
{
    typedef typename lbr_cuda_sum<S>::type T;
    typedef lbr_cuda_pack<T, V> Pack;
    LBR_SHARED(Columns, s);
    const int64_t line = line0 + blockIdx.y, b = line / r.OH;
    const int oy = (int)(line - b * r.OH), first = blockIdx.x * PIXELS, n = r.OW - first < PIXELS ? r.OW - first : PIXELS;
    if ((int)threadIdx.x < n) s.column[threadIdx.x] = between(first + threadIdx.x, r.W, r.OW, r.align, r.half);
    if (threadIdx.x == PIXELS) s.row = between(oy, r.H, r.OH, r.align, r.half);
    __syncthreads();
    const Between v = s.row;
    const T wy = (T)v.weight;
    const S *upper = x + (b * r.H + v.low) * r.W * r.C, *lower = x + (b * r.H + v.high) * r.W * r.C;
    for (int i = threadIdx.x; i < n * chunks; i += THREADS) {
        const int pixel = i / chunks, channel = (i - pixel * chunks) * V;
        const Between h = s.column[pixel];
        const T wx = (T)h.weight;
        const Pack p = lbr_cuda_widen<V>(upper + (int64_t)h.low * r.C + channel), q = lbr_cuda_widen<V>(upper + (int64_t)h.high * r.C + channel);
        const Pack u = lbr_cuda_widen<V>(lower + (int64_t)h.low * r.C + channel), w = lbr_cuda_widen<V>(lower + (int64_t)h.high * r.C + channel);
        Pack out;
        LBR_UNROLL for (int e = 0; e < V; e++) {
            const T above = plus(p.v[e], times(minus(q.v[e], p.v[e]), wx)), below = plus(u.v[e], times(minus(w.v[e], u.v[e]), wx));
            out.v[e] = plus(above, times(minus(below, above), wy));
        }
        lbr_cuda_narrow(y + (line * r.OW + first + pixel) * r.C + channel, out);
    }
}

// Large places that may touch small place i, with one to spare on either side; the borders collect what was clamped.
static __device__ int2 touching(int i, int in, int out, int align, int half)
{
    const double scale = scale_of(in, out, align), shift = half ? 0.5 : 0;
    if (scale <= 0) return make_int2(0, out - 1);
    const double from = floor((i - 1 + shift) / scale - shift) - 1, to = ceil((i + 1 + shift) / scale - shift) + 1;
    return make_int2(i == 0 || from < 0 ? 0 : from > out ? out : (int)from, i == in - 1 || to > out - 1 ? out - 1 : to < -1 ? -1 : (int)to);
}

template <class S, int V> static __global__ void __launch_bounds__(THREADS) resize_back(Resize r, Items all, const S *dy, S *dx)
{
    typedef typename lbr_cuda_sum<S>::type T;
    typedef lbr_cuda_pack<T, V> Pack;
    Item it;
    if (!item_of(all, V, &it)) return;
    const int2 down = touching(it.y, r.H, r.OH, r.align, r.half), across = touching(it.x, r.W, r.OW, r.align, r.half);
    Pack sum = {};
    for (int i = down.x; i <= down.y; i++) {
        const Between v = between(i, r.H, r.OH, r.align, r.half);
        if (v.low != it.y && v.high != it.y) continue;
        for (int j = across.x; j <= across.y; j++) {
            const Between h = between(j, r.W, r.OW, r.align, r.half);
            if (h.low != it.x && h.high != it.x) continue;
            const double wy = v.weight, wx = h.weight;
            const T weight[4] = {(T)times(minus(1.0, wy), minus(1.0, wx)), (T)times(minus(1.0, wy), wx), (T)times(wy, minus(1.0, wx)), (T)times(wy, wx)};
            const bool mine[4] = {v.low == it.y && h.low == it.x, v.low == it.y && h.high == it.x, v.high == it.y && h.low == it.x, v.high == it.y && h.high == it.x};
            const Pack slope = lbr_cuda_widen<V>(dy + (((int64_t)it.b * r.OH + i) * r.OW + j) * r.C + it.channel);
            LBR_UNROLL for (int corner = 0; corner < 4; corner++)
                if (mine[corner]) {
                    LBR_UNROLL for (int e = 0; e < V; e++) sum.v[e] = plus(sum.v[e], times(weight[corner], slope.v[e]));
                }
        }
    }
    lbr_cuda_narrow(dx + (((int64_t)it.b * r.H + it.y) * r.W + it.x) * r.C + it.channel, sum);
}

template <class S, int V> static int resize_by(lbr_call *c, const Resize &r, bool back)
{
    const S *in = (const S *)c->in[0].data;
    S *out = (S *)c->out[0].data;
    if (back) {
        const Items all = items_of(&c->out[0], V);
        lbr_cuda_grid grid = {};
        int rc = grid_of(c, all, &grid);
        if (!rc) LBR_LAUNCH((resize_back<S, V>), grid, r, all, in, out);
        return rc;
    }
    const int64_t lines = (int64_t)c->out[0].shape[0] * r.OH;
    for (int64_t line = 0; line < lines; line += 32768) { // the grid's y is limited
        const int64_t some = lines - line < 32768 ? lines - line : 32768;
        lbr_cuda_grid grid = {dim3((unsigned)((r.OW + PIXELS - 1) / PIXELS), (unsigned)some), dim3(THREADS), lbr_cuda_stream(c->device - LBR_CUDA)};
        LBR_LAUNCH((resize<S, V>), grid, r, in, out, r.C / V, line);
    }
    return 0;
}

template <class S> static int resize_run(lbr_call *c, const Resize &r, bool back)
{
    return wide<S>(r.C, c->in[0].data, c->out[0].data, NULL) ? resize_by<S, 16 / sizeof(S)>(c, r, back) : resize_by<S, 1>(c, r, back);
}

static int resizes(lbr_call *c, int align, int half, bool back)
{
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_tensor *small = back ? &c->out[0] : &c->in[0], *large = back ? &c->in[0] : &c->out[0];
    const Resize r = {small->shape[1], small->shape[2], small->shape[3], large->shape[1], large->shape[2], align, half};
#define CASE(S) resize_run<S>(c, r, back)
    BY_DTYPE(c->out[0].dtype, CASE)
#undef CASE
}

int lbr_cuda_resize_bilinear(lbr_call *c)
{
    const lbr_resize_bilinear_attr *a = (const lbr_resize_bilinear_attr *)c->attr;
    return resizes(c, a->align_corners, a->half_pixel, false);
}

int lbr_cuda_resize_bilinear_backward(lbr_call *c)
{
    const lbr_resize_bilinear_backward_attr *a = (const lbr_resize_bilinear_backward_attr *)c->attr;
    return resizes(c, a->align_corners, a->half_pixel, true);
}

// ---- depth to space: runs of `run` words, from [lines][W][r] to [lines][r][W] ----

template <class U> static __global__ void shuffle(const U *x, U *y, int W, int r, int run, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        int64_t rest = i / run;
        const int in = (int)(i - rest * run), w = (int)(rest % W);
        rest /= W;
        const int k = (int)(rest % r);
        y[i] = x[((rest / r * W + w) * r + k) * run + in];
    }
}

int lbr_cuda_depth_to_space(lbr_call *c)
{
    const int r = ((const lbr_depth_to_space_attr *)c->attr)->block;
    const lbr_tensor *x = &c->in[0];
    const int64_t bytes = lbr_tensor_numel(x) * lbr_dtype_size(x->dtype), run = (int64_t)c->out[0].shape[3] * r * lbr_dtype_size(x->dtype);
    if (!bytes) return 0;
    // the widest words that a run and both pictures are made of
    int64_t word = 16;
    while (run % word || (uintptr_t)x->data % (size_t)word || (uintptr_t)c->out[0].data % (size_t)word) word /= 2;
    const int64_t n = bytes / word, blocks = (n + 255) / 256;
    lbr_cuda_grid grid = {dim3((unsigned)(blocks < 65536 ? blocks : 65536)), dim3(256), lbr_cuda_stream(c->device - LBR_CUDA)};
#define CASE(size, U) case size: LBR_LAUNCH(shuffle<U>, grid, (const U *)x->data, (U *)c->out[0].data, x->shape[2], r, (int)(run / word), n); break;
    switch (word) { CASE(16, uint4) CASE(8, uint64_t) CASE(4, uint32_t) CASE(2, uint16_t) CASE(1, uint8_t) }
#undef CASE
    return 0;
}
