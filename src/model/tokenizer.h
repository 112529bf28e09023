/* Text to ids and back, exactly as the model's own tokenizer does: byte-level BPE from tokenizer.json or from GGUF. */
#ifndef HD_MODEL_TOKENIZER_H
#define HD_MODEL_TOKENIZER_H

#include "base/buf.h"
#include "model/source.h"

typedef struct hd_tokenizer hd_tokenizer;

typedef struct {
    int32_t *id;
    int64_t n, cap;
} hd_ids;
void hd_ids_free(hd_ids *v);
hd_status hd_ids_add(hd_ids *v, int32_t id, hd_err *err);

hd_status hd_tokenizer_open(hd_tokenizer **out, const hd_source *s, hd_err *err);
void hd_tokenizer_close(hd_tokenizer *t);

int64_t hd_tokenizer_n_vocab(const hd_tokenizer *t); // ids 0 .. n-1 (the model's matrix may be larger)
/* Append the ids of text (any bytes; invalid UTF-8 counts as U+FFFD).  No BOS is added.  What text spells like a special
 * token stays plain text; added tokens that are not special are matched, as Hugging Face does. */
hd_status hd_tokenizer_encode(const hd_tokenizer *t, const void *text, size_t n, hd_ids *out, hd_err *err);
/* Append the exact bytes of ids; special tokens are spelled when `special`, else skipped. */
hd_status hd_tokenizer_decode(const hd_tokenizer *t, const int32_t *id, int64_t n, bool special, hd_buf *out, hd_err *err);
/* Bytes of one id, borrowed; NULL for an id out of range or without text. */
const char *hd_tokenizer_bytes(const hd_tokenizer *t, int32_t id, size_t *n);
bool hd_tokenizer_is_special(const hd_tokenizer *t, int32_t id);
/* The id whose text is exactly this (special or not), or -1. */
int32_t hd_tokenizer_find(const hd_tokenizer *t, const char *text);
int32_t hd_tokenizer_bos(const hd_tokenizer *t); // -1: none
bool hd_tokenizer_adds_bos(const hd_tokenizer *t); // generate and score put it in front

#endif
