/* The cache's layout and the leaf loops of attention over it.
 *
 * Layout of one layer's part of a page (64 positions): for each key/value head its key plane, then its
 * value plane.  Both are panels 16 columns wide, so that one vector, or one AMX tile row, is one step of
 * the inner dimension:
 *
 *             a key panel: 16 positions          a value panel: 16 numbers of all 64 positions
 *   F32       float [dk][16]                     float [64][16]
 *   F16 BF16  uint16_t [dk'/2][16][2]            uint16_t [32 pairs of positions][16][2]       dk' = dk up to 32s
 *   Q8_0      per 32 of dk: f16 scale[16],       per two panels (32 numbers): f16 scale[64],
 *             int8_t [32][16]                    then int8_t [64][16] twice
 *
 * The key plane holds 4 panels, the value plane dv / 16 (rounded up; Q8_0: an even number); padding is zero.
 * The layout is the same at every CPU level, since sessions are saved to disk.  Only finite numbers are kept:
 * what is too large saturates, NaN becomes 0.  So a masked position, whose weight is exactly 0, adds exactly
 * 0, whatever it holds.
 *
 * The sums.  A row of queries sees positions 0 .. pos, cut into segments of HD_SEG_TOK positions that
 * start at multiples of it.  In a segment: scores, their maximum m, weights p = exp(score - m), l = sum
 * of p, o = sum of p * value.  Segments are merged from the first to the last (online softmax,
 * arXiv:1805.02867, eq. 4):
 *
 *   m' = max(m1, m2)   l' = l1 e^(m1-m') + l2 e^(m2-m')   o' = o1 e^(m1-m') + o2 e^(m2-m')
 *
 * and the row's output is o / l.  Nothing here depends on which other rows, sequences or
 * threads there are. */
#ifndef HD_KERNELS_ATTN_H
#define HD_KERNELS_ATTN_H

#include "kernels/kernels.h"

enum {
    HD_PAGE_TOK = 64,  // positions of one page
    HD_KV_PANEL = 16,  // columns of a panel
    HD_SEG_TOK = 512,  // positions of one segment, a multiple of HD_PAGE_TOK
    HD_ATTN_TILE = 32, // most query rows of one call
};

typedef enum { HD_CACHE_F32, HD_CACHE_F16, HD_CACHE_BF16, HD_CACHE_Q8_0, HD_N_CACHE_TYPE } hd_cache_type;

/* What one layer keeps for each position. */
typedef struct {
    hd_cache_type type;
    int n_kv;    // key/value heads; 1 for MLA
    int dk, dv;  // numbers of a key and a value; MLA: kv_lora_rank + qk_rope_head_dim, kv_lora_rank
    bool v_in_k; // MLA: the value is the first dv numbers of the key; no value plane is kept
} hd_kv_shape;

/* Sizes in bytes, multiples of 64.  Shapes are small enough not to wrap (hd_cache_open checks them). */
size_t hd_kv_key_bytes(const hd_kv_shape *s);   // one head's key plane
size_t hd_kv_value_bytes(const hd_kv_shape *s); // one head's value plane, 0 when v_in_k
size_t hd_kv_page_bytes(const hd_kv_shape *s);  // one layer's part of one page

/* Write position `slot` of a page.  k: [n_kv, dk], v: [n_kv, dv] (unused when v_in_k). */
void hd_kv_store(const hd_kv_shape *s, uint8_t *page, int slot, const float *k, const float *v);
/* Read it back (tests, conversions).  k or v may be NULL. */
void hd_kv_load(const hd_kv_shape *s, const uint8_t *page, int slot, float *k, float *v);
/* x: [n] becomes what storing and reading it back in BF16 or F16 gives; F32: as it is. */
void hd_kv_round(hd_cache_type t, float *x, int64_t n);

/* Query rows of one sequence that read the same key head.  Row i of the tile is query head kv_head * group +
 * r % group of the sequence's row r / group, where r = first + i. */
typedef struct {
    const hd_kv_shape *kv;
    int kv_head, group;    // group: query heads to a key head
    bool exact;            // f32 products, whatever the level could do
    float scale;           // multiplies q.k
    const float *q;        // the sequence's queries [rows, n_kv * group, dk]
    const int32_t *pos;    // [rows]
    uint8_t *const *pages; // this layer's pages of the sequence
    int first, n;          // n <= HD_ATTN_TILE
} hd_attn_tile;

typedef struct hd_attn_kernels {
    /* One segment of a tile: o [n][hd_attn_ldo(dv)] (columns past dv are scratch), m [n], l [n]; 64-byte
     * aligned o.  Rows that see nothing of the segment get m = -inf, l = 0, o = 0.
     * scratch: hd_attn_scratch_bytes, 64-byte aligned. */
    void (*segment)(const hd_attn_tile *t, int64_t seg, float *o, float *m, float *l, void *scratch);
    /* One row: (o, m, l) <- merged with (o2, m2, l2), which is not empty. */
    void (*merge)(float *o, float *m, float *l, const float *o2, float m2, float l2, int dv);
    /* As hd_kv_store for positions slot .. slot+n-1 (n >= 1, of one page), k: [n, n_kv, dk], v: [n, n_kv,
     * dv]; as hd_kv_round. */
    void (*store)(const hd_kv_shape *s, uint8_t *page, int slot, int n, const float *k, const float *v);
    void (*round)(hd_cache_type t, float *x, int64_t n);
    float m_unit; // m in nats: 1, or log(2) where exponents are in base 2
} hd_attn_kernels;

static inline int hd_attn_ldo(int dv) { return (dv + HD_KV_PANEL - 1) / HD_KV_PANEL * HD_KV_PANEL; }
size_t hd_attn_scratch_bytes(const hd_kv_shape *s); // enough for every level

#endif
