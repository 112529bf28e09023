/* The scheduler: one thread that owns the engine and runs everybody's jobs, one ragged batch a pass.
 *
 *   submit --> queue (fair between users) --> admitted when pages are free --> prefill by slices --> generating --> done
 *                                                  ^                                  |
 *                                                  +---- parked on disk <-------------+ (pages run out: the youngest)
 *
 * Events are put into a mailbox; `wake` tells the other side, which calls hd_sched_poll on its own thread,
 * and there the jobs' event functions run.  So neither side ever waits for the other, and an API handler is
 * single-threaded. */
#ifndef HD_SERVE_SCHED_H
#define HD_SERVE_SCHED_H

#include "infer/step.h" // hd_token_info, hd_grammar

typedef struct hd_sched hd_sched;
typedef struct hd_job hd_job;

typedef enum {
    HD_JOB_QUEUED,  // position changed: .position, 0 is next
    HD_JOB_PREFILL, // .done_tok of .total_tok of the prompt (cached ones count as done); grows from event to event
    HD_JOB_TEXT,    // .text_kind, .text, .n; and the ids it came from
    HD_JOB_DONE,    // .reason and usage; the last event, unless
    HD_JOB_ERROR,   // .err; the last event
} hd_job_event_kind;

typedef enum { HD_END_STOP, HD_END_LENGTH, HD_END_CONTEXT, HD_END_CANCELLED } hd_end;

typedef struct {
    hd_job_event_kind kind;
    int position;
    int64_t done_tok, total_tok;
    hd_text_kind text_kind;
    const char *text; // valid UTF-8, whole characters, never part of a stop string
    size_t n;
    /* Ids generated since the last event, also in HD_JOB_DONE.  Without the mark that ended the turn.  The
     * mark that ends a thought comes with the thought, whose last event may have no text (n is 0). */
    const hd_token_info *token;
    int n_token;
    hd_end reason;
    const char *stop_string; // the one that ended it, or NULL
    int64_t prompt_tok, cached_tok, gen_tok, thinking_tok; // gen_tok counts the mark that ended the turn
    double queue_s, prefill_s, gen_s;
    const hd_err *err;
} hd_job_event;

/* Zeros are the defaults.  What it points at is copied by submit, but for what says "taken". */
typedef struct {
    hd_ids prompt;     // taken
    uint64_t user;     // a user's jobs share one user's share; the prefix cache is per user
    int64_t shared_tok; // so many ids at the prompt's beginning may be shared with other users (configured prefixes)
    int64_t max_tok;   // 0: until the context ends
    hd_sample_opts sample; // top_p 0 and repetition_penalty 0 mean 1
    const char *const *stop;
    int n_stop;
    bool chat;         // separate thinking from answer, as the chat format marks it
    const int32_t *spell; // special ids that are part of the text, spelled (marks of tool calls); see stream.h
    int n_spell;
    bool limit_thinking;
    int64_t think_tok;
    hd_grammar *grammar; // taken; NULL: none.  Applied to the answer, not to the thought
    bool logprobs;
    int n_top;
    void (*event)(void *arg, const hd_job_event *e); // on the thread that polls
    void *arg;
} hd_job_opts;

typedef struct {
    int max_queue;         // jobs waiting: more are refused with HD_LIMIT; 0: 256
    int max_live;          // sequences in one pass; 0: 64
    const char *park_dir;  // parked sequences and the cache on disk; NULL: neither
    uint64_t disk_bytes;   // cap of the cache on disk
    hd_draft_kind draft;   // how ids are guessed ahead
    int draft_max;         // guesses of one sequence a pass, at most HD_DRAFT_ROWS; 0: what suits the kind
    hd_engine *small;      // of HD_DRAFT_MODEL, borrowed; nobody else may use it until close
    void (*wake)(void *arg); // from the scheduler's thread
    void *wake_arg;
} hd_sched_opts;

/* Takes the engine over: nobody else may use it until close.  HD_UNSUPPORTED: the model
 * cannot guess that way. */
hd_status hd_sched_open(hd_sched **out, hd_engine *e, const hd_sched_opts *o, hd_err *err);
void hd_sched_close(hd_sched *s); // running jobs end with HD_END_CANCELLED, their events are dropped
/* Deliver what the mailbox holds.  One thread, always the same. */
void hd_sched_poll(hd_sched *s);
/* The same, when others wait for this thread, too: `most` events; true: there are more. */
bool hd_sched_poll_some(hd_sched *s, int most);

/* HD_LIMIT: queue full, or the prompt leaves no room in the context (the message has both numbers;
 * *context_full tells the two apart).  HD_USAGE: an option out of range.  HD_CANCELLED: the server is
 * stopping.  On failure everything taken is freed, too.  `event` is called with the job's events from the
 * next poll on; its job is freed by hd_job_cancel at any moment, or by hd_job_free after the last event (also
 * inside that event's function). */
hd_status hd_sched_submit(hd_sched *s, hd_job **out, hd_job_opts *o, bool *context_full, hd_err *err);
/* No event comes after cancel (same thread as poll).  The job's memory goes when the
 * scheduler lets go of it. */
void hd_job_cancel(hd_job *j);
/* After its last event. */
void hd_job_free(hd_job *j);

/* Compute a prompt when nothing else is to be done, so that it is in the cache when it is asked for: after a
 * reply with a thought, the conversation as the next turn will render it.  Takes the ids; older wishes are
 * forgotten first. */
hd_status hd_sched_warm(hd_sched *s, hd_ids *prompt, uint64_t user, int64_t shared_tok, hd_err *err);

/* For metrics, `hadal top` and Retry-After. */
typedef struct {
    int live, queued, parked, users;
    int64_t pages_free, pages_all, cache_tok, disk_tok;
    uint64_t disk_bytes;
    int64_t jobs_done, jobs_cancelled, prompt_tok, cached_tok, gen_tok, passes, parkings;
    int64_t drafted_tok, accepted_tok; // guesses, and those that were right
    double gen_tok_s, prompt_tok_s; // over the last seconds
    double wait_s;                  // guess for a job submitted now
} hd_sched_stats;
void hd_sched_get_stats(hd_sched *s, hd_sched_stats *out); // any thread

/* Take nothing new, and finish what was taken; or, when a park_dir is set and `finish` is false, end it at
 * once with HD_END_CANCELLED and what was computed in the cache on disk.  Returns at once; `wake` is called
 * when it is through and hd_sched_idle says so. */
void hd_sched_drain(hd_sched *s, bool finish);
bool hd_sched_idle(const hd_sched *s);

#endif
