/* One exchange: a request, its jobs, its reply.
 *
 *   handler --> read --> prompt, grammar --> submit n jobs --> events --> writer --> reply --> next turn
 *                 \           \                  \                \
 *                  +-----------+------------------+--> refused     +--> client gone: cancel, free
 *
 * Reading, tokenizing and compiling are a chore (work.h), away from the network thread; so is what
 * follows a reply with a
 * thought: the conversation as its next turn will render it, without the thought, is computed when
 * nobody else asks.
 *
 * The reply's head waits for the first thing to be sent, so that what fails early has a status of its own.
 * While a request waits or its prompt is read, a stream gets comments (its place in the queue, its progress,
 * a beat) and a whole reply blank lines, which keep proxies and clients from giving up.
 *
 * An exchange is freed by its last event or when its client has gone, and never while a function below works
 * on it (`busy`) or a thread does (`working`). */
#include <stdio.h>
#include <string.h>

#include "model/json.h"
#include "serve/api_prompt.h"

enum { BEAT_MS = 3000, WHOLE_BEATS = 5, MAX_MARKS = 8, BIG_BODY = 64 << 10 };

typedef struct exchange exchange;
typedef struct {
    exchange *x;
    int i;
    hd_job *job; // NULL: ended
} slot;

struct exchange {
    hd_chore chore; // first: a chore is its exchange
    hd_req *r;      // none after the reply
    hd_server *s;
    uint64_t user;
    hd_buf body;
    hd_chat_request q;
    /* What the chore brings. */
    hd_status st;
    hd_api_error why;
    hd_ids ids[HD_API_MAX_CHOICES];
    hd_grammar *grammar;

    hd_writer w;
    slot slot[HD_API_MAX_CHOICES];
    hd_timer *beat;
    int beats;
    bool open;  // the writer
    bool begun; // the reply's head is sent
    bool quiet; // nothing was sent since the last beat
    bool busy, working, gone, over, buried;
};

/* ---- Requests without sockets ---- */

void hd_chat_request_open(hd_chat_request *q, const hd_dialect *d, const hd_sample_opts *defaults)
{
    *q = (hd_chat_request){
        .dialect = d, .thinking = -1, .thinking_otherwise = -1, .n = 1, .sample = *defaults};
    q->stream = d->stream_default;
}

void hd_chat_request_close(hd_chat_request *q)
{
    json_decref(q->body);
    hd_keep_free(q->keep);
    q->body = NULL;
    q->keep = NULL;
}

hd_status hd_chat_request_read(hd_chat_request *q, const char *body, size_t n, hd_api_error *e)
{
    hd_status st;
    HD_TRY(hd_api_json(&q->body, body, n, e));
    HD_TRY(q->dialect->read(q, q->body, e));
    if (q->sample.top_p < 1e-6f) q->sample.top_p = 1e-6f; // the likeliest alone
    if (q->sample.min_p > 0.999f) q->sample.min_p = 0.999f;
fail:
    return st;
}

/* ---- Replies ---- */

void hd_api_reply(hd_req *r, int status, json_t *j)
{
    static const char nomem[] = "{\"error\":{\"message\":\"no memory\",\"type\":\"server_error\"}}";
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (text) hd_reply(r, status, "application/json", text, strlen(text));
    else hd_reply(r, 503, "application/json", nomem, sizeof nomem - 1);
    free(text);
    json_decref(j);
}

void hd_api_fail(hd_req *r, const hd_dialect *d, int status, const char *code, const char *message)
{
    hd_api_error e = {.http = status, .code = code};
    snprintf(e.message, sizeof e.message, "%s", message);
    hd_api_reply(r, status, d->error(&e, hd_req_id(r)));
}

void hd_api_refuse(hd_req *r, const hd_dialect *d, const hd_api_error *e)
{
    char seconds[16];
    if (e->http == 429 || e->http == 503) {
        hd_server *s = hd_server_of(r);
        hd_sched_stats stats = {0};
        if (s->sched) hd_sched_get_stats(s->sched, &stats);
        snprintf(seconds, sizeof seconds, "%d",
                 stats.wait_s < 1     ? 1
                 : stats.wait_s > 100 ? 100
                                      : (int)stats.wait_s);
        hd_reply_header(r, "Retry-After", seconds);
        hd_reply_header(r, "x-should-retry", "true");
    }
    hd_api_reply(r, e->http, d->error(e, hd_req_id(r)));
}

static void begin(exchange *x)
{
    if (x->begun) return;
    x->begun = true;
    hd_reply_header(x->r, "Cache-Control", "no-cache");
    hd_reply_header(x->r, "X-Accel-Buffering", "no");
    hd_reply_begin(x->r, 200, x->q.stream ? x->w.d->stream_type : "application/json");
    if (x->q.stream) hd_writer_begin(&x->w);
}

static void flush(exchange *x)
{
    if (x->gone || !x->w.out.len) return;
    if (!x->begun) { // what a stream begins with comes first
        hd_buf first = x->w.out;
        hd_buf_init(&x->w.out, first.max);
        begin(x);
        if (x->w.out.len && x->w.st == HD_OK && !x->gone) hd_reply_write(x->r, x->w.out.data, x->w.out.len);
        hd_buf_free(&x->w.out);
        x->w.out = first;
    }
    if (!x->gone && x->w.st == HD_OK) hd_reply_write(x->r, x->w.out.data, x->w.out.len);
    hd_buf_clear(&x->w.out);
    x->quiet = false;
}

static void comment(exchange *x, const char *text)
{
    if (x->gone || !x->q.stream || !x->w.d->keep_alive) return;
    if (x->w.st == HD_OK) x->w.st = hd_buf_adds(&x->w.out, text, &x->w.err);
    flush(x);
}

/* ---- The end ---- */

static void cancel_all(exchange *x)
{
    for (int i = 0; i < HD_API_MAX_CHOICES; i++)
        if (x->slot[i].job) {
            hd_job_cancel(x->slot[i].job);
            x->slot[i].job = NULL;
        }
    if (x->beat) hd_net_cancel(x->beat);
    x->beat = NULL;
}

/* Any thread. */
static void bury(hd_chore *c)
{
    exchange *x = (exchange *)c;
    if (x->open) hd_writer_close(&x->w);
    hd_chat_request_close(&x->q);
    hd_buf_free(&x->body);
    for (int i = 0; i < HD_API_MAX_CHOICES; i++) hd_ids_free(&x->ids[i]);
    hd_grammar_close(x->grammar);
    x->buried = true;
}

static void buried(hd_chore *c)
{
    exchange *x = (exchange *)c;
    if (!x->buried) bury(c); // the server closes: no thread did
    free(x);
}

/* A million values take their time to be freed, too. */
static void release(exchange *x)
{
    cancel_all(x);
    x->chore = (hd_chore){.work = bury, .finish = buried, .big = x->chore.big};
    hd_work_start(x->chore.big ? x->s->work : NULL, &x->chore);
}

static void client_gone(void *arg)
{
    exchange *x = arg;
    x->gone = x->over = true;
    cancel_all(x);
    if (x->working && hd_work_forget(x->s->work, &x->chore)) x->working = false;
    if (!x->busy && !x->working) release(x);
}

/* ---- The next turn ---- */

/* The answer as it will come back, and the next question; its words, of which nothing is known, are a dot. */
static hd_status next_turn(hd_chat_request *next, exchange *x, hd_api_error *e)
{
    const hd_choice *c = &x->w.choice[0];
    const hd_chat_request *q = &x->q;
    int n = q->n_msg - q->prefix;
    hd_message *m = hd_keep_alloc(&x->q.keep, ((size_t)n + 2) * sizeof *m);
    hd_call *call = hd_keep_alloc(&x->q.keep, ((size_t)c->n_call + 1) * sizeof *call);
    const char *begun = q->prefix ? q->msg[n].text : "", *said = c->text.data ? c->text.data : "";
    char *text = hd_keep_alloc(&x->q.keep, strlen(begun) + strlen(said) + 1);
    if (!m || !call || !text) return hd_refuse_nomem(e);
    memcpy(m, q->msg, (size_t)n * sizeof *m);
    for (int k = 0; k < c->n_call; k++) call[k] = (hd_call){.name = c->call[k].name, .arguments = c->call[k].arguments};
    stpcpy(stpcpy(text, begun), said);
    m[n] = (hd_message){.role = "assistant", .text = text, .thinking = c->thinking.data, .call = call, .n_call = c->n_call};
    m[n + 1] = (hd_message){.role = c->n_call ? "tool" : "user", .text = "."};
    *next = *q;
    next->msg = m;
    next->n_msg = n + 2;
    next->prefix = false;
    return HD_OK;
}

/* A thread's: on any failure there is nothing in the cache, and nobody need know. */
static void warm(hd_chore *c)
{
    exchange *x = (exchange *)c;
    hd_chat_request next;
    hd_api_error e = {0};
    hd_ids ids = {0};
    if (next_turn(&next, x, &e) == HD_OK && hd_api_prompt(&ids, &next, x->s, 0, &e) == HD_OK)
        hd_sched_warm(x->s->sched, &ids, x->user, hd_shared_tok(x->s->shared, &ids), NULL);
    hd_ids_free(&ids);
}

static void warmed(hd_chore *c) { release((exchange *)c); }

/* The reply is sent.  Formats drop a thought from the turns before, so that behind it nothing of the cache
 * can be used again. */
static void leave(exchange *x)
{
    const hd_choice *c = &x->w.choice[0];
    bool again = x->open && !x->gone && !x->w.failed && x->w.n_choice == 1 && c->ended && c->reason == HD_END_STOP &&
                 c->thinking.len && x->q.n_msg > 0;
    if (!again) {
        release(x);
        return;
    }
    x->chore = (hd_chore){.work = warm, .finish = warmed, .big = x->chore.big};
    hd_work_start(x->s->work, &x->chore);
}

static void finish(exchange *x)
{
    int64_t out = 0;
    x->over = true;
    cancel_all(x);
    if (x->gone) return;
    hd_req_on_gone(x->r, NULL, NULL);
    for (int i = 0; i < x->w.n_choice; i++) out += x->w.choice[i].gen_tok;
    hd_req_note(x->r, x->w.prompt_tok, x->w.cached_tok, out);
    if (x->w.st != HD_OK && !x->w.failed) {
        hd_api_error e = {0};
        hd_refuse_nomem(&e);
        hd_buf_clear(&x->w.out);
        x->w.st = HD_OK;
        hd_writer_fail(&x->w, &e);
    }
    if (x->w.failed && !x->begun) {
        hd_api_refuse(x->r, x->w.d, &x->w.why);
        return;
    }
    if (!x->q.stream) {
        if (x->w.failed) hd_writer_put(&x->w, "", x->w.d->error(&x->w.why, hd_req_id(x->r)), "\n");
        else hd_writer_whole(&x->w);
        if (x->w.st != HD_OK) hd_buf_clear(&x->w.out);
        if (!x->begun && x->w.st == HD_OK) {
            hd_reply(x->r, 200, "application/json", x->w.out.data, x->w.out.len);
            return;
        }
    }
    flush(x);
    if (!x->begun) hd_req_fail(x->r, 503, "out_of_memory", "the server is short of memory; try again later");
    else hd_reply_end(x->r);
}

/* ---- Events ---- */

static void on_event(void *arg, const hd_job_event *e)
{
    slot *one = arg;
    exchange *x = one->x;
    char text[64];
    x->busy = true;
    hd_writer_event(&x->w, one->i, e);
    if (e->kind == HD_JOB_DONE || e->kind == HD_JOB_ERROR) {
        hd_job_free(one->job);
        one->job = NULL;
    } else if (e->kind == HD_JOB_QUEUED && one->i == 0) {
        snprintf(text, sizeof text, ": queue %d\n\n", e->position);
        comment(x, text);
    } else if (e->kind == HD_JOB_PREFILL && one->i == 0) {
        snprintf(text, sizeof text, ": prefill %lld/%lld\n\n", (long long)e->done_tok,
                 (long long)e->total_tok);
        comment(x, text);
    }
    if (x->q.stream && x->w.st == HD_OK && !(x->w.failed && !x->begun)) flush(x);
    if (!x->over && (hd_writer_done(&x->w) || x->w.st != HD_OK)) finish(x);
    x->busy = false;
    if (x->over) leave(x);
}

static void on_beat(void *arg)
{
    exchange *x = arg;
    x->busy = true;
    x->beat = NULL;
    x->beats++;
    if (x->q.stream && x->quiet) comment(x, x->w.d->keep_alive ? x->w.d->keep_alive : "");
    else if (!x->q.stream && x->beats % WHOLE_BEATS == 0) {
        begin(x);
        if (!x->gone) hd_reply_write(x->r, "\n", 1);
    }
    x->quiet = true;
    if (!x->over) x->beat = hd_net_after(hd_req_net(x->r), BEAT_MS, on_beat, x);
    x->busy = false;
    if (x->over) leave(x);
}

/* ---- The beginning ---- */

static int n_prompts(const hd_chat_request *q) { return q->n_prompt ? q->n_prompt : 1; }

static int tool_marks(int32_t out[MAX_MARKS], const hd_chat_request *q, const hd_server *s)
{
    const char *const *mark = hd_tools_marks(hd_engine_chat_name(s->engine));
    int n = 0;
    if (q->tools.n == 0 || q->tools.choice == HD_TOOLS_NONE) return 0;
    for (; *mark && n < MAX_MARKS; mark++) {
        int32_t id = hd_tokenizer_find(s->tok, *mark);
        if (id >= 0) out[n++] = id;
    }
    return n;
}

static hd_status submit_one(exchange *x, int i, hd_ids *prompt_take, hd_grammar *g, hd_api_error *e)
{
    hd_err err = {0};
    bool context_full = false;
    int32_t marks[MAX_MARKS];
    const hd_chat_request *q = &x->q;
    hd_job_opts o = {.prompt = *prompt_take,
                     .user = x->user,
                     .shared_tok = hd_shared_tok(x->s->shared, prompt_take),
                     .max_tok = q->max_tok > 0 ? q->max_tok : x->s->default_max_tok,
                     .sample = q->sample,
                     .stop = q->stop,
                     .n_stop = q->n_stop,
                     .chat = q->n_msg > 0,
                     .spell = marks,
                     .n_spell = tool_marks(marks, q, x->s),
                     .limit_thinking = q->limit_thinking,
                     .think_tok = q->think_tok,
                     .grammar = g ? hd_grammar_ref(g) : NULL,
                     .logprobs = q->logprobs,
                     .n_top = q->n_top,
                     .event = on_event,
                     .arg = &x->slot[i]};
    *prompt_take = (hd_ids){0};
    o.sample.seed += (uint64_t)(i % q->n);
    x->slot[i] = (slot){x, i, NULL};
    hd_status st = hd_sched_submit(x->s->sched, &x->slot[i].job, &o, &context_full, &err);
    if (st == HD_OK) return HD_OK;
    x->slot[i].job = NULL;
    if (st == HD_LIMIT && context_full)
        return hd_refuse(e, 400, "context_length_exceeded", "messages", "%s", err.msg);
    if (st == HD_LIMIT) return hd_refuse(e, 429, "queue_full", NULL, "%s", err.msg);
    if (st == HD_CANCELLED) return hd_refuse(e, 503, "server_stopping", NULL, "%s", err.msg);
    return hd_refuse_for(e, &err, NULL);
}

static hd_status copy_ids(hd_ids *out, const hd_ids *from, hd_api_error *e)
{
    for (int64_t i = 0; i < from->n; i++)
        if (hd_ids_add(out, from->id[i], NULL) != HD_OK) return hd_refuse_nomem(e);
    return HD_OK;
}

static hd_status check_bias(const hd_chat_request *q, const hd_server *s, hd_api_error *e)
{
    for (int i = 0; i < q->sample.n_bias; i++)
        if (q->sample.bias[i].id >= hd_engine_n_vocab(s->engine))
            return hd_refuse(e, 422, "invalid_value", "logit_bias",
                             "logit_bias: token %d: the vocabulary has 0 to %lld", q->sample.bias[i].id,
                             (long long)hd_engine_n_vocab(s->engine) - 1);
    return HD_OK;
}

/* ollama's way to ask that a model be loaded: nothing is to be answered.  The model always is. */
static void reply_loaded(exchange *x)
{
    hd_writer_open(&x->w, &x->q, x->s->tok, hd_req_id(x->r), 1, 0);
    x->open = x->over = true;
    hd_writer_whole(&x->w);
    if (x->w.st == HD_OK)
        hd_reply(x->r, 200, x->q.stream ? x->w.d->stream_type : "application/json", x->w.out.data,
                 x->w.out.len);
    else hd_req_fail(x->r, 503, "out_of_memory", "the server is short of memory; try again later");
}

/* A thread's: from the body to what the scheduler is given.  All prompts are ready before the first
 * job is submitted. */
static hd_status prepare(exchange *x, hd_api_error *e)
{
    hd_status st;
    hd_chat_request *q = &x->q;
    HD_TRY(hd_chat_request_read(q, x->body.data ? x->body.data : "", x->body.len, e));
    HD_TRY(hd_api_choose_model(q, x->s, e));
    if (q->load_only) return HD_OK;
    HD_TRY(check_bias(q, x->s, e));
    for (int i = 0; i < n_prompts(q); i++) HD_TRY(hd_api_prompt(&x->ids[i], q, x->s, i, e));
    HD_TRY(hd_api_grammar(&x->grammar, q, x->s, e));
fail:
    return st;
}

static void work(hd_chore *c)
{
    exchange *x = (exchange *)c;
    x->st = prepare(x, &x->why);
    hd_buf_free(&x->body); // read: its strings are copies
}

static hd_status start(exchange *x, hd_api_error *e)
{
    hd_status st = HD_OK;
    hd_chat_request *q = &x->q;
    hd_ids one = {0};
    int64_t all = 0;
    int n = n_prompts(q) * q->n;
    if (q->load_only) {
        reply_loaded(x);
        return HD_OK;
    }
    for (int i = 0; i < n_prompts(q); i++) all += x->ids[i].n;
    hd_writer_open(&x->w, q, x->s->tok, hd_req_id(x->r), n, all);
    x->w.reasoning_too = x->s->send_reasoning_too;
    x->open = true;
    for (int i = 0; i < n; i++) {
        HD_TRY(copy_ids(&one, &x->ids[i / q->n], e));
        HD_TRY(submit_one(x, i, &one, x->grammar, e));
    }
    x->beat = hd_net_after(hd_req_net(x->r), BEAT_MS, on_beat, x);
fail:
    hd_ids_free(&one);
    return st;
}

static void ready(hd_chore *c)
{
    exchange *x = (exchange *)c;
    x->working = false;
    if (x->gone) {
        release(x);
        return;
    }
    if (x->st == HD_OK) x->st = start(x, &x->why);
    if (x->st == HD_OK && !x->over) return;
    if (x->st != HD_OK) {
        cancel_all(x);
        hd_req_on_gone(x->r, NULL, NULL);
        hd_api_refuse(x->r, x->q.dialect, &x->why);
    }
    release(x);
}

void hd_api_run(hd_req *r, const hd_dialect *d)
{
    hd_api_error e = {0};
    hd_sample_opts defaults;
    exchange *x = calloc(1, sizeof *x);
    if (!x) {
        hd_refuse_nomem(&e);
        hd_api_refuse(r, d, &e);
        return;
    }
    x->r = r;
    x->s = hd_server_of(r);
    x->user = hd_req_user(r);
    x->quiet = true;
    hd_engine_sampling(x->s->engine, &defaults);
    hd_chat_request_open(&x->q, d, &defaults);
    hd_req_take_body(r, &x->body);
    hd_req_on_gone(r, client_gone, x);
    x->chore = (hd_chore){.work = work, .finish = ready, .big = x->body.len > BIG_BODY};
    x->working = true;
    hd_work_start(x->s->work, &x->chore);
}

/* ---- Replies of one piece that take their time ---- */

typedef struct {
    hd_chore chore;
    hd_req *r;
    hd_server *s;
    const hd_dialect *d;
    hd_status (*make)(json_t **out, const char *body, size_t n, const hd_server *s, hd_api_error *e);
    hd_buf body;
    char *out;
    hd_status st;
    hd_api_error why;
    bool gone;
} aside;

static void aside_free(aside *a)
{
    hd_buf_free(&a->body);
    free(a->out);
    free(a);
}

static void aside_gone(void *arg)
{
    aside *a = arg;
    a->gone = true;
    if (hd_work_forget(a->s->work, &a->chore)) aside_free(a);
}

static void aside_work(hd_chore *c)
{
    aside *a = (aside *)c;
    json_t *j = NULL;
    hd_json_note();
    a->st = a->make(&j, a->body.data ? a->body.data : "", a->body.len, a->s, &a->why);
    if (a->st == HD_OK) a->out = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (a->st == HD_OK && (!a->out || hd_json_refused())) a->st = hd_refuse_nomem(&a->why);
    json_decref(j);
}

static void aside_done(hd_chore *c)
{
    aside *a = (aside *)c;
    if (!a->gone) {
        hd_req_on_gone(a->r, NULL, NULL);
        if (a->st == HD_OK) hd_reply(a->r, 200, "application/json", a->out, strlen(a->out));
        else hd_api_refuse(a->r, a->d, &a->why);
    }
    aside_free(a);
}

void hd_api_aside(hd_req *r, const hd_dialect *d,
                  hd_status (*make)(json_t **out, const char *body, size_t n, const hd_server *s, hd_api_error *e))
{
    hd_api_error e = {0};
    aside *a = calloc(1, sizeof *a);
    if (!a) {
        hd_refuse_nomem(&e);
        hd_api_refuse(r, d, &e);
        return;
    }
    *a = (aside){.r = r, .s = hd_server_of(r), .d = d, .make = make};
    hd_req_take_body(r, &a->body);
    hd_req_on_gone(r, aside_gone, a);
    a->chore = (hd_chore){.work = aside_work, .finish = aside_done, .big = a->body.len > BIG_BODY};
    hd_work_start(a->s->work, &a->chore);
}
