/* Integer products with AVX2 and FMA: 4 registers of 8 outputs make a panel, 1 or 2 rows of
 * activations a tile.
 *
 * vpmaddubsw adds two products of unsigned by signed bytes into 16 bits and saturates: 2 * 63 * 127 fits, 2 *
 * 255 * 127 does not.  So weights of up to 6 bits stay unsigned and the offset is taken off the integer sum;
 * 8-bit ones are made signed and multiplied as |w| by sign(w) x, at most 2 * 128 * 127 = 32512. */
#include <immintrin.h>
#include <string.h>

#include "kernels/level.h"
#include "kernels/tile.h"

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

#define SIMPLE(name, ID) MUL(name, 2, tile_simple(HD_PANEL_##ID, rows, P_##ID, t))
#define SUPER(name, ID)  MUL(name, 2, tile_k(HD_PANEL_##ID, rows, t))
SIMPLE_PANELS(SIMPLE)
K_PANELS(SUPER)

void hd_fill_mul_avx2(hd_kernels *k) { SIMPLE_PANELS(MUL_FILL) K_PANELS(MUL_FILL) }
