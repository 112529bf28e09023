/* Passes side by side: their gradients and results are those of the same passes one after the other, lane by
 * lane, to the bit, with any number of threads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/rng.h"
#include "model/lora.h"
#include "model/train_pass.h"
#include "test.h"
#include "train/checkpoint.h"

enum { ROWS = 24, MOST = 20, LANES = 8, LAYERS = 3, EXPERTS = 6 };

static const char moe[] = "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"vocab_size\":61,\"hidden_size\":48,\"num_hidden_layers\":2,"
                          "\"num_attention_heads\":3,\"num_key_value_heads\":3,\"intermediate_size\":70,\"max_position_embeddings\":64,"
                          "\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,\"rope_theta\":10000,\"q_lora_rank\":null,\"kv_lora_rank\":16,"
                          "\"qk_nope_head_dim\":8,\"qk_rope_head_dim\":8,\"v_head_dim\":12,\"n_routed_experts\":6,\"num_experts_per_tok\":2,"
                          "\"moe_intermediate_size\":20,\"n_shared_experts\":1,\"first_k_dense_replace\":1,\"n_group\":1,\"topk_group\":1,"
                          "\"num_nextn_predict_layers\":1}";

static int32_t tok[MOST][ROWS], target[MOST][ROWS];
static int len[MOST][2];

/* Passes of different lengths, some rows without a target. */
static hd_micro micro(int i)
{
    return (hd_micro){.n_rows = len[i][0] + len[i][1], .n_docs = 2, .tok = tok[i], .target = target[i], .len = len[i]};
}

static void draw(void)
{
    hd_rng r;
    hd_rng_seed(&r, 3, 0);
    for (int i = 0; i < MOST; i++) {
        len[i][0] = 3 + i % 9, len[i][1] = 12 - i % 5;
        for (int t = 0; t < ROWS; t++) {
            tok[i][t] = (int32_t)(hd_rng_u32(&r) % 61);
            target[i][t] = hd_rng_u32(&r) % 7 ? (int32_t)(hd_rng_u32(&r) % 61) : -1;
        }
    }
}

static const hd_pass_opts opts = {.loss_scale = 0.01f, .mtp_weight = 0.3f, .mtp_scale = 0.01f, .balance_alpha = 0.01f, .balance_scale = 0.1f, .backward = true};

typedef struct {
    hd_source *s;
    hd_model *m;
    hd_params *p;
    size_t bytes; // of gradients
    int64_t load[LAYERS * EXPERTS];
    hd_pass_result r;
} side;

static void begin_step(side *x)
{
    memset(x->p->g, 0, x->bytes);
    memset(x->load, 0, sizeof x->load);
    x->r = (hd_pass_result){.load = x->load};
}

static side open_side(const char *dir, hd_train_precision precision, int threads)
{
    side x = {0};
    hd_err err;
    CHECK_OK(hd_source_open(&x.s, dir, true, &err));
    CHECK_OK(hd_model_open_train(&x.m, x.s, precision, threads, ROWS, &err));
    x.p = hd_model_params(x.m);
    x.bytes = (size_t)x.p->n_flat * sizeof(float);
    return x;
}

static void close_side(side *x)
{
    hd_model_close(x->m);
    hd_source_close(x->s);
}

/* One after the other: each lane's passes into gradients of their own, then the lanes' sum. */
static void lane_by_lane(side *x, const int *n, int n_calls)
{
    hd_err err;
    float *lane[LANES], *g = x->p->g;
    begin_step(x);
    for (int l = 0; l < LANES; l++) lane[l] = calloc(1, x->bytes);
    for (int c = 0; c < n_calls; c++) {
        const int lanes = n[c] < LANES ? n[c] : LANES;
        for (int l = 0; l < lanes; l++)
            for (int i = l * n[c] / lanes; i < (l + 1) * n[c] / lanes; i++) {
                hd_micro b = micro(i);
                x->p->g = lane[l];
                CHECK_OK(hd_train_pass(x->m, &b, &opts, &x->r, &err));
            }
    }
    x->p->g = g;
    for (int l = 0; l < LANES; l++) {
        for (int64_t i = 0; i < x->p->n_flat; i++) g[i] += lane[l][i];
        free(lane[l]);
    }
}

static void side_by_side(side *x, const int *n, int n_calls)
{
    hd_err err;
    hd_micro b[MOST];
    begin_step(x);
    for (int i = 0; i < MOST; i++) b[i] = micro(i);
    for (int c = 0; c < n_calls; c++) CHECK_OK(hd_train_passes(x->m, b, n[c], &opts, &x->r, &err));
    hd_train_sum(x->m);
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * fabs(a) + 1e-12; }

static void check_same(const side *a, const side *b, const char *what, int threads)
{
    CHECK(memcmp(a->p->g, b->p->g, a->bytes) == 0, "%s, %d threads: the gradients' bits", what, threads);
    CHECK(memcmp(a->load, b->load, sizeof a->load) == 0, "%s, %d threads: the experts' load", what, threads);
    CHECK(a->r.n_target == b->r.n_target && a->r.n_mtp == b->r.n_mtp);
    CHECK(near(a->r.loss, b->r.loss) && near(a->r.mtp_loss, b->r.mtp_loss) && near(a->r.balance_loss, b->r.balance_loss),
          "%s, %d threads: loss %.15g, one after the other %.15g", what, threads, b->r.loss, a->r.loss);
}

static void test_bits(const char *dir, hd_train_precision precision)
{
    static const int all[] = {1, 2, 3, 7, 8, 9, 16, MOST};
    const int two[] = {MOST, 3};
    side ref = open_side(dir, precision, 1);
    CHECK(hd_train_most_passes(ref.m) >= MOST);
    for (int threads = 1; threads <= 10; threads += threads < 4 ? 1 : 5) { // 9: more than lanes
        char what[32];
        side x = open_side(dir, precision, threads);
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            lane_by_lane(&ref, &all[i], 1);
            side_by_side(&x, &all[i], 1);
            snprintf(what, sizeof what, "%d passes", all[i]);
            check_same(&ref, &x, what, threads);
        }
        lane_by_lane(&ref, two, 2);
        side_by_side(&x, two, 2);
        check_same(&ref, &x, "two calls", threads);
        close_side(&x);
    }
    CHECK(ref.r.loss > 0 && ref.r.mtp_loss > 0 && ref.r.balance_loss > 0);
    close_side(&ref);
}

/* A pass that fails says so, wherever it is; the next step is whole. */
static void test_failure(const char *dir)
{
    const int n = MOST;
    side ref = open_side(dir, HD_TRAIN_BF16, 1), x = open_side(dir, HD_TRAIN_BF16, 2);
    lane_by_lane(&ref, &n, 1);
    for (int bad = 0; bad < MOST; bad += 6) {
        hd_err err = {0};
        hd_micro b[MOST];
        int32_t wrong[ROWS];
        begin_step(&x);
        for (int i = 0; i < MOST; i++) b[i] = micro(i);
        memcpy(wrong, target[bad], sizeof wrong);
        wrong[2] = 61;
        b[bad].target = wrong;
        CHECK(hd_train_passes(x.m, b, MOST, &opts, &x.r, &err) == HD_USAGE);
        CHECK(strstr(err.msg, "target 61") != NULL, "%s", err.msg);
        hd_train_sum(x.m);
        side_by_side(&x, &n, 1);
        check_same(&ref, &x, "after a failure", 2);
    }
    close_side(&ref);
    close_side(&x);
}

/* Adapters' passes are made one after the other. */
static void test_adapters(const char *dir)
{
    hd_err err;
    side x = {0};
    CHECK_OK(hd_source_open(&x.s, dir, true, &err));
    CHECK_OK(hd_model_open_lora(&x.m, x.s, HD_TRAIN_BF16, 2, 4, 1, 2, ROWS, &err));
    CHECK(hd_train_most_passes(x.m) == 1);
    x.p = hd_model_params(x.m);
    x.bytes = (size_t)x.p->n_flat * sizeof(float);
    float *g = malloc(x.bytes);
    hd_micro b = micro(0);
    begin_step(&x);
    CHECK_OK(hd_train_pass(x.m, &b, &opts, &x.r, &err));
    memcpy(g, x.p->g, x.bytes);
    begin_step(&x);
    CHECK_OK(hd_train_passes(x.m, &b, 1, &opts, &x.r, &err));
    hd_train_sum(x.m);
    CHECK(memcmp(g, x.p->g, x.bytes) == 0);
    free(g);
    close_side(&x);
}

int main(void)
{
    hd_err err;
    char dir[] = "/tmp/hadal-lanes-XXXXXX", model[64];
    if (!mkdtemp(dir)) return 1;
    snprintf(model, sizeof model, "%s/m", dir);
    json_t *j = json_loads(moe, 0, NULL);
    CHECK_OK(hd_model_init(model, j, 5, NULL, &err));
    json_decref(j);
    draw();
    test_bits(model, HD_TRAIN_F32);
    test_bits(model, HD_TRAIN_BF16);
    test_failure(model);
    test_adapters(model);
    CHECK_OK(hd_folder_remove(dir, &err));
    return hd_test_end();
}
