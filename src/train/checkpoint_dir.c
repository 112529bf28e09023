/* The folders of a run: which steps are there, which of them is the newest whole one, which may go. */
#include "train/checkpoint_dir.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/folder.h"
#include "base/log.h"
#include "model/json.h"
#include "train/checkpoint.h"

enum { MAX_STEPS = 100000 };
static const size_t MAX_JSON_BYTES = (size_t)16 << 20;

hd_status hd_ckpt_path(char *out, const char *dir, const char *name, hd_err *err)
{
    int n = snprintf(out, HD_CKPT_PATH, "%s/%s", dir, name);
    return n < HD_CKPT_PATH ? HD_OK : hd_fail(err, HD_LIMIT, "checkpoint: %.80s...: a path longer than %d bytes", dir, HD_CKPT_PATH - 1);
}

/* Of everything in the object but "crc32c" itself, in one spelling. */
hd_status hd_ckpt_json_crc(uint32_t *crc, const json_t *j, hd_err *err)
{
    json_t *rest = json_copy((json_t *)j);
    if (rest) json_object_del(rest, "crc32c");
    char *text = rest ? json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(rest);
    if (!text) return hd_fail(err, HD_NOMEM, "checkpoint: trainer.json: no memory");
    *crc = hd_crc32c(0, text, strlen(text));
    free(text);
    return HD_OK;
}

hd_status hd_ckpt_file_crc(uint32_t *crc, uint64_t *bytes, const char *path, hd_err *err)
{
    enum { PIECE = 16 << 20 };
    hd_map m;
    hd_status st = hd_map_open(&m, path, err);
    if (st != HD_OK) return st;
    *crc = 0;
    for (size_t at = 0; at < m.size; at += PIECE) { // pages of a large file are given back on the way
        size_t n = m.size - at < PIECE ? m.size - at : PIECE;
        *crc = hd_crc32c(*crc, m.data + at, n);
        hd_map_release(&m, m.data + at, n);
    }
    *bytes = m.size;
    hd_map_close(&m);
    return HD_OK;
}

/* ---- The folders of a run ---- */

/* step-00000120: the number, or -1. */
static int64_t step_of(const char *name)
{
    if (strncmp(name, "step-", 5) != 0) return -1;
    size_t n = strspn(name + 5, "0123456789");
    return n >= 8 && n <= 18 && !name[5 + n] ? strtoll(name + 5, NULL, 10) : -1;
}

static bool is_leftover(const char *name)
{
    const char *part = strstr(name, ".part-");
    return !strncmp(name, "step-", 5) && part && part[6] && !part[6 + strspn(part + 6, "0123456789")];
}

static int falling(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* The steps that are there, newest first; *steps is the caller's to free.  tidy: unfinished folders of
 * processes that died. */
static hd_status list_steps(int64_t **steps, int *n, const char *dir, bool tidy, hd_err *err)
{
    hd_status st = HD_OK;
    char path[HD_CKPT_PATH];
    int cap = 0;
    DIR *d = opendir(dir);
    *steps = NULL;
    *n = 0;
    if (!d) return hd_is_dir(dir) ? hd_fail_errno(err, "checkpoint: %s", dir) : HD_OK;
    for (struct dirent *e; (e = readdir(d));) {
        int64_t step = step_of(e->d_name);
        HD_TRY(hd_ckpt_path(path, dir, e->d_name, err));
        if (tidy && is_leftover(e->d_name)) HD_TRY(hd_folder_remove(path, err));
        if (step < 0 || !hd_is_dir(path)) continue;
        if (*n == MAX_STEPS) HD_TRY(hd_fail(err, HD_LIMIT, "checkpoint: %s: more than %d checkpoints", dir, MAX_STEPS));
        if (*n == cap) {
            cap = cap ? 2 * cap : 16;
            HD_TRY(hd_realloc(steps, (size_t)cap * sizeof **steps, err));
        }
        (*steps)[(*n)++] = step;
    }
    if (*n > 1) qsort(*steps, (size_t)*n, sizeof **steps, falling);
fail:
    closedir(d);
    if (st != HD_OK) {
        free(*steps);
        *steps = NULL;
    }
    return st;
}

hd_status hd_ckpt_step_path(char *out, const char *dir, int64_t step, hd_err *err)
{
    char name[40];
    snprintf(name, sizeof name, "step-%08lld", (long long)step);
    return hd_ckpt_path(out, dir, name, err);
}

/* Of the steps up to the one just written (newer ones, damaged or of a run that went back, are
 * not ours to judge). */
hd_status hd_ckpt_rotate(const char *dir, int64_t newest, int keep, hd_err *err)
{
    hd_status st;
    char path[HD_CKPT_PATH];
    int64_t *steps;
    int n, kept = 0;
    HD_TRY(list_steps(&steps, &n, dir, true, err));
    for (int i = 0; i < n; i++) {
        if (steps[i] > newest || ++kept <= keep) continue;
        HD_TRY(hd_ckpt_step_path(path, dir, steps[i], err));
        HD_TRY(hd_folder_remove(path, err));
    }
fail:
    free(steps);
    return st;
}

/* trainer.json, its own checksum checked. */
hd_status hd_ckpt_read_json(json_t **out, const char *path, hd_err *err)
{
    hd_status st;
    char file[HD_CKPT_PATH], hex[16];
    hd_buf text;
    uint32_t crc;
    *out = NULL;
    hd_buf_init(&text, MAX_JSON_BYTES);
    HD_TRY(hd_ckpt_path(file, path, "trainer.json", err));
    HD_TRY(hd_file_read(&text, file, err));
    HD_TRY(hd_json_parse(out, text.data, text.len, 1 << 16, "checkpoint", file, err));
    HD_TRY(hd_ckpt_json_crc(&crc, *out, err));
    snprintf(hex, sizeof hex, "%08x", crc);
    const char *said = json_string_value(json_object_get(*out, "crc32c"));
    if (!said || strcmp(said, hex) != 0) HD_TRY(hd_fail(err, HD_FORMAT, "checkpoint: %s: damaged: its checksum is another", file));
    if (json_integer_value(json_object_get(*out, "format")) != HD_CKPT_FORMAT)
        st = hd_fail(err, HD_UNSUPPORTED, "checkpoint: %s: of another format than %d", file, HD_CKPT_FORMAT);
fail:
    hd_buf_free(&text);
    if (st != HD_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return st;
}

/* Every file that it names: there, as long, with the same checksum. */
hd_status hd_ckpt_check_files(const json_t *j, const char *path, hd_err *err)
{
    hd_status st = HD_OK;
    char file[HD_CKPT_PATH], hex[16];
    const char *name;
    json_t *v, *files = json_object_get(j, "files");
    if (!json_object_get(files, "model.safetensors"))
        return hd_fail(err, HD_FORMAT, "checkpoint: %s: trainer.json names no model.safetensors", path);
    json_object_foreach(files, name, v)
    {
        uint32_t crc;
        uint64_t bytes;
        const char *said = json_string_value(json_object_get(v, "crc32c"));
        if (strchr(name, '/')) return hd_fail(err, HD_FORMAT, "checkpoint: %s: trainer.json names a file elsewhere", path);
        HD_TRY(hd_ckpt_path(file, path, name, err));
        HD_TRY(hd_ckpt_file_crc(&crc, &bytes, file, err));
        if ((json_int_t)bytes != json_integer_value(json_object_get(v, "bytes")))
            return hd_fail(err, HD_FORMAT, "checkpoint: %s: damaged: %llu bytes of %lld", file, (unsigned long long)bytes,
                           (long long)json_integer_value(json_object_get(v, "bytes")));
        snprintf(hex, sizeof hex, "%08x", crc);
        if (!said || strcmp(said, hex) != 0)
            return hd_fail(err, HD_FORMAT, "checkpoint: %s: damaged: its checksum is %s, %s was written", file, hex, said ? said : "none");
    }
fail:
    return st;
}

hd_status hd_checkpoint_find(char *path, const char *dir, hd_err *err)
{
    hd_status st;
    char at[HD_CKPT_PATH];
    int64_t *steps;
    int n;
    path[0] = 0;
    HD_TRY(list_steps(&steps, &n, dir, false, err));
    for (int i = 0; i < n && !path[0]; i++) {
        json_t *j = NULL;
        hd_err why = {0};
        HD_TRY(hd_ckpt_step_path(at, dir, steps[i], err));
        hd_status whole = hd_ckpt_read_json(&j, at, &why);
        if (whole == HD_OK) whole = hd_ckpt_check_files(j, at, &why);
        json_decref(j);
        if (whole == HD_NOMEM) {
            if (err) *err = why;
            HD_TRY(whole);
        }
        if (whole != HD_OK) hd_warn("%s is passed over: %s", at, why.msg);
        else if (strlen(at) >= 1024) HD_TRY(hd_fail(err, HD_LIMIT, "checkpoint: %.80s...: a path longer than 1023 bytes", at));
        else strcpy(path, at);
    }
fail:
    free(steps);
    return st;
}

