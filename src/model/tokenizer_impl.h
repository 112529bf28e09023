/* Inside of the tokenizer: what its two readers fill.  For tokenizer*.c and tests. */
#ifndef HD_MODEL_TOKENIZER_IMPL_H
#define HD_MODEL_TOKENIZER_IMPL_H

#include <stdatomic.h>

#include "model/added.h"
#include "model/bpe.h"
#include "model/gguf.h"
#include "model/nfc.h"
#include "model/pretok.h"

enum { HD_MAX_NORMALIZERS = 4 };

typedef struct hd_tokenizer_work hd_tokenizer_work;

struct hd_tokenizer {
    hd_vocab vocab;
    hd_added_set raw;  // added tokens found in the text as it comes: special ones and normalized=false
    hd_added_set norm; // those found after normalization
    hd_normal_form normal[HD_MAX_NORMALIZERS];
    int n_normal;
    hd_pretok pretok;
    hd_bpe bpe;
    int32_t bos;
    bool adds_bos;
    hd_tokenizer_work *work; // memory and word cache of whoever holds `busy`; others bring their own
    atomic_flag *busy;
    _Atomic(struct hd_vocab_tree *) *tree; // made when it is first asked for
};

/* tok: tokenizer.json; config: tokenizer_config.json or NULL. */
hd_status hd_tokenizer_from_json(hd_tokenizer **out, const json_t *tok, const json_t *config, hd_err *err);
hd_status hd_tokenizer_from_gguf(hd_tokenizer **out, const hd_gguf *g, hd_err *err);

/* For the readers: an empty tokenizer, and its last steps once vocabulary, merges and stages are in. */
hd_status hd_tokenizer_new(hd_tokenizer **out, hd_err *err);
hd_status hd_tokenizer_finish(hd_tokenizer *t, hd_err *err);
/* Spelled like a control token, <|...|> or <｜...｜>: such an added token counts as special whatever the file
 * says, for DeepSeek's files call <｜User｜> an ordinary one, and no user may type it. */
bool hd_looks_special(const char *s, size_t n);
hd_status hd_tokenizer_normalize(const hd_tokenizer *t, hd_buf *tmp, const char **s, size_t *n, hd_err *err);

#endif
