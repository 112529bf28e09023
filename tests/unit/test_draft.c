/* Speculation: with each kind of guess, greedily and with sampling, the text is the one without; guesses that
 * pay are made, guesses that do not are given up. */
#include "sessions.h"

enum { TEXT = 64 };

typedef struct {
    const char *name;
    tiny_kind kind;
    hd_draft_kind draft;
    int small; // seed of the smaller model: 1 is the model itself
} way;

static const way ways[] = {
    {"look-up", TINY_LLAMA, HD_DRAFT_LOOKUP, 0}, {"look-up, MLA", TINY_V3, HD_DRAFT_LOOKUP, 0},
    {"itself", TINY_LLAMA, HD_DRAFT_MODEL, 1},   {"another model", TINY_LLAMA, HD_DRAFT_MODEL, 2},
    {"MTP", TINY_V3, HD_DRAFT_MTP, 0},
};
enum { WAYS = sizeof ways / sizeof ways[0] };

static const hd_sample_opts samplings[] = {
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
    {.temperature = 0.3f, .top_p = 1, .repetition_penalty = 1, .seed = 5},
    {.temperature = 1, .top_p = 0.9f, .top_k = 40, .repetition_penalty = 1, .seed = 6},
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1.2f, .frequency_penalty = 0.1f},
};
enum { SAMPLINGS = sizeof samplings / sizeof samplings[0] };

typedef struct {
    hd_engine *e, *small;
} engines;

static engines open_engines(const way *w, int n_sessions)
{
    engines g = {tiny_engine(w->kind, 1, 1024, n_sessions), NULL};
    if (w->small) g.small = tiny_engine(w->kind, (uint64_t)w->small, 1024, n_sessions);
    return g;
}

static void close_engines(engines g)
{
    hd_engine_close(g.e);
    hd_engine_close(g.small);
}

static hd_session *drafting(const way *w, engines g, int max)
{
    hd_session *s = open_session(g.e);
    CHECK_OK(hd_session_draft(s, w->draft, g.small, max, &err));
    return s;
}

static hd_sampler *open_sampler(const hd_sample_opts *o, const int32_t *id, int n)
{
    hd_sampler *p = NULL;
    CHECK_OK(hd_sampler_open(&p, o, TINY_VOCAB, &err));
    hd_sampler_reset(p, id, n);
    return p;
}

/* A prompt that says things twice. */
static void prompt_ids(int32_t *id, int n)
{
    random_ids(id, n, 9);
    for (int i = n / 2; i < n; i++) id[i] = id[i - n / 2];
}

static void generate(hd_session *s, const hd_sample_opts *o, const int32_t *id, int n, int32_t *out)
{
    hd_sampler *p = open_sampler(o, id, n);
    CHECK_OK(hd_session_sync(s, id, n, NULL, &err));
    for (int i = 0; i < TEXT; i++) CHECK_OK(hd_session_next(s, p, &out[i], &err));
    hd_sampler_close(p);
}

static bool same(const int32_t *a, const int32_t *b, int n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* ---- The same text ---- */

static void test_same(const way *w)
{
    engines g = open_engines(w, 4);
    int32_t id[700], want[TEXT], got[TEXT];
    prompt_ids(id, 700);
    for (int i = 0; i < SAMPLINGS; i++)
        for (int n = 1; n <= 700; n += 233) {
            hd_session *s = open_session(g.e), *d = drafting(w, g, n % 2 ? 0 : 16);
            generate(s, &samplings[i], id, n, want);
            generate(d, &samplings[i], id, n, got);
            CHECK(same(want, got, TEXT), "%s, sampling %d, prompt of %d", w->name, i, n);
            CHECK(d->n_accepted <= d->n_drafted && d->n_passes <= s->n_passes,
                  "%s: passes %lld, without %lld", w->name, (long long)d->n_passes, (long long)s->n_passes);
            CHECK(as_fresh(d), "%s, sampling %d: the last logits", w->name, i);
            hd_session_close(s);
            hd_session_close(d);
        }
    close_engines(g);
}

/* In the middle of everything else that a session can do. */
static void test_turns(const way *w)
{
    engines g = open_engines(w, 6);
    int32_t id[300], want[TEXT], got[TEXT];
    hd_session *s = open_session(g.e), *d = drafting(w, g, 0), *fs, *fd;
    prompt_ids(id, 300);
    for (int turn = 0; turn < 3; turn++) { // a second prompt that keeps part of the first text
        generate(s, &samplings[turn], id, 100 + 50 * turn, want);
        generate(d, &samplings[turn], id, 100 + 50 * turn, got);
        CHECK(same(want, got, TEXT), "%s, turn %d", w->name, turn);
        memcpy(id + 100 + 50 * turn, got, 40 * sizeof *id);
    }
    hd_session_rewind(s, 120);
    hd_session_rewind(d, 120);
    hd_sampler *p = open_sampler(&samplings[0], id, 10);
    for (int i = 0; i < 50; i++) { // the caller's own ids in between
        int32_t a, b;
        if (i % 5 == 4) {
            a = b = i;
            CHECK_OK(hd_session_push(s, a, &err));
            CHECK_OK(hd_session_push(d, b, &err));
            continue;
        }
        CHECK_OK(hd_session_next(s, p, &a, &err));
        CHECK_OK(hd_session_next(d, p, &b, &err));
        CHECK(a == b, "%s, id %d after rewinding", w->name, i);
    }
    CHECK_OK(hd_session_fork(&fs, s, &err));
    CHECK_OK(hd_session_fork(&fd, d, &err));
    hd_session_close(d);
    for (int i = 0; i < 50; i++) {
        int32_t a, b;
        CHECK_OK(hd_session_next(fs, p, &a, &err));
        CHECK_OK(hd_session_next(fd, p, &b, &err));
        CHECK(a == b, "%s, id %d of a fork", w->name, i);
    }
    CHECK(as_fresh(fd), "%s: a fork", w->name);
    hd_sampler_close(p);
    hd_session_close(fs);
    hd_session_close(fd);
    hd_session_close(s);
    close_engines(g);
}

/* Several sessions in one pass, each guessing by itself. */
static void test_company(const way *w)
{
    enum { S = 3 };
    engines g = open_engines(w, S + 1);
    int32_t id[400], want[S][TEXT], got[S][TEXT];
    int n[S] = {0};
    hd_session *s[S];
    hd_sampler *p[S];
    prompt_ids(id, 400);
    for (int i = 0; i < S; i++) {
        hd_session *alone = open_session(g.e);
        generate(alone, &samplings[i], id + i, 30 + 150 * i, want[i]);
        hd_session_close(alone);
        s[i] = drafting(w, g, 0);
        p[i] = open_sampler(&samplings[i], id + i, 30 + 150 * i);
        CHECK_OK(hd_session_queue(s[i], id + i, 30 + 150 * i, &err));
    }
    for (int round = 0; round < 2 * TEXT; round++) {
        CHECK_OK(hd_session_pass(s, S, &err));
        for (int i = 0; i < S; i++)
            while (hd_session_ready(s[i]) && n[i] < TEXT)
                CHECK_OK(hd_session_next(s[i], p[i], &got[i][n[i]++], &err));
    }
    for (int i = 0; i < S; i++) {
        CHECK(n[i] == TEXT && same(want[i], got[i], TEXT), "%s, session %d of several", w->name, i);
        hd_session_close(s[i]);
        hd_sampler_close(p[i]);
    }
    close_engines(g);
}

/* ---- What pays is done, what does not is left ---- */

static void test_gain(void)
{
    int32_t id[64], text[TEXT];
    prompt_ids(id, 64);
    const way itself = {"itself", TINY_LLAMA, HD_DRAFT_MODEL, 1},
              other = {"another", TINY_LLAMA, HD_DRAFT_MODEL, 2},
              look = {"look-up", TINY_LLAMA, HD_DRAFT_LOOKUP, 0};

    /* What goes round in circles is foreseen by look-up: forbid all ids but one. */
    hd_bias few[TINY_VOCAB];
    for (int i = 0; i < TINY_VOCAB; i++) few[i] = (hd_bias){i, i < 1 ? 0 : -INFINITY};
    hd_sample_opts o = {.top_p = 1, .repetition_penalty = 1, .bias = few, .n_bias = TINY_VOCAB};
    engines g = open_engines(&look, 2);
    hd_session *s = drafting(&look, g, 0);
    generate(s, &o, id, 64, text);
    CHECK(s->n_accepted > TEXT / 2 && s->n_passes < TEXT / 2, "look-up: %lld passes, %lld of %lld accepted",
          (long long)s->n_passes, (long long)s->n_accepted, (long long)s->n_drafted);
    hd_session_close(s);

    /* Random words are not: guesses become few. */
    o = (hd_sample_opts){
        .temperature = 100, .top_p = 1, .repetition_penalty = 1, .bias = few, .n_bias = 0, .seed = 2};
    for (int i = 0; i < 8; i++) few[i] = (hd_bias){i, 0};
    for (int i = 8; i < TINY_VOCAB; i++) few[i] = (hd_bias){i, -INFINITY};
    o.n_bias = TINY_VOCAB;
    s = drafting(&look, g, 0);
    generate(s, &o, id, 64, text);
    CHECK(s->n_drafted > 0 && s->n_drafted < TEXT, "look-up of random words: %lld guesses",
          (long long)s->n_drafted);
    hd_session_close(s);
    close_engines(g);

    random_ids(id, 64, 10); // without repetitions, which look-up would answer
    g = open_engines(&itself, 2);
    s = drafting(&itself, g, 4);
    g.small->ctx_tok = 150; // the smaller model's context ends before the text does
    o = (hd_sample_opts){.top_p = 1, .repetition_penalty = 1};
    generate(s, &o, id, 64, text);
    CHECK(s->n_drafted == s->n_accepted, "a model foresees itself: %lld of %lld", (long long)s->n_accepted,
          (long long)s->n_drafted);
    hd_session_close(s);
    close_engines(g);

    g = open_engines(&other, 2);
    s = drafting(&other, g, 8);
    generate(s, &o, id, 64, text);
    CHECK(s->n_drafted < TEXT / 4, "a useless model is not asked for long: %lld guesses",
          (long long)s->n_drafted);
    CHECK(s->draft.small->n_passes < TEXT / 2, "nor run: %lld passes", (long long)s->draft.small->n_passes);
    hd_session_close(s);
    close_engines(g);
}

/* The extra layer of a model that it can foresee: nearly every guess is right, however the prompt was read;
 * while paused none is made, and no page is held; afterwards it takes up again. */
static void test_mtp(void)
{
    int32_t id[700], want[TEXT], got[TEXT];
    const hd_sample_opts greedy = {.top_p = 1, .repetition_penalty = 1};
    hd_engine *e = foreseeing_engine(1024, 3);
    int64_t pages = hd_cache_free_tok(e->mtp_cache);
    random_ids(id, 700, 3);
    for (int n = 1; n <= 700; n += 233) {
        hd_session *s = open_session(e), *d = open_session(e);
        CHECK_OK(hd_session_draft(d, HD_DRAFT_MTP, NULL, 2, &err));
        generate(s, &greedy, id, n, want);
        generate(d, &greedy, id, n, got);
        CHECK(same(want, got, TEXT), "prompt of %d", n);
        CHECK(d->n_accepted > TEXT / 2 && d->n_passes < s->n_passes - TEXT / 3, "prompt of %d: %lld passes, %lld without, %lld of %lld right", n,
              (long long)d->n_passes, (long long)s->n_passes, (long long)d->n_accepted, (long long)d->n_drafted);
        CHECK(hd_seq_len(d->draft.mtp) + d->draft.mtp_from >= n, "it has read the prompt");
        hd_sampler *p = open_sampler(&greedy, id, n);
        int64_t drafted = d->n_drafted, accepted = d->n_accepted;
        hd_session_pause_draft(d, true);
        hd_session_settle(d);
        CHECK(hd_cache_free_tok(e->mtp_cache) == pages && d->draft.n_hidden == 0);
        for (int i = 0; i < 20; i++) {
            CHECK_OK(hd_session_next(s, p, &want[i], &err));
            CHECK_OK(hd_session_next(d, p, &got[i], &err));
        }
        CHECK(d->n_drafted == drafted);
        hd_session_pause_draft(d, false);
        for (int i = 20; i < TEXT; i++) {
            CHECK_OK(hd_session_next(s, p, &want[i], &err));
            CHECK_OK(hd_session_next(d, p, &got[i], &err));
        }
        CHECK(d->n_accepted > accepted + 10, "%lld", (long long)(d->n_accepted - accepted));
        CHECK(as_fresh(d));
        hd_sampler_close(p);
        hd_session_close(s);
        hd_session_close(d);
    }
    CHECK(hd_cache_free_tok(e->mtp_cache) == pages);
    hd_engine_close(e);
}

/* A smaller model reads a long text that it has not seen slice by slice, one a pass. */
static void test_long_behind(void)
{
    int32_t id[1200], want[TEXT], got[TEXT];
    const way itself = {"itself", TINY_V3, HD_DRAFT_MODEL, 1};
    engines g = {foreseeing_engine(2048, 2), foreseeing_engine(2048, 1)};
    hd_session *s = open_session(g.e), *d = drafting(&itself, g, 4);
    random_ids(id, 1200, 4);
    hd_session_pause_draft(d, true);
    generate(s, &samplings[0], id, 1200, want);
    generate(d, &samplings[0], id, 1200, got);
    CHECK(same(want, got, TEXT) && d->n_drafted == 0 && hd_session_len(d->draft.small) == 0);
    hd_session_pause_draft(d, false);
    hd_sampler *p = open_sampler(&samplings[0], id, 1200);
    int32_t a, b;
    CHECK_OK(hd_session_next(s, p, &a, &err));
    CHECK_OK(hd_session_next(d, p, &b, &err));
    CHECK(hd_seq_len(d->draft.small->seq) <= hd_model_max_rows(g.small->model), "one slice");
    for (int i = 0; i < TEXT && a == b; i++) {
        CHECK_OK(hd_session_next(s, p, &a, &err));
        CHECK_OK(hd_session_next(d, p, &b, &err));
    }
    CHECK(a == b && d->n_accepted > TEXT / 3, "%lld of %lld", (long long)d->n_accepted, (long long)d->n_drafted);
    hd_sampler_close(p);
    hd_session_close(s);
    hd_session_close(d);
    close_engines(g);
}

static void test_context_end(const way *w)
{
    engines g = open_engines(w, 2);
    hd_session *d;
    int32_t id[200], next;
    hd_sampler *p = open_sampler(&samplings[0], NULL, 0);
    prompt_ids(id, 200);
    g.e->ctx_tok = 210;
    d = drafting(w, g, 0);
    CHECK_OK(hd_session_sync(d, id, 200, NULL, &err));
    for (int i = 0; i < 10; i++) CHECK_OK(hd_session_next(d, p, &next, &err));
    CHECK(hd_session_next(d, p, &next, &err) == HD_LIMIT && hd_session_len(d) == 210, "%s", w->name);
    CHECK(hd_seq_len(d->seq) <= 210, "%s: guesses stay inside the context too", w->name);
    hd_sampler_close(p);
    hd_session_close(d);
    close_engines(g);
}

static void test_refusals(void)
{
    hd_engine *llama = tiny_engine(TINY_LLAMA, 1, 64, 1), *v3 = tiny_engine(TINY_V3, 1, 64, 1);
    hd_session *s = open_session(llama);
    CHECK(hd_session_draft(s, HD_DRAFT_MTP, NULL, 0, &err) == HD_UNSUPPORTED, "no such layer");
    CHECK(hd_session_draft(s, HD_DRAFT_MODEL, NULL, 0, &err) == HD_USAGE, "no model");
    CHECK(hd_session_draft(s, HD_DRAFT_LOOKUP, NULL, -1, &err) == HD_USAGE);
    CHECK(hd_session_draft(s, HD_DRAFT_LOOKUP, NULL, HD_MAX_GUESS + 1, &err) == HD_USAGE);
    CHECK(hd_session_draft(s, (hd_draft_kind)9, NULL, 0, &err) == HD_USAGE);
    CHECK(hd_session_draft(s, HD_DRAFT_MODEL, llama, 0, &err) == HD_USAGE,
          "an engine cannot guess for itself");
    CHECK_OK(hd_session_draft(s, HD_DRAFT_MODEL, v3, 0, &err)); // of another kind, with the same vocabulary
    CHECK_OK(hd_session_draft(s, HD_DRAFT_LOOKUP, NULL, 3, &err)); // another choice
    CHECK_OK(hd_session_draft(s, HD_DRAFT_NONE, NULL, 0, &err));
    CHECK_OK(hd_session_push(s, 1, &err));
    CHECK(hd_session_draft(s, HD_DRAFT_LOOKUP, NULL, 0, &err) == HD_USAGE, "too late");
    hd_session_close(s);
    hd_engine_close(llama);
    hd_engine_close(v3);
}

int main(void)
{
    build_begin();
    for (int i = 0; i < WAYS; i++) {
        test_same(&ways[i]);
        test_turns(&ways[i]);
        test_company(&ways[i]);
        test_context_end(&ways[i]);
    }
    test_gain();
    test_mtp();
    test_long_behind();
    test_refusals();
    build_end();
    return hd_test_end();
}
