// lstm_weights.cu: the gradients of the LSTM's w, r and b as one product over all sequences and steps: slopes^T [x | h of the step before | 1].
#include "lstm.cuh"
#include "tile.cuh"

// Gate rows of the result: k = (b, t).
template <class S, class W> struct Slopes {
    enum { V = 4, ALONG_K = 0 };
    const S *slopes;
    int rows, depth;
    typedef int Place;
    __device__ void begin(int) {}
    __device__ Place place(int row) const { return row; }
    __device__ void load(Place row, int k, int last, lbr_cuda_pack<W, V> &out) const
    {
        out = {};
        if (row >= rows || k >= last) return;
        const lbr_cuda_pack<S, V> v = *(const lbr_cuda_pack<S, V> *)(slopes + (int64_t)k * rows + row);
        LBR_UNROLL for (int e = 0; e < V; e++) out.v[e] = lbr_cuda_load(v.v[e]);
    }
};

// Columns of the result: features, units, and one that adds up the slopes themselves.
template <class S, class W> struct Before {
    enum { V = 1, ALONG_K = 0 };
    const S *x, *y, *h0;
    int64_t xb, xt, xf;
    int rows, F, H;
    lbr_cuda_divider steps;
    typedef int Place;
    __device__ void begin(int) {}
    __device__ Place place(int column) const { return column; }
    __device__ void load(Place column, int k, int last, lbr_cuda_pack<W, V> &out) const
    {
        out = {};
        if (column >= rows || k >= last) return;
        const int b = steps.over(k), t = k - b * (int)steps.d, u = column - F;
        if (u < 0) out.v[0] = lbr_cuda_load(x[b * xb + t * xt + column * xf]);
        else if (u == H) out.v[0] = 1;
        else if (t > 0) out.v[0] = lbr_cuda_load(y[(int64_t)(k - 1) * H + u]);
        else if (h0) out.v[0] = lbr_cuda_load(h0[(int64_t)b * H + u]);
    }
};

template <class W> struct Gradients {
    W *dw, *dr, *db;
    int F, H;
    __device__ void begin(int) {}
    __device__ W start(int) const { return 0; }
    template <int N> __device__ void put(int row, int column, const W *v, int columns) const
    {
        const int u = row / 4, j = row % 4 * H + u; // back to the order of w
        if (u >= H) return;
        for (int e = 0; e < N && column + e < columns; e++) {
            const int k = column + e - F;
            *(k < 0 ? dw + (int64_t)j * F + column + e : k < H ? dr + (int64_t)j * H + k : db + j) = v[e];
        }
    }
};

template <class S> static void sums(const lbr_cuda_lstm_sums *s, cudaStream_t stream)
{
    typedef typename lbr_lstm_wide<S>::type W;
    typedef Slopes<S, W> A;
    typedef Before<S, W> B;
    typedef Gradients<W> Y;
    const int rows = 4 * s->even, columns = s->F + s->H + 1;
    const A a = {(const S *)s->slopes, rows, s->B * s->steps};
    const B b = {(const S *)s->x, (const S *)s->y, (const S *)s->h0, s->xb, s->xt, s->xf, columns, s->F, s->H, lbr_cuda_divide_by(s->steps)};
    const Y y = {(W *)s->dw, (W *)s->dr, (W *)s->db, s->F, s->H};
    const lbr_cuda_grid g = {dim3((unsigned)(rows + 63) / 64, (unsigned)(columns + 63) / 64, (unsigned)s->parts), dim3(256), stream};
    LBR_LAUNCH((lbr_cuda_tile<64, 64, 16, 4, 4, W, A, B, Y>), g, a, b, y, 0, 1, s->parts, (W *)s->partial);
    if (s->parts == 1) return;
    const lbr_cuda_grid join = {dim3((unsigned)(((int64_t)rows * columns + 255) / 256)), dim3(256), stream};
    LBR_LAUNCH((lbr_cuda_join<W, Y>), join, (const W *)s->partial, y, rows, columns, 1, s->parts);
}

int lbr_cuda_lstm_parts(const lbr_cuda_lstm_sums *s, int processors)
{
    return lbr_cuda_parts((int64_t)((4 * s->even + 63) / 64) * ((s->F + s->H + 64) / 64), s->B * s->steps, 2 * processors);
}

void lbr_cuda_lstm_weights(int dtype, const lbr_cuda_lstm_sums *s, cudaStream_t stream)
{
    switch (dtype) {
    case LBR_F64: return sums<double>(s, stream);
    case LBR_F16: return sums<__half>(s, stream);
    case LBR_BF16: return sums<__nv_bfloat16>(s, stream);
    default: return sums<float>(s, stream);
    }
}
