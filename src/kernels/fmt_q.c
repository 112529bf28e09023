/* Blocks of 32 with one f16 scale (and one f16 minimum):
 *
 *   q8_0  d, int8 q[32]                    x = d q             q in -128..127
 *   q4_0  d, nibbles q[32]                 x = d (q - 8)
 *   q4_1  d, m, nibbles q[32]              x = d q + m
 *   q5_0  d, fifth bits u32, nibbles       x = d (q - 16)
 *   q5_1  d, m, fifth bits u32, nibbles    x = d q + m
 *
 * Byte i of the nibbles holds element i below and element i+16 above; bit i of the u32 is the fifth
 * bit of element i. */
#include "kernels/fmt.h"
#include "kernels/fmt_fit.h"

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

/* Codes 0..31 of a block into nibbles (and fifth bits where `high` is wanted). */
static void put_codes(uint8_t *nibbles, uint8_t *high, const float *code, int plus)
{
    uint32_t h = 0;
    memset(nibbles, 0, 16);
    for (int i = 0; i < BLOCK; i++) {
        int q = (int)code[i] + plus;
        nibbles[i % 16] |= (uint8_t)((q & 15) << i / 16 * 4);
        h |= (uint32_t)(q >> 4) << i;
    }
    if (high) memcpy(high, &h, 4);
}

static void weigh(float *w, const float *x, const float *importance, int64_t at)
{
    float sum2 = 0;
    for (int i = 0; i < BLOCK; i++) sum2 += x[i] * x[i];
    fit_weights(w, x, importance ? importance + at : NULL, BLOCK, 2 * sum2 / BLOCK);
}

/* x = d (q - half) */
static void quant_scale(uint8_t *p, const float *x, const float *w, int half, uint8_t *nibbles, uint8_t *high)
{
    float q[BLOCK], d = fmt_put_f16(p, fit_scale(BLOCK, x, w, -half, half - 1));
    fit_codes(BLOCK, x, w, d, 0, -half, half - 1, q);
    put_codes(nibbles, high, q, half);
}

/* x = d q + m */
static void quant_range(uint8_t *p, const float *x, const float *w, int max_q, uint8_t *nibbles, uint8_t *high)
{
    float q[BLOCK], d, m;
    fit_range(BLOCK, x, w, max_q, false, &d, &m);
    d = fmt_put_f16(p, d);
    m = fmt_put_f16(p + 2, m);
    fit_codes(BLOCK, x, w, d, m, 0, max_q, q);
    put_codes(nibbles, high, q, 0);
}

/* A block: d (and m), the fifth bits, the nibbles. */
static void quant_blocks(uint8_t *p, const float *x, int64_t n, const float *importance, bool range, bool five)
{
    const int head = range ? 4 : 2, nibbles = five ? head + 4 : head;
    float w[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, p += nibbles + BLOCK / 2) {
        uint8_t *high = five ? p + head : NULL;
        weigh(w, x + i, importance, i);
        if (range) quant_range(p, x + i, w, five ? 31 : 15, p + nibbles, high);
        else quant_scale(p, x + i, w, five ? 16 : 8, p + nibbles, high);
    }
}

void fmt_q4_0_quant(void *y, const float *x, int64_t n, const float *importance) { quant_blocks(y, x, n, importance, false, false); }
void fmt_q4_1_quant(void *y, const float *x, int64_t n, const float *importance) { quant_blocks(y, x, n, importance, true, false); }
void fmt_q5_0_quant(void *y, const float *x, int64_t n, const float *importance) { quant_blocks(y, x, n, importance, false, true); }
void fmt_q5_1_quant(void *y, const float *x, int64_t n, const float *importance) { quant_blocks(y, x, n, importance, true, true); }
