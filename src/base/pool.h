/* Threads.  A pool runs one parallel region at a time: chunks are handed out by an atomic counter from both
 * ends, so a stalled core does not hold the others back, and of two threads each meets about the same rows in
 * every region; workers spin briefly between regions of a token step, then sleep.
 * Which thread computes a chunk may vary; what a chunk computes may not depend on it. */
#ifndef HD_BASE_POOL_H
#define HD_BASE_POOL_H

#include "base/err.h"

typedef struct hd_pool hd_pool;
typedef void hd_pool_fn(void *arg, int64_t chunk, int tid); // tid: 0 .. threads-1, for scratch memory

/* n_threads <= 0: hd_cpu_threads().  The caller's thread is one of them. */
hd_status hd_pool_open(hd_pool **out, int n_threads, hd_err *err);
void hd_pool_close(hd_pool *p);
int hd_pool_threads(const hd_pool *p);
/* Runs fn for chunks 0..n-1 and returns when all are done.  Not reentrant.  n <= 1 or one thread: no
 * synchronisation. */
void hd_pool_run(hd_pool *p, int64_t n_chunks, hd_pool_fn *fn, void *arg);

/* Physical cores within this process's affinity mask and cgroup CPU quota (v1 and v2), at least 1. */
int hd_cpu_threads(void);

#endif
