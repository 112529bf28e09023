/* A model's tokenizer files, carried from one folder to another, or made of a GGUF file's vocabulary. */
#ifndef HD_MODEL_TOKENIZER_FILES_H
#define HD_MODEL_TOKENIZER_FILES_H

#include "model/source.h"

/* Those of the known files that are there (tokenizer.json, its settings, chat templates).  from: a folder, or
 * a GGUF file, whose vocabulary becomes tokenizer.json.  HD_IO when there is none. */
hd_status hd_tokenizer_copy(const char *to, const char *from, hd_err *err);
/* Where config.json says nothing of them: bos, eos and pad as the tokenizer's settings name them.  HD_FORMAT
 * when the vocabulary is larger than the model's. */
hd_status hd_tokenizer_ids(hd_config *c, const json_t *config, const char *from, hd_err *err);

/* tokenizer.json and tokenizer_config.json (with the chat template) of a GGUF file's vocabulary, merges
 * and way of cutting
 * words: the same ids for every text. */
hd_status hd_tokenizer_write(const char *dir, const hd_gguf *g, hd_err *err);

#endif
