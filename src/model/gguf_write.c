/* GGUF v3, the writer.  Keys and tensor infos are collected in memory (a vocabulary is a few megabytes), the
 * data is streamed, and the file appears under its name only when all of it is there (hd_newfile).
 *
 * The calls come in one order, which the state checks:  put_kv... and put_tensor... -> begin_data ->
 * write... -> commit. */
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"

enum { ALIGN = 32, MAX_NAME = 63 }; // llama.cpp keeps names of tensors in 64 bytes
static const size_t MAX_HEAD_BYTES = (size_t)128 << 20; // what the reader accepts

typedef enum { COLLECTING, WRITING, DONE } state;

struct hd_gguf_writer {
    char *path;
    hd_newfile file;
    state state;
    hd_buf kv, infos;
    uint64_t n_kv, offset;      // offset: of the next tensor, from the start of the data
    size_t *bytes;              // of each tensor
    int64_t n_tensors, cap_tensors;
    int64_t now;                // tensor being written, and what it still lacks
    size_t left;
};

hd_status hd_gguf_writer_open(hd_gguf_writer **out, const char *path, hd_err *err)
{
    hd_status st;
    hd_gguf_writer *w = NULL;
    HD_TRY(hd_alloc(&w, sizeof *w, err));
    w->file.fd = -1;
    hd_buf_init(&w->kv, MAX_HEAD_BYTES);
    hd_buf_init(&w->infos, MAX_HEAD_BYTES);
    HD_TRY(hd_strdup(&w->path, path, err));
    *out = w;
    return HD_OK;
fail:
    hd_gguf_writer_close(w);
    return st;
}

void hd_gguf_writer_close(hd_gguf_writer *w)
{
    if (!w) return;
    if (w->state == WRITING) hd_newfile_abort(&w->file);
    hd_buf_free(&w->kv);
    hd_buf_free(&w->infos);
    free(w->bytes);
    free(w->path);
    free(w);
}

/* ---- Keys ---- */

static hd_status add_str(hd_buf *b, const char *p, uint64_t n, hd_err *err)
{
    hd_status st = hd_buf_add(b, &n, sizeof n, err);
    return st == HD_OK ? hd_buf_add(b, p, (size_t)n, err) : st;
}

static hd_status add_u32(hd_buf *b, uint32_t v, hd_err *err) { return hd_buf_add(b, &v, sizeof v, err); }

static hd_status begin_kv(hd_gguf_writer *w, const char *key, size_t n, hd_gguf_type type, hd_err *err)
{
    hd_status st;
    if (w->state != COLLECTING) return hd_fail(err, HD_USAGE, "gguf: %s: a key after the data has begun", w->path);
    HD_TRY(add_str(&w->kv, key, n, err));
    HD_TRY(add_u32(&w->kv, (uint32_t)type, err));
    w->n_kv++;
fail:
    return st;
}

static hd_status put_scalar(hd_gguf_writer *w, const char *key, hd_gguf_type type, const void *v, size_t n, hd_err *err)
{
    hd_status st = begin_kv(w, key, strlen(key), type, err);
    return st == HD_OK ? hd_buf_add(&w->kv, v, n, err) : st;
}

hd_status hd_gguf_put_kv(hd_gguf_writer *w, const hd_gguf_kv *kv, hd_err *err)
{
    hd_status st;
    HD_TRY(begin_kv(w, kv->key.p, (size_t)kv->key.n, kv->type, err));
    if (kv->type == HD_GGUF_ARR) {
        HD_TRY(add_u32(&w->kv, (uint32_t)kv->elem, err));
        HD_TRY(hd_buf_add(&w->kv, &kv->n, sizeof kv->n, err));
    }
    HD_TRY(hd_buf_add(&w->kv, kv->data, kv->bytes, err));
fail:
    return st;
}

hd_status hd_gguf_put_u32(hd_gguf_writer *w, const char *key, uint32_t v, hd_err *err)
{
    return put_scalar(w, key, HD_GGUF_U32, &v, sizeof v, err);
}

hd_status hd_gguf_put_f32(hd_gguf_writer *w, const char *key, float v, hd_err *err)
{
    return put_scalar(w, key, HD_GGUF_F32, &v, sizeof v, err);
}

hd_status hd_gguf_put_bool(hd_gguf_writer *w, const char *key, bool v, hd_err *err)
{
    uint8_t byte = v;
    return put_scalar(w, key, HD_GGUF_BOOL, &byte, 1, err);
}

hd_status hd_gguf_put_str(hd_gguf_writer *w, const char *key, const char *v, size_t n, hd_err *err)
{
    hd_status st = begin_kv(w, key, strlen(key), HD_GGUF_STR, err);
    return st == HD_OK ? add_str(&w->kv, v, n, err) : st;
}

static hd_status begin_arr(hd_gguf_writer *w, const char *key, hd_gguf_type elem, uint64_t n, hd_err *err)
{
    hd_status st;
    HD_TRY(begin_kv(w, key, strlen(key), HD_GGUF_ARR, err));
    HD_TRY(add_u32(&w->kv, (uint32_t)elem, err));
    HD_TRY(hd_buf_add(&w->kv, &n, sizeof n, err));
fail:
    return st;
}

hd_status hd_gguf_put_arr(hd_gguf_writer *w, const char *key, hd_gguf_type elem, const void *data, uint64_t n, hd_err *err)
{
    static const size_t size[] = {[HD_GGUF_U8] = 1,  [HD_GGUF_I8] = 1,  [HD_GGUF_U16] = 2,  [HD_GGUF_I16] = 2,
                                  [HD_GGUF_U32] = 4, [HD_GGUF_I32] = 4, [HD_GGUF_F32] = 4,  [HD_GGUF_BOOL] = 1,
                                  [HD_GGUF_U64] = 8, [HD_GGUF_I64] = 8, [HD_GGUF_F64] = 8};
    size_t bytes;
    if ((size_t)elem >= sizeof size / sizeof size[0] || !size[elem] || !hd_mul(&bytes, size[elem], (size_t)n))
        return hd_fail(err, HD_USAGE, "gguf: %s: %s: no array of numbers", w->path, key);
    hd_status st = begin_arr(w, key, elem, n, err);
    return st == HD_OK ? hd_buf_add(&w->kv, data, bytes, err) : st;
}

hd_status hd_gguf_put_arr_str(hd_gguf_writer *w, const char *key, const hd_gguf_str *v, uint64_t n, hd_err *err)
{
    hd_status st;
    HD_TRY(begin_arr(w, key, HD_GGUF_STR, n, err));
    for (uint64_t i = 0; i < n; i++) HD_TRY(add_str(&w->kv, v[i].p, v[i].n, err));
fail:
    return st;
}

/* ---- Tensors ---- */

static hd_status tensor_bytes(size_t *bytes, const char *name, hd_type type, int n_dims, const int64_t *dim, hd_err *err)
{
    const hd_format *f = hd_format_get((int)type);
    if (!f || type == HD_F8_E4M3) return hd_fail(err, HD_USAGE, "gguf: tensor %s: its format is none of GGUF's", name);
    if (n_dims < 1 || n_dims > HD_MAX_DIMS || strlen(name) > MAX_NAME)
        return hd_fail(err, HD_UNSUPPORTED, "gguf: tensor %s: 1 to %d dimensions and names of 1 to %d bytes can be written",
                       name, HD_MAX_DIMS, MAX_NAME);
    bool ok = dim[n_dims - 1] > 0 && hd_format_row_bytes(f, dim[n_dims - 1], bytes);
    for (int i = 0; ok && i < n_dims - 1; i++) ok = dim[i] > 0 && hd_mul(bytes, *bytes, (size_t)dim[i]);
    if (!ok) return hd_fail(err, HD_USAGE, "gguf: tensor %s: rows of %lld do not fit %s", name, (long long)dim[n_dims - 1], f->name);
    return HD_OK;
}

/* Bytes up to the next multiple of ALIGN. */
static size_t padding(uint64_t n) { return (size_t)(-n % ALIGN); }

hd_status hd_gguf_put_tensor(hd_gguf_writer *w, const char *name, hd_type type, int n_dims, const int64_t *dim, hd_err *err)
{
    hd_status st;
    size_t bytes, total;
    if (w->state != COLLECTING) return hd_fail(err, HD_USAGE, "gguf: %s: tensor %s after the data has begun", w->path, name);
    HD_TRY(tensor_bytes(&bytes, name, type, n_dims, dim, err));
    if (w->n_tensors == w->cap_tensors) {
        int64_t cap = w->cap_tensors ? 2 * w->cap_tensors : 256;
        HD_TRY(hd_realloc(&w->bytes, (size_t)cap * sizeof *w->bytes, err));
        w->cap_tensors = cap;
    }
    HD_TRY(add_str(&w->infos, name, strlen(name), err));
    HD_TRY(add_u32(&w->infos, (uint32_t)n_dims, err));
    for (int i = n_dims - 1; i >= 0; i--) HD_TRY(hd_buf_add(&w->infos, &dim[i], 8, err)); // innermost first
    HD_TRY(add_u32(&w->infos, (uint32_t)type, err));
    HD_TRY(hd_buf_add(&w->infos, &w->offset, 8, err));
    if (!hd_add(&total, w->offset, bytes) || !hd_add(&total, total, padding(total)))
        return hd_fail(err, HD_LIMIT, "gguf: %s: larger than any file", w->path);
    w->offset = total;
    w->bytes[w->n_tensors++] = bytes;
fail:
    return st;
}

static hd_status pad(hd_gguf_writer *w, hd_err *err)
{
    static const char zero[ALIGN];
    return hd_newfile_write(&w->file, zero, padding(w->file.offset), err);
}

hd_status hd_gguf_begin_data(hd_gguf_writer *w, hd_err *err)
{
    hd_status st;
    uint32_t version = 3;
    uint64_t counts[2] = {(uint64_t)w->n_tensors, w->n_kv};
    if (w->state != COLLECTING) return hd_fail(err, HD_USAGE, "gguf: %s: the data has begun already", w->path);
    HD_TRY(hd_newfile_begin(&w->file, w->path, err));
    w->state = WRITING;
    HD_TRY(hd_newfile_write(&w->file, "GGUF", 4, err));
    HD_TRY(hd_newfile_write(&w->file, &version, sizeof version, err));
    HD_TRY(hd_newfile_write(&w->file, counts, sizeof counts, err));
    HD_TRY(hd_newfile_write(&w->file, w->kv.data, w->kv.len, err));
    HD_TRY(hd_newfile_write(&w->file, w->infos.data, w->infos.len, err));
    HD_TRY(pad(w, err));
    w->left = w->n_tensors ? w->bytes[0] : 0;
fail:
    return st;
}

hd_status hd_gguf_write(hd_gguf_writer *w, const void *p, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    if (w->state != WRITING || w->now == w->n_tensors || n > w->left)
        return hd_fail(err, HD_USAGE, "gguf: %s: more data than the tensors declared", w->path);
    HD_TRY(hd_newfile_write(&w->file, p, n, err));
    w->left -= n;
    if (w->left == 0) {
        HD_TRY(pad(w, err));
        w->now++;
        w->left = w->now < w->n_tensors ? w->bytes[w->now] : 0;
    }
fail:
    return st;
}

hd_status hd_gguf_commit(hd_gguf_writer *w, hd_err *err)
{
    if (w->state != WRITING || w->now != w->n_tensors)
        return hd_fail(err, HD_USAGE, "gguf: %s: %lld of %lld tensors were written", w->path, (long long)w->now,
                       (long long)w->n_tensors);
    w->state = DONE;
    return hd_newfile_commit(&w->file, err);
}
