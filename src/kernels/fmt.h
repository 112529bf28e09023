/* What the fmt_*.c files share: the table's functions, and bytes that may lie at any address. */
#ifndef HD_KERNELS_FMT_H
#define HD_KERNELS_FMT_H

#include "base/num.h"
#include "kernels/format.h"

enum { HD_QK = 256 }; // elements of a super-block of the K and IQ formats

/* A row from a file may be unaligned: numbers wider than a byte are copied, never read through a cast
 * pointer.  Files are little endian, and so is every machine hadal builds for. */
static inline uint16_t fmt_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t fmt_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline float fmt_f16(const uint8_t *p) { return hd_f16_to_f32(fmt_u16(p)); }

/* Store v as f16 and return what was stored: codes are chosen for the scale that the reader will see. */
static inline float fmt_put_f16(uint8_t *p, float v)
{
    uint16_t h = hd_f32_to_f16(v);
    memcpy(p, &h, 2);
    return hd_f16_to_f32(h);
}

/* Round half away from zero, as C's roundf, into lo..hi; NaN gives lo.  |v| may be anything, |lo|
 * and |hi| < 2^22. */
static inline int fmt_round(float v, int lo, int hi)
{
    v = v > (float)lo ? v : (float)lo;
    v = v < (float)hi ? v : (float)hi;
    float a = v < 0 ? -v : v;
    int i = (int)a;
    i += a - (float)i >= 0.5f;
    return v < 0 ? -i : i;
}

hd_dequant_fn fmt_f32_dequant, fmt_f16_dequant, fmt_bf16_dequant, fmt_f8_dequant;
hd_dequant_fn fmt_q4_0_dequant, fmt_q4_1_dequant, fmt_q5_0_dequant, fmt_q5_1_dequant, fmt_q8_0_dequant;
hd_dequant_fn fmt_q2_k_dequant, fmt_q3_k_dequant, fmt_q4_k_dequant, fmt_q5_k_dequant, fmt_q6_k_dequant;
hd_dequant_fn fmt_iq4_nl_dequant, fmt_iq4_xs_dequant, fmt_iq1_s_dequant, fmt_iq1_m_dequant, fmt_iq2_xxs_dequant,
    fmt_iq2_xs_dequant, fmt_iq2_s_dequant, fmt_iq3_xxs_dequant, fmt_iq3_s_dequant;
hd_quant_fn fmt_f32_quant, fmt_f16_quant, fmt_bf16_quant;
hd_quant_fn fmt_q4_0_quant, fmt_q4_1_quant, fmt_q5_0_quant, fmt_q5_1_quant, fmt_q8_0_quant;
hd_quant_fn fmt_q2_k_quant, fmt_q3_k_quant, fmt_q4_k_quant, fmt_q5_k_quant, fmt_q6_k_quant;

void fmt_k_scales_get(const uint8_t *p, uint8_t scale[8], uint8_t min[8]);
void fmt_k_scales_put(uint8_t *p, const uint8_t scale[8], const uint8_t min[8]);
void fmt_q3_k_scales_get(const uint8_t *p, int8_t scale[16]);
void fmt_q3_k_scales_put(uint8_t *p, const int8_t scale[16]);

#endif
