// lstm_f32.cu: the LSTM's walk through time in f32, forward and backward, in one launch each: up to 128 units. f16 and bf16 are in lstm_halves.cu.
//
// A block owns four sequences and all units, four threads a unit. Each keeps its share of W_hh in registers for the whole walk, one of every four (backward: eight) rows of the
// product for all gates of its unit (backward: for two units), so that one read of four states from shared memory feeds 16 (8) multiply-adds. At 128 units the 256 KB of weights
// are the whole register file: a third lies in shared memory, each thread's own numbers side by side. The lanes of a unit then swap sums so that each ends with one sequence: its
// cell and its gates never leave the thread. Two buffers of states, one barrier a step.
#include "lstm.cuh"
#include "tile.cuh"

enum { SEQUENCES = 4 };

typedef lbr_cuda_pack<float, 4> Four;
typedef lbr_cuda_pack<float, 2> Pair;

// Rows of the product a thread keeps in registers; the others are in shared memory.
template <int UNITS> struct Split { enum { FORWARD = UNITS / 4, BACKWARD = UNITS / 2 }; };
template <> struct Split<128> { enum { FORWARD = 21, BACKWARD = 45 }; };

template <int UNITS> struct States {
    enum { REST = UNITS / 4 - Split<UNITS>::FORWARD };
    Four h[2][UNITS], bias[UNITS], rest[REST > 0 ? (int)REST : 1][4 * UNITS];
};
template <int UNITS> struct GateSlopes {
    enum { REST = UNITS / 2 - Split<UNITS>::BACKWARD };
    Four d[2][4 * UNITS];
    Pair rest[REST > 0 ? (int)REST : 1][4 * UNITS];
};

/* Each thread's numbers, [row][4 units threads][4 gates or 2 units]. */
static __global__ void arrange(bool turned, int H, int units, const float *r, int64_t row, int64_t column, float *to)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= 4 * units * units) return;
    int gate, from, state;
    if (turned) {
        const int thread = n / 2 % (4 * units), j = n / (8 * units) * 8 + (thread & 7);
        gate = j / units, from = j % units, state = (thread >> 3) * 2 + n % 2;
    } else {
        const int thread = n / 4 % (4 * units);
        gate = n % 4, from = thread >> 2, state = n / (16 * units) * 4 + (thread & 3);
    }
    to[n] = from < H && state < H ? r[(gate * H + from) * row + state * column] : 0.f;
}

// Of low and high the one that `upper` names, summed with the other lane's.
static __device__ __forceinline__ float swap_sum(float low, float high, bool upper, int lane)
{
    const float keep = upper ? high : low, give = upper ? low : high;
    return keep + __shfl_xor_sync(0xffffffffu, give, lane);
}

template <int UNITS> static __global__ void __launch_bounds__(4 * UNITS, 1) forward(lbr_cuda_lstm a)
{
    enum { KEEP = Split<UNITS>::FORWARD, ALL = UNITS / 4 };
    LBR_ROOM(States<UNITS>, s);
    const int q = threadIdx.x & 3, u = threadIdx.x >> 2, H = a.H; // sequence q is this thread's, and rows q, q + 4, ...
    const int b = blockIdx.x * SEQUENCES + q;
    const bool mine = u < H && b < a.B;

    Four w[KEEP];
    LBR_UNROLL for (int i = 0; i < ALL; i++) {
        const Four row = ((const Four *)a.r)[i * 4 * UNITS + threadIdx.x];
        if (i < KEEP) w[i] = row;
        else s.rest[i - KEEP][threadIdx.x] = row;
    }
    // places of this step
    int width, at_in = b * (int)a.pb * a.even + u, at_y = b * a.steps * H + u, at_cell = b * H + u, at_gate = b * 4 * H + lbr_lstm_place(u, H, &width);
    float c = mine && a.c0 ? ((const float *)a.c0)[at_cell] : 0.f, h = mine && a.h0 ? ((const float *)a.h0)[at_cell] : 0.f;
    Four in = {};
    if (mine) in = ((const Four *)a.input)[at_in];
    s.bias[u].v[q] = u < H ? ((const float *)a.b)[q * H + u] : 0.f;
    s.h[0][u].v[q] = h;
    __syncthreads();

    LBR_ROLL for (int t = 0; t < a.steps; t++) {
        const int now = t & 1;
        float v[4], sum[4][SEQUENCES] = {};
        const Four bias = s.bias[u];
        LBR_UNROLL for (int gate = 0; gate < 4; gate++) v[gate] = in.v[gate] + bias.v[gate];
        at_in += (int)a.pt * a.even;
        if (mine && t + 1 < a.steps) in = ((const Four *)a.input)[at_in]; // arrives while this step is worked on
        LBR_UNROLL for (int i = 0; i < ALL; i++) {
            const Four state = s.h[now][4 * i + q], row = i < KEEP ? w[i < KEEP ? i : 0] : s.rest[i < KEEP ? 0 : i - KEEP][threadIdx.x];
            LBR_UNROLL for (int gate = 0; gate < 4; gate++)
                LBR_UNROLL for (int e = 0; e < SEQUENCES; e++) sum[gate][e] = fmaf(row.v[gate], state.v[e], sum[gate][e]);
        }
        LBR_UNROLL for (int gate = 0; gate < 4; gate++) {
            const float low = swap_sum(sum[gate][0], sum[gate][2], q & 2, 2), high = swap_sum(sum[gate][1], sum[gate][3], q & 2, 2);
            v[gate] += swap_sum(low, high, q & 1, 1);
        }
        if (mine) {
            const float gi = lbr_lstm_sigmoid(v[0]), gf = lbr_lstm_sigmoid(v[1]), gn = tanhf(v[2]), go = lbr_lstm_sigmoid(v[3]);
            c = fmaf(gf, c, gi * gn);
            h = go * tanhf(c);
            ((float *)a.y)[at_y] = h;
            if (a.gates) {
                float *save = (float *)a.gates + at_gate;
                save[0] = gi, save[width] = gf, save[2 * width] = gn, save[3 * width] = go;
                ((float *)a.cells)[at_cell] = c;
            }
        }
        at_y += H, at_cell += a.B * H, at_gate += a.B * 4 * H;
        s.h[now ^ 1][u].v[q] = h;
        __syncthreads();
    }
    if (mine) ((float *)a.hn)[b * H + u] = h, ((float *)a.cn)[b * H + u] = c;
}

template <int UNITS> static __global__ void __launch_bounds__(4 * UNITS, 1) backward(lbr_cuda_lstm a, lbr_cuda_lstm_grad g)
{
    enum { KEEP = Split<UNITS>::BACKWARD, ALL = UNITS / 2 };
    LBR_ROOM(GateSlopes<UNITS>, s);
    const int q = threadIdx.x & 7, u = (threadIdx.x >> 3) * 2 + (q >> 2), H = a.H; // unit u of sequence q % 4, and rows q, q + 8, ... of u and its neighbour
    const int b = blockIdx.x * SEQUENCES + (q & 3);
    const bool mine = u < H && b < a.B;

    Pair w[KEEP];
    LBR_UNROLL for (int i = 0; i < ALL; i++) {
        const Pair row = ((const Pair *)a.r)[i * 4 * UNITS + threadIdx.x];
        if (i < KEEP) w[i] = row;
        else s.rest[i - KEEP][threadIdx.x] = row;
    }
    // places of what is read for the next step and of what is written at this one
    const int at = b * H + u, last = (a.steps - 1) * a.B + b;
    int width, at_gate = last * 4 * H + lbr_lstm_place(u, H, &width), at_cell = last * H + u, at_dy = b * (int)g.dyb + (a.steps - 1) * (int)g.dyt + u;
    int at_slope = (b * a.steps + a.steps - 1) * a.even + u;
    Four gates = {};
    float dy = 0, before = 0, dh = 0, dc = 0, c = 0;
    auto fetch = [&](int t) {
        if (!mine) return;
        LBR_UNROLL for (int gate = 0; gate < 4; gate++) gates.v[gate] = ((const float *)a.gates)[at_gate + gate * width];
        if (g.dy) dy = ((const float *)g.dy)[at_dy];
        before = t > 0 ? ((const float *)a.cells)[at_cell - a.B * H] : a.c0 ? ((const float *)a.c0)[at] : 0.f;
    };
    if (mine) {
        if (g.dhn) dh = ((const float *)g.dhn)[at];
        if (g.dcn) dc = ((const float *)g.dcn)[at];
        c = ((const float *)a.cells)[at_cell];
    }
    fetch(a.steps - 1);

    LBR_ROLL for (int t = a.steps - 1; t >= 0; t--) {
        const int now = t & 1;
        Four slope = {};
        if (mine) {
            const float gi = gates.v[0], gf = gates.v[1], gn = gates.v[2], go = gates.v[3], tc = tanhf(c), up = dh + dy, d = fmaf(up * go, 1 - tc * tc, dc);
            slope = {{d * gn * gi * (1 - gi), d * before * gf * (1 - gf), d * gi * (1 - gn * gn), up * tc * go * (1 - go)}};
            dc = d * gf;
            c = before;
        }
        LBR_UNROLL for (int gate = 0; gate < 4; gate++) s.d[now][gate * UNITS + u].v[q & 3] = slope.v[gate];
        if (b < a.B && u < a.even) ((Four *)g.slopes)[at_slope] = slope;
        at_gate -= a.B * 4 * H, at_cell -= a.B * H, at_dy -= (int)g.dyt, at_slope -= a.even;
        if (t > 0) fetch(t - 1); // arrives while this step is worked on
        __syncthreads();
        float sum[2][SEQUENCES] = {}, half[SEQUENCES];
        LBR_UNROLL for (int i = 0; i < ALL; i++) {
            const Four d = s.d[now][8 * i + q];
            const Pair row = i < KEEP ? w[i < KEEP ? i : 0] : s.rest[i < KEEP ? 0 : i - KEEP][threadIdx.x];
            LBR_UNROLL for (int unit = 0; unit < 2; unit++)
                LBR_UNROLL for (int e = 0; e < SEQUENCES; e++) sum[unit][e] = fmaf(row.v[unit], d.v[e], sum[unit][e]);
        }
        LBR_UNROLL for (int e = 0; e < SEQUENCES; e++) half[e] = swap_sum(sum[0][e], sum[1][e], q & 4, 4);
        const float low = swap_sum(half[0], half[2], q & 2, 2), high = swap_sum(half[1], half[3], q & 2, 2);
        dh = swap_sum(low, high, q & 1, 1);
    }
    if (mine) ((float *)g.dh0)[at] = dh, ((float *)g.dc0)[at] = dc;
}

template <int UNITS> static void walk(const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, cudaStream_t stream)
{
    const lbr_cuda_grid grid = {dim3((unsigned)(a->B + SEQUENCES - 1) / SEQUENCES), dim3(4 * UNITS), stream};
    if (g) LBR_LAUNCH_ROOM((backward<UNITS>), grid, sizeof(GateSlopes<UNITS>), *a, *g);
    else LBR_LAUNCH_ROOM((forward<UNITS>), grid, sizeof(States<UNITS>), *a);
}

void lbr_cuda_lstm_f32(const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, cudaStream_t stream)
{
    switch ((a->H + 31) / 32) {
    case 1: return walk<32>(a, g, stream);
    case 2: return walk<64>(a, g, stream);
    case 3: return walk<96>(a, g, stream);
    default: return walk<128>(a, g, stream);
    }
}

void lbr_cuda_lstm_f32_pack(bool backward, int H, const float *r, int64_t row, int64_t column, void *to, cudaStream_t stream)
{
    const int units = (H + 31) / 32 * 32;
    const lbr_cuda_grid g = {dim3((unsigned)(4 * units * units / 256)), dim3(256), stream};
    LBR_LAUNCH(arrange, g, backward, H, units, r, row, column, (float *)to);
}
