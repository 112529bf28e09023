/* Grouped-query attention (arXiv:2305.13245): q, k, v from the normed rows, rotary positions, the cache, the
 * output.
 *
 *   q = Wq h + bq    k = Wk h + bk    v = Wv h + bv
 *   q, k = norm per head (Qwen3), then rotated by position (arXiv:2104.09864)
 *   y = Wo attention(q, cache) */
#include <string.h>

#include "model/tape.h"

typedef struct {
    hd_pass *p;
    const hd_layer *l;
    int il;
    float *q, *k, *v;
    int run; // rows of a task
} gqa;

static void rotate_heads(const gqa *a, float *x, int n_heads, const float *norm, const float *cs)
{
    const hd_model *m = a->p->m;
    const hd_kernels *k = a->p->d->k;
    int dim = m->cfg.head_dim;
    for (int h = 0; h < n_heads; h++, x += dim) {
        if (norm) k->rmsnorm(x, x, norm, dim, m->cfg.norm_eps);
        k->rope(x, cs, dim, m->cfg.rope.pairs);
    }
}

static void rotate(const gqa *a, int64_t row)
{
    hd_pass *p = a->p;
    const hd_config *c = &p->m->cfg;
    int64_t nq = (int64_t)c->n_heads * c->head_dim, nkv = (int64_t)c->n_kv_heads * c->head_dim;
    const float *cs = p->cs + row * 2 * p->m->rope.n_pairs;
    if (p->tape && a->l->q_norm) {
        memcpy(p->tape->q_raw + row * nq, a->q + row * nq, (size_t)nq * sizeof(float));
        memcpy(p->tape->k_raw + row * nkv, a->k + row * nkv, (size_t)nkv * sizeof(float));
    }
    rotate_heads(a, a->q + row * nq, c->n_heads, a->l->q_norm, cs);
    rotate_heads(a, a->k + row * nkv, c->n_kv_heads, a->l->k_norm, cs);
    p->d->k->attn->round(p->round, a->k + row * nkv, nkv);
    p->d->k->attn->round(p->round, a->v + row * nkv, nkv);
}

/* A run of rows: a sequence's positions are stored together. */
static void rotate_and_store(void *arg, int64_t run, int tid)
{
    const gqa *a = arg;
    hd_pass *p = a->p;
    const hd_config *c = &p->m->cfg;
    int64_t nkv = (int64_t)c->n_kv_heads * c->head_dim;
    int row = (int)run * a->run, end = row + a->run < p->M ? row + a->run : p->M;
    (void)tid;
    for (int i = row; i < end; i++) rotate(a, i);
    for (int n = 1; row < end; row += n, n = 1) {
        while (row + n < end && p->seq_of[row + n] == p->seq_of[row]) n++;
        hd_seq_store(p->b->seq[p->seq_of[row]], p->d->k, a->il, p->pos[row], n, a->k + row * nkv, a->v + row * nkv);
    }
}

size_t hd_block_gqa_bytes(const hd_config *c, int M)
{
    size_t nq = (size_t)c->n_heads * (size_t)c->head_dim, nkv = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    return hd_blobs_bytes(c->d_model, M) + (2 * nq + 2 * nkv) * (size_t)M * 4 +
           hd_blobs_bytes((int64_t)nq, M) + 16 * 64;
}

void hd_block_gqa(hd_pass *p, const hd_layer *l, int il)
{
    const hd_config *c = &p->m->cfg;
    int64_t nq = (int64_t)c->n_heads * c->head_dim, nkv = (int64_t)c->n_kv_heads * c->head_dim;
    const hd_linear *in[] = {&l->q, &l->k, &l->v}, *out[] = {&l->o};
    hd_blobs h, o;
    gqa a = {.p = p, .l = l, .il = il};
    a.q = hd_pass_keep(p, p->M * nq);
    a.k = hd_pass_keep(p, p->M * nkv);
    a.v = hd_pass_keep(p, p->M * nkv);
    float *heads = hd_pass_keep(p, p->M * nq);

    hd_blobs_init(&h, p, p->D, p->M, in, 3);
    hd_pass_norm(p, l->attn_norm, &h, NULL);
    if (p->tape) {
        hd_layer_tape *t = p->tape;
        t->x_attn = p->x, t->q = a.q, t->k = a.k, t->v = a.v, t->heads = heads;
        t->lse = hd_pass_keep(p, (int64_t)p->M * c->n_heads);
        t->q_raw = l->q_norm ? hd_pass_keep(p, p->M * nq) : NULL;
        t->k_raw = l->q_norm ? hd_pass_keep(p, p->M * nkv) : NULL;
    }
    hd_mm qkv[] = {hd_blobs_job(&h, p, &l->q, 0, p->M, a.q, nq),
                   hd_blobs_job(&h, p, &l->k, 0, p->M, a.k, nkv),
                   hd_blobs_job(&h, p, &l->v, 0, p->M, a.v, nkv)};
    hd_mm_run(p->d, qkv, 3);
    int tasks = 8 * hd_pool_threads(p->d->pool);
    a.run = (p->M + tasks - 1) / tasks;
    if (a.run > HD_KV_PANEL / 2) a.run = (a.run + HD_KV_PANEL - 1) / HD_KV_PANEL * HD_KV_PANEL; // whole panels are stored faster
    hd_pool_run(p->d->pool, (p->M + a.run - 1) / a.run, rotate_and_store, &a);

    hd_attn attn = {.kv = *hd_seq_shape(p->b->seq[0]),
                    .n_heads = c->n_heads,
                    .scale = p->m->attn_scale,
                    .q = a.q,
                    .pos = p->pos,
                    .out = heads,
                    .lse = p->tape ? p->tape->lse : NULL,
                    .seqs = p->aseq,
                    .n_seqs = p->b->n_seqs};
    hd_attn_run(p->d, &attn, p->work);

    hd_blobs_init(&o, p, nq, p->M, out, 1);
    hd_blobs_pack(&o, p, heads, nq);
    hd_mm job = hd_blobs_job(&o, p, &l->o, 0, p->M, p->y, p->D);
    hd_mm_run(p->d, &job, 1);
    p->pending = true;
}
