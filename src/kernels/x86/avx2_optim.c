/* The optimizers' loops as the compiler makes them with this level's instructions; they are
 * in optim_body.h. */
#include "kernels/optim_body.h"

OPTIM_FILL(avx2)
