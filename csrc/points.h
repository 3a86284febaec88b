/* points.h: regions of pictures, points found in them and their filters, one at a time: what the kernels of both devices work out alike. Knows no tensors.
 * Each number is rounded where MediaPipe rounds it, so what includes this is compiled without contraction: the region of a picture hangs on the picture before, and a
 * last bit that differs there moves points by hundredths of a pixel, which then move the next region. */
#ifndef LBR_POINTS_H
#define LBR_POINTS_H

#include "libration.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#ifdef __cplusplus /* a device's kernels: the nearest single-precision number, by way of double */
#define BOTH static __host__ __device__ inline
#define SINGLE(name, v) ((float)name((double)(v)))
#define SINGLE2(name, u, v) ((float)name((double)(u), (double)(v)))
#else /* the C library's own single-precision functions: not each of their answers is the nearest one, and MediaPipe has them as they are */
#define BOTH static inline
#define SINGLE(name, v) name##f(v)
#define SINGLE2(name, u, v) name##f(u, v)
#endif
#define PI 3.14159265358979323846

enum { LBR_POINT = 8 };         /* numbers of a point: x, y, z, two probabilities, world x, y, z */
enum { LBR_MOST_KERNEL = 15 };  /* cells along a heat map's surroundings */

/* ---- regions ---- */

/* Solves A x = b, [8,8], by elimination with the largest pivot in the column; b becomes x. Returns false when A is singular. */
BOTH bool lbr_solve8(double a[8][8], double b[8])
{
    for (int i = 0; i < 8; i++) {
        int k = i;
        for (int j = i + 1; j < 8; j++) if (fabs(a[j][i]) > fabs(a[k][i])) k = j;
        if (!(fabs(a[k][i]) >= DBL_EPSILON * 100)) return false;
        if (k != i) {
            for (int j = i; j < 8; j++) { double t = a[i][j]; a[i][j] = a[k][j]; a[k][j] = t; }
            double t = b[i]; b[i] = b[k]; b[k] = t;
        }
        double d = -1 / a[i][i];
        for (int j = i + 1; j < 8; j++) {
            double alpha = a[j][i] * d;
            for (k = i + 1; k < 8; k++) a[j][k] += alpha * a[i][k];
            b[j] += alpha * b[i];
        }
    }
    for (int i = 7; i >= 0; i--) {
        double s = b[i];
        for (int k = i + 1; k < 8; k++) s -= a[i][k] * b[k];
        b[i] = s / a[i][i];
    }
    return true;
}

/* Is each of n numbers finite? */
BOTH bool lbr_all_finite(const float *v, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabsf(v[i]) <= FLT_MAX)) return false;
    return true;
}

/* m[9]: place in an [oh,ow] crop -> place in the picture, of a region r[5] = centre x, y, width, height, angle, all finite. false: it has no area. */
BOTH bool lbr_region_matrix(const float r[5], int32_t oh, int32_t ow, double m[9])
{
    /* corners in single precision, from an angle that went through degrees: lower left, upper left, upper right, lower right */
    float degrees = (float)(r[4] * 180.f / PI);
    double angle = degrees * PI / 180.;
    float b = (float)cos(angle) * .5f, a = (float)sin(angle) * .5f, px[4], py[4];
    px[0] = r[0] - a * r[3] - b * r[2];
    py[0] = r[1] + b * r[3] - a * r[2];
    px[1] = r[0] + a * r[3] - b * r[2];
    py[1] = r[1] - b * r[3] - a * r[2];
    px[2] = 2 * r[0] - px[0]; py[2] = 2 * r[1] - py[0];
    px[3] = 2 * r[0] - px[1]; py[3] = 2 * r[1] - py[1];
    const float tx[4] = { 0, 0, (float)ow, (float)ow }, ty[4] = { (float)oh, 0, 0, (float)oh };
    double e[8][8], f[9];
    for (int i = 0; i < 64; i++) e[i / 8][i % 8] = 0;
    for (int i = 0; i < 4; i++) {
        e[i][0] = e[i + 4][3] = px[i];
        e[i][1] = e[i + 4][4] = py[i];
        e[i][2] = e[i + 4][5] = 1;
        e[i][6] = -px[i] * tx[i]; e[i][7] = -py[i] * tx[i];
        e[i + 4][6] = -px[i] * ty[i]; e[i + 4][7] = -py[i] * ty[i];
        f[i] = tx[i]; f[i + 4] = ty[i];
    }
    if (!lbr_solve8(e, f)) return false;
    f[8] = 1;
    double d = f[0] * (f[4] * f[8] - f[5] * f[7]) - f[1] * (f[3] * f[8] - f[5] * f[6]) + f[2] * (f[3] * f[7] - f[4] * f[6]);
    if (d == 0) return false;
    d = 1. / d;
    m[0] = (f[4] * f[8] - f[5] * f[7]) * d; m[1] = (f[2] * f[7] - f[1] * f[8]) * d; m[2] = (f[1] * f[5] - f[2] * f[4]) * d;
    m[3] = (f[5] * f[6] - f[3] * f[8]) * d; m[4] = (f[0] * f[8] - f[2] * f[6]) * d; m[5] = (f[2] * f[3] - f[0] * f[5]) * d;
    m[6] = (f[3] * f[7] - f[4] * f[6]) * d; m[7] = (f[1] * f[6] - f[0] * f[7]) * d; m[8] = (f[0] * f[4] - f[1] * f[3]) * d;
    return true;
}

/* Positions of a crop grow from the start of a block, whose width is OpenCV's: 1024 pixels in at most 16 rows. */
BOTH int32_t lbr_crop_block(int32_t oh, int32_t ow)
{
    int32_t width = 1024 / (oh < 16 ? oh : 16);
    return width < ow ? width : ow;
}

/* A row or column of a picture that is n along: one that lies up to `rim` outside is mirrored at the edge, others stay. */
BOTH int64_t lbr_mirrored(int64_t v, int32_t n, int32_t rim)
{
    if (v < 0 && v >= -(int64_t)rim) return -1 - v;
    return v >= n && v < (int64_t)n + rim ? 2 * (int64_t)n - 1 - v : v;
}

/* The square round a rectangle: rect[5] = centre x, y, width, height (fractions of the picture's), angle -> region[5] in pixels; the shares of its width and height that lie
 * beside and above the rectangle, both sides together: 0 but for rounding. */
BOTH void lbr_square_round(const float rect[5], int32_t width, int32_t height, float region[5], float *beside, float *above)
{
    float w = rect[2] * (float)width, h = rect[3] * (float)height, tall = h / w, side = tall < 1 ? w : h;
    *beside = tall < 1 ? 0 : 1 - 1 / tall;
    *above = tall < 1 ? 1 - tall : 0;
    region[0] = rect[0] * (float)width, region[1] = rect[1] * (float)height;
    region[2] = region[3] = side, region[4] = rect[4];
}

/* Square rectangle round a body: centre x, y, half a side 1.25 x the distance to a far point, turned so that the far point lies upwards; all in pixels. Returns twice the distance. */
BOTH float lbr_rect(const float a[4], int32_t width, int32_t height, float rect[5])
{
    float dx = a[2] - a[0], dy = a[3] - a[1];
    float angle = (float)(PI / 2) - SINGLE2(atan2, -dy, dx);
    float size = sqrtf(dx * dx + dy * dy) * 2;
    float w = size / (float)width, h = size / (float)height, across = w * (float)width, down = h * (float)height, longer = across > down ? across : down;
    rect[0] = a[0] / (float)width, rect[1] = a[1] / (float)height;
    rect[2] = longer / (float)width * 1.25f, rect[3] = longer / (float)height * 1.25f;
    rect[4] = (float)(angle - 2 * PI * floor((angle + PI) / (2 * PI)));
    return (across + down) / 2;
}

/* ---- points of a crop ---- */

BOTH float lbr_logistic(float v) { return 1 / (1 + SINGLE(exp, -v)); }

/* Cells of a heat map [h,w] round a point x, y (fractions of the crop), first and last row and column. Below the last row nobody looks whether the point is outside. */
BOTH bool lbr_surroundings(float x, float y, int32_t h, int32_t w, int32_t reach, int32_t cell[4])
{
    float c = truncf(x * (float)w), r = truncf(y * (float)h);
    if (!(c >= 0 && c < (float)w && r >= 0 && r <= (float)(h - 1 + reach))) return false;
    int32_t row = (int32_t)r, column = (int32_t)c;
    cell[0] = row > reach ? row - reach : 0, cell[1] = row + reach < h ? row + reach : h - 1;
    cell[2] = column > reach ? column - reach : 0, cell[3] = column + reach < w ? column + reach : w - 1;
    return true;
}

/* Moves a point to the mean place of those cells, weighted by their probabilities p (row by row), where the largest of them is at least `least`. */
BOTH void lbr_refine(const float *p, const int32_t cell[4], int32_t h, int32_t w, float least, float *x, float *y)
{
    float sum = 0, sx = 0, sy = 0, top = 0;
    for (int32_t i = cell[0]; i <= cell[1]; i++)
        for (int32_t k = cell[2]; k <= cell[3]; k++, p++) {
            sum = sum + *p, sx = sx + (float)k * *p, sy = sy + (float)i * *p;
            top = *p > top ? *p : top;
        }
    if (top >= least && sum > 0) *x = sx / (float)w / sum, *y = sy / (float)h / sum;
}

/* A point of a crop in the picture: raw[5] as the network gives it (x, y, z in the crop's pixels, two logits), x, y its refined place (fractions of the crop), world[3] metres
 * -> out[LBR_POINT]: x, z as fractions of the picture's width, y of its height; probabilities; world turned with the region. */
BOTH void lbr_project(const float raw[5], float x, float y, const float world[3], const float rect[5], int32_t width, int32_t height, int32_t size, float *out)
{
    float region[5], beside, above, c = SINGLE(cos, rect[4]), s = SINGLE(sin, rect[4]);
    lbr_square_round(rect, width, height, region, &beside, &above);
    x = (x - beside / 2) / (1 - beside) - .5f;
    y = (y - above / 2) / (1 - above) - .5f;
    out[0] = (c * x - s * y) * rect[2] + rect[0];
    out[1] = (s * x + c * y) * rect[3] + rect[1];
    out[2] = raw[2] / (float)size / (1 - beside) * rect[2];
    out[3] = lbr_logistic(raw[3]);
    out[4] = lbr_logistic(raw[4]);
    out[5] = c * world[0] - s * world[1];
    out[6] = s * world[0] + c * world[1];
    out[7] = world[2];
}

/* ---- from picture to picture ---- */

/* When the picture's, the auxiliary points', the world's and the probabilities' filter ran last, in nanoseconds; NaN: not yet. */
enum { LBR_CLOCKS = 4 };

typedef struct lbr_following {
    int32_t n, width, height, follow, smooth;
    double filters[6], alpha;   /* least cut-off (Hz) and speed coefficient of the picture's, the auxiliary points' and the world's filter; of the probabilities' */
    const float *points;        /* [n + 2,LBR_POINT]: the last two are the auxiliary points: centre, and a point on the circle round the body */
    float flag;                 /* probability that somebody is there */
    double time;                /* seconds */
    float *place, *state;       /* [2,5] rect and region; [lbr_following_state(n)] */
    double *clock;              /* [LBR_CLOCKS] */
    float *y;                   /* [n + 2,LBR_POINT] */
} lbr_following;

/* What is decided once for all points. */
typedef struct lbr_turn {
    bool seen, on;              /* somebody is there; the probabilities' filter ran before */
    int filter[3];              /* 1: filters, 0: begins, -1: leaves everything as it is */
    double rate[3], scale;      /* pictures a second; 1 / size of the body in pixels */
} lbr_turn;

BOTH int32_t lbr_following_state(int32_t n) { return 19 * n + 12; }

/* The filter whose last time is *last runs at `now`, or does not where time does not grow. */
BOTH int lbr_filter_runs(double *last, double now, double *rate)
{
    if (*last == *last && now <= *last) return -1;
    int how = *last == *last;
    *rate = how ? 1 / ((now - *last) * 1e-9) : 30;
    *last = now;
    return how;
}

/* One-Euro filter of one value, written as MediaPipe writes it (util/filtering/one_euro_filter.cc), so that the same last bits come out; its derivative's cut-off is 1 Hz.
 * Source: Casiez, Roussel, Vogel, CHI 2012. */
BOTH float lbr_one_euro(int how, double rate, double scale, const double p[2], float v, float *raw, float *smooth, float *slope)
{
    if (how < 0) return v;
    if (how == 0) {
        *raw = *smooth = v, *slope = 0;
        return v;
    }
    double step = 1 / rate, a = (float)(1 / (1 + 1 / (2 * PI) / step));
    float d = (float)(((double)v - *raw) * scale * rate);
    *slope = (float)((float)(a * d) + (1 - a) * *slope);
    double b = (float)(1 / (1 + 1 / (2 * PI * (p[0] + p[1] * fabs((double)*slope))) / step));
    *smooth = (float)((float)(b * v) + (1 - b) * *smooth);
    *raw = v;
    return *smooth;
}

/* Says which filters run, smooths the auxiliary points and finds the next place from them. y's last two rows: next rect, flag, is somebody followed; next region. */
BOTH lbr_turn lbr_follow_begin(const lbr_following *f)
{
    lbr_turn t = { f->flag > .5f, false, { -1, -1, -1 }, { 30, 30, 30 }, 0 };
    const int32_t n = f->n;
    float *tail = f->y + n * LBR_POINT;
    for (int i = 0; i < 2 * LBR_POINT; i++) tail[i] = 0;
    tail[5] = f->flag;
    if (!t.seen) { /* the filters of probabilities and of world places go on later, as MediaPipe's do */
        f->clock[0] = f->clock[1] = NAN;
        return t;
    }
    if (!f->follow) return t;
    const float *aux = f->points + n * LBR_POINT;
    float a[4], rect[5], region[5], beside, above, *s = f->state + 9 * n;
    for (int i = 0; i < 2; i++) a[2 * i] = aux[i * LBR_POINT] * (float)f->width, a[2 * i + 1] = aux[i * LBR_POINT + 1] * (float)f->height;
    float size = lbr_rect(a, f->width, f->height, rect);
    double now = floor(f->time * 1e9 + .5);
    float scale = size < 1e-6 ? (float)INFINITY : 1 / size;
    if (scale < (float)INFINITY) {
        t.filter[1] = lbr_filter_runs(&f->clock[1], now, &t.rate[1]);
        for (int i = 0; i < 4; i++) a[i] = lbr_one_euro(t.filter[1], t.rate[1], scale, f->filters + 2, a[i], &s[i], &s[4 + i], &s[8 + i]);
        if (f->smooth) t.filter[0] = lbr_filter_runs(&f->clock[0], now, &t.rate[0]);
    }
    if (f->smooth) {
        t.filter[2] = lbr_filter_runs(&f->clock[2], now, &t.rate[2]);
        t.on = f->clock[3] == f->clock[3];
        f->clock[3] = now;
    }
    t.scale = scale;
    for (int i = 0; i < 2; i++) a[2 * i] = a[2 * i] / (float)f->width * (float)f->width, a[2 * i + 1] = a[2 * i + 1] / (float)f->height * (float)f->height;
    lbr_rect(a, f->width, f->height, rect);
    lbr_square_round(rect, f->width, f->height, region, &beside, &above);
    for (int i = 0; i < 5; i++) tail[i] = f->place[i] = rect[i], tail[LBR_POINT + i] = f->place[5 + i] = region[i];
    tail[6] = 1;
    return t;
}

/* Point i: in pixels of the picture, smoothed; NaN where nobody is there. */
BOTH void lbr_follow_point(const lbr_following *f, const lbr_turn *t, int32_t i)
{
    const int32_t n = f->n;
    const float *p = f->points + i * LBR_POINT;
    float *y = f->y + i * LBR_POINT, *s = f->state, *world = s + 9 * n + 12, *seen = s + 18 * n + 12 + i;
    if (!t->seen) {
        for (int k = 0; k < LBR_POINT; k++) y[k] = NAN;
        return;
    }
    y[0] = p[0] * (float)f->width, y[1] = p[1] * (float)f->height, y[2] = p[2] * (float)f->width;
    y[3] = p[3], y[4] = p[4];
    for (int k = 0; k < 3; k++) {
        const int32_t at = 3 * i + k;
        y[k] = lbr_one_euro(t->filter[0], t->rate[0], t->scale, f->filters, y[k], &s[at], &s[3 * n + at], &s[6 * n + at]);
        y[5 + k] = lbr_one_euro(t->filter[2], t->rate[2], 1, f->filters + 4, p[5 + k], &world[at], &world[3 * n + at], &world[6 * n + at]);
    }
    if (f->follow && f->smooth) {
        const double a = (float)f->alpha;
        if (t->on) y[3] = (float)((float)(a * y[3]) + (1 - a) * *seen);
        *seen = y[3];
    }
}

#undef BOTH
#undef SINGLE
#undef SINGLE2
#undef PI

#endif
