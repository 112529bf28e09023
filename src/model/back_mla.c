/* The way back through latent attention in its absorbed form (block_mla.c):
 *
 *   heads_h = Wv_h mean_h              dmean_h = Wv_h^T dheads_h       dWv_h += dheads_h^T mean_h
 *   attention over [c_kv; k_rope]      dq_abs, dk
 *   q_abs_h = [Wk_h^T q_nope; q_rope]  dq_nope = Wk_h dq_abs           dWk_h += q_nope^T dq_abs
 *   c_kv = norm(raw), k_rope turned    back through both */
#include <assert.h>
#include <string.h>

#include "model/tape.h"

typedef struct {
    hd_back *b;
    int64_t lora, nope, rope, H;
    float *dq, *dq_abs, *dk;
} mla;

static void turn_back(const hd_pass *p, float *x, int64_t row)
{
    int n = p->m->rope.n_pairs;
    const float *cs = p->cs + row * 2 * n;
    float back[2 * n];
    for (int i = 0; i < n; i++) back[2 * i] = cs[2 * i], back[2 * i + 1] = -cs[2 * i + 1];
    p->d->k->rope(x, back, 2 * n, p->m->cfg.rope.pairs);
}

/* The rotated parts, turned back: the query's heads' into dq, the key's in place. */
static void rope_row(void *arg, int64_t row, int tid)
{
    const mla *a = arg;
    const hd_pass *p = a->b->p;
    int64_t dk = a->lora + a->rope, dim = a->nope + a->rope;
    (void)tid;
    for (int64_t h = 0; h < a->H; h++) {
        float *to = a->dq + (row * a->H + h) * dim + a->nope;
        memcpy(to, a->dq_abs + (row * a->H + h) * dk + a->lora, (size_t)a->rope * sizeof *to);
        turn_back(p, to, row);
    }
    turn_back(p, a->dk + row * dk + a->lora, row);
}

/* y_h = w_h x_h for every head, heads x_step and y_step floats apart; the rows that w read, by head. */
static hd_side *heads_mul(hd_back *b, const hd_linear *const *w, int H, const float *x, int64_t x_step, float *y, int64_t y_step)
{
    hd_dev *d = b->p->d;
    int M = b->p->M;
    hd_side *side = hd_arena_take(b->work, (size_t)H * sizeof *side);
    hd_mm *job = hd_arena_take(b->work, (size_t)H * sizeof *job);
    assert(side && job);
    for (int h = 0; h < H; h++) side[h] = hd_side_of(x + h * x_step, H * x_step);
    hd_back_pack(b, side, w, H, M);
    for (int h = 0; h < H; h++) job[h] = (hd_mm){.w = w[h], .act = side[h].act, .M = M, .y = y + h * y_step, .ldy = H * y_step};
    hd_mm_run(d, job, H);
    return side;
}

/* Gradients of the heads' two matrices, and of what they multiplied. */
static void heads_back(mla *a, const hd_layer *l, const float *dheads, float *dmean)
{
    hd_back *b = a->b;
    const hd_layer_tape *t = b->t;
    hd_pass *p = b->p;
    int H = (int)a->H, M = p->M;
    int64_t v = p->m->cfg.v_head_dim, dk = a->lora + a->rope, dim = a->nope + a->rope;
    const hd_linear **w = hd_arena_take(b->work, (size_t)H * sizeof *w);
    hd_mm_grad *job = hd_arena_take(b->work, (size_t)H * sizeof *job);
    assert(w && job);
    for (int h = 0; h < H; h++) w[h] = l->v_b[h].back;
    const hd_side *dy = heads_mul(b, w, H, dheads, v, dmean, a->lora);
    for (int h = 0; h < H; h++) job[h] = hd_back_job(b, &l->v_b[h], hd_side_of(t->mean + h * a->lora, H * a->lora), dy[h], M);
    hd_back_grads(b, job, H);

    hd_attn_back at = {.kv = *hd_seq_shape(p->b->seq[0]),
                       .n_heads = H,
                       .scale = p->m->attn_scale,
                       .q = t->q_abs,
                       .k = t->k,
                       .out = t->mean,
                       .dout = dmean,
                       .lse = t->lse,
                       .dq = a->dq_abs,
                       .dk = a->dk,
                       .len = b->len,
                       .n_seqs = b->n_docs};
    hd_attn_back_run(p->d, &at, b->work);

    for (int h = 0; h < H; h++) w[h] = l->k_b[h].back; // the key's half as it stands: [nope, lora]
    const hd_side *x = heads_mul(b, w, H, a->dq_abs, dk, a->dq, dim);
    for (int h = 0; h < H; h++) job[h] = hd_back_job(b, w[h], x[h], hd_side_of(t->q + h * dim, H * dim), M);
    hd_back_grads(b, job, H);
    hd_rows_run(p->d, M, rope_row, a);
}

void hd_back_mla(hd_back *b, const hd_layer *l)
{
    const hd_layer_tape *t = b->t;
    hd_pass *p = b->p;
    const hd_config *c = &p->m->cfg;
    size_t mark = b->work->used;
    int M = p->M;
    mla a = {.b = b, .lora = c->kv_lora_rank, .nope = c->qk_nope_head_dim, .rope = c->qk_rope_head_dim, .H = c->n_heads};
    int64_t D = p->D, nv = a.H * c->v_head_dim, dk = a.lora + a.rope, nq = a.H * (a.nope + a.rope), q_lora = c->q_lora_rank;
    const hd_side h = hd_back_norm(b, t->x_attn, D, l->attn_norm, &l->kv_a, M, c->norm_eps, false);
    hd_side dy = hd_side_of(b->dx, D);
    float *dheads = hd_back_take(b, M * nv), *dmean = hd_back_take(b, M * a.H * a.lora), *dh = hd_back_take(b, M * D);
    a.dq = hd_back_take(b, M * nq);
    a.dq_abs = hd_back_take(b, M * a.H * dk);
    a.dk = hd_back_take(b, M * dk);
    hd_back_mul(b, &(const hd_linear *){&l->o}, &dy, 1, M, dheads, nv, false);
    heads_back(&a, l, dheads, dmean);
    hd_rmsnorm_back(p->d, a.dk, dk, false, hd_grad_of(b, l->kv_a_norm), a.dk, dk, t->k_raw, dk, l->kv_a_norm, M, a.lora,
                    HD_LATENT_EPS, b->work);

    hd_mm_grad jobs[4];
    hd_side s[2] = {hd_side_of(a.dq, nq), hd_side_of(a.dk, dk)}; // of what h went into
    const hd_linear *w[2] = {&l->q_b, &l->kv_a};
    int n = 0;
    if (q_lora > 0) {
        const hd_side c_q = hd_back_norm(b, t->q_raw, q_lora, l->q_a_norm, &l->q_b, M, HD_LATENT_EPS, false);
        float *dc = hd_back_take(b, M * q_lora);
        hd_back_mul(b, w, s, 1, M, dc, q_lora, false);
        jobs[n++] = hd_back_job(b, &l->q_b, c_q, s[0], M);
        hd_rmsnorm_back(p->d, dc, q_lora, false, hd_grad_of(b, l->q_a_norm), dc, q_lora, t->q_raw, q_lora, l->q_a_norm, M, q_lora,
                        HD_LATENT_EPS, b->work);
        s[0] = hd_side_of(dc, q_lora);
        w[0] = &l->q_a;
    }
    hd_back_mul(b, w, s, 2, M, dh, D, false);
    jobs[n++] = hd_back_job(b, &l->o, hd_side_of(t->heads, nv), dy, M);
    for (int i = 0; i < 2; i++) jobs[n++] = hd_back_job(b, w[i], h, s[i], M);
    hd_back_grads(b, jobs, n);
    hd_back_norm_add(b, dh, t->x_attn, l->attn_norm);
    b->work->used = mark;
}
