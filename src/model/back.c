/* What the ways back through the blocks share: work memory, places of gradients, products. */
#include <assert.h>

#include "model/tape.h"

float *hd_back_take(hd_back *b, int64_t n)
{
    float *f = hd_arena_take(b->work, (size_t)n * sizeof *f);
    assert(f && "backward arena planned too small");
    return f;
}

float *hd_grad_of(const hd_back *b, const float *master)
{
    assert(master >= b->params->w && master < b->params->w + b->params->n_flat);
    return b->params->g + (master - b->params->w);
}

bool hd_back_by_act(const hd_back *b, const hd_ffn *f)
{
    const struct hd_train *t = b->p->m->train;
    if (f && (f->gate.bias || f->up.bias || f->down.bias)) return false;
    return !t->lora && t->precision == HD_TRAIN_BF16 && hd_mm_grad_by_act(b->p->d, HD_PANEL_BF16);
}

static hd_act *take_acts(hd_back *b, const hd_linear *const *w, int n, int M)
{
    hd_act *a = hd_arena_take(b->work, (size_t)n * sizeof *a);
    assert(a && "backward arena planned too small");
    for (int i = 0; i < n; i++) hd_act_init(&a[i], hd_linear_act(b->p->d, w[i]), w[i]->src.k, M, b->work);
    return a;
}

hd_act *hd_back_act(hd_back *b, const hd_linear *w, int M) { return take_acts(b, &w, 1, M); }

void hd_back_pack(hd_back *b, hd_side *s, const hd_linear *const *w, int n, int M)
{
    hd_act *a = take_acts(b, w, n, M);
    hd_term *t = hd_arena_take(b->work, (size_t)n * sizeof *t);
    assert(t && "backward arena planned too small");
    for (int i = 0; i < n; i++) {
        t[i] = (hd_term){w[i], s[i].f, s[i].ld};
        s[i].act = &a[i];
    }
    hd_acts_pack(b->p->d, a, t, n);
}

void hd_back_mul(hd_back *b, const hd_linear *const *w, hd_side *dy, int n, int M, float *dx, int64_t ld, bool add)
{
    const hd_linear *back[HD_MAX_TERMS];
    hd_mm job[HD_MAX_TERMS];
    assert(n >= 1 && n <= HD_MAX_TERMS);
    for (int i = 0; i < n; i++) back[i] = w[i]->back;
    if (!dy[0].act) hd_back_pack(b, dy, back, n, M);
    for (int i = 0; i < n; i++)
        job[i] = (hd_mm){.w = back[i], .act = dy[i].act, .M = M, .y = dx, .ldy = ld, .add = add, .n_more = i == 0 ? n - 1 : 0};
    hd_mm_run(b->p->d, job, n);
}

hd_mm_grad hd_back_job(const hd_back *b, const hd_linear *w, hd_side x, hd_side dy, int M)
{
    return (hd_mm_grad){.x = x,
                        .dy = dy,
                        .M = M,
                        .n = w->src.n,
                        .k = w->src.k,
                        .dw = w->src.data ? hd_grad_of(b, (const float *)(const void *)w->src.data) : NULL,
                        .ldw = w->src.k,
                        .db = w->bias ? hd_grad_of(b, w->bias) : NULL,
                        .kind = w->kind->id};
}

void hd_back_grads(hd_back *b, const hd_mm_grad *jobs, int n)
{
    if (b->p->m->train->lora) hd_lora_grads(b, jobs, n);
    else hd_mm_grad_run(b->p->d, jobs, n, b->work);
}

typedef struct {
    const hd_back *b;
    const float *x, *g;
    hd_side h;
    float *to; // h.f
    int64_t ldx, n;
    float eps;
} norm_rows;

static void norm_row(void *arg, int64_t row, int tid)
{
    const norm_rows *j = arg;
    const hd_dev *d = j->b->p->d;
    float *h = j->to ? j->to + row * j->n : hd_dev_row(d, tid);
    d->k->rmsnorm(h, j->x + row * j->ldx, j->g, j->n, j->eps);
    if (j->h.act) hd_act_pack_row(j->h.act, d->k, d->fp8, row, h);
}

hd_side hd_back_norm(hd_back *b, const float *x, int64_t ldx, const float *g, const hd_linear *w, int M, float eps, bool f)
{
    norm_rows j = {.b = b, .x = x, .g = g, .ldx = ldx, .n = w->src.k, .eps = eps};
    const bool by_act = hd_back_by_act(b, NULL);
    if (by_act) j.h.act = hd_back_act(b, w, M);
    if (f || !by_act) j.h.f = j.to = hd_back_take(b, M * j.n), j.h.ld = j.n;
    hd_rows_run(b->p->d, M, norm_row, &j);
    return j.h;
}

void hd_back_norm_add(hd_back *b, const float *dh, const float *x, const float *g)
{
    int64_t D = b->p->D;
    hd_rmsnorm_back(b->p->d, b->dx, D, true, hd_grad_of(b, g), dh, D, x, D, g, b->p->M, D, b->p->m->cfg.norm_eps, b->work);
}
