/* Whole parameters to ranks: the shared part of the flat array is cut where a rank's even share ends, at
 * the nearest border. */
#include "train/zero.h"

#include <string.h>

hd_status hd_zero_open(hd_zero *z, const hd_params *p, int n_ranks, hd_err *err)
{
    hd_status st;
    int rank = 0;
    *z = (hd_zero){.n_ranks = n_ranks};
    HD_TRY(hd_alloc_n(&z->owner, (size_t)p->n, sizeof *z->owner, err));
    HD_TRY(hd_alloc_n(&z->first, (size_t)n_ranks + 1, sizeof *z->first, err));
    for (int i = 0; i < p->n; i++) {
        const hd_param *q = &p->p[i];
        int64_t middle = q->at + q->n * q->k / 2;
        while (!q->single && rank + 1 < n_ranks && middle >= p->n_shared / n_ranks * (rank + 1)) z->first[++rank] = q->at;
        z->owner[i] = q->single ? q->rank : rank;
    }
    while (rank < n_ranks) z->first[++rank] = p->n_shared;
    return HD_OK;
fail:
    hd_zero_close(z);
    return st;
}

void hd_zero_close(hd_zero *z)
{
    free(z->owner);
    free(z->first);
    memset(z, 0, sizeof *z);
}

hd_status hd_zero_reduce(const hd_zero *z, hd_comm *c, float *g, hd_err *err)
{
    return z->n_ranks > 1 ? hd_comm_reduce_scatter(c, g, z->first, err) : HD_OK;
}

hd_status hd_zero_gather(const hd_zero *z, hd_comm *c, float *w, hd_err *err)
{
    return z->n_ranks > 1 ? hd_comm_all_gather(c, w, z->first, err) : HD_OK;
}
