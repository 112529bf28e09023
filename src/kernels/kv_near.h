/* The nearest numbers that the cache's types have.  Plain C, compiled for each level that includes it.
 * Private to src/kernels.
 *
 * They work on the bits of an f32 and without a branch, so that the compiler makes vectors of
 * a loop over them. */
#ifndef HD_KERNELS_KV_NEAR_H
#define HD_KERNELS_KV_NEAR_H

#include "base/num.h"
#include "kernels/inline.h"

INLINE uint32_t clamped(uint32_t x, int32_t max) // NaN: 0; a magnitude past max: max
{
    int32_t a = (int32_t)(x & 0x7fffffff), number = -(a <= 0x7f800000);
    return ((x & 0x80000000) | (uint32_t)(a < max ? a : max)) & (uint32_t)number;
}
INLINE uint32_t either(bool first, uint32_t a, uint32_t b)
{
    uint32_t mask = -(uint32_t)first;
    return (a & mask) | (b & ~mask);
}
/* The nearest number that bf16 has, even at a tie. */
INLINE uint32_t near_bf16(uint32_t x)
{
    uint32_t u = clamped(x, 0x7f7f0000);
    return (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000;
}
/* The nearest number that f16 has, and its 16 bits.  Below 2^-14 it has multiples of 2^-24, as f32 has
 * between 0.5 and 1: there the adder rounds. */
enum { F16_MAX = 0x477fe000, F16_NORMAL = 0x38800000 }; // 65504, 2^-14
INLINE uint32_t near_f16(uint32_t x)
{
    uint32_t u = clamped(x, F16_MAX), a = u & 0x7fffffff, small = hd_f32_bits((hd_f32_from_bits(a) + 0.5f) - 0.5f);
    return (u & 0x80000000) | either((int32_t)a < F16_NORMAL, small, (a + 0xfff + (a >> 13 & 1)) & 0xffffe000);
}
INLINE uint16_t f16_of(uint32_t x)
{
    uint32_t u = clamped(x, F16_MAX), a = u & 0x7fffffff, small = hd_f32_bits(hd_f32_from_bits(a) + 0.5f) - 0x3f000000;
    return (uint16_t)((u >> 16 & 0x8000) | either((int32_t)a < F16_NORMAL, small, ((a + 0xfff + (a >> 13 & 1)) >> 13) - (112 << 10)));
}

#endif
