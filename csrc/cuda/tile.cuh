// tile.cuh: the tiled product that matrix products and convolutions in f32 and f64 share: y(row, column) = sum over k of a(row, k) b(column, k), in one fixed order of k.
// What a, b and y are is the caller's; f16 and bf16 go through tile_mma.cuh, which takes the same sources.
#pragma once
#include "convert.cuh"

// n / d for 0 <= n < 2^31 without a division. Source: Granlund and Montgomery, "Division by invariant integers using multiplication", 1994.
struct lbr_cuda_divider {
    unsigned d, factor, shift;
    __device__ __forceinline__ int over(int n) const { return (int)((__umulhi((unsigned)n, factor) + (unsigned)n) >> shift); }
};
static inline lbr_cuda_divider lbr_cuda_divide_by(int d)
{
    unsigned shift = 0;
    while ((int64_t)1 << shift < d) shift++;
    return {(unsigned)d, d > 0 ? (unsigned)((((uint64_t)1 << 32) * (((uint64_t)1 << shift) - (uint64_t)d)) / (uint64_t)d + 1) : 0, shift};
}

// W numbers that are moved in as few loads and stores as their place allows.
template <class T, int W> struct __align__((sizeof(T) * W > 16 ? 16 : sizeof(T) * W)) lbr_cuda_pack { T v[W]; };
template <class T> static inline bool lbr_cuda_packs(const void *p, int W) { return (uintptr_t)p % (sizeof(T) * (size_t)W > 16 ? 16 : sizeof(T) * (size_t)W) == 0; }

// What sums of an element are made in.
template <class S> struct lbr_cuda_sum { typedef float type; };
template <> struct lbr_cuda_sum<double> { typedef double type; };

// W elements as numbers that sums are made in, and back.
template <int W, class S> static __device__ __forceinline__ lbr_cuda_pack<typename lbr_cuda_sum<S>::type, W> lbr_cuda_widen(const S *p)
{
    const lbr_cuda_pack<S, W> v = *(const lbr_cuda_pack<S, W> *)p;
    lbr_cuda_pack<typename lbr_cuda_sum<S>::type, W> out;
    LBR_UNROLL for (int e = 0; e < W; e++) out.v[e] = lbr_cuda_load(v.v[e]);
    return out;
}
template <class S, class T, int W> static __device__ __forceinline__ void lbr_cuda_narrow(S *p, const lbr_cuda_pack<T, W> &v)
{
    lbr_cuda_pack<S, W> out;
    LBR_UNROLL for (int e = 0; e < W; e++) out.v[e] = lbr_cuda_store<S>(v.v[e]);
    *(lbr_cuda_pack<S, W> *)p = out;
}

// W numbers from p on; zeros where there is no p.
template <int W, class T> static __device__ __forceinline__ lbr_cuda_pack<T, W> lbr_cuda_take(const T *p)
{
    lbr_cuda_pack<T, W> v = {};
    if (p) v = *(const lbr_cuda_pack<T, W> *)p;
    return v;
}

static __device__ __forceinline__ float lbr_cuda_fma(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ __forceinline__ double lbr_cuda_fma(double a, double b, double c) { return fma(a, b, c); }

template <class T, int BM, int BN, int BK> struct __align__(16) lbr_cuda_tiles { T a[2][BK][BM + 4], b[2][BK][BN + 4]; };

/* A block makes BM x BN results, a thread TM x TN of them; tiles of BK of k alternate between two buffers, the next one is fetched while this one is worked on.
 *   A, B: a source of numbers: V numbers at a time, side by side along k (ALONG_K) or along the rows
 *     begin(z)              the block is about part z of the problem (group, matrix of a batch); sets rows and, of A, depth
 *     Place place(row)      what of a number's place does not depend on k
 *     find(place, k, last)  where the V numbers from k on lie; NULL where there are zeros: outside, and from k = last on
 *   Y: begin(z); start(column): what a sum begins with; put<W>(row, column, v, columns): W results, of which those below `columns` exist
 * parts > 1: k is shared by so many blocks, whose sums go to partial [parts][zs][rows][columns]; lbr_cuda_join adds them up in order. */
template <int BM, int BN, int BK, int TM, int TN, class T, class A, class B, class Y>
static __global__ void __launch_bounds__(BM / TM * (BN / TN)) lbr_cuda_tile(A a, B b, Y y, int z0, int zs, int parts, T *partial)
{
    enum { THREADS = BM / TM * (BN / TN), NA = (BM * BK / A::V + THREADS - 1) / THREADS, NB = (BN * BK / B::V + THREADS - 1) / THREADS };
    enum { WM = TM < 4 ? TM : 4, WN = TN < 4 ? TN : 4 };
    typedef lbr_cuda_tiles<T, BM, BN, BK> Tiles;
    LBR_SHARED(Tiles, s);
    const int thread = threadIdx.x, part = blockIdx.z % parts, z = z0 + blockIdx.z / parts;
    a.begin(z), b.begin(z), y.begin(z);
    const int row0 = blockIdx.x * BM, column0 = blockIdx.y * BN, rows = a.rows, columns = b.rows;
    if (row0 >= rows || column0 >= columns) return;
    const int each = ((a.depth + BK - 1) / BK + parts - 1) / parts * BK, first = part * each, last = min(a.depth, first + each);

    typename A::Place from_a[NA];
    typename B::Place from_b[NB];
    lbr_cuda_pack<T, A::V> next_a[NA];
    lbr_cuda_pack<T, B::V> next_b[NB];
    const int ra = A::ALONG_K ? BK / A::V : BM / A::V, rb = B::ALONG_K ? BK / B::V : BN / B::V; // chunks side by side in memory
    LBR_UNROLL for (int i = 0; i < NA; i++) from_a[i] = a.place(row0 + (A::ALONG_K ? (thread + i * THREADS) / ra : (thread + i * THREADS) % ra * A::V));
    LBR_UNROLL for (int i = 0; i < NB; i++) from_b[i] = b.place(column0 + (B::ALONG_K ? (thread + i * THREADS) / rb : (thread + i * THREADS) % rb * B::V));

    auto fetch = [&](int k0) {
        LBR_UNROLL for (int i = 0; i < NA; i++) {
            const int chunk = thread + i * THREADS;
            if (chunk < BM * BK / A::V) next_a[i] = lbr_cuda_take<A::V>(a.find(from_a[i], k0 + (A::ALONG_K ? chunk % ra * A::V : chunk / ra), last));
        }
        LBR_UNROLL for (int i = 0; i < NB; i++) {
            const int chunk = thread + i * THREADS;
            if (chunk < BN * BK / B::V) next_b[i] = lbr_cuda_take<B::V>(b.find(from_b[i], k0 + (B::ALONG_K ? chunk % rb * B::V : chunk / rb), last));
        }
    };
    auto keep = [&](int buffer) {
        LBR_UNROLL for (int i = 0; i < NA; i++) {
            const int chunk = thread + i * THREADS, q = chunk % ra * A::V, r = chunk / ra;
            if (chunk >= BM * BK / A::V) continue;
            if (A::ALONG_K)
                for (int e = 0; e < A::V; e++) s.a[buffer][q + e][r] = next_a[i].v[e];
            else *(lbr_cuda_pack<T, A::V> *)&s.a[buffer][r][q] = next_a[i];
        }
        LBR_UNROLL for (int i = 0; i < NB; i++) {
            const int chunk = thread + i * THREADS, q = chunk % rb * B::V, r = chunk / rb;
            if (chunk >= BN * BK / B::V) continue;
            if (B::ALONG_K)
                for (int e = 0; e < B::V; e++) s.b[buffer][q + e][r] = next_b[i].v[e];
            else *(lbr_cuda_pack<T, B::V> *)&s.b[buffer][r][q] = next_b[i];
        }
    };

    // a thread's rows and columns: groups of four, so that the threads of a warp read neighbouring places
    const int tx = thread % (BN / TN), ty = thread / (BN / TN);
    T sum[TM][TN];
    LBR_UNROLL for (int j = 0; j < TN; j++) {
        const int column = column0 + j / WN * (BN / (TN / WN)) + tx * WN + j % WN;
        const T start = parts == 1 && column < columns ? y.start(column) : (T)0;
        LBR_UNROLL for (int i = 0; i < TM; i++) sum[i][j] = start;
    }
    fetch(first);
    keep(0);
    __syncthreads();
    for (int k0 = first, buffer = 0; k0 < last; k0 += BK, buffer ^= 1) {
        if (k0 + BK < last) fetch(k0 + BK);
        LBR_UNROLL for (int q = 0; q < BK; q++) {
            lbr_cuda_pack<T, WM> u[TM / WM];
            lbr_cuda_pack<T, WN> v[TN / WN];
            LBR_UNROLL for (int i = 0; i < TM / WM; i++) u[i] = *(const lbr_cuda_pack<T, WM> *)&s.a[buffer][q][i * (BM / (TM / WM)) + ty * WM];
            LBR_UNROLL for (int j = 0; j < TN / WN; j++) v[j] = *(const lbr_cuda_pack<T, WN> *)&s.b[buffer][q][j * (BN / (TN / WN)) + tx * WN];
            LBR_UNROLL for (int i = 0; i < TM; i++)
                LBR_UNROLL for (int j = 0; j < TN; j++) sum[i][j] = lbr_cuda_fma(u[i / WM].v[i % WM], v[j / WN].v[j % WN], sum[i][j]);
        }
        if (k0 + BK < last) keep(buffer ^ 1);
        __syncthreads();
    }
    LBR_UNROLL for (int i = 0; i < TM; i++) {
        const int row = row0 + i / WM * (BM / (TM / WM)) + ty * WM + i % WM;
        if (row >= rows) continue;
        LBR_UNROLL for (int j = 0; j < TN; j += WN) {
            const int column = column0 + j / WN * (BN / (TN / WN)) + tx * WN;
            if (parts == 1) y.template put<WN>(row, column, &sum[i][j], columns);
            else
                for (int e = 0; e < WN && column + e < columns; e++) partial[(((int64_t)part * zs + z) * rows + row) * columns + column + e] = sum[i][j + e];
        }
    }
}

// The results of a product whose k was shared: parts are added in order, to what the sum begins with.
template <class T, class Y> static __global__ void lbr_cuda_join(const T *partial, Y y, int rows, int columns, int zs, int parts)
{
    const int64_t area = (int64_t)rows * columns;
    y.begin(blockIdx.z);
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < area; i += (int64_t)gridDim.x * blockDim.x) {
        const int row = (int)(i / columns), column = (int)(i - (int64_t)row * columns);
        T sum = y.start(column);
        for (int p = 0; p < parts; p++) sum += partial[((int64_t)p * zs + blockIdx.z) * area + i];
        y.template put<1>(row, column, &sum, columns);
    }
}

// A product to be launched: zs problems of one size. call: whose workspace may be used; NULL: k is not shared. most: the largest number of parts that is wanted.
struct lbr_cuda_job {
    const char *name;
    lbr_call *call;
    int device, rows, columns, depth, zs, most;
};

static inline int lbr_cuda_job_of(lbr_call *c, int64_t rows, int64_t columns, int64_t depth, int64_t zs, int most, lbr_cuda_job *job)
{
    if (rows > INT32_MAX - 128 || columns > 65535 * 32 || depth > INT32_MAX - 128 || zs > INT32_MAX)
        return lbr_fail(LBR_EUNSUPPORTED, "%s: %lld products of %lld x %lld x %lld", lbr_op_name(c->op), (long long)zs, (long long)rows, (long long)columns, (long long)depth);
    *job = {lbr_op_name(c->op), c, c->device - LBR_CUDA, (int)rows, (int)columns, (int)depth, (int)zs, most};
    return 0;
}

static inline int64_t lbr_cuda_tiles_of(const lbr_cuda_job &j, int BM, int BN) { return (int64_t)((j.rows + BM - 1) / BM) * ((j.columns + BN - 1) / BN) * j.zs; }

/* How many blocks share k: where the tiles alone leave processors idle, as many as there are processors for, of at least 256 of k each. The sums then depend on
 * the number of processors, but not on anything else. *partial: room for the parts, numbers of `size` bytes. */
static inline int lbr_cuda_share(const lbr_cuda_job &j, int BM, int BN, size_t size, int *parts, void **partial)
{
    const int64_t tiles = lbr_cuda_tiles_of(j, BM, BN);
    int64_t n = lbr_cuda_processors(j.device) / tiles;
    n = n < j.depth / 256 ? n : j.depth / 256;
    n = n < j.most ? n : j.most;
    *parts = n < 2 || !j.call || n * j.zs > 65535 ? 1 : (int)n;
    *partial = *parts == 1 ? NULL : lbr_cuda_workspace(j.call, (int64_t)size * *parts * j.zs * j.rows * j.columns);
    return *parts > 1 && !*partial ? LBR_ENOMEM : 0;
}

template <class T, class Y> static void lbr_cuda_join_run(const lbr_cuda_job &j, const T *partial, const Y &y, int parts)
{
    const int64_t blocks = ((int64_t)j.rows * j.columns + 255) / 256;
    lbr_cuda_grid g = {dim3((unsigned)(blocks < 65536 ? blocks : 65536), 1, (unsigned)j.zs), dim3(256), lbr_cuda_stream(j.device)};
    LBR_LAUNCH((lbr_cuda_join<T, Y>), g, partial, y, j.rows, j.columns, j.zs, parts);
}

// One launch, and the joining one where k is shared.
template <int BM, int BN, int BK, int TM, int TN, class T, class A, class B, class Y> static int lbr_cuda_tile_launch(const lbr_cuda_job &j, const A &a, const B &b, const Y &y)
{
    void *room;
    int parts, rc = lbr_cuda_share(j, BM, BN, sizeof(T), &parts, &room);
    if (rc) return rc;
    T *partial = (T *)room;
    for (int z = 0; z < j.zs; z += 32768) { // the grid's z is limited
        const int some = parts > 1 || j.zs - z < 32768 ? j.zs - z : 32768, zs = j.zs;
        lbr_cuda_grid g = {dim3((unsigned)((j.rows + BM - 1) / BM), (unsigned)((j.columns + BN - 1) / BN), (unsigned)(some * parts)), dim3(BM / TM * (BN / TN)), lbr_cuda_stream(j.device)};
        LBR_LAUNCH((lbr_cuda_tile<BM, BN, BK, TM, TN, T, A, B, Y>), g, a, b, y, z, zs, parts, partial);
    }
    if (parts > 1) lbr_cuda_join_run(j, (const T *)partial, y, parts);
    return 0;
}

/* Which tile: 128 x 128 where that still gives every processor two blocks (most products a number loaded), 128 x 32 for up to 32 columns (a network's early layers:
 * many pixels, few channels), 64 x 64 while that fills the device, and 32 x 32 for what is left and
 * for f64, in which gradients are checked and nothing is in a hurry. */
template <class T, class A, class B, class Y> static int lbr_cuda_tile_run(const lbr_cuda_job &j, const A &a, const B &b, const Y &y)
{
    const int processors = lbr_cuda_processors(j.device);
    if (!j.rows || !j.columns || !j.zs) return 0;
    if constexpr (sizeof(T) == 4 && A::V > 1 && B::V > 1)
        if (j.columns > 64 && lbr_cuda_tiles_of(j, 128, 128) >= 2 * processors) return lbr_cuda_tile_launch<128, 128, 8, 8, 8, T>(j, a, b, y);
    if constexpr (sizeof(T) == 4) {
        if (j.columns <= 32 && lbr_cuda_tiles_of(j, 128, 32) >= processors) return lbr_cuda_tile_launch<128, 32, 16, 4, 4, T>(j, a, b, y);
        if (j.columns > 32 && lbr_cuda_tiles_of(j, 64, 64) >= processors) return lbr_cuda_tile_launch<64, 64, 16, 4, 4, T>(j, a, b, y);
    }
    return lbr_cuda_tile_launch<32, 32, 16, 2, 2, T>(j, a, b, y);
}
