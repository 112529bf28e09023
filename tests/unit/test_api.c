/* The public library from a model file to an answer, through hadal.h alone but for making the model. */
#include <math.h>
#include <time.h>

#include "sessions.h"

/* ---- Opening ---- */

static void test_open(void)
{
    hd_engine *e = (hd_engine *)1;
    hd_engine_opts o = {0};
    const char *path = tiny_model(TINY_LLAMA, 1);
    CHECK(hd_engine_open(&e, build_path("missing.gguf"), NULL, &err) == HD_IO && !e, "%s", err.msg);
    CHECK(hd_engine_open(&e, "/dev/null", NULL, NULL) != HD_OK && !e);
    o.cache_type = "f99";
    CHECK(hd_engine_open(&e, path, &o, &err) == HD_USAGE && strstr(err.msg, "f99"));
    o = (hd_engine_opts){.ctx_tok = 4097};
    CHECK(hd_engine_open(&e, path, &o, &err) == HD_USAGE && strstr(err.msg, "4096"), "%s", err.msg);
    o.ctx_tok = -1;
    CHECK(hd_engine_open(&e, path, &o, &err) == HD_USAGE);
    o = (hd_engine_opts){.n_sessions = -1};
    CHECK(hd_engine_open(&e, path, &o, &err) == HD_USAGE);
    o = (hd_engine_opts){.n_sessions = 1 << 16, .ctx_tok = 4096};
    CHECK(hd_engine_open(&e, path, &o, &err) != HD_OK, "more sessions than memory holds");
    o = (hd_engine_opts){.chat_format = "esperanto"};
    CHECK(hd_engine_open(&e, path, &o, &err) == HD_USAGE && strstr(err.msg, "deepseek-r1"), "%s", err.msg);

    CHECK_OK(hd_engine_open(&e, path, NULL, &err));
    CHECK(hd_engine_ctx_tok(e) == 4096, "by default what the model was made for: %lld",
          (long long)hd_engine_ctx_tok(e));
    CHECK(hd_engine_n_vocab(e) == TINY_VOCAB && hd_engine_chat_name(e) == NULL);
    CHECK(hd_engine_is_stop(e, TINY_EOS) && !hd_engine_is_stop(e, 5) && !hd_engine_is_stop(e, -1));
    CHECK(strcmp(hd_version(), HADAL_VERSION) == 0);
    hd_sample_opts sampling;
    hd_sampler *p;
    hd_engine_sampling(e, &sampling);
    CHECK_OK(hd_sampler_open(&p, &sampling, hd_engine_n_vocab(e), &err)); // always what the sampler takes
    hd_sampler_close(p);
    uint64_t seed = sampling.seed;
    hd_engine_sampling(e, &sampling);
    CHECK(seed != sampling.seed, "another seed each time");
    hd_ids ids = {0};
    hd_message m = {.role = "user", .text = "Hello"};
    CHECK(hd_engine_render(e, &m, 1, -1, &ids, &err) == HD_UNSUPPORTED, "no chat format");
    hd_engine_close(e);
    const struct {
        bool exact, no_pack;
        const char *cache;
    } ways[] = {{true, false, NULL}, {false, true, "q8_0"}, {true, true, "F32"}};
    for (int i = 0; i < 3; i++) {
        o = (hd_engine_opts){.exact = ways[i].exact, .no_pack = ways[i].no_pack, .cache_type = ways[i].cache};
        CHECK_OK(hd_engine_open(&e, path, &o, &err));
        hd_session *s = open_session(e);
        CHECK_OK(hd_session_sync(s, (int32_t[]){1, 2, 3}, 3, NULL, &err));
        hd_session_close(s);
        hd_engine_close(e);
    }
}

static void test_text(void)
{
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 64, 1);
    const hd_tokenizer *t = hd_engine_tokenizer(e, &err);
    hd_ids ids = {0};
    char *text = NULL;
    size_t n = 99;
    CHECK(t != NULL);
    CHECK(hd_tokenizer_n_vocab(t) == TINY_TOKENS && hd_tokenizer_bos(t) == TINY_BOS);
    CHECK(hd_tokenizer_find(t, "</think>") == TINY_END_THINK && hd_tokenizer_find(t, "nothing") == -1);
    CHECK_OK(hd_tokenizer_encode(t, "the \xc3\xa9<think>", 13, &ids, &err));
    CHECK(ids.n > 5 && ids.id[0] == TINY_TH, "%lld ids", (long long)ids.n);
    CHECK_OK(hd_tokenizer_text(t, ids.id, ids.n, true, &text, &n, &err));
    CHECK(n == 13 && strcmp(text, "the \xc3\xa9<think>") == 0, "'%s'", text);
    free(text);
    ids.n = 0;
    CHECK_OK(hd_ids_add(&ids, TINY_EOS, &err));
    CHECK_OK(hd_tokenizer_text(t, ids.id, 1, false, &text, NULL, &err));
    CHECK(text[0] == 0, "a special token has no text");
    free(text);
    CHECK_OK(hd_tokenizer_text(t, ids.id, 1, true, &text, NULL, &err));
    CHECK(strcmp(text, "<|eos|>") == 0);
    free(text);
    CHECK_OK(hd_tokenizer_text(t, NULL, 0, true, &text, &n, &err));
    CHECK(n == 0 && text[0] == 0);
    free(text);
    hd_ids_free(&ids);
    CHECK(ids.id == NULL && ids.n == 0);
    hd_engine_close(e);
}

/* ---- Generation ---- */

typedef struct {
    char thought[4096], answer[4096];
    int calls, stop_after;
    volatile sig_atomic_t stop;
} told;

static void hear(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    told *t = arg;
    char *to = kind == HD_TEXT_THINKING ? t->thought : t->answer;
    size_t have = strlen(to);
    if (have + n >= sizeof t->answer) abort();
    memcpy(to + have, text, n);
    to[have + n] = 0;
    if (++t->calls == t->stop_after) t->stop = 1;
}

/* A sampler that says the given ids and nothing else, in turn, by pushing each above all others. */
static hd_sampler *only(const int32_t *id, int n)
{
    static hd_bias bias[TINY_VOCAB];
    hd_sample_opts o = {.top_p = 1, .repetition_penalty = 1, .bias = bias, .n_bias = TINY_VOCAB};
    hd_sampler *p = NULL;
    for (int i = 0; i < TINY_VOCAB; i++) bias[i] = (hd_bias){i, -INFINITY};
    for (int i = 0; i < n; i++) bias[id[i]].add = 0;
    CHECK_OK(hd_sampler_open(&p, &o, TINY_VOCAB, &err));
    return p;
}

static void test_generate(void)
{
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 64, 1);
    hd_session *s = open_session(e);
    hd_sampler *a = only((int32_t[]){'a'}, 1), *eos = only((int32_t[]){TINY_EOS}, 1);
    int32_t prompt[] = {TINY_BOS, 'x', 'y'};
    hd_generated r;
    told t = {.stop_after = 3};
    CHECK(hd_generate(s, a, NULL, &r, &err) == HD_USAGE, "nothing to continue");
    CHECK_OK(hd_session_sync(s, prompt, 3, NULL, &err));

    hd_generate_opts o = {.max_tok = 5, .text = hear, .arg = &t};
    CHECK_OK(hd_generate(s, a, &o, &r, &err));
    CHECK(r.why == HD_STOP_LENGTH && r.n_tok == 5 && r.n_thinking == 0 && r.n_passes == 4 && r.seconds >= 0,
          "%d %lld %lld", (int)r.why, (long long)r.n_tok, (long long)r.n_passes);
    CHECK(strcmp(t.answer, "aaaaa") == 0 && t.calls == 5 && hd_session_len(s) == 8, "'%s'", t.answer);

    t = (told){.stop_after = 3};
    o = (hd_generate_opts){.text = hear, .arg = &t, .stop_flag = &t.stop};
    CHECK_OK(hd_generate(s, a, &o, &r, &err));
    CHECK(r.why == HD_STOP_FLAG && r.n_tok == 3 && t.calls == 3);
    CHECK_OK(hd_session_queue(s, prompt, 3, &err));
    CHECK_OK(hd_generate(s, a, &o, &r, &err)); // set from the start: not even the prompt is computed
    CHECK(r.why == HD_STOP_FLAG && r.n_tok == 0 && r.n_passes == 0);

    const char *stop[] = {"aaa"};
    t = (told){0};
    o = (hd_generate_opts){.text = hear, .arg = &t, .stop = stop, .n_stop = 1};
    CHECK_OK(hd_generate(s, a, &o, &r, &err));
    CHECK(r.why == HD_STOP_STRING && r.n_tok == 3 && t.calls == 0, "%lld", (long long)r.n_tok);
    stop[0] = "";
    CHECK(hd_generate(s, a, &o, &r, &err) == HD_USAGE);

    CHECK_OK(hd_generate(s, eos, NULL, NULL, &err));
    CHECK(hd_session_ids(s)[hd_session_len(s) - 1] == TINY_EOS,
          "the id that ends a turn is part of the timeline");
    o = (hd_generate_opts){.max_tok = 4, .ignore_stop_ids = true};
    CHECK_OK(hd_generate(s, eos, &o, &r, &err));
    CHECK(r.why == HD_STOP_LENGTH && r.n_tok == 4);

    CHECK_OK(hd_generate(s, a, NULL, &r, &err));
    CHECK(r.why == HD_STOP_CONTEXT && hd_session_len(s) == 64, "%lld", (long long)hd_session_len(s));
    CHECK_OK(hd_generate(s, a, NULL, &r, &err));
    CHECK(r.why == HD_STOP_CONTEXT && r.n_tok == 0, "a full context is a reason, not an error");
    hd_sampler_close(a);
    hd_sampler_close(eos);
    hd_session_close(s);
    hd_engine_close(e);
}

/* Half characters, and bytes that are none. */
static void test_bytes(void)
{
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 64, 1);
    hd_session *s = open_session(e);
    static const struct {
        int32_t id;
        const char *text;
    } c[] = {{0xe2, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
             {0xff, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
             {TINY_EOS + 4, ""},
             {TINY_TOKENS + 1, ""}}; // a special token; a row of the matrix without a token
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        told t = {0};
        hd_generate_opts o = {.max_tok = 3, .text = hear, .arg = &t};
        hd_sampler *p = only(&c[i].id, 1);
        CHECK_OK(hd_session_sync(s, (int32_t[]){1}, 1, NULL, &err));
        CHECK_OK(hd_generate(s, p, &o, NULL, &err));
        CHECK(strcmp(t.answer, c[i].text) == 0, "id %d: '%s'", c[i].id, t.answer);
        hd_sampler_close(p);
    }
    hd_session_close(s);
    hd_engine_close(e);
}

/* ---- Thinking ---- */

static void think(hd_session *s, hd_sampler *p, hd_generate_opts o, told *t, hd_generated *r)
{
    *t = (told){0};
    o.chat = true;
    o.text = hear;
    o.arg = t;
    CHECK_OK(hd_generate(s, p, &o, r, &err));
}

static void test_thinking(void)
{
    hd_engine *e = NULL;
    hd_engine_opts eo = {.n_threads = 2, .ctx_tok = 256, .chat_format = "deepseek-r1"};
    hd_ids ids = {0};
    hd_generated r;
    told t;
    CHECK_OK(hd_engine_open(&e, tiny_model(TINY_LLAMA, 1), &eo, &err));
    CHECK(strcmp(hd_engine_chat_name(e), "deepseek-r1") == 0);
    hd_message m[] = {{.role = "system", .text = "Be brief."}, {.role = "user", .text = "What is <think>?"}};
    CHECK_OK(hd_engine_render(e, m, 2, -1, &ids, &err));
    CHECK(ids.n > 20 &&
          hd_engine_is_stop(e, hd_tokenizer_find(hd_engine_tokenizer(e, &err), "<｜end▁of▁sentence｜>")));
    m[0].role = "robot";
    int64_t n = ids.n;
    CHECK(hd_engine_render(e, m, 2, -1, &ids, &err) == HD_USAGE && strstr(err.msg, "robot") && ids.n == n);
    m[0].role = NULL;
    CHECK(hd_engine_render(e, m, 2, -1, &ids, &err) == HD_USAGE);
    CHECK(hd_engine_render(e, m, 0, -1, &ids, &err) == HD_USAGE);

    hd_session *s = open_session(e);
    hd_sampler *a = only((int32_t[]){'a'}, 1), *begin = only((int32_t[]){TINY_THINK}, 1),
               *nl = only((int32_t[]){'\n'}, 1), *end = only((int32_t[]){TINY_END_THINK}, 1);
    /* The prompt ends inside a thought, or not. */
    ids.n = 0;
    for (const char *c = "ab"; *c; c++) CHECK_OK(hd_ids_add(&ids, *c, &err));
    CHECK_OK(hd_ids_add(&ids, TINY_THINK, &err));
    CHECK_OK(hd_session_sync(s, ids.id, 3, NULL, &err));
    think(s, a, (hd_generate_opts){.max_tok = 4}, &t, &r);
    CHECK(strcmp(t.thought, "aaaa") == 0 && !t.answer[0] && r.n_thinking == 4, "'%s' '%s'", t.thought,
          t.answer);
    think(s, a, (hd_generate_opts){.max_tok = 2}, &t, &r); // goes on where it was
    CHECK(strcmp(t.thought, "aa") == 0, "'%s' '%s'", t.thought, t.answer);
    think(s, end, (hd_generate_opts){.max_tok = 1}, &t, &r);
    think(s, nl, (hd_generate_opts){.max_tok = 2}, &t, &r);
    CHECK(!t.thought[0], "after the mark it is the answer: '%s'", t.answer);
    think(s, a, (hd_generate_opts){.max_tok = 2}, &t, &r);
    CHECK(strcmp(t.answer, "aa") == 0 && r.n_thinking == 0, "'%s' '%s'", t.thought, t.answer);
    think(s, begin, (hd_generate_opts){.max_tok = 1}, &t, &r); // the model begins a thought itself
    think(s, a, (hd_generate_opts){.max_tok = 2}, &t, &r);
    CHECK(strcmp(t.thought, "aa") == 0 && !t.answer[0], "'%s' '%s'", t.thought, t.answer);

    /* A mark further ahead may be the user's own. */
    CHECK_OK(hd_session_sync(s, (int32_t[]){'q', TINY_THINK, '?', '\n'}, 4, NULL, &err));
    think(s, a, (hd_generate_opts){.max_tok = 1}, &t, &r);
    CHECK(strcmp(t.answer, "a") == 0, "'%s' '%s'", t.thought, t.answer);
    CHECK_OK(hd_session_sync(s, (int32_t[]){'q', TINY_THINK, '\n'}, 3, NULL, &err));
    think(s, a, (hd_generate_opts){.max_tok = 1}, &t, &r);
    CHECK(strcmp(t.thought, "a") == 0, "'%s' '%s'", t.thought, t.answer);

    /* The budget. */
    for (int budget = 0; budget < 4; budget++) {
        CHECK_OK(hd_session_sync(s, ids.id, 3, NULL, &err));
        think(s, a, (hd_generate_opts){.max_tok = 8, .limit_thinking = true, .think_tok = budget}, &t, &r);
        CHECK((int)strlen(t.thought) == budget && (int)strlen(t.answer) == 7 - budget &&
                  r.n_thinking == budget && r.n_tok == 8 && hd_session_ids(s)[3 + budget] == TINY_END_THINK,
              "budget %d: '%s' '%s'", budget, t.thought, t.answer);
    }
    hd_sampler_close(a);
    hd_sampler_close(begin);
    hd_sampler_close(end);
    hd_sampler_close(nl);
    hd_session_close(s);
    hd_ids_free(&ids);
    hd_engine_close(e);
}

int main(void)
{
    build_begin();
    test_open();
    test_text();
    test_generate();
    test_bytes();
    test_thinking();
    build_end();
    return hd_test_end();
}
