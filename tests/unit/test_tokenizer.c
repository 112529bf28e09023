/* Tokenizers: ids equal to those of Hugging Face's library (tests/golden/tokenizer.json, made by
 * make_tokenizer.py) for the normalizers and pre-tokenizers of every known model, read from tokenizer.json
 * and from GGUF; bytes come back exactly; damaged files are refused. */
#include <jansson.h>
#include <pthread.h>

#include "files_build.h"
#include "model/tokenizer_impl.h"
#include "test.h"

static json_t *golden;

/* ---- The two forms of a tokenizer ---- */

static json_t *tokenizer_json(const json_t *config)
{
    json_t *model = json_pack("{s:s, s:O, s:O, s:b}", "type", "BPE", "vocab",
                              json_object_get(golden, "vocab"), "merges", json_object_get(golden, "merges"),
                              "ignore_merges", json_is_true(json_object_get(config, "ignore_merges")));
    return json_pack("{s:O, s:O, s:o, s:O}", "normalizer", json_object_get(config, "normalizer"),
                     "pre_tokenizer", json_object_get(config, "pre_tokenizer"), "model", model,
                     "added_tokens", json_object_get(golden, "added_tokens"));
}

enum { GGUF_ADDED = 4 }; // the golden file's first added tokens; GGUF cannot say what the others do

static hd_gguf_str str_of(const json_t *s)
{
    return (hd_gguf_str){json_string_value(s), json_string_length(s)};
}

/* A model's configuration, and three kinds of end: of a text, of a turn, of a message. */
static hd_status put_ends(hd_gguf_writer *w, uint32_t n_vocab, hd_err *err)
{
    static const struct {
        const char *key;
        uint32_t v;
    } keys[] = {{"qwen2.block_count", 2},          {"qwen2.context_length", 128},
                {"qwen2.embedding_length", 64},    {"qwen2.feed_forward_length", 128},
                {"qwen2.attention.head_count", 4}, {"qwen2.attention.head_count_kv", 2}};
    hd_status st;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        HD_TRY(hd_gguf_put_u32(w, keys[i].key, keys[i].v, err));
    HD_TRY(hd_gguf_put_f32(w, "qwen2.attention.layer_norm_rms_epsilon", 1e-6f, err));
    HD_TRY(hd_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", n_vocab + 2, err));
    HD_TRY(hd_gguf_put_u32(w, "tokenizer.ggml.eot_token_id", n_vocab + 3, err));
    HD_TRY(hd_gguf_put_u32(w, "tokenizer.ggml.eom_token_id", 7, err));
fail:
    return st;
}

/* The same vocabulary as GGUF; true when `pre` names its words. */
static bool write_gguf(const char *path, const char *pre)
{
    hd_err err = {0};
    hd_status st;
    hd_gguf_writer *w = NULL;
    json_t *vocab = json_object_get(golden, "vocab"), *merges = json_object_get(golden, "merges"), *v;
    size_t n_vocab = json_object_size(vocab), n = n_vocab + GGUF_ADDED, n_merges = json_array_size(merges), i;
    hd_gguf_str *token = calloc(n, sizeof *token), *merge = calloc(n_merges, sizeof *merge);
    int32_t *type = calloc(n, sizeof *type);
    const char *key;
    json_object_foreach(vocab, key, v)
    {
        token[json_integer_value(v)] = (hd_gguf_str){key, strlen(key)};
        type[json_integer_value(v)] = 1;
    }
    for (i = 0; i < GGUF_ADDED; i++) {
        const json_t *a = json_array_get(json_object_get(golden, "added_tokens"), i);
        token[n_vocab + i] = str_of(json_object_get(a, "content"));
        type[n_vocab + i] = json_is_true(json_object_get(a, "special")) ? 3 : 4;
    }
    json_array_foreach(merges, i, v) merge[i] = str_of(v);
    HD_TRY(hd_gguf_writer_open(&w, path, &err));
    HD_TRY(hd_gguf_put_str(w, "general.architecture", "qwen2", 5, &err));
    HD_TRY(hd_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4, &err));
    HD_TRY(hd_gguf_put_str(w, "tokenizer.ggml.pre", pre, strlen(pre), &err));
    HD_TRY(hd_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)n_vocab + 2, &err));
    HD_TRY(hd_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true, &err));
    HD_TRY(put_ends(w, (uint32_t)n_vocab, &err));
    HD_TRY(hd_gguf_put_arr_str(w, "tokenizer.ggml.tokens", token, n, &err));
    HD_TRY(hd_gguf_put_arr(w, "tokenizer.ggml.token_type", HD_GGUF_I32, type, n, &err));
    HD_TRY(hd_gguf_put_arr_str(w, "tokenizer.ggml.merges", merge, n_merges, &err));
    HD_TRY(hd_gguf_begin_data(w, &err));
    HD_TRY(hd_gguf_commit(w, &err));
fail:
    CHECK(st == HD_OK, "%s", err.msg);
    hd_gguf_writer_close(w);
    free(token);
    free(merge);
    free(type);
    return st == HD_OK;
}

/* ---- Golden ids ---- */

/* The bytes of a golden text, for free(). */
static char *text_bytes(const json_t *t, size_t *n)
{
    const char *kind = json_string_value(json_array_get(t, 0)), *s = json_string_value(json_array_get(t, 1));
    *n = json_string_length(json_array_get(t, 1));
    char *out = malloc(*n + 1);
    memcpy(out, s, *n + 1);
    if (strcmp(kind, "hex") != 0) return out;
    *n /= 2;
    for (size_t i = 0; i < *n; i++) {
        unsigned byte;
        sscanf(s + 2 * i, "%2x", &byte);
        out[i] = (char)byte;
    }
    return out;
}

static bool same_ids(const hd_ids *got, const json_t *want)
{
    size_t i;
    json_t *v;
    if ((size_t)got->n != json_array_size(want)) return false;
    json_array_foreach(want, i, v) if (got->id[i] != json_integer_value(v)) return false;
    return true;
}

static bool has_only_gguf_tokens(const char *s, size_t n)
{
    return !memmem(s, n, "<sp>", 4) && !memmem(s, n, "word", 4) && !memmem(s, n, "<\xc3\x89>", 4) &&
           !memmem(s, n, "<E\xcc\x81>", 5);
}

static void check_texts(const hd_tokenizer *t, const json_t *config, const char *form, bool gguf)
{
    hd_err err = {0};
    size_t i;
    json_t *text;
    json_array_foreach(json_object_get(golden, "texts"), i, text)
    {
        size_t n;
        char *s = text_bytes(text, &n);
        hd_ids ids = {0};
        if (!gguf || has_only_gguf_tokens(s, n)) {
            CHECK_OK(hd_tokenizer_encode(t, s, n, &ids, &err));
            CHECK(same_ids(&ids, json_array_get(json_object_get(config, "ids"), i)), "%s from %s, text %zu",
                  json_string_value(json_object_get(config, "name")), form, i);
        }
        hd_ids_free(&ids);
        free(s);
    }
}

static void test_golden(void)
{
    size_t i;
    json_t *config;
    json_array_foreach(json_object_get(golden, "configs"), i, config)
    {
        hd_err err = {0};
        hd_tokenizer *t = NULL;
        hd_source *s = NULL;
        json_t *j = tokenizer_json(config);
        CHECK_OK(hd_tokenizer_from_json(&t, j, NULL, &err));
        json_decref(j);
        if (t) check_texts(t, config, "tokenizer.json", false);
        hd_tokenizer_close(t);
        t = NULL;

        const char *pre = json_string_value(json_object_get(config, "pre")), *path = build_path("vocab.gguf");
        if (!pre || !write_gguf(path, pre)) continue;
        CHECK_OK(hd_source_open(&s, path, false, &err));
        if (s) CHECK_OK(hd_tokenizer_open(&t, s, &err));
        if (t) check_texts(t, config, "GGUF", true);
        const hd_config *c = s ? hd_source_config(s) : NULL;
        CHECK(c && c->n_eos == 3 && c->eos[0] == hd_tokenizer_find(t, "<|end|>") &&
              c->eos[1] == hd_tokenizer_find(t, "<｜User｜>") && c->eos[2] == 7);
        if (t) CHECK(hd_tokenizer_adds_bos(t) && hd_tokenizer_bos(t) == hd_tokenizer_find(t, "<|end|>"));
        hd_tokenizer_close(t);
        hd_source_close(s);
    }
}

/* ---- Bytes, ids, names ---- */

static hd_tokenizer *named(const char *name)
{
    hd_err err = {0};
    hd_tokenizer *t = NULL;
    size_t i;
    json_t *config;
    json_array_foreach(json_object_get(golden, "configs"), i, config)
    {
        if (strcmp(json_string_value(json_object_get(config, "name")), name) != 0) continue;
        json_t *j = tokenizer_json(config);
        CHECK_OK(hd_tokenizer_from_json(&t, j, NULL, &err));
        json_decref(j);
    }
    return t;
}

/* Without a normal form, valid UTF-8 comes back byte for byte. */
static void test_round_trip(void)
{
    hd_tokenizer *t = named("deepseek-v3");
    size_t i;
    json_t *text;
    json_array_foreach(json_object_get(golden, "texts"), i, text)
    {
        hd_err err = {0};
        hd_ids ids = {0};
        size_t n, n_back;
        char *s = text_bytes(text, &n), *back = NULL;
        if (strcmp(json_string_value(json_array_get(text, 0)), "text") == 0 && has_only_gguf_tokens(s, n)) {
            CHECK_OK(hd_tokenizer_encode(t, s, n, &ids, &err));
            CHECK_OK(hd_tokenizer_text(t, ids.id, ids.n, true, &back, &n_back, &err));
            CHECK(back && n_back == n && memcmp(back, s, n) == 0, "text %zu", i);
        }
        free(back);
        free(s);
        hd_ids_free(&ids);
    }
    hd_tokenizer_close(t);
}

static void test_names(void)
{
    hd_err err = {0};
    hd_tokenizer *t = named("qwen2");
    char *s = NULL;
    size_t n = 0;
    int64_t n_vocab = hd_tokenizer_n_vocab(t);
    int32_t end = hd_tokenizer_find(t, "<|end|>"), think = hd_tokenizer_find(t, "<think>"),
            the = hd_tokenizer_find(t, "THE");
    CHECK(n_vocab == 628 && end > 620 && think > 620 && the >= 0 && the < 620, "%lld %d %d %d",
          (long long)n_vocab, end, think, the);
    CHECK(hd_tokenizer_find(t, "no such token") == -1 && hd_tokenizer_find(t, "") == -1);
    CHECK(hd_tokenizer_is_special(t, end) && !hd_tokenizer_is_special(t, think) &&
          !hd_tokenizer_is_special(t, -1));
    CHECK(!hd_tokenizer_bytes(t, -1, &n) && !hd_tokenizer_bytes(t, (int32_t)n_vocab, &n) &&
          !hd_tokenizer_bytes(t, INT32_MAX, &n));

    int32_t ids[] = {the, end, -7, think, INT32_MAX};
    CHECK_OK(hd_tokenizer_text(t, ids, 5, false, &s, &n, &err));
    CHECK(s && strcmp(s, "THE<think>") == 0 && n == 10, "%s", s);
    free(s);
    CHECK_OK(hd_tokenizer_text(t, ids, 5, true, &s, NULL, &err));
    CHECK(s && strcmp(s, "THE<|end|><think>") == 0, "%s", s);
    free(s);
    CHECK_OK(hd_tokenizer_text(t, NULL, 0, true, &s, &n, &err));
    CHECK(s && !*s && n == 0);
    free(s);
    hd_tokenizer_close(t);
}

/* Appending keeps what is there. */
static void test_append(void)
{
    hd_err err = {0};
    hd_tokenizer *t = named("gpt2");
    hd_ids ids = {0};
    for (int i = 0; i < 100; i++) CHECK_OK(hd_tokenizer_encode(t, "a\0b", 3, &ids, &err));
    int32_t a = hd_tokenizer_find(t, "a"), b = hd_tokenizer_find(t, "b");
    CHECK(ids.n == 300 && ids.id[0] == a && ids.id[297] == a && ids.id[299] == b, "%lld", (long long)ids.n);
    hd_ids_free(&ids);
    CHECK(!ids.id && ids.n == 0 && ids.cap == 0);
    hd_tokenizer_close(t);
}

/* ---- Two threads ---- */

typedef struct {
    const hd_tokenizer *t;
    int64_t n_ids;
    bool same;
} reader;

static void *read_often(void *arg)
{
    reader *r = arg;
    static const char text[] = "The tokenizer cuts a text into words, 1234 of them. L'\xc3\xa9t\xc3\xa9.";
    r->same = true;
    for (int i = 0; i < 2000; i++) {
        hd_err err = {0};
        hd_ids ids = {0};
        r->same &= hd_tokenizer_encode(r->t, text, sizeof text - 1, &ids, &err) == HD_OK;
        if (i == 0) r->n_ids = ids.n;
        r->same &= ids.n == r->n_ids;
        hd_ids_free(&ids);
    }
    return NULL;
}

static void test_threads(void)
{
    hd_tokenizer *t = named("qwen2");
    reader r[3] = {{t, 0, false}, {t, 0, false}, {t, 0, false}};
    pthread_t thread[3];
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&thread[i], NULL, read_often, &r[i]) == 0);
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    CHECK(r[0].same && r[1].same && r[2].same && r[0].n_ids == r[1].n_ids && r[1].n_ids == r[2].n_ids &&
          r[0].n_ids > 10);
    hd_tokenizer_close(t);
}

/* ---- Damaged files ---- */

/* The golden qwen2 tokenizer with one value replaced: `path` is a dotted way to it, `value` JSON (empty:
 * removed). */
static json_t *damaged(const char *path, const char *value)
{
    json_error_t at;
    json_t *whole = tokenizer_json(json_array_get(json_object_get(golden, "configs"), 1)),
           *copy = json_deep_copy(whole);
    json_decref(whole);
    json_t *o = copy;
    char key[64];
    const char *dot;
    for (; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(key)) : json_object_get(o, key);
    }
    json_t *v = *value ? json_loads(value, JSON_DECODE_ANY, &at) : NULL;
    if (*value && !v) abort();
    if (json_is_array(o)) json_array_set_new(o, (size_t)atoi(path), v);
    else if (v) json_object_set_new(o, path, v);
    else json_object_del(o, path);
    return copy;
}

static void test_damage(void)
{
    static const struct {
        const char *path, *value;
        hd_status st;
        const char *says;
    } cases[] = {
        {"model", "", HD_FORMAT, "model"},
        {"model", "[]", HD_FORMAT, "model"},
        {"model.type", "\"Unigram\"", HD_UNSUPPORTED, "'Unigram' is unknown; known: BPE"},
        {"model.vocab", "", HD_FORMAT, "model.vocab"},
        {"model.vocab", "{}", HD_FORMAT, ""},
        {"model.vocab.THE", "-1", HD_FORMAT, "'THE' has no proper id"},
        {"model.vocab.THE", "\"x\"", HD_FORMAT, "'THE' has no proper id"},
        {"model.vocab.THE", "3000000000", HD_FORMAT, "'THE' has no proper id"},
        {"model.vocab.THE", "2000000000", HD_FORMAT, "id 2000000000 with only"},
        {"model.vocab.THE", "0", HD_FORMAT, "defined twice"},
        {"model.vocab.THE", "", HD_FORMAT, "not in the vocabulary"},
        {"model.merges", "", HD_FORMAT, "model.merges"},
        {"model.merges.0", "\"the\"", HD_FORMAT, "entry 0"},
        {"model.merges.0", "\" the\"", HD_FORMAT, "entry 0"},
        {"model.merges.0", "\"the \"", HD_FORMAT, "entry 0"},
        {"model.merges.0", "[\"t\"]", HD_FORMAT, "entry 0"},
        {"model.merges.0", "[1, 2]", HD_FORMAT, "entry 0"},
        {"model.merges.0", "\"\\u4e2d t\"", HD_FORMAT, "entry 0"},
        {"model.merges.0", "\"t zz\"", HD_FORMAT, "not in the vocabulary"},
        {"model.dropout", "0.1", HD_UNSUPPORTED, "dropout"},
        {"model.byte_fallback", "true", HD_UNSUPPORTED, "byte_fallback"},
        {"model.end_of_word_suffix", "\"</w>\"", HD_UNSUPPORTED, "end_of_word_suffix"},
        {"normalizer", "{\"type\": \"Lowercase\"}", HD_UNSUPPORTED, "'Lowercase' is unknown"},
        {"normalizer", "7", HD_UNSUPPORTED, "normalizer"},
        {"pre_tokenizer", "", HD_UNSUPPORTED, "ByteLevel"},
        {"pre_tokenizer", "{\"type\": \"Metaspace\"}", HD_UNSUPPORTED, "'Metaspace' is unknown"},
        {"pre_tokenizer.pretokenizers.0.behavior", "\"Sideways\"", HD_FORMAT, "'Sideways'"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{}", HD_FORMAT, "pattern"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(\"}", HD_FORMAT, "pattern"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(*ACCEPT)\"}", HD_UNSUPPORTED, "a verb"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"\\\\b\"}", HD_UNSUPPORTED, "word boundary"},
        {"added_tokens", "{}", HD_FORMAT, "added_tokens"},
        {"added_tokens.0.id", "-5", HD_FORMAT, "entry 0"},
        {"added_tokens.0.content", "5", HD_FORMAT, "entry 0"},
        {"added_tokens.0.id", "622", HD_FORMAT, "defined twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hd_err err = {0};
        hd_tokenizer *t = NULL;
        json_t *j = damaged(cases[i].path, cases[i].value);
        hd_status st = hd_tokenizer_from_json(&t, j, NULL, &err);
        CHECK(st == cases[i].st && strstr(err.msg, cases[i].says), "%s = %s: status %d, %s", cases[i].path,
              cases[i].value, (int)st, err.msg);
        hd_tokenizer_close(st == HD_OK ? t : NULL);
        json_decref(j);
    }
}

/* A pattern that backtracks for ever ends in an error, soon. */
static void test_endless_pattern(void)
{
    hd_err err = {0};
    hd_tokenizer *t = NULL;
    hd_ids ids = {0};
    char text[4000];
    json_t *j = damaged("pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(a|aa|a[ab])+c|(a*)*b$\"}");
    memset(text, 'a', sizeof text);
    CHECK_OK(hd_tokenizer_from_json(&t, j, NULL, &err));
    json_decref(j);
    hd_status st = hd_tokenizer_encode(t, text, sizeof text, &ids, &err);
    CHECK(st == HD_LIMIT && strstr(err.msg, "pattern") && ids.n == 0, "status %d: %s", (int)st, err.msg);
    CHECK_OK(hd_tokenizer_encode(t, "short", 5, &ids, &err));
    CHECK(ids.n > 0);
    hd_ids_free(&ids);
    hd_tokenizer_close(t);
}

int main(void)
{
    json_error_t at;
    golden = json_load_file(HD_SOURCE_DIR "/tests/golden/tokenizer.json", 0, &at);
    CHECK(golden != NULL, "golden/tokenizer.json: line %d: %s", at.line, at.text);
    if (!golden) return hd_test_end();
    build_begin();
    test_golden();
    test_round_trip();
    test_names();
    test_append();
    test_threads();
    test_damage();
    test_endless_pattern();
    build_end();
    json_decref(golden);
    return hd_test_end();
}
