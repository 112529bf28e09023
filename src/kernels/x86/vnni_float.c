/* The vnni level's float panels, and packing of activations.
 *
 * A tile is one panel by 1..ROWS rows; weights are widened to f32 in registers.  An output's products are added in
 * order of k by one chain of FMAs, whatever the tile. */
#include "kernels/x86/vnni_int.h"

enum { ROWS = 8 };

typedef struct {
    const uint8_t *w, *act;
    int64_t k;
    size_t stride;
    float *y;
    int64_t ldy;
} tile;

INLINE float act_f32(const tile *t, int m, int64_t i)
{
    float x;
    memcpy(&x, t->act + (size_t)m * t->stride + i * 4, 4);
    return x;
}
INLINE float act_bf16(const tile *t, int m, int64_t i)
{
    uint16_t h;
    uint32_t u;
    float x;
    memcpy(&h, t->act + (size_t)m * t->stride + i * 2, 2);
    u = (uint32_t)h << 16;
    memcpy(&x, &u, 4);
    return x;
}

INLINE void zero_tile(int rows, __m512 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++) f[m][0] = f[m][1] = _mm512_setzero_ps();
}
INLINE void add_products(int rows, __m512 f[][2], const tile *t, const __m512 w[2], int64_t i, bool bf16)
{
    UNROLL for (int m = 0; m < rows; m++) {
        __m512 x = _mm512_set1_ps(bf16 ? act_bf16(t, m, i) : act_f32(t, m, i));
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = _mm512_fmadd_ps(w[z], x, f[m][z]);
    }
}
INLINE void store_tile(int rows, const tile *t, __m512 f[][2])
{
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) _mm512_storeu_ps(t->y + m * t->ldy + 16 * z, f[m][z]);
}

INLINE void tile_f32(int rows, const tile *t)
{
    __m512 f[ROWS][2];
    zero_tile(rows, f);
    for (int64_t i = 0; i < t->k; i++) {
        const uint8_t *p = t->w + i * 128;
        fetch(p + AHEAD, 128);
        __m512 w[2] = {_mm512_loadu_ps(p), _mm512_loadu_ps(p + 64)};
        add_products(rows, f, t, w, i, false);
    }
    store_tile(rows, t, f);
}

INLINE void tile_f16(int rows, const tile *t)
{
    __m512 f[ROWS][2];
    zero_tile(rows, f);
    for (int64_t i = 0; i < t->k; i++) {
        const uint8_t *p = t->w + i * 64;
        fetch(p + AHEAD, 64);
        __m512 w[2] = {load_f16(p), load_f16(p + 32)};
        add_products(rows, f, t, w, i, false);
    }
    store_tile(rows, t, f);
}

/* A register holds 16 rows' pairs: the even element is the lower half of each lane. */
INLINE void add_pair(int rows, __m512 f[][2], const tile *t, const __m512i v[2], int64_t i)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    __m512 even[2], odd[2];
    UNROLL for (int z = 0; z < 2; z++) {
        even[z] = _mm512_castsi512_ps(_mm512_slli_epi32(v[z], 16));
        odd[z] = _mm512_castsi512_ps(_mm512_and_si512(v[z], upper));
    }
    add_products(rows, f, t, even, i, true);
    add_products(rows, f, t, odd, i + 1, true);
}

INLINE void tile_bf16(int rows, const tile *t)
{
    __m512 f[ROWS][2];
    zero_tile(rows, f);
    for (int64_t i = 0; i < t->k; i += 2) { // an odd k has a zero behind it, in the panel and in the blob
        const uint8_t *p = t->w + i * 64;
        fetch(p + AHEAD, 128);
        __m512i v[2] = {_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64)};
        add_pair(rows, f, t, v, i);
    }
    store_tile(rows, t, f);
}

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

INLINE void tile_wide(int rows, const float *w, const float *x, int64_t n, float *y, int64_t ldy, bool go_on)
{
    __m512 f[ROWS][2];
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) f[m][z] = go_on ? _mm512_loadu_ps(y + m * ldy + 16 * z) : _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i++) {
        __m512 v[2] = {_mm512_load_ps(w + 32 * i), _mm512_load_ps(w + 32 * i + 16)};
        UNROLL for (int m = 0; m < rows; m++) {
            __m512 b = _mm512_set1_ps(x[m * WIDE_K + i]);
            UNROLL for (int z = 0; z < 2; z++) f[m][z] = _mm512_fmadd_ps(v[z], b, f[m][z]);
        }
    }
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int z = 0; z < 2; z++) _mm512_storeu_ps(y + m * ldy + 16 * z, f[m][z]);
}

typedef void wide_fn(const float *w, const float *x, int64_t n, float *y, int64_t ldy, bool go_on);
#define WIDE(rows)                                                                                           \
    static void wide_##rows(const float *w, const float *x, int64_t n, float *y, int64_t ldy, bool go_on)    \
    {                                                                                                        \
        tile_wide(rows, w, x, n, y, ldy, go_on);                                                             \
    }
WIDE(1) WIDE(2) WIDE(3) WIDE(4) WIDE(5) WIDE(6) WIDE(7) WIDE(8)
static wide_fn *const wide_tiles[] = {NULL, wide_1, wide_2, wide_3, wide_4, wide_5, wide_6, wide_7, wide_8};

/* n panels, `step` bytes apart, with outputs 32 apart. */
static void mul_wide_bf16(const uint8_t *panels, size_t step, int n_panels, int64_t k, const uint8_t *act, size_t stride, int M,
                          float *y, int64_t ldy, float *scratch)
{
    float *w = scratch, *x = scratch + WIDE_K * 32;
    int tiles = (M + ROWS - 1) / ROWS;
    for (int64_t k0 = 0; k0 < k; k0 += WIDE_K) {
        int64_t n = k - k0 < WIDE_K ? (k - k0 + 1) / 2 * 2 : WIDE_K; // an odd k has a zero behind it
        widen_rows(M, x, act + k0 * 2, stride, n);
        for (int p = 0; p < n_panels; p++) {
            widen_panel(w, panels + (size_t)p * step + k0 * 64, n);
            for (int i = 0, m = 0; i < tiles; i++) {
                int end = (int)((int64_t)M * (i + 1) / tiles);
                wide_tiles[end - m](w, x + m * WIDE_K, n, y + m * ldy + 32 * p, ldy, k0 > 0);
                m = end;
            }
        }
    }
}

/* e4m3 shifted left by 7 in 16 bits is an f16 of value times 2^-8, subnormals included; the 2^8 goes into the scale. */
INLINE void tile_f8(int rows, const tile *t)
{
    __m512 f[ROWS][2], g[ROWS][2];
    zero_tile(rows, f);
    for (int64_t i0 = 0; i0 < t->k; i0 += 128) {
        const uint8_t *p = t->w + i0 / 128 * P_F8;
        int64_t n = t->k - i0 < 128 ? t->k - i0 : 128;
        float scale;
        memcpy(&scale, p, 4);
        zero_tile(rows, g);
        for (int64_t i = 0; i < n; i += 2) {
            __m512 w[2][2];
            fetch(p + 64 + i * 32 + AHEAD, 64);
            UNROLL for (int z = 0; z < 2; z++) {
                __m512i v = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(p + 64 + i * 32 + z * 32)));
                v = _mm512_or_si512(_mm512_slli_epi16(_mm512_and_si512(v, _mm512_set1_epi16(0x7f)), 7),
                                    _mm512_slli_epi16(_mm512_and_si512(v, _mm512_set1_epi16(0x80)), 8));
                w[0][z] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); // even elements
                w[1][z] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
            }
            add_products(rows, g, t, w[0], i0 + i, true);
            add_products(rows, g, t, w[1], i0 + i + 1, true);
        }
        __m512 s = _mm512_set1_ps(scale * 256);
        UNROLL for (int m = 0; m < rows; m++)
            UNROLL for (int z = 0; z < 2; z++) f[m][z] = _mm512_fmadd_ps(g[m][z], s, f[m][z]);
    }
    store_tile(rows, t, f);
}

typedef void tile_fn(const tile *t);

static void run_tiles(tile_fn *const *fn, const void *panel, int64_t k, const uint8_t *act, size_t stride, int M,
                      float *y, int64_t ldy)
{
    int n = (M + ROWS - 1) / ROWS;
    for (int i = 0, m = 0; i < n; i++) {
        int end = (int)((int64_t)M * (i + 1) / n);
        tile t = {panel, act + (size_t)m * stride, k, stride, y + m * ldy, ldy};
        fn[end - m](&t);
        m = end;
    }
}

#define TILE(name, rows)                                                                                     \
    static void name##_##rows(const tile *t) { tile_##name(rows, t); }
#define MUL(name)                                                                                            \
    TILE(name, 1) TILE(name, 2) TILE(name, 3) TILE(name, 4) TILE(name, 5) TILE(name, 6) TILE(name, 7) TILE(name, 8) \
    static tile_fn *const name##_tiles[] = {NULL,     name##_1, name##_2, name##_3, name##_4,                \
                                            name##_5, name##_6, name##_7, name##_8};                         \
    static void mul_##name(const void *panel, int64_t k, const uint8_t *act, size_t act_stride, int M, float *y, \
                           int64_t ldy, void *scratch)                                                       \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        run_tiles(name##_tiles, panel, k, act, act_stride, M, y, ldy);                                       \
    }

MUL(f32)
MUL(f16)
MUL(f8)

TILE(bf16, 1) TILE(bf16, 2) TILE(bf16, 3) TILE(bf16, 4) TILE(bf16, 5) TILE(bf16, 6) TILE(bf16, 7) TILE(bf16, 8)
static tile_fn *const bf16_tiles[] = {NULL,   bf16_1, bf16_2, bf16_3, bf16_4, bf16_5, bf16_6, bf16_7, bf16_8};
static void mul_bf16_panels(const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t act_stride, int M, float *y,
                            int64_t ldy, void *scratch)
{
    if (M < WIDE_FROM) {
        for (int p = 0; p < n; p++)
            run_tiles(bf16_tiles, (const uint8_t *)panels + (size_t)p * step, k, act, act_stride, M, y + 32 * p, ldy);
        return;
    }
    for (int m = 0; m < M; m += WIDE_M)
        mul_wide_bf16(panels, step, n, k, act + (size_t)m * act_stride, act_stride, M - m < WIDE_M ? M - m : WIDE_M, y + m * ldy, ldy,
                      scratch);
}

static void mul_bf16(const void *panel, int64_t k, const uint8_t *act, size_t act_stride, int M, float *y, int64_t ldy, void *scratch)
{
    mul_bf16_panels(panel, 0, 1, k, act, act_stride, M, y, ldy, scratch);
}

/* ---- Activations -------------------------------------------------------------------------------------------------- */

INLINE __m512 load_part(const float *x, int64_t left) // 16 numbers, zero past the end
{
    return left >= 16 ? _mm512_loadu_ps(x)
                      : _mm512_maskz_loadu_ps(left > 0 ? (__mmask16)((1u << left) - 1) : 0, x);
}

/* A group of n registers with one scale.  sums: of each register. */
INLINE float quantize(int n, int8_t *q, const float *x, int64_t left, int sums[])
{
    __m512 v[8], top = _mm512_setzero_ps();
    UNROLL for (int i = 0; i < n; i++) {
        v[i] = load_part(x + (left > 16 * i ? 16 * i : 0), left - 16 * i);
        top = _mm512_max_ps(_mm512_abs_ps(v[i]), top); // NaN in v loses
    }
    float max = _mm512_reduce_max_ps(top);
    __m512 inv = _mm512_set1_ps(max > 0 ? 127.0f / max : 0);
    UNROLL for (int i = 0; i < n; i++) {
        __m512i r = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inv)); // NaN becomes INT_MIN, saturated below
        r = _mm512_max_epi32(_mm512_min_epi32(r, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
        _mm_storeu_si128((__m128i *)(void *)(q + 16 * i), _mm512_cvtepi32_epi8(r));
        sums[i] = _mm512_reduce_add_epi32(r);
    }
    return max / 127.0f;
}

static void pack_q8(uint8_t *blob, const float *x, int64_t k)
{
    int64_t kp = (k + 63) / 64 * 64;
    float *scale = (float *)(void *)(blob + kp), *xsum = scale + kp / 32;
    int16_t *sum = (int16_t *)(void *)(xsum + kp / 32);
    for (int64_t b = 0; b < kp / 32; b++) {
        int s[2];
        scale[b] = quantize(2, (int8_t *)blob + 32 * b, x + (32 * b < k ? 32 * b : 0), k - 32 * b, s);
        sum[b] = (int16_t)(s[0] + s[1]);
        xsum[b] = scale[b] * (float)sum[b];
    }
}

static void pack_q8k(uint8_t *blob, const float *x, int64_t k)
{
    int64_t kp = (k + 255) / 256 * 256;
    float *scale = (float *)(void *)(blob + kp);
    int16_t *sum16 = (int16_t *)(void *)(scale + kp / HD_Q8K_GROUP), *sum32 = sum16 + kp / 16;
    for (int64_t g = 0; g < kp / HD_Q8K_GROUP; g++) {
        int s[8];
        int64_t i = g * HD_Q8K_GROUP;
        scale[g] = quantize(8, (int8_t *)blob + i, x + (i < k ? i : 0), k - i, s);
        for (int b = 0; b < 8; b++) sum16[8 * g + b] = (int16_t)s[b];
        for (int b = 0; b < 4; b++) sum32[4 * g + b] = (int16_t)(s[2 * b] + s[2 * b + 1]);
    }
}

/* Round to nearest even; NaN stays NaN. */
static void pack_bf16(uint8_t *blob, const float *x, int64_t k)
{
    int64_t kp = (k + 63) / 64 * 64;
    for (int64_t i = 0; i < kp; i += 16) {
        __m512 v = load_part(x + (i < k ? i : 0), k - i);
        __m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
        __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
        _mm256_storeu_si256((__m256i *)(void *)(blob + 2 * i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
    }
}

static void act_pack(hd_act_kind kind, void *blob, const float *x, int64_t k)
{
    int64_t kp = (k + 63) / 64 * 64;
    switch (kind) {
    case HD_ACT_F32:
        memcpy(blob, x, (size_t)k * 4);
        memset((float *)blob + k, 0, (size_t)(kp - k) * 4);
        break;
    case HD_ACT_BF16: pack_bf16(blob, x, k); break;
    case HD_ACT_Q8: pack_q8(blob, x, k); break;
    case HD_ACT_Q8K: pack_q8k(blob, x, k); break;
    case HD_N_ACT: break;
    }
}

void hd_fill_mul_vnni(hd_kernels *k)
{
    k->act_pack = act_pack;
    k->panel_mul[HD_PANEL_F32] = mul_f32;
    k->panel_mul[HD_PANEL_F16] = mul_f16;
    k->panel_mul[HD_PANEL_BF16] = mul_bf16;
    k->panels_mul[HD_PANEL_BF16] = mul_bf16_panels;
    k->panel_mul[HD_PANEL_F8] = mul_f8;
    for (int i = 0; i < HD_N_PANEL; i++)
        if (hd_vnni_mul[i]) k->panel_mul[i] = hd_vnni_mul[i];
}
