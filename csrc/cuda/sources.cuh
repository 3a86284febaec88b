// sources.cuh: plain matrices as sources of the tiled products (tile.cuh, tile_mma.cuh), and their results.
#pragma once
#include "activate.cuh"
#include "product.cuh"
#include "tile.cuh"

// Numbers lie side by side along k, rows are `step` apart.
template <class S, int N> struct lbr_cuda_lines {
    enum { V = N, ALONG_K = 1 };
    const S *data;
    int rows, depth;
    int64_t step, part; // from one row, from one problem to the next
    typedef const S *Place;
    __device__ void begin(int z) { data += z * part; }
    __device__ Place place(int row) const { return row < rows ? data + row * step : NULL; }
    __device__ const S *any() const { return data; }
    __device__ const S *find(Place row, int at, int last) const { return row && at < last ? row + at : NULL; }
};

// Rows lie side by side, numbers along k are `step` apart.
template <class S, int N> struct lbr_cuda_slices {
    enum { V = N, ALONG_K = 0 };
    const S *data;
    int rows, depth;
    int64_t step, part;
    typedef const S *Place;
    __device__ void begin(int z) { data += z * part; }
    __device__ Place place(int row) const { return row < rows ? data + row : NULL; }
    __device__ const S *any() const { return data; }
    __device__ const S *find(Place row, int at, int last) const { return row && at < last ? row + at * step : NULL; }
};

// Any operand, number by number; ALONG: which way neighbours in memory are taken by neighbouring threads.
template <class S, bool ALONG> struct lbr_cuda_scattered {
    enum { V = 1, ALONG_K = ALONG };
    lbr_cuda_operand o;
    int rows, depth;
    int64_t part;
    typedef const S *Place;
    __device__ void begin(int z) { o.data = (const S *)o.data + z * part; }
    __device__ Place place(int row) const
    {
        const int outer = row / o.inner;
        return row < rows ? (const S *)o.data + outer * o.outer_step + (row - outer * o.inner) * o.step : NULL;
    }
    __device__ const S *find(Place row, int at, int last) const
    {
        const int outer = at / o.k_inner;
        return row && at < last ? row + outer * o.k_outer_step + (at - outer * o.k_inner) * o.k_step : NULL;
    }
};

static inline bool lbr_cuda_plain(const lbr_cuda_operand &o) { return o.inner >= 1 << 30 && o.k_inner >= 1 << 30; }
// May V numbers be moved at once along k, across rows?
template <class S> static inline bool lbr_cuda_is_lines(const lbr_cuda_operand &o, int depth, int64_t part, int V)
{
    return lbr_cuda_plain(o) && o.k_step == 1 && o.step % V == 0 && depth % V == 0 && part % V == 0 && lbr_cuda_packs<S>(o.data, V);
}
template <class S> static inline bool lbr_cuda_is_slices(const lbr_cuda_operand &o, int rows, int64_t part, int V)
{
    return lbr_cuda_plain(o) && o.step == 1 && o.k_step % V == 0 && rows % V == 0 && part % V == 0 && lbr_cuda_packs<S>(o.data, V);
}

// y [zs][rows][columns] = act(sum + bias), bias of y's dtype or NULL. T: what sums are made in.
template <class S, class T> struct lbr_cuda_dense {
    S *y;
    const S *bias;
    int act, columns;
    int64_t part;
    __device__ void begin(int z) { y += z * part; }
    __device__ T start(int) const { return 0; }
    template <int W> __device__ void put(int row, int column, const T *v, int n) const
    {
        lbr_cuda_pack<S, W> out;
        S *to = y + (int64_t)row * columns + column;
        if (column >= n) return;
        LBR_UNROLL for (int e = 0; e < W; e++) {
            T u = bias && column + e < n ? v[e] + (T)lbr_cuda_load(bias[column + e]) : v[e];
            out.v[e] = lbr_cuda_store<S>(lbr_cuda_activate(act, u));
        }
        if (columns % W == 0) *(lbr_cuda_pack<S, W> *)to = out;
        else
            for (int e = 0; e < W && column + e < n; e++) to[e] = out.v[e];
    }
};

/* Calls run(a, b) with the sources that fit: V numbers at once where shapes and places allow it, else number by number. The three ways that operands of matrix products
 * lie (x w^T, x w, x^T w) have kernels that move several numbers at once; x^T w^T, which nobody asks for in a hurry, has not. Kernels are counted: each is compiled for every chip. */
template <class S, int V, class F> static int lbr_cuda_with_sources(const lbr_cuda_operand &a, const lbr_cuda_operand &b, int m, int n, int k, int64_t a_part, int64_t b_part, F run)
{
    const S *pa = (const S *)a.data, *pb = (const S *)b.data;
    if constexpr (V > 1) {
        const bool a_lines = lbr_cuda_is_lines<S>(a, k, a_part, V), b_lines = lbr_cuda_is_lines<S>(b, k, b_part, V), b_slices = lbr_cuda_is_slices<S>(b, n, b_part, V);
        if (a_lines && b_lines) return run(lbr_cuda_lines<S, V>{pa, m, k, a.step, a_part}, lbr_cuda_lines<S, V>{pb, n, k, b.step, b_part});
        if (a_lines && b_slices) return run(lbr_cuda_lines<S, V>{pa, m, k, a.step, a_part}, lbr_cuda_slices<S, V>{pb, n, k, b.k_step, b_part});
        if (lbr_cuda_is_slices<S>(a, m, a_part, V) && b_slices) return run(lbr_cuda_slices<S, V>{pa, m, k, a.k_step, a_part}, lbr_cuda_slices<S, V>{pb, n, k, b.k_step, b_part});
    }
    if (a.k_step == 1 && b.k_step == 1) return run(lbr_cuda_scattered<S, true>{a, m, k, a_part}, lbr_cuda_scattered<S, true>{b, n, k, b_part});
    return run(lbr_cuda_scattered<S, false>{a, m, k, a_part}, lbr_cuda_scattered<S, false>{b, n, k, b_part});
}

// Products in f16 and bf16 (product_halves.cu).
int lbr_cuda_product_halves(const lbr_cuda_job &j, int dtype, const lbr_cuda_operand &a, const lbr_cuda_operand &b, const void *bias, int act, void *y, int64_t a_part, int64_t b_part);
