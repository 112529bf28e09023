/* How many threads are worth starting: physical cores, within what this process may use.
 * hd_cpu_threads() is in pool.h. */
#ifndef HD_BASE_CPU_H
#define HD_BASE_CPU_H

#include <sched.h>

/* The same under another root folder ("" is the real one) and another affinity mask of `set_bytes`
 * bytes: for tests. */
int hd_cpu_threads_at(const char *root, const cpu_set_t *set, size_t set_bytes);

#endif
