/* Packing of activations with vcvtneps2bf16; the loops are in act_body.h. */
#include "kernels/act_body.h"

ACT_FILL(zen4)
