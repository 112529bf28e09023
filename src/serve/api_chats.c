/* The page's own routes, below /api/ui: what it can do with chats, and questions and answers.
 *
 *   GET    state                 the model, its context and sampling, the thinking switch
 *   GET    chats?offset=         newest first              GET search?q=
 *   GET, POST, DELETE chats/{id} one with its messages; change title, pinned, system, settings, head; delete
 *   DELETE chats                 all of them
 *   POST   ask                   {chat or null, parent or null, text, system, settings}: a question; replies {chat, answer}
 *   POST   answer                {parent} another answer to that question, or {continue} that answer: replies the same
 *   GET    answers/{id}          its events: start, queue, prefill, think, text, done
 *   POST   stop/{id}             DELETE messages/{id}
 *   GET    export?format=json|md&chat=    POST import
 *
 * Everything that touches the store is a task (chats_impl.h); `work` runs on the store's thread. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "serve/chats_impl.h"
#include "serve/routes.h"

enum { MAX_ASK = 5 << 20, MAX_SET = 5 << 20, MAX_IMPORT = 64 << 20, PAGE = 200 };

/* ---- Small things ---- */

/* The chats of this server; without them (started without a database) the request is answered. */
static hd_chats *chats_of(hd_req *r)
{
    hd_chats *c = hd_server_of(r)->chats;
    if (!c) hd_req_fail(r, 404, "no_chats", "this server keeps no chats");
    return c;
}

static int64_t number(const char *s)
{
    int64_t v = 0;
    if (!s || !*s || strlen(s) > 15) return 0;
    for (; *s; s++) {
        if (*s < '0' || *s > '9') return 0;
        v = v * 10 + (*s - '0');
    }
    return v;
}

/* A task about the route's {id} and the body, if there is one. */
static hd_task *task_of(hd_req *r, hd_status (*work)(hd_task *, hd_store *, hd_err *))
{
    const char *param = hd_req_param(r);
    hd_chats *c = chats_of(r);
    if (!c) return NULL;
    int64_t id = number(param);
    if (param && id == 0) {
        hd_req_fail(r, 404, "not_found", "there is no such chat or message");
        return NULL;
    }
    hd_task *t = hd_task_new(c, r);
    if (!t) return NULL;
    hd_req_take_body(r, &t->body);
    t->id = id;
    t->work = work;
    return t;
}

static void start(hd_task *t)
{
    if (t) hd_task_start(t);
}

/* ---- Settings ---- */

typedef struct {
    const char *name;
    double min, max;
    bool whole;
} setting;
static const setting known[] = {
    {"temperature", 0, 2, false}, {"top_p", 0, 1, false},           {"top_k", 0, 1000, true},         {"min_p", 0, 1, false},
    {"repetition_penalty", 0.5, 2, false}, {"max_tokens", 0, 1e6, true}, {"seed", 0, 9007199254740991.0, true},
};

static void take(const char *name, double v, hd_sample_opts *o, int64_t *max_tok)
{
    if (strcmp(name, "temperature") == 0) o->temperature = (float)v;
    else if (strcmp(name, "top_p") == 0) o->top_p = v > 0 ? (float)v : 1;
    else if (strcmp(name, "top_k") == 0) o->top_k = (int)v;
    else if (strcmp(name, "min_p") == 0) o->min_p = (float)v;
    else if (strcmp(name, "repetition_penalty") == 0) o->repetition_penalty = (float)v;
    else if (strcmp(name, "max_tokens") == 0) *max_tok = (int64_t)v;
    else o->seed = (uint64_t)v;
}

hd_status hd_chats_settings(const hd_chats *c, const json_t *settings, hd_sample_opts *o, int64_t *max_tok, int *thinking, hd_err *err)
{
    const json_t *think = json_object_get(settings, "thinking");
    hd_engine_sampling(c->server->engine, o);
    *max_tok = 0;
    *thinking = json_is_boolean(think) ? json_is_true(think) : -1;
    if (think && !json_is_boolean(think) && !json_is_null(think)) return hd_fail(err, HD_FORMAT, "settings.thinking: true or false is expected");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const setting *k = &known[i];
        const json_t *v = json_object_get(settings, k->name);
        if (!v || json_is_null(v)) continue;
        double d = json_number_value(v);
        if (!json_is_number(v) || !(d >= k->min && d <= k->max) || (k->whole && d != floor(d)))
            return hd_fail(err, HD_FORMAT, "settings.%s: a %snumber from %g to %g is expected", k->name, k->whole ? "whole " : "", k->min, k->max);
        take(k->name, d, o, max_tok);
    }
    return HD_OK;
}

static hd_status check_settings(const hd_task *t, const json_t *settings, hd_err *err)
{
    hd_sample_opts o;
    int64_t max;
    int think;
    if (settings && !json_is_null(settings) && !json_is_object(settings)) return hd_fail(err, HD_FORMAT, "settings: an object is expected");
    return hd_chats_settings(t->c, settings, &o, &max, &think, err);
}

static void get_state(hd_req *r)
{
    hd_chats *c = chats_of(r);
    hd_sample_opts o;
    if (!c) return;
    const hd_server *s = c->server;
    hd_engine_sampling(s->engine, &o);
    hd_api_reply(r, 200,
                 json_pack("{s:s, s:s, s:I, s:b, s:b, s:b, s:{s:f, s:f, s:i, s:f, s:f}}", "model", s->model_name, "version", HADAL_VERSION, "ctx_tok",
                           (json_int_t)hd_engine_ctx_tok(s->engine), "thinking_switch", c->thinking_switch, "thinking_default", c->thinking_default,
                           "can_chat", hd_engine_chat_name(s->engine) != NULL, "sampling", "temperature", round(o.temperature * 1e4) / 1e4, "top_p",
                           round(o.top_p * 1e4) / 1e4, "top_k", o.top_k, "min_p", round(o.min_p * 1e4) / 1e4, "repetition_penalty",
                           round(o.repetition_penalty * 1e4) / 1e4));
}

/* ---- Chats ---- */

static hd_status list_work(hd_task *t, hd_store *s, hd_err *err) { return hd_store_chats(s, t->owner, t->other, PAGE, &t->out, err); }
static void get_chats(hd_req *r)
{
    hd_task *t = task_of(r, list_work);
    if (t) t->other = number(hd_req_query(r, "offset"));
    start(t);
}

static hd_status search_work(hd_task *t, hd_store *s, hd_err *err)
{
    return hd_store_search(s, t->owner, json_string_value(t->in), &t->out, err);
}
static void get_search(hd_req *r)
{
    const char *q = hd_req_query(r, "q");
    json_t *words = json_string(q ? q : "");
    if (!words) {
        hd_req_fail(r, 422, "invalid_value", "q: not valid UTF-8");
        return;
    }
    hd_task *t = task_of(r, search_work);
    if (t) t->in = words;
    else json_decref(words);
    start(t);
}

static hd_status chat_work(hd_task *t, hd_store *s, hd_err *err) { return hd_store_chat_get(s, t->owner, t->id, true, &t->out, err); }
static void get_chat(hd_req *r) { start(task_of(r, chat_work)); }

static hd_status set_work(hd_task *t, hd_store *s, hd_err *err)
{
    if (!json_is_object(t->in)) return hd_fail(err, HD_FORMAT, "an object with title, pinned, system, settings or head is expected");
    hd_status st = check_settings(t, json_object_get(t->in, "settings"), err);
    return st == HD_OK ? hd_store_chat_set(s, t->owner, t->id, t->in, err) : st;
}
static void post_chat(hd_req *r) { start(task_of(r, set_work)); }

static hd_status delete_work(hd_task *t, hd_store *s, hd_err *err)
{
    return t->all_of_it ? hd_store_wipe(s, t->owner, err) : hd_store_chat_delete(s, t->owner, t->id, err);
}
static void delete_chat(hd_req *r)
{
    hd_task *t = task_of(r, delete_work);
    if (!t) return;
    t->all_of_it = t->id == 0; // the route without an {id}
    hd_answer_drop(t->c, t->owner, t->id, 0);
    start(t);
}

static hd_status delete_message_work(hd_task *t, hd_store *s, hd_err *err) { return hd_store_message_delete(s, t->owner, t->id, err); }
static void delete_message(hd_req *r)
{
    hd_task *t = task_of(r, delete_message_work);
    if (t) hd_answer_drop(t->c, t->owner, 0, t->id); // answers below it notice when they are saved
    start(t);
}

/* ---- Carrying ---- */

static hd_status export_work(hd_task *t, hd_store *s, hd_err *err)
{
    hd_status st;
    json_t *all = NULL;
    if (t->type) return hd_store_export_md(s, t->owner, t->id, &t->text, err);
    HD_TRY(hd_store_export(s, t->owner, t->id, &all, err));
    char *text = json_dumps(all, JSON_INDENT(1));
    st = text ? hd_buf_adds(&t->text, text, err) : hd_fail(err, HD_NOMEM, "store: export: no memory");
    free(text);
fail:
    json_decref(all);
    return st;
}
static void get_export(hd_req *r)
{
    const char *format = hd_req_query(r, "format"), *chat = hd_req_query(r, "chat");
    bool md = format && strcmp(format, "md") == 0;
    int64_t id = number(chat);
    if ((md && !id) || (chat && !id) || (!md && format && strcmp(format, "json") != 0)) {
        hd_req_fail(r, 422, "invalid_value", "export: format=json, or format=md&chat=NUMBER");
        return;
    }
    hd_task *t = task_of(r, export_work);
    if (t) t->id = id, t->type = md ? "text/markdown; charset=utf-8" : NULL;
    start(t);
}

static hd_status import_work(hd_task *t, hd_store *s, hd_err *err)
{
    int64_t n = 0;
    hd_status st = hd_store_import(s, t->owner, t->in, &n, err);
    if (st == HD_OK) t->out = json_pack("{s:I}", "chats", (json_int_t)n);
    return st;
}
static void post_import(hd_req *r) { start(task_of(r, import_work)); }

/* ---- Questions ---- */

/* The ids of the conversation that ends with `path`'s last message: an answer that is to be made, one that
 * goes on (its beginning is part of them), or one that a next question follows. */
static hd_status render(hd_task *t, const char *system, const json_t *path, int thinking, hd_err *err)
{
    hd_status st;
    size_t n = json_array_size(path);
    int count = 0;
    hd_message *m = NULL;
    HD_TRY(hd_alloc_n(&m, n + 2, sizeof *m, err));
    if (system && *system) m[count++] = (hd_message){.role = "system", .text = system};
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(path, i);
        const char *thought = json_string_value(json_object_get(o, "thinking"));
        bool last = i + 1 == n;
        if (last && !t->goes_on && !t->next_turn) break; // the answer itself, empty
        m[count++] = (hd_message){.role = json_string_value(json_object_get(o, "role")), .text = json_string_value(json_object_get(o, "text")),
                                  .thinking = thought && *thought ? thought : NULL};
    }
    if (t->next_turn) m[count++] = (hd_message){.role = "user", .text = "."}; // nothing is known of it
    hd_chat_request q = {.msg = m, .n_msg = count, .prefix = t->goes_on, .thinking = thinking};
    if (hd_api_prompt(&t->prompt, &q, t->c->server, 0, &t->why) != HD_OK) t->refused = true;
fail:
    free(m);
    return st;
}

/* From a stored answer (t->id, empty or going on) to what the scheduler is given; what cannot be rendered is
 * noted in the answer's row. */
static hd_status prepare(hd_task *t, hd_store *s, hd_err *err)
{
    hd_status st;
    hd_err why = {0};
    json_t *path = NULL, *chat = NULL, *info = NULL;
    int thinking;
    HD_TRY(hd_store_path(s, t->owner, t->id, &t->chat, &path, err));
    HD_TRY(hd_store_chat_get(s, t->owner, t->chat, false, &chat, err));
    if (hd_chats_settings(t->c, json_object_get(chat, "settings"), &t->sample, &t->max_tok, &thinking, &why) != HD_OK) t->refused = true;
    else HD_TRY(render(t, json_string_value(json_object_get(chat, "system")), path, thinking, err));
    if (!t->refused) goto fail;
    info = json_pack("{s:s}", "error", why.msg[0] ? why.msg : t->why.message);
    st = hd_store_message_save(s, t->owner, t->id, t->text.data ? t->text.data : "", t->more.data, "failed", info, err);
fail:
    json_decref(info);
    json_decref(path);
    json_decref(chat);
    return st;
}

static hd_status ask(void *arg, hd_store *s, hd_err *err)
{
    hd_status st;
    hd_task *t = arg;
    const json_t *chat = json_object_get(t->in, "chat"), *parent = json_object_get(t->in, "parent"), *system = json_object_get(t->in, "system");
    const json_t *settings = json_object_get(t->in, "settings"), *text = json_object_get(t->in, "text");
    int64_t question = 0, up = json_integer_value(parent);
    if (!json_is_string(text) || json_string_length(text) == 0) return hd_fail(err, HD_FORMAT, "text: a question is expected");
    if (chat && !json_is_null(chat) && !json_is_integer(chat)) return hd_fail(err, HD_FORMAT, "chat: a chat's number or null is expected");
    if (parent && !json_is_null(parent) && !json_is_integer(parent)) return hd_fail(err, HD_FORMAT, "parent: a message's number or null is expected");
    if (json_string_length(system) > HD_STORE_MAX_TEXT) return hd_fail(err, HD_FORMAT, "system: at most 4 MiB");
    HD_TRY(check_settings(t, settings, err));
    t->chat = json_integer_value(chat);
    if (!t->chat) {
        HD_TRY(hd_store_chat_add(s, t->owner, NULL, json_string_value(system), json_is_object(settings) ? settings : NULL, &t->chat, err));
        up = 0;
    }
    HD_TRY(hd_store_message_add(s, t->owner, t->chat, up, "user", json_string_value(text), "done", &question, err));
    HD_TRY(hd_store_message_add(s, t->owner, t->chat, question, "assistant", "", "running", &t->id, err));
    st = prepare(t, s, err);
fail:
    return st;
}

static hd_status warm_work(hd_task *t, hd_store *s, hd_err *err)
{
    hd_status st;
    json_t *path = NULL, *chat = NULL;
    int thinking;
    HD_TRY(hd_store_path(s, t->owner, t->id, &t->chat, &path, err));
    HD_TRY(hd_store_chat_get(s, t->owner, t->chat, false, &chat, err));
    HD_TRY(hd_chats_settings(t->c, json_object_get(chat, "settings"), &t->sample, &t->max_tok, &thinking, err));
    HD_TRY(render(t, json_string_value(json_object_get(chat, "system")), path, thinking, err));
    const hd_server *v = t->c->server;
    if (!t->refused) hd_sched_warm(v->sched, &t->prompt, t->user, hd_shared_tok(v->shared, &t->prompt), NULL);
fail:
    json_decref(path);
    json_decref(chat);
    return HD_OK; // nobody waits for it, and the others' transaction is not to fail by it
}

static void warmed(hd_task *t) { (void)t; }

void hd_chats_warm(hd_chats *c, int64_t owner, int64_t answer, uint64_t user)
{
    hd_task *t = hd_task_new(c, NULL);
    if (!t) return;
    t->owner = owner;
    t->id = answer;
    t->user = user;
    t->next_turn = true;
    t->work = warm_work;
    t->done = warmed;
    hd_task_start(t);
}

/* The same answer's row, taken up where it stopped. */
static hd_status go_on(hd_task *t, hd_store *s, int64_t id, hd_err *err)
{
    hd_status st;
    json_t *path = NULL, *head = NULL;
    HD_TRY(hd_store_path(s, t->owner, id, &t->chat, &path, err));
    const json_t *m = json_array_get(path, json_array_size(path) - 1);
    const char *text = json_string_value(json_object_get(m, "text")), *thinking = json_string_value(json_object_get(m, "thinking"));
    const char *state = json_string_value(json_object_get(m, "state"));
    if (strcmp(json_string_value(json_object_get(m, "role")), "assistant") != 0)
        HD_TRY(hd_fail(err, HD_FORMAT, "continue: message %lld is no answer", (long long)id));
    if (strcmp(state, "running") == 0 || strcmp(state, "done") == 0)
        HD_TRY(hd_fail(err, HD_FORMAT, "continue: message %lld is %s", (long long)id, state));
    t->id = id;
    t->goes_on = *text || *thinking;
    t->other = json_integer_value(json_object_get(json_object_get(m, "info"), "think_ms"));
    HD_TRY(hd_buf_adds(&t->text, text, err));
    HD_TRY(hd_buf_adds(&t->more, thinking, err));
    head = json_pack("{s:I}", "head", (json_int_t)id);
    HD_TRY(hd_store_message_save(s, t->owner, id, text, thinking, "running", NULL, err));
    HD_TRY(hd_store_chat_set(s, t->owner, t->chat, head, err));
fail:
    json_decref(head);
    json_decref(path);
    return st;
}

static hd_status answer_again(void *arg, hd_store *s, hd_err *err)
{
    hd_status st;
    hd_task *t = arg;
    json_t *path = NULL;
    const json_t *parent = json_object_get(t->in, "parent"), *same = json_object_get(t->in, "continue");
    if (!json_is_integer(json_is_integer(same) ? same : parent)) return hd_fail(err, HD_FORMAT, "parent or continue: a message's number is expected");
    if (json_is_integer(same)) {
        HD_TRY(go_on(t, s, json_integer_value(same), err));
    } else {
        HD_TRY(hd_store_path(s, t->owner, json_integer_value(parent), &t->chat, &path, err));
        const json_t *m = json_array_get(path, json_array_size(path) - 1);
        if (strcmp(json_string_value(json_object_get(m, "role")), "user") != 0) HD_TRY(hd_fail(err, HD_FORMAT, "parent: the question is expected"));
        HD_TRY(hd_store_message_add(s, t->owner, t->chat, json_integer_value(parent), "assistant", "", "running", &t->id, err));
    }
    st = prepare(t, s, err);
fail:
    json_decref(path);
    return st;
}

/* The rows of a failed question go with it: all of a task's calls, or none. */
static hd_status ask_work(hd_task *t, hd_store *s, hd_err *err) { return hd_store_together(s, ask, t, err); }
static hd_status answer_work(hd_task *t, hd_store *s, hd_err *err) { return hd_store_together(s, answer_again, t, err); }

static void post_ask(hd_req *r)
{
    hd_task *t = task_of(r, ask_work);
    if (t) t->done = hd_answer_begin;
    start(t);
}
static void post_answer(hd_req *r)
{
    hd_task *t = task_of(r, answer_work);
    if (t) t->done = hd_answer_begin;
    start(t);
}

/* ---- Answers ---- */

static hd_status finished_work(hd_task *t, hd_store *s, hd_err *err)
{
    hd_status st;
    json_t *path = NULL, *e = NULL;
    char *text = NULL;
    HD_TRY(hd_store_path(s, t->owner, t->id, &t->chat, &path, err));
    e = json_pack("{s:s, s:O}", "t", "done", "message", json_array_get(path, json_array_size(path) - 1));
    text = e ? json_dumps(e, JSON_COMPACT) : NULL;
    st = text ? hd_buf_addf(&t->text, err, "data: %s\n\n", text) : hd_fail(err, HD_NOMEM, "store: reply: no memory");
fail:
    free(text);
    json_decref(e);
    json_decref(path);
    return st;
}
static void get_answer(hd_req *r)
{
    hd_chats *c = chats_of(r);
    if (!c || hd_answer_watch(c, number(hd_req_param(r)), r)) return;
    hd_task *t = task_of(r, finished_work);
    if (t) t->type = "text/event-stream";
    start(t);
}

static void post_stop(hd_req *r)
{
    hd_chats *c = chats_of(r);
    if (!c) return;
    hd_answer_stop(c, HD_STORE_LOCAL, number(hd_req_param(r)));
    hd_reply(r, 200, "application/json", "{}", 2);
}

#define ROW(m, p, body, f) {.method = m, .path = "/api/ui/" p, .right = HD_RIGHT_PAGE, .max_body = body, .handle = f}
const hd_route hd_routes_chats[] = {
    ROW("GET", "state", 0, get_state),
    ROW("GET", "chats", 0, get_chats),
    ROW("DELETE", "chats", 0, delete_chat),
    ROW("GET", "search", 0, get_search),
    ROW("GET", "chats/{id}", 0, get_chat),
    ROW("POST", "chats/{id}", MAX_SET, post_chat),
    ROW("DELETE", "chats/{id}", 0, delete_chat),
    ROW("POST", "ask", MAX_ASK, post_ask),
    ROW("POST", "answer", 4096, post_answer),
    ROW("GET", "answers/{id}", 0, get_answer),
    ROW("POST", "stop/{id}", 4096, post_stop),
    ROW("DELETE", "messages/{id}", 0, delete_message),
    ROW("GET", "export", 0, get_export),
    ROW("POST", "import", MAX_IMPORT, post_import),
    {0},
};
