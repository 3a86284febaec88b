// index.cu: reading and writing single elements by index, the best along a dim, what is not 0, non-maximum suppression. Whole rows are in loss.cu.
#include "reduce.cuh"

// Sizes of an index and of what it points into; strides of x for the index's dims, but along `dim`.
struct places {
    int ndim, dim, limit;
    int shape[LBR_MAX_DIMS];
    int64_t stride[LBR_MAX_DIMS];
};

static places places_of(const lbr_tensor *x, const lbr_tensor *index, int dim)
{
    places p = {};
    int64_t step = 1;
    p.ndim = x->ndim, p.dim = dim, p.limit = x->shape[dim];
    for (int d = x->ndim - 1; d >= 0; d--) {
        p.shape[d] = index->shape[d];
        p.stride[d] = step;
        step *= x->shape[d];
    }
    return p;
}

// Place in x of element i of the index, which holds `own`.
static __device__ __forceinline__ int64_t place(const places &p, int64_t i, int own)
{
    int64_t at = 0;
    for (int d = p.ndim - 1; d >= 0; d--) {
        int64_t q = i / p.shape[d];
        at += (d == p.dim ? own : i - q * p.shape[d]) * p.stride[d];
        i = q;
    }
    return at;
}

template <class W> static __global__ void gather_elements(lbr_cuda_fault *fault, places p, int64_t n, const W *x, const int32_t *index, W *y)
{
    for (int64_t i = lbr_cuda_group<1>(); i < n; i += lbr_cuda_groups<1>()) {
        int own = index[i];
        bool inside = own >= 0 && own < p.limit;
        if (!inside) lbr_cuda_blame(fault, LBR_OP_gather_elements, own, i, p.limit);
        y[i] = inside ? x[place(p, i, own)] : W();
    }
}

int lbr_cuda_gather_elements(lbr_call *c)
{
    int64_t n = lbr_tensor_numel(&c->in[1]);
    places p = places_of(&c->in[0], &c->in[1], ((const lbr_gather_elements_attr *)c->attr)->dim);
    if (!n) return 0;
    lbr_cuda_grid g = lbr_cuda_grid_of(c, n, 1);
    lbr_cuda_fault *fault = lbr_cuda_fault_of(c->device - LBR_CUDA);
#define CASE(size, W) case size: LBR_LAUNCH(gather_elements<W>, g, fault, p, n, (const W *)c->in[0].data, (const int32_t *)c->in[1].data, (W *)c->out[0].data); break;
    switch (lbr_dtype_size(c->in[0].dtype)) { CASE(8, uint2) CASE(4, unsigned) CASE(2, uint16_t) CASE(1, uint8_t) }
#undef CASE
    return 0;
}

// ---- scatter: a thread has a line along the dim, in the index's order, so that the last one stays and sums are the same each time ----

template <class W> static __global__ void copy_elements(int64_t n, const W *x, W *y)
{
    for (int64_t i = lbr_cuda_group<1>(); i < n; i += lbr_cuda_groups<1>()) y[i] = x[i];
}

static __device__ __forceinline__ double joined(int kind, double old, double value)
{
    switch (kind) {
    case 1: return old + value;
    case 2: return old * value;
    case 3: return value < old || value != value ? value : old;
    default: return value > old || value != value ? value : old;
    }
}

// step: from one element of the index to the next along the dim.
template <class S> static __global__ void scatter_elements(lbr_cuda_fault *fault, places p, int64_t lines, int64_t step, int kind, const int32_t *index, const S *values, S *y)
{
    const int count = p.shape[p.dim];
    for (int64_t line = lbr_cuda_group<1>(); line < lines; line += lbr_cuda_groups<1>()) {
        int64_t first = line / step * step * count + line % step, base = place(p, first, 0);
        for (int j = 0; j < count; j++) {
            int64_t i = first + j * step;
            int own = index[i];
            if (own < 0 || own >= p.limit) {
                lbr_cuda_blame(fault, LBR_OP_scatter_elements, own, i, p.limit);
                continue;
            }
            S *to = y + base + own * p.stride[p.dim];
            *to = kind ? lbr_cuda_cast<S>(joined(kind, (double)lbr_cuda_load(*to), (double)lbr_cuda_load(values[i]))) : values[i];
        }
    }
}

int lbr_cuda_scatter_elements(lbr_call *c)
{
    const lbr_scatter_elements_attr *a = (const lbr_scatter_elements_attr *)c->attr;
    const lbr_tensor *x = &c->in[0], *index = &c->in[1];
    int64_t n = lbr_tensor_numel(x), step = 1, all = lbr_tensor_numel(index);
    places p = places_of(x, index, a->dim);
    for (int d = a->dim + 1; d < index->ndim; d++) step *= index->shape[d];
    if (!n) return 0;
    lbr_cuda_fault *fault = lbr_cuda_fault_of(c->device - LBR_CUDA);
    lbr_cuda_grid g = lbr_cuda_grid_of(c, n, 1), h = lbr_cuda_grid_of(c, all ? all / index->shape[a->dim] : 0, 1);
#define CASE(dtype, S)                                                                                                                        \
    case dtype:                                                                                                                               \
        LBR_LAUNCH(copy_elements<S>, g, n, (const S *)x->data, (S *)c->out[0].data);                                                          \
        if (all)                                                                                                                              \
            LBR_LAUNCH(scatter_elements<S>, h, fault, p, all / index->shape[a->dim], step, a->kind, (const int32_t *)index->data,            \
                       (const S *)c->in[2].data, (S *)c->out[0].data);                                                                        \
        break;
    switch (x->dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}

// ---- the best: a value and its place as one number that grows with the value and, of equal ones, towards the front; 0 is none ----

typedef unsigned long long rank_t;

struct larger_rank {
    __device__ rank_t operator()(rank_t a, rank_t b) const { return a > b ? a : b; }
};

static __device__ __forceinline__ rank_t rank_of(unsigned ordered, int at) { return (rank_t)ordered << 32 | (unsigned)~at; }
static __device__ __forceinline__ int place_of(rank_t r) { return (int)~(unsigned)r; }

// NaN is the largest, also where the smallest come first; 0 and -0 are one.
static __device__ __forceinline__ unsigned ordered_bits(float v, bool largest)
{
    if (v != v) return largest ? 0xffffffffu : 0x007fffffu; // that of -infinity
    union { float f; unsigned u; } bits;
    bits.f = (largest ? v : -v) + 0.0f;
    return bits.u >> 31 ? ~bits.u : bits.u | 0x80000000u;
}
static __device__ __forceinline__ unsigned ordered_bits(int v, bool largest) { return largest ? (unsigned)v ^ 0x80000000u : ~((unsigned)v ^ 0x80000000u); }

struct topk_room { rank_t room[LBR_CUDA_WARPS]; };

// A block has a line: k times the best below the last one.
template <class S> static __global__ void __launch_bounds__(LBR_CUDA_BLOCK) topk(int64_t lines, int n, int k, int64_t inner, bool largest, const S *x, S *y, int32_t *index)
{
    LBR_SHARED(topk_room, s);
    for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
        const S *from = x + line / inner * n * inner + line % inner;
        int64_t to = line / inner * k * inner + line % inner;
        rank_t last = 0;
        for (int r = 0; r < k; r++) {
            rank_t best = 0;
            for (int i = threadIdx.x; i < n; i += LBR_CUDA_BLOCK) {
                rank_t own = rank_of(ordered_bits(lbr_cuda_load(from[i * inner]), largest), i);
                if ((r == 0 || own < last) && own > best) best = own;
            }
            last = lbr_cuda_combine<true>(s.room, best, larger_rank());
            if (threadIdx.x == 0) {
                int at = place_of(last);
                y[to + r * inner] = from[at * inner];
                index[to + r * inner] = at;
            }
        }
    }
}

int lbr_cuda_topk(lbr_call *c)
{
    const lbr_topk_attr *a = (const lbr_topk_attr *)c->attr;
    const lbr_tensor *x = &c->in[0];
    int64_t inner = 1, n = x->shape[a->dim], lines = n ? lbr_tensor_numel(x) / n : 0;
    for (int d = a->dim + 1; d < x->ndim; d++) inner *= x->shape[d];
    if (!lines || !a->k) return 0;
    lbr_cuda_grid g = lbr_cuda_grid_of(c, lines, LBR_CUDA_BLOCK);
#define CASE(dtype, S) \
    case dtype: LBR_LAUNCH(topk<S>, g, lines, (int)n, a->k, inner, a->largest != 0, (const S *)x->data, (S *)c->out[0].data, (int32_t *)c->out[1].data); return 0;
    switch (x->dtype) { CASE(LBR_F32, float) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16) CASE(LBR_U8, uint8_t) CASE(LBR_I32, int32_t) }
#undef CASE
    return lbr_fail(LBR_EUNSUPPORTED, "topk: %s on a CUDA device, want at most 32 bits", lbr_describe(x));
}

// ---- what is not 0: one block, so that places come in order ----

struct nonzero_room { int counts[LBR_CUDA_WARPS]; };
struct sizes { int ndim; int shape[LBR_MAX_DIMS]; };

template <class S> static __global__ void __launch_bounds__(LBR_CUDA_BLOCK) nonzero(sizes d, int64_t n, const S *x, int32_t *index, int32_t *count)
{
    LBR_SHARED(nonzero_room, s);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t found = 0;
    for (int64_t first = 0; first < n; first += LBR_CUDA_BLOCK) {
        int64_t i = first + threadIdx.x;
        bool hit = i < n && lbr_cuda_load(x[i < n ? i : 0]) != 0;
        unsigned hits = __ballot_sync(0xffffffffu, hit);
        if (lane == 0) s.counts[warp] = __popc(hits);
        __syncthreads();
        int64_t at = found + __popc(hits & ((1u << lane) - 1));
        for (int w = 0; w < LBR_CUDA_WARPS; w++) {
            if (w < warp) at += s.counts[w];
            found += s.counts[w];
        }
        for (int k = d.ndim - 1; hit && k >= 0; k--) {
            int64_t q = i / d.shape[k];
            index[at * d.ndim + k] = (int)(i - q * d.shape[k]);
            i = q;
        }
        __syncthreads(); // counts are written again
    }
    for (int64_t i = found * d.ndim + threadIdx.x; i < n * d.ndim; i += LBR_CUDA_BLOCK) index[i] = 0;
    if (threadIdx.x == 0) *count = (int)found;
}

int lbr_cuda_nonzero(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    sizes d = {};
    d.ndim = x->ndim;
    for (int i = 0; i < x->ndim; i++) d.shape[i] = x->shape[i];
    lbr_cuda_grid g = lbr_cuda_grid_of(c, 1, LBR_CUDA_BLOCK);
#define CASE(dtype, S) \
    case dtype: LBR_LAUNCH(nonzero<S>, g, d, lbr_tensor_numel(x), (const S *)x->data, (int32_t *)c->out[0].data, (int32_t *)c->out[1].data); break;
    switch (x->dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}

// ---- non-maximum suppression: a block has the boxes of a picture and class, a second kernel closes the gaps between them ----

struct box { float y0, x0, y1, x1; };

template <class S> static __device__ __forceinline__ box box_of(const S *p, bool centre)
{
    float b[4];
    for (int i = 0; i < 4; i++) b[i] = (float)lbr_cuda_load(p[i]);
    if (centre) return {b[1] - b[3] / 2, b[0] - b[2] / 2, b[1] + b[3] / 2, b[0] + b[2] / 2};
    return {fminf(b[0], b[2]), fminf(b[1], b[3]), fmaxf(b[0], b[2]), fmaxf(b[1], b[3])};
}

static __device__ __forceinline__ bool overlap(const box &a, const box &b, float most)
{
    float h = (a.y1 < b.y1 ? a.y1 : b.y1) - (a.y0 > b.y0 ? a.y0 : b.y0), w = (a.x1 < b.x1 ? a.x1 : b.x1) - (a.x0 > b.x0 ? a.x0 : b.x0);
    float both = h * w;
    return h > 0 && w > 0 && both / ((a.y1 - a.y0) * (a.x1 - a.x0) + (b.y1 - b.y0) * (b.x1 - b.x0) - both) > most;
}

// kept [lines,most,3]: what a line keeps, then a row of -1 where there is room.
template <class S> static __global__ void __launch_bounds__(LBR_CUDA_BLOCK)
    suppress(int64_t lines, int classes, int n, int most, float iou, double least, bool centre, const S *boxes, const S *scores, int32_t *kept)
{
    LBR_SHARED(topk_room, s);
    for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
        const S *own = boxes + line / classes * n * 4, *score = scores + line * n;
        int32_t *rows = kept + line * most * 3;
        rank_t last = 0;
        int count = 0;
        for (int r = 0; count < most; r++) {
            rank_t best = 0;
            for (int i = threadIdx.x; i < n; i += LBR_CUDA_BLOCK) {
                float v = (float)lbr_cuda_load(score[i]);
                rank_t mine = (double)v > least ? rank_of(ordered_bits(v, true), i) : 0;
                if ((r == 0 || mine < last) && mine > best) best = mine;
            }
            last = lbr_cuda_combine<true>(s.room, best, larger_rank());
            if (!last) break;
            int at = place_of(last);
            box b = box_of(own + (int64_t)at * 4, centre);
            rank_t hidden = 0;
            for (int j = threadIdx.x; !hidden && j < count; j += LBR_CUDA_BLOCK) hidden = overlap(b, box_of(own + (int64_t)rows[j * 3 + 2] * 4, centre), iou);
            if (lbr_cuda_combine<true>(s.room, hidden, larger_rank())) continue;
            if (threadIdx.x == 0) rows[count * 3] = (int)(line / classes), rows[count * 3 + 1] = (int)(line % classes), rows[count * 3 + 2] = at;
            count++; // others read the row beyond the next combination's barrier
        }
        if (threadIdx.x == 0 && count < most) rows[count * 3] = -1;
    }
}

static __global__ void __launch_bounds__(LBR_CUDA_BLOCK) close_gaps(int64_t lines, int most, int32_t *kept, int32_t *total)
{
    int64_t count = 0;
    for (int64_t line = 0; line < lines; line++)
        for (int j = 0; j < most; j++) {
            const int32_t *row = kept + (line * most + j) * 3;
            int32_t picture = row[0], value = row[threadIdx.x < 3 ? threadIdx.x : 0];
            __syncthreads(); // read before it is written
            if (picture < 0) break;
            if (threadIdx.x < 3) kept[count * 3 + threadIdx.x] = value; // no row that is still to be read
            count++;
        }
    for (int64_t i = count * 3 + threadIdx.x; i < lines * most * 3; i += LBR_CUDA_BLOCK) kept[i] = 0;
    if (threadIdx.x == 0) *total = (int)count;
}

int lbr_cuda_nms(lbr_call *c)
{
    const lbr_nms_attr *a = (const lbr_nms_attr *)c->attr;
    const lbr_tensor *s = &c->in[1];
    const int n = s->shape[2], most = a->most < n ? a->most : n;
    const int64_t lines = (int64_t)s->shape[0] * s->shape[1];
    int32_t *kept = (int32_t *)c->out[0].data;
    lbr_cuda_grid g = lbr_cuda_grid_of(c, lines, LBR_CUDA_BLOCK), one = lbr_cuda_grid_of(c, 1, LBR_CUDA_BLOCK);
    if (c->in[0].dtype != s->dtype || s->dtype == LBR_F64) return lbr_fail(LBR_EUNSUPPORTED, "nms: boxes %s, scores %s on a CUDA device, want one type of at most 32 bits", lbr_describe(&c->in[0]), lbr_describe(s));
#define CASE(dtype, S)                                                                                                                                        \
    case dtype:                                                                                                                                               \
        LBR_LAUNCH(suppress<S>, g, lines, s->shape[1], n, most, (float)a->iou, a->score, a->centre != 0, (const S *)c->in[0].data, (const S *)s->data, kept); \
        break;
    if (lines && most)
        switch (s->dtype) { CASE(LBR_F32, float) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16) }
#undef CASE
    LBR_LAUNCH(close_gaps, one, lines, most, kept, (int32_t *)c->out[1].data);
    return 0;
}
