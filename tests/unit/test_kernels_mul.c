/* Panels and products: what is packed reads back as the file says; every level's product agrees with a sum in
 * double within a bound that the rounding steps give; and a row has the same bits alone, among others,
 * however they are split, on one thread and two, packed and not. */
#include <math.h>

#include "base/num.h"
#include "base/rng.h"
#include "kernels/panel.h"
#include "ops/ops.h"
#include "test.h"

static hd_err err;

/* Where a block of each format keeps its f16 numbers, which random bytes would make infinite. */
static const struct {
    hd_type type;
    int f16_at[2]; // -1: none
    float size;
} formats[] = {
    {HD_F32, {-1, -1}, 0},      {HD_F16, {-1, -1}, 0},      {HD_BF16, {-1, -1}, 0},   {HD_F8_E4M3, {-1, -1}, 0},
    {HD_Q8_0, {0, -1}, 0.002f}, {HD_Q4_0, {0, -1}, 0.03f},  {HD_Q4_1, {0, 2}, 0.03f}, {HD_Q5_0, {0, -1}, 0.01f},
    {HD_Q5_1, {0, 2}, 0.01f},   {HD_IQ4_NL, {0, -1}, 0.002f}, {HD_Q4_K, {0, 2}, 0.001f}, {HD_Q5_K, {0, 2}, 0.0005f},
    {HD_Q6_K, {208, -1}, 0.0001f}, {HD_Q2_K, {80, 82}, 0.01f},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static void *must_alloc(size_t n)
{
    void *p;
    if (hd_alloc_aligned(&p, n + 64, &err) != HD_OK) abort();
    return p;
}

/* A random matrix [n, k] in format i. */
static void make_rows(hd_rows *src, int i, int64_t n, int64_t k, hd_rng *rng)
{
    const hd_format *f = hd_format_get(formats[i].type);
    *src = (hd_rows){.type = f->type, .n = n, .k = k};
    CHECK(hd_format_row_bytes(f, k, &src->row_bytes));
    uint8_t *d = must_alloc(src->row_bytes * (size_t)n);
    src->data = d;
    if (f->type == HD_F8_E4M3) {
        src->f8_scale_ld = (k + 127) / 128 + 1;
        float *s = must_alloc((size_t)((n + 127) / 128 * src->f8_scale_ld) * 4);
        for (int64_t b = 0; b < (n + 127) / 128 * src->f8_scale_ld; b++) s[b] = 0.01f + (float)hd_rng_unit(rng);
        src->f8_scale = s;
    }
    for (int64_t r = 0; r < n; r++)
        for (int64_t e = 0; e < k / f->block; e++, d += f->bytes) {
            float v = hd_rng_normal(rng);
            uint16_t h;
            switch (f->type) {
            case HD_F32: memcpy(d, &v, 4); continue;
            case HD_F16: h = hd_f32_to_f16(v); memcpy(d, &h, 2); continue;
            case HD_BF16: h = hd_f32_to_bf16(v); memcpy(d, &h, 2); continue;
            default: break;
            }
            for (int b = 0; b < f->bytes; b++) d[b] = (uint8_t)hd_rng_u32(rng);
            if (f->type == HD_F8_E4M3 && (*d & 0x7f) == 0x7f) *d = 0x20; // NaN
            for (int a = 0; a < 2; a++)
                if (formats[i].f16_at[a] >= 0) {
                    h = hd_f32_to_f16(v * formats[i].size);
                    memcpy(d + formats[i].f16_at[a], &h, 2);
                    v = hd_rng_normal(rng);
                }
        }
}

static void free_rows(hd_rows *src)
{
    size_t scales = (size_t)((src->n + 127) / 128 * src->f8_scale_ld) * 4;
    hd_free_aligned((void *)(uintptr_t)src->data, src->row_bytes * (size_t)src->n + 64);
    if (src->f8_scale) hd_free_aligned((void *)(uintptr_t)src->f8_scale, scales + 64);
}

/* The file's own decoder, into out[n][k]. */
static void decode(double *out, const hd_rows *src)
{
    const hd_format *f = hd_format_get(src->type);
    float *row = must_alloc((size_t)src->k * 4);
    for (int64_t r = 0; r < src->n; r++) {
        const uint8_t *p = src->data + (size_t)r * src->row_bytes;
        if (src->f8_scale) for (int64_t i = 0; i < src->k; i++) row[i] = hd_f8e4m3_to_f32(p[i]);
        else f->dequant(row, p, src->k);
        for (int64_t i = 0; i < src->k; i++)
            out[r * src->k + i] = src->f8_scale
                ? (double)src->f8_scale[r / 128 * src->f8_scale_ld + i / 128] * row[i] : row[i];
    }
    hd_free_aligned(row, (size_t)src->k * 4 + 64);
}

/* The numbers that a blob stands for. */
static void blob_decode(double *x, hd_act_kind kind, const uint8_t *blob, int64_t k)
{
    int64_t kp = kind == HD_ACT_Q8K ? (k + 255) / 256 * 256 : (k + 63) / 64 * 64;
    int group = kind == HD_ACT_Q8K ? HD_Q8K_GROUP : 32;
    const float *scale = (const float *)(const void *)(blob + kp);
    for (int64_t i = 0; i < k; i++)
        x[i] = kind == HD_ACT_F32 || kind == HD_ACT_WIDE ? ((const float *)(const void *)blob)[i]
               : kind == HD_ACT_BF16 ? hd_bf16_to_f32(((const uint16_t *)(const void *)blob)[i])
                                     : (double)((const int8_t *)blob)[i] * scale[i / group];
}

static int64_t any_k(int i, int64_t k)
{
    int block = hd_format_get(formats[i].type)->block;
    return block == 1 ? k - 3 : (k + block - 1) / block * block;
}

static void test_pack_roundtrip(void)
{
    hd_rng rng;
    hd_rng_seed(&rng, 1, 1);
    for (int i = 0; i < N_FORMATS; i++) {
        int64_t n = 45, k = any_k(i, 300);
        hd_rows src;
        make_rows(&src, i, n, k, &rng);
        double *want = must_alloc((size_t)(n * k) * 8);
        decode(want, &src);
        bool resident;
        const hd_panel_kind *kind = hd_panel_for(src.type, &resident);
        size_t bytes = kind->bytes(k);
        uint8_t *panel = must_alloc(bytes);
        float *got = must_alloc((size_t)k * 128);
        if (hd_format_get(src.type)->block >= 32 && resident)
            CHECK((double)bytes <= 1.03 * 32 * (double)src.row_bytes, "%s: packed %zu", kind->name, bytes);
        int wrong = 0;
        for (int64_t p = 0; p < 2; p++) {
            memset(panel, 0xa5, bytes); // the padding must be written too
            kind->pack(panel, &src, p * 32);
            kind->unpack(got, panel, k);
            for (int64_t r = p * 32; r < p * 32 + 32; r++)
                for (int64_t e = 0; e < k; e++) {
                    double w = r < n ? want[r * k + e] : 0, g = got[e * 32 + r % 32];
                    wrong += !(fabs(w - g) <= 4e-7 * fabs(w) + 1e-9); // one rounding more or less
                }
        }
        CHECK(wrong == 0, "%s: %d values differ", hd_format_get(src.type)->name, wrong);
        hd_free_aligned(panel, bytes + 64);
        hd_free_aligned(got, (size_t)k * 128 + 64);
        hd_free_aligned(want, (size_t)(n * k) * 8 + 64);
        free_rows(&src);
    }
}

/* Packing activations: q within half a step, sums right, padding zero, and nothing undefined for
 * NaN or infinity. */
static void test_act(const hd_kernels *kn)
{
    enum { K = 333 };
    float x[K];
    double back[K];
    hd_rng rng;
    hd_rng_seed(&rng, 2, 2);
    for (int i = 0; i < K; i++) x[i] = i >= 64 && i < 96 ? 0 : hd_rng_normal(&rng) * (i % 50 ? 1 : 30);
    for (hd_act_kind kind = 0; kind < HD_N_ACT; kind++) {
        size_t n = hd_act_bytes(kind, K);
        uint8_t *blob = must_alloc(n);
        memset(blob, 0xa5, n);
        kn->act_pack(kind, blob, x, K);
        blob_decode(back, kind, blob, K);
        int group = kind == HD_ACT_Q8K ? HD_Q8K_GROUP : 32, wrong = 0;
        for (int i = 0; i < K; i++) {
            double top = 0;
            for (int j = i / group * group; j < K && j < (i / group + 1) * group; j++) top = fmax(top, fabs((double)x[j]));
            double tol = kind == HD_ACT_F32 ? 0 : kind == HD_ACT_BF16 || kind == HD_ACT_WIDE ? fabs((double)x[i]) * 0x1p-8 : top / 127 * 0.5001;
            wrong += fabs(back[i] - (double)x[i]) > tol;
        }
        CHECK(wrong == 0, "%s kind %d: %d numbers off", kn->level, kind, wrong);
        if (kind == HD_ACT_Q8 || kind == HD_ACT_Q8K) {
            int64_t kp = kind == HD_ACT_Q8K ? 512 : 384;
            const int8_t *q = (const int8_t *)blob;
            const float *scale = (const float *)(const void *)(blob + kp), *xsum = scale + kp / 32;
            const int16_t *s = (const int16_t *)(const void *)(scale + kp / group * (kind == HD_ACT_Q8 ? 2 : 1));
            wrong = 0;
            for (int step = kind == HD_ACT_Q8K ? 16 : 32; step <= 32; s += kp / step, step *= 2)
                for (int64_t b = 0; b < kp / step; b++) {
                    int sum = 0;
                    for (int e = 0; e < step; e++) sum += q[b * step + e];
                    wrong += sum != s[b];
                }
            for (int64_t e = K; e < kp; e++) wrong += q[e] != 0;
            s = (const int16_t *)(const void *)(xsum + kp / 32);
            for (int64_t b = 0; kind == HD_ACT_Q8 && b < kp / 32; b++) wrong += xsum[b] != scale[b] * (float)s[b];
            CHECK(wrong == 0, "%s kind %d: sums or padding", kn->level, kind);
        }
        float odd[K] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-40f};
        kn->act_pack(kind, blob, odd, K);
        hd_free_aligned(blob, n + 64);
    }
}

/* What the errors of a product are measured against: the sum of |w x|, scale and minimum apart, for
 * they may cancel. */
static void product_sizes(double size[32], const hd_panel_kind *kind, const uint8_t *panel, const float *w, const double *x,
                          int64_t k)
{
    hd_panel_block o;
    for (int r = 0; r < 32; r++) size[r] = 0;
    for (int64_t e = 0; e < k; e++) {
        if (kind->act >= HD_ACT_Q8 && e % 32 == 0) hd_panel_block_get(&o, kind->id, panel, e / 32);
        for (int r = 0; r < 32; r++) {
            double v = fabs((double)w[e * 32 + r]);
            if (kind->act >= HD_ACT_Q8)
                v = fabs((double)o.d[r] * o.sc[e % 32 / 16][r] * o.q[r][e % 32]) + fabs((double)o.dmin[r] * o.min[r]);
            size[r] += v * fabs(x[e]);
        }
    }
}

/* Roundings that one output can suffer, each at most 2^-24 of its size.  Floats: one for each of k additions,
 * in whatever order.  Integers are exact: two additions for a block of 32 or a group of 128 (scaled sum,
 * minimum) and a handful within it (conversion, d * scale, the minimum's own product).  4 more for the
 * weights as they were unpacked, fp8's scale. */
static double roundings(const hd_panel_kind *kind, int64_t k)
{
    if (kind->act < HD_ACT_Q8) return (double)k + 4;
    return 2 * (double)(kind->act == HD_ACT_Q8 ? k / 32 : k / HD_Q8K_GROUP) + 4 + 4;
}

/* One product of every panel kind against a sum in double over the same numbers. */
static void test_product(const hd_kernels *kn)
{
    enum { M = 3 };
    hd_rng rng;
    hd_rng_seed(&rng, 3, 3);
    for (int i = 0; i < N_FORMATS; i++) {
        bool resident;
        const hd_panel_kind *kind = hd_panel_for(formats[i].type, &resident);
        int64_t k = any_k(i, 672);
        hd_rows src;
        make_rows(&src, i, 32, k, &rng);
        size_t bytes = kind->bytes(k), stride = hd_act_bytes(kind->act, k), scratch_bytes = hd_mul_scratch_bytes(k);
        uint8_t *panel = must_alloc(bytes), *act = must_alloc(stride * M), *scratch = must_alloc(scratch_bytes);
        float *w = must_alloc((size_t)k * 128), x[2048], y[M * 40];
        kind->pack(panel, &src, 0);
        kind->unpack(w, panel, k);
        for (int m = 0; m < M; m++) {
            for (int64_t e = 0; e < k; e++) x[e] = hd_rng_normal(&rng);
            kn->act_pack(kind->act, act + stride * (size_t)m, x, k);
        }
        for (int r = 0; r < M * 40; r++) y[r] = 12345;
        kn->panel_mul[kind->id](panel, k, act, stride, M, y, 40, scratch);
        for (int m = 0; m < M; m++) {
            double xd[2048], size[32];
            int wrong = 0;
            blob_decode(xd, kind->act, act + stride * (size_t)m, k);
            product_sizes(size, kind, panel, w, xd, k);
            for (int r = 0; r < 32; r++) {
                double sum = 0, tol = roundings(kind, k) * 0x1p-24 * size[r];
                for (int64_t e = 0; e < k; e++) sum += (double)w[e * 32 + r] * xd[e];
                wrong += !(fabs(sum - (double)y[m * 40 + r]) <= tol);
            }
            for (int r = 32; r < 40; r++) wrong += y[m * 40 + r] != 12345;
            CHECK(wrong == 0, "%s %s row %d: %d outputs off", kn->level, kind->name, m, wrong);
        }
        hd_free_aligned(panel, bytes + 64);
        hd_free_aligned(act, stride * M + 64);
        hd_free_aligned(scratch, scratch_bytes + 64);
        hd_free_aligned(w, (size_t)k * 128 + 64);
        free_rows(&src);
    }
}

/* y[M, n] by one way of cutting; returns the number of words that differ from want. */
static int64_t differs(const float *y, const float *want, int64_t n)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) bad += hd_f32_bits(y[i]) != hd_f32_bits(want[i]);
    return bad;
}

static void test_same_bits(const hd_kernels *kn, bool exact)
{
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33, 47, 64, 70};
    enum { TOP = 70, N = 75, LDY = 80 };
    const size_t step = !strcmp(kn->level, "ref") ? 6 : exact ? 4 : 1; // plain C is slow; exact: one kernel, the F32 one
    hd_rng rng;
    hd_dev dev[2];
    hd_arena work;
    CHECK_OK(hd_arena_open(&work, "work", 8 << 20, &err));
    for (int t = 0; t < 2; t++) CHECK_OK(hd_dev_open(&dev[t], t + 1, exact, 2048, &err));
    for (int t = 0; t < 2; t++) dev[t].k = kn;
    hd_rng_seed(&rng, 4, 4);
    float *x = must_alloc(TOP * 1024 * 4), *want = must_alloc(TOP * LDY * 4), *y = must_alloc(TOP * LDY * 4);
    float bias[N];
    for (int i = 0; i < TOP * 1024; i++) x[i] = hd_rng_normal(&rng);
    for (int i = 0; i < N; i++) bias[i] = hd_rng_normal(&rng);
    for (int i = 0; i < N_FORMATS; i++) {
        int64_t k = any_k(i, 608);
        hd_rows src;
        hd_linear bare, packed;
        make_rows(&src, i, N, k, &rng);
        hd_linear_init(&bare, &src);
        bare.bias = bias;
        packed = bare;
        size_t bytes = hd_linear_packed_bytes(&src);
        uint8_t *panels = must_alloc(bytes);
        if (bytes) hd_linear_pack(&dev[1], &packed, panels);
        for (int m = 0; m < TOP; m++) hd_linear_mul(&dev[0], &packed, x + m * 1024, 1024, 1, want + m * LDY, LDY, &work);
        int64_t bad = 0;
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c += step)
            for (int way = 0; way < 4; way++) {
                int M = counts[c], m0 = TOP - M;
                memset(y, 0, TOP * LDY * 4);
                hd_linear_mul(&dev[way & 1], way & 2 ? &bare : &packed, x + m0 * 1024, 1024, M, y, LDY, &work);
                bad += differs(y, want + m0 * LDY, (int64_t)M * LDY);
            }
        CHECK(bad == 0, "%s %s%s: %lld words differ", kn->level, hd_format_get(src.type)->name, exact ? " exact" : "",
              (long long)bad);
        hd_free_aligned(panels, bytes + 64);
        free_rows(&src);
    }
    hd_free_aligned(x, TOP * 1024 * 4 + 64);
    hd_free_aligned(want, TOP * LDY * 4 + 64);
    hd_free_aligned(y, TOP * LDY * 4 + 64);
    for (int t = 0; t < 2; t++) hd_dev_close(&dev[t]);
    hd_arena_close(&work);
}

/* A prompt's worth of rows, more than a kernel takes in one pass: some of them against the row alone. */
static void test_many_rows(const hd_kernels *kn)
{
    enum { M = 1030, N = 33, TOP_K = 1024 };
    hd_rng rng;
    hd_dev d;
    hd_arena work;
    CHECK_OK(hd_arena_open(&work, "work", 8 << 20, &err));
    CHECK_OK(hd_dev_open(&d, 2, false, TOP_K, &err));
    d.k = kn;
    hd_rng_seed(&rng, 6, 6);
    float *x = must_alloc(M * TOP_K * 4), *y = must_alloc(M * N * 4), want[N];
    for (int i = 0; i < M * TOP_K; i++) x[i] = (float)hd_rng_unit(&rng) - 0.5f;
    for (int i = 0; i < N_FORMATS; i++) {
        hd_rows src;
        hd_linear w;
        int64_t bad = 0;
        make_rows(&src, i, N, any_k(i, 544), &rng);
        hd_linear_init(&w, &src);
        for (int m = strcmp(kn->level, "ref") ? M : 300; m > 250; // plain C is slow, and has no passes
              m = m * 2 / 3 - 1) {
            hd_linear_mul(&d, &w, x, TOP_K, m, y, N, &work);
            for (int r = m % 7; r < m; r += 51) {
                hd_linear_mul(&d, &w, x + r * TOP_K, TOP_K, 1, want, N, &work);
                bad += differs(y + r * N, want, N);
            }
        }
        CHECK(bad == 0, "%s %s: %lld words differ", kn->level, hd_format_get(src.type)->name, (long long)bad);
        free_rows(&src);
    }
    hd_free_aligned(x, M * TOP_K * 4 + 64);
    hd_free_aligned(y, M * N * 4 + 64);
    hd_dev_close(&d);
    hd_arena_close(&work);
}

/* Several jobs of different widths in one region, as the experts of a layer are run: so few panels that each is
 * a chunk, and so many that chunks of several lengths end in the middle of a job. */
static void test_jobs(int threads, const int *width)
{
    enum { K = 256, JOBS = 5, ROWS = 48, LDY = 904 };
    hd_rng rng;
    hd_dev d;
    hd_arena work;
    hd_mm jobs[JOBS];
    hd_linear w[JOBS];
    hd_act act;
    CHECK_OK(hd_arena_open(&work, "work", 8 << 20, &err));
    CHECK_OK(hd_dev_open(&d, threads, false, K, &err));
    hd_rng_seed(&rng, 5, 5);
    float *x = must_alloc(ROWS * K * 4), *y = must_alloc(JOBS * ROWS * LDY * 4), *want = must_alloc(ROWS * LDY * 4);
    for (int i = 0; i < ROWS * K; i++) x[i] = hd_rng_normal(&rng);
    hd_act_init(&act, HD_ACT_Q8K, K, ROWS, &work);
    hd_act_pack(&d, &act, x, K);
    for (int j = 0; j < JOBS; j++) {
        hd_rows src;
        make_rows(&src, 10, width[j], K, &rng);
        hd_linear_init(&w[j], &src);
        jobs[j] = (hd_mm){.w = &w[j], .act = &act, .m0 = 3 * j, .M = j == 2 ? 0 : 7 * j + 1, .y = y + j * ROWS * LDY, .ldy = LDY};
    }
    hd_mm_run(&d, jobs, JOBS);
    for (int j = 0; j < JOBS; j++) {
        memset(want, 0, ROWS * LDY * 4);
        for (int m = 0; m < jobs[j].M; m++) hd_linear_mul(&d, &w[j], x + (jobs[j].m0 + m) * K, K, 1, want + m * LDY, LDY, &work);
        CHECK(differs(jobs[j].y, want, ROWS * LDY) == 0, "job %d, %d threads", j, threads);
        free_rows(&w[j].src);
    }
    hd_free_aligned(x, ROWS * K * 4 + 64);
    hd_free_aligned(y, JOBS * ROWS * LDY * 4 + 64);
    hd_free_aligned(want, ROWS * LDY * 4 + 64);
    hd_dev_close(&d);
    hd_arena_close(&work);
}

/* Rows that lie apart, and in another order, get the bits of those that lie behind each other, and nothing
 * beside them is written. */
static void test_apart(const hd_kernels *kn)
{
    static const hd_type types[] = {HD_BF16, HD_Q8_0, HD_Q4_K, HD_F32};
    static const int rows[] = {1, 2, 16, 70, 130};
    enum { K = 256, N = 605, TOP = 130, LD = N + 3 };
    hd_rng rng;
    hd_dev d;
    hd_arena work;
    CHECK_OK(hd_arena_open(&work, "work", 8 << 20, &err));
    CHECK_OK(hd_dev_open(&d, 2, false, K, &err));
    d.k = kn;
    hd_rng_seed(&rng, 6, 6);
    float *x = must_alloc(TOP * K * 4), *y = must_alloc(TOP * N * 4), *apart = must_alloc(TOP * LD * 4), *to[TOP];
    for (int i = 0; i < TOP * K; i++) x[i] = hd_rng_normal(&rng);
    for (int m = 0; m < TOP; m++) to[m] = apart + (m * 7 % TOP) * LD;
    for (int c = 0; c < 4; c++)
        for (int packed = 0; packed < 2; packed++) {
            hd_rows src;
            hd_linear w;
            int f = 0;
            int64_t bad = 0;
            while (formats[f].type != types[c]) f++;
            make_rows(&src, f, N, K, &rng);
            hd_linear_init(&w, &src);
            const size_t bytes = hd_linear_packed_bytes(&src);
            uint8_t *panels = must_alloc(bytes + 64);
            if (packed && bytes) hd_linear_pack(&d, &w, panels);
            for (int r = 0; r < 5; r++) {
                const int M = rows[r];
                size_t mark = work.used;
                hd_act act;
                hd_act_init(&act, hd_linear_act(&d, &w), K, M, &work);
                hd_act_pack(&d, &act, x, K);
                for (int i = 0; i < TOP * LD; i++) apart[i] = 12345;
                const hd_mm plain = {.w = &w, .act = &act, .M = M, .y = y, .ldy = N}, job = {.w = &w, .act = &act, .M = M, .rows = to};
                hd_mm_run(&d, &plain, 1);
                hd_mm_run(&d, &job, 1);
                for (int m = 0; m < TOP; m++) {
                    if (m < M) bad += differs(to[m], y + m * N, N);
                    for (int i = m < M ? N : 0; i < LD; i++) bad += to[m][i] != 12345;
                }
                work.used = mark;
            }
            CHECK(bad == 0, "%s %s%s: %lld words differ", kn->level, hd_format_get(src.type)->name, packed ? " packed" : "", (long long)bad);
            hd_free_aligned(panels, bytes + 128);
            free_rows(&src);
        }
    hd_free_aligned(x, TOP * K * 4 + 64);
    hd_free_aligned(y, TOP * N * 4 + 64);
    hd_free_aligned(apart, TOP * LD * 4 + 64);
    hd_dev_close(&d);
    hd_arena_close(&work);
}

static void furthest(const float *y, const float *want, int64_t n, double *far, double *size)
{
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)y[i] - want[i]), w = fabs(want[i]);
        if (!(d <= *far)) *far = d; // a NaN is far
        if (w > *size) *size = w;
    }
}

/* Sums of terms, each of a kind of its own, begun with zero or with what is there: near the products one by
 * one, and the same bits by one thread or two, packed or not, in whole batches or in two. */
static void test_sum(const hd_kernels *kn)
{
    static const hd_type types[][3] = {{HD_BF16, HD_BF16, HD_BF16}, {HD_F32, HD_Q8_0, HD_BF16}, {HD_BF16, HD_F32, HD_F32}};
    static const int k[] = {344, 96, 70}, rows[] = {1, 2, 33, 65, 130};
    enum { TERMS = 3, N = 107, TOP = 130, LD = 350, LDY = 120 };
    hd_rng rng;
    hd_dev dev[2];
    hd_arena work;
    CHECK_OK(hd_arena_open(&work, "work", 8 << 20, &err));
    for (int t = 0; t < 2; t++) CHECK_OK(hd_dev_open(&dev[t], t + 1, false, LD, &err));
    hd_rng_seed(&rng, 7, 7);
    float *x = must_alloc(TERMS * TOP * LD * 4), *want = must_alloc(TOP * LDY * 4), *part = must_alloc(TOP * LDY * 4), *y = must_alloc(TOP * LDY * 4);
    for (int i = 0; i < TERMS * TOP * LD; i++) x[i] = hd_rng_normal(&rng);
    for (int c = 0; c < 3; c++)
        for (int wide = 0; wide <= (kn->wide_mul != NULL); wide++) {
            hd_linear packed[TERMS], bare[TERMS];
            uint8_t *panels[TERMS];
            size_t bytes[TERMS];
            double far = 0, size = 0;
            int64_t bad = 0;
            for (int t = 0; t < 2; t++) dev[t].k = kn, dev[t].wide = wide;
            for (int t = 0; t < TERMS; t++) {
                hd_rows src;
                int f = 0;
                while (formats[f].type != types[c][t]) f++;
                make_rows(&src, f, N, types[c][t] == HD_Q8_0 ? 96 : k[t], &rng);
                hd_linear_init(&packed[t], &src);
                bare[t] = packed[t];
                bytes[t] = packed[t].kind->bytes(src.k) * ((N + 31) / 32);
                panels[t] = must_alloc(bytes[t]);
                for (int p = 0; p < (N + 31) / 32; p++) packed[t].kind->pack(panels[t] + (size_t)p * packed[t].kind->bytes(src.k), &src, p * 32);
                packed[t].panels = panels[t];
            }
            for (int r = 0; r < 5; r++)
                for (int add = 0; add < 2; add++) {
                    const int M = rows[r];
                    for (int i = 0; i < M * LDY; i++) want[i] = add ? 0.25f * (float)(i % 7) : 0;
                    for (int t = 0; t < TERMS; t++) {
                        hd_linear_mul(&dev[0], &packed[t], x + t * TOP * LD, LD, M, part, LDY, &work);
                        for (int m = 0; m < M; m++)
                            for (int n = 0; n < N; n++) want[m * LDY + n] += part[m * LDY + n];
                    }
                    for (int way = 0; way < 6; way++) { // way 4 and 5: two batches
                        const hd_linear *w = way & 2 ? bare : packed;
                        const int half = way > 3 ? M / 2 : M;
                        for (int i = 0; i < M * LDY; i++) y[i] = add ? 0.25f * (float)(i % 7) : i % LDY < N ? NAN : 0;
                        for (int m0 = 0; m0 < M; m0 += half > 0 ? half : M) {
                            hd_term term[TERMS];
                            for (int t = 0; t < TERMS; t++) term[t] = (hd_term){&w[t], x + (t * TOP + m0) * LD, LD};
                            hd_linear_sum(&dev[way & 1], term, TERMS, half > 0 && M - m0 > half ? half : M - m0, y + m0 * LDY, LDY, add, &work);
                        }
                        if (way == 0) {
                            furthest(y, want, M * LDY, &far, &size);
                            memcpy(part, y, (size_t)(M * LDY) * 4);
                        }
                        bad += differs(y, part, M * LDY);
                    }
                }
            CHECK(far < 1e-5 * size && bad == 0, "%s, terms %d%s: %g of %g, %lld words differ", kn->level, c, wide ? " wide" : "", far, size, (long long)bad);
            for (int t = 0; t < TERMS; t++) {
                hd_free_aligned(panels[t], bytes[t] + 64);
                free_rows(&packed[t].src);
            }
        }
    hd_free_aligned(x, TERMS * TOP * LD * 4 + 64);
    hd_free_aligned(want, TOP * LDY * 4 + 64);
    hd_free_aligned(part, TOP * LDY * 4 + 64);
    hd_free_aligned(y, TOP * LDY * 4 + 64);
    for (int t = 0; t < 2; t++) hd_dev_close(&dev[t]);
    hd_arena_close(&work);
}

static void test_levels(void)
{
    const hd_kernels *k = NULL;
    CHECK(hd_kernels_at(0) && !strcmp(hd_kernels_at(0)->level, "ref"));
    for (int i = 0; hd_kernels_at(i); i++) {
        setenv("HADAL_CPU", hd_kernels_at(i)->level, 1);
        CHECK_OK(hd_kernels_get(&k, &err));
        CHECK(k == hd_kernels_at(i));
        for (int p = 0; p < HD_N_PANEL; p++)
            CHECK(k->panel_mul[p] != NULL || (p == HD_PANEL_BF12 && !k->bf12_pack), "%s panel %d", k->level, p);
    }
    setenv("HADAL_CPU", "abacus", 1);
    CHECK(hd_kernels_get(&k, &err) == HD_USAGE && strstr(err.msg, "abacus") && strstr(err.msg, " ref"));
    unsetenv("HADAL_CPU");
    CHECK_OK(hd_kernels_get(&k, &err));
    hd_dev d;
    CHECK(hd_dev_open(&d, 1, false, INT64_MAX, &err) == HD_UNSUPPORTED);
}

/* A blob reads back as what was packed, within half a step of its kind. */
static void test_act_unpack(const hd_kernels *kn)
{
    static const int64_t widths[] = {32, 64, 96, 256, 320, 576, 2048};
    float x[2048], y[2048];
    uint8_t *blob = must_alloc(hd_act_bytes(HD_ACT_F32, 2048));
    hd_rng rng;
    hd_rng_seed(&rng, 5, 0);
    for (int w = 0; w < 7; w++)
        for (int kind = 0; kind < HD_N_ACT; kind++) {
            int64_t k = widths[w], group = kind == HD_ACT_Q8K ? HD_Q8K_GROUP : 32;
            int far = 0;
            if (kind == HD_ACT_Q8K && k % 256 != 0) continue;
            for (int64_t i = 0; i < k; i++) x[i] = hd_rng_normal(&rng) * (float)(1 + i % 7);
            kn->act_pack((hd_act_kind)kind, blob, x, k);
            hd_act_unpack((hd_act_kind)kind, blob, y, k);
            for (int64_t i = 0; i < k; i++) {
                float most = 0, step = kind == HD_ACT_BF16 || kind == HD_ACT_WIDE ? fabsf(x[i]) / 256 : 0;
                for (int64_t j = i / group * group; j < k && j < (i / group + 1) * group; j++)
                    most = fmaxf(most, fabsf(x[j]));
                if (kind == HD_ACT_Q8 || kind == HD_ACT_Q8K) step = most / 127 * 0.50001f;
                far += fabsf(x[i] - y[i]) > step;
            }
            CHECK(far == 0, "%s kind %d width %d: %d numbers", kn->level, kind, (int)k, far);
        }
    hd_free_aligned(blob, hd_act_bytes(HD_ACT_F32, 2048) + 64);
}

/* bf16 weights of k by 32 with what real ones have, and what makes bf12's list long: `far` numbers of any
 * size, zeros, numbers below 2^-126. */
static void make_weights(uint16_t *w, int k, int far, hd_rng *rng)
{
    for (int j = 0; j < 32 * k; j++) w[j] = hd_f32_to_bf16(hd_rng_normal(rng) * 0.02f);
    for (int j = 0; j < k; j++) w[hd_rng_u32(rng) % (uint32_t)(32 * k)] = (uint16_t)(hd_rng_u32(rng) & 0x807f); // exponent 0
    for (int j = 0; j < far; j++)
        w[hd_rng_u32(rng) % (uint32_t)(32 * k)] = hd_f32_to_bf16(ldexpf(hd_rng_normal(rng), (int)(hd_rng_u32(rng) % 200) - 100));
}

static hd_rows rows_of(const uint16_t *w, int n, int k)
{
    return (hd_rows){.type = HD_BF16, .data = (const uint8_t *)w, .row_bytes = (size_t)k * 2, .n = n, .k = k};
}

/* bf12 reads back as the very numbers, or says that it cannot hold them. */
static void test_bf12(const hd_kernels *kn)
{
    enum { K = 150 };
    static const struct {
        int far;
        bool fits;
    } cases[] = {{0, true}, {15, true}, {30, true}, {900, false}};
    const hd_panel_kind *wide = hd_panel_get(HD_PANEL_BF16), *kind = hd_panel_get(HD_PANEL_BF12);
    uint16_t w[32 * K];
    hd_rng rng;
    if (!kn->bf12_pack) return;
    uint8_t *a = must_alloc(wide->bytes(K)), *b = must_alloc(kind->bytes(K));
    float *x = must_alloc(K * 128), *y = must_alloc(K * 128);
    CHECK(kind->bytes(4096) * 4 < wide->bytes(4096) * 3 + wide->bytes(4096) / 15);
    for (int i = 0; i < 4; i++)
        for (int n = 32; n > 0; n -= 13) {
            hd_rng_seed(&rng, 31, (uint64_t)i);
            make_weights(w, K, cases[i].far, &rng);
            hd_rows src = rows_of(w, n, K);
            memset(b, 0xa5, kind->bytes(K)); // the padding must be written too
            bool fits = kn->bf12_pack(b, &src, 0);
            CHECK(fits == cases[i].fits, "%s: %d far", kn->level, cases[i].far);
            if (!fits) continue;
            wide->pack(a, &src, 0);
            wide->unpack(x, a, K);
            kind->unpack(y, b, K);
            CHECK(differs(x, y, K * 32) == 0, "%s: %d far, %d rows", kn->level, cases[i].far, n);
            CHECK(cases[i].far == 0 || n < 32 || b[BF12_COUNT] > 0, "numbers are listed");
        }
    hd_rng_seed(&rng, 32, 0);
    make_weights(w, K, 0, &rng);
    w[7] = 0x7fc0; // NaN, minus infinity: listed, as other far ones
    w[9] = 0xff80;
    hd_rows src = rows_of(w, 32, K);
    CHECK(kn->bf12_pack(b, &src, 0));
    wide->pack(a, &src, 0);
    wide->unpack(x, a, K);
    kind->unpack(y, b, K);
    CHECK(differs(x, y, K * 32) == 0 && isnan(y[7 * 32]) && isinf(y[9 * 32]));
    for (int j = 0; j < 32 * K; j++) w[j] = (uint16_t)(j % 2 ? 0x8000 : 0);
    CHECK(kn->bf12_pack(b, &src, 0));
    kind->unpack(y, b, K);
    int wrong = 0;
    for (int j = 0; j < 32 * K; j++) wrong += y[j] != 0 || !signbit(y[j]) != !(j / 32 % 2);
    CHECK(wrong == 0, "%d zeros have the wrong sign", wrong);
    hd_free_aligned(a, wide->bytes(K) + 64);
    hd_free_aligned(b, kind->bytes(K) + 64);
    hd_free_aligned(x, K * 128 + 64);
    hd_free_aligned(y, K * 128 + 64);
}

/* 32 random rows of fp8 in place of those of bf16. */
static hd_rows f8_rows_of(uint16_t *w, float *scale, int k, hd_rng *rng)
{
    uint8_t *bytes = (uint8_t *)w;
    for (int j = 0; j < 32 * k; j++) {
        bytes[j] = (uint8_t)hd_rng_u32(rng);
        if ((bytes[j] & 0x7f) == 0x7f) bytes[j] = 0; // NaN
    }
    for (int b = 0; b < (k + 127) / 128; b++) scale[b] = 0.01f + (float)hd_rng_unit(rng);
    return (hd_rows){.type = HD_F8_E4M3, .data = bytes, .row_bytes = (size_t)k, .n = 32, .k = k, .f8_scale = scale, .f8_scale_ld = (k + 127) / 128};
}

/* Several panels by several rows at once give the bits of one panel and one row at a time; those of bf12
 * the bits of bf16. */
static void test_panels_together(const hd_kernels *kn, hd_panel_id id)
{
    enum { N = 3, MAX_M = 130, MAX_K = 1850 };
    static const int rows[] = {1, 2, 3, 8, 9, 12, 16, 17, 64, 65, 127, MAX_M}, widths[] = {1, 2, 70, 256, 515, MAX_K};
    const hd_panel_id single = id == HD_PANEL_F8 ? HD_PANEL_F8 : HD_PANEL_BF16;
    const hd_panel_kind *wide = hd_panel_get(single), *kind = hd_panel_get(id);
    if (!kn->panels_mul[id]) return;
    size_t bytes = wide->bytes(MAX_K) * N, blob = hd_act_bytes(HD_ACT_BF16, MAX_K);
    uint8_t *panels = must_alloc(bytes), *together = must_alloc(bytes + kind->bytes(MAX_K)), *act = must_alloc(blob * MAX_M);
    uint8_t *scratch = must_alloc(hd_mul_scratch_bytes(MAX_K));
    float x[MAX_K], scale[MAX_K / 128 + 1], *one = (float *)(void *)must_alloc(MAX_M * N * 32 * 4), *many = (float *)(void *)must_alloc(MAX_M * N * 32 * 4);
    uint16_t w[32 * MAX_K];
    hd_rng rng;
    hd_rng_seed(&rng, 9, 1);
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        int k = widths[i], bad = 0;
        size_t step = wide->bytes(k), stride = hd_act_bytes(HD_ACT_BF16, k);
        for (int p = 0; p < N; p++) {
            make_weights(w, k, k / 64 * 5, &rng);
            hd_rows src = id == HD_PANEL_F8 ? f8_rows_of(w, scale, k, &rng) : rows_of(w, 32, k);
            wide->pack(panels + (size_t)p * step, &src, 0);
            if (id == HD_PANEL_BF12) CHECK(kn->bf12_pack(together + (size_t)p * kind->bytes(k), &src, 0));
            else kind->pack(together + (size_t)p * kind->bytes(k), &src, 0);
        }
        for (int m = 0; m < MAX_M; m++) {
            for (int j = 0; j < k; j++) x[j] = hd_rng_normal(&rng);
            kn->act_pack(HD_ACT_BF16, act + (size_t)m * stride, x, k);
        }
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            for (int p = 0; p < N; p++)
                for (int m = 0; m < rows[r]; m++)
                    kn->panel_mul[single](panels + (size_t)p * step, k, act + (size_t)m * stride, stride, 1,
                                          one + (m * N + p) * 32, 32 * N, scratch);
            kn->panels_mul[id](together, kind->bytes(k), N, k, act, stride, rows[r], many, 32 * N, false, scratch, together);
            CHECK(memcmp(one, many, (size_t)rows[r] * N * 32 * 4) == 0, "%s %s: %d rows, k %d", kn->level, kind->name, rows[r], k);
            for (int p = 0; p < N; p++) {
                kn->panel_mul[id](together + (size_t)p * kind->bytes(k), k, act, stride, rows[r], many, 32, scratch);
                for (int m = 0; m < rows[r]; m++) bad += memcmp(one + (m * N + p) * 32, many + m * 32, 32 * 4) != 0;
            }
        }
        CHECK(bad == 0, "%s %s: %d rows alone, k %d", kn->level, kind->name, bad, k);
    }
    hd_free_aligned(panels, bytes + 64);
    hd_free_aligned(together, bytes + kind->bytes(MAX_K) + 64);
    hd_free_aligned(act, blob * MAX_M + 64);
    hd_free_aligned(scratch, hd_mul_scratch_bytes(MAX_K) + 64);
    hd_free_aligned(one, MAX_M * N * 32 * 4 + 64);
    hd_free_aligned(many, MAX_M * N * 32 * 4 + 64);
}

/* Rows packed wide are the numbers of bf16, whatever they were, and their products have
 * the bits of bf16's. */
static void test_wide(const hd_kernels *kn)
{
    enum { MAX_M = 130, MAX_K = 515 };
    static const int rows[] = {1, 2, 9, 16, 17, 64, MAX_M}, widths[] = {1, 2, 70, 256, 257, 344, MAX_K};
    static const float odd[] = {NAN, -NAN, INFINITY, -INFINITY, 3.4e38f, -0.0f, 0x1p-140f, 0x1.01p0f, 0x1.03p0f};
    const hd_panel_kind *kind = hd_panel_get(HD_PANEL_BF16);
    uint8_t *panel = must_alloc(kind->bytes(MAX_K)), *act = must_alloc(hd_act_bytes(HD_ACT_BF16, MAX_K) * MAX_M);
    uint8_t *wide = must_alloc(hd_act_bytes(HD_ACT_WIDE, MAX_K) * MAX_M), *scratch = must_alloc(hd_mul_scratch_bytes(MAX_K));
    float x[MAX_K], a[MAX_K], b[MAX_K], *y = (float *)(void *)must_alloc(MAX_M * 40 * 4), *z = (float *)(void *)must_alloc(MAX_M * 40 * 4);
    uint16_t w[32 * MAX_K];
    hd_rng rng;
    hd_rng_seed(&rng, 12, 1);
    for (int j = 0; j < MAX_K; j++) x[j] = j % 3 ? hd_rng_normal(&rng) : odd[j / 3 % 9];
    kn->act_pack(HD_ACT_BF16, act, x, MAX_K);
    kn->act_pack(HD_ACT_WIDE, wide, x, MAX_K);
    hd_act_unpack(HD_ACT_BF16, act, a, MAX_K);
    hd_act_unpack(HD_ACT_WIDE, wide, b, MAX_K);
    CHECK(memcmp(a, b, sizeof a) == 0, "%s", kn->level);
    for (int i = 0; i < 7 && kn->wide_mul; i++) {
        int k = widths[i];
        size_t sa = hd_act_bytes(HD_ACT_BF16, k), sw = hd_act_bytes(HD_ACT_WIDE, k);
        make_weights(w, k, k / 64 * 5, &rng);
        hd_rows src = rows_of(w, 32, k);
        kind->pack(panel, &src, 0);
        for (int m = 0; m < MAX_M; m++) {
            for (int j = 0; j < k; j++) x[j] = hd_rng_normal(&rng);
            kn->act_pack(HD_ACT_BF16, act + (size_t)m * sa, x, k);
            kn->act_pack(HD_ACT_WIDE, wide + (size_t)m * sw, x, k);
        }
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            memset(y, 0x55, MAX_M * 40 * 4), memset(z, 0x55, MAX_M * 40 * 4);
            kn->panel_mul[HD_PANEL_BF16](panel, k, act, sa, rows[r], y, 40, scratch);
            kn->wide_mul(panel, k, wide, sw, rows[r], z, 40, false, scratch);
            CHECK(memcmp(y, z, MAX_M * 40 * 4) == 0, "%s: %d rows, k %d", kn->level, rows[r], k);
        }
    }
    hd_free_aligned(panel, kind->bytes(MAX_K) + 64);
    hd_free_aligned(act, hd_act_bytes(HD_ACT_BF16, MAX_K) * MAX_M + 64);
    hd_free_aligned(wide, hd_act_bytes(HD_ACT_WIDE, MAX_K) * MAX_M + 64);
    hd_free_aligned(scratch, hd_mul_scratch_bytes(MAX_K) + 64);
    hd_free_aligned(y, MAX_M * 40 * 4 + 64);
    hd_free_aligned(z, MAX_M * 40 * 4 + 64);
}

/* HADAL_TEST_SMALL=1, for emulators: the bits of plain C are left to others. */
int main(void)
{
    const bool small = getenv("HADAL_TEST_SMALL") && *getenv("HADAL_TEST_SMALL");
    test_levels();
    test_pack_roundtrip();
    for (int i = 0; hd_kernels_at(i); i++) {
        test_act(hd_kernels_at(i));
        test_act_unpack(hd_kernels_at(i));
        test_bf12(hd_kernels_at(i));
        test_wide(hd_kernels_at(i));
        test_panels_together(hd_kernels_at(i), HD_PANEL_BF16);
        test_panels_together(hd_kernels_at(i), HD_PANEL_BF12);
        test_panels_together(hd_kernels_at(i), HD_PANEL_F8);
        test_product(hd_kernels_at(i));
        test_sum(hd_kernels_at(i));
        test_apart(hd_kernels_at(i));
        if (i == 0 && small) continue;
        test_same_bits(hd_kernels_at(i), false);
        test_same_bits(hd_kernels_at(i), true);
        test_many_rows(hd_kernels_at(i));
    }
    for (int threads = 1; threads <= 3; threads++) {
        test_jobs(threads, (const int[]){20, 43, 66, 89, 112});
        test_jobs(threads, (const int[]){20, 700, 66, 904, 610});
    }
    return hd_test_end();
}
