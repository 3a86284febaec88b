// table.cu: which kernel serves which op on a CUDA device. An op that is not here says so by name when it is called.
#include "cuda.cuh"

#define LBR_OP(name, ins, outs, attrs, flags) int lbr_cuda_##name(lbr_call *c) __attribute__((weak));
#include "../ops.def"
#undef LBR_OP

#define LBR_OP(name, ins, outs, attrs, flags) lbr_cuda_##name,
extern "C" const lbr_kernel_fn lbr_cuda_table[LBR_OPS] = {
#include "../ops.def"
};
#undef LBR_OP

// What is done for several calls at once.
#define LBR_OP(name, ins, outs, attrs, flags) int lbr_cuda_##name##_together(lbr_call *const *calls, int n) __attribute__((weak));
#include "../ops.def"
#undef LBR_OP

#define LBR_OP(name, ins, outs, attrs, flags) lbr_cuda_##name##_together,
extern "C" const lbr_together_fn lbr_cuda_together[LBR_OPS] = {
#include "../ops.def"
};
#undef LBR_OP
