/* See optim.h.  AdamW's work is cut into chunks once, at the beginning: they are all alike, and a step is one
 * parallel region over them. */
#include "train/optim.h"

#include <math.h>
#include <stdio.h>

#include "kernels/optim.h"
#include "train/muon.h"

enum { CHUNK = 16384 }; // numbers: some microseconds of work, four arrays of it in the second-level cache

typedef enum { GROUP_MATRIX, GROUP_VECTOR, GROUP_EMBED, N_GROUPS } group;

typedef struct {
    int param;
    bool muon;
    size_t m, v; // where its moments begin in `state`; Muon has no v
    group group;
} owned;

typedef struct {
    int64_t at, n; // in the flat arrays
    size_t m, v;
    group group;
} chunk;

struct hd_optim {
    const hd_params *p;
    hd_optim_config c;
    owned *own;
    int n_own, n_state;
    chunk *chunk;
    int64_t n_chunks;
    hd_muon *muon; // NULL: no such parameter
    uint8_t *state;
    size_t state_bytes;
};

const hd_optim_config hd_optim_defaults = {
    .matrices = HD_OPT_MUON,
    .beta1 = 0.9,
    .beta2 = 0.95,
    .eps = 1e-8,
    .weight_decay = 0.1f,
    .muon_momentum = 0.95f,
    .muon_steps = 5,
    .muon_lr_scale = 1,
    .embed_lr_scale = 1,
};

/* ---- Who is what ---- */

static hd_slot_kind kind_of(const hd_param *p) { return p->slot ? p->slot->kind : HD_SLOT_MATRIX; }

bool hd_optim_is_muon(const hd_optim_config *c, const hd_param *p)
{
    if (c->matrices != HD_OPT_MUON || p->vector || p->frozen) return false;
    switch (kind_of(p)) {
    case HD_SLOT_MATRIX:
    case HD_SLOT_EXPERT:
    case HD_SLOT_KV_B: return true;
    default: return false;
    }
}

static group group_of(const hd_param *p)
{
    if (p->vector) return GROUP_VECTOR;
    hd_slot_kind k = kind_of(p);
    return k == HD_SLOT_EMBED || k == HD_SLOT_HEAD ? GROUP_EMBED : GROUP_MATRIX;
}

/* ---- Memory ---- */

/* Bytes of one moment of p, to the next multiple of 64. */
static size_t moment_bytes(const hd_optim_config *c, const hd_param *p)
{
    return ((size_t)(p->n * p->k) * (c->moments_bf16 ? 2 : 4) + 63) / 64 * 64;
}

uint64_t hd_optim_bytes(const hd_params *p, const hd_optim_config *c, const int *owner, int rank)
{
    uint64_t bytes = 0;
    hd_muon_plan plan = {0};
    for (int i = 0; i < p->n; i++) {
        const hd_param *q = &p->p[i];
        if (q->frozen || (owner && owner[i] != rank)) continue;
        bool muon = hd_optim_is_muon(c, q);
        bytes += moment_bytes(c, q) * (muon ? 1 : 2);
        if (muon) hd_muon_plan_add(&plan, q->n, q->k);
    }
    return bytes + plan.bytes;
}

static hd_status config_check(const hd_optim_config *c, hd_err *err)
{
    const char *what = NULL;
    if (!(c->beta1 >= 0 && c->beta1 < 1)) what = "beta1: must be in [0, 1)";
    else if (!(c->beta2 >= 0 && c->beta2 < 1)) what = "beta2: must be in [0, 1)";
    else if (!(c->eps > 0)) what = "eps: must be above 0";
    else if (!(c->weight_decay >= 0)) what = "weight_decay: must not be negative";
    else if (!(c->muon_momentum >= 0 && c->muon_momentum < 1)) what = "muon_momentum: must be in [0, 1)";
    else if (c->muon_steps < 1 || c->muon_steps > 100) what = "muon_steps: must be 1 to 100";
    else if (c->moments_bf16 && c->beta2 > 0.98)
        what = "beta2: with moments in bf16 it must be at most 0.98: the average would not move any more";
    return what ? hd_fail(err, HD_USAGE, "optimizer: %s", what) : HD_OK;
}

/* Lists what is owned and lays out its state. */
static hd_status own(hd_optim *o, const int *owner, int rank, hd_err *err)
{
    hd_status st;
    size_t used = 0;
    HD_TRY(hd_alloc_n(&o->own, (size_t)o->p->n, sizeof *o->own, err));
    for (int i = 0; i < o->p->n; i++) {
        const hd_param *p = &o->p->p[i];
        if (p->frozen || (owner && owner[i] != rank)) continue;
        owned *w = &o->own[o->n_own++];
        size_t bytes = moment_bytes(&o->c, p);
        *w = (owned){.param = i, .muon = hd_optim_is_muon(&o->c, p), .m = used, .group = group_of(p)};
        used += bytes;
        o->n_state++;
        if (w->muon) continue;
        w->v = used;
        used += bytes;
        o->n_state++;
        o->n_chunks += (p->n * p->k + CHUNK - 1) / CHUNK;
    }
    for (int i = 0; i < o->p->n; i++) o->n_state += o->p->p[i].adapter;
    o->state_bytes = used;
    HD_TRY(hd_alloc_aligned(&o->state, used, err));
fail:
    return st;
}

static hd_status cut(hd_optim *o, hd_err *err)
{
    hd_status st;
    chunk *c;
    size_t size = o->c.moments_bf16 ? 2 : 4;
    HD_TRY(hd_alloc_n(&o->chunk, (size_t)o->n_chunks, sizeof *o->chunk, err));
    c = o->chunk;
    for (int i = 0; i < o->n_own; i++) {
        const owned *w = &o->own[i];
        const hd_param *p = &o->p->p[w->param];
        if (w->muon) continue;
        for (int64_t at = 0, n = p->n * p->k; at < n; at += CHUNK) {
            size_t past = (size_t)at * size;
            *c++ = (chunk){p->at + at, n - at < CHUNK ? n - at : CHUNK, w->m + past, w->v + past, w->group};
        }
    }
fail:
    return st;
}

static hd_status open_muon(hd_optim *o, hd_err *err)
{
    hd_status st;
    hd_muon_matrix *list = NULL;
    int n = 0;
    HD_TRY(hd_alloc_n(&list, (size_t)o->n_own, sizeof *list, err));
    for (int i = 0; i < o->n_own; i++) {
        const hd_param *p = &o->p->p[o->own[i].param];
        if (o->own[i].muon) list[n++] = (hd_muon_matrix){p->at, p->n, p->k, o->state + o->own[i].m};
    }
    if (n > 0) HD_TRY(hd_muon_open(&o->muon, list, n, o->c.muon_steps, o->c.moments_bf16, err));
fail:
    free(list);
    return st;
}

hd_status hd_optim_open(hd_optim **out, const hd_params *p, const hd_optim_config *c, const int *owner, int rank, hd_err *err)
{
    hd_status st;
    hd_optim *o = NULL;
    *out = NULL;
    HD_TRY(config_check(c, err));
    HD_TRY(hd_alloc(&o, sizeof *o, err));
    o->p = p;
    o->c = *c;
    HD_TRY(own(o, owner, rank, err));
    HD_TRY(cut(o, err));
    HD_TRY(open_muon(o, err));
    *out = o;
    return HD_OK;
fail:
    hd_optim_close(o);
    return st;
}

void hd_optim_close(hd_optim *o)
{
    if (!o) return;
    hd_muon_close(o->muon);
    if (o->state) hd_free_aligned(o->state, o->state_bytes);
    free(o->chunk);
    free(o->own);
    free(o);
}

/* ---- A step ---- */

typedef struct {
    const hd_optim *o;
    const hd_optim_kernels *k;
    float *w;
    const float *g;
    hd_adamw group[N_GROUPS];
} step_job;

static void step_chunk(void *arg, int64_t i, int tid)
{
    const step_job *j = arg;
    const chunk *c = &j->o->chunk[i];
    void *m = j->o->state + c->m, *v = j->o->state + c->v;
    (void)tid;
    if (j->o->c.moments_bf16) j->k->adamw_bf16(j->w + c->at, m, v, j->g + c->at, c->n, &j->group[c->group]);
    else j->k->adamw(j->w + c->at, m, v, j->g + c->at, c->n, &j->group[c->group]);
}

void hd_optim_step(hd_optim *o, hd_dev *d, float *w, const float *g, float lr, float grad_scale, int64_t step)
{
    const hd_optim_config *c = &o->c;
    step_job j = {.o = o, .k = d->k->optim, .w = w, .g = g};
    for (int i = 0; i < N_GROUPS; i++) {
        double rate = (double)lr * (i == GROUP_EMBED ? (double)c->embed_lr_scale : 1);
        double decay = i == GROUP_MATRIX ? (double)c->weight_decay : 0;
        j.group[i] = (hd_adamw){
            .grad_scale = grad_scale,
            .beta1 = (float)c->beta1,
            .beta2 = (float)c->beta2,
            .rest1 = (float)(1 - c->beta1),
            .rest2 = (float)(1 - c->beta2),
            .rate = (float)(rate / (1 - pow(c->beta1, (double)step))),
            .root = (float)(1 / sqrt(1 - pow(c->beta2, (double)step))),
            .eps = (float)c->eps,
            .keep = (float)(1 - rate * decay),
        };
    }
    hd_pool_run(d->pool, o->n_chunks, step_chunk, &j);
    if (o->muon)
        hd_muon_step(o->muon, d, w, g, lr * c->muon_lr_scale, (float)(1 - (double)lr * (double)c->weight_decay), c->muon_momentum,
                     grad_scale);
}

float hd_clip_scale(double norm, double clip) { return clip > 0 && norm > clip ? (float)(clip / norm) : 1; }

/* ---- State ---- */

int hd_optim_n_state(const hd_optim *o) { return o->n_state; }

static void adapter_at(const hd_optim *o, int i, hd_optim_state *s)
{
    int k = 0;
    while (!o->p->p[k].adapter || i-- > 0) k++;
    const hd_param *p = &o->p->p[k];
    snprintf(s->name, sizeof s->name, "weight.%s", p->name);
    s->param = k;
    s->n = p->n * p->k;
    s->type = HD_F32;
    s->data = o->p->w + p->at;
}

void hd_optim_state_at(const hd_optim *o, int i, hd_optim_state *s)
{
    const owned *w = o->own, *end = w + o->n_own;
    for (; w < end && i >= (w->muon ? 1 : 2); w++) i -= w->muon ? 1 : 2;
    if (w == end) {
        adapter_at(o, i, s);
        return;
    }
    bool second = i == 1;
    const hd_param *p = &o->p->p[w->param];
    snprintf(s->name, sizeof s->name, "%s.%s", second ? "exp_avg_sq" : "exp_avg", p->name);
    s->param = w->param;
    s->n = p->n * p->k;
    s->type = o->c.moments_bf16 ? HD_BF16 : HD_F32;
    s->data = o->state + (second ? w->v : w->m);
}
