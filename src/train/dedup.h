/* Documents that are there already: the same bytes, or nearly the same words. */
#ifndef HD_TRAIN_DEDUP_H
#define HD_TRAIN_DEDUP_H

#include "train/words.h"

enum { HD_DEDUP_BANDS = 14, HD_DEDUP_ROWS = 8, HD_DEDUP_HASHES = HD_DEDUP_BANDS * HD_DEDUP_ROWS };

typedef struct {
    uint64_t text; // of the bytes
    uint64_t band[HD_DEDUP_BANDS];
    uint8_t low[HD_DEDUP_HASHES]; // eight bits of each minimum
    bool empty;                   // no words: only the bytes count
} hd_dedup_sign;

typedef struct hd_dedup hd_dedup;
typedef enum { HD_DEDUP_NEW, HD_DEDUP_SAME, HD_DEDUP_NEAR } hd_dedup_kind;

/* near: the share of common word 5-grams (Jaccard) from which a document is a near-duplicate, 0.8 say; >
 * 1: only the same. */
hd_status hd_dedup_open(hd_dedup **out, double near, hd_err *err);
void hd_dedup_close(hd_dedup *d);
uint64_t hd_dedup_text(const void *text, size_t n);          // the bytes' hash
void hd_dedup_words(hd_dedup_sign *s, const hd_wordhash *w); // band, low, empty; any thread
/* Was a document like it seen?  A new one is kept. */
hd_status hd_dedup_seen(hd_dedup *d, const hd_dedup_sign *s, hd_dedup_kind *kind, hd_err *err);

#endif
