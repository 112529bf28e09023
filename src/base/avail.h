/* How much memory this process may still use. */
#ifndef HD_BASE_AVAIL_H
#define HD_BASE_AVAIL_H

#include <stdint.h>

/* Bytes: the system's MemAvailable (proc(5)), or what its control group (v1 or v2) leaves when that is less.
 * UINT64_MAX when neither can be read. */
uint64_t hd_mem_available(void);
uint64_t hd_mem_available_at(
    const char *root); // the same under another root folder ("" is the real one): for tests

#endif
