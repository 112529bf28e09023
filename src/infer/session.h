/* Inside a session.  Private to src/infer, and to the scheduler.
 *
 *   ids      0 ............ done ........ n        the timeline
 *   cache    [ computed    ][ pending  ]           done = hd_seq_len(seq)
 *
 * States: READY (the row of logits after the last id is at hand) when done covers all ids and `ready`; else a
 * pass is due. With speculation a pass computes the last id and guesses behind it; then done runs ahead of n,
 * by `guess[at..n_guess)`: pushing the guessed id makes the next row current, pushing another trims the cache
 * back. */
#ifndef HD_INFER_SESSION_H
#define HD_INFER_SESSION_H

#include "base/buf.h"
#include "infer/engine.h"

enum { HD_MAX_GUESS = 16, HD_DRAFT_STATES = HD_MAX_GUESS + 1 };

/* How guesses are made: draft.c. */
typedef struct {
    hd_draft_kind kind;
    int max, now;      // guesses a pass: at most, and at present
    float step;        // what making one guess costs, in passes of the model
    int steps;         // guesses made that way for the coming pass
    float balance;     // passes saved less what guessing cost, of late
    int rest, idle;    // passes to go without guessing, and how long the last such rest was
    bool paused;       // hd_session_pause_draft
    hd_session *small; // HD_DRAFT_MODEL: the same timeline in the smaller engine, owned
    hd_seq *mtp;       // HD_DRAFT_MTP: keys of the extra layer; its row i joins state and next id of position
                       // mtp_from + i
    int64_t mtp_from;
    float *hidden; // HD_DRAFT_MTP: [HD_DRAFT_STATES, D] the last pass's last states, from position hidden_at
    int64_t hidden_at, n_hidden;
    float *out, *state, *logits; // HD_DRAFT_MTP: [HD_DRAFT_STATES, D], [D] twice, [V]
} hd_draft;

struct hd_session {
    hd_engine *e;
    hd_seq *seq;
    hd_ids ids;
    float *rows; // [HD_MAX_GUESS + 1 or 1, n_vocab] logits of the last pass
    bool ready;
    int32_t guess[HD_MAX_GUESS];
    int n_guess, at; // rows[at] is the current one
    hd_draft draft;
    int64_t n_passes, n_drafted, n_accepted;
    int64_t told;       // hd_generate ended at this length ...
    bool told_thinking; // ... inside a thought
};

/* hd_session_pass, where session i may take at most most[i] rows of this pass: 0 leaves it out.  One row of
 * those who generate is all they ask for, so the numbers bound the slices of prompts. */
hd_status hd_session_pass_most(hd_session *const *s, const int *most, int n, hd_err *err);

/* Forget guesses that were computed ahead: afterwards done <= n. */
void hd_session_settle(hd_session *s);

/* While many share the passes nobody guesses: paused, a session keeps nothing for it either. */
void hd_session_pause_draft(hd_session *s, bool paused);

/* Fill s->guess for the coming pass, at most `room` of them; returns how many.  The timeline's last id is
 * pending. */
int hd_draft_guess(hd_session *s, int room);
/* accepted of the n guesses of a pass were right. */
void hd_draft_learn(hd_draft *d, int n, int accepted);
/* A pass over n rows of this session from position `at` is through; hidden: their states (HD_DRAFT_MTP). */
void hd_draft_follow(hd_session *s, const float *hidden, int n, int64_t at);
hd_status hd_draft_fork(hd_session *to, const hd_session *from, hd_err *err);
void hd_draft_trim(hd_session *s, int64_t n); // the timeline was cut to n ids
void hd_draft_close(hd_draft *d);

#endif
