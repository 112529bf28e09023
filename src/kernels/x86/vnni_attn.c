/* Attention for AVX-512 in f32: 6 rows x 4 panels leave 24 accumulators, four weights and a broadcast. */
#define ATTN_MR 6
#define ATTN_MC 4
#define ATTN_FEW 7
#include "kernels/attn_body.h"

ATTN_FILL(vnni)
