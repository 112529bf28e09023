/* A text through a tokenizer, whatever its file held: it can be encoded, to ids inside the vocabulary, none
 * of them special; or there are none. */
#ifndef HD_FUZZ_ENCODE_H
#define HD_FUZZ_ENCODE_H

#include "model/tokenizer_impl.h"

/* ids: for the caller to free. */
static inline void must_encode(const hd_tokenizer *t, const char *text, size_t n, hd_ids *ids)
{
    hd_err err = {0};
    *ids = (hd_ids){0};
    if (hd_tokenizer_encode(t, text, n, ids, &err) != HD_OK && ids->n) abort();
    for (int64_t i = 0; i < ids->n; i++)
        if (ids->id[i] < 0 || ids->id[i] >= hd_tokenizer_n_vocab(t) || hd_tokenizer_is_special(t, ids->id[i])) abort();
}

#endif
