/* audio_out.c: carries the audio of one file into another: copied, or made AAC where the container cannot take it. Not for listening. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/audio_fifo.h>
#include <libavutil/channel_layout.h>
#include <libavutil/mathematics.h>
#include <libswresample/swresample.h>
#include "internal.h"

#define NEW_LAYOUTS (LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 28, 100))

struct lbr_audio {
    AVFormatContext *input, *output;
    AVStream *from, *to;
    double origin, start, stop;   /* the input's own start; what is kept, after that */
    AVPacket *packet;
    bool done;                    /* nothing more to read */
    int64_t last_dts;
    /* only when encoding */
    AVCodecContext *decoder, *encoder;
    SwrContext *resampler;
    AVAudioFifo *fifo;
    AVFrame *frame;
    struct lbr_voice *voice;      /* NULL: left as they are */
    bool begun;
    int64_t next_pts, left;       /* samples; that belong to the stream from here on: a codec's last frame is longer */
};

static int channels_of(const AVCodecContext *context)
{
#if NEW_LAYOUTS
    return context->ch_layout.nb_channels;
#else
    return context->channels;
#endif
}

/* What players expect inside MP4; the muxer may take more. Matroska and MOV are for what they take. */
bool lbr_audio_copies(const AVOutputFormat *output, enum AVCodecID id)
{
    bool common = id == AV_CODEC_ID_AAC || id == AV_CODEC_ID_MP3 || id == AV_CODEC_ID_AC3 || id == AV_CODEC_ID_EAC3;
    if (!common && strcmp(output->name, "matroska") != 0 && strcmp(output->name, "mov") != 0) return false;
    return avformat_query_codec(output, id, FF_COMPLIANCE_NORMAL) == 1;
}

static int aac_rate(int rate)
{
    static const int rates[] = { 96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000 };
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
        if (rates[i] == rate) return rate;
    return 48000;
}

/* The decoder knows its channels only once it decoded something: the resampler is made at the first frame. */
static int make_resampler(struct lbr_audio *a, const AVFrame *frame)
{
#if NEW_LAYOUTS
    AVChannelLayout in = { 0 };
    int code = av_channel_layout_copy(&in, &frame->ch_layout);
    if (code >= 0 && in.order == AV_CHANNEL_ORDER_UNSPEC) av_channel_layout_default(&in, in.nb_channels);
    if (code >= 0)
        code = swr_alloc_set_opts2(&a->resampler, &a->encoder->ch_layout, AV_SAMPLE_FMT_FLTP, a->encoder->sample_rate, &in, frame->format,
                                   frame->sample_rate, 0, NULL);
    av_channel_layout_uninit(&in);
    if (code < 0) return code;
#else
    int64_t in = frame->channel_layout ? (int64_t)frame->channel_layout : av_get_default_channel_layout(frame->channels);
    a->resampler = swr_alloc_set_opts(NULL, (int64_t)a->encoder->channel_layout, AV_SAMPLE_FMT_FLTP, a->encoder->sample_rate, in, frame->format,
                                      frame->sample_rate, 0, NULL);
    if (!a->resampler) return AVERROR(ENOMEM);
#endif
    return swr_init(a->resampler);
}

static int open_encoder(struct lbr_audio *a, const struct lbr_audio_options *o)
{
    const AVCodec *in = avcodec_find_decoder(a->from->codecpar->codec_id), *out = avcodec_find_encoder(AV_CODEC_ID_AAC);
    if (!in) return AVERROR_DECODER_NOT_FOUND;
    if (!out) return AVERROR_ENCODER_NOT_FOUND;
    a->decoder = avcodec_alloc_context3(in);
    a->encoder = avcodec_alloc_context3(out);
    a->frame = av_frame_alloc();
    if (!a->decoder || !a->encoder || !a->frame) return AVERROR(ENOMEM);
    int code = avcodec_parameters_to_context(a->decoder, a->from->codecpar);
    a->decoder->pkt_timebase = a->from->time_base;
    if (code >= 0) code = avcodec_open2(a->decoder, in, NULL);
    if (code < 0) return code;
    int channels = channels_of(a->decoder) >= 2 ? 2 : 1;
#if NEW_LAYOUTS
    av_channel_layout_default(&a->encoder->ch_layout, channels);
#else
    a->encoder->channels = channels;
    a->encoder->channel_layout = (uint64_t)av_get_default_channel_layout(channels);
#endif
    a->encoder->sample_rate = aac_rate(a->decoder->sample_rate);
    a->encoder->sample_fmt = AV_SAMPLE_FMT_FLTP;
    a->encoder->bit_rate = 96000 * channels;
    a->encoder->time_base = (AVRational){ 1, a->encoder->sample_rate };
    if (a->output->oformat->flags & AVFMT_GLOBALHEADER) a->encoder->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (o->exact) a->encoder->flags |= AV_CODEC_FLAG_BITEXACT;
    code = avcodec_open2(a->encoder, out, NULL);
    if (code < 0) return code;
    if (o->distort && !(a->voice = lbr_voice_open(a->encoder->sample_rate, channels))) return AVERROR(ENOMEM);
    a->fifo = av_audio_fifo_alloc(AV_SAMPLE_FMT_FLTP, channels, 4096);
    return a->fifo ? 0 : AVERROR(ENOMEM);
}

/* Vorbis carries its tags (title, place, device) in the header that a copy would take along: an empty one goes in its place. Source: Vorbis I, 5. */
static int forget_tags(AVCodecParameters *p)
{
    static const uint8_t none[] = { 3, 'v', 'o', 'r', 'b', 'i', 's', 0, 0, 0, 0, 0, 0, 0, 0, 1 };
    if (p->codec_id != AV_CODEC_ID_VORBIS || p->extradata_size < 3 || p->extradata[0] != 2) return 0;
    const uint8_t *data = p->extradata;
    size_t size = (size_t)p->extradata_size, at = 1, length[2] = { 0, 0 };
    for (int i = 0; i < 2; i++) {
        while (at < size && data[at] == 255) length[i] += data[at++];
        if (at == size) return AVERROR_INVALIDDATA;
        length[i] += data[at++];
    }
    size_t lacing = 1 + length[0] / 255 + 1, first = at, last = first + length[0] + length[1];
    if (last > size) return AVERROR_INVALIDDATA;
    size_t whole = lacing + 1 + length[0] + sizeof none + (size - last);
    uint8_t *fresh = av_mallocz(whole + AV_INPUT_BUFFER_PADDING_SIZE);
    if (!fresh) return AVERROR(ENOMEM);
    memcpy(fresh, data, lacing);
    fresh[lacing] = sizeof none;
    memcpy(fresh + lacing + 1, data + first, length[0]);
    memcpy(fresh + lacing + 1 + length[0], none, sizeof none);
    memcpy(fresh + lacing + 1 + length[0] + sizeof none, data + last, size - last);
    av_freep(&p->extradata);
    p->extradata = fresh;
    p->extradata_size = (int)whole;
    return 0;
}

int lbr_audio_open(const char *path, AVFormatContext *output, const struct lbr_audio_options *o, struct lbr_audio **out)
{
    *out = NULL;
    struct lbr_audio *a = calloc(1, sizeof *a);
    if (!a) return lbr_fail(LBR_ENOMEM, "audio: no memory");
    int status = lbr_ffmpeg_input("audio", path, NULL, &a->input), code = 0;
    int index = status == LBR_OK ? av_find_best_stream(a->input, AVMEDIA_TYPE_AUDIO, o->stream < 0 ? -1 : o->stream, -1, NULL, 0) : -1;
    if (index < 0) {
        lbr_audio_close(a);
        return status;
    }
    for (unsigned i = 0; i < a->input->nb_streams; i++)
        if ((int)i != index) a->input->streams[i]->discard = AVDISCARD_ALL;
    a->from = a->input->streams[index];
    a->output = output;
    a->origin = !o->in_place && a->input->start_time != AV_NOPTS_VALUE ? (double)a->input->start_time / AV_TIME_BASE : 0;
    a->start = o->start > 0 ? o->start : 0;
    a->stop = o->stop;
    a->last_dts = INT64_MIN;
    a->packet = av_packet_alloc();
    if (!a->packet) code = AVERROR(ENOMEM);
    if (code >= 0 && (o->distort || !lbr_audio_copies(output->oformat, a->from->codecpar->codec_id))) code = open_encoder(a, o);
    if (code >= 0 && !(a->to = avformat_new_stream(output, NULL))) code = AVERROR(ENOMEM);
    if (code >= 0) {
        code = a->encoder ? avcodec_parameters_from_context(a->to->codecpar, a->encoder) : avcodec_parameters_copy(a->to->codecpar, a->from->codecpar);
        a->to->codecpar->codec_tag = 0;
        if (code >= 0 && !a->encoder) code = forget_tags(a->to->codecpar);
        const AVDictionaryEntry *language = av_dict_get(a->from->metadata, "language", NULL, 0);
        if (code >= 0 && language) code = av_dict_set(&a->to->metadata, "language", language->value, 0);
        a->to->time_base = a->encoder ? a->encoder->time_base : a->from->time_base;
    }
    if (code >= 0 && a->start > 0) {   /* near the place; what comes too early is dropped packet by packet */
        int64_t ticks = (int64_t)((a->origin + a->start) * a->from->time_base.den / a->from->time_base.num);
        avformat_seek_file(a->input, index, INT64_MIN, ticks, ticks, AVSEEK_FLAG_BACKWARD);
    }
    if (code < 0) {
        status = lbr_fail(lbr_ffmpeg_status(code), "%s: its %s audio is left out: %s", path, avcodec_get_name(a->from->codecpar->codec_id), lbr_ffmpeg_text(code));
        lbr_audio_close(a);
        return status;
    }
    *out = a;
    return LBR_OK;
}

bool lbr_audio_encodes(const struct lbr_audio *a) { return a->encoder != NULL; }

static int write_packet(struct lbr_audio *a, AVRational base)
{
    AVPacket *p = a->packet;
    av_packet_rescale_ts(p, base, a->to->time_base);
    p->stream_index = a->to->index;
    p->pos = -1;
    if (p->dts == AV_NOPTS_VALUE) p->dts = p->pts;
    if (p->dts < a->last_dts) {   /* a muxer refuses the whole file for one packet out of order */
        av_packet_unref(p);
        return 0;
    }
    if (p->dts == a->last_dts && !(a->output->oformat->flags & AVFMT_TS_NONSTRICT)) {   /* Vorbis begins with a packet of no length */
        p->dts++;
        if (p->pts < p->dts) p->pts = p->dts;
    }
    a->last_dts = p->dts;
    return av_interleaved_write_frame(a->output, p);
}

/* Encodes what the fifo holds in whole frames; the rest too at the end. */
static int encode(struct lbr_audio *a, bool end)
{
    int size = a->encoder->frame_size > 0 ? a->encoder->frame_size : 1024, code = 0;
    for (;;) {
        int held = av_audio_fifo_size(a->fifo), take = held < size ? held : size;
        if (take == 0 || (take < size && !end)) break;
        av_frame_unref(a->frame);
        a->frame->nb_samples = take;
        a->frame->format = AV_SAMPLE_FMT_FLTP;
        a->frame->sample_rate = a->encoder->sample_rate;
#if NEW_LAYOUTS
        if ((code = av_channel_layout_copy(&a->frame->ch_layout, &a->encoder->ch_layout)) < 0) return code;
#else
        a->frame->channel_layout = a->encoder->channel_layout;
        a->frame->channels = a->encoder->channels;
#endif
        if ((code = av_frame_get_buffer(a->frame, 0)) < 0) return code;
        if (av_audio_fifo_read(a->fifo, (void **)a->frame->data, take) < take) return AVERROR(EINVAL);
        a->frame->pts = a->next_pts;
        a->next_pts += take;
        if ((code = avcodec_send_frame(a->encoder, a->frame)) < 0) return code;
        while ((code = avcodec_receive_packet(a->encoder, a->packet)) >= 0)
            if ((code = write_packet(a, a->encoder->time_base)) < 0) return code;
        if (code != AVERROR(EAGAIN)) return code;
    }
    if (!end) return 0;
    if (avcodec_send_frame(a->encoder, NULL) < 0) return 0;
    while ((code = avcodec_receive_packet(a->encoder, a->packet)) >= 0)
        if ((code = write_packet(a, a->encoder->time_base)) < 0) return code;
    return code == AVERROR_EOF ? 0 : code;
}

/* Decoded samples of one frame (NULL: what the resampler still holds) into the fifo. */
static int resample(struct lbr_audio *a, const AVFrame *frame)
{
    int count = frame ? frame->nb_samples : 0, channels = channels_of(a->encoder);
    int room = swr_get_out_samples(a->resampler, count);
    if (room <= 0) return room;
    uint8_t *planes[2] = { NULL, NULL };
    int code = av_samples_alloc(planes, NULL, channels, room, AV_SAMPLE_FMT_FLTP, 0);
    if (code < 0) return code;
    int got = swr_convert(a->resampler, planes, room, frame ? (const uint8_t **)frame->extended_data : NULL, count);
    if (got > a->left) got = (int)a->left;
    a->left -= got > 0 ? got : 0;
    if (got > 0 && a->voice) got = lbr_voice_run(a->voice, (float **)planes, got);
    if (got > 0 && av_audio_fifo_write(a->fifo, (void **)planes, got) < got) got = AVERROR(ENOMEM);
    av_freep(&planes[0]);
    return got;
}

/* What the vocoder still holds, into the fifo. */
static int finish_voice(struct lbr_audio *a)
{
    enum { CHUNK = 1024 };
    float left[CHUNK], right[CHUNK], *planes[2] = { left, right };
    int got;
    while ((got = lbr_voice_rest(a->voice, planes, CHUNK)) > 0)
        if (av_audio_fifo_write(a->fifo, (void **)planes, got) < got) return AVERROR(ENOMEM);
    return 0;
}

/* One packet (NULL: the end) through decoder, resampler and encoder; broken audio is skipped. */
static int transcode(struct lbr_audio *a, const AVPacket *packet)
{
    int code = avcodec_send_packet(a->decoder, packet);
    if (code < 0 && packet) return 0;
    while (code >= 0 && avcodec_receive_frame(a->decoder, a->frame) >= 0) {
        double t = a->frame->best_effort_timestamp != AV_NOPTS_VALUE
                       ? (double)a->frame->best_effort_timestamp * av_q2d(a->from->time_base) - a->origin - a->start : 0;
        if (!a->begun && t < 0 && a->start > 0) continue;
        if (!a->begun) {
            double end = a->from->duration > 0 ? (double)a->from->duration * av_q2d(a->from->time_base) - a->origin - a->start : INFINITY;
            if (a->from->start_time != AV_NOPTS_VALUE) end += (double)a->from->start_time * av_q2d(a->from->time_base);
            a->next_pts = llrint(t * a->encoder->sample_rate);
            a->left = isfinite(end) && end > t ? llrint((end - t) * a->encoder->sample_rate) : INT64_MAX;
        }
        a->begun = true;
        if (!a->resampler && (code = make_resampler(a, a->frame)) < 0) return code;
        if ((code = resample(a, a->frame)) < 0) return code;
        if ((code = encode(a, false)) < 0) return code;
        code = 0;
    }
    return 0;
}

static int end(struct lbr_audio *a)
{
    a->done = true;
    if (!a->encoder) return 0;
    int code = transcode(a, NULL);
    if (code >= 0 && a->resampler) code = resample(a, NULL);
    if (code >= 0 && a->voice) code = finish_voice(a);
    return code < 0 ? code : encode(a, true);
}

int lbr_audio_until(struct lbr_audio *a, double time)
{
    while (!a->done) {
        int code = av_read_frame(a->input, a->packet);
        if (code < 0) return end(a);   /* also where the source is truncated: its reader has said so */
        if (a->packet->stream_index != a->from->index || (a->packet->pts == AV_NOPTS_VALUE && a->packet->dts == AV_NOPTS_VALUE)) {
            av_packet_unref(a->packet);
            continue;
        }
        int64_t ticks = a->packet->pts != AV_NOPTS_VALUE ? a->packet->pts : a->packet->dts;
        double base = av_q2d(a->from->time_base), t = (double)ticks * base - a->origin - a->start;
        if (a->stop > 0 && t >= a->stop - a->start) {
            av_packet_unref(a->packet);
            return end(a);
        }
        if (a->encoder) {
            code = transcode(a, a->packet);
            av_packet_unref(a->packet);
        } else if (t < 0 && a->start > 0) {
            av_packet_unref(a->packet);
        } else {
            int64_t shift = llrint((a->origin + a->start) / base);
            if (a->packet->pts != AV_NOPTS_VALUE) a->packet->pts -= shift;
            if (a->packet->dts != AV_NOPTS_VALUE) a->packet->dts -= shift;
            code = write_packet(a, a->from->time_base);
        }
        if (code < 0) return code;
        if (t > time) break;
    }
    return 0;
}

void lbr_audio_close(struct lbr_audio *a)
{
    if (!a) return;
    lbr_voice_close(a->voice);
    if (a->fifo) av_audio_fifo_free(a->fifo);
    swr_free(&a->resampler);
    av_frame_free(&a->frame);
    av_packet_free(&a->packet);
    avcodec_free_context(&a->decoder);
    avcodec_free_context(&a->encoder);
    avformat_close_input(&a->input);
    free(a);
}
