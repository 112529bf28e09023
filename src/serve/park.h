/* Sequences that were put aside: what the model remembers of them, on its way to disk and back. */
#ifndef HD_SERVE_PARK_H
#define HD_SERVE_PARK_H

#include "infer/session.h"

typedef struct hd_park hd_park;
typedef struct hd_parked hd_parked;

/* Files go to dir, readable by their owner alone; those of a program that was killed are removed.
 * most_bytes: of what is in memory at one time.  The engine is borrowed.  HD_IO. */
hd_status hd_park_open(hd_park **out, const char *dir, uint64_t most_bytes, hd_engine *e, hd_err *err);
void hd_park_close(hd_park *p); // when all that was put is dropped; NULL is well

/* Copy what is computed of a session, whose pages may then go; a thread of the park's own writes it.  Waits
 * for that thread while too much is in memory.  NULL: no memory. */
hd_parked *hd_park_put(hd_park *p, hd_session *s);

typedef enum {
    HD_PARKED_HERE,  // in memory, and stays there until it is dropped: hd_park_restore is to come next
    HD_PARKED_LATER, // being read: hd_park_news tells when to ask again
    HD_PARKED_LOST,  // the disk was full, or gave back something else
} hd_parked_where;
hd_parked_where hd_park_want(hd_park *p, hd_parked *x, bool wait); // wait: until it is here, or lost
bool hd_park_news(hd_park *p);                                    // since the last question

/* It is here: s, which has computed whole pages of the same timeline or nothing, goes on with the rest.
 * HD_LIMIT: no pages; then nothing has changed. */
hd_status hd_park_restore(hd_park *p, const hd_parked *x, hd_session *s, hd_err *err);
void hd_park_drop(hd_park *p, hd_parked *x); // its file goes, too; NULL is well

#endif
