// lstm_weights.cu: the gradients of the LSTM's w, r and b as a product over all sequences and steps: slopes^T [x | h of the step before | 1], through the shared tiles.
// Where the result has too few tiles for the device, blocks share the sum and are added up in order.
#include "lstm.cuh"
#include "tile_mma.cuh"

static __device__ const __align__(16) uint16_t one_f16[8] = {0x3c00}, one_bf16[8] = {0x3f80};
static __device__ const float one_f32 = 1;
static __device__ const double one_f64 = 1;
static __device__ __forceinline__ const __half *one_of(const __half *) { return (const __half *)one_f16; }
static __device__ __forceinline__ const __nv_bfloat16 *one_of(const __nv_bfloat16 *) { return (const __nv_bfloat16 *)one_bf16; }
static __device__ __forceinline__ const float *one_of(const float *) { return &one_f32; }
static __device__ __forceinline__ const double *one_of(const double *) { return &one_f64; }

// Gate rows of the result: k = (b, t).
template <class S, int N> struct Slopes {
    enum { V = N, ALONG_K = 0 };
    const S *slopes;
    int rows, depth;
    typedef int Place;
    __device__ void begin(int) {}
    __device__ Place place(int row) const { return row; }
    __device__ const S *any() const { return slopes; }
    __device__ const S *find(Place row, int k, int last) const { return row < rows && k < last ? slopes + ((int64_t)k * rows + row) : NULL; }
};

// Columns of the result, N at a time: features, units, and one that adds up the slopes themselves. N > 1: neither ends within a group, and all are aligned to it.
template <class S, int N> struct Before {
    enum { V = N, ALONG_K = 0 };
    const S *x, *y, *h0;
    int64_t xb, xt, xf;
    int rows, F, H;
    lbr_cuda_divider steps;
    typedef int Place;
    __device__ void begin(int) {}
    __device__ Place place(int column) const { return column; }
    __device__ const S *any() const { return y; }
    __device__ const S *find(Place column, int k, int last) const
    {
        if (column >= rows || k >= last) return NULL;
        const int b = steps.over(k), t = k - b * (int)steps.d, u = column - F;
        if (u < 0) return x + (b * xb + t * xt + column * xf);
        if (u == H) return one_of(y);
        if (t > 0) return y + ((int64_t)(k - 1) * H + u);
        return h0 ? h0 + ((int64_t)b * H + u) : NULL;
    }
};

// Back to the order of w. shift: the columns of [x | h | 1] before the first one of this product.
template <class W> struct Gradients {
    W *dw, *dr, *db;
    int F, H, shift;
    __device__ void begin(int) {}
    __device__ W start(int) const { return 0; }
    template <int N> __device__ void put(int row, int column, const W *v, int columns) const
    {
        const int u = row / 4, j = row % 4 * H + u;
        if (u >= H) return;
        for (int e = 0; e < N && column + e < columns; e++) {
            const int f = shift + column + e, k = f - F;
            *(k < 0 ? dw + (int64_t)j * F + f : k < H ? dr + (int64_t)j * H + k : db + j) = v[e];
        }
    }
};

enum { TILE = 64, WIDE = 8 };

// The product for `columns` columns from `shift` on; features of them are x's.
template <class S, int N> static void product(const lbr_cuda_lstm_sums *s, int shift, int features, int columns, cudaStream_t stream)
{
    typedef typename lbr_lstm_wide<S>::type W;
    typedef Gradients<W> Y;
    typedef Before<S, N> B;
    const int rows = 4 * s->even, depth = s->B * s->steps;
    if (!columns) return;
    const B b = {(const S *)s->x, (const S *)s->y, (const S *)s->h0, s->xb, s->xt, s->xf, columns, features, s->H, lbr_cuda_divide_by(s->steps)};
    const Y y = {(W *)s->dw, (W *)s->dr, (W *)s->db, s->F, s->H, shift};
    W *partial = (W *)s->partial;
    lbr_cuda_grid g = {dim3((unsigned)(rows + TILE - 1) / TILE, (unsigned)(columns + TILE - 1) / TILE, (unsigned)s->parts), dim3(128), stream};
    if constexpr (sizeof(S) == 2) {
        typedef Slopes<S, 8> A;
        const A a = {(const S *)s->slopes, rows, depth};
        LBR_LAUNCH((lbr_cuda_tile_mma<TILE, TILE, 2, 2, 4, S, A, B, Y>), g, a, b, y, 0, 1, s->parts, partial);
    } else {
        typedef Slopes<S, 4> A;
        const A a = {(const S *)s->slopes, rows, depth};
        g.threads = dim3(256);
        LBR_LAUNCH((lbr_cuda_tile<TILE, TILE, 16, 4, 4, S, A, B, Y>), g, a, b, y, 0, 1, s->parts, partial);
    }
    if (s->parts == 1) return;
    const lbr_cuda_grid join = {dim3((unsigned)(((int64_t)rows * columns + 255) / 256)), dim3(256), stream};
    LBR_LAUNCH((lbr_cuda_join<W, Y>), join, (const W *)partial, y, rows, columns, 1, s->parts);
}

// f16 and bf16 go by sixteen bytes where x lies so; else x is taken number by number, in a product of its own.
template <class S> static void halves(const lbr_cuda_lstm_sums *s, cudaStream_t stream)
{
    const bool states = s->H % WIDE == 0 && lbr_cuda_packs<S>(s->y, WIDE) && lbr_cuda_packs<S>(s->h0, WIDE);
    const bool features = s->F % WIDE == 0 && s->xf == 1 && s->xb % WIDE == 0 && s->xt % WIDE == 0 && lbr_cuda_packs<S>(s->x, WIDE);
    if (!states) return product<S, 1>(s, 0, s->F, s->F + s->H + 1, stream);
    if (features) return product<S, WIDE>(s, 0, s->F, s->F + s->H + 1, stream);
    product<S, 1>(s, 0, s->F, s->F, stream);
    product<S, WIDE>(s, s->F, 0, s->H + 1, stream);
}

int lbr_cuda_lstm_parts(const lbr_cuda_lstm_sums *s, int processors)
{
    const int64_t tiles = (int64_t)((4 * s->even + TILE - 1) / TILE) * ((s->F + s->H + TILE) / TILE), most = (int64_t)s->B * s->steps / 256;
    const int64_t parts = 2 * processors / tiles < most ? 2 * processors / tiles : most;
    return (int)(parts < 1 ? 1 : parts);
}

void lbr_cuda_lstm_weights(int dtype, const lbr_cuda_lstm_sums *s, cudaStream_t stream)
{
    switch (dtype) {
    case LBR_F64: return product<double, 1>(s, 0, s->F, s->F + s->H + 1, stream);
    case LBR_F16: return halves<__half>(s, stream);
    case LBR_BF16: return halves<__nv_bfloat16>(s, stream);
    default: return product<float, 1>(s, 0, s->F, s->F + s->H + 1, stream);
    }
}
