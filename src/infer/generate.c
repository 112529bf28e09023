/* The loop that every answer comes from: choose, append, show, stop. */
#include <string.h>

#include "base/log.h"
#include "infer/session.h"
#include "infer/stream.h"

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

/* The next id: chosen, or the end of a thought whose budget is spent. */
static hd_status next_id(hd_session *s, hd_sampler *p, const hd_generate_opts *o, const hd_stream *text,
                         const hd_generated *r, int32_t *id, hd_err *err)
{
    bool spent = o->limit_thinking && text->kind == HD_TEXT_THINKING && text->think_end >= 0 &&
                 r->n_thinking >= o->think_tok;
    if (!spent) return hd_session_next(s, p, id, err);
    *id = text->think_end;
    hd_status st = hd_session_push(s, *id, err);
    if (st == HD_OK) hd_sampler_accept(p, *id);
    return st;
}

/* Logits for the next pick, unless the flag is seen in the middle of a long prompt. */
static hd_status prepare(hd_session *s, const hd_generate_opts *o, hd_err *err)
{
    hd_status st = HD_OK;
    while (st == HD_OK && !s->ready && !(o->stop_flag && *o->stop_flag)) st = hd_session_pass(&s, 1, err);
    return st;
}

static hd_status loop(hd_session *s, hd_sampler *p, const hd_generate_opts *o, hd_stream *text,
                      hd_generated *r, hd_err *err)
{
    hd_status st;
    int32_t id;
    for (;;) {
        bool more = (o->max_tok <= 0 || r->n_tok < o->max_tok) && s->ids.n < s->e->ctx_tok;
        if (more) HD_TRY(prepare(s, o, err));
        if (o->stop_flag && *o->stop_flag) r->why = HD_STOP_FLAG;
        else if (o->max_tok > 0 && r->n_tok >= o->max_tok) r->why = HD_STOP_LENGTH;
        else if (s->ids.n >= s->e->ctx_tok) r->why = HD_STOP_CONTEXT;
        else {
            bool thinking = text->kind == HD_TEXT_THINKING;
            HD_TRY(next_id(s, p, o, text, r, &id, err));
            r->n_tok++;
            r->n_thinking += thinking && id != text->think_end;
            if (!o->ignore_stop_ids && hd_engine_is_stop(s->e, id)) {
                r->why = HD_STOP_TURN;
                return HD_OK;
            }
            if (text->tok) HD_TRY(hd_stream_id(text, id, err));
            if (!text->stopped) continue;
            r->why = HD_STOP_STRING;
        }
        return HD_OK;
    }
fail:
    return st;
}

hd_status hd_generate(hd_session *s, hd_sampler *p, const hd_generate_opts *o, hd_generated *r, hd_err *err)
{
    static const hd_generate_opts plain = {0};
    hd_status st;
    hd_generated mine;
    bool open = false;
    double t0 = hd_now_s();
    int64_t passes = s->n_passes, drafted = s->n_drafted, accepted = s->n_accepted;
    if (!o) o = &plain;
    if (!r) r = &mine;
    *r = (hd_generated){0};
    hd_stream text = {.text = o->text,
                      .arg = o->arg,
                      .stop = o->stop,
                      .n_stop = o->n_stop,
                      .tok = s->e->tok,
                      .think_begin = -1,
                      .think_end = -1};
    if (s->ids.n == 0)
        return hd_fail(err, HD_USAGE, "generate: the session is empty: there is nothing to continue");
    if (!s->e->tok && (o->text || o->n_stop > 0)) // ids alone need no tokenizer
        return hd_fail(err, s->e->tok_err.code, "%s", s->e->tok_err.msg);
    if (o->chat && s->e->chat) {
        hd_chat_think_ids(s->e->chat, s->e->tok, &text.think_begin, &text.think_end, &open);
        open = inside_thought(s, text.think_begin);
    }
    HD_TRY(hd_stream_open(&text, open ? HD_TEXT_THINKING : HD_TEXT_ANSWER, err));
    text.at_start = open;
    HD_TRY(loop(s, p, o, &text, r, err));
    HD_TRY(hd_stream_end(&text, err));
fail:
    s->told = s->ids.n;
    s->told_thinking = text.kind == HD_TEXT_THINKING;
    r->n_passes = s->n_passes - passes;
    r->n_drafted = s->n_drafted - drafted;
    r->n_accepted = s->n_accepted - accepted;
    r->seconds = hd_now_s() - t0;
    hd_stream_close(&text);
    return st;
}
