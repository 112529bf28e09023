/* Attention for NEON: 6 rows x 1 panel (four registers) leave 24 accumulators, four weights
 * and a broadcast. */
#define ATTN_MR 6
#define ATTN_MC 1
#define ATTN_FEW 5
#include "kernels/attn_body.h"

ATTN_FILL(neon)
