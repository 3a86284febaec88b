/* lstm.h: LSTM over raw CPU pointers, fast float kernels and the slow twin of both types; no tensors, no recording. */
#ifndef LBR_CPU_LSTM_H
#define LBR_CPU_LSTM_H

#include <stdint.h>

/* Packed weights that a caller keeps from call to call; valid: they are those of w, r and b, which the forward sets. Begin with zeros, end with lbr_free(memory, bytes). */
typedef struct lbr_lstm_packed {
    float *memory;
    int64_t bytes;
    int valid;
} lbr_lstm_packed;

/* One layer over T steps; gate order i, f, g, o as PyTorch and cuDNN. Everything is contiguous except x, dy.
 *   x     [B,T,F] in, element (b,t,f) at b*xb + t*xt + f; overlapping windows (xb = k*xt) and xt = 0 are projected once a distinct frame
 *   w     [4H,F]  in      r [4H,H] in      b [4H] in (sum of both biases)
 *   h0,c0 [B,H]   in, NULL = zeros
 *   y     [B,T,H] out     hn, cn [B,H] out
 *   gates [T,B,4H], cells [T,B,H] out (activated gates, a block of up to 16 units after another, each [4][units]; cell states), for backward; both NULL = not kept
 * Outputs alias nothing. */
typedef struct lbr_lstm {
    int64_t B, T, F, H, xb, xt;
    const void *x, *w, *r, *b, *h0, *c0;
    void *y, *hn, *cn, *gates, *cells;
    lbr_lstm_packed *packed; /* NULL = packed for this call alone */
} lbr_lstm;

/* Gradients of a layer run by the forward with gates and cells kept.
 *   dy      [B,T,H] in, element (b,t,u) at b*dyb + t*dyt + u, NULL = zeros      dhn, dcn [B,H] in, NULL = zeros
 *   dx      [B,T,F] out, NULL = not wanted      dw, dr, db as w, r, b out      dh0, dc0 [B,H] out */
typedef struct lbr_lstm_grad {
    int64_t dyb, dyt;
    const void *dy, *dhn, *dcn;
    void *dx, *dw, *dr, *db, *dh0, *dc0;
} lbr_lstm_grad;

/* Bits depend on the instruction set only, not on the number of threads, the strides of x or whether gates are kept.
 * Errors: LBR_ENOMEM. Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000. Oracle: csrc/cpu/reference/lstm.c */
int lbr_lstm_forward_f32(const lbr_lstm *a);
int lbr_lstm_backward_f32(const lbr_lstm *a, const lbr_lstm_grad *g);

/* The slow twin, products summed in double. Errors: LBR_ENOMEM. */
int lbr_lstm_twin_forward_f32(const lbr_lstm *a);
int lbr_lstm_twin_forward_f64(const lbr_lstm *a);
int lbr_lstm_twin_backward_f32(const lbr_lstm *a, const lbr_lstm_grad *g);
int lbr_lstm_twin_backward_f64(const lbr_lstm *a, const lbr_lstm_grad *g);

struct lbr_call;
/* Kernels of the ops lstm_forward and lstm_backward, and their slow twins. Errors: LBR_ENOMEM, LBR_EDTYPE, LBR_ESHAPE. */
int lbr_cpu_lstm_forward(struct lbr_call *c);
int lbr_cpu_lstm_backward(struct lbr_call *c);
int lbr_reference_lstm_forward(struct lbr_call *c);
int lbr_reference_lstm_backward(struct lbr_call *c);

#endif
