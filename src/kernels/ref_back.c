/* The way back in plain C: the meaning of each loop, sums in double. */
#include "kernels/back.h"

#include <math.h>

#include "base/num.h"

static void transpose_ref(float *to, int64_t ld_to, const float *from, int64_t ld_from, int rows, int cols)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) to[c * ld_to + r] = from[r * ld_from + c];
}

static void outer_ref(float *y, int64_t ldy, const float *a, int64_t lda, const float *x, int64_t ldx, int M, int rows, int cols)
{
    for (int i = 0; i < rows; i++)
        for (int c = 0; c < cols; c++) {
            double sum = 0;
            for (int m = 0; m < M; m++) sum += (double)a[m * lda + i] * x[m * ldx + c];
            y[i * ldy + c] += (float)sum;
        }
}

static void pairs_ref(uint32_t *to, size_t step, int wide, const float *a, const float *b, int n)
{
    for (int i = 0; i < (n + wide - 1) / wide * wide; i++)
        to[(size_t)(i / wide) * step + (size_t)(i % wide)] =
            i < n ? hd_f32_to_bf16(a[i]) | (b ? (uint32_t)hd_f32_to_bf16(b[i]) << 16 : 0) : 0;
}

static void pairs_bf16_ref(uint32_t *to, size_t step, int wide, const uint16_t *a, const uint16_t *b, int n)
{
    for (int i = 0; i < (n + wide - 1) / wide * wide; i++)
        to[(size_t)(i / wide) * step + (size_t)(i % wide)] = i < n ? a[i] | (b ? (uint32_t)b[i] << 16 : 0) : 0;
}

static float dot_ref(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return (float)sum;
}

static void scale_ref(float *x, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= a;
}

static void attn_row_ref(float *s, float *dp, float scale, float lse, float delta, int n)
{
    for (int i = 0; i < n; i++) {
        double p = exp((double)scale * s[i] - lse);
        s[i] = (float)p;
        dp[i] = (float)(scale * p * ((double)dp[i] - delta));
    }
}

static void silu_mul_ref(float *dgate, float *dup, float *a, const float *da, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double g = gate[i], u = up[i], d = da[i], s = 1 / (1 + exp(-g));
        if (a) a[i] = (float)(g * s * u);
        dgate[i] = (float)(d * u * s * (1 + g * (1 - s)));
        dup[i] = (float)(d * g * s);
    }
}

static void rmsnorm_ref(float *dx, bool add, float *dg, const float *dh, const float *x, const float *g, int64_t n, float eps)
{
    double squares = 0, dot = 0;
    for (int64_t i = 0; i < n; i++) {
        squares += (double)x[i] * x[i];
        dot += (double)g[i] * dh[i] * x[i];
    }
    double r = 1 / sqrt(squares / (double)n + eps), k = r * r * dot / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = dh[i];
        dg[i] += (float)(d * x[i] * r);
        d = r * (g[i] * d - x[i] * k);
        dx[i] = (float)(add ? dx[i] + d : d);
    }
}

void hd_fill_back_ref(hd_kernels *k)
{
    static const hd_back_kernels table = {transpose_ref, outer_ref, NULL, pairs_ref, pairs_bf16_ref, dot_ref, scale_ref, attn_row_ref, NULL, silu_mul_ref, rmsnorm_ref};
    k->back = &table;
}
