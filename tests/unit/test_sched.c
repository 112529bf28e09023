/* The scheduler on tiny random models: a reply is the same alone, in a crowd, parked, cached; users share
 * evenly; jobs end when they are told to, wherever they are. */
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>

#include "scheds.h"

enum { N = 8 };
static int32_t text[4096];

static const hd_bias no_end = {TINY_EOS, -INFINITY};

/* Greedy, and it does not end by itself. */
static hd_job_opts plain(int64_t max_tok)
{
    return (hd_job_opts){.max_tok = max_tok, .sample = {.temperature = 0, .bias = &no_end, .n_bias = 1}};
}

static hd_job_opts seeded(int i)
{
    hd_job_opts o = plain(60 + 5 * i);
    o.sample = (hd_sample_opts){.temperature = 0.8f, .top_p = 0.95f, .top_k = i % 2 ? 20 : 0, .repetition_penalty = 1.1f, .seed = (uint64_t)i};
    o.user = 1 + (uint64_t)i % 3;
    return o;
}

static const int64_t length[N] = {3, 700, 64, 65, 300, 1, 128, 450};

/* All of them one after the other, each in a scheduler that knows nothing yet. */
static void alone(hd_engine *e, reply *r)
{
    for (int i = 0; i < N; i++) {
        hd_sched *s = open_sched(e, (hd_sched_opts){0});
        submit(s, &r[i], text + 10 * i, length[i], seeded(i));
        CHECK(wait_all(s, &r[i], 1), "job %d ends", i);
        CHECK(r[i].done && r[i].end.cached_tok == 0 && r[i].end.prompt_tok == length[i], "%s", r[i].why);
        free_jobs(&r[i], 1);
        hd_sched_close(s);
    }
}

static void test_crowd(tiny_kind kind)
{
    static reply one[N], many[N], again[N];
    hd_engine *e = tiny_engine(kind, 1, 1024, N);
    alone(e, one);
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    for (int i = 0; i < N; i++) submit(s, &many[i], text + 10 * i, length[i], seeded(i));
    CHECK(wait_all(s, many, N));
    for (int i = 0; i < N; i++) CHECK(same_reply(&many[i], &one[i]), "job %d in a crowd: %d ids of %d", i, many[i].n_id, one[i].n_id);
    for (int i = 0; i < N; i++) submit(s, &again[i], text + 10 * i, length[i], seeded(i));
    CHECK(wait_all(s, again, N));
    for (int i = 0; i < N; i++) {
        CHECK(same_reply(&again[i], &one[i]), "job %d from the cache", i);
        CHECK(again[i].end.cached_tok == (length[i] - 1) / HD_PAGE_TOK * HD_PAGE_TOK, "%lld", (long long)again[i].end.cached_tok);
    }
    free_jobs(many, N);
    free_jobs(again, N);
    hd_sched_stats st;
    hd_sched_get_stats(s, &st);
    CHECK(st.jobs_done == 2 * N && st.live == 0 && st.queued == 0 && st.parked == 0 && st.gen_tok > 0 && st.cached_tok > 0);
    hd_sched_close(s);
    CHECK(hd_cache_free_tok(e->cache) == (int64_t)hd_cache_n_pages(e->cache) * HD_PAGE_TOK, "every page is given back");
    hd_engine_close(e);
}


/* ---- How a job ends ---- */

static void test_ends(void)
{
    static reply r[8];
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 256, 4);
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    const char *stop[] = {"never said", "aaa"};
    hd_bias a = {'a', INFINITY}, eos = {TINY_EOS, 100};
    hd_job_opts o = plain(5);
    a.add = 100;
    o.sample.bias = &a;
    o.sample.n_bias = 1;
    submit(s, &r[0], text, 100, o);
    o.max_tok = 0;
    submit(s, &r[1], text, 250, o);
    o.stop = stop;
    o.n_stop = 2;
    submit(s, &r[2], text, 10, o);
    o.sample.bias = &eos;
    submit(s, &r[3], text, 10, o);
    CHECK(wait_all(s, r, 4));
    CHECK(r[0].end.reason == HD_END_LENGTH && strcmp(r[0].text, "aaaaa") == 0 && r[0].end.gen_tok == 5 && r[0].n_id == 5);
    CHECK(r[1].end.reason == HD_END_CONTEXT && r[1].n_id == 6, "%d", r[1].n_id);
    CHECK(r[2].end.reason == HD_END_STOP && r[2].text[0] == 0 && r[2].n_id == 3 && strcmp(r[2].stop, "aaa") == 0);
    CHECK(r[3].end.reason == HD_END_STOP && r[3].n_id == 0 && r[3].end.gen_tok == 1 && !r[3].stop[0]);
    CHECK(r[0].read == 100 && r[0].told_prefill > 0 && r[0].end.queue_s >= 0 && r[0].end.prefill_s > 0 && r[0].end.gen_s >= 0);
    free_jobs(r, 4);

    /* What cannot be is refused at once, and takes what it was given. */
    bool full = true;
    hd_job *j = NULL;
    hd_job_opts bad = {.event = hear_job};
    CHECK(hd_sched_submit(s, &j, &bad, &full, &err) == HD_USAGE && !full && !j, "an empty prompt");
    bad.prompt = ids_of(text, 256);
    CHECK(hd_sched_submit(s, &j, &bad, &full, &err) == HD_LIMIT && full && strstr(err.msg, "256") && !bad.prompt.id, "%s", err.msg);
    bad.prompt = ids_of((int32_t[]){1, TINY_VOCAB}, 2);
    CHECK(hd_sched_submit(s, &j, &bad, &full, &err) == HD_USAGE && !full);
    bad.prompt = ids_of(text, 3);
    bad.sample.top_p = 2;
    CHECK(hd_sched_submit(s, &j, &bad, &full, &err) == HD_USAGE && strstr(err.msg, "top_p"));
    bad.sample.top_p = 0;
    bad.stop = (const char *const[]){""};
    bad.n_stop = 1;
    bad.prompt = ids_of(text, 3);
    CHECK(hd_sched_submit(s, &j, &bad, &full, &err) == HD_USAGE);
    bad.n_stop = 0;
    bad.n_top = HD_MAX_TOP + 1;
    bad.prompt = ids_of(text, 3);
    CHECK(hd_sched_submit(s, &j, &bad, &full, &err) == HD_USAGE);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* Events one at a time, none lost, in their order. */
static void test_some(void)
{
    static reply r;
    hd_sched_stats st = {0};
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 256, 1);
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    int n = 0;
    CHECK(!hd_sched_poll_some(s, 1));
    submit(s, &r, text, 20, plain(20));
    for (int i = 0; i < 2000 && st.jobs_done == 0; i++) {
        usleep(5000);
        hd_sched_get_stats(s, &st);
    }
    for (bool more = true; more;) {
        more = hd_sched_poll_some(s, 1);
        CHECK(r.events == ++n);
    }
    CHECK(r.done && r.n_id == 20 && n > 10 && !hd_sched_poll_some(s, 1), "%d", n);
    free_jobs(&r, 1);
    hd_sched_close(s);
    hd_engine_close(e);
}

static void test_logprobs(void)
{
    static reply r;
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 256, 1);
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    hd_session *q = open_session(e);
    const float *x;
    double sum = 0;
    CHECK_OK(hd_session_sync(q, text, 20, NULL, &err));
    CHECK_OK(hd_session_logits(q, &x, &err));
    int32_t best = 0;
    for (int32_t i = 0; i < TINY_VOCAB; i++) {
        sum += exp((double)x[i]);
        if (x[i] > x[best]) best = i;
    }
    double want = (double)x[best] - log(sum);
    hd_session_close(q);
    hd_job_opts o = plain(1);
    o.logprobs = true;
    o.n_top = 5;
    submit(s, &r, text, 20, o);
    CHECK(wait_all(s, &r, 1) && r.done);
    CHECK(r.last.id == best && fabs((double)r.last.logprob - want) < 1e-4, "%g %g", (double)r.last.logprob, want);
    CHECK(r.last.n_top == 5 && r.last.top_id[0] == best && r.last.top_logprob[0] == r.last.logprob);
    for (int i = 1; i < 5; i++) CHECK(r.last.top_logprob[i] <= r.last.top_logprob[i - 1] && r.last.top_id[i] != best);
    free_jobs(&r, 1);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* A thought, its budget, and the ids that go with each. */
static void test_thinking(void)
{
    static reply r;
    hd_engine *e = NULL;
    hd_engine_opts eo = {.n_threads = 2, .ctx_tok = 256, .chat_format = "deepseek-r1"};
    CHECK_OK(hd_engine_open(&e, tiny_model(TINY_LLAMA, 1), &eo, &err));
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    hd_bias a = {'a', 100};
    hd_job_opts o = plain(9);
    o.chat = o.limit_thinking = true;
    o.think_tok = 4;
    o.sample.bias = &a;
    o.sample.n_bias = 1;
    submit(s, &r, (int32_t[]){TINY_BOS, 'x', TINY_THINK, '\n'}, 4, o);
    CHECK(wait_all(s, &r, 1) && r.done);
    CHECK(strcmp(r.thought, "aaaa") == 0 && strcmp(r.text, "aaaa") == 0, "'%s' '%s'", r.thought, r.text);
    CHECK(r.n_id == 9 && r.id[4] == TINY_END_THINK && r.end.thinking_tok == 4 && r.end.gen_tok == 9);
    free_jobs(&r, 1);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* A grammar holds for the answer, not for the thought, and ends the text when nothing can follow. */
static void test_grammar(void)
{
    static reply r[3];
    hd_engine *e = NULL;
    hd_engine_opts eo = {.n_threads = 2, .ctx_tok = 256, .chat_format = "deepseek-r1"};
    const char *rules = "root ::= \"yes\" | \"no\"";
    CHECK_OK(hd_engine_open(&e, tiny_model(TINY_LLAMA, 1), &eo, &err));
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    hd_grammar *g = NULL;
    CHECK_OK(hd_grammar_open(&g, rules, strlen(rules), &err));
    hd_bias no = {'n', 1000};
    hd_job_opts o = {.max_tok = 50, .grammar = hd_grammar_ref(g)};
    submit(s, &r[0], text, 30, o);
    o.grammar = hd_grammar_ref(g);
    o.sample.bias = &no;
    o.sample.n_bias = 1;
    submit(s, &r[1], text, 30, o);
    o.grammar = g;
    o.chat = o.limit_thinking = true;
    o.think_tok = 5;
    submit(s, &r[2], (int32_t[]){TINY_BOS, 'x', TINY_THINK, '\n'}, 4, o);
    CHECK(wait_all(s, r, 3) && r[0].done && r[1].done && r[2].done, "%s %s %s", r[0].why, r[1].why, r[2].why);
    CHECK(strcmp(r[0].text, "yes") == 0 || strcmp(r[0].text, "no") == 0, "'%s'", r[0].text);
    CHECK(strcmp(r[1].text, "no") == 0 && r[1].end.reason == HD_END_STOP, "'%s'", r[1].text);
    CHECK(strcmp(r[2].text, "no") == 0 && strcmp(r[2].thought, "nnnnn") == 0, "'%s' '%s'", r[2].thought, r[2].text);
    free_jobs(r, 3);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* Guessing ahead changes no id: alone, two at a time, in a crowd, from the cache, beside one that is
 * cancelled; with or without chance.  What is foreseen takes fewer passes, and everything is given back. */
static void test_draft(hd_engine *e, hd_draft_kind kind, hd_engine *small, const hd_bias *bias, int max)
{
    enum { D = 8 };
    static reply plainly[D], ahead[D], gone;
    hd_sched_stats st[2] = {{0}};
    for (int draft = 0; draft < 2; draft++) {
        reply *r = draft ? ahead : plainly;
        hd_sched *s = open_sched(e, (hd_sched_opts){.draft = draft ? kind : HD_DRAFT_NONE, .draft_max = max, .small = draft ? small : NULL});
        hd_job_opts o = plain(300), other = plain(0);
        if (bias) o.sample.bias = bias, o.sample.n_bias = 1;
        submit(s, &r[0], text, 100, o);
        CHECK(wait_all(s, r, 1));
        hd_sched_get_stats(s, &st[draft]);
        o.user = 1; // 1: what the first has asked goes on; 2: beside it
        submit(s, &r[1], text, 170, o);
        submit(s, &r[2], text, 100, o);
        CHECK(wait_all(s, r, 3) && r[2].end.cached_tok == 64);
        submit(s, &gone, text + 700, 30, other);
        for (int i = 3; i < D; i++) {
            o = seeded(i);
            o.max_tok = 60 + 20 * i;
            submit(s, &r[i], text + 3 * i, 100 * i, o);
        }
        while (r[D - 1].n_id < 10) hd_sched_poll(s);
        hd_job_cancel(gone.job);
        CHECK(wait_all(s, r, D));
        free_jobs(r, D);
        hd_sched_close(s);
        CHECK(hd_cache_free_tok(e->cache) == (int64_t)hd_cache_n_pages(e->cache) * HD_PAGE_TOK, "every page is given back");
        hd_cache *other_pages = small ? small->cache : e->mtp_cache;
        CHECK(!other_pages || hd_cache_free_tok(other_pages) == (int64_t)hd_cache_n_pages(other_pages) * HD_PAGE_TOK);
    }
    for (int i = 0; i < D; i++)
        CHECK(plainly[i].done && same_reply(&plainly[i], &ahead[i]), "draft %d, job %d: %d and %d ids", (int)kind, i, plainly[i].n_id, ahead[i].n_id);
    CHECK(plainly[0].n_id == 300 && st[1].drafted_tok >= st[1].accepted_tok && st[1].accepted_tok > 100 && st[0].drafted_tok == 0, "%lld of %lld",
          (long long)st[1].accepted_tok, (long long)st[1].drafted_tok);
    CHECK(max == 0 || st[1].drafted_tok <= max * st[1].passes, "at most %d a pass: %lld in %lld passes", max,
          (long long)st[1].drafted_tok, (long long)st[1].passes);
    CHECK(st[1].passes + st[1].accepted_tok * 9 / 10 < st[0].passes, "draft %d: %lld passes, %lld with guesses", (int)kind, (long long)st[0].passes,
          (long long)st[1].passes);
}

static void test_drafts(void)
{
    hd_sched *s = NULL;
    const hd_bias a = {'a', 100};
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 1024, 8), *small = foreseeing_engine(1024, 2), *v3 = foreseeing_engine(1024, 8);
    if (!SLOW) test_draft(e, HD_DRAFT_LOOKUP, NULL, &a, 0);
    if (!SLOW) test_draft(e, HD_DRAFT_LOOKUP, NULL, &a, 1);
    if (!SLOW) test_draft(v3, HD_DRAFT_MODEL, small, NULL, 0);
    test_draft(v3, HD_DRAFT_MTP, NULL, NULL, 0);
    CHECK(hd_sched_open(&s, e, &(hd_sched_opts){.draft = HD_DRAFT_MTP}, &err) == HD_UNSUPPORTED && !s, "%s", err.msg);
    CHECK(hd_sched_open(&s, e, &(hd_sched_opts){.draft = HD_DRAFT_MODEL}, &err) == HD_USAGE && !s, "%s", err.msg);
    hd_engine_close(e);
    hd_engine_close(small);
    hd_engine_close(v3);
}

/* ---- Queue ---- */

static void test_queue(void)
{
    static reply r[6];
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 2048, 2);
    hd_sched *s = open_sched(e, (hd_sched_opts){.max_queue = 3, .max_live = 1});
    hd_job_opts o = plain(0);
    hd_sched_stats st = {0};
    submit(s, &r[0], text, 400, o);
    while (r[0].events == 0) hd_sched_poll(s); // it lives
    o.max_tok = 3;
    for (int i = 1; i < 4; i++) submit(s, &r[i], text + i, 50, o);
    hd_job *j = NULL;
    bool full = true;
    o.prompt = ids_of(text, 5);
    CHECK(hd_sched_submit(s, &j, &o, &full, &err) == HD_LIMIT && !full && !o.prompt.id, "%s", err.msg);
    while (r[3].positions == 0) hd_sched_poll(s);
    hd_sched_get_stats(s, &st);
    CHECK(r[1].position == 0 && r[2].position == 1 && r[3].position == 2 && st.queued == 3, "%d %d", r[3].position, st.queued);

    hd_job_cancel(r[1].job); // while it waits
    while (r[3].position != 1) hd_sched_poll(s);
    CHECK(r[2].position == 0);
    hd_job_cancel(r[0].job); // while it is being answered
    CHECK(wait_all(s, r + 2, 2) && r[2].done && r[3].done && !ended(&r[0]) && !ended(&r[1]));
    CHECK(r[2].order < r[3].order);
    int heard = r[0].events;
    free_jobs(r + 2, 2);
    submit(s, &r[2], text, 2000, o);
    while (r[2].events == 0) hd_sched_poll(s);
    hd_job_cancel(r[2].job); // in the middle of its prompt
    submit(s, &r[3], text + 9, 30, o);
    CHECK(wait_all(s, r + 3, 1) && r[3].done && r[2].n_id == 0 && r[0].events == heard, "no event comes after cancel");
    free_jobs(r + 3, 1);
    hd_sched_get_stats(s, &st);
    CHECK(st.jobs_cancelled == 3 && st.queued == 0, "%lld", (long long)st.jobs_cancelled);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* A prompt that is read again after it was put aside in the middle: what was told already is
 * not told once more. */
static void test_told(void)
{
    static const int64_t at[] = {21, 44, 21, 44, 64, 64, 100}, told[] = {21, 44, 64, 100};
    static reply r;
    hd_mailbox m;
    hd_job *j = NULL;
    hd_job_opts o = {.prompt = ids_of(text, 100), .user = 1, .event = hear_job, .arg = &r};
    hd_mailbox_init(&m);
    CHECK_OK(hd_job_open(&j, &o, TINY_VOCAB, &err));
    for (int i = 0, n = 0; i < 7; i++) {
        CHECK_OK(hd_job_post_progress(&m, j, at[i], 100, &err));
        CHECK(!hd_mailbox_deliver(&m, INT_MAX));
        if (at[i] == told[n]) n++;
        CHECK(r.told_prefill == n && r.read == told[n - 1], "after %d: %d told, %lld read", i, r.told_prefill, (long long)r.read);
    }
    hd_job_unref(j);
    hd_mailbox_destroy(&m);
}

/* Ten of one user, then one of another: the other is served as if the first had one. */
static void test_fair(void)
{
    static reply r[11];
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 512, 12);
    for (int places = 2; places <= 12; places += 10) {
        hd_sched *s = open_sched(e, (hd_sched_opts){.max_live = places});
        for (int i = 0; i < 11; i++) {
            hd_job_opts o = plain(60);
            o.user = i < 10 ? 7 : 8;
            submit(s, &r[i], text + i, 60, o);
        }
        CHECK(wait_all(s, r, 11));
        int before = 0;
        for (int i = 0; i < 10; i++) before += r[i].order < r[10].order;
        CHECK(before <= 2, "with %d places: %d of ten ended first", places, before);
        free_jobs(r, 11);
        hd_sched_close(s);
    }
    hd_engine_close(e);
}

/* ---- Cache ---- */

static void test_shared(void)
{
    static reply r[4], burst[6];
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 1024, 6);
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    hd_sched_stats st;
    hd_job_opts o = plain(4);
    submit(s, &r[0], text, 400, o);
    CHECK(wait_all(s, r, 1));
    o.user = 2; // knows nothing of what the first has asked
    submit(s, &r[1], text, 400, o);
    CHECK(wait_all(s, r, 2) && r[1].end.cached_tok == 0 && same_reply(&r[0], &r[1]));
    o.shared_tok = 200;
    submit(s, &r[2], text + 500, 400, o);
    CHECK(wait_all(s, r, 3) && r[2].end.cached_tok == 0);
    o.user = 3; // but what the operator shares is everybody's
    submit(s, &r[3], text + 500, 400, o);
    CHECK(wait_all(s, r, 4) && r[3].end.cached_tok == 192, "%lld", (long long)r[3].end.cached_tok);
    CHECK(same_reply(&r[2], &r[3]));
    free_jobs(r, 4);

    /* One prompt at the same moment: it is computed once. */
    o = plain(4);
    o.user = 9;
    hd_sched_get_stats(s, &st);
    int64_t before = st.cached_tok;
    for (int i = 0; i < 6; i++) submit(s, &burst[i], text + 1000, 900, o);
    CHECK(wait_all(s, burst, 6));
    hd_sched_get_stats(s, &st);
    CHECK(st.cached_tok - before >= 5 * 896, "%lld", (long long)(st.cached_tok - before));
    for (int i = 1; i < 6; i++) CHECK(same_reply(&burst[0], &burst[i]));
    free_jobs(burst, 6);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* ---- Parking ---- */

static void test_park(hd_engine *roomy, hd_engine *tight, const char *dir, hd_draft_kind draft)
{
    enum { P = 6, SAY = 300 };
    static reply one[P], many[P];
    hd_sched_stats st;
    hd_sched *s = open_sched(roomy, (hd_sched_opts){0});
    hd_job_opts o[P];
    for (int i = 0; i < P; i++) {
        o[i] = seeded(i);
        o[i].max_tok = SAY;
        o[i].sample.bias = &no_end;
        o[i].sample.n_bias = 1;
        submit(s, &one[i], text + 7 * i, 100 + i, o[i]);
        CHECK(wait_all(s, &one[i], 1) && one[i].done && one[i].end.gen_tok == SAY);
        free_jobs(&one[i], 1);
    }
    hd_sched_close(s);
    s = open_sched(tight, (hd_sched_opts){.park_dir = dir, .disk_bytes = dir ? 1 << 30 : 0, .draft = draft});
    for (int i = 0; i < P; i++) submit(s, &many[i], text + 7 * i, 100 + i, o[i]);
    CHECK(wait_all(s, many, P));
    for (int i = 0; i < P; i++) CHECK(many[i].done && same_reply(&many[i], &one[i]), "job %d: %d of %d ids, %s", i, many[i].n_id, one[i].n_id, many[i].why);
    hd_sched_get_stats(s, &st);
    CHECK(st.parkings > 0 && st.parked == 0, "%lld", (long long)st.parkings);
    free_jobs(many, P);
    hd_sched_close(s);
    CHECK(hd_cache_free_tok(tight->cache) == (int64_t)hd_cache_n_pages(tight->cache) * HD_PAGE_TOK, "every page is given back");
    hd_engine_close(roomy);
    hd_engine_close(tight);
}

/* A disk that takes no file larger than so many bytes. */
static void disk_of(rlim_t bytes)
{
    struct rlimit l;
    getrlimit(RLIMIT_FSIZE, &l);
    l.rlim_cur = bytes < l.rlim_max ? bytes : l.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &l);
}

/* ---- Across a restart ---- */

static void stop_gently(hd_sched *s)
{
    hd_job *j = NULL;
    hd_job_opts o = {.prompt = ids_of(text, 5)};
    hd_sched_drain(s, true);
    CHECK(hd_sched_submit(s, &j, &o, NULL, &err) == HD_CANCELLED);
    for (int i = 0; i < 2000 && !hd_sched_idle(s); i++) usleep(10000);
    CHECK(hd_sched_idle(s));
    hd_sched_close(s);
}

static void test_disk(const char *dir)
{
    static reply a, b, c;
    hd_sched_opts so = {.park_dir = dir, .disk_bytes = 64 << 20};
    hd_sched_stats st;
    hd_engine *e = tiny_engine(TINY_V3, 1, 1024, 2);
    hd_sched *s = open_sched(e, so);
    hd_job_opts o = plain(20);
    submit(s, &a, text, 700, o);
    CHECK(wait_all(s, &a, 1));
    free_jobs(&a, 1);
    stop_gently(s);
    hd_engine_close(e);

    e = tiny_engine(TINY_V3, 1, 1024, 2);
    s = open_sched(e, so);
    hd_sched_get_stats(s, &st);
    CHECK(st.disk_tok >= 640 && st.disk_bytes > 0 && st.cache_tok == 0, "%lld", (long long)st.disk_tok);
    submit(s, &b, text, 700, o);
    CHECK(wait_all(s, &b, 1) && b.end.cached_tok == 640 && same_reply(&a, &b), "%lld", (long long)b.end.cached_tok);
    o.user = 2;
    submit(s, &c, text, 700, o);
    CHECK(wait_all(s, &c, 1) && c.end.cached_tok == 0 && same_reply(&a, &c), "another user finds nothing on disk either");
    free_jobs(&b, 1);
    free_jobs(&c, 1);
    hd_sched_close(s);
    hd_engine_close(e);

    e = tiny_engine(TINY_V3, 2, 1024, 2); // another model, the same shape
    s = open_sched(e, so);
    o.user = 1;
    submit(s, &b, text, 700, o);
    CHECK(wait_all(s, &b, 1) && b.done && b.end.cached_tok == 0);
    free_jobs(&b, 1);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* Everybody ends at once, and what was computed is kept. */
static void test_drain(const char *dir)
{
    static reply r[3];
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 2048, 2);
    hd_sched *s = open_sched(e, (hd_sched_opts){.park_dir = dir, .disk_bytes = 64 << 20, .max_live = 2});
    hd_job_opts o = plain(0);
    for (int i = 0; i < 3; i++) submit(s, &r[i], text + 100 * i, 500, o);
    while (r[0].n_id == 0) hd_sched_poll(s);
    hd_sched_drain(s, false);
    CHECK(wait_all(s, r, 3));
    for (int i = 0; i < 3; i++) CHECK(r[i].done && r[i].end.reason == HD_END_CANCELLED);
    for (int i = 0; i < 2000 && !hd_sched_idle(s); i++) usleep(10000);
    CHECK(hd_sched_idle(s));
    hd_sched_stats st;
    hd_sched_get_stats(s, &st);
    CHECK(st.disk_tok >= 448, "%lld", (long long)st.disk_tok);
    free_jobs(r, 3);
    hd_sched_close(s);
    hd_engine_close(e);
}

/* Many jobs of many users in a cache that holds two of them, and every third client goes
 * away at some moment. */
static void test_storm(const char *dir)
{
    enum { S = SLOW ? 40 : 150 };
    static reply r[S];
    hd_rng rng;
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 512, 2);
    hd_sched *s = open_sched(e, (hd_sched_opts){.park_dir = dir, .disk_bytes = 8 << 20, .max_live = 5});
    int gone = 0, answered = 0;
    hd_rng_seed(&rng, 11, 1);
    for (int i = 0; i < S; i++) {
        hd_job_opts o = seeded(i);
        o.user = 1 + hd_rng_u32(&rng) % 5;
        o.max_tok = 1 + hd_rng_u32(&rng) % 120;
        submit(s, &r[i], text + hd_rng_u32(&rng) % 3, 1 + hd_rng_u32(&rng) % 380, o);
        if (i % 2) usleep(hd_rng_u32(&rng) % 3000);
        hd_sched_poll(s);
        int k = (int)(hd_rng_u32(&rng) % (uint32_t)(i + 1));
        if (i % 3 || !r[k].job || ended(&r[k])) continue;
        hd_job_cancel(r[k].job);
        r[k].job = NULL;
        r[k].done = true; // nothing more may come
        gone++;
    }
    CHECK(wait_all(s, r, S));
    for (int i = 0; i < S; i++) answered += r[i].job && r[i].done;
    CHECK(answered + gone == S && gone > 0, "%d answered, %d gone", answered, gone);
    free_jobs(r, S);
    stop_gently(s);
    CHECK(hd_cache_free_tok(e->cache) == (int64_t)hd_cache_n_pages(e->cache) * HD_PAGE_TOK, "every page is given back");
    hd_engine_close(e);
}

/* ---- The next turn ---- */

static void test_next_turn(void)
{
    static reply r, again;
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 1024, 2);
    hd_sched *s = open_sched(e, (hd_sched_opts){0});
    int32_t prompt[600];
    memcpy(prompt, text, sizeof prompt);
    hd_bias th[] = {{'t', 100}, {'h', 100}};
    hd_job_opts o = plain(200);
    o.sample = (hd_sample_opts){.temperature = 1, .seed = 3, .bias = th, .n_bias = 2};
    submit(s, &r, prompt, 100, o);
    CHECK(wait_all(s, &r, 1) && r.n_id == 200);
    /* The answer is t and h in any order; told anew, each t + h is the one token "th". */
    hd_ids anew = ids_of(prompt, 100);
    CHECK_OK(hd_tokenizer_encode(e->tok, r.text, strlen(r.text), &anew, &err));
    CHECK(anew.n < 300 && anew.n > 150, "%lld", (long long)anew.n);
    for (int i = 0; i < 40; i++) CHECK_OK(hd_ids_add(&anew, TINY_EOS + i % 2, &err));
    o = plain(5);
    submit(s, &again, anew.id, anew.n, o);
    CHECK(wait_all(s, &again, 1) && again.done);
    CHECK(again.end.cached_tok >= 256 - 64 && again.end.cached_tok < again.end.prompt_tok, "%lld of %lld", (long long)again.end.cached_tok,
          (long long)anew.n);
    free_jobs(&r, 1);
    free_jobs(&again, 1);

    /* Computed when nothing else is to do, it is there when it is asked for. */
    hd_ids later = ids_of(text + 2000, 640);
    CHECK_OK(hd_sched_warm(s, &later, 1, 0, &err));
    hd_sched_stats st = {0};
    for (int i = 0; i < 2000 && st.cache_tok < 640 + 256; i++) {
        usleep(5000);
        hd_sched_get_stats(s, &st);
    }
    submit(s, &r, text + 2000, 640, o);
    CHECK(wait_all(s, &r, 1) && r.end.cached_tok == 576, "%lld", (long long)r.end.cached_tok);
    free_jobs(&r, 1);
    hd_ids_free(&anew);
    hd_sched_close(s);
    hd_engine_close(e);
}

int main(void)
{
    char dir[3][512];
    build_begin();
    sem_init(&woken, 0, 0);
    random_ids(text, 4096, 5);
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "park%d", i);
        snprintf(dir[i], sizeof dir[i], "%s", build_path(name));
    }
    test_crowd(TINY_LLAMA);
    test_crowd(TINY_V3);
    test_ends();
    test_some();
    test_logprobs();
    test_thinking();
    test_grammar();
    test_drafts();
    test_queue();
    test_told();
    test_fair();
    test_shared();
    test_park(tiny_engine(TINY_LLAMA, 1, 512, 1), tiny_engine(TINY_LLAMA, 1, 512, 2), NULL, HD_DRAFT_LOOKUP);
    test_park(foreseeing_engine(512, 1), foreseeing_engine(512, 2), dir[0], HD_DRAFT_MTP);
    if (!SLOW) test_park(tiny_engine(TINY_V3, 1, 512, 1), tiny_engine(TINY_V3, 1, 512, 2), dir[0], HD_DRAFT_NONE);
    disk_of(4096);
    if (!SLOW) test_park(tiny_engine(TINY_V3, 1, 512, 1), tiny_engine(TINY_V3, 1, 512, 2), dir[0], HD_DRAFT_NONE);
    disk_of(RLIM_INFINITY);
    test_disk(dir[1]);
    test_drain(dir[2]);
    test_storm(dir[0]);
    test_next_turn();
    build_end();
    return hd_test_end();
}
