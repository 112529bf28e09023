/* OpenAI's Responses dialect: /v1/responses, stateless: nothing is stored, so that there is no previous
 * response to go on from; a client sends the whole conversation.
 *
 * A reply is a list of items: reasoning, message, function_call.  A stream tells of each as it grows, with
 * numbered events:
 *
 *   response.created, response.in_progress
 *   response.output_item.added, response.content_part.added, ...delta, ...done, response.content_part.done,
 *   response.output_item.done                                                                     for each item
 *   response.completed (or .incomplete, .failed) */
#include <string.h>

#include "serve/api.h"

/* ---- Requests ---- */

static hd_status read_call(hd_chat_request *q, const json_t *o, const char *what, hd_api_error *e)
{
    hd_message *last = q->n_msg ? &q->msg[q->n_msg - 1] : NULL;
    hd_call *call = hd_keep_alloc(&q->keep, (size_t)(last ? last->n_call + 1 : 1) * sizeof *call);
    if (!call) return hd_refuse_nomem(e);
    if (!last || strcmp(last->role, "assistant") != 0) { // calls follow the words they were said with
        last = &q->msg[q->n_msg++];
        *last = (hd_message){.role = "assistant", .text = ""};
    }
    if (last->n_call) memcpy(call, last->call, (size_t)last->n_call * sizeof *call);
    hd_call *c = &call[last->n_call];
    c->name = json_string_value(json_object_get(o, "name"));
    c->arguments = json_string_value(json_object_get(o, "arguments"));
    if (!c->name || !c->arguments)
        return hd_refuse(e, 422, "invalid_type", what, "%s: name and arguments are strings", what);
    last->call = call;
    last->n_call++;
    return HD_OK;
}

static hd_status read_item(hd_chat_request *q, const json_t *o, size_t i, hd_api_error *e)
{
    static const char *const roles[][2] = {
        {"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}};
    char what[64];
    hd_message *m = &q->msg[q->n_msg];
    const char *type = json_string_value(json_object_get(o, "type")),
               *role = json_string_value(json_object_get(o, "role"));
    snprintf(what, sizeof what, "input[%zu]", i);
    if (!json_is_object(o)) return hd_refuse(e, 422, "invalid_type", what, "%s: must be an object", what);
    if (type && strcmp(type, "reasoning") == 0) return HD_OK;
    if (type && strcmp(type, "function_call") == 0) return read_call(q, o, what, e);
    if (type && strcmp(type, "function_call_output") == 0) {
        m->role = "tool";
        q->n_msg++;
        return hd_field_content(q, &m->text, json_object_get(o, "output"), what, e);
    }
    if (type && strcmp(type, "message") != 0)
        return hd_refuse(e, 422, "unsupported_content", what, "%s: items of type '%.40s' cannot be read",
                         what, type);
    for (int k = 0; role && k < 4; k++)
        if (strcmp(role, roles[k][0]) == 0) m->role = roles[k][1];
    if (!m->role)
        return hd_refuse(e, 422, "invalid_value", what,
                         "%s.role: must be system, developer, user or assistant", what);
    q->n_msg++;
    return hd_field_content(q, &m->text, json_object_get(o, "content"), what, e);
}

static hd_status read_input(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    const json_t *input = json_object_get(o, "input");
    const char *instructions = NULL;
    size_t n = json_array_size(input);
    HD_TRY(hd_field_string(&instructions, o, "instructions", e));
    if (!json_is_string(input) && n == 0)
        HD_TRY(hd_refuse(e, 400, "missing_field", "input", "input: there is none"));
    HD_TRY(hd_request_messages(q, n + 2, "input", e));
    if (instructions && *instructions)
        q->msg[q->n_msg++] = (hd_message){.role = "system", .text = instructions};
    if (json_is_string(input))
        q->msg[q->n_msg++] = (hd_message){.role = "user", .text = json_string_value(input)};
    for (size_t i = 0; i < n; i++) HD_TRY(read_item(q, json_array_get(input, i), i, e));
    if (q->n_msg == 0) st = hd_refuse(e, 400, "missing_field", "input", "input: there is nothing to answer");
fail:
    return st;
}

static hd_status read_request(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    hd_status st;
    bool parallel = true;
    const json_t *previous = json_object_get(o, "previous_response_id");
    HD_TRY(hd_field_string(&q->model, o, "model", e));
    HD_TRY(hd_fields_read(q, hd_fields_responses, o, "", e));
    if (previous && !json_is_null(previous))
        HD_TRY(
            hd_refuse(e, 422, "unsupported", "previous_response_id",
                      "previous_response_id: nothing is stored here; send the whole conversation as input"));
    HD_TRY(read_input(q, o, e));
    HD_TRY(hd_field_effort(q, json_object_get(json_object_get(o, "reasoning"), "effort"), "reasoning.effort",
                           e));
    HD_TRY(hd_field_format(q, json_object_get(json_object_get(o, "text"), "format"), "text.format", e));
    HD_TRY(hd_field_tools(q, json_object_get(o, "tools"), true, "parameters", e));
    HD_TRY(hd_field_tool_choice(q, json_object_get(o, "tool_choice"), e));
    HD_TRY(hd_field_bool(&parallel, o, "parallel_tool_calls", e));
    q->tools.single = !parallel;
fail:
    return st;
}

/* ---- Items ---- */

static json_t *item_id(const hd_writer *w, const char *kind, int i)
{
    return json_sprintf("%s_%s_%d", kind, w->id, i);
}

static json_t *text_part(const char *s, size_t n)
{
    return json_pack("{s:s, s:o, s:[]}", "type", "output_text", "text", hd_text_json(s, n), "annotations");
}

static json_t *message_item(const hd_writer *w, int i, const char *status, json_t *content)
{
    return json_pack("{s:s, s:o, s:s, s:s, s:o}", "type", "message", "id", item_id(w, "msg", i), "status",
                     status, "role", "assistant", "content", content);
}

static json_t *reasoning_item(const hd_writer *w, int i, json_t *content)
{
    return json_pack("{s:s, s:o, s:[], s:o}", "type", "reasoning", "id", item_id(w, "rs", i), "summary",
                     "content", content);
}

static json_t *thought_part(const char *s, size_t n)
{
    return json_pack("{s:s, s:o}", "type", "reasoning_text", "text", hd_text_json(s, n));
}

static json_t *call_item(const hd_writer *w, int i, const hd_call_out *c, bool done)
{
    return json_pack("{s:s, s:o, s:s, s:s, s:s, s:s}", "type", "function_call", "id", item_id(w, "fc", i),
                     "call_id", c->id, "name", c->name, "arguments", done ? c->arguments : "", "status",
                     done ? "completed" : "in_progress");
}

/* ---- Replies ---- */

static const char *status_of(const hd_writer *w)
{
    if (w->failed) return "failed";
    return w->choice[0].reason == HD_END_STOP ? "completed" : "incomplete";
}

static json_t *output(const hd_writer *w)
{
    const hd_choice *c = &w->choice[0];
    json_t *list = json_array();
    int i = 0;
    if (c->thinking.len)
        json_array_append_new(
            list, reasoning_item(w, i++, json_pack("[o]", thought_part(c->thinking.data, c->thinking.len))));
    if (c->text.len || !c->n_call)
        json_array_append_new(
            list, message_item(w, i++, status_of(w), json_pack("[o]", text_part(c->text.data, c->text.len))));
    for (int k = 0; k < c->n_call; k++) json_array_append_new(list, call_item(w, i++, &c->call[k], true));
    return list;
}

static json_t *usage(const hd_writer *w)
{
    const hd_choice *c = &w->choice[0];
    return json_pack("{s:I, s:{s:I}, s:I, s:{s:I}, s:I}", "input_tokens", (json_int_t)w->prompt_tok,
                     "input_tokens_details", "cached_tokens", (json_int_t)w->cached_tok, "output_tokens",
                     (json_int_t)c->gen_tok, "output_tokens_details", "reasoning_tokens",
                     (json_int_t)c->thinking_tok, "total_tokens", (json_int_t)(w->prompt_tok + c->gen_tok));
}

static const json_t *of_request(const hd_writer *w, const char *name)
{
    return json_object_get(w->q->body, name);
}

/* The response as a whole; status "in_progress": nothing of it is there yet. */
static json_t *response(const hd_writer *w, const char *status)
{
    bool going = strcmp(status, "in_progress") == 0;
    const json_t *tools = of_request(w, "tools"), *choice = of_request(w, "tool_choice"),
                 *told = of_request(w, "instructions");
    json_t *incomplete =
        strcmp(status, "incomplete") == 0 ? json_pack("{s:s}", "reason", "max_output_tokens") : json_null();
    json_t *j =
        json_pack("{s:o, s:s, s:I, s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:b, s:f, s:f}", "id",
                  json_sprintf("resp_%s", w->id), "object", "response", "created_at", (json_int_t)w->created,
                  "status", status, "model", w->q->model_name, "output", going ? json_array() : output(w),
                  "usage", going ? json_null() : usage(w), "error", json_null(), "incomplete_details",
                  incomplete, "store", 0, "parallel_tool_calls", !w->q->tools.single, "temperature",
                  (double)w->q->sample.temperature, "top_p", (double)w->q->sample.top_p);
    if (!j) return NULL;
    json_object_set_new(j, "tools", json_is_array(tools) ? json_deep_copy(tools) : json_array());
    json_object_set_new(j, "tool_choice",
                        choice && !json_is_null(choice) ? json_deep_copy(choice) : json_string("auto"));
    json_object_set_new(j, "instructions", told ? json_deep_copy(told) : json_null());
    json_object_set_new(j, "previous_response_id", json_null());
    json_object_set_new(j, "metadata", json_object());
    return j;
}

/* ---- The stream ---- */

static void put_event(hd_writer *w, const char *type, json_t *j)
{
    char before[80];
    snprintf(before, sizeof before, "event: %s\ndata: ", type);
    if (j) {
        json_object_set_new(j, "type", json_string(type));
        json_object_set_new(j, "sequence_number", json_integer(w->seq++));
    }
    hd_writer_put(w, before, j, "\n\n");
}

static void begin(hd_writer *w)
{
    put_event(w, "response.created", json_pack("{s:o}", "response", response(w, "in_progress")));
    put_event(w, "response.in_progress", json_pack("{s:o}", "response", response(w, "in_progress")));
}

static json_t *place(const hd_writer *w)
{
    const char *kind = w->block_kind == 't' ? "rs" : "msg";
    return json_pack("{s:o, s:i, s:i}", "item_id", item_id(w, kind, w->item), "output_index", w->item,
                     "content_index", 0);
}

static json_t *with(json_t *j, const char *key, json_t *v)
{
    if (j) json_object_set_new(j, key, v);
    else json_decref(v);
    return j;
}

static void end_item(hd_writer *w)
{
    const hd_choice *c = &w->choice[0];
    if (!w->block_kind) return;
    bool thought = w->block_kind == 't';
    const hd_buf *b = thought ? &c->thinking : &c->text;
    const char *s = b->data + w->block; // where this item's text begins
    size_t n = b->len - (size_t)w->block;
    json_t *part = thought ? thought_part(s, n) : text_part(s, n);
    json_t *item = thought ? reasoning_item(w, w->item, json_pack("[O]", part))
                           : message_item(w, w->item, "completed", json_pack("[O]", part));
    put_event(w, thought ? "response.reasoning_text.done" : "response.output_text.done",
              with(place(w), "text", hd_text_json(s, n)));
    put_event(w, "response.content_part.done", with(place(w), "part", part));
    put_event(w, "response.output_item.done", json_pack("{s:i, s:o}", "output_index", w->item, "item", item));
    w->item++;
    w->block_kind = 0;
}

static void text(hd_writer *w, int i, bool thinking, const char *s, size_t n)
{
    char kind = thinking ? 't' : 'a';
    if (w->block_kind != kind) {
        end_item(w);
        const hd_buf *b = thinking ? &w->choice[0].thinking : &w->choice[0].text;
        w->block_kind = kind;
        w->block = (int)(b->len - n);
        json_t *item = thinking ? reasoning_item(w, w->item, json_array())
                                : message_item(w, w->item, "in_progress", json_array());
        put_event(w, "response.output_item.added",
                  json_pack("{s:i, s:o}", "output_index", w->item, "item", item));
        put_event(w, "response.content_part.added",
                  with(place(w), "part", thinking ? thought_part("", 0) : text_part("", 0)));
    }
    json_t *j = with(place(w), "delta", hd_text_json(s, n));
    put_event(w, thinking ? "response.reasoning_text.delta" : "response.output_text.delta",
              thinking ? j : with(j, "logprobs", json_array()));
}

static json_t *call_place(const hd_writer *w)
{
    return json_pack("{s:o, s:i}", "item_id", item_id(w, "fc", w->item), "output_index", w->item);
}

static void call_begin(hd_writer *w, int i, const hd_call_out *c)
{
    end_item(w);
    put_event(w, "response.output_item.added",
              json_pack("{s:i, s:o}", "output_index", w->item, "item", call_item(w, w->item, c, false)));
}

static void call_part(hd_writer *w, int i, const hd_call_out *c, const char *s, size_t n)
{
    put_event(w, "response.function_call_arguments.delta", with(call_place(w), "delta", hd_text_json(s, n)));
}

static void call_end(hd_writer *w, int i, const hd_call_out *c)
{
    put_event(
        w, "response.function_call_arguments.done",
        with(with(call_place(w), "arguments", json_string(c->arguments)), "name", json_string(c->name)));
    put_event(w, "response.output_item.done",
              json_pack("{s:i, s:o}", "output_index", w->item, "item", call_item(w, w->item, c, true)));
    w->item++;
}

static void end(hd_writer *w)
{
    char type[40];
    if (!w->choice[0].text.len && !w->choice[0].n_call && !w->block_kind)
        text(w, 0, false, "", 0); // an empty answer is one, too
    end_item(w);
    snprintf(type, sizeof type, "response.%s", status_of(w));
    put_event(w, type, json_pack("{s:o}", "response", response(w, status_of(w))));
}

static json_t *whole(hd_writer *w) { return response(w, status_of(w)); }

static json_t *error(const hd_api_error *e, const char *id) { return hd_dialect_chat.error(e, id); }

static void stream_error(hd_writer *w, json_t *j)
{
    json_t *in = json_object_get(j, "error");
    json_t *r = response(w, "failed");
    json_object_set_new(
        r, "error",
        json_pack("{s:s, s:O}", "code", "server_error", "message", json_object_get(in, "message")));
    put_event(w, "response.failed", json_pack("{s:o}", "response", r));
    json_decref(j);
}

const hd_dialect hd_dialect_responses = {
    .name = "responses",
    .stream_type = "text/event-stream",
    .keep_alive = ": keep-alive\n\n",
    .id_prefix = "resp_",
    .call_prefix = "call_",
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

static void handle_responses(hd_req *r) { hd_api_run(r, &hd_dialect_responses); }

const hd_route hd_routes_responses[] = {
    {"POST", "/responses", HD_RIGHT_API, HD_API_MAX_BODY, handle_responses, hd_api_fail_openai, true},
    {0},
};
