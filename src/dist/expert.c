/* The plan: how many rows each rank has for each expert is told to all (a sum over a table in which each rank
 * fills its own line), and everything follows from it.
 *
 * Slots are sorted by expert and ranks own runs of experts, so what goes to a rank is one run of slots:
 * all_to_all takes them as they lie.  What arrives lies by rank, then expert; an expert wants its rows
 * together, hence one copy. */
#include "dist/expert.h"

#include <string.h>

#include "base/mem.h"

struct hd_expert_plan {
    hd_comm *comm;
    int E, ranks, rank, e0, n; // this rank's experts are e0 .. e0 + n
    int64_t *table;            // [ranks, E] slots
    int64_t *n_send, *n_recv;  // [ranks] rows
    int64_t *row_first;        // [n + 1]
    int64_t rows;
    float *arrived;            // [rows, D] by rank, then expert
    size_t room;               // its bytes
};

hd_status hd_expert_open(hd_expert_plan **out, hd_comm *comm, int n_experts, hd_err *err)
{
    hd_status st;
    hd_expert_plan *p = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&p, sizeof *p, err));
    p->comm = comm;
    p->E = n_experts;
    p->ranks = hd_comm_size(comm);
    p->rank = hd_comm_rank(comm);
    p->e0 = hd_expert_first(p->E, p->ranks, p->rank);
    p->n = hd_expert_first(p->E, p->ranks, p->rank + 1) - p->e0;
    HD_TRY(hd_alloc_n(&p->table, (size_t)p->ranks * (size_t)p->E, sizeof *p->table, err));
    HD_TRY(hd_alloc_n(&p->n_send, (size_t)p->ranks, sizeof *p->n_send, err));
    HD_TRY(hd_alloc_n(&p->n_recv, (size_t)p->ranks, sizeof *p->n_recv, err));
    HD_TRY(hd_alloc_n(&p->row_first, (size_t)p->n + 1, sizeof *p->row_first, err));
    *out = p;
    return HD_OK;
fail:
    hd_expert_close(p);
    return st;
}

void hd_expert_close(hd_expert_plan *p)
{
    if (!p) return;
    free(p->table);
    free(p->n_send);
    free(p->n_recv);
    free(p->row_first);
    free(p->arrived);
    free(p);
}

hd_status hd_expert_route(hd_expert_plan *p, const int *first, hd_err *err)
{
    hd_status st;
    memset(p->table, 0, (size_t)p->ranks * (size_t)p->E * sizeof *p->table);
    for (int e = 0; e < p->E; e++) p->table[(int64_t)p->rank * p->E + e] = first[e + 1] - first[e];
    HD_TRY(hd_comm_sum_i64(p->comm, p->table, (int64_t)p->ranks * p->E, err));
    for (int r = 0; r < p->ranks; r++) {
        p->n_send[r] = first[hd_expert_first(p->E, p->ranks, r + 1)] - first[hd_expert_first(p->E, p->ranks, r)];
        p->n_recv[r] = 0;
        for (int e = 0; e < p->n; e++) p->n_recv[r] += p->table[(int64_t)r * p->E + p->e0 + e];
    }
    p->rows = 0;
    for (int e = 0; e < p->n; e++) {
        p->row_first[e] = p->rows;
        for (int r = 0; r < p->ranks; r++) p->rows += p->table[(int64_t)r * p->E + p->e0 + e];
    }
    p->row_first[p->n] = p->rows;
fail:
    return st;
}

int64_t hd_expert_rows(const hd_expert_plan *p) { return p->rows; }
const int64_t *hd_expert_row_first(const hd_expert_plan *p) { return p->row_first; }

static hd_status make_room(hd_expert_plan *p, int64_t D, hd_err *err)
{
    hd_status st = HD_OK;
    size_t need;
    if (!hd_mul(&need, (size_t)p->rows, (size_t)D) || !hd_mul(&need, need, sizeof *p->arrived))
        return hd_fail(err, HD_LIMIT, "experts: %lld rows of %lld numbers: too many", (long long)p->rows, (long long)D);
    if (need <= p->room) return HD_OK;
    HD_TRY(hd_realloc(&p->arrived, need, err));
    p->room = need;
fail:
    return st;
}

/* Between `arrived`, by rank then expert, and rows by expert then rank. */
static void reorder(hd_expert_plan *p, float *to, const float *from, int64_t D, bool by_expert)
{
    int64_t at = 0;
    for (int r = 0; r < p->ranks; r++)
        for (int e = 0; e < p->n; e++) {
            int64_t row = p->row_first[e], n = p->table[(int64_t)r * p->E + p->e0 + e];
            for (int before = 0; before < r; before++) row += p->table[(int64_t)before * p->E + p->e0 + e];
            if (n > 0 && by_expert) memcpy(to + row * D, from + at * D, (size_t)(n * D) * sizeof *to);
            else if (n > 0) memcpy(to + at * D, from + row * D, (size_t)(n * D) * sizeof *to);
            at += n;
        }
}

hd_status hd_expert_dispatch(hd_expert_plan *p, const float *slots, float *rows, int64_t D, hd_err *err)
{
    hd_status st;
    HD_TRY(make_room(p, D, err));
    HD_TRY(hd_comm_all_to_all(p->comm, slots, p->n_send, p->arrived, p->n_recv, D, err));
    reorder(p, rows, p->arrived, D, true);
fail:
    return st;
}

hd_status hd_expert_combine(hd_expert_plan *p, const float *rows, float *slots, int64_t D, hd_err *err)
{
    hd_status st;
    HD_TRY(make_room(p, D, err));
    reorder(p, p->arrived, rows, D, false);
    HD_TRY(hd_comm_all_to_all(p->comm, p->arrived, p->n_recv, slots, p->n_send, D, err));
fail:
    return st;
}
