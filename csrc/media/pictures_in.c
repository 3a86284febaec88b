/* pictures_in.c: a list of picture files as a producer of frames, decoded by several workers at once. Which files and in what order: the caller's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/cpu.h>
#include "internal.h"

struct pictures {
    char *names;               /* count strings, each ended by a zero byte */
    const char **paths;
    int64_t count, first, end; /* delivered: first <= i < end */
    double fps;
    pthread_mutex_t lock;
    int width, height;         /* upright size of the first picture decoded at position first; 0 before */
};

/* First i with i / fps >= seconds. */
static int64_t position(const struct pictures *p, double seconds)
{
    double i = ceil((seconds - LBR_TIME_SLACK) * p->fps);
    return i <= 0 ? 0 : i >= (double)p->count ? p->count : (int64_t)i;
}

static int produce(void *state, int64_t ticket, struct lbr_frame *picture)
{
    struct pictures *p = state;
    int64_t i = p->first + ticket;
    if (i >= p->end) return LBR_EEND;
    int status = lbr_picture_decode("picture", p->paths[i], picture);
    if (status != LBR_OK) return status;
    int width = picture->orientation & 1 ? picture->height : picture->width, height = picture->orientation & 1 ? picture->width : picture->height;
    pthread_mutex_lock(&p->lock);
    if (p->width == 0) p->width = width, p->height = height;   /* the queue starts with one place: this is the first picture */
    bool same = width == p->width && height == p->height;
    pthread_mutex_unlock(&p->lock);
    picture->time = (double)i / p->fps;
    return same ? LBR_OK : lbr_fail(LBR_EFORMAT, "picture: %s is %d x %d, want %d x %d as the first of the folder", p->paths[i], width, height, p->width, p->height);
}

static int seek(void *state, double seconds)
{
    struct pictures *p = state;
    p->first = position(p, seconds);
    return LBR_OK;
}

static void describe(void *state, lbr_source_info *info)
{
    struct pictures *p = state;
    info->fps = p->fps;
    info->duration = (double)p->count / p->fps;
    info->frames = p->end - p->first;
    snprintf(info->codec, sizeof info->codec, "pictures");
}

static void close_pictures(void *state)
{
    struct pictures *p = state;
    pthread_mutex_destroy(&p->lock);
    free(p->names);
    free(p->paths);
    free(p);
}

static const struct lbr_producer producer = { produce, seek, describe, NULL, NULL, close_pictures };

int lbr_pictures_open(const char *paths, int64_t count, const lbr_source_options *options, lbr_source **out)
{
    *out = NULL;
    if (count < 1) return lbr_fail(LBR_EINVAL, "pictures_open: no pictures");
    if (options->fps < 0 || !isfinite(options->fps)) return lbr_fail(LBR_EINVAL, "pictures_open: fps is %g, want a positive number", options->fps);
    size_t bytes = 0;
    for (int64_t i = 0; i < count; i++) bytes += strlen(paths + bytes) + 1;
    struct pictures *p = calloc(1, sizeof *p);
    if (p) {
        pthread_mutex_init(&p->lock, NULL);
        p->names = malloc(bytes);
        p->paths = malloc((size_t)count * sizeof *p->paths);
    }
    if (!p || !p->names || !p->paths) {
        if (p) close_pictures(p);
        return lbr_fail(LBR_ENOMEM, "pictures_open: no memory");
    }
    memcpy(p->names, paths, bytes);
    const char *name = p->names;
    for (int64_t i = 0; i < count; i++, name += strlen(name) + 1) p->paths[i] = name;
    p->count = count;
    p->fps = options->fps > 0 ? options->fps : 25;
    p->first = position(p, options->start);
    p->end = options->stop > 0 ? position(p, options->stop) : count;
    int workers = options->threads > 0 ? options->threads : av_cpu_count();
    return lbr_source_make("pictures_open", p->paths[0], &producer, p, workers, options, out);
}
