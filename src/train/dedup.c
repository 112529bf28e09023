/* Exact duplicates by a hash of the bytes, near ones by MinHash (Broder 1997) with bands (Indyk
 * and Motwani 1998).
 *
 * A document is the set of its word 5-grams.  112 functions order all 5-grams in 112 ways, and the least of
 * the set is kept for
 * each: two documents agree in one of them with a chance equal to their sets' Jaccard similarity.  Eight
 * minima make a band; those that share one band of the 14 are candidates (at similarity 0.8: 92 % of pairs,
 * at 0.5: 5 %), and then all 112 are compared, eight bits of each.
 *
 * The settings are FineWeb's (arXiv:2406.17557).  A document that is kept costs some 300 bytes,
 * whatever its length. */
#include "train/dedup.h"

#include <sodium.h>
#include <string.h>

enum { GRAM = 5 };

/* Open addressing, at most five eighths full. */
typedef struct {
    uint64_t key; // 0: free
    uint32_t doc;
} slot;

typedef struct {
    slot *s;
    size_t mask, used; // slots - 1
} table;

struct hd_dedup {
    double near;
    table texts, bands;
    uint8_t (*low)[HD_DEDUP_HASHES]; // of kept documents with words
    size_t n_docs, cap;
};

void hd_dedup_close(hd_dedup *d)
{
    if (!d) return;
    free(d->texts.s);
    free(d->bands.s);
    free(d->low);
    free(d);
}

static hd_status table_init(table *t, size_t slots, hd_err *err)
{
    hd_status st = hd_alloc_n(&t->s, slots, sizeof *t->s, err);
    t->mask = st == HD_OK ? slots - 1 : 0;
    t->used = 0;
    return st;
}

hd_status hd_dedup_open(hd_dedup **out, double near, hd_err *err)
{
    hd_status st;
    hd_dedup *d = NULL;
    HD_TRY(hd_alloc(&d, sizeof *d, err));
    d->near = near;
    HD_TRY(table_init(&d->texts, 1 << 10, err));
    HD_TRY(table_init(&d->bands, 1 << 12, err));
    *out = d;
    return HD_OK;
fail:
    hd_dedup_close(d);
    return st;
}

static void put(table *t, uint64_t key, uint32_t doc)
{
    size_t i = hd_mix(key) & t->mask;
    while (t->s[i].key) i = (i + 1) & t->mask;
    t->s[i] = (slot){key, doc};
    t->used++;
}

/* Room for n more. */
static hd_status table_room(table *t, size_t n, hd_err *err)
{
    if ((t->used + n) * 8 <= (t->mask + 1) * 5) return HD_OK;
    table bigger;
    hd_status st = table_init(&bigger, 2 * (t->mask + 1), err);
    if (st != HD_OK) return st;
    for (size_t i = 0; i <= t->mask; i++)
        if (t->s[i].key) put(&bigger, t->s[i].key, t->s[i].doc);
    free(t->s);
    *t = bigger;
    return HD_OK;
}

uint64_t hd_dedup_text(const void *text, size_t n)
{
    uint8_t sum[16];
    uint64_t h;
    crypto_generichash(sum, sizeof sum, text, n, NULL, 0);
    memcpy(&h, sum, sizeof h);
    return h;
}

void hd_dedup_words(hd_dedup_sign *s, const hd_wordhash *w)
{
    uint32_t least[HD_DEDUP_HASHES], a[HD_DEDUP_HASHES], b[HD_DEDUP_HASHES];
    int gram = w->n < GRAM ? (int)w->n : GRAM;
    s->empty = gram == 0;
    if (s->empty) return;
    for (int k = 0; k < HD_DEDUP_HASHES; k++) { // x -> a x + b, a odd: a permutation of all 32-bit numbers
        uint64_t r = hd_mix((uint64_t)k);
        a[k] = (uint32_t)r | 1, b[k] = (uint32_t)(r >> 32), least[k] = UINT32_MAX;
    }
    for (int64_t i = 0; i + gram <= w->n; i++) {
        uint64_t h = 0;
        for (int k = 0; k < gram; k++) h = hd_mix(h ^ w->hash[i + k]);
        uint32_t x = (uint32_t)h;
        for (int k = 0; k < HD_DEDUP_HASHES; k++) {
            uint32_t v = a[k] * x + b[k];
            least[k] = v < least[k] ? v : least[k];
        }
    }
    for (int j = 0; j < HD_DEDUP_BANDS; j++) {
        uint64_t h = (uint64_t)j;
        for (int k = 0; k < HD_DEDUP_ROWS; k++) h = hd_mix(h ^ least[j * HD_DEDUP_ROWS + k]);
        s->band[j] = h | 1; // never 0
    }
    for (int k = 0; k < HD_DEDUP_HASHES; k++) s->low[k] = (uint8_t)(hd_mix(least[k]) >> 56);
}

/* The estimate of their similarity; eight bits agree by chance once in 256. */
static double similar(const uint8_t *a, const uint8_t *b)
{
    int same = 0;
    for (int k = 0; k < HD_DEDUP_HASHES; k++) same += a[k] == b[k];
    double share = (double)same / HD_DEDUP_HASHES;
    return (share - 1.0 / 256) / (1 - 1.0 / 256);
}

static bool near_one(const hd_dedup *d, const hd_dedup_sign *s)
{
    for (int j = 0; j < HD_DEDUP_BANDS; j++)
        for (size_t i = hd_mix(s->band[j]) & d->bands.mask; d->bands.s[i].key; i = (i + 1) & d->bands.mask)
            if (d->bands.s[i].key == s->band[j] && similar(d->low[d->bands.s[i].doc], s->low) >= d->near)
                return true;
    return false;
}

hd_status hd_dedup_seen(hd_dedup *d, const hd_dedup_sign *s, hd_dedup_kind *kind, hd_err *err)
{
    hd_status st = HD_OK;
    uint64_t key = s->text | 1;
    bool words = !s->empty && d->near <= 1;
    *kind = HD_DEDUP_SAME;
    for (size_t i = hd_mix(key) & d->texts.mask; d->texts.s[i].key; i = (i + 1) & d->texts.mask)
        if (d->texts.s[i].key == key) return HD_OK;
    *kind = HD_DEDUP_NEAR;
    if (words && near_one(d, s)) return HD_OK;
    *kind = HD_DEDUP_NEW;
    HD_TRY(table_room(&d->texts, 1, err));
    if (words) {
        HD_TRY(table_room(&d->bands, HD_DEDUP_BANDS, err));
        if (d->n_docs == UINT32_MAX)
            HD_TRY(hd_fail(err, HD_LIMIT, "dedup: more than %u documents", UINT32_MAX));
        if (d->n_docs == d->cap) {
            size_t cap = d->cap ? 2 * d->cap : 256, bytes = 0;
            if (!hd_mul(&bytes, cap, sizeof *d->low))
                HD_TRY(hd_fail(err, HD_NOMEM, "dedup: too many documents"));
            HD_TRY(hd_realloc(&d->low, bytes, err));
            d->cap = cap;
        }
        memcpy(d->low[d->n_docs], s->low, sizeof s->low);
        for (int j = 0; j < HD_DEDUP_BANDS; j++) put(&d->bands, s->band[j], (uint32_t)d->n_docs);
        d->n_docs++;
    }
    put(&d->texts, key, 0);
fail:
    return st;
}
