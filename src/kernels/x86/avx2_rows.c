/* Row kernels for AVX2, 8 lanes a register; the loops are in rows_body.h. */
#include "kernels/rows_body.h"

ROWS_FILL(avx2)
