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
 * of all experts, normalised to sum 1:  L = alpha sum_i f_i P_i,  f_i = E / (K T) (tokens sent to i),  P_i = mean of s'_i.
 *
 * With experts on ranks dy and w travel where the rows went, dh and dw come back; an expert's gradients are summed over the
 * rows of all ranks at once, and are whole. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/tape.h"

typedef struct {
    hd_back *b;
    const hd_layer *l;
    int K, E;
    int64_t F, D;
    int n;            // rows of this rank's experts: slots, or with ranks what came
    float *dslot;     // [n, D] dy of a row's token
    float *w, *dw;    // [n] its weight; dw comes home by slot
    float *da, *a;    // [n, F]
    float *dlogits;   // [M, E]
    float *dh, *dxe;  // [M, D]; [n, D] what experts send back, which comes home by slot
    float *balance;   // [n_docs, E] dL/ds' of one token of each document
    int *doc_of;      // [M]
    float *scratch;   // [threads, 2 E]
} moe;

static void gather_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    (void)tid;
    for (int i = 0; i < s->K; i++) {
        int slot = s->b->t->slot[row * s->K + i];
        memcpy(s->dslot + slot * s->D, s->b->dx + row * s->D, (size_t)s->D * sizeof(float));
        s->w[slot] = s->b->t->weight[row * s->K + i];
    }
}

/* A row's weight meets its gradient: dw = da . a, then da and a are scaled. */
static void weigh_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    float *da = s->da + row * s->F, *a = s->a + row * s->F, w = s->w[row], sum = 0;
    const float *gate = s->b->t->egate + row * s->F, *up = s->b->t->eup + row * s->F;
    (void)tid;
    s->b->p->d->k->silu_mul(a, gate, up, s->F);
    for (int64_t f = 0; f < s->F; f++) sum += da[f] * a[f];
    for (int64_t f = 0; f < s->F; f++) da[f] *= w, a[f] *= w;
    s->dw[row] = sum;
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
    const int *id = t->id + row * m->K, *slot = t->slot + row * m->K;
    float *s = m->scratch + (int64_t)tid * 2 * m->E, *ds = s + m->E, *dz = m->dlogits + row * m->E, sum = 0, mean = 0;
    scores(c, t->logits + row * m->E, s);
    memset(ds, 0, (size_t)m->E * sizeof *ds);
    for (int i = 0; i < m->K; i++) sum += s[id[i]];
    if (c->norm_topk_prob) { // w_i = scale s_i / sum
        for (int i = 0; i < m->K; i++) mean += m->dw[slot[i]] * s[id[i]];
        mean /= sum + 1e-20f;
        for (int i = 0; i < m->K; i++) ds[id[i]] += c->routed_scaling / (sum + 1e-20f) * (m->dw[slot[i]] - mean);
    } else {
        for (int i = 0; i < m->K; i++) ds[id[i]] += c->routed_scaling * m->dw[slot[i]];
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
    const hd_term both[] = {{f->gate.back, b->t->gate, S}, {f->up.back, b->t->up, S}};
    hd_linear_sum(b->p->d, both, 2, M, s->dh, D, true, b->work);
    b->work->used = mark;
}

/* y[rows of e] = sum of up to two of e's matrices^T x[rows of e], all experts as jobs of one parallel region. */
static void experts_sum(moe *s, const size_t *offset, const float *const *x, int n_terms, int64_t k, float *y, int64_t n)
{
    hd_back *b = s->b;
    size_t mark = b->work->used;
    const int *run = b->t->run;
    hd_mm *job = hd_arena_take(b->work, (size_t)(n_terms * s->E) * sizeof *job);
    hd_act act[2];
    hd_term term[2];
    int jobs = 0;
    assert(job && n_terms <= 2);
    for (int e = 0; e < s->E; e++)
        for (int i = 0; i < n_terms && run[e + 1] > run[e]; i++) {
            const hd_linear *w = (const hd_linear *)(const void *)((const char *)&s->l->expert[e] + offset[i]);
            if (jobs == i) { // all experts' kind
                hd_act_init(&act[i], hd_linear_act(b->p->d, w->back), k, s->n, b->work);
                term[i] = (hd_term){.x = x[i], .ldx = k};
            }
            job[jobs++] = (hd_mm){w->back, &act[i], run[e], run[e + 1] - run[e], y + run[e] * n, n, .n_more = i == 0 ? n_terms - 1 : 0};
        }
    if (jobs > 0) hd_acts_pack(b->p->d, act, term, n_terms);
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

/* Arrays of n rows. */
static void take_rows(moe *s, int n)
{
    s->n = n;
    s->dslot = hd_back_take(s->b, n * s->D);
    s->dxe = hd_back_take(s->b, n * s->D);
    s->w = hd_back_take(s->b, n);
    s->dw = hd_back_take(s->b, n);
}

/* With ranks: to where the rows went in the forward pass. */
static void go_out(moe *s, moe *home)
{
    hd_ranks *x = s->b->p->m->ranks;
    *home = *s;
    take_rows(s, hd_ranks_route(x, s->b->t->first, s->b->t->run));
    hd_ranks_dispatch(x, home->dslot, s->dslot, s->D);
    hd_ranks_dispatch(x, home->w, s->w, 1);
}

static void come_home(moe *s, const moe *home)
{
    hd_ranks *x = s->b->p->m->ranks;
    hd_ranks_combine(x, s->dxe, home->dxe, s->D);
    hd_ranks_combine(x, s->dw, home->dw, 1);
    *s = *home;
}

static void experts_back(moe *s, const float *h)
{
    static const size_t down = offsetof(hd_ffn, down), both[] = {offsetof(hd_ffn, gate), offsetof(hd_ffn, up)};
    hd_back *b = s->b;
    const hd_layer_tape *t = b->t;
    hd_dev *d = b->p->d;
    int *row = t->rows ? NULL : token_of_slots(s), jobs = 0;
    moe home;
    hd_mm_grad *job = hd_arena_take(b->work, 3 * (size_t)s->E * sizeof *job);
    assert(job);
    take_rows(s, b->p->M * s->K);
    hd_rows_run(d, b->p->M, gather_row, s);
    if (b->p->m->ranks) go_out(s, &home);
    s->da = hd_back_take(b, s->n * s->F);
    s->a = hd_back_take(b, s->n * s->F);
    experts_sum(s, &down, (const float *const[]){s->dslot}, 1, s->D, s->da, s->F);
    hd_rows_run(d, s->n, weigh_row, s);
    hd_silu_mul_back(d, t->egate, t->eup, NULL, s->da, t->egate, t->eup, s->n, s->F);
    for (int e = 0; e < s->E; e++) {
        const hd_ffn *f = &s->l->expert[e];
        int m0 = t->run[e], m = t->run[e + 1] - m0;
        const float *x = t->rows ? t->rows + m0 * s->D : h;
        if (m == 0) continue;
        job[jobs++] = hd_back_job(b, &f->down, s->a + m0 * s->F, s->F, s->dslot + m0 * s->D, s->D, m);
        job[jobs] = hd_back_job(b, &f->gate, x, s->D, t->egate + m0 * s->F, s->F, m);
        job[jobs++].x_row = row ? row + m0 : NULL;
        job[jobs] = hd_back_job(b, &f->up, x, s->D, t->eup + m0 * s->F, s->F, m);
        job[jobs++].x_row = row ? row + m0 : NULL;
    }
    hd_back_grads(b, job, jobs);
    experts_sum(s, both, (const float *const[]){t->egate, t->eup}, 2, s->F, s->dxe, s->D);
    if (b->p->m->ranks) come_home(s, &home);
    hd_rows_run(d, b->p->M, scatter_row, s);
}

void hd_back_moe(hd_back *b, const hd_layer *l)
{
    hd_pass *p = b->p;
    const hd_config *c = &p->m->cfg;
    size_t mark = b->work->used;
    int M = p->M;
    moe s = {.b = b, .l = l, .K = c->n_experts_per_tok, .E = c->n_experts, .F = c->moe_ffn, .D = p->D};
    float *h = hd_back_norm(b, b->t->x_ffn, s.D, l->ffn_norm, M, s.D, c->norm_eps);
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
    const hd_term router = {l->router.back, s.dlogits, s.E};
    hd_linear_sum(p->d, &router, 1, M, s.dh, s.D, true, b->work);
    hd_back_norm_add(b, s.dh, b->t->x_ffn, l->ffn_norm);
    b->work->used = mark;
}
