// product.cuh: matrix products of our own: y(m,n) = act(sum over k of a(m,k) b(n,k) + bias(n)), operands found by strides. No library is needed.
#pragma once
#include "convert.cuh"

// Element (row, k): data[row / inner * outer_step + row % inner * step + k / k_inner * k_outer_step + k % k_inner * k_step].
struct lbr_cuda_operand {
    const void *data;
    int inner;
    int64_t outer_step, step;
    int k_inner;
    int64_t k_outer_step, k_step;
};

// A plain matrix whose rows are `step` apart.
static inline lbr_cuda_operand lbr_cuda_rows(const void *data, int64_t step, int64_t k_step) { return {data, 1 << 30, 0, step, 1 << 30, 0, k_step}; }

// y [batch][m][n] dense; a, b advance by their batch steps. act as in ops.def, without prelu. dtype: f32, f64, f16 or bf16, sums in f32 (f64 in f64).
void lbr_cuda_product(int dtype, lbr_cuda_operand a, lbr_cuda_operand b, const void *bias, int act, void *y, int m, int n, int k, int batch, int64_t a_batch, int64_t b_batch,
                      cudaStream_t stream);
