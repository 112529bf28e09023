/* Attention for AVX-512 with vdpbf16ps: BF16 caches are multiplied as they lie, two numbers a lane. */
#include <immintrin.h>

#define ATTN_MR              6
#define ATTN_MC              4
#define ATTN_FEW             7
#define ATTN_DOT2(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
#include "kernels/attn_body.h"

ATTN_FILL(bf16)
