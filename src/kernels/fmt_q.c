/* Blocks of 32 with one f16 scale (and one f16 minimum):
 *
 *   q8_0  d, int8 q[32]                    x = d q             q in -128..127
 *   q4_0  d, nibbles q[32]                 x = d (q - 8)
 *   q4_1  d, m, nibbles q[32]              x = d q + m
 *   q5_0  d, fifth bits u32, nibbles       x = d (q - 16)
 *   q5_1  d, m, fifth bits u32, nibbles    x = d q + m
 *
 * Byte i of the nibbles holds element i below and element i+16 above; bit i of the u32 is the fifth bit of element i. */
#include "kernels/fmt.h"

enum { BLOCK = 32 };

/* ---- decoding ---- */

void fmt_q8_0_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 34, y += BLOCK) {
        float d = fmt_f16(p);
        for (int i = 0; i < BLOCK; i++) y[i] = d * (float)(int8_t)p[2 + i];
    }
}

void fmt_q4_0_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 18, y += BLOCK) {
        float d = fmt_f16(p);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)((p[2 + i] & 15) - 8);
            y[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}

void fmt_q4_1_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 20, y += BLOCK) {
        float d = fmt_f16(p), m = fmt_f16(p + 2);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)(p[4 + i] & 15) + m;
            y[i + 16] = d * (float)(p[4 + i] >> 4) + m;
        }
    }
}

static inline int five(const uint8_t *nibbles, uint32_t high, int i)
{
    int low = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
    return low | (int)(high >> i & 1) << 4;
}

void fmt_q5_0_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 22, y += BLOCK) {
        float d = fmt_f16(p);
        uint32_t high = fmt_u32(p + 2);
        for (int i = 0; i < BLOCK; i++) y[i] = d * (float)(five(p + 6, high, i) - 16);
    }
}

void fmt_q5_1_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 24, y += BLOCK) {
        float d = fmt_f16(p), m = fmt_f16(p + 2);
        uint32_t high = fmt_u32(p + 4);
        for (int i = 0; i < BLOCK; i++) y[i] = d * (float)five(p + 8, high, i) + m;
    }
}

/* ---- encoding ---- */

/* Codes 0..31 of a block into nibbles (and fifth bits where `high` is wanted). */
static void put_codes(uint8_t *nibbles, uint8_t *high, const uint8_t *q)
{
    for (int i = 0; i < 16; i++) nibbles[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    if (high) {
        uint32_t h = 0;
        for (int i = 0; i < BLOCK; i++) h |= (uint32_t)(q[i] >> 4 & 1) << i;
        memcpy(high, &h, 4);
    }
}

void fmt_q8_0_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance; // 8 bits leave too little error to weigh
    uint8_t *p = y;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 34, x += BLOCK) {
        float top = 0;
        for (int i = 0; i < BLOCK; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        float d = top / 127, inv = d ? 1 / d : 0;
        fmt_put_f16(p, d);
        for (int i = 0; i < BLOCK; i++) p[2 + i] = (uint8_t)fmt_round(x[i] * inv, -127, 127);
    }
}

/* x = d (q - half): the number of largest magnitude lands exactly on code 0, the one end that has no mirror image. */
static void quant_symmetric(uint8_t *p, const float *x, int bits, uint8_t *nibbles, uint8_t *high)
{
    int half = 1 << (bits - 1);
    float top = 0;
    for (int i = 0; i < BLOCK; i++) top = fabsf(x[i]) > fabsf(top) ? x[i] : top;
    float d = top / (float)-half, inv = d ? 1 / d : 0;
    uint8_t q[BLOCK];
    fmt_put_f16(p, d);
    for (int i = 0; i < BLOCK; i++) q[i] = (uint8_t)(fmt_round(x[i] * inv, -half, half - 1) + half);
    put_codes(nibbles, high, q);
}

/* x = d q + m over the block's own range. */
static void quant_range(uint8_t *p, const float *x, int bits, uint8_t *nibbles, uint8_t *high)
{
    int max_q = (1 << bits) - 1;
    float lo = x[0], hi = x[0];
    for (int i = 1; i < BLOCK; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float d = (hi - lo) / (float)max_q, inv = d ? 1 / d : 0;
    uint8_t q[BLOCK];
    fmt_put_f16(p, d);
    fmt_put_f16(p + 2, lo);
    for (int i = 0; i < BLOCK; i++) q[i] = (uint8_t)fmt_round((x[i] - lo) * inv, 0, max_q);
    put_codes(nibbles, high, q);
}

void fmt_q4_0_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance;
    uint8_t *p = y;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 18, x += BLOCK) quant_symmetric(p, x, 4, p + 2, NULL);
}

void fmt_q4_1_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance;
    uint8_t *p = y;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 20, x += BLOCK) quant_range(p, x, 4, p + 4, NULL);
}

void fmt_q5_0_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance;
    uint8_t *p = y;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 22, x += BLOCK) quant_symmetric(p, x, 5, p + 6, p + 2);
}

void fmt_q5_1_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance;
    uint8_t *p = y;
    for (int64_t b = 0; b < n / BLOCK; b++, p += 24, x += BLOCK) quant_range(p, x, 5, p + 8, p + 4);
}
