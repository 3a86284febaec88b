// lstm_halves.cu: the LSTM's walk through time in f16 and bf16, forward and backward, in one launch each: up to 128 units. f32 is in lstm_f32.cu.
//
// A block owns 8 or 16 sequences and all units; a warp owns 16 units. Its part of W_hh stays in registers as the left operand of m16n8k16 products (UNITS registers a thread), the
// states of the sequences go round through shared memory: two buffers, so that one barrier a step is enough. Rows of the left operand are ordered so that a thread gets all four
// gates of two neighbouring units for two sequences: the cell never leaves its registers, and every access to global memory moves two units at once.
// Sums and cells are f32. Sigmoid and tanh go through tanh.approx, as the 128 x 8 cells of a step cost as much as its products: relative error of tanh 2^-11, absolute error of
// the sigmoid 2^-12, half a unit in the last place of an f16 gate near 1 and less than that of a bf16. NaN passes and stays in its sequence: sequences are columns of the product.
#include "lstm.cuh"
#include "ptx.cuh"

// Two neighbouring numbers.
template <class S> struct __align__(4) Two { S v[2]; };
template <class S> struct __align__(16) Eight { S v[8]; };

template <class S> static __device__ __forceinline__ unsigned bits(Two<S> two)
{
    unsigned u;
    memcpy(&u, &two, sizeof u);
    return u;
}
template <class S> static __device__ __forceinline__ Two<S> two_of(float a, float b) { return {{lbr_cuda_store<S>(a), lbr_cuda_store<S>(b)}}; }

// p[0] and p[1], which may be past the end: at once where that is aligned (`pair`).
template <class S> static __device__ __forceinline__ Two<S> load_two(const S *p, bool pair, bool second)
{
    if (pair) return *(const Two<S> *)p;
    return {{p[0], second ? p[1] : lbr_cuda_store<S>(0.f)}};
}
template <class S> static __device__ __forceinline__ void store_two(S *p, Two<S> v, bool pair, bool second)
{
    if (pair) {
        *(Two<S> *)p = v;
        return;
    }
    p[0] = v.v[0];
    if (second) p[1] = v.v[1];
}
static __device__ __forceinline__ void load_cells(const float *p, bool pair, bool second, float &a, float &b)
{
    if (pair) {
        const float2 v = *(const float2 *)p;
        a = v.x, b = v.y;
        return;
    }
    a = p[0], b = second ? p[1] : 0.f;
}
static __device__ __forceinline__ void store_cells(float *p, float a, float b, bool pair, bool second)
{
    if (pair) {
        *(float2 *)p = make_float2(a, b);
        return;
    }
    p[0] = a;
    if (second) p[1] = b;
}

static __device__ __forceinline__ float sigmoid_of(float v) { return fmaf(lbr_tanh(.5f * v), .5f, .5f); }

/* Left operands as lanes hold them: fragment [i][32 lanes][4 registers]. Forward: i = (warp, gate, 16 states), rows the 16 units of a warp, even ones first.
 * Backward: i = (warp, 16 slopes), the same rows, columns the four gates of four units. */
template <class S> static __global__ void fragments(bool turned, int H, int units, const float *r, int64_t row, int64_t column, unsigned *to)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x, q = i & 3, lane = i >> 2 & 31, deep = turned ? units / 4 : units / 16, d = (i >> 7) % deep, rest = (i >> 7) / deep;
    if (i >= 2 * units * units) return;
    const int gate = rest & 3, unit = (turned ? rest : rest >> 2) * 16 + (lane >> 2) * 2 + (q & 1), k = d * 16 + (lane & 3) * 2 + (q >> 1) * 8;
    float v[2] = {0, 0};
    for (int e = 0; e < 2; e++) {
        const int state = turned ? unit : k + e, from = turned ? (k + e) >> 2 : unit, g = turned ? (k + e) & 3 : gate;
        if (state < H && from < H) v[e] = r[(g * H + from) * row + state * column];
    }
    to[i] = bits(two_of<S>(v[0], v[1]));
}

static __device__ __forceinline__ void load_fragment(const void *all, int i, unsigned (&w)[4])
{
    const uint4 v = ((const uint4 *)all)[i * 32 + (threadIdx.x & 31)];
    w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
}

template <class S, int UNITS, int SEQUENCES> struct States {
    S h[2][SEQUENCES][UNITS + 8];
    float bias[4][UNITS];
};
template <class S, int UNITS, int SEQUENCES> struct GateSlopes { S d[2][SEQUENCES][4 * UNITS + 8]; };

template <class S, int UNITS, int TILES> static __global__ void __launch_bounds__(2 * UNITS, UNITS == 128 ? 1 : 2) forward(lbr_cuda_lstm a)
{
    enum { SEQUENCES = 8 * TILES, DEEP = UNITS / 16 };
    typedef States<S, UNITS, SEQUENCES> Room;
    LBR_SHARED(Room, s);
    const int lane = threadIdx.x & 31, column = 2 * (lane & 3), H = a.H;
    const int u = (threadIdx.x >> 5) * 16 + (lane >> 2) * 2; // and u + 1
    const int first = blockIdx.x * SEQUENCES;
    const bool mine = u < H, second = u + 1 < H, pair = H % 2 == 0;

    unsigned w[4][DEEP][4];
    LBR_UNROLL for (int gate = 0; gate < 4; gate++)
        LBR_UNROLL for (int d = 0; d < DEEP; d++) load_fragment(a.r, ((threadIdx.x >> 5) * 4 + gate) * DEEP + d, w[gate][d]);
    for (int i = threadIdx.x; i < 4 * UNITS; i += 2 * UNITS) s.bias[i / UNITS][i % UNITS] = i % UNITS < H ? ((const float *)a.b)[i / UNITS * H + i % UNITS] : 0.f;
    for (int i = threadIdx.x; i < SEQUENCES * UNITS; i += 2 * UNITS) {
        const int b = first + i / UNITS, k = i % UNITS;
        s.h[0][i / UNITS][k] = a.h0 && b < a.B && k < H ? ((const S *)a.h0)[(int64_t)b * H + k] : lbr_cuda_store<S>(0.f);
    }
    // places of sequence `first + column` at this step; its neighbours are a constant further on
    const int b0 = first + column, by_in = (int)a.pb * 4 * a.even, by_y = a.steps * H;
    int width, at_in = b0 * by_in + u * 4, at_y = b0 * by_y + u, at_cell = b0 * H + u, at_gate = b0 * 4 * H + lbr_lstm_place(u, H, &width);
    const S *input = (const S *)a.input;
    float c[TILES][4]; // [2 * unit + sequence]
    Eight<S> in[TILES][2];
    LBR_UNROLL for (int n = 0; n < TILES; n++)
        LBR_UNROLL for (int e = 0; e < 2; e++) {
            const int i = n * 8 + e;
            c[n][e] = c[n][2 + e] = 0;
            in[n][e] = {};
            if (b0 + i >= a.B || !mine) continue;
            in[n][e] = *(const Eight<S> *)(input + (at_in + i * by_in));
            if (a.c0) load_cells((const float *)a.c0 + (at_cell + i * H), pair, second, c[n][e], c[n][2 + e]);
        }
    __syncthreads();

    LBR_ROLL for (int t = 0; t < a.steps; t++) {
        const int now = t & 1;
        at_in += (int)a.pt * 4 * a.even;
        LBR_UNROLL for (int n = 0; n < TILES; n++) {
            float sum[4][4];
            LBR_UNROLL for (int gate = 0; gate < 4; gate++) {
                const float2 bias = *(const float2 *)&s.bias[gate][u];
                LBR_UNROLL for (int e = 0; e < 2; e++) {
                    sum[gate][e] = lbr_cuda_load(in[n][e].v[gate]) + bias.x;
                    sum[gate][2 + e] = lbr_cuda_load(in[n][e].v[4 + gate]) + bias.y;
                }
            }
            LBR_UNROLL for (int e = 0; e < 2; e++) { // arrives while this step is worked on
                const int i = n * 8 + e;
                if (t + 1 < a.steps && b0 + i < a.B && mine) in[n][e] = *(const Eight<S> *)(input + (at_in + i * by_in));
            }
            LBR_UNROLL for (int d = 0; d < DEEP; d += 2) {
                unsigned h[4];
                lbr_ldmatrix4(h, &s.h[now][n * 8 + (lane & 7)][d * 16 + (lane >> 3) * 8]);
                LBR_UNROLL for (int half = 0; half < 2; half++) {
                    const unsigned right[2] = {h[2 * half], h[2 * half + 1]};
                    LBR_UNROLL for (int gate = 0; gate < 4; gate++) lbr_mma<S>(sum[gate], w[gate][d + half], right);
                }
            }
            float h[4];
            LBR_UNROLL for (int e = 0; e < 4; e++) {
                sum[0][e] = sigmoid_of(sum[0][e]), sum[1][e] = sigmoid_of(sum[1][e]), sum[2][e] = lbr_tanh(sum[2][e]), sum[3][e] = sigmoid_of(sum[3][e]);
                c[n][e] = fmaf(sum[1][e], c[n][e], sum[0][e] * sum[2][e]);
                h[e] = u + (e >> 1) < H ? sum[3][e] * lbr_tanh(c[n][e]) : 0.f;
            }
            LBR_UNROLL for (int e = 0; e < 2; e++) {
                const int i = n * 8 + e;
                const Two<S> state = two_of<S>(h[e], h[2 + e]);
                *(Two<S> *)&s.h[now ^ 1][column + i][u] = state;
                if (b0 + i >= a.B || !mine) continue;
                store_two((S *)a.y + (at_y + i * by_y), state, pair, second);
                if (a.gates) {
                    S *save = (S *)a.gates + (at_gate + i * 4 * H);
                    LBR_UNROLL for (int gate = 0; gate < 4; gate++) store_two(save + gate * width, two_of<S>(sum[gate][e], sum[gate][2 + e]), pair, second);
                    store_cells((float *)a.cells + (at_cell + i * H), c[n][e], c[n][2 + e], pair, second);
                }
                if (t + 1 == a.steps) {
                    store_two((S *)a.hn + ((b0 + i) * H + u), state, pair, second);
                    store_cells((float *)a.cn + ((b0 + i) * H + u), c[n][e], c[n][2 + e], pair, second);
                }
            }
        }
        at_y += H, at_cell += a.B * H, at_gate += a.B * 4 * H;
        __syncthreads();
    }
}

// What a thread reads for one step of one sequence: two units.
template <class S> struct Kept {
    Two<S> gates[4], dy;
    float before[2]; // cells of the step before
};

template <class S, int UNITS, int TILES> static __global__ void __launch_bounds__(2 * UNITS, UNITS == 128 ? 1 : 2) backward(lbr_cuda_lstm a, lbr_cuda_lstm_grad g)
{
    enum { SEQUENCES = 8 * TILES, DEEP = UNITS / 4, CHAINS = TILES > 1 ? 2 : 4 }; // several sums, so that one product need not wait for the last
    typedef GateSlopes<S, UNITS, SEQUENCES> Room;
    LBR_SHARED(Room, s);
    const int lane = threadIdx.x & 31, column = 2 * (lane & 3), H = a.H;
    const int u = (threadIdx.x >> 5) * 16 + (lane >> 2) * 2; // and u + 1
    const int first = blockIdx.x * SEQUENCES;
    const bool mine = u < H, second = u + 1 < H, pair = H % 2 == 0, pair_dy = pair && g.dyb % 2 == 0 && g.dyt % 2 == 0 && (uintptr_t)g.dy % sizeof(Two<S>) == 0;

    unsigned w[DEEP][4]; // transposed: rows are units, columns the gates of a unit side by side
    LBR_UNROLL for (int d = 0; d < DEEP; d++) load_fragment(a.r, (threadIdx.x >> 5) * DEEP + d, w[d]);
    // places of sequence `first + column`, of what is read for the next step and of what is written at this one
    const int b0 = first + column, by_slope = a.steps * 4 * a.even, dyb = (int)g.dyb, last = (a.steps - 1) * a.B + b0;
    int width, at_gate = last * 4 * H + lbr_lstm_place(u, H, &width), at_cell = last * H + u, at_dy = b0 * dyb + (a.steps - 1) * (int)g.dyt + u;
    int at_slope = b0 * by_slope + ((a.steps - 1) * a.even + u) * 4;
    Kept<S> kept[TILES][2];
    auto fetch = [&](int t) {
        const float *cells = t > 0 ? (const float *)a.cells + (at_cell - a.B * H) : a.c0 ? (const float *)a.c0 + (b0 * H + u) : NULL;
        LBR_UNROLL for (int n = 0; n < TILES; n++)
            LBR_UNROLL for (int e = 0; e < 2; e++) {
                const int i = n * 8 + e;
                Kept<S> &k = kept[n][e];
                if (b0 + i >= a.B || !mine) continue;
                const S *saved = (const S *)a.gates + (at_gate + i * 4 * H);
                LBR_UNROLL for (int gate = 0; gate < 4; gate++) k.gates[gate] = load_two(saved + gate * width, pair, second);
                if (g.dy) k.dy = load_two((const S *)g.dy + (at_dy + i * dyb), pair_dy, second);
                if (cells) load_cells(cells + i * H, pair, second, k.before[0], k.before[1]);
                else k.before[0] = k.before[1] = 0;
            }
    };
    float dh[TILES][4], dc[TILES][4], c[TILES][4]; // [2 * unit + sequence]
    LBR_UNROLL for (int n = 0; n < TILES; n++)
        LBR_UNROLL for (int e = 0; e < 2; e++) {
            const int i = n * 8 + e, at = (b0 + i) * H + u;
            dh[n][e] = dh[n][2 + e] = dc[n][e] = dc[n][2 + e] = c[n][e] = c[n][2 + e] = 0;
            kept[n][e] = {};
            if (b0 + i >= a.B || !mine) continue;
            if (g.dhn) {
                const Two<S> v = load_two((const S *)g.dhn + at, pair, second);
                dh[n][e] = lbr_cuda_load(v.v[0]), dh[n][2 + e] = lbr_cuda_load(v.v[1]);
            }
            if (g.dcn) load_cells((const float *)g.dcn + at, pair, second, dc[n][e], dc[n][2 + e]);
            load_cells((const float *)a.cells + (at_cell + i * H), pair, second, c[n][e], c[n][2 + e]);
        }
    fetch(a.steps - 1);

    LBR_ROLL for (int t = a.steps - 1; t >= 0; t--) {
        const int now = t & 1;
        LBR_UNROLL for (int n = 0; n < TILES; n++)
            LBR_UNROLL for (int e = 0; e < 2; e++) {
                const int i = n * 8 + e;
                const Kept<S> &k = kept[n][e];
                Eight<S> slope;
                LBR_UNROLL for (int unit = 0; unit < 2; unit++) {
                    const int at = 2 * unit + e;
                    const bool there = b0 + i < a.B && u + unit < H;
                    const float gi = lbr_cuda_load(k.gates[0].v[unit]), gf = lbr_cuda_load(k.gates[1].v[unit]), gn = lbr_cuda_load(k.gates[2].v[unit]), go = lbr_cuda_load(k.gates[3].v[unit]);
                    const float tc = lbr_tanh(c[n][at]), up = dh[n][at] + lbr_cuda_load(k.dy.v[unit]), d = fmaf(up * go, 1 - tc * tc, dc[n][at]);
                    slope.v[4 * unit] = lbr_cuda_store<S>(there ? d * gn * gi * (1 - gi) : 0.f);
                    slope.v[4 * unit + 1] = lbr_cuda_store<S>(there ? d * k.before[unit] * gf * (1 - gf) : 0.f);
                    slope.v[4 * unit + 2] = lbr_cuda_store<S>(there ? d * gi * (1 - gn * gn) : 0.f);
                    slope.v[4 * unit + 3] = lbr_cuda_store<S>(there ? up * tc * go * (1 - go) : 0.f);
                    dc[n][at] = d * gf;
                    c[n][at] = k.before[unit];
                }
                *(Eight<S> *)&s.d[now][column + i][u * 4] = slope;
                if (b0 + i < a.B && mine) *(Eight<S> *)((S *)g.slopes + (at_slope + i * by_slope)) = slope;
            }
        at_gate -= a.B * 4 * H, at_cell -= a.B * H, at_dy -= (int)g.dyt, at_slope -= 4 * a.even;
        if (t > 0) fetch(t - 1); // arrives while this step is worked on
        __syncthreads();
        LBR_UNROLL for (int n = 0; n < TILES; n++) {
            float sum[CHAINS][4] = {};
            LBR_UNROLL for (int d = 0; d < DEEP; d += 2) {
                unsigned right[4];
                lbr_ldmatrix4(right, &s.d[now][n * 8 + (lane & 7)][d * 16 + (lane >> 3) * 8]);
                const unsigned low[2] = {right[0], right[1]}, high[2] = {right[2], right[3]};
                lbr_mma<S>(sum[d % CHAINS], w[d], low);
                lbr_mma<S>(sum[(d + 1) % CHAINS], w[d + 1], high);
            }
            LBR_UNROLL for (int e = 0; e < 4; e++) dh[n][e] = CHAINS == 4 ? (sum[0][e] + sum[1][e]) + (sum[2][e] + sum[3][e]) : sum[0][e] + sum[1][e];
        }
    }
    LBR_UNROLL for (int n = 0; n < TILES; n++)
        LBR_UNROLL for (int e = 0; e < 2; e++) {
            const int i = n * 8 + e, at = (b0 + i) * H + u;
            if (b0 + i >= a.B || !mine) continue;
            store_two((S *)g.dh0 + at, two_of<S>(dh[n][e], dh[n][2 + e]), pair, second);
            store_cells((float *)g.dc0 + at, dc[n][e], dc[n][2 + e], pair, second);
        }
}

// 16 sequences a block once blocks of 8 would no longer run all at once.
static bool both_tiles(int B, int units, int processors) { return B > 8 * processors * (128 / units); }

template <class S, int UNITS> static void walk(const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, int processors, cudaStream_t stream)
{
    const int each = both_tiles(a->B, UNITS, processors) ? 16 : 8;
    const lbr_cuda_grid grid = {dim3((unsigned)(a->B + each - 1) / each), dim3(2 * UNITS), stream};
    if (g && each == 8) LBR_LAUNCH((backward<S, UNITS, 1>), grid, *a, *g);
    else if (g) LBR_LAUNCH((backward<S, UNITS, 2>), grid, *a, *g);
    else if (each == 8) LBR_LAUNCH((forward<S, UNITS, 1>), grid, *a);
    else LBR_LAUNCH((forward<S, UNITS, 2>), grid, *a);
}

template <class S> static void walk_units(const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, int processors, cudaStream_t stream)
{
    switch ((a->H + 31) / 32) {
    case 1: return walk<S, 32>(a, g, processors, stream);
    case 2: return walk<S, 64>(a, g, processors, stream);
    case 3: return walk<S, 96>(a, g, processors, stream);
    default: return walk<S, 128>(a, g, processors, stream);
    }
}

void lbr_cuda_lstm_halves(int dtype, const lbr_cuda_lstm *a, const lbr_cuda_lstm_grad *g, int processors, cudaStream_t stream)
{
    if (dtype == LBR_F16) walk_units<__half>(a, g, processors, stream);
    else walk_units<__nv_bfloat16>(a, g, processors, stream);
}

void lbr_cuda_lstm_halves_pack(int dtype, bool backward, int H, const float *r, int64_t row, int64_t column, void *to, cudaStream_t stream)
{
    const int units = (H + 31) / 32 * 32;
    const lbr_cuda_grid g = {dim3((unsigned)(2 * units * units / 256)), dim3(256), stream};
    if (dtype == LBR_F16) LBR_LAUNCH(fragments<__half>, g, backward, H, units, r, row, column, (unsigned *)to);
    else LBR_LAUNCH(fragments<__nv_bfloat16>, g, backward, H, units, r, row, column, (unsigned *)to);
}
