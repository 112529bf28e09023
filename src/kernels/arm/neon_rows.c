/* Row kernels for NEON, 4 lanes a register; the loops are in rows_body.h. */
#include "kernels/rows_body.h"

ROWS_FILL(neon)
