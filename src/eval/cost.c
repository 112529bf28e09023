/* The planner's arithmetic: the slot table counts weights, the configuration attention. */
#include "eval/cost.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/params.h"

static const double SECONDS = 3600;

/* ---- Weights and FLOPs ---- */

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

static hd_status count(hd_cost *o, const hd_config *c, double seen, hd_err *err)
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
    o->flops_per_token = o->flops_matrices + o->flops_attention + o->flops_mtp;
fail:
    return st;
}

/* ---- A machine's speed ---- */

static double on_curve(const hd_cost_curve *v, double width, double otherwise)
{
    int i = 0;
    if (v->n == 0) return otherwise;
    while (i < v->n && v->width[i] < width) i++;
    if (i == 0) return v->share[0];
    if (i == v->n) return v->share[v->n - 1];
    double at = log(width / v->width[i - 1]) / log(v->width[i] / v->width[i - 1]);
    return v->share[i - 1] + at * (v->share[i] - v->share[i - 1]);
}

static bool is_quoted(const hd_config *c, const hd_quote *q)
{
    return q->tokens > 0 && !strcmp(q->arch, c->arch) && q->n_layers == c->n_layers && q->d_model == c->d_model &&
           q->n_experts == c->n_experts;
}

/* Of a model that was published: what its hours say.  The same FLOPs stand on both sides, so what is not counted does no harm. */
static double utilization_of(const hd_cost *o, const hd_config *c, const hd_machine *m)
{
    const hd_quote *q = &m->quote;
    if (is_quoted(c, q)) return o->flops_per_token * 1e12 / (q->hours_per_trillion * SECONDS * m->peak_flops);
    bool moe = hd_config_layer_is_moe(c, c->n_layers - 1); // the first layers may be dense, or all of them
    return on_curve(moe ? &m->moe : &m->dense, (double)c->d_model, m->utilization);
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

hd_status hd_cost_plan(hd_cost *o, const hd_config *c, const hd_cost_ask *a, const hd_machine *m, hd_err *err)
{
    hd_status st;
    *o = (hd_cost){0};
    if (!(a->tokens > 0 && a->tokens < 1e18) || a->seq < 1 || a->seq > 1 << 24)
        return hd_fail(err, HD_USAGE, "cost: %g tokens in sequences of %lld make no sense", a->tokens, (long long)a->seq);
    HD_TRY(count(o, c, (double)(a->seq + 1) / 2, err));
    HD_TRY(plan_memory(o, c, a->seq, err));
    o->flops = o->flops_per_token * a->tokens;
    o->utilization = utilization_of(o, c, m);
    double batch = a->batch_tokens > 0 ? a->batch_tokens : 4e6, speed = a->muon ? m->muon_s : m->adamw_s;
    if (speed > 0) o->update_hours = a->tokens / batch * (double)(o->n_weights + o->n_mtp) / speed / SECONDS * m->devices;
    o->device_hours = o->flops / (m->peak_flops * o->utilization) / SECONDS + o->update_hours;
    o->hours = o->device_hours / m->devices;
    o->kwh = o->device_hours * m->watts / 1000;
    o->usd = o->device_hours * m->usd_per_hour + o->kwh * m->usd_per_kwh;
fail:
    return st;
}

/* Hours of context extension at the rate of pre-training; share: of a sequence that a token is counted to see. */
static double extension_hours(const hd_config *c, const hd_quote *q, int64_t seq, double share)
{
    hd_cost shorter = {0}, longer;
    double hours = 0;
    if (count(&shorter, c, (double)(seq + 1) * share, NULL) != HD_OK) return 0;
    for (int i = 0; i < q->n_phases; i++) {
        longer = (hd_cost){0};
        if (count(&longer, c, (q->phase_seq[i] + 1) * share, NULL) != HD_OK) return 0;
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
