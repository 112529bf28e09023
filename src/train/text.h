/* Documents from files, one after another, whatever the form: a text file (one document, or several divided
 * by a line), JSONL (a field of each line), either of them behind .zst, and flat Parquet (a UTF-8 column). */
#ifndef HD_TRAIN_TEXT_H
#define HD_TRAIN_TEXT_H

#include "base/buf.h"

typedef struct hd_text hd_text;

/* divider, of text files: a line that ends a document ("<|endoftext|>", or "" for an empty line); "\n", or
 * "\\n" as it can be
 * typed: every line is a document; NULL: the whole file is one.
 * max_doc: bytes of one document; 0: 64 MB.  Longer text comes in pieces; a longer JSONL line is an error. */
typedef struct {
    const char *field; // JSONL field or Parquet column; NULL: "text"
    const char *divider;
    bool whole_json; // JSONL: the document is the line itself (conversations)
    size_t max_doc;
} hd_text_opts;

hd_status hd_text_open(hd_text **out, const char *path, const hd_text_opts *o, hd_err *err);
/* The next document into `doc` (cleared first); *more false at the end.  Blank documents are passed over. */
hd_status hd_text_next(hd_text *t, hd_buf *doc, bool *more, hd_err *err);
uint64_t hd_text_done(const hd_text *t); // bytes of the file read so far, for a bar
void hd_text_close(hd_text *t);

#endif
