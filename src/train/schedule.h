/* Learning rate and batch by step. */
#ifndef HD_TRAIN_SCHEDULE_H
#define HD_TRAIN_SCHEDULE_H

#include "base/err.h"

typedef enum { HD_SCHED_WSD, HD_SCHED_COSINE, HD_SCHED_CONSTANT } hd_sched_kind;

typedef struct {
    hd_sched_kind kind;
    float lr, min_lr;         // min_lr: a share of lr at the end
    int64_t steps, warmup;    // of the whole run
    int64_t decay;            // WSD: last steps that fall (1 - sqrt, arXiv:2405.18392)
    int64_t batch_ramp;       // steps over which the batch grows from a quarter to its whole; 0: whole at once
} hd_schedule;

float hd_schedule_lr(const hd_schedule *s, int64_t step);                  // step counts from 1
int64_t hd_schedule_micro(const hd_schedule *s, int64_t step, int64_t n);  // micro-batches of this step, of n

/* A loss far above what came before: mean and deviation over the last 128 steps.  A spike enters the
 * record as the highest value that would have been none, so that a lasting change (other data) is soon
 * no spike any more. */
typedef struct {
    double loss[128], grad[128];
    int n, at;
} hd_spikes;
/* true: skip this update (loss or gradient norm more than `sigmas` deviations above the mean; not before 32
 * steps; 0: never).  A value that is not finite is always one, and leaves no trace.  The state of a run:
 * plain bytes, saved with its checkpoint. */
bool hd_spikes_seen(hd_spikes *s, double loss, double grad_norm, double sigmas);

#endif
