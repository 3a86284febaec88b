/* reference.h: the slow twins: readable, f32 and f64, the oracles of the fast kernels and the f64 path of gradient checks. */
#ifndef LBR_REFERENCE_H
#define LBR_REFERENCE_H

#include "../cpu.h"

int lbr_reference_matmul(lbr_call *c);
int lbr_reference_linear(lbr_call *c);
int lbr_reference_conv2d(lbr_call *c);
int lbr_reference_conv2d_backward_input(lbr_call *c);
int lbr_reference_conv2d_backward_weight(lbr_call *c);
int lbr_reference_depthwise(lbr_call *c);
int lbr_reference_depthwise_backward_input(lbr_call *c);
int lbr_reference_depthwise_backward_weight(lbr_call *c);

/* Element i of a contiguous floating point tensor. */
static inline double lbr_at(const lbr_tensor *t, int64_t i)
{
    double v;
    lbr_load_f64(t->dtype, t->data + i * lbr_dtype_size(t->dtype), 1, 1, &v);
    return v;
}
static inline void lbr_put(lbr_tensor *t, int64_t i, double v) { lbr_store_f64(t->dtype, &v, 1, t->data + i * lbr_dtype_size(t->dtype), 1); }

#endif
