/* The paged cache: a pool of pages, each HD_PAGE_TOK positions of every layer, and sequences as lists of pages.
 * Pages are shared by count and copied on write, so a fork (n samples of one prompt, a kept prefix) costs nothing. */
#ifndef HD_MODEL_CACHE_H
#define HD_MODEL_CACHE_H

#include "model/config.h"
#include "ops/attn.h"

typedef struct hd_cache hd_cache;
typedef struct hd_seq hd_seq;

/* A type by the name that people give it. */
hd_status hd_cache_type_named(hd_cache_type *out, const char *name, hd_err *err);

/* What a cache is unless told otherwise: bf16, which attention reads fastest; f16 where keys have biases (Qwen2), beside which
 * bf16's 8 bits of mantissa lose what positions differ in. */
hd_cache_type hd_cache_default(const hd_config *c);

/* The layers' shapes under a configuration: n_layers + n_mtp of them. */
hd_kv_shape hd_cache_shape(const hd_config *c, hd_cache_type type);
size_t hd_cache_tok_bytes(const hd_config *c, hd_cache_type type); // bytes a position, all layers

/* max_tok positions in all, in pages; memory is reserved and touched only as pages are used. */
hd_status hd_cache_open(hd_cache **out, const hd_config *c, hd_cache_type type, int64_t max_tok, hd_err *err);
void hd_cache_close(hd_cache *c);
int64_t hd_cache_free_tok(const hd_cache *c);
const hd_kv_shape *hd_cache_get_shape(const hd_cache *c);

hd_status hd_seq_open(hd_seq **out, hd_cache *c, hd_err *err);
void hd_seq_close(hd_seq *s); // gives its pages back
hd_status hd_seq_fork(hd_seq **out, hd_seq *s, hd_err *err);
int64_t hd_seq_len(const hd_seq *s);
const hd_kv_shape *hd_seq_shape(const hd_seq *s); // of its cache
/* Make room for positions up to len+n-1, unshared and writable; HD_LIMIT when the pool is out of pages. */
hd_status hd_seq_reserve(hd_seq *s, int64_t n, hd_err *err);
void hd_seq_advance(hd_seq *s, int64_t n); // after a pass has stored them
void hd_seq_trim(hd_seq *s, int64_t len);  // forget positions len and later
/* A layer's page pointers for hd_attn_seq, valid until the next reserve, trim or close. */
uint8_t *const *hd_seq_pages(hd_seq *s, int layer);
/* Write one layer's keys and values of `position` (reserved before). */
void hd_seq_store(hd_seq *s, int layer, int64_t position, const float *k, const float *v);

#endif
