/* How fast this machine multiplies matrices: the yardstick that shares of a peak are told against. */
#ifndef HD_OPS_RATE_H
#define HD_OPS_RATE_H

#include "ops/ops.h"

/* FLOPs a second of large bf16 products (f32 when d is exact) on all of d's threads: the best of a few, a
 * fraction of a second in all.  Measured, so it moves with what else the machine does. */
hd_status hd_product_rate(double *flops_s, hd_dev *d, hd_err *err);

#endif
