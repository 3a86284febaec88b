/* table.c: which kernel serves which op on the CPU, which slow twin checks it, and how much work an op is. */
#include "reference/reference.h"
#include "lstm.h"

#define LBR_OP(name, ins, outs, attrs, flags) int lbr_cpu_##name(lbr_call *c);
#include "../ops.def"
#undef LBR_OP
#define LBR_OP(name, ins, outs, attrs, flags) [LBR_OP_##name] = lbr_cpu_##name,
const lbr_kernel_fn lbr_cpu_table[LBR_OPS] = {
#include "../ops.def"
};
#undef LBR_OP

const lbr_kernel_fn lbr_reference_table[LBR_OPS] = {
    [LBR_OP_matmul] = lbr_reference_matmul,
    [LBR_OP_linear] = lbr_reference_linear,
    [LBR_OP_conv2d] = lbr_reference_conv2d,
    [LBR_OP_conv2d_backward_input] = lbr_reference_conv2d_backward_input,
    [LBR_OP_conv2d_backward_weight] = lbr_reference_conv2d_backward_weight,
    [LBR_OP_depthwise] = lbr_reference_depthwise,
    [LBR_OP_depthwise_backward_input] = lbr_reference_depthwise_backward_input,
    [LBR_OP_depthwise_backward_weight] = lbr_reference_depthwise_backward_weight,
    [LBR_OP_lstm_forward] = lbr_reference_lstm_forward,
    [LBR_OP_lstm_backward] = lbr_reference_lstm_backward,
};

double lbr_call_flops(const lbr_call *c)
{
    double y = c->nout ? (double)lbr_tensor_numel(&c->out[0]) : 0;
    const lbr_tensor *a = &c->in[0], *w = &c->in[1];
    switch (c->op) {
    case LBR_OP_matmul: return 2 * y * a->shape[a->ndim - 1 - (((const lbr_matmul_attr *)c->attr)->ta != 0)];
    case LBR_OP_linear: return 2 * y * w->shape[1];
    case LBR_OP_conv2d_int8:
    case LBR_OP_conv2d: return 2 * y * w->shape[1] * w->shape[2] * w->shape[3];
    case LBR_OP_depthwise: return 2 * y * w->shape[0] * w->shape[1];
    case LBR_OP_lstm_forward: return 2.0 * a->shape[0] * a->shape[1] * w->shape[0] * (w->shape[1] + w->shape[0] / 4);
    case LBR_OP_lstm_backward: return 4.0 * a->shape[0] * a->shape[1] * w->shape[0] * (w->shape[1] + w->shape[0] / 4);
    default: return 0;
    }
}
