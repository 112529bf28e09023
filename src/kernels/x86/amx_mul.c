/* Products with AMX: tiles of 16 rows of activations by 16 outputs.
 *
 * bf16 runs on tiles for every number of rows, so that one row has the bits it has among many.  Integer sums are exact,
 * so integer panels keep the vnni kernels for fewer than 16 rows, and here do the same float operations in the same
 * order.  Weights are unpacked once for all rows, 256 of k at a time, into signed bytes:
 *   one scale per block   tiles of 32 of k; each block's sums are stored, scaled, added
 *   K formats             the block's integer scale is multiplied in: scale * q = 64 hi + lo, two bytes, so a group of
 *                         128 is summed inside the tiles without leaving them
 * The last tile of a batch that is no multiple of 16 starts at row M-16 and adds only the rows not yet done. */
#include "kernels/x86/vnni_int.h"

enum { TILE_ROWS = 16 };

typedef struct {
    uint8_t palette, start_row, zero[14];
    uint16_t colsb[16];
    uint8_t rows[16];
} tile_config; // LDTILECFG, Intel SDM volume 1, 18.2

/* Tiles 0-3 sums, 4 and 5 activations [rows][a_bytes], 6 and 7 weights [a_bytes/4][64]. */
static void tiles_open(int rows, int a_bytes)
{
    tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.rows[i] = (uint8_t)(i < 6 ? rows : a_bytes / 4);
        c.colsb[i] = (uint16_t)(i == 4 || i == 5 ? a_bytes : 64);
    }
    _tile_loadconfig(&c);
}

/* ---- bf16 ----------------------------------------------------------------------------------------------------------- */

static void mul_bf16(const void *panel, int64_t k, const uint8_t *act, size_t act_stride, int M, float *y, int64_t ldy,
                     void *scratch)
{
    (void)scratch;
    const size_t ld = (size_t)ldy * 4;
    int64_t steps = (k + 63) / 64 * 2; // of 32
    tiles_open(M < TILE_ROWS ? M : TILE_ROWS, 64);
    for (int m = 0; m < M; m += 2 * TILE_ROWS) {
        const uint8_t *w = panel;
        int left = M - m, two = left > TILE_ROWS, a = left >= TILE_ROWS || M < TILE_ROWS ? m : M - TILE_ROWS,
            b = two ? (left >= 2 * TILE_ROWS ? m : M - 2 * TILE_ROWS) + TILE_ROWS : a;
        const uint8_t *qa = act + (size_t)a * act_stride, *qb = act + (size_t)b * act_stride;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t s = 0; s < steps; s++, w += 2048, qa += 64, qb += 64) {
            if (m == 0) fetch(w + 2 * AHEAD, 1024);
            if (m == 0) fetch(w + 3 * AHEAD, 1024);
            _tile_loadd(6, w, 128);
            _tile_loadd(7, w + 64, 128);
            _tile_loadd(4, qa, act_stride);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (!two) continue;
            _tile_loadd(5, qb, act_stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, y + a * ldy, ld);
        _tile_stored(1, y + a * ldy + 16, ld);
        if (!two) continue;
        _tile_stored(2, y + b * ldy, ld);
        _tile_stored(3, y + b * ldy + 16, ld);
    }
    _tile_release();
}

/* ---- Integers --------------------------------------------------------------------------------------------------------- */

typedef struct {
    int8_t w[16384];      // tiles of 256 of k
    float d[8][32];       // simple: per block
    float c[8][32];       // simple: minima
    int32_t sum[16][256]; // sums out of tiles
    float y[256 * 32];    // outputs of up to 256 rows: dense, where the caller's lie a page apart
} __attribute__((aligned(64))) work;

static void zero_rows(int M, float *y, int64_t ldy)
{
    for (int m = 0; m < M; m++) {
        _mm512_storeu_ps(y + m * ldy, _mm512_setzero_ps());
        _mm512_storeu_ps(y + m * ldy + 16, _mm512_setzero_ps());
    }
}

#define AT(p, m) ((const void *)((const uint8_t *)(p) + (size_t)(m) * stride)) // the same place in row m

/* One row's sums of nb blocks, scaled and added in order. */
INLINE void add_row(bool min, const work *o, int m, int nb, const float *scale, const float *xsum, float *y)
{
    __m512 f[2] = {_mm512_loadu_ps(y), _mm512_loadu_ps(y + 16)};
    for (int b = 0; b < nb; b++) {
        __m512 v = _mm512_set1_ps(scale[b]), u = _mm512_set1_ps(min ? xsum[b] : 0);
        UNROLL for (int z = 0; z < 2; z++) {
            __m512 s = _mm512_cvtepi32_ps(_mm512_load_si512(o->sum[2 * b + z] + m * 16));
            f[z] = _mm512_fmadd_ps(s, _mm512_mul_ps(_mm512_load_ps(o->d[b] + 16 * z), v), f[z]);
            if (min) f[z] = _mm512_fmadd_ps(_mm512_load_ps(o->c[b] + 16 * z), u, f[z]);
        }
    }
    _mm512_storeu_ps(y, f[0]);
    _mm512_storeu_ps(y + 16, f[1]);
}

INLINE void mul_simple(hd_panel_id id, int bytes, const uint8_t *w, int64_t k, const uint8_t *act, size_t stride, int M,
                       float *y, int64_t ldy, work *o)
{
    const bool min = id == HD_PANEL_Q4_1 || id == HD_PANEL_Q5_1;
    const int head = min ? 2 * P_F16 : P_F16;
    const __m512i offset = _mm512_set1_epi8((char)offset_of(id));
    const int64_t kp = (k + 63) / 64 * 64;
    tiles_open(TILE_ROWS, 32);
    zero_rows(M, y, ldy);
    for (int64_t b0 = 0; b0 < k / 32; b0 += 8) {
        int nb = k / 32 - b0 < 8 ? (int)(k / 32 - b0) : 8;
        for (int b = 0; b < nb; b++, w += bytes) {
            UNROLL for (int z = 0; z < 2; z++) {
                _mm512_store_ps(o->d[b] + 16 * z, load_f16(w + 32 * z));
                if (min) _mm512_store_ps(o->c[b] + 16 * z, load_f16(w + P_F16 + 32 * z));
                UNROLL for (int j = 0; j < 4; j++) {
                    __m512i q[2];
                    load_quads(id, w + head, j, z, q);
                    UNROLL for (int i = 0; i < 2; i++)
                        _mm512_store_si512(o->w + b * 1024 + z * 512 + (2 * j + i) * 64, _mm512_sub_epi8(q[i], offset));
                }
            }
        }
        for (int m = 0; m < M; m += TILE_ROWS) {
            int at = M - m < TILE_ROWS ? M - TILE_ROWS : m;
            const uint8_t *q = act + (size_t)at * stride;
            const float *scale = (const float *)(const void *)(q + kp) + b0, *xsum = scale + kp / 32;
            for (int b = 0; b < nb; b++) {
                _tile_loadd(4, q + (b0 + b) * 32, stride);
                _tile_loadd(6, o->w + b * 1024, 64);
                _tile_zero(0);
                _tile_dpbssd(0, 4, 6);
                _tile_loadd(7, o->w + b * 1024 + 512, 64);
                _tile_zero(1);
                _tile_dpbssd(1, 4, 7);
                _tile_stored(0, o->sum[2 * b], 64);
                _tile_stored(1, o->sum[2 * b + 1], 64);
            }
            for (int r = m - at; r < TILE_ROWS; r++)
                add_row(min, o, r, nb, AT(scale, r), AT(xsum, r), y + (at + r) * ldy);
        }
    }
    _tile_release();
}

/* scale * (q - offset) = 64 hi + lo for a register of quads; sc: 16 rows' scales, twice in each lane. */
INLINE void split(__m512i q, __m512i offset, __m512i sc, int8_t *hi, int8_t *lo)
{
    const __m512i low8 = _mm512_set1_epi16(0xff), low6 = _mm512_set1_epi16(63);
    __m512i even = _mm512_mullo_epi16(_mm512_sub_epi16(_mm512_and_si512(q, low8), offset), sc);
    __m512i odd = _mm512_mullo_epi16(_mm512_sub_epi16(_mm512_srli_epi16(q, 8), offset), sc);
    _mm512_store_si512(hi, _mm512_or_si512(_mm512_and_si512(_mm512_srai_epi16(even, 6), low8),
                                           _mm512_slli_epi16(_mm512_srai_epi16(odd, 6), 8)));
    _mm512_store_si512(lo, _mm512_or_si512(_mm512_and_si512(even, low6),
                                           _mm512_slli_epi16(_mm512_and_si512(odd, low6), 8)));
}

/* One super-block: tile (pair of blocks p, half z): o->w + (2p + z) * 2048, hi then lo. */
INLINE void unpack_k(hd_panel_id id, work *o, const uint8_t *super)
{
    const bool six = id == HD_PANEL_Q6_K;
    const int head = six ? P_F16 : 2 * P_F16, pair = id == HD_PANEL_Q5_K ? P_Q5_K_PAIR : P_Q4_K_PAIR;
    const int block = six ? P_Q6_K_BLOCK : (pair - 128) / 2;
    const __m512i offset = _mm512_set1_epi16((short)offset_of(id));
    for (int b = 0; b < 8; b++) {
        const uint8_t *head_of = super + head + (six ? b * block : b / 2 * pair);
        const uint8_t *ints = six ? head_of + 64 : head_of + 128 + b % 2 * block;
        UNROLL for (int z = 0; z < 2; z++) {
            int8_t *to = o->w + (b / 2 * 2 + z) * 2048 + b % 2 * 512;
            UNROLL for (int j = 0; j < 4; j++) {
                __m512i q[2], sc = six ? load_i8(head_of + j / 2 * 32 + 16 * z) : load_u8(head_of + b % 2 * 32 + 16 * z);
                sc = _mm512_or_si512(_mm512_slli_epi32(sc, 16), _mm512_and_si512(sc, _mm512_set1_epi32(0xffff)));
                load_quads(id, ints, j, z, q);
                UNROLL for (int i = 0; i < 2; i++)
                    split(q[i], offset, sc, to + (2 * j + i) * 64, to + 1024 + (2 * j + i) * 64);
            }
        }
    }
}

INLINE void mul_k(hd_panel_id id, const uint8_t *w, int64_t k, const uint8_t *act, size_t stride, int M, float *y,
                  int64_t ldy, work *o)
{
    const bool six = id == HD_PANEL_Q6_K;
    const int pair = id == HD_PANEL_Q5_K ? P_Q5_K_PAIR : P_Q4_K_PAIR;
    const int bytes = six ? P_Q6_K : id == HD_PANEL_Q5_K ? P_Q5_K : P_Q4_K;
    tiles_open(TILE_ROWS, 64);
    zero_rows(M, y, ldy);
    for (int64_t s = 0; s < k / 256; s++, w += bytes) {
        unpack_k(id, o, w);
        for (int g = 0; g < 2; g++) {
            __m512 d[2] = {load_f16(w), load_f16(w + 32)}, dmin[2] = {d[0], d[1]};
            __m512i mn[2][2] = {{_mm512_setzero_si512()}};
            if (!six)
                UNROLL for (int z = 0; z < 2; z++) {
                    dmin[z] = load_f16(w + P_F16 + 32 * z);
                    UNROLL for (int p = 0; p < 2; p++)
                        mn[z][p] = _mm512_cvtepu8_epi16(_mm256_loadu_si256(
                            (const void *)(w + 2 * P_F16 + (2 * g + p) * pair + 64 + 32 * z)));
                }
            for (int m = 0; m < M; m += TILE_ROWS) {
                int at = M - m < TILE_ROWS ? M - TILE_ROWS : m;
                const uint8_t *q = act + (size_t)at * stride;
                const float *scale = (const float *)(const void *)(q + k) + 2 * s + g;
                const int16_t *sum32 = (const int16_t *)(const void *)(q + k + k / HD_Q8K_GROUP * 4) + k / 16 +
                                       8 * s + 4 * g;
                const int8_t *tiles = o->w + g * 8192;
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
                for (int p = 0; p < 2; p++, tiles += 4096) {
                    _tile_loadd(4, q + 256 * s + 128 * g + 64 * p, stride);
                    _tile_loadd(6, tiles, 64);
                    _tile_dpbssd(0, 4, 6);
                    _tile_loadd(7, tiles + 1024, 64);
                    _tile_dpbssd(1, 4, 7);
                    _tile_loadd(6, tiles + 2048, 64);
                    _tile_dpbssd(2, 4, 6);
                    _tile_loadd(7, tiles + 3072, 64);
                    _tile_dpbssd(3, 4, 7);
                }
                int32_t(*sum)[256] = &o->sum[m / TILE_ROWS % 2 * 4];
                _tile_stored(0, sum[0], 64);
                _tile_stored(1, sum[1], 64);
                _tile_stored(2, sum[2], 64);
                _tile_stored(3, sum[3], 64);
                for (int r = m - at; r < TILE_ROWS; r++) {
                    __m512 v = _mm512_set1_ps(*(const float *)AT(scale, r));
                    int32_t two[2];
                    memcpy(two, AT(sum32, r), 8);
                    UNROLL for (int z = 0; z < 2; z++) {
                        float *p = y + (at + r) * ldy + 16 * z;
                        __m512i all = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(sum[2 * z] + r * 16), 6),
                                                       _mm512_load_si512(sum[2 * z + 1] + r * 16));
                        __m512 u = _mm512_mul_ps(_mm512_cvtepi32_ps(all), d[z]);
                        if (!six) {
                            __m512i mins = _mm512_dpwssd_epi32(_mm512_setzero_si512(), mn[z][0], _mm512_set1_epi32(two[0]));
                            mins = _mm512_dpwssd_epi32(mins, mn[z][1], _mm512_set1_epi32(two[1]));
                            u = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins), dmin[z], u);
                        }
                        _mm512_storeu_ps(p, _mm512_fmadd_ps(u, v, _mm512_loadu_ps(p)));
                    }
                }
            }
        }
    }
    _tile_release();
}

typedef void rows_fn(const uint8_t *w, int64_t k, const uint8_t *act, size_t stride, int M, float *y, int64_t ldy,
                     work *o);

/* Up to 256 rows at a time, nearly equal parts. */
static void run_rows(rows_fn *fn, const uint8_t *w, int64_t k, const uint8_t *act, size_t stride, int M, float *y,
                     int64_t ldy, work *o)
{
    int n = (M + 255) / 256;
    for (int i = 0, m = 0; i < n; i++) {
        int end = (int)((int64_t)M * (i + 1) / n);
        fn(w, k, act + (size_t)m * stride, stride, end - m, o->y, 32, o);
        for (int r = m; r < end; r++) memcpy(y + r * ldy, o->y + (r - m) * 32, 128);
        m = end;
    }
}

#define MUL(name, id, call)                                                                                  \
    static void rows_##name(const uint8_t *w, int64_t k, const uint8_t *act, size_t stride, int M, float *y, \
                            int64_t ldy, work *o)                                                            \
    {                                                                                                        \
        call;                                                                                                \
    }                                                                                                        \
    static void mul_##name(const void *panel, int64_t k, const uint8_t *act, size_t stride, int M, float *y, \
                           int64_t ldy, void *scratch)                                                       \
    {                                                                                                        \
        if (M < TILE_ROWS) hd_vnni_mul[id](panel, k, act, stride, M, y, ldy, scratch);                       \
        else run_rows(rows_##name, panel, k, act, stride, M, y, ldy, scratch);                               \
    }
#define SIMPLE(name, id, bytes) MUL(name, id, mul_simple(id, bytes, w, k, act, stride, M, y, ldy, o))
#define SUPER(name, id) MUL(name, id, mul_k(id, w, k, act, stride, M, y, ldy, o))

SIMPLE(q8_0, HD_PANEL_Q8_0, P_Q8_0)
SIMPLE(q4_0, HD_PANEL_Q4_0, P_Q4_0)
SIMPLE(q4_1, HD_PANEL_Q4_1, P_Q4_1)
SIMPLE(q5_0, HD_PANEL_Q5_0, P_Q5_0)
SIMPLE(q5_1, HD_PANEL_Q5_1, P_Q5_1)
SIMPLE(iq4_nl, HD_PANEL_IQ4_NL, P_Q4_0)
SUPER(q4_k, HD_PANEL_Q4_K)
SUPER(q5_k, HD_PANEL_Q5_K)
SUPER(q6_k, HD_PANEL_Q6_K)

_Static_assert(sizeof(work) <= HD_MUL_SCRATCH, "does not fit in a thread's scratch");

void hd_fill_mul_amx(hd_kernels *k)
{
    k->panel_mul[HD_PANEL_BF16] = mul_bf16;
    k->panel_mul[HD_PANEL_Q8_0] = mul_q8_0;
    k->panel_mul[HD_PANEL_Q4_0] = mul_q4_0;
    k->panel_mul[HD_PANEL_Q4_1] = mul_q4_1;
    k->panel_mul[HD_PANEL_Q5_0] = mul_q5_0;
    k->panel_mul[HD_PANEL_Q5_1] = mul_q5_1;
    k->panel_mul[HD_PANEL_IQ4_NL] = mul_iq4_nl;
    k->panel_mul[HD_PANEL_Q4_K] = mul_q4_k;
    k->panel_mul[HD_PANEL_Q5_K] = mul_q5_k;
    k->panel_mul[HD_PANEL_Q6_K] = mul_q6_k;
}
