/* Rotary position embedding (RoPE, arXiv:2104.09864): frequencies of a configuration, and one
 * row of rotations.
 *
 * Pair i of a head's n numbers turns by pos * freq[i], freq[i] = theta^(-2i/n), changed for long contexts:
 *   linear   freq / factor                                                       (arXiv:2306.15595)
 *   llama3   freq / factor for waves longer than the old context / low_freq_factor, freq for waves shorter
 *            than it / high_freq_factor, a straight blend between
 *   yarn     freq / factor for pairs that turn less than beta_slow times in the old context, freq for those
 *            that turn more than beta_fast times, a straight ramp over i between; cos and sin are scaled
 *            (arXiv:2309.00071)
 * Angles are products in f32, as the reference computes them: at position 16,000 that is a thousandth of a
 * turn away from the exact angle, and the model was trained with it. */
#ifndef HD_MODEL_ROPE_H
#define HD_MODEL_ROPE_H

#include "base/mem.h"
#include "model/config.h"

typedef struct {
    int n_pairs;
    float *freq; // [n_pairs], owned
    float scale; // of cos and sin
} hd_rope;

/* freq_div: [n_pairs] divisors that the file brings, or NULL.  Close with hd_rope_close, also
 * after a failure. */
hd_status hd_rope_open(hd_rope *r, const hd_config *c, const float *freq_div, hd_err *err);
void hd_rope_close(hd_rope *r);
/* cs: [n_pairs, 2] (cos, sin) of one position, scaled. */
void hd_rope_row(const hd_rope *r, float *cs, int32_t pos);
/* Numbers of a head that rotate: head_dim, or qk_rope_head_dim under MLA. */
int hd_rope_dim(const hd_config *c);
/* What q.k is multiplied with: 1/sqrt(head size), under YaRN with mscale_all_dim times mscale
 * squared (DeepSeek). */
float hd_attn_scale(const hd_config *c);

#endif
