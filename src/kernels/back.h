/* Leaf loops of the way back (training).  As all kernels: single-threaded, cannot fail; the order of a sum
 * depends on its length alone.  Heavy products use hd_kernels.panel_mul; these are what lies around them. */
#ifndef HD_KERNELS_BACK_H
#define HD_KERNELS_BACK_H

#include "kernels/kernels.h"

typedef struct hd_back_kernels {
    /* to[c ld_to + r] = from[r ld_from + c]   for r < rows, c < cols */
    void (*transpose)(float *to, int64_t ld_to, const float *from, int64_t ld_from, int rows, int cols);
    /* y[i ldy + c] += sum over m of a[m lda + i] x[m ldx + c]   for i < rows, c < cols, m < M
     * A sum runs over m in order and is then added to y.  Of x's rows columns up to a
     * multiple of 32 are read. */
    void (*outer)(float *y, int64_t ldy, const float *a, int64_t lda, const float *x, int64_t ldx, int M, int rows, int cols);
    /* The same with words that are pairs of bf16, rows 2m and 2m + 1, as pairs() makes them.  NULL where
     * that is no faster. */
    void (*outer_pairs)(float *y, int64_t ldy, const uint32_t *a, int64_t lda, const uint32_t *x, int64_t ldx, int M, int rows, int cols);
    /* Two rows of n numbers as panels of bf16 and outer_pairs want them: words of a[i] in the lower half,
     * b[i] in the upper (b NULL: zeros).  `wide` words, a multiple of 16, lie side by side; those behind them
     * are `step` words further on.  The last part is filled with zeros. */
    void (*pairs)(uint32_t *to, size_t step, int wide, const float *a, const float *b, int n);
    /* The same of rows of bf16. */
    void (*pairs_bf16)(uint32_t *to, size_t step, int wide, const uint16_t *a, const uint16_t *b, int n);
    float (*dot)(const float *a, const float *b, int64_t n);
    void (*scale)(float *x, float a, int64_t n);
    /* One row of attention's scores and of do.v, in place:
     *   p = exp(scale s - lse) -> s      scale p (dp - delta) -> dp           (arXiv:2307.08691, algorithm 2, lines 11-14) */
    void (*attn_row)(float *s, float *dp, float scale, float lse, float delta, int n);
    /* The same for two rows `ld` apart, as products of bf16 want them: pairs of p and of ds (see pairs), and
     * ds as rows[2] of bf16.  Of row r seen[r] numbers count; behind them, up to n, a multiple of 16, there
     * will be zeros.  NULL where outer_pairs is. */
    void (*attn_pairs)(uint32_t *p, uint32_t *ds, uint16_t *const row[2], const float *s, const float *dp, int64_t ld, float scale,
                       const float lse[2], const float delta[2], const int seen[2], int n);
    /* dgate = da up s (1 + gate (1 - s)), dup = da gate s, a = gate s up with s = sigmoid(gate); a may be
     * NULL; dgate and dup may be gate and up */
    void (*silu_mul)(float *dgate, float *dup, float *a, const float *da, const float *gate, const float *up, int64_t n);
    /* y = x g r, r = 1 / sqrt(mean(x^2) + eps):  dx = r (g dh - x r^2 mean(g dh x)), added to dx when
     * `add`;  dg += dh x r */
    void (*rmsnorm)(float *dx, bool add, float *dg, const float *dh, const float *x, const float *g, int64_t n, float eps);
} hd_back_kernels;

void hd_fill_back_ref(hd_kernels *k);
void hd_fill_back_avx2(hd_kernels *k);
void hd_fill_back_vnni(hd_kernels *k);
void hd_fill_back_zen4(hd_kernels *k);
void hd_fill_back_neon(hd_kernels *k);

#endif
