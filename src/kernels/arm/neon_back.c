/* The way back for NEON; the loops are in back_body.h. */
#include "kernels/back_body.h"

BACK_FILL(neon)
