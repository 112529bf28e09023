/* /openapi.json: the API described for machines.
 *
 * Built when asked for, from three sources: the rows below (one a route: what it does, what it takes, what it
 * gives), the parts of a request that are more than a number or a flag (written out as JSON), and the tables
 * of plain fields that read the requests themselves (api_fields.c), so that names and ranges cannot differ
 * from the truth.  A test walks the route table and compares. */
#include <string.h>

#include "model/json.h"
#include "serve/openapi.h"

typedef struct {
    const char *name;
    const hd_field *fields; // NULL: none
    const char *required;   // one field, or NULL
    const char *properties; // JSON, of the other fields
} body_schema;

#define STOP                                                                                                 \
    "\"anyOf\": [{\"type\": \"string\", \"minLength\": 1, \"maxLength\": 1000}, {\"type\": \"array\", "      \
    "\"maxItems\": 16, \"items\": "                                                                          \
    "{\"type\": \"string\", \"minLength\": 1, \"maxLength\": 1000}}, {\"type\": \"null\"}]"
#define TEXT_PARTS                                                                                           \
    "\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"array\", \"items\": {\"type\": \"object\", "           \
    "\"required\": [\"type\", "                                                                              \
    "\"text\"], \"properties\": {\"type\": {\"enum\": [\"text\"]}, \"text\": {\"type\": \"string\"}}}}"
#define TOOLS                                                                                                \
    "{\"type\": [\"array\", \"null\"], \"maxItems\": 128, \"items\": {\"type\": \"object\", \"required\": "  \
    "[\"type\", "                                                                                            \
    "\"function\"], \"properties\": {\"type\": {\"enum\": [\"function\"]}, \"function\": {\"type\": "        \
    "\"object\", "                                                                                           \
    "\"required\": [\"name\"], \"properties\": {" FUNCTION ", \"parameters\": {\"type\": \"object\"}}}}}}"
#define FUNCTION                                                                                             \
    "\"name\": {\"type\": \"string\", \"pattern\": \"^[A-Za-z0-9_.-]{1,64}$\"}, \"description\": "           \
    "{\"type\": "                                                                                            \
    "\"string\"}, \"strict\": {\"type\": \"boolean\"}"
#define COMMON                                                                                               \
    "\"model\": {\"type\": [\"string\", \"null\"], \"description\": \"one of /v1/models\"}, \"stop\": "      \
    "{" STOP "}, "                                                                                           \
    "\"seed\": {\"type\": [\"integer\", \"null\"], \"minimum\": -9223372036854775808, \"maximum\": "         \
    "9223372036854775807}, "                                                                                 \
    "\"logit_bias\": {\"type\": [\"object\", \"null\"], \"maxProperties\": 1024, \"additionalProperties\": " \
    "{\"type\": \"number\", "                                                                                \
    "\"minimum\": -100, \"maximum\": 100}}, \"stream_options\": {\"type\": [\"object\", \"null\"], "         \
    "\"properties\": "                                                                                       \
    "{\"include_usage\": {\"type\": [\"boolean\", \"null\"]}}}, "                                            \
    "\"response_format\": {\"type\": [\"object\", \"null\"], \"required\": [\"type\"], \"properties\": "     \
    "{\"type\": {\"enum\": "                                                                                 \
    "[\"text\", \"json_object\", \"json_schema\"]}, \"json_schema\": {\"type\": \"object\", \"required\": "  \
    "[\"schema\"], "                                                                                         \
    "\"properties\": {\"schema\": {\"type\": \"object\"}}}}}, \"grammar\": {\"type\": [\"string\", "         \
    "\"null\"], \"description\": "                                                                           \
    "\"GBNF; the answer keeps to it\"}"
#define MESSAGES                                                                                             \
    "\"messages\": {\"type\": \"array\", \"minItems\": 1, \"maxItems\": 10000, \"items\": {\"type\": "       \
    "\"object\", \"required\": "                                                                             \
    "[\"role\"], \"properties\": {\"role\": {\"enum\": [\"system\", \"developer\", \"user\", "               \
    "\"assistant\", \"tool\", "                                                                              \
    "\"function\"]}, \"content\": {" TEXT_PARTS                                                              \
    ", {\"type\": \"null\"}]}, \"reasoning_content\": {\"type\": [\"string\", "                              \
    "\"null\"]}, \"prefix\": {\"type\": \"boolean\"}, \"tool_calls\": {\"type\": [\"array\", \"null\"], "    \
    "\"maxItems\": 128, "                                                                                    \
    "\"items\": {\"type\": \"object\", \"required\": [\"function\"], \"properties\": {\"function\": "        \
    "{\"type\": \"object\", "                                                                                \
    "\"required\": [\"name\", \"arguments\"], \"properties\": {\"name\": {\"type\": \"string\"}, "           \
    "\"arguments\": {\"type\": "                                                                             \
    "\"string\"}}}}}}, \"tool_call_id\": {\"type\": \"string\"}}}}"
#define EFFORT "{\"enum\": [\"none\", \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", \"max\", null]}"

static const body_schema bodies[] = {
    {"chat", hd_fields_openai, "messages",
     "{" COMMON ", " MESSAGES ", \"tools\": " TOOLS
     ", \"tool_choice\": {\"anyOf\": [{\"enum\": [\"auto\", \"none\", \"required\", null]}, "
     "{\"type\": \"object\", \"required\": [\"type\", \"function\"]}]}, \"parallel_tool_calls\": {\"type\": "
     "[\"boolean\", \"null\"]}, "
     "\"logprobs\": {\"type\": [\"boolean\", \"null\"]}, \"top_logprobs\": {\"type\": [\"integer\", "
     "\"null\"], \"minimum\": 0, "
     "\"maximum\": 20}, \"reasoning_effort\": " EFFORT "}"},
    {"completion", hd_fields_openai, "prompt",
     "{" COMMON ", \"prompt\": {\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"array\", \"minItems\": 1, "
                "\"maxItems\": 4, \"items\": "
     "{\"type\": \"string\"}}, {\"type\": \"array\", \"minItems\": 1, \"items\": {\"type\": \"integer\", "
     "\"minimum\": 0}}]}, "
     "\"suffix\": {\"type\": [\"string\", \"null\"]}, \"echo\": {\"type\": [\"boolean\", \"null\"]}, "
     "\"logprobs\": {\"type\": "
     "[\"integer\", \"null\"], \"minimum\": 0, \"maximum\": 20}}"},
    {"tokenize", NULL, NULL,
     "{\"content\": {\"type\": [\"string\", \"null\"]}, \"prompt\": {\"type\": [\"string\", \"null\"]}, "
     "\"add_special\": {\"type\": "
     "[\"boolean\", \"null\"]}, " MESSAGES ", \"tools\": " TOOLS "}"},
    {"messages", hd_fields_anthropic, "messages",
     "{\"model\": {\"type\": [\"string\", \"null\"]}, \"system\": {" TEXT_PARTS
     ", {\"type\": \"null\"}]}, \"stop_sequences\": {" STOP
     "}, \"messages\": {\"type\": \"array\", \"minItems\": 1, \"maxItems\": 10000, \"items\": {\"type\": "
     "\"object\", \"required\": "
     "[\"role\", \"content\"], \"properties\": {\"role\": {\"enum\": [\"user\", \"assistant\"]}, "
     "\"content\": {" TEXT_PARTS "]}}}}, \"thinking\": {\"type\": [\"object\", \"null\"], \"required\": "
                                 "[\"type\"], \"properties\": {\"type\": {\"enum\": "
     "[\"enabled\", \"disabled\", \"adaptive\"]}, \"budget_tokens\": {\"type\": \"integer\", \"minimum\": "
     "1}}}, \"tools\": {\"type\": "
     "[\"array\", \"null\"], \"maxItems\": 128, \"items\": {\"type\": \"object\", \"required\": [\"name\"], "
     "\"properties\": {" FUNCTION
     ", \"input_schema\": {\"type\": \"object\"}}}}, \"tool_choice\": {\"type\": [\"object\", \"null\"]}}"},
    {"ollama_chat", NULL, NULL,
     "{\"model\": {\"type\": [\"string\", \"null\"]}, \"stream\": {\"type\": [\"boolean\", \"null\"]}, "
     "\"think\": {\"anyOf\": "
     "[{\"type\": \"boolean\"}, " EFFORT
     "]}, \"format\": {\"anyOf\": [{\"enum\": [\"\", \"json\", null]}, {\"type\": \"object\"}]}, "
     "\"messages\": {\"type\": [\"array\", \"null\"], \"maxItems\": 10000, \"items\": {\"type\": \"object\", "
     "\"required\": [\"role\"], "
     "\"properties\": {\"role\": {\"enum\": [\"system\", \"user\", \"assistant\", \"tool\"]}, \"content\": "
     "{\"type\": \"string\"}, "
     "\"thinking\": {\"type\": \"string\"}}}}, \"tools\": " TOOLS
     ", \"options\": {\"$ref\": \"#/components/schemas/options\"}}"},
    {"ollama_generate", NULL, NULL,
     "{\"model\": {\"type\": [\"string\", \"null\"]}, \"stream\": {\"type\": [\"boolean\", \"null\"]}, "
     "\"prompt\": {\"type\": "
     "[\"string\", \"null\"]}, \"system\": {\"type\": [\"string\", \"null\"]}, \"suffix\": {\"type\": "
     "[\"string\", \"null\"]}, "
     "\"raw\": {\"type\": [\"boolean\", \"null\"]}, \"options\": {\"$ref\": "
     "\"#/components/schemas/options\"}}"},
    {"options", hd_fields_ollama, NULL, "{\"seed\": {\"type\": \"integer\"}, \"stop\": {" STOP "}}"},
    {"show", NULL, NULL, "{\"model\": {\"type\": [\"string\", \"null\"]}}"},
    {"responses", hd_fields_responses, "input",
     "{\"model\": {\"type\": [\"string\", \"null\"]}, \"instructions\": {\"type\": [\"string\", \"null\"]}, "
     "\"input\": {\"anyOf\": "
     "[{\"type\": \"string\"}, {\"type\": \"array\", \"minItems\": 1, \"items\": {\"type\": \"object\"}}]}, "
     "\"reasoning\": {\"type\": "
     "[\"object\", \"null\"], \"properties\": {\"effort\": " EFFORT
     "}}, \"text\": {\"type\": [\"object\", \"null\"]}, \"tools\": "
     "{\"type\": [\"array\", \"null\"], \"maxItems\": 128, \"items\": {\"type\": \"object\", \"required\": "
     "[\"type\", \"name\"], "
     "\"properties\": {\"type\": {\"enum\": [\"function\"]}, " FUNCTION
     ", \"parameters\": {\"type\": [\"object\", \"null\"]}}}}, "
     "\"tool_choice\": {\"anyOf\": [{\"enum\": [\"auto\", \"none\", \"required\", null]}, {\"type\": "
     "\"object\"}]}, "
     "\"parallel_tool_calls\": {\"type\": [\"boolean\", \"null\"]}}"},
};

/* One a route; routes that only say that something is not there are not described. */
static const struct {
    const char *method, *path, *body, *stream, *what;
} rows[] = {
    {"post", "/chat/completions", "chat", "text/event-stream", "Answer a conversation"},
    {"post", "/completions", "completion", "text/event-stream", "Continue a text, or fill in its middle"},
    {"get", "/models", NULL, NULL, "The names of the model"},
    {"get", "/models/{id}", NULL, NULL, "One of them"},
    {"post", "/tokenize", "tokenize", NULL, "The ids of a text or a conversation"},
    {"post", "/messages", "messages", "text/event-stream",
     "Answer a conversation, as Anthropic's clients ask"},
    {"post", "/messages/count_tokens", "messages", NULL, "The length of a conversation"},
    {"post", "/responses", "responses", "text/event-stream",
     "Answer a conversation, as OpenAI's newer clients ask"},
    {"post", "/api/chat", "ollama_chat", "application/x-ndjson",
     "Answer a conversation, as ollama's clients ask"},
    {"post", "/api/generate", "ollama_generate", "application/x-ndjson",
     "Answer a prompt, as ollama's clients ask"},
    {"get", "/api/tags", NULL, NULL, "The names of the model, for ollama's clients"},
    {"post", "/api/show", "show", NULL, "What is known of the model"},
    {"get", "/api/ps", NULL, NULL, "The model that is loaded"},
    {"get", "/api/version", NULL, NULL, "The server's version"},
    {"get", "/openapi.json", NULL, NULL, "This description"},
};

bool hd_openapi_describes(const char *method, const char *path)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcasecmp(method, rows[i].method) == 0 && strcmp(path, rows[i].path) == 0) return true;
    return false;
}

/* ---- Building ---- */

static json_t *field_schema(const hd_field *f)
{
    static const char *const types[] = {[HD_FIELD_BOOL] = "boolean",
                                        [HD_FIELD_INT] = "integer",
                                        [HD_FIELD_INT64] = "integer",
                                        [HD_FIELD_FLOAT] = "number"};
    json_t *j = json_pack("{s:[s, s], s:s}", "type", types[f->kind], "null", "description", f->what);
    if (!j || f->kind == HD_FIELD_BOOL) return j;
    bool whole = f->kind != HD_FIELD_FLOAT;
    json_object_set_new(j, "minimum", whole ? json_integer((json_int_t)f->min) : json_real(f->min));
    json_object_set_new(j, "maximum", whole ? json_integer((json_int_t)f->max) : json_real(f->max));
    return j;
}

/* The names that will be answered, where not every name is. */
static json_t *model_names(const hd_server *s)
{
    json_t *list = json_array();
    json_array_append_new(list, json_null());
    json_array_append_new(list, json_string(s->model_name));
    for (int i = 0; i < s->n_alias; i++) json_array_append_new(list, json_string(s->alias[i].name));
    return json_pack("{s:o}", "enum", list);
}

static json_t *schema_of(const body_schema *b, const hd_server *s)
{
    json_t *properties = hd_json_load(b->properties, strlen(b->properties), 0, NULL);
    for (const hd_field *f = b->fields; f && f->name && properties; f++)
        json_object_set_new(properties, f->name, field_schema(f));
    if (!s->any_model && json_object_get(properties, "model"))
        json_object_set_new(properties, "model", model_names(s));
    json_t *j = json_pack("{s:s, s:o}", "type", "object", "properties", properties);
    if (j && b->required) json_object_set_new(j, "required", json_pack("[s]", b->required));
    return j;
}

static json_t *content(const char *type, json_t *schema)
{
    return json_pack("{s:{s:o}}", type, "schema", schema);
}

static void add_reply(json_t *replies, const char *status, const char *what, json_t *media)
{
    json_object_set_new(replies, status, json_pack("{s:s, s:o}", "description", what, "content", media));
}

static json_t *operation(size_t i, const char *version)
{
    static const char *const errors[][2] = {{"400", "The request is malformed, or too long for the context"},
                                            {"401", "A key is needed"},
                                            {"403", "Not from here"},
                                            {"404", "No such model or route"},
                                            {"413", "The body is too large"},
                                            {"422", "A field is out of its range"},
                                            {"429", "Too many wait; see Retry-After"},
                                            {"503", "The server cannot answer now; see Retry-After"}};
    char id[100];
    int n = snprintf(id, sizeof id, "%s%s%s", rows[i].method, version, rows[i].path);
    for (int k = 0; k < n && k < (int)sizeof id; k++)
        if (strchr("/{}.", id[k])) id[k] = '_';
    json_t *replies = json_object(),
           *media = content("application/json", json_pack("{s:s}", "type", "object"));
    if (rows[i].stream) json_object_set_new(media, rows[i].stream, json_object());
    add_reply(replies, "200", "Done", media);
    for (size_t k = 0; k < sizeof errors / sizeof errors[0]; k++)
        add_reply(replies, errors[k][0], errors[k][1],
                  content("application/json", json_pack("{s:s}", "$ref", "#/components/schemas/error")));
    json_t *op =
        json_pack("{s:s, s:s, s:o}", "operationId", id, "summary", rows[i].what, "responses", replies);
    if (rows[i].body)
        json_object_set_new(
            op, "requestBody",
            json_pack(
                "{s:b, s:o}", "required", 1, "content",
                content("application/json",
                        json_pack("{s:o}", "$ref", json_sprintf("#/components/schemas/%s", rows[i].body)))));
    if (strchr(rows[i].path, '{'))
        json_object_set_new(op, "parameters",
                            json_pack("[{s:s, s:s, s:b, s:{s:s, s:i}}]", "name", "id", "in", "path",
                                      "required", 1, "schema", "type", "string", "minLength", 1));
    return op;
}

json_t *hd_openapi_json(const hd_server *s)
{
    static const char *const versions[] = {"/v1", "", "/beta"};
    json_t *paths = json_object(), *schemas = json_object();
    char path[100];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool plain = strncmp(rows[i].path, "/api/", 5) == 0 || strcmp(rows[i].path, "/openapi.json") == 0;
        for (int v = plain ? 1 : 0; v < (plain ? 2 : 3); v++) {
            snprintf(path, sizeof path, "%s%s", versions[v], rows[i].path);
            json_object_set_new(paths, path, json_pack("{s:o}", rows[i].method, operation(i, versions[v])));
        }
    }
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        json_object_set_new(schemas, bodies[i].name, schema_of(&bodies[i], s));
    json_object_set_new(
        schemas, "error",
        json_pack("{s:s, s:[s], s:{s:{}}}", "type", "object", "required", "error", "properties", "error"));
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:o, s:{s:{s:s, s:s}}}, s:[{}, {s:[]}]}", "openapi",
                     "3.1.0", "info", "title", "hadal", "version", HADAL_VERSION, "description",
                     "One model, spoken to as OpenAI's, DeepSeek's, Anthropic's or ollama's.", "paths", paths,
                     "components", "schemas", schemas, "securitySchemes", "key", "type", "http", "scheme",
                     "bearer", "security", "key");
}

static void handle(hd_req *r) { hd_api_reply(r, 200, hd_openapi_json(hd_server_of(r))); }

const hd_route hd_routes_openapi[] = {
    {"GET", "/openapi.json", HD_RIGHT_ANYONE, 0, handle, hd_api_fail_openai, false},
    {0},
};
