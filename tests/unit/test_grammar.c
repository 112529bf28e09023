/* Grammars: what GBNF texts accept, byte by byte and by ids; random walks; what is refused, and that nothing
 * hostile takes long. */
#include "infer/grammar_impl.h"
#include "grammar_walk.h"
#include "test.h"

static hd_err err;
static hd_tokenizer *tok;
static int32_t stop;

/* Does the grammar accept all of text?  -1: the text leaves it. */
static int accepts(hd_grammar *g, const char *text)
{
    hd_grammar_state *s = NULL;
    hd_err e;
    int end = -1;
    CHECK_OK(hd_grammar_state_open(&s, g, tok, &err));
    size_t i = 0;
    while (text[i] && hd_grammar_accept(s, (uint8_t)text[i], &e) == HD_OK) i++; // ids 0..255 are the bytes
    if (!text[i]) end = hd_grammar_may_end(s);
    hd_grammar_state_close(s);
    return end;
}

typedef struct {
    const char *grammar, *yes[6], *no[6]; // `no`: left, or not complete
} language;

static const language languages[] = {
    {"root ::= \"yes\" | \"no\" | \"not\"", {"yes", "no", "not"}, {"", "ye", "nott", "x"}},
    {"root ::= [a-c]+ [^a-c\\n]*", {"a", "abcxyz", "a\xc3\xa9\xe4\xb8\xad"}, {"", "x", "axa", "a\n", "a\xff"}},
    {"root ::= \"a\"{2,3} \"b\"{2} \"c\"{1,}", {"aabbc", "aaabbccc"}, {"abbc", "aaaabbc", "aabc", "aabb"}},
    {"root ::= (\"a\" | \"b\" root \"c\")?", {"", "a", "bac", "bbacc", "bc"}, {"ba", "bacc", "ab"}},
    {"# comment\nroot ::= a # more\n | b\na ::= \"x\" b?\n\n\nb ::= \"y\"\n", {"x", "xy", "y"}, {"yy", "xx", ""}},
    {"root ::= (\n \"a\"\n | # c\n \"b\" )\n", {"a", "b"}, {"ab", ""}},
    {"root ::= \"\\x41\\u00e9\\U0001F600\\n\\\"\\\\\"", {"A\xc3\xa9\xf0\x9f\x98\x80\n\"\\"}, {"A", "a"}},
    {"root ::= [\\x20-\\x7e\\]\\-\\^] .", {"]x", "-\xc3\xa9", "^\n"}, {"]", "\x01x", "xxx"}},
    {"root ::= expr\nexpr ::= term ((\"+\" | \"-\") term)*\nterm ::= [0-9]+ | \"(\" expr \")\"", {"1+2", "(1-2)+(3)", "((1))"},
     {"1+", "(1", "1)"}},
    {"root ::= ( \"a\"? \"b\"? )*", {"", "ab", "ba", "bb"}, {"c"}},
    {"root ::= [\xc3\xa0-\xc3\xbf\xe4\xb8\x80-\xe9\xbe\xa5]{2}", {"\xc3\xa9\xe4\xb8\xad"}, {"\xc3\xa9", "ab", "\xc3\xa9\xc3"}},
    {"root ::= list\nlist ::= \"a\" \",\" list | \"a\"", {"a", "a,a,a,a"}, {"a,", ",a"}},
    {"root ::= \"\" \"x\"{0,0} \"y\"", {"y"}, {"x", ""}},
    {"root ::= a-b_1\na-b_1 ::= \"z\"", {"z"}, {"a"}},
};

static void test_languages(void)
{
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++) {
        const language *l = &languages[i];
        hd_grammar *g = NULL;
        CHECK_OK(hd_grammar_open(&g, l->grammar, strlen(l->grammar), &err));
        if (!g) continue;
        for (int k = 0; k < 6 && l->yes[k]; k++)
            CHECK(accepts(g, l->yes[k]) == 1, "grammar %zu: \"%s\"", i, l->yes[k]);
        for (int k = 0; k < 6 && l->no[k]; k++) CHECK(accepts(g, l->no[k]) != 1, "grammar %zu: \"%s\"", i, l->no[k]);
        hd_grammar_close(g);
    }
}

static void test_refused(void)
{
    static const struct {
        const char *grammar;
        hd_status st;
        const char *why;
    } cases[] = {
        {"", HD_FORMAT, "root"},
        {"a ::= \"x\"", HD_FORMAT, "root"},
        {"root ::= b", HD_FORMAT, "no rule b"},
        {"root ::= \"x", HD_FORMAT, "line 1, column"},
        {"root ::= [a", HD_FORMAT, "closing ]"},
        {"root ::= (\"a\"c\")?", HD_FORMAT, "closing \""},
        {"root ::= (\"a\"", HD_FORMAT, "closing )"},
        {"root ::= \"a\")", HD_FORMAT, "end of the rule"},
        {"root ::= [z-a]", HD_FORMAT, "backwards"},
        {"root ::= \"a\"{3,2}", HD_FORMAT, "{m,n}"},
        {"root ::= \"a\"{,}", HD_FORMAT, "{m,n}"},
        {"root ::= \"a\"{x}", HD_FORMAT, "{m,n}"},
        {"root ::= \"a\"**", HD_FORMAT, "in a row"},
        {"root ::= \"\\q\"", HD_FORMAT, "escape"},
        {"root ::= \"\\ud800\"", HD_FORMAT, "no such character"},
        {"root ::= \"\\x4\"", HD_FORMAT, "cut short"},
        {"root ::= \"\xff\"", HD_FORMAT, "UTF-8"},
        {"root ::= [\xff]", HD_FORMAT, "UTF-8"},
        {"root = \"a\"", HD_FORMAT, "::="},
        {"root ::= \"a\"\nroot ::= \"b\"", HD_FORMAT, "second rule"},
        {"root ::= <think>", HD_UNSUPPORTED, "tokens"},
        {"root ::= root \"a\" | \"b\"", HD_FORMAT, "left recursion"},
        {"root ::= a \"x\"\na ::= \"y\"? b\nb ::= root | \"z\"", HD_FORMAT, "left recursion"},
        {"root ::= root", HD_FORMAT, "left recursion"},
        {"root ::= \"a\" root", HD_FORMAT, "no text fits"},
        {"root ::= []", HD_FORMAT, "no text fits"},
        {"root ::= \"a\"{99999}", HD_LIMIT, "repetition"},
        {"root ::= (\"a\"{9999} | \"b\"{9999} | \"c\"{9999} | \"d\"{9999} | \"e\"{9999} | \"f\"{9999} | \"g\"{9999}) "
         "(\"a\"{9999} | \"b\"{9999} | \"c\"{9999} | \"d\"{9999} | \"e\"{9999} | \"f\"{9999} | \"g\"{9999})", HD_LIMIT, "too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hd_grammar *g = NULL;
        err.msg[0] = 0;
        hd_status st = hd_grammar_open(&g, cases[i].grammar, strlen(cases[i].grammar), &err);
        CHECK(st == cases[i].st, "%s: status %d: %s", cases[i].grammar, (int)st, err.msg);
        CHECK(strstr(err.msg, cases[i].why) != NULL, "%s: %s", cases[i].grammar, err.msg);
        CHECK(g == NULL, "nothing is opened");
        hd_grammar_close(g);
    }
}

/* head, n times middle, tail. */
static hd_status open_long(hd_grammar **g, const char *head, const char *middle, int n, const char *tail)
{
    hd_buf b;
    hd_buf_init(&b, 1 << 24);
    hd_buf_adds(&b, head, NULL);
    for (int i = 0; i < n; i++) hd_buf_adds(&b, middle, NULL);
    hd_buf_adds(&b, tail, NULL);
    *g = NULL;
    hd_status st = hd_grammar_open(g, b.data, b.len, &err);
    hd_buf_free(&b);
    return st;
}

/* Sources that would take for ever, or a deep stack, without the caps. */
static void test_hostile(void)
{
    hd_grammar *g;
    double t0 = hd_test_cpu_s();
    CHECK(open_long(&g, "root ::= ", "(", 1000000, "") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long(&g, "root ::= ", "(", 200000, "") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long(&g, "root ::= ", "(", 60, "\"a\"") == HD_FORMAT, "%s", err.msg);
    CHECK(open_long(&g, "root ::= ", "[", 200000, "") == HD_FORMAT, "%s", err.msg);
    CHECK(open_long(&g, "root ::= \"a\"", "*", 200000, "") == HD_FORMAT, "%s", err.msg);
    CHECK(open_long(&g, "root ::= ", ". ", 100000, "") == HD_OK, "%s", err.msg);
    hd_grammar_close(g);
    CHECK(open_long(&g, "root ::= \"a\"", " | \"a\"", 40000, "") == HD_OK, "%s", err.msg);
    hd_grammar_close(g);
    CHECK(open_long(&g, "root ::= \"", "a", 200000, "\"") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long(&g, "root ::= ", "a ", 100000, "\na ::= \"x\"") == HD_OK, "%s", err.msg);
    hd_grammar_close(g);

    /* Ten thousand rules, each the next: too many; some thousand: fine, also when read from the other end. */
    for (int n = 4000; n <= 12000; n += 8000)
        for (int up = 0; up < 2; up++) {
            hd_buf b;
            hd_buf_init(&b, 1 << 24);
            hd_buf_addf(&b, NULL, "root ::= r%d\n", up ? n : 0);
            for (int i = 0; i < n; i++) hd_buf_addf(&b, NULL, "r%d ::= \"a\" r%d\n", up ? n - i : i, up ? n - i - 1 : i + 1);
            hd_buf_addf(&b, NULL, "r%d ::= \"b\"\n", up ? 0 : n);
            hd_status st = hd_grammar_open(&g, b.data, b.len, &err);
            CHECK(st == (n > HD_GRAMMAR_RULES ? HD_LIMIT : HD_OK), "%d rules: %d %s", n, (int)st, err.msg);
            hd_grammar_close(g);
            hd_buf_free(&b);
        }
    CHECK(hd_test_cpu_s() - t0 < 3 * HD_TEST_SLACK, "%.1f s", hd_test_cpu_s() - t0);
}

/* Grammars that are fine to read and bad to follow: an error or an answer, soon. */
static void test_ambiguous(void)
{
    static const char *const grammars[] = {
        "root ::= a{0,60}\na ::= \"x\" | \"x\" a | \"x\" a \"x\" | \"x\" a \"y\"",
        "root ::= \"x\" root \"x\" | \"x\" root \"y\" | \"z\"",
        ("root ::= b b\nb ::= c c\nc ::= d d\nd ::= e e\ne ::= f f\nf ::= g g\ng ::= h h\nh ::= i i\ni ::= j j\nj ::= k k\nk ::= l l\n"
        "l ::= m m\nm ::= n n\nn ::= o o\no ::= p p\np ::= \"x\"?"),
        "root ::= (\"a\"{9999}){9999}",
        "root ::= ((((\"\"{9999}){9999}){9999}){9999}){9999} \"x\"",
        "root ::= (((((\"a\"?){9999}){9999}){9999}){9999}){9999}",
        "root ::= ([a-z] [a-z]?){0,9000} \".\"",
        "root ::= ([a-z]{0,300} [a-z]{0,300}){0,20} \".\"",
    };
    for (size_t i = 0; i < sizeof grammars / sizeof grammars[0]; i++) {
        hd_grammar *g = NULL;
        walk_result r = {0};
        hd_rng rng;
        double t0 = hd_test_cpu_s();
        hd_rng_seed(&rng, i, 1);
        CHECK_OK(hd_grammar_open(&g, grammars[i], strlen(grammars[i]), &err));
        hd_status st = walk(&r, g, tok, stop, &rng, 200, &err);
        CHECK(st == HD_OK || st == HD_LIMIT, "%zu: status %d: %s", i, (int)st, err.msg);
        CHECK(hd_test_cpu_s() - t0 < 5 * HD_TEST_SLACK, "%zu: %.1f s, %d ids", i, hd_test_cpu_s() - t0, r.n_tok);
        hd_buf_free(&r.text);
        hd_grammar_close(g);
    }
}

/* Depth: brackets open to the cap and no further, and can always be closed. */
static void test_depth(void)
{
    static const char text[] = "root ::= \"[[[\" (root | \"x\") \"]\" \"]\" \"]\"";
    hd_grammar *g = NULL;
    hd_grammar_state *s = NULL;
    hd_err e;
    int n = 0;
    CHECK_OK(hd_grammar_open(&g, text, strlen(text), &err));
    CHECK_OK(hd_grammar_state_open(&s, g, tok, &err));
    while (n < 100000 && hd_grammar_accept(s, '[', &e) == HD_OK) n++;
    CHECK(n >= 3 * HD_GRAMMAR_DEPTH / 2 && n <= 3 * (HD_GRAMMAR_DEPTH + 1) && n % 3 == 0, "%d brackets", n);
    CHECK_OK(hd_grammar_accept(s, 'x', &err));
    for (int i = 0; i < n; i++) {
        CHECK(!hd_grammar_may_end(s), "%d of %d closed", i, n);
        CHECK_OK(hd_grammar_accept(s, ']', &err));
    }
    CHECK(hd_grammar_may_end(s) && hd_grammar_must_end(s), "closed");
    hd_grammar_state_close(s);
    hd_grammar_close(g);
}

/* The mask says of every id what following its bytes says. */
static void test_masks(void)
{
    static const char *const grammars[] = {
        "root ::= \"{\\\"name\\\": \\\"\" ([^\"\\\\\\x00-\\x1f] | \"\\\\\" [nu\"]){0,40} \"\\\"}\"",
        "root ::= [^\\n]* \"\\n\"",
        "root ::= ([a-d]{1,3} \" \"?)+ \"\xf0\x9f\x98\x80\"",
        "root ::= (\"a\" | \"ab\" | \"abc\" root)+",
        "root ::= . . . . .",
    };
    int64_t n = hd_tokenizer_n_vocab(tok) + 5;
    float *logits = calloc((size_t)n, sizeof *logits);
    hd_rng rng;
    hd_rng_seed(&rng, 7, 1);
    for (size_t i = 0; i < sizeof grammars / sizeof grammars[0]; i++) {
        hd_grammar *g = NULL;
        CHECK_OK(hd_grammar_open(&g, grammars[i], strlen(grammars[i]), &err));
        for (int run = 0; run < 20; run++) {
            hd_ids past = {0};
            for (int step = 0; step < 12; step++) {
                hd_grammar_state *s = NULL;
                CHECK_OK(hd_grammar_state_open(&s, g, tok, &err));
                for (int64_t k = 0; k < past.n; k++) CHECK_OK(hd_grammar_accept(s, past.id[k], &err));
                for (int64_t k = 0; k < n; k++) logits[k] = 1;
                CHECK_OK(hd_grammar_mask(s, logits, n, &stop, 1, &err));
                int wrong = 0;
                for (int32_t id = 0; id < n; id++) {
                    hd_grammar_state *t = NULL;
                    hd_err e;
                    bool want = id == stop && hd_grammar_may_end(s);
                    if (id != stop && run < 3) {
                        CHECK_OK(hd_grammar_state_open(&t, g, tok, &err));
                        for (int64_t k = 0; k < past.n; k++) hd_grammar_accept(t, past.id[k], &e);
                        want = hd_grammar_accept(t, id, &e) == HD_OK;
                        hd_grammar_state_close(t);
                    } else if (id != stop) continue;
                    wrong += want != (logits[id] > -INFINITY);
                }
                CHECK(wrong == 0, "grammar %zu, step %d: %d ids", i, step, wrong);
                hd_grammar_state_close(s);
                int32_t id = walk_pick(logits, n, stop, &rng, tok, false);
                if (id < 0 || id == stop) break;
                hd_ids_add(&past, id, NULL);
            }
            hd_ids_free(&past);
        }
        hd_grammar_close(g);
    }
    free(logits);
}

/* Many texts on one grammar at once, through flushes of its states. */
static void test_many(void)
{
    static const char text[] = "root ::= [a-z]{0,5000} \"!\" [0-9]{0,5000} \".\"";
    enum { N = 6, LONG = 4000 };
    hd_grammar *g = NULL;
    hd_grammar_state *s[N];
    int64_t n = hd_tokenizer_n_vocab(tok);
    float *logits = calloc((size_t)n, sizeof *logits);
    CHECK_OK(hd_grammar_open(&g, text, strlen(text), &err));
    for (int i = 0; i < N; i++) CHECK_OK(hd_grammar_state_open(&s[i], g, tok, &err));
    hd_grammar_close(g); // the states keep it
    for (int k = 0; k < LONG; k++)
        for (int i = 0; i < N; i++) {
            if (k % 100 == 0 && hd_grammar_mask(s[i], logits, n, &stop, 1, &err) != HD_OK) CHECK(false, "%s", err.msg);
            int c = k == i * 100 ? '!' : k < i * 100 ? 'a' + k % 26 : '0' + k % 10;
            if (hd_grammar_accept(s[i], c, &err) != HD_OK) CHECK(false, "text %d, byte %d: %s", i, k, err.msg);
        }
    for (int i = 0; i < N; i++) {
        CHECK(!hd_grammar_may_end(s[i]), "not yet");
        CHECK(hd_grammar_accept(s[i], 'a', &err) == HD_FORMAT, "digits only");
        CHECK_OK(hd_grammar_accept(s[i], '.', &err));
        CHECK(hd_grammar_must_end(s[i]), "at the end");
        hd_grammar_state_close(s[i]);
    }
    free(logits);
}

int main(void)
{
    CHECK_OK(walk_tokenizer(&tok, &stop, &err));
    if (!tok) return hd_test_end();
    test_languages();
    test_refused();
    test_hostile();
    test_ambiguous();
    test_depth();
    test_masks();
    test_many();
    hd_tokenizer_close(tok);
    return hd_test_end();
}
