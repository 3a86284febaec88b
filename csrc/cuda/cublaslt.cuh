// cublaslt.cuh: matrix products through cuBLASLt, where it can be opened. Our own are in product.cuh.
#pragma once
#include "cuda.cuh"

// A dense product y [batch][m][n] = act(a b + bias): a [m,k] (ta: [k,m]), b [k,n] (tb: [n,k]), a_batch and b_batch elements from one to the next (0: one for all),
// bias [n] or NULL. act as in ops.def, without prelu. dtype: f32, f64, f16 or bf16, sums in f32 (f64 in f64).
struct lbr_cuda_gemm {
    int dtype, ta, tb, act;
    int m, n, k, batch;
    int64_t a_batch, b_batch;
};

// Queues it; false when the library is missing or does not take it: nothing is queued then.
bool lbr_cuda_cublaslt(int device, lbr_cuda_gemm d, const void *a, const void *b, const void *bias, void *y);
