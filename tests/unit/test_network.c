/* The forward pass gives the same bits whatever the company: any number of threads, any slices, alone or
 * among others, packed or not, at every CPU level; and it refuses batches that make no sense. */
#include "model/model.h"
#include "test.h"
#include "tiny.h"

enum { LEN = 90, OTHERS = 16, V = TINY_VOCAB };

/* Sanitizers look at memory, not at figures: every third model at the best level is enough for them. */
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static hd_err err;
static const char *dir;

typedef struct {
    hd_source *s;
    hd_model *m;
} model;

static void open_model(model *m, const char *path, int threads, int pack, bool exact)
{
    hd_model_opts o = {.n_threads = threads, .pack = pack, .exact = exact, .quiet = true, .max_rows = 512};
    CHECK_OK(hd_source_open(&m->s, path, true, &err));
    CHECK_OK(hd_model_open(&m->m, m->s, &o, &err));
}

static void close_model(model *m)
{
    hd_model_close(m->m);
    hd_source_close(m->s);
}

static void make_text(int32_t *tok, int n, uint64_t seed)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 7);
    for (int i = 0; i < n; i++) tok[i] = (int32_t)(hd_rng_u32(&r) % 256);
}

/* Logits of every position of one text, in slices, among `others` texts that move at their own pace. */
static void run(const model *m, hd_cache_type type, int slice, int others, float *logits)
{
    hd_cache *c;
    hd_seq *seq[OTHERS + 1];
    int32_t text[OTHERS + 1][LEN], at[OTHERS + 1] = {0};
    int max = hd_model_max_rows(m->m), mine = others / 2; // in the middle of the others
    float *out = malloc((size_t)max * V * sizeof *out);
    CHECK_OK(hd_cache_open(&c, hd_model_config(m->m), type, (OTHERS + 1) * 256, &err));
    for (int s = 0; s <= others; s++) {
        CHECK_OK(hd_seq_open(&seq[s], c, &err));
        make_text(text[s], LEN, s == mine ? 1 : 100 + (uint64_t)s);
    }
    while (at[mine] < LEN) {
        int32_t tok[(OTHERS + 1) * LEN], n_of[OTHERS + 1];
        bool want[(OTHERS + 1) * LEN];
        hd_seq *in[OTHERS + 1];
        int rows = 0, seqs = 0, first = 0, n_mine = 0;
        for (int s = 0; s <= others; s++) {
            int n = s == mine ? slice : 1 + s * 3 % 11;
            if (n > LEN - at[s]) n = LEN - at[s];
            if (n == 0) continue;
            if (s == mine) first = rows, n_mine = n;
            for (int i = 0; i < n; i++) tok[rows + i] = text[s][at[s] + i], want[rows + i] = s == mine || i % 2;
            if (s != mine) at[s] += n;
            rows += n;
            in[seqs] = seq[s];
            n_of[seqs++] = n;
        }
        hd_batch b = {.n_rows = rows, .tok = tok, .want = want, .n_seqs = seqs, .n_of = n_of, .seq = in};
        CHECK_OK(hd_forward(m->m, &b, out, NULL, &err));
        int row = 0;
        for (int i = 0; i < first; i++) row += want[i];
        memcpy(logits + at[mine] * V, out + row * V, (size_t)n_mine * V * sizeof *out);
        at[mine] += n_mine;
    }
    CHECK(hd_seq_len(seq[mine]) == LEN);
    for (int s = 0; s <= others; s++) hd_seq_close(seq[s]);
    hd_cache_close(c);
    free(out);
}

static bool sane(const float *x, int n)
{
    double sum = 0, sum2 = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i])) return false;
        sum += (double)x[i];
        sum2 += (double)x[i] * (double)x[i];
    }
    double mean = sum / n;
    return sum2 / n - mean * mean > 1e-3; // rows that differ, not a constant
}

static void same(const float *want, const model *m, hd_cache_type type, int slice, int others, const char *what)
{
    static float got[LEN * V];
    memset(got, 0, sizeof got);
    run(m, type, slice, others, got);
    CHECK(memcmp(want, got, sizeof got) == 0, "%s: slices of %d among %d others", what, slice, others);
}

/* One model file at one level, everything compared with one thread and one slice. */
static void test_bits(const char *path, const char *what, hd_cache_type type, bool exact)
{
    static float want[LEN * V];
    model one, two, pages;
    open_model(&one, path, 1, 1, exact);
    run(&one, type, 512, 0, want);
    CHECK(sane(want, LEN * V), "%s", what);
    same(want, &one, type, 1, 0, what);
    close_model(&one);
    open_model(&two, path, 2, 1, exact);
    same(want, &two, type, 512, 0, what);
    same(want, &two, type, 7, 0, what);
    same(want, &two, type, 1, OTHERS, what);
    same(want, &two, type, 37, OTHERS, what);
    close_model(&two);
    open_model(&pages, path, 2, 0, exact);
    same(want, &pages, type, 64, 0, what);
    same(want, &pages, type, 1, 3, what);
    close_model(&pages);
}

static void tiny_path(char path[512], const tiny_opts *o)
{
    snprintf(path, 512, "%s/%d-%d-%d.gguf", dir, (int)o->kind, (int)o->type, (int)o->split_kv_b);
    CHECK_OK(tiny_write(path, o, &err));
}

static void test_levels(void)
{
    static const tiny_opts models[] = {
        {.kind = TINY_LLAMA, .type = HD_Q4_K, .seed = 1}, {.kind = TINY_QWEN2, .type = HD_BF16, .seed = 2},
        {.kind = TINY_QWEN3, .type = HD_Q8_0, .seed = 3}, {.kind = TINY_LLAMA, .type = HD_F16, .seed = 4},
        {.kind = TINY_QWEN2, .type = HD_Q3_K, .seed = 5}, {.kind = TINY_V2, .type = HD_Q4_K, .seed = 6},
        {.kind = TINY_V3, .type = HD_BF16, .seed = 7},    {.kind = TINY_V3, .type = HD_Q6_K, .seed = 8, .split_kv_b = true},
    };
    static const hd_cache_type caches[] = {HD_CACHE_F16, HD_CACHE_BF16, HD_CACHE_Q8_0};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char path[512], what[64];
        if (SANITIZED && i % 3 != 0 && !getenv("HADAL_TEST_FULL")) continue;
        tiny_path(path, &models[i]);
        for (int l = 0; hd_kernels_at(l); l++) {
            const char *level = hd_kernels_at(l)->level;
            bool best = !hd_kernels_at(l + 1), chosen = l == 0 ? i % 4 == 0 : (i + (size_t)l) % 2 == 0;
            if (!best && (!chosen || SANITIZED) && !getenv("HADAL_TEST_FULL")) continue;
            setenv("HADAL_CPU", level, 1);
            snprintf(what, sizeof what, "%s model %d", level, (int)i);
            test_bits(path, what, caches[(i + (size_t)l) % 3], false);
        }
        unsetenv("HADAL_CPU");
        if (i % 3 != 0 && !getenv("HADAL_TEST_FULL")) continue;
        snprintf(what, sizeof what, "exact model %d", (int)i);
        test_bits(path, what, HD_CACHE_F32, true);
    }
}

static void test_plan(void)
{
    char path[512];
    hd_plan p;
    model m;
    tiny_path(path, &(tiny_opts){.kind = TINY_LLAMA, .type = HD_Q8_0, .seed = 9});
    open_model(&m, path, 2, -1, false);
    CHECK_OK(hd_model_plan(&p, m.s, HD_CACHE_F16, &err));
    CHECK(p.file_bytes == hd_source_weight_bytes(m.s));
    CHECK(p.packed_bytes > p.file_bytes / 2 && p.packed_bytes < p.file_bytes * 11 / 10, "%llu of %llu",
          (unsigned long long)p.packed_bytes, (unsigned long long)p.file_bytes);
    CHECK(p.cache_bytes_per_tok == 2 * 2 * 2 * 64 * 2); // keys and values, layers, heads, numbers, bytes
    CHECK(p.fits_packed && p.fits_unpacked && p.work_bytes > 0 && p.available_bytes > p.packed_bytes);
    close_model(&m);
}

static void test_refusals(void)
{
    char path[512];
    model m;
    hd_cache *c, *other;
    hd_seq *s, *t;
    hd_config wide;
    int32_t tok[2] = {1, V}, two = 2, zero = 0;
    float *logits = malloc(2 * V * sizeof *logits);
    tiny_path(path, &(tiny_opts){.kind = TINY_LLAMA, .type = HD_F32, .seed = 10});
    open_model(&m, path, 1, 1, false);
    wide = *hd_model_config(m.m);
    wide.head_dim *= 2;
    CHECK_OK(hd_cache_open(&c, hd_model_config(m.m), HD_CACHE_F16, 64, &err));
    CHECK_OK(hd_cache_open(&other, &wide, HD_CACHE_F16, 64, &err));
    CHECK_OK(hd_seq_open(&s, c, &err));
    CHECK_OK(hd_seq_open(&t, other, &err));
    hd_batch b = {.n_rows = 2, .tok = tok, .n_seqs = 1, .n_of = &two, .seq = &s};
    CHECK(hd_forward(m.m, &b, logits, NULL, &err) == HD_USAGE, "an id past the vocabulary");
    tok[1] = -1;
    CHECK(hd_forward(m.m, &b, logits, NULL, &err) == HD_USAGE, "a negative id");
    tok[1] = 2;
    b.n_rows = 1;
    CHECK(hd_forward(m.m, &b, logits, NULL, &err) == HD_USAGE, "rows that do not add up");
    b.n_rows = 0, b.n_of = &zero;
    CHECK(hd_forward(m.m, &b, logits, NULL, &err) == HD_USAGE, "no rows");
    b = (hd_batch){.n_rows = 2, .tok = tok, .n_seqs = 1, .n_of = &two, .seq = &t};
    CHECK(hd_forward(m.m, &b, logits, NULL, &err) == HD_USAGE, "another model's cache");
    b.seq = &s;
    for (int i = 0; i < 32; i++) CHECK_OK(hd_forward(m.m, &b, logits, NULL, &err));
    CHECK(hd_forward(m.m, &b, logits, NULL, &err) == HD_LIMIT && hd_seq_len(s) == 64, "a full cache");
    hd_seq_trim(s, 10);
    CHECK_OK(hd_forward(m.m, &b, NULL, NULL, &err));
    CHECK(hd_seq_len(s) == 12);
    hd_seq_close(s);
    hd_seq_close(t);
    hd_cache_close(c);
    hd_cache_close(other);
    close_model(&m);
    free(logits);
}

/* States asked for beside the logits change nothing, and are what the head reads. */
static void test_hidden(void)
{
    char path[512];
    model m;
    hd_cache *c;
    hd_seq *s[2];
    int32_t tok[5] = {1, 2, 3, 4, 5}, n[2] = {2, 3};
    float a[2 * V], b[2 * V], hidden[5 * 256];
    tiny_path(path, &(tiny_opts){.kind = TINY_LLAMA, .type = HD_F32, .seed = 11});
    open_model(&m, path, 2, 1, false);
    CHECK_OK(hd_cache_open(&c, hd_model_config(m.m), HD_CACHE_F32, 256, &err));
    for (int i = 0; i < 2; i++) CHECK_OK(hd_seq_open(&s[i], c, &err));
    hd_batch batch = {.n_rows = 5, .tok = tok, .n_seqs = 2, .n_of = n, .seq = s};
    CHECK_OK(hd_forward(m.m, &batch, a, NULL, &err));
    for (int i = 0; i < 2; i++) hd_seq_trim(s[i], 0);
    CHECK_OK(hd_forward(m.m, &batch, b, hidden, &err));
    CHECK(memcmp(a, b, sizeof a) == 0);
    CHECK(sane(hidden, 5 * 256));
    for (int i = 0; i < 2; i++) hd_seq_close(s[i]);
    hd_cache_close(c);
    close_model(&m);
}

int main(void)
{
    char made[] = "/tmp/hadal-network-XXXXXX", rm[128];
    dir = mkdtemp(made);
    CHECK(dir != NULL);
    if (!dir) return hd_test_end();
    test_hidden();
    test_refusals();
    test_plan();
    test_levels();
    snprintf(rm, sizeof rm, "rm -rf %s", made);
    CHECK(system(rm) == 0);
    return hd_test_end();
}
