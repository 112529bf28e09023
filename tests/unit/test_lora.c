/* Adapters against the whole model: the same numbers as W0 + s B A opened for training (loss to the
 * bit, gradients by the chain rule), finite differences, threads, gradients that add up, and what a
 * checkpoint reads. */
#include <math.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/rng.h"
#include "model/lora.h"
#include "model/quantize.h"
#include "model/train_pass.h"
#include "test.h"
#include "train/checkpoint.h"

static hd_err err;

enum { ROWS = 24, DOCS = 2, RANK = 3 };
static int32_t tok[ROWS], target[ROWS];
static const int len[DOCS] = {13, 11};
static const hd_micro micro = {.n_rows = ROWS, .n_docs = DOCS, .tok = tok, .target = target, .len = len};

static double pass(hd_model *m, bool backward)
{
    hd_pass_opts o = {.loss_scale = 1.0f / ROWS, .mtp_weight = 0.3f, .mtp_scale = 1.0f / ROWS, .balance_alpha = 0.01f, .balance_scale = 0.5f,
                      .backward = backward};
    hd_pass_result r = {0};
    CHECK_OK(hd_train_pass(m, &micro, &o, &r, &err));
    return (r.loss + 0.3 * r.mtp_loss) / ROWS;
}

static hd_model *open_lora(const hd_source *s, hd_train_precision precision, int threads)
{
    hd_model *m = NULL;
    CHECK_OK(hd_model_open_lora(&m, s, precision, RANK, 6, 1, threads, ROWS, &err));
    hd_params *p = m ? hd_model_params(m) : NULL;
    for (int i = 0; p && i < p->n; i++) { // B too must be something
        hd_rng r;
        hd_rng_seed(&r, (uint64_t)i, 5);
        bool b = p->p[i].adapter && p->p[i].k == RANK;
        for (int64_t k = 0; b && k < p->p[i].n * RANK; k++) p->w[p->p[i].at + k] = 0.05f * hd_rng_normal(&r);
    }
    if (m) hd_params_refresh(m);
    return m;
}

/* name.weight's A or B */
static const hd_param *adapter_of(const hd_params *p, const hd_param *w, const char *end)
{
    char name[160];
    snprintf(name, sizeof name, "%.*s%s", (int)strlen(w->name) - 7, w->name, end);
    return hd_params_find(p, name);
}

/* dA = s B^T dW, dB = s dW A^T, with dW of the whole model. */
static double chain_rule(const hd_params *p, const hd_param *A, const hd_param *B, const float *dw)
{
    double off = 0, size = 0, s = 6.0 / RANK;
    for (int r = 0; r < RANK; r++)
        for (int64_t k = 0; k < A->k; k++) {
            double want = 0;
            for (int64_t n = 0; n < B->n; n++) want += s * p->w[B->at + n * RANK + r] * dw[n * A->k + k];
            double d = p->g[A->at + r * A->k + k] - want;
            off += d * d, size += want * want;
        }
    for (int64_t n = 0; n < B->n; n++)
        for (int r = 0; r < RANK; r++) {
            double want = 0;
            for (int64_t k = 0; k < A->k; k++) want += s * p->w[A->at + r * A->k + k] * dw[n * A->k + k];
            double d = p->g[B->at + n * RANK + r] - want;
            off += d * d, size += want * want;
        }
    return size > 0 ? sqrt(off / size) : sqrt(off);
}

static void test_against_whole(const char *name, const hd_source *s, hd_train_precision precision)
{
    hd_model *m = open_lora(s, precision, 1), *whole = NULL;
    double tolerance = precision == HD_TRAIN_F32 ? 2e-5 : 3e-2; // bf16: of the factors, rounded once more
    int n_adapted = 0;
    CHECK_OK(hd_model_open_train(&whole, s, precision, 1, ROWS, &err));
    if (!m || !whole) return;
    hd_params *p = hd_model_params(m), *q = hd_model_params(whole);
    CHECK(hd_lora_n_weights(m) == q->n && hd_lora_n_weights(whole) == 0);
    for (int i = 0; i < q->n; i++) {
        hd_param w;
        hd_lora_weight_at(m, i, &w);
        CHECK(strcmp(w.name, q->p[i].name) == 0 && w.n == q->p[i].n && w.k == q->p[i].k && w.vector == q->p[i].vector, "%s %s", w.name,
              q->p[i].name);
        memcpy(q->w + q->p[i].at, hd_lora_weight_read(m, i), (size_t)(w.n * w.k) * sizeof(float));
    }
    hd_params_refresh(whole);
    double a = pass(m, true), b = pass(whole, true);
    CHECK(a == b, "%s: loss %.9g and %.9g", name, a, b);
    for (int i = 0; i < q->n; i++) {
        const hd_param *w = &q->p[i], *A = adapter_of(p, w, ".lora_A.weight"), *B = adapter_of(p, w, ".lora_B.weight");
        if (!A) continue;
        n_adapted++;
        CHECK(B && A->n == RANK && B->k == RANK && !A->frozen && A->adapter);
        double off = chain_rule(p, A, B, q->g + w->at);
        CHECK(off < tolerance, "%s %s: %g", name, w->name, off);
    }
    CHECK(n_adapted >= 7 || n_adapted > 2 * hd_model_config(m)->n_layers, "%s: %d", name, n_adapted);
    for (int i = 0; i < p->n; i++) CHECK(p->p[i].adapter == !p->p[i].vector && p->p[i].frozen == p->p[i].vector);
    hd_model_close(m);
    hd_model_close(whole);
}

/* Central differences along each gradient, through the merged weight.  Not with experts: a step may change a
 * router's choice. */
static void test_differences(const char *name, const hd_source *s)
{
    hd_model *m = open_lora(s, HD_TRAIN_F32, 1);
    if (!m) return;
    hd_params *p = hd_model_params(m);
    int checked = 0;
    pass(m, true);
    for (int i = 0; i < p->n; i++) {
        const hd_param *a = &p->p[i];
        int64_t n = a->n * a->k;
        double slope = 0, norm = 0;
        for (int64_t k = 0; k < n; k++) norm += (double)p->g[a->at + k] * p->g[a->at + k];
        norm = sqrt(norm);
        if (!a->adapter || norm == 0) continue;
        float *saved = malloc((size_t)n * sizeof *saved);
        double h = 2e-3 / norm < 0.01 ? 2e-3 / norm : 0.01; // the loss moves by 2e-3 at most
        memcpy(saved, p->w + a->at, (size_t)n * sizeof *saved);
        for (int sign = -1; sign <= 1; sign += 2) {
            for (int64_t k = 0; k < n; k++) p->w[a->at + k] = saved[k] + (float)(sign * h / norm * (double)p->g[a->at + k]);
            hd_params_refresh(m);
            slope += sign * pass(m, false) / (2 * h);
        }
        memcpy(p->w + a->at, saved, (size_t)n * sizeof *saved);
        free(saved);
        CHECK(fabs(slope - norm) < 0.01 * norm + 2e-6 / h, "%s %s: %g, not %g", name, a->name, slope, norm);
        checked++;
    }
    CHECK(checked > 10, "%s: %d", name, checked);
    hd_model_close(m);
}

static void test_bits(const char *name, const hd_source *s)
{
    hd_model *one = open_lora(s, HD_TRAIN_BF16, 1), *two = open_lora(s, HD_TRAIN_BF16, 2);
    if (!one || !two) return;
    hd_params *p = hd_model_params(one), *q = hd_model_params(two);
    CHECK(memcmp(p->w, q->w, (size_t)p->n_flat * 4) == 0);
    CHECK(pass(one, true) == pass(two, true) && memcmp(p->g, q->g, (size_t)p->n_flat * 4) == 0, "%s", name);
    pass(one, true); // micro-batches add up
    bool twice = true;
    for (int64_t i = 0; i < p->n_flat; i++) twice = twice && fabsf(p->g[i] - 2 * q->g[i]) <= 1e-5f * fabsf(q->g[i]) + 1e-9f;
    CHECK(twice, "%s", name);
    hd_model_close(one);
    hd_model_close(two);
}

/* As opened, B is zero: the base model's loss, and a gradient for B alone. */
static void test_start(const hd_source *s)
{
    hd_model *m = NULL, *base = NULL;
    CHECK_OK(hd_model_open_lora(&m, s, HD_TRAIN_F32, RANK, 6, 1, 1, ROWS, &err));
    CHECK_OK(hd_model_open_train(&base, s, HD_TRAIN_F32, 1, ROWS, &err));
    CHECK(pass(m, true) == pass(base, false));
    hd_params *p = hd_model_params(m);
    bool a_zero = true, b_some = false;
    for (int i = 0; i < p->n; i++)
        for (int64_t k = 0; p->p[i].adapter && k < p->p[i].n * p->p[i].k; k++) {
            if (p->p[i].k == RANK) b_some = b_some || p->g[p->p[i].at + k] != 0;
            else a_zero = a_zero && p->g[p->p[i].at + k] == 0;
        }
    CHECK(a_zero && b_some);
    hd_model_close(m);
    hd_model_close(base);
    CHECK(hd_model_open_lora(&m, s, HD_TRAIN_F32, 0, 6, 1, 1, ROWS, &err) == HD_USAGE && !m);
    CHECK(hd_model_open_lora(&m, s, HD_TRAIN_F32, 4000, 6, 1, 1, ROWS, &err) == HD_USAGE && !m && strstr(err.msg, "rank"));
}

/* The same adapters over a GGUF, whose rotated heads lie otherwise: the same loss, the
 * same merged weights. */
static void test_gguf(const hd_source *s, const char *dir)
{
    char path[300];
    hd_quantize_opts o = {.mix = hd_quant_mix_named("f32"), .n_threads = 1};
    hd_quantize_report r;
    hd_source *g = NULL;
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    CHECK_OK(hd_quantize(path, s, &o, &r, &err));
    CHECK_OK(hd_source_open(&g, path, true, &err));
    if (!g) return;
    hd_model *m = open_lora(s, HD_TRAIN_F32, 1), *n = open_lora(g, HD_TRAIN_F32, 1);
    CHECK(m && n && pass(m, true) == pass(n, true));
    hd_params *p = hd_model_params(m), *q = hd_model_params(n);
    CHECK(p->n == q->n && hd_lora_n_weights(m) == hd_lora_n_weights(n));
    for (int i = 0; i < p->n; i++) {
        const hd_param *w = hd_params_find(q, p->p[i].name); // the order is the table's in both
        CHECK(w && memcmp(p->g + p->p[i].at, q->g + w->at, (size_t)(w->n * w->k) * 4) == 0, "%s", p->p[i].name);
    }
    hd_model_close(m);
    hd_model_close(n);
    hd_source_close(g);
}

/* A checkpoint is the merged model; going on from it is going on. */
static void test_checkpoint(const hd_source *s, const char *dir)
{
    char path[1024], run[300];
    hd_optim_config c = hd_optim_defaults;
    hd_optim *o = NULL, *o2 = NULL;
    hd_source *merged = NULL;
    hd_model *whole = NULL;
    hd_run_state state = {.step = 3}, back = {0};
    c.matrices = HD_OPT_ADAMW;
    snprintf(run, sizeof run, "%s/run", dir);
    hd_model *m = open_lora(s, HD_TRAIN_BF16, 1), *again = NULL;
    hd_params *p = hd_model_params(m);
    CHECK_OK(hd_optim_open(&o, p, &c, NULL, 0, &err));
    for (int i = 1; i <= 3; i++) {
        memset(p->g, 0, (size_t)p->n_flat * 4);
        pass(m, true);
        hd_optim_step(o, hd_model_dev(m), p->w, p->g, 1e-3f, 1, i);
        hd_params_refresh(m);
    }
    CHECK_OK(hd_checkpoint_write(run, m, p, o, NULL, &state, 1, &err));
    CHECK_OK(hd_checkpoint_find(path, run, &err));
    CHECK_OK(hd_source_open(&merged, path, true, &err));
    CHECK_OK(hd_model_open_train(&whole, merged, HD_TRAIN_BF16, 1, ROWS, &err));
    CHECK(pass(m, false) == pass(whole, false));

    CHECK_OK(hd_model_open_lora(&again, s, HD_TRAIN_BF16, RANK, 6, 1, 1, ROWS, &err));
    hd_params *q = hd_model_params(again);
    CHECK_OK(hd_optim_open(&o2, q, &c, NULL, 0, &err));
    CHECK_OK(hd_checkpoint_read(path, q, o2, &back, &err));
    hd_params_refresh(again);
    for (int i = 4; i <= 5; i++) {
        memset(p->g, 0, (size_t)p->n_flat * 4);
        memset(q->g, 0, (size_t)q->n_flat * 4);
        CHECK(pass(m, true) == pass(again, true));
        hd_optim_step(o, hd_model_dev(m), p->w, p->g, 1e-3f, 1, i);
        hd_optim_step(o2, hd_model_dev(again), q->w, q->g, 1e-3f, 1, i);
        hd_params_refresh(m);
        hd_params_refresh(again);
    }
    CHECK(memcmp(p->w, q->w, (size_t)p->n_flat * 4) == 0 && back.step == 3);
    hd_optim_close(o);
    hd_optim_close(o2);
    hd_model_close(m);
    hd_model_close(again);
    hd_model_close(whole);
    hd_source_close(merged);
}

int main(void)
{
    char dir[100];
    snprintf(dir, sizeof dir, "/tmp/hadal-test-lora-%d", (int)getpid());
    CHECK_OK(hd_folder_make(dir, &err));
    static const char *const names[] = {"llama", "qwen2", "qwen3", "v2_lite", "v2_groups", "v3"};
    for (int i = 0; i < ROWS; i++) tok[i] = (i * 37 + 11) % 128, target[i] = (i * 53 + 7) % 128;
    target[3] = target[len[0] - 1] = -1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[400];
        hd_source *s = NULL;
        snprintf(path, sizeof path, "%s/tests/golden/logits/%s", HD_SOURCE_DIR, names[i]);
        CHECK_OK(hd_source_open(&s, path, true, &err));
        if (!s) continue;
        test_against_whole(names[i], s, HD_TRAIN_F32);
        test_against_whole(names[i], s, HD_TRAIN_BF16);
        if (i < 3) test_differences(names[i], s);
        test_bits(names[i], s);
        if (i == 0) test_start(s);
        if (i == 0) test_gguf(s, dir);
        if (i == 0 || i == 5) test_checkpoint(s, dir);
        CHECK_OK(hd_folder_remove(dir, &err));
        CHECK_OK(hd_folder_make(dir, &err));
        hd_source_close(s);
    }
    CHECK_OK(hd_folder_remove(dir, &err));
    return hd_test_end();
}
