/* The way back through attention, one task for each sequence and key head, or, of a long sequence, for a part of a key head's query
 * heads: the parts' gradients of keys and values are added in their order.
 *
 * Everything is f32: products by the forward's own kernel, sums over queries by hd_back_kernels.outer.  For a key head q, do, k, v of
 * one query head are laid out as panels whose inner dimension is the position (32 numbers wide, a position a line), and k, v also the
 * other way round (32 positions wide).
 * Then, for each block of KEYS positions j and all queries i >= j:
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

enum { KEYS = 64, W = HD_PANEL_ROWS };

static int up_to(int n, int to) { return (n + to - 1) / to * to; }

/* Where things lie in a thread's scratch, in floats. */
typedef struct {
    int64_t q, dout, k, kt, vt, s, dp, out, delta, total;
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
    PLACE(kt, t * up_to(kv->dk, 16));
    PLACE(vt, t * up_to(kv->dv, 16));
    PLACE(s, t * KEYS);
    PLACE(dp, t * KEYS);
    PLACE(out, t * dk);
    PLACE(delta, t);
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

/* Into how many parts the query heads of a key head go in a sequence of T: by that alone, so that its sums are the same whatever
 * else is in the micro-batch. Short sequences are many in one: they need none. */
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
    int group, most_parts;
    int64_t rows, ldk, ldv; // of all sequences; of dk and dv, which has no rows of its own where values are keys
    float *more;            // [most_parts - 1, rows (ldk + ldv)], of each part first dk, then dv
} job;

static float *more_k(const job *j, int part) { return j->more + (part - 1) * j->rows * (j->ldk + j->ldv); }
static float *more_v(const job *j, int part) { return more_k(j, part) + j->rows * j->ldk; }

/* x: T rows of n numbers, ld apart -> panels [n / 32][T up to KEYS][32]. */
static void to_panels(const job *j, float *to, const float *x, int64_t ld, int T, int n, hd_cache_type type)
{
    int64_t t = up_to(T, KEYS);
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

/* x: T rows of n numbers -> panels [T / 32][n][32] with the positions side by side. */
static void to_panels_across(const job *j, float *to, const float *x, int64_t ld, int T, int n, hd_cache_type type)
{
    for (int t = 0; t < T; t += W, to += (int64_t)n * W) {
        int w = T - t < W ? T - t : W;
        if (w < W) memset(to, 0, (size_t)n * W * sizeof *to);
        j->d->k->back->transpose(to, W, x + t * ld, ld, w, n);
        j->d->k->attn->round(type, to, (int64_t)n * W);
    }
}

/* y[M, W p ..] = act [M, inner] by panels p = 0 .. n/32-1, `step` floats apart. */
static void mul(const job *j, const float *panels, int64_t step, int inner, const float *act, int64_t ld_act, int M, float *y, int64_t ldy,
                int n, void *kernel)
{
    for (int p = 0; p * W < n; p++)
        j->d->k->panel_mul[HD_PANEL_F32](panels + p * step, inner, (const uint8_t *)act, (size_t)ld_act * sizeof *act, M, y + p * W, ldy,
                                         kernel);
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

/* Scores and their gradients of queries j0 .. T-1 against keys j0 .. j0+n-1; a panel of keys meets queries from its first one on. */
static void block_scores(const job *j, const head *h, float *f, int j0, int n, void *kernel)
{
    const hd_attn_back *a = j->a;
    const layout *l = &j->l;
    int M = h->T - j0;
    for (int c = 0; c < n; c += W) {
        int64_t i0 = j0 + c, at = (int64_t)c * KEYS + c;
        int w = n - c < W ? n - c : W;
        mul(j, f + l->kt + i0 * a->kv.dk, 0, a->kv.dk, h->q + i0 * h->ldq, h->ldq, M - c, f + l->s + at, KEYS, w, kernel);
        mul(j, f + l->vt + i0 * a->kv.dv, 0, a->kv.dv, h->dout + i0 * h->ldo, h->ldo, M - c, f + l->dp + at, KEYS, w, kernel);
    }
    for (int i = 0; i < M; i++) {
        float *s = f + l->s + (int64_t)i * KEYS, *dp = f + l->dp + (int64_t)i * KEYS;
        int seen = i + 1 < n ? i + 1 : n;
        j->d->k->back->attn_row(s, dp, a->scale, h->lse[(int64_t)(j0 + i) * h->H], f[l->delta + j0 + i], seen);
        if (seen == KEYS) continue;
        memset(s + seen, 0, (size_t)(KEYS - seen) * sizeof *s);
        memset(dp + seen, 0, (size_t)(KEYS - seen) * sizeof *dp);
    }
}

/* to[n, wide] += p^T x: key c's sum begins at its own query, or a few before it whose p is 0.  x: panels from query j0 on. */
static void add_outer(const job *j, float *to, int64_t ld, const float *p, const float *x, int64_t step, int M, int n, int wide)
{
    enum { BESIDE = 8 };
    for (int c = 0; c < wide; c += W, x += step)
        for (int i = 0; i < n; i += BESIDE)
            j->d->k->back->outer(to + i * ld + c, ld, p + i * KEYS + i, KEYS, x + i * W, W, M - i, n - i < BESIDE ? n - i : BESIDE,
                                 wide - c < W ? wide - c : W);
}

/* dk, dv: of the key head's first row, rows ldk and ldv apart. */
static void block_back(const job *j, const head *h, float *f, int j0, int n, float *dk, int64_t ldk, float *dv, int64_t ldv, void *kernel)
{
    const hd_kv_shape *kv = &j->a->kv;
    const layout *l = &j->l;
    int M = h->T - j0, wk = up_to(kv->dk, W), few = M < W ? M : W;
    int64_t t = up_to(h->T, KEYS);
    float *out = f + l->out;
    block_scores(j, h, f, j0, n, kernel);
    add_outer(j, dv + j0 * ldv, ldv, f + l->s, f + l->dout + (int64_t)j0 * W, t * W, M, n, kv->dv);
    add_outer(j, dk + j0 * ldk, ldk, f + l->dp, f + l->q + (int64_t)j0 * W, t * W, M, n, kv->dk);
    /* the first queries see the first panel of keys alone */
    mul(j, f + l->k + (int64_t)j0 * W, t * W, n < W ? n : W, f + l->dp, KEYS, few, out, wk, kv->dk, kernel);
    if (M > few) mul(j, f + l->k + (int64_t)j0 * W, t * W, n, f + l->dp + few * KEYS, KEYS, M - few, out + few * wk, wk, kv->dk, kernel);
    add_rows(j, h->dq + j0 * h->ldq, h->ldq, out, wk, M, kv->dk);
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
    to_panels_across(j, f + j->l.kt, k, ldk, T, kv->dk, kv->type);
    to_panels_across(j, f + j->l.vt, v, ldv, T, kv->dv, kv->type);
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
        zero_rows(h.dq, ldq, T, kv->dk);
        to_panels(j, f + j->l.q, h.q, ldq, T, kv->dk, HD_CACHE_F32);
        to_panels(j, f + j->l.dout, h.dout, ldo, T, kv->dv, HD_CACHE_F32);
        for (int i = 0; i < T; i++) f[j->l.delta + i] = j->d->k->back->dot(h.dout + i * ldo, h.out + i * ldo, kv->dv);
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
