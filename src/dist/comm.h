/* Ranks: one process alone, or those of an MPI run.  Sums over ranks are made in the order of ranks, so that
 * a run with N ranks repeats to the bit. */
#ifndef HD_DIST_COMM_H
#define HD_DIST_COMM_H

#include "base/err.h"

typedef struct hd_comm hd_comm;

/* Alone, unless the process was started by mpirun (or srun): then through the module hadal-mpi.so
 * beside the program, or where it was installed, or that HADAL_MPI names.  Once in a process; calls
 * come from one thread. */
hd_status hd_comm_open(hd_comm **out, hd_err *err);
void hd_comm_close(hd_comm *c);
int hd_comm_rank(const hd_comm *c);
int hd_comm_size(const hd_comm *c);

/* x[n] of every rank becomes the sum, added in the order of ranks: each rank sums its part and
 * sends it to all. */
hd_status hd_comm_sum(hd_comm *c, float *x, int64_t n, hd_err *err);
/* The same, but a part of x is complete on one rank only: first[r] .. first[r+1] on rank r. */
hd_status hd_comm_reduce_scatter(hd_comm *c, float *x, const int64_t *first, hd_err *err);
hd_status hd_comm_all_gather(hd_comm *c, float *x, const int64_t *first, hd_err *err);
hd_status hd_comm_sum_f64(hd_comm *c, double *x, int n, hd_err *err);
hd_status hd_comm_sum_i64(hd_comm *c, int64_t *x, int64_t n, hd_err *err);
/* Rows of `floats` floats: send holds n_send[0] of them for rank 0, then n_send[1] for rank 1 ...; recv is
 * filled alike.  What a rank sends, the other awaits: n_send[b] on rank a is n_recv[a] on rank b. */
hd_status hd_comm_all_to_all(hd_comm *c, const float *send, const int64_t *n_send, float *recv, const int64_t *n_recv, int64_t floats,
                             hd_err *err);
hd_status hd_comm_barrier(hd_comm *c, hd_err *err);
uint64_t hd_comm_bytes(const hd_comm *c);   // sent by this rank so far
double hd_comm_seconds(const hd_comm *c);   // spent waiting and sending
/* A rank that fails says so on stderr ("hadal: message") and ends them all.  Does not return.  Rank 0 speaks
 * at once, others after two seconds, so that what befalls all of them is told once. */
void hd_comm_abort(hd_comm *c, const char *message, int status);

#endif
