/* One product of a size at which nothing but arithmetic counts: weights and activations that fit a core's
 * caches together, as the products of a training pass have them. */
#include "ops/rate.h"

#include <string.h>

#include "base/log.h"
#include "base/num.h"
#include "base/rng.h"

enum { ROWS = 512, N = 1024, K = 1024, TRIES = 24, TRIES_LEAST = 3 };
static const double ENOUGH_S = 0.5; // where a product takes long, few must do

hd_status hd_product_rate(double *flops_s, hd_dev *d, hd_err *err)
{
    hd_status st;
    hd_arena work = {0};
    hd_rng r;
    float *x, *y;
    uint8_t *w;
    size_t each = d->exact ? 4 : 2;
    hd_rows rows = {.type = d->exact ? HD_F32 : HD_BF16, .n = N, .k = K, .row_bytes = K * each};
    hd_linear l;
    hd_act a;
    hd_linear_init(&l, &rows);
    size_t packed = hd_linear_packed_bytes(&rows), blobs = hd_act_bytes(hd_linear_act(d, &l), K) * ROWS;
    HD_TRY(hd_arena_open(&work, "product rate", N * K * each + (size_t)ROWS * (N + K) * 4 + packed + blobs + 4096, err));
    w = hd_arena_take(&work, N * K * each);
    x = hd_arena_take(&work, (size_t)ROWS * K * 4);
    y = hd_arena_take(&work, (size_t)ROWS * N * 4);
    hd_rng_seed(&r, 1, 1);
    for (int i = 0; i < N * K; i++) {
        float v = (float)hd_rng_unit(&r) - 0.5f;
        uint16_t h = hd_f32_to_bf16(v);
        memcpy(w + (size_t)i * each, each == 4 ? (void *)&v : (void *)&h, each);
    }
    for (int i = 0; i < ROWS * K; i++) x[i] = (float)hd_rng_unit(&r) - 0.5f;
    l.src.data = w;
    hd_linear_pack(d, &l, hd_arena_take(&work, packed));
    hd_act_init(&a, hd_linear_act(d, &l), K, ROWS, &work);
    hd_act_pack(d, &a, x, K);
    double best = 1e9, begun = hd_now_s();
    for (int i = 0; i < TRIES && (i < TRIES_LEAST || hd_now_s() - begun < ENOUGH_S); i++) {
        hd_mm job = {.w = &l, .act = &a, .M = ROWS, .y = y, .ldy = N};
        double t0 = hd_now_s();
        hd_mm_run(d, &job, 1);
        double t = hd_now_s() - t0;
        if (t < best) best = t;
    }
    *flops_s = 2.0 * ROWS * N * K / best;
fail:
    hd_arena_close(&work);
    return st;
}
