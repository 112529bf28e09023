/* Packing of activations with AVX2: the same numbers as in plain C. */
#include <immintrin.h>
#include <string.h>

#include "kernels/level.h"
#include "kernels/panel.h"

#define INLINE static inline __attribute__((always_inline))
#if defined __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* 8n numbers (at most 128), zero past `left`. */
INLINE void load_group(__m256 v[], int n, const float *x, int64_t left)
{
    float end[128];
    if (left < 8 * n) {
        memset(end, 0, sizeof end);
        if (left > 0) memcpy(end, x, (size_t)left * 4);
        x = end;
    }
    UNROLL for (int i = 0; i < n; i++) v[i] = _mm256_loadu_ps(x + 8 * i);
}

INLINE float max_of(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

INLINE int sum_of(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
    return _mm_cvtsi128_si32(s) + _mm_extract_epi32(s, 1);
}

/* 16n numbers with one scale, which is returned; sums: of each 16. */
INLINE float quantize(int n, int8_t *q, const float *x, int64_t left, int sums[])
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256i most = _mm256_set1_epi32(127), least = _mm256_set1_epi32(-127);
    __m256 v[16], top = _mm256_setzero_ps();
    load_group(v, 2 * n, x, left);
    UNROLL for (int i = 0; i < 2 * n; i++) top = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), top); // NaN loses
    const float max = max_of(top);
    const __m256 inv = _mm256_set1_ps(max > 0 ? 127.0f / max : 0);
    UNROLL for (int i = 0; i < n; i++) {
        __m256i r[2];
        UNROLL for (int j = 0; j < 2; j++) { // NaN becomes INT_MIN, saturated below
            r[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * i + j], inv));
            r[j] = _mm256_max_epi32(_mm256_min_epi32(r[j], most), least);
        }
        __m256i p = _mm256_permute4x64_epi64(_mm256_packs_epi32(r[0], r[1]), 0xd8); // packs works in halves
        _mm_storeu_si128((void *)(q + 16 * i), _mm_packs_epi16(_mm256_castsi256_si128(p), _mm256_extracti128_si256(p, 1)));
        sums[i] = sum_of(_mm256_add_epi32(r[0], r[1]));
    }
    return max / 127.0f;
}

static void pack_q8(uint8_t *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    float *scale = (float *)(void *)(blob + kp), *xsum = scale + kp / 32;
    int16_t *sum = (int16_t *)(void *)(xsum + kp / 32);
    for (int64_t b = 0; b < kp / 32; b++) {
        int s[2];
        scale[b] = quantize(2, (int8_t *)blob + 32 * b, x + (32 * b < k ? 32 * b : 0), k - 32 * b, s);
        sum[b] = (int16_t)(s[0] + s[1]);
        xsum[b] = scale[b] * (float)sum[b];
    }
}

static void pack_q8k(uint8_t *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 255) / 256 * 256;
    float *scale = (float *)(void *)(blob + kp);
    int16_t *sum16 = (int16_t *)(void *)(scale + kp / HD_Q8K_GROUP), *sum32 = sum16 + kp / 16;
    for (int64_t g = 0; g < kp / HD_Q8K_GROUP; g++) {
        const int64_t i = g * HD_Q8K_GROUP;
        int s[8];
        scale[g] = quantize(8, (int8_t *)blob + i, x + (i < k ? i : 0), k - i, s);
        for (int b = 0; b < 8; b++) sum16[8 * g + b] = (int16_t)s[b];
        for (int b = 0; b < 4; b++) sum32[4 * g + b] = (int16_t)(s[2 * b] + s[2 * b + 1]);
    }
}

/* Round to nearest even; NaN stays NaN. */
static void pack_bf16(uint8_t *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    for (int64_t i = 0; i < kp; i += 8) {
        __m256 v;
        load_group(&v, 1, x + (i < k ? i : 0), k - i);
        __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
        __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        r = _mm256_srli_epi32(_mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan), 16);
        _mm_storeu_si128((void *)(blob + 2 * i),
                         _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)));
    }
}

static void act_pack(hd_act_kind kind, void *blob, const float *x, int64_t k)
{
    const int64_t kp = (k + 63) / 64 * 64;
    switch (kind) {
    case HD_ACT_F32:
        memcpy(blob, x, (size_t)k * 4);
        memset((float *)blob + k, 0, (size_t)(kp - k) * 4);
        break;
    case HD_ACT_BF16: pack_bf16(blob, x, k); break;
    case HD_ACT_Q8: pack_q8(blob, x, k); break;
    case HD_ACT_Q8K: pack_q8k(blob, x, k); break;
    case HD_N_ACT: break;
    }
}

void hd_fill_act_avx2(hd_kernels *k) { k->act_pack = act_pack; }
