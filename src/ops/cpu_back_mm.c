/* Gradients of products, and panels from masters.
 *
 * dW[n, k] += dY^T X is cut into nearly equal tiles of up to 256 x 256 outputs, of pairs of bf16 512 x 512,
 * or less where that would leave threads idle.  A tile is one task: it walks the rows m in blocks of 256 and
 * brings dY (8 or 16 columns beside each other) and X (panels whose inner dimension is m) into the thread's
 * scratch, where a kernel of its own multiplies them: in f32, or, where bf16 is faster than that, in pairs of
 * bf16.  Without such a kernel (amx) dY is transposed to rows of activations, and the forward's kernel
 * multiplies them.  What a block adds is added to dW in the order of blocks, so the order of every sum
 * depends on M alone, not on the tile. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/back.h"
#include "ops/back.h"
#include "ops/fp8.h"

enum {
    W = HD_PANEL_ROWS,
    TILE = 256,
    PAIR_TILE = 512,
    LEAST_TILE = 128,
    BLOCK_M = 256,
    TILE_PANELS = TILE / W,
    BESIDE = 8, // columns of dY
    PAIRS_BESIDE = 16,
    FETCH_ROWS = 8, // of dY and X ahead: a row is too short for the hardware to see it coming
};

/* One thread's scratch, in floats; blobs and panels are as wide in f32 as they get.  A line more in each part
 * of dy and of panel: a row of the matrix is spread over all of them, and powers of 2 between its places
 * would meet in one set of the first-level cache. */
typedef union {
    struct {
        _Alignas(64) float dy[TILE / BESIDE][BLOCK_M + 2][BESIDE];
        _Alignas(64) float dyt[TILE][BLOCK_M];
        _Alignas(64) float act[TILE][BLOCK_M];
        _Alignas(64) float panel[TILE_PANELS][(BLOCK_M + 1) * HD_PANEL_ROWS];
        _Alignas(64) float out[TILE][TILE];
        _Alignas(64) uint8_t kernel[160 << 10];
    };
    struct {
        _Alignas(64) uint32_t dy[PAIR_TILE / PAIRS_BESIDE][BLOCK_M / 2 + 1][PAIRS_BESIDE];
        _Alignas(64) uint32_t panel[PAIR_TILE / HD_PANEL_ROWS][(BLOCK_M / 2 + 1) * HD_PANEL_ROWS];
    } pairs;
} scratch;

/* What a side of n outputs is cut into: equal parts of no more than `tile`, but for what
 * whole panels take. */
static int part_of(int64_t n, int tile)
{
    const int64_t parts = (n + tile - 1) / tile;
    return (int)(((n + parts - 1) / parts + HD_PANEL_ROWS - 1) / HD_PANEL_ROWS * HD_PANEL_ROWS);
}
static int64_t parts_of(int64_t n, int tile) { return (n + part_of(n, tile) - 1) / part_of(n, tile); }
static int64_t tiles_of(const hd_mm_grad *j, int tile) { return parts_of(j->n, tile) * parts_of(j->k, tile); }

bool hd_mm_grad_by_act(const hd_dev *d, hd_panel_id kind)
{
    return kind == HD_PANEL_BF16 && d->k->bf16_is_faster && d->k->back->outer_pairs && !d->fp8;
}

size_t hd_mm_grad_work(const hd_mm_grad *jobs, int n_jobs, int n_threads)
{
    return (size_t)n_threads * (sizeof(scratch) + 64) + 64;
}

typedef struct {
    const hd_dev *d;
    const hd_mm_grad *jobs;
    bool bf16;  // the level multiplies bf16 faster than f32; elsewhere nothing is rounded
    bool pairs; // and has outer_pairs
    scratch *s;
    int tile;
} grad_job;

static const float *f_row(const hd_side *s, int64_t m) { return s->f + (s->m0 + m) * s->ld; }
static int64_t row_of_x(const hd_mm_grad *j, int m) { return j->x_row ? j->x_row[m] : m; }
static const float *x_row(const hd_mm_grad *j, int m) { return f_row(&j->x, row_of_x(j, m)); }

/* X[m0 .. m0+M, k0 .. k0+wide) as panels of f32 [m][32]; a row of X is read once. */
static void pack_x(const hd_mm_grad *j, scratch *s, int m0, int M, int64_t k0, int wide)
{
    int whole = wide / W, left = wide % W;
    for (int m = 0; m < M; m++) {
        const float *x = x_row(j, m0 + m) + k0;
        for (int p = 0; p < whole; p++) memcpy(s->panel[p] + m * W, x + p * W, W * sizeof *x);
        if (left == 0) continue;
        memcpy(s->panel[whole] + m * W, x + whole * W, (size_t)left * sizeof *x);
        memset(s->panel[whole] + m * W + left, 0, (size_t)(W - left) * sizeof *x);
    }
}

/* X[m0 .. m0+M, k0 .. k0+32) as a panel of bf16 [m / 2][32][2]. */
static void pack_x_pairs(const grad_job *g, const hd_mm_grad *j, float *panel, int m0, int M, int64_t k0)
{
    const int n = j->k - k0 < HD_PANEL_ROWS ? (int)(j->k - k0) : HD_PANEL_ROWS;
    uint32_t *out = (uint32_t *)panel;
    for (int m = 0; m < M; m += 2, out += HD_PANEL_ROWS)
        g->d->k->back->pairs(out, 0, HD_PANEL_ROWS, x_row(j, m0 + m) + k0, m + 1 < M ? x_row(j, m0 + m + 1) + k0 : NULL, n);
    memset(out, 0, (size_t)((M + 63) / 64 * 32 - (M + 1) / 2) * HD_PANEL_ROWS * sizeof *out); // panels are padded to 64 of the inner dimension
}

/* The bias's share: a sum over a column of dY. */
static void add_dy(const hd_mm_grad *j, int m0, int M, int64_t n0, int n)
{
    float sum[PAIR_TILE] = {0};
    for (int m = 0; m < M; m++)
        for (int i = 0; i < n; i++) sum[i] += f_row(&j->dy, m0 + m)[n0 + i];
    for (int i = 0; i < n; i++) j->db[n0 + i] += sum[i];
}

/* dY[m0 .. m0+M, n0 .. n0+n) by columns that lie beside each other. */
static void pack_dy(const grad_job *g, const hd_mm_grad *j, scratch *s, int m0, int M, int64_t n0, int n)
{
    int whole = n / BESIDE, left = n % BESIDE;
    for (int m = 0; m < M; m++) {
        const float *dy = f_row(&j->dy, m0 + m) + n0;
        for (int b = 0; b < whole; b++) memcpy(s->dy[b][m], dy + b * BESIDE, sizeof s->dy[b][m]);
        if (left) memcpy(s->dy[whole][m], dy + whole * BESIDE, (size_t)left * sizeof *dy);
    }
    for (int i = 0; i < n && g->d->fp8 && j->kind == HD_PANEL_BF16; i++)
        hd_fp8_round_groups(&s->dy[i / BESIDE][0][i % BESIDE], M, BESIDE);
}

/* dY^T as blobs of rows. */
static void pack_dyt(const grad_job *g, const hd_mm_grad *j, scratch *s, int m0, int M, int64_t n0, int n)
{
    g->d->k->back->transpose(&s->dyt[0][0], BLOCK_M, f_row(&j->dy, m0) + n0, j->dy.ld, M, n);
    for (int i = 0; i < n; i++) g->d->k->act_pack(HD_ACT_BF16, s->act[i], s->dyt[i], M);
}

/* M rows from m0 on of a tile's products, in f32 ... */
static void block_f32(const grad_job *g, const hd_mm_grad *j, scratch *s, int m0, int M, int64_t n0, int n, int64_t k0, int wide)
{
    const hd_back_kernels *k = g->d->k->back;
    pack_dy(g, j, s, m0, M, n0, n);
    pack_x(j, s, m0, M, k0, wide);
    for (int p = 0, c = 0; c < wide; p++, c += HD_PANEL_ROWS) {
        for (int i = 0; i < HD_PANEL_ROWS && g->d->fp8 && j->kind == HD_PANEL_BF16; i++) hd_fp8_round_groups(s->panel[p] + i, M, HD_PANEL_ROWS);
        for (int i = 0; i < n; i += BESIDE)
            k->outer(j->dw + (n0 + i) * j->ldw + k0 + c, j->ldw, s->dy[i / BESIDE][0], BESIDE, s->panel[p], HD_PANEL_ROWS, M,
                     n - i < BESIDE ? n - i : BESIDE, wide - c < HD_PANEL_ROWS ? wide - c : HD_PANEL_ROWS);
    }
}

/* Columns of a side in bf16 or f32. */
typedef struct {
    const uint8_t *at;
    size_t stride;
    bool bf16;
} columns;

static columns columns_of(const hd_side *s, int64_t c0)
{
    const hd_act *a = s->act;
    if (a && a->kind == HD_ACT_BF16) return (columns){a->data + (size_t)s->m0 * a->stride + (size_t)c0 * 2, a->stride, true};
    return (columns){(const uint8_t *)(f_row(s, 0) + c0), (size_t)s->ld * sizeof(float), false};
}

static const void *row_at(const columns *c, int64_t row) { return c->at + (size_t)row * c->stride; }

static void fetch_row(const columns *c, int64_t row, int n)
{
    const uint8_t *p = row_at(c, row);
    for (int i = 0; i < n * (c->bf16 ? 2 : 4); i += 64) __builtin_prefetch(p + i);
}

/* Rows a and b (-1: zeros). */
static void pair_rows(const hd_back_kernels *k, uint32_t *to, size_t step, int wide, const columns *c, int64_t a, int64_t b, int n)
{
    const void *ra = row_at(c, a), *rb = b < 0 ? NULL : row_at(c, b);
    if (c->bf16) k->pairs_bf16(to, step, wide, ra, rb, n);
    else k->pairs(to, step, wide, ra, rb, n);
}

/* ... in pairs of bf16 where a level has a kernel for these, the forward's rate ... */
static void block_pairs(const grad_job *g, const hd_mm_grad *j, scratch *s, int m0, int M, int64_t n0, int n, int64_t k0, int wide)
{
    const hd_back_kernels *k = g->d->k->back;
    const int words = (M + 1) / 2;
    enum { DY_STEP = sizeof s->pairs.dy[0] / sizeof(uint32_t), PANEL_STEP = sizeof s->pairs.panel[0] / sizeof(uint32_t) };
    const columns dy = columns_of(&j->dy, n0), x = columns_of(&j->x, k0);
    for (int i = 0; i < words; i++) {
        const int m = m0 + 2 * i;
        const bool two = m + 1 < m0 + M;
        for (int r = m + FETCH_ROWS; r < m + FETCH_ROWS + 2 && r < m0 + M; r++) {
            fetch_row(&dy, r, n);
            fetch_row(&x, row_of_x(j, r), wide);
        }
        pair_rows(k, s->pairs.dy[0][i], DY_STEP, PAIRS_BESIDE, &dy, m, two ? m + 1 : -1, n);
        pair_rows(k, s->pairs.panel[0] + i * HD_PANEL_ROWS, PANEL_STEP, HD_PANEL_ROWS, &x, row_of_x(j, m), two ? row_of_x(j, m + 1) : -1, wide);
    }
    for (int p = 0, c = 0; c < wide; p++, c += HD_PANEL_ROWS)
        for (int i = 0; i < n; i += PAIRS_BESIDE)
            k->outer_pairs(j->dw + (n0 + i) * j->ldw + k0 + c, j->ldw, s->pairs.dy[i / PAIRS_BESIDE][0], PAIRS_BESIDE,
                           s->pairs.panel[p], HD_PANEL_ROWS, words, n - i < PAIRS_BESIDE ? n - i : PAIRS_BESIDE, wide - c < HD_PANEL_ROWS ? wide - c : HD_PANEL_ROWS);
}

/* ... and by the forward's kernel. */
static void block_bf16(const grad_job *g, const hd_mm_grad *j, scratch *s, int m0, int M, int64_t n0, int n, int64_t k0, int wide)
{
    pack_dyt(g, j, s, m0, M, n0, n);
    for (int p = 0; p * HD_PANEL_ROWS < wide; p++) {
        pack_x_pairs(g, j, s->panel[p], m0, M, k0 + p * HD_PANEL_ROWS);
        g->d->k->panel_mul[HD_PANEL_BF16](s->panel[p], M, (const uint8_t *)s->act, sizeof s->act[0], n, s->out[0] + p * HD_PANEL_ROWS, TILE,
                                          s->kernel);
    }
    for (int i = 0; i < n; i++) g->d->k->add(j->dw + (n0 + i) * j->ldw + k0, s->out[i], wide);
}

static void grad_tile(void *arg, int64_t tile, int tid)
{
    const grad_job *g = arg;
    const hd_mm_grad *j = g->jobs;
    scratch *s = &g->s[tid];
    for (; tile >= tiles_of(j, g->tile); j++) tile -= tiles_of(j, g->tile);
    const int high = part_of(j->n, g->tile), across = part_of(j->k, g->tile);
    int64_t n0 = tile / parts_of(j->k, g->tile) * high, k0 = tile % parts_of(j->k, g->tile) * across;
    int n = j->n - n0 < high ? (int)(j->n - n0) : high, wide = j->k - k0 < across ? (int)(j->k - k0) : across;
    for (int m0 = 0; m0 < j->M; m0 += BLOCK_M) {
        int M = j->M - m0 < BLOCK_M ? j->M - m0 : BLOCK_M;
        if (j->db && k0 == 0) add_dy(j, m0, M, n0, n);
        if (g->pairs && j->kind == HD_PANEL_BF16) block_pairs(g, j, s, m0, M, n0, n, k0, wide);
        else if (g->bf16 && j->kind == HD_PANEL_BF16) block_bf16(g, j, s, m0, M, n0, n, k0, wide);
        else block_f32(g, j, s, m0, M, n0, n, k0, wide);
    }
}

/* The largest tiles that threads share well: three for each, so that the last one waited for is a small part
 * of the whole, or as many for each.  A job of f32 holds all to what it has room for. */
static int tile_for(const grad_job *g, int n_jobs)
{
    const int threads = hd_pool_threads(g->d->pool);
    int tile = g->pairs ? PAIR_TILE : TILE;
    for (int i = 0; i < n_jobs; i++)
        if (g->jobs[i].kind != HD_PANEL_BF16) tile = TILE;
    for (; tile > LEAST_TILE; tile /= 2) {
        int64_t tiles = 0;
        for (int i = 0; i < n_jobs; i++) tiles += tiles_of(&g->jobs[i], tile);
        if (tiles >= 3 * (int64_t)threads || tiles % threads == 0) break;
    }
    return tile;
}

void hd_mm_grad_run(hd_dev *d, const hd_mm_grad *jobs, int n_jobs, hd_arena *work)
{
    size_t mark = work->used;
    int64_t tiles = 0;
    grad_job g = {.d = d, .jobs = jobs, .bf16 = d->k->bf16_is_faster && !d->fp8};
    g.pairs = hd_mm_grad_by_act(d, HD_PANEL_BF16);
    g.tile = tile_for(&g, n_jobs);
    g.s = hd_arena_take(work, (size_t)hd_pool_threads(d->pool) * sizeof *g.s);
    assert(g.s && hd_mul_scratch_bytes(BLOCK_M) <= sizeof g.s->kernel);
    for (int i = 0; i < n_jobs; i++) {
        const hd_mm_grad *j = &jobs[i];
        const bool by_act = hd_mm_grad_by_act(d, j->kind);
        assert((j->x.f || (by_act && j->x.act)) && (j->dy.f || (by_act && j->dy.act && !j->db)) && "rows that the job reads");
        tiles += tiles_of(j, g.tile);
    }
    hd_pool_run(d->pool, tiles, grad_tile, &g);
    work->used = mark;
}

/* ---- Panels from masters ------------------------------------------------------------------------------- */

/* A task is 32 rows of the masters: they lie behind each other, and are read once for both, their own panel
 * and their part of each panel of the transpose, 32 places of these panels' inner dimension. */
enum { PACK_K = 256 }; // of the inner dimension at a time

typedef struct {
    const hd_dev *d;
    hd_linear *const *w;
} refresh_job;

static int64_t panels_of(const hd_linear *w) { return (w->src.n + W - 1) / W; }
static const float *master(const hd_linear *w, int64_t row) { return (const float *)(const void *)w->src.data + row * w->src.k; }
static uint8_t *panel_of(const hd_linear *w, int64_t p) { return w->panels + (size_t)p * w->kind->bytes(w->src.k); }

/* Rows [m][n], `ld` apart, into a panel at inner position i0. */
static void put_rows(const hd_back_kernels *k, const hd_linear *w, uint8_t *panel, int64_t i0, const float *rows, int64_t ld, int64_t m, int n)
{
    if (w->kind->id == HD_PANEL_F32) {
        float *out = (float *)(void *)panel + i0 * W;
        for (const float *end = rows + m * ld; rows < end; rows += ld, out += W) {
            memcpy(out, rows, (size_t)n * sizeof *out);
            memset(out + n, 0, (size_t)(W - n) * sizeof *out);
        }
        return;
    }
    uint32_t *out = (uint32_t *)(void *)panel + i0 / 2 * W;
    for (int64_t i = 0; i < m; i += 2, out += W) k->pairs(out, 0, W, rows + i * ld, i + 1 < m ? rows + (i + 1) * ld : NULL, n);
}

/* What a panel of bf16 has behind its numbers. */
static void end_panel(const hd_linear *w, uint8_t *panel)
{
    const size_t used = (size_t)((w->src.k + 1) / 2 * 2) * W * 2;
    if (w->kind->id == HD_PANEL_BF16) memset(panel + used, 0, w->kind->bytes(w->src.k) - used);
}

/* Of the masters' block of 128 x 128 that holds this number. */
static float block_scale(const hd_linear *w, int64_t row, int64_t column)
{
    const int64_t y0 = row - row % HD_FP8_GROUP, x0 = column - column % HD_FP8_GROUP;
    float max = 0;
    for (int64_t y = y0; y < y0 + HD_FP8_GROUP && y < w->src.n; y++)
        for (int64_t x = x0; x < x0 + HD_FP8_GROUP && x < w->src.k; x++) max = fmaxf(max, fabsf(master(w, y)[x]));
    return hd_fp8_scale(max);
}

static void round_to_fp8(float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) x[i] = hd_fp8_round(x[i], scale);
}

/* Panel p of w: n rows of the masters. */
static void pack_rows(const hd_dev *d, const hd_linear *w, int64_t p, int n)
{
    const int64_t K = w->src.k;
    uint8_t *panel = panel_of(w, p);
    _Alignas(64) float rows[PACK_K][W];
    if (n < W) memset(rows, 0, sizeof rows);
    for (int64_t i0 = 0; i0 < K; i0 += PACK_K) {
        const int64_t m = K - i0 < PACK_K ? K - i0 : PACK_K;
        d->k->back->transpose(rows[0], W, master(w, p * W) + i0, K, n, (int)m);
        for (int64_t i = 0; i < m && d->fp8 && w->kind->id == HD_PANEL_BF16; i += HD_FP8_GROUP)
            round_to_fp8(rows[i], (m - i < HD_FP8_GROUP ? m - i : HD_FP8_GROUP) * W, block_scale(w, p * W, i0 + i));
        put_rows(d->k->back, w, panel, i0, rows[0], W, m, W);
    }
    end_panel(w, panel);
}

/* Their part of the transpose's panels, in which they are inner positions. */
static void pack_columns(const hd_dev *d, const hd_linear *w, int64_t p, int n)
{
    const hd_linear *to = w->back;
    const int64_t K = w->src.k, r0 = p * W;
    float rows[W][W], scale = 0;
    for (int64_t c = 0; c < K; c += W) {
        const int wide = K - c < W ? (int)(K - c) : W;
        uint8_t *panel = panel_of(to, c / W);
        if (d->fp8 && to->kind->id == HD_PANEL_BF16) {
            if (c % HD_FP8_GROUP == 0) scale = block_scale(w, r0, c);
            for (int i = 0; i < n; i++) memcpy(rows[i], master(w, r0 + i) + c, (size_t)wide * sizeof(float));
            for (int i = 0; i < n; i++) round_to_fp8(rows[i], wide, scale);
            put_rows(d->k->back, to, panel, r0, rows[0], W, n, wide);
        } else put_rows(d->k->back, to, panel, r0, master(w, r0) + c, K, n, wide);
        if (r0 + n == w->src.n) end_panel(to, panel);
    }
}

static void refresh_panel(void *arg, int64_t p, int tid)
{
    const refresh_job *j = arg;
    hd_linear *const *w = j->w;
    while (p >= panels_of(*w)) p -= panels_of(*w++);
    const int64_t left = (*w)->src.n - p * W;
    const int n = left < W ? (int)left : W;
    /* Both ways of packing jump from row to row; asked for in order, rows come as fast as memory gives them. */
    for (const float *x = master(*w, p * W), *end = x + n * (*w)->src.k; x < end; x += 16) __builtin_prefetch(x, 0, 2);
    pack_rows(j->d, *w, p, n);
    if ((*w)->back) pack_columns(j->d, *w, p, n);
}

void hd_linear_refresh(hd_dev *d, hd_linear *const *w, int n_w)
{
    enum { AT_ONCE = 64 }; // matrices of one region: a panel finds its own by walking
    for (int i = 0; i < n_w; i += AT_ONCE) {
        refresh_job j = {d, w + i};
        int64_t panels = 0;
        for (int k = i; k < n_w && k < i + AT_ONCE; k++) {
            assert(w[k]->kind->id == HD_PANEL_BF16 || w[k]->kind->id == HD_PANEL_F32);
            panels += panels_of(w[k]);
        }
        hd_pool_run(d->pool, panels, refresh_panel, &j);
    }
}
