/* Attention for AVX2: 6 rows x 1 panel (two registers) leave 12 accumulators, two weights and a broadcast. */
#define ATTN_MR 6
#define ATTN_MC 1
#define ATTN_FEW 6
#include "kernels/attn_body.h"

ATTN_FILL(avx2)
