/* index.c: reading and writing by index: gather, scatter, the k best, what is not 0, non-maximum suppression. */
#include "cpu.h"

#include <stdlib.h>

static int check_index(const lbr_call *c, int64_t places)
{
    const int32_t *index = (const int32_t *)c->in[1].data;
    int64_t n = lbr_tensor_numel(&c->in[1]);
    for (int64_t i = 0; i < n; i++)
        if (index[i] < 0 || index[i] >= places)
            return lbr_fail(LBR_EINVAL, "%s: index %d at element %lld, there are %lld rows", lbr_op_name(c->op), index[i], (long long)i + 1, (long long)places);
    return 0;
}

/* Elements before and behind a dim. */
static int64_t before(const lbr_tensor *t, int dim)
{
    int64_t n = 1;
    for (int d = 0; d < dim; d++) n *= t->shape[d];
    return n;
}
static int64_t behind(const lbr_tensor *t, int dim)
{
    int64_t n = 1;
    for (int d = dim + 1; d < t->ndim; d++) n *= t->shape[d];
    return n;
}

/* ---- whole rows ---- */

struct rows {
    const char *x;
    char *y;
    const int32_t *index;
    int64_t n, places, bytes; /* indices, positions along the dim, bytes behind each */
};

static void move_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const struct rows *k = ctx;
    for (int64_t i = begin, at = begin % k->n, first = begin / k->n * k->places; i < end; i++) {
        const char *from = k->x + (first + k->index[at]) * k->bytes;
        if (k->bytes == 4) memcpy(k->y + i * 4, from, 4);
        else memcpy(k->y + i * k->bytes, from, (size_t)k->bytes);
        if (++at == k->n) at = 0, first += k->places;
    }
}

int lbr_cpu_gather(lbr_call *c)
{
    const lbr_tensor *x = &c->in[0];
    int dim = ((const lbr_gather_attr *)c->attr)->dim, rc = check_index(c, x->shape[dim]);
    if (rc) return rc;
    struct rows k = {x->data, c->out[0].data, (const int32_t *)c->in[1].data, lbr_tensor_numel(&c->in[1]), x->shape[dim], behind(x, dim) * lbr_dtype_size(x->dtype)};
    lbr_parallel(before(x, dim) * k.n, 1 + 32768 / (k.bytes + 16), move_rows, &k);
    return 0;
}

int lbr_cpu_gather_backward(lbr_call *c)
{
    const lbr_gather_backward_attr *a = c->attr;
    const lbr_tensor *dy = &c->in[0], *dx = &c->out[0];
    const int32_t *index = (const int32_t *)c->in[1].data;
    int64_t n = lbr_tensor_numel(&c->in[1]), total = lbr_tensor_numel(dx), row = behind(dx, a->dim), many = before(dx, a->dim);
    int rc = check_index(c, a->rows);
    if (rc) return rc;
    memset(dx->data, 0, (size_t)(total * lbr_dtype_size(dy->dtype)));
    for (int64_t i = 0; i < many * n; i++) {
        int64_t to = (i / n * a->rows + index[i % n]) * row;
        for (int64_t k = 0; k < row; k++) {
            if (dy->dtype == LBR_F64) ((double *)dx->data)[to + k] += ((const double *)dy->data)[i * row + k];
            else ((float *)dx->data)[to + k] += ((const float *)dy->data)[i * row + k];
        }
    }
    return 0;
}

/* ---- single elements ---- */

/* Place in x of the first element of row i of index (along its last dim), the index itself left out. */
static int64_t row_start(const lbr_tensor *x, const lbr_tensor *index, int dim, int64_t i)
{
    int last = x->ndim - 1;
    int64_t at = 0, step = x->shape[last];
    for (int d = last - 1; d >= 0; d--) {
        if (d != dim) at += i % index->shape[d] * step;
        i /= index->shape[d];
        step *= x->shape[d];
    }
    return at;
}

static void move_element(char *y, const char *x, int size)
{
    switch (size) {
    case 1: *y = *x; break;
    case 2: memcpy(y, x, 2); break;
    case 4: memcpy(y, x, 4); break;
    default: memcpy(y, x, 8);
    }
}

static void gather_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const lbr_call *c = ctx;
    const lbr_tensor *x = &c->in[0], *index = &c->in[1];
    int size = lbr_dtype_size(x->dtype), dim = ((const lbr_gather_elements_attr *)c->attr)->dim;
    int64_t n = index->shape[index->ndim - 1], step = behind(x, dim), across = dim < x->ndim - 1;
    for (int64_t row = begin; row < end; row++) {
        const int32_t *own = (const int32_t *)index->data + row * n;
        const char *from = x->data + row_start(x, index, dim, row) * size;
        char *to = c->out[0].data + row * n * size;
        for (int64_t j = 0; j < n; j++) move_element(to + j * size, from + (own[j] * step + j * across) * size, size);
    }
}

int lbr_cpu_gather_elements(lbr_call *c)
{
    int rc = check_index(c, c->in[0].shape[((const lbr_gather_elements_attr *)c->attr)->dim]);
    int64_t all = lbr_tensor_numel(&c->in[1]), n = c->in[1].shape[c->in[1].ndim - 1];
    if (!rc && all) lbr_parallel(all / n, 1 + 8192 / n, gather_range, c);
    return rc;
}

static double joined(int kind, double old, double value)
{
    switch (kind) {
    case 1: return old + value;
    case 2: return old * value;
    case 3: return value < old || value != value ? value : old;
    default: return value > old || value != value ? value : old;
    }
}

int lbr_cpu_scatter_elements(lbr_call *c)
{
    const lbr_scatter_elements_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0], *index = &c->in[1];
    int size = lbr_dtype_size(x->dtype), rc = check_index(c, x->shape[a->dim]);
    if (rc) return rc;
    int64_t all = lbr_tensor_numel(index), n = index->shape[index->ndim - 1], step = behind(x, a->dim), across = a->dim < x->ndim - 1;
    memcpy(c->out[0].data, x->data, (size_t)(lbr_tensor_numel(x) * size));
    for (int64_t row = 0; all && row < all / n; row++) {
        const int32_t *own = (const int32_t *)index->data + row * n;
        const char *from = c->in[2].data + row * n * size;
        char *line = c->out[0].data + row_start(x, index, a->dim, row) * size;
        for (int64_t j = 0; j < n; j++, from += size) {
            char *to = line + (own[j] * step + j * across) * size;
            double old, value;
            if (!a->kind) {
                move_element(to, from, size);
                continue;
            }
            lbr_load_f64(x->dtype, to, 1, 1, &old);
            lbr_load_f64(x->dtype, from, 1, 1, &value);
            old = joined(a->kind, old, value);
            lbr_store_f64(x->dtype, &old, 1, to, 1);
        }
    }
    return 0;
}

/* ---- the best first: candidates are compared by value, NaN the largest, equal ones by position ---- */

struct candidate { double value; int64_t at; };

static int best_first(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    bool na = isnan(a->value), nb = isnan(b->value);
    if (na != nb) return na ? -1 : 1;
    if (!na && a->value != b->value) return a->value > b->value ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

/* The worst of n stands on top of a heap; what stands there sinks to its place. */
static void sink(struct candidate *heap, int64_t n, int64_t i)
{
    struct candidate own = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && best_first(&heap[child + 1], &heap[child]) > 0) child++;
        if (best_first(&own, &heap[child]) >= 0) break;
        heap[i] = heap[child];
    }
    heap[i] = own;
}

int lbr_cpu_topk(lbr_call *c)
{
    const lbr_topk_attr *a = c->attr;
    const lbr_tensor *x = &c->in[0];
    int size = lbr_dtype_size(x->dtype);
    int64_t n = x->shape[a->dim], inner = behind(x, a->dim), lines = before(x, a->dim) * inner, k = a->k;
    if (!k || !lines) return 0;
    struct candidate *heap = malloc((size_t)k * sizeof *heap), next;
    if (!heap) return lbr_fail(LBR_ENOMEM, "topk: out of memory for %lld candidates", (long long)k);
    double sign = a->largest ? 1 : -1;
    for (int64_t line = 0; line < lines; line++) {
        const char *from = x->data + (line / inner * n * inner + line % inner) * size;
        int64_t to = line / inner * k * inner + line % inner;
        for (int64_t i = 0; i < n; i++) {
            lbr_load_f64(x->dtype, from + i * inner * size, 1, 1, &next.value);
            next.value = isnan(next.value) && !a->largest ? -INFINITY : next.value * sign, next.at = i;
            if (i < k) {
                heap[i] = next;
                if (i == k - 1)
                    for (int64_t j = k / 2; j >= 0; j--) sink(heap, k, j);
            } else if (best_first(&next, heap) < 0) {
                heap[0] = next;
                sink(heap, k, 0);
            }
        }
        qsort(heap, (size_t)k, sizeof *heap, best_first);
        for (int64_t i = 0; i < k; i++) {
            move_element(c->out[0].data + (to + i * inner) * size, from + heap[i].at * inner * size, size);
            ((int32_t *)c->out[1].data)[to + i * inner] = (int32_t)heap[i].at;
        }
    }
    free(heap);
    return 0;
}

static bool blank(const char *p, int64_t bytes)
{
    char any = 0;
    for (int64_t i = 0; i < bytes; i++) any |= p[i];
    return !any;
}

int lbr_cpu_nonzero(lbr_call *c)
{
    enum { BLOCK = 64 };
    const lbr_tensor *x = &c->in[0];
    int64_t n = lbr_tensor_numel(x), size = lbr_dtype_size(x->dtype);
    int32_t *index = (int32_t *)c->out[0].data, count = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        double block[BLOCK];
        int64_t m = n - first < BLOCK ? n - first : BLOCK;
        if (blank(x->data + first * size, m * size)) continue;
        lbr_load_f64(x->dtype, x->data + first * size, 1, m, block);
        for (int64_t i = 0; i < m; i++) {
            if (block[i] == 0) continue;
            int64_t rest = first + i;
            for (int d = x->ndim - 1; d >= 0; d--) {
                index[(int64_t)count * x->ndim + d] = (int32_t)(rest % x->shape[d]);
                rest /= x->shape[d];
            }
            count++;
        }
    }
    memset(index + (int64_t)count * x->ndim, 0, (size_t)((n - count) * x->ndim) * sizeof *index);
    *(int32_t *)c->out[1].data = count;
    return 0;
}

/* ---- non-maximum suppression ---- */

struct box { float y0, x0, y1, x1, area; };

static struct box box_of(const lbr_tensor *boxes, int64_t i, int centre)
{
    float b[4];
    struct box out;
    lbr_load_f32(boxes->dtype, boxes->data + i * 4 * lbr_dtype_size(boxes->dtype), 1, 4, b);
    if (centre) out = (struct box){.y0 = b[1] - b[3] / 2, .x0 = b[0] - b[2] / 2, .y1 = b[1] + b[3] / 2, .x1 = b[0] + b[2] / 2};
    else out = (struct box){.y0 = fminf(b[0], b[2]), .x0 = fminf(b[1], b[3]), .y1 = fmaxf(b[0], b[2]), .x1 = fmaxf(b[1], b[3])};
    out.area = (out.y1 - out.y0) * (out.x1 - out.x0);
    return out;
}

static inline bool overlap(const struct box *a, const struct box *b, float most)
{
    float h = (a->y1 < b->y1 ? a->y1 : b->y1) - (a->y0 > b->y0 ? a->y0 : b->y0), w = (a->x1 < b->x1 ? a->x1 : b->x1) - (a->x0 > b->x0 ? a->x0 : b->x0);
    float both = h * w;
    return h > 0 && w > 0 && both / (a->area + b->area - both) > most;
}

int lbr_cpu_nms(lbr_call *c)
{
    const lbr_nms_attr *a = c->attr;
    int64_t B = c->in[1].shape[0], C = c->in[1].shape[1], N = c->in[1].shape[2], most = a->most < N ? a->most : N, count = 0;
    int32_t *kept = (int32_t *)c->out[0].data;
    struct candidate *list = malloc((size_t)N * (sizeof *list + sizeof(struct box)) + 1);
    struct box *free_standing = (struct box *)(list + N); /* of this line */
    if (!list) return lbr_fail(LBR_ENOMEM, "nms: out of memory for %lld boxes", (long long)N);
    memset(kept, 0, (size_t)(B * C * most * 3) * sizeof *kept);
    for (int64_t line = 0; line < B * C; line++) {
        int64_t n = 0, first = count, boxes = line / C * N;
        for (int64_t i = 0; i < N; i++) {
            double score;
            lbr_load_f64(c->in[1].dtype, c->in[1].data + (line * N + i) * lbr_dtype_size(c->in[1].dtype), 1, 1, &score);
            if (score > a->score) list[n++] = (struct candidate){score, i};
        }
        qsort(list, (size_t)n, sizeof *list, best_first);
        for (int64_t i = 0; i < n && count - first < most; i++) {
            struct box own = box_of(&c->in[0], boxes + list[i].at, a->centre);
            bool hidden = false;
            for (int64_t j = 0; !hidden && j < count - first; j++) hidden = overlap(&own, &free_standing[j], (float)a->iou);
            if (hidden) continue;
            free_standing[count - first] = own;
            kept[count * 3] = (int32_t)(line / C), kept[count * 3 + 1] = (int32_t)(line % C), kept[count * 3 + 2] = (int32_t)list[i].at;
            count++;
        }
    }
    *(int32_t *)c->out[1].data = (int32_t)count;
    free(list);
    return 0;
}
