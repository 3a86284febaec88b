/* scene_trace.h: the inner loops of scene.c over LANES rays at once, included once per instruction set. Not a public header.
 * The includer defines LANES (4 or 8), FN(name) and TARGET (a function attribute or nothing). */
#define V FN(vec)
#define M FN(mask)
typedef float V __attribute__((vector_size(LANES * 4)));
typedef int32_t M __attribute__((vector_size(LANES * 4)));
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE V FN(set)(float x) { return (V){0} + x; }
INLINE V FN(pick)(M m, V a, V b) { return (V)((m & (M)a) | (~m & (M)b)); }
#if LANES == 8
INLINE V FN(vmin)(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE V FN(vmax)(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE V FN(vsqrt)(V a) { return (V)_mm256_sqrt_ps((__m256)a); }
INLINE int FN(any)(M m) { return _mm256_movemask_ps((__m256)m) != 0; }
#elif defined(__SSE2__)
INLINE V FN(vmin)(V a, V b) { return (V)_mm_min_ps((__m128)a, (__m128)b); }
INLINE V FN(vmax)(V a, V b) { return (V)_mm_max_ps((__m128)a, (__m128)b); }
INLINE V FN(vsqrt)(V a) { return (V)_mm_sqrt_ps((__m128)a); }
INLINE int FN(any)(M m) { return _mm_movemask_ps((__m128)m) != 0; }
#else
INLINE V FN(vmin)(V a, V b) { return FN(pick)(a < b, a, b); }
INLINE V FN(vmax)(V a, V b) { return FN(pick)(a > b, a, b); }
INLINE V FN(vsqrt)(V a)
{
    for (int i = 0; i < LANES; i++) a[i] = sqrtf(a[i]);
    return a;
}
INLINE int FN(any)(M m)
{
    int32_t r = 0;
    for (int i = 0; i < LANES; i++) r |= m[i];
    return r != 0;
}
#endif
INLINE V FN(abs)(V a) { return FN(vmax)(a, -a); }
INLINE V FN(load)(const float *x)
{
    V v;
    memcpy(&v, x, sizeof v);
    return v;
}
INLINE V FN(floor)(V x)
{
    V i = __builtin_convertvector(__builtin_convertvector(x, M), V);
    return i + __builtin_convertvector(i > x, V);
}
/* sine_turns of scene.c */
INLINE V FN(sine)(V x)
{
    x = 2.0f * (x - FN(floor)(x)) - 1.0f;
    V y = -4.0f * x * (1.0f - FN(abs)(x));
    return y * (0.775f + 0.225f * FN(abs)(y));
}
INLINE V FN(clamp)(V x, float lo, float hi) { return FN(vmin)(FN(vmax)(x, FN(set)(lo)), FN(set)(hi)); }

/* Signed distance to the listed primitives; LARGE when there is none. */
INLINE V FN(map)(const struct solid *solids, const uint8_t *list, int n, V x, V y, V z)
{
    V total = FN(set)(LARGE), part = total;
    int at = -1;
    for (int i = 0; i < n; i++) {
        const struct solid *s = &solids[list[i]];
        V px = x - s->a[0], py = y - s->a[1], pz = z - s->a[2], d;
        if (s->shape == LBR_SHAPE_CAPSULE) {
            V h = FN(clamp)((px * s->b[0] + py * s->b[1] + pz * s->b[2]) * s->inverse, 0.0f, 1.0f);
            px -= h * s->b[0]; py -= h * s->b[1]; pz -= h * s->b[2];
            d = FN(vsqrt)(px * px + py * py + pz * pz) - (s->radius + h * s->taper);
        } else {
            V qx = px * s->m[0] + py * s->m[1] + pz * s->m[2], qy = px * s->m[3] + py * s->m[4] + pz * s->m[5];
            V qz = px * s->m[6] + py * s->m[7] + pz * s->m[8];
            V k0 = FN(vsqrt)(qx * qx + qy * qy + qz * qz);
            qx *= s->b[0]; qy *= s->b[1]; qz *= s->b[2];
            V k1 = FN(vsqrt)(qx * qx + qy * qy + qz * qz);
            d = k0 * (k0 - 1.0f) / FN(vmax)(k1, FN(set)(1e-6f));
        }
        if (s->part != at) {
            total = FN(vmin)(total, part);
            part = d;
            at = s->part;
        } else {
            V gap = part - d, h = FN(vmax)(s->blend - FN(vmax)(gap, -gap), FN(set)(0.0f));
            part = FN(vmin)(part, d) - h * h * s->quarter;
        }
    }
    return FN(vmin)(total, part);
}

/* Light at LANES points with normals: how open the surroundings are, and how much of the lamp is seen, both 0..1. */
static TARGET void FN(light)(const struct frame *f, const struct tile *tile, const V *p, const V *n, const M *on_body, V *out_open, V *out_shadow)
{
    V px = p[0], py = p[1], pz = p[2], nx = n[0], ny = n[1], nz = n[2], open, shadow = FN(set)(1.0f);
    M body = *on_body;
    const uint8_t *list = tile->list + tile->seen;
    float h = 0.8f * f->reach;            /* how much of the surroundings within it is open */
    V d = FN(map)(f->solids, list, tile->around, px + nx * h, py + ny * h, pz + nz * h);
    d = FN(pick)(body, FN(vmin)(d, pz + nz * h - f->scene->floor), d);
    open = FN(clamp)(d * (1.0f / h), 0.0f, 1.0f);
    V facing = nx * f->light[0] + ny * f->light[1] + nz * f->light[2];
    V ox = px + nx * f->lift, oy = py + ny * f->lift, oz = pz + nz * f->lift;
    V far = (tile->top - oz) * f->per_light_z;
    V along = FN(set)(f->lift);
    M live = (facing > 0.0f) & (far > along);
    for (int i = 0; i < 20 && FN(any)(live); i++) {
        d = FN(map)(f->solids, list, tile->around, ox + f->light[0] * along, oy + f->light[1] * along, oz + f->light[2] * along);
        shadow = FN(pick)(live, FN(vmin)(shadow, 0.5f + 0.5f * d * f->per_softness / along), shadow);
        along += FN(vmax)(d, FN(set)(f->lift));
        live &= (shadow > 0.0f) & (along < far);
    }
    shadow = FN(clamp)(shadow, 0.0f, 1.0f);
    shadow = shadow * shadow * (3.0f - 2.0f * shadow);
    *out_open = open;
    *out_shadow = shadow;
}

/* Colour of the plane at (x, y), a picture's pixel wide there. */
static TARGET void FN(plane)(const struct frame *f, V x, V y, V pixel, V open, V shadow, float out[3][LANES])
{
    const lbr_scene *s = f->scene;
    const struct weft *p = &f->floor;
    V gx = FN(set)(0.0f), gy = gx, share = gx;
    for (int i = 0; i < 5; i++) {
        const struct wave *w = &f->waves[i];
        V slope = w->height * FN(sine)(w->kx * x + w->ky * y + w->phase);
        gx += slope * w->kx;
        gy += slope * w->ky;
    }
    if (p->kind != LBR_PATTERN_PLAIN) {
        V sharp = p->period / (pixel + 1e-6f), u = x * p->ux + y * p->uy, v = y * p->ux - x * p->uy;
        if (p->kind == LBR_PATTERN_WEAVE) {
            share = 0.5f + 0.5f * FN(sine)(u) * FN(sine)(v);
        } else {
            V du = FN(abs)(u - FN(floor)(u) - 0.5f), dv = FN(abs)(v - FN(floor)(v) - 0.5f);
            V stripe_u = FN(clamp)((0.25f - du) * sharp + 0.5f, 0.0f, 1.0f), stripe_v = FN(clamp)((0.25f - dv) * sharp + 0.5f, 0.0f, 1.0f);
            if (p->kind == LBR_PATTERN_STRIPES) share = stripe_u;
            else if (p->kind == LBR_PATTERN_CHECKS) share = 0.5f * (stripe_u + stripe_v);
            else share = FN(clamp)((0.22f - FN(vsqrt)(du * du + dv * dv)) * sharp + 0.5f, 0.0f, 1.0f);
        }
    }
    V nz = 1.0f / FN(vsqrt)(1.0f + gx * gx + gy * gy);
    V lit = FN(vmax)(nz * (f->light[2] - gx * f->light[0] - gy * f->light[1]), FN(set)(0.0f)) * shadow;
    V sky = (0.35f + 0.65f * open) * nz;
    for (int k = 0; k < 3; k++) {
        V c = (s->colour[k] + (p->second[k] - s->colour[k]) * share) * (s->sky[k] * sky + s->sun[k] * lit);
        memcpy(out[k], &c, sizeof c);
    }
}

/* Colours of LANES rays through picture points (sx, sy): out [LANES][3] linear, id 0 = plane, else group + 1. */
static TARGET void FN(sample)(const struct frame *f, const struct tile *tile, const float *sx, const float *sy, float *out, uint8_t *id)
{
    const lbr_scene *s = f->scene;
    V u = (FN(load)(sx) - s->centre[0]) * f->per_focal, v = (FN(load)(sy) - s->centre[1]) * f->per_focal;
    V inv = 1.0f / FN(vsqrt)(1.0f + u * u + v * v);
    V dx = (u * s->axes[0] + v * s->axes[3] + s->axes[6]) * inv, dy = (u * s->axes[1] + v * s->axes[4] + s->axes[7]) * inv;
    V dz = (u * s->axes[2] + v * s->axes[5] + s->axes[8]) * inv;
    V end = (s->floor - s->camera[2]) / FN(vmin)(dz, FN(set)(-1e-3f));
    V t = end;
    M body = (M){0};
    if (tile->seen) {
        M live = t == t;
        t = FN(set)(tile->nearest);
        for (int i = 0; i < 64; i++) {
            V d = FN(map)(f->solids, tile->list, tile->seen, s->camera[0] + dx * t, s->camera[1] + dy * t, s->camera[2] + dz * t);
            t = FN(pick)(live, t + d, t);
            live &= (d > f->close) & (t < end);
            if (!FN(any)(live)) break;
        }
        body = t < end;
        t = FN(vmin)(t, end);
    }
    V px = s->camera[0] + dx * t, py = s->camera[1] + dy * t, pz = s->camera[2] + dz * t;
    V nx = FN(set)(0.0f), ny = nx, nz = FN(set)(1.0f), shadow = nz, open = nz;
    if (FN(any)(body)) {
        const float e = 0.25f * f->close;
        V a = FN(map)(f->solids, tile->list, tile->seen, px + e, py - e, pz - e);
        V b = FN(map)(f->solids, tile->list, tile->seen, px - e, py - e, pz + e);
        V c = FN(map)(f->solids, tile->list, tile->seen, px - e, py + e, pz - e);
        V d = FN(map)(f->solids, tile->list, tile->seen, px + e, py + e, pz + e);
        V gx = a - b - c + d, gy = -a - b + c + d, gz = -a + b - c + d;
        V norm = 1.0f / FN(vmax)(FN(vsqrt)(gx * gx + gy * gy + gz * gz), FN(set)(1e-20f));
        nx = FN(pick)(body, gx * norm, nx);
        ny = FN(pick)(body, gy * norm, ny);
        nz = FN(pick)(body, gz * norm, nz);
    }
    if (tile->smooth) {
        V gx = FN(clamp)((FN(load)(sx) - tile->x0) * ((GRID - 1.0f) / TILE), 0.0f, GRID - 1.001f);
        V gy = FN(clamp)((FN(load)(sy) - tile->y0) * ((GRID - 1.0f) / TILE), 0.0f, GRID - 1.001f);
        for (int i = 0; i < LANES; i++) {
            int ix = (int)gx[i], iy = (int)gy[i];
            const float *o = tile->open + iy * GRID + ix, *w = tile->shadow + iy * GRID + ix;
            float u1 = gx[i] - (float)ix, v1 = gy[i] - (float)iy;
            open[i] = mixf(mixf(o[0], o[1], u1), mixf(o[GRID], o[GRID + 1], u1), v1);
            shadow[i] = mixf(mixf(w[0], w[1], u1), mixf(w[GRID], w[GRID + 1], u1), v1);
        }
    } else if (tile->around) {
        V p[3] = {px, py, pz}, n[3] = {nx, ny, nz};
        FN(light)(f, tile, p, n, &body, &open, &shadow);
    }
    float plane[3][LANES];
    FN(plane)(f, px, py, t * f->per_focal, open, shadow, plane);
    if (!FN(any)(body)) {
        for (int i = 0; i < LANES; i++) {
            id[i] = 0;
            for (int k = 0; k < 3; k++) out[3 * i + k] = plane[k][i];
        }
        return;
    }
    float P[3][LANES], N[3][LANES], D[3][LANES], A[LANES], S[LANES], T[LANES];
    int32_t B[LANES];
    memcpy(P[0], &px, sizeof px); memcpy(P[1], &py, sizeof py); memcpy(P[2], &pz, sizeof pz);
    memcpy(N[0], &nx, sizeof nx); memcpy(N[1], &ny, sizeof ny); memcpy(N[2], &nz, sizeof nz);
    memcpy(D[0], &dx, sizeof dx); memcpy(D[1], &dy, sizeof dy); memcpy(D[2], &dz, sizeof dz);
    memcpy(A, &open, sizeof open); memcpy(S, &shadow, sizeof shadow); memcpy(T, &t, sizeof t); memcpy(B, &body, sizeof body);
    for (int i = 0; i < LANES; i++) {
        struct point q = {{P[0][i], P[1][i], P[2][i]}, {N[0][i], N[1][i], N[2][i]}, {D[0][i], D[1][i], D[2][i]}, A[i], S[i], T[i] * f->per_focal};
        if (B[i]) {
            id[i] = (uint8_t)(1 + shade_body(f, tile, &q, out + 3 * i));
        } else {
            id[i] = 0;
            for (int k = 0; k < 3; k++) out[3 * i + k] = plane[k][i];
        }
    }
}

/* Light on the bare plane changes slowly: it is traced at GRID x GRID points of a tile without a body. */
static TARGET void FN(grid)(const struct frame *f, struct tile *tile)
{
    const lbr_scene *s = f->scene;
    enum { POINTS = GRID * GRID, ROOM = POINTS + LANES };
    float x[ROOM], y[ROOM], open[ROOM], shadow[ROOM];
    for (int i = 0; i < ROOM; i++) {
        int k = i < POINTS ? i : POINTS - 1;
        float u = (tile->x0 + (float)(k % GRID) * (TILE / (GRID - 1.0f)) - s->centre[0]) * f->per_focal;
        float v = (tile->y0 + (float)(k / GRID) * (TILE / (GRID - 1.0f)) - s->centre[1]) * f->per_focal;
        float d[3];
        for (int c = 0; c < 3; c++) d[c] = u * s->axes[c] + v * s->axes[3 + c] + s->axes[6 + c];
        float t = (s->floor - s->camera[2]) / fminf(d[2], -1e-3f);
        x[i] = s->camera[0] + d[0] * t;
        y[i] = s->camera[1] + d[1] * t;
    }
    for (int i = 0; i < POINTS; i += LANES) {
        V p[3] = {FN(load)(x + i), FN(load)(y + i), FN(set)(s->floor)}, n[3] = {FN(set)(0.0f), FN(set)(0.0f), FN(set)(1.0f)}, o, w;
        M none = (M){0};
        FN(light)(f, tile, p, n, &none, &o, &w);
        memcpy(open + i, &o, sizeof o);
        memcpy(shadow + i, &w, sizeof w);
    }
    memcpy(tile->open, open, sizeof tile->open);
    memcpy(tile->shadow, shadow, sizeof tile->shadow);
    tile->smooth = 1;
}

/* First pass: one ray a pixel, tile rows [begin, end). */
static TARGET void FN(trace)(const struct frame *f, int begin, int end)
{
    for (int ty = begin; ty < end; ty++)
        for (int x0 = 0; x0 < f->width; x0 += TILE) {
            struct tile tile;
            tile_make(f, x0, ty * TILE, &tile);
            if (!tile.seen && tile.around) FN(grid)(f, &tile);
            for (int y = ty * TILE; y < ty * TILE + TILE && y < f->height; y += 2)
                for (int x = x0; x < x0 + TILE && x < f->width; x += LANES / 2) {
                    float sx[LANES], sy[LANES], out[3 * LANES];
                    uint8_t id[LANES];
                    for (int i = 0; i < LANES; i++) {
                        sx[i] = (float)(x + i % (LANES / 2)) + 0.5f;
                        sy[i] = (float)(y + i / (LANES / 2)) + 0.5f;
                    }
                    FN(sample)(f, &tile, sx, sy, out, id);
                    for (int i = 0; i < LANES; i++) {
                        int cx = x + i % (LANES / 2), cy = y + i / (LANES / 2);
                        if (cx >= f->width || cy >= f->height) continue;
                        memcpy(f->colour + 3 * ((size_t)cy * f->width + cx), out + 3 * i, 3 * sizeof(float));
                        f->id[(size_t)cy * f->width + cx] = id[i];
                    }
                }
        }
}

/* Second pass: four rays a pixel where an edge runs through it; writes the smoothed colours to f->fine. */
static TARGET void FN(refine)(const struct frame *f, int begin, int end)
{
    static const float ox[4] = {0.375f, -0.125f, 0.125f, -0.375f}, oy[4] = {-0.125f, -0.375f, 0.375f, 0.125f};
    for (int ty = begin; ty < end; ty++)
        for (int x0 = 0; x0 < f->width; x0 += TILE) {
            struct tile tile;
            int made = 0, count = 0;
            int32_t todo[TILE * TILE + 1];
            for (int y = ty * TILE; y < ty * TILE + TILE && y < f->height; y++)
                for (int x = x0; x < x0 + TILE && x < f->width; x++) {
                    size_t at = (size_t)y * f->width + x;
                    memcpy(f->fine + 3 * at, f->colour + 3 * at, 3 * sizeof(float));
                    if (on_edge(f, x, y)) todo[count++] = (int32_t)at;
                }
            for (int k = 0; k < count; k += LANES / 4) {
                float sx[LANES], sy[LANES], out[3 * LANES];
                uint8_t id[LANES];
                if (!made++) {
                    tile_make(f, x0, ty * TILE, &tile);
                    if (!tile.seen && tile.around) FN(grid)(f, &tile);
                }
                for (int i = 0; i < LANES; i++) {
                    int at = todo[k + i / 4 < count ? k + i / 4 : count - 1];
                    sx[i] = (float)(at % f->width) + 0.5f + ox[i % 4];
                    sy[i] = (float)(at / f->width) + 0.5f + oy[i % 4];
                }
                FN(sample)(f, &tile, sx, sy, out, id);
                for (int j = 0; j < LANES / 4 && k + j < count; j++)
                    for (int c = 0; c < 3; c++) {
                        const float *o = out + 12 * j + c;
                        f->fine[3 * (size_t)todo[k + j] + c] = 0.25f * (o[0] + o[3] + o[6] + o[9]);
                    }
            }
        }
}
#undef V
#undef M
#undef INLINE
