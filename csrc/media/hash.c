/* hash.c: SHA-256 of memory and files, through libavutil. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/mem.h>
#include <libavutil/sha.h>
#include "internal.h"

struct lbr_sha256 {
    struct AVSHA *state;
};

lbr_sha256 *lbr_sha256_new(void)
{
    lbr_sha256 *hash = calloc(1, sizeof *hash);
    if (hash && !(hash->state = av_sha_alloc())) {
        free(hash);
        hash = NULL;
    }
    if (!hash) return NULL;
    av_sha_init(hash->state, 256);
    atomic_fetch_add(&lbr_media_count, 1);
    return hash;
}

void lbr_sha256_update(lbr_sha256 *hash, const void *data, size_t bytes) { av_sha_update(hash->state, data, bytes); }

void lbr_sha256_hex(lbr_sha256 *hash, char *hex)
{
    uint8_t digest[32];
    av_sha_final(hash->state, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    av_sha_init(hash->state, 256);
}

void lbr_sha256_free(lbr_sha256 *hash)
{
    if (!hash) return;
    av_free(hash->state);
    free(hash);
    atomic_fetch_sub(&lbr_media_count, 1);
}

int lbr_sha256_file(const char *path, char *hex)
{
    enum { CHUNK = 1 << 20 };
    FILE *file = fopen(path, "rb");
    if (!file) return lbr_fail(LBR_EIO, "sha256: %s: %s", path, strerror(errno));
    lbr_sha256 *hash = lbr_sha256_new();
    uint8_t *chunk = malloc(CHUNK);
    int status = hash && chunk ? LBR_OK : lbr_fail(LBR_ENOMEM, "sha256: %s: no memory", path);
    while (status == LBR_OK) {
        size_t n = fread(chunk, 1, CHUNK, file);
        if (ferror(file)) status = lbr_fail(LBR_EIO, "sha256: %s: %s", path, strerror(errno));
        else if (lbr_interrupted()) status = lbr_fail(LBR_EINTR, "sha256: %s: interrupted", path);
        else if (n == 0) break;
        else lbr_sha256_update(hash, chunk, n);
    }
    if (status == LBR_OK) lbr_sha256_hex(hash, hex);
    free(chunk);
    lbr_sha256_free(hash);
    fclose(file);
    return status;
}
