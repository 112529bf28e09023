/* Fields of a request: types, ranges, and the parts that several dialects share.
 *
 * Plain numbers and flags are rows of tables: one row reads the field, checks its range and describes it in
 * /openapi.json.  A field that is null counts as absent, one that nobody knows is ignored, one of a wrong
 * type or out of its range is a 422 with its name. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/utf8.h"
#include "model/json.h"
#include "serve/api.h"

/* ---- Errors ---- */

hd_status hd_refuse(hd_api_error *e, int http, const char *code, const char *param, const char *fmt, ...)
{
    va_list args;
    char raw[sizeof e->message / 3]; // a byte that is no UTF-8 becomes three
    hd_buf good;
    hd_buf_init(&good, sizeof e->message);
    e->http = http;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_start(args, fmt);
    vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    if (hd_utf8_repair(&good, raw, strlen(raw), NULL) != HD_OK) hd_buf_clear(&good);
    snprintf(e->message, sizeof e->message, "%s", good.data ? good.data : "");
    hd_buf_free(&good);
    return HD_USAGE;
}

hd_status hd_refuse_nomem(hd_api_error *e)
{
    return hd_refuse(e, 503, "out_of_memory", NULL, "the server is short of memory; try again later");
}

hd_status hd_refuse_for(hd_api_error *e, const hd_err *err, const char *param)
{
    bool named = param && strncmp(err->msg, param, strlen(param)) == 0; // by the message itself
    switch (err->code) {
    case HD_NOMEM: return hd_refuse_nomem(e);
    case HD_USAGE:
    case HD_FORMAT:
    case HD_LIMIT:
    case HD_UNSUPPORTED:
        return hd_refuse(e, 422, "invalid_value", param, "%s%s%s", param && !named ? param : "",
                         param && !named ? ": " : "", err->msg);
    default: return hd_refuse(e, 500, "internal_error", NULL, "%s", err->msg);
    }
}

/* ---- Memory of a request ---- */

struct hd_keep {
    hd_keep *next;
    max_align_t data[];
};

void *hd_keep_alloc(hd_keep **k, size_t n)
{
    size_t all;
    hd_keep *one = hd_add(&all, n, sizeof *one) ? calloc(1, all) : NULL;
    if (!one) return NULL;
    one->next = *k;
    *k = one;
    return one->data;
}

const char *hd_keep_text(hd_keep **k, const char *s, size_t n)
{
    char *copy = hd_keep_alloc(k, n + 1);
    if (copy && n) memcpy(copy, s, n);
    return copy;
}

void hd_keep_free(hd_keep *k)
{
    for (hd_keep *next; k; k = next) {
        next = k->next;
        free(k);
    }
}

/* ---- JSON ---- */

hd_status hd_api_json(json_t **out, const char *body, size_t n, hd_api_error *e)
{
    hd_err err = {0};
    *out = NULL;
    if (hd_json_measure(body, n).depth > HD_API_MAX_DEPTH)
        return hd_refuse(e, 400, "invalid_json", NULL, "the body's JSON is nested deeper than %d levels",
                         HD_API_MAX_DEPTH);
    hd_status st = hd_json_parse(out, body, n, HD_API_MAX_VALUES, "request", "body", &err);
    if (st == HD_NOMEM) return hd_refuse_nomem(e);
    if (st != HD_OK) return hd_refuse(e, 400, "invalid_json", NULL, "%s", err.msg);
    if (json_is_object(*out)) return HD_OK;
    json_decref(*out);
    *out = NULL;
    return hd_refuse(e, 400, "invalid_json", NULL, "the body is no JSON object");
}

/* ---- Plain fields ---- */

#define AT(member) offsetof(hd_chat_request, member)

/* Rows that several dialects have, some under names of their own.  Ranges are the widest of the services that
 * clients were written for, and never wider than the sampler's own. */
#define MAX_TOKENS(name) {name, HD_FIELD_INT64, 1, 1e15, AT(max_tok), "of the answer, its thinking included"}
#define STREAM           {"stream", HD_FIELD_BOOL, 0, 1, AT(stream), "answer in server-sent events"}
#define TEMPERATURE      {"temperature", HD_FIELD_FLOAT, 0, 2, AT(sample.temperature), "0: always the likeliest token"}
#define TOP_P            {"top_p", HD_FIELD_FLOAT, 0, 1, AT(sample.top_p), "keep the likeliest tokens that reach this probability together"}
#define TOP_K            {"top_k", HD_FIELD_INT, 0, 1 << 30, AT(sample.top_k), "keep so many of the likeliest tokens; 0: all"}
#define MIN_P            {"min_p", HD_FIELD_FLOAT, 0, 1, AT(sample.min_p), "drop what is less likely than this times the likeliest"}
#define REPETITION(name) {name, HD_FIELD_FLOAT, 0.01, 10, AT(sample.repetition_penalty), "1: none"}
#define PRESENCE         {"presence_penalty", HD_FIELD_FLOAT, -2, 2, AT(sample.presence_penalty), "once for each token that was generated before"}
#define FREQUENCY        {"frequency_penalty", HD_FIELD_FLOAT, -2, 2, AT(sample.frequency_penalty), "as often as the token was generated before"}

const hd_field hd_fields_openai[] = {
    TEMPERATURE, TOP_P, TOP_K, MIN_P, REPETITION("repetition_penalty"), PRESENCE, FREQUENCY,
    {"n", HD_FIELD_INT, 1, HD_API_MAX_CHOICES, AT(n), "answers"},
    MAX_TOKENS("max_tokens"),
    {"max_completion_tokens", HD_FIELD_INT64, 1, 1e15, AT(max_tok), "the same"},
    STREAM, {0},
};
const hd_field hd_fields_responses[] = {MAX_TOKENS("max_output_tokens"), TEMPERATURE, TOP_P, STREAM, {0}};
const hd_field hd_fields_anthropic[] = {MAX_TOKENS("max_tokens"), TEMPERATURE, TOP_P, TOP_K, STREAM, {0}};
const hd_field hd_fields_ollama[] = { // of "options"
    TEMPERATURE, TOP_P, TOP_K, MIN_P, REPETITION("repeat_penalty"), PRESENCE, FREQUENCY,
    {"num_predict", HD_FIELD_INT64, -2, 1e15, AT(max_tok), "tokens of the answer; below 1: no limit"},
    {0},
};

static hd_status out_of_range(const hd_field *f, const char *name, hd_api_error *e)
{
    return hd_refuse(e, 422, "invalid_value", name, "%s: must be from %g to %g", name, f->min, f->max);
}

static hd_status read_field(void *into, const hd_field *f, const json_t *v, const char *name, hd_api_error *e)
{
    char *at = (char *)into + f->at;
    if (f->kind == HD_FIELD_BOOL) {
        if (!json_is_boolean(v))
            return hd_refuse(e, 422, "invalid_type", name, "%s: must be true or false", name);
        *(bool *)at = json_is_true(v);
        return HD_OK;
    }
    if (!json_is_number(v)) return hd_refuse(e, 422, "invalid_type", name, "%s: must be a number", name);
    double x = json_number_value(v);
    if (!(x >= f->min && x <= f->max)) return out_of_range(f, name, e);
    if (f->kind == HD_FIELD_FLOAT) {
        *(float *)at = (float)x;
        return HD_OK;
    }
    if (x != floor(x)) return hd_refuse(e, 422, "invalid_type", name, "%s: must be a whole number", name);
    if (f->kind == HD_FIELD_INT) *(int *)at = (int)x;
    else *(int64_t *)at = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)x;
    return HD_OK;
}

hd_status hd_fields_read(void *into, const hd_field *row, const json_t *o, const char *prefix,
                         hd_api_error *e)
{
    char name[96];
    for (; row->name; row++) {
        const json_t *v = json_object_get(o, row->name);
        if (!v || json_is_null(v)) continue;
        snprintf(name, sizeof name, "%s%s", prefix, row->name);
        hd_status st = read_field(into, row, v, name, e);
        if (st != HD_OK) return st;
    }
    return HD_OK;
}

hd_status hd_field_string(const char **out, const json_t *o, const char *name, hd_api_error *e)
{
    const json_t *v = json_object_get(o, name);
    if (!v || json_is_null(v)) return HD_OK;
    if (!json_is_string(v)) return hd_refuse(e, 422, "invalid_type", name, "%s: must be a string", name);
    *out = json_string_value(v);
    return HD_OK;
}

hd_status hd_field_bool(bool *out, const json_t *o, const char *name, hd_api_error *e)
{
    const json_t *v = json_object_get(o, name);
    if (!v || json_is_null(v)) return HD_OK;
    if (!json_is_boolean(v))
        return hd_refuse(e, 422, "invalid_type", name, "%s: must be true or false", name);
    *out = json_is_true(v);
    return HD_OK;
}

/* ---- Shared parts ---- */

hd_status hd_field_stop(hd_chat_request *q, const json_t *o, const char *name, hd_api_error *e)
{
    const json_t *v = json_object_get(o, name), *one;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (!v || json_is_null(v)) return HD_OK;
    if (n > (size_t)(HD_API_MAX_STOPS - q->n_stop))
        return hd_refuse(e, 422, "invalid_value", name, "%s: %zu strings, at most %d", name, n,
                         HD_API_MAX_STOPS);
    for (size_t i = 0; i < n; i++) {
        one = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(one)) return hd_refuse(e, 422, "invalid_type", name, "%s: must be strings", name);
        if (json_string_length(one) == 0)
            return hd_refuse(e, 422, "invalid_value", name, "%s: an empty string", name);
        if (json_string_length(one) > 1000)
            return hd_refuse(e, 422, "invalid_value", name, "%s: a string longer than 1000 bytes", name);
        q->stop[q->n_stop++] = json_string_value(one);
    }
    return HD_OK;
}

hd_status hd_field_bias(hd_chat_request *q, const json_t *o, hd_api_error *e)
{
    const char *key, *name = "logit_bias";
    const json_t *all = json_object_get(o, name);
    json_t *v;
    size_t n = json_object_size(all);
    if (!all || json_is_null(all)) return HD_OK;
    if (!json_is_object(all))
        return hd_refuse(e, 422, "invalid_type", name, "%s: must be an object of token ids", name);
    if (n > HD_API_MAX_BIAS)
        return hd_refuse(e, 422, "invalid_value", name, "%s: %zu entries, at most %d", name, n,
                         HD_API_MAX_BIAS);
    q->bias = hd_keep_alloc(&q->keep, (n + 1) * sizeof *q->bias);
    if (!q->bias) return hd_refuse_nomem(e);
    q->sample.bias = q->bias;
    q->sample.n_bias = 0;
    json_object_foreach((json_t *)all, key, v)
    {
        char *end = NULL;
        long id = *key >= '0' && *key <= '9' ? strtol(key, &end, 10) : -1;
        double x = json_number_value(v);
        if (id < 0 || id > INT32_MAX || *end)
            return hd_refuse(e, 422, "invalid_value", name, "%s: '%.20s' is no token id", name, key);
        if (!json_is_number(v) || !(x >= -100 && x <= 100))
            return hd_refuse(e, 422, "invalid_value", name,
                             "%s: token %ld: must be a number from -100 to 100", name, id);
        q->bias[q->sample.n_bias++] = (hd_bias){(int32_t)id, x <= -100 ? -INFINITY : (float)x};
    }
    return HD_OK;
}

hd_status hd_field_effort(hd_chat_request *q, const json_t *v, const char *name, hd_api_error *e)
{
    static const struct {
        const char *name;
        int thinking;
        bool limit;
        int64_t tok;
    } level[] = {
        {"none", 0, true, 0},  {"minimal", 0, true, 0}, {"low", 1, true, 1024}, {"medium", 1, true, 4096},
        {"high", 1, false, 0}, {"xhigh", 1, false, 0},  {"max", 1, false, 0},
    };
    const char *s = json_string_value(v);
    if (!v || json_is_null(v)) return HD_OK;
    if (!s) return hd_refuse(e, 422, "invalid_type", name, "%s: must be a string", name);
    for (size_t i = 0; i < sizeof level / sizeof level[0]; i++) {
        if (strcmp(s, level[i].name) != 0) continue;
        q->thinking = level[i].thinking;
        q->limit_thinking = level[i].limit;
        q->think_tok = level[i].tok;
        return HD_OK;
    }
    return hd_refuse(e, 422, "invalid_value", name, "%s: must be none, minimal, low, medium or high", name);
}

/* The text of one part of a message, whatever its type is called. */
static hd_status part_text(const char **text, size_t *n, const json_t *part, const char *what,
                           hd_api_error *e)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *t = json_object_get(part, "text");
    if (json_is_string(part)) t = part;
    else if (!type || (strcmp(type, "text") != 0 && strcmp(type, "input_text") != 0 &&
                       strcmp(type, "output_text") != 0))
        return hd_refuse(e, 422, "unsupported_content", what,
                         "%s: a part of type '%.40s': only text can be read", what, type ? type : "(none)");
    if (!json_is_string(t))
        return hd_refuse(e, 422, "invalid_type", what, "%s: a text part without its text", what);
    *text = json_string_value(t);
    *n = json_string_length(t);
    return HD_OK;
}

hd_status hd_field_content(hd_chat_request *q, const char **out, const json_t *v, const char *what,
                           hd_api_error *e)
{
    hd_status st = HD_OK;
    const json_t *part;
    const char *text = "";
    size_t i, n = 0;
    hd_buf b;
    *out = "";
    if (!v || json_is_null(v)) return HD_OK;
    if (json_is_string(v)) {
        *out = json_string_value(v);
        return HD_OK;
    }
    if (!json_is_array(v))
        return hd_refuse(e, 422, "invalid_type", what, "%s: must be a string or a list of text parts", what);
    hd_buf_init(&b, HD_API_MAX_BODY);
    json_array_foreach((json_t *)v, i, part)
    {
        HD_TRY(part_text(&text, &n, part, what, e));
        if (hd_buf_add(&b, text, n, NULL) != HD_OK) HD_TRY(hd_refuse_nomem(e));
    }
    *out = hd_keep_text(&q->keep, b.data, b.len);
    if (!*out) st = hd_refuse_nomem(e);
fail:
    hd_buf_free(&b);
    return st;
}

hd_status hd_request_messages(hd_chat_request *q, size_t n, const char *name, hd_api_error *e)
{
    if (n > HD_API_MAX_MESSAGES)
        return hd_refuse(e, 422, "invalid_value", name, "%s: %zu of them, at most %d", name, n,
                         HD_API_MAX_MESSAGES);
    q->msg = hd_keep_alloc(&q->keep, (n + 1) * sizeof *q->msg);
    return q->msg ? HD_OK : hd_refuse_nomem(e);
}

/* ---- Tools ---- */

static hd_status read_tool(hd_tool *t, const json_t *o, const char *schema_key, const char *what,
                           hd_api_error *e)
{
    const json_t *schema = json_object_get(o, schema_key);
    t->name = json_string_value(json_object_get(o, "name"));
    if (!hd_tool_name_ok(t->name))
        return hd_refuse(e, 422, "invalid_value", what, "%s.name: 1 to %d letters, digits, '_', '-' and '.'",
                         what, HD_MAX_TOOL_NAME);
    hd_status st = hd_field_string(&t->description, o, "description", e);
    if (st == HD_OK) st = hd_field_bool(&t->strict, o, "strict", e);
    if (st == HD_OK && schema && !json_is_null(schema) && !json_is_object(schema))
        st = hd_refuse(e, 422, "invalid_type", what, "%s.%s: must be a JSON schema", what, schema_key);
    t->parameters = json_is_object(schema) ? schema : NULL;
    return st;
}

hd_status hd_field_tools(hd_chat_request *q, const json_t *v, bool flat, const char *schema_key,
                         hd_api_error *e)
{
    hd_status st = HD_OK;
    size_t n = json_array_size(v);
    char what[64];
    if (!v || json_is_null(v)) return HD_OK;
    if (!json_is_array(v)) return hd_refuse(e, 422, "invalid_type", "tools", "tools: must be a list");
    if (n > HD_MAX_TOOLS)
        return hd_refuse(e, 422, "invalid_value", "tools", "tools: %zu of them, at most %d", n, HD_MAX_TOOLS);
    q->tools.tool = hd_keep_alloc(&q->keep, (n + 1) * sizeof *q->tools.tool);
    if (!q->tools.tool) return hd_refuse_nomem(e);
    for (size_t i = 0; i < n && st == HD_OK; i++) {
        const json_t *o = json_array_get(v, i), *type = json_object_get(o, "type");
        const char *kind = json_string_value(type);
        snprintf(what, sizeof what, flat ? "tools[%zu]" : "tools[%zu].function", i);
        if (type && (!kind || (strcmp(kind, "function") != 0 && strcmp(kind, "custom") != 0)))
            return hd_refuse(e, 422, "unsupported_tool", what,
                             "%s: type '%.40s': only functions can be called", what,
                             kind ? kind : "(no string)");
        if (!flat) o = json_object_get(o, "function");
        if (!json_is_object(o)) return hd_refuse(e, 422, "invalid_type", what, "%s: must be an object", what);
        hd_tool *t = &q->tools.tool[q->tools.n];
        st = read_tool(t, o, schema_key, what, e);
        if (st == HD_OK && hd_tools_find(&q->tools, t->name, strlen(t->name)))
            st = hd_refuse(e, 422, "invalid_value", what, "%s.name: '%s' is declared twice", what, t->name);
        q->tools.n++;
    }
    return st;
}

/* ---- Formats of the answer ---- */

hd_status hd_field_format(hd_chat_request *q, const json_t *v, const char *name, hd_api_error *e)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *inner = json_object_get(v, "json_schema");
    if (!v || json_is_null(v)) return HD_OK;
    if (!json_is_object(v)) return hd_refuse(e, 422, "invalid_type", name, "%s: must be an object", name);
    if (!type) return hd_refuse(e, 422, "invalid_value", name, "%s.type: missing", name);
    if (strcmp(type, "text") == 0) return HD_OK;
    if (strcmp(type, "json_object") == 0) {
        q->format = HD_FORMAT_JSON;
        return HD_OK;
    }
    if (strcmp(type, "json_schema") != 0)
        return hd_refuse(e, 422, "invalid_value", name, "%s.type: must be text, json_object or json_schema",
                         name);
    q->schema = json_object_get(inner ? inner : v, "schema"); // Responses has it flat
    if (!json_is_object(q->schema))
        return hd_refuse(e, 422, "invalid_type", name, "%s: a JSON schema is missing in it", name);
    q->format = HD_FORMAT_SCHEMA;
    return HD_OK;
}

/* ---- Which tool ---- */

hd_status hd_field_tool_chosen(hd_chat_request *q, hd_tool_choice choice, const char *name, hd_api_error *e)
{
    q->tools.choice = choice;
    q->tools.named = choice == HD_TOOLS_NAMED ? name : NULL;
    if (choice == HD_TOOLS_REQUIRED && q->tools.n == 0)
        return hd_refuse(e, 422, "invalid_value", "tool_choice", "tool_choice: a call is required, and there are no tools");
    if (choice == HD_TOOLS_NAMED && !hd_tools_find(&q->tools, name ? name : "", name ? strlen(name) : 0))
        return hd_refuse(e, 422, "invalid_value", "tool_choice", "tool_choice: '%.64s' is not among the tools", name ? name : "");
    return HD_OK;
}

hd_status hd_field_tool_choice(hd_chat_request *q, const json_t *v, hd_api_error *e)
{
    static const struct {
        const char *name;
        hd_tool_choice choice;
    } known[] = {{"auto", HD_TOOLS_AUTO}, {"none", HD_TOOLS_NONE}, {"required", HD_TOOLS_REQUIRED}};
    const char *s = json_string_value(v);
    const json_t *f = json_object_get(v, "function"); // Responses: the name stands in v itself
    if (!v || json_is_null(v)) return HD_OK;
    for (int i = 0; s && i < 3; i++)
        if (strcmp(s, known[i].name) == 0) return hd_field_tool_chosen(q, known[i].choice, NULL, e);
    if (!json_is_object(v))
        return hd_refuse(e, 422, "invalid_value", "tool_choice", "tool_choice: must be auto, none, required or a function");
    return hd_field_tool_chosen(q, HD_TOOLS_NAMED, json_string_value(json_object_get(f ? f : v, "name")), e);
}
