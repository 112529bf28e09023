/* One pass over the living sequences.
 *
 * Those who generate get a row each, but while several users do, each user gets as many rows as the one with
 * the fewest; a user's sequences take turns.  Prompts get slices: alone as many rows as a pass holds; beside
 * others who generate as many as take about as long as generating does, so that a long prompt makes the
 * others' words come half as fast and no slower.  The users whose prompts wait share the rows of a slice
 * evenly, and one user's prompts go in order of arrival.
 *
 * How long a row takes is learnt: gen_pass_s from passes without prompts, prompt_row_s from what the
 * others take longer. */
#include <string.h>

#include "base/log.h"
#include "serve/sched_parts.h"

enum { SLICE_MIN = 8, MEASURE_EVERY = 32, DISK_BUDGET = 16 << 20, DISK_BUDGET_ALONE = 256 << 20 };
#define SLICE_S   0.02 // a slice may always take so long
#define HEADS_MAX 4.0

/* ---- Who gets how many rows ---- */

static bool is_saying(const hd_job *j) { return j->state == HD_JOB_SAYING; }

static int n_saying_of(const hd_sched *s, const hd_user *u)
{
    int n = 0;
    for (int i = 0; i < s->n_live; i++) n += is_saying(s->live[i]) && s->live[i]->user == u;
    return n;
}

/* How many of its user's generating sequences were served longer ago than j. */
static int rank_of(const hd_sched *s, const hd_job *j)
{
    int n = 0;
    for (int i = 0; i < s->n_live; i++) {
        const hd_job *k = s->live[i];
        if (k == j || !is_saying(k) || k->user != j->user) continue;
        n += k->last_pass < j->last_pass || (k->last_pass == j->last_pass && k->number < j->number);
    }
    return n;
}

/* Returns how many rows were given. */
static int rows_to_say(hd_sched *s)
{
    int quota = 0, n = 0;
    for (const hd_user *u = s->users; u; u = u->next) {
        int k = n_saying_of(s, u);
        if (k > 0 && (quota == 0 || k < quota)) quota = k;
    }
    for (int i = 0; i < s->n_live; i++) {
        hd_job *j = s->live[i];
        if (!is_saying(j)) continue;
        j->rows = rank_of(s, j) < quota;
        n += j->rows;
    }
    return n;
}

/* May this prompt go on, or is an earlier one about to compute the same? */
static bool waits_for_other(const hd_sched *s, int i)
{
    for (int k = 0; k < i; k++)
        if (!is_saying(s->live[k]) && hd_path_same_next(s->live[i], s->live[k])) return true;
    return false;
}

/* Rows for prompts: two rounds, the first by users' shares, the second for what those left. */
static void rows_to_read(hd_sched *s, const bool *later, int rows)
{
    int n_users = 0;
    for (hd_user *u = s->users; u; u = u->next) {
        bool any = false;
        for (int i = 0; i < s->n_live; i++) any = any || (s->live[i]->user == u && !is_saying(s->live[i]));
        n_users += any;
    }
    int share = n_users > 0 ? (rows + n_users - 1) / n_users : 0;
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < s->n_live && rows > 0; i++) {
            hd_job *j = s->live[i];
            if (is_saying(j) || later[i] || waits_for_other(s, i)) continue;
            int64_t todo = j->s->ids.n - hd_seq_len(j->s->seq) - j->rows, most = rows;
            if (round == 0) {
                for (int k = 0; k < s->n_live; k++)
                    if (s->live[k]->user == j->user && !is_saying(s->live[k])) most -= s->live[k]->rows;
                if (most > share) most = share;
            }
            if (todo < 1 && j->rows == 0) todo = 1; // all is known but the logits
            if (most > todo) most = todo;
            if (most < 1) continue;
            j->rows += (int)most;
            rows -= (int)most;
        }
}

static int slice(const hd_sched *s, int saying, int reading)
{
    int max = hd_model_max_rows(s->e->model);
    double heads = (double)reading / saying, share = heads < 1 ? 1 : heads > HEADS_MAX ? HEADS_MAX : heads;
    double rows = s->prompt_row_s > 0 ? (s->gen_pass_s * share + SLICE_S) / s->prompt_row_s : 4 * SLICE_MIN;
    return rows < SLICE_MIN ? SLICE_MIN : rows > max ? max : (int)rows;
}

/* What is known of the prompts is found; what is not gets rows.  False: a job had to be
 * given up, look again. */
static bool plan(hd_sched *s)
{
    bool later[s->n_live + 1]; // none may be left, and an array has a first
    hd_err err;
    int n_reading = 0, saying = 0;
    for (int i = 0; i < s->n_live; i++) saying += is_saying(s->live[i]);
    if (s->disk) { // a block at least, or nobody would ever get one
        s->disk_budget = saying > 0 ? DISK_BUDGET : DISK_BUDGET_ALONE;
        if (s->disk_budget < hd_disk_block_bytes(s->disk)) s->disk_budget = hd_disk_block_bytes(s->disk);
    }
    for (int i = 0; i < s->n_live; i++) {
        hd_job *j = s->live[i];
        j->rows = 0;
        later[i] = false;
        if (is_saying(j)) continue;
        n_reading++;
        if (hd_path_find(s, j, &later[i], &err) == HD_OK) continue;
        hd_queue_fail(s, j, &err);
        return false;
    }
    saying = rows_to_say(s);
    if (n_reading > 0 && saying > 0 && ++s->mixed_passes % MEASURE_EVERY == 0) return true;
    if (n_reading > 0) rows_to_read(s, later, saying > 0 ? slice(s, saying, n_reading) : hd_model_max_rows(s->e->model));
    return true;
}

static int64_t pages_needed(const hd_sched *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->n_live; i++) {
        int64_t len = hd_seq_len(s->live[i]->s->seq);
        n += hd_pages_of(len + s->live[i]->rows) - hd_pages_of(len);
    }
    return n;
}

/* Guesses cost rows and perhaps pages; they may have what nobody misses. */
static bool may_guess(const hd_sched *s)
{
    int64_t pages = 0;
    int n = 0;
    if (s->o.draft == HD_DRAFT_NONE) return false;
    for (int i = 0; i < s->n_live; i++) {
        const hd_job *j = s->live[i];
        int64_t len = hd_seq_len(j->s->seq);
        if (!is_saying(j)) return false;
        n++;
        pages += hd_pages_of(len + 1 + HD_DRAFT_ROWS) - hd_pages_of(len);
    }
    return n <= HD_DRAFT_ALONE && pages <= hd_free_pages(s);
}

/* ---- What a pass brings ---- */

static void hear(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    hd_job *j = arg;
    j->out_kind = kind;
    if (hd_buf_add(&j->out, text, n, NULL) != HD_OK) j->out_lost = true;
}

static hd_status begin(hd_job *j, hd_err *err)
{
    j->step = (hd_step){.s = j->s,
                        .p = j->p,
                        .o = {.max_tok = j->o.max_tok,
                              .stop = j->o.stop,
                              .n_stop = j->o.n_stop,
                              .chat = j->o.chat,
                              .limit_thinking = j->o.limit_thinking,
                              .think_tok = j->o.think_tok,
                              .text = j->s->e->tok ? hear : NULL,
                              .arg = j},
                        .spell = j->o.spell,
                        .n_spell = j->o.n_spell,
                        .grammar = j->o.grammar,
                        .logprobs = j->o.logprobs,
                        .n_top = j->o.n_top};
    j->stepping = true;
    j->t_first = hd_now_s();
    return hd_step_open(&j->step, err);
}

static hd_status note_token(hd_job *j, hd_err *err)
{
    if (j->n_tok == j->cap_tok) {
        int cap = j->cap_tok ? 2 * j->cap_tok : 4;
        hd_status st = hd_realloc(&j->tok, (size_t)cap * sizeof *j->tok, err);
        if (st != HD_OK) return st;
        j->cap_tok = cap;
    }
    j->tok[j->n_tok++] = j->step.token;
    return HD_OK;
}

static hd_end reason_of(const hd_step *t)
{
    switch (t->r.why) {
    case HD_STOP_LENGTH: return HD_END_LENGTH;
    case HD_STOP_CONTEXT: return HD_END_CONTEXT;
    case HD_STOP_FLAG: return HD_END_CANCELLED;
    default: return HD_END_STOP;
    }
}

/* Steps as far as there are logits (several when guesses were right), and their text. */
static hd_status say(hd_sched *s, hd_job *j, bool *over, hd_err *err)
{
    hd_status st = HD_OK;
    hd_step *t = &j->step;
    while (!(*over = hd_step_over(t)) && j->s->ready) {
        hd_text_kind kind = t->text.kind;
        HD_TRY(hd_step_next(t, err));
        s->gen_tok++;
        if (t->shown) HD_TRY(note_token(j, err));
        if (t->text.kind == kind) continue;
        j->out_kind = kind;
        HD_TRY(hd_job_post_text(&s->mail, j, err));
    }
    if (*over) HD_TRY(hd_step_finish(t, err));
    if (j->out_lost) HD_TRY(hd_fail(err, HD_NOMEM, "job: no memory for its text"));
    if (j->out.len > 0) HD_TRY(hd_job_post_text(&s->mail, j, err));
fail:
    return st;
}

/* Returns whether the job is over. */
static hd_status brought(hd_sched *s, hd_job *j, bool *over, hd_err *err)
{
    hd_status st = HD_OK;
    *over = false;
    j->last_pass = s->n_passes;
    if (!is_saying(j)) {
        hd_path_keep(s, j);
        if (!j->stepping) HD_TRY(hd_job_post_progress(&s->mail, j, hd_seq_len(j->s->seq), j->s->ids.n, err));
        s->posted = true;
        if (!j->s->ready) return HD_OK;
        j->state = HD_JOB_SAYING;
        if (j->warm) {
            *over = true;
            return HD_OK;
        }
        if (!j->stepping) {
            s->cached_tok += j->cached_tok;
            s->prompt_tok += j->prompt_tok;
            HD_TRY(begin(j, err));
        }
    }
    s->posted = true;
    HD_TRY(say(s, j, over, err));
    if (*over) hd_job_post_done(&s->mail, j, reason_of(&j->step));
fail:
    return st;
}

static void learn(double *mean, double x)
{
    if (x <= 0) return;
    *mean = *mean > 0 ? *mean + (x - *mean) / 8 : x;
}

static void learn_times(hd_sched *s, int saying, int reading, double t)
{
    if (reading == 0) learn(&s->gen_pass_s, t);
    else if (saying == 0) learn(&s->prompt_row_s, t / reading);
    else if (reading >= SLICE_MIN) learn(&s->prompt_row_s, (t - s->gen_pass_s) / reading);
}

void hd_sched_pass(hd_sched *s)
{
    hd_err err;
    int n = 0, saying = 0, reading = 0;
    while (!plan(s)) {}
    while (pages_needed(s) > hd_free_pages(s)) {
        int lived = s->n_live;
        bool room = hd_queue_make_room(s, pages_needed(s));
        if (!room && s->n_live > 0 && s->n_live == lived) { // one alone fits by the engine's plan: others hold the pages
            hd_fail(&err, HD_LIMIT, "job: no memory is left in the cache");
            hd_queue_fail(s, s->live[0], &err);
        }
        while (!plan(s)) {}
    }
    bool guessing = may_guess(s);
    for (int i = 0; i < s->n_live; i++) hd_session_pause_draft(s->live[i]->s, s->n_live > HD_DRAFT_ALONE);
    hd_job *who[s->n_live + 1];
    for (int i = 0; i < s->n_live; i++) {
        hd_job *j = s->live[i];
        if (j->rows == 0) continue;
        s->who[n] = j->s;
        s->most[n] = is_saying(j) && guessing ? 1 + HD_DRAFT_ROWS : j->rows;
        who[n++] = j;
        *(is_saying(j) ? &saying : &reading) += j->rows;
    }
    if (n == 0) return;
    double t0 = hd_now_s();
    hd_status st = hd_session_pass_most(s->who, s->most, n, &err);
    s->n_passes++;
    if (st != HD_OK) { // the others may go on without the last that came
        hd_queue_fail(s, who[n - 1], &err);
        return;
    }
    learn_times(s, saying, reading, hd_now_s() - t0);
    for (int i = 0; i < n; i++) {
        bool over;
        if (brought(s, who[i], &over, &err) != HD_OK) hd_queue_fail(s, who[i], &err);
        else if (over) hd_queue_release(s, who[i]);
    }
}
