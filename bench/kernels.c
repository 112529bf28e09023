/* Products alone: formats x rows, packing of the activations included.
 *
 * A row of the table: G operations/s for each number of rows, and in brackets what limits it: for up to 8
 * rows the weights' GB/s as a share of the read bandwidth, beyond that the operations as a share of the
 * level's int8 or float peak, both measured just before.  Weights are several times the cache (megabytes, 256
 * unless told), as a model's are.
 *   kernels [K N [MEGABYTES [THREADS [FORMAT]...]]]        HADAL_CPU=level */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/rng.h"
#include "cli/bench_cost.h"
#include "ops/ops.h"
#include "peak.h"

enum { TOP = 512 };
static const int rows[] = {1, 2, 4, 8, 16, 32, 64, 512};
static const hd_type types[] = {HD_F32,  HD_F16,  HD_BF16, HD_F8_E4M3, HD_Q8_0, HD_Q4_0,  HD_Q4_1,
                                HD_Q5_0, HD_Q5_1, HD_Q4_K, HD_Q5_K,    HD_Q6_K, HD_IQ4_NL, HD_IQ4_XS};
static hd_err err;

static double now(void) { return hd_now_s(); } // the clock of peak.h

static void must(hd_status st)
{
    if (st == HD_OK) return;
    fprintf(stderr, "kernels: %s\n", err.msg);
    exit(1);
}

/* ---- One format ---------------------------------------------------------------------------------------- */

typedef struct {
    hd_dev dev;
    hd_arena work;
    int64_t k, n;
    uint8_t *panels, *file;
    size_t total; // bytes of panels
    float *x, *y;
    double bandwidth, int_peak, float_peak;
} bench;

/* Seconds of one product.  The copies of the weights take turns, so none is in the cache. */
static double time_rows(bench *b, hd_linear *w, size_t bytes, int M)
{
    size_t copies = b->total / bytes;
    int reps = M >= 64 ? 5 : (int)copies * 2 + 2;
    double best = 1e9, sum = 0;
    hd_linear_mul(&b->dev, w, b->x, b->k, M, b->y, b->n, &b->work); // touches what it writes
    for (int r = 0; r < reps; r++) {
        double t = now();
        w->panels = b->panels + (size_t)r % copies * bytes;
        hd_linear_mul(&b->dev, w, b->x, b->k, M, b->y, b->n, &b->work);
        t = now() - t;
        best = t < best ? t : best;
        sum += t;
    }
    return M >= 64 ? best : sum / reps;
}

static void bench_format(bench *b, hd_type type)
{
    static const float ones[1 << 16] = {1};
    hd_rows src = {.type = type, .data = b->file, .n = b->n, .k = b->k};
    hd_linear w;
    hd_format_row_bytes(hd_format_get(type), b->k, &src.row_bytes);
    if (type == HD_F8_E4M3) src.f8_scale = ones, src.f8_scale_ld = 0;
    size_t bytes = hd_linear_packed_bytes(&src);
    if (bytes == 0) return; // no panel of its own
    hd_linear_init(&w, &src);
    double peak = w.kind->act >= HD_ACT_Q8 ? b->int_peak : b->float_peak;
    for (size_t c = 0; c < b->total / bytes; c++) {
        hd_linear_init(&w, &src);
        hd_linear_pack(&b->dev, &w, b->panels + c * bytes);
    }
    printf("%-8s", hd_format_get(type)->name);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double t = time_rows(b, &w, bytes, rows[i]), ops = 2.0 * (double)b->n * (double)b->k * rows[i] / t;
        double share = rows[i] <= 8 ? (double)bytes / t / b->bandwidth : peak > 0 ? ops / peak : 0;
        printf("%7.0f (%3.0f%%)", ops * 1e-9, 100 * share);
    }
    printf("\n");
    fflush(stdout);
}

static bool wanted(int argc, char **argv, hd_type type)
{
    for (int i = 5; i < argc; i++)
        if (!strcasecmp(argv[i], hd_format_get(type)->name)) return true;
    return argc <= 5;
}

int main(int argc, char **argv)
{
    bench b = {.k = argc > 2 ? atoll(argv[1]) : 1536, .n = argc > 2 ? atoll(argv[2]) : 8960};
    size_t budget = (size_t)(argc > 3 ? atoi(argv[3]) : 256) << 20;
    hd_rng rng;
    if (b.k % 64 || b.k < 64 || b.k > 65536 || b.n < 32) {
        fprintf(stderr, "kernels: K must be a multiple of 64 (formats by 256: of 256), N at least 32\n");
        return 1;
    }
    const size_t xs = (size_t)TOP * (size_t)b.k * 4, ys = (size_t)TOP * (size_t)b.n * 4;
    const size_t files = (size_t)b.n * (size_t)b.k * 4, widest = (size_t)b.k * 128 * (size_t)((b.n + 31) / 32);
    b.total = widest > budget ? widest : budget;
    must(hd_dev_open(&b.dev, argc > 4 ? atoi(argv[4]) : 0, false, b.k, &err));
    must(hd_arena_open(&b.work, "work", xs + 4096, &err));
    must(hd_alloc_aligned(&b.x, xs, &err));
    must(hd_alloc_aligned(&b.y, ys, &err));
    must(hd_alloc_aligned(&b.panels, b.total, &err));
    must(hd_alloc_aligned(&b.file, files, &err));
    hd_rng_seed(&rng, 1, 1);
    for (int64_t i = 0; i < TOP * b.k; i++) b.x[i] = hd_rng_normal(&rng);
    memset(b.panels, 1, b.total); // touch
    memset(b.file, 0x11, files);  // small positive numbers in every format

    must(hd_bench_bandwidth(&b.bandwidth, hd_pool_threads(b.dev.pool), &err));
    b.int_peak = peak_ops(b.dev.k->level, true, b.dev.pool);
    b.float_peak = peak_ops(b.dev.k->level, false, b.dev.pool);
    printf("level %s, %d threads, K %lld, N %lld: read %.1f GB/s, int8 %.0f G op/s, float %.0f G op/s\n", b.dev.k->level,
           hd_pool_threads(b.dev.pool), (long long)b.k, (long long)b.n, b.bandwidth * 1e-9, b.int_peak * 1e-9,
           b.float_peak * 1e-9);
    printf("%-8s", "G op/s");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) printf("%14d", rows[i]);
    printf("\n");
    for (size_t f = 0; f < sizeof types / sizeof *types; f++)
        if (wanted(argc, argv, types[f]) && b.k % hd_format_get(types[f])->block == 0) bench_format(&b, types[f]);
    hd_dev_close(&b.dev);
    hd_arena_close(&b.work);
    hd_free_aligned(b.x, xs);
    hd_free_aligned(b.y, ys);
    hd_free_aligned(b.panels, b.total);
    hd_free_aligned(b.file, files);
    return 0;
}
