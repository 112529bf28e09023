/* Which columns of a weight matter: the mean squares of what they are multiplied with, over a text. */
#ifndef HD_INFER_IMPORTANCE_H
#define HD_INFER_IMPORTANCE_H

#include "infer/score.h"
#include "model/quantize.h"

typedef struct {
    hd_importance *v; // [n], by the names that the source's export has
    int n;
    float *means;     // the storage of all
} hd_importances;

/* Run n ids through m in chunks of ctx, as hd_perplexity_run does, and look at every product's activations.
 * s: the source that m was opened from.  *p: the text's perplexity on the way.  A matrix that no row reached
 * (an expert that was never chosen) gets ones.  Weights that the model rebuilt in memory (the keys' half of
 * MLA's kv_b) are left out.
 * HD_USAGE: a text shorter than two chunks; HD_NOMEM. */
hd_status hd_importances_open(hd_importances *out, hd_perplexity *p, hd_model *m, const hd_source *s, const int32_t *id,
                              int64_t n, int64_t ctx, int32_t bos, int64_t max_chunks, hd_err *err);
void hd_importances_close(hd_importances *v);

#endif
