/* Words of a text as hashes: what deduplication and the contamination check compare.
 *
 * A word is a run of letters and digits, ASCII ones in lower case; bytes of other scripts count as letters,
 * but for characters from U+2E80 on (Chinese, Japanese, Korean), each of which is a word.  Spaces and
 * punctuation are not there. */
#ifndef HD_TRAIN_WORDS_H
#define HD_TRAIN_WORDS_H

#include <jansson.h>

#include "base/buf.h"

typedef struct {
    uint64_t *hash;
    int64_t n, cap;
} hd_wordhash;

hd_status hd_wordhash_add(hd_wordhash *w, const void *text, size_t n, hd_err *err); // appends
void hd_wordhash_free(hd_wordhash *w);
/* The finalizer of SplitMix64 (Steele et al. 2014): every bit of x moves every bit of the result. */
uint64_t hd_mix(uint64_t x);
/* All strings of a JSON text, keys aside, with a line's end between them; appended to out.
 * False: it is no JSON. */
bool hd_json_strings(hd_buf *out, const char *json, size_t n);
bool hd_json_strings_of(hd_buf *out, const json_t *j); // false: no memory

#endif
