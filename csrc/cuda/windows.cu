// windows.cu: windows of sequences on the device: centred, standardised, missing numbers marked. A block makes one window.
#include "reduce.cuh"

enum { MOST = 4096 }; // numbers a row

struct Shared { double offset[MOST], sums[LBR_CUDA_BLOCK]; };

struct Job {
    const double *x, *mean, *sd, *certainty;
    const int32_t *start;
    float *y, *weight;
    int rows, T, D, groups, per, F, mask, centre;
    lbr_cuda_fault *fault;
};

// SD of all that is seen in a centred window, and a little.
static __device__ double amplitude(const Job &j, const double *x, Shared &s)
{
    double sum = 0, square = 0, n = 0;
    for (int i = threadIdx.x; i < j.T * j.D; i += blockDim.x) {
        double v = x[i] - s.offset[i % j.D];
        if (v == v) sum += v, square += v * v, n += 1;
    }
    auto add = [](double a, double b) { return a + b; };
    sum = lbr_cuda_combine<true>(s.sums, sum, add);
    square = lbr_cuda_combine<true>(s.sums, square, add);
    n = lbr_cuda_combine<false>(s.sums, n, add);
    double mean = sum / n, variance = square / n - mean * mean;
    return sqrt(variance > 0 ? variance : 0) + .02;
}

static __global__ void windows(Job j)
{
    LBR_SHARED(Shared, s);
    int start = j.start[blockIdx.x];
    int64_t at = (int64_t)blockIdx.x * j.T * j.F;
    if (start < 0 || start > j.rows - j.T) {
        if (threadIdx.x == 0) lbr_cuda_blame(j.fault, LBR_OP_windows, start, blockIdx.x, j.rows - j.T);
        for (int i = threadIdx.x; i < j.T * j.F; i += blockDim.x) j.y[at + i] = j.weight[at + i] = 0;
        return;
    }
    const double *x = j.x + (int64_t)start * j.D;
    for (int d = threadIdx.x; d < j.D; d += blockDim.x) {
        double sum = 0;
        int n = 0;
        for (int t = 0; j.centre && t < j.T; t++) {
            double v = x[(int64_t)t * j.D + d];
            if (v == v) sum += v, n++;
        }
        s.offset[d] = j.centre ? sum / n : 0;
    }
    __syncthreads();
    double scale = j.centre == 2 ? amplitude(j, x, s) : 1;
    for (int i = threadIdx.x; i < j.T * j.groups; i += blockDim.x) {
        int t = i / j.groups, g = i - t * j.groups;
        int64_t to = at + (int64_t)t * j.F + g * (j.per + j.mask);
        bool all = true;
        for (int c = 0; c < j.per; c++) {
            int d = g * j.per + c;
            double v = x[(int64_t)t * j.D + d] - s.offset[d];
            if (j.centre == 2) v /= scale;
            v = (v - j.mean[d]) / j.sd[d];
            bool seen = v == v;
            j.y[to + c] = seen ? (float)v : 0;
            j.weight[to + c] = !seen ? 0 : j.certainty ? (float)j.certainty[g] : 1;
            all = all && seen;
        }
        if (j.mask) j.y[to + j.per] = all ? 0 : -1, j.weight[to + j.per] = 0;
    }
}

int lbr_cuda_windows(lbr_call *c)
{
    const lbr_windows_attr *a = (const lbr_windows_attr *)c->attr;
    const lbr_tensor *x = &c->in[0];
    int device = c->device - LBR_CUDA, n = c->in[1].shape[0], D = x->shape[1];
    if (D > MOST) return lbr_fail(LBR_EUNSUPPORTED, "windows: %d numbers a row on %s, at most %d", D, lbr_device_label(c->device), MOST);
    if (!n) return 0;
    Job j = {
        (const double *)x->data, (const double *)c->in[2].data, (const double *)c->in[3].data, lbr_present(&c->in[4]) ? (const double *)c->in[4].data : nullptr,
        (const int32_t *)c->in[1].data, (float *)c->out[0].data, (float *)c->out[1].data, x->shape[0], a->window, D, a->groups, D / a->groups, c->out[0].shape[2],
        a->mask != 0, a->centre, lbr_cuda_fault_of(device),
    };
    lbr_cuda_grid grid = {dim3((unsigned)n), dim3(LBR_CUDA_BLOCK), lbr_cuda_stream(device)};
    LBR_LAUNCH(windows, grid, j);
    return 0;
}
