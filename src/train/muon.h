/* Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the update of a matrix is its momentum made
 * nearly orthogonal.
 *
 *   m += (1 - mu) (g - m)          u = g + mu (m - g)                         momentum, Nesterov's
 *   X = u / (|u| + 1e-7)           transposed when it has more rows than columns
 *   five times:                    A = X X^T,  X = a X + (b A + c A A) X      Newton-Schulz
 *   w = (1 - lr decay) w - lr 0.2 sqrt(max(n, k)) X                          size of AdamW's update (arXiv:2502.16982)
 *
 * The polynomial a x + b x^3 + c x^5 with a = 3.4445, b = -4.7750, c = 2.0315 sends every singular value in
 * (0, 1] near 1 (0.7 to 1.2) in five steps; it does not converge, and need not.
 *
 * Products are f32.  A and A A are symmetric: half of each is computed.  Matrices go through the steps in
 * groups, so that a hundred small ones (experts) fill the threads as one large one does. */
#ifndef HD_TRAIN_MUON_H
#define HD_TRAIN_MUON_H

#include "ops/ops.h"

typedef struct hd_muon hd_muon;

typedef struct {
    int64_t at, n, k; // its place in the flat arrays
    void *m;          // [n, k] momentum: f32, or bf16
} hd_muon_matrix;

/* The list is copied; its `m` are borrowed. */
hd_status hd_muon_open(hd_muon **out, const hd_muon_matrix *list, int n, int steps, bool m_bf16, hd_err *err);
void hd_muon_close(hd_muon *u);
/* keep: 1 - lr decay.  w, g: the flat arrays. */
void hd_muon_step(hd_muon *u, hd_dev *d, float *w, const float *g, float lr, float keep, float mu, float grad_scale);
/* The work memory of a list, without the list: add its matrices in order to a zeroed plan. */
typedef struct {
    size_t bytes;       // most of any group
    size_t group_bytes; // of the last group
} hd_muon_plan;
/* true: the matrix begins a group. */
bool hd_muon_plan_add(hd_muon_plan *p, int64_t n, int64_t k);

#endif
