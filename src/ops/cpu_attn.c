/* Attention's work, cut into pieces and handed to threads.
 *
 * A tile is up to HD_ATTN_TILE query rows of one sequence and one key head (rows of the batch times heads of
 * the group).  A tile is one task, which walks the tile's segments and merges as it goes.  A tile that is a
 * large part of all the work (one sequence in decode: few tiles, many segments) becomes one task per segment
 * instead; their results wait in `work` and are merged, in the same order by the same function, in a second
 * parallel region.  So the cut decides who computes and when, never what: bits do not depend on it. */
#include "ops/attn.h"

#include <assert.h>
#include <math.h>

typedef struct {
    int seq, kv_head, first, n; // see hd_attn_tile
    int n_seg;                  // segments that its last row sees
    int64_t partial;            // floats before its results in `partials`; -1: not split
} tile_job;

typedef struct {
    int tile, seg, n_seg;
} task;

typedef struct {
    const hd_dev *d;
    const hd_attn *a;
    int group, ldo;
    int n_threads;
    int64_t n_tiles, n_tasks, n_split, cost, n_partial;
    tile_job *tiles;
    task *tasks;
    int *split; // tiles that are split
    float *partials;
    uint8_t *scratch;
    size_t scratch_bytes; // of one thread
} plan;

static int n_segments(int32_t pos) { return pos / HD_SEG_TOK + 1; }

/* Floats that one segment of a tile of n rows leaves: o, m, l. */
static int64_t partial_floats(int n, int ldo) { return (int64_t)n * ldo + 2 * HD_ATTN_TILE; }

static size_t round64(size_t n) { return (n + 63) & ~(size_t)63; }

/* Walk the tiles; `fill` says whether to write them down or only to count (sizes are asked for
 * before the run). */
static void plan_tiles(plan *p, bool fill)
{
    const hd_attn *a = p->a;
    p->n_tiles = p->n_split = p->n_tasks = p->n_partial = 0;
    int64_t cost = 0;
    for (int s = 0; s < a->n_seqs; s++) {
        const hd_attn_seq *seq = &a->seqs[s];
        int rows = seq->n_rows * p->group;
        for (int first = 0; first < rows; first += HD_ATTN_TILE) {
            int n = rows - first < HD_ATTN_TILE ? rows - first : HD_ATTN_TILE;
            int n_seg = n_segments(a->pos[seq->row0 + (first + n - 1) / p->group]);
            /* cost: segments times rows; reading the keys counts like 8 rows */
            int64_t c = (int64_t)n_seg * (n + 8);
            cost += c * a->kv.n_kv;
            bool split = p->n_threads > 1 && n_seg > 1 && c * 4 * p->n_threads > p->cost;
            for (int h = 0; h < a->kv.n_kv; h++) {
                if (fill) {
                    p->tiles[p->n_tiles] = (tile_job){s, h, first, n, n_seg, split ? p->n_partial : -1};
                    for (int g = 0; g < (split ? n_seg : 1); g++)
                        p->tasks[p->n_tasks + g] = (task){(int)p->n_tiles, g, split ? 1 : n_seg};
                    if (split) p->split[p->n_split] = (int)p->n_tiles;
                }
                p->n_tiles++;
                p->n_tasks += split ? n_seg : 1;
                p->n_split += split;
                if (split) p->n_partial += n_seg * partial_floats(n, p->ldo);
            }
        }
    }
    p->cost = cost;
}

static plan plan_of(const hd_attn *a, int n_threads)
{
    plan p = {.a = a, .group = a->n_heads / a->kv.n_kv, .ldo = hd_attn_ldo(a->kv.dv), .n_threads = n_threads};
    p.scratch_bytes = round64(hd_attn_scratch_bytes(&a->kv)) + 2 * (size_t)HD_ATTN_TILE * (size_t)p.ldo * 4;
    plan_tiles(&p, false); // the whole cost
    plan_tiles(&p, false); // with it, what is split
    return p;
}

static size_t plan_bytes(const plan *p)
{
    return round64((size_t)p->n_tiles * sizeof *p->tiles) + round64((size_t)p->n_tasks * sizeof *p->tasks) +
           round64((size_t)p->n_split * sizeof *p->split) + round64((size_t)p->n_partial * sizeof *p->partials) +
           (size_t)p->n_threads * p->scratch_bytes;
}

size_t hd_attn_work_bytes(const hd_attn *a, int n_threads)
{
    plan p = plan_of(a, n_threads);
    return plan_bytes(&p);
}

/* At most 4 x threads tiles are split, since each is more than that part of the whole. */
size_t hd_attn_work_max(const hd_kv_shape *kv, int n_heads, int max_rows, int max_seqs, int64_t max_tok, int n_threads)
{
    size_t ldo = (size_t)hd_attn_ldo(kv->dv), threads = (size_t)n_threads;
    size_t rows = (size_t)max_rows * (size_t)n_heads;
    size_t tiles = rows / HD_ATTN_TILE + (size_t)max_seqs * (size_t)kv->n_kv;
    size_t split = n_threads == 1 ? 0 : tiles < 4 * threads ? tiles : 4 * threads;
    size_t segs = (size_t)(max_tok + HD_SEG_TOK - 1) / HD_SEG_TOK, split_rows = split * HD_ATTN_TILE;
    if (split_rows > rows) split_rows = rows;
    return round64(tiles * sizeof(tile_job)) + round64((tiles + split * segs) * sizeof(task)) +
           round64(split * sizeof(int)) + round64(segs * (split_rows * ldo + split * 2 * HD_ATTN_TILE) * 4) +
           threads * (round64(hd_attn_scratch_bytes(kv)) + 2 * HD_ATTN_TILE * ldo * 4);
}

static hd_attn_tile kernel_tile(const plan *p, const tile_job *j)
{
    const hd_attn *a = p->a;
    const hd_attn_seq *s = &a->seqs[j->seq];
    return (hd_attn_tile){
        .kv = &a->kv,
        .kv_head = j->kv_head,
        .group = p->group,
        .exact = p->d->exact,
        .scale = a->scale,
        .q = a->q + (int64_t)s->row0 * a->n_heads * a->kv.dk,
        .pos = a->pos + s->row0,
        .pages = s->pages,
        .first = j->first,
        .n = j->n,
    };
}

/* Divide one row by its sum of weights and put it where it belongs. */
static void put_row(const plan *p, const tile_job *j, int i, const float *o, float m, float l)
{
    const hd_attn *a = p->a;
    int r = j->first + i;
    int64_t row = a->seqs[j->seq].row0 + r / p->group;
    int64_t head = row * a->n_heads + j->kv_head * p->group + r % p->group;
    float *out = a->out + head * a->kv.dv;
    if (a->lse) a->lse[head] = p->d->k->attn->m_unit * m + logf(l);
    for (int d = 0; d < a->kv.dv; d++) out[d] = o[d] / l;
}

static int32_t row_pos(const plan *p, const tile_job *j, int i)
{
    return p->a->pos[p->a->seqs[j->seq].row0 + (j->first + i) / p->group];
}

static void run_task(void *arg, int64_t chunk, int tid)
{
    const plan *p = arg;
    const hd_attn_kernels *k = p->d->k->attn;
    const task *t = &p->tasks[p->n_tasks - 1 - chunk]; // later rows see more: the long ones first
    const tile_job *j = &p->tiles[t->tile];
    hd_attn_tile tile = kernel_tile(p, j);
    uint8_t *scratch = p->scratch + (size_t)tid * p->scratch_bytes;

    if (j->partial >= 0) {
        float *o = p->partials + j->partial + t->seg * partial_floats(j->n, p->ldo);
        float *ml = o + (int64_t)j->n * p->ldo;
        k->segment(&tile, t->seg, o, ml, ml + HD_ATTN_TILE, scratch);
        return;
    }
    float *o = (float *)scratch, *o2 = o + HD_ATTN_TILE * p->ldo;
    float m[HD_ATTN_TILE], l[HD_ATTN_TILE], m2[HD_ATTN_TILE], l2[HD_ATTN_TILE];
    void *rest = o2 + HD_ATTN_TILE * p->ldo;
    k->segment(&tile, 0, o, m, l, rest);
    for (int g = 1; g < t->n_seg; g++) {
        k->segment(&tile, g, o2, m2, l2, rest);
        for (int i = 0; i < j->n; i++)
            if (n_segments(row_pos(p, j, i)) > g)
                k->merge(o + i * p->ldo, &m[i], &l[i], o2 + i * p->ldo, m2[i], l2[i], p->a->kv.dv);
    }
    for (int i = 0; i < j->n; i++) put_row(p, j, i, o + i * p->ldo, m[i], l[i]);
}

/* Merge one row of one split tile. */
static void merge_task(void *arg, int64_t chunk, int tid)
{
    const plan *p = arg;
    const tile_job *j = &p->tiles[p->split[chunk / HD_ATTN_TILE]];
    int i = (int)(chunk % HD_ATTN_TILE);
    if (i >= j->n) return;
    float *o = p->partials + j->partial, *ml = o + (int64_t)j->n * p->ldo;
    int64_t step = partial_floats(j->n, p->ldo);
    int n_seg = n_segments(row_pos(p, j, i));
    for (int g = 1; g < n_seg; g++) {
        const float *o2 = o + g * step, *ml2 = ml + g * step;
        p->d->k->attn->merge(o + (int64_t)i * p->ldo, &ml[i], &ml[HD_ATTN_TILE + i], o2 + (int64_t)i * p->ldo, ml2[i],
                             ml2[HD_ATTN_TILE + i], p->a->kv.dv);
    }
    put_row(p, j, i, o + (int64_t)i * p->ldo, ml[i], ml[HD_ATTN_TILE + i]);
}

static void *take(hd_arena *work, size_t n)
{
    void *p = hd_arena_take(work, round64(n));
    assert(p);
    return p;
}

void hd_attn_run(hd_dev *d, const hd_attn *a, hd_arena *work)
{
    assert(a->kv.n_kv > 0 && a->n_heads % a->kv.n_kv == 0);
    size_t mark = work->used;
    plan p = plan_of(a, hd_pool_threads(d->pool));
    p.d = d;
    p.tiles = take(work, (size_t)p.n_tiles * sizeof *p.tiles);
    p.tasks = take(work, (size_t)p.n_tasks * sizeof *p.tasks);
    p.split = take(work, (size_t)p.n_split * sizeof *p.split);
    p.partials = take(work, (size_t)p.n_partial * sizeof *p.partials);
    p.scratch = take(work, (size_t)p.n_threads * p.scratch_bytes);
    plan_tiles(&p, true);
    hd_pool_run(d->pool, p.n_tasks, run_task, &p);
    if (p.n_split) hd_pool_run(d->pool, p.n_split * HD_ATTN_TILE, merge_task, &p);
    work->used = mark;
}
