/* A training run, from a recipe to its last checkpoint: the loop that pretrain, sft and distil share. */
#ifndef HD_TRAIN_TRAINER_H
#define HD_TRAIN_TRAINER_H

#include <signal.h>

#include "dist/comm.h"
#include "train/recipe.h"

typedef struct {
    bool json;                         // one object a step on stdout
    const volatile sig_atomic_t *stop; // non-zero: write a checkpoint and return HD_CANCELLED; or NULL
} hd_run_opts;

/* Prepares what is missing (tokenizer, shards, first weights), goes on from the newest checkpoint in r->out,
 * and ends at r->steps with a checkpoint.  Every rank of `comm` calls it.
 * HD_FORMAT: the run diverged (the last checkpoint is whole), a damaged file; HD_CANCELLED:
 * stopped and saved. */
hd_status hd_train_run(const hd_recipe *r, hd_comm *comm, const hd_run_opts *o, hd_err *err);

#endif
