/* Row kernels of every level against plain C: odd sizes, guarded ends, same memory, zeros, infinities, NaN;
 * and exp within its documented error.  Bounds: a sum of n numbers in f32 errs by at most n/64 + 8 roundings
 * of sum|x| (64 partial sums). */
#include <math.h>

#include "base/rng.h"
#include "kernels/kernels.h"
#include "test.h"

enum { MAX = 5000, GUARD = 32 };
#define EPS 0x1p-24
static const int SIZES[] = {1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 100, 576, 1023, 1536, 4864};
enum { N_SIZES = sizeof SIZES / sizeof *SIZES };

static float x[MAX], g[MAX], want[MAX], got[MAX + GUARD];

static void fill(float *p, int n, uint64_t seed, float size)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 9);
    for (int i = 0; i < n; i++) p[i] = size * hd_rng_normal(&r);
}

static void guard(int n)
{
    for (int i = 0; i < GUARD; i++) got[n + i] = 12345;
}
static bool guarded(int n)
{
    for (int i = 0; i < GUARD; i++)
        if (got[n + i] != 12345) return false;
    return true;
}

/* |got - want| <= eps * size[i] + tiny, NaN and infinities alike */
static bool close_to(const float *a, const float *b, int n, double eps, const float *size)
{
    for (int i = 0; i < n; i++) {
        if (isnan(a[i]) != isnan(b[i])) return false;
        if (isnan(b[i]) || a[i] == b[i]) continue;
        if (!(fabs((double)a[i] - b[i]) <= eps * fabs(size ? (double)size[i] : b[i]) + 0x1p-120)) return false;
    }
    return true;
}

static void test_norm(const hd_kernels *ref, const hd_kernels *k, int n)
{
    double eps = (n / 64.0 + 12) * EPS;
    fill(x, n, (uint64_t)n, 3);
    fill(g, n, 5, 1);
    for (int with_g = 0; with_g < 2; with_g++) {
        guard(n);
        ref->rmsnorm(want, x, with_g ? g : NULL, n, 1e-6f);
        k->rmsnorm(got, x, with_g ? g : NULL, n, 1e-6f);
        CHECK(close_to(got, want, n, eps, NULL) && guarded(n), "%s n %d", k->level, n);
        memcpy(got, x, (size_t)n * 4);
        k->rmsnorm(got, got, with_g ? g : NULL, n, 1e-6f);
        CHECK(close_to(got, want, n, eps, NULL), "%s n %d in place", k->level, n);
    }
    memset(x, 0, (size_t)n * 4);
    k->rmsnorm(got, x, g, n, 1e-6f);
    CHECK(got[0] == 0 && got[n - 1] == 0, "%s zeros", k->level);
    x[n - 1] = NAN;
    k->rmsnorm(got, x, g, n, 1e-6f);
    CHECK(isnan(got[0]) && isnan(got[n - 1]), "%s NaN", k->level);
}

static void test_elementwise(const hd_kernels *ref, const hd_kernels *k, int n)
{
    static float size[MAX];
    fill(x, n, (uint64_t)n + 1, 8);
    fill(g, n, (uint64_t)n + 2, 2);
    x[0] = 100;
    x[n / 2] = -87;
    x[n - 1] = n > 1 ? -200 : 0;

    guard(n);
    ref->silu_mul(want, x, g, n);
    k->silu_mul(got, x, g, n);
    CHECK(close_to(got, want, n, 6 * EPS, NULL) && guarded(n), "%s silu n %d", k->level, n);
    memcpy(got, x, (size_t)n * 4);
    k->silu_mul(got, got, g, n);
    CHECK(close_to(got, want, n, 6 * EPS, NULL), "%s silu in place", k->level);

    memcpy(want, g, (size_t)n * 4);
    memcpy(got, g, (size_t)n * 4);
    guard(n);
    ref->add(want, x, n);
    k->add(got, x, n);
    CHECK(!memcmp(got, want, (size_t)n * 4) && guarded(n), "%s add n %d", k->level, n);

    memcpy(want, g, (size_t)n * 4);
    memcpy(got, g, (size_t)n * 4);
    for (int i = 0; i < n; i++) size[i] = fabsf(g[i]) + fabsf(0.37f * x[i]);
    guard(n);
    ref->axpy(want, 0.37f, x, n);
    k->axpy(got, 0.37f, x, n);
    CHECK(close_to(got, want, n, 2 * EPS, size) && guarded(n), "%s axpy n %d", k->level, n);
}

static void test_softmax(const hd_kernels *ref, const hd_kernels *k, int n)
{
    static float size[MAX];
    double eps = (n / 64.0 + 16) * EPS;
    fill(x, n, (uint64_t)n + 3, 10);
    if (n > 4) x[3] = -INFINITY;
    memcpy(want, x, (size_t)n * 4);
    memcpy(got, x, (size_t)n * 4);
    guard(n);
    float a = ref->softmax(want, n), b = k->softmax(got, n);
    /* x - max is rounded before exp: a relative error of |x - max| roundings */
    float max = x[0];
    for (int i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) size[i] = want[i] == 0 ? 0 : (float)(want[i] * (1 + (max - x[i]) * EPS / eps));
    CHECK(close_to(got, want, n, eps, size) && guarded(n), "%s softmax n %d", k->level, n);
    CHECK(fabs((double)a - b) <= eps + 2 * EPS * fabs(a), "%s log of the sum, n %d: %g %g", k->level, n, a, b);
    CHECK(n <= 4 || got[3] == 0, "%s exp(-inf)", k->level);
    for (int i = 0; i < n; i++) got[i] = 1e30f;
    k->softmax(got, n);
    CHECK(fabs(got[n - 1] * n - 1.0) <= eps, "%s softmax of equals", k->level);
}

static void test_rope(const hd_kernels *ref, const hd_kernels *k, int n)
{
    static float cs[MAX], size[MAX];
    fill(x, n, (uint64_t)n + 4, 2);
    for (int i = 0; i < n / 2; i++) {
        cs[2 * i] = cosf((float)i);
        cs[2 * i + 1] = sinf((float)i);
    }
    for (int pairs = 0; pairs < 2; pairs++) {
        memcpy(want, x, (size_t)n * 4);
        memcpy(got, x, (size_t)n * 4);
        guard(n);
        for (int i = 0; i < n / 2; i++) {
            int a = pairs ? 2 * i : i, b = pairs ? a + 1 : i + n / 2;
            size[a] = size[b] = fabsf(x[a]) + fabsf(x[b]);
        }
        ref->rope(want, cs, n, pairs);
        k->rope(got, cs, n, pairs);
        CHECK(close_to(got, want, n, 2 * EPS, size) && guarded(n), "%s rope n %d pairs %d", k->level, n, pairs);
    }
}

/* A row's result does not depend on where it lies in memory. */
static void test_alignment(const hd_kernels *k)
{
    static float a[600], b[601];
    fill(x, 577, 8, 1);
    k->rmsnorm(a, x, NULL, 577, 1e-5f);
    memcpy(b + 1, x, 577 * 4);
    k->rmsnorm(b + 1, b + 1, NULL, 577, 1e-5f);
    CHECK(!memcmp(a, b + 1, 577 * 4), "%s", k->level);
}

int main(void)
{
    const hd_kernels *ref = hd_kernels_at(0), *k;
    for (int level = 0; (k = hd_kernels_at(level)); level++) {
        for (int i = 0; i < N_SIZES; i++) {
            test_norm(ref, k, SIZES[i]);
            test_elementwise(ref, k, SIZES[i]);
            test_softmax(ref, k, SIZES[i]);
            test_rope(ref, k, SIZES[i] + SIZES[i] % 2);
        }
        test_alignment(k);
    }
    return hd_test_end();
}
