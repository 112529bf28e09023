/* The loop that every answer comes from: choose, append, show, stop. */
#include <string.h>

#include "base/log.h"
#include "infer/session.h"
#include "infer/stream.h"

/* Does the timeline end inside a thought?  The last mark tells. */
static bool inside_thought(const hd_session *s, int32_t begin, int32_t end)
{
    for (int64_t i = s->ids.n - 1; i >= 0; i--) {
        if (s->ids.id[i] == end && end >= 0) return false;
        if (s->ids.id[i] == begin && begin >= 0) return true;
        if (hd_engine_is_stop(s->e, s->ids.id[i])) return false; // an earlier turn
    }
    return false;
}

/* The next id: chosen, or the end of a thought whose budget is spent. */
static hd_status next_id(hd_session *s, hd_sampler *p, const hd_generate_opts *o, const hd_stream *text,
                         const hd_generated *r, int32_t *id, hd_err *err)
{
    bool spent = o->chat && o->limit_thinking && text->thinking && text->think_end >= 0 &&
                 r->n_thinking >= o->think_tok;
    if (!spent) return hd_session_next(s, p, id, err);
    *id = text->think_end;
    hd_status st = hd_session_push(s, *id, err);
    if (st == HD_OK) hd_sampler_accept(p, *id);
    return st;
}

static hd_status loop(hd_session *s, hd_sampler *p, const hd_generate_opts *o, hd_stream *text,
                      hd_generated *r, hd_err *err)
{
    hd_status st;
    int32_t id;
    for (;;) {
        if (o->stop_flag && *o->stop_flag) r->why = HD_STOP_FLAG;
        else if (o->max_tok > 0 && r->n_tok >= o->max_tok) r->why = HD_STOP_LENGTH;
        else if (s->ids.n >= s->e->ctx_tok) r->why = HD_STOP_CONTEXT;
        else {
            bool thinking = text->thinking;
            HD_TRY(next_id(s, p, o, text, r, &id, err));
            r->n_tok++;
            r->n_thinking += thinking && text->thinking;
            if (!o->ignore_stop_ids && hd_engine_is_stop(s->e, id)) {
                r->why = HD_STOP_TURN;
                return HD_OK;
            }
            HD_TRY(hd_stream_id(text, id, err));
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
    hd_status st;
    hd_generated mine;
    hd_stream text = {0};
    int32_t begin = -1, end = -1;
    bool open = false;
    double t0 = hd_now_s();
    int64_t passes = s->n_passes, drafted = s->n_drafted, accepted = s->n_accepted;
    if (!r) r = &mine;
    *r = (hd_generated){0};
    if (s->ids.n == 0) return hd_fail(err, HD_USAGE, "generate: empty: nothing to continue");
    if (!s->e->tok) return hd_fail(err, s->e->tok_err.code, "%s", s->e->tok_err.msg);
    if (o->chat && s->e->chat) {
        hd_chat_think_ids(s->e->chat, s->e->tok, &begin, &end, &open);
        open = inside_thought(s, begin, end);
    }
    HD_TRY(hd_stream_open(&text, s->e->tok, o, begin, end, open, err));
    st = loop(s, p, o, &text, r, err);
    if (st == HD_OK) st = hd_stream_end(&text, err);
    r->n_passes = s->n_passes - passes;
    r->n_drafted = s->n_drafted - drafted;
    r->n_accepted = s->n_accepted - accepted;
    r->seconds = hd_now_s() - t0;
fail:
    hd_stream_close(&text);
    return st;
}
