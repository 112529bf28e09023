/* A model's tokenizer files, carried from one folder to another. */
#ifndef HD_TRAIN_TOKENIZER_COPY_H
#define HD_TRAIN_TOKENIZER_COPY_H

#include "model/config.h"

/* Those of the known files that are there (tokenizer.json, its settings, chat templates).  from: a folder, or a GGUF file,
 * whose vocabulary becomes tokenizer.json.  HD_IO when there is none. */
hd_status hd_tokenizer_copy(const char *to, const char *from, hd_err *err);
/* Where config.json says nothing of them: bos, eos and pad as the tokenizer's settings name them.  HD_FORMAT when the
 * vocabulary is larger than the model's. */
hd_status hd_tokenizer_ids(hd_config *c, const json_t *config, const char *from, hd_err *err);

#endif
