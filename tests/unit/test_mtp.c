/* The multi-token-prediction layer gives the same bits whatever the company: threads, slices, alone or among
 * others, packed or not, at every CPU level.  (That they are the right ones: test_golden_logits.) */
#include "model/model.h"
#include "test.h"
#include "tiny.h"

enum { LEN = 40, OTHERS = 5, V = TINY_VOCAB, D = 256 };

typedef struct {
    float logits[LEN * V], state[LEN * D];
} result;

static hd_err err;

static void random_states(float *x, int n, uint64_t seed)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 3);
    for (int i = 0; i < n; i++) x[i] = hd_rng_normal(&r);
}

/* One text in slices, behind `others` texts that bring two rows to every pass. */
static void run(hd_model *m, int slice, int others, result *res)
{
    static float in[(LEN + 2 * OTHERS) * D], text[LEN * D], logits[(LEN + 2 * OTHERS) * V],
        state[(LEN + 2 * OTHERS) * D];
    hd_cache *c;
    hd_seq *seq[OTHERS + 1];
    CHECK_OK(hd_cache_open(&c, hd_model_config(m), HD_CACHE_F16, (OTHERS + 1) * 128, &err));
    for (int s = 0; s <= others; s++) CHECK_OK(hd_seq_open(&seq[s], c, &err));
    random_states(text, LEN * D, 1);
    for (int at = 0; at < LEN; at += slice) {
        int32_t tok[LEN + 2 * OTHERS], n_of[OTHERS + 1];
        bool want[LEN + 2 * OTHERS];
        int n = LEN - at < slice ? LEN - at : slice, first = 2 * others;
        random_states(in, first * D, 100 + (uint64_t)at);
        memcpy(in + first * D, text + at * D, (size_t)(n * D) * sizeof *in);
        for (int i = 0; i < first + n; i++) {
            want[i] = true;
            tok[i] = i < first ? i : (at + i - first) * 7 % 256;
        }
        for (int s = 0; s <= others; s++) n_of[s] = s < others ? 2 : n;
        hd_batch b = {
            .n_rows = first + n, .tok = tok, .want = want, .n_seqs = others + 1, .n_of = n_of, .seq = seq};
        CHECK_OK(hd_forward_mtp(m, &b, in, logits, state, &err));
        memcpy(res->logits + at * V, logits + first * V, (size_t)(n * V) * sizeof *logits);
        memcpy(res->state + at * D, state + first * D, (size_t)(n * D) * sizeof *state);
    }
    for (int s = 0; s <= others; s++) hd_seq_close(seq[s]);
    hd_cache_close(c);
}

static void same(const result *want, hd_model *m, int slice, int others, const char *what)
{
    static result got;
    memset(&got, 0, sizeof got);
    run(m, slice, others, &got);
    CHECK(!memcmp(want->logits, got.logits, sizeof got.logits), "%s: slices of %d, %d others: logits", what,
          slice, others);
    CHECK(!memcmp(want->state, got.state, sizeof got.state), "%s: slices of %d, %d others: states", what,
          slice, others);
}

static void test_bits(const hd_source *s, const char *what)
{
    static result want;
    hd_model *one = NULL, *two = NULL, *pages = NULL;
    CHECK_OK(hd_model_open(&one, s, &(hd_model_opts){.n_threads = 1, .pack = 1, .quiet = true}, &err));
    CHECK_OK(hd_model_open(&two, s, &(hd_model_opts){.n_threads = 2, .pack = 1, .quiet = true}, &err));
    CHECK_OK(hd_model_open(&pages, s, &(hd_model_opts){.n_threads = 2, .pack = 0, .quiet = true}, &err));
    run(one, LEN, 0, &want);
    double sum = 0;
    for (int i = 0; i < LEN * V; i++) sum += fabs((double)want.logits[i]);
    CHECK(isfinite(sum) && sum > LEN * V * 0.1, "%s: logits are %g on average", what, sum / (LEN * V));
    same(&want, one, 1, 0, what);
    same(&want, two, LEN, 0, what);
    same(&want, two, 7, OTHERS, what);
    same(&want, two, 1, OTHERS, what);
    same(&want, pages, 16, 2, what);
    hd_model_close(one);
    hd_model_close(two);
    hd_model_close(pages);
}

int main(void)
{
    static const hd_type types[] = {HD_BF16, HD_Q4_K};
    for (int i = 0; i < 2; i++) {
        char path[] = "/tmp/hadal-mtp-XXXXXX", what[64];
        hd_source *s = NULL;
        int fd = mkstemp(path);
        CHECK(fd >= 0);
        if (fd < 0) return hd_test_end();
        close(fd);
        tiny_opts o = {.kind = TINY_V3, .type = types[i], .seed = 20 + (uint64_t)i, .split_kv_b = i == 1};
        CHECK_OK(tiny_write(path, &o, &err));
        for (int l = 0; hd_kernels_at(l); l++) {
            setenv("HADAL_CPU", hd_kernels_at(l)->level, 1);
            snprintf(what, sizeof what, "%s, %s", hd_kernels_at(l)->level,
                     hd_format_get((int)types[i])->name);
            CHECK_OK(hd_source_open(&s, path, true, &err)); // anew: packing gave the pages back
            if (s) test_bits(s, what);
            hd_source_close(s);
        }
        remove(path);
    }
    return hd_test_end();
}
