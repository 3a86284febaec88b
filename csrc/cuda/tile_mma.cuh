// tile_mma.cuh: the product of tile.cuh for f16 and bf16 through tensor cores, with f32 sums: the same sources a and b, the same results y.
#pragma once
#include "ptx.cuh"
#include "tile.cuh"

enum { LBR_MMA_DEPTH = 32 }; // of k in a stage

/* ROWS x CHUNKS pieces of 16 bytes in shared memory. A piece lies not in its own column but in one that depends on its row, so that the eight rows of an ldmatrix,
 * and what a warp stores at once, fall on different banks. */
template <class S, int ROWS, int CHUNKS> struct lbr_cuda_area {
    lbr_cuda_pack<S, 8> piece[ROWS][CHUNKS];
    __device__ __forceinline__ lbr_cuda_pack<S, 8> *at(int row, int chunk) { return &piece[row][CHUNKS >= 8 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3)]; }
};

// A tile of BM (or BN) rows, kept as its source lies in memory: [rows][k] or [k][rows].
template <class S, int WIDTH, bool ALONG_K> struct lbr_cuda_side {
    typedef lbr_cuda_area<S, ALONG_K ? WIDTH : LBR_MMA_DEPTH, (ALONG_K ? LBR_MMA_DEPTH : WIDTH) / 8> Area;
    enum { CHUNKS = (ALONG_K ? LBR_MMA_DEPTH : WIDTH) / 8, PIECES = WIDTH * LBR_MMA_DEPTH / 8 };
};

/* Eight numbers of a source whose pieces are 16 bytes go straight to shared memory while the threads compute; of any other source they are collected one by one. */
template <class S, class A, int WIDTH, int THREADS> struct lbr_cuda_feed {
    typedef lbr_cuda_side<S, WIDTH, A::ALONG_K> Side;
    enum { N = (Side::PIECES + THREADS - 1) / THREADS };
    typename A::Place from[N];
    __device__ __forceinline__ void begin(const A &a, int first)
    {
        LBR_UNROLL for (int i = 0; i < N; i++) {
            const int piece = threadIdx.x + i * THREADS;
            from[i] = a.place(first + (A::ALONG_K ? piece / Side::CHUNKS : piece % Side::CHUNKS * 8));
        }
    }
    __device__ __forceinline__ void issue(const A &a, typename Side::Area &area, int first, int k0, int last)
    {
        LBR_UNROLL for (int i = 0; i < N; i++) {
            const int piece = threadIdx.x + i * THREADS, line = piece / Side::CHUNKS, chunk = piece % Side::CHUNKS, k = k0 + (A::ALONG_K ? chunk * 8 : line);
            if (Side::PIECES % THREADS && piece >= Side::PIECES) continue;
            lbr_cuda_pack<S, 8> *to = area.at(line, chunk);
            if constexpr (A::V == 8) {
                const S *p = a.find(from[i], k, last);
                lbr_async_copy<16>(to, p ? p : a.any(), p != NULL);
            } else {
                lbr_cuda_pack<S, 8> eight;
                LBR_UNROLL for (int e = 0; e < 8; e++)
                    eight.v[e] = lbr_cuda_take<1>(A::ALONG_K ? a.find(from[i], k + e, last) : a.find(a.place(first + chunk * 8 + e), k, last)).v[0];
                *to = eight;
            }
        }
    }
};

template <class S, int BM, int BN, int STAGES, bool A_ALONG, bool B_ALONG> struct lbr_cuda_stages {
    struct {
        typename lbr_cuda_side<S, BM, A_ALONG>::Area a;
        typename lbr_cuda_side<S, BN, B_ALONG>::Area b;
    } of[STAGES];
};

/* A block makes BM x BN results with 32 WARPS_M WARPS_N threads; while a stage of k is multiplied, the next STAGES - 1 are on their way. A, B, Y, parts: as in tile.cuh;
 * a source of V = 8 also has any(), an address that may be named where nothing is read. */
template <int BM, int BN, int WARPS_M, int WARPS_N, int STAGES, class S, class A, class B, class Y>
static __global__ void __launch_bounds__(32 * WARPS_M * WARPS_N) lbr_cuda_tile_mma(A a, B b, Y y, int z0, int zs, int parts, float *partial)
{
    enum { THREADS = 32 * WARPS_M * WARPS_N, WM = BM / WARPS_M, WN = BN / WARPS_N, TM = WM / 16, TN = WN / 8, DEPTH = LBR_MMA_DEPTH };
    typedef lbr_cuda_stages<S, BM, BN, STAGES, A::ALONG_K, B::ALONG_K> Stages;
    LBR_SHARED(Stages, s);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row_of_warp = warp / WARPS_N * WM, column_of_warp = warp % WARPS_N * WN;
    const int part = blockIdx.z % parts, z = z0 + blockIdx.z / parts;
    a.begin(z), b.begin(z), y.begin(z);
    const int row0 = blockIdx.x * BM, column0 = blockIdx.y * BN, rows = a.rows, columns = b.rows;
    if (row0 >= rows || column0 >= columns) return;
    const int each = ((a.depth + DEPTH - 1) / DEPTH + parts - 1) / parts * DEPTH, first = part * each, last = min(a.depth, first + each);
    const int steps = last > first ? (last - first + DEPTH - 1) / DEPTH : 0;

    lbr_cuda_feed<S, A, BM, THREADS> feed_a;
    lbr_cuda_feed<S, B, BN, THREADS> feed_b;
    feed_a.begin(a, row0), feed_b.begin(b, column0);
    auto issue = [&](int step) {
        if (step < steps) {
            feed_a.issue(a, s.of[step % STAGES].a, row0, first + step * DEPTH, last);
            feed_b.issue(b, s.of[step % STAGES].b, column0, first + step * DEPTH, last);
        }
        lbr_async_commit(); // also of nothing, so that the count of groups is that of steps
    };
    LBR_UNROLL for (int i = 0; i < STAGES - 1; i++) issue(i);

    const int g = lane >> 2, t = lane & 3;
    float sum[TM][TN][4];
    LBR_UNROLL for (int j = 0; j < TN; j++)
        LBR_UNROLL for (int e = 0; e < 2; e++) {
            const int column = column0 + column_of_warp + j * 8 + 2 * t + e;
            const float start = parts == 1 && column < columns ? y.start(column) : 0.f;
            LBR_UNROLL for (int i = 0; i < TM; i++) sum[i][j][e] = sum[i][j][2 + e] = start;
        }
    const int matrix = lane >> 3, line = lane & 7; // of an ldmatrix, the row that this lane names
    for (int step = 0; step < steps; step++) {
        lbr_async_wait<STAGES - 2>();
        __syncthreads(); // this stage has arrived for all, and all are done with the one that is filled next
        issue(step + STAGES - 1);
        auto &stage = s.of[step % STAGES];
        LBR_UNROLL for (int k = 0; k < DEPTH; k += 16) {
            unsigned u[TM][4], v[TN / 2][4];
            LBR_UNROLL for (int i = 0; i < TM; i++) {
                const int row = row_of_warp + i * 16 + (matrix & 1) * 8, deep = k + (matrix >> 1) * 8;
                if (A::ALONG_K) lbr_ldmatrix4(u[i], stage.a.at(row + line, deep / 8));
                else lbr_ldmatrix4_trans(u[i], stage.a.at(deep + line, row / 8));
            }
            LBR_UNROLL for (int j = 0; j < TN / 2; j++) {
                const int column = column_of_warp + j * 16 + (matrix >> 1) * 8, deep = k + (matrix & 1) * 8;
                if (B::ALONG_K) lbr_ldmatrix4(v[j], stage.b.at(column + line, deep / 8));
                else lbr_ldmatrix4_trans(v[j], stage.b.at(deep + line, column / 8));
            }
            LBR_UNROLL for (int i = 0; i < TM; i++)
                LBR_UNROLL for (int j = 0; j < TN; j++) {
                    const unsigned two[2] = {v[j / 2][j % 2 * 2], v[j / 2][j % 2 * 2 + 1]};
                    lbr_mma<S>(sum[i][j], u[i], two);
                }
        }
    }
    LBR_UNROLL for (int i = 0; i < TM; i++)
        LBR_UNROLL for (int half = 0; half < 2; half++) {
            const int row = row0 + row_of_warp + i * 16 + half * 8 + g;
            if (row >= rows) continue;
            LBR_UNROLL for (int j = 0; j < TN; j++) {
                const int column = column0 + column_of_warp + j * 8 + 2 * t;
                if (parts == 1) y.template put<2>(row, column, &sum[i][j][2 * half], columns);
                else
                    for (int e = 0; e < 2 && column + e < columns; e++) partial[(((int64_t)part * zs + z) * rows + row) * columns + column + e] = sum[i][j][2 * half + e];
            }
        }
}

template <int BM, int BN, int WARPS_M, int WARPS_N, int STAGES, class S, class A, class B, class Y> static int lbr_cuda_mma_launch(const lbr_cuda_job &j, const A &a, const B &b, const Y &y)
{
    void *room;
    int parts, rc = lbr_cuda_share(j, BM, BN, sizeof(float), &parts, &room);
    if (rc) return rc;
    float *partial = (float *)room;
    for (int z = 0; z < j.zs; z += 32768) { // the grid's z is limited
        const int some = parts > 1 || j.zs - z < 32768 ? j.zs - z : 32768, zs = j.zs;
        lbr_cuda_grid g = {dim3((unsigned)((j.rows + BM - 1) / BM), (unsigned)((j.columns + BN - 1) / BN), (unsigned)(some * parts)), dim3(32 * WARPS_M * WARPS_N), lbr_cuda_stream(j.device)};
        LBR_LAUNCH((lbr_cuda_tile_mma<BM, BN, WARPS_M, WARPS_N, STAGES, S, A, B, Y>), g, a, b, y, z, zs, parts, partial);
    }
    if (parts > 1) lbr_cuda_join_run(j, (const float *)partial, y, parts);
    return 0;
}

/* Which tile: 128 x 128 where that gives every processor a block, three stages filling the 48 KB that a block has without asking; 128 x 32 for up to 32 columns (early
 * layers of networks, small heads); else 64 x 64 with four stages, whose k is shared among blocks where even they are few. Numbers that are collected one by one
 * always go there: no tile would hide what that costs. */
template <class S, class A, class B, class Y> static int lbr_cuda_mma_run(const lbr_cuda_job &j, const A &a, const B &b, const Y &y)
{
    if (!j.rows || !j.columns || !j.zs) return 0;
    if constexpr (A::V > 1 && B::V > 1) {
        const int processors = lbr_cuda_processors(j.device);
        if (j.columns > 64 && lbr_cuda_tiles_of(j, 128, 128) >= processors) return lbr_cuda_mma_launch<128, 128, 2, 4, 3, S>(j, a, b, y);
        if (j.columns <= 32 && lbr_cuda_tiles_of(j, 128, 32) >= processors) return lbr_cuda_mma_launch<128, 32, 4, 1, 4, S>(j, a, b, y);
    }
    return lbr_cuda_mma_launch<64, 64, 2, 2, 4, S>(j, a, b, y);
}
