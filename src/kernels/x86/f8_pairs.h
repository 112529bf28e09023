/* fp8 weights as pairs of bf16, for the levels that multiply those. */
#ifndef HD_KERNELS_X86_F8_PAIRS_H
#define HD_KERNELS_X86_F8_PAIRS_H

#include "kernels/x86/vnni_int.h"

/* e4m3 magnitudes 0..127 as bf16, low and high bytes.  exponent 0: m * 2^-9; 0x7f: NaN. */
typedef struct {
    __m512i low[2], high[2];
} f8_table;

static inline void f8_open(f8_table *t)
{
    uint8_t low[128], high[128];
    for (int i = 0; i < 128; i++) {
        float v = i < 8 ? (float)i * 0x1p-9f : 0;
        uint32_t u;
        memcpy(&u, &v, 4);
        if (i >= 8) u = (uint32_t)(i + (120 << 3)) << 20; // the exponent's bias is 7 here, 127 there
        if (i == 127) u = 0x7fc00000;
        low[i] = (uint8_t)(u >> 16);
        high[i] = (uint8_t)(u >> 24);
    }
    for (int i = 0; i < 2; i++) {
        t->low[i] = _mm512_loadu_si512(low + 64 * i);
        t->high[i] = _mm512_loadu_si512(high + 64 * i);
    }
}

/* n pairs of k of all 32 rows. */
static inline void f8_unpack(uint16_t *to, const uint8_t *w, int n, const f8_table *t)
{
    /* unpacking bytes works within 16: eighths are laid out so that it ends with rows in order */
    const __m512i spread = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), sign = _mm512_set1_epi8((char)0x80);
    for (int i = 0; i < n; i++, w += 64, to += 64) {
        fetch(w + AHEAD, 64);
        __m512i v = _mm512_permutexvar_epi64(spread, _mm512_loadu_si512(w));
        __m512i low = _mm512_permutex2var_epi8(t->low[0], v, t->low[1]);
        __m512i high = _mm512_permutex2var_epi8(t->high[0], v, t->high[1]); // bit 7 of the index is not looked at
        high = _mm512_ternarylogic_epi32(high, v, sign, 0xF8);
        _mm512_store_si512(to, _mm512_unpacklo_epi8(low, high));
        _mm512_store_si512(to + 32, _mm512_unpackhi_epi8(low, high));
    }
}

#endif
