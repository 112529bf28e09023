/* Float products for AVX-512: eight rows of a panel are 16 registers of sums, half of what there is.  The loops of a tile are in
 * float_body.h; here is the product of several rows of bf16. */
#include "kernels/x86/vnni_int.h"

#define ROWS            8
#define HALVES          2
#define FETCH(p, bytes) fetch((p) + AHEAD, bytes)
#include "kernels/float_body.h"

/* Several rows of bf16: the rows are widened into scratch, WIDE_K of k at a time, and multiplied as f32 with one panel after the
 * other.  An output's products are the same (a product of two bf16 is exact in f32) and so is their order: its running sum waits in y
 * between the blocks of k.
 *   up to FEW_ROWS  weights are widened in registers.  The next panel's block is fetched in even portions between the products: all
 *                   of it at once fills the core's places for pending lines, and then the arithmetic stands still.
 *   more            a panel's block is widened, too (it lies in the first-level cache then, WIDE_M rows in the second).
 * One core of a Xeon with AVX512_BF16, M 512, K 768, one panel: 77 G operations/s by tile_bf16, 87 by vdpbf16ps, 150 by this. */
enum { WIDE_K = 256, WIDE_M = 128, FEW_ROWS = 64 };

static void widen_panel(float *w, const uint8_t *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += 2, p += 128, w += 64)
        UNROLL for (int z = 0; z < 2; z++) {
            v16 even, odd;
            v_load_bf16x2((const uint16_t *)(const void *)(p + 64 * z), &even, &odd);
            fetch(p + AHEAD + 64 * z, 64);
            v_store(w + 16 * z, even);
            v_store(w + 32 + 16 * z, odd);
        }
}

static void widen_rows(int rows, float *x, const uint8_t *act, size_t stride, int64_t n)
{
    for (int m = 0; m < rows; m++)
        for (int64_t i = 0; i < n; i += 16) { // blobs are padded to 64 numbers
            __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(act + (size_t)m * stride + i * 2)));
            _mm512_store_ps(x + m * WIDE_K + i, _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)));
        }
}

INLINE void load_tile(int rows, const tile *t, v16 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = v_load(t->y + m * t->ldy + 16 * z);
}

/* Both add to y.  act: rows of WIDE_K floats, so that a row is a displacement of one address.  w: a panel of f32 ... */
INLINE void tile_wide(int rows, const tile *widened)
{
    tile u = *widened, *t = &u;
    v16 f[ROWS][2];
    t->stride = WIDE_K * sizeof(float);
    load_tile(rows, t, f);
    for (int64_t i = 0; i < t->k; i++) {
        const float *p = (const float *)(const void *)t->w + 32 * i;
        const v16 w[2] = {v_load(p), v_load(p + 16)};
        add_products(rows, 0, 2, f, t, w, i, false);
    }
    store_tile(rows, t, f);
}

/* ... or of bf16. */
INLINE void tile_few(int rows, const tile *widened)
{
    tile u = *widened, *t = &u;
    v16 f[ROWS][2];
    t->stride = WIDE_K * sizeof(float);
    load_tile(rows, t, f);
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

TILES_8(wide, tile_wide(rows, t))
TILES_8(few, tile_few(rows, t))

static void mul_panels_bf16(const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t stride, int M, float *y,
                            int64_t ldy, void *scratch)
{
    enum { X_STRIDE = WIDE_K * sizeof(float) };
    float *w = scratch, *wide = w + WIDE_K * HD_PANEL_ROWS;
    const uint8_t *first = panels, *x = (const uint8_t *)wide;
    for (int m0 = 0; m0 < M; m0 += WIDE_M, act += WIDE_M * stride, y += WIDE_M * ldy) {
        const int rows = M - m0 < WIDE_M ? M - m0 : WIDE_M;
        for (int m = 0; m < rows; m++) memset(y + m * ldy, 0, (size_t)n * HD_PANEL_ROWS * sizeof(float));
        for (int64_t k0 = 0; k0 < k; k0 += WIDE_K) {
            const int64_t nk = k - k0 < WIDE_K ? (k - k0 + 1) / 2 * 2 : WIDE_K; // an odd k has a zero behind it
            widen_rows(rows, wide, act + k0 * 2, stride, nk);
            for (int p = 0; p < n; p++) {
                const uint8_t *at = first + (size_t)p * step + k0 * 64, *next = p + 1 < n ? at + step : first + (k0 + nk) * 64;
                float *yp = y + HD_PANEL_ROWS * p;
                if (rows <= FEW_ROWS) run_tiles(few_tiles, ROWS, at, next, nk, x, X_STRIDE, rows, yp, ldy);
                else {
                    widen_panel(w, at, nk);
                    run_tiles(wide_tiles, ROWS, w, NULL, nk, x, X_STRIDE, rows, yp, ldy);
                }
            }
        }
    }
}

static void mul_any_bf16(MUL_PARAMS)
{
    if (M == 1) mul_bf16(panel, k, act, stride, M, y, ldy, scratch); // what is read once needs no scratch
    else mul_panels_bf16(panel, 0, 1, k, act, stride, M, y, ldy, scratch);
}

void hd_fill_float_vnni(hd_kernels *k)
{
    FLOAT_PANELS(MUL_FILL)
    k->panel_mul[HD_PANEL_BF16] = mul_any_bf16;
    k->panels_mul[HD_PANEL_BF16] = mul_panels_bf16;
}
