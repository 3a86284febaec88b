// walk.cuh: broadcasting over up to three inputs and one output on the device: dims collapsed on the host, places found from an element's number.
#pragma once
#include "convert.cuh"

// Strides count elements of each operand; operand 0 is the output. Passed to kernels by value.
struct lbr_cuda_walk {
    int ndim, operands;
    unsigned n; // elements of the output
    bool flat;  // the output's elements lie side by side, and so do each input's, or it has one for all: operands advance by stride[][0], 1 or 0
    unsigned shape[LBR_MAX_DIMS];
    int stride[4][LBR_MAX_DIMS];
};

static inline lbr_cuda_walk lbr_cuda_walk_of(const lbr_tensor *out, const lbr_tensor *const *in, int nin)
{
    lbr_cuda_walk w = {};
    const lbr_tensor *all[4] = {out};
    for (int i = 0; i < nin; i++) all[1 + i] = in[i];
    w.operands = nin + 1;
    w.n = (unsigned)lbr_tensor_numel(out);
    for (int d = 0; d < out->ndim; d++) {
        int size = out->shape[d], stride[4];
        if (size == 1) continue;
        for (int k = 0; k < w.operands; k++) {
            int own = d - (out->ndim - all[k]->ndim);
            stride[k] = own < 0 || all[k]->shape[own] == 1 ? 0 : all[k]->stride[own];
        }
        bool joins = w.ndim > 0;
        for (int k = 0; joins && k < w.operands; k++) joins = (int64_t)w.stride[k][w.ndim - 1] == (int64_t)stride[k] * size;
        if (joins) w.shape[w.ndim - 1] *= (unsigned)size;
        else w.shape[w.ndim++] = (unsigned)size;
        for (int k = 0; k < w.operands; k++) w.stride[k][w.ndim - 1] = stride[k];
    }
    w.flat = w.ndim == 0 || (w.ndim == 1 && w.stride[0][0] == 1);
    for (int k = 1; k < w.operands; k++) w.flat = w.flat && (w.stride[k][0] == 0 || w.stride[k][0] == 1);
    return w;
}

// Offsets of element i of the output in each operand.
template <int OPERANDS> static __device__ __forceinline__ void lbr_cuda_place(const lbr_cuda_walk &w, unsigned i, int64_t at[OPERANDS])
{
    for (int k = 0; k < OPERANDS; k++) at[k] = 0;
    for (int d = w.ndim - 1; d > 0; d--) {
        unsigned q = i / w.shape[d], r = i - q * w.shape[d];
        for (int k = 0; k < OPERANDS; k++) at[k] += (int64_t)r * w.stride[k][d];
        i = q;
    }
    if (w.ndim > 0)
        for (int k = 0; k < OPERANDS; k++) at[k] += (int64_t)i * w.stride[k][0];
}

// Elements i .. i + 3 of operand k of a flat walk.
template <class S> static __device__ __forceinline__ lbr_cuda_four<S> lbr_cuda_next4(const lbr_cuda_walk &w, int k, const S *data, unsigned i)
{
    if (w.stride[k][0]) return lbr_cuda_read4(data + i, w.n - i);
    S v = data[0];
    return {{v, v, v, v}};
}

// Blocks of 256 threads for n elements; kernels loop, so a large n takes no more blocks than keep the device full.
static inline lbr_cuda_grid lbr_cuda_spread(int64_t n, int device)
{
    enum { THREADS = 256 };
    int64_t blocks = (n + THREADS - 1) / THREADS, most = (int64_t)lbr_cuda_processors(device - LBR_CUDA) * 32;
    return {dim3((unsigned)(blocks < most ? blocks : most)), dim3(THREADS), lbr_cuda_stream(device - LBR_CUDA)};
}
// The same for a walk: a thread takes four elements where they lie side by side.
static inline lbr_cuda_grid lbr_cuda_spread(const lbr_cuda_walk &w, int device) { return lbr_cuda_spread(w.flat ? (w.n + (int64_t)3) / 4 : w.n, device); }
