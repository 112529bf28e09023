/* Logits against transformers: every model of tests/golden/logits (make_logits.py tells what each is for), at
 * every CPU level, as one slice, token by token, and in ragged batches; the same weights once more as GGUF.
 *
 * --exact must agree within 2e-4 of the largest logit at every position.  The default mode rounds
 * activations, so its distributions are compared: mean KL below 1e-3. */
#include <dirent.h>
#include <math.h>

#include "model/model.h"
#include "model/quantize.h"
#include "old_gguf.h"
#include "test.h"

enum { MAX_T = 64, MAX_V = 128, COPIES = 4 };

static hd_err err;
static const char *temp;

typedef struct {
    int32_t T, V, n_mtp, tok[MAX_T];
    float logits[MAX_T * MAX_V];
    float mtp[MAX_T * MAX_V]; // the last row is the further step's
} golden;

static bool read_golden(golden *g, const char *folder)
{
    char path[600];
    snprintf(path, sizeof path, "%s/golden.bin", folder);
    FILE *f = fopen(path, "rb");
    bool ok = f && fread(g, 4, 3, f) == 3 && g->T > 1 && g->T <= MAX_T && g->V > 0 && g->V <= MAX_V;
    ok = ok && fread(g->tok, 4, (size_t)g->T, f) == (size_t)g->T;
    size_t n = ok ? (size_t)g->T * (size_t)g->V : 0;
    ok = ok && fread(g->logits, 4, n, f) == n;
    if (ok && g->n_mtp) ok = fread(g->mtp, 4, n, f) == n;
    ok = ok && fgetc(f) == EOF;
    if (f) fclose(f);
    return ok;
}

/* ---- Comparing ---- */

/* The largest distance, as a part of the row's largest logit. */
static double distance(const float *got, const float *want, int V)
{
    double far = 0, top = 0;
    for (int i = 0; i < V; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= far)) far = d; // NaN too
        top = fmax(top, fabs((double)want[i]));
    }
    return far / top;
}

static double log_sum(const float *x, int V)
{
    double max = (double)x[0], sum = 0;
    for (int i = 1; i < V; i++) max = fmax(max, (double)x[i]);
    for (int i = 0; i < V; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

static double divergence(const float *got, const float *want, int V)
{
    double a = log_sum(want, V), b = log_sum(got, V), kl = 0;
    for (int i = 0; i < V; i++)
        kl += exp((double)want[i] - a) * (((double)want[i] - a) - ((double)got[i] - b));
    return kl;
}

static void compare(const float *got, const float *want, int rows, int V, bool exact, const char *what)
{
    double worst = 0, kl = 0;
    int at = 0;
    for (int t = 0; t < rows; t++) {
        double d = distance(got + t * V, want + t * V, V);
        if (!(d <= worst)) worst = d, at = t;
        kl += divergence(got + t * V, want + t * V, V) / rows;
    }
    if (exact)
        CHECK(worst <= 2e-4, "%s: row %d of %d is off by %.2g of the largest logit", what, at, rows, worst);
    else CHECK(kl >= -1e-6 && kl < 1e-3, "%s: mean KL %.2g", what, kl);
    if (getenv("HADAL_TEST_VERBOSE")) printf("%s: %.2g, KL %.2g\n", what, worst, kl);
}

/* ---- Running ---- */

typedef struct {
    hd_source *s;
    hd_model *m;
    hd_cache *c;
} model;

static bool open_model(model *m, const char *path, bool exact)
{
    hd_model_opts o = {.n_threads = 2, .pack = 1, .exact = exact, .quiet = true};
    *m = (model){0};
    CHECK_OK(hd_source_open(&m->s, path, true, &err));
    if (m->s) CHECK_OK(hd_model_open(&m->m, m->s, &o, &err));
    if (!m->m) return false;
    CHECK_OK(hd_cache_open(&m->c, hd_model_config(m->m), exact ? HD_CACHE_F32 : HD_CACHE_F16,
                           (COPIES + 1) * MAX_T, &err));
    return m->c != NULL;
}

static void close_model(model *m)
{
    hd_cache_close(m->c);
    hd_model_close(m->m);
    hd_source_close(m->s);
}

/* Rows [at, at + n) of each of several copies of the text, all in one batch; every row's logits. */
static void step(const model *m, const golden *g, hd_seq *const *seq, const int *at, const int *n, int copies,
                 float *out)
{
    int32_t tok[COPIES * MAX_T], n_of[COPIES];
    bool want[COPIES * MAX_T];
    hd_seq *in[COPIES];
    int rows = 0, seqs = 0;
    for (int c = 0; c < copies; c++) {
        for (int i = 0; i < n[c]; i++) want[rows] = true, tok[rows++] = g->tok[at[c] + i];
        if (n[c] > 0) in[seqs] = seq[c], n_of[seqs++] = n[c];
    }
    hd_batch b = {.n_rows = rows, .tok = tok, .want = want, .n_seqs = seqs, .n_of = n_of, .seq = in};
    CHECK_OK(hd_forward(m->m, &b, out, NULL, &err));
}

/* pace: tokens of each copy per pass. */
static void test_run(const model *m, const golden *g, int copies, const int *pace, bool exact,
                     const char *what)
{
    static float got[COPIES][MAX_T * MAX_V], out[COPIES * MAX_T * MAX_V];
    hd_seq *seq[COPIES];
    int at[COPIES] = {0}, left = copies;
    memset(got, 0, sizeof got);
    for (int c = 0; c < copies; c++) CHECK_OK(hd_seq_open(&seq[c], m->c, &err));
    while (left > 0) {
        int n[COPIES], row = 0;
        for (int c = 0; c < copies; c++) n[c] = pace[c] < g->T - at[c] ? pace[c] : g->T - at[c];
        step(m, g, seq, at, n, copies, out);
        left = 0;
        for (int c = 0; c < copies; c++) {
            memcpy(got[c] + at[c] * g->V, out + row * g->V, (size_t)(n[c] * g->V) * sizeof *out);
            row += n[c];
            at[c] += n[c];
            left += at[c] < g->T;
        }
    }
    for (int c = 0; c < copies; c++) {
        compare(got[c], g->logits, g->T, g->V, exact, what);
        hd_seq_close(seq[c]);
    }
}

/* The extra layer over the whole text, and one further step from its own state. */
static void test_mtp(const model *m, const golden *g, bool exact, const char *what)
{
    static float state[MAX_T * 1024], mine[MAX_T * 1024], out[MAX_T * MAX_V];
    hd_seq *main, *extra;
    int32_t n = g->T, rest = g->T - 1, one = 1;
    bool want[MAX_T];
    int64_t D = hd_model_config(m->m)->d_model;
    if (!g->n_mtp || hd_model_config(m->m)->n_mtp == 0) return;
    memset(want, 1, sizeof want);
    CHECK_OK(hd_seq_open(&main, m->c, &err));
    CHECK_OK(hd_seq_open(&extra, m->c, &err));
    hd_batch b = {.n_rows = n, .tok = g->tok, .want = want, .n_seqs = 1, .n_of = &n, .seq = &main};
    CHECK_OK(hd_forward(m->m, &b, out, state, &err));
    compare(out, g->logits, n, g->V, exact, what);
    b = (hd_batch){
        .n_rows = rest, .tok = g->tok + 1, .want = want, .n_seqs = 1, .n_of = &rest, .seq = &extra};
    CHECK_OK(hd_forward_mtp(m->m, &b, state, out, mine, &err));
    b = (hd_batch){.n_rows = 1, .tok = g->tok + rest, .want = want, .n_seqs = 1, .n_of = &one, .seq = &extra};
    CHECK_OK(hd_forward_mtp(m->m, &b, mine + (rest - 1) * D, out + rest * g->V, NULL, &err));
    compare(out, g->mtp, n, g->V, exact, what);
    hd_seq_close(main);
    hd_seq_close(extra);
}

static void test_file(const char *path, const golden *g, const char *name, const char *form, bool exact)
{
    static const int whole[] = {MAX_T}, single[] = {1}, mixed[COPIES] = {1, 7, 3, 17};
    char what[128];
    for (int l = 0; hd_kernels_at(l); l++) {
        const char *level = hd_kernels_at(l)->level;
        bool same_weights = strcmp(form, "safetensors") != 0; // another file of them: the best level will do
        model m;
        if (same_weights && hd_kernels_at(l + 1) && !getenv("HADAL_TEST_FULL")) continue;
        setenv("HADAL_CPU", level, 1);
        snprintf(what, sizeof what, "%s as %s, %s, %s", name, form, exact ? "exact" : "default", level);
        if (open_model(&m, path, exact)) {
            test_run(&m, g, 1, whole, exact, what);
            test_run(&m, g, 1, single, exact, what);
            test_run(&m, g, COPIES, mixed, exact, what);
            test_mtp(&m, g, exact, what);
        }
        close_model(&m);
    }
    unsetenv("HADAL_CPU");
}

/* GGUF has no key for halves that rotate under MLA, nor for an mscale of its own. */
static bool can_be_gguf(const hd_config *c)
{
    bool mla = c->kv_lora_rank > 0;
    return !(mla && !c->rope.pairs) &&
           !(c->rope.mscale_all_dim != 0 && c->rope.mscale != c->rope.mscale_all_dim);
}

static void test_old_gguf(const char *path, const golden *g, const char *name)
{
    char old[512];
    hd_source *s = NULL;
    CHECK_OK(hd_source_open(&s, path, true, &err));
    if (!s) return;
    snprintf(old, sizeof old, "%s/old-%s.gguf", temp, name);
    if (hd_source_config(s)->kv_lora_rank > 0) {
        CHECK_OK(old_gguf_write(old, s, &err));
        test_file(old, g, name, "old GGUF", true);
        remove(old);
    }
    hd_source_close(s);
}

static void test_gguf(const char *folder, const golden *g, const char *name)
{
    char path[512];
    hd_source *s = NULL;
    hd_quantize_opts o = {.mix = hd_quant_mix_named("f32"), .n_threads = 2};
    hd_quantize_report r;
    CHECK_OK(hd_source_open(&s, folder, true, &err));
    if (!s) return;
    snprintf(path, sizeof path, "%s/%s.gguf", temp, name);
    hd_status st = hd_quantize(path, s, &o, &r, &err);
    if (can_be_gguf(hd_source_config(s))) {
        CHECK(st == HD_OK, "%s: %s", name, err.msg);
        if (st == HD_OK) {
            test_file(path, g, name, "GGUF", true);
            test_old_gguf(path, g, name);
        }
    } else CHECK(st == HD_UNSUPPORTED, "%s: written as GGUF, which cannot hold it", name);
    hd_source_close(s);
    remove(path);
}

static void test_model(const char *name)
{
    static golden g;
    char folder[512];
    snprintf(folder, sizeof folder, HD_SOURCE_DIR "/tests/golden/logits/%s", name);
    CHECK(read_golden(&g, folder), "%s", folder);
    if (g.T < 2) return;
    test_file(folder, &g, name, "safetensors", true);
    test_file(folder, &g, name, "safetensors", false);
    test_gguf(folder, &g, name);
}

int main(int argc, char **argv)
{
    char made[] = "/tmp/hadal-golden-XXXXXX";
    temp = mkdtemp(made);
    CHECK(temp != NULL);
    if (!temp) return hd_test_end();
    int n = 0;
    DIR *d = argc > 1 ? NULL : opendir(HD_SOURCE_DIR "/tests/golden/logits");
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') test_model(e->d_name), n++;
    if (d) closedir(d);
    for (int i = 1; i < argc; i++) test_model(argv[i]), n++;
    CHECK(n > 0);
    rmdir(temp);
    return hd_test_end();
}
