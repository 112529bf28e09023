/* See lora.h.  A gradient's job finds its adapters by the place of A: hd_linear.src.data of an adapted
 * matrix is A's master, so that the job's dw is A's gradient; a matrix without adapters has NULL there, and
 * its job is passed over. */
#include "model/lora.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "model/tape.h"

void hd_lora_close(hd_lora *l)
{
    if (!l) return;
    if (l->merged) hd_free_aligned(l->merged, l->merged_bytes);
    free(l->base);
    free(l);
}

/* ---- W0 + scale B A ------------------------------------------------------------------------------------ */

typedef struct {
    const hd_model *m;
    const hd_lora_base *b;
    const float *A, *B; // NULL: none
    int rank;
    float scale, *to;
} merge;

static void merge_row(void *arg, int64_t row, int tid)
{
    const merge *j = arg;
    int64_t k = j->b->rows.k;
    float *to = j->to + row * k;
    (void)tid;
    hd_rows_decode(&j->b->rows, hd_row_in_file(j->m->train, j->m->cfg.head_dim, j->b->slot, row), to);
    for (int i = 0; j->A && i < j->rank; i++) j->m->dev.k->axpy(to, j->scale * j->B[row * j->rank + i], j->A + i * k, k);
}

static void merge_weight(const hd_model *m, const hd_lora_base *b)
{
    hd_dev d = m->dev;
    const hd_lora *l = m->train->lora;
    const hd_params *ps = &m->train->params;
    bool has = b->A >= 0;
    merge j = {m, b, has ? ps->w + ps->p[b->A].at : NULL, has ? ps->w + ps->p[b->B].at : NULL, l->rank, l->scale, l->merged};
    hd_rows_run(&d, b->rows.n, merge_row, &j);
}

void hd_lora_pack(hd_model *m, bool all)
{
    struct hd_train *t = m->train;
    hd_lora *l = t->lora;
    for (int i = 0; i < l->n; i++) {
        hd_lora_base *b = &l->base[i];
        if (b->n_linear == 0 || (b->A < 0 && !all)) continue;
        hd_linear **w = t->linear + b->linear, *pair[] = {&b->a, &b->b};
        merge_weight(m, b);
        for (int k = 0; k < b->n_linear; k++) {
            const uint8_t *mark = w[k]->src.data;
            w[k]->src.data = (const uint8_t *)(l->merged + t->row0[b->linear + k] * b->rows.k);
            hd_linear_refresh(&m->dev, &w[k], 1);
            w[k]->src.data = mark;
        }
        if (b->A >= 0) hd_linear_refresh(&m->dev, pair, 2);
    }
}

/* ---- The beginning ------------------------------------------------------------------------------------- */

static uint64_t hash(const char *name) // FNV-1a
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    return h;
}

hd_status hd_lora_start(hd_model *m, hd_err *err)
{
    hd_status st;
    hd_lora *l = m->train->lora;
    hd_params *ps = &m->train->params;
    int64_t most = 0;
    if (l->rank > m->cfg.d_model)
        return hd_fail(err, HD_USAGE, "lora: rank %d: more than the model's width, %lld", l->rank, (long long)m->cfg.d_model);
    for (int i = 0; i < l->n; i++) {
        const hd_lora_base *b = &l->base[i];
        if (b->rows.n * b->rows.k > most) most = b->rows.n * b->rows.k;
        if (b->A < 0) continue;
        const hd_param *a = &ps->p[b->A];
        float *w = ps->w + a->at, top = 1 / sqrtf((float)a->k);
        hd_rng r;
        hd_rng_seed(&r, l->seed, hash(a->name));
        for (int64_t k = 0; k < a->n * a->k; k++) w[k] = top * (float)(2 * hd_rng_unit(&r) - 1);
    }
    l->merged_bytes = (size_t)most * sizeof *l->merged;
    HD_TRY(hd_alloc_aligned(&l->merged, l->merged_bytes, err));
    hd_lora_pack(m, true);
fail:
    return st;
}

/* ---- Gradients ----------------------------------------------------------------------------------------- */

static const hd_lora_base *base_of(const struct hd_train *t, const float *dw)
{
    int64_t at = dw - t->params.g;
    for (int i = 0; i < t->lora->n; i++) {
        const hd_lora_base *b = &t->lora->base[i];
        if (b->A >= 0 && t->params.p[b->A].at == at) return b;
    }
    return NULL;
}

typedef struct {
    const float *x;
    float *to;
    const int *row;
    int64_t ldx, k;
} gather;

static void gather_row(void *arg, int64_t i, int tid)
{
    const gather *j = arg;
    (void)tid;
    memcpy(j->to + i * j->k, j->x + j->row[i] * j->ldx, (size_t)j->k * sizeof(float));
}

static void one_job(hd_back *b, const hd_mm_grad *j)
{
    struct hd_train *t = b->p->m->train;
    const hd_lora_base *w = base_of(t, j->dw);
    hd_dev *d = b->p->d;
    size_t mark = b->work->used;
    int64_t r = t->lora->rank, ldx = j->x.ld, ldy = j->dy.ld;
    const float *x = j->x.f + j->x.m0 * ldx, *dy = j->dy.f + j->dy.m0 * ldy;
    assert(w && "a gradient of no adapter");
    if (j->x_row) {
        gather g = {x, hd_back_take(b, j->M * j->k), j->x_row, ldx, j->k};
        hd_rows_run(d, j->M, gather_row, &g);
        x = g.to;
        ldx = j->k;
    }
    float *ax = hd_back_take(b, j->M * r), *bdy = hd_back_take(b, j->M * r);
    hd_linear_mul(d, &w->a, x, ldx, j->M, ax, r, b->work);
    hd_linear_mul(d, w->b.back, dy, ldy, j->M, bdy, r, b->work);
    hd_flat_scale(d, ax, t->lora->scale, j->M * r);
    hd_flat_scale(d, bdy, t->lora->scale, j->M * r);
    hd_mm_grad both[] = {{.x = hd_side_of(ax, r), .dy = hd_side_of(dy, ldy), .M = j->M, .n = j->n, .k = r,
                          .dw = t->params.g + t->params.p[w->B].at, .ldw = r, .kind = j->kind},
                         {.x = hd_side_of(x, ldx), .dy = hd_side_of(bdy, r), .M = j->M, .n = r, .k = j->k, .dw = j->dw, .ldw = j->k, .kind = j->kind}};
    hd_mm_grad_run(d, both, 2, b->work);
    b->work->used = mark;
}

void hd_lora_grads(hd_back *b, const hd_mm_grad *jobs, int n)
{
    for (int i = 0; i < n; i++)
        if (jobs[i].dw) one_job(b, &jobs[i]);
}

/* ---- The merged model ---------------------------------------------------------------------------------- */

int hd_lora_n_weights(const hd_model *m) { return m->train && m->train->lora ? m->train->lora->n : 0; }

void hd_lora_weight_at(const hd_model *m, int i, hd_param *p)
{
    const hd_lora_base *b = &m->train->lora->base[i];
    *p = (hd_param){.slot = b->slot, .layer = b->layer, .expert = b->expert, .n = b->rows.n, .k = b->rows.k, .vector = b->vector >= 0};
    hd_slot_name(p->name, b->slot->hf, b->layer < 0 ? 0 : b->layer, b->expert < 0 ? 0 : b->expert);
}

const float *hd_lora_weight_read(const hd_model *m, int i)
{
    const hd_lora_base *b = &m->train->lora->base[i];
    const hd_params *ps = &m->train->params;
    if (b->vector >= 0) return ps->w + ps->p[b->vector].at;
    merge_weight(m, b);
    return m->train->lora->merged;
}
