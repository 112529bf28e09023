/* safetensors: header_bytes:u64, a JSON object { name: {dtype, shape, data_offsets: [begin, end]} }, then the
 * data.
 *
 * The header is at most 100 MB, the limit of the reference implementation; names may not repeat, and sorted
 * by offset the tensors must fill the data without gap or overlap, so that no two readers of one file can see
 * different weights. A sharded model has model.safetensors.index.json, whose weight_map gives each tensor's
 * file: a plain name of this directory, never a path. */
#include "model/safetensors.h"

#include <string.h>

#include "model/json.h"
#include "model/source_parts.h"

enum { MAX_SHARDS = 4096, MAX_VALUES = 2 << 20, FP8_BLOCK = 128 }; // a tensor is about nine JSON values
static const size_t MAX_HEADER_BYTES = 100 * 1000 * 1000, MAX_INDEX_BYTES = (size_t)64 << 20;

static const struct {
    const char *name;
    hd_type type;
    size_t bytes;
} dtypes[] = {
    {"BF16", HD_BF16, 2},       {"F16", HD_F16, 2}, {"F32", HD_F32, 4},
    {"F8_E4M3", HD_F8_E4M3, 1}, {"F64", HD_F64, 8}, {"I8", HD_I8, 1},
    {"I16", HD_I16, 2},         {"I32", HD_I32, 4}, {"I64", HD_I64, 8},
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* ---- One tensor of a header ---- */

typedef struct {
    hd_source *s;
    const char *where;
    const uint8_t *data; // first byte after the header
    size_t data_bytes;
    hd_err *err;
} shard;

/* A whole number of 0 .. INT64_MAX; JSON has no other kind that could count bytes. */
static bool whole(const json_t *j, size_t *v)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0) return false;
    *v = (size_t)json_integer_value(j);
    return true;
}

static hd_status parse_tensor(const shard *f, const char *name, const json_t *j, hd_tensor_info *t)
{
    const json_t *shape = json_object_get(j, "shape"), *offsets = json_object_get(j, "data_offsets");
    const char *dtype = json_string_value(json_object_get(j, "dtype"));
    size_t begin, end, n = 1, dim, bytes;
    int d = 0;
    if (!dtype || !json_is_array(shape) || json_array_size(offsets) != 2 ||
        !whole(json_array_get(offsets, 0), &begin) || !whole(json_array_get(offsets, 1), &end))
        return hd_fail(f->err, HD_FORMAT,
                       "safetensors: %s: tensor '%s': dtype, shape and two data_offsets are expected",
                       f->where, name);
    while (d < N_DTYPES && strcmp(dtypes[d].name, dtype) != 0) d++;
    if (d == N_DTYPES) {
        char shown[24];
        return hd_fail(f->err, HD_UNSUPPORTED,
                       "safetensors: %s: tensor '%s': dtype %s cannot be run (F32, F16, BF16, F8_E4M3 can)",
                       f->where, name, hd_name_show(shown, sizeof shown, dtype, strlen(dtype)));
    }
    if (json_array_size(shape) > HD_MAX_DIMS)
        return hd_fail(f->err, HD_UNSUPPORTED, "safetensors: %s: tensor '%s' has %zu dimensions", f->where,
                       name, json_array_size(shape));
    *t = (hd_tensor_info){.name = name,
                          .type = dtypes[d].type,
                          .n_dims = (int)json_array_size(shape),
                          .file = f->s->n_maps - 1};
    for (int i = 0; i < t->n_dims; i++) {
        if (!whole(json_array_get(shape, (size_t)i), &dim) || dim == 0 || !hd_mul(&n, n, dim))
            return hd_fail(f->err, HD_FORMAT, "safetensors: %s: tensor '%s': dimension %d makes no sense",
                           f->where, name, i);
        t->dim[i] = (int64_t)dim;
    }
    if (t->n_dims == 0) t->dim[t->n_dims++] = 1; // a scalar
    if (!hd_mul(&bytes, n, dtypes[d].bytes) || begin > end || end > f->data_bytes || end - begin != bytes)
        return hd_fail(f->err, HD_FORMAT,
                       "safetensors: %s: tensor '%s': bytes %zu to %zu of %zu do not hold its shape",
                       f->where, name, begin, end, f->data_bytes);
    t->data = f->data + begin;
    t->bytes = bytes;
    if ((uintptr_t)t->data % dtypes[d].bytes)
        return hd_fail(
            f->err, HD_UNSUPPORTED,
            "safetensors: %s: tensor '%s' is not aligned; save the file again with safetensors 0.3 or later",
            f->where, name);
    return HD_OK;
}

static int by_place(const void *a, const void *b)
{
    const hd_tensor_info *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

/* The tensors of this shard, sorted: each begins where the one before ends, and the last
 * ends with the file. */
static hd_status check_tiling(const shard *f, hd_tensor_info *t, int64_t n)
{
    const uint8_t *next = f->data;
    qsort(t, (size_t)n, sizeof *t, by_place);
    for (int64_t i = 0; i < n; i++) {
        if (t[i].data != next)
            return hd_fail(f->err, HD_FORMAT,
                           "safetensors: %s: tensor '%s' does not begin where the one before it ends",
                           f->where, t[i].name);
        next += t[i].bytes;
    }
    if (next != f->data + f->data_bytes)
        return hd_fail(f->err, HD_FORMAT, "safetensors: %s: %zu bytes after the last tensor", f->where,
                       (size_t)(f->data + f->data_bytes - next));
    return HD_OK;
}

/* ---- One file ---- */

/* Keep a copy of the header's names: they must outlive the parsed JSON. */
static hd_status store_names(hd_source *s, const json_t *header, char **names, hd_err *err)
{
    const char *key;
    json_t *v;
    size_t bytes = sizeof(char *);
    json_object_foreach((json_t *)header, key, v) bytes += strlen(key) + 1;
    char *block;
    hd_status st = hd_alloc(&block, bytes, err);
    if (st != HD_OK) return st;
    memcpy(block, &s->tensor_names,
           sizeof(char *)); // a list: each block begins with the address of the one before
    s->tensor_names = block;
    *names = block + sizeof(char *);
    return HD_OK;
}

/* index: weight_map, or NULL for a model of one file; base: the file's name there. */
static hd_status read_shard(hd_source *s, const char *path, const char *base, const json_t *index,
                            hd_err *err)
{
    hd_status st;
    json_t *header = NULL, *v;
    const char *key;
    char *name, shown[80];
    hd_tensor_info *list = NULL;
    int64_t n = 0;
    uint64_t header_bytes;
    HD_TRY(hd_source_add_file(s, path, err));
    const hd_map *m = &s->map[s->n_maps - 1];
    if (m->size < 8)
        HD_TRY(hd_fail(err, HD_FORMAT, "safetensors: %s: %zu bytes are no header", path, m->size));
    memcpy(&header_bytes, m->data, 8);
    if (header_bytes > MAX_HEADER_BYTES || header_bytes > m->size - 8)
        HD_TRY(hd_fail(err, HD_FORMAT,
                       "safetensors: %s: header of %llu bytes: past the file's end or the limit of 100 MB",
                       path, (unsigned long long)header_bytes));
    HD_TRY(hd_json_parse(&header, m->data + 8, header_bytes, MAX_VALUES, "safetensors", path, err));
    if (!json_is_object(header))
        HD_TRY(hd_fail(err, HD_FORMAT, "safetensors: %s: the header is no object", path));
    shard f = {s, path, m->data + 8 + header_bytes, m->size - 8 - header_bytes, err};
    HD_TRY(hd_alloc_n(&list, json_object_size(header), sizeof *list, err));
    HD_TRY(store_names(s, header, &name, err));
    json_object_foreach(header, key, v)
    {
        size_t len = strlen(key);
        if (strcmp(key, "__metadata__") == 0) continue;
        if (!hd_name_ok(key, len, 255))
            HD_TRY(hd_fail(err, HD_FORMAT,
                           "safetensors: %s: tensor name '%s' is empty, too long or not printable", path,
                           hd_name_show(shown, sizeof shown, key, len)));
        memcpy(name, key, len + 1);
        HD_TRY(parse_tensor(&f, name, v, &list[n++]));
        name += len + 1;
    }
    HD_TRY(check_tiling(&f, list, n));
    for (int64_t i = 0; i < n; i++) {
        const char *in = json_string_value(json_object_get(index, list[i].name));
        if (!index || (in && strcmp(in, base) == 0)) HD_TRY(hd_source_add_tensor(s, &list[i], err));
    }
fail:
    free(list);
    json_decref(header);
    return st;
}

/* ---- Shards ---- */

/* A file of the same directory: no path, no hidden file. */
static bool plain_name(const json_t *j)
{
    const char *p = json_string_value(j);
    size_t n = json_string_length(j);
    return p && n > 12 && hd_name_ok(p, n, 255) && p[0] != '.' && !strchr(p, '/') && !strchr(p, '\\') &&
           strcmp(p + n - 12, ".safetensors") == 0;
}

static hd_status read_index(json_t **root, const char *path, hd_err *err)
{
    hd_status st;
    hd_buf text;
    hd_buf_init(&text, MAX_INDEX_BYTES);
    HD_TRY(hd_file_read(&text, path, err));
    HD_TRY(hd_json_parse(root, text.data, text.len, MAX_VALUES, "safetensors", path, err));
    if (!json_is_object(json_object_get(*root, "weight_map")))
        st = hd_fail(err, HD_FORMAT, "safetensors: %s: no weight_map", path);
fail:
    hd_buf_free(&text);
    return st;
}

static hd_status read_sharded(hd_source *s, const char *index_path, char *path, size_t path_bytes,
                              hd_err *err)
{
    hd_status st;
    json_t *root = NULL, *v;
    hd_names seen = {0};
    const char *key;
    char shown[80];
    int n = 0;
    HD_TRY(read_index(&root, index_path, err));
    const json_t *map = json_object_get(root, "weight_map");
    HD_TRY(hd_names_init(&seen, MAX_SHARDS, err));
    json_object_foreach((json_t *)map, key, v)
    {
        if (!plain_name(v))
            HD_TRY(hd_fail(err, HD_FORMAT, "safetensors: %s: the file of tensor '%s' is not named plainly",
                           index_path, hd_name_show(shown, sizeof shown, key, strlen(key))));
        const char *base = json_string_value(v);
        if (hd_names_find(&seen, base, strlen(base)) >= 0) continue;
        if (n == MAX_SHARDS)
            HD_TRY(hd_fail(err, HD_LIMIT, "safetensors: %s: more than %d files", index_path, MAX_SHARDS));
        hd_names_add(&seen, base, strlen(base), n++);
        snprintf(path, path_bytes, "%s/%s", s->path, base);
        if (!hd_is_file(path))
            HD_TRY(hd_fail(err, HD_IO, "safetensors: %s: the file is missing; the index names it", path));
        HD_TRY(read_shard(s, path, base, map, err));
    }
    if (s->n_tensors != (int64_t)json_object_size(map))
        HD_TRY(hd_fail(err, HD_FORMAT, "safetensors: %s: %zu tensors announced, the files hold %lld of them",
                       index_path, json_object_size(map), (long long)s->n_tensors));
fail:
    hd_names_free(&seen);
    json_decref(root);
    return st;
}

hd_status hd_safetensors_read(hd_source *s, bool need_weights, hd_err *err)
{
    hd_status st = HD_OK;
    char *path = NULL, *index = NULL;
    size_t n = strlen(s->path) + 300; // a name of 255 bytes at most follows
    HD_TRY(hd_alloc(&path, n, err));
    HD_TRY(hd_alloc(&index, n, err));
    snprintf(index, n, "%s/model.safetensors.index.json", s->path);
    snprintf(path, n, "%s/model.safetensors", s->path);
    if (hd_is_file(index)) HD_TRY(read_sharded(s, index, path, n, err));
    else if (hd_is_file(path)) HD_TRY(read_shard(s, path, "model.safetensors", NULL, err));
    else if (need_weights)
        HD_TRY(hd_fail(err, HD_FORMAT,
                       "model: %s: neither model.safetensors nor model.safetensors.index.json is there",
                       s->path));
fail:
    free(index);
    free(path);
    return st;
}

hd_status hd_safetensors_read_file(hd_source *s, const char *path, hd_err *err) { return read_shard(s, path, "", NULL, err); }

/* ---- FP8 ---- */

hd_status hd_safetensors_check_fp8(const hd_source *s, hd_err *err)
{
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const hd_tensor_info *w = &s->tensor[i], *scale;
        char name[300];
        if (w->type != HD_F8_E4M3) continue;
        snprintf(name, sizeof name, "%s_scale_inv", w->name);
        scale = hd_source_find(s, name);
        if (w->n_dims != 2 || !scale || scale->type != HD_F32 || scale->n_dims != 2 ||
            scale->dim[0] != (w->dim[0] + FP8_BLOCK - 1) / FP8_BLOCK ||
            scale->dim[1] != (w->dim[1] + FP8_BLOCK - 1) / FP8_BLOCK)
            return hd_fail(err, HD_UNSUPPORTED,
                           "safetensors: %s: tensor '%s': no %s with one f32 for each %dx%d block",
                           s->file[w->file], w->name, name, FP8_BLOCK, FP8_BLOCK);
    }
    return HD_OK;
}
