/* Sessions on disk: what comes back is what went, to the bit; every altered byte and every cut is an error
 * that leaves the session empty; a killed writer leaves a whole file. */
#include <signal.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "sessions.h"

static int32_t id[200];

/* A path that stays valid. */
static const char *keep_path(const char *name)
{
    static char kept[16][512];
    static int n;
    if (n == 16) abort();
    snprintf(kept[n], sizeof kept[n], "%s", build_path(name));
    return kept[n++];
}

static void generate(hd_session *s, int n, int32_t *out)
{
    hd_sample_opts o = {.temperature = 1, .top_p = 0.95f, .repetition_penalty = 1, .seed = 3};
    hd_sampler *p;
    CHECK_OK(hd_sampler_open(&p, &o, s->e->n_vocab, &err));
    for (int i = 0; i < n; i++) CHECK_OK(hd_session_next(s, p, &out[i], &err));
    hd_sampler_close(p);
}

static void test_round(tiny_kind kind, const char *cache, hd_draft_kind draft)
{
    const char *path = keep_path("round.session"), *again = keep_path("again.session");
    hd_engine_opts o = {.n_threads = 2, .ctx_tok = 256, .n_sessions = 3, .cache_type = cache};
    hd_engine *e;
    CHECK_OK(hd_engine_open(&e, tiny_model(kind, 1), &o, &err));
    for (int n = 0; n <= 130; n += 65) {
        hd_session *s = open_session(e), *r = open_session(e);
        int32_t a[60], b[60];
        CHECK_OK(hd_session_draft(s, draft, NULL, 0, &err));
        CHECK_OK(hd_session_draft(r, draft, NULL, 0, &err));
        if (n > 0) CHECK_OK(hd_session_sync(s, id, n, NULL, &err));
        if (n > 0) generate(s, 20, a);
        CHECK_OK(hd_session_save(s, path, &err));
        CHECK_OK(hd_session_sync(r, id + 7, 30, NULL, &err)); // replaced
        CHECK_OK(hd_session_restore(r, path, &err));
        CHECK(hd_session_len(r) == hd_session_len(s));
        CHECK(n == 0 || memcmp(hd_session_ids(r), hd_session_ids(s), (size_t)hd_session_len(s) * 4) == 0);
        CHECK_OK(hd_session_save(r, again, &err));
        hd_map m, k;
        CHECK_OK(hd_map_open(&m, path, &err));
        CHECK_OK(hd_map_open(&k, again, &err));
        CHECK(m.size == k.size && memcmp(m.data, k.data, m.size) == 0, "saved again it is the same file");
        hd_map_close(&m);
        hd_map_close(&k);
        if (n > 0) {
            int64_t before = r->n_passes;
            generate(s, 60, a);
            generate(r, 60, b);
            CHECK(memcmp(a, b, sizeof a) == 0, "%d ids: both go on alike", n);
            CHECK(r->n_passes - before <= 61, "nothing was computed again");
            CHECK(as_fresh(r));
        }
        hd_session_close(s);
        hd_session_close(r);
    }
    hd_engine_close(e);
}

/* ---- Damage ---- */

static hd_engine *e;
static hd_session *victim;
static const char *file;
static size_t size;
static int fd;

static void refused(size_t at, const char *what)
{
    hd_status st = hd_session_restore(victim, file, &err);
    CHECK(st == HD_FORMAT || st == HD_LIMIT || st == HD_UNSUPPORTED, "%s at %zu: status %d", what, at,
          (int)st);
    CHECK(hd_session_len(victim) == 0 && !hd_session_ready(victim) && strstr(err.msg, "session: "), "%s",
          err.msg);
}

static void flip(size_t at, uint8_t with)
{
    uint8_t b, old;
    if (pread(fd, &old, 1, (off_t)at) != 1) abort();
    b = old ^ with;
    if (pwrite(fd, &b, 1, (off_t)at) != 1) abort();
    refused(at, "an altered byte");
    if (pwrite(fd, &old, 1, (off_t)at) != 1) abort();
}

static void test_damage(void)
{
    hd_session *s = open_session(e);
    file = keep_path("damaged.session");
    CHECK_OK(hd_session_sync(s, id, 20, NULL, &err));
    CHECK_OK(hd_session_save(s, file, &err));
    hd_session_close(s);
    fd = open(file, O_RDWR);
    size = (size_t)lseek(fd, 0, SEEK_END);
    size_t head = 72 + 4 * 20, prime = 61;
    for (size_t at = 0; at < head; at++)
        for (int bit = 0; bit < 8; bit += at < 72 ? 1 : 7) flip(at, (uint8_t)(1 << bit));
    for (size_t at = head; at < size - 32; at += prime) flip(at, 0x10);
    for (size_t at = size - 32; at < size; at++) flip(at, 1);
    for (size_t n = size + 40; n > size; n -= 13) { // too long
        if (ftruncate(fd, (off_t)n) != 0) abort();
        refused(n, "a longer file");
    }
    if (ftruncate(fd, (off_t)size) != 0) abort();
    CHECK_OK(hd_session_restore(victim, file, &err)); // all is well again
    CHECK(hd_session_len(victim) == 20 && as_fresh(victim));
    for (size_t n = size - 1; n > 0; n -= n > 256 && n < size - 256 ? n % 31 + 1 : 1) {
        if (ftruncate(fd, (off_t)n) != 0) abort();
        refused(n, "a cut file");
    }
    if (ftruncate(fd, 0) != 0) abort();
    refused(0, "an empty file");
    close(fd);
}

/* Heads that lie, with a right checksum: the checksum is no secret. */
static void test_lies(void)
{
    static const uint64_t lie[] = {0,          1,          21,         255,        1 << 20, 0xffffffff,
                                   1ull << 32, 1ull << 61, 1ull << 62, ~0ull >> 1, ~0ull};
    hd_session *s = open_session(e);
    const char *good = keep_path("good.session");
    CHECK_OK(hd_session_sync(s, id, 20, NULL, &err));
    CHECK_OK(hd_session_save(s, good, &err));
    hd_session_close(s);
    hd_map m;
    CHECK_OK(hd_map_open(&m, good, &err));
    uint8_t *copy = malloc(m.size);
    file = keep_path("lie.session");
    static const struct {
        size_t at, width;
    } field[] = {{40, 4}, {44, 4}, {48, 8},
                 {56, 8}, {64, 8}, {72, 4}}; // layers, type, bytes, ids, positions, first id
    for (size_t f = 0; f < 6; f++)
        for (size_t i = 0; i < sizeof lie / sizeof lie[0]; i++) {
            memcpy(copy, m.data, m.size);
            if (memcmp(copy + field[f].at, &lie[i], field[f].width) == 0) continue;
            memcpy(copy + field[f].at, &lie[i], field[f].width);
            crypto_generichash(copy + m.size - 32, 32, copy, m.size - 32, NULL, 0);
            build_file("lie.session", copy, m.size);
            /* Another id, or fewer positions of the same page: nobody can tell. */
            if ((field[f].at == 72 && (uint32_t)lie[i] < TINY_VOCAB) || (field[f].at == 64 && lie[i] == 1)) {
                CHECK_OK(hd_session_restore(victim, file, &err));
                continue;
            }
            refused(field[f].at, "a lie");
        }
    /* The cache's own bytes may be anything: no crash, whatever comes of it. */
    memcpy(copy, m.data, m.size);
    for (size_t i = 72 + 80; i < m.size - 32; i++) copy[i] = (uint8_t)(i % 3 ? 0xff : 0x7c);
    crypto_generichash(copy + m.size - 32, 32, copy, m.size - 32, NULL, 0);
    build_file("lie.session", copy, m.size);
    CHECK_OK(hd_session_restore(victim, file, &err));
    int32_t out[8];
    generate(victim, 8, out);
    for (int i = 0; i < 8; i++) CHECK(out[i] >= 0 && out[i] < TINY_VOCAB);
    free(copy);
    hd_map_close(&m);
}

static void test_others(void)
{
    const char *path = keep_path("ours.session"), *folder = keep_path("folder"), *pipe = keep_path("pipe");
    hd_engine *other = tiny_engine(TINY_LLAMA, 2, 256, 1), *q8, *brief;
    hd_engine_opts o = {.n_threads = 1, .ctx_tok = 256, .cache_type = "q8_0"};
    hd_session *s = open_session(e), *r = open_session(other);
    CHECK_OK(hd_session_sync(s, id, 100, NULL, &err));
    CHECK_OK(hd_session_save(s, path, &err));
    CHECK(hd_session_restore(r, path, &err) == HD_FORMAT && strstr(err.msg, "another model"), "%s", err.msg);
    hd_session_close(r);
    CHECK_OK(hd_engine_open(&q8, tiny_model(TINY_LLAMA, 1), &o, &err));
    r = open_session(q8);
    CHECK(hd_session_restore(r, path, &err) == HD_FORMAT && strstr(err.msg, "cache"), "%s", err.msg);
    hd_session_close(r);
    o = (hd_engine_opts){.ctx_tok = 99};
    CHECK_OK(hd_engine_open(&brief, tiny_model(TINY_LLAMA, 1), &o, &err));
    r = open_session(brief);
    CHECK(hd_session_restore(r, path, &err) == HD_LIMIT, "%s", err.msg);
    hd_session_close(r);

    CHECK(hd_session_restore(s, build_path("missing"), &err) == HD_IO && hd_session_len(s) == 0);
    if (mkdir(folder, 0700) != 0 || mkfifo(pipe, 0600) != 0) abort();
    CHECK(hd_session_restore(s, folder, &err) == HD_IO);
    CHECK(hd_session_restore(s, pipe, &err) == HD_IO);
    CHECK(hd_session_restore(s, "/dev/zero", &err) == HD_IO);
    CHECK_OK(hd_session_sync(s, id, 10, NULL, &err));
    CHECK(hd_session_save(s, folder, &err) == HD_IO);
    CHECK(hd_session_save(s, build_path("no/such/folder"), &err) == HD_IO);
    CHECK(hd_session_len(s) == 10, "a save that fails changes nothing");

    /* A disk that fills up: the old file stays. */
    struct rlimit full = {4096, 4096}, old;
    getrlimit(RLIMIT_FSIZE, &old);
    full.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &full);
    CHECK(hd_session_save(s, path, &err) == HD_IO, "%s", err.msg);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_OK(hd_session_restore(s, path, &err));
    CHECK(hd_session_len(s) == 100);
    hd_session_close(s);
    hd_engine_close(other);
    hd_engine_close(q8);
    hd_engine_close(brief);
}

/* kill -9 in the middle of saving, again and again. */
static void test_kill(void)
{
    const char *path = keep_path("killed.session");
    hd_session *s = open_session(e);
    CHECK_OK(hd_session_sync(s, id, 150, NULL, &err));
    CHECK_OK(hd_session_save(s, path, &err));
    for (int round = 0; round < 12; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (int n = 100;; n = n == 100 ? 150 : 100) { // no pass: those need the parent's threads
                s->ids.n = n;
                if (hd_seq_len(s->seq) > n) hd_seq_trim(s->seq, n);
                if (hd_session_save(s, path, NULL) != HD_OK) _exit(1);
            }
        }
        usleep((useconds_t)(1000 + round * 700));
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        CHECK(WIFSIGNALED(status), "the writer was at work");
        CHECK_OK(hd_session_restore(victim, path, &err));
        CHECK(hd_session_len(victim) == 100 || hd_session_len(victim) == 150);
    }
    hd_session_close(s);
}

int main(void)
{
    build_begin();
    random_ids(id, 200, 4);
    test_round(TINY_LLAMA, NULL, HD_DRAFT_LOOKUP);
    test_round(TINY_QWEN2, "q8_0", HD_DRAFT_NONE);
    test_round(TINY_V3, "bf16", HD_DRAFT_MTP);
    e = tiny_engine(TINY_LLAMA, 1, 256, 3);
    victim = open_session(e);
    test_damage();
    test_lies();
    test_others();
    test_kill();
    hd_session_close(victim);
    hd_engine_close(e);
    build_end();
    return hd_test_end();
}
