// tally.cu: counts values on the device, so that a training step needs none of them on the host.
#include "cuda.cuh"

#include <math.h>

template <class T> static __global__ void tally(const T *x, double *sums, double count, bool finite)
{
    double v = (double)*x;
    if (finite && !isfinite(v)) return;
    sums[0] += v * count, sums[1] += count;
}

int lbr_cuda_tally(lbr_call *c)
{
    const lbr_tally_attr *a = (const lbr_tally_attr *)c->attr;
    lbr_cuda_grid grid = {dim3(1), dim3(1), lbr_cuda_stream(c->device - LBR_CUDA)};
    double *sums = (double *)c->out[0].data, count = a->count;
    bool finite = a->finite != 0;
    if (c->in[0].dtype == LBR_F64) LBR_LAUNCH(tally<double>, grid, (const double *)c->in[0].data, sums, count, finite);
    else LBR_LAUNCH(tally<float>, grid, (const float *)c->in[0].data, sums, count, finite);
    return 0;
}
