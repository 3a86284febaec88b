/* Rotated crops of RGB bytes, and byte layouts that drawing needs; knows nothing of what a picture shows, and of no other resampling.
 *
 * The crop answers what OpenCV's boxPoints -> getPerspectiveTransform -> warpPerspective(INTER_LINEAR) answers on bytes: corners map to
 * corners, source positions are rounded to 1/32 pixel, weights are whole, results are rounded to bytes. Nothing is smoothed before shrinking. */
#include "../core.h"
#include "../points.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define WARP_X86 1
#endif

enum { WARP_BITS = 5, WARP_ONE = 1 << WARP_BITS, WARP_BLOCK = 1024 };

struct warp {
    const uint8_t *src; int64_t row;                /* picture [h,w,3], bytes from one row to the next */
    int32_t h, w, oh, ow, border, rim, block;
    double m[9];                                    /* place in the crop -> place in the picture */
    uint8_t *bytes; float *floats;                  /* one of them: [oh,ow,3] */
    float scale, shift; const float *levels;        /* levels[v] = v * scale + shift, rounded once */
};

static int crop_matrix(const lbr_region *r, int32_t oh, int32_t ow, double *m, const char *who)
{
    if (!r || !m || oh < 1 || ow < 1) return lbr_fail(LBR_EINVAL, "%s: region, matrix or a size of 1 and more is missing", who);
    if (!isfinite(r->x) || !isfinite(r->y) || !isfinite(r->width) || !isfinite(r->height) || !isfinite(r->angle))
        return lbr_fail(LBR_EINVAL, "%s: region %g,%g %gx%g at %g is not finite", who, r->x, r->y, r->width, r->height, r->angle);
    const float values[5] = { r->x, r->y, r->width, r->height, r->angle };
    if (!lbr_region_matrix(values, oh, ow, m)) return lbr_fail(LBR_EINVAL, "%s: region %g,%g %gx%g has no area", who, r->x, r->y, r->width, r->height);
    return LBR_OK;
}

float lbr_region_rect(const float *points, int32_t width, int32_t height, float *rect) { return lbr_rect(points, width, height, rect); }

void lbr_region_square(const float *rect, int32_t width, int32_t height, lbr_region *region)
{
    float r[5], beside, above;
    lbr_square_round(rect, width, height, r, &beside, &above);
    *region = (lbr_region){ r[0], r[1], r[2], r[3], r[4] };
}

/* Places of n pixels of a row, in 1/32 of a source pixel; start = X, Y and W at the first of them. */
static void places_portable(const double *m, const double start[3], int n, int32_t *px, int32_t *py)
{
    const double magic = 6755399441055744.;         /* 1.5 * 2^52: adding and taking it away rounds to the nearest even whole number */
    for (int i = 0; i < n; i++) {
        double w = start[2] + m[6] * i;
        w = w != 0 ? WARP_ONE / w : 0;
        double x = (start[0] + m[0] * i) * w, y = (start[1] + m[3] * i) * w;
        x = x < INT32_MAX ? x : INT32_MAX; x = x > INT32_MIN ? x : INT32_MIN;
        y = y < INT32_MAX ? y : INT32_MAX; y = y > INT32_MIN ? y : INT32_MIN;
        volatile double rx = x + magic, ry = y + magic;
        px[i] = (int32_t)(rx - magic);
        py[i] = (int32_t)(ry - magic);
    }
}

/* One pixel whose four neighbours may lie outside of the picture. */
static void pixel_anywhere(const struct warp *p, int32_t x, int32_t y, uint8_t out[3])
{
    static const uint8_t black[3];
    int32_t fx = x & (WARP_ONE - 1), fy = y & (WARP_ONE - 1), sx = x >> WARP_BITS, sy = y >> WARP_BITS;
    const uint8_t *tap[4];
    for (int k = 0; k < 4; k++) {
        int64_t cx = (int64_t)sx + (k & 1), cy = (int64_t)sy + (k >> 1);
        if (p->rim) cx = lbr_mirrored(cx, p->w, p->rim), cy = lbr_mirrored(cy, p->h, p->rim);
        if (cx < 0 || cy < 0 || cx >= p->w || cy >= p->h) {
            if (p->border == LBR_BORDER_ZERO) { tap[k] = black; continue; }
            cx = cx < 0 ? 0 : cx >= p->w ? p->w - 1 : cx;
            cy = cy < 0 ? 0 : cy >= p->h ? p->h - 1 : cy;
        }
        tap[k] = p->src + cy * p->row + cx * 3;
    }
    int32_t w0 = (WARP_ONE - fx) * (WARP_ONE - fy), w1 = fx * (WARP_ONE - fy), w2 = (WARP_ONE - fx) * fy, w3 = fx * fy;
    for (int c = 0; c < 3; c++)
        out[c] = (uint8_t)((w0 * tap[0][c] + w1 * tap[1][c] + w2 * tap[2][c] + w3 * tap[3][c] + 512) >> 10);
}

static void put(const struct warp *p, int64_t at, const uint8_t rgb[3])
{
    for (int c = 0; c < 3; c++)
        if (p->floats) p->floats[at + c] = p->levels[rgb[c]]; else p->bytes[at + c] = rgb[c];
}

static void pixels_portable(const struct warp *p, const int32_t *px, const int32_t *py, int n, int64_t at)
{
    for (int i = 0; i < n; i++, at += 3) {
        uint8_t rgb[3];
        pixel_anywhere(p, px[i], py[i], rgb);
        put(p, at, rgb);
    }
}

#ifdef WARP_X86
/* No fused multiply-add here: positions are rounded as OpenCV rounds them. */
__attribute__((target("avx2")))
static void places_avx2(const double *m, const double start[3], int n, int32_t *px, int32_t *py)
{
    const __m256d zero = _mm256_setzero_pd(), one = _mm256_set1_pd(WARP_ONE);
    const __m256d top = _mm256_set1_pd(INT32_MAX), bottom = _mm256_set1_pd(INT32_MIN);
    __m256d k = _mm256_setr_pd(0, 1, 2, 3);
    for (int i = 0; i < n; i += 4, k = _mm256_add_pd(k, _mm256_set1_pd(4))) {   /* the arrays have room for 3 more */
        __m256d w = _mm256_add_pd(_mm256_set1_pd(start[2]), _mm256_mul_pd(_mm256_set1_pd(m[6]), k));
        __m256d x = _mm256_add_pd(_mm256_set1_pd(start[0]), _mm256_mul_pd(_mm256_set1_pd(m[0]), k));
        __m256d y = _mm256_add_pd(_mm256_set1_pd(start[1]), _mm256_mul_pd(_mm256_set1_pd(m[3]), k));
        w = _mm256_andnot_pd(_mm256_cmp_pd(w, zero, _CMP_EQ_OQ), _mm256_div_pd(one, w));
        x = _mm256_max_pd(_mm256_min_pd(_mm256_mul_pd(x, w), top), bottom);
        y = _mm256_max_pd(_mm256_min_pd(_mm256_mul_pd(y, w), top), bottom);
        _mm_storeu_si128((__m128i *)(px + i), _mm256_cvtpd_epi32(x));
        _mm_storeu_si128((__m128i *)(py + i), _mm256_cvtpd_epi32(y));
    }
}

/* Two neighbours of a row lie in 6 bytes: 8 are loaded, so the last column but one goes the slow way. */
__attribute__((target("avx2,fma")))
static void pixels_avx2(const struct warp *p, const int32_t *px, const int32_t *py, int n, int64_t at)
{
    const __m128i pairs = _mm_setr_epi8(0, 3, 1, 4, 2, 5, -1, -1, 8, 11, 9, 12, 10, 13, -1, -1);
    const __m128i half = _mm_set1_epi32(512), squeeze = _mm_setr_epi8(0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128 scale = _mm_set1_ps(p->scale), shift = _mm_set1_ps(p->shift);
    const uint32_t wide = p->w > 2 ? (uint32_t)p->w - 2 : 0, high = p->h > 1 ? (uint32_t)p->h - 1 : 0;
    for (int i = 0; i < n; i++, at += 3) {
        int32_t x = px[i], y = py[i], sx = x >> WARP_BITS, sy = y >> WARP_BITS;
        if ((uint32_t)sx >= wide || (uint32_t)sy >= high) {
            uint8_t rgb[3];
            pixel_anywhere(p, x, y, rgb);
            put(p, at, rgb);
            continue;
        }
        const uint8_t *s = p->src + sy * p->row + (int64_t)sx * 3;
        int32_t fx = x & (WARP_ONE - 1), fy = y & (WARP_ONE - 1);
        __m128i q = _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)s), _mm_loadl_epi64((const __m128i *)(s + p->row)));
        __m128i across = _mm_maddubs_epi16(_mm_shuffle_epi8(q, pairs), _mm_set1_epi16((short)((fx << 8) | (WARP_ONE - fx))));
        __m128i rows = _mm_unpacklo_epi16(across, _mm_srli_si128(across, 8));
        __m128i sum = _mm_madd_epi16(rows, _mm_set1_epi32((fy << 16) | (WARP_ONE - fy)));
        sum = _mm_srli_epi32(_mm_add_epi32(sum, half), 10);
        if (p->floats) {                            /* the fourth value is overwritten by the next pixel */
            _mm_storeu_ps(p->floats + at, _mm_fmadd_ps(_mm_cvtepi32_ps(sum), scale, shift));
        } else {
            int32_t v = _mm_cvtsi128_si32(_mm_shuffle_epi8(sum, squeeze));
            memcpy(p->bytes + at, &v, 4);
        }
    }
}
#endif

static void warp_rows(const struct warp *p, int64_t begin, int64_t end)
{
    int32_t px[WARP_BLOCK + 4], py[WARP_BLOCK + 4];
#ifdef WARP_X86
    int fast = lbr_cpu_isa() >= LBR_ISA_AVX2;
#endif
    for (int64_t y = begin; y < end; y++)
        for (int32_t x = 0; x < p->ow; x += p->block) {
            int n = p->ow - x < p->block ? p->ow - x : p->block;
            double dx = x, dy = (double)y, start[3];
            for (int k = 0; k < 3; k++) start[k] = p->m[3 * k] * dx + p->m[3 * k + 1] * dy + p->m[3 * k + 2];
            int64_t at = (y * p->ow + x) * 3;
#ifdef WARP_X86
            if (fast) {
                places_avx2(p->m, start, n, px, py);
                /* a four-value store may touch the first value of the next row, which another thread writes: the last pixel goes alone */
                pixels_avx2(p, px, py, n - 1, at);
                pixels_portable(p, px + n - 1, py + n - 1, 1, at + 3 * (n - 1));
                continue;
            }
#endif
            places_portable(p->m, start, n, px, py);
            pixels_portable(p, px, py, n, at);
        }
}

static int warp_check(struct warp *p, const lbr_region *r, const char *who)
{
    if (!p->src || (!p->bytes && !p->floats)) return lbr_fail(LBR_EINVAL, "%s: no picture or no output", who);
    if (p->h < 1 || p->w < 1 || p->row < (int64_t)p->w * 3)
        return lbr_fail(LBR_ESHAPE, "%s: picture is [%d,%d,3] with rows of %lld bytes, want at least one whole pixel", who, p->h, p->w, (long long)p->row);
    if (p->h > INT32_MAX / 64 || p->w > INT32_MAX / 64) return lbr_fail(LBR_ESHAPE, "%s: picture %dx%d is too large", who, p->w, p->h);
    if (p->border != LBR_BORDER_ZERO && p->border != LBR_BORDER_REPLICATE)
        return lbr_fail(LBR_EINVAL, "%s: border is %d, want LBR_BORDER_ZERO or LBR_BORDER_REPLICATE", who, p->border);
    int rc = crop_matrix(r, p->oh, p->ow, p->m, who);
    if (!rc) p->block = lbr_crop_block(p->oh, p->ow);
    return rc;
}

/* All crops in one parallel region, in shares of so many rows: who is kept from working takes fewer. */
enum { WARP_SHARE = 32 };

struct warps { const struct warp *list; int64_t shares; };

static void warp_share(void *ctx, int phase, int64_t task, int thread)
{
    const struct warps *all = ctx;
    const struct warp *p = &all->list[task / all->shares];
    int64_t begin = task % all->shares * WARP_SHARE;
    (void)phase, (void)thread;
    warp_rows(p, begin, begin + WARP_SHARE < p->oh ? begin + WARP_SHARE : p->oh);
}

static void warp_run(const struct warp *list, int64_t count)
{
    struct warps all = { .list = list, .shares = (list->oh + WARP_SHARE - 1) / WARP_SHARE };
    int64_t tasks = count * all.shares;
    lbr_phases(1, &tasks, warp_share, &all);
}

int lbr_crop_u8(const uint8_t *src, int32_t h, int32_t w, int64_t row, const lbr_region *r, int border, uint8_t *dst, int32_t oh, int32_t ow)
{
    struct warp p = { .src = src, .row = row, .h = h, .w = w, .oh = oh, .ow = ow, .border = border, .bytes = dst };
    int rc = warp_check(&p, r, "crop_u8");
    if (!rc) warp_run(&p, 1);
    return rc;
}

static void levels_of(float *levels, float scale, float shift)
{
    for (int i = 0; i < 256; i++) levels[i] = (float)((double)i * scale + shift);
}

int lbr_crop_f32(const uint8_t *src, int32_t h, int32_t w, int64_t row, const lbr_region *r, int border, float scale, float shift,
                 float *dst, int32_t oh, int32_t ow)
{
    float levels[256];
    struct warp p = { .src = src, .row = row, .h = h, .w = w, .oh = oh, .ow = ow, .border = border, .floats = dst, .scale = scale, .shift = shift, .levels = levels };
    int rc = warp_check(&p, r, "crop_f32");
    levels_of(levels, scale, shift);
    if (!rc) warp_run(&p, 1);
    return rc;
}

int lbr_cpu_crop(lbr_call *c)
{
    enum { AT_ONCE = 32 };
    const lbr_crop_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0];
    const int64_t count = c->in[1].shape[0], each = (int64_t)a->size[0] * a->size[1] * 3;
    float levels[256];
    struct warp list[AT_ONCE];
    levels_of(levels, (float)a->scale, (float)a->shift);
    for (int64_t first = 0; first < count; first += AT_ONCE) {
        int64_t n = count - first < AT_ONCE ? count - first : AT_ONCE;
        for (int64_t b = 0; b < n; b++) {
            const float *r = (const float *)c->in[1].data + 5 * (first + b);
            const lbr_region region = { r[0], r[1], r[2], r[3], r[4] };
            list[b] = (struct warp){ .src = (const uint8_t *)x->data, .row = (int64_t)x->shape[1] * 3, .h = (int32_t)x->shape[0], .w = (int32_t)x->shape[1],
                                     .oh = a->size[0], .ow = a->size[1], .border = a->border, .rim = a->rim, .floats = (float *)c->out[0].data + (first + b) * each,
                                     .scale = (float)a->scale, .shift = (float)a->shift, .levels = levels };
            int rc = warp_check(&list[b], &region, "crop");
            if (rc) return rc;
        }
        warp_run(list, n);
    }
    return 0;
}

struct layout { const uint8_t *src; uint8_t *dst; int64_t from, to; int32_t w; };

static void rows_to_bgrx(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct layout *l = ctx;
    (void)thread;
    for (int64_t y = begin; y < end; y++) {
        const uint8_t *s = l->src + y * l->from;
        uint8_t *d = l->dst + y * l->to;
        for (int32_t x = 0; x < l->w; x++, s += 3, d += 4) {
            uint32_t v = 0xff000000u | (uint32_t)s[0] << 16 | (uint32_t)s[1] << 8 | s[2];   /* Cairo's pixels are whole numbers of the machine */
            memcpy(d, &v, 4);
        }
    }
}

static void rows_to_rgb(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct layout *l = ctx;
    (void)thread;
    for (int64_t y = begin; y < end; y++) {
        const uint8_t *s = l->src + y * l->from;
        uint8_t *d = l->dst + y * l->to;
        for (int32_t x = 0; x < l->w; x++, s += 4, d += 3) {
            uint32_t v;
            memcpy(&v, s, 4);
            d[0] = (uint8_t)(v >> 16); d[1] = (uint8_t)(v >> 8); d[2] = (uint8_t)v;
        }
    }
}

static int relay(const uint8_t *src, int64_t from, int from_pixel, uint8_t *dst, int64_t to, int to_pixel, int32_t h, int32_t w,
                 void (*rows)(void *, int64_t, int64_t, int), const char *who)
{
    if (!src || !dst) return lbr_fail(LBR_EINVAL, "%s: no picture or no output", who);
    if (h < 0 || w < 0 || from < (int64_t)w * from_pixel || to < (int64_t)w * to_pixel)
        return lbr_fail(LBR_ESHAPE, "%s: %dx%d does not fit rows of %lld and %lld bytes", who, w, h, (long long)from, (long long)to);
    struct layout l = { .src = src, .dst = dst, .from = from, .to = to, .w = w };
    lbr_parallel(h, 64, rows, &l);
    return LBR_OK;
}

int lbr_rgb_to_bgrx(const uint8_t *src, int64_t from, uint8_t *dst, int64_t to, int32_t h, int32_t w)
{
    return relay(src, from, 3, dst, to, 4, h, w, rows_to_bgrx, "rgb_to_bgrx");
}

int lbr_bgrx_to_rgb(const uint8_t *src, int64_t from, uint8_t *dst, int64_t to, int32_t h, int32_t w)
{
    return relay(src, from, 4, dst, to, 3, h, w, rows_to_rgb, "bgrx_to_rgb");
}
