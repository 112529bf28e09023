/* The tree of a vocabulary: words sorted by part and bytes, then each node after the one above it. */
#include "model/vocab_tree.h"

#include <string.h>

#include "base/utf8.h"

static const int limits[HD_TREE_PARTS] = {0, 2, 4, 8, 16, 32};

typedef struct {
    const char *s;
    uint32_t n;
    int32_t id, part;
} word;

/* The part of a word: the first whose limit its characters keep to, 0 when one is not plain or
 * they are too many. */
static int part_of(const char *s, size_t n)
{
    int chars = 0;
    for (size_t i = 0; i < n; chars++) {
        int32_t c;
        i += (size_t)hd_utf8_next((const uint8_t *)s + i, n - i, &c);
        if (c < 0x20 || c == '"' || c == '\\') return 0;
    }
    for (int p = 1; p < HD_TREE_PARTS; p++)
        if (chars <= limits[p]) return p;
    return 0;
}

static int by_bytes(const void *pa, const void *pb)
{
    const word *a = pa, *b = pb;
    if (a->part != b->part) return a->part - b->part;
    int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    if (c != 0) return c;
    return a->n != b->n ? (a->n < b->n ? -1 : 1) : a->id - b->id;
}

/* All words but special ones, empty ones and giants. */
static size_t list_words(word *w, const hd_tokenizer *t)
{
    size_t n = 0, len = 0;
    for (int64_t id = 0; id < hd_tokenizer_n_vocab(t); id++) {
        const char *s = hd_tokenizer_bytes(t, (int32_t)id, &len);
        if (!s || len == 0 || len > HD_TREE_DEPTH || hd_tokenizer_is_special(t, (int32_t)id)) continue;
        w[n++] = (word){s, (uint32_t)len, (int32_t)id, part_of(s, len)};
    }
    qsort(w, n, sizeof *w, by_bytes);
    return n;
}

static uint32_t in_common(const word *a, const word *b)
{
    uint32_t k = 0;
    while (k < a->n && k < b->n && a->s[k] == b->s[k]) k++;
    return k;
}

/* New nodes of word i: those behind what it has in common with the word before.  A word said twice gets a
 * second node for its last byte. */
static uint32_t shared(const word *w, size_t i)
{
    if (i == 0 || w[i].part != w[i - 1].part) return 0;
    uint32_t k = in_common(&w[i - 1], &w[i]);
    return k == w[i].n ? k - 1 : k;
}

static void add_words(hd_vocab_tree *t, const word *w, size_t n)
{
    uint32_t open[HD_TREE_DEPTH], at = 0, n_open = 0; // nodes of the last word, whose ends are not known yet
    int part = 0;
    for (size_t i = 0; i <= n; i++) {
        uint32_t keep = i < n ? shared(w, i) : 0;
        while (n_open > keep) t->node[open[--n_open]].skip = at;
        for (; part < (i < n ? w[i].part : HD_TREE_PARTS); part++) t->first[part + 1] = at;
        if (i == n) break;
        for (uint32_t k = keep; k < w[i].n; k++) {
            t->node[at] = (hd_tree_node){.id = -1, .depth = (uint16_t)k, .byte = (uint8_t)w[i].s[k]};
            open[n_open++] = at++;
        }
        t->node[at - 1].id = w[i].id;
        if ((int)w[i].n > t->max_depth) t->max_depth = (int)w[i].n;
        if (w[i].part > 0) t->bit[w[i].part][w[i].id >> 6] |= 1ull << (w[i].id & 63);
    }
}

hd_status hd_vocab_tree_open(hd_vocab_tree **out, const hd_tokenizer *tok, hd_err *err)
{
    hd_status st;
    hd_vocab_tree *t = NULL;
    word *w = NULL;
    size_t n = 0, n_node = 0;
    HD_TRY(hd_alloc(&t, sizeof *t, err));
    t->n_id = hd_tokenizer_n_vocab(tok);
    t->n_word64 = ((size_t)t->n_id + 63) / 64;
    memcpy(t->plain, limits, sizeof limits);
    HD_TRY(hd_alloc_n(&w, (size_t)t->n_id, sizeof *w, err));
    n = list_words(w, tok);
    for (size_t i = 0; i < n; i++) n_node += w[i].n - shared(w, i);
    if (n_node >= UINT32_MAX)
        HD_TRY(hd_fail(err, HD_LIMIT, "vocabulary: a tree of %zu nodes is too large", n_node));
    HD_TRY(hd_alloc_n(&t->node, n_node, sizeof *t->node, err));
    for (int p = 1; p < HD_TREE_PARTS; p++)
        HD_TRY(hd_alloc_n(&t->bit[p], t->n_word64, sizeof *t->bit[p], err));
    add_words(t, w, n);
    free(w);
    *out = t;
    return HD_OK;
fail:
    free(w);
    hd_vocab_tree_close(t);
    return st;
}

void hd_vocab_tree_close(hd_vocab_tree *t)
{
    if (!t) return;
    for (int p = 0; p < HD_TREE_PARTS; p++) free(t->bit[p]);
    free(t->node);
    free(t);
}
