/* bf16 in 12 bits, without loss: the exponents of neighbouring weights lie so close together that 4 bits tell
 * their upper bytes apart.
 *
 * The upper byte of a bf16 is its sign and 7 bits of exponent, the lower one the last bit of exponent and 7
 * of fraction.  In a block of 64 k and 32 rows the upper bytes are looked up by a code of 4 bits in a table
 * of the block's 16 commonest.  Numbers with another one (one block in thousands has any: the models that
 * were looked at have 4 in a block at most) are listed with their upper bytes in the block's head, which has
 * room for 15; a matrix with a block that needs more stays bf16.  (Others have measured 11 bits of
 * information in a trained bf16, and code exponents by Huffman's method, arXiv:2504.11651; codes of 4 bits
 * are read by one shuffle of bytes.)
 *
 * A block is its head (the table, how many are listed, the list), then per 8 of k three times 128 bytes:
 * codes, the first four elements' in the low nibbles; the lower bytes of the first four elements, and of the
 * last four.  Of each four elements and 16 rows there is a line of 64 bytes: of four rows each the first pair
 * of elements, then the second, which is how unpacking two registers of bytes into one of 16 bits wants them.
 *
 * What is multiplied are the same numbers in the same order as in bf16, so the same bits come out; a
 * quarter less is read. */
#include "base/num.h"
#include "kernels/panel.h"

void hd_unpack_bf12(float *out, const void *panel, int64_t k)
{
    const uint8_t *p = panel;
    for (int64_t i = 0; i < k; i++) {
        const uint8_t *b = p + i / BF12_K * BF12_BLOCK, *oct = b + BF12_HEAD + i % BF12_K / 8 * BF12_OCT;
        const int half = (int)(i % 8 / 4), pair = (int)(i % 4 / 2), e = (int)(i % 2);
        uint8_t upper[32];
        for (int r = 0; r < 32; r++) upper[r] = b[oct[r / 4 * 16 + pair * 8 + r % 4 * 2 + e] >> 4 * half & 15];
        for (int n = 0; n < b[BF12_COUNT]; n++) {
            bf12_listed l;
            memcpy(&l, b + BF12_COUNT + 1 + n * (int)sizeof l, sizeof l);
            if (l.k == i % BF12_K) upper[l.row] = l.upper;
        }
        for (int r = 0; r < 32; r++)
            out[i * 32 + r] = hd_bf16_to_f32((uint16_t)(upper[r] << 8 | oct[128 * (1 + half) + r / 4 * 16 + pair * 8 + r % 4 * 2 + e]));
    }
}
