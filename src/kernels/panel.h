/* The bytes of a panel, for those who pack, unpack and multiply.  Private to src/kernels.
 *
 * The inner dimension runs in blocks of 32.  A block's integers lie as quads: for quad j = 0..7 (elements
 * 4j..4j+3) the 32 rows side by side, 4 bytes each, so one 64-byte register holds 16 rows' quads, and two
 * registers the panel.
 *   q8    [8][32][4]  one byte per weight, plus 128
 *   low   [4][32][4]  byte (j, row, e): quad 2j in the low nibble, quad 2j+1 in the high one
 *   bit5     [32][4]  bit j of byte (row, e): bit 4 of quad j
 *   bits56 [2][32][4] bits 2(j%4).. of byte (j/4, row, e): bits 4 and 5 of quad j
 * The formats with a scale per block (f16 d and m, one per row):
 *   q8_0    d q8            q4_0    d low           q4_1    d m low
 *   q5_0    d low bit5      q5_1    d m low bit5    iq4_nl  d low (indices into hd_iq4_values)
 * The K formats: per 256 a head of f16 (q4_K, q5_K: d, dmin; q6_K: d), then
 *   q4_K, q5_K  per pair of blocks: sc[2][32] bytes, min[32][2] bytes, then the two blocks (low, or low bit5)
 *   q6_K        per block: sc[2][32] int8 (one per 16), low, bits56
 *   f8          per 128 of k: the scale (f32, one for all 32 rows) in 64 bytes, then bytes w[64][32][2]
 *   bf12        per 64 of k a head of 64 bytes, then per 8 of k codes, signs and fractions: see
 *               panel_bf12.c */
#ifndef HD_KERNELS_PANEL_H
#define HD_KERNELS_PANEL_H

#include "kernels/kernels.h"

/* The formats by how they are multiplied, F(name, ID) for each: floats, integers with a scale per block, and
 * with integer scales. */
#define FLOAT_PANELS(F)  F(f32, F32) F(f16, F16) F(bf16, BF16) F(f8, F8)
#define SIMPLE_PANELS(F) F(q8_0, Q8_0) F(q4_0, Q4_0) F(q4_1, Q4_1) F(q5_0, Q5_0) F(q5_1, Q5_1) F(iq4_nl, IQ4_NL)
#define K_PANELS(F)      F(q4_k, Q4_K) F(q5_k, Q5_K) F(q6_k, Q6_K)

/* What a product is given, as kernels.h has it, and how a level enters its products mul_NAME
 * into its table k. */
#define MUL_PARAMS                                                                                           \
    const void *panel, int64_t k, const uint8_t *act, size_t stride, int M, float *y, int64_t ldy, void *scratch
#define MUL_FILL(name, ID) k->panel_mul[HD_PANEL_##ID] = mul_##name;

enum {
    P_Q8 = 1024,
    P_LOW = 512,
    P_BIT5 = 128,
    P_BITS56 = 256,
    P_F16 = 64, // 32 f16
    P_Q8_0 = P_F16 + P_Q8,
    P_Q4_0 = P_F16 + P_LOW,
    P_Q4_1 = 2 * P_F16 + P_LOW,
    P_Q5_0 = P_F16 + P_LOW + P_BIT5,
    P_Q5_1 = 2 * P_F16 + P_LOW + P_BIT5,
    P_IQ4_NL = P_F16 + P_LOW,
    P_Q4_K_PAIR = 128 + 2 * P_LOW,
    P_Q4_K = 2 * P_F16 + 4 * P_Q4_K_PAIR,
    P_Q5_K_PAIR = 128 + 2 * (P_LOW + P_BIT5),
    P_Q5_K = 2 * P_F16 + 4 * P_Q5_K_PAIR,
    P_Q6_K_BLOCK = 64 + P_LOW + P_BITS56,
    P_Q6_K = P_F16 + 8 * P_Q6_K_BLOCK,
    P_F8 = 64 + 128 * 32,
    BF12_K = 64,
    BF12_HEAD = 64,
    BF12_OCT = 3 * 128,
    BF12_BLOCK = BF12_HEAD + BF12_K / 8 * BF12_OCT,
    BF12_COUNT = 16, // of those listed, behind the table
    BF12_LISTED = (BF12_HEAD - 17) / 3,
};

/* A number that bf12's codes cannot hold, as the head lists it: element k of the block, row,
 * and its upper byte. */
typedef struct {
    uint8_t k, row, upper;
} bf12_listed;

/* Scratch of one product: 512 of k unpacked, their sums, and the outputs of 512 rows (amx); 256 of k widened,
 * of a panel and of 128 rows (vnni). */
enum { HD_MUL_SCRATCH = 160 << 10 };

/* The 16 values of iq4_nl and iq4_xs. */
extern const int8_t hd_iq4_values[16];

/* One block of 32 of an integer panel, decoded: weight (r, i) = d[r] sc[i/16][r] q[r][i] - dmin[r] min[r].
 * q has its offset taken off; sc = 1 for the formats with one scale per block, min = 1 for q4_1 and q5_1
 * (dmin = -m), 0 where there is none. */
typedef struct {
    float d[32], dmin[32];
    int sc[2][32], min[32];
    int8_t q[32][32];
} hd_panel_block;

void hd_panel_block_get(hd_panel_block *o, hd_panel_id id, const uint8_t *panel, int64_t b);

/* panel_pack.c */
#define PACK_FN(name, ID) void hd_pack_##name(void *panel, const hd_rows *src, int64_t row0);
FLOAT_PANELS(PACK_FN)
SIMPLE_PANELS(PACK_FN)
K_PANELS(PACK_FN)
#undef PACK_FN

/* panel_bf12.c; src: of HD_BF16 */
void hd_unpack_bf12(float *out, const void *panel, int64_t k);

#endif
