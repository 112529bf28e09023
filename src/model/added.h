/* Added tokens: pieces of text that are found as a whole before anything else looks at it, by
 * the longest match. */
#ifndef HD_MODEL_ADDED_H
#define HD_MODEL_ADDED_H

#include "model/vocab.h"

enum { HD_MAX_ADDED_BYTES = 512 }; // of one: bounds the work at each place of a text

typedef struct {
    int32_t id;
    bool special;        // recognised, so that it is not cut, but left as text
    bool lstrip, rstrip; // takes the spaces before, behind it along
    bool single_word;    // not inside a word
} hd_added;

/* A trie whose edges (node, byte) -> node lie in one open-addressing table. */
typedef struct {
    uint64_t *edge; // node << 8 | byte, plus one; 0: free
    uint32_t *to;
    size_t mask;
    uint64_t seed;
    int32_t *token; // [max_nodes] index into tok, or -1
    size_t n_nodes, max_nodes;
    hd_added *tok;  // [n]
    int64_t n, cap;
    bool first[256];
    bool matches; // some token is not special
} hd_added_set;

/* Room for n tokens of n_bytes together. */
hd_status hd_added_open(hd_added_set *a, int64_t n, size_t n_bytes, hd_err *err);
void hd_added_close(hd_added_set *a);
/* Empty text is ignored; the last of two equal ones counts. */
hd_status hd_added_put(hd_added_set *a, const char *s, size_t n, hd_added t, hd_err *err);
int32_t hd_added_find(const hd_added_set *a, const char *s, size_t n); // the id of exactly this text, or -1

/* Hand over the stretches between matches (id -1) and the matches (their id) in order. */
typedef hd_status hd_added_fn(void *arg, const char *s, size_t n, int32_t id, hd_err *err);
hd_status hd_added_split(const hd_added_set *a, const char *s, size_t n, hd_added_fn *fn, void *arg, hd_err *err);

#endif
