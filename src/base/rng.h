/* Random numbers that are the same on every machine: PCG32 (O'Neill 2014, pcg-random.org), 64-bit
 * state, 63-bit stream. */
#ifndef HD_BASE_RNG_H
#define HD_BASE_RNG_H

#include <stdint.h>

typedef struct {
    uint64_t state, inc;
} hd_rng;

void hd_rng_seed(hd_rng *r, uint64_t seed, uint64_t stream);
uint32_t hd_rng_u32(hd_rng *r);
double hd_rng_unit(hd_rng *r);  // [0, 1), 53 bits
float hd_rng_normal(hd_rng *r); // mean 0, variance 1

#endif
