/* Packing of activations for AVX-512; the loops are in act_body.h. */
#include "kernels/act_body.h"

ACT_FILL(vnni)
