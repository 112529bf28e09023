/* Streaming attention over v16, included by each level's file.  Contracts and layout: attn.h.
 *
 * Both products of a segment, scores = Q K^T and o = P V, have the same form: rows of numbers times panels 16
 * columns wide.  One micro-kernel serves both: up to ATTN_MR rows x ATTN_MC panels of accumulators stay in
 * registers while the inner dimension streams by, in order, one accumulator an output: the order of a sum is
 * that of its inner dimension.
 *
 * Before including, a level may define
 *   ATTN_MR, ATTN_MC       the micro-kernel's tile, or one panel instead of ATTN_MC
 *   ATTN_FEW               its rows where it widens what it reads
 *   ATTN_DOT2(acc, a, b)   acc + pairs of bf16 (a: a pair as 32 bits, for all lanes); then BF16 caches are
 *                          read as they are
 *   ATTN_PAIRS             with the above: its products replace those of the body (AMX)
 * Other caches are widened to f32.  Up to ATTN_FEW rows do so while they multiply; for more a page at a time is
 * widened to panels in scratch, so that all rows of the tile share that work.
 *
 * A long cache comes from memory, a page here and a page there: whoever reads a line of one asks for the same line
 * of the page that is read next.
 *
 * Exponents are in base 2: m here is the largest score times log2(e). */
#include <math.h>

#include "kernels/attn.h"
#include "kernels/kv_near.h"
#include "kernels/level.h"
#include "kernels/tile.h"
#include "kernels/v16.h"

enum { PANELS = HD_PAGE_TOK / HD_KV_PANEL, Q8 = 32 };

static int up_to(int n, int to) { return (n + to - 1) / to * to; }

/* ---- Products ---- */

/* How the numbers of a panel lie, 16 lanes of each. */
typedef enum {
    FLOATS,
    DOTS,       // pairs of bf16, multiplied by pairs with ATTN_DOT2; k counts pairs
    F16_PAIRS,  // pairs that are widened on their way; an odd k takes the last pair whole
    BF16_PAIRS,
} form;

/* Who reads at p asks for the line `ahead` bytes further: of `next` while `now` is read. */
INLINE uintptr_t ahead_of(const uint8_t *now, const uint8_t *next) { return next ? (uintptr_t)next - (uintptr_t)now : 0; }
INLINE void ask(const void *p, uintptr_t ahead) { __builtin_prefetch((const void *)((uintptr_t)p + ahead), 0, 2); }

/* y[r][p] (+)= sum over k of act[r][k] w[p][k]   r < R, p < C panels */
INLINE void micro(const int R, const int C, const form f, const tile *t)
{
    v16 acc[ATTN_FEW > ATTN_MR ? ATTN_FEW : ATTN_MR][ATTN_MC];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < C; p++)
        acc[r][p] = t->add ? v_load(t->y + r * t->ldy + p * 16) : v_set1(0);
    const uint8_t *w = t->w;
    const float *a = (const float *)(const void *)t->act;
    const int64_t lda = (int64_t)(t->stride / sizeof(float));
    const uintptr_t ahead = ahead_of(w, t->next);
    if (f == F16_PAIRS || f == BF16_PAIRS)
        for (int64_t k = t->k; k > 0; k -= 2, w += 64, a += 2) {
            if (ahead) UNROLL for (int p = 0; p < C; p++) ask(w + p * t->panels, ahead);
            UNROLL for (int p = 0; p < C; p++) {
                const uint16_t *pairs = (const void *)(w + p * t->panels);
                v16 x[2];
                if (f == F16_PAIRS) v_load_f16x2(pairs, &x[0], &x[1]);
                else v_load_bf16x2(pairs, &x[0], &x[1]);
                UNROLL for (int i = 0; i < 2; i++) UNROLL for (int r = 0; r < R; r++)
                    acc[r][p] = v_fma(v_set1(a[r * lda + i]), x[i], acc[r][p]);
            }
        }
    else
        for (int64_t k = t->k; k > 0; k--, w += 64, a++) {
            v16 x[ATTN_MC];
            if (ahead) UNROLL for (int p = 0; p < C; p++) ask(w + p * t->panels, ahead);
            UNROLL for (int p = 0; p < C; p++) x[p] = v_load((const void *)(w + p * t->panels));
            UNROLL for (int r = 0; r < R; r++) {
                const v16 y = v_set1(a[r * lda]);
                UNROLL for (int p = 0; p < C; p++)
#ifdef ATTN_DOT2
                    acc[r][p] = f == DOTS ? ATTN_DOT2(acc[r][p], y, x[p]) : v_fma(y, x[p], acc[r][p]);
#else
                    acc[r][p] = v_fma(y, x[p], acc[r][p]);
#endif
            }
        }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < C; p++) v_store(t->y + r * t->ldy + p * 16, acc[r][p]);
}

/* The tiles of a form: of one panel and of ATTN_MC, up to `most` rows high. */
typedef struct {
    int most;
    tile_fn *const *one, *const *wide;
} tiles;

#if ATTN_MC > 1
#define ATTN_TILES(name, most, f)                                                                            \
    TILES(name##_one, most, micro(rows, 1, f, t))                                                            \
    TILES(name##_wide, most, micro(rows, ATTN_MC, f, t))                                                     \
    static const tiles name = {most, name##_one_tiles, name##_wide_tiles};
#else
#define ATTN_TILES(name, most, f)                                                                            \
    TILES(name##_one, most, micro(rows, 1, f, t))                                                            \
    static const tiles name = {most, name##_one_tiles, name##_one_tiles};
#endif
ATTN_TILES(floats, ATTN_MR, FLOATS)
ATTN_TILES(f16_pairs, ATTN_FEW, F16_PAIRS)
ATTN_TILES(bf16_pairs, ATTN_FEW, BF16_PAIRS)

/* n rows, of which t is the first tile, times n_panels panels; t is left anywhere. */
static void product(const tiles *f, tile *t, int n, int n_panels)
{
    const uint8_t *act = t->act;
    float *y = t->y;
    if (n > 2 * f->most) t->next = NULL; // much arithmetic for each line
    for (int p = 0, cols; p < n_panels; p += cols) {
        cols = n_panels - p < ATTN_MC ? 1 : ATTN_MC;
        t->act = act;
        t->y = y + p * 16;
        run_tiles(cols == 1 ? f->one : f->wide, f->most, t, n);
        t->w += cols * t->panels;
        if (t->next) t->next += cols * t->panels;
    }
}

/* ---- One tile's view of a segment ---- */

typedef struct {
    const hd_attn_tile *t;
    int64_t start;            // first position
    int seen[HD_ATTN_TILE];   // positions of the segment that each row sees
    int n_seen, n_pad;        // the most of them; rounded up to 32
    bool more;                // some row sees the next segment, too
    size_t key_at, value_at;  // of this head within a page; the same where values lie in the keys
    float *q, *score, *p, *k, *v; // scratch: queries, scores, bf16 weights, a page widened
} view;

static uint8_t *page_of(const view *w, int j) { return w->t->pages[(w->start + j) / HD_PAGE_TOK]; }

static view view_of(const hd_attn_tile *t, int64_t seg, void *scratch)
{
    const hd_kv_shape *s = t->kv;
    view w = {.t = t, .start = seg * HD_SEG_TOK};
    for (int i = 0; i < t->n; i++) {
        int64_t c = t->pos[(t->first + i) / t->group] + 1 - w.start;
        w.more |= c > HD_SEG_TOK;
        w.seen[i] = c < 0 ? 0 : c > HD_SEG_TOK ? HD_SEG_TOK : (int)c;
        if (w.seen[i] > w.n_seen) w.n_seen = w.seen[i];
    }
    w.n_pad = up_to(w.n_seen, 32);
    size_t head = hd_kv_key_bytes(s) + hd_kv_value_bytes(s);
    w.key_at = (size_t)t->kv_head * head;
    w.value_at = w.key_at + (s->v_in_k ? 0 : hd_kv_key_bytes(s));
    w.q = scratch;
    w.score = w.q + HD_ATTN_TILE * up_to(s->dk, 32);
    w.p = w.score + HD_ATTN_TILE * HD_SEG_TOK;
    w.k = w.p + HD_ATTN_TILE * HD_SEG_TOK / 2;
    w.v = w.k + HD_PAGE_TOK * up_to(s->dk, 32);
    return w;
}

/* What is read after page j's keys and values, or NULL. */
static const uint8_t *after_keys(const view *w, int j)
{
    return j + HD_PAGE_TOK < w->n_seen ? page_of(w, j + HD_PAGE_TOK) + w->key_at : page_of(w, 0) + w->value_at;
}
static const uint8_t *after_values(const view *w, int j)
{
    if (j + HD_PAGE_TOK < w->n_seen) return page_of(w, j + HD_PAGE_TOK) + w->value_at;
    return w->more ? page_of(w, HD_SEG_TOK) + w->key_at : NULL;
}

static const float *query_row(const hd_attn_tile *t, int i)
{
    int r = t->first + i, heads = t->kv->n_kv * t->group;
    return t->q + ((int64_t)(r / t->group) * heads + t->kv_head * t->group + r % t->group) * t->kv->dk;
}

/* ---- Widening ---- */

/* n panels of keys, the first d numbers of each: to float [panel][d][16]. */
static void widen_keys(const hd_kv_shape *s, const uint8_t *src, const uint8_t *next, int n, int d, float *out)
{
    const uintptr_t ahead = ahead_of(src, next);
    size_t step = hd_kv_key_bytes(s) / PANELS;
    for (int p = 0; p < n; p++, src += step) {
        float *y = out + (int64_t)p * d * 16;
        const uint16_t *h = (const uint16_t *)src;
        if (s->type == HD_CACHE_Q8_0) {
            for (int i = 0; i < d; i++) {
                const uint8_t *block = src + (size_t)(i / Q8) * (HD_KV_PANEL * (2 + Q8));
                const int8_t *q = (const int8_t *)block + HD_KV_PANEL * 2;
                if (i % 4 == 0) ask(q + i % Q8 * HD_KV_PANEL, ahead);
                v16 scale = v_load_f16((const uint16_t *)block);
                v_store(y + i * 16, v_mul(v_load_i8(q + i % Q8 * HD_KV_PANEL), scale));
            }
        } else {
            for (int i = 0; i < d; i += 2) {
                v16 even, odd;
                ask(h + i * 16, ahead);
                if (s->type == HD_CACHE_BF16) v_load_bf16x2(h + i * 16, &even, &odd);
                else v_load_f16x2(h + i * 16, &even, &odd);
                v_store(y + i * 16, even);
                if (i + 1 < d) v_store(y + i * 16 + 16, odd);
            }
        }
    }
}

/* The first n_pos positions of all value panels: to float [panel][64][16]. */
static void widen_values(const hd_kv_shape *s, const uint8_t *src, const uint8_t *next, int n_pos, float *out)
{
    const uintptr_t ahead = ahead_of(src, next);
    int n = up_to(s->dv, HD_KV_PANEL) / HD_KV_PANEL;
    for (int p = 0; p < n; p++, out += HD_PAGE_TOK * 16) {
        const uint16_t *h = (const uint16_t *)src + (size_t)p * HD_PAGE_TOK * 16;
        if (s->type == HD_CACHE_Q8_0) {
            const uint8_t *block = src + (size_t)(p / 2) * (HD_PAGE_TOK * (2 + Q8));
            const int8_t *q = (const int8_t *)block + HD_PAGE_TOK * 2 + p % 2 * (HD_PAGE_TOK * 16);
            for (int j = 0; j < n_pos; j++) {
                if (j % 4 == 0) ask(q + j * 16, ahead);
                v16 scale = v_set1(hd_f16_to_f32(((const uint16_t *)block)[j]));
                v_store(out + j * 16, v_mul(v_load_i8(q + j * 16), scale));
            }
        } else {
            for (int j = 0; j < n_pos; j += 2) {
                v16 even, odd;
                ask(h + j * 16, ahead);
                if (s->type == HD_CACHE_BF16) v_load_bf16x2(h + j * 16, &even, &odd);
                else v_load_f16x2(h + j * 16, &even, &odd);
                v_store(out + j * 16, even);
                v_store(out + j * 16 + 16, odd);
            }
        }
    }
}

/* 16 x 16 numbers of 32 bits: out[j][i] = in[i][j], rows ldi and ldo apart. */
static void transpose(float *out, int64_t ldo, const float *in, int64_t ldi)
{
#ifdef __AVX512F__
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(in + i * ldi);
    for (int i = 0; i < 16; i += 2) { // 2 x 2 numbers
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { // 4 x 4: lane L of r[i + c] is column 4 L + c of rows i .. i+3
        for (int c = 0; c < 4; c++) {
            __m512d a = _mm512_castps_pd(t[i + c / 2]), b = _mm512_castps_pd(t[i + 2 + c / 2]);
            r[i + c] = _mm512_castpd_ps(c % 2 ? _mm512_unpackhi_pd(a, b) : _mm512_unpacklo_pd(a, b));
        }
    }
    for (int c = 0; c < 4; c++) { // lanes
        __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88), e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        _mm512_storeu_ps(out + c * ldo, _mm512_shuffle_f32x4(a, d, 0x88));
        _mm512_storeu_ps(out + (4 + c) * ldo, _mm512_shuffle_f32x4(b, e, 0x88));
        _mm512_storeu_ps(out + (8 + c) * ldo, _mm512_shuffle_f32x4(a, d, 0xdd));
        _mm512_storeu_ps(out + (12 + c) * ldo, _mm512_shuffle_f32x4(b, e, 0xdd));
    }
#else
    for (int j = 0; j < 16; j++)
        for (int i = 0; i < 16; i++) out[j * ldo + i] = in[i * ldi + j];
#endif
}

/* The first dv numbers of n panels of keys, [d][16 positions], as value panels [dv/16][64][16]. */
static void keys_to_values(const float *k, int n, int d, int dv, float *v)
{
    float block[256] = {0};
    for (int p = 0; p < n; p++)
        for (int i = 0; i < dv; i += 16) {
            const float *in = k + ((int64_t)p * d + i) * 16;
            if (d - i < 16) in = memcpy(block, in, (size_t)(d - i) * 64); // the key ends here: zeros follow
            transpose(v + (int64_t)i * HD_PAGE_TOK + p * 256, 16, in, 16);
        }
}

/* ---- Weights from scores ---- */

/* In place: x[j] = 2^(c x[j] - m) for j < seen, 0 up to n_pad.  Sums over 2 accumulators of 16 lanes. */
static void weigh(float *x, int seen, int n_pad, float c, float *m, float *l)
{
    if (seen == 0) {
        for (int j = 0; j < n_pad; j += 16) v_store(x + j, v_set1(0));
        *m = -INFINITY;
        *l = 0;
        return;
    }
    for (int j = seen; j < n_pad; j++) x[j] = -INFINITY;
    v16 top = v_set1(-INFINITY), scale = v_set1(c);
    for (int j = 0; j < n_pad; j += 16) top = v_max(v_load(x + j), top);
    float max = v_hmax(top) * c;
    v16 minus = v_set1(-max), sum[2] = {v_set1(0), v_set1(0)};
    for (int j = 0; j < n_pad; j += 16) {
        v16 p = v_exp2(v_fma(v_load(x + j), scale, minus));
        v_store(x + j, p);
        sum[j / 16 % 2] = v_add(sum[j / 16 % 2], p);
    }
    *m = max;
    *l = v_sum(v_add(sum[0], sum[1]));
}

static void merge(float *o, float *m, float *l, const float *o2, float m2, float l2, int dv)
{
    float max = *m > m2 ? *m : m2, a = exp2f(*m - max), b = exp2f(m2 - max);
    v16 va = v_set1(a), vb = v_set1(b);
    for (int d = 0; d < dv; d += 16) v_store(o + d, v_fma(v_load(o + d), va, v_mul(v_load(o2 + d), vb)));
    *l = *l * a + l2 * b;
    *m = max;
}

/* ---- One segment in f32 ---- */

/* How the tile's products read the cache: widening pairs on their way, or floats, of which the cache is or which a
 * page is widened to (for many rows, and where values lie in the keys). */
static const tiles *reading(const hd_attn_tile *t)
{
    const hd_kv_shape *s = t->kv;
    if (t->n > ATTN_FEW || s->v_in_k || s->dk % 2) return &floats;
    return s->type == HD_CACHE_F16 ? &f16_pairs : s->type == HD_CACHE_BF16 ? &bf16_pairs : &floats;
}

static void segment_f32(const hd_attn_tile *t, int64_t seg, float *o, float *m, float *l, void *scratch)
{
    const hd_kv_shape *s = t->kv;
    const tiles *f = reading(t);
    const bool widen = f == &floats && s->type != HD_CACHE_F32;
    const int dk = s->dk, ldo = hd_attn_ldo(s->dv), number = f == &floats ? 64 : 32; // bytes of one in 16 lanes
    const int64_t key = f == &floats ? dk * 64 : up_to(dk, 32) * 32;
    view w = view_of(t, seg, scratch);
    for (int i = 0; i < t->n; i++) memcpy(w.q + i * dk, query_row(t, i), (size_t)dk * 4);

    for (int j = 0; j < w.n_seen; j += HD_PAGE_TOK) {
        int left = w.n_pad - j, panels = left < HD_PAGE_TOK ? left / HD_KV_PANEL : PANELS;
        const uint8_t *k = page_of(&w, j) + w.key_at, *next = after_keys(&w, j);
        if (widen) {
            widen_keys(s, k, next, panels, dk, w.k);
            k = (const uint8_t *)w.k;
            next = NULL;
        }
        tile first = {k, (const uint8_t *)w.q, next, dk, (size_t)dk * 4, w.score + j, HD_SEG_TOK, false, key};
        product(f, &first, t->n, panels);
    }
    for (int i = 0; i < t->n; i++)
        weigh(w.score + i * HD_SEG_TOK, w.seen[i], w.n_pad, t->scale * 0x1.715476p+0f, &m[i], &l[i]);
    for (int j = 0; j < w.n_seen; j += HD_PAGE_TOK) {
        int here = w.n_seen - j < HD_PAGE_TOK ? w.n_seen - j : HD_PAGE_TOK, panels = up_to(here, HD_KV_PANEL) / HD_KV_PANEL;
        const uint8_t *v = page_of(&w, j) + w.value_at, *next = after_values(&w, j);
        if (s->v_in_k) {
            if (widen) widen_keys(s, v, next, panels, dk, w.k);
            keys_to_values(widen ? w.k : (const float *)(const void *)v, panels, dk, s->dv, w.v);
        } else if (widen) widen_values(s, v, next, here, w.v);
        if (widen || s->v_in_k) {
            v = (const uint8_t *)w.v;
            next = NULL;
        }
        tile first = {v, (const uint8_t *)(w.score + j), next, here, HD_SEG_TOK * 4, o, ldo, j > 0, HD_PAGE_TOK * number};
        product(f, &first, t->n, ldo / 16);
    }
    if (w.n_seen == 0) memset(o, 0, (size_t)t->n * (size_t)ldo * 4);
}

/* ---- One segment over a BF16 cache as it lies ---- */

#ifdef ATTN_DOT2

#ifndef ATTN_PAIRS
ATTN_TILES(dots, ATTN_MR, DOTS)
#define ATTN_PAIRS(first, n, n_panels) product(&dots, first, n, n_panels)
#define ATTN_BEGIN(rows) ((void)0)
#define ATTN_END()       ((void)0)
#endif

/* dk numbers to bf16, padded with zeros to dkp. */
static void pack_query(uint16_t *y, const float *x, int dk, int dkp)
{
    for (int i = 0; i < dkp; i += 32) {
        v16 a, b;
        if (i + 32 <= dk) {
            a = v_load(x + i);
            b = v_load(x + i + 16);
        } else {
            int n = dk - i;
            a = n >= 16 ? v_load(x + i) : v_load_n(x + i, n, 0);
            b = n > 16 ? v_load_n(x + i + 16, n - 16, 0) : v_set1(0);
        }
        _mm512_storeu_si512(y + i, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
}

/* As weigh, but the weights go to p as bf16; l sums what was rounded, so that they are exact shares of it. */
static void weigh_pairs(float *x, uint16_t *p, int seen, int n_pad, float c, float *m, float *l)
{
    const v16 ones = _mm512_castsi512_ps(_mm512_set1_epi32(0x3f803f80));
    if (seen == 0) {
        for (int j = 0; j < n_pad; j += 32) _mm512_storeu_si512(p + j, _mm512_setzero_si512());
        *m = -INFINITY;
        *l = 0;
        return;
    }
    for (int j = seen; j < n_pad; j++) x[j] = -INFINITY;
    v16 top = v_set1(-INFINITY), scale = v_set1(c), sum = v_set1(0);
    for (int j = 0; j < n_pad; j += 16) top = v_max(v_load(x + j), top);
    float max = _mm512_reduce_max_ps(top) * c;
    v16 minus = v_set1(-max);
    for (int j = 0; j < n_pad; j += 32) {
        v16 a = v_exp2_rough(v_fma(v_load(x + j), scale, minus));
        v16 b = v_exp2_rough(v_fma(v_load(x + j + 16), scale, minus));
        v16 pair = _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(b, a));
        v_store((float *)(p + j), pair);
        sum = ATTN_DOT2(sum, pair, ones);
    }
    *m = max;
    *l = v_sum(sum);
}

/* The first dv numbers of n panels of keys as value panels [dv/16][32 pairs of positions][16][2]. */
static void key_pairs_to_values(const uint8_t *keys, int n, int64_t panel, int dv, float *v)
{
    const __m512i lo = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                        36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i hi = _mm512_add_epi16(lo, _mm512_set1_epi16(16));
    float t[16][16];
    for (int p = 0; p < n; p++)
        for (int i = 0; i < dv; i += 32) { // 32 numbers: 16 rows of pairs
            transpose(t[0], 16, (const float *)keys + p * panel + i / 2 * 16, 16); // t[position][pair of numbers]
            float *y = v + (int64_t)i * (HD_PAGE_TOK / 2) + p * (HD_KV_PANEL / 2) * 16;
            for (int j = 0; j < HD_KV_PANEL; j += 2) {
                __m512i a = _mm512_loadu_si512(t[j]), b = _mm512_loadu_si512(t[j + 1]);
                _mm512_storeu_si512(y + j / 2 * 16, _mm512_permutex2var_epi16(a, lo, b));
                if (i + 16 < dv)
                    _mm512_storeu_si512(y + j / 2 * 16 + HD_PAGE_TOK / 2 * 16, _mm512_permutex2var_epi16(a, hi, b));
            }
        }
}

static void segment(const hd_attn_tile *t, int64_t seg, float *o, float *m, float *l, void *scratch)
{
    const hd_kv_shape *s = t->kv;
    if (s->type != HD_CACHE_BF16 || t->exact) {
        segment_f32(t, seg, o, m, l, scratch);
        return;
    }
    int pairs = up_to(s->dk, 32) / 2, ldo = hd_attn_ldo(s->dv), ldp = HD_SEG_TOK / 2;
    view w = view_of(t, seg, scratch);
    if (w.n_seen == 0) memset(o, 0, (size_t)t->n * (size_t)ldo * 4);
    for (int i = 0; i < t->n; i++) pack_query((uint16_t *)(w.q + i * pairs), query_row(t, i), s->dk, 2 * pairs);

    ATTN_BEGIN(t->n);
    for (int j = 0; j < w.n_seen; j += HD_PAGE_TOK) {
        int left = w.n_pad - j, panels = left < HD_PAGE_TOK ? left / HD_KV_PANEL : PANELS;
        tile first = {page_of(&w, j) + w.key_at, (const uint8_t *)w.q, after_keys(&w, j), pairs, (size_t)pairs * 4,
                            w.score + j, HD_SEG_TOK, false, pairs * 64};
        ATTN_PAIRS(&first, t->n, panels);
    }
    for (int i = 0; i < t->n; i++)
        weigh_pairs(w.score + i * HD_SEG_TOK, (uint16_t *)(w.p + i * ldp), w.seen[i], w.n_pad,
                    t->scale * 0x1.715476p+0f, &m[i], &l[i]);
    for (int j = 0; j < w.n_seen; j += HD_PAGE_TOK) {
        int left = w.n_pad - j, here = left < HD_PAGE_TOK ? left / 2 : HD_PAGE_TOK / 2;
        const uint8_t *v = page_of(&w, j) + w.value_at, *next = after_values(&w, j);
        if (s->v_in_k) {
            key_pairs_to_values(v, here / (HD_KV_PANEL / 2), (int64_t)pairs * 16, s->dv, w.k);
            v = (const uint8_t *)w.k;
            next = NULL;
        }
        tile first = {v, (const uint8_t *)(w.p + j / 2), next, here, (size_t)ldp * 4, o, ldo, j > 0, HD_PAGE_TOK / 2 * 64};
        ATTN_PAIRS(&first, t->n, ldo / 16);
    }
    ATTN_END();
}
#define ATTN_SEGMENT segment
#else
#define ATTN_SEGMENT segment_f32
#endif

/* ---- Storing: 16 positions that fill the columns of a panel together; others go one by one ---- */

INLINE uint16_t to_16(bool bf16, uint32_t x) { return bf16 ? (uint16_t)(near_bf16(x) >> 16) : f16_of(x); }

/* n numbers, at most 16, that stay finite. */
INLINE void store_f32(float *y, const float *x, int n)
{
    for (int i = 0; i < n; i++) y[i] = hd_f32_from_bits(clamped(hd_f32_bits(x[i]), 0x7f7fffff));
}

/* 16 positions' keys of a head, ld apart, into their panel. */
static void store_keys_f32(float *panel, const float *k, int64_t ld, int dk)
{
    float t[16][16];
    for (int d = 0; d < dk; d += 16) {
        int n = dk - d < 16 ? dk - d : 16;
        for (int i = 0; i < 16; i++)
            if (n == 16) store_f32(t[i], k + i * ld + d, 16);
            else store_f32(t[i], k + i * ld + d, n);
        if (n == 16) transpose(panel + d * 16, 16, t[0], 16);
        else
            for (int j = 0; j < n; j++)
                for (int i = 0; i < 16; i++) panel[(d + j) * 16 + i] = t[i][j];
    }
}

INLINE void store_keys_16(const bool bf16, uint8_t *panel, const float *k, int64_t ld, int dk)
{
    float t[16][16]; // pairs
    for (int d = 0; d < dk; d += 32) {
        for (int i = 0; i < 16; i++) {
            uint32_t bits[32] = {0};
            uint16_t half[32];
            memcpy(bits, k + i * ld + d, (size_t)(dk - d < 32 ? dk - d : 32) * 4);
            for (int j = 0; j < 32; j++) half[j] = to_16(bf16, bits[j]);
            memcpy(t[i], half, sizeof half);
        }
        transpose((float *)(void *)panel + d / 2 * 16, 16, t[0], 16);
    }
}

/* 16 positions' values of a head from `slot` on. */
static void store_values_f32(float *plane, int slot, const float *v, int64_t ld, int dv)
{
    for (int d = 0; d < dv; d += 16)
        for (int i = 0; i < 16; i++) {
            float *to = plane + (int64_t)d * HD_PAGE_TOK + (slot + i) * 16;
            int n = dv - d < 16 ? dv - d : 16;
            if (n == 16) store_f32(to, v + i * ld + d, 16);
            else {
                memset(to, 0, 64);
                store_f32(to, v + i * ld + d, n);
            }
        }
}

INLINE void store_values_16(const bool bf16, uint8_t *plane, int slot, const float *v, int64_t ld, int dv)
{
    for (int d = 0; d < dv; d += 16)
        for (int i = 0; i < 16; i += 2) { // a pair of positions
            uint32_t a[16] = {0}, b[16] = {0}, pair[16];
            size_t n = (size_t)(dv - d < 16 ? dv - d : 16) * 4;
            memcpy(a, v + i * ld + d, n);
            memcpy(b, v + (i + 1) * ld + d, n);
            for (int c = 0; c < 16; c++) pair[c] = to_16(bf16, a[c]) | (uint32_t)to_16(bf16, b[c]) << 16;
            memcpy(plane + ((size_t)d * HD_PAGE_TOK + (size_t)(slot + i) * 16) * 2, pair, sizeof pair);
        }
}

static void store_16(const hd_kv_shape *s, uint8_t *page, int slot, const float *k, const float *v)
{
    size_t key = hd_kv_key_bytes(s), value = hd_kv_value_bytes(s);
    int64_t ldk = (int64_t)s->n_kv * s->dk, ldv = (int64_t)s->n_kv * s->dv;
    for (int h = 0; h < s->n_kv; h++, page += key + value) {
        uint8_t *panel = page + (size_t)(slot / HD_KV_PANEL) * (key / PANELS);
        const float *kh = k + h * s->dk, *vh = v + h * s->dv;
        if (s->type == HD_CACHE_F32) store_keys_f32((float *)(void *)panel, kh, ldk, s->dk);
        else if (s->type == HD_CACHE_BF16) store_keys_16(true, panel, kh, ldk, s->dk);
        else store_keys_16(false, panel, kh, ldk, s->dk);
        if (s->v_in_k) continue;
        if (s->type == HD_CACHE_F32) store_values_f32((float *)(void *)(page + key), slot, vh, ldv, s->dv);
        else if (s->type == HD_CACHE_BF16) store_values_16(true, page + key, slot, vh, ldv, s->dv);
        else store_values_16(false, page + key, slot, vh, ldv, s->dv);
    }
}

static void store(const hd_kv_shape *s, uint8_t *page, int slot, int n, const float *k, const float *v)
{
    int64_t ldk = (int64_t)s->n_kv * s->dk, ldv = s->v_in_k ? 0 : (int64_t)s->n_kv * s->dv;
    for (int i = 0, m; i < n; i += m, k += m * ldk, v += m * ldv) {
        m = (slot + i) % HD_KV_PANEL == 0 && n - i >= HD_KV_PANEL && s->type != HD_CACHE_Q8_0 ? HD_KV_PANEL : 1;
        if (m == 1) hd_kv_store(s, page, slot + i, k, v);
        else store_16(s, page, slot + i, k, v);
    }
}

static void round_kv(hd_cache_type t, float *x, int64_t n)
{
    if (t == HD_CACHE_BF16)
        for (int64_t i = 0; i < n; i++) x[i] = hd_f32_from_bits(near_bf16(hd_f32_bits(x[i])));
    if (t == HD_CACHE_F16)
        for (int64_t i = 0; i < n; i++) x[i] = hd_f32_from_bits(near_f16(hd_f32_bits(x[i])));
}

#define ATTN_FILL(level)                                                                                               \
    void hd_fill_attn_##level(hd_kernels *k)                                                                           \
    {                                                                                                                  \
        static const hd_attn_kernels table = {ATTN_SEGMENT, merge, store, round_kv, 0x1.62e43p-1f};                    \
        k->attn = &table;                                                                                              \
    }
