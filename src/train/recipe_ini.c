/* INI text for recipes, over inih, which splits lines into section, key and value.  What it does not do is
 * done here: line numbers, sections written twice, quotes. */
#include <ctype.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "train/recipe_parts.h"

enum { MAX_LINE = 4096, MAX_SECTIONS = 32 };

typedef struct {
    const char *path, *at; // what is left of the text
    int line;
    char section[MAX_SECTIONS][64];
    int n_sections;
    hd_ini_fn *fn;
    void *arg;
    hd_status st;
    hd_err *err;
} reader;

static void note_section(reader *r, const char *line, size_t n)
{
    const char *end = memchr(line, ']', n);
    int len = end ? (int)(end - line - 1) : 0;
    if (!end || len < 1 || len >= (int)sizeof r->section[0]) return; // inih refuses it, or its keys name it
    for (int i = 0; i < r->n_sections; i++)
        if ((int)strlen(r->section[i]) == len && memcmp(r->section[i], line + 1, (size_t)len) == 0)
            r->st = hd_fail(r->err, HD_USAGE, "%s:%d: [%.*s]: this section is there twice", r->path, r->line, len, line + 1);
    if (r->st == HD_OK && r->n_sections < MAX_SECTIONS) memcpy(r->section[r->n_sections++], line + 1, (size_t)len);
}

/* As fgets: the next line into s. */
static char *next_line(char *s, int size, void *stream)
{
    reader *r = stream;
    const char *end = strchr(r->at, '\n');
    size_t n = end ? (size_t)(end - r->at) : strlen(r->at);
    if (r->st != HD_OK || !*r->at) return NULL;
    r->line++;
    if (n + 3 > (size_t)size) {
        r->st = hd_fail(r->err, HD_USAGE, "%s:%d: a line of more than %d characters", r->path, r->line, size - 3);
        return NULL;
    }
    memcpy(s, r->at, n);
    s[n] = 0;
    r->at += n + (end != NULL);
    const char *first = s + strspn(s, " \t");
    if (*first == '[') note_section(r, first, strlen(first));
    return r->st == HD_OK ? s : NULL;
}

static int on_key(void *user, const char *section, const char *key, const char *value)
{
    reader *r = user;
    char where[300], text[MAX_LINE];
    if (r->st != HD_OK) return 0;
    snprintf(where, sizeof where, "%.280s:%d", r->path, r->line);
    snprintf(text, sizeof text, "%s", value ? value : "");
    r->st = hd_ini_unquote(text, where, r->err);
    if (r->st == HD_OK) r->st = r->fn(r->arg, section, key, text, where, r->err);
    return r->st == HD_OK;
}

hd_status hd_ini_read(const char *path, hd_ini_fn *fn, void *arg, hd_err *err)
{
    hd_buf text;
    reader r = {.path = path, .fn = fn, .arg = arg, .err = err};
    hd_buf_init(&text, 1 << 20);
    hd_status st = hd_file_read(&text, path, err);
    if (st != HD_OK) goto done;
    if (text.len && strlen(text.data) != text.len) {
        st = hd_fail(err, HD_USAGE, "%s: holds a zero byte: no text", path);
        goto done;
    }
    r.at = text.data ? text.data : "";
    /* The library's settings are variables of its own; nothing else in the program reads INI files. */
    ini_max_line = MAX_LINE;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false; // ours knows quotes
    ini_stop_on_first_error = true;
    int bad = ini_parse_stream(next_line, &r, on_key, &r);
    st = r.st;
    if (st == HD_OK && bad < 0) st = hd_fail(err, HD_NOMEM, "%s: no memory", path);
    if (st == HD_OK && bad > 0) st = hd_fail(err, HD_USAGE, "%s:%d: neither [section] nor key = value", path, bad);
done:
    hd_buf_free(&text);
    return st;
}

/* ---- Values ---- */

static char unescape(char c)
{
    switch (c) {
    case 'n': return '\n';
    case 't': return '\t';
    default: return c; // \" and \\ themselves
    }
}

hd_status hd_ini_unquote(char *value, const char *where, hd_err *err)
{
    char *from = value + strspn(value, " \t"), *to = value;
    if (*from == '"') {
        for (from++; *from && *from != '"'; from++) {
            if (*from == '\\' && from[1]) *to++ = unescape(*++from);
            else *to++ = *from;
        }
        bool closed = *from == '"';
        const char *rest = closed ? from + 1 + strspn(from + 1, " \t") : from;
        if (!closed || (*rest && *rest != ';' && *rest != '#'))
            return hd_fail(err, HD_USAGE, "%s: a quoted text that does not end, or goes on behind its quotes", where);
        *to = 0;
        return HD_OK;
    }
    char *end = from;
    while (*end && !((*end == ';' || *end == '#') && (end == from || isspace((unsigned char)end[-1])))) end++;
    while (end > from && isspace((unsigned char)end[-1])) end--;
    memmove(value, from, (size_t)(end - from));
    value[end - from] = 0;
    return HD_OK;
}

bool hd_ini_quote(char *out, size_t size, const char *value)
{
    size_t n = strlen(value), used = 0;
    bool plain = n > 0 && !isspace((unsigned char)value[0]) && !isspace((unsigned char)value[n - 1]);
    for (const char *p = value; *p; p++) plain = plain && (unsigned char)*p >= 0x20 && !strchr(";#\"\\", *p);
    if (plain || size < 3) return snprintf(out, size, "%s", value) < (int)size;
    out[used++] = '"';
    for (const char *p = value; *p; p++) {
        if (used + 4 > size) return false;
        bool special = *p == '"' || *p == '\\' || *p == '\n' || *p == '\t';
        if (special) out[used++] = '\\';
        out[used++] = *p == '\n' ? 'n' : *p == '\t' ? 't' : *p;
    }
    out[used++] = '"';
    out[used] = 0;
    return true;
}

/* ---- The environment ---- */

static bool is_name(char c, bool first) { return c == '_' || isalpha((unsigned char)c) || (!first && isdigit((unsigned char)c)); }

/* The variable at p (behind its dollar): its value, or the text that stands for it (*text, not yet expanded),
 * and where to go on. */
static hd_status variable(const char **value, const char **text, size_t *n, const char **end, const char *p, const char *where,
                          hd_err *err)
{
    char name[64];
    bool brace = *p == '{';
    const char *from = p + brace, *to = from;
    while (is_name(*to, to == from)) to++;
    size_t len = (size_t)(to - from);
    if (len == 0 || len >= sizeof name) return hd_fail(err, HD_USAGE, "%s: '$%.20s': no name of a variable: $$ is a dollar", where, p);
    memcpy(name, from, len);
    name[len] = 0;
    *end = to;
    *text = NULL;
    if (brace) {
        if (to[0] == ':' && to[1] == '-') *text = to + 2;
        const char *close = strchr(to, '}');
        if (!close || (!*text && close != to)) return hd_fail(err, HD_USAGE, "%s: '$%.20s': ${NAME} or ${NAME:-TEXT}", where, p);
        *end = close + 1;
        *n = *text ? (size_t)(close - *text) : 0;
    }
    const char *set = getenv(name);
    *value = set && *set ? set : NULL;
    if (!*value && !*text) return hd_fail(err, HD_USAGE, "%s: $%s: no such variable in the environment", where, name);
    return HD_OK;
}

typedef struct {
    char *out;
    size_t size, used;
    const char *where;
    hd_err *err;
} expansion;

static hd_status expand_add(expansion *x, const char *p, size_t n)
{
    if (n >= x->size - x->used) return hd_fail(x->err, HD_USAGE, "%s: a path of more than %zu characters", x->where, x->size - 1);
    memcpy(x->out + x->used, p, n);
    x->used += n;
    return HD_OK;
}

/* p[0..n): the text, or what stands for a variable; such a text holds no braces, so it goes one deep. */
static hd_status expand_part(expansion *x, const char *p, size_t n)
{
    hd_status st = HD_OK;
    for (const char *stop = p + n, *end; p < stop; p = end) {
        const char *value = NULL, *text = NULL;
        size_t len = 0;
        end = p + 1;
        if (*p != '$') HD_TRY(expand_add(x, p, 1));
        else if (end < stop && *end == '$') {
            end++;
            HD_TRY(expand_add(x, p, 1));
        } else {
            HD_TRY(variable(&value, &text, &len, &end, p + 1, x->where, x->err));
            if (value) HD_TRY(expand_add(x, value, strlen(value)));
            else HD_TRY(expand_part(x, text, len));
        }
    }
fail:
    return st;
}

hd_status hd_expand(char *out, size_t size, const char *text, const char *where, hd_err *err)
{
    expansion x = {out, size, 0, where, err};
    hd_status st = expand_part(&x, text, strlen(text));
    out[x.used] = 0;
    return st;
}
