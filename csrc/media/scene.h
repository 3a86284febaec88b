/* scene.h: what scene.c and scene_png.c share; the public part is in media.h. */
#ifndef LBR_SCENE_H
#define LBR_SCENE_H
#include <stdint.h>

/* Writes rgb [height,width,3] as a PNG that is quick to pack: noise leaves nothing for a thorough search to find. Plain write to path.
 * Errors: LBR_EIO, LBR_ENOMEM. */
int lbr_scene_png(const char *path, const uint8_t *rgb, int width, int height);

#endif
