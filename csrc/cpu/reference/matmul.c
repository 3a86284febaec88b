/* matmul.c: the slow twins of matmul and linear, accumulated in double. */
#include "reference.h"

int lbr_reference_matmul(lbr_call *c)
{
    const lbr_matmul_attr *attr = c->attr;
    const lbr_tensor *a = &c->in[0], *b = &c->in[1];
    lbr_tensor *y = &c->out[0];
    int64_t m = y->shape[y->ndim - 2], n = y->shape[y->ndim - 1], k = a->shape[a->ndim - 1 - (attr->ta != 0)], batch = 1;
    for (int i = 0; i < y->ndim - 2; i++) batch *= y->shape[i];
    for (int64_t p = 0; p < batch; p++) {
        int64_t a0 = p * m * k, b0 = b->ndim == 2 ? 0 : p * k * n, y0 = p * m * n;
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t q = 0; q < k; q++) sum += lbr_at(a, a0 + (attr->ta ? q * m + i : i * k + q)) * lbr_at(b, b0 + (attr->tb ? j * k + q : q * n + j));
                lbr_put(y, y0 + i * n + j, sum);
            }
    }
    return 0;
}

int lbr_reference_linear(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    int act = ((const lbr_linear_attr *)c->attr)->act;
    int64_t k = w->shape[1], n = w->shape[0], m = n ? lbr_tensor_numel(&c->out[0]) / n : 0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = lbr_present(b) ? lbr_at(b, j) : 0;
            for (int64_t q = 0; q < k; q++) sum += lbr_at(x, i * k + q) * lbr_at(w, j * k + q);
            lbr_put(&c->out[0], i * n + j, lbr_activated(act, sum));
        }
    return 0;
}
