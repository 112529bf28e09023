/* Run by tests/cli/mpi.sh in 1, 2 or 4 ranks: a layer of experts, forward and backward, over ranks
 * (dist/expert.h).
 *
 * Tokens are one batch, of which each rank holds an even run.  An expert is y = W x with an addition to dW
 * for each row in turn, dx = W^T dy.  Rank 0's output is a checksum of every token's result and gradient and
 * of every dW: the same whatever the number of ranks, bit for bit. */
#include "base/crc32c.h"
#include "base/mem.h"
#include "dist/expert.h"
#include "test.h"

enum { T = 24, K = 2, D = 5 };

static float value(int64_t i, int salt)
{
    uint32_t h = (uint32_t)i * 2654435761u ^ (uint32_t)salt * 3266489917u;
    h = (h ^ (h >> 15)) * 2246822519u;
    h ^= h >> 13;
    return (float)((double)(int32_t)h / 2147483648.0);
}

/* Even experts are liked better; in a second case all love the last, in a third expert 0 has no row. */
static int choice(int t, int k, int E, int kind)
{
    int e = kind == 1 ? E - 1 - k : (t * 5 + k * 3 + t / 7) % E / 2 * 2 + k % 2;
    e %= E;
    return kind == 2 && e == 0 ? 2 : e;
}

typedef struct {
    int E, n, t0; // experts; slots and first token of this rank
    int first[32], slot[T * K];
    float x[T * K * D], y[T * K * D], dy[T * K * D], dx[T * K * D];
} side;

static void sort(side *s, int tokens, int kind)
{
    int at[32];
    memset(s->first, 0, sizeof s->first);
    s->n = tokens * K;
    for (int i = 0; i < s->n; i++) s->first[choice(s->t0 + i / K, i % K, s->E, kind) + 1]++;
    for (int e = 0; e < s->E; e++) s->first[e + 1] += s->first[e];
    memcpy(at, s->first, sizeof at);
    for (int i = 0; i < s->n; i++) s->slot[i] = at[choice(s->t0 + i / K, i % K, s->E, kind)]++;
    for (int i = 0; i < s->n; i++)
        for (int d = 0; d < D; d++) {
            s->x[s->slot[i] * D + d] = value((s->t0 + i / K) * D + d, 1);
            s->dy[s->slot[i] * D + d] = value(((s->t0 * K + i) * D + d), 2);
        }
}

static float weight(int e, int i, int j) { return value((e * D + i) * D + j, 3); }

/* What an expert's owner does with its rows. */
static void expert(int e, int64_t n, const float *x, const float *dy, float *y, float *dx, float *dw)
{
    for (int64_t r = 0; r < n; r++)
        for (int i = 0; i < D; i++) {
            float sum = 0, back = 0;
            for (int j = 0; j < D; j++) {
                sum += weight(e, i, j) * x[r * D + j];
                back += weight(e, j, i) * dy[r * D + j];
                dw[i * D + j] += dy[r * D + i] * x[r * D + j];
            }
            y[r * D + i] = sum;
            dx[r * D + i] = back;
        }
}

static uint32_t run(hd_comm *c, int E, int kind)
{
    hd_err err = {0};
    int rank = hd_comm_rank(c), ranks = hd_comm_size(c), t1;
    hd_expert_plan *p = NULL;
    side s = {.E = E, .t0 = T * rank / ranks};
    float *x, *y, *dy, *dx;
    double dw_all[32 * D * D] = {0}, out[2 * T * K * D] = {0}; // each number from one rank: its sum is itself
    t1 = T * (rank + 1) / ranks;
    sort(&s, t1 - s.t0, kind);
    CHECK_OK(hd_expert_open(&p, c, E, &err));
    CHECK_OK(hd_expert_route(p, s.first, &err));
    size_t rows = (size_t)hd_expert_rows(p);
    CHECK_OK(hd_alloc_n(&x, rows * D, sizeof *x, &err));
    CHECK_OK(hd_alloc_n(&y, rows * D, sizeof *y, &err));
    CHECK_OK(hd_alloc_n(&dy, rows * D, sizeof *dy, &err));
    CHECK_OK(hd_alloc_n(&dx, rows * D, sizeof *dx, &err));
    CHECK_OK(hd_expert_dispatch(p, s.x, x, D, &err));
    CHECK_OK(hd_expert_dispatch(p, s.dy, dy, D, &err));
    const int64_t *first = hd_expert_row_first(p);
    int e0 = hd_expert_first(E, ranks, rank), n = hd_expert_first(E, ranks, rank + 1) - e0;
    for (int e = 0; e < n; e++) {
        float dw[D * D] = {0};
        expert(e0 + e, first[e + 1] - first[e], x + first[e] * D, dy + first[e] * D, y + first[e] * D, dx + first[e] * D, dw);
        for (int i = 0; i < D * D; i++) dw_all[(e0 + e) * D * D + i] = (double)dw[i];
    }
    CHECK(first[n] == (int64_t)rows);
    CHECK_OK(hd_expert_combine(p, y, s.y, D, &err));
    CHECK_OK(hd_expert_combine(p, dx, s.dx, D, &err));
    for (int i = 0; i < s.n; i++)
        for (int d = 0; d < D; d++) {
            float want = 0;
            int e = choice(s.t0 + i / K, i % K, E, kind);
            for (int j = 0; j < D; j++) want += weight(e, d, j) * value((s.t0 + i / K) * D + j, 1);
            CHECK(s.y[s.slot[i] * D + d] == want, "token %d", s.t0 + i / K);
            out[(s.t0 * K + i) * D + d] = (double)s.y[s.slot[i] * D + d];
            out[((T + s.t0) * K + i) * D + d] = (double)s.dx[s.slot[i] * D + d];
        }
    CHECK_OK(hd_comm_sum_f64(c, dw_all, E * D * D, &err));
    CHECK_OK(hd_comm_sum_f64(c, out, 2 * T * K * D, &err));
    free(x), free(y), free(dy), free(dx);
    hd_expert_close(p);
    return hd_crc32c(hd_crc32c(0, out, sizeof out), dw_all, sizeof dw_all);
}

int main(void)
{
    hd_err err = {0};
    hd_comm *c = NULL;
    static const int experts[] = {3, 4, 8, 31}; // fewer than ranks, as many, more
    if (hd_comm_open(&c, &err) != HD_OK) {
        fprintf(stderr, "hadal: %s\n", err.msg);
        return 1;
    }
    bool lead = hd_comm_rank(c) == 0;
    for (int i = 0; i < 4; i++)
        for (int kind = 0; kind < 3; kind++) {
            uint32_t crc = run(c, experts[i], kind);
            if (lead) printf("crc %d %d %08x\n", experts[i], kind, crc);
        }
    int64_t all[2] = {hd_test_passed, hd_test_failed};
    CHECK_OK(hd_comm_sum_i64(c, all, 2, &err));
    if (lead) printf("%lld passed, %lld failed\n", (long long)all[0], (long long)all[1]);
    hd_comm_close(c);
    return all[1] != 0;
}
