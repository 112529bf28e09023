/* Attention over a paged cache: one streaming (flash-like) operation for GQA and for the absorbed latent of MLA.
 *
 *   out[t, h] = sum over j <= pos[t] of softmax_j(scale * q[t, h] . key[j, h/group]) value[j, h/group]
 *
 * (online softmax: arXiv:1805.02867; tiling: arXiv:2205.14135).  Keys are visited in blocks aligned to absolute positions
 * and segments of fixed length are merged in order, so a row's sums never depend on the batch, the slice or the threads.
 * The cache's layout is that of the products: keys as panels (pairs of the inner dimension), values as pairs of
 * positions; it does not depend on the CPU level, so a saved session opens elsewhere. */
#ifndef HD_OPS_ATTN_H
#define HD_OPS_ATTN_H

#include "ops/ops.h"

enum { HD_PAGE_TOK = 64 }; // positions of one page

typedef enum { HD_CACHE_F32, HD_CACHE_F16, HD_CACHE_BF16, HD_CACHE_Q8_0, HD_N_CACHE_TYPE } hd_cache_type;

/* What one layer keeps for each position. */
typedef struct {
    hd_cache_type type;
    int n_kv;      // key/value heads; 1 for MLA
    int dk, dv;    // numbers of a key and a value; MLA: kv_lora_rank + qk_rope_head_dim, kv_lora_rank
    bool v_in_k;   // MLA: the value is the first dv numbers of the key; no value plane is kept
} hd_kv_shape;

size_t hd_kv_page_bytes(const hd_kv_shape *s); // one layer's part of one page, a multiple of 64
/* Write position `slot` of a page.  k: [n_kv, dk], v: [n_kv, dv] (unused when v_in_k). */
void hd_kv_store(const hd_kv_shape *s, uint8_t *page, int slot, const float *k, const float *v);
/* Read it back (tests, conversions). */
void hd_kv_load(const hd_kv_shape *s, const uint8_t *page, int slot, float *k, float *v);

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
} hd_attn;

/* work: scratch for partial results, hd_attn_work_bytes. */
size_t hd_attn_work_bytes(const hd_attn *a, int n_threads);
void hd_attn_run(hd_dev *d, const hd_attn *a, hd_arena *work);

#endif
