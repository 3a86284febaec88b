// boxes.cu: a single-shot detector's answer as detections on the device: decoding, weighted suppression, in the CPU's order of additions. The numbers of one box are boxes.h's.
// Compiled without contraction.
#include "cuda.cuh"

#include "../boxes.h"

enum { THREADS = 256, MOST = 32768, WORDS = MOST / 32 };

typedef unsigned long long rank_t; // score and place: grows with the score and, of equal ones, towards the front

struct Detector {
    const float *boxes, *scores, *anchors;
    float *y, *decoded;
    rank_t *found, *sorted;
    int N, K, most;
    float size;
    double least, iou;
};
// Of the boxes found, best first: those that are in no kept one yet, and those that the next one takes, a bit each.
struct Marks { unsigned left[WORDS], taken[WORDS]; int n; };

static __device__ __forceinline__ float score_of(rank_t r) { return __uint_as_float((unsigned)(r >> 32)); }

// A block a picture.
static __global__ void __launch_bounds__(THREADS) detect(Detector d)
{
    LBR_SHARED(Marks, s);
    const int64_t b = blockIdx.x;
    const float *boxes = d.boxes + b * d.N * d.K, *scores = d.scores + b * d.N;
    float *y = d.y + b * d.most * (d.K + 1), *decoded = d.decoded + b * d.N * d.K;
    rank_t *found = d.found + b * d.N, *sorted = d.sorted + b * d.N;
    if (threadIdx.x == 0) s.n = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < d.N; i += THREADS) {
        const float score = lbr_box_score(scores[i]);
        if (score >= d.least) found[atomicAdd(&s.n, 1)] = (rank_t)__float_as_uint(score) << 32 | (unsigned)~i;
    }
    __syncthreads();
    const int n = s.n, words = (n + 31) / 32;
    for (int j = threadIdx.x; j < n; j += THREADS) {
        const rank_t own = found[j];
        int better = 0;
        for (int i = 0; i < n; i++) better += found[i] > own;
        sorted[better] = own;
        const int at = (int)~(unsigned)own;
        lbr_box_decode(boxes + (int64_t)at * d.K, d.K, d.anchors + 2 * at, d.size, decoded + (int64_t)better * d.K);
    }
    for (int w = threadIdx.x; w < words; w += THREADS) s.left[w] = n - 32 * w < 32 ? (1u << (n - 32 * w)) - 1 : 0xffffffffu;
    __syncthreads();

    int kept = 0;
    for (int word = 0; kept < d.most; kept++) {
        while (word < words && !s.left[word]) word++;
        if (word == words) break;
        const int first = 32 * word + __ffs((int)s.left[word]) - 1;
        for (int j = threadIdx.x; j < 32 * words; j += THREADS) { // whole warps
            const bool is = s.left[j / 32] >> j % 32 & 1 && (j == first || lbr_box_iou(decoded + (int64_t)first * d.K, decoded + (int64_t)j * d.K) > d.iou);
            const unsigned all = __ballot_sync(0xffffffffu, is);
            if (j % 32 == 0) s.taken[j / 32] = all;
        }
        __syncthreads();
        for (int k = threadIdx.x; k <= d.K; k += THREADS) {
            float mean = 0, weight = 0;
            for (int w = word; k < d.K && w < words; w++)
                for (unsigned bits = s.taken[w]; bits; bits &= bits - 1) {
                    const int j = 32 * w + __ffs((int)bits) - 1;
                    const float score = score_of(sorted[j]);
                    weight += score, mean += decoded[(int64_t)j * d.K + k] * score;
                }
            y[(int64_t)kept * (d.K + 1) + k] = k < d.K ? mean / weight : score_of(sorted[first]);
        }
        for (int w = word + threadIdx.x; w < words; w += THREADS) s.left[w] &= ~s.taken[w];
        __syncthreads();
    }
    for (int64_t i = (int64_t)kept * (d.K + 1) + threadIdx.x; i < (int64_t)d.most * (d.K + 1); i += THREADS) y[i] = 0;
}

int lbr_cuda_ssd_detections(lbr_call *c)
{
    const lbr_ssd_detections_attr *a = (const lbr_ssd_detections_attr *)c->attr;
    const int B = c->in[0].shape[0], N = c->in[0].shape[1], K = c->in[0].shape[2];
    if (!B) return 0;
    if (N > MOST) return lbr_fail(LBR_EUNSUPPORTED, "ssd_detections: %d boxes on %s, at most %d", N, lbr_device_label(c->device), (int)MOST);
    const int64_t all = (int64_t)B * N;
    char *room = (char *)lbr_cuda_workspace(c, all * (2 * (int64_t)sizeof(rank_t) + K * (int64_t)sizeof(float)));
    if (!room) return LBR_ENOMEM;
    rank_t *found = (rank_t *)room;
    const Detector d = {
        (const float *)c->in[0].data, (const float *)c->in[1].data, (const float *)c->in[2].data, (float *)c->out[0].data, (float *)(found + 2 * all), found, found + all,
        N, K, a->most, (float)a->size, a->least, a->iou,
    };
    const lbr_cuda_grid grid = {dim3((unsigned)B), dim3(THREADS), lbr_cuda_stream(c->device - LBR_CUDA)};
    LBR_LAUNCH(detect, grid, d);
    return 0;
}
