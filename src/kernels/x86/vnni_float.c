/* Float products for AVX-512: eight rows of a panel are 16 registers of sums, half of what there is.  The loops of a tile are in
 * float_body.h; here is the product of many rows of bf16. */
#include "kernels/x86/vnni_int.h"

#define ROWS            8
#define HALVES          2
#define FETCH(p, bytes) fetch((p) + AHEAD, bytes)
#include "kernels/float_body.h"

/* Many rows of bf16: rows and panels are widened into scratch, WIDE_K of k at a time (a panel then lies in the first-level cache,
 * WIDE_M rows in the second), and multiplied as f32.  An output's products are the same (a product of two bf16 is exact in f32) and
 * so is their order: its running sum waits in y between the blocks of k.  One core of a Xeon with AVX512_BF16, M 512, K 768, one panel:
 * 77 G operations/s by tile_bf16, 87 by vdpbf16ps, 150 by this. */
enum { WIDE_K = 256, WIDE_M = 128, WIDE_FROM = 16 };

INLINE void widen_panel(float *w, const uint8_t *p, int64_t n)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    for (int64_t i = 0; i < n; i += 2, p += 128, w += 64)
        UNROLL for (int z = 0; z < 2; z++) {
            __m512i v = _mm512_loadu_si512(p + 64 * z);
            fetch(p + AHEAD + 64 * z, 64);
            _mm512_store_ps(w + 16 * z, _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)));
            _mm512_store_ps(w + 32 + 16 * z, _mm512_castsi512_ps(_mm512_and_si512(v, upper)));
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

/* w: a panel of f32; act: rows of WIDE_K numbers. */
INLINE void tile_wide(bool go_on, int rows, const tile *widened)
{
    tile u = *widened, *t = &u;
    v16 f[ROWS][2];
    t->stride = WIDE_K * sizeof(float); // a constant: rows are displacements of one address
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = go_on ? v_load(t->y + m * t->ldy + 16 * z) : v_set1(0);
    for (int64_t i = 0; i < t->k; i++) {
        const float *p = (const float *)(const void *)t->w + 32 * i;
        const v16 w[2] = {v_load(p), v_load(p + 16)};
        add_products(rows, 0, 2, f, t, w, i, false);
    }
    store_tile(rows, t, f);
}

TILES_8(first, tile_wide(false, rows, t))
TILES_8(further, tile_wide(true, rows, t))

/* n panels, `step` bytes apart, with outputs 32 apart. */
static void mul_wide_bf16(const uint8_t *panels, size_t step, int n_panels, int64_t k, const uint8_t *act, size_t stride, int M,
                          float *y, int64_t ldy, float *scratch)
{
    float *w = scratch, *x = scratch + WIDE_K * 32;
    for (int64_t k0 = 0; k0 < k; k0 += WIDE_K) {
        int64_t n = k - k0 < WIDE_K ? (k - k0 + 1) / 2 * 2 : WIDE_K; // an odd k has a zero behind it
        widen_rows(M, x, act + k0 * 2, stride, n);
        for (int p = 0; p < n_panels; p++) {
            widen_panel(w, panels + (size_t)p * step + k0 * 64, n);
            run_tiles(k0 > 0 ? further_tiles : first_tiles, ROWS, w, n, (const uint8_t *)x, WIDE_K * sizeof(float), M, y + 32 * p, ldy,
                      NULL);
        }
    }
}

static void mul_panels_bf16(const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t stride, int M, float *y,
                            int64_t ldy, void *scratch)
{
    if (M < WIDE_FROM) {
        for (int p = 0; p < n; p++)
            mul_bf16((const uint8_t *)panels + (size_t)p * step, k, act, stride, M, y + 32 * p, ldy, scratch);
        return;
    }
    for (int m = 0; m < M; m += WIDE_M)
        mul_wide_bf16(panels, step, n, k, act + (size_t)m * stride, stride, M - m < WIDE_M ? M - m : WIDE_M, y + m * ldy, ldy,
                      scratch);
}

static void mul_any_bf16(MUL_PARAMS) { mul_panels_bf16(panel, 0, 1, k, act, stride, M, y, ldy, scratch); }

void hd_fill_float_vnni(hd_kernels *k)
{
    FLOAT_PANELS(MUL_FILL)
    k->panel_mul[HD_PANEL_BF16] = mul_any_bf16;
    k->panels_mul[HD_PANEL_BF16] = mul_panels_bf16;
}
