// convert.cu: conversion, copies, filling and joining of tensors of any strides. No arithmetic.
#include "walk.cuh"

#define LBR_EACH(i, n) for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)
#define LBR_EACH4(i, n) for (unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) * 4; i < (n); i += gridDim.x * blockDim.x * 4)

template <class S, class D> static __device__ __forceinline__ void convert_share(const lbr_cuda_walk &w, const S *x, D *y)
{
    if (w.flat) {
        LBR_EACH4(i, w.n) {
            lbr_cuda_four<S> u = lbr_cuda_next4(w, 1, x, i);
            lbr_cuda_four<D> v;
            for (int k = 0; k < 4; k++) v.v[k] = lbr_cuda_cast<D>(u.v[k]);
            lbr_cuda_write4(y + i, w.n - i, v);
        }
        return;
    }
    LBR_EACH(i, w.n) {
        int64_t at[2];
        lbr_cuda_place<2>(w, i, at);
        y[at[0]] = lbr_cuda_cast<D>(x[at[1]]);
    }
}

template <class S, class D> static __global__ void convert(lbr_cuda_walk w, const S *x, D *y) { convert_share(w, x, y); }

template <class W> static __global__ void set(lbr_cuda_walk w, W *y, W value)
{
    if (w.flat) {
        LBR_EACH4(i, w.n) lbr_cuda_write4(y + i, w.n - i, {{value, value, value, value}});
        return;
    }
    LBR_EACH(i, w.n) {
        int64_t at[1];
        lbr_cuda_place<1>(w, i, at);
        y[at[0]] = value;
    }
}

enum { PARTS = 8 }; // as many as concat has inputs
struct Parts {
    lbr_cuda_walk walk[PARTS];
    const void *from[PARTS];
    void *to[PARTS];
};

// blockIdx.y: the part. W has the size of an element.
template <class W> static __global__ void join(Parts p)
{
    const int part = blockIdx.y;
    convert_share(p.walk[part], (const W *)p.from[part], (W *)p.to[part]);
}

template <class S> static void convert_from(const lbr_call *c, const lbr_cuda_walk &w, const lbr_cuda_grid &g)
{
#define CASE(id, D) case id: LBR_LAUNCH((convert<S, D>), g, w, (const S *)c->in[0].data, (D *)c->out[0].data); break;
    switch (c->out[0].dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
}

/* Also copies: from a type to itself nothing changes. */
int lbr_cuda_cast(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *y = &c->out[0], *in[] = {x};
    lbr_cuda_walk w = lbr_cuda_walk_of(y, in, 1);
    lbr_cuda_grid g = lbr_cuda_spread(w, c->device);
    if (!w.n) return 0;
    if (x->dtype == y->dtype && lbr_same_shape(x, y) && lbr_tensor_contiguous(x) && lbr_tensor_contiguous(y))
        return lbr_cuda_status(cudaMemcpyAsync(y->data, x->data, (size_t)w.n * lbr_dtype_size(x->dtype), cudaMemcpyDeviceToDevice, g.stream), lbr_op_name(c->op));
#define CASE(id, S) case id: convert_from<S>(c, w, g); break;
    switch (x->dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}
int lbr_cuda_copy(lbr_call *c) { return lbr_cuda_cast(c); }
int lbr_cuda_copy_into(lbr_call *c) { return lbr_cuda_cast(c); }

static int fill(lbr_call *c, double value)
{
    lbr_cuda_walk w = lbr_cuda_walk_of(&c->out[0], NULL, 0);
    lbr_cuda_grid g = lbr_cuda_spread(w, c->device);
    if (!w.n) return 0;
#define CASE(id, S) case id: LBR_LAUNCH(set<S>, g, w, (S *)c->out[0].data, lbr_cuda_cast<S>(value)); break;
    switch (c->out[0].dtype) { LBR_CUDA_TYPES(CASE) }
#undef CASE
    return 0;
}
int lbr_cuda_fill(lbr_call *c) { return fill(c, ((const lbr_fill_attr *)c->attr)->value); }
int lbr_cuda_fill_into(lbr_call *c) { return fill(c, ((const lbr_fill_into_attr *)c->attr)->value); }

// All parts in one launch, as many blocks each as the largest needs.
int lbr_cuda_concat(lbr_call *c)
{
    const int dim = ((const lbr_concat_attr *)c->attr)->dim, size = lbr_dtype_size(c->out[0].dtype);
    Parts p = {};
    lbr_cuda_grid most = {};
    int parts = 0;
    lbr_tensor part = c->out[0];
    for (int i = 0; i < c->nin; i++) {
        const lbr_tensor *x = &c->in[i], *in[] = {x};
        if (!lbr_present(x) || !lbr_tensor_numel(x)) continue;
        part.shape[dim] = x->shape[dim];
        p.walk[parts] = lbr_cuda_walk_of(&part, in, 1);
        p.from[parts] = x->data, p.to[parts] = part.data;
        lbr_cuda_grid g = lbr_cuda_spread(p.walk[parts], c->device);
        if (!parts || g.blocks.x > most.blocks.x) most = g;
        part.data += (int64_t)x->shape[dim] * part.stride[dim] * size;
        parts++;
    }
    if (!parts) return 0;
    most.blocks.y = (unsigned)parts;
#define CASE(size, W) case size: LBR_LAUNCH(join<W>, most, p); break;
    switch (size) { CASE(1, uint8_t) CASE(2, uint16_t) CASE(4, uint32_t) CASE(8, uint64_t) }
#undef CASE
    return 0;
}
