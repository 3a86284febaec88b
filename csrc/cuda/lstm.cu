// lstm.cu: the LSTM forward and backward in f32 and f64: input products of all steps at once, then one block a sequence walks through time.
#include "product.cuh"

template <class T> static __device__ T sigmoid_of(T v) { return 1 / (1 + exp(-v)); }

enum { MOST_UNITS = 1024, BLOCK = 16 };

// Where the four gates of unit u lie in a kept row, as csrc/cpu/lstm.h has it: blocks of 16 units, each [4][width].
static __device__ int place(int u, int H, int *width)
{
    int first = u / BLOCK * BLOCK;
    *width = H - first < BLOCK ? H - first : (int)BLOCK;
    return first * 4 + u - first;
}

template <class T> struct Hidden { T h[MOST_UNITS]; };
template <class T> struct Slopes { T d[4 * MOST_UNITS]; };

// turned[k][j] = r[j][k]: neighbouring gate rows side by side.
template <class T> static __global__ void turn(int rows, int columns, const T *r, T *turned)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (int64_t)rows * columns; i += (int64_t)gridDim.x * blockDim.x)
        turned[i] = r[i % rows * columns + i / rows];
}

// A block walks one sequence; thread u owns unit u. input [B,T,4H] holds x W^T + b.
template <class T>
static __global__ void walk_forward(int steps, int H, const T *input, const T *turned, const T *h0, const T *c0, T *y, T *hn, T *cn, T *gates, T *cells)
{
    LBR_SHARED(Hidden<T>, s);
    const int64_t b = blockIdx.x, B = gridDim.x;
    const int u = threadIdx.x;
    T c = 0, h = 0;
    if (u < H) {
        if (h0) h = h0[b * H + u];
        if (c0) c = c0[b * H + u];
        s.h[u] = h;
    }
    for (int t = 0; t < steps; t++) {
        __syncthreads();
        T v[4] = {};
        if (u < H) {
            for (int g = 0; g < 4; g++) v[g] = input[(b * steps + t) * 4 * H + g * H + u];
            for (int k = 0; k < H; k++)
                for (int g = 0; g < 4; g++) v[g] += turned[(int64_t)k * 4 * H + g * H + u] * s.h[k];
        }
        __syncthreads();
        if (u < H) {
            T i = sigmoid_of(v[0]), f = sigmoid_of(v[1]), n = tanh(v[2]), o = sigmoid_of(v[3]);
            c = f * c + i * n;
            h = o * tanh(c);
            s.h[u] = h;
            y[(b * steps + t) * H + u] = h;
            if (gates) {
                int width, at = place(u, H, &width);
                T *save = gates + ((int64_t)t * B + b) * 4 * H + at;
                save[0] = i, save[width] = f, save[2 * width] = n, save[3 * width] = o;
                cells[((int64_t)t * B + b) * H + u] = c;
            }
        }
    }
    if (u < H) hn[b * H + u] = h, cn[b * H + u] = c;
}

// slopes [B,T,4H]: the gradient of the gates before their activations; before [B,T,H]: the state that each step began with.
template <class T>
static __global__ void walk_backward(int steps, int H, const T *r, const T *h0, const T *c0, const T *y, const T *gates, const T *cells, const T *dy, int64_t dyb, int64_t dyt,
                                     int64_t dyu, const T *dhn, const T *dcn, T *slopes, T *before, T *dh0, T *dc0)
{
    LBR_SHARED(Slopes<T>, s);
    const int64_t b = blockIdx.x, B = gridDim.x;
    const int u = threadIdx.x;
    T dh = u < H && dhn ? dhn[b * H + u] : (T)0, dc = u < H && dcn ? dcn[b * H + u] : (T)0;
    for (int t = steps - 1; t >= 0; t--) {
        if (u < H) {
            int width, at = place(u, H, &width);
            const T *g = gates + ((int64_t)t * B + b) * 4 * H + at;
            T i = g[0], f = g[width], n = g[2 * width], o = g[3 * width], tc = tanh(cells[((int64_t)t * B + b) * H + u]);
            T old_c = t > 0 ? cells[((int64_t)(t - 1) * B + b) * H + u] : c0 ? c0[b * H + u] : (T)0;
            T e = dh + (dy ? dy[b * dyb + t * dyt + u * dyu] : (T)0), d = dc + e * o * (1 - tc * tc);
            T v[4] = {d * n * i * (1 - i), d * old_c * f * (1 - f), d * i * (1 - n * n), e * tc * o * (1 - o)};
            dc = d * f;
            for (int k = 0; k < 4; k++) s.d[k * H + u] = v[k], slopes[(b * steps + t) * 4 * H + k * H + u] = v[k];
            before[(b * steps + t) * H + u] = t > 0 ? y[(b * steps + t - 1) * H + u] : h0 ? h0[b * H + u] : (T)0;
        }
        __syncthreads();
        dh = 0;
        if (u < H)
            for (int j = 0; j < 4 * H; j++) dh += s.d[j] * r[(int64_t)j * H + u];
        __syncthreads();
    }
    if (u < H) dh0[b * H + u] = dh, dc0[b * H + u] = dc;
}

template <class T> static __global__ void sum_rows(int64_t rows, int columns, const T *x, T *y)
{
    for (int j = blockIdx.x * blockDim.x + threadIdx.x; j < columns; j += gridDim.x * blockDim.x) {
        T sum = 0;
        for (int64_t i = 0; i < rows; i++) sum += x[i * columns + j];
        y[j] = sum;
    }
}

static int units(const lbr_call *c, int H)
{
    if (H > MOST_UNITS) return lbr_fail(LBR_EUNSUPPORTED, "%s: %d units, the CUDA kernel takes at most %d", lbr_op_name(c->op), H, MOST_UNITS);
    for (int i = 1; i < c->nin; i++)
        if (i != 8 && lbr_present(&c->in[i]) && !lbr_tensor_contiguous(&c->in[i]))
            return lbr_fail(LBR_ESHAPE, "%s: input %d %s is not contiguous", lbr_op_name(c->op), i + 1, lbr_describe(&c->in[i]));
    return 0;
}

// Rows (b, t) of a sequence whose features may lie anywhere.
static lbr_cuda_operand frames(const lbr_tensor *x) { return {x->data, x->shape[1], x->stride[0], x->stride[1], 1 << 30, 0, x->stride[2]}; }

template <class T> static int forward(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    const int B = x->shape[0], steps = x->shape[1], F = x->shape[2], H = c->in[2].shape[1];
    const bool save = ((const lbr_lstm_forward_attr *)c->attr)->save;
    int rc = units(c, H);
    if (rc || !B) return rc;
    int64_t rows = (int64_t)B * steps;
    T *input = (T *)lbr_cuda_workspace(c, (rows * 4 * H + (int64_t)4 * H * H) * (int64_t)sizeof(T)), *turned = input + rows * 4 * H;
    if (!input) return LBR_ENOMEM;
    cudaStream_t stream = lbr_cuda_stream(c->device - LBR_CUDA);
    lbr_cuda_product(x->dtype, frames(x), lbr_cuda_rows(c->in[1].data, F, 1), c->in[3].data, 0, input, (int)rows, 4 * H, F, 1, 0, 0, stream);
    lbr_cuda_grid all = {dim3((unsigned)(4 * H * H + 255) / 256), dim3(256), stream}, g = {dim3((unsigned)B), dim3((unsigned)(H + 31) / 32 * 32), stream};
    LBR_LAUNCH(turn<T>, all, 4 * H, H, (const T *)c->in[2].data, turned);
    LBR_LAUNCH(walk_forward<T>, g, steps, H, (const T *)input, (const T *)turned, (const T *)c->in[4].data, (const T *)c->in[5].data, (T *)c->out[0].data, (T *)c->out[1].data,
               (T *)c->out[2].data, save ? (T *)c->out[3].data : (T *)NULL, save ? (T *)c->out[4].data : (T *)NULL);
    return 0;
}

template <class T> static int backward(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *dy = &c->in[8];
    const int B = x->shape[0], steps = x->shape[1], F = x->shape[2], H = c->in[2].shape[1];
    int rc = units(c, H);
    if (rc) return rc;
    int64_t rows = (int64_t)B * steps;
    T *slopes = (T *)lbr_cuda_workspace(c, (rows * 5 * H + 1) * (int64_t)sizeof(T)), *before = slopes + rows * 4 * H;
    if (!slopes) return LBR_ENOMEM;
    cudaStream_t stream = lbr_cuda_stream(c->device - LBR_CUDA);
    lbr_cuda_grid g = {dim3((unsigned)B), dim3((unsigned)(H + 31) / 32 * 32), stream}, wide = {dim3((unsigned)(4 * H + 255) / 256), dim3(256), stream};
    int64_t dyb = lbr_present(dy) ? dy->stride[0] : 0, dyt = lbr_present(dy) ? dy->stride[1] : 0, dyu = lbr_present(dy) ? dy->stride[2] : 0;
#define IN(i) (const T *)c->in[i].data
    if (B) LBR_LAUNCH(walk_backward<T>, g, steps, H, IN(2), IN(3), IN(4), IN(5), IN(6), IN(7), IN(8), dyb, dyt, dyu, IN(9), IN(10), slopes, before, (T *)c->out[4].data, (T *)c->out[5].data);
#undef IN
    int dtype = x->dtype;
    if (((const lbr_lstm_backward_attr *)c->attr)->need_dx)
        lbr_cuda_product(dtype, lbr_cuda_rows(slopes, 4 * H, 1), lbr_cuda_rows(c->in[1].data, 1, F), NULL, 0, c->out[0].data, (int)rows, F, 4 * H, 1, 0, 0, stream);
    // sums over all (b, t): operands turned, so that k runs over the rows
    lbr_cuda_operand gates = lbr_cuda_rows(slopes, 1, 4 * H), states = lbr_cuda_rows(before, 1, H);
    lbr_cuda_operand inputs = {x->data, 1 << 30, 0, x->stride[2], steps, x->stride[0], x->stride[1]};
    lbr_cuda_product(dtype, gates, inputs, NULL, 0, c->out[1].data, 4 * H, F, (int)rows, 1, 0, 0, stream);
    lbr_cuda_product(dtype, gates, states, NULL, 0, c->out[2].data, 4 * H, H, (int)rows, 1, 0, 0, stream);
    LBR_LAUNCH(sum_rows<T>, wide, rows, 4 * H, (const T *)slopes, (T *)c->out[3].data);
    return 0;
}

int lbr_cuda_lstm_forward(lbr_call *c) { return c->in[0].dtype == LBR_F64 ? forward<double>(c) : forward<float>(c); }
int lbr_cuda_lstm_backward(lbr_call *c) { return c->in[0].dtype == LBR_F64 ? backward<double>(c) : backward<float>(c); }
