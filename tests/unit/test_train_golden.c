/* One training pass against PyTorch's autograd: every model of tests/golden/train (make_train.py says what
 * each is for), in f32, with one thread and two, with the activations kept and recomputed, whole and as two
 * micro-batches, with experts on ranks (of which there is one: tests/probe/ranks_probe.c has more).
 *
 * Losses to 1e-5, each gradient to 1e-4 of its norm (f32 sums of some hundred terms; PyTorch's differ as
 * much); the same bits however many threads.  bf16 and FP8 round every product's factors: their gradients
 * must point the same way. */
#include <dirent.h>
#include <math.h>

#include "model/train_pass.h"
#include "ops/back.h"
#include "test.h"

enum { MAX_ROWS = 256, MAX_DOCS = 16, MAX_PARAMS = 512 };

typedef struct {
    int32_t rows, docs, len[MAX_DOCS], tok[MAX_ROWS], target[MAX_ROWS];
    float mtp_weight, balance_alpha, zloss;
    double loss, mtp_loss, balance_loss;
    const float *g; // [params] one after another, in the order of names
    size_t n_g;
    char *file;
} golden;

static hd_err err;

static bool take(void *to, size_t n, const char **at, const char *end)
{
    if (n > (size_t)(end - *at)) return false;
    memcpy(to, *at, n);
    *at += n;
    return true;
}

static bool read_golden(golden *g, const char *folder)
{
    char path[640];
    snprintf(path, sizeof path, "%s/golden.bin", folder);
    hd_buf b = {.max = 1 << 20};
    if (hd_file_read(&b, path, &err) != HD_OK) return false;
    g->file = b.data;
    const char *at = g->file, *end = g->file + b.len;
    bool ok = take(&g->rows, 4, &at, end) && take(&g->docs, 4, &at, end) && g->rows > 0 &&
              g->rows <= MAX_ROWS && g->docs > 0 && g->docs <= MAX_DOCS;
    ok = ok && take(g->len, 4 * (size_t)g->docs, &at, end) && take(g->tok, 4 * (size_t)g->rows, &at, end) &&
         take(g->target, 4 * (size_t)g->rows, &at, end) && take(&g->mtp_weight, 4, &at, end) &&
         take(&g->balance_alpha, 4, &at, end) && take(&g->zloss, 4, &at, end) &&
         take(&g->loss, 8, &at, end) && take(&g->mtp_loss, 8, &at, end) &&
         take(&g->balance_loss, 8, &at, end);
    g->g = (const float *)(const void *)at;
    g->n_g = ok ? (size_t)(end - at) / 4 : 0;
    return ok;
}

/* ---- Passes -------------------------------------------------------------------------------------------- */

static hd_micro micro_of(const golden *g, int doc0, int doc1)
{
    int row0 = 0, rows = 0;
    for (int i = 0; i < doc0; i++) row0 += g->len[i];
    for (int i = doc0; i < doc1; i++) rows += g->len[i];
    return (hd_micro){.n_rows = rows,
                      .n_docs = doc1 - doc0,
                      .tok = g->tok + row0,
                      .target = g->target + row0,
                      .len = g->len + doc0};
}

/* Documents [doc0, doc1) as a part of the whole step. */
static void part(hd_model *m, const golden *g, int doc0, int doc1, bool recompute, hd_pass_result *r)
{
    hd_micro all = micro_of(g, 0, g->docs), b = micro_of(g, doc0, doc1);
    hd_pass_opts o = {.mtp_weight = g->mtp_weight,
                      .balance_alpha = g->balance_alpha,
                      .balance_scale = 1.0f / (float)g->docs,
                      .zloss = g->zloss,
                      .recompute = recompute,
                      .backward = true};
    int64_t n = 0, n_mtp = hd_micro_mtp_targets(&all);
    for (int i = 0; i < g->rows; i++) n += g->target[i] >= 0;
    o.loss_scale = 1.0f / (float)n;
    o.mtp_scale = 1.0f / (float)(n_mtp > 0 ? n_mtp : 1);
    CHECK_OK(hd_train_pass(m, &b, &o, r, &err));
}

static int by_name(const void *a, const void *b)
{
    const hd_param *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static double norm(const float *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
    return sqrt(s);
}

/* Distance and cosine of each tensor's gradient; false when the files do not fit. */
static void compare(const golden *g, const hd_params *p, bool exact, const char *what)
{
    const hd_param *sorted[MAX_PARAMS];
    size_t at = 0;
    double dot = 0, a2 = 0, b2 = 0;
    CHECK(p->n <= MAX_PARAMS);
    for (int i = 0; i < p->n; i++) sorted[i] = &p->p[i];
    qsort(sorted, (size_t)p->n, sizeof *sorted, by_name);
    for (int i = 0; i < p->n; i++) {
        const hd_param *q = sorted[i];
        int64_t n = q->n * q->k;
        const float *got = p->g + q->at, *want = g->g + at;
        double far = 0;
        if (q->frozen) continue;
        at += (size_t)n;
        if (at > g->n_g) break;
        for (int64_t j = 0; j < n; j++) {
            double d = (double)got[j] - (double)want[j];
            far += d * d;
            dot += (double)got[j] * (double)want[j];
        }
        a2 += norm(got, n) * norm(got, n);
        b2 += norm(want, n) * norm(want, n);
        if (exact)
            CHECK(sqrt(far) <= 1e-4 * norm(want, n), "%s: %s: off by %.2g of %.2g", what, q->name, sqrt(far),
                  norm(want, n));
    }
    CHECK(at == g->n_g, "%s: %zu gradients, not %zu", what, at, g->n_g);
    if (!exact) CHECK(dot > 0.98 * sqrt(a2 * b2), "%s: cosine %.4f", what, dot / sqrt(a2 * b2));
}

static void near(double got, double want, double limit, const char *what)
{
    CHECK(fabs(got - want) <= limit * fabs(want), "%s: %.8g, not %.8g", what, got, want);
}

typedef struct {
    hd_train_precision precision;
    int threads;
    bool recompute, halves;
    hd_comm *ranks; // NULL: experts are the model's own
} way;

/* All gradients in the order of the parameters: the flat array has another with experts on ranks. */
static float *in_order(const hd_params *p)
{
    float *all = malloc((size_t)p->n_weights * sizeof *all), *at = all;
    for (int i = 0; i < p->n; at += p->p[i].n * p->p[i].k, i++)
        memcpy(at, p->g + p->p[i].at, (size_t)(p->p[i].n * p->p[i].k) * sizeof *at);
    return all;
}

/* keep: the gradients of the first way, to which others must be equal bit by bit; NULL: any close ones. */
static void run(const hd_source *s, const golden *g, const way *w, float **keep, const char *what)
{
    hd_model *m = NULL;
    hd_pass_result r = {0};
    CHECK_OK(hd_model_open_ranks(&m, s, w->precision, w->ranks, w->threads, MAX_ROWS, &err));
    if (!m) return;
    const hd_params *p = hd_model_params(m);
    int cut = w->halves ? g->docs / 2 : g->docs;
    bool exact = w->precision == HD_TRAIN_F32;
    part(m, g, 0, cut, w->recompute, &r);
    if (cut < g->docs) part(m, g, cut, g->docs, w->recompute, &r);
    if (w->ranks && p->n_shared < p->n_flat) { // one of the ranks without rows: it changes nothing
        hd_micro none = {0};
        hd_pass_opts o = {.mtp_weight = g->mtp_weight,
                          .balance_alpha = g->balance_alpha,
                          .recompute = w->recompute,
                          .backward = true};
        CHECK_OK(hd_train_pass(m, &none, &o, &r, &err));
    }
    near(r.loss, g->loss, exact ? 1e-5 : 0.05, what);
    near(r.mtp_loss, g->mtp_loss, exact ? 1e-5 : 0.05, what);
    if (exact) near(r.balance_loss, g->balance_loss, 1e-5, what);
    compare(g, p, exact, what);
    for (int i = 0; i < p->n; i++)
        for (int64_t j = p->p[i].at; p->p[i].frozen && j < p->p[i].at + p->p[i].k; j++)
            CHECK(p->g[j] == 0, "%s", p->p[i].name);
    float *all = in_order(p);
    if (keep && *keep)
        CHECK(memcmp(*keep, all, (size_t)p->n_weights * sizeof *all) == 0, "%s: other bits", what);
    if (keep && !*keep) *keep = all;
    else free(all);
    hd_model_close(m);
}

static void test_model(const char *name, const char *folder, hd_comm *alone)
{
    const way ways[] = {{HD_TRAIN_F32, 1, false, false, NULL},
                        {HD_TRAIN_F32, 2, false, false, NULL},
                        {HD_TRAIN_F32, 2, true, false, NULL},
                        {HD_TRAIN_F32, 2, false, false, alone},
                        {HD_TRAIN_F32, 1, true, false, alone}};
    static const way halves = {HD_TRAIN_F32, 2, false, true, NULL},
                     bf16 = {HD_TRAIN_BF16, 2, false, false, NULL};
    golden g = {0};
    hd_source *s = NULL;
    float *keep = NULL;
    CHECK_OK(hd_source_open(&s, folder, true, &err));
    CHECK(read_golden(&g, folder), "%s", name);
    if (s && g.n_g > 0) {
        char what[320];
        for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
            snprintf(what, sizeof what, "%s, %d threads%s%s", name, ways[i].threads,
                     ways[i].recompute ? ", recomputing" : "", ways[i].ranks ? ", experts on ranks" : "");
            run(s, &g, &ways[i], &keep, what);
        }
        snprintf(what, sizeof what, "%s in two parts", name);
        run(s, &g, &halves, NULL, what);
        snprintf(what, sizeof what, "%s, bf16", name);
        if (!strcmp(name, "llama") || !strcmp(name, "qwen2"))
            run(s, &g, &bf16, NULL, what); // no routes to choose otherwise
    }
    free(keep);
    free(g.file);
    hd_source_close(s);
}

int main(void)
{
    const char *root = HD_SOURCE_DIR "/tests/golden/train";
    DIR *d = opendir(root);
    int models = 0;
    hd_comm *alone = NULL;
    CHECK_OK(hd_comm_open(&alone, &err));
    CHECK(d != NULL);
    for (struct dirent *e; d && (e = readdir(d));) {
        char folder[600];
        if (e->d_name[0] == '.') continue;
        snprintf(folder, sizeof folder, "%s/%s", root, e->d_name);
        test_model(e->d_name, folder, alone);
        models++;
    }
    if (d) closedir(d);
    hd_comm_close(alone);
    CHECK(models == 8, "%d", models);
    return hd_test_end();
}
