/* One process alone: every sum is already made. */
#include "dist/comm.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct hd_comm {
    int rank, size;
};

hd_status hd_comm_open(hd_comm **out, hd_err *err)
{
    hd_status st = hd_alloc(out, sizeof **out, err);
    if (st == HD_OK) (*out)->size = 1;
    return st;
}

void hd_comm_close(hd_comm *c) { free(c); }
int hd_comm_rank(const hd_comm *c) { return c->rank; }
int hd_comm_size(const hd_comm *c) { return c->size; }

hd_status hd_comm_sum(hd_comm *c, float *x, int64_t n, hd_err *err) { return HD_OK; }
hd_status hd_comm_reduce_scatter(hd_comm *c, float *x, const int64_t *first, hd_err *err) { return HD_OK; }
hd_status hd_comm_all_gather(hd_comm *c, float *x, const int64_t *first, hd_err *err) { return HD_OK; }
hd_status hd_comm_sum_f64(hd_comm *c, double *x, int n, hd_err *err) { return HD_OK; }
hd_status hd_comm_sum_i64(hd_comm *c, int64_t *x, int64_t n, hd_err *err) { return HD_OK; }

hd_status hd_comm_all_to_all(hd_comm *c, const float *send, const int64_t *n_send, float *recv, const int64_t *n_recv, int64_t floats,
                             hd_err *err)
{
    if (n_send[0] != n_recv[0]) return hd_fail(err, HD_USAGE, "comm: %lld rows sent, %lld awaited", (long long)n_send[0], (long long)n_recv[0]);
    memcpy(recv, send, (size_t)(n_send[0] * floats) * sizeof *recv);
    return HD_OK;
}

hd_status hd_comm_barrier(hd_comm *c, hd_err *err) { return HD_OK; }
uint64_t hd_comm_bytes(const hd_comm *c) { return 0; }
double hd_comm_seconds(const hd_comm *c) { return 0; }
void hd_comm_abort(hd_comm *c, int status) { exit(status); }
