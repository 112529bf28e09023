/* Anthropic's dialect: /v1/messages and /v1/messages/count_tokens.
 *
 * A reply is a list of blocks: thinking, text, tool_use.  A stream says for each: content_block_start,
 * deltas, content_block_stop; around all of them message_start, message_delta (why it ended, and the
 * usage), message_stop. */
#include <string.h>

#include "serve/api.h"

/* ---- Requests ---- */

/* A message may hold answers of tools and words at once: each answer becomes a message of its own,
 * before the words. */
typedef struct {
    hd_chat_request *q;
    const char *role, *what;
    hd_message *m; // of the words, calls and thoughts
    hd_call *call;
    hd_buf text;
} blocks;

static hd_status one_block(blocks *b, const json_t *o, hd_api_error *e)
{
    hd_chat_request *q = b->q;
    const char *type = json_string_value(json_object_get(o, "type")), *text = NULL;
    hd_status st = HD_OK;
    if (type && strcmp(type, "text") == 0) {
        HD_TRY(hd_field_string(&text, o, "text", e));
        if (!text)
            HD_TRY(hd_refuse(e, 422, "invalid_type", b->what, "%s: a text block without text", b->what));
        if (hd_buf_adds(&b->text, text, NULL) != HD_OK) HD_TRY(hd_refuse_nomem(e));
    } else if (type && strcmp(type, "thinking") == 0) {
        HD_TRY(hd_field_string(&b->m->thinking, o, "thinking", e));
    } else if (type && strcmp(type, "redacted_thinking") == 0) {
        return HD_OK;
    } else if (type && strcmp(type, "tool_use") == 0) {
        const char *name = json_string_value(json_object_get(o, "name"));
        const json_t *input = json_object_get(o, "input");
        char *args = json_is_object(input) ? json_dumps(input, 0) : NULL;
        hd_call *c = &b->call[b->m->n_call];
        c->name = name;
        c->arguments = args ? hd_keep_text(&q->keep, args, strlen(args)) : NULL;
        free(args);
        if (!name || !c->arguments)
            HD_TRY(hd_refuse(e, 422, "invalid_type", b->what, "%s: tool_use needs a name and an input object",
                             b->what));
        b->m->call = b->call;
        b->m->n_call++;
    } else if (type && strcmp(type, "tool_result") == 0) {
        hd_message *answer = &q->msg[q->n_msg++];
        answer->role = "tool";
        HD_TRY(hd_field_content(q, &answer->text, json_object_get(o, "content"), b->what, e));
    } else {
        st = hd_refuse(e, 422, "unsupported_content", b->what,
                       "%s: a block of type '%.40s': only text, thinking and tools can be read", b->what,
                       type ? type : "(none)");
    }
fail:
    return st;
}

static hd_status read_message(hd_chat_request *q, const json_t *o, size_t i, hd_api_error *e)
{
    hd_status st = HD_OK;
    char what[64];
    size_t k;
    json_t *x;
    hd_message words = {0};
    blocks b = {.q = q, .what = what, .m = &words};
    const json_t *content = json_object_get(o, "content");
    const char *role = json_string_value(json_object_get(o, "role"));
    hd_buf_init(&b.text, HD_API_MAX_BODY);
    snprintf(what, sizeof what, "messages[%zu]", i);
    bool known =
        role && (strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0 || strcmp(role, "system") == 0);
    if (!known) HD_TRY(hd_refuse(e, 422, "invalid_value", what, "%s.role: must be user or assistant", what));
    words.role = role;
    if (json_is_array(content)) {
        b.call = hd_keep_alloc(&q->keep, (json_array_size(content) + 1) * sizeof *b.call);
        if (!b.call) HD_TRY(hd_refuse_nomem(e));
        int before = q->n_msg;
        json_array_foreach((json_t *)content, k, x) HD_TRY(one_block(&b, x, e));
        bool empty = !b.text.len && !words.n_call && !words.thinking;
        if (empty && q->n_msg > before) goto fail; // answers of tools alone
        words.text = hd_keep_text(&q->keep, b.text.data, b.text.len);
        if (!words.text) HD_TRY(hd_refuse_nomem(e));
    } else {
        if (!json_is_string(content))
            HD_TRY(hd_refuse(e, 422, "invalid_type", what, "%s.content: must be a string or a list of blocks",
                             what));
        words.text = json_string_value(content);
    }
    q->msg[q->n_msg++] = words;
fail:
    hd_buf_free(&b.text);
    return st;
}

static hd_status read_messages(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *list = json_object_get(o, "messages"), *system = json_object_get(o, "system");
    size_t n = json_array_size(list), room = n + 2;
    if (list && !json_is_array(list))
        return hd_refuse(e, 422, "invalid_type", "messages", "messages: must be a list");
    if (n == 0) return hd_refuse(e, 400, "missing_field", "messages", "messages: there are none");
    for (size_t i = 0; i < n; i++)
        room += json_array_size(json_object_get(json_array_get(list, i), "content"));
    HD_TRY(hd_request_messages(q, room, "messages", e));
    if (system && !json_is_null(system)) {
        q->msg[0].role = "system";
        HD_TRY(hd_field_content(q, &q->msg[0].text, system, "system", e));
        q->n_msg = *q->msg[0].text != 0;
    }
    for (size_t i = 0; i < n; i++) HD_TRY(read_message(q, json_array_get(list, i), i, e));
    q->prefix = strcmp(q->msg[q->n_msg - 1].role, "assistant") == 0; // its last words are continued
fail:
    return st;
}

static hd_status read_thinking(hd_chat_request *q, const json_t *v, hd_api_error *e)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *budget = json_object_get(v, "budget_tokens");
    q->thinking_otherwise = 0; // who does not ask for thoughts gets none
    if (!v || json_is_null(v)) return HD_OK;
    if (!type ||
        (strcmp(type, "enabled") != 0 && strcmp(type, "disabled") != 0 && strcmp(type, "adaptive") != 0))
        return hd_refuse(e, 422, "invalid_value", "thinking",
                         "thinking.type: must be enabled, disabled or adaptive");
    q->thinking = strcmp(type, "disabled") != 0;
    if (!budget || json_is_null(budget)) return HD_OK;
    if (!json_is_integer(budget) || json_integer_value(budget) < 1)
        return hd_refuse(e, 422, "invalid_value", "thinking",
                         "thinking.budget_tokens: must be a whole number above 0");
    q->limit_thinking = q->thinking == 1;
    q->think_tok = json_integer_value(budget);
    return HD_OK;
}

static hd_status read_tool_choice(hd_chat_request *q, const json_t *v, hd_api_error *e)
{
    static const struct {
        const char *name;
        hd_tool_choice choice;
    } known[] = {{"auto", HD_TOOLS_AUTO}, {"none", HD_TOOLS_NONE}, {"any", HD_TOOLS_REQUIRED}, {"tool", HD_TOOLS_NAMED}};
    const char *type = json_string_value(json_object_get(v, "type"));
    bool single = false;
    if (!v || json_is_null(v)) return HD_OK;
    if (!type) return hd_refuse(e, 422, "invalid_value", "tool_choice", "tool_choice.type: missing");
    hd_status st = hd_field_bool(&single, v, "disable_parallel_tool_use", e);
    q->tools.single = single;
    if (st != HD_OK) return st;
    for (int i = 0; i < 4; i++)
        if (strcmp(type, known[i].name) == 0)
            return hd_field_tool_chosen(q, known[i].choice, json_string_value(json_object_get(v, "name")), e);
    return hd_refuse(e, 422, "invalid_value", "tool_choice", "tool_choice.type: must be auto, any, tool or none");
}

static hd_status read_request(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    HD_TRY(hd_field_string(&q->model, o, "model", e));
    HD_TRY(hd_fields_read(q, hd_fields_anthropic, o, "", e));
    HD_TRY(hd_field_stop(q, o, "stop_sequences", e));
    HD_TRY(read_messages(q, o, e));
    HD_TRY(read_thinking(q, json_object_get(o, "thinking"), e));
    HD_TRY(hd_field_tools(q, json_object_get(o, "tools"), true, "input_schema", e));
    HD_TRY(read_tool_choice(q, json_object_get(o, "tool_choice"), e));
    const json_t *format = json_object_get(o, "output_format");
    if (!format) format = json_object_get(json_object_get(o, "output_config"), "format");
    HD_TRY(hd_field_format(q, format, "output_format", e));
fail:
    return st;
}

/* ---- Replies ---- */

static void put_event(hd_writer *w, const char *type, json_t *j)
{
    char before[64];
    snprintf(before, sizeof before, "event: %s\ndata: ", type);
    if (j) json_object_set_new(j, "type", json_string(type));
    hd_writer_put(w, before, j, "\n\n");
}

static json_t *usage(const hd_writer *w)
{
    int64_t out = 0;
    for (int i = 0; i < w->n_choice; i++) out += w->choice[i].gen_tok;
    return json_pack("{s:I, s:I, s:I, s:I}", "input_tokens", (json_int_t)(w->prompt_tok - w->cached_tok),
                     "cache_creation_input_tokens", (json_int_t)0, "cache_read_input_tokens",
                     (json_int_t)w->cached_tok, "output_tokens", (json_int_t)out);
}

static json_t *message(const hd_writer *w, json_t *content, json_t *why, json_t *sequence)
{
    return json_pack("{s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "id", json_sprintf("msg_%s", w->id), "type",
                     "message", "role", "assistant", "model", w->q->model_name, "content", content,
                     "stop_reason", why, "stop_sequence", sequence, "usage", usage(w));
}

static json_t *stop_reason(const hd_choice *c)
{
    if (c->reason != HD_END_STOP) return json_string("max_tokens");
    if (c->n_call) return json_string("tool_use");
    return json_string(c->stop_string ? "stop_sequence" : "end_turn");
}

static json_t *stop_sequence(const hd_choice *c)
{
    return c->stop_string && !c->n_call ? json_string(c->stop_string) : json_null();
}

static void begin(hd_writer *w)
{
    put_event(w, "message_start",
              json_pack("{s:o}", "message", message(w, json_array(), json_null(), json_null())));
}

static void end_block(hd_writer *w)
{
    if (!w->block_kind) return;
    if (w->block_kind == 't')
        put_event(w, "content_block_delta",
                  json_pack("{s:i, s:{s:s, s:s}}", "index", w->block, "delta", "type", "signature_delta",
                            "signature", ""));
    put_event(w, "content_block_stop", json_pack("{s:i}", "index", w->block));
    w->block++;
    w->block_kind = 0;
}

static void start_block(hd_writer *w, char kind, json_t *block)
{
    end_block(w);
    w->block_kind = kind;
    put_event(w, "content_block_start", json_pack("{s:i, s:o}", "index", w->block, "content_block", block));
}

static void text(hd_writer *w, int i, bool thinking, const char *s, size_t n)
{
    char kind = thinking ? 't' : 'a';
    if (w->block_kind != kind)
        start_block(w, kind,
                    thinking
                        ? json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", "")
                        : json_pack("{s:s, s:s}", "type", "text", "text", ""));
    put_event(w, "content_block_delta",
              json_pack("{s:i, s:{s:s, s:o}}", "index", w->block, "delta", "type",
                        thinking ? "thinking_delta" : "text_delta", thinking ? "thinking" : "text",
                        hd_text_json(s, n)));
}

static void call_begin(hd_writer *w, int i, const hd_call_out *c)
{
    start_block(
        w, 'c',
        json_pack("{s:s, s:s, s:s, s:{}}", "type", "tool_use", "id", c->id, "name", c->name, "input"));
}

static void call_part(hd_writer *w, int i, const hd_call_out *c, const char *s, size_t n)
{
    put_event(w, "content_block_delta",
              json_pack("{s:i, s:{s:s, s:o}}", "index", w->block, "delta", "type", "input_json_delta",
                        "partial_json", hd_text_json(s, n)));
}

static void call_end(hd_writer *w, int i, const hd_call_out *c) { end_block(w); }

static void end(hd_writer *w)
{
    const hd_choice *c = &w->choice[0];
    end_block(w);
    put_event(w, "message_delta",
              json_pack("{s:{s:o, s:o}, s:o}", "delta", "stop_reason", stop_reason(c), "stop_sequence",
                        stop_sequence(c), "usage", usage(w)));
    put_event(w, "message_stop", json_object());
}

static json_t *whole(hd_writer *w)
{
    hd_choice *c = &w->choice[0];
    json_t *content = json_array();
    if (c->thinking.len)
        json_array_append_new(content,
                              json_pack("{s:s, s:o, s:s}", "type", "thinking", "thinking",
                                        hd_text_json(c->thinking.data, c->thinking.len), "signature", ""));
    if (c->text.len || !c->n_call)
        json_array_append_new(content, json_pack("{s:s, s:o}", "type", "text", "text",
                                                 hd_text_json(c->text.data, c->text.len)));
    for (int k = 0; k < c->n_call; k++)
        json_array_append_new(content, json_pack("{s:s, s:s, s:s, s:o}", "type", "tool_use", "id", c->call[k].id, "name",
                                                 c->call[k].name, "input", hd_call_object(&c->call[k])));
    return message(w, content, stop_reason(c), stop_sequence(c));
}

static json_t *error(const hd_api_error *e, const char *id)
{
    const char *type = e->http == 401   ? "authentication_error"
                       : e->http == 403 ? "permission_error"
                       : e->http == 404 ? "not_found_error"
                       : e->http == 413 ? "request_too_large"
                       : e->http == 429 ? "rate_limit_error"
                       : e->http == 503 ? "overloaded_error"
                       : e->http >= 500 ? "api_error"
                                        : "invalid_request_error";
    return json_pack("{s:s, s:{s:s, s:s}, s:s}", "type", "error", "error", "type", type, "message",
                     e->message, "request_id", id ? id : "");
}

static void stream_error(hd_writer *w, json_t *j) { hd_writer_put(w, "event: error\ndata: ", j, "\n\n"); }

const hd_dialect hd_dialect_anthropic = {
    .name = "anthropic",
    .stream_type = "text/event-stream",
    .keep_alive = "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    .id_prefix = "msg_",
    .call_prefix = "toolu_",
    .read = read_request,
    .begin = begin,
    .text = text,
    .call_begin = call_begin,
    .call_part = call_part,
    .call_end = call_end,
    .end = end,
    .whole = whole,
    .error = error,
    .stream_error = stream_error,
};

/* ---- Handlers ---- */

void hd_api_fail_anthropic(hd_req *r, int status, const char *code, const char *message)
{
    hd_api_fail(r, &hd_dialect_anthropic, status, code, message);
}

static void handle_messages(hd_req *r) { hd_api_run(r, &hd_dialect_anthropic); }

static hd_status count(json_t **out, const char *body, size_t n, const hd_server *s, hd_api_error *e)
{
    hd_status st;
    hd_chat_request q;
    hd_ids ids = {0};
    hd_chat_request_open(&q, &hd_dialect_anthropic, &(hd_sample_opts){0});
    HD_TRY(hd_chat_request_read(&q, body, n, e));
    HD_TRY(hd_api_choose_model(&q, s, e));
    HD_TRY(hd_api_prompt(&ids, &q, s, 0, e));
    *out = json_pack("{s:I}", "input_tokens", (json_int_t)ids.n);
fail:
    hd_ids_free(&ids);
    hd_chat_request_close(&q);
    return st;
}

static void handle_count(hd_req *r) { hd_api_aside(r, &hd_dialect_anthropic, count); }

const hd_route hd_routes_anthropic[] = {
    {"POST", "/messages", HD_RIGHT_API, HD_API_MAX_BODY, handle_messages, hd_api_fail_anthropic, true},
    {"POST", "/messages/count_tokens", HD_RIGHT_API, HD_API_MAX_BODY, handle_count, hd_api_fail_anthropic,
     true},
    {0},
};
