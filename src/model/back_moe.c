/* The way back through the experts (block_moe.c).  With e the expert of a slot, m its token, w its weight:
 *
 *   da = down_e^T dy_m           (before the weight)      dw = da . a          since y_m += w down_e a
 *   ddown_e += dy_m (w a)^T      (dgate, dup) = swiglu'(w da)
 *   dh_m += gate_e^T dgate + up_e^T dup                   in the order of the token's slots, then the shared experts
 *
 * and through the router, whose choice is constant and whose scores are not:
 *
 *   w_i = scale s_i / (sum of the chosen s + 1e-20)  or  scale s_i;   s = sigmoid(z) or softmax(z)
 *
 * The balance loss of a sequence of T tokens (arXiv:2412.19437, eq. 17-20; arXiv:2405.04434, eq. 23-25) reads the scores
 * of all experts, normalised to sum 1:  L = alpha sum_i f_i P_i,  f_i = E / (K T) (tokens sent to i),  P_i = mean of s'_i. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/tape.h"

typedef struct {
    hd_back *b;
    const hd_layer *l;
    int K, E;
    int64_t F, D;
    float *dslot;     // [M K, D] dy of a slot's token
    float *da, *a;    // [M K, F]
    float *dw;        // [M K] by slot
    float *dlogits;   // [M, E]
    float *dh, *dxe;  // [M, D]; [M K, D] what experts send back
    float *balance;   // [n_docs, E] dL/ds' of one token of each document
    int *doc_of;      // [M]
    float *scratch;   // [threads, 2 E]
} moe;

static void gather_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    (void)tid;
    for (int i = 0; i < s->K; i++)
        memcpy(s->dslot + s->b->t->slot[row * s->K + i] * s->D, s->b->dx + row * s->D, (size_t)s->D * sizeof(float));
}

/* The weights of a token's slots meet their gradients: dw = da . a, then da and a are scaled. */
static void weigh_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    const hd_layer_tape *t = s->b->t;
    (void)tid;
    for (int i = 0; i < s->K; i++) {
        int64_t slot = t->slot[row * s->K + i];
        float *da = s->da + slot * s->F, *a = s->a + slot * s->F, w = t->weight[row * s->K + i], sum = 0;
        const float *gate = t->egate + slot * s->F, *up = t->eup + slot * s->F;
        s->b->p->d->k->silu_mul(a, gate, up, s->F);
        for (int64_t f = 0; f < s->F; f++) sum += da[f] * a[f];
        for (int64_t f = 0; f < s->F; f++) da[f] *= w, a[f] *= w;
        s->dw[row * s->K + i] = sum;
    }
}

static void scores(const hd_config *c, const float *z, float *s)
{
    float max = z[0], sum = 0;
    if (c->score == HD_SCORE_SIGMOID) {
        for (int e = 0; e < c->n_experts; e++) s[e] = 1 / (1 + expf(-z[e]));
        return;
    }
    for (int e = 1; e < c->n_experts; e++) max = z[e] > max ? z[e] : max;
    for (int e = 0; e < c->n_experts; e++) sum += s[e] = expf(z[e] - max);
    for (int e = 0; e < c->n_experts; e++) s[e] /= sum;
}

static void router_row(void *arg, int64_t row, int tid)
{
    const moe *m = arg;
    const hd_config *c = &m->b->p->m->cfg;
    const hd_layer_tape *t = m->b->t;
    const int *id = t->id + row * m->K;
    float *s = m->scratch + (int64_t)tid * 2 * m->E, *ds = s + m->E, *dz = m->dlogits + row * m->E, sum = 0, mean = 0;
    scores(c, t->logits + row * m->E, s);
    memset(ds, 0, (size_t)m->E * sizeof *ds);
    for (int i = 0; i < m->K; i++) sum += s[id[i]];
    if (c->norm_topk_prob) { // w_i = scale s_i / sum
        for (int i = 0; i < m->K; i++) mean += m->dw[row * m->K + i] * s[id[i]];
        mean /= sum + 1e-20f;
        for (int i = 0; i < m->K; i++) ds[id[i]] += c->routed_scaling / (sum + 1e-20f) * (m->dw[row * m->K + i] - mean);
    } else {
        for (int i = 0; i < m->K; i++) ds[id[i]] += c->routed_scaling * m->dw[row * m->K + i];
    }
    if (m->balance) { // through s' = s / sum of all s
        const float *g = m->balance + (int64_t)m->doc_of[row] * m->E;
        float all = 0, dot = 0;
        for (int e = 0; e < m->E; e++) all += s[e];
        all += c->score == HD_SCORE_SIGMOID ? 1e-20f : 0;
        for (int e = 0; e < m->E; e++) dot += g[e] * s[e] / all;
        for (int e = 0; e < m->E; e++) ds[e] += (g[e] - dot) / all;
    }
    if (c->score == HD_SCORE_SIGMOID) {
        for (int e = 0; e < m->E; e++) dz[e] = ds[e] * s[e] * (1 - s[e]);
        return;
    }
    float dot = 0;
    for (int e = 0; e < m->E; e++) dot += ds[e] * s[e];
    for (int e = 0; e < m->E; e++) dz[e] = s[e] * (ds[e] - dot);
}

static void scatter_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    (void)tid;
    for (int i = 0; i < s->K; i++)
        s->b->p->d->k->add(s->dh + row * s->D, s->dxe + s->b->t->slot[row * s->K + i] * s->D, s->D);
}

/* One document's part of the balance loss; g: [E] its gradient by one token's s'. */
static double balance_doc(const moe *m, int row0, int n, float *g)
{
    const hd_config *c = &m->b->p->m->cfg;
    const hd_layer_tape *t = m->b->t;
    float *s = m->scratch;
    double P[m->E], f[m->E], loss = 0;
    for (int e = 0; e < m->E; e++) P[e] = f[e] = 0;
    for (int row = row0; row < row0 + n; row++) {
        double all = 0;
        scores(c, t->logits + (int64_t)row * m->E, s);
        for (int e = 0; e < m->E; e++) all += s[e];
        for (int e = 0; e < m->E; e++) P[e] += s[e] / (all + 1e-20) / n;
        for (int i = 0; i < m->K; i++) f[t->id[row * m->K + i]] += (double)m->E / m->K / n;
    }
    for (int e = 0; e < m->E; e++) {
        loss += f[e] * P[e];
        g[e] = (float)(m->b->o->balance_alpha * m->b->o->balance_scale * f[e] / n);
    }
    return loss;
}

static double balance_loss(hd_back *b, const hd_layer *l, float *g, int *doc_of)
{
    const hd_config *c = &b->p->m->cfg;
    size_t mark = b->work->used;
    moe m = {.b = b, .l = l, .K = c->n_experts_per_tok, .E = c->n_experts};
    double loss = 0;
    m.scratch = hd_back_take(b, m.E);
    for (int i = 0, row = 0; i < b->n_docs; row += b->len[i++]) {
        loss += balance_doc(&m, row, b->len[i], g + (int64_t)i * m.E);
        for (int r = row; doc_of && r < row + b->len[i]; r++) doc_of[r] = i;
    }
    b->work->used = mark;
    return loss;
}

static void shared_back(moe *s, const float *h)
{
    hd_back *b = s->b;
    const hd_ffn *f = &s->l->ffn;
    size_t mark = b->work->used;
    int M = b->p->M;
    int64_t S = f->gate.src.n, D = s->D;
    float *da = hd_back_take(b, M * S), *a = hd_back_take(b, M * S);
    hd_linear_mul(b->p->d, f->down.back, b->dx, D, M, da, S, b->work);
    hd_silu_mul_back(b->p->d, b->t->gate, b->t->up, a, da, b->t->gate, b->t->up, M, S);
    hd_mm_grad jobs[] = {hd_back_job(b, &f->down, a, S, b->dx, D, M), hd_back_job(b, &f->gate, h, D, b->t->gate, S, M),
                         hd_back_job(b, &f->up, h, D, b->t->up, S, M)};
    hd_back_grads(b, jobs, 3);
    hd_back_mul_add(b, &f->gate, b->t->gate, S, M, s->dh, D);
    hd_back_mul_add(b, &f->up, b->t->up, S, M, s->dh, D);
    b->work->used = mark;
}

/* y[slots of e] = (one of e's matrices)^T x[slots of e], all experts as jobs of one parallel region. */
static void experts_mul(moe *s, size_t offset, const float *x, int64_t k, float *y, int64_t n)
{
    hd_back *b = s->b;
    size_t mark = b->work->used;
    const int *first = b->t->first;
    hd_mm *job = hd_arena_take(b->work, (size_t)s->E * sizeof *job);
    hd_act act;
    const hd_linear *any = (const hd_linear *)(const void *)((const char *)&s->l->expert[0] + offset);
    int jobs = 0;
    hd_act_init(&act, hd_linear_act(b->p->d, any->back), k, b->p->M * s->K, b->work);
    hd_act_pack(b->p->d, &act, x, k);
    for (int e = 0; e < s->E; e++) {
        const hd_linear *w = (const hd_linear *)(const void *)((const char *)&s->l->expert[e] + offset);
        if (first[e + 1] > first[e])
            job[jobs++] = (hd_mm){w->back, &act, first[e], first[e + 1] - first[e], y + first[e] * n, n};
    }
    hd_mm_run(b->p->d, job, jobs);
    b->work->used = mark;
}

/* Which token a slot belongs to. */
static int *token_of_slots(moe *s)
{
    int n = s->b->p->M * s->K, *row = (int *)(void *)hd_back_take(s->b, n);
    for (int i = 0; i < n; i++) row[s->b->t->slot[i]] = i / s->K;
    return row;
}

static void experts_back(moe *s, const float *h)
{
    hd_back *b = s->b;
    const hd_layer_tape *t = b->t;
    int n = b->p->M * s->K, *row = token_of_slots(s), jobs = 0;
    hd_mm_grad *job = hd_arena_take(b->work, 3 * (size_t)s->E * sizeof *job);
    assert(job);
    hd_rows_run(b->p->d, b->p->M, gather_row, s);
    experts_mul(s, offsetof(hd_ffn, down), s->dslot, s->D, s->da, s->F);
    hd_rows_run(b->p->d, b->p->M, weigh_row, s);
    hd_silu_mul_back(b->p->d, t->egate, t->eup, NULL, s->da, t->egate, t->eup, n, s->F);
    for (int e = 0; e < s->E; e++) {
        const hd_ffn *f = &s->l->expert[e];
        int m0 = t->first[e], m = t->first[e + 1] - m0;
        if (m == 0) continue;
        job[jobs++] = hd_back_job(b, &f->down, s->a + m0 * s->F, s->F, s->dslot + m0 * s->D, s->D, m);
        job[jobs] = hd_back_job(b, &f->gate, h, s->D, t->egate + m0 * s->F, s->F, m);
        job[jobs++].x_row = row + m0;
        job[jobs] = hd_back_job(b, &f->up, h, s->D, t->eup + m0 * s->F, s->F, m);
        job[jobs++].x_row = row + m0;
    }
    hd_back_grads(b, job, jobs);
    experts_mul(s, offsetof(hd_ffn, gate), t->egate, s->F, s->dxe, s->D);
    experts_mul(s, offsetof(hd_ffn, up), t->eup, s->F, s->dslot, s->D); // dy is not needed any more
    hd_flat_add(b->p->d, s->dxe, s->dslot, n * s->D);
    hd_rows_run(b->p->d, b->p->M, scatter_row, s);
}

void hd_back_moe(hd_back *b, const hd_layer *l)
{
    hd_pass *p = b->p;
    const hd_config *c = &p->m->cfg;
    size_t mark = b->work->used;
    int M = p->M;
    moe s = {.b = b, .l = l, .K = c->n_experts_per_tok, .E = c->n_experts, .F = c->moe_ffn, .D = p->D};
    int64_t n = (int64_t)M * s.K;
    float *h = hd_back_norm(b, b->t->x_ffn, s.D, l->ffn_norm, M, s.D, c->norm_eps);
    s.dslot = hd_back_take(b, n * s.D);
    s.dxe = hd_back_take(b, n * s.D);
    s.da = hd_back_take(b, n * s.F);
    s.a = hd_back_take(b, n * s.F);
    s.dw = hd_back_take(b, n);
    s.dlogits = hd_back_take(b, (int64_t)M * s.E);
    s.dh = hd_back_take(b, M * s.D);
    s.scratch = hd_back_take(b, (int64_t)hd_pool_threads(p->d->pool) * 2 * s.E);
    if (b->o->balance_alpha > 0) {
        s.balance = hd_back_take(b, (int64_t)b->n_docs * s.E);
        s.doc_of = (int *)(void *)hd_back_take(b, M);
        b->r->balance_loss += balance_loss(b, l, s.balance, s.doc_of);
    }
    memset(s.dh, 0, (size_t)(M * s.D) * sizeof *s.dh);
    experts_back(&s, h);
    if (c->n_shared_experts > 0) shared_back(&s, h);

    hd_rows_run(p->d, M, router_row, &s);
    hd_mm_grad job = hd_back_job(b, &l->router, h, s.D, s.dlogits, s.E, M);
    hd_back_grads(b, &job, 1);
    hd_back_mul_add(b, &l->router, s.dlogits, s.E, M, s.dh, s.D);
    hd_back_norm_add(b, s.dh, b->t->x_ffn, l->ffn_norm);
    b->work->used = mark;
}
