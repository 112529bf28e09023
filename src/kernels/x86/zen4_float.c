/* bf16 products for processors on which vdpbf16ps, two products a lane, takes as long as one multiply-add
 * (AMD's from Zen 4 on): twice the rate of f32.  Weights and rows are read as they lie, a pair of k a word;
 * an output is one chain of such pairs in order of k.
 *   bf16  as it is
 *   bf12  a pair is what unpacking its bytes gives; the first tile of more than one leaves them for those
 *         behind it
 *   fp8   a group is unpacked for all rows, even for one; its chain starts at zero and is added times its
 *         scale
 * The instruction takes numbers below 2^-126 for zero. */
#include "kernels/tile.h"
#include "kernels/v16.h"
#include "kernels/x86/f8_pairs.h"

/* A tile has up to 8 rows, or 16 of half a panel: 16 registers of sums. */
enum { ROWS = 8, PART_K = 320, FEW_K = 1792, ONE_AHEAD = 2048, F8_GROUP = 128, PAIR = 128 };

INLINE __m512 dot2(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

/* Asks for the outputs' lines, which are written when the tile is done: by then they are there,
 * wherever they were. */
INLINE void begin(int rows, bool add, const tile *t, __m512 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) __builtin_prefetch(t->y + m * t->ldy + 16 * z, 1);
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

/* A block of bf12, from k on; `pairs` is for one that lists numbers, and with `keep` holds the
 * weights afterwards. */
INLINE void add_block(int rows, __m512 f[][2], const tile *t, const uint8_t *block, const uint8_t *next, int64_t k, uint8_t *pairs, bool keep)
{
    if (block[BF12_COUNT]) {
        unpack_listed(pairs, block);
        add_pairs(rows, f, t, pairs, next, k, BF12_K);
        return;
    }
    const v_bf12 table = v_load_table(block);
    _mm_prefetch((const char *)next, _MM_HINT_T1);
    block += BF12_HEAD, next += BF12_HEAD;
    for (int64_t end = k + BF12_K; k < end; block += BF12_OCT, next += BF12_OCT)
        UNROLL for (int half = 0; half < 2; half++, k += 4) {
            __m512i w[2][2];
            UNROLL for (int i = 0; i < 3; i++) _mm_prefetch((const char *)next + 64 * (3 * half + i), _MM_HINT_T1);
            UNROLL for (int z = 0; z < 2; z++) v_load_bf12_pairs(table, block + 64 * z, half, block + 128 * (1 + half) + 64 * z, w[z]);
            UNROLL for (int i = 0; i < 2; i++) {
                const __m512i pair[2] = {w[0][i], w[1][i]};
                if (keep)
                    UNROLL for (int z = 0; z < 2; z++, pairs += 64) _mm512_storeu_si512(pairs, pair[z]);
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

/* Elements k and k + 1 of all rows, of 16 outputs. */
INLINE void add_half(int rows, __m512 *f, const tile *t, __m512i w, int64_t k)
{
    UNROLL for (int m = 0; m < rows; m++) f[m] = dot2(f[m], w, _mm512_set1_epi32(*(const int *)AT(t->act + k * 2, m)));
}

/* Half of a panel, whose lines are its own but for a block's head, by up to twice as many rows: a weight is
 * unpacked once for all of them and kept nowhere. */
INLINE void tile_half(int rows, int z, const tile *t)
{
    _Alignas(64) uint8_t pairs[BF12_K / 2 * PAIR];
    const uint8_t *w = t->w, *next = t->next;
    __m512 f[2 * ROWS];
    UNROLL for (int m = 0; m < rows; m++) f[m] = t->add ? _mm512_loadu_ps(t->y + m * t->ldy + 16 * z) : _mm512_setzero_ps();
    for (int64_t k = 0; k < t->k; k += BF12_K, w += BF12_BLOCK, next += BF12_BLOCK) {
        _mm_prefetch((const char *)next, _MM_HINT_T1);
        if (w[BF12_COUNT]) {
            unpack_listed(pairs, w);
            for (int i = 0; i < BF12_K; i += 2) add_half(rows, f, t, _mm512_load_si512(pairs + i / 2 * PAIR + 64 * z), k + i);
            continue;
        }
        const v_bf12 table = v_load_table(w);
        const uint8_t *oct = w + BF12_HEAD + 64 * z, *ahead = next + BF12_HEAD + 64 * z;
        for (int i = 0; i < BF12_K; oct += BF12_OCT, ahead += BF12_OCT) {
            UNROLL for (int line = 0; line < 3; line++) _mm_prefetch((const char *)ahead + 128 * line, _MM_HINT_T1);
            UNROLL for (int half = 0; half < 2; half++, i += 4) {
                __m512i pair[2];
                v_load_bf12_pairs(table, oct, half, oct + 128 * (1 + half), pair);
                UNROLL for (int j = 0; j < 2; j++) add_half(rows, f, t, pair[j], k + i + 2 * j);
            }
        }
    }
    UNROLL for (int m = 0; m < rows; m++) _mm512_storeu_ps(t->y + m * t->ldy + 16 * z, f[m]);
}

INLINE void tile_bf12(int rows, const tile *t)
{
    if (rows <= ROWS) tile_blocks(rows, t, NULL);
    else
        for (int z = 0; z < 2; z++) tile_half(rows, z, t);
}

TILES_8(bf16, tile_bf16(rows, t))
TILES_8(scaled, tile_scaled(rows, t))
TILES_16(bf12, tile_bf12(rows, t))

/* ---- Panels -------------------------------------------------------------------------------------------- */

/* Rows are multiplied as they lie. */
static const uint8_t *bring_rows(int rows, const uint8_t *act, size_t *stride, int64_t n, void *scratch) { return act; }

#include "kernels/x86/panels_body.h"

static void block_bf16(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                       bool add, void *scratch)
{
    run_tiles(bf16_tiles, ROWS, &(tile){at, act, next, nk, stride, y, ldy, .add = add}, rows);
}

static void block_bf12(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                       bool add, void *scratch)
{
    if (rows <= 2 * ROWS) {
        run_tiles(bf12_tiles, 2 * ROWS, &(tile){at, act, next, nk, stride, y, ldy, .add = add}, rows);
        return;
    }
    const tile first = {at, act, next, nk, stride, y, ldy, .add = add};
    tile_first(&first, scratch);
    run_tiles(bf16_tiles, ROWS, &(tile){scratch, act + ROWS * stride, next, nk, stride, y + ROWS * ldy, ldy, .add = add}, rows - ROWS);
}

/* Scratch: the table, a group. */
static void block_f8_opened(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                            bool add, void *scratch)
{
    const f8_table *table = scratch;
    uint8_t *w = (uint8_t *)(scratch) + sizeof *table;
    for (int64_t k = 0; k < nk; k += F8_GROUP, at += P_F8, next += P_F8, act += F8_GROUP * 2, add = true) {
        const int64_t n = nk - k < F8_GROUP ? nk - k : F8_GROUP;
        f8_unpack((uint16_t *)(void *)w, at + 64, (int)(n / 2), table);
        memcpy(w + F8_GROUP / 2 * PAIR, at, sizeof(float));
        run_tiles(scaled_tiles, ROWS, &(tile){w, act, next, n, stride, y, ldy, .add = add}, rows);
    }
}

MUL_PANELS(bf16, 2, PAIR, 2, 0, 0)
MUL_PANELS(bf12, BF12_K, BF12_BLOCK, BF12_K, FEW_K, 2 * BF12_BLOCK)
MUL_PANELS(f8_opened, F8_GROUP, P_F8, 2, 0, 0)

static void mul_panels_f8(const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t stride, int M, float *y, int64_t ldy,
                          bool add, void *scratch, const void *then)
{
    f8_open(scratch);
    mul_panels_f8_opened(panels, step, n, k, act, stride, M, y, ldy, add, scratch, then);
}

MUL_ONE(bf16)
MUL_ONE(bf12)
MUL_ONE(f8)

void hd_fill_float_zen4(hd_kernels *k)
{
    k->bf16_is_faster = true;
    FILL_PANELS(bf16, BF16)
    FILL_PANELS(bf12, BF12)
    FILL_PANELS(f8, F8)
    k->wide_mul = NULL; // bf16 as it is is faster
}
