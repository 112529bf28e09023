/* PCG32, "XSH RR" output (M. O'Neill, "PCG: a family of simple fast space-efficient statistically good
 * algorithms for random number generation", 2014): a 64-bit linear congruential state, of which 32 well-mixed
 * bits are shown.  Different odd increments give different streams of the same period. */
#include "base/rng.h"

#include <math.h>

uint32_t hd_rng_u32(hd_rng *r)
{
    uint64_t s = r->state;
    r->state = s * 6364136223846793005u + r->inc; // Knuth's MMIX multiplier
    uint32_t x = (uint32_t)((s >> 18 ^ s) >> 27);
    unsigned turn = (unsigned)(s >> 59);
    return x >> turn | x << (-turn & 31);
}

void hd_rng_seed(hd_rng *r, uint64_t seed, uint64_t stream)
{
    r->state = 0;
    r->inc = stream << 1 | 1;
    hd_rng_u32(r);
    r->state += seed;
    hd_rng_u32(r);
}

double hd_rng_unit(hd_rng *r)
{
    uint64_t hi = hd_rng_u32(r) >> 5, lo = hd_rng_u32(r) >> 6; // 27 and 26 bits, high ones: they are the best mixed
    return (double)(hi << 26 | lo) * 0x1p-53;
}

/* Box and Muller (1958): a uniform direction and a radius whose square is exponential.  The second
 * value that a pair of uniforms would give is not kept, so that the state stays the two words that a
 * saved session holds. */
float hd_rng_normal(hd_rng *r)
{
    double u = 1.0 - hd_rng_unit(r); // (0, 1]: its logarithm is finite
    double a = 2 * 3.14159265358979323846 * hd_rng_unit(r);
    return (float)(sqrt(-2 * log(u)) * cos(a));
}
