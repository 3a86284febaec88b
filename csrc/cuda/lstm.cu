// lstm.cu: the ops lstm_forward and lstm_backward on the device: tensors to pointers, packing, and which kernels walk through time. The walks are in lstm_f32.cu, lstm_halves.cu,
// lstm_cluster.cu, lstm_steps.cu.
//
// The input product is made for all steps at once, before the walk, and not inside it: a step of the walk is a chain of latencies, and w beside r would not fit the registers
// (H = 128, F = 56: 96 instead of 64 KB of f16 fragments a warp group). Its traffic is 2 * 4 H elements a frame there and back, 4 KB at H = 128 in f16, 63 MB for a batch of 1024
// windows of 30 frames: some 20 us of memory time beside 30 dependent steps. Where windows overlap, or x is one frame for all steps, each distinct frame is multiplied once.
#include "lstm.cuh"
#include "product.cuh"

namespace {

// Places in the call's workspace, counted before there is one.
struct Room {
    char *base;
    int64_t used;
    void *take(int64_t bytes)
    {
        void *p = base ? base + used : NULL;
        used += (bytes + 255) / 256 * 256;
        return p;
    }
};

enum { THREADS = 256 };

// How time is walked through: one block a few sequences, a cluster of blocks, or a launch a step.
enum Way { FUSED, CLUSTER, STEPS };

} // namespace

static lbr_cuda_grid spread(int64_t n, cudaStream_t stream) { return {dim3((unsigned)((n + THREADS - 1) / THREADS)), dim3(THREADS), stream}; }

// to [even][4][n] = from [4][H][n] by its strides, zeros beyond H.
template <class D, class S> static __global__ void pack(int H, int even, int n, const S *from, int64_t row, int64_t column, D *to)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, j = i / n;
    if (j >= 4 * even) return;
    const int u = (int)(j / 4), k = (int)(i - j * n);
    to[i] = u < H ? lbr_cuda_cast<D>(from[(j % 4 * H + u) * row + k * column]) : lbr_cuda_cast<D>((S)0);
}

static void pack_weights(int dtype, int H, int even, const lbr_tensor *w, void *to, cudaStream_t stream)
{
    const int n = w->shape[1];
    const int64_t row = w->stride[0], column = w->stride[1];
    if (!n) return;
    const lbr_cuda_grid g = spread((int64_t)4 * even * n, stream);
    switch (dtype) {
    case LBR_F64: LBR_LAUNCH((pack<double, double>), g, H, even, n, (const double *)w->data, row, column, (double *)to); break;
    case LBR_F16: LBR_LAUNCH((pack<__half, float>), g, H, even, n, (const float *)w->data, row, column, (__half *)to); break;
    case LBR_BF16: LBR_LAUNCH((pack<__nv_bfloat16, float>), g, H, even, n, (const float *)w->data, row, column, (__nv_bfloat16 *)to); break;
    default: LBR_LAUNCH((pack<float, float>), g, H, even, n, (const float *)w->data, row, column, (float *)to); break;
    }
}

// to [n0][n1][n2] dense = from by its strides; N: anything of the element's size.
template <class N> static __global__ void gather(int64_t n, int n1, int n2, const N *from, int64_t s0, int64_t s1, int64_t s2, N *to)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = i / n2, first = row / n1;
    if (i < n) to[i] = from[first * s0 + (row - first * n1) * s1 + (i - row * n2) * s2];
}

// Data of t when it is dense or absent, else of a dense copy.
static const void *dense(Room *room, const lbr_tensor *t, cudaStream_t stream)
{
    if (!lbr_present(t) || lbr_tensor_contiguous(t)) return t->data;
    const int size = lbr_dtype_size(t->dtype), d = t->ndim;
    const int64_t n = lbr_tensor_numel(t), s0 = d > 2 ? t->stride[0] : 0, s1 = d > 1 ? t->stride[d - 2] : 0, s2 = t->stride[d - 1];
    const int n1 = d > 1 ? t->shape[d - 2] : 1, n2 = t->shape[d - 1];
    void *to = room->take(n * size);
    if (!to || !n) return to;
    const lbr_cuda_grid g = spread(n, stream);
    if (size == 8) LBR_LAUNCH(gather<uint64_t>, g, n, n1, n2, (const uint64_t *)t->data, s0, s1, s2, (uint64_t *)to);
    else if (size == 4) LBR_LAUNCH(gather<uint32_t>, g, n, n1, n2, (const uint32_t *)t->data, s0, s1, s2, (uint32_t *)to);
    else LBR_LAUNCH(gather<uint16_t>, g, n, n1, n2, (const uint16_t *)t->data, s0, s1, s2, (uint16_t *)to);
    return to;
}

// Is dy [B,T,H] read as it lies?
static bool follows(const lbr_tensor *t)
{
    int64_t reach = t->shape[2];
    for (int d = 0; d < 2; d++) reach += (int64_t)t->shape[d] * (t->stride[d] < 0 ? -t->stride[d] : t->stride[d]);
    return t->stride[2] == 1 && reach < INT32_MAX;
}

static int outputs_dense(const lbr_call *c)
{
    for (int i = 0; i < c->nout; i++)
        if (!lbr_tensor_contiguous(&c->out[i])) return lbr_fail(LBR_ESHAPE, "%s: output %d %s is not contiguous", lbr_op_name(c->op), i + 1, lbr_describe(&c->out[i]));
    return 0;
}

// Rows of x that are multiplied with w, each distinct frame once where that is easily seen; sets where the walk finds them.
static lbr_cuda_operand distinct(const lbr_tensor *x, lbr_cuda_lstm *a, int64_t *rows)
{
    const int64_t xb = x->stride[0], xt = x->stride[1], xf = x->stride[2], B = a->B, T = a->steps;
    if (T > 1 && xt == 0) {
        *rows = B, a->pb = 1, a->pt = 0;
        return lbr_cuda_rows(x->data, xb, xf);
    }
    if (T > 1 && B > 1 && xb % xt == 0 && xb / xt >= 0 && xb / xt * 2 <= T) {
        *rows = (B - 1) * (xb / xt) + T, a->pb = xb / xt, a->pt = 1;
        return lbr_cuda_rows(x->data, xt, xf);
    }
    *rows = B * T, a->pb = T, a->pt = 1;
    if (xb == T * xt) return lbr_cuda_rows(x->data, xt, xf);
    return {x->data, (int)T, xb, xt, 1 << 30, 0, xf};
}

static Way way_of(int dtype, const lbr_cuda_lstm *a, bool backward, int device)
{
    if (dtype != LBR_F64 && a->H <= LBR_LSTM_FUSED && ((int64_t)a->B + 16) * (a->steps + 1) * 4 * a->even < INT32_MAX) return FUSED;
    return a->H > LBR_LSTM_FUSED && lbr_cuda_lstm_cluster_fits(dtype, backward, a->H, device) ? CLUSTER : STEPS;
}

// The walk in one launch; backward when g is given. packed: room for the weights as the kernel takes them.
static void walk(Way way, int dtype, lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, const lbr_tensor *r, void *packed, int device, cudaStream_t stream)
{
    const int64_t row = r->stride[0], column = r->stride[1];
    a->r = packed;
    if (way == CLUSTER) {
        lbr_cuda_lstm_cluster(dtype, a, g, (const float *)r->data, row, column, packed, stream);
    } else if (dtype == LBR_F32) {
        lbr_cuda_lstm_f32_pack(g != NULL, a->H, (const float *)r->data, row, column, packed, stream);
        lbr_cuda_lstm_f32(a, g, stream);
    } else {
        lbr_cuda_lstm_halves_pack(dtype, g != NULL, a->H, (const float *)r->data, row, column, packed, stream);
        lbr_cuda_lstm_halves(dtype, a, g, lbr_cuda_processors(device), stream);
    }
}

// Bytes of the packed r: padded to whole warps of units where a block walks alone.
static int64_t packed_bytes(Way way, int dtype, const lbr_cuda_lstm *a)
{
    const int64_t units = (a->H + 31) / 32 * 32;
    if (way == CLUSTER) return lbr_cuda_lstm_cluster_bytes(dtype, a->H);
    return (way == FUSED ? units * units : (int64_t)a->even * a->H) * 4 * lbr_dtype_size(dtype);
}

static lbr_cuda_lstm layer(const lbr_call *c)
{
    lbr_cuda_lstm a = {};
    a.B = c->in[0].shape[0], a.steps = c->in[0].shape[1], a.H = c->in[2].shape[1], a.even = (a.H + 1) / 2 * 2;
    return a;
}

int lbr_cuda_lstm_forward(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *r = &c->in[2];
    const int dtype = x->dtype, F = x->shape[2], size = lbr_dtype_size(dtype), device = c->device - LBR_CUDA;
    const bool save = ((const lbr_lstm_forward_attr *)c->attr)->save;
    lbr_cuda_lstm a = layer(c);
    cudaStream_t stream = lbr_cuda_stream(device);
    int rc = outputs_dense(c);
    if (rc || !a.B) return rc;
    const Way way = way_of(dtype, &a, false, device);
    const int wide = 4 * a.even;
    int64_t rows;
    const lbr_cuda_operand frames = distinct(x, &a, &rows);
    Room room = {NULL, 0};
    void *input, *packed, *packed_r, *recurrent = NULL;
    for (int pass = 0; pass < 2; pass++) { // counts, then takes
        input = room.take(rows * wide * size), packed = room.take((int64_t)wide * F * size), packed_r = room.take(packed_bytes(way, dtype, &a));
        if (way == STEPS) recurrent = room.take((int64_t)a.B * wide * size);
        a.b = dense(&room, &c->in[3], stream), a.h0 = dense(&room, &c->in[4], stream), a.c0 = dense(&room, &c->in[5], stream);
        if (pass) break;
        if (!(room.base = (char *)lbr_cuda_workspace(c, room.used))) return LBR_ENOMEM;
        room.used = 0;
    }
    a.input = input;
    a.y = c->out[0].data, a.hn = c->out[1].data, a.cn = c->out[2].data;
    if (save) a.gates = c->out[3].data, a.cells = c->out[4].data;
    pack_weights(dtype, a.H, a.even, w, packed, stream);
    lbr_cuda_product(dtype, frames, lbr_cuda_rows(packed, F, 1), NULL, 0, input, (int)rows, wide, F, 1, 0, 0, stream);
    if (way != STEPS) walk(way, dtype, &a, NULL, r, packed_r, device, stream);
    else {
        pack_weights(dtype, a.H, a.even, r, packed_r, stream);
        lbr_cuda_lstm_steps_forward(dtype, &a, packed_r, recurrent, stream);
    }
    return 0;
}

int lbr_cuda_lstm_backward(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *r = &c->in[2], *dy = &c->in[8];
    const int dtype = x->dtype, F = x->shape[2], size = lbr_dtype_size(dtype), device = c->device - LBR_CUDA;
    const int full = dtype == LBR_F64 ? 8 : 4;
    const bool need_dx = ((const lbr_lstm_backward_attr *)c->attr)->need_dx;
    lbr_cuda_lstm a = layer(c);
    lbr_cuda_lstm_grad g = {};
    cudaStream_t stream = lbr_cuda_stream(device);
    int rc = outputs_dense(c);
    if (rc) return rc;
    if (!a.B) {
        for (int i = 1; i < 4 && !rc; i++)
            rc = lbr_cuda_status(cudaMemsetAsync(c->out[i].data, 0, (size_t)(lbr_tensor_numel(&c->out[i]) * full), stream), lbr_op_name(c->op));
        return rc;
    }
    const Way way = way_of(dtype, &a, true, device);
    const bool follow = lbr_present(dy) && follows(dy);
    const int wide = 4 * a.even;
    const int64_t rows = (int64_t)a.B * a.steps;
    lbr_cuda_lstm_sums s = {a.B, a.steps, F, a.H, a.even, 1, x->stride[0], x->stride[1], x->stride[2], NULL, x->data, NULL, NULL, c->out[1].data, c->out[2].data, c->out[3].data, NULL};
    s.parts = lbr_cuda_lstm_parts(&s, lbr_cuda_processors(device));
    Room room = {NULL, 0};
    void *packed = NULL, *packed_r;
    for (int pass = 0; pass < 2; pass++) {
        g.slopes = room.take(rows * wide * size);
        if (need_dx) packed = room.take((int64_t)wide * F * size);
        packed_r = room.take(packed_bytes(way, dtype, &a));
        if (s.parts > 1) s.partial = room.take((int64_t)s.parts * wide * (F + a.H + 1) * full);
        a.h0 = dense(&room, &c->in[3], stream), a.c0 = dense(&room, &c->in[4], stream);
        a.y = (void *)dense(&room, &c->in[5], stream), a.gates = (void *)dense(&room, &c->in[6], stream), a.cells = (void *)dense(&room, &c->in[7], stream);
        g.dy = follow ? dy->data : dense(&room, dy, stream);
        g.dhn = dense(&room, &c->in[9], stream), g.dcn = dense(&room, &c->in[10], stream);
        if (pass) break;
        if (!(room.base = (char *)lbr_cuda_workspace(c, room.used))) return LBR_ENOMEM;
        room.used = 0;
    }
    g.dyb = follow ? dy->stride[0] : (int64_t)a.steps * a.H, g.dyt = follow ? dy->stride[1] : a.H;
    g.dh0 = c->out[4].data, g.dc0 = c->out[5].data;
    if (way != STEPS) walk(way, dtype, &a, &g, r, packed_r, device, stream);
    else {
        pack_weights(dtype, a.H, a.even, r, packed_r, stream);
        lbr_cuda_lstm_steps_backward(dtype, &a, &g, packed_r, stream);
    }
    if (need_dx) {
        pack_weights(dtype, a.H, a.even, w, packed, stream);
        lbr_cuda_product(dtype, lbr_cuda_rows(g.slopes, wide, 1), lbr_cuda_rows(packed, 1, F), NULL, 0, c->out[0].data, (int)rows, F, wide, 1, 0, 0, stream);
    }
    s.slopes = g.slopes, s.y = a.y, s.h0 = a.h0;
    lbr_cuda_lstm_weights(dtype, &s, stream);
    return 0;
}
