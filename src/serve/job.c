/* Jobs: their options, their life, and the mail that carries their events from one thread to the other. */
#include "serve/job.h"

#include <limits.h>
#include <string.h>

#include "base/log.h"

enum { MAX_OUT = 64 << 20, MAX_STOPS = 64, MAX_SPELL = 64 };

/* ---- Opening ---- */

/* Stop strings and spelled ids, in one piece of memory: pointers, then ids, then characters. */
static hd_status copy_lists(hd_job *j, const hd_job_opts *o, hd_err *err)
{
    if (o->n_stop < 0 || o->n_stop > MAX_STOPS || (o->n_stop > 0 && !o->stop))
        return hd_fail(err, HD_USAGE, "job: %d stop strings: at most %d", o->n_stop, MAX_STOPS);
    if (o->n_spell < 0 || o->n_spell > MAX_SPELL || (o->n_spell > 0 && !o->spell))
        return hd_fail(err, HD_USAGE, "job: %d spelled ids: at most %d", o->n_spell, MAX_SPELL);
    size_t n_stop = (size_t)o->n_stop, n_spell = (size_t)o->n_spell, chars = 0;
    for (size_t i = 0; i < n_stop; i++) {
        if (!o->stop[i]) return hd_fail(err, HD_USAGE, "job: stop string %zu is missing", i + 1);
        chars += strlen(o->stop[i]) + 1;
    }
    hd_status st = hd_alloc(&j->lists, n_stop * sizeof(char *) + n_spell * sizeof(int32_t) + chars, err);
    if (st != HD_OK) return st;
    const char **stop = j->lists;
    int32_t *spell = (int32_t *)(stop + n_stop);
    char *to = (char *)(spell + n_spell);
    for (size_t i = 0; i < n_stop; i++) {
        stop[i] = strcpy(to, o->stop[i]);
        to += strlen(to) + 1;
    }
    if (n_spell) memcpy(spell, o->spell, n_spell * sizeof *spell);
    j->o.stop = stop;
    j->o.spell = spell;
    return HD_OK;
}

/* What the stream would find later is told now. */
static hd_status check_stops(const hd_job *j, hd_err *err)
{
    hd_stream probe = {.stop = j->o.stop, .n_stop = j->o.n_stop};
    hd_status st = hd_stream_open(&probe, HD_TEXT_ANSWER, err);
    hd_stream_close(&probe);
    return st;
}

static hd_status check_ids(const hd_job *j, int64_t n_vocab, hd_err *err)
{
    if (j->ids.n < 1) return hd_fail(err, HD_USAGE, "job: the prompt is empty");
    for (int64_t i = 0; i < j->ids.n; i++)
        if (j->ids.id[i] < 0 || j->ids.id[i] >= n_vocab)
            return hd_fail(err, HD_USAGE, "job: id %d: the vocabulary has 0 to %lld", j->ids.id[i], (long long)n_vocab - 1);
    if (j->o.n_top < 0 || j->o.n_top > HD_MAX_TOP)
        return hd_fail(err, HD_USAGE, "job: %d likeliest ids: at most %d", j->o.n_top, HD_MAX_TOP);
    return HD_OK;
}

hd_status hd_job_open(hd_job **out, hd_job_opts *o, int64_t n_vocab, hd_err *err)
{
    hd_status st;
    hd_job *j = NULL;
    hd_ids prompt = o->prompt;
    hd_grammar *grammar = o->grammar;
    hd_sample_opts sample = o->sample;
    *out = NULL;
    o->prompt = (hd_ids){0};
    o->grammar = NULL;
    HD_TRY(hd_alloc(&j, sizeof *j, err));
    atomic_init(&j->refs, 1);
    j->ids = prompt;
    j->o = *o;
    j->o.grammar = grammar;
    prompt = (hd_ids){0};
    grammar = NULL;
    j->prompt_tok = j->ids.n;
    j->told_position = -1;
    j->told_done = -1;
    j->ending.job = j;
    hd_buf_init(&j->out, MAX_OUT);
    HD_TRY(copy_lists(j, o, err));
    HD_TRY(check_stops(j, err));
    HD_TRY(check_ids(j, n_vocab, err));
    if (sample.top_p == 0) sample.top_p = 1;
    if (sample.repetition_penalty == 0) sample.repetition_penalty = 1;
    HD_TRY(hd_sampler_open(&j->p, &sample, n_vocab, err));
    j->o.sample = (hd_sample_opts){0}; // its bias is the caller's; the sampler has its own
    *out = j;
    return HD_OK;
fail:
    hd_ids_free(&prompt);
    if (grammar) hd_grammar_close(grammar);
    hd_job_unref(j);
    return st;
}

void hd_job_unref(hd_job *j)
{
    if (!j || atomic_fetch_sub(&j->refs, 1) > 1) return;
    hd_step_close(&j->step);
    hd_session_close(j->s);
    hd_sampler_close(j->p);
    if (j->o.grammar) hd_grammar_close(j->o.grammar);
    hd_ids_free(&j->ids);
    hd_buf_free(&j->out);
    free(j->tok);
    free(j->lists);
    free(j);
}

void hd_job_cancel(hd_job *j)
{
    if (!j) return;
    j->quiet = true;
    atomic_store(&j->cancelled, true);
    hd_job_unref(j);
}

void hd_job_free(hd_job *j) { hd_job_cancel(j); } // after the last event there is nothing left to cancel

/* ---- Mail ---- */

void hd_mailbox_init(hd_mailbox *m)
{
    pthread_mutex_init(&m->lock, NULL);
    m->first = NULL;
    m->last = &m->first;
}

static void post(hd_mailbox *m, hd_mail *mail)
{
    atomic_fetch_add(&mail->job->refs, 1);
    mail->next = NULL;
    pthread_mutex_lock(&m->lock);
    *m->last = mail;
    m->last = &mail->next;
    pthread_mutex_unlock(&m->lock);
}

static hd_mail *take(hd_mailbox *m, int most)
{
    pthread_mutex_lock(&m->lock);
    hd_mail *first = m->first, **end = &m->first;
    for (int i = 0; i < most && *end; i++) end = &(*end)->next;
    hd_mail *rest = *end;
    *end = NULL;
    m->first = rest;
    if (!rest) m->last = &m->first;
    pthread_mutex_unlock(&m->lock);
    return first;
}

static void drop(hd_mail *mail)
{
    hd_job *j = mail->job;
    if (mail != &j->ending) free(mail);
    hd_job_unref(j);
}

bool hd_mailbox_deliver(hd_mailbox *m, int most)
{
    for (hd_mail *mail = take(m, most), *next; mail; mail = next) {
        hd_job *j = mail->job;
        next = mail->next;
        if (mail->e.kind == HD_JOB_QUEUED) {
            atomic_store(&j->position_posted, false);
            mail->e.position = atomic_load(&j->position);
        }
        if (!j->quiet && j->o.event) j->o.event(j->o.arg, &mail->e);
        drop(mail);
    }
    pthread_mutex_lock(&m->lock);
    bool more = m->first != NULL;
    pthread_mutex_unlock(&m->lock);
    return more;
}

void hd_mailbox_destroy(hd_mailbox *m)
{
    for (hd_mail *mail = take(m, INT_MAX), *next; mail; mail = next) {
        next = mail->next;
        drop(mail);
    }
    pthread_mutex_destroy(&m->lock);
}

/* ---- Events ---- */

static hd_status mail_open(hd_mail **out, hd_job *j, hd_job_event_kind kind, size_t more_bytes, hd_err *err)
{
    hd_status st = hd_alloc(out, sizeof **out + more_bytes, err);
    if (st != HD_OK) return st;
    (*out)->job = j;
    (*out)->e.kind = kind;
    return HD_OK;
}

/* A queue that moves fast sends one mail, which tells where it is when it is read. */
void hd_job_post_position(hd_mailbox *m, hd_job *j, int position)
{
    hd_mail *mail;
    if (j->warm || j->told_position == position) return;
    j->told_position = position;
    atomic_store(&j->position, position);
    if (atomic_exchange(&j->position_posted, true)) return;
    if (mail_open(&mail, j, HD_JOB_QUEUED, 0, NULL) == HD_OK) post(m, mail);
    else atomic_store(&j->position_posted, false); // the next move will be told
}

/* A prompt that was put aside in the middle is read again, from its last whole block on: of that
 * nothing is told. */
hd_status hd_job_post_progress(hd_mailbox *m, hd_job *j, int64_t done, int64_t total, hd_err *err)
{
    hd_mail *mail;
    if (j->warm || done <= j->told_done) return HD_OK;
    hd_status st = mail_open(&mail, j, HD_JOB_PREFILL, 0, err);
    if (st != HD_OK) return st;
    j->told_done = done;
    mail->e.done_tok = done;
    mail->e.total_tok = total;
    post(m, mail);
    return HD_OK;
}

/* A mail of this kind with the text and the ids that wait. */
static hd_status with_text(hd_mail **out, hd_job *j, hd_job_event_kind kind, hd_err *err)
{
    size_t ids = (size_t)j->n_tok * sizeof *j->tok;
    hd_status st = mail_open(out, j, kind, ids + j->out.len + 1, err);
    if (st != HD_OK) return st;
    hd_token_info *tok = (hd_token_info *)(*out + 1);
    char *text = (char *)(tok + j->n_tok);
    if (ids) memcpy(tok, j->tok, ids);
    if (j->out.len) memcpy(text, j->out.data, j->out.len);
    (*out)->e.text_kind = j->out_kind;
    (*out)->e.text = text;
    (*out)->e.n = j->out.len;
    (*out)->e.token = tok;
    (*out)->e.n_token = j->n_tok;
    hd_buf_clear(&j->out);
    j->n_tok = 0;
    return HD_OK;
}

hd_status hd_job_post_text(hd_mailbox *m, hd_job *j, hd_err *err)
{
    hd_mail *mail;
    if (j->warm) return HD_OK;
    hd_status st = with_text(&mail, j, HD_JOB_TEXT, err);
    if (st == HD_OK) post(m, mail);
    return st;
}

static void usage(const hd_job *j, hd_job_event *e, double now)
{
    e->prompt_tok = j->prompt_tok;
    e->cached_tok = j->cached_tok;
    e->gen_tok = j->step.r.n_tok;
    e->thinking_tok = j->step.r.n_thinking;
    e->queue_s = (j->t_admit > 0 ? j->t_admit : now) - j->t_submit;
    if (j->t_admit > 0) e->prefill_s = (j->t_first > 0 ? j->t_first : now) - j->t_admit;
    if (j->t_first > 0) e->gen_s = now - j->t_first;
}

void hd_job_post_done(hd_mailbox *m, hd_job *j, hd_end reason)
{
    hd_mail *mail = &j->ending;
    if (j->warm) return;
    if (j->n_tok > 0 && with_text(&mail, j, HD_JOB_DONE, NULL) != HD_OK) mail = &j->ending;
    mail->e.kind = HD_JOB_DONE;
    mail->e.reason = reason;
    mail->e.stop_string = j->step.r.why == HD_STOP_STRING ? j->step.text.found : NULL;
    usage(j, &mail->e, hd_now_s());
    post(m, mail);
}

void hd_job_post_error(hd_mailbox *m, hd_job *j, const hd_err *err)
{
    if (j->warm) return;
    j->ending.err = *err;
    j->ending.e = (hd_job_event){.kind = HD_JOB_ERROR, .err = &j->ending.err};
    usage(j, &j->ending.e, hd_now_s());
    post(m, &j->ending);
}
