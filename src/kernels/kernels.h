/* The leaf loops: one struct of function pointers, filled by CPU level, and the layouts that they agree on.
 *
 * Contract of all of them: single-threaded, cannot fail, no allocation; the order of every floating-point sum
 * depends only on the length of that sum, so a row gives the same bits alone or among others (promise 2 of
 * doc/tour.md).  Compiled with -ffp-contract=off: a fused multiply-add appears only where it is written.
 *
 * Levels: ref (plain C), avx2 (+FMA, F16C), vnni (AVX-512 F/BW/VL/DQ + VNNI), bf16 (vnni + AVX512_BF16), zen4
 * (the same, where vdpbf16ps is as fast as a multiply-add), amx (bf16 + AMX-TILE/INT8/BF16); neon, dotprod
 * (neon + FEAT_DotProd).  A level may be forced with HADAL_CPU=name. */
#ifndef HD_KERNELS_KERNELS_H
#define HD_KERNELS_KERNELS_H

#include "base/err.h"
#include "kernels/format.h"

enum { HD_PANEL_ROWS = 32 };

/* ---- Activations ------------------------------------------------------------------------------------------
 * A row of activations becomes one self-contained blob, so rows can be gathered (experts) by copying blobs.
 * kp = k rounded up to a multiple of 64; the padding is zero.
 *   HD_ACT_F32   float q[kp]
 *   HD_ACT_BF16  uint16_t q[kp]                 round to nearest even (zen4, amx: numbers below 2^-126 become 0)
 *   HD_ACT_Q8    int8_t q[kp], float scale[kp/32], float xsum[kp/32], int16_t sum[kp/32]
 *                per block of 32: scale = max|x| / 127, q = round(x / scale), sum = sum of q,
 *                xsum = scale * sum
 *   HD_ACT_Q8K   int8_t q[kp], float scale[kp/128], int16_t sum16[kp/16], int16_t sum32[kp/32]
 *                the same with one scale per 128, for formats whose blocks of 16 or 32 have integer scales: a
 *                whole group is then summed in integers.  kp: multiple of 256
 *   HD_ACT_WIDE  float q[kp]                    the numbers of HD_ACT_BF16, for wide_mul
 * Blobs start at multiples of 64 bytes. */
typedef enum { HD_ACT_F32, HD_ACT_BF16, HD_ACT_Q8, HD_ACT_Q8K, HD_ACT_WIDE, HD_N_ACT } hd_act_kind;

enum { HD_Q8K_GROUP = 128 };

size_t hd_act_bytes(hd_act_kind kind, int64_t k); // bytes of one blob, a multiple of 64 and none of 2048
/* The numbers x[k] that a blob stands for. */
void hd_act_unpack(hd_act_kind kind, const void *blob, float *x, int64_t k);

/* ---- Panels -----------------------------------------------------------------------------------------------
 * A weight matrix [n, k] is cut into panels of 32 output rows; the inner dimension runs in short steps (pairs
 * of bf16, quads of int8) with the 32 rows side by side, and scales lie beside their block.  One row and many
 * rows of activations stream the same panel.  Rows past n are zero.  Formats without a panel of their own are
 * decoded panel by panel, just in time, into the F32 layout. */
typedef enum {
    HD_PANEL_F32,  // float w[k][32]
    HD_PANEL_F16,  // as F32, 2 bytes
    HD_PANEL_BF16, // uint16_t w[kp/2][32][2]
    HD_PANEL_F8,   // per 128 of k: scale, then bytes in pairs as bf16
    HD_PANEL_Q8_0,
    HD_PANEL_Q4_0,
    HD_PANEL_Q4_1,
    HD_PANEL_Q5_0,
    HD_PANEL_Q5_1,
    HD_PANEL_IQ4_NL,
    HD_PANEL_Q4_K,
    HD_PANEL_Q5_K,
    HD_PANEL_Q6_K,
    HD_PANEL_BF12, // bf16 in 12 bits, without loss, where a level multiplies it
    HD_N_PANEL,
} hd_panel_id;

/* Rows of a weight as the file stores them. */
typedef struct {
    hd_type type;
    const uint8_t *data;
    size_t row_bytes;
    const float *f8_scale;  // HD_F8_E4M3: [ceil(n/128)][f8_scale_ld], else NULL
    int64_t f8_scale_ld;
    int64_t n, k;
} hd_rows;

typedef struct {
    hd_panel_id id;
    const char *name;
    hd_act_kind act;                 // what its kernel reads
    size_t (*bytes)(int64_t k);      // of one panel, a multiple of 64
    /* rows [row0, row0+32) of src into one panel (rows past src->n are zero); NULL: see bf12_pack */
    void (*pack)(void *panel, const hd_rows *src, int64_t row0);
    /* decode to float out[k][32]: what --exact multiplies with, and what tests compare */
    void (*unpack)(float *out, const void *panel, int64_t k);
} hd_panel_kind;

const hd_panel_kind *hd_panel_get(hd_panel_id id);
/* The layout for a format; the F32 layout (just in time, *resident = false) for those without one. */
const hd_panel_kind *hd_panel_for(hd_type type, bool *resident);

/* y[m*ldy + r] = sum over k of W[r, k] x[m, k]    for r < 32, m < M, any M >= 1
 * act: M blobs of the panel's kind, act_stride bytes apart.  scratch: hd_mul_scratch_bytes(k),
 * 64-byte aligned. */
typedef void hd_panel_mul(const void *panel, int64_t k, const uint8_t *act, size_t act_stride, int M, float *y, int64_t ldy, void *scratch);

typedef struct hd_kernels {
    const char *level;

    bool bf16_is_faster; // than f32, in products of many rows

    /* One row x[k] into a blob. */
    void (*act_pack)(hd_act_kind kind, void *blob, const float *x, int64_t k);

    /* bf12: the bits of bf16; NULL where a level has none. */
    hd_panel_mul *panel_mul[HD_N_PANEL];

    /* The same for n panels of one matrix, `step` bytes apart, with outputs 32 apart, where doing them
     * together saves work; else NULL: one by one.  The same bits.  add: the sums begin with what stands in y.
     * then: panels to fetch at the end, or NULL. */
    void (*panels_mul[HD_N_PANEL])(const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t act_stride, int M,
                                   float *y, int64_t ldy, bool add, void *scratch, const void *then);

    /* As panel_mul of bf16, for blobs of HD_ACT_WIDE: the same bits.  NULL where nothing is gained.  add:
     * as in panels_mul. */
    void (*wide_mul)(const void *panel, int64_t k, const uint8_t *act, size_t act_stride, int M, float *y, int64_t ldy, bool add, void *scratch);

    /* As pack of a panel kind, for rows of HD_BF16.  false: numbers of too different sizes, the panel is of
     * no use.  NULL: the level does not multiply bf12. */
    bool (*bf12_pack)(void *panel, const hd_rows *src, int64_t row0);

    /* RMSNorm of one row:  y[i] = x[i] g[i] / sqrt(mean(x^2) + eps)       (arXiv:1910.07467)
     * x, y: [n] f32, may be the same memory.  g: [n] f32 or NULL (ones).  n >= 1. */
    void (*rmsnorm)(float *y, const float *x, const float *g, int64_t n, float eps);
    /* y[i] = silu(gate[i]) * up[i], silu(z) = z / (1 + exp(-z))           (SwiGLU, arXiv:2002.05202) */
    void (*silu_mul)(float *y, const float *gate, const float *up, int64_t n);
    /* y[i] += x[i];   y[i] += a x[i] */
    void (*add)(float *y, const float *x, int64_t n);
    void (*axpy)(float *y, float a, const float *x, int64_t n);
    /* x[i] = exp(x[i] - max) / sum; returns log(sum exp(x)) */
    float (*softmax)(float *x, int64_t n);
    /* Rotate one head's n (even) numbers by position: cs holds n/2 pairs (cos, sin), already scaled (RoPE,
     * arXiv:2104.09864).
     * pairs: adjacent numbers form a pair (DeepSeek), else halves do (Llama and Qwen2 in
     * Hugging Face form). */
    void (*rope)(float *x, const float *cs, int n, bool pairs);
    /* Streaming attention: see kernels/attn.h. */
    const struct hd_attn_kernels *attn;
    /* An optimizer's element-by-element loops: see kernels/optim.h. */
    const struct hd_optim_kernels *optim;
    /* Training: see kernels/back.h. */
    const struct hd_back_kernels *back;
} hd_kernels;

size_t hd_mul_scratch_bytes(int64_t k);

/* The best level of this machine, or the one that HADAL_CPU names (an unknown or unsupported one is an error
 * that lists those that work). */
hd_status hd_kernels_get(const hd_kernels **out, hd_err *err);
/* Walk the levels that this machine can run, ref first; NULL past the end. */
const hd_kernels *hd_kernels_at(int i);

#endif
