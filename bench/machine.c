/* This machine's limits, one JSON object: bytes a second that all threads read from memory; then the level in
 * use, int8 and float operations a second.
 *   machine [THREADS [read]]        HADAL_CPU=level; read: the first alone */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cli/bench_cost.h"
#include "kernels/kernels.h"

static double now(void) { return hd_now_s(); } // the clock of peak.h
#include "peak.h"

int main(int argc, char **argv)
{
    hd_err err = {0};
    hd_pool *pool = NULL;
    const hd_kernels *k = NULL;
    double read;
    const int threads = argc > 1 ? atoi(argv[1]) : 0;
    if (hd_kernels_get(&k, &err) != HD_OK || hd_bench_bandwidth(&read, threads, &err) != HD_OK || hd_pool_open(&pool, threads, &err) != HD_OK) {
        fprintf(stderr, "machine: %s\n", err.msg);
        return 1;
    }
    printf("{\"read_bytes_s\": %.4g", read);
    if (argc <= 2)
        printf(", \"level\": \"%s\", \"threads\": %d, \"int8_op_s\": %.4g, \"float_op_s\": %.4g", k->level,
               hd_pool_threads(pool), peak_ops(k->level, true, pool), peak_ops(k->level, false, pool));
    printf("}\n");
    hd_pool_close(pool);
    return 0;
}
