/* The loop of one answer: a pass, a step (step.c), until it ends. */
#include "base/log.h"
#include "infer/step.h"

/* Logits for the next pick, unless the flag is seen in the middle of a long prompt. */
static hd_status prepare(hd_session *s, const hd_generate_opts *o, hd_err *err)
{
    hd_status st = HD_OK;
    while (st == HD_OK && !s->ready && !(o->stop_flag && *o->stop_flag)) st = hd_session_pass(&s, 1, err);
    return st;
}

static hd_status loop(hd_step *t, hd_err *err)
{
    hd_status st = HD_OK;
    while (!t->ended) {
        bool over = hd_step_over(t);
        if (!over) HD_TRY(prepare(t->s, &t->o, err));
        if (t->o.stop_flag && *t->o.stop_flag) {
            t->r.why = HD_STOP_FLAG;
            return HD_OK;
        }
        if (!over) HD_TRY(hd_step_next(t, err));
    }
fail:
    return st;
}

hd_status hd_generate(hd_session *s, hd_sampler *p, const hd_generate_opts *o, hd_generated *r, hd_err *err)
{
    static const hd_generate_opts plain = {0};
    hd_status st;
    double t0 = hd_now_s();
    int64_t passes = s->n_passes, drafted = s->n_drafted, accepted = s->n_accepted;
    hd_step t = {.s = s, .p = p, .o = o ? *o : plain, .grammar = o ? o->grammar : NULL};
    HD_TRY(hd_step_open(&t, err));
    HD_TRY(loop(&t, err));
    HD_TRY(hd_step_finish(&t, err));
fail:
    s->told = s->ids.n;
    s->told_thinking = t.text.kind == HD_TEXT_THINKING;
    t.r.n_passes = s->n_passes - passes;
    t.r.n_drafted = s->n_drafted - drafted;
    t.r.n_accepted = s->n_accepted - accepted;
    t.r.seconds = hd_now_s() - t0;
    if (r) *r = t.r;
    hd_step_close(&t);
    return st;
}
