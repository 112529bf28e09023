/* Packing: texts to token shards, with duplicates and texts of evaluations left out. */
#ifndef HD_TRAIN_PACK_H
#define HD_TRAIN_PACK_H

#include <jansson.h>
#include <signal.h>

#include "model/chat.h"
#include "train/shard.h"

/* Zeros are the defaults.
 *
 * near: leaves out duplicates.  0: none; up to 1: the similarity from which words are near (dedup.h, 0.8
 * say), the same bytes of course too; above 1: the same bytes alone.
 * val_share: of documents for DIR/val, chosen by a hash of their bytes; of documents of over 65,536
 * ids, their end.  When that leaves validation empty, the end of the last document.  The first one is
 * always trained on. */
typedef struct {
    const char *field, *divider; // of train/text.h
    bool chat;                   // conversations, a JSON object a line (train/chat_data.h): loss on the answers alone
    const char *chat_format;     // a name of the table; NULL: told from the model's own template
    double near;
    const char *const *against;  // evaluations: texts that share words with them are left out (overlap.h)
    int n_against;
    double val_share;
    int64_t max_tok;             // ids of a shard; 0: 64 Mi
    int n_threads;
    bool replace;                // pack anew what DIR holds
    bool progress;               // a bar on stderr
    const volatile sig_atomic_t *stop;
} hd_pack_opts;

typedef struct {
    int64_t n_read, read_bytes;                   // documents
    int64_t n_same, n_near, n_overlap;            // left out
    int64_t n_docs, n_ids, n_targets, text_bytes; // packed; text_bytes: of the text that the targets spell
    int64_t n_val_docs, n_val_ids;
    double seconds;
} hd_pack_report;

/* tokenizer: a model or a folder with a tokenizer; it closes each document with the file's end token, and
 * opens it with BOS where the tokenizer's file says so.  Nothing stays when it fails.  json (may be NULL):
 * the report with what stands in pack.json, the caller's. */
hd_status hd_pack(const char *dir, const hd_source *tokenizer, const char *const *files, int n_files,
                  const hd_pack_opts *o, hd_pack_report *r, json_t **json, hd_err *err);

/* What the ids of a tokenizer mean, in 32 bytes: BLAKE2b of its tokens' texts. */
void hd_pack_fingerprint(uint8_t out[HD_SHARD_PRINT], const hd_tokenizer *t);
/* Were the shards in dir packed with this tokenizer (of `name`)?  HD_FORMAT: no; the message names both. */
hd_status hd_pack_check(const char *dir, const hd_tokenizer *t, const char *name, hd_err *err);
/* The token that ends a text: tokenizer_config.json's eos_token, else the model's, else one of the known
 * names; -1: none. */
int32_t hd_pack_end(const hd_source *s, const hd_tokenizer *t);

#endif
