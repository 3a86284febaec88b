/* boxes.c: a single-shot detector's answer as detections: decoding, weighted suppression. The numbers of one box are boxes.h's. */
#include "cpu.h"

#include "../boxes.h"

#include <stdlib.h>

struct found { float score; int32_t place; };

static int best_first(const void *a, const void *b)
{
    const struct found *p = a, *q = b;
    if (p->score != q->score) return p->score > q->score ? -1 : 1;
    return p->place < q->place ? -1 : 1;
}

/* The detections of one picture: best first, at most `most`, K + 1 numbers each; returns how many. list, boxes [N,K]: room. */
static int32_t suppress(const lbr_ssd_detections_attr *a, const float *boxes, const float *scores, const float *anchors, int32_t N, int32_t K, struct found *list, float *decoded, float *y)
{
    int32_t n = 0, kept = 0;
    for (int32_t i = 0; i < N; i++) {
        const float score = lbr_box_score(scores[i]);
        if (score >= a->least) list[n++] = (struct found){score, i};
    }
    qsort(list, (size_t)n, sizeof *list, best_first);
    for (int32_t j = 0; j < n; j++) lbr_box_decode(boxes + (int64_t)list[j].place * K, K, anchors + 2 * list[j].place, (float)a->size, decoded + (int64_t)j * K);
    for (int32_t first = 0; first < n && kept < a->most; first++) {
        if (list[first].place < 0) continue; /* went into a better one */
        float *mean = y + (int64_t)kept++ * (K + 1), weight = 0;
        for (int32_t j = first; j < n; j++) {
            const float *d = decoded + (int64_t)j * K;
            if (list[j].place < 0 || !(j == first || lbr_box_iou(decoded + (int64_t)first * K, d) > a->iou)) continue;
            weight += list[j].score;
            for (int32_t k = 0; k < K; k++) mean[k] += d[k] * list[j].score;
            list[j].place = -1;
        }
        for (int32_t k = 0; k < K; k++) mean[k] /= weight;
        mean[K] = list[first].score;
    }
    return kept;
}

int lbr_cpu_ssd_detections(lbr_call *c)
{
    const lbr_ssd_detections_attr *a = c->attr;
    const int32_t B = c->in[0].shape[0], N = c->in[0].shape[1], K = c->in[0].shape[2];
    const int64_t each = (int64_t)a->most * (K + 1);
    float *y = (float *)c->out[0].data;
    struct found *list = malloc((size_t)N * (sizeof *list + (size_t)K * sizeof(float)) + 1);
    if (!list) return lbr_fail(LBR_ENOMEM, "ssd_detections: out of memory for %d boxes", N);
    memset(y, 0, (size_t)(B * each) * sizeof *y);
    for (int32_t b = 0; b < B; b++)
        suppress(a, (const float *)c->in[0].data + (int64_t)b * N * K, (const float *)c->in[1].data + (int64_t)b * N, (const float *)c->in[2].data, N, K, list, (float *)(list + N), y + b * each);
    free(list);
    return 0;
}
