/* lstm.c: the slow, readable twin of the LSTM kernels and the float64 path; no threads, no packing. Compiles its body once a type by including itself. */
#ifndef REAL

#include "../../core.h"
#include "../lstm.h"

#include <math.h>
#include <stdlib.h>

#define REAL float
#define NAME(what) lbr_lstm_twin_##what##_f32
#include "lstm.c"
#undef REAL
#undef NAME
#define REAL double
#define NAME(what) lbr_lstm_twin_##what##_f64
#include "lstm.c"

#else

static double NAME(sigmoid)(double v) { return 1 / (1 + exp(-v)); }

/* Where the four gates of unit u lie in a kept row: blocks of 16 units, each [4][width]. */
static int64_t NAME(place)(int64_t u, int64_t H, int64_t *width)
{
    int64_t unit = u / 16 * 16;
    *width = H - unit < 16 ? H - unit : 16;
    return unit * 4 + u % 16;
}

int NAME(forward)(const lbr_lstm *a)
{
    int64_t B = a->B, T = a->T, F = a->F, H = a->H;
    const REAL *x = a->x, *w = a->w, *r = a->r, *bias = a->b, *h0 = a->h0, *c0 = a->c0;
    REAL *y = a->y, *hn = a->hn, *cn = a->cn, *gates = a->gates, *cells = a->cells;
    double *pre = malloc(((size_t)H * 6 + 1) * sizeof *pre), *h = pre + 4 * H, *c = h + H;
    if (!pre) return lbr_fail(LBR_ENOMEM, "lstm_forward: out of memory for %lld units", (long long)H);
    for (int64_t b = 0; b < B; b++) {
        for (int64_t u = 0; u < H; u++) {
            h[u] = h0 ? h0[b * H + u] : 0;
            c[u] = c0 ? c0[b * H + u] : 0;
        }
        for (int64_t t = 0; t < T; t++) {
            const REAL *frame = x + b * a->xb + t * a->xt;
            for (int64_t j = 0; j < 4 * H; j++) {
                double s = bias[j];
                for (int64_t k = 0; k < F; k++) s += (double)w[j * F + k] * frame[k];
                for (int64_t k = 0; k < H; k++) s += (double)r[j * H + k] * h[k];
                pre[j] = s;
            }
            for (int64_t u = 0; u < H; u++) {
                double i = NAME(sigmoid)(pre[u]), f = NAME(sigmoid)(pre[H + u]), g = tanh(pre[2 * H + u]), o = NAME(sigmoid)(pre[3 * H + u]);
                c[u] = f * c[u] + i * g;
                h[u] = o * tanh(c[u]);
                y[(b * T + t) * H + u] = (REAL)h[u];
                if (gates) {
                    int64_t width;
                    REAL *v = gates + (t * B + b) * 4 * H + NAME(place)(u, H, &width);
                    v[0] = (REAL)i, v[width] = (REAL)f, v[2 * width] = (REAL)g, v[3 * width] = (REAL)o;
                    cells[(t * B + b) * H + u] = (REAL)c[u];
                }
            }
        }
        for (int64_t u = 0; u < H; u++) {
            hn[b * H + u] = (REAL)h[u];
            cn[b * H + u] = (REAL)c[u];
        }
    }
    free(pre);
    return 0;
}

/* dst[i] = (REAL)src[i] */
static void NAME(round)(REAL *dst, const double *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = (REAL)src[i];
}

int NAME(backward)(const lbr_lstm *a, const lbr_lstm_grad *g)
{
    int64_t B = a->B, T = a->T, F = a->F, H = a->H;
    const REAL *x = a->x, *w = a->w, *r = a->r, *h0 = a->h0, *c0 = a->c0, *y = a->y, *gates = a->gates, *cells = a->cells;
    const REAL *dy = g->dy, *dhn = g->dhn, *dcn = g->dcn;
    REAL *dx = g->dx, *dh0 = g->dh0, *dc0 = g->dc0;
    int64_t nw = 4 * H * F, nr = 4 * H * H;
    double *dw = calloc((size_t)(nw + nr + 4 * H + 6 * H + 1), sizeof *dw), *dr = dw + nw, *db = dr + nr, *d = db + 4 * H, *dh = d + 4 * H, *dc = dh + H;
    if (!dw) return lbr_fail(LBR_ENOMEM, "lstm_backward: out of memory for %lld units", (long long)H);
    for (int64_t b = 0; b < B; b++) {
        for (int64_t u = 0; u < H; u++) {
            dh[u] = dhn ? dhn[b * H + u] : 0;
            dc[u] = dcn ? dcn[b * H + u] : 0;
        }
        for (int64_t t = T - 1; t >= 0; t--) {
            const REAL *kept = gates + (t * B + b) * 4 * H, *frame = x + b * a->xb + t * a->xt;
            const REAL *h = t > 0 ? y + (b * T + t - 1) * H : h0 ? h0 + b * H : NULL;
            const REAL *c = t > 0 ? cells + ((t - 1) * B + b) * H : c0 ? c0 + b * H : NULL;
            for (int64_t u = 0; u < H; u++) {
                int64_t width;
                const REAL *v = kept + NAME(place)(u, H, &width);
                double i = v[0], f = v[width], n = v[2 * width], o = v[3 * width], tc = tanh(cells[(t * B + b) * H + u]);
                double e = dh[u] + (dy ? dy[b * g->dyb + t * g->dyt + u] : 0);
                double dcu = dc[u] + e * o * (1 - tc * tc);
                d[u] = dcu * n * i * (1 - i);
                d[H + u] = dcu * (c ? c[u] : 0) * f * (1 - f);
                d[2 * H + u] = dcu * i * (1 - n * n);
                d[3 * H + u] = e * tc * o * (1 - o);
                dc[u] = dcu * f;
                dh[u] = 0;
            }
            for (int64_t k = 0; dx && k < F; k++) {
                double s = 0;
                for (int64_t j = 0; j < 4 * H; j++) s += d[j] * w[j * F + k];
                dx[(b * T + t) * F + k] = (REAL)s;
            }
            for (int64_t j = 0; j < 4 * H; j++) {
                db[j] += d[j];
                for (int64_t k = 0; k < F; k++) dw[j * F + k] += d[j] * frame[k];
                for (int64_t k = 0; k < H; k++) {
                    dh[k] += d[j] * r[j * H + k];
                    if (h) dr[j * H + k] += d[j] * h[k];
                }
            }
        }
        NAME(round)(dh0 + b * H, dh, H);
        NAME(round)(dc0 + b * H, dc, H);
    }
    NAME(round)(g->dw, dw, nw);
    NAME(round)(g->dr, dr, nr);
    NAME(round)(g->db, db, 4 * H);
    free(dw);
    return 0;
}

#endif
