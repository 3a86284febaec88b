// pad.cu: padding with a value along any dims: each output element finds what it copies.
#include "convert.cuh"

// Dims that nothing is added to are joined to the one before.
struct Frame {
    int ndim;
    int before[LBR_MAX_DIMS], in[LBR_MAX_DIMS];
    unsigned out[LBR_MAX_DIMS];
};

template <class S> static __global__ void pad(Frame f, const S *x, S *y, S value, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        int64_t rest = i, at = 0, step = 1;
        bool inside = true;
        for (int d = f.ndim - 1; d >= 0; d--) {
            const int64_t q = rest / f.out[d];
            const int place = (int)(rest - q * f.out[d]) - f.before[d];
            inside = inside && place >= 0 && place < f.in[d];
            at += place * step;
            step *= f.in[d];
            rest = q;
        }
        y[i] = inside ? x[at] : value;
    }
}

int lbr_cuda_pad(lbr_call *c)
{
    const lbr_pad_attr *a = (const lbr_pad_attr *)c->attr;
    const lbr_tensor *x = &c->in[0], *y = &c->out[0];
    const int64_t n = lbr_tensor_numel(y), blocks = (n + 255) / 256;
    Frame f = {};
    if (!n) return 0;
    for (int d = 0; d < x->ndim; d++) {
        const bool kept = a->before[d] == 0 && a->after[d] == 0;
        if (kept && f.ndim && (int64_t)f.out[f.ndim - 1] * y->shape[d] <= INT32_MAX) {
            f.before[f.ndim - 1] *= x->shape[d], f.in[f.ndim - 1] *= x->shape[d], f.out[f.ndim - 1] *= (unsigned)y->shape[d];
            continue;
        }
        f.before[f.ndim] = a->before[d], f.in[f.ndim] = x->shape[d], f.out[f.ndim++] = (unsigned)y->shape[d];
    }
    lbr_cuda_grid grid = {dim3((unsigned)(blocks < 65536 ? blocks : 65536)), dim3(256), lbr_cuda_stream(c->device - LBR_CUDA)};
#define CASE(id, S) case id: LBR_LAUNCH(pad<S>, grid, f, (const S *)x->data, (S *)y->data, lbr_cuda_cast<S>(a->value), n); break;
    switch (x->dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}
