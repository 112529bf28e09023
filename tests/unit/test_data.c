/* The loader: every row of every document once an epoch, little padding, the same sequences whoever asks and
 * whenever, shares of a mixture, validation in order, and shards that are damaged or of another tokenizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include <math.h>
#include <unistd.h>

#include "base/rng.h"
#include "train/data.h"
#include "train/shard_dir.h"

#include "test.h"

enum { MOST = 5000, VOCAB = 1 << 24 };
static char dir[] = "/tmp/hadal-data-XXXXXX";
static uint8_t print[HD_SHARD_PRINT] = {9};
static int32_t id[MOST];
static uint8_t learnt[MOST];
static hd_err err;

/* Id k of document i tells both: i * MOST + k.  Documents i % 4 == 1 of a masked set are learnt where
 * k % 5 >= 3 alone. */
static bool is_learnt(int i, int k, bool masked) { return !masked || i % 4 != 1 || k % 5 >= 3; }

static const char *place(const char *name)
{
    static char path[4][64];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void make_set(const char *name, int n_docs, const int *len, bool masked, int64_t max_tok)
{
    hd_shard_dir_writer w;
    CHECK_OK(hd_shard_dir_begin(&w, place(name), print, VOCAB, max_tok, false, &err));
    for (int i = 0; i < n_docs; i++) {
        for (int k = 0; k < len[i]; k++) id[k] = i * MOST + k, learnt[k] = is_learnt(i, k, masked);
        if (hd_shard_dir_add(&w, id, len[i], masked && i % 4 == 1 && len[i] > 3 ? learnt : NULL,
                             (uint64_t)len[i] * 4, &err) != HD_OK)
            CHECK(false, "%s", err.msg);
    }
    CHECK_OK(hd_shard_dir_finish(&w, NULL, &err));
    hd_shard_dir_writer_close(&w);
}

/* Lengths as texts have them: many short, some long (log-normal). */
static void text_lengths(int *len, int n, double median, uint64_t seed)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 0);
    for (int i = 0; i < n; i++) {
        double v = median * exp(1.0 * hd_rng_normal(&r));
        len[i] = v < 2 ? 2 : v > MOST ? MOST : (int)v;
    }
}

static hd_data *open_set(const char *name, int seq, uint64_t seed)
{
    hd_data *d = NULL;
    hd_data_source s = {place(name), 1};
    CHECK_OK(hd_data_open(&d, &s, 1, seq, seed, VOCAB, &err));
    return d;
}

/* Counts rows of a micro-batch in seen[doc * MOST + k]; returns rows that are wrong. */
static int count_rows(const hd_micro *b, int *seen, const int *len, bool masked, int64_t *padding)
{
    int bad = 0, at = 0;
    for (int i = 0; i < b->n_docs; i++) {
        int doc = b->tok[at] / MOST, k0 = b->tok[at] % MOST;
        bool pad = b->tok[at] == 0 && b->target[at] == -1 && b->len[i] > 0 &&
                   (b->len[i] == 1 || b->tok[at + 1] == 0);
        for (int k = 0; k < b->len[i]; k++, at++) {
            if (pad) {
                bad += b->tok[at] != 0 || b->target[at] != -1;
                ++*padding;
                continue;
            }
            bool last = k0 + k == len[doc] - 1, mask = masked && doc % 4 == 1 && len[doc] > 3;
            bool has = !last && is_learnt(doc, k0 + k + 1, mask);
            bad += b->tok[at] != doc * MOST + k0 + k || b->target[at] != (has ? b->tok[at] + 1 : -1);
            seen[b->tok[at]]++;
        }
    }
    return bad + (at != b->n_rows);
}

static void test_epochs(int n_docs, double median, int seq, bool masked, double most_padding)
{
    int *len = malloc((size_t)n_docs * sizeof *len), *seen = calloc((size_t)n_docs * MOST, sizeof *seen);
    int64_t padding = 0, tokens = 0;
    hd_micro b;
    text_lengths(len, n_docs, median, 3);
    len[0] = 10 * seq < MOST ? 10 * seq : MOST; // one that is far longer than a sequence
    len[n_docs - 1] = seq;
    for (int i = 0; i < n_docs; i++) tokens += len[i];
    make_set("epochs", n_docs, len, masked, tokens / 3);
    hd_data *d = open_set("epochs", seq, 5);
    CHECK(hd_data_tokens(d) == tokens);
    uint64_t at = 0;
    int bad = 0, wrong = 0, n_seq[3] = {0};
    for (int e = 0; e < 3; e++) {
        memset(seen, 0, (size_t)n_docs * MOST * sizeof *seen);
        for (int64_t rows = 0; rows < tokens; at++, n_seq[e]++) {
            int64_t pad = padding;
            CHECK_OK(hd_data_get(d, at, 1, &b, &err));
            bad += count_rows(&b, seen, len, masked, &padding) + (b.n_rows != seq);
            rows += b.n_rows - (padding - pad);
        }
        for (int i = 0; i < n_docs; i++)
            for (int k = 0; k < MOST; k++) wrong += seen[i * MOST + k] != (k < len[i]);
        CHECK(fabs(hd_data_epoch(d, at) - (e + 1)) < 1e-9, "%g", hd_data_epoch(d, at));
    }
    double share = (double)padding / (double)((int64_t)at * seq);
    CHECK(bad == 0 && wrong == 0, "%d rows wrong, %d not once", bad, wrong);
    CHECK(share < most_padding, "%d documents, median %g, sequences of %d: %.2f %% padding", n_docs, median,
          seq, 100 * share);
    hd_data_close(d);
    free(len);
    free(seen);
    char rm[100];
    snprintf(rm, sizeof rm, "rm -r %s/epochs", dir);
    CHECK(system(rm) == 0);
}

static uint64_t digest(const hd_micro *b)
{
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < b->n_rows; i++)
        h = (h ^ (uint32_t)b->tok[i] ^ (uint64_t)(uint32_t)b->target[i] << 32) * 1099511628211u;
    for (int i = 0; i < b->n_docs; i++) h = (h ^ (uint32_t)b->len[i]) * 1099511628211u;
    return h;
}

/* What comes at an index does not depend on what was asked before. */
static void test_pure(void)
{
    enum { N = 9000 };
    static uint64_t want[N];
    hd_micro b;
    hd_data *d = open_set("text", 128, 11), *e = open_set("text", 128, 12);
    int same = 0, wrong = 0;
    for (int i = 0; i < N; i++) {
        CHECK_OK(hd_data_get(d, (uint64_t)i, 1, &b, &err));
        want[i] = digest(&b);
        CHECK_OK(hd_data_get(e, (uint64_t)i, 1, &b, &err));
        same += digest(&b) == want[i];
    }
    CHECK(same < 5, "%d of %d sequences are the same under another seed", same, N);
    CHECK(hd_data_epoch(d, N) > 2, "%g", hd_data_epoch(d, N)); // else nothing of an epoch's border was seen
    for (int i = 0; i < 400; i++) {                            // backwards, with jumps
        int at = N - 1 - i * 37 % N;
        CHECK_OK(hd_data_get(d, (uint64_t)at, 1, &b, &err));
        wrong += digest(&b) != want[at];
    }
    hd_data_close(d);
    for (int at = 17; at < N; at += 977) { // resumed anywhere
        d = open_set("text", 128, 11);
        CHECK_OK(hd_data_get(d, (uint64_t)at, 1, &b, &err));
        wrong += digest(&b) != want[at];
        hd_data_close(d);
    }
    CHECK(wrong == 0, "%d", wrong);
    /* several at once are those one after another */
    d = open_set("text", 128, 11);
    hd_micro one;
    int32_t tok[4 * 128], target[4 * 128];
    CHECK_OK(hd_data_get(d, 60, 4, &b, &err));
    CHECK(b.n_rows == 4 * 128);
    memcpy(tok, b.tok, sizeof tok), memcpy(target, b.target, sizeof target);
    for (int i = 0; i < 4; i++) {
        CHECK_OK(hd_data_get(d, 60 + (uint64_t)i, 1, &one, &err));
        CHECK(memcmp(one.tok, tok + i * 128, sizeof tok / 4) == 0 &&
              memcmp(one.target, target + i * 128, sizeof tok / 4) == 0);
    }
    hd_data_close(d);
    hd_data_close(e);
}

/* Epochs differ in their order, and in where a long document is cut. */
static void test_shuffled(const int *len, int n)
{
    hd_micro b;
    hd_data *d = open_set("text", 128, 11);
    uint64_t at = 0;
    int first[2][50], moved = 0, starts = 0, cut[2][64] = {{0}}, n_cut[2] = {0};
    for (int e = 0; e < 2; e++) {
        for (int i = 0; hd_data_epoch(d, at) < e + 1; at++, i++) {
            CHECK_OK(hd_data_get(d, at, 1, &b, &err));
            if (i < 50) first[e][i] = b.tok[0] / MOST;
            for (int k = 0, row = 0; k < b.n_docs; row += b.len[k++])
                if (b.tok[row] / MOST == 0 && b.tok[row] > 0 && n_cut[e] < 64)
                    cut[e][n_cut[e]++] = b.tok[row];
        }
    }
    for (int i = 0; i < 50; i++) moved += first[0][i] != first[1][i];
    for (int i = 1; i < 50; i++) starts += first[0][i] < first[0][i - 1];
    CHECK(moved > 40 && starts > 10, "%d, %d", moved, starts);
    int shared = 0;
    for (int i = 0; i < n_cut[0]; i++)
        for (int k = 0; k < n_cut[1]; k++) shared += cut[0][i] == cut[1][k];
    CHECK(len[0] > 1024 && n_cut[0] > 4 && shared < n_cut[0], "%d of %d cuts are the same", shared, n_cut[0]);
    (void)n;
    hd_data_close(d);
}

static void test_mixture(void)
{
    static int len[200];
    hd_data *d = NULL;
    hd_micro b;
    for (int i = 0; i < 200; i++) len[i] = 64;
    make_set("b", 200, len, false, 1 << 30);
    make_set("c", 100, len, false, 1 << 30);
    hd_data_source s[3] = {{place("text"), 6}, {place("b"), 3}, {place("c"), 1}};
    CHECK_OK(hd_data_open(&d, s, 3, 64, 1, VOCAB, &err));
    /* sequences of b and c are one document of 64 rows; those of c are documents below 100 */
    int n[2] = {0}, worst = 0;
    for (int i = 0; i < 2000; i++) {
        CHECK_OK(hd_data_get(d, (uint64_t)i, 1, &b, &err));
        bool small = b.n_docs == 1 && b.target[63] == -1 && b.tok[0] % MOST == 0 && b.tok[63] % MOST == 63;
        n[small]++;
        int off = abs(n[1] - (i + 1) * 4 / 10);
        if (off > worst) worst = off;
    }
    CHECK(abs(n[1] - 800) < 20 && worst < 20, "%d of 2000 from b and c, up to %d off", n[1], worst);
    hd_data_close(d);
    s[1].weight = 0;
    CHECK(hd_data_open(&d, s, 3, 64, 1, VOCAB, &err) == HD_USAGE && strstr(err.msg, "weight"), "%s", err.msg);
    s[1].weight = 1e-9;
    CHECK(hd_data_open(&d, s, 3, 64, 1, VOCAB, &err) == HD_USAGE && strstr(err.msg, "share"), "%s", err.msg);
}

static void test_walk(const int *len, int n)
{
    hd_micro b;
    hd_data *d = open_set("text", 100, 1);
    for (int max_rows = 64; max_rows <= 512; max_rows += 224) {
        bool more = true;
        uint64_t at = 0;
        int64_t targets = 0, rows = 0;
        int doc = 0, k = 0, bad = 0, most = 0;
        for (;;) {
            CHECK_OK(hd_data_walk(d, 0, &at, max_rows, &b, &more, &err));
            if (!more) break;
            bad += b.n_rows > max_rows || b.n_rows == 0;
            for (int i = 0; i < b.n_docs; i++) most = b.len[i] > most ? b.len[i] : most;
            for (int i = 0; i < b.n_rows; i++, rows++) {
                bad += b.tok[i] != doc * MOST + k || b.target[i] != (k + 1 < len[doc] ? b.tok[i] + 1 : -1);
                targets += b.target[i] >= 0;
                if (++k == len[doc]) doc++, k = 0;
            }
        }
        CHECK(bad == 0 && doc == n && rows == hd_data_tokens(d) && most == (max_rows < 100 ? max_rows : 100),
              "%d bad, %d documents, %d", bad, doc, most);
        double want = 4.0 * (double)rows / (double)targets;
        CHECK(fabs(hd_data_bytes_per_token(d, 0) - want) < 1e-9);
    }
    hd_data_close(d);
}

/* More documents than a window holds. */
static void test_windows(void)
{
    enum { N = 150000 };
    hd_shard_dir_writer w;
    hd_micro b;
    uint8_t *seen = calloc(N, 1);
    int bad = 0;
    CHECK_OK(hd_shard_dir_begin(&w, place("many"), print, N, 100000, false, &err));
    for (int i = 0; i < N; i++) {
        int n = 2 + i % 3;
        for (int k = 0; k < n; k++) id[k] = i;
        if (hd_shard_dir_add(&w, id, n, NULL, 1, &err) != HD_OK) bad++;
    }
    CHECK_OK(hd_shard_dir_finish(&w, NULL, &err));
    CHECK(w.n == 5 && w.n_docs == N, "%d shards", w.n);
    hd_shard_dir_writer_close(&w);
    hd_data *d = open_set("many", 64, 8);
    uint64_t at = 0;
    int64_t rows = 0;
    for (; hd_data_epoch(d, at) < 1; at += 1) {
        CHECK_OK(hd_data_get(d, at, 1, &b, &err));
        for (int i = 0, row = 0; i < b.n_docs; row += b.len[i++])
            if (b.target[row] >= 0)
                bad += b.len[i] != 2 + b.tok[row] % 3, seen[b.tok[row]]++, rows += b.len[i];
    }
    for (int i = 0; i < N; i++) bad += seen[i] != 1;
    CHECK(bad == 0 && rows == 3 * N, "%d bad", bad);
    CHECK((double)at * 64 / (double)rows < 1.01);
    hd_data_close(d);
    free(seen);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    if (!f || fseek(f, at, SEEK_SET) != 0) abort();
    int c = fgetc(f);
    if (fseek(f, at, SEEK_SET) != 0 || fputc(c ^ 1, f) == EOF || fclose(f) != 0) abort();
}

static void test_bad(void)
{
    hd_data *d = NULL;
    hd_micro b;
    hd_status st = HD_OK;
    hd_data_source s[2] = {{place("text"), 1}, {place("other"), 1}};
    int len[] = {5, 6};
    CHECK(hd_data_open(&d, s, 1, 128, 1, 1000, &err) == HD_FORMAT &&
              strstr(err.msg, "packed for a vocabulary"),
          "%s", err.msg);
    CHECK(hd_data_open(&d, s, 1, 1, 1, VOCAB, &err) == HD_USAGE);
    print[0] ^= 1;
    make_set("other", 2, len, false, 1 << 30);
    print[0] ^= 1;
    CHECK(hd_data_open(&d, s, 2, 128, 1, VOCAB, &err) == HD_FORMAT && strstr(err.msg, "another tokenizer") &&
              strstr(err.msg, s[0].path) && strstr(err.msg, s[1].path),
          "%s", err.msg);
    s[0].path = place("nothing");
    CHECK(hd_data_open(&d, s, 1, 128, 1, VOCAB, &err) == HD_IO && strstr(err.msg, "pack.json"), "%s",
          err.msg);
    make_set("empty", 0, len, false, 1 << 30);
    s[0].path = place("empty");
    CHECK(hd_data_open(&d, s, 1, 128, 1, VOCAB, &err) == HD_FORMAT && strstr(err.msg, "no documents"), "%s",
          err.msg);
    /* a byte of the second shard's ids: found when it is read, named, and gone when it is mended */
    const char *shard = place("text/00001.tok");
    flip(shard, 128 + 100000);
    d = open_set("text", 128, 1);
    for (uint64_t i = 0; d && st == HD_OK && i < 5000; i++) st = hd_data_get(d, i, 1, &b, &err);
    CHECK(st == HD_FORMAT && strstr(err.msg, "00001.tok") && strstr(err.msg, "checksum"), "%d: %s", (int)st,
          err.msg);
    CHECK(b.n_rows == 0);
    hd_data_close(d);
    flip(shard, 128 + 100000);
    /* packing again: only when asked, and a folder without its list is none */
    hd_shard_dir_writer w;
    CHECK(hd_shard_dir_begin(&w, place("other"), print, VOCAB, 1000, false, &err) == HD_USAGE &&
              strstr(err.msg, "--replace"),
          "%s", err.msg);
    CHECK_OK(hd_shard_dir_begin(&w, place("other"), print, VOCAB, 1000, true, &err));
    hd_shard_dir_writer_close(&w);
    s[0].path = place("other");
    CHECK(hd_data_open(&d, s, 1, 128, 1, VOCAB, &err) == HD_IO);
    FILE *f = fopen(place("other/pack.json"), "w");
    fputs("{\"shards\": [{\"file\": \"../text/00000.tok\"}]}", f);
    fclose(f);
    CHECK(hd_data_open(&d, s, 1, 128, 1, VOCAB, &err) == HD_FORMAT && strstr(err.msg, "no name of a shard"),
          "%s", err.msg);
}

#ifndef NO_FAILURES
static void test_failures(void)
{
    int n = 1, bad = 0;
    hd_data_source s[2] = {{place("text"), 1}, {place("b"), 1}};
    for (;; n++) {
        hd_err why = {0};
        hd_data *d = NULL;
        hd_micro b;
        bool more;
        uint64_t at = 0;
        atomic_store(&made, 0);
        fail_at = n;
        hd_status st = hd_data_open(&d, s, 2, 64, 1, VOCAB, &why);
        for (uint64_t i = 0; st == HD_OK && i < 9000; i += 700) st = hd_data_get(d, i, 2, &b, &why);
        if (st == HD_OK) st = hd_data_walk(d, 0, &at, 1000, &b, &more, &why);
        fail_at = 0;
        bad += st != HD_OK && (st != HD_NOMEM || !why.msg[0]);
        if (st != HD_OK && d) bad += hd_data_get(d, 3, 2, &b, &why) != HD_OK; // and it goes on
        hd_data_close(d);
        if (st == HD_OK || n > 5000) break;
    }
    CHECK(bad == 0 && n > 50, "%d of %d", bad, n);
}
#endif

int main(void)
{
    static int len[2000];
    if (!mkdtemp(dir)) abort();
    /* stories, documents of the web, answers: some lengths that training meets */
    test_epochs(300, 200, 256, false, 0.02);
    test_epochs(1000, 60, 512, true, 0.02);
    test_epochs(40, 2000, 64, false, 0.02);
    test_epochs(1, 5, 16, false, 0.1); // one document far longer than a sequence
    text_lengths(len, 2000, 150, 4);
    len[0] = 4000;
    make_set("text", 2000, len, false, 100000);
    test_pure();
    test_shuffled(len, 2000);
    test_mixture();
    test_walk(len, 2000);
    test_windows();
    test_bad();
#ifndef NO_FAILURES
    test_failures();
#endif
    char rm[64];
    snprintf(rm, sizeof rm, "rm -r %s", dir);
    CHECK(system(rm) == 0);
    return hd_test_end();
}
