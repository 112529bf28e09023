/* Grammars: a GBNF text up to a NUL, then bytes of a text that follows it as far as it can.  Wherever it
 * stands, the text may end or some id may follow; the mask and the automaton agree about the next byte. */
#include "grammar_input.h"

static void follow(hd_grammar *g, const hd_tokenizer *t, int32_t stop, const uint8_t *text, size_t n)
{
    hd_err err;
    hd_grammar_state *s = NULL;
    int64_t n_vocab = hd_tokenizer_n_vocab(t);
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    if (!logits || hd_grammar_state_open(&s, g, t, &err) != HD_OK) n = 0;
    for (size_t i = 0; s && i < n && i < 16; i++) {
        for (int64_t k = 0; k < n_vocab; k++) logits[k] = 0;
        hd_status mask = hd_grammar_mask(s, logits, n_vocab, &stop, 1, &err);
        if (mask == HD_LIMIT) break;
        if (mask != HD_OK) abort(); // each byte is an id of this tokenizer: something can follow, or the text may end
        hd_status st = hd_grammar_accept(s, text[i], &err); // ids 0..255 are the bytes
        if (st != HD_LIMIT && (st == HD_OK) != (logits[text[i]] > -INFINITY)) abort();
        if (st != HD_OK) break;
    }
    hd_grammar_state_close(s);
    free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return grammar_input(data, size, hd_grammar_open, follow); }
