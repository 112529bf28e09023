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

hd_mm_grad hd_back_job(const hd_back *b, const hd_linear *w, const float *x, int64_t ldx, const float *dy, int64_t ldy, int M)
{
    return (hd_mm_grad){.x = x,
                        .ldx = ldx,
                        .dy = dy,
                        .ldy = ldy,
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
    float *h;
    int64_t ldx, n;
    float eps;
} norm_rows;

static void norm_row(void *arg, int64_t row, int tid)
{
    const norm_rows *j = arg;
    (void)tid;
    j->b->p->d->k->rmsnorm(j->h + row * j->n, j->x + row * j->ldx, j->g, j->n, j->eps);
}

float *hd_back_norm(hd_back *b, const float *x, int64_t ldx, const float *g, int M, int64_t n, float eps)
{
    norm_rows j = {b, x, g, hd_back_take(b, M * n), ldx, n, eps};
    hd_rows_run(b->p->d, M, norm_row, &j);
    return j.h;
}

void hd_back_norm_add(hd_back *b, const float *dh, const float *x, const float *g)
{
    int64_t D = b->p->D;
    hd_rmsnorm_back(b->p->d, b->dx, D, true, hd_grad_of(b, g), dh, D, x, D, g, b->p->M, D, b->p->m->cfg.norm_eps, b->work);
}
