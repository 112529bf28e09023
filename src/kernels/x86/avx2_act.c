/* Packing of activations for AVX2; the loops are in act_body.h. */
#include "kernels/act_body.h"

ACT_FILL(avx2)
