/* Words for the person at the terminal, all on stderr: warnings and progress bars. */
#ifndef HD_BASE_LOG_H
#define HD_BASE_LOG_H

#include "base/err.h"

void hd_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2))); // "hadal: warning: ..."

/* A bar on a terminal, nothing otherwise (or a line at 100 % where HADAL_PROGRESS=1 asks).  Redrawn at most
 * 10 times a second. */
typedef struct {
    const char *what, *unit; // unit "B" prints KB, MB, GB
    uint64_t total, done;
    double t0, t_drawn;
    bool shown;
} hd_progress;
void hd_progress_begin(hd_progress *p, const char *what, uint64_t total, const char *unit);
void hd_progress_add(hd_progress *p, uint64_t n);
void hd_progress_end(hd_progress *p);

double hd_now_s(void); // monotonic seconds

#endif
