/* Inside an engine: a model with its tokenizer, chat format and cache.  Private to src/infer. */
#ifndef HD_INFER_ENGINE_H
#define HD_INFER_ENGINE_H

#include "model/chat.h"
#include "model/model.h"

enum { HD_MAX_STOP_IDS = HD_MAX_EOS + 8 };

struct hd_engine {
    hd_source *src;
    hd_model *model;
    hd_tokenizer *tok; // NULL: tok_err says why
    hd_err tok_err;
    const hd_chat_format *chat; // NULL: chat_err says why
    hd_err chat_err;
    hd_cache *cache;
    hd_cache_type cache_type;
    int64_t ctx_tok, n_vocab;
    int32_t stop[HD_MAX_STOP_IDS];
    int n_stop;
    float *logits; // rows of a pass over several sessions
    size_t logits_cap;
};

/* Room for n rows of logits that the next pass may write. */
hd_status hd_engine_rows(hd_engine *e, int64_t n, float **rows, hd_err *err);

#endif
