/* Choosing among logits; the public part (hd_sampler) is in hadal.h. */
#ifndef HD_INFER_SAMPLE_H
#define HD_INFER_SAMPLE_H

#include "base/err.h"

/* The likeliest id (the lowest among equals; NaN counts as never), and its probability when
 * prob is not NULL. */
int32_t hd_likeliest(const float *logits, int64_t n, float *prob);

#endif
