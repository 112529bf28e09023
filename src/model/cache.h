/* The paged cache: a pool of pages, each HD_PAGE_TOK positions of every layer, and sequences as lists of
 * pages.  Pages are shared by count and copied on write, so a fork (n samples of one prompt, a kept
 * prefix) costs nothing. */
#ifndef HD_MODEL_CACHE_H
#define HD_MODEL_CACHE_H

#include "model/config.h"
#include "ops/attn.h"

typedef struct hd_cache hd_cache;
typedef struct hd_seq hd_seq;

/* A type by the name that people give it. */
hd_status hd_cache_type_named(hd_cache_type *out, const char *name, hd_err *err);

/* What a cache is unless told otherwise: f16 for keys and values, whose 11 bits matter most beside the
 * biases of Qwen2's keys; bf16 for latents, which all heads read: generation at depth is the faster for
 * it (doc/log.md). */
hd_cache_type hd_cache_default(const hd_config *c);

/* The layers' shapes under a configuration: n_layers + n_mtp of them. */
hd_kv_shape hd_cache_shape(const hd_config *c, hd_cache_type type);
size_t hd_cache_tok_bytes(const hd_config *c, hd_cache_type type); // bytes a position, all layers

/* max_tok positions in all, in pages; memory is reserved and touched only as pages are used. */
hd_status hd_cache_open(hd_cache **out, const hd_config *c, hd_cache_type type, int64_t max_tok, hd_err *err);
/* Of n_layers layers from `first` on alone: what walks through other layers keeps its pages elsewhere. */
hd_status hd_cache_open_layers(hd_cache **out, const hd_config *c, hd_cache_type type, int first, int64_t n_layers,
                               int64_t max_tok, hd_err *err);
void hd_cache_close(hd_cache *c);
int64_t hd_cache_free_tok(const hd_cache *c);
const hd_kv_shape *hd_cache_get_shape(const hd_cache *c);

/* Full pages by number, for those who keep some beyond the sequence that filled them: nobody writes a page
 * that is kept, so its bytes may be read from another thread. */
int32_t hd_cache_n_pages(const hd_cache *c);
int hd_cache_page_refs(const hd_cache *c, int32_t page); // sequences and keepers that hold it
void hd_cache_page_keep(hd_cache *c, int32_t page);
void hd_cache_page_drop(hd_cache *c, int32_t page);
/* A free page with one reference, the caller's.  HD_LIMIT. */
hd_status hd_cache_page_new(hd_cache *c, int32_t *page, hd_err *err);
uint8_t *hd_cache_page_bytes(hd_cache *c, int32_t page); // its layers one after the other ...
size_t hd_cache_layer_bytes(const hd_cache *c);          // ... so many bytes each

hd_status hd_seq_open(hd_seq **out, hd_cache *c, hd_err *err);
void hd_seq_close(hd_seq *s); // gives its pages back
hd_status hd_seq_fork(hd_seq **out, hd_seq *s, hd_err *err);
int64_t hd_seq_len(const hd_seq *s);
const hd_kv_shape *hd_seq_shape(const hd_seq *s); // of its cache
/* Make room for positions up to len+n-1, unshared and writable; HD_LIMIT when the pool is out of pages. */
hd_status hd_seq_reserve(hd_seq *s, int64_t n, hd_err *err);
void hd_seq_advance(hd_seq *s, int64_t n); // after a pass has stored them
void hd_seq_trim(hd_seq *s, int64_t len);  // forget positions len and later
int32_t hd_seq_page(const hd_seq *s, int64_t i); // the page of positions 64 i to 64 i + 63
/* Go on with a full page that is known already: s ends where a page ends. */
hd_status hd_seq_adopt(hd_seq *s, int32_t page, hd_err *err);
/* List this page instead of the i-th, a full one that holds the same. */
void hd_seq_share(hd_seq *s, int64_t i, int32_t page);
/* A layer's page pointers for hd_attn_seq, valid until the next reserve, trim or close. */
uint8_t *const *hd_seq_pages(hd_seq *s, int layer);
/* Write one layer's keys and values of n >= 1 positions (reserved before).  k: [n, n_kv, dk],
 * v: [n, n_kv, dv]. */
void hd_seq_store(hd_seq *s, const hd_kernels *kn, int layer, int64_t position, int n, const float *k, const float *v);

#endif
