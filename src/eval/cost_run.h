/* A finished run beside its plan: tokens and seconds of log.csv, the model of its newest checkpoint,
 * the recipe's sizes. */
#ifndef HD_EVAL_COST_RUN_H
#define HD_EVAL_COST_RUN_H

#include "eval/cost.h"

typedef struct {
    hd_cost_ask ask; // as the run was made
    hd_cost plan;
    double hours;    // it took, by the clock
} hd_cost_run;

hd_status hd_cost_run_read(hd_cost_run *r, const char *dir, const hd_machine *m, hd_err *err);

#endif
