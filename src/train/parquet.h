/* Flat Parquet files, read: one text column, value after value.
 *
 * Known: columns of byte arrays (text or not), required or optional; encodings PLAIN and dictionary; data
 * pages v1 and v2; no compression, snappy, zstd.  Anything else in the chosen column is an error that names
 * it; other columns may be what they like.  Every size in the file is hostile until checked. */
#ifndef HD_TRAIN_PARQUET_H
#define HD_TRAIN_PARQUET_H

#include "base/file.h"

typedef struct hd_parquet hd_parquet;

/* HD_FORMAT: no or a damaged file; HD_USAGE: no such column, the message lists those there
 * are; HD_UNSUPPORTED. */
hd_status hd_parquet_open(hd_parquet **out, const char *path, const char *column, hd_err *err);
/* The same of bytes in memory, borrowed; name: for messages. */
hd_status hd_parquet_open_map(hd_parquet **out, const hd_map *m, const char *name, const char *column,
                              hd_err *err);
void hd_parquet_close(hd_parquet *p);
int64_t hd_parquet_rows(const hd_parquet *p);

/* The next value that is not null, good until the next call; *more false at the end. */
hd_status hd_parquet_next(hd_parquet *p, const char **text, size_t *n, bool *more, hd_err *err);
uint64_t hd_parquet_done(const hd_parquet *p); // bytes of the file passed so far, for a bar

#endif
