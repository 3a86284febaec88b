/* transcode_open.c: opening a transcode: its first frame, what its output keeps, the size of its ring. Running it: transcode.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/cpu.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include "transcode.h"

enum { MOST_QUEUE = 64, LEAST = 4, USUAL = 16, SPARE = 10, RING_BYTES = 512 << 20 };

static int first_frame(lbr_transcode *t)
{
    struct lbr_decoder *d = &t->decoder;
    int code = lbr_decoder_next(d);
    if (code == AVERROR_EXIT) return lbr_fail(LBR_EINTR, "%s: interrupted", t->name);
    if (code == AVERROR_EOF)
        return lbr_fail(LBR_EFORMAT, "video_open: %s: no frame of the %s video could be decoded", t->name, avcodec_get_name(d->context->codec_id));
    if (code < 0) return lbr_fail(lbr_ffmpeg_status(code), "%s: %s", t->name, lbr_ffmpeg_text(code));
    t->first = true;
    t->base = d->format->streams[d->stream]->time_base;
    t->origin = llrint(d->origin / av_q2d(t->base));
    t->shift = d->origin >= 0 && d->origin <= 1 ? 0 : t->origin;   /* a stream cut out of a broadcast begins at any hour */
    bool exact;
    t->orientation = lbr_turn_of_frame(d->frame, d->format->streams[d->stream], &exact);
    if (!exact) lbr_decoder_warn(d, "its display matrix turns by an angle that is no quarter turn; the picture is left as stored");
    return LBR_OK;
}

static int open_output(lbr_transcode *t, const lbr_transcode_options *o)
{
    const AVFrame *f = t->decoder.frame;
    AVFormatContext *input = t->decoder.format;
    AVStream *stream = input->streams[t->decoder.stream];
    const AVOutputFormat *guess = av_guess_format(NULL, o->output, NULL);
    if (guess && strcmp(guess->name, "matroska") != 0 && strcmp(guess->name, "mp4") != 0 && strcmp(guess->name, "mov") != 0)
        return lbr_fail(LBR_EINVAL, "transcode: %s: want a name that ends in .mp4, .mkv or .mov", o->output);
    bool turned = t->orientation && guess && strcmp(guess->name, "matroska") == 0;   /* it has no display matrix: the frames are turned instead */
    AVRational rate = av_guess_frame_rate(input, stream, NULL), aspect = av_guess_sample_aspect_ratio(input, stream, NULL);
    if (turned && t->orientation & 1) aspect = av_inv_q(aspect);
    enum AVPixelFormat format = o->format ? av_get_pix_fmt(o->format) : lbr_planes_format(f->format);
    if (format == AV_PIX_FMT_NONE) return lbr_fail(LBR_EINVAL, "transcode: format is \"%s\", which is no pixel format of FFmpeg", o->format);
    int cores = av_cpu_count(), threads = o->threads > 0 ? o->threads : cores * 3 / 2;
    int32_t matrix[9];
    bool shown = !turned && lbr_turn_matrix(f, stream, matrix);
    struct lbr_encoder_options options = {
        .width = turned && t->orientation & 1 ? f->height : f->width, .height = turned && t->orientation & 1 ? f->width : f->height,
        .format = format, .base = t->base, .rate = rate.num > 0 && rate.den > 0 ? rate : (AVRational){ 25, 1 },
        .aspect = aspect.num > 0 && aspect.den > 0 ? aspect : (AVRational){ 0, 1 }, .range = lbr_planes_range(f), .space = lbr_planes_space(f),
        .primaries = f->color_primaries, .transfer = f->color_trc, .chroma = f->chroma_location, .crf = o->crf,
        .threads = threads > 16 ? 16 : threads, .preset = o->preset, .matrix = shown ? matrix : NULL, .exact = true,
    };
    t->info.threads = options.threads;
    t->planes.turn = turned ? t->orientation : 0;
    if (turned) t->orientation = 0;
    int status = lbr_encoder_open(&t->encoder, o->output, &options);
    if (status != LBR_OK) return status;
    t->planes.format = t->encoder.context->pix_fmt;
    t->planes.padded_width = t->encoder.context->width;
    t->planes.padded_height = t->encoder.context->height;
    for (unsigned i = 0; i < input->nb_streams && o->sound != LBR_SOUND_DROP; i++)
        if (lbr_keep_sound(input->streams[i])) {
            struct lbr_audio_options sound = { .stream = (int)i, .in_place = t->shift == 0, .distort = o->sound == LBR_SOUND_DISTORT, .exact = true };
            lbr_encoder_sound(&t->encoder, t->name, &sound);
        }
    t->info.sounds = t->encoder.audio_count;
    return lbr_encoder_begin(&t->encoder);
}

static void describe(lbr_transcode *t, const AVFrame *first)
{
    struct lbr_decoder *d = &t->decoder;
    bool quarter = (t->orientation ^ t->planes.turn) & 1;
    static const int degrees[] = { 0, 90, 180, 270 };
    t->info.width = quarter ? first->height : first->width;
    t->info.height = quarter ? first->width : first->height;
    t->info.rotation = degrees[(t->orientation | t->planes.turn) & 3];
    int cell = t->info.cell = t->coarsely ? lbr_coarse_cell(first->width, first->height) : 0;
    t->info.across = cell ? (t->info.width + cell - 1) / cell : 0;
    t->info.down = cell ? (t->info.height + cell - 1) / cell : 0;
    t->info.fps = d->fps;
    t->info.duration = d->duration;
    t->info.frames = d->frames;
    snprintf(t->info.codec, sizeof t->info.codec, "%s", avcodec_get_name(d->context->codec_id));
    const char *format = av_get_pix_fmt_name(first->format);
    snprintf(t->info.format, sizeof t->info.format, "%s", format ? format : "?");
}

static int make_ring(lbr_transcode *t, const lbr_transcode_options *o)
{
    int64_t bytes = av_image_get_buffer_size(t->planes.format, t->planes.padded_width, t->planes.padded_height, 64);
    if (t->converting) bytes += 3 * (int64_t)t->planes.padded_width * t->planes.padded_height;
    int64_t fit = RING_BYTES / (bytes > 0 ? bytes : 1);
    t->queue = o->queue > 0 ? o->queue : USUAL;
    if (t->queue > MOST_QUEUE) t->queue = MOST_QUEUE;
    if (t->queue > fit) t->queue = (int)fit;
    if (t->queue < LEAST) t->queue = LEAST;
    double held = o->hold > 0 && t->decoder.fps > 0 ? ceil(o->hold * t->decoder.fps) + SPARE : 0, room = (double)(fit < MOST ? fit : MOST) - t->queue;
    t->queue += t->info.held = (int)(held < room ? held : room > 0 ? room : 0);
    t->info.queue = t->queue;
    for (int i = 0; i < t->queue; i++)
        if (!(t->places[i].frame = av_frame_alloc())) return lbr_fail(LBR_ENOMEM, "transcode: no memory");
    return lbr_planes_blank(&t->planes, t->decoder.frame, &t->blank);
}

int lbr_transcode_open(const char *input, const lbr_transcode_options *o, lbr_transcode **out)
{
    *out = NULL;
    lbr_transcode *t = calloc(1, sizeof *t);
    if (!t || !(t->name = strdup(input))) {
        free(t);
        return lbr_fail(LBR_ENOMEM, "transcode: no memory");
    }
    atomic_fetch_add(&lbr_media_count, 1);
    lbr_media_pin();
    t->writing = o->output != NULL;
    t->converting = o->convert;
    t->coarsely = o->coarse;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->moved, &attributes);
    pthread_condattr_destroy(&attributes);
    int status = t->writing ? lbr_keep_apart(input, o->output) : LBR_OK;
    if (status == LBR_OK) status = lbr_decoder_open(&t->decoder, input, o->decoder_threads, false);
    if (status == LBR_OK && !t->writing && !t->converting) t->decoder.context->skip_loop_filter = AVDISCARD_NONREF; /* looks at some frames: an eighth of the decoding */
    if (status == LBR_OK) status = first_frame(t);
    if (status == LBR_OK) {
        const AVFrame *f = t->decoder.frame;
        t->planes = (struct lbr_planes){ .format = lbr_planes_format(f->format), .padded_width = f->width, .padded_height = f->height };
        if (t->writing) status = open_output(t, o);
    }
    if (status == LBR_OK) status = make_ring(t, o);
    if (status == LBR_OK) {
        describe(t, t->decoder.frame);
        if (!(t->dropped = t->writing ? lbr_keep_dropped(t->decoder.format, t->decoder.stream, o->sound) : strdup("")))
            status = lbr_fail(LBR_ENOMEM, "transcode: no memory");
    }
    if (status == LBR_OK) status = lbr_transcode_start(t);
    if (status != LBR_OK) {
        lbr_transcode_free(t);
        return status;
    }
    *out = t;
    return LBR_OK;
}
