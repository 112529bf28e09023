/* The live line of a run, on stderr: bar, loss, validation, speed, time left, and what it has cost so far.
 * Redrawn in place on a terminal, at most ten times a second and never wider than it; elsewhere a line
 * every ten seconds. */
#ifndef HD_TRAIN_LIVE_H
#define HD_TRAIN_LIVE_H

#include "train/rundir.h"

typedef struct {
    const hd_recipe *r;
    bool terminal;
    double drawn;        // when, by hd_now_s; 0: never
    double step_s;       // seconds of a step, averaged over the last ones; 0: not known
    double last_seconds; // of the run, at the last step
    int64_t last_step;
    double bpb;          // the last one measured; < 0: none
    char line[512];
} hd_live;

void hd_live_begin(hd_live *l, const hd_recipe *r);
void hd_live_step(hd_live *l, const hd_step_log *s);
/* A line above it. */
void hd_live_say(hd_live *l, const char *text);
void hd_live_end(hd_live *l);
/* What hd_live_step shows, at any width. */
void hd_live_text(char *out, size_t size, const hd_live *l, const hd_step_log *s);

#endif
