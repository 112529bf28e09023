/* Packing bf12 (panel_bf12.c draws it), as the compiler makes it with a level's instructions: each of the
 * loops over 32 rows is a few registers' work.  Included by one file of each level that multiplies bf12. */
#include <string.h>

#include "kernels/inline.h"
#include "kernels/level.h"
#include "kernels/panel.h"

/* A block of a bf16 panel, a pair of numbers a word. */
typedef struct {
    uint32_t pair[BF12_K / 2][32];
} block16;

/* The same as bytes in a block's order, `half` the first four elements of an oct or the last. */
typedef struct {
    uint8_t upper[BF12_K / 8][2][128], lower[BF12_K / 8][2][128];
} block_bytes;

static void split(block_bytes *o, const block16 *b)
{
    for (int j = 0; j < BF12_K / 2; j++) {
        uint16_t upper[32], lower[32];
        for (int r = 0; r < 32; r++) {
            uint32_t v = b->pair[j][r];
            upper[r] = (uint16_t)((v >> 8 & 0xff) | (v >> 16 & 0xff00));
            lower[r] = (uint16_t)((v & 0xff) | (v >> 8 & 0xff00));
        }
        for (int r = 0; r < 32; r += 4) { // four rows are 8 bytes of each pair
            const int at = 4 * r + 8 * (j % 2);
            memcpy(&o->upper[j / 4][j / 2 % 2][at], &upper[r], 8);
            memcpy(&o->lower[j / 4][j / 2 % 2][at], &lower[r], 8);
        }
    }
}

/* The 16 commonest upper bytes, rising; how many numbers have another one. */
static uint32_t choose_table(uint8_t table[16], const uint8_t *upper)
{
    uint16_t count[4][256] = {0}; // four, so that a byte need not wait for its neighbour's count
    uint8_t seen[256];
    uint32_t n = 0, out = 0;
    for (int i = 0; i < BF12_K * 32; i += 4)
        for (int j = 0; j < 4; j++) count[j][upper[i + j]]++;
    for (int v = 0; v < 256; v++) count[0][v] = (uint16_t)(count[0][v] + count[1][v] + count[2][v] + count[3][v]);
    memset(seen, 0xff, sizeof seen); // what fewer than 16 leave over is never looked up
    for (int v = 0; v < 256; v++)
        if (count[0][v]) seen[n++] = (uint8_t)v;
    for (; n > 16 && out <= BF12_LISTED; n--) { // the rarest leaves
        uint32_t least = 0;
        for (uint32_t i = 1; i < n; i++)
            if (count[0][seen[i]] < count[0][seen[least]]) least = i;
        out += count[0][seen[least]];
        memmove(seen + least, seen + least + 1, n - least - 1);
    }
    memcpy(table, seen, 16);
    return out;
}

/* Which one of the table's an upper byte is, or anything where it is none of them. */
INLINE void put_codes(uint8_t *restrict code, const uint8_t *restrict table, const uint8_t *restrict upper)
{
    for (int i = 0; i < 128; i++) {
        uint8_t c = 0;
        UNROLL for (int t = 1; t < 16; t++) c = (uint8_t)(c + (upper[i] >= table[t]));
        code[i] = c;
    }
}

static void put_octs(uint8_t *o, const uint8_t table[16], const block_bytes *b)
{
    for (int i = 0; i < BF12_K / 8; i++, o += BF12_OCT) {
        uint8_t code[2][128];
        for (int half = 0; half < 2; half++) put_codes(code[half], table, b->upper[i][half]);
        for (int j = 0; j < 128; j++) o[j] = (uint8_t)(code[0][j] | code[1][j] << 4);
        memcpy(o + 128, b->lower[i], 256);
    }
}

/* The head; n numbers are listed. */
static void put_head(uint8_t *o, const uint8_t table[16], const uint8_t *upper, uint32_t n)
{
    memset(o, 0, BF12_HEAD);
    memcpy(o, table, 16);
    o[BF12_COUNT] = (uint8_t)n;
    o += BF12_COUNT + 1;
    for (int i = 0; n > 0; i++) {
        if (memchr(table, upper[i], 16)) continue;
        const int k = i / 128 * 4 + i % 16 / 8 * 2 + i % 2, row = i % 128 / 16 * 4 + i % 8 / 2;
        const bf12_listed l = {(uint8_t)k, (uint8_t)row, upper[i]};
        memcpy(o, &l, sizeof l);
        o += sizeof l;
        n--;
    }
}

static bool pack_bf12(void *panel, const hd_rows *src, int64_t row0)
{
    uint8_t *o = panel;
    block16 b;
    block_bytes bytes;
    for (int64_t k0 = 0; k0 < src->k; k0 += BF12_K, o += BF12_BLOCK) {
        hd_rows part = *src;
        uint8_t table[16];
        part.data += k0 * 2;
        part.k = src->k - k0 < BF12_K ? src->k - k0 : BF12_K;
        hd_pack_bf16(&b, &part, row0);
        split(&bytes, &b);
        const uint8_t *upper = &bytes.upper[0][0][0];
        const uint32_t n = choose_table(table, upper);
        if (n > BF12_LISTED) return false;
        put_head(o, table, upper, n);
        put_octs(o + BF12_HEAD, table, &bytes);
    }
    return true;
}

#define BF12_FILL(level)                                                                                     \
    void hd_fill_bf12_##level(hd_kernels *k) { k->bf12_pack = pack_bf12; }
