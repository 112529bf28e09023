/* Packing bf12 for AVX2; the loops are in bf12_body.h, the product in float_body.h. */
#include "kernels/bf12_body.h"

BF12_FILL(avx2)
