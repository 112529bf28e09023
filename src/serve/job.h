/* A job as both sides see it, and the mailbox between them.  Private to the scheduler.
 *
 *   polling side                                         scheduler's thread
 *   hd_sched_submit  ----------- locked list ----------> queue, live, parked
 *   hd_job_cancel    ----------- atomic flag ----------> seen before every pass
 *   event(), poll    <---------- mailbox --------------- hd_job_post_...
 *
 * A job is counted: one for the user's side, one for the scheduler, one for each of its mails under way. */
#ifndef HD_SERVE_JOB_H
#define HD_SERVE_JOB_H

#include <pthread.h>
#include <stdatomic.h>

#include "serve/park.h"
#include "serve/prefix.h"
#include "serve/sched.h"

typedef struct hd_user hd_user; // queue.c

typedef struct hd_mail {
    struct hd_mail *next;
    hd_job *job;
    hd_job_event e;
    hd_err err;
} hd_mail; // text and ids follow in the same memory

typedef struct {
    pthread_mutex_t lock;
    hd_mail *first, **last;
} hd_mailbox;

typedef enum {
    HD_JOB_WAITING, // in its user's queue: new, or parked
    HD_JOB_READING, // its timeline is not computed to the end
    HD_JOB_SAYING,  // generating
} hd_job_state;

struct hd_job {
    atomic_int refs;
    atomic_bool cancelled;
    bool quiet; // polling side: no more events
    hd_job_opts o; // lists copied; prompt moved to ids
    void *lists;   // their memory
    hd_mail ending;  // DONE or ERROR: needs no memory when it comes
    atomic_int position; // the latest, for a mail of HD_JOB_QUEUED ...
    atomic_bool position_posted; // ... that is under way

    /* The rest belongs to the scheduler. */
    hd_job *next;
    hd_user *user;
    hd_job_state state;
    int64_t number; // order of arrival
    bool warm;      // for the cache alone: nobody listens
    bool stepping;  // step is open: it has been generating
    hd_parked *parked; // what was computed, put aside; NULL: computed again
    hd_ids ids;     // the timeline, while no session has it
    hd_session *s;
    hd_sampler *p;
    hd_step step;
    hd_block *last;  // its path in the prefix cache ends here,
    int64_t n_known; // after so many blocks
    int rows;        // of the coming pass
    int64_t last_pass;

    hd_buf out; // text since the last mail
    hd_text_kind out_kind;
    bool out_lost; // no memory for it
    hd_token_info *tok;
    int n_tok, cap_tok;
    int told_position;
    int64_t told_done;
    int64_t prompt_tok, cached_tok;
    double t_submit, t_admit, t_first;
};

/* Copy the options; takes the prompt and the grammar in any case. */
hd_status hd_job_open(hd_job **out, hd_job_opts *o, int64_t n_vocab, hd_err *err);
void hd_job_unref(hd_job *j); // NULL is well

void hd_mailbox_init(hd_mailbox *m);
void hd_mailbox_destroy(hd_mailbox *m); // drops what is in it
bool hd_mailbox_deliver(hd_mailbox *m, int most); // true: there is more

/* From the scheduler's thread; a warm job has nobody to tell. */
void hd_job_post_position(hd_mailbox *m, hd_job *j, int position);
hd_status hd_job_post_progress(hd_mailbox *m, hd_job *j, int64_t done, int64_t total, hd_err *err);
hd_status hd_job_post_text(hd_mailbox *m, hd_job *j, hd_err *err); // what out and tok hold
void hd_job_post_done(hd_mailbox *m, hd_job *j, hd_end reason);    // with what tok holds, if there is memory
void hd_job_post_error(hd_mailbox *m, hd_job *j, const hd_err *err);

#endif
