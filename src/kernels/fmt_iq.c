/* The IQ formats, decoders only.
 *
 * iq4_nl and iq4_xs are scalar: a nibble chooses one of 16 unevenly spaced values.  The others are lattices:
 * a code of 8 to 11 bits chooses a whole group of 8 (iq3: 4) small magnitudes from a book, and signs come
 * apart.  Seven sign bits are enough for eight elements where the book's groups are kept to an even number of
 * minus signs: the eighth is the parity.
 *
 *              per super-block of 256, after f16 d (iq1_m: spread over the scales)
 *   iq2_xxs    per 32: 4 book bytes; u32 = 4 x 7 signs, 4 scale        d (1/2 + s) / 4
 *   iq2_xs     32 x u16 = 9 book, 7 signs; 16 scales of 4              d (1/2 + s) / 4
 *   iq2_s      32 low bytes, 32 sign bytes, 8 high, 16 scales of 4     d (1/2 + s) / 4
 *   iq3_xxs    64 book bytes; per 32: u32 = 4 x 7 signs, 4 scale       d (1/2 + s) / 2
 *   iq3_s      64 low bytes, 8 high, 32 sign bytes, 8 scales of 4      d (1 + 2 s)
 *   iq1_s      32 low bytes; per 32: u16 = 4 x 3 high, 3 scale, shift  d (1 + 2 s) (ternary +- 1/8)
 *   iq1_m      32 low bytes, 16 bytes of 2 x (3 high, shift), scales   d (1 + 2 s) (ternary +- 1/8)
 *
 * An index is never wider than its book, so no byte can reach past one. */
#include "kernels/fmt.h"
#include "kernels/fmt_iq_tables.h"

static const int8_t nl_value[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const uint8_t iq2_value[4] = {8, 25, 43, 0}; // digit 3 does not occur
static const uint8_t iq3_xxs_value[8] = {4, 12, 20, 28, 36, 44, 52, 62};
static const uint8_t iq3_s_value[8] = {1, 3, 5, 7, 9, 11, 13, 15};

void fmt_iq4_nl_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / 32; b++, p += 18, y += 32) {
        float d = fmt_f16(p);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)nl_value[p[2 + i] & 15];
            y[i + 16] = d * (float)nl_value[p[2 + i] >> 4];
        }
    }
}

void fmt_iq4_xs_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 136) {
        float d = fmt_f16(p);
        int high = fmt_u16(p + 2);
        for (int j = 0; j < 8; j++, y += 32) {
            int s = (p[4 + j / 2] >> j % 2 * 4 & 15) | (high >> 2 * j & 3) << 4;
            float dl = d * (float)(s - 32);
            const uint8_t *q = p + 8 + 16 * j;
            for (int i = 0; i < 16; i++) {
                y[i] = dl * (float)nl_value[q[i] & 15];
                y[i + 16] = dl * (float)nl_value[q[i] >> 4];
            }
        }
    }
}

/* The eighth sign makes the number of minus signs even. */
static inline int even_signs(uint32_t seven)
{
    return (int)(seven & 127) | __builtin_parity(seven & 127) << 7;
}

static inline void put_iq2(float *y, float dl, int code, int signs)
{
    for (int i = 0; i < 8; i++) {
        float v = dl * (float)iq2_value[code >> 2 * i & 3];
        y[i] = signs >> i & 1 ? -v : v;
    }
}

static inline void put_iq3(float *y, float dl, int code, int signs, const uint8_t value[8])
{
    for (int i = 0; i < 4; i++) {
        float v = dl * (float)value[code >> 3 * i & 7];
        y[i] = signs >> i & 1 ? -v : v;
    }
}

void fmt_iq2_xxs_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 66) {
        float d = fmt_f16(p);
        for (int j = 0; j < 8; j++, y += 32) {
            const uint8_t *q = p + 2 + 8 * j;
            uint32_t aux = fmt_u32(q + 4);
            float dl = d * (0.5f + (float)(aux >> 28)) * 0.25f;
            for (int g = 0; g < 4; g++) put_iq2(y + 8 * g, dl, iq2_xxs_grid[q[g]], even_signs(aux >> 7 * g));
        }
    }
}

void fmt_iq2_xs_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 74) {
        float d = fmt_f16(p);
        for (int g = 0; g < 32; g++, y += 8) {
            int code = fmt_u16(p + 2 + 2 * g), s = p[66 + g / 4] >> g / 2 % 2 * 4 & 15;
            float dl = d * (0.5f + (float)s) * 0.25f;
            put_iq2(y, dl, iq2_xs_grid[code & 511], even_signs((uint32_t)code >> 9));
        }
    }
}

void fmt_iq2_s_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 82) {
        float d = fmt_f16(p);
        for (int g = 0; g < 32; g++, y += 8) {
            int high = p[66 + g / 4] >> g % 4 * 2 & 3, s = p[74 + g / 4] >> g / 2 % 2 * 4 & 15;
            float dl = d * (0.5f + (float)s) * 0.25f;
            put_iq2(y, dl, iq2_s_grid[p[2 + g] | high << 8], p[34 + g]);
        }
    }
}

void fmt_iq3_xxs_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 98) {
        float d = fmt_f16(p);
        for (int j = 0; j < 8; j++) {
            uint32_t aux = fmt_u32(p + 66 + 4 * j);
            float dl = d * (0.5f + (float)(aux >> 28)) * 0.5f;
            for (int g = 0; g < 8; g++, y += 4) {
                int signs = even_signs(aux >> 7 * (g / 2)) >> g % 2 * 4;
                put_iq3(y, dl, iq3_xxs_grid[p[2 + 8 * j + g]], signs, iq3_xxs_value);
            }
        }
    }
}

void fmt_iq3_s_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 110) {
        float d = fmt_f16(p);
        for (int g = 0; g < 64; g++, y += 4) {
            int s = p[106 + g / 16] >> g / 8 % 2 * 4 & 15, high = p[66 + g / 8] >> g % 8 & 1;
            float dl = d * (float)(1 + 2 * s);
            put_iq3(y, dl, iq3_s_grid[p[2 + g] | high << 8], p[74 + g / 2] >> g % 2 * 4, iq3_s_value);
        }
    }
}

static inline void put_iq1(float *y, float dl, int code, bool minus)
{
    float shift = minus ? -0.125f : 0.125f;
    for (int i = 0; i < 8; i++) y[i] = dl * ((float)((code >> 2 * i & 3) - 1) + shift);
}

void fmt_iq1_s_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 50) {
        float d = fmt_f16(p);
        for (int g = 0; g < 32; g++, y += 8) {
            int h = fmt_u16(p + 34 + g / 4 * 2), high = h >> g % 4 * 3 & 7;
            float dl = d * (float)(2 * (h >> 12 & 7) + 1);
            put_iq1(y, dl, iq1_s_grid[p[2 + g] | high << 8], h >> 15);
        }
    }
}

void fmt_iq1_m_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / HD_QK; b++, p += 56) {
        /* four u16, each a quarter of d above four scales of 3 bits */
        int s[4], half = 0;
        for (int i = 0; i < 4; i++) {
            s[i] = fmt_u16(p + 48 + 2 * i);
            half |= s[i] >> 12 << 4 * i;
        }
        float d = hd_f16_to_f32((uint16_t)half);
        for (int g = 0; g < 32; g++, y += 8) {
            int h = p[32 + g / 2] >> g % 2 * 4;
            float dl = d * (float)(2 * (s[g / 8] >> g / 2 % 4 * 3 & 7) + 1);
            put_iq1(y, dl, iq1_s_grid[p[g] | (h & 7) << 8], h >> 3 & 1);
        }
    }
}
