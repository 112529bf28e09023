/* Sixteen floats as one value, on each instruction set: one AVX-512 register, two of AVX2, four of NEON.
 *
 * The row kernels (rows_body.h) and streaming attention (attn_body.h) are written once over these,
 * and compiled by each level's file.  Sums across lanes use one fixed tree: lane i with lane i+8,
 * then i+4, i+2, i+1. */
#ifndef HD_KERNELS_V16_H
#define HD_KERNELS_V16_H

#include <stdint.h>
#include <string.h>

#include "base/num.h"
#include "kernels/inline.h"

#if defined __AVX512F__
#include <immintrin.h>

typedef __m512 v16;

INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
INLINE v16 v_set1(float x) { return _mm512_set1_ps(x); }
INLINE v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }   // a b + c
INLINE v16 v_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); } // c - a b
INLINE v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }               // b when either is NaN
INLINE v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
INLINE v16 v_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* a where x >= y or either is NaN, else 0 */
INLINE v16 v_keep_ge(v16 a, v16 x, v16 y) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, y, _CMP_NLT_UQ), a); }
/* a * 2^n, n whole and in [-126, 128] */
INLINE v16 v_scale2(v16 a, v16 n) { return _mm512_scalef_ps(a, n); }
INLINE float v_sum(v16 a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
/* Numbers 0, 2, 4 ... and 1, 3, 5 ... of 32, and back. */
INLINE void v_load2(const float *p, v16 *even, v16 *odd)
{
    const __m512i e = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    __m512 a = v_load(p), b = v_load(p + 16);
    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_or_epi32(e, _mm512_set1_epi32(1)), b);
}
INLINE void v_store2(float *p, v16 even, v16 odd)
{
    const __m512i lo = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    v_store(p, _mm512_permutex2var_ps(even, lo, odd));
    v_store(p + 16, _mm512_permutex2var_ps(even, _mm512_add_epi32(lo, _mm512_set1_epi32(8)), odd));
}
/* The lower and upper halves of 16 pairs of f16 or bf16. */
INLINE void v_load_bf16x2(const uint16_t *p, v16 *even, v16 *odd)
{
    __m512i x = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)));
}
/* bf12 (panel_bf12.c): its table; of four elements and 16 rows the codes (of the low nibbles or the high) and
 * the lower bytes. */
typedef __m512i v_bf12;
INLINE v_bf12 v_load_table(const uint8_t table[16]) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)); }
/* As two pairs of bf16 a lane ... */
INLINE void v_load_bf12_pairs(v_bf12 table, const uint8_t *codes, bool high_nibbles, const uint8_t *lower, __m512i w[2])
{
    const __m512i c = _mm512_loadu_si512(codes), low = _mm512_loadu_si512(lower);
    const __m512i high = _mm512_permutexvar_epi8(high_nibbles ? _mm512_srli_epi16(c, 4) : c, table); // by 6 bits: the upper 2 choose a copy
    w[0] = _mm512_unpacklo_epi8(low, high);
    w[1] = _mm512_unpackhi_epi8(low, high);
}
/* ... or as four numbers. */
INLINE void v_load_bf12(v_bf12 table, const uint8_t *codes, bool high_nibbles, const uint8_t *lower, v16 w[4])
{
    __m512i pair[2];
    v_load_bf12_pairs(table, codes, high_nibbles, lower, pair);
    UNROLL for (int i = 0; i < 2; i++) {
        w[2 * i] = _mm512_castsi512_ps(_mm512_slli_epi32(pair[i], 16));
        w[2 * i + 1] = _mm512_castsi512_ps(_mm512_and_si512(pair[i], _mm512_set1_epi32((int)0xffff0000)));
    }
}
INLINE void v_load_f16x2(const uint16_t *p, v16 *even, v16 *odd)
{
    __m512i x = _mm512_loadu_si512(p);
    *even = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x));
    *odd = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16)));
}
INLINE v16 v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
INLINE v16 v_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
/* The halves of 16 pairs of e4m3, times 2^-8: shifted left by 7 in 16 bits they are f16 of that,
 * subnormals included. */
INLINE void v_load_f8x2(const uint8_t *p, v16 *even, v16 *odd)
{
    __m512i x = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)p));
    x = _mm512_or_si512(_mm512_slli_epi16(_mm512_and_si512(x, _mm512_set1_epi16(0x7f)), 7),
                        _mm512_slli_epi16(_mm512_and_si512(x, _mm512_set1_epi16(0x80)), 8));
    *even = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x));
    *odd = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16)));
}
/* The nearest whole numbers, ties to even, within +-127; returns their sum.  NaN becomes any of them. */
INLINE int v_store_i8(int8_t *p, v16 a)
{
    __m512i r = _mm512_cvtps_epi32(a); // NaN: INT_MIN
    r = _mm512_max_epi32(_mm512_min_epi32(r, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(r));
    return _mm512_reduce_add_epi32(r);
}
/* To nearest even; NaN stays NaN.  The processor's own instruction makes numbers below 2^-126 zero, as its
 * products take them. */
INLINE void v_store_bf16(uint16_t *p, v16 a)
{
#if defined __AVX512BF16__
    _mm256_storeu_si256((void *)p, (__m256i)_mm512_cvtneps_pbh(a));
    return;
#endif
    __m512i u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}
INLINE v16 v_max_abs(v16 top, v16 x) { return _mm512_max_ps(_mm512_abs_ps(x), top); } // the larger of top and |x|: NaN in x loses
INLINE float v_hmax(v16 a) { return _mm512_reduce_max_ps(a); }                         // lanes are no NaN

#elif defined __AVX2__
#include <immintrin.h>

typedef struct {
    __m256 a, b;
} v16;

#define V_EACH2(op, x, y) ((v16){op((x).a, (y).a), op((x).b, (y).b)})
INLINE v16 v_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void v_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE v16 v_set1(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE v16 v_add(v16 x, v16 y) { return V_EACH2(_mm256_add_ps, x, y); }
INLINE v16 v_sub(v16 x, v16 y) { return V_EACH2(_mm256_sub_ps, x, y); }
INLINE v16 v_mul(v16 x, v16 y) { return V_EACH2(_mm256_mul_ps, x, y); }
INLINE v16 v_div(v16 x, v16 y) { return V_EACH2(_mm256_div_ps, x, y); }
INLINE v16 v_max(v16 x, v16 y) { return V_EACH2(_mm256_max_ps, x, y); }
INLINE v16 v_min(v16 x, v16 y) { return V_EACH2(_mm256_min_ps, x, y); }
INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
INLINE v16 v_fnma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
INLINE v16 v_round(v16 x)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    return (v16){_mm256_round_ps(x.a, NEAREST), _mm256_round_ps(x.b, NEAREST)};
}
INLINE v16 v_keep_ge(v16 a, v16 x, v16 y)
{
    return (v16){_mm256_and_ps(a.a, _mm256_cmp_ps(x.a, y.a, _CMP_NLT_UQ)),
                 _mm256_and_ps(a.b, _mm256_cmp_ps(x.b, y.b, _CMP_NLT_UQ))};
}
INLINE __m256 v_half_scale2(__m256 a, __m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}
INLINE v16 v_scale2(v16 x, v16 n) { return (v16){v_half_scale2(x.a, n.a), v_half_scale2(x.b, n.b)}; }
INLINE float v_sum(v16 x)
{
    __m256 h = _mm256_add_ps(x.a, x.b);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
/* even and odd numbers of 16: shuffle within halves gives 0 2 8 10 4 6 12 14, the permutation
 * puts pairs in order */
INLINE __m256 v_pick(__m256 a, __m256 b, int odd)
{
    __m256 s = odd ? _mm256_shuffle_ps(a, b, 0xdd) : _mm256_shuffle_ps(a, b, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(s), 0xd8));
}
INLINE void v_load2(const float *p, v16 *even, v16 *odd)
{
    v16 x = v_load(p), y = v_load(p + 16);
    *even = (v16){v_pick(x.a, x.b, 0), v_pick(y.a, y.b, 0)};
    *odd = (v16){v_pick(x.a, x.b, 1), v_pick(y.a, y.b, 1)};
}
INLINE void v_store2_half(float *p, __m256 even, __m256 odd)
{
    __m256 lo = _mm256_unpacklo_ps(even, odd), hi = _mm256_unpackhi_ps(even, odd);
    _mm256_storeu_ps(p, _mm256_permute2f128_ps(lo, hi, 0x20));
    _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(lo, hi, 0x31));
}
INLINE void v_store2(float *p, v16 even, v16 odd)
{
    v_store2_half(p, even.a, odd.a);
    v_store2_half(p + 16, even.b, odd.b);
}
INLINE void v_load_bf16x2(const uint16_t *p, v16 *even, v16 *odd)
{
    __m256i x = _mm256_loadu_si256((const void *)p), y = _mm256_loadu_si256((const void *)(p + 16));
    __m256i high = _mm256_set1_epi32((int)0xffff0000);
    *even = (v16){_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))};
    *odd = (v16){_mm256_castsi256_ps(_mm256_and_si256(x, high)), _mm256_castsi256_ps(_mm256_and_si256(y, high))};
}
typedef __m256i v_bf12;
INLINE v_bf12 v_load_table(const uint8_t table[16]) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table)); }
INLINE void v_half_bf12(v_bf12 table, __m256i c, __m256i low, __m256 w[4])
{
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(c, _mm256_set1_epi8(15)));
    UNROLL for (int i = 0; i < 2; i++) {
        const __m256i pair = i ? _mm256_unpackhi_epi8(low, high) : _mm256_unpacklo_epi8(low, high);
        w[2 * i] = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
        w[2 * i + 1] = _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000)));
    }
}
INLINE void v_load_bf12(v_bf12 table, const uint8_t *codes, bool high_nibbles, const uint8_t *lower, v16 w[4])
{
    __m256 h[2][4];
    UNROLL for (int z = 0; z < 2; z++) {
        const __m256i c = _mm256_loadu_si256((const void *)(codes + 32 * z));
        v_half_bf12(table, high_nibbles ? _mm256_srli_epi16(c, 4) : c, _mm256_loadu_si256((const void *)(lower + 32 * z)), h[z]);
    }
    UNROLL for (int i = 0; i < 4; i++) w[i] = (v16){h[0][i], h[1][i]};
}
INLINE v16 v_from_f16(__m256i h)
{
    return (v16){_mm256_cvtph_ps(_mm256_castsi256_si128(h)), _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
}
INLINE void v_load_f16x2(const uint16_t *p, v16 *even, v16 *odd)
{
    __m256i x = _mm256_loadu_si256((const void *)p), y = _mm256_loadu_si256((const void *)(p + 16));
    __m256i low = _mm256_set1_epi32(0xffff);
    __m256i e = _mm256_packus_epi32(_mm256_and_si256(x, low), _mm256_and_si256(y, low));
    __m256i o = _mm256_packus_epi32(_mm256_srli_epi32(x, 16), _mm256_srli_epi32(y, 16));
    *even = v_from_f16(_mm256_permute4x64_epi64(e, 0xd8));
    *odd = v_from_f16(_mm256_permute4x64_epi64(o, 0xd8));
}
INLINE v16 v_load_f16(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8)))};
}
INLINE v16 v_load_i8(const int8_t *p)
{
    __m128i x = _mm_loadu_si128((const void *)p);
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))};
}
INLINE void v_half_f8x2(const uint8_t *p, __m256 *even, __m256 *odd)
{
    __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)p));
    x = _mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0x7f)), 7),
                        _mm256_slli_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0x80)), 8));
    /* even elements to the lower half, odd ones to the upper */
    x = _mm256_packus_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32(x, 16));
    x = _mm256_permute4x64_epi64(x, 0xd8);
    *even = _mm256_cvtph_ps(_mm256_castsi256_si128(x));
    *odd = _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1));
}
INLINE void v_load_f8x2(const uint8_t *p, v16 *even, v16 *odd)
{
    v_half_f8x2(p, &even->a, &odd->a);
    v_half_f8x2(p + 16, &even->b, &odd->b);
}
INLINE __m256i v_half_whole(__m256 a)
{
    __m256i r = _mm256_cvtps_epi32(a); // NaN: INT_MIN
    return _mm256_max_epi32(_mm256_min_epi32(r, _mm256_set1_epi32(127)), _mm256_set1_epi32(-127));
}
INLINE int v_store_i8(int8_t *p, v16 x)
{
    __m256i a = v_half_whole(x.a), b = v_half_whole(x.b), s = _mm256_add_epi32(a, b);
    __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8); // packs works in halves
    _mm_storeu_si128((void *)p, _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_unpackhi_epi64(t, t));
    return _mm_cvtsi128_si32(t) + _mm_extract_epi32(t, 1);
}
INLINE __m256i v_half_bf16(__m256 a) // in the lower half of each lane
{
    __m256i u = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan), 16);
}
INLINE void v_store_bf16(uint16_t *p, v16 x)
{
    __m256i w = _mm256_packus_epi32(v_half_bf16(x.a), v_half_bf16(x.b));
    _mm256_storeu_si256((void *)p, _mm256_permute4x64_epi64(w, 0xd8));
}
INLINE v16 v_max_abs(v16 top, v16 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_max_ps(_mm256_andnot_ps(sign, x.a), top.a), _mm256_max_ps(_mm256_andnot_ps(sign, x.b), top.b)};
}
INLINE float v_hmax(v16 x)
{
    __m256 h = _mm256_max_ps(x.a, x.b);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

#elif defined __ARM_NEON
#include <arm_neon.h>

typedef struct {
    float32x4_t q[4];
} v16;

#define V_EACH4(f) ((v16){{f(0), f(1), f(2), f(3)}})
#define V_BINARY(name, op)                                                                                             \
    INLINE v16 name(v16 x, v16 y)                                                                                      \
    {                                                                                                                  \
        return (v16){{op(x.q[0], y.q[0]), op(x.q[1], y.q[1]), op(x.q[2], y.q[2]), op(x.q[3], y.q[3])}};                 \
    }
V_BINARY(v_add, vaddq_f32)
V_BINARY(v_sub, vsubq_f32)
V_BINARY(v_mul, vmulq_f32)
V_BINARY(v_div, vdivq_f32)
V_BINARY(v_min, vminq_f32)
V_BINARY(v_max, vmaxq_f32)
INLINE v16 v_load(const float *p)
{
    return (v16){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
INLINE void v_store(float *p, v16 x)
{
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.q[i]);
}
INLINE v16 v_set1(float x) { return (v16){{vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}}; }
INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
#define F(i) vfmaq_f32(z.q[i], x.q[i], y.q[i])
    return V_EACH4(F);
#undef F
}
INLINE v16 v_fnma(v16 x, v16 y, v16 z)
{
#define F(i) vfmsq_f32(z.q[i], x.q[i], y.q[i])
    return V_EACH4(F);
#undef F
}
INLINE v16 v_round(v16 x)
{
#define F(i) vrndnq_f32(x.q[i])
    return V_EACH4(F);
#undef F
}
INLINE v16 v_keep_ge(v16 a, v16 x, v16 y) // cleared where x < y
{
#define F(i) vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a.q[i]), vcltq_f32(x.q[i], y.q[i])))
    return V_EACH4(F);
#undef F
}
INLINE v16 v_scale2(v16 a, v16 n)
{
#define E(i) vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.q[i]), vdupq_n_s32(127)), 23)
#define F(i) vmulq_f32(a.q[i], vreinterpretq_f32_s32(E(i)))
    return V_EACH4(F);
#undef F
#undef E
}
INLINE float v_sum(v16 x)
{
    float32x4_t q = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
    float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
INLINE void v_load2(const float *p, v16 *even, v16 *odd)
{
    for (int i = 0; i < 4; i++) {
        float32x4x2_t t = vld2q_f32(p + 8 * i);
        even->q[i] = t.val[0];
        odd->q[i] = t.val[1];
    }
}
INLINE void v_store2(float *p, v16 even, v16 odd)
{
    for (int i = 0; i < 4; i++) vst2q_f32(p + 8 * i, (float32x4x2_t){{even.q[i], odd.q[i]}});
}
INLINE void v_load_bf16x2(const uint16_t *p, v16 *even, v16 *odd)
{
    for (int i = 0; i < 4; i++) {
        uint32x4_t x = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
        even->q[i] = vreinterpretq_f32_u32(vshlq_n_u32(x, 16));
        odd->q[i] = vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff0000)));
    }
}
typedef uint8x16_t v_bf12;
INLINE v_bf12 v_load_table(const uint8_t table[16]) { return vld1q_u8(table); }
INLINE void v_load_bf12(v_bf12 table, const uint8_t *codes, bool high_nibbles, const uint8_t *lower, v16 w[4])
{
    for (int g = 0; g < 4; g++) {
        const uint8x16_t c = vld1q_u8(codes + 16 * g), low = vld1q_u8(lower + 16 * g);
        const uint8x16_t high = vqtbl1q_u8(table, high_nibbles ? vshrq_n_u8(c, 4) : vandq_u8(c, vdupq_n_u8(15)));
        for (int i = 0; i < 2; i++) {
            const uint32x4_t pair = vreinterpretq_u32_u8(i ? vzip2q_u8(low, high) : vzip1q_u8(low, high));
            w[2 * i].q[g] = vreinterpretq_f32_u32(vshlq_n_u32(pair, 16));
            w[2 * i + 1].q[g] = vreinterpretq_f32_u32(vandq_u32(pair, vdupq_n_u32(0xffff0000)));
        }
    }
}
INLINE void v_load_f16x2(const uint16_t *p, v16 *even, v16 *odd)
{
    for (int i = 0; i < 4; i++) {
        uint16x4x2_t x = vld2_u16(p + 8 * i);
        even->q[i] = vcvt_f32_f16(vreinterpret_f16_u16(x.val[0]));
        odd->q[i] = vcvt_f32_f16(vreinterpret_f16_u16(x.val[1]));
    }
}
INLINE v16 v_load_f16(const uint16_t *p)
{
#define F(i) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * (i))))
    return V_EACH4(F);
#undef F
}
INLINE v16 v_load_i8(const int8_t *p)
{
    int8x16_t x = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(x)), hi = vmovl_s8(vget_high_s8(x));
    return (v16){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
                  vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}
INLINE void v_eight_f8(uint8x8_t v, float32x4_t out[2])
{
    uint16x8_t u = vmovl_u8(v);
    u = vorrq_u16(vshlq_n_u16(vandq_u16(u, vdupq_n_u16(0x7f)), 7), vshlq_n_u16(vandq_u16(u, vdupq_n_u16(0x80)), 8));
    float16x8_t h = vreinterpretq_f16_u16(u);
    out[0] = vcvt_f32_f16(vget_low_f16(h));
    out[1] = vcvt_f32_f16(vget_high_f16(h));
}
INLINE void v_load_f8x2(const uint8_t *p, v16 *even, v16 *odd)
{
    for (int i = 0; i < 2; i++) {
        uint8x8x2_t x = vld2_u8(p + 16 * i);
        v_eight_f8(x.val[0], even->q + 2 * i);
        v_eight_f8(x.val[1], odd->q + 2 * i);
    }
}
INLINE int v_store_i8(int8_t *p, v16 x)
{
    int32x4_t r[4];
    for (int i = 0; i < 4; i++) // saturates; NaN: 0
        r[i] = vmaxq_s32(vminq_s32(vcvtnq_s32_f32(x.q[i]), vdupq_n_s32(127)), vdupq_n_s32(-127));
    int16x8_t a = vcombine_s16(vmovn_s32(r[0]), vmovn_s32(r[1])), b = vcombine_s16(vmovn_s32(r[2]), vmovn_s32(r[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
    return vaddvq_s16(vaddq_s16(a, b));
}
INLINE void v_store_bf16(uint16_t *p, v16 x)
{
    for (int i = 0; i < 4; i++) {
        uint32x4_t u = vreinterpretq_u32_f32(x.q[i]), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
        uint32x4_t r = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        r = vbslq_u32(vceqq_f32(x.q[i], x.q[i]), r, vorrq_u32(u, vdupq_n_u32(0x400000)));
        vst1_u16(p + 4 * i, vshrn_n_u32(r, 16));
    }
}
INLINE v16 v_max_abs(v16 top, v16 x)
{
#define F(i) vmaxnmq_f32(top.q[i], vabsq_f32(x.q[i]))
    return V_EACH4(F);
#undef F
}
INLINE float v_hmax(v16 x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.q[0], x.q[1]), vmaxq_f32(x.q[2], x.q[3]))); }
#else
#error "v16.h: no instruction set"
#endif

/* ---- What follows from them ---- */

INLINE v16 v_load_n(const float *p, int n, float fill) // n < 16 numbers, the rest `fill`
{
    float t[16];
    for (int i = 0; i < 16; i++) t[i] = fill;
    memcpy(t, p, (size_t)n * sizeof *t);
    return v_load(t);
}
INLINE void v_store_n(float *p, v16 a, int n)
{
    float t[16];
    v_store(t, a);
    memcpy(p, t, (size_t)n * sizeof *t);
}

/* 2^x.  x = n + f, |f| <= 1/2, and 2^f by a minimax polynomial of degree 6: relative error 2e-9 of the
 * polynomial, below 1.5 ulp in all (tested).  Below -126 exactly 0, above 128 infinite, from 127.5 on already
 * so where a scale of 2^128 has no form (all but AVX-512); NaN stays. */
INLINE v16 v_exp2(v16 x)
{
    v16 c = v_min(v_set1(128.5f), v_max(v_set1(-127), x)); // keeps a NaN: the second operand
    v16 n = v_round(c), f = v_sub(c, n);
    v16 p = v_set1(0x1.41d334p-13f);
    p = v_fma(p, f, v_set1(0x1.5f456ap-10f));
    p = v_fma(p, f, v_set1(0x1.3b2dbcp-7f));
    p = v_fma(p, f, v_set1(0x1.c6aed4p-5f));
    p = v_fma(p, f, v_set1(0x1.ebfbdap-3f));
    p = v_fma(p, f, v_set1(0x1.62e430p-1f));
    p = v_fma(p, f, v_set1(1));
    return v_keep_ge(v_scale2(p, n), x, v_set1(-126));
}

/* The same to 3e-6 (degree 4): for weights that are rounded to bf16, whose step is 4e-3.  x <= 0.5. */
INLINE v16 v_exp2_rough(v16 x)
{
    v16 c = v_max(v_set1(-127), x), n = v_round(c), f = v_sub(c, n);
    v16 p = v_set1(0x1.3997d6p-7f);
    p = v_fma(p, f, v_set1(0x1.ca1440p-5f));
    p = v_fma(p, f, v_set1(0x1.ec06dap-3f));
    p = v_fma(p, f, v_set1(0x1.62e0dcp-1f));
    p = v_fma(p, f, v_set1(0x1.ffffe8p-1f));
    return v_keep_ge(v_scale2(p, n), x, v_set1(-126));
}

/* e^x.  x = n ln 2 + f with ln 2 in two parts (Cody and Waite 1980), so that f keeps its bits; below 2
 * ulp (tested).  Below -87.3 exactly 0, above 89 infinite, from 88.37 (127.5 ln 2) on already outside
 * AVX-512; NaN stays. */
INLINE v16 v_exp(v16 x)
{
    v16 c = v_min(v_set1(89), v_max(v_set1(-88), x));
    v16 n = v_round(v_mul(c, v_set1(0x1.715476p+0f)));
    v16 f = v_fnma(n, v_set1(0x1.62e4p-1f), c); // 15 bits: n times it is exact
    f = v_fnma(n, v_set1(0x1.7f7d1cp-20f), f);
    v16 p = v_set1(0x1.6ab96ep-10f);
    p = v_fma(p, f, v_set1(0x1.126d1ep-7f));
    p = v_fma(p, f, v_set1(0x1.55589ap-5f));
    p = v_fma(p, f, v_set1(0x1.55540ap-3f));
    p = v_fma(p, f, v_set1(0x1.fffffap-2f));
    p = v_fma(p, f, v_set1(1));
    p = v_fma(p, f, v_set1(1));
    return v_keep_ge(v_scale2(p, n), x, v_set1(-0x1.5d589ep+6f)); // -126 ln 2
}

#endif
