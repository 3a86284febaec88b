/* lstm_kernel.h: the LSTM's inner loops over GCC vectors; lstm.c includes it once an instruction set. Not a header: it makes code. Knows no tensors and no threads.
 *
 * lstm.c sets before: LSTM_SUFFIX, LSTM_TARGET (function attribute), LSTM_VL (floats a vector: 4, 8, 16), LSTM_TILE (rows a register tile), SPLAT, FMA, VMIN, VMAX, RECIPROCAL.
 * VMIN and VMAX(limit, x) keep a NaN x. All products go through `multiply`: tile rows x 4 vectors of accumulators, one weight row of up to 64 floats a step. A panel of 64 columns
 * is one block of 16 units with its 4 gates [4][16]; where LSTM_VL < 16 it is walked in slices of LSTM_VL units. */

#define LSTM_JOIN2(a, b) a##b
#define LSTM_JOIN(a, b) LSTM_JOIN2(a, b)
#define FN(name) LSTM_JOIN(name, LSTM_SUFFIX)
#define V FN(lstm_v)
#define VU FN(lstm_vu)
#define VI FN(lstm_vi)
#define INLINE static inline __attribute__((always_inline)) LSTM_TARGET
#define SLICES (16 / LSTM_VL)

typedef float V __attribute__((vector_size(LSTM_VL * 4)));
typedef float VU __attribute__((vector_size(LSTM_VL * 4), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(LSTM_VL * 4)));

/* ---- activations: relative error below 3e-7, right at infinities, NaN passes ---- */

/* *scale = 2^n and expm1(rest) with x = n ln 2 + rest, |rest| <= ln 2 / 2; polynomial fitted for least relative error. x within +-87. */
INLINE V FN(expm1_parts)(V x, V *scale)
{
    V magic = SPLAT(12583039.0f); /* 1.5 * 2^23 + 127: rounds to an integer and leaves n + 127 in the low bits */
    V t = FMA(x, SPLAT(1.44269504f), magic);
    V n = t - magic;
    V rest = FMA(n, SPLAT(-0.693145752f), x);
    rest = FMA(n, SPLAT(-1.42860677e-6f), rest);
    *scale = (V)((VI)t << 23);
    V q = FMA(rest, SPLAT(1.388252e-3f), SPLAT(8.366515e-3f));
    q = FMA(q, rest, SPLAT(4.16672e-2f));
    q = FMA(q, rest, SPLAT(1.6666543e-1f));
    q = FMA(q, rest, SPLAT(4.9999997e-1f));
    return FMA(q, rest * rest, rest);
}

INLINE V FN(sigmoid)(V x)
{
    V scale, p = FN(expm1_parts)(VMAX(SPLAT(-87.0f), VMIN(SPLAT(87.0f), -x)), &scale);
    V d = FMA(scale, p, scale) + SPLAT(1.0f), y = RECIPROCAL(d);
    return FMA(y, FMA(-d, y, SPLAT(1.0f)), y);
}

INLINE V FN(tanh)(V x)
{
    V scale, p = FN(expm1_parts)(VMAX(SPLAT(-20.0f), VMIN(SPLAT(20.0f), x + x)), &scale);
    V e = FMA(scale, p, scale - SPLAT(1.0f)), d = e + SPLAT(2.0f), y = RECIPROCAL(d), q = e * y;
    return FMA(y, FMA(-d, q, e), q);
}

/* ---- memory ---- */

INLINE V FN(load)(const float *p) { return (V)*(const VU *)p; }
INLINE void FN(store)(float *p, V v) { *(VU *)p = (VU)v; }

/* The first n floats (n may exceed a vector or be negative); the others read as zero and are not written. */
static LSTM_TARGET __attribute__((noinline)) void FN(move_some)(float *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n && i < LSTM_VL; i++) dst[i] = src[i];
}
INLINE V FN(load_some)(const float *p, int64_t n)
{
    if (n >= LSTM_VL) return FN(load)(p);
    float part[LSTM_VL] = {0};
    FN(move_some)(part, p, n);
    return FN(load)(part);
}
INLINE void FN(store_some)(float *p, V v, int64_t n)
{
    if (n >= LSTM_VL) {
        FN(store)(p, v);
        return;
    }
    float part[LSTM_VL];
    FN(store)(part, v);
    FN(move_some)(p, part, n);
}

/* ---- the product ---- */

/* acc[r][v] += sum over k < n of a[r*ra + k*ka] * w[k*wk + v*16 .. + LSTM_VL]; rows, nv are constants at every call. */
INLINE void FN(multiply)(V acc[][4], const int rows, const int nv, const float *a, int64_t ra, int64_t ka, const float *w, int64_t wk, int64_t n)
{
    for (int64_t k = 0; k < n; k++, a += ka, w += wk) {
        V m[4];
        UNROLL
        for (int v = 0; v < nv; v++) m[v] = FN(load)(w + v * 16);
        UNROLL
        for (int r = 0; r < rows; r++) {
            V s = SPLAT(a[r * ra]);
            UNROLL
            for (int v = 0; v < nv; v++) acc[r][v] = FMA(s, m[v], acc[r][v]);
        }
    }
}

/* Calls f(rows, ...) with rows a constant. */
#if LSTM_TILE == 6
#define LSTM_BY_ROWS(rows, f, ...) \
    switch (rows) { \
    case 6: f(6, __VA_ARGS__); break; \
    case 5: f(5, __VA_ARGS__); break; \
    case 4: f(4, __VA_ARGS__); break; \
    case 3: f(3, __VA_ARGS__); break; \
    case 2: f(2, __VA_ARGS__); break; \
    default: f(1, __VA_ARGS__); break; \
    }
#else
#define LSTM_BY_ROWS(rows, f, ...) \
    switch (rows) { \
    case 3: f(3, __VA_ARGS__); break; \
    case 2: f(2, __VA_ARGS__); break; \
    default: f(1, __VA_ARGS__); break; \
    }
#endif
#define LSTM_BY_COLUMNS(nv, rows, f, ...) \
    switch (nv) { \
    case 4: LSTM_BY_ROWS(rows, f, 4, __VA_ARGS__) break; \
    case 3: LSTM_BY_ROWS(rows, f, 3, __VA_ARGS__) break; \
    case 2: LSTM_BY_ROWS(rows, f, 2, __VA_ARGS__) break; \
    default: LSTM_BY_ROWS(rows, f, 1, __VA_ARGS__) break; \
    }

/* Rows of the next tile so that `left` rows split evenly. */
INLINE int FN(tile_rows)(int64_t left)
{
    int64_t tiles = (left + LSTM_TILE - 1) / LSTM_TILE;
    return (int)((left + tiles - 1) / tiles);
}

/* ---- forward ---- */

/* out[n][G] = bias + x[n] W^T for n rows that lie xs floats apart. */
INLINE void FN(project_tile)(const int rows, const lstm_forward_job *j, const float *x, int64_t xs, int64_t ub, float *out)
{
    for (int s = 0; s < SLICES; s++) {
        V acc[LSTM_TILE][4];
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int g = 0; g < 4; g++) acc[r][g] = FN(load)(j->bias + ub * 64 + g * 16 + s * LSTM_VL);
        FN(multiply)(acc, rows, 4, x, xs, 1, j->w + ub * j->a->F * 64 + s * LSTM_VL, 64, j->a->F);
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int g = 0; g < 4; g++) FN(store)(out + r * j->G + ub * 64 + g * 16 + s * LSTM_VL, acc[r][g]);
    }
}

static LSTM_TARGET void FN(project)(const lstm_forward_job *j, const float *x, int64_t xs, int64_t n, float *out)
{
    for (int64_t ub = 0; ub < j->blocks; ub++)
        for (int64_t i = 0; i < n;) {
            int rows = FN(tile_rows)(n - i);
            LSTM_BY_ROWS(rows, FN(project_tile), j, x + i * xs, xs, ub, out + i * j->G)
            i += rows;
        }
}

typedef struct {
    const float *start; /* accumulators begin here: bias, or an input product */
    int64_t start_row;
    const float *x, *h; /* fused input rows, NULL = in start; state rows [Hp], NULL = zero */
    float *h_out, *c;   /* state rows [Hp] */
    float *y, *gates, *cells;
} FN(step);

INLINE void FN(step_tile)(const int rows, const lstm_forward_job *j, const FN(step) *p, int64_t ub, int64_t row)
{
    int64_t H = j->a->H, Hp = j->Hp;
    for (int s = 0; s < SLICES; s++) {
        int64_t column = ub * 64 + s * LSTM_VL, unit = ub * 16 + s * LSTM_VL;
        V acc[LSTM_TILE][4];
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int g = 0; g < 4; g++) acc[r][g] = FN(load)(p->start + (row + r) * p->start_row + column + g * 16);
        if (p->x) FN(multiply)(acc, rows, 4, p->x + row * j->a->xb, j->a->xb, 1, j->w + ub * j->a->F * 64 + s * LSTM_VL, 64, j->a->F);
        if (p->h) FN(multiply)(acc, rows, 4, p->h + row * Hp, Hp, 1, j->r + ub * H * 64 + s * LSTM_VL, 64, H);
        UNROLL
        for (int r = 0; r < rows; r++) {
            float *cp = p->c + (row + r) * Hp + unit;
            V i = FN(sigmoid)(acc[r][0]), f = FN(sigmoid)(acc[r][1]), g = FN(tanh)(acc[r][2]), o = FN(sigmoid)(acc[r][3]);
            V c = FMA(f, FN(load)(cp), i * g), h = o * FN(tanh)(c);
            FN(store)(cp, c);
            FN(store)(p->h_out + (row + r) * Hp + unit, h);
            FN(store_some)(p->y + (row + r) * j->a->T * H + unit, h, H - unit);
            if (p->gates) {
                float *v = p->gates + (row + r) * 4 * H + unit;
                FN(store_some)(v, i, H - unit);
                FN(store_some)(v + H, f, H - unit);
                FN(store_some)(v + 2 * H, g, H - unit);
                FN(store_some)(v + 3 * H, o, H - unit);
                FN(store_some)(p->cells + (row + r) * H + unit, c, H - unit);
            }
        }
    }
}

/* All steps of batch rows [b0, b1). scratch: 3 * rows * Hp floats of state, then the input products. */
static LSTM_TARGET void FN(forward_rows)(const lstm_forward_job *j, int64_t b0, int64_t b1, float *scratch)
{
    const lbr_lstm *a = j->a;
    int64_t T = a->T, H = a->H, Hp = j->Hp, rows = b1 - b0;
    float *h[2] = {scratch, scratch + rows * Hp}, *c = scratch + 2 * rows * Hp, *product = scratch + 3 * rows * Hp;
    const float *x = (const float *)a->x + b0 * a->xb;
    for (int64_t i = 0; i < rows * Hp; i++) {
        int64_t b = i / Hp, u = i % Hp;
        h[0][i] = a->h0 && u < H ? ((const float *)a->h0)[(b0 + b) * H + u] : 0;
        c[i] = a->c0 && u < H ? ((const float *)a->c0)[(b0 + b) * H + u] : 0;
    }
    int64_t start_row = 0, start_step = 0;
    switch (j->mode) {
    case LSTM_FUSED:
        break;
    case LSTM_BY_STEP: /* few rows: tiles run along time */
        for (int64_t b = 0; b < rows; b++) FN(project)(j, x + b * a->xb, a->xt, T, product + b * T * j->G);
        start_row = T * j->G, start_step = j->G;
        break;
    case LSTM_FRAMES: /* overlapping windows: one product a distinct frame */
        FN(project)(j, x, a->xt, (rows - 1) * j->hop + T, product);
        start_row = j->hop * j->G, start_step = j->G;
        break;
    case LSTM_CONSTANT: /* the same input at every step */
        FN(project)(j, x, a->xb, rows, product);
        start_row = j->G;
        break;
    }
    for (int64_t t = 0; t < T; t++) {
        int64_t at = t * a->B + b0;
        FN(step) p = {
            .start = j->mode == LSTM_FUSED ? j->bias : product + t * start_step,
            .start_row = start_row,
            .x = j->mode == LSTM_FUSED ? x + t * a->xt : NULL,
            .h = t > 0 || a->h0 ? h[t & 1] : NULL,
            .h_out = h[~t & 1],
            .c = c,
            .y = (float *)a->y + (b0 * T + t) * H,
            .gates = a->gates ? (float *)a->gates + at * 4 * H : NULL,
            .cells = a->gates ? (float *)a->cells + at * H : NULL,
        };
        for (int64_t ub = 0; ub < j->blocks; ub++)
            for (int64_t row = 0; row < rows;) {
                int n = FN(tile_rows)(rows - row);
                LSTM_BY_ROWS(n, FN(step_tile), j, &p, ub, row)
                row += n;
            }
    }
    for (int64_t b = 0; b < rows; b++) {
        memcpy((float *)a->hn + (b0 + b) * H, h[T & 1] + b * Hp, (size_t)H * 4);
        memcpy((float *)a->cn + (b0 + b) * H, c + b * Hp, (size_t)H * 4);
    }
}

/* ---- backward ---- */

/* out rows (os floats apart) [columns] = d W for the rows of d [blocks][N][64] that lie ds floats apart; w: packed panels of 64 columns, all but the last full. */
INLINE void FN(product_tile)(const int rows, const int nv, const lstm_backward_job *j, const float *d, int64_t ds, const float *w, float *out, int64_t os, int64_t columns)
{
    for (int s = 0; s < SLICES; s++) {
        V acc[LSTM_TILE][4];
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < nv; v++) acc[r][v] = SPLAT(0.0f);
        for (int64_t ub = 0; ub < j->blocks; ub++)
            FN(multiply)(acc, rows, nv, d + ub * j->N * 64, ds, 1, w + ub * 64 * nv * 16 + s * LSTM_VL, nv * 16, 64);
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < nv; v++) FN(store_some)(out + r * os + v * 16 + s * LSTM_VL, acc[r][v], columns - v * 16 - s * LSTM_VL);
    }
}

static LSTM_TARGET void FN(product)(const lstm_backward_job *j, const float *d, int64_t ds, int64_t n, const float *w, float *out, int64_t os, int64_t columns)
{
    for (int64_t first = 0; first < columns; first += 64) {
        int nv = columns - first >= 64 ? 4 : (int)((columns - first + 15) / 16);
        for (int64_t i = 0; i < n;) {
            int rows = FN(tile_rows)(n - i);
            LSTM_BY_COLUMNS(nv, rows, FN(product_tile), j, d + i * ds, ds, w + j->blocks * 64 * first, out + i * os + first, os, columns - first)
            i += rows;
        }
    }
}

/* Gate gradients of batch rows [b0, b1) for all steps into d [blocks][N][64], then dx of these rows. scratch: 2 * rows * Hp floats. */
static LSTM_TARGET void FN(backward_rows)(const lstm_backward_job *j, int64_t b0, int64_t b1, float *scratch)
{
    const lbr_lstm *a = j->a;
    const lbr_lstm_grad *q = j->g;
    int64_t T = a->T, H = a->H, Hp = j->Hp, rows = b1 - b0;
    float *dh = scratch, *dc = scratch + rows * Hp;
    for (int64_t i = 0; i < rows * Hp; i++) {
        int64_t b = i / Hp, u = i % Hp;
        dh[i] = q->dhn && u < H ? ((const float *)q->dhn)[(b0 + b) * H + u] : 0;
        dc[i] = q->dcn && u < H ? ((const float *)q->dcn)[(b0 + b) * H + u] : 0;
    }
    V one = SPLAT(1.0f);
    for (int64_t t = T - 1; t >= 0; t--) {
        for (int64_t b = b0; b < b1; b++) {
            const float *gates = (const float *)a->gates + (t * a->B + b) * 4 * H, *cells = (const float *)a->cells + (t * a->B + b) * H;
            const float *before = t > 0 ? cells - a->B * H : a->c0 ? (const float *)a->c0 + b * H : NULL;
            const float *dy = q->dy ? (const float *)q->dy + b * q->dyb + t * q->dyt : NULL;
            for (int64_t u = 0; u < Hp; u += LSTM_VL) {
                int64_t left = H - u;
                float *hp = dh + (b - b0) * Hp + u, *cp = dc + (b - b0) * Hp + u;
                float *d = j->d + ((u / 16) * j->N + b * T + t) * 64 + u % 16;
                V i = FN(load_some)(gates + u, left), f = FN(load_some)(gates + H + u, left), g = FN(load_some)(gates + 2 * H + u, left);
                V o = FN(load_some)(gates + 3 * H + u, left), tc = FN(tanh)(FN(load_some)(cells + u, left));
                V e = FN(load)(hp);
                if (dy) e += FN(load_some)(dy + u, left);
                V du = FMA(e * o, one - tc * tc, FN(load)(cp));
                FN(store)(d, du * g * (i * (one - i)));
                FN(store)(d + 16, before ? du * FN(load_some)(before + u, left) * (f * (one - f)) : SPLAT(0.0f));
                FN(store)(d + 32, du * i * (one - g * g));
                FN(store)(d + 48, e * tc * (o * (one - o)));
                FN(store)(cp, du * f);
            }
        }
        FN(product)(j, j->d + (b0 * T + t) * 64, T * 64, rows, j->r, dh, Hp, Hp);
    }
    for (int64_t b = 0; b < rows; b++) {
        memcpy((float *)q->dh0 + (b0 + b) * H, dh + b * Hp, (size_t)H * 4);
        memcpy((float *)q->dc0 + (b0 + b) * H, dc + b * Hp, (size_t)H * 4);
    }
    if (q->dx) FN(product)(j, j->d + b0 * T * 64, 64, rows * T, j->w, (float *)q->dx + b0 * T * a->F, a->F, a->F);
}

/* sum[row][64] += over batch rows [b0, b1) of d^T times `rows` features from f on: features of x, then of the state before each step. */
INLINE void FN(weight_tile)(const int rows, const lstm_backward_job *j, int64_t ub, int64_t f, int64_t b0, int64_t b1, float *sum)
{
    const lbr_lstm *a = j->a;
    int64_t T = a->T, F = a->F, H = a->H;
    for (int s = 0; s < SLICES; s++) {
        const float *d = j->d + (ub * j->N + b0 * T) * 64 + s * LSTM_VL;
        V acc[LSTM_TILE][4];
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int g = 0; g < 4; g++) acc[r][g] = FN(load)(sum + r * 64 + g * 16 + s * LSTM_VL);
        if (f < F) {
            const float *x = (const float *)a->x + b0 * a->xb + f;
            if (a->xb == T * a->xt) FN(multiply)(acc, rows, 4, x, 1, a->xt, d, 64, (b1 - b0) * T);
            else
                for (int64_t b = 0; b < b1 - b0; b++) FN(multiply)(acc, rows, 4, x + b * a->xb, 1, a->xt, d + b * T * 64, 64, T);
        } else {
            for (int64_t b = b0; b < b1; b++, d += T * 64) {
                if (a->h0) FN(multiply)(acc, rows, 4, (const float *)a->h0 + b * H + f - F, 1, 0, d, 64, 1);
                FN(multiply)(acc, rows, 4, (const float *)a->y + b * T * H + f - F, 1, H, d + 64, 64, T - 1);
            }
        }
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int g = 0; g < 4; g++) FN(store)(sum + r * 64 + g * 16 + s * LSTM_VL, acc[r][g]);
    }
}

/* dw, dr (and db when f0 = 0) of unit block ub for features [f0, f1) of x and h in a row. scratch: (f1 - f0 + 1) * 64 floats. */
static LSTM_TARGET void FN(weight_gradients)(const lstm_backward_job *j, int64_t ub, int64_t f0, int64_t f1, float *scratch)
{
    const lbr_lstm *a = j->a;
    int64_t T = a->T, F = a->F, H = a->H, hop = T < 96 ? 96 / (T > 0 ? T : 1) : 1;
    float *sum = scratch + 64;
    memset(scratch, 0, (size_t)(f1 - f0 + 1) * 64 * 4);
    for (int64_t b0 = 0; b0 < a->B; b0 += hop) {
        int64_t b1 = b0 + hop < a->B ? b0 + hop : a->B;
        const float *d = j->d + ub * j->N * 64;
        if (f0 == 0)
            for (int64_t n = b0 * T; n < b1 * T; n++)
                for (int i = 0; i < 64; i += LSTM_VL) FN(store)(scratch + i, FN(load)(scratch + i) + FN(load)(d + n * 64 + i));
        for (int64_t f = f0; f < f1;) {
            int64_t end = f < F && f1 > F ? F : f1;
            int rows = FN(tile_rows)(end - f);
            LSTM_BY_ROWS(rows, FN(weight_tile), j, ub, f, b0, b1, sum + (f - f0) * 64)
            f += rows;
        }
    }
    for (int64_t i = 0; i < 64; i++) {
        int64_t u = ub * 16 + i % 16, row = i / 16 * H + u;
        if (u >= H) continue;
        float *dw = (float *)j->g->dw + row * F, *dr = (float *)j->g->dr + row * H - F;
        if (f0 == 0) ((float *)j->g->db)[row] = scratch[i];
        for (int64_t f = f0; f < f1; f++) (f < F ? dw : dr)[f] = sum[(f - f0) * 64 + i];
    }
}

#undef LSTM_JOIN2
#undef LSTM_JOIN
#undef FN
#undef V
#undef VU
#undef VI
#undef INLINE
#undef SLICES
#undef LSTM_BY_ROWS
#undef LSTM_BY_COLUMNS
#undef LSTM_SUFFIX
#undef LSTM_TARGET
#undef LSTM_VL
#undef LSTM_TILE
#undef SPLAT
#undef FMA
#undef VMIN
#undef VMAX
#undef RECIPROCAL
