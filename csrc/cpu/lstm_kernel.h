/* lstm_kernel.h: the LSTM's inner loops over GCC vectors; lstm.c includes it once an instruction set. Not a header: it makes code. Knows no tensors and no threads.
 *
 * lstm.c sets before: LSTM_SUFFIX, LSTM_TARGET (function attribute), LSTM_VL (floats a vector: 4, 8, 16), LSTM_TILE (rows a register tile), SPLAT, FMA, VMIN, VMAX, RECIPROCAL,
 * KEEP (the value stays in a register). VMIN and VMAX(limit, x) keep a NaN x. All products go through `multiply`: tile rows x 4 vectors of accumulators, one weight row of
 * up to 64 floats a step. A panel of 64 columns is one block of 16 units with its 4 gates [4][16]; where LSTM_VL < 16 it is walked in slices of LSTM_VL units. */

#define LSTM_JOIN2(a, b) a##b
#define LSTM_JOIN(a, b) LSTM_JOIN2(a, b)
#define FN(name) LSTM_JOIN(name, LSTM_SUFFIX)
#define V FN(lstm_v)
#define VU FN(lstm_vu)
#define VI FN(lstm_vi)
#define INLINE static inline __attribute__((always_inline)) LSTM_TARGET

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

/* acc[r][v*16..] += sum over o < outer, k < n of a[r*ra + k*ka + o*ao] * w[k*wk + o*wo + v*16..], v < nv. A function of its own, so that nothing else competes for its registers. */
INLINE void FN(multiply)(const lstm_product *p, const int rows, const int nv)
{
    int64_t n = p->n, ra = p->ra, ka = p->ka, wk = p->wk;
    for (int s = 0; s < 16; s += LSTM_VL) {
        V acc[LSTM_TILE][4];
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < nv; v++) acc[r][v] = FN(load)(p->acc + r * 64 + v * 16 + s);
        for (int64_t o = 0; o < p->outer; o++) {
            const float *a = p->a + o * p->ao, *w = p->w + o * p->wo + s;
            for (int64_t k = 0; k < n; k++, a += ka, w += wk) {
#if LSTM_TILE > 4 /* many registers: hold the weights, stream the rows */
                V m[4];
                UNROLL
                for (int v = 0; v < nv; v++) {
                    m[v] = FN(load)(w + v * 16);
                    KEEP(m[v]);
                }
                UNROLL
                for (int r = 0; r < rows; r++) {
                    V x = SPLAT(a[r * ra]);
                    UNROLL
                    for (int v = 0; v < nv; v++) acc[r][v] = FMA(x, m[v], acc[r][v]);
                }
#else /* few: hold the rows, stream the weights */
                V x[LSTM_TILE];
                UNROLL
                for (int r = 0; r < rows; r++) {
                    x[r] = SPLAT(a[r * ra]);
                    KEEP(x[r]);
                }
                UNROLL
                for (int v = 0; v < nv; v++) {
                    V m = FN(load)(w + v * 16);
                    KEEP(m);
                    UNROLL
                    for (int r = 0; r < rows; r++) acc[r][v] = FMA(x[r], m, acc[r][v]);
                }
#endif
            }
        }
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < nv; v++) FN(store)(p->acc + r * 64 + v * 16 + s, acc[r][v]);
    }
}

#define LSTM_MULTIPLY(rows, nv) \
    static LSTM_TARGET void FN(multiply_##rows##x##nv)(const lstm_product *p) { FN(multiply)(p, rows, nv); }
#define LSTM_MULTIPLY_ROW(rows) LSTM_MULTIPLY(rows, 1) LSTM_MULTIPLY(rows, 2) LSTM_MULTIPLY(rows, 3) LSTM_MULTIPLY(rows, 4)
#define LSTM_MULTIPLY_NAMES(rows) {FN(multiply_##rows##x1), FN(multiply_##rows##x2), FN(multiply_##rows##x3), FN(multiply_##rows##x4)}
LSTM_MULTIPLY_ROW(1)
LSTM_MULTIPLY_ROW(2)
LSTM_MULTIPLY_ROW(3)
#if LSTM_TILE > 4
LSTM_MULTIPLY_ROW(4)
LSTM_MULTIPLY_ROW(5)
LSTM_MULTIPLY_ROW(6)
#endif
static void (*const FN(multiply_table)[LSTM_TILE][4])(const lstm_product *) = {
    LSTM_MULTIPLY_NAMES(1), LSTM_MULTIPLY_NAMES(2), LSTM_MULTIPLY_NAMES(3),
#if LSTM_TILE > 4
    LSTM_MULTIPLY_NAMES(4), LSTM_MULTIPLY_NAMES(5), LSTM_MULTIPLY_NAMES(6),
#endif
};

/* Rows of the next tile so that `left` rows split evenly. */
static inline int FN(tile_rows)(int64_t left)
{
    int64_t tiles = (left + LSTM_TILE - 1) / LSTM_TILE;
    return (int)((left + tiles - 1) / tiles);
}

/* ---- forward ---- */

/* out[n][G] = bias + x[n] W^T for n rows that lie xs floats apart. */
static LSTM_TARGET void FN(project)(const lstm_forward_job *j, const float *x, int64_t xs, int64_t n, float *out)
{
    float acc[LSTM_TILE * 64] __attribute__((aligned(64)));
    lstm_product p = {.acc = acc, .ra = xs, .ka = 1, .wk = 64, .n = j->a->F, .outer = 1};
    for (int64_t ub = 0; ub < j->blocks; ub++) {
        p.w = j->w + ub * j->a->F * 64;
        for (int64_t i = 0; i < n;) {
            int rows = FN(tile_rows)(n - i);
            for (int r = 0; r < rows; r++) memcpy(acc + r * 64, j->bias + ub * 64, 256);
            p.a = x + i * xs;
            FN(multiply_table)[rows - 1][3](&p);
            for (int r = 0; r < rows; r++) memcpy(out + (i + r) * j->G + ub * 64, acc + r * 64, 256);
            i += rows;
        }
    }
}

typedef struct {
    const float *start; /* accumulators begin here: bias, or an input product */
    int64_t start_row;
    const float *x, *h; /* fused input rows, NULL = in start; state rows [Hp], NULL = zero */
    float *h_out, *c;   /* state rows [Hp] */
    float *y, *gates, *cells;
} FN(step);

/* Gates, cell and state of `rows` rows of unit block ub from their sums acc [rows][4][16]. */
static LSTM_TARGET __attribute__((noinline)) void FN(activate)(const lstm_forward_job *j, const FN(step) *p, const float *acc, int rows, int64_t ub, int64_t row)
{
    int64_t H = j->a->H, Hp = j->Hp;
    for (int r = 0; r < rows; r++, row++, acc += 64)
        for (int s = 0; s < 16; s += LSTM_VL) {
            int64_t unit = ub * 16 + s, left = H - unit;
            float *cp = p->c + row * Hp + unit;
            V i = FN(sigmoid)(FN(load)(acc + s)), f = FN(sigmoid)(FN(load)(acc + 16 + s)), g = FN(tanh)(FN(load)(acc + 32 + s)), o = FN(sigmoid)(FN(load)(acc + 48 + s));
            V c = FMA(f, FN(load)(cp), i * g), h = o * FN(tanh)(c);
            FN(store)(cp, c);
            FN(store)(p->h_out + row * Hp + unit, h);
            FN(store_some)(p->y + row * j->a->T * H + unit, h, left);
            if (p->gates) {
                float *v = p->gates + row * 4 * H + unit;
                FN(store_some)(v, i, left);
                FN(store_some)(v + H, f, left);
                FN(store_some)(v + 2 * H, g, left);
                FN(store_some)(v + 3 * H, o, left);
                FN(store_some)(p->cells + row * H + unit, c, left);
            }
        }
}

static LSTM_TARGET void FN(step_rows)(const lstm_forward_job *j, const FN(step) *p, int64_t n)
{
    float acc[LSTM_TILE * 64] __attribute__((aligned(64)));
    int64_t F = j->a->F, H = j->a->H;
    lstm_product x = {.acc = acc, .ra = j->a->xb, .ka = 1, .wk = 64, .n = F, .outer = 1}, h = {.acc = acc, .ra = j->Hp, .ka = 1, .wk = 64, .n = H, .outer = 1};
    for (int64_t ub = 0; ub < j->blocks; ub++)
        for (int64_t row = 0; row < n;) {
            int rows = FN(tile_rows)(n - row);
            for (int r = 0; r < rows; r++) memcpy(acc + r * 64, p->start + (row + r) * p->start_row + ub * 64, 256);
            if (p->x) {
                x.a = p->x + row * j->a->xb, x.w = j->w + ub * F * 64;
                FN(multiply_table)[rows - 1][3](&x);
            }
            if (p->h) {
                h.a = p->h + row * j->Hp, h.w = j->r + ub * H * 64;
                FN(multiply_table)[rows - 1][3](&h);
            }
            FN(activate)(j, p, acc, rows, ub, row);
            row += rows;
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
        FN(step_rows)(j, &p, rows);
    }
    for (int64_t b = 0; b < rows; b++) {
        memcpy((float *)a->hn + (b0 + b) * H, h[T & 1] + b * Hp, (size_t)H * 4);
        memcpy((float *)a->cn + (b0 + b) * H, c + b * Hp, (size_t)H * 4);
    }
}

/* ---- backward ---- */

/* out rows (os floats apart) [columns] = d W for the n rows of d [blocks][N][64] that lie ds floats apart; w: packed panels of 64 columns, all but the last full. */
static LSTM_TARGET void FN(product)(const lstm_backward_job *j, const float *d, int64_t ds, int64_t n, const float *w, float *out, int64_t os, int64_t columns)
{
    float acc[LSTM_TILE * 64] __attribute__((aligned(64)));
    for (int64_t first = 0; first < columns; first += 64) {
        int64_t left = columns - first < 64 ? columns - first : 64, nv = (left + 15) / 16;
        lstm_product p = {.acc = acc, .ra = ds, .ka = 1, .ao = j->N * 64, .w = w + j->blocks * 64 * first, .wk = nv * 16, .wo = nv * 16 * 64, .n = 64, .outer = j->blocks};
        for (int64_t i = 0; i < n;) {
            int rows = FN(tile_rows)(n - i);
            memset(acc, 0, (size_t)rows * 256);
            p.a = d + i * ds;
            FN(multiply_table)[rows - 1][nv - 1](&p);
            for (int r = 0; r < rows; r++) memcpy(out + (i + r) * os + first, acc + r * 64, (size_t)left * 4);
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
                if (u % 16 == 0 && b + 1 < b1) /* rows of d lie T apart: fetch the next one ahead */
                    for (int line = 0; line < 4; line++) __builtin_prefetch(d + T * 64 + line * 16, 1);
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
static LSTM_TARGET void FN(weight_rows)(const lstm_backward_job *j, int64_t ub, int64_t f, int rows, int64_t b0, int64_t b1, float *sum)
{
    const lbr_lstm *a = j->a;
    int64_t T = a->T, H = a->H;
    const float *d = j->d + (ub * j->N + b0 * T) * 64;
    lstm_product p = {.acc = sum, .ra = 1, .w = d, .wk = 64, .wo = T * 64, .outer = b1 - b0};
    if (f < a->F) {
        p.a = (const float *)a->x + b0 * a->xb + f, p.ka = a->xt, p.ao = a->xb, p.n = T;
        if (a->xb == T * a->xt) p.n *= p.outer, p.outer = 1;
    } else {
        f -= a->F;
        if (a->h0) {
            p.a = (const float *)a->h0 + b0 * H + f, p.ao = H, p.n = 1;
            FN(multiply_table)[rows - 1][3](&p);
        }
        p.a = (const float *)a->y + b0 * T * H + f, p.ka = H, p.ao = T * H, p.w = d + 64, p.n = T - 1;
    }
    FN(multiply_table)[rows - 1][3](&p);
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
            FN(weight_rows)(j, ub, f, rows, b0, b1, sum + (f - f0) * 64);
            f += rows;
        }
    }
    for (int64_t from = f0; from < f1; from += 16)
        for (int64_t i = 0; i < 64; i++) {
            int64_t u = ub * 16 + i % 16, row = i / 16 * H + u, to = from + 16 < f1 ? from + 16 : f1;
            if (u >= H) continue;
            float *dw = (float *)j->g->dw + row * F, *dr = (float *)j->g->dr + row * H - F;
            if (from == 0) ((float *)j->g->db)[row] = scratch[i];
            for (int64_t f = from; f < to; f++) (f < F ? dw : dr)[f] = sum[(f - f0) * 64 + i];
        }
}

#undef LSTM_JOIN2
#undef LSTM_JOIN
#undef FN
#undef V
#undef VU
#undef VI
#undef INLINE
#undef LSTM_MULTIPLY
#undef LSTM_MULTIPLY_ROW
#undef LSTM_MULTIPLY_NAMES
#undef LSTM_SUFFIX
#undef LSTM_TARGET
#undef LSTM_VL
#undef LSTM_TILE
#undef SPLAT
#undef FMA
#undef VMIN
#undef VMAX
#undef RECIPROCAL
#undef KEEP
