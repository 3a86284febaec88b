/* optim.c: optimiser steps in place, with clipping, loss scaling and skipped steps decided from tensors, so that a whole step replays. */
#include "cpu.h"

enum { LEARNING_RATE, STEP, INVERSE_SCALE, SKIP, SCALE, GOOD, OVERFLOWS };

int lbr_cpu_add_into(lbr_call *c)
{
    double scale = ((const lbr_add_into_attr *)c->attr)->scale;
    int64_t n = lbr_tensor_numel(&c->in[0]);
    if (c->in[0].dtype == LBR_F64) {
        const double *x = (const double *)c->in[0].data;
        double *y = (double *)c->out[0].data;
        for (int64_t i = 0; i < n; i++) y[i] += scale * x[i];
    } else {
        const float *x = (const float *)c->in[0].data;
        float *y = (float *)c->out[0].data, s = (float)scale;
        for (int64_t i = 0; i < n; i++) y[i] += s * x[i];
    }
    return 0;
}

int lbr_cpu_optim_begin(lbr_call *c)
{
    const lbr_optim_begin_attr *a = c->attr;
    double *control = (double *)c->out[0].data, norm = *(const double *)c->in[0].data;
    control[INVERSE_SCALE] = control[SCALE] > 0 ? 1 / control[SCALE] : 1;
    control[SKIP] = !isfinite(norm);
    if (control[SKIP] != 0) {
        control[SCALE] *= a->interval ? a->backoff : 1;
        control[GOOD] = 0;
        control[OVERFLOWS]++;
        return 0;
    }
    control[STEP]++;
    if (a->interval && ++control[GOOD] >= a->interval) {
        control[SCALE] *= a->growth;
        control[GOOD] = 0;
    }
    return 0;
}

/* What a gradient is multiplied with: the loss scale undone, then clipping of the norm over all parameters. Source: PyTorch's clip_grad_norm_. */
static double gradient_factor(const double *control, const double *norm, double clip)
{
    double factor = control[INVERSE_SCALE];
    if (clip > 0) {
        double size = sqrt(*norm) * factor, limit = clip / (size + 1e-6);
        if (limit < 1) factor *= limit;
    }
    return factor;
}

struct step {
    const lbr_adam_attr *a;
    const void *g;
    void *p, *m, *v;
    double factor, rate, correction, decay;
};

/* Source: Kingma & Ba 2015; Loshchilov & Hutter 2019 (decoupled). Order of operations as PyTorch. */
#define ADAM(T, root)                                                                                    \
    LBR_CLONES static void adam_##T(void *ctx, int64_t begin, int64_t end, int thread)                    \
    {                                                                                                    \
        (void)thread;                                                                                    \
        const struct step *s = ctx;                                                                      \
        const T *g = s->g;                                                                               \
        T *restrict p = s->p, *restrict m = s->m, *restrict v = s->v;                                    \
        T factor = (T)s->factor, b1 = (T)s->a->beta1, b2 = (T)s->a->beta2, c1 = (T)(1 - s->a->beta1);     \
        T c2 = (T)(1 - s->a->beta2), rate = (T)s->rate, correction = (T)s->correction;                   \
        T eps = (T)s->a->eps, coupled = s->a->decoupled ? 0 : (T)s->a->weight_decay, keep = (T)s->decay;  \
        for (int64_t i = begin; i < end; i++) {                                                          \
            T d = g[i] * factor + coupled * p[i];                                                        \
            m[i] = b1 * m[i] + c1 * d;                                                                   \
            v[i] = b2 * v[i] + c2 * d * d;                                                               \
            p[i] = p[i] * keep - rate * m[i] / (root(v[i]) * correction + eps);                          \
        }                                                                                                \
    }
ADAM(float, sqrtf)
ADAM(double, sqrt)

int lbr_cpu_adam(lbr_call *c)
{
    const lbr_adam_attr *a = c->attr;
    const double *control = (const double *)c->in[1].data, *norm = (const double *)c->in[2].data;
    if (control[SKIP] != 0) return 0;
    double t = control[STEP] < 1 ? 1 : control[STEP], rate = control[LEARNING_RATE];
    struct step s = {.a = a, .g = c->in[0].data, .p = c->out[0].data, .m = c->out[1].data, .v = c->out[2].data};
    s.factor = gradient_factor(control, norm, a->clip);
    s.rate = rate / (1 - pow(a->beta1, t));
    s.correction = 1 / sqrt(1 - pow(a->beta2, t));
    s.decay = a->decoupled ? 1 - rate * a->weight_decay : 1;
    lbr_parallel(lbr_tensor_numel(&c->in[0]), 32768, c->in[0].dtype == LBR_F64 ? adam_double : adam_float, &s);
    return 0;
}

/* Source: PyTorch's SGD: the first step starts the velocity with the gradient itself, which a zero velocity does too (dampening 0). */
int lbr_cpu_sgd(lbr_call *c)
{
    const lbr_sgd_attr *a = c->attr;
    const double *control = (const double *)c->in[1].data, *norm = (const double *)c->in[2].data;
    if (control[SKIP] != 0) return 0;
    double factor = gradient_factor(control, norm, a->clip), rate = control[LEARNING_RATE];
    int64_t n = lbr_tensor_numel(&c->in[0]);
#define SGD(T)                                                                                     \
    {                                                                                              \
        const T *g = (const T *)c->in[0].data;                                                     \
        T *p = (T *)c->out[0].data, *v = (T *)c->out[1].data;                                      \
        T f = (T)factor, w = (T)a->weight_decay, mu = (T)a->momentum, lr = (T)rate;                \
        for (int64_t i = 0; i < n; i++) {                                                          \
            T d = g[i] * f + w * p[i];                                                             \
            v[i] = mu * v[i] + d;                                                                  \
            p[i] -= lr * (a->nesterov ? d + mu * v[i] : v[i]);                                     \
        }                                                                                          \
    }
    if (c->in[0].dtype == LBR_F64) SGD(double) else SGD(float)
#undef SGD
    return 0;
}
