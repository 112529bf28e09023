/* Text in pieces: the same whatever the borders of the tokens. */
#include "base/rng.h"
#include "infer/stream.h"
#include "test.h"

static hd_err err;

/* What was told: thoughts in brackets. */
typedef struct {
    char text[4096];
    size_t n;
    int pieces, bad;
    hd_text_kind kind;
} sink;

static void put(sink *k, const char *s, size_t n)
{
    if (k->n + n >= sizeof k->text) abort();
    memcpy(k->text + k->n, s, n);
    k->n += n;
    k->text[k->n] = 0;
}

static void take(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    sink *k = arg;
    if (kind != k->kind) put(k, kind == HD_TEXT_THINKING ? "[" : "]", 1);
    k->kind = kind;
    k->pieces++;
    k->bad += n == 0 || (text[0] & 0xc0) == 0x80; // never nothing, never the middle of a character
    put(k, text, n);
}

static void run(sink *k, const char *bytes, size_t n, const char *const *stop, int n_stop, size_t step,
                hd_rng *r, bool *stopped)
{
    hd_stream s = {.text = take, .arg = k, .stop = stop, .n_stop = n_stop};
    memset(k, 0, sizeof *k);
    k->kind = HD_TEXT_ANSWER;
    CHECK_OK(hd_stream_open(&s, HD_TEXT_ANSWER, &err));
    for (size_t i = 0; i < n;) {
        size_t part = r ? 1 + hd_rng_u32(r) % 5 : step;
        if (part > n - i) part = n - i;
        CHECK_OK(hd_stream_add(&s, bytes + i, part, &err));
        i += part;
    }
    CHECK_OK(hd_stream_end(&s, &err));
    CHECK(k->bad == 0, "a piece begins in the middle of a character, or is empty");
    *stopped = s.stopped;
    hd_stream_close(&s);
}

static void test_borders(void)
{
    static const char *const one[] = {"stop"}, *const two[] = {"abcd", "bc"}, *const tail[] = {"aab"},
                             *const wide[] = {"\xe2\x82\xac!"}, *const same[] = {"cd", "abcd"};
    static const struct {
        const char *in, *out;
        const char *const *stop;
        int n_stop;
        bool stops;
    } c[] = {
        {"plain", "plain", NULL, 0, false},
        {"caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80.",
         "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80.", NULL, 0, false},
        {"bad \xff, cut \xe4\xbd", "bad \xef\xbf\xbd, cut \xef\xbf\xbd", NULL, 0, false},
        {"\xe4\xbd\x41\x80", "\xef\xbf\xbd\x41\xef\xbf\xbd", NULL, 0, false},
        {"before stop after", "before ", one, 1, true},
        {"sto st s stopped", "sto st s ", one, 1, true},
        {"ends in sto", "ends in sto", one, 1, false},
        {"xabcdy", "xa", two, 2, true}, // "bc" is complete first
        {"xacdy", "xacdy", two, 2, false},
        {"aaab", "a", tail, 1, true},
        {"xabcdy", "x", same, 2, true}, // both end there: the longer one
        {"5\xe2\x82\xac 6\xe2\x82\xac!", "5\xe2\x82\xac 6", wide, 1, true},
        {"stop", "", one, 1, true},
        {"", "", one, 1, false},
    };
    hd_rng r;
    sink k;
    bool stopped;
    hd_rng_seed(&r, 1, 1);
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
        for (int way = 0; way < 20; way++) {
            run(&k, c[i].in, strlen(c[i].in), c[i].stop, c[i].n_stop, way == 0 ? 1000 : (size_t)way,
                way > 4 ? &r : NULL, &stopped);
            CHECK(strcmp(k.text, c[i].out) == 0 && stopped == c[i].stops, "case %zu: '%s', not '%s'", i,
                  k.text, c[i].out);
        }
}

/* Random bytes with random stop strings: every cut gives what one piece gives. */
static void test_random(void)
{
    static const char alphabet[] = "ab\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff";
    hd_rng r;
    sink whole, k;
    hd_rng_seed(&r, 2, 1);
    for (int round = 0; round < 500; round++) {
        char text[64], stop[2][8];
        const char *stops[] = {stop[0], stop[1]};
        size_t n = hd_rng_u32(&r) % sizeof text;
        bool end, end2;
        for (size_t i = 0; i < n; i++) text[i] = alphabet[hd_rng_u32(&r) % (sizeof alphabet - 1)];
        for (int s = 0; s < 2; s++) {
            static const char *const letter[] = {"a", "b", "\xc3\xa9", "\xe2\x82\xac"};
            stop[s][0] = 0;
            for (int len = 1 + (int)(hd_rng_u32(&r) % 2); len > 0; len--)
                strcat(stop[s], letter[hd_rng_u32(&r) % 4]);
        }
        run(&whole, text, n, stops, 2, 1000, NULL, &end);
        for (int way = 0; way < 3; way++) {
            run(&k, text, n, stops, 2, 1, way ? &r : NULL, &end2);
            CHECK(strcmp(k.text, whole.text) == 0 && end == end2, "round %d: '%s', not '%s'", round, k.text,
                  whole.text);
        }
    }
}

/* Text is told as soon as it is sure, no later. */
static void test_promptness(void)
{
    static const char *const stop[] = {"\n\n"};
    sink k = {.kind = HD_TEXT_ANSWER};
    hd_stream s = {.text = take, .arg = &k, .stop = stop, .n_stop = 1};
    CHECK_OK(hd_stream_open(&s, HD_TEXT_ANSWER, &err));
    CHECK_OK(hd_stream_add(&s, "a\xf0\x9f", 3, &err));
    CHECK(strcmp(k.text, "a") == 0);
    CHECK_OK(hd_stream_add(&s, "\x98\x80\n", 3, &err));
    CHECK(strcmp(k.text, "a\xf0\x9f\x98\x80") == 0, "the line break may begin a stop string");
    CHECK_OK(hd_stream_add(&s, "b", 1, &err));
    CHECK(strcmp(k.text, "a\xf0\x9f\x98\x80\nb") == 0);
    CHECK_OK(hd_stream_add(&s, "\n\nc", 3, &err));
    CHECK(s.stopped && strcmp(k.text, "a\xf0\x9f\x98\x80\nb") == 0);
    CHECK_OK(hd_stream_add(&s, "more", 4, &err));
    CHECK_OK(hd_stream_end(&s, &err));
    CHECK(strcmp(k.text, "a\xf0\x9f\x98\x80\nb") == 0, "nothing follows a stop string");
    hd_stream_close(&s);
}

static void test_thinking(void)
{
    static const char *const stop[] = {"END"};
    sink k = {.kind = HD_TEXT_ANSWER};
    hd_stream s = {.text = take, .arg = &k, .stop = stop, .n_stop = 1};
    CHECK_OK(hd_stream_open(&s, HD_TEXT_THINKING, &err));
    CHECK_OK(hd_stream_add(&s, "I say END\n", 10, &err));
    CHECK(strcmp(k.text, "[I say END") == 0, "a thought's last line end may belong to its mark");
    CHECK_OK(hd_stream_add(&s, "\n,\xe4\xbd", 4, &err));
    CHECK_OK(hd_stream_turn(&s, HD_TEXT_ANSWER, &err));
    CHECK_OK(hd_stream_add(&s, "\n", 1, &err));
    CHECK_OK(hd_stream_add(&s, "\nYes\n", 5, &err));
    CHECK_OK(hd_stream_add(&s, "EN", 2, &err));
    CHECK_OK(hd_stream_turn(&s, HD_TEXT_THINKING, &err));
    CHECK_OK(hd_stream_add(&s, "\nD\n\n", 4, &err));
    CHECK_OK(hd_stream_turn(&s, HD_TEXT_ANSWER, &err));
    CHECK_OK(hd_stream_add(&s, "xEND", 4, &err));
    CHECK(strcmp(k.text, "[I say END\n\n,\xef\xbf\xbd]Yes\nEN[D]x") == 0, "'%s'", k.text);
    CHECK(s.stopped);
    hd_stream_close(&s);
}

static void test_refusals(void)
{
    static const char *const empty[] = {"a", ""}, *const none[] = {NULL}, *const half[] = {"\xc3"};
    hd_stream s = {.stop = empty, .n_stop = 2};
    CHECK(hd_stream_open(&s, HD_TEXT_ANSWER, &err) == HD_USAGE && strstr(err.msg, "number 2"));
    hd_stream_close(&s);
    s = (hd_stream){.stop = none, .n_stop = 1};
    CHECK(hd_stream_open(&s, HD_TEXT_ANSWER, &err) == HD_USAGE);
    s = (hd_stream){.stop = half, .n_stop = 1};
    CHECK(hd_stream_open(&s, HD_TEXT_ANSWER, &err) == HD_USAGE && strstr(err.msg, "UTF-8"));
    s = (hd_stream){.stop = NULL, .n_stop = 1};
    CHECK(hd_stream_open(&s, HD_TEXT_ANSWER, &err) == HD_USAGE);
    s = (hd_stream){.n_stop = -1};
    CHECK(hd_stream_open(&s, HD_TEXT_ANSWER, &err) == HD_USAGE);
}

int main(void)
{
    test_borders();
    test_random();
    test_promptness();
    test_thinking();
    test_refusals();
    return hd_test_end();
}
