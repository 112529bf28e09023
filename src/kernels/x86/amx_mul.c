/* Integer products with AMX: tiles of 16 rows of activations by 16 outputs.
 *
 * Integer sums are exact, so a few rows stay with the vnni kernels, and here the same float operations are
 * done in the same order.  Weights are unpacked once for all rows of a pass, into signed bytes:
 *   one scale per block   tiles of 32 of k; each block's sums are scaled and added
 *   K formats             the block's integer scale is multiplied in: scale * q = 64 hi + lo, two bytes, so a
 *                         group of 128 is summed inside the tiles without leaving them
 * The sums leave their tile through memory; vector code scales them and adds them to 16 registers, a tile's
 * float sums.  The tile products of the next step are issued before the scaling of this one, so both units
 * work at once.  The last tile of a batch that is no multiple of 16 ends at its last row: the rows done
 * already are not stored again. */
#include "kernels/x86/amx_tile.h"

enum { SEG = 256 }; // k unpacked at a time by the simple formats

typedef struct {
    int8_t w[2][2 * 256 * 16]; // per half z of the panel; simple: a tile a block; K: 256 of k, hi and lo a pair of blocks
    int32_t sum[2][4][256];    // sums out of tiles: this step's and the next one's
    float d[SEG / 32][32];     // simple: per block
    float c[SEG / 32][32];     // simple: minima
    int16_t mins[2][4][32];    // K: per half and pair of blocks, [row][block]
    float y[MOST_ROWS * 32];   // outputs: dense, where the caller's lie a page apart
} __attribute__((aligned(64))) work;

/* What a pass over rows needs; M >= 16. */
typedef struct {
    const uint8_t *w, *act;
    int64_t k;
    size_t stride;
    float *y;
    int64_t ldy;
    int M;
} pass;

/* The compiler must finish x here: left alone it starts all rows at once and spills half of them. */
#define PIN(x) __asm__ volatile("" : "+v"(x))
#define AT(p, m) ((const void *)((const uint8_t *)(p) + (size_t)(m) * stride)) // the same place in row m

/* Sums live in o->y between segments of k: 0 before the first, the caller's outputs after the last. */
INLINE void load_rows(__m512 f[], const float *y, bool first)
{
    UNROLL for (int r = 0; r < TILE_ROWS; r++) f[r] = first ? _mm512_setzero_ps() : _mm512_load_ps(y + r * 32);
}

/* Rows before `skip` were done by the tile before. */
INLINE void store_rows(const __m512 f[], float *y, int64_t ldy, int skip)
{
    UNROLL for (int r = 0; r < TILE_ROWS; r++)
        if (r >= skip) _mm512_storeu_ps(y + r * ldy, f[r]);
}

/* Outputs lie a page apart: ask for their lines a tile's time ahead. */
INLINE void want_rows(const float *y, int64_t ldy)
{
    for (int r = 0; r < TILE_ROWS; r++) __builtin_prefetch(y + r * ldy, 1);
}

/* The place of step i of a pass: rows and half, two halves to a tile of rows. */
INLINE int row_of(int i, int M)
{
    return (i / 2 + 1) * TILE_ROWS > M ? M - TILE_ROWS : i / 2 * TILE_ROWS;
}

/* The weights to come, fetched in even portions while these are multiplied: asked for all at once they would
 * wait for one another with the tiles idle. */
typedef struct {
    const uint8_t *at, *end;
    int step;
} stream;

INLINE stream stream_open(const uint8_t *w, int64_t bytes, int64_t times)
{
    return (stream){w, w + bytes, (int)((bytes + times * 64 - 1) / (times * 64) * 64)};
}

INLINE void stream_on(stream *s)
{
    const uint8_t *to = s->at + s->step < s->end ? s->at + s->step : s->end;
    for (; s->at < to; s->at += 64) _mm_prefetch((const char *)s->at, _MM_HINT_T1);
}

INLINE void unpack_simple(hd_panel_id id, bool min, int bytes, work *o, const uint8_t *w, int nb)
{
    const __m512i offset = _mm512_set1_epi8((char)offset_of(id));
    for (int b = 0; b < nb; b++, w += bytes) {
        UNROLL for (int z = 0; z < 2; z++) {
            _mm512_store_ps(o->d[b] + 16 * z, load_f16(w + 32 * z));
            if (min) _mm512_store_ps(o->c[b] + 16 * z, load_f16(w + P_F16 + 32 * z));
            UNROLL for (int j = 0; j < 4; j++) {
                __m512i q[2];
                load_quads(id, w + (min ? 2 * P_F16 : P_F16), j, z, q);
                UNROLL for (int i = 0; i < 2; i++)
                    _mm512_store_si512(o->w[z] + b * 512 + (2 * j + i) * 64, min ? q[i] : _mm512_sub_epi8(q[i], offset));
            }
        }
    }
}

/* The steps of a pass over `nb` blocks, ahead of their scaling. */
typedef struct {
    const pass *p;
    const int8_t *w[2];
    const uint8_t *q;
    int64_t b0;
    int nb, n, i, b;
} ahead;

INLINE void ahead_issue(ahead *a, int32_t *last)
{
    if (a->i == a->n) {
        _tile_stored(0, last, 64);
        return;
    }
    _tile_loadd(4, a->q + a->b * 32, a->p->stride);
    _tile_loadd(6, a->w[a->i % 2] + a->b * 512, 64);
    if (last) _tile_stored(0, last, 64);
    _tile_zero(0);
    _tile_dpbssd(0, 4, 6);
    if (++a->b < a->nb) return;
    a->b = 0;
    a->i++;
    a->q = a->p->act + (size_t)row_of(a->i, a->p->M) * a->p->stride + a->b0 * 32;
}

INLINE void mul_simple(hd_panel_id id, int bytes, const pass *p, work *o)
{
    const bool min = id == HD_PANEL_Q4_1 || id == HD_PANEL_Q5_1;
    const size_t stride = p->stride;
    const int64_t kp = (p->k + 63) / 64 * 64;
    const int M = p->M, n = (M + TILE_ROWS - 1) / TILE_ROWS * 2;
    for (int64_t b0 = 0; b0 < p->k / 32; b0 += SEG / 32) {
        int nb = p->k / 32 - b0 < SEG / 32 ? (int)(p->k / 32 - b0) : SEG / 32;
        const bool last = b0 + nb == p->k / 32;
        int32_t *now = o->sum[0][0], *next = o->sum[0][2], *swap;
        unpack_simple(id, min, bytes, o, p->w + b0 * bytes, nb);
        stream next_w = stream_open(p->w + (b0 + nb) * bytes, nb * bytes, (int64_t)n * nb);
        ahead a = {p, {o->w[0], o->w[1]}, p->act + b0 * 32, b0, nb, n, 0, 0};
        ahead_issue(&a, NULL);
        ahead_issue(&a, now);
        for (int i = 0; i < n; i++) {
            const int at = row_of(i, M), z = i % 2;
            const float *scale = (const float *)(const void *)(p->act + (size_t)at * stride + kp) + b0;
            float *y = o->y + at * 32 + 16 * z, *end = last ? p->y + at * p->ldy + 16 * z : y;
            __m512 f[16];
            if (last) want_rows(end, p->ldy);
            load_rows(f, y, b0 == 0);
            for (int b = 0; b < nb; b++, scale++) {
                if (b + 1 < nb || i + 1 < n) ahead_issue(&a, next);
                stream_on(&next_w);
                __m512 d = _mm512_load_ps(o->d[b] + 16 * z), c = d;
                if (min) c = _mm512_load_ps(o->c[b] + 16 * z);
                UNROLL for (int r = 0; r < TILE_ROWS; r++) {
                    __m512 v = _mm512_set1_ps(*(const float *)AT(scale, r));
                    f[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(now + r * 16)), _mm512_mul_ps(d, v), f[r]);
                    if (min) f[r] = _mm512_fmadd_ps(c, _mm512_set1_ps(*(const float *)AT(scale + kp / 32, r)), f[r]);
                }
                swap = now, now = next, next = swap;
            }
            store_rows(f, end, last ? p->ldy : 32, i / 2 * TILE_ROWS - at);
        }
    }
}

/* scale * (q - offset) = 64 hi + lo for a register of quads.  even, odd: 16 rows' scales in bytes 0 and 2, or
 * 1 and 3, of each lane; shift: offset * scale in both halves of a lane. */
INLINE void split(bool six, __m512i q, __m512i even, __m512i odd, __m512i shift, int8_t *hi, int8_t *lo)
{
    const __m512i low8 = _mm512_set1_epi16(0xff);
    __m512i e = _mm512_maddubs_epi16(q, even), o = _mm512_maddubs_epi16(q, odd);
    if (six) e = _mm512_sub_epi16(e, shift), o = _mm512_sub_epi16(o, shift);
    /* ternary 0xCA: low8 ? a : b */
    _mm512_store_si512(hi, _mm512_ternarylogic_epi32(low8, _mm512_srai_epi16(e, 6), _mm512_slli_epi16(o, 2), 0xCA));
    _mm512_store_si512(lo, _mm512_and_si512(_mm512_ternarylogic_epi32(low8, e, _mm512_slli_epi16(o, 8), 0xCA),
                                            _mm512_set1_epi8(63)));
}

/* One super-block: pair of blocks p of half z at o->w[z] + p * 2048, hi then lo. */
INLINE void unpack_k(hd_panel_id id, work *o, const uint8_t *super)
{
    const bool six = id == HD_PANEL_Q6_K;
    const int head = six ? P_F16 : 2 * P_F16, pair = id == HD_PANEL_Q5_K ? P_Q5_K_PAIR : P_Q4_K_PAIR;
    const int block = six ? P_Q6_K_BLOCK : (pair - 128) / 2;
    for (int b = 0; b < 8; b++) {
        const uint8_t *scales = super + head + (six ? b * block : b / 2 * pair);
        const uint8_t *ints = six ? scales + 64 : scales + 128 + b % 2 * block;
        UNROLL for (int z = 0; z < 2; z++) {
            int8_t *to = o->w[z] + b / 2 * 2048 + b % 2 * 512;
            __m512i even = _mm512_setzero_si512(), odd = even, shift = even; // set at j == 0
            UNROLL for (int j = 0; j < 4; j++) {
                if (j == 0 || (six && j == 2)) { // q6_K: a scale per 16
                    __m512i sc = six ? load_i8(scales + j / 2 * 32 + 16 * z) : load_u8(scales + b % 2 * 32 + 16 * z);
                    sc = _mm512_and_si512(sc, _mm512_set1_epi32(0xff));
                    even = _mm512_or_si512(sc, _mm512_slli_epi32(sc, 16));
                    odd = _mm512_slli_epi32(even, 8);
                    shift = _mm512_maddubs_epi16(_mm512_set1_epi8(32), even);
                }
                __m512i q[2];
                load_quads(id, ints, j, z, q);
                UNROLL for (int i = 0; i < 2; i++)
                    split(six, q[i], even, odd, shift, to + (2 * j + i) * 64, to + 1024 + (2 * j + i) * 64);
            }
        }
    }
    if (!six)
        for (int z = 0; z < 2; z++)
            for (int p = 0; p < 4; p++)
                _mm512_store_si512(o->mins[z][p], _mm512_cvtepu8_epi16(_mm256_loadu_si256(
                                                      (const void *)(super + head + p * pair + 64 + 32 * z))));
}

/* Sums of two groups of 128, hi and lo. */
INLINE void super_sums(int32_t to[4][256], const uint8_t *q, size_t stride, const int8_t *w)
{
#define PAIR(p, hi, lo)                                                                                      \
    _tile_loadd(4, q + 64 * (p), stride);                                                                    \
    _tile_loadd(6, w + 2048 * (p), 64);                                                                      \
    _tile_dpbssd(hi, 4, 6);                                                                                  \
    _tile_loadd(7, w + 2048 * (p) + 1024, 64);                                                               \
    _tile_dpbssd(lo, 4, 7)
    _tile_zero(0);
    _tile_zero(1);
    PAIR(0, 0, 1);
    PAIR(1, 0, 1);
    _tile_stored(0, to[0], 64);
    _tile_stored(1, to[1], 64);
    _tile_zero(2);
    _tile_zero(3);
    PAIR(2, 2, 3);
    PAIR(3, 2, 3);
    _tile_stored(2, to[2], 64);
    _tile_stored(3, to[3], 64);
#undef PAIR
}

INLINE void mul_k(hd_panel_id id, int bytes, const pass *p, work *o)
{
    const bool six = id == HD_PANEL_Q6_K;
    const size_t stride = p->stride;
    const int M = p->M, n = (M + TILE_ROWS - 1) / TILE_ROWS * 2;
    const uint8_t *w = p->w;
    for (int64_t s = 0; s < p->k / 256; s++, w += bytes) {
        int32_t(*now)[256] = o->sum[0], (*next)[256] = o->sum[1], (*swap)[256];
        const bool last = s + 1 == p->k / 256;
        unpack_k(id, o, w);
        stream next_w = stream_open(w + bytes, bytes, (int64_t)n * 8);
        super_sums(now, p->act + s * 256, stride, o->w[0]);
        for (int i = 0; i < n; i++) {
            const int at = row_of(i, M), z = i % 2;
            const uint8_t *ints = p->act + (size_t)at * stride + p->k;
            const float *scale = (const float *)(const void *)ints + 2 * s;
            const uint8_t *sum32 = ints + p->k / HD_Q8K_GROUP * 4 + p->k / 8 + 16 * s; // after sum16
            float *y = o->y + at * 32 + 16 * z, *end = last ? p->y + at * p->ldy + 16 * z : y;
            __m512 f[16], d = load_f16(w + 32 * z), dmin = six ? d : load_f16(w + P_F16 + 32 * z);
            if (i + 1 < n) super_sums(next, p->act + (size_t)row_of(i + 1, M) * stride + s * 256, stride, o->w[!z]);
            if (last) want_rows(end, p->ldy);
            load_rows(f, y, s == 0);
            UNROLL for (int g = 0; g < 2; g++, scale++, sum32 += 8) {
                const __m512i m0 = _mm512_load_si512(o->mins[z][2 * g]), m1 = _mm512_load_si512(o->mins[z][2 * g + 1]);
                UNROLL for (int r = 0; r < TILE_ROWS; r++) {
                    __m512i all = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(now[2 * g] + r * 16), 6),
                                                   _mm512_load_si512(now[2 * g + 1] + r * 16));
                    __m512 u = _mm512_mul_ps(_mm512_cvtepi32_ps(all), d);
                    if (!six) {
                        int32_t two[2];
                        memcpy(two, AT(sum32, r), 8);
                        __m512i mins = _mm512_dpwssd_epi32(_mm512_setzero_si512(), m0, _mm512_set1_epi32(two[0]));
                        mins = _mm512_dpwssd_epi32(mins, m1, _mm512_set1_epi32(two[1]));
                        u = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins), dmin, u);
                    }
                    f[r] = _mm512_fmadd_ps(u, _mm512_set1_ps(*(const float *)AT(scale, r)), f[r]);
                    PIN(f[r]);
                    if (r % 4 == 3) stream_on(&next_w);
                }
            }
            store_rows(f, end, last ? p->ldy : 32, i / 2 * TILE_ROWS - at);
            swap = now, now = next, next = swap;
        }
    }
}

/* q4_K for a few tiles of rows, where unpacking is most of the work: the 4-bit integers are used as they are,
 * and each block's sum is multiplied by its scale afterwards.  A group's sum, at most 4 x 63 x 32 x 15 x 127
 * < 2^24, is exact in f32 as in integers: the same bits. */
INLINE void unpack_low(work *o, const uint8_t *super)
{
    for (int b = 0; b < 8; b++) {
        const uint8_t *ints = super + 2 * P_F16 + b / 2 * P_Q4_K_PAIR + 128 + b % 2 * P_LOW;
        UNROLL for (int z = 0; z < 2; z++)
            UNROLL for (int j = 0; j < 4; j++) {
                __m512i q[2];
                load_quads(HD_PANEL_Q4_K, ints, j, z, q);
                _mm512_store_si512(o->w[z] + b * 512 + 2 * j * 64, q[0]);
                _mm512_store_si512(o->w[z] + b * 512 + (2 * j + 1) * 64, q[1]);
            }
    }
}

/* Four blocks' sums, one after the other. */
INLINE void group_sums(int32_t to[4][256], const uint8_t *q, size_t stride, const int8_t *w)
{
#define BLOCK(b)                                                                                             \
    _tile_loadd(4, q + 32 * (b), stride);                                                                    \
    _tile_loadd(6, w + 512 * (b), 64);                                                                       \
    _tile_zero(b);                                                                                           \
    _tile_dpbssd(b, 4, 6);                                                                                   \
    _tile_stored(b, to[b], 64)
    BLOCK(0);
    BLOCK(1);
    BLOCK(2);
    BLOCK(3);
#undef BLOCK
}

INLINE void mul_q4_k_few(const pass *p, work *o)
{
    const size_t stride = p->stride;
    const int M = p->M, n = (M + TILE_ROWS - 1) / TILE_ROWS * 2;
    const uint8_t *w = p->w;
    for (int64_t s = 0; s < p->k / 256; s++, w += P_Q4_K) {
        int32_t(*now)[256] = o->sum[0], (*next)[256] = o->sum[1], (*swap)[256];
        const bool last = s + 1 == p->k / 256;
        unpack_low(o, w);
        stream next_w = stream_open(w + P_Q4_K, P_Q4_K, (int64_t)n * 8);
        group_sums(now, p->act + s * 256, stride, o->w[0]);
        for (int i = 0; i < n; i++) {
            const int at = row_of(i, M), z = i % 2;
            const uint8_t *ints = p->act + (size_t)at * stride + p->k;
            const float *scale = (const float *)(const void *)ints + 2 * s;
            const uint8_t *sum32 = ints + p->k / HD_Q8K_GROUP * 4 + p->k / 8 + 16 * s; // after sum16
            float *y = o->y + at * 32 + 16 * z, *end = last ? p->y + at * p->ldy + 16 * z : y;
            __m512 f[16], d = load_f16(w + 32 * z), dmin = load_f16(w + P_F16 + 32 * z);
            if (last) want_rows(end, p->ldy);
            load_rows(f, y, s == 0);
            UNROLL for (int g = 0; g < 2; g++, scale++, sum32 += 8) {
                const uint8_t *pair = w + 2 * P_F16 + 2 * g * P_Q4_K_PAIR + 16 * z;
                __m512 sc[4];
                __m512i mins[2];
                UNROLL for (int b = 0; b < 4; b++)
                    sc[b] = _mm512_cvtepi32_ps(load_u8(pair + b / 2 * P_Q4_K_PAIR + b % 2 * 32));
                UNROLL for (int h = 0; h < 2; h++)
                    mins[h] = _mm512_cvtepu8_epi16(
                        _mm256_loadu_si256((const void *)(pair + h * P_Q4_K_PAIR + 64 + 16 * z)));
                if (g == 0) group_sums(next, p->act + (size_t)at * stride + s * 256 + 128, stride, o->w[z] + 2048);
                else if (i + 1 < n)
                    group_sums(next, p->act + (size_t)row_of(i + 1, M) * stride + s * 256, stride, o->w[!z]);
                UNROLL for (int r = 0; r < TILE_ROWS; r++) {
                    __m512 u = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(now[0] + r * 16)), sc[0]);
                    UNROLL for (int b = 1; b < 4; b++)
                        u = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(now[b] + r * 16)), sc[b], u);
                    u = _mm512_mul_ps(u, d);
                    int32_t two[2];
                    memcpy(two, AT(sum32, r), 8);
                    __m512i m = _mm512_dpwssd_epi32(_mm512_setzero_si512(), mins[0], _mm512_set1_epi32(two[0]));
                    m = _mm512_dpwssd_epi32(m, mins[1], _mm512_set1_epi32(two[1]));
                    u = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(m), dmin, u);
                    f[r] = _mm512_fmadd_ps(u, _mm512_set1_ps(*(const float *)AT(scale, r)), f[r]);
                    PIN(f[r]);
                    if (r % 4 == 3) stream_on(&next_w);
                }
                swap = now, now = next, next = swap;
            }
            store_rows(f, end, last ? p->ldy : 32, i / 2 * TILE_ROWS - at);
        }
    }
}

/* ---- One function per format --------------------------------------------------------------------------- */

typedef void pass_fn(const pass *p, work *o);

static void run_pass(pass_fn *fn, int tile_k, const pass *all, work *o)
{
    const int n = (all->M + MOST_ROWS - 1) / MOST_ROWS;
    tiles_open(TILE_ROWS, tile_k);
    for (int i = 0, m = 0; i < n; i++) {
        const int end = (int)((int64_t)all->M * (i + 1) / n);
        pass p = {all->w, all->act + (size_t)m * all->stride, all->k, all->stride, all->y + m * all->ldy, all->ldy, end - m};
        fn(&p, o);
        m = end;
    }
    _tile_release();
}

/* A few rows (up to FEW beyond the last whole tile) are quicker without tiles. */
enum { FEW = 6, FEW_TILES = 2 };

static inline void mul_rows(pass_fn *fn, int tile_k, hd_panel_id id, MUL_PARAMS)
{
    int rest = M < TILE_ROWS ? M : M % TILE_ROWS <= FEW ? M % TILE_ROWS : 0, m = M - rest;
    pass p = {panel, act, k, stride, y, ldy, m};
    if (m > 0) run_pass(fn, tile_k, &p, scratch);
    if (rest > 0) hd_vnni_mul[id](panel, k, act + (size_t)m * stride, stride, rest, y + m * ldy, ldy, scratch);
}

#define PASS(name, ID, tile_k, call)                                                                         \
    static void pass_##name(const pass *p, work *o) { call; }                                                \
    static void mul_##name(MUL_PARAMS)                                                                       \
    {                                                                                                        \
        mul_rows(pass_##name, tile_k, HD_PANEL_##ID, panel, k, act, stride, M, y, ldy, scratch);             \
    }
#define SIMPLE(name, ID) PASS(name, ID, 32, mul_simple(HD_PANEL_##ID, P_##ID, p, o))
#define SUPER(name, ID)  PASS(name, ID, 64, mul_k(HD_PANEL_##ID, P_##ID, p, o))
SIMPLE_PANELS(SIMPLE)
SUPER(q5_k, Q5_K)
SUPER(q6_k, Q6_K)

static void pass_q4_k(const pass *p, work *o) { mul_k(HD_PANEL_Q4_K, P_Q4_K, p, o); }
static void pass_q4_k_few(const pass *p, work *o) { mul_q4_k_few(p, o); }
static void mul_q4_k(MUL_PARAMS)
{
    const bool few = M < (FEW_TILES + 1) * TILE_ROWS;
    mul_rows(few ? pass_q4_k_few : pass_q4_k, few ? 32 : 64, HD_PANEL_Q4_K, panel, k, act, stride, M, y, ldy, scratch);
}

_Static_assert(sizeof(work) <= HD_MUL_SCRATCH, "does not fit in a thread's scratch");

void hd_fill_mul_amx(hd_kernels *k) { SIMPLE_PANELS(MUL_FILL) K_PANELS(MUL_FILL) }
