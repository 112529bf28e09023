/* The way back's operations, and the products of the way forward, at shapes of training.
 *
 * A row of the table: G operations (bytes) per second of processor time, and for products the share of the
 * peak of this level's float multiply-add, measured in the same minute.  With oneDNN at hand (found when the
 * build is configured) its f32 and bf16 products of the same shapes stand beside ours; theirs leave out what
 * ours includes, rounding to bf16 and packing.  On one thread, so that processor time is the time of the work
 * whatever else runs.
 *   bench_back [M [REPEATS]]        HADAL_CPU=level */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "ops/back.h"
#include "peak.h"
#if defined HAVE_DNNL
#include <oneapi/dnnl/dnnl.h>
#endif

static hd_err err;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(hd_status st)
{
    if (st == HD_OK) return;
    fprintf(stderr, "back: %s\n", err.msg);
    exit(1);
}

static void *take(size_t bytes)
{
    void *p;
    must(hd_alloc_aligned(&p, bytes, &err)); // lives as long as the process
    return p;
}

static float *randoms(int64_t n)
{
    static hd_rng rng;
    float *x = take((size_t)n * sizeof *x);
    if (!rng.inc) hd_rng_seed(&rng, 1, 1);
    for (int64_t i = 0; i < n; i++) x[i] = (float)hd_rng_unit(&rng) - 0.5f;
    return x;
}

typedef struct {
    hd_dev dev;
    hd_arena work;
    int reps, M;
    double peak;
} bench;

typedef struct {
    bench *b;
    hd_linear w, back;
    hd_linear *list[1];
    int64_t n, k;
    float *x, *y, *dx, *dw;
} product;

typedef void work_fn(product *p);

static double seconds(work_fn *fn, product *p)
{
    double best = 1e9;
    for (int r = 0; r < p->b->reps; r++) {
        double t = now();
        fn(p);
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

static void forward(product *p) { hd_linear_mul(&p->b->dev, &p->w, p->x, p->k, p->b->M, p->y, p->n, &p->b->work); }
static void backward(product *p) { hd_linear_mul(&p->b->dev, &p->back, p->y, p->n, p->b->M, p->dx, p->k, &p->b->work); }
static void refresh(product *p) { hd_linear_refresh(&p->b->dev, p->list, 1); }
static void grad(product *p)
{
    hd_mm_grad j = {.x = hd_side_of(p->x, p->k), .dy = hd_side_of(p->y, p->n), .M = p->b->M, .n = p->n, .k = p->k, .dw = p->dw, .ldw = p->k,
                    .kind = p->w.kind->id};
    hd_mm_grad_run(&p->b->dev, &j, 1, &p->b->work);
}

static void bench_product(bench *b, int64_t n, int64_t k, hd_panel_id id)
{
    const hd_panel_kind *kind = hd_panel_get(id);
    product p = {.b = b, .n = n, .k = k, .x = randoms(b->M * k), .y = randoms(b->M * n), .dx = randoms(b->M * k), .dw = randoms(n * k)};
    p.w.src = (hd_rows){.type = HD_F32, .data = (const uint8_t *)randoms(n * k), .row_bytes = (size_t)k * 4, .n = n, .k = k};
    p.back.src = (hd_rows){.type = HD_F32, .n = k, .k = n};
    p.w.kind = p.back.kind = kind;
    p.w.panels = take(kind->bytes(k) * (size_t)((n + 31) / 32));
    p.back.panels = take(kind->bytes(n) * (size_t)((k + 31) / 32));
    p.w.back = &p.back;
    p.list[0] = &p.w;
    double ops = 2.0 * b->M * (double)n * (double)k, t = seconds(refresh, &p);
    printf("%-5s%6lld%6lld%8.1f", kind->name, (long long)n, (long long)k, 4.0 * (double)n * (double)k / t * 1e-9);
    work_fn *const fns[] = {forward, backward, grad};
    for (int i = 0; i < 3; i++) {
        t = seconds(fns[i], &p);
        printf("%7.0f (%3.0f%%)", ops / t * 1e-9, b->peak > 0 ? 100 * ops / t / b->peak : 0);
    }
}

#if defined HAVE_DNNL
static void dnnl_must(dnnl_status_t st)
{
    if (st == dnnl_success) return;
    fprintf(stderr, "back: oneDNN: status %d\n", (int)st);
    exit(1);
}

/* Seconds of C[M, N] = A B with A: [M, K], B: [K, N], either stored transposed. */
static double dnnl_product(bench *b, int64_t M, int64_t N, int64_t K, bool a_across, bool b_across, bool bf16)
{
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t md[3];
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t prim;
    dnnl_exec_arg_t args[3];
    dnnl_dims_t dims[3] = {{M, K}, {K, N}, {M, N}};
    const bool across[3] = {a_across, b_across, false};
    const int which[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    dnnl_must(dnnl_engine_create(&engine, dnnl_cpu, 0));
    dnnl_must(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    for (int i = 0; i < 3; i++) {
        dnnl_must(dnnl_memory_desc_init_by_tag(&md[i], 2, dims[i], i == 2 ? dnnl_f32 : type, across[i] ? dnnl_ba : dnnl_ab));
        args[i].arg = which[i];
        dnnl_must(dnnl_memory_create(&args[i].memory, &md[i], engine, randoms(dims[i][0] * dims[i][1])));
    }
    dnnl_must(dnnl_matmul_desc_init(&desc, &md[0], &md[1], NULL, &md[2]));
    dnnl_must(dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL));
    dnnl_must(dnnl_primitive_create(&prim, pd));
    double best = 1e9;
    for (int r = 0; r < b->reps; r++) {
        double t = now();
        dnnl_must(dnnl_primitive_execute(prim, stream, 3, args));
        dnnl_must(dnnl_stream_wait(stream));
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

static void peers(bench *b, int64_t n, int64_t k)
{
    double ops = 2.0 * b->M * (double)n * (double)k * 1e-9;
    for (int bf16 = 0; bf16 < 2; bf16++)
        printf("%6.0f %4.0f", ops / dnnl_product(b, b->M, n, k, false, true, bf16), ops / dnnl_product(b, n, k, b->M, true, false, bf16));
}
#else
static void peers(bench *b, int64_t n, int64_t k) {}
#endif

/* Attention of sequences of T rows, H heads over n_kv; operations counted as five products of a
 * full square, halved. */
static void bench_attention(bench *b, int H, int n_kv, int dk, int dv, bool v_in_k, int T)
{
    int n_seqs = b->M / T, len[n_seqs];
    int64_t rows = (int64_t)n_seqs * T;
    for (int i = 0; i < n_seqs; i++) len[i] = T;
    hd_attn_back a = {.kv = {.type = HD_CACHE_BF16, .n_kv = n_kv, .dk = dk, .dv = dv, .v_in_k = v_in_k}, .n_heads = H, .scale = 0.1f,
                      .q = randoms(rows * H * dk), .k = randoms(rows * n_kv * dk), .v = randoms(rows * n_kv * dv),
                      .out = randoms(rows * H * dv), .dout = randoms(rows * H * dv), .lse = randoms(rows * H),
                      .dq = randoms(rows * H * dk), .dk = randoms(rows * n_kv * dk), .dv = randoms(rows * n_kv * dv),
                      .len = len, .n_seqs = n_seqs};
    double ops = (double)n_seqs * H * T * T * (3.0 * dk + 2.0 * dv), best = 1e9;
    for (int r = 0; r < b->reps; r++) {
        double t = now();
        hd_attn_back_run(&b->dev, &a, &b->work);
        t = now() - t;
        best = t < best ? t : best;
    }
    printf("attention %3d / %d heads of %d / %d, %4d rows: %6.0f (%3.0f%%)\n", H, n_kv, dk, dv, T, ops / best * 1e-9,
           b->peak > 0 ? 100 * ops / best / b->peak : 0);
}

static void bench_rows(bench *b, int64_t V)
{
    int rows = 512;
    float *z = randoms(rows * V), loss[512], lse[512], *g = randoms(V), *dg = randoms(V), *dx = randoms(rows * V), *x = randoms(rows * V);
    int32_t target[512] = {0};
    double best[3] = {1e9, 1e9, 1e9}, bytes = 4.0 * rows * (double)V;
    for (int r = 0; r < b->reps; r++) {
        double t[4] = {now()};
        hd_xent_back(&b->dev, z, V, target, rows, V, 1, 0, loss, lse, NULL);
        t[1] = now();
        hd_rmsnorm_back(&b->dev, dx, V, true, dg, z, V, x, V, g, rows, V, 1e-5f, &b->work);
        t[2] = now();
        hd_swiglu_back(&b->dev, &(hd_swiglu_grad){.M = rows, .n = V, .gate = dx, .up = x, .da = z, .dgate = dx, .dup = x});
        t[3] = now();
        for (int i = 0; i < 3; i++) best[i] = t[i + 1] - t[i] < best[i] ? t[i + 1] - t[i] : best[i];
    }
    printf("rows of %5lld, GB/s read and written: cross-entropy %.1f, rmsnorm %.1f, silu %.1f\n", (long long)V, 2 * bytes / best[0] * 1e-9,
           4 * bytes / best[1] * 1e-9, 5 * bytes / best[2] * 1e-9);
}

int main(int argc, char **argv)
{
    static const int shapes[][2] = {{128, 128}, {256, 768}, {768, 256}, {768, 768}, {2048, 768}, {768, 2048}};
    bench b = {.M = argc > 1 ? atoi(argv[1]) : 4096, .reps = argc > 2 ? atoi(argv[2]) : 5};
    if (b.M < 512 || b.M > 65536 || b.reps < 1) {
        fprintf(stderr, "back: 512 to 65536 rows\n");
        return 2;
    }
    must(hd_dev_open(&b.dev, 1, false, 65536, &err));
    must(hd_arena_open(&b.work, "work", (size_t)512 << 20, &err));
    b.peak = peak_ops(b.dev.k->level, false, b.dev.pool);
    printf("level %s, %d rows, one thread: peak %.0f G operations/s\n", b.dev.k->level, b.M, b.peak * 1e-9);
    printf("panel    n     k  GB/s of      forward         dx           dW%s\n                masters\n",
#if defined HAVE_DNNL
           "      oneDNN f32: y, dW; bf16: y, dW"
#else
           ""
#endif
    );
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            bench_product(&b, shapes[i][0], shapes[i][1], f32 ? HD_PANEL_F32 : HD_PANEL_BF16);
            if (!f32) peers(&b, shapes[i][0], shapes[i][1]);
            printf("\n");
            fflush(stdout);
        }
    bench_attention(&b, 4, 4, 32, 32, false, 256);
    bench_attention(&b, 12, 4, 64, 64, false, 512);
    bench_attention(&b, 8, 1, 160, 128, true, 512);
    bench_rows(&b, 512);
    bench_rows(&b, 16384);
    hd_arena_close(&b.work);
    hd_dev_close(&b.dev);
    return 0;
}
