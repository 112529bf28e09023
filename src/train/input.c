/* A file as a stream of bytes: a window that moves over its mapping, or zstd frames unpacked into one buffer.
 * What was read is given back to the system, so a file may be far larger than memory. */
#include "train/input.h"

#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

/* WINDOW_LOG: 128 MB, what `zstd -19` and less need; a frame that wants more (--long=31: 2 GB) is
 * refused by the library. */
enum { STEP = 1 << 20, WINDOW_LOG = 27 };

struct hd_input {
    hd_map map;
    char *path;
    size_t at;     // in the mapping: taken so far
    const char *p; // what is at hand
    size_t n;
    /* .zst */
    ZSTD_DStream *z;
    char *out;
    size_t out_bytes;
    bool inside; // of a frame
};

bool hd_ends_in(const char *path, const char *tail)
{
    size_t n = strlen(path), k = strlen(tail);
    return n > k && strcmp(path + n - k, tail) == 0;
}

void hd_input_close(hd_input *in)
{
    if (!in) return;
    ZSTD_freeDStream(in->z);
    hd_map_close(&in->map);
    free(in->out);
    free(in->path);
    free(in);
}

hd_status hd_input_open(hd_input **out, const char *path, hd_err *err)
{
    hd_status st;
    hd_input *in = NULL;
    HD_TRY(hd_alloc(&in, sizeof *in, err));
    HD_TRY(hd_strdup(&in->path, path, err));
    HD_TRY(hd_map_open(&in->map, path, err));
    if (hd_ends_in(path, ".zst")) {
        in->out_bytes = ZSTD_DStreamOutSize();
        HD_TRY(hd_alloc(&in->out, in->out_bytes, err));
        if (!(in->z = ZSTD_createDStream()) ||
            ZSTD_isError(ZSTD_DCtx_setParameter(in->z, ZSTD_d_windowLogMax, WINDOW_LOG)))
            HD_TRY(hd_fail(err, HD_NOMEM, "read: %.200s: no memory for zstd", path));
    }
    *out = in;
    return HD_OK;
fail:
    hd_input_close(in);
    return st;
}

/* The mapping's next bytes; the pages behind are given back. */
static size_t step(hd_input *in, const char **p)
{
    size_t n = in->map.size - in->at;
    if (n > STEP) n = STEP;
    if (in->at >= STEP && n) hd_map_release(&in->map, in->map.data + in->at - STEP, STEP);
    *p = n ? (const char *)in->map.data + in->at : NULL;
    in->at += n;
    return n;
}

static hd_status unpack(hd_input *in, hd_err *err)
{
    while (!in->n) {
        size_t left = in->map.size - in->at;
        ZSTD_inBuffer from = {left ? in->map.data + in->at : NULL, left < STEP ? left : STEP, 0};
        ZSTD_outBuffer to = {in->out, in->out_bytes, 0};
        size_t r = ZSTD_decompressStream(in->z, &to, &from);
        if (ZSTD_isError(r))
            return hd_fail(err, ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation ? HD_NOMEM : HD_FORMAT,
                           "read: %.200s: zstd, near byte %zu: %s", in->path, in->at, ZSTD_getErrorName(r));
        if (!from.pos && !to.pos) {
            if (left)
                return hd_fail(err, HD_FORMAT, "read: %.200s: zstd does not go on at byte %zu", in->path,
                               in->at);
            if (in->inside)
                return hd_fail(err, HD_FORMAT, "read: %.200s: cut short: the last zstd frame has no end",
                               in->path);
            return HD_OK;
        }
        if (from.pos || to.pos) in->inside = r != 0;
        size_t was = in->at;
        in->at += from.pos;
        if (was / STEP != in->at / STEP && was >= STEP)
            hd_map_release(&in->map, in->map.data + (was / STEP - 1) * STEP, STEP);
        in->p = in->out;
        in->n = to.pos;
    }
    return HD_OK;
}

hd_status hd_input_peek(hd_input *in, const char **p, size_t *n, hd_err *err)
{
    hd_status st = HD_OK;
    if (!in->n) {
        if (in->z) st = unpack(in, err);
        else in->n = step(in, &in->p);
    }
    *p = in->p;
    *n = in->n;
    return st;
}

void hd_input_skip(hd_input *in, size_t n)
{
    in->p += n;
    in->n -= n;
}

uint64_t hd_input_done(const hd_input *in) { return in->z ? in->at : in->at - in->n; }
