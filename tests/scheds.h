/* What the tests of the scheduler share: replies that gather events, and waiting for them. */
#ifndef HD_TESTS_SCHEDS_H
#define HD_TESTS_SCHEDS_H

#include <errno.h>
#include <semaphore.h>

#include "serve/sched_parts.h"
#include "sessions.h"

enum { MAX_TEXT = 1 << 14, MAX_IDS = 1 << 12 };
#ifdef __SANITIZE_THREAD__ // ten times slower and more: less of the same, and time for it
enum { SLOW = 1, WAIT_S = 900 };
#else
enum { SLOW = 0, WAIT_S = 60 };
#endif

typedef struct {
    hd_job *job;
    char text[MAX_TEXT], thought[MAX_TEXT]; // zeros may be part of them
    size_t n_text, n_thought;
    int32_t id[MAX_IDS];
    hd_token_info last;
    int n_id, events, positions, position, told_prefill, order;
    bool done, failed;
    hd_job_event end;
    char stop[64], why[512];
    int64_t read; // of the prompt
} reply;

static sem_t woken;
static int n_ended;

static inline void wake_up(void *arg)
{
    (void)arg;
    sem_post(&woken);
}

static inline void hear_job(void *arg, const hd_job_event *e)
{
    reply *r = arg;
    CHECK(!r->done && !r->failed, "an event after the last one");
    r->events++;
    if (e->kind == HD_JOB_QUEUED) r->position = e->position, r->positions++;
    if (e->kind == HD_JOB_PREFILL) {
        CHECK(e->done_tok >= r->read && e->done_tok <= e->total_tok);
        r->read = e->done_tok;
        r->told_prefill++;
    }
    if (e->kind == HD_JOB_TEXT) {
        bool thought = e->text_kind == HD_TEXT_THINKING;
        size_t *n = thought ? &r->n_thought : &r->n_text;
        if (*n + e->n < MAX_TEXT) memcpy((thought ? r->thought : r->text) + *n, e->text, e->n), *n += e->n;
    }
    for (int i = 0; i < e->n_token && r->n_id < MAX_IDS; i++) r->id[r->n_id++] = e->token[i].id, r->last = e->token[i];
    if (e->kind == HD_JOB_DONE) {
        r->done = true;
        r->end = *e;
        if (e->stop_string) snprintf(r->stop, sizeof r->stop, "%s", e->stop_string);
    }
    if (e->kind == HD_JOB_ERROR) {
        r->failed = true;
        snprintf(r->why, sizeof r->why, "%s", e->err->msg);
    }
    if (r->done || r->failed) r->order = ++n_ended;
}

static inline bool ended(const reply *r) { return r->done || r->failed; }

/* Poll until all have ended (or for so many seconds, which is long for what the tests ask). */
static inline bool wait_all(hd_sched *s, reply *r, int n)
{
    for (double t0 = hd_now_s(); hd_now_s() - t0 < WAIT_S;) {
        struct timespec t;
        bool all = true;
        hd_sched_poll(s);
        for (int i = 0; i < n; i++) all = all && ended(&r[i]);
        if (all) return true;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += 100000000;
        if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
        while (sem_timedwait(&woken, &t) != 0 && errno == EINTR) {}
    }
    return false;
}

static inline void free_jobs(reply *r, int n)
{
    for (int i = 0; i < n; i++) {
        hd_job_free(r[i].job);
        r[i].job = NULL;
    }
}

static inline hd_sched *open_sched(hd_engine *e, hd_sched_opts o)
{
    hd_sched *s = NULL;
    o.wake = wake_up;
    CHECK_OK(hd_sched_open(&s, e, &o, &err));
    if (!s) exit(hd_test_end());
    return s;
}

static inline hd_ids ids_of(const int32_t *id, int64_t n)
{
    hd_ids v = {0};
    for (int64_t i = 0; i < n; i++) CHECK_OK(hd_ids_add(&v, id[i], &err));
    return v;
}

/* A job of n ids that goes to r; o's other fields as given. */
static inline void submit(hd_sched *s, reply *r, const int32_t *id, int64_t n, hd_job_opts o)
{
    memset(r, 0, sizeof *r);
    o.prompt = ids_of(id, n);
    o.event = hear_job;
    o.arg = r;
    if (!o.user) o.user = 1;
    CHECK_OK(hd_sched_submit(s, &r->job, &o, NULL, &err));
}

static inline bool same_reply(const reply *a, const reply *b)
{
    return ended(a) && a->done == b->done && a->n_id == b->n_id && memcmp(a->id, b->id, (size_t)a->n_id * sizeof *a->id) == 0 &&
           a->n_text == b->n_text && memcmp(a->text, b->text, a->n_text) == 0 && a->n_thought == b->n_thought &&
           memcmp(a->thought, b->thought, a->n_thought) == 0 && a->end.reason == b->end.reason;
}

#endif
