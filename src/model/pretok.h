/* Cutting text into the words that BPE works on: a chain of splits by regular expression, as in
 * tokenizer.json's pre_tokenizer; each stage cuts what the one before it left. */
#ifndef HD_MODEL_PRETOK_H
#define HD_MODEL_PRETOK_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/buf.h"
#include "model/pretok_quick.h"

enum { HD_MAX_SPLITS = 16 };

/* What becomes of a match, in Hugging Face's words. */
typedef enum {
    HD_SPLIT_ISOLATED,      // a piece of its own
    HD_SPLIT_REMOVED,       // dropped
    HD_SPLIT_CONTIGUOUS,    // a piece together with matches beside it
    HD_SPLIT_MERGED_PREV,   // the end of the piece before it
    HD_SPLIT_MERGED_NEXT,   // the beginning of the piece after it
} hd_split_how;

typedef struct {
    pcre2_code *code; // NULL: no split, a space is put in front of a piece that has none (add_prefix_space)
    hd_split_how how;
    bool invert;      // what matches and what does not change places
    hd_quick quick;   // what finds most matches without the pattern
} hd_split;

typedef struct {
    int n;
    hd_split split[HD_MAX_SPLITS];
} hd_pretok;

extern const char hd_pattern_gpt2[]; // ByteLevel's own pattern

/* Add a stage.  The pattern is Oniguruma's (as in tokenizer.json), translated to PCRE2;
 * literal: a plain string.
 * HD_FORMAT: it does not compile; HD_UNSUPPORTED: it would mean something else in PCRE2. */
hd_status hd_pretok_split(hd_pretok *p, const char *pattern, size_t n, bool literal, hd_split_how how, bool invert,
                          hd_err *err);
/* The same pattern for PCRE2, appended to out. */
hd_status hd_pattern_to_pcre2(hd_buf *out, const char *s, size_t n, hd_err *err);
hd_status hd_pretok_prefix_space(hd_pretok *p, hd_err *err);
void hd_pretok_close(hd_pretok *p);

/* What tokenizer.ggml.pre names: the stages and two habits.  HD_UNSUPPORTED lists the known names. */
hd_status hd_pretok_named(hd_pretok *p, const char *pre, bool *nfc, bool *ignore_merges, hd_err *err);

/* The same as patterns, in the order of their stages, NULL behind the last; NULL: not known. */
const char *const *hd_pretok_patterns(const char *pre, bool *nfc, bool *ignore_merges);

/* Working memory of one run at a time. */
typedef struct {
    pcre2_match_data *match[HD_MAX_SPLITS];
    pcre2_match_context *ctx;
    pcre2_jit_stack *stack;
    hd_buf prefixed;
    double deadline;
} hd_pretok_work;
hd_status hd_pretok_work_open(hd_pretok_work *w, const hd_pretok *p, hd_err *err);
void hd_pretok_work_close(hd_pretok_work *w);

/* A text of n bytes begins: its runs together may take a time that goes with n. */
void hd_pretok_begin(hd_pretok_work *w, size_t n);

typedef hd_status hd_piece_fn(void *arg, const char *s, size_t n, hd_err *err);
/* Cut s (valid UTF-8) and hand over the pieces in order.  HD_LIMIT: a pattern took far longer than
 * any known one does. */
hd_status hd_pretok_run(const hd_pretok *p, hd_pretok_work *w, const char *s, size_t n, hd_piece_fn *fn, void *arg,
                        hd_err *err);

#endif
