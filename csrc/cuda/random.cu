// random.cu: counter-based random numbers (Philox 4x32-10) and dropout. Uniform numbers and dropout are the CPU's bit for bit, normal ones within 1 unit in the last
// place in f32 and 1e-14 of |mean| + 7 SD in f64, as the device's log, sin and cos round.
#include "convert.cuh"

struct Four { unsigned v[4]; };

static __device__ Four philox(uint64_t key, uint64_t low, uint64_t high)
{
    unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32), c0 = (unsigned)low, c1 = (unsigned)(low >> 32), c2 = (unsigned)high, c3 = (unsigned)(high >> 32);
    for (int round = 0; round < 10; round++) {
        unsigned h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0, h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// [0, 1) in 24 bits, exact in f32
static __device__ __forceinline__ double uniform(unsigned u) { return (double)(u >> 8) * 0x1p-24; }
// a + b c, rounded after each operation as on the CPU
static __device__ __forceinline__ double plus(double a, double b, double c) { return __dadd_rn(a, __dmul_rn(b, c)); }

static __device__ __forceinline__ uint64_t stream_of(unsigned stream, const int32_t *counter) { return (uint64_t)stream << 32 | (counter ? (unsigned)*counter : 0); }

template <class T> static __global__ void draw(lbr_random_attr a, const int32_t *counter, int64_t n, T *y)
{
    const uint64_t high = stream_of(a.stream, counter);
    for (int64_t b = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; 4 * b < n; b += (int64_t)gridDim.x * blockDim.x) {
        Four u = philox(a.seed, (uint64_t)b, high);
        lbr_cuda_four<T> v;
        if (a.kind == 1)
            for (int k = 0; k < 4; k += 2) {
                double r = sqrt(-2 * log(((double)u.v[k] + 1) * 0x1p-32)), s, c;
                sincos(6.283185307179586 * (double)u.v[k + 1] * 0x1p-32, &s, &c);
                v.v[k] = (T)plus(a.low, a.high * r, c);
                v.v[k + 1] = (T)plus(a.low, a.high * r, s);
            }
        else
            for (int k = 0; k < 4; k++) v.v[k] = (T)plus(a.low, a.high - a.low, uniform(u.v[k]));
        lbr_cuda_write4(y + 4 * b, n - 4 * b, v);
    }
}

template <class S> static __global__ void drop(lbr_dropout_attr a, const int32_t *counter, int64_t n, const S *x, S *y, uint8_t *mask)
{
    const uint64_t high = stream_of(a.stream, counter);
    const double scale = 1 / (1 - a.p);
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < n; i += (int64_t)gridDim.x * blockDim.x * 4) {
        Four u = philox(a.seed, (uint64_t)(i / 4), high);
        lbr_cuda_four<S> v = lbr_cuda_read4(x + i, n - i);
        lbr_cuda_four<uint8_t> m;
        for (int k = 0; k < 4; k++) {
            m.v[k] = uniform(u.v[k]) >= a.p;
            v.v[k] = lbr_cuda_to<S>::of(m.v[k] ? (double)lbr_cuda_load(v.v[k]) * scale : 0.);
        }
        lbr_cuda_write4(y + i, n - i, v);
        lbr_cuda_write4(mask + i, n - i, m);
    }
}

static lbr_cuda_grid grid_of(const lbr_call *c, int64_t n)
{
    enum { THREADS = 256 };
    int64_t blocks = (n + 4 * THREADS - 1) / (4 * THREADS), most = (int64_t)lbr_cuda_processors(c->device - LBR_CUDA) * 32;
    return {dim3((unsigned)(blocks < most ? blocks : most)), dim3(THREADS), lbr_cuda_stream(c->device - LBR_CUDA)};
}

int lbr_cuda_random(lbr_call *c)
{
    lbr_random_attr a = *(const lbr_random_attr *)c->attr;
    int64_t n = lbr_tensor_numel(&c->out[0]);
    lbr_cuda_grid g = grid_of(c, n);
    if (!n) return 0;
    if (c->out[0].dtype == LBR_F64) LBR_LAUNCH(draw<double>, g, a, (const int32_t *)c->in[0].data, n, (double *)c->out[0].data);
    else LBR_LAUNCH(draw<float>, g, a, (const int32_t *)c->in[0].data, n, (float *)c->out[0].data);
    return 0;
}

int lbr_cuda_dropout(lbr_call *c)
{
    lbr_dropout_attr a = *(const lbr_dropout_attr *)c->attr;
    int64_t n = lbr_tensor_numel(&c->in[0]);
    lbr_cuda_grid g = grid_of(c, n);
    if (!n) return 0;
#define CASE(id, S) \
    case id: LBR_LAUNCH(drop<S>, g, a, (const int32_t *)c->in[1].data, n, (const S *)c->in[0].data, (S *)c->out[0].data, (uint8_t *)c->out[1].data); break;
    switch (c->in[0].dtype) { CASE(LBR_F32, float) CASE(LBR_F64, double) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16) }
#undef CASE
    return 0;
}
