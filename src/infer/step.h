/* One text under way: what happens between two passes.  hd_generate runs it for one session, the
 * scheduler for many. */
#ifndef HD_INFER_STEP_H
#define HD_INFER_STEP_H

#include "infer/grammar.h"
#include "infer/session.h"
#include "infer/stream.h"

enum { HD_MAX_TOP = 20 };

/* One id with what the sampler saw of it: natural logarithms of the probabilities in its row, after the
 * grammar and before bias, penalties and temperature. */
typedef struct {
    int32_t id;
    float logprob;
    int n_top; // the likeliest ids, falling
    int32_t top_id[HD_MAX_TOP];
    float top_logprob[HD_MAX_TOP];
} hd_token_info;

typedef struct {
    /* Set by the caller before hd_step_open; all borrowed. */
    hd_session *s; // may be exchanged for another one of the same timeline between steps
    hd_sampler *p;
    hd_generate_opts o;
    const int32_t *spell; // see stream.h
    int n_spell;
    hd_grammar *grammar; // of the answer; NULL: none
    bool logprobs;       // fill in .logprob and the first n_top of the likeliest ids
    int n_top;

    hd_stream text;
    hd_generated r; // counts of ids, and why it ended
    bool ended;
    hd_token_info token; // the last step's
    bool shown;          // ... which is part of the text: not the id that ended the turn
    hd_grammar_state *state;
    float *row; // [n_vocab] what the grammar leaves of the logits
} hd_step;

/* The session has its timeline, computed or not.  HD_USAGE: it is empty, or a stop string is no good. */
hd_status hd_step_open(hd_step *t, hd_err *err);
/* Is it over, also by its length or because the context is full?  Else a row of logits is due. */
bool hd_step_over(hd_step *t);
/* Choose an id, append it, tell its text.  Not when it is over. */
hd_status hd_step_next(hd_step *t, hd_err *err);
/* Tell what was held back. */
hd_status hd_step_finish(hd_step *t, hd_err *err);
void hd_step_close(hd_step *t); // also of zeros

#endif
