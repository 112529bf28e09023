/* The optimizers' loops for any machine; they are in optim_body.h. */
#include "kernels/optim_body.h"

OPTIM_FILL(ref)
