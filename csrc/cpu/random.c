/* random.c: counter-based random numbers (Philox 4x32-10) and dropout. The same numbers on every device and thread count. */
#include "cpu.h"

void lbr_philox(uint64_t key, uint64_t low, uint64_t high, uint32_t *out)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32), c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53 * c0, p1 = (uint64_t)0xCD9E8D57 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* [0, 1) in 24 bits, exact in f32 */
static double uniform(uint32_t u) { return (double)(u >> 8) * 0x1p-24; }

struct draw {
    const lbr_random_attr *a;
    uint64_t high;
    lbr_tensor *y;
    int64_t n;
};

static void draw_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct draw *d = ctx;
    const lbr_random_attr *a = d->a;
    int size = lbr_dtype_size(d->y->dtype);
    for (int64_t b = begin; b < end; b++) {
        uint32_t u[4];
        double v[4];
        lbr_philox(a->seed, (uint64_t)b, d->high, u);
        if (a->kind == 1) {
            for (int k = 0; k < 4; k += 2) {
                double r = sqrt(-2 * log(((double)u[k] + 1) * 0x1p-32)), phi = 6.283185307179586 * (double)u[k + 1] * 0x1p-32;
                v[k] = a->low + a->high * r * cos(phi);
                v[k + 1] = a->low + a->high * r * sin(phi);
            }
        } else
            for (int k = 0; k < 4; k++) v[k] = a->low + (a->high - a->low) * uniform(u[k]);
        int64_t m = d->n - 4 * b < 4 ? d->n - 4 * b : 4;
        lbr_store_f64(d->y->dtype, v, m, d->y->data + 4 * b * size, 1);
    }
}

static uint64_t stream_of(uint32_t stream, const lbr_tensor *counter)
{
    uint32_t count = lbr_present(counter) ? *(const uint32_t *)counter->data : 0;
    return (uint64_t)stream << 32 | count;
}

int lbr_cpu_random(lbr_call *c)
{
    const lbr_random_attr *a = c->attr;
    struct draw d = {a, stream_of(a->stream, &c->in[0]), &c->out[0], lbr_tensor_numel(&c->out[0])};
    lbr_parallel((d.n + 3) / 4, 4096, draw_range, &d);
    return 0;
}

int lbr_cpu_dropout(lbr_call *c)
{
    const lbr_dropout_attr *a = c->attr;
    uint64_t high = stream_of(a->stream, &c->in[1]);
    int64_t n = lbr_tensor_numel(&c->in[0]), size = lbr_dtype_size(c->in[0].dtype);
    uint8_t *mask = (uint8_t *)c->out[1].data;
    double scale = 1 / (1 - a->p);
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t u[4];
        double v[4];
        int64_t m = n - i < 4 ? n - i : 4;
        lbr_philox(a->seed, (uint64_t)(i / 4), high, u);
        lbr_load_f64(c->in[0].dtype, c->in[0].data + i * size, 1, m, v);
        for (int64_t k = 0; k < m; k++) {
            mask[i + k] = uniform(u[k]) >= a->p;
            v[k] = mask[i + k] ? v[k] * scale : 0;
        }
        lbr_store_f64(c->out[0].dtype, v, m, c->out[0].data + i * size, 1);
    }
    return 0;
}
