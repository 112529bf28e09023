/* The exponentials of v16.h: their documented errors over their whole range, and their ends.  Compiled for
 * AVX2 or NEON; the AVX-512 form does the same operations up to 2^127.5. */
#if defined __x86_64__ && !defined __clang__
#pragma GCC target("avx2,fma,f16c,bmi2")
#endif
#include <math.h>

#include "test.h"

#if defined __AVX2__ || defined __ARM_NEON
#include "kernels/v16.h"

enum { STEPS = 1 << 20 };

static v16 exp2_of(v16 x) { return v_exp2(x); }
static v16 rough_of(v16 x) { return v_exp2_rough(x); }
static v16 exp_of(v16 x) { return v_exp(x); }

/* The largest relative error, and error in units of the last place, for arguments from lo to hi. */
static void errors(v16 (*f)(v16), double (*exact)(double), double lo, double hi, double *relative, double *ulp)
{
    float x[16], y[16];
    *relative = *ulp = 0;
    for (int i = 0; i < STEPS; i += 16) {
        for (int j = 0; j < 16; j++) x[j] = (float)(lo + (hi - lo) * (i + j) / (STEPS - 1));
        v_store(y, f(v_load(x)));
        for (int j = 0; j < 16; j++) {
            double want = exact((double)x[j]), off = fabs((double)y[j] - want);
            float w = (float)want;
            double unit = (double)nextafterf(w, INFINITY) - (double)w;
            if (!(off / want <= *relative)) *relative = off / want;
            if (!(off / unit <= *ulp)) *ulp = off / unit;
        }
    }
}

static float one(v16 (*f)(v16), float x)
{
    float y[16];
    v_store(y, f(v_set1(x)));
    return y[7];
}

static void test_errors(void)
{
    double relative, ulp;
    errors(exp2_of, exp2, -126, 127.49, &relative, &ulp);
    CHECK(ulp < 1.5, "2^x: %.3f ulp", ulp);
    errors(exp2_of, exp2, -1, 1, &relative, &ulp);
    CHECK(ulp < 1.5, "2^x near 0: %.3f ulp", ulp);
    errors(exp_of, exp, -87.3, 88.36, &relative, &ulp);
    CHECK(ulp < 2, "e^x: %.3f ulp", ulp);
    errors(exp_of, exp, -1, 1, &relative, &ulp);
    CHECK(ulp < 2, "e^x near 0: %.3f ulp", ulp);
    errors(rough_of, exp2, -126, 0.5, &relative, &ulp);
    CHECK(relative < 3e-6, "2^x, rough: %g", relative);
}

static void test_ends(void)
{
    v16 (*const f[])(v16) = {exp2_of, rough_of, exp_of};
    for (int i = 0; i < 3; i++) {
        CHECK(one(f[i], -130) == 0 && one(f[i], -INFINITY) == 0 && one(f[i], -1e30f) == 0, "function %d", i);
        CHECK(isnan(one(f[i], NAN)), "function %d", i);
    }
    CHECK(one(exp2_of, 129) == INFINITY && one(exp2_of, INFINITY) == INFINITY);
    CHECK(one(exp_of, 90) == INFINITY && one(exp_of, INFINITY) == INFINITY);
    CHECK(one(exp2_of, 0) == 1 && one(exp2_of, 10) == 1024 && one(exp_of, 0) == 1);
}

static bool can_run(void)
{
#if defined __x86_64__
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

int main(void)
{
    if (can_run()) {
        test_errors();
        test_ends();
    }
    return hd_test_end();
}
#else
int main(void) { return hd_test_end(); } // this compiler was not asked for vectors
#endif
