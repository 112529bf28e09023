/* The sampler against a plain one: probabilities computed in double over a whole sort, for each option and
 * for mixtures; then seeds, penalties, and rows that no model should give. */
#include <float.h>
#include <math.h>

#include "base/rng.h"
#include "hadal.h"
#include "infer/sample.h"
#include "test.h"

static hd_err err;

/* ---- The plain sampler ---- */

typedef struct {
    double l;
    int id;
} entry;

static int falling(const void *pa, const void *pb)
{
    const entry *a = pa, *b = pb;
    return a->l != b->l ? (a->l > b->l ? -1 : 1) : a->id - b->id;
}

/* p[n]: the probability of each id.  history: the prompt's ids, then n_gen generated ones. */
static void plain(double *p, const float *logits, int n, const hd_sample_opts *o, const int32_t *history,
                  int n_hist, int n_gen)
{
    entry *e = calloc((size_t)n, sizeof *e);
    for (int i = 0; i < n; i++) {
        int seen = 0, made = 0;
        double x = logits[i];
        for (int k = 0; k < o->n_bias; k++)
            if (o->bias[k].id == i) x += (double)o->bias[k].add;
        for (int k = 0; k < n_hist; k++) {
            seen += history[k] == i;
            made += history[k] == i && k >= n_hist - n_gen;
        }
        if (seen) x = x > 0 ? x / (double)o->repetition_penalty : x * (double)o->repetition_penalty;
        if (made) x -= (double)o->presence_penalty + (double)o->frequency_penalty * made;
        if (isnan(x)) x = -INFINITY;
        e[i] = (entry){x / (double)o->temperature, i};
        p[i] = 0;
    }
    qsort(e, (size_t)n, sizeof *e, falling);
    int keep = o->top_k > 0 && o->top_k < n ? o->top_k : n;
    double max = e[0].l, z = 0, sum = 0;
    for (int i = 0; i < keep; i++) z += exp(e[i].l - max);
    if (o->top_p < 1)
        for (int i = 0; i < keep; i++)
            if ((sum += exp(e[i].l - max)) >= (double)o->top_p * z) keep = i + 1;
    while (keep > 1 && exp(e[keep - 1].l - max) < (double)o->min_p) keep--;
    z = 0;
    for (int i = 0; i < keep; i++) z += exp(e[i].l - max);
    for (int i = 0; i < keep; i++) p[e[i].id] = exp(e[i].l - max) / z;
    free(e);
}

static void random_row(float *x, int n, uint64_t seed)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 7);
    for (int i = 0; i < n; i++) x[i] = 2.5f * hd_rng_normal(&r);
}

/* Draw many times and compare how often each id came.  The seeds are fixed, so the outcome is too; 5 standard
 * deviations are what a right sampler would exceed once in a million ids. */
static void compare(const char *what, hd_sample_opts o, int n, int draws, const int32_t *history, int n_hist,
                    int n_gen)
{
    float *x = calloc((size_t)n, sizeof *x);
    double *p = calloc((size_t)n, sizeof *p);
    int *seen = calloc((size_t)n, sizeof *seen), wrong = 0, impossible = 0;
    hd_sampler *s;
    random_row(x, n, (uint64_t)n);
    o.seed = 42;
    CHECK_OK(hd_sampler_open(&s, &o, n, &err));
    hd_sampler_reset(s, history, n_hist - n_gen);
    for (int i = n_hist - n_gen; i < n_hist; i++) hd_sampler_accept(s, history[i]);
    plain(p, x, n, &o, history, n_hist, n_gen);
    for (int i = 0; i < draws; i++) {
        int32_t id = hd_sampler_pick(s, x);
        if (id < 0 || id >= n) impossible++;
        else seen[id]++;
    }
    for (int i = 0; i < n; i++) {
        double mean = p[i] * draws, sd = sqrt(mean * (1 - p[i]));
        impossible += p[i] == 0 && seen[i];
        wrong += fabs(seen[i] - mean) > 5 * sd + 1;
    }
    CHECK(impossible == 0, "%s of %d ids: %d ids that may not come", what, n, impossible);
    CHECK(wrong == 0, "%s of %d ids: %d ids too often or too seldom", what, n, wrong);
    hd_sampler_close(s);
    free(x);
    free(p);
    free(seen);
}

static void test_options(void)
{
    static const int sizes[] = {1, 2, 17, 64, 300};
    const hd_sample_opts base = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int n = sizes[i];
        hd_sample_opts o = base;
        compare("everything", o, n, 8000, NULL, 0, 0);
        o.temperature = 0.4f;
        compare("temperature 0.4", o, n, 8000, NULL, 0, 0);
        o.temperature = 3;
        compare("temperature 3", o, n, 8000, NULL, 0, 0);
        for (int k = 1; k <= 512; k *= 8) {
            o = base, o.top_k = k;
            compare("top-k", o, n, 4000, NULL, 0, 0);
        }
        for (int p = 1; p <= 99; p += 49) {
            o = base, o.top_p = (float)p / 100;
            compare("top-p", o, n, 4000, NULL, 0, 0);
            o.top_k = 20;
            compare("top-k and top-p", o, n, 4000, NULL, 0, 0);
        }
        o = base, o.min_p = 0.05f;
        compare("min-p", o, n, 4000, NULL, 0, 0);
        o.top_p = 0.9f, o.top_k = 40, o.temperature = 0.8f;
        compare("all three", o, n, 4000, NULL, 0, 0);
        o.top_k = 0, o.temperature = 4; // a flat row: top-p reaches far
        compare("top-p of a flat row", o, n, 4000, NULL, 0, 0);
    }
}

static void test_penalties(void)
{
    static const int32_t history[] = {3, 5, 5, 9, 3, 3, 11, 0};
    static const hd_bias bias[] = {{2, 1.5f}, {4, -INFINITY}, {5, -2}, {2, 0.5f}};
    hd_sample_opts o = {.temperature = 1, .top_p = 1, .repetition_penalty = 1.3f};
    compare("repetition", o, 20, 20000, history, 8, 5);
    o.repetition_penalty = 1, o.presence_penalty = 0.7f;
    compare("presence", o, 20, 20000, history, 8, 5);
    o.presence_penalty = 0, o.frequency_penalty = 0.4f;
    compare("frequency", o, 20, 20000, history, 8, 5);
    o.frequency_penalty = -0.4f;
    compare("negative frequency", o, 20, 20000, history, 8, 5);
    o.bias = bias, o.n_bias = 4;
    compare("bias", o, 20, 20000, history, 8, 5);
    o.repetition_penalty = 1.2f, o.presence_penalty = 0.3f, o.top_k = 10, o.top_p = 0.9f, o.min_p = 0.02f;
    compare("all of them", o, 20, 20000, history, 8, 5);
}

/* A vocabulary of real size: what is allowed is exactly what the plain sampler allows. */
static void test_large(void)
{
    enum { N = 151936 };
    static float x[N];
    static double p[N];
    const struct {
        int k;
        float top_p, min_p, t;
    } c[] = {{20, 0.8f, 0, 0.7f}, {0, 0.95f, 0, 0.6f}, {0, 1, 0.1f, 1},
             {5000, 1, 0, 1},     {0, 0.5f, 0, 2},     {1, 1, 0, 1}};
    random_row(x, N, 5);
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        hd_sampler *s;
        hd_sample_opts o = {c[i].t, c[i].k, c[i].top_p, c[i].min_p, 1, 0, 0, 9, NULL, 0};
        int bad = 0;
        CHECK_OK(hd_sampler_open(&s, &o, N, &err));
        plain(p, x, N, &o, NULL, 0, 0);
        for (int k = 0; k < 50; k++) bad += p[hd_sampler_pick(s, x)] == 0;
        CHECK(bad == 0, "case %zu: %d of 50 picks are not allowed", i, bad);
        hd_sampler_close(s);
    }
}

static void test_greedy(void)
{
    float x[200] = {0}, prob;
    hd_sampler *s;
    x[70] = x[150] = 3;
    CHECK_OK(hd_sampler_open(&s, NULL, 200, &err));
    CHECK(hd_sampler_pick(s, x) == 70, "the lowest id among equals");
    x[33] = NAN;
    CHECK(hd_sampler_pick(s, x) == 70, "NaN never wins");
    x[199] = INFINITY;
    CHECK(hd_sampler_pick(s, x) == 199);
    hd_sampler_close(s);
    for (int i = 0; i < 200; i++) x[i] = i == 130 ? 1.0f : 0.0f;
    CHECK(hd_likeliest(x, 200, &prob) == 130);
    CHECK(fabs((double)prob - exp(1) / (exp(1) + 199)) < 1e-6, "%g", (double)prob);

    hd_bias b = {130, -INFINITY};
    hd_sample_opts o = {.top_p = 1, .repetition_penalty = 1, .bias = &b, .n_bias = 1};
    CHECK_OK(hd_sampler_open(&s, &o, 200, &err));
    b.id = 0; // the list was copied
    CHECK(hd_sampler_pick(s, x) == 0, "a forbidden id, greedily");
    CHECK(x[130] == 1, "the row is the caller's");
    hd_sampler_close(s);
}

static void test_seed(void)
{
    enum { N = 500, PICKS = 64 };
    float x[N];
    int32_t first[PICKS], other = 0;
    hd_sample_opts o = {
        .temperature = 1, .top_p = 0.98f, .repetition_penalty = 1, .frequency_penalty = 0.5f, .seed = 77};
    hd_sampler *s;
    random_row(x, N, 3);
    CHECK_OK(hd_sampler_open(&s, &o, N, &err));
    for (int round = 0; round < 2; round++) {
        int same = 0;
        for (int i = 0; i < PICKS; i++) {
            int32_t id = hd_sampler_pick(s, x);
            hd_sampler_accept(s, id);
            if (round == 0) first[i] = id;
            same += first[i] == id;
        }
        CHECK(same == PICKS, "after a reset the same ids come");
        hd_sampler_reset(s, NULL, 0);
    }
    hd_sampler_close(s);
    o.seed = 78;
    CHECK_OK(hd_sampler_open(&s, &o, N, &err));
    for (int i = 0; i < PICKS; i++) {
        int32_t id = hd_sampler_pick(s, x);
        hd_sampler_accept(s, id);
        other += id != first[i];
    }
    CHECK(other > 0, "another seed gives another text");
    hd_sampler_close(s);
}

/* What no model should give must not lead outside the vocabulary, nor to a forbidden id. */
static void test_odd_rows(void)
{
    static const hd_sample_opts kind[] = {
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_k = 3},
        {.temperature = 1, .top_p = 0.5f, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .min_p = 0.5f, .repetition_penalty = 1},
        {.temperature = 1e-30f, .top_p = 0.9f, .repetition_penalty = 1},
        {.temperature = 1e-42f, .top_p = 0.9f, .repetition_penalty = 1},
        {.temperature = 1e30f, .top_p = 0.9f, .repetition_penalty = 1, .top_k = 90},
    };
    float x[100];
    for (size_t k = 0; k < sizeof kind / sizeof kind[0]; k++) {
        hd_sampler *s;
        int bad[5] = {0};
        CHECK_OK(hd_sampler_open(&s, &kind[k], 100, &err));
        for (int i = 0; i < 300; i++) {
            for (int j = 0; j < 100; j++) x[j] = NAN;
            int32_t id = hd_sampler_pick(s, x);
            bad[0] += id < 0 || id >= 100;
            x[71] = -5;
            bad[1] += hd_sampler_pick(s, x) != 71;
            x[3] = x[98] = INFINITY;
            id = hd_sampler_pick(s, x);
            bad[2] += id != 3 && id != 98;
            for (int j = 0; j < 100; j++) x[j] = j % 2 ? -INFINITY : -FLT_MAX;
            bad[3] += hd_sampler_pick(s, x) % 2 != 0;
            for (int j = 0; j < 100; j++) x[j] = j == 5 ? FLT_MAX : -FLT_MAX;
            if (kind[k].temperature <= 1) bad[4] += hd_sampler_pick(s, x) != 5;
        }
        for (int i = 0; i < 5; i++) CHECK(bad[i] == 0, "options %zu, row %d: %d bad picks", k, i, bad[i]);
        hd_sampler_close(s);
    }
}

static void test_refusals(void)
{
    const hd_sample_opts good = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    const hd_bias outside = {10, 1}, nan = {1, NAN}, inf = {1, INFINITY};
    const struct {
        const char *name;
        hd_sample_opts o;
    } bad[] = {
        {"temperature", {.temperature = -1, .top_p = 1, .repetition_penalty = 1}},
        {"temperature", {.temperature = NAN, .top_p = 1, .repetition_penalty = 1}},
        {"temperature", {.temperature = INFINITY, .top_p = 1, .repetition_penalty = 1}},
        {"top_k", {.top_k = -1, .top_p = 1, .repetition_penalty = 1}},
        {"top_p", {.top_p = 0, .repetition_penalty = 1}},
        {"top_p", {.top_p = 1.5f, .repetition_penalty = 1}},
        {"min_p", {.top_p = 1, .min_p = 1, .repetition_penalty = 1}},
        {"min_p", {.top_p = 1, .min_p = NAN, .repetition_penalty = 1}},
        {"repetition_penalty", {.top_p = 1}},
        {"presence_penalty", {.top_p = 1, .repetition_penalty = 1, .presence_penalty = NAN}},
        {"frequency_penalty", {.top_p = 1, .repetition_penalty = 1, .frequency_penalty = INFINITY}},
        {"bias", {.top_p = 1, .repetition_penalty = 1, .bias = &outside, .n_bias = 1}},
        {"bias", {.top_p = 1, .repetition_penalty = 1, .bias = &nan, .n_bias = 1}},
        {"bias", {.top_p = 1, .repetition_penalty = 1, .bias = &inf, .n_bias = 1}},
        {"bias", {.top_p = 1, .repetition_penalty = 1, .bias = NULL, .n_bias = 1}},
    };
    hd_sampler *s;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        hd_status st = hd_sampler_open(&s, &bad[i].o, 10, &err);
        CHECK(st == HD_USAGE && !s && strstr(err.msg, bad[i].name), "case %zu: %d %s", i, (int)st, err.msg);
    }
    CHECK(hd_sampler_open(&s, &good, 0, &err) == HD_USAGE);
    CHECK(hd_sampler_open(&s, &good, -5, NULL) == HD_USAGE);
    hd_sampler_close(NULL);

    /* Ids from elsewhere are not the sampler's to judge: it leaves them out. */
    float x[10] = {0, 1};
    CHECK_OK(hd_sampler_open(&s, NULL, 10, &err));
    hd_sampler_reset(s, (const int32_t[]){-1, 10, 5000}, 3);
    hd_sampler_accept(s, -7);
    hd_sampler_accept(s, 10);
    CHECK(hd_sampler_pick(s, x) == 1);
    hd_sampler_close(s);
}

int main(void)
{
    test_options();
    test_penalties();
    test_large();
    test_greedy();
    test_seed();
    test_odd_rows();
    test_refusals();
    return hd_test_end();
}
