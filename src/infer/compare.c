/* KL and perplexity of two models: both run the same slice, then each row's distributions are compared, rows
 * spread over the threads.  Nothing is kept but a slice of logits of each. */
#include "infer/compare.h"

#include <math.h>
#include <string.h>

#include "base/log.h"

enum { ROWS = 64 };

typedef struct {
    hd_model *m;
    hd_cache *cache;
    hd_seq *seq;
    float *logits; // [ROWS, vocab]
} side;

typedef struct {
    side a, b;
    int64_t vocab;
    const int32_t *next; // [rows] the ids that really follow
    double nll_a[ROWS], nll_b[ROWS], kl[ROWS];
    bool same[ROWS];
} pair;

static hd_status side_open(side *s, hd_model *m, hd_cache_type type, int64_t ctx, hd_err *err)
{
    hd_status st;
    s->m = m;
    HD_TRY(hd_cache_open(&s->cache, hd_model_config(m), type, ctx, err));
    HD_TRY(hd_seq_open(&s->seq, s->cache, err));
    HD_TRY(hd_alloc_n(&s->logits, (size_t)hd_model_config(m)->n_vocab * ROWS, sizeof *s->logits, err));
fail:
    return st;
}

static void side_close(side *s)
{
    if (s->seq) hd_seq_close(s->seq);
    hd_cache_close(s->cache);
    free(s->logits);
}

static hd_status side_forward(side *s, const int32_t *id, int32_t rows, const bool *want, hd_err *err)
{
    hd_batch b = {.n_rows = rows, .tok = id, .want = want, .n_seqs = 1, .n_of = &rows, .seq = &s->seq};
    return hd_forward(s->m, &b, s->logits, NULL, err);
}

/* log sum exp, and where the largest is. */
static double log_sum(const float *x, int64_t n, int64_t *top)
{
    double sum = 0;
    *top = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[*top]) *top = i;
    for (int64_t i = 0; i < n; i++) sum += (double)expf(x[i] - x[*top]);
    return x[*top] + log(sum);
}

/* KL(p || q) = sum p (log p - log q) */
static void compare_row(void *arg, int64_t row, int tid)
{
    pair *c = arg;
    const float *x = c->a.logits + row * c->vocab, *y = c->b.logits + row * c->vocab;
    int64_t top_x, top_y;
    double lx = log_sum(x, c->vocab, &top_x), ly = log_sum(y, c->vocab, &top_y), kl = 0;
    (void)tid;
    for (int64_t i = 0; i < c->vocab; i++) {
        double log_p = x[i] - lx;
        kl += (double)expf((float)log_p) * (log_p - (y[i] - ly));
    }
    c->kl[row] = kl;
    c->same[row] = top_x == top_y;
    c->nll_a[row] = lx - x[c->next[row]];
    c->nll_b[row] = ly - y[c->next[row]];
}

typedef struct {
    double nll_a, nll_b, kl, kl2;
    int64_t same, n;
} sums;

static hd_status run_chunk(pair *c, sums *s, const int32_t *id, int64_t ctx, hd_err *err)
{
    hd_status st = HD_OK;
    bool want[ROWS];
    hd_seq_trim(c->a.seq, 0);
    hd_seq_trim(c->b.seq, 0);
    for (int64_t at = 0, half = ctx / 2; at < ctx;) {
        int64_t end = at < half ? half : ctx;
        int32_t rows = (int32_t)(end - at < ROWS ? end - at : ROWS);
        int scored = at < half ? 0 : at + rows == ctx ? rows - 1 : rows; // nothing follows the last id
        for (int i = 0; i < rows; i++) want[i] = at >= half;
        HD_TRY(side_forward(&c->a, id + at, rows, want, err));
        HD_TRY(side_forward(&c->b, id + at, rows, want, err));
        c->next = id + at + 1;
        hd_rows_run(hd_model_dev(c->a.m), scored, compare_row, c);
        for (int i = 0; i < scored; i++) {
            s->nll_a += c->nll_a[i];
            s->nll_b += c->nll_b[i];
            s->kl += c->kl[i];
            s->kl2 += c->kl[i] * c->kl[i];
            s->same += c->same[i];
            s->n++;
        }
        at += rows;
    }
fail:
    return st;
}

hd_status hd_compare(hd_comparison *out, hd_model *m, hd_cache_type type, hd_model *other,
                     hd_cache_type other_type, const int32_t *id, int64_t n, int64_t ctx, int32_t bos, int64_t max_chunks, hd_err *err)
{
    hd_status st;
    pair *c = NULL;
    int32_t *chunk = NULL;
    sums s = {0};
    hd_progress bar;
    int64_t chunks = ctx > 0 ? n / ctx : 0;
    *out = (hd_comparison){0};
    if (max_chunks > 0 && chunks > max_chunks) chunks = max_chunks;
    if (ctx < 4 || ctx > (int64_t)1 << 24 || chunks < 1)
        return hd_fail(err, HD_USAGE, "compare: %lld ids: at least one chunk of %lld is needed", (long long)n, (long long)ctx);
    if (hd_model_config(m)->n_vocab != hd_model_config(other)->n_vocab)
        return hd_fail(err, HD_USAGE, "compare: vocabularies of %lld and %lld", (long long)hd_model_config(m)->n_vocab,
                       (long long)hd_model_config(other)->n_vocab);
    HD_TRY(hd_alloc(&c, sizeof *c, err));
    c->vocab = hd_model_config(m)->n_vocab;
    HD_TRY(side_open(&c->a, m, type, ctx, err));
    HD_TRY(side_open(&c->b, other, other_type, ctx, err));
    HD_TRY(hd_alloc_n(&chunk, (size_t)ctx, sizeof *chunk, err));
    hd_progress_begin(&bar, "comparing", (uint64_t)(chunks * ctx), "ids");
    for (int64_t i = 0; i < chunks && st == HD_OK; i++) {
        memcpy(chunk, id + i * ctx, (size_t)ctx * sizeof *chunk);
        if (bos >= 0) chunk[0] = bos;
        st = run_chunk(c, &s, chunk, ctx, err);
        hd_progress_add(&bar, (uint64_t)ctx);
    }
    hd_progress_end(&bar);
    HD_TRY(st);
    double k = (double)s.n, mean = s.kl / k, var = s.kl2 / k - mean * mean;
    *out = (hd_comparison){.perplexity = exp(s.nll_a / k), .perplexity_of_other = exp(s.nll_b / k), .kl = mean,
                           .same_top = (double)s.same / k, .n_scored = s.n, .n_chunks = chunks};
    if (s.n > 1 && var > 0) out->kl_error = sqrt(var / (k - 1));
fail:
    if (c) {
        side_close(&c->a);
        side_close(&c->b);
    }
    free(c);
    free(chunk);
    return st;
}
