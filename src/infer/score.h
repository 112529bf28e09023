/* Logits along a given text: what scoring, perplexity and the comparison of two forms of a
 * model are made of. */
#ifndef HD_INFER_SCORE_H
#define HD_INFER_SCORE_H

#include "model/model.h"

/* The logits [n_vocab] after id[pos]; valid during the call. */
typedef hd_status hd_score_fn(void *arg, int64_t pos, const float *logits, hd_err *err);

/* Run n ids as one new sequence, in slices of at most `slice` rows (0: what fits), and hand over the logits
 * of positions first .. n-1 in order.  A failure of fn ends the run.  HD_USAGE: no ids, or one outside the
 * vocabulary; HD_LIMIT; HD_NOMEM. */
hd_status hd_score_run(hd_model *m, hd_cache_type type, const int32_t *id, int64_t n, int64_t first,
                       int slice, hd_score_fn *fn, void *arg, hd_err *err);

/* log softmax(logits)[id], summed in double. */
double hd_log_prob(const float *logits, int64_t n, int32_t id);

/* Perplexity by the rule of llama-perplexity: the text is cut into chunks of ctx ids, each a sequence of its
 * own whose first id is replaced by `bos` (-1: kept); the ids after the middle are scored. */
typedef struct {
    double perplexity, error; // exp of the mean, and its standard error
    double nll;               // mean, in nats
    int64_t n_scored, n_chunks;
} hd_perplexity;
/* max_chunks <= 0: all.  HD_USAGE: fewer ids than two chunks hold, or an absurd ctx. */
hd_status hd_perplexity_run(hd_perplexity *out, hd_model *m, hd_cache_type type, const int32_t *id, int64_t n,
                            int64_t ctx, int32_t bos, int64_t max_chunks, hd_err *err);

#endif
