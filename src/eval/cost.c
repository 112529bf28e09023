/* The planner's arithmetic: the slot table counts weights, the configuration attention. */
#include "eval/cost.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "model/params.h"
#include "train/recipe.h"

static const double SECONDS = 3600;

/* ---- Weights and FLOPs ---- */

/* `times` products of a token with one matrix; what latent attention expands is a product each of a
 * head's two halves. */
static void count_product(double work[HD_WORK_KINDS], const hd_config *c, const hd_slot *s, double times)
{
    double rows = (double)hd_dim_size(c, s->rows), cols = (double)hd_dim_size(c, s->cols);
    double across = s->rows == HD_DIM_KV_B ? rows + 2 * cols * c->n_heads : rows + cols;
    work[HD_WORK_MATRICES] += 6 * rows * cols * times;
    work[HD_WORK_NUMBERS] += across * times;
}

/* Newton-Schulz on r <= c: X X^T and a power of it, of which symmetry saves half but for panels of 32, and
 * their product with X (train/muon.c). */
static double muon_flops(const hd_config *c, const hd_slot *s)
{
    double rows = (double)hd_dim_size(c, s->rows), cols = (double)hd_dim_size(c, s->cols), r = fmin(rows, cols), large = fmax(rows, cols);
    bool is = s->kind == HD_SLOT_MATRIX || s->kind == HD_SLOT_EXPERT || s->kind == HD_SLOT_KV_B;
    return is ? hd_optim_defaults.muon_steps * (r * (r + HD_PANEL_ROWS) * (large + r) + 2 * r * r * large) : 0;
}

static void count_weights(hd_cost *o, const hd_config *c, const hd_slot *s, int layer)
{
    int64_t n = hd_dim_size(c, s->rows) * hd_dim_size(c, s->cols);
    bool expert = s->kind == HD_SLOT_EXPERT, mtp = s->per_layer && layer >= c->n_layers;
    bool embed = s->kind == HD_SLOT_EMBED, head = s->kind == HD_SLOT_HEAD || (embed && c->tie_embeddings);
    int64_t all = n * (expert ? c->n_experts : 1), active = n * (expert ? c->n_experts_per_tok : 1);
    *(mtp ? &o->n_mtp : &o->n_weights) += all;
    *(mtp ? &o->n_mtp_active : &o->n_active) += active;
    if (embed || head) o->n_shared += n;
    if (s->cols == HD_DIM_NONE || (embed && !head)) return;
    double times = head ? 1 + c->n_mtp : expert ? c->n_experts_per_tok : 1; // the head makes the logits of MTP, too
    count_product(o->work, c, s, times);
    o->work[HD_WORK_WEIGHTS] += (double)all * (head ? times : 1); // of a micro-batch, until count() divides
    o->muon_work += muon_flops(c, s) * (expert ? c->n_experts : 1);
    if (mtp) o->flops_mtp += 6 * (double)active;
    else o->n_multiplied += active;
    if (head && c->n_mtp > 0) o->flops_mtp += 6 * (double)n * c->n_mtp; // its logits are made with the same matrix
}

/* Of one layer and token, forward and backward: scores and means over `seen` positions. */
static double attention_flops(const hd_config *c, double seen)
{
    double key = c->head_dim, value = c->kv_lora_rank > 0 ? c->v_head_dim : c->head_dim;
    return 3 * 2 * c->n_heads * (key + value) * seen;
}

/* Latent attention is computed in the latent: there a key has lora + rope numbers and a value has lora. */
static void count_attention(double work[HD_WORK_KINDS], const hd_config *c, double seen)
{
    double layers = c->n_layers + c->n_mtp, lora = (double)c->kv_lora_rank, both = 2 * lora + (double)c->qk_rope_head_dim;
    work[HD_WORK_ATTENTION] = layers * (lora > 0 ? 3 * 2 * c->n_heads * both * seen : attention_flops(c, seen));
    work[HD_WORK_PAIRS] = layers * c->n_heads * seen;
}

/* Of a token that sees so many, in micro-batches of so many. */
static hd_status count(hd_cost *o, const hd_config *c, double seen, double micro, hd_err *err)
{
    hd_status st;
    const hd_arch *a;
    HD_TRY(hd_arch_find(&a, c, err));
    for (int i = 0; i < a->n_slots; i++)
        for (int l = 0; l < hd_slot_layers(&a->slots[i], c); l++)
            if (hd_slot_exists(&a->slots[i], c, HD_SOURCE_HF, l)) count_weights(o, c, &a->slots[i], l);
    o->flops_matrices = 6 * (double)o->n_multiplied;
    o->flops_attention = attention_flops(c, seen) * c->n_layers;
    o->flops_mtp += attention_flops(c, seen) * c->n_mtp;
    count_attention(o->work, c, seen);
    o->work[HD_WORK_WEIGHTS] /= micro;
    o->flops_per_token = o->flops_matrices + o->flops_attention + o->flops_mtp;
fail:
    return st;
}

/* ---- A machine's speed ---- */

double hd_cost_seconds(double seconds[HD_WORK_KINDS], const double work[HD_WORK_KINDS], const double rate[HD_WORK_KINDS])
{
    double sum = 0;
    for (int k = 0; k < HD_WORK_KINDS; k++) sum += seconds[k] = rate[k] > 0 ? work[k] / rate[k] : 0;
    return sum;
}

static bool is_quoted(const hd_config *c, const hd_quote *q)
{
    return q->tokens > 0 && !strcmp(q->arch, c->arch) && q->n_layers == c->n_layers && q->d_model == c->d_model &&
           q->n_experts == c->n_experts;
}

/* Of a model that was published: what its hours say.  The same FLOPs stand on both sides, so what is not
 * counted does no harm. */
static double utilization_of(const hd_cost *o, const hd_config *c, const hd_machine *m)
{
    const hd_quote *q = &m->quote;
    if (is_quoted(c, q)) return o->flops_per_token * 1e12 / (q->hours_per_trillion * SECONDS * m->peak_flops);
    double seconds[HD_WORK_KINDS];
    if (m->rate[HD_WORK_MATRICES] <= 0) return m->utilization;
    return o->flops_per_token / (hd_cost_seconds(seconds, o->work, m->rate) * m->peak_flops);
}

/* Coordinate descent on the normal equations: with five unknowns it need not be clever, and a cost below 0 is
 * never passed on to others. */
void hd_cost_fit(double rate[HD_WORK_KINDS], const double (*work)[HD_WORK_KINDS], const double *seconds, int n)
{
    enum { K = HD_WORK_KINDS, ROUNDS_MOST = 100000 };
    double gram[K][K] = {{0}}, right[K] = {0}, cost[K] = {0}; // seconds a unit, in units of the mean work
    double unit[K] = {0}, moved = 1;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < K; k++) unit[k] += work[i][k] / seconds[i] / n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < K; k++) {
            double x = unit[k] > 0 ? work[i][k] / seconds[i] / unit[k] : 0;
            right[k] += x;
            for (int l = 0; l < K; l++) gram[k][l] += unit[l] > 0 ? x * work[i][l] / seconds[i] / unit[l] : 0;
        }
    for (int r = 0; r < ROUNDS_MOST && moved > 1e-14; r++) {
        moved = 0;
        for (int k = 0; k < K; k++) {
            double left = right[k], was = cost[k];
            for (int l = 0; l < K; l++) left -= l != k ? gram[k][l] * cost[l] : 0;
            cost[k] = gram[k][k] > 0 ? fmax(0, left / gram[k][k]) : 0;
            moved = fmax(moved, fabs(cost[k] - was));
        }
    }
    for (int k = 0; k < K; k++) rate[k] = cost[k] > 0 ? unit[k] / cost[k] : 0;
}

/* ---- The plan ---- */

static hd_status plan_memory(hd_cost *o, const hd_config *c, int64_t seq, hd_err *err)
{
    hd_train_plan p;
    hd_status st = hd_train_plan_for(&p, c, HD_TRAIN_BF16, (int)seq, 1, true, 1, err);
    if (st != HD_OK) return st;
    o->weights_bytes = (double)p.masters + (double)p.gradients + (double)p.panels;
    o->optimizer_bytes = 8 * (double)(o->n_weights + o->n_mtp);
    o->activations_bytes = (double)p.tape + (double)p.work + (double)p.cache;
    return HD_OK;
}

static double update_seconds(const hd_cost *o, const hd_cost_ask *a, const hd_machine *m)
{
    double speed = a->muon ? m->muon_s : m->adamw_s, t = speed > 0 ? (double)(o->n_weights + o->n_mtp) / speed : 0;
    return t + (a->muon && m->muon_flops > 0 ? o->muon_work / m->muon_flops : 0);
}

static double micro_tokens(const hd_config *c, const hd_cost_ask *a, double batch)
{
    if (a->micro_tokens > 0) return (double)a->micro_tokens;
    double docs = fmin(fmax(1, floor(batch / (double)a->seq)), 1 << 20);
    return (double)hd_recipe_micro((int)docs, (int)a->seq, c->n_experts == 0) * (double)a->seq;
}

hd_status hd_cost_plan(hd_cost *o, const hd_config *c, const hd_cost_ask *a, const hd_machine *m, hd_err *err)
{
    hd_status st;
    *o = (hd_cost){0};
    if (!(a->tokens > 0 && a->tokens < 1e18) || a->seq < 1 || a->seq > 1 << 24)
        return hd_fail(err, HD_USAGE, "cost: %g tokens in sequences of %lld make no sense", a->tokens, (long long)a->seq);
    double batch = a->batch_tokens > 0 ? a->batch_tokens : 4e6;
    HD_TRY(count(o, c, (double)(a->seq + 1) / 2, micro_tokens(c, a, batch), err));
    HD_TRY(plan_memory(o, c, a->seq, err));
    o->flops = o->flops_per_token * a->tokens;
    o->utilization = utilization_of(o, c, m);
    o->update_hours = a->tokens / batch * update_seconds(o, a, m) / SECONDS * m->devices;
    o->device_hours = o->flops / (m->peak_flops * o->utilization) / SECONDS + o->update_hours;
    o->hours = o->device_hours / m->devices;
    o->kwh = o->device_hours * m->watts / 1000;
    o->usd = o->device_hours * m->usd_per_hour + o->kwh * m->usd_per_kwh;
fail:
    return st;
}

/* Hours of context extension at the rate of pre-training; share: of a sequence that a token
 * is counted to see. */
static double extension_hours(const hd_config *c, const hd_quote *q, int64_t seq, double share)
{
    hd_cost shorter = {0}, longer;
    double hours = 0;
    if (count(&shorter, c, (double)(seq + 1) * share, 1, NULL) != HD_OK) return 0;
    for (int i = 0; i < q->n_phases; i++) {
        longer = (hd_cost){0};
        if (count(&longer, c, (q->phase_seq[i] + 1) * share, 1, NULL) != HD_OK) return 0;
        hours += longer.flops_per_token / shorter.flops_per_token * q->phase_tokens[i] / 1e12 * q->hours_per_trillion;
    }
    return hours;
}

bool hd_cost_quote(hd_cost_quoted *out, const hd_cost *plan, const hd_cost_ask *a, const hd_config *c, const hd_machine *m)
{
    const hd_quote *q = &m->quote;
    *out = (hd_cost_quoted){0};
    if (!is_quoted(c, q)) return false;
    out->pretrain_hours = q->hours_per_trillion * q->tokens / 1e12;
    out->implied_utilization = plan->utilization;
    out->context_estimate = extension_hours(c, q, a->seq, 0.5);
    out->context_estimate_full = extension_hours(c, q, a->seq, 1);
    out->hours = out->pretrain_hours + q->context_hours + q->post_hours;
    out->usd = out->hours * q->usd_per_hour;
    return true;
}
