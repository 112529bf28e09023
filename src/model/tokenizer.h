/* Text to ids and back, exactly as the model's own tokenizer does: byte-level BPE from
 * tokenizer.json or from GGUF. */
#ifndef HD_MODEL_TOKENIZER_H
#define HD_MODEL_TOKENIZER_H

#include "base/buf.h"
#include "model/source.h"

/* hd_tokenizer, hd_ids and the functions that users of the library call (encode, n_vocab, find, bos,
 * adds_bos) are declared in hadal.h. */

hd_status hd_tokenizer_open(hd_tokenizer **out, const hd_source *s, hd_err *err);
void hd_tokenizer_close(hd_tokenizer *t);

/* Append the exact bytes of ids; special tokens are spelled when `special`, else skipped. */
hd_status hd_tokenizer_decode(const hd_tokenizer *t, const int32_t *id, int64_t n, bool special, hd_buf *out, hd_err *err);
/* Bytes of one id, borrowed; NULL for an id out of range or without text. */
const char *hd_tokenizer_bytes(const hd_tokenizer *t, int32_t id, size_t *n);
bool hd_tokenizer_is_special(const hd_tokenizer *t, int32_t id);
typedef struct hd_vocab_tree hd_vocab_tree;
/* The vocabulary as a tree (model/vocab_tree.h), borrowed; made at the first call, which takes some 50 ms for
 * 150,000 words.  Any thread. */
hd_status hd_tokenizer_tree(const hd_tokenizer *t, const hd_vocab_tree **out, hd_err *err);

#endif
