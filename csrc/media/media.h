/* media.h: the media library's C ABI: video, pictures, hashes, rendered scenes. Frames are plain bytes here; tensors stay in the core. */
#ifndef LIBRATION_MEDIA_H
#define LIBRATION_MEDIA_H

#ifdef LBR_CDEF
#define LBR_API
#else
#include "../libration.h"
#endif

/* Text of these declarations, for ffi.cdef. */
LBR_API const char *lbr_media_cdef(void);

/* ---- frame sources: a video, or a list of pictures, read ahead by C threads into a bounded queue of reused buffers ---- */

typedef struct lbr_source lbr_source;

typedef struct lbr_source_options {
    double start, stop;       /* seconds from the beginning; frames with start <= time < stop; stop <= 0: to the end */
    double fps;               /* lists of pictures: frames a second (0: 25); ignored by videos */
    int crop[4];              /* x, y, width, height in the upright picture; width 0: all of it */
    int rotate;               /* 0, 90, 180, 270: degrees clockwise, after the crop */
    int threads;              /* decoder threads; 0: as many as there are cores, at most 16 */
    int hardware;             /* videos: decode by NVDEC where there is one */
    int queue;                /* frames read ahead; 0: 8, and less when they would take more than 256 MiB */
} lbr_source_options;

typedef struct lbr_source_info {
    int width, height;                /* of the frames delivered: after display matrix, crop and rotation */
    int source_width, source_height;  /* of the upright picture: after the display matrix alone */
    int has_audio;
    double fps;                       /* average, 0 when unknown */
    double duration;                  /* seconds, 0 when unknown */
    int64_t frames;                   /* estimate of the frames between start and stop, 0 when unknown */
    char codec[32];
    char decoder[160];                /* of a video: "NVDEC", or "the CPU: " and why */
} lbr_source_info;

/* Opens a video (any container and codec of the FFmpeg this is built with) and decodes its first frame.
 *   Colours equal `ffmpeg -i path -f rawvideo -pix_fmt rgb24 -`; a display matrix is applied; a change of size inside the
 *   stream is scaled to the first frame's.
 * Errors: LBR_EIO (missing, unreadable), LBR_EFORMAT (empty, no video in it, nothing decodable), LBR_EINVAL (crop outside,
 * start after the end), LBR_ENOMEM, LBR_EINTR; the text names the file. */
LBR_API int lbr_video_open(const char *path, const lbr_source_options *options, lbr_source **out);

/* Opens a list of pictures as frames, all of one size. paths: count strings, each ended by a zero byte.
 * Errors: as lbr_video_open; a picture of another size or a broken one is an LBR_EFORMAT that names it when it is reached. */
LBR_API int lbr_pictures_open(const char *paths, int64_t count, const lbr_source_options *options, lbr_source **out);

LBR_API int lbr_source_describe(const lbr_source *source, lbr_source_info *out);

/* Next frame. rgb [height,width,3] out, u8; time out, seconds from the beginning of the file, strictly increasing;
 * index out, 0 for the first frame after opening or seeking.
 * Errors: LBR_EEND after the last frame, LBR_EINTR on Ctrl-C, LBR_EFORMAT, LBR_EIO, LBR_ENOMEM. */
LBR_API int lbr_source_next(lbr_source *source, uint8_t *rgb, double *time, int64_t *index);

/* The next frame will be the first whose time is >= seconds, exactly. Errors: LBR_EIO, LBR_ENOMEM. */
LBR_API int lbr_source_seek(lbr_source *source, double seconds);

/* What was wrong with the file (truncated, damaged) as far as it was read; "" when nothing. Complete once next returned LBR_EEND. */
LBR_API const char *lbr_source_warning(const lbr_source *source);

/* Stops the threads and frees everything; NULL is allowed. */
LBR_API void lbr_source_close(lbr_source *source);

/* ---- single pictures ---- */

/* Reads a PNG (libpng; palette, grey and 16 bits become RGB8, alpha is dropped), JPEG (libjpeg), BMP, WebP or TIFF (FFmpeg, colours as its rgb24;
 * an orientation in EXIF is applied). *rgb out [height,width,3] u8, free it with lbr_picture_free.
 * Errors: LBR_EIO, LBR_EFORMAT (empty, broken, not a picture), LBR_ENOMEM; the text names the file. */
LBR_API int lbr_picture_read(const char *path, uint8_t **rgb, int *width, int *height);
/* The same of a file's bytes in memory; name: for errors. */
LBR_API int lbr_picture_parse(const char *name, const void *data, size_t size, uint8_t **rgb, int *width, int *height);
LBR_API void lbr_picture_free(uint8_t *rgb);
/* 1 where the file begins like one of these, else 0. */
LBR_API int lbr_picture_is(const char *path);

/* Writes pixels [height,width,channels] u8 (channels 1: grey, 3: RGB, 4: RGBA) as PNG to a temporary name and renames it.
 * Errors: LBR_EIO (unwritable, disk full), LBR_EINVAL, LBR_ENOMEM; nothing stands under path then. */
LBR_API int lbr_png_write(const char *path, const uint8_t *pixels, int width, int height, int channels);

/* Writes pixels [height,width,channels] u8 (channels 1: grey, 3: RGB) as JPEG without EXIF, as lbr_png_write. quality 1..100; from 90 on chroma is not subsampled. */
LBR_API int lbr_jpeg_write(const char *path, const uint8_t *pixels, int width, int height, int channels, int quality);
/* The same file as bytes; free *data with lbr_jpeg_free. Errors: LBR_EINVAL, LBR_ENOMEM; *data is NULL then. */
LBR_API int lbr_jpeg_pack(const uint8_t *pixels, int width, int height, int channels, int quality, char **data, size_t *size);
LBR_API void lbr_jpeg_free(char *data);

/* ---- masks: what must not be seen, covered in place ---- */

enum { LBR_MASK_ELLIPSE = 0, LBR_MASK_BOX = 1, LBR_MASK_POLYGON = 2 };
enum { LBR_STYLE_BLUR = 0, LBR_STYLE_MOSAIC = 1, LBR_STYLE_BOX = 2 };
enum { LBR_MASK_POINTS = 4096 };   /* most corners of a polygon */

/* Coordinates are pixels of the upright picture, its corners at 0, 0 and width, height. A pixel is covered where its centre lies inside. */
typedef struct lbr_mask {
    int32_t shape, style;         /* LBR_MASK_*, LBR_STYLE_* */
    double x, y, width, height;   /* centre and sides (ellipse: axes); unused by polygons */
    double angle;                 /* radians clockwise; unused by polygons */
    double strength;              /* share of the longer side, 1/8..1: a block's side (mosaic), the standard deviation (blur); unused by box */
    double feather;               /* pixels outside the shape over which it fades, 0..1000: inside nothing shows through */
    const double *points;         /* polygon: x, y of each corner; what its boundary winds around is inside */
    int32_t point_count;
} lbr_mask;

/* Errors: LBR_EINVAL that names the mask and what is wrong with it: a number that is not finite or beyond 1e6 pixels, sides not above 0, fewer than 3 or
 * too many corners, a strength below 1/8: deconvolution brings back waves that a blur attenuates less than rounding to 8 bits hides (about 200 fold), which
 * are those of up to .52 / strength periods across the mask; at 1/8 that is the detail of 8 blocks. */
LBR_API int lbr_mask_check(const lbr_mask *masks, int64_t count);

/* Covers masks in rgb [height,width,3] u8, in order. What lies outside the picture is clipped. Errors: as lbr_mask_check (nothing is drawn), LBR_ENOMEM. */
LBR_API int lbr_mask_apply(uint8_t *rgb, int width, int height, const lbr_mask *masks, int64_t count);

/* ---- video files out ---- */

typedef struct lbr_writer lbr_writer;

typedef struct lbr_writer_options {
    int width, height;        /* of the frames; an odd size is padded by its last column or row */
    double fps;               /* nominal rate, for the encoder and the last frame's duration; 0: 25 */
    int crf;                  /* x264 quality, 0..51, lower is better; < 0: 20 */
    int threads;              /* encoder threads; 0: its own choice */
    const char *preset;       /* x264 preset; NULL: "veryfast" */
    const char *codec;        /* "h264" or "mpeg4"; NULL: h264, and mpeg4 with a warning where there is no encoder */
    const char *audio_from;   /* video whose audio to keep (copied, or made AAC where the container cannot take it); NULL: none */
    double start, stop;       /* seconds subtracted from frames and audio; audio outside is left out; stop <= 0: all of it */
} lbr_writer_options;

/* Opens path (.mp4, .mkv, .mov, ... by its name) for H.264. The file is written beside it under a temporary name until lbr_writer_finish.
 * Errors: LBR_EIO (unwritable), LBR_EINVAL, LBR_EUNSUPPORTED (no encoder), LBR_ENOMEM. */
LBR_API int lbr_writer_open(const char *path, const lbr_writer_options *options, lbr_writer **out);

/* Copies rgb [height,width,3] u8 into the queue; time in seconds, larger than the one before.
 * Errors: LBR_EINVAL (time), LBR_EINTR, and what the encoder met since the last call (LBR_EIO: disk full). */
LBR_API int lbr_writer_write(lbr_writer *writer, const uint8_t *rgb, double time);

/* Encodes what is queued, closes, syncs and renames the file. Errors as lbr_writer_write; the target is untouched then. */
LBR_API int lbr_writer_finish(lbr_writer *writer);

/* What had to be done otherwise than asked (codec, audio); "" when nothing. */
LBR_API const char *lbr_writer_warning(const lbr_writer *writer);

/* Frees the writer; an unfinished one leaves no file. NULL is allowed. */
LBR_API void lbr_writer_free(lbr_writer *writer);

/* ---- a video encoded anew with masks on its frames: decoding, masking, encoding in a thread each, frames in their own YUV planes ---- */

typedef struct lbr_transcode lbr_transcode;
enum { LBR_SOUND_KEEP = 0, LBR_SOUND_DROP = 1, LBR_SOUND_DISTORT = 2 };

typedef struct lbr_transcode_options {
    const char *output;       /* .mp4, .mkv or .mov by its name; NULL: frames are only read, as the first of two passes */
    const char *preset;       /* x264 preset; NULL: "veryfast" */
    const char *format;       /* pixel format of the output; NULL: the source's, or the nearest that H.264 has */
    int crf;                  /* x264 quality, 0..51, lower is better; < 0: 20 */
    int threads;              /* encoder threads: the bytes depend on it; 0: 1.5 x the cores, at most 16 */
    int decoder_threads;      /* 0: as many as there are cores, at most 16 */
    int queue;                /* frames on the way; 0: 16, at most 64, and less when they would take more than 512 MiB, at least 4 */
    double hold;              /* seconds of frames, and ten more, beside those, for callers that mask a frame when they know what follows; fewer where all of them
                               * would be more than 256 or take more than 512 MiB, none where the rate is unknown: info.held */
    int convert;              /* 1: frames are converted to RGB ahead, by a thread of its own, for callers that look at every frame; 0 without an output:
                               * frames that no other is predicted from come without their deblocking */
    int coarse;               /* 1: each frame has a coarse picture, the means of square cells, see lbr_transcode_coarse */
    int sound;                /* LBR_SOUND_*: every sound stream copied, or made AAC where the container cannot take it; none; voices distorted (AAC) */
} lbr_transcode_options;

typedef struct lbr_transcode_info {
    int width, height;        /* of the upright picture: masks' coordinates, lbr_transcode_rgb */
    int rotation;             /* degrees clockwise that the stored picture is turned by when shown */
    int sounds;               /* sound streams kept */
    int threads;              /* of the encoder */
    int queue;                /* frames on the way at most, the caller's among them */
    int held;                 /* of these, those of the option hold that there was room for */
    int cell, across, down;   /* coarse pictures: pixels along a cell, cells of the upright picture; 0 without */
    double fps, duration;     /* average rate, seconds; 0 when unknown */
    int64_t frames;           /* announced or estimated; 0 when unknown */
    char codec[32], format[32];   /* of the source */
} lbr_transcode_info;

typedef struct lbr_transcode_busy {
    double decode, convert, mask, encode;   /* seconds at work so far; encode: with the sound and the file */
    double elapsed;                         /* since opening */
    int64_t read, encoded;                  /* frames */
} lbr_transcode_busy;

/* Opens the input, decodes its first frame and, where there is an output, begins it under a temporary name.
 *   Kept: frames and their times, sound streams with their language, display matrix, pixel aspect, colour tags, bit depth. Unmasked frames reach the
 *   encoder bit for bit where their pixel format is one of H.264's. Left out: see lbr_transcode_dropped. Same input, masks, options and number of threads: same bytes.
 *   An odd size is padded by its last column or row where the format needs whole chroma samples.
 * Errors: as lbr_video_open; LBR_EINVAL (output is the input, unknown preset, format or container), LBR_EUNSUPPORTED (no encoder), LBR_EIO, LBR_ENOMEM. */
LBR_API int lbr_transcode_open(const char *input, const lbr_transcode_options *options, lbr_transcode **out);
LBR_API int lbr_transcode_describe(const lbr_transcode *transcode, lbr_transcode_info *out);

/* Next frame. index from 0; time in seconds from the beginning of the file; damaged 1: the decoder says that it is broken, 2: it could not be decoded at
 * all and is black. Several may be taken before their masks are given, at most info.queue - 1.
 * Errors: LBR_EEND, LBR_EINTR, LBR_EINVAL (too many are taken), and what any stage met. */
LBR_API int lbr_transcode_next(lbr_transcode *transcode, int64_t *index, double *time, int *damaged);

/* A taken frame, before its masks were given (only reading: one of the last queue / 2), upright: rgb [height,width,3] u8 out. Errors: LBR_EINVAL. */
LBR_API int lbr_transcode_rgb(lbr_transcode *transcode, int64_t index, uint8_t *rgb);

/* The same frame as the mean RGB of its cells, made while it was read: rgb [down,across,3] u8 out. Colours are those of one matrix for all files: to be compared
 * with other frames of the same file only. Errors: LBR_EINVAL. */
LBR_API int lbr_transcode_coarse(lbr_transcode *transcode, int64_t index, uint8_t *rgb);

/* Gives a frame its masks, in the upright picture's pixels; frames in order. Errors: LBR_EINVAL (another frame's turn; lbr_mask_check), LBR_ENOMEM. */
LBR_API int lbr_transcode_write(lbr_transcode *transcode, int64_t index, const lbr_mask *masks, int64_t count);

/* Gives the output up: from now on frames are only read, and given back by lbr_transcode_write as before; no file is left. */
LBR_API void lbr_transcode_abandon(lbr_transcode *transcode);

/* After the last frame was given its masks: ends the file, syncs and renames it. Errors: LBR_EINVAL (frames are left), LBR_EINTR, and what any stage met. */
LBR_API int lbr_transcode_finish(lbr_transcode *transcode);

LBR_API void lbr_transcode_busy_now(lbr_transcode *transcode, lbr_transcode_busy *out);

/* What is left out of the output, a line each ("subtitles: stream 2, mov_text", "tag: location"); values are not told. */
LBR_API const char *lbr_transcode_dropped(const lbr_transcode *transcode);

/* What was wrong with the input (complete once next returned LBR_EEND), what had to be done otherwise than asked; "" when nothing. */
LBR_API const char *lbr_transcode_warning(lbr_transcode *transcode);

/* Stops the threads and frees everything; an unfinished output leaves no file. NULL is allowed. */
LBR_API void lbr_transcode_free(lbr_transcode *transcode);

/* "mkv" where the input is Matroska or WebM, or its sound can be kept only there, else "mp4". Errors: as lbr_video_open. */
LBR_API int lbr_transcode_container(const char *input, int sound, char container[8]);

/* ---- hashes (libavutil) ---- */

typedef struct lbr_sha256 lbr_sha256;
LBR_API lbr_sha256 *lbr_sha256_new(void);  /* NULL: out of memory */
LBR_API void lbr_sha256_update(lbr_sha256 *hash, const void *data, size_t bytes);
/* hex: 65 bytes out, the digest and a zero byte; the hash starts again. */
LBR_API void lbr_sha256_hex(lbr_sha256 *hash, char *hex);
LBR_API void lbr_sha256_free(lbr_sha256 *hash);
/* Digest of a file. Errors: LBR_EIO, LBR_EINTR, LBR_ENOMEM. */
LBR_API int lbr_sha256_file(const char *path, char *hex);

/* Frame sources, writers and hashes alive, for leak checks. */
LBR_API int64_t lbr_media_live(void);

/* scene */
/* Ray-marched scenes: capsules and ellipsoids over a patterned plane, in; pictures, out. World: right-handed lengths in any unit,
 * the plane lies at z = `floor`, the camera and the light are above it. Colours are linear RGB, 0..1. */
enum { LBR_SHAPE_CAPSULE = 0, LBR_SHAPE_ELLIPSOID = 1 };
enum { LBR_REGION_ELLIPSOID = 0, LBR_REGION_BOX = 1 };
enum { LBR_PATTERN_PLAIN = 0, LBR_PATTERN_STRIPES = 1, LBR_PATTERN_DOTS = 2, LBR_PATTERN_CHECKS = 3, LBR_PATTERN_WEAVE = 4 };
enum { LBR_SCENE_PRIMITIVES = 128, LBR_SCENE_PAINTS = 128 };    /* most of each in one scene */

typedef struct lbr_pattern {
    int32_t kind;            /* LBR_PATTERN_* */
    float period, angle;     /* length of a repeat; rotation in radians */
    float second[3];         /* the other colour */
} lbr_pattern;

/* Primitives of one `part` follow each other and melt together within `blend`; different parts only touch. */
typedef struct lbr_primitive {
    int32_t shape, part, group;   /* group 0..31: what paints select by */
    float a[3], b[3];             /* capsule: its ends. ellipsoid: centre, semi-axes */
    float radius[2];              /* capsule: at a and at b */
    float axes[9];                /* ellipsoid: rows are its unit axes in the world */
    float blend;                  /* length over which it melts with the primitives before it */
    float colour[3], gloss;       /* gloss 0..1: strength of the highlight */
} lbr_primitive;

/* A region of space that recolours the surface inside it; later paints cover earlier ones. */
typedef struct lbr_paint {
    int32_t region;               /* LBR_REGION_* */
    uint32_t groups;              /* bit g set: paints primitives of group g */
    float centre[3], axes[9];     /* rows are unit axes in the world; the pattern lies in the first two */
    float radius[3];              /* semi-axes, or half sides */
    float soft, opacity;          /* share of the radius over which the rim fades; 0..1 */
    float colour[3], gloss;
    lbr_pattern pattern;
} lbr_paint;

typedef struct lbr_scene {
    const lbr_primitive *primitives; int32_t primitive_count;
    const lbr_paint *paints; int32_t paint_count;
    float camera[3], axes[9];     /* place; rows are right, down, forward */
    float focal, centre[2];       /* pixels; the top left corner of the picture is 0, 0 */
    float light[3], softness;     /* direction towards the light; half width of its penumbra, radians */
    float sun[3], sky[3];         /* colours of the direct and of the surrounding light */
    float floor, colour[3];       /* the plane's height and colour */
    lbr_pattern pattern;
    float folds;                  /* slope of the plane's soft wrinkles */
    float unit;                   /* typical length of a limb's radius: scales shadow and occlusion distances */
    float exposure, gamma, vignette;
    float noise;                  /* standard deviation of the sensor's noise at mid grey, in steps of 1/255 */
    uint32_t seed;                /* of the noise and the wrinkles' texture: one number a frame, one a scene */
    uint32_t texture;
} lbr_scene;

/* Renders n scenes into rgb u8 [n,height,width,3]. Same bytes for any number of threads.
 * Errors: LBR_EINVAL (counts, sizes, a number that is not finite), LBR_ENOMEM, LBR_EINTR after Ctrl-C.
 * Source: Hart 1996 (sphere tracing); Quilez, "distance functions", "smooth minimum", "soft shadows". */
LBR_API int lbr_scene_render(const lbr_scene *scenes, int64_t n, int32_t width, int32_t height, uint8_t *rgb);

/* Renders n scenes and writes each as a PNG , a frame a thread, packed for speed, not synced. paths: n strings, each ended by a zero byte.
 * Errors: those of lbr_scene_render; LBR_EIO of the first file that could not be written. */
LBR_API int lbr_scene_write(const lbr_scene *scenes, int64_t n, int32_t width, int32_t height, const char *paths);
/* end scene */

#endif
