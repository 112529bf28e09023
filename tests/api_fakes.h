/* A network and a scheduler of a few lines, so that the API is tested without sockets and without computing:
 * a request is a body, its reply is kept; a job is what was asked for, its events are told by the test.  A
 * tiny model renders and tokenizes. */
#ifndef HD_TESTS_API_FAKES_H
#define HD_TESTS_API_FAKES_H

#include <jansson.h>

#include "serve/api.h"
#include "sessions.h"

/* ---- The network ---- */

struct hd_req {
    const char *body;
    size_t n_body;
    const char *param;
    void *app;
    int status; // 0: no reply yet
    char type[64];
    hd_buf head, out, copy; // copy: of the body, when it was made beforehand
    bool over;
    int n_writes;
    void (*gone)(void *arg);
    void *gone_arg;
};
struct hd_timer {
    void (*fn)(void *arg);
    void *arg;
};
static hd_timer the_timer; // the last one that was set

const char *hd_req_method(const hd_req *r) { return "POST"; }
const char *hd_req_path(const hd_req *r) { return "/"; }
const char *hd_req_param(const hd_req *r) { return r->param; }
const char *hd_req_query(const hd_req *r, const char *name) { return NULL; }
const char *hd_req_header(const hd_req *r, const char *name) { return NULL; }
const char *hd_req_body(const hd_req *r, size_t *n)
{
    *n = r->n_body;
    return r->body;
}
void hd_req_take_body(hd_req *r, hd_buf *out)
{
    *out = r->copy;
    hd_buf_init(&r->copy, SIZE_MAX);
    if (!out->data && r->n_body && hd_buf_add(out, r->body, r->n_body, NULL) != HD_OK) abort();
}
const char *hd_req_id(const hd_req *r) { return "req-1"; }
uint64_t hd_req_user(const hd_req *r) { return 7; }
void *hd_req_app(const hd_req *r) { return r->app; }
void hd_reply_header(hd_req *r, const char *name, const char *value)
{
    if (hd_buf_addf(&r->head, NULL, "%s: %s\n", name, value) != HD_OK) abort();
}
void hd_reply_begin(hd_req *r, int status, const char *type)
{
    CHECK(r->status == 0, "one head");
    r->status = status;
    snprintf(r->type, sizeof r->type, "%s", type);
}
void hd_reply_write(hd_req *r, const void *p, size_t n)
{
    CHECK(r->status && !r->over);
    r->n_writes++;
    if (hd_buf_add(&r->out, p, n, NULL) != HD_OK) abort();
}
void hd_reply_end(hd_req *r)
{
    CHECK(r->status && !r->over, "one end");
    r->over = true;
}
void hd_reply(hd_req *r, int status, const char *type, const void *body, size_t n)
{
    hd_reply_begin(r, status, type);
    if (hd_buf_add(&r->out, body, n, NULL) != HD_OK) abort();
    r->over = true;
}
size_t hd_reply_backlog(const hd_req *r) { return 0; }
void hd_req_fail(hd_req *r, int status, const char *code, const char *message)
{
    hd_api_fail_openai(r, status, code, message);
}
void hd_req_note(hd_req *r, int64_t prompt_tok, int64_t cached_tok, int64_t gen_tok) {}
void hd_req_on_gone(hd_req *r, void (*fn)(void *arg), void *arg)
{
    r->gone = fn;
    r->gone_arg = arg;
}
hd_net *hd_req_net(const hd_req *r) { return NULL; }
hd_timer *hd_net_after(hd_net *n, int ms, void (*fn)(void *arg), void *arg)
{
    the_timer = (hd_timer){fn, arg};
    return &the_timer;
}
void hd_net_cancel(hd_timer *t) { the_timer = (hd_timer){0}; }

hd_status hd_net_post(hd_net *n, void (*fn)(void *arg), void *arg, hd_err *e) { return HD_OK; }

/* ---- The scheduler ---- */

static hd_ids warmed; // what was last asked to be computed ahead

hd_status hd_sched_warm(hd_sched *s, hd_ids *prompt, uint64_t user, int64_t shared_tok, hd_err *e)
{
    hd_ids_free(&warmed);
    warmed = *prompt;
    *prompt = (hd_ids){0};
    return HD_OK;
}

struct hd_job {
    hd_job_opts o; // .prompt is kept; the rest is for looking at while the request lives
    bool live, cancelled;
};
static struct hd_job jobs[8];
static int n_jobs;
static hd_status submit_status; // HD_OK: jobs are taken
static bool submit_full;

hd_status hd_sched_submit(hd_sched *s, hd_job **out, hd_job_opts *o, bool *context_full, hd_err *e)
{
    *context_full = submit_full;
    if (submit_status != HD_OK || n_jobs == 8) {
        hd_ids_free(&o->prompt);
        hd_grammar_close(o->grammar);
        return hd_fail(e, submit_status, "the queue is full: 3 jobs wait");
    }
    jobs[n_jobs] = (hd_job){.o = *o, .live = true};
    *out = &jobs[n_jobs++];
    return HD_OK;
}
static void job_over(hd_job *j)
{
    hd_ids_free(&j->o.prompt);
    hd_grammar_close(j->o.grammar);
    j->o.grammar = NULL;
    j->live = false;
}
void hd_job_cancel(hd_job *j)
{
    CHECK(j->live);
    j->cancelled = true;
    job_over(j);
}
void hd_job_free(hd_job *j)
{
    CHECK(j->live);
    job_over(j);
}
void hd_sched_get_stats(hd_sched *s, hd_sched_stats *out) { *out = (hd_sched_stats){.wait_s = 4.5}; }

static inline void tell(int job, hd_job_event e)
{
    if (jobs[job].live) jobs[job].o.event(jobs[job].o.arg, &e);
}
static inline void tell_text(int job, hd_text_kind kind, const char *s)
{
    tell(job, (hd_job_event){.kind = HD_JOB_TEXT, .text_kind = kind, .text = s, .n = strlen(s)});
}
static inline void tell_done(int job, hd_end reason, int64_t gen, int64_t thinking)
{
    tell(job, (hd_job_event){.kind = HD_JOB_DONE,
                             .reason = reason,
                             .prompt_tok = jobs[job].o.prompt.n,
                             .cached_tok = 3,
                             .gen_tok = gen,
                             .thinking_tok = thinking,
                             .gen_s = 0.5});
}

/* ---- A server and a request ---- */

static hd_server the_server;
static hd_req the_req;

static inline void serve_tiny(const char *chat_format)
{
    static const hd_alias alias[] = {{"deepseek-reasoner", 1}, {"deepseek-chat", 0}};
    hd_engine_opts o = {.n_threads = 1, .ctx_tok = 2000, .n_sessions = 1, .chat_format = chat_format};
    the_server = (hd_server){
        .model_name = "tiny", .created = 1700000000, .alias = alias, .n_alias = 2, .sched = (hd_sched *)jobs};
    CHECK_OK(hd_engine_open(&the_server.engine, tiny_model(TINY_V3, 1), &o, &err));
    if (!the_server.engine) exit(hd_test_end());
    the_server.tok = hd_engine_tokenizer(the_server.engine, &err);
}

static inline void forget_reply(void)
{
    hd_buf_free(&the_req.head);
    hd_buf_free(&the_req.out);
    hd_buf_free(&the_req.copy);
    for (int i = 0; i < n_jobs; i++) CHECK(!jobs[i].live, "job %d goes on after its request", i);
    n_jobs = 0;
    hd_ids_free(&warmed);
    the_req = (hd_req){.app = &the_server};
    hd_buf_init(&the_req.head, 1 << 16);
    hd_buf_init(&the_req.out, 1 << 24);
    hd_buf_init(&the_req.copy, SIZE_MAX);
}

/* Hand a request to its handler. */
static inline void ask_n(const hd_dialect *d, const char *body, size_t n)
{
    forget_reply();
    the_req.body = body;
    the_req.n_body = n;
    hd_api_run(&the_req, d);
}
static inline void ask(const hd_dialect *d, const char *body) { ask_n(d, body, strlen(body)); }

#endif
