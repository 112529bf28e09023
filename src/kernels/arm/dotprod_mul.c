/* Integer products with ARM's dot product instructions (FEAT_DotProd, from ARMv8.2).
 *
 * sdot multiplies 4 signed bytes by 4 signed bytes into each of 4 lanes: a register of weights holds the
 * quads of 4 rows, and a lane of 16 activations is the other operand.  A panel is 8 registers of outputs; a
 * tile is one panel by 1 or 2 rows.  Integers are exact; the float additions have one order, one per block or
 * group of 128, whatever the tile. */
#include <arm_neon.h>
#include <string.h>

#include "kernels/level.h"
#include "kernels/tile.h"

enum { REGS = 8 }; // of a panel

INLINE float32x4_t load_f16(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(const void *)p)));
}

/* Quads 2j and 2j+1 of rows 4z..4z+3, signed; p: the block's integers. */
INLINE void load_quads(hd_panel_id id, const uint8_t *p, int j, int z, int8x16_t w[2])
{
    if (id == HD_PANEL_Q8_0) {
        UNROLL for (int i = 0; i < 2; i++)
            w[i] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + ((2 * j + i) * 32 + 4 * z) * 4), vdupq_n_u8(128)));
        return;
    }
    const uint8x16_t v = vld1q_u8(p + (j * 32 + 4 * z) * 4);
    uint8x16_t q[2] = {vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8(v, 4)};
    if (id == HD_PANEL_Q5_0 || id == HD_PANEL_Q5_1 || id == HD_PANEL_Q5_K) {
        const uint8x16_t h = vld1q_u8(p + P_LOW + 16 * z);
        UNROLL for (int i = 0; i < 2; i++) // bit 2j+i goes to bit 4
            q[i] = vorrq_u8(q[i], vandq_u8(vshlq_u8(h, vdupq_n_s8((int8_t)(4 - 2 * j - i))), vdupq_n_u8(0x10)));
    }
    if (id == HD_PANEL_Q6_K) {
        const uint8x16_t h = vld1q_u8(p + P_LOW + (j / 2 * 32 + 4 * z) * 4);
        UNROLL for (int i = 0; i < 2; i++) // two bits from 4(j&1)+2i go to 4
            q[i] = vorrq_u8(q[i], vandq_u8(vshlq_u8(h, vdupq_n_s8((int8_t)(4 - 4 * (j & 1) - 2 * i))), vdupq_n_u8(0x30)));
    }
    const int offset = id == HD_PANEL_Q4_0 ? 8 : id == HD_PANEL_Q5_0 ? 16 : id == HD_PANEL_Q6_K ? 32 : 0;
    UNROLL for (int i = 0; i < 2; i++) {
        w[i] = vreinterpretq_s8_u8(q[i]);
        if (offset) w[i] = vsubq_s8(w[i], vdupq_n_s8((int8_t)offset));
        if (id == HD_PANEL_IQ4_NL) w[i] = vqtbl1q_s8(vld1q_s8(hd_iq4_values), q[i]);
    }
}

/* Sixteen of k, quads 4h..4h+3, into the sums; q: the block's activations of row 0. */
INLINE void dot_half(hd_panel_id id, int rows, int32x4_t s[][REGS], const uint8_t *p, int h, const uint8_t *q, const tile *t)
{
    int8x16_t x[2];
    UNROLL for (int m = 0; m < rows; m++) x[m] = vld1q_s8(AT(q + 16 * h, m));
    UNROLL for (int z = 0; z < REGS; z++) {
        int8x16_t w[2][2];
        load_quads(id, p, 2 * h, z, w[0]);
        load_quads(id, p, 2 * h + 1, z, w[1]);
        UNROLL for (int m = 0; m < rows; m++) {
            s[m][z] = vdotq_laneq_s32(s[m][z], w[0][0], x[m], 0);
            s[m][z] = vdotq_laneq_s32(s[m][z], w[0][1], x[m], 1);
            s[m][z] = vdotq_laneq_s32(s[m][z], w[1][0], x[m], 2);
            s[m][z] = vdotq_laneq_s32(s[m][z], w[1][1], x[m], 3);
        }
    }
}

INLINE void zero_ints(int rows, int32x4_t s[][REGS])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < REGS; z++) s[m][z] = vdupq_n_s32(0);
}

INLINE void zero_floats(int rows, float32x4_t f[][REGS])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < REGS; z++) f[m][z] = vdupq_n_f32(0);
}

INLINE void store_tile(int rows, const tile *t, float32x4_t f[][REGS])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < REGS; z++) vst1q_f32(t->y + m * t->ldy + 4 * z, f[m][z]);
}

/* One f16 scale per block:  y += (d scale) dot  [+ m xsum] */
INLINE void tile_simple(hd_panel_id id, int rows, int bytes, const tile *t)
{
    const bool min = id == HD_PANEL_Q4_1 || id == HD_PANEL_Q5_1;
    const int64_t kp = (t->k + 63) / 64 * 64;
    const uint8_t *w = t->w, *q = t->act;
    const float *scale = (const float *)(const void *)(t->act + kp), *xsum = scale + kp / 32;
    float32x4_t f[2][REGS];
    zero_floats(rows, f);
    for (int64_t b = 0; b < t->k / 32; b++, w += bytes, q += 32, scale++, xsum++) {
        int32x4_t s[2][REGS];
        zero_ints(rows, s);
        UNROLL for (int h = 0; h < 2; h++) dot_half(id, rows, s, w + (min ? 2 : 1) * P_F16, h, q, t);
        UNROLL for (int z = 0; z < REGS; z++)
            UNROLL for (int m = 0; m < rows; m++) {
                float32x4_t v = vmulq_n_f32(load_f16(w + 8 * z), *(const float *)AT(scale, m));
                f[m][z] = vfmaq_f32(f[m][z], vcvtq_f32_s32(s[m][z]), v);
                if (min) f[m][z] = vfmaq_n_f32(f[m][z], load_f16(w + P_F16 + 8 * z), *(const float *)AT(xsum, m));
            }
    }
    store_tile(rows, t, f);
}

/* Four rows' integer scales. */
INLINE int32x4_t load_scales(bool six, const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    const uint8x8_t v = vreinterpret_u8_u32(vdup_n_u32(four));
    return six ? vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(v))))
               : vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(v))));
}

/* K formats: in a group of 128 the blocks' dots are weighted by their integer scales and summed exactly;
 *   y += scale (d group - dmin mins) */
INLINE void tile_k(hd_panel_id id, int rows, const tile *t)
{
    const bool six = id == HD_PANEL_Q6_K;
    const int head = six ? P_F16 : 2 * P_F16, pair = id == HD_PANEL_Q5_K ? P_Q5_K_PAIR : P_Q4_K_PAIR;
    const int block = six ? P_Q6_K_BLOCK : (pair - 128) / 2, bytes = six ? P_Q6_K : head + 4 * pair;
    const float *scale = (const float *)(const void *)(t->act + t->k);
    const int16_t *sum32 = (const int16_t *)(const void *)(scale + t->k / HD_Q8K_GROUP) + t->k / 16;
    float32x4_t f[2][REGS];
    zero_floats(rows, f);
    for (int64_t g = 0; g < t->k / HD_Q8K_GROUP; g++) {
        const uint8_t *super = t->w + g / 2 * bytes;
        int32x4_t all[2][REGS], mins[2][REGS];
        zero_ints(rows, all);
        zero_ints(rows, mins);
        for (int b = (int)(g % 2) * 4; b < (int)(g % 2) * 4 + 4; b++) {
            const uint8_t *w = super + head + (six ? b * block : b / 2 * pair);
            const uint8_t *ints = six ? w + 64 : w + 128 + b % 2 * block;
            const int64_t at = g / 2 * 8 + b;
            int32x4_t s[2][REGS];
            zero_ints(rows, s);
            UNROLL for (int h = 0; h < 2; h++) { // q6_K: a scale per 16
                dot_half(id, rows, s, ints, h, t->act + at * 32, t);
                if (!six && h == 0) continue;
                UNROLL for (int z = 0; z < REGS; z++) {
                    const int32x4_t sc = load_scales(six, w + (six ? h : b % 2) * 32 + 4 * z);
                    UNROLL for (int m = 0; m < rows; m++) all[m][z] = vmlaq_s32(all[m][z], s[m][z], sc);
                }
                if (six) zero_ints(rows, s);
            }
            if (!six) // min[row][b % 2]
                UNROLL for (int z = 0; z < REGS; z++) {
                    const uint32x4_t v = vreinterpretq_u32_u16(vmovl_u8(vld1_u8(w + 64 + 8 * z)));
                    const uint16x4_t mn = b % 2 ? vshrn_n_u32(v, 16) : vmovn_u32(v);
                    UNROLL for (int m = 0; m < rows; m++)
                        mins[m][z] = vmlal_n_s16(mins[m][z], vreinterpret_s16_u16(mn), *(const int16_t *)AT(sum32 + at, m));
                }
        }
        UNROLL for (int z = 0; z < REGS; z++)
            UNROLL for (int m = 0; m < rows; m++) {
                float32x4_t v = vmulq_f32(vcvtq_f32_s32(all[m][z]), load_f16(super + 8 * z));
                if (!six) v = vfmsq_f32(v, vcvtq_f32_s32(mins[m][z]), load_f16(super + P_F16 + 8 * z));
                f[m][z] = vfmaq_n_f32(f[m][z], v, *(const float *)AT(scale + g, m));
            }
    }
    store_tile(rows, t, f);
}

#define SIMPLE(name, ID) MUL(name, 2, tile_simple(HD_PANEL_##ID, rows, P_##ID, t))
#define SUPER(name, ID)  MUL(name, 2, tile_k(HD_PANEL_##ID, rows, t))
SIMPLE_PANELS(SIMPLE)
K_PANELS(SUPER)

void hd_fill_mul_dotprod(hd_kernels *k) { SIMPLE_PANELS(MUL_FILL) K_PANELS(MUL_FILL) }
