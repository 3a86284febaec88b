/* file.c: whole files in, temporary names and renames out. Knows no formats. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <libavutil/mem.h>
#include "internal.h"

char *lbr_file_temporary(const char *path)
{
    static atomic_uint counter = 1000000;   /* files.lua counts its own from 1 */
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    size_t size = strlen(path) + 48;
    char *name = malloc(size);
    if (name)
        snprintf(name, size, "%.*s.tmp-%ld-%u-%s", folder, path, (long)getpid(), atomic_fetch_add(&counter, 1), path + folder);
    return name;
}

int lbr_file_read(const char *function, const char *path, uint8_t **data, size_t *size)
{
    *data = NULL;
    FILE *file = fopen(path, "rb");
    struct stat status;
    if (!file || fstat(fileno(file), &status) != 0) {
        int error = errno;
        if (file) fclose(file);
        return lbr_fail(LBR_EIO, "%s: %s: %s", function, path, strerror(error));
    }
    int code = LBR_OK;
    if (S_ISDIR(status.st_mode)) code = lbr_fail(LBR_EIO, "%s: %s: is a folder, want a file", function, path);
    else if (status.st_size == 0) code = lbr_fail(LBR_EFORMAT, "%s: %s: the file is empty", function, path);
    else if (status.st_size > 1 << 30) code = lbr_fail(LBR_EFORMAT, "%s: %s: %lld bytes are too many for a picture", function, path, (long long)status.st_size);
    if (code == LBR_OK) {
        *size = (size_t)status.st_size;
        *data = av_mallocz(*size + AV_INPUT_BUFFER_PADDING_SIZE);
        if (!*data) code = lbr_fail(LBR_ENOMEM, "%s: %s: no memory", function, path);
        else if (fread(*data, 1, *size, file) != *size) code = lbr_fail(LBR_EIO, "%s: %s: %s", function, path, ferror(file) ? strerror(errno) : "shrank while it was read");
    }
    fclose(file);
    if (code != LBR_OK) av_freep(data);
    return code;
}

int lbr_file_publish(const char *function, const char *temporary, const char *path)
{
    int file = open(temporary, O_RDONLY | O_CLOEXEC);
    int bad = file < 0 || fsync(file) != 0, error = errno;
    if (file >= 0) close(file);
    if (!bad && rename(temporary, path) == 0) return LBR_OK;
    if (!bad) error = errno;
    unlink(temporary);
    return lbr_fail(LBR_EIO, "%s: %s: %s", function, path, strerror(error));
}
