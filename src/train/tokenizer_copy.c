/* Which files make a tokenizer, and which ids its settings name. */
#include "train/tokenizer_copy.h"

#include <stdio.h>
#include <string.h>

#include "base/folder.h"
#include "model/source.h"

static const char *const files[] = {"tokenizer.json",   "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                    "vocab.json",       "merges.txt",            "tokenizer.model",         "chat_template.jinja",
                                    "chat_template.json"};
enum { N_FILES = sizeof files / sizeof files[0] };

hd_status hd_tokenizer_copy(const char *to, const char *from, hd_err *err)
{
    hd_status st = HD_OK;
    char a[4096], b[4096];
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

hd_status hd_tokenizer_ids(hd_config *c, const json_t *config, const char *from, hd_err *err)
{
    static const char *const keys[][2] = {{"bos_token", "bos_token_id"}, {"eos_token", "eos_token_id"}, {"pad_token", "pad_token_id"}};
    hd_status st;
    hd_source *s = NULL;
    HD_TRY(hd_source_open(&s, from, false, err));
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
