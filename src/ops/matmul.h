/* What ops.c must know of cpu_matmul.c.  Private to src/ops. */
#ifndef HD_OPS_MATMUL_H
#define HD_OPS_MATMUL_H

#include "ops/ops.h"

#define HD_MAX_K ((int64_t)1 << 24) // an inner dimension beyond this is no model's

size_t hd_mm_scratch_bytes(int64_t max_k); // of one thread

#endif
