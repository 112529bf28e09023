/* OpenAI's and DeepSeek's dialect: /chat/completions, /completions, /models, /tokenize, each also
 * under /v1 and /beta.
 *
 * A stream: chunks as "data: {...}\n\n"; per choice a first one with the role, then text, calls, and one with
 * finish_reason; when asked for, one with the usage and no choices; "data: [DONE]".  Thoughts are
 * `reasoning_content`, as DeepSeek has it. */
#include <string.h>

#include "serve/api.h"

/* ---- Requests ---- */

static hd_status read_calls(hd_chat_request *q, hd_message *m, const json_t *calls, const char *what,
                            hd_api_error *e)
{
    size_t i, n = json_array_size(calls);
    json_t *o;
    if (!calls || json_is_null(calls)) return HD_OK;
    if (!json_is_array(calls) || n > HD_MAX_TOOLS)
        return hd_refuse(e, 422, "invalid_type", what, "%s.tool_calls: must be a list of up to %d", what,
                         HD_MAX_TOOLS);
    hd_call *call = hd_keep_alloc(&q->keep, (n + 1) * sizeof *call);
    if (!call) return hd_refuse_nomem(e);
    json_array_foreach((json_t *)calls, i, o)
    {
        const json_t *f = json_object_get(o, "function");
        call[i].name = json_string_value(json_object_get(f, "name"));
        call[i].arguments = json_string_value(json_object_get(f, "arguments"));
        if (!call[i].name || !call[i].arguments)
            return hd_refuse(e, 422, "invalid_type", what,
                             "%s.tool_calls[%zu].function: name and arguments are strings", what, i);
    }
    m->call = call;
    m->n_call = (int)n;
    return HD_OK;
}

static hd_status read_message(hd_chat_request *q, hd_message *m, const json_t *o, size_t i, hd_api_error *e)
{
    static const struct {
        const char *name, *role;
    } roles[] = {{"system", "system"},       {"developer", "system"}, {"user", "user"},
                 {"assistant", "assistant"}, {"tool", "tool"},        {"function", "tool"}};
    hd_status st;
    char what[64];
    snprintf(what, sizeof what, "messages[%zu]", i);
    if (!json_is_object(o)) return hd_refuse(e, 422, "invalid_type", what, "%s: must be an object", what);
    const char *role = json_string_value(json_object_get(o, "role"));
    for (size_t k = 0; role && k < sizeof roles / sizeof roles[0]; k++)
        if (strcmp(role, roles[k].name) == 0) m->role = roles[k].role;
    if (!m->role)
        return hd_refuse(e, 422, "invalid_value", what,
                         "%s.role: must be system, developer, user, assistant or tool", what);
    const char *thinking = NULL, *other = NULL;
    HD_TRY(hd_field_string(&thinking, o, "reasoning_content", e));
    HD_TRY(hd_field_string(&other, o, "reasoning", e));
    m->thinking = thinking ? thinking : other;
    HD_TRY(read_calls(q, m, json_object_get(o, "tool_calls"), what, e));
    strncat(what, ".content", sizeof what - strlen(what) - 1);
    HD_TRY(hd_field_content(q, &m->text, json_object_get(o, "content"), what, e));
fail:
    return st;
}

static hd_status read_messages(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *list = json_object_get(o, "messages");
    size_t n = json_array_size(list);
    if (list && !json_is_array(list))
        return hd_refuse(e, 422, "invalid_type", "messages", "messages: must be a list");
    if (n == 0) return hd_refuse(e, 400, "missing_field", "messages", "messages: there are none");
    HD_TRY(hd_request_messages(q, n, "messages", e));
    for (size_t i = 0; i < n; i++) HD_TRY(read_message(q, &q->msg[i], json_array_get(list, i), i, e));
    q->n_msg = (int)n;
    HD_TRY(hd_field_bool(&q->prefix, json_array_get(list, n - 1), "prefix", e));
    if (q->prefix && strcmp(q->msg[n - 1].role, "assistant") != 0)
        st = hd_refuse(e, 422, "invalid_value", "prefix",
                       "prefix: only the assistant's last message can be continued");
fail:
    return st;
}

/* The switches of several services: DeepSeek's and Anthropic's `thinking`, Qwen's `enable_thinking`, vLLM's
 * `chat_template_kwargs`. */
static hd_status read_thinking(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *kwargs = json_object_get(o, "chat_template_kwargs"), *t = json_object_get(o, "thinking");
    HD_TRY(hd_field_effort(q, json_object_get(o, "reasoning_effort"), "reasoning_effort", e));
    if (json_is_object(t)) {
        const char *type = json_string_value(json_object_get(t, "type"));
        if (type) q->thinking = strcmp(type, "disabled") != 0;
    }
    const json_t *flags[] = {json_object_get(o, "enable_thinking"),
                             json_object_get(kwargs, "enable_thinking"), json_object_get(kwargs, "thinking")};
    for (int i = 0; i < 3; i++)
        if (json_is_boolean(flags[i])) q->thinking = json_is_true(flags[i]);
fail:
    return st;
}

/* What chat and plain completions have in common. */
static hd_status read_common(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *options = json_object_get(o, "stream_options"), *seed = json_object_get(o, "seed");
    HD_TRY(hd_field_string(&q->model, o, "model", e));
    HD_TRY(hd_fields_read(q, hd_fields_openai, o, "", e));
    HD_TRY(hd_field_bias(q, o, e));
    HD_TRY(hd_field_stop(q, o, "stop", e));
    HD_TRY(hd_field_format(q, json_object_get(o, "response_format"), "response_format", e));
    HD_TRY(hd_field_string(&q->grammar, o, "grammar", e));
    if (q->grammar) q->format = HD_FORMAT_GRAMMAR;
    if (options && !json_is_null(options) && !json_is_object(options))
        HD_TRY(hd_refuse(e, 422, "invalid_type", "stream_options", "stream_options: must be an object"));
    HD_TRY(hd_field_bool(&q->include_usage, options, "include_usage", e));
    if (seed && !json_is_null(seed)) {
        if (!json_is_integer(seed))
            HD_TRY(hd_refuse(e, 422, "invalid_type", "seed", "seed: must be a whole number"));
        q->sample.seed = (uint64_t)json_integer_value(seed);
        q->has_seed = true;
    }
fail:
    return st;
}

static hd_status read_chat(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    bool parallel = true;
    const json_t *top = json_object_get(o, "top_logprobs");
    HD_TRY(read_common(q, o, e));
    HD_TRY(read_messages(q, o, e));
    HD_TRY(read_thinking(q, o, e));
    HD_TRY(hd_field_bool(&q->logprobs, o, "logprobs", e));
    if (top && !json_is_null(top)) {
        if (!json_is_integer(top) || json_integer_value(top) < 0 || json_integer_value(top) > HD_API_MAX_TOP)
            HD_TRY(hd_refuse(e, 422, "invalid_value", "top_logprobs", "top_logprobs: must be from 0 to %d",
                             HD_API_MAX_TOP));
        q->n_top = (int)json_integer_value(top);
        if (q->n_top > 0 && !q->logprobs)
            HD_TRY(hd_refuse(e, 422, "invalid_value", "top_logprobs", "top_logprobs: needs logprobs: true"));
    }
    HD_TRY(hd_field_tools(q, json_object_get(o, "tools"), false, "parameters", e));
    HD_TRY(hd_field_tool_choice(q, json_object_get(o, "tool_choice"), e));
    HD_TRY(hd_field_bool(&parallel, o, "parallel_tool_calls", e));
    q->tools.single = !parallel;
fail:
    return st;
}

static bool is_ids(const json_t *v) { return json_is_array(v) && json_is_integer(json_array_get(v, 0)); }

static hd_status read_prompt(hd_chat_request *q, const json_t *v, hd_api_error *e)
{
    size_t n = json_is_array(v) && !is_ids(v) ? json_array_size(v) : 1;
    if (!v || json_is_null(v)) return hd_refuse(e, 400, "missing_field", "prompt", "prompt: missing");
    if (n == 0 || n > HD_API_MAX_CHOICES)
        return hd_refuse(e, 422, "invalid_value", "prompt", "prompt: a list of 1 to %d", HD_API_MAX_CHOICES);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) && !is_ids(v) ? json_array_get(v, i) : v, *id;
        size_t k;
        q->prompt[i] = json_string_value(one);
        q->prompt_ids[i] = is_ids(one) ? one : NULL;
        if (!q->prompt[i] && !q->prompt_ids[i])
            return hd_refuse(e, 422, "invalid_type", "prompt",
                             "prompt: must be text, token ids or a list of these");
        json_array_foreach((json_t *)q->prompt_ids[i], k, id) if (!json_is_integer(id)) return hd_refuse(
            e, 422, "invalid_type", "prompt", "prompt: token ids are whole numbers");
    }
    q->n_prompt = (int)n;
    return HD_OK;
}

static hd_status read_completion(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *top = json_object_get(o, "logprobs"), *best = json_object_get(o, "best_of");
    HD_TRY(read_common(q, o, e));
    HD_TRY(read_prompt(q, json_object_get(o, "prompt"), e));
    HD_TRY(hd_field_string(&q->suffix, o, "suffix", e));
    HD_TRY(hd_field_bool(&q->echo, o, "echo", e));
    if (q->n_prompt * q->n > HD_API_MAX_CHOICES)
        HD_TRY(hd_refuse(e, 422, "invalid_value", "n", "n: %d prompts times %d are more than %d answers",
                         q->n_prompt, q->n, HD_API_MAX_CHOICES));
    if (json_is_number(best) && json_number_value(best) != q->n)
        HD_TRY(hd_refuse(e, 422, "invalid_value", "best_of", "best_of: must be as n"));
    if (json_is_integer(top)) {
        if (json_integer_value(top) < 0 || json_integer_value(top) > HD_API_MAX_TOP)
            HD_TRY(hd_refuse(e, 422, "invalid_value", "logprobs", "logprobs: must be from 0 to %d",
                             HD_API_MAX_TOP));
        q->logprobs = true;
        q->n_top = (int)json_integer_value(top);
    } else if (top && !json_is_null(top) && !json_is_false(top)) {
        HD_TRY(hd_refuse(e, 422, "invalid_type", "logprobs", "logprobs: must be a whole number"));
    }
    if (q->echo && (q->logprobs || q->prompt_ids[0]))
        HD_TRY(
            hd_refuse(e, 422, "invalid_value", "echo", "echo: not with logprobs, nor for a prompt of ids"));
fail:
    return st;
}

/* ---- Replies ---- */

static const char *finish_reason(const hd_choice *c)
{
    if (c->reason != HD_END_STOP) return "length";
    return c->n_call ? "tool_calls" : "stop";
}

static json_t *head(const hd_writer *w, const char *object, json_t *choices)
{
    return json_pack("{s:o, s:s, s:I, s:s, s:s, s:o}", "id", json_sprintf("%s%s", w->d->id_prefix, w->id),
                     "object", object, "created", (json_int_t)w->created, "model", w->q->model_name,
                     "system_fingerprint", "hadal-" HADAL_VERSION, "choices", choices);
}

static json_t *logprobs_json(hd_choice *c)
{
    json_t *j = json_object();
    if (!c->logprobs && !c->logprobs_thinking) {
        json_decref(j);
        return json_null();
    }
    json_object_set_new(j, "content", c->logprobs ? hd_take(&c->logprobs) : json_array());
    if (c->logprobs_thinking) json_object_set_new(j, "reasoning_content", hd_take(&c->logprobs_thinking));
    return j;
}

static void put_chunk(hd_writer *w, const char *object, json_t *choices, json_t *more)
{
    json_t *j = head(w, object, choices);
    if (j && more) json_object_update(j, more);
    else if (j && w->q->include_usage) json_object_set_new(j, "usage", json_null());
    json_decref(more);
    hd_writer_put(w, "data: ", j, "\n\n");
}

static void put_delta(hd_writer *w, int i, json_t *delta, const char *reason)
{
    hd_choice *c = &w->choice[i];
    if (!c->begun) {
        json_object_set_new(delta, "role", json_string("assistant"));
        if (!json_object_get(delta, "content"))
            json_object_set_new(delta, "content", reason ? json_string("") : json_null());
    }
    c->begun = true;
    json_t *choice = json_pack("{s:i, s:o, s:o, s:o?}", "index", i, "delta", delta, "logprobs",
                               logprobs_json(c), "finish_reason", reason ? json_string(reason) : json_null());
    put_chunk(w, "chat.completion.chunk", json_pack("[o]", choice),
              reason ? json_pack("{s:o}", "timings", hd_timings(w)) : NULL);
}

static void chat_text(hd_writer *w, int i, bool thinking, const char *s, size_t n)
{
    json_t *delta = json_object();
    json_object_set_new(delta, thinking ? "reasoning_content" : "content", hd_text_json(s, n));
    if (thinking && w->reasoning_too) json_object_set_new(delta, "reasoning", hd_text_json(s, n));
    put_delta(w, i, delta, NULL);
}

static void chat_call_begin(hd_writer *w, int i, const hd_call_out *c)
{
    int k = w->choice[i].n_call - 1;
    put_delta(w, i,
              json_pack("{s:[{s:i, s:s, s:s, s:{s:s, s:s}}]}", "tool_calls", "index", k, "id", c->id, "type",
                        "function", "function", "name", c->name, "arguments", ""),
              NULL);
}

static void chat_call_part(hd_writer *w, int i, const hd_call_out *c, const char *s, size_t n)
{
    int k = w->choice[i].n_call - 1;
    put_delta(w, i,
              json_pack("{s:[{s:i, s:{s:o}}]}", "tool_calls", "index", k, "function", "arguments",
                        hd_text_json(s, n)),
              NULL);
}

static void chat_choice_end(hd_writer *w, int i)
{
    put_delta(w, i, json_object(), finish_reason(&w->choice[i]));
}

static void chat_end(hd_writer *w)
{
    if (w->q->include_usage)
        put_chunk(w, "chat.completion.chunk", json_array(),
                  json_pack("{s:o, s:o}", "usage", hd_usage_openai(w), "timings", hd_timings(w)));
    if (w->st == HD_OK) w->st = hd_buf_adds(&w->out, "data: [DONE]\n\n", &w->err);
}

static json_t *chat_message(hd_writer *w, hd_choice *c)
{
    json_t *m = json_pack("{s:s}", "role", "assistant"), *calls = json_array();
    bool silent = c->n_call && !c->text.len;
    json_object_set_new(m, "content", silent ? json_null() : hd_text_json(c->text.data, c->text.len));
    if (c->thinking.len) {
        json_object_set_new(m, "reasoning_content", hd_text_json(c->thinking.data, c->thinking.len));
        if (w->reasoning_too)
            json_object_set_new(m, "reasoning", hd_text_json(c->thinking.data, c->thinking.len));
    }
    for (int k = 0; k < c->n_call; k++)
        json_array_append_new(calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", c->call[k].id, "type",
                                               "function", "function", "name", c->call[k].name, "arguments",
                                               c->call[k].arguments));
    if (c->n_call) json_object_set(m, "tool_calls", calls);
    json_decref(calls);
    return m;
}

static json_t *chat_whole(hd_writer *w)
{
    json_t *choices = json_array();
    for (int i = 0; i < w->n_choice; i++) {
        hd_choice *c = &w->choice[i];
        json_array_append_new(choices,
                              json_pack("{s:i, s:o, s:o, s:s}", "index", i, "message", chat_message(w, c),
                                        "logprobs", logprobs_json(c), "finish_reason", finish_reason(c)));
    }
    json_t *j = head(w, "chat.completion", choices);
    json_object_set_new(j, "usage", hd_usage_openai(w));
    json_object_set_new(j, "timings", hd_timings(w));
    return j;
}

/* ---- Plain completions ---- */

/* The older shape of log-probabilities. */
static json_t *old_logprobs(hd_choice *c)
{
    json_t *tokens = json_array(), *values = json_array(), *tops = json_array(), *x, *y;
    json_t *list = hd_take(&c->logprobs);
    size_t i, k;
    if (!list) {
        json_decref(tokens);
        json_decref(values);
        json_decref(tops);
        return json_null();
    }
    json_array_foreach(list, i, x)
    {
        json_t *top = json_object();
        json_array_append(tokens, json_object_get(x, "token"));
        json_array_append(values, json_object_get(x, "logprob"));
        json_array_foreach(json_object_get(x, "top_logprobs"), k, y) json_object_set(
            top, json_string_value(json_object_get(y, "token")), json_object_get(y, "logprob"));
        json_array_append_new(tops, top);
    }
    json_decref(list);
    return json_pack("{s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", values, "top_logprobs", tops);
}

static void put_completion(hd_writer *w, int i, const char *s, size_t n, const char *reason)
{
    json_t *choice =
        json_pack("{s:i, s:o, s:o, s:o}", "index", i, "text", hd_text_json(s, n), "logprobs",
                  old_logprobs(&w->choice[i]), "finish_reason", reason ? json_string(reason) : json_null());
    put_chunk(w, "text_completion", json_pack("[o]", choice), NULL);
}

static const char *echo_of(const hd_writer *w, int i) { return w->q->echo ? w->q->prompt[i / w->q->n] : ""; }

static void completion_begin(hd_writer *w)
{
    for (int i = 0; i < w->n_choice; i++)
        if (*echo_of(w, i)) put_completion(w, i, echo_of(w, i), strlen(echo_of(w, i)), NULL);
}

static void completion_text(hd_writer *w, int i, bool thinking, const char *s, size_t n)
{
    put_completion(w, i, s, n, NULL);
}

static void completion_choice_end(hd_writer *w, int i)
{
    put_completion(w, i, "", 0, finish_reason(&w->choice[i]));
}

static void completion_end(hd_writer *w)
{
    if (w->q->include_usage)
        put_chunk(w, "text_completion", json_array(), json_pack("{s:o}", "usage", hd_usage_openai(w)));
    if (w->st == HD_OK) w->st = hd_buf_adds(&w->out, "data: [DONE]\n\n", &w->err);
}

static json_t *completion_whole(hd_writer *w)
{
    json_t *choices = json_array();
    for (int i = 0; i < w->n_choice; i++) {
        hd_choice *c = &w->choice[i];
        json_t *all = NULL;
        hd_buf b;
        hd_buf_init(&b, SIZE_MAX);
        if (hd_buf_adds(&b, echo_of(w, i), NULL) == HD_OK &&
            (!c->text.len || hd_buf_add(&b, c->text.data, c->text.len, NULL) == HD_OK))
            all = hd_text_json(b.data, b.len);
        else if (w->st == HD_OK) w->st = hd_fail(&w->err, HD_NOMEM, "reply: no memory");
        hd_buf_free(&b);
        json_array_append_new(choices, json_pack("{s:i, s:o, s:o, s:s}", "index", i, "text", all, "logprobs",
                                                 old_logprobs(c), "finish_reason", finish_reason(c)));
    }
    json_t *j = head(w, "text_completion", choices);
    json_object_set_new(j, "usage", hd_usage_openai(w));
    json_object_set_new(j, "timings", hd_timings(w));
    return j;
}

/* ---- Errors ---- */

static json_t *openai_error(const hd_api_error *e, const char *id)
{
    const char *type = e->http == 401   ? "authentication_error"
                       : e->http == 404 ? "not_found_error"
                       : e->http == 429 ? "rate_limit_error"
                       : e->http >= 500 ? "server_error"
                                        : "invalid_request_error";
    json_t *in = json_pack("{s:s, s:s, s:o, s:s}", "message", e->message, "type", type, "param",
                           *e->param ? json_string(e->param) : json_null(), "code", e->code);
    if (e->n_ctx) {
        json_object_set_new(in, "n_prompt_tokens", json_integer(e->n_prompt));
        json_object_set_new(in, "n_ctx", json_integer(e->n_ctx));
    }
    return json_pack("{s:o}", "error", in);
}

static void openai_stream_error(hd_writer *w, json_t *error) { hd_writer_put(w, "data: ", error, "\n\n"); }

const hd_dialect hd_dialect_chat = {
    .name = "chat",
    .stream_type = "text/event-stream",
    .keep_alive = ": keep-alive\n\n",
    .id_prefix = "chatcmpl-",
    .call_prefix = "call_",
    .read = read_chat,
    .text = chat_text,
    .call_begin = chat_call_begin,
    .call_part = chat_call_part,
    .choice_end = chat_choice_end,
    .end = chat_end,
    .whole = chat_whole,
    .error = openai_error,
    .stream_error = openai_stream_error,
};

const hd_dialect hd_dialect_completion = {
    .name = "completion",
    .stream_type = "text/event-stream",
    .keep_alive = ": keep-alive\n\n",
    .id_prefix = "cmpl-",
    .call_prefix = "call_",
    .read = read_completion,
    .begin = completion_begin,
    .text = completion_text,
    .choice_end = completion_choice_end,
    .end = completion_end,
    .whole = completion_whole,
    .error = openai_error,
    .stream_error = openai_stream_error,
};

/* ---- Handlers ---- */

void hd_api_fail_openai(hd_req *r, int status, const char *code, const char *message)
{
    hd_api_fail(r, &hd_dialect_chat, status, code, message);
}

static void handle_chat(hd_req *r) { hd_api_run(r, &hd_dialect_chat); }
static void handle_completion(hd_req *r) { hd_api_run(r, &hd_dialect_completion); }

/* One entry for OpenAI's, Anthropic's and our own clients at once. */
static json_t *model_json(const hd_server *s, const char *name)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:o, s:I}", "id", name, "object", "model", "created",
                     (json_int_t)s->created, "owned_by", "hadal", "type", "model", "display_name", name,
                     "created_at", hd_time_json(s->created), "max_model_len", (json_int_t)hd_engine_ctx_tok(s->engine));
}

static void handle_models(hd_req *r)
{
    hd_server *s = hd_server_of(r);
    const char *last = s->n_alias ? s->alias[s->n_alias - 1].name : s->model_name;
    json_t *list = json_array();
    json_array_append_new(list, model_json(s, s->model_name));
    for (int i = 0; i < s->n_alias; i++) json_array_append_new(list, model_json(s, s->alias[i].name));
    hd_api_reply(r, 200,
                 json_pack("{s:s, s:o, s:b, s:s, s:s}", "object", "list", "data", list, "has_more", 0,
                           "first_id", s->model_name, "last_id", last));
}

static void handle_model(hd_req *r)
{
    hd_server *s = hd_server_of(r);
    hd_chat_request q = {.model = hd_req_param(r)};
    hd_api_error e = {0};
    if (hd_api_choose_model(&q, s, &e) == HD_OK) hd_api_reply(r, 200, model_json(s, q.model_name));
    else hd_api_refuse(r, &hd_dialect_chat, &e);
}

static hd_status tokenize(hd_ids *ids, hd_chat_request *q, const json_t *o, const hd_server *s,
                          hd_api_error *e)
{
    hd_status st;
    hd_err err = {0};
    bool special = false;
    const char *text = NULL;
    if (json_object_get(o, "messages")) {
        HD_TRY(read_messages(q, o, e));
        HD_TRY(hd_field_tools(q, json_object_get(o, "tools"), false, "parameters", e));
        HD_TRY(hd_api_prompt(ids, q, s, 0, e));
        return HD_OK;
    }
    HD_TRY(hd_field_string(&text, o, "prompt", e));
    HD_TRY(hd_field_string(&text, o, "content", e));
    HD_TRY(hd_field_bool(&special, o, "add_special", e));
    HD_TRY(hd_field_bool(&special, o, "add_special_tokens", e));
    if (!text)
        HD_TRY(hd_refuse(e, 400, "missing_field", "content", "content: missing (or prompt, or messages)"));
    st = HD_OK;
    if (special && hd_tokenizer_adds_bos(s->tok)) st = hd_ids_add(ids, hd_tokenizer_bos(s->tok), &err);
    if (st == HD_OK) st = hd_tokenizer_encode(s->tok, text, strlen(text), ids, &err);
    if (st != HD_OK) st = hd_refuse_for(e, &err, "content");
fail:
    return st;
}

static hd_status tokens(json_t **out, const char *body, size_t n, const hd_server *s, hd_api_error *e)
{
    hd_status st;
    hd_chat_request q;
    hd_ids ids = {0};
    hd_chat_request_open(&q, &hd_dialect_chat, &(hd_sample_opts){0});
    HD_TRY(hd_api_json(&q.body, body, n, e));
    HD_TRY(tokenize(&ids, &q, q.body, s, e));
    json_t *list = json_array();
    for (int64_t i = 0; i < ids.n; i++) json_array_append_new(list, json_integer(ids.id[i]));
    *out = json_pack("{s:o, s:I, s:I}", "tokens", list, "count", (json_int_t)ids.n, "max_model_len",
                     (json_int_t)hd_engine_ctx_tok(s->engine));
fail:
    hd_ids_free(&ids);
    hd_chat_request_close(&q);
    return st;
}

static void handle_tokenize(hd_req *r) { hd_api_aside(r, &hd_dialect_chat, tokens); }

static void handle_embeddings(hd_req *r)
{
    hd_api_fail_openai(r, 501, "not_supported", "this server generates text; it has no embeddings");
}

const hd_route hd_routes_openai[] = {
    {"POST", "/chat/completions", HD_RIGHT_API, HD_API_MAX_BODY, handle_chat, hd_api_fail_openai, true},
    {"POST", "/completions", HD_RIGHT_API, HD_API_MAX_BODY, handle_completion, hd_api_fail_openai, true},
    {"GET", "/models", HD_RIGHT_API, 0, handle_models, hd_api_fail_openai, true},
    {"GET", "/models/{id}", HD_RIGHT_API, 0, handle_model, hd_api_fail_openai, true},
    {"POST", "/tokenize", HD_RIGHT_API, 1 << 20, handle_tokenize, hd_api_fail_openai, true},
    {"POST", "/embeddings", HD_RIGHT_API, HD_API_MAX_BODY, handle_embeddings, hd_api_fail_openai, true},
    {0},
};
