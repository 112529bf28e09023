/* The teacher of a distilling run: a model that is asked for each micro-batch, or a file of its answers that
 * is made once, for all sequences of the run, and then read.  The student's bits are the same. */
#ifndef HD_TRAIN_TEACH_H
#define HD_TRAIN_TEACH_H

#include <signal.h>

#include "dist/comm.h"
#include "train/recipe.h"

typedef struct hd_teach hd_teach;

/* r, data: borrowed.  c: the student's.  Every rank calls it; rank 0 makes the file where it is missing, or
 * goes on with what an earlier run left of it.  *out is NULL for a run without a teacher.
 * HD_USAGE: another vocabulary; a file of another teacher, other data, other sizes, or of fewer sequences
 * than the run has.
 * HD_FORMAT: a damaged file; weights or answers that are no finite numbers.  HD_CANCELLED: *stop was set;
 * what is made stays. */
hd_status hd_teach_open(hd_teach **out, const hd_recipe *r, const hd_config *c, hd_data *data, hd_comm *comm,
                        const volatile sig_atomic_t *stop, hd_err *err);
void hd_teach_close(hd_teach *t);
/* The teacher's probabilities into b, sequences index, index + 1, ... of the run; the arrays are t's, good
 * until the next call.  Nothing without a teacher (t NULL). */
hd_status hd_teach_micro(hd_teach *t, uint64_t index, hd_micro *b, hd_err *err);

#endif
