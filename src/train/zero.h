/* ZeRO-1 (arXiv:1910.02054): every rank holds all weights and gradients, but each parameter's moments, and
 * its update, belong to one rank.  Ranks own whole parameters in runs of the flat array, so that what a rank
 * receives and sends is one range.  With experts on ranks these are their rank's: their gradients are whole
 * there and their weights nowhere else, so neither travels. */
#ifndef HD_TRAIN_ZERO_H
#define HD_TRAIN_ZERO_H

#include "dist/comm.h"
#include "train/checkpoint.h"

typedef struct {
    int *owner;     // [params->n]
    int64_t *first; // [ranks + 1] floats of the flat array's shared part: rank r owns first[r] .. first[r+1]
    int n_ranks;
} hd_zero;

/* Consecutive parameters, as even by size as whole ones allow. */
hd_status hd_zero_open(hd_zero *z, const hd_params *p, int n_ranks, hd_err *err);
void hd_zero_close(hd_zero *z);
/* Gradients: the sum over ranks, whole on the owner (elsewhere unspecified). */
hd_status hd_zero_reduce(const hd_zero *z, hd_comm *c, float *g, hd_err *err);
/* Weights: the owners' to all. */
hd_status hd_zero_gather(const hd_zero *z, hd_comm *c, float *w, hd_err *err);

#endif
