/* The way back through the dense network y = down(silu(gate h) * up h):
 *
 *   da = down^T dy   (dgate, dup) = swiglu'(da)   dh = gate^T dgate + up^T dup */
#include "model/tape.h"

void hd_back_swiglu(hd_back *b, const hd_ffn *f, hd_side h, float *dh, bool add)
{
    const hd_layer_tape *t = b->t;
    const bool by_act = hd_back_by_act(b, f);
    size_t mark = b->work->used;
    int M = b->p->M;
    int64_t F = f->gate.src.n, D = b->p->D;
    float *da = hd_back_take(b, M * F), *rows = by_act ? NULL : hd_back_take(b, M * F);
    float *to[2] = {by_act ? NULL : t->gate, by_act ? NULL : t->up}; // the tape's arrays become their gradients
    hd_side dy = hd_side_of(b->dx, D), a = hd_side_of(rows, F), d[2] = {hd_side_of(to[0], F), hd_side_of(to[1], F)};
    hd_back_mul(b, &(const hd_linear *){&f->down}, &dy, 1, M, da, F, false);
    d[0].act = hd_back_act(b, f->gate.back, M), d[1].act = hd_back_act(b, f->up.back, M);
    if (by_act) a.act = hd_back_act(b, &f->down, M);
    hd_silu_mul_back(b->p->d, to[0], to[1], rows, da, t->gate, t->up, M, F, (const hd_act *const[]){d[0].act, d[1].act, a.act});
    hd_back_mul(b, (const hd_linear *const[]){&f->gate, &f->up}, d, 2, M, dh, D, add);
    hd_mm_grad jobs[] = {hd_back_job(b, &f->down, a, dy, M), hd_back_job(b, &f->gate, h, d[0], M), hd_back_job(b, &f->up, h, d[1], M)};
    hd_back_grads(b, jobs, 3);
    b->work->used = mark;
}

void hd_back_ffn(hd_back *b, const hd_layer *l)
{
    size_t mark = b->work->used;
    const hd_side h = hd_back_norm(b, b->t->x_ffn, b->p->D, l->ffn_norm, &l->ffn.gate, b->p->M, b->p->m->cfg.norm_eps, false);
    float *dh = hd_back_take(b, b->p->M * b->p->D);
    hd_back_swiglu(b, &l->ffn, h, dh, false);
    hd_back_norm_add(b, dh, b->t->x_ffn, l->ffn_norm);
    b->work->used = mark;
}
