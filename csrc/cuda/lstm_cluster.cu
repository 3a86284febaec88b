// lstm_cluster.cu: the LSTM's walk through time for sizes whose W_hh does not fit one block: eight blocks of a cluster share it, in one launch. sm_90 and later.
//
// A cluster owns four sequences, a block an eighth of the units and their share of W_hh, which stays in its shared memory for the whole walk. A warp makes the product for the four
// gates of a unit (backward: for four units) at once, its lanes along the sum, and its lanes swap what they have until each holds one number of one sequence. New states (backward:
// gradients of gates) are stored into the shared memory of all eight blocks; two buffers of them, one barrier of the cluster a step. Sums and cells are f32.
#include "cluster.cuh"
#include "lstm.cuh"

enum { RANKS = 8, SEQUENCES = 4, THREADS = 256, WARPS = THREADS / 32 };

typedef lbr_cuda_four<float> Four;

// Units a block has: whole quads.
static __host__ __device__ __forceinline__ int units_of(int H) { return ((H + RANKS - 1) / RANKS + 3) / 4 * 4; }
// Places in a block's shared memory: its weights, then two buffers of [K] states or gradients of four sequences, then [units] numbers of its own.
static __host__ __device__ __forceinline__ int64_t weight_bytes(int H, int size) { return (int64_t)units_of(H) * H * 4 * size; }
static int64_t room_bytes(bool backward, int H, int size) { return weight_bytes(H, size) + (2 * (backward ? 4 : 1) * (int64_t)H + units_of(H)) * (int64_t)sizeof(Four); }

bool lbr_cuda_lstm_cluster_fits(int dtype, bool backward, int H, int device)
{
    return dtype != LBR_F64 && units_of(H) * SEQUENCES <= THREADS && room_bytes(backward, H, lbr_dtype_size(dtype)) <= lbr_cuda_cluster_room(device);
}

int64_t lbr_cuda_lstm_cluster_bytes(int dtype, int H) { return RANKS * weight_bytes(H, lbr_dtype_size(dtype)); }

/* Weights as the blocks take them: forward [rank][unit][state][gate], backward [rank][quad of units][unit of the gradient][gate][unit of the quad]; zeros beyond H. */
template <class S> static __global__ void deal(bool backward, int H, const float *r, int64_t row, int64_t column, S *to)
{
    const int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int units = units_of(H), j = (int)(n / 4 % H);
    if (n >= (int64_t)RANKS * units * H * 4) return;
    float v = 0;
    if (backward) {
        const int64_t quad = n / (16 * (int64_t)H); // of all ranks
        const int unit = (int)quad * 4 + (int)(n % 4), from = (int)(n / 16 % H), gate = (int)(n / 4 % 4);
        if (unit < H) v = r[((int64_t)gate * H + from) * row + unit * column];
    } else {
        const int unit = (int)(n / (4 * (int64_t)H)), gate = (int)(n % 4);
        if (unit < H) v = r[((int64_t)gate * H + unit) * row + j * column];
    }
    to[n] = lbr_cuda_store<S>(v);
}

// Of low and high the one that `upper` names, summed with the other lane's.
static __device__ __forceinline__ float swap_sum(float low, float high, bool upper, int lane)
{
    const float keep = upper ? high : low, give = upper ? low : high;
    return keep + __shfl_xor_sync(0xffffffffu, give, lane);
}

// Sums over k < K of w[k] (four rows) times x[k] (four sequences): row lane / 8 of sequence lane / 2 % 4.
template <class S> static __device__ __forceinline__ float product(const lbr_cuda_four<S> *w, const Four *x, int K)
{
    const int lane = threadIdx.x & 31;
    float sum[4][4] = {}, rows[2][4], one[4], two[2];
    for (int k = lane; k < K; k += 32) {
        const lbr_cuda_four<S> a = w[k];
        const Four b = x[k];
        LBR_UNROLL for (int i = 0; i < 4; i++)
            LBR_UNROLL for (int e = 0; e < 4; e++) sum[i][e] = fmaf(lbr_cuda_load(a.v[i]), b.v[e], sum[i][e]);
    }
    LBR_UNROLL for (int i = 0; i < 2; i++)
        LBR_UNROLL for (int e = 0; e < 4; e++) rows[i][e] = swap_sum(sum[i][e], sum[i + 2][e], lane & 16, 16);
    LBR_UNROLL for (int e = 0; e < 4; e++) one[e] = swap_sum(rows[0][e], rows[1][e], lane & 8, 8);
    LBR_UNROLL for (int e = 0; e < 2; e++) two[e] = swap_sum(one[e], one[e + 2], lane & 4, 4);
    const float v = swap_sum(two[0], two[1], lane & 2, 2);
    return v + __shfl_xor_sync(0xffffffffu, v, 1);
}

// This block's weights into its shared memory.
template <class S> static __device__ __forceinline__ void fetch(const void *from, unsigned rank, int H, lbr_cuda_four<S> *w)
{
    const int n = units_of(H) * H;
    for (int i = threadIdx.x; i < n; i += THREADS) w[i] = ((const lbr_cuda_four<S> *)from)[(int64_t)rank * n + i];
}

template <class S> static __global__ void __launch_bounds__(THREADS, 1) forward(lbr_cuda_lstm a)
{
    const int H = a.H, units = units_of(H), lane = threadIdx.x & 31;
    LBR_CLUSTER_ROOM(room, (weight_bytes(H, sizeof(S)) + (2 * H + units) * (int)sizeof(Four)));
    lbr_cuda_four<S> *w = (lbr_cuda_four<S> *)room;
    Four *h = (Four *)(room + weight_bytes(H, sizeof(S))), *cells = h + 2 * H; // h [2][H]
    const unsigned rank = lbr_cluster_rank();
    const int first = blockIdx.x / RANKS * SEQUENCES, s = lane & 3;
    const int64_t b = first + s;
    fetch<S>(a.r, rank, H, w);
    for (int i = threadIdx.x; i < H * SEQUENCES; i += THREADS) {
        const int64_t q = first + i % SEQUENCES;
        h[i / SEQUENCES].v[i % SEQUENCES] = a.h0 && q < a.B ? (float)lbr_cuda_load(((const S *)a.h0)[q * H + i / SEQUENCES]) : 0.f;
    }
    for (int own = threadIdx.x / 32; own < units; own += WARPS) { // each warp its own units, here and in the walk
        const int u = (int)rank * units + own;
        if (lane < SEQUENCES) cells[own].v[s] = a.c0 && u < H && b < a.B ? ((const float *)a.c0)[b * H + u] : 0.f;
    }
    lbr_cluster_barrier();

    LBR_ROLL for (int t = 0; t < a.steps; t++) {
        const Four *now = h + (t & 1) * H;
        Four *next = h + (~t & 1) * H;
        for (int own = threadIdx.x / 32; own < units; own += WARPS) {
            const int u = (int)rank * units + own;
            if (u >= H) break; // a whole warp
            const bool mine = lane < SEQUENCES && b < a.B;
            lbr_cuda_four<S> in = {};
            if (mine) in = ((const lbr_cuda_four<S> *)a.input)[(b * a.pb + t * a.pt) * a.even + u];
            const float sum = product<S>(w + own * H, now, H);
            float v[4], state = 0;
            LBR_UNROLL for (int g = 0; g < 4; g++) v[g] = __shfl_sync(0xffffffffu, sum, 8 * g + 2 * s) + lbr_cuda_load(in.v[g]) + ((const float *)a.b)[g * H + u];
            if (mine) {
                const float gi = lbr_lstm_sigmoid(v[0]), gf = lbr_lstm_sigmoid(v[1]), gn = tanhf(v[2]), go = lbr_lstm_sigmoid(v[3]);
                const float c = fmaf(gf, cells[own].v[s], gi * gn);
                const S y = lbr_cuda_store<S>(go * tanhf(c));
                cells[own].v[s] = c;
                state = lbr_cuda_load(y);
                ((S *)a.y)[(b * a.steps + t) * H + u] = y;
                if (t == a.steps - 1) ((S *)a.hn)[b * H + u] = y, ((float *)a.cn)[b * H + u] = c;
                if (a.gates) {
                    int width, at = lbr_lstm_place(u, H, &width);
                    S *save = (S *)a.gates + ((int64_t)t * a.B + b) * 4 * H + at;
                    save[0] = lbr_cuda_store<S>(gi), save[width] = lbr_cuda_store<S>(gf), save[2 * width] = lbr_cuda_store<S>(gn), save[3 * width] = lbr_cuda_store<S>(go);
                    ((float *)a.cells)[((int64_t)t * a.B + b) * H + u] = c;
                }
            }
            state = __shfl_sync(0xffffffffu, state, s);
            if (t + 1 < a.steps) lbr_cluster_store(&next[u].v[s], (unsigned)lane >> 2, state); // to all eight blocks; nobody reads after the last step
        }
        if (t + 1 < a.steps) lbr_cluster_barrier();
    }
}

template <class S> static __global__ void __launch_bounds__(THREADS, 1) backward(lbr_cuda_lstm a, lbr_cuda_lstm_grad g)
{
    const int H = a.H, units = units_of(H), lane = threadIdx.x & 31;
    LBR_CLUSTER_ROOM(room, (weight_bytes(H, sizeof(S)) + (8 * H + units) * (int)sizeof(Four)));
    lbr_cuda_four<S> *w = (lbr_cuda_four<S> *)room;
    Four *slopes = (Four *)(room + weight_bytes(H, sizeof(S))), *sums = slopes + 8 * H; // slopes [2][4 H]
    const unsigned rank = lbr_cluster_rank();
    const int own = threadIdx.x / SEQUENCES, s = threadIdx.x % SEQUENCES, u = (int)rank * units + own; // this thread's unit and sequence
    const int64_t b = blockIdx.x / RANKS * SEQUENCES + s, at = b * H + u;
    const bool here = own < units, mine = here && u < H && b < a.B;
    fetch<S>(a.r, rank, H, w);
    int width = 0, place = u < H ? lbr_lstm_place(u, H, &width) : 0;
    float dh = mine && g.dhn ? (float)lbr_cuda_load(((const S *)g.dhn)[at]) : 0.f, dc = mine && g.dcn ? ((const float *)g.dcn)[at] : 0.f;
    lbr_cluster_barrier();

    LBR_ROLL for (int t = a.steps - 1; t >= 0; t--) {
        Four *now = slopes + (t & 1) * 4 * H;
        lbr_cuda_four<S> slope = {};
        if (mine) {
            const int64_t kept = ((int64_t)t * a.B + b) * H + u;
            const S *v = (const S *)a.gates + ((int64_t)t * a.B + b) * 4 * H + place;
            const float gi = lbr_cuda_load(v[0]), gf = lbr_cuda_load(v[width]), gn = lbr_cuda_load(v[2 * width]), go = lbr_cuda_load(v[3 * width]);
            const float tc = tanhf(((const float *)a.cells)[kept]), before = t > 0 ? ((const float *)a.cells)[kept - (int64_t)a.B * H] : a.c0 ? ((const float *)a.c0)[at] : 0.f;
            const float up = dh + (g.dy ? (float)lbr_cuda_load(((const S *)g.dy)[b * g.dyb + t * g.dyt + u]) : 0.f), d = fmaf(up * go, 1 - tc * tc, dc);
            slope = {{lbr_cuda_store<S>(d * gn * gi * (1 - gi)), lbr_cuda_store<S>(d * before * gf * (1 - gf)), lbr_cuda_store<S>(d * gi * (1 - gn * gn)),
                      lbr_cuda_store<S>(up * tc * go * (1 - go))}};
            dc = d * gf;
        }
        if (here && u < a.even && b < a.B) ((lbr_cuda_four<S> *)g.slopes)[(b * a.steps + t) * a.even + u] = slope;
        if (here && u < H)
            for (unsigned to = 0; to < RANKS; to++)
                LBR_UNROLL for (int gate = 0; gate < 4; gate++) lbr_cluster_store(&now[u * 4 + gate].v[s], to, lbr_cuda_load(slope.v[gate]));
        lbr_cluster_barrier();
        for (int quad = threadIdx.x / 32; quad < units / 4; quad += WARPS) {
            const float sum = product<S>(w + quad * 4 * H, now, 4 * H);
            if (!(lane & 1)) sums[quad * 4 + (lane >> 3)].v[lane >> 1 & 3] = sum;
        }
        __syncthreads();
        if (here) dh = sums[own].v[s];
    }
    if (mine) ((S *)g.dh0)[at] = lbr_cuda_store<S>(dh), ((float *)g.dc0)[at] = dc;
}

template <class S> static void walk(const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, const float *r, int64_t row, int64_t column, void *packed, cudaStream_t stream)
{
    const int64_t n = (int64_t)RANKS * units_of(a->H) * a->H * 4;
    const lbr_cuda_grid all = {dim3((unsigned)((n + THREADS - 1) / THREADS)), dim3(THREADS), stream};
    const lbr_cuda_grid grid = {dim3((unsigned)((a->B + SEQUENCES - 1) / SEQUENCES * RANKS)), dim3(THREADS), stream};
    const size_t bytes = (size_t)room_bytes(g != NULL, a->H, sizeof(S));
    LBR_LAUNCH(deal<S>, all, g != NULL, a->H, r, row, column, (S *)packed);
    if (g) LBR_LAUNCH_CLUSTER(backward<S>, grid, bytes, RANKS, *a, *g);
    else LBR_LAUNCH_CLUSTER(forward<S>, grid, bytes, RANKS, *a);
}

void lbr_cuda_lstm_cluster(int dtype, lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, const float *r, int64_t row, int64_t column, void *packed, cudaStream_t stream)
{
    a->r = packed;
    switch (dtype) {
    case LBR_F16: return walk<__half>(a, g, r, row, column, packed, stream);
    case LBR_BF16: return walk<__nv_bfloat16>(a, g, r, row, column, packed, stream);
    default: return walk<float>(a, g, r, row, column, packed, stream);
    }
}
