// points.cu: points of crops put back into the picture, and followed from picture to picture, on the device; the filters' state stays there. The numbers are points.h's.
// Compiled without contraction.
#include "cuda.cuh"

#include "../points.h"

enum { WARP = 32, CELLS = LBR_MOST_KERNEL * LBR_MOST_KERNEL };

struct Place {
    const float *points, *heat, *world, *rect;
    float *y;
    int h, w, M, n, width, height, size, reach;
    float least;
};
struct Surroundings { float p[CELLS]; };

// A warp a point: the lanes make the probabilities around it, the first adds them up in the order of the CPU.
static __global__ void __launch_bounds__(WARP) place(Place j)
{
    LBR_SHARED(Surroundings, s);
    const int i = blockIdx.x, b = blockIdx.y;
    const float *raw = j.points + ((int64_t)b * j.M + i) * 5, *map = j.heat + (int64_t)b * j.h * j.w * j.M + i;
    float x = raw[0] / (float)j.size, y = raw[1] / (float)j.size;
    int cell[4];
    const bool inside = lbr_surroundings(x, y, j.h, j.w, j.reach, cell);
    if (inside) {
        const int across = cell[3] - cell[2] + 1, all = (cell[1] - cell[0] + 1) * across;
        for (int k = threadIdx.x; k < all; k += WARP) {
            const int row = k / across;
            s.p[k] = lbr_logistic(map[((int64_t)(cell[0] + row) * j.w + cell[2] + k - row * across) * j.M]);
        }
    }
    __syncwarp();
    if (threadIdx.x) return;
    if (inside) lbr_refine(s.p, cell, j.h, j.w, j.least, &x, &y);
    lbr_project(raw, x, y, j.world + ((int64_t)b * j.M + i) * 3, j.rect + 5 * b, j.width, j.height, j.size, j.y + ((int64_t)b * j.n + i) * LBR_POINT);
}

int lbr_cuda_place_points(lbr_call *c)
{
    const lbr_place_points_attr *a = (const lbr_place_points_attr *)c->attr;
    const lbr_tensor *heat = &c->in[1];
    const int B = heat->shape[0];
    if (!B) return 0;
    if (B > 65535) return lbr_fail(LBR_EUNSUPPORTED, "place_points: %d crops on %s, at most 65535", B, lbr_device_label(c->device));
    const Place job = {
        (const float *)c->in[0].data, (const float *)heat->data, (const float *)c->in[2].data, (const float *)c->in[3].data, (float *)c->out[0].data,
        heat->shape[1], heat->shape[2], heat->shape[3], a->n, a->width, a->height, a->size, a->kernel / 2, (float)a->least,
    };
    const lbr_cuda_grid grid = {dim3((unsigned)a->n, (unsigned)B), dim3(WARP), lbr_cuda_stream(c->device - LBR_CUDA)};
    LBR_LAUNCH(place, grid, job);
    return 0;
}

struct Turn { lbr_turn turn; };

// One block: its first thread decides, then each thread filters a point.
static __global__ void follow(lbr_following f, const float *flag, const double *time)
{
    LBR_SHARED(Turn, s);
    f.flag = *flag, f.time = *time;
    if (threadIdx.x == 0) s.turn = lbr_follow_begin(&f);
    __syncthreads();
    for (int i = threadIdx.x; i < f.n; i += blockDim.x) lbr_follow_point(&f, &s.turn, i);
}

int lbr_cuda_follow_points(lbr_call *c)
{
    const lbr_follow_points_attr *a = (const lbr_follow_points_attr *)c->attr;
    lbr_following f = {};
    f.n = c->out[3].shape[0] - 2, f.width = a->width, f.height = a->height, f.follow = a->follow, f.smooth = a->smooth, f.alpha = a->alpha;
    memcpy(f.filters, a->filters, sizeof f.filters);
    f.points = (const float *)c->in[0].data;
    f.place = (float *)c->out[0].data, f.state = (float *)c->out[1].data, f.clock = (double *)c->out[2].data, f.y = (float *)c->out[3].data;
    const lbr_cuda_grid grid = {dim3(1), dim3(64), lbr_cuda_stream(c->device - LBR_CUDA)};
    LBR_LAUNCH(follow, grid, f, (const float *)c->in[1].data, (const double *)c->in[2].data);
    return 0;
}
