/* The device: kernels of one level, the threads, and one piece of scratch memory for each thread. */
#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "ops/matmul.h"
#include "ops/ops.h"

hd_status hd_dev_open(hd_dev *d, int n_threads, bool exact, int64_t max_k, hd_err *err)
{
    hd_status st;
    size_t total;
    memset(d, 0, sizeof *d);
    d->exact = exact;
    if (max_k < 1 || max_k > HD_MAX_K) {
        st = hd_fail(err, HD_UNSUPPORTED, "device: inner dimension %lld: must be 1..%lld", (long long)max_k,
                     (long long)HD_MAX_K);
        goto fail;
    }
    HD_TRY(hd_kernels_get(&d->k, err)); // first: the tile state must be granted before threads start
    HD_TRY(hd_pool_open(&d->pool, n_threads, err));
    d->scratch_bytes = hd_mm_scratch_bytes(max_k);
    if (!hd_mul(&total, d->scratch_bytes, (size_t)hd_pool_threads(d->pool))) {
        st = hd_fail(err, HD_NOMEM, "device: scratch: size wraps");
        goto fail;
    }
    HD_TRY(hd_alloc_aligned(&d->scratch, total, err));
    return HD_OK;
fail:
    hd_dev_close(d);
    return st;
}

void hd_dev_close(hd_dev *d)
{
    if (d->scratch) hd_free_aligned(d->scratch, d->scratch_bytes * (size_t)hd_pool_threads(d->pool));
    if (d->pool) hd_pool_close(d->pool);
    memset(d, 0, sizeof *d);
}

typedef struct {
    hd_row_fn *fn;
    void *arg;
    int64_t M, chunk;
} rows_job;

static void rows_chunk(void *arg, int64_t i, int tid)
{
    const rows_job *j = arg;
    int64_t end = (i + 1) * j->chunk < j->M ? (i + 1) * j->chunk : j->M;
    for (int64_t r = i * j->chunk; r < end; r++) j->fn(j->arg, r, tid);
}

void hd_rows_run(hd_dev *d, int64_t M, hd_row_fn *fn, void *arg)
{
    int64_t parts = hd_pool_threads(d->pool) * 8;
    rows_job j = {fn, arg, M, (M + parts - 1) / parts};
    if (M < 1) return;
    hd_pool_run(d->pool, (M + j.chunk - 1) / j.chunk, rows_chunk, &j);
}
