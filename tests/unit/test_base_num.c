/* The conversions of base/num.h against plain arithmetic: a number is sign * significand * 2^exponent,
 * computed with ldexp in double; rounding is to the nearest representable value, ties to the even one.
 *
 * Every 16-bit and 8-bit pattern is decoded.  Encoding is checked on every boundary between neighbours (the
 * midpoint, one ulp to each side, the neighbours themselves) and on a stride through all floats;
 * HADAL_TEST_FULL=1 takes all 2^32. */
#include "base/num.h"

#include "test.h"

/* A binary format: mantissa bits, exponent bias, the smallest exponent. */
typedef struct {
    int m_bits, bias, e_max;
} layout;
static const layout F16 = {10, 15, 31}, BF16 = {7, 127, 255}, F8 = {3, 7, 16}; // F8 has no exponent for infinity

static double decode(layout l, uint32_t bits)
{
    int sign_bit = l.m_bits + (l.m_bits == 10 ? 5 : l.m_bits == 7 ? 8 : 4);
    int m = (int)(bits & ((1u << l.m_bits) - 1)), e = (int)((bits & ((1u << sign_bit) - 1)) >> l.m_bits);
    double sign = bits >> sign_bit & 1 ? -1 : 1;
    if (e == l.e_max) return m ? NAN : sign * INFINITY;
    if (l.m_bits == 3 && e == 15 && m == 7) return NAN;
    if (e == 0) return sign * ldexp(m, 1 - l.bias - l.m_bits);
    return sign * ldexp((1 << l.m_bits) + m, e - l.bias - l.m_bits);
}

static bool same(double a, float b) { return isnan(a) ? isnan(b) : a == b && !signbit(a) == !signbit(b); }

static void decoders(void)
{
    int bad = 0;
    for (uint32_t i = 0; i < 0x10000; i++) {
        bad += !same(decode(F16, i), hd_f16_to_f32((uint16_t)i));
        bad += !same(decode(BF16, i), hd_bf16_to_f32((uint16_t)i));
        if (i < 0x100) bad += !same(decode(F8, i), hd_f8e4m3_to_f32((uint8_t)i));
    }
    CHECK(bad == 0, "%d patterns", bad);
}

/* The nearest pattern to f: rint rounds f, measured in units of the last place there, to the even
 * neighbour on a tie. */
static uint32_t encode(layout l, float f)
{
    uint32_t sign = (uint32_t)(signbit(f) != 0) << 15;
    int e;
    double a = fabs((double)f);
    if (isinf(f)) return sign | (uint32_t)l.e_max << l.m_bits;
    frexp(a, &e); // a in [2^(e-1), 2^e)
    if (e < 2 - l.bias || a == 0) e = 2 - l.bias;
    double units = rint(ldexp(a, l.m_bits + 1 - e)); // 2^m_bits .. 2^(m_bits+1), or less when subnormal
    uint32_t bits = (uint32_t)units + ((uint32_t)(e - 2 + l.bias) << l.m_bits); // a carry steps the exponent by itself
    uint32_t inf = (uint32_t)l.e_max << l.m_bits;
    return sign | (bits < inf ? bits : inf);
}

static bool right(uint32_t u)
{
    float f = hd_f32_from_bits(u);
    uint16_t b = hd_f32_to_bf16(f), h = hd_f32_to_f16(f);
    if (isnan(f)) {
        bool quiet = (b & 0x40) && (h & 0x200);
        return quiet && isnan(hd_bf16_to_f32(b)) && isnan(hd_f16_to_f32(h)) && b >> 15 == u >> 31 && h >> 15 == u >> 31;
    }
    return b == encode(BF16, f) && h == encode(F16, f);
}

static void encoders(void)
{
    uint64_t bad = 0, first = 0;
    /* Boundaries: a float that differs from a 16-bit value by up to one of its own ulps, and
     * halfway to the next. */
    for (uint32_t i = 0; i < 0x10000; i++) {
        uint32_t near[2] = {i << 16, hd_f32_bits(hd_f16_to_f32((uint16_t)i))};
        uint32_t half[2] = {0x8000, 0x1000}; // half a bf16 ulp, half a (normal) f16 ulp
        for (int k = 0; k < 2; k++) {
            for (int d = -1; d <= 1; d++) {
                bad += !right(near[k] + (uint32_t)d);
                bad += !right(near[k] + half[k] + (uint32_t)d);
            }
        }
    }
    for (uint32_t m = 0; m < 2048; m++) { // between two subnormal halfs: (m + 1/2) * 2^-24
        uint32_t u = hd_f32_bits(ldexpf((float)m + 0.5f, -24));
        for (int d = -1; d <= 1; d++) bad += !right(u + (uint32_t)d);
    }
    uint32_t step = getenv("HADAL_TEST_FULL") ? 1 : 997;
    for (uint64_t u = 0; u <= UINT32_MAX; u += step) {
        if (right((uint32_t)u)) continue;
        if (!bad++) first = u;
    }
    CHECK(bad == 0, "%llu patterns, one of them %08llx", (unsigned long long)bad, (unsigned long long)first);
}

static void round_trips(void)
{
    int bad = 0;
    for (uint32_t i = 0; i < 0x10000; i++) {
        uint16_t h = (uint16_t)i;
        if (!isnan(hd_f16_to_f32(h))) bad += hd_f32_to_f16(hd_f16_to_f32(h)) != h;
        if (!isnan(hd_bf16_to_f32(h))) bad += hd_f32_to_bf16(hd_bf16_to_f32(h)) != h;
    }
    CHECK(bad == 0, "%d patterns", bad);
}

int main(void)
{
    decoders();
    encoders();
    round_trips();
    CHECK(hd_f32_to_f16(65519.996f) == 0x7bff && hd_f32_to_f16(65520.0f) == 0x7c00);
    CHECK(hd_f8e4m3_to_f32(0x7e) == 448.0f && hd_f8e4m3_to_f32(0x01) == 0x1p-9f);
    return hd_test_end();
}
