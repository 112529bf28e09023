/* Experts on ranks, as a pass sees them (how rows travel: dist/expert.h).  A rank then holds its own routed
 * experts alone; the tokens of all ranks meet them there, and what the experts make of them comes home.
 *
 * All ranks walk through the same layers in the same order, and one that has no rows of its own brings its
 * experts nonetheless.  Blocks cannot fail but messages can: behind the first that does nothing is sent and
 * no row comes any more, and the pass says so at its end. */
#ifndef HD_MODEL_RANKS_H
#define HD_MODEL_RANKS_H

#include "dist/expert.h"
#include "model/config.h"

typedef struct {
    hd_comm *comm;
    hd_expert_plan *plan; // of the layer in hand
    int E, first, n;      // experts in all; first .. first + n are here
    int ranks, K;
    uint64_t bytes; // sent so far
    hd_status st;   // of the first message that failed
    hd_err why;
} hd_ranks;

/* comm is borrowed.  max_rows: of one pass of a rank.  HD_LIMIT: more rows than a product takes
 * may come together. */
hd_status hd_ranks_open(hd_ranks **out, hd_comm *comm, const hd_config *c, int max_rows, hd_err *err);
void hd_ranks_close(hd_ranks *x); // accepts NULL
int hd_ranks_owner(const hd_ranks *x, int expert);

/* first: [E + 1] first slot of each expert among this rank's.  run: [E + 1] becomes the first row of each
 * among those that come here, empty for experts of other ranks.  Returns their number.  On a way back once
 * more: dispatch and combine are of the layer routed last. */
int hd_ranks_route(hd_ranks *x, const int *first, int *run);
/* slots: [slots, D] of this rank's tokens.  rows: [rows, D] of this rank's experts. */
void hd_ranks_dispatch(hd_ranks *x, const float *slots, float *rows, int64_t D);
void hd_ranks_combine(hd_ranks *x, const float *rows, float *slots, int64_t D);
hd_status hd_ranks_status(const hd_ranks *x, hd_err *err); // accepts NULL

/* Rows that can come when each rank has M: all tokens choose this one's experts. */
int64_t hd_ranks_most_rows(const hd_ranks *x, int64_t M);

/* Bytes that `rows` rows take here while this rank has M: of a pass's work memory, of a layer's
 * tape, of a way back. */
typedef struct {
    size_t pass, tape, back;
} hd_ranks_bytes;
hd_ranks_bytes hd_ranks_bytes_for(const hd_config *c, int M, int64_t rows);

#endif
