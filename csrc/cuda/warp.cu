// warp.cu: rotated crops of RGB bytes on the device, the bytes of csrc/cpu/warp.c. Compiled without contraction: places are rounded as OpenCV rounds them.
#include "cuda.cuh"

#include "../points.h"

enum { BITS = 5, ONE = 1 << BITS, THREADS = 128, MATRIX = 10 }; // a matrix of nine, and 1 where there is none

struct Crop {
    const uint8_t *x;
    const float *region;
    float *y;
    double *matrix;
    int h, w, oh, ow, block, regions, rim;
    bool edge;
    float scale, shift;
    lbr_cuda_fault *fault;
};

// A thread a region.
static __global__ void matrices(Crop c)
{
    const int b = blockIdx.x * THREADS + threadIdx.x;
    if (b >= c.regions) return;
    double *m = c.matrix + b * MATRIX;
    const float *r = c.region + 5 * b;
    const bool bad = !lbr_all_finite(r, 5) || !lbr_region_matrix(r, c.oh, c.ow, m);
    m[9] = bad;
    if (bad) lbr_cuda_blame(c.fault, LBR_OP_crop, 0, b, c.regions);
}

static __device__ __forceinline__ int place(double v)
{
    v = v < INT32_MAX ? v : INT32_MAX;
    return (int)rint(v > INT32_MIN ? v : INT32_MIN);
}

// A thread a pixel of the crop.
static __global__ void __launch_bounds__(THREADS) crop(Crop c)
{
    const int column = blockIdx.x * THREADS + threadIdx.x, row = blockIdx.y, b = blockIdx.z;
    if (column >= c.ow) return;
    const double *m = c.matrix + b * MATRIX;
    float *y = c.y + (((int64_t)b * c.oh + row) * c.ow + column) * 3;
    if (m[9] != 0) {
        y[0] = y[1] = y[2] = 0;
        return;
    }
    const int first = column / c.block * c.block;
    const double i = column - first, dx = first, dy = row;
    double w = m[6] * dx + m[7] * dy + m[8] + m[6] * i;
    w = w != 0 ? ONE / w : 0;
    const int px = place((m[0] * dx + m[1] * dy + m[2] + m[0] * i) * w), py = place((m[3] * dx + m[4] * dy + m[5] + m[3] * i) * w);
    const int fx = px & (ONE - 1), fy = py & (ONE - 1), sx = px >> BITS, sy = py >> BITS;
    const int weight[4] = {(ONE - fx) * (ONE - fy), fx * (ONE - fy), (ONE - fx) * fy, fx * fy};
    int sum[3] = {512, 512, 512};
    LBR_UNROLL for (int k = 0; k < 4; k++) {
        int cx = sx + (k & 1), cy = sy + (k >> 1);
        cx = lbr_mirrored(cx, c.w, c.rim), cy = lbr_mirrored(cy, c.h, c.rim);
        if (cx < 0 || cy < 0 || cx >= c.w || cy >= c.h) {
            if (!c.edge) continue;
            cx = min(max(cx, 0), c.w - 1), cy = min(max(cy, 0), c.h - 1);
        }
        const uint8_t *tap = c.x + ((int64_t)cy * c.w + cx) * 3;
        LBR_UNROLL for (int e = 0; e < 3; e++) sum[e] += weight[k] * tap[e];
    }
    LBR_UNROLL for (int e = 0; e < 3; e++) y[e] = (float)((double)(sum[e] >> 10) * c.scale + c.shift);
}

int lbr_cuda_crop(lbr_call *c)
{
    const lbr_crop_attr *a = (const lbr_crop_attr *)c->attr;
    const lbr_tensor *x = &c->in[0];
    const int device = c->device - LBR_CUDA, regions = c->in[1].shape[0], oh = a->size[0], ow = a->size[1];
    if (!regions) return 0;
    if (oh > 65535 || regions > 65535) return lbr_fail(LBR_EUNSUPPORTED, "crop: %d regions of %d rows on %s, at most 65535 of each", regions, oh, lbr_device_label(c->device));
    double *matrix = (double *)lbr_cuda_workspace(c, (int64_t)regions * MATRIX * (int64_t)sizeof *matrix);
    if (!matrix) return LBR_ENOMEM;
    const Crop job = {
        (const uint8_t *)x->data, (const float *)c->in[1].data, (float *)c->out[0].data, matrix, x->shape[0], x->shape[1], oh, ow, lbr_crop_block(oh, ow), regions, a->rim,
        a->border == LBR_BORDER_REPLICATE, (float)a->scale, (float)a->shift, lbr_cuda_fault_of(device),
    };
    const cudaStream_t stream = lbr_cuda_stream(device);
    const lbr_cuda_grid one = {dim3((unsigned)((regions + THREADS - 1) / THREADS)), dim3(THREADS), stream};
    const lbr_cuda_grid all = {dim3((unsigned)((ow + THREADS - 1) / THREADS), (unsigned)oh, (unsigned)regions), dim3(THREADS), stream};
    LBR_LAUNCH(matrices, one, job);
    LBR_LAUNCH(crop, all, job);
    return 0;
}
