/* Token shards: documents as ids, on disk.
 *
 *     head       128 bytes, see shard.c: format version, tokenizer, counts, its own CRC-32C
 *     ids        u16 or u32 each, all documents one after another; zeros to a multiple of 8 bytes
 *     documents  a row each: where its ids end, where its ranges end, bytes of its text (u64 each)
 *     ranges     u32 from, to: ids [from, to) of a document are learnt.  A document without a range is learnt
 *                whole
 *     sums       CRC-32C of each 64 KB of ids, documents and ranges; then one of these sums
 *
 * Little-endian throughout.  A shard is written beside its name and renamed when whole.  Opening checks
 * everything but the ids; those are checked, block by block, when they are first read. */
#ifndef HD_TRAIN_SHARD_H
#define HD_TRAIN_SHARD_H

#include "base/file.h"

enum { HD_SHARD_PRINT = 32 }; // bytes of a tokenizer's fingerprint

typedef struct {
    uint8_t tokenizer[HD_SHARD_PRINT]; // hd_pack_fingerprint
    int id_bytes;                      // 2 or 4
    int64_t n_vocab, n_docs, n_tok, n_ranges;
    int64_t n_targets;   // ids that are learnt, but for a document's first, which no row predicts
    uint64_t text_bytes; // of the text that those ids stand for
} hd_shard_info;

typedef struct {
    int64_t at, n;           // its ids
    int64_t range, n_ranges; // its ranges, 0: learnt whole
    uint64_t text_bytes;
} hd_shard_doc;

typedef struct hd_shard hd_shard;

/* HD_FORMAT: no shard, another version, or damaged: names the file. */
hd_status hd_shard_open(hd_shard **out, const char *path, hd_err *err);
hd_status hd_shard_open_map(hd_shard **out, const hd_map *m, const char *name,
                            hd_err *err); // of memory, borrowed
void hd_shard_close(hd_shard *s);
const hd_shard_info *hd_shard_about(const hd_shard *s);
const char *hd_shard_name(const hd_shard *s);
hd_shard_doc hd_shard_doc_at(const hd_shard *s, int64_t i);
/* Ids [at, at+n) of the shard.  HD_FORMAT: their blocks are damaged, or an id is outside
 * of the vocabulary. */
hd_status hd_shard_read(hd_shard *s, int64_t at, int64_t n, int32_t *id, hd_err *err);
/* Which of the document's ids [from, from+n) are learnt: 1, else 0. */
void hd_shard_learnt(const hd_shard *s, const hd_shard_doc *d, int64_t from, int64_t n, uint8_t *learnt);
/* All blocks, now. */
hd_status hd_shard_check(hd_shard *s, hd_err *err);

typedef struct hd_shard_writer hd_shard_writer;
hd_status hd_shard_create(hd_shard_writer **out, const char *path, const uint8_t tokenizer[HD_SHARD_PRINT],
                          int64_t n_vocab, hd_err *err);
/* A document of n >= 1 ids.  learnt: a byte each, or NULL: all. */
hd_status hd_shard_add(hd_shard_writer *w, const int32_t *id, int64_t n, const uint8_t *learnt,
                       uint64_t text_bytes, hd_err *err);
const hd_shard_info *hd_shard_written(const hd_shard_writer *w); // so far
hd_status hd_shard_finish(hd_shard_writer *w,
                          hd_err *err);         // whole, synced, under its name; still to be closed
void hd_shard_writer_close(hd_shard_writer *w); // unfinished: nothing stays

#endif
