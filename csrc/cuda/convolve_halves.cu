// convolve_halves.cu: conv2d in f16 and bf16.
#include "convolve.cuh"
int lbr_cuda_convolve_halves(lbr_call *c, const lbr_cuda_window &, int) { return lbr_fail(LBR_EUNSUPPORTED, "%s: %s", lbr_op_name(c->op), lbr_describe(&c->in[0])); }
