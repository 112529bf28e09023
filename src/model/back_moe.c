/* The way back through the experts (block_moe.c).  With e the expert of a slot, m its token, w its weight:
 *
 *   da = down_e^T dy_m           (before the weight)      dw = da . a          since y_m += w down_e a
 *   ddown_e += dy_m (w a)^T      (dgate, dup) = w swiglu'(da)
 *   dh_m += gate_e^T dgate + up_e^T dup                   in the order of the token's slots, then the shared experts
 *
 * and through the router, whose choice is constant and whose scores are not:
 *
 *   w_i = scale s_i / (sum of the chosen s + 1e-20)  or  scale s_i;   s = sigmoid(z) or softmax(z)
 *
 * The balance loss of a sequence of T tokens (arXiv:2412.19437, eq. 17-20; arXiv:2405.04434, eq. 23-25) reads
 * the scores of all experts, normalised to sum 1:  L = alpha sum_i f_i P_i,  f_i = E / (K T) (tokens sent to
 * i),  P_i = mean of s'_i.
 *
 * With experts on ranks dy and w travel where the rows went, dh and dw come back; an expert's gradients are
 * summed over the rows of all ranks at once, and are whole. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/back.h"
#include "model/tape.h"

typedef struct {
    hd_back *b;
    const hd_layer *l;
    int K, E;
    int64_t F, D;
    int n;            // rows of this rank's experts: slots, or with ranks what came
    float *dslot;     // [n, D] dy of a row's token, or NULL: dy.act alone
    const hd_act *dx; // the stream's gradient as experts read it; NULL: dslot
    hd_side dy;       // [n, D] dslot
    float *w, *dw;    // [n] its weight; dw comes home by slot
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
        if (s->dx) memcpy(s->dy.act->data + (size_t)slot * s->dx->stride, s->dx->data + (size_t)row * s->dx->stride, s->dx->stride);
        else memcpy(s->dslot + slot * s->D, s->b->dx + row * s->D, (size_t)s->D * sizeof(float));
        s->w[slot] = s->b->t->weight[row * s->K + i];
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

/* y[rows of e] = sum of up to two of e's matrices^T x[rows of e], all experts as jobs of one
 * parallel region. */
static void experts_sum(moe *s, const size_t *offset, const hd_side *x, int n_terms, float *y, int64_t n)
{
    hd_back *b = s->b;
    size_t mark = b->work->used;
    const int *run = b->t->run;
    hd_mm *job = hd_arena_take(b->work, (size_t)(n_terms * s->E) * sizeof *job);
    int jobs = 0;
    assert(job);
    for (int e = 0; e < s->E; e++)
        for (int i = 0; i < n_terms && run[e + 1] > run[e]; i++) {
            const hd_linear *w = (const hd_linear *)(const void *)((const char *)&s->l->expert[e] + offset[i]);
            job[jobs++] = (hd_mm){w->back, x[i].act, run[e], run[e + 1] - run[e], y + run[e] * n, n, .n_more = i == 0 ? n_terms - 1 : 0};
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

/* Arrays of n rows. */
static void take_rows(moe *s, int n)
{
    s->n = n;
    s->dslot = s->dx ? NULL : hd_back_take(s->b, n * s->D);
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

/* An expert that has rows, whose matrices read what those of all experts read; NULL: none. */
static const hd_ffn *one_of(const moe *s)
{
    const int *run = s->b->t->run;
    for (int e = 0; e < s->E; e++)
        if (run[e + 1] > run[e]) return &s->l->expert[e];
    return NULL;
}

/* dy of all rows, here or where ranks have sent it. */
static void bring_dy(moe *s, moe *home)
{
    hd_back *b = s->b;
    const hd_ffn *f = one_of(s);
    const bool gathers = hd_back_by_act(b, f) && !b->p->m->ranks; // rows as they are read, not in f32
    hd_side dx = hd_side_of(b->dx, s->D);
    if (gathers) hd_back_pack(b, &dx, &(const hd_linear *){f->down.back}, 1, b->p->M);
    s->dx = dx.act;
    take_rows(s, b->p->M * s->K);
    if (gathers) s->dy.act = hd_back_act(b, f->down.back, s->n);
    hd_rows_run(b->p->d, b->p->M, gather_row, s);
    if (b->p->m->ranks) go_out(s, home);
    if (gathers) return;
    s->dy = hd_side_of(s->dslot, s->D);
    if (f) hd_back_pack(b, &s->dy, &(const hd_linear *){f->down.back}, 1, s->n);
}

static hd_side from_row(hd_side s, int64_t m0)
{
    s.m0 = m0;
    return s;
}

static void experts_back(moe *s, hd_side h)
{
    static const size_t down = offsetof(hd_ffn, down), both[] = {offsetof(hd_ffn, gate), offsetof(hd_ffn, up)};
    hd_back *b = s->b;
    const hd_layer_tape *t = b->t;
    hd_side mid[3]; // [n, F] dgate, dup, w a
    int *row = t->rows ? NULL : token_of_slots(s), jobs = 0;
    moe home;
    hd_mm_grad *job = hd_arena_take(b->work, 3 * (size_t)s->E * sizeof *job);
    assert(job);
    bring_dy(s, &home);
    float *da = hd_back_take(b, s->n * s->F);
    hd_swiglu_grad g = hd_back_swiglu_of(b, one_of(s), t->egate, t->eup, da, s->n, s->F, mid);
    g.weight = s->w, g.dw = s->dw; // where a row's weight meets its gradient
    experts_sum(s, &down, &s->dy, 1, da, s->F);
    hd_swiglu_back(b->p->d, &g);
    for (int e = 0; e < s->E; e++) {
        const hd_ffn *f = &s->l->expert[e];
        int m0 = t->run[e], m = t->run[e + 1] - m0;
        const hd_side x = t->rows ? from_row(hd_side_of(t->rows, s->D), m0) : h;
        if (m == 0) continue;
        job[jobs++] = hd_back_job(b, &f->down, from_row(mid[2], m0), from_row(s->dy, m0), m);
        job[jobs] = hd_back_job(b, &f->gate, x, from_row(mid[0], m0), m);
        job[jobs++].x_row = row ? row + m0 : NULL;
        job[jobs] = hd_back_job(b, &f->up, x, from_row(mid[1], m0), m);
        job[jobs++].x_row = row ? row + m0 : NULL;
    }
    hd_back_grads(b, job, jobs);
    experts_sum(s, both, mid, 2, s->dxe, s->D);
    if (b->p->m->ranks) come_home(s, &home);
    hd_rows_run(b->p->d, b->p->M, scatter_row, s);
}

void hd_back_moe(hd_back *b, const hd_layer *l)
{
    hd_pass *p = b->p;
    const hd_config *c = &p->m->cfg;
    size_t mark = b->work->used;
    int M = p->M;
    moe s = {.b = b, .l = l, .K = c->n_experts_per_tok, .E = c->n_experts, .F = c->moe_ffn, .D = p->D};
    const hd_linear *reader = c->n_shared_experts > 0 ? &l->ffn.gate : p->m->ranks ? &l->router : &l->expert[0].gate;
    const hd_side h = hd_back_norm(b, b->t->x_ffn, s.D, l->ffn_norm, reader, M, c->norm_eps, true);
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
    if (c->n_shared_experts > 0) hd_back_swiglu(b, &l->ffn, h, s.dh, true);

    hd_rows_run(p->d, M, router_row, &s);
    hd_side dz = hd_side_of(s.dlogits, s.E);
    hd_back_mul(b, &(const hd_linear *){&l->router}, &dz, 1, M, s.dh, s.D, true);
    hd_mm_grad job = hd_back_job(b, &l->router, h, dz, M);
    hd_back_grads(b, &job, 1);
    hd_back_norm_add(b, s.dh, b->t->x_ffn, l->ffn_norm);
    b->work->used = mark;
}
