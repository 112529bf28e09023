/* Each allocation of a request's life fails in turn - reading it, its prompt, its grammar, its stream -, and
 * each of a grammar's: the request is answered with 503 or, where its stream has begun, an error in it; what
 * is answered with 200 is whole; and the next request is served as if nothing had been. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include <ctype.h>

#include "api_fakes.h"

#ifdef NO_FAILURES
int main(void)
{
    CHECK(true);
    return hd_test_end();
}
#else

#define MESSAGES "\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"hi\"}]"
#define SCHEMA   "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"enum\": [\"x\", \"y\"]}, \"c\": " \
                 "{\"type\": \"array\", \"items\": {\"type\": \"string\", \"maxLength\": 9}}}, \"required\": [\"a\"]}"
#define TOOLS    ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"add\", \"parameters\": " SCHEMA "}}]"

static const char call[] = "{\"name\": \"add\", \"arguments\": {\"a\": 1}}";

static const struct {
    const hd_dialect *d;
    const char *body, *answer;
} row[] = {
    {&hd_dialect_chat, "{" MESSAGES ", \"stop\": [\"x\", \"y\"], \"logit_bias\": {\"5\": 1}}", "hello"},
    {&hd_dialect_chat, "{" MESSAGES ", \"stream\": true, \"n\": 2, \"stream_options\": {\"include_usage\": true}}", "hello"},
    {&hd_dialect_chat, "{" MESSAGES ", \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": " SCHEMA "}}}", "{\"a\": 1}"},
    {&hd_dialect_chat, "{" MESSAGES TOOLS ", \"stream\": true, \"tool_choice\": \"required\"}", call},
    {&hd_dialect_anthropic, "{" MESSAGES ", \"stream\": true, \"thinking\": {\"type\": \"enabled\"}}", "hello"},
    {&hd_dialect_ollama_chat, "{" MESSAGES TOOLS "}", call},
    {&hd_dialect_responses, "{\"input\": \"hi\", \"stream\": true}", "hello"},
    {&hd_dialect_completion, "{\"prompt\": \"hi\", \"grammar\": \"root ::= [a-z]{1,9} | \\\"no\\\"\"}", "hello"},
};

static void reserve(hd_buf *b)
{
    static const char zeros[1 << 16];
    CHECK_OK(hd_buf_add(b, zeros, sizeof zeros, &err));
    hd_buf_clear(b);
}

static void answer_all(const char *text)
{
    size_t half = strlen(text) / 2;
    for (int i = 0; i < n_jobs; i++)
        if (jobs[i].live) tell_text(i, HD_TEXT_THINKING, "well");
    for (int i = 0; i < n_jobs; i++) {
        if (jobs[i].live) tell(i, (hd_job_event){.kind = HD_JOB_TEXT, .text_kind = HD_TEXT_ANSWER, .text = text, .n = half});
        if (jobs[i].live) tell_text(i, HD_TEXT_ANSWER, text + half);
        tell_done(i, HD_END_STOP, 9, 2);
    }
}

/* Ask row i with the n-th allocation failing (0: none); returns whether it was reached. */
static bool ask_scarce(size_t i, long n)
{
    forget_reply();
    reserve(&the_req.head);
    reserve(&the_req.out);
    CHECK_OK(hd_buf_adds(&the_req.copy, row[i].body, &err));
    the_req.body = row[i].body;
    the_req.n_body = strlen(row[i].body);
    atomic_store(&made, 0);
    fail_at = n;
    hd_api_run(&the_req, row[i].d);
    answer_all(row[i].answer);
    fail_at = 0;
    return atomic_load(&made) >= n;
}

/* Without digits and letters of ids that differ from call to call. */
static char *words(void)
{
    char *s = strdup(the_req.out.data), *to = s;
    for (char *p = s; *p; p++)
        if (!isdigit((unsigned char)*p) && !(*p >= 'a' && *p <= 'f')) *to++ = *p;
    *to = 0;
    return s;
}

static void test_requests(void)
{
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        int bad = 0, failures = 0;
        ask_scarce(i, 0);
        CHECK(the_req.over && the_req.status == 200, "%zu: %d %s", i, the_req.status, the_req.out.data);
        char *want = words();
        long n = 1;
        for (; ask_scarce(i, n) && bad < 5; n++) {
            bool error = the_req.status == 503 || strstr(the_req.out.data, "error");
            char *got = words();
            bool good = the_req.over && (error ? the_req.status == 503 || the_req.status == 200 : strcmp(got, want) == 0);
            if (!good) fprintf(stderr, "row %zu, allocation %ld: %d %s\n", i, n, the_req.status, the_req.out.data);
            bad += !good;
            failures += error;
            free(got);
        }
        CHECK(bad == 0 && failures > 20, "%zu: %d of %ld bad, %d failed", i, bad, n, failures);
        ask_scarce(i, 0);
        char *again = words();
        CHECK(strcmp(again, want) == 0, "%zu: as if nothing had been", i);
        free(again);
        free(want);
    }
    forget_reply();
}

static hd_status use_grammar(int kind, const json_t *schema, hd_err *why)
{
    static const char gbnf[] = "root ::= (word \" \"){1,5} end\nword ::= [a-z]+ | \"\\u00e9\"\nend ::= \"no\" | \"yes\"";
    hd_status st;
    hd_grammar *g = NULL;
    hd_grammar_state *s = NULL;
    float row_of[TINY_VOCAB] = {0};
    HD_TRY(kind ? hd_grammar_open_schema(&g, kind == 1 ? schema : NULL, why) : hd_grammar_open(&g, gbnf, sizeof gbnf - 1, why));
    HD_TRY(hd_grammar_state_open(&s, g, the_server.tok, why));
    HD_TRY(hd_grammar_mask(s, row_of, TINY_VOCAB, NULL, 0, why));
    HD_TRY(hd_grammar_accept(s, kind ? '{' : 'a', why));
    HD_TRY(hd_grammar_mask(s, row_of, TINY_VOCAB, NULL, 0, why));
fail:
    if (s) hd_grammar_state_close(s);
    hd_grammar_close(g);
    return st;
}

static void test_grammars(void)
{
    json_t *schema = json_loads(SCHEMA, 0, NULL);
    for (int kind = 0; kind < 3; kind++) {
        int bad = 0;
        long n = 1;
        for (bool reached = true; reached; n++) {
            hd_err why = {0};
            atomic_store(&made, 0);
            fail_at = n;
            hd_status st = use_grammar(kind, schema, &why);
            fail_at = 0;
            reached = atomic_load(&made) >= n;
            bool good = st == HD_OK || (reached && st == HD_NOMEM && why.msg[0]); // it may do without a hint
            if (!good) fprintf(stderr, "grammar %d, allocation %ld: %d %s\n", kind, n, st, why.msg);
            bad += !good;
        }
        CHECK(bad == 0 && n > 10, "%d: %d of %ld bad", kind, bad, n);
    }
    json_decref(schema);
}

int main(void)
{
    build_begin();
    serve_tiny("deepseek-r1");
    CHECK_OK(hd_grammars_open(&the_server.grammars, &err));
    test_grammars();
    test_requests();
    hd_grammars_close(the_server.grammars);
    hd_engine_close(the_server.engine);
    hd_ids_free(&warmed);
    build_end();
    return hd_test_end();
}
#endif
