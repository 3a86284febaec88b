// product.cu: matmul and linear through a tiled product of our own. Tensor cores and cuBLASLt are not used here.
#include "product.cuh"

enum { TILE = 32, DEPTH = 16, ROWS = 8 }; // a block makes 32 x 32 results with 32 x 8 threads, four results each

template <class T> struct Sum { typedef float type; };
template <> struct Sum<double> { typedef double type; };
template <class A> struct Tiles { A a[DEPTH][TILE + 1], b[DEPTH][TILE + 1]; };

template <class T> static __device__ T element(const lbr_cuda_operand &o, int64_t shift, int row, int k)
{
    int outer = row / o.inner, k_outer = k / o.k_inner;
    return ((const T *)o.data)[shift + outer * o.outer_step + (row - outer * o.inner) * o.step + k_outer * o.k_outer_step + (k - k_outer * o.k_inner) * o.k_step];
}

template <class T> static __global__ void product(lbr_cuda_operand a, lbr_cuda_operand b, const T *bias, int act, T *y, int m, int n, int k, int64_t a_batch, int64_t b_batch)
{
    typedef typename Sum<T>::type A;
    LBR_SHARED(Tiles<A>, s);
    const int x = threadIdx.x, first = threadIdx.y, row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
    const int64_t shift_a = blockIdx.z * a_batch, shift_b = blockIdx.z * b_batch;
    A sum[TILE / ROWS] = {};
    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        for (int i = first * TILE + x; i < TILE * DEPTH; i += TILE * ROWS) {
            // neighbours in memory go to neighbouring threads
            int ka = a.k_step == 1 ? i % DEPTH : i / TILE, ra = a.k_step == 1 ? i / DEPTH : i % TILE;
            int kb = b.k_step == 1 ? i % DEPTH : i / TILE, rb = b.k_step == 1 ? i / DEPTH : i % TILE;
            s.a[ka][ra] = row0 + ra < m && k0 + ka < k ? (A)lbr_cuda_load(element<T>(a, shift_a, row0 + ra, k0 + ka)) : (A)0;
            s.b[kb][rb] = column0 + rb < n && k0 + kb < k ? (A)lbr_cuda_load(element<T>(b, shift_b, column0 + rb, k0 + kb)) : (A)0;
        }
        __syncthreads();
        for (int q = 0; q < DEPTH; q++)
            for (int r = 0; r < TILE / ROWS; r++) sum[r] += s.a[q][first + r * ROWS] * s.b[q][x];
        __syncthreads();
    }
    if (column0 + x >= n) return;
    for (int r = 0; r < TILE / ROWS; r++) {
        int row = row0 + first + r * ROWS;
        if (row >= m) break;
        A v = sum[r] + (bias ? (A)lbr_cuda_load(bias[column0 + x]) : (A)0);
        if (act && v < 0) v = 0;
        if (act == 2 && v > 6) v = 6;
        y[((int64_t)blockIdx.z * m + row) * n + column0 + x] = lbr_cuda_store<T>(v);
    }
}

void lbr_cuda_product(int dtype, lbr_cuda_operand a, lbr_cuda_operand b, const void *bias, int act, void *y, int m, int n, int k, int batch, int64_t a_batch, int64_t b_batch,
                      cudaStream_t stream)
{
    if (!m || !n || !batch) return;
    // the grid's z is limited: large batches go in parts
    for (int z = 0; z < batch; z += 32768) {
        lbr_cuda_grid g = {dim3((unsigned)(n + TILE - 1) / TILE, (unsigned)(m + TILE - 1) / TILE, (unsigned)(batch - z < 32768 ? batch - z : 32768)), dim3(TILE, ROWS), stream};
        lbr_cuda_operand pa = a, pb = b;
        switch (dtype) {
#define CASE(id, T)                                                                                                   \
    case id:                                                                                                          \
        pa.data = (const T *)a.data + z * a_batch, pb.data = (const T *)b.data + z * b_batch;                         \
        LBR_LAUNCH(product<T>, g, pa, pb, (const T *)bias, act, (T *)y + (int64_t)z * m * n, m, n, k, a_batch, b_batch); \
        break;
            CASE(LBR_F32, float) CASE(LBR_F64, double) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16)
#undef CASE
        }
    }
}

int lbr_cuda_matmul(lbr_call *c)
{
    const lbr_matmul_attr *at = (const lbr_matmul_attr *)c->attr;
    const lbr_tensor *a = &c->in[0], *b = &c->in[1], *y = &c->out[0];
    int m = y->shape[y->ndim - 2], n = y->shape[y->ndim - 1], k = a->shape[a->ndim - 1 - (at->ta != 0)], batch = 1;
    for (int d = 0; d < y->ndim - 2; d++) batch *= y->shape[d];
    lbr_cuda_operand pa = at->ta ? lbr_cuda_rows(a->data, 1, m) : lbr_cuda_rows(a->data, k, 1), pb = at->tb ? lbr_cuda_rows(b->data, k, 1) : lbr_cuda_rows(b->data, 1, n);
    lbr_cuda_product(a->dtype, pa, pb, NULL, 0, y->data, m, n, k, batch, (int64_t)m * k, b->ndim == 2 ? 0 : (int64_t)n * k, lbr_cuda_stream(c->device - LBR_CUDA));
    return 0;
}

int lbr_cuda_linear(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    int n = w->shape[0], k = w->shape[1], m = n ? (int)(lbr_tensor_numel(&c->out[0]) / n) : 0;
    lbr_cuda_product(x->dtype, lbr_cuda_rows(x->data, k, 1), lbr_cuda_rows(w->data, k, 1), lbr_present(b) ? b->data : NULL, ((const lbr_linear_attr *)c->attr)->act,
                     c->out[0].data, m, n, k, 1, 0, 0, lbr_cuda_stream(c->device - LBR_CUDA));
    return 0;
}
