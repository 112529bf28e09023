/* Inside an engine: a model with its tokenizer, chat format and cache.  Private to src/infer. */
#ifndef HD_INFER_ENGINE_H
#define HD_INFER_ENGINE_H

#include "model/chat.h"
#include "model/model.h"

enum { HD_MAX_STOP_IDS = HD_MAX_EOS + 8 };

/* Rows of floats that grow and stay. */
typedef struct {
    float *row;
    size_t bytes;
} hd_rows_buffer;

struct hd_engine {
    hd_source *src;
    hd_model *model;
    hd_tokenizer *tok; // NULL: tok_err says why
    hd_err tok_err;
    const hd_chat_format *chat; // NULL: chat_err says why
    hd_err chat_err;
    hd_cache *cache;     // of the main layers
    hd_cache *mtp_cache; // of the multi-token-prediction layers; NULL: there are none
    hd_cache_type cache_type;
    int64_t ctx_tok, n_vocab;
    int32_t stop[HD_MAX_STOP_IDS];
    int n_stop;
    hd_rows_buffer hidden; // of a pass over several sessions: of the layer before the head
};

/* What the bytes of a cache depend on, for files that keep some (session_file.c). */
enum { HD_FINGERPRINT = 32 };
void hd_engine_fingerprint(const hd_engine *e, uint8_t out[HD_FINGERPRINT]);

/* Room for n rows of `width` numbers. */
hd_status hd_engine_buffer(hd_rows_buffer *b, int64_t n, int64_t width, float **rows, hd_err *err);

#endif
