/* The scheduler on tiny random models: a reply is the same alone, in a crowd, parked, cached; users share evenly; jobs end when
 * they are told to, wherever they are. */
#include "scheds.h"

enum { N = 8 };
static int32_t text[4096];

static hd_job_opts plain(int64_t max_tok)
{
    return (hd_job_opts){.max_tok = max_tok, .sample = {.temperature = 0}};
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

int main(void)
{
    build_begin();
    sem_init(&woken, 0, 0);
    random_ids(text, 4096, 5);
    test_crowd(TINY_LLAMA);
    test_crowd(TINY_V3);
    build_end();
    return hd_test_end();
}
