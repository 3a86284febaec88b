// reduce.cuh: values of a warp or a block combined in a fixed order, and the columns of a matrix summed in two launches.
#pragma once
#include "convert.cuh"

enum { LBR_CUDA_BLOCK = 256, LBR_CUDA_WARPS = LBR_CUDA_BLOCK / 32 };

struct lbr_cuda_add {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};

// Combines one value a lane of a full warp into all lanes, pairwise; join(a, b) is join(b, a).
template <class T, class F> static __device__ __forceinline__ T lbr_cuda_combine_warp(T mine, F join)
{
    for (int other = 16; other > 0; other /= 2) mine = join(mine, __shfl_xor_sync(0xffffffffu, mine, other));
    return mine;
}

// The same for a block of 256 threads. room: LBR_CUDA_WARPS elements of shared memory; AGAIN: it is written again.
template <bool AGAIN, class T, class F> static __device__ __forceinline__ T lbr_cuda_combine(T *room, T mine, F join)
{
    mine = lbr_cuda_combine_warp(mine, join);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = mine;
    __syncthreads();
    T all = room[0];
    for (int w = 1; w < LBR_CUDA_WARPS; w++) all = join(all, room[w]);
    if (AGAIN) __syncthreads();
    return all;
}

// Results of LANES threads each: one thread, a warp, or a block of 256. room is looked at by blocks only.
template <int LANES, class T, class F> static __device__ __forceinline__ T lbr_cuda_combine_lanes(T *room, T mine, F join)
{
    if (LANES == 1) return mine;
    return LANES == 32 ? lbr_cuda_combine_warp(mine, join) : lbr_cuda_combine<true>(room, mine, join);
}
// This thread's place among the LANES, the number of its group, and how many groups there are.
template <int LANES> static __device__ __forceinline__ int lbr_cuda_lane() { return threadIdx.x % LANES; }
template <int LANES> static __device__ __forceinline__ int64_t lbr_cuda_group() { return ((int64_t)blockIdx.x * LBR_CUDA_BLOCK + threadIdx.x) / LANES; }
template <int LANES> static __device__ __forceinline__ int64_t lbr_cuda_groups() { return (int64_t)gridDim.x * (LBR_CUDA_BLOCK / LANES); }

// f(i, element) for each of n elements that lie side by side, shared out over the lanes, four at a time. Who gets which does not depend on where they lie.
template <int LANES, class S, class F> static __device__ __forceinline__ void lbr_cuda_each(const S *x, int64_t n, F f)
{
    for (int64_t i = 4 * lbr_cuda_lane<LANES>(); i < n; i += 4 * LANES) {
        lbr_cuda_four<S> v = lbr_cuda_read4(x + i, n - i);
        for (int k = 0; k < 4; k++)
            if (i + k < n) f(i + k, v.v[k]);
    }
}

// Blocks of 256 threads for n groups of LANES threads; kernels loop.
static inline lbr_cuda_grid lbr_cuda_grid_of(const lbr_call *c, int64_t n, int lanes)
{
    int64_t blocks = (n * lanes + LBR_CUDA_BLOCK - 1) / LBR_CUDA_BLOCK, most = (int64_t)lbr_cuda_processors(c->device - LBR_CUDA) * 32;
    return {dim3((unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most)), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
}

// Into how many parts `count` elements of each of some results are split, so that all multiprocessors have work: blocks: those that one part of all results takes;
// least: elements that a part has at least.
static inline int lbr_cuda_parts(const lbr_call *c, int64_t blocks, int64_t count, int64_t least)
{
    const int64_t most = 256;
    int64_t want = (2 * (int64_t)lbr_cuda_processors(c->device - LBR_CUDA) + blocks - 1) / (blocks < 1 ? 1 : blocks), fit = count / least;
    if (want > fit) want = fit;
    return (int)(want < 1 ? 1 : want > most ? most : want);
}
// Elements begin .. end - 1 of part p; parts begin at multiples of four.
static __device__ __forceinline__ void lbr_cuda_part(int p, int parts, int64_t count, int64_t *begin, int64_t *end)
{
    *begin = count * p / parts & ~(int64_t)3;
    *end = p + 1 == parts ? count : count * (p + 1) / parts & ~(int64_t)3;
}

// ---- columns: N sums of f over the rows of a matrix, for each column ----

enum { LBR_CUDA_COLUMNS = 32 }; // a block has 32 columns, 8 rows at a time

template <int N> struct lbr_cuda_sums { double v[N]; };
template <int N> struct lbr_cuda_column_room { lbr_cuda_sums<N> at[LBR_CUDA_WARPS][LBR_CUDA_COLUMNS]; };

static inline int lbr_cuda_column_parts(const lbr_call *c, int64_t rows, int columns)
{
    return lbr_cuda_parts(c, (columns + LBR_CUDA_COLUMNS - 1) / LBR_CUDA_COLUMNS, rows, 128);
}
static inline lbr_cuda_grid lbr_cuda_column_grid(const lbr_call *c, int columns, int parts)
{
    return {dim3((unsigned)((columns + LBR_CUDA_COLUMNS - 1) / LBR_CUDA_COLUMNS), (unsigned)parts), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(c->device - LBR_CUDA)};
}

// partial[part][column] = sums of f(row, column) over the part's rows, of which the grid has one in y. f gives lbr_cuda_sums<N>.
template <int N, class F> static __device__ __forceinline__ void lbr_cuda_sum_columns(lbr_cuda_column_room<N> &s, int64_t rows, int columns, lbr_cuda_sums<N> *partial, F f)
{
    const int x = threadIdx.x % LBR_CUDA_COLUMNS, y = threadIdx.x / LBR_CUDA_COLUMNS, column = blockIdx.x * LBR_CUDA_COLUMNS + x;
    lbr_cuda_sums<N> sum = {};
    int64_t begin, end;
    lbr_cuda_part(blockIdx.y, gridDim.y, rows, &begin, &end);
    if (column < columns)
        for (int64_t r = begin + y; r < end; r += LBR_CUDA_WARPS) {
            lbr_cuda_sums<N> one = f(r, column);
            for (int k = 0; k < N; k++) sum.v[k] += one.v[k];
        }
    s.at[y][x] = sum;
    __syncthreads();
    if (y || column >= columns) return;
    for (int w = 1; w < LBR_CUDA_WARPS; w++)
        for (int k = 0; k < N; k++) sum.v[k] += s.at[w][x].v[k];
    partial[(int64_t)blockIdx.y * columns + column] = sum;
}

// The second launch: the sums of a column over all parts.
template <int N> static __device__ __forceinline__ lbr_cuda_sums<N> lbr_cuda_sum_parts(const lbr_cuda_sums<N> *partial, int parts, int columns, int column)
{
    lbr_cuda_sums<N> sum = {};
    for (int p = 0; p < parts; p++)
        for (int k = 0; k < N; k++) sum.v[k] += partial[(int64_t)p * columns + column].v[k];
    return sum;
}
