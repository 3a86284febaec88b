// loss.cu: masked mean losses, cross entropy, gather and their gradients; everything stays on the device. Sums in double, in a fixed order.
#include "reduce.cuh"

struct Room { double value[LBR_CUDA_WARPS]; };

// y = sum / count, weight = 1 / count; 0 where nothing counts.
template <class T> static __device__ __forceinline__ void mean(double sum, double count, T *y, double *weight)
{
    double w = count > 0 ? 1 / count : 0;
    *y = (T)(sum * w);
    if (weight) *weight = w;
}

// Every thread of the grid brings a sum and a count. One block makes the mean of them, several leave their shares for `mean_end`.
template <class T> static __device__ __forceinline__ void mean_of(Room &s, double sum, double count, double *partial, T *y, double *weight)
{
    sum = lbr_cuda_combine(s.value, sum, lbr_cuda_add());
    count = lbr_cuda_combine(s.value, count, lbr_cuda_add());
    if (threadIdx.x) return;
    if (gridDim.x > 1) partial[2 * blockIdx.x] = sum, partial[2 * blockIdx.x + 1] = count;
    else mean(sum, count, y, weight);
}

// One warp.
template <class T> static __global__ void mean_end(int parts, const double *partial, T *y, double *weight)
{
    double sum = 0, count = 0;
    for (int i = threadIdx.x; i < parts; i += 32) sum += partial[2 * i], count += partial[2 * i + 1];
    sum = lbr_cuda_combine_warp(sum, lbr_cuda_add());
    count = lbr_cuda_combine_warp(count, lbr_cuda_add());
    if (threadIdx.x == 0) mean(sum, count, y, weight);
}

enum { MOST_PARTS = 256 };

// Blocks for n groups of LANES threads whose shares one warp can sum up, and room for these.
static lbr_cuda_grid parts_of(const lbr_call *c, int64_t n, int lanes)
{
    lbr_cuda_grid g = lbr_cuda_grid_of(c, n, lanes);
    if (g.blocks.x > MOST_PARTS) g.blocks.x = MOST_PARTS;
    return g;
}
static lbr_cuda_grid warp_of(const lbr_cuda_grid &g) { return {dim3(1), dim3(32), g.stream}; }

// ---- squared, absolute and Huber loss ----

static __device__ double value_of(int kind, double delta, double d)
{
    double a = fabs(d);
    if (kind == 1) return a;
    if (kind == 2) return a <= delta ? .5 * d * d : delta * (a - .5 * delta);
    return d * d;
}

static __device__ double slope_of(int kind, double delta, double d)
{
    if (kind == 1) return (d > 0) - (d < 0);
    if (kind == 2) return d > delta ? delta : d < -delta ? -delta : d;
    return 2 * d;
}

#define LBR_EACH4(i, n) for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < (n); i += (int64_t)gridDim.x * blockDim.x * 4)

template <class T> static __device__ __forceinline__ lbr_cuda_four<T> mask4(const T *mask, int64_t i, int64_t n)
{
    if (mask) return lbr_cuda_read4(mask + i, n - i);
    return {{(T)1, (T)1, (T)1, (T)1}};
}

template <class T>
static __global__ void loss_mean(int kind, double delta, int64_t n, const T *x, const T *target, const T *mask, double *partial, T *y, double *weight)
{
    LBR_SHARED(Room, s);
    double sum = 0, count = 0;
    LBR_EACH4(i, n) {
        lbr_cuda_four<T> u = lbr_cuda_read4(x + i, n - i), t = lbr_cuda_read4(target + i, n - i), m = mask4(mask, i, n);
        for (int k = 0; k < 4; k++)
            if (i + k < n && m.v[k] != 0) sum += value_of(kind, delta, (double)u.v[k] - (double)t.v[k]), count += 1;
    }
    mean_of(s, sum, count, partial, y, weight);
}

template <class T>
static __global__ void loss_slope(int kind, double delta, int64_t n, const T *dy, const T *x, const T *target, const T *mask, const double *weight, T *dx)
{
    const double scale = (double)*dy * *weight;
    LBR_EACH4(i, n) {
        lbr_cuda_four<T> u = lbr_cuda_read4(x + i, n - i), t = lbr_cuda_read4(target + i, n - i), m = mask4(mask, i, n);
        for (int k = 0; k < 4; k++) u.v[k] = m.v[k] != 0 ? (T)(scale * slope_of(kind, delta, (double)u.v[k] - (double)t.v[k])) : (T)0;
        lbr_cuda_write4(dx + i, n - i, u);
    }
}

template <class T> static int loss(lbr_call *c)
{
    const lbr_loss_attr *a = (const lbr_loss_attr *)c->attr;
    int64_t n = lbr_tensor_numel(&c->in[0]);
    lbr_cuda_grid g = parts_of(c, (n + 7) / 8, 1), end = warp_of(g); // at least two times four elements a thread
    double *partial = (double *)lbr_cuda_workspace(c, MOST_PARTS * 2 * sizeof(double)), *weight = (double *)c->out[1].data;
    T *y = (T *)c->out[0].data;
    if (!partial) return LBR_ENOMEM;
    LBR_LAUNCH(loss_mean<T>, g, a->kind, a->delta, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data, partial, y, weight);
    if (g.blocks.x > 1) LBR_LAUNCH(mean_end<T>, end, (int)g.blocks.x, (const double *)partial, y, weight);
    return 0;
}

template <class T> static int loss_backward(lbr_call *c)
{
    const lbr_loss_backward_attr *a = (const lbr_loss_backward_attr *)c->attr;
    int64_t n = lbr_tensor_numel(&c->in[1]);
    lbr_cuda_grid g = lbr_cuda_grid_of(c, (n + 3) / 4, 1);
    if (!n) return 0;
    LBR_LAUNCH(loss_slope<T>, g, a->kind, a->delta, n, (const T *)c->in[0].data, (const T *)c->in[1].data, (const T *)c->in[2].data, (const T *)c->in[3].data,
               (const double *)c->in[4].data, (T *)c->out[0].data);
    return 0;
}

int lbr_cuda_loss(lbr_call *c) { return c->in[0].dtype == LBR_F64 ? loss<double>(c) : loss<float>(c); }
int lbr_cuda_loss_backward(lbr_call *c) { return c->in[1].dtype == LBR_F64 ? loss_backward<double>(c) : loss_backward<float>(c); }

// ---- cross entropy: a warp a row ----

struct Largest { // NaN survives
    template <class A> __device__ A operator()(A a, A b) const { return b > a || b != b ? b : a; }
};

template <class T> static __global__ void entropy(lbr_cuda_fault *fault, int64_t rows, int n, const T *xs, const int32_t *target, T *ps, double *partial, T *y)
{
    LBR_SHARED(Room, s);
    double sum = 0, count = 0;
    for (int64_t r = lbr_cuda_group<32>(); r < rows; r += lbr_cuda_groups<32>()) {
        const T *x = xs + r * n;
        const int wanted = target[r];
        T top = (T)-INFINITY;
        lbr_cuda_each<32>(x, n, [&](int64_t, T e) { top = Largest()(top, e); });
        top = lbr_cuda_combine_warp(top, Largest());
        double total = 0;
        lbr_cuda_each<32>(x, n, [&](int64_t, T e) { total += (double)exp(e - top); });
        total = lbr_cuda_combine_warp(total, lbr_cuda_add());
        const T scale = (T)(1 / total);
        for (int i = 4 * lbr_cuda_lane<32>(); i < n; i += 4 * 32) {
            lbr_cuda_four<T> v = lbr_cuda_read4(x + i, n - i);
            for (int k = 0; k < 4; k++) v.v[k] = exp(v.v[k] - top) * scale;
            lbr_cuda_write4(ps + r * n + i, n - i, v);
        }
        if (lbr_cuda_lane<32>() || wanted < 0) continue;
        if (wanted >= n) lbr_cuda_blame(fault, LBR_OP_cross_entropy, wanted, r, n);
        else sum -= (double)x[wanted] - (double)top - log(total), count += 1;
    }
    mean_of(s, sum, count, partial, y, (double *)nullptr);
}

// Every block counts the rows itself: a launch less, and the classes of a batch are few.
template <class T> static __global__ void entropy_slope(int64_t rows, int n, const T *dy, const T *ps, const int32_t *target, T *dx)
{
    LBR_SHARED(Room, s);
    double mine = 0;
    for (int64_t r = threadIdx.x; r < rows; r += LBR_CUDA_BLOCK) mine += target[r] >= 0;
    const double used = lbr_cuda_combine(s.value, mine, lbr_cuda_add()), d = (double)*dy;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * n; i += (int64_t)gridDim.x * blockDim.x) {
        int64_t r = i / n;
        int wanted = target[r];
        dx[i] = wanted < 0 ? (T)0 : (T)(((double)ps[i] - (i - r * n == wanted ? 1 : 0)) * d / used);
    }
}

template <class T> static int cross_entropy(lbr_call *c)
{
    int64_t rows = c->in[0].shape[0];
    lbr_cuda_grid g = parts_of(c, rows, 32), end = warp_of(g);
    double *partial = (double *)lbr_cuda_workspace(c, MOST_PARTS * 2 * sizeof(double));
    T *y = (T *)c->out[0].data;
    if (!partial) return LBR_ENOMEM;
    LBR_LAUNCH(entropy<T>, g, lbr_cuda_fault_of(c->device - LBR_CUDA), rows, c->in[0].shape[1], (const T *)c->in[0].data, (const int32_t *)c->in[1].data, (T *)c->out[1].data,
               partial, y);
    if (g.blocks.x > 1) LBR_LAUNCH(mean_end<T>, end, (int)g.blocks.x, (const double *)partial, y, (double *)nullptr);
    return 0;
}

template <class T> static int cross_entropy_backward(lbr_call *c)
{
    int64_t rows = c->in[1].shape[0], n = rows * c->in[1].shape[1];
    lbr_cuda_grid g = lbr_cuda_grid_of(c, n, 1);
    const unsigned most = 4 * (unsigned)lbr_cuda_processors(c->device - LBR_CUDA);
    if (g.blocks.x > most) g.blocks.x = most;
    if (!n) return 0;
    LBR_LAUNCH(entropy_slope<T>, g, rows, c->in[1].shape[1], (const T *)c->in[0].data, (const T *)c->in[1].data, (const int32_t *)c->in[2].data, (T *)c->out[0].data);
    return 0;
}

int lbr_cuda_cross_entropy(lbr_call *c) { return c->in[0].dtype == LBR_F64 ? cross_entropy<double>(c) : cross_entropy<float>(c); }
int lbr_cuda_cross_entropy_backward(lbr_call *c) { return c->in[1].dtype == LBR_F64 ? cross_entropy_backward<double>(c) : cross_entropy_backward<float>(c); }

// ---- gather: rows are moved in words as large as they and their places allow ----

template <class W> static __global__ void gather(lbr_cuda_fault *fault, int64_t all, int64_t n, int rows, int words, const W *x, const int32_t *index, W *y)
{
    const int each = words ? words : 1; // rows without elements: the index is looked at all the same
    for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < all * each; j += (int64_t)gridDim.x * blockDim.x) {
        int64_t i = j / each, block = i / n, at = i - block * n;
        int row = index[at], k = (int)(j - i * each);
        bool inside = row >= 0 && row < rows;
        if (!inside && k == 0 && block == 0) lbr_cuda_blame(fault, LBR_OP_gather, row, at, rows);
        if (words) y[j] = inside ? x[(block * rows + row) * words + k] : W();
    }
}

int lbr_cuda_gather(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    const int dim = ((const lbr_gather_attr *)c->attr)->dim;
    int64_t n = lbr_tensor_numel(&c->in[1]), all = n, bytes = lbr_dtype_size(x->dtype);
    for (int d = 0; d < dim; d++) all *= x->shape[d];
    if (!n) return 0;
    for (int d = dim + 1; d < x->ndim; d++) bytes *= x->shape[d];
    if (!all) all = n, bytes = 0; // nothing is moved, the index is looked at all the same
    int word = 16;
    while ((bytes | (int64_t)(uintptr_t)x->data | (int64_t)(uintptr_t)c->out[0].data) % word) word /= 2;
    const int words = (int)(bytes / word);
    lbr_cuda_grid g = lbr_cuda_grid_of(c, all * (words ? words : 1), 1);
    lbr_cuda_fault *fault = lbr_cuda_fault_of(c->device - LBR_CUDA);
#define CASE(size, W) case size: LBR_LAUNCH(gather<W>, g, fault, all, n, x->shape[dim], words, (const W *)x->data, (const int32_t *)c->in[1].data, (W *)c->out[0].data); break;
    switch (word) { CASE(16, uint4) CASE(8, uint2) CASE(4, unsigned) CASE(2, uint16_t) CASE(1, uint8_t) }
#undef CASE
    return 0;
}

enum { TILE = 128 }; // columns that a warp has of a row of dx

// A warp reads the whole index, 32 at a time, and adds what belongs to its row in the index's order: no atomics, no sorting, the same sum each time.
template <class T> static __global__ void gather_sum(lbr_cuda_fault *fault, int64_t n, int64_t all, int rows, int columns, const T *dy, const int32_t *index, T *dx)
{
    const int tiles = columns > TILE ? (columns + TILE - 1) / TILE : 1, lane = lbr_cuda_lane<32>();
    const int64_t jobs = (all ? all : 1) * tiles;
    for (int64_t job = lbr_cuda_group<32>(); job < jobs; job += lbr_cuda_groups<32>()) {
        const int64_t line = job / tiles, block = rows ? line / rows : 0;
        const int row = (int)(line - block * rows), first = (int)(job % tiles) * TILE + lane;
        T sum[TILE / 32] = {};
        for (int64_t i = 0; i < n; i += 32) {
            const bool there = i + lane < n;
            const int mine = there ? index[i + lane] : 0;
            if (there && job == 0 && (mine < 0 || mine >= rows)) lbr_cuda_blame(fault, LBR_OP_gather_backward, mine, i + lane, rows);
            for (unsigned hits = __ballot_sync(0xffffffffu, there && mine == row && line < all); hits; hits &= hits - 1) {
                const T *from = dy + (block * n + i + __ffs((int)hits) - 1) * columns;
                for (int k = 0; k < TILE / 32; k++)
                    if (first + 32 * k < columns) sum[k] += from[first + 32 * k];
            }
        }
        for (int k = 0; k < TILE / 32 && line < all; k++)
            if (first + 32 * k < columns) dx[line * columns + first + 32 * k] = sum[k];
    }
}

int lbr_cuda_gather_backward(lbr_call *c)
{
    const lbr_tensor *dx = &c->out[0];
    int64_t n = lbr_tensor_numel(&c->in[1]);
    const int dim = ((const lbr_gather_backward_attr *)c->attr)->dim;
    int rows = dx->shape[dim], columns = 1;
    int64_t all = rows;
    for (int d = 0; d < dim; d++) all *= dx->shape[d];
    for (int d = dim + 1; d < dx->ndim; d++) columns *= dx->shape[d];
    if (!n && !lbr_tensor_numel(dx)) return 0;
    lbr_cuda_grid g = lbr_cuda_grid_of(c, (all ? all : 1) * (columns > TILE ? (columns + TILE - 1) / TILE : 1), 32);
    lbr_cuda_fault *fault = lbr_cuda_fault_of(c->device - LBR_CUDA);
    const int32_t *index = (const int32_t *)c->in[1].data;
    if (dx->dtype == LBR_F64) LBR_LAUNCH(gather_sum<double>, g, fault, n, all, rows, columns, (const double *)c->in[0].data, index, (double *)dx->data);
    else LBR_LAUNCH(gather_sum<float>, g, fault, n, all, rows, columns, (const float *)c->in[0].data, index, (float *)dx->data);
    return 0;
}
