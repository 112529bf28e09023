/* See chat_data.h.  The masks are the chat formats' own (model/chat_formats.c); here lines of JSON
 * become messages. */
#include "train/chat_data.h"

#include <string.h>

#include "model/chat_parts.h"
#include "model/json.h"

enum { MAX_VALUES = 1 << 20, MAX_CALLS = 64 };

typedef struct {
    hd_msg *msg;
    hd_call (*call)[MAX_CALLS]; // of each message; NULL: no message has any
    char **text;                // arguments written out, [n_text], ours
    int n, n_text;
} conversation;

static void conversation_free(conversation *c)
{
    for (int i = 0; i < c->n_text; i++) free(c->text[i]);
    free(c->text);
    free(c->call);
    free(c->msg);
    *c = (conversation){0};
}

/* ---- Messages ---- */

/* {"function": {"name", "arguments"}} or the inner object alone; arguments: JSON text, or an object
 * that is written out. */
static hd_status read_calls(conversation *c, hd_msg *m, const json_t *list, int i, hd_err *err)
{
    hd_status st = HD_OK;
    size_t n = json_array_size(list), k;
    json_t *v;
    if (!list || json_is_null(list) || (json_is_array(list) && n == 0)) return HD_OK;
    if (!json_is_array(list) || n > MAX_CALLS)
        return hd_fail(err, HD_FORMAT, "message %d: tool_calls is no list of at most %d", i, MAX_CALLS);
    if (!c->call) HD_TRY(hd_alloc_n(&c->call, (size_t)c->n, sizeof *c->call, err));
    HD_TRY(hd_realloc(&c->text, ((size_t)c->n_text + n) * sizeof *c->text, err));
    json_array_foreach(list, k, v)
    {
        const json_t *f = json_object_get(v, "function"), *arguments;
        if (!f) f = v;
        const char *name = json_string_value(json_object_get(f, "name"));
        arguments = json_object_get(f, "arguments");
        const char *text = json_string_value(arguments);
        if (!name || (!text && !json_is_object(arguments)))
            HD_TRY(hd_fail(err, HD_FORMAT, "message %d: call %zu has no name or no arguments", i, k));
        if (!text) {
            char *written = json_dumps(arguments, JSON_ENCODE_ANY);
            if (!written) HD_TRY(hd_fail(err, HD_NOMEM, "message %d: out of memory", i));
            c->text[c->n_text++] = written;
            text = written;
        }
        c->call[i][k] = (hd_call){name, text};
    }
    m->call = c->call[i];
    m->n_call = (int)n;
fail:
    return st;
}

static hd_status read_message(conversation *c, int i, const json_t *o, hd_err *err)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const json_t *text = json_object_get(o, "content"), *thinking = json_object_get(o, "reasoning_content"),
                 *calls = json_object_get(o, "tool_calls");
    const char *role = json_string_value(json_object_get(o, "role"));
    int k = 0;
    while (role && k < 4 && strcmp(role, roles[k]) != 0) k++;
    if (!role || k == 4)
        return hd_fail(err, HD_FORMAT, "message %d: its role is none of system, user, assistant, tool", i);
    bool absent = !text || json_is_null(text); // beside calls
    if (!json_is_string(text) && !(absent && json_array_size(calls) > 0))
        return hd_fail(err, HD_FORMAT, "message %d: its content is no string", i);
    if (thinking && !json_is_string(thinking) && !json_is_null(thinking))
        return hd_fail(err, HD_FORMAT, "message %d: its reasoning_content is no string", i);
    if (k != HD_ROLE_ASSISTANT && json_array_size(calls) > 0)
        return hd_fail(err, HD_FORMAT, "message %d: tool_calls of a %s", i, roles[k]);
    c->msg[i] = (hd_msg){.role = (hd_role)k,
                         .text = absent ? "" : json_string_value(text),
                         .n = json_string_length(text),
                         .thinking = json_string_value(thinking),
                         .n_thinking = json_string_length(thinking)};
    return read_calls(c, &c->msg[i], calls, i, err);
}

static hd_status read_messages(conversation *c, const json_t *list, hd_err *err)
{
    hd_status st = HD_OK;
    size_t n = json_array_size(list);
    bool answered = false;
    if (!json_is_array(list) || n == 0 || n > HD_CHAT_DATA_MAX_MESSAGES)
        return hd_fail(err, HD_FORMAT, "messages: a list of 1 to %d is expected", HD_CHAT_DATA_MAX_MESSAGES);
    HD_TRY(hd_alloc_n(&c->msg, n, sizeof *c->msg, err));
    c->n = (int)n;
    for (int i = 0; i < c->n; i++) {
        HD_TRY(read_message(c, i, json_array_get(list, (size_t)i), err));
        answered |= c->msg[i].role == HD_ROLE_ASSISTANT;
    }
    if (!answered)
        st = hd_fail(err, HD_FORMAT, "messages: none is the assistant's: there is nothing to learn");
fail:
    return st;
}

/* A question and its answer under these names; *found false when the first is absent. */
static hd_status read_pair(conversation *c, const json_t *o, const char *ask, const char *say, bool *found,
                           hd_err *err)
{
    hd_status st = HD_OK;
    const json_t *q = json_object_get(o, ask), *a = json_object_get(o, say);
    if (*found || !q || !a) return HD_OK;
    *found = true;
    if (!json_is_string(q)) return hd_fail(err, HD_FORMAT, "%s is no string", ask);
    if (!json_is_string(a)) return hd_fail(err, HD_FORMAT, "%s is no string", say);
    HD_TRY(hd_alloc_n(&c->msg, 2, sizeof *c->msg, err));
    c->n = 2;
    c->msg[0] = (hd_msg){.role = HD_ROLE_USER, .text = json_string_value(q), .n = json_string_length(q)};
    c->msg[1] = (hd_msg){.role = HD_ROLE_ASSISTANT, .text = json_string_value(a), .n = json_string_length(a)};
fail:
    return st;
}

static hd_status read_line(conversation *c, const json_t *o, hd_err *err)
{
    hd_status st = HD_OK;
    bool found = false;
    const json_t *list = json_object_get(o, "messages");
    if (list) return read_messages(c, list, err);
    HD_TRY(read_pair(c, o, "prompt", "completion", &found, err));
    HD_TRY(read_pair(c, o, "prompt", "response", &found, err));
    HD_TRY(read_pair(c, o, "question", "answer", &found, err));
    if (!found)
        st = hd_fail(
            err, HD_FORMAT,
            "no conversation: an object with messages, with prompt and completion (or response), or with "
            "question and answer is expected");
fail:
    return st;
}

/* Published traces often hold the thought inside the content. */
static void split_thought(hd_msg *m)
{
    static const char open[] = "<think>", close[] = "</think>";
    if (m->thinking || m->n < sizeof open - 1 || memcmp(m->text, open, sizeof open - 1) != 0) return;
    const char *from = m->text + sizeof open - 1, *end = m->text + m->n;
    const char *to = memmem(from, (size_t)(end - from), close, sizeof close - 1);
    if (!to) return;
    m->thinking = from;
    m->n_thinking = (size_t)(to - from);
    for (m->text = to + sizeof close - 1; m->text < end && *m->text == '\n';) m->text++;
    m->n = (size_t)(end - m->text);
}

hd_status hd_chat_data_line(const hd_chat_format *f, const hd_tokenizer *t, const char *line, size_t n,
                            hd_ids *ids, hd_buf *mask, hd_err *err)
{
    hd_status st;
    json_t *o = NULL;
    conversation c = {0};
    const hd_chat_opts opts = {.thinking = -1, .keep_thought = true};
    HD_TRY(hd_json_parse(&o, line, n, MAX_VALUES, "conversation", "line", err));
    HD_TRY(read_line(&c, o, err));
    if (f->thinks && c.msg[c.n - 1].role == HD_ROLE_ASSISTANT) split_thought(&c.msg[c.n - 1]);
    HD_TRY(hd_chat_render_mask(f, t, c.msg, c.n, &opts, ids, mask, err));
fail:
    conversation_free(&c);
    json_decref(o);
    return st;
}
