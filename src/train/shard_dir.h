/* A folder of token shards as one list of documents.
 *
 *     pack.json      names the shards and says what was packed; written last, so that half a packing is not
 *                    taken for one
 *     00000.tok ...  the shards
 *     val/           a folder of the same kind: what was set aside for validation */
#ifndef HD_TRAIN_SHARD_DIR_H
#define HD_TRAIN_SHARD_DIR_H

#include <jansson.h>

#include "train/shard.h"

typedef struct {
    char *path;
    hd_shard **shard;
    int n;
    int64_t *first_doc, *first_tok; // [n + 1]: documents, ids before each shard; the last are the sums
    int64_t n_targets;
    uint64_t text_bytes;
} hd_shard_dir;

/* path: a folder, or one shard.  All shards must be of one tokenizer. */
hd_status hd_shard_dir_open(hd_shard_dir *d, const char *path, hd_err *err);
void hd_shard_dir_close(hd_shard_dir *d);
const hd_shard_info *hd_shard_dir_about(const hd_shard_dir *d); // of the first shard: tokenizer, vocabulary
static inline int64_t hd_shard_dir_docs(const hd_shard_dir *d) { return d->first_doc[d->n]; }
static inline int64_t hd_shard_dir_tok(const hd_shard_dir *d) { return d->first_tok[d->n]; }
/* Document i of all: its shard, and its row there. */
hd_shard *hd_shard_dir_doc(const hd_shard_dir *d, int64_t i, hd_shard_doc *doc);
/* The document that holds id `at` of all, and which of its ids that is. */
int64_t hd_shard_dir_doc_of(const hd_shard_dir *d, int64_t at, int64_t *id);

/* Writing: shards of at most max_tok ids (and one document), then pack.json. */
typedef struct {
    char *path;
    uint8_t tokenizer[HD_SHARD_PRINT];
    int64_t n_vocab, max_tok;
    hd_shard_writer *w;
    json_t *list; // of finished shards
    int n;
    int64_t n_docs, n_tok, n_targets;
    uint64_t text_bytes;
    bool made, finished; // made: the folder is ours
} hd_shard_dir_writer;

/* Makes the folder.  One that holds a packing already is HD_USAGE, unless `replace`: then its
 * pack.json goes first. */
hd_status hd_shard_dir_begin(hd_shard_dir_writer *w, const char *path,
                             const uint8_t tokenizer[HD_SHARD_PRINT], int64_t n_vocab, int64_t max_tok,
                             bool replace, hd_err *err);
hd_status hd_shard_dir_add(hd_shard_dir_writer *w, const int32_t *id, int64_t n, const uint8_t *learnt,
                           uint64_t text_bytes, hd_err *err);
/* Finishes the last shard and writes pack.json; report (borrowed, may be NULL) goes into it. */
hd_status hd_shard_dir_finish(hd_shard_dir_writer *w, json_t *report, hd_err *err);
void hd_shard_dir_writer_close(hd_shard_dir_writer *w); // unfinished: no shard stays

#endif
