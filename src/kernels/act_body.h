/* Packing of activations over v16, included by each level's file.  The layouts: kernels.h; the numbers are
 * those of plain C. */
#include <string.h>

#include "kernels/level.h"
#include "kernels/v16.h"

/* 16n numbers (at most 128), zero past `left`. */
INLINE void load_group(v16 v[], int n, const float *x, int64_t left)
{
    float end[HD_Q8K_GROUP];
    if (left < 16 * n) {
        memset(end, 0, sizeof end);
        if (left > 0) memcpy(end, x, (size_t)left * sizeof *x);
        x = end;
    }
    UNROLL for (int i = 0; i < n; i++) v[i] = v_load(x + 16 * i);
}

/* 16n numbers with one scale, which is returned; sums: of each 16. */
INLINE float quantize(int n, int8_t *q, const float *x, int64_t left, int sums[])
{
    v16 v[HD_Q8K_GROUP / 16], top = v_set1(0);
    load_group(v, n, x, left);
    UNROLL for (int i = 0; i < n; i++) top = v_max_abs(top, v[i]);
    const float max = v_hmax(top);
    const v16 inv = v_set1(max > 0 ? 127.0f / max : 0);
    UNROLL for (int i = 0; i < n; i++) sums[i] = v_store_i8(q + 16 * i, v_mul(v[i], inv));
    return max / 127.0f;
}

static void pack_q8(uint8_t *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    float *scale = (float *)(void *)(blob + kp), *xsum = scale + kp / 32;
    int16_t *sum = (int16_t *)(void *)(xsum + kp / 32);
    for (int64_t b = 0; b < kp / 32; b++) {
        int s[2];
        scale[b] = quantize(2, (int8_t *)blob + 32 * b, x + (32 * b < k ? 32 * b : 0), k - 32 * b, s);
        sum[b] = (int16_t)(s[0] + s[1]);
        xsum[b] = scale[b] * (float)sum[b];
    }
}

static void pack_q8k(uint8_t *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 255) / 256 * 256;
    float *scale = (float *)(void *)(blob + kp);
    int16_t *sum16 = (int16_t *)(void *)(scale + kp / HD_Q8K_GROUP), *sum32 = sum16 + kp / 16;
    for (int64_t g = 0; g < kp / HD_Q8K_GROUP; g++) {
        const int64_t i = g * HD_Q8K_GROUP;
        int s[8];
        scale[g] = quantize(8, (int8_t *)blob + i, x + (i < k ? i : 0), k - i, s);
        for (int b = 0; b < 8; b++) sum16[8 * g + b] = (int16_t)s[b];
        for (int b = 0; b < 4; b++) sum32[4 * g + b] = (int16_t)(s[2 * b] + s[2 * b + 1]);
    }
}

static void pack_bf16(uint16_t *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    int64_t i = 0;
    for (; i + 16 <= k; i += 16) v_store_bf16(blob + i, v_load(x + i));
    if (i < k) {
        v_store_bf16(blob + i, v_load_n(x + i, (int)(k - i), 0));
        i += 16;
    }
    memset(blob + i, 0, (size_t)(kp - i) * sizeof *blob);
}

/* As bf16, without a branch, so that the compiler makes vectors of it. */
static void pack_wide(float *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    for (int64_t i = 0; i < k; i++) {
        const uint32_t u = hd_f32_bits(x[i]), nan = -(uint32_t)((int32_t)(u & 0x7fffffff) > 0x7f800000);
        const uint32_t near = u + 0x7fff + (u >> 16 & 1);
        blob[i] = hd_f32_from_bits(((near & ~nan) | ((u | 0x400000) & nan)) & 0xffff0000);
    }
    memset(blob + k, 0, (size_t)(kp - k) * sizeof *blob);
}

static void act_pack(hd_act_kind kind, void *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    switch (kind) {
    case HD_ACT_F32:
        memcpy(blob, x, (size_t)k * sizeof *x);
        memset((float *)blob + k, 0, (size_t)(kp - k) * sizeof *x);
        break;
    case HD_ACT_BF16: pack_bf16(blob, x, k); break;
    case HD_ACT_WIDE: pack_wide(blob, x, k); break;
    case HD_ACT_Q8: pack_q8(blob, x, k); break;
    case HD_ACT_Q8K: pack_q8k(blob, x, k); break;
    case HD_N_ACT: break;
    }
}

#define ACT_FILL(level)                                                                                      \
    void hd_fill_act_##level(hd_kernels *k) { k->act_pack = act_pack; }
