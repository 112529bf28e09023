/* Scoring: a text is run through the model as it stands, and every position's logits are looked at. */
#include "infer/score.h"

#include <math.h>
#include <string.h>

#include "base/log.h"

enum { LOGIT_ROWS = 64 }; // rows whose logits are kept at once: a vocabulary of 150,000 makes 40 MB of them

double hd_log_prob(const float *logits, int64_t n, int32_t id)
{
    float max = logits[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    for (int64_t i = 0; i < n; i++) sum += (double)expf(logits[i] - max);
    return (double)logits[id] - max - log(sum);
}

typedef struct {
    hd_model *m;
    hd_cache *cache;
    hd_seq *seq;
    float *logits;
    bool *want;
    int slice;
} run;

static hd_status run_open(run *r, hd_model *m, hd_cache_type type, int64_t n_tok, int slice, hd_err *err)
{
    hd_status st;
    int rows = hd_model_max_rows(m) < LOGIT_ROWS ? hd_model_max_rows(m) : LOGIT_ROWS;
    *r = (run){.m = m, .slice = hd_model_max_rows(m)};
    if (slice > 0 && slice < r->slice) r->slice = slice;
    HD_TRY(hd_cache_open(&r->cache, hd_model_config(m), type, n_tok, err));
    HD_TRY(hd_seq_open(&r->seq, r->cache, err));
    HD_TRY(
        hd_alloc_n(&r->logits, (size_t)rows * (size_t)hd_model_config(m)->n_vocab, sizeof *r->logits, err));
    HD_TRY(hd_alloc_n(&r->want, (size_t)r->slice, sizeof *r->want, err));
fail:
    return st;
}

static void run_close(run *r)
{
    if (r->seq) hd_seq_close(r->seq);
    hd_cache_close(r->cache);
    free(r->logits);
    free(r->want);
}

/* Ids id[0..n) after what the sequence holds; slices whose logits are wanted are short
 * enough for `logits`. */
static hd_status run_ids(run *r, const int32_t *id, int64_t n, int64_t first, hd_score_fn *fn, void *arg,
                         hd_err *err)
{
    hd_status st = HD_OK;
    int64_t vocab = hd_model_config(r->m)->n_vocab;
    for (int64_t at = 0; at < n;) {
        bool wanted = at >= first;
        int most = wanted && r->slice > LOGIT_ROWS ? LOGIT_ROWS : r->slice;
        int64_t end = wanted || first > n ? n : first;
        int32_t rows = (int32_t)(end - at < most ? end - at : most);
        for (int i = 0; i < rows; i++) r->want[i] = wanted;
        hd_batch b = {
            .n_rows = rows, .tok = id + at, .want = r->want, .n_seqs = 1, .n_of = &rows, .seq = &r->seq};
        HD_TRY(hd_forward(r->m, &b, r->logits, NULL, err));
        for (int i = 0; wanted && i < rows; i++) HD_TRY(fn(arg, at + i, r->logits + i * vocab, err));
        at += rows;
    }
fail:
    return st;
}

hd_status hd_score_run(hd_model *m, hd_cache_type type, const int32_t *id, int64_t n, int64_t first,
                       int slice, hd_score_fn *fn, void *arg, hd_err *err)
{
    hd_status st;
    run r = {0};
    if (n < 1) return hd_fail(err, HD_USAGE, "score: no ids");
    HD_TRY(run_open(&r, m, type, n, slice, err));
    HD_TRY(run_ids(&r, id, n, first, fn, arg, err));
fail:
    run_close(&r);
    return st;
}

typedef struct {
    const int32_t *id;
    int64_t n, n_vocab;
    double sum, sum2;
    int64_t count;
} sums;

static hd_status add_position(void *arg, int64_t pos, const float *logits, hd_err *err)
{
    sums *s = arg;
    (void)err;
    if (pos + 1 >= s->n) return HD_OK;
    double nll = -hd_log_prob(logits, s->n_vocab, s->id[pos + 1]);
    s->sum += nll;
    s->sum2 += nll * nll;
    s->count++;
    return HD_OK;
}

hd_status hd_perplexity_run(hd_perplexity *out, hd_model *m, hd_cache_type type, const int32_t *id, int64_t n,
                            int64_t ctx, int32_t bos, int64_t max_chunks, hd_err *err)
{
    hd_status st;
    run r = {0};
    int32_t *chunk = NULL;
    sums s = {.n = ctx, .n_vocab = hd_model_config(m)->n_vocab};
    hd_progress bar;
    *out = (hd_perplexity){0};
    if (ctx < 4 || ctx > (int64_t)1 << 24 || n < 2 * ctx)
        return hd_fail(err, HD_USAGE, "perplexity: %lld ids: at least two chunks of %lld are needed",
                       (long long)n, (long long)ctx);
    HD_TRY(hd_alloc_n(&chunk, (size_t)ctx, sizeof *chunk, err));
    HD_TRY(run_open(&r, m, type, ctx, 0, err));
    out->n_chunks = n / ctx;
    if (max_chunks > 0 && out->n_chunks > max_chunks) out->n_chunks = max_chunks;
    s.id = chunk;
    hd_progress_begin(&bar, "scoring", (uint64_t)(out->n_chunks * ctx), "ids");
    for (int64_t c = 0; c < out->n_chunks; c++) {
        memcpy(chunk, id + c * ctx, (size_t)ctx * sizeof *chunk);
        if (bos >= 0) chunk[0] = bos;
        hd_seq_trim(r.seq, 0);
        HD_TRY(run_ids(&r, chunk, ctx, ctx / 2, add_position, &s, err));
        hd_progress_add(&bar, (uint64_t)ctx);
    }
    hd_progress_end(&bar);
    out->n_scored = s.count;
    out->nll = s.sum / (double)s.count;
    out->perplexity = exp(out->nll);
    double var = s.sum2 / (double)s.count - out->nll * out->nll;
    if (s.count > 1 && var > 0) out->error = sqrt(var / (double)(s.count - 1)) * out->perplexity;
fail:
    run_close(&r);
    free(chunk);
    return st;
}
