/* The way back for AVX2; the loops are in back_body.h. */
#include "kernels/back_body.h"

BACK_FILL(avx2)
