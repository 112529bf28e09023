/* Training a byte-level BPE tokenizer (arXiv:1508.07909; byte level as GPT-2).
 *
 * Equal to Hugging Face's BpeTrainer over the same texts and the same pattern, merge by merge: the most
 * frequent pair is joined next, among equals the one of the lowest ids.  Results do not depend on the
 * number of threads. */
#ifndef HD_TRAIN_BPE_TRAIN_H
#define HD_TRAIN_BPE_TRAIN_H

#include <signal.h>

#include "train/text.h"

/* Zeros are the defaults, n_vocab apart. */
typedef struct {
    int64_t n_vocab;            // with bytes and special tokens
    const char *const *special; // special tokens, first ids after the learnt ones
    int n_special;              // none, and no chat format: <|endoftext|>
    bool digits;                // digits one by one; else up to three together
    const char *chat_format;    // its template and its special tokens are written too, or NULL
    int64_t min_count;          // pairs seen less often are not joined; 0: 2
    const hd_text_opts *text;   // how documents lie in the files; NULL: as the files' names say
    int n_threads;
    size_t
        max_bytes; // memory for the table of words, 0: 1 GB; rarer ones are dropped beyond it, and that is said
    bool progress; // a bar on stderr when that is a terminal
    const volatile sig_atomic_t *stop;
} hd_bpe_opts;

typedef struct {
    int64_t bytes, words, distinct, merges;
    int64_t n_vocab; // of what was written: fewer than asked where the text has no more pairs
    int64_t dropped; // occurrences of words that were left out: rare ones beyond max_bytes, and monsters
    double count_s, merge_s, seconds, bytes_per_token;
} hd_bpe_report;

/* Read files (text, JSONL or Parquet by their names), learn, and write tokenizer.json and
 * tokenizer_config.json in dir, which is made when it is missing; each file is whole at any moment.
 * HD_CANCELLED: *stop was set; nothing is written.  HD_USAGE, HD_IO, HD_FORMAT, HD_LIMIT, HD_NOMEM. */
hd_status hd_bpe_train(const char *dir, const char *const *files, int n_files, const hd_bpe_opts *o,
                       hd_bpe_report *r, hd_err *err);

#endif
