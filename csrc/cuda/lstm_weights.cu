// lstm_weights.cu: the gradients of the LSTM's w, r and b as one product over all sequences and steps: slopes^T [x | h of the step before | 1]. f16 and bf16 on tensor
// cores with f32 sums, f32 and f64 through the shared tile. Where the result has too few tiles for the device, blocks share the sum and are added up in order.
#include "lstm.cuh"
#include "ptx.cuh"
#include "tile.cuh"

// Gate rows of the result: k = (b, t).
template <class S> struct Slopes {
    enum { V = 4, ALONG_K = 0 };
    const S *slopes;
    int rows, depth;
    typedef int Place;
    __device__ void begin(int) {}
    __device__ Place place(int row) const { return row; }
    __device__ void load(Place row, int k, int last, lbr_cuda_pack<S, V> &out) const
    {
        if (row < rows && k < last) out = *(const lbr_cuda_pack<S, V> *)(slopes + (int64_t)k * rows + row);
        else out = {};
    }
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
    __device__ void load(Place column, int k, int last, lbr_cuda_pack<S, V> &out) const
    {
        out = {};
        if (column >= rows || k >= last) return;
        const int b = steps.over(k), t = k - b * (int)steps.d, u = column - F;
        if (u < 0) out = *(const lbr_cuda_pack<S, V> *)(x + (b * xb + t * xt + column * xf));
        else if (u == H) out.v[0] = lbr_cuda_store<S>(1.f);
        else if (t > 0) out = *(const lbr_cuda_pack<S, V> *)(y + ((int64_t)(k - 1) * H + u));
        else if (h0) out = *(const lbr_cuda_pack<S, V> *)(h0 + ((int64_t)b * H + u));
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

enum { TILE = 64, DEPTH = 32, WARPS = 4, PITCH = TILE + 8 };
template <class S> struct Tiles { S a[2][DEPTH][PITCH], b[2][DEPTH][PITCH]; };

// A block makes 64 x 64 results, a warp 32 x 32; DEPTH rows of k at a time, the next ones on their way. Both operands lie along k in memory, so fragments are read transposed.
template <class S, int N>
static __global__ void __launch_bounds__(32 * WARPS) products(const S *slopes, Before<S, N> before, Gradients<float> y, int rows, int depth, int parts, float *partial)
{
    enum { GROUPS = DEPTH * TILE / N / (32 * WARPS) };
    LBR_SHARED(Tiles<S>, s);
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, row0 = blockIdx.x * TILE, column0 = blockIdx.y * TILE, part = blockIdx.z;
    const int each = ((depth + DEPTH - 1) / DEPTH + parts - 1) / parts * DEPTH, first = part * each, last = min(depth, first + each);
    lbr_cuda_pack<S, N> next[GROUPS];
    auto fetch = [&](int k0, int buffer) {
        LBR_UNROLL for (int i = 0; i < DEPTH * TILE / 8 / (32 * WARPS); i++) {
            const int group = thread + i * 32 * WARPS, k = group / (TILE / 8), j = group % (TILE / 8) * 8;
            const bool there = k0 + k < last && row0 + j < rows;
            lbr_async_copy<16>(&s.a[buffer][k][j], there ? slopes + ((int64_t)(k0 + k) * rows + row0 + j) : slopes, there);
        }
        lbr_async_commit();
        LBR_UNROLL for (int i = 0; i < GROUPS; i++) {
            const int group = thread + i * 32 * WARPS;
            before.load(column0 + group % (TILE / N) * N, k0 + group / (TILE / N), last, next[i]);
        }
    };
    auto keep = [&](int buffer) {
        LBR_UNROLL for (int i = 0; i < GROUPS; i++) {
            const int group = thread + i * 32 * WARPS;
            *(lbr_cuda_pack<S, N> *)&s.b[buffer][group / (TILE / N)][group % (TILE / N) * N] = next[i];
        }
        lbr_async_wait<0>();
    };
    const int r0 = warp / 2 * 32, c0 = warp % 2 * 32, matrix = lane >> 3, r = lane & 7;
    float sum[2][4][4] = {};
    if (first < last) {
        fetch(first, 0);
        keep(0);
    }
    __syncthreads();
    for (int k0 = first, buffer = 0; k0 < last; k0 += DEPTH, buffer ^= 1) {
        if (k0 + DEPTH < last) fetch(k0 + DEPTH, buffer ^ 1);
        LBR_UNROLL for (int k = 0; k < DEPTH; k += 16) {
            unsigned left[2][4], right[2][4];
            LBR_UNROLL for (int m = 0; m < 2; m++) lbr_ldmatrix4_trans(left[m], &s.a[buffer][k + matrix / 2 * 8 + r][r0 + m * 16 + matrix % 2 * 8]);
            LBR_UNROLL for (int n = 0; n < 2; n++) lbr_ldmatrix4_trans(right[n], &s.b[buffer][k + matrix % 2 * 8 + r][c0 + n * 16 + matrix / 2 * 8]);
            LBR_UNROLL for (int m = 0; m < 2; m++)
                LBR_UNROLL for (int n = 0; n < 4; n++) {
                    const unsigned b[2] = {right[n / 2][n % 2 * 2], right[n / 2][n % 2 * 2 + 1]};
                    lbr_mma<S>(sum[m][n], left[m], b);
                }
        }
        if (k0 + DEPTH < last) keep(buffer ^ 1);
        __syncthreads();
    }
    LBR_UNROLL for (int m = 0; m < 2; m++)
        LBR_UNROLL for (int n = 0; n < 4; n++)
            LBR_UNROLL for (int e = 0; e < 4; e++) {
                const int row = row0 + r0 + m * 16 + e / 2 * 8 + (lane >> 2), column = column0 + c0 + n * 8 + (lane & 3) * 2 + e % 2;
                if (row >= rows || column >= before.rows) continue;
                if (parts == 1) y.template put<1>(row, column, &sum[m][n][e], before.rows);
                else partial[((int64_t)part * rows + row) * before.rows + column] = sum[m][n][e];
            }
}

template <class S, int N> static Before<S, N> columns_of(const lbr_cuda_lstm_sums *s)
{
    return {(const S *)s->x, (const S *)s->y, (const S *)s->h0, s->xb, s->xt, s->xf, s->F + s->H + 1, s->F, s->H, lbr_cuda_divide_by(s->steps)};
}
template <class S> static bool in_fours(const lbr_cuda_lstm_sums *s)
{
    return s->F % 4 == 0 && s->H % 4 == 0 && s->xf == 1 && s->xb % 4 == 0 && s->xt % 4 == 0 && lbr_cuda_packs<S>(s->x, 4) && lbr_cuda_packs<S>(s->y, 4) && lbr_cuda_packs<S>(s->h0, 4);
}

template <class S> static void sums(const lbr_cuda_lstm_sums *s, cudaStream_t stream)
{
    typedef typename lbr_lstm_wide<S>::type W;
    typedef Gradients<W> Y;
    const int rows = 4 * s->even, columns = s->F + s->H + 1, depth = s->B * s->steps;
    const Y y = {(W *)s->dw, (W *)s->dr, (W *)s->db, s->F, s->H};
    const S *slopes = (const S *)s->slopes;
    W *partial = (W *)s->partial;
    lbr_cuda_grid g = {dim3((unsigned)(rows + TILE - 1) / TILE, (unsigned)(columns + TILE - 1) / TILE, (unsigned)s->parts), dim3(32 * WARPS), stream};
    if constexpr (sizeof(S) == 2) {
        if (in_fours<S>(s)) LBR_LAUNCH((products<S, 4>), g, slopes, columns_of<S, 4>(s), y, rows, depth, s->parts, partial);
        else LBR_LAUNCH((products<S, 1>), g, slopes, columns_of<S, 1>(s), y, rows, depth, s->parts, partial);
    } else {
        typedef Slopes<S> A;
        typedef Before<S, 1> B;
        const A a = {slopes, rows, depth};
        g.threads = dim3(256);
        LBR_LAUNCH((lbr_cuda_tile<TILE, TILE, 16, 4, 4, S, A, B, Y>), g, a, columns_of<S, 1>(s), y, 0, 1, s->parts, partial);
    }
    if (s->parts == 1) return;
    const lbr_cuda_grid join = {dim3((unsigned)(((int64_t)rows * columns + 255) / 256)), dim3(256), stream};
    LBR_LAUNCH((lbr_cuda_join<W, Y>), join, (const W *)partial, y, rows, columns, 1, s->parts);
}

int lbr_cuda_lstm_parts(const lbr_cuda_lstm_sums *s, int processors)
{
    return lbr_cuda_parts((int64_t)((4 * s->even + TILE - 1) / TILE) * ((s->F + s->H + TILE) / TILE), s->B * s->steps, 2 * processors);
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
