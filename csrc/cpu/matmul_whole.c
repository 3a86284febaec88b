/* matmul_whole.c: matrix products of i32, sums wrap around. Products of floating point numbers are onednn.c's. */
#include "cpu.h"

struct job {
    const int32_t *a, *b;
    int32_t *y;
    int64_t m, n, k, a_row, a_step, b_row, b_step, b_batch; /* elements from row to row and from column to column */
};

/* Rows of y, counted through all batches. */
LBR_CLONES static void rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        const int32_t *a = j->a + r / j->m * j->m * j->k + r % j->m * j->a_row, *b = j->b + r / j->m * j->b_batch;
        uint32_t *y = (uint32_t *)j->y + r * j->n;
        memset(y, 0, (size_t)j->n * sizeof *y);
        for (int64_t q = 0; q < j->k; q++) {
            const uint32_t v = (uint32_t)a[q * j->a_step], *from = (const uint32_t *)b + q * j->b_row;
            if (j->b_step == 1) for (int64_t i = 0; i < j->n; i++) y[i] += v * from[i];
            else for (int64_t i = 0; i < j->n; i++) y[i] += v * from[i * j->b_step];
        }
    }
}

int lbr_matmul_whole(lbr_call *c)
{
    const lbr_matmul_attr *attr = c->attr;
    const lbr_tensor *a = &c->in[0], *b = &c->in[1], *y = &c->out[0];
    int64_t m = y->shape[y->ndim - 2], n = y->shape[y->ndim - 1], k = a->shape[a->ndim - 1 - (attr->ta != 0)], all = lbr_tensor_numel(y);
    if (!all) return 0;
    struct job j = {(const int32_t *)a->data, (const int32_t *)b->data, (int32_t *)y->data, m, n, k,
                    attr->ta ? 1 : k, attr->ta ? m : 1, attr->tb ? 1 : n, attr->tb ? k : 1, b->ndim == 2 ? 0 : k * n};
    lbr_parallel(all / n, 1 + 65536 / (n * k + 1), rows, &j);
    return 0;
}
