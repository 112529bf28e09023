/* Packing bf12 (panel_bf12.c draws it), as the compiler makes it with a level's instructions: each of the loops over 32 rows is
 * a few registers' work.  Included by one file of each level that multiplies bf12. */
#include <string.h>

#include "kernels/inline.h"
#include "kernels/level.h"
#include "kernels/panel.h"

/* A block of a bf16 panel, a pair of numbers a word. */
typedef struct {
    uint32_t pair[BF12_K / 2][32];
} block16;

/* The upper bytes of a block that have codes: by their exponents' 7 bits, `low` to low + 7, or with `zero` 0 and low + 1 to low + 7.
 * The functions below are inlined with a `zero` that the compiler knows. */
typedef struct {
    uint32_t low;
    bool zero;
} window;

INLINE uint32_t exponent(uint32_t bf16) { return bf16 >> 8 & 0x7f; }
INLINE uint32_t is_out(uint32_t e, window w) { return w.zero ? (e - w.low - 1 >= 7) & (e != 0) : e - w.low >= 8; }
INLINE uint32_t code(uint32_t bf16, window w)
{
    uint32_t e = exponent(bf16), c = e - w.low;
    if (w.zero) c &= 0u - (e != 0);
    return (c & 7) | (bf16 >> 12 & 8);
}

INLINE uint32_t count_out(const block16 *b, window w)
{
    uint32_t out[32] = {0}, n = 0;
    for (int j = 0; j < BF12_K / 2; j++)
        for (int r = 0; r < 32; r++) out[r] += is_out(exponent(b->pair[j][r]), w) + is_out(exponent(b->pair[j][r] >> 16), w);
    for (int r = 0; r < 32; r++) n += out[r];
    return n;
}

/* The highest window that leaves few enough numbers out, and how many; false: there is none. */
static bool find_window(const block16 *b, window *w, uint32_t *n)
{
    uint32_t tops[32] = {0}, top = 0;
    for (int j = 0; j < BF12_K / 2; j++)
        for (int r = 0; r < 32; r++) {
            uint32_t e0 = exponent(b->pair[j][r]), e1 = exponent(b->pair[j][r] >> 16), e = e0 > e1 ? e0 : e1;
            tops[r] = e > tops[r] ? e : tops[r];
        }
    for (int r = 0; r < 32; r++) top = tops[r] > top ? tops[r] : top;
    for (int low = top > 7 ? (int)top - 7 : 0; low >= 0; low--) {
        *w = (window){(uint32_t)low, false};
        *n = count_out(b, (window){(uint32_t)low, false});
        if (*n <= BF12_LISTED) return true;
        w->zero = true;
        *n = count_out(b, (window){(uint32_t)low, true});
        if (*n <= BF12_LISTED) return true;
    }
    return false;
}

/* The head; n numbers are listed. */
static void put_head(uint8_t *o, const block16 *b, window w, uint32_t n)
{
    memset(o, 0, BF12_HEAD);
    for (uint32_t c = 0; c < 16; c++) o[c] = (uint8_t)((c & 8) << 4 | (w.zero && (c & 7) == 0 ? 0 : w.low + (c & 7)));
    o[BF12_COUNT] = (uint8_t)n;
    o += BF12_COUNT + 1;
    for (int j = 0; j < BF12_K / 2 && n; j++)
        for (int r = 0; r < 32; r++)
            for (int e = 0; e < 2; e++) {
                uint32_t bf16 = b->pair[j][r] >> 16 * e & 0xffff;
                if (!is_out(exponent(bf16), w)) continue;
                bf12_listed l = {(uint8_t)(2 * j + e), (uint8_t)r, (uint8_t)(bf16 >> 8)};
                memcpy(o, &l, sizeof l);
                o += sizeof l;
                n--;
            }
}

INLINE void put_oct(uint8_t *o, const uint32_t pair[4][32], window w)
{
    uint16_t codes[4][32], lower[4][32];
    for (int j = 0; j < 4; j++)
        for (int r = 0; r < 32; r++) {
            uint32_t v = pair[j][r];
            codes[j][r] = (uint16_t)(code(v & 0xffff, w) | code(v >> 16, w) << 8);
            lower[j][r] = (uint16_t)((v & 0xff) | (v >> 8 & 0xff00));
        }
    for (int j = 0; j < 2; j++)
        for (int r = 0; r < 32; r++) codes[j][r] = (uint16_t)(codes[j][r] | codes[j + 2][r] << 4);
    for (int r = 0; r < 32; r += 4) // four rows are 8 bytes of each pair
        for (int i = 0; i < 2; i++) {
            uint8_t *at = o + 4 * r + 8 * i;
            memcpy(at, &codes[i][r], 8);
            memcpy(at + 128, &lower[i][r], 8);
            memcpy(at + 256, &lower[i + 2][r], 8);
        }
}

static bool pack_bf12(void *panel, const hd_rows *src, int64_t row0)
{
    uint8_t *o = panel;
    block16 b;
    window w;
    for (int64_t k0 = 0; k0 < src->k; k0 += BF12_K, o += BF12_BLOCK) {
        hd_rows part = *src;
        uint32_t n;
        part.data += k0 * 2;
        part.k = src->k - k0 < BF12_K ? src->k - k0 : BF12_K;
        hd_pack_bf16(&b, &part, row0);
        if (!find_window(&b, &w, &n)) return false;
        put_head(o, &b, w, n);
        for (int i = 0; i < BF12_K / 8; i++)
            if (w.zero) put_oct(o + BF12_HEAD + i * BF12_OCT, &b.pair[4 * i], (window){w.low, true});
            else put_oct(o + BF12_HEAD + i * BF12_OCT, &b.pair[4 * i], (window){w.low, false});
    }
    return true;
}

#define BF12_FILL(level)                                                                                     \
    void hd_fill_bf12_##level(hd_kernels *k) { k->bf12_pack = pack_bf12; }
