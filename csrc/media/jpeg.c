/* jpeg.c: one JPEG picture through libjpeg: in as Pillow and OpenCV decode it (FFmpeg's chroma differs by up to 3 levels), and out. Not motion JPEG. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <jpeglib.h>
#include <jerror.h>
#include "internal.h"

struct failure {
    struct jpeg_error_mgr manager;
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
};

static void failed(j_common_ptr cinfo)
{
    struct failure *f = (struct failure *)cinfo->err;
    if (cinfo->err->msg_code == JWRN_JPEG_EOF) strcpy(f->message, "the file ends too early");
    else cinfo->err->format_message(cinfo, f->message);
    longjmp(f->jump, 1);
}

/* libjpeg paints what is missing grey and only warns: a picture that is not whole is refused here. */
static void warned(j_common_ptr cinfo, int level)
{
    int code = cinfo->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE)) failed(cinfo);
}

static void printed(j_common_ptr cinfo) { (void)cinfo; }

int lbr_jpeg_decode(const char *function, const char *path, const uint8_t *data, size_t size, struct lbr_frame *picture)
{
    struct jpeg_decompress_struct jpeg;
    struct failure f;
    volatile int status = LBR_OK;
    memset(&jpeg, 0, sizeof jpeg);
    jpeg.err = jpeg_std_error(&f.manager);
    f.manager.error_exit = failed;
    f.manager.emit_message = warned;
    f.manager.output_message = printed;
    if (setjmp(f.jump)) {
        jpeg_destroy_decompress(&jpeg);
        return lbr_fail(LBR_EFORMAT, "%s: %s: broken JPEG: %s", function, path, f.message);
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, (unsigned char *)data, (unsigned long)size);
    jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&jpeg, TRUE);
    if (jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK) {
        status = lbr_fail(LBR_EUNSUPPORTED, "%s: %s: a JPEG in CMYK", function, path);
    } else if (3.0 * jpeg.image_width * jpeg.image_height > (double)LBR_PICTURE_RATIO * (double)size) {
        status = lbr_fail(LBR_EFORMAT, "%s: %s: broken JPEG: it claims more pixels than its bytes can hold", function, path);
    } else {
        jpeg.out_color_space = JCS_RGB;
        jpeg_start_decompress(&jpeg);
        status = lbr_frame_begin(picture, (int)jpeg.output_width, (int)jpeg.output_height, size);
        if (status != LBR_OK) {
            status = lbr_fail(status, "%s: %s: %s", function, path, lbr_error());
        } else {
            picture->orientation = 0;
            for (jpeg_saved_marker_ptr m = jpeg.marker_list; m; m = m->next)
                if (m->marker == JPEG_APP0 + 1 && !picture->orientation) picture->orientation = lbr_exif_orientation(m->data, m->data_length);
            while (jpeg.output_scanline < jpeg.output_height) {
                status = lbr_frame_reach(picture, (int)jpeg.output_scanline);
                if (status != LBR_OK) break;
                JSAMPROW row = picture->data + (size_t)jpeg.output_scanline * (size_t)picture->stride;
                jpeg_read_scanlines(&jpeg, &row, 1);
            }
            if (status == LBR_OK) jpeg_finish_decompress(&jpeg);
        }
    }
    jpeg_destroy_decompress(&jpeg);
    return status;
}

static int encode(FILE *file, const uint8_t *pixels, int width, int height, int channels, int quality)
{
    struct jpeg_compress_struct jpeg;
    struct failure f;
    memset(&jpeg, 0, sizeof jpeg);
    jpeg.err = jpeg_std_error(&f.manager);
    f.manager.error_exit = failed;
    f.manager.output_message = printed;
    if (setjmp(f.jump)) {
        jpeg_destroy_compress(&jpeg);
        return jpeg.err->msg_code == JERR_FILE_WRITE ? EIO : jpeg.err->msg_code == JERR_OUT_OF_MEMORY ? ENOMEM : EINVAL;
    }
    jpeg_create_compress(&jpeg);
    jpeg_stdio_dest(&jpeg, file);
    jpeg.image_width = (JDIMENSION)width;
    jpeg.image_height = (JDIMENSION)height;
    jpeg.input_components = channels;
    jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, quality, TRUE);
    jpeg.optimize_coding = TRUE;
    if (channels == 3 && quality >= 90) jpeg.comp_info[0].h_samp_factor = jpeg.comp_info[0].v_samp_factor = 1;   /* chroma in full */
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = (JSAMPROW)(pixels + (size_t)jpeg.next_scanline * (size_t)width * (size_t)channels);
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return 0;
}

static int check(const char *name, const char *path, int width, int height, int channels, int quality)
{
    if ((channels != 1 && channels != 3) || width < 1 || height < 1 || width > JPEG_MAX_DIMENSION || height > JPEG_MAX_DIMENSION)
        return lbr_fail(LBR_EINVAL, "%s: %s: %d x %d pixels of %d channels, want 1 or 3 channels and 1 to %ld pixels a side", name, path, width, height, channels,
                        (long)JPEG_MAX_DIMENSION);
    return quality < 1 || quality > 100 ? lbr_fail(LBR_EINVAL, "%s: %s: quality is %d, want 1 to 100", name, path, quality) : LBR_OK;
}

int lbr_jpeg_pack(const uint8_t *pixels, int width, int height, int channels, int quality, char **data, size_t *size)
{
    *data = NULL;
    int status = check("jpeg_pack", "a picture", width, height, channels, quality);
    if (status != LBR_OK) return status;
    FILE *file = open_memstream(data, size);
    int failed = !file || encode(file, pixels, width, height, channels, quality) != 0;
    if (file && fclose(file) != 0) failed = 1;
    if (!failed) return LBR_OK;
    free(*data);
    *data = NULL;
    return lbr_fail(LBR_ENOMEM, "jpeg_pack: no memory");
}

void lbr_jpeg_free(char *data) { free(data); }

int lbr_jpeg_write(const char *path, const uint8_t *pixels, int width, int height, int channels, int quality)
{
    int status = check("jpeg_write", path, width, height, channels, quality);
    if (status != LBR_OK) return status;
    char *temporary = lbr_file_temporary(path);
    if (!temporary) return lbr_fail(LBR_ENOMEM, "jpeg_write: no memory");
    FILE *file = fopen(temporary, "wb");
    if (!file) {
        status = lbr_fail(LBR_EIO, "jpeg_write: %s: %s", path, strerror(errno));
    } else {
        errno = 0;
        int error = encode(file, pixels, width, height, channels, quality), cause = errno;
        if (fclose(file) != 0 && !error) error = EIO, cause = errno;
        if (!error) {
            status = lbr_file_publish("jpeg_write", temporary, path);
        } else {
            unlink(temporary);
            status = error == ENOMEM ? lbr_fail(LBR_ENOMEM, "jpeg_write: %s: no memory", path) : lbr_fail(LBR_EIO, "jpeg_write: %s: %s", path, strerror(cause ? cause : error));
        }
    }
    free(temporary);
    return status;
}
