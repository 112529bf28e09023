/* A run's folder: recipe.ini, tokenizer/, data/, log.csv, val.csv, load.csv, samples.txt, step-000123/
 * (checkpoints), lock.  And what a person sees meanwhile: one live line (train/live.h). */
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
/* Creates the folder, or opens an earlier run's; what it logged behind `from_step` is cut off.  A run that is
 * being written by another process is refused (HD_USAGE).  r is borrowed.  json: hd_rundir_step prints an
 * object on stdout, too. */
hd_status hd_rundir_open(hd_rundir **out, const hd_recipe *r, int64_t from_step, bool json, hd_err *err);
hd_status hd_rundir_step(hd_rundir *d, const hd_step_log *s, hd_err *err); // CSV line, live line
/* load.csv: a line for each layer that has experts: step, layer, tokens of each.  load:
 * [n_layers, n_experts]. */
hd_status hd_rundir_load(hd_rundir *d, int64_t step, const int64_t *load, int n_layers, int n_experts, hd_err *err);
hd_status hd_rundir_sample(hd_rundir *d, int64_t step, const char *text, hd_err *err);
void hd_rundir_say(hd_rundir *d, const char *fmt, ...) __attribute__((format(printf, 2, 3))); // above the live line
void hd_rundir_close(hd_rundir *d);

/* ---- Looking at runs ---- */

typedef enum { HD_RUN_RUNNING, HD_RUN_DONE, HD_RUN_STOPPED } hd_run_phase;

typedef struct {
    char name[64];
    int64_t step, steps, tokens; // steps 0: the recipe cannot be read
    double loss, bpb, seconds;   // of the last step; bpb < 0: never measured
    hd_run_phase state;
} hd_run_info;

bool hd_run_is(const char *dir); // a folder with a recipe.ini and a log.csv?
hd_status hd_run_info_read(hd_run_info *i, const char *dir, hd_err *err);
const char *hd_run_phase_name(hd_run_phase s);

#endif
