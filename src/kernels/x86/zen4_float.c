/* bf16 products for processors on which vdpbf16ps, two products a lane, takes as long as one multiply-add (AMD's from Zen 4 on): twice
 * the rate of f32.  Weights and rows are read as they lie, a pair of k a word; an output is one chain of such pairs in order of k.
 *   bf16  as it is
 *   bf12  a pair is what unpacking its bytes gives; the first tile of more than one leaves them for those behind it
 *   fp8   a group is unpacked for all rows, even for one; its chain starts at zero and is added times its scale
 * The instruction takes numbers below 2^-126 for zero. */
#include "kernels/tile.h"
#include "kernels/v16.h"
#include "kernels/x86/f8_pairs.h"

/* A tile has up to 8 rows, 16 registers of sums.  Rows pass BLOCK_K of k at a time, so that a panel's part stays in the first-level cache,
 * and MOST_M of them, which stay in the second.  One row is a stream through one panel after the other. */
enum { ROWS = 8, BLOCK_K = 256, MOST_M = 128, ONE_AHEAD = 4096, F8_GROUP = 128, PAIR = 128 };

INLINE __m512 dot2(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

INLINE void begin(int rows, bool add, const tile *t, __m512 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = add ? _mm512_loadu_ps(t->y + m * t->ldy + 16 * z) : _mm512_setzero_ps();
}

INLINE void end(int rows, const tile *t, __m512 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) _mm512_storeu_ps(t->y + m * t->ldy + 16 * z, f[m][z]);
}

/* Elements k and k + 1 of all rows. */
INLINE void add_pair(int rows, __m512 f[][2], const tile *t, const __m512i w[2], int64_t k)
{
    UNROLL for (int m = 0; m < rows; m++) {
        const __m512i x = _mm512_set1_epi32(*(const int *)AT(t->act + k * 2, m));
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = dot2(f[m][z], w[z], x);
    }
}

INLINE void add_pairs(int rows, __m512 f[][2], const tile *t, const uint8_t *w, const uint8_t *next, int64_t k, int64_t n)
{
    for (int64_t end = k + n; k < end; k += 2, w += PAIR, next += PAIR) {
        const __m512i pair[2] = {_mm512_loadu_si512(w), _mm512_loadu_si512(w + 64)};
        UNROLL for (int i = 0; i < PAIR; i += 64) _mm_prefetch((const char *)next + i, _MM_HINT_T1);
        add_pair(rows, f, t, pair, k);
    }
}

INLINE void tile_bf16(int rows, const tile *t)
{
    __m512 f[ROWS][2];
    begin(rows, t->add, t, f);
    add_pairs(rows, f, t, t->w, t->next, 0, t->k);
    end(rows, t, f);
}

/* A group of fp8 that is unpacked, its scale behind it. */
INLINE void tile_scaled(int rows, const tile *t)
{
    __m512 f[ROWS][2], g[ROWS][2];
    float scale;
    begin(rows, false, t, g);
    add_pairs(rows, g, t, t->w, t->next, 0, t->k);
    begin(rows, t->add, t, f);
    memcpy(&scale, t->w + F8_GROUP / 2 * PAIR, sizeof scale);
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = _mm512_fmadd_ps(g[m][z], _mm512_set1_ps(scale), f[m][z]);
    end(rows, t, f);
}

/* A block of bf12 that lists numbers. */
static void unpack_listed(uint8_t *to, const uint8_t *block)
{
    const v_bf12 table = v_load_table(block);
    const uint8_t *oct = block + BF12_HEAD;
    for (int k = 0; k < BF12_K; k += 8, oct += BF12_OCT)
        UNROLL for (int half = 0; half < 2; half++)
            UNROLL for (int z = 0; z < 2; z++) {
                __m512i w[2];
                v_load_bf12_pairs(table, oct + 64 * z, half, oct + 128 * (1 + half) + 64 * z, w);
                UNROLL for (int i = 0; i < 2; i++) _mm512_storeu_si512(to + ((k + 4 * half) / 2 + i) * PAIR + 64 * z, w[i]);
            }
    for (int n = 0; n < block[BF12_COUNT]; n++) {
        bf12_listed l;
        memcpy(&l, block + BF12_COUNT + 1 + n * (int)sizeof l, sizeof l);
        to[l.k % BF12_K / 2 * PAIR + l.row % 32 * 4 + l.k % 2 * 2 + 1] = l.upper;
    }
}

/* A block of bf12, from k on; `pairs` is for one that lists numbers, and with `keep` holds the weights afterwards. */
INLINE void add_block(int rows, __m512 f[][2], const tile *t, const uint8_t *block, const uint8_t *next, int64_t k, uint8_t *pairs, bool keep)
{
    if (block[BF12_COUNT]) {
        unpack_listed(pairs, block);
        add_pairs(rows, f, t, pairs, next, k, BF12_K);
        return;
    }
    const v_bf12 table = v_load_table(block);
    block += BF12_HEAD, next += BF12_HEAD;
    for (int64_t end = k + BF12_K; k < end; block += BF12_OCT, next += BF12_OCT)
        UNROLL for (int half = 0; half < 2; half++, k += 4) {
            __m512i w[2][2];
            UNROLL for (int i = 0; i < 3; i++) _mm_prefetch((const char *)next + 64 * (3 * half + i), _MM_HINT_T1);
            UNROLL for (int z = 0; z < 2; z++) v_load_bf12_pairs(table, block + 64 * z, half, block + 128 * (1 + half) + 64 * z, w[z]);
            UNROLL for (int i = 0; i < 2; i++) {
                const __m512i pair[2] = {w[0][i], w[1][i]};
                UNROLL for (int z = 0; z < 2 && keep; z++, pairs += 64) _mm512_storeu_si512(pairs, pair[z]);
                add_pair(rows, f, t, pair, k + 2 * i);
            }
        }
}

/* Blocks of bf12, whose weights are left in `kept` for the rows behind these, or not. */
INLINE void tile_blocks(int rows, const tile *t, uint8_t *kept)
{
    _Alignas(64) uint8_t pairs[BF12_K / 2 * PAIR];
    const uint8_t *w = t->w, *next = t->next;
    __m512 f[ROWS][2];
    begin(rows, t->add, t, f);
    for (int64_t k = 0; k < t->k; k += BF12_K, w += BF12_BLOCK, next += BF12_BLOCK)
        add_block(rows, f, t, w, next, k, kept ? kept + k / 2 * PAIR : pairs, kept != NULL);
    end(rows, t, f);
}
static void tile_first(const tile *t, uint8_t *kept) { tile_blocks(ROWS, t, kept); }

TILES_8(bf16, tile_bf16(rows, t))
TILES_8(scaled, tile_scaled(rows, t))
TILES_8(bf12, tile_blocks(rows, t, NULL))

/* ---- Panels -------------------------------------------------------------------------------------------------------- */

/* nk of k of one panel, from `at` on; `next` is fetched meanwhile.  w: scratch. */
typedef void block_fn(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                      bool add, uint8_t *w, const f8_table *table);

static void block_bf16(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                       bool add, uint8_t *w, const f8_table *table)
{
    run_tiles(bf16_tiles, ROWS, at, next, nk, act, stride, rows, y, ldy, add);
}

static void block_bf12(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                       bool add, uint8_t *w, const f8_table *table)
{
    if (rows <= ROWS) {
        run_tiles(bf12_tiles, ROWS, at, next, nk, act, stride, rows, y, ldy, add);
        return;
    }
    const tile first = {at, act, next, nk, stride, y, ldy, add};
    tile_first(&first, w);
    run_tiles(bf16_tiles, ROWS, w, next, nk, act + ROWS * stride, stride, rows - ROWS, y + ROWS * ldy, ldy, add);
}

static void block_f8(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                     bool add, uint8_t *w, const f8_table *table)
{
    for (int64_t k = 0; k < nk; k += F8_GROUP, at += P_F8, next += P_F8, act += F8_GROUP * 2, add = true) {
        const int64_t n = nk - k < F8_GROUP ? nk - k : F8_GROUP;
        f8_unpack((uint16_t *)(void *)w, at + 64, (int)(n / 2), table);
        memcpy(w + F8_GROUP / 2 * PAIR, at, sizeof(float));
        run_tiles(scaled_tiles, ROWS, w, next, n, act, stride, rows, y, ldy, add);
    }
}

typedef struct {
    block_fn *mul;
    int64_t unit, bytes; // of k, and what they take in a panel
    int64_t pad;         // k is a multiple of this, in the panel and in the blob: behind it there are zeros
} panel_form;

INLINE void mul_panels(const panel_form *form, const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t stride, int M,
                       float *y, int64_t ldy, void *scratch)
{
    const uint8_t *block = panels;
    f8_table table;
    if (form->mul == block_f8) f8_open(&table);
    for (int m0 = 0; m0 < M; m0 += MOST_M, act += MOST_M * stride, y += MOST_M * ldy, block = panels) {
        const int rows = M - m0 < MOST_M ? M - m0 : MOST_M;
        for (int64_t k0 = 0; k0 < k; k0 += BLOCK_K) {
            const int64_t nk = k - k0 < BLOCK_K ? (k - k0 + form->pad - 1) / form->pad * form->pad : BLOCK_K;
            const uint8_t *at = block;
            block += (nk + form->unit - 1) / form->unit * form->bytes;
            for (int p = 0; p < n; p++, at += step) {
                const uint8_t *next = M == 1 ? at + ONE_AHEAD : p + 1 < n ? at + step : block;
                form->mul(at, next, nk, act + k0 * 2, stride, rows, y + HD_PANEL_ROWS * p, ldy, k0 > 0, scratch, &table);
            }
        }
    }
}

#define PRODUCT(name, ...)                                                                                                  \
    static void panels_##name(const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t stride, int M,  \
                              float *y, int64_t ldy, void *scratch)                                                         \
    {                                                                                                                       \
        static const panel_form form = {block_##name, __VA_ARGS__};                                                         \
        mul_panels(&form, panels, step, n, k, act, stride, M, y, ldy, scratch);                                             \
    }                                                                                                                       \
    static void panel_##name(MUL_PARAMS) { panels_##name(panel, 0, 1, k, act, stride, M, y, ldy, scratch); }
PRODUCT(bf16, 2, PAIR, 2)
PRODUCT(bf12, BF12_K, BF12_BLOCK, BF12_K)
PRODUCT(f8, F8_GROUP, P_F8, 2)

void hd_fill_float_zen4(hd_kernels *k)
{
    k->bf16_is_faster = true;
    k->panel_mul[HD_PANEL_BF16] = panel_bf16;
    k->panels_mul[HD_PANEL_BF16] = panels_bf16;
    k->panel_mul[HD_PANEL_BF12] = panel_bf12;
    k->panels_mul[HD_PANEL_BF12] = panels_bf12;
    k->panel_mul[HD_PANEL_F8] = panel_f8;
    k->panels_mul[HD_PANEL_F8] = panels_f8;
    k->wide_mul = NULL; // bf16 as it is is faster
}
