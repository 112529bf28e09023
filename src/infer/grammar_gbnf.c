/* GBNF, a notation for grammars:
 *
 *     # an answer with its reason
 *     root   ::= answer ", because " reason
 *     answer ::= "yes" | "no" | "it depends on " [a-z]{3,20}
 *     reason ::= ([^.\n] | "." [0-9])+ "."
 *
 * Elements: "text", [class], [^class], `.` (any character), a rule's name, (a group).  Behind an element: * +
 * ? {m} {m,} {m,n}.
 * Escapes: \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH.  A rule ends with its line, but a line may go
 * on inside a group, after ::= and after |, and with a | at the beginning of the next line. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "infer/grammar_impl.h"

typedef struct {
    hd_builder *b;
    const char *text;
    size_t n, at;
} reader;

static int peek(const reader *r) { return r->at < r->n ? (uint8_t)r->text[r->at] : -1; }

static bool good(const reader *r) { return r->b->st == HD_OK; }

/* Line and column for the message. */
static void bad(reader *r, hd_status st, const char *why)
{
    int line = 1, column = 1;
    if (!good(r)) return;
    for (size_t i = 0; i < r->at && i < r->n; i++) {
        column = r->text[i] == '\n' ? 1 : column + 1;
        line += r->text[i] == '\n';
    }
    hd_builder_fail(r->b, st, "grammar: line %d, column %d: %s", line, column, why);
}

static bool take(reader *r, const char *token)
{
    size_t n = strlen(token);
    if (r->n - r->at < n || memcmp(r->text + r->at, token, n) != 0) return false;
    r->at += n;
    return true;
}

static void space(reader *r, bool lines)
{
    for (;;) {
        int c = peek(r);
        if (c == '#')
            while (peek(r) >= 0 && peek(r) != '\n') r->at++;
        else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) r->at++;
        else return;
    }
}

static bool is_name(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static size_t name_length(const reader *r)
{
    size_t n = 0;
    while (r->at + n < r->n && is_name((uint8_t)r->text[r->at + n])) n++;
    return n;
}

/* ---- Characters ---- */

static int32_t hex(reader *r, int digits)
{
    int32_t v = 0;
    for (int i = 0; i < digits; i++, r->at++) {
        int d = hd_hex_digit(peek(r));
        if (d < 0 || v > 0x10FFFF) {
            bad(r, HD_FORMAT, "a hexadecimal number is cut short or too large");
            return 0;
        }
        v = v * 16 + d;
    }
    if (v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF)) bad(r, HD_FORMAT, "there is no such character");
    return v;
}

/* One character, escaped or not. */
static int32_t character(reader *r)
{
    int32_t c;
    if (peek(r) != '\\') {
        r->at += (size_t)hd_utf8_next((const uint8_t *)r->text + r->at, r->n - r->at, &c);
        if (c < 0) bad(r, HD_FORMAT, "not valid UTF-8");
        return c < 0 ? 0 : c;
    }
    r->at++;
    int e = peek(r);
    r->at += e >= 0;
    switch (e) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'x': return hex(r, 2);
    case 'u': return hex(r, 4);
    case 'U': return hex(r, 8);
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^': return e;
    default: bad(r, HD_FORMAT, "unknown escape"); return 0;
    }
}

static int32_t literal(reader *r)
{
    hd_buf s;
    char c[4];
    hd_buf_init(&s, HD_GRAMMAR_BYTES * 4);
    r->at++;
    while (good(r) && peek(r) != '"') {
        if (peek(r) < 0 || peek(r) == '\n') {
            bad(r, HD_FORMAT, "a text without its closing \"");
            break;
        }
        int n = hd_utf8_put(c, character(r));
        if (good(r)) r->b->st = hd_buf_add(&s, c, (size_t)n, r->b->err);
    }
    take(r, "\"");
    int32_t node = hd_node_literal(r->b, s.data ? s.data : "", s.len);
    hd_buf_free(&s);
    return node;
}

static int32_t class(reader *r)
{
    hd_chars c = {.n = 0};
    r->at++;
    bool not = take(r, "^");
    while (good(r) && peek(r) != ']') {
        if (peek(r) < 0 || peek(r) == '\n') {
            bad(r, HD_FORMAT, "a class without its closing ]");
            break;
        }
        int32_t lo = character(r), hi = lo;
        if (peek(r) == '-' && r->at + 1 < r->n && r->text[r->at + 1] != ']') {
            r->at++;
            hi = character(r);
            if (hi < lo) bad(r, HD_FORMAT, "a range that runs backwards");
        }
        hd_chars_add(&c, lo, hi);
    }
    take(r, "]");
    if (not ) hd_chars_not(&c);
    return hd_node_chars(r->b, &c, false);
}

/* ---- Expressions ---- */

static int32_t alternatives(reader *r, int depth);

static int32_t element(reader *r, int depth)
{
    int c = peek(r);
    hd_chars any = {.n = 0};
    if (c == '"') return literal(r);
    if (c == '[') return class(r);
    if (c == '.') {
        r->at++;
        hd_chars_add(&any, 0, 0x10FFFF);
        return hd_node_chars(r->b, &any, false);
    }
    if (c == '(') {
        if (depth >= HD_GRAMMAR_DEPTH) {
            bad(r, HD_LIMIT, "groups in groups, too deep");
            return 0;
        }
        r->at++;
        space(r, true);
        int32_t node = alternatives(r, depth + 1);
        if (!take(r, ")")) bad(r, HD_FORMAT, "a group without its closing )");
        return node;
    }
    if (c == '<' || c == '!') bad(r, HD_UNSUPPORTED, "tokens as elements (<...>) are not known");
    else if (!is_name(c)) bad(r, HD_FORMAT, "expected \"text\", [class], a name or (");
    size_t n = name_length(r);
    int32_t rule = hd_rule_named(r->b, r->text + r->at, n);
    if (good(r) && r->b->rule[rule].where == 0) r->b->rule[rule].where = (int32_t)r->at;
    r->at += n;
    return hd_node_call(r->b, rule);
}

static bool number(reader *r, int32_t *v)
{
    size_t from = r->at;
    *v = 0;
    for (int c; (c = peek(r)) >= '0' && c <= '9'; r->at++)
        *v = *v <= HD_GRAMMAR_REPEAT ? *v * 10 + (c - '0') : *v;
    return r->at > from;
}

static int32_t quantified(reader *r, int32_t node)
{
    int32_t m = 0, n = 0;
    space(r, false);
    if (take(r, "*")) n = -1;
    else if (take(r, "+")) m = 1, n = -1;
    else if (take(r, "?")) n = 1;
    else if (take(r, "{")) {
        space(r, false);
        bool from = number(r, &m), to = false;
        space(r, false);
        n = m;
        if (take(r, ",")) {
            space(r, false);
            to = number(r, &n);
            if (!to) n = -1;
            space(r, false);
        }
        if ((!from && !to) || !take(r, "}") || (n >= 0 && n < m))
            bad(r, HD_FORMAT, "expected {m}, {m,} or {m,n}");
    } else return node;
    space(r, false);
    int c = peek(r);
    if (c == '*' || c == '+' || c == '?' || c == '{')
        bad(r, HD_FORMAT, "two repetitions in a row: put the first into a group");
    return hd_node_repeat(r->b, node, m, n);
}

static int32_t sequence(reader *r, int depth)
{
    int32_t seq = hd_node_new(r->b, HD_NODE_SEQ, 0, 0);
    while (good(r)) {
        int c = peek(r);
        if (c < 0 || c == '|' || c == ')' || c == '\n' || c == '\r') break;
        hd_node_append(r->b, seq, quantified(r, element(r, depth)));
        space(r, depth > 0);
    }
    return seq;
}

static int32_t alternatives(reader *r, int depth)
{
    int32_t alt = hd_node_new(r->b, HD_NODE_ALT, 0, 0);
    while (good(r)) {
        hd_node_append(r->b, alt, sequence(r, depth));
        size_t end = r->at;
        space(r, true);
        if (!take(r, "|")) {
            if (depth == 0) r->at = end;
            break;
        }
        space(r, true);
    }
    return alt;
}

static void rule(reader *r)
{
    size_t n = name_length(r), from = r->at;
    if (n == 0) bad(r, HD_FORMAT, "expected a rule: name ::= ...");
    int32_t rule = hd_rule_named(r->b, r->text + from, n);
    if (good(r) && r->b->rule[rule].body >= 0) bad(r, HD_FORMAT, "a second rule of this name");
    r->at += n;
    space(r, false);
    if (!take(r, "::=")) bad(r, HD_FORMAT, "expected ::=");
    space(r, true);
    int32_t body = alternatives(r, 0);
    space(r, false);
    if (good(r) && peek(r) >= 0 && peek(r) != '\n' && peek(r) != '\r')
        bad(r, HD_FORMAT, "expected the end of the rule");
    if (good(r)) r->b->rule[rule].body = body;
    space(r, true);
}

hd_status hd_gbnf_read(hd_builder *b, const char *text, size_t n, int32_t *root)
{
    reader r = {b, text, n, 0};
    if (n > HD_GRAMMAR_BYTES)
        return hd_builder_fail(b, HD_LIMIT, "grammar: %zu bytes: at most %d", n, HD_GRAMMAR_BYTES);
    space(&r, true);
    while (good(&r) && r.at < n) rule(&r);
    *root = hd_rule_named(b, "root", 4);
    for (int32_t i = 0; i < b->n_rule && good(&r); i++) {
        const hd_rule *u = &b->rule[i];
        r.at = (size_t)u->where;
        if (u->body >= 0) continue;
        if (i == *root) hd_builder_fail(b, HD_FORMAT, "grammar: there is no rule root to begin with");
        char why[128];
        snprintf(why, sizeof why, "there is no rule %.*s", u->n_name < 80 ? u->n_name : 80,
                 b->pool.data + u->name);
        bad(&r, HD_FORMAT, why);
    }
    return b->st;
}
