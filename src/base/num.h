/* Low-precision numbers travel as raw bits; this file alone converts them.
 *
 * f16: IEEE binary16.  bf16: the upper half of binary32 (round to nearest even).  f8: OCP FP8 E4M3 ("fn": no
 * infinity, 0x7f and 0xff are NaN; arXiv:2209.05433).  The vector kernels hold their own copies of these
 * rules and are tested against these. */
#ifndef HD_BASE_NUM_H
#define HD_BASE_NUM_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t hd_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float hd_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline float hd_bf16_to_f32(uint16_t h) { return hd_f32_from_bits((uint32_t)h << 16); }

/* Round to nearest even; NaN stays a (quiet) NaN. */
static inline uint16_t hd_f32_to_bf16(float f)
{
    uint32_t u = hd_f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float hd_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31) return hd_f32_from_bits(sign | 0x7f800000 | m << 13);
    if (e == 0) { // zero or subnormal: m * 2^-24, exact in f32
        float v = (float)m * 0x1p-24f;
        return sign ? -v : v;
    }
    return hd_f32_from_bits(sign | (e + 112) << 23 | m << 13);
}

static inline uint16_t hd_f32_to_f16(float f)
{
    uint32_t u = hd_f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); // rounds past 65504
    if (a < 0x38800000) { // subnormal half: let the f32 adder round at 2^-24
        float v = hd_f32_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (hd_f32_bits(v) - 0x3f000000));
    }
    uint32_t r = a + 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | ((r >> 13) - (112u << 10)));
}

static inline float hd_f8e4m3_to_f32(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80) << 24, e = b >> 3 & 15, m = b & 7;
    if (e == 15 && m == 7) return hd_f32_from_bits(sign | 0x7fc00000);
    if (e == 0) {
        float v = (float)m * 0x1p-9f;
        return sign ? -v : v;
    }
    return hd_f32_from_bits(sign | (e + 120) << 23 | m << 20);
}

#endif
