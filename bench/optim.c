/* An optimizer's step alone, for the matrices of models of 1, 10 and 100 M parameters: milliseconds of
 * processor time on one thread.
 *
 *   AdamW   GB/s that it moves (28 bytes a weight; moments in bf16: 20)
 *   Muon    G operations/s of its products, counted whole: 5 (4 r^2 c + 2 r^3) for a matrix of sides r <= c,
 *           though half of the symmetric ones is not computed
 *   optim [THREADS]        HADAL_CPU=level; with more threads the clock on the wall */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "train/optim.h"

static hd_err err;

static void must(hd_status st)
{
    if (st == HD_OK) return;
    fprintf(stderr, "optim: %s\n", err.msg);
    exit(1);
}

static double now(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { PER_LAYER = 7, MAX_LAYERS = 12 };

static void bench(hd_dev *d, int threads, const char *name, int64_t width, int64_t ffn, int layers)
{
    static const hd_slot slot = {.kind = HD_SLOT_MATRIX};
    const int64_t shape[PER_LAYER][2] = {{width, width}, {width, width}, {width, width}, {width, width}, {ffn, width}, {ffn, width}, {width, ffn}};
    hd_param list[PER_LAYER * MAX_LAYERS];
    hd_params p = {.p = list};
    double ops = 0;
    hd_rng r;
    hd_rng_seed(&r, 1, 1);
    for (int l = 0; l < layers; l++)
        for (int i = 0; i < PER_LAYER; i++) {
            int64_t n = shape[i][0], k = shape[i][1], small = n < k ? n : k, large = n < k ? k : n;
            list[p.n++] = (hd_param){.name = "w", .slot = &slot, .layer = l, .expert = -1, .at = p.n_flat, .n = n, .k = k};
            p.n_flat += n * k; // multiples of 16, as the widths are
            ops += 5 * (4.0 * (double)(small * small * large) + 2.0 * (double)(small * small * small));
        }
    must(hd_alloc_aligned(&p.w, (size_t)p.n_flat * 4, &err));
    must(hd_alloc_aligned(&p.g, (size_t)p.n_flat * 4, &err));
    for (int64_t i = 0; i < p.n_flat; i++) p.w[i] = p.g[i] = 0.01f * hd_rng_normal(&r);
    for (int kind = 0; kind < 3; kind++) {
        hd_optim_config c = hd_optim_defaults;
        hd_optim *o;
        double best = 1e9;
        c.matrices = kind == 2 ? HD_OPT_MUON : HD_OPT_ADAMW;
        c.moments_bf16 = kind == 1;
        must(hd_optim_open(&o, &p, &c, NULL, 0, &err));
        for (int i = 0; i < 4; i++) {
            double t = now(threads);
            hd_optim_step(o, d, p.w, p.g, 1e-4f, 1, i + 1);
            t = now(threads) - t;
            if (i > 0 && t < best) best = t;
        }
        double rate = kind == 2 ? ops / best : (double)p.n_flat * (kind == 1 ? 20 : 28) / best;
        printf("%-6s %-12s %6.2f M weights  %9.3f ms  %7.1f %s\n", name, kind == 2 ? "Muon" : kind == 1 ? "AdamW bf16" : "AdamW",
               (double)p.n_flat / 1e6, 1e3 * best, 1e-9 * rate, kind == 2 ? "G op/s" : "GB/s");
        fflush(stdout);
        hd_optim_close(o);
    }
    hd_free_aligned(p.w, (size_t)p.n_flat * 4);
    hd_free_aligned(p.g, (size_t)p.n_flat * 4);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    hd_dev d;
    must(hd_dev_open(&d, threads, false, 2048, &err));
    printf("level %s, %d threads\n", d.k->level, threads);
    bench(&d, threads, "1m", 128, 352, 5);
    bench(&d, threads, "10m", 320, 864, 7);
    bench(&d, threads, "100m", 768, 2048, 12);
    hd_dev_close(&d);
    return 0;
}
