/* What a run needs before its first step, made where it is missing: a tokenizer, token shards, first weights.
 * All of it lies in the run's folder (tokenizer/, data/, init/), each part whole or absent, so that a
 * later start finds it. */
#ifndef HD_TRAIN_PREPARE_H
#define HD_TRAIN_PREPARE_H

#include <signal.h>

#include "dist/comm.h"
#include "train/recipe.h"

typedef struct {
    char tokenizer[1100]; // folder, or the model that brings it
    char init[1100];      // the model that the first step starts from
    hd_data_source source[HD_RECIPE_SOURCES], val; // val.path NULL: none
    int n_sources;
    char path[HD_RECIPE_SOURCES + 1][1100]; // what source and val point to
} hd_prepared;

/* Rank 0 makes, all wait.  HD_USAGE: the recipe names no data. */
hd_status hd_prepare(hd_prepared *p, const hd_recipe *r, hd_comm *comm, const volatile sig_atomic_t *stop, hd_err *err);

#endif
