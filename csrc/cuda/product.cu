// product.cu: matmul and linear: through cuBLASLt where that is there and takes them, else through tiled products of our own: f32 and f64 here, f16 and bf16 in
// product_halves.cu. What other kernels multiply (lbr_cuda_product) is always ours.
#include "cublaslt.cuh"
#include "sources.cuh"
#include "walk.cuh"

template <class T, int V> static int product(const lbr_cuda_job &j, const lbr_cuda_operand &a, const lbr_cuda_operand &b, const void *bias, int act, void *to, int64_t a_part, int64_t b_part)
{
    const lbr_cuda_dense<T, T> y = {(T *)to, (const T *)bias, act, j.columns, (int64_t)j.rows * j.columns};
    return lbr_cuda_with_sources<T, V>(a, b, j.rows, j.columns, j.depth, a_part, b_part, [&](const auto &pa, const auto &pb) { return lbr_cuda_tile_run<T>(j, pa, pb, y); });
}

static int run(const lbr_cuda_job &j, int dtype, const lbr_cuda_operand &a, const lbr_cuda_operand &b, const void *bias, int act, void *y, int64_t a_part, int64_t b_part)
{
    switch (dtype) {
    case LBR_F32: return product<float, 4>(j, a, b, bias, act, y, a_part, b_part);
    case LBR_F64: return product<double, 1>(j, a, b, bias, act, y, a_part, b_part);
    default: return lbr_cuda_product_halves(j, dtype, a, b, bias, act, y, a_part, b_part);
    }
}

void lbr_cuda_product(int dtype, lbr_cuda_operand a, lbr_cuda_operand b, const void *bias, int act, void *y, int m, int n, int k, int batch, int64_t a_batch, int64_t b_batch,
                      cudaStream_t)
{
    int device = 0;
    cudaGetDevice(&device);
    run({"product", NULL, device, m, n, k, batch, 1}, dtype, a, b, bias, act, y, a_batch, b_batch);
}

// Whole numbers: a thread an element; sums wrap around.
static __global__ void whole(int64_t all, int m, int n, int k, lbr_cuda_operand a, lbr_cuda_operand b, int64_t a_batch, int64_t b_batch, int32_t *y)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
        const int32_t *p = (const int32_t *)a.data + i / n / m * a_batch + i / n % m * a.step, *q = (const int32_t *)b.data + i / n / m * b_batch + i % n * b.step;
        unsigned sum = 0;
        for (int e = 0; e < k; e++) sum += (unsigned)p[e * a.k_step] * (unsigned)q[e * b.k_step];
        y[i] = (int32_t)sum;
    }
}

int lbr_cuda_matmul(lbr_call *c)
{
    const lbr_matmul_attr *at = (const lbr_matmul_attr *)c->attr;
    const lbr_tensor *a = &c->in[0], *b = &c->in[1], *y = &c->out[0];
    const int m = y->shape[y->ndim - 2], n = y->shape[y->ndim - 1], k = a->shape[a->ndim - 1 - (at->ta != 0)];
    int64_t batch = 1, rows = m;
    for (int d = 0; d < y->ndim - 2; d++) batch *= y->shape[d];
    if (b->ndim == 2 && !at->ta) rows *= batch, batch = 1; // one matrix for all: one product of more rows
    const int64_t a_batch = (int64_t)m * k, b_batch = b->ndim == 2 ? 0 : (int64_t)n * k;
    lbr_cuda_operand pa = at->ta ? lbr_cuda_rows(a->data, 1, m) : lbr_cuda_rows(a->data, k, 1), pb = at->tb ? lbr_cuda_rows(b->data, k, 1) : lbr_cuda_rows(b->data, 1, n);
    if (a->dtype == LBR_I32) {
        const int64_t all = batch * rows * n;
        lbr_cuda_grid g = lbr_cuda_spread(all, c->device);
        if (all) LBR_LAUNCH(whole, g, all, (int)rows, n, k, pa, pb, a_batch, b_batch, (int32_t *)y->data);
        return 0;
    }
    const lbr_cuda_gemm gemm = {a->dtype, at->ta != 0, at->tb != 0, 0, (int)rows, n, k, (int)batch, a_batch, b_batch};
    if (lbr_cuda_cublaslt(c->device - LBR_CUDA, gemm, a->data, b->data, NULL, y->data)) return 0;
    lbr_cuda_job j = {};
    int rc = lbr_cuda_job_of(c, rows, n, k, batch, 64, &j);
    return rc ? rc : run(j, a->dtype, pa, pb, NULL, 0, y->data, a_batch, b_batch);
}

int lbr_cuda_linear(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    const int64_t n = w->shape[0], k = w->shape[1], m = n ? lbr_tensor_numel(&c->out[0]) / n : 0;
    const int act = ((const lbr_linear_attr *)c->attr)->act;
    const void *bias = lbr_present(b) ? b->data : NULL;
    if (lbr_cuda_cublaslt(c->device - LBR_CUDA, {x->dtype, 0, 1, act, (int)m, (int)n, (int)k, 1, 0, 0}, x->data, w->data, bias, c->out[0].data)) return 0;
    lbr_cuda_job j = {};
    int rc = lbr_cuda_job_of(c, m, n, k, 1, 64, &j);
    return rc ? rc : run(j, x->dtype, lbr_cuda_rows(x->data, k, 1), lbr_cuda_rows(w->data, k, 1), bias, act, c->out[0].data, 0, 0);
}
