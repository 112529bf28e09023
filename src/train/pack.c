/* Packing, a batch of documents at a time:
 *
 *     read       one thread: files are streams
 *     look       all threads: hashes, signature, shared words with evaluations
 *     choose     one thread, in order, so that of duplicates the first one stays
 *     encode     all threads, each with a tokenizer of its own (their caches of words)
 *     write      one thread, in order
 *
 * What is written does not depend on the number of threads or on the size of a batch. */
#include "train/pack.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/pool.h"
#include "base/utf8.h"
#include "model/json.h"
#include "train/chat_data.h"
#include "train/dedup.h"
#include "train/overlap.h"
#include "train/shard_dir.h"
#include "train/text.h"

enum {
    BATCH_DOCS = 4096,
    BATCH_BYTES = 8 << 20,
    MAX_DOC = 64 << 20,
    LONG_IDS = 1 << 16,
    MAX_EXAMPLES = 20,
    CHUNK = 16
};
static const int64_t SHARD_IDS = INT64_C(64) << 20;

typedef struct {
    size_t at, n; // text in the batch's buffer
    int file;
    int64_t number; // of its file, from 1
    hd_dedup_sign sign;
    bool drop, overlaps;
    int eval_file;
    int64_t eval_item;
    hd_ids ids;
    hd_buf mask; // conversations
    hd_status st;
} doc;

typedef struct {
    hd_tokenizer *t;
    hd_wordhash words;
    hd_buf text;
    hd_err err;
    hd_status st;
    doc *failed; // the first of this thread's, in the batch's order
} worker;

typedef struct {
    const hd_pack_opts *o;
    hd_pack_report *r;
    const char *const *files;
    int n_files;
    hd_text *in; // the open file
    int at_file;
    int64_t number;
    uint64_t done; // bytes of closed files
    uint64_t shown;
    hd_buf one, text; // a document; the batch's
    doc *batch;
    int n;
    hd_pool *pool;
    worker *w;
    int n_workers;
    const hd_chat_format *chat;
    int32_t bos, end;
    hd_dedup *dedup;
    hd_overlap *overlap;
    hd_shard_dir_writer out, val;
    doc held;
    int64_t n_written;
    json_t *examples;
    hd_progress bar;
} packer;

/* ---- The tokenizer ---- */

void hd_pack_fingerprint(uint8_t out[HD_SHARD_PRINT], const hd_tokenizer *t)
{
    crypto_generichash_state h;
    int64_t n = hd_tokenizer_n_vocab(t);
    crypto_generichash_init(&h, NULL, 0, HD_SHARD_PRINT);
    crypto_generichash_update(&h, (const uint8_t *)&n, sizeof n);
    for (int32_t i = 0; i < n; i++) {
        size_t len = 0;
        const char *s = hd_tokenizer_bytes(t, i, &len);
        uint32_t about = (uint32_t)len << 2 | (uint32_t)(s != NULL) << 1 | hd_tokenizer_is_special(t, i);
        crypto_generichash_update(&h, (const uint8_t *)&about, sizeof about);
        if (s) crypto_generichash_update(&h, (const uint8_t *)s, len);
    }
    crypto_generichash_final(&h, out, HD_SHARD_PRINT);
}

hd_status hd_pack_check(const char *dir, const hd_tokenizer *t, const char *name, hd_err *err)
{
    uint8_t print[HD_SHARD_PRINT];
    hd_shard_dir d;
    hd_status st = hd_shard_dir_open(&d, dir, err);
    if (st != HD_OK) return st;
    hd_pack_fingerprint(print, t);
    if (memcmp(print, hd_shard_dir_about(&d)->tokenizer, sizeof print) != 0)
        st = hd_fail(err, HD_FORMAT, "data: %.200s: packed with another tokenizer than that of %.200s", dir, name);
    hd_shard_dir_close(&d);
    return st;
}

int32_t hd_pack_end(const hd_source *s, const hd_tokenizer *t)
{
    static const char *const known[] = {"<|endoftext|>", "<｜end▁of▁sentence｜>", "<|end_of_text|>", "</s>",
                                        "<eos>"};
    const json_t *j =
        hd_source_get_kind(s) == HD_SOURCE_HF ? hd_source_json(s, "tokenizer_config.json") : NULL;
    const json_t *eos = json_object_get(j, "eos_token");
    const char *name = json_string_value(json_is_object(eos) ? json_object_get(eos, "content") : eos);
    const hd_config *c = hd_source_config(s);
    int32_t id = name ? hd_tokenizer_find(t, name) : -1;
    if (id < 0 && c && c->n_eos) id = c->eos[0];
    for (int i = 0; id < 0 && i < 5; i++) id = hd_tokenizer_find(t, known[i]);
    return id < hd_tokenizer_n_vocab(t) ? id : -1;
}

/* ---- Reading ---- */

static hd_status open_next(packer *p, hd_err *err)
{
    const hd_text_opts o = {.field = p->o->field, .divider = p->o->divider, .whole_json = p->o->chat};
    p->number = 0;
    return hd_text_open(&p->in, p->files[p->at_file], &o, err);
}

static void show(packer *p)
{
    uint64_t now = p->done + (p->in ? hd_text_done(p->in) : 0);
    if (p->o->progress && now > p->shown) hd_progress_add(&p->bar, now - p->shown);
    p->shown = now;
}

/* Documents until the batch is full or the files are at their end (p->n 0: nothing is left). */
static hd_status read_batch(packer *p, hd_err *err)
{
    hd_status st = HD_OK;
    bool more;
    p->n = 0;
    hd_buf_clear(&p->text);
    while (p->n < BATCH_DOCS && p->text.len < BATCH_BYTES && p->at_file < p->n_files) {
        if (!p->in) HD_TRY(open_next(p, err));
        HD_TRY(hd_text_next(p->in, &p->one, &more, err));
        if (!more) {
            p->done += hd_text_done(p->in);
            hd_text_close(p->in);
            p->in = NULL;
            p->at_file++;
            continue;
        }
        doc *d = &p->batch[p->n];
        hd_ids ids = d->ids; // their memory stays
        hd_buf mask = d->mask;
        *d = (doc){.at = p->text.len,
                   .n = p->one.len,
                   .file = p->at_file,
                   .number = ++p->number,
                   .ids = ids,
                   .mask = mask};
        d->ids.n = 0;
        hd_buf_clear(&d->mask);
        HD_TRY(hd_buf_add(&p->text, p->one.data, p->one.len, err));
        p->n++;
        p->r->n_read++;
        p->r->read_bytes += (int64_t)p->one.len;
        if (p->o->stop && *p->o->stop)
            HD_TRY(hd_fail(err, HD_CANCELLED, "data: interrupted; nothing was packed"));
    }
    show(p);
fail:
    return st;
}

/* ---- Looking ---- */

static hd_status look_at(packer *p, worker *w, doc *d)
{
    hd_status st = HD_OK;
    const char *s = p->text.data + d->at;
    size_t n = d->n;
    d->sign.text = hd_dedup_text(s, n);
    if (!p->overlap && !(p->o->near > 0 && p->o->near <= 1)) return HD_OK;
    hd_buf_clear(&w->text);
    if (p->o->chat && hd_json_strings(&w->text, s, n)) s = w->text.data ? w->text.data : "", n = w->text.len;
    w->words.n = 0;
    HD_TRY(hd_wordhash_add(&w->words, s, n, &w->err));
    hd_dedup_words(&d->sign, &w->words);
    if (p->overlap) d->overlaps = hd_overlap_find(p->overlap, &w->words, &d->eval_file, &d->eval_item);
fail:
    return st;
}

/* Ids of a kept document, with its ends. */
static hd_status encode_it(packer *p, worker *w, doc *d)
{
    hd_status st = HD_OK;
    const char *s = p->text.data + d->at;
    if (p->chat) return hd_chat_data_line(p->chat, w->t, s, d->n, &d->ids, &d->mask, &w->err);
    if (p->bos >= 0) HD_TRY(hd_ids_add(&d->ids, p->bos, &w->err));
    HD_TRY(hd_tokenizer_encode(w->t, s, d->n, &d->ids, &w->err));
    if (p->end >= 0) HD_TRY(hd_ids_add(&d->ids, p->end, &w->err));
fail:
    return st;
}

typedef struct {
    packer *p;
    hd_status (*step)(packer *p, worker *w, doc *d);
} job;

static void run_chunk(void *arg, int64_t chunk, int tid)
{
    job *j = arg;
    packer *p = j->p;
    worker *w = &p->w[tid];
    for (int64_t i = chunk * CHUNK; i < (chunk + 1) * CHUNK && i < p->n; i++) {
        doc *d = &p->batch[i];
        if (d->drop || w->st != HD_OK) continue;
        w->st = j->step(p, w, d);
        if (w->st != HD_OK) w->failed = d;
    }
}

/* A step for each document that stays.  The first failure in the batch's order is told of, with its place. */
static hd_status run_all(packer *p, hd_status (*step)(packer *p, worker *w, doc *d), hd_err *err)
{
    job j = {p, step};
    const worker *first = NULL;
    hd_pool_run(p->pool, (p->n + CHUNK - 1) / CHUNK, run_chunk, &j);
    for (int i = 0; i < p->n_workers; i++)
        if (p->w[i].st != HD_OK && (!first || p->w[i].failed < first->failed)) first = &p->w[i];
    if (!first) return HD_OK;
    const doc *d = first->failed;
    return hd_fail(err, first->st, "data: %.200s: document %lld: %.200s", p->files[d->file],
                   (long long)d->number, first->err.msg);
}

/* ---- Choosing ---- */

static hd_status add_example(packer *p, const doc *d, hd_err *err)
{
    if (!p->examples || json_array_size(p->examples) >= MAX_EXAMPLES) return HD_OK;
    size_t n = hd_utf8_whole(p->text.data + d->at, d->n < 120 ? d->n : 120);
    hd_overlap_file f = hd_overlap_file_at(p->overlap, d->eval_file);
    json_t *o =
        json_pack("{s:s, s:I, s:s%, s:s, s:I}", "file", p->files[d->file], "document", (json_int_t)d->number,
                  "begins", p->text.data + d->at, n, "against", f.path, "text", (json_int_t)d->eval_item + 1);
    if (!o) return HD_OK; // invalid UTF-8: no example
    return json_array_append_new(p->examples, o) == 0
               ? HD_OK
               : hd_fail(err, HD_NOMEM, "data: no memory for the report");
}

static hd_status choose(packer *p, hd_err *err)
{
    hd_status st = HD_OK;
    for (int i = 0; i < p->n; i++) {
        doc *d = &p->batch[i];
        hd_dedup_kind kind = HD_DEDUP_NEW;
        d->drop = true;
        if (d->overlaps) {
            p->r->n_overlap++;
            HD_TRY(add_example(p, d, err));
            continue;
        }
        if (p->dedup) HD_TRY(hd_dedup_seen(p->dedup, &d->sign, &kind, err));
        p->r->n_same += kind == HD_DEDUP_SAME;
        p->r->n_near += kind == HD_DEDUP_NEAR;
        d->drop = kind != HD_DEDUP_NEW;
    }
fail:
    return st;
}

/* ---- Writing ---- */

/* Bytes that ids [from, to) spell, special ones aside. */
static uint64_t spelled(const packer *p, const doc *d, int64_t from, int64_t to, bool learnt)
{
    uint64_t sum = 0;
    const hd_tokenizer *t = p->w[0].t;
    for (int64_t i = from; i < to; i++) {
        size_t n = 0;
        if (learnt && !d->mask.data[i]) continue;
        if (hd_tokenizer_is_special(t, d->ids.id[i]) || !hd_tokenizer_bytes(t, d->ids.id[i], &n)) continue;
        sum += n;
    }
    return sum;
}

/* A document's ids [from, to) as a document of train or of val. */
static hd_status write_part(packer *p, const doc *d, int64_t from, int64_t to, bool val, hd_err *err)
{
    hd_shard_dir_writer *w = val ? &p->val : &p->out;
    if (to <= from) return HD_OK;
    const uint8_t *mask = p->chat ? (const uint8_t *)d->mask.data + from : NULL;
    return hd_shard_dir_add(w, d->ids.id + from, to - from, mask, spelled(p, d, from + 1, to, mask != NULL),
                            err);
}

/* With validation, the last training document waits: it gives its end when nothing else fell to validation.
 * `take`: ids of it that do. */
static hd_status write_held(packer *p, int64_t take, hd_err *err)
{
    hd_status st = HD_OK;
    int64_t n = p->held.ids.n;
    HD_TRY(write_part(p, &p->held, 0, n - take, false, err));
    HD_TRY(write_part(p, &p->held, n - take, n, true, err));
    p->held.ids.n = 0;
fail:
    return st;
}

static hd_status hold(packer *p, doc *d, hd_err *err)
{
    hd_status st = write_held(p, 0, err);
    doc was = p->held;
    if (st != HD_OK) return st;
    p->held = *d;
    d->ids = was.ids, d->mask = was.mask; // their memory, for the next
    return HD_OK;
}

static hd_status write_batch(packer *p, hd_err *err)
{
    hd_status st = HD_OK;
    double share = p->o->val_share;
    for (int i = 0; i < p->n; i++) {
        doc *d = &p->batch[i];
        if (d->drop) continue;
        int64_t n = d->ids.n, cut = n;
        bool is_long = n > LONG_IDS && !p->chat, first = !p->n_written++; // the first is always trained on
        bool val = !is_long && !first && (double)(hd_mix(d->sign.text) >> 11) * 0x1p-53 < share;
        if (is_long) cut = n - (int64_t)(share * (double)n);
        if (share > 0 && !val && cut == n) HD_TRY(hold(p, d, err));
        else HD_TRY(write_part(p, d, 0, cut, val, err));
        if (cut < n) HD_TRY(write_part(p, d, cut, n, true, err));
        if (d->ids.cap > LONG_IDS)
            hd_ids_free(&d->ids); // a few long documents must not hold their memory in every place
    }
fail:
    return st;
}

/* Ids of the held document for validation: the share of all there is, half of the document at most; a
 * conversation whole. */
static int64_t held_for_val(const packer *p)
{
    const hd_shard_dir_writer *w = &p->out;
    int64_t n = p->held.ids.n, before = w->n_tok + (w->w ? hd_shard_written(w->w)->n_tok : 0);
    if (p->val.w || p->val.n) return 0;
    if (p->chat) return before ? n : 0;
    if (n < 16) return 0; // halves of so little are worth nothing
    int64_t take = (int64_t)(p->o->val_share * (double)(before + n)) + 2;
    return take < n / 2 ? take : n / 2;
}

/* ---- All of it ---- */

static hd_status open_workers(packer *p, const hd_source *s, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_pool_open(&p->pool, p->o->n_threads, err));
    int n = hd_pool_threads(p->pool);
    HD_TRY(hd_alloc_n(&p->w, (size_t)n, sizeof *p->w, err));
    p->n_workers = n;
    for (int i = 0; i < n; i++) {
        hd_buf_init(&p->w[i].text, MAX_DOC * 2);
        HD_TRY(hd_tokenizer_open(&p->w[i].t, s, err));
    }
fail:
    return st;
}

static hd_status prepare(packer *p, const char *dir, const hd_source *s, hd_err *err)
{
    hd_status st;
    uint8_t print[HD_SHARD_PRINT];
    char val[1040];
    const hd_pack_opts *o = p->o;
    HD_TRY(open_workers(p, s, err));
    const hd_tokenizer *t = p->w[0].t;
    if (o->chat) HD_TRY(hd_chat_pick(&p->chat, s, t, o->chat_format, err));
    p->bos = hd_tokenizer_adds_bos(t) ? hd_tokenizer_bos(t) : -1;
    p->end = hd_pack_end(s, t);
    if (p->end < 0 && !o->chat) hd_warn("data: the tokenizer has no end token: documents are packed without");
    if (o->near > 0) HD_TRY(hd_dedup_open(&p->dedup, o->near, err));
    if (o->n_against) HD_TRY(hd_overlap_open(&p->overlap, err));
    if (!(p->examples = json_array())) HD_TRY(hd_fail(err, HD_NOMEM, "data: no memory for the report"));
    for (int i = 0; i < o->n_against; i++) HD_TRY(hd_overlap_add(p->overlap, o->against[i], o->field, err));
    HD_TRY(hd_alloc_n(&p->batch, BATCH_DOCS, sizeof *p->batch, err));
    for (int i = 0; i < BATCH_DOCS; i++) hd_buf_init(&p->batch[i].mask, SIZE_MAX / 4);
    hd_pack_fingerprint(print, t);
    int64_t n_vocab = hd_tokenizer_n_vocab(t), max_tok = o->max_tok > 0 ? o->max_tok : SHARD_IDS;
    HD_TRY(hd_shard_dir_begin(&p->out, dir, print, n_vocab, max_tok, o->replace, err));
    if (o->val_share > 0) {
        if (snprintf(val, sizeof val, "%s/val", dir) >= (int)sizeof val)
            HD_TRY(hd_fail(err, HD_USAGE, "data: %.200s: too long a name", dir));
        HD_TRY(hd_shard_dir_begin(&p->val, val, print, n_vocab, max_tok, o->replace, err));
    }
fail:
    return st;
}

static json_t *report_json(const packer *p)
{
    const hd_pack_report *r = p->r;
    json_t *files = json_array(), *against = json_array();
    for (int i = 0; i < p->n_files; i++) json_array_append_new(files, json_string(p->files[i]));
    for (int i = 0; p->overlap && i < hd_overlap_n_files(p->overlap); i++) {
        hd_overlap_file f = hd_overlap_file_at(p->overlap, i);
        json_array_append_new(against, json_pack("{s:s, s:I, s:I}", "file", f.path, "texts",
                                                 (json_int_t)f.n_items, "too_short", (json_int_t)f.n_short));
    }
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:O}", "files", files, "documents_read",
                     (json_int_t)r->n_read, "bytes_read", (json_int_t)r->read_bytes, "same",
                     (json_int_t)r->n_same, "near", (json_int_t)r->n_near, "overlapping",
                     (json_int_t)r->n_overlap, "against", against, "examples", p->examples);
}

static hd_status finish(packer *p, json_t **json, hd_err *err)
{
    hd_status st = HD_OK;
    hd_pack_report *r = p->r;
    hd_json_note();
    json_t *report = report_json(p);
    if (!report || hd_json_refused()) HD_TRY(hd_fail(err, HD_NOMEM, "data: no memory for the report"));
    HD_TRY(write_held(p, held_for_val(p), err));
    if (!p->out.w && !p->out.n)
        HD_TRY(hd_fail(err, HD_FORMAT, "data: %.200s: no document is left to pack", p->files[0]));
    if (p->val.w || p->val.n) HD_TRY(hd_shard_dir_finish(&p->val, NULL, err));
    else if (p->val.path) hd_warn("data: too little for validation: there is none");
    HD_TRY(hd_shard_dir_finish(&p->out, report, err));
    r->n_docs = p->out.n_docs, r->n_ids = p->out.n_tok, r->n_targets = p->out.n_targets,
    r->text_bytes = (int64_t)p->out.text_bytes;
    r->n_val_docs = p->val.n_docs, r->n_val_ids = p->val.n_tok;
    if (json) *json = json_incref(report);
fail:
    json_decref(report);
    return st;
}

static void close_all(packer *p)
{
    hd_pool_close(p->pool);
    for (int i = 0; i < p->n_workers; i++) {
        hd_tokenizer_close(p->w[i].t);
        hd_wordhash_free(&p->w[i].words);
        hd_buf_free(&p->w[i].text);
    }
    for (int i = 0; p->batch && i < BATCH_DOCS; i++) {
        hd_ids_free(&p->batch[i].ids);
        hd_buf_free(&p->batch[i].mask);
    }
    hd_ids_free(&p->held.ids);
    hd_buf_free(&p->held.mask);
    free(p->w);
    free(p->batch);
    hd_text_close(p->in);
    hd_buf_free(&p->one);
    hd_buf_free(&p->text);
    hd_dedup_close(p->dedup);
    hd_overlap_close(p->overlap);
    hd_shard_dir_writer_close(&p->val); // before the folder it lies in
    hd_shard_dir_writer_close(&p->out);
    json_decref(p->examples);
}

static uint64_t size_of_files(const char *const *files, int n)
{
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) {
        hd_map m;
        if (hd_map_open(&m, files[i], NULL) != HD_OK) continue; // told of when its turn comes
        sum += m.size;
        hd_map_close(&m);
    }
    return sum;
}

hd_status hd_pack(const char *dir, const hd_source *tokenizer, const char *const *files, int n_files,
                  const hd_pack_opts *o, hd_pack_report *r, json_t **json, hd_err *err)
{
    hd_status st;
    packer p = {.o = o, .r = r, .files = files, .n_files = n_files};
    double t0 = hd_now_s();
    *r = (hd_pack_report){0};
    if (sodium_init() < 0) return hd_fail(err, HD_IO, "data: libsodium does not start");
    hd_buf_init(&p.one, MAX_DOC + 16);
    hd_buf_init(&p.text, MAX_DOC + BATCH_BYTES + 64);
    hd_buf_init(&p.held.mask, SIZE_MAX / 4);
    if (n_files < 1) return hd_fail(err, HD_USAGE, "data: no files to pack");
    for (int i = 0; i < n_files; i++) // before an hour of work, not after it
        if (!hd_is_file(files[i])) HD_TRY(hd_fail(err, HD_IO, "data: %.200s: no such file", files[i]));
    HD_TRY(prepare(&p, dir, tokenizer, err));
    if (o->progress) hd_progress_begin(&p.bar, "packing", size_of_files(files, n_files), "B");
    for (;;) {
        st = read_batch(&p, err);
        if (st != HD_OK || !p.n) break;
        if ((st = run_all(&p, look_at, err)) != HD_OK || (st = choose(&p, err)) != HD_OK ||
            (st = run_all(&p, encode_it, err)) != HD_OK || (st = write_batch(&p, err)) != HD_OK)
            break;
    }
    if (o->progress) hd_progress_end(&p.bar);
    if (st == HD_OK) st = finish(&p, json, err);
fail:
    close_all(&p);
    r->seconds = hd_now_s() - t0;
    return st;
}
