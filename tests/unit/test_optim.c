/* Optimizers against torch and float64 (golden/make_optim.py), and against themselves: levels, threads,
 * owners, clipping, moments in bf16, state that is taken out and put back. */
#include <math.h>

#include "base/num.h"
#include "base/rng.h"
#include "kernels/optim.h"
#include "test.h"
#include "train/optim.h"

static hd_err err;

/* ---- Parameters made by hand ---- */

enum { MAX_PARAMS = 16 };
static const hd_slot slot_matrix = {.kind = HD_SLOT_MATRIX}, slot_embed = {.kind = HD_SLOT_EMBED}, slot_norm = {.kind = HD_SLOT_NORM},
                     slot_router = {.kind = HD_SLOT_ROUTER}, slot_expert = {.kind = HD_SLOT_EXPERT},
                     slot_bias = {.kind = HD_SLOT_BIAS};

typedef struct {
    hd_params p;
    hd_param list[MAX_PARAMS];
} params;

static void add(params *s, const char *name, const hd_slot *slot, int64_t n, int64_t k, bool frozen)
{
    hd_param *p = &s->list[s->p.n++];
    *p = (hd_param){.slot = slot, .layer = -1, .expert = -1, .at = s->p.n_flat, .n = n, .k = k, .frozen = frozen};
    p->vector = slot->kind == HD_SLOT_NORM || slot->kind == HD_SLOT_BIAS;
    snprintf(p->name, sizeof p->name, "%s", name);
    s->p.n_flat += (n * k + 15) / 16 * 16;
    s->p.p = s->list;
}

static void fill(float *x, int64_t n, uint64_t seed, float size)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 3);
    for (int64_t i = 0; i < n; i++) x[i] = size * hd_rng_normal(&r);
}

static void make(params *s)
{
    memset(s, 0, sizeof *s);
    add(s, "embed", &slot_embed, 300, 24, false);
    add(s, "norm", &slot_norm, 1, 24, false);
    add(s, "q", &slot_matrix, 40, 24, false);
    add(s, "up", &slot_matrix, 200, 24, false);
    add(s, "down", &slot_matrix, 24, 200, false);
    add(s, "router", &slot_router, 4, 24, false);
    add(s, "bias", &slot_bias, 1, 4, true);
    for (int e = 0; e < 4; e++) add(s, "expert", &slot_expert, 16, 24, false);
    add(s, "wide", &slot_matrix, 97, 131, false);
    CHECK_OK(hd_alloc_aligned(&s->p.w, (size_t)s->p.n_flat * 4, &err));
    CHECK_OK(hd_alloc_aligned(&s->p.g, (size_t)s->p.n_flat * 4, &err));
    for (int i = 0; i < s->p.n; i++) {
        const hd_param *p = &s->p.p[i];
        fill(s->p.w + p->at, p->n * p->k, (uint64_t)i, 0.1f);
        fill(s->p.g + p->at, p->n * p->k, (uint64_t)i + 100, 0.01f);
    }
}

static void drop(params *s)
{
    hd_free_aligned(s->p.w, (size_t)s->p.n_flat * 4);
    hd_free_aligned(s->p.g, (size_t)s->p.n_flat * 4);
}

/* Gradients of a step, all different. */
static void gradients(params *s, int step)
{
    for (int i = 0; i < s->p.n; i++) {
        const hd_param *p = &s->p.p[i];
        if (!p->frozen) fill(s->p.g + p->at, p->n * p->k, (uint64_t)(i + 1000 * step), 0.01f);
    }
}

static double distance(const float *a, const double *b, int64_t n)
{
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) d += (a[i] - b[i]) * (a[i] - b[i]), s += b[i] * b[i];
    return sqrt(d / s);
}

/* ---- torch and float64 ---- */

typedef struct {
    float w[1024], g[10][1024], adam[1024], m[1024], v[1024], torch_muon[1024];
    double muon[1024];
} golden;

static bool read_golden(golden *t, FILE *f, size_t n)
{
    bool ok = fread(t->w, 4, n, f) == n;
    for (int s = 0; s < 10; s++) ok = ok && fread(t->g[s], 4, n, f) == n;
    ok = ok && fread(t->adam, 4, n, f) == n && fread(t->m, 4, n, f) == n && fread(t->v, 4, n, f) == n;
    return ok && fread(t->torch_muon, 4, n, f) == n && fread(t->muon, 8, n, f) == n;
}

static double distance_f(const float *a, const float *b, int64_t n)
{
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]), s += (double)b[i] * b[i];
    return sqrt(d / s);
}

static void ten_steps(params *s, hd_optim *o, hd_dev *d, const golden *t, int64_t n, float lr)
{
    memcpy(s->p.w, t->w, (size_t)n * 4);
    for (int i = 0; i < 10; i++) {
        memcpy(s->p.g, t->g[i], (size_t)n * 4);
        hd_optim_step(o, d, s->p.w, s->p.g, lr, 1, i + 1);
    }
}

static void test_golden(hd_dev *d)
{
    static const struct {
        int64_t n, k;
    } shape[] = {{20, 17}, {13, 40}, {48, 5}};
    static golden t;
    FILE *f = fopen(HD_SOURCE_DIR "/tests/golden/optim/steps.bin", "rb");
    CHECK(f != NULL);
    for (int i = 0; f && i < 3; i++) {
        int64_t n = shape[i].n * shape[i].k;
        params s = {0};
        hd_optim *o = NULL;
        hd_optim_state m, v;
        hd_optim_config c = hd_optim_defaults;
        CHECK(read_golden(&t, f, (size_t)n));
        add(&s, "x", &slot_matrix, shape[i].n, shape[i].k, false);
        CHECK_OK(hd_alloc_aligned(&s.p.w, (size_t)s.p.n_flat * 4, &err));
        CHECK_OK(hd_alloc_aligned(&s.p.g, (size_t)s.p.n_flat * 4, &err));

        c.matrices = HD_OPT_ADAMW;
        CHECK_OK(hd_optim_open(&o, &s.p, &c, NULL, 0, &err));
        ten_steps(&s, o, d, &t, n, 3e-3f);
        CHECK(distance_f(s.p.w, t.adam, n) < 1e-6, "AdamW %d: %g", i, distance_f(s.p.w, t.adam, n));
        CHECK(hd_optim_n_state(o) == 2);
        hd_optim_state_at(o, 0, &m);
        hd_optim_state_at(o, 1, &v);
        CHECK(strcmp(m.name, "exp_avg.x") == 0 && strcmp(v.name, "exp_avg_sq.x") == 0 && m.n == n && v.type == HD_F32);
        CHECK(distance_f(m.data, t.m, n) < 1e-6 && distance_f(v.data, t.v, n) < 1e-6, "%g %g", distance_f(m.data, t.m, n), distance_f(v.data, t.v, n));
        hd_optim_close(o);

        c.matrices = HD_OPT_MUON;
        CHECK_OK(hd_optim_open(&o, &s.p, &c, NULL, 0, &err));
        ten_steps(&s, o, d, &t, n, 0.02f);
        CHECK(distance(s.p.w, t.muon, n) < 2e-6, "Muon %d: %g", i, distance(s.p.w, t.muon, n));
        CHECK(distance_f(s.p.w, t.torch_muon, n) < 1e-2, "Muon %d: %g from torch's", i, distance_f(s.p.w, t.torch_muon, n));
        CHECK(hd_optim_n_state(o) == 1);
        hd_optim_close(o);
        drop(&s);
    }
    CHECK(f && fgetc(f) == EOF);
    if (f) fclose(f);
}

/* ---- Muon in double, at sizes with several panels ---- */

static void muon_double(double *w, double *m, const float *g, int64_t n, int64_t k, double lr, double decay)
{
    int64_t r = n < k ? n : k, c = n < k ? k : n;
    double *x = calloc((size_t)(2 * n * k + 2 * r * r), sizeof *x), *y = x + n * k, *a = y + n * k, *b = a + r * r, norm = 0;
    for (int64_t i = 0; i < n * k; i++) {
        m[i] = 0.95 * m[i] + (1 - 0.95) * g[i];
        double u = (1 - 0.95) * g[i] + 0.95 * m[i];
        x[n > k ? i % k * n + i / k : i] = u;
        norm += u * u;
    }
    for (int64_t i = 0; i < n * k; i++) x[i] /= sqrt(norm) + 1e-7;
    for (int s = 0; s < 5; s++) {
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < r; j++) {
                double sum = 0;
                for (int64_t l = 0; l < c; l++) sum += x[i * c + l] * x[j * c + l];
                a[i * r + j] = sum;
            }
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < r; j++) {
                double sum = 0;
                for (int64_t l = 0; l < r; l++) sum += a[i * r + l] * a[l * r + j];
                b[i * r + j] = -4.7750 * a[i * r + j] + 2.0315 * sum + (i == j ? 3.4445 : 0);
            }
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < c; j++) {
                double sum = 0;
                for (int64_t l = 0; l < r; l++) sum += b[i * r + l] * x[l * c + j];
                y[i * c + j] = sum;
            }
        memcpy(x, y, (size_t)(n * k) * sizeof *x);
    }
    for (int64_t i = 0; i < n * k; i++)
        w[i] = w[i] * (1 - lr * decay) - lr * 0.2 * sqrt((double)c) * x[n > k ? i % k * n + i / k : i];
    free(x);
}

static void test_muon(hd_dev *d)
{
    static const struct {
        int64_t n, k;
    } shape[] = {{1, 1}, {1, 9}, {32, 32}, {33, 65}, {64, 64}, {130, 64}, {65, 200}, {200, 96}, {128, 129}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        int64_t n = shape[i].n * shape[i].k;
        params s = {0};
        hd_optim *o = NULL;
        double *w = calloc((size_t)(2 * n), sizeof *w);
        add(&s, "x", &slot_matrix, shape[i].n, shape[i].k, false);
        CHECK_OK(hd_alloc_aligned(&s.p.w, (size_t)s.p.n_flat * 4, &err));
        CHECK_OK(hd_alloc_aligned(&s.p.g, (size_t)s.p.n_flat * 4, &err));
        fill(s.p.w, n, i, 0.1f);
        for (int64_t j = 0; j < n; j++) w[j] = s.p.w[j];
        CHECK_OK(hd_optim_open(&o, &s.p, &hd_optim_defaults, NULL, 0, &err));
        for (int t = 0; t < 3; t++) {
            fill(s.p.g, n, i * 10 + (size_t)t, 0.01f);
            hd_optim_step(o, d, s.p.w, s.p.g, 0.02f, 1, t + 1);
            muon_double(w, w + n, s.p.g, shape[i].n, shape[i].k, (double)0.02f, (double)0.1f);
        }
        CHECK(distance(s.p.w, w, n) < 1e-5, "[%d, %d]: %g", (int)shape[i].n, (int)shape[i].k, distance(s.p.w, w, n));
        hd_optim_close(o);
        drop(&s);
        free(w);
    }
}

/* A gradient of zeros: no update but decay, no NaN. */
static void test_zero(hd_dev *d)
{
    params s;
    hd_optim *o = NULL;
    make(&s);
    memset(s.p.g, 0, (size_t)s.p.n_flat * 4);
    float q = s.p.w[s.list[2].at], norm = s.p.w[s.list[1].at], up = s.p.w[s.list[3].at + 7];
    CHECK_OK(hd_optim_open(&o, &s.p, &hd_optim_defaults, NULL, 0, &err));
    hd_optim_step(o, d, s.p.w, s.p.g, 0.01f, 1, 1);
    CHECK(fabs(s.p.w[s.list[2].at] - 0.999 * q) < 1e-7 && fabs(s.p.w[s.list[3].at + 7] - 0.999 * up) < 1e-7);
    CHECK(s.p.w[s.list[1].at] == norm); // vectors do not decay
    hd_optim_close(o);
    drop(&s);
}

/* ---- The same bits ---- */

static void run(params *s, hd_dev *d, const hd_optim_config *c, const int *owner, int n_ranks, int steps)
{
    hd_optim *o[2] = {0};
    for (int r = 0; r < n_ranks; r++) CHECK_OK(hd_optim_open(&o[r], &s->p, c, owner, r, &err));
    for (int t = 1; t <= steps; t++) {
        gradients(s, t);
        for (int r = 0; r < n_ranks; r++) hd_optim_step(o[r], d, s->p.w, s->p.g, 0.01f, 0.5f, t);
    }
    for (int r = 0; r < n_ranks; r++) hd_optim_close(o[r]);
}

static void test_threads_and_owners(hd_dev *d)
{
    for (int kind = 0; kind < 4; kind++) {
        hd_optim_config c = hd_optim_defaults;
        params one, other;
        int owner[MAX_PARAMS];
        c.matrices = kind & 1 ? HD_OPT_MUON : HD_OPT_ADAMW;
        c.moments_bf16 = kind & 2;
        make(&one);
        size_t bytes = (size_t)one.p.n_flat * 4;
        float bias = one.p.w[one.list[6].at], before = one.p.w[one.list[5].at];
        run(&one, d, &c, NULL, 1, 5);
        CHECK(one.p.w[one.list[6].at] == bias, "a frozen parameter moved");
        CHECK(one.p.w[one.list[5].at] != before, "the router did not move");
        for (int i = 0; i < one.p.n; i++) // padding stays zero
            for (int64_t j = one.list[i].n * one.list[i].k; (one.list[i].at + j) % 16; j++) CHECK(one.p.w[one.list[i].at + j] == 0);
        for (int threads = 2; threads <= 3; threads++) {
            hd_dev d2;
            CHECK_OK(hd_dev_open(&d2, threads, false, 256, &err));
            make(&other);
            run(&other, &d2, &c, NULL, 1, 5);
            CHECK(memcmp(one.p.w, other.p.w, bytes) == 0, "kind %d, %d threads", kind, threads);
            drop(&other);
            hd_dev_close(&d2);
        }
        for (int i = 0; i < MAX_PARAMS; i++) owner[i] = i * 7 % 3 == 0;
        make(&other);
        run(&other, d, &c, owner, 2, 5);
        CHECK(memcmp(one.p.w, other.p.w, bytes) == 0, "kind %d, two owners", kind);
        drop(&other);
        drop(&one);
    }
}

/* Five steps, the state carried to another optimizer, five more: as ten. */
static void test_resume(hd_dev *d)
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        params one, other;
        hd_optim *a = NULL, *b = NULL;
        hd_optim_config c = hd_optim_defaults;
        c.moments_bf16 = bf16;
        make(&one);
        make(&other);
        run(&one, d, &c, NULL, 1, 10);
        CHECK_OK(hd_optim_open(&a, &other.p, &c, NULL, 0, &err));
        CHECK_OK(hd_optim_open(&b, &other.p, &c, NULL, 0, &err));
        for (int t = 1; t <= 10; t++) {
            gradients(&other, t);
            hd_optim_step(t <= 5 ? a : b, d, other.p.w, other.p.g, 0.01f, 0.5f, t);
            for (int i = 0; t == 5 && i < hd_optim_n_state(a); i++) {
                hd_optim_state from, to;
                hd_optim_state_at(a, i, &from);
                hd_optim_state_at(b, i, &to);
                CHECK(strcmp(from.name, to.name) == 0 && from.type == (bf16 ? HD_BF16 : HD_F32));
                memcpy(to.data, from.data, (size_t)from.n * (bf16 ? 2 : 4));
            }
        }
        CHECK(memcmp(one.p.w, other.p.w, (size_t)one.p.n_flat * 4) == 0);
        hd_optim_close(a);
        hd_optim_close(b);
        drop(&one);
        drop(&other);
    }
}

/* ---- Kernels ---- */

static void test_levels(void)
{
    enum { N = 1000 };
    static const int sizes[] = {0, 1, 15, 16, 17, 33, 100, 1000};
    static float w[2][N + 1], m[2][N + 1], v[2][N + 1], g[N], u[2][N + 1];
    static uint16_t m16[2][N + 1], v16[2][N + 1];
    const hd_adamw a = {0.5f, 0.9f, 0.95f, 0.1f, 0.05f, 0.03f, 1.5f, 1e-8f, 0.999f};
    const hd_kernels *ref = hd_kernels_at(0), *k;
    for (int l = 0; (k = hd_kernels_at(l)); l++)
        for (size_t z = 0; z < sizeof sizes / sizeof *sizes; z++) {
            int n = sizes[z];
            const hd_kernels *both[2] = {ref, k};
            fill(g, N, 7, 1);
            if (n > 20) g[3] = INFINITY, g[5] = NAN, g[7] = 0, g[11] = 1e-30f;
            for (int i = 0; i < 2; i++) {
                const hd_optim_kernels *o = both[i]->optim;
                fill(w[i], N, 8, 1), fill(m[i], N, 9, 1), fill(v[i], N, 10, 1);
                for (int j = 0; j < N; j++) {
                    v[i][j] = fabsf(v[i][j]);
                    m16[i][j] = hd_f32_to_bf16(m[i][j]), v16[i][j] = hd_f32_to_bf16(v[i][j]);
                }
                o->adamw(w[i], m[i], v[i], g, n, &a);
                o->adamw_bf16(w[i], m16[i], v16[i], g, n, &a);
                o->nesterov(u[i], m[i], g, n, 0.95f, 0.25f);
                o->descend(w[i], u[i], n, 0.9f, 0.1f);
                o->nesterov_bf16(u[i], m16[i], g, n, 0.95f, 0.25f);
                o->descend(w[i], u[i], n, 0.9f, 0.1f);
            }
            /* Which NaN comes out of two is the compiler's choice: compared as NaN. */
            bool same = true;
            for (int j = 0; j < N; j++) {
                same = same && (hd_f32_bits(w[0][j]) == hd_f32_bits(w[1][j]) || (isnan(w[0][j]) && isnan(w[1][j])));
                same = same && (hd_f32_bits(m[0][j]) == hd_f32_bits(m[1][j]) || (isnan(m[0][j]) && isnan(m[1][j])));
                same = same && (m16[0][j] == m16[1][j] || (isnan(hd_bf16_to_f32(m16[0][j])) && isnan(hd_bf16_to_f32(m16[1][j]))));
                same = same && (v16[0][j] == v16[1][j] || (isnan(hd_bf16_to_f32(v16[0][j])) && isnan(hd_bf16_to_f32(v16[1][j]))));
            }
            CHECK(same, "%s n %d", k->level, n);
        }
}

static void test_refusals(void)
{
    params s = {0};
    hd_optim *o = NULL;
    hd_optim_config c = hd_optim_defaults;
    add(&s, "x", &slot_matrix, 3, 3, false);
    c.beta2 = 0.999;
    CHECK_OK(hd_optim_open(&o, &s.p, &c, NULL, 0, &err));
    hd_optim_close(o);
    c.moments_bf16 = true;
    CHECK(hd_optim_open(&o, &s.p, &c, NULL, 0, &err) == HD_USAGE && strstr(err.msg, "beta2") && !o);
    c = hd_optim_defaults, c.eps = 0;
    CHECK(hd_optim_open(&o, &s.p, &c, NULL, 0, &err) == HD_USAGE);
    c = hd_optim_defaults, c.muon_momentum = NAN;
    CHECK(hd_optim_open(&o, &s.p, &c, NULL, 0, &err) == HD_USAGE);
    c = hd_optim_defaults;
    CHECK(hd_optim_bytes(&s.p, &c, NULL, 0) >= 64 && hd_optim_is_muon(&c, &s.list[0]));
    c.matrices = HD_OPT_ADAMW;
    CHECK(hd_optim_bytes(&s.p, &c, NULL, 0) == 128 && !hd_optim_is_muon(&c, &s.list[0]));
    CHECK(hd_clip_scale(2, 1) == 0.5f && hd_clip_scale(0.5, 1) == 1 && hd_clip_scale(2, 0) == 1 && hd_clip_scale(0, 1) == 1);
}

int main(void)
{
    hd_dev d;
    CHECK_OK(hd_dev_open(&d, 1, false, 256, &err));
    test_levels();
    test_golden(&d);
    test_muon(&d);
    test_zero(&d);
    test_threads_and_owners(&d);
    test_resume(&d);
    test_refusals();
    hd_dev_close(&d);
    return hd_test_end();
}
