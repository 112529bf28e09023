/* The tokenizer's keys.  tokenizer.json holds the same things under other names: token strings (in the byte
 * alphabet of GPT-2) by id, merges in order, added tokens.  Only the way of cutting text into words is a name
 * in GGUF (tokenizer.ggml.pre), so it is found by trial: the known way that cuts a difficult text exactly as
 * this tokenizer does. */
#include <string.h>

#include "model/export.h"
#include "model/tokenizer.h"
#include "model/tokenizer_impl.h"

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 }; // tokenizer.ggml.token_type

/* ---- How words are cut ---- */

/* Runs of digits, contractions, punctuation with letters, spaces before newlines, scripts: each known way
 * differs from each other one somewhere here. */
static const char probe[] =
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n"
    "Hello,World a.b.c x_y __init__ 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 v2.0 ½²٣٤ "
    "I've it's he'LL WE'RE don't 'tis  two  spaces   three\t\ttabs end \r\n\r\n next"
    "!!! ... ?!/// ------=======''''''```````\"\"\"\"<|x|> {[(a)]} $$ \\n #include<b> // c\n/* d */"
    "Été déjà à l'œuvre; straße Ελληνικά русский текст हिन्दी संस्कृत ไทย ខ្មែរ אבג العربية "
    "汉字漢字かなカナ한국어，。！？1汉2字3 数3 ３４ 🚀😶\xe2\x80\x8d🌫️✅e\xcc\x81 a\xcc\x88";

typedef struct {
    size_t *end;
    size_t n, cap, at;
    const char *text;
} cuts;

static hd_status note_cut(void *arg, const char *s, size_t n, hd_err *err)
{
    cuts *c = arg;
    if (c->n == c->cap) return hd_fail(err, HD_LIMIT, "export: too many words");
    c->at = (size_t)(s - c->text) + n;
    c->end[c->n++] = c->at;
    return HD_OK;
}

static hd_status cut(const hd_pretok *p, cuts *c, hd_err *err)
{
    hd_status st;
    hd_pretok_work w = {0};
    c->n = 0;
    c->text = probe;
    HD_TRY(hd_pretok_work_open(&w, p, err));
    hd_pretok_begin(&w, sizeof probe - 1);
    HD_TRY(hd_pretok_run(p, &w, probe, sizeof probe - 1, note_cut, c, err));
fail:
    hd_pretok_work_close(&w);
    return st;
}

static hd_status find_pre(const char **pre, const hd_tokenizer *t, hd_err *err)
{
    static const char *const known[] = {"qwen2",    "stablelm2", "llama-bpe", "deepseek-v3", "deepseek-llm", "deepseek-coder",
                                        "smollm",   "gpt-2",     "default"};
    hd_status st;
    static const size_t CAP = sizeof probe;
    size_t *ends = NULL;
    *pre = NULL;
    HD_TRY(hd_alloc_n(&ends, 2 * CAP, sizeof *ends, err));
    cuts want = {ends, 0, CAP, 0, probe}, got = {ends + CAP, 0, CAP, 0, probe};
    HD_TRY(cut(&t->pretok, &want, err));
    for (size_t i = 0; !*pre && i < sizeof known / sizeof known[0]; i++) {
        hd_pretok p = {0};
        bool nfc = false, ignore_merges = false;
        st = hd_pretok_named(&p, known[i], &nfc, &ignore_merges, err);
        if (st == HD_OK) st = cut(&p, &got, err);
        hd_pretok_close(&p);
        HD_TRY(st);
        if (got.n == want.n && memcmp(got.end, want.end, got.n * sizeof *ends) == 0 && nfc == (t->n_normal > 0) &&
            ignore_merges == t->bpe.ignore_merges)
            *pre = known[i];
    }
    if (!*pre)
        st = hd_fail(err, HD_UNSUPPORTED, "export: tokenizer.json: its way of cutting words has no name in GGUF that is known here");
fail:
    free(ends);
    return st;
}

/* ---- Tokens ---- */

typedef struct {
    hd_gguf_str *token;
    int32_t *type;
    int64_t n;
    hd_buf pads; // names of ids without a token
} vocab;

static hd_status set_token(vocab *v, const json_t *id, const char *text, size_t n, int type, hd_err *err)
{
    json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || i >= v->n)
        return hd_fail(err, HD_FORMAT, "export: tokenizer.json: token '%.40s': its id is outside the model's vocabulary of %lld",
                       text, (long long)v->n);
    v->token[i] = (hd_gguf_str){text, n};
    v->type[i] = type;
    return HD_OK;
}

static hd_status collect_tokens(vocab *v, const json_t *tok, hd_err *err)
{
    hd_status st = HD_OK;
    const char *key;
    json_t *id, *added;
    size_t i;
    json_object_foreach(json_object_get(json_object_get(tok, "model"), "vocab"), key, id)
        HD_TRY(set_token(v, id, key, strlen(key), NORMAL, err));
    json_array_foreach(json_object_get(tok, "added_tokens"), i, added)
    {
        const json_t *text = json_object_get(added, "content");
        if (!json_is_string(text)) return hd_fail(err, HD_FORMAT, "export: tokenizer.json: added token %zu has no text", i);
        const char *s = json_string_value(text);
        size_t n = json_string_length(text);
        bool control = json_is_true(json_object_get(added, "special")) || hd_looks_special(s, n);
        HD_TRY(set_token(v, json_object_get(added, "id"), s, n, control ? CONTROL : USER_DEFINED, err));
    }
    /* ids that only pad the matrix: named twice over, since the buffer moves while it grows */
    for (int64_t k = 0; k < v->n; k++)
        if (!v->token[k].p) HD_TRY(hd_buf_addf(&v->pads, err, "[PAD%lld]", (long long)k));
    for (int64_t k = 0, at = 0; k < v->n; k++) {
        if (v->token[k].p) continue;
        v->token[k].p = v->pads.data + at;
        while (v->pads.data[at++] != ']') continue;
        v->token[k].n = (uint64_t)(v->pads.data + at - v->token[k].p);
        v->type[k] = UNUSED;
    }
fail:
    return st;
}

/* "left right" or ["left", "right"]; GGUF has the first form. */
static hd_status put_merges(hd_gguf_writer *w, const json_t *merges, hd_err *err)
{
    hd_status st;
    size_t n = json_array_size(merges), i, at = 0;
    hd_gguf_str *line = NULL;
    hd_buf joined;
    json_t *m;
    hd_buf_init(&joined, (size_t)256 << 20);
    HD_TRY(hd_alloc_n(&line, n ? n : 1, sizeof *line, err));
    json_array_foreach((json_t *)merges, i, m)
    {
        const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        size_t before = joined.len;
        if (json_is_string(m)) HD_TRY(hd_buf_add(&joined, json_string_value(m), json_string_length(m), err));
        else if (json_is_string(a) && json_is_string(b)) {
            HD_TRY(hd_buf_add(&joined, json_string_value(a), json_string_length(a), err));
            HD_TRY(hd_buf_add(&joined, " ", 1, err));
            HD_TRY(hd_buf_add(&joined, json_string_value(b), json_string_length(b), err));
        } else {
            st = hd_fail(err, HD_FORMAT, "export: tokenizer.json: merge %zu is neither a string nor a pair", i);
            goto fail;
        }
        line[i].n = joined.len - before;
    }
    for (i = 0; i < n; i++) {
        line[i].p = joined.data + at;
        at += line[i].n;
    }
    HD_TRY(hd_gguf_put_arr_str(w, "tokenizer.ggml.merges", line, n, err));
fail:
    hd_buf_free(&joined);
    free(line);
    return st;
}

/* tokenizer_config.json names a token as "text" or {"content": "text"}. */
static int32_t named_token(const hd_tokenizer *t, const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? hd_tokenizer_find(t, json_string_value(v)) : -1;
}

static hd_status put_id(hd_gguf_writer *w, const char *key, int32_t id, hd_err *err)
{
    return id < 0 ? HD_OK : hd_gguf_put_u32(w, key, (uint32_t)id, err);
}

static hd_status put_specials(hd_gguf_writer *w, const hd_source *s, const hd_tokenizer *t, hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_source_config(s);
    const json_t *config = hd_source_json(s, "tokenizer_config.json");
    int32_t bos = named_token(t, config, "bos_token"), eos = named_token(t, config, "eos_token"),
            pad = named_token(t, config, "pad_token");
    if (eos < 0 && c->n_eos > 0) eos = c->eos[0];
    HD_TRY(put_id(w, "tokenizer.ggml.bos_token_id", bos < 0 ? c->bos : bos, err));
    HD_TRY(put_id(w, "tokenizer.ggml.eos_token_id", eos, err));
    for (int i = 0; i < c->n_eos; i++) // the first other end of turn, where generation_config.json has several
        if (c->eos[i] != eos) {
            HD_TRY(put_id(w, "tokenizer.ggml.eot_token_id", c->eos[i], err));
            break;
        }
    HD_TRY(put_id(w, "tokenizer.ggml.padding_token_id", pad < 0 ? c->pad : pad, err));
    HD_TRY(hd_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", hd_tokenizer_adds_bos(t), err));
fail:
    return st;
}

/* The template of tokenizer_config.json (a string, or a list with one named "default"), or of a
 * file of its own. */
static hd_status put_template(hd_gguf_writer *w, const hd_source *s, hd_err *err)
{
    const json_t *v = json_object_get(hd_source_json(s, "tokenizer_config.json"), "chat_template");
    if (!v) v = json_object_get(hd_source_json(s, "chat_template.json"), "chat_template");
    if (json_is_array(v)) {
        size_t i;
        json_t *each;
        const json_t *found = NULL;
        json_array_foreach((json_t *)v, i, each)
        {
            const char *name = json_string_value(json_object_get(each, "name"));
            if (!found || (name && strcmp(name, "default") == 0)) found = json_object_get(each, "template");
        }
        v = found;
    }
    if (json_is_string(v))
        return hd_gguf_put_str(w, "tokenizer.chat_template", json_string_value(v), json_string_length(v), err);

    hd_buf text;
    char path[4096];
    hd_status st = HD_OK;
    hd_buf_init(&text, 1 << 20);
    snprintf(path, sizeof path, "%s/chat_template.jinja", hd_source_path(s));
    if (hd_is_file(path)) st = hd_file_read(&text, path, err);
    if (st == HD_OK && text.len) st = hd_gguf_put_str(w, "tokenizer.chat_template", text.data, text.len, err);
    hd_buf_free(&text);
    return st;
}

hd_status hd_export_vocab(hd_gguf_writer *w, const hd_source *s, hd_err *err)
{
    hd_status st;
    const json_t *tok = hd_source_json(s, "tokenizer.json");
    hd_tokenizer *t = NULL;
    const char *pre;
    vocab v = {.n = hd_source_config(s)->n_vocab};
    hd_buf_init(&v.pads, (size_t)64 << 20);
    if (!tok) return hd_gguf_put_str(w, "tokenizer.ggml.model", "none", 4, err); // weights alone, for tests and tools
    HD_TRY(hd_tokenizer_open(&t, s, err));
    HD_TRY(find_pre(&pre, t, err));
    HD_TRY(hd_alloc_n(&v.token, (size_t)v.n, sizeof *v.token, err));
    HD_TRY(hd_alloc_n(&v.type, (size_t)v.n, sizeof *v.type, err));
    HD_TRY(collect_tokens(&v, tok, err));
    HD_TRY(hd_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4, err));
    HD_TRY(hd_gguf_put_str(w, "tokenizer.ggml.pre", pre, strlen(pre), err));
    HD_TRY(hd_gguf_put_arr_str(w, "tokenizer.ggml.tokens", v.token, (uint64_t)v.n, err));
    HD_TRY(hd_gguf_put_arr(w, "tokenizer.ggml.token_type", HD_GGUF_I32, v.type, (uint64_t)v.n, err));
    HD_TRY(put_merges(w, json_object_get(json_object_get(tok, "model"), "merges"), err));
    HD_TRY(put_specials(w, s, t, err));
    HD_TRY(put_template(w, s, err));
fail:
    hd_tokenizer_close(t);
    hd_buf_free(&v.pads);
    free(v.token);
    free(v.type);
    return st;
}
