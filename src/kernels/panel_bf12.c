/* bf16 in 12 bits, without loss: the exponents of neighbouring weights lie so close together that 4 bits tell them apart.
 *
 * bf16 is a sign, 8 bits of exponent and 7 of fraction.  A block of 64 k and 32 rows has a base; a number's code is 0 where its
 * exponent is 0 (zeros, numbers below 2^-126), else exponent - base, 1 to 15.  Other exponents (of normally distributed weights
 * one in ten thousand, since base + 15 is the largest where that does) are listed with their numbers in the block's head, which
 * has room for 15; a matrix with a block that needs more stays bf16.  (Others have measured 11 bits of information in a trained
 * bf16, and code exponents by Huffman's method, arXiv:2504.11651; flat codes of 4 bits are read by one shuffle of bytes.)
 *
 * A block is its head (base, how many are listed, two bytes unused, the list), then per 8 of k three times 128 bytes: codes, the
 * first four elements' in the low nibbles; signs with fractions of the first four elements, and of the last four.  Of each four
 * elements and 16 rows there is a line of 64 bytes: of four rows each the first pair of elements, then the second, which is how
 * unpacking two registers of bytes into one of 16 bits wants them.
 *
 * What is multiplied are the same numbers in the same order as in bf16, so the same bits come out; a quarter less is read. */
#include "base/num.h"
#include "kernels/panel.h"

void hd_unpack_bf12(float *out, const void *panel, int64_t k)
{
    const uint8_t *p = panel;
    for (int64_t i = 0; i < k; i++) {
        const uint8_t *b = p + i / BF12_K * BF12_BLOCK, *oct = b + BF12_HEAD + i % BF12_K / 8 * BF12_OCT;
        const int half = (int)(i % 8 / 4), pair = (int)(i % 4 / 2), e = (int)(i % 2);
        for (int r = 0; r < 32; r++) {
            const int at = r / 4 * 16 + pair * 8 + r % 4 * 2 + e;
            uint32_t code = oct[at] >> 4 * half & 15, rest = oct[128 * (1 + half) + at], exponent = code ? code + b[0] : 0;
            out[i * 32 + r] = hd_bf16_to_f32((uint16_t)((rest & 0x80) << 8 | exponent << 7 | (rest & 0x7f)));
        }
        for (int n = 0; n < b[1]; n++) {
            bf12_listed l;
            memcpy(&l, b + 4 + 4 * n, sizeof l);
            if (l.k == i % BF12_K) out[i * 32 + l.row] = hd_bf16_to_f32(l.bf16);
        }
    }
}
