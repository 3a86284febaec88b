/* lstm_kernel.h: the LSTM's inner loops over GCC vectors; lstm.c includes it once an instruction set. Not a header: it makes code. Knows no tensors and no threads.
 *
 * lstm.c sets before: LSTM_SUFFIX, LSTM_TARGET (function attribute), LSTM_VL (floats a vector: 4, 8, 16), LSTM_TILE (rows a register tile), LSTM_CHAINS (vectors
 * activated in step), LSTM_PAIR (rows of gates activated in step), SPLAT, FMA, VMIN, VMAX, RECIPROCAL,
 * KEEP (the value stays in a register). VMIN and VMAX(limit, x) keep a NaN x. All products go through `multiply`: tile rows x 4 vectors of accumulators, one weight row of
 * up to 64 floats a step. A panel of 64 columns is one block of 16 units with its 4 gates [4][16]; where LSTM_VL < 16 it is walked in slices of LSTM_VL units. */

#define FN(name) JOIN(name, LSTM_SUFFIX)
#define V FN(lstm_v)
#define VU FN(lstm_vu)
#define VI FN(lstm_vi)
#define INLINE static inline __attribute__((always_inline)) LSTM_TARGET

typedef float V __attribute__((vector_size(LSTM_VL * 4)));
typedef float VU __attribute__((vector_size(LSTM_VL * 4), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(LSTM_VL * 4)));

/* ---- activations: relative error below 3e-7, right at infinities, NaN passes ---- */

/* Several vectors go through these in step, so that the latency of one hides behind the others. */

/* scale = 2^k and p = expm1(rest) with x = k ln 2 + rest, |rest| <= ln 2 / 2; polynomial fitted for least relative error. x within +-87. */
INLINE void FN(expm1_parts)(const V *x, V *scale, V *p, const int n)
{
    V magic = SPLAT(12583039.0f); /* 1.5 * 2^23 + 127: rounds to an integer and leaves k + 127 in the low bits */
    V rest[LSTM_CHAINS];
    UNROLL
    for (int i = 0; i < n; i++) scale[i] = FMA(x[i], SPLAT(1.44269504f), magic);
    UNROLL
    for (int i = 0; i < n; i++) p[i] = scale[i] - magic;
    UNROLL
    for (int i = 0; i < n; i++) rest[i] = FMA(p[i], SPLAT(-0.693145752f), x[i]);
    UNROLL
    for (int i = 0; i < n; i++) rest[i] = FMA(p[i], SPLAT(-1.42860677e-6f), rest[i]);
    UNROLL
    for (int i = 0; i < n; i++) scale[i] = (V)((VI)scale[i] << 23);
    UNROLL
    for (int i = 0; i < n; i++) p[i] = FMA(rest[i], SPLAT(1.388252e-3f), SPLAT(8.366515e-3f));
    UNROLL
    for (int i = 0; i < n; i++) p[i] = FMA(p[i], rest[i], SPLAT(4.16672e-2f));
    UNROLL
    for (int i = 0; i < n; i++) p[i] = FMA(p[i], rest[i], SPLAT(1.6666543e-1f));
    UNROLL
    for (int i = 0; i < n; i++) p[i] = FMA(p[i], rest[i], SPLAT(4.9999997e-1f));
    UNROLL
    for (int i = 0; i < n; i++) p[i] = FMA(p[i], rest[i] * rest[i], rest[i]);
}

INLINE void FN(sigmoid)(V *x, const int n)
{
    V scale[LSTM_CHAINS], y[LSTM_CHAINS];
    UNROLL
    for (int i = 0; i < n; i++) x[i] = VMAX(SPLAT(-87.0f), VMIN(SPLAT(87.0f), -x[i]));
    FN(expm1_parts)(x, scale, y, n);
    UNROLL
    for (int i = 0; i < n; i++) scale[i] = FMA(scale[i], y[i], scale[i]) + SPLAT(1.0f);
    UNROLL
    for (int i = 0; i < n; i++) y[i] = RECIPROCAL(scale[i]);
    UNROLL
    for (int i = 0; i < n; i++) x[i] = FMA(y[i], FMA(-scale[i], y[i], SPLAT(1.0f)), y[i]);
}

INLINE void FN(tanh)(V *x, const int n)
{
    V scale[LSTM_CHAINS], y[LSTM_CHAINS];
    UNROLL
    for (int i = 0; i < n; i++) x[i] = VMAX(SPLAT(-20.0f), VMIN(SPLAT(20.0f), x[i] + x[i]));
    FN(expm1_parts)(x, scale, y, n);
    UNROLL
    for (int i = 0; i < n; i++) x[i] = FMA(scale[i], y[i], scale[i] - SPLAT(1.0f));
    UNROLL
    for (int i = 0; i < n; i++) scale[i] = x[i] + SPLAT(2.0f);
    UNROLL
    for (int i = 0; i < n; i++) y[i] = RECIPROCAL(scale[i]);
    UNROLL
    for (int i = 0; i < n; i++) {
        V q = x[i] * y[i];
        x[i] = FMA(y[i], FMA(-scale[i], q, x[i]), q);
    }
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

/* out[r][v*16..] = start[r][v*16..] + sum over k < n of a[r*ra + k*ka] * w[k*wk + v*16..], v < nv. A function of its own, so that nothing else competes for its registers. */
INLINE void FN(multiply)(const lstm_product *p, const int rows, const int nv)
{
    int64_t n = p->n, ra = p->ra, ka = p->ka, wk = p->wk, from = p->start_row, to = p->out_row;
    for (int s = 0; s < 16; s += LSTM_VL) {
        V acc[LSTM_TILE][4];
        const float *a = p->a, *w = p->w + s, *start = p->start + s;
        float *out = p->out + s;
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < nv; v++) acc[r][v] = FN(load)(start + r * from + v * 16);
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
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < nv; v++) FN(store)(out + r * to + v * 16, acc[r][v]);
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
    lstm_product p = {.out_row = j->G, .ra = xs, .ka = 1, .wk = 64, .n = j->a->F};
    for (int64_t ub = 0; ub < j->blocks; ub++) {
        p.w = j->w + ub * j->K * 64, p.start = j->bias + ub * 64;
        for (int64_t i = 0; i < n;) {
            int rows = FN(tile_rows)(n - i);
            p.a = x + i * xs, p.out = out + i * j->G + ub * 64;
            FN(multiply_table)[rows - 1][3](&p);
            i += rows;
        }
    }
}

typedef struct {
    const float *start; /* accumulators begin here: bias, or an input product */
    int64_t start_row;
    const float *in;    /* rows [K] of input and state, or of the state alone; NULL = nothing to add */
    const float *w;     /* what they are multiplied with, block by block K * 64 apart */
    int64_t n, row;     /* numbers a row, floats from row to row */
    float *h, *c;       /* new state, `row` apart; cell [Hp] */
    float *y, *gates, *cells;
} FN(step);

/* Sigmoid of i, f, o and tanh of g of `rows` rows z [rows][4][16], in place. */
INLINE void FN(activate_gates)(float *z, const int rows)
{
    V s[3 * LSTM_PAIR], g[LSTM_PAIR];
    UNROLL
    for (int r = 0; r < rows; r++) s[3 * r] = FN(load)(z + r * 64), s[3 * r + 1] = FN(load)(z + r * 64 + 16), s[3 * r + 2] = FN(load)(z + r * 64 + 48);
    FN(sigmoid)(s, 3 * rows);
    UNROLL
    for (int r = 0; r < rows; r++) FN(store)(z + r * 64, s[3 * r]), FN(store)(z + r * 64 + 16, s[3 * r + 1]), FN(store)(z + r * 64 + 48, s[3 * r + 2]);
    UNROLL
    for (int r = 0; r < rows; r++) g[r] = FN(load)(z + r * 64 + 32);
    FN(tanh)(g, rows);
    UNROLL
    for (int r = 0; r < rows; r++) FN(store)(z + r * 64 + 32, g[r]);
}

/* Gates, cell and state of `rows` rows of unit block ub from their sums acc [rows][4][16]. */
static LSTM_TARGET __attribute__((noinline)) void FN(activate)(const lstm_forward_job *j, const FN(step) *p, float *acc, int64_t rows, int64_t ub, int64_t row)
{
    int64_t H = j->a->H, Hp = j->Hp, unit = ub * 16, width = H - unit < 16 ? H - unit : 16;
    for (int s = 0; s < 16; s += LSTM_VL) {
        int64_t r = 0, left = H - unit - s;
        float *z = acc + s, *cell = p->c + row * Hp + unit + s;
        for (; r + LSTM_PAIR <= rows; r += LSTM_PAIR) FN(activate_gates)(z + r * 64, LSTM_PAIR);
        for (; r < rows; r++) FN(activate_gates)(z + r * 64, 1);
        for (r = 0; r < rows; r++) {
            V i = FN(load)(z + r * 64), f = FN(load)(z + r * 64 + 16), g = FN(load)(z + r * 64 + 32);
            V c = FMA(f, FN(load)(cell + r * Hp), i * g);
            FN(store)(cell + r * Hp, c);
            if (p->gates) {
                float *v = p->gates + (row + r) * 4 * H + unit * 4 + s;
                FN(store_some)(v, i, left);
                FN(store_some)(v + width, f, left);
                FN(store_some)(v + 2 * width, g, left);
                FN(store_some)(v + 3 * width, FN(load)(z + r * 64 + 48), left);
                FN(store_some)(p->cells + (row + r) * H + unit + s, c, left);
            }
        }
        for (r = 0; r < rows;) {
            V t[LSTM_CHAINS];
            int64_t n = rows - r < LSTM_CHAINS ? rows - r : LSTM_CHAINS;
            UNROLL
            for (int e = 0; e < LSTM_CHAINS; e++) t[e] = FN(load)(cell + (r + (e < n ? e : 0)) * Hp);
            FN(tanh)(t, LSTM_CHAINS);
            UNROLL
            for (int e = 0; e < LSTM_CHAINS; e++) {
                if (e >= n) break;
                V h = FN(load)(z + (r + e) * 64 + 48) * t[e];
                FN(store_some)(p->h + (row + r + e) * p->row + unit + s, h, left);
                FN(store_some)(p->y + (row + r + e) * j->a->T * H + unit + s, h, left);
            }
            r += n;
        }
    }
}

static LSTM_TARGET void FN(step_rows)(const lstm_forward_job *j, const FN(step) *p, int64_t n)
{
    enum { GROUP = 4 * LSTM_TILE };
    float acc[GROUP * 64] __attribute__((aligned(64)));
    int64_t H = j->a->H;
    lstm_product q = {.start_row = p->start_row, .out_row = 64, .ra = p->row, .ka = 1, .wk = 64, .n = p->in ? p->n : 0};
    for (int64_t ub = 0; ub < j->blocks; ub++)
        for (int64_t first = 0; first < n; first += GROUP) {
            int64_t end = first + GROUP < n ? first + GROUP : n;
            for (int64_t row = first; row < end;) {
                int rows = FN(tile_rows)(end - row);
                for (int64_t r = row; r < row + rows; r++) { /* far away: fetched while the product runs */
                    __builtin_prefetch(p->y + r * j->a->T * H + ub * 16, 1);
                    if (!p->gates) continue;
                    for (int line = 0; line < 4; line++) __builtin_prefetch(p->gates + r * 4 * H + ub * 64 + line * 16, 1);
                    __builtin_prefetch(p->cells + r * H + ub * 16, 1);
                }
                q.start = p->start + row * p->start_row + ub * 64, q.a = p->in + row * p->row, q.w = p->w + ub * j->K * 64, q.out = acc + (row - first) * 64;
                FN(multiply_table)[rows - 1][3](&q);
                row += rows;
            }
            FN(activate)(j, p, acc, end - first, ub, first);
        }
}

/* All steps of batch rows [b0, b1). scratch: rows * (2 * stride + Hp) floats of state, then the input products. */
static LSTM_TARGET void FN(forward_rows)(const lstm_forward_job *j, int64_t b0, int64_t b1, float *scratch)
{
    const lbr_lstm *a = j->a;
    int64_t T = a->T, F = a->F, H = a->H, Hp = j->Hp, rows = b1 - b0, stride = j->stride;
    float *in[2] = {scratch, scratch + rows * stride}, *c = scratch + 2 * rows * stride, *product = c + rows * Hp;
    const float *x = (const float *)a->x + b0 * a->xb;
    bool fused = j->mode == LSTM_FUSED;
    int64_t first = fused ? F : 0; /* where the state lies in a row of `in` */
    memset(c, 0, (size_t)(rows * Hp) * 4);
    for (int64_t b = 0; b < rows; b++) {
        if (a->h0) memcpy(in[0] + b * stride + first, (const float *)a->h0 + (b0 + b) * H, (size_t)H * 4);
        else memset(in[0] + b * stride + first, 0, (size_t)H * 4);
        if (a->c0) memcpy(c + b * Hp, (const float *)a->c0 + (b0 + b) * H, (size_t)H * 4);
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
        if (fused)
            for (int64_t b = 0; b < rows; b++) memcpy(in[t & 1] + b * stride, x + b * a->xb + t * a->xt, (size_t)F * 4);
        bool state = t > 0 || a->h0;
        FN(step) p = {
            .start = fused ? j->bias : product + t * start_step,
            .start_row = start_row,
            .in = fused || state ? in[t & 1] : NULL,
            .w = fused ? j->w : j->w + F * 64,
            .n = fused ? F + (state ? H : 0) : H,
            .row = stride,
            .h = in[~t & 1] + first,
            .c = c,
            .y = (float *)a->y + (b0 * T + t) * H,
            .gates = a->gates ? (float *)a->gates + at * 4 * H : NULL,
            .cells = a->gates ? (float *)a->cells + at * H : NULL,
        };
        FN(step_rows)(j, &p, rows);
    }
    for (int64_t b = 0; b < rows; b++) {
        memcpy((float *)a->hn + (b0 + b) * H, in[T & 1] + b * stride + first, (size_t)H * 4);
        memcpy((float *)a->cn + (b0 + b) * H, c + b * Hp, (size_t)H * 4);
    }
}

/* ---- backward ---- */

static const float FN(zeros)[64];

/* out row i at out + i * os, [columns] = d W for the n rows of d [n][G]; w: packed panels of 64 columns, all but the last full. */
static LSTM_TARGET void FN(product)(const lstm_backward_job *j, const float *d, int64_t n, const float *w, float *out, int64_t os, int64_t columns)
{
    float part[LSTM_TILE * 64] __attribute__((aligned(64)));
    for (int64_t first = 0; first < columns; first += 64) {
        int64_t left = columns - first < 64 ? columns - first : 64, nv = (left + 15) / 16;
        lstm_product p = {.start = FN(zeros), .ra = j->G, .ka = 1, .w = w + j->G * first, .wk = nv * 16, .n = j->G};
        for (int64_t i = 0; i < n;) {
            int rows = FN(tile_rows)(n - i);
            p.a = d + i * j->G;
            p.out = left % 16 ? part : out + i * os + first, p.out_row = left % 16 ? 64 : os;
            FN(multiply_table)[rows - 1][nv - 1](&p);
            for (int r = 0; left % 16 && r < rows; r++) memcpy(out + (i + r) * os + first, part + r * 64, (size_t)left * 4);
            i += rows;
        }
    }
}

/* Gate gradients of step t as rows d [G] and as blocks kept[ub] [64] a row; dh: of the state after the step; dc: of the cell after the step in, before it out. */
static LSTM_TARGET void FN(gate_gradients)(const lstm_backward_job *j, int64_t t, int64_t b0, int64_t rows, const float *dh, float *dc, float *d, float *kept)
{
    const lbr_lstm *a = j->a;
    const lbr_lstm_grad *q = j->g;
    int64_t H = a->H, Hp = j->Hp;
    V one = SPLAT(1.0f);
    for (int64_t b = b0; b < b0 + rows; b++, dh += Hp, dc += Hp, d += j->G, kept += 64) {
        const float *gates = (const float *)a->gates + (t * a->B + b) * 4 * H, *cells = (const float *)a->cells + (t * a->B + b) * H;
        const float *before = t > 0 ? cells - a->B * H : a->c0 ? (const float *)a->c0 + b * H : NULL;
        const float *dy = q->dy ? (const float *)q->dy + b * q->dyb + t * q->dyt : NULL;
        for (int64_t first = 0; first < Hp; first += LSTM_CHAINS * LSTM_VL) {
            V tc[LSTM_CHAINS];
            UNROLL
            for (int k = 0; k < LSTM_CHAINS; k++) tc[k] = FN(load_some)(cells + first + k * LSTM_VL, H - first - k * LSTM_VL);
            FN(tanh)(tc, LSTM_CHAINS);
            UNROLL
            for (int k = 0; k < LSTM_CHAINS; k++) {
                int64_t u = first + k * LSTM_VL, left = H - u, unit = u / 16 * 16, width = H - unit < 16 ? H - unit : 16;
                if (u >= Hp) break;
                const float *v = gates + unit * 4 + u % 16;
                V i = FN(load_some)(v, left), f = FN(load_some)(v + width, left), g = FN(load_some)(v + 2 * width, left);
                V o = FN(load_some)(v + 3 * width, left), e = FN(load)(dh + u);
                if (dy) e += FN(load_some)(dy + u, left);
                V du = FMA(e * o, one - tc[k] * tc[k], FN(load)(dc + u));
                V di = du * g * (i * (one - i)), df = before ? du * FN(load_some)(before + u, left) * (f * (one - f)) : SPLAT(0.0f);
                V dg = du * i * (one - g * g), go = e * tc[k] * (o * (one - o));
                float *to = d + u / 16 * 64 + u % 16, *keep = kept + u / 16 * j->span * j->rows * 64 + u % 16;
                FN(store)(dc + u, du * f);
                FN(store)(to, di), FN(store)(to + 16, df), FN(store)(to + 32, dg), FN(store)(to + 48, go);
                FN(store)(keep, di), FN(store)(keep + 16, df), FN(store)(keep + 32, dg), FN(store)(keep + 48, go);
            }
        }
    }
}

/* bias [G] (+)= sum of n rows of d [blocks][span*rows][64]; fresh: =. */
static LSTM_TARGET void FN(bias_gradients)(const lstm_backward_job *j, const float *d, int64_t n, float *bias, bool fresh)
{
    for (int64_t ub = 0; ub < j->blocks; ub++, d += j->span * j->rows * 64, bias += 64)
        for (int64_t i = 0; i < 64; i += LSTM_VL) {
            V s[2] = {fresh ? SPLAT(0.0f) : FN(load)(bias + i), SPLAT(0.0f)};
            for (int64_t k = 0; k < n; k++) s[k % 2] += FN(load)(d + k * 64 + i);
            FN(store)(bias + i, s[0] + s[1]);
        }
}

/* sums [G][ss] (+)= d^T in over n rows; d [blocks][span*rows][64], in [panels][span*rows][64] of `width` features; fresh: =. */
static LSTM_TARGET void FN(weight_gradients)(const lstm_backward_job *j, const float *d, const float *in, int64_t width, int64_t n, float *sums, int64_t ss, bool fresh)
{
    int64_t block = j->span * j->rows * 64;
    for (int64_t first = 0; first < width; first += 64, in += block) {
        int64_t left = width - first < 64 ? width - first : 64, nv = (left + 15) / 16;
        lstm_product p = {.start = FN(zeros), .out_row = ss, .ra = 1, .ka = 64, .w = in, .wk = 64, .n = n};
        for (int64_t ub = 0; ub < j->blocks; ub++)
            for (int64_t i = 0; i < 64;) {
                int rows = FN(tile_rows)(64 - i);
                p.a = d + ub * block + i, p.out = sums + (ub * 64 + i) * ss + first;
                if (!fresh) {
                    p.start = p.out, p.start_row = ss;
                    for (int r = 0; r < rows; r++)
                        for (int v = 0; v < nv; v++) __builtin_prefetch(p.out + (LSTM_TILE + r) * ss + v * 16, 1);
                }
                FN(multiply_table)[rows - 1][nv - 1](&p);
                i += rows;
            }
    }
}

/* A row of `width` numbers (NULL: zeros) into panels of 64, `block` floats apart, zeros up to the next multiple of 16. */
INLINE void FN(into_panels)(const float *row, int64_t width, float *to, int64_t block)
{
    for (int64_t i = 0; i < width; i += LSTM_VL) FN(store)(to + i / 64 * block + i % 64, row ? FN(load_some)(row + i, width - i) : SPLAT(0.0f));
    for (int64_t i = (width + LSTM_VL - 1) / LSTM_VL * LSTM_VL; i % 16; i += LSTM_VL) FN(store)(to + i / 64 * block + i % 64, SPLAT(0.0f));
}

/* Inputs of the steps [begin, end) of batch rows from b0 on and the states before these steps, in panels of 64: x, h [panels][span*rows][64]. */
static LSTM_TARGET void FN(gather_inputs)(const lstm_backward_job *j, int64_t b0, int64_t rows, int64_t begin, int64_t end, float *x, float *h)
{
    const lbr_lstm *a = j->a;
    int64_t F = a->F, H = a->H, T = a->T, block = j->span * j->rows * 64;
    for (int64_t t = begin; t < end; t++)
        for (int64_t b = b0; b < b0 + rows; b++, x += 64, h += 64) {
            FN(into_panels)((const float *)a->x + b * a->xb + t * a->xt, F, x, block);
            FN(into_panels)(t > 0 ? (const float *)a->y + (b * T + t - 1) * H : a->h0 ? (const float *)a->h0 + b * H : NULL, H, h, block);
        }
}

/* Batch rows [b0, b1): dx, dh0, dc0, and their share of the weight gradients into sums [G][sw], [G][sr], [G].
 * scratch: rows * (2 * Hp + G) floats, then span * rows rows of gate gradients [G], of inputs [F rounded up to 64] and of states [H rounded up to 64]. */
static LSTM_TARGET void FN(backward_rows)(const lstm_backward_job *j, int64_t b0, int64_t b1, float *sums, float *scratch)
{
    const lbr_lstm *a = j->a;
    const lbr_lstm_grad *q = j->g;
    int64_t T = a->T, F = a->F, H = a->H, Hp = j->Hp, rows = b1 - b0;
    float *dh = scratch, *dc = dh + j->rows * Hp, *d = dc + j->rows * Hp, *kept = d + j->rows * j->G;
    float *x = kept + j->span * j->rows * j->G, *h = x + j->span * j->rows * ((F + 63) / 64 * 64);
    memset(dh, 0, (size_t)(2 * j->rows * Hp) * 4);
    for (int64_t b = 0; b < rows; b++) {
        if (q->dhn) memcpy(dh + b * Hp, (const float *)q->dhn + (b0 + b) * H, (size_t)H * 4);
        if (q->dcn) memcpy(dc + b * Hp, (const float *)q->dcn + (b0 + b) * H, (size_t)H * 4);
    }
    for (int64_t end = T, begin; end > 0; end = begin) {
        begin = end > j->span ? end - j->span : 0;
        for (int64_t t = end - 1; t >= begin; t--) {
            FN(gate_gradients)(j, t, b0, rows, dh, dc, d, kept + (t - begin) * rows * 64);
            FN(product)(j, d, rows, j->r, dh, Hp, Hp);
            if (q->dx) FN(product)(j, d, rows, j->w, (float *)q->dx + (b0 * T + t) * F, T * F, F);
        }
        int64_t n = (end - begin) * rows;
        FN(gather_inputs)(j, b0, rows, begin, end, x, h);
        FN(weight_gradients)(j, kept, x, F, n, sums, j->sw, end == T);
        FN(weight_gradients)(j, kept, h, H, n, sums + j->G * j->sw, j->sr, end == T);
        FN(bias_gradients)(j, kept, n, sums + j->G * (j->sw + j->sr), end == T);
    }
    for (int64_t b = 0; b < rows; b++) {
        memcpy((float *)q->dh0 + (b0 + b) * H, dh + b * Hp, (size_t)H * 4);
        memcpy((float *)q->dc0 + (b0 + b) * H, dc + b * Hp, (size_t)H * 4);
    }
}

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
#undef LSTM_CHAINS
#undef LSTM_PAIR
#undef SPLAT
#undef FMA
#undef VMIN
#undef VMAX
#undef RECIPROCAL
#undef KEEP
