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

/* Colours of LANES rays through picture points (sx, sy): out [LANES][3] linear, id 0 = plane, else group + 1. */
static TARGET void FN(sample)(const struct frame *f, const struct tile *tile, const float *sx, const float *sy, float *out, uint8_t *id)
{
    const lbr_scene *s = f->scene;
    V u, v;
    memcpy(&u, sx, sizeof u);
    memcpy(&v, sy, sizeof v);
    u = (u - s->centre[0]) * f->per_focal;
    v = (v - s->centre[1]) * f->per_focal;
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
        const float e = 0.5f * f->close;
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
    if (tile->around) {
        const uint8_t *list = tile->list + tile->seen;
        V spread = FN(set)(0.0f);
        for (int i = 1; i <= 2; i++) {        /* how much of the surroundings within one unit is open */
            float h = f->reach * 0.5f * (float)i;
            V d = FN(map)(f->solids, list, tile->around, px + nx * h, py + ny * h, pz + nz * h);
            d = FN(pick)(body, FN(vmin)(d, pz + nz * h - s->floor), d);
            spread += FN(clamp)(d * (1.0f / h), 0.0f, 1.0f);
        }
        open = spread * 0.5f;
        V facing = nx * f->light[0] + ny * f->light[1] + nz * f->light[2];
        V ox = px + nx * f->lift, oy = py + ny * f->lift, oz = pz + nz * f->lift;
        V far = (f->top - oz) * f->per_light_z;
        V along = FN(set)(f->lift);
        M live = (facing > 0.0f) & (far > along);
        for (int i = 0; i < 20 && FN(any)(live); i++) {
            V d = FN(map)(f->solids, list, tile->around, ox + f->light[0] * along, oy + f->light[1] * along, oz + f->light[2] * along);
            shadow = FN(pick)(live, FN(vmin)(shadow, 0.5f + 0.5f * d * f->per_softness / along), shadow);
            along += FN(clamp)(d, f->lift, f->stride);
            live &= (shadow > 0.0f) & (along < far);
        }
        shadow = FN(clamp)(shadow, 0.0f, 1.0f);
        shadow = shadow * shadow * (3.0f - 2.0f * shadow);
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
            shade_plane(f, &q, out + 3 * i);
        }
    }
}

/* First pass: one ray a pixel, tile rows [begin, end). */
static TARGET void FN(trace)(const struct frame *f, int begin, int end)
{
    for (int ty = begin; ty < end; ty++)
        for (int x0 = 0; x0 < f->width; x0 += TILE) {
            struct tile tile;
            tile_make(f, x0, ty * TILE, &tile);
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
                if (!made++) tile_make(f, x0, ty * TILE, &tile);
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
