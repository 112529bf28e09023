/* tokenizer.json from a GGUF vocabulary: tokenizer_gguf.c's way back, in Hugging Face's words.
 *
 * Every token goes into the model's vocabulary, added ones too, as published files of this kind have it:
 * tokens that stood among the added ones alone would be given ids by their order, and a hole in the ids would
 * move them.  The patterns are those of pretok.c's names, which were taken from such files. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "model/config_write.h"
#include "model/gguf.h"
#include "model/pretok.h"
#include "model/tokenizer_files.h"
#include "model/tokenizer_impl.h"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

/* GGUF's strings need not be text; JSON's must. */
static hd_status add(json_t *o, const hd_gguf_str *s, int64_t id, hd_err *err)
{
    char key[HD_MAX_TOKEN_BYTES + 1];
    if (s->n > HD_MAX_TOKEN_BYTES || memchr(s->p, 0, (size_t)s->n))
        return hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: token %lld is too long or holds a zero byte", (long long)id);
    memcpy(key, s->p, (size_t)s->n);
    key[s->n] = 0;
    if (json_object_get(o, key)) return HD_OK; // a name twice: the first counts, as everywhere
    if (json_object_set_new(o, key, json_integer(id)) == 0) return HD_OK;
    return hd_fail(err, HD_UNSUPPORTED, "tokenizer.json: token %lld is no UTF-8, or there is no memory", (long long)id);
}

static hd_status append(json_t *list, json_t *v, hd_err *err)
{
    if (v && json_array_append_new(list, v) == 0) return HD_OK;
    return hd_fail(err, HD_NOMEM, "tokenizer.json: no memory, or text that is no UTF-8");
}

static hd_status put_tokens(json_t *vocab, json_t *added, const hd_gguf *g, hd_err *err)
{
    hd_status st = HD_OK;
    hd_gguf_str s;
    size_t pos = 0;
    const hd_gguf_kv *tokens = hd_gguf_find(g, "tokenizer.ggml.tokens"), *types = hd_gguf_find(g, "tokenizer.ggml.token_type");
    for (int64_t i = 0; hd_gguf_arr_str(tokens, &pos, &s); i++) {
        int64_t type = TYPE_NORMAL;
        if (types) hd_gguf_arr_i64(types, (uint64_t)i, &type);
        HD_TRY(add(vocab, &s, i, err));
        if (type != TYPE_CONTROL && type != TYPE_USER_DEFINED && type != TYPE_UNKNOWN) continue;
        HD_TRY(append(added,
                      json_pack("{s:I, s:s%, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content", s.p, (size_t)s.n,
                                "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special",
                                type != TYPE_USER_DEFINED),
                      err));
    }
fail:
    return st;
}

static hd_status put_merges(json_t *merges, const hd_gguf *g, hd_err *err)
{
    hd_status st = HD_OK;
    hd_gguf_str s;
    size_t pos = 0;
    const hd_gguf_kv *lines = hd_gguf_find(g, "tokenizer.ggml.merges");
    while (hd_gguf_arr_str(lines, &pos, &s)) HD_TRY(append(merges, json_stringn(s.p, (size_t)s.n), err));
fail:
    return st;
}

/* PCRE2 and Oniguruma differ on \xHH above 7f: a character to one, a byte to the other.  \x{HH} is a
 * character to both. */
static json_t *pattern(const char *p)
{
    hd_buf b;
    hd_status st = HD_OK;
    hd_buf_init(&b, 1 << 20);
    for (; *p && st == HD_OK; p++) {
        if (p[0] == '\\' && p[1] == 'x' && p[2] != '{') {
            st = hd_buf_addf(&b, NULL, "\\x{%.2s}", p + 2);
            p += 3;
        } else if (p[0] == '\\' && p[1]) {
            st = hd_buf_add(&b, p, 2, NULL);
            p++;
        } else {
            st = hd_buf_add(&b, p, 1, NULL);
        }
    }
    json_t *j = st == HD_OK && b.data ? json_string(b.data) : NULL;
    hd_buf_free(&b);
    return j;
}

static json_t *byte_level(bool prefix, bool trim, bool regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix, "trim_offsets", trim, "use_regex",
                     regex);
}

static hd_status put_stages(json_t *list, const char *const *patterns, hd_err *err)
{
    hd_status st = HD_OK;
    for (; *patterns; patterns++)
        HD_TRY(append(list,
                      json_pack("{s:s, s:{s:o}, s:s, s:b}", "type", "Split", "pattern", "Regex", pattern(*patterns), "behavior",
                                "Isolated", "invert", 0),
                      err));
    HD_TRY(append(list, byte_level(false, true, false), err));
fail:
    return st;
}

static json_t *token_at(const hd_gguf *g, int64_t id)
{
    hd_gguf_str s;
    size_t pos = 0;
    const hd_gguf_kv *tokens = hd_gguf_find(g, "tokenizer.ggml.tokens");
    for (int64_t i = 0; hd_gguf_arr_str(tokens, &pos, &s); i++)
        if (i == id) return json_stringn(s.p, (size_t)s.n);
    return NULL;
}

/* The token that a key names, as text; JSON's null where there is none. */
static json_t *named(const hd_gguf *g, const char *key)
{
    int64_t id;
    json_t *j = hd_gguf_i64(g, key, &id) ? token_at(g, id) : NULL;
    return j ? j : json_null();
}

static json_t *begins(const hd_gguf *g, bool adds_bos, const hd_tokenizer *t)
{
    json_t *bos = adds_bos ? named(g, "tokenizer.ggml.bos_token_id") : NULL;
    const char *s = json_string_value(bos);
    json_t *j = NULL;
    if (s)
        j = json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}], "
                      "s:{s:{s:s, s:[i], s:[s]}}}",
                      "type", "TemplateProcessing", "single", "SpecialToken", "id", s, "type_id", 0, "Sequence", "id", "A", "type_id",
                      0, "pair", "SpecialToken", "id", s, "type_id", 0, "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", s,
                      "type_id", 1, "Sequence", "id", "B", "type_id", 1, "special_tokens", s, "id", s, "ids",
                      (int)hd_tokenizer_bos(t), "tokens", s);
    json_decref(bos);
    return j ? j : byte_level(true, false, true);
}

static hd_status make(json_t **out, const hd_gguf *g, const char *pre, const hd_tokenizer *t, hd_err *err)
{
    hd_status st;
    bool nfc = false, ignore_merges = false;
    const char *const *patterns = hd_pretok_patterns(pre, &nfc, &ignore_merges); // known: the tokenizer has been opened
    json_t *vocab = json_object(), *added = json_array(), *merges = json_array(), *stages = json_array();
    HD_TRY(put_tokens(vocab, added, g, err));
    HD_TRY(put_merges(merges, g, err));
    HD_TRY(put_stages(stages, patterns, err));
    *out = json_pack("{s:s, s:n, s:n, s:O, s:o, s:{s:s, s:O}, s:o, s:o, s:{s:s, s:n, s:n, s:s, s:s, s:b, s:b, s:b, s:O, s:O}}",
                     "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
                     nfc ? json_pack("{s:s}", "type", "NFC") : json_null(), "pre_tokenizer", "type", "Sequence", "pretokenizers",
                     stages, "post_processor", begins(g, hd_tokenizer_adds_bos(t), t), "decoder", byte_level(true, true, true),
                     "model", "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix", "", "end_of_word_suffix", "",
                     "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", ignore_merges, "vocab", vocab, "merges", merges);
    if (!*out) st = hd_fail(err, HD_NOMEM, "tokenizer.json: no memory");
fail:
    json_decref(vocab);
    json_decref(added);
    json_decref(merges);
    json_decref(stages);
    return st;
}

static hd_status make_settings(json_t **out, const hd_gguf *g, const hd_tokenizer *t, hd_err *err)
{
    hd_gguf_str template;
    json_int_t most = 1000000000; // no limit of the tokenizer's own
    json_t *j = json_pack("{s:s, s:o, s:o, s:o, s:b, s:b, s:I}", "tokenizer_class", "PreTrainedTokenizerFast", "bos_token",
                          named(g, "tokenizer.ggml.bos_token_id"), "eos_token", named(g, "tokenizer.ggml.eos_token_id"),
                          "pad_token", named(g, "tokenizer.ggml.padding_token_id"), "add_bos_token",
                          (int)hd_tokenizer_adds_bos(t), "clean_up_tokenization_spaces", 0, "model_max_length", most);
    if (j && hd_gguf_string(g, "tokenizer.chat_template", &template) &&
        json_object_set_new(j, "chat_template", json_stringn(template.p, (size_t)template.n)) != 0) {
        json_decref(j);
        j = NULL;
    }
    *out = j;
    return j ? HD_OK : hd_fail(err, HD_NOMEM, "tokenizer_config.json: no memory, or text that is no UTF-8");
}

hd_status hd_tokenizer_write(const char *dir, const hd_gguf *g, hd_err *err)
{
    hd_status st;
    hd_tokenizer *t = NULL;
    json_t *tokenizer = NULL, *settings = NULL;
    char pre[65] = "default";
    hd_gguf_str s;
    if (hd_gguf_string(g, "tokenizer.ggml.pre", &s)) snprintf(pre, sizeof pre, "%.*s", (int)(s.n < 64 ? s.n : 64), s.p);
    HD_TRY(hd_tokenizer_from_gguf(&t, g, err)); // every check of the vocabulary
    HD_TRY(make(&tokenizer, g, pre, t, err));
    HD_TRY(make_settings(&settings, g, t, err));
    HD_TRY(hd_json_write(dir, "tokenizer.json", tokenizer, err));
    HD_TRY(hd_json_write(dir, "tokenizer_config.json", settings, err));
fail:
    hd_tokenizer_close(t);
    json_decref(tokenizer);
    json_decref(settings);
    return st;
}
