/* Attention: every cache type and CPU level against plain sums in double over what the cache holds; then the
 * same bits for any slice, batch, neighbour and number of threads.
 *
 * By default the odd shapes and fewer lengths; HADAL_TEST_FULL=1 adds the shapes of real models and every
 * length at every level (plain C alone takes half a minute for those).
 * HADAL_TEST_SMALL=1, for emulators: two shapes, and the bits of plain C are left to others. */
#include <float.h>
#include <math.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "ops/attn.h"
#include "test.h"

enum { MAX_POS = 1200 };
static hd_err err;
static bool full, small; // HADAL_TEST_FULL, HADAL_TEST_SMALL

typedef struct {
    const char *name;
    int n_heads, n_kv, dk, dv;
    bool v_in_k;
    bool small; // one of the quick set
} shape_case;

static const shape_case SHAPES[] = {
    {"smollm2", 9, 3, 64, 64, false, false}, {"qwen2", 14, 2, 64, 64, false, false},
    {"wide", 6, 1, 128, 128, false, false},  {"expanded", 2, 2, 192, 128, false, false},
    {"odd", 4, 2, 22, 37, false, true},      {"even", 2, 2, 96, 64, false, true},
    {"latent", 16, 1, 96, 64, true, false},  {"v2", 20, 1, 576, 512, true, false},
    {"few", 3, 1, 96, 64, true, true},       {"odd latent", 2, 1, 41, 35, true, true},
};

static bool wanted(const shape_case *c) { return full || (c->small && (!small || strstr(c->name, "odd"))); }

/* One sequence: its own pages, and queries for every position. */
typedef struct {
    hd_kv_shape kv;
    int n_heads, len;
    uint8_t *mem, **pages;
    size_t page_bytes;
    float *q; // [len, n_heads, dk]
} seq;

static void seq_open(seq *s, const shape_case *c, hd_cache_type type, int len, uint64_t seed)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 1);
    *s = (seq){.kv = {type, c->n_kv, c->dk, c->dv, c->v_in_k}, .n_heads = c->n_heads, .len = len};
    int n_pages = (len + HD_PAGE_TOK - 1) / HD_PAGE_TOK;
    s->page_bytes = hd_kv_page_bytes(&s->kv);
    CHECK_OK(hd_alloc_aligned(&s->mem, s->page_bytes * (size_t)n_pages, &err));
    s->pages = malloc((size_t)n_pages * sizeof *s->pages);
    for (int i = 0; i < n_pages; i++) s->pages[i] = s->mem + s->page_bytes * (size_t)i;
    s->q = malloc((size_t)len * (size_t)(c->n_heads * c->dk) * 4);
    for (int i = 0; i < len * c->n_heads * c->dk; i++) s->q[i] = hd_rng_normal(&r);
    float *k = malloc((size_t)(c->n_kv * c->dk) * 4), *v = malloc((size_t)(c->n_kv * c->dv) * 4);
    for (int j = 0; j < len; j++) {
        for (int i = 0; i < c->n_kv * c->dk; i++) k[i] = hd_rng_normal(&r);
        for (int i = 0; i < c->n_kv * c->dv; i++) v[i] = hd_rng_normal(&r);
        hd_kv_store(&s->kv, s->pages[j / HD_PAGE_TOK], j % HD_PAGE_TOK, k, v);
    }
    free(k);
    free(v);
}

static void seq_close(seq *s)
{
    hd_free_aligned(s->mem, s->page_bytes * (size_t)((s->len + HD_PAGE_TOK - 1) / HD_PAGE_TOK));
    free(s->pages);
    free(s->q);
}

/* Rows of several sequences in one call; out: [rows, n_heads, dv]. */
static void run(hd_dev *d, seq *const *seqs, const int *from, const int *to, int n, float *out)
{
    const hd_kv_shape *kv = &seqs[0]->kv;
    int heads = seqs[0]->n_heads, rows = 0;
    hd_attn_seq part[32];
    for (int i = 0; i < n; i++) {
        part[i] = (hd_attn_seq){rows, to[i] - from[i], seqs[i]->pages};
        rows += to[i] - from[i];
    }
    float *q = malloc((size_t)rows * (size_t)(heads * kv->dk) * 4);
    int32_t *pos = malloc((size_t)rows * sizeof *pos);
    for (int i = 0, r = 0; i < n; i++)
        for (int t = from[i]; t < to[i]; t++, r++) {
            pos[r] = t;
            memcpy(q + r * heads * kv->dk, seqs[i]->q + t * heads * kv->dk, (size_t)(heads * kv->dk) * 4);
        }
    hd_attn a = {*kv, heads, (float)(1 / sqrt(kv->dk)), q, pos, out, part, n, NULL};
    size_t bytes = hd_attn_work_bytes(&a, hd_pool_threads(d->pool));
    CHECK(bytes <= hd_attn_work_max(kv, heads, rows, n, MAX_POS, hd_pool_threads(d->pool)));
    hd_arena work;
    CHECK_OK(hd_arena_open(&work, "work", bytes, &err));
    hd_attn_run(d, &a, &work);
    CHECK(work.used == 0);
    hd_arena_close(&work);
    free(q);
    free(pos);
}

/* One row in double; *spread gets sum of |p v| for each number, what errors are measured against. */
static void naive(const seq *s, int t, int head, double *out, double *spread, double *score_size)
{
    int dk = s->kv.dk, dv = s->kv.dv, h = head / (s->n_heads / s->kv.n_kv);
    float *k = malloc((size_t)(s->kv.n_kv * dk) * 4), *v = malloc((size_t)(s->kv.n_kv * dv) * 4);
    double *p = malloc((size_t)(t + 1) * sizeof *p), max = -INFINITY, sum = 0;
    *score_size = 0;
    for (int j = 0; j <= t; j++) {
        double dot = 0, size = 0;
        hd_kv_load(&s->kv, s->pages[j / HD_PAGE_TOK], j % HD_PAGE_TOK, k, NULL);
        for (int i = 0; i < dk; i++) {
            double x = (double)s->q[(t * s->n_heads + head) * dk + i] * k[h * dk + i];
            dot += x;
            size += fabs(x);
        }
        p[j] = dot / sqrt(dk);
        if (size / sqrt(dk) > *score_size) *score_size = size / sqrt(dk);
        if (p[j] > max) max = p[j];
    }
    for (int j = 0; j <= t; j++) sum += p[j] = exp(p[j] - max);
    for (int i = 0; i < dv; i++) out[i] = spread[i] = 0;
    for (int j = 0; j <= t; j++) {
        hd_kv_load(&s->kv, s->pages[j / HD_PAGE_TOK], j % HD_PAGE_TOK, NULL, v);
        for (int i = 0; i < dv; i++) {
            out[i] += p[j] / sum * v[h * dv + i];
            spread[i] += p[j] / sum * fabs((double)v[h * dv + i]);
        }
    }
    free(k);
    free(v);
    free(p);
}

/* A score's error is eps * sum|q k| for every rounding of its operands and sum; the weights' relative error
 * is twice the largest such error, plus their own rounding.  eps: 2^-9 where queries and weights are rounded
 * to bf16, else f32 sums. */
static void check_close(const hd_kernels *k, const seq *s, int t, const float *row, double eps)
{
    double out[512], spread[512], size, worst = 0;
    for (int h = 0; h < s->n_heads; h += s->n_heads > 3 ? 4 : 1) {
        naive(s, t, h, out, spread, &size);
        for (int i = 0; i < s->kv.dv; i++) {
            double e = fabs(row[h * s->kv.dv + i] - out[i]) / ((2 * size + 3) * eps * spread[i] + 1e-30);
            if (!(e <= worst)) worst = e;
        }
    }
    CHECK(worst <= 1, "%s type %d dk %d dv %d pos %d: %.3f of the bound", k->level, (int)s->kv.type, s->kv.dk, s->kv.dv, t,
          worst);
}

static void test_levels(int threads, bool exact)
{
    static const int ALL[] = {0, 1, 16, 63, 64, 200, 511, 1030}, FEW[] = {0, 17, 64, 530};
    const int *AT = full ? ALL : FEW;
    const size_t n_at = full ? sizeof ALL / sizeof *ALL : sizeof FEW / sizeof *FEW;
    for (size_t c = 0; c < sizeof SHAPES / sizeof *SHAPES; c++)
        for (int type = 0; type < HD_N_CACHE_TYPE; type++) {
            seq s, *one = &s;
            const hd_kernels *k;
            if (!wanted(&SHAPES[c])) continue;
            seq_open(&s, &SHAPES[c], (hd_cache_type)type, AT[n_at - 1] + 10, c * 10 + (size_t)type);
            for (int level = 0; (k = hd_kernels_at(level)); level++) {
                hd_dev d = {.k = k, .exact = exact};
                CHECK_OK(hd_pool_open(&d.pool, threads, &err));
                bool rounds = type == HD_CACHE_BF16 && !exact && (!strcmp(k->level, "bf16") || !strcmp(k->level, "zen4") || !strcmp(k->level, "amx"));
                double eps = rounds ? 0x1p-9 : 0x1p-24 * sqrt(SHAPES[c].dk + 16);
                float *row = malloc((size_t)(s.n_heads * s.kv.dv) * 4);
                for (size_t i = 0; i < n_at; i++) {
                    int to = AT[i] + 1;
                    run(&d, &one, &AT[i], &to, 1, row);
                    check_close(k, &s, AT[i], row, eps);
                }
                free(row);
                hd_pool_close(d.pool);
            }
            seq_close(&s);
        }
}

/* Slices of 1, 3, 5, 6, 7 and 300, alone and among others, 1 and 2 threads: memcmp. */
static void test_same_bits(void)
{
    for (size_t c = 0; c < sizeof SHAPES / sizeof *SHAPES; c++)
        for (int type = 0; type < HD_N_CACHE_TYPE; type++) {
            enum { LEN = 600, N = 5 };
            const hd_kernels *k;
            if (!wanted(&SHAPES[c])) continue;
            seq s[N], *all[N];
            for (int i = 0; i < N; i++) {
                seq_open(&s[i], &SHAPES[c], (hd_cache_type)type, LEN, 77 + (size_t)i);
                all[i] = &s[i];
            }
            size_t row = (size_t)(s->n_heads * s->kv.dv);
            float *want = malloc(LEN * row * 4), *got = malloc(N * LEN * row * 4);
            for (int level = SHAPES[c].dk > 96 || small; (k = hd_kernels_at(level)); level++) { // plain C is slow
                enum { N_SLICES = 7 };
                const int slice[N_SLICES] = {600, 300, 7, 6, 5, 3, 1};
                for (int threads = 1; threads <= 2; threads++) {
                    hd_dev d = {.k = k};
                    CHECK_OK(hd_pool_open(&d.pool, threads, &err));
                    for (int z = 0; z < N_SLICES; z++) {
                        int step = slice[z], first = step == 1 ? 500 : step <= 7 ? 470 : 0;
                        if (level == 0 && z + threads > 2) first = 580; // plain C is slow: not all again
                        bool same = true;
                        for (int from = first; from < LEN; from += step) {
                            int to = from + step < LEN ? from + step : LEN;
                            run(&d, all, &from, &to, 1, got);
                            if (z == 0 && threads == 1) memcpy(want, got, LEN * row * 4);
                            same = same && !memcmp(got, want + (size_t)from * row, (size_t)(to - from) * row * 4);
                        }
                        CHECK(same, "%s type %d %s: slices of %d, %d threads", k->level, type, SHAPES[c].name, step, threads);
                    }
                    /* the first sequence last, among others at other places */
                    seq *mix[N] = {&s[1], &s[2], &s[3], &s[4], &s[0]};
                    int from[N] = {0, 599, 17, 520, 505}, to[N] = {40, 600, 18, 600, 530}, before = 40 + 1 + 1 + 80;
                    run(&d, mix, from, to, N, got);
                    CHECK(!memcmp(got + (size_t)before * row, want + 505 * row, 25 * row * 4),
                          "%s type %d %s: among others, %d threads", k->level, type, SHAPES[c].name, threads);
                    hd_pool_close(d.pool);
                }
            }
            free(want);
            free(got);
            for (int i = 0; i < N; i++) seq_close(&s[i]);
        }
}

/* What lies beyond a row's position must not matter, even when it is the largest number that
 * the cache can hold. */
static void test_masked(void)
{
    for (int type = 0; type < HD_N_CACHE_TYPE; type++) {
        const hd_kernels *k;
        seq a, b, *pa = &a, *pb = &b;
        seq_open(&a, &SHAPES[0], (hd_cache_type)type, 128, 5);
        seq_open(&b, &SHAPES[0], (hd_cache_type)type, 128, 5);
        float huge[3 * 64];
        for (int i = 0; i < 3 * 64; i++) huge[i] = i % 3 == 0 ? INFINITY : i % 3 == 1 ? -INFINITY : NAN;
        for (int j = 71; j < 128; j++) hd_kv_store(&b.kv, b.pages[1], j - 64, huge, huge);
        float x[9 * 64], y[9 * 64];
        int from = 70, to = 71;
        for (int level = 0; (k = hd_kernels_at(level)); level++) {
            hd_dev d = {.k = k};
            CHECK_OK(hd_pool_open(&d.pool, 1, &err));
            run(&d, &pa, &from, &to, 1, x);
            run(&d, &pb, &from, &to, 1, y);
            CHECK(!memcmp(x, y, sizeof x), "%s type %d", k->level, type);
            hd_pool_close(d.pool);
        }
        seq_close(&a);
        seq_close(&b);
    }
}

/* What is stored comes back, within the type's rounding. */
static void test_store(void)
{
    static const float EPS[HD_N_CACHE_TYPE] = {0, 0x1p-11f, 0x1p-8f, 0};
    for (size_t c = 0; c < sizeof SHAPES / sizeof *SHAPES; c++)
        for (int type = 0; type < HD_N_CACHE_TYPE; type++) {
            hd_kv_shape s = {(hd_cache_type)type, SHAPES[c].n_kv, SHAPES[c].dk, SHAPES[c].dv, SHAPES[c].v_in_k};
            CHECK(hd_kv_page_bytes(&s) % 64 == 0);
            uint8_t *page = calloc(1, hd_kv_page_bytes(&s));
            float k[1024], v[1024], k2[1024], v2[1024];
            float tiny = type == HD_CACHE_F16 ? 0x1p-25f : 0; // half the step of subnormal halves
            bool good = true;
            for (int pass = 0; pass < 2; pass++)
                for (int slot = 0; slot < HD_PAGE_TOK; slot++) {
                    hd_rng r;
                    hd_rng_seed(&r, (uint64_t)slot, 3);
                    for (int i = 0; i < s.n_kv * s.dk; i++) k[i] = hd_rng_normal(&r);
                    for (int i = 0; i < s.n_kv * s.dv; i++) v[i] = s.v_in_k ? k[i] : hd_rng_normal(&r);
                    if (pass == 0) {
                        hd_kv_store(&s, page, slot, k, v);
                        continue;
                    }
                    hd_kv_load(&s, page, slot, k2, v2);
                    for (int i = 0; i < s.n_kv * s.dk; i++)
                        good = good && fabsf(k[i] - k2[i]) <= (type == HD_CACHE_Q8_0 ? 0.02f : EPS[type] * fabsf(k[i]) + tiny);
                    for (int i = 0; i < s.n_kv * s.dv; i++)
                        good = good && fabsf(v[i] - v2[i]) <= (type == HD_CACHE_Q8_0 ? 0.02f : EPS[type] * fabsf(v[i]) + tiny);
                }
            CHECK(good, "%s type %d", SHAPES[c].name, type);
            free(page);
        }
}

/* Several positions stored together, at every level: the bytes that one after the other leaves,
 * whatever the numbers. */
static void test_store_many(void)
{
    static const int FROM[] = {0, 0, 3, 16, 15, 48, 63}, N[] = {64, 16, 40, 33, 17, 15, 1};
    static const float ODD[] = {NAN, INFINITY, -INFINITY, 65519, 65520, -7e4f, 3.4e38f, -0.0f, 0x1p-24f, 0x1.8p-25f, 0x1p-25f, 0x1p-140f};
    const hd_kernels *kn;
    for (size_t c = 0; c < sizeof SHAPES / sizeof *SHAPES; c++)
        for (int type = 0; type < HD_N_CACHE_TYPE; type++) {
            hd_kv_shape s = {(hd_cache_type)type, SHAPES[c].n_kv, SHAPES[c].dk, SHAPES[c].dv, SHAPES[c].v_in_k};
            size_t bytes = hd_kv_page_bytes(&s);
            int nk = s.n_kv * s.dk, nv = s.v_in_k ? 0 : s.n_kv * s.dv;
            uint8_t *want = malloc(bytes), *got = malloc(bytes);
            float *k = malloc((size_t)(HD_PAGE_TOK * nk) * 4), *v = malloc((size_t)(HD_PAGE_TOK * nv + 1) * 4);
            hd_rng r;
            hd_rng_seed(&r, c, 7);
            for (int i = 0; i < HD_PAGE_TOK * nk; i++) k[i] = i % 61 ? hd_rng_normal(&r) : ODD[i / 61 % 12];
            for (int i = 0; i < HD_PAGE_TOK * nv; i++) v[i] = i % 47 ? hd_rng_normal(&r) : ODD[i / 47 % 12];
            for (size_t t = 0; t < sizeof N / sizeof *N; t++) {
                memset(want, 0x55, bytes);
                for (int i = 0; i < N[t]; i++) hd_kv_store(&s, want, FROM[t] + i, k + i * nk, v + i * nv);
                for (int level = 0; (kn = hd_kernels_at(level)); level++) {
                    memset(got, 0x55, bytes);
                    kn->attn->store(&s, got, FROM[t], N[t], k, v);
                    CHECK(memcmp(got, want, bytes) == 0, "%s type %d %s: %d from %d", SHAPES[c].name, type, kn->level, N[t], FROM[t]);
                }
            }
            free(want), free(got), free(k), free(v);
        }
}

/* Every sign, exponent and first bits of a mantissa, with low bits round the borders of rounding:
 * stored, read back and hd_kv_round are the nearest number that the type has, its largest for what is
 * larger, 0 for NaN. */
static void test_rounding(hd_cache_type type)
{
    static const uint16_t LOW[] = {0, 1, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0xffff};
    enum { N = 4096 };
    hd_kv_shape s = {type, 1, N, 1, true};
    uint8_t *page = calloc(1, hd_kv_page_bytes(&s));
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y), *z = malloc(N * sizeof *z), max = type == HD_CACHE_F16 ? 65504 : 0x1.fep127f;
    const hd_kernels *kn;
    int64_t wrong = 0;
    for (uint32_t u = 0; u < 8 << 16; u += N) {
        for (uint32_t i = 0; i < N; i++) x[i] = hd_f32_from_bits((u + i) / 8 << 16 | LOW[(u + i) % 8]);
        hd_kv_store(&s, page, 17, x, NULL);
        hd_kv_load(&s, page, 17, y, NULL);
        for (int i = 0; i < N; i++) {
            float v = x[i] != x[i] ? 0 : x[i] > max ? max : x[i] < -max ? -max : x[i];
            v = type == HD_CACHE_F16 ? hd_f16_to_f32(hd_f32_to_f16(v)) : hd_bf16_to_f32(hd_f32_to_bf16(v));
            wrong += hd_f32_bits(y[i]) != hd_f32_bits(v);
        }
        for (int level = 0; (kn = hd_kernels_at(level)); level++) {
            memcpy(z, x, N * sizeof *x);
            kn->attn->round(type, z, N - level); // tails of several lengths
            wrong += memcmp(z, y, (size_t)(N - level) * sizeof *x) != 0;
        }
        hd_kv_round(type, x, N);
        wrong += memcmp(x, y, N * sizeof *x) != 0;
    }
    CHECK(wrong == 0, "type %d: %lld", type, (long long)wrong);
    free(x), free(y), free(z), free(page);
}

int main(void)
{
    full = getenv("HADAL_TEST_FULL") && *getenv("HADAL_TEST_FULL");
    small = getenv("HADAL_TEST_SMALL") && *getenv("HADAL_TEST_SMALL");
    test_store();
    test_store_many();
    test_rounding(HD_CACHE_F16);
    test_rounding(HD_CACHE_BF16);
    test_masked();
    test_levels(1, false);
    test_levels(2, true);
    test_same_bits();
    return hd_test_end();
}
