/* Rows of f32 as the pairs of bf16 that hd_back_kernels.outer_pairs and panels of bf16 want: two rows side by side, a number of each a word.
 * Private to src/ops. */
#ifndef HD_OPS_PAIRS_H
#define HD_OPS_PAIRS_H

#include <string.h>

#include "base/num.h"
#include "kernels/back.h"

/* Rows a and b (NULL: zeros) of n numbers, in parts of `wide` words that lie `step` words apart; the last part is filled with zeros. */
static inline void hd_put_pairs(const hd_back_kernels *k, uint32_t *to, size_t step, int wide, const float *a, const float *b, int n)
{
    for (; n > 0; n -= wide, a += wide, b = b ? b + wide : NULL, to += step) {
        const int part = n < wide ? n : wide;
        if (b) k->pairs((uint16_t *)(void *)to, a, b, part);
        else
            for (int i = 0; i < part; i++) to[i] = hd_f32_to_bf16(a[i]);
        if (part < wide) memset(to + part, 0, (size_t)(wide - part) * sizeof *to);
    }
}

#endif
