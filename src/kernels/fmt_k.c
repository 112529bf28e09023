/* The K formats: super-blocks of 256 whose blocks of 16 or 32 have small integer scales of their own,
 * multiplied by one or two f16 numbers of the super-block.  Decoders; the encoders are in fmt_k_quant.c.
 *
 *   q2_k   scale u4, min u4 [16], q 2 bits, d, dmin          x = d s q - dmin m          blocks of 16
 *   q3_k   third bits [32], q 2 bits, scale 6 bits [16], d   x = d (s - 32) (q - 4)      blocks of 16
 *   q4_k   d, dmin, scale and min 6 bits [8], nibbles        x = d s q - dmin m          blocks of 32
 *   q5_k   d, dmin, the same, fifth bits [32], nibbles       x = d s q - dmin m          blocks of 32
 *   q6_k   nibbles, upper 2 bits, scale i8 [16], d           x = d s (q - 32)            blocks of 16
 *
 * Element order: 2-bit codes come as 128 elements in 32 bytes (element e of the 128 at byte e % 32, bits 2 (e
 * / 32)); nibbles as 64 elements in 32 bytes; single bits as 256 elements in 32 bytes (element e at byte e %
 * 32, bit e / 32). */
#include "kernels/fmt.h"
#include "kernels/inline.h"

/* Scales and minima of q4_k and q5_k, 8 of each with 6 bits in 12 bytes: the first four of each fill the
 * lower 6 bits of bytes 0-3 and 4-7; the last four keep their lower nibbles in bytes 8-11 and their upper 2
 * bits on top of bytes 0-7. */
void fmt_k_scales_get(const uint8_t *p, uint8_t scale[8], uint8_t min[8])
{
    for (int i = 0; i < 4; i++) {
        scale[i] = p[i] & 63;
        min[i] = p[i + 4] & 63;
        scale[i + 4] = (uint8_t)((p[i + 8] & 15) | (p[i] >> 6) << 4);
        min[i + 4] = (uint8_t)(p[i + 8] >> 4 | (p[i + 4] >> 6) << 4);
    }
}

void fmt_k_scales_put(uint8_t *p, const uint8_t scale[8], const uint8_t min[8])
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(scale[i] | (scale[i + 4] >> 4) << 6);
        p[i + 4] = (uint8_t)(min[i] | (min[i + 4] >> 4) << 6);
        p[i + 8] = (uint8_t)((scale[i + 4] & 15) | (min[i + 4] & 15) << 4);
    }
}

/* Scales of q3_k, 16 of 6 bits in 12 bytes: lower nibbles in bytes 0-7 (scale i + 8 above scale i), upper 2
 * bits in bytes 8-11 (scale i at byte i % 4, bits 2 (i / 4)).  Stored with 32 added. */
void fmt_q3_k_scales_get(const uint8_t *p, int8_t scale[16])
{
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? p[i] & 15 : p[i - 8] >> 4;
        scale[i] = (int8_t)((low | (p[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32);
    }
}

void fmt_q3_k_scales_put(uint8_t *p, const int8_t scale[16])
{
    memset(p, 0, 12);
    for (int i = 0; i < 16; i++) {
        int v = scale[i] + 32;
        p[i % 8] |= (uint8_t)(i < 8 ? v & 15 : (v & 15) << 4);
        p[8 + i % 4] |= (uint8_t)((v >> 4) << 2 * (i / 4));
    }
}

void fmt_q2_k_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 84, y += HD_QK) {
        const uint8_t *scales = p, *q = p + 16;
        float d = fmt_f16(p + 80), dmin = fmt_f16(p + 82);
        for (int j = 0; j < 16; j++) {
            float dl = d * (float)(scales[j] & 15), ml = dmin * (float)(scales[j] >> 4);
            const uint8_t *qj = q + j / 8 * 32 + j % 2 * 16;
            int shift = j % 8 / 2 * 2;
            for (int i = 0; i < 16; i++) y[16 * j + i] = dl * (float)(qj[i] >> shift & 3) - ml;
        }
    }
}

void fmt_q3_k_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 110, y += HD_QK) {
        const uint8_t *third = p, *q = p + 32;
        float d = fmt_f16(p + 108);
        int8_t scale[16];
        fmt_q3_k_scales_get(p + 96, scale);
        for (int j = 0; j < 16; j++) {
            float dl = d * (float)scale[j];
            int at = j % 2 * 16, shift = j % 8 / 2 * 2, bit = j / 2;
            for (int i = 0; i < 16; i++) {
                int low = q[j / 8 * 32 + at + i] >> shift & 3, high = third[at + i] >> bit & 1;
                y[16 * j + i] = dl * (float)(low + 4 * high - 4);
            }
        }
    }
}

/* d, dmin, scales and minima; q5_k: a fifth bit of each, bit j of byte i for element 32 j + i; nibbles */
INLINE void dequant_45(bool five, float *y, const uint8_t *p, int64_t n)
{
    const uint8_t *fifth = p + 16, *nibbles = five ? p + 48 : p + 16;
    const int bytes = five ? 176 : 144;
    for (int64_t b = 0; b < n / HD_QK; b++, p += bytes, fifth += bytes, nibbles += bytes, y += HD_QK) {
        float d = fmt_f16(p), dmin = fmt_f16(p + 2);
        uint8_t scale[8], min[8];
        fmt_k_scales_get(p + 4, scale, min);
        for (int j = 0; j < 8; j++) {
            float dl = d * (float)scale[j], ml = dmin * (float)min[j];
            const uint8_t *q = nibbles + j / 2 * 32;
            int shift = j % 2 * 4;
            for (int i = 0; i < 32; i++) {
                int v = q[i] >> shift & 15;
                if (five) v |= (fifth[i] >> j & 1) << 4;
                y[32 * j + i] = dl * (float)v - ml;
            }
        }
    }
}

void fmt_q4_k_dequant(float *y, const void *x, int64_t n) { dequant_45(false, y, x, n); }
void fmt_q5_k_dequant(float *y, const void *x, int64_t n) { dequant_45(true, y, x, n); }

void fmt_q6_k_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 210, y += HD_QK) {
        float d = fmt_f16(p + 208);
        for (int j = 0; j < 16; j++) {
            float dl = d * (float)(int8_t)p[192 + j];
            /* within a half of 128: nibbles as two runs of 64 elements, upper bits as four runs of 32 */
            const uint8_t *low = p + j / 8 * 64 + j % 4 * 16, *high = p + 128 + j / 8 * 32 + j % 2 * 16;
            int low_shift = j % 8 / 4 * 4, high_shift = j % 8 / 2 * 2;
            for (int i = 0; i < 16; i++) {
                int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
                y[16 * j + i] = dl * (float)(q - 32);
            }
        }
    }
}
