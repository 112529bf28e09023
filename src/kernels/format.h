/* Number formats of weights: one row per format in one table.
 *
 * The values of hd_type are ggml's type ids (the GGUF file format), so a file's id is looked up, never
 * translated; formats that only safetensors know come after 1000. */
#ifndef HD_KERNELS_FORMAT_H
#define HD_KERNELS_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    HD_F32 = 0,
    HD_F16 = 1,
    HD_Q4_0 = 2,
    HD_Q4_1 = 3,
    HD_Q5_0 = 6,
    HD_Q5_1 = 7,
    HD_Q8_0 = 8,
    HD_Q8_1 = 9,
    HD_Q2_K = 10,
    HD_Q3_K = 11,
    HD_Q4_K = 12,
    HD_Q5_K = 13,
    HD_Q6_K = 14,
    HD_Q8_K = 15,
    HD_IQ2_XXS = 16,
    HD_IQ2_XS = 17,
    HD_IQ3_XXS = 18,
    HD_IQ1_S = 19,
    HD_IQ4_NL = 20,
    HD_IQ3_S = 21,
    HD_IQ2_S = 22,
    HD_IQ4_XS = 23,
    HD_I8 = 24,
    HD_I16 = 25,
    HD_I32 = 26,
    HD_I64 = 27,
    HD_F64 = 28,
    HD_IQ1_M = 29,
    HD_BF16 = 30,
    HD_TQ1_0 = 34,
    HD_TQ2_0 = 35,
    HD_MXFP4 = 39,
    HD_NVFP4 = 40,
    HD_Q1_0 = 41,
    HD_Q2_0 = 42,
    HD_F8_E4M3 = 1000, // with one f32 scale per 128x128 block beside the tensor (DeepSeek-V3, arXiv:2412.19437, 3.3)
} hd_type;

/* Decode n elements (a multiple of the block) of one row. */
typedef void hd_dequant_fn(float *y, const void *x, int64_t n);
/* Encode n elements (a multiple of the block).  importance: [n] weights of the squared error, or
 * NULL for all equal. */
typedef void hd_quant_fn(void *y, const float *x, int64_t n, const float *importance);

typedef struct {
    hd_type type;
    const char *name;       // as in GGUF tools: "q4_k"
    int block;              // elements of one block
    int bytes;              // bytes of one block
    hd_dequant_fn *dequant; // NULL: only the size is known
    hd_quant_fn *quant;     // NULL: cannot be written
} hd_format;

const hd_format *hd_format_get(int type); // NULL for an unknown id
const hd_format *hd_format_named(const char *name); // case-insensitive; NULL if unknown
const hd_format *hd_format_at(int i); // walk the table; NULL past its end
/* Bytes of a row of n elements into *bytes; false when n is negative, no multiple of the block, or
 * the product wraps. */
bool hd_format_row_bytes(const hd_format *f, int64_t n, size_t *bytes);

#endif
