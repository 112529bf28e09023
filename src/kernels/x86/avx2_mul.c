/* Products with AVX2 and FMA: 4 registers of 8 outputs make a panel, 1 or 2 rows of activations a tile.
 *
 * vpmaddubsw adds two products of unsigned by signed bytes into 16 bits and saturates: 2 * 63 * 127 fits, 2 * 255 * 127
 * does not.  So weights of up to 6 bits stay unsigned and the offset is taken off the integer sum; 8-bit ones are
 * made signed and multiplied as |w| by sign(w) x, at most 2 * 128 * 127 = 32512. */
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

typedef struct {
    const uint8_t *w, *act;
    int64_t k;
    size_t stride;
    float *y;
    int64_t ldy;
} tile;

#define AT(p, m) ((const void *)((const uint8_t *)(p) + (size_t)(m) * t->stride)) // the same place in row m

INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const void *)p); }
INLINE __m256 load_f16(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }

INLINE bool is_signed(hd_panel_id id) { return id == HD_PANEL_Q8_0 || id == HD_PANEL_IQ4_NL; }
INLINE int offset_of(hd_panel_id id)
{
    return id == HD_PANEL_Q4_0 ? 8 : id == HD_PANEL_Q5_0 ? 16 : id == HD_PANEL_Q6_K ? 32 : 0;
}

/* Quad j of rows 8z..8z+7. */
INLINE __m256i load_quad(hd_panel_id id, const uint8_t *p, int j, int z)
{
    if (id == HD_PANEL_Q8_0) return _mm256_xor_si256(load(p + (j * 32 + 8 * z) * 4), _mm256_set1_epi8(-128));
    __m256i v = load(p + (j / 2 * 32 + 8 * z) * 4);
    v = _mm256_and_si256(j & 1 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
    if (id == HD_PANEL_Q5_0 || id == HD_PANEL_Q5_1 || id == HD_PANEL_Q5_K) {
        __m256i h = load(p + P_LOW + 32 * z);
        h = j < 4 ? _mm256_slli_epi16(h, 4 - j) : _mm256_srli_epi16(h, j - 4);
        v = _mm256_or_si256(v, _mm256_and_si256(h, _mm256_set1_epi8(0x10)));
    }
    if (id == HD_PANEL_Q6_K) {
        __m256i h = load(p + P_LOW + (j / 4 * 32 + 8 * z) * 4);
        h = j % 4 < 2 ? _mm256_slli_epi16(h, 4 - j % 4 * 2) : _mm256_srli_epi16(h, j % 4 * 2 - 4);
        v = _mm256_or_si256(v, _mm256_and_si256(h, _mm256_set1_epi8(0x30)));
    }
    if (id == HD_PANEL_IQ4_NL)
        v = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)hd_iq4_values)), v);
    return v;
}

/* Quads j0..j1-1 of a block into sums, 8 outputs each. */
INLINE void dot_quads(hd_panel_id id, int rows, __m256i s[][4], const uint8_t *p, int j0, int j1, const uint8_t *q,
                      const tile *t)
{
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL for (int j = j0; j < j1; j++)
        UNROLL for (int z = 0; z < 4; z++) {
            __m256i w = load_quad(id, p, j, z), a = is_signed(id) ? _mm256_abs_epi8(w) : w;
            UNROLL for (int m = 0; m < rows; m++) {
                int32_t quad;
                memcpy(&quad, AT(q + 4 * j, m), 4);
                __m256i x = _mm256_set1_epi32(quad);
                if (is_signed(id)) x = _mm256_sign_epi8(x, w);
                s[m][z] = _mm256_add_epi32(s[m][z], _mm256_madd_epi16(_mm256_maddubs_epi16(a, x), ones));
            }
        }
}

INLINE void store_tile(int rows, const tile *t, __m256 f[][4])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 4; z++) _mm256_storeu_ps(t->y + m * t->ldy + 8 * z, f[m][z]);
}

INLINE void tile_simple(hd_panel_id id, int rows, int bytes, const tile *t)
{
    const bool min = id == HD_PANEL_Q4_1 || id == HD_PANEL_Q5_1;
    const int64_t kp = (t->k + 63) / 64 * 64;
    const uint8_t *w = t->w, *q = t->act;
    const float *scale = (const float *)(const void *)(t->act + kp), *xsum = scale + kp / 32;
    const int16_t *sum = (const int16_t *)(const void *)(xsum + kp / 32);
    __m256 f[2][4];
    UNROLL for (int m = 0; m < rows; m++) UNROLL for (int z = 0; z < 4; z++) f[m][z] = _mm256_setzero_ps();
    for (int64_t b = 0; b < t->k / 32; b++, w += bytes, q += 32, scale++, xsum++, sum++) {
        __m256i s[2][4];
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < 4; z++) s[m][z] = _mm256_set1_epi32(-offset_of(id) * *(const int16_t *)AT(sum, m));
        dot_quads(id, rows, s, w + (min ? 2 : 1) * P_F16, 0, 8, q, t);
        UNROLL for (int z = 0; z < 4; z++)
            UNROLL for (int m = 0; m < rows; m++) {
                __m256 v = _mm256_mul_ps(load_f16(w + 16 * z), _mm256_set1_ps(*(const float *)AT(scale, m)));
                f[m][z] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s[m][z]), v, f[m][z]);
                if (min)
                    f[m][z] = _mm256_fmadd_ps(load_f16(w + P_F16 + 16 * z),
                                              _mm256_set1_ps(*(const float *)AT(xsum, m)), f[m][z]);
            }
    }
    store_tile(rows, t, f);
}

INLINE __m256i load_8(hd_panel_id id, const uint8_t *p)
{
    __m128i v = _mm_loadl_epi64((const void *)p);
    return id == HD_PANEL_Q6_K ? _mm256_cvtepi8_epi32(v) : _mm256_cvtepu8_epi32(v);
}

INLINE void tile_k(hd_panel_id id, int rows, const tile *t)
{
    const bool six = id == HD_PANEL_Q6_K;
    const int head = six ? P_F16 : 2 * P_F16, pair = id == HD_PANEL_Q5_K ? P_Q5_K_PAIR : P_Q4_K_PAIR;
    const int parts = six ? 2 : 1, block = six ? P_Q6_K_BLOCK : (pair - 128) / 2;
    const int bytes = six ? P_Q6_K : head + 4 * pair;
    const float *scale = (const float *)(const void *)(t->act + t->k);
    const int16_t *sum16 = (const int16_t *)(const void *)(scale + t->k / HD_Q8K_GROUP), *sum32 = sum16 + t->k / 16;
    __m256 f[2][4];
    UNROLL for (int m = 0; m < rows; m++) UNROLL for (int z = 0; z < 4; z++) f[m][z] = _mm256_setzero_ps();
    for (int64_t g = 0; g < t->k / HD_Q8K_GROUP; g++) {
        const uint8_t *super = t->w + g / 2 * bytes;
        __m256i all[2][4], mins[2][4];
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < 4; z++) all[m][z] = mins[m][z] = _mm256_setzero_si256();
        for (int b = (int)(g % 2) * 4; b < (int)(g % 2) * 4 + 4; b++) {
            const uint8_t *w = super + head + (six ? b * block : b / 2 * pair);
            const uint8_t *ints = six ? w + 64 : w + 128 + b % 2 * block;
            int64_t at = g / 2 * 8 + b;
            if (!six && b % 2 == 0)
                UNROLL for (int z = 0; z < 4; z++)
                    UNROLL for (int m = 0; m < rows; m++) {
                        int32_t two;
                        memcpy(&two, AT(sum32 + at, m), 4);
                        __m256i mn = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(w + 64 + 16 * z)));
                        mins[m][z] = _mm256_add_epi32(mins[m][z], _mm256_madd_epi16(mn, _mm256_set1_epi32(two)));
                    }
            UNROLL for (int part = 0; part < parts; part++) {
                __m256i s[2][4];
                UNROLL for (int m = 0; m < rows; m++)
                    UNROLL for (int z = 0; z < 4; z++)
                        s[m][z] = _mm256_set1_epi32(six ? -32 * *(const int16_t *)AT(sum16 + 2 * at + part, m) : 0);
                dot_quads(id, rows, s, ints, six ? 4 * part : 0, six ? 4 * part + 4 : 8, t->act + at * 32, t);
                UNROLL for (int z = 0; z < 4; z++) {
                    __m256i sc = load_8(id, w + (six ? part : b % 2) * 32 + 8 * z);
                    UNROLL for (int m = 0; m < rows; m++)
                        all[m][z] = _mm256_add_epi32(all[m][z], _mm256_mullo_epi32(s[m][z], sc));
                }
            }
        }
        UNROLL for (int z = 0; z < 4; z++)
            UNROLL for (int m = 0; m < rows; m++) {
                __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(all[m][z]), load_f16(super + 16 * z));
                if (!six) v = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(mins[m][z]), load_f16(super + P_F16 + 16 * z), v);
                f[m][z] = _mm256_fmadd_ps(v, _mm256_set1_ps(*(const float *)AT(scale + g, m)), f[m][z]);
            }
    }
    store_tile(rows, t, f);
}

/* Floats: one chain of FMAs per output in order of k.  bf16 comes in pairs. */
INLINE void tile_float(hd_panel_id id, int rows, const tile *t)
{
    __m256 f[2][4];
    UNROLL for (int m = 0; m < rows; m++) UNROLL for (int z = 0; z < 4; z++) f[m][z] = _mm256_setzero_ps();
    for (int64_t i = 0; i < t->k; i++)
        UNROLL for (int m = 0; m < rows; m++) {
            uint32_t u = 0;
            if (id == HD_PANEL_BF16) memcpy((uint8_t *)&u + 2, AT(t->act + i * 2, m), 2);
            else memcpy(&u, AT(t->act + i * 4, m), 4);
            __m256 x = _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)u));
            UNROLL for (int z = 0; z < 4; z++) {
                __m256 w;
                if (id == HD_PANEL_F32) w = _mm256_loadu_ps((const float *)(const void *)(t->w + i * 128 + 32 * z));
                else if (id == HD_PANEL_F16) w = load_f16(t->w + i * 64 + 16 * z);
                else {
                    __m256i v = load(t->w + i / 2 * 128 + 32 * z);
                    w = _mm256_castsi256_ps(i & 1 ? _mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000))
                                                  : _mm256_slli_epi32(v, 16));
                }
                f[m][z] = _mm256_fmadd_ps(w, x, f[m][z]);
            }
        }
    store_tile(rows, t, f);
}

/* Both elements of a pair of fp8, 8 rows.  e4m3 shifted left by 7 in 16 bits is an f16 of value times 2^-8, subnormals
 * included; the 2^8 goes into the scale. */
INLINE void load_f8(const uint8_t *p, __m256 w[2])
{
    __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)p));
    v = _mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x7f)), 7),
                        _mm256_slli_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x80)), 8));
    /* even elements to the lower half, odd ones to the upper */
    v = _mm256_packus_epi32(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32(v, 16));
    v = _mm256_permute4x64_epi64(v, 0xd8);
    w[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(v));
    w[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1));
}

/* One chain of FMAs per 128, then  y += scale * chain. */
INLINE void tile_f8(int rows, const tile *t)
{
    __m256 f[2][4];
    UNROLL for (int m = 0; m < rows; m++) UNROLL for (int z = 0; z < 4; z++) f[m][z] = _mm256_setzero_ps();
    for (int64_t i0 = 0; i0 < t->k; i0 += 128) {
        const uint8_t *p = t->w + i0 / 128 * P_F8;
        const int64_t n = t->k - i0 < 128 ? t->k - i0 : 128;
        __m256 g[2][4];
        float scale;
        memcpy(&scale, p, 4);
        UNROLL for (int m = 0; m < rows; m++) UNROLL for (int z = 0; z < 4; z++) g[m][z] = _mm256_setzero_ps();
        for (int64_t i = 0; i < n; i += 2) { // an odd k has a zero behind it
            __m256 x[2][2];
            UNROLL for (int m = 0; m < rows; m++) {
                uint32_t two;
                memcpy(&two, AT(t->act + (i0 + i) * 2, m), 4);
                x[m][0] = _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)(two << 16)));
                x[m][1] = _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)(two & 0xffff0000)));
            }
            UNROLL for (int z = 0; z < 4; z++) {
                __m256 w[2];
                load_f8(p + 64 + i * 32 + 16 * z, w);
                UNROLL for (int m = 0; m < rows; m++)
                    UNROLL for (int e = 0; e < 2; e++) g[m][z] = _mm256_fmadd_ps(w[e], x[m][e], g[m][z]);
            }
        }
        const __m256 s = _mm256_set1_ps(scale * 256);
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < 4; z++) f[m][z] = _mm256_fmadd_ps(g[m][z], s, f[m][z]);
    }
    store_tile(rows, t, f);
}

#define MUL(name, one, two)                                                                                  \
    static void one_##name(const tile *t) { one; }                                                           \
    static void two_##name(const tile *t) { two; }                                                           \
    static void mul_##name(const void *panel, int64_t k, const uint8_t *act, size_t stride, int M, float *y, \
                           int64_t ldy, void *scratch)                                                       \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        for (int m = 0; m < M; m += 2) {                                                                     \
            tile t = {panel, act + (size_t)m * stride, k, stride, y + m * ldy, ldy};                         \
            if (m + 1 < M) two_##name(&t);                                                                   \
            else one_##name(&t);                                                                             \
        }                                                                                                    \
    }
#define SIMPLE(name, id, bytes) MUL(name, tile_simple(id, 1, bytes, t), tile_simple(id, 2, bytes, t))
#define SUPER(name, id) MUL(name, tile_k(id, 1, t), tile_k(id, 2, t))
#define FLOAT(name, id) MUL(name, tile_float(id, 1, t), tile_float(id, 2, t))

FLOAT(f32, HD_PANEL_F32)
FLOAT(f16, HD_PANEL_F16)
FLOAT(bf16, HD_PANEL_BF16)
MUL(f8, tile_f8(1, t), tile_f8(2, t))
SIMPLE(q8_0, HD_PANEL_Q8_0, P_Q8_0)
SIMPLE(q4_0, HD_PANEL_Q4_0, P_Q4_0)
SIMPLE(q4_1, HD_PANEL_Q4_1, P_Q4_1)
SIMPLE(q5_0, HD_PANEL_Q5_0, P_Q5_0)
SIMPLE(q5_1, HD_PANEL_Q5_1, P_Q5_1)
SIMPLE(iq4_nl, HD_PANEL_IQ4_NL, P_Q4_0)
SUPER(q4_k, HD_PANEL_Q4_K)
SUPER(q5_k, HD_PANEL_Q5_K)
SUPER(q6_k, HD_PANEL_Q6_K)

void hd_fill_mul_avx2(hd_kernels *k)
{
    k->panel_mul[HD_PANEL_F32] = mul_f32;
    k->panel_mul[HD_PANEL_F16] = mul_f16;
    k->panel_mul[HD_PANEL_BF16] = mul_bf16;
    k->panel_mul[HD_PANEL_F8] = mul_f8;
    k->panel_mul[HD_PANEL_Q8_0] = mul_q8_0;
    k->panel_mul[HD_PANEL_Q4_0] = mul_q4_0;
    k->panel_mul[HD_PANEL_Q4_1] = mul_q4_1;
    k->panel_mul[HD_PANEL_Q5_0] = mul_q5_0;
    k->panel_mul[HD_PANEL_Q5_1] = mul_q5_1;
    k->panel_mul[HD_PANEL_IQ4_NL] = mul_iq4_nl;
    k->panel_mul[HD_PANEL_Q4_K] = mul_q4_k;
    k->panel_mul[HD_PANEL_Q5_K] = mul_q5_k;
    k->panel_mul[HD_PANEL_Q6_K] = mul_q6_k;
}
