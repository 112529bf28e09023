/* Strings: characters as JSON spells them, lengths, formats, and the keys that no property has.
 *
 * A length counts characters of Unicode, as the schema means it: an escape is one, and so is a pair of
 * escaped surrogates.  NUL is left out, since many readers of JSON refuse it. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "infer/schema_impl.h"

static void plain_chars(hd_chars *c)
{
    *c = (hd_chars){.n = 0};
    hd_chars_add(c, 0x20, 0x21);
    hd_chars_add(c, 0x23, 0x5B);
    hd_chars_add(c, 0x5D, 0x10FFFF);
}

/* One of these bytes: ranges as "09af". */
static int32_t bytes(hd_schema *s, const char *ranges)
{
    hd_byteset set = {{0}};
    for (; *ranges; ranges += 2) hd_byteset_add(&set, (uint8_t)ranges[0], (uint8_t)ranges[1]);
    return hd_node_bytes(s->b, &set);
}

/* A text where `h` is any hexadecimal digit and [..] ranges of bytes. */
static void spelled(hd_schema *s, int32_t alt, const char *p)
{
    int32_t seq = hd_node_append(s->b, alt, hd_node_new(s->b, HD_NODE_SEQ, 0, 0));
    while (*p) {
        char ranges[32] = "09afAF";
        if (*p == '[') {
            size_t n = strcspn(p, "]") - 1;
            memcpy(ranges, p + 1, n);
            ranges[n] = 0;
            p += n + 1;
        } else if (*p != 'h') {
            ranges[0] = ranges[1] = *p;
            ranges[2] = 0;
        }
        hd_node_append(s->b, seq, bytes(s, ranges));
        p++;
    }
}

int32_t hd_schema_any_char(hd_schema *s)
{
    static const char *const escapes[] = {
        "\\[\"\"\\\\//bbffnnrrtt]",
        "\\u000[19afAF]",
        "\\u00[19afAF]h",
        "\\u0[19afAF]hh", // all but 0000 ...
        "\\u[19acefACEF]hhh",
        "\\u[ddDD][07]hh",                      // ... and surrogates,
        "\\u[ddDD][89abAB]hh\\u[ddDD][cfCF]hh", // which come in pairs
    };
    int32_t rule;
    hd_chars plain;
    if (hd_schema_rule(s, "char", &rule)) {
        int32_t alt = hd_node_new(s->b, HD_NODE_ALT, 0, 0);
        plain_chars(&plain);
        hd_node_append(s->b, alt, hd_node_chars(s->b, &plain, false));
        for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) spelled(s, alt, escapes[i]);
        hd_schema_body(s, rule, alt);
    }
    return hd_node_call(s->b, rule);
}

/* `chars` between quotes. */
static int32_t quoted(hd_schema *s, int32_t chars)
{
    int32_t seq = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
    hd_node_append(s->b, seq, hd_node_text(s->b, "\""));
    hd_node_append(s->b, seq, chars);
    hd_node_append(s->b, seq, hd_node_text(s->b, "\""));
    return seq;
}

static int32_t string_of(hd_schema *s, int32_t min, int32_t max)
{
    char name[64];
    int32_t rule;
    snprintf(name, sizeof name, "string %d %d", min, max);
    if (hd_schema_rule(s, name, &rule))
        hd_schema_body(s, rule, quoted(s, hd_node_repeat(s->b, hd_schema_any_char(s), min, max)));
    return hd_node_call(s->b, rule);
}

int32_t hd_schema_any_string(hd_schema *s) { return string_of(s, 0, -1); }

/* ---- Keys ---- */

enum { KEY_DEPTH = 48 };

typedef struct {
    const char *at, *name; // how far it is read
} key;

static int by_name(const void *pa, const void *pb)
{
    return strcmp(((const key *)pa)->name, ((const key *)pb)->name);
}

static int32_t first_char(const key *k)
{
    int32_t c;
    hd_utf8_next((const uint8_t *)k->at, strlen(k->at), &c);
    return c;
}

/* The ends of keys that agree with k[0..n) so far and in the end with none: either another character
 * comes next, or one of theirs and then another end.  Keys that agree for KEY_DEPTH characters are
 * left out altogether. */
static int32_t unlike(hd_schema *s, key *k, size_t n, int depth, int32_t rest)
{
    hd_chars *other = NULL;
    int32_t alt = hd_node_new(s->b, HD_NODE_ALT, 0, 0);
    s->b->st = s->b->st != HD_OK ? s->b->st : hd_alloc(&other, sizeof *other, s->b->err);
    if (s->b->st != HD_OK) return 0;
    size_t i = 0;
    while (i < n && !k[i].at[0]) i++; // the key that ends here; sorted, it is the first
    if (i == 0) hd_node_append(s->b, alt, hd_node_text(s->b, "\""));
    *other = (hd_chars){.n = 0};
    hd_chars_add(other, 0, 0x1F);
    hd_chars_add(other, '"', '"');
    hd_chars_add(other, '\\', '\\');
    while (i < n && s->b->st == HD_OK) {
        int32_t c = first_char(&k[i]);
        size_t end = i;
        while (end < n && first_char(&k[end]) == c) end++;
        hd_chars_add(other, c, c);
        char utf8[4];
        int len = hd_utf8_put(utf8, c);
        for (size_t m = i; m < end; m++) k[m].at += len;
        if (depth < KEY_DEPTH) {
            int32_t seq = hd_node_append(s->b, alt, hd_node_new(s->b, HD_NODE_SEQ, 0, 0));
            hd_node_append(s->b, seq, hd_node_literal(s->b, utf8, (size_t)len));
            hd_node_append(s->b, seq, unlike(s, k + i, end - i, depth + 1, rest));
        }
        i = end;
    }
    hd_chars_not(other);
    int32_t seq = hd_node_append(s->b, alt, hd_node_new(s->b, HD_NODE_SEQ, 0, 0));
    hd_node_append(s->b, seq, hd_node_chars(s->b, other, false));
    hd_node_append(s->b, seq, hd_node_call(s->b, rest));
    free(other);
    return alt;
}

/* A name with characters that must be escaped is unlike all keys made here. */
static bool is_plain(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n;) {
        int32_t c;
        i += (size_t)hd_utf8_next((const uint8_t *)name + i, n - i, &c);
        if (c < 0x20 || c == '"' || c == '\\') return false;
    }
    return true;
}

int32_t hd_schema_other_key(hd_schema *s, const char *const *name, size_t n)
{
    int32_t rest;
    hd_chars plain;
    key *k = NULL;
    size_t n_key = 0;
    if (hd_schema_rule(s, "rest of a key", &rest)) {
        int32_t seq = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
        plain_chars(&plain);
        hd_node_append(s->b, seq, hd_node_repeat(s->b, hd_node_chars(s->b, &plain, false), 0, -1));
        hd_node_append(s->b, seq, hd_node_text(s->b, "\""));
        hd_schema_body(s, rest, seq);
    }
    int32_t seq = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
    hd_node_append(s->b, seq, hd_node_text(s->b, "\""));
    if (n == 0) {
        hd_node_append(s->b, seq, hd_node_call(s->b, rest));
        return seq;
    }
    s->b->st = s->b->st != HD_OK ? s->b->st : hd_alloc_n(&k, n, sizeof *k, s->b->err);
    if (s->b->st != HD_OK) return 0;
    for (size_t i = 0; i < n; i++)
        if (is_plain(name[i])) k[n_key++] = (key){name[i], name[i]};
    qsort(k, n_key, sizeof *k, by_name);
    hd_node_append(s->b, seq, unlike(s, k, n_key, 0, rest));
    free(k);
    return seq;
}

/* ---- Formats and lengths ---- */

/* Narrower than the standards where these allow what few programs read: years from 1000, no leap seconds, no
 * comments or quotes in addresses. */
#define DATE                                                                                                 \
    "([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]" \
    "|1[0-9]|2[0-8]))|"                                                                                      \
    "([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)-02-29)"
#define TIME  "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define BYTE  "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"uuid", "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
    {"email", "^[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,16}){0,2}@(" LABEL "\\.){1,3}[A-Za-z]{2,12}$"},
    {"ipv4", "^(" BYTE "\\.){3}" BYTE "$"},
};

int32_t hd_schema_string(hd_schema *s, const json_t *j, const hd_where *w)
{
    const json_t *pattern = json_object_get(j, "pattern"), *format = json_object_get(j, "format");
    int32_t min = 0, max = -1;
    hd_schema_count(s, j, "minLength", &min, w);
    hd_schema_count(s, j, "maxLength", &max, w);
    if (min > HD_GRAMMAR_REPEAT)
        hd_schema_fail(s, w, HD_LIMIT, "\"minLength\" is above %d", HD_GRAMMAR_REPEAT);
    if (max > HD_GRAMMAR_REPEAT) max = HD_GRAMMAR_REPEAT;
    if (max >= 0 && max < min) return hd_node_never(s->b);
    if (pattern && format)
        hd_schema_fail(s, w, HD_UNSUPPORTED, "\"pattern\" beside \"format\" is not supported");
    if (pattern && !json_is_string(pattern)) hd_schema_fail(s, w, HD_FORMAT, "\"pattern\" must be a string");
    if (s->b->st != HD_OK) return 0;
    if (pattern)
        return hd_schema_pattern(s, json_string_value(pattern), json_string_length(pattern), min, max, w);
    if (!format) return string_of(s, min, max);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (json_is_string(format) && strcmp(json_string_value(format), formats[i].name) == 0)
            return hd_schema_pattern(s, formats[i].pattern, strlen(formats[i].pattern), min, max, w);
    hd_schema_fail(s, w, HD_UNSUPPORTED,
                   "\"format\": only date, time, date-time, uuid, email and ipv4 are supported");
    return 0;
}
