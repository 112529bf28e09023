/* A run's folder: recipe.ini, tokenizer/, data/, log.csv, val.csv, samples.txt, step-000123/ (checkpoints), lock.
 * And what a person sees meanwhile: one live line, or a line every so often where stderr is no terminal. */
#ifndef HD_TRAIN_RUNDIR_H
#define HD_TRAIN_RUNDIR_H

#include "train/recipe.h"

typedef struct {
    int64_t step, steps, tokens;    // tokens seen so far
    double loss, mtp_loss, balance_loss, lr, grad_norm, tok_s, seconds; // seconds: of this run in all, earlier parts too
    double val_bpb;                 // < 0: not measured at this step
    double share_of_peak;           // of the machine's measured product rate, 0: unknown
    double load_max, load_min;      // most and least loaded expert, as a multiple of the even share; 0: dense
    bool skipped;
} hd_step_log;

typedef struct hd_rundir hd_rundir;
/* Creates the folder, or opens an earlier run's (then log.csv is cut behind `from_step`).  A run that is being written by
 * another process is refused (lock). */
hd_status hd_rundir_open(hd_rundir **out, const hd_recipe *r, int64_t from_step, bool json, hd_err *err);
hd_status hd_rundir_step(hd_rundir *d, const hd_step_log *s, hd_err *err); // CSV line, live line
hd_status hd_rundir_load(hd_rundir *d, int64_t step, const int64_t *load, int n_layers, int n_experts, hd_err *err); // load.csv
hd_status hd_rundir_sample(hd_rundir *d, int64_t step, const char *text, hd_err *err);
void hd_rundir_say(hd_rundir *d, const char *fmt, ...) __attribute__((format(printf, 2, 3))); // above the live line
void hd_rundir_close(hd_rundir *d);

#endif
