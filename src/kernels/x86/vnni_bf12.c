/* Packing bf12 for AVX-512; the loops are in bf12_body.h, the product in vnni_float.c. */
#include "kernels/bf12_body.h"

BF12_FILL(vnni)
