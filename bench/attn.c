/* Attention alone: prefill of 512 and decode at 1 k, 4 k, 16 k, in the shapes of real models.
 * usage: attn [threads]   (HADAL_CPU=level chooses the kernels)
 * GFLOP/s counts 2 (dk + dv) for each visible (query, key) pair; GB/s the cache bytes of one read of the
 * keys and values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "ops/attn.h"

static const struct {
    const char *name;
    int n_heads, n_kv, dk, dv;
    bool v_in_k;
} SHAPES[] = {{"SmolLM2-135M", 9, 3, 64, 64, false},
              {"Qwen2.5-0.5B", 14, 2, 64, 64, false},
              {"Qwen2.5-1.5B", 12, 2, 128, 128, false},
              {"MLA 16 heads", 16, 1, 576, 512, true},
              {"MLA 128 heads", 128, 1, 576, 512, true}};
static const char *TYPES[] = {"f32", "f16", "bf16", "q8_0"};

static void die(hd_err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    exit(1);
}

static void measure(hd_dev *d, int shape, hd_cache_type type, int rows, int n_pos)
{
    hd_err err;
    hd_kv_shape kv = {type, SHAPES[shape].n_kv, SHAPES[shape].dk, SHAPES[shape].dv, SHAPES[shape].v_in_k};
    int heads = SHAPES[shape].n_heads, n_pages = (n_pos + HD_PAGE_TOK - 1) / HD_PAGE_TOK;
    enum { LAYERS = 4 }; // a token reads other layers in between: more than the L2 cache holds
    size_t page = hd_kv_page_bytes(&kv), all = page * (size_t)n_pages * LAYERS;
    uint8_t *mem, **pages = malloc((size_t)n_pages * LAYERS * sizeof *pages);
    if (hd_alloc_aligned(&mem, all, &err) != HD_OK) die(&err);
    for (int i = 0; i < n_pages * LAYERS; i++) pages[i] = mem + page * (size_t)i;
    float *k = malloc((size_t)(kv.n_kv * kv.dk) * 4), *v = malloc((size_t)(kv.n_kv * kv.dv) * 4);
    for (int j = 0; j < n_pages * LAYERS * HD_PAGE_TOK; j++) {
        for (int i = 0; i < kv.n_kv * kv.dk; i++) k[i] = (float)((i * 7 + j * 13) % 101) / 101 - 0.5f;
        for (int i = 0; i < kv.n_kv * kv.dv; i++) v[i] = (float)((i * 5 + j * 11) % 103) / 103 - 0.5f;
        hd_kv_store(&kv, pages[j / HD_PAGE_TOK], j % HD_PAGE_TOK, k, v);
    }
    float *q = calloc((size_t)rows * (size_t)(heads * kv.dk), 4), *out = malloc((size_t)rows * (size_t)(heads * kv.dv) * 4);
    int32_t *pos = malloc((size_t)rows * sizeof *pos);
    double pairs = 0, best = 1e9, t0 = hd_now_s();
    for (int i = 0; i < rows; i++) {
        pos[i] = n_pos - rows + i;
        pairs += pos[i] + 1;
    }
    for (int i = 0; i < rows * heads * kv.dk; i++) q[i] = (float)(i % 97) / 97 - 0.5f;
    hd_attn_seq seq = {0, rows, pages};
    hd_attn a = {.kv = kv, .n_heads = heads, .scale = (float)(1 / sqrt(kv.dk)), .q = q, .pos = pos, .out = out, .seqs = &seq, .n_seqs = 1};
    hd_arena work;
    if (hd_arena_open(&work, "work", hd_attn_work_bytes(&a, hd_pool_threads(d->pool)), &err) != HD_OK) die(&err);
    for (int run = 0; run < 3 * LAYERS || (run < 400 && hd_now_s() - t0 < 0.4); run++) {
        seq.pages = pages + run % LAYERS * n_pages;
        double t = hd_now_s();
        hd_attn_run(d, &a, &work);
        t = hd_now_s() - t;
        if (t < best) best = t;
    }
    printf("%-14s %-4s rows %4d pos %6d  %9.1f us  %8.1f GFLOP/s  %6.2f GB/s\n", SHAPES[shape].name, TYPES[type], rows,
           n_pos, best * 1e6, pairs * heads * 2 * (kv.dk + kv.dv) / best * 1e-9, (double)page * n_pages / best * 1e-9);
    fflush(stdout);
    hd_arena_close(&work);
    hd_free_aligned(mem, all);
    free(pages);
    free(k);
    free(v);
    free(q);
    free(out);
    free(pos);
}

int main(int argc, char **argv)
{
    hd_err err;
    hd_dev d;
    if (hd_dev_open(&d, argc > 1 ? atoi(argv[1]) : 0, false, 64, &err) != HD_OK) die(&err);
    printf("level %s, %d threads\n", d.k->level, hd_pool_threads(d.pool));
    hd_cache_type types[] = {HD_CACHE_BF16, HD_CACHE_F16, HD_CACHE_Q8_0};
    for (int t = 0; t < 3; t++)
        for (int s = 0; s < (int)(sizeof SHAPES / sizeof *SHAPES); s++) {
            measure(&d, s, types[t], SHAPES[s].n_heads > 64 ? 64 : 512, 512);
            for (int n = 1024; n <= 16384; n *= 4) measure(&d, s, types[t], 1, n);
        }
    hd_dev_close(&d);
    return 0;
}
