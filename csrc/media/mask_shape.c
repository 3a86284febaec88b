/* mask_shape.c: which pixels a mask covers: ellipses, boxes and polygons as rows of a coverage map, faded outside. Changes no picture. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

enum { STRAIGHT = 5, DIAGONAL = 7, MOST_FEATHER = 1000 };   /* lengths of a step in the distance map; pixels */

#define FAR 1e6

static int refuse(int64_t i, const char *what, double value, const char *want)
{
    return lbr_fail(LBR_EINVAL, "mask: mask %lld: %s is %g, want %s", (long long)i + 1, what, value, want);
}

static int check(const lbr_mask *m, int64_t i)
{
    if (m->shape < LBR_MASK_ELLIPSE || m->shape > LBR_MASK_POLYGON) return refuse(i, "shape", m->shape, "an ellipse, a box or a polygon");
    if (m->style < LBR_STYLE_BLUR || m->style > LBR_STYLE_BOX) return refuse(i, "style", m->style, "blur, mosaic or box");
    if (m->shape == LBR_MASK_POLYGON) {
        if (!m->points || m->point_count < 3 || m->point_count > LBR_MASK_POINTS) return refuse(i, "its number of points", m->point_count, "3 to 4096");
        for (int k = 0; k < 2 * m->point_count; k++)
            if (!(fabs(m->points[k]) <= FAR)) return refuse(i, k & 1 ? "y of a point" : "x of a point", m->points[k], "a number within 1e6 pixels");
    } else {
        const struct { const char *name; double value, least; } numbers[] = {
            { "x", m->x, -FAR }, { "y", m->y, -FAR }, { "width", m->width, DBL_MIN }, { "height", m->height, DBL_MIN }, { "angle", m->angle, -FAR },
        };
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            if (!(numbers[k].value >= numbers[k].least && numbers[k].value <= FAR))
                return refuse(i, numbers[k].name, numbers[k].value, numbers[k].least > 0 ? "more than 0 and at most 1e6 pixels" : "a number within 1e6");
    }
    if (!(m->feather >= 0 && m->feather <= MOST_FEATHER)) return refuse(i, "feather", m->feather, "0 to 1000 pixels");
    if (m->style == LBR_STYLE_BOX || (m->strength >= 0.125 && m->strength <= 1)) return LBR_OK;
    if (m->style == LBR_STYLE_BLUR && m->strength >= 0 && m->strength < 0.125)
        return refuse(i, "strength of the blur", m->strength, "at least 0.125 of its longer side: a weaker blur can be undone");
    return refuse(i, "strength", m->strength, m->style == LBR_STYLE_MOSAIC ? "0.125 to 1 of its longer side: smaller blocks let a face be known" : "0.125 to 1");
}

int lbr_mask_check(const lbr_mask *masks, int64_t count)
{
    int status = LBR_OK;
    for (int64_t i = 0; i < count && status == LBR_OK; i++) status = check(&masks[i], i);
    return status;
}

lbr_mask *lbr_mask_copy(const lbr_mask *masks, int64_t count)
{
    size_t points = 0;
    for (int64_t i = 0; i < count; i++)
        if (masks[i].shape == LBR_MASK_POLYGON) points += 2 * (size_t)masks[i].point_count;
    lbr_mask *copy = malloc((size_t)count * sizeof *copy + points * sizeof(double));
    if (!copy) return NULL;
    memcpy(copy, masks, (size_t)count * sizeof *copy);
    double *to = (double *)(copy + count);
    for (int64_t i = 0; i < count; i++) {
        if (masks[i].shape != LBR_MASK_POLYGON) continue;
        size_t n = 2 * (size_t)masks[i].point_count;
        memcpy(to, masks[i].points, n * sizeof *to);
        copy[i].points = to;
        to += n;
    }
    return copy;
}

int lbr_room_for(void *buffer, size_t *capacity, size_t bytes)
{
    if (bytes <= *capacity) return LBR_OK;
    void **slot = buffer;
    free(*slot);
    *capacity = 0;
    *slot = malloc(bytes);
    if (!*slot) return lbr_fail(LBR_ENOMEM, "mask: no memory for %zu bytes", bytes);
    *capacity = bytes;
    return LBR_OK;
}

void lbr_mask_room_release(struct lbr_mask_room *room)
{
    void *all[] = { room->alpha, room->line, room->distance, room->effect, room->grid, room->spare };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    memset(room, 0, sizeof *room);
}

/* ---- places ---- */

static void stored_point(int orientation, double width, double height, double x, double y, double *u, double *v)
{
    double a = x, b = y;
    switch (orientation & 3) {
    case 1: a = y, b = height - x; break;
    case 2: a = width - x, b = height - y; break;
    case 3: a = width - y, b = x; break;
    }
    *u = orientation & 4 ? width - a : a;
    *v = b;
}

lbr_mask lbr_mask_stored(const lbr_mask *mask, int orientation, int width, int height, double *points)
{
    lbr_mask m = *mask;
    stored_point(orientation, width, height, mask->x, mask->y, &m.x, &m.y);
    m.angle = mask->angle - (orientation & 3) * M_PI_2;
    if (orientation & 4) m.angle = -m.angle;
    if (mask->shape == LBR_MASK_POLYGON) {
        for (int k = 0; k < mask->point_count; k++)
            stored_point(orientation, width, height, mask->points[2 * k], mask->points[2 * k + 1], &points[2 * k], &points[2 * k + 1]);
        m.points = points;
    }
    return m;
}

struct bounds {
    double left, top, right, bottom;
};

static struct bounds around(const double *points, int count)
{
    struct bounds b = { points[0], points[1], points[0], points[1] };
    for (int k = 1; k < count; k++) {
        b.left = fmin(b.left, points[2 * k]);
        b.right = fmax(b.right, points[2 * k]);
        b.top = fmin(b.top, points[2 * k + 1]);
        b.bottom = fmax(b.bottom, points[2 * k + 1]);
    }
    return b;
}

double lbr_mask_side(const lbr_mask *mask)
{
    if (mask->shape != LBR_MASK_POLYGON) return fmax(mask->width, mask->height);
    struct bounds b = around(mask->points, mask->point_count);
    return fmax(b.right - b.left, b.bottom - b.top);
}

/* ---- rows ---- */

/* Pixels of a row whose centres lie from left to right, both in pixels of the map. */
static void fill(uint8_t *row, int width, double left, double right)
{
    double first = ceil(left - 0.5), end = ceil(right - 0.5);
    int a = first < 0 ? 0 : first > width ? width : (int)first, b = end < 0 ? 0 : end > width ? width : (int)end;
    if (a < b) memset(row + a, 255, (size_t)(b - a));
}

static void ellipse_row(const lbr_mask *m, uint8_t *row, int width, double x0, double y)
{
    double c = cos(m->angle), s = sin(m->angle), a = fmax(m->width / 2, 0.5), b = fmax(m->height / 2, 0.5);
    double p = 1 / (a * a), q = 1 / (b * b), d = y - m->y;
    double A = c * c * p + s * s * q, B = d * c * s * (p - q), D = B * B - A * (d * d * (s * s * p + c * c * q) - 1);
    if (D <= 0) return;
    double middle = m->x - B / A - x0, half = sqrt(D) / A;
    fill(row, width, middle - half, middle + half);
}

struct crossing {
    double x;
    int turn;
};

static int by_x(const void *a, const void *b)
{
    const struct crossing *p = a, *q = b;
    return p->x < q->x ? -1 : p->x > q->x;
}

static void polygon_row(const double *points, int count, struct crossing *crossings, uint8_t *row, int width, double x0, double y)
{
    int n = 0;
    for (int k = 0; k < count; k++) {
        const double *p = points + 2 * k, *q = points + 2 * (k + 1 < count ? k + 1 : 0);
        if ((p[1] <= y) == (q[1] <= y)) continue;
        crossings[n++] = (struct crossing){ p[0] + (q[0] - p[0]) * ((y - p[1]) / (q[1] - p[1])) - x0, p[1] < q[1] ? 1 : -1 };
    }
    if (n > 2) qsort(crossings, (size_t)n, sizeof *crossings, by_x);
    else if (n == 2 && crossings[0].x > crossings[1].x) {
        struct crossing swap = crossings[0];
        crossings[0] = crossings[1];
        crossings[1] = swap;
    }
    for (int k = 0, winding = 0; k + 1 < n; k++) {
        winding += crossings[k].turn;
        if (winding != 0) fill(row, width, crossings[k].x, crossings[k + 1].x);
    }
}

/* ---- fading ---- */

static void nearer(uint16_t *to, unsigned distance)
{
    if (distance < *to) *to = (uint16_t)distance;
}

/* Distances from what is covered, by two passes over the map; then alpha falls from 255 to 0 over `feather` pixels. Source: Borgefors 1986. */
static void fade(uint8_t *alpha, uint16_t *d, int width, int height, double feather)
{
    unsigned end = (unsigned)ceil((feather + 1) * STRAIGHT);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)width * height; i++) d[i] = alpha[i] ? 0 : (uint16_t)end;
    for (int pass = 0; pass < 2; pass++) {
        ptrdiff_t across = pass ? -1 : 1, down = pass ? -width : width;
        uint16_t *row = pass ? d + (ptrdiff_t)width * height - 1 : d;
        for (int y = 0; y < height; y++, row += down)
            for (int x = 0; x < width; x++) {
                uint16_t *here = row + x * across;
                if (x > 0) nearer(here, here[-across] + STRAIGHT);
                if (y == 0) continue;
                nearer(here, here[-down] + STRAIGHT);
                if (x > 0) nearer(here, here[-down - across] + DIAGONAL);
                if (x + 1 < width) nearer(here, here[-down + across] + DIAGONAL);
            }
    }
    uint8_t share[(MOST_FEATHER + 1) * STRAIGHT + 1];
    for (unsigned i = 0; i <= end; i++) share[i] = (uint8_t)lrint(fmax(0, 255 - i * 255 / ((feather + 1) * STRAIGHT)));
    for (ptrdiff_t i = 0; i < (ptrdiff_t)width * height; i++) alpha[i] = share[d[i]];
}

/* floor(low) and ceil(high) at multiples of align, within 0 and limit. */
static void span(double low, double high, int align, int limit, int *first, int *length)
{
    int a = low <= 0 ? 0 : low >= limit ? limit : (int)low, b = high <= 0 ? 0 : high >= limit ? limit : (int)ceil(high);
    a -= a % align;
    b += (align - b % align) % align;
    if (b > limit) b = limit;
    *first = a;
    *length = b > a ? b - a : 0;
}

int lbr_mask_cover(const lbr_mask *m, int width, int height, int align_x, int align_y, struct lbr_mask_room *room, struct lbr_coverage *out)
{
    double c = cos(m->angle), s = sin(m->angle), corners[8], a = fmax(m->width / 2, 0.5), b = fmax(m->height / 2, 0.5);
    const double *points = corners;
    int count = 4;
    struct bounds box;
    if (m->shape == LBR_MASK_ELLIPSE) {
        double across = sqrt(a * a * c * c + b * b * s * s), down = sqrt(a * a * s * s + b * b * c * c);
        box = (struct bounds){ m->x - across, m->y - down, m->x + across, m->y + down };
    } else {
        for (int k = 0; k < 4; k++) {
            double u = k == 1 || k == 2 ? a : -a, v = k >= 2 ? b : -b;
            corners[2 * k] = m->x + u * c - v * s;
            corners[2 * k + 1] = m->y + u * s + v * c;
        }
        if (m->shape == LBR_MASK_POLYGON) points = m->points, count = m->point_count;
        box = around(points, count);
    }
    double margin = m->feather > 0 ? m->feather + 1 : 0;
    span(box.left - margin, box.right + margin, align_x, width, &out->x, &out->width);
    span(box.top - margin, box.bottom + margin, align_y, height, &out->y, &out->height);
    size_t area = (size_t)out->width * (size_t)out->height;
    out->alpha = NULL;
    if (area == 0) {
        out->width = 0;
        return LBR_OK;
    }
    struct crossing small[16], *crossings = small;
    int status = lbr_room_for(&room->alpha, &room->sizes[0], area);
    if (status == LBR_OK && m->feather > 0) status = lbr_room_for(&room->distance, &room->sizes[2], area * sizeof *room->distance);
    if (status == LBR_OK && count > 16 && !(crossings = malloc((size_t)count * sizeof *crossings))) status = lbr_fail(LBR_ENOMEM, "mask: no memory");
    if (status != LBR_OK) return status;
    memset(room->alpha, 0, area);
    for (int y = 0; y < out->height; y++) {
        uint8_t *row = room->alpha + (size_t)y * (size_t)out->width;
        if (m->shape == LBR_MASK_ELLIPSE) ellipse_row(m, row, out->width, out->x, out->y + y + 0.5);
        else polygon_row(points, count, crossings, row, out->width, out->x, out->y + y + 0.5);
    }
    if (crossings != small) free(crossings);
    if (m->feather > 0) fade(room->alpha, room->distance, out->width, out->height, m->feather);
    out->alpha = room->alpha;
    return LBR_OK;
}
