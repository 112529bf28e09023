/* The way back through the operations: gradients of products, of attention and of the row functions.
 *
 * Every function here may use any order of sums that is fixed by its shapes alone: no sampler reads a
 * gradient, but a resumed run must repeat it, so neither threads nor time may change a bit.  Everything is
 * f32, row-major; products run in the precision of the weight's panels (bf16 with f32 sums, or f32),
 * attention's in that of the cache where bf16 is faster.  Work memory comes from the caller's arena and is
 * given back on return.
 *
 * Notation: L the loss, dz the gradient of L by z. */
#ifndef HD_OPS_BACK_H
#define HD_OPS_BACK_H

#include "ops/attn.h"
#include "ops/ops.h"

/* ---- Products: y = W x + b --------------------------------------------------------------------------------
 * dx = W^T dy is an ordinary product by the transposed panels (hd_linear.back): hd_linear_mul(d, w->back, dy,
 * ...).  dW += dY^T X and db += sum of dY: */
typedef struct {
    const float *f;    // [rows, n], ld floats apart; NULL: act alone
    int64_t ld;
    const hd_act *act; // the same rows as a product reads them, or NULL
    int64_t m0;        // the first row in hand
} hd_side;

static inline hd_side hd_side_of(const float *f, int64_t ld) { return (hd_side){f, ld, NULL, 0}; }

typedef struct {
    hd_side x;         // [rows, k]
    const int *x_row;  // [M] row of x that belongs to row m of dy, or NULL: m itself (experts gather)
    hd_side dy;        // [M, n]
    int M;
    int64_t n, k;
    float *dw;         // [n, k], ldw floats apart, added to
    int64_t ldw;
    float *db;         // [n] or NULL, added to
    hd_panel_id kind;  // HD_PANEL_BF16: bf16 where that is faster (hd_kernels), else f32; HD_PANEL_F32: f32
} hd_mm_grad;

/* Whether jobs of a kind read acts where they are given.  Then nothing but a db reads f. */
bool hd_mm_grad_by_act(const hd_dev *d, hd_panel_id kind);
size_t hd_mm_grad_work(const hd_mm_grad *jobs, int n_jobs, int n_threads);
/* All jobs in one parallel region (q, k, v of a layer; the experts of one); no two share a dw. */
void hd_mm_grad_run(hd_dev *d, const hd_mm_grad *jobs, int n_jobs, hd_arena *work);

/* A weight's panels and those of its transpose, made anew from the f32 rows of w->src (masters); w->kind and
 * w->back->kind say in which precision.  w->panels and w->back->panels are allocated; w->back may be NULL. */
void hd_linear_refresh(hd_dev *d, hd_linear *const *w, int n_w);

/* ---- Attention --------------------------------------------------------------------------------------------
 * Given the forward's q, out and lse (log of the sum of exp(scale q.k), per row and head), and k, v of the
 * same rows (every sequence of a training batch starts at position 0 and lies whole in the batch):
 *   p = exp(scale q.k - lse)   dv = p^T do   ds = p (do.v - do.out)   dq = scale ds k   dk = scale ds^T q
 * (recomputing, in tiles: arXiv:2307.08691, algorithm 2).  q, k, v are rounded as the forward's
 * cache rounded them. */
typedef struct {
    hd_kv_shape kv;
    int n_heads;
    float scale;
    const float *q;              // [rows, n_heads, dk]
    const float *k;              // [rows, n_kv, dk]
    const float *v;              // [rows, n_kv, dv]; v_in_k: unused, the value is the first dv numbers of the key
    const float *out, *dout;     // [rows, n_heads, dv]
    const float *lse;            // [rows, n_heads]
    float *dq, *dk, *dv;         // as q, k, v; written.  v_in_k: dv unused, its part is added into dk
    const int *len;              // [n_seqs] rows of each sequence, consecutive
    int n_seqs;
} hd_attn_back;

size_t hd_attn_back_work(const hd_attn_back *a, int n_threads);
void hd_attn_back_run(hd_dev *d, const hd_attn_back *a, hd_arena *work);

/* ---- Rows -------------------------------------------------------------------------------------------------
 * RMSNorm, h = x g r with r = 1 / sqrt(mean(x^2) + eps):
 *   dx_i = r (g_i dh_i - x_i r^2 mean(g dh x))      dg_i += sum over rows of dh_i x_i r
 * dx: [M, n] written, or added to when `add`.  dh, x: [M, n] rows ld floats apart (x and dx too).
 * dg: [n], added to.  The sum over rows runs in chunks of rows fixed by M alone, then over the
 * chunks in their order. */
void hd_rmsnorm_back(hd_dev *d, float *dx, int64_t lddx, bool add, float *dg, const float *dh, int64_t lddh,
                     const float *x, int64_t ldx, const float *g, int M, int64_t n, float eps, hd_arena *work);

/* a = w silu(gate) up, w a row's weight:  dgate = w da up s (1 + gate (1 - s)),  dup = w da gate s,  dw = da
 * . silu(gate) up, s = 1 / (1 + exp(-gate)); da is the gradient by a. */
typedef struct {
    int64_t M, n;
    const float *gate, *up, *da; // [M, n] dense
    float *dgate, *dup, *a;      // [M, n], each or NULL; dgate and dup may be gate and up
    const hd_act *act[3];        // dgate, dup and a as products read them, each or NULL
    const float *weight;         // [M], or NULL: 1
    float *dw;                   // [M] or NULL
} hd_swiglu_grad;

void hd_swiglu_back(hd_dev *d, const hd_swiglu_grad *g);

/* Cross-entropy of rows of logits against targets, in place: logits become dL/dlogits.
 *   loss_m = lse_m - z_target    dz = weight (softmax(z) - onehot)   with z-loss:  + zloss lse^2
 * target: [M], -1: no loss and a zero gradient.  scale: multiplies the gradient (1 / target tokens of
 * the whole step).
 * loss: [M], in nats, unscaled, 0 where there is no target; lse: [M] or NULL; act: the gradient as a product
 * reads it, or NULL. */
void hd_xent_back(hd_dev *d, float *logits, int64_t ld, const int32_t *target, int M, int64_t V, float scale,
                  float zloss, float *loss, float *lse, const hd_act *act);

/* Distillation: cross-entropy against a teacher's distribution over its top n_top ids (the rest of its
 * mass spread over
 * nothing: the teacher's probabilities are renormalised).  teacher_id, teacher_logp: [M, n_top]; id -1
 * ends a list; a row whose first id is -1 has no loss.  temperature divides both sides' logits.
 * Otherwise as hd_xent_back. */
void hd_distil_back(hd_dev *d, float *logits, int64_t ld, const int32_t *teacher_id, const float *teacher_logp,
                    int n_top, float temperature, int M, int64_t V, float scale, float *loss);

/* y[i] += x[i] over n floats, y[i] *= a, sum of squares (in double, in chunks fixed by n): threaded. */
void hd_flat_add(hd_dev *d, float *y, const float *x, int64_t n);
void hd_flat_scale(hd_dev *d, float *y, float a, int64_t n);
double hd_flat_sumsq(hd_dev *d, const float *x, int64_t n);

#endif
