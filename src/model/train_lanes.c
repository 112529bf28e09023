/* Passes side by side.  A small model's pass has small arrays: threads that share each of its operations wait
 * for one another some hundred times, and meet rows that another one wrote.  Here a thread makes whole
 * passes, with work memory and a tape of its own.
 *
 *   lane     an array of gradients; the passes of a call go to the lanes in equal runs, one behind the other
 *   worker   memory and threads for a pass at a time, over the model's weights; it takes a lane after a lane
 *   sum      of the lanes, in their order
 *
 * How many lanes there are follows from the number of weights, and which passes are a lane's from the number
 * of passes: threads change no bits. */
#include <assert.h>
#include <string.h>

#include "model/tape.h"

enum {
    LANES = 8,
    ALL_FLOATS = 32 << 20, // of all lanes: to clear and to add more costs what sharing costs
    SUM_FLOATS = 4096,     // summed at a time, in the first-level cache
};

struct hd_lanes {
    int n, n_workers, n_open;
    hd_model *worker;       // [n_workers] the model, but for its device, work memory and `train`
    struct hd_train *train; // [n_workers] the model's, but for tape, work memory, cache and, a lane's, the gradients
    float *g;               // [n, n_flat]
    size_t g_bytes;
    int64_t *load; // [n, n_load]
    int64_t n_load;
    bool used[LANES]; // since the last sum
};

static int lanes_for(int64_t n_flat)
{
    int n = LANES;
    while (n > 1 && n * n_flat > ALL_FLOATS) n /= 2;
    return n;
}

static int workers_for(int n_lanes, int n_threads) { return n_threads < n_lanes ? n_threads : n_lanes; }

int hd_train_most_passes(const hd_model *m) { return m->train->lanes ? HD_MOST_PASSES : 1; }

/* ---- Open, close --------------------------------------------------------------------------------------- */

static hd_status open_worker(struct hd_lanes *l, const hd_model *m, int n_threads, hd_err *err)
{
    hd_model *w = &l->worker[l->n_open];
    struct hd_train *t = &l->train[l->n_open++];
    *w = *m;
    *t = *m->train;
    w->train = t;
    w->dev = (hd_dev){0};
    w->work = t->tape = t->work = (hd_arena){0};
    t->cache = NULL;
    return hd_train_open_pass(w, n_threads, err);
}

hd_status hd_lanes_open(struct hd_lanes **out, const hd_model *m, hd_err *err)
{
    hd_status st = HD_OK;
    struct hd_lanes *l = NULL;
    const int n = lanes_for(m->train->params.n_flat), n_threads = hd_pool_threads(m->dev.pool), n_workers = workers_for(n, n_threads);
    *out = NULL;
    if (n == 1 || m->ranks || m->train->lora) return HD_OK;
    HD_TRY(hd_alloc(&l, sizeof *l, err));
    l->n = n;
    l->n_workers = n_workers;
    l->n_load = (int64_t)m->n_layer * m->cfg.n_experts;
    l->g_bytes = (size_t)n * m->train->w_bytes;
    HD_TRY(hd_alloc_aligned(&l->g, l->g_bytes, err));
    HD_TRY(hd_alloc_n(&l->load, (size_t)n, (size_t)l->n_load * sizeof *l->load, err));
    HD_TRY(hd_alloc_n(&l->worker, (size_t)n_workers, sizeof *l->worker, err));
    HD_TRY(hd_alloc_n(&l->train, (size_t)n_workers, sizeof *l->train, err));
    while (l->n_open < n_workers) HD_TRY(open_worker(l, m, n_threads / n_workers, err));
    *out = l;
    return HD_OK;
fail:
    hd_lanes_close(l);
    return st;
}

void hd_lanes_close(struct hd_lanes *l)
{
    if (!l) return;
    for (int i = 0; i < l->n_open; i++) hd_train_close_pass(&l->worker[i]);
    hd_free_aligned(l->g, l->g_bytes);
    free(l->load);
    free(l->worker);
    free(l->train);
    free(l);
}

void hd_train_plan_lanes(hd_train_plan *p, const hd_config *c, int rows, int n_threads)
{
    const int n = lanes_for((int64_t)(p->masters / sizeof(float))), n_workers = workers_for(n, n_threads);
    p->gradients *= 1 + (uint64_t)n;
    p->tape *= (uint64_t)n_workers;
    p->cache *= (uint64_t)n_workers;
    p->work += (uint64_t)n_workers * hd_train_work_bytes(c, rows, n_threads / n_workers); // beside the model's, for validation
}

/* ---- Passes -------------------------------------------------------------------------------------------- */

typedef struct {
    hd_model *m;
    const hd_micro *b;
    const hd_pass_opts *o;
    int n, n_lanes; // passes; lanes that have some
    hd_pass_result r[LANES];
    hd_status st[LANES];
    hd_err err[LANES];
} call;

/* The passes of a lane, by w: their gradients are added to the lane's. */
static void run_lane(call *c, hd_model *w, int64_t lane)
{
    struct hd_lanes *l = c->m->train->lanes;
    hd_params *p = &w->train->params;
    float *g = p->g;
    const int64_t end = (lane + 1) * c->n / c->n_lanes;
    p->g = l->g + lane * p->n_flat;
    if (!l->used[lane]) memset(p->g, 0, (size_t)p->n_flat * sizeof *p->g);
    l->used[lane] = true;
    for (int64_t i = lane * c->n / c->n_lanes; i < end && c->st[lane] == HD_OK; i++)
        c->st[lane] = hd_train_pass(w, &c->b[i], c->o, &c->r[lane], &c->err[lane]);
    p->g = g;
}

static void next_lane(void *arg, int64_t lane, int tid)
{
    call *c = arg;
    struct hd_lanes *l = c->m->train->lanes;
    run_lane(c, &l->worker[l->n_workers < l->n ? tid : lane], lane); // a lane has its own where threads outnumber them
}

static void add_result(hd_pass_result *to, const hd_pass_result *r, int64_t n_load)
{
    to->loss += r->loss;
    to->mtp_loss += r->mtp_loss;
    to->distil_loss += r->distil_loss;
    to->balance_loss += r->balance_loss;
    to->n_target += r->n_target;
    to->n_mtp += r->n_mtp;
    for (int64_t i = 0; to->load && i < n_load; i++) to->load[i] += r->load[i];
}

hd_status hd_train_passes(hd_model *m, const hd_micro *b, int n, const hd_pass_opts *o, hd_pass_result *r, hd_err *err)
{
    struct hd_lanes *l = m->train->lanes;
    assert(n >= 1 && n <= hd_train_most_passes(m) && o->backward && !r->row_loss);
    if (!l) return hd_train_pass(m, b, o, r, err);
    call c = {.m = m, .b = b, .o = o, .n = n, .n_lanes = n < l->n ? n : l->n};
    memset(l->load, 0, (size_t)(l->n * l->n_load) * sizeof *l->load);
    for (int i = 0; r->load && i < c.n_lanes; i++) c.r[i].load = l->load + i * l->n_load;
    if (n % l->n_workers == 0 || n >= 4 * l->n_workers) hd_pool_run(m->dev.pool, c.n_lanes, next_lane, &c);
    else // some would have nothing to do meanwhile: all threads make each
        for (int i = 0; i < c.n_lanes; i++) run_lane(&c, m, i);
    for (int i = 0; i < c.n_lanes; i++) {
        if (c.st[i] != HD_OK) return hd_fail(err, c.st[i], "%s", c.err[i].msg);
        add_result(r, &c.r[i], l->n_load);
    }
    return HD_OK;
}

typedef struct {
    const hd_kernels *k;
    const struct hd_lanes *l;
    float *g;
    int64_t n_flat;
} sum_job;

static void sum_part(void *arg, int64_t part, int tid)
{
    const sum_job *j = arg;
    const int64_t at = part * SUM_FLOATS, n = j->n_flat - at < SUM_FLOATS ? j->n_flat - at : SUM_FLOATS;
    (void)tid;
    for (int i = 0; i < j->l->n; i++)
        if (j->l->used[i]) j->k->add(j->g + at, j->l->g + i * j->n_flat + at, n);
}

void hd_train_sum(hd_model *m)
{
    struct hd_lanes *l = m->train->lanes;
    if (!l) return;
    sum_job j = {m->dev.k, l, m->train->params.g, m->train->params.n_flat};
    hd_pool_run(m->dev.pool, (j.n_flat + SUM_FLOATS - 1) / SUM_FLOATS, sum_part, &j);
    memset(l->used, 0, sizeof l->used);
}
