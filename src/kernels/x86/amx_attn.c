/* Attention with AMX: both products of a BF16 cache by TDPBF16PS.
 *
 * The cache's panels are tiles of the second operand already: 16 steps of a panel (pairs of bf16) are 1 KB in
 * a row.  Two row tiles meet two panels (4 accumulators, 2 + 2 operands: all eight tiles).  Rows are those
 * that exist: a tile of 3 rows (one query, three heads) costs and gives, row by row, what a full one does. */
#include <immintrin.h>

#include "base/num.h"
#include "kernels/tile.h"

/* The assembler wants the numbers themselves. */
#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0  4
#define A1  5
#define B0  6
#define B1  7

static void tiles_begin(int rows);
static void tiles_product(tile *t, int n, int n_panels);

#define ATTN_MR              6
#define ATTN_MC              4
#define ATTN_FEW             7
#define ATTN_DOT2(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
#define ATTN_PAIRS           tiles_product
#define ATTN_BEGIN(rows)     tiles_begin(rows)
#define ATTN_END()           _tile_release()
#include "kernels/attn_body.h"

static void tiles_begin(int rows)
{
    struct {
        uint8_t palette, start_row, zero[14];
        uint16_t col_bytes[16];
        uint8_t rows[16];
    } cfg = {.palette = 1};
    int r0 = rows < 16 ? rows : 16, r1 = rows > 16 ? rows - 16 : 1;
    for (int i = 0; i < 8; i++) cfg.col_bytes[i] = 64;
    cfg.rows[C00] = cfg.rows[C01] = cfg.rows[A0] = (uint8_t)r0;
    cfg.rows[C10] = cfg.rows[C11] = cfg.rows[A1] = (uint8_t)r1;
    cfg.rows[B0] = cfg.rows[B1] = 16;
    __asm__ volatile("" : : "r"(&cfg) : "memory"); // the intrinsic reads 64 bytes, gcc 12 believes 8
    _tile_loadconfig(&cfg);
}

/* As product of attn_body.h; k counts pairs and is a multiple of 16. */
static void tiles_product(tile *t, int n, int n_panels)
{
    const size_t sa = t->stride, sc = (size_t)t->ldy * 4;
    const uint8_t *a = t->act, *a1 = a + 16 * sa;
    const bool two_rows = n > 16;
    for (int p = 0; p < n_panels; p += 2) {
        bool two = p + 1 < n_panels;
        const uint8_t *b0 = t->w + p * t->panels, *b1 = b0 + t->panels;
        float *c0 = t->y + p * 16, *c1 = c0 + 16 * t->ldy;
        if (t->add) {
            _tile_loadd(C00, c0, sc);
            if (two) _tile_loadd(C01, c0 + 16, sc);
            if (two_rows) _tile_loadd(C10, c1, sc);
            if (two && two_rows) _tile_loadd(C11, c1 + 16, sc);
        } else {
            _tile_zero(C00);
            _tile_zero(C01);
            _tile_zero(C10);
            _tile_zero(C11);
        }
        for (int64_t i = 0; i < t->k; i += 16) {
            _tile_loadd(A0, a + i * 4, sa);
            _tile_loadd(B0, b0 + i * 64, 64);
            _tile_dpbf16ps(C00, A0, B0);
            if (two) {
                _tile_loadd(B1, b1 + i * 64, 64);
                _tile_dpbf16ps(C01, A0, B1);
            }
            if (!two_rows) continue;
            _tile_loadd(A1, a1 + i * 4, sa);
            _tile_dpbf16ps(C10, A1, B0);
            if (two) _tile_dpbf16ps(C11, A1, B1);
        }
        _tile_stored(C00, c0, sc);
        if (two) _tile_stored(C01, c0 + 16, sc);
        if (two_rows) _tile_stored(C10, c1, sc);
        if (two && two_rows) _tile_stored(C11, c1 + 16, sc);
    }
}

ATTN_FILL(amx)
