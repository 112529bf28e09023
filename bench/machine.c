/* This machine's limits, one JSON object: the level in use, int8 and float operations a
 * second on all threads.
 *   machine [THREADS]        HADAL_CPU=level */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "kernels/kernels.h"

static double now(void) { return hd_now_s(); } // the clock of peak.h
#include "peak.h"

int main(int argc, char **argv)
{
    hd_err err = {0};
    hd_pool *pool = NULL;
    const hd_kernels *k = NULL;
    if (hd_kernels_get(&k, &err) != HD_OK || hd_pool_open(&pool, argc > 1 ? atoi(argv[1]) : 0, &err) != HD_OK) {
        fprintf(stderr, "machine: %s\n", err.msg);
        return 1;
    }
    printf("{\"level\": \"%s\", \"threads\": %d, \"int8_op_s\": %.4g, \"float_op_s\": %.4g}\n", k->level,
           hd_pool_threads(pool), peak_ops(k->level, true, pool), peak_ops(k->level, false, pool));
    hd_pool_close(pool);
    return 0;
}
