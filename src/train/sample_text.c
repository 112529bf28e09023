/* Sampling by temperature alone, one token a pass, from the very panels that the next step will train. */
#include "train/sample_text.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "model/cache.h"
#include "model/tokenizer.h"

static int32_t choose(const float *logits, int64_t n, float temp, hd_rng *rng)
{
    int64_t best = 0;
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    if (temp <= 0) return (int32_t)best;
    for (int64_t i = 0; i < n; i++) sum += exp((double)(logits[i] - logits[best]) / temp);
    double at = hd_rng_unit(rng) * sum;
    for (int64_t i = 0; i < n; i++) {
        at -= exp((double)(logits[i] - logits[best]) / temp);
        if (at < 0) return (int32_t)i;
    }
    return (int32_t)best;
}

static bool ends(const hd_config *c, int32_t id)
{
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return true;
    return false;
}

/* Feed the last `n` ids, get the logits behind them. */
static hd_status feed(hd_model *m, hd_seq *seq, const int32_t *id, int n, float *logits, hd_err *err)
{
    hd_batch b = {.n_rows = n, .tok = id, .n_seqs = 1, .n_of = &n, .seq = &seq};
    return hd_forward(m, &b, logits, NULL, err);
}

static hd_status prompt_ids(const hd_tokenizer *tok, const hd_config *c, const char *prompt, hd_ids *ids, hd_err *err)
{
    hd_status st = HD_OK;
    if (hd_tokenizer_adds_bos(tok)) HD_TRY(hd_ids_add(ids, hd_tokenizer_bos(tok), err));
    HD_TRY(hd_tokenizer_encode(tok, prompt, strlen(prompt), ids, err));
    if (ids->n == 0) HD_TRY(hd_ids_add(ids, c->n_eos > 0 ? c->eos[0] : 0, err)); // something must come first
fail:
    return st;
}

hd_status hd_sample_text(hd_model *m, const hd_source *s, const char *prompt, int n, float temp, uint64_t seed, hd_buf *out,
                         hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_model_config(m);
    hd_tokenizer *tok = NULL;
    hd_cache *cache = NULL;
    hd_seq *seq = NULL;
    hd_ids ids = {0};
    float *logits = NULL;
    hd_rng rng;
    hd_rng_seed(&rng, seed, 1);
    HD_TRY(hd_tokenizer_open(&tok, s, err));
    HD_TRY(prompt_ids(tok, c, prompt, &ids, err));
    if (ids.n > hd_model_max_rows(m)) ids.n = hd_model_max_rows(m);
    HD_TRY(hd_cache_open(&cache, c, hd_cache_default(c), ids.n + n, err));
    HD_TRY(hd_seq_open(&seq, cache, err));
    HD_TRY(hd_alloc_n(&logits, (size_t)c->n_vocab, sizeof *logits, err));
    HD_TRY(feed(m, seq, ids.id, (int)ids.n, logits, err));
    for (int i = 0; i < n; i++) {
        int32_t id = choose(logits, c->n_vocab, temp, &rng);
        if (ends(c, id)) break;
        HD_TRY(hd_ids_add(&ids, id, err));
        if (i + 1 < n) HD_TRY(feed(m, seq, &id, 1, logits, err));
    }
    HD_TRY(hd_tokenizer_decode(tok, ids.id, ids.n, false, out, err));
fail:
    hd_seq_close(seq);
    hd_cache_close(cache);
    hd_tokenizer_close(tok);
    hd_ids_free(&ids);
    free(logits);
    return st;
}
