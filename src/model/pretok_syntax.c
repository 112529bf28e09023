/* Split patterns from Oniguruma's syntax to PCRE2's.
 *
 * The patterns were written for Oniguruma, which Hugging Face's tokenizers uses.  PCRE2 reads most of them
 * alike; what it reads otherwise is translated here or refused:
 *   \s \S       PCRE2's Unicode space includes U+180E, Oniguruma's does not: spelled out as a class
 *   \w \W       PCRE2 10.42 leaves out marks and connectors: spelled out
 *   \p{Han}     PCRE2 takes script extensions in: \p{sc:Han}
 *   \h \H       hexadecimal digits, not horizontal space
 *   \uHHHH      a character
 *   {,n}        zero to n times
 *   ^ $         always at line ends: PCRE2_MULTILINE
 *   (?m)        the dot matches newlines: (?s)
 *   {n,m}+      a repeated repeat, not a possessive one: refused
 *   [a[b]] &&   sets of sets: refused
 *   \b (*VERB)  and whatever else known files do not use: refused
 *
 * The two also follow different versions of Unicode: what 15.0 to 16.0 added is listed here and
 * joined to \p{...}.  New emoji matter: to DeepSeek's patterns they are symbols, and what is no
 * symbol is cut elsewhere. */
#include "model/pretok.h"

#include <stdio.h>
#include <string.h>

#define SPACE "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                                      \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"                \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

/* Assigned in Unicode 15.0, 15.1 or 16.0: general category, first, last (from UnicodeData.txt).  PCRE2 10.42
 * knows Unicode 14; to a newer one the list adds nothing. */
static const struct {
    char category[3];
    int first, last;
} later[] = {
    {"Ll", 0x1c8a, 0x1c8a}, {"Ll", 0xa7cd, 0xa7cd}, {"Ll", 0xa7db, 0xa7db}, {"Ll", 0x10d70, 0x10d85},
    {"Ll", 0x1df25, 0x1df2a}, {"Lm", 0x10d4e, 0x10d4e}, {"Lm", 0x10d6f, 0x10d6f}, {"Lm", 0x16d40, 0x16d42},
    {"Lm", 0x16d6b, 0x16d6c}, {"Lm", 0x1e030, 0x1e06d}, {"Lm", 0x1e4eb, 0x1e4eb}, {"Lo", 0x105c0, 0x105f3},
    {"Lo", 0x10d4a, 0x10d4d}, {"Lo", 0x10d4f, 0x10d4f}, {"Lo", 0x10ec2, 0x10ec4}, {"Lo", 0x1123f, 0x11240},
    {"Lo", 0x11380, 0x11389}, {"Lo", 0x1138b, 0x1138b}, {"Lo", 0x1138e, 0x1138e}, {"Lo", 0x11390, 0x113b5},
    {"Lo", 0x113b7, 0x113b7}, {"Lo", 0x113d1, 0x113d1}, {"Lo", 0x113d3, 0x113d3}, {"Lo", 0x11bc0, 0x11be0},
    {"Lo", 0x11f02, 0x11f02}, {"Lo", 0x11f04, 0x11f10}, {"Lo", 0x11f12, 0x11f33}, {"Lo", 0x1342f, 0x1342f},
    {"Lo", 0x13441, 0x13446}, {"Lo", 0x13460, 0x143fa}, {"Lo", 0x16100, 0x1611d}, {"Lo", 0x16d43, 0x16d6a},
    {"Lo", 0x18cff, 0x18cff}, {"Lo", 0x1b132, 0x1b132}, {"Lo", 0x1b155, 0x1b155}, {"Lo", 0x1e4d0, 0x1e4ea},
    {"Lo", 0x1e5d0, 0x1e5ed}, {"Lo", 0x1e5f0, 0x1e5f0}, {"Lo", 0x2b739, 0x2b739}, {"Lo", 0x2ebf0, 0x2ee5d},
    {"Lo", 0x31350, 0x323af}, {"Lu", 0x1c89, 0x1c89}, {"Lu", 0xa7cb, 0xa7cc}, {"Lu", 0xa7da, 0xa7da},
    {"Lu", 0xa7dc, 0xa7dc}, {"Lu", 0x10d50, 0x10d65}, {"Mc", 0xcf3, 0xcf3}, {"Mc", 0x113b8, 0x113ba},
    {"Mc", 0x113c2, 0x113c2}, {"Mc", 0x113c5, 0x113c5}, {"Mc", 0x113c7, 0x113ca}, {"Mc", 0x113cc, 0x113cd},
    {"Mc", 0x113cf, 0x113cf}, {"Mc", 0x11f03, 0x11f03}, {"Mc", 0x11f34, 0x11f35}, {"Mc", 0x11f3e, 0x11f3f},
    {"Mc", 0x11f41, 0x11f41}, {"Mc", 0x1612a, 0x1612c}, {"Mn", 0x897, 0x897}, {"Mn", 0xece, 0xece},
    {"Mn", 0x10d69, 0x10d6d}, {"Mn", 0x10efc, 0x10eff}, {"Mn", 0x11241, 0x11241}, {"Mn", 0x113bb, 0x113c0},
    {"Mn", 0x113ce, 0x113ce}, {"Mn", 0x113d0, 0x113d0}, {"Mn", 0x113d2, 0x113d2}, {"Mn", 0x113e1, 0x113e2},
    {"Mn", 0x11f00, 0x11f01}, {"Mn", 0x11f36, 0x11f3a}, {"Mn", 0x11f40, 0x11f40}, {"Mn", 0x11f42, 0x11f42},
    {"Mn", 0x11f5a, 0x11f5a}, {"Mn", 0x13440, 0x13440}, {"Mn", 0x13447, 0x13455}, {"Mn", 0x1611e, 0x16129},
    {"Mn", 0x1612d, 0x1612f}, {"Mn", 0x1e08f, 0x1e08f}, {"Mn", 0x1e4ec, 0x1e4ef}, {"Mn", 0x1e5ee, 0x1e5ef},
    {"Nd", 0x10d40, 0x10d49}, {"Nd", 0x116d0, 0x116e3}, {"Nd", 0x11bf0, 0x11bf9}, {"Nd", 0x11f50, 0x11f59},
    {"Nd", 0x16130, 0x16139}, {"Nd", 0x16d70, 0x16d79}, {"Nd", 0x1ccf0, 0x1ccf9}, {"Nd", 0x1e4f0, 0x1e4f9},
    {"Nd", 0x1e5f1, 0x1e5fa}, {"No", 0x1d2c0, 0x1d2d3}, {"Pd", 0x10d6e, 0x10d6e}, {"Po", 0x1b4e, 0x1b4f},
    {"Po", 0x1b7f, 0x1b7f}, {"Po", 0x113d4, 0x113d5}, {"Po", 0x113d7, 0x113d8}, {"Po", 0x11b00, 0x11b09},
    {"Po", 0x11be1, 0x11be1}, {"Po", 0x11f43, 0x11f4f}, {"Po", 0x16d6d, 0x16d6f}, {"Po", 0x1e5ff, 0x1e5ff},
    {"Sm", 0x10d8e, 0x10d8f}, {"So", 0x2427, 0x2429}, {"So", 0x2ffc, 0x2fff}, {"So", 0x31e4, 0x31e5},
    {"So", 0x31ef, 0x31ef}, {"So", 0x1cc00, 0x1ccef}, {"So", 0x1cd00, 0x1ceb3}, {"So", 0x1f6dc, 0x1f6dc},
    {"So", 0x1f774, 0x1f776}, {"So", 0x1f77b, 0x1f77f}, {"So", 0x1f7d9, 0x1f7d9}, {"So", 0x1f8b2, 0x1f8bb},
    {"So", 0x1f8c0, 0x1f8c1}, {"So", 0x1fa75, 0x1fa77}, {"So", 0x1fa87, 0x1fa89}, {"So", 0x1fa8f, 0x1fa8f},
    {"So", 0x1faad, 0x1faaf}, {"So", 0x1fabb, 0x1fabf}, {"So", 0x1fac6, 0x1fac6}, {"So", 0x1face, 0x1facf},
    {"So", 0x1fada, 0x1fadc}, {"So", 0x1fadf, 0x1fadf}, {"So", 0x1fae8, 0x1fae9}, {"So", 0x1faf7, 0x1faf8},
    {"So", 0x1fbcb, 0x1fbef},
};

typedef struct {
    const char *s; // the pattern
    size_t n, i;   // i: the next byte of it
    hd_buf *out;
    hd_err *err;
    bool in_class;
} reader;

static hd_status refuse(const reader *r, const char *what)
{
    return hd_fail(r->err, HD_UNSUPPORTED, "tokenizer: pattern: byte %zu: %s is not known here", r->i, what);
}

static char peek(const reader *r, size_t k) { return r->i + k < r->n ? r->s[r->i + k] : 0; }

static hd_status copy(reader *r, size_t k)
{
    if (k > r->n - r->i) k = r->n - r->i;
    hd_status st = hd_buf_add(r->out, r->s + r->i, k, r->err);
    r->i += k;
    return st;
}

/* A class of our own in place of the escape at hand; inside a class the brackets are there already. */
static hd_status put_class(reader *r, bool negated, const char *set)
{
    r->i += 2;
    if (r->in_class) return hd_buf_adds(r->out, set, r->err);
    return hd_buf_addf(r->out, r->err, "[%s%s]", negated ? "^" : "", set);
}

static hd_status put_category(reader *r, const char *name, size_t n)
{
    hd_status st = hd_buf_addf(r->out, r->err, "\\p{%.*s}", (int)n, name);
    for (size_t i = 0; i < sizeof later / sizeof *later && st == HD_OK; i++)
        if (strncmp(later[i].category, name, n) == 0)
            st = hd_buf_addf(r->out, r->err, "\\x{%x}-\\x{%x}", (unsigned)later[i].first, (unsigned)later[i].last);
    return st;
}

static hd_status put_word(reader *r, bool negated)
{
    static const char *const parts[] = {"L", "M", "N", "Pc"};
    hd_status st = HD_OK;
    r->i += 2;
    if (!r->in_class) HD_TRY(hd_buf_adds(r->out, negated ? "[^" : "[", r->err));
    for (int i = 0; i < 4; i++) HD_TRY(put_category(r, parts[i], strlen(parts[i])));
    HD_TRY(hd_buf_adds(r->out, "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}", r->err));
    if (!r->in_class) HD_TRY(hd_buf_adds(r->out, "]", r->err));
fail:
    return st;
}

/* \p{..} of a general category gets the later characters too; a longer name is a script. */
static hd_status read_property(reader *r)
{
    hd_status st;
    const char *name = r->s + r->i + 3, *end = peek(r, 2) == '{' ? memchr(name, '}', r->n - r->i - 3) : NULL;
    size_t n = end ? (size_t)(end - name) : 0;
    bool not = peek(r, 1) == 'P';
    if (n == 0 || name[0] == '^') return refuse(r, "this property");
    r->i += n + 4;
    if (n > 2) return hd_buf_addf(r->out, r->err, "\\%c{sc:%.*s}", not ? 'P' : 'p', (int)n, name);
    if (r->in_class && not) return hd_buf_addf(r->out, r->err, "\\P{%.*s}", (int)n, name);
    if (!r->in_class) HD_TRY(hd_buf_adds(r->out, not ? "[^" : "[", r->err));
    HD_TRY(put_category(r, name, n));
    if (!r->in_class) HD_TRY(hd_buf_adds(r->out, "]", r->err));
fail:
    return st;
}

static hd_status read_escape(reader *r)
{
    switch (peek(r, 1)) {
    case 's': return put_class(r, false, SPACE);
    case 'S': return r->in_class ? put_class(r, false, NOT_SPACE) : put_class(r, true, SPACE);
    case 'w': return put_word(r, false);
    case 'W': return r->in_class ? refuse(r, "\\W in a set") : put_word(r, true);
    case 'h': return put_class(r, false, "0-9A-Fa-f");
    case 'H': return r->in_class ? refuse(r, "\\H in a set") : put_class(r, true, "0-9A-Fa-f");
    case 'b':
    case 'B':
        if (!r->in_class) return refuse(r, "a word boundary");
        return copy(r, 2);
    case 'u': {
        unsigned c;
        int len = 0;
        char hex[5] = {peek(r, 2), peek(r, 3), peek(r, 4), peek(r, 5)};
        if (sscanf(hex, "%4x%n", &c, &len) != 1 || len != 4) return refuse(r, "\\u without four digits");
        r->i += 6;
        return hd_buf_addf(r->out, r->err, "\\x{%x}", c);
    }
    case 'p':
    case 'P': return read_property(r);
    case 'x': {
        size_t k = 2;
        if (peek(r, 2) == '{')
            while (r->i + k < r->n && r->s[r->i + k - 1] != '}') k++;
        return copy(r, k);
    }
    case 'Q':
    case 'E':
    case 'C':
    case 'g':
    case 'k':
    case 'K': return refuse(r, "this escape");
    default: return copy(r, 2);
    }
}

/* At '{': a repeat count or a plain brace. */
static hd_status read_brace(reader *r)
{
    size_t k = 1;
    while ((peek(r, k) >= '0' && peek(r, k) <= '9') || peek(r, k) == ',') k++;
    if (k == 1 || peek(r, k) != '}') return copy(r, 1);
    if (peek(r, k + 1) == '+') return refuse(r, "'+' after a repeat count");
    if (peek(r, 1) == ',') {
        r->i++;
        hd_status st = hd_buf_adds(r->out, "{0", r->err);
        if (st != HD_OK) return st;
        k--;
    }
    return copy(r, k + 1);
}

/* At '(': plain, or (?: (?= (?! (?> (?<= (?<! or (?flags. */
static hd_status read_group(reader *r)
{
    hd_status st;
    if (peek(r, 1) == '*') return refuse(r, "a verb");
    if (peek(r, 1) != '?') return copy(r, 1);
    char c = peek(r, 2);
    if (c == ':' || c == '=' || c == '!' || c == '>') return copy(r, 3);
    if (c == '<' && (peek(r, 3) == '=' || peek(r, 3) == '!')) return copy(r, 4);
    HD_TRY(copy(r, 2));
    for (; (c = peek(r, 0)) != ')' && c != ':'; r->i++) {
        if (c != 'i' && c != 'm' && c != 'x' && c != '-') return refuse(r, "this kind of group");
        HD_TRY(hd_buf_add(r->out, c == 'm' ? "s" : &c, 1, r->err));
    }
    return copy(r, 1);
fail:
    return st;
}

hd_status hd_pattern_to_pcre2(hd_buf *out, const char *s, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    reader r = {.s = s, .n = n, .out = out, .err = err};
    while (r.i < n && st == HD_OK) {
        char c = s[r.i];
        if (c == '\\') st = read_escape(&r);
        else if (r.in_class) {
            if (c == '[') st = refuse(&r, "a set in a set");
            else if (c == '&' && peek(&r, 1) == '&') st = refuse(&r, "an intersection of sets");
            else {
                r.in_class = c != ']';
                st = copy(&r, 1);
            }
        } else if (c == '[') {
            r.in_class = true;
            size_t k = peek(&r, 1) == '^' ? 2 : 1;
            st = copy(&r, k + (peek(&r, k) == ']')); // a bracket in the first place is itself
        } else if (c == '{') st = read_brace(&r);
        else if (c == '(') st = read_group(&r);
        else st = copy(&r, 1);
    }
    return st;
}

