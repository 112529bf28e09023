/* The scheduler's thread and its doors.  What a pass holds is decided in queue.c and pass.c.
 *
 *   wait until there is work -> take in -> drop the cancelled -> admit -> pass -> mail out, wake the
 *   other side -> again */
#include "serve/sched.h"

#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "serve/sched_parts.h"

enum { MAX_QUEUE = 256, MAX_LIVE = 64, FLUSH_S = 10, PARK_BYTES = 256 << 20 };

/* ---- The thread ---- */

static bool has_work(const hd_sched *s) { return s->in_first || s->n_live > 0 || s->n_waiting > 0 || s->warm; }

/* Until there is something to do; returns what was submitted.  The statistics are shown meanwhile. */
static hd_job *take_in(hd_sched *s, bool *closing, hd_drain *drain)
{
    pthread_mutex_lock(&s->lock);
    while (!has_work(s) && !s->closing && s->drain == HD_DRAIN_NO) pthread_cond_wait(&s->more, &s->lock);
    hd_job *in = s->in_first;
    s->in_first = NULL;
    s->in_last = &s->in_first;
    *closing = s->closing;
    *drain = s->drain;
    pthread_mutex_unlock(&s->lock);
    return in;
}

static void sort_in(hd_sched *s, hd_job *in)
{
    for (hd_job *j = in, *next; j; j = next) {
        hd_err err;
        next = j->next;
        if (j->warm) {
            j->next = s->warm;
            s->warm = j;
        } else if (hd_queue_put(s, j, &err) != HD_OK) {
            atomic_fetch_sub(&s->n_queued, 1);
            hd_queue_fail(s, j, &err);
        }
    }
}

static void show_stats(hd_sched *s)
{
    double now = hd_now_s(), t = now - s->rate_t0;
    hd_sched_stats x = {.live = s->n_live,
                        .queued = atomic_load(&s->n_queued),
                        .parked = s->n_parked,
                        .pages_free = hd_free_pages(s),
                        .pages_all = hd_cache_n_pages(s->e->cache),
                        .cache_tok = hd_prefix_n(s->prefix) * HD_PAGE_TOK,
                        .jobs_done = s->jobs_done,
                        .jobs_cancelled = s->jobs_cancelled,
                        .prompt_tok = s->prompt_tok,
                        .cached_tok = s->cached_tok,
                        .gen_tok = s->gen_tok,
                        .passes = s->n_passes,
                        .parkings = s->parkings,
                        .drafted_tok = s->drafted_tok,
                        .accepted_tok = s->accepted_tok};
    for (hd_user *u = s->users; u; u = u->next) x.users++;
    if (s->disk) hd_disk_totals(s->disk, &x.disk_bytes, &x.disk_tok);
    x.disk_tok *= HD_PAGE_TOK;
    if (t > 2) {
        s->gen_tok_s = (double)(s->gen_tok - s->rate_gen0) / t;
        s->prompt_tok_s = (double)(s->prompt_tok - s->rate_prompt0) / t;
        s->rate_t0 = now;
        s->rate_gen0 = s->gen_tok;
        s->rate_prompt0 = s->prompt_tok;
    }
    x.gen_tok_s = s->gen_tok_s;
    x.prompt_tok_s = s->prompt_tok_s;
    int before = x.queued + x.parked, places = s->o.max_live;
    x.wait_s = x.live + before < places ? 0 : s->job_s * (double)(before + 1) / places;
    pthread_mutex_lock(&s->lock);
    s->stats = x;
    pthread_mutex_unlock(&s->lock);
}

static void wake(hd_sched *s)
{
    if (s->posted && s->o.wake) s->o.wake(s->o.wake_arg);
    s->posted = false;
}

/* What the cache holds goes to disk, the latest first; in peace, but not for ever, and not so much that the
 * files would push each other out. */
static void flush(hd_sched *s)
{
    double t0 = hd_now_s();
    if (s->disk) s->flush_left = (int64_t)(s->o.disk_bytes / 2 / hd_disk_block_bytes(s->disk));
    while (hd_now_s() - t0 < FLUSH_S && hd_path_flush(s)) hd_disk_settle(s->disk);
    if (s->disk) hd_disk_settle(s->disk);
    s->flushed = true;
}

static void be_idle(hd_sched *s)
{
    flush(s);
    show_stats(s);
    pthread_mutex_lock(&s->lock);
    s->idle = true;
    pthread_mutex_unlock(&s->lock);
    s->posted = true;
    wake(s);
    pthread_mutex_lock(&s->lock);
    while (!s->closing) pthread_cond_wait(&s->more, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void *run(void *arg)
{
    hd_sched *s = arg;
    for (;;) {
        bool closing;
        hd_drain drain;
        sort_in(s, take_in(s, &closing, &drain));
        hd_queue_drop_cancelled(s);
        if (closing || drain == HD_DRAIN_STOP) hd_queue_end_all(s);
        if (closing) break;
        if (drain != HD_DRAIN_NO && s->n_live == 0 && s->n_waiting == 0) {
            hd_queue_end_all(s);
            be_idle(s);
            continue;
        }
        s->changed = s->changed || (s->park && hd_park_news(s->park));
        hd_queue_admit(s);
        hd_queue_tell(s);
        hd_sched_pass(s);
        if (s->disk) hd_disk_reap(s->disk);
        show_stats(s);
        wake(s);
    }
    if (!s->flushed) flush(s);
    return NULL;
}

/* ---- Opening ---- */

/* Can the model guess that way?  Told at once, not with the first job. */
static hd_status try_draft(hd_engine *e, const hd_sched_opts *o, hd_err *err)
{
    hd_session *s = NULL;
    hd_status st = hd_session_open(&s, e, err);
    if (st == HD_OK) st = hd_session_draft(s, o->draft, o->small, 0, err);
    hd_session_close(s);
    return st;
}

static hd_status open_disk(hd_sched *s, const hd_sched_opts *o, uint8_t key[HD_PREFIX_KEY], hd_err *err)
{
    hd_status st;
    char *blocks = NULL;
    uint8_t model[HD_FINGERPRINT];
    randombytes_buf(key, HD_PREFIX_KEY);
    if (!o->park_dir) return HD_OK;
    if (mkdir(o->park_dir, 0700) != 0 && errno != EEXIST)
        return hd_fail_errno(err, "cache: %.200s", o->park_dir);
    HD_TRY(hd_park_open(&s->park, o->park_dir, PARK_BYTES, s->e, err));
    if (o->disk_bytes == 0) return HD_OK;
    if (asprintf(&blocks, "%s/blocks", o->park_dir) < 0)
        return hd_fail(err, HD_NOMEM, "cache: no memory for a folder's name");
    hd_engine_fingerprint(s->e, model);
    model[0] ^= (uint8_t)s->e->cache_type; // other bytes, other names
    HD_TRY(hd_disk_open(&s->disk, blocks, o->disk_bytes, s->e->cache, hd_model_config(s->e->model)->n_layers, model, key, err));
fail:
    free(blocks);
    return st;
}

hd_status hd_sched_open(hd_sched **out, hd_engine *e, const hd_sched_opts *o, hd_err *err)
{
    hd_status st;
    hd_sched *s = NULL;
    uint8_t key[HD_PREFIX_KEY];
    *out = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    s->e = e;
    s->o = *o;
    if (s->o.max_queue <= 0) s->o.max_queue = MAX_QUEUE;
    if (s->o.max_live <= 0) s->o.max_live = MAX_LIVE;
    s->in_last = &s->in_first;
    s->rate_t0 = hd_now_s();
    hd_mailbox_init(&s->mail);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    HD_TRY(hd_alloc_n(&s->live, (size_t)s->o.max_live, sizeof *s->live, err));
    HD_TRY(hd_alloc_n(&s->most, (size_t)s->o.max_live, sizeof *s->most, err));
    HD_TRY(hd_alloc_n(&s->who, (size_t)s->o.max_live, sizeof *s->who, err));
    if (o->draft != HD_DRAFT_NONE) HD_TRY(try_draft(e, o, err));
    HD_TRY(open_disk(s, o, key, err));
    HD_TRY(hd_prefix_open(&s->prefix, e->cache, key, err));
    show_stats(s);
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        st = hd_fail(err, HD_IO, "scheduler: the system refuses a thread");
        goto fail;
    }
    s->started = true;
    *out = s;
    return HD_OK;
fail:
    hd_sched_close(s);
    return st;
}

void hd_sched_close(hd_sched *s)
{
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    if (s->started) pthread_join(s->thread, NULL);
    hd_mailbox_destroy(&s->mail);
    hd_past_free(&s->past);
    hd_disk_close(s->disk);
    hd_prefix_close(s->prefix);
    pthread_cond_destroy(&s->more);
    pthread_mutex_destroy(&s->lock);
    free(s->live);
    free(s->most);
    free(s->who);
    hd_park_close(s->park);
    free(s);
}

/* ---- Doors ---- */

void hd_sched_poll(hd_sched *s)
{
    while (hd_mailbox_deliver(&s->mail, INT_MAX)) {}
}

bool hd_sched_poll_some(hd_sched *s, int most) { return hd_mailbox_deliver(&s->mail, most); }

/* Give a job to the thread; `in` holds the reference of the side that submits. */
static hd_status hand_in(hd_sched *s, hd_job *j, hd_err *err)
{
    hd_status st = HD_OK;
    pthread_mutex_lock(&s->lock);
    if (s->drain != HD_DRAIN_NO) {
        st = hd_fail(err, HD_CANCELLED, "the server is stopping: it takes nothing new");
    } else if (!j->warm && atomic_load(&s->n_queued) >= s->o.max_queue) {
        st = hd_fail(err, HD_LIMIT, "the queue is full: %d requests wait", s->o.max_queue);
    } else {
        if (!j->warm) atomic_fetch_add(&s->n_queued, 1);
        atomic_fetch_add(&j->refs, 1);
        j->t_submit = hd_now_s();
        j->next = NULL;
        *s->in_last = j;
        s->in_last = &j->next;
        s->idle = false;
        pthread_cond_signal(&s->more);
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}

hd_status hd_sched_submit(hd_sched *s, hd_job **out, hd_job_opts *o, bool *context_full, hd_err *err)
{
    hd_status st;
    hd_job *j = NULL;
    *out = NULL;
    if (context_full) *context_full = false;
    HD_TRY(hd_job_open(&j, o, s->e->n_vocab, err));
    if (j->ids.n >= s->e->ctx_tok) {
        if (context_full) *context_full = true;
        st = hd_fail(err, HD_LIMIT, "the prompt has %lld tokens, and the context holds %lld with the answer",
                     (long long)j->ids.n, (long long)s->e->ctx_tok);
        goto fail;
    }
    HD_TRY(hand_in(s, j, err));
    *out = j;
    return HD_OK;
fail:
    hd_job_unref(j);
    return st;
}

hd_status hd_sched_warm(hd_sched *s, hd_ids *prompt, uint64_t user, int64_t shared_tok, hd_err *err)
{
    hd_job *j = NULL;
    hd_job_opts o = {.prompt = *prompt, .user = user, .shared_tok = shared_tok, .max_tok = 1};
    *prompt = (hd_ids){0};
    hd_status st = hd_job_open(&j, &o, s->e->n_vocab, err);
    if (st != HD_OK) return st;
    j->warm = true;
    if (j->ids.n >= s->e->ctx_tok) st = hd_fail(err, HD_LIMIT, "the prompt is longer than the context");
    else st = hand_in(s, j, err);
    hd_job_unref(j); // the thread has its own
    return st;
}

void hd_sched_get_stats(hd_sched *s, hd_sched_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
    out->queued = atomic_load(&s->n_queued);
    if (out->live == 0) out->gen_tok_s = out->prompt_tok_s = 0;
}

void hd_sched_drain(hd_sched *s, bool finish)
{
    pthread_mutex_lock(&s->lock);
    s->drain = finish || !s->park ? HD_DRAIN_FINISH : HD_DRAIN_STOP;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
}

bool hd_sched_idle(const hd_sched *s)
{
    hd_sched *m = (hd_sched *)(uintptr_t)s;
    pthread_mutex_lock(&m->lock);
    bool idle = m->idle;
    pthread_mutex_unlock(&m->lock);
    return idle;
}
