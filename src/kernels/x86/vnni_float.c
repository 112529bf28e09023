/* Float products for AVX-512: eight rows of a panel are 16 registers of sums, half of what there is.  The
 * loops of a tile are in float_body.h; here are the products of several rows of bf16 and fp8, and bf12. */
#include "kernels/x86/vnni_int.h"

#define ROWS            8
#define HALVES          2
#define FETCH(p, bytes) fetch((p) + AHEAD, bytes)
#include "kernels/float_body.h"

/* Several rows: the rows are widened into scratch, a part of k at a time, and multiplied as f32 with one
 * panel after the other.  An output's products are the same (a product of two bf16, or of one with an fp8, is
 * exact in f32) and so is their order.
 *   bf16  up to FEW_ROWS, weights are widened in registers.  The next panel's block is fetched in even
 *         portions between the products: all of it at once fills the core's places for pending lines, and
 *         then the arithmetic stands still.  With more rows a panel's part is widened, too.
 *   bf12  numbers cost more to read: the first tile of more than one widens them in its registers and leaves
 *         them so.
 *   fp8   a group is widened for all rows, even for one.
 * One core of a Xeon with AVX512_BF16, M 512, K 768, one panel: 77 G operations/s by tile_bf16, 87 by
 * vdpbf16ps, 150 by this. */
enum { PART_K = 256, ONE_AHEAD = 4096, X_STRIDE = PART_K * sizeof(float), FEW_ROWS = 64, F8_GROUP = 128 };

/* A group of fp8, times 2^-8; returns the scale that makes up for that. */
static float widen_f8(float *w, const uint8_t *group, int64_t n)
{
    const uint8_t *p = group + 64;
    float scale;
    for (int64_t i = 0; i < n; i += 2, p += 64, w += 64)
        UNROLL for (int z = 0; z < 2; z++) {
            v16 even, odd;
            v_load_f8x2(p + 32 * z, &even, &odd);
            v_store(w + 16 * z, even);
            v_store(w + 32 + 16 * z, odd);
        }
    memcpy(&scale, group, sizeof scale);
    return scale * 256;
}

static void widen_rows(int rows, float *x, const uint8_t *act, size_t stride, int64_t n)
{
    for (int m = 0; m < rows; m++)
        for (int64_t i = 0; i < n; i += 16) { // blobs are padded to 64 numbers
            __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(act + (size_t)m * stride + i * 2)));
            _mm512_store_ps(x + m * PART_K + i, _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)));
        }
}

/* act: rows of PART_K floats, so that a row is a displacement of one address.  w: a panel of f32 ... */
INLINE void tile_wide(int rows, const tile *widened)
{
    tile u = *widened, *t = &u;
    t->stride = X_STRIDE;
    v16 f[ROWS][2];
    begin_tile(rows, t, f);
    for (int64_t i = 0; i < t->k; i++) {
        const float *p = (const float *)(const void *)t->w + 32 * i;
        _mm_prefetch((const char *)t->next + 64 * i, _MM_HINT_T1);
        const v16 w[2] = {v_load(p), v_load(p + 16)};
        add_products(rows, 0, 2, f, t, w, i, false);
    }
    store_tile(rows, t, f);
}

/* ... or of bf16. */
INLINE void tile_few(int rows, const tile *widened)
{
    tile u = *widened, *t = &u;
    t->stride = X_STRIDE;
    v16 f[ROWS][2];
    begin_tile(rows, t, f);
    for (int64_t i = 0; i < t->k; i += 2) {
        v16 w[2][2]; // even and odd elements
        UNROLL for (int z = 0; z < 2; z++) {
            const int64_t at = i * 64 + 64 * z;
            _mm_prefetch((const char *)t->next + at, _MM_HINT_T1);
            v_load_bf16x2((const uint16_t *)(const void *)(t->w + at), &w[0][z], &w[1][z]);
        }
        UNROLL for (int e = 0; e < 2; e++) add_products(rows, 0, 2, f, t, w[e], i + e, false);
    }
    store_tile(rows, t, f);
}

/* A block of bf12, from k on; `wide` is for one that lists numbers, and with `keep` holds the widened
 * weights afterwards. */
INLINE void add_block(int rows, v16 f[][2], const tile *t, const uint8_t *block, const uint8_t *next, int64_t k, float *wide, bool keep)
{
    if (block[BF12_COUNT]) {
        bf12_widen(wide, block);
        for (int64_t i = 0; i < BF12_K; i++) {
            const v16 w[2] = {v_load(wide + 32 * i), v_load(wide + 32 * i + 16)};
            _mm_prefetch((const char *)next + 64 * i, _MM_HINT_T1);
            add_products(rows, 0, 2, f, t, w, k + i, false);
        }
        return;
    }
    const v_bf12 table = v_load_table(block);
    _mm_prefetch((const char *)next, _MM_HINT_T1);
    block += BF12_HEAD, next += BF12_HEAD;
    for (int64_t end = k + BF12_K; k < end; block += BF12_OCT, next += BF12_OCT)
        UNROLL for (int half = 0; half < 2; half++, k += 4) {
            v16 w[2][4];
            UNROLL for (int i = 0; i < 3; i++) _mm_prefetch((const char *)next + 64 * (3 * half + i), _MM_HINT_T1);
            UNROLL for (int z = 0; z < 2; z++) bf12_load(table, block, half, z, w[z]);
            UNROLL for (int i = 0; i < 4; i++) {
                const v16 wi[2] = {w[0][i], w[1][i]};
                UNROLL for (int z = 0; z < 2 && keep; z++, wide += 16) v_store(wide, wi[z]);
                add_products(rows, 0, 2, f, t, wi, k + i, false);
            }
        }
}

/* ... or blocks of bf12. */
INLINE void tile_few_bf12(int rows, const tile *widened)
{
    tile u = *widened, *t = &u;
    _Alignas(64) float wide[BF12_K * HD_PANEL_ROWS];
    t->stride = X_STRIDE;
    v16 f[ROWS][2];
    begin_tile(rows, t, f);
    for (int64_t k = 0; k < t->k; k += BF12_K, t->w += BF12_BLOCK, t->next += BF12_BLOCK)
        add_block(rows, f, t, t->w, t->next, k, wide, false);
    store_tile(rows, t, f);
}

/* ROWS rows by one block of bf12, whose weights are left widened for the rows behind them. */
static void tile_first_bf12(const tile *widened, float *wide)
{
    tile u = *widened, *t = &u;
    t->stride = X_STRIDE;
    v16 f[ROWS][2];
    begin_tile(ROWS, t, f);
    add_block(ROWS, f, t, t->w, t->next, 0, wide, true);
    store_tile(ROWS, t, f);
}

/* ... or a widened group of fp8, its scale behind it. */
INLINE void tile_scaled(int rows, const tile *widened)
{
    tile u = *widened, *t = &u;
    t->stride = X_STRIDE;
    const float *p = (const float *)(const void *)t->w;
    v16 f[ROWS][2], g[ROWS][2];
    zero_tile(rows, g);
    for (int64_t i = 0; i < t->k; i++) {
        const v16 w[2] = {v_load(p + 32 * i), v_load(p + 32 * i + 16)};
        if (i % 2) _mm_prefetch((const char *)t->next + 32 * i, _MM_HINT_T1);
        add_products(rows, 0, 2, g, t, w, i, false);
    }
    begin_tile(rows, t, f);
    const v16 scale = v_set1(p[F8_GROUP * HD_PANEL_ROWS]);
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = v_fma(g[m][z], scale, f[m][z]);
    store_tile(rows, t, f);
}

WIDE_MUL
TILES_8(wide, tile_wide(rows, t))
TILES_8(few, tile_few(rows, t))
TILES_8(few_bf12, tile_few_bf12(rows, t))
TILES_8(scaled, tile_scaled(rows, t))

/* ---- Panels -------------------------------------------------------------------------------------------- */

/* Scratch: [a panel's part as f32][rows]. */
static const uint8_t *bring_rows(int rows, const uint8_t *act, size_t *stride, int64_t n, void *scratch)
{
    float *x = (float *)scratch + PART_K * HD_PANEL_ROWS;
    widen_rows(rows, x, act, *stride, n);
    *stride = X_STRIDE;
    return (const uint8_t *)x;
}

#include "kernels/x86/panels_body.h"

static void block_bf16(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *x, size_t stride, int rows, float *y, int64_t ldy,
                       bool add, void *w)
{
    if (rows <= FEW_ROWS) {
        run_tiles(few_tiles, ROWS, &(tile){at, x, next, nk, X_STRIDE, y, ldy, .add = add}, rows);
        return;
    }
    widen_panel(w, at, nk);
    run_tiles(wide_tiles, ROWS, &(tile){w, x, next, nk, X_STRIDE, y, ldy, .add = add}, rows);
}

static void block_bf12(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *x, size_t stride, int rows, float *y, int64_t ldy,
                       bool add, void *w)
{
    if (rows <= ROWS) {
        run_tiles(few_bf12_tiles, ROWS, &(tile){at, x, next, nk, X_STRIDE, y, ldy, .add = add}, rows);
        return;
    }
    for (int64_t k = 0; k < nk; k += BF12_K, at += BF12_BLOCK, next += BF12_BLOCK, x += BF12_K * sizeof(float), add = true) {
        const tile first = {at, x, next, BF12_K, X_STRIDE, y, ldy, .add = add};
        tile_first_bf12(&first, w);
        run_tiles(wide_tiles, ROWS, &(tile){w, x + ROWS * X_STRIDE, next, BF12_K, X_STRIDE, y + ROWS * ldy, ldy, .add = add}, rows - ROWS);
    }
}

static void block_f8(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *x, size_t stride, int rows, float *y, int64_t ldy,
                       bool add, void *w)
{
    for (int64_t k = 0; k < nk; k += F8_GROUP, at += P_F8, next += P_F8, x += F8_GROUP * sizeof(float), add = true) {
        const int64_t n = nk - k < F8_GROUP ? nk - k : F8_GROUP;
        ((float *)w)[F8_GROUP * HD_PANEL_ROWS] = widen_f8(w, at, n);
        run_tiles(scaled_tiles, ROWS, &(tile){w, x, next, n, X_STRIDE, y, ldy, .add = add}, rows);
    }
}

MUL_PANELS(bf16, 2, 128, 2, 0, 0)
MUL_PANELS(bf12, BF12_K, BF12_BLOCK, BF12_K, 0, 0)
MUL_PANELS(f8, F8_GROUP, P_F8, 2, 0, 0)

/* One panel; what is read once needs no scratch, but bf12 does. */
#define MUL_STREAM(name)                                                                                     \
    static void mul_one_##name(MUL_PARAMS)                                                                   \
    {                                                                                                        \
        if (M == 1) mul_##name(panel, k, act, stride, M, y, ldy, scratch);                                   \
        else mul_panels_##name(panel, 0, 1, k, act, stride, M, y, ldy, false, scratch, NULL);                \
    }
MUL_STREAM(bf16)
MUL_STREAM(f8)
MUL_ONE(bf12)

void hd_fill_float_vnni(hd_kernels *k)
{
    MUL_FILL(f32, F32)
    MUL_FILL(f16, F16)
    k->wide_mul = mul_wide;
    FILL_PANELS(bf16, BF16)
    FILL_PANELS(bf12, BF12)
    FILL_PANELS(f8, F8)
}
