/* Float products for AVX2: two rows of a panel are 8 registers of sums, half of what there is; the loops are
 * in float_body.h. */
#define ROWS            2
#define HALVES          1
#define FETCH(p, bytes) ((void)(p))
#include "kernels/float_body.h"

FLOAT_FILL(avx2)
