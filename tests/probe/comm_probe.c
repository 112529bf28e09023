/* Run by tests/cli/mpi.sh in 1, 2 or 4 ranks: comm_probe check|die|fail|lie.
 *   check   every operation of dist/comm.h against the sum in the order of ranks that each rank computes for
 *           itself, to the bit; rank 0 prints a checksum of all results, then the counts of all ranks
 *   die     ranks sum for ever, after saying their pid
 *   fail    the last rank gives up
 *   lie     rank 0 sends fewer rows than the others await */
#include <unistd.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "dist/comm.h"
#include "test.h"

static uint32_t crc;

/* Of any size, so that the order of a sum shows in its bits. */
static float value(int rank, int64_t i, int salt)
{
    uint32_t h = (uint32_t)rank * 2654435761u ^ (uint32_t)i * 2246822519u ^ (uint32_t)salt * 3266489917u;
    h = (h ^ (h >> 15)) * 2246822519u;
    h ^= h >> 13;
    return (float)((double)(int32_t)h / 2147483648.0) * (float)(1 << (h % 20));
}

static float sum_f32(int ranks, int64_t i, int salt)
{
    float s = value(0, i, salt);
    for (int r = 1; r < ranks; r++) s += value(r, i, salt);
    return s;
}

static void check_sums(hd_comm *c, int64_t n)
{
    hd_err err = {0};
    int rank = hd_comm_rank(c), ranks = hd_comm_size(c);
    int64_t wrong = 0;
    float *x;
    double *d;
    int64_t *k;
    CHECK_OK(hd_alloc_n(&x, (size_t)n + 1, sizeof *x, &err));
    CHECK_OK(hd_alloc_n(&d, (size_t)n + 1, sizeof *d, &err));
    CHECK_OK(hd_alloc_n(&k, (size_t)n + 1, sizeof *k, &err));
    for (int64_t i = 0; i < n; i++) {
        x[i] = value(rank, i, 1);
        d[i] = (double)value(rank, i, 2) / 3;
        k[i] = rank * 1000003 - i;
    }
    x[n] = 77, d[n] = 77, k[n] = 77;
    CHECK_OK(hd_comm_sum(c, x, n, &err));
    CHECK_OK(hd_comm_sum_f64(c, d, (int)n, &err));
    CHECK_OK(hd_comm_sum_i64(c, k, n, &err));
    for (int64_t i = 0; i < n; i++) {
        double s = (double)value(0, i, 2) / 3;
        int64_t whole = 0;
        for (int r = 1; r < ranks; r++) s += (double)value(r, i, 2) / 3;
        for (int r = 0; r < ranks; r++) whole += r * 1000003 - i;
        wrong += x[i] != sum_f32(ranks, i, 1) || d[i] != s || k[i] != whole;
    }
    CHECK(wrong == 0, "sums of %lld numbers: %lld wrong on rank %d", (long long)n, (long long)wrong, rank);
    CHECK(x[n] == 77 && d[n] == 77 && k[n] == 77, "%lld numbers: wrote beyond", (long long)n);
    crc = hd_crc32c(crc, x, (size_t)n * sizeof *x);
    crc = hd_crc32c(crc, d, (size_t)n * sizeof *d);
    free(x);
    free(d);
    free(k);
}

/* Parts as the cut says: whole on their owner, then on all. */
static void check_parts(hd_comm *c, const int64_t *first)
{
    hd_err err = {0};
    int rank = hd_comm_rank(c), ranks = hd_comm_size(c);
    int64_t n = first[ranks], wrong = 0;
    float *x;
    CHECK_OK(hd_alloc_n(&x, (size_t)n + 1, sizeof *x, &err));
    for (int64_t i = 0; i < n; i++) x[i] = value(rank, i, 3);
    CHECK_OK(hd_comm_reduce_scatter(c, x, first, &err));
    for (int64_t i = first[rank]; i < first[rank + 1]; i++) wrong += x[i] != sum_f32(ranks, i, 3);
    CHECK(wrong == 0, "a part of %lld: %lld wrong on rank %d", (long long)n, (long long)wrong, rank);
    for (int64_t i = 0; i < n; i++)
        if (i < first[rank] || i >= first[rank + 1]) x[i] = -1;
    CHECK_OK(hd_comm_all_gather(c, x, first, &err));
    for (int64_t i = first[0]; i < n; i++) wrong += x[i] != sum_f32(ranks, i, 3);
    CHECK(wrong == 0, "gathered %lld: %lld wrong on rank %d", (long long)n, (long long)wrong, rank);
    crc = hd_crc32c(crc, x + first[0], (size_t)(n - first[0]) * sizeof *x);
    free(x);
}

static void check_cuts(hd_comm *c, int64_t n)
{
    int ranks = hd_comm_size(c);
    int64_t first[64] = {0};
    for (int r = 1; r < ranks; r++) first[r] = 0; // the last rank owns all
    first[ranks] = n;
    check_parts(c, first);
    for (int r = 1; r < ranks; r++) first[r] = n; // the first
    check_parts(c, first);
    for (int r = 1; r < ranks; r++) first[r] = n * r * r / (ranks * ranks);
    check_parts(c, first);
}

/* Rank a sends rank b some rows, a function of both; none between some. */
static int64_t count(int a, int b, int64_t scale) { return (a + 2 * b) % 3 * scale + (a == b); }

static void check_rows(hd_comm *c, int64_t scale, int64_t floats)
{
    hd_err err = {0};
    int rank = hd_comm_rank(c), ranks = hd_comm_size(c);
    int64_t n_send[64], n_recv[64], sent = 0, received = 0, at = 0, wrong = 0;
    float *send, *recv;
    for (int r = 0; r < ranks; r++) {
        sent += n_send[r] = count(rank, r, scale);
        received += n_recv[r] = count(r, rank, scale);
    }
    CHECK_OK(hd_alloc_n(&send, (size_t)(sent * floats), sizeof *send, &err));
    CHECK_OK(hd_alloc_n(&recv, (size_t)(received * floats), sizeof *recv, &err));
    for (int r = 0; r < ranks; r++)
        for (int64_t i = 0; i < n_send[r] * floats; i++) send[at++] = value(rank, i, 10 + r);
    CHECK_OK(hd_comm_all_to_all(c, send, n_send, recv, n_recv, floats, &err));
    at = 0;
    for (int r = 0; r < ranks; r++)
        for (int64_t i = 0; i < n_recv[r] * floats; i++) wrong += recv[at++] != value(r, i, 10 + rank);
    CHECK(wrong == 0, "rows of %lld: %lld wrong on rank %d", (long long)floats, (long long)wrong, rank);
    crc = hd_crc32c(crc, recv, (size_t)(received * floats) * sizeof *recv);
    free(send);
    free(recv);
}

static void check_counts(hd_comm *c)
{
    hd_err err = {0};
    int ranks = hd_comm_size(c);
    int64_t n = 4096;
    float x[4096] = {0};
    uint64_t before = hd_comm_bytes(c);
    CHECK_OK(hd_comm_barrier(c, &err));
    CHECK_OK(hd_comm_sum(c, x, n, &err));
    CHECK(hd_comm_bytes(c) - before == (uint64_t)(2 * (ranks - 1) * (n / ranks)) * sizeof *x, "%llu bytes",
          (unsigned long long)(hd_comm_bytes(c) - before));
    CHECK(ranks == 1 || hd_comm_seconds(c) > 0);
}

static int check(hd_comm *c)
{
    hd_err err = {0};
    static const int64_t size[] = {0, 1, 2, 3, 5, 64, 1000, 65537, 2500001}; // the last in several pieces
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++) {
        check_sums(c, size[i]);
        check_cuts(c, size[i]);
    }
    check_rows(c, 0, 7);
    check_rows(c, 1, 1);
    check_rows(c, 100, 129);
    check_counts(c);
    int64_t all[2] = {hd_test_passed, hd_test_failed}, mine[64] = {0};
    mine[hd_comm_rank(c)] = crc;
    CHECK_OK(hd_comm_sum_i64(c, all, 2, &err));
    CHECK_OK(hd_comm_sum_i64(c, mine, hd_comm_size(c), &err));
    if (hd_comm_rank(c) == 0) {
        printf("crc");
        for (int r = 0; r < hd_comm_size(c); r++) printf(" %08llx", (unsigned long long)mine[r]);
        printf("\n%lld passed, %lld failed\n", (long long)all[0], (long long)all[1]);
    }
    return all[1] != 0;
}

static int give_up(hd_comm *c, const hd_err *err)
{
    hd_comm_abort(c, err->msg, 1);
    return 1;
}

static int lie(hd_comm *c)
{
    hd_err err = {0};
    int64_t n_send[64] = {0}, n_recv[64] = {0};
    float send[64] = {0}, recv[64];
    for (int r = 0; r < hd_comm_size(c); r++)
        if (r != hd_comm_rank(c)) n_send[r] = hd_comm_rank(c) == 0 ? 1 : 2, n_recv[r] = 2;
    return hd_comm_all_to_all(c, send, n_send, recv, n_recv, 4, &err) == HD_OK ? 0 : give_up(c, &err);
}

int main(int argc, char **argv)
{
    hd_err err = {0};
    hd_comm *c = NULL;
    const char *what = argc == 2 ? argv[1] : "";
    int status = 0;
    static float x[100000];
    if (hd_comm_open(&c, &err) != HD_OK) {
        fprintf(stderr, "hadal: %s\n", err.msg);
        return 1;
    }
    if (!strcmp(what, "check")) status = check(c);
    else if (!strcmp(what, "lie")) status = lie(c);
    else if (!strcmp(what, "die")) {
        printf("pid %d\n", (int)getpid());
        fflush(stdout);
        while (hd_comm_sum(c, x, 100000, &err) == HD_OK) continue;
        status = give_up(c, &err);
    } else if (!strcmp(what, "fail")) {
        if (hd_comm_rank(c) + 1 == hd_comm_size(c)) {
            hd_fail(&err, HD_IO, "probe: the last rank gives up");
            status = give_up(c, &err);
        }
        if (hd_comm_sum(c, x, 100000, &err) != HD_OK) status = give_up(c, &err);
    } else status = 2;
    hd_comm_close(c);
    return status;
}
