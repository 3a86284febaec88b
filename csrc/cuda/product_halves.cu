// product_halves.cu: matrix products in f16 and bf16 through tensor cores, sums in f32.
#include "sources.cuh"
#include "tile_mma.cuh"

template <class S>
static int product(const lbr_cuda_job &j, const lbr_cuda_operand &a, const lbr_cuda_operand &b, const void *bias, int act, void *to, int64_t a_part, int64_t b_part)
{
    const lbr_cuda_dense<S, float> y = {(S *)to, (const S *)bias, act, j.columns, (int64_t)j.rows * j.columns};
    return lbr_cuda_with_sources<S, 8>(a, b, j.rows, j.columns, j.depth, a_part, b_part, [&](const auto &pa, const auto &pb) { return lbr_cuda_mma_run<S>(j, pa, pb, y); });
}

int lbr_cuda_product_halves(const lbr_cuda_job &j, int dtype, const lbr_cuda_operand &a, const lbr_cuda_operand &b, const void *bias, int act, void *y, int64_t a_part, int64_t b_part)
{
    return dtype == LBR_F16 ? product<__half>(j, a, b, bias, act, y, a_part, b_part) : product<__nv_bfloat16>(j, a, b, bias, act, y, a_part, b_part);
}
