/* Calls out of the text that a model writes, while it writes.
 *
 *   plain --opener, or "{" at a line's start--> maybe a call --valid, and a declared tool--> call
 *     ^                                              |                                        |
 *     +----------- not one: told as text ------------+            "inside" until its closer --+
 *
 * Models mix the habits of several trainings, so every known form is looked for, whatever the chat format:
 *
 *   <tool_call>{...}</tool_call>      Qwen, Hermes         ```json {...} ```    Qwen2.5-Coder
 *   <tools>{...}</tools>              Qwen2.5-Coder        {...} or [{...}]     Llama 3, and what a grammar forces
 *   <｜tool▁call▁begin｜>...          DeepSeek             <|python_tag|>{...}  Llama 3
 *
 * What keeps ordinary JSON out: its name must be that of a declared tool.  A candidate is held back until its
 * last bracket, then it is a call with arguments that are one valid JSON object, or it is told as the text it
 * was; only where a limit cut it off are half arguments passed on, and marked.  Each byte is scanned a
 * bounded number of times: a candidate that failed is told whole, never searched for another one within.
 *
 * Who wants arguments while they are written gets them from the moment when the name is known and they begin
 * with "{", byte by byte as far as they are JSON.  What was told cannot become text again: when they go wrong
 * the call ends there, marked as cut off, and so does all that is told. */
#include <string.h>

#include "model/json.h"
#include "serve/tools.h"

#define DS_CALLS     "<｜tool▁calls▁begin｜>"
#define DS_CALLS_END "<｜tool▁calls▁end｜>"
#define DS_CALL      "<｜tool▁call▁begin｜>"
#define DS_CALL_END  "<｜tool▁call▁end｜>"
#define DS_SEP       "<｜tool▁sep｜>"

enum { MAX_HELD = 1 << 20, MAX_BEFORE = 4096, BARE = 1 << 8 }; // MAX_BEFORE: of arguments that are to be told in parts

typedef enum { JSON_INSIDE, DEEPSEEK_INSIDE } content_kind;

static const struct {
    const char *open, *close; // close NULL: ends by itself
    bool at_line;             // only at a line's start
    content_kind kind;
} marks[] = {
    {"<tool_call>", "</tool_call>", false, JSON_INSIDE},
    {"<tools>", "</tools>", false, JSON_INSIDE},
    {"```json", "```", true, JSON_INSIDE},
    {"```", "```", true, JSON_INSIDE},
    {"<|python_tag|>", NULL, false, JSON_INSIDE},
    {DS_CALLS, DS_CALLS_END, false, DEEPSEEK_INSIDE},
    {DS_CALL, NULL, false, DEEPSEEK_INSIDE},
};
enum { N_MARKS = sizeof marks / sizeof marks[0], FIRST_DEEPSEEK = 5 };

typedef struct {
    const char *p;
    size_t n;
} span;

typedef enum { NO, MORE, YES } verdict; // MORE: the text so far does not tell

void hd_tool_parser_open(hd_tool_parser *p)
{
    hd_buf_init(&p->held, SIZE_MAX);
    p->at = 0;
    p->inside = -1;
    p->line_start = true;
    p->after_call = false;
    p->n_calls = 0;
    p->broken = false;
    memset(&p->live, 0, sizeof p->live);
    memset(&p->scan, 0, sizeof p->scan);
}

void hd_tool_parser_close(hd_tool_parser *p) { hd_buf_free(&p->held); }

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static span skip_blank(span s)
{
    while (s.n && is_blank(s.p[0])) s.p++, s.n--;
    return s;
}

static span trim(span s)
{
    s = skip_blank(s);
    while (s.n && is_blank(s.p[s.n - 1])) s.n--;
    return s;
}

/* Does s begin with this; MORE when it ends in the middle of it. */
static verdict begins(span s, const char *with)
{
    size_t n = strlen(with), k = s.n < n ? s.n : n;
    if (memcmp(s.p, with, k) != 0) return NO;
    return s.n >= n ? YES : MORE;
}

/* ---- JSON, as far as brackets and strings go ---- */

/* The string that begins at s.p[0] == '"': its length with quotes, 0: not ended. */
static size_t string_length(span s)
{
    for (size_t i = 1; i < s.n; i++) {
        if (s.p[i] == '\\') i++;
        else if (s.p[i] == '"') return i + 1;
    }
    return 0;
}

/* Length of the value at s.p[0], 0: not ended. */
static size_t value_length(span s)
{
    int depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '"') {
            size_t k = string_length((span){s.p + i, s.n - i});
            if (!k) return 0;
            i += k - 1;
            if (!depth) return i + 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (--depth < 0) return i;
            if (!depth) return i + 1;
        } else if (!depth && (c == ',' || is_blank(c))) {
            return i;
        }
    }
    return 0;
}

typedef struct {
    span name, args; // args.p NULL: none given
    bool whole;      // the object ended
} call_parts;

/* The members of the object at s that make a call; stops where the text does. */
static bool read_parts(span s, call_parts *c, int depth)
{
    if (!s.n || s.p[0] != '{') return false;
    s.p++, s.n--;
    for (;;) {
        s = skip_blank(s);
        if (s.n && s.p[0] == '}') {
            c->whole = true;
            return true;
        }
        size_t k = s.n && s.p[0] == '"' ? string_length(s) : 0;
        if (!k) return s.n == 0 || s.p[0] == '"'; // the text ends, maybe in the middle of a key
        span key = {s.p + 1, k - 2};
        s = skip_blank((span){s.p + k, s.n - k});
        if (!s.n || s.p[0] != ':') return s.n == 0;
        s = skip_blank((span){s.p + 1, s.n - 1});
        size_t v = value_length(s);
        span value = {s.p, v ? v : s.n};
#define IS(word) (key.n == sizeof word - 1 && memcmp(key.p, word, key.n) == 0)
        bool is_string = value.n >= 2 && value.p[0] == '"' && v;
        if (IS("function") && depth == 0 && value.n && value.p[0] == '{') {
            call_parts inner = {0};
            if (!read_parts(value, &inner, 1)) return false;
            if (inner.name.p) c->name = inner.name;
            if (inner.args.p) c->args = inner.args;
        } else if ((IS("name") || IS("function") || IS("tool")) && is_string) {
            c->name = (span){value.p + 1, value.n - 2};
        } else if (IS("arguments") || IS("parameters")) {
            c->args = value;
        }
#undef IS
        if (!v) return true;
        s = skip_blank((span){s.p + v, s.n - v});
        if (s.n && s.p[0] == ',') s.p++, s.n--;
        else if (s.n && s.p[0] != '}') return false;
    }
}

/* May the text at s ("{" or "[{") become a call?  Told by its first key, so that an answer in JSON is held
 * back no longer than that. */
static verdict looks_like_call(span s)
{
    static const char *const keys[] = {"\"name\"", "\"function\"",  "\"type\"",      "\"tool\"",
                                       "\"id\"",   "\"arguments\"", "\"parameters\""};
    if (s.n && s.p[0] == '[') s = skip_blank((span){s.p + 1, s.n - 1});
    if (!s.n) return MORE;
    if (s.p[0] != '{') return NO;
    s = skip_blank((span){s.p + 1, s.n - 1});
    verdict best = s.n ? NO : MORE;
    for (size_t i = 0; s.n && i < sizeof keys / sizeof keys[0]; i++) {
        verdict v = begins(s, keys[i]);
        if (v > best) best = v;
    }
    return best;
}

/* Goes on scanning the value at s; its length when it ends, else 0. */
static size_t scan_value(hd_tool_parser *p, span s)
{
    for (; p->scan.pos < s.n; p->scan.pos++) {
        char c = s.p[p->scan.pos];
        if (p->scan.escape) p->scan.escape = false;
        else if (p->scan.in_string) {
            p->scan.escape = c == '\\';
            if (c == '"') p->scan.in_string = false;
        } else if (c == '"') p->scan.in_string = true;
        else if (c == '{' || c == '[') p->scan.depth++;
        else if ((c == '}' || c == ']') && --p->scan.depth <= 0) return p->scan.pos + 1;
    }
    return 0;
}

/* ---- Telling ---- */

static bool is_object(span s)
{
    json_t *j = hd_json_load(s.p, s.n, 0, NULL);
    bool ok = json_is_object(j);
    json_decref(j);
    return ok;
}

/* Tell of a call when it is one: a declared tool, and an object as arguments (also one in a
 * string, an old habit). */
static bool tell_call(hd_tool_parser *p, span name, span args, bool whole)
{
    const hd_tool *t = name.p ? hd_tools_find(p->tools, name.p, name.n) : NULL;
    json_t *text = NULL;
    bool told = false;
    args = args.p ? trim(args) : whole ? (span){"{}", 2} : (span){"", 0};
    if (!t) return false;
    if (whole && args.n && args.p[0] == '"' && (text = hd_json_load(args.p, args.n, JSON_DECODE_ANY, NULL)))
        args = (span){json_string_value(text), json_string_length(text)};
    if (whole && (args.n == 0 || (args.n == 4 && memcmp(args.p, "null", 4) == 0))) args = (span){"{}", 2};
    if (!whole || is_object(args)) {
        told = true;
        if (p->n_calls == 0 || !p->tools->single) p->call(p->arg, t->name, args.p, args.n, whole);
        p->n_calls++;
    }
    json_decref(text);
    return told;
}

/* The text of one call, or of a list of them. */
static bool tell_json(hd_tool_parser *p, span s)
{
    call_parts c = {0};
    if (s.p[0] != '[') return is_object(s) && read_parts(s, &c, 0) && tell_call(p, c.name, c.args, true);
    json_t *list = hd_json_load(s.p, s.n, 0, NULL), *x;
    size_t i, n = json_array_size(list);
    bool all = n > 0;
    json_array_foreach(list, i, x)
    {
        const char *name = json_string_value(json_object_get(x, "name"));
        all = all && name && hd_tools_find(p->tools, name, strlen(name));
    }
    json_decref(list);
    for (s.p++, s.n--; all && n > 0; n--) {
        while (s.n && s.p[0] != '{') s.p++, s.n--;
        size_t k = value_length(s);
        c = (call_parts){0};
        if (!k || !read_parts((span){s.p, k}, &c, 0) || !tell_call(p, c.name, c.args, true))
            return p->n_calls > 0;
        s.p += k, s.n -= k;
    }
    return all;
}

static void drop(hd_tool_parser *p, size_t n)
{
    memmove(p->held.data, p->held.data + n, p->held.len - n + 1);
    p->held.len -= n;
    p->at = 0;
    memset(&p->scan, 0, sizeof p->scan);
    memset(&p->live, 0, sizeof p->live);
}

/* The first n bytes held are plain text. */
static void tell_text(hd_tool_parser *p, size_t n)
{
    if (n == 0) return;
    p->line_start = p->held.data[n - 1] == '\n';
    p->after_call = false;
    p->text(p->arg, p->held.data, n);
    drop(p, n);
}

/* ---- Calls in parts ---- */

static void end_live(hd_tool_parser *p, bool cut)
{
    bool whole = p->live.ended;
    p->broken |= !whole && !cut;
    p->call(p->arg, p->live.tool->name, p->held.data + p->live.from, p->live.n, whole);
    p->n_calls++;
}

/* Tell what has come of the arguments; `end` is where they must have ended. */
static void tell_live(hd_tool_parser *p, const char *end)
{
    const char *s = p->held.data + p->live.from + p->live.n;
    size_t used = 0;
    if (p->live.ended || s >= end) return;
    hd_walk_verdict v = hd_json_walk_feed(&p->live.walk, s, (size_t)(end - s), &used);
    if (used) p->part(p->arg, p->live.tool->name, s, used);
    p->live.n += used;
    p->live.ended = v == HD_WALK_ENDED;
    p->broken = v == HD_WALK_BAD;
}

/* The candidate's text so far has these parts: does a call begin that can be told of? */
static void begin_live(hd_tool_parser *p, const call_parts *c)
{
    const hd_tool *t = c->name.p && c->args.p ? hd_tools_find(p->tools, c->name.p, c->name.n) : NULL;
    if (!t || !c->args.n || c->args.p[0] != '{' || (p->tools->single && p->n_calls > 0)) return;
    p->live.tool = t;
    p->live.from = (size_t)(c->args.p - p->held.data);
    p->part(p->arg, t->name, "", 0);
}

static bool wants_live(const hd_tool_parser *p, span s) { return p->part && !p->live.tool && s.n <= MAX_BEFORE; }

static bool read_deepseek(span s, bool whole, call_parts *c);

/* The candidate at s goes on. */
static void go_live(hd_tool_parser *p, span s, bool deepseek)
{
    call_parts c = {0};
    if (wants_live(p, s) && (deepseek ? read_deepseek(s, false, &c) : read_parts(s, &c, 0))) begin_live(p, &c);
    if (p->live.tool) tell_live(p, s.p + s.n);
    if (p->broken) end_live(p, false);
}

/* ---- Candidates ---- */

/* "function SEP name\n```json\n{...}\n```" (V3, R1) or "name SEP {...}" (V3.1). */
static bool read_deepseek(span s, bool whole, call_parts *c)
{
    const char *sep = s.n ? memmem(s.p, s.n, DS_SEP, sizeof DS_SEP - 1) : NULL;
    if (!sep) return false;
    span rest = {sep + sizeof DS_SEP - 1, s.n - (size_t)(sep - s.p) - (sizeof DS_SEP - 1)};
    c->name = trim((span){s.p, (size_t)(sep - s.p)});
    rest = skip_blank(rest);
    if (rest.n && rest.p[0] != '{') {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t k = end ? (size_t)(end - rest.p) : rest.n;
        if (!whole && !end) return false;
        c->name = trim((span){rest.p, k});
        rest = skip_blank((span){rest.p + k, rest.n - k});
        if (begins(rest, "```json") == YES) rest.p += 7, rest.n -= 7;
        else if (begins(rest, "```") == YES) rest.p += 3, rest.n -= 3;
        rest = trim(rest);
        if (whole && rest.n >= 3 && memcmp(rest.p + rest.n - 3, "```", 3) == 0) rest.n -= 3;
    }
    c->args = rest;
    return true;
}

static bool tell_deepseek(hd_tool_parser *p, span s, bool whole)
{
    call_parts c = {0};
    return read_deepseek(s, whole, &c) && tell_call(p, c.name, c.args, whole);
}

/* From DS_CALL on.  *used: bytes of it, whether it was a call or not. */
static verdict try_deepseek(hd_tool_parser *p, span s, size_t *used)
{
    enum { OPEN = sizeof DS_CALL - 1, CLOSE = sizeof DS_CALL_END - 1 };
    size_t from = p->scan.pos > CLOSE ? p->scan.pos - CLOSE : 0;
    const char *end = s.n > from ? memmem(s.p + from, s.n - from, DS_CALL_END, CLOSE) : NULL;
    p->scan.pos = s.n;
    span inside = {s.p + OPEN, (end ? (size_t)(end - s.p) : s.n) - OPEN};
    if (!end) {
        go_live(p, inside, true);
        return MORE;
    }
    *used = (size_t)(end - s.p) + CLOSE;
    if (p->live.tool) {
        tell_live(p, end);
        end_live(p, false);
        return YES;
    }
    return tell_deepseek(p, (span){s.p + OPEN, (size_t)(end - s.p) - OPEN}, true) ? YES : NO;
}

static verdict try_json(hd_tool_parser *p, span s, size_t *used)
{
    verdict v = looks_like_call(s);
    *used = s.n ? 1 : 0;
    if (v != YES) return v;
    size_t n = scan_value(p, s);
    if (!n) {
        go_live(p, s, false);
        return MORE;
    }
    *used = n;
    if (p->live.tool) {
        tell_live(p, s.p + n);
        end_live(p, false);
        return YES;
    }
    return tell_json(p, (span){s.p, n}) ? YES : NO;
}

/* The candidate at s, which a mark or a bracket begins. */
static verdict try_candidate(hd_tool_parser *p, span s, int row, size_t *used)
{
    if (row == BARE) return try_json(p, s, used);
    size_t open = marks[row].kind == DEEPSEEK_INSIDE && !marks[row].close ? 0 : strlen(marks[row].open);
    span body = skip_blank((span){s.p + open, s.n - open});
    verdict v = MORE;
    *used = 0;
    if (body.n && marks[row].kind == DEEPSEEK_INSIDE) {
        v = begins(body, DS_CALL);
        if (v == YES) v = try_deepseek(p, body, used);
    } else if (body.n) {
        v = try_json(p, body, used);
    }
    *used += s.n - body.n;
    return v;
}

/* The first place at or after p->at where a call may begin; the row of its mark, BARE, or -1: nowhere.
 * *maybe: the end of the text may be the beginning of a mark. */
static int find_candidate(hd_tool_parser *p, size_t *where, bool *maybe)
{
    *maybe = false;
    for (size_t i = p->at; i < p->held.len; i++) {
        span s = {p->held.data + i, p->held.len - i};
        size_t k = i;
        if (!strchr("<`{[", s.p[0]) || !s.p[0]) continue;
        while (k > 0 && (p->held.data[k - 1] == ' ' || p->held.data[k - 1] == '\t')) k--;
        bool at_line = k == 0 ? p->line_start || p->after_call : p->held.data[k - 1] == '\n';
        *where = i;
        if (at_line && (s.p[0] == '{' || s.p[0] == '[')) return BARE;
        for (int m = 0; m < N_MARKS; m++) {
            verdict v = marks[m].at_line && !at_line ? NO : begins(s, marks[m].open);
            if (v == YES) return *maybe ? -1 : m; // "```" may go on as "```json"
            *maybe |= v == MORE;
        }
        if (*maybe) return -1;
    }
    *where = p->held.len;
    return -1;
}

/* Between a call and its closer: further calls, or the closer.  False: more text is needed. */
static bool step_inside(hd_tool_parser *p)
{
    span all = {p->held.data, p->held.len}, s = skip_blank(all);
    const char *close = marks[p->inside].close;
    bool deepseek = marks[p->inside].kind == DEEPSEEK_INSIDE;
    while (s.n && (s.p[0] == ';' || s.p[0] == ',')) s = skip_blank((span){s.p + 1, s.n - 1});
    if (!s.n) return false;
    size_t used = 0, before = all.n - s.n;
    verdict v = close ? begins(s, close) : NO;
    if (v == MORE) return false;
    if (v == YES) {
        drop(p, before + strlen(close));
        p->inside = -1;
        p->after_call = true;
        return true;
    }
    v = deepseek ? begins(s, DS_CALL) : s.p[0] == '{' ? YES : NO;
    if (v == YES) v = deepseek ? try_deepseek(p, s, &used) : try_json(p, s, &used);
    if (v == MORE) return false;
    if (v == YES) drop(p, before + used);
    else p->inside = -1;
    p->after_call = true;
    return true;
}

/* One step; false: more text is needed. */
static bool step(hd_tool_parser *p)
{
    if (p->inside >= 0) return step_inside(p);
    size_t where, used, plain;
    bool maybe;
    if (p->after_call) { // white space and separators behind a call are its own
        size_t k = 0;
        while (k < p->held.len && (is_blank(p->held.data[k]) || p->held.data[k] == ';')) k++;
        if (k) drop(p, k);
        if (!p->held.len) return false;
    }
    int row = find_candidate(p, &where, &maybe);
    for (plain = where; plain > 0 && is_blank(p->held.data[plain - 1]);) plain--; // may belong to a call
    tell_text(p, plain);
    where -= plain;
    p->at = where;
    if (row < 0) return false;
    span s = {p->held.data + where, p->held.len - where};
    verdict v = try_candidate(p, s, row, &used);
    if (v == MORE && s.n < MAX_HELD) return false;
    if (v == MORE && p->live.tool) {
        end_live(p, false);
        return false;
    }
    if (v == YES) {
        drop(p, where + used);
        p->after_call = true;
        if (row != BARE && marks[row].close) p->inside = row;
        return true;
    }
    tell_text(p, where + (v == MORE ? s.n : used ? used : 1));
    return true;
}

hd_status hd_tool_parser_add(hd_tool_parser *p, const char *s, size_t n, hd_err *err)
{
    hd_status st = p->broken ? HD_OK : hd_buf_add(&p->held, s, n, err);
    while (st == HD_OK && !p->broken && p->held.len && step(p)) continue;
    return st;
}

/* A call that a limit cut off, where as much as its name is there. */
static bool tell_cut(hd_tool_parser *p)
{
    size_t where, used, plain;
    bool maybe;
    call_parts c = {0};
    int row = p->inside >= 0 ? p->inside : find_candidate(p, &where, &maybe);
    if (row < 0) return false;
    if (p->inside >= 0) where = 0;
    span s = skip_blank((span){p->held.data + where, p->held.len - where});
    if (p->inside < 0 && row != BARE && (marks[row].kind == JSON_INSIDE || marks[row].close)) {
        size_t open = strlen(marks[row].open);
        s = skip_blank((span){s.p + open, s.n - open});
    }
    for (plain = where; plain > 0 && is_blank(p->held.data[plain - 1]);) plain--;
    used = sizeof DS_CALL - 1;
    if (plain) {
        const char *keep = s.p - plain;
        size_t n = s.n;
        tell_text(p, plain);
        s = (span){keep, n};
    }
    if (begins(s, DS_CALL) == YES) return tell_deepseek(p, (span){s.p + used, s.n - used}, false);
    return read_parts(s, &c, 0) && tell_call(p, c.name, c.args, false);
}

hd_status hd_tool_parser_end(hd_tool_parser *p, bool cut, hd_err *err)
{
    (void)err;
    if (!p->held.len || p->broken) return HD_OK;
    if (p->live.tool) {
        end_live(p, cut);
    } else if (!(cut && tell_cut(p))) {
        if ((p->inside >= 0 || p->after_call) && !trim((span){p->held.data, p->held.len}).n) return HD_OK;
        tell_text(p, p->held.len);
    }
    hd_buf_clear(&p->held);
    return HD_OK;
}
