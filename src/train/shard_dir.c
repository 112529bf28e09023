#include "train/shard_dir.h"

#include <dirent.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/json.h"

enum { MAX_SHARDS = 100000, MAX_LIST = 64 << 20 };

static hd_status join(char **out, const char *dir, const char *name, hd_err *err)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    hd_status st = hd_alloc(out, n, err);
    if (st == HD_OK) snprintf(*out, n, "%s/%s", dir, name);
    return st;
}

/* "00012.tok": the names that we write, and no other. */
static bool shard_name(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n >= 5 && n <= 9 && strcmp(s + n, ".tok") == 0;
}

/* ---- Reading ---- */

void hd_shard_dir_close(hd_shard_dir *d)
{
    for (int i = 0; i < d->n; i++) hd_shard_close(d->shard[i]);
    free(d->shard);
    free(d->first_doc);
    free(d->first_tok);
    free(d->path);
    *d = (hd_shard_dir){0};
}

const hd_shard_info *hd_shard_dir_about(const hd_shard_dir *d) { return hd_shard_about(d->shard[0]); }

static hd_status read_list(json_t **out, const char *path, hd_err *err)
{
    hd_status st;
    char *file = NULL;
    hd_buf b;
    hd_buf_init(&b, MAX_LIST);
    HD_TRY(join(&file, path, "pack.json", err));
    if (!hd_is_file(file))
        HD_TRY(hd_fail(
            err, HD_IO,
            "data: %.200s: no pack.json: not a folder of `hadal data pack`, or its packing was broken off",
            path));
    HD_TRY(hd_file_read(&b, file, err));
    HD_TRY(hd_json_parse(out, b.data, b.len, 10 * MAX_SHARDS, "data", file, err));
fail:
    hd_buf_free(&b);
    free(file);
    return st;
}

static hd_status add_shard(hd_shard_dir *d, const char *file, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_shard_open(&d->shard[d->n], file, err));
    const hd_shard_info *a = hd_shard_about(d->shard[d->n]);
    d->n++;
    if (memcmp(a->tokenizer, hd_shard_dir_about(d)->tokenizer, HD_SHARD_PRINT) != 0 ||
        a->n_vocab != hd_shard_dir_about(d)->n_vocab)
        HD_TRY(hd_fail(err, HD_FORMAT, "data: %.200s: of another tokenizer than %.200s", file,
                       hd_shard_name(d->shard[0])));
    d->first_doc[d->n] = d->first_doc[d->n - 1] + a->n_docs;
    d->first_tok[d->n] = d->first_tok[d->n - 1] + a->n_tok;
    d->n_targets += a->n_targets;
    d->text_bytes += a->text_bytes;
fail:
    return st;
}

hd_status hd_shard_dir_open(hd_shard_dir *d, const char *path, hd_err *err)
{
    hd_status st;
    json_t *list = NULL;
    char *file = NULL;
    *d = (hd_shard_dir){0};
    bool one = hd_is_file(path);
    if (!one) HD_TRY(read_list(&list, path, err));
    const json_t *v = json_object_get(list, "shards");
    size_t n = one ? 1 : json_array_size(v);
    if (!n || n > MAX_SHARDS)
        HD_TRY(hd_fail(err, HD_FORMAT, "data: %.200s/pack.json: no list of shards", path));
    HD_TRY(hd_strdup(&d->path, path, err));
    HD_TRY(hd_alloc_n(&d->shard, n, sizeof *d->shard, err));
    HD_TRY(hd_alloc_n(&d->first_doc, n + 1, sizeof *d->first_doc, err));
    HD_TRY(hd_alloc_n(&d->first_tok, n + 1, sizeof *d->first_tok, err));
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(v, i), *docs = json_object_get(row, "docs");
        const char *name = json_string_value(json_object_get(row, "file"));
        if (!one && (!name || !shard_name(name)))
            HD_TRY(
                hd_fail(err, HD_FORMAT, "data: %.200s/pack.json: shard %zu has no name of a shard", path, i));
        if (one) HD_TRY(hd_strdup(&file, path, err));
        else HD_TRY(join(&file, path, name, err));
        HD_TRY(add_shard(d, file, err));
        if (!one && json_integer_value(docs) != hd_shard_about(d->shard[i])->n_docs)
            HD_TRY(hd_fail(err, HD_FORMAT, "data: %.200s: another shard than pack.json names", file));
        free(file);
        file = NULL;
    }
fail:
    free(file);
    json_decref(list);
    if (st != HD_OK) hd_shard_dir_close(d);
    return st;
}

/* The shard k with first[k] <= i < first[k + 1]. */
static int shard_of(const int64_t *first, int n, int64_t i)
{
    int lo = 0, hi = n - 1;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (i < first[mid + 1]) hi = mid;
        else lo = mid + 1;
    }
    return lo;
}

hd_shard *hd_shard_dir_doc(const hd_shard_dir *d, int64_t i, hd_shard_doc *doc)
{
    int k = shard_of(d->first_doc, d->n, i);
    *doc = hd_shard_doc_at(d->shard[k], i - d->first_doc[k]);
    return d->shard[k];
}

int64_t hd_shard_dir_doc_of(const hd_shard_dir *d, int64_t at, int64_t *id)
{
    int k = shard_of(d->first_tok, d->n, at);
    int64_t lo = 0, hi = hd_shard_about(d->shard[k])->n_docs - 1;
    at -= d->first_tok[k];
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        hd_shard_doc doc = hd_shard_doc_at(d->shard[k], mid);
        if (at < doc.at + doc.n) hi = mid;
        else lo = mid + 1;
    }
    *id = at - hd_shard_doc_at(d->shard[k], lo).at;
    return d->first_doc[k] + lo;
}

/* ---- Writing ---- */

void hd_shard_dir_writer_close(hd_shard_dir_writer *w)
{
    char name[32], *file;
    hd_shard_writer_close(w->w);
    for (int i = 0; i < w->n && !w->finished; i++) {
        snprintf(name, sizeof name, "%05d.tok", i);
        if (join(&file, w->path, name, NULL) != HD_OK) continue;
        unlink(file);
        free(file);
    }
    if (w->made && !w->finished) rmdir(w->path);
    json_decref(w->list);
    free(w->path);
    *w = (hd_shard_dir_writer){0};
}

/* The folder and those above it. */
static hd_status make_dirs(const char *path, hd_err *err)
{
    hd_status st;
    char *s = NULL;
    HD_TRY(hd_strdup(&s, path, err));
    for (char *p = s + 1;; p++) {
        if (*p && *p != '/') continue;
        char c = *p;
        *p = 0;
        if (mkdir(s, 0777) != 0 && errno != EEXIST) HD_TRY(hd_fail_errno(err, "create: %s", s));
        *p = c;
        if (!c) break;
    }
    if (!hd_is_dir(path)) HD_TRY(hd_fail(err, HD_IO, "create: %.200s: exists and is no folder", path));
fail:
    free(s);
    return st;
}

/* What an earlier packing left. */
static hd_status clear(const char *path, hd_err *err)
{
    hd_status st = HD_OK;
    DIR *d = opendir(path);
    if (!d) return hd_fail_errno(err, "open: %s", path);
    for (struct dirent *e; (e = readdir(d));)
        if (shard_name(e->d_name) && unlinkat(dirfd(d), e->d_name, 0) != 0 && errno != ENOENT) {
            st = hd_fail_errno(err, "remove: %s/%s", path, e->d_name);
            break;
        }
    closedir(d);
    return st;
}

hd_status hd_shard_dir_begin(hd_shard_dir_writer *w, const char *path,
                             const uint8_t tokenizer[HD_SHARD_PRINT], int64_t n_vocab, int64_t max_tok,
                             bool replace, hd_err *err)
{
    hd_status st;
    char *list = NULL;
    *w = (hd_shard_dir_writer){.n_vocab = n_vocab, .max_tok = max_tok};
    memcpy(w->tokenizer, tokenizer, HD_SHARD_PRINT);
    HD_TRY(hd_strdup(&w->path, path, err)); // before there is a folder: closing removes it by this name
    w->made = !hd_is_dir(path);
    HD_TRY(make_dirs(path, err));
    HD_TRY(join(&list, path, "pack.json", err));
    if (hd_is_file(list)) {
        if (!replace)
            HD_TRY(hd_fail(err, HD_USAGE, "data: %.200s: holds packed data already: --replace packs it anew",
                           path));
        if (unlink(list) != 0) HD_TRY(hd_fail_errno(err, "remove: %s", list));
    }
    HD_TRY(clear(path, err));
    if (!(w->list = json_array())) HD_TRY(hd_fail(err, HD_NOMEM, "data: %.200s: no memory", path));
fail:
    free(list);
    if (st != HD_OK) hd_shard_dir_writer_close(w);
    return st;
}

static hd_status end_shard(hd_shard_dir_writer *w, hd_err *err)
{
    hd_status st;
    char name[32];
    const hd_shard_info *a = hd_shard_written(w->w);
    snprintf(name, sizeof name, "%05d.tok", w->n);
    HD_TRY(hd_shard_finish(w->w, err));
    w->n++; // it is there: whatever fails from here on removes it
    json_t *row = json_pack("{s:s, s:I, s:I}", "file", name, "docs", (json_int_t)a->n_docs, "ids",
                            (json_int_t)a->n_tok);
    if (json_array_append_new(w->list, row) != 0)
        HD_TRY(hd_fail(err, HD_NOMEM, "data: %.200s: no memory", w->path));
    w->n_docs += a->n_docs, w->n_tok += a->n_tok, w->n_targets += a->n_targets,
        w->text_bytes += a->text_bytes;
    hd_shard_writer_close(w->w);
    w->w = NULL;
fail:
    return st;
}

static hd_status begin_shard(hd_shard_dir_writer *w, hd_err *err)
{
    hd_status st;
    char name[32], *file = NULL;
    if (w->n == MAX_SHARDS)
        HD_TRY(hd_fail(err, HD_LIMIT, "data: %.200s: more than %d shards", w->path, MAX_SHARDS));
    snprintf(name, sizeof name, "%05d.tok", w->n);
    HD_TRY(join(&file, w->path, name, err));
    HD_TRY(hd_shard_create(&w->w, file, w->tokenizer, w->n_vocab, err));
fail:
    free(file);
    return st;
}

hd_status hd_shard_dir_add(hd_shard_dir_writer *w, const int32_t *id, int64_t n, const uint8_t *learnt,
                           uint64_t text_bytes, hd_err *err)
{
    hd_status st;
    int64_t has = w->w ? hd_shard_written(w->w)->n_tok : 0;
    if (has && has > w->max_tok - n) HD_TRY(end_shard(w, err));
    if (!w->w) HD_TRY(begin_shard(w, err));
    HD_TRY(hd_shard_add(w->w, id, n, learnt, text_bytes, err));
fail:
    return st;
}

hd_status hd_shard_dir_finish(hd_shard_dir_writer *w, json_t *report, hd_err *err)
{
    hd_status st;
    char *file = NULL, *text = NULL, hex[2 * HD_SHARD_PRINT + 1];
    json_t *j = NULL;
    if (!w->w && !w->n) HD_TRY(begin_shard(w, err)); // nothing was added: an empty shard says so
    if (w->w) HD_TRY(end_shard(w, err));
    sodium_bin2hex(hex, sizeof hex, w->tokenizer, HD_SHARD_PRINT);
    hd_json_note();
    j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:O, s:O*}", "tokenizer", hex, "vocab",
                  (json_int_t)w->n_vocab, "docs", (json_int_t)w->n_docs, "ids", (json_int_t)w->n_tok,
                  "targets", (json_int_t)w->n_targets, "bytes", (json_int_t)w->text_bytes, "shards", w->list,
                  "report", report);
    text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    if (!text || hd_json_refused()) HD_TRY(hd_fail(err, HD_NOMEM, "data: %.200s: no memory", w->path));
    HD_TRY(join(&file, w->path, "pack.json", err));
    HD_TRY(hd_json_save(file, text, err));
    w->finished = true;
fail:
    json_decref(j);
    free(text);
    free(file);
    return st;
}
