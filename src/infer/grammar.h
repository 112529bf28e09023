/* Grammars: which ids may follow, so that a text keeps to a format.
 *
 * A grammar is compiled once (from GBNF text or from a JSON schema) and shared; a state follows one
 * text.  Before each pick the state forbids the ids whose bytes would leave the grammar, by adding
 * -INFINITY to their logits. */
#ifndef HD_INFER_GRAMMAR_H
#define HD_INFER_GRAMMAR_H

#include <jansson.h>

#include "model/tokenizer.h"

/* hd_grammar and the functions that users of the library call (open, open_schema_text, close) are
 * declared in hadal.h. */
typedef struct hd_grammar_state hd_grammar_state;

/* A JSON value that the schema accepts (which keywords: schema.c), compact or with single spaces.
 * HD_UNSUPPORTED names a keyword that cannot be enforced; HD_LIMIT: caps on depth and size.  schema NULL:
 * any JSON object. */
hd_status hd_grammar_open_schema(hd_grammar **out, const json_t *schema, hd_err *err);
hd_grammar *hd_grammar_ref(hd_grammar *g);

/* The tokenizer is borrowed as long as the state and the grammar.  A grammar may be used by
 * several threads. */
hd_status hd_grammar_state_open(hd_grammar_state **out, hd_grammar *g, const hd_tokenizer *t, hd_err *err);
void hd_grammar_state_close(hd_grammar_state *s);
/* Forbid in logits [n_vocab] what cannot follow; `stop` ids (ends of turn) are forbidden until
 * the text may end. */
hd_status hd_grammar_mask(hd_grammar_state *s, float *logits, int64_t n_vocab, const int32_t *stop,
                          int n_stop, hd_err *err);
/* An id that was picked; HD_FORMAT when it leaves the grammar. */
hd_status hd_grammar_accept(hd_grammar_state *s, int32_t id, hd_err *err);
bool hd_grammar_may_end(const hd_grammar_state *s);
bool hd_grammar_must_end(const hd_grammar_state *s); // nothing can follow

#endif
