/* Row kernels over v16, included by each level's file.  Contracts: kernels.h.
 *
 * A sum runs over 4 accumulators of 16 lanes, number i into lane i mod 16 of accumulator (i / 16) mod 4;
 * accumulators join as (0 + 1) + (2 + 3), lanes by v_sum.  Tails are padded with what adds nothing. */
#include <math.h>

#include "kernels/level.h"
#include "kernels/v16.h"

/* for each whole vector: VEC at i; for the rest, if any: TAIL with n_tail numbers at i */
#define ROWS_LOOP(n, VEC, TAIL)                                                                                        \
    do {                                                                                                               \
        int64_t i = 0;                                                                                                 \
        for (; i + 16 <= (n); i += 16) VEC;                                                                            \
        if (i < (n)) {                                                                                                 \
            int n_tail = (int)((n) - i);                                                                               \
            TAIL;                                                                                                      \
        }                                                                                                              \
    } while (0)

static float join(const v16 acc[4]) { return v_sum(v_add(v_add(acc[0], acc[1]), v_add(acc[2], acc[3]))); }

static float sum_squares(const float *x, int64_t n)
{
    v16 acc[4] = {v_set1(0), v_set1(0), v_set1(0), v_set1(0)};
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (int a = 0; a < 4; a++) {
            v16 v = v_load(x + i + 16 * a);
            acc[a] = v_fma(v, v, acc[a]);
        }
    for (int a = 0; i < n; a++, i += 16) {
        v16 v = n - i >= 16 ? v_load(x + i) : v_load_n(x + i, (int)(n - i), 0);
        acc[a] = v_fma(v, v, acc[a]);
    }
    return join(acc);
}

static void rmsnorm(float *y, const float *x, const float *g, int64_t n, float eps)
{
    v16 r = v_set1(1 / sqrtf(sum_squares(x, n) / (float)n + eps));
    if (!g) {
        ROWS_LOOP(n, v_store(y + i, v_mul(v_load(x + i), r)),
                  v_store_n(y + i, v_mul(v_load_n(x + i, n_tail, 0), r), n_tail));
        return;
    }
    ROWS_LOOP(n, v_store(y + i, v_mul(v_mul(v_load(x + i), r), v_load(g + i))),
              v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, n_tail, 0), r), v_load_n(g + i, n_tail, 0)), n_tail));
}

INLINE v16 silu_mul_16(v16 z, v16 up)
{
    v16 e = v_exp(v_sub(v_set1(0), z));
    return v_mul(v_div(z, v_add(v_set1(1), e)), up);
}

static void silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    ROWS_LOOP(n, v_store(y + i, silu_mul_16(v_load(gate + i), v_load(up + i))),
              v_store_n(y + i, silu_mul_16(v_load_n(gate + i, n_tail, 0), v_load_n(up + i, n_tail, 0)), n_tail));
}

static void add(float *y, const float *x, int64_t n)
{
    ROWS_LOOP(n, v_store(y + i, v_add(v_load(y + i), v_load(x + i))),
              v_store_n(y + i, v_add(v_load_n(y + i, n_tail, 0), v_load_n(x + i, n_tail, 0)), n_tail));
}

static void axpy(float *y, float a, const float *x, int64_t n)
{
    v16 s = v_set1(a);
    ROWS_LOOP(n, v_store(y + i, v_fma(s, v_load(x + i), v_load(y + i))),
              v_store_n(y + i, v_fma(s, v_load_n(x + i, n_tail, 0), v_load_n(y + i, n_tail, 0)), n_tail));
}

static float softmax(float *x, int64_t n)
{
    v16 top = v_set1(-INFINITY), acc[4] = {v_set1(0), v_set1(0), v_set1(0), v_set1(0)};
    ROWS_LOOP(n, top = v_max(v_load(x + i), top), top = v_max(v_load_n(x + i, n_tail, -INFINITY), top));
    float max = v_hmax(top);
    v16 m = v_set1(max);
    ROWS_LOOP(
        n,
        {
            v16 e = v_exp(v_sub(v_load(x + i), m));
            v_store(x + i, e);
            acc[i / 16 % 4] = v_add(acc[i / 16 % 4], e);
        },
        {
            v16 e = v_exp(v_sub(v_load_n(x + i, n_tail, -INFINITY), m));
            v_store_n(x + i, e, n_tail);
            acc[i / 16 % 4] = v_add(acc[i / 16 % 4], e);
        });
    float sum = join(acc);
    v16 r = v_set1(1 / sum);
    ROWS_LOOP(n, v_store(x + i, v_mul(v_load(x + i), r)),
              v_store_n(x + i, v_mul(v_load_n(x + i, n_tail, 0), r), n_tail));
    return max + logf(sum);
}

/* A pair is a complex number: multiply by cos + i sin.  One rounding of each product, as in the tail. */
static void rope(float *x, const float *cs, int n, bool pairs)
{
    int half = n / 2, i = 0;
    float *y = x + half; // halves: the other number of each pair
    for (; i + 16 <= half; i += 16) {
        v16 c, s, re, im;
        v_load2(cs + 2 * i, &c, &s);
        if (pairs) {
            v_load2(x + 2 * i, &re, &im);
        } else {
            re = v_load(x + i);
            im = v_load(y + i);
        }
        v16 a = v_sub(v_mul(re, c), v_mul(im, s)), b = v_add(v_mul(re, s), v_mul(im, c));
        if (pairs) {
            v_store2(x + 2 * i, a, b);
        } else {
            v_store(x + i, a);
            v_store(y + i, b);
        }
    }
    for (; i < half; i++) {
        float *p = pairs ? x + 2 * i : x + i, *q = pairs ? p + 1 : y + i;
        float re = *p, im = *q, c = cs[2 * i], s = cs[2 * i + 1];
        *p = re * c - im * s;
        *q = re * s + im * c;
    }
}

#define ROWS_FILL(level)                                                                                               \
    void hd_fill_rows_##level(hd_kernels *k)                                                                           \
    {                                                                                                                  \
        k->rmsnorm = rmsnorm;                                                                                          \
        k->silu_mul = silu_mul;                                                                                        \
        k->add = add;                                                                                                  \
        k->axpy = axpy;                                                                                                \
        k->softmax = softmax;                                                                                          \
        k->rope = rope;                                                                                                \
    }
