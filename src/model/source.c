/* Opens a model on disk: tells its kind, maps its shards, gathers its tensors under one index, reads its
 * configuration.
 *
 *   directory  config.json, generation_config.json, tokenizer*.json; tensors by safetensors.c, settings by
 *              config.c
 *   *.gguf     one file or -00001-of-000NN (any part opens all); tensors by gguf.c, settings by config_gguf.c
 *   directory that holds one GGUF model and no config.json: that model */
#include "model/source.h"

#include <dirent.h>
#include <string.h>

#include "model/json.h"
#include "model/safetensors.h"
#include "model/source_parts.h"

enum { MAX_PARTS = 1000, SPLIT_TAIL = sizeof "-00001-of-00002.gguf" - 1 };
enum { MAX_JSON_VALUES = 4 << 20 };
static const size_t MAX_JSON_BYTES = (size_t)128 << 20; // tokenizer.json of a 256 k vocabulary: 33 MB

/* ---- Parts ---- */

hd_status hd_source_add_file(hd_source *s, const char *path, hd_err *err)
{
    hd_status st;
    if (s->n_maps == s->cap_maps) {
        int cap = s->cap_maps ? 2 * s->cap_maps : 8;
        HD_TRY(hd_realloc(&s->map, (size_t)cap * sizeof *s->map, err));
        HD_TRY(hd_realloc(&s->file, (size_t)cap * sizeof *s->file, err));
        s->cap_maps = cap;
    }
    s->map[s->n_maps] = (hd_map){0};
    HD_TRY(hd_strdup(&s->file[s->n_maps], path, err));
    s->n_maps++;
    HD_TRY(hd_map_open(&s->map[s->n_maps - 1], path, err));
fail:
    return st;
}

hd_status hd_source_add_tensor(hd_source *s, const hd_tensor_info *t, hd_err *err)
{
    if (s->n_tensors == s->cap_tensors) {
        int64_t cap = s->cap_tensors ? 2 * s->cap_tensors : 256;
        hd_status st = hd_realloc(&s->tensor, (size_t)cap * sizeof *s->tensor, err);
        if (st != HD_OK) return st;
        s->cap_tensors = cap;
    }
    s->tensor[s->n_tensors++] = *t;
    return HD_OK;
}

static hd_status index_tensors(hd_source *s, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_names_init(&s->names, (size_t)s->n_tensors, err));
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const hd_tensor_info *t = &s->tensor[i];
        if (!hd_names_add(&s->names, t->name, strlen(t->name), i))
            return hd_fail(err, HD_FORMAT, "model: %s: tensor '%s' stands there twice", s->file[t->file],
                           t->name);
    }
fail:
    return st;
}

/* What became of the configuration (its message is in why_not) decides only where the model is to run: not
 * for a listing, and not for a vocabulary alone, which may be of any architecture. */
static hd_status forgive(const hd_source *s, bool need_weights, hd_status st, hd_err *err)
{
    if (st == HD_OK || (st != HD_NOMEM && (s->list_only || (!need_weights && s->n_tensors == 0)))) return HD_OK;
    if (err) *err = s->why_not;
    return st;
}

/* ---- GGUF ---- */

/* Is this x-00002-of-00003.gguf?  Part and count start at 1. */
static bool split_name(const char *path, int *no, int *count)
{
    size_t n = strlen(path);
    if (n < SPLIT_TAIL) return false;
    const char *tail = path + n - SPLIT_TAIL;
    if (tail[0] != '-' || memcmp(tail + 6, "-of-", 4) != 0 || strcmp(tail + 15, ".gguf") != 0) return false;
    *no = *count = 0;
    for (int i = 0; i < 5; i++) {
        if (tail[1 + i] < '0' || tail[1 + i] > '9' || tail[10 + i] < '0' || tail[10 + i] > '9') return false;
        *no = *no * 10 + tail[1 + i] - '0';
        *count = *count * 10 + tail[10 + i] - '0';
    }
    return *no >= 1 && *no <= *count;
}

static hd_status add_part(hd_source *s, const char *path, int no, int count, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_source_add_file(s, path, err));
    HD_TRY(hd_realloc(&s->part, (size_t)s->n_maps * sizeof *s->part, err));
    s->part[s->n_maps - 1] = NULL;
    HD_TRY(hd_gguf_open(&s->part[s->n_maps - 1], &s->map[s->n_maps - 1], path, err));
    const hd_gguf *g = s->part[s->n_maps - 1];
    int64_t file_count = 1, file_no = no - 1;
    hd_gguf_i64(g, "split.count", &file_count);
    hd_gguf_i64(g, "split.no", &file_no);
    if (file_count == 0) file_count = 1;
    if (file_count != count || file_no != no - 1)
        return hd_fail(
            err, HD_FORMAT,
            "gguf: %s: the file says it is part %lld of %lld; parts are named -00001-of-000NN.gguf", path,
            (long long)file_no + 1, (long long)file_count);
    for (int64_t i = 0; i < hd_gguf_n_tensors(g); i++) {
        hd_tensor_info t = *hd_gguf_tensor(g, i);
        t.file = s->n_maps - 1;
        HD_TRY(hd_source_add_tensor(s, &t, err));
    }
fail:
    return st;
}

static hd_status open_gguf(hd_source *s, const char *path, bool need_weights, hd_err *err)
{
    hd_status st;
    char *part = NULL;
    int no = 1, count = 1;
    int64_t total;
    s->kind = HD_SOURCE_GGUF;
    if (!split_name(path, &no, &count)) no = count = 1;
    if (count > MAX_PARTS)
        HD_TRY(hd_fail(err, HD_LIMIT, "gguf: %s: %d parts; at most %d are read", path, count, MAX_PARTS));
    HD_TRY(hd_strdup(&part, path, err));
    for (no = 1; no <= count; no++) {
        if (count > 1) {
            char tail[32];
            snprintf(tail, sizeof tail, "-%05d-of-%05d.gguf", no, count);
            memcpy(part + strlen(part) - SPLIT_TAIL, tail, SPLIT_TAIL);
            if (!hd_is_file(part))
                HD_TRY(hd_fail(err, HD_IO, "gguf: %s: part %d of %d is missing", part, no, count));
        }
        HD_TRY(add_part(s, part, no, count, err));
    }
    if (hd_gguf_i64(s->part[0], "split.tensors.count", &total) && total != s->n_tensors)
        HD_TRY(hd_fail(err, HD_FORMAT, "gguf: %s: %lld tensors announced, the parts hold %lld", path,
                       (long long)total, (long long)s->n_tensors));
    if (need_weights && s->n_tensors == 0)
        HD_TRY(hd_fail(err, HD_FORMAT, "gguf: %s: the file holds no weights", path));
    HD_TRY(index_tensors(s, err));
    st = hd_config_from_gguf(&s->config, s, path, &s->why_not);
    s->has_config = st == HD_OK;
    st = forgive(s, need_weights, st, err);
fail:
    free(part);
    return st;
}

/* ---- Directories ---- */

/* path = dir/name */
static hd_status join(char **path, const char *dir, const char *name, hd_err *err)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    hd_status st = hd_alloc(path, n, err);
    if (st == HD_OK) snprintf(*path, n, "%s/%s", dir, name);
    return st;
}

/* Parse dir/name when it is there; name is a literal. */
static hd_status add_json(hd_source *s, const char *name, hd_err *err)
{
    hd_status st;
    char *path = NULL;
    hd_buf text;
    hd_buf_init(&text, MAX_JSON_BYTES);
    HD_TRY(join(&path, s->path, name, err));
    if (!hd_is_file(path)) goto fail;
    HD_TRY(hd_file_read(&text, path, err));
    HD_TRY(hd_json_parse(&s->json[s->n_json].json, text.data, text.len, MAX_JSON_VALUES, "json", path, err));
    s->json[s->n_json++].name = name;
fail:
    hd_buf_free(&text);
    free(path);
    return st;
}

/* The one GGUF model of a directory, by its first part; *path stays NULL when there is none. */
static hd_status find_gguf(char **path, const char *dir, hd_err *err)
{
    hd_status st = HD_OK;
    DIR *d = opendir(dir);
    char *first = NULL;
    if (!d) return hd_fail_errno(err, "model: %s: the directory cannot be read", dir);
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        int no = 1, count = 1;
        if (n < 6 || strcmp(e->d_name + n - 5, ".gguf") != 0 || e->d_name[0] == '.') continue;
        if (split_name(e->d_name, &no, &count) && no != 1) continue;
        if (first) HD_TRY(hd_fail(err, HD_USAGE, "model: %s: several GGUF files; name one", dir));
        HD_TRY(hd_strdup(&first, e->d_name, err));
    }
    if (first) HD_TRY(join(path, dir, first, err));
fail:
    free(first);
    closedir(d);
    return st;
}

static hd_status read_settings(hd_source *s, const json_t *config, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_safetensors_check_fp8(s, err));
    if (!config) goto fail;
    HD_TRY(hd_config_from_json(&s->config, config, hd_source_json(s, "generation_config.json"), s->path, err));
    s->has_config = true;
    char mtp[64]; // what transformers saves announces this layer and leaves it out
    snprintf(mtp, sizeof mtp, "model.layers.%d.eh_proj.weight", s->config.n_layers);
    if (s->n_tensors > 0 && !hd_source_find(s, mtp)) s->config.n_mtp = 0;
fail:
    return st;
}

static hd_status open_dir(hd_source *s, bool need_weights, hd_err *err)
{
    static const char *const files[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "tokenizer_config.json", "chat_template.json"};
    hd_status st;
    char *gguf = NULL;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) HD_TRY(add_json(s, files[i], err));
    const json_t *config = hd_source_json(s, "config.json");
    if (!config && !hd_source_json(s, "tokenizer.json")) {
        HD_TRY(find_gguf(&gguf, s->path, err));
        if (gguf) st = open_gguf(s, gguf, need_weights, err);
        else
            st = hd_fail(err, HD_FORMAT,
                         "model: %s: neither config.json nor tokenizer.json nor a GGUF file is there",
                         s->path);
        goto fail;
    }
    if (!config && need_weights)
        HD_TRY(hd_fail(err, HD_FORMAT, "model: %s: config.json is missing", s->path));
    HD_TRY(hd_safetensors_read(s, need_weights, err));
    HD_TRY(index_tensors(s, err));
    st = forgive(s, need_weights, read_settings(s, config, &s->why_not), err);
fail:
    free(gguf);
    return st;
}

/* ---- Public ---- */

static hd_status open_any(hd_source **out, const char *path, bool need_weights, bool list_only, hd_err *err)
{
    hd_status st;
    hd_source *s = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    s->list_only = list_only;
    HD_TRY(hd_strdup(&s->path, path, err));
    if (hd_is_dir(path)) {
        HD_TRY(open_dir(s, need_weights, err));
    } else {
        size_t n = strlen(path);
        if (n > 12 && strcmp(path + n - 12, ".safetensors") == 0)
            HD_TRY(
                hd_fail(err, HD_USAGE, "model: %s: name the directory that holds it and config.json", path));
        HD_TRY(open_gguf(s, path, need_weights, err));
    }
    *out = s;
    return HD_OK;
fail:
    hd_source_close(s);
    return st;
}

hd_status hd_source_open(hd_source **out, const char *path, bool need_weights, hd_err *err)
{
    return open_any(out, path, need_weights, false, err);
}

hd_status hd_source_open_list(hd_source **out, const char *path, hd_err *err)
{
    return open_any(out, path, false, true, err);
}

hd_status hd_source_open_safetensors(hd_source **out, const char *path, hd_err *err)
{
    hd_status st;
    hd_source *s = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    HD_TRY(hd_strdup(&s->path, path, err));
    HD_TRY(hd_safetensors_read_file(s, path, err));
    HD_TRY(index_tensors(s, err));
    *out = s;
    return HD_OK;
fail:
    hd_source_close(s);
    return st;
}

void hd_source_close(hd_source *s)
{
    if (!s) return;
    hd_names_free(&s->names);
    for (int i = 0; i < s->n_maps; i++) {
        if (s->part) hd_gguf_close(s->part[i]);
        hd_map_close(&s->map[i]);
        free(s->file[i]);
    }
    for (int i = 0; i < s->n_json; i++) json_decref(s->json[i].json);
    free(s->part);
    free(s->map);
    free(s->file);
    while (s->tensor_names) {
        char *next;
        memcpy(&next, s->tensor_names, sizeof next);
        free(s->tensor_names);
        s->tensor_names = next;
    }
    free(s->tensor);
    free(s->path);
    free(s);
}

hd_source_kind hd_source_get_kind(const hd_source *s) { return s->kind; }
const char *hd_source_path(const hd_source *s) { return s->path; }
const hd_config *hd_source_config(const hd_source *s) { return s->has_config ? &s->config : NULL; }
const hd_gguf *hd_source_gguf(const hd_source *s) { return s->part ? s->part[0] : NULL; }
const char *hd_source_why_not(const hd_source *s) { return s->has_config ? NULL : s->why_not.msg; }
int hd_source_n_files(const hd_source *s) { return s->n_maps; }
int64_t hd_source_n_tensors(const hd_source *s) { return s->n_tensors; }

const char *hd_source_file(const hd_source *s, int i, uint64_t *bytes)
{
    *bytes = s->map[i].size;
    return s->file[i];
}

const json_t *hd_source_json(const hd_source *s, const char *file)
{
    for (int i = 0; i < s->n_json; i++)
        if (strcmp(s->json[i].name, file) == 0) return s->json[i].json;
    return NULL;
}

const hd_tensor_info *hd_source_tensor(const hd_source *s, int64_t i)
{
    return i >= 0 && i < s->n_tensors ? &s->tensor[i] : NULL;
}

const hd_tensor_info *hd_source_find(const hd_source *s, const char *name)
{
    int64_t i = hd_names_find(&s->names, name, strlen(name));
    return i < 0 ? NULL : &s->tensor[i];
}

uint64_t hd_source_weight_bytes(const hd_source *s)
{
    uint64_t n = 0;
    for (int64_t i = 0; i < s->n_tensors; i++) n += s->tensor[i].bytes;
    return n;
}

void hd_source_release(const hd_source *s, const hd_tensor_info *t)
{
    hd_map_release(&s->map[t->file], t->data, t->bytes);
}

void hd_source_release_all(const hd_source *s)
{
    for (int i = 0; i < s->n_maps; i++) hd_map_release(&s->map[i], s->map[i].data, s->map[i].size);
}
