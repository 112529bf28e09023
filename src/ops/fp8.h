/* An emulation of DeepSeek-V3's training in FP8 (arXiv:2412.19437, 3.3): what enters a product is first
 * rounded to E4M3 (4 bits of exponent, 3 of mantissa), weights with one scale for each block of 128 x 128,
 * activations and gradients with one for each 128 numbers along the sum.  Scales are powers of two, as in
 * V3.1 (UE8M0), so a rounded number is exact in bf16 and the bf16 kernels multiply it; sums are f32
 * throughout, which the paper's promotion every 128 products aims at.
 *
 * hd_dev.fp8 switches it on for all products whose panels are bf16.  What V3 leaves in higher precision
 * (embedding, head, routers, norms, attention) is left here too: params.c gives the head and the
 * routers f32 panels. */
#ifndef HD_OPS_FP8_H
#define HD_OPS_FP8_H

#include "ops/ops.h"

enum { HD_FP8_GROUP = 128 };

/* The power of two that brings numbers up to `max` into E4M3's range (448); 1 for 0, infinities and NaN. */
float hd_fp8_scale(float max);
/* x / scale rounded to the nearest E4M3 number (even among equals), times scale. */
float hd_fp8_round(float x, float scale);
/* Groups of 128 numbers, `step` apart, each by its own scale; in place. */
void hd_fp8_round_groups(float *x, int64_t n, int64_t step);
/* A row into a bf16 blob. */
void hd_fp8_act_pack(const hd_kernels *k, void *blob, const float *x, int64_t n);

#endif
