/* Generating one token reads every weight it meets once and does two operations with each, so its speed is
 * the memory's speed over the bytes; a prompt of many tokens reads them once for all, so its speed is the
 * arithmetic's. */
#include "cli/bench_cost.h"
#include "cli/hub.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/pool.h"

static int layer_of(const char *name)
{
    int n;
    if (sscanf(name, "blk.%d.", &n) == 1 || sscanf(name, "model.layers.%d.", &n) == 1) return n;
    return -1;
}

static bool is_embedding(const char *name)
{
    return strcmp(name, "token_embd.weight") == 0 || strcmp(name, "model.embed_tokens.weight") == 0;
}

static bool is_head(const char *name)
{
    return strcmp(name, "output.weight") == 0 || strcmp(name, "lm_head.weight") == 0;
}

static bool is_expert(const char *name) { return strstr(name, "_exps.") || strstr(name, ".experts."); }

/* The part of a tensor that one token of each sequence meets; of experts what is expected, where each
 * sequence chooses by chance. */
static double part_of(const hd_tensor_info *t, const hd_config *c, bool own_head, int64_t seqs)
{
    if (is_embedding(t->name))
        return own_head ? (double)seqs / (double)c->n_vocab : 1; // a row, or all of it as the head
    if (layer_of(t->name) >= c->n_layers) return 0;
    if (is_expert(t->name) && c->n_experts > 0)
        return 1 - pow(1 - (double)c->n_experts_per_tok / (double)c->n_experts, (double)seqs);
    return 1;
}

hd_status hd_bench_cost_of(hd_bench_cost *c, const char *path, int64_t seqs, hd_err *err)
{
    hd_status st;
    hd_source *s = NULL;
    bool own_head = false;
    *c = (hd_bench_cost){0};
    HD_TRY(hd_hub_open_source(&s, path, true, err));
    c->weight_bytes = hd_source_weight_bytes(s);
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++)
        own_head = own_head || is_head(hd_source_tensor(s, i)->name);
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
        const hd_tensor_info *t = hd_source_tensor(s, i);
        double part = part_of(t, hd_source_config(s), own_head, 1), n = 1;
        for (int d = 0; d < t->n_dims; d++) n *= (double)t->dim[d];
        c->token_bytes += part * (double)t->bytes;
        c->pass_bytes += part_of(t, hd_source_config(s), own_head, seqs) * (double)t->bytes;
        if (t->n_dims < 2 || (own_head && is_embedding(t->name))) continue;
        c->token_weights += part * n;
        if (!is_head(t->name) && !is_embedding(t->name)) c->prompt_weights += part * n;
    }
fail:
    hd_source_close(s);
    return st;
}

/* ---- Read bandwidth ---- */

enum { CHUNK = 1 << 18, SWEEPS = 8 };
#define TOTAL ((size_t)256 << 20)

typedef struct {
    const uint64_t *mem;
    uint64_t *seen; // [threads][8]: a sum nobody needs, so that the reads cannot be left out
} sweep;

static void read_chunk(void *arg, int64_t chunk, int tid)
{
    const sweep *w = arg;
    const uint64_t *p = w->mem + chunk * (CHUNK / 8);
    uint64_t s[8] = {0};
    for (int i = 0; i < CHUNK / 8; i += 8) {
        __builtin_prefetch((const char *)(p + i) + 1024); // as the products do
        for (int j = 0; j < 8; j++) s[j] += p[i + j];
    }
    for (int j = 0; j < 8; j++) w->seen[tid * 8 + j] += s[j];
}

hd_status hd_bench_bandwidth(double *bytes_s, int n_threads, hd_err *err)
{
    hd_status st;
    hd_pool *pool = NULL;
    void *mem = NULL;
    sweep w = {0};
    *bytes_s = 0;
    HD_TRY(hd_pool_open(&pool, n_threads, err));
    HD_TRY(hd_alloc_n(&w.seen, (size_t)hd_pool_threads(pool), 8 * sizeof *w.seen, err));
    HD_TRY(hd_alloc_aligned(&mem, TOTAL, err));
    memset(mem, 1, TOTAL); // touch: an untouched page is read from nowhere
    w.mem = mem;
    for (int i = 0; i < SWEEPS; i++) {
        double t = hd_now_s();
        hd_pool_run(pool, (int64_t)(TOTAL / CHUNK), read_chunk, &w);
        double rate = (double)TOTAL / (hd_now_s() - t);
        if (rate > *bytes_s) *bytes_s = rate;
    }
fail:
    if (mem) hd_free_aligned(mem, TOTAL);
    free(w.seen);
    hd_pool_close(pool);
    return st;
}
