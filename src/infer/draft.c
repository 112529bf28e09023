/* Speculation: guess a few ids, let one pass check them all (arXiv:2211.17192, without its rejection step).
 *
 * The sampler picks from the row of each guess exactly as it would have without guessing, since a row's bits
 * do not depend on its batch; a guess counts when it is what the sampler picked.  So the text is the same
 * with any sampling, and acceptance is a matter of speed alone.
 *
 *   look-up   the last words stood earlier in the timeline: guess that they go on as they did then
 *   model     a smaller model of the same vocabulary goes on greedily, as long as it is sure; where NGRAM_MAX
 *             ids are repeated, look-up does its work
 *   MTP       the model's own extra layer (arXiv:2412.19437, 2.2), which reads the states of the pass before
 *
 * Guessing must pay.  A row more in a pass costs ROW_COST of a pass, making a guess costs `step`; a guess
 * that was right saves a pass.  The balance of late decides: below zero guessing rests, for twice as long
 * each time in a row.  How many: a pass that accepts all doubles the number, another takes it half-way to one
 * more than it accepted.  (Of the rules tried on an edit of code, in ids a pass: back at once to what was
 * accepted 3.9, half-way 5.5; with the longest common stretch of up to 8 ids instead of 4, 5.9.) */
#include "infer/session.h"

#include <string.h>

#include "infer/sample.h"

enum { NGRAM_MAX = 8, NGRAM_MIN = 2, FIRST = 8, REST_MIN = 4, REST_MAX = 128 };
#define ROW_COST    0.12f // measured: 0.15 with one thread, less with two
#define BALANCE_MAX 4.0f  // past gains that may be lost again before guessing rests
#define BALANCE_MIN -0.5f // what a new try may cost
#define WORTH       0.2f  // a guess that is made already pays for its row from this probability on
#define SURE        0.5f  // and below this one for making another behind it

static int first_guesses(int max) { return max < FIRST ? max : FIRST; }

static int default_max(hd_draft_kind kind)
{
    return kind == HD_DRAFT_LOOKUP ? HD_MAX_GUESS : kind == HD_DRAFT_MODEL ? 8 : 2;
}

/* ---- Opening ---- */

/* The same words under the same ids, as far as both can say them. */
static bool same_vocabulary(const hd_engine *a, const hd_engine *b)
{
    if (!a->tok || !b->tok || hd_tokenizer_n_vocab(a->tok) != hd_tokenizer_n_vocab(b->tok)) return false;
    for (int64_t i = 0; i < hd_tokenizer_n_vocab(a->tok); i++) {
        size_t na = 0, nb = 0;
        const char *x = hd_tokenizer_bytes(a->tok, (int32_t)i, &na),
                   *y = hd_tokenizer_bytes(b->tok, (int32_t)i, &nb);
        if (na != nb || !x != !y || (x && memcmp(x, y, na) != 0)) return false;
    }
    return true;
}

static hd_status mtp_buffers(hd_draft *d, const hd_engine *e, hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_model_config(e->model);
    size_t D = (size_t)c->d_model;
    HD_TRY(hd_alloc_n(&d->hidden, HD_DRAFT_STATES, D * sizeof(float), err));
    HD_TRY(hd_alloc_n(&d->out, HD_DRAFT_STATES, D * sizeof(float), err));
    HD_TRY(hd_alloc_n(&d->state, 2 * D, sizeof(float), err));
    HD_TRY(hd_alloc_n(&d->logits, (size_t)c->n_vocab, sizeof(float), err));
fail:
    return st;
}

/* Logits of the last id and of every guess. */
static hd_status rows_for(hd_session *s, int max, hd_err *err)
{
    size_t bytes = 0;
    if (!hd_mul(&bytes, ((size_t)max + 1) * sizeof(float), (size_t)s->e->n_vocab))
        return hd_fail(err, HD_NOMEM, "draft: logits of %d guesses: size wraps", max);
    return hd_realloc(&s->rows, bytes, err);
}

/* Bytes read decide what a pass of one row costs. */
static float step_cost(const hd_engine *e, hd_draft_kind kind, const hd_engine *small)
{
    const hd_config *c = hd_model_config(e->model);
    if (kind == HD_DRAFT_MODEL && small)
        return (float)hd_source_weight_bytes(small->src) / (float)hd_source_weight_bytes(e->src);
    return kind == HD_DRAFT_MTP ? 1.5f / (float)c->n_layers : 0; // a layer, and the head once more
}

hd_status hd_session_draft(hd_session *s, hd_draft_kind kind, hd_engine *small, int max, hd_err *err)
{
    hd_status st;
    hd_draft d = {.kind = kind};
    const hd_config *c = hd_model_config(s->e->model);
    if ((unsigned)kind > HD_DRAFT_MTP)
        return hd_fail(err, HD_USAGE, "draft: kind %d: there is none such", (int)kind);
    if (max == 0) max = default_max(kind);
    if (max < 1 || max > HD_MAX_GUESS)
        return hd_fail(err, HD_USAGE, "draft: %d guesses a pass: must be 1 to %d", max, HD_MAX_GUESS);
    if (s->ids.n > 0)
        return hd_fail(err, HD_USAGE, "draft: the session has begun: choose before the first id");
    d.max = max;
    d.now = first_guesses(max);
    d.step = step_cost(s->e, kind, small);
    if (kind == HD_DRAFT_MODEL) {
        if (!small || small == s->e)
            return hd_fail(err, HD_USAGE, "draft: a smaller model is needed, in an engine of its own");
        if (!same_vocabulary(s->e, small))
            return hd_fail(err, HD_UNSUPPORTED, "draft: the smaller model has another vocabulary");
        HD_TRY(hd_session_open(&d.small, small, err));
    }
    if (kind == HD_DRAFT_MTP) {
        if (c->n_mtp < 1)
            HD_TRY(hd_fail(err, HD_UNSUPPORTED, "draft: the model holds no multi-token-prediction layer"));
        HD_TRY(hd_seq_open(&d.mtp, s->e->mtp_cache, err));
        HD_TRY(mtp_buffers(&d, s->e, err));
    }
    HD_TRY(rows_for(s, kind == HD_DRAFT_NONE ? 0 : max, err));
    hd_draft_close(&s->draft);
    s->draft = d;
    return HD_OK;
fail:
    hd_draft_close(&d);
    return st;
}

void hd_draft_close(hd_draft *d)
{
    hd_session_close(d->small);
    hd_seq_close(d->mtp);
    free(d->hidden);
    free(d->out);
    free(d->state);
    free(d->logits);
    *d = (hd_draft){0};
}

hd_status hd_draft_fork(hd_session *to, const hd_session *from, hd_err *err)
{
    hd_status st = HD_OK;
    const hd_draft *f = &from->draft;
    hd_draft d = *f;
    if (f->kind == HD_DRAFT_NONE) return HD_OK;
    d.small = NULL;
    d.mtp = NULL;
    d.hidden = d.out = d.state = d.logits = NULL;
    if (f->small) HD_TRY(hd_session_fork(&d.small, f->small, err));
    if (f->mtp) {
        HD_TRY(hd_seq_fork(&d.mtp, f->mtp, err));
        HD_TRY(mtp_buffers(&d, from->e, err));
        int64_t D = hd_model_config(from->e->model)->d_model;
        memcpy(d.hidden, f->hidden, (size_t)(f->n_hidden * D) * sizeof *d.hidden);
    }
    HD_TRY(rows_for(to, f->max, err));
    to->draft = d;
    return HD_OK;
fail:
    hd_draft_close(&d);
    return st;
}

void hd_draft_trim(hd_session *s, int64_t n)
{
    hd_draft *d = &s->draft;
    d->now = first_guesses(d->max);
    d->balance = 0;
    d->rest = d->idle = 0;
    if (!d->mtp) return;
    int64_t keep = n - 1 - d->mtp_from; // the row at i reads id i + 1
    if (keep < 0) keep = 0, d->mtp_from = 0;
    if (hd_seq_len(d->mtp) > keep) hd_seq_trim(d->mtp, keep);
    if (d->hidden_at >= n) d->n_hidden = 0;
}

/* What the last guesses have brought and cost. */
static void account(hd_draft *d, float gain)
{
    d->balance += gain;
    if (d->balance > BALANCE_MAX) d->balance = BALANCE_MAX;
    if (gain > 0) d->idle = 0;
    if (d->balance >= BALANCE_MIN) return;
    d->idle = d->idle == 0 ? REST_MIN : d->idle * 2 < REST_MAX ? d->idle * 2 : REST_MAX;
    d->rest = d->idle;
    d->balance = 0;
}

void hd_draft_learn(hd_draft *d, int n, int accepted)
{
    int now = accepted == n ? d->now * 2 : (d->now + accepted + 1) / 2;
    d->now = now < d->max ? now : d->max;
    account(d, (float)accepted - (float)n * ROW_COST - (float)d->steps * d->step);
}

/* ---- Look-up ---- */

/* The place whose ids before it agree with the timeline's last ones for longest (NGRAM_MAX is long enough),
 * the latest of those; -1: nowhere for `least` ids. */
static int64_t seen_before(const hd_ids *v, int least)
{
    const int32_t *id = v->id, last = id[v->n - 1];
    int64_t best = -1;
    int most = least - 1;
    for (int64_t i = v->n - 1; i > 0 && most < NGRAM_MAX; i--) {
        if (id[i - 1] != last) continue;
        int n = 1;
        while (n < NGRAM_MAX && n < i && id[i - 1 - n] == id[v->n - 1 - n]) n++;
        if (n > most) most = n, best = i;
    }
    return best;
}

static int guess_lookup(hd_session *s, int room, int least)
{
    const hd_ids *v = &s->ids;
    int64_t from = seen_before(v, least);
    if (from < 0) return 0;
    /* The copied stretch may run into what it has itself just guessed: a repetition goes on. */
    for (int k = 0; k < room; k++)
        s->guess[k] = from + k < v->n ? v->id[from + k] : s->guess[from + k - v->n];
    return room;
}

/* ---- A smaller model ---- */

static int guess_model(hd_session *s, int room)
{
    hd_session *q = s->draft.small;
    int64_t n_vocab = s->e->n_vocab < q->e->n_vocab ? s->e->n_vocab : q->e->n_vocab;
    int k = guess_lookup(s, room, NGRAM_MAX); // a long repetition needs no model
    float p;
    if (k > 0) return k;
    /* A guess that cannot be made (its context is shorter, its cache full) is no error: the pass goes on
     * without. */
    if (s->ids.n > q->e->ctx_tok || hd_session_queue(q, s->ids.id, s->ids.n, NULL) != HD_OK) return 0;
    /* Of a long text it reads a slice a pass: others may wait for this one. */
    if (!q->ready && hd_session_pass(&q, 1, NULL) != HD_OK) return 0;
    if (!q->ready) return 0;
    while (k < room) {
        const float *logits;
        if (hd_session_logits(q, &logits, NULL) != HD_OK) break;
        s->guess[k] = hd_likeliest(logits, n_vocab, &p);
        s->draft.steps++;
        if (p < WORTH || ++k == room || p < SURE) break;
        if (hd_session_push(q, s->guess[k - 1], NULL) != HD_OK) break;
    }
    if (k == 0) account(&s->draft, -s->draft.step); // its pass was spent all the same
    return k;
}

/* ---- The model's own extra layer ---- */

/* Bring the extra layer up to state n-2 and id n-1, as far as these n_states states from position `from` on
 * reach.  `answer`: the last row's logits and state are wanted (then there are HD_DRAFT_STATES at most);
 * false when there are none. */
static bool mtp_follow(hd_session *s, const float *states, int64_t from, int64_t n_states, bool answer)
{
    hd_draft *d = &s->draft;
    int64_t D = hd_model_config(s->e->model)->d_model, at = d->mtp_from + hd_seq_len(d->mtp),
            end = s->ids.n - 1;
    /* States past the cache belong to guesses that were wrong. */
    int64_t known = from + n_states, done = hd_seq_len(s->seq);
    if (known > done) known = done;
    if (end > known) end = known;
    if (at < from) { // states before are gone: the layer begins anew; positions matter relative to each other
        hd_seq_trim(d->mtp, 0);
        d->mtp_from = at = from;
    }
    if (at >= end) return false;
    int n = (int)(end - at);
    hd_batch b = {.n_rows = n, .tok = s->ids.id + at + 1, .n_seqs = 1, .n_of = &n, .seq = &d->mtp};
    if (hd_forward_mtp(s->e->model, &b, states + (at - from) * D, answer ? d->logits : NULL, answer ? d->out : NULL,
                       NULL) != HD_OK)
        return false;
    if (answer) memcpy(d->state, d->out + (n - 1) * D, (size_t)D * sizeof *d->out);
    return answer && end == s->ids.n - 1;
}

static bool mtp_catch_up(hd_session *s, bool answer)
{
    hd_draft *d = &s->draft;
    return d->n_hidden > 0 && mtp_follow(s, d->hidden, d->hidden_at, d->n_hidden, answer);
}

void hd_draft_follow(hd_session *s, const float *hidden, int n, int64_t at)
{
    hd_draft *d = &s->draft;
    int64_t D = hd_model_config(s->e->model)->d_model;
    int keep = n < HD_DRAFT_STATES ? n : HD_DRAFT_STATES;
    if (d->kind != HD_DRAFT_MTP || d->paused) return;
    if (n > keep) mtp_follow(s, hidden, at, n, false); // of a long slice the last states are kept
    memcpy(d->hidden, hidden + (n - keep) * D, (size_t)(keep * D) * sizeof *hidden);
    d->hidden_at = at + n - keep;
    d->n_hidden = keep;
    if (!s->ready) mtp_catch_up(s, false); // in the middle of a prompt: the next slice brings other states
}

void hd_session_pause_draft(hd_session *s, bool paused)
{
    hd_draft *d = &s->draft;
    d->paused = paused;
    if (!paused || !d->mtp) return;
    d->n_hidden = 0; // the layer begins anew when it is asked again
    hd_seq_trim(d->mtp, 0);
}

static int guess_mtp(hd_session *s, int room)
{
    hd_draft *d = &s->draft;
    int64_t D = hd_model_config(s->e->model)->d_model;
    int k = 0, one = 1;
    float p;
    if (!mtp_catch_up(s, true)) return 0;
    int64_t sure = hd_seq_len(d->mtp);
    for (;;) {
        s->guess[k] = hd_likeliest(d->logits, s->e->n_vocab, &p);
        d->steps++;
        if (p < WORTH || ++k == room || p < SURE) break;
        hd_batch b = {.n_rows = 1, .tok = &s->guess[k - 1], .n_seqs = 1, .n_of = &one, .seq = &d->mtp};
        if (hd_forward_mtp(s->e->model, &b, d->state, d->logits, d->state + D, NULL) != HD_OK) break;
        memcpy(d->state, d->state + D, (size_t)D * sizeof *d->state);
    }
    if (k == 0) account(d, -d->step);
    hd_seq_trim(d->mtp, sure); // what stands on guesses is done again from true states
    return k;
}

/* ---- */

int hd_draft_guess(hd_session *s, int room)
{
    hd_draft *d = &s->draft;
    if (room > d->now) room = d->now;
    if (d->paused) return 0;
    if (d->rest > 0 || room < 1) {
        d->rest -= d->rest > 0;
        if (d->mtp) mtp_catch_up(s, false); // its states will not come again
        return 0;
    }
    d->steps = 0;
    switch (d->kind) {
    case HD_DRAFT_LOOKUP: return guess_lookup(s, room, NGRAM_MIN);
    case HD_DRAFT_MODEL: return guess_model(s, room);
    case HD_DRAFT_MTP: return guess_mtp(s, room);
    case HD_DRAFT_NONE: break;
    }
    return 0;
}
