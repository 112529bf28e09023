/* The one forward pass: rows of any number of sequences through embedding, layers and head.
 *
 *   x = embed(tok)
 *   per layer:  x += attention(norm(x));  x += ffn(norm(x))   (pre-norm residual stream, arXiv:2002.04745)
 *   logits = head(norm(x)), for the rows that are wanted
 *
 * A block leaves its output in y; the addition to x, the next norm and the packing of activations for the
 * next products are one walk over the rows (hd_pass_norm), so that a row stays in the core's own cache
 * meanwhile.
 *
 * Every row's arithmetic is its own: nothing here mixes rows but attention, which reads the cache up to the
 * row's own position.  So a sequence's logits have the same bits in any batch. */
#include <assert.h>
#include <string.h>

#include "model/block.h"

/* ---- Rows and blobs ---- */

void hd_rows_decode(const hd_rows *r, int64_t row, float *y)
{
    const hd_format *f = hd_format_get((int)r->type);
    f->dequant(y, r->data + (size_t)row * r->row_bytes, r->k);
    if (!r->f8_scale) return;
    const uint8_t *scale =
        (const uint8_t *)r->f8_scale + (size_t)(row / 128 * r->f8_scale_ld) * 4; // perhaps unaligned
    for (int64_t i = 0; i < r->k; i++) {
        float s;
        memcpy(&s, scale + i / 128 * 4, 4);
        y[i] *= s;
    }
}

void hd_blobs_init(hd_blobs *b, hd_pass *p, int64_t k, int M, const hd_linear *const *w, int n_w)
{
    memset(b, 0, sizeof *b);
    b->fp8 = p->d->fp8;
    for (int i = 0; i < n_w; i++) {
        if (!w[i] || !w[i]->kind) continue;
        hd_act_kind kind = hd_linear_act(p->d, w[i]);
        assert(w[i]->src.k == k);
        if (!b->has[kind]) hd_act_init(&b->act[kind], kind, k, M, p->work);
        b->has[kind] = true;
    }
}

size_t hd_blobs_bytes(int64_t k, int M)
{
    size_t n = 0; // HD_ACT_WIDE is training's alone, where it lies in the place of integers
    for (int kind = 0; kind < HD_ACT_WIDE; kind++) n += hd_act_bytes((hd_act_kind)kind, k) * (size_t)M;
    return n;
}

void hd_blobs_row(const hd_blobs *b, const hd_kernels *k, int64_t row, const float *x)
{
    for (int kind = 0; kind < HD_N_ACT; kind++)
        if (b->has[kind]) hd_act_pack_row(&b->act[kind], k, b->fp8, row, x);
}

void hd_blobs_pack(hd_blobs *b, hd_pass *p, const float *x, int64_t ldx)
{
    for (int kind = 0; kind < HD_N_ACT; kind++)
        if (b->has[kind]) hd_act_pack(p->d, &b->act[kind], x, ldx);
}

hd_mm hd_blobs_job(const hd_blobs *b, hd_pass *p, const hd_linear *w, int m0, int M, float *y, int64_t ldy)
{
    const hd_act *a = &b->act[hd_linear_act(p->d, w)];
    return (hd_mm){.w = w, .act = a, .m0 = m0, .M = M, .y = y, .ldy = ldy};
}

/* ---- Residual stream ---- */

float *hd_pass_take(hd_pass *p, int64_t n)
{
    float *f = hd_arena_take(p->work, (size_t)n * sizeof *f);
    assert(f && "work arena planned too small");
    return f;
}

float *hd_pass_keep(hd_pass *p, int64_t n)
{
    float *f = p->kept ? hd_arena_take(p->kept, (size_t)n * sizeof *f) : hd_pass_take(p, n);
    assert(f && "tape planned too small");
    return f;
}

typedef struct {
    hd_pass *p;
    const float *g;
    const hd_blobs *blobs;
    float *out;
    float *to; // where x + y goes: x itself, unless a tape keeps x
} norm_job;

static void norm_row(void *arg, int64_t row, int tid)
{
    const norm_job *j = arg;
    hd_pass *p = j->p;
    const hd_kernels *k = p->d->k;
    float *x = j->to + row * p->D, *h = j->out ? j->out + row * p->D : p->norm + tid * p->D;
    if (x != p->x + row * p->D) memcpy(x, p->x + row * p->D, (size_t)p->D * sizeof *x);
    if (p->pending) k->add(x, p->y + row * p->D, p->D);
    k->rmsnorm(h, x, j->g, p->D, p->m->cfg.norm_eps);
    if (j->blobs) hd_blobs_row(j->blobs, k, row, h);
}

void hd_pass_norm(hd_pass *p, const float *g, hd_blobs *blobs, float *out)
{
    norm_job j = {p, g, blobs, out, p->kept && p->pending ? hd_pass_keep(p, p->M * p->D) : p->x};
    hd_rows_run(p->d, p->M, norm_row, &j);
    p->x = j.to;
    p->pending = false;
}

/* ---- A pass ---- */

static int n_wanted(const hd_batch *b)
{
    int n = 0;
    if (!b->want) return b->n_seqs;
    for (int i = 0; i < b->n_rows; i++) n += b->want[i];
    return n;
}

static hd_status check_batch(const hd_model *m, const hd_batch *b, hd_err *err)
{
    int64_t rows = 0;
    for (int s = 0; s < b->n_seqs; s++) {
        if (b->n_of[s] < 1) return hd_fail(err, HD_USAGE, "forward: sequence %d: no rows", s);
        const hd_kv_shape *kv = hd_seq_shape(b->seq[s]),
                          want = hd_cache_shape(&m->cfg, hd_seq_shape(b->seq[0])->type);
        if (kv->type != want.type || kv->n_kv != want.n_kv || kv->dk != want.dk || kv->dv != want.dv)
            return hd_fail(err, HD_USAGE, "forward: sequence %d: lies in a cache of another shape", s);
        rows += b->n_of[s];
    }
    if (b->n_rows < 1 || b->n_rows > m->max_rows || rows != b->n_rows)
        return hd_fail(err, HD_USAGE, "forward: %d rows, %lld of sequences: must be equal and 1..%d",
                       b->n_rows, (long long)rows, m->max_rows);
    for (int i = 0; i < b->n_rows; i++)
        if (b->tok[i] < 0 || b->tok[i] >= m->cfg.n_vocab)
            return hd_fail(err, HD_USAGE, "forward: token %d: the vocabulary has 0..%lld", b->tok[i],
                           (long long)m->cfg.n_vocab - 1);
    return HD_OK;
}

static void rope_rows(void *arg, int64_t row, int tid)
{
    hd_pass *p = arg;
    (void)tid;
    hd_rope_row(&p->m->rope, (float *)p->cs + row * 2 * p->m->rope.n_pairs, p->pos[row]);
}

typedef struct {
    hd_pass *p;
    int64_t row0;
} embed_job;

static void embed_row(void *arg, int64_t i, int tid)
{
    const embed_job *j = arg;
    const hd_pass *p = j->p;
    int64_t row = j->row0 + i;
    (void)tid;
    hd_rows_decode(&p->m->w.embed, p->b->tok[row], p->x + row * p->D);
}

/* Embeddings are read from the file's pages.  A row brings 64 KB of the file around it into memory, and more
 * where the system's copy of it lies in larger pieces; before that adds up to a thousandth of the model the
 * pages are given back. */
static void embed_rows(hd_pass *p)
{
    hd_model *m = p->m;
    size_t part = m->weights.cap / (1000 * 65536);
    int most = part < 1 ? 1 : part < 1000 ? (int)part : 1000;
    for (int row = 0, n; row < p->M; row += n) {
        embed_job j = {p, row};
        n = p->M - row < most ? p->M - row : most;
        hd_rows_run(p->d, n, embed_row, &j);
        m->embed_reads += n;
        if (m->keep_pages || m->embed_reads < most) continue;
        hd_source_release(m->src, m->w.embed_info);
        m->embed_reads = 0;
    }
}

/* Longer sequences leave more segments to merge: work memory doubles when one comes. */
static hd_status make_room(hd_model *m, const hd_batch *b, hd_err *err)
{
    hd_status st;
    hd_arena bigger;
    int64_t longest = 0, tok = m->work_tok;
    for (int s = 0; s < b->n_seqs; s++) {
        int64_t len = hd_seq_len(b->seq[s]) + b->n_of[s];
        longest = len > longest ? len : longest;
    }
    if (longest <= tok) return HD_OK;
    while (tok < longest) tok *= 2;
    HD_TRY(hd_pass_work_open(&bigger, m, tok, err));
    hd_arena_close(&m->work);
    m->work = bigger;
    m->work_tok = tok;
fail:
    return st;
}

/* Room in every sequence, or in none. */
static hd_status reserve(const hd_batch *b, hd_err *err)
{
    hd_status st = HD_OK;
    int s = 0;
    for (; s < b->n_seqs; s++) HD_TRY(hd_seq_reserve(b->seq[s], b->n_of[s], err));
    return HD_OK;
fail:
    while (s-- > 0) hd_seq_trim(b->seq[s], hd_seq_len(b->seq[s]));
    return st;
}

/* Room in the cache first: when that fails nothing has changed. */
hd_status hd_pass_begin(hd_pass *p, hd_model *m, const hd_batch *b, hd_err *err)
{
    hd_status st;
    HD_TRY(check_batch(m, b, err));
    HD_TRY(make_room(m, b, err));
    HD_TRY(reserve(b, err));

    hd_arena_reset(&m->work);
    *p = (hd_pass){.m = m, .d = &m->dev, .work = &m->work, .b = b, .M = b->n_rows, .D = m->cfg.d_model};
    int32_t *pos = hd_arena_take(p->work, (size_t)p->M * sizeof *pos);
    int *seq_of = hd_arena_take(p->work, (size_t)p->M * sizeof *seq_of);
    p->aseq = hd_arena_take(p->work, (size_t)b->n_seqs * sizeof *p->aseq);
    p->cs = hd_pass_take(p, (int64_t)p->M * 2 * m->rope.n_pairs);
    p->x = hd_pass_take(p, p->M * p->D);
    p->y = hd_pass_take(p, p->M * p->D);
    p->norm = hd_pass_take(p, hd_pool_threads(p->d->pool) * p->D);
    assert(pos && seq_of && p->aseq);
    for (int s = 0, row = 0; s < b->n_seqs; s++) {
        p->aseq[s] = (hd_attn_seq){.row0 = row, .n_rows = b->n_of[s]};
        for (int i = 0; i < b->n_of[s]; i++, row++) {
            pos[row] = (int32_t)(hd_seq_len(b->seq[s]) + i);
            seq_of[row] = s;
        }
    }
    p->pos = pos;
    p->seq_of = seq_of;
    hd_rows_run(p->d, p->M, rope_rows, p);
    embed_rows(p);
fail:
    return st;
}

void hd_pass_attention(hd_pass *p, int il)
{
    const hd_layer *l = &p->m->layer[il];
    size_t mark = p->work->used;
    for (int s = 0; s < p->b->n_seqs; s++) p->aseq[s].pages = hd_seq_pages(p->b->seq[s], il);
    if (p->m->cfg.kv_lora_rank > 0) hd_block_mla(p, l, il);
    else hd_block_gqa(p, l, il);
    p->work->used = mark;
}

void hd_pass_ffn(hd_pass *p, int il)
{
    const hd_layer *l = &p->m->layer[il];
    size_t mark = p->work->used;
    if (l->moe) hd_block_moe(p, l);
    else hd_block_ffn(p, l);
    p->work->used = mark;
}

/* Keep the wanted rows alone: behind the last attention nothing reads the others. */
static void pass_narrow(hd_pass *p)
{
    const hd_batch *b = p->b;
    int n = 0;
    for (int row = 0, s = 0; row < b->n_rows; row++) {
        bool last = row == p->aseq[s].row0 + p->aseq[s].n_rows - 1;
        if (b->want ? b->want[row] : last) {
            if (n != row) {
                memcpy(p->x + n * p->D, p->x + row * p->D, (size_t)p->D * sizeof *p->x);
                memcpy(p->y + n * p->D, p->y + row * p->D, (size_t)p->D * sizeof *p->y);
            }
            n++;
        }
        s += last;
    }
    p->M = n;
}

/* hidden: [M, D] after the norm, or NULL. */
static void pass_head(hd_pass *p, const float *norm, float *logits, float *hidden)
{
    const hd_linear *head = &p->m->w.head;
    const hd_linear *w[] = {head};
    hd_blobs blobs;
    if (hidden) { // all rows are normed; the wanted ones among them are packed afterwards
        hd_pass_norm(p, norm, NULL, hidden);
        memcpy(p->x, hidden, (size_t)(p->M * p->D) * sizeof *hidden);
        pass_narrow(p);
    }
    float *const *rows = logits ? NULL : p->b->logits;
    if (p->M == 0 || (!logits && !rows)) return;
    if (rows && p->M == 1) logits = rows[0], rows = NULL;
    hd_blobs_init(&blobs, p, p->D, p->M, w, 1);
    if (hidden) hd_blobs_pack(&blobs, p, p->x, p->D);
    else hd_pass_norm(p, norm, &blobs, NULL);
    hd_mm job = hd_blobs_job(&blobs, p, head, 0, p->M, logits, p->m->cfg.n_vocab);
    job.rows = rows;
    hd_mm_run(p->d, &job, 1);
}

void hd_pass_end(hd_pass *p)
{
    for (int s = 0; s < p->b->n_seqs; s++) hd_seq_advance(p->b->seq[s], p->b->n_of[s]);
}

hd_status hd_forward(hd_model *m, const hd_batch *b, float *logits, float *hidden, hd_err *err)
{
    hd_pass p;
    hd_status st = hd_pass_begin(&p, m, b, err);
    if (st != HD_OK) return st;
    for (int il = 0; il < m->cfg.n_layers; il++) {
        hd_pass_attention(&p, il);
        if (il == m->cfg.n_layers - 1 && !hidden && n_wanted(b) < p.M) pass_narrow(&p);
        if (p.M > 0) hd_pass_ffn(&p, il);
    }
    if (p.M > 0) pass_head(&p, m->w.out_norm, logits, hidden);
    hd_pass_end(&p);
    return hd_ranks_status(m->ranks, err);
}

/* ---- Multi-token prediction ---- */

typedef struct {
    hd_pass *p;
    const hd_layer *l;
    const float *hidden;
    float *joined; // [M, 2 D]
} join_job;

/* [norm(embedding of the next token); norm(state)]   (arXiv:2412.19437, eq. 21; the checkpoints join in this
 * order) */
static void join_row(void *arg, int64_t row, int tid)
{
    const join_job *j = arg;
    hd_pass *p = j->p;
    const hd_kernels *k = p->d->k;
    float *to = j->joined + row * 2 * p->D, eps = p->m->cfg.norm_eps;
    (void)tid;
    k->rmsnorm(to, p->x + row * p->D, j->l->enorm, p->D, eps);
    k->rmsnorm(to + p->D, j->hidden + row * p->D, j->l->hnorm, p->D, eps);
}

hd_status hd_forward_mtp(hd_model *m, const hd_batch *b, const float *hidden_in, float *logits,
                         float *hidden_out, hd_err *err)
{
    hd_pass p;
    if (m->cfg.n_mtp < 1)
        return hd_fail(err, HD_UNSUPPORTED, "model: %.200s: holds no multi-token-prediction layer",
                       hd_source_path(m->src));
    hd_status st = hd_pass_begin(&p, m, b, err);
    if (st != HD_OK) return st;
    int il = m->cfg.n_layers;
    const hd_layer *l = &m->layer[il];
    size_t mark = p.work->used;
    join_job j = {&p, l, hidden_in, hd_pass_take(&p, (int64_t)p.M * 2 * p.D)};
    hd_rows_run(p.d, p.M, join_row, &j);
    hd_linear_mul(p.d, &l->eh_proj, j.joined, 2 * p.D, p.M, p.x, p.D, p.work);
    p.work->used = mark;
    hd_pass_attention(&p, il);
    if (!hidden_out && n_wanted(b) < p.M) pass_narrow(&p);
    if (p.M > 0) hd_pass_ffn(&p, il);
    if (p.M > 0) pass_head(&p, l->head_norm ? l->head_norm : m->w.out_norm, logits, hidden_out);
    hd_pass_end(&p);
    return hd_ranks_status(m->ranks, err);
}
