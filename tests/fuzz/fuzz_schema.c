/* JSON schemas: a schema, then (behind a NUL) bytes that choose among the ids that may follow.  Where the
 * walk ends, its text is JSON. */
#include "grammar_input.h"

/* The ids that are left: the first at or behind a place that the input names. */
static int32_t choose(const float *logits, int64_t n, uint8_t byte)
{
    for (int64_t i = 0; i < n; i++)
        if (logits[(byte + i) % n] > -INFINITY) return (int32_t)((byte + i) % n);
    return WALK_STOP;
}

static void follow(hd_grammar *g, const hd_tokenizer *t, int32_t stop, const uint8_t *choice, size_t n)
{
    hd_err err;
    hd_grammar_state *s = NULL;
    hd_buf text;
    int64_t n_vocab = hd_tokenizer_n_vocab(t);
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    hd_buf_init(&text, 1 << 20);
    if (!logits || hd_grammar_state_open(&s, g, t, &err) != HD_OK) n = 0;
    for (size_t i = 0; i < n && i < 128; i++) {
        for (int64_t k = 0; k < n_vocab; k++) logits[k] = 0;
        hd_status st = hd_grammar_mask(s, logits, n_vocab, &stop, 1, &err);
        if (st == HD_LIMIT) break;
        if (st != HD_OK) abort();
        int32_t id = choose(logits, n_vocab, choice[i]);
        if (hd_grammar_may_end(s)) {
            json_t *j = json_loadb(text.data, text.len, JSON_DECODE_ANY, NULL);
            if (!j) abort();
            json_decref(j);
        }
        if (id == stop) break;
        st = hd_grammar_accept(s, id, &err);
        if (st == HD_LIMIT) break;
        if (st != HD_OK || hd_tokenizer_decode(t, &id, 1, false, &text, &err) != HD_OK) abort();
    }
    hd_grammar_state_close(s);
    hd_buf_free(&text);
    free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return grammar_input(data, size, hd_grammar_open_schema_text, follow); }
