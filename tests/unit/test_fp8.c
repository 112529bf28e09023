/* The emulated FP8 recipe: the grid, the scales, panels both ways, and a training pass beside bf16's. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/num.h"
#include "base/rng.h"
#include "model/params.h"
#include "model/train_pass.h"
#include "ops/back.h"
#include "ops/fp8.h"
#include "test.h"
#include "train/checkpoint.h"

static hd_rng rng;

/* The nearest of all E4M3 numbers, by looking at each; among equals the one whose last bit is 0. */
static float nearest(float v)
{
    int best = 0;
    for (int b = 0; b < 256; b++) {
        float x = hd_f8e4m3_to_f32((uint8_t)b), y = hd_f8e4m3_to_f32((uint8_t)best);
        if (isnan(x)) continue;
        float d = fabsf(x - v), e = fabsf(y - v);
        if (d < e || (d == e && (b & 1) == 0)) best = b;
    }
    return hd_f8e4m3_to_f32((uint8_t)best);
}

static void test_grid(void)
{
    bool same = true, fits = true, tight = true;
    for (int b = 0; b < 256; b++) {
        float x = hd_f8e4m3_to_f32((uint8_t)b);
        if (!isnan(x)) same &= hd_fp8_round(x, 1) == x;
    }
    for (int i = 0; i < 20000; i++) {
        float v = hd_rng_normal(&rng) * exp2f((float)(hd_rng_u32(&rng) % 16) - 10);
        if (fabsf(v) > 448) continue;
        same &= hd_fp8_round(v, 1) == nearest(v);
        same &= hd_fp8_round(v * 0.125f, 0.125f) == nearest(v) * 0.125f;
    }
    same &= hd_fp8_round(17, 1) == 16 && hd_fp8_round(19, 1) == 20 && hd_fp8_round(0x1.8p-9f, 1) == 0x1p-8f; // ties to even
    CHECK(same);
    for (int i = 0; i < 1000; i++) {
        float max = exp2f(40 * (float)hd_rng_unit(&rng) - 20), s = hd_fp8_scale(max);
        fits &= max / s <= 448;
        tight &= max / s > 224;
    }
    CHECK(fits);
    CHECK(tight);
    CHECK(hd_fp8_scale(448) == 1 && hd_fp8_scale(0) == 1 && hd_fp8_scale(INFINITY) == 1 && hd_fp8_scale(NAN) == 1);
    CHECK(isnan(hd_fp8_round(NAN, 1)));
}

/* Both packings of a matrix hold the same numbers, each on the grid of its block of 128 x 128. */
static void test_panels(void)
{
    enum { N = 150, K = 300 };
    hd_err err;
    hd_dev d;
    const hd_panel_kind *kind = hd_panel_get(HD_PANEL_BF16);
    static float w[N * K], a[((N + 31) / 32) * 32 * (K + 64)], b[((K + 31) / 32) * 32 * (N + 64)];
    for (int i = 0; i < N * K; i++) w[i] = hd_rng_normal(&rng) * (i / K < 128 ? 1 : 100);
    hd_linear back = {.src = {.type = HD_F32, .n = K, .k = N}, .kind = kind};
    hd_linear lin = {.src = {.type = HD_F32, .data = (const uint8_t *)w, .row_bytes = K * 4, .n = N, .k = K}, .kind = kind, .back = &back};
    lin.panels = aligned_alloc(64, kind->bytes(K) * 5), back.panels = aligned_alloc(64, kind->bytes(N) * 10);
    CHECK_OK(hd_dev_open(&d, 2, false, 512, &err));
    d.fp8 = true;
    hd_linear *all[] = {&lin};
    hd_linear_refresh(&d, all, 1);
    for (int p = 0; p < 5; p++) kind->unpack(a + p * 32 * K, lin.panels + (size_t)p * kind->bytes(K), K);
    for (int p = 0; p < 10; p++) kind->unpack(b + p * 32 * N, back.panels + (size_t)p * kind->bytes(N), N);
    bool same = true, grid = true;
    for (int y = 0; y < N; y++)
        for (int x = 0; x < K; x++) {
            float max = 0, v = a[(y / 32 * K + x) * 32 + y % 32];
            for (int i = y / 128 * 128; i < N && i < y / 128 * 128 + 128; i++)
                for (int j = x / 128 * 128; j < K && j < x / 128 * 128 + 128; j++) max = fmaxf(max, fabsf(w[i * K + j]));
            same &= v == b[(x / 32 * N + y) * 32 + x % 32];
            grid &= v == hd_fp8_round(w[y * K + x], hd_fp8_scale(max));
        }
    CHECK(same);
    CHECK(grid);
    free(lin.panels), free(back.panels);
    hd_dev_close(&d);
}

static const char config[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":61,\"hidden_size\":160,\"num_hidden_layers\":2,"
                             "\"num_attention_heads\":5,\"num_key_value_heads\":5,\"intermediate_size\":300,\"max_position_embeddings\":128,"
                             "\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,\"rope_theta\":10000}";

static double pass(const char *dir, hd_train_precision precision, float **g, int64_t *n)
{
    hd_err err;
    hd_source *s;
    hd_model *m;
    int32_t tok[100], target[100];
    CHECK_OK(hd_source_open(&s, dir, true, &err));
    CHECK_OK(hd_model_open_train(&m, s, precision, 2, 100, &err));
    for (int i = 0; i < 100; i++) tok[i] = i * 7 % 61, target[i] = (i + 1) * 7 % 61;
    hd_micro b = {.n_rows = 100, .n_docs = 2, .tok = tok, .target = target, .len = (int[]){60, 40}};
    hd_pass_opts o = {.loss_scale = 0.01f, .backward = true};
    hd_pass_result r = {0};
    CHECK_OK(hd_train_pass(m, &b, &o, &r, &err));
    hd_params *p = hd_model_params(m);
    *n = p->n_flat;
    *g = malloc((size_t)p->n_flat * 4);
    memcpy(*g, p->g, (size_t)p->n_flat * 4);
    hd_model_close(m);
    hd_source_close(s);
    return r.loss / 100;
}

/* Rounding costs something and not much: the loss within a percent, the gradient's direction
 * within a few degrees. */
static void test_pass(void)
{
    hd_err err;
    char dir[] = "/tmp/hadal-fp8-XXXXXX", model[64];
    float *g8, *g16;
    int64_t n;
    double ab = 0, aa = 0, bb = 0;
    if (!mkdtemp(dir)) return;
    snprintf(model, sizeof model, "%s/m", dir);
    json_t *j = json_loads(config, 0, NULL);
    CHECK_OK(hd_model_init(model, j, 5, NULL, &err));
    double a = pass(model, HD_TRAIN_FP8, &g8, &n), b = pass(model, HD_TRAIN_BF16, &g16, &n);
    for (int64_t i = 0; i < n; i++) ab += (double)g8[i] * g16[i], aa += (double)g8[i] * g8[i], bb += (double)g16[i] * g16[i];
    CHECK(a != b);
    CHECK(fabs(a / b - 1) < 0.01, "loss %.5f, in bf16 %.5f", a, b);
    CHECK(ab / sqrt(aa * bb) > 0.995, "cosine %.5f", ab / sqrt(aa * bb));
    CHECK(memcmp(g8, g16, (size_t)n * 4) != 0);
    free(g8), free(g16);
    json_decref(j);
    CHECK_OK(hd_folder_remove(dir, &err));
}

int main(void)
{
    hd_rng_seed(&rng, 3, 7);
    test_grid();
    test_panels();
    test_pass();
    return hd_test_end();
}
