/* keep.c: what of a video file goes into its anonymised copy and what does not, and which container can hold it. Copies nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <libavutil/bprint.h>
#include "internal.h"

bool lbr_keep_sound(const AVStream *stream)
{
    return stream->codecpar->codec_type == AVMEDIA_TYPE_AUDIO && stream->codecpar->codec_id != AV_CODEC_ID_NONE && stream->codecpar->sample_rate > 0;
}

/* What the container says of itself and what is kept in another way. */
static bool technical(const char *tag)
{
    static const char *const tags[] = { "major_brand", "minor_version", "compatible_brands", "encoder", "language", "vendor_id", "rotate", "duration" };
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (strcasecmp(tag, tags[i]) == 0) return true;
    return false;
}

static void drop_tags(AVBPrint *out, const AVDictionary *tags, const char *of)
{
    const AVDictionaryEntry *tag = NULL;
    while ((tag = av_dict_get(tags, "", tag, AV_DICT_IGNORE_SUFFIX))) {
        if (technical(tag->key) || !*tag->value) continue;
        char name[64];
        size_t n = 0;
        for (const char *p = tag->key; *p && n + 1 < sizeof name; p++) name[n++] = (unsigned char)*p < ' ' ? '?' : *p;
        name[n] = 0;
        av_bprintf(out, "tag: %s%s\n", name, of);
    }
}

static const char *kind_of(const AVStream *s, int video)
{
    switch (s->codecpar->codec_type) {
    case AVMEDIA_TYPE_VIDEO: return s->disposition & AV_DISPOSITION_ATTACHED_PIC ? "cover art" : s->index == video ? NULL : "another video";
    case AVMEDIA_TYPE_AUDIO: return "sound";
    case AVMEDIA_TYPE_SUBTITLE: return "subtitles";
    case AVMEDIA_TYPE_ATTACHMENT: return "attachment";
    default: return "data";
    }
}

char *lbr_keep_dropped(const AVFormatContext *input, int video, int sound)
{
    AVBPrint out;
    av_bprint_init(&out, 0, AV_BPRINT_SIZE_UNLIMITED);
    for (unsigned i = 0; i < input->nb_streams; i++) {
        const AVStream *s = input->streams[i];
        const char *kind = kind_of(s, video);
        if (!kind || (sound != LBR_SOUND_DROP && lbr_keep_sound(s))) continue;
        char tag[AV_FOURCC_MAX_STRING_SIZE];
        bool known = s->codecpar->codec_id != AV_CODEC_ID_NONE;
        av_bprintf(&out, "%s: stream %u, %s\n", kind, i, known ? avcodec_get_name(s->codecpar->codec_id) : av_fourcc_make_string(tag, s->codecpar->codec_tag));
    }
    if (input->nb_chapters > 0) av_bprintf(&out, "chapters: %u\n", input->nb_chapters);
    drop_tags(&out, input->metadata, "");
    for (unsigned i = 0; i < input->nb_streams; i++) {
        char of[32];
        snprintf(of, sizeof of, " of stream %u", i);
        drop_tags(&out, input->streams[i]->metadata, of);
    }
    if (out.len > 0 && av_bprint_is_complete(&out)) out.str[out.len - 1] = 0;
    char *text = av_bprint_is_complete(&out) ? strdup(out.str) : NULL;
    av_bprint_finalize(&out, NULL);
    return text;
}

int lbr_keep_apart(const char *input, const char *output)
{
    struct stat a, b;
    if (stat(input, &a) == 0 && stat(output, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return lbr_fail(LBR_EINVAL, "transcode: %s: the output is the input itself", output);
    return LBR_OK;
}

int lbr_transcode_container(const char *input, int sound, char container[8])
{
    AVFormatContext *format;
    int status = lbr_ffmpeg_input("video_open", input, NULL, &format);
    if (status != LBR_OK) return status;
    const AVOutputFormat *mp4 = av_guess_format("mp4", NULL, NULL);
    bool matroska = strstr(format->iformat->name, "matroska") != NULL;
    for (unsigned i = 0; i < format->nb_streams && sound == LBR_SOUND_KEEP; i++)
        if (lbr_keep_sound(format->streams[i]) && mp4 && !lbr_audio_copies(mp4, format->streams[i]->codecpar->codec_id)) matroska = true;
    snprintf(container, 8, "%s", matroska ? "mkv" : "mp4");
    avformat_close_input(&format);
    return LBR_OK;
}
