/* How much memory this process may still use. */
#ifndef HD_BASE_AVAIL_H
#define HD_BASE_AVAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes: the system's MemAvailable (proc(5)), or what its control group (v1 or v2) leaves when that is less.
 * UINT64_MAX when neither can be read. */
uint64_t hd_mem_available(void);
uint64_t hd_mem_available_at(
    const char *root); // the same under another root folder ("" is the real one): for tests

/* The first size - 1 bytes of root/path, of /proc or /sys, as a string; false when it cannot be read or is
 * empty.  Takes no memory from the heap. */
bool hd_read_system_text(const char *root, const char *path, char *text, size_t size);

#endif
