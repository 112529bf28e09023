/* Products alone: formats x rows, packing of the activations included.
 *
 * Few rows are limited by reading the weights, so their GB/s stand beside the measured read bandwidth; many rows by
 * arithmetic.  Weights are several times the cache (argument: megabytes, 256 unless told), as a model's are.
 *   kernels [K N [MEGABYTES [THREADS]]]        HADAL_CPU=level */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "ops/ops.h"

static hd_err err;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(hd_status st)
{
    if (st == HD_OK) return;
    fprintf(stderr, "kernels: %s\n", err.msg);
    exit(1);
}

static const uint64_t *region;
static uint64_t seen[256];

static void read_chunk(void *arg, int64_t c, int tid)
{
    const uint64_t *p = region + c * 32768;
    uint64_t s[8] = {0};
    (void)arg;
    for (int i = 0; i < 32768; i += 8)
        for (int j = 0; j < 8; j++) s[j] += p[i + j];
    for (int j = 0; j < 8; j++) seen[tid] += s[j];
}

int main(int argc, char **argv)
{
    static const int rows[] = {1, 2, 4, 8, 16, 64, 512};
    static const hd_type types[] = {HD_F32,  HD_F16,  HD_BF16, HD_Q8_0, HD_Q4_0,  HD_Q4_1,
                                    HD_Q5_0, HD_Q5_1, HD_Q4_K, HD_Q5_K, HD_Q6_K, HD_IQ4_NL};
    enum { TOP = 512 };
    int64_t k = argc > 2 ? atoll(argv[1]) : 1536, n = argc > 2 ? atoll(argv[2]) : 8960;
    size_t budget = (size_t)(argc > 3 ? atoi(argv[3]) : 256) << 20;
    hd_dev d;
    hd_arena work;
    hd_rng rng;
    uint8_t *panels, *file;
    float *x, *y;
    if (k % 256 || k < 256 || n < 32) {
        fprintf(stderr, "kernels: K must be a multiple of 256, N at least 32\n");
        return 1;
    }
    must(hd_dev_open(&d, argc > 4 ? atoi(argv[4]) : 0, false, k, &err));
    must(hd_arena_open(&work, "work", (size_t)TOP * (size_t)k * 4 + 4096, &err));
    must(hd_alloc_aligned(&x, (size_t)TOP * (size_t)k * 4, &err));
    must(hd_alloc_aligned(&y, (size_t)TOP * (size_t)n * 4, &err));
    size_t widest = (size_t)k * 128 * (size_t)((n + 31) / 32), total = widest > budget ? widest : budget;
    must(hd_alloc_aligned(&panels, total, &err));
    must(hd_alloc_aligned(&file, (size_t)n * (size_t)k * 4, &err));
    hd_rng_seed(&rng, 1, 1);
    for (int64_t i = 0; i < TOP * k; i++) x[i] = hd_rng_normal(&rng);
    memset(panels, 1, total); // touch
    memset(file, 0x11, (size_t)n * (size_t)k * 4); // small positive numbers in every format

    region = (const uint64_t *)(const void *)panels;
    double best = 1e9;
    for (int r = 0; r < 5; r++) {
        double t = now();
        hd_pool_run(d.pool, (int64_t)(total / 262144), read_chunk, NULL);
        t = now() - t;
        best = t < best ? t : best;
    }
    double bandwidth = (double)(total / 262144 * 262144) / best * 1e-9;
    printf("level %s, %d threads, K %lld, N %lld, read %.1f GB/s\n", d.k->level, hd_pool_threads(d.pool), (long long)k,
           (long long)n, bandwidth);
    printf("%-8s", "G op/s");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) printf("%14d", rows[i]);
    printf("\n");
    for (size_t f = 0; f < sizeof types / sizeof *types; f++) {
        hd_rows src = {.type = types[f], .data = file, .n = n, .k = k};
        hd_linear w;
        hd_format_row_bytes(hd_format_get(types[f]), k, &src.row_bytes);
        size_t bytes = hd_linear_packed_bytes(&src), copies = total / bytes;
        for (size_t c = 0; c < copies; c++) {
            hd_linear_init(&w, &src);
            hd_linear_pack(&d, &w, panels + c * bytes);
        }
        printf("%-8s", hd_format_get(types[f])->name);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            int reps = rows[i] >= 64 ? 3 : (int)copies * 2 + 2;
            hd_linear_mul(&d, &w, x, k, rows[i], y, n, &work); // touches what it writes
            best = 1e9;
            double sum = 0;
            for (int r = 0; r < reps; r++) {
                double t = now();
                w.panels = panels + (size_t)r % copies * bytes;
                hd_linear_mul(&d, &w, x, k, rows[i], y, n, &work);
                t = now() - t;
                best = t < best ? t : best;
                sum += t;
            }
            double t = rows[i] >= 64 ? best : sum / reps, ops = 2.0 * (double)n * (double)k * rows[i];
            double gb = (double)bytes / t * 1e-9;
            if (rows[i] <= 8) printf("%7.0f (%3.0f%%)", ops / t * 1e-9, 100 * gb / bandwidth);
            else printf("%14.0f", ops / t * 1e-9);
        }
        printf("\n");
        fflush(stdout);
    }
    hd_dev_close(&d);
    hd_arena_close(&work);
    hd_free_aligned(x, (size_t)TOP * (size_t)k * 4);
    hd_free_aligned(y, (size_t)TOP * (size_t)n * 4);
    hd_free_aligned(panels, total);
    hd_free_aligned(file, (size_t)n * (size_t)k * 4);
    return 0;
}
