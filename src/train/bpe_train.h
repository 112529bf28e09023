/* Training a byte-level BPE tokenizer (arXiv:1508.07909; byte level as GPT-2). */
#ifndef HD_TRAIN_BPE_TRAIN_H
#define HD_TRAIN_BPE_TRAIN_H

#include <signal.h>

#include "base/err.h"

typedef struct {
    int64_t n_vocab;            // with bytes and special tokens
    const char *const *special; // special tokens, first ids after the learnt ones
    int n_special;
    bool digits;                // digits one by one
    const char *chat_format;    // written into tokenizer_config.json as its template, or NULL
    int n_threads;
    size_t max_bytes;           // memory for the table of words; rarer ones are dropped beyond it, and that is said
    const volatile sig_atomic_t *stop;
} hd_bpe_opts;

typedef struct {
    int64_t bytes, words, distinct, merges;
    double seconds, bytes_per_token;
} hd_bpe_report;

/* Read files (text, JSONL or Parquet by their names), learn, and write tokenizer.json and tokenizer_config.json in dir. */
hd_status hd_bpe_train(const char *dir, const char *const *files, int n_files, const hd_bpe_opts *o, hd_bpe_report *r,
                       hd_err *err);

#endif
