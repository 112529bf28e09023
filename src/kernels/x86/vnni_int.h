/* Reading the integers of a panel with AVX-512: what the vnni products and the amx unpacker share. */
#ifndef HD_KERNELS_X86_VNNI_INT_H
#define HD_KERNELS_X86_VNNI_INT_H

#include <immintrin.h>
#include <string.h>

#include "kernels/inline.h"
#include "kernels/level.h"
#include "kernels/panel.h"

/* The kernels of the vnni level, for levels above that keep them for a few rows. */
typedef void hd_panel_mul_fn(MUL_PARAMS);
extern hd_panel_mul_fn *const hd_vnni_mul[HD_N_PANEL];

/* How far ahead of the products a weight stream is fetched.  The hardware's own prefetcher stops at 4 KB
 * pages and leaves a third of one core's bandwidth unused (15.5 against 19.9 GB/s). */
enum { AHEAD = 2048 };

INLINE void fetch(const uint8_t *p, int n_bytes)
{
    UNROLL for (int i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

INLINE __m512 load_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
INLINE __m512i load_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
INLINE __m512i load_i8(const uint8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)); }

/* What is added to a weight to make it unsigned. */
INLINE int offset_of(hd_panel_id id)
{
    switch (id) {
    case HD_PANEL_Q8_0:
    case HD_PANEL_IQ4_NL: return 128;
    case HD_PANEL_Q4_0: return 8;
    case HD_PANEL_Q5_0: return 16;
    case HD_PANEL_Q6_K: return 32;
    default: return 0;
    }
}

/* Quads 2j and 2j+1 of rows 16z..16z+15, unsigned bytes; p: the block's integers.
 * Bits are moved by 16-bit shifts and masked; ternary 0xF8 is a | (b & c). */
INLINE void load_quads(hd_panel_id id, const uint8_t *p, int j, int z, __m512i w[2])
{
    const __m512i m4 = _mm512_set1_epi8(15), m10 = _mm512_set1_epi8(0x10), m30 = _mm512_set1_epi8(0x30);
    if (id == HD_PANEL_Q8_0) {
        w[0] = _mm512_loadu_si512(p + (2 * j * 32 + 16 * z) * 4);
        w[1] = _mm512_loadu_si512(p + ((2 * j + 1) * 32 + 16 * z) * 4);
        return;
    }
    __m512i v = _mm512_loadu_si512(p + (j * 32 + 16 * z) * 4);
    w[0] = _mm512_and_si512(v, m4);
    w[1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), m4);
    if (id == HD_PANEL_Q5_0 || id == HD_PANEL_Q5_1 || id == HD_PANEL_Q5_K) {
        __m512i h = _mm512_loadu_si512(p + P_LOW + 64 * z); // bits 2j and 2j+1 go to bit 4
        __m512i h0 = j < 2 ? _mm512_slli_epi16(h, 4 - 2 * j) : _mm512_srli_epi16(h, 2 * j - 4);
        __m512i h1 = j < 2 ? _mm512_slli_epi16(h, 3 - 2 * j) : _mm512_srli_epi16(h, 2 * j - 3);
        w[0] = _mm512_ternarylogic_epi32(w[0], h0, m10, 0xF8);
        w[1] = _mm512_ternarylogic_epi32(w[1], h1, m10, 0xF8);
    }
    if (id == HD_PANEL_Q6_K) {
        __m512i h = _mm512_loadu_si512(p + P_LOW + (j / 2 * 32 + 16 * z) * 4); // bits 4(j&1).. go to bits 4, 5
        __m512i h0 = j & 1 ? h : _mm512_slli_epi16(h, 4);
        __m512i h1 = j & 1 ? _mm512_srli_epi16(h, 2) : _mm512_slli_epi16(h, 2);
        w[0] = _mm512_ternarylogic_epi32(w[0], h0, m30, 0xF8);
        w[1] = _mm512_ternarylogic_epi32(w[1], h1, m30, 0xF8);
    }
    if (id == HD_PANEL_IQ4_NL) {
        const __m512i t = _mm512_xor_si512(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)hd_iq4_values)),
                                           _mm512_set1_epi8(-128));
        w[0] = _mm512_shuffle_epi8(t, w[0]);
        w[1] = _mm512_shuffle_epi8(t, w[1]);
    }
}

#endif
