/* Each allocation of a session's life fails in turn: the call says HD_NOMEM, and what there was before stays
 * usable. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include "sessions.h"

#ifdef NO_FAILURES
int main(void) { return hd_test_end(); }
#else

static int32_t id[200];
static hd_engine *e, *small;
static hd_session *s;
static const char *path;

static hd_status life(hd_draft_kind kind, hd_err *why)
{
    hd_status st;
    hd_session *t = NULL, *f = NULL;
    hd_sampler *p = NULL;
    hd_generate_opts o = {.max_tok = 5};
    hd_sample_opts so = {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1};
    HD_TRY(hd_session_open(&t, e, why));
    HD_TRY(hd_session_draft(t, kind, kind == HD_DRAFT_MODEL ? small : NULL, 0, why));
    HD_TRY(hd_session_sync(t, id, 66, NULL, why));
    HD_TRY(hd_sampler_open(&p, &so, e->n_vocab, why));
    HD_TRY(hd_generate(t, p, &o, NULL, why));
    HD_TRY(hd_session_fork(&f, t, why));
    HD_TRY(hd_generate(f, p, &o, NULL, why));
    HD_TRY(hd_session_queue(t, id, 20, why));
    HD_TRY(hd_session_queue(f, id + 1, 20, why));
    HD_TRY(hd_session_pass((hd_session *[]){t, f}, 2, why));
    HD_TRY(hd_session_save(t, path, why));
    HD_TRY(hd_session_restore(s, path, why));
fail:
    hd_sampler_close(p);
    hd_session_close(f);
    hd_session_close(t);
    return st;
}

static void test_life(hd_draft_kind kind)
{
    int n = 1, bad = 0;
    int64_t free_tok = hd_cache_free_tok(e->cache);
    for (;; n++) {
        hd_err why = {0};
        atomic_store(&made, 0);
        fail_at = n;
        hd_status st = life(kind, &why);
        fail_at = 0;
        bool reached = atomic_load(&made) >= n;
        bad += st != HD_OK && (st != HD_NOMEM || !why.msg[0]);
        bad += st == HD_NOMEM && !reached;
        hd_session_rewind(s, 0);
        bad += hd_cache_free_tok(e->cache) != free_tok;
        if (!reached || n > 2000) break; // all were made
    }
    CHECK(bad == 0, "kind %d: %d of %d failures went wrong", (int)kind, bad, n);
    CHECK(n > 20 && n <= 2000, "%d allocations", n);
    CHECK_OK(hd_session_sync(s, id, 30, NULL, &err));
    CHECK(as_fresh(s));
    hd_session_rewind(s, 0);
}

int main(void)
{
    build_begin();
    random_ids(id, 200, 8);
    const tiny_kind kinds[] = {TINY_LLAMA, TINY_V3};
    for (int k = 0; k < 2; k++) {
        e = tiny_engine(kinds[k], 1, 256, 3);
        small = tiny_engine(TINY_LLAMA, 2, 256, 3);
        s = open_session(e);
        path = build_path("life.session");
        test_life(HD_DRAFT_NONE);
        test_life(HD_DRAFT_LOOKUP);
        test_life(HD_DRAFT_MODEL);
        if (kinds[k] == TINY_V3) test_life(HD_DRAFT_MTP);
        hd_session_close(s);
        hd_engine_close(e);
        hd_engine_close(small);
    }
    build_end();
    return hd_test_end();
}
#endif
