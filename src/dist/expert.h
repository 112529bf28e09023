/* Experts that live on ranks: rows of tokens go to the rank that owns their expert, and what it makes of them
 * comes back (expert parallelism; arXiv:2006.16668, arXiv:2401.06066).
 *
 * Rank r owns experts hd_expert_first(E, ranks, r) .. hd_expert_first(E, ranks, r + 1).  A layer's way:
 *
 *   here                                    there
 *   slots sorted by expert   -- dispatch -> rows of my experts: by expert, within it by rank, within that by
 *                            slot
 *                                           each expert: one product over its rows
 *   the same slots, answered <- combine --
 *
 * and the way back is the same pair again: gradients of answers are dispatched, gradients of rows are
 * combined, by the same plan.  On one rank both are copies.  An expert meets the rows of all ranks in the
 * order of ranks: if rank r holds the tokens that a single rank has as its r-th run of rows, every sum over
 * an expert's rows (its weights' gradients) has that rank's order, and its bits. */
#ifndef HD_DIST_EXPERT_H
#define HD_DIST_EXPERT_H

#include "dist/comm.h"

typedef struct hd_expert_plan hd_expert_plan;

static inline int hd_expert_first(int n_experts, int ranks, int rank)
{
    return (int)((int64_t)n_experts * rank / ranks);
}

/* comm is borrowed.  Memory for arriving rows is taken as they come: a rank whose experts all ranks choose
 * receives all slots. */
hd_status hd_expert_open(hd_expert_plan **out, hd_comm *comm, int n_experts, hd_err *err);
void hd_expert_close(hd_expert_plan *p);

/* What goes where.  first: [E + 1] first slot of each expert among this rank's, as sorted (block_moe's
 * `first`).  Every rank calls it, as it does the two below. */
hd_status hd_expert_route(hd_expert_plan *p, const int *first, hd_err *err);
int64_t hd_expert_rows(const hd_expert_plan *p);       // that my experts have
const int64_t *hd_expert_row_first(const hd_expert_plan *p); // [my experts + 1] first row of each
/* rows: [hd_expert_rows, D] of my experts, from slots: [slots, D] of this rank. */
hd_status hd_expert_dispatch(hd_expert_plan *p, const float *slots, float *rows, int64_t D, hd_err *err);
/* slots: [slots, D] of this rank, from rows: [hd_expert_rows, D]. */
hd_status hd_expert_combine(hd_expert_plan *p, const float *rows, float *slots, int64_t D, hd_err *err);

#endif
