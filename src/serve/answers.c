/* Answers that are being written: each holds a job of the scheduler, its text so far, and whoever watches.
 *
 *   begun --> queued --> prefill --> text ... --> ended --> saved --> forgotten
 *                                      \-- once a second: saved as "running"
 *
 * Watchers come and go; the text stays here until the store has all of it, and `done` is told only then: what
 * a page has seen finished, a crash cannot take back.  When the disk refuses, `done` says so (info.unsaved)
 * and saving is tried again with each pulse. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "serve/chats_impl.h"

enum { PULSE_MS = 1000, KEEP_ALIVE_PULSES = 10, MAX_PIECE = 48 << 10 };

typedef struct watcher {
    struct watcher *next;
    hd_answer *a;
    hd_req *r;
} watcher;

struct hd_answer {
    hd_answer *next;
    hd_chats *c;
    int64_t owner, chat, id;
    uint64_t user;
    hd_job *job;
    hd_buf text, thinking;
    hd_job_event_kind at; // the last that was told, with:
    int position;
    int64_t done_tok, total_tok;
    double t_first, t_thought, t_text; // seconds; 0: not yet
    int64_t think_ms;                  // of a thought before it was continued
    bool dirty, saving, ended, told;
    char state[16]; // once ended
    json_t *info;   // once ended
    int64_t gen_tok;
    int pulses;
    watcher *watchers;
};

/* ---- Telling watchers ---- */

void hd_answer_put(hd_req *r, json_t *j)
{
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    hd_buf b;
    hd_buf_init(&b, SIZE_MAX);
    if (text && hd_buf_addf(&b, NULL, "data: %s\n\n", text) == HD_OK) hd_reply_write(r, b.data, b.len);
    hd_buf_free(&b);
    free(text);
    json_decref(j);
}

static void put_all(hd_answer *a, json_t *j)
{
    for (watcher *w = a->watchers, *next; w; w = next) {
        next = w->next;
        hd_answer_put(w->r, json_incref(j));
    }
    json_decref(j);
}

static json_t *status_event(const hd_answer *a)
{
    if (a->at == HD_JOB_QUEUED) return json_pack("{s:s, s:i}", "t", "queue", "position", a->position);
    return json_pack("{s:s, s:I, s:I}", "t", "prefill", "done", (json_int_t)a->done_tok, "total", (json_int_t)a->total_tok);
}

static void unwatch(void *arg)
{
    watcher *w = arg, **at = &w->a->watchers;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    free(w);
}

static void end_watchers(hd_answer *a)
{
    while (a->watchers) {
        hd_req *r = a->watchers->r;
        hd_req_on_gone(r, NULL, NULL);
        unwatch(a->watchers);
        hd_reply_end(r);
    }
}

/* ---- The list ---- */

static hd_answer *find(const hd_chats *c, int64_t id)
{
    hd_answer *a = c->answers;
    while (a && a->id != id) a = a->next;
    return a;
}

static void forget(hd_answer *a)
{
    hd_answer **at = &a->c->answers;
    while (*at && *at != a) at = &(*at)->next;
    if (*at) *at = a->next;
    if (a->job) hd_job_cancel(a->job);
    end_watchers(a);
    hd_buf_free(&a->text);
    hd_buf_free(&a->thinking);
    json_decref(a->info);
    free(a);
}

/* ---- Saving ---- */

static void save(hd_answer *a);

static hd_status save_work(hd_task *t, hd_store *s, hd_err *err)
{
    return hd_store_message_save(s, t->owner, t->id, t->text.data ? t->text.data : "", t->more.data, t->state, t->in, err);
}

static json_t *done_event(const hd_answer *a, const char *unsaved)
{
    json_t *info = json_deep_copy(a->info);
    if (unsaved && info) json_object_set_new(info, "unsaved", json_string(unsaved));
    return json_pack("{s:s, s:{s:I, s:s, s:o}}", "t", "done", "message", "id", (json_int_t)a->id, "state", a->state, "info", info);
}

static void saved(hd_task *t)
{
    hd_answer *a = find(t->c, t->id);
    if (!a) return;
    a->saving = false;
    if (t->st == HD_USAGE) { // its row was deleted meanwhile
        forget(a);
        return;
    }
    bool last = strcmp(t->state, "running") != 0;
    if (t->st != HD_OK) {
        a->dirty = true;
        if (!last || a->told) return;
        put_all(a, done_event(a, t->err.msg));
        a->told = true;
        end_watchers(a);
        return;
    }
    if (!last) {
        if (a->ended) save(a);
        return;
    }
    put_all(a, done_event(a, NULL));
    if (a->thinking.len && strcmp(a->state, "done") == 0) hd_chats_warm(a->c, a->owner, a->id, a->user);
    forget(a);
}

static void save(hd_answer *a)
{
    if (a->saving) return;
    hd_task *t = hd_task_new(a->c, NULL);
    if (!t) return; // the next pulse tries again
    t->owner = a->owner;
    t->id = a->id;
    t->work = save_work;
    t->done = saved;
    snprintf(t->state, sizeof t->state, "%s", a->ended ? a->state : "running");
    t->in = a->ended ? json_incref(a->info) : NULL;
    if (hd_buf_add(&t->text, a->text.data, a->text.len, NULL) != HD_OK || hd_buf_add(&t->more, a->thinking.data, a->thinking.len, NULL) != HD_OK) {
        hd_task_free(t);
        return;
    }
    if (t->in) { // the task's thread gets an object of its own
        json_t *copy = json_deep_copy(t->in);
        json_decref(t->in);
        t->in = copy;
    }
    a->dirty = false;
    a->saving = true;
    hd_task_start(t);
}

static void pulse(void *arg)
{
    hd_chats *c = arg;
    c->pulse = NULL;
    for (hd_answer *a = c->answers; a; a = a->next) {
        if (a->dirty || a->ended) save(a);
        if (++a->pulses % KEEP_ALIVE_PULSES) continue;
        for (watcher *w = a->watchers, *next; w; w = next) {
            next = w->next;
            hd_reply_write(w->r, ": \n\n", 4);
        }
    }
    if (c->answers) c->pulse = hd_net_after(c->server->net, PULSE_MS, pulse, c);
}

/* ---- A job's events ---- */

static int64_t ms_between(double from, double to) { return from > 0 && to > from ? (int64_t)((to - from) * 1000) : 0; }

static void end(hd_answer *a, const char *state, json_t *info)
{
    double now = hd_now_s();
    int64_t think = a->think_ms + ms_between(a->t_thought, a->t_text > 0 ? a->t_text : now);
    if (!info) info = json_object();
    if (a->t_thought > 0 || a->think_ms) json_object_set_new(info, "think_ms", json_integer(think));
    snprintf(a->state, sizeof a->state, "%s", state);
    a->info = info;
    a->ended = true;
    a->job = NULL;
    save(a);
}

static void add_text(hd_answer *a, const hd_job_event *e)
{
    bool thought = e->text_kind == HD_TEXT_THINKING;
    double now = hd_now_s();
    a->gen_tok += e->n_token;
    if (a->t_first == 0) a->t_first = now;
    if (e->n == 0) return;
    if (thought && a->t_thought == 0) a->t_thought = now;
    if (!thought && a->t_text == 0) a->t_text = now;
    hd_buf *b = thought ? &a->thinking : &a->text;
    if (hd_buf_add(b, e->text, e->n, NULL) != HD_OK) { // as long as a message can be
        hd_job_cancel(a->job);
        end(a, "length", json_pack("{s:s}", "why", "size"));
        return;
    }
    a->dirty = true;
    put_all(a, json_pack("{s:s, s:s%}", "t", thought ? "think" : "text", "d", e->text, e->n));
}

static json_t *usage(const hd_job_event *e)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "prompt_tok", (json_int_t)e->prompt_tok, "cached_tok", (json_int_t)e->cached_tok, "gen_tok",
                     (json_int_t)e->gen_tok, "thinking_tok", (json_int_t)e->thinking_tok, "prefill_ms", (json_int_t)(e->prefill_s * 1000),
                     "gen_ms", (json_int_t)(e->gen_s * 1000));
}

static void on_event(void *arg, const hd_job_event *e)
{
    hd_answer *a = arg;
    hd_job *job = a->job;
    switch (e->kind) {
    case HD_JOB_QUEUED:
    case HD_JOB_PREFILL:
        a->at = e->kind;
        a->position = e->position;
        a->done_tok = e->done_tok;
        a->total_tok = e->total_tok;
        put_all(a, status_event(a));
        break;
    case HD_JOB_TEXT:
        a->at = e->kind;
        add_text(a, e);
        break;
    case HD_JOB_DONE: {
        json_t *info = usage(e);
        if (info && e->reason == HD_END_CONTEXT) json_object_set_new(info, "why", json_string("context"));
        const char *state = e->reason == HD_END_STOP ? "done" : e->reason == HD_END_CANCELLED ? "interrupted" : "length";
        end(a, state, info);
        hd_job_free(job);
        break;
    }
    case HD_JOB_ERROR:
        end(a, "failed", json_pack("{s:s}", "error", e->err ? e->err->msg : "unknown"));
        hd_job_free(job);
        break;
    }
}

/* ---- From outside ---- */

static hd_answer *answer_of(hd_task *t)
{
    hd_answer *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    a->c = t->c;
    a->owner = t->owner;
    a->chat = t->chat;
    a->id = t->id;
    a->user = t->user;
    a->at = HD_JOB_QUEUED;
    a->think_ms = t->other;
    hd_buf_init(&a->text, HD_STORE_MAX_TEXT);
    hd_buf_init(&a->thinking, HD_STORE_MAX_TEXT);
    if (t->goes_on &&
        (hd_buf_add(&a->text, t->text.data, t->text.len, NULL) != HD_OK || hd_buf_add(&a->thinking, t->more.data, t->more.len, NULL) != HD_OK)) {
        hd_buf_free(&a->text);
        hd_buf_free(&a->thinking);
        free(a);
        return NULL;
    }
    a->next = t->c->answers;
    t->c->answers = a;
    if (!t->c->pulse) t->c->pulse = hd_net_after(t->c->server->net, PULSE_MS, pulse, t->c);
    return a;
}

/* The scheduler says no: too many wait, or the conversation is longer than the context. */
static json_t *refusal(hd_chats *c, bool context_full, const hd_err *err)
{
    json_t *info = json_pack("{s:s}", "error", err->msg);
    hd_sched_stats s;
    if (!info || context_full || err->code != HD_LIMIT) return info;
    hd_sched_get_stats(c->server->sched, &s);
    json_object_set_new(info, "retry_after", json_integer(s.wait_s < 1 ? 1 : s.wait_s > 120 ? 120 : (json_int_t)s.wait_s));
    return info;
}

void hd_answer_begin(hd_task *t)
{
    hd_err err = {0};
    bool full = false;
    if (t->st != HD_OK) {
        hd_task_fail(t);
        return;
    }
    json_t *reply = json_pack("{s:I, s:I}", "chat", (json_int_t)t->chat, "answer", (json_int_t)t->id);
    hd_answer *a = t->refused ? NULL : answer_of(t);
    if (!a) { // refused: its row says so already; without memory it says "running" until the next start, and the reply says no
        hd_task_reply(t, t->refused ? 200 : 503, t->refused ? reply : (json_decref(reply), NULL));
        return;
    }
    hd_job_opts o = {.prompt = t->prompt, .user = t->user, .shared_tok = hd_shared_tok(t->c->server->shared, &t->prompt), .max_tok = t->max_tok ? t->max_tok : t->c->server->default_max_tok, .sample = t->sample,
                     .chat = true, .event = on_event, .arg = a};
    t->prompt = (hd_ids){0};
    if (hd_sched_submit(t->c->server->sched, &a->job, &o, &full, &err) != HD_OK) {
        a->job = NULL;
        end(a, "failed", refusal(t->c, full, &err));
    }
    hd_task_reply(t, 200, reply);
}

/* The watcher has `have` bytes; the rest in pieces, cut at whole characters. */
static void put_rest(hd_req *r, const char *kind, const hd_buf *b, size_t have)
{
    while (have < b->len) {
        size_t n = b->len - have;
        if (n > MAX_PIECE)
            for (n = MAX_PIECE; n > 1 && ((unsigned char)b->data[have + n] & 0xc0) == 0x80;) n--;
        hd_answer_put(r, json_pack("{s:s, s:s%}", "t", kind, "d", b->data + have, n));
        have += n;
    }
}

/* How much of b a watcher says to have; 0 when that cannot be. */
static size_t had(const hd_req *r, const char *name, const hd_buf *b)
{
    const char *s = hd_req_query(r, name);
    char *stop = NULL;
    unsigned long long n = s && *s >= '0' && *s <= '9' ? strtoull(s, &stop, 10) : 0;
    if (!stop || *stop || n > b->len || (n < b->len && ((unsigned char)b->data[n] & 0xc0) == 0x80)) return 0;
    return (size_t)n;
}

bool hd_answer_watch(hd_chats *c, int64_t id, hd_req *r)
{
    hd_answer *a = find(c, id);
    watcher *w = a ? calloc(1, sizeof *w) : NULL;
    if (!w) return false;
    *w = (watcher){a->watchers, a, r};
    a->watchers = w;
    hd_req_on_gone(r, unwatch, w);
    hd_reply_header(r, "X-Accel-Buffering", "no");
    hd_reply_begin(r, 200, "text/event-stream");
    size_t text = had(r, "text", &a->text), thinking = had(r, "thinking", &a->thinking);
    int64_t think_ms = a->think_ms + ms_between(a->t_thought, a->t_text > 0 ? a->t_text : hd_now_s());
    hd_answer_put(r, json_pack("{s:s, s:I, s:I, s:I}", "t", "start", "text", (json_int_t)text, "thinking", (json_int_t)thinking, "think_ms",
                               (json_int_t)think_ms));
    put_rest(r, "think", &a->thinking, thinking);
    put_rest(r, "text", &a->text, text);
    if (a->told) {
        hd_answer_put(r, done_event(a, "the disk refuses"));
        end_watchers(a);
    } else if (a->at != HD_JOB_TEXT) {
        hd_answer_put(r, status_event(a));
    }
    return true;
}

void hd_answer_stop(hd_chats *c, int64_t owner, int64_t id)
{
    hd_answer *a = find(c, id);
    if (!a || a->owner != owner || a->ended) return;
    hd_job_cancel(a->job);
    end(a, "stopped", json_pack("{s:I, s:I, s:I}", "prompt_tok", (json_int_t)a->total_tok, "gen_tok", (json_int_t)a->gen_tok, "gen_ms",
                                (json_int_t)ms_between(a->t_first, hd_now_s())));
}

void hd_answer_drop(hd_chats *c, int64_t owner, int64_t chat, int64_t id)
{
    for (hd_answer *a = c->answers, *next; a; a = next) {
        next = a->next;
        if (a->owner == owner && (chat == 0 || a->chat == chat) && (id == 0 || a->id == id)) forget(a);
    }
}

void hd_answers_close(hd_chats *c)
{
    hd_net_cancel(c->pulse);
    c->pulse = NULL;
    while (c->answers) {
        hd_answer *a = c->answers;
        if (a->job) {
            hd_job_cancel(a->job);
            end(a, "interrupted", NULL);
        } else {
            a->saving = false;
            save(a);
        }
        forget(a);
    }
}
