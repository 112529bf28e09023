#include "ops/fp8.h"

#include <math.h>
#include <string.h>

float hd_fp8_scale(float max)
{
    int e;
    if (!(max > 0) || isinf(max)) return 1;
    float m = frexpf(max / 448, &e); // max / 448 = m 2^e, m in [0.5, 1)
    return ldexpf(1, m == 0.5f ? e - 1 : e);
}

float hd_fp8_round(float x, float scale)
{
    float v = x / scale;
    uint32_t u;
    if (fabsf(v) < 0x1p-6f) { // subnormal: multiples of 2^-9, the spacing of floats at 2^14
        volatile float shifted = v + 0x1.8p14f;
        return (shifted - 0x1.8p14f) * scale;
    }
    memcpy(&u, &v, 4);
    if ((u & 0x7f800000) != 0x7f800000) u = (u + 0x7ffff + (u >> 20 & 1)) & 0xfff00000; // keep 3 bits of mantissa
    memcpy(&v, &u, 4);
    return v * scale;
}

void hd_fp8_round_groups(float *x, int64_t n, int64_t step)
{
    for (int64_t i0 = 0; i0 < n; i0 += HD_FP8_GROUP) {
        int64_t end = i0 + HD_FP8_GROUP < n ? i0 + HD_FP8_GROUP : n;
        float max = 0;
        for (int64_t i = i0; i < end; i++) max = fmaxf(max, fabsf(x[i * step]));
        float s = hd_fp8_scale(max);
        for (int64_t i = i0; i < end; i++) x[i * step] = hd_fp8_round(x[i * step], s);
    }
}

/* A bf16 blob is the numbers one after another, so groups can be packed one by one. */
void hd_fp8_act_pack(const hd_kernels *k, void *blob, const float *x, int64_t n)
{
    float group[HD_FP8_GROUP];
    for (int64_t i = 0; i < n; i += HD_FP8_GROUP) {
        int64_t m = n - i < HD_FP8_GROUP ? n - i : HD_FP8_GROUP;
        memcpy(group, x + i, (size_t)m * sizeof *group);
        hd_fp8_round_groups(group, m, 1);
        k->act_pack(HD_ACT_BF16, (uint16_t *)blob + i, group, m);
    }
}
