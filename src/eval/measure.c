/* A machine measured: its product rate, and what share of it whole training passes reach on small models.
 * The models are those of bench-train, with random weights and ids; a pass is forward and backward of one micro-batch.
 * Updates are timed apart, on the middle one. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/avail.h"
#include "base/folder.h"
#include "base/log.h"
#include "base/rng.h"
#include "eval/cost.h"
#include "model/config_write.h"
#include "model/train_pass.h"
#include "ops/rate.h"
#include "train/checkpoint.h"
#include "train/recipe.h"

typedef struct {
    bool moe;
    int vocab, width, layers, seq;
} shape;

static const shape shapes[] = {
    {false, 512, 128, 5, 256}, {false, 4096, 320, 7, 256}, {false, 16384, 768, 12, 512},
    {true, 512, 128, 5, 256},  {true, 4096, 320, 7, 256},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], TRIES = 4, UPDATED_WIDTH = 320 };

/* As many as a run would take at once. */
static int docs_of(const shape *s) { return hd_recipe_micro(1024, s->seq); }

/* Widths as people choose them: whole panels of 32. */
static int wide(int n) { return (n + 31) / 32 * 32; }

static json_t *config_of(const shape *s)
{
    json_t *j = json_pack("{s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "architectures",
                          s->moe ? "DeepseekV3ForCausalLM" : "LlamaForCausalLM", "vocab_size", s->vocab, "hidden_size", s->width,
                          "intermediate_size", wide(s->width * 8 / 3), "num_hidden_layers", s->layers, "num_attention_heads", s->width / 32,
                          "num_key_value_heads", s->width / 32, "tie_word_embeddings", 1);
    json_t *m = !s->moe ? json_pack("{s:i}", "head_dim", 32)
                        : json_pack("{s:n, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "q_lora_rank", "kv_lora_rank",
                                    s->width / 2, "qk_nope_head_dim", 32, "qk_rope_head_dim", 16, "v_head_dim", 32,
                                    "n_routed_experts", 16, "num_experts_per_tok", 4, "moe_intermediate_size", wide(s->width * 2 / 3),
                                    "n_shared_experts", 1, "first_k_dense_replace", 1, "n_group", 1, "topk_group", 1);
    if (j && m) json_object_update(j, m);
    json_decref(m);
    return j;
}

/* Seconds of a token, the best of a few passes after one that warms up. */
static hd_status time_passes(double *seconds, hd_model *m, const shape *s, hd_err *err)
{
    hd_status st;
    int n_docs = docs_of(s), rows = n_docs * s->seq;
    int32_t *tok = NULL, *target = NULL;
    int *len = NULL;
    hd_rng r;
    hd_pass_result result;
    hd_pass_opts o = {.loss_scale = 1.0f / (float)rows, .temperature = 1, .backward = true};
    HD_TRY(hd_alloc_n(&tok, (size_t)rows, sizeof *tok, err));
    HD_TRY(hd_alloc_n(&target, (size_t)rows, sizeof *target, err));
    HD_TRY(hd_alloc_n(&len, (size_t)n_docs, sizeof *len, err));
    hd_rng_seed(&r, 1, 2);
    for (int i = 0; i < rows; i++) tok[i] = (int32_t)(hd_rng_u32(&r) % (uint32_t)s->vocab);
    for (int i = 0; i < rows; i++) target[i] = i % s->seq == s->seq - 1 ? -1 : tok[i + 1];
    for (int i = 0; i < n_docs; i++) len[i] = s->seq;
    hd_micro b = {.n_rows = rows, .n_docs = n_docs, .tok = tok, .target = target, .len = len};
    *seconds = 1e9;
    for (int i = 0; i < TRIES; i++) {
        double t0 = hd_now_s();
        memset(&result, 0, sizeof result);
        HD_TRY(hd_train_pass(m, &b, &o, &result, err));
        double t = (hd_now_s() - t0) / rows;
        if (t < *seconds) *seconds = t;
    }
fail:
    free(tok);
    free(target);
    free(len);
    return st;
}

/* Weights updated a second, fetching the panels anew included. */
static hd_status time_updates(double *weights_s, hd_model *m, hd_optim_kind matrices, hd_err *err)
{
    hd_status st;
    hd_params *p = hd_model_params(m);
    hd_optim *o = NULL;
    hd_optim_config c = hd_optim_defaults;
    double best = 1e9;
    c.matrices = matrices;
    HD_TRY(hd_optim_open(&o, p, &c, NULL, 0, err));
    for (int i = 0; i < TRIES; i++) {
        double t0 = hd_now_s();
        hd_optim_step(o, hd_model_dev(m), p->w, p->g, 1e-6f, 1, i + 1);
        hd_params_refresh(m);
        double t = hd_now_s() - t0;
        if (t < best) best = t;
    }
    *weights_s = (double)p->n_weights / best;
fail:
    hd_optim_close(o);
    return st;
}

static hd_status measure_shape(hd_machine *m, const shape *s, const char *dir, int n_threads, hd_err *err)
{
    hd_status st;
    double seconds;
    hd_cost cost;
    hd_source *src = NULL;
    hd_model *model = NULL;
    json_t *config = config_of(s);
    hd_cost_curve *c = s->moe ? &m->moe : &m->dense;
    if (!config) HD_TRY(hd_fail(err, HD_NOMEM, "cost: no memory"));
    HD_TRY(hd_folder_remove(dir, err));
    HD_TRY(hd_model_init(dir, config, 1, NULL, err));
    HD_TRY(hd_source_open(&src, dir, true, err));
    HD_TRY(hd_folder_remove(dir, err)); // its pages stay mapped, and a killed process leaves nothing
    HD_TRY(hd_model_open_train(&model, src, HD_TRAIN_BF16, n_threads, docs_of(s) * s->seq, err));
    HD_TRY(time_passes(&seconds, model, s, err));
    hd_cost_ask ask = {.tokens = 1, .seq = s->seq};
    HD_TRY(hd_cost_plan(&cost, hd_source_config(src), &ask, m, err));
    c->width[c->n] = s->width;
    c->share[c->n++] = fmin(1, cost.flops_per_token / seconds / m->peak_flops);
    if (s->moe || s->width != UPDATED_WIDTH) goto fail;
    HD_TRY(time_updates(&m->adamw_s, model, HD_OPT_ADAMW, err));
    HD_TRY(time_updates(&m->muon_s, model, HD_OPT_MUON, err));
fail:
    hd_model_close(model);
    hd_source_close(src);
    json_decref(config);
    return st;
}

hd_status hd_machine_measure(hd_machine *m, int n_threads, hd_err *err)
{
    hd_status st;
    hd_dev dev = {0};
    bool open = false;
    struct utsname u;
    char dir[64];
    const char *tmp = getenv("TMPDIR");
    hd_progress bar;
    m->dense.n = m->moe.n = 0;
    m->devices = 1;
    strcpy(m->precision, "bf16");
    snprintf(dir, sizeof dir, "%.30s/hadal-measure-%ld", tmp && *tmp ? tmp : "/tmp", (long)getpid());
    HD_TRY(hd_dev_open(&dev, n_threads, false, 4096, err));
    open = true;
    HD_TRY(hd_product_rate(&m->peak_flops, &dev, err));
    m->bf16_flops = m->peak_flops;
    m->utilization = 0.3; // until measured
    m->mem_bytes = (double)hd_mem_available();
    if (uname(&u) == 0) snprintf(m->name, sizeof m->name, "%d-thread %.20s %.20s", hd_pool_threads(dev.pool), u.machine, dev.k->level);
    hd_progress_begin(&bar, "measuring", N_SHAPES, "models");
    for (int i = 0; i < N_SHAPES && st == HD_OK; i++) {
        st = measure_shape(m, &shapes[i], dir, hd_pool_threads(dev.pool), err);
        hd_progress_add(&bar, 1);
    }
    hd_progress_end(&bar);
    HD_TRY(st);
    m->utilization = m->dense.share[m->dense.n - 1];
fail:
    hd_folder_remove(dir, NULL);
    if (open) hd_dev_close(&dev);
    return st;
}
