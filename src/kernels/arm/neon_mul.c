/* Float products and packing of activations with NEON, which every 64-bit ARM core has.
 *
 * A panel is 8 registers of 4 outputs; a tile is one panel by 1 or 2 rows of activations.  An output's products are added in
 * order of k by one chain of FMAs, whatever the tile; fp8 has one chain per 128, whose scale is multiplied in at its end. */
#include <arm_neon.h>
#include <string.h>

#include "kernels/level.h"
#include "kernels/panel.h"

#define INLINE static inline __attribute__((always_inline))
#if defined __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { REGS = 8 }; // of a panel

typedef struct {
    const uint8_t *w, *act;
    int64_t k;
    size_t stride;
    float *y;
    int64_t ldy;
} tile;

#define AT(p, m) ((const void *)((const uint8_t *)(p) + (size_t)(m) * t->stride)) // the same place in row m

INLINE float act_f32(const tile *t, int m, int64_t i)
{
    float x;
    memcpy(&x, AT(t->act + i * 4, m), 4);
    return x;
}

INLINE float act_bf16(const tile *t, int m, int64_t i)
{
    uint16_t h;
    memcpy(&h, AT(t->act + i * 2, m), 2);
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

INLINE void zero(int rows, float32x4_t f[][REGS])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < REGS; z++) f[m][z] = vdupq_n_f32(0);
}

INLINE void store_tile(int rows, const tile *t, float32x4_t f[][REGS])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < REGS; z++) vst1q_f32(t->y + m * t->ldy + 4 * z, f[m][z]);
}

/* Four weights of element i, register z. */
INLINE float32x4_t weights(hd_panel_id id, const tile *t, int64_t i, int z)
{
    if (id == HD_PANEL_F32) return vld1q_f32((const float *)(const void *)(t->w + i * 128 + 16 * z));
    if (id == HD_PANEL_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(const void *)(t->w + i * 64 + 8 * z))));
    /* bf16: pairs, the even element in the lower half of each lane */
    uint32x4_t v = vld1q_u32((const uint32_t *)(const void *)(t->w + i / 2 * 128 + 16 * z));
    return vreinterpretq_f32_u32(i & 1 ? vandq_u32(v, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(v, 16));
}

INLINE void tile_float(hd_panel_id id, int rows, const tile *t)
{
    float32x4_t f[2][REGS];
    zero(rows, f);
    for (int64_t i = 0; i < t->k; i++) {
        float x[2];
        UNROLL for (int m = 0; m < rows; m++) x[m] = id == HD_PANEL_BF16 ? act_bf16(t, m, i) : act_f32(t, m, i);
        UNROLL for (int z = 0; z < REGS; z++) {
            float32x4_t w = weights(id, t, i, z);
            UNROLL for (int m = 0; m < rows; m++) f[m][z] = vfmaq_n_f32(f[m][z], w, x[m]);
        }
    }
    store_tile(rows, t, f);
}

/* e4m3 shifted left by 7 in 16 bits is an f16 of value times 2^-8, subnormals included; the 2^8 goes into the scale. */
INLINE void f8_eight(uint8x8_t v, float32x4_t out[2])
{
    uint16x8_t u = vmovl_u8(v);
    u = vorrq_u16(vshlq_n_u16(vandq_u16(u, vdupq_n_u16(0x7f)), 7), vshlq_n_u16(vandq_u16(u, vdupq_n_u16(0x80)), 8));
    float16x8_t h = vreinterpretq_f16_u16(u);
    out[0] = vcvt_f32_f16(vget_low_f16(h));
    out[1] = vcvt_f32_f16(vget_high_f16(h));
}

INLINE void tile_f8(int rows, const tile *t)
{
    float32x4_t f[2][REGS], g[2][REGS];
    zero(rows, f);
    for (int64_t i0 = 0; i0 < t->k; i0 += 128) {
        const uint8_t *p = t->w + i0 / 128 * P_F8, *w = p + 64;
        const int64_t n = t->k - i0 < 128 ? t->k - i0 : 128;
        float scale;
        memcpy(&scale, p, 4);
        zero(rows, g);
        for (int64_t i = 0; i < n; i += 2, w += 64) // an odd k has a zero behind it
            UNROLL for (int part = 0; part < 4; part++) { // 8 rows: even elements, then odd ones
                uint8x8x2_t v = vld2_u8(w + 16 * part);
                UNROLL for (int e = 0; e < 2; e++) {
                    float32x4_t two[2];
                    f8_eight(v.val[e], two);
                    UNROLL for (int m = 0; m < rows; m++) {
                        const float x = act_bf16(t, m, i0 + i + e);
                        UNROLL for (int z = 0; z < 2; z++)
                            g[m][2 * part + z] = vfmaq_n_f32(g[m][2 * part + z], two[z], x);
                    }
                }
            }
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < REGS; z++) f[m][z] = vfmaq_n_f32(f[m][z], g[m][z], scale * 256);
    }
    store_tile(rows, t, f);
}

#define MUL(name, one, two)                                                                                  \
    static void one_##name(const tile *t) { one; }                                                           \
    static void two_##name(const tile *t) { two; }                                                           \
    static void mul_##name(const void *panel, int64_t k, const uint8_t *act, size_t stride, int M, float *y, \
                           int64_t ldy, void *scratch)                                                       \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        for (int m = 0; m < M; m += 2) {                                                                     \
            tile t = {panel, act + (size_t)m * stride, k, stride, y + m * ldy, ldy};                         \
            if (m + 1 < M) two_##name(&t);                                                                   \
            else one_##name(&t);                                                                             \
        }                                                                                                    \
    }
#define FLOAT(name, id) MUL(name, tile_float(id, 1, t), tile_float(id, 2, t))

FLOAT(f32, HD_PANEL_F32)
FLOAT(f16, HD_PANEL_F16)
FLOAT(bf16, HD_PANEL_BF16)
MUL(f8, tile_f8(1, t), tile_f8(2, t))

/* ---- Activations -------------------------------------------------------------------------------------------------- */

/* 4n numbers (at most 128), zero past `left`. */
INLINE void load_group(float32x4_t v[], int n, const float *x, int64_t left)
{
    float end[128];
    if (left < 4 * n) {
        memset(end, 0, sizeof end);
        if (left > 0) memcpy(end, x, (size_t)left * 4);
        x = end;
    }
    UNROLL for (int i = 0; i < n; i++) v[i] = vld1q_f32(x + 4 * i);
}

/* 16n numbers with one scale, which is returned; sums: of each 16. */
INLINE float quantize(int n, int8_t *q, const float *x, int64_t left, int sums[])
{
    float32x4_t v[32], top = vdupq_n_f32(0);
    load_group(v, 4 * n, x, left);
    UNROLL for (int i = 0; i < 4 * n; i++) top = vmaxnmq_f32(top, vabsq_f32(v[i])); // NaN loses
    const float max = vmaxvq_f32(top), inv = max > 0 ? 127.0f / max : 0;
    const int32x4_t most = vdupq_n_s32(127), least = vdupq_n_s32(-127);
    UNROLL for (int i = 0; i < n; i++) {
        int32x4_t r[4];
        UNROLL for (int j = 0; j < 4; j++) { // to nearest even, saturating; NaN becomes 0
            r[j] = vcvtnq_s32_f32(vmulq_n_f32(v[4 * i + j], inv));
            r[j] = vmaxq_s32(vminq_s32(r[j], most), least);
        }
        int16x8_t a = vcombine_s16(vmovn_s32(r[0]), vmovn_s32(r[1])), b = vcombine_s16(vmovn_s32(r[2]), vmovn_s32(r[3]));
        vst1q_s8(q + 16 * i, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
        sums[i] = vaddvq_s16(vaddq_s16(a, b));
    }
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

/* Round to nearest even; NaN stays NaN. */
static void pack_bf16(uint8_t *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    for (int64_t i = 0; i < kp; i += 4) {
        float32x4_t v;
        load_group(&v, 1, x + (i < k ? i : 0), k - i);
        uint32x4_t u = vreinterpretq_u32_f32(v), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
        uint32x4_t r = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        r = vbslq_u32(vceqq_f32(v, v), r, vorrq_u32(u, vdupq_n_u32(0x400000)));
        vst1_u16((uint16_t *)(void *)(blob + 2 * i), vshrn_n_u32(r, 16));
    }
}

static void act_pack(hd_act_kind kind, void *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    switch (kind) {
    case HD_ACT_F32:
        memcpy(blob, x, (size_t)k * 4);
        memset((float *)blob + k, 0, (size_t)(kp - k) * 4);
        break;
    case HD_ACT_BF16: pack_bf16(blob, x, k); break;
    case HD_ACT_Q8: pack_q8(blob, x, k); break;
    case HD_ACT_Q8K: pack_q8k(blob, x, k); break;
    case HD_N_ACT: break;
    }
}

void hd_fill_mul_neon(hd_kernels *k)
{
    k->act_pack = act_pack;
    k->panel_mul[HD_PANEL_F32] = mul_f32;
    k->panel_mul[HD_PANEL_F16] = mul_f16;
    k->panel_mul[HD_PANEL_BF16] = mul_bf16;
    k->panel_mul[HD_PANEL_F8] = mul_f8;
}
