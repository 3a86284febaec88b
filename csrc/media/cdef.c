/* cdef.c: the text of media.h, preprocessed, for whoever opens the library. */
#include "media.h"

static const char text[] =
#include "media_cdef.inc"
    ;

const char *lbr_media_cdef(void) { return text; }
