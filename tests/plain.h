/* The whole model and its loss once more, in double and without a trick: one row after another, no cache, no
 * panels, latent attention with its keys and values written out.  It reads weights by their names in
 * checkpoints and shares no line with the passes that it is there to judge; what it computes are the papers'
 * equations (the heads of block_*.c, router.c and train_pass.h name them).  Its differences are the
 * gradients' measure (test_train_grad.c).
 *
 * Which experts a token goes to is decided once, at the weights of the first run, and kept after it: a
 * derivative is taken with the choice as it is, and a step over a border would be none.  Plain rotations
 * only: no long-context rule. */
#ifndef HD_TESTS_PLAIN_H
#define HD_TESTS_PLAIN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/train_pass.h"

typedef struct {
    const hd_config *c;
    const hd_params *p;
    int max_rows;
    double *w;       // [p->n_flat] the weights
    int *route;      // [layers, max_rows, experts a token]
    bool routed;     // ... is set: keep to it
    double margin;   // how clear the closest choice between experts, or groups, was
    double *work;    // of one run
    size_t used, size;
} plain;

typedef struct {
    double total;                       // what is minimised
    double loss, mtp, distil, balance;  // its parts, as in hd_pass_result
} plain_loss;

/* Rows of documents on their way through the layers. */
typedef struct {
    int n, n_docs;
    const int *len;
    const int32_t *tok;
    double *x; // [n, d_model]
} plain_rows;

static inline double *plain_take(plain *m, int64_t n)
{
    double *x = m->work + m->used;
    m->used += (size_t)n;
    if (m->used > m->size) abort();
    return x;
}

/* A weight of a layer, or of the model (layer -1); NULL: there is none. */
static inline const double *plain_w(const plain *m, int layer, const char *name)
{
    char full[160];
    if (layer < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
    const hd_param *p = hd_params_find(m->p, full);
    return p ? m->w + p->at : NULL;
}

/* ---- Rows ---------------------------------------------------------------------------------------------- */

static inline double plain_dot(const double *a, const double *b, int64_t n)
{
    double s[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) s[j] += a[i + j] * b[i + j];
    for (; i < n; i++) s[0] += a[i] * b[i];
    return s[0] + s[1] + s[2] + s[3];
}

/* y = W x + b; W: [n, k]; b may be NULL. */
static inline void plain_mul(double *y, const double *W, const double *b, const double *x, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < n; i++) y[i] = plain_dot(W + i * k, x, k) + (b ? b[i] : 0);
}

static inline void plain_norm(double *y, const double *x, const double *g, int64_t n, double eps)
{
    double r = 1 / sqrt(plain_dot(x, x, n) / (double)n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * g[i];
}

/* Pair i turns by pos theta^(-2i/n): adjacent numbers, or number i and i + n/2. */
static inline void plain_rotate(double *x, int n, int pos, double theta, bool adjacent)
{
    for (int i = 0; i < n / 2; i++) {
        double a = pos * pow(theta, -2.0 * i / n), c = cos(a), s = sin(a);
        double *p = adjacent ? x + 2 * i : x + i, *q = adjacent ? p + 1 : p + n / 2, t = *p;
        *p = t * c - *q * s;
        *q = t * s + *q * c;
    }
}

static inline double plain_log_sum_exp(const double *z, int64_t n)
{
    double max = z[0], sum = 0;
    for (int64_t i = 1; i < n; i++) max = z[i] > max ? z[i] : max;
    for (int64_t i = 0; i < n; i++) sum += exp(z[i] - max);
    return max + log(sum);
}

/* y += weight down(silu(gate x) * up x); the names begin with `where`. */
static inline void plain_swiglu(plain *m, double *y, const double *x, int layer, const char *where, double weight, int64_t F)
{
    static const char *const part[] = {"gate_proj", "up_proj", "down_proj"};
    const double *W[3], *b[3];
    int64_t D = m->c->d_model;
    size_t mark = m->used;
    char name[128];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s.weight", where, part[i]);
        W[i] = plain_w(m, layer, name);
        snprintf(name, sizeof name, "%s%s.bias", where, part[i]);
        b[i] = plain_w(m, layer, name);
    }
    double *g = plain_take(m, F), *u = plain_take(m, F), *out = plain_take(m, D);
    plain_mul(g, W[0], b[0], x, F, D);
    plain_mul(u, W[1], b[1], x, F, D);
    for (int64_t i = 0; i < F; i++) g[i] *= u[i] / (1 + exp(-g[i]));
    plain_mul(out, W[2], b[2], g, D, F);
    for (int64_t i = 0; i < D; i++) y[i] += weight * out[i];
    m->used = mark;
}

/* ---- Attention ----------------------------------------------------------------------------------------- */

/* Of every document for itself, causal.  q: [n, H, dk]; k, v: [n, H / share, dk], [.., dv];
 * out: [n, H, dv]. */
static inline void plain_attend(plain *m, const plain_rows *r, double *out, const double *q, const double *k, const double *v, int H,
                                int share, int dk, int dv)
{
    int G = H / share, row0 = 0;
    size_t mark = m->used;
    double *p = plain_take(m, r->n);
    for (int d = 0; d < r->n_docs; row0 += r->len[d++])
        for (int t = 0; t < r->len[d]; t++)
            for (int h = 0; h < H; h++) {
                int at = (row0 + t) * H + h;
                for (int s = 0; s <= t; s++) p[s] = plain_dot(q + at * dk, k + ((row0 + s) * G + h / share) * dk, dk) / sqrt(dk);
                double lse = plain_log_sum_exp(p, t + 1), *o = out + at * dv;
                memset(o, 0, (size_t)dv * sizeof *o);
                for (int s = 0; s <= t; s++) {
                    double w = exp(p[s] - lse);
                    for (int i = 0; i < dv; i++) o[i] += w * v[((row0 + s) * G + h / share) * dv + i];
                }
            }
    m->used = mark;
}

/* A row's place in its document. */
static inline int plain_pos(const plain_rows *r, int row)
{
    int d = 0;
    while (row >= r->len[d]) row -= r->len[d++];
    return row;
}

static inline void plain_heads(const plain *m, double *x, int n, const double *norm, int pos)
{
    int dim = m->c->head_dim;
    for (int h = 0; h < n; h++, x += dim) {
        if (norm) plain_norm(x, x, norm, dim, (double)m->c->norm_eps);
        plain_rotate(x, dim, pos, m->c->rope.theta, false);
    }
}

/* heads: [n, H, v] from the normed rows h. */
static inline void plain_gqa(plain *m, const plain_rows *r, int il, const double *h, double *heads)
{
    const hd_config *c = m->c;
    int64_t D = c->d_model;
    int nq = c->n_heads * c->head_dim, nkv = c->n_kv_heads * c->head_dim;
    const double *Wq = plain_w(m, il, "self_attn.q_proj.weight"), *bq = plain_w(m, il, "self_attn.q_proj.bias"),
                 *Wk = plain_w(m, il, "self_attn.k_proj.weight"), *bk = plain_w(m, il, "self_attn.k_proj.bias"),
                 *Wv = plain_w(m, il, "self_attn.v_proj.weight"), *bv = plain_w(m, il, "self_attn.v_proj.bias"),
                 *q_norm = plain_w(m, il, "self_attn.q_norm.weight"), *k_norm = plain_w(m, il, "self_attn.k_norm.weight");
    double *q = plain_take(m, r->n * nq), *k = plain_take(m, r->n * nkv), *v = plain_take(m, r->n * nkv);
    for (int t = 0; t < r->n; t++) {
        plain_mul(q + t * nq, Wq, bq, h + t * D, nq, D);
        plain_mul(k + t * nkv, Wk, bk, h + t * D, nkv, D);
        plain_mul(v + t * nkv, Wv, bv, h + t * D, nkv, D);
        plain_heads(m, q + t * nq, c->n_heads, q_norm, plain_pos(r, t));
        plain_heads(m, k + t * nkv, c->n_kv_heads, k_norm, plain_pos(r, t));
    }
    plain_attend(m, r, heads, q, k, v, c->n_heads, c->n_heads / c->n_kv_heads, c->head_dim, c->head_dim);
}

static inline void plain_mla(plain *m, const plain_rows *r, int il, const double *h, double *heads)
{
    const hd_config *c = m->c;
    int64_t D = c->d_model;
    int H = c->n_heads, nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim, dv = c->v_head_dim, dk = nope + rope;
    int lora = c->kv_lora_rank, q_lora = c->q_lora_rank;
    const double *Wq = plain_w(m, il, q_lora ? "self_attn.q_b_proj.weight" : "self_attn.q_proj.weight"),
                 *Wqa = plain_w(m, il, "self_attn.q_a_proj.weight"), *bqa = plain_w(m, il, "self_attn.q_a_proj.bias"),
                 *q_norm = plain_w(m, il, "self_attn.q_a_layernorm.weight"),
                 *Wkva = plain_w(m, il, "self_attn.kv_a_proj_with_mqa.weight"), *bkva = plain_w(m, il, "self_attn.kv_a_proj_with_mqa.bias"),
                 *kv_norm = plain_w(m, il, "self_attn.kv_a_layernorm.weight"), *Wkvb = plain_w(m, il, "self_attn.kv_b_proj.weight");
    double *q = plain_take(m, r->n * H * dk), *k = plain_take(m, r->n * H * dk), *v = plain_take(m, r->n * H * dv);
    double *cq = plain_take(m, q_lora), *ckv = plain_take(m, lora + rope), *kv = plain_take(m, H * (nope + dv));
    for (int t = 0; t < r->n; t++) {
        int pos = plain_pos(r, t);
        if (q_lora) {
            plain_mul(cq, Wqa, bqa, h + t * D, q_lora, D);
            plain_norm(cq, cq, q_norm, q_lora, 1e-6);
        }
        plain_mul(q + t * H * dk, Wq, NULL, q_lora ? cq : h + t * D, H * dk, q_lora ? q_lora : D);
        plain_mul(ckv, Wkva, bkva, h + t * D, lora + rope, D);
        plain_norm(ckv, ckv, kv_norm, lora, 1e-6);
        plain_rotate(ckv + lora, rope, pos, c->rope.theta, true);
        plain_mul(kv, Wkvb, NULL, ckv, H * (nope + dv), lora);
        for (int i = 0; i < H; i++) {
            double *ki = k + (t * H + i) * dk;
            plain_rotate(q + (t * H + i) * dk + nope, rope, pos, c->rope.theta, true);
            memcpy(ki, kv + i * (nope + dv), (size_t)nope * sizeof *ki);
            memcpy(ki + nope, ckv + lora, (size_t)rope * sizeof *ki);
            memcpy(v + (t * H + i) * dv, kv + i * (nope + dv) + nope, (size_t)dv * sizeof *v);
        }
    }
    plain_attend(m, r, heads, q, k, v, H, 1, dk, dv);
}

/* ---- Experts ------------------------------------------------------------------------------------------- */

/* The best n of x[0..size), ties apart; best: falling.  Returns how far the last of them
 * is above the next. */
static inline double plain_best(int *best, int n, const double *x, int size)
{
    bool taken[64] = {false};
    double last = 0;
    for (int i = 0; i <= n && i < size; i++) {
        int b = -1;
        for (int e = 0; e < size; e++)
            if (!taken[e] && (b < 0 || x[e] > x[b])) b = e;
        if (i == n) return last - x[b];
        taken[b] = true;
        best[i] = b;
        last = x[b];
    }
    return INFINITY;
}

/* The experts of a token, by its scores. */
static inline void plain_choose(plain *m, int *id, const double *score, const double *bias)
{
    const hd_config *c = m->c;
    int E = c->n_experts, n = E / c->n_group, in[64], two[2];
    double choice[64], group[64], margin;
    for (int e = 0; e < E; e++) choice[e] = score[e] + (bias ? bias[e] : 0);
    if (c->topk != HD_TOPK_GREEDY && c->n_group > 1) {
        bool kept[64] = {false};
        for (int g = 0; g < c->n_group; g++) {
            plain_best(two, n > 1 ? 2 : 1, choice + g * n, n);
            group[g] = choice[g * n + two[0]];
            if (c->topk == HD_TOPK_NOAUX && n > 1) group[g] += choice[g * n + two[1]];
        }
        margin = plain_best(in, c->topk_group, group, c->n_group);
        m->margin = margin < m->margin ? margin : m->margin;
        for (int g = 0; g < c->topk_group; g++) kept[in[g]] = true;
        for (int e = 0; e < E; e++)
            if (!kept[e / n]) choice[e] = -INFINITY;
    }
    margin = plain_best(id, c->n_experts_per_tok, choice, E);
    m->margin = margin < m->margin ? margin : m->margin;
}

static inline void plain_scores(const hd_config *c, double *s, const double *z)
{
    double lse = plain_log_sum_exp(z, c->n_experts);
    for (int e = 0; e < c->n_experts; e++) s[e] = c->score == HD_SCORE_SIGMOID ? 1 / (1 + exp(-z[e])) : exp(z[e] - lse);
}

/* y += the chosen and the shared experts of every row; returns the balance loss of all documents. */
static inline double plain_moe(plain *m, const plain_rows *r, int il, const double *h, double *y)
{
    const hd_config *c = m->c;
    int E = c->n_experts, K = c->n_experts_per_tok;
    int64_t D = c->d_model;
    const double *W = plain_w(m, il, "mlp.gate.weight"), *bias = plain_w(m, il, "mlp.gate.e_score_correction_bias");
    double z[64], s[64], balance = 0;
    char name[64];
    for (int d = 0, t = 0; d < r->n_docs; d++) {
        double f[64] = {0}, P[64] = {0};
        for (int i = 0; i < r->len[d]; i++, t++) {
            int *id = m->route + (il * m->max_rows + t) * K;
            double all = 0, chosen = 0;
            plain_mul(z, W, NULL, h + t * D, E, D);
            plain_scores(c, s, z);
            if (!m->routed) plain_choose(m, id, s, bias);
            for (int e = 0; e < E; e++) all += s[e];
            for (int e = 0; e < E; e++) P[e] += s[e] / all / r->len[d];
            for (int k = 0; k < K; k++) chosen += s[id[k]], f[id[k]] += (double)E / K / r->len[d];
            for (int k = 0; k < K; k++) {
                snprintf(name, sizeof name, "mlp.experts.%d.", id[k]);
                plain_swiglu(m, y + t * D, h + t * D, il, name, (double)c->routed_scaling * s[id[k]] / (c->norm_topk_prob ? chosen : 1),
                             c->moe_ffn);
            }
            if (c->n_shared_experts)
                plain_swiglu(m, y + t * D, h + t * D, il, "mlp.shared_experts.", 1, (int64_t)c->n_shared_experts * c->moe_ffn);
        }
        for (int e = 0; e < E; e++) balance += f[e] * P[e];
    }
    return balance;
}

/* ---- The whole ----------------------------------------------------------------------------------------- */

/* One layer: x += attention(norm x); x += ffn(norm x).  Returns the balance loss. */
static inline double plain_layer(plain *m, const plain_rows *r, int il)
{
    const hd_config *c = m->c;
    int64_t D = c->d_model, dv = (int64_t)c->n_heads * (c->kv_lora_rank ? c->v_head_dim : c->head_dim);
    const double *norm = plain_w(m, il, "input_layernorm.weight"), *W = plain_w(m, il, "self_attn.o_proj.weight"),
                 *b = plain_w(m, il, "self_attn.o_proj.bias");
    size_t mark = m->used;
    double *h = plain_take(m, r->n * D), *heads = plain_take(m, r->n * dv), *y = plain_take(m, r->n * D), balance = 0;
    for (int t = 0; t < r->n; t++) plain_norm(h + t * D, r->x + t * D, norm, D, (double)c->norm_eps);
    if (c->kv_lora_rank) plain_mla(m, r, il, h, heads);
    else plain_gqa(m, r, il, h, heads);
    for (int t = 0; t < r->n; t++) plain_mul(y + t * D, W, b, heads + t * dv, D, dv);
    for (int64_t i = 0; i < r->n * D; i++) r->x[i] += y[i];

    norm = plain_w(m, il, "post_attention_layernorm.weight");
    for (int t = 0; t < r->n; t++) plain_norm(h + t * D, r->x + t * D, norm, D, (double)c->norm_eps);
    if (plain_w(m, il, "mlp.gate.weight")) balance = plain_moe(m, r, il, h, r->x);
    else
        for (int t = 0; t < r->n; t++) plain_swiglu(m, r->x + t * D, h + t * D, il, "mlp.", 1, c->n_ffn);
    m->used = mark;
    return balance;
}

/* Logits of a row that is normed already. */
static inline void plain_head(const plain *m, double *z, const double *h)
{
    const double *W = plain_w(m, -1, "lm_head.weight");
    plain_mul(z, W ? W : plain_w(m, -1, "model.embed_tokens.weight"), NULL, h, m->c->n_vocab, m->c->d_model);
}

/* Cross-entropy against the teacher's list, both at the temperature; the list's probabilities
 * made to sum to 1. */
static inline double plain_distil(plain *m, const double *z, int64_t V, const int32_t *id, const float *logp, int n_top, double T)
{
    size_t mark = m->used;
    double *q = plain_take(m, n_top), *cold = plain_take(m, V), loss = 0;
    int n = 0;
    for (; n < n_top && id[n] >= 0; n++) q[n] = (double)logp[n] / T;
    m->used = mark; // what is taken stays as it is until more is
    if (n == 0) return 0;
    for (int64_t v = 0; v < V; v++) cold[v] = z[v] / T;
    double lse = plain_log_sum_exp(cold, V), sum = plain_log_sum_exp(q, n);
    for (int k = 0; k < n; k++) loss += exp(q[k] - sum) * (lse - cold[id[k]]);
    return loss;
}

/* The extra layer: row t joins its state with the id at t + 1 and guesses the one after. */
static inline void plain_mtp(plain *m, const hd_micro *b, const double *state, plain_loss *l)
{
    const hd_config *c = m->c;
    int64_t D = c->d_model;
    int il = c->n_layers, len[64];
    double *joined = plain_take(m, 2 * D), *h = plain_take(m, D), *z = plain_take(m, c->n_vocab);
    plain_rows r = {.len = len, .x = plain_take(m, b->n_rows * D)};
    int32_t *guess = malloc((size_t)b->n_rows * sizeof *guess);
    const double *W = plain_w(m, il, "eh_proj.weight"), *enorm = plain_w(m, il, "enorm.weight"), *hnorm = plain_w(m, il, "hnorm.weight"),
                 *norm = plain_w(m, il, "shared_head.norm.weight"), *embed = plain_w(m, -1, "model.embed_tokens.weight");
    for (int d = 0, row = 0; d < b->n_docs; row += b->len[d++]) {
        if (b->len[d] < 2) continue;
        len[r.n_docs++] = b->len[d] - 1;
        for (int t = row; t + 1 < row + b->len[d]; t++, r.n++) {
            plain_norm(joined, embed + b->tok[t + 1] * D, enorm, D, (double)c->norm_eps);
            plain_norm(joined + D, state + t * D, hnorm, D, (double)c->norm_eps);
            plain_mul(r.x + r.n * D, W, NULL, joined, D, 2 * D);
            guess[r.n] = b->target[t] >= 0 ? b->target[t + 1] : -1;
        }
    }
    l->balance += plain_layer(m, &r, il);
    for (int t = 0; t < r.n; t++) {
        if (guess[t] < 0) continue;
        plain_norm(h, r.x + t * D, norm, D, (double)c->norm_eps);
        plain_head(m, z, h);
        l->mtp += plain_log_sum_exp(z, c->n_vocab) - z[guess[t]];
    }
    free(guess);
}

static inline plain_loss plain_run(plain *m, const hd_micro *b, const hd_pass_opts *o)
{
    const hd_config *c = m->c;
    int64_t D = c->d_model, V = c->n_vocab;
    plain_loss l = {0};
    const double *embed = plain_w(m, -1, "model.embed_tokens.weight"), *norm = plain_w(m, -1, "model.norm.weight");
    double T = (double)o->temperature, share = b->teacher_id ? (double)o->distil_weight : 0, rows = 0;
    m->used = 0;
    if (!m->routed) m->margin = INFINITY;
    plain_rows r = {.n = b->n_rows, .n_docs = b->n_docs, .len = b->len, .tok = b->tok, .x = plain_take(m, b->n_rows * D)};
    double *z = plain_take(m, V);
    for (int t = 0; t < r.n; t++) memcpy(r.x + t * D, embed + b->tok[t] * D, (size_t)D * sizeof *r.x);
    for (int il = 0; il < c->n_layers; il++) l.balance += plain_layer(m, &r, il);
    for (int t = 0; t < r.n; t++) {
        plain_norm(r.x + t * D, r.x + t * D, norm, D, (double)c->norm_eps);
        if (b->target[t] < 0) continue;
        plain_head(m, z, r.x + t * D);
        double w = b->weight ? (double)b->weight[t] : 1, lse = plain_log_sum_exp(z, V), ce = lse - z[b->target[t]], far = 0;
        if (share > 0) far = plain_distil(m, z, V, b->teacher_id + t * b->n_top, b->teacher_logp + t * b->n_top, b->n_top, T);
        l.loss += w * ce;
        l.distil += w * far;
        rows += w * ((1 - share) * (ce + (double)o->zloss * lse * lse) + share * T * T * far);
    }
    if (o->mtp_weight > 0 && c->n_mtp > 0) plain_mtp(m, b, r.x, &l);
    l.total = (double)o->loss_scale * rows + (double)o->mtp_weight * (double)o->mtp_scale * l.mtp +
              (double)o->balance_alpha * (double)o->balance_scale * l.balance;
    m->routed = true;
    return l;
}

static inline void plain_close(plain *m)
{
    free(m->w);
    free(m->route);
    free(m->work);
}

/* With the model's masters.  Borrows c and p. */
static inline plain plain_open(const hd_config *c, const hd_params *p, int max_rows)
{
    plain m = {.c = c, .p = p, .max_rows = max_rows};
    int64_t H = c->n_heads, q = H * (c->head_dim + c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim);
    m.size = (size_t)max_rows * (size_t)(8 * c->d_model + 6 * q + 1) + (size_t)(4 * c->n_vocab + 4 * c->n_ffn) + 65536;
    m.w = malloc((size_t)p->n_flat * sizeof *m.w);
    m.work = malloc(m.size * sizeof *m.work);
    m.route = calloc((size_t)(c->n_layers + c->n_mtp) * (size_t)max_rows * (size_t)(c->n_experts_per_tok + 1), sizeof *m.route);
    if (!m.w || !m.work || !m.route) abort();
    for (int64_t i = 0; i < p->n_flat; i++) m.w[i] = (double)p->w[i];
    return m;
}

#endif
