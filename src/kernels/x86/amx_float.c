/* bf16 and fp8 products with AMX.  They run on tiles for every number of rows, so that one row has the bits
 * it has among many.
 *
 * Two tiles of rows meet two of weights: four sums, and every tile loaded is used twice.  The inner dimension
 * runs in segments whose weights stay in the first-level cache while all rows pass; between segments the sums
 * lie in scratch, a tile's 1 KB in one piece.  bf16 sums go on where they stopped, so a store and a load in
 * between change no bit.  fp8 has a scale per 128: a group's sums start at zero, and y += scale * sums.
 *
 * fp8 weights become bf16 by two look-ups of 128 bytes, one for each half of the number. */
#include "kernels/x86/amx_tile.h"
#include "kernels/x86/f8_pairs.h"

enum { SEG = 256, GROUP = 128 }; // k of a segment; of a scale of fp8

typedef struct {
    uint16_t w[GROUP * 32];    // fp8: a group of the panel as bf16
    float sum[4][256];         // fp8: a group's sums
    float y[MOST_ROWS / 8][256]; // by tile of rows and half
} __attribute__((aligned(64))) work;

typedef struct {
    const uint8_t *act;
    size_t stride;
    int M, rows, n; // rows of a tile; number of tiles
    float *y;
    int64_t ldy;
} pass;

/* The last tile ends at row M: some rows may be in two tiles, with the same bits. */
INLINE int row_of(const pass *p, int tile) { return (tile + 1) * p->rows > p->M ? p->M - p->rows : tile * p->rows; }

/* Tiles t and (two) t + 1 of rows; `steps` of 32 of k, sums in tiles 0-3. */
INLINE void mul_steps(const pass *p, int t, bool two, const uint8_t *w, int64_t k0, int steps, bool stream)
{
    const uint8_t *a = p->act + (size_t)row_of(p, t) * p->stride + k0 * 2;
    const uint8_t *b = two ? p->act + (size_t)row_of(p, t + 1) * p->stride + k0 * 2 : a;
    for (int s = 0; s < steps; s++, w += 2048, a += 64, b += 64) {
        if (stream) fetch(w + AHEAD, 2048);
        _tile_loadd(4, a, p->stride);
        _tile_loadd(6, w, 128);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w + 64, 128);
        _tile_dpbf16ps(1, 4, 7);
        if (!two) continue;
        _tile_loadd(5, b, p->stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

INLINE void zero_sums(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static void bf16_pass(const pass *p, const uint8_t *panel, int64_t k, work *o)
{
    const int64_t kp = (k + 63) / 64 * 64, seg = p->n > 2 ? SEG : kp;
    for (int64_t k0 = 0; k0 < kp; k0 += seg) {
        const int steps = (int)((kp - k0 < seg ? kp - k0 : seg) / 32);
        const bool last = k0 + seg >= kp;
        for (int t = 0; t < p->n; t += 2) {
            const bool two = t + 1 < p->n;
            float *at = last ? p->y + row_of(p, t) * p->ldy : o->y[2 * t];
            float *bt = last && two ? p->y + row_of(p, t + 1) * p->ldy : o->y[2 * t + 2];
            const size_t ld = last ? (size_t)p->ldy * 4 : 64, half = last ? 16 : 256;
            if (k0 == 0) zero_sums();
            else {
                _tile_loadd(0, o->y[2 * t], 64);
                _tile_loadd(1, o->y[2 * t + 1], 64);
                if (two) _tile_loadd(2, o->y[2 * t + 2], 64);
                if (two) _tile_loadd(3, o->y[2 * t + 3], 64);
            }
            if (last) // outputs lie a page apart
                for (int r = 0; r < p->rows; r++) fetch((const uint8_t *)(at + r * p->ldy), 128);
            mul_steps(p, t, two, panel + k0 * 64, k0, steps, t == 0);
            _tile_stored(0, at, ld);
            _tile_stored(1, at + half, ld);
            if (!two) continue;
            _tile_stored(2, bt, ld);
            _tile_stored(3, bt + half, ld);
        }
    }
}

/* ---- fp8 ----------------------------------------------------------------------------------------------- */

/* y += scale * sums for a tile's half. */
INLINE void add_scaled(const pass *p, float *y, int64_t ldy, const float *from, const float *sum, float scale, bool first)
{
    const __m512 s = _mm512_set1_ps(scale);
    for (int r = 0; r < p->rows; r++) {
        __m512 f = first ? _mm512_setzero_ps() : _mm512_load_ps(from + r * 16);
        _mm512_storeu_ps(y + r * ldy, _mm512_fmadd_ps(_mm512_load_ps(sum + r * 16), s, f));
    }
}

static void f8_pass(const pass *p, const uint8_t *panel, int64_t k, const f8_table *table, work *o)
{
    const int64_t kp = (k + 63) / 64 * 64;
    for (int64_t k0 = 0; k0 < kp; k0 += GROUP, panel += P_F8) {
        const int n = kp - k0 < GROUP ? (int)(kp - k0) : GROUP;
        const bool last = k0 + GROUP >= kp;
        float scale;
        memcpy(&scale, panel, 4);
        f8_unpack(o->w, panel + 64, n / 2, table);
        for (int t = 0; t < p->n; t += 2) {
            const bool two = t + 1 < p->n;
            zero_sums();
            mul_steps(p, t, two, (const uint8_t *)o->w, k0, n / 32, false);
            _tile_stored(0, o->sum[0], 64);
            _tile_stored(1, o->sum[1], 64);
            if (two) _tile_stored(2, o->sum[2], 64);
            if (two) _tile_stored(3, o->sum[3], 64);
            for (int z = 0; z < (two ? 4 : 2); z++) {
                float *from = o->y[2 * t + z];
                float *to = last ? p->y + row_of(p, t + z / 2) * p->ldy + z % 2 * 16 : from;
                add_scaled(p, to, last ? p->ldy : 16, from, o->sum[z], scale, k0 == 0);
            }
        }
    }
}

/* ---- Both ---------------------------------------------------------------------------------------------- */

/* Up to MOST_ROWS rows at a time, nearly equal parts. */
static void run(bool f8, const void *panel, int64_t k, const uint8_t *act, size_t stride, int M, float *y, int64_t ldy,
                work *o)
{
    const int parts = (M + MOST_ROWS - 1) / MOST_ROWS, rows = M < TILE_ROWS ? M : TILE_ROWS;
    f8_table table = {0};
    if (f8) f8_open(&table);
    tiles_open(rows, 64);
    for (int i = 0, m = 0; i < parts; i++) {
        const int end = (int)((int64_t)M * (i + 1) / parts);
        pass p = {act + (size_t)m * stride, stride, end - m, rows, (end - m + rows - 1) / rows, y + m * ldy, ldy};
        if (f8) f8_pass(&p, panel, k, &table, o);
        else bf16_pass(&p, panel, k, o);
        m = end;
    }
    _tile_release();
}

static void mul_bf16(MUL_PARAMS) { run(false, panel, k, act, stride, M, y, ldy, scratch); }
static void mul_f8(MUL_PARAMS) { run(true, panel, k, act, stride, M, y, ldy, scratch); }

_Static_assert(sizeof(work) <= HD_MUL_SCRATCH, "does not fit in a thread's scratch");

void hd_fill_float_amx(hd_kernels *k)
{
    k->bf16_is_faster = true;
    k->panel_mul[HD_PANEL_BF16] = mul_bf16;
    k->panel_mul[HD_PANEL_F8] = mul_f8;
    k->panels_mul[HD_PANEL_BF16] = k->panels_mul[HD_PANEL_F8] = NULL; // those of the level below sum in another order
    k->wide_mul = NULL;
    k->bf12_pack = NULL; // tiles take bf16 as it is
    k->panel_mul[HD_PANEL_BF12] = NULL;
    k->panels_mul[HD_PANEL_BF12] = NULL;
}
