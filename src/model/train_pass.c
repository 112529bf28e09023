/* Forward and backward of one micro-batch.
 *
 *   forward      the blocks of the one forward pass, each document a sequence of its own in the training
 *                cache, so that attention never crosses a document; the tape keeps what derivatives read
 *   loss         rows with a target, in slices: logits of a slice become their own gradient and are gone
 *                before the next
 *   backward     layer by layer from the last; the residual stream's gradient is one array that every block
 *                adds to
 *
 * With `recompute` the tape holds each layer's input alone, and a layer runs forward again just
 * before its way back.
 *
 * With experts on ranks every rank makes the same passes: one that has no micro-batch left, or no row for the
 * MTP layer, goes the same way without rows, so that its experts meet those of the others. */
#include "model/train_pass.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/tape.h"

enum { SLICE_BYTES = 16 << 20, SLICE_LEAST = 64, SLICE_MOST = 1024 };

typedef struct {
    hd_model *m;
    struct hd_train *t;
    const hd_micro *b;
    const hd_pass_opts *o;
    hd_pass_result *r;
    hd_pass p;
    hd_layer_tape *tape; // [n_layer]
    float **input;       // [n_layers + 1] with recompute: each layer's x
    float *x_last;       // what the final norm read
    float *hidden, *dhidden; // [M, D] after the final norm, and its gradient
} run;

/* ---- Sequences ----------------------------------------------------------------------------------------- */

static hd_status check_micro(const hd_model *m, const hd_micro *b, hd_err *err)
{
    int64_t rows = 0;
    for (int i = 0; i < b->n_docs; i++) {
        if (b->len[i] < 1) return hd_fail(err, HD_USAGE, "train: document %d: no rows", i);
        rows += b->len[i];
    }
    if (rows != b->n_rows || b->n_rows < (m->ranks ? 0 : 1) || b->n_rows > m->max_rows)
        return hd_fail(err, HD_USAGE, "train: %d rows, %lld of documents: must be equal and 1..%d", b->n_rows, (long long)rows,
                       m->max_rows);
    for (int i = 0; i < b->n_rows; i++)
        if (b->target[i] < -1 || b->target[i] >= m->cfg.n_vocab)
            return hd_fail(err, HD_USAGE, "train: target %d: the vocabulary has 0..%lld", b->target[i], (long long)m->cfg.n_vocab - 1);
    return HD_OK;
}

int64_t hd_micro_mtp_targets(const hd_micro *b)
{
    int64_t n = 0;
    for (int i = 0, row = 0; i < b->n_docs; row += b->len[i++])
        for (int t = 0; t + 1 < b->len[i]; t++) n += b->target[row + t] >= 0 && b->target[row + t + 1] >= 0;
    return n;
}

/* ---- Loss ---------------------------------------------------------------------------------------------- */

typedef struct {
    run *u;
    const float *hidden;   // [M, D]
    float *dhidden;        // [M, D] added to, or NULL
    const int32_t *target; // [M]
    const int *row;        // [n] rows that have one, rising
    int n;
    float scale;
    bool main;             // else of the MTP layer
    double loss, distil;
} head_job;

typedef struct {
    const float *from;
    float *to;
    const int *row;
    int64_t D;
} move;

static void gather(void *arg, int64_t i, int tid)
{
    const move *m = arg;
    (void)tid;
    memcpy(m->to + i * m->D, m->from + m->row[i] * m->D, (size_t)m->D * sizeof(float));
}

typedef struct {
    const hd_kernels *k;
    const float *from;
    float *to;
    const int *row;
    int64_t D;
} spread;

static void scatter_add(void *arg, int64_t i, int tid)
{
    const spread *s = arg;
    (void)tid;
    s->k->add(s->to + s->row[i] * s->D, s->from + i * s->D, s->D);
}

typedef struct {
    float *z;
    const float *z2, *weight;
    int64_t V;
    float a, b; // z = weight (a z + b z2)
} blend;

static void blend_row(void *arg, int64_t i, int tid)
{
    const blend *j = arg;
    float *z = j->z + i * j->V, w = j->weight ? j->weight[i] : 1;
    (void)tid;
    for (int64_t v = 0; v < j->V; v++) z[v] = w * (j->a * z[v] + (j->z2 ? j->b * j->z2[i * j->V + v] : 0));
}

static double sum_of(const float *x, const float *weight, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++) s += weight ? (double)weight[i] * x[i] : x[i];
    return s;
}

/* Cross-entropy, and against a teacher; logits [n, V] become their gradient, which act takes, too,
 * if there is one. */
static void slice_loss(head_job *j, hd_arena *work, float *logits, int first, int n, hd_act *act)
{
    run *u = j->u;
    hd_dev *d = &u->m->dev;
    const hd_micro *b = u->b;
    int64_t V = u->m->cfg.n_vocab;
    int32_t *target = hd_arena_take(work, (size_t)n * sizeof *target);
    float *loss = hd_arena_take(work, (size_t)n * sizeof *loss), *weight = NULL, *z2 = NULL;
    bool distil = j->main && b->teacher_id && u->o->distil_weight > 0;
    float temperature = u->o->temperature > 0 ? u->o->temperature : 1;
    assert(target && loss);
    for (int i = 0; i < n; i++) target[i] = j->target[j->row[first + i]];
    if (j->main && b->weight) {
        weight = hd_arena_take(work, (size_t)n * sizeof *weight);
        assert(weight);
        for (int i = 0; i < n; i++) weight[i] = b->weight[j->row[first + i]];
    }
    if (distil) {
        float *dloss = hd_arena_take(work, (size_t)n * sizeof *dloss);
        int32_t *id = hd_arena_take(work, (size_t)n * (size_t)b->n_top * sizeof *id);
        float *lp = hd_arena_take(work, (size_t)n * (size_t)b->n_top * sizeof *lp);
        z2 = hd_arena_take(work, (size_t)n * (size_t)V * sizeof *z2);
        assert(dloss && id && lp && z2);
        memcpy(z2, logits, (size_t)n * (size_t)V * sizeof *z2);
        for (int i = 0; i < n; i++) {
            size_t at = (size_t)j->row[first + i] * (size_t)b->n_top;
            memcpy(id + i * b->n_top, b->teacher_id + at, (size_t)b->n_top * sizeof *id);
            memcpy(lp + i * b->n_top, b->teacher_logp + at, (size_t)b->n_top * sizeof *lp);
        }
        hd_distil_back(d, z2, V, id, lp, b->n_top, temperature, n, V, j->scale, dloss);
        j->distil += sum_of(dloss, weight, n);
    }
    hd_xent_back(d, logits, V, target, n, V, j->scale, j->main ? u->o->zloss : 0, loss, NULL, weight || z2 ? NULL : act);
    j->loss += sum_of(loss, weight, n);
    if (j->main && u->r->row_loss)
        for (int i = 0; i < n; i++) u->r->row_loss[j->row[first + i]] = loss[i];
    if (weight || z2) {
        blend bl = {logits, z2, weight, V, z2 ? 1 - u->o->distil_weight : 1, u->o->distil_weight};
        hd_rows_run(d, n, blend_row, &bl);
        if (act) hd_act_pack(d, act, logits, V);
    }
}

/* The loss of rows, by slices; when dhidden is wanted their gradients, and the head's. */
static void head_loss(head_job *j, hd_back *back)
{
    hd_model *m = j->u->m;
    hd_dev *d = &m->dev;
    hd_arena *work = &j->u->t->work;
    const hd_linear *head = &m->w.head;
    int64_t V = m->cfg.n_vocab, D = m->cfg.d_model, slice = SLICE_BYTES / (V * 4);
    slice = slice < SLICE_LEAST ? SLICE_LEAST : slice > SLICE_MOST ? SLICE_MOST : slice;
    for (int at = 0; at < j->n; at += (int)slice) {
        size_t mark = work->used;
        int n = j->n - at < slice ? j->n - at : (int)slice;
        float *h = hd_arena_take(work, (size_t)(n * D) * sizeof *h), *logits = hd_arena_take(work, (size_t)(n * V) * sizeof *logits);
        assert(h && logits);
        move in = {j->hidden, h, j->row + at, D};
        hd_rows_run(d, n, gather, &in);
        hd_side x = hd_side_of(h, D);
        hd_back_pack(back, &x, &head, 1, n);
        const hd_mm up = {.w = head, .act = x.act, .M = n, .y = logits, .ldy = V};
        hd_mm_run(d, &up, 1);
        hd_act *act = j->dhidden ? hd_back_act(back, head->back, n) : NULL;
        slice_loss(j, work, logits, at, n, act);
        if (j->dhidden) {
            hd_side dz = {logits, V, act, 0};
            hd_mm_grad job = hd_back_job(back, head, x, dz, n);
            hd_back_grads(back, &job, 1);
            hd_back_mul(back, &head, &dz, 1, n, h, D, false);
            spread out = {d->k, h, j->dhidden, j->row + at, D};
            hd_rows_run(d, n, scatter_add, &out);
        }
        work->used = mark;
    }
}

/* Rows of target[] that have one, into work memory. */
static int *rows_with_target(hd_arena *work, const int32_t *target, int M, int *n)
{
    int *row = hd_arena_take(work, (size_t)M * sizeof *row);
    assert(row);
    *n = 0;
    for (int i = 0; i < M; i++)
        if (target[i] >= 0) row[(*n)++] = i;
    return row;
}

/* ---- Embedding ----------------------------------------------------------------------------------------- */

enum { EMBED_COLS = 16 }; // a thread takes whole cache lines of every row

typedef struct {
    float *g;
    const float *dx;
    const int32_t *tok;
    int64_t M, D;
} embed_job;

static void embed_cols(void *arg, int64_t chunk, int tid)
{
    const embed_job *j = arg;
    int64_t c0 = chunk * EMBED_COLS, c1 = c0 + EMBED_COLS < j->D ? c0 + EMBED_COLS : j->D;
    (void)tid;
    for (int64_t row = 0; row < j->M; row++) {
        float *g = j->g + j->tok[row] * j->D;
        const float *dx = j->dx + row * j->D;
        for (int64_t c = c0; c < c1; c++) g[c] += dx[c];
    }
}

static void embed_back(hd_back *b, const float *dx, const int32_t *tok, int64_t M)
{
    const hd_model *m = b->p->m;
    if (m->train->lora) return; // the embedding is not trained
    embed_job j = {hd_grad_of(b, (const float *)(const void *)m->w.embed.data), dx, tok, M, m->cfg.d_model};
    hd_pool_run(m->dev.pool, (j.D + EMBED_COLS - 1) / EMBED_COLS, embed_cols, &j);
}

/* ---- Layers -------------------------------------------------------------------------------------------- */

static void layer_forward(run *u, hd_pass *p, int il)
{
    p->tape = p->kept ? &u->tape[il] : NULL;
    if (p->M > 0) hd_pass_attention(p, il);
    if (p->M > 0 || u->m->layer[il].moe) hd_pass_ffn(p, il);
    p->tape = NULL;
}

static void count_load(run *u, int il)
{
    const hd_config *c = &u->m->cfg;
    const hd_layer_tape *t = &u->tape[il];
    if (!u->r->load || !u->m->layer[il].moe) return;
    for (int e = 0; e < c->n_experts; e++) u->r->load[(int64_t)il * c->n_experts + e] += t->first[e + 1] - t->first[e];
}

static void layer_back(run *u, hd_back *b, int il)
{
    const hd_layer *l = &u->m->layer[il];
    b->t = &u->tape[il];
    b->il = il;
    if (l->moe) hd_back_moe(b, l);
    else if (b->p->M > 0) hd_back_ffn(b, l);
    if (b->p->M == 0) return;
    if (u->m->cfg.kv_lora_rank > 0) hd_back_mla(b, l);
    else hd_back_gqa(b, l);
}

/* The last block's output joins the stream, in a place of its own. */
static void settle(hd_pass *p, float *to)
{
    memcpy(to, p->x, (size_t)(p->M * p->D) * sizeof *to);
    if (p->pending) hd_flat_add(p->d, to, p->y, p->M * p->D);
    p->x = to;
    p->pending = false;
}

static void forward(run *u)
{
    hd_pass *p = &u->p;
    int L = u->m->cfg.n_layers;
    bool light = u->o->recompute && p->kept;
    if (light) {
        u->input[0] = p->x;
        for (int il = 1; il <= L; il++) u->input[il] = hd_pass_keep(p, p->M * p->D);
    }
    for (int il = 0; il < L; il++) {
        size_t mark = u->t->tape.used;
        layer_forward(u, p, il);
        if (p->kept) count_load(u, il);
        if (!light) continue;
        settle(p, u->input[il + 1]);
        u->t->tape.used = mark;
    }
    u->hidden = hd_pass_keep(p, p->M * p->D);
    hd_pass_norm(p, u->m->w.out_norm, NULL, u->hidden);
    u->x_last = p->x;
}

static void backward(run *u, hd_back *b)
{
    hd_pass *p = &u->p;
    int64_t D = p->D;
    hd_rmsnorm_back(p->d, b->dx, D, false, hd_grad_of(b, u->m->w.out_norm), u->dhidden, D, u->x_last, D, u->m->w.out_norm, p->M, D,
                    u->m->cfg.norm_eps, b->work);
    for (int il = u->m->cfg.n_layers - 1; il >= 0; il--) {
        size_t mark = u->t->tape.used;
        if (u->o->recompute) {
            p->x = u->input[il];
            p->pending = false;
            layer_forward(u, p, il);
        }
        layer_back(u, b, il);
        u->t->tape.used = mark;
    }
    embed_back(b, b->dx, p->b->tok, p->M);
}

/* ---- Multi-token prediction ---------------------------------------------------------------------------- */

/* The rows of the extra layer: row t of a document joins its state with the id at t + 1 and
 * predicts the one after. */
typedef struct {
    hd_batch b;
    hd_pass p;
    int *len, n_docs; // of documents with two rows or more
    int *row;         // [M2] the main row
    int32_t *target;  // [M2]
    float *embed, *joined; // [M2, D], [M2, 2 D]
} mtp_state;

static void *keep(run *u, size_t n)
{
    void *v = hd_arena_take(u->p.kept ? u->p.kept : &u->t->work, n);
    assert(v && "tape planned too small");
    return v;
}

static void mtp_rows(run *u, mtp_state *x)
{
    const hd_micro *b = u->b;
    const hd_pass *p = &u->p;
    int n_pairs = u->m->rope.n_pairs, M2 = 0;
    int32_t *tok = keep(u, (size_t)b->n_rows * sizeof *tok), *pos = keep(u, (size_t)b->n_rows * sizeof *pos);
    int *seq_of = keep(u, (size_t)b->n_rows * sizeof *seq_of);
    hd_seq **seq = keep(u, (size_t)b->n_docs * sizeof *seq);
    float *cs = keep(u, (size_t)b->n_rows * 2 * (size_t)n_pairs * sizeof *cs);
    x->len = keep(u, (size_t)b->n_docs * sizeof *x->len);
    x->row = keep(u, (size_t)b->n_rows * sizeof *x->row);
    x->target = keep(u, (size_t)b->n_rows * sizeof *x->target);
    hd_attn_seq *aseq = keep(u, (size_t)b->n_docs * sizeof *aseq);
    for (int i = 0, first = 0; i < b->n_docs; first += b->len[i++]) {
        if (b->len[i] < 2) continue;
        aseq[x->n_docs] = (hd_attn_seq){.row0 = M2, .n_rows = b->len[i] - 1};
        seq[x->n_docs] = p->b->seq[i];
        for (int t = 0; t + 1 < b->len[i]; t++, M2++) {
            int row = first + t;
            x->row[M2] = row;
            tok[M2] = b->tok[row + 1];
            pos[M2] = t;
            seq_of[M2] = x->n_docs;
            x->target[M2] = b->target[row] >= 0 ? b->target[row + 1] : -1;
            memcpy(cs + (int64_t)M2 * 2 * n_pairs, p->cs + (int64_t)row * 2 * n_pairs, 2 * (size_t)n_pairs * sizeof *cs);
        }
        x->len[x->n_docs++] = b->len[i] - 1;
    }
    x->b = (hd_batch){.n_rows = M2, .tok = tok, .n_seqs = x->n_docs, .n_of = x->len, .seq = seq};
    x->p = *p;
    x->p.b = &x->b;
    x->p.M = M2;
    x->p.pos = pos;
    x->p.seq_of = seq_of;
    x->p.cs = cs;
    x->p.aseq = aseq;
    x->p.pending = false;
}

typedef struct {
    run *u;
    mtp_state *x;
    const hd_layer *l;
} join_job;

static void join_row(void *arg, int64_t row, int tid)
{
    const join_job *j = arg;
    const hd_kernels *k = j->u->m->dev.k;
    int64_t D = j->x->p.D;
    float *e = j->x->embed + row * D, *to = j->x->joined + row * 2 * D, eps = j->u->m->cfg.norm_eps;
    (void)tid;
    hd_rows_decode(&j->u->m->w.embed, j->x->b.tok[row], e);
    k->rmsnorm(to, e, j->l->enorm, D, eps);
    k->rmsnorm(to + D, j->u->hidden + j->x->row[row] * D, j->l->hnorm, D, eps);
}

/* Back from the layer's input to the embeddings and to the main model's states. */
static void unjoin(run *u, mtp_state *x, hd_back *b, const hd_layer *l)
{
    hd_dev *d = x->p.d;
    int64_t D = x->p.D;
    int M = x->p.M;
    float eps = u->m->cfg.norm_eps;
    float *dj = hd_back_take(b, M * 2 * D), *de = hd_back_take(b, M * D), *h = hd_back_take(b, M * D);
    hd_side dy = hd_side_of(b->dx, D);
    hd_back_mul(b, &(const hd_linear *){&l->eh_proj}, &dy, 1, M, dj, 2 * D, false);
    hd_mm_grad job = hd_back_job(b, &l->eh_proj, hd_side_of(x->joined, 2 * D), dy, M);
    hd_back_grads(b, &job, 1);
    hd_rmsnorm_back(d, de, D, false, hd_grad_of(b, l->enorm), dj, 2 * D, x->embed, D, l->enorm, M, D, eps, b->work);
    embed_back(b, de, x->b.tok, M);
    move in = {u->hidden, h, x->row, D};
    hd_rows_run(d, M, gather, &in);
    hd_rmsnorm_back(d, de, D, false, hd_grad_of(b, l->hnorm), dj + D, 2 * D, h, D, l->hnorm, M, D, eps, b->work);
    spread out = {d->k, de, u->dhidden, x->row, D};
    hd_rows_run(d, M, scatter_add, &out);
}

/* The extra layer forward, its loss, and its way back: what it adds to the main model's states is in
 * dhidden after it. */
static void mtp_pass(run *u)
{
    hd_model *m = u->m;
    int il = m->cfg.n_layers, n;
    const hd_layer *l = &m->layer[il];
    hd_arena *work = &u->t->work;
    size_t tape_mark = u->t->tape.used, mark = work->used;
    const float *norm = l->head_norm ? l->head_norm : m->w.out_norm;
    mtp_state x = {0};
    mtp_rows(u, &x);
    int M = x.p.M;
    int64_t D = x.p.D;
    if (M == 0 && !m->ranks) return;
    x.embed = keep(u, (size_t)(M * D) * sizeof *x.embed);
    x.joined = keep(u, (size_t)(M * 2 * D) * sizeof *x.joined);
    x.p.x = keep(u, (size_t)(M * D) * sizeof *x.p.x);
    join_job j = {u, &x, l};
    hd_rows_run(x.p.d, M, join_row, &j);
    hd_linear_mul(x.p.d, &l->eh_proj, x.joined, 2 * D, M, x.p.x, D, work);
    layer_forward(u, &x.p, il);
    if (x.p.kept) count_load(u, il);
    float *hidden = keep(u, (size_t)(M * D) * sizeof *hidden);
    hd_pass_norm(&x.p, norm, NULL, hidden);

    hd_back b = {.p = &x.p, .params = &u->t->params, .o = u->o, .r = u->r, .work = work, .len = x.len, .n_docs = x.n_docs};
    head_job head = {.u = u, .hidden = hidden, .target = x.target, .scale = u->o->mtp_weight * u->o->mtp_scale};
    head.row = rows_with_target(work, x.target, M, &n);
    head.n = n;
    if (u->o->backward) {
        head.dhidden = hd_back_take(&b, M * D);
        b.dx = hd_back_take(&b, M * D);
        memset(head.dhidden, 0, (size_t)(M * D) * sizeof(float));
    }
    head_loss(&head, &b);
    u->r->mtp_loss += head.loss;
    u->r->n_mtp += n;
    if (u->o->backward) {
        hd_rmsnorm_back(x.p.d, b.dx, D, false, hd_grad_of(&b, norm), head.dhidden, D, x.p.x, D, norm, M, D, m->cfg.norm_eps, work);
        layer_back(u, &b, il);
        unjoin(u, &x, &b, l);
    }
    u->t->tape.used = tape_mark;
    work->used = mark;
}

/* ---- The whole ----------------------------------------------------------------------------------------- */

static hd_status open_sequences(run *u, hd_seq **seq, hd_err *err)
{
    hd_status st = HD_OK;
    for (int i = 0; i < u->b->n_docs; i++) HD_TRY(hd_seq_open(&seq[i], u->t->cache, err));
fail:
    return st;
}

/* hd_pass_begin for no rows at all. */
static void begin_empty(hd_pass *p, hd_model *m, const hd_batch *b)
{
    hd_arena_reset(&m->work);
    *p = (hd_pass){.m = m, .d = &m->dev, .work = &m->work, .b = b, .D = m->cfg.d_model};
    p->x = p->y = hd_pass_take(p, 0);
}

static hd_status check_loss(const run *u, hd_err *err)
{
    double all = u->r->loss + u->r->mtp_loss + u->r->distil_loss;
    if (isfinite(all)) return HD_OK;
    return hd_fail(err, HD_FORMAT, "train: the loss is not finite: weights, a teacher's numbers or the learning rate are to blame");
}

hd_status hd_train_pass(hd_model *m, const hd_micro *b, const hd_pass_opts *o, hd_pass_result *r, hd_err *err)
{
    hd_status st;
    struct hd_train *t = m->train;
    run u = {.m = m, .t = t, .b = b, .o = o, .r = r};
    hd_seq **seq = NULL;
    int n;
    assert(t && "opened for training");
    HD_TRY(check_micro(m, b, err));
    HD_TRY(hd_alloc_n(&seq, (size_t)b->n_docs, sizeof *seq, err));
    HD_TRY(hd_alloc_n(&u.tape, (size_t)m->n_layer, sizeof *u.tape, err));
    HD_TRY(hd_alloc_n(&u.input, (size_t)m->n_layer + 1, sizeof *u.input, err));
    HD_TRY(open_sequences(&u, seq, err));
    hd_batch batch = {.n_rows = b->n_rows, .tok = b->tok, .n_seqs = b->n_docs, .n_of = b->len, .seq = seq};
    if (b->n_rows > 0) HD_TRY(hd_pass_begin(&u.p, m, &batch, err));
    else begin_empty(&u.p, m, &batch);
    hd_arena_reset(&t->tape);
    hd_arena_reset(&t->work);
    u.p.kept = o->backward ? &t->tape : NULL;
    u.p.round = hd_train_round(&m->cfg, t->precision, m->dev.k);
    forward(&u);

    hd_back back = {.p = &u.p, .params = &t->params, .o = o, .r = r, .work = &t->work, .len = b->len, .n_docs = b->n_docs};
    head_job head = {.u = &u, .hidden = u.hidden, .target = b->target, .scale = o->loss_scale, .main = true};
    head.row = rows_with_target(&t->work, b->target, b->n_rows, &n);
    head.n = n;
    if (o->backward) {
        back.dx = hd_back_take(&back, u.p.M * u.p.D);
        u.dhidden = head.dhidden = hd_back_take(&back, u.p.M * u.p.D);
        memset(u.dhidden, 0, (size_t)(u.p.M * u.p.D) * sizeof(float));
    }
    head_loss(&head, &back);
    r->loss += head.loss;
    r->distil_loss += head.distil;
    r->n_target += n;
    if (o->mtp_weight > 0 && m->cfg.n_mtp > 0) mtp_pass(&u);
    HD_TRY(hd_ranks_status(m->ranks, err));
    HD_TRY(check_loss(&u, err));
    if (o->backward) backward(&u, &back);
    HD_TRY(hd_ranks_status(m->ranks, err));
fail:
    for (int i = 0; seq && i < b->n_docs; i++) hd_seq_close(seq[i]);
    free(seq);
    free(u.tape);
    free(u.input);
    return st;
}

/* ---- Memory -------------------------------------------------------------------------------------------- */

static int64_t attn_floats(const hd_config *c)
{
    int64_t H = c->n_heads, q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    int64_t lora = c->kv_lora_rank, rope = c->qk_rope_head_dim;
    if (lora > 0)
        return 2 * (lora + rope) + H * (c->qk_nope_head_dim + rope + lora + rope + lora + c->v_head_dim + 1) + c->q_lora_rank;
    return 2 * q + 2 * kv + H + (c->qk_norm ? q + kv : 0);
}

static int64_t ffn_floats(const hd_config *c, int layer)
{
    int64_t K = c->n_experts_per_tok, F = c->moe_ffn;
    if (!hd_config_layer_is_moe(c, layer)) return 2 * c->n_ffn;
    return c->n_experts + 3 * K + 2 * K * F + 2 * (int64_t)c->n_shared_experts * F;
}

size_t hd_tape_layer_bytes(const hd_config *c, int layer, int M)
{
    int64_t mtp = layer >= c->n_layers ? 5 * c->d_model + hd_rope_dim(c) + 16 : 0;
    return (size_t)M * 4 * (size_t)(2 * c->d_model + attn_floats(c) + ffn_floats(c, layer) + mtp) +
           4 * (size_t)c->n_experts + 40 * 64;
}

/* The most that a way back takes at once: the stream's gradients, one block's arrays, one
 * region of products. */
size_t hd_back_bytes(const hd_config *c, int M, int n_threads)
{
    int64_t D = c->d_model, K = c->n_experts_per_tok, F = c->moe_ffn, S = c->n_shared_experts * F, V = c->n_vocab;
    int64_t attn = 4 * D + 2 * attn_floats(c), ffn = 4 * D + 4 * c->n_ffn;
    int64_t moe = c->n_experts > 0 ? 4 * D + 2 * K * D + 4 * K * F + 4 * S + 3 * c->n_experts + 4 * K : 0;
    int64_t rows = attn > ffn ? attn : ffn;
    rows = rows > moe ? rows : moe;
    int64_t slice = SLICE_BYTES / (V * 4);
    slice = slice < SLICE_LEAST ? SLICE_LEAST : slice > SLICE_MOST ? SLICE_MOST : slice;
    hd_kv_shape kv = hd_cache_shape(c, HD_CACHE_F32);
    int one = M;
    hd_attn_back a = {.kv = kv, .n_heads = c->n_heads, .len = &one, .n_seqs = 1};
    hd_mm_grad mm[] = {{.M = M, .n = rows, .k = D}, {.M = (int)slice, .n = V, .k = D}};
    size_t head = (size_t)slice * (size_t)(2 * V + 2 * D) * 4 + hd_mm_grad_work(&mm[1], 1, n_threads);
    size_t block = (size_t)M * (size_t)rows * 4 + hd_mm_grad_work(&mm[0], 1, n_threads) + hd_attn_back_work(&a, n_threads);
    return (size_t)M * (size_t)(10 * D) * 4 + 2 * head + 2 * block + (size_t)c->n_experts * 4096 + ((size_t)64 << 20);
}
