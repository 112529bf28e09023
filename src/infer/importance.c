/* Importance from a text.
 *
 * A product y = W x rounds best where its error matters: sum over rows of (W x - W' x)^2, whose expectation,
 * when columns are taken as uncorrelated, is sum over i of E[x_i^2] (w_i - w'_i)^2.  So the weight of column
 * i is the mean square of x_i over a text (the idea of llama.cpp's imatrix, and the diagonal of the Hessian
 * of OBS, arXiv:2203.07259).
 *
 * The device tells of each product; the address of its weight in the mapped file says which tensor it is, and
 * which of its matrices.  Activations are read from the blobs that the kernels read, so they carry the
 * kernels' rounding. */
#include "infer/importance.h"

#include <string.h>

/* One tensor of the file, in order of addresses. */
typedef struct {
    const hd_tensor_info *t;
    int64_t cols, experts;
    size_t matrix_bytes;
    float *sum;     // [experts][cols] into `store`
    int64_t *count; // [experts]
} tally;

typedef struct {
    tally *of; // [n]
    int n;
    float *store, *row, *add; // row, add: [widest]
    int64_t *counts;
} watcher;

static int by_address(const void *a, const void *b)
{
    const uint8_t *x = ((const tally *)a)->t->data, *y = ((const tally *)b)->t->data;
    return (x > y) - (x < y);
}

/* The last tensor that begins at p or before. */
static tally *find(const watcher *w, const uint8_t *p)
{
    int lo = 0, hi = w->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (w->of[mid].t->data <= p) lo = mid + 1;
        else hi = mid;
    }
    if (lo == 0) return NULL;
    tally *t = &w->of[lo - 1];
    return p < t->t->data + t->t->bytes ? t : NULL;
}

static void watch(void *arg, const hd_mm *jobs, int n_jobs)
{
    watcher *w = arg;
    for (int i = 0; i < n_jobs; i++) {
        const hd_mm *j = &jobs[i];
        const hd_act *a = j->act;
        tally *t = j->w->src.data ? find(w, j->w->src.data) : NULL;
        if (!t || t->cols != a->k) continue;
        bool again = i > 0 && jobs[i - 1].act == a && jobs[i - 1].m0 == j->m0 && jobs[i - 1].M == j->M; // q, k, v
        if (!again) memset(w->add, 0, (size_t)a->k * sizeof *w->add);
        for (int m = 0; !again && m < j->M; m++) {
            hd_act_unpack(a->kind, a->data + (size_t)(j->m0 + m) * a->stride, w->row, a->k);
            for (int64_t c = 0; c < a->k; c++) w->add[c] += w->row[c] * w->row[c];
        }
        int64_t expert = (int64_t)((size_t)(j->w->src.data - t->t->data) / t->matrix_bytes);
        float *sum = t->sum + expert * t->cols;
        for (int64_t c = 0; c < a->k; c++) sum[c] += w->add[c];
        t->count[expert] += j->M;
    }
}

/* Does the tensor have columns that a product reads? */
static bool is_matrix(const hd_tensor_info *t) { return t->n_dims == 2 || t->n_dims == 3; }

static hd_status watcher_open(watcher *w, const hd_source *s, hd_err *err)
{
    hd_status st;
    int64_t n = hd_source_n_tensors(s), matrices = 0, widest = 1;
    size_t floats = 0;
    *w = (watcher){0};
    HD_TRY(hd_alloc_n(&w->of, (size_t)n + 1, sizeof *w->of, err));
    for (int64_t i = 0; i < n; i++) {
        const hd_tensor_info *t = hd_source_tensor(s, i);
        size_t add;
        if (!is_matrix(t) || t->bytes == 0) continue;
        tally *y = &w->of[w->n++];
        *y = (tally){.t = t, .cols = t->dim[t->n_dims - 1], .experts = t->n_dims == 3 ? t->dim[0] : 1};
        y->matrix_bytes = t->bytes / (size_t)y->experts;
        if (!hd_mul(&add, (size_t)y->cols, (size_t)y->experts) || !hd_add(&floats, floats, add))
            return hd_fail(err, HD_NOMEM, "importance: %s: too large", t->name);
        matrices += y->experts;
        if (y->cols > widest) widest = y->cols;
    }
    HD_TRY(hd_alloc_n(&w->store, floats, sizeof *w->store, err));
    HD_TRY(hd_alloc_n(&w->counts, (size_t)matrices, sizeof *w->counts, err));
    HD_TRY(hd_alloc_n(&w->row, (size_t)widest, sizeof *w->row, err));
    HD_TRY(hd_alloc_n(&w->add, (size_t)widest, sizeof *w->add, err));
    float *f = w->store;
    int64_t *c = w->counts;
    qsort(w->of, (size_t)w->n, sizeof *w->of, by_address);
    for (int i = 0; i < w->n; i++) {
        w->of[i].sum = f;
        w->of[i].count = c;
        f += w->of[i].cols * w->of[i].experts;
        c += w->of[i].experts;
    }
fail:
    return st;
}

static void watcher_close(watcher *w)
{
    free(w->of);
    free(w->store);
    free(w->counts);
    free(w->row);
    free(w->add);
}

/* The means of matrix x of t; ones when nothing reached it. */
static void put_means(float *to, const tally *t, int64_t x)
{
    for (int64_t c = 0; c < t->cols; c++)
        to[c] = t->count[x] > 0 ? t->sum[x * t->cols + c] / (float)t->count[x] : 1;
}

/* Of an exported tensor: was anything seen, and its means into `to` when not NULL. */
static bool gather(const watcher *w, const hd_export_tensor *e, float *to)
{
    bool seen = false;
    int64_t cols = hd_export_cols(e);
    for (int64_t i = 0; i < (e->stacked ? e->dim[0] : 1); i++) {
        const tally *t = find(w, e->src[i].t->data);
        if (!t || t->cols != cols || t->t != e->src[i].t) return false;
        for (int64_t x = 0; x < t->experts; x++) {
            seen |= t->count[x] > 0;
            if (to) put_means(to + (i + x) * cols, t, x);
        }
    }
    return seen;
}

static bool takes_columns(const hd_export_tensor *e)
{
    return e->n_dims >= 2 && e->src && (e->take == HD_TAKE_ROWS || e->take == HD_TAKE_ROTARY);
}

static hd_status collect(hd_importances *out, const watcher *w, const hd_export *e, hd_err *err)
{
    hd_status st;
    size_t floats = 0;
    HD_TRY(hd_alloc_n(&out->v, (size_t)e->n, sizeof *out->v, err));
    for (int64_t i = 0; i < e->n; i++) {
        const hd_export_tensor *t = &e->tensor[i];
        if (!takes_columns(t) || !gather(w, t, NULL)) continue;
        hd_importance *m = &out->v[out->n++];
        memcpy(m->name, t->name, sizeof m->name);
        m->cols = hd_export_cols(t);
        m->experts = t->n_dims == 3 ? t->dim[0] : 1;
        floats += (size_t)(m->cols * m->experts); // no more than the watcher holds
    }
    HD_TRY(hd_alloc_n(&out->means, floats, sizeof *out->means, err));
    float *f = out->means;
    int k = 0;
    for (int64_t i = 0; i < e->n && k < out->n; i++) {
        if (strcmp(e->tensor[i].name, out->v[k].name) != 0) continue;
        gather(w, &e->tensor[i], f);
        out->v[k].mean = f;
        f += out->v[k].cols * out->v[k].experts;
        k++;
    }
fail:
    return st;
}

hd_status hd_importances_open(hd_importances *out, hd_perplexity *p, hd_model *m, const hd_source *s, const int32_t *id,
                              int64_t n, int64_t ctx, int32_t bos, int64_t max_chunks, hd_err *err)
{
    hd_status st;
    watcher w = {0};
    hd_export e = {0};
    hd_dev *d = hd_model_dev(m);
    *out = (hd_importances){0};
    HD_TRY(hd_export_open(&e, s, err));
    HD_TRY(watcher_open(&w, s, err));
    d->watch = watch;
    d->watch_arg = &w;
    st = hd_perplexity_run(p, m, HD_CACHE_BF16, id, n, ctx, bos, max_chunks, err);
    d->watch = NULL;
    HD_TRY(st);
    HD_TRY(collect(out, &w, &e, err));
fail:
    if (st != HD_OK) hd_importances_close(out);
    watcher_close(&w);
    hd_export_close(&e);
    return st;
}

void hd_importances_close(hd_importances *v)
{
    free(v->v);
    free(v->means);
    *v = (hd_importances){0};
}
