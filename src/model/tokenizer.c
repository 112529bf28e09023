/* Text to ids and back.
 *
 *   text -> UTF-8 repaired -> added tokens (raw) -> normal form -> added tokens (normalized) ->
 *   words -> BPE -> ids
 *
 * Each step hands its pieces to the next at once; nothing is collected but the ids.  The readers of the two
 * file forms are tokenizer_json.c and tokenizer_gguf.c. */
#include "model/tokenizer.h"

#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer_impl.h"
#include "model/vocab_tree.h"

struct hd_tokenizer_work {
    hd_bpe_work bpe;
    hd_pretok_work pretok;
    hd_buf repaired, normal[2];
};

/* ---- Ids ---- */

void hd_ids_free(hd_ids *v)
{
    free(v->id);
    *v = (hd_ids){0};
}

hd_status hd_ids_add(hd_ids *v, int32_t id, hd_err *err)
{
    if (v->n == v->cap) {
        int64_t cap = v->cap ? v->cap * 2 : 64;
        hd_status st = hd_realloc(&v->id, (size_t)cap * sizeof *v->id, err);
        if (st != HD_OK) return st;
        v->cap = cap;
    }
    v->id[v->n++] = id;
    return HD_OK;
}

/* ---- Opening ---- */

static void work_close(hd_tokenizer_work *w)
{
    if (!w) return;
    hd_bpe_work_close(&w->bpe);
    hd_pretok_work_close(&w->pretok);
    hd_buf_free(&w->repaired);
    hd_buf_free(&w->normal[0]);
    hd_buf_free(&w->normal[1]);
    free(w);
}

static hd_status work_open(hd_tokenizer_work **out, const hd_tokenizer *t, bool cache, hd_err *err)
{
    hd_status st;
    hd_tokenizer_work *w = NULL;
    HD_TRY(hd_alloc(&w, sizeof *w, err));
    hd_buf_init(&w->repaired, SIZE_MAX);
    hd_buf_init(&w->normal[0], SIZE_MAX);
    hd_buf_init(&w->normal[1], SIZE_MAX);
    HD_TRY(hd_bpe_work_open(&w->bpe, cache, err));
    HD_TRY(hd_pretok_work_open(&w->pretok, &t->pretok, err));
    *out = w;
    return HD_OK;
fail:
    work_close(w);
    return st;
}

hd_status hd_tokenizer_new(hd_tokenizer **out, hd_err *err)
{
    hd_status st;
    hd_tokenizer *t = NULL;
    HD_TRY(hd_alloc(&t, sizeof *t, err));
    t->bos = -1;
    HD_TRY(hd_alloc(&t->busy, sizeof *t->busy, err));
    atomic_flag_clear(t->busy);
    HD_TRY(hd_alloc(&t->tree, sizeof *t->tree, err));
    atomic_init(t->tree, NULL);
    *out = t;
    return HD_OK;
fail:
    hd_tokenizer_close(t);
    return st;
}

hd_status hd_tokenizer_finish(hd_tokenizer *t, hd_err *err)
{
    hd_bpe_bytes(&t->bpe, &t->vocab);
    return work_open(&t->work, t, true, err);
}

void hd_tokenizer_close(hd_tokenizer *t)
{
    if (!t) return;
    work_close(t->work);
    hd_vocab_close(&t->vocab);
    hd_added_close(&t->raw);
    hd_added_close(&t->norm);
    hd_pretok_close(&t->pretok);
    hd_bpe_close(&t->bpe);
    free(t->busy);
    if (t->tree) hd_vocab_tree_close(atomic_load(t->tree));
    free(t->tree);
    free(t);
}

hd_status hd_tokenizer_open(hd_tokenizer **out, const hd_source *s, hd_err *err)
{
    if (hd_source_get_kind(s) == HD_SOURCE_GGUF) return hd_tokenizer_from_gguf(out, hd_source_gguf(s), err);
    const json_t *tok = hd_source_json(s, "tokenizer.json");
    if (!tok) return hd_fail(err, HD_IO, "tokenizer: %s: there is no tokenizer.json", hd_source_path(s));
    return hd_tokenizer_from_json(out, tok, hd_source_json(s, "tokenizer_config.json"), err);
}

bool hd_looks_special(const char *s, size_t n)
{
    static const char bar[] = "｜"; // U+FF5C, three bytes
    if (n >= 4 && memcmp(s, "<|", 2) == 0 && memcmp(s + n - 2, "|>", 2) == 0) return true;
    return n >= 8 && s[0] == '<' && s[n - 1] == '>' && memcmp(s + 1, bar, 3) == 0 && memcmp(s + n - 4, bar, 3) == 0;
}

/* Two threads may both make one; the second throws its own away. */
hd_status hd_tokenizer_tree(const hd_tokenizer *t, const hd_vocab_tree **out, hd_err *err)
{
    hd_vocab_tree *tree = atomic_load(t->tree), *none = NULL;
    if (!tree) {
        hd_status st = hd_vocab_tree_open(&tree, t, err);
        if (st != HD_OK) return st;
        if (!atomic_compare_exchange_strong(t->tree, &none, tree)) {
            hd_vocab_tree_close(tree);
            tree = none;
        }
    }
    *out = tree;
    return HD_OK;
}

/* ---- Encoding ---- */

/* Bring *s into the normal forms the file asks for; tmp[2] hold what changed. */
hd_status hd_tokenizer_normalize(const hd_tokenizer *t, hd_buf *tmp, const char **s, size_t *n, hd_err *err)
{
    for (int i = 0; i < t->n_normal; i++) {
        if (t->normal[i] == HD_NFC && hd_nfc_quick(*s, *n)) continue;
        hd_buf *to = &tmp[i % 2];
        hd_buf_clear(to);
        hd_status st = hd_normalize(to, *s, *n, t->normal[i], err);
        if (st != HD_OK) return st;
        *s = to->data ? to->data : "";
        *n = to->len;
    }
    return HD_OK;
}

typedef struct {
    const hd_tokenizer *t;
    hd_tokenizer_work *w;
    hd_ids *out;
} encoder;

static hd_status word(void *arg, const char *s, size_t n, hd_err *err)
{
    encoder *e = arg;
    return hd_bpe_encode(&e->t->bpe, &e->t->vocab, &e->w->bpe, s, n, e->out, err);
}

static hd_status normal_part(void *arg, const char *s, size_t n, int32_t id, hd_err *err)
{
    encoder *e = arg;
    if (id >= 0) return hd_ids_add(e->out, id, err);
    return hd_pretok_run(&e->t->pretok, &e->w->pretok, s, n, word, e, err);
}

static hd_status raw_part(void *arg, const char *s, size_t n, int32_t id, hd_err *err)
{
    encoder *e = arg;
    if (id >= 0) return hd_ids_add(e->out, id, err);
    hd_status st = hd_tokenizer_normalize(e->t, e->w->normal, &s, &n, err);
    if (st != HD_OK) return st;
    return hd_added_split(&e->t->norm, s, n, normal_part, e, err);
}

static bool is_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint64_t w;
        if (n - i >= 8 && (memcpy(&w, s + i, 8), !(w & 0x8080808080808080u))) {
            i += 8;
            continue;
        }
        int32_t c;
        i += (size_t)hd_utf8_next((const uint8_t *)s + i, n - i, &c);
        if (c < 0) return false;
    }
    return true;
}

hd_status hd_tokenizer_encode(const hd_tokenizer *t, const void *text, size_t n, hd_ids *out, hd_err *err)
{
    hd_status st;
    int64_t n_before = out->n;
    bool mine = !atomic_flag_test_and_set_explicit(t->busy, memory_order_acquire);
    encoder e = {t, mine ? t->work : NULL, out};
    if (!mine) HD_TRY(work_open(&e.w, t, false, err));
    const char *s = text;
    if (!is_utf8(s, n)) {
        hd_buf_clear(&e.w->repaired);
        HD_TRY(hd_utf8_repair(&e.w->repaired, s, n, err));
        s = e.w->repaired.data;
        n = e.w->repaired.len;
    }
    hd_pretok_begin(&e.w->pretok, n);
    HD_TRY(hd_added_split(&t->raw, s, n, raw_part, &e, err));
    st = HD_OK;
fail:
    if (mine) atomic_flag_clear_explicit(t->busy, memory_order_release);
    else work_close(e.w);
    if (st != HD_OK) out->n = n_before;
    return st;
}

/* ---- Decoding ---- */

int64_t hd_tokenizer_n_vocab(const hd_tokenizer *t) { return t->vocab.n; }

const char *hd_tokenizer_bytes(const hd_tokenizer *t, int32_t id, size_t *n)
{
    if (id < 0 || id >= t->vocab.n || t->vocab.kind[id] == HD_TOKEN_HOLE) return NULL;
    *n = t->vocab.len[id];
    return t->vocab.blob + t->vocab.off[id];
}

bool hd_tokenizer_is_special(const hd_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n && t->vocab.kind[id] == HD_TOKEN_SPECIAL;
}

hd_status hd_tokenizer_decode(const hd_tokenizer *t, const int32_t *id, int64_t n, bool special, hd_buf *out, hd_err *err)
{
    for (int64_t i = 0; i < n; i++) {
        size_t len;
        const char *s = hd_tokenizer_bytes(t, id[i], &len);
        if (!s || (!special && hd_tokenizer_is_special(t, id[i]))) continue;
        hd_status st = hd_buf_add(out, s, len, err);
        if (st != HD_OK) return st;
    }
    return HD_OK;
}

int32_t hd_tokenizer_find(const hd_tokenizer *t, const char *text)
{
    size_t n = strlen(text);
    int32_t id = hd_added_find(&t->raw, text, n);
    if (id < 0) id = hd_added_find(&t->norm, text, n);
    return id >= 0 ? id : hd_vocab_find(&t->vocab, text, n);
}

int32_t hd_tokenizer_bos(const hd_tokenizer *t) { return t->bos; }
bool hd_tokenizer_adds_bos(const hd_tokenizer *t) { return t->adds_bos && t->bos >= 0; }
