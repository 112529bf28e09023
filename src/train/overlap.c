/* All n-grams of the evaluation's texts in one table, n = 13, or as many words as a shorter text
 * has, 8 at least (GPT-3's rule: arXiv:2005.14165, appendix C).  A training text is scanned once
 * for each n that occurs.
 *
 * An n-gram's hash is a polynomial in its words' hashes, so that it rolls: one product and one
 * difference a word. */
#include "train/overlap.h"

#include <string.h>

#include "base/file.h"
#include "model/json.h"
#include "train/input.h"
#include "train/text.h"

enum { MAX_JSON = 256 << 20, MAX_JSON_VALUES = 1 << 24, MAX_FILES = 64 };
static const uint64_t BASE = UINT64_C(0x9e3779b97f4a7c15);

typedef struct {
    uint64_t key; // 0: free
    uint32_t file, item;
} slot;

struct hd_overlap {
    slot *s;
    size_t mask, used;
    bool has[HD_OVERLAP_MOST + 1]; // lengths that occur
    char *path[MAX_FILES];
    int64_t n_items[MAX_FILES], n_short[MAX_FILES];
    int n_files;
};

hd_status hd_overlap_open(hd_overlap **out, hd_err *err)
{
    hd_status st;
    hd_overlap *o = NULL;
    HD_TRY(hd_alloc(&o, sizeof *o, err));
    HD_TRY(hd_alloc_n(&o->s, 1 << 12, sizeof *o->s, err));
    o->mask = (1 << 12) - 1;
    *out = o;
    return HD_OK;
fail:
    hd_overlap_close(o);
    return st;
}

void hd_overlap_close(hd_overlap *o)
{
    if (!o) return;
    for (int i = 0; i < o->n_files; i++) free(o->path[i]);
    free(o->s);
    free(o);
}

int hd_overlap_n_files(const hd_overlap *o) { return o->n_files; }

hd_overlap_file hd_overlap_file_at(const hd_overlap *o, int i)
{
    return (hd_overlap_file){o->path[i], o->n_items[i], o->n_short[i]};
}

static const slot *find(const hd_overlap *o, uint64_t key)
{
    size_t i = key & o->mask;
    while (o->s[i].key && o->s[i].key != key) i = (i + 1) & o->mask;
    return &o->s[i];
}

static hd_status put(hd_overlap *o, uint64_t key, uint32_t file, uint32_t item, hd_err *err)
{
    hd_status st = HD_OK;
    if (2 * o->used > o->mask) {
        hd_overlap bigger = {.mask = 2 * o->mask + 1};
        HD_TRY(hd_alloc_n(&bigger.s, bigger.mask + 1, sizeof *bigger.s, err));
        for (size_t i = 0; i <= o->mask; i++)
            if (o->s[i].key) *(slot *)find(&bigger, o->s[i].key) = o->s[i];
        free(o->s);
        o->s = bigger.s;
        o->mask = bigger.mask;
    }
    slot *s = (slot *)find(o, key);
    if (!s->key) {
        *s = (slot){key, file, item};
        o->used++;
    }
fail:
    return st;
}

/* BASE to the n-1: the weight of an n-gram's first word. */
static uint64_t lead_weight(int n)
{
    uint64_t v = 1;
    for (int i = 1; i < n; i++) v *= BASE;
    return v;
}

/* The key of words [i-n+1, i], from that of the n words before, or from nothing (i == n - 1). */
static uint64_t roll(uint64_t h, const uint64_t *w, int64_t i, int n, uint64_t lead)
{
    if (i >= n) return (h - w[i - n] * lead) * BASE + w[i];
    h = 0;
    for (int64_t k = 0; k <= i; k++) h = h * BASE + w[k];
    return h;
}

static uint64_t key_of(uint64_t h, int n) { return hd_mix(h ^ (uint64_t)n << 56) | 1; }

static hd_status add_text(hd_overlap *o, const char *p, size_t n, hd_wordhash *w, hd_err *err)
{
    hd_status st;
    int f = o->n_files;
    w->n = 0;
    HD_TRY(hd_wordhash_add(w, p, n, err));
    if (!w->n) return HD_OK;
    int64_t item = o->n_items[f]++;
    if (w->n < HD_OVERLAP_LEAST) {
        o->n_short[f]++;
        return HD_OK;
    }
    int gram = w->n < HD_OVERLAP_MOST ? (int)w->n : HD_OVERLAP_MOST;
    uint64_t lead = lead_weight(gram), h = 0;
    o->has[gram] = true;
    for (int64_t i = gram - 1; i < w->n; i++) {
        h = roll(h, w->hash, i, gram, lead);
        HD_TRY(put(o, key_of(h, gram), (uint32_t)f, (uint32_t)item, err));
    }
fail:
    return st;
}

static hd_status add_json_file(hd_overlap *o, const char *path, hd_wordhash *w, hd_err *err)
{
    hd_status st;
    hd_buf b, text;
    json_t *j = NULL;
    hd_buf_init(&b, MAX_JSON);
    hd_buf_init(&text, MAX_JSON);
    HD_TRY(hd_file_read(&b, path, err));
    HD_TRY(hd_json_parse(&j, b.data, b.len, MAX_JSON_VALUES, "data", path, err));
    size_t n = json_is_array(j) ? json_array_size(j) : 1;
    for (size_t i = 0; i < n; i++) {
        hd_buf_clear(&text);
        if (!hd_json_strings_of(&text, json_is_array(j) ? json_array_get(j, i) : j))
            HD_TRY(hd_fail(err, HD_NOMEM, "data: %.200s: no memory for a text", path));
        HD_TRY(add_text(o, text.data ? text.data : "", text.len, w, err));
    }
fail:
    json_decref(j);
    hd_buf_free(&b);
    hd_buf_free(&text);
    return st;
}

static hd_status add_texts(hd_overlap *o, const char *path, const char *field, hd_wordhash *w, hd_err *err)
{
    hd_status st;
    hd_text *t = NULL;
    hd_buf doc, text;
    bool more, json = false;
    const char *const lines[] = {".jsonl", ".ndjson", ".jsonl.zst", ".ndjson.zst"};
    const hd_text_opts opts = {.divider = "\n", .whole_json = true, .field = field};
    for (int i = 0; i < 4; i++) json |= hd_ends_in(path, lines[i]);
    hd_buf_init(&doc, MAX_JSON);
    hd_buf_init(&text, MAX_JSON);
    HD_TRY(hd_text_open(&t, path, &opts, err));
    for (;;) {
        HD_TRY(hd_text_next(t, &doc, &more, err));
        if (!more) break;
        hd_buf_clear(&text);
        if (json && !hd_json_strings(&text, doc.data, doc.len))
            HD_TRY(hd_fail(err, HD_FORMAT, "data: %.200s: a line is no JSON", path));
        const hd_buf *b = json ? &text : &doc;
        HD_TRY(add_text(o, b->data ? b->data : "", b->len, w, err));
    }
fail:
    hd_text_close(t);
    hd_buf_free(&doc);
    hd_buf_free(&text);
    return st;
}

hd_status hd_overlap_add(hd_overlap *o, const char *path, const char *field, hd_err *err)
{
    hd_status st;
    hd_wordhash w = {0};
    if (o->n_files == MAX_FILES)
        return hd_fail(err, HD_LIMIT, "data: more than %d files to compare with", MAX_FILES);
    o->n_items[o->n_files] = o->n_short[o->n_files] = 0;
    HD_TRY(hd_ends_in(path, ".json") ? add_json_file(o, path, &w, err) : add_texts(o, path, field, &w, err));
    HD_TRY(hd_strdup(&o->path[o->n_files], path, err));
    o->n_files++;
fail:
    hd_wordhash_free(&w);
    return st;
}

bool hd_overlap_find(const hd_overlap *o, const hd_wordhash *w, int *file, int64_t *item)
{
    for (int gram = HD_OVERLAP_MOST; gram >= HD_OVERLAP_LEAST; gram--) {
        uint64_t lead = lead_weight(gram), h = 0;
        for (int64_t i = gram - 1; o->has[gram] && i < w->n; i++) {
            h = roll(h, w->hash, i, gram, lead);
            const slot *s = find(o, key_of(h, gram));
            if (!s->key) continue;
            *file = (int)s->file;
            *item = s->item;
            return true;
        }
    }
    return false;
}
