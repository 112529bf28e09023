/* Regular expressions of a schema's `pattern`, as far as they are regular: literals, `.`, classes, \d \w \s
 * \D \W \S, groups, | * + ? {m} {m,} {m,n}, and ^ $ at the very ends of the pattern or of its alternatives.
 * References back, looks around and word borders are refused.
 *
 * A pattern is matched anywhere in a string, so where ^ or $ is missing any characters may stand.  Characters
 * are spelled as JSON spells them.  Where dialects disagree (is e-acute a word character?) only what all of
 * them accept is made.
 *
 * Together with minLength and maxLength: a first reading finds the lengths the pattern allows.  If they keep
 * to the limits anyway, good; if one repetition of single characters is all that varies, its counts are
 * narrowed in a second reading; else the pair is refused. */
#include <string.h>

#include "base/utf8.h"
#include "infer/schema_impl.h"

typedef struct {
    hd_schema *s;
    const hd_where *w;
    const char *text;
    size_t n, at;
    bool narrow; // second reading: the one repetition gets these counts
    int32_t narrow_m, narrow_n;
    int n_free;             // things of the top level whose length varies
    bool only_single;       // all of them are repetitions of one character
    int32_t free_m, free_n; // counts of the last such repetition
} reader;

/* A node and the characters it takes; max < 0: without end. */
typedef struct {
    int32_t node, min, max;
} piece;

static bool good(const reader *r) { return r->s->b->st == HD_OK; }

static void bad(reader *r, hd_status st, const char *why)
{
    hd_schema_fail(r->s, r->w, st, "\"pattern\", byte %zu: %s", r->at, why);
}

static int peek(const reader *r) { return r->at < r->n ? (uint8_t)r->text[r->at] : -1; }

static bool take(reader *r, char c)
{
    if (peek(r) != (uint8_t)c) return false;
    r->at++;
    return true;
}

static int32_t plus(int32_t x, int32_t y)
{
    if (x < 0 || y < 0) return -1;
    return (int64_t)x + y < (1 << 28) ? x + y : 1 << 28;
}

static int32_t times(int32_t x, int32_t y)
{
    if (x == 0 || y == 0) return 0;
    if (x < 0 || y < 0) return -1;
    return (int64_t)x * y < (1 << 28) ? x * y : 1 << 28;
}

/* ---- Characters ---- */

/* \d \w \s and their opposites; ascii: dialects disagree beyond it. */
static bool add_escape_class(hd_chars *c, int e, bool *ascii)
{
    static const struct {
        char name;
        int32_t r[4][2];
    } classes[] = {
        {'d', {{'0', '9'}}},
        {'w', {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
        {'s', {{'\t', '\r'}, {' ', ' '}}},
        {'D', {{0, '0' - 1}, {'9' + 1, 0x7F}}},
        {'W', {{0, '0' - 1}, {'9' + 1, 'A' - 1}, {'Z' + 1, '_' - 1}, {'_' + 1, 'a' - 1}}},
        {'S', {{'!', 0x7F}, {1, 8}, {0xE, 0x1B}}},
    };
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (classes[i].name != e) continue;
        for (int k = 0; k < 4; k++)
            if (classes[i].r[k][1]) hd_chars_add(c, classes[i].r[k][0], classes[i].r[k][1]);
        if (e == 'W') hd_chars_add(c, 'z' + 1, 0x7F);
        *ascii = true;
        return true;
    }
    return false;
}

static int32_t hex(reader *r, int digits)
{
    int32_t v = 0;
    for (int i = 0; i < digits; i++, r->at++) {
        int d = hd_hex_digit(peek(r));
        if (d < 0) bad(r, HD_FORMAT, "a hexadecimal number is cut short");
        if (d < 0) return 0;
        v = v * 16 + d;
    }
    if (v >= 0xD800 && v <= 0xDFFF) bad(r, HD_UNSUPPORTED, "a surrogate");
    return v;
}

/* Behind a backslash: one character. */
static int32_t escape(reader *r)
{
    int c = peek(r);
    r->at += c >= 0;
    switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'x': return hex(r, 2);
    case 'u': return hex(r, 4);
    }
    if (c > 0 && c < 0x80 && strchr("^$\\.*+?()[]{}|/-\"' ,:;=!<>@#%&~`_", c)) return c;
    bad(r, HD_UNSUPPORTED, "this escape is not supported");
    return 0;
}

static int32_t character(reader *r)
{
    int32_t c;
    if (take(r, '\\')) return escape(r);
    r->at += (size_t)hd_utf8_next((const uint8_t *)r->text + r->at, r->n - r->at, &c);
    if (c < 0) bad(r, HD_FORMAT, "not valid UTF-8");
    return c < 0 ? 0 : c;
}

static void class(reader *r, hd_chars *c)
{
    bool not = take(r, '^'), ascii = false;
    if (peek(r) == ']') bad(r, HD_UNSUPPORTED, "an empty class");
    while (good(r) && peek(r) != ']') {
        if (peek(r) < 0) {
            bad(r, HD_FORMAT, "a class without its closing ]");
            return;
        }
        if (peek(r) == '[') bad(r, HD_UNSUPPORTED, "[ in a class: write \\[");
        bool set = peek(r) == '\\' && r->at + 1 < r->n && add_escape_class(c, r->text[r->at + 1], &ascii);
        if (set) {
            r->at += 2;
            if (peek(r) == '-' && r->at + 1 < r->n && r->text[r->at + 1] != ']')
                bad(r, HD_UNSUPPORTED, "a range from a class");
            continue;
        }
        int32_t lo = character(r), hi = lo;
        if (peek(r) == '-' && r->at + 1 < r->n && r->text[r->at + 1] != ']') {
            r->at++;
            hi = character(r);
            if (hi < lo) bad(r, HD_FORMAT, "a range that runs backwards");
        }
        hd_chars_add(c, lo, hi);
    }
    take(r, ']');
    if (not &&ascii) hd_chars_add(c, 0x80, 0x10FFFF);
    if (not ) hd_chars_not(c);
}

static piece chars_piece(reader *r, hd_chars *c) { return (piece){hd_node_chars(r->s->b, c, true), 1, 1}; }

/* ---- Expressions ---- */

static piece alternatives(reader *r, int depth);

static piece element(reader *r, int depth)
{
    hd_chars c = {.n = 0};
    bool ascii;
    int first = peek(r);
    if (take(r, '(')) {
        if (take(r, '?') && !take(r, ':')) bad(r, HD_UNSUPPORTED, "only plain groups and (?: are supported");
        if (depth >= HD_GRAMMAR_DEPTH) {
            bad(r, HD_LIMIT, "groups in groups, too deep");
            return (piece){0, 0, 0};
        }
        piece p = alternatives(r, depth + 1);
        if (!take(r, ')')) bad(r, HD_FORMAT, "a group without its closing )");
        return p;
    }
    if (take(r, '[')) class(r, &c);
    else if (take(r, '.')) {
        hd_chars_add(&c, '\n', '\n');
        hd_chars_add(&c, '\r', '\r');
        hd_chars_add(&c, 0x2028, 0x2029);
        hd_chars_not(&c);
    } else if (first == '\\' && r->at + 1 < r->n && add_escape_class(&c, r->text[r->at + 1], &ascii))
        r->at += 2;
    else if (first == '^' || first == '$') bad(r, HD_UNSUPPORTED, "^ and $ are supported at the ends alone");
    else if (first == '*' || first == '+' || first == '?' || first == '{')
        bad(r, HD_FORMAT, "a repetition of nothing");
    else {
        int32_t x = character(r);
        hd_chars_add(&c, x, x);
    }
    return chars_piece(r, &c);
}

static bool number(reader *r, int32_t *v)
{
    size_t from = r->at;
    *v = 0;
    for (int c; (c = peek(r)) >= '0' && c <= '9'; r->at++)
        *v = *v <= HD_GRAMMAR_REPEAT ? *v * 10 + (c - '0') : *v;
    return r->at > from;
}

/* {m}, {m,} or {m,n}, the brace being read. */
static void counts(reader *r, int32_t *m, int32_t *n)
{
    bool ok = number(r, m);
    *n = *m;
    if (take(r, ',') && !number(r, n)) *n = -1;
    if (!ok || !take(r, '}') || (*n >= 0 && *n < *m)) bad(r, HD_FORMAT, "expected {m}, {m,} or {m,n}");
}

static piece quantified(reader *r, piece p, int depth, bool alone)
{
    int32_t m = 1, n = 1;
    bool single = p.min == 1 && p.max == 1;
    if (take(r, '*')) m = 0, n = -1;
    else if (take(r, '+')) n = -1;
    else if (take(r, '?')) m = 0;
    else if (take(r, '{')) counts(r, &m, &n);
    else {
        if (depth == 0 && p.min != p.max) r->n_free++, r->only_single = false;
        return p;
    }
    take(r, '?'); // lazy: the same strings
    int c = peek(r);
    if (c == '*' || c == '+' || c == '?' || c == '{') bad(r, HD_UNSUPPORTED, "two repetitions in a row");
    if (depth == 0 && (m != n || p.min != p.max)) {
        r->n_free++;
        r->only_single = r->only_single && single && alone;
        r->free_m = m;
        r->free_n = n;
        if (r->narrow) m = r->narrow_m, n = r->narrow_n;
    }
    return (piece){hd_node_repeat(r->s->b, p.node, m, n), times(p.min, m), times(p.max, n)};
}

/* One alternative.  Of the top level: with any characters around it where it has no ^ or $. */
static piece sequence(reader *r, int depth, bool alone)
{
    hd_builder *b = r->s->b;
    piece p = {hd_node_new(b, HD_NODE_SEQ, 0, 0), 0, 0};
    bool begins = depth > 0 || take(r, '^'), ends = depth > 0;
    if (!begins) hd_node_append(b, p.node, hd_node_repeat(b, hd_schema_any_char(r->s), 0, -1));
    while (good(r) && peek(r) >= 0 && peek(r) != '|' && peek(r) != ')') {
        size_t next = r->at + 1;
        if (depth == 0 && peek(r) == '$' && (next == r->n || r->text[next] == '|')) {
            r->at++;
            ends = true;
            break;
        }
        piece one = quantified(r, element(r, depth), depth, alone);
        hd_node_append(b, p.node, one.node);
        p.min = plus(p.min, one.min);
        p.max = plus(p.max, one.max);
    }
    if (!ends) hd_node_append(b, p.node, hd_node_repeat(b, hd_schema_any_char(r->s), 0, -1));
    if (!begins || !ends) {
        p.max = -1;
        r->n_free++;
        r->only_single = false;
    }
    return p;
}

static piece alternatives(reader *r, int depth)
{
    bool alone = depth == 0 && !memchr(r->text, '|', r->n); // | in a class or group costs narrowing, no more
    piece p = {hd_node_new(r->s->b, HD_NODE_ALT, 0, 0), INT32_MAX, 0};
    while (good(r)) {
        piece one = sequence(r, depth, alone);
        hd_node_append(r->s->b, p.node, one.node);
        p.min = one.min < p.min ? one.min : p.min;
        p.max = p.max < 0 || one.max < 0 ? -1 : one.max > p.max ? one.max : p.max;
        if (!take(r, '|')) break;
    }
    if (depth == 0 && good(r) && r->at < r->n) bad(r, HD_FORMAT, "a ) too many");
    return p;
}

static piece whole(reader *r)
{
    r->at = 0;
    r->n_free = 0;
    r->only_single = true;
    return alternatives(r, 0);
}

/* The counts that keep the whole within min to max; false: no count does. */
static bool narrowed(reader *r, const piece *p, int32_t min, int32_t max)
{
    int32_t others = p->min - r->free_m; // all else has a fixed length
    r->narrow_m = r->free_m > min - others ? r->free_m : min - others;
    r->narrow_n = max < 0 ? r->free_n : r->free_n < 0 || r->free_n > max - others ? max - others : r->free_n;
    r->narrow = true;
    return r->narrow_n < 0 ? max < 0 : r->narrow_m <= r->narrow_n;
}

int32_t hd_schema_pattern(hd_schema *s, const char *text, size_t n, int32_t min, int32_t max,
                          const hd_where *w)
{
    reader r = {.s = s, .w = w, .text = text, .n = n};
    piece p = whole(&r);
    bool keeps = p.min >= min && (max < 0 || (p.max >= 0 && p.max <= max));
    if (!good(&r)) return 0;
    if (!keeps) {
        if ((p.max >= 0 && p.max < min) || (max >= 0 && p.min > max)) return hd_node_never(s->b);
        if (r.n_free != 1 || !r.only_single) {
            hd_schema_fail(s, w, HD_UNSUPPORTED,
                           "this pattern or format beside minLength or maxLength is not supported");
            return 0;
        }
        if (!narrowed(&r, &p, min, max)) return hd_node_never(s->b);
        p = whole(&r);
    }
    int32_t seq = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
    hd_node_append(s->b, seq, hd_node_text(s->b, "\""));
    hd_node_append(s->b, seq, p.node);
    hd_node_append(s->b, seq, hd_node_text(s->b, "\""));
    return seq;
}
