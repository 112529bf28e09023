/* Run by tests/cli/mpi.sh in 1, 2, 3 or 4 ranks: training passes with experts on ranks (model/ranks.h).
 *
 * Seven documents are one batch, of which each rank holds a run.  Rank 0's output is a checksum of every
 * row's loss and of every expert's
 * gradients: the same whatever the number of ranks, bit for bit, since an expert meets all rows in the
 * order of ranks.  Some ranks hold documents of one row alone, which leave nothing to the MTP layer, and
 * some none at all. */
#include "base/crc32c.h"
#include "base/mem.h"
#include "model/train_pass.h"
#include "test.h"

enum { DOCS = 7, ROWS = 64 };

static const int len[DOCS] = {1, 1, 9, 5, 14, 2, 7};
static hd_err err;

/* Evenly; all on the last rank; the two short ones on the first, the others behind. */
static int rank_of(int doc, int ranks, int kind)
{
    if (kind == 0) return doc * ranks / DOCS;
    if (kind == 1) return ranks - 1;
    return doc < 2 || ranks == 1 ? 0 : 1 + (doc - 2) * (ranks - 1) / (DOCS - 2);
}

typedef struct {
    hd_micro m;
    int row0, len[DOCS]; // the first row among all ranks'
    int32_t tok[ROWS], target[ROWS];
} batch;

static void batch_of(batch *b, int64_t V, int rank, int ranks, int kind)
{
    *b = (batch){0};
    for (int i = 0, row = 0; i < DOCS; row += len[i++]) {
        if (rank_of(i, ranks, kind) != rank) continue;
        if (b->m.n_docs == 0) b->row0 = row;
        for (int t = 0; t < len[i]; t++) {
            int at = b->m.n_rows++;
            b->tok[at] = (int32_t)(((row + t) * 37 + i * 11) % V);
            b->target[at] = t + 1 < len[i] ? (int32_t)(((row + t + 1) * 37 + i * 11) % V) : -1;
        }
        b->len[b->m.n_docs++] = len[i];
    }
    b->m.tok = b->tok;
    b->m.target = b->target;
    b->m.len = b->len;
}

/* Numbers of which each is one rank's alone: a sum is the number itself. */
static uint32_t crc_of(hd_comm *c, double *x, int n)
{
    CHECK_OK(hd_comm_sum_f64(c, x, n, &err));
    return hd_crc32c(0, x, (size_t)n * sizeof *x);
}

static void run(hd_comm *c, const hd_source *s, hd_train_precision precision, bool recompute, int kind)
{
    hd_model *m = NULL;
    batch b;
    float row_loss[ROWS] = {0};
    double loss[ROWS] = {0}, *grad = NULL;
    hd_pass_result r = {.row_loss = row_loss};
    hd_pass_opts o = {.loss_scale = 1.0f / 32,
                      .mtp_weight = 0.3f,
                      .mtp_scale = 1.0f / 25,
                      .balance_alpha = 1e-3f,
                      .balance_scale = 1.0f / DOCS,
                      .recompute = recompute,
                      .backward = true};
    int rank = hd_comm_rank(c);
    CHECK_OK(hd_model_open_ranks(&m, s, precision, c, 1, ROWS, &err));
    const hd_params *p = hd_model_params(m);
    batch_of(&b, hd_model_config(m)->n_vocab, rank, hd_comm_size(c), kind);
    CHECK_OK(hd_train_pass(m, &b.m, &o, &r, &err));
    for (int i = 0; i < b.m.n_rows; i++) loss[b.row0 + i] = (double)row_loss[i];
    CHECK_OK(hd_alloc_n(&grad, (size_t)p->n, sizeof *grad, &err));
    for (int i = 0; i < p->n; i++) {
        const hd_param *q = &p->p[i];
        CHECK(q->single == (q->expert >= 0) && (!q->single || (q->at >= 0) == (q->rank == rank)));
        if (q->single && q->rank == rank)
            grad[i] = hd_crc32c(0, p->g + q->at, (size_t)(q->n * q->k) * sizeof(float));
    }
    uint32_t losses = crc_of(c, loss, ROWS), grads = crc_of(c, grad, p->n);
    if (rank == 0) printf("crc %d %d %d %08x %08x\n", precision, recompute, kind, losses, grads);
    free(grad);
    hd_model_close(m);
}

int main(int argc, char **argv)
{
    hd_comm *c = NULL;
    hd_source *s = NULL;
    if (argc != 2 || hd_comm_open(&c, &err) != HD_OK || hd_source_open(&s, argv[1], true, &err) != HD_OK) {
        fprintf(stderr, "hadal: %s\n", argc == 2 ? err.msg : "usage: ranks_probe MODELDIR");
        return 1;
    }
    for (int kind = 0; kind < 3; kind++)
        for (int recompute = 0; recompute < 2; recompute++) {
            run(c, s, HD_TRAIN_F32, recompute, kind);
            run(c, s, HD_TRAIN_BF16, recompute, kind);
        }
    int64_t all[2] = {hd_test_passed, hd_test_failed};
    CHECK_OK(hd_comm_sum_i64(c, all, 2, &err));
    if (hd_comm_rank(c) == 0) printf("%lld passed, %lld failed\n", (long long)all[0], (long long)all[1]);
    hd_source_close(s);
    hd_comm_close(c);
    return all[1] != 0;
}
