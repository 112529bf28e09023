/* Row kernels for AVX-512, 16 lanes a register; the loops are in rows_body.h. */
#include "kernels/rows_body.h"

ROWS_FILL(vnni)
