/* What one token costs a model, and what this machine can read: the measures that a speed is held against. */
#ifndef HD_CLI_BENCH_COST_H
#define HD_CLI_BENCH_COST_H

#include "model/source.h"

typedef struct {
    uint64_t weight_bytes; // all of the file's
    double token_bytes;    // read to generate one token of one sequence: of a mixture the chosen experts', of
                           // the embedding one row, nothing of a multi-token-prediction layer
    double pass_bytes;     // read to generate one token of each sequence, where each chooses its experts by chance
    double token_weights;  // numbers in the matrices a token is multiplied with: two operations each
    double prompt_weights; // without the head's, which of a prompt meet the last token alone
} hd_bench_cost;

hd_status hd_bench_cost_of(hd_bench_cost *c, const char *path, int64_t seqs, hd_err *err);

/* Bytes a second that all threads together can read from memory: the best of several sweeps over 256 MB.
 * n_threads <= 0: the default. */
hd_status hd_bench_bandwidth(double *bytes_s, int n_threads, hd_err *err);

#endif
