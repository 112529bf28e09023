/* Ranks, and sums over them.
 *
 * Every sum is made by one rank for all: x is cut into parts, one for each rank, which receives that part
 * from all others and adds in the order of ranks, x0 + x1 + x2 ...  What arrives first does not matter, nor
 * how the parts are cut, so a run repeats to the bit.  (MPI_Allreduce promises neither order nor repetition.)
 *
 *   reduce-scatter   pieces of my part come in from all others while the piece before them is added:
 *                        start(0)  start(1) finish(0) add(0)  start(2) finish(1) add(1) ...
 *   all-gather       parts go out, whole
 *
 * Each rank sends (1 - 1/ranks) of x in either, which no algorithm can lower.  Memory: BUFFERS
 * bytes, whatever x. */
#include "dist/comm.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "dist/net.h"

enum {
    BUFFERS = 32 << 20,                               // bytes of all receive buffers together, at most
    PIECE_MIN = 64 << 10, PIECE_MAX = 4 << 20,        // bytes of a message that is added
    MESSAGE = 64 << 20,                               // bytes of one that is not
};

struct hd_comm {
    int rank, size;
    hd_net net;
    hd_net_part *part; // [size - 1]
    uint8_t *buffer;   // [HD_NET_SLOTS, size, piece]
    size_t piece;      // bytes, a multiple of 64
    int64_t *even;     // [size + 1] an even cut
    uint64_t bytes;
    double seconds;
};

/* ---- Opening ---- */

static int from_env(const char *name)
{
    const char *s = getenv(name);
    return s ? atoi(s) : 0;
}

/* Processes that were started together: Open MPI, those of MPICH's family, srun. */
static int started_ranks(void)
{
    int n = from_env("OMPI_COMM_WORLD_SIZE");
    if (n == 0) n = from_env("PMI_SIZE");
    if (n == 0 && getenv("SLURM_PROCID")) n = from_env("SLURM_STEP_NUM_TASKS"); // a batch script itself has none
    return n;
}

static void *open_module(char *why, size_t n_why)
{
    char path[3][4200] = {"", "", HD_MODULE_DIR "/hadal-mpi.so"}, exe[4096];
    const char *named = getenv("HADAL_MPI");
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (named) snprintf(path[0], sizeof path[0], "%s", named);
    while (n > 0 && exe[n - 1] != '/') n--;
    if (n > 0) snprintf(path[1], sizeof path[1], "%.*shadal-mpi.so", (int)n, exe);
    for (int i = 0; i < 3; i++) {
        if (!path[i][0] || access(path[i], R_OK) != 0) continue;
        void *lib = dlopen(path[i], RTLD_NOW | RTLD_GLOBAL); // global: MPI opens parts of its own that look for it
        if (lib) return lib;
        snprintf(why, n_why, "%s", dlerror());
        return NULL;
    }
    snprintf(why, n_why, "no hadal-mpi.so beside the program or in " HD_MODULE_DIR ": build hadal where libopenmpi-dev is installed");
    return NULL;
}

static hd_status join(hd_comm *c, int ranks, hd_err *err)
{
    hd_status st;
    char why[512] = "";
    void *lib = open_module(why, sizeof why);
    if (!lib) return hd_fail(err, HD_IO, "comm: started as one of %d ranks: %s", ranks, why);
    hd_net_open_fn *open;
    *(void **)&open = dlsym(lib, HD_NET_SYMBOL);
    if (!open) return hd_fail(err, HD_FORMAT, "comm: hadal-mpi.so: not a module of hadal");
    if (open(&c->net, why) != 0) return hd_fail(err, HD_IO, "comm: MPI does not start: %s", why);
    if (c->net.version != HD_NET_VERSION)
        return hd_fail(err, HD_FORMAT, "comm: hadal-mpi.so: of version %d, not %d: build both together", c->net.version, HD_NET_VERSION);
    if (c->net.size != ranks)
        return hd_fail(err, HD_IO, "comm: started as one of %d ranks, MPI sees %d: is mpirun of another MPI than hadal-mpi.so?", ranks,
                       c->net.size);
    c->rank = c->net.rank;
    c->size = c->net.size;
    c->piece = (size_t)(BUFFERS / HD_NET_SLOTS / (c->size - 1)) / 64 * 64;
    if (c->piece > PIECE_MAX) c->piece = PIECE_MAX;
    if (c->piece < PIECE_MIN) c->piece = PIECE_MIN;
    HD_TRY(hd_alloc_n(&c->part, (size_t)c->size, sizeof *c->part, err));
    HD_TRY(hd_alloc_n(&c->even, (size_t)c->size + 1, sizeof *c->even, err));
    HD_TRY(hd_alloc_n(&c->buffer, HD_NET_SLOTS * (size_t)c->size, c->piece, err));
fail:
    return st;
}

hd_status hd_comm_open(hd_comm **out, hd_err *err)
{
    hd_status st;
    hd_comm *c = NULL;
    int ranks = started_ranks();
    *out = NULL;
    HD_TRY(hd_alloc(&c, sizeof *c, err));
    c->size = 1;
    if (ranks > 1) HD_TRY(join(c, ranks, err));
    *out = c;
    return HD_OK;
fail:
    if (c) c->net.close = NULL; // the other ranks would not come to meet this one: its end will end them
    hd_comm_close(c);
    return st;
}

void hd_comm_close(hd_comm *c)
{
    if (!c) return;
    if (c->net.close) c->net.close();
    free(c->part);
    free(c->even);
    free(c->buffer);
    free(c);
}

int hd_comm_rank(const hd_comm *c) { return c->rank; }
int hd_comm_size(const hd_comm *c) { return c->size; }
uint64_t hd_comm_bytes(const hd_comm *c) { return c->bytes; }
double hd_comm_seconds(const hd_comm *c) { return c->seconds; }

void hd_comm_abort(hd_comm *c, const char *message, int status)
{
    if (c->rank > 0 && sleep(2) > 0) exit(status); // a signal: somebody else has spoken
    fprintf(stderr, "hadal: %s\n", message);
    if (c->net.stop) c->net.stop(status);
    exit(status);
}

/* ---- Messages ---- */

static hd_status lost(const hd_comm *c, const char *why, hd_err *err)
{
    return hd_fail(err, HD_IO, "comm: rank %d of %d: %s", c->rank, c->size, why);
}

/* The k-th other rank: rank + 1, rank + 2, ..., so that not all begin with rank 0. */
static int other(const hd_comm *c, int k) { return (c->rank + 1 + k) % c->size; }

/* What of `all` bytes the piece of this number holds. */
static size_t piece_of(size_t all, size_t piece, int64_t number)
{
    size_t at = (size_t)number * piece;
    return at >= all ? 0 : all - at < piece ? all - at : piece;
}

static hd_status start(hd_comm *c, int slot, hd_err *err)
{
    char why[HD_NET_WHY] = "";
    for (int k = 0; k < c->size - 1; k++) c->bytes += c->part[k].n_send;
    return c->net.start(slot, c->part, c->size - 1, why) == 0 ? HD_OK : lost(c, why, err);
}

static hd_status finish(hd_comm *c, int slot, hd_err *err)
{
    char why[HD_NET_WHY] = "";
    return c->net.finish(slot, why) == 0 ? HD_OK : lost(c, why, err);
}

/* A rank's range in what is sent and what is received, in bytes: [at, at + n). */
typedef struct {
    size_t at, n;
} range;
typedef range range_fn(const void *arg, int rank);

/* Every other rank's range of `send` goes there, its range of `recv` comes from there. */
static hd_status exchange(hd_comm *c, const void *send, range_fn *to, uint8_t *recv, range_fn *from, const void *arg, hd_err *err)
{
    hd_status st;
    for (int64_t step = 0;; step++) {
        size_t any = 0;
        for (int k = 0; k < c->size - 1; k++) {
            int r = other(c, k);
            range s = to(arg, r), v = from(arg, r);
            size_t at = (size_t)step * MESSAGE, n_send = piece_of(s.n, MESSAGE, step), n_recv = piece_of(v.n, MESSAGE, step);
            c->part[k] = (hd_net_part){r, n_send ? (const uint8_t *)send + s.at + at : NULL, n_recv ? recv + v.at + at : NULL,
                                       n_send, n_recv};
            any |= n_send | n_recv;
        }
        if (!any) return HD_OK;
        HD_TRY(start(c, 0, err));
        HD_TRY(finish(c, 0, err));
    }
fail:
    return st;
}

/* ---- Sums ---- */

typedef enum { SUM_F32, SUM_F64, SUM_I64 } sum_type;

static size_t width(sum_type t) { return t == SUM_F32 ? 4 : 8; }

/* y = a + b; y may be either. */
static void add(sum_type t, void *y, const void *a, const void *b, size_t bytes)
{
    int64_t n = (int64_t)(bytes / width(t));
    if (t == SUM_F32)
        for (int64_t i = 0; i < n; i++) ((float *)y)[i] = ((const float *)a)[i] + ((const float *)b)[i];
    else if (t == SUM_F64)
        for (int64_t i = 0; i < n; i++) ((double *)y)[i] = ((const double *)a)[i] + ((const double *)b)[i];
    else
        for (int64_t i = 0; i < n; i++) // wraps as unsigned numbers do
            ((uint64_t *)y)[i] = ((const uint64_t *)a)[i] + ((const uint64_t *)b)[i];
}

static uint8_t *buffer_of(const hd_comm *c, int slot, int rank)
{
    return c->buffer + ((size_t)slot * (size_t)c->size + (size_t)rank) * c->piece;
}

/* mine = x0 + x1 + ..., this rank's own in its place: the sum of those before it grows in rank 0's buffer. */
static void add_in_order(hd_comm *c, sum_type t, int slot, uint8_t *mine, size_t n)
{
    uint8_t *before = buffer_of(c, slot, 0);
    for (int r = 1; r < c->rank; r++) add(t, before, before, buffer_of(c, slot, r), n);
    if (c->rank > 0) add(t, mine, before, mine, n);
    for (int r = c->rank + 1; r < c->size; r++) add(t, mine, mine, buffer_of(c, slot, r), n);
}

/* Piece `number` of every part: others' to their owners, mine from all. */
static hd_status start_piece(hd_comm *c, size_t w, uint8_t *x, const int64_t *first, int64_t number, hd_err *err)
{
    int slot = (int)(number % HD_NET_SLOTS);
    size_t mine = piece_of((size_t)(first[c->rank + 1] - first[c->rank]) * w, c->piece, number);
    for (int k = 0; k < c->size - 1; k++) {
        int r = other(c, k);
        size_t at = (size_t)first[r] * w + (size_t)number * c->piece, n = (size_t)(first[r + 1] - first[r]) * w;
        c->part[k] = (hd_net_part){r, x + at, buffer_of(c, slot, r), piece_of(n, c->piece, number), mine};
    }
    return start(c, slot, err);
}

static int64_t pieces(const hd_comm *c, size_t w, const int64_t *first)
{
    int64_t most = 0;
    for (int r = 0; r < c->size; r++) {
        int64_t n = (int64_t)(((size_t)(first[r + 1] - first[r]) * w + c->piece - 1) / c->piece);
        if (n > most) most = n;
    }
    return most;
}

static hd_status reduce_scatter(hd_comm *c, sum_type t, void *x, const int64_t *first, hd_err *err)
{
    hd_status st;
    size_t w = width(t), mine = (size_t)(first[c->rank + 1] - first[c->rank]) * w;
    int64_t n = pieces(c, w, first);
    uint8_t *at = (uint8_t *)x + (size_t)first[c->rank] * w;
    if (n > 0) HD_TRY(start_piece(c, w, x, first, 0, err));
    for (int64_t i = 0; i < n; i++) {
        if (i + 1 < n) HD_TRY(start_piece(c, w, x, first, i + 1, err));
        HD_TRY(finish(c, (int)(i % HD_NET_SLOTS), err));
        add_in_order(c, t, (int)(i % HD_NET_SLOTS), at + (size_t)i * c->piece, piece_of(mine, c->piece, i));
    }
    return HD_OK;
fail:
    return st;
}

typedef struct {
    const int64_t *first;
    size_t width;
    int rank;
} gather;

static range part_of(const void *arg, int rank)
{
    const gather *g = arg;
    return (range){(size_t)g->first[rank] * g->width, (size_t)(g->first[rank + 1] - g->first[rank]) * g->width};
}

static range my_part(const void *arg, int rank)
{
    (void)rank;
    return part_of(arg, ((const gather *)arg)->rank);
}

static hd_status all_gather(hd_comm *c, size_t w, void *x, const int64_t *first, hd_err *err)
{
    gather g = {first, w, c->rank};
    return exchange(c, x, my_part, x, part_of, &g, err);
}

static hd_status sum(hd_comm *c, sum_type t, void *x, int64_t n, hd_err *err)
{
    hd_status st = HD_OK;
    double t0 = hd_now_s();
    if (c->size == 1) return HD_OK;
    for (int r = 0; r <= c->size; r++) c->even[r] = n / c->size * r + (r < n % c->size ? r : n % c->size);
    HD_TRY(reduce_scatter(c, t, x, c->even, err));
    HD_TRY(all_gather(c, width(t), x, c->even, err));
fail:
    c->seconds += hd_now_s() - t0;
    return st;
}

hd_status hd_comm_sum(hd_comm *c, float *x, int64_t n, hd_err *err) { return sum(c, SUM_F32, x, n, err); }
hd_status hd_comm_sum_f64(hd_comm *c, double *x, int n, hd_err *err) { return sum(c, SUM_F64, x, n, err); }
hd_status hd_comm_sum_i64(hd_comm *c, int64_t *x, int64_t n, hd_err *err) { return sum(c, SUM_I64, x, n, err); }

hd_status hd_comm_reduce_scatter(hd_comm *c, float *x, const int64_t *first, hd_err *err)
{
    double t0 = hd_now_s();
    hd_status st = c->size > 1 ? reduce_scatter(c, SUM_F32, x, first, err) : HD_OK;
    c->seconds += hd_now_s() - t0;
    return st;
}

hd_status hd_comm_all_gather(hd_comm *c, float *x, const int64_t *first, hd_err *err)
{
    double t0 = hd_now_s();
    hd_status st = c->size > 1 ? all_gather(c, sizeof *x, x, first, err) : HD_OK;
    c->seconds += hd_now_s() - t0;
    return st;
}

/* ---- Rows to ranks ---- */

typedef struct {
    const int64_t *n_send, *n_recv;
    size_t width;
} rows;

static range rows_of(const int64_t *n, size_t w, int rank)
{
    range r = {0, (size_t)n[rank] * w};
    for (int i = 0; i < rank; i++) r.at += (size_t)n[i] * w;
    return r;
}

static range rows_sent(const void *arg, int rank)
{
    const rows *a = arg;
    return rows_of(a->n_send, a->width, rank);
}

static range rows_received(const void *arg, int rank)
{
    const rows *a = arg;
    return rows_of(a->n_recv, a->width, rank);
}

hd_status hd_comm_all_to_all(hd_comm *c, const float *send, const int64_t *n_send, float *recv, const int64_t *n_recv, int64_t floats,
                             hd_err *err)
{
    double t0 = hd_now_s();
    rows a = {n_send, n_recv, (size_t)floats * sizeof *send};
    range s = rows_sent(&a, c->rank), v = rows_received(&a, c->rank);
    if (s.n != v.n)
        return hd_fail(err, HD_USAGE, "comm: %lld rows sent to oneself, %lld awaited", (long long)n_send[c->rank],
                       (long long)n_recv[c->rank]);
    if (s.n > 0) memcpy((uint8_t *)recv + v.at, (const uint8_t *)send + s.at, s.n);
    hd_status st = exchange(c, send, rows_sent, (uint8_t *)recv, rows_received, &a, err);
    c->seconds += hd_now_s() - t0;
    return st;
}

hd_status hd_comm_barrier(hd_comm *c, hd_err *err)
{
    char why[HD_NET_WHY] = "";
    double t0 = hd_now_s();
    bool well = c->size == 1 || c->net.barrier(why) == 0;
    c->seconds += hd_now_s() - t0;
    return well ? HD_OK : lost(c, why, err);
}
