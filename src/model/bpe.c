/* See bpe.h.
 *
 * Most words are short and come again and again, so a small direct-mapped cache (one 64-byte line per word)
 * answers most of them; the table of merges is several megabytes and each probe of it may miss every cache of
 * the machine.  A short word is merged by scanning its pairs for the lowest rank; a long one keeps its pairs
 * in a binary heap, so that a megabyte without a space costs n log n and not n squared. */
#include "model/bpe.h"

#include <assert.h>
#include <string.h>

enum {
    SHORT_WORD = 64,      // bytes: up to here a scan beats the heap
    CACHE_WORDS = 1 << 14 // x 64 bytes = 1 MB
};
#define NO_RANK UINT32_MAX

hd_status hd_bpe_open(hd_bpe *b, int64_t n, hd_err *err)
{
    *b = (hd_bpe){.seed = hd_hash_seed(), .unk = -1};
    if (n < 0 || n > INT32_MAX / 4) return hd_fail(err, HD_FORMAT, "tokenizer: merges: %lld of them", (long long)n);
    size_t slots = 64;
    while (slots < (size_t)n * 2) slots *= 2;
    b->n_merges = n;
    b->mask = slots - 1;
    hd_status st = hd_alloc_n(&b->slot, slots, sizeof *b->slot, err);
    return st == HD_OK ? hd_alloc_n(&b->merge, (size_t)n, sizeof *b->merge, err) : st;
}

void hd_bpe_close(hd_bpe *b)
{
    free(b->slot);
    free(b->merge);
    *b = (hd_bpe){0};
}

/* The slot of a pair, or the free one where it belongs. */
static uint32_t *slot_of(const hd_bpe *b, int32_t x, int32_t y)
{
    uint64_t key = (uint64_t)(uint32_t)x << 32 | (uint32_t)y;
    size_t i = hd_fold(key ^ b->seed, 0x9e3779b97f4a7c15u) & b->mask;
    for (; b->slot[i]; i = (i + 1) & b->mask) {
        const hd_merge *m = &b->merge[b->slot[i] - 1];
        if (m->a == x && m->b == y) break;
    }
    return &b->slot[i];
}

/* NO_RANK: they do not join. */
static uint32_t rank_of(const hd_bpe *b, int32_t x, int32_t y) { return *slot_of(b, x, y) - 1; }

hd_status hd_bpe_add(hd_bpe *b, const hd_vocab *v, int64_t rank, const char *a, size_t na, const char *c, size_t nc,
                     hd_err *err)
{
    char joined[2 * HD_MAX_TOKEN_BYTES];
    int32_t x = hd_vocab_find(v, a, na), y = hd_vocab_find(v, c, nc), z = -1;
    if (na + nc <= sizeof joined && x >= 0 && y >= 0) {
        memcpy(joined, a, na);
        memcpy(joined + na, c, nc);
        z = hd_vocab_find(v, joined, na + nc);
    }
    if (z < 0)
        return hd_fail(err, HD_FORMAT, "tokenizer: merge %lld: %s is not in the vocabulary", (long long)rank,
                       x < 0 ? "its first part" : y < 0 ? "its second part" : "what it makes");
    if (v->kind[z] == HD_TOKEN_SPECIAL) return HD_OK;
    assert(rank >= 0 && rank < b->n_merges);
    uint32_t *slot = slot_of(b, x, y);
    if (*slot) return HD_OK;
    *slot = (uint32_t)rank + 1;
    b->merge[rank] = (hd_merge){x, y, z};
    return HD_OK;
}

void hd_bpe_bytes(hd_bpe *b, const hd_vocab *v)
{
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        int32_t id = hd_vocab_find(v, &c, 1);
        b->byte_id[i] = id >= 0 && v->kind[id] != HD_TOKEN_SPECIAL ? id : -1;
    }
}

hd_status hd_bpe_work_open(hd_bpe_work *w, bool cache, hd_err *err)
{
    *w = (hd_bpe_work){0};
    if (!cache) return HD_OK;
    w->cache_mask = CACHE_WORDS - 1;
    return hd_alloc_n(&w->cache, CACHE_WORDS, sizeof *w->cache, err);
}

void hd_bpe_work_close(hd_bpe_work *w)
{
    free(w->cache);
    free(w->id);
    free(w->next);
    free(w->prev);
    free(w->rank);
    free(w->heap);
    *w = (hd_bpe_work){0};
}

static hd_status work_grow(hd_bpe_work *w, size_t n, hd_err *err)
{
    hd_status st;
    if (n <= w->cap) return HD_OK;
    if (n < 256) n = 256;
    HD_TRY(hd_realloc(&w->id, n * sizeof *w->id, err));
    HD_TRY(hd_realloc(&w->next, n * sizeof *w->next, err));
    HD_TRY(hd_realloc(&w->prev, n * sizeof *w->prev, err));
    HD_TRY(hd_realloc(&w->rank, n * sizeof *w->rank, err));
    w->cap = n;
    return HD_OK;
fail:
    return st;
}

/* The word's bytes as ids; bytes that the vocabulary lacks become unk or vanish. */
static int64_t bytes_to_ids(const hd_bpe *b, int32_t *id, const uint8_t *s, size_t n)
{
    int64_t k = 0;
    bool after_unk = false;
    for (size_t i = 0; i < n; i++) {
        int32_t x = b->byte_id[s[i]];
        bool unk = x < 0;
        if (unk) x = b->unk;
        if (x >= 0 && !(unk && after_unk && b->fuse_unk)) id[k++] = x;
        after_unk = unk;
    }
    return k;
}

static int64_t merge_short(const hd_bpe *b, hd_bpe_work *w, int64_t n)
{
    int32_t *id = w->id;
    uint32_t *rank = w->rank;
    for (int64_t i = 0; i + 1 < n; i++) rank[i] = rank_of(b, id[i], id[i + 1]);
    while (n > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;

        id[best] = b->merge[rank[best]].id;
        n--;
        size_t tail = (size_t)(n - best - 1);
        memmove(id + best + 1, id + best + 2, tail * sizeof *id);
        memmove(rank + best, rank + best + 1, (tail + 1) * sizeof *rank); // the last moved rank is never read
        for (int64_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) rank[i] = rank_of(b, id[i], id[i + 1]);
    }
    return n;
}

static void heap_push(uint64_t *h, size_t *n, uint64_t x)
{
    size_t i = (*n)++;
    for (; i && h[(i - 1) / 2] > x; i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
    h[i] = x;
}

static void heap_sift(uint64_t *h, size_t n, size_t i)
{
    uint64_t x = h[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && h[c + 1] < h[c]) c++;
        if (h[c] >= x) break;
        h[i] = h[c];
    }
    h[i] = x;
}

/* A heap entry counts only while `rank` at its position still says the same: a merge changes the ranks of the
 * pairs at its own place and at its left neighbour's, and pushes them anew. */
static hd_status merge_long(const hd_bpe *b, hd_bpe_work *w, int64_t *n_io, hd_err *err)
{
    int64_t n = *n_io;
    hd_status st = hd_realloc(&w->heap, 3 * w->cap * sizeof *w->heap, err); // n pairs, two pushes for each merge
    if (st != HD_OK) return st;
    int32_t *id = w->id, *next = w->next, *prev = w->prev;
    size_t h = 0;
    for (int64_t i = 0; i < n; i++) {
        prev[i] = (int32_t)i - 1;
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        w->rank[i] = i + 1 < n ? rank_of(b, id[i], id[i + 1]) : NO_RANK;
        if (w->rank[i] != NO_RANK) w->heap[h++] = (uint64_t)w->rank[i] << 32 | (uint64_t)i;
    }
    for (size_t i = h / 2; i-- > 0;) heap_sift(w->heap, h, i);

    while (h) {
        uint64_t top = w->heap[0];
        w->heap[0] = w->heap[--h];
        if (h) heap_sift(w->heap, h, 0);
        int32_t i = (int32_t)(uint32_t)top;
        if (w->rank[i] != (uint32_t)(top >> 32)) continue;

        int32_t gone = next[i];
        id[i] = b->merge[w->rank[i]].id;
        next[i] = next[gone];
        if (next[i] >= 0) prev[next[i]] = i;
        w->rank[gone] = NO_RANK;
        for (int32_t k = 0, p = i; k < 2 && p >= 0; k++, p = prev[i]) { // this pair, then the one before it
            w->rank[p] = next[p] >= 0 ? rank_of(b, id[p], id[next[p]]) : NO_RANK;
            if (w->rank[p] != NO_RANK) heap_push(w->heap, &h, (uint64_t)w->rank[p] << 32 | (uint32_t)p);
        }
    }
    int64_t k = 0;
    for (int32_t i = 0; i >= 0; i = next[i]) id[k++] = id[i]; // k <= i: in place
    *n_io = k;
    return HD_OK;
}

static hd_status ids_append(hd_ids *out, const int32_t *id, int64_t n, hd_err *err)
{
    if (n > out->cap - out->n) {
        int64_t cap = out->cap ? out->cap * 2 : 64;
        while (cap - out->n < n) cap *= 2;
        hd_status st = hd_realloc(&out->id, (size_t)cap * sizeof *out->id, err);
        if (st != HD_OK) return st;
        out->cap = cap;
    }
    for (int64_t i = 0; i < n; i++) out->id[out->n++] = id[i];
    return HD_OK;
}

hd_status hd_bpe_encode(const hd_bpe *b, const hd_vocab *v, hd_bpe_work *w, const char *s, size_t n, hd_ids *out,
                        hd_err *err)
{
    hd_status st;
    if (n == 0) return HD_OK;
    if (n > 1 << 30) return hd_fail(err, HD_LIMIT, "tokenizer: a word of %zu bytes: at most 2^30", n);
    hd_bpe_word *c = NULL;
    if (w->cache && n <= sizeof c->key) {
        c = &w->cache[hd_hash_bytes(s, n, b->seed) & w->cache_mask];
        if (c->len == n && memcmp(c->key, s, n) == 0) return ids_append(out, c->id, c->n, err);
    }
    if (b->ignore_merges) {
        int32_t whole = hd_vocab_find(v, s, n);
        if (whole >= 0 && v->kind[whole] == HD_TOKEN_NORMAL) return ids_append(out, &whole, 1, err);
    }

    HD_TRY(work_grow(w, n, err));
    int64_t k = bytes_to_ids(b, w->id, (const uint8_t *)s, n);
    if (k <= SHORT_WORD) k = merge_short(b, w, k);
    else HD_TRY(merge_long(b, w, &k, err));
    HD_TRY(ids_append(out, w->id, k, err));
    if (c && k <= (int64_t)(sizeof c->id / sizeof *c->id)) {
        c->len = (uint8_t)n;
        c->n = (uint8_t)k;
        memcpy(c->key, s, n);
        if (k) memcpy(c->id, w->id, (size_t)k * sizeof *w->id);
    }
    return HD_OK;
fail:
    return st;
}
