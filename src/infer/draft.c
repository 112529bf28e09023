/* Speculation: guess a few ids, let one pass check them all (arXiv:2211.17192, without its rejection step).
 *
 * The sampler picks from the row of each guess exactly as it would have without guessing, since a row's bits
 * do not depend on its batch; a guess counts when it is what the sampler picked.  So the text is the same
 * with any sampling, and acceptance is a matter of speed alone.
 *
 *   look-up   the last words stood earlier in the timeline: guess that they go on as they did then
 *   model     a smaller model of the same vocabulary goes on greedily, as long as it is sure
 *   MTP       the model's own extra layer (arXiv:2412.19437, 2.2), which reads the states of the pass before
 *
 * How many guesses: a pass that accepts all earns one more, one that accepts few is cut to what it accepted
 * plus one; after passes without any, guessing rests for twice as long each time. */
#include "infer/session.h"

#include <math.h>
#include <string.h>

enum { NGRAM_MAX = 4, NGRAM_MIN = 2, REST_MAX = 32 };
#define SURE 0.5f // a smaller model's guess below this probability is right too seldom to pay for its pass

static int default_max(hd_draft_kind kind)
{
    return kind == HD_DRAFT_LOOKUP ? 10 : kind == HD_DRAFT_MODEL ? 6 : 2;
}

/* ---- Opening
 * ------------------------------------------------------------------------------------------------------ */

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

hd_status hd_session_draft(hd_session *s, hd_draft_kind kind, hd_engine *small, int max, hd_err *err)
{
    hd_status st;
    hd_draft d = {.kind = kind};
    const hd_config *c = hd_model_config(s->e->model);
    if (max == 0) max = default_max(kind);
    if (max < 1 || max > HD_MAX_GUESS)
        return hd_fail(err, HD_USAGE, "draft: %d guesses a pass: must be 1 to %d", max, HD_MAX_GUESS);
    if (s->ids.n > 0)
        return hd_fail(err, HD_USAGE, "draft: the session has begun: choose before the first id");
    d.max = d.now = max;
    if (kind == HD_DRAFT_MODEL) {
        if (!small) return hd_fail(err, HD_USAGE, "draft: no smaller model was given");
        if (!same_vocabulary(s->e, small))
            return hd_fail(err, HD_UNSUPPORTED, "draft: the smaller model has another vocabulary");
        HD_TRY(hd_session_open(&d.small, small, err));
    }
    if (kind == HD_DRAFT_MTP) {
        if (c->n_mtp < 1)
            return hd_fail(err, HD_UNSUPPORTED, "draft: the model holds no multi-token-prediction layer");
        HD_TRY(hd_seq_open(&d.mtp, s->e->cache, err));
        HD_TRY(hd_alloc_n(&d.hidden, (size_t)hd_model_max_rows(s->e->model),
                          (size_t)c->d_model * sizeof(float), err));
        HD_TRY(hd_alloc_n(&d.state, 2 * (size_t)c->d_model, sizeof(float), err));
        HD_TRY(hd_alloc_n(&d.logits, (size_t)c->n_vocab, sizeof(float), err));
    }
    size_t rows = kind == HD_DRAFT_NONE ? 1 : (size_t)max + 1, bytes = 0;
    if (!hd_mul(&bytes, rows * sizeof(float), (size_t)s->e->n_vocab))
        HD_TRY(hd_fail(err, HD_NOMEM, "draft: logits: size wraps"));
    HD_TRY(hd_realloc(&s->rows, bytes, err));
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
    free(d->state);
    free(d->logits);
    *d = (hd_draft){0};
}

void hd_draft_trim(hd_session *s, int64_t n)
{
    hd_draft *d = &s->draft;
    d->now = d->max;
    d->rest = d->idle = 0;
    if (!d->mtp) return;
    int64_t keep = n - 1 - d->mtp_from; // the row at i reads id i + 1
    if (keep < 0) keep = 0, d->mtp_from = 0;
    if (hd_seq_len(d->mtp) > keep) hd_seq_trim(d->mtp, keep);
    if (d->hidden_at >= n) d->n_hidden = 0;
}

void hd_draft_learn(hd_draft *d, int n, int accepted)
{
    if (accepted == n) {
        d->now = d->now < d->max ? d->now + 1 : d->max;
        d->idle = 0;
    } else if (accepted > 0) {
        d->now = accepted + 1 < d->max ? accepted + 1 : d->max;
        d->idle = 0;
    } else {
        d->now = 1;
        d->idle = d->idle == 0 ? 1 : d->idle * 2 < REST_MAX ? d->idle * 2 : REST_MAX;
        d->rest = d->idle;
    }
}

/* ---- Look-up
 * ------------------------------------------------------------------------------------------------------ */

/* Where the last n ids stood before, latest first; returns the position behind them, -1: nowhere. */
static int64_t seen_before(const hd_ids *v, int n)
{
    const int32_t *end = v->id + v->n - n;
    for (int64_t i = v->n - n - 1; i >= 0; i--)
        if (v->id[i + n - 1] == end[n - 1] && memcmp(v->id + i, end, (size_t)n * sizeof *end) == 0)
            return i + n;
    return -1;
}

static int guess_lookup(hd_session *s, int room)
{
    const hd_ids *v = &s->ids;
    for (int n = NGRAM_MAX; n >= NGRAM_MIN; n--) {
        if (v->n <= n) continue;
        int64_t from = seen_before(v, n);
        if (from < 0) continue;
        int k = 0;
        /* The copied stretch may run into what it has itself just guessed: a repetition goes on. */
        for (; k < room; k++) s->guess[k] = from + k < v->n ? v->id[from + k] : s->guess[from + k - v->n];
        return k;
    }
    return 0;
}

/* ---- A smaller model
 * ---------------------------------------------------------------------------------------------- */

/* The likeliest id and its probability. */
static int32_t likeliest(const float *x, int64_t n, float *p)
{
    int32_t best = 0;
    float sum = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = (int32_t)i;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > x[best] - 20) sum += expf(x[i] - x[best]);
    *p = 1 / sum;
    return best;
}

static int guess_model(hd_session *s, int room)
{
    hd_session *q = s->draft.small;
    int64_t n_vocab = s->e->n_vocab < q->e->n_vocab ? s->e->n_vocab : q->e->n_vocab;
    int k = 0;
    float p;
    /* A guess that cannot be made (its context is shorter, its cache full) is no error: the pass goes on
     * without. */
    if (s->ids.n > q->e->ctx_tok || hd_session_sync(q, s->ids.id, s->ids.n, NULL, NULL) != HD_OK) return 0;
    while (k < room) {
        const float *logits;
        if (hd_session_logits(q, &logits, NULL) != HD_OK) break;
        s->guess[k] = likeliest(logits, n_vocab, &p);
        if (p < SURE) break;
        if (++k == room || hd_session_push(q, s->guess[k - 1], NULL) != HD_OK) break;
    }
    return k;
}

/* ---- The model's own extra layer
 * ---------------------------------------------------------------------------------- */

/* Bring the extra layer up to state n-2 and id n-1, as far as states are at hand; `last`: its answer and
 * state are wanted. */
static hd_status mtp_catch_up(hd_session *s, bool last, bool *have, hd_err *err)
{
    hd_draft *d = &s->draft;
    int64_t D = hd_model_config(s->e->model)->d_model, at = d->mtp_from + hd_seq_len(d->mtp),
            end = s->ids.n - 1;
    *have = false;
    if (d->n_hidden == 0) return HD_OK;
    if (end > d->hidden_at + d->n_hidden) end = d->hidden_at + d->n_hidden;
    if (at < d->hidden_at) { // states before are gone: the layer begins anew, its positions matter only
                             // relative to each other
        hd_seq_trim(d->mtp, 0);
        d->mtp_from = at = d->hidden_at;
    }
    if (at >= end) return HD_OK;
    int n = (int)(end - at);
    hd_batch b = {.n_rows = n, .tok = s->ids.id + at + 1, .n_seqs = 1, .n_of = &n, .seq = &d->mtp};
    float *out = NULL;
    hd_status st = hd_alloc_n(&out, (size_t)n, (size_t)D * sizeof *out, err);
    if (st == HD_OK)
        st = hd_forward_mtp(s->e->model, &b, d->hidden + (at - d->hidden_at) * D, last ? d->logits : NULL,
                            out, err);
    if (st == HD_OK && last) {
        memcpy(d->state, out + (n - 1) * D, (size_t)D * sizeof *out);
        *have = end == s->ids.n - 1;
    }
    free(out);
    return st;
}

hd_status hd_draft_follow(hd_session *s, hd_err *err)
{
    bool have;
    /* In the middle of a prompt: its states are here now and not later. */
    if (s->draft.kind != HD_DRAFT_MTP || s->ready) return HD_OK;
    return mtp_catch_up(s, false, &have, err);
}

static int guess_mtp(hd_session *s, int room)
{
    hd_draft *d = &s->draft;
    int64_t D = hd_model_config(s->e->model)->d_model;
    bool have;
    int k = 0, one = 1;
    float p;
    if (mtp_catch_up(s, true, &have, NULL) != HD_OK || !have) return 0;
    int64_t sure = hd_seq_len(d->mtp);
    for (;;) {
        s->guess[k] = likeliest(d->logits, s->e->n_vocab, &p);
        if (p < SURE || ++k == room) break;
        hd_batch b = {.n_rows = 1, .tok = &s->guess[k - 1], .n_seqs = 1, .n_of = &one, .seq = &d->mtp};
        if (hd_forward_mtp(s->e->model, &b, d->state, d->logits, d->state + D, NULL) != HD_OK) break;
        memcpy(d->state, d->state + D, (size_t)D * sizeof *d->state);
    }
    hd_seq_trim(d->mtp, sure); // what stands on guesses is done again from true states
    return k;
}

/* ---- */

int hd_draft_guess(hd_session *s, int room)
{
    hd_draft *d = &s->draft;
    if (d->kind == HD_DRAFT_NONE) return 0;
    if (d->rest > 0) {
        d->rest--;
        return 0;
    }
    if (room > d->now) room = d->now;
    if (room < 1) return 0;
    switch (d->kind) {
    case HD_DRAFT_LOOKUP: return guess_lookup(s, room);
    case HD_DRAFT_MODEL: return guess_model(s, room);
    case HD_DRAFT_MTP: return guess_mtp(s, room);
    case HD_DRAFT_NONE: break;
    }
    return 0;
}
