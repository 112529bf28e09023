/* The way back through attention, one task for each sequence and key head, or, of a long sequence, for a part
 * of a key head's query
 * heads: the parts' gradients of keys and values are added in their order.
 *
 * Products go by the forward's own kernel, sums over queries by hd_back_kernels.outer.  For a key head q, do,
 * k, v of one query head are laid out as panels whose inner dimension is the position (32 numbers wide, a
 * position a line), and k, v also the other way round (32 positions wide).  Everything is f32, but where the
 * forward's products are of bf16 and those of outer_pairs, too, all of them are: a line of a panel is then a
 * pair of positions or numbers, and q, do, dS are rounded to rows of activations.  Then, for each block of
 * KEYS positions j and all queries i >= j:
 *
 *   S = Q K^T   dP = dO V^T   P = exp(scale S - lse)   dS = scale P (dP - delta),  delta = do.o     (arXiv:2307.08691)
 *   dV_j += P^T dO     dK_j += dS^T Q     dQ_i += dS K_j
 *
 * Keys that lie after a query have P = dS = 0.  Heads of a group add to dK and dV in their order. */
#include <assert.h>
#include <string.h>

#include "base/num.h"
#include "kernels/back.h"
#include "ops/back.h"

enum {
    KEYS = 64,
    W = HD_PANEL_ROWS,
    FETCH_ROWS = 8, // of q, k, v, do, o ahead: a head's part of a row is too short for the hardware to see it coming
};

static int up_to(int n, int to) { return (n + to - 1) / to * to; }

static int64_t row_words(int n) { return (int64_t)(hd_act_bytes(HD_ACT_BF16, n) / sizeof(float)); }

/* Where things lie in a thread's scratch, in floats. */
typedef struct {
    int64_t q, dout, k, kt, vt, s, dp, out, delta;
    int64_t q_row, dout_row, dp_row, s_pair, dp_pair; // of bf16
    int64_t total;
} layout;

static layout layout_of(const hd_kv_shape *kv, int T)
{
    int dk = up_to(kv->dk, W), dv = up_to(kv->dv, W);
    int64_t t = up_to(T, KEYS);
    layout l;
    int64_t at = 0;
#define PLACE(field, n) l.field = at, at += ((n) + 15) / 16 * 16
    PLACE(q, t * dk);
    PLACE(dout, t * dv);
    PLACE(k, t * dk);
    PLACE(kt, t * dk); // of bf16 half, but a multiple of 64
    PLACE(vt, t * dv);
    PLACE(s, t * KEYS);
    PLACE(dp, t * KEYS);
    PLACE(out, t * (dk > dv ? dk : dv));
    PLACE(delta, t);
    PLACE(q_row, t * row_words(kv->dk));
    PLACE(dout_row, t * row_words(kv->dv));
    PLACE(dp_row, t * row_words(KEYS));
    PLACE(s_pair, t / 2 * KEYS);
    PLACE(dp_pair, t / 2 * KEYS);
#undef PLACE
    l.total = at;
    return l;
}

static int longest(const hd_attn_back *a)
{
    int T = 1;
    for (int i = 0; i < a->n_seqs; i++) T = a->len[i] > T ? a->len[i] : T;
    return T;
}

enum { KERNEL_SCRATCH = 160 << 10, LONG = 512, TASKS = 8 };

/* Into how many parts the query heads of a key head go in a sequence of T: by that alone, so that its sums
 * are the same whatever else is in the micro-batch. Short sequences are many in one: they need none. */
static int parts_of(const hd_attn_back *a, int T)
{
    int group = a->n_heads / a->kv.n_kv, wanted = T < LONG ? 1 : (TASKS - 1) / a->kv.n_kv + 1;
    return wanted < group ? wanted : group;
}

static int64_t values_ld(const hd_kv_shape *kv) { return kv->v_in_k ? 0 : (int64_t)kv->n_kv * kv->dv; }

/* Floats of the gradients of parts behind the first. */
static size_t more_floats(const hd_attn_back *a, int64_t rows)
{
    return (size_t)(parts_of(a, longest(a)) - 1) * (size_t)rows * (size_t)((int64_t)a->kv.n_kv * a->kv.dk + values_ld(&a->kv));
}

/* Enough for no more rows in more sequences, too. */
size_t hd_attn_back_work(const hd_attn_back *a, int n_threads)
{
    layout l = layout_of(&a->kv, longest(a));
    int64_t rows = 0;
    for (int i = 0; i < a->n_seqs; i++) rows += a->len[i];
    return (size_t)n_threads * ((size_t)l.total * sizeof(float) + KERNEL_SCRATCH + 128) + (size_t)a->n_seqs * 8 + 256 +
           more_floats(a, rows) * sizeof(float) + 64;
}

typedef struct {
    const hd_dev *d;
    const hd_attn_back *a;
    const int64_t *row0; // [n_seqs]
    uint8_t *scratch;
    size_t scratch_bytes;
    layout l;
    bool pairs; // products of bf16
    int group, most_parts;
    int64_t rows, ldk, ldv; // of all sequences; of dk and dv, which has no rows of its own where values are keys
    float *more;            // [most_parts - 1, rows (ldk + ldv)], of each part first dk, then dv
} job;

static float *more_k(const job *j, int part) { return j->more + (part - 1) * j->rows * (j->ldk + j->ldv); }
static float *more_v(const job *j, int part) { return more_k(j, part) + j->rows * j->ldk; }

static void fetch_row(const float *x, int64_t ld, int i, int T, int n)
{
    for (int c = 0; c < n && i < T; c += 16) __builtin_prefetch(x + i * ld + c);
}

/* x: T rows of n numbers, ld apart -> panels [n / 32][T up to KEYS][32], or [n / 32][T / 2 up to
 * KEYS / 2][32][2]. */
static void to_panels(const job *j, float *to, const float *x, int64_t ld, int T, int n, hd_cache_type type)
{
    int64_t t = up_to(T, KEYS);
    if (j->pairs) {
        const int64_t words = t / 2 * W, used = (T + 1) / 2 * W;
        for (int i = 0; i < T; i += 2) {
            for (int r = i; r < i + 2; r++) fetch_row(x, ld, r + FETCH_ROWS, T, n);
            j->d->k->back->pairs((uint32_t *)to + i / 2 * W, (size_t)words, W, x + i * ld, i + 1 < T ? x + (i + 1) * ld : NULL, n);
        }
        for (int c = 0; c < n; c += W, to += words) memset(to + used, 0, (size_t)(words - used) * sizeof *to);
        return;
    }
    for (int c = 0; c < n; c += W, to += t * W) {
        int w = n - c < W ? n - c : W;
        for (int i = 0; i < T; i++) {
            float *row = to + (int64_t)i * W;
            memcpy(row, x + i * ld + c, (size_t)w * sizeof *row);
            if (w < W) memset(row + w, 0, (size_t)(W - w) * sizeof *row);
        }
        memset(to + (int64_t)T * W, 0, (size_t)((t - T) * W) * sizeof *to);
        j->d->k->attn->round(type, to, (int64_t)T * W);
    }
}

/* Floats of a panel with n numbers of 32 positions. */
static int64_t across_floats(const job *j, int n)
{
    return (int64_t)(hd_panel_get(j->pairs ? HD_PANEL_BF16 : HD_PANEL_F32)->bytes(n) / sizeof(float));
}

/* x: T rows of n numbers -> panels [T / 32][n][32] with the positions side by side, or [T / 32][n /
 * 2][32][2].  room: n x 32. */
static void to_panels_across(const job *j, float *to, const float *x, int64_t ld, int T, int n, hd_cache_type type, float *room)
{
    const hd_back_kernels *k = j->d->k->back;
    const int64_t step = across_floats(j, n);
    for (int t = 0; t < T && j->pairs; t += W, to += step) {
        uint32_t *pair = (uint32_t *)to;
        if (T - t < W) memset(room, 0, (size_t)n * W * sizeof *room);
        k->transpose(room, W, x + t * ld, ld, T - t < W ? T - t : W, n);
        for (int i = 0; i < n; i += 2, pair += W) k->pairs(pair, W, W, room + i * W, i + 1 < n ? room + (i + 1) * W : NULL, W);
        memset(pair, 0, (size_t)(step - (n + 1) / 2 * W) * sizeof *pair);
    }
    if (j->pairs) return;
    for (int t = 0; t < T; t += W, to += (int64_t)n * W) {
        int w = T - t < W ? T - t : W;
        if (w < W) memset(to, 0, (size_t)n * W * sizeof *to);
        k->transpose(to, W, x + t * ld, ld, w, n);
        j->d->k->attn->round(type, to, (int64_t)n * W);
    }
}

/* x: T rows of n numbers -> rows of activations. */
static void to_rows(const job *j, float *to, const float *x, int64_t ld, int T, int n)
{
    for (int i = 0; i < T; i++) j->d->k->act_pack(HD_ACT_BF16, to + i * row_words(n), x + i * ld, n);
}

/* y[M, W p ..] = act [M, inner] by panels p = 0 .. n/32-1, `step` floats apart. */
static void mul(const job *j, const float *panels, int64_t step, int inner, const float *act, int64_t ld_act, int M, float *y, int64_t ldy,
                int n, void *kernel)
{
    hd_panel_mul *product = j->d->k->panel_mul[j->pairs ? HD_PANEL_BF16 : HD_PANEL_F32];
    for (int p = 0; p * W < n; p++)
        product(panels + p * step, inner, (const uint8_t *)act, (size_t)ld_act * sizeof *act, M, y + p * W, ldy, kernel);
}

static void add_rows(const job *j, float *to, int64_t ld_to, const float *from, int64_t ld, int M, int n)
{
    for (int m = 0; m < M; m++) j->d->k->add(to + m * ld_to, from + m * ld, n);
}

typedef struct {
    const float *q, *dout, *out, *lse; // of the head's first row
    float *dq;
    int64_t ldq, ldo;
    int H, T;
} head;

/* P and dS from S and dP, in place ... */
static void row_scores(const job *j, const head *h, float *f, int j0, int M, int n)
{
    const layout *l = &j->l;
    for (int i = 0; i < M; i++) {
        float *s = f + l->s + (int64_t)i * KEYS, *dp = f + l->dp + (int64_t)i * KEYS;
        int seen = i + 1 < n ? i + 1 : n;
        j->d->k->back->attn_row(s, dp, j->a->scale, h->lse[(int64_t)(j0 + i) * h->H], f[l->delta + j0 + i], seen);
        if (seen == KEYS) continue;
        memset(s + seen, 0, (size_t)(KEYS - seen) * sizeof *s);
        memset(dp + seen, 0, (size_t)(KEYS - seen) * sizeof *dp);
    }
}

/* ... or as pairs of rows, and dS as rows, too. */
static void pair_scores(const job *j, const head *h, float *f, int j0, int M, int n)
{
    const layout *l = &j->l;
    for (int i = 0; i < M; i += 2) {
        const int64_t at = (int64_t)i * KEYS;
        const int next = i + 1 < M ? i + 1 : i, seen[2] = {i + 1 < n ? i + 1 : n, i + 1 >= M ? 0 : i + 2 < n ? i + 2 : n};
        const float lse[2] = {h->lse[(int64_t)(j0 + i) * h->H], h->lse[(int64_t)(j0 + next) * h->H]};
        uint16_t *const row[2] = {(uint16_t *)(f + l->dp_row + i * row_words(KEYS)), (uint16_t *)(f + l->dp_row + (i + 1) * row_words(KEYS))};
        j->d->k->back->attn_pairs((uint32_t *)(f + l->s_pair + at / 2), (uint32_t *)(f + l->dp_pair + at / 2), row, f + l->s + at, f + l->dp + at, KEYS,
                                  j->a->scale, lse, (const float[2]){f[l->delta + j0 + i], f[l->delta + j0 + next]}, seen, KEYS);
    }
}

/* Scores and their gradients of queries j0 .. T-1 against keys j0 .. j0+n-1; a panel of keys meets queries
 * from its first one on. */
static void block_scores(const job *j, const head *h, float *f, int j0, int n, void *kernel)
{
    const hd_attn_back *a = j->a;
    const layout *l = &j->l;
    int M = h->T - j0;
    const float *q = j->pairs ? f + l->q_row + j0 * row_words(a->kv.dk) : h->q + j0 * h->ldq;
    const float *dout = j->pairs ? f + l->dout_row + j0 * row_words(a->kv.dv) : h->dout + j0 * h->ldo;
    int64_t ldq = j->pairs ? row_words(a->kv.dk) : h->ldq, ldo = j->pairs ? row_words(a->kv.dv) : h->ldo;
    for (int c = 0; c < n; c += W) {
        int64_t p = (j0 + c) / W, at = (int64_t)c * KEYS + c;
        int w = n - c < W ? n - c : W;
        mul(j, f + l->kt + p * across_floats(j, a->kv.dk), 0, a->kv.dk, q + c * ldq, ldq, M - c, f + l->s + at, KEYS, w, kernel);
        mul(j, f + l->vt + p * across_floats(j, a->kv.dv), 0, a->kv.dv, dout + c * ldo, ldo, M - c, f + l->dp + at, KEYS, w, kernel);
    }
    if (j->pairs) pair_scores(j, h, f, j0, M, n);
    else row_scores(j, h, f, j0, M, n);
}

/* to[n, wide] += p^T x: key c's sum begins at its own query, or a few before it whose p is 0.  x: panels
 * from query j0 on. */
static void add_outer(const job *j, float *to, int64_t ld, const float *p, const float *x, int64_t step, int M, int n, int wide)
{
    enum { BESIDE = 8 };
    const hd_back_kernels *k = j->d->k->back;
    for (int c = 0; c < wide; c += W, x += step)
        for (int i = 0; i < n; i += BESIDE) {
            const int rows = n - i < BESIDE ? n - i : BESIDE, cols = wide - c < W ? wide - c : W;
            if (j->pairs)
                k->outer_pairs(to + i * ld + c, ld, (const uint32_t *)p + i / 2 * KEYS + i, KEYS, (const uint32_t *)x + i / 2 * W, W, (M + 1 - i) / 2,
                               rows, cols);
            else k->outer(to + i * ld + c, ld, p + i * KEYS + i, KEYS, x + i * W, W, M - i, rows, cols);
        }
}

/* The first keys are seen by all queries: what they give can be written where the gradient belongs, if a head
 * is whole panels. */
static bool whole_heads(const hd_kv_shape *kv) { return kv->dk % W == 0; }

/* dk, dv: of the key head's first row, rows ldk and ldv apart. */
static void block_back(const job *j, const head *h, float *f, int j0, int n, float *dk, int64_t ldk, float *dv, int64_t ldv, void *kernel)
{
    const hd_kv_shape *kv = &j->a->kv;
    const layout *l = &j->l;
    int M = h->T - j0, wk = up_to(kv->dk, W), few = M < W ? M : W;
    const int64_t line = j->pairs ? W / 2 : W, t = up_to(h->T, KEYS) * line, ld = j->pairs ? row_words(KEYS) : KEYS; // of a position
    const bool first = whole_heads(kv) && j0 == 0;
    float *out = first ? h->dq : f + l->out, *dp = f + (j->pairs ? l->dp_row : l->dp);
    const int64_t ldout = first ? h->ldq : wk;
    block_scores(j, h, f, j0, n, kernel);
    add_outer(j, dv + j0 * ldv, ldv, f + (j->pairs ? l->s_pair : l->s), f + l->dout + j0 * line, t, M, n, kv->dv);
    add_outer(j, dk + j0 * ldk, ldk, f + (j->pairs ? l->dp_pair : l->dp), f + l->q + j0 * line, t, M, n, kv->dk);
    /* the first queries see the first panel of keys alone */
    mul(j, f + l->k + j0 * line, t, n < W ? n : W, dp, ld, few, out, ldout, kv->dk, kernel);
    if (M > few) mul(j, f + l->k + j0 * line, t, n, dp + few * ld, ld, M - few, out + few * ldout, ldout, kv->dk, kernel);
    if (!first) add_rows(j, h->dq + j0 * h->ldq, h->ldq, out, wk, M, kv->dk);
}

static void zero_rows(float *x, int64_t ld, int T, int n)
{
    for (int i = 0; i < T; i++) memset(x + i * ld, 0, (size_t)n * sizeof *x);
}

static void run_head(void *arg, int64_t chunk, int tid)
{
    const job *j = arg;
    const hd_attn_back *a = j->a;
    const hd_kv_shape *kv = &a->kv;
    int part = (int)(chunk % j->most_parts), kh = (int)(chunk / j->most_parts % kv->n_kv), seq = (int)(chunk / j->most_parts / kv->n_kv);
    int T = a->len[seq], parts = parts_of(a, T);
    if (part >= parts) return;
    int64_t row0 = j->row0[seq], ldk = j->ldk, ldv = kv->v_in_k ? ldk : j->ldv;
    int64_t ldq = (int64_t)a->n_heads * kv->dk, ldo = (int64_t)a->n_heads * kv->dv;
    uint8_t *kernel = j->scratch + (size_t)tid * j->scratch_bytes;
    float *f = (float *)(void *)(kernel + KERNEL_SCRATCH);
    const float *k = a->k + row0 * ldk + kh * kv->dk, *v = kv->v_in_k ? k : a->v + row0 * ldv + kh * kv->dv;
    float *dk = (part ? more_k(j, part) : a->dk) + row0 * ldk + kh * kv->dk;
    float *dv = kv->v_in_k ? dk : (part ? more_v(j, part) : a->dv) + row0 * ldv + kh * kv->dv;
    zero_rows(dk, ldk, T, kv->dk);
    if (!kv->v_in_k) zero_rows(dv, ldv, T, kv->dv);
    to_panels(j, f + j->l.k, k, ldk, T, kv->dk, kv->type);
    to_panels_across(j, f + j->l.kt, k, ldk, T, kv->dk, kv->type, f + j->l.out);
    to_panels_across(j, f + j->l.vt, v, ldv, T, kv->dv, kv->type, f + j->l.out);
    for (int g = j->group * part / parts; g < j->group * (part + 1) / parts; g++) {
        int hq = kh * j->group + g;
        head h = {.q = a->q + row0 * ldq + hq * kv->dk,
                  .dout = a->dout + row0 * ldo + hq * kv->dv,
                  .out = a->out + row0 * ldo + hq * kv->dv,
                  .lse = a->lse + row0 * a->n_heads + hq,
                  .dq = a->dq + row0 * ldq + hq * kv->dk,
                  .ldq = ldq,
                  .ldo = ldo,
                  .H = a->n_heads,
                  .T = T};
        if (!whole_heads(kv)) zero_rows(h.dq, ldq, T, kv->dk);
        to_panels(j, f + j->l.q, h.q, ldq, T, kv->dk, HD_CACHE_F32);
        to_panels(j, f + j->l.dout, h.dout, ldo, T, kv->dv, HD_CACHE_F32);
        if (j->pairs) to_rows(j, f + j->l.q_row, h.q, ldq, T, kv->dk);
        if (j->pairs) to_rows(j, f + j->l.dout_row, h.dout, ldo, T, kv->dv);
        for (int i = 0; i < T; i++) {
            fetch_row(h.out, ldo, i + FETCH_ROWS, T, kv->dv);
            f[j->l.delta + i] = j->d->k->back->dot(h.dout + i * ldo, h.out + i * ldo, kv->dv);
        }
        for (int j0 = 0; j0 < T; j0 += KEYS) block_back(j, &h, f, j0, T - j0 < KEYS ? T - j0 : KEYS, dk, ldk, dv, ldv, kernel);
    }
}

static void add_parts(void *arg, int64_t seq, int tid)
{
    const job *j = arg;
    int64_t at_k = j->row0[seq] * j->ldk, at_v = j->row0[seq] * j->ldv;
    (void)tid;
    for (int p = 1; p < parts_of(j->a, j->a->len[seq]); p++) {
        j->d->k->add(j->a->dk + at_k, more_k(j, p) + at_k, j->a->len[seq] * j->ldk);
        if (j->ldv) j->d->k->add(j->a->dv + at_v, more_v(j, p) + at_v, j->a->len[seq] * j->ldv);
    }
}

void hd_attn_back_run(hd_dev *d, const hd_attn_back *a, hd_arena *work)
{
    size_t mark = work->used;
    int64_t *row0 = hd_arena_take(work, (size_t)a->n_seqs * sizeof *row0), row = 0;
    job j = {.d = d, .a = a, .row0 = row0, .l = layout_of(&a->kv, longest(a)), .group = a->n_heads / a->kv.n_kv,
             .pairs = d->k->back->outer_pairs && !d->exact && a->kv.type == HD_CACHE_BF16,
             .most_parts = parts_of(a, longest(a)), .ldk = (int64_t)a->kv.n_kv * a->kv.dk, .ldv = values_ld(&a->kv)};
    j.scratch_bytes = ((size_t)j.l.total * sizeof(float) + KERNEL_SCRATCH + 63) / 64 * 64;
    j.scratch = hd_arena_take(work, (size_t)hd_pool_threads(d->pool) * j.scratch_bytes);
    assert(row0 && j.scratch && hd_mul_scratch_bytes(a->kv.dk) <= KERNEL_SCRATCH && "backward arena planned too small");
    for (int i = 0; i < a->n_seqs; i++) {
        row0[i] = row;
        row += a->len[i];
    }
    j.rows = row;
    j.more = j.most_parts > 1 ? hd_arena_take(work, more_floats(a, row) * sizeof(float)) : NULL;
    assert((j.more || j.most_parts == 1) && "backward arena planned too small");
    hd_pool_run(d->pool, (int64_t)a->n_seqs * a->kv.n_kv * j.most_parts, run_head, &j);
    if (j.most_parts > 1) hd_pool_run(d->pool, a->n_seqs, add_parts, &j);
    work->used = mark;
}
