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

/* So many quads' pairs of products are added in 16 bits: 8 x 2 x 15 x 127, 4 x 2 x 31 x 127 and 2 x 2 x 63 x 127 fit. */
INLINE int quads_in_16_bits(hd_panel_id id)
{
    switch (id) {
    case HD_PANEL_Q4_0:
    case HD_PANEL_Q4_1:
    case HD_PANEL_Q4_K: return 8;
    case HD_PANEL_Q5_0:
    case HD_PANEL_Q5_1:
    case HD_PANEL_Q5_K: return 4;
    case HD_PANEL_Q6_K: return 2;
    default: return 1;
    }
}

/* Adds quads j0..j1-1 of a block's outputs 8 z0 .. 8 z1 - 1 to the sums of each row of activations. */
INLINE void dot_quads(hd_panel_id id, int rows, int z0, int z1, __m256i s[][4], const uint8_t *p, int j0, int j1, const uint8_t *q, const tile *t)
{
    const int some = quads_in_16_bits(id);
    __asm__ volatile("" : "+r"(q)); // broadcasts are read anew: there is no room for a block's
    UNROLL for (int j = j0; j < j1; j += some)
        UNROLL for (int z = z0; z < z1; z++) {
            __m256i sum16[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            UNROLL for (int i = j; i < j + some; i++) {
                __m256i w = load_quad(id, p, i, z), a = is_signed(id) ? _mm256_abs_epi8(w) : w;
                UNROLL for (int m = 0; m < rows; m++) {
                    int32_t quad;
                    memcpy(&quad, AT(q + 4 * i, m), 4);
                    __m256i x = _mm256_set1_epi32(quad);
                    if (is_signed(id)) x = _mm256_sign_epi8(x, w);
                    sum16[m] = _mm256_add_epi16(sum16[m], _mm256_maddubs_epi16(a, x));
                    HERE(sum16[m]);
                }
            }
            UNROLL for (int m = 0; m < rows; m++) {
                s[m][z] = _mm256_add_epi32(s[m][z], _mm256_madd_epi16(sum16[m], _mm256_set1_epi16(1)));
                HERE(s[m][z]);
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
    const int at_once = id == HD_PANEL_Q8_0 ? 4 : 1; // registers of outputs: weights of a byte are read in order, others stay in the first level
    __m256 f[2][4];
    UNROLL for (int m = 0; m < rows; m++) UNROLL for (int z = 0; z < 4; z++) f[m][z] = _mm256_setzero_ps();
    for (int64_t b = 0; b < t->k / 32; b++, w += bytes, q += 32, scale++, xsum++, sum++) {
        UNROLL for (int z0 = 0; z0 < 4; z0 += at_once) {
            __m256i s[2][4];
            UNROLL for (int m = 0; m < rows; m++)
                UNROLL for (int z = z0; z < z0 + at_once; z++) s[m][z] = _mm256_set1_epi32(-offset_of(id) * *(const int16_t *)AT(sum, m));
            dot_quads(id, rows, z0, z0 + at_once, s, w + (min ? 2 : 1) * P_F16, 0, 8, q, t);
            UNROLL for (int z = z0; z < z0 + at_once; z++)
                UNROLL for (int m = 0; m < rows; m++) {
                    __m256 v = _mm256_mul_ps(load_f16(w + 16 * z), _mm256_set1_ps(*(const float *)AT(scale, m)));
                    f[m][z] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s[m][z]), v, f[m][z]);
                    if (min)
                        f[m][z] = _mm256_fmadd_ps(load_f16(w + P_F16 + 16 * z), _mm256_set1_ps(*(const float *)AT(xsum, m)), f[m][z]);
                }
        }
    }
    store_tile(rows, t, f);
}

INLINE __m256i load_8(hd_panel_id id, const uint8_t *p)
{
    __m128i v = _mm_loadl_epi64((const void *)p);
    return id == HD_PANEL_Q6_K ? _mm256_cvtepi8_epi32(v) : _mm256_cvtepu8_epi32(v);
}

/* Of two pairs of blocks the minima of 8 outputs, each times the sum of its activations. */
INLINE __m256i dot_mins(const uint8_t *min, int pair, const int16_t *sum32)
{
    __m256i s = _mm256_setzero_si256();
    UNROLL for (int p = 0; p < 2; p++) {
        int32_t two;
        memcpy(&two, sum32 + 2 * p, 4);
        const __m256i mn = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(min + p * pair)));
        s = _mm256_add_epi32(s, _mm256_madd_epi16(mn, _mm256_set1_epi32(two)));
    }
    return s;
}

INLINE void tile_k(hd_panel_id id, int rows, const tile *t)
{
    const bool six = id == HD_PANEL_Q6_K;
    const int head = six ? P_F16 : 2 * P_F16, pair = id == HD_PANEL_Q5_K ? P_Q5_K_PAIR : P_Q4_K_PAIR;
    const int parts = six ? 2 : 1, block = six ? P_Q6_K_BLOCK : (pair - 128) / 2;
    const int bytes = six ? P_Q6_K : head + 4 * pair;
    const uint8_t *q = t->act;
    const float *scale = (const float *)(const void *)(t->act + t->k);
    const int16_t *sum16 = (const int16_t *)(const void *)(scale + t->k / HD_Q8K_GROUP), *sum32 = sum16 + t->k / 16;
    for (int64_t g = 0; g < t->k / HD_Q8K_GROUP; g++, scale++) {
        const uint8_t *super = t->w + g / 2 * bytes;
        __m256i all[2][4];
        UNROLL for (int m = 0; m < rows; m++) UNROLL for (int z = 0; z < 4; z++) all[m][z] = _mm256_setzero_si256();
        for (int b = (int)(g % 2) * 4; b < (int)(g % 2) * 4 + 4; b++, q += 32, sum16 += 2) {
            const uint8_t *w = super + head + (six ? b * block : b / 2 * pair);
            const uint8_t *ints = six ? w + 64 : w + 128 + b % 2 * block;
            UNROLL for (int part = 0; part < parts; part++)
                UNROLL for (int z = 0; z < 4; z++) {
                    const __m256i sc = load_8(id, w + (six ? part : b % 2) * 32 + 8 * z);
                    __m256i s[2][4];
                    UNROLL for (int m = 0; m < rows; m++) s[m][z] = _mm256_set1_epi32(six ? -32 * *(const int16_t *)AT(sum16 + part, m) : 0);
                    dot_quads(id, rows, z, z + 1, s, ints, six ? 4 * part : 0, six ? 4 * part + 4 : 8, q, t);
                    UNROLL for (int m = 0; m < rows; m++) {
                        all[m][z] = _mm256_add_epi32(all[m][z], _mm256_mullo_epi32(s[m][z], sc));
                        HERE(all[m][z]);
                    }
                }
        }
        UNROLL for (int z = 0; z < 4; z++)
            UNROLL for (int m = 0; m < rows; m++) {
                __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(all[m][z]), load_f16(super + 16 * z));
                if (!six) {
                    const uint8_t *min = super + head + (int)(g % 2) * 2 * pair + 64 + 16 * z;
                    v = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(dot_mins(min, pair, AT(sum32, m))), load_f16(super + P_F16 + 16 * z), v);
                }
                float *y = t->y + m * t->ldy + 8 * z;
                const __m256 sum = g > 0 ? _mm256_loadu_ps(y) : _mm256_setzero_ps(); // waits in y: registers are few
                _mm256_storeu_ps(y, _mm256_fmadd_ps(v, _mm256_set1_ps(*(const float *)AT(scale, m)), sum));
            }
        sum32 += 4;
    }
}

#define SIMPLE(name, ID) MUL(name, 2, tile_simple(HD_PANEL_##ID, rows, P_##ID, t))
#define SUPER(name, ID)  MUL(name, 2, tile_k(HD_PANEL_##ID, rows, t))
SIMPLE_PANELS(SIMPLE)
K_PANELS(SUPER)

void hd_fill_mul_avx2(hd_kernels *k) { SIMPLE_PANELS(MUL_FILL) K_PANELS(MUL_FILL) }
