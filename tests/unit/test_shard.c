/* Token shards: what is written is read, in both widths; a changed byte is noticed and named; failing writes
 * and allocations leave nothing behind. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include <dirent.h>
#include <stdint.h>
#include <unistd.h>

#include "base/rng.h"
#include "train/shard.h"

#include "test.h"

enum { DOCS = 300, MOST = 2000 };
static char dir[] = "/tmp/hadal-shard-XXXXXX";
static char path[64];
static uint8_t print[HD_SHARD_PRINT] = {1, 2, 3};
static hd_err err;

/* Document i: the same at every call. */
static int64_t make_doc(int i, int64_t n_vocab, int32_t *id, uint8_t *learnt, bool *masked)
{
    hd_rng r;
    hd_rng_seed(&r, 7, (uint64_t)i);
    int64_t n = i % 10 == 0 ? 1 + hd_rng_u32(&r) % MOST : 1 + hd_rng_u32(&r) % 60;
    for (int64_t k = 0; k < n; k++)
        id[k] = (int32_t)(hd_rng_u32(&r) % (uint64_t)n_vocab), learnt[k] = hd_rng_u32(&r) % 8 < 3;
    learnt[n / 2] = 1;
    *masked = i % 3 == 0;
    return n;
}

static hd_status write_all(int64_t n_vocab, hd_err *e)
{
    static int32_t id[MOST];
    static uint8_t learnt[MOST];
    hd_status st;
    hd_shard_writer *w = NULL;
    bool masked;
    HD_TRY(hd_shard_create(&w, path, print, n_vocab, e));
    for (int i = 0; i < DOCS; i++) {
        int64_t n = make_doc(i, n_vocab, id, learnt, &masked);
        HD_TRY(hd_shard_add(w, id, n, masked ? learnt : NULL, (uint64_t)n * 3, e));
    }
    HD_TRY(hd_shard_finish(w, e));
fail:
    hd_shard_writer_close(w);
    return st;
}

static hd_status read_all(const char *name, int *bad, hd_err *e)
{
    static int32_t id[MOST], want[MOST];
    static uint8_t learnt[MOST], want_learnt[MOST];
    hd_status st;
    hd_shard *s = NULL;
    bool masked;
    int64_t targets = 0;
    *bad = 0;
    HD_TRY(hd_shard_open(&s, name, e));
    const hd_shard_info *a = hd_shard_about(s);
    *bad += a->n_docs != DOCS || memcmp(a->tokenizer, print, sizeof print) != 0;
    for (int i = 0; i < DOCS; i++) {
        int64_t n = make_doc(i, a->n_vocab, want, want_learnt, &masked);
        hd_shard_doc d = hd_shard_doc_at(s, i);
        *bad += d.n != n || d.text_bytes != (uint64_t)n * 3;
        if (d.n != n) break;
        HD_TRY(hd_shard_read(s, d.at, n, id, e));
        int64_t half = n / 2;
        hd_shard_learnt(s, &d, 0, half, learnt);
        hd_shard_learnt(s, &d, half, n - half, learnt + half);
        if (!masked) memset(want_learnt, 1, sizeof want_learnt);
        *bad += memcmp(id, want, (size_t)n * 4) != 0 || memcmp(learnt, want_learnt, (size_t)n) != 0;
        for (int64_t k = 1; k < n; k++) targets += want_learnt[k];
    }
    *bad += targets != a->n_targets;
fail:
    hd_shard_close(s);
    return st;
}

static void test_round_trip(void)
{
    static const int64_t vocab[] = {2, 500, 65536, 65537, 200000};
    for (int i = 0; i < 5; i++) {
        int bad = 1;
        CHECK_OK(write_all(vocab[i], &err));
        CHECK_OK(read_all(path, &bad, &err));
        CHECK(bad == 0, "vocabulary %lld", (long long)vocab[i]);
        hd_shard *s = NULL;
        CHECK_OK(hd_shard_open(&s, path, &err));
        CHECK(hd_shard_about(s)->id_bytes == (vocab[i] > 65536 ? 4 : 2));
        CHECK_OK(hd_shard_check(s, &err));
        hd_shard_close(s);
    }
}

static void test_refused(void)
{
    hd_shard_writer *w = NULL;
    hd_shard *s = NULL;
    int32_t id[] = {1, 2, 9};
    uint8_t none[3] = {0};
    char other[64];
    snprintf(other, sizeof other, "%s/other.tok", dir);
    CHECK_OK(hd_shard_create(&w, other, print, 9, &err));
    CHECK(hd_shard_add(w, id, 3, NULL, 3, &err) == HD_FORMAT && strstr(err.msg, "id 9"), "%s", err.msg);
    CHECK(hd_shard_add(w, id, 0, NULL, 3, &err) == HD_LIMIT);
    CHECK_OK(hd_shard_add(w, id, 2, NULL, 3, &err));
    CHECK(hd_shard_add(w, id, 2, none, 3, &err) == HD_FORMAT && strstr(err.msg, "nothing is learnt"), "%s",
          err.msg);
    CHECK(hd_shard_finish(w, &err) != HD_OK); // after a failed one
    hd_shard_writer_close(w);
    CHECK(access(other, F_OK) != 0);
    CHECK(hd_shard_open(&s, other, &err) == HD_IO);
    CHECK_OK(hd_shard_create(&w, other, print, 9, &err)); // an empty one is one
    CHECK_OK(hd_shard_finish(w, &err));
    hd_shard_writer_close(w);
    CHECK_OK(hd_shard_open(&s, other, &err));
    CHECK(hd_shard_about(s)->n_docs == 0);
    CHECK(hd_shard_read(s, 0, 1, id, &err) == HD_USAGE);
    hd_shard_close(s);
    unlink(other);
}

/* Any byte changed, any length cut: opening or reading says so and names the file. */
static void test_damaged(void)
{
    hd_map m;
    int unnoticed = 0, unnamed = 0, bad;
    char other[64];
    snprintf(other, sizeof other, "%s/damaged.tok", dir);
    CHECK_OK(write_all(500, &err));
    CHECK_OK(hd_map_open(&m, path, &err));
    uint8_t *copy = malloc(m.size);
    memcpy(copy, m.data, m.size);
    for (size_t i = 0; i < m.size; i += i < 200 || i > m.size - 100 ? 1 : 53) {
        copy[i] ^= 0x10;
        FILE *f = fopen(other, "wb");
        if (!f || fwrite(copy, 1, m.size, f) != m.size || fclose(f) != 0) abort();
        copy[i] ^= 0x10;
        hd_status st = read_all(other, &bad, &err);
        unnoticed += st != HD_FORMAT && st != HD_UNSUPPORTED;
        unnamed += !strstr(err.msg, other);
    }
    CHECK(unnoticed == 0 && unnamed == 0, "%d, %d", unnoticed, unnamed);
    for (size_t n = 0; n < m.size; n += n < 300 ? 1 : 97) {
        CHECK(truncate(other, (off_t)m.size) == 0 && truncate(other, (off_t)n) == 0);
        CHECK(read_all(other, &bad, &err) == HD_FORMAT, "cut to %zu", n);
    }
    free(copy);
    hd_map_close(&m);
    unlink(other);
}

static int files_there(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

static void test_failures(void)
{
#ifndef NO_FAILURES
    int n = 1, wrong = 0, bad;
    for (;; n++) {
        hd_err why = {0};
        unlink(path);
        atomic_store(&made, 0);
        fail_at = n;
        hd_status st = write_all(500, &why);
        if (st == HD_OK) st = read_all(path, &bad, &why);
        fail_at = 0;
        wrong += st != HD_OK && st != HD_NOMEM;
        wrong += access(path, F_OK) != 0 && files_there() != 0;
        if (st == HD_OK) break;
    }
    CHECK(wrong == 0 && n > 10, "%d of %d", wrong, n);
#endif
    CHECK_OK(write_all(500, &err));
    snprintf(path, sizeof path, "%s/none/x.tok", dir);
    CHECK(write_all(500, &err) == HD_IO && strstr(err.msg, path), "%s", err.msg);
    CHECK(files_there() == 1);
}

int main(void)
{
    if (!mkdtemp(dir)) abort();
    snprintf(path, sizeof path, "%s/a.tok", dir);
    test_round_trip();
    test_refused();
    test_damaged();
    test_failures();
    char rm[64];
    snprintf(rm, sizeof rm, "rm -r %s", dir);
    CHECK(system(rm) == 0);
    return hd_test_end();
}
