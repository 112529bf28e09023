/* A teacher's probabilities: the documents of a micro-batch as sequences of hd_forward, and the likeliest
 * ids of each row of logits.  Nothing is computed behind a document's last target, and few rows of logits
 * are kept at once. */
#include "train/teacher.h"

#include <math.h>

#include "model/cache.h"

static const size_t LOGIT_BYTES = (size_t)64 << 20;

struct hd_teacher {
    hd_model *m;
    hd_cache *cache;
    int n_top, max_rows, slice; // rows of a pass
    int most_wanted;            // ... of them with logits
    float *logits;              // [most_wanted, n_vocab]
    float *state;               // [slice, d_model] before the head
    int32_t *tok, *n_of;        // [slice]
    bool *want;
    int *row, *want_row; // [slice], [most_wanted] rows of the micro-batch
    hd_seq **seq;        // [slice]
};

void hd_teacher_close(hd_teacher *t)
{
    if (!t) return;
    hd_cache_close(t->cache);
    free(t->logits);
    free(t->state);
    free(t->tok);
    free(t->n_of);
    free(t->want);
    free(t->row);
    free(t->want_row);
    free(t->seq);
    free(t);
}

hd_status hd_teacher_open(hd_teacher **out, hd_model *m, int n_top, int max_rows, hd_err *err)
{
    hd_status st;
    hd_teacher *t = NULL;
    const hd_config *c = hd_model_config(m);
    size_t row_bytes = (size_t)c->n_vocab * sizeof(float);
    if (n_top < 1 || n_top > HD_TEACHER_MAX_TOP || max_rows < 1)
        return hd_fail(err, HD_USAGE, "teacher: %d ids a row of %d: 1 to %d are possible", n_top, max_rows,
                       HD_TEACHER_MAX_TOP);
    HD_TRY(hd_alloc(&t, sizeof *t, err));
    t->m = m;
    t->n_top = n_top;
    t->max_rows = max_rows;
    t->slice = hd_model_max_rows(m) < max_rows ? hd_model_max_rows(m) : max_rows;
    size_t most = LOGIT_BYTES / row_bytes;
    t->most_wanted = most < 16 ? 16 : most > (size_t)t->slice ? t->slice : (int)most;
    HD_TRY(hd_alloc_n(&t->logits, (size_t)t->most_wanted, row_bytes, err));
    HD_TRY(hd_alloc_n(&t->state, (size_t)t->slice, (size_t)c->d_model * sizeof *t->state, err));
    HD_TRY(hd_alloc_n(&t->tok, (size_t)t->slice, sizeof *t->tok, err));
    HD_TRY(hd_alloc_n(&t->n_of, (size_t)t->slice, sizeof *t->n_of, err));
    HD_TRY(hd_alloc_n(&t->want, (size_t)t->slice, sizeof *t->want, err));
    HD_TRY(hd_alloc_n(&t->row, (size_t)t->slice, sizeof *t->row, err));
    HD_TRY(hd_alloc_n(&t->want_row, (size_t)t->most_wanted, sizeof *t->want_row, err));
    HD_TRY(hd_alloc_n(&t->seq, (size_t)t->slice, sizeof *t->seq, err));
    /* One document under way, and of a pass each document at least a page. */
    HD_TRY(hd_cache_open(&t->cache, c, hd_cache_default(c),
                         (int64_t)max_rows + (int64_t)(t->slice + 1) * HD_PAGE_TOK, err));
    *out = t;
    return HD_OK;
fail:
    hd_teacher_close(t);
    return st;
}

/* ---- No numbers ---- */

static bool all_finite(const float *x, int64_t n)
{
    bool finite = true;
    for (int64_t i = 0; i < n; i++) finite &= x[i] - x[i] == 0;
    return finite;
}

enum { CHECK_ROWS = 64 };

typedef struct {
    const hd_tensor_info *t;
    hd_dequant_fn *decode;
    int64_t rows, k;
    size_t row_bytes;
    float *x; // [threads, k]
    _Atomic bool bad;
} check;

static void check_rows(void *arg, int64_t chunk, int tid)
{
    check *c = arg;
    float *x = c->x + tid * c->k;
    for (int64_t row = chunk * CHECK_ROWS; row < c->rows && row < (chunk + 1) * CHECK_ROWS; row++) {
        c->decode(x, c->t->data + (size_t)row * c->row_bytes, c->k);
        if (!all_finite(x, c->k)) c->bad = true;
    }
}

hd_status hd_teacher_check(const hd_source *s, hd_pool *pool, hd_err *err)
{
    hd_status st = HD_OK;
    check c = {0};
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
        const hd_tensor_info *t = c.t = hd_source_tensor(s, i);
        const hd_format *f = hd_format_get((int)t->type);
        if (!f || !f->dequant || t->n_dims < 1) continue; // whole numbers, or what loading refuses
        c.decode = f->dequant;
        c.k = t->dim[t->n_dims - 1];
        if (c.k < 1 || !hd_format_row_bytes(f, c.k, &c.row_bytes)) continue;
        c.rows = (int64_t)(t->bytes / c.row_bytes);
        free(c.x);
        c.x = NULL;
        HD_TRY(hd_alloc_n(&c.x, (size_t)hd_pool_threads(pool), (size_t)c.k * sizeof *c.x, err));
        hd_pool_run(pool, (c.rows + CHECK_ROWS - 1) / CHECK_ROWS, check_rows, &c);
        hd_source_release(s, t);
        if (c.bad) HD_TRY(hd_fail(err, HD_FORMAT, "teacher: %s: %s: holds a number that is not finite", hd_source_path(s), t->name));
    }
fail:
    free(c.x);
    return st;
}

/* ---- The likeliest ids ---- */

static bool less_likely(const float *x, int32_t a, int32_t b) { return x[a] != x[b] ? x[a] < x[b] : a > b; }

/* id[0..n) is a heap with the least likely on top; it has sunk no deeper than i. */
static void sink(int32_t *id, int n, int i, const float *x)
{
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && less_likely(x, id[child + 1], id[child])) child++;
        if (!less_likely(x, id[child], id[i])) return;
        int32_t swap = id[i];
        id[i] = id[child];
        id[child] = swap;
    }
}

/* false: a logit is no finite number. */
static bool top_of(const float *x, int64_t V, int n_top, int32_t *id, float *logp)
{
    int n = n_top < V ? n_top : (int)V;
    float max = x[0];
    double sum = 0;
    if (!all_finite(x, V)) return false;
    for (int64_t i = 1; i < V; i++) max = x[i] > max ? x[i] : max;
    for (int64_t i = 0; i < V; i++) sum += (double)expf(x[i] - max);
    for (int i = 0; i < n; i++) id[i] = i;
    for (int i = n / 2; i-- > 0;) sink(id, n, i, x);
    for (int64_t i = n; i < V; i++) {
        if (!(x[i] > x[id[0]])) continue;
        id[0] = (int32_t)i;
        sink(id, n, 0, x);
    }
    for (int k = n; k-- > 1;) { // the least likely goes last
        int32_t swap = id[0];
        id[0] = id[k];
        id[k] = swap;
        sink(id, k, 0, x);
    }
    double lse = (double)max + log(sum);
    for (int i = 0; i < n; i++) logp[i] = (float)((double)x[id[i]] - lse);
    for (int i = n; i < n_top; i++) id[i] = -1, logp[i] = 0;
    return true;
}

typedef struct {
    const hd_teacher *t;
    int64_t V, D;
    int32_t *id;
    float *logp;
    _Atomic int bad; // a row with a number that is none, plus one
} tops;

static void state_row(void *arg, int64_t i, int tid)
{
    (void)tid;
    tops *s = arg;
    if (!all_finite(s->t->state + i * s->D, s->D)) s->bad = s->t->row[i] + 1;
}

static void top_row(void *arg, int64_t i, int tid)
{
    (void)tid;
    tops *s = arg;
    int64_t row = s->t->want_row[i], k = s->t->n_top;
    if (!top_of(s->t->logits + i * s->V, s->V, s->t->n_top, s->id + row * k, s->logp + row * k))
        s->bad = (int)row + 1;
}

/* ---- Documents ---- */

typedef struct {
    const hd_micro *b;
    int doc, first;   // the document under way and its first row
    int done, needed; // its rows: computed, to be computed
    hd_seq *seq;      // its, once begun
} walk;

static int rows_needed(const hd_micro *b, int first, int len)
{
    while (len > 0 && b->target[first + len - 1] < 0) len--;
    return len;
}

/* The rows of a pass; documents that end in it stand in seq[0 .. n_seqs) beside the one that goes on. */
static hd_status fill(hd_teacher *t, walk *w, hd_batch *batch, int *n_wanted, hd_err *err)
{
    hd_status st = HD_OK;
    *batch = (hd_batch){.tok = t->tok, .want = t->want, .n_of = t->n_of, .seq = t->seq};
    *n_wanted = 0;
    while (w->doc < w->b->n_docs && batch->n_rows < t->slice && *n_wanted < t->most_wanted) {
        if (w->done == w->needed) { // also of none
            w->first += w->b->len[w->doc++];
            w->done = 0;
            w->seq = NULL;
            w->needed = w->doc < w->b->n_docs ? rows_needed(w->b, w->first, w->b->len[w->doc]) : 0;
            continue;
        }
        if (!w->seq) HD_TRY(hd_seq_open(&w->seq, t->cache, err));
        t->seq[batch->n_seqs] = w->seq;
        int32_t n = 0;
        for (; w->done < w->needed && batch->n_rows < t->slice && *n_wanted < t->most_wanted;
             w->done++, n++) {
            int row = w->first + w->done, i = batch->n_rows++;
            t->tok[i] = w->b->tok[row];
            t->want[i] = w->b->target[row] >= 0;
            t->row[i] = row;
            if (t->want[i]) t->want_row[(*n_wanted)++] = row;
        }
        t->n_of[batch->n_seqs++] = n;
    }
fail:
    return st;
}

hd_status hd_teacher_run(hd_teacher *t, const hd_micro *b, int32_t *id, float *logp, hd_err *err)
{
    hd_status st = HD_OK;
    const hd_config *c = hd_model_config(t->m);
    tops s = {.t = t, .V = c->n_vocab, .D = c->d_model, .id = id, .logp = logp};
    hd_batch batch = {0};
    int64_t sum = 0, V = s.V;
    int n_wanted;
    for (int i = 0; i < b->n_docs; i++) sum += b->len[i];
    if (b->n_rows > t->max_rows || sum != b->n_rows)
        return hd_fail(err, HD_USAGE, "teacher: %d rows in documents of %lld: at most %d", b->n_rows,
                       (long long)sum, t->max_rows);
    for (int i = 0; i < b->n_rows; i++) {
        if (b->tok[i] < 0 || b->tok[i] >= V)
            return hd_fail(err, HD_USAGE, "teacher: row %d: id %d: the teacher's vocabulary has %lld", i,
                           b->tok[i], (long long)V);
        for (int k = 0; k < t->n_top; k++)
            id[(int64_t)i * t->n_top + k] = -1, logp[(int64_t)i * t->n_top + k] = 0;
    }
    walk w = {.b = b, .needed = b->n_docs ? rows_needed(b, 0, b->len[0]) : 0};
    for (;;) {
        HD_TRY(fill(t, &w, &batch, &n_wanted, err));
        if (batch.n_rows == 0) break;
        HD_TRY(hd_forward(t->m, &batch, t->logits, t->state, err));
        hd_pool_run(hd_model_dev(t->m)->pool, batch.n_rows, state_row, &s);
        hd_pool_run(hd_model_dev(t->m)->pool, n_wanted, top_row, &s);
        if (s.bad)
            HD_TRY(hd_fail(err, HD_FORMAT, "teacher: row %d: its state or its logits are no finite numbers", s.bad - 1));
        for (int i = 0; i < batch.n_seqs; i++)
            if (t->seq[i] != w.seq || w.done == w.needed) {
                if (t->seq[i] == w.seq) w.seq = NULL;
                hd_seq_close(t->seq[i]);
            }
        batch.n_seqs = 0;
    }
    return HD_OK;
fail:
    for (int i = 0; i < batch.n_seqs; i++) {
        if (t->seq[i] == w.seq) w.seq = NULL;
        hd_seq_close(t->seq[i]);
    }
    hd_seq_close(w.seq);
    return st;
}
