/* Products: y = W x + bias, by panels of 32 outputs handed out to threads in chunks.
 *
 * A panel meets its rows of activations in one of three ways:
 *   packed      the kernel of its kind streams it
 *   no-pack     the panel is packed into the thread's scratch first, then the same kernel: same bits
 *   exact       it is decoded to floats in scratch, and the F32 kernel multiplies with f32 activations
 * Formats without a panel are "no-pack" into the F32 layout.  A chunk holds whole panels (and, when there are
 * few panels for many threads, a range of rows), so an output's sum stays with one thread.  Chunks are
 * counted by rows first: of two threads each has about the same rows in every product (pool.c). */
#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "ops/fp8.h"
#include "ops/matmul.h"
#include "ops/ops.h"

enum {
    TAIL_ROWS = 64,       // rows of the last panel's outputs that fit in scratch
    ROWS_BYTES = 1 << 20, // activations that stay in the second-level cache while a chunk's panels pass
    LEAST_ROWS = 96,      // fewer at a time would decode the weights too often
    MANY_ROWS = 64,       // from here on chunks are cut squarer where the level multiplies several panels together
    MANY_PANELS = 8,
    LONG_ROWS = 256,
    OUT_PANELS = 8,       // outputs that wait in scratch for their way to rows that lie apart
    OUT_LD = OUT_PANELS * HD_PANEL_ROWS + 16,
};

static int64_t n_panels(const hd_linear *w) { return (w->src.n + HD_PANEL_ROWS - 1) / HD_PANEL_ROWS; }
static size_t align64(size_t n) { return (n + 63) / 64 * 64; }

/* ---- Scratch of one thread: [kernel][panel][floats][tail][out] ----------------------------------------- */

/* No panel is wider than that of f32, 128 bytes for each of k, and none pads k by more than 256.  (Asking
 * every kind cost 1 % of a small model's decode: this is called for each chunk.) */
static size_t widest_panel(int64_t k) { return ((size_t)k + 256) * 128; }

size_t hd_mm_scratch_bytes(int64_t max_k)
{
    return align64(hd_mul_scratch_bytes(max_k)) + 2 * widest_panel(max_k) +
           TAIL_ROWS * (HD_PANEL_ROWS + OUT_LD) * sizeof(float) + 4096;
}

typedef struct {
    uint8_t *kernel, *panel;
    float *floats, *tail, *out; // out: [TAIL_ROWS, OUT_LD]
} scratch;

static scratch scratch_of(const hd_dev *d, int tid, int64_t k)
{
    scratch s;
    size_t panel = widest_panel(k);
    assert(hd_mm_scratch_bytes(k) <= d->scratch_bytes && "wider than the device's max_k");
    s.kernel = d->scratch + (size_t)tid * d->scratch_bytes;
    s.panel = s.kernel + align64(hd_mul_scratch_bytes(k));
    s.floats = (float *)(void *)(s.panel + panel);
    s.tail = (float *)(void *)(s.panel + 2 * panel);
    s.out = s.tail + TAIL_ROWS * HD_PANEL_ROWS;
    return s;
}

/* ---- Weights ------------------------------------------------------------------------------------------- */

void hd_linear_init(hd_linear *w, const hd_rows *src)
{
    bool resident;
    memset(w, 0, sizeof *w);
    w->src = *src;
    w->kind = hd_panel_for(src->type, &resident);
}

size_t hd_linear_packed_bytes(const hd_rows *src)
{
    bool resident;
    const hd_panel_kind *kind = hd_panel_for(src->type, &resident);
    size_t bytes;
    if (!resident || src->n < 1) return 0;
    return hd_mul(&bytes, kind->bytes(src->k), (size_t)((src->n + HD_PANEL_ROWS - 1) / HD_PANEL_ROWS)) ? bytes
                                                                                                      : 0;
}

typedef struct {
    const hd_kernels *k;
    const hd_rows *src;
    const hd_panel_kind *kind;
    uint8_t *dst;
    atomic_bool failed;
} pack_job;

static void pack_panel(void *arg, int64_t p, int tid)
{
    pack_job *j = arg;
    uint8_t *to = j->dst + (size_t)p * j->kind->bytes(j->src->k);
    (void)tid;
    if (j->kind->pack) j->kind->pack(to, j->src, p * HD_PANEL_ROWS);
    else if (!j->failed && !j->k->bf12_pack(to, j->src, p * HD_PANEL_ROWS)) j->failed = true;
}

static bool pack_as(hd_dev *d, hd_linear *w, const hd_panel_kind *kind, uint8_t *dst)
{
    pack_job j = {.k = d->k, .src = &w->src, .kind = kind, .dst = dst};
    hd_pool_run(d->pool, n_panels(w), pack_panel, &j);
    if (j.failed) return false;
    w->kind = kind;
    w->panels = dst;
    return true;
}

size_t hd_linear_pack(hd_dev *d, hd_linear *w, uint8_t *dst)
{
    assert(hd_linear_packed_bytes(&w->src) > 0);
    bool try = w->src.type == HD_BF16 && d->k->bf12_pack;
    if (!try || !pack_as(d, w, hd_panel_get(HD_PANEL_BF12), dst)) pack_as(d, w, w->kind, dst);
    return w->kind->bytes(w->src.k) * (size_t)n_panels(w);
}

/* ---- Activations --------------------------------------------------------------------------------------- */

hd_act_kind hd_linear_act(const hd_dev *d, const hd_linear *w)
{
    return d->exact ? HD_ACT_F32 : d->wide && w->kind->id == HD_PANEL_BF16 ? HD_ACT_WIDE : w->kind->act;
}

void hd_act_init(hd_act *a, hd_act_kind kind, int64_t k, int M, hd_arena *work)
{
    *a = (hd_act){kind, k, M, hd_act_bytes(kind, k), NULL};
    a->data = hd_arena_take(work, a->stride * (size_t)M);
    assert(a->data && "work arena planned too small");
}

void hd_act_pack_row(const hd_act *a, const hd_kernels *k, bool fp8, int64_t m, const float *x)
{
    uint8_t *blob = a->data + (size_t)m * a->stride;
    if (fp8 && a->kind == HD_ACT_BF16) hd_fp8_act_pack(k, blob, x, a->k);
    else k->act_pack(a->kind, blob, x, a->k);
}

typedef struct {
    const hd_dev *d;
    const hd_act *a;
    const hd_term *t;
    int n;
} act_job;

static void act_row(void *arg, int64_t m, int tid)
{
    const act_job *j = arg;
    (void)tid;
    for (int i = 0; i < j->n; i++) hd_act_pack_row(&j->a[i], j->d->k, j->d->fp8, m, j->t[i].x + m * j->t[i].ldx);
}

void hd_acts_pack(hd_dev *d, hd_act *a, const hd_term *t, int n)
{
    act_job j = {d, a, t, n};
    int64_t all = 0;
    for (int i = 0; i < n; i++) {
        assert(a[i].M == a->M);
        all += a[i].M * a[i].k;
    }
    if (all < 32768) // a few microseconds: less than waking the others
        for (int m = 0; m < a->M; m++) act_row(&j, m, 0);
    else hd_rows_run(d, a->M, act_row, &j);
}

void hd_act_pack(hd_dev *d, hd_act *a, const float *x, int64_t ldx)
{
    const hd_term t = {.x = x, .ldx = ldx};
    hd_acts_pack(d, a, &t, 1);
}

/* ---- Products ------------------------------------------------------------------------------------------ */

/* The panel as the kernel will read it, and the kernel. */
static const uint8_t *panel_ready(const hd_dev *d, const hd_linear *w, int64_t p, const scratch *s, hd_panel_id *id)
{
    const uint8_t *panel = s->panel;
    *id = w->kind->id;
    if (w->panels) panel = w->panels + (size_t)p * w->kind->bytes(w->src.k);
    else w->kind->pack(s->panel, &w->src, p * HD_PANEL_ROWS);
    if (!d->exact || w->kind->act == HD_ACT_F32) return panel;
    w->kind->unpack(s->floats, panel, w->src.k);
    *id = HD_PANEL_F32;
    return (const uint8_t *)s->floats;
}

static void add_bias(float *y, int64_t ldy, int M, const float *bias, int n)
{
    for (int m = 0; m < M; m++)
        for (int r = 0; r < n; r++) y[m * ldy + r] += bias[r];
}

/* Which of one panel's products can begin with what y holds; others are added when they are done. */
static bool can_add(const hd_dev *d, hd_panel_id id, const hd_act *a) { return a->kind == HD_ACT_WIDE || d->k->panels_mul[id]; }

static void mul_32(const hd_dev *d, hd_panel_id id, const void *panel, const hd_act *a, const uint8_t *act, int M, float *y, int64_t ldy, bool add,
                   const scratch *s)
{
    if (a->kind == HD_ACT_WIDE) d->k->wide_mul(panel, a->k, act, a->stride, M, y, ldy, add, s->kernel);
    else if (add) d->k->panels_mul[id](panel, 0, 1, a->k, act, a->stride, M, y, ldy, true, s->kernel, NULL);
    else d->k->panel_mul[id](panel, a->k, act, a->stride, M, y, ldy, s->kernel);
}

/* Panel p of job j, its rows [m0, m1), the first output at y. */
static void mul_panel(const hd_dev *d, const hd_mm *j, int64_t p, int m0, int m1, float *y, int64_t ldy, const scratch *s)
{
    const hd_linear *w = j->w;
    const hd_act *a = j->act;
    hd_panel_id id;
    const uint8_t *panel = panel_ready(d, w, p, s, &id);
    const uint8_t *act = a->data + (size_t)(j->m0 + m0) * a->stride;
    int64_t r0 = p * HD_PANEL_ROWS, left = w->src.n - r0;
    int n = left < HD_PANEL_ROWS ? (int)left : HD_PANEL_ROWS;

    if (n == HD_PANEL_ROWS && (!j->add || can_add(d, id, a))) mul_32(d, id, panel, a, act, m1 - m0, y, ldy, j->add, s);
    else
        for (int m = 0; m < m1 - m0; m += TAIL_ROWS) {
            int rows = m1 - m0 - m < TAIL_ROWS ? m1 - m0 - m : TAIL_ROWS;
            mul_32(d, id, panel, a, act + (size_t)m * a->stride, rows, s->tail, HD_PANEL_ROWS, false, s);
            for (int i = 0; i < rows; i++) {
                float *to = y + (m + i) * ldy, *from = s->tail + i * HD_PANEL_ROWS;
                if (j->add) d->k->add(to, from, n);
                else memcpy(to, from, (size_t)n * sizeof *to);
            }
        }
    if (w->bias) add_bias(y, ldy, m1 - m0, w->bias + r0, n);
}

/* Panels p0 .. p1-1 that can be multiplied together: packed, with all their 32 outputs.  0: the level
 * has no such kernel. */
static int64_t whole_panels(const hd_dev *d, const hd_mm *j, int64_t p0, int64_t p1)
{
    int64_t whole = j->w->src.n / HD_PANEL_ROWS;
    if (d->exact || !j->w->panels || j->act->kind == HD_ACT_WIDE || !d->k->panels_mul[j->w->kind->id]) return 0;
    return (p1 < whole ? p1 : whole) - p0;
}

/* `then`: of the panel that this thread multiplies next. */
static void mul_panels(const hd_dev *d, const hd_mm *j, int64_t p0, int n, int64_t then, int m0, int m1, float *y, int64_t ldy, const scratch *s)
{
    const hd_linear *w = j->w;
    const hd_act *a = j->act;
    size_t step = w->kind->bytes(w->src.k);
    d->k->panels_mul[w->kind->id](w->panels + (size_t)p0 * step, step, n, a->k, a->data + (size_t)(j->m0 + m0) * a->stride, a->stride,
                                  m1 - m0, y, ldy, j->add, s->kernel, w->panels + (size_t)then * step);
    if (w->bias) add_bias(y, ldy, m1 - m0, w->bias + p0 * HD_PANEL_ROWS, n * HD_PANEL_ROWS);
}

/* A region's work as one line of places, each `panels` panels by `rows` rows: those of each job in turn for its
 * first rows, then for the next ones.  A chunk is a piece of the line. */
typedef struct {
    const hd_dev *d;
    const hd_mm *jobs;
    int n_jobs;
    int64_t panels, places, chunks;
    int rows;
} mm_job;

static int64_t places_of(const mm_job *t, const hd_mm *j) { return (n_panels(j->w) + t->panels - 1) / t->panels; }
static int64_t row_blocks(const mm_job *t, const hd_mm *j) { return (j->M + t->rows - 1) / t->rows; }

/* The place where chunk i begins.  Threads begin at both ends of the line and meet in its middle (pool.c): chunks
 * are the shorter the nearer they lie to it, so that who comes last does not keep the others waiting. */
static int64_t place_of(const mm_job *t, int64_t i)
{
    const int64_t n = t->chunks;
    if (n == t->places) return i;
    const int64_t from_end = 2 * i * (n - i) * t->places / (n * n);
    return 2 * i <= n ? from_end : t->places - from_end;
}

/* Panels [p0, p1) of a job, its rows [m0, m1), the first output at y; `then` as above. */
static void mul_part(const hd_dev *d, const hd_mm *j, int64_t p0, int64_t p1, int64_t then, int m0, int m1, float *y, int64_t ldy,
                     const scratch *s)
{
    const int64_t together = whole_panels(d, j, p0, p1);
    if (together > 0 && m1 - m0 > 1) {
        mul_panels(d, j, p0, (int)together, then, m0, m1, y, ldy, s);
        p0 += together, y += together * HD_PANEL_ROWS;
    }
    for (; p0 < p1; p0++, y += HD_PANEL_ROWS) mul_panel(d, j, p0, m0, m1, y, ldy, s);
}

/* The same where rows lie apart: some outputs of some rows at a time, which leave for their rows while the
 * caches hold them. */
static void mul_apart(const hd_dev *d, const hd_mm *j, int64_t p0, int64_t p1, int64_t then, int m0, int m1, const scratch *s)
{
    for (int64_t p = p0; p < p1; p += OUT_PANELS) {
        const int64_t end = p + OUT_PANELS < p1 ? p + OUT_PANELS : p1, n0 = p * HD_PANEL_ROWS;
        const int64_t left = j->w->src.n - n0, whole = (end - p) * HD_PANEL_ROWS, n = left < whole ? left : whole;
        for (int m = m0; m < m1; m += TAIL_ROWS) {
            const int rows = m1 - m < TAIL_ROWS ? m1 - m : TAIL_ROWS;
            mul_part(d, j, p, end, end < p1 ? end : then, m, m + rows, s->out, OUT_LD, s);
            for (int i = 0; i < rows; i++) memcpy(j->rows[m + i] + n0, s->out + i * OUT_LD, (size_t)n * sizeof(float));
        }
    }
}

static const hd_mm *next_sum(const hd_mm *j) { return j + 1 + j->n_more; }

/* Job j, the sum's first, panels [p0, p1), rows from m0 on. */
static void mul_sum(const mm_job *t, const hd_mm *j, int64_t p0, int64_t p1, int64_t then, int m0, int tid)
{
    const int m1 = m0 + t->rows < j->M ? m0 + t->rows : j->M;
    for (int n = 0; n <= j->n_more; n++) {
        const hd_mm term = {.w = j[n].w, .act = j[n].act, .m0 = j[n].m0, .M = j->M, .rows = j->rows, .add = j->add || n > 0};
        scratch s = scratch_of(t->d, tid, term.w->src.k);
        if (j->rows) mul_apart(t->d, &term, p0, p1, then, m0, m1, &s);
        else mul_part(t->d, &term, p0, p1, then, m0, m1, j->y + m0 * j->ldy + p0 * HD_PANEL_ROWS, j->ldy, &s);
    }
}

static void mm_chunk(void *arg, int64_t i, int tid)
{
    const mm_job *t = arg;
    const hd_mm *j = t->jobs;
    const int64_t begin = place_of(t, i), end = place_of(t, i + 1), next = tid % 2 ? place_of(t, i - 1) : end; // pool.c
    int m0 = 0;
    if (begin == end) return;
    for (int64_t at = 0; at < end;) { // where j's places for rows m0 .. begin
        if (m0 < j->M) {
            const int64_t n = n_panels(j->w), p0 = (begin > at ? begin - at : 0) * t->panels;
            const int64_t p1 = (end - at) * t->panels, then = (next - at) * t->panels;
            if (p0 < n) mul_sum(t, j, p0, p1 < n ? p1 : n, then >= 0 && then < n ? then : p0, m0, tid);
            at += places_of(t, j);
        }
        if ((j = next_sum(j)) == t->jobs + t->n_jobs) j = t->jobs, m0 += t->rows;
    }
}

void hd_mm_run(hd_dev *d, const hd_mm *jobs, int n_jobs)
{
    int64_t panels = 0, threads = hd_pool_threads(d->pool);
    int top_m = 1;
    size_t stride = 1;
    if (d->watch) d->watch(d->watch_arg, jobs, n_jobs);
    for (int i = 0; i < n_jobs; i++) {
        const hd_mm *j = &jobs[i];
        if (j->w->panels && !d->exact && j->act->stride > stride) stride = j->act->stride; // decoding a panel takes long
        assert(j->act->kind == hd_linear_act(d, j->w) && j->act->k == j->w->src.k && j->m0 >= 0 && j->M >= 0 && j->m0 + j->M <= j->act->M);
    }
    for (const hd_mm *j = jobs; j < jobs + n_jobs; j = next_sum(j)) {
        assert((j->rows ? !j->add && j->n_more == 0 : j->ldy >= j->w->src.n) && j + j->n_more < jobs + n_jobs);
        for (int n = 1; n <= j->n_more; n++) assert(j[n].w->src.n == j->w->src.n && j[n].m0 + j->M <= j[n].act->M);
        panels += n_panels(j->w);
        top_m = j->M > top_m ? j->M : top_m;
    }
    mm_job t = {d, jobs, n_jobs, .panels = 1, .rows = top_m};
    /* With few panels for many threads, long batches are cut by rows, too. */
    if (panels < threads * 4 && top_m > 64) {
        int64_t parts = (threads * 8 + panels - 1) / (panels > 0 ? panels : 1);
        t.rows = (int)((top_m + parts - 1) / parts + 31) / 32 * 32;
    }
    int fit = (int)(ROWS_BYTES / stride / 32 * 32);
    if (fit < LEAST_ROWS) fit = LEAST_ROWS;
    if (t.rows > fit) { // nearly equal parts
        int parts = (t.rows + fit - 1) / fit;
        t.rows = ((t.rows + parts - 1) / parts + 31) / 32 * 32;
    }
    bool many = top_m >= MANY_ROWS && panels > 1;
    for (int i = 0; i < n_jobs && many; i++) many = jobs[i].act->kind == HD_ACT_WIDE || whole_panels(d, &jobs[i], 0, 2) > 0;
    if (many) { // squarer chunks: rows are brought in once for several panels
        t.panels = MANY_PANELS;
        t.rows = LONG_ROWS;
        while (t.panels > 2 && panels * ((top_m + t.rows - 1) / t.rows) / t.panels < threads * 4) t.panels /= 2;
    }
    for (const hd_mm *j = jobs; j < jobs + n_jobs; j = next_sum(j)) t.places += places_of(&t, j) * row_blocks(&t, j);
    /* About 8 chunks a thread: small enough that a stalled core holds nobody back, large enough that the
     * counter costs nothing. */
    t.chunks = many || t.places < threads * 16 ? t.places : threads * 8;
    hd_pool_run(d->pool, t.chunks, mm_chunk, &t);
}

void hd_linear_sum(hd_dev *d, const hd_term *t, int n, int M, float *y, int64_t ldy, bool add, hd_arena *work)
{
    size_t mark = work->used;
    hd_act a[HD_MAX_TERMS];
    hd_mm job[HD_MAX_TERMS];
    assert(n >= 1 && n <= HD_MAX_TERMS);
    for (int i = 0; i < n; i++) {
        hd_act_init(&a[i], hd_linear_act(d, t[i].w), t[i].w->src.k, M, work);
        job[i] = (hd_mm){.w = t[i].w, .act = &a[i], .M = M, .y = y, .ldy = ldy, .add = add, .n_more = i == 0 ? n - 1 : 0};
    }
    hd_acts_pack(d, a, t, n);
    hd_mm_run(d, job, n);
    work->used = mark;
}

void hd_linear_mul(hd_dev *d, const hd_linear *w, const float *x, int64_t ldx, int M, float *y, int64_t ldy,
                   hd_arena *work)
{
    const hd_term t = {w, x, ldx};
    hd_linear_sum(d, &t, 1, M, y, ldy, false, work);
}
