/* The writer of safetensors files.  The header (a line of JSON for each tensor) is collected in memory, the
 * data is streamed, and the file takes its name only when all of it is there (hd_newfile).  It is padded with
 * blanks to a multiple of 8 and says {"format": "pt"}, without which transformers refuses it.
 *
 * The calls come in one order, which the state checks:  put... -> begin -> write... -> commit. */
#include "model/safetensors_write.h"

#include <string.h>

#include "base/crc32c.h"
#include "model/names.h"

typedef enum { COLLECTING, WRITING, DONE } state;

struct hd_safetensors_writer {
    char *path;
    hd_newfile file;
    state state;
    hd_buf head;
    uint64_t announced, written; // bytes of data
    uint32_t crc;
};

static const size_t MAX_HEADER_BYTES = 100 * 1000 * 1000; // what readers accept

static const struct {
    hd_type type;
    const char *name;
    size_t bytes;
} dtypes[] = {
    {HD_F32, "F32", 4}, {HD_BF16, "BF16", 2}, {HD_F16, "F16", 2}, {HD_F64, "F64", 8},
    {HD_I64, "I64", 8}, {HD_I32, "I32", 4},   {HD_I8, "I8", 1},
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

hd_status hd_safetensors_writer_open(hd_safetensors_writer **out, const char *path, hd_err *err)
{
    hd_status st;
    hd_safetensors_writer *w = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&w, sizeof *w, err));
    w->file.fd = -1;
    hd_buf_init(&w->head, MAX_HEADER_BYTES);
    HD_TRY(hd_strdup(&w->path, path, err));
    HD_TRY(hd_buf_adds(&w->head, "{\"__metadata__\":{\"format\":\"pt\"}", err));
    *out = w;
    return HD_OK;
fail:
    hd_safetensors_writer_close(w);
    return st;
}

void hd_safetensors_writer_close(hd_safetensors_writer *w)
{
    if (!w) return;
    if (w->state == WRITING) hd_newfile_abort(&w->file);
    hd_buf_free(&w->head);
    free(w->path);
    free(w);
}

hd_status hd_safetensors_put(hd_safetensors_writer *w, const char *name, hd_type type, int n_dims, const int64_t *dim,
                             hd_err *err)
{
    hd_status st;
    int d = 0;
    size_t bytes, end;
    if (w->state != COLLECTING)
        return hd_fail(err, HD_USAGE, "safetensors: %s: tensor %s after the data has begun", w->path, name);
    while (d < N_DTYPES && dtypes[d].type != type) d++;
    if (d == N_DTYPES || n_dims < 1 || n_dims > HD_MAX_DIMS || !hd_name_ok(name, strlen(name), 255) ||
        strpbrk(name, "\"\\"))
        return hd_fail(err, HD_USAGE, "safetensors: tensor %.100s: its name, format or number of dimensions cannot be written",
                       name);
    bytes = dtypes[d].bytes;
    for (int i = 0; i < n_dims; i++)
        if (dim[i] <= 0 || !hd_mul(&bytes, bytes, (size_t)dim[i]))
            return hd_fail(err, HD_USAGE, "safetensors: tensor %s: dimension %d makes no sense", name, i);
    if (!hd_add(&end, (size_t)w->announced, bytes))
        return hd_fail(err, HD_LIMIT, "safetensors: %s: larger than any file", w->path);
    if (w->announced % dtypes[d].bytes)
        return hd_fail(err, HD_USAGE, "safetensors: tensor %s: wider numbers behind narrower ones would not be aligned", name);
    HD_TRY(hd_buf_addf(&w->head, err, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", name, dtypes[d].name));
    for (int i = 0; i < n_dims; i++) HD_TRY(hd_buf_addf(&w->head, err, "%s%lld", i ? "," : "", (long long)dim[i]));
    HD_TRY(hd_buf_addf(&w->head, err, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)w->announced,
                       (unsigned long long)end));
    w->announced = end;
fail:
    return st;
}

static hd_status out(hd_safetensors_writer *w, const void *p, size_t n, hd_err *err)
{
    w->crc = hd_crc32c(w->crc, p, n);
    return hd_newfile_write(&w->file, p, n, err);
}

hd_status hd_safetensors_begin(hd_safetensors_writer *w, hd_err *err)
{
    hd_status st;
    if (w->state != COLLECTING) return hd_fail(err, HD_USAGE, "safetensors: %s: the data has begun already", w->path);
    HD_TRY(hd_buf_adds(&w->head, "}", err));
    while (w->head.len % 8) HD_TRY(hd_buf_adds(&w->head, " ", err));
    HD_TRY(hd_newfile_begin(&w->file, w->path, err));
    w->state = WRITING;
    uint64_t n = w->head.len;
    HD_TRY(out(w, &n, sizeof n, err));
    HD_TRY(out(w, w->head.data, w->head.len, err));
fail:
    return st;
}

hd_status hd_safetensors_write(hd_safetensors_writer *w, const void *p, size_t n_bytes, hd_err *err)
{
    if (w->state != WRITING || n_bytes > w->announced - w->written)
        return hd_fail(err, HD_USAGE, "safetensors: %s: more data than the tensors have", w->path);
    hd_status st = out(w, p, n_bytes, err);
    if (st == HD_OK) w->written += n_bytes;
    return st;
}

hd_status hd_safetensors_commit(hd_safetensors_writer *w, uint32_t *crc32c, uint64_t *bytes, hd_err *err)
{
    if (w->state != WRITING || w->written != w->announced)
        return hd_fail(err, HD_USAGE, "safetensors: %s: %llu bytes of data where the tensors have %llu", w->path,
                       (unsigned long long)w->written, (unsigned long long)w->announced);
    if (crc32c) *crc32c = w->crc;
    if (bytes) *bytes = w->file.offset;
    w->state = DONE; // commit ends the file, also when it fails
    return hd_newfile_commit(&w->file, err);
}
