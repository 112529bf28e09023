/* Sets of characters, and how a character of a set is spelled in bytes.
 *
 * UTF-8 keeps the order of characters, so a range of characters is a few ranges of bytes in a row: it
 * is cut where the number of bytes changes, then until all bytes behind the first that differs run
 * through 80 to BF. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "infer/grammar_impl.h"

enum { MAX_CHAR = 0x10FFFF };

void hd_chars_add(hd_chars *c, int32_t lo, int32_t hi)
{
    if (lo < 0 || lo > hi) return;                 // what is wrong has been told already
    if (c->n == HD_CHARS_RANGES) hd_chars_sort(c); // overlaps may have taken room
    if (c->n == HD_CHARS_RANGES) {
        c->full = true;
        return;
    }
    c->r[c->n].lo = lo;
    c->r[c->n++].hi = hi;
}

static int by_lo(const void *pa, const void *pb)
{
    const int32_t *a = pa, *b = pb;
    return (a[0] > b[0]) - (a[0] < b[0]);
}

/* Surrogates are no characters: nothing spells them. */
static void join(hd_chars *c)
{
    int n = 0;
    for (int i = 0; i < c->n; i++) {
        if (n > 0 && c->r[i].lo <= c->r[n - 1].hi + 1) {
            if (c->r[i].hi > c->r[n - 1].hi) c->r[n - 1].hi = c->r[i].hi;
        } else c->r[n++] = c->r[i];
    }
    c->n = n;
}

void hd_chars_sort(hd_chars *c)
{
    qsort(c->r, (size_t)c->n, sizeof c->r[0], by_lo);
    join(c);
    for (int i = 0; i < c->n; i++) {
        int32_t hi = c->r[i].hi;
        if (c->r[i].lo > 0xDFFF || hi < 0xD800) continue;
        if (c->r[i].lo >= 0xD800 && hi <= 0xDFFF) {
            memmove(&c->r[i], &c->r[i + 1], (size_t)(c->n - i - 1) * sizeof c->r[0]);
            c->n--;
            i--;
        } else if (c->r[i].lo >= 0xD800) c->r[i].lo = 0xE000;
        else {
            c->r[i].hi = 0xD7FF;
            if (hi > 0xDFFF)
                hd_chars_add(c, 0xE000, hi); // comes last, and the ranges behind it are sorted below
        }
    }
    qsort(c->r, (size_t)c->n, sizeof c->r[0], by_lo);
}

void hd_chars_not(hd_chars *c)
{
    hd_chars out = {.full = c->full};
    int32_t at = 0;
    hd_chars_sort(c);
    for (int i = 0; i < c->n; i++) {
        hd_chars_add(&out, at, c->r[i].lo - 1);
        at = c->r[i].hi + 1;
    }
    hd_chars_add(&out, at, MAX_CHAR);
    hd_chars_sort(&out);
    *c = out;
}

bool hd_chars_has(const hd_chars *c, int32_t cp)
{
    for (int i = 0; i < c->n; i++)
        if (cp >= c->r[i].lo && cp <= c->r[i].hi) return true;
    return false;
}

/* ---- As bytes ---- */

static void put_range(hd_builder *b, int32_t alt, int32_t lo, int32_t hi)
{
    static const int32_t last[] = {0x7F, 0x7FF, 0xFFFF};
    char from[4], to[4];
    for (int i = 0; i < 3; i++)
        if (lo <= last[i] && last[i] < hi) {
            put_range(b, alt, lo, last[i]);
            put_range(b, alt, last[i] + 1, hi);
            return;
        }
    for (int i = 1; i < 4 && hi > 0x7F; i++) {
        int32_t m = (1 << (6 * i)) - 1; // what the last i bytes hold
        if ((lo & ~m) == (hi & ~m)) continue;
        if (lo & m) {
            put_range(b, alt, lo, lo | m);
            put_range(b, alt, (lo | m) + 1, hi);
            return;
        }
        if ((hi & m) != m) {
            put_range(b, alt, lo, (hi & ~m) - 1);
            put_range(b, alt, hi & ~m, hi);
            return;
        }
    }
    int n = hd_utf8_put(from, lo);
    hd_utf8_put(to, hi);
    int32_t seq = hd_node_append(b, alt, hd_node_new(b, HD_NODE_SEQ, 0, 0));
    for (int i = 0; i < n; i++) {
        hd_byteset s = {{0}};
        hd_byteset_add(&s, (uint8_t)from[i], (uint8_t)to[i]);
        hd_node_append(b, seq, hd_node_bytes(b, &s));
    }
}

/* The escape of a character that must not stand in a JSON string.  NUL has one, too, but many
 * readers stop there. */
static void put_escape(hd_builder *b, int32_t alt, int32_t c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    char text[16];
    const char *p = c > 0 ? strchr(from, c) : NULL;
    if (c == 0) return;
    if (p) snprintf(text, sizeof text, "\\%c", to[p - from]);
    else snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    hd_node_append(b, alt, hd_node_text(b, text));
}

static bool is_escaped(int32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

static void put_all(hd_builder *b, int32_t alt, const hd_chars *c, bool json)
{
    hd_byteset ascii = {{0}};
    for (int32_t x = 0; x < 0x80; x++) {
        if (!hd_chars_has(c, x)) continue;
        if (json && is_escaped(x)) put_escape(b, alt, x);
        else hd_byteset_add(&ascii, x, x);
    }
    hd_node_append(b, alt, hd_node_bytes(b, &ascii));
    for (int i = 0; i < c->n && b->st == HD_OK; i++)
        if (c->r[i].hi >= 0x80) put_range(b, alt, c->r[i].lo < 0x80 ? 0x80 : c->r[i].lo, c->r[i].hi);
}

/* A set of single bytes stays one; any other becomes a rule, the same for the same set. */
int32_t hd_node_chars(hd_builder *b, hd_chars *c, bool json)
{
    hd_byteset ascii = {{0}};
    bool simple = true;
    hd_chars_sort(c);
    if (c->full) hd_builder_fail(b, HD_LIMIT, "grammar: a class of more than %d ranges", HD_CHARS_RANGES);
    for (int i = 0; simple && i < c->n; i++) {
        simple = c->r[i].hi < 0x80;
        for (int32_t x = c->r[i].lo; simple && x <= c->r[i].hi; x++) {
            simple = !json || !is_escaped(x);
            hd_byteset_add(&ascii, x, x);
        }
    }
    if (b->st != HD_OK || simple) return hd_node_bytes(b, &ascii);

    struct {
        char mark, json; // no rule of a grammar has such a name
        int32_t range[HD_CHARS_RANGES][2];
    } name = {.mark = 1, .json = json};
    size_t n = offsetof(__typeof__(name), range) + (size_t)c->n * sizeof name.range[0];
    memcpy(name.range, c->r, (size_t)c->n * sizeof name.range[0]);
    int32_t rule = hd_rule_named(b, (const char *)&name, n);
    if (b->st == HD_OK && b->rule[rule].body < 0) {
        int32_t alt = hd_node_new(b, HD_NODE_ALT, 0, 0);
        put_all(b, alt, c, json);
        if (b->st == HD_OK) b->rule[rule].body = alt;
    }
    return hd_node_call(b, rule);
}
