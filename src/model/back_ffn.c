/* The way back through the dense network y = down(silu(gate h) * up h):
 *
 *   da = down^T dy   (dgate, dup) = swiglu'(da)   dh = gate^T dgate + up^T dup */
#include "model/tape.h"

void hd_back_ffn(hd_back *b, const hd_layer *l)
{
    const hd_layer_tape *t = b->t;
    hd_pass *p = b->p;
    size_t mark = b->work->used;
    int M = p->M;
    int64_t F = l->ffn.gate.src.n, D = p->D;
    float *h = hd_back_norm(b, t->x_ffn, D, l->ffn_norm, M, D, p->m->cfg.norm_eps);
    float *da = hd_back_take(b, M * F), *a = hd_back_take(b, M * F), *dh = hd_back_take(b, M * D);
    hd_linear_mul(p->d, l->ffn.down.back, b->dx, D, M, da, F, b->work);
    hd_silu_mul_back(p->d, t->gate, t->up, a, da, t->gate, t->up, M, F); // the tape's arrays become their gradients
    hd_mm_grad jobs[] = {hd_back_job(b, &l->ffn.down, a, F, b->dx, D, M), hd_back_job(b, &l->ffn.gate, h, D, t->gate, F, M),
                         hd_back_job(b, &l->ffn.up, h, D, t->up, F, M)};
    hd_back_grads(b, jobs, 3);
    const hd_term both[] = {{l->ffn.gate.back, t->gate, F}, {l->ffn.up.back, t->up, F}};
    hd_linear_sum(p->d, both, 2, M, dh, D, false, b->work);
    hd_back_norm_add(b, dh, t->x_ffn, l->ffn_norm);
    b->work->used = mark;
}
