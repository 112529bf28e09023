/* Documents from files.  Three readers behind one call, chosen by the file's name:
 *
 *   *.jsonl *.ndjson   a document a line: the value of a field, or the whole line
 *   *.parquet          a document a row: a column's value (train/parquet.h)
 *   anything else      text, whole or divided
 *
 * and .zst behind the first and the last.  Text is passed on as it stands; who encodes it
 * repairs invalid UTF-8. */
#include "train/text.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/json.h"
#include "train/input.h"
#include "train/parquet.h"

enum { MAX_DOC = 64 << 20, MAX_VALUES = 1 << 20 };

typedef enum { WHOLE, DIVIDED, LINES, JSONL, PARQUET } form;

struct hd_text {
    form form;
    char *path, *field, *divider;
    bool whole_json;
    size_t max_doc;
    hd_parquet *parquet;
    hd_input *in;  // of every other form
    hd_buf line;   // with its end, when it has one
    char carry[4]; // of a line that was cut, the first bytes of a character
    size_t n_carry;
    bool held; // `line` was read and belongs to the next document
    int64_t n_lines;
};

/* The form that a name tells, .zst aside. */
static form form_of(const char *path)
{
    static const char *const json[] = {".jsonl", ".ndjson", ".jsonl.zst", ".ndjson.zst"};
    for (int i = 0; i < 4; i++)
        if (hd_ends_in(path, json[i])) return JSONL;
    return hd_ends_in(path, ".parquet") ? PARQUET : WHOLE;
}

void hd_text_close(hd_text *t)
{
    if (!t) return;
    hd_parquet_close(t->parquet);
    hd_input_close(t->in);
    hd_buf_free(&t->line);
    free(t->path);
    free(t->field);
    free(t->divider);
    free(t);
}

/* A byte order mark is no text. */
static hd_status skip_mark(hd_text *t, hd_err *err)
{
    const char *p;
    size_t n;
    hd_status st = hd_input_peek(t->in, &p, &n, err);
    if (st == HD_OK && n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) hd_input_skip(t->in, 3);
    return st;
}

hd_status hd_text_open(hd_text **out, const char *path, const hd_text_opts *o, hd_err *err)
{
    static const hd_text_opts none;
    hd_status st;
    hd_text *t = NULL;
    if (!o) o = &none;
    HD_TRY(hd_alloc(&t, sizeof *t, err));
    t->max_doc = o->max_doc ? o->max_doc : MAX_DOC;
    if (t->max_doc < 16) t->max_doc = 16; // room for a character, always
    t->whole_json = o->whole_json;
    hd_buf_init(&t->line, t->max_doc + 8);
    HD_TRY(hd_strdup(&t->path, path, err));
    HD_TRY(hd_strdup(&t->field, o->field ? o->field : "text", err));
    t->form = form_of(path);
    if (t->form == WHOLE && o->divider) {
        bool lines = strcmp(o->divider, "\n") == 0 || strcmp(o->divider, "\\n") == 0; // the latter is what people can type
        t->form = lines ? LINES : DIVIDED;
        HD_TRY(hd_strdup(&t->divider, o->divider, err));
    }
    if (t->form == PARQUET) {
        HD_TRY(hd_parquet_open(&t->parquet, path, t->field, err));
    } else {
        HD_TRY(hd_input_open(&t->in, path, err));
        HD_TRY(skip_mark(t, err));
    }
    *out = t;
    return HD_OK;
fail:
    hd_text_close(t);
    return st;
}

uint64_t hd_text_done(const hd_text *t) { return t->in ? hd_input_done(t->in) : hd_parquet_done(t->parquet); }

/* ---- Lines ---- */

/* The next line with its end into t->line.  *more false: there was none.  A line of more than max_doc bytes
 * comes in pieces of whole characters, the pieces before the last without an end (*cut). */
static hd_status read_line(hd_text *t, bool *more, bool *cut, hd_err *err)
{
    hd_status st;
    const char *p, *end = NULL;
    size_t n, from;
    *cut = false;
    hd_buf_clear(&t->line);
    HD_TRY(hd_buf_add(&t->line, t->carry, t->n_carry, err));
    t->n_carry = 0;
    while (!end) {
        HD_TRY(hd_input_peek(t->in, &p, &n, err));
        if (!n) break;
        end = memchr(p, '\n', n);
        if (end) n = (size_t)(end - p) + 1;
        if (n > t->max_doc - t->line.len) n = t->max_doc - t->line.len, end = NULL, *cut = true;
        HD_TRY(hd_buf_add(&t->line, p, n, err));
        hd_input_skip(t->in, n);
        if (*cut) break;
    }
    *more = t->line.len > 0;
    if (!*cut) {
        t->n_lines += *more;
        return HD_OK;
    }
    from = hd_utf8_whole(t->line.data, t->line.len);
    t->n_carry = t->line.len - from;
    memcpy(t->carry, t->line.data + from, t->n_carry);
    t->line.len = from;
fail:
    return st;
}

static size_t without_end(const hd_buf *b)
{
    size_t n = b->len;
    if (n && b->data[n - 1] == '\n') n--;
    if (n && b->data[n - 1] == '\r') n--;
    return n;
}

static bool blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", p[i]) || !p[i]) return false;
    return true;
}

/* ---- Text ---- */

static bool divides(const hd_text *t)
{
    size_t n = without_end(&t->line);
    return t->form == DIVIDED && n == strlen(t->divider) && memcmp(t->line.data, t->divider, n) == 0;
}

/* Line breaks beside a divider belong to it. */
static void trim(hd_buf *b)
{
    size_t from = 0;
    while (b->len && strchr("\r\n", b->data[b->len - 1]) && b->data[b->len - 1]) b->len--;
    while (from < b->len && strchr("\r\n", b->data[from]) && b->data[from]) from++;
    if (from) memmove(b->data, b->data + from, b->len - from);
    b->len -= from;
    if (b->data) b->data[b->len] = 0;
}

/* Up to a divider, the file's end, or max_doc bytes: whatever is longer goes in pieces, cut
 * at a line's end. */
static hd_status next_text(hd_text *t, hd_buf *doc, bool *more, hd_err *err)
{
    hd_status st = HD_OK;
    bool cut;
    for (;;) {
        *more = true;
        if (!t->held) HD_TRY(read_line(t, more, &cut, err));
        t->held = false;
        bool ends = !*more || divides(t);
        if (!ends && doc->len && t->line.len > t->max_doc - doc->len) ends = t->held = true;
        if (!ends) HD_TRY(hd_buf_add(doc, t->line.data, t->line.len, err));
        if (!ends && t->form != LINES) continue;
        if (t->form != WHOLE) trim(doc);
        if (doc->len && !blank(doc->data, doc->len)) {
            *more = true;
            return HD_OK;
        }
        hd_buf_clear(doc);
        if (!*more) return HD_OK;
    }
fail:
    return st;
}

/* ---- JSONL ---- */

/* A field's text.  Parsing is jansson's, which refuses what is no UTF-8. */
static hd_status add_field(hd_text *t, hd_buf *doc, size_t n, hd_err *err)
{
    hd_status st;
    json_t *j = NULL;
    char where[300];
    snprintf(where, sizeof where, "%.250s:%lld", t->path, (long long)t->n_lines);
    HD_TRY(hd_json_parse(&j, t->line.data, n, MAX_VALUES, "data", where, err));
    const json_t *v = json_object_get(j, t->field);
    if (!json_is_object(j)) HD_TRY(hd_fail(err, HD_FORMAT, "data: %s: no JSON object", where));
    if (!json_is_string(v))
        HD_TRY(hd_fail(err, HD_FORMAT, "data: %s: field '%.60s' is %s: --field names another", where,
                       t->field, v ? "no text" : "not there"));
    HD_TRY(hd_buf_add(doc, json_string_value(v), json_string_length(v), err));
fail:
    json_decref(j);
    return st;
}

static hd_status next_json(hd_text *t, hd_buf *doc, bool *more, hd_err *err)
{
    hd_status st = HD_OK;
    bool cut;
    for (;;) {
        HD_TRY(read_line(t, more, &cut, err));
        if (cut)
            HD_TRY(hd_fail(err, HD_LIMIT, "data: %.250s:%lld: a line of more than %zu bytes", t->path,
                           (long long)t->n_lines + 1, t->max_doc));
        if (!*more) return HD_OK;
        size_t n = without_end(&t->line);
        if (blank(t->line.data, n)) continue;
        if (t->whole_json) HD_TRY(hd_buf_add(doc, t->line.data, n, err));
        else HD_TRY(add_field(t, doc, n, err));
        if (doc->len && !blank(doc->data, doc->len)) return HD_OK;
        hd_buf_clear(doc);
    }
fail:
    return st;
}

/* ---- Parquet ---- */

static hd_status next_row(hd_text *t, hd_buf *doc, bool *more, hd_err *err)
{
    hd_status st = HD_OK;
    const char *p;
    size_t n;
    for (;;) {
        HD_TRY(hd_parquet_next(t->parquet, &p, &n, more, err));
        if (!*more || !blank(p, n)) break;
    }
    if (*more && n > t->max_doc)
        HD_TRY(hd_fail(err, HD_LIMIT, "data: %.250s: a row of %zu bytes: over the limit of %zu", t->path, n,
                       t->max_doc));
    if (*more) HD_TRY(hd_buf_add(doc, p, n, err));
fail:
    return st;
}

hd_status hd_text_next(hd_text *t, hd_buf *doc, bool *more, hd_err *err)
{
    hd_buf_clear(doc);
    return t->form == PARQUET ? next_row(t, doc, more, err)
           : t->form == JSONL ? next_json(t, doc, more, err)
                              : next_text(t, doc, more, err);
}
