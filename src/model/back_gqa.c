/* The way back through grouped-query attention: Wo, attention, the rotation (turned the other way), the norm
 * over heads (Qwen3), Wq, Wk and Wv. */
#include "model/tape.h"

typedef struct {
    hd_back *b;
    float *dq, *dk;
    int64_t nq, nkv;
} turn;

/* A rotation's derivative is the rotation by the opposite angle; cos and sin keep their scale. */
static void turn_back_row(void *arg, int64_t row, int tid)
{
    const turn *j = arg;
    const hd_pass *p = j->b->p;
    const hd_config *c = &p->m->cfg;
    int n = p->m->rope.n_pairs;
    const float *cs = p->cs + row * 2 * n;
    float back[2 * n]; // head_dim at most, which the configuration caps
    (void)tid;
    for (int i = 0; i < n; i++) back[2 * i] = cs[2 * i], back[2 * i + 1] = -cs[2 * i + 1];
    for (int h = 0; h < c->n_heads; h++) p->d->k->rope(j->dq + row * j->nq + h * c->head_dim, back, c->head_dim, c->rope.pairs);
    for (int h = 0; h < c->n_kv_heads; h++) p->d->k->rope(j->dk + row * j->nkv + h * c->head_dim, back, c->head_dim, c->rope.pairs);
}

/* d: [M, heads, dim], in place. */
static void head_norm_back(hd_back *b, float *d, const float *raw, const float *g, int heads)
{
    const hd_config *c = &b->p->m->cfg;
    if (!g) return;
    hd_rmsnorm_back(b->p->d, d, c->head_dim, false, hd_grad_of(b, g), d, c->head_dim, raw, c->head_dim, g, b->p->M * heads,
                    c->head_dim, c->norm_eps, b->work);
}

void hd_back_gqa(hd_back *b, const hd_layer *l)
{
    const hd_layer_tape *t = b->t;
    hd_pass *p = b->p;
    const hd_config *c = &p->m->cfg;
    size_t mark = b->work->used;
    int M = p->M;
    int64_t D = p->D, nq = (int64_t)c->n_heads * c->head_dim, nkv = (int64_t)c->n_kv_heads * c->head_dim;
    const hd_side h = hd_back_norm(b, t->x_attn, D, l->attn_norm, &l->q, M, c->norm_eps, false);
    hd_side dy = hd_side_of(b->dx, D);
    float *dheads = hd_back_take(b, M * nq), *dq = hd_back_take(b, M * nq), *dk = hd_back_take(b, M * nkv),
          *dv = hd_back_take(b, M * nkv), *dh = hd_back_take(b, M * D);
    hd_back_mul(b, &(const hd_linear *){&l->o}, &dy, 1, M, dheads, nq, false);
    hd_attn_back a = {.kv = *hd_seq_shape(p->b->seq[0]),
                      .n_heads = c->n_heads,
                      .scale = p->m->attn_scale,
                      .q = t->q,
                      .k = t->k,
                      .v = t->v,
                      .out = t->heads,
                      .dout = dheads,
                      .lse = t->lse,
                      .dq = dq,
                      .dk = dk,
                      .dv = dv,
                      .len = b->len,
                      .n_seqs = b->n_docs};
    hd_attn_back_run(p->d, &a, b->work);
    turn j = {b, dq, dk, nq, nkv};
    hd_rows_run(p->d, M, turn_back_row, &j);
    head_norm_back(b, dq, t->q_raw, l->q_norm, c->n_heads);
    head_norm_back(b, dk, t->k_raw, l->k_norm, c->n_kv_heads);

    hd_side s[] = {hd_side_of(dq, nq), hd_side_of(dk, nkv), hd_side_of(dv, nkv)};
    hd_back_mul(b, (const hd_linear *const[]){&l->q, &l->k, &l->v}, s, 3, M, dh, D, false);
    hd_mm_grad jobs[] = {hd_back_job(b, &l->o, hd_side_of(t->heads, nq), dy, M), hd_back_job(b, &l->q, h, s[0], M),
                         hd_back_job(b, &l->k, h, s[1], M), hd_back_job(b, &l->v, h, s[2], M)};
    hd_back_grads(b, jobs, 4);
    hd_back_norm_add(b, dh, t->x_attn, l->attn_norm);
    b->work->used = mark;
}
