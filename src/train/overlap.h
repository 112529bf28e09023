/* Contamination: does a training text hold words of a test that a model will be measured with? */
#ifndef HD_TRAIN_OVERLAP_H
#define HD_TRAIN_OVERLAP_H

#include "train/words.h"

enum { HD_OVERLAP_MOST = 13, HD_OVERLAP_LEAST = 8 }; // words of an n-gram

typedef struct hd_overlap hd_overlap;

typedef struct {
    const char *path;
    int64_t n_items, n_short; // texts; those that are too short to be looked for
} hd_overlap_file;

hd_status hd_overlap_open(hd_overlap **out, hd_err *err);
void hd_overlap_close(hd_overlap *o);
/* An evaluation's file.  JSON: each element of the list, and JSONL: each line, is a text made of all its
 * strings; a Parquet row's column `field`; of any other file, each line. */
hd_status hd_overlap_add(hd_overlap *o, const char *path, const char *field, hd_err *err);
int hd_overlap_n_files(const hd_overlap *o);
hd_overlap_file hd_overlap_file_at(const hd_overlap *o, int i);
/* The first shared n-gram: true, and which text of which file it is.  Any thread. */
bool hd_overlap_find(const hd_overlap *o, const hd_wordhash *w, int *file, int64_t *item);

#endif
