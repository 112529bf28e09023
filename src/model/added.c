/* See added.h.  The rules (order, spaces, words) are those of Hugging Face's tokenizers. */
#include "model/added.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

hd_status hd_added_open(hd_added_set *a, int64_t n, size_t n_bytes, hd_err *err)
{
    hd_status st;
    *a = (hd_added_set){.seed = hd_hash_seed(), .cap = n};
    size_t slots = 64;
    if (n_bytes > INT32_MAX) return hd_fail(err, HD_LIMIT, "tokenizer: added tokens: %zu bytes", n_bytes);
    while (slots < 2 * n_bytes) slots *= 2;
    a->mask = slots - 1;
    a->max_nodes = n_bytes + 1;
    a->n_nodes = 1;
    HD_TRY(hd_alloc_n(&a->edge, slots, sizeof *a->edge, err));
    HD_TRY(hd_alloc_n(&a->to, slots, sizeof *a->to, err));
    HD_TRY(hd_alloc_n(&a->token, a->max_nodes, sizeof *a->token, err));
    memset(a->token, 0xff, a->max_nodes * sizeof *a->token);
    HD_TRY(hd_alloc_n(&a->tok, (size_t)n, sizeof *a->tok, err));
    return HD_OK;
fail:
    hd_added_close(a);
    return st;
}

void hd_added_close(hd_added_set *a)
{
    free(a->edge);
    free(a->to);
    free(a->token);
    free(a->tok);
    *a = (hd_added_set){0};
}

/* The slot of an edge, or the free one where it belongs. */
static size_t edge_of(const hd_added_set *a, size_t node, uint8_t byte)
{
    uint64_t key = ((uint64_t)node << 8 | byte) + 1;
    size_t i = hd_fold(key ^ a->seed, 0x9e3779b97f4a7c15u) & a->mask;
    while (a->edge[i] && a->edge[i] != key) i = (i + 1) & a->mask;
    return i;
}

hd_status hd_added_put(hd_added_set *a, const char *s, size_t n, hd_added t, hd_err *err)
{
    if (n == 0) return HD_OK;
    if (n > HD_MAX_ADDED_BYTES || a->n == a->cap || n > a->max_nodes - a->n_nodes)
        return hd_fail(err, HD_FORMAT, "tokenizer: added token %d: %zu bytes long: at most %d", t.id, n, HD_MAX_ADDED_BYTES);
    size_t node = 0;
    for (size_t i = 0; i < n; i++) {
        size_t e = edge_of(a, node, (uint8_t)s[i]);
        if (!a->edge[e]) {
            a->edge[e] = ((uint64_t)node << 8 | (uint8_t)s[i]) + 1;
            a->to[e] = (uint32_t)a->n_nodes++;
        }
        node = a->to[e];
    }
    a->token[node] = (int32_t)a->n;
    a->tok[a->n++] = t;
    a->first[(uint8_t)s[0]] = true;
    a->matches |= !t.special;
    return HD_OK;
}

/* The longest token that s begins with: its index, or -1. */
static int32_t longest(const hd_added_set *a, const char *s, size_t n, size_t *len)
{
    int32_t best = -1;
    size_t node = 0;
    for (size_t i = 0; i < n; i++) {
        size_t e = edge_of(a, node, (uint8_t)s[i]);
        if (!a->edge[e]) break;
        node = a->to[e];
        if (a->token[node] >= 0) {
            best = a->token[node];
            *len = i + 1;
        }
    }
    return best;
}

int32_t hd_added_find(const hd_added_set *a, const char *s, size_t n)
{
    size_t len = 0;
    int32_t i = a->n && n ? longest(a, s, n, &len) : -1;
    return i >= 0 && len == n ? a->tok[i].id : -1;
}

static bool is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x85 || (c >= 0x20 && utf8proc_category(c) >= UTF8PROC_CATEGORY_ZS &&
                                                utf8proc_category(c) <= UTF8PROC_CATEGORY_ZP);
}

/* What \w means in Rust: letters, marks, decimal and letter numbers, connectors, joiners, circled letters. */
static bool is_word(int32_t c)
{
    if (c < 0) return false;
    utf8proc_category_t g = utf8proc_category(c);
    return (g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_NL) || g == UTF8PROC_CATEGORY_PC || c == 0x200c ||
           c == 0x200d || (c >= 0x24b6 && c <= 0x24e9);
}

/* The character that ends at s + i, i > 0, and its length. */
static int char_before(const char *s, size_t i, int32_t *c)
{
    size_t k = i - 1;
    while (k > 0 && i - k < 4 && (s[k] & 0xc0) == 0x80) k--;
    hd_utf8_next((const uint8_t *)s + k, i - k, c);
    return (int)(i - k);
}

hd_status hd_added_split(const hd_added_set *a, const char *s, size_t n, hd_added_fn *fn, void *arg, hd_err *err)
{
    hd_status st;
    size_t done = 0; // all before it has been handed over
    for (size_t i = 0; i < n && a->matches;) {
        if (!a->first[(uint8_t)s[i]]) {
            i++;
            continue;
        }
        size_t len = 0;
        int32_t k = longest(a, s + i, n - i, &len);
        if (k < 0) {
            i++;
            continue;
        }
        const hd_added *t = &a->tok[k];
        size_t from = i, to = i + len;
        int32_t c;
        i = to;
        if (t->special) continue;
        if (t->single_word) {
            if (from > 0 && (char_before(s, from, &c), is_word(c))) continue;
            if (to < n && (hd_utf8_next((const uint8_t *)s + to, n - to, &c), is_word(c))) continue;
        }
        if (from < done) from = done; // spaces that an rstrip took
        for (int w; t->lstrip && from > done && (w = char_before(s, from, &c), is_space(c));) from -= (size_t)w;
        for (int w; t->rstrip && to < n && (w = hd_utf8_next((const uint8_t *)s + to, n - to, &c), is_space(c));)
            to += (size_t)w;
        if (from > done) HD_TRY(fn(arg, s + done, from - done, -1, err));
        HD_TRY(fn(arg, s + from, to - from, t->id, err));
        done = to;
    }
    if (done < n) return fn(arg, s + done, n - done, -1, err);
    return HD_OK;
fail:
    return st;
}
