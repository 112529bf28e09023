/* Attention over a paged cache: one streaming (flash-like) operation for GQA and for the
 * absorbed latent of MLA.
 *
 *   out[t, h] = sum over j <= pos[t] of softmax_j(scale * q[t, h] . key[j, h/group]) value[j, h/group]
 *
 * (online softmax: arXiv:1805.02867; tiling: arXiv:2205.14135).  The cache's layout and the order of the sums
 * are told in kernels/attn.h; this layer cuts the work into pieces and hands them to threads.  A row's bits
 * depend on its own position, never on the batch, the slice or the threads. */
#ifndef HD_OPS_ATTN_H
#define HD_OPS_ATTN_H

#include "kernels/attn.h"
#include "ops/ops.h"

/* The rows of one sequence in a batch: consecutive rows row0 .. row0+n_rows-1, at positions pos[row]. */
typedef struct {
    int row0, n_rows;
    uint8_t *const *pages; // this layer's pages, in order of position
} hd_attn_seq;

typedef struct {
    hd_kv_shape kv;
    int n_heads;        // query heads, a multiple of n_kv
    float scale;        // multiplies q.k
    const float *q;     // [rows, n_heads, dk]
    const int32_t *pos; // [rows]; row t sees positions 0 .. pos[t], all already stored
    float *out;         // [rows, n_heads, dv]
    const hd_attn_seq *seqs;
    int n_seqs;
    float *lse;         // [rows, n_heads] log of the sum of exp(scale q.k), or NULL
} hd_attn;

/* Bytes that hd_attn_run takes from `work` for this very call (it gives them back on return). */
size_t hd_attn_work_bytes(const hd_attn *a, int n_threads);
/* An upper bound for planning: any call of at most max_rows rows in max_seqs sequences of at most
 * max_tok positions. */
size_t hd_attn_work_max(const hd_kv_shape *kv, int n_heads, int max_rows, int max_seqs, int64_t max_tok, int n_threads);
void hd_attn_run(hd_dev *d, const hd_attn *a, hd_arena *work);

#endif
