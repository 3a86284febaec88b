/* conv.c: the slow twins of the convolutions: one loop nest over (output, tap), read three ways. */
#include "reference.h"

#include <stdlib.h>

struct geometry {
    int64_t B, H, W, I, OH, OW, O, KH, KW, groups;
    const int32_t *stride, *pad, *dilation;
    bool depthwise;
};

/* Calls visit for each pair of an output element and an input element that a tap joins. Indices are flat. */
static void each_tap(const struct geometry *g, void (*visit)(void *ctx, int64_t y, int64_t x, int64_t w), void *ctx)
{
    if (!g->I || !g->O) return;
    int64_t per_group = g->I / g->groups, outs = g->O / g->groups;
    for (int64_t b = 0; b < g->B; b++)
        for (int64_t oy = 0; oy < g->OH; oy++)
            for (int64_t ox = 0; ox < g->OW; ox++)
                for (int64_t o = 0; o < g->O; o++)
                    for (int64_t ky = 0; ky < g->KH; ky++)
                        for (int64_t kx = 0; kx < g->KW; kx++) {
                            int64_t iy = oy * g->stride[0] - g->pad[0] + ky * g->dilation[0], ix = ox * g->stride[1] - g->pad[2] + kx * g->dilation[1];
                            if (iy < 0 || iy >= g->H || ix < 0 || ix >= g->W) continue;
                            for (int64_t i = 0; i < per_group; i++) {
                                int64_t channel = o / outs * per_group + i;
                                int64_t w = g->depthwise ? (ky * g->KW + kx) * g->O + o : ((o * g->KH + ky) * g->KW + kx) * per_group + i;
                                visit(ctx, ((b * g->OH + oy) * g->OW + ox) * g->O + o, ((b * g->H + iy) * g->W + ix) * g->I + channel, w);
                            }
                        }
}

struct sums {
    const lbr_tensor *p, *q;
    double *sum;
};

static void to_output(void *ctx, int64_t y, int64_t x, int64_t w) { struct sums *s = ctx; s->sum[y] += lbr_at(s->p, x) * lbr_at(s->q, w); }
static void to_input(void *ctx, int64_t y, int64_t x, int64_t w) { struct sums *s = ctx; s->sum[x] += lbr_at(s->p, y) * lbr_at(s->q, w); }
static void to_weight(void *ctx, int64_t y, int64_t x, int64_t w) { struct sums *s = ctx; s->sum[w] += lbr_at(s->p, y) * lbr_at(s->q, x); }

static int accumulate(lbr_call *c, const struct geometry *g, void (*visit)(void *ctx, int64_t y, int64_t x, int64_t w), double **sum)
{
    struct sums s = {&c->in[0], &c->in[1], calloc((size_t)lbr_tensor_numel(&c->out[0]) + 1, sizeof(double))};
    if (!s.sum) return lbr_fail(LBR_ENOMEM, "%s: out of memory", lbr_op_name(c->op));
    each_tap(g, visit, &s);
    *sum = s.sum;
    return 0;
}

static int forward(lbr_call *c, const struct geometry *g, int act)
{
    double *sum = NULL;
    int rc = accumulate(c, g, to_output, &sum);
    if (rc) return rc;
    int64_t n = lbr_tensor_numel(&c->out[0]);
    for (int64_t i = 0; i < n; i++) {
        double v = sum[i];
        if (lbr_present(&c->in[2])) v += lbr_at(&c->in[2], i % g->O);
        if (lbr_present(&c->in[3])) v += lbr_at(&c->in[3], i);
        if (act == LBR_ACT_PRELU && v < 0) v *= lbr_at(&c->in[4], i % g->O);
        lbr_put(&c->out[0], i, lbr_activated(act, v));
    }
    free(sum);
    return 0;
}

static int backward(lbr_call *c, const struct geometry *g, void (*visit)(void *ctx, int64_t y, int64_t x, int64_t w))
{
    double *sum = NULL;
    int rc = accumulate(c, g, visit, &sum);
    if (rc) return rc;
    for (int64_t i = 0; i < lbr_tensor_numel(&c->out[0]); i++) lbr_put(&c->out[0], i, sum[i]);
    free(sum);
    return 0;
}

static struct geometry make(const lbr_tensor *x, const lbr_tensor *y, int64_t kh, int64_t kw, int64_t groups, const int32_t *stride, const int32_t *pad, const int32_t *dilation)
{
    return (struct geometry){x->shape[0], x->shape[1], x->shape[2], x->shape[3], y->shape[1], y->shape[2], y->shape[3], kh, kw, groups, stride, pad, dilation, false};
}

int lbr_reference_conv2d(lbr_call *c)
{
    const lbr_conv2d_attr *a = c->attr;
    struct geometry g = make(&c->in[0], &c->out[0], c->in[1].shape[1], c->in[1].shape[2], a->groups, a->stride, a->pad, a->dilation);
    return forward(c, &g, a->act);
}

int lbr_reference_depthwise(lbr_call *c)
{
    const lbr_depthwise_attr *a = c->attr;
    struct geometry g = make(&c->in[0], &c->out[0], c->in[1].shape[0], c->in[1].shape[1], c->in[0].shape[3], a->stride, a->pad, a->dilation);
    g.depthwise = true;
    return forward(c, &g, a->act);
}

int lbr_reference_conv2d_backward_input(lbr_call *c)
{
    const lbr_conv2d_backward_input_attr *a = c->attr;
    struct geometry g = make(&c->out[0], &c->in[0], c->in[1].shape[1], c->in[1].shape[2], a->groups, a->stride, a->pad, a->dilation);
    return backward(c, &g, to_input);
}

int lbr_reference_conv2d_backward_weight(lbr_call *c)
{
    const lbr_conv2d_backward_weight_attr *a = c->attr;
    struct geometry g = make(&c->in[1], &c->in[0], a->kernel[0], a->kernel[1], a->groups, a->stride, a->pad, a->dilation);
    return backward(c, &g, to_weight);
}

int lbr_reference_depthwise_backward_input(lbr_call *c)
{
    const lbr_depthwise_backward_input_attr *a = c->attr;
    struct geometry g = make(&c->out[0], &c->in[0], c->in[1].shape[0], c->in[1].shape[1], c->in[0].shape[3], a->stride, a->pad, a->dilation);
    g.depthwise = true;
    return backward(c, &g, to_input);
}

int lbr_reference_depthwise_backward_weight(lbr_call *c)
{
    const lbr_depthwise_backward_weight_attr *a = c->attr;
    struct geometry g = make(&c->in[1], &c->in[0], a->kernel[0], a->kernel[1], c->in[0].shape[3], a->stride, a->pad, a->dilation);
    g.depthwise = true;
    return backward(c, &g, to_weight);
}
