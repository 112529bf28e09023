/* Tools: definitions in each format's words; calls found in texts of every form, at every way of cutting the
 * text into pieces; what must stay text; the schema of a forced call. */
#include "serve/tools.h"
#include "test.h"

static hd_tool declared[] = {{.name = "get_weather", .description = "The weather of a city"},
                             {.name = "add"}};
static const hd_tools two = {.tool = declared, .n = 2};

/* What a parser told of: text as it is, calls as "[name arguments]" ("..." before the
 * bracket when cut off). */
typedef struct {
    hd_buf all, parts; // parts: of the call under way
    int n_parts;
} told;

static void on_text(void *arg, const char *s, size_t n)
{
    told *t = arg;
    if (hd_buf_add(&t->all, s, n, NULL) != HD_OK) abort();
}

static void on_call(void *arg, const char *name, const char *args, size_t n, bool whole)
{
    told *t = arg;
    if (t->n_parts)
        CHECK(t->parts.len == n && (!n || memcmp(t->parts.data, args, n) == 0), "'%s' in parts, '%.*s' at the end", t->parts.data, (int)n, args);
    hd_buf_clear(&t->parts);
    t->n_parts = 0;
    if (hd_buf_addf(&t->all, NULL, "[%s %.*s%s]", name, (int)n, args, whole ? "" : "...") != HD_OK) abort();
}

static int most_parts; // of one call, so far

static void on_part(void *arg, const char *name, const char *s, size_t n)
{
    told *t = arg;
    CHECK((t->n_parts == 0) == (n == 0), "a call begins with its name");
    if (++t->n_parts > most_parts) most_parts = t->n_parts;
    if (hd_buf_add(&t->parts, s, n, NULL) != HD_OK) abort();
}

/* Parse s in pieces of `step` bytes; live: arguments in parts. */
static char *parsed_as(const hd_tools *tools, const char *s, size_t step, bool cut, bool live)
{
    hd_err err = {0};
    told t = {.n_parts = 0};
    hd_tool_parser p = {.tools = tools, .text = on_text, .call = on_call, .arg = &t};
    if (live) p.part = on_part;
    hd_buf_init(&t.all, 1 << 24);
    hd_buf_init(&t.parts, 1 << 24);
    hd_tool_parser_open(&p);
    for (size_t i = 0, n = strlen(s); i < n; i += step)
        CHECK_OK(hd_tool_parser_add(&p, s + i, n - i < step ? n - i : step, &err));
    CHECK_OK(hd_tool_parser_end(&p, cut, &err));
    hd_tool_parser_close(&p);
    CHECK(t.n_parts == 0, "a call that was begun is ended");
    hd_buf_free(&t.parts);
    if (!t.all.data && hd_buf_adds(&t.all, "", NULL) != HD_OK) abort();
    return t.all.data;
}

static char *parsed(const hd_tools *tools, const char *s, size_t step, bool cut)
{
    return parsed_as(tools, s, step, cut, false);
}

/* With arguments in parts, by one byte, by three, by seven. */
static void expect_live(const char *s, bool cut, const char *want)
{
    for (size_t step = 1; step <= 7; step += step == 1 ? 2 : 4) {
        char *got = parsed_as(&two, s, step, cut, true);
        CHECK(strcmp(got, want) == 0, "'%s' live by %zu: '%s', not '%s'", s, step, got, want);
        free(got);
    }
}

/* The same whatever the pieces are. */
static void expect(const char *s, bool cut, const char *want)
{
    for (size_t step = 1; step <= strlen(s) + 1; step++) {
        char *got = parsed(&two, s, step, cut);
        CHECK(strcmp(got, want) == 0, "'%s' by %zu: '%s', not '%s'", s, step, got, want);
        free(got);
    }
}

#define W      "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}"
#define CALLED "[get_weather {\"city\": \"Paris\"}]"

static void test_forms(void)
{
    expect("<tool_call>\n" W "\n</tool_call>", false, CALLED);
    expect("I look.\n<tool_call>\n" W "\n</tool_call>\n", false, "I look." CALLED);
    expect("<tool_call>\n" W
           "\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>",
           false, CALLED "[add {\"a\": 1}]");
    expect("<tool_call>" W, false, CALLED); // the closer never comes
    expect("<tool_call>" W "</tool_call> and so", false, CALLED "and so");
    expect(W, false, CALLED);
    expect("\n" W "\n", false, CALLED);
    expect("{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}", false, CALLED);
    expect("{\"type\": \"function\", \"name\": \"add\", \"parameters\": {}}", false, "[add {}]");
    expect("{\"type\": \"function\", \"function\": {\"name\": \"add\", \"arguments\": {\"a\": [1, {}]}}}",
           false, "[add {\"a\": [1, {}]}]");
    expect(W "; " W, false, CALLED CALLED);
    expect("[" W ", " W "]", false, CALLED CALLED);
    expect("<|python_tag|>" W, false, CALLED);
    expect("```json\n" W "\n```", false, CALLED);
    expect("Sure:\n\n```json\n" W "\n```\nDone.", false, "Sure:" CALLED "Done.");
    expect("```\n" W "\n```", false, CALLED);
    expect("```json\n" W "\n" W "\n```", false, CALLED CALLED);
    expect("<tools>\n" W "\n</tools>", false, CALLED);
    expect("{\"name\": \"add\"}", false, "[add {}]");
    expect("{\"name\": \"add\", \"arguments\": null}", false, "[add {}]");
    expect("{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 2}\"}", false, "[add {\"a\": 2}]");
    expect("{\"arguments\": {\"s\": \"}\\\"{\"}, \"name\": \"add\"}", false, "[add {\"s\": \"}\\\"{\"}]");
}

/* What is told while it is written is what would have been told of the whole; what goes wrong meanwhile ends
 * as a call cut off. */
static void test_live(void)
{
    static const char *const same[][2] = {
        {"I look.\n<tool_call>\n" W "\n</tool_call>\n", "I look." CALLED},
        {W "; " W, CALLED CALLED},
        {"[" W ", " W "]", CALLED CALLED},
        {"```json\n" W "\n" W "\n```", CALLED CALLED},
        {"{\"type\": \"function\", \"function\": {\"name\": \"add\", \"arguments\": {\"a\": [1, {}]}}}", "[add {\"a\": [1, {}]}]"},
        {"{\"name\": \"add\"}", "[add {}]"},
        {"{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 2}\"}", "[add {\"a\": 2}]"},
        {"{\"arguments\": {\"s\": 1}, \"name\": \"add\"}", "[add {\"s\": 1}]"},
        {"{\"name\": \"other\", \"arguments\": {1}}", "{\"name\": \"other\", \"arguments\": {1}}"},
        {"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\":"
         " \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", CALLED},
        {"<｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜ok", "[add {\"a\": 1}]"},
    };
    static const char *const wrong[][2] = {
        {"{\"name\": \"add\", \"arguments\": {1, \"and\": \"so on\"}}", "[add {...]"},
        {"so\n{\"name\": \"add\", \"arguments\": {\"a\": \"x\ny\"}} and more", "so[add {\"a\": \"x...]"},
        {"{\"name\": \"add\", \"arguments\": {\"a\": 1", "[add {\"a\": 1...]"}, // ends without a limit
        {"{\"name\": \"add\", \"arguments\": {\"a\": [1}}", "[add {\"a\": [1...]"},
        {"<｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1<｜tool▁call▁end｜>", "[add {\"a\": 1...]"},
    };
    most_parts = 0;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        expect_live(same[i][0], false, same[i][1]);
        expect_live(same[i][0], true, same[i][1]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) expect_live(wrong[i][0], false, wrong[i][1]);
    expect_live("ok\n{\"name\": \"add\", \"arguments\": {\"a\": \"x", true, "ok[add {\"a\": \"x...]");
    expect_live("{\"name\": \"add\", \"arguments\": {}", true, "[add {}]");
    CHECK(most_parts > 15, "%d parts", most_parts);
    hd_tools one = two;
    one.single = true;
    char *got = parsed_as(&one, W "; " W, 1, false, true);
    CHECK(strcmp(got, CALLED) == 0, "%s", got);
    free(got);
}

/* The walker says what Jansson says of whole texts, and no beginning of a good one is bad. */
static void test_walk(void)
{
    static const char *const texts[] = {
        "{}", "{ }", "{\"a\":1}", "{\"a\" : -0.5e+10 , \"b\":[true,false,null,\"\\u00e9\\ud83d\\ude00\\n\"]}", "{\"a\":[[],{},[1,2]]}", "{\"a\":0}", "{\"a\":1E5}",
        "[]", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":01}", "{\"a\":1.}", "{\"a\":.5}", "{\"a\":-}", "{\"a\":1e}", "{\"a\":+1}", "{\"a\":nul}", "{\"a\":truely}",
        "{\"a\":[1 2]}", "{\"a\":[1,]}", "{\"a\":[}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12g4\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\ud800\\u0041\"}", "{\"a\":\"\\udc00\"}",
        "{\"a\":\"\n\"}", "{a:1}", "{'a':1}", "{\"a\":1 \"b\":2}", "{1:2}", "{\"a\":\"x\"y}", "{\"a\":NaN}",
    };
    int good = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        size_t n = strlen(texts[i]), used;
        json_t *j = json_loads(texts[i], 0, NULL);
        hd_json_walk w = {0}, slow = {0};
        hd_walk_verdict v = hd_json_walk_feed(&w, texts[i], n, &used), s = HD_WALK_GOING;
        CHECK((v == HD_WALK_ENDED && used == n) == json_is_object(j), "'%s': %d after %zu", texts[i], v, used);
        for (size_t k = 0, one; k < n && s == HD_WALK_GOING; k++) s = hd_json_walk_feed(&slow, texts[i] + k, 1, &one);
        CHECK(s == v, "'%s' by bytes", texts[i]);
        good += v == HD_WALK_ENDED;
        json_decref(j);
    }
    CHECK(good == 7);
    char deep[2 * HD_WALK_DEPTH + 8] = "{\"a\":";
    size_t used;
    hd_json_walk w = {0};
    memset(deep + 5, '[', HD_WALK_DEPTH - 1);
    CHECK(hd_json_walk_feed(&w, deep, strlen(deep), &used) == HD_WALK_GOING);
    CHECK(hd_json_walk_feed(&w, "[", 1, &used) == HD_WALK_BAD && used == 0, "too deep");
}

static void test_deepseek(void)
{
    expect("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\":"
           " \"Paris\"}\n```"
           "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
           false, CALLED);
    expect("Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": "
           "\"Paris\"}<｜tool▁call▁end｜>"
           "<｜tool▁call▁begin｜>add<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
           false, "Let me see." CALLED "[add {}]");
    expect("<｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>", false, "[add {\"a\": 1}]");
    expect("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1", true,
           "[add {\"a\": 1...]");
    expect("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>no<｜tool▁sep｜>{}<｜tool▁call▁end｜><"
           "｜tool▁calls▁end｜>",
           false,
           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>no<｜tool▁sep｜>{}<｜tool▁call▁end｜><"
           "｜tool▁calls▁end｜>");
}

static void test_text(void)
{
    static const char *const texts[] = {
        "",
        "Hello.\n\nTwo  lines \n",
        "{\"name\": \"other\", \"arguments\": {}}", // not declared
        "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
        "{\"name\": \"add\", \"arguments\": [1]}", // no object
        "{\"name\": \"add\", \"arguments\": {1}}", // no JSON
        "{'name': 'add'}",
        "{\"a\": 1}\n{\"b\": {}}",
        "[1, 2, 3]",
        "[" W ", 1]",
        "the list {\"name\": \"add\", \"arguments\": {}} inside a line",
        "```json\n{\"name\": \"Bob\"}\n```",
        "```python\nprint({})\n```\nok",
        "a < b <tool b <tool_call",
        "<tool_call>",
        "<tool_call>hello</tool_call>",
        "{\"name\": \"add\", \"arguments\": {",
        "{\"name\": \"ad",
        "`{`",
        "é < ｜ <｜ <｜tool",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) expect(texts[i], false, texts[i]);
}

static void test_cut(void)
{
    expect("<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 12", true, "[add {\"a\": 12...]");
    expect("ok\n{\"name\": \"add\", \"arguments\": {\"a\": \"x", true, "ok[add {\"a\": \"x...]");
    expect("{\"name\": \"add\", \"arg", true, "[add ...]");
    expect("{\"name\": \"ad", true, "{\"name\": \"ad");
    expect("<tool_call>\n" W, true, CALLED);
    expect("no call <to", true, "no call <to");
}

static void test_single(void)
{
    hd_tools one = two;
    one.single = true;
    char *got = parsed(&one, W "\n" W, 3, false);
    CHECK(strcmp(got, CALLED) == 0, "%s", got);
    free(got);
}

/* Work that grows with the length alone, whatever the text. */
static void test_hostile(void)
{
    static const char *const units[] = {"{\"name\":",   "\n{\"name\":\n",
                                        "<tool_call>{", "```json\n{\"name\": \"add\",",
                                        "[{\"type\":[", "<｜tool▁call▁begin｜>",
                                        " \n",          "<",
                                        "\"",           "{\"name\":\"add\",\"arguments\":{}}"};
    double t0 = hd_test_cpu_s();
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t k = strlen(units[i]), n = 300000 / k;
        char *s = malloc(n * k + 1);
        for (size_t j = 0; j < n; j++) memcpy(s + j * k, units[i], k);
        s[n * k] = 0;
        free(parsed(&two, s, 997, true));
        free(s);
    }
    CHECK(hd_test_cpu_s() - t0 < 5 * HD_TEST_SLACK, "%g s", hd_test_cpu_s() - t0);
}

static void test_definitions(void)
{
    static const struct {
        const char *chat, *has, *lacks;
    } row[] = {
        {"qwen2.5",
         "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\"", "##"},
        {"qwen3", "<tool_call></tool_call> XML tags", "##"},
        {"llama3.1", "\"parameters\": dictionary", "<tool_call>"},
        {"deepseek-v3.1", "### get_weather\nDescription: The weather of a city", "function<｜tool▁sep｜>"},
        {"deepseek-r1", "function<｜tool▁sep｜>tool_call_name", "<tools>"},
        {"smollm2", "<tool_call>", "<tools>"},
        {NULL, "get_weather", "<tools>"},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        hd_err err = {0};
        hd_buf b;
        hd_buf_init(&b, 1 << 20);
        CHECK_OK(hd_tools_text(&b, &two, row[i].chat, &err));
        CHECK(strstr(b.data, row[i].has), "%s: %s", row[i].chat, b.data);
        CHECK(!strstr(b.data, row[i].lacks), "%s: %s", row[i].chat, b.data);
        hd_buf_free(&b);
    }
    CHECK(hd_tools_in_user("llama3.2") && !hd_tools_in_user("qwen2.5") && !hd_tools_in_user(NULL));
    CHECK(hd_tools_marks("deepseek-v3")[0] && !hd_tools_marks("llama3.1")[0]);
}

static void test_names(void)
{
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = 0;
    CHECK(!hd_tool_name_ok(longest) && hd_tool_name_ok(longest + 1));
    CHECK(!hd_tool_name_ok(NULL) && !hd_tool_name_ok("") && !hd_tool_name_ok("a b") &&
          !hd_tool_name_ok("<|im_end|>"));
    CHECK(hd_tools_find(&two, "addx", 3) && !hd_tools_find(&two, "ad", 2));
}

static void test_schema(void)
{
    json_t *p = json_loads("{\"type\": \"object\", \"properties\": {\"x\": {\"$ref\": \"#/$defs/p\"}}, "
                           "\"$defs\": {\"p\": {\"type\": "
                           "\"array\", \"items\": {\"$ref\": \"#/$defs/p\"}}}}",
                           0, NULL);
    hd_tool list[] = {{.name = "f", .parameters = p}, {.name = "g"}};
    hd_tools t = {.tool = list, .n = 2, .choice = HD_TOOLS_REQUIRED};
    json_t *s = hd_tools_schema(&t, "qwen2.5", false, NULL), *any = json_object_get(s, "anyOf");
    CHECK(json_array_size(any) == 2);
    const json_t *args = json_object_get(json_object_get(json_array_get(any, 0), "properties"), "arguments");
    const json_t *x = json_object_get(json_object_get(args, "properties"), "x");
    CHECK(strcmp(json_string_value(json_object_get(x, "$ref")), "#/$defs/tool0.p") == 0);
    const json_t *def = json_object_get(json_object_get(s, "$defs"), "tool0.p");
    CHECK(strcmp(json_string_value(json_object_get(json_object_get(def, "items"), "$ref")),
                 "#/$defs/tool0.p") == 0);
    CHECK(!json_object_get(args, "$defs") && json_object_get(p, "$defs"),
          "the caller's schema is left alone");
    json_decref(s);

    t.choice = HD_TOOLS_NAMED;
    t.named = "g";
    s = hd_tools_schema(&t, "llama3.1", false, NULL);
    const json_t *props = json_object_get(s, "properties");
    CHECK(strcmp(json_string_value(json_object_get(json_object_get(props, "name"), "const")), "g") == 0);
    CHECK(json_object_get(props, "parameters") && !json_object_get(s, "$defs"));
    json_decref(s);

    t.choice = HD_TOOLS_AUTO;
    s = hd_tools_schema(&t, NULL, true, p);
    CHECK(json_array_size(json_object_get(s, "anyOf")) == 3 &&
          json_object_get(json_object_get(s, "$defs"), "answer.p"));
    json_decref(s);
    json_decref(p);
}

int main(void)
{
    test_forms();
    test_deepseek();
    test_live();
    test_walk();
    test_text();
    test_cut();
    test_single();
    test_hostile();
    test_definitions();
    test_names();
    test_schema();
    return hd_test_end();
}
