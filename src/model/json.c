#include "model/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "model/names.h"

hd_json_extent hd_json_measure(const char *p, size_t n)
{
    hd_json_extent x = {0, 0};
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (p[i] == '\\') i++;
            else if (p[i] == '"') in_string = false;
        } else if (p[i] == '"') {
            in_string = true;
        } else if (p[i] == '[' || p[i] == '{') {
            x.values++;
            if (++depth > x.depth) x.depth = depth;
        } else if (p[i] == ']' || p[i] == '}') {
            depth--;
        } else {
            x.values += p[i] == ',';
        }
    }
    return x;
}

/* Jansson drops a piece of text, silently, when its buffer cannot grow, reading and writing.  So that
 * nothing arrives altered, refusals are noted, and a call that saw one has failed.  An application that
 * gave Jansson an allocator of its own keeps it; ours hands out malloc's memory, so that blocks of before
 * and after may meet. */
static _Thread_local bool refused, reading;

/* While it reads, one refusal is followed by others only: having dropped a quotation mark, Jansson would
 * copy a string up to some mark behind the end of its buffers.  Having dropped the last character of a
 * number it would stop the program, so what is refused first is given from a spare, if it is small, and the
 * text ends with the piece that it was handed over in.  A number for which the buffer may have to grow
 * starts a piece and ends it. */
enum { SPARE = 512, LONG_NUMBER = 15 };
static _Thread_local void *spare;

static void *noting_malloc(size_t n)
{
    void *p = reading && refused ? NULL : malloc(n);
    if (p) return p;
    if (reading && n <= SPARE) {
        p = spare;
        spare = NULL;
    }
    refused = true;
    return p;
}

typedef struct {
    const char *p;
    size_t n;
} rest_of_text;

static bool of_number(char c) { return (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '+' || c == 'e' || c == 'E'; }

static size_t next_piece(void *to, size_t most, void *arg)
{
    rest_of_text *rest = arg;
    size_t n = 0, run = 0; // of characters that make numbers
    if (refused) return 0;
    for (most = most < rest->n ? most : rest->n; n < most; n++) {
        if (of_number(rest->p[n])) run++;
        else if (run < LONG_NUMBER) run = 0;
        else break;
        if (run == LONG_NUMBER && n >= LONG_NUMBER) { // it starts the next one
            n -= LONG_NUMBER - 1;
            break;
        }
    }
    memcpy(to, rest->p, n);
    rest->p += n;
    rest->n -= n;
    return n;
}

static void be_noted(void)
{
    json_malloc_t take;
    json_free_t give;
    json_get_alloc_funcs(&take, &give);
    if (take == malloc) json_set_alloc_funcs(noting_malloc, give);
}

void hd_json_note(void)
{
    be_noted();
    refused = false;
}

json_t *hd_json_load(const char *p, size_t n, size_t flags, json_error_t *at)
{
    bool before = refused;
    rest_of_text text = {p, n};
    json_t *j = NULL;
    be_noted();
    spare = malloc(SPARE);
    refused = !spare;
    if (spare) {
        reading = true;
        j = json_load_callback(next_piece, &text, flags, at);
        reading = false;
        free(spare);
        spare = NULL;
    }
    if (refused) {
        json_decref(j);
        j = NULL;
    }
    refused |= before;
    return j;
}

bool hd_json_refused(void) { return refused; }

/* The text with "e0" behind each integer of 19 digits or more, so that it is read as a real number:
 * transformers writes 10^30 for a length that has no limit (model_max_length). */
static hd_status with_long_integers_real(hd_buf *out, const char *p, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    bool in_string = false;
    for (size_t i = 0, from; i < n && st == HD_OK; i++) {
        from = i;
        if (in_string && p[i] == '\\' && i + 1 < n) i++;
        else if (p[i] == '"') in_string = !in_string;
        else if (!in_string && isdigit((unsigned char)p[i]))
            while (i + 1 < n && isdigit((unsigned char)p[i + 1])) i++;
        st = hd_buf_add(out, p + from, i + 1 - from, err);
        bool whole = i + 1 >= n || !memchr(".eE", p[i + 1], 3);
        bool first = from == 0 || !memchr(".eE+", p[from - 1], 4); // no fraction, no exponent
        if (st == HD_OK && i - from >= 18 && whole && first) st = hd_buf_add(out, "e0", 2, err);
    }
    return st;
}

hd_status hd_json_parse(json_t **out, const void *text, size_t n, size_t max_values, const char *kind,
                        const char *where, hd_err *err)
{
    json_error_t at;
    char shown[160];
    if (!n) return hd_fail(err, HD_FORMAT, "%s: %s: nothing there, JSON expected", kind, where);
    if (hd_json_measure(text, n).values > max_values)
        return hd_fail(err, HD_LIMIT, "%s: %s: more than %zu JSON values", kind, where, max_values);
    hd_json_note();
    *out = hd_json_load(text, n, JSON_REJECT_DUPLICATES, &at);
    if (!*out && !refused && json_error_code(&at) == json_error_numeric_overflow) {
        hd_buf real;
        hd_buf_init(&real, n + n / 9 + 64);
        hd_status st = with_long_integers_real(&real, text, n, err);
        if (st == HD_OK) *out = hd_json_load(real.data, real.len, JSON_REJECT_DUPLICATES, &at);
        hd_buf_free(&real);
        if (st != HD_OK) return st;
    }
    if (*out) return HD_OK;
    if (refused) return hd_fail(err, HD_NOMEM, "%s: %s: JSON: no memory", kind, where);
    return hd_fail(err, HD_FORMAT, "%s: %s: JSON, line %d: %s", kind, where, at.line,
                   hd_name_show(shown, sizeof shown, at.text, strlen(at.text)));
}

hd_status hd_json_save(const char *path, const char *text, hd_err *err)
{
    hd_status st;
    hd_newfile f = {.fd = -1};
    HD_TRY(hd_newfile_begin(&f, path, err));
    HD_TRY(hd_newfile_write(&f, text, strlen(text), err));
    HD_TRY(hd_newfile_write(&f, "\n", 1, err));
    HD_TRY(hd_newfile_commit(&f, err));
fail:
    hd_newfile_abort(&f);
    return st;
}

hd_status hd_json_print_take(json_t *j, size_t flags, const char *what, hd_err *err)
{
    hd_status st = HD_OK;
    hd_json_note();
    char *text = j ? json_dumps(j, flags) : NULL;
    if (!text || refused) st = hd_fail(err, HD_NOMEM, "%s: JSON: no memory", what);
    else if (puts(text) < 0) st = hd_fail_errno(err, "write: standard output");
    free(text);
    json_decref(j);
    return st;
}
