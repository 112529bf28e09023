/* See ranks.h. */
#include "model/ranks.h"

#include <string.h>

#include "base/mem.h"
#include "model/block.h"

/* A token's experts are different ones: no more of its slots come than there are experts here. */
int64_t hd_ranks_most_rows(const hd_ranks *x, int64_t M)
{
    return x->ranks * M * (x->K < x->n ? x->K : x->n);
}

hd_status hd_ranks_open(hd_ranks **out, hd_comm *comm, const hd_config *c, int max_rows, hd_err *err)
{
    hd_status st;
    hd_ranks *x = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&x, sizeof *x, err));
    x->comm = comm;
    x->E = c->n_experts;
    x->K = c->n_experts_per_tok;
    x->ranks = hd_comm_size(comm);
    x->first = hd_expert_first(x->E, x->ranks, hd_comm_rank(comm));
    x->n = hd_expert_first(x->E, x->ranks, hd_comm_rank(comm) + 1) - x->first;
    if (hd_ranks_most_rows(x, max_rows) > INT32_MAX)
        HD_TRY(hd_fail(err, HD_LIMIT,
                       "experts: %lld rows may come to one of %d ranks: more than a product takes: smaller "
                       "micro-batches",
                       (long long)hd_ranks_most_rows(x, max_rows), x->ranks));
    HD_TRY(hd_expert_open(&x->plan, comm, x->E, err));
    *out = x;
    return HD_OK;
fail:
    hd_ranks_close(x);
    return st;
}

void hd_ranks_close(hd_ranks *x)
{
    if (!x) return;
    hd_expert_close(x->plan);
    free(x);
}

int hd_ranks_owner(const hd_ranks *x, int expert)
{
    int rank = 0;
    while (hd_expert_first(x->E, x->ranks, rank + 1) <= expert) rank++;
    return rank;
}

int hd_ranks_route(hd_ranks *x, const int *first, int *run)
{
    uint64_t before = hd_comm_bytes(x->comm);
    memset(run, 0, ((size_t)x->E + 1) * sizeof *run);
    if (x->st == HD_OK) x->st = hd_expert_route(x->plan, first, &x->why);
    x->bytes += hd_comm_bytes(x->comm) - before;
    if (x->st != HD_OK) return 0;
    const int64_t *row = hd_expert_row_first(x->plan);
    for (int e = x->first; e < x->E; e++)
        run[e + 1] = (int)row[e < x->first + x->n ? e - x->first + 1 : x->n];
    return run[x->E];
}

void hd_ranks_dispatch(hd_ranks *x, const float *slots, float *rows, int64_t D)
{
    uint64_t before = hd_comm_bytes(x->comm);
    if (x->st == HD_OK) x->st = hd_expert_dispatch(x->plan, slots, rows, D, &x->why);
    x->bytes += hd_comm_bytes(x->comm) - before;
}

void hd_ranks_combine(hd_ranks *x, const float *rows, float *slots, int64_t D)
{
    uint64_t before = hd_comm_bytes(x->comm);
    if (x->st == HD_OK) x->st = hd_expert_combine(x->plan, rows, slots, D, &x->why);
    x->bytes += hd_comm_bytes(x->comm) - before;
}

hd_status hd_ranks_status(const hd_ranks *x, hd_err *err)
{
    if (!x || x->st == HD_OK) return HD_OK;
    return hd_fail(err, x->st, "%s", x->why.msg);
}

hd_ranks_bytes hd_ranks_bytes_for(const hd_config *c, int M, int64_t rows)
{
    enum { PIECES = 64 * 64 }; // what arrays lose at their ends
    size_t n = (size_t)rows, slots = (size_t)M * (size_t)c->n_experts_per_tok, D = (size_t)c->d_model,
           F = (size_t)c->moe_ffn;
    size_t wide = hd_blobs_bytes(c->d_model, 1), narrow = hd_blobs_bytes(c->moe_ffn, 1);
    size_t tape = ((size_t)c->n_experts + 1) * sizeof(int) + 4 * n * (D + 2 * F) + PIECES;
    return (hd_ranks_bytes){
        .pass = tape + 4 * ((size_t)M + 2 * slots + 2 * n) * D + n * (wide + narrow),
        .tape = tape,
        .back = n * (4 * (2 * D + 2 * F + 2) + (wide > 2 * narrow ? wide : 2 * narrow)) + PIECES,
    };
}
