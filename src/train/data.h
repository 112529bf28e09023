/* Batches from token shards: which rows come at which step is a function of the seed and of the index alone,
 * so that a run resumes in mid-epoch from one number, and on another number of ranks.
 *
 * A mixture takes its sequences from sources by weight; within a source documents are shuffled anew
 * each epoch and packed into sequences of `seq` rows by best fit; a document longer than that is cut,
 * and the last row of a piece predicts the id that follows in the next.  Rows left over are padding: a
 * document of zeros without targets.  Memory and planning time depend on windows of 65,536 documents,
 * not on how many there are. */
#ifndef HD_TRAIN_DATA_H
#define HD_TRAIN_DATA_H

#include "base/buf.h"
#include "model/train_pass.h"

typedef struct hd_data hd_data;

typedef struct {
    const char *path; // folder of shards that `hadal data pack` wrote
    double weight;    // share of sequences
} hd_data_source;

/* max_tok: ids in every shard are checked against it (a shard of another tokenizer is an error
 * that names both). */
hd_status hd_data_open(hd_data **out, const hd_data_source *src, int n_src, int seq, uint64_t seed,
                       int64_t n_vocab, hd_err *err);
void hd_data_close(hd_data *d);

/* Sequences index .. index+n-1 of the run as one micro-batch; the arrays are the data's own, good
 * until the next call.
 * HD_FORMAT: a damaged shard (checksum), named. */
hd_status hd_data_get(hd_data *d, uint64_t index, int n, hd_micro *b, hd_err *err);
/* The first max_rows rows of a source in file order, for validation: call with *at = 0 first; false at the
 * end.  No padding: pieces of at most `seq` rows, as many whole ones as fit. */
hd_status hd_data_walk(hd_data *d, int source, uint64_t *at, int max_rows, hd_micro *b, bool *more,
                       hd_err *err);
int64_t hd_data_tokens(const hd_data *d); // of all sources, one epoch
/* Bytes of text for each target of the source: a mean loss over a whole walk, in nats, is loss / ln 2 / this
 * in bits per byte. */
double hd_data_bytes_per_token(const hd_data *d, int source);
const uint8_t *hd_data_tokenizer(
    const hd_data *d); // fingerprint (HD_SHARD_PRINT bytes) of the one that packed all sources
double hd_data_epoch(const hd_data *d, uint64_t index); // epochs of the first source passed

#endif
