/* The way back for AVX-512; the loops are in back_body.h. */
#include "kernels/back_body.h"

BACK_FILL(vnni)
