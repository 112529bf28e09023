/* Inside of BPE training: words, counted (bpe_count.c); merges, learnt from them (bpe_merge.c);
 * files (bpe_write.c). */
#ifndef HD_TRAIN_BPE_IMPL_H
#define HD_TRAIN_BPE_IMPL_H

#include "base/log.h"
#include "base/pool.h"
#include "model/pretok.h"
#include "train/bpe_train.h"
#include "train/chat_template.h"

extern const char hd_bpe_pattern_digits[],
    hd_bpe_pattern_numbers[]; // of words, digits one by one or up to three together

/* ---- Words ---- */

typedef struct {
    uint64_t at; // first byte in the table's text
    int64_t count;
    uint32_t len;
    uint32_t hash; // its lower half
} hd_word;

typedef struct {
    hd_word *word;
    size_t n, cap;
    uint32_t *slot; // index + 1, or 0: free; open addressing
    size_t mask;
    char *text;
    size_t used, room;
} hd_word_table;

/* All words, in tables by the upper bits of their hash, so that threads can add to them side by side. */
enum { HD_WORD_TABLES = 64, HD_WORD_MAX = 4096 }; // longer words teach nothing

typedef struct {
    hd_word_table table[HD_WORD_TABLES];
    uint64_t seed;
    int64_t bytes, n_words, n_dropped; // seen in all; words that were left out
    int64_t least_kept;                // words seen less often may be missing; 0: none is
} hd_words;

void hd_words_close(hd_words *w);
size_t hd_words_bytes(const hd_words *w); // what the tables take
int64_t hd_words_distinct(const hd_words *w);
hd_status hd_bpe_count(hd_words *w, hd_pool *pool, const char *const *files, int n_files,
                       const hd_bpe_opts *o, hd_err *err);

/* ---- Merges ---- */

typedef struct {
    int32_t a, b, id; // a b becomes id
} hd_bpe_join;

/* Ids 0 .. 255 are the bytes, in the order of their spelling; the learnt ones follow. */
typedef struct {
    int64_t n;    // tokens
    uint64_t *at; // [n + 1] first byte of each in `text`
    char *text;
    size_t used, room;
    hd_bpe_join *join;
    int64_t n_join;
    double n_tokens, n_bytes; // of the words that were counted: what the tokenizer makes of them
} hd_bpe_learnt;

void hd_bpe_learnt_close(hd_bpe_learnt *l);
/* n: tokens wanted.  A token spelled like one of `special` is never made. */
hd_status hd_bpe_learn(hd_bpe_learnt *l, const hd_words *w, int64_t n, int64_t min_count,
                       const char *const *special, int n_special, bool progress,
                       const volatile sig_atomic_t *stop, hd_err *err);

uint8_t hd_bpe_byte(int id); // the byte that id 0 .. 255 is
/* Append bytes as byte-level vocabularies spell them. */
hd_status hd_bpe_spell(hd_buf *out, const char *bytes, size_t n, hd_err *err);

/* ---- Files ---- */

hd_status hd_bpe_write(const char *dir, const hd_bpe_learnt *l, bool digits, const char *const *special,
                       int n_special, const hd_chat_template *chat, hd_err *err);

#endif
