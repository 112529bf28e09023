/* Work that takes longer than the network thread may be kept: reading a body, tokenizing a prompt,
 * compiling a grammar.
 *
 *   network thread --start--> waiting --work()--> done --hd_net_post--> finish() on the network thread
 *
 * A few threads share one list.  What is big runs on all of them but one, so that small requests never
 * wait for megabytes. */
#ifndef HD_SERVE_WORK_H
#define HD_SERVE_WORK_H

#include "serve/net.h"

typedef struct hd_work hd_work;
typedef struct hd_chore hd_chore;

/* A part of what it is about; that is its owner's, who sets all but what is below the line. */
struct hd_chore {
    void (*work)(hd_chore *c);   // on a thread of its own; touches no request
    void (*finish)(hd_chore *c); // on the network thread, always once; afterwards the chore is its owner's again
    bool big;
    /* ---- */
    hd_chore *next;
};

hd_status hd_work_open(hd_work **out, hd_net *n, int n_threads, hd_err *err);
/* Network thread, when it runs no more: what is being done is done to its end, what waits is not begun;
 * all are finished. */
void hd_work_close(hd_work *w);

/* Network thread.  w NULL: at once, here (the tests' way). */
void hd_work_start(hd_work *w, hd_chore *c);
/* Take back what has not begun; it will not be finished then.  False: too late. */
bool hd_work_forget(hd_work *w, hd_chore *c);

#endif
