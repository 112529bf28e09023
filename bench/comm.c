/* mpirun -n N build/bench_comm [MEGABYTES...]: what the ranks of a step of ZeRO-1 send, and how fast, on this machine.
 *
 * For each size of the gradients (f32; 4, 40, 400 MB): the median of 5 rounds of reduce-scatter and all-gather, the bytes that
 * a rank sent, and what the formula of doc/train.md says it sends.  CSV on stdout, from rank 0. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "dist/comm.h"

enum { ROUNDS = 5 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One round; seconds are the slowest rank's. */
static hd_status round_of(hd_comm *c, float *x, const int64_t *first, double seconds[2], hd_err *err)
{
    hd_status st;
    double t0, t1;
    HD_TRY(hd_comm_barrier(c, err));
    t0 = hd_now_s();
    HD_TRY(hd_comm_reduce_scatter(c, x, first, err));
    HD_TRY(hd_comm_barrier(c, err));
    t1 = hd_now_s();
    HD_TRY(hd_comm_all_gather(c, x, first, err));
    HD_TRY(hd_comm_barrier(c, err));
    seconds[0] = t1 - t0;
    seconds[1] = hd_now_s() - t1;
fail:
    return st;
}

static hd_status measure(hd_comm *c, int64_t n, hd_err *err)
{
    hd_status st;
    int ranks = hd_comm_size(c);
    float *x = NULL;
    int64_t *first = NULL;
    double s[2][ROUNDS], both[2];
    HD_TRY(hd_alloc_n(&x, (size_t)n, sizeof *x, err));
    HD_TRY(hd_alloc_n(&first, (size_t)ranks + 1, sizeof *first, err));
    for (int r = 0; r <= ranks; r++) first[r] = n / ranks * r + (r == ranks ? n % ranks : 0);
    HD_TRY(round_of(c, x, first, both, err)); // pages and connections
    uint64_t before = hd_comm_bytes(c);
    for (int i = 0; i < ROUNDS; i++) {
        HD_TRY(round_of(c, x, first, both, err));
        s[0][i] = both[0];
        s[1][i] = both[1];
    }
    qsort(s[0], ROUNDS, sizeof(double), by_size);
    qsort(s[1], ROUNDS, sizeof(double), by_size);
    if (hd_comm_rank(c) == 0)
        printf("%d,%.1f,%.2f,%.2f,%.4f,%.4f,%.2f\n", ranks, (double)n * 4 / 1e6, (double)(hd_comm_bytes(c) - before) / ROUNDS / 1e6,
               8.0 * (ranks - 1) / ranks * (double)n / 1e6, s[0][ROUNDS / 2], s[1][ROUNDS / 2],
               (double)(hd_comm_bytes(c) - before) / ROUNDS / (s[0][ROUNDS / 2] + s[1][ROUNDS / 2]) / 1e9);
fail:
    free(x);
    free(first);
    return st;
}

int main(int argc, char **argv)
{
    hd_status st;
    hd_err err = {0};
    hd_comm *c = NULL;
    static char *usual[] = {"4", "40", "400"};
    int n = argc > 1 ? argc - 1 : 3;
    char **size = argc > 1 ? argv + 1 : usual;
    HD_TRY(hd_comm_open(&c, &err));
    if (hd_comm_rank(c) == 0) puts("ranks,gradients_mb,sent_mb,formula_mb,reduce_scatter_s,all_gather_s,gb_s_a_rank");
    for (int i = 0; i < n; i++) HD_TRY(measure(c, (int64_t)(atof(size[i]) * 250e3), &err));
    hd_comm_close(c);
    return 0;
fail:
    if (c) hd_comm_abort(c, err.msg, 1);
    fprintf(stderr, "hadal: %s\n", err.msg);
    return 1;
}
