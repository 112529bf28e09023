/* Products of float panels over v16, included by each level's file, which defines
 *   ROWS               the most rows of a tile
 *   HALVES             of a panel whose pairs of weights are in registers at a time: 1 where those are few,
 *                      else 2
 *   FETCH(p, bytes)    asks for the weights from p on; nothing where the hardware's own prefetcher is as good
 *
 * Weights are widened to f32 in registers.  An output's products are added in order of k by one chain of
 * FMAs, whatever the tile; fp8 has one chain per 128, whose scale is multiplied in at its end. */
#include <string.h>

#include "kernels/level.h"
#include "kernels/tile.h"
#include "kernels/v16.h"

INLINE float act_f32(const tile *t, int m, int64_t i) { return *(const float *)AT(t->act + i * 4, m); }
INLINE float act_bf16(const tile *t, int m, int64_t i) { return hd_bf16_to_f32(*(const uint16_t *)AT(t->act + i * 2, m)); }

INLINE void zero_tile(int rows, v16 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++) f[m][0] = f[m][1] = v_set1(0);
}
/* Element i of `halves` of the panel from z0 on. */
INLINE void add_products(int rows, int z0, int halves, v16 f[][2], const tile *t, const v16 w[2], int64_t i, bool bf16)
{
    UNROLL for (int m = 0; m < rows; m++) {
        const v16 x = v_set1(bf16 ? act_bf16(t, m, i) : act_f32(t, m, i));
        UNROLL for (int z = 0; z < halves; z++) f[m][z0 + z] = v_fma(w[z], x, f[m][z0 + z]);
    }
}
INLINE void store_tile(int rows, const tile *t, v16 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) v_store(t->y + m * t->ldy + 16 * z, f[m][z]);
}

INLINE void begin_tile(int rows, const tile *t, v16 f[][2])
{
    if (!t->add) zero_tile(rows, f);
    else
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < 2; z++) f[m][z] = v_load(t->y + m * t->ldy + 16 * z);
}

INLINE void tile_single(bool f16, int rows, const tile *t)
{
    v16 f[ROWS][2];
    zero_tile(rows, f);
    for (int64_t i = 0; i < t->k; i++) {
        const uint8_t *p = t->w + i * (f16 ? 64 : 128);
        v16 w[2];
        FETCH(p, f16 ? 64 : 128);
        UNROLL for (int z = 0; z < 2; z++)
            w[z] = f16 ? v_load_f16((const uint16_t *)(const void *)(p + 32 * z)) : v_load((const float *)(const void *)(p + 64 * z));
        add_products(rows, 0, 2, f, t, w, i, false);
    }
    store_tile(rows, t, f);
}

/* n pairs of k, bf16 or fp8; an odd k has a zero behind it, in the panel and in the blob. */
INLINE void add_pairs(bool f8, int rows, v16 f[][2], const tile *t, const uint8_t *p, int64_t k0, int64_t n)
{
    for (int64_t i = 0; i < n; i++, p += f8 ? 64 : 128) {
        FETCH(p, f8 ? 64 : 128);
        UNROLL for (int z0 = 0; z0 < 2; z0 += HALVES) {
            v16 w[2][2]; // even and odd elements
            UNROLL for (int z = 0; z < HALVES; z++)
                if (f8) v_load_f8x2(p + 32 * (z0 + z), &w[0][z], &w[1][z]);
                else v_load_bf16x2((const uint16_t *)(const void *)(p + 64 * (z0 + z)), &w[0][z], &w[1][z]);
            UNROLL for (int e = 0; e < 2; e++) add_products(rows, z0, HALVES, f, t, w[e], k0 + 2 * i + e, true);
        }
    }
}

INLINE void tile_bf16(int rows, const tile *t)
{
    v16 f[ROWS][2];
    zero_tile(rows, f);
    add_pairs(false, rows, f, t, t->w, 0, (t->k + 1) / 2);
    store_tile(rows, t, f);
}

/* The same with rows of HD_ACT_WIDE: few of them by a panel of bf16 ... */
INLINE void tile_wide_few(int rows, const tile *t)
{
    v16 f[ROWS][2];
    begin_tile(rows, t, f);
    for (int64_t i = 0; i < t->k; i += 2) {
        const uint8_t *p = t->w + i * 64;
        FETCH(p, 128);
        UNROLL for (int z0 = 0; z0 < 2; z0 += HALVES) {
            v16 w[2][2]; // even and odd elements
            UNROLL for (int z = 0; z < HALVES; z++)
                v_load_bf16x2((const uint16_t *)(const void *)(p + 64 * (z0 + z)), &w[0][z], &w[1][z]);
            UNROLL for (int e = 0; e < 2; e++) add_products(rows, z0, HALVES, f, t, w[e], i + e, false);
        }
    }
    store_tile(rows, t, f);
}

/* ... or many by a part of one that is widened already. */
INLINE void tile_wide_many(int rows, const tile *t)
{
    v16 f[ROWS][2];
    begin_tile(rows, t, f);
    for (int64_t i = 0; i < t->k; i++) {
        const float *p = (const float *)(const void *)t->w + 32 * i;
        const v16 w[2] = {v_load(p), v_load(p + 16)};
        add_products(rows, 0, 2, f, t, w, i, false);
    }
    store_tile(rows, t, f);
}

INLINE void tile_f8(int rows, const tile *t)
{
    v16 f[ROWS][2], g[ROWS][2];
    zero_tile(rows, f);
    for (int64_t i = 0; i < t->k; i += 128) {
        const uint8_t *p = t->w + i / 128 * P_F8;
        const int64_t n = t->k - i < 128 ? t->k - i : 128;
        float scale;
        memcpy(&scale, p, 4);
        zero_tile(rows, g);
        add_pairs(true, rows, g, t, p + 64, i, (n + 1) / 2);
        const v16 s = v_set1(scale * 256); // v_load_f8x2 gives 2^-8 of a weight
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < 2; z++) f[m][z] = v_fma(g[m][z], s, f[m][z]);
    }
    store_tile(rows, t, f);
}

/* ---- bf12 (panel_bf12.c) ------------------------------------------------------------------------------- */

/* Four elements, the half of an oct, of rows 16z..16z+15. */
INLINE void bf12_load(v_bf12 table, const uint8_t *oct, int half, int z, v16 w[4])
{
    v_load_bf12(table, oct + 64 * z, half, oct + 128 * (1 + half) + 64 * z, w);
}

/* A block as f32 [BF12_K][32], with the numbers that are listed. */
static void bf12_widen(float *w, const uint8_t *block)
{
    const v_bf12 table = v_load_table(block);
    const uint8_t *oct = block + BF12_HEAD;
    for (int k = 0; k < BF12_K; k += 8, oct += BF12_OCT)
        UNROLL for (int half = 0; half < 2; half++)
            UNROLL for (int z = 0; z < 2; z++) {
                v16 v[4];
                bf12_load(table, oct, half, z, v);
                UNROLL for (int i = 0; i < 4; i++) v_store(w + (k + 4 * half + i) * 32 + 16 * z, v[i]);
            }
    for (int n = 0; n < block[BF12_COUNT]; n++) {
        bf12_listed l;
        memcpy(&l, block + BF12_COUNT + 1 + n * (int)sizeof l, sizeof l);
        float *at = w + l.k % BF12_K * 32 + l.row % 32;
        *at = hd_f32_from_bits((hd_f32_bits(*at) & 0xffffff) | (uint32_t)l.upper << 24);
    }
}

/* The products of a widened block. */
INLINE void tile_bf12(int rows, const tile *t)
{
    v16 f[ROWS][2];
    begin_tile(rows, t, f);
    for (int64_t i = 0; i < t->k; i++)
        UNROLL for (int z0 = 0; z0 < 2; z0 += HALVES) {
            const float *p = (const float *)(const void *)t->w + 32 * i + 16 * z0;
            v16 w[2];
            UNROLL for (int z = 0; z < HALVES; z++) w[z] = v_load(p + 16 * z);
            add_products(rows, z0, HALVES, f, t, w, i, true);
        }
    store_tile(rows, t, f);
}

MUL(f32, ROWS, tile_single(false, rows, t))
MUL(f16, ROWS, tile_single(true, rows, t))
MUL(bf16, ROWS, tile_bf16(rows, t))
MUL(f8, ROWS, tile_f8(rows, t))

/* n (even) of k of a panel of bf16 as f32 [n][32]. */
static void widen_panel(float *w, const uint8_t *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += 2, p += 128, w += 64)
        UNROLL for (int z = 0; z < 2; z++) {
            v16 even, odd;
            v_load_bf16x2((const uint16_t *)(const void *)(p + 64 * z), &even, &odd);
            v_store(w + 16 * z, even);
            v_store(w + 32 + 16 * z, odd);
        }
}

/* A panel is widened once for all rows, in nearly equal parts of k that stay in the first-level cache.  Few
 * rows are not worth that. */
#define WIDE_MUL                                                                                             \
    TILES(wide_few, ROWS, tile_wide_few(rows, t))                                                            \
    TILES(wide_many, ROWS, tile_wide_many(rows, t))                                                          \
    static void mul_wide(const void *panel, int64_t k, const uint8_t *act, size_t stride, int M, float *y,   \
                         int64_t ldy, bool add, void *scratch)                                               \
    {                                                                                                        \
        enum { FEW = 16, PART = 256 };                                                                       \
        if (M <= FEW) {                                                                                      \
            run_tiles(wide_few_tiles, ROWS, &(tile){panel, act, NULL, k, stride, y, ldy, .add = add}, M);    \
            return;                                                                                          \
        }                                                                                                    \
        const int64_t parts = (k + PART - 1) / PART, part = ((k + parts - 1) / parts + 1) / 2 * 2;           \
        for (int64_t k0 = 0; k0 < k; k0 += part) {                                                           \
            const int64_t n = k - k0 < part ? (k - k0 + 1) / 2 * 2 : part;                                   \
            widen_panel(scratch, (const uint8_t *)panel + k0 * 64, n);                                       \
            run_tiles(wide_many_tiles, ROWS, &(tile){scratch, act + k0 * 4, NULL, n, stride, y, ldy, .add = add || k0 > 0}, M); \
        }                                                                                                    \
    }

/* bf12 with a block widened once for all rows. */
#define BF12_MUL                                                                                             \
    TILES(bf12, ROWS, tile_bf12(rows, t))                                                                    \
    static void mul_bf12(MUL_PARAMS)                                                                         \
    {                                                                                                        \
        const uint8_t *block = panel;                                                                        \
        for (int64_t k0 = 0; k0 < k; k0 += BF12_K, block += BF12_BLOCK) {                                    \
            const int64_t n = k - k0 < BF12_K ? k - k0 : BF12_K;                                             \
            bf12_widen(scratch, block);                                                                      \
            run_tiles(bf12_tiles, ROWS, &(tile){scratch, act + k0 * 2, NULL, n, stride, y, ldy, .add = k0 > 0}, M); \
        }                                                                                                    \
    }

#define FLOAT_FILL(level)                                                                                    \
    BF12_MUL                                                                                                 \
    WIDE_MUL                                                                                                 \
    void hd_fill_float_##level(hd_kernels *k)                                                                \
    {                                                                                                        \
        FLOAT_PANELS(MUL_FILL)                                                                               \
        k->panel_mul[HD_PANEL_BF12] = mul_bf12;                                                              \
        k->wide_mul = mul_wide;                                                                              \
    }
