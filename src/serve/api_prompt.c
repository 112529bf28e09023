/* From a request to what the engine is given: the ids of its prompt, its grammar, its model.
 *
 *   messages + definitions of tools --> hd_engine_render (+ the answer's beginning) --> ids
 *   prompt (+ suffix)               --> plain text, or fill-in-the-middle tokens    --> ids */
#include <string.h>

#include "model/chat.h"
#include "serve/api_prompt.h"

/* ---- The model's name ---- */

/* ollama adds ":latest" to every name. */
static bool same_name(const char *asked, const char *name)
{
    size_t n = strlen(name);
    return strncmp(asked, name, n) == 0 && (!asked[n] || strcmp(asked + n, ":latest") == 0);
}

const hd_alias *hd_api_find_model(const hd_server *s, const char *name, bool *is_model)
{
    *is_model = same_name(name, s->model_name);
    for (int i = 0; i < s->n_alias; i++)
        if (same_name(name, s->alias[i].name)) return &s->alias[i];
    return NULL;
}

hd_status hd_api_choose_model(hd_chat_request *q, const hd_server *s, hd_api_error *e)
{
    bool is_model = true;
    const hd_alias *a = q->model ? hd_api_find_model(s, q->model, &is_model) : NULL;
    if (!a && !is_model && !s->any_model) {
        char known[700] = "";
        size_t n = (size_t)snprintf(known, sizeof known, "%.127s", s->model_name);
        for (int i = 0; i < s->n_alias && n < sizeof known; i++)
            n += (size_t)snprintf(known + n, sizeof known - n, ", %s", s->alias[i].name);
        return hd_refuse(e, 404, "model_not_found", "model", "model: '%.100s' is not known here; known: %s",
                         q->model, known);
    }
    q->model_name = q->model ? q->model : s->model_name;
    if (q->thinking < 0 && a) q->thinking = a->thinking;
    if (q->thinking < 0) q->thinking = q->thinking_otherwise;
    return HD_OK;
}

/* ---- Tools in the prompt ---- */

/* before + gap + after, kept. */
static const char *joined(hd_keep **keep, const char *before, const char *gap, const char *after)
{
    size_t a = strlen(before), b = strlen(gap), c = strlen(after);
    char *s = hd_keep_alloc(keep, a + b + c + 1);
    if (!s) return NULL;
    memcpy(s, before, a);
    memcpy(s + a, gap, b);
    memcpy(s + a + b, after, c);
    return s;
}

/* The messages with the tools told of; out has room for one more than there are. */
static hd_status with_tools(hd_message *out, int *n, const hd_chat_request *q, const char *chat,
                            hd_keep **keep, hd_api_error *e)
{
    hd_err err = {0};
    hd_buf text;
    int at = 0;
    const char *said = NULL;
    memcpy(out, q->msg, (size_t)*n * sizeof *out);
    if (q->tools.n == 0 || q->tools.choice == HD_TOOLS_NONE) return HD_OK;
    hd_buf_init(&text, HD_API_MAX_BODY);
    hd_status st = hd_tools_text(&text, &q->tools, chat, &err);
    const char *tools = st == HD_OK ? hd_keep_text(keep, text.data, text.len) : NULL;
    hd_buf_free(&text);
    if (!tools) return st == HD_OK ? hd_refuse_nomem(e) : hd_refuse_for(e, &err, "tools");
    if (hd_tools_in_user(chat)) {
        while (at < *n && strcmp(out[at].role, "user") != 0) at++;
        if (at < *n) said = joined(keep, tools, "", out[at].text);
    }
    if (!hd_tools_in_user(chat) || at == *n) {
        const char *system = chat ? hd_chat_default_system(chat) : NULL;
        bool has = *n > 0 && strcmp(out[0].role, "system") == 0;
        at = 0;
        if (has) system = out[0].text;
        else {
            memmove(out + 1, out, (size_t)*n * sizeof *out);
            out[0] = (hd_message){.role = "system"};
            ++*n;
        }
        said = system && *system ? joined(keep, system, "\n\n", tools) : tools;
    }
    if (!said) return hd_refuse_nomem(e);
    out[at].text = said;
    return HD_OK;
}

/* ---- The answer's beginning ---- */

/* The rendered prompt ends inside a thought: with its mark, or with the mark and line ends. */
static bool inside_thought(const hd_ids *ids, const hd_tokenizer *t, int32_t mark)
{
    size_t len;
    if (mark < 0 || ids->n == 0) return false;
    if (ids->id[ids->n - 1] == mark) return true;
    const char *last = hd_tokenizer_bytes(t, ids->id[ids->n - 1], &len);
    if (!last || ids->n < 2 || ids->id[ids->n - 2] != mark) return false;
    for (size_t i = 0; i < len; i++)
        if (last[i] != '\n') return false;
    return true;
}

static hd_status add_text(hd_ids *ids, const hd_tokenizer *t, const char *s, hd_err *err)
{
    return *s ? hd_tokenizer_encode(t, s, strlen(s), ids, err) : HD_OK;
}

static hd_status add_beginning(hd_ids *ids, const hd_tokenizer *t, const hd_message *m, hd_err *err)
{
    hd_status st;
    int32_t end = hd_tokenizer_find(t, "</think>");
    if (end >= 0 && inside_thought(ids, t, hd_tokenizer_find(t, "<think>"))) {
        if (m->thinking) HD_TRY(add_text(ids, t, m->thinking, err));
        if (!*m->text && m->thinking) return HD_OK; // the thought goes on
        if (m->thinking) HD_TRY(add_text(ids, t, "\n", err));
        HD_TRY(hd_ids_add(ids, end, err));
        HD_TRY(add_text(ids, t, "\n\n", err));
    }
    HD_TRY(add_text(ids, t, m->text, err));
fail:
    return st;
}

/* Reading megabytes only to find that they do not fit would keep everybody waiting: no text has so many
 * bytes to a token. */
static hd_status check_bytes(size_t n, const hd_server *s, const char *field, hd_api_error *e)
{
    enum { MOST_BYTES_A_TOK = 16, ALWAYS = 1 << 14 };
    int64_t ctx = hd_engine_ctx_tok(s->engine);
    if (n < ALWAYS || n / MOST_BYTES_A_TOK < (size_t)ctx) return HD_OK;
    e->n_ctx = ctx;
    e->n_prompt = (int64_t)(n / MOST_BYTES_A_TOK);
    return hd_refuse(
        e, 400, "context_length_exceeded", field,
        "the prompt has %zu bytes, more than %lld tokens; the context holds %lld with the answer", n,
        (long long)e->n_prompt, (long long)ctx);
}

static size_t bytes_of(const hd_message *msg, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += strlen(msg[i].text) + (msg[i].thinking ? strlen(msg[i].thinking) : 0);
        for (int k = 0; k < msg[i].n_call; k++) sum += strlen(msg[i].call[k].arguments);
    }
    return sum;
}

static hd_status render(hd_ids *out, const hd_chat_request *q, const hd_server *s, hd_api_error *e)
{
    hd_status st;
    hd_err err = {0};
    hd_keep *keep = NULL;
    int n = q->n_msg - q->prefix;
    hd_message *msg = hd_keep_alloc(&keep, (size_t)(q->n_msg + 2) * sizeof *msg);
    if (!msg) HD_TRY(hd_refuse_nomem(e));
    HD_TRY(with_tools(msg, &n, q, hd_engine_chat_name(s->engine), &keep, e));
    if (n == 0)
        HD_TRY(hd_refuse(e, 400, "missing_field", "messages",
                         "messages: nothing comes before the one to be continued"));
    HD_TRY(check_bytes(bytes_of(msg, n), s, "messages", e));
    st = hd_engine_render(s->engine, msg, n, q->thinking, out, &err);
    if (st == HD_OK && q->prefix) st = add_beginning(out, s->tok, &q->msg[q->n_msg - 1], &err);
    if (st != HD_OK) st = hd_refuse_for(e, &err, "messages");
fail:
    hd_keep_free(keep);
    return st;
}

/* ---- Plain prompts ---- */

/* Tokens of fill-in-the-middle, by the models that have them: before the prefix, before the suffix,
 * before the middle. */
static const char *const fim[][3] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"}, // Qwen2.5-Coder
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"}, // DeepSeek
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},       // StarCoder
};

static const char *const *fim_of(const hd_tokenizer *t)
{
    for (size_t i = 0; i < sizeof fim / sizeof fim[0]; i++)
        if (hd_tokenizer_find(t, fim[i][0]) >= 0 && hd_tokenizer_find(t, fim[i][1]) >= 0 &&
            hd_tokenizer_find(t, fim[i][2]) >= 0)
            return fim[i];
    return NULL;
}

static hd_status plain(hd_ids *out, const char *prompt, const char *suffix, const hd_tokenizer *t,
                       const char *const *f, hd_err *err)
{
    hd_status st = HD_OK;
    if (hd_tokenizer_adds_bos(t)) HD_TRY(hd_ids_add(out, hd_tokenizer_bos(t), err));
    if (!f) return add_text(out, t, prompt, err);
    HD_TRY(hd_ids_add(out, hd_tokenizer_find(t, f[0]), err));
    HD_TRY(add_text(out, t, prompt, err));
    HD_TRY(hd_ids_add(out, hd_tokenizer_find(t, f[1]), err));
    HD_TRY(add_text(out, t, suffix, err));
    HD_TRY(hd_ids_add(out, hd_tokenizer_find(t, f[2]), err));
fail:
    return st;
}

static hd_status given_ids(hd_ids *out, const json_t *list, int64_t n_vocab, hd_api_error *e)
{
    size_t i;
    json_t *v;
    json_array_foreach((json_t *)list, i, v)
    {
        json_int_t id = json_integer_value(v);
        if (id < 0 || id >= n_vocab)
            return hd_refuse(e, 422, "invalid_value", "prompt",
                             "prompt: id %lld: the vocabulary has 0 to %lld", (long long)id,
                             (long long)n_vocab - 1);
        if (hd_ids_add(out, (int32_t)id, NULL) != HD_OK) return hd_refuse_nomem(e);
    }
    return HD_OK;
}

hd_status hd_api_prompt(hd_ids *out, const hd_chat_request *q, const hd_server *s, int i, hd_api_error *e)
{
    hd_status st;
    hd_err err = {0};
    if (q->n_msg) HD_TRY(render(out, q, s, e));
    else if (q->prompt_ids[i]) HD_TRY(given_ids(out, q->prompt_ids[i], hd_tokenizer_n_vocab(s->tok), e));
    else {
        const char *const *f = q->suffix ? fim_of(s->tok) : NULL;
        if (q->suffix && !f)
            HD_TRY(hd_refuse(e, 422, "unsupported", "suffix",
                             "suffix: this model has no tokens to fill in the middle"));
        HD_TRY(check_bytes(strlen(q->prompt[i]) + (q->suffix ? strlen(q->suffix) : 0), s, "prompt", e));
        st = plain(out, q->prompt[i], q->suffix, s->tok, f, &err);
        if (st != HD_OK) HD_TRY(hd_refuse_for(e, &err, "prompt"));
    }
    if (out->n == 0) HD_TRY(hd_refuse(e, 400, "invalid_value", "prompt", "prompt: it is empty"));
    if (out->n >= hd_engine_ctx_tok(s->engine)) {
        e->n_prompt = out->n;
        e->n_ctx = hd_engine_ctx_tok(s->engine);
        HD_TRY(hd_refuse(e, 400, "context_length_exceeded", q->n_msg ? "messages" : "prompt",
                         "the prompt has %lld tokens, the context holds %lld with the answer",
                         (long long)out->n, (long long)e->n_ctx));
    }
fail:
    return st;
}

/* ---- Grammar ---- */

/* As exact as can be: where a tool's schema holds what cannot be enforced and does not insist,
 * any object will do. */
static hd_status tools_grammar(hd_grammar **out, const hd_chat_request *q, const hd_server *s,
                               const json_t *otherwise, hd_api_error *e)
{
    hd_err err = {0};
    hd_status st = HD_NOMEM;
    for (int any = 0; any < 2; any++) {
        json_t *schema = hd_tools_schema(&q->tools, hd_engine_chat_name(s->engine), any, otherwise);
        if (!schema) return hd_refuse_nomem(e);
        st = hd_grammars_schema(s->grammars, out, schema, &err);
        json_decref(schema);
        if (st != HD_UNSUPPORTED) break;
    }
    return st == HD_OK ? HD_OK : hd_refuse_for(e, &err, otherwise ? "response_format" : "tools");
}

hd_status hd_api_grammar(hd_grammar **out, const hd_chat_request *q, const hd_server *s, hd_api_error *e)
{
    hd_err err = {0};
    hd_status st = HD_OK;
    bool tools = q->tools.n > 0 && q->tools.choice != HD_TOOLS_NONE;
    *out = NULL;
    if (tools && q->tools.choice != HD_TOOLS_AUTO) return tools_grammar(out, q, s, NULL, e);
    switch (q->format) {
    case HD_FORMAT_TEXT: return HD_OK;
    case HD_FORMAT_JSON: st = hd_grammars_schema(s->grammars, out, NULL, &err); break; // which a call is, too
    case HD_FORMAT_SCHEMA:
        if (tools) return tools_grammar(out, q, s, q->schema, e);
        st = hd_grammars_schema(s->grammars, out, q->schema, &err);
        break;
    case HD_FORMAT_GRAMMAR:
        if (tools) return hd_refuse(e, 422, "invalid_value", "grammar", "grammar: not together with tools");
        st = hd_grammars_text(s->grammars, out, q->grammar, &err);
        break;
    }
    if (st == HD_OK) return HD_OK;
    return hd_refuse_for(e, &err, q->format == HD_FORMAT_GRAMMAR ? "grammar" : "response_format");
}
