/* Which format a model's template means, and the pen that the formats write with.  The formats are
 * chat_formats.c's.
 *
 * Templates are programs in a language of their own (Jinja); here each known one is a few lines of C, and a
 * template is only looked at to tell which of them it is:
 *
 *   1. its control tokens, <|...|> and <｜...｜>, are those of a row (all of `need`, no others than `also`)
 *   2. phrases tell the row from its relatives (all of `has`, none of `lacks`): this very format
 *   3. of rows that pass 1 alone the nearest is used with a warning; without any the template is unknown, an
 *      error */
#include "model/chat.h"

#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "model/chat_parts.h"
#include "model/gguf.h"
#include "model/tokenizer_impl.h"

enum { MAX_TEMPLATE = 1 << 20, MAX_CONTROL = 64 };

/* ---- Spans ---- */

hd_span hd_span_of(const char *s) { return (hd_span){s, strlen(s)}; }

static bool is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

hd_span hd_span_trim(hd_span s)
{
    int32_t c;
    for (int len; s.n && (len = hd_utf8_next((const uint8_t *)s.p, s.n, &c), is_space(c)); s.n -= (size_t)len)
        s.p += len;
    while (s.n) {
        size_t k = s.n - 1;
        while (k > 0 && s.n - k < 4 && ((uint8_t)s.p[k] & 0xc0) == 0x80) k--;
        if ((size_t)hd_utf8_next((const uint8_t *)s.p + k, s.n - k, &c) != s.n - k || !is_space(c)) break;
        s.n = k;
    }
    return s;
}

hd_span hd_span_strip(hd_span s, char c, bool left, bool right)
{
    for (; left && s.n && s.p[0] == c; s.n--) s.p++;
    while (right && s.n && s.p[s.n - 1] == c) s.n--;
    return s;
}

bool hd_span_cut(hd_span s, const char *mark, bool last, hd_span *before, hd_span *after)
{
    size_t n = strlen(mark);
    const char *at = s.n ? memmem(s.p, s.n, mark, n) : NULL;
    if (!at) return false;
    for (const char *next; last && (next = memmem(at + n, s.n - (size_t)(at + n - s.p), mark, n));) at = next;
    *before = (hd_span){s.p, (size_t)(at - s.p)};
    *after = (hd_span){at + n, s.n - before->n - n};
    return true;
}

bool hd_span_starts(hd_span s, const char *with)
{
    size_t n = strlen(with);
    return s.n >= n && memcmp(s.p, with, n) == 0;
}

bool hd_span_ends(hd_span s, const char *with)
{
    size_t n = strlen(with);
    return s.n >= n && memcmp(s.p + s.n - n, with, n) == 0;
}

/* ---- The pen ---- */

void hd_chat_span(hd_chat_pen *p, hd_span s)
{
    if (p->st == HD_OK && s.n) p->st = hd_buf_add(&p->text, s.p, s.n, p->err);
    if (p->mask && p->st == HD_OK && s.n) {
        p->st = hd_buf_add(&p->said, s.p, s.n, p->err);
        if (p->st == HD_OK) memset(p->said.data + p->said.len - s.n, p->says, s.n);
    }
}

void hd_chat_text(hd_chat_pen *p, const char *s) { hd_chat_span(p, hd_span_of(s)); }

/* Stretch `said` from the bytes of the text to those of its normal form, which is what the ids spell: a
 * border moves to where the normal form of all before it ends. */
static hd_status said_normal(hd_chat_pen *p, hd_buf *out)
{
    hd_status st;
    hd_buf tmp[2];
    hd_buf_init(&tmp[0], SIZE_MAX);
    hd_buf_init(&tmp[1], SIZE_MAX);
    for (size_t at = 0; at < p->said.len;) {
        char says = p->said.data[at];
        while (at < p->said.len && p->said.data[at] == says) at++;
        const char *s = p->text.data;
        size_t n = at;
        HD_TRY(hd_tokenizer_normalize(p->t, tmp, &s, &n, p->err));
        for (; out->len < n;) HD_TRY(hd_buf_add(out, &says, 1, p->err));
    }
    st = HD_OK;
fail:
    hd_buf_free(&tmp[0]);
    hd_buf_free(&tmp[1]);
    return st;
}

/* A byte for each id from `first` on, which spell the text: said when any of its bytes is.  A model that is
 * asked after "Assistant:" says " Yes" with its space, so an id that both share is the assistant's. */
static hd_status mark_ids(hd_chat_pen *p, int64_t first)
{
    hd_status st = HD_OK;
    hd_buf normal;
    hd_buf_init(&normal, SIZE_MAX);
    const hd_buf *said = &p->said;
    if (p->t->n_normal) {
        HD_TRY(said_normal(p, &normal));
        said = &normal;
    }
    size_t at = 0, len;
    for (int64_t i = first; i < p->out->n; i++, at += len) {
        hd_tokenizer_bytes(p->t, p->out->id[i], &len);
        if (len > said->len - at) len = said->len - at;
        char says = len && memchr(said->data + at, 1, len);
        HD_TRY(hd_buf_add(p->mask, &says, 1, p->err));
    }
fail:
    hd_buf_free(&normal);
    return st;
}

static void flush(hd_chat_pen *p)
{
    int64_t first = p->out->n;
    if (p->st == HD_OK && p->text.len)
        p->st = hd_tokenizer_encode(p->t, p->text.data, p->text.len, p->out, p->err);
    if (p->st == HD_OK && p->mask) p->st = mark_ids(p, first);
    hd_buf_clear(&p->text);
    hd_buf_clear(&p->said);
}

void hd_chat_border(hd_chat_pen *p) { flush(p); }

static void put_id(hd_chat_pen *p, int32_t id)
{
    flush(p);
    if (p->st == HD_OK) p->st = hd_ids_add(p->out, id, p->err);
    if (p->st == HD_OK && p->mask) p->st = hd_buf_add(p->mask, &(char){p->says}, 1, p->err);
}

void hd_chat_control(hd_chat_pen *p, const char *token)
{
    int32_t id = hd_tokenizer_find(p->t, token);
    if (id < 0) hd_chat_text(p, token);
    else put_id(p, id);
}

void hd_chat_bos(hd_chat_pen *p, const char *otherwise)
{
    int32_t id = hd_tokenizer_bos(p->t);
    if (id < 0) id = hd_tokenizer_find(p->t, otherwise);
    if (id >= 0) put_id(p, id);
}

void hd_chat_json_string(hd_chat_pen *p, hd_span s)
{
    static const char short_form[] = "\bb\tt\nn\ff\rr\"\"\\\\"; // pairs
    hd_chat_text(p, "\"");
    for (size_t i = 0; i < s.n && p->st == HD_OK; i++) {
        const char *pair = NULL;
        for (const char *k = short_form; *k && !pair; k += 2)
            if (*k == s.p[i]) pair = k;
        char escape[8];
        if (pair) snprintf(escape, sizeof escape, "\\%c", pair[1]);
        else snprintf(escape, sizeof escape, "\\u%04x", (unsigned)(uint8_t)s.p[i]);
        if (pair || (uint8_t)s.p[i] < 0x20) hd_chat_text(p, escape);
        else hd_chat_span(p, (hd_span){s.p + i, 1});
    }
    hd_chat_text(p, "\"");
}

/* ---- Telling the format ---- */

static const hd_chat_format *named(const char *name)
{
    for (const hd_chat_format *f = hd_chat_formats; f->name; f++)
        if (strcmp(f->name, name) == 0) return f;
    return NULL;
}

/* "a, b, c" of all names. */
static const char *list_names(char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (const hd_chat_format *f = hd_chat_formats; f->name && n < cap; f++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", f->name);
    return out;
}

static bool holds(hd_span text, const char *mark)
{
    return text.n && memmem(text.p, text.n, mark, strlen(mark));
}

static bool listed(const char *const *list, hd_span s)
{
    for (int i = 0; i < HD_CHAT_MARKS && list[i]; i++)
        if (strlen(list[i]) == s.n && memcmp(list[i], s.p, s.n) == 0) return true;
    return false;
}

/* The next control token at or after *pos: "<|" or "<｜" and what follows up to ">", if that is near.  One
 * that the template puts together, '<|' + role + '|>', comes out as something no row has; so does
 * <｜DSML｜tag>. */
static bool next_control(hd_span text, size_t *pos, hd_span *token)
{
    for (size_t i = *pos; i + 3 <= text.n; i++) {
        hd_span rest = {text.p + i, text.n - i};
        if (!hd_span_starts(rest, "<|") && !hd_span_starts(rest, "<｜")) continue;
        const char *end = memchr(rest.p, '>', rest.n < MAX_CONTROL ? rest.n : MAX_CONTROL);
        if (!end) continue;
        *token = (hd_span){rest.p, (size_t)(end - rest.p) + 1};
        *pos = i + token->n;
        return true;
    }
    return false;
}

static bool same_controls(const hd_chat_format *f, hd_span text)
{
    hd_span token;
    for (int i = 0; i < HD_CHAT_MARKS && f->need[i]; i++)
        if (!holds(text, f->need[i])) return false;
    for (size_t pos = 0; next_control(text, &pos, &token);)
        if (!listed(f->need, token) && !listed(f->also, token)) return false;
    return true;
}

/* Phrases that are not as the row wants them.  Thoughts that one side knows and the other does not count
 * more; most a system prompt that the template does not hold, for that would put words into
 * the conversation. */
static int n_strange(const hd_chat_format *f, hd_span text)
{
    int n = f->system && !holds(text, f->system) ? 2 * HD_CHAT_MARKS : 0;
    if (f->thinks != holds(text, "</think>")) n += 4;
    for (int i = 0; i < HD_CHAT_MARKS && f->has[i]; i++) n += !holds(text, f->has[i]);
    for (int i = 0; i < HD_CHAT_MARKS && f->lacks[i]; i++) n += holds(text, f->lacks[i]);
    for (int i = 0; f->alien[i]; i++) n += holds(text, f->alien[i]);
    return n;
}

const hd_chat_format *hd_chat_told(const char *text, size_t n, bool *sure)
{
    hd_span s = {text, n};
    const hd_chat_format *best = NULL;
    int least = 0;
    for (const hd_chat_format *f = hd_chat_formats; f->name; f++) {
        int strange = n_strange(f, s);
        bool words_only =
            !hd_looks_special(f->need[0], strlen(f->need[0])); // too little to go by, unless all fits
        if ((best && strange >= least) || (words_only && strange) || !same_controls(f, s)) continue;
        best = f;
        least = strange;
    }
    *sure = best && least == 0;
    return best;
}

/* ---- The template ---- */

/* A string, or a list of {"name", "template"} with one called "default". */
static const char *json_template(const json_t *o)
{
    const json_t *t = json_object_get(o, "chat_template"), *v, *pick = json_array_get(t, 0);
    size_t i;
    json_array_foreach(t, i, v)
    {
        const char *name = json_string_value(json_object_get(v, "name"));
        if (name && strcmp(name, "default") == 0) pick = v;
    }
    return json_string_value(pick ? json_object_get(pick, "template") : t);
}

/* Of a directory chat_template.jinja counts first, as in transformers. */
static hd_status read_template(hd_buf *out, const hd_source *s, hd_err *err)
{
    hd_status st;
    hd_gguf_str g;
    hd_buf path;
    hd_buf_init(&path, 1 << 16);
    if (hd_source_get_kind(s) == HD_SOURCE_GGUF) {
        if (!hd_gguf_string(hd_source_gguf(s), "tokenizer.chat_template", &g)) return HD_OK;
        return hd_buf_add(out, g.p, g.n, err);
    }
    HD_TRY(hd_buf_addf(&path, err, "%s/chat_template.jinja", hd_source_path(s)));
    if (hd_is_file(path.data)) HD_TRY(hd_file_read(out, path.data, err));
    else {
        const char *t = json_template(hd_source_json(s, "chat_template.json"));
        if (!t) t = json_template(hd_source_json(s, "tokenizer_config.json"));
        if (t) HD_TRY(hd_buf_adds(out, t, err));
    }
fail:
    hd_buf_free(&path);
    return st;
}

static hd_status told_by_source(const hd_chat_format **out, const hd_source *s, hd_err *err)
{
    hd_status st;
    char names[400];
    bool sure;
    hd_buf text;
    hd_buf_init(&text, MAX_TEMPLATE);
    HD_TRY(read_template(&text, s, err));
    if (text.len == 0) {
        st = hd_fail(err, HD_UNSUPPORTED,
                     "chat format: %.100s: the model brings no template; --chat-format takes %s",
                     hd_source_path(s), list_names(names, sizeof names));
        goto fail;
    }
    *out = hd_chat_told(text.data, text.len, &sure);
    if (!*out)
        st = hd_fail(err, HD_UNSUPPORTED,
                     "chat format: %.100s: its template is none of %s; --chat-format takes one of these",
                     hd_source_path(s), list_names(names, sizeof names));
    else if (!sure)
        hd_warn(
            "chat format: the model's template is unknown; '%s', which has the same control tokens, is used",
            (*out)->name);
fail:
    hd_buf_free(&text);
    return st;
}

/* ---- Public ---- */

hd_status hd_chat_pick(const hd_chat_format **out, const hd_source *s, const hd_tokenizer *t,
                       const char *name, hd_err *err)
{
    hd_status st = HD_OK;
    char names[400];
    const hd_chat_format *f = name ? named(name) : NULL;
    if (name && !f)
        HD_TRY(hd_fail(err, HD_USAGE, "chat format: '%.40s': not known; known: %s", name,
                       list_names(names, sizeof names)));
    if (!name) HD_TRY(told_by_source(&f, s, err));
    for (int i = 0; i < HD_CHAT_MARKS && f->need[i]; i++)
        if (hd_looks_special(f->need[i], strlen(f->need[i])) && hd_tokenizer_find(t, f->need[i]) < 0)
            HD_TRY(hd_fail(err, HD_UNSUPPORTED, "chat format: %s: the model's vocabulary has no %s", f->name,
                           f->need[i]));
    if (hd_tokenizer_find(t, f->stop[0]) < 0)
        HD_TRY(hd_fail(err, HD_UNSUPPORTED, "chat format: %s: the model's vocabulary has no %s", f->name,
                       f->stop[0]));
    *out = f;
fail:
    return st;
}

const char *hd_chat_name(const hd_chat_format *f) { return f->name; }

const hd_chat_format *hd_chat_at(int i)
{
    for (int k = 0; k <= i; k++)
        if (!hd_chat_formats[k].name) return NULL;
    return i < 0 ? NULL : &hd_chat_formats[i];
}

const char *hd_chat_default_system(const char *name)
{
    const hd_chat_format *f = named(name);
    return f ? f->system : NULL;
}

hd_status hd_chat_render(const hd_chat_format *f, const hd_tokenizer *t, const hd_msg *msg, int n_msg,
                         const hd_chat_opts *o, hd_ids *out, hd_err *err)
{
    return hd_chat_render_mask(f, t, msg, n_msg, o, out, NULL, err);
}

hd_status hd_chat_render_mask(const hd_chat_format *f, const hd_tokenizer *t, const hd_msg *msg, int n_msg,
                              const hd_chat_opts *o, hd_ids *out, hd_buf *mask, hd_err *err)
{
    int64_t n_before = out->n;
    size_t mask_before = mask ? mask->len : 0;
    hd_chat_pen p = {.t = t, .out = out, .mask = mask, .st = HD_OK, .err = err};
    hd_conversation c = {msg, n_msg, o, o->thinking < 0 ? f->think_default : o->thinking != 0};
    if (n_msg < 1) return hd_fail(err, HD_USAGE, "chat: no messages");
    hd_buf_init(&p.text, SIZE_MAX);
    hd_buf_init(&p.said, SIZE_MAX);
    f->write(&p, f, &c);
    flush(&p);
    hd_buf_free(&p.text);
    hd_buf_free(&p.said);
    if (p.st != HD_OK) out->n = n_before;
    if (p.st != HD_OK && mask) mask->len = mask_before;
    return p.st;
}

int hd_chat_stops(const hd_chat_format *f, const hd_tokenizer *t, int32_t out[8])
{
    int n = 0;
    for (int i = 0; f->stop[i] && n < 8; i++) {
        int32_t id = hd_tokenizer_find(t, f->stop[i]);
        if (id >= 0) out[n++] = id;
    }
    return n;
}

void hd_chat_think_ids(const hd_chat_format *f, const hd_tokenizer *t, int32_t *begin, int32_t *end,
                       bool *open)
{
    *begin = f->thinks ? hd_tokenizer_find(t, "<think>") : -1;
    *end = f->thinks ? hd_tokenizer_find(t, "</think>") : -1;
    if (*begin < 0 || *end < 0) *begin = *end = -1;
    const char *opening = f->think_default ? f->open_on : f->open_off;
    *open = *end >= 0 && opening && strstr(opening, "<think>") && !strstr(opening, "</think>");
}
