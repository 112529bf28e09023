/* Which files make a tokenizer, and which ids its settings name. */
#include "model/tokenizer_files.h"

#include <stdio.h>
#include <string.h>

#include "base/folder.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

static const char *const files[] = {"tokenizer.json",   "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                    "vocab.json",       "merges.txt",            "tokenizer.model",         "chat_template.jinja",
                                    "chat_template.json"};
enum { N_FILES = sizeof files / sizeof files[0] };

static hd_status from_gguf(const char *to, const char *from, hd_err *err)
{
    hd_source *s = NULL;
    hd_status st = hd_source_open(&s, from, false, err);
    if (st == HD_OK) st = hd_tokenizer_write(to, hd_source_gguf(s), err);
    hd_source_close(s);
    return st;
}

hd_status hd_tokenizer_copy(const char *to, const char *from, hd_err *err)
{
    hd_status st = HD_OK;
    char a[4096], b[4096];
    if (!hd_is_dir(from)) return from_gguf(to, from, err);
    for (int i = 0; i < N_FILES; i++) {
        int n = snprintf(a, sizeof a, "%s/%s", from, files[i]), m = snprintf(b, sizeof b, "%s/%s", to, files[i]);
        if (n >= (int)sizeof a || m >= (int)sizeof b)
            return hd_fail(err, HD_LIMIT, "tokenizer: %.80s...: a path longer than 4095 bytes", from);
        if (hd_is_file(a)) HD_TRY(hd_file_copy(b, a, err));
        else if (i == 0) HD_TRY(hd_fail(err, HD_IO, "tokenizer: %s: the file is missing", a));
    }
fail:
    return st;
}

/* "<s>", or {"content": "<s>", ...}. */
static const char *content(const json_t *j)
{
    return json_string_value(json_is_object(j) ? json_object_get(j, "content") : j);
}

/* The id of an added token, else of the vocabulary, or -1. */
static int64_t id_of(const json_t *tokenizer, const char *text)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, v)
    {
        const char *s = json_string_value(json_object_get(v, "content"));
        if (s && !strcmp(s, text)) return json_integer_value(json_object_get(v, "id"));
    }
    const json_t *id = json_object_get(json_object_get(json_object_get(tokenizer, "model"), "vocab"), text);
    return json_is_integer(id) ? json_integer_value(id) : -1;
}

/* One more than the largest id. */
static int64_t n_ids(const json_t *tokenizer)
{
    int64_t n = 0;
    size_t i;
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(json_object_get(tokenizer, "model"), "vocab"), key, v)
    {
        if (json_integer_value(v) >= n) n = json_integer_value(v) + 1;
    }
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, v)
    {
        if (json_integer_value(json_object_get(v, "id")) >= n) n = json_integer_value(json_object_get(v, "id")) + 1;
    }
    return n;
}

static int32_t gguf_id(const hd_gguf *g, const char *key, const hd_config *c)
{
    int64_t id;
    return hd_gguf_i64(g, key, &id) && id >= 0 && id < c->n_vocab ? (int32_t)id : -1;
}

static hd_status gguf_ids(hd_config *c, const json_t *config, const hd_source *s, hd_err *err)
{
    const hd_gguf *g = hd_source_gguf(s);
    const hd_gguf_kv *tokens = hd_gguf_find(g, "tokenizer.ggml.tokens");
    if (!tokens || (int64_t)tokens->n > c->n_vocab)
        return hd_fail(err, HD_FORMAT, "tokenizer: %s: has %lld ids, the model a vocabulary of %lld", hd_source_path(s),
                       tokens ? (long long)tokens->n : 0, (long long)c->n_vocab);
    if (!json_object_get(config, "bos_token_id")) c->bos = gguf_id(g, "tokenizer.ggml.bos_token_id", c);
    if (!json_object_get(config, "pad_token_id")) c->pad = gguf_id(g, "tokenizer.ggml.padding_token_id", c);
    if (!json_object_get(config, "eos_token_id")) {
        c->eos[0] = gguf_id(g, "tokenizer.ggml.eos_token_id", c);
        c->n_eos = c->eos[0] >= 0;
    }
    return HD_OK;
}

hd_status hd_tokenizer_ids(hd_config *c, const json_t *config, const char *from, hd_err *err)
{
    static const char *const keys[][2] = {{"bos_token", "bos_token_id"}, {"eos_token", "eos_token_id"}, {"pad_token", "pad_token_id"}};
    hd_status st;
    hd_source *s = NULL;
    HD_TRY(hd_source_open(&s, from, false, err));
    if (hd_source_get_kind(s) == HD_SOURCE_GGUF) {
        HD_TRY(gguf_ids(c, config, s, err));
        goto fail;
    }
    const json_t *settings = hd_source_json(s, "tokenizer_config.json"), *tokenizer = hd_source_json(s, "tokenizer.json");
    int64_t n = n_ids(tokenizer);
    if (n > c->n_vocab)
        HD_TRY(hd_fail(err, HD_FORMAT, "tokenizer: %s: has ids up to %lld, the model has a vocabulary of %lld", from,
                       (long long)n - 1, (long long)c->n_vocab));
    for (int k = 0; k < 3; k++) {
        if (json_object_get(config, keys[k][1])) continue; // null too: none is wanted
        const char *text = content(json_object_get(settings, keys[k][0]));
        int64_t id = text ? id_of(tokenizer, text) : -1;
        if (k == 0) c->bos = (int32_t)id;
        if (k == 2) c->pad = (int32_t)id;
        if (k == 1) {
            c->eos[0] = (int32_t)id;
            c->n_eos = id >= 0;
        }
    }
fail:
    hd_source_close(s);
    return st;
}
