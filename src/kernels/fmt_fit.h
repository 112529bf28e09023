/* The arithmetic of encoders: which scale (and offset) lets integer codes come closest to given numbers?
 *
 * Everywhere the error is  E = sum_i w_i (x_i - d q_i - m)^2  with weights w >= 0.  For fixed codes q, the best d and m are
 * a least-squares solution in closed form; for fixed d and m, the best codes are (x - m) / d rounded.  E
 * has many local minima, so a row of starting scales is tried, and the best one is polished by
 * alternating the two steps.
 *
 * n is 16 or 32 here, codes are floats that hold integers, and sums have four lanes whatever the machine: a
 * file comes out the same, byte for byte, on every computer. */
#ifndef HD_KERNELS_FMT_FIT_H
#define HD_KERNELS_FMT_FIT_H

#include <stdbool.h>

enum { FIT_MAX = 32 }; // numbers of one block

/* Weights of the squared error:  w_i = importance_i sqrt(sigma2 + x_i^2).  Large weights of a row meet
 * activations as often as small ones, but a code's rounding error matters more where numbers are large, since
 * few of those carry most of the sum; sigma2 (twice the mean square around) keeps small numbers from being
 * ignored.  importance NULL: all 1. */
void fit_weights(float *w, const float *x, const float *importance, int n, float sigma2);

/* x = d q, q in lo..hi.  Returns d. */
float fit_scale(int n, const float *x, const float *w, int lo, int hi);
/* x = d q + m, q in 0..hi; m <= 0 when no_plus. */
void fit_range(int n, const float *x, const float *w, int hi, bool no_plus, float *d, float *m);

/* The nearest codes for given d and m, and their error. */
float fit_codes(int n, const float *x, const float *w, float d, float m, int lo, int hi, float *q);

#endif
