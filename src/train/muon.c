/* See muon.h.
 *
 * A group's matrices take each phase together, in one parallel region.  Shapes: r = the smaller side, c = the
 * larger one; X, Y are [r, c], A, B are [r, r], their rows padded with zeros to 64 numbers, which makes a row
 * of them what the F32 panel kernels read as activations (kernels.h).  The other factor is cut into panels of
 * 32 outputs by whoever needs it next:
 *
 *   begin    rows of w: m, u, and u's sum of squares; X = u or its transpose
 *   scale    rows of X: X /= |u|
 *   gram     panels of X:    A[:, p] = X X[p]^T       rows from p's own on, the rest mirrored
 *   poly     panels of A:    B[:, p] = a I + b A + c A A[p]^T            likewise
 *   apply    panels of X^T:  Y[:, p] = B X[:, p]      then X and Y change places
 *   end      rows of w
 *
 * A chunk's sums have an order of their own, so bits depend neither on threads nor on the grouping. */
#include "train/muon.h"

#include <math.h>
#include <string.h>

#include "kernels/optim.h"

enum { P = HD_PANEL_ROWS, ROWS = 16 };
#define GROUP_BYTES ((size_t)8 << 20) // of work memory: small enough for the caches, large enough for many threads

typedef struct {
    hd_muon_matrix is;
    bool tall;               // more rows than columns: X is the transpose
    int64_t r, c, ldx, lda;  // ldx = c, lda = r, rounded up to 64
    float *x, *y, *a, *b;
    float *panels;           // of the phase
    double *sum;             // squares of u: of each chunk of ROWS rows of w
} matrix;

struct hd_muon {
    matrix *list;
    int steps;
    bool m_bf16;
    int *group;              // [n_groups + 1] first matrix of each
    int n_groups;
    uint8_t *work;           // one group at a time
    size_t work_bytes;
};

static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* ---- Memory ---- */

static matrix shape_of(const hd_muon_matrix *m)
{
    matrix x = {.is = *m, .tall = m->n > m->k};
    x.r = x.tall ? m->k : m->n;
    x.c = x.tall ? m->n : m->k;
    x.ldx = up(x.c, 64);
    x.lda = up(x.r, 64);
    return x;
}

/* Cuts `work` for m when it is not NULL; returns the bytes that m takes.  A model's matrices are in memory
 * already and this is a few times their size at most: it cannot wrap. */
static size_t cut(matrix *m, uint8_t *work)
{
    size_t x = (size_t)(m->r * m->ldx) * 4, a = (size_t)(m->r * m->lda) * 4;
    size_t panels = (size_t)(up(m->c, P) * up(m->r, P)) * 4, sum = (size_t)up(m->is.n, ROWS * 8) / ROWS * 8;
    if (work) {
        m->x = (float *)(void *)work;
        m->y = (float *)(void *)(work + x);
        m->a = (float *)(void *)(work + 2 * x);
        m->b = (float *)(void *)(work + 2 * x + a);
        m->panels = (float *)(void *)(work + 2 * x + 2 * a);
        m->sum = (double *)(void *)(work + 2 * x + 2 * a + panels);
    }
    return 2 * x + 2 * a + panels + sum;
}

bool hd_muon_plan_add(hd_muon_plan *p, int64_t n, int64_t k)
{
    const hd_muon_matrix is = {.n = n, .k = k};
    matrix m = shape_of(&is);
    size_t more = cut(&m, NULL);
    bool first = p->group_bytes == 0 || p->group_bytes + more > GROUP_BYTES;
    p->group_bytes = first ? more : p->group_bytes + more;
    if (p->group_bytes > p->bytes) p->bytes = p->group_bytes;
    return first;
}

hd_status hd_muon_open(hd_muon **out, const hd_muon_matrix *list, int n, int steps, bool m_bf16, hd_err *err)
{
    hd_status st;
    hd_muon *u = NULL;
    hd_muon_plan plan = {0};
    size_t at = 0;
    *out = NULL;
    HD_TRY(hd_alloc(&u, sizeof *u, err));
    u->steps = steps;
    u->m_bf16 = m_bf16;
    HD_TRY(hd_alloc_n(&u->list, (size_t)n, sizeof *u->list, err));
    HD_TRY(hd_alloc_n(&u->group, (size_t)n + 1, sizeof *u->group, err));
    for (int i = 0; i < n; i++) {
        if (hd_muon_plan_add(&plan, list[i].n, list[i].k)) u->group[u->n_groups++] = i;
        u->list[i] = shape_of(&list[i]);
    }
    u->group[u->n_groups] = n;
    u->work_bytes = plan.bytes;
    HD_TRY(hd_alloc_aligned(&u->work, u->work_bytes, err));
    for (int i = 0, g = 0; i < n; i++) {
        if (i == u->group[g]) at = 0, g++;
        at += cut(&u->list[i], u->work + at);
    }
    *out = u;
    return HD_OK;
fail:
    hd_muon_close(u);
    return st;
}

void hd_muon_close(hd_muon *u)
{
    if (!u) return;
    if (u->work) hd_free_aligned(u->work, u->work_bytes);
    free(u->group);
    free(u->list);
    free(u);
}

/* ---- A phase ---- */

typedef struct phase phase;
struct phase {
    hd_muon *u;
    hd_dev *d;
    matrix *list; // of the group
    int n;
    float *w;
    const float *g;
    float lr, keep, mu, grad_scale;
    int64_t (*chunks)(const matrix *m);
    void (*run)(const phase *p, matrix *m, int64_t chunk, void *scratch);
};

static int64_t row_chunks(const matrix *m) { return (m->is.n + ROWS - 1) / ROWS; }
static int64_t x_chunks(const matrix *m) { return (m->r + ROWS - 1) / ROWS; }
static int64_t r_panels(const matrix *m) { return (m->r + P - 1) / P; }
static int64_t c_panels(const matrix *m) { return (m->c + P - 1) / P; }

static void chunk_of_group(void *arg, int64_t i, int tid)
{
    const phase *p = arg;
    matrix *m = p->list;
    for (; i >= p->chunks(m); m++) i -= p->chunks(m);
    p->run(p, m, i, p->d->scratch + (size_t)tid * p->d->scratch_bytes); // the kernels' part comes first (cpu_matmul.c)
}

static void run(phase *p, int64_t (*chunks)(const matrix *), void (*fn)(const phase *, matrix *, int64_t, void *))
{
    int64_t n = 0;
    p->chunks = chunks;
    p->run = fn;
    for (int i = 0; i < p->n; i++) n += chunks(&p->list[i]);
    hd_pool_run(p->d->pool, n, chunk_of_group, p);
}

/* ---- Between w's rows and X ---- */

/* Columns j0 .. j0+n of dst [k rows, ld] from n rows of src [n, k], or back. */
static void rows_to_columns(float *dst, int64_t ld, int64_t j0, const float *src, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < k; i++)
        for (int64_t t = 0; t < n; t++) dst[i * ld + j0 + t] = src[t * k + i];
}

static void columns_to_rows(float *dst, int64_t n, int64_t k, const float *src, int64_t ld, int64_t j0)
{
    for (int64_t i = 0; i < k; i++)
        for (int64_t t = 0; t < n; t++) dst[t * k + i] = src[i * ld + j0 + t];
}

/* Zeros behind n numbers of each row. */
static void pad(float *x, int64_t ld, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i++) memset(x + i * ld + n, 0, (size_t)(ld - n) * 4);
}

static double sum_squares(const float *x, int64_t n)
{
    double s[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++) s[l] += (double)x[i + l] * (double)x[i + l];
    for (int l = 0; i < n; i++, l++) s[l] += (double)x[i] * (double)x[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static void begin(const phase *p, matrix *m, int64_t chunk, void *scratch)
{
    const hd_optim_kernels *k = p->d->k->optim;
    int64_t j0 = chunk * ROWS, n = m->is.n - j0 < ROWS ? m->is.n - j0 : ROWS, cols = m->is.k;
    double sum = 0;
    (void)scratch;
    for (int64_t j = j0; j < j0 + n; j++) {
        float *u = m->tall ? m->y + j * cols : m->x + j * m->ldx; // y has room for the rows of w as they are
        const float *g = p->g + m->is.at + j * cols;
        if (p->u->m_bf16) k->nesterov_bf16(u, (uint16_t *)m->is.m + j * cols, g, cols, p->mu, p->grad_scale);
        else k->nesterov(u, (float *)m->is.m + j * cols, g, cols, p->mu, p->grad_scale);
        sum += sum_squares(u, cols);
        if (!m->tall) memset(u + cols, 0, (size_t)(m->ldx - cols) * 4);
    }
    m->sum[chunk] = sum;
    if (!m->tall) return;
    rows_to_columns(m->x, m->ldx, j0, m->y + j0 * cols, n, cols);
    if (j0 + n == m->c) pad(m->x, m->ldx, m->r, m->c);
}

static void scale(const phase *p, matrix *m, int64_t chunk, void *scratch)
{
    double sum = 0;
    (void)p, (void)scratch;
    for (int64_t i = 0; i < row_chunks(m); i++) sum += m->sum[i];
    float s = (float)(1 / (sqrt(sum) + 1e-7));
    int64_t from = chunk * ROWS * m->ldx, to = from + ROWS * m->ldx;
    if (to > m->r * m->ldx) to = m->r * m->ldx;
    for (int64_t i = from; i < to; i++) m->x[i] *= s;
}

static void end(const phase *p, matrix *m, int64_t chunk, void *scratch)
{
    int64_t j0 = chunk * ROWS, n = m->is.n - j0 < ROWS ? m->is.n - j0 : ROWS, cols = m->is.k;
    float rate = p->lr * 0.2f * sqrtf((float)m->c);
    (void)scratch;
    if (m->tall) columns_to_rows(m->y + j0 * cols, n, cols, m->x, m->ldx, j0);
    for (int64_t j = j0; j < j0 + n; j++) {
        const float *x = m->tall ? m->y + j * cols : m->x + j * m->ldx;
        p->d->k->optim->descend(p->w + m->is.at + j * cols, x, cols, p->keep, rate);
    }
}

/* ---- Newton-Schulz ---- */

/* Panels of the F32 layout, w[k][32]: rows r0.. of x as outputs, or its columns c0...  Missing
 * outputs are zero. */
static void pack_rows(float *panel, const float *x, int64_t ld, int64_t r0, int64_t n_rows, int64_t k)
{
    int64_t n = n_rows - r0 < P ? n_rows - r0 : P;
    if (n < P) memset(panel, 0, (size_t)(k * P) * 4);
    for (int64_t k0 = 0; k0 < k; k0 += 16)
        for (int64_t j = 0; j < n; j++) {
            const float *from = x + (r0 + j) * ld;
            for (int64_t i = k0; i < k && i < k0 + 16; i++) panel[i * P + j] = from[i];
        }
}

static void pack_columns(float *panel, const float *x, int64_t ld, int64_t c0, int64_t k)
{
    for (int64_t i = 0; i < k; i++) memcpy(panel + i * P, x + i * ld + c0, P * 4); // ld is a multiple of 64: never past a row
}

/* s[r0.., c0..c0+31]: the panel's outputs for the rows of act from r0 on. */
static void product(const phase *p, float *s, int64_t lds, int64_t r0, int64_t c0, int64_t rows, const float *panel,
                    const float *act, int64_t ld, int64_t k, void *scratch)
{
    p->d->k->panel_mul[HD_PANEL_F32](panel, k, (const uint8_t *)(act + r0 * ld), (size_t)ld * 4, (int)(rows - r0), s + r0 * lds + c0,
                                     lds, scratch);
}

/* What lies below the diagonal block at r0, to its right. */
static void mirror(float *s, int64_t ld, int64_t r0, int64_t r)
{
    for (int64_t i = r0 + P; i < r; i++)
        for (int64_t j = r0; j < r0 + P; j++) s[j * ld + i] = s[i * ld + j];
}

static void gram(const phase *p, matrix *m, int64_t chunk, void *scratch)
{
    int64_t r0 = chunk * P;
    float *panel = m->panels + chunk * P * m->c;
    pack_rows(panel, m->x, m->ldx, r0, m->r, m->c);
    product(p, m->a, m->lda, r0, r0, m->r, panel, m->x, m->ldx, m->c, scratch);
    mirror(m->a, m->lda, r0, m->r);
    if (r0 + P >= m->r) pad(m->a, m->lda, m->r, m->r);
}

static void poly(const phase *p, matrix *m, int64_t chunk, void *scratch)
{
    int64_t r0 = chunk * P, n = m->r - r0 < P ? m->r - r0 : P;
    float *panel = m->panels + chunk * P * m->r;
    pack_columns(panel, m->a, m->lda, r0, m->r);
    product(p, m->b, m->lda, r0, r0, m->r, panel, m->a, m->lda, m->r, scratch);
    for (int64_t i = r0; i < m->r; i++)
        for (int64_t j = r0; j < r0 + n; j++) {
            float *b = m->b + i * m->lda + j;
            *b = -4.7750f * m->a[i * m->lda + j] + 2.0315f * *b + (i == j ? 3.4445f : 0);
        }
    mirror(m->b, m->lda, r0, m->r);
    if (r0 + P >= m->r) pad(m->b, m->lda, m->r, m->r);
}

static void apply(const phase *p, matrix *m, int64_t chunk, void *scratch)
{
    float *panel = m->panels + chunk * P * m->r;
    pack_columns(panel, m->x, m->ldx, chunk * P, m->r);
    product(p, m->y, m->ldx, 0, chunk * P, m->r, panel, m->b, m->lda, m->r, scratch);
    if (chunk * P + P >= m->c) pad(m->y, m->ldx, m->r, m->c);
}

void hd_muon_step(hd_muon *u, hd_dev *d, float *w, const float *g, float lr, float keep, float mu, float grad_scale)
{
    for (int i = 0; i < u->n_groups; i++) {
        phase p = {.u = u, .d = d, .w = w, .g = g, .lr = lr, .keep = keep, .mu = mu, .grad_scale = grad_scale};
        p.list = u->list + u->group[i];
        p.n = u->group[i + 1] - u->group[i];
        run(&p, row_chunks, begin);
        run(&p, x_chunks, scale);
        for (int s = 0; s < u->steps; s++) {
            run(&p, r_panels, gram);
            run(&p, r_panels, poly);
            run(&p, c_panels, apply);
            for (int k = 0; k < p.n; k++) {
                float *x = p.list[k].x;
                p.list[k].x = p.list[k].y;
                p.list[k].y = x;
            }
        }
        run(&p, row_chunks, end);
    }
}
