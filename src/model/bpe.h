/* Byte-pair encoding of one word (Sennrich et al., arXiv:1508.07909, over bytes as in GPT-2): start from
 * single bytes and, while some neighbours form a known pair, join the pair of the lowest rank, the
 * leftmost of equals. */
#ifndef HD_MODEL_BPE_H
#define HD_MODEL_BPE_H

#include "model/tokenizer.h"
#include "model/vocab.h"

typedef struct {
    int32_t a, b; // ids of the pair
    int32_t id;   // what it becomes
} hd_merge;

typedef struct {
    hd_merge *merge; // [n_merges] by rank, their line in the list: lower joins first
    int64_t n_merges;
    uint32_t *slot;  // rank + 1, or 0 for a free slot, by hash of the pair; open addressing
    size_t mask;
    uint64_t seed;
    int32_t byte_id[256]; // -1: the vocabulary lacks this byte
    int32_t unk;          // stands for such bytes; -1: they vanish, as in Hugging Face
    bool fuse_unk;        // neighbouring unknown bytes give one id
    bool ignore_merges;   // a word that is a token is that token
} hd_bpe;

/* Room for n merges. */
hd_status hd_bpe_open(hd_bpe *b, int64_t n, hd_err *err);
void hd_bpe_close(hd_bpe *b);
/* The next merge, by the bytes of its two sides.  HD_FORMAT when a side or the result is no token.
 * A merge whose result is a special token can never be reached from text and is dropped; so is a
 * pair listed before. */
hd_status hd_bpe_add(hd_bpe *b, const hd_vocab *v, int64_t rank, const char *a, size_t na, const char *c, size_t nc,
                     hd_err *err);
/* Fill byte_id. */
void hd_bpe_bytes(hd_bpe *b, const hd_vocab *v);

/* Working memory of one encoder at a time, kept between words. */
typedef struct hd_bpe_word {
    uint8_t len, n;
    char key[30];
    int32_t id[8];
} hd_bpe_word;

typedef struct {
    hd_bpe_word *cache; // [cache_n] words met lately, by hash; NULL: none
    size_t cache_mask;
    int32_t *id, *next, *prev; // [cap] the word as a linked list
    uint32_t *rank;            // [cap] of the pair that begins here
    uint64_t *heap;            // [2 cap] rank << 32 | position, smallest first; stale entries are skipped
    size_t cap;
} hd_bpe_work;

hd_status hd_bpe_work_open(hd_bpe_work *w, bool cache, hd_err *err);
void hd_bpe_work_close(hd_bpe_work *w);

/* Append the ids of the word s[0..n).  O(n log n).  HD_LIMIT: longer than 2^30; HD_NOMEM. */
hd_status hd_bpe_encode(const hd_bpe *b, const hd_vocab *v, hd_bpe_work *w, const char *s, size_t n, hd_ids *out,
                        hd_err *err);

#endif
