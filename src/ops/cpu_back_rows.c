/* The way back through the functions of rows: norms, SwiGLU, losses; and sums over flat arrays.
 *
 * A sum over rows (a norm's gain) is made in chunks of rows fixed by M alone, one task each, and the chunks
 * are added in order; a sum over a flat array likewise. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/back.h"
#include "ops/back.h"

enum {
    MOST_CHUNKS = 64,  // of a sum over rows
    LEAST_ROWS = 32,   // of such a chunk
    FLAT = 1 << 14,    // numbers of a task over a flat array
};

/* ---- RMSNorm ------------------------------------------------------------------------------------------- */

typedef struct {
    const hd_kernels *k;
    float *dx, *dg;
    const float *dh, *x, *g;
    int64_t lddx, lddh, ldx, n;
    int M, rows; // of a chunk
    bool add;
    float eps;
} norm_job;

static void norm_chunk(void *arg, int64_t chunk, int tid)
{
    const norm_job *j = arg;
    int m1 = (int)(chunk + 1) * j->rows;
    float *dg = j->dg + chunk * j->n;
    memset(dg, 0, (size_t)j->n * sizeof *dg);
    for (int m = (int)chunk * j->rows; m < m1 && m < j->M; m++)
        j->k->back->rmsnorm(j->dx + m * j->lddx, j->add, dg, j->dh + m * j->lddh, j->x + m * j->ldx, j->g, j->n, j->eps);
}

void hd_rmsnorm_back(hd_dev *d, float *dx, int64_t lddx, bool add, float *dg, const float *dh, int64_t lddh, const float *x,
                     int64_t ldx, const float *g, int M, int64_t n, float eps, hd_arena *work)
{
    size_t mark = work->used;
    int rows = (M + MOST_CHUNKS - 1) / MOST_CHUNKS;
    rows = rows < LEAST_ROWS ? LEAST_ROWS : rows;
    int chunks = (M + rows - 1) / rows;
    float *part = hd_arena_take(work, (size_t)chunks * (size_t)n * sizeof *part);
    assert(part && "backward arena planned too small");
    norm_job j = {d->k, dx, part, dh, x, g, lddx, lddh, ldx, n, M, rows, add, eps};
    hd_pool_run(d->pool, chunks, norm_chunk, &j);
    for (int c = 0; c < chunks; c++) d->k->add(dg, part + c * n, n);
    work->used = mark;
}

/* ---- SwiGLU -------------------------------------------------------------------------------------------- */

typedef struct {
    const hd_dev *d;
    const hd_swiglu_grad *g;
} swiglu_job;

static void swiglu_row(void *arg, int64_t m, int tid)
{
    const hd_dev *d = ((const swiglu_job *)arg)->d;
    const hd_swiglu_grad *g = ((const swiglu_job *)arg)->g;
    const hd_back_kernels *k = d->k->back;
    const int64_t at = m * g->n;
    float *room = hd_dev_row(d, tid), *to[] = {g->dgate, g->dup, g->a};
    for (int i = 0; i < 3; i++) to[i] = to[i] ? to[i] + at : room + i * g->n;
    k->silu_mul(to[0], to[1], to[2], g->da + at, g->gate + at, g->up + at, g->n);
    if (g->dw) g->dw[m] = k->dot(g->da + at, to[2], g->n);
    for (int i = 0; i < 3; i++) {
        if (g->weight) k->scale(to[i], g->weight[m], g->n);
        if (g->act[i]) hd_act_pack_row(g->act[i], d->k, d->fp8, m, to[i]);
    }
}

void hd_swiglu_back(hd_dev *d, const hd_swiglu_grad *g)
{
    swiglu_job j = {d, g};
    hd_rows_run(d, g->M, swiglu_row, &j);
}

/* ---- Losses -------------------------------------------------------------------------------------------- */

typedef struct {
    const hd_kernels *k;
    float *z, *loss, *lse;
    int64_t ld, V;
    float scale, zloss;
    const int32_t *target;
    const int32_t *id; // of a teacher, [M, n_top]
    const float *logp;
    int n_top;
    float temperature;
    const hd_act *act;
    bool fp8;
} loss_job;

static void xent_z(const loss_job *j, int64_t m, float *z)
{
    int32_t t = j->target[m];
    j->loss[m] = 0;
    if (t < 0) {
        memset(z, 0, (size_t)j->V * sizeof *z);
        if (j->lse) j->lse[m] = 0;
        return;
    }
    float zt = z[t], lse = j->k->softmax(z, j->V);
    j->loss[m] = lse - zt;
    if (j->lse) j->lse[m] = lse;
    j->k->back->scale(z, j->scale * (1 + 2 * j->zloss * lse), j->V);
    z[t] -= j->scale;
}

static void xent_row(void *arg, int64_t m, int tid)
{
    const loss_job *j = arg;
    float *z = j->z + m * j->ld;
    xent_z(j, m, z);
    if (j->act) hd_act_pack_row(j->act, j->k, j->fp8, m, z);
}

void hd_xent_back(hd_dev *d, float *logits, int64_t ld, const int32_t *target, int M, int64_t V, float scale, float zloss, float *loss,
                  float *lse, const hd_act *act)
{
    loss_job j = {.k = d->k, .z = logits, .loss = loss, .lse = lse, .ld = ld, .V = V, .scale = scale, .zloss = zloss, .target = target,
                  .act = act, .fp8 = d->fp8};
    hd_rows_run(d, M, xent_row, &j);
}

/* With z / T on both sides: loss = sum q (lse - z_i / T), its gradient by z is (softmax - q) / T.  As
 * Hinton's (arXiv:1503.02531, 2) it is multiplied by T^2, so that the weight of the two losses does not
 * depend on the temperature. */
static void distil_row(void *arg, int64_t m, int tid)
{
    const loss_job *j = arg;
    float *z = j->z + m * j->ld, inv = 1 / j->temperature, top = -INFINITY;
    const int32_t *id = j->id + m * j->n_top;
    const float *lp = j->logp + m * j->n_top;
    int n = 0;
    while (n < j->n_top && id[n] >= 0) n++;
    j->loss[m] = 0;
    if (n == 0) {
        memset(z, 0, (size_t)j->V * sizeof *z);
        return;
    }
    double sum = 0, loss = 0;
    for (int i = 0; i < n; i++) top = lp[i] > top ? lp[i] : top;
    for (int i = 0; i < n; i++) sum += exp((double)(lp[i] - top) * inv);
    j->k->back->scale(z, inv, j->V);
    for (int i = 0; i < n; i++) loss -= exp((double)(lp[i] - top) * inv) / sum * z[id[i]];
    loss += j->k->softmax(z, j->V);
    j->loss[m] = (float)loss;
    j->k->back->scale(z, j->scale * j->temperature, j->V);
    for (int i = 0; i < n; i++) z[id[i]] -= (float)(j->scale * j->temperature * exp((double)(lp[i] - top) * inv) / sum);
}

void hd_distil_back(hd_dev *d, float *logits, int64_t ld, const int32_t *teacher_id, const float *teacher_logp, int n_top,
                    float temperature, int M, int64_t V, float scale, float *loss)
{
    loss_job j = {.k = d->k,          .z = logits,          .loss = loss,     .ld = ld,
                  .V = V,             .scale = scale,       .id = teacher_id, .logp = teacher_logp,
                  .n_top = n_top,     .temperature = temperature};
    hd_rows_run(d, M, distil_row, &j);
}

/* ---- Flat arrays --------------------------------------------------------------------------------------- */

typedef struct {
    const hd_kernels *k;
    float *y;
    const float *x;
    float a;
    int64_t n, from; // from: of the first chunk's partial sums
    double *part;
    bool *bad;
} flat_job;

static int64_t flat_chunks(int64_t n) { return (n + FLAT - 1) / FLAT; }
static int64_t flat_n(const flat_job *j, int64_t c) { return j->n - c * FLAT < FLAT ? j->n - c * FLAT : FLAT; }

static void flat_add(void *arg, int64_t c, int tid)
{
    const flat_job *j = arg;
    j->k->add(j->y + c * FLAT, j->x + c * FLAT, flat_n(j, c));
}

void hd_flat_add(hd_dev *d, float *y, const float *x, int64_t n)
{
    flat_job j = {.k = d->k, .y = y, .x = x, .n = n};
    hd_pool_run(d->pool, flat_chunks(n), flat_add, &j);
}

static void flat_scale(void *arg, int64_t c, int tid)
{
    const flat_job *j = arg;
    j->k->back->scale(j->y + c * FLAT, j->a, flat_n(j, c));
}

void hd_flat_scale(hd_dev *d, float *y, float a, int64_t n)
{
    flat_job j = {.k = d->k, .y = y, .a = a, .n = n};
    hd_pool_run(d->pool, flat_chunks(n), flat_scale, &j);
}

static void flat_sumsq(void *arg, int64_t c, int tid)
{
    const flat_job *j = arg;
    const float *x = j->x + (j->from + c) * FLAT;
    j->part[c] = j->k->back->dot(x, x, flat_n(j, j->from + c));
}

/* Partial sums of a thousand chunks at a time, added in order. */
double hd_flat_sumsq(hd_dev *d, const float *x, int64_t n)
{
    enum { AT_ONCE = 1024 };
    double part[AT_ONCE], sum = 0;
    for (int64_t c = 0; c < flat_chunks(n); c += AT_ONCE) {
        flat_job j = {.k = d->k, .x = x, .n = n, .from = c, .part = part};
        int64_t m = flat_chunks(n) - c < AT_ONCE ? flat_chunks(n) - c : AT_ONCE;
        hd_pool_run(d->pool, m, flat_sumsq, &j);
        for (int64_t i = 0; i < m; i++) sum += part[i];
    }
    return sum;
}
