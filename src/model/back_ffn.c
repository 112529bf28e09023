/* The way back through the dense network y = down(silu(gate h) * up h):
 *
 *   da = down^T dy   (dgate, dup) = swiglu'(da)   dh = gate^T dgate + up^T dup */
#include "model/tape.h"

hd_swiglu_grad hd_back_swiglu_of(hd_back *b, const hd_ffn *f, float *gate, float *up, const float *da, int M, int64_t F, hd_side out[3])
{
    const bool by_act = hd_back_by_act(b, f);
    hd_swiglu_grad g = {.M = M, .n = F, .gate = gate, .up = up, .da = da};
    if (!by_act) g.dgate = gate, g.dup = up, g.a = hd_back_take(b, M * F);
    if (f) g.act[0] = hd_back_act(b, f->gate.back, M), g.act[1] = hd_back_act(b, f->up.back, M);
    if (f && by_act) g.act[2] = hd_back_act(b, &f->down, M);
    const float *rows[] = {g.dgate, g.dup, g.a};
    for (int i = 0; i < 3; i++) out[i] = (hd_side){rows[i], F, g.act[i], 0};
    return g;
}

void hd_back_swiglu(hd_back *b, const hd_ffn *f, hd_side h, float *dh, bool add)
{
    size_t mark = b->work->used;
    int M = b->p->M;
    int64_t F = f->gate.src.n, D = b->p->D;
    float *da = hd_back_take(b, M * F);
    hd_side dy = hd_side_of(b->dx, D), s[3];
    const hd_swiglu_grad g = hd_back_swiglu_of(b, f, b->t->gate, b->t->up, da, M, F, s);
    hd_back_mul(b, &(const hd_linear *){&f->down}, &dy, 1, M, da, F, false);
    hd_swiglu_back(b->p->d, &g);
    hd_back_mul(b, (const hd_linear *const[]){&f->gate, &f->up}, s, 2, M, dh, D, add);
    hd_mm_grad jobs[] = {hd_back_job(b, &f->down, s[2], dy, M), hd_back_job(b, &f->gate, h, s[0], M), hd_back_job(b, &f->up, h, s[1], M)};
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
