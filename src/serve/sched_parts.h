/* Inside the scheduler.  Private to its files:
 *
 *   sched.c  the thread, its doors: submit, poll, drain, statistics
 *   queue.c  who is next: users, admission, parking
 *   path.c   a job's way through the prefix cache, in memory and on disk
 *   pass.c   one pass over the living sequences, and what it has brought
 *   park.c   parked sequences on their way to disk and back
 *   past.c   texts that ended, to be recognised by their bytes */
#ifndef HD_SERVE_SCHED_PARTS_H
#define HD_SERVE_SCHED_PARTS_H

#include "serve/disk.h"
#include "serve/job.h"
#include "serve/past.h"

enum {
    HD_GROW_TOK = 2 * HD_PAGE_TOK, // room behind a prompt that admission asks for
    HD_MAX_WARM = 16,
    HD_DRAFT_ROWS = 8,  // guesses of one sequence: each has a row of logits that is kept
    HD_DRAFT_ALONE = 2, // guessing rests while more sequences generate: then rows are what a pass costs
};

struct hd_user {
    uint64_t id;
    hd_user *next;
    hd_job *first, **last; // waiting; parked ones stand in front
    int n_waiting, n_live;
    int64_t turn; // of its last admission
};

typedef enum { HD_DRAIN_NO, HD_DRAIN_FINISH, HD_DRAIN_STOP } hd_drain;

struct hd_sched {
    hd_engine *e;
    hd_sched_opts o;
    hd_park *park; // of parked sequences; NULL: none
    pthread_t thread;
    bool started;
    hd_mailbox mail;

    pthread_mutex_t lock; // guards what follows, up to the line
    pthread_cond_t more;
    hd_job *in_first, **in_last; // submitted, not yet seen
    hd_drain drain;
    bool closing, idle;
    hd_sched_stats stats;

    /* ---- the scheduler's thread alone ---- */
    atomic_int n_queued; // new jobs that wait, wherever: submit reads it
    int64_t n_jobs;
    hd_user *users;
    int n_waiting, n_parked, n_live;
    hd_job **live; // [max_live], in order of admission
    hd_job *warm;  // the newest first
    bool changed;  // somebody came, left or was moved: look at the queue again
    bool posted;   // mail for the other side
    bool flushed;  // the cache is on disk, as far as it will be
    int64_t turn;

    hd_prefix *prefix;
    hd_disk *disk; // NULL: none
    hd_past past;
    int64_t flush_left;   // blocks that may still be written before the end
    uint64_t disk_budget; // bytes that may be read for the coming pass

    /* Times of passes, in seconds, to cut the slices of prompts by. */
    double gen_pass_s, prompt_row_s;
    int64_t n_passes, mixed_passes;
    int *most;          // [max_live]
    hd_session **who;   // [max_live]

    int64_t jobs_done, jobs_cancelled, prompt_tok, cached_tok, gen_tok, parkings, drafted_tok, accepted_tok;
    double job_s; // how long a job lives, of late
    double rate_t0;
    int64_t rate_gen0, rate_prompt0;
    double gen_tok_s, prompt_tok_s;
};

static inline bool hd_job_is_cancelled(hd_job *j) { return atomic_load(&j->cancelled); }
static inline int64_t hd_pages_of(int64_t n_tok) { return (n_tok + HD_PAGE_TOK - 1) / HD_PAGE_TOK; }
static inline int64_t hd_free_pages(const hd_sched *s) { return hd_cache_free_tok(s->e->cache) / HD_PAGE_TOK; }

/* ---- queue.c ---- */
hd_status hd_queue_put(hd_sched *s, hd_job *j, hd_err *err); // a new job
void hd_queue_drop_cancelled(hd_sched *s);
void hd_queue_admit(hd_sched *s);
void hd_queue_tell(hd_sched *s); // positions
void hd_queue_end_all(hd_sched *s); // everybody ends, cancelled
/* Take a living job off the pass; its pages stay in the prefix cache until others need them. */
void hd_queue_leave(hd_sched *s, hd_job *j);
/* The job is over and told: let go of it. */
void hd_queue_release(hd_sched *s, hd_job *j);
void hd_queue_fail(hd_sched *s, hd_job *j, const hd_err *err);
/* n free pages: by forgetting prefixes, then by parking the youngest.  False: there are no more. */
bool hd_queue_make_room(hd_sched *s, int64_t n);

/* ---- path.c ---- */
/* Go on with what is known of the job's timeline.  *later: more is on disk, to be read
 * before the next pass. */
hd_status hd_path_find(hd_sched *s, hd_job *j, bool *later, hd_err *err);
void hd_path_keep(hd_sched *s, hd_job *j); // full blocks that were computed
void hd_path_save(hd_sched *s, hd_job *j); // what was found again goes to the disk
bool hd_path_flush(hd_sched *s);           // some of what is not on disk yet; false: nothing is left
/* Will the coming rows of a compute what b, or another before it, is computing?  Same place, same ids. */
bool hd_path_same_next(const hd_job *a, const hd_job *b);

/* ---- pass.c ---- */
void hd_sched_pass(hd_sched *s);

#endif
