/* One timeline of ids, and passes over one or several of them. */
#include "infer/session.h"

#include <string.h>

/* ---- Opening ---- */

hd_status hd_session_open(hd_session **out, hd_engine *e, hd_err *err)
{
    hd_status st;
    hd_session *s = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    s->e = e;
    HD_TRY(hd_seq_open(&s->seq, e->cache, err));
    HD_TRY(hd_alloc_n(&s->rows, (size_t)e->n_vocab, sizeof *s->rows, err));
    *out = s;
    return HD_OK;
fail:
    hd_session_close(s);
    return st;
}

void hd_session_close(hd_session *s)
{
    if (!s) return;
    hd_draft_close(&s->draft);
    hd_seq_close(s->seq);
    hd_ids_free(&s->ids);
    free(s->rows);
    free(s);
}

hd_status hd_session_fork(hd_session **out, hd_session *s, hd_err *err)
{
    hd_status st;
    hd_session *f = NULL;
    *out = NULL;
    HD_TRY(hd_session_open(&f, s->e, err));
    for (int64_t i = 0; i < s->ids.n; i++) HD_TRY(hd_ids_add(&f->ids, s->ids.id[i], err));
    hd_seq_close(f->seq);
    f->seq = NULL;
    HD_TRY(hd_seq_fork(&f->seq, s->seq, err));
    if (hd_seq_len(f->seq) > f->ids.n) hd_seq_trim(f->seq, f->ids.n); // guesses stay behind
    if (s->ready)
        memcpy(f->rows, s->rows + (int64_t)s->at * s->e->n_vocab, (size_t)s->e->n_vocab * sizeof *f->rows);
    f->ready = s->ready;
    f->told = s->told;
    f->told_thinking = s->told_thinking;
    HD_TRY(hd_draft_fork(f, s, err));
    *out = f;
    return HD_OK;
fail:
    hd_session_close(f);
    return st;
}

/* ---- The timeline ---- */

void hd_session_settle(hd_session *s)
{
    if (hd_seq_len(s->seq) > s->ids.n) hd_seq_trim(s->seq, s->ids.n);
    if (s->ready && s->at > 0)
        memmove(s->rows, s->rows + (int64_t)s->at * s->e->n_vocab, (size_t)s->e->n_vocab * sizeof *s->rows);
    s->n_guess = s->at = 0;
}

void hd_session_rewind(hd_session *s, int64_t n)
{
    if (n < 0) n = 0;
    if (n >= s->ids.n) return;
    hd_session_settle(s);
    s->ids.n = n;
    s->ready = false;
    s->told = 0;
    /* One id stays to be computed, so that its logits can be asked for. */
    int64_t keep = n > 0 ? n - 1 : 0;
    if (hd_seq_len(s->seq) > keep) hd_seq_trim(s->seq, keep);
    hd_draft_trim(s, n);
}

int64_t hd_session_len(const hd_session *s) { return s->ids.n; }
const int32_t *hd_session_ids(const hd_session *s) { return s->ids.id; }
bool hd_session_ready(const hd_session *s) { return s->ready; }

hd_status hd_session_queue(hd_session *s, const int32_t *id, int64_t n, hd_err *err)
{
    hd_status st;
    int64_t same = 0;
    if (n < 1) return hd_fail(err, HD_USAGE, "session: no ids: a timeline needs at least one");
    if (n > s->e->ctx_tok)
        return hd_fail(err, HD_LIMIT, "session: %lld ids: the context holds %lld", (long long)n,
                       (long long)s->e->ctx_tok);
    for (int64_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= s->e->n_vocab)
            return hd_fail(err, HD_USAGE, "session: id %d: the vocabulary has 0 to %lld", id[i],
                           (long long)s->e->n_vocab - 1);
    while (same < n && same < s->ids.n && s->ids.id[same] == id[same]) same++;
    if (same == n && n == s->ids.n) return HD_OK;
    if (same < s->ids.n) hd_session_rewind(s, same);
    hd_session_settle(s);
    s->ready = false;
    int64_t before = s->ids.n;
    for (int64_t i = before; i < n; i++) HD_TRY(hd_ids_add(&s->ids, id[i], err));
    return HD_OK;
fail:
    s->ids.n = before;
    return st;
}

hd_status hd_session_push(hd_session *s, int32_t id, hd_err *err)
{
    if (id < 0 || id >= s->e->n_vocab)
        return hd_fail(err, HD_USAGE, "session: id %d: the vocabulary has 0 to %lld", id,
                       (long long)s->e->n_vocab - 1);
    if (s->ids.n >= s->e->ctx_tok)
        return hd_fail(err, HD_LIMIT, "session: the context of %lld ids is full", (long long)s->e->ctx_tok);
    hd_status st = hd_ids_add(&s->ids, id, err);
    if (st != HD_OK) return st;
    if (s->ready && s->at < s->n_guess && s->guess[s->at] == id) { // computed already
        s->at++;
        s->n_accepted++;
        return HD_OK;
    }
    if (hd_seq_len(s->seq) >= s->ids.n) hd_seq_trim(s->seq, s->ids.n - 1);
    if (s->n_guess > 0) hd_draft_learn(&s->draft, s->n_guess, s->at);
    s->n_guess = s->at = 0;
    s->ready = false;
    return HD_OK;
}

/* ---- Passes ---- */

/* The rows of one pass: those of each session in turn. */
typedef struct {
    int32_t *tok;     // [room]
    bool *want;       // [room]
    int *n_of;        // [n]
    hd_seq **seq;     // [n]
    hd_session **who; // [n]
    float **logits;   // [room] where those of wanted rows go: into their session's rows
    int room, n_rows, n_who, n_wanted;
} pass_rows;

static void rows_close(pass_rows *r)
{
    free(r->tok);
    free(r->want);
    free(r->n_of);
    free(r->seq);
    free(r->who);
    free(r->logits);
}

static hd_status rows_open(pass_rows *r, int room, int n, hd_err *err)
{
    hd_status st;
    *r = (pass_rows){.room = room};
    HD_TRY(hd_alloc_n(&r->tok, (size_t)room, sizeof *r->tok, err));
    HD_TRY(hd_alloc_n(&r->want, (size_t)room, sizeof *r->want, err));
    HD_TRY(hd_alloc_n(&r->n_of, (size_t)n, sizeof *r->n_of, err));
    HD_TRY(hd_alloc_n(&r->seq, (size_t)n, sizeof *r->seq, err));
    HD_TRY(hd_alloc_n(&r->who, (size_t)n, sizeof *r->who, err));
    HD_TRY(hd_alloc_n(&r->logits, (size_t)room, sizeof *r->logits, err));
fail:
    return st;
}

static bool due(const hd_session *s) { return s->ids.n > 0 && !s->ready; }

/* Ids that wait to be computed.  When the cache holds everything but no logits are at hand, the last id is
 * done again. */
static int64_t pending(hd_session *s)
{
    if (hd_seq_len(s->seq) >= s->ids.n) hd_seq_trim(s->seq, s->ids.n - 1);
    return s->ids.n - hd_seq_len(s->seq);
}

/* One session's share of at most `room` rows: what is pending, guesses behind the last id. */
static void add_rows(pass_rows *r, hd_session *s, int room)
{
    int64_t todo = pending(s), done = hd_seq_len(s->seq);
    int n = todo < room ? (int)todo : room, guesses = 0;
    int32_t *tok = r->tok + r->n_rows;
    memcpy(tok, s->ids.id + done, (size_t)n * sizeof *tok);
    if (n == todo) {
        int64_t left = s->e->ctx_tok - s->ids.n;
        guesses = hd_draft_guess(s, (int)(left < room - n ? left : room - n));
        memcpy(tok + n, s->guess, (size_t)guesses * sizeof *tok);
        for (int i = 0; i <= guesses; i++) {
            r->want[r->n_rows + n - 1 + i] = true;
            r->logits[r->n_wanted++] = s->rows + (int64_t)i * s->e->n_vocab;
        }
    }
    s->n_guess = guesses;
    s->at = 0;
    r->who[r->n_who] = s;
    r->seq[r->n_who] = s->seq;
    r->n_of[r->n_who++] = n + guesses;
    r->n_rows += n + guesses;
}

static bool listed(const pass_rows *r, const hd_session *s)
{
    for (int i = 0; i < r->n_who; i++)
        if (r->who[i] == s) return true;
    return false;
}

/* Those that generate first, a row each, so that a long prompt delays nobody; then slices of the prompts. */
static void share_out(pass_rows *r, hd_session *const *s, const int *most, int n, int waiting)
{
    for (int prompts = 0; prompts < 2; prompts++)
        for (int i = 0; i < n && r->n_rows < r->room; i++) {
            if (!due(s[i]) || (most && most[i] < 1) || listed(r, s[i]) || (pending(s[i]) > 1) != prompts) continue;
            int others = prompts ? 0 : waiting - r->n_who - 1, share = r->room - r->n_rows - others;
            if (most && share > most[i]) share = most[i];
            add_rows(r, s[i], share > 1 ? share : 1);
        }
}

/* What the pass has found goes to the sessions; logits are there already. */
static void hand_out(const pass_rows *r, const float *hidden, int64_t D)
{
    for (int i = 0, row = 0; i < r->n_who; row += r->n_of[i++]) {
        hd_session *s = r->who[i];
        s->n_passes++;
        s->n_drafted += s->n_guess;
        if (r->want[row + r->n_of[i] - 1]) s->ready = true; // else a slice in the middle of a prompt
        if (hidden) hd_draft_follow(s, hidden + row * D, r->n_of[i], hd_seq_len(s->seq) - r->n_of[i]);
    }
}

hd_status hd_session_pass(hd_session *const *s, int n, hd_err *err) { return hd_session_pass_most(s, NULL, n, err); }

hd_status hd_session_pass_most(hd_session *const *s, const int *most, int n, hd_err *err)
{
    hd_status st = HD_OK;
    int waiting = 0;
    bool mtp = false;
    float *hidden = NULL;
    pass_rows r = {0};
    for (int i = 0; i < n; i++) {
        if (s[i]->e != s[0]->e)
            return hd_fail(err, HD_USAGE, "pass: session %d: belongs to another engine than the first", i);
        if (!due(s[i]) || (most && most[i] < 1)) continue;
        waiting++;
        mtp = mtp || s[i]->draft.kind == HD_DRAFT_MTP;
    }
    if (waiting == 0) return HD_OK;
    hd_engine *e = s[0]->e;
    int64_t D = hd_model_config(e->model)->d_model;
    HD_TRY(rows_open(&r, hd_model_max_rows(e->model), n, err));
    share_out(&r, s, most, n, waiting);
    if (mtp) HD_TRY(hd_engine_buffer(&e->hidden, r.n_rows, D, &hidden, err));

    hd_batch b = {
        .n_rows = r.n_rows, .tok = r.tok, .want = r.want, .n_seqs = r.n_who, .n_of = r.n_of, .seq = r.seq, .logits = r.logits};
    HD_TRY(hd_forward(e->model, &b, NULL, hidden, err));
    hand_out(&r, hidden, D);
fail:
    for (int i = 0; st != HD_OK && i < r.n_who; i++) r.who[i]->n_guess = r.who[i]->at = 0;
    rows_close(&r);
    return st;
}

hd_status hd_session_sync(hd_session *s, const int32_t *id, int64_t n, const hd_watch *w, hd_err *err)
{
    hd_status st = hd_session_queue(s, id, n, err);
    int64_t from = st == HD_OK ? hd_seq_len(s->seq) : 0;
    while (st == HD_OK && due(s)) {
        if (w && w->stop && *w->stop)
            return hd_fail(err, HD_CANCELLED, "session: stopped after %lld of %lld ids",
                           (long long)hd_seq_len(s->seq), (long long)n);
        st = hd_session_pass(&s, 1, err);
        if (st == HD_OK && w && w->progress)
            w->progress(w->arg, (s->ready ? n : hd_seq_len(s->seq)) - from, n - from);
    }
    return st;
}

hd_status hd_session_logits(hd_session *s, const float **logits, hd_err *err)
{
    if (s->ids.n == 0) return hd_fail(err, HD_USAGE, "session: empty: nothing to continue");
    while (due(s)) {
        hd_status st = hd_session_pass(&s, 1, err);
        if (st != HD_OK) return st;
    }
    *logits = s->rows + (int64_t)s->at * s->e->n_vocab;
    return HD_OK;
}

hd_status hd_session_next(hd_session *s, hd_sampler *p, int32_t *id, hd_err *err)
{
    const float *logits;
    if (s->ids.n >= s->e->ctx_tok)
        return hd_fail(err, HD_LIMIT, "session: the context of %lld ids is full", (long long)s->e->ctx_tok);
    hd_status st = hd_session_logits(s, &logits, err);
    if (st != HD_OK) return st;
    int32_t pick = hd_sampler_pick(p, logits);
    st = hd_session_push(s, pick, err);
    if (st != HD_OK) return st;
    hd_sampler_accept(p, pick);
    *id = pick;
    return HD_OK;
}
