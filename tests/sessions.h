/* What the tests of sessions share: a folder for tiny models, engines of them, and comparisons bit by bit. */
#ifndef HD_TESTS_SESSIONS_H
#define HD_TESTS_SESSIONS_H

#include "files_build.h"
#include "infer/session.h"
#include "test.h"
#include "tiny.h"

static hd_err err;

static inline const char *tiny_file(const tiny_opts *o)
{
    char name[64];
    snprintf(name, sizeof name, "tiny-%d-%llu%s.gguf", (int)o->kind, (unsigned long long)o->seed, o->foresees ? "-foresees" : "");
    const char *path = build_path(name);
    if (access(path, R_OK) != 0) CHECK_OK(tiny_write(path, o, &err));
    return path;
}

static inline const char *tiny_model(tiny_kind kind, uint64_t seed)
{
    return tiny_file(&(tiny_opts){.kind = kind, .type = HD_Q8_0, .seed = seed});
}

/* Two threads, so that sharing work is part of every test. */
static inline hd_engine *tiny_engine_at(const char *path, int64_t ctx, int n_sessions)
{
    hd_engine *e = NULL;
    hd_engine_opts o = {.n_threads = 2, .ctx_tok = ctx, .n_sessions = n_sessions};
    CHECK_OK(hd_engine_open(&e, path, &o, &err));
    if (!e) exit(hd_test_end());
    return e;
}

static inline hd_engine *tiny_engine(tiny_kind kind, uint64_t seed, int64_t ctx, int n_sessions)
{
    return tiny_engine_at(tiny_model(kind, seed), ctx, n_sessions);
}

/* A V3 whose MTP layer guesses right. */
static inline hd_engine *foreseeing_engine(int64_t ctx, int n_sessions)
{
    return tiny_engine_at(tiny_file(&(tiny_opts){.kind = TINY_V3, .type = HD_Q8_0, .seed = 1, .foresees = true}), ctx, n_sessions);
}

static inline hd_session *open_session(hd_engine *e)
{
    hd_session *s = NULL;
    CHECK_OK(hd_session_open(&s, e, &err));
    if (!s) exit(hd_test_end());
    return s;
}

static inline void random_ids(int32_t *id, int n, uint64_t seed)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 3);
    for (int i = 0; i < n; i++) id[i] = (int32_t)(hd_rng_u32(&r) % 256);
}

/* The session's logits are bit for bit those of the ids computed afresh, in another engine session. */
static inline bool as_fresh(hd_session *s)
{
    const float *a, *b;
    hd_session *f = open_session(s->e);
    size_t bytes = (size_t)s->e->n_vocab * sizeof(float);
    float *copy = malloc(bytes);
    bool same = hd_session_logits(s, &a, &err) == HD_OK;
    if (same) memcpy(copy, a, bytes);
    same = same && hd_session_sync(f, hd_session_ids(s), hd_session_len(s), NULL, &err) == HD_OK &&
           hd_session_logits(f, &b, &err) == HD_OK && memcmp(copy, b, bytes) == 0;
    free(copy);
    hd_session_close(f);
    return same;
}

#endif
