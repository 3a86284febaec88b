/* windows.c: windows of sequences, centred, standardised, missing numbers marked: what a network trains on and is scored on. Cuts none out: it is given their starts. */
#include "cpu.h"

struct windows {
    const double *x, *mean, *sd, *certainty;
    const int32_t *start;
    float *y, *weight;
    double *offsets; /* [threads,D] room */
    int64_t T, D, groups, F;
    bool mask;
    int centre;
};

static double sum_seen(const double *x, int64_t n, int64_t stride, int64_t *seen)
{
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = x[i * stride];
        if (!isnan(v)) sum += v, count++;
    }
    *seen = count;
    return sum;
}

/* 1 / scale of a window whose numbers are centred by `offset`: their SD over all that is seen, and a little, so that stillness is not blown up. */
static double amplitude(const struct windows *w, const double *x, const double *offset)
{
    double sum = 0, square = 0;
    int64_t n = 0;
    for (int64_t t = 0; t < w->T; t++)
        for (int64_t d = 0; d < w->D; d++) {
            double v = x[t * w->D + d] - offset[d];
            if (!isnan(v)) sum += v, square += v * v, n++;
        }
    double mean = sum / (double)n, variance = square / (double)n - mean * mean;
    return sqrt(variance > 0 ? variance : 0) + .02;
}

static void one(const struct windows *w, int64_t k, double *offset)
{
    const double *x = w->x + (int64_t)w->start[k] * w->D;
    float *y = w->y + k * w->T * w->F, *weight = w->weight + k * w->T * w->F;
    int64_t per = w->D / w->groups;
    double scale = 1;
    for (int64_t d = 0; d < w->D; d++) {
        int64_t seen;
        offset[d] = 0;
        if (w->centre) {
            double sum = sum_seen(x + d, w->T, w->D, &seen);
            offset[d] = sum / (double)seen;
        }
    }
    if (w->centre == 2) scale = amplitude(w, x, offset);
    for (int64_t t = 0; t < w->T; t++)
        for (int64_t g = 0; g < w->groups; g++) {
            bool all = true;
            for (int64_t d = g * per; d < (g + 1) * per; d++) {
                double v = x[t * w->D + d] - offset[d];
                if (w->centre == 2) v /= scale;
                v = (v - w->mean[d]) / w->sd[d];
                bool seen = !isnan(v);
                *y++ = seen ? (float)v : 0;
                *weight++ = !seen ? 0 : w->certainty ? (float)w->certainty[g] : 1;
                all &= seen;
            }
            if (w->mask) *y++ = all ? 0 : -1, *weight++ = 0;
        }
}

static void some(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct windows *w = ctx;
    for (int64_t k = begin; k < end; k++) one(w, k, w->offsets + thread * w->D);
}

int lbr_cpu_windows(lbr_call *c)
{
    const lbr_windows_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0];
    struct windows w = {
        .x = (const double *)x->data, .start = (const int32_t *)c->in[1].data, .mean = (const double *)c->in[2].data, .sd = (const double *)c->in[3].data,
        .certainty = lbr_present(&c->in[4]) ? (const double *)c->in[4].data : NULL, .y = (float *)c->out[0].data, .weight = (float *)c->out[1].data,
        .T = a->window, .D = x->shape[1], .groups = a->groups, .F = c->out[0].shape[2], .mask = a->mask, .centre = a->centre,
    };
    int64_t n = c->in[1].shape[0], bytes = w.D * lbr_threads() * (int64_t)sizeof *w.offsets;
    for (int64_t k = 0; k < n; k++)
        if (w.start[k] < 0 || w.start[k] > x->shape[0] - a->window)
            return lbr_fail(LBR_EINVAL, "windows: start %d of window %lld, want 0..%d", w.start[k], (long long)k + 1, x->shape[0] - a->window);
    if (!(w.offsets = lbr_alloc(bytes))) return lbr_fail(LBR_ENOMEM, "windows: out of memory, %lld bytes wanted", (long long)bytes);
    lbr_parallel(n, 4, some, &w);
    lbr_free(w.offsets, bytes);
    return 0;
}
