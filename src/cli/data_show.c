/* hadal data info, hadal data show: looking into shards, and into files before they are packed. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "cli/data.h"
#include "cli/hub.h"
#include "cli/load.h"
#include "model/json.h"
#include "train/pack.h"
#include "train/shard_dir.h"
#include "train/text.h"

enum { MAX_SHOWN = 64 << 20 };

/* ---- info ---- */

static hd_status check_all(const hd_shard_dir *d, hd_err *err)
{
    hd_status st = HD_OK;
    hd_progress bar;
    hd_progress_begin(&bar, "checking", (uint64_t)hd_shard_dir_tok(d), "ids");
    for (int i = 0; i < d->n && st == HD_OK; i++) {
        st = hd_shard_check(d->shard[i], err);
        if (st == HD_OK && hd_interrupted) st = hd_fail(err, HD_CANCELLED, "data: interrupted");
        hd_progress_add(&bar, (uint64_t)hd_shard_about(d->shard[i])->n_tok);
    }
    hd_progress_end(&bar);
    return st;
}

static hd_status print_info(const hd_shard_dir *d, bool json, hd_err *err)
{
    const hd_shard_info *a = hd_shard_dir_about(d);
    char hex[2 * HD_SHARD_PRINT + 1];
    int64_t ranges = 0, longest = 0;
    hd_shard_doc doc;
    for (int i = 0; i < d->n; i++) ranges += hd_shard_about(d->shard[i])->n_ranges;
    for (int64_t i = 0; i < hd_shard_dir_docs(d); i++) {
        hd_shard_dir_doc(d, i, &doc);
        if (doc.n > longest) longest = doc.n;
    }
    sodium_bin2hex(hex, sizeof hex, a->tokenizer, HD_SHARD_PRINT);
    if (json)
        return hd_json_print_take(json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:s}", "dir",
                                            d->path, "shards", d->n, "docs", (json_int_t)hd_shard_dir_docs(d),
                                            "ids", (json_int_t)hd_shard_dir_tok(d), "targets",
                                            (json_int_t)d->n_targets, "bytes", (json_int_t)d->text_bytes,
                                            "longest", (json_int_t)longest, "masked", ranges > 0, "vocab",
                                            (json_int_t)a->n_vocab, "tokenizer", hex),
                                  0, "data: info", err);
    printf("%s: %lld documents, %lld ids in %d %s\n", d->path, (long long)hd_shard_dir_docs(d),
           (long long)hd_shard_dir_tok(d), d->n, d->n == 1 ? "shard" : "shards");
    if (hd_shard_dir_docs(d))
        printf("a document has %.1f ids on average, the longest %lld\n",
               (double)hd_shard_dir_tok(d) / (double)hd_shard_dir_docs(d), (long long)longest);
    if (d->n_targets)
        printf("targets: %lld (%.1f %% of ids%s), %.3f bytes each\n", (long long)d->n_targets,
               100.0 * (double)d->n_targets / (double)hd_shard_dir_tok(d), ranges ? ", answers alone" : "",
               (double)d->text_bytes / (double)d->n_targets);
    printf("tokenizer: %.16s, %lld ids in its vocabulary\n", hex, (long long)a->n_vocab);
    return HD_OK;
}

hd_status hd_data_cmd_info(int argc, char **argv, hd_err *err)
{
    hd_status st;
    bool check = false, json = false;
    int n = 0;
    hd_shard_dir d = {0};
    const hd_opt opts[] = {{"check", 0, HD_OPT_FLAG, &check, 0, 0}, {"json", 0, HD_OPT_FLAG, &json, 0, 0}};
    HD_TRY(hd_opts_parse(opts, 2, argc, argv, &n, err));
    if (n != 1) return hd_fail(err, HD_USAGE, "data: one folder is needed: hadal data info DIR");
    hd_watch_signals();
    HD_TRY(hd_shard_dir_open(&d, argv[1], err));
    if (check) HD_TRY(check_all(&d, err));
    HD_TRY(print_info(&d, json, err));
fail:
    hd_shard_dir_close(&d);
    return st;
}

/* ---- show ---- */

/* Text for a terminal or for JSON; bytes that are no text are replaced. */
static hd_status print_doc(int64_t number, const char *about, const void *text, size_t n, json_t *more,
                           hd_err *err)
{
    hd_status st;
    hd_buf valid;
    hd_buf_init(&valid, SIZE_MAX / 4);
    HD_TRY(hd_utf8_repair(&valid, text, n, err));
    if (more) {
        json_object_set_new(more, "document", json_integer((json_int_t)number));
        json_object_set_new(more, "text", json_stringn(valid.data ? valid.data : "", valid.len));
        if (hd_json_refused()) HD_TRY(hd_fail(err, HD_NOMEM, "data: document %lld: no memory", (long long)number));
        HD_TRY(hd_json_print_take(json_incref(more), 0, "data: document", err));
    } else {
        printf("--- document %lld%s ---\n", (long long)number, about);
        if (valid.len) fwrite(valid.data, 1, valid.len, stdout); // main looks at what became of it
        putchar('\n');
    }
fail:
    hd_buf_free(&valid);
    return st;
}

static bool stopped(void) { return hd_interrupted || ferror(stdout); }

static hd_status show_file(const char *path, const hd_text_opts *o, int64_t from, int64_t count, bool json,
                           hd_err *err)
{
    hd_status st;
    hd_text *t = NULL;
    hd_buf doc;
    bool more = true;
    hd_buf_init(&doc, MAX_SHOWN + 16);
    HD_TRY(hd_text_open(&t, path, o, err));
    for (int64_t i = 1; i < from + count && !stopped(); i++) {
        HD_TRY(hd_text_next(t, &doc, &more, err));
        if (!more) break;
        if (i < from) continue;
        hd_json_note();
        json_t *j = json ? json_object() : NULL;
        if (json && !j) HD_TRY(hd_fail(err, HD_NOMEM, "data: %.200s: no memory", path));
        st = print_doc(i, "", doc.data, doc.len, j, err);
        json_decref(j);
        if (st != HD_OK) goto fail;
    }
fail:
    hd_text_close(t);
    hd_buf_free(&doc);
    return st;
}

/* In JSON: what is learnt, as ranges of ids. */
static json_t *ranges_of(const uint8_t *learnt, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; list && i < n;) {
        int64_t from = i;
        while (i < n && learnt[i] == learnt[from]) i++;
        if (learnt[from]) json_array_append_new(list, json_pack("[I, I]", (json_int_t)from, (json_int_t)i));
    }
    return list;
}

static hd_status show_doc(const hd_shard_dir *d, int64_t i, const hd_tokenizer *t, bool json, hd_err *err)
{
    hd_status st;
    hd_shard_doc doc;
    hd_shard *s = hd_shard_dir_doc(d, i, &doc);
    int32_t *id = NULL;
    uint8_t *learnt = NULL;
    hd_buf text;
    char about[64];
    json_t *j = NULL;
    hd_buf_init(&text, SIZE_MAX / 4);
    HD_TRY(hd_alloc_n(&id, (size_t)doc.n, sizeof *id, err));
    HD_TRY(hd_alloc_n(&learnt, (size_t)doc.n, 1, err));
    HD_TRY(hd_shard_read(s, doc.at, doc.n, id, err));
    hd_shard_learnt(s, &doc, 0, doc.n, learnt);
    HD_TRY(hd_tokenizer_decode(t, id, doc.n, true, &text, err));
    snprintf(about, sizeof about, ": %lld ids%s", (long long)doc.n, doc.n_ranges ? ", answers alone" : "");
    if (json) {
        hd_json_note();
        json_t *ids = json_array();
        for (int64_t k = 0; k < doc.n; k++) json_array_append_new(ids, json_integer(id[k]));
        j = json_pack("{s:o, s:o}", "ids", ids, "learnt", ranges_of(learnt, doc.n));
        if (!j) HD_TRY(hd_fail(err, HD_NOMEM, "data: no memory for a document"));
    }
    HD_TRY(print_doc(i + 1, about, text.data ? text.data : "", text.len, j, err));
fail:
    json_decref(j);
    hd_buf_free(&text);
    free(id);
    free(learnt);
    return st;
}

static hd_status show_shards(const char *path, const char *model, int64_t from, int64_t count, bool json,
                             hd_err *err)
{
    hd_status st;
    hd_shard_dir d = {0};
    hd_source *s = NULL;
    hd_tokenizer *t = NULL;
    HD_TRY(hd_shard_dir_open(&d, path, err));
    if (!model)
        HD_TRY(hd_fail(err, HD_USAGE, "data: %.200s: --tokenizer MODEL is needed to spell its ids", path));
    HD_TRY(hd_hub_open_source(&s, model, false, err));
    HD_TRY(hd_tokenizer_open(&t, s, err));
    HD_TRY(hd_pack_check(path, t, model, err));
    for (int64_t i = from - 1; i < from - 1 + count && i < hd_shard_dir_docs(&d) && !stopped(); i++)
        HD_TRY(show_doc(&d, i, t, json, err));
fail:
    hd_tokenizer_close(t);
    hd_source_close(s);
    hd_shard_dir_close(&d);
    return st;
}

hd_status hd_data_cmd_show(int argc, char **argv, hd_err *err)
{
    hd_status st;
    const char *model = NULL;
    hd_text_opts o = {0};
    int64_t from = 1, count = 10;
    bool json = false;
    int n = 0;
    const hd_opt opts[] = {
        {"tokenizer", 0, HD_OPT_STR, &model, 0, 0},   {"from", 0, HD_OPT_INT, &from, 1, 1e15},
        {"count", 'n', HD_OPT_INT, &count, 0, 1e15},  {"field", 0, HD_OPT_STR, &o.field, 0, 0},
        {"divider", 0, HD_OPT_STR, &o.divider, 0, 0}, {"chat", 0, HD_OPT_FLAG, &o.whole_json, 0, 0},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1)
        return hd_fail(err, HD_USAGE,
                       "data: one folder or file is needed: hadal data show DIR --tokenizer MODEL");
    size_t len = strlen(argv[1]);
    bool shard = hd_is_dir(argv[1]) || (len > 4 && strcmp(argv[1] + len - 4, ".tok") == 0);
    hd_watch_signals();
    st = shard ? show_shards(argv[1], model, from, count, json, err)
               : show_file(argv[1], &o, from, count, json, err);
fail:
    return st;
}
