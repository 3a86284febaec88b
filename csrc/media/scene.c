/* scene.c: sphere tracing of capsules and ellipsoids over a patterned plane. Knows shapes, paint and light; not what they depict. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "../libration.h"
#include "media.h"
#include "scene.h"

#define TILE 8
#define GRID 3                    /* points along a tile's side where light on the bare plane is traced */
#define LARGE 1e6f

/* A primitive made ready: capsule a, b = end - a; ellipsoid centre a, b = 1 / semi-axes, m = axes / semi-axes. */
struct solid {
    int32_t shape, part, group;
    float a[3], b[3], m[9], inverse, radius, taper, blend, quarter, colour[3], gloss;
    int balls;                    /* 1 or 3 spheres of one radius that hold it together */
    float ball[3][3], bound;
    float seen[3][3], far[3], near[3];     /* the spheres from the camera: place, squared distance, distance of the nearest point */
};

struct wave { float kx, ky, phase, height; };

/* A pattern made ready: its axes are divided by the period. For a paint: 1 / radius and 1 / soft besides. */
struct weft { int32_t kind; float ux, uy, period, second[3], inverse[3], sharp; };

enum { NOISE = 4096 };

struct frame {
    const lbr_scene *scene;
    struct solid solids[LBR_SCENE_PRIMITIVES];
    int count, width, height;
    float per_focal, light[3], per_light_z, per_softness, close, reach, lift;
    struct wave waves[5];
    struct weft floor, wefts[LBR_SCENE_PAINTS];
    uint8_t painted[32][LBR_SCENE_PAINTS];    /* paints of each group, in order */
    int paints[32];
    float *colour, *fine;         /* [height,width,3] linear */
    uint8_t *id;                  /* [height,width] */
};

/* What a square of the picture can meet: list[0..seen) on its rays, list[seen..seen+around) near them or towards the light. */
struct tile {
    uint8_t list[2 * LBR_SCENE_PRIMITIVES];
    int seen, around;
    int smooth;                   /* 1: light on the plane comes from the grid below */
    float nearest, top, x0, y0, open[GRID * GRID], shadow[GRID * GRID];
};

struct point { float p[3], n[3], d[3], open, shadow, pixel; };

static float dot3(const float *a, const float *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
static float clampf(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }
static float mixf(float a, float b, float t) { return a + (b - a) * t; }
static float floor_fast(float x) { float i = (float)(int32_t)x; return i - (i > x); }

/* sin(2 pi x) within 0.001 */
static float sine_turns(float x)
{
    x -= floor_fast(x);
    x = 2.0f * x - 1.0f;
    float y = -4.0f * x * (1.0f - fabsf(x));
    return y * (0.775f + 0.225f * fabsf(y));
}

static uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void tile_make(const struct frame *f, int x0, int y0, struct tile *t)
{
    const lbr_scene *s = f->scene;
    float centre[3], cosine = 1.0f;
    for (int corner = 0; corner < 5; corner++) {
        float x = corner == 0 ? x0 + 0.5f * TILE : corner & 1 ? (float)x0 : (float)(x0 + TILE);
        float y = corner == 0 ? y0 + 0.5f * TILE : corner & 2 ? (float)y0 : (float)(y0 + TILE);
        float u = (x - s->centre[0]) * f->per_focal, v = (y - s->centre[1]) * f->per_focal, d[3];
        float inv = 1.0f / sqrtf(1.0f + u * u + v * v);
        for (int k = 0; k < 3; k++) d[k] = (u * s->axes[k] + v * s->axes[3 + k] + s->axes[6 + k]) * inv;
        if (corner == 0) memcpy(centre, d, sizeof d);
        else cosine = fminf(cosine, dot3(centre, d));
    }
    cosine = clampf(cosine, 0.0f, 1.0f);
    float sine = sqrtf(1.0f - cosine * cosine), top = s->floor, nearest = LARGE;
    t->seen = t->around = t->smooth = 0;
    t->x0 = (float)x0; t->y0 = (float)y0; t->top = s->floor;
    for (int i = 0; i < f->count; i++) {
        const struct solid *q = &f->solids[i];
        float r = q->bound + q->blend;
        int met = 0;
        for (int k = 0; k < q->balls; k++) {
            float along = dot3(q->seen[k], centre), wide = r + along * sine;
            if ((q->far[k] - along * along) * cosine * cosine > wide * wide) continue;
            met = 1;
            if (q->ball[k][2] + q->bound > top) top = q->ball[k][2] + q->bound;
            if (q->near[k] < nearest) nearest = q->near[k];
        }
        if (met) t->list[t->seen++] = (uint8_t)i;
    }
    t->nearest = fmaxf(nearest, 0.0f);
    float fall = fminf(centre[2], -1e-3f), ta = (top - s->camera[2]) / fall, tb = (s->floor - s->camera[2]) / fall;
    float middle = 0.5f * (ta + tb), size = 0.5f * (tb - ta) + tb * sine, c[3];
    for (int k = 0; k < 3; k++) c[k] = s->camera[k] + centre[k] * middle;
    for (int i = 0; i < f->count; i++) {
        const struct solid *q = &f->solids[i];
        for (int k = 0; k < q->balls; k++) {
            float v[3] = {q->ball[k][0] - c[0], q->ball[k][1] - c[1], q->ball[k][2] - c[2]}, along = dot3(v, f->light);
            if (along < 0.0f) along = 0.0f;
            float o[3] = {v[0] - along * f->light[0], v[1] - along * f->light[1], v[2] - along * f->light[2]};
            float spread = (along + size) * s->softness, reach = size + q->bound + 0.25f * q->blend + (spread > f->reach ? spread : f->reach);
            if (dot3(o, o) >= reach * reach) continue;
            t->list[t->seen + t->around++] = (uint8_t)i;
            for (int e = 0; e < q->balls; e++)
                if (q->ball[e][2] + q->bound > t->top) t->top = q->ball[e][2] + q->bound;
            break;
        }
    }
}

/* Share of the second colour at (x, y); edges fade over `pixel`. */
static float pattern_at(const struct weft *p, float x, float y, float pixel)
{
    if (p->kind == LBR_PATTERN_PLAIN) return 0.0f;
    float sharp = p->period / (pixel + 1e-6f), u = x * p->ux + y * p->uy, v = y * p->ux - x * p->uy;
    float du = fabsf(u - floor_fast(u) - 0.5f), dv = fabsf(v - floor_fast(v) - 0.5f);     /* 0.5 on a cell's border */
    float stripe_u = clampf((0.25f - du) * sharp + 0.5f, 0.0f, 1.0f), stripe_v = clampf((0.25f - dv) * sharp + 0.5f, 0.0f, 1.0f);
    switch (p->kind) {
    case LBR_PATTERN_STRIPES: return stripe_u;
    case LBR_PATTERN_DOTS: return clampf((0.22f - sqrtf(du * du + dv * dv)) * sharp + 0.5f, 0.0f, 1.0f);
    case LBR_PATTERN_CHECKS: return 0.5f * (stripe_u + stripe_v);
    default: return 0.5f + 0.5f * sine_turns(u) * sine_turns(v);
    }
}

static struct weft weft_make(const lbr_pattern *p)
{
    struct weft w = {.kind = p->kind, .period = p->period, .second = {p->second[0], p->second[1], p->second[2]}};
    if (p->kind == LBR_PATTERN_PLAIN) return w;
    w.ux = cosf(p->angle) / p->period;
    w.uy = sinf(p->angle) / p->period;
    return w;
}

/* -> the group of the nearest primitive */
static int shade_body(const struct frame *f, const struct tile *t, const struct point *q, float *out)
{
    const lbr_scene *s = f->scene;
    const struct solid *best = &f->solids[t->list[0]];
    float least = LARGE;
    for (int i = 0; i < t->seen; i++) {
        const struct solid *c = &f->solids[t->list[i]];
        float p[3] = {q->p[0] - c->a[0], q->p[1] - c->a[1], q->p[2] - c->a[2]}, d;
        if (c->shape == LBR_SHAPE_CAPSULE) {
            float h = clampf(dot3(p, c->b) * c->inverse, 0.0f, 1.0f);
            for (int k = 0; k < 3; k++) p[k] -= h * c->b[k];
            d = sqrtf(dot3(p, p)) - (c->radius + h * c->taper);
        } else {
            float e[3] = {dot3(p, c->m), dot3(p, c->m + 3), dot3(p, c->m + 6)};
            float g[3] = {e[0] * c->b[0], e[1] * c->b[1], e[2] * c->b[2]}, k0 = sqrtf(dot3(e, e));
            d = k0 * (k0 - 1.0f) / fmaxf(sqrtf(dot3(g, g)), 1e-6f);
        }
        if (d < least) least = d, best = c;
    }
    float colour[3] = {best->colour[0], best->colour[1], best->colour[2]}, gloss = best->gloss;
    for (int k = 0; k < f->paints[best->group]; k++) {
        int i = f->painted[best->group][k];
        const lbr_paint *p = &s->paints[i];
        const struct weft *w = &f->wefts[i];
        float r[3] = {q->p[0] - p->centre[0], q->p[1] - p->centre[1], q->p[2] - p->centre[2]};
        float u = dot3(r, p->axes), v = dot3(r, p->axes + 3), eu = u * w->inverse[0], ev = v * w->inverse[1];
        if (eu * eu >= 1.0f || ev * ev >= 1.0f) continue;
        float ew = dot3(r, p->axes + 6) * w->inverse[2];
        float e = p->region == LBR_REGION_BOX ? fmaxf(fabsf(eu), fmaxf(fabsf(ev), fabsf(ew))) : sqrtf(eu * eu + ev * ev + ew * ew);
        if (e >= 1.0f) continue;
        float share = p->opacity * clampf((1.0f - e) * w->sharp, 0.0f, 1.0f);
        float second = pattern_at(w, u, v, q->pixel);
        for (int c = 0; c < 3; c++) colour[c] = mixf(colour[c], mixf(p->colour[c], w->second[c], second), share);
        gloss = mixf(gloss, p->gloss, share);
    }
    float facing = dot3(q->n, f->light), lit = clampf((facing + 0.15f) / 1.15f, 0.0f, 1.0f) * q->shadow;
    float h[3] = {f->light[0] - q->d[0], f->light[1] - q->d[1], f->light[2] - q->d[2]};
    float shine = clampf(dot3(q->n, h) / sqrtf(dot3(h, h)), 0.0f, 1.0f);
    shine *= shine; shine *= shine; shine *= shine; shine *= shine; shine *= shine;
    shine *= gloss * q->shadow * (facing > 0.0f);
    float up = 0.5f + 0.5f * q->n[2], open = 0.4f + 0.6f * q->open;
    for (int k = 0; k < 3; k++)
        out[k] = colour[k] * (s->sky[k] * open * (up + (1.0f - up) * 0.6f * s->colour[k]) + s->sun[k] * lit) + shine * s->sun[k];
    return best->group;
}

/* Does the picture change enough between this pixel and its neighbours to be worth four rays? */
static int on_edge(const struct frame *f, int x, int y)
{
    size_t at = (size_t)y * f->width + x;
    const float *c = f->colour + 3 * at;
    uint8_t own = f->id[at];
    for (int k = 0; k < 4; k++) {
        int nx = x + (k == 0) - (k == 1), ny = y + (k == 2) - (k == 3);
        if (nx < 0 || ny < 0 || nx >= f->width || ny >= f->height) continue;
        size_t other = (size_t)ny * f->width + nx;
        if (!own && !f->id[other]) continue;
        const float *o = f->colour + 3 * other;
        if (fabsf(c[0] - o[0]) + fabsf(c[1] - o[1]) + fabsf(c[2] - o[2]) > 0.18f) return 1;
    }
    return 0;
}

#define LANES 4
#define FN(name) name##_4
#define TARGET
#include "scene_trace.h"
#undef LANES
#undef FN
#undef TARGET
#if defined(__x86_64__)
#define LANES 8
#define FN(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#include "scene_trace.h"
#undef LANES
#undef FN
#undef TARGET
#endif

static void solid_make(const lbr_primitive *p, struct solid *q)
{
    memset(q, 0, sizeof *q);
    q->shape = p->shape; q->part = p->part; q->group = p->group;
    memcpy(q->a, p->a, sizeof q->a);
    memcpy(q->colour, p->colour, sizeof q->colour);
    q->gloss = p->gloss;
    q->blend = p->blend;
    q->quarter = p->blend > 0.0f ? 0.25f / p->blend : 0.0f;
    if (p->shape == LBR_SHAPE_CAPSULE) {
        for (int k = 0; k < 3; k++) {
            q->b[k] = p->b[k] - p->a[k];
            for (int i = 0; i < 3; i++) q->ball[i][k] = p->a[k] + (float)(2 * i + 1) / 6.0f * q->b[k];
        }
        float length = dot3(q->b, q->b);
        q->inverse = length > 1e-12f ? 1.0f / length : 0.0f;
        q->radius = p->radius[0];
        q->taper = p->radius[1] - p->radius[0];
        q->balls = 3;
        q->bound = sqrtf(length) / 6.0f + fmaxf(p->radius[0], p->radius[1]);
    } else {
        for (int k = 0; k < 3; k++) {
            q->b[k] = 1.0f / p->b[k];
            for (int j = 0; j < 3; j++) q->m[3 * k + j] = p->axes[3 * k + j] * q->b[k];
        }
        memcpy(q->ball[0], p->a, sizeof q->ball[0]);
        q->balls = 1;
        q->bound = fmaxf(p->b[0], fmaxf(p->b[1], p->b[2]));
    }
}

static void frame_make(struct frame *f, const lbr_scene *s, int width, int height)
{
    f->scene = s; f->width = width; f->height = height; f->count = s->primitive_count;
    for (int i = 0; i < f->count; i++) {
        struct solid *q = &f->solids[i];
        solid_make(&s->primitives[i], q);
        for (int b = 0; b < q->balls; b++) {
            for (int k = 0; k < 3; k++) q->seen[b][k] = q->ball[b][k] - s->camera[k];
            q->far[b] = dot3(q->seen[b], q->seen[b]);
            q->near[b] = sqrtf(q->far[b]) - q->bound - q->blend;
        }
    }
    float inv = 1.0f / sqrtf(dot3(s->light, s->light));
    for (int k = 0; k < 3; k++) f->light[k] = s->light[k] * inv;
    f->per_light_z = 1.0f / fmaxf(f->light[2], 0.05f);
    f->per_softness = 1.0f / fmaxf(s->softness, 1e-3f);
    f->per_focal = 1.0f / s->focal;
    f->close = 0.04f * s->unit; f->reach = 1.5f * s->unit; f->lift = 0.2f * s->unit;
    f->floor = weft_make(&s->pattern);
    memset(f->paints, 0, sizeof f->paints);
    for (int i = 0; i < s->paint_count; i++) {
        const lbr_paint *p = &s->paints[i];
        f->wefts[i] = weft_make(&p->pattern);
        for (int k = 0; k < 3; k++) f->wefts[i].inverse[k] = 1.0f / p->radius[k];
        f->wefts[i].sharp = p->soft > 1e-6f ? 1.0f / p->soft : 1e6f;
        for (int g = 0; g < 32; g++)
            if (p->groups >> g & 1u) f->painted[g][f->paints[g]++] = (uint8_t)i;
    }
    uint64_t h = s->texture;
    for (int i = 0; i < 5; i++) {
        h = mix64(h + 0x9e3779b97f4a7c15ull * (uint64_t)(i + 1));
        float turn = 6.2831853f * (float)(h >> 40) / 16777216.0f, length = s->unit * (4.0f + 3.0f * (float)i), k = 1.0f / length;
        f->waves[i] = (struct wave){k * cosf(turn), k * sinf(turn), (float)(h & 0xffff) / 65536.0f, s->folds * length};
    }
}

/* Values of a normal distribution in no order: sums of eight random bytes, mean 0, deviation 1. */
static void noise_make(float *noise)
{
    for (int i = 0; i < NOISE; i++) {
        uint64_t bits = mix64((uint64_t)(i + 1) * 0x9e3779b97f4a7c15ull);
        int sum = 0;
        for (int k = 0; k < 64; k += 8) sum += (int)(bits >> k & 255);
        noise[i] = ((float)sum - 1020.0f) * (1.0f / 209.0f);
    }
}

/* Exposure, lens, transfer curve, noise, rounding: rows [begin, end) of the picture. */
static void develop(const struct frame *f, const float *noise, int begin, int end, uint8_t *rgb)
{
    enum { STEPS = 1024 };
    const lbr_scene *s = f->scene;
    float curve[STEPS + 2];
    for (int i = 0; i < STEPS + 2; i++) curve[i] = 255.0f * powf(fminf((float)i / STEPS, 1.0f), 1.0f / s->gamma);
    float half_w = 0.5f * (float)f->width, half_h = 0.5f * (float)f->height, corner = 1.0f / (half_w * half_w + half_h * half_h);
    float base = 0.6f * s->noise, slope = (0.4f / 128.0f) * s->noise;     /* it grows with the light as a sensor's does */
    for (int y = begin; y < end; y++) {
        size_t at = (size_t)y * f->width;
        float vy = (float)y + 0.5f - half_h;
        for (int x = 0; x < f->width; x++, at++) {
            float vx = (float)x + 0.5f - half_w, gain = s->exposure * (1.0f - s->vignette * (vx * vx + vy * vy) * corner) * STEPS;
            uint64_t bits = mix64(((uint64_t)s->seed << 32 | (uint64_t)at) * 0x9e3779b97f4a7c15ull + 1);
            for (int k = 0; k < 3; k++, bits >>= 12) {
                float c = clampf(f->fine[3 * at + k] * gain, 0.0f, (float)STEPS);
                int i = (int)c;
                float value = curve[i] + (curve[i + 1] - curve[i]) * (c - (float)i);
                value += noise[bits & (NOISE - 1)] * (base + slope * value);
                rgb[3 * at + k] = (uint8_t)(clampf(value, 0.0f, 255.0f) + 0.5f);
            }
        }
    }
}

struct job {
    const lbr_scene *scenes;
    struct frame *frames;         /* one a thread, or one for all threads */
    int width, height, wide;
    uint8_t *rgb;                 /* all frames, or with paths one a thread */
    const char **paths;           /* NULL: keep the pictures */
    int *status;                  /* of each thread, with its text */
    char (*text)[256];
    float noise[NOISE];
};

static void trace_rows(const struct job *j, const struct frame *f, int begin, int end)
{
#if defined(__x86_64__)
    if (j->wide) { trace_8(f, begin, end); return; }
#endif
    (void)j;
    trace_4(f, begin, end);
}

static void refine_rows(const struct job *j, const struct frame *f, int begin, int end)
{
#if defined(__x86_64__)
    if (j->wide) { refine_8(f, begin, end); return; }
#endif
    (void)j;
    refine_4(f, begin, end);
}

static void run_frames(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct job *j = ctx;
    struct frame *f = &j->frames[thread];
    int rows = (j->height + TILE - 1) / TILE;
    for (int64_t i = begin; i < end && !lbr_interrupted(); i++) {
        frame_make(f, &j->scenes[i], j->width, j->height);
        trace_rows(j, f, 0, rows);
        refine_rows(j, f, 0, rows);
        uint8_t *rgb = j->rgb + (size_t)(j->paths ? thread : i) * j->height * j->width * 3;
        develop(f, j->noise, 0, j->height, rgb);
        if (!j->paths) continue;
        j->status[thread] = lbr_scene_png(j->paths[i], rgb, j->width, j->height);
        if (j->status[thread]) {
            snprintf(j->text[thread], sizeof *j->text, "%s", lbr_error());
            return;
        }
    }
}

static void run_trace(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct job *j = ctx;
    trace_rows(j, j->frames, (int)begin, (int)end);
}

static void run_refine(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct job *j = ctx;
    refine_rows(j, j->frames, (int)begin, (int)end);
    develop(j->frames, j->noise, (int)begin * TILE, (int)end * TILE < j->height ? (int)end * TILE : j->height, j->rgb);
}

static int all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}

static int scene_check(const lbr_scene *s, long long at)
{
    static const char *where = "scene_render";
    if (s->primitive_count < 0 || s->primitive_count > LBR_SCENE_PRIMITIVES || s->paint_count < 0 || s->paint_count > LBR_SCENE_PAINTS)
        return lbr_fail(LBR_EINVAL, "%s: scene %lld has %d primitives and %d paints, want 0..%d and 0..%d", where, at, s->primitive_count,
                        s->paint_count, LBR_SCENE_PRIMITIVES, LBR_SCENE_PAINTS);
    const float numbers[] = {s->focal, s->softness, s->floor, s->folds, s->unit, s->exposure, s->gamma, s->vignette, s->noise};
    if (!all_finite(numbers, sizeof numbers / sizeof *numbers) || !all_finite(s->camera, 3) || !all_finite(s->axes, 9) || !all_finite(s->centre, 2) ||
        !all_finite(s->light, 3) || !all_finite(s->sun, 3) || !all_finite(s->sky, 3) || !all_finite(s->colour, 3))
        return lbr_fail(LBR_EINVAL, "%s: scene %lld holds a number that is not finite", where, at);
    if (s->focal <= 0 || s->unit <= 0 || s->gamma <= 0 || s->camera[2] <= s->floor || !(s->light[2] > 0))
        return lbr_fail(LBR_EINVAL, "%s: scene %lld: focal %g, unit %g, gamma %g want > 0, camera and light above the floor", where, at,
                        (double)s->focal, (double)s->unit, (double)s->gamma);
    if (s->pattern.kind != LBR_PATTERN_PLAIN && !(s->pattern.period > 0))
        return lbr_fail(LBR_EINVAL, "%s: scene %lld: the floor's pattern has period %g, want > 0", where, at, (double)s->pattern.period);
    for (int i = 0; i < s->primitive_count; i++) {
        const lbr_primitive *p = &s->primitives[i];
        int ball = p->shape == LBR_SHAPE_ELLIPSOID;
        if ((!ball && p->shape != LBR_SHAPE_CAPSULE) || p->group < 0 || p->group > 31 || !all_finite(p->a, 3) || !all_finite(p->b, 3) ||
            !isfinite(p->blend) || p->blend < 0 || (ball ? !all_finite(p->axes, 9) : !all_finite(p->radius, 2)))
            return lbr_fail(LBR_EINVAL, "%s: scene %lld: primitive %d has shape %d, group %d or numbers that are not finite", where, at, i, p->shape, p->group);
        if (ball ? !(p->b[0] > 0 && p->b[1] > 0 && p->b[2] > 0) : !(p->radius[0] >= 0 && p->radius[1] >= 0))
            return lbr_fail(LBR_EINVAL, "%s: scene %lld: primitive %d has no size", where, at, i);
    }
    for (int i = 0; i < s->paint_count; i++) {
        const lbr_paint *p = &s->paints[i];
        if (!all_finite(p->centre, 3) || !all_finite(p->axes, 9) || !(p->radius[0] > 0 && p->radius[1] > 0 && p->radius[2] > 0) ||
            (p->pattern.kind != LBR_PATTERN_PLAIN && !(p->pattern.period > 0)))
            return lbr_fail(LBR_EINVAL, "%s: scene %lld: paint %d has no size, no period or numbers that are not finite", where, at, i);
    }
    return LBR_OK;
}

static int scenes_check(const lbr_scene *scenes, int64_t n, int32_t width, int32_t height, const void *out)
{
    if (n < 0 || (n > 0 && (!scenes || !out)) || width < 1 || height < 1 || width > 16384 || height > 16384)
        return lbr_fail(LBR_EINVAL, "scene_render: %lld scenes of %dx%d, want n >= 0 and sides of 1..16384 pixels", (long long)n, width, height);
    for (int64_t i = 0; i < n; i++) {
        int rc = scene_check(&scenes[i], (long long)i);
        if (rc) return rc;
    }
    return LBR_OK;
}

/* Buffers for `spread` frames at work, then body; the first thread's failure is the caller's. */
static int job_run(struct job *job, int64_t n, int spread)
{
    size_t pixels = (size_t)job->width * job->height;
    noise_make(job->noise);
    job->wide = lbr_cpu_isa() >= LBR_ISA_AVX2;
    job->frames = calloc((size_t)spread, sizeof *job->frames);
    job->status = calloc((size_t)spread, sizeof *job->status);
    job->text = calloc((size_t)spread, sizeof *job->text);
    float *colours = malloc((size_t)spread * pixels * 6 * sizeof *colours);
    uint8_t *ids = malloc((size_t)spread * pixels);
    int rc = LBR_OK;
    if (!job->frames || !job->status || !job->text || !colours || !ids) {
        rc = lbr_fail(LBR_ENOMEM, "scene_render: no memory for %d buffers of %dx%d", spread, job->width, job->height);
    } else {
        for (int i = 0; i < spread; i++) {
            job->frames[i].colour = colours + (size_t)i * pixels * 6;
            job->frames[i].fine = job->frames[i].colour + pixels * 3;
            job->frames[i].id = ids + (size_t)i * pixels;
        }
        if (n > 1 || job->paths) {
            lbr_parallel(n, 1, run_frames, job);
        } else {
            int rows = (job->height + TILE - 1) / TILE;
            frame_make(job->frames, job->scenes, job->width, job->height);
            lbr_parallel(rows, 1, run_trace, job);
            lbr_parallel(rows, 1, run_refine, job);
        }
        for (int i = 0; i < spread && !rc; i++)
            if (job->status[i]) rc = lbr_fail(job->status[i], "%s", job->text[i]);
        if (!rc && lbr_interrupted()) rc = lbr_fail(LBR_EINTR, "scene_render: interrupted");
    }
    free(ids);
    free(colours);
    free(job->text);
    free(job->status);
    free(job->frames);
    return rc;
}

int lbr_scene_render(const lbr_scene *scenes, int64_t n, int32_t width, int32_t height, uint8_t *rgb)
{
    int rc = scenes_check(scenes, n, width, height, rgb);
    if (rc || n == 0) return rc;
    struct job job = {.scenes = scenes, .width = width, .height = height, .rgb = rgb};
    return job_run(&job, n, n > 1 ? lbr_threads() : 1);
}

int lbr_scene_write(const lbr_scene *scenes, int64_t n, int32_t width, int32_t height, const char *paths)
{
    int rc = scenes_check(scenes, n, width, height, paths);
    if (rc || n == 0) return rc;
    int spread = lbr_threads();
    struct job job = {.scenes = scenes, .width = width, .height = height};
    job.paths = malloc((size_t)n * sizeof *job.paths);
    job.rgb = malloc((size_t)spread * width * height * 3);
    if (!job.paths || !job.rgb) {
        rc = lbr_fail(LBR_ENOMEM, "scene_write: no memory for %d pictures of %dx%d", spread, width, height);
    } else {
        for (int64_t i = 0; i < n; i++, paths += strlen(paths) + 1) job.paths[i] = paths;
        rc = job_run(&job, n, spread);
    }
    free(job.rgb);
    free(job.paths);
    return rc;
}
