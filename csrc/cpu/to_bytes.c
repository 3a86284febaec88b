/* to_bytes.c: f32 numbers as the bytes that stand for them, in one pass; planes of up to four channels side by side, as pictures come to networks of bytes. */
#include "cpu.h"

struct job {
    float scale, shift;
    const char *x;
    uint8_t *y;
    int64_t H, W, C, stride[4]; /* of x, in bytes */
};

static inline uint32_t byte_of(float x, float scale, float shift)
{
    float v = x * scale + shift;
    return (uint32_t)(int32_t)rintf(v >= 0 ? v <= 255 ? v : 255 : 0);
}

LBR_CLONES static void dense(const struct job *j, const float *x, uint8_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = (uint8_t)byte_of(x[i], j->scale, j->shift);
}

static void any(void *ctx, int64_t n, char *const *data, const int64_t *stride)
{
    enum { PART = 256 };
    if (stride[0] == 1 && stride[1] == sizeof(float)) {
        dense(ctx, (const float *)data[1], (uint8_t *)data[0], n);
        return;
    }
    for (int64_t first = 0; first < n; first += PART) {
        int64_t m = n - first < PART ? n - first : PART;
        float numbers[PART];
        uint8_t bytes[PART];
        lbr_load_f32(LBR_F32, data[1] + first * stride[1], stride[1] / (int64_t)sizeof(float), m, numbers);
        dense(ctx, numbers, bytes, m);
        for (int64_t i = 0; i < m; i++) data[0][(first + i) * stride[0]] = (char)bytes[i];
    }
}

/* Item = row of a picture. A pixel is stored as four bytes, of which the next ones overwrite what is too much. */
LBR_CLONES static void planes(void *ctx, int64_t begin, int64_t end, int thread)
{
    enum { PART = 256 };
    const struct job *j = ctx;
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        const char *x = j->x + row / j->H * j->stride[0] + row % j->H * j->stride[1];
        uint8_t *y = j->y + row * j->W * j->C;
        for (int64_t first = 0; first < j->W; first += PART) {
            int64_t m = j->W - first < PART ? j->W - first : PART;
            uint32_t pixels[PART] = {0};
            for (int64_t k = 0; k < j->C; k++) {
                const float *plane = (const float *)(x + k * j->stride[3]) + first;
                for (int64_t i = 0; i < m; i++) pixels[i] |= byte_of(plane[i], j->scale, j->shift) << 8 * k;
            }
            for (int64_t i = 0; i + 1 < m; i++, y += j->C) memcpy(y, &pixels[i], 4);
            memcpy(y, &pixels[m - 1], (size_t)j->C), y += j->C;
        }
    }
}

int lbr_cpu_to_bytes(lbr_call *c)
{
    enum { GRAIN = 16384 };
    const lbr_to_bytes_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *y = &c->out[0];
    struct job j = {.scale = (float)a->scale, .shift = (float)a->shift, .x = x->data, .y = (uint8_t *)y->data};
    if (!lbr_tensor_numel(y)) return 0;
    if (x->ndim == 4 && lbr_tensor_contiguous(y) && x->stride[2] == 1 && x->shape[3] > 1 && x->shape[3] <= 4) {
        j.H = x->shape[1], j.W = x->shape[2], j.C = x->shape[3];
        for (int d = 0; d < 4; d++) j.stride[d] = (int64_t)x->stride[d] * (int64_t)sizeof(float);
        lbr_parallel(x->shape[0] * j.H, 1 + GRAIN / j.W, planes, &j);
        return 0;
    }
    lbr_walk w;
    lbr_walk_init(&w, y, &x, 1);
    lbr_walk_run(&w, any, &j);
    return 0;
}
