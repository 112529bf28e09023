/* Sessions on tiny random models: however ids come in, alone or in company, the logits have the same bits;
 * what is known already is not computed again; limits change nothing. */
#include "sessions.h"

enum { N = 1100 }; // more than two slices
static int32_t id[N];

static void test_ways(tiny_kind kind)
{
    hd_engine *e = tiny_engine(kind, 1, 2048, 4);
    hd_session *s = open_session(e), *q = open_session(e);
    const float *logits;
    CHECK_OK(hd_session_sync(s, id, N, NULL, &err));
    CHECK(hd_session_ready(s) && hd_session_len(s) == N);
    CHECK(s->n_passes == (N + hd_model_max_rows(e->model) - 1) / hd_model_max_rows(e->model), "%lld passes",
          (long long)s->n_passes);

    /* queued, then passes */
    CHECK_OK(hd_session_queue(q, id, N, &err));
    CHECK(!hd_session_ready(q) && q->n_passes == 0);
    for (int i = 0; i < 20 && !hd_session_ready(q); i++) CHECK_OK(hd_session_pass(&q, 1, &err));
    CHECK(hd_session_ready(q) && memcmp(s->rows, q->rows, (size_t)e->n_vocab * sizeof(float)) == 0);
    hd_session_close(q);

    /* one at a time, and several pushed without asking for logits in between */
    q = open_session(e);
    for (int i = 0; i < 70; i++) {
        CHECK_OK(hd_session_push(q, id[i], &err));
        if (i % 3 == 0) CHECK_OK(hd_session_logits(q, &logits, &err));
    }
    CHECK(as_fresh(q), "ids pushed");
    hd_session_close(q);
    hd_session_close(s);
    hd_engine_close(e);
}

static void test_keep(tiny_kind kind)
{
    hd_engine *e = tiny_engine(kind, 1, 1024, 2);
    hd_session *s = open_session(e);
    int32_t other[300];
    memcpy(other, id, sizeof other);
    for (int i = 200; i < 300; i++) other[i] = (other[i] + 1) % 256;

    CHECK_OK(hd_session_sync(s, id, 300, NULL, &err));
    CHECK_OK(hd_session_sync(s, other, 300, NULL, &err));
    CHECK(as_fresh(s), "after a change from 200 on");
    int64_t passes = s->n_passes;
    CHECK_OK(hd_session_sync(s, other, 300, NULL, &err));
    CHECK(s->n_passes == passes, "the same timeline costs nothing");
    CHECK_OK(hd_session_sync(s, other, 250, NULL, &err));
    CHECK(hd_session_len(s) == 250 && as_fresh(s), "a shorter timeline");
    CHECK_OK(hd_session_queue(s, other, 280, &err));
    CHECK(hd_seq_len(s->seq) >= 249, "a longer one goes on from what is kept: %lld",
          (long long)hd_seq_len(s->seq));
    CHECK(as_fresh(s));

    hd_session_rewind(s, 1000);
    CHECK(hd_session_len(s) == 280 && hd_session_ready(s), "rewinding beyond the end changes nothing");
    hd_session_rewind(s, 65);
    CHECK(hd_session_len(s) == 65 && !hd_session_ready(s) && as_fresh(s), "a rewound timeline");
    hd_session_rewind(s, -3);
    CHECK(hd_session_len(s) == 0);
    CHECK_OK(hd_session_sync(s, id, 5, NULL, &err));
    CHECK(as_fresh(s), "from nothing again");
    hd_session_close(s);
    hd_engine_close(e);
}

static void test_fork(tiny_kind kind)
{
    hd_engine *e = tiny_engine(kind, 1, 512, 4);
    hd_session *s = open_session(e), *f, *g;
    const float *a, *b;
    CHECK_OK(hd_session_sync(s, id, 100, NULL, &err));
    CHECK_OK(hd_session_fork(&f, s, &err));
    CHECK(hd_session_ready(f) && hd_session_len(f) == 100);
    CHECK_OK(hd_session_logits(f, &b, &err));
    CHECK_OK(hd_session_logits(s, &a, &err));
    CHECK(memcmp(a, b, (size_t)e->n_vocab * sizeof(float)) == 0, "a fork has its own logits at once");
    for (int i = 0; i < 40; i++) {
        CHECK_OK(hd_session_push(s, id[i], &err));
        CHECK_OK(hd_session_push(f, id[i + 1], &err));
        if (i % 7) continue;
        CHECK_OK(hd_session_logits(s, &a, &err));
        CHECK_OK(hd_session_logits(f, &a, &err));
    }
    CHECK(as_fresh(s) && as_fresh(f), "both parts go on by themselves");
    CHECK_OK(hd_session_fork(&g, f, &err));
    hd_session_close(f);
    CHECK(as_fresh(g), "a fork outlives where it came from");
    hd_session_close(g);
    hd_session_close(s);

    s = open_session(e); // of nothing
    CHECK_OK(hd_session_fork(&f, s, &err));
    CHECK(hd_session_len(f) == 0);
    CHECK_OK(hd_session_sync(f, id, 3, NULL, &err));
    hd_session_close(f);
    hd_session_close(s);
    hd_engine_close(e);
}

/* Long prompts, short ones and texts under way in the same passes. */
static void test_company(tiny_kind kind)
{
    enum { S = 7 };
    static const int64_t prompt[S] = {1, 700, 63, 64, 300, 5, 900};
    hd_engine *e = tiny_engine(kind, 1, 1024, S + 1);
    hd_session *s[S];
    bool shared = false;
    for (int i = 0; i < S; i++) {
        s[i] = open_session(e);
        CHECK_OK(hd_session_queue(s[i], id + i, prompt[i], &err));
    }
    for (int round = 0; round < 12 + 2 * 2100 / hd_model_max_rows(e->model); round++) {
        int64_t before = 0, ready = 0;
        for (int i = 0; i < S; i++) before += s[i]->n_passes;
        CHECK_OK(hd_session_pass(s, S, &err));
        for (int i = 0; i < S; i++) {
            before -= s[i]->n_passes;
            ready += hd_session_ready(s[i]);
            if (hd_session_ready(s[i])) CHECK_OK(hd_session_push(s[i], id[round], &err));
        }
        shared = shared || (before < -1 && ready > 1);
    }
    CHECK(shared, "several sessions were served by one pass");
    for (int i = 0; i < S; i++) {
        CHECK(hd_session_len(s[i]) > prompt[i], "session %d has come through its prompt", i);
        CHECK(as_fresh(s[i]), "session %d", i);
    }
    CHECK_OK(hd_session_pass(s, 0, &err));
    CHECK_OK(hd_session_pass((hd_session *[]){s[0], s[0], s[1]}, 3, &err)); // one twice: once is enough
    CHECK(as_fresh(s[0]));
    for (int i = 0; i < S; i++) hd_session_close(s[i]);
    hd_engine_close(e);
}

static void test_limits(void)
{
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 100, 1), *other = tiny_engine(TINY_QWEN2, 2, 64, 1);
    hd_session *s = open_session(e), *t = open_session(e), *far = open_session(other);
    const float *logits;
    int32_t bad[] = {1, 2, TINY_VOCAB};
    CHECK(hd_session_logits(s, &logits, &err) == HD_USAGE, "nothing to continue");
    CHECK(hd_session_sync(s, id, 0, NULL, &err) == HD_USAGE);
    CHECK(hd_session_sync(s, bad, 3, NULL, &err) == HD_USAGE && strstr(err.msg, "272"));
    bad[2] = -1;
    CHECK(hd_session_queue(s, bad, 3, &err) == HD_USAGE);
    CHECK(hd_session_push(s, -1, &err) == HD_USAGE && hd_session_push(s, TINY_VOCAB, &err) == HD_USAGE);
    CHECK(hd_session_len(s) == 0);

    CHECK_OK(hd_session_sync(s, id, 90, NULL, &err));
    CHECK(hd_session_sync(s, id, 101, NULL, &err) == HD_LIMIT && hd_session_len(s) == 90 &&
              hd_session_ready(s),
          "too long a timeline changes nothing");
    for (int i = 0; i < 10; i++) CHECK_OK(hd_session_push(s, id[i], &err));
    CHECK(hd_session_push(s, 1, &err) == HD_LIMIT && hd_session_len(s) == 100, "%s", err.msg);
    CHECK_OK(hd_session_logits(s, &logits, &err)); // a full context still has logits

    /* The pages are all taken: an error, and both sessions go on when some are given back. */
    CHECK(hd_session_sync(t, id + 50, 90, NULL, &err) == HD_LIMIT, "%s", err.msg);
    CHECK_OK(hd_session_logits(s, &logits, &err));
    hd_session_rewind(s, 10);
    CHECK_OK(hd_session_sync(t, id + 50, 60, NULL, &err));
    hd_session_close(s);
    CHECK(as_fresh(t));

    CHECK_OK(hd_session_queue(far, id, 3, &err));
    CHECK(hd_session_pass((hd_session *[]){t, far}, 2, &err) == HD_USAGE, "sessions of two engines");
    hd_session_close(t);
    hd_session_close(far);
    hd_session_close(NULL);
    hd_engine_close(e);
    hd_engine_close(other);
    hd_engine_close(NULL);
}

typedef struct {
    volatile sig_atomic_t stop;
    int calls;
    int64_t last, total;
    int stop_at;
} watched;

static void watch(void *arg, int64_t done, int64_t total)
{
    watched *w = arg;
    CHECK(done > w->last && done <= total, "%lld of %lld", (long long)done, (long long)total);
    w->last = done;
    w->total = total;
    if (++w->calls == w->stop_at) w->stop = 1;
}

static void test_watch(void)
{
    hd_engine *e = tiny_engine(TINY_LLAMA, 1, 2048, 2);
    hd_session *s = open_session(e);
    watched w = {.stop_at = 1};
    hd_watch h = {watch, &w, &w.stop};
    CHECK(hd_session_sync(s, id, N, &h, &err) == HD_CANCELLED && w.calls == 1);
    CHECK(hd_seq_len(s->seq) == w.last && !hd_session_ready(s), "what was computed is kept");
    w = (watched){.stop_at = -1};
    CHECK_OK(hd_session_sync(s, id, N, &h, &err));
    CHECK(w.last == w.total && w.total == N - hd_model_max_rows(e->model), "the rest: %lld of %lld",
          (long long)w.last, (long long)w.total);
    CHECK(as_fresh(s));
    w = (watched){.stop = 1};
    CHECK_OK(hd_session_sync(s, id, N, &h, &err)); // nothing to do, nothing to stop
    CHECK(hd_session_sync(s, id + 1, 5, &h, &err) == HD_CANCELLED && w.calls == 0);
    hd_session_close(s);
    hd_engine_close(e);
}

int main(void)
{
    build_begin();
    random_ids(id, N, 1);
    const tiny_kind kinds[] = {TINY_LLAMA, TINY_V3};
    for (int k = 0; k < 2; k++) {
        test_ways(kinds[k]);
        test_keep(kinds[k]);
        test_fork(kinds[k]);
        test_company(kinds[k]);
    }
    test_limits();
    test_watch();
    build_end();
    return hd_test_end();
}
