/* Definitions into the prompt, and the grammar of a call.  The other direction is tool_parser.c's.
 *
 * Models were trained on one way each of being told about tools:
 *
 *   Qwen 2.5, 3     "# Tools", signatures between <tools> tags, calls between <tool_call> tags
 *   Llama 3.1       before the user's first words; the call is JSON alone, its arguments are called
 *                   "parameters"
 *   DeepSeek V3.1   "## Tools", calls marked by control tokens, name and arguments alone
 *   DeepSeek V3, R1 the same tokens, with the kind of tool, and arguments in a fence; their templates
 *   have no slot for
 *                   definitions, so these are put into the system text as V3.1 has them
 *   others          a few words that any model can follow, calls between <tool_call> tags
 *
 * What the definitions hold comes from a client, so it is rendered as text like any message: nothing in it
 * can become a control token, and that includes the examples of calls. */
#include "serve/tools.h"

#include <string.h>

typedef enum { GENERIC, QWEN, LLAMA, DEEPSEEK_V3, DEEPSEEK_V31 } family;

static family family_of(const char *chat_name)
{
    static const struct {
        const char *begins;
        family is;
    } row[] = {
        {"qwen2.5", QWEN},
        {"qwen3", QWEN},
        {"llama3.1", LLAMA},
        {"llama3.2", LLAMA},
        {"deepseek-v3.1", DEEPSEEK_V31},
        {"deepseek-v2.5", DEEPSEEK_V3},
        {"deepseek-v3", DEEPSEEK_V3},
        {"deepseek-r1", DEEPSEEK_V3},
    };
    for (size_t i = 0; chat_name && i < sizeof row / sizeof row[0]; i++)
        if (strncmp(chat_name, row[i].begins, strlen(row[i].begins)) == 0) return row[i].is;
    return GENERIC;
}

bool hd_tool_name_ok(const char *name)
{
    size_t n = name ? strlen(name) : 0;
    return n >= 1 && n <= HD_MAX_TOOL_NAME &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == n;
}

const hd_tool *hd_tools_find(const hd_tools *t, const char *name, size_t n)
{
    for (int i = 0; i < t->n; i++)
        if (strlen(t->tool[i].name) == n && memcmp(t->tool[i].name, name, n) == 0) return &t->tool[i];
    return NULL;
}

bool hd_tools_in_user(const char *chat_name) { return family_of(chat_name) == LLAMA; }

const char *const *hd_tools_marks(const char *chat_name)
{
    static const char *const deepseek[] = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
                                           "<｜tool▁sep｜>",         "<｜tool▁call▁end｜>",
                                           "<｜tool▁calls▁end｜>",   NULL};
    static const char *const none[] = {NULL};
    static const char *const tags[] = {"<tool_call>", "</tool_call>", NULL};
    switch (family_of(chat_name)) {
    case DEEPSEEK_V3:
    case DEEPSEEK_V31: return deepseek;
    case LLAMA: return none;
    default: return tags;
    }
}

/* ---- Definitions ---- */

static hd_status add_json(hd_buf *out, const json_t *j, size_t flags, hd_err *err)
{
    char *text = json_dumps(j, flags | JSON_ENCODE_ANY);
    hd_status st = text ? hd_buf_adds(out, text, err) : hd_fail(err, HD_NOMEM, "tools: no memory");
    free(text);
    return st;
}

/* {"type": "function", "function": {"name", "description", "parameters"}} as templates print it. */
static hd_status add_function(hd_buf *out, const hd_tool *t, size_t flags, hd_err *err)
{
    json_t *f = json_pack("{s:s}", "name", t->name);
    if (f && t->description) json_object_set_new(f, "description", json_string(t->description));
    if (f && t->parameters) json_object_set_new(f, "parameters", json_deep_copy(t->parameters));
    json_t *j = json_pack("{s:s, s:o}", "type", "function", "function", f);
    hd_status st = j ? add_json(out, j, flags, err) : hd_fail(err, HD_NOMEM, "tools: no memory");
    json_decref(j);
    return st;
}

static hd_status add_functions(hd_buf *out, const hd_tools *t, size_t flags, const char *after, hd_err *err)
{
    hd_status st = HD_OK;
    for (int i = 0; i < t->n; i++) {
        HD_TRY(add_function(out, &t->tool[i], flags, err));
        HD_TRY(hd_buf_adds(out, after, err));
    }
fail:
    return st;
}

static hd_status add_sections(hd_buf *out, const hd_tools *t, hd_err *err)
{
    hd_status st = HD_OK;
    HD_TRY(hd_buf_adds(out, "## Tools\nYou have access to the following tools:\n", err));
    for (int i = 0; i < t->n; i++) {
        const hd_tool *f = &t->tool[i];
        HD_TRY(hd_buf_addf(out, err, "\n### %s\nDescription: %s\n\nParameters: ", f->name,
                           f->description ? f->description : ""));
        if (f->parameters) HD_TRY(add_json(out, f->parameters, 0, err));
        else HD_TRY(hd_buf_adds(out, "{}", err));
        HD_TRY(hd_buf_adds(out, "\n", err));
    }
fail:
    return st;
}

hd_status hd_tools_text(hd_buf *out, const hd_tools *t, const char *chat_name, hd_err *err)
{
    hd_status st = HD_OK;
    switch (family_of(chat_name)) {
    case QWEN:
        HD_TRY(hd_buf_adds(
            out,
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
            "provided with function signatures within <tools></tools> XML tags:\n<tools>\n",
            err));
        HD_TRY(add_functions(out, t, 0, "\n", err));
        HD_TRY(hd_buf_adds(
            out,
            "</tools>\n\nFor each function call, return a json object with function name and arguments "
            "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
            "\"arguments\": <args-json-object>}\n</tool_call>",
            err));
        break;
    case LLAMA:
        HD_TRY(hd_buf_adds(
            out,
            "Given the following functions, please respond with a JSON for a function call with its "
            "proper arguments that best answers the given prompt.\n\nRespond in the format {\"name\": "
            "function name, \"parameters\": dictionary of argument name and its value}.Do not use "
            "variables.\n\n",
            err));
        HD_TRY(add_functions(out, t, JSON_INDENT(4), "\n\n", err));
        break;
    case DEEPSEEK_V3:
    case DEEPSEEK_V31: {
        bool v31 = family_of(chat_name) == DEEPSEEK_V31;
        HD_TRY(add_sections(out, t, err));
        HD_TRY(hd_buf_addf(
            out, err,
            "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n<｜tool▁calls▁begin｜>"
            "<｜tool▁call▁begin｜>%s<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>\n\n"
            "Where:\n- `tool_call_name` must be an exact match to one of the available tools\n"
            "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
            "Schema\n- For multiple tool calls, chain them directly without separators or spaces",
            v31 ? "tool_call_name<｜tool▁sep｜>tool_call_arguments"
                : "function<｜tool▁sep｜>tool_call_name\n```json\ntool_call_arguments\n```"));
        break;
    }
    case GENERIC:
        HD_TRY(hd_buf_adds(out, "You can call these functions, one JSON description a line:\n", err));
        HD_TRY(add_functions(out, t, 0, "\n", err));
        HD_TRY(hd_buf_adds(
            out,
            "To call one, write only this, with its name and arguments filled in:\n<tool_call>\n"
            "{\"name\": \"...\", \"arguments\": {...}}\n</tool_call>\nThe result is given to you in the "
            "next message.  Answer in words when no function is needed.",
            err));
        break;
    }
fail:
    return st;
}

/* ---- The grammar of a call ---- */

/* Parts of a schema that stand in $defs are lifted to the new root, under a name of their own:
 * "#/$defs/X" becomes "#/$defs/PREFIX.X".  depth: of the walk, which hostile input cannot exceed (the
 * parser of JSON has a cap). */
static int rename_refs(json_t *v, const char *prefix)
{
    const char *key;
    json_t *x;
    size_t i;
    int bad = 0;
    json_object_foreach(v, key, x)
    {
        const char *ref = strcmp(key, "$ref") == 0 ? json_string_value(x) : NULL;
        const char *name = !ref                                      ? NULL
                           : strncmp(ref, "#/$defs/", 8) == 0        ? ref + 8
                           : strncmp(ref, "#/definitions/", 14) == 0 ? ref + 14
                                                                     : NULL;
        if (name) bad |= json_object_set_new(v, key, json_sprintf("#/$defs/%s.%s", prefix, name));
        else bad |= rename_refs(x, prefix);
    }
    if (json_is_array(v)) json_array_foreach(v, i, x) bad |= rename_refs(x, prefix);
    return bad;
}

static json_t *lifted(const json_t *schema, const char *prefix, json_t *defs)
{
    static const char *const where[] = {"$defs", "definitions"};
    json_t *copy = json_deep_copy(schema), *x;
    const char *key;
    char name[300];
    if (!copy || rename_refs(copy, prefix)) goto fail;
    for (int k = 0; k < 2; k++) {
        json_object_foreach(json_object_get(copy, where[k]), key, x)
        {
            snprintf(name, sizeof name, "%s.%.200s", prefix, key);
            if (json_object_set(defs, name, x)) goto fail;
        }
        json_object_del(copy, where[k]);
    }
    return copy;
fail:
    json_decref(copy);
    return NULL;
}

static json_t *call_schema(const hd_tool *t, const char *args_key, bool any, const char *prefix, json_t *defs)
{
    bool free_form = !json_object_size(t->parameters) || (any && !t->strict);
    json_t *args = free_form ? json_pack("{s:s}", "type", "object") : lifted(t->parameters, prefix, defs);
    return json_pack("{s:s, s:{s:{s:s}, s:o}, s:[s,s], s:b}", "type", "object", "properties", "name", "const",
                     t->name, args_key, args, "required", "name", args_key, "additionalProperties", 0);
}

json_t *hd_tools_schema(const hd_tools *t, const char *chat_name, bool any_arguments,
                        const json_t *else_schema)
{
    const char *args_key = family_of(chat_name) == LLAMA ? "parameters" : "arguments";
    json_t *defs = json_object(), *any = json_array(), *root = NULL;
    char prefix[16];
    bool bad = !defs || !any;
    if (else_schema) bad |= json_array_append_new(any, lifted(else_schema, "answer", defs)) != 0;
    for (int i = 0; i < t->n && !bad; i++) {
        if (t->choice == HD_TOOLS_NAMED && strcmp(t->tool[i].name, t->named) != 0) continue;
        snprintf(prefix, sizeof prefix, "tool%d", i);
        bad |=
            json_array_append_new(any, call_schema(&t->tool[i], args_key, any_arguments, prefix, defs)) != 0;
    }
    if (!bad && json_array_size(any) == 1) root = json_incref(json_array_get(any, 0));
    else if (!bad) root = json_pack("{s:O}", "anyOf", any);
    if (root && json_object_size(defs) && json_object_set(root, "$defs", defs)) {
        json_decref(root);
        root = NULL;
    }
    json_decref(any);
    json_decref(defs);
    return root;
}
