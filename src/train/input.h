/* Bytes of a file in order, decompressed where its name ends in .zst. */
#ifndef HD_TRAIN_INPUT_H
#define HD_TRAIN_INPUT_H

#include "base/file.h"

typedef struct hd_input hd_input;

hd_status hd_input_open(hd_input **out, const char *path, hd_err *err);
void hd_input_close(hd_input *in);
/* What is at hand and not yet skipped, at least one byte; *n 0 is the end.  Good until the next call. */
hd_status hd_input_peek(hd_input *in, const char **p, size_t *n, hd_err *err);
void hd_input_skip(hd_input *in, size_t n);
uint64_t hd_input_done(const hd_input *in); // bytes of the file (compressed ones) that were taken

/* Does `path` end in `tail`, and is it longer? */
bool hd_ends_in(const char *path, const char *tail);

#endif
