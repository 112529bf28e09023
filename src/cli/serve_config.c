/* The options of `hadal serve` from a file, turned into words of a command line: whatever the command line
 * knows the file knows, with the same checks, and no second list of options is to be kept. */
#include "cli/serve_config.h"

#include <sodium.h>
#include <string.h>

#include "base/file.h"

enum { MAX_FILE = 1 << 20, MAX_WORDS = 1000, MIN_KEY = 16 };

hd_status hd_words_add(hd_words *w, const char *s, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    char *copy = NULL;
    if (w->n >= MAX_WORDS) HD_TRY(hd_fail(err, HD_LIMIT, "options: more than %d", MAX_WORDS));
    if (w->n + 1 >= w->cap) {
        int cap = w->cap ? 2 * w->cap : 32;
        HD_TRY(hd_realloc(&w->v, (size_t)cap * sizeof *w->v, err));
        w->cap = cap;
    }
    HD_TRY(hd_alloc(&copy, n + 1, err));
    memcpy(copy, s, n);
    w->v[w->n++] = copy;
    w->v[w->n] = NULL; // as argv ends
fail:
    return st;
}

void hd_words_free(hd_words *w)
{
    for (int i = 0; i < w->n; i++) free(w->v[i]);
    free(w->v);
    *w = (hd_words){0};
}

static hd_status add(hd_words *w, const char *s, hd_err *err) { return hd_words_add(w, s, strlen(s), err); }

/* Without the blanks at both ends; of a quoted text also without the quotes. */
static char *trim(char *s)
{
    char *end = s + strlen(s);
    while (*s == ' ' || *s == '\t') s++;
    while (end > s && strchr(" \t\r", end[-1])) *--end = 0;
    if (end - s >= 2 && (*s == '"' || *s == '\'') && end[-1] == *s) *--end = 0, s++;
    return s;
}

/* Run fn on each line of a file, its comment cut off. */
static hd_status each_line(const char *file, hd_status (*fn)(void *arg, char *line, int number, hd_err *err),
                           void *arg, hd_err *err)
{
    hd_status st;
    hd_buf b;
    int number = 0;
    hd_buf_init(&b, MAX_FILE);
    HD_TRY(hd_file_read(&b, file, err));
    if (b.data && strlen(b.data) != b.len) HD_TRY(hd_fail(err, HD_FORMAT, "%s: a NUL byte", file));
    for (char *line = b.data, *next; line && *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next) *next++ = 0;
        number++;
        line = trim(line);
        if (*line && *line != '#' && *line != ';') HD_TRY(fn(arg, line, number, err));
    }
fail:
    if (b.data) sodium_memzero(b.data, b.cap); // it may have held keys
    hd_buf_free(&b);
    return st;
}

/* ---- Options ---- */

typedef struct {
    const char *file;
    hd_words *out;
    char *model;
} reader;

static hd_status option_line(void *arg, char *line, int number, hd_err *err)
{
    hd_status st = HD_OK;
    reader *r = arg;
    hd_buf word;
    hd_buf_init(&word, MAX_FILE);
    char *eq = strchr(line, '=');
    if (line[0] == '[') return HD_OK;
    if (!eq) return hd_fail(err, HD_USAGE, "%s: line %d: not NAME = VALUE", r->file, number);
    *eq = 0;
    const char *name = trim(line), *value = trim(eq + 1);
    if (!*name || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(name) ||
        strcmp(name, "config") == 0)
        HD_TRY(hd_fail(err, HD_USAGE, "%s: line %d: '%.40s' is no option", r->file, number, name));
    if (strcmp(name, "model") == 0) {
        free(r->model);
        HD_TRY(hd_strdup(&r->model, value, err));
    } else if (strcmp(value, "yes") == 0) {
        HD_TRY(hd_buf_addf(&word, err, "--%s", name));
    } else if (strcmp(value, "no") != 0) {
        HD_TRY(hd_buf_addf(&word, err, "--%s=%s", name, value));
    }
    if (word.len) HD_TRY(add(r->out, word.data, err));
fail:
    hd_buf_free(&word);
    return st;
}

/* Words that are no options; those behind an option without "=" are taken for its value, which errs on the
 * side of the file's model. */
static bool has_operand(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool behind = i > 1 && argv[i - 1][0] == '-' && !strchr(argv[i - 1], '=');
        if (argv[i][0] != '-' && !behind) return true;
    }
    return false;
}

hd_status hd_config_words(hd_words *out, int argc, char **argv, hd_err *err)
{
    hd_status st;
    reader r = {.out = out};
    HD_TRY(add(out, argv[0], err));
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--config=", 9) == 0) r.file = argv[i] + 9;
        else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) r.file = argv[i + 1];
    }
    if (r.file) HD_TRY(each_line(r.file, option_line, &r, err));
    if (r.model && !has_operand(argc, argv)) HD_TRY(add(out, r.model, err));
    for (int i = 1; i < argc; i++) HD_TRY(add(out, argv[i], err));
fail:
    free(r.model);
    return st;
}

/* ---- Keys ---- */

static hd_status key_line(void *arg, char *line, int number, hd_err *err)
{
    uint8_t sum[32];
    char hex[65];
    if (strlen(line) < MIN_KEY)
        return hd_fail(err, HD_USAGE, "API key in line %d: shorter than %d characters, which can be guessed",
                       number, MIN_KEY);
    crypto_hash_sha256(sum, (const uint8_t *)line, strlen(line));
    sodium_bin2hex(hex, sizeof hex, sum, sizeof sum);
    return hd_words_add(arg, hex, 64, err);
}

hd_status hd_config_keys(hd_words *out, const char *file, hd_err *err)
{
    hd_status st = HD_OK;
    char *env = getenv("HADAL_API_KEY");
    if (file) {
        HD_TRY(each_line(file, key_line, out, err));
        if (out->n == 0) HD_TRY(hd_fail(err, HD_USAGE, "%s: no API key in it", file));
    }
    if (env && *env) HD_TRY(key_line(out, env, 0, err));
fail:
    return st;
}
