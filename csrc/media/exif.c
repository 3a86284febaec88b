/* exif.c: the orientation that a picture file asks for, out of its EXIF block; nothing else of EXIF is ever read, and nothing is written. Source: EXIF 2.3, TIFF 6.0. */
#include <string.h>
#include "internal.h"

static unsigned word(const uint8_t *p, bool little) { return little ? p[0] | (unsigned)p[1] << 8 : p[1] | (unsigned)p[0] << 8; }
static size_t word4(const uint8_t *p, bool little) { return little ? word(p, true) | (size_t)word(p + 2, true) << 16 : (size_t)word(p, false) << 16 | word(p + 2, false); }

int lbr_exif_orientation(const uint8_t *tiff, size_t size)
{
    static const int turns[9] = { 0, 0, 4, 2, 6, 7, 1, 5, 3 };
    if (size >= 6 && memcmp(tiff, "Exif\0", 6) == 0) tiff += 6, size -= 6;
    if (size < 8 || (memcmp(tiff, "II*\0", 4) != 0 && memcmp(tiff, "MM\0*", 4) != 0)) return 0;
    bool little = tiff[0] == 'I';
    size_t at = word4(tiff + 4, little);
    if (at > size - 2) return 0;
    size_t entries = word(tiff + at, little);
    for (size_t i = 0; i < entries; i++) {
        size_t entry = at + 2 + 12 * i;
        if (entry + 12 > size) return 0;
        if (word(tiff + entry, little) != 0x0112) continue;
        unsigned value = word(tiff + entry + 8, little);
        return value <= 8 ? turns[value] : 0;
    }
    return 0;
}

int lbr_exif_of_webp(const uint8_t *data, size_t size)
{
    for (size_t at = 12; at + 8 <= size;) {
        size_t length = word4(data + at + 4, true);
        if (length > size - at - 8) break;
        if (memcmp(data + at, "EXIF", 4) == 0) return lbr_exif_orientation(data + at + 8, length);
        at += 8 + length + (length & 1);
    }
    return 0;
}
