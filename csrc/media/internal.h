/* internal.h: what the media library's files share with each other. Not part of the ABI. */
#ifndef LIBRATION_MEDIA_INTERNAL_H
#define LIBRATION_MEDIA_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/frame.h>
#include <libswscale/swscale.h>
#include "media.h"

/* Times of a container are rounded to as much as a millisecond: half of that, and a little, still counts as equal. */
#define LBR_TIME_SLACK 0.0006

/* A picture as a producer leaves it: upright or not, rows padded. The buffer is kept and reused. */
struct lbr_frame {
    uint8_t *data;            /* 64-byte aligned */
    int width, height;
    ptrdiff_t stride;         /* bytes a row, a multiple of 64 */
    size_t capacity;
    int orientation;          /* how to make it upright: LBR_TURN_* in csrc/media/turn.c */
    double time;
};

/* Gives picture room for width x height RGB. Errors: LBR_ENOMEM, LBR_EFORMAT (absurd size). */
int lbr_frame_reserve(struct lbr_frame *picture, int width, int height);
/* For a picture of a claimed size, in `bytes` bytes of file: memory grows with the rows that are really there. */
int lbr_frame_begin(struct lbr_frame *picture, int width, int height, size_t bytes);
/* Before writing to a row (rows in order): gives it memory, the rows above are kept. LBR_ENOMEM. */
int lbr_frame_reach(struct lbr_frame *picture, int row);
void lbr_frame_release(struct lbr_frame *picture);

/* ---- turning: orientation = clockwise quarter turns (0..3), plus 4 when the picture is mirrored left to right before turning ---- */
/* From a 3x3 display matrix of FFmpeg; *exact false when its angle is no quarter turn (0 is returned). */
int lbr_turn_from_matrix(const int32_t *matrix, bool *exact);
/* Copies the rectangle (x, y, width, height in the upright picture), turned by rotate (0..3 quarter turns) after that, tightly into out. */
void lbr_turn_copy(const struct lbr_frame *picture, const int crop[4], int rotate, uint8_t *out);
/* Turns a decoded frame plane by plane into out, whose buffers are reused. AVERROR(ENOSYS) where its format does not allow that. */
int lbr_turn_planes(const AVFrame *in, int orientation, AVFrame *out);

/* ---- producers behind a frame source ---- */
struct lbr_producer {
    /* Fills picture with frame number ticket. LBR_OK, LBR_EEND or an error with its text set. Called by worker threads;
     * with one worker tickets come in order, with more each worker takes the next free one. */
    int (*produce)(void *state, int64_t ticket, struct lbr_frame *picture);
    int (*seek)(void *state, double seconds);      /* workers are stopped; the next ticket is 0 */
    void (*describe)(void *state, lbr_source_info *info);  /* all but sizes */
    void (*cancel)(void *state, bool on);          /* makes a blocked produce return; may be NULL */
    const char *(*warning)(void *state);           /* may be NULL */
    void (*close)(void *state);
};
/* Takes state over, also on failure. name: for error texts. */
int lbr_source_make(const char *function, const char *name, const struct lbr_producer *producer, void *state, int workers,
                    const lbr_source_options *options, lbr_source **out);

/* ---- masks on planes ---- */
/* One colour component of a picture: 8 or 16 bits a sample, between others or alone in its plane. */
struct lbr_component {
    uint8_t *data;
    ptrdiff_t stride;
    int step;                 /* bytes from sample to sample */
    int wide, shift;          /* two bytes a sample; bits below the value */
    int sx, sy;               /* log2 of the subsampling */
    unsigned black;
};
struct lbr_canvas {
    struct lbr_component parts[3];
    int count, width, height;
};
/* Memory that drawing keeps from mask to mask; zero it before the first. */
struct lbr_mask_room {
    uint8_t *alpha, *line;
    uint16_t *distance, *effect;
    uint32_t *grid, *spare;
    size_t sizes[6];
};
/* The components of a frame whose samples may be changed in place; false where its format has no such samples. */
bool lbr_canvas_of(const AVFrame *frame, struct lbr_canvas *canvas);
/* Draws checked masks. orientation: what makes the picture upright; the masks are upright. LBR_ENOMEM. */
int lbr_mask_draw(const struct lbr_canvas *canvas, int orientation, const lbr_mask *masks, int64_t count, struct lbr_mask_room *room);
void lbr_mask_room_release(struct lbr_mask_room *room);
/* Means of the cells of a rectangle of a component's samples. */
struct lbr_cells {
    uint32_t *values;         /* [down,across], 8 bits after the point */
    int across, down, width, height;   /* of them, and of one in samples; those at the right and lower border may be smaller */
};
/* Fills values. columns: room for a sum a sample of a row. */
void lbr_cells_of(const struct lbr_component *component, int x, int y, int width, int height, struct lbr_cells *cells, uint32_t *columns);
/* Room for bytes in *buffer, grown where it holds less; the content is lost. */
int lbr_room_for(void *buffer, size_t *capacity, size_t bytes);

/* What a mask covers of a canvas: alpha 0..255 over a rectangle of whole chroma samples. */
struct lbr_coverage {
    int x, y, width, height;  /* width 0: nothing */
    const uint8_t *alpha;     /* [height,width] */
};
/* mask_shape.c. The rectangle begins and ends at multiples of (align_x, align_y) or at the border. LBR_ENOMEM. */
int lbr_mask_cover(const lbr_mask *mask, int width, int height, int align_x, int align_y, struct lbr_mask_room *room, struct lbr_coverage *out);
/* The same mask on the stored picture of width x height that orientation makes upright; points: room for as many as it has. */
lbr_mask lbr_mask_stored(const lbr_mask *mask, int orientation, int width, int height, double *points);
/* A copy of checked masks, and of the points behind them, in one block to be freed; NULL: out of memory. */
lbr_mask *lbr_mask_copy(const lbr_mask *masks, int64_t count);
/* Its longer side (polygon: of the rectangle around it). */
double lbr_mask_side(const lbr_mask *mask);

/* ---- FFmpeg ---- */
/* Quietens FFmpeg's printing once a process and keeps its last error line of each thread. */
void lbr_ffmpeg_start(void);
void lbr_ffmpeg_forget(void);
/* "text of code" or "last line (text of code)", in a buffer of this thread. */
const char *lbr_ffmpeg_text(int code);
/* LBR_* for an AVERROR. */
int lbr_ffmpeg_status(int code);

/* Opens path through the file protocol only and finds its streams. LBR_EIO, LBR_EFORMAT, LBR_ENOMEM. */
int lbr_ffmpeg_input(const char *function, const char *path, const AVIOInterruptCB *interrupt, AVFormatContext **out);

/* ---- NVDEC (hardware.c) ---- */
struct lbr_hardware {
    atomic_bool used;
    enum AVPixelFormat planes;   /* what the CPU's decoder would give */
    char reason[160];            /* why it is the CPU */
};
/* Before the decoder is opened: lets FFmpeg take NVDEC where the machine has it; h stays where it is as long as the decoder does. */
void lbr_hardware_offer(struct lbr_hardware *h, AVCodecContext *decoder, const AVCodec *codec);
/* "NVDEC", or "the CPU: " and why; settled with the first picture. */
const char *lbr_hardware_decoder(struct lbr_hardware *h);
/* A picture on the GPU becomes the planes that the CPU's decoder gives; others stay. An AVERROR. */
int lbr_hardware_planes(const struct lbr_hardware *h, AVFrame *frame);

/* A video file as its pictures come out of the decoder. Zero it before opening; close it whatever opening said. */
struct lbr_decoder {
    char *path;
    AVFormatContext *format;
    AVCodecContext *context;
    AVPacket *packet;
    AVFrame *frame;
    struct lbr_hardware hardware;
    int stream;
    double origin;             /* the container's start, seconds */
    double duration, fps;
    int64_t frames;            /* announced by the file or estimated; 0 unknown */
    bool draining, from_beginning;
    int64_t decoded;           /* pictures that came out of the decoder */
    int64_t damaged;           /* packets or pictures that were broken */
    int64_t failed;            /* packets that the decoder refused and whose pictures lbr_decoder_lost has not named yet */
    bool suspect;              /* after such a packet, until a picture that needs no other: decoders leave out what they cannot predict */
    int64_t awaited[256];      /* timestamps of packets whose pictures have not come out */
    int awaiting;
    int read_error;
    double clock, reached;     /* time of the last picture; end of the last packet of any stream */
    atomic_bool cancelled, warned;
    char warning[512];
};
/* threads 0: as many as there are cores, at most 16; hardware: NVDEC where the machine has it. Errors: LBR_EIO, LBR_EFORMAT, LBR_EUNSUPPORTED, LBR_ENOMEM; texts begin with "video_open". */
int lbr_decoder_open(struct lbr_decoder *decoder, const char *path, int threads, bool hardware);
/* Next decoded picture into frame, its time into clock: 0, AVERROR_EOF, AVERROR_EXIT or another error. */
int lbr_decoder_next(struct lbr_decoder *decoder);
/* The first picture with a timestamp below `before` that a refused packet should have given, or one after it, and that did not come; each is named once. */
bool lbr_decoder_lost(struct lbr_decoder *decoder, int64_t before, int64_t *pts);
/* At the end of the file: warns where it was not all there. */
void lbr_decoder_check(struct lbr_decoder *decoder);
/* Keeps the first warning. */
void lbr_decoder_warn(struct lbr_decoder *decoder, const char *text);
int lbr_decoder_interrupted(void *decoder);
void lbr_decoder_close(struct lbr_decoder *decoder);

/* Conversion to rgb24 that answers exactly as ffmpeg's automatic scale filter. */
struct lbr_converter {
    struct SwsContext *sws;
    AVFrame *turned;
    int width, height, format, colorspace, range, out_width, out_height;
};
/* orientation: what makes frame upright; out->orientation is what is left to do of it. */
int lbr_converter_run(const char *function, struct lbr_converter *converter, const AVFrame *frame, int orientation, struct lbr_frame *out);
void lbr_converter_release(struct lbr_converter *converter);
/* ---- coarse pictures (coarse.c) ---- */
/* Memory kept from frame to frame; zero it before the first. */
struct lbr_coarse {
    uint32_t *values, *columns;
    size_t sizes[2];
    struct lbr_converter converter;   /* for formats whose samples cannot be read in place */
    struct lbr_frame rgb;
};
/* Side in pixels of the cells of frames of a size: a 480th of the longer side, times four. */
int lbr_coarse_cell(int width, int height);
/* A frame's cells as RGB means; orientation: what makes frame, and so out, upright. Errors: LBR_ENOMEM, those of lbr_converter_run. */
int lbr_coarse_of(const char *name, const AVFrame *frame, int orientation, struct lbr_coarse *state, struct lbr_frame *out);
void lbr_coarse_release(struct lbr_coarse *state);

/* Orientation that the frame or, in its absence, the stream asks for. */
int lbr_turn_of_frame(const AVFrame *frame, const AVStream *stream, bool *exact);
/* The display matrix behind it; false where there is none. */
bool lbr_turn_matrix(const AVFrame *frame, const AVStream *stream, int32_t matrix[9]);

/* Quarter turns that an EXIF block (with or without "Exif" before it; a TIFF file is one) asks for; 0 where it has no orientation. */
int lbr_exif_orientation(const uint8_t *tiff, size_t size);
/* The same of a WebP file. */
int lbr_exif_of_webp(const uint8_t *data, size_t size);
/* Decodes a JPEG in memory (jpeg.c). Errors: LBR_EFORMAT (broken, cut), LBR_EUNSUPPORTED (CMYK), LBR_ENOMEM. */
int lbr_jpeg_decode(const char *function, const char *path, const uint8_t *data, size_t size, struct lbr_frame *picture);
/* Bytes of pixels that a byte of PNG or JPEG can stand for at most: a claim beyond it is refused before memory is taken. Deflate: 1032; a JPEG without any
 * detail: 512 (12 bits a block of 256 pixels). */
enum { LBR_PICTURE_RATIO = 1040 };
/* Decodes the file into picture (its orientation set). Text names the file. */
int lbr_picture_decode(const char *function, const char *path, struct lbr_frame *picture);

/* ---- audio of another file, packet by packet into an output ---- */
struct lbr_audio;
struct lbr_audio_options {
    int stream;               /* of the file; < 0: its best */
    double start, stop;       /* seconds: what is kept, and taken off the times; stop <= 0: to the end */
    bool in_place;            /* times stay those of the file; otherwise its beginning is 0 */
    bool distort;             /* voices made unrecognisable (voice.c) and encoded anew */
    bool exact;               /* the same bytes from every version */
};
/* Adds a stream to output (before its header). *out NULL with LBR_OK where the file has no audio.
 * Errors: the text says why the audio must be left out; the output can go on without. */
int lbr_audio_open(const char *path, AVFormatContext *output, const struct lbr_audio_options *options, struct lbr_audio **out);
bool lbr_audio_encodes(const struct lbr_audio *audio);   /* made AAC, not copied */
/* Whether an output of this kind takes packets of this codec as they are. */
bool lbr_audio_copies(const AVOutputFormat *output, enum AVCodecID id);
/* Writes the packets up to this time (seconds in the output); INFINITY: all that are left, and the end. An AVERROR of the output. */
int lbr_audio_until(struct lbr_audio *audio, double time);
void lbr_audio_close(struct lbr_audio *audio);

/* ---- voices that cannot be recognised ---- */
struct lbr_voice;
struct lbr_voice *lbr_voice_open(int rate, int channels);   /* NULL: out of memory */
/* Replaces n samples of each channel by up to n that come out, which are as many as went in only with those of lbr_voice_rest. */
int lbr_voice_run(struct lbr_voice *voice, float **planes, int n);
/* At the end: up to n of the samples still held; 0 when there are none. */
int lbr_voice_rest(struct lbr_voice *voice, float **planes, int n);
void lbr_voice_close(struct lbr_voice *voice);

/* ---- an output file: one encoded video stream, sound beside it ---- */
enum { LBR_SOUNDS = 16 };
struct lbr_encoder_options {
    int width, height;        /* of the frames; the file's are padded to whole chroma samples */
    enum AVPixelFormat format;   /* of the frames; the encoder takes the nearest it knows: context->pix_fmt */
    AVRational base;          /* of the timestamps given */
    AVRational rate, aspect;
    enum AVColorRange range;
    enum AVColorSpace space;
    enum AVColorPrimaries primaries;
    enum AVColorTransferCharacteristic transfer;
    enum AVChromaLocation chroma;
    int crf, threads;         /* as lbr_writer_options */
    const char *preset, *codec;
    const int32_t *matrix;    /* display matrix, or NULL */
    bool exact;               /* no version, date or random number in the file */
};
/* Zero it before opening; close it whatever opening said. */
struct lbr_encoder {
    char *path, *temporary, *url;
    AVFormatContext *format;
    AVStream *stream;
    AVCodecContext *context;
    AVPacket *packet;
    AVRational base;
    struct lbr_audio *audio[LBR_SOUNDS];
    int audio_count;
    int64_t sent, last_pts, last_duration;
    char warning[512];
    bool published;
};
/* Errors: LBR_EINVAL, LBR_EUNSUPPORTED (no encoder), LBR_EIO, LBR_ENOMEM; texts begin with "writer". */
int lbr_encoder_open(struct lbr_encoder *encoder, const char *path, const struct lbr_encoder_options *options);
/* After opening, before begin: keeps a sound stream of a file; a warning where that is not possible. */
void lbr_encoder_sound(struct lbr_encoder *encoder, const char *path, const struct lbr_audio_options *options);
int lbr_encoder_begin(struct lbr_encoder *encoder);   /* creates the file, writes its header */
/* Timestamps in options.base; duration 0: by the rate. An AVERROR, as complete. */
int lbr_encoder_send(struct lbr_encoder *encoder, AVFrame *frame, int64_t pts, int64_t duration);
int lbr_encoder_complete(struct lbr_encoder *encoder);
/* LBR_* with its text for an AVERROR. */
int lbr_encoder_failed(struct lbr_encoder *encoder, int code);
void lbr_encoder_warn(struct lbr_encoder *encoder, const char *text);
int lbr_encoder_publish(struct lbr_encoder *encoder);
void lbr_encoder_close(struct lbr_encoder *encoder);  /* an unpublished file is removed */

/* ---- frames between a decoder and an encoder, in their planes (planes.c) ---- */
struct lbr_planes {
    enum AVPixelFormat format;             /* of the encoder */
    int padded_width, padded_height;       /* of the encoder's frames */
    int width, height;                     /* of the pictures: the first one's; 0 before it */
    int turn;                              /* orientation to be made upright */
    AVBufferPool *pool;
    struct SwsContext *sws;
};
enum AVPixelFormat lbr_planes_format(int format);             /* without the "j" formats */
enum AVColorRange lbr_planes_range(const AVFrame *frame);     /* of its planes; RGB becomes limited range, BT.601 or BT.709 by its height */
enum AVColorSpace lbr_planes_space(const AVFrame *frame);
/* Moves a decoded frame into out: as it is where it can stay so, else turned, converted, scaled or padded. In is empty then. */
int lbr_planes_take(struct lbr_planes *planes, AVFrame *in, AVFrame *out);
/* Copies a frame that others refer to, so that it can be changed. */
int lbr_planes_own(struct lbr_planes *planes, AVFrame *frame);
/* A black frame of the colours of `like`. */
int lbr_planes_blank(struct lbr_planes *planes, const AVFrame *like, AVFrame **out);
/* Makes a frame as large as the encoder wants by repeating its last column and row. */
int lbr_planes_pad(struct lbr_planes *planes, AVFrame *frame);
void lbr_planes_release(struct lbr_planes *planes);

/* ---- what an output keeps of an input (keep.c) ---- */
/* Lines about what is left out, to be freed; NULL: out of memory. */
char *lbr_keep_dropped(const AVFormatContext *input, int video, int sound);
/* LBR_EINVAL where the output is the input, under whatever name. */
int lbr_keep_apart(const char *input, const char *output);
/* Whether a stream is a sound stream to be kept. */
bool lbr_keep_sound(const AVStream *stream);

/* ---- files ---- */
/* "folder/.tmp-pid-counter-name" beside path, as files.lua names them and clears them away, to be freed. NULL: out of memory. */
char *lbr_file_temporary(const char *path);
/* Whole file in memory, followed by AV_INPUT_BUFFER_PADDING_SIZE zero bytes; av_free it. */
int lbr_file_read(const char *function, const char *path, uint8_t **data, size_t *size);
/* Syncs and renames; removes temporary on failure. */
int lbr_file_publish(const char *function, const char *temporary, const char *path);

extern atomic_llong lbr_media_count;   /* behind lbr_media_live */
/* Keeps the library mapped until the process ends: a program may end, and unload it, while threads still decode. */
void lbr_media_pin(void);

#endif
