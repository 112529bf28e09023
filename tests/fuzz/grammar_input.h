/* What the targets of grammars read: a grammar's text, then, behind a NUL, bytes of a walk
 * through what it allows. */
#ifndef HD_FUZZ_GRAMMAR_INPUT_H
#define HD_FUZZ_GRAMMAR_INPUT_H

#include "grammar_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef hd_status open_fn(hd_grammar **out, const char *text, size_t n, hd_err *err);
typedef void follow_fn(hd_grammar *g, const hd_tokenizer *t, int32_t stop, const uint8_t *bytes, size_t n);

static inline int grammar_input(const uint8_t *data, size_t size, open_fn *open, follow_fn *follow)
{
    static hd_tokenizer *t; // made once: it costs more than a grammar
    static int32_t stop;
    hd_err err;
    hd_grammar *g = NULL;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    if (!t && walk_tokenizer(&t, &stop, &err) != HD_OK) abort();
    if (open(&g, (const char *)data, n, &err) == HD_OK && nul) follow(g, t, stop, nul + 1, size - n - 1);
    hd_grammar_close(g);
    return 0;
}

#endif
