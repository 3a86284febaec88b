/* jpeg.c: one JPEG picture through libjpeg, as Pillow and OpenCV decode it (FFmpeg's chroma differs by up to 3 levels). Not motion JPEG. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
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

static unsigned word(const uint8_t *p, bool little) { return little ? p[0] | (unsigned)p[1] << 8 : p[1] | (unsigned)p[0] << 8; }
static size_t word4(const uint8_t *p, bool little) { return little ? word(p, true) | (size_t)word(p + 2, true) << 16 : (size_t)word(p, false) << 16 | word(p + 2, false); }

/* The orientation tag (0x0112) of the first directory in an EXIF block as our quarter turns; 0 where there is none. Source: EXIF 2.3, TIFF 6.0. */
static int orientation_of(const uint8_t *exif, size_t size)
{
    static const int turns[9] = { 0, 0, 4, 2, 6, 7, 1, 5, 3 };
    if (size < 14 || memcmp(exif, "Exif\0", 6) != 0) return 0;
    const uint8_t *tiff = exif + 6;
    size_t length = size - 6;
    bool little = tiff[0] == 'I';
    size_t at = word4(tiff + 4, little);
    if (at > length - 2) return 0;
    size_t entries = word(tiff + at, little);
    for (size_t i = 0; i < entries; i++) {
        size_t entry = at + 2 + 12 * i;
        if (entry + 12 > length) return 0;
        if (word(tiff + entry, little) != 0x0112) continue;
        unsigned value = word(tiff + entry + 8, little);
        return value <= 8 ? turns[value] : 0;
    }
    return 0;
}

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
                if (m->marker == JPEG_APP0 + 1 && !picture->orientation) picture->orientation = orientation_of(m->data, m->data_length);
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
