/* The dense feed-forward network: down(silu(gate(h)) * up(h))   (SwiGLU, arXiv:2002.05202). */
#include "model/tape.h"

typedef struct {
    hd_pass *p;
    int64_t F;
    float *gate, *up;
    float *act; // [threads, F] with a tape, which keeps gate as it is; else NULL: gate itself
    const hd_blobs *blobs;
} swiglu;

static void swiglu_row(void *arg, int64_t row, int tid)
{
    const swiglu *s = arg;
    const hd_kernels *k = s->p->d->k;
    float *g = s->gate + row * s->F, *a = s->act ? s->act + tid * s->F : g;
    k->silu_mul(a, g, s->up + row * s->F, s->F);
    hd_blobs_row(s->blobs, k, row, a);
}

size_t hd_block_ffn_bytes(const hd_config *c, int M)
{
    return hd_blobs_bytes(c->d_model, M) + 2 * (size_t)c->n_ffn * (size_t)M * 4 +
           hd_blobs_bytes(c->n_ffn, M) + 16 * 64;
}

void hd_block_ffn(hd_pass *p, const hd_layer *l)
{
    int64_t F = l->ffn.gate.src.n;
    const hd_linear *in[] = {&l->ffn.gate, &l->ffn.up}, *out[] = {&l->ffn.down};
    hd_blobs h, act;
    swiglu s = {
        .p = p, .F = F, .gate = hd_pass_keep(p, p->M * F), .up = hd_pass_keep(p, p->M * F), .blobs = &act};
    if (p->tape) s.act = hd_pass_take(p, hd_pool_threads(p->d->pool) * F);
    hd_blobs_init(&h, p, p->D, p->M, in, 2);
    hd_blobs_init(&act, p, F, p->M, out, 1);
    hd_pass_norm(p, l->ffn_norm, &h, NULL);
    if (p->tape) p->tape->x_ffn = p->x, p->tape->gate = s.gate, p->tape->up = s.up;
    hd_mm both[] = {hd_blobs_job(&h, p, &l->ffn.gate, 0, p->M, s.gate, F),
                    hd_blobs_job(&h, p, &l->ffn.up, 0, p->M, s.up, F)};
    hd_mm_run(p->d, both, 2);
    hd_rows_run(p->d, p->M, swiglu_row, &s);
    hd_mm job = hd_blobs_job(&act, p, &l->ffn.down, 0, p->M, p->y, p->D);
    hd_mm_run(p->d, &job, 1);
    p->pending = true;
}
