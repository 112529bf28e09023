/* A machine measured: its product rate, and the rates of a training pass's kinds of work, from passes of
 * small models with random weights and ids; a pass is forward and backward of one micro-batch.  The models
 * differ in what they have much of, so that the five rates can be told apart: the fit (hd_cost_fit) is over
 * all of them.  Updates are timed apart, on two models. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/avail.h"
#include "base/folder.h"
#include "base/log.h"
#include "base/rng.h"
#include "eval/cost.h"
#include "model/config_write.h"
#include "model/train_pass.h"
#include "ops/back.h"
#include "ops/rate.h"
#include "train/checkpoint.h"
#include "train/recipe.h"

typedef struct {
    int vocab, width, layers, seq, head;
    int latent;                        // > 0: DeepSeek-V3's, with latent attention; else Llama's
    int experts, chosen, expert_width; // and a shared one
    int mtp;
    enum { NO_UPDATE, UPDATE, UPDATE_SMALL } update; // also timed: AdamW's and Muon's large products; Muon's small ones
} shape;

static const shape shapes[] = {
    {512, 64, 4, 256, 32, 0, 0, 0, 0, 0, NO_UPDATE},          // small matrices: what lies between them
    {512, 128, 5, 512, 32, 0, 0, 0, 0, 0, NO_UPDATE},         // many pairs of small heads
    {4096, 320, 7, 256, 64, 0, 0, 0, 0, 0, UPDATE},           //
    {8192, 768, 4, 512, 64, 0, 0, 0, 0, 0, NO_UPDATE},        // matrices
    {512, 128, 4, 512, 32, 64, 8, 2, 128, 1, NO_UPDATE},      // attention over a latent wider than its heads
    {4096, 320, 5, 256, 32, 160, 16, 4, 224, 0, NO_UPDATE},   // the same, wider
    {2048, 256, 6, 256, 64, 96, 16, 3, 192, 1, NO_UPDATE},    //
    {2048, 256, 6, 256, 64, 96, 128, 4, 192, 0, NO_UPDATE},   // weights: an expert has few rows
    {2048, 256, 6, 256, 64, 96, 64, 12, 48, 0, UPDATE_SMALL}, // rows gathered and scattered
    {4096, 512, 4, 256, 64, 128, 32, 4, 256, 0, NO_UPDATE},   //
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], TRIES = 9, TRIES_MOST = 64 };
enum { PASSES = 16 }; // of a step, where they go side by side
enum { N_UPDATED = 2 };
static const double LEAST_USED = 0.9; // of the processors: threads wait for each other a little, too
static const double ENOUGH_S = 2; // small models are timed as long as large ones: a disturbance is no larger part of it

/* As many as a run would take at once. */
static int docs_of(const shape *s) { return hd_recipe_micro(1024, s->seq, s->experts == 0); }

/* Widths as people choose them: whole panels of 32. */
static int wide(int n) { return (n + 31) / 32 * 32; }

static json_t *config_of(const shape *s)
{
    enum { ROPE = 16 };
    int heads = s->width / s->head;
    json_t *j = json_pack("{s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "architectures",
                          s->latent ? "DeepseekV3ForCausalLM" : "LlamaForCausalLM", "vocab_size", s->vocab, "hidden_size", s->width,
                          "intermediate_size", wide(s->width * 8 / 3), "num_hidden_layers", s->layers, "num_attention_heads", heads,
                          "num_key_value_heads", heads, "tie_word_embeddings", 1);
    json_t *m = !s->latent ? json_pack("{s:i}", "head_dim", s->head)
                           : json_pack("{s:n, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "q_lora_rank",
                                       "kv_lora_rank", s->latent, "qk_nope_head_dim", s->head - ROPE, "qk_rope_head_dim", ROPE,
                                       "v_head_dim", s->head, "n_routed_experts", s->experts, "num_experts_per_tok", s->chosen,
                                       "moe_intermediate_size", s->expert_width, "n_shared_experts", 1, "first_k_dense_replace", 1,
                                       "n_group", 1, "topk_group", 1, "num_nextn_predict_layers", s->mtp);
    if (j && m) json_object_update(j, m);
    json_decref(m);
    return j;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The lower quartile: a run has no best pass, it has them all, but what else the machine did between
 * shall not count. */
static double typical(double *took, int n)
{
    qsort(took, (size_t)n, sizeof *took, by_size);
    return took[n / 4];
}

static double processor_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of a token, after a pass that warms up; *elapsed and *used: of all passes by the clock and
 * on all processors. */
static hd_status time_passes(double *seconds, double *elapsed, double *used, hd_model *m, const shape *s, hd_err *err)
{
    hd_status st;
    int n_docs = docs_of(s), rows = n_docs * s->seq;
    int32_t *tok = NULL, *target = NULL;
    int *len = NULL;
    hd_rng r;
    hd_pass_result result;
    double took[TRIES_MOST + 1];
    float scale = 1.0f / (float)rows;
    hd_pass_opts o = {.loss_scale = scale, .mtp_weight = s->mtp ? 0.1f : 0, .mtp_scale = scale, .temperature = 1, .backward = true};
    HD_TRY(hd_alloc_n(&tok, (size_t)rows, sizeof *tok, err));
    HD_TRY(hd_alloc_n(&target, (size_t)rows, sizeof *target, err));
    HD_TRY(hd_alloc_n(&len, (size_t)n_docs, sizeof *len, err));
    hd_rng_seed(&r, 1, 2);
    for (int i = 0; i < rows; i++) tok[i] = (int32_t)(hd_rng_u32(&r) % (uint32_t)s->vocab);
    for (int i = 0; i < rows; i++) target[i] = i % s->seq == s->seq - 1 ? -1 : tok[i + 1];
    for (int i = 0; i < n_docs; i++) len[i] = s->seq;
    hd_micro b[PASSES];
    const int n_passes = hd_train_most_passes(m) > 1 ? PASSES : 1;
    for (int i = 0; i < n_passes; i++) b[i] = (hd_micro){.n_rows = rows, .n_docs = n_docs, .tok = tok, .target = target, .len = len};
    double begun = hd_now_s(), used_before = processor_s();
    int n = 0;
    for (; n <= TRIES || (n <= TRIES_MOST && hd_now_s() - begun < ENOUGH_S); n++) {
        double t0 = hd_now_s();
        memset(&result, 0, sizeof result);
        HD_TRY(hd_train_passes(m, b, n_passes, &o, &result, err));
        hd_train_sum(m);
        took[n] = (hd_now_s() - t0) / n_passes / rows;
    }
    *elapsed += hd_now_s() - begun;
    *used += processor_s() - used_before;
    *seconds = typical(took + 1, n - 1);
fail:
    free(tok);
    free(target);
    free(len);
    return st;
}

/* Seconds of an update; with it goes that gradients are cleared and their norm taken, and
 * panels packed anew. */
static hd_status time_updates(double *seconds, hd_model *m, hd_optim_kind matrices, hd_err *err)
{
    hd_status st;
    hd_params *p = hd_model_params(m);
    hd_optim *o = NULL;
    hd_optim_config c = hd_optim_defaults;
    double took[TRIES];
    c.matrices = matrices;
    HD_TRY(hd_optim_open(&o, p, &c, NULL, 0, err));
    for (int i = 0; i < TRIES; i++) {
        double t0 = hd_now_s();
        hd_flat_sumsq(hd_model_dev(m), p->g, p->n_flat);
        hd_optim_step(o, hd_model_dev(m), p->w, p->g, 1e-6f, 1, i + 1);
        hd_params_refresh(m);
        memset(p->g, 0, (size_t)p->n_flat * sizeof(float));
        took[i] = hd_now_s() - t0;
    }
    *seconds = typical(took, TRIES);
fail:
    hd_optim_close(o);
    return st;
}

/* What was measured: of a token of each shape, and of an update by Muon where updates are timed.  Its work:
 * FLOPs of its products, and weights. */
typedef struct {
    double work[N_SHAPES][HD_WORK_KINDS], seconds[N_SHAPES];
    double update_work[N_UPDATED][HD_WORK_KINDS], update_seconds[N_UPDATED];
    double elapsed, used; // of all passes: seconds by the clock, and on all processors
} measured;

static hd_status measure_shape(hd_machine *m, measured *o, int i, const char *dir, int n_threads, hd_err *err)
{
    hd_status st;
    const shape *s = &shapes[i];
    hd_cost cost;
    const hd_machine any = {.devices = 1, .peak_flops = 1, .utilization = 1}; // the work counts, not the hours
    hd_source *src = NULL;
    hd_model *model = NULL;
    json_t *config = config_of(s);
    if (!config) HD_TRY(hd_fail(err, HD_NOMEM, "cost: no memory"));
    HD_TRY(hd_folder_remove(dir, err));
    HD_TRY(hd_model_init(dir, config, 1, NULL, err));
    HD_TRY(hd_source_open(&src, dir, true, err));
    HD_TRY(hd_folder_remove(dir, err)); // its pages stay mapped, and a killed process leaves nothing
    HD_TRY(hd_model_open_train(&model, src, HD_TRAIN_BF16, n_threads, docs_of(s) * s->seq, err));
    HD_TRY(time_passes(&o->seconds[i], &o->elapsed, &o->used, model, s, err));
    hd_cost_ask ask = {.tokens = 1, .seq = s->seq, .micro_tokens = (int64_t)docs_of(s) * s->seq};
    HD_TRY(hd_cost_plan(&cost, hd_source_config(src), &ask, &any, err));
    memcpy(o->work[i], cost.work, sizeof cost.work);
    if (s->update == NO_UPDATE) goto fail;
    int u = s->update == UPDATE_SMALL;
    double adamw;
    HD_TRY(time_updates(&o->update_seconds[u], model, HD_OPT_MUON, err));
    o->update_work[u][HD_WORK_MATRICES] = cost.muon_work;
    o->update_work[u][HD_WORK_WEIGHTS] = (double)(cost.n_weights + cost.n_mtp);
    if (u) goto fail;
    HD_TRY(time_updates(&adamw, model, HD_OPT_ADAMW, err));
    m->adamw_s = (double)cost.n_weights / adamw;
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
    double update_rate[HD_WORK_KINDS];
    measured o = {0};
    m->devices = 1;
    strcpy(m->precision, "bf16");
    snprintf(dir, sizeof dir, "%.30s/hadal-measure-%ld", tmp && *tmp ? tmp : "/tmp", (long)getpid());
    HD_TRY(hd_dev_open(&dev, n_threads, false, 4096, err));
    open = true;
    HD_TRY(hd_product_rate(&m->peak_flops, &dev, err));
    m->bf16_flops = m->peak_flops;
    m->mem_bytes = (double)hd_mem_available();
    if (uname(&u) == 0) snprintf(m->name, sizeof m->name, "%d-thread %.20s %.20s", hd_pool_threads(dev.pool), u.machine, dev.k->level);
    hd_progress_begin(&bar, "measuring", N_SHAPES, "models");
    for (int i = 0; i < N_SHAPES && st == HD_OK; i++) {
        st = measure_shape(m, &o, i, dir, hd_pool_threads(dev.pool), err);
        hd_progress_add(&bar, 1);
    }
    hd_progress_end(&bar);
    HD_TRY(st);
    double had = o.used / (o.elapsed * hd_pool_threads(dev.pool));
    if (had < LEAST_USED) hd_warn("cost: these passes had %.0f %% of the processors, others the rest: measure again when the machine is idle", 100 * had);
    hd_cost_fit(m->rate, (const double(*)[HD_WORK_KINDS])o.work, o.seconds, N_SHAPES);
    hd_cost_fit(update_rate, (const double(*)[HD_WORK_KINDS])o.update_work, o.update_seconds, N_UPDATED);
    m->muon_flops = update_rate[HD_WORK_MATRICES];
    m->muon_s = update_rate[HD_WORK_WEIGHTS];
fail:
    hd_folder_remove(dir, NULL);
    if (open) hd_dev_close(&dev);
    return st;
}
