/* ollama's dialect: /api/chat and /api/generate in lines of JSON, /api/tags, /api/show, /api/ps,
 * /api/version; /api/embed says clearly that it is not there.
 *
 * A stream is one object a line, the last with "done": true and the counts; clients read every line as JSON,
 * so that nothing can be sent in between to keep it alive. */
#include <string.h>
#include <time.h>

#include "serve/api.h"

/* ---- Requests ---- */

static hd_status read_calls(hd_chat_request *q, hd_message *m, const json_t *calls, const char *what,
                            hd_api_error *e)
{
    size_t i, n = json_array_size(calls);
    json_t *o;
    if (n == 0) return HD_OK;
    hd_call *call = hd_keep_alloc(&q->keep, (n + 1) * sizeof *call);
    if (!call) return hd_refuse_nomem(e);
    json_array_foreach((json_t *)calls, i, o)
    {
        const json_t *f = json_object_get(o, "function"), *args = json_object_get(f, "arguments");
        char *text = json_is_object(args) ? json_dumps(args, 0) : NULL;
        call[i].name = json_string_value(json_object_get(f, "name"));
        call[i].arguments = text ? hd_keep_text(&q->keep, text, strlen(text)) : NULL;
        free(text);
        if (!call[i].name || !call[i].arguments)
            return hd_refuse(e, 422, "invalid_type", what,
                             "%s.tool_calls[%zu].function: a name and an arguments object", what, i);
    }
    m->call = call;
    m->n_call = (int)n;
    return HD_OK;
}

static hd_status read_message(hd_chat_request *q, hd_message *m, const json_t *o, size_t i, hd_api_error *e)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    hd_status st;
    char what[64];
    const char *text = NULL, *role = json_string_value(json_object_get(o, "role"));
    snprintf(what, sizeof what, "messages[%zu]", i);
    for (int k = 0; role && k < 4; k++)
        if (strcmp(role, roles[k]) == 0) m->role = roles[k];
    if (!m->role)
        return hd_refuse(e, 422, "invalid_value", what, "%s.role: must be system, user, assistant or tool",
                         what);
    if (json_array_size(json_object_get(o, "images")))
        return hd_refuse(e, 422, "unsupported_content", what, "%s.images: only text can be read", what);
    HD_TRY(hd_field_string(&text, o, "content", e));
    HD_TRY(hd_field_string(&m->thinking, o, "thinking", e));
    HD_TRY(read_calls(q, m, json_object_get(o, "tool_calls"), what, e));
    m->text = text ? text : "";
fail:
    return st;
}

static hd_status read_format(hd_chat_request *q, const json_t *v, hd_api_error *e)
{
    const char *s = json_string_value(v);
    if (!v || json_is_null(v) || (s && !*s)) return HD_OK;
    if (s && strcmp(s, "json") == 0) {
        q->format = HD_FORMAT_JSON;
        return HD_OK;
    }
    if (!json_is_object(v))
        return hd_refuse(e, 422, "invalid_value", "format", "format: must be \"json\" or a JSON schema");
    q->format = HD_FORMAT_SCHEMA;
    q->schema = v;
    return HD_OK;
}

static hd_status read_common(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *options = json_object_get(o, "options"), *think = json_object_get(o, "think"), *seed;
    HD_TRY(hd_field_string(&q->model, o, "model", e));
    HD_TRY(hd_field_bool(&q->stream, o, "stream", e));
    if (json_is_boolean(think)) q->thinking = json_is_true(think);
    else HD_TRY(hd_field_effort(q, think, "think", e));
    HD_TRY(read_format(q, json_object_get(o, "format"), e));
    if (options && !json_is_null(options) && !json_is_object(options))
        HD_TRY(hd_refuse(e, 422, "invalid_type", "options", "options: must be an object"));
    HD_TRY(hd_fields_read(q, hd_fields_ollama, options, "options.", e));
    HD_TRY(hd_field_stop(q, options, "stop", e));
    seed = json_object_get(options, "seed");
    if (json_is_integer(seed)) q->sample.seed = (uint64_t)json_integer_value(seed), q->has_seed = true;
fail:
    return st;
}

static hd_status read_chat(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *list = json_object_get(o, "messages");
    size_t n = json_array_size(list);
    HD_TRY(read_common(q, o, e));
    if (list && !json_is_null(list) && !json_is_array(list))
        HD_TRY(hd_refuse(e, 422, "invalid_type", "messages", "messages: must be a list"));
    q->load_only = n == 0;
    HD_TRY(hd_request_messages(q, n, "messages", e));
    for (size_t i = 0; i < n; i++) HD_TRY(read_message(q, &q->msg[i], json_array_get(list, i), i, e));
    q->n_msg = (int)n;
    q->prefix = n > 0 && strcmp(q->msg[n - 1].role, "assistant") == 0;
    HD_TRY(hd_field_tools(q, json_object_get(o, "tools"), false, "parameters", e));
fail:
    return st;
}

static hd_status read_generate(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const char *prompt = NULL, *system = NULL;
    HD_TRY(read_common(q, o, e));
    HD_TRY(hd_field_string(&prompt, o, "prompt", e));
    HD_TRY(hd_field_string(&system, o, "system", e));
    HD_TRY(hd_field_string(&q->suffix, o, "suffix", e));
    HD_TRY(hd_field_bool(&q->raw, o, "raw", e));
    if (q->suffix && !*q->suffix) q->suffix = NULL;
    if (json_array_size(json_object_get(o, "images")))
        HD_TRY(hd_refuse(e, 422, "unsupported_content", "images", "images: only text can be read"));
    q->load_only = !prompt || !*prompt;
    if (q->raw || q->suffix) {
        q->prompt[0] = prompt ? prompt : "";
        q->n_prompt = 1;
        return HD_OK;
    }
    HD_TRY(hd_request_messages(q, 2, "prompt", e));
    if (system && *system) q->msg[q->n_msg++] = (hd_message){.role = "system", .text = system};
    q->msg[q->n_msg++] = (hd_message){.role = "user", .text = prompt ? prompt : ""};
fail:
    return st;
}

/* ---- Replies ---- */

static json_t *stamp(void)
{
    struct timespec t;
    struct tm tm;
    char day[40] = "";
    clock_gettime(CLOCK_REALTIME, &t);
    if (gmtime_r(&t.tv_sec, &tm)) strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    return json_sprintf("%s.%06ldZ", day, t.tv_nsec / 1000);
}

static json_t *line(const hd_writer *w, bool done)
{
    return json_pack("{s:s, s:o, s:b}", "model", w->q->model_name, "created_at", stamp(), "done", (int)done);
}

static bool is_generate(const hd_writer *w) { return w->d == &hd_dialect_ollama_generate; }

/* Put what was said into a line: "response" and "thinking", or a message. */
static json_t *said(const hd_writer *w, json_t *j, json_t *text, json_t *thinking, json_t *calls)
{
    json_t *at = j;
    if (!is_generate(w)) {
        at = json_pack("{s:s}", "role", "assistant");
        json_object_set_new(j, "message", at);
    }
    json_object_set_new(at, is_generate(w) ? "response" : "content", text);
    if (thinking) json_object_set_new(at, "thinking", thinking);
    if (calls) json_object_set_new(at, "tool_calls", calls);
    return j;
}

static json_t *call_json(const hd_call_out *c)
{
    return json_pack("{s:s, s:{s:s, s:o}}", "id", c->id, "function", "name", c->name, "arguments", hd_call_object(c));
}

static void text(hd_writer *w, int i, bool thinking, const char *s, size_t n)
{
    json_t *t = hd_text_json(s, n);
    hd_writer_put(w, "", said(w, line(w, false), thinking ? json_string("") : t, thinking ? t : NULL, NULL),
                  "\n");
}

static void call(hd_writer *w, int i, const hd_call_out *c)
{
    hd_writer_put(w, "", said(w, line(w, false), json_string(""), NULL, json_pack("[o]", call_json(c))),
                  "\n");
}

static json_t *with_counts(const hd_writer *w, json_t *j)
{
    const hd_choice *c = &w->choice[0];
    const double ns = 1e9;
    if (w->q->load_only) {
        json_object_set_new(j, "done_reason", json_string("load"));
        return j;
    }
    json_t *counts = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "done_reason",
                               c->reason == HD_END_STOP ? "stop" : "length", "total_duration",
                               (json_int_t)((w->queue_s + w->prefill_s + w->gen_s) * ns), "load_duration",
                               (json_int_t)0, "prompt_eval_count", (json_int_t)w->prompt_tok,
                               "prompt_eval_duration", (json_int_t)(w->prefill_s * ns), "eval_count",
                               (json_int_t)c->gen_tok, "eval_duration", (json_int_t)(w->gen_s * ns));
    json_object_update(j, counts);
    json_decref(counts);
    return j;
}

static void end(hd_writer *w)
{
    hd_writer_put(w, "", with_counts(w, said(w, line(w, true), json_string(""), NULL, NULL)), "\n");
}

static json_t *whole(hd_writer *w)
{
    hd_choice *c = &w->choice[0];
    json_t *calls = c->n_call ? json_array() : NULL;
    for (int k = 0; k < c->n_call; k++) json_array_append_new(calls, call_json(&c->call[k]));
    json_t *thinking = c->thinking.len ? hd_text_json(c->thinking.data, c->thinking.len) : NULL;
    return with_counts(w, said(w, line(w, true), hd_text_json(c->text.data, c->text.len), thinking, calls));
}

static json_t *error(const hd_api_error *e, const char *id)
{
    return json_pack("{s:s}", "error", e->message);
}

static void stream_error(hd_writer *w, json_t *j) { hd_writer_put(w, "", j, "\n"); }

#define OLLAMA                                                                                               \
    .stream_type = "application/x-ndjson", .id_prefix = "", .call_prefix = "call_", .text = text,            \
    .call_end = call, .end = end, .whole = whole, .error = error, .stream_error = stream_error,              \
    .stream_default = true

const hd_dialect hd_dialect_ollama_chat = {.name = "ollama chat", .read = read_chat, OLLAMA};
const hd_dialect hd_dialect_ollama_generate = {.name = "ollama generate", .read = read_generate, OLLAMA};

/* ---- Handlers ---- */

void hd_api_fail_ollama(hd_req *r, int status, const char *code, const char *message)
{
    hd_api_fail(r, &hd_dialect_ollama_chat, status, code, message);
}

static void handle_chat(hd_req *r) { hd_api_run(r, &hd_dialect_ollama_chat); }
static void handle_generate(hd_req *r) { hd_api_run(r, &hd_dialect_ollama_generate); }

/* What is known of the model, and no more. */
static json_t *details(const hd_server *s)
{
    const char *chat = hd_engine_chat_name(s->engine);
    return json_pack("{s:s, s:s, s:s}", "parent_model", "", "format", "gguf", "family", chat ? chat : "");
}

static json_t *tag(const hd_server *s, const char *name)
{
    return json_pack("{s:s, s:s, s:o, s:o}", "name", name, "model", name, "modified_at", hd_time_json(s->created),
                     "details", details(s));
}

static json_t *all_tags(const hd_server *s)
{
    json_t *list = json_array();
    json_array_append_new(list, tag(s, s->model_name));
    for (int i = 0; i < s->n_alias; i++) json_array_append_new(list, tag(s, s->alias[i].name));
    return list;
}

static void handle_tags(hd_req *r)
{
    hd_api_reply(r, 200, json_pack("{s:o}", "models", all_tags(hd_server_of(r))));
}

static void handle_ps(hd_req *r)
{
    hd_server *s = hd_server_of(r);
    json_t *one = tag(s, s->model_name);
    json_object_set_new(one, "context_length", json_integer(hd_engine_ctx_tok(s->engine)));
    json_object_set_new(one, "size_vram", json_integer(0));
    hd_api_reply(r, 200, json_pack("{s:[o]}", "models", one));
}

static void handle_show(hd_req *r)
{
    hd_server *s = hd_server_of(r);
    hd_chat_request q;
    hd_api_error e = {0};
    size_t n;
    const char *body = hd_req_body(r, &n), *chat = hd_engine_chat_name(s->engine);
    hd_chat_request_open(&q, &hd_dialect_ollama_chat, &(hd_sample_opts){0});
    hd_status st = hd_api_json(&q.body, body, n, &e);
    if (st == HD_OK) st = hd_field_string(&q.model, q.body, "name", &e);
    if (st == HD_OK) st = hd_field_string(&q.model, q.body, "model", &e);
    if (st == HD_OK) st = hd_api_choose_model(&q, s, &e);
    if (st == HD_OK) {
        json_t *can = json_pack("[s, s]", "completion", "tools");
        if (hd_tokenizer_find(s->tok, "</think>") >= 0) json_array_append_new(can, json_string("thinking"));
        hd_api_reply(r, 200,
                     json_pack("{s:s, s:s, s:s, s:o, s:o, s:{s:s, s:I}, s:o}", "modelfile", "", "parameters",
                               "", "template", "", "modified_at", hd_time_json(s->created), "details", details(s),
                               "model_info", "general.architecture", chat ? chat : "",
                               "general.context_length", (json_int_t)hd_engine_ctx_tok(s->engine),
                               "capabilities", can));
    } else {
        hd_api_refuse(r, &hd_dialect_ollama_chat, &e);
    }
    hd_chat_request_close(&q);
}

static void handle_version(hd_req *r) { hd_api_reply(r, 200, json_pack("{s:s}", "version", hd_version())); }

static void handle_embed(hd_req *r)
{
    hd_api_fail_ollama(r, 501, "not_supported", "this server generates text; it has no embeddings");
}

const hd_route hd_routes_ollama[] = {
    {"POST", "/api/chat", HD_RIGHT_API, HD_API_MAX_BODY, handle_chat, hd_api_fail_ollama, false},
    {"POST", "/api/generate", HD_RIGHT_API, HD_API_MAX_BODY, handle_generate, hd_api_fail_ollama, false},
    {"GET", "/api/tags", HD_RIGHT_API, 0, handle_tags, hd_api_fail_ollama, false},
    {"POST", "/api/show", HD_RIGHT_API, 1 << 16, handle_show, hd_api_fail_ollama, false},
    {"GET", "/api/ps", HD_RIGHT_API, 0, handle_ps, hd_api_fail_ollama, false},
    {"GET", "/api/version", HD_RIGHT_ANYONE, 0, handle_version, hd_api_fail_ollama, false},
    {"POST", "/api/embed", HD_RIGHT_API, HD_API_MAX_BODY, handle_embed, hd_api_fail_ollama, false},
    {"POST", "/api/embeddings", HD_RIGHT_API, HD_API_MAX_BODY, handle_embed, hd_api_fail_ollama, false},
    {0},
};
