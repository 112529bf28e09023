/* Packing of activations for NEON; the loops are in act_body.h. */
#include "kernels/act_body.h"

ACT_FILL(neon)
