/* The loop of a run.
 *
 *   a step   count the targets of all its micro-batches (losses are divided by the whole step's, over
 *            micro-batches and ranks); forward and backward of this rank's share; sum over ranks in their
 *            order; norm, clip, perhaps skip; update what this rank owns, gather; balance the routers; pack
 *            the panels anew
 *   between  validation, samples of text, checkpoints
 *
 * With experts on ranks (train.expert_parallel) every pass is one that all ranks make together: as many
 * micro-batches on each, the last ones empty where they do not come out even; validation, which all make
 * anyway; and samples, which rank 0 alone writes down.
 *
 * Everything that a later step depends on is in a checkpoint: weights, moments, the step (which gives the
 * learning rate and, with the seed, the data), the memory of past losses.  So a resumed run repeats the bits
 * of an unbroken one. */
#include "train/trainer.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "model/lora.h"
#include "ops/back.h"
#include "ops/rate.h"
#include "train/checkpoint.h"
#include "train/prepare.h"
#include "train/rundir.h"
#include "train/sample_text.h"
#include "train/teach.h"
#include "train/zero.h"

/* More state than weights and moments: saved with a checkpoint, byte for byte. */
typedef struct {
    hd_spikes spikes;
    double first_loss, best_loss; // of the mean over steps: what divergence is judged by
    double mean_loss;
    int64_t n_skipped;
} memory;

/* Arrays of a micro-batch: those of hd_data and hd_teach are good until the next. */
typedef struct {
    int32_t *tok, *target, *teacher_id;
    float *teacher_logp;
    int *len;
} held;

typedef struct {
    const hd_recipe *r;
    const hd_run_opts *o;
    hd_comm *comm;
    hd_prepared prep;
    hd_source *src;
    hd_model *m;
    hd_params *params;
    hd_optim *optim;
    hd_data *data, *val;
    hd_teach *teach;
    held *held; // [n_held] micro-batches of one call of hd_train_passes
    int n_held;
    hd_zero zero;
    hd_rundir *dir;
    hd_run_state state;
    memory mem;
    int64_t *load; // [layers, experts] of this step
    int n_layers, n_experts;
    bool apart; // experts on ranks
    double t0, seconds0; // when this process began, what earlier ones had spent
    double step_seconds;
    double peak; // products of this machine, operations a second
    double work; // operations of a token's products: two for each weight at work, there, back, and for its gradient
} trainer;

static bool lead(const trainer *t) { return hd_comm_rank(t->comm) == 0; }

/* ---- Open ---------------------------------------------------------------------------------------------- */

static hd_status open_model(trainer *t, hd_err *err)
{
    hd_status st;
    const hd_recipe *r = t->r;
    char path[1024];
    HD_TRY(hd_checkpoint_find(path, r->out, err)); // the folder is shared, and nobody writes before all have looked
    HD_TRY(hd_comm_barrier(t->comm, err));
    bool resumed = path[0] != 0;
    bool lora = r->lora_rank > 0; // the base comes from where it began, the adapters from the checkpoint
    HD_TRY(hd_source_open(&t->src, resumed && !lora ? path : t->prep.init, true, err));
    if (r->expert_parallel && hd_source_config(t->src) && hd_source_config(t->src)->n_experts < 1)
        return hd_fail(err, HD_USAGE, "train: train.expert_parallel: %.200s has no experts: leave it out", hd_source_path(t->src));
    t->apart = r->expert_parallel && hd_comm_size(t->comm) > 1;
    if (lora)
        HD_TRY(hd_model_open_lora(&t->m, t->src, r->precision, r->lora_rank, r->lora_alpha, r->seed, r->n_threads, r->micro * r->seq, err));
    else HD_TRY(hd_model_open_ranks(&t->m, t->src, r->precision, t->apart ? t->comm : NULL, r->n_threads, r->micro * r->seq, err));
    t->params = hd_model_params(t->m);
    HD_TRY(hd_zero_open(&t->zero, t->params, hd_comm_size(t->comm), err));
    HD_TRY(hd_optim_open(&t->optim, t->params, &r->optim, t->zero.owner, hd_comm_rank(t->comm), err));
    t->state = (hd_run_state){.extra = &t->mem, .n_extra = sizeof t->mem};
    if (resumed) HD_TRY(hd_checkpoint_read(path, t->params, t->optim, &t->state, err));
    if (resumed && lora) hd_params_refresh(t->m);
    const hd_config *c = hd_model_config(t->m);
    t->n_layers = c->n_layers + c->n_mtp;
    t->n_experts = c->n_experts;
    HD_TRY(hd_alloc_n(&t->load, (size_t)t->n_layers * (size_t)(t->n_experts ? t->n_experts : 1), sizeof *t->load, err));
fail:
    return st;
}

static hd_status open_data(trainer *t, hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_model_config(t->m);
    HD_TRY(hd_data_open(&t->data, t->prep.source, t->prep.n_sources, t->r->seq, t->r->seed, c->n_vocab, err));
    if (t->prep.val.path) HD_TRY(hd_data_open(&t->val, &t->prep.val, 1, t->r->seq, t->r->seed, c->n_vocab, err));
fail:
    return st;
}

static hd_status open_held(trainer *t, hd_err *err)
{
    hd_status st = HD_OK;
    const size_t rows = (size_t)t->r->micro * (size_t)t->r->seq, top = t->teach ? (size_t)t->r->distil_top : 0;
    const int64_t n = (t->r->batch / t->r->micro + hd_comm_size(t->comm) - 1) / hd_comm_size(t->comm);
    const int most = hd_train_most_passes(t->m);
    t->n_held = n < most ? (int)n : most;
    HD_TRY(hd_alloc_n(&t->held, (size_t)t->n_held, sizeof *t->held, err));
    for (held *h = t->held; h < t->held + t->n_held; h++) {
        HD_TRY(hd_alloc_n(&h->tok, rows, sizeof *h->tok, err));
        HD_TRY(hd_alloc_n(&h->target, rows, sizeof *h->target, err));
        HD_TRY(hd_alloc_n(&h->len, rows, sizeof *h->len, err));
        HD_TRY(hd_alloc_n(&h->teacher_id, rows, top * sizeof *h->teacher_id, err));
        HD_TRY(hd_alloc_n(&h->teacher_logp, rows, top * sizeof *h->teacher_logp, err));
    }
fail:
    return st;
}

static void close_held(trainer *t)
{
    for (held *h = t->held; h && h < t->held + t->n_held; h++) {
        free(h->tok);
        free(h->target);
        free(h->len);
        free(h->teacher_id);
        free(h->teacher_logp);
    }
    free(t->held);
}

static void say_plan(trainer *t)
{
    hd_train_plan p;
    hd_err err = {0};
    const hd_config *c = hd_model_config(t->m);
    const hd_recipe *r = t->r;
    if (hd_train_plan_for(&p, c, r->precision, r->micro * r->seq, hd_pool_threads(hd_model_dev(t->m)->pool), r->recompute,
                          t->apart ? hd_comm_size(t->comm) : 1, &err) != HD_OK)
        return;
    if (hd_train_most_passes(t->m) > 1) hd_train_plan_lanes(&p, c, r->micro * r->seq, hd_pool_threads(hd_model_dev(t->m)->pool));
    t->work = (r->lora_rank > 0 ? 4 : 6) * (double)p.n_active; // a base beside adapters has no gradient
    if (r->lora_rank > 0) p.masters = p.gradients = (uint64_t)t->params->n_flat * sizeof(float);
    uint64_t optim = hd_optim_bytes(t->params, &r->optim, t->zero.owner, hd_comm_rank(t->comm));
    uint64_t all = p.masters + p.gradients + p.panels + p.tape + p.work + p.cache + optim;
    hd_rundir_say(t->dir, "%s: %.2f M weights, %.2f M at work on a token; %lld steps of %d sequences of %d, %lld tokens in the data",
                  c->arch, (double)p.n_weights / 1e6, (double)p.n_active / 1e6, (long long)r->steps, r->batch, r->seq,
                  (long long)hd_data_tokens(t->data));
    hd_rundir_say(t->dir, "memory%s: %.0f MB = masters %.0f, gradients %.0f, moments %.0f, panels %.0f, tape %.0f, work %.0f, cache %.0f",
                  hd_comm_size(t->comm) > 1 ? " of rank 0" : "", (double)all / 1e6, (double)p.masters / 1e6, (double)p.gradients / 1e6,
                  (double)optim / 1e6, (double)p.panels / 1e6, (double)p.tape / 1e6, (double)p.work / 1e6, (double)p.cache / 1e6);
}

/* What rank 0 sent in a step, on average; for checkpoints and validation, too. */
static void say_sent(trainer *t, int64_t step0)
{
    double steps = (double)(t->state.step - step0);
    char experts[64] = "";
    if (t->apart) snprintf(experts, sizeof experts, " (%.3f MB to experts)", (double)hd_model_rank_bytes(t->m) / 1e6 / steps);
    hd_rundir_say(t->dir, "ranks: %d; sent by one: %.3f MB a step%s, %.0f %% of the time was spent on it and on waiting",
                  hd_comm_size(t->comm), (double)hd_comm_bytes(t->comm) / 1e6 / steps, experts,
                  100 * hd_comm_seconds(t->comm) / (hd_now_s() - t->t0));
}

/* ---- A step -------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t target, mtp, docs;
} counts;

/* Micro-batch i of this step. */
static uint64_t index_of(const trainer *t, int64_t i) { return t->state.next_index + (uint64_t)(i * t->r->micro); }

static hd_status micro_at(trainer *t, int64_t i, hd_micro *b, hd_err *err)
{
    return hd_data_get(t->data, index_of(t, i), t->r->micro, b, err);
}

/* This rank's micro-batches are rank, rank + size, ... */
static hd_status count_targets(trainer *t, int64_t n_micro, counts *n, hd_err *err)
{
    hd_status st;
    int64_t all[3] = {0};
    hd_micro b;
    for (int64_t i = hd_comm_rank(t->comm); i < n_micro; i += hd_comm_size(t->comm)) {
        HD_TRY(micro_at(t, i, &b, err));
        for (int j = 0; j < b.n_rows; j++) all[0] += b.target[j] >= 0;
        all[1] += hd_micro_mtp_targets(&b);
        all[2] += b.n_docs;
    }
    HD_TRY(hd_comm_sum_i64(t->comm, all, 3, err));
    *n = (counts){all[0], all[1], all[2]};
    if (n->target == 0) return hd_fail(err, HD_FORMAT, "train: data: a step without a single target: nothing to learn from");
fail:
    return st;
}

/* Micro-batch i with its teacher's answers, in h's arrays. */
static hd_status hold(trainer *t, int64_t i, held *h, hd_micro *b, hd_err *err)
{
    hd_status st;
    HD_TRY(micro_at(t, i, b, err));
    HD_TRY(hd_teach_micro(t->teach, index_of(t, i), b, err));
    const size_t rows = (size_t)b->n_rows;
    b->tok = memcpy(h->tok, b->tok, rows * sizeof *h->tok);
    b->target = memcpy(h->target, b->target, rows * sizeof *h->target);
    b->len = memcpy(h->len, b->len, (size_t)b->n_docs * sizeof *h->len);
    if (!b->teacher_id) return HD_OK;
    b->teacher_id = memcpy(h->teacher_id, b->teacher_id, rows * (size_t)b->n_top * sizeof *h->teacher_id);
    b->teacher_logp = memcpy(h->teacher_logp, b->teacher_logp, rows * (size_t)b->n_top * sizeof *h->teacher_logp);
fail:
    return st;
}

static hd_status gradients(trainer *t, int64_t n_micro, const counts *n, hd_pass_result *sum, hd_err *err)
{
    hd_status st;
    const hd_recipe *r = t->r;
    hd_pass_opts o = {.loss_scale = 1.0f / (float)n->target,
                      .mtp_weight = r->mtp_weight,
                      .mtp_scale = n->mtp > 0 ? 1.0f / (float)n->mtp : 0,
                      .balance_alpha = r->balance_alpha,
                      .balance_scale = 1.0f / (float)n->docs,
                      .zloss = r->zloss,
                      .distil_weight = r->kind == HD_RUN_DISTIL ? r->distil_weight : 0,
                      .temperature = r->temperature,
                      .recompute = r->recompute,
                      .backward = true};
    const int ranks = hd_comm_size(t->comm);
    int64_t i = hd_comm_rank(t->comm);
    memset(t->params->g, 0, (size_t)t->params->n_flat * sizeof(float));
    memset(t->load, 0, (size_t)t->n_layers * (size_t)t->n_experts * sizeof *t->load);
    sum->load = t->n_experts > 0 ? t->load : NULL;
    while (i < n_micro) {
        hd_micro b[HD_MOST_PASSES];
        int n_passes = 0;
        for (; n_passes < t->n_held && i < n_micro; n_passes++, i += ranks) HD_TRY(hold(t, i, &t->held[n_passes], &b[n_passes], err));
        HD_TRY(hd_train_passes(t->m, b, n_passes, &o, sum, err));
    }
    if (t->apart && i - hd_comm_rank(t->comm) < n_micro) HD_TRY(hd_train_pass(t->m, &(hd_micro){0}, &o, sum, err)); // the others' last
    hd_train_sum(t->m);
    double losses[4] = {sum->loss, sum->mtp_loss, sum->balance_loss, sum->distil_loss};
    HD_TRY(hd_comm_sum_f64(t->comm, losses, 4, err));
    sum->loss = losses[0], sum->mtp_loss = losses[1], sum->balance_loss = losses[2], sum->distil_loss = losses[3];
    HD_TRY(hd_zero_reduce(&t->zero, t->comm, t->params->g, err));
    if (t->n_experts > 0) HD_TRY(hd_comm_sum_i64(t->comm, t->load, (int64_t)t->n_layers * t->n_experts, err));
fail:
    return st;
}

/* The norm over all gradients, summed by parameter in their order: the same on one rank and on many. */
static hd_status grad_norm(trainer *t, double *norm, hd_err *err)
{
    hd_status st;
    const hd_params *p = t->params;
    double *part = NULL, sum = 0;
    HD_TRY(hd_alloc_n(&part, (size_t)p->n, sizeof *part, err));
    for (int i = 0; i < p->n; i++)
        if (t->zero.owner[i] == hd_comm_rank(t->comm) && !p->p[i].frozen)
            part[i] = hd_flat_sumsq(hd_model_dev(t->m), p->g + p->p[i].at, p->p[i].n * p->p[i].k);
    HD_TRY(hd_comm_sum_f64(t->comm, part, p->n, err));
    for (int i = 0; i < p->n; i++) sum += part[i];
    *norm = sqrt(sum);
    if (!isfinite(*norm)) st = hd_fail(err, HD_FORMAT, "train: step %lld: the gradient is not finite", (long long)t->state.step + 1);
fail:
    free(part);
    return st;
}

/* Aux-loss-free balance (arXiv:2408.15664; V3, 2.1.2): overloaded experts' biases fall,
 * underloaded ones' rise. */
static void balance_routers(trainer *t)
{
    float speed = t->r->lora_rank > 0 ? 0 : t->r->bias_speed; // a base is left as it is
    for (int l = 0; speed > 0 && l < t->n_layers; l++) {
        float *bias = t->params->router_bias[l];
        const int64_t *load = t->load + (int64_t)l * t->n_experts;
        int64_t sum = 0;
        if (!bias) continue;
        for (int e = 0; e < t->n_experts; e++) sum += load[e];
        for (int e = 0; e < t->n_experts; e++) {
            int64_t over = load[e] * t->n_experts - sum;
            bias[e] += over > 0 ? -speed : over < 0 ? speed : 0;
        }
    }
}

static void load_extremes(const trainer *t, hd_step_log *s)
{
    s->load_max = s->load_min = 0;
    for (int l = 0; l < t->n_layers; l++) {
        const int64_t *load = t->load + (int64_t)l * t->n_experts;
        int64_t sum = 0;
        for (int e = 0; e < t->n_experts; e++) sum += load[e];
        for (int e = 0; sum > 0 && e < t->n_experts; e++) {
            double x = (double)load[e] * t->n_experts / (double)sum;
            if (x > s->load_max) s->load_max = x;
            if (s->load_min == 0 || x < s->load_min) s->load_min = x;
        }
    }
}

/* Losses beyond all that came before, or rising for good: further steps would only cost money. */
static hd_status judge(trainer *t, double loss, hd_err *err)
{
    memory *m = &t->mem;
    int64_t step = t->state.step;
    m->mean_loss = m->mean_loss == 0 ? loss : 0.95 * m->mean_loss + 0.05 * loss;
    if (m->first_loss == 0) m->first_loss = loss;
    if (m->best_loss == 0 || m->mean_loss < m->best_loss) m->best_loss = m->mean_loss;
    if (step > 50 && m->mean_loss > m->first_loss + 1 && m->mean_loss > m->best_loss * 1.5)
        return hd_fail(err, HD_FORMAT,
                       "train: step %lld: the run diverged (mean loss %.3f, at best %.3f): lower lr, or raise warmup; the last checkpoint is whole",
                       (long long)step, m->mean_loss, m->best_loss);
    return HD_OK;
}

/* Of what this machine's products reach, 0: unknown.  More than all of it says that the yardstick was taken while
 * others worked here: then it is taken again. */
static double share_of_peak(trainer *t, double tok_s)
{
    double flops_s = t->work * tok_s / hd_comm_size(t->comm), again;
    hd_err err = {0};
    if (t->peak == 0) return 0;
    if (flops_s > t->peak && hd_product_rate(&again, hd_model_dev(t->m), &err) == HD_OK && again > t->peak) t->peak = again;
    return flops_s / t->peak;
}

static hd_status one_step(trainer *t, hd_step_log *s, hd_err *err)
{
    hd_status st;
    const hd_recipe *r = t->r;
    int64_t step = t->state.step + 1, n_micro = hd_schedule_micro(&r->schedule, step, (r->batch + r->micro - 1) / r->micro);
    hd_pass_result sum = {0};
    counts n;
    double norm, start = hd_now_s();
    HD_TRY(count_targets(t, n_micro, &n, err));
    HD_TRY(gradients(t, n_micro, &n, &sum, err));
    HD_TRY(grad_norm(t, &norm, err));
    double loss = r->kind == HD_RUN_DISTIL && sum.distil_loss > 0 ? sum.distil_loss / (double)n.target : sum.loss / (double)n.target;
    float scale = r->clip > 0 && norm > r->clip ? (float)(r->clip / norm) : 1, lr = hd_schedule_lr(&r->schedule, step);
    bool skip = r->spike_sigmas > 0 && hd_spikes_seen(&t->mem.spikes, loss, norm, r->spike_sigmas);
    if (skip) t->mem.n_skipped++;
    else {
        hd_optim_step(t->optim, hd_model_dev(t->m), t->params->w, t->params->g, lr, scale, step);
        HD_TRY(hd_zero_gather(&t->zero, t->comm, t->params->w, err));
        balance_routers(t);
        hd_params_refresh(t->m);
    }
    t->state.step = step;
    t->state.next_index += (uint64_t)(n_micro * r->micro);
    t->state.tokens += n_micro * r->micro * r->seq;
    t->step_seconds = hd_now_s() - start;
    t->state.seconds = t->seconds0 + hd_now_s() - t->t0;
    double tok_s = (double)(n_micro * r->micro * r->seq) / t->step_seconds;
    *s = (hd_step_log){.step = step,
                       .steps = r->steps,
                       .tokens = t->state.tokens,
                       .loss = loss,
                       .mtp_loss = n.mtp > 0 ? sum.mtp_loss / (double)n.mtp : 0,
                       .balance_loss = t->n_experts > 0 ? sum.balance_loss / (double)n.docs : 0,
                       .lr = lr,
                       .grad_norm = norm,
                       .tok_s = tok_s,
                       .share_of_peak = share_of_peak(t, tok_s),
                       .seconds = t->state.seconds,
                       .val_bpb = -1,
                       .skipped = skip};
    if (t->n_experts > 0) load_extremes(t, s);
    HD_TRY(judge(t, loss, err));
fail:
    return st;
}

/* ---- Between steps ------------------------------------------------------------------------------------- */

/* Bits per byte of the validation text: nats of its targets, over ln 2 and the bytes that they spell. */
static hd_status validate(trainer *t, double *bpb, hd_err *err)
{
    hd_status st = HD_OK;
    hd_pass_opts o = {.loss_scale = 1};
    hd_pass_result sum = {0};
    uint64_t at = 0;
    bool more = true;
    while (sum.n_target < t->r->eval_tokens) {
        hd_micro b;
        HD_TRY(hd_data_walk(t->val, 0, &at, t->r->micro * t->r->seq, &b, &more, err));
        if (!more) break;
        HD_TRY(hd_train_pass(t->m, &b, &o, &sum, err));
    }
    if (sum.n_target == 0) return hd_fail(err, HD_FORMAT, "train: %s: the validation data holds no target", t->prep.val.path);
    *bpb = sum.loss / log(2) / ((double)sum.n_target * hd_data_bytes_per_token(t->val, 0));
fail:
    return st;
}

static hd_status save(trainer *t, hd_err *err)
{
    return hd_checkpoint_write_ranks(t->comm, t->r->out, t->m, t->params, t->optim, t->prep.tokenizer, &t->state, t->r->keep, err);
}

static bool due(int64_t step, int64_t every, int64_t last) { return every > 0 && (step % every == 0 || step == last); }

/* What a run made is kept at its end, however seldom it saves. */
static bool save_due(const trainer *t, int64_t step) { return step == t->r->steps || due(step, t->r->save_every, t->r->steps); }

/* With experts on ranks all say the same text. */
static hd_status sample(trainer *t, int64_t step, hd_err *err)
{
    hd_buf text;
    hd_buf_init(&text, 1 << 20);
    hd_status st = hd_sample_text(t->m, t->src, t->r->sample_prompt, 128, 0.8f, (uint64_t)step, &text, err);
    if (st == HD_OK && lead(t)) st = hd_rundir_sample(t->dir, step, text.data ? text.data : "", err);
    hd_buf_free(&text);
    return st;
}

static hd_status between(trainer *t, hd_step_log *s, hd_err *err)
{
    hd_status st;
    const hd_recipe *r = t->r;
    if (t->val && due(s->step, r->eval_every, r->steps)) HD_TRY(validate(t, &s->val_bpb, err));
    if (lead(t)) {
        HD_TRY(hd_rundir_step(t->dir, s, err));
        if (t->n_experts > 0) HD_TRY(hd_rundir_load(t->dir, s->step, t->load, t->n_layers, t->n_experts, err));
    }
    if (due(s->step, r->sample_every, r->steps) && (lead(t) || t->apart)) HD_TRY(sample(t, s->step, err));
    if (save_due(t, s->step)) HD_TRY(save(t, err));
    return HD_OK;
fail:
    return st;
}

/* Has any rank been asked to stop? */
static hd_status asked_to_stop(trainer *t, bool *stop, hd_err *err)
{
    int64_t n = t->o->stop && *t->o->stop;
    hd_status st = hd_comm_sum_i64(t->comm, &n, 1, err);
    *stop = n > 0;
    return st;
}

static hd_status loop(trainer *t, hd_err *err)
{
    hd_status st = HD_OK;
    hd_step_log s = {0};
    bool stop = false;
    while (t->state.step < t->r->steps) {
        HD_TRY(one_step(t, &s, err));
        HD_TRY(between(t, &s, err));
        HD_TRY(asked_to_stop(t, &stop, err));
        if (!stop || t->state.step >= t->r->steps) continue;
        if (!save_due(t, s.step)) HD_TRY(save(t, err));
        return hd_fail(err, HD_CANCELLED, "train: stopped at step %lld; the same command goes on from there", (long long)s.step);
    }
fail:
    return st;
}

hd_status hd_train_run(const hd_recipe *r, hd_comm *comm, const hd_run_opts *o, hd_err *err)
{
    hd_status st;
    trainer t = {.r = r, .o = o, .comm = comm, .t0 = hd_now_s()};
    HD_TRY(hd_prepare(&t.prep, r, comm, o->stop, err));
    HD_TRY(open_model(&t, err));
    HD_TRY(open_data(&t, err));
    HD_TRY(hd_teach_open(&t.teach, r, hd_model_config(t.m), t.data, comm, o->stop, err));
    HD_TRY(open_held(&t, err));
    t.seconds0 = t.state.seconds;
    if (lead(&t)) {
        HD_TRY(hd_rundir_open(&t.dir, r, t.state.step, o->json, err));
        say_plan(&t);
        if (t.teach && r->teacher_cache[0]) hd_rundir_say(t.dir, "teacher: its probabilities come from %s", r->teacher_cache);
        HD_TRY(hd_product_rate(&t.peak, hd_model_dev(t.m), err));
        if (t.state.step > 0) hd_rundir_say(t.dir, "goes on from step %lld", (long long)t.state.step);
    }
    int64_t step0 = t.state.step;
    HD_TRY(loop(&t, err));
    if (lead(&t) && hd_comm_size(comm) > 1 && t.state.step > step0) say_sent(&t, step0);
fail:
    hd_rundir_close(t.dir);
    hd_teach_close(t.teach);
    close_held(&t);
    hd_data_close(t.data);
    hd_data_close(t.val);
    hd_optim_close(t.optim);
    hd_zero_close(&t.zero);
    hd_model_close(t.m);
    hd_source_close(t.src);
    free(t.load);
    return st;
}
