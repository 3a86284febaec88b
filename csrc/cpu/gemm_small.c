/* gemm_small.c: f32 matrix products too small to be worth oneDNN, whose first product costs 50 ms of code generation. One thread; larger ones are onednn.c's. */
#include "cpu.h"

enum { LANES = 16, ROWS = 4, MOST = 400000, PACKED = 4096 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

/* b as panels of 32 columns: panel [k][32], zeros beyond n. */
static void pack(int64_t n, int64_t k, const float *b, int64_t row, int64_t column, float *out)
{
    for (int64_t j = 0; j < n; j += 2 * LANES)
        for (int64_t p = 0; p < k; p++, out += 2 * LANES)
            for (int64_t q = 0; q < 2 * LANES; q++) out[q] = j + q < n ? b[p * row + (j + q) * column] : 0;
}

#define BLOCK(R)                                                                                                         \
    {                                                                                                                    \
        lanes acc[R][2] = {0};                                                                                           \
        for (int64_t p = 0; p < k; p++) {                                                                                \
            lanes b0 = *(const lanes *)(panel + p * 2 * LANES), b1 = *(const lanes *)(panel + p * 2 * LANES + LANES);    \
            for (int r = 0; r < R; r++) {                                                                                \
                float v = a[(i + r) * row + p * column];                                                                 \
                acc[r][0] += v * b0;                                                                                     \
                acc[r][1] += v * b1;                                                                                     \
            }                                                                                                            \
        }                                                                                                                \
        for (int r = 0; r < R; r++) memcpy(y + (i + r) * n + j, acc[r], sizeof(float) * (size_t)(n - j < 2 * LANES ? n - j : 2 * LANES)); \
    }

LBR_CLONES static void multiply(int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t column, const float *panels, float *y)
{
    for (int64_t j = 0; j < n; j += 2 * LANES) {
        const float *panel = panels + j * k;
        int64_t i = 0;
        for (; i + ROWS <= m; i += ROWS) BLOCK(ROWS)
        for (; i < m; i++) BLOCK(1)
    }
}

int lbr_gemm_small(int ta, int tb, int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *y)
{
    if (m * n * k > MOST || !m || !n || !k || (m < ROWS && n * k > PACKED)) return 1; /* few rows do not repay the packing */
    int64_t bytes = (n + 2 * LANES - 1) / (2 * LANES) * 2 * LANES * k * (int64_t)sizeof(float);
    float *panels = lbr_alloc(bytes);
    if (!panels) return 1;
    pack(n, k, b, tb ? 1 : n, tb ? k : 1, panels);
    multiply(m, n, k, a, ta ? 1 : k, ta ? m : 1, panels, y);
    lbr_free(panels, bytes);
    return 0;
}
