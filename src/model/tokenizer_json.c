/* The tokenizer of a Hugging Face folder: tokenizer.json (normalizer, pre_tokenizer, model, added_tokens)
 * and, for the beginning of a text, tokenizer_config.json.  What is not byte-level BPE is refused by name. */
#include <string.h>

#include "model/tokenizer_impl.h"

enum { MAX_DEPTH = 8, ID_SLACK = 1 << 20 }; // ids may leave holes, but no more than these in all

static const char *str_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool flag_of(const json_t *o, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* ---- normalizer ---- */

static hd_status read_normalizer(hd_tokenizer *t, const json_t *o, int depth, hd_err *err)
{
    static const char *const names[] = {[HD_NFC] = "NFC", [HD_NFD] = "NFD", [HD_NFKC] = "NFKC", [HD_NFKD] = "NFKD"};
    if (!o || json_is_null(o)) return HD_OK;
    const char *type = str_of(o, "type");
    if (depth > MAX_DEPTH) return hd_fail(err, HD_LIMIT, "tokenizer.json: normalizer: nested more than %d deep", MAX_DEPTH);
    if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *v;
        json_array_foreach(json_object_get(o, "normalizers"), i, v)
        {
            hd_status st = read_normalizer(t, v, depth + 1, err);
            if (st != HD_OK) return st;
        }
        return HD_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(type, names[i]) != 0) continue;
        if (t->n_normal == HD_MAX_NORMALIZERS)
            return hd_fail(err, HD_LIMIT, "tokenizer.json: normalizer: more than %d", HD_MAX_NORMALIZERS);
        t->normal[t->n_normal++] = (hd_normal_form)i;
        return HD_OK;
    }
    return hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: normalizer: '%.64s' is unknown; known: NFC, NFD, NFKC, NFKD, Sequence",
                   type);
}

/* ---- pre_tokenizer ---- */

static hd_status read_split(hd_pretok *p, const json_t *o, hd_err *err)
{
    static const char *const names[] = {
        [HD_SPLIT_ISOLATED] = "Isolated",
        [HD_SPLIT_REMOVED] = "Removed",
        [HD_SPLIT_CONTIGUOUS] = "Contiguous",
        [HD_SPLIT_MERGED_PREV] = "MergedWithPrevious",
        [HD_SPLIT_MERGED_NEXT] = "MergedWithNext",
    };
    const json_t *pattern = json_object_get(o, "pattern"), *s = json_object_get(pattern, "Regex");
    bool literal = !s;
    if (literal) s = json_object_get(pattern, "String");
    if (!json_is_string(s)) return hd_fail(err, HD_FORMAT, "tokenizer.json: Split: pattern: neither Regex nor String");
    const char *how = str_of(o, "behavior");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(how, names[i]) == 0)
            return hd_pretok_split(p, json_string_value(s), json_string_length(s), literal, (hd_split_how)i,
                                   flag_of(o, "invert", false), err);
    return hd_fail(err, HD_FORMAT, "tokenizer.json: Split: behavior '%.64s' is unknown", how);
}

static hd_status read_pretok(hd_pretok *p, const json_t *o, int depth, bool *bytes, hd_err *err)
{
    hd_status st;
    if (!o || json_is_null(o)) return HD_OK;
    const char *type = str_of(o, "type");
    if (depth > MAX_DEPTH) return hd_fail(err, HD_LIMIT, "tokenizer.json: pre_tokenizer: nested more than %d deep", MAX_DEPTH);
    if (*bytes) return hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: pre_tokenizer: '%.64s' comes after ByteLevel", type);
    if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *v;
        json_array_foreach(json_object_get(o, "pretokenizers"), i, v)
            HD_TRY(read_pretok(p, v, depth + 1, bytes, err));
        return HD_OK;
    }
    if (strcmp(type, "Split") == 0) return read_split(p, o, err);
    if (strcmp(type, "Digits") == 0)
        return hd_pretok_split(p, "\\p{N}", 5, false,
                               flag_of(o, "individual_digits", false) ? HD_SPLIT_ISOLATED : HD_SPLIT_CONTIGUOUS, false, err);
    if (strcmp(type, "ByteLevel") == 0) {
        *bytes = true;
        if (flag_of(o, "add_prefix_space", true)) HD_TRY(hd_pretok_prefix_space(p, err));
        if (flag_of(o, "use_regex", true))
            HD_TRY(hd_pretok_split(p, hd_pattern_gpt2, strlen(hd_pattern_gpt2), false, HD_SPLIT_ISOLATED, false, err));
        return HD_OK;
    }
    return hd_fail(err, HD_UNSUPPORTED,
                   "tokenizer.json: pre_tokenizer: '%.64s' is unknown; known: ByteLevel, Digits, Sequence, Split", type);
fail:
    return st;
}

/* ---- vocabulary ---- */

/* An id, or -1 for what is none. */
static int64_t id_of(const json_t *v)
{
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    return id >= 0 && id < INT32_MAX ? (int64_t)id : -1;
}

static hd_status read_added(hd_tokenizer *t, const json_t *added, int64_t n, size_t n_bytes, hd_err *err)
{
    hd_status st;
    hd_buf tmp[2];
    hd_buf_init(&tmp[0], SIZE_MAX);
    hd_buf_init(&tmp[1], SIZE_MAX);
    HD_TRY(hd_added_open(&t->raw, n, n_bytes, err));
    HD_TRY(hd_added_open(&t->norm, n, n_bytes * 3, err)); // NFC makes text at most three times longer
    size_t i;
    json_t *o;
    json_array_foreach(added, i, o)
    {
        const json_t *content = json_object_get(o, "content");
        const char *s = json_string_value(content);
        size_t len = json_string_length(content);
        int64_t id = id_of(json_object_get(o, "id"));
        bool special = flag_of(o, "special", false) || hd_looks_special(s, len);
        hd_token_kind kind = special ? HD_TOKEN_SPECIAL : HD_TOKEN_ADDED;
        HD_TRY(hd_vocab_set(&t->vocab, id, s, len, kind, "added_tokens", err));
        bool raw = special || !flag_of(o, "normalized", true);
        if (!raw) HD_TRY(hd_tokenizer_normalize(t, tmp, &s, &len, err));
        HD_TRY(hd_added_put(raw ? &t->raw : &t->norm, s, len,
                            (hd_added){
                                .id = (int32_t)id,
                                .special = special,
                                .lstrip = flag_of(o, "lstrip", false),
                                .rstrip = flag_of(o, "rstrip", false),
                                .single_word = flag_of(o, "single_word", false),
                            },
                            err));
    }
    st = HD_OK;
fail:
    hd_buf_free(&tmp[0]);
    hd_buf_free(&tmp[1]);
    return st;
}

static hd_status read_vocab(hd_tokenizer *t, const json_t *vocab, const json_t *added, hd_err *err)
{
    hd_status st;
    int64_t n = 0, top = -1, n_added = 0;
    size_t n_bytes = 0, added_bytes = 0, i;
    const char *key;
    json_t *v;
    if (!json_is_object(vocab)) return hd_fail(err, HD_FORMAT, "tokenizer.json: model.vocab: no object");
    if (added && !json_is_null(added) && !json_is_array(added))
        return hd_fail(err, HD_FORMAT, "tokenizer.json: added_tokens: no list");

    json_object_foreach((json_t *)vocab, key, v)
    {
        int64_t id = id_of(v);
        if (id < 0) return hd_fail(err, HD_FORMAT, "tokenizer.json: model.vocab: '%.64s' has no proper id", key);
        if (id > top) top = id;
        n_bytes += strlen(key);
        n++;
    }
    json_array_foreach(added, i, v)
    {
        const json_t *content = json_object_get(v, "content");
        int64_t id = id_of(json_object_get(v, "id"));
        if (id < 0 || !json_is_string(content))
            return hd_fail(err, HD_FORMAT, "tokenizer.json: added_tokens: entry %zu lacks a proper id or content", i);
        if (id > top) top = id;
        added_bytes += json_string_length(content);
        n_added++;
    }
    if (top >= n + n_added + ID_SLACK)
        return hd_fail(err, HD_FORMAT, "tokenizer.json: id %lld with only %lld tokens", (long long)top,
                       (long long)(n + n_added));
    HD_TRY(hd_vocab_open(&t->vocab, top + 1, n_bytes + added_bytes, err));
    HD_TRY(read_added(t, added, n_added, added_bytes, err));
    json_object_foreach((json_t *)vocab, key, v)
    {
        int64_t id = id_of(v);
        hd_token_kind kind = t->vocab.kind[id];
        if (kind == HD_TOKEN_ADDED || kind == HD_TOKEN_SPECIAL) continue; // listed in both places
        HD_TRY(hd_vocab_set(&t->vocab, id, key, strlen(key), HD_TOKEN_NORMAL, "model.vocab", err));
    }
    return HD_OK;
fail:
    return st;
}

/* Both spellings: "a b" and ["a", "b"]. */
static hd_status read_merges(hd_tokenizer *t, const json_t *merges, hd_err *err)
{
    hd_status st;
    char side[2][HD_MAX_TOKEN_BYTES];
    if (!json_is_array(merges)) return hd_fail(err, HD_FORMAT, "tokenizer.json: model.merges: no list");
    HD_TRY(hd_bpe_open(&t->bpe, (int64_t)json_array_size(merges), err));
    size_t i;
    json_t *m;
    json_array_foreach(merges, i, m)
    {
        const json_t *x = json_array_get(m, 0), *y = json_array_get(m, 1);
        const char *a = json_string_value(x), *b = json_string_value(y);
        size_t na = json_string_length(x), nb = json_string_length(y);
        if (json_is_string(m)) {
            a = json_string_value(m);
            b = strchr(a, ' ');
            na = b ? (size_t)(b - a) : 0;
            nb = b ? strlen(++b) : 0;
        }
        if (!a || !b || na == 0 || nb == 0 || na > HD_MAX_TOKEN_BYTES || nb > HD_MAX_TOKEN_BYTES ||
            !hd_unspell(side[0], &na, a, na) || !hd_unspell(side[1], &nb, b, nb))
            return hd_fail(err, HD_FORMAT, "tokenizer.json: model.merges: entry %zu is no pair of byte-level tokens", i);
        HD_TRY(hd_bpe_add(&t->bpe, &t->vocab, (int64_t)i, side[0], na, side[1], nb, err));
    }
    return HD_OK;
fail:
    return st;
}

static hd_status read_model(hd_tokenizer *t, const json_t *model, const json_t *added, hd_err *err)
{
    hd_status st;
    const char *type = str_of(model, "type");
    if (!json_is_object(model)) return hd_fail(err, HD_FORMAT, "tokenizer.json: model: no object");
    if (strcmp(type, "BPE") != 0 && type[0])
        return hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: model.type: '%.64s' is unknown; known: BPE", type);
    if (json_number_value(json_object_get(model, "dropout")) > 0)
        return hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: model.dropout: it makes ids random");
    if (*str_of(model, "continuing_subword_prefix") || *str_of(model, "end_of_word_suffix") ||
        flag_of(model, "byte_fallback", false))
        return hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: model: only byte-level BPE is known: no byte_fallback, "
                                            "continuing_subword_prefix or end_of_word_suffix");
    HD_TRY(read_vocab(t, json_object_get(model, "vocab"), added, err));
    HD_TRY(read_merges(t, json_object_get(model, "merges"), err));
    t->bpe.ignore_merges = flag_of(model, "ignore_merges", false);
    t->bpe.fuse_unk = flag_of(model, "fuse_unk", false);
    const char *unk = str_of(model, "unk_token");
    if (*unk) t->bpe.unk = hd_tokenizer_find(t, unk);
    return HD_OK;
fail:
    return st;
}

/* ---- the beginning of a text ---- */

static void read_bos(hd_tokenizer *t, const json_t *tok, const json_t *config)
{
    const json_t *bos = json_object_get(config, "bos_token");
    const char *s = json_is_object(bos) ? str_of(bos, "content") : json_string_value(bos);
    if (s && *s) t->bos = hd_tokenizer_find(t, s);

    /* Newer files say it in the post-processor: a template for one text that begins with a special token. */
    const json_t *post = json_object_get(tok, "post_processor"), *first;
    if (strcmp(str_of(post, "type"), "Sequence") == 0) {
        size_t i;
        json_t *v, *list = json_object_get(post, "processors");
        json_array_foreach(list, i, v)
            if (strcmp(str_of(v, "type"), "TemplateProcessing") == 0) post = v;
    }
    first = json_object_get(json_array_get(json_object_get(post, "single"), 0), "SpecialToken");
    const char *id = str_of(first, "id");
    if (*id) {
        if (t->bos < 0) t->bos = hd_tokenizer_find(t, id);
        t->adds_bos = true;
    }
    t->adds_bos = flag_of(config, "add_bos_token", t->adds_bos);
}

hd_status hd_tokenizer_from_json(hd_tokenizer **out, const json_t *tok, const json_t *config, hd_err *err)
{
    hd_status st;
    hd_tokenizer *t = NULL;
    bool bytes = false;
    HD_TRY(hd_tokenizer_new(&t, err));
    HD_TRY(read_normalizer(t, json_object_get(tok, "normalizer"), 0, err));
    HD_TRY(read_pretok(&t->pretok, json_object_get(tok, "pre_tokenizer"), 0, &bytes, err));
    if (!bytes) {
        st = hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: pre_tokenizer: no ByteLevel: only byte-level BPE is known");
        goto fail;
    }
    HD_TRY(read_model(t, json_object_get(tok, "model"), json_object_get(tok, "added_tokens"), err));
    read_bos(t, tok, config);
    HD_TRY(hd_tokenizer_finish(t, err));
    *out = t;
    return HD_OK;
fail:
    hd_tokenizer_close(t);
    return st;
}
