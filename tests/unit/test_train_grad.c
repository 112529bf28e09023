/* Gradients of whole models against differences of the loss in double (tests/plain.h): every architecture,
 * every part of the loss, odd sizes, documents of one row and of more than an attention's segment.
 *
 * For random directions v of a tensor (numbers of deviation 1) the difference quotient is g . v, and if
 * hadal's gradient is off by e, then the mean of (e . v)^2 is |e|^2: three directions tell whether |e| is
 * below 1e-4 |g| (f32 sums of some hundred terms, which cancel in places; 3e-6 is usual).  A quotient's own
 * error is some 1e-6 of it: h^2 times third derivatives, and rounding of 1e-15 / h. */
#include <unistd.h>

#include "base/folder.h"
#include "base/rng.h"
#include "plain.h"
#include "test.h"
#include "train/checkpoint.h"

enum { MAX_ROWS = 640, MAX_TOP = 5, DIRECTIONS = 3, MAX_SEEDS = 60 };
static const double STEP = 1e-5, GRADIENT = 1e-4, LOSS = 1e-5, CLEAR = 1e-4;

static hd_err err;

#define DENSE "\"vocab_size\":37,\"hidden_size\":22,\"num_hidden_layers\":2,\"num_attention_heads\":6,\"num_key_value_heads\":2,\"head_dim\":6," \
              "\"intermediate_size\":27,\"max_position_embeddings\":640,\"rms_norm_eps\":1e-5,\"rope_theta\":500"
#define MLA   "\"vocab_size\":37,\"hidden_size\":23,\"num_attention_heads\":3,\"num_key_value_heads\":3,\"kv_lora_rank\":13,\"qk_nope_head_dim\":8," \
              "\"qk_rope_head_dim\":6,\"v_head_dim\":9,\"intermediate_size\":29,\"max_position_embeddings\":640,\"rms_norm_eps\":1e-5,\"rope_theta\":500"
#define MOE   ",\"num_hidden_layers\":2,\"first_k_dense_replace\":1,\"moe_intermediate_size\":11"
#define V3    "\"architectures\":[\"DeepseekV3ForCausalLM\"],\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","
#define V2    "\"architectures\":[\"DeepseekV2ForCausalLM\"],\"scoring_func\":\"softmax\","

static const int several[] = {17, 1, 2, 23, 6}, few[] = {5, 31}, one_long[] = {531, 4};

typedef struct {
    const char *name, *config;
    const int *len;
    int n_docs;
    float mtp_weight, balance_alpha, zloss, distil_weight, temperature;
    bool weights, recompute;
} model_case;
#define DOCS(a) .len = a, .n_docs = sizeof(a) / sizeof *(a)

static const model_case cases[] = {
    {"llama", "{\"architectures\":[\"LlamaForCausalLM\"]," DENSE ",\"tie_word_embeddings\":false,\"attention_bias\":true,\"mlp_bias\":true}",
     DOCS(several), .zloss = 1e-2f},
    {"llama, tied", "{\"architectures\":[\"LlamaForCausalLM\"]," DENSE ",\"tie_word_embeddings\":true}", DOCS(few), .weights = true,
     .recompute = true},
    {"qwen2", "{\"architectures\":[\"Qwen2ForCausalLM\"]," DENSE ",\"tie_word_embeddings\":true}", DOCS(several), .distil_weight = 0.7f,
     .temperature = 2},
    {"qwen3", "{\"architectures\":[\"Qwen3ForCausalLM\"]," DENSE ",\"tie_word_embeddings\":false}", DOCS(several), .zloss = 1e-3f,
     .distil_weight = 1, .temperature = 0.5f, .weights = true},
    {"v2", "{" V2 MLA MOE ",\"q_lora_rank\":11,\"n_routed_experts\":6,\"n_shared_experts\":1,\"num_experts_per_tok\":2,\"n_group\":3,"
           "\"topk_group\":2,\"topk_method\":\"group_limited_greedy\",\"norm_topk_prob\":false,\"routed_scaling_factor\":3.0}",
     DOCS(several), .balance_alpha = 0.3f},
    {"v2, lite", "{" V2 MLA MOE ",\"q_lora_rank\":null,\"n_routed_experts\":5,\"n_shared_experts\":2,\"num_experts_per_tok\":3,\"n_group\":1,"
                 "\"topk_group\":1,\"topk_method\":\"greedy\",\"norm_topk_prob\":true,\"attention_bias\":true}",
     DOCS(few), .zloss = 1e-2f, .recompute = true},
    {"v3", "{" V3 MLA MOE ",\"q_lora_rank\":null,\"n_routed_experts\":6,\"n_shared_experts\":2,\"num_experts_per_tok\":3,\"n_group\":3,"
           "\"topk_group\":2,\"norm_topk_prob\":false,\"routed_scaling_factor\":1.5}",
     DOCS(several), .balance_alpha = 0.3f, .zloss = 1e-2f, .distil_weight = 0.4f, .temperature = 1.5f, .weights = true},
    {"v3, one token further", "{" V3 MLA MOE ",\"q_lora_rank\":11,\"n_routed_experts\":8,\"n_shared_experts\":1,\"num_experts_per_tok\":2,"
                              "\"n_group\":4,\"topk_group\":2,\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5,"
                              "\"num_nextn_predict_layers\":1}",
     DOCS(several), .mtp_weight = 0.3f, .balance_alpha = 0.1f, .zloss = 1e-3f},
    {"v3, tied, recomputing", "{" V3 MLA MOE ",\"q_lora_rank\":11,\"n_routed_experts\":4,\"n_shared_experts\":0,\"num_experts_per_tok\":2,"
                              "\"n_group\":1,\"topk_group\":1,\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5,"
                              "\"num_nextn_predict_layers\":1,\"tie_word_embeddings\":true}",
     DOCS(few), .mtp_weight = 0.5f, .balance_alpha = 0.1f, .recompute = true},
    {"qwen2, a long document", "{\"architectures\":[\"Qwen2ForCausalLM\"],\"vocab_size\":19,\"hidden_size\":10,\"num_hidden_layers\":1,"
                               "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":4,\"intermediate_size\":7,"
                               "\"max_position_embeddings\":640,\"rms_norm_eps\":1e-5,\"rope_theta\":500}",
     DOCS(one_long)},
    {"v3, a long document", "{" V3 "\"vocab_size\":19,\"hidden_size\":10,\"num_attention_heads\":2,\"num_key_value_heads\":2,\"kv_lora_rank\":5,"
                            "\"qk_nope_head_dim\":4,\"qk_rope_head_dim\":2,\"v_head_dim\":3,\"intermediate_size\":7,\"max_position_embeddings\":640,"
                            "\"rms_norm_eps\":1e-5,\"rope_theta\":500,\"num_hidden_layers\":1,\"first_k_dense_replace\":1,\"q_lora_rank\":null,"
                            "\"moe_intermediate_size\":3,\"n_routed_experts\":2,\"n_shared_experts\":0,\"num_experts_per_tok\":1,\"n_group\":1,"
                            "\"topk_group\":1,\"norm_topk_prob\":true,\"routed_scaling_factor\":1.0}",
     DOCS(one_long)},
};

/* ---- A batch ------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t tok[MAX_ROWS], target[MAX_ROWS], teacher_id[MAX_ROWS * MAX_TOP];
    float teacher_logp[MAX_ROWS * MAX_TOP], weight[MAX_ROWS];
    hd_micro b;
    hd_pass_opts o;
} batch;

/* A falling list of different ids; every seventh row has none, some end early. */
static void teach(batch *x, int row, int n_vocab, hd_rng *r)
{
    int n = row % 7 == 3 ? 0 : 1 + row % MAX_TOP, id = (int)(hd_rng_u32(r) % (unsigned)n_vocab);
    float logp = -0.3f;
    for (int k = 0; k < MAX_TOP; k++, id = (id + 3) % n_vocab, logp -= 0.1f + (float)hd_rng_unit(r)) {
        x->teacher_id[row * MAX_TOP + k] = k < n ? id : -1;
        x->teacher_logp[row * MAX_TOP + k] = logp;
    }
}

static void make_batch(batch *x, const model_case *c, int n_vocab, hd_rng *r)
{
    int n = 0, n_target = 0;
    for (int d = 0; d < c->n_docs; d++)
        for (int t = 0; t < c->len[d]; t++, n++) {
            x->tok[n] = (int32_t)(hd_rng_u32(r) % (unsigned)n_vocab);
            if (t > 0) x->target[n - 1] = d == 3 && t < 5 ? -1 : x->tok[n]; // the fourth begins with a prompt
            x->target[n] = -1;
            x->weight[n] = 0.5f + (float)hd_rng_unit(r);
            teach(x, n, n_vocab, r);
        }
    for (int i = 0; i < n; i++) n_target += x->target[i] >= 0;
    x->b = (hd_micro){.n_rows = n, .n_docs = c->n_docs, .tok = x->tok, .target = x->target, .len = c->len};
    if (c->weights) x->b.weight = x->weight;
    if (c->distil_weight > 0) x->b.teacher_id = x->teacher_id, x->b.teacher_logp = x->teacher_logp, x->b.n_top = MAX_TOP;
    int64_t n_mtp = hd_micro_mtp_targets(&x->b);
    x->o = (hd_pass_opts){.loss_scale = 1.0f / (float)n_target, .mtp_weight = c->mtp_weight, .mtp_scale = 1.0f / (float)n_mtp,
                          .balance_alpha = c->balance_alpha, .balance_scale = 1.0f / (float)c->n_docs, .zloss = c->zloss,
                          .distil_weight = c->distil_weight, .temperature = c->temperature, .recompute = c->recompute, .backward = true};
}

/* ---- Weights ------------------------------------------------------------------------------------------- */

/* No weight at its usual beginning: gains are not 1, biases not 0, and activations stay near 1. */
static void draw(hd_model *m, hd_rng *r)
{
    hd_params *ps = hd_model_params(m);
    for (int i = 0; i < ps->n; i++) {
        const hd_param *p = &ps->p[i];
        bool norm = p->slot->kind == HD_SLOT_NORM;
        float dev = p->slot->kind == HD_SLOT_EMBED ? 1 : p->vector ? 0.2f : 1.5f / sqrtf((float)p->k);
        for (int64_t j = 0; j < p->n * p->k; j++) ps->w[p->at + j] = (norm ? 1.0f : 0.0f) + dev * hd_rng_normal(r);
    }
    hd_params_refresh(m);
}

/* ---- The comparison ------------------------------------------------------------------------------------ */

static void near(double got, double want, const char *name, const char *part)
{
    CHECK(fabs(got - want) <= LOSS * fabs(want), "%s: %s: %.9g, in double %.9g", name, part, got, want);
}

/* The length of what hadal's gradient of p is off by, from differences along random directions. */
static double distance(plain *m, const hd_param *p, const batch *x, hd_rng *r)
{
    int64_t n = p->n * p->k;
    double *w = m->w + p->at, *keep = malloc((size_t)n * sizeof *keep), *v = malloc((size_t)n * sizeof *v), sum = 0;
    memcpy(keep, w, (size_t)n * sizeof *w);
    for (int d = 0; d < DIRECTIONS; d++) {
        double gv = 0, l[2];
        for (int64_t i = 0; i < n; i++) v[i] = (double)hd_rng_normal(r), gv += v[i] * (double)m->p->g[p->at + i];
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < n; i++) w[i] = keep[i] + (side ? STEP : -STEP) * v[i];
            l[side] = plain_run(m, &x->b, &x->o).total;
        }
        double e = (l[1] - l[0]) / (2 * STEP) - gv;
        sum += e * e;
    }
    memcpy(w, keep, (size_t)n * sizeof *w);
    free(keep);
    free(v);
    return sqrt(sum / DIRECTIONS);
}

static void compare(plain *m, const model_case *c, const batch *x, hd_rng *r)
{
    const hd_params *ps = m->p;
    double worst = 0;
    int some = 0, all = 0;
    for (int i = 0; i < ps->n; i++) {
        const hd_param *p = &ps->p[i];
        double norm = 0;
        for (int64_t j = p->at; j < p->at + p->n * p->k; j++) norm += (double)ps->g[j] * (double)ps->g[j];
        norm = sqrt(norm);
        if (p->frozen) {
            CHECK(norm == 0, "%s: %s is moved by balancing alone", c->name, p->name);
            continue;
        }
        double far = distance(m, p, x, r);
        CHECK(far <= GRADIENT * norm, "%s: %s: off by %.2g of %.2g", c->name, p->name, far, norm);
        all++;
        some += norm > 0;
        if (norm > 0 && far / norm > worst) worst = far / norm;
    }
    CHECK(some > all * 3 / 4, "%s: only %d of %d tensors have a gradient", c->name, some, all);
    if (getenv("HADAL_VERBOSE")) printf("%s: %d tensors, the worst off by %.2g of its norm\n", c->name, all, worst);
}

/* One draw of weights and ids; false: a choice of experts was nearly a tie, which f32 may
 * decide otherwise. */
static bool attempt(hd_model *m, const model_case *c, uint64_t seed)
{
    static batch x;
    const hd_config *cfg = hd_model_config(m);
    hd_params *ps = hd_model_params(m);
    hd_pass_result r = {0};
    hd_rng rng;
    hd_rng_seed(&rng, seed, 11);
    draw(m, &rng);
    make_batch(&x, c, (int)cfg->n_vocab, &rng);
    plain ref = plain_open(cfg, ps, MAX_ROWS);
    plain_loss want = plain_run(&ref, &x.b, &x.o);
    bool clear = ref.margin > CLEAR;
    if (clear) {
        memset(ps->g, 0, (size_t)ps->n_flat * sizeof *ps->g);
        CHECK_OK(hd_train_pass(m, &x.b, &x.o, &r, &err));
        near(r.loss, want.loss, c->name, "loss");
        if (c->mtp_weight > 0) near(r.mtp_loss, want.mtp, c->name, "one token further");
        if (c->distil_weight > 0) near(r.distil_loss, want.distil, c->name, "distillation");
        if (c->balance_alpha > 0) near(r.balance_loss, want.balance, c->name, "balance");
        compare(&ref, c, &x, &rng);
    }
    plain_close(&ref);
    return clear;
}

static void test_case(const char *root, const model_case *c, int i)
{
    char dir[256];
    hd_source *s = NULL;
    hd_model *m = NULL;
    json_t *j = json_loads(c->config, 0, NULL);
    CHECK(j != NULL, "%s", c->name);
    snprintf(dir, sizeof dir, "%s/%d", root, i);
    CHECK_OK(hd_model_init(dir, j, 1, NULL, &err));
    CHECK_OK(hd_source_open(&s, dir, true, &err));
    if (s) CHECK_OK(hd_model_open_train(&m, s, HD_TRAIN_F32, 2, MAX_ROWS, &err));
    if (m) {
        uint64_t seed = 1;
        while (seed <= MAX_SEEDS && !attempt(m, c, seed)) seed++;
        CHECK(seed <= MAX_SEEDS, "%s: no weights whose choices are clear", c->name);
    }
    hd_model_close(m);
    hd_source_close(s);
    json_decref(j);
}

int main(void)
{
    char dir[] = "/tmp/hadal-grad-XXXXXX";
    if (!mkdtemp(dir)) return 1;
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) test_case(dir, &cases[i], i);
    CHECK_OK(hd_folder_remove(dir, &err));
    return hd_test_end();
}
