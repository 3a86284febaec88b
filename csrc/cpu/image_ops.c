/* image_ops.c: pooling, bilinear resizing and depth to space on [B,H,W,C], forward and backward. Convolutions are elsewhere. */
#include "cpu.h"

/* f32 and f64 as they are; f16 and bf16 are for convolution operands only. */
static int plain(const lbr_call *c)
{
    return c->out[0].dtype <= LBR_F64 ? 0 : lbr_fail(LBR_EUNSUPPORTED, "%s: %s on the CPU, want f32 or f64", lbr_op_name(c->op), lbr_describe(&c->out[0]));
}

struct pool {
    const lbr_tensor *x, *y; /* y: output or its gradient */
    lbr_tensor *out;
    const int32_t *kernel, *stride, *pad;
    bool mean, back;
    uint8_t *room; /* of bytes: a row of x for each thread */
};

#define POOL(T)                                                                                                            \
    LBR_CLONES static void pool_##T(void *ctx, int64_t begin, int64_t end, int thread)                                      \
    {                                                                                                                      \
        (void)thread;                                                                                                      \
        const struct pool *k = ctx;                                                                                        \
        int64_t H = k->x->shape[1], W = k->x->shape[2], C = k->x->shape[3], OH = k->y->shape[1], OW = k->y->shape[2];      \
        for (int64_t row = begin; row < end; row++) {                                                                      \
            int64_t b = k->back ? row : row / OH, first = k->back ? 0 : row % OH, last = k->back ? OH : first + 1;         \
            const T *x = (const T *)k->x->data + b * H * W * C;                                                            \
            if (k->back) memset((T *)k->out->data + b * H * W * C, 0, sizeof(T) * (size_t)(H * W * C));                    \
            for (int64_t oy = first; oy < last; oy++)                                                                      \
                for (int64_t ox = 0; ox < OW; ox++) {                                                                      \
                    int64_t y0 = oy * k->stride[0] - k->pad[0], x0 = ox * k->stride[1] - k->pad[2];                        \
                    int64_t y1 = y0 + k->kernel[0] < H ? y0 + k->kernel[0] : H, x1 = x0 + k->kernel[1] < W ? x0 + k->kernel[1] : W; \
                    y0 = y0 < 0 ? 0 : y0, x0 = x0 < 0 ? 0 : x0;                                                            \
                    T *y = (T *)k->y->data + ((b * OH + oy) * OW + ox) * C, scale = k->mean ? (T)1 / (T)((y1 - y0) * (x1 - x0)) : 0;    \
                    if (k->back) {                                                                                         \
                        T *dx = (T *)k->out->data + b * H * W * C;                                                         \
                        for (int64_t ch = 0; ch < C; ch++) {                                                               \
                            if (k->mean) {                                                                                 \
                                for (int64_t i = y0; i < y1; i++)                                                          \
                                    for (int64_t j = x0; j < x1; j++) dx[(i * W + j) * C + ch] += y[ch] * scale;           \
                            } else {                                                                                       \
                                int64_t best = (y0 * W + x0) * C + ch;                                                     \
                                for (int64_t i = y0; i < y1; i++)                                                          \
                                    for (int64_t j = x0; j < x1; j++)                                                      \
                                        if (x[(i * W + j) * C + ch] > x[best] || x[(i * W + j) * C + ch] != x[(i * W + j) * C + ch]) best = (i * W + j) * C + ch; \
                                dx[best] += y[ch];                                                                         \
                            }                                                                                              \
                        }                                                                                                  \
                        continue;                                                                                          \
                    }                                                                                                      \
                    for (int64_t ch = 0; ch < C; ch++) y[ch] = k->mean ? 0 : x[(y0 * W + x0) * C + ch];                    \
                    for (int64_t i = y0; i < y1; i++)                                                                      \
                        for (int64_t j = x0; j < x1; j++) {                                                                \
                            const T *v = x + (i * W + j) * C;                                                              \
                            if (k->mean) for (int64_t ch = 0; ch < C; ch++) y[ch] += v[ch];                                \
                            else for (int64_t ch = 0; ch < C; ch++) y[ch] = v[ch] > y[ch] || v[ch] != v[ch] ? v[ch] : y[ch]; \
                        }                                                                                                  \
                    if (k->mean) for (int64_t ch = 0; ch < C; ch++) y[ch] *= scale;                                        \
                }                                                                                                          \
        }                                                                                                                  \
    }
POOL(float)
POOL(double)

/* Maxima of bytes, of which the order is free: of the rows first, then of what they leave. */
LBR_CLONES static void largest_bytes(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct pool *k = ctx;
    int64_t H = k->x->shape[1], W = k->x->shape[2], C = k->x->shape[3], OH = k->y->shape[1], OW = k->y->shape[2];
    uint8_t *restrict most = k->room + thread * W * C;
    for (int64_t row = begin; row < end; row++) {
        int64_t y0 = row % OH * k->stride[0] - k->pad[0], y1 = y0 + k->kernel[0] < H ? y0 + k->kernel[0] : H;
        const uint8_t *x = (const uint8_t *)k->x->data + row / OH * H * W * C;
        uint8_t *restrict y = (uint8_t *)k->y->data + row * OW * C;
        if (y0 < 0) y0 = 0;
        memcpy(most, x + y0 * W * C, (size_t)(W * C));
        for (int64_t i = y0 + 1; i < y1; i++)
            for (int64_t n = 0; n < W * C; n++) most[n] = x[i * W * C + n] > most[n] ? x[i * W * C + n] : most[n];
        for (int64_t ox = 0; ox < OW; ox++, y += C) {
            int64_t x0 = ox * k->stride[1] - k->pad[2], x1 = x0 + k->kernel[1] < W ? x0 + k->kernel[1] : W;
            if (x0 < 0) x0 = 0;
            memcpy(y, most + x0 * C, (size_t)C);
            for (int64_t j = x0 + 1; j < x1; j++)
                for (int64_t ch = 0; ch < C; ch++) y[ch] = most[j * C + ch] > y[ch] ? most[j * C + ch] : y[ch];
        }
    }
}

static int pool(lbr_call *c, struct pool k)
{
    bool bytes = c->op == LBR_OP_max_pool2d && c->out[0].dtype == LBR_U8;
    int rc = bytes ? 0 : plain(c);
    if (rc) return rc;
    k.x = k.back ? &c->in[1] : &c->in[0];
    k.y = k.back ? &c->in[0] : &c->out[0];
    k.out = &c->out[0];
    int64_t n = k.back ? k.x->shape[0] : (int64_t)k.x->shape[0] * k.y->shape[1];
    if (bytes) {
        int64_t size = (int64_t)k.x->shape[2] * k.x->shape[3] * lbr_threads();
        if (!(k.room = lbr_alloc(size))) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
        lbr_parallel(n, 4, largest_bytes, &k);
        lbr_free(k.room, size);
        return 0;
    }
    lbr_parallel(n, k.back ? 1 : 4, c->out[0].dtype == LBR_F64 ? pool_double : pool_float, &k);
    return 0;
}

int lbr_cpu_max_pool2d(lbr_call *c)
{
    const lbr_max_pool2d_attr *a = c->attr;
    return pool(c, (struct pool){.kernel = a->kernel, .stride = a->stride, .pad = a->pad});
}
int lbr_cpu_avg_pool2d(lbr_call *c)
{
    const lbr_avg_pool2d_attr *a = c->attr;
    return pool(c, (struct pool){.kernel = a->kernel, .stride = a->stride, .pad = a->pad, .mean = true});
}
int lbr_cpu_max_pool2d_backward(lbr_call *c)
{
    const lbr_max_pool2d_backward_attr *a = c->attr;
    return pool(c, (struct pool){.kernel = a->kernel, .stride = a->stride, .pad = a->pad, .back = true});
}
int lbr_cpu_avg_pool2d_backward(lbr_call *c)
{
    const lbr_avg_pool2d_backward_attr *a = c->attr;
    return pool(c, (struct pool){.kernel = a->kernel, .stride = a->stride, .pad = a->pad, .mean = true, .back = true});
}

/* ---- bilinear resize; coordinates as TFLite's reference kernel ---- */

struct column { int64_t low, high; double weight; }; /* of the second neighbour */

struct resize {
    const lbr_tensor *small, *large; /* forward: input, output; backward: gradient of the input, gradient of the output */
    int align, half;
    bool back;
    struct column *columns; /* [OW], the same for every row */
};

static double source(int64_t i, int64_t in, int64_t out, int align, int half)
{
    double scale = align && out > 1 ? (double)(in - 1) / (double)(out - 1) : (double)in / (double)out;
    return half ? ((double)i + 0.5) * scale - 0.5 : (double)i * scale;
}

/* Two neighbours and the weight of the second. */
static void neighbours(double at, int64_t n, int64_t *low, int64_t *high, double *w)
{
    double f = floor(at);
    *low = f < 0 ? 0 : (int64_t)f;
    *high = f + 1 < 0 ? 0 : (int64_t)f + 1;
    if (*low > n - 1) *low = n - 1;
    if (*high > n - 1) *high = n - 1;
    *w = at - f;
}

/* One pixel of all channels from its four neighbours; eights are spelled out so that a small C costs no set-up of a vector loop. Rounded after each operation, across before down, as XNNPACK's kernel rounds; the Makefile forbids contraction in this file. */
#define BETWEEN(a, b, w) ((a) + ((b) - (a)) * (w))

#define RESIZE(T)                                                                                                                             \
    static inline __attribute__((always_inline)) void blend_##T(T *restrict o, const T *restrict p, const T *restrict q, const T *restrict r, \
                                                                const T *restrict s, T wx, T wy, int64_t C)                                   \
    {                                                                                                                                         \
        int64_t ch = 0;                                                                                                                       \
        for (; ch + 8 <= C; ch += 8)                                                                                                          \
            for (int64_t i = ch; i < ch + 8; i++) o[i] = BETWEEN(BETWEEN(p[i], q[i], wx), BETWEEN(r[i], s[i], wx), wy);                        \
        for (; ch < C; ch++) o[ch] = BETWEEN(BETWEEN(p[ch], q[ch], wx), BETWEEN(r[ch], s[ch], wx), wy);                                     \
    }                                                                                                                                         \
    LBR_CLONES static void resize_##T(void *ctx, int64_t begin, int64_t end, int thread)                                                      \
    {                                                                                                                                         \
        (void)thread;                                                                                                                         \
        const struct resize *k = ctx;                                                                                                         \
        int64_t H = k->small->shape[1], W = k->small->shape[2], C = k->small->shape[3], OH = k->large->shape[1], OW = k->large->shape[2];     \
        for (int64_t row = begin; row < end; row++) {                                                                                         \
            int64_t b = k->back ? row : row / OH, first = k->back ? 0 : row % OH, last = k->back ? OH : first + 1;                            \
            T *x = (T *)k->small->data + b * H * W * C, *y = (T *)k->large->data + b * OH * OW * C;                                           \
            if (k->back) memset(x, 0, sizeof(T) * (size_t)(H * W * C));                                                                       \
            for (int64_t i = first; i < last; i++) {                                                                                          \
                struct column v;                                                                                                              \
                neighbours(source(i, H, OH, k->align, k->half), H, &v.low, &v.high, &v.weight);                                               \
                double wy = v.weight;                                                                                                         \
                for (int64_t j = 0; j < OW; j++) {                                                                                            \
                    double wx = k->columns[j].weight;                                                                                         \
                    int64_t x0 = k->columns[j].low, x1 = k->columns[j].high;                                                                  \
                    T a = (T)((1 - wy) * (1 - wx)), d = (T)((1 - wy) * wx), e = (T)(wy * (1 - wx)), f = (T)(wy * wx);                         \
                    T *o = y + (i * OW + j) * C, *p = x + (v.low * W + x0) * C, *q = x + (v.low * W + x1) * C;                                \
                    T *r = x + (v.high * W + x0) * C, *s = x + (v.high * W + x1) * C;                                                         \
                    if (k->back)                                                                                                              \
                        for (int64_t ch = 0; ch < C; ch++) { T g = o[ch]; p[ch] += a * g; q[ch] += d * g; r[ch] += e * g; s[ch] += f * g; }   \
                    else                                                                                                                      \
                        blend_##T(o, p, q, r, s, (T)wx, (T)wy, C);                                                                            \
                }                                                                                                                             \
            }                                                                                                                                 \
        }                                                                                                                                     \
    }
RESIZE(float)
RESIZE(double)

static int resize(lbr_call *c, struct resize k)
{
    int rc = plain(c);
    if (rc) return rc;
    int64_t n = k.back ? k.small->shape[0] : (int64_t)k.large->shape[0] * k.large->shape[1], W = k.small->shape[2], OW = k.large->shape[2];
    int64_t bytes = OW * (int64_t)sizeof *k.columns;
    k.columns = lbr_alloc(bytes);
    if (!k.columns) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    for (int64_t j = 0; j < OW; j++) neighbours(source(j, W, OW, k.align, k.half), W, &k.columns[j].low, &k.columns[j].high, &k.columns[j].weight);
    lbr_parallel(n, k.back ? 1 : 4, c->out[0].dtype == LBR_F64 ? resize_double : resize_float, &k);
    lbr_free(k.columns, bytes);
    return 0;
}

int lbr_cpu_resize_bilinear(lbr_call *c)
{
    const lbr_resize_bilinear_attr *a = c->attr;
    return resize(c, (struct resize){&c->in[0], &c->out[0], a->align_corners, a->half_pixel, false, NULL});
}

int lbr_cpu_resize_bilinear_backward(lbr_call *c)
{
    const lbr_resize_bilinear_backward_attr *a = c->attr;
    return resize(c, (struct resize){&c->out[0], &c->in[0], a->align_corners, a->half_pixel, true, NULL});
}

int lbr_cpu_depth_to_space(lbr_call *c)
{
    int64_t r = ((const lbr_depth_to_space_attr *)c->attr)->block, size = lbr_dtype_size(c->in[0].dtype);
    const lbr_tensor *x = &c->in[0];
    int64_t H = x->shape[1], W = x->shape[2], C = c->out[0].shape[3], run = C * r * size;
    for (int64_t b = 0; b < x->shape[0]; b++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t w = 0; w < W; w++)
                for (int64_t i = 0; i < r; i++)
                    memcpy(c->out[0].data + (((b * H + h) * r + i) * W + w) * run, x->data + (((b * H + h) * W + w) * r + i) * run, (size_t)run);
    return 0;
}
