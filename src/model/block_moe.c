/* Mixture of experts (DeepSeekMoE, arXiv:2401.06066): every token through the shared experts and through its
 * own few.
 *
 * Tokens are sorted by expert: a slot is one token's place in one expert's list, and the blobs of activations
 * are gathered by slot, so that an expert is one product over consecutive rows and all experts are jobs of
 * one parallel region.  A token's results are summed shared part first, then its experts in the order of
 * their scores: that order is the token's own, so company in the batch does not change its bits.
 *
 * With experts on ranks (ranks.h) the products run over rows, those of all ranks that chose an
 * expert of this one:
 *
 *   normed rows by slot -> route, dispatch -> rows -> gate, up, SwiGLU, down -> combine -> the same slots
 *
 * and a row meets the arithmetic that it would have met at home: its bits do not change. */
#include <assert.h>
#include <string.h>

#include "model/tape.h"

typedef struct {
    hd_pass *p;
    const hd_layer *l;
    int K, E;
    int64_t F, S;       // widths of a routed expert, of the shared ones together
    float *logits;      // [M, E]
    float *scratch;     // [threads, 2 E]
    int *id, *slot;     // [M, K]
    float *weight;      // [M, K]
    int *first;         // [E + 1] first slot of each expert
    int n;              // rows that this rank's experts multiply: the slots, or with ranks those that come
    int *run;           // [E + 1] first row of each expert
    float *normed;      // [M, D] with ranks
    float *rows;        // [n, D] with ranks
    float *gate, *up;   // [n, F]
    float *sgate, *sup; // [M, S]
    float *kept;        // [threads, max(F, S)] with a tape, which keeps the gates as they are; else NULL
    float *out;         // [n, D]; then, home again, [M K, D]
    hd_blobs h, slots;  // normed rows; the rows of experts
    hd_blobs act, sact; // inputs of the down products
} moe;

static void choose_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    hd_router_choose(&s->p->m->cfg, s->logits + row * s->E, s->l->router_bias, s->id + row * s->K,
                     s->weight + row * s->K, s->scratch + (int64_t)tid * 2 * s->E);
}

/* Count, then place: slots of an expert are in the order of rows. */
static void sort_by_expert(moe *s)
{
    int n = s->p->M * s->K, at = 0;
    memset(s->first, 0, ((size_t)s->E + 1) * sizeof *s->first);
    for (int i = 0; i < n; i++) s->first[s->id[i]]++;
    for (int e = 0; e < s->E; e++) {
        int count = s->first[e];
        s->first[e] = at;
        at += count;
    }
    for (int i = 0; i < n; i++) s->slot[i] = s->first[s->id[i]]++;
    for (int e = s->E; e > 0; e--) s->first[e] = s->first[e - 1];
    s->first[0] = 0;
}

static void gather_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    (void)tid;
    for (int kind = 0; kind < HD_N_ACT; kind++) {
        const hd_act *from = &s->h.act[kind], *to = &s->slots.act[kind];
        if (!s->slots.has[kind]) continue;
        for (int i = 0; i < s->K; i++)
            memcpy(to->data + (size_t)s->slot[row * s->K + i] * to->stride,
                   from->data + (size_t)row * from->stride, from->stride);
    }
}

typedef struct {
    const moe *s;
    float *slots; // [M K, D]
} send_job;

static void send_row(void *arg, int64_t row, int tid)
{
    const send_job *j = arg;
    const moe *s = j->s;
    int64_t D = s->p->D;
    (void)tid;
    for (int i = 0; i < s->K; i++)
        memcpy(j->slots + s->slot[row * s->K + i] * D, s->normed + row * D, (size_t)D * sizeof(float));
}

/* The experts' rows, then the shared ones'. */
static void swiglu_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    const hd_kernels *k = s->p->d->k;
    const bool shared = row >= s->n;
    const int64_t i = shared ? row - s->n : row, width = shared ? s->S : s->F;
    float *g = (shared ? s->sgate : s->gate) + i * width, *a = s->kept ? s->kept + tid * (s->F > s->S ? s->F : s->S) : g;
    k->silu_mul(a, g, (shared ? s->sup : s->up) + i * width, width);
    hd_blobs_row(shared ? &s->sact : &s->act, k, i, a);
}

static void combine_row(void *arg, int64_t row, int tid)
{
    const moe *s = arg;
    int64_t D = s->p->D;
    float *y = s->p->y + row * D;
    (void)tid;
    if (s->S == 0) memset(y, 0, (size_t)D * sizeof *y);
    for (int i = 0; i < s->K; i++)
        s->p->d->k->axpy(y, s->weight[row * s->K + i], s->out + s->slot[row * s->K + i] * D, D);
}

size_t hd_block_moe_bytes(const hd_config *c, int M)
{
    size_t E = (size_t)c->n_experts, K = (size_t)c->n_experts_per_tok, m = (size_t)M, F = (size_t)c->moe_ffn;
    size_t S = (size_t)c->n_shared_experts * F, D = (size_t)c->d_model;
    enum { MAX_THREADS = 1024 };
    return m * E * 4 + MAX_THREADS * 2 * E * 4 + m * K * 12 + (E + 1) * 4 + 2 * m * K * F * 4 +
           2 * m * S * 4 + m * K * D * 4 + hd_blobs_bytes(c->d_model, M) * (1 + K) +
           hd_blobs_bytes(c->moe_ffn, M) * K + hd_blobs_bytes((int64_t)S, M) + (2 * E + 2) * sizeof(hd_mm) +
           3 * E * sizeof(void *) + 64 * 64;
}

static void *take(hd_pass *p, size_t n)
{
    void *v = hd_arena_take(p->work, n);
    assert(v && "work arena planned too small");
    return v;
}

/* Blobs of k numbers that any expert's `offset` linear reads. */
static void blobs_of_experts(moe *s, hd_blobs *b, int64_t k, size_t offset1, size_t offset2)
{
    const hd_linear **w = take(s->p, 2 * (size_t)s->E * sizeof *w);
    for (int e = 0; e < s->E; e++) {
        w[2 * e] = (const hd_linear *)(const void *)((const char *)&s->l->expert[e] + offset1);
        w[2 * e + 1] = (const hd_linear *)(const void *)((const char *)&s->l->expert[e] + offset2);
    }
    hd_blobs_init(b, s->p, k, s->n, w, 2 * s->E);
}

/* All experts are here: their rows are the slots. */
static void blobs_of_slots(moe *s)
{
    s->n = s->p->M * s->K;
    s->run = s->first;
    blobs_of_experts(s, &s->slots, s->p->D, offsetof(hd_ffn, gate), offsetof(hd_ffn, up));
}

/* With ranks: what comes from all of them. */
static void meet(moe *s)
{
    hd_pass *p = s->p;
    send_job j = {s, hd_pass_take(p, (int64_t)p->M * s->K * p->D)};
    s->run = (int *)(void *)hd_pass_keep(p, s->E + 1);
    s->n = hd_ranks_route(p->m->ranks, s->first, s->run);
    s->rows = hd_pass_keep(p, s->n * p->D);
    hd_rows_run(p->d, p->M, send_row, &j);
    hd_ranks_dispatch(p->m->ranks, j.slots, s->rows, p->D);
    blobs_of_experts(s, &s->slots, p->D, offsetof(hd_ffn, gate), offsetof(hd_ffn, up));
    hd_blobs_pack(&s->slots, p, s->rows, p->D);
}

static void come_home(moe *s)
{
    hd_pass *p = s->p;
    float *slots = hd_pass_take(p, (int64_t)p->M * s->K * p->D);
    hd_ranks_combine(p->m->ranks, s->out, slots, p->D);
    s->out = slots;
}

/* The normed rows in every kind that the router, the shared and the routed experts read. */
static void norm_and_route(moe *s)
{
    hd_pass *p = s->p;
    const hd_layer *l = s->l;
    bool here = !p->m->ranks;
    const hd_linear *in[HD_N_ACT + 3] = {&l->router, &l->ffn.gate, &l->ffn.up};
    int n = 3;
    for (int kind = 0; kind < HD_N_ACT; kind++) // one expert for each kind that the slots need
        for (int e = 0; here && s->slots.has[kind] && e < s->E; e++) {
            const hd_linear *w = hd_linear_act(p->d, &l->expert[e].gate) == (hd_act_kind)kind
                                     ? &l->expert[e].gate
                                     : &l->expert[e].up;
            if (hd_linear_act(p->d, w) != (hd_act_kind)kind) continue;
            in[n++] = w;
            break;
        }
    hd_blobs_init(&s->h, p, p->D, p->M, in, n);
    if (!here) s->normed = hd_pass_take(p, p->M * p->D);
    hd_pass_norm(p, l->ffn_norm, &s->h, s->normed);
    if (p->tape) p->tape->x_ffn = p->x;
    hd_mm job = hd_blobs_job(&s->h, p, &l->router, 0, p->M, s->logits, s->E);
    hd_mm_run(p->d, &job, 1);
    hd_rows_run(p->d, p->M, choose_row, s);
    sort_by_expert(s);
    if (here) hd_rows_run(p->d, p->M, gather_row, s);
    else meet(s);
}

void hd_block_moe(hd_pass *p, const hd_layer *l)
{
    const hd_config *c = &p->m->cfg;
    moe s = {.p = p, .l = l, .K = c->n_experts_per_tok, .E = c->n_experts, .F = c->moe_ffn};
    s.S = c->n_shared_experts > 0 ? l->ffn.gate.src.n : 0;
    int M = p->M, jobs = 0;
    s.logits = hd_pass_keep(p, (int64_t)M * s.E);
    s.scratch = hd_pass_take(p, (int64_t)hd_pool_threads(p->d->pool) * 2 * s.E);
    s.id = (int *)(void *)hd_pass_keep(p, M * s.K); // an int is as wide as a float
    s.slot = (int *)(void *)hd_pass_keep(p, M * s.K);
    s.weight = hd_pass_keep(p, M * s.K);
    s.first = (int *)(void *)hd_pass_keep(p, s.E + 1);
    s.sgate = hd_pass_keep(p, M * s.S);
    s.sup = hd_pass_keep(p, M * s.S);
    hd_mm *job = take(p, (2 * (size_t)s.E + 2) * sizeof *job);
    if (!p->m->ranks) blobs_of_slots(&s);
    norm_and_route(&s);
    s.gate = hd_pass_keep(p, s.n * s.F);
    s.up = hd_pass_keep(p, s.n * s.F);
    if (p->tape) {
        hd_layer_tape *t = p->tape;
        t->logits = s.logits, t->id = s.id, t->slot = s.slot, t->weight = s.weight, t->first = s.first;
        t->run = s.run, t->rows = s.rows, t->egate = s.gate, t->eup = s.up, t->gate = s.sgate, t->up = s.sup;
        s.kept = hd_pass_take(p, hd_pool_threads(p->d->pool) * (s.F > s.S ? s.F : s.S));
    }
    s.out = hd_pass_take(p, s.n * p->D);
    blobs_of_experts(&s, &s.act, s.F, offsetof(hd_ffn, down), offsetof(hd_ffn, down));
    const hd_linear *sdown[] = {&l->ffn.down};
    if (s.S > 0) hd_blobs_init(&s.sact, p, s.S, M, sdown, 1);

    for (int e = 0; e < s.E; e++) {
        int m0 = s.run[e], m = s.run[e + 1] - m0;
        if (m == 0) continue;
        job[jobs++] = hd_blobs_job(&s.slots, p, &l->expert[e].gate, m0, m, s.gate + m0 * s.F, s.F);
        job[jobs++] = hd_blobs_job(&s.slots, p, &l->expert[e].up, m0, m, s.up + m0 * s.F, s.F);
    }
    if (s.S > 0) {
        job[jobs++] = hd_blobs_job(&s.h, p, &l->ffn.gate, 0, M, s.sgate, s.S);
        job[jobs++] = hd_blobs_job(&s.h, p, &l->ffn.up, 0, M, s.sup, s.S);
    }
    hd_mm_run(p->d, job, jobs);

    hd_rows_run(p->d, s.n + (s.S > 0 ? M : 0), swiglu_row, &s);
    jobs = 0;
    for (int e = 0; e < s.E; e++) {
        int m0 = s.run[e], m = s.run[e + 1] - m0;
        if (m > 0) job[jobs++] = hd_blobs_job(&s.act, p, &l->expert[e].down, m0, m, s.out + m0 * p->D, p->D);
    }
    if (s.S > 0) job[jobs++] = hd_blobs_job(&s.sact, p, &l->ffn.down, 0, M, p->y, p->D);
    hd_mm_run(p->d, job, jobs);
    if (p->m->ranks) come_home(&s);
    hd_rows_run(p->d, M, combine_row, &s);
    p->pending = true;
}
