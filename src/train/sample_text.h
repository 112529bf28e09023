/* A few words from a model in training, to see where it stands. */
#ifndef HD_TRAIN_SAMPLE_TEXT_H
#define HD_TRAIN_SAMPLE_TEXT_H

#include "base/buf.h"
#include "model/model.h"

/* Appends `n` tokens after the prompt (both, as text) to `out`; the tokenizer is the source's.  temp
 * 0: the likeliest. */
hd_status hd_sample_text(hd_model *m, const hd_source *s, const char *prompt, int n, float temp, uint64_t seed, hd_buf *out,
                         hd_err *err);

#endif
