/* The words a tokenizer knows: id to bytes and bytes to id.
 *
 * Byte-level BPE (GPT-2) writes each byte of a word as one printable character, so that vocabulary files hold
 * valid text: 0x21-0x7e, 0xa1-0xac and 0xae-0xff stand for themselves, the other 68 bytes are U+0100, U+0101,
 * ... in order.  Here every token is kept as the bytes it means. */
#ifndef HD_MODEL_VOCAB_H
#define HD_MODEL_VOCAB_H

#include "base/mem.h"

enum { HD_MAX_TOKEN_BYTES = 1 << 16 }; // of one token, as it is spelled in the file

typedef enum {
    HD_TOKEN_HOLE,    // no token has this id
    HD_TOKEN_NORMAL,  // made by merges
    HD_TOKEN_ADDED,   // matched as a whole in any text
    HD_TOKEN_SPECIAL, // control: never made from text
} hd_token_kind;

typedef struct {
    int64_t n;      // ids are 0 .. n-1
    uint32_t *off;  // [n] first byte in blob
    uint32_t *len;  // [n]
    uint8_t *kind;  // [n] hd_token_kind
    char *blob;
    size_t used, cap;
    int32_t *slot;  // open addressing over the tokens' bytes: id or -1
    size_t mask;
    uint64_t seed;
} hd_vocab;

/* Room for ids 0 .. n-1 whose spellings take at most n_bytes together. */
hd_status hd_vocab_open(hd_vocab *v, int64_t n, size_t n_bytes, hd_err *err);
void hd_vocab_close(hd_vocab *v);
/* Define an id, spelled as in the file.  A normal token is stored as the bytes it means; one that is not in
 * the byte alphabet as it is spelled, and cannot be found.  Others are what they spell.
 * HD_FORMAT: id out of range or defined before, or too long. */
hd_status hd_vocab_set(hd_vocab *v, int64_t id, const char *s, size_t n, hd_token_kind kind, const char *where, hd_err *err);
/* The token of exactly these bytes, or -1.  Of several: a normal one before others, then the lowest id. */
int32_t hd_vocab_find(const hd_vocab *v, const void *bytes, size_t n);

/* The bytes that a spelling in the byte alphabet means; out has room for n.  False when a
 * character is outside it. */
bool hd_unspell(char *out, size_t *n_out, const char *s, size_t n);

/* A fast keyed hash (folded 64 x 64 -> 128 bit multiplication); the seed keeps crafted files from
 * making collisions. */
static inline uint64_t hd_fold(uint64_t a, uint64_t b)
{
    __uint128_t m = (__uint128_t)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}
uint64_t hd_hash_bytes(const void *p, size_t n, uint64_t seed);
uint64_t hd_hash_seed(void); // random, once per table

#endif
