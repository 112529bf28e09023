/* mpirun -n N build/bench_comm [MEGABYTES...]: what the ranks of a step of ZeRO-1 send, and how fast, on
 * this machine.  mpirun -n N build/bench_comm experts [TOKENS...]: what a layer with experts on ranks sends
 * on its way forward.
 *
 * For each size of the gradients (f32; 4, 40, 400 MB): the median of 5 rounds of reduce-scatter and
 * all-gather, the bytes that a rank sent, and what the formula of doc/train.md says it sends.  For each
 * number of a rank's tokens (256, 1024, 4096; 2048 numbers each, 6 of 64 experts, chosen evenly): the same of
 * the way out (with the table of who sends what) and of the way home.  CSV on stdout, from rank 0. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "dist/expert.h"

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

/* ---- Experts ---- */

enum { WIDTH = 2048, CHOSEN = 6, EXPERTS = 64 };

/* Token t of rank r chooses experts that lie apart; over EXPERTS tokens each is chosen as
 * often as any other. */
static int choice(int rank, int64_t t, int k) { return (int)((rank * 7 + t + k * 11) % EXPERTS); }

static hd_status layer_of(hd_expert_plan *p, hd_comm *c, const int *first, float *slots, float **rows, double seconds[2], hd_err *err)
{
    hd_status st;
    double t0, t1;
    HD_TRY(hd_comm_barrier(c, err));
    t0 = hd_now_s();
    HD_TRY(hd_expert_route(p, first, err));
    if (!*rows) HD_TRY(hd_alloc_n(rows, (size_t)hd_expert_rows(p) * WIDTH, sizeof **rows, err));
    HD_TRY(hd_expert_dispatch(p, slots, *rows, WIDTH, err));
    HD_TRY(hd_comm_barrier(c, err));
    t1 = hd_now_s();
    HD_TRY(hd_expert_combine(p, *rows, slots, WIDTH, err));
    HD_TRY(hd_comm_barrier(c, err));
    seconds[0] = t1 - t0;
    seconds[1] = hd_now_s() - t1;
fail:
    return st;
}

static hd_status measure_experts(hd_comm *c, int64_t tokens, hd_err *err)
{
    hd_status st;
    int ranks = hd_comm_size(c), first[EXPERTS + 1] = {0};
    hd_expert_plan *p = NULL;
    float *slots = NULL, *rows = NULL;
    double s[2][ROUNDS], both[2];
    for (int64_t t = 0; t < tokens; t++)
        for (int k = 0; k < CHOSEN; k++) first[choice(hd_comm_rank(c), t, k) + 1]++;
    for (int e = 0; e < EXPERTS; e++) first[e + 1] += first[e];
    HD_TRY(hd_expert_open(&p, c, EXPERTS, err));
    HD_TRY(hd_alloc_n(&slots, (size_t)tokens * CHOSEN * WIDTH, sizeof *slots, err));
    HD_TRY(layer_of(p, c, first, slots, &rows, both, err)); // pages and connections
    uint64_t before = hd_comm_bytes(c);
    for (int i = 0; i < ROUNDS; i++) {
        HD_TRY(layer_of(p, c, first, slots, &rows, both, err));
        s[0][i] = both[0];
        s[1][i] = both[1];
    }
    qsort(s[0], ROUNDS, sizeof(double), by_size);
    qsort(s[1], ROUNDS, sizeof(double), by_size);
    if (hd_comm_rank(c) == 0)
        printf("%d,%lld,%.3f,%.3f,%.4f,%.4f\n", ranks, (long long)tokens, (double)(hd_comm_bytes(c) - before) / ROUNDS / 1e6,
               8.0 * CHOSEN * WIDTH * (double)tokens * (ranks - 1) / ranks / 1e6, s[0][ROUNDS / 2], s[1][ROUNDS / 2]);
fail:
    free(slots);
    free(rows);
    hd_expert_close(p);
    return st;
}

int main(int argc, char **argv)
{
    hd_status st;
    hd_err err = {0};
    hd_comm *c = NULL;
    static char *usual[2][3] = {{"4", "40", "400"}, {"256", "1024", "4096"}};
    bool experts = argc > 1 && strcmp(argv[1], "experts") == 0;
    int n = argc > 1 + experts ? argc - 1 - experts : 3;
    char **size = argc > 1 + experts ? argv + 1 + experts : usual[experts];
    HD_TRY(hd_comm_open(&c, &err));
    if (hd_comm_rank(c) == 0)
        puts(experts ? "ranks,tokens,sent_mb,formula_mb,there_s,home_s"
                     : "ranks,gradients_mb,sent_mb,formula_mb,reduce_scatter_s,all_gather_s,gb_s_a_rank");
    for (int i = 0; i < n; i++)
        HD_TRY(experts ? measure_experts(c, atoll(size[i]), &err) : measure(c, (int64_t)(atof(size[i]) * 250e3), &err));
    hd_comm_close(c);
    return 0;
fail:
    if (c) hd_comm_abort(c, err.msg, 1);
    fprintf(stderr, "hadal: %s\n", err.msg);
    return 1;
}
