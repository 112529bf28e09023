/* Multi-head latent attention (arXiv:2405.04434, 2.1), in its absorbed form for prefill and decode alike.
 *
 *   c_q = norm(Wqa h)                       the query's latent (V3; V2-Lite multiplies h directly)
 *   [q_nope; q_rope] = Wqb c_q              per head; q_rope is rotated
 *   [c_kv; k_rope] = Wkva h                 c_kv is normed, k_rope rotated: the cache keeps these and
 *                                           nothing else
 *
 * A head's key is [Wk c_kv; k_rope] and its value Wv c_kv, so
 *
 *   q . k = (Wk^T q_nope) . c_kv + q_rope . k_rope        and        sum p v = Wv (sum p c_kv):
 *
 * every head attends to the same latent rows, as if there were one key head of lora + rope numbers whose
 * first lora numbers are the value.  One form for all lengths keeps the bits the same; the two small products
 * per head are jobs of one parallel region.  Rows of blobs are stored head by head: head h's row m is row
 * h * M + m. */
#include <string.h>

#include "model/tape.h"

typedef struct {
    hd_pass *p;
    const hd_layer *l;
    int il;
    int64_t lora, nope, rope, v, H;
    float *kv_a;              // [M, lora + rope]
    float *c_q;               // [M, q_lora]
    float *q;                 // [M, H, nope + rope]
    float *q_abs;             // [M, H, lora + rope]
    float *mean;              // [M, H, lora] attention's result
    float *heads;             // [M, H, v]
    hd_blobs *q_lat, *q_nope; // inputs of q_b and of k_b
    hd_blobs *lat;            // inputs of v_b
} mla;

static void rotate_heads(const mla *a, float *x, int64_t ld, int64_t n, int64_t row)
{
    const hd_model *m = a->p->m;
    for (int64_t h = 0; h < n; h++)
        a->p->d->k->rope(x + h * ld, a->p->cs + row * 2 * m->rope.n_pairs, (int)a->rope, m->cfg.rope.pairs);
}

/* Latents of one row: the query's is packed for q_b, the key's goes into the cache. */
static void latent_row(void *arg, int64_t row, int tid)
{
    const mla *a = arg;
    hd_pass *p = a->p;
    float *kv = a->kv_a + row * (a->lora + a->rope);
    (void)tid;
    if (a->c_q) {
        int64_t n = p->m->cfg.q_lora_rank;
        float *c = a->c_q + row * n;
        if (p->tape) memcpy(p->tape->q_raw + row * n, c, (size_t)n * sizeof *c);
        p->d->k->rmsnorm(c, c, a->l->q_a_norm, n, HD_LATENT_EPS);
        hd_blobs_row(a->q_lat, p->d->k, row, c);
    }
    if (p->tape) memcpy(p->tape->k_raw + row * (a->lora + a->rope), kv, (size_t)(a->lora + a->rope) * sizeof *kv);
    p->d->k->rmsnorm(kv, kv, a->l->kv_a_norm, a->lora, HD_LATENT_EPS);
    rotate_heads(a, kv + a->lora, 0, 1, row);
    hd_seq_store(p->b->seq[p->seq_of[row]], p->d->k, a->il, p->pos[row], 1, kv, kv);
}

static void query_row(void *arg, int64_t row, int tid)
{
    const mla *a = arg;
    float *q = a->q + row * a->H * (a->nope + a->rope), *abs = a->q_abs + row * a->H * (a->lora + a->rope);
    (void)tid;
    rotate_heads(a, q + a->nope, a->nope + a->rope, a->H, row);
    for (int64_t h = 0; h < a->H; h++) {
        const float *head = q + h * (a->nope + a->rope);
        for (int64_t i = 0; i < a->rope; i++) abs[h * (a->lora + a->rope) + a->lora + i] = head[a->nope + i];
        hd_blobs_row(a->q_nope, a->p->d->k, h * a->p->M + row, head);
    }
}

static void mean_row(void *arg, int64_t row, int tid)
{
    const mla *a = arg;
    (void)tid;
    for (int64_t h = 0; h < a->H; h++)
        hd_blobs_row(a->lat, a->p->d->k, h * a->p->M + row, a->mean + (row * a->H + h) * a->lora);
}

size_t hd_block_mla_bytes(const hd_config *c, int M)
{
    size_t H = (size_t)c->n_heads, lora = (size_t)c->kv_lora_rank, rope = (size_t)c->qk_rope_head_dim;
    size_t nope = (size_t)c->qk_nope_head_dim, v = (size_t)c->v_head_dim, q_lora = (size_t)c->q_lora_rank;
    size_t floats = lora + rope + q_lora + H * (nope + rope + lora + rope + lora + v);
    return floats * (size_t)M * 4 + hd_blobs_bytes(c->d_model, M) + hd_blobs_bytes(c->q_lora_rank, M) +
           hd_blobs_bytes(c->qk_nope_head_dim, M * c->n_heads) +
           hd_blobs_bytes(c->kv_lora_rank, M * c->n_heads) + hd_blobs_bytes((int64_t)(H * v), M) +
           H * sizeof(hd_mm) + 32 * 64;
}

/* q: [M, H, nope + rope], through the latent or directly; the key's latent into the cache. */
static void queries_and_keys(mla *a)
{
    hd_pass *p = a->p;
    const hd_layer *l = a->l;
    int64_t q_lora = p->m->cfg.q_lora_rank, nq = a->H * (a->nope + a->rope);
    const hd_linear *in[] = {q_lora > 0 ? &l->q_a : &l->q_b, &l->kv_a}, *q_b[] = {&l->q_b};
    hd_blobs h, q_lat;
    hd_blobs_init(&h, p, p->D, p->M, in, 2);
    if (q_lora > 0) hd_blobs_init(&q_lat, p, q_lora, p->M, q_b, 1);
    a->q_lat = &q_lat;
    a->c_q = q_lora > 0 ? hd_pass_take(p, p->M * q_lora) : NULL;

    hd_pass_norm(p, l->attn_norm, &h, NULL);
    if (p->tape) p->tape->x_attn = p->x;
    hd_mm jobs[] = {hd_blobs_job(&h, p, in[0], 0, p->M, q_lora > 0 ? a->c_q : a->q, q_lora > 0 ? q_lora : nq),
                    hd_blobs_job(&h, p, &l->kv_a, 0, p->M, a->kv_a, a->lora + a->rope)};
    hd_mm_run(p->d, jobs, 2);
    hd_rows_run(p->d, p->M, latent_row, a);
    if (q_lora == 0) return;
    hd_mm job = hd_blobs_job(&q_lat, p, &l->q_b, 0, p->M, a->q, nq);
    hd_mm_run(p->d, &job, 1);
}

void hd_block_mla(hd_pass *p, const hd_layer *l, int il)
{
    const hd_config *c = &p->m->cfg;
    const hd_linear *k_b[] = {l->k_b}, *v_b[] = {l->v_b}, *out[] = {&l->o};
    hd_blobs q_nope, lat, o;
    mla a = {.p = p,
             .l = l,
             .il = il,
             .lora = c->kv_lora_rank,
             .nope = c->qk_nope_head_dim,
             .rope = c->qk_rope_head_dim};
    a.v = c->v_head_dim;
    a.H = c->n_heads;
    int64_t M = p->M, dk = a.lora + a.rope;
    a.kv_a = hd_pass_keep(p, M * dk);
    a.q = hd_pass_keep(p, M * a.H * (a.nope + a.rope));
    a.q_abs = hd_pass_keep(p, M * a.H * dk);
    a.mean = hd_pass_keep(p, M * a.H * a.lora);
    a.heads = hd_pass_keep(p, M * a.H * a.v);
    if (p->tape) {
        hd_layer_tape *t = p->tape;
        t->q = a.q, t->k = a.kv_a, t->q_abs = a.q_abs, t->mean = a.mean, t->heads = a.heads;
        t->q_raw = hd_pass_keep(p, M * c->q_lora_rank);
        t->k_raw = hd_pass_keep(p, M * dk);
        t->lse = hd_pass_keep(p, M * a.H);
    }
    hd_mm *jobs = hd_arena_take(p->work, (size_t)a.H * sizeof *jobs);
    queries_and_keys(&a);

    hd_blobs_init(&q_nope, p, a.nope, (int)(M * a.H), k_b, 1);
    a.q_nope = &q_nope;
    hd_rows_run(p->d, M, query_row, &a);
    for (int h = 0; h < a.H; h++)
        jobs[h] = hd_blobs_job(&q_nope, p, &l->k_b[h], h * (int)M, (int)M, a.q_abs + h * dk, a.H * dk);
    hd_mm_run(p->d, jobs, (int)a.H);

    hd_attn attn = {.kv = *hd_seq_shape(p->b->seq[0]),
                    .n_heads = c->n_heads,
                    .scale = p->m->attn_scale,
                    .q = a.q_abs,
                    .pos = p->pos,
                    .out = a.mean,
                    .lse = p->tape ? p->tape->lse : NULL,
                    .seqs = p->aseq,
                    .n_seqs = p->b->n_seqs};
    hd_attn_run(p->d, &attn, p->work);

    hd_blobs_init(&lat, p, a.lora, (int)(M * a.H), v_b, 1);
    a.lat = &lat;
    hd_rows_run(p->d, M, mean_row, &a);
    for (int h = 0; h < a.H; h++)
        jobs[h] = hd_blobs_job(&lat, p, &l->v_b[h], h * (int)M, (int)M, a.heads + h * a.v, a.H * a.v);
    hd_mm_run(p->d, jobs, (int)a.H);

    hd_blobs_init(&o, p, a.H * a.v, (int)M, out, 1);
    hd_blobs_pack(&o, p, a.heads, a.H * a.v);
    hd_mm job = hd_blobs_job(&o, p, &l->o, 0, (int)M, p->y, p->D);
    hd_mm_run(p->d, &job, 1);
    p->pending = true;
}
