/* Row kernels in plain C: the meaning of each, one rounding at the end.  The vector levels are
 * tested against these. */
#include "kernels/level.h"

#include <math.h>

static void rmsnorm_ref(float *y, const float *x, const float *g, int64_t n, float eps)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    double r = 1 / sqrt(sum / (double)n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = (float)(x[i] * r * (g ? g[i] : 1));
}

static void silu_mul_ref(float *y, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = (float)(gate[i] / (1 + exp(-(double)gate[i])) * up[i]);
}

static void add_ref(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static void axpy_ref(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = (float)(y[i] + (double)a * x[i]);
}

static float softmax_ref(float *x, int64_t n)
{
    float max = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > max) max = x[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(exp((double)x[i] - max) / sum);
    return (float)(max + log(sum));
}

/* A pair is a complex number: multiply by cos + i sin. */
static void rope_ref(float *x, const float *cs, int n, bool pairs)
{
    int step = pairs ? 2 : 1, other = pairs ? 1 : n / 2;
    for (int i = 0; i < n / 2; i++) {
        float *a = x + i * step, *b = a + other;
        double c = cs[2 * i], s = cs[2 * i + 1], re = *a, im = *b;
        *a = (float)(re * c - im * s);
        *b = (float)(re * s + im * c);
    }
}

void hd_fill_rows_ref(hd_kernels *k)
{
    k->rmsnorm = rmsnorm_ref;
    k->silu_mul = silu_mul_ref;
    k->add = add_ref;
    k->axpy = axpy_ref;
    k->softmax = softmax_ref;
    k->rope = rope_ref;
}
