/* A recipe: any bytes are read or refused with a message; what is read is written, and read back
 * to the same text. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "train/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool read_bytes(hd_recipe *r, const void *p, size_t n, hd_err *err)
{
    char path[64];
    int fd = memfd_create("recipe", MFD_CLOEXEC);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n) __builtin_trap();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    err->msg[0] = 0;
    hd_status st = hd_recipe_read(r, HD_RUN_PRETRAIN, path, NULL, 0, err);
    close(fd);
    if (st != HD_OK && !err->msg[0]) __builtin_trap();
    return st == HD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err;
    hd_recipe r, again;
    hd_buf one, two;
    if (!read_bytes(&r, data, size, &err)) return 0;
    hd_buf_init(&one, 1 << 22);
    hd_buf_init(&two, 1 << 22);
    if (hd_recipe_write(&r, &one, &err) == HD_OK && read_bytes(&again, one.data, one.len, &err)) {
        if (hd_recipe_write(&again, &two, &err) != HD_OK || strcmp(one.data, two.data) != 0) __builtin_trap();
        hd_recipe_free(&again);
    }
    hd_recipe_free(&r);
    hd_buf_free(&one);
    hd_buf_free(&two);
    return 0;
}
