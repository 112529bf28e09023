/* The step that every answer is made of: choose, append, show, stop.
 *
 *   row of logits --[grammar forbids]--> sampler --> id --> timeline
 *                                                     \--> stream: thought or answer, stop strings --> text
 *
 * Nothing here computes a pass (but for a caller that has not), so a step takes its id from whatever
 * pass has brought the
 * row: one of this session alone, or one of a crowd. */
#include "infer/step.h"

#include <math.h>
#include <string.h>

#include "infer/sample.h"

/* Does the timeline end inside a thought?  Where the last text ended, that is known.  After a new prompt its
 * last ids tell: formats open a thought with the mark alone, or with the mark and line ends.  Marks further
 * ahead may be the user's own words. */
static bool inside_thought(const hd_session *s, int32_t begin)
{
    int64_t n = s->ids.n;
    size_t len = 0;
    if (n == s->told) return s->told_thinking;
    if (begin < 0) return false;
    if (s->ids.id[n - 1] == begin) return true;
    const char *last = hd_tokenizer_bytes(s->e->tok, s->ids.id[n - 1], &len);
    bool blank = last && len > 0;
    for (size_t i = 0; blank && i < len; i++) blank = last[i] == '\n';
    return blank && n > 1 && s->ids.id[n - 2] == begin;
}

hd_status hd_step_open(hd_step *t, hd_err *err)
{
    hd_status st;
    bool open = false;
    const hd_engine *e = t->s->e;
    t->text = (hd_stream){.text = t->o.text,
                          .arg = t->o.arg,
                          .stop = t->o.stop,
                          .n_stop = t->o.n_stop,
                          .tok = e->tok,
                          .think_begin = -1,
                          .think_end = -1,
                          .spell = t->spell,
                          .n_spell = t->n_spell};
    t->r = (hd_generated){0};
    t->ended = t->shown = false;
    if (t->s->ids.n == 0)
        return hd_fail(err, HD_USAGE, "generate: the session is empty: there is nothing to continue");
    if (!e->tok && (t->o.text || t->o.n_stop > 0 || t->grammar)) // ids alone need no tokenizer
        return hd_fail(err, e->tok_err.code, "%s", e->tok_err.msg);
    if (t->o.chat && e->chat) {
        hd_chat_think_ids(e->chat, e->tok, &t->text.think_begin, &t->text.think_end, &open);
        open = inside_thought(t->s, t->text.think_begin);
    }
    HD_TRY(hd_stream_open(&t->text, open ? HD_TEXT_THINKING : HD_TEXT_ANSWER, err));
    t->text.at_start = open;
    if (t->grammar) {
        HD_TRY(hd_alloc_n(&t->row, (size_t)e->n_vocab, sizeof *t->row, err));
        HD_TRY(hd_grammar_state_open(&t->state, t->grammar, e->tok, err));
    }
fail:
    return st;
}

void hd_step_close(hd_step *t)
{
    if (t->state) hd_grammar_state_close(t->state);
    free(t->row);
    hd_stream_close(&t->text);
    t->state = NULL;
    t->row = NULL;
}

bool hd_step_over(hd_step *t)
{
    if (t->ended) return true;
    if (t->o.max_tok > 0 && t->r.n_tok >= t->o.max_tok) t->r.why = HD_STOP_LENGTH;
    else if (t->s->ids.n >= t->s->e->ctx_tok) t->r.why = HD_STOP_CONTEXT;
    else return false;
    return t->ended = true;
}

/* ---- Choosing ---- */

/* A format may leave it to the model to open the thought: its first id may do so, unless the prompt has
 * just closed one. */
static bool may_open_thought(const hd_step *t)
{
    const hd_ids *v = &t->s->ids;
    if (t->text.think_begin < 0 || t->r.n_tok > 0 || (t->o.limit_thinking && t->o.think_tok <= 0)) return false;
    for (int64_t i = v->n - 1; i >= 0 && i >= v->n - 3; i--)
        if (v->id[i] == t->text.think_end) return false;
    return true;
}

static hd_status masked(hd_step *t, const float **logits, hd_err *err)
{
    const hd_engine *e = t->s->e;
    int32_t begin = t->text.think_begin;
    memcpy(t->row, *logits, (size_t)e->n_vocab * sizeof *t->row);
    hd_status st = hd_grammar_mask(t->state, t->row, e->n_vocab, e->stop, e->n_stop, err);
    if (may_open_thought(t)) t->row[begin] = (*logits)[begin];
    *logits = t->row;
    return st;
}

/* The n largest of a row, kept in order while the row goes by. */
static void note_top(hd_token_info *i, const float *x, int64_t n_vocab, int n)
{
    i->n_top = 0;
    for (int64_t v = 0; v < n_vocab; v++) {
        if (!(x[v] > -INFINITY) || (i->n_top == n && !(x[v] > i->top_logprob[n - 1]))) continue;
        int at = i->n_top < n ? i->n_top++ : n - 1;
        for (; at > 0 && x[v] > i->top_logprob[at - 1]; at--) {
            i->top_logprob[at] = i->top_logprob[at - 1];
            i->top_id[at] = i->top_id[at - 1];
        }
        i->top_logprob[at] = x[v];
        i->top_id[at] = (int32_t)v;
    }
}

/* log p = x - max - log(sum of e^(x - max)) */
static void note(hd_step *t, const float *x)
{
    int64_t n_vocab = t->s->e->n_vocab;
    float max = x[hd_likeliest(x, n_vocab, NULL)];
    double sum = 0;
    if (t->n_top > 0) note_top(&t->token, x, n_vocab, t->n_top < HD_MAX_TOP ? t->n_top : HD_MAX_TOP);
    for (int64_t v = 0; v < n_vocab; v++)
        if (x[v] > -INFINITY) sum += (double)expf(x[v] - max);
    float off = max + (float)log(sum);
    t->token.logprob = x[t->token.id] - off;
    for (int i = 0; i < t->token.n_top; i++) t->token.top_logprob[i] -= off;
}

/* The next id: chosen, or the end of a thought whose budget is spent. */
static hd_status choose(hd_step *t, bool ruled, hd_err *err)
{
    hd_status st;
    const float *logits = NULL;
    bool spent = t->o.limit_thinking && t->text.kind == HD_TEXT_THINKING && t->text.think_end >= 0 &&
                 t->r.n_thinking >= t->o.think_tok;
    t->token = (hd_token_info){0};
    if (!spent || t->logprobs) HD_TRY(hd_session_logits(t->s, &logits, err));
    if (ruled) HD_TRY(masked(t, &logits, err));
    t->token.id = spent ? t->text.think_end : hd_sampler_pick(t->p, logits);
    if (t->logprobs) note(t, logits);
fail:
    return st;
}

/* ---- The step ---- */

static void end(hd_step *t, hd_stop_reason why)
{
    t->r.why = why;
    t->ended = true;
}

hd_status hd_step_next(hd_step *t, hd_err *err)
{
    hd_status st = HD_OK;
    bool thinking = t->text.kind == HD_TEXT_THINKING, ruled = t->state && !thinking;
    HD_TRY(choose(t, ruled, err));
    int32_t id = t->token.id;
    HD_TRY(hd_session_push(t->s, id, err));
    hd_sampler_accept(t->p, id);
    t->r.n_tok++;
    t->r.n_thinking += thinking && id != t->text.think_end;
    t->shown = t->o.ignore_stop_ids || !hd_engine_is_stop(t->s->e, id);
    if (!t->shown) {
        end(t, HD_STOP_TURN);
        return HD_OK;
    }
    if (t->text.tok) HD_TRY(hd_stream_id(&t->text, id, err));
    if (t->text.stopped) end(t, HD_STOP_STRING);
    if (!ruled || t->ended || id == t->text.think_begin) return HD_OK;
    HD_TRY(hd_grammar_accept(t->state, id, err));
    if (hd_grammar_must_end(t->state)) end(t, HD_STOP_TURN);
fail:
    return st;
}

hd_status hd_step_finish(hd_step *t, hd_err *err) { return hd_stream_end(&t->text, err); }
