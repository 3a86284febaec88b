// lstm.cuh: what the LSTM's kernels share: a layer over device pointers, gate places, activations. The ops are in lstm.cu.
#pragma once
#include "convert.cuh"

// S: element of x, y, gates and their gradients; its wide type has weights, cells and all sums.
template <class S> struct lbr_lstm_wide { typedef float type; };
template <> struct lbr_lstm_wide<double> { typedef double type; };

/* One layer; pointers as in csrc/cpu/lstm.h, all dense. Inside the device the four gates of a unit lie side by side:
 *   even      H rounded up to an even number, so that two units can always be read and written at once
 *   input     [rows][even][4] x w^T without the bias; pb, pt: rows from sequence to sequence, from step to step
 *   slopes    [B,T][even][4] gradients of the gates before their activations, 0 beyond H */
struct lbr_cuda_lstm {
    int B, steps, H, even;
    int64_t pb, pt;
    const void *input, *r, *b, *h0, *c0;
    void *y, *hn, *cn, *gates, *cells;
};
struct lbr_cuda_lstm_grad {
    int64_t dyb, dyt;
    const void *dy, *dhn, *dcn;
    void *slopes, *dh0, *dc0;
};

// The sums over all (b, t) that the gradients of w, r and b are; x by its strides. partial: room for parts x [4 even][F + H + 1] when parts > 1.
struct lbr_cuda_lstm_sums {
    int B, steps, F, H, even, parts;
    int64_t xb, xt, xf;
    const void *slopes, *x, *y, *h0;
    void *dw, *dr, *db, *partial;
};

// Where gate 0 of unit u lies in a kept row, as csrc/cpu/lstm.h has it: blocks of 16 units, each [4][width].
static __device__ __forceinline__ int lbr_lstm_place(int u, int H, int *width)
{
    const int first = u / 16 * 16;
    *width = H - first < 16 ? H - first : 16;
    return first * 4 + u - first;
}

// Within 3 units in the last place; right at infinities, NaN passes.
template <class W> static __device__ __forceinline__ W lbr_lstm_sigmoid(W v) { return 1 / (1 + exp(-v)); }

/* The whole walk through time in one launch, up to LBR_LSTM_FUSED units: backward when g is given; a->gates NULL: nothing is kept. a->r holds the weights as the kernel's threads
 * take them, made by ..._pack from r by its strides: 4 n n elements, n = H rounded up to 32. Places are counted in 32 bits. */
enum { LBR_LSTM_FUSED = 128 };
void lbr_cuda_lstm_f32(const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, cudaStream_t stream);
void lbr_cuda_lstm_f32_pack(bool backward, int H, const float *r, int64_t row, int64_t column, void *to, cudaStream_t stream);
void lbr_cuda_lstm_halves(int dtype, const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, int processors, cudaStream_t stream);
void lbr_cuda_lstm_halves_pack(int dtype, bool backward, int H, const float *r, int64_t row, int64_t column, void *to, cudaStream_t stream);

/* The same on a cluster of eight blocks, for what is too large for one and fits eight (on sm_90 some 300 units in f32, 400 in 16 bits). packed: room of ..._bytes for r as it is
 * taken. Two directions need different room. */
bool lbr_cuda_lstm_cluster_fits(int dtype, bool backward, int H, int device);
int64_t lbr_cuda_lstm_cluster_bytes(int dtype, int H);
void lbr_cuda_lstm_cluster(int dtype, lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, const float *r, int64_t row, int64_t column, void *packed, cudaStream_t stream);

// Any size, a product and a launch a step. packed: r as S [even][4][H]; room: S [B][even][4].
void lbr_cuda_lstm_steps_forward(int dtype, const lbr_cuda_lstm *a, const void *packed, void *room, cudaStream_t stream);
void lbr_cuda_lstm_steps_backward(int dtype, const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, const void *packed, cudaStream_t stream);

int lbr_cuda_lstm_parts(const lbr_cuda_lstm_sums *s, int processors);
void lbr_cuda_lstm_weights(int dtype, const lbr_cuda_lstm_sums *s, cudaStream_t stream);
