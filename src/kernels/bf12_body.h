/* Packing bf12 (panel_bf12.c draws it), as the compiler makes it with a level's instructions: each of the loops over 32 rows is
 * a few registers' work.  Included by one file of each level that multiplies bf12. */
#include <string.h>

#include "kernels/level.h"
#include "kernels/panel.h"

/* A block of a bf16 panel, a pair of numbers a word. */
typedef struct {
    uint32_t pair[BF12_K / 2][32];
} block16;

static inline uint32_t exponent(uint32_t bf16) { return bf16 >> 7 & 0xff; }
static inline uint32_t code(uint32_t e, uint32_t base) { return e > base ? e - base : 0; }
static inline uint32_t is_listed(uint32_t e, uint32_t base) { return (e - base - 1 >= 15) & (e != 0); }

/* The largest base with which few enough numbers are listed, and how many; -1: there is none. */
static int find_base(const block16 *b, uint32_t *n)
{
    uint32_t tops[32] = {0}, top = 0;
    for (int j = 0; j < BF12_K / 2; j++)
        for (int r = 0; r < 32; r++) {
            uint32_t e0 = exponent(b->pair[j][r]), e1 = exponent(b->pair[j][r] >> 16), e = e0 > e1 ? e0 : e1;
            tops[r] = e > tops[r] ? e : tops[r];
        }
    for (int r = 0; r < 32; r++) top = tops[r] > top ? tops[r] : top;
    for (int base = top > 15 ? (int)top - 15 : 0; base >= 0; base--) {
        uint32_t listed[32] = {0};
        for (int j = 0; j < BF12_K / 2; j++)
            for (int r = 0; r < 32; r++) {
                uint32_t v = b->pair[j][r];
                listed[r] += is_listed(exponent(v), (uint32_t)base) + is_listed(exponent(v >> 16), (uint32_t)base);
            }
        *n = 0;
        for (int r = 0; r < 32; r++) *n += listed[r];
        if (*n <= BF12_LISTED) return base;
    }
    return -1;
}

/* The head, with n numbers; they are zero in the block then. */
static void put_head(uint8_t *o, block16 *b, uint32_t base, uint32_t n)
{
    uint8_t *list = o + 4;
    memset(o, 0, BF12_HEAD);
    o[0] = (uint8_t)base;
    o[1] = (uint8_t)n;
    for (int j = 0; j < BF12_K / 2 && n; j++)
        for (int r = 0; r < 32; r++)
            for (int e = 0; e < 2; e++) {
                uint32_t *pair = &b->pair[j][r], h = *pair >> 16 * e & 0xffff;
                if (!is_listed(exponent(h), base)) continue;
                bf12_listed l = {(uint8_t)(2 * j + e), (uint8_t)r, (uint16_t)h};
                memcpy(list, &l, sizeof l);
                list += sizeof l;
                *pair &= e ? 0xffffu : 0xffff0000u;
                n--;
            }
}

static void put_oct(uint8_t *o, const uint32_t pair[4][32], uint32_t base)
{
    uint16_t codes[4][32], rest[4][32];
    for (int j = 0; j < 4; j++)
        for (int r = 0; r < 32; r++) {
            uint32_t v = pair[j][r];
            codes[j][r] = (uint16_t)(code(exponent(v), base) | code(exponent(v >> 16), base) << 8);
            rest[j][r] = (uint16_t)((v & 0x7f) | (v >> 8 & 0x7f80) | (v >> 16 & 0x8000));
        }
    for (int j = 0; j < 2; j++)
        for (int r = 0; r < 32; r++) codes[j][r] = (uint16_t)(codes[j][r] | codes[j + 2][r] << 4);
    for (int r = 0; r < 32; r += 4) // four rows are 8 bytes of each pair
        for (int i = 0; i < 2; i++) {
            uint8_t *at = o + 4 * r + 8 * i;
            memcpy(at, &codes[i][r], 8);
            memcpy(at + 128, &rest[i][r], 8);
            memcpy(at + 256, &rest[i + 2][r], 8);
        }
}

static bool pack_bf12(void *panel, const hd_rows *src, int64_t row0)
{
    uint8_t *o = panel;
    block16 b;
    for (int64_t k0 = 0; k0 < src->k; k0 += BF12_K, o += BF12_BLOCK) {
        hd_rows part = *src;
        uint32_t n;
        part.data += k0 * 2;
        part.k = src->k - k0 < BF12_K ? src->k - k0 : BF12_K;
        hd_pack_bf16(&b, &part, row0);
        const int base = find_base(&b, &n);
        if (base < 0) return false;
        put_head(o, &b, (uint32_t)base, n);
        for (int i = 0; i < BF12_K / 8; i++) put_oct(o + BF12_HEAD + i * BF12_OCT, &b.pair[4 * i], (uint32_t)base);
    }
    return true;
}

#define BF12_FILL(level)                                                                                     \
    void hd_fill_bf12_##level(hd_kernels *k) { k->bf12_pack = pack_bf12; }
