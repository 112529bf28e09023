/* The way back's loops over v16, included by each level's file.  Contracts: back.h.
 *
 * Sums run over 4 accumulators of 16 lanes, as in rows_body.h. */
#include <math.h>

#include "kernels/back.h"
#include "kernels/v16.h"

typedef struct {
    v16 acc[4];
} sum4;

static inline sum4 sum_none(void) { return (sum4){{v_set1(0), v_set1(0), v_set1(0), v_set1(0)}}; }
static inline float sum_of(const sum4 *s)
{
    return v_sum(v_add(v_add(s->acc[0], s->acc[1]), v_add(s->acc[2], s->acc[3])));
}
/* 16 numbers, or what is left of them and zeros. */
static inline v16 load_left(const float *x, int64_t left) { return left >= 16 ? v_load(x) : v_load_n(x, (int)left, 0); }
static inline void store_left(float *x, v16 v, int64_t left)
{
    if (left >= 16) v_store(x, v);
    else v_store_n(x, v, (int)left);
}

#if defined __AVX512F__
/* 16 x 16: exchange lanes at distances 1, 2, 4, 8 between registers. */
static inline void transpose_16(float *to, int64_t ld_to, const float *from, int64_t ld_from)
{
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * ld_from);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d x = _mm512_castps_pd(b[i + j]), y = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            b[i + j] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0x88);
            b[i + j + 4] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        a[j] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0x88);
        a[j + 8] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0xdd);
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_ps(to + i * ld_to, a[i]);
}
#else
static inline void transpose_16(float *to, int64_t ld_to, const float *from, int64_t ld_from)
{
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) to[c * ld_to + r] = from[r * ld_from + c];
}
#endif

static void transpose(float *to, int64_t ld_to, const float *from, int64_t ld_from, int rows, int cols)
{
    for (int r = 0; r < rows; r += 16)
        for (int c = 0; c < cols; c += 16) {
            if (r + 16 <= rows && c + 16 <= cols) {
                transpose_16(to + c * ld_to + r, ld_to, from + r * ld_from + c, ld_from);
                continue;
            }
            for (int i = r; i < r + 16 && i < rows; i++)
                for (int j = c; j < c + 16 && j < cols; j++) to[j * ld_to + i] = from[i * ld_from + j];
        }
}

/* Before including, a level may define BACK_DOT2(sum, a, b), sum + pairs of bf16, and with it BACK_PAIRS. */
#if !defined BACK_PAIRS
#define BACK_DOT2(sum, a, b) (sum)
#endif

/* As many rows by 32 columns as the registers hold sums for. */
#if defined __AVX512F__
enum { OUTER_ROWS = 8 };
#else
enum { OUTER_ROWS = 2 };
#endif

/* Of pairs of bf16, or of f32.  y's lines are asked for first: they are there when the sums are done. */
INLINE void outer_tile(const bool pairs, const int R, float *y, int64_t ldy, const float *a, int64_t lda, const float *x, int64_t ldx, int M,
                       int cols)
{
    v16 f[OUTER_ROWS][2];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int z = 0; z < 2; z++) __builtin_prefetch(y + r * ldy + 16 * z, 1);
    UNROLL for (int r = 0; r < R; r++) f[r][0] = f[r][1] = v_set1(0);
    for (int m = 0; m < M; m++, a += lda, x += ldx) {
        const v16 w[2] = {v_load(x), v_load(x + 16)};
        UNROLL for (int r = 0; r < R; r++) {
            const v16 s = v_set1(a[r]);
            UNROLL for (int z = 0; z < 2; z++) f[r][z] = pairs ? BACK_DOT2(f[r][z], w[z], s) : v_fma(w[z], s, f[r][z]);
        }
    }
    if (cols >= 32) { // apart: tests between stores made the compiler keep all sums in memory
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int z = 0; z < 2; z++) v_store(y + r * ldy + 16 * z, v_add(v_load(y + r * ldy + 16 * z), f[r][z]));
        return;
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int z = 0; z < 2; z++) {
            float *to = y + r * ldy + 16 * z;
            if (cols >= 16 * z + 16) v_store(to, v_add(v_load(to), f[r][z]));
            else if (cols > 16 * z) v_store_n(to, v_add(v_load_n(to, cols - 16 * z, 0), f[r][z]), cols - 16 * z);
        }
}

INLINE void outer_of(const bool pairs, float *y, int64_t ldy, const float *a, int64_t lda, const float *x, int64_t ldx, int M, int rows, int cols)
{
    for (int c = 0; c < cols; c += 32, y += 32, x += 32)
        for (int i = 0; i < rows; i += OUTER_ROWS) {
#define OUTER_TILE(R) \
    case R: outer_tile(pairs, R, y + i * ldy, ldy, a + i, lda, x, ldx, M, cols - c); break;
            switch (rows - i < OUTER_ROWS ? rows - i : OUTER_ROWS) {
                OUTER_TILE(1)
                OUTER_TILE(2)
#if defined __AVX512F__
                OUTER_TILE(3)
                OUTER_TILE(4)
                OUTER_TILE(5)
                OUTER_TILE(6)
                OUTER_TILE(7)
                OUTER_TILE(8)
#endif
            }
#undef OUTER_TILE
        }
}

static void outer(float *y, int64_t ldy, const float *a, int64_t lda, const float *x, int64_t ldx, int M, int rows, int cols)
{
    outer_of(false, y, ldy, a, lda, x, ldx, M, rows, cols);
}

#if defined BACK_PAIRS
static void outer_pairs(float *y, int64_t ldy, const uint32_t *a, int64_t lda, const uint32_t *x, int64_t ldx, int M, int rows, int cols)
{
    outer_of(true, y, ldy, (const float *)a, lda, (const float *)x, ldx, M, rows, cols);
}
#else
#define outer_pairs NULL
#endif

/* 16 words of bf16(a), bf16(b); `left` numbers are there, the others are zeros. */
#if defined __AVX512F__
#if !defined __AVX512BF16__
/* To nearest even; the result's low half is not cleared.  NaN stays NaN. */
static inline __m512i rounded(__m512 v)
{
    __m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
}
#endif

#if defined __AVX512BF16__
/* Brings numbers of two rows behind each other, as vcvtne2ps2bf16 leaves them, beside each other. */
INLINE __m512i pairs_order(void)
{
    return _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
}
#endif

INLINE void pairs_16(uint32_t *to, const float *a, const float *b, int left)
{
    const __mmask16 there = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1 << left) - 1) : 0;
    const __m512 va = _mm512_maskz_loadu_ps(there, a), vb = b ? _mm512_maskz_loadu_ps(there, b) : _mm512_setzero_ps();
#if defined __AVX512BF16__ // numbers below 2^-126 become zero
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(pairs_order(), (__m512i)_mm512_cvtne2ps_pbh(vb, va)));
#else
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(rounded(va), 16), _mm512_and_si512(rounded(vb), upper)));
#endif
}
#else
INLINE void pairs_16(uint32_t *to, const float *a, const float *b, int left)
{
    for (int i = 0; i < 16; i++) to[i] = i < left ? hd_f32_to_bf16(a[i]) | (b ? (uint32_t)hd_f32_to_bf16(b[i]) << 16 : 0) : 0;
}
#endif

/* The same of bf16. */
#if defined __AVX512F__
INLINE void pairs_bf16_16(uint32_t *to, const uint16_t *a, const uint16_t *b, int left)
{
    const __mmask16 there = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1 << left) - 1) : 0;
    const __m512i lower = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, a));
    const __m512i upper = b ? _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, b)), 16) : _mm512_setzero_si512();
    _mm512_storeu_si512(to, _mm512_or_si512(lower, upper));
}
#else
INLINE void pairs_bf16_16(uint32_t *to, const uint16_t *a, const uint16_t *b, int left)
{
    for (int i = 0; i < 16; i++) to[i] = i < left ? a[i] | (b ? (uint32_t)b[i] << 16 : 0) : 0;
}
#endif

/* Whole rows, by one of these. */
#define PAIRS_BY(words_16)                                                         \
    for (; n > 0; n -= wide, a += wide, b = b ? b + wide : NULL, to += step)       \
        for (int i = 0; i < wide; i += 16) words_16(to + i, a + i, b ? b + i : NULL, n - i)

static void pairs(uint32_t *to, size_t step, int wide, const float *a, const float *b, int n) { PAIRS_BY(pairs_16); }
static void pairs_bf16(uint32_t *to, size_t step, int wide, const uint16_t *a, const uint16_t *b, int n) { PAIRS_BY(pairs_bf16_16); }
#undef PAIRS_BY

static float dot(const float *a, const float *b, int64_t n)
{
    sum4 s = sum_none();
    for (int64_t i = 0; i < n; i += 16)
        s.acc[i / 16 % 4] = v_fma(load_left(a + i, n - i), load_left(b + i, n - i), s.acc[i / 16 % 4]);
    return sum_of(&s);
}

static void scale(float *x, float a, int64_t n)
{
    v16 s = v_set1(a);
    for (int64_t i = 0; i < n; i += 16) store_left(x + i, v_mul(load_left(x + i, n - i), s), n - i);
}

static void attn_row(float *s, float *dp, float factor, float lse, float delta, int n)
{
    v16 f = v_set1(factor), l = v_set1(lse), d = v_set1(delta);
    for (int i = 0; i < n; i += 16) {
        v16 p = v_exp(v_sub(v_mul(load_left(s + i, n - i), f), l));
        v16 g = v_mul(v_mul(p, f), v_sub(load_left(dp + i, n - i), d));
        store_left(s + i, p, n - i);
        store_left(dp + i, g, n - i);
    }
}

#if defined BACK_PAIRS
/* p is rounded to 8 bits: a rough exponential is near enough (v16.h). */
static void attn_pairs(uint32_t *p, uint32_t *ds, uint16_t *const row[2], const float *s, const float *dp, int64_t ld, float scale,
                       const float lse[2], const float delta[2], const int seen[2], int n)
{
    const float log2e = 0x1.715476p+0f;
    const __m512i beside = pairs_order();
    const v16 f = v_set1(scale), f2 = v_set1(scale * log2e), l[2] = {v_set1(lse[0] * log2e), v_set1(lse[1] * log2e)};
    const v16 d[2] = {v_set1(delta[0]), v_set1(delta[1])};
    for (int i = 0; i < n; i += 16) {
        v16 a[2], g[2];
        UNROLL for (int r = 0; r < 2; r++) {
            const int left = seen[r] - i;
            const __mmask16 there = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1 << left) - 1) : 0;
            const v16 z = v_exp2_rough(v_sub(v_mul(_mm512_loadu_ps(s + r * ld + i), f2), l[r]));
            a[r] = _mm512_maskz_mov_ps(there, z);
            g[r] = _mm512_maskz_mul_ps(there, v_mul(z, f), v_sub(_mm512_loadu_ps(dp + r * ld + i), d[r]));
        }
        const __m512i rows = (__m512i)_mm512_cvtne2ps_pbh(g[1], g[0]);
        _mm512_storeu_si512(p + i, _mm512_permutexvar_epi16(beside, (__m512i)_mm512_cvtne2ps_pbh(a[1], a[0])));
        _mm512_storeu_si512(ds + i, _mm512_permutexvar_epi16(beside, rows));
        _mm256_storeu_si256((__m256i *)(void *)(row[0] + i), _mm512_castsi512_si256(rows));
        _mm256_storeu_si256((__m256i *)(void *)(row[1] + i), _mm512_extracti64x4_epi64(rows, 1));
    }
}
#else
#define attn_pairs NULL
#endif

static void silu_mul_back(float *dgate, float *dup, float *a, const float *da, const float *gate, const float *up, int64_t n)
{
    v16 one = v_set1(1);
    for (int64_t i = 0; i < n; i += 16) {
        v16 g = load_left(gate + i, n - i), u = load_left(up + i, n - i), d = load_left(da + i, n - i);
        v16 s = v_div(one, v_add(one, v_exp(v_sub(v_set1(0), g)))), gs = v_mul(g, s);
        if (a) store_left(a + i, v_mul(gs, u), n - i);
        store_left(dgate + i, v_mul(v_mul(d, u), v_mul(s, v_fma(g, v_sub(one, s), one))), n - i);
        store_left(dup + i, v_mul(d, gs), n - i);
    }
}

static void rmsnorm_back(float *dx, bool add, float *dg, const float *dh, const float *x, const float *g, int64_t n, float eps)
{
    sum4 squares = sum_none(), with = sum_none();
    for (int64_t i = 0; i < n; i += 16) {
        int a = (int)(i / 16 % 4);
        v16 v = load_left(x + i, n - i);
        squares.acc[a] = v_fma(v, v, squares.acc[a]);
        with.acc[a] = v_fma(v_mul(load_left(g + i, n - i), load_left(dh + i, n - i)), v, with.acc[a]);
    }
    float r = 1 / sqrtf(sum_of(&squares) / (float)n + eps), k = r * r * (sum_of(&with) / (float)n);
    v16 vr = v_set1(r), vk = v_set1(k);
    for (int64_t i = 0; i < n; i += 16) {
        int64_t left = n - i;
        v16 v = load_left(x + i, left), d = load_left(dh + i, left);
        store_left(dg + i, v_fma(v_mul(d, v), vr, load_left(dg + i, left)), left);
        d = v_mul(vr, v_fnma(v, vk, v_mul(load_left(g + i, left), d)));
        store_left(dx + i, add ? v_add(load_left(dx + i, left), d) : d, left);
    }
}

#define BACK_FILL(level)                                                                                                           \
    void hd_fill_back_##level(hd_kernels *k)                                                                                       \
    {                                                                                                                              \
        static const hd_back_kernels table = {transpose, outer, outer_pairs, pairs, pairs_bf16, dot, scale, attn_row, attn_pairs, silu_mul_back, rmsnorm_back}; \
        k->back = &table;                                                                                                          \
    }
