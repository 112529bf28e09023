/* What a model writes: the first byte says how long the pieces are and whether a limit cut the text off.
 * Whatever it is, the same is told in one piece and in many; arguments of whole calls are one JSON object, of
 * a declared tool; without a call the text comes out as it went in.  Told in parts, arguments are what the
 * call says at its end. */
#include <string.h>

#include "serve/tools.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    hd_buf all, parts;
    int calls;
    bool live;
} told;

static void on_text(void *arg, const char *s, size_t n)
{
    told *t = arg;
    if (hd_buf_add(&t->all, s, n, NULL) != HD_OK) abort();
}

static void on_call(void *arg, const char *name, const char *args, size_t n, bool whole)
{
    told *t = arg;
    t->calls++;
    json_error_t why;
    json_t *j = json_loadb(args, n, JSON_ALLOW_NUL, &why);
    bool vast = !j && t->live && json_error_code(&why) == json_error_numeric_overflow; // JSON, but no number of C's
    if (whole && !json_is_object(j) && !vast) abort();
    json_decref(j);
    if (t->live && (t->parts.len != n || (n && memcmp(t->parts.data, args, n) != 0))) abort();
    t->live = false;
    hd_buf_clear(&t->parts);
    if (strcmp(name, "f") != 0 && strcmp(name, "get_weather") != 0) abort();
    if (hd_buf_addf(&t->all, NULL, "\x01%s:", name) != HD_OK || hd_buf_add(&t->all, args, n, NULL) != HD_OK)
        abort();
}

static void on_part(void *arg, const char *name, const char *s, size_t n)
{
    told *t = arg;
    if (t->live != (n > 0)) abort(); // the first is the name alone
    t->live = true;
    if (hd_buf_add(&t->parts, s, n, NULL) != HD_OK) abort();
}

static told parsed(const char *s, size_t n, size_t step, bool cut, bool parts)
{
    static hd_tool list[] = {{.name = "f"}, {.name = "get_weather"}};
    static const hd_tools tools = {.tool = list, .n = 2};
    told t = {.calls = 0};
    hd_tool_parser p = {.tools = &tools, .text = on_text, .call = on_call, .arg = &t};
    if (parts) p.part = on_part;
    hd_buf_init(&t.all, SIZE_MAX);
    hd_buf_init(&t.parts, SIZE_MAX);
    hd_tool_parser_open(&p);
    for (size_t i = 0; i < n; i += step)
        if (hd_tool_parser_add(&p, s + i, n - i < step ? n - i : step, NULL) != HD_OK) abort();
    if (hd_tool_parser_end(&p, cut, NULL) != HD_OK) abort();
    if (t.live || (!t.calls && p.broken)) abort();
    hd_tool_parser_close(&p);
    hd_buf_free(&t.parts);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const char *s = (const char *)data + 1;
    size_t n = size - 1, step = 1 + data[0] % 32;
    bool cut = data[0] & 128;
    told a = parsed(s, n, step, cut, false), b = parsed(s, n, n, cut, false), c = parsed(s, n, step, cut, true);
    if (a.calls != b.calls || a.all.len != b.all.len ||
        (a.all.len && memcmp(a.all.data, b.all.data, a.all.len) != 0))
        abort();
    if (!a.calls && (a.all.len != n || memcmp(a.all.data, s, n) != 0)) abort();
    hd_buf_free(&a.all);
    hd_buf_free(&b.all);
    hd_buf_free(&c.all);
    return 0;
}
