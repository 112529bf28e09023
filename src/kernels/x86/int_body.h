/* Integer products with AVX-512 VNNI, included by the levels that differ in how weights are fetched.  Private
 * to src/kernels/x86.
 *
 * vpdpbusd multiplies 4 unsigned weights by 4 signed activations into each of 16 lanes (= outputs).  A tile
 * is one panel (two registers of outputs) by a few rows of activations: a weight register is loaded once for
 * all rows, and the activations' quads are broadcast from memory.  Weights are unsigned, so the integer sum
 * starts at -offset * sum(q): exact.  Only the float additions have an order, one per block or group,
 * whatever the tile.
 *
 * Before including, a level defines
 *
 *   static void fetch_weights(hd_panel_id id, int rows, const uint8_t *p, int n_bytes)
 *
 * which is called before a tile of `rows` rows reads n_bytes at p, so that it can ask for as many that lie
 * ahead, or for these. */
#include "kernels/tile.h"
#include "kernels/x86/vnni_int.h"

INLINE __m512i dot(__m512i sum, __m512i w, const uint8_t *q)
{
    int32_t quad;
    memcpy(&quad, q, 4);
    return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(quad));
}

/* -offset * sum in every lane: one load and one vpmaddwd. */
INLINE __m512i minus_offset(int offset, const int16_t *sum)
{
    return _mm512_madd_epi16(_mm512_set1_epi16(*sum), _mm512_set1_epi32(-offset & 0xffff));
}

/* Adds quads j0..j1-1 (pairs) of one block to the sums; q: the block's activations of row 0. */
INLINE void dot_quads(hd_panel_id id, int rows, __m512i s[][2], const uint8_t *p, int j0, int j1, const uint8_t *q,
                      size_t stride)
{
    UNROLL for (int j = j0; j < j1; j++) {
        __m512i w[2][2];
        UNROLL for (int z = 0; z < 2; z++) load_quads(id, p, j, z, w[z]);
        UNROLL for (int i = 0; i < 2; i++)
            UNROLL for (int m = 0; m < rows; m++)
                UNROLL for (int z = 0; z < 2; z++)
                    s[m][z] = dot(s[m][z], w[z][i], q + (size_t)m * stride + (2 * j + i) * 4);
    }
}

INLINE void store_tile(int rows, const tile *t, __m512 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) _mm512_storeu_ps(t->y + m * t->ldy + 16 * z, f[m][z]);
}

/* One f16 scale per block:  y += (d scale) dot  [+ m xsum] */
INLINE void tile_simple(hd_panel_id id, int rows, int bytes, const tile *t)
{
    const bool min = id == HD_PANEL_Q4_1 || id == HD_PANEL_Q5_1;
    const int head = min ? 2 * P_F16 : P_F16, offset = offset_of(id);
    const int64_t kp = (t->k + 63) / 64 * 64, nb = t->k / 32;
    const uint8_t *w = t->w, *q = t->act;
    const float *scale = (const float *)(const void *)(t->act + kp), *xsum = scale + kp / 32;
    const int16_t *sum = (const int16_t *)(const void *)(xsum + kp / 32);
    __m512 f[8][2];
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = _mm512_setzero_ps();
    for (int64_t b = 0; b < nb; b++, w += bytes, q += 32, scale++, xsum++, sum++) {
        __m512i s[8][2];
        fetch_weights(id, rows, w, bytes);
        UNROLL for (int m = 0; m < rows; m++)
            s[m][0] = s[m][1] = offset ? minus_offset(offset, AT(sum, m)) : _mm512_setzero_si512();
        dot_quads(id, rows, s, w + head, 0, 4, q, t->stride);
        __m512 d[2] = {load_f16(w), load_f16(w + 32)};
        UNROLL for (int m = 0; m < rows; m++) {
            __m512 v = _mm512_set1_ps(*(const float *)AT(scale, m));
            UNROLL for (int z = 0; z < 2; z++)
                f[m][z] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[m][z]), _mm512_mul_ps(d[z], v), f[m][z]);
        }
        if (min) {
            __m512 c[2] = {load_f16(w + P_F16), load_f16(w + P_F16 + 32)};
            UNROLL for (int m = 0; m < rows; m++) {
                __m512 v = _mm512_set1_ps(*(const float *)AT(xsum, m));
                UNROLL for (int z = 0; z < 2; z++) f[m][z] = _mm512_fmadd_ps(c[z], v, f[m][z]);
            }
        }
    }
    store_tile(rows, t, f);
}

/* Adds a pair of blocks' minima, each times the sum of its activations. */
INLINE void dot_mins(int rows, __m512i mins[][2], const uint8_t *min, const int16_t *sum32, const tile *t)
{
    UNROLL for (int z = 0; z < 2; z++) {
        const __m512i two_of_each = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(min + 32 * z)));
        UNROLL for (int m = 0; m < rows; m++) {
            int32_t sums;
            memcpy(&sums, AT(sum32, m), 4);
            mins[m][z] = _mm512_dpwssd_epi32(mins[m][z], two_of_each, _mm512_set1_epi32(sums));
        }
    }
}

/* K formats: in a group of 128 the blocks' dots are weighted by their integer scales and summed exactly;
 *   y += scale (d group - dmin mins)
 * Registers hold the sums of a group's dots: the minima come behind them, and an output's sum waits in y. */
INLINE void tile_k(hd_panel_id id, int rows, const tile *t)
{
    const bool six = id == HD_PANEL_Q6_K;
    const int head = six ? P_F16 : 2 * P_F16, pair = id == HD_PANEL_Q5_K ? P_Q5_K_PAIR : P_Q4_K_PAIR;
    const int parts = six ? 2 : 1, block = six ? P_Q6_K_BLOCK : (pair - 128) / 2;
    const uint8_t *super = t->w, *w = super, *q = t->act;
    const float *scale = (const float *)(const void *)(t->act + t->k);
    const int16_t *sum16 = (const int16_t *)(const void *)(scale + t->k / HD_Q8K_GROUP), *sum32 = sum16 + t->k / 16;
    for (int64_t g = 0; g < t->k / HD_Q8K_GROUP; g++, scale++) {
        const __mmask16 seen = g > 0 ? 0xffff : 0; // of sums, which wait in y
        __m512i all[8][2], mins[8][2];
        if (g % 2 == 0) {
            super = w;
            fetch_weights(id, rows, w, head);
            w += head;
        }
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < 2; z++) all[m][z] = mins[m][z] = _mm512_setzero_si512();
        for (int p = 0; p < 2; p++) { // pairs of blocks
            if (!six) fetch_weights(id, rows, w, 128);
            UNROLL for (int h = 0; h < 2; h++, q += 32, sum16 += 2) {
                const uint8_t *ints = six ? w + 64 : w + 128 + h * block;
                fetch_weights(id, rows, six ? w : ints, block);
                UNROLL for (int part = 0; part < parts; part++) { // q6_K: a scale per 16
                    __m512i s[8][2];
                    UNROLL for (int m = 0; m < rows; m++)
                        s[m][0] = s[m][1] = six ? minus_offset(32, (const int16_t *)AT(sum16, m) + part)
                                                : _mm512_setzero_si512();
                    dot_quads(id, rows, s, ints, six ? 2 * part : 0, six ? 2 * part + 2 : 4, q, t->stride);
                    UNROLL for (int z = 0; z < 2; z++) {
                        __m512i sc = six ? load_i8(w + 32 * part + 16 * z) : load_u8(w + 32 * h + 16 * z);
                        UNROLL for (int m = 0; m < rows; m++) {
                            all[m][z] = _mm512_add_epi32(all[m][z], _mm512_mullo_epi32(s[m][z], sc));
                            HERE(all[m][z]);
                        }
                    }
                }
                if (six) w += block;
            }
            if (!six) w += pair;
        }
        UNROLL for (int p = 2; p > 0 && !six; p--, sum32 += 2) dot_mins(rows, mins, w - p * pair + 64, sum32, t);
        UNROLL for (int z = 0; z < 2; z++) {
            __m512 d = load_f16(super + 32 * z), dmin = six ? d : load_f16(super + P_F16 + 32 * z);
            UNROLL for (int m = 0; m < rows; m++) {
                __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(all[m][z]), d);
                if (!six) v = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins[m][z]), dmin, v);
                float *y = t->y + m * t->ldy + 16 * z;
                _mm512_storeu_ps(y, _mm512_fmadd_ps(v, _mm512_set1_ps(*(const float *)AT(scale, m)), _mm512_maskz_loadu_ps(seen, y)));
            }
        }
    }
}

#define SIMPLE(name, ID) MUL(name, 6, tile_simple(HD_PANEL_##ID, rows, P_##ID, t))
#define SUPER(name, ID)  MUL(name, 4, tile_k(HD_PANEL_##ID, rows, t))
SIMPLE_PANELS(SIMPLE)
K_PANELS(SUPER)
