/* Chat formats: ids equal to what the models' own templates render (tests/golden/chat.json, made by
 * make_chat.py), over a small vocabulary made here; telling formats by their templates; errors. */
#include <dirent.h>
#include <jansson.h>
#include <time.h>

#include "chat_vocab.h"
#include "files_build.h"
#include "model/chat_parts.h"
#include "model/tokenizer_impl.h"
#include "test.h"

/* ---- Golden conversations ---- */

static const char lt[] = "\xee\x80\x80", date[] = "\xee\x80\x81"; // U+E000 and U+E001 of the golden file

/* For the steps of a check: what cannot fail unless memory does. */
static void must(hd_status st)
{
    if (st != HD_OK) abort();
}

/* A copy with every `from` replaced, for free(). */
static char *replaced(const char *s, size_t n, const char *from, const char *to, size_t *n_out)
{
    hd_err err = {0};
    hd_buf b;
    hd_span rest = {s, n}, before;
    hd_buf_init(&b, SIZE_MAX);
    while (hd_span_cut(rest, from, false, &before, &rest)) {
        must(hd_buf_add(&b, before.p, before.n, &err));
        must(hd_buf_adds(&b, to, &err));
    }
    must(hd_buf_add(&b, rest.p, rest.n, &err));
    *n_out = b.len;
    return b.data;
}

/* Ids of a rendered text: control tokens where it spells them, what lies between encoded
 * with U+E000 as "<". */
static void expect_ids(const hd_tokenizer *t, const char *s, size_t n, hd_ids *out)
{
    hd_err err = {0};
    size_t from = 0;
    for (size_t i = 0; i <= n;) {
        int k = 0;
        while (k < N_CONTROLS && !hd_span_starts((hd_span){s + i, n - i}, controls[k])) k++;
        if (i < n && k == N_CONTROLS) {
            i++;
            continue;
        }
        size_t plain_n;
        char *plain = replaced(s + from, i - from, lt, "<", &plain_n);
        must(hd_tokenizer_encode(t, plain ? plain : "", plain_n, out, &err));
        free(plain);
        if (i == n) break;
        must(hd_ids_add(out, hd_tokenizer_find(t, controls[k]), &err));
        from = i += strlen(controls[k]);
    }
}

static int read_messages(const json_t *list, hd_msg *msg, int cap)
{
    size_t i;
    json_t *o;
    json_array_foreach(list, i, o)
    {
        if ((int)i == cap) abort();
        const json_t *text = json_object_get(o, "content"),
                     *thinking = json_object_get(o, "reasoning_content");
        const char *role = json_string_value(json_object_get(o, "role"));
        hd_msg *m = &msg[i];
        *m = (hd_msg){.role = role[0] == 's'   ? HD_ROLE_SYSTEM
                              : role[0] == 'u' ? HD_ROLE_USER
                              : role[0] == 'a' ? HD_ROLE_ASSISTANT
                                               : HD_ROLE_TOOL};
        m->text = replaced(json_string_value(text), json_string_length(text), lt, "<", &m->n);
        m->thinking = json_string_value(thinking);
        m->n_thinking = json_string_length(thinking);
    }
    return (int)json_array_size(list);
}

static void today(char out[32])
{
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(out, 32, "%d %b %Y", &tm);
}

static const hd_chat_format *format_named(const char *name)
{
    for (int i = 0; hd_chat_at(i); i++)
        if (strcmp(hd_chat_name(hd_chat_at(i)), name) == 0) return hd_chat_at(i);
    return NULL;
}

static bool same_ids(const hd_ids *a, const hd_ids *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->id, b->id, (size_t)a->n * sizeof *a->id) == 0);
}

static void show_difference(const hd_tokenizer *t, const hd_ids *got)
{
    hd_err err = {0};
    hd_buf b;
    hd_buf_init(&b, SIZE_MAX);
    if (hd_tokenizer_decode(t, got->id, got->n, true, &b, &err) == HD_OK)
        fprintf(stderr, "got:  %s\n", b.data);
    hd_buf_free(&b);
}

static void check_case(const hd_tokenizer *t, const json_t *conversations, const json_t *c)
{
    const char *name = json_string_value(json_array_get(c, 0));
    const json_t *text = json_array_get(c, 4);
    int which = (int)json_integer_value(json_array_get(c, 1));
    hd_chat_opts o = {.thinking = (int)json_integer_value(json_array_get(c, 2)),
                      .add_generation_prompt = json_integer_value(json_array_get(c, 3)) != 0};
    const hd_chat_format *f = format_named(name);
    CHECK(f != NULL, "%s", name);
    if (!f) return;

    hd_err err = {0};
    hd_msg msg[16];
    int n = read_messages(json_array_get(conversations, (size_t)which), msg, 16);
    bool equal = false;
    for (int attempt = 0; attempt < 2 && !equal; attempt++) { // the second one in case midnight came between
        char day[32];
        size_t text_n;
        hd_ids got = {0}, want = {0};
        today(day);
        CHECK_OK(hd_chat_render(f, t, msg, n, &o, &got, &err));
        char *dated = replaced(json_string_value(text), json_string_length(text), date, day, &text_n);
        expect_ids(t, dated ? dated : "", text_n, &want);
        equal = same_ids(&got, &want);
        if (!equal && attempt) {
            fprintf(stderr, "want: %s\n", dated);
            show_difference(t, &got);
        }
        free(dated);
        hd_ids_free(&got);
        hd_ids_free(&want);
    }
    CHECK(equal, "%s, conversation %d, thinking %d, prompt %d", name, which, o.thinking,
          o.add_generation_prompt);
    for (int i = 0; i < n; i++) free((char *)msg[i].text);
}

static void test_golden(const hd_tokenizer *t)
{
    json_error_t at;
    json_t *all = json_load_file(HD_SOURCE_DIR "/tests/golden/chat.json", 0, &at), *c;
    CHECK(all != NULL, "golden/chat.json: line %d: %s", at.line, at.text);
    const json_t *conversations = json_object_get(all, "conversations"),
                 *cases = json_object_get(all, "cases");
    size_t i;
    json_array_foreach(cases, i, c) check_case(t, conversations, c);
    for (int k = 0; hd_chat_at(k); k++) { // every row of the table has its cases
        size_t n = 0;
        json_array_foreach(cases, i, c) n +=
            strcmp(json_string_value(json_array_get(c, 0)), hd_chat_name(hd_chat_at(k))) == 0;
        CHECK(n >= 10, "%s: %zu cases", hd_chat_name(hd_chat_at(k)), n);
    }
    json_decref(all);
}

/* ---- Telling formats ---- */

/* The least a template of this format holds. */
static void sketch(char *out, size_t cap, const hd_chat_format *f, int without)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < HD_CHAT_MARKS && f->need[i]; i++)
        n += (size_t)snprintf(out + n, cap - n, "{{ %s }} ", f->need[i]);
    for (int i = 0; i < HD_CHAT_MARKS && f->has[i]; i++)
        if (i != without) n += (size_t)snprintf(out + n, cap - n, "{{ %s }} ", f->has[i]);
}

static void test_telling(void)
{
    char text[2048];
    for (int i = 0; hd_chat_at(i); i++) {
        const hd_chat_format *f = hd_chat_at(i);
        bool sure = false;
        sketch(text, sizeof text, f, -1);
        const hd_chat_format *told = hd_chat_told(text, strlen(text), &sure);
        CHECK(told == f && sure, "%s is told as %s", f->name, told ? told->name : "nothing");
        strcat(text, "<|unheard_of|>");
        CHECK(hd_chat_told(text, strlen(text), &sure) == NULL, "%s with another control token", f->name);
        CHECK(!sure);
    }
    static const char strange[] = "<|im_start|> <|im_end|> You are a pirate";
    bool sure = true;
    const hd_chat_format *told = hd_chat_told(strange, strlen(strange), &sure);
    CHECK(told && strcmp(told->need[0], "<|im_start|>") == 0 && !sure, "an unknown ChatML template");
    CHECK(!hd_chat_told("", 0, &sure) && !hd_chat_told("<|", 2, &sure) &&
          !hd_chat_told("[INST] x", 8, &sure));
    static const char thinker[] = "<|im_start|> <|im_end|> You are a thinker. {{ x.split('</think>') }}";
    told = hd_chat_told(thinker, strlen(thinker), &sure);
    CHECK(told && told->thinks && !told->system && !sure, "an unknown ChatML template with thoughts");
    sketch(text, sizeof text, format_named("qwen3"), -1);
    strcat(text, "{% macro x() %}");
    told = hd_chat_told(text, strlen(text), &sure);
    CHECK(told == format_named("qwen3") && !sure, "a known template with a macro");
    static const char words[] = "### User: {{ x }} ### Assistant:";
    CHECK(!hd_chat_told(words, strlen(words), &sure), "words that many templates have");
    static const char composed[] =
        "<|im_start|><|im_end|>add_generation_prompt{{ '<|' + message.role + '|>' }}";
    CHECK(!hd_chat_told(composed, strlen(composed), &sure), "control tokens put together by the template");
}

/* Real templates, named FORMAT.jinja as for make_chat.py, in the folder HADAL_TEST_TEMPLATES. */
static void test_real_templates(void)
{
    const char *dir = getenv("HADAL_TEST_TEMPLATES");
    DIR *d = dir ? opendir(dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[4096], name[256];
        hd_err err = {0};
        hd_buf b;
        bool sure;
        char *end = strstr(e->d_name, ".jinja");
        if (!end) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        snprintf(name, sizeof name, "%.*s", (int)(end - e->d_name), e->d_name);
        size_t n = strlen(name);
        if (n > 2 && name[n - 2] == '.' && name[n - 1] >= 'b') name[n - 2] = 0;
        hd_buf_init(&b, 1 << 20);
        CHECK_OK(hd_file_read(&b, path, &err));
        const hd_chat_format *f = hd_chat_told(b.data, b.len, &sure);
        CHECK(f && sure && strcmp(f->name, name) == 0, "%s is told as %s%s", e->d_name,
              f ? f->name : "nothing", sure ? "" : " (unsure)");
        hd_buf_free(&b);
    }
    if (d) closedir(d);
}

/* ---- Picking ---- */

static void write_json(const char *dir, const char *name, json_t *j)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    CHECK(json_dump_file(j, path, 0) == 0, "%s", path);
    json_decref(j);
}

/* A folder whose tokenizer_config.json holds `config`, and a chat_template.jinja of this
 * text (NULL: none). */
static hd_status pick(const char **name_out, json_t *vocab, json_t *config, const char *jinja,
                      const char *name, hd_err *err)
{
    hd_status st;
    const hd_chat_format *f = NULL;
    hd_source *s = NULL;
    hd_tokenizer *t = NULL;
    char dir[300];
    snprintf(dir, sizeof dir, "%s/model", build_dir);
    mkdir(dir, 0700);
    write_json(dir, "tokenizer.json", vocab);
    write_json(dir, "tokenizer_config.json", config);
    unlink(build_path("model/chat_template.jinja"));
    if (jinja) build_file("model/chat_template.jinja", jinja, strlen(jinja));
    HD_TRY(hd_source_open(&s, dir, false, err));
    HD_TRY(hd_tokenizer_open(&t, s, err));
    HD_TRY(hd_chat_pick(&f, s, t, name, err));
    *name_out = hd_chat_name(f);
fail:
    hd_tokenizer_close(t);
    hd_source_close(s);
    return st;
}

static void test_picking(void)
{
    hd_err err = {0};
    const char *name = "";
    char smollm[2048], llama[2048];
    sketch(smollm, sizeof smollm, format_named("smollm2"), -1);
    sketch(llama, sizeof llama, format_named("llama3"), -1);
    json_t *plain = json_pack("{s:s}", "chat_template", smollm), *none = json_object();
    json_t *listed = json_pack("{s:[{s:s,s:s},{s:s,s:s}]}", "chat_template", "name", "tool_use", "template",
                               "x", "name", "default", "template", smollm);

    CHECK_OK(pick(&name, small_vocabulary(NULL), json_deep_copy(plain), NULL, NULL, &err));
    CHECK(strcmp(name, "smollm2") == 0, "%s", name);
    CHECK_OK(pick(&name, small_vocabulary(NULL), listed, NULL, NULL, &err));
    CHECK(strcmp(name, "smollm2") == 0, "a list of templates: %s", name);
    CHECK_OK(pick(&name, small_vocabulary(NULL), json_deep_copy(plain), llama, NULL, &err));
    CHECK(strcmp(name, "llama3") == 0, "chat_template.jinja counts first: %s", name);
    CHECK_OK(pick(&name, small_vocabulary(NULL), json_deep_copy(plain), NULL, "deepseek-r1", &err));
    CHECK(strcmp(name, "deepseek-r1") == 0, "the name given counts: %s", name);

    CHECK(pick(&name, small_vocabulary(NULL), json_deep_copy(none), NULL, NULL, &err) == HD_UNSUPPORTED);
    CHECK(strstr(err.msg, "no template") && strstr(err.msg, "smollm2, llama3"), "%s", err.msg);
    CHECK(pick(&name, small_vocabulary(NULL), json_deep_copy(none), "[INST] {{ x }}", NULL, &err) ==
          HD_UNSUPPORTED);
    CHECK(strstr(err.msg, "deepseek-v2, ") && strstr(err.msg, "llama3.2"), "%s", err.msg);
    CHECK(pick(&name, small_vocabulary(NULL), json_deep_copy(none), NULL, "gpt5", &err) == HD_USAGE);
    CHECK(strstr(err.msg, "'gpt5'") && strstr(err.msg, "llama3.2"), "%s", err.msg);
    CHECK(pick(&name, small_vocabulary("<|im_end"), json_deep_copy(plain), NULL, NULL, &err) ==
          HD_UNSUPPORTED);
    CHECK(strstr(err.msg, "vocabulary has no <|im_end|>"), "%s", err.msg);
    CHECK(pick(&name, small_vocabulary("<｜end"), json_deep_copy(none), NULL, "deepseek-v2", &err) ==
          HD_UNSUPPORTED);
    CHECK(strstr(err.msg, "<｜end▁of▁sentence｜>"), "%s", err.msg);
    json_decref(plain);
    json_decref(none);
}

/* ---- Stops and thoughts ---- */

static void test_marks(const hd_tokenizer *t)
{
    int32_t stop[8], begin, end;
    bool open;
    CHECK(hd_chat_stops(format_named("qwen2.5"), t, stop) == 2 &&
          stop[0] == hd_tokenizer_find(t, "<|im_end|>") && stop[1] == hd_tokenizer_find(t, "<|endoftext|>"));
    CHECK(hd_chat_stops(format_named("llama3"), t, stop) == 1 &&
          stop[0] == hd_tokenizer_find(t, "<|eot_id|>"));
    for (int i = 0; hd_chat_at(i); i++)
        CHECK(hd_chat_stops(hd_chat_at(i), t, stop) >= 1, "%s", hd_chat_name(hd_chat_at(i)));

    static const struct {
        const char *name;
        bool has, open;
    } want[] = {{"deepseek-r1", true, true},    {"deepseek-r1-0120", true, false},
                {"deepseek-v3.1", true, false}, {"qwen3", true, false},
                {"qwen3-thinking", true, true}, {"qwen2.5", false, false},
                {"deepseek-v3", false, false}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        hd_chat_think_ids(format_named(want[i].name), t, &begin, &end, &open);
        CHECK((begin >= 0) == want[i].has && (end >= 0) == want[i].has && open == want[i].open,
              "%s: %d %d %d", want[i].name, begin, end, open);
    }
}

static void test_refusals(const hd_tokenizer *t)
{
    hd_err err = {0};
    hd_ids out = {0};
    hd_chat_opts o = {.add_generation_prompt = true, .thinking = -1};
    CHECK(hd_chat_render(format_named("qwen3"), t, NULL, 0, &o, &out, &err) == HD_USAGE && out.n == 0);
    hd_msg odd = {.role = HD_ROLE_USER, .text = "a\0b\xff", .n = 4}; // any bytes are somebody's text
    CHECK_OK(hd_chat_render(format_named("llama3.1"), t, &odd, 1, &o, &out, &err));
    CHECK(out.n > 10);
    hd_ids_free(&out);
}

/* Calls of tools in earlier turns, as each family's templates print them. */
static void test_calls(void)
{
    static const hd_call two[] = {{"f", "{\"a\": 1}"}, {"g", "{}"}};
    static const struct {
        const char *format, *text, *want;
    } row[] = {
        {"qwen2.5", "", "<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n"
                        "{\"name\": \"g\", \"arguments\": {}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n3\n"},
        {"qwen3", "Look.", "assistant\nLook.\n<tool_call>\n{\"name\": \"f\""}, // a thought of nothing is not put back
        {"llama3.1", "", "<|start_header_id|>assistant<|end_header_id|>\n\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": "
                         "\"g\", \"parameters\": {}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n\"3\""},
        {"deepseek-v3", "", "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```"
                            "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜>"
                            "<｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>3"},
        {"deepseek-v3.1", "So.", "</think>So.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
                                 "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
                                 "<｜tool▁output▁begin｜>3"},
        {"smollm2", "", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>"},
    };
    hd_tokenizer *t = small_tokenizer();
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        hd_err err = {0};
        const hd_chat_format *f = NULL;
        for (int k = 0; !f; k++)
            if (strcmp(hd_chat_name(hd_chat_at(k)), row[i].format) == 0) f = hd_chat_at(k);
        hd_msg msg[] = {{.role = HD_ROLE_USER, .text = "q", .n = 1},
                        {.role = HD_ROLE_ASSISTANT, .text = row[i].text, .n = strlen(row[i].text), .call = two, .n_call = 2},
                        {.role = HD_ROLE_TOOL, .text = "3", .n = 1}};
        hd_chat_opts o = {.add_generation_prompt = true, .thinking = -1};
        hd_ids ids = {0};
        hd_buf b;
        hd_buf_init(&b, 1 << 20);
        CHECK_OK(hd_chat_render(f, t, msg, 3, &o, &ids, &err));
        CHECK_OK(hd_tokenizer_decode(t, ids.id, ids.n, true, &b, &err));
        CHECK(strstr(b.data, row[i].want), "%s: %s", row[i].format, b.data);
        hd_buf_free(&b);
        hd_ids_free(&ids);
    }
    hd_tokenizer_close(t);
}

int main(void)
{
    hd_tokenizer *t = small_tokenizer();
    build_begin();
    test_golden(t);
    test_telling();
    test_real_templates();
    test_picking();
    test_marks(t);
    test_refusals(t);
    build_end();
    hd_tokenizer_close(t);
    test_calls();
    return hd_test_end();
}
