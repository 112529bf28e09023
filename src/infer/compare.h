/* Two forms of one model side by side on a text: what rounding the weights, the activations
 * or the cache did. */
#ifndef HD_INFER_COMPARE_H
#define HD_INFER_COMPARE_H

#include "model/model.h"

typedef struct {
    double perplexity, perplexity_of_other;
    double kl, kl_error; // mean Kullback-Leibler divergence of the other from the first, in nats; its standard error
    double same_top;     // share of positions with the same likeliest id
    int64_t n_scored, n_chunks;
} hd_comparison;

/* Chunks of ctx ids whose second halves are scored, by hd_perplexity_run's rule.  Both models have the same
 * vocabulary (else HD_USAGE).  HD_NOMEM. */
hd_status hd_compare(hd_comparison *out, hd_model *m, hd_cache_type type, hd_model *other,
                     hd_cache_type other_type, const int32_t *id, int64_t n, int64_t ctx, int32_t bos, int64_t max_chunks, hd_err *err);

#endif
