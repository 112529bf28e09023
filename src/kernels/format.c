/* The table of number formats.  Ids, block sizes and bytes are those of ggml (github.com/ggml-org/ggml, MIT;
 * enum ggml_type and ggml-common.h); what lies inside a block is told in the fmt_*.c files. */
#include "kernels/format.h"

#include <strings.h>

#include "kernels/fmt.h"

static const hd_format formats[] = {
    {HD_F32, "f32", 1, 4, fmt_f32_dequant, fmt_f32_quant},
    {HD_F16, "f16", 1, 2, fmt_f16_dequant, fmt_f16_quant},
    {HD_BF16, "bf16", 1, 2, fmt_bf16_dequant, fmt_bf16_quant},
    {HD_Q8_0, "q8_0", 32, 34, fmt_q8_0_dequant, fmt_q8_0_quant},
    {HD_Q4_0, "q4_0", 32, 18, fmt_q4_0_dequant, fmt_q4_0_quant},
    {HD_Q4_1, "q4_1", 32, 20, fmt_q4_1_dequant, fmt_q4_1_quant},
    {HD_Q5_0, "q5_0", 32, 22, fmt_q5_0_dequant, fmt_q5_0_quant},
    {HD_Q5_1, "q5_1", 32, 24, fmt_q5_1_dequant, fmt_q5_1_quant},
    {HD_Q2_K, "q2_k", 256, 84, fmt_q2_k_dequant, fmt_q2_k_quant},
    {HD_Q3_K, "q3_k", 256, 110, fmt_q3_k_dequant, fmt_q3_k_quant},
    {HD_Q4_K, "q4_k", 256, 144, fmt_q4_k_dequant, fmt_q4_k_quant},
    {HD_Q5_K, "q5_k", 256, 176, fmt_q5_k_dequant, fmt_q5_k_quant},
    {HD_Q6_K, "q6_k", 256, 210, fmt_q6_k_dequant, fmt_q6_k_quant},
    {HD_IQ4_NL, "iq4_nl", 32, 18, fmt_iq4_nl_dequant, NULL},
    {HD_IQ4_XS, "iq4_xs", 256, 136, fmt_iq4_xs_dequant, NULL},
    {HD_IQ1_S, "iq1_s", 256, 50, fmt_iq1_s_dequant, NULL},
    {HD_IQ1_M, "iq1_m", 256, 56, fmt_iq1_m_dequant, NULL},
    {HD_IQ2_XXS, "iq2_xxs", 256, 66, fmt_iq2_xxs_dequant, NULL},
    {HD_IQ2_XS, "iq2_xs", 256, 74, fmt_iq2_xs_dequant, NULL},
    {HD_IQ2_S, "iq2_s", 256, 82, fmt_iq2_s_dequant, NULL},
    {HD_IQ3_XXS, "iq3_xxs", 256, 98, fmt_iq3_xxs_dequant, NULL},
    {HD_IQ3_S, "iq3_s", 256, 110, fmt_iq3_s_dequant, NULL},
    /* sizes only: enough to list a file and to say what cannot run */
    {HD_Q8_1, "q8_1", 32, 36, NULL, NULL},
    {HD_Q8_K, "q8_k", 256, 292, NULL, NULL},
    {HD_TQ1_0, "tq1_0", 256, 54, NULL, NULL},
    {HD_TQ2_0, "tq2_0", 256, 66, NULL, NULL},
    {HD_MXFP4, "mxfp4", 32, 17, NULL, NULL},
    {HD_NVFP4, "nvfp4", 64, 36, NULL, NULL},
    {HD_Q1_0, "q1_0", 128, 18, NULL, NULL},
    {HD_Q2_0, "q2_0", 64, 18, NULL, NULL},
    {HD_I8, "i8", 1, 1, NULL, NULL},
    {HD_I16, "i16", 1, 2, NULL, NULL},
    {HD_I32, "i32", 1, 4, NULL, NULL},
    {HD_I64, "i64", 1, 8, NULL, NULL},
    {HD_F64, "f64", 1, 8, NULL, NULL},
    /* safetensors only */
    {HD_F8_E4M3, "f8_e4m3", 1, 1, fmt_f8_dequant, NULL},
};

enum { N_FORMATS = sizeof formats / sizeof formats[0] };

const hd_format *hd_format_get(int type)
{
    for (int i = 0; i < N_FORMATS; i++)
        if ((int)formats[i].type == type) return &formats[i];
    return NULL;
}

const hd_format *hd_format_named(const char *name)
{
    for (int i = 0; i < N_FORMATS; i++)
        if (strcasecmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

const hd_format *hd_format_at(int i)
{
    return i >= 0 && i < N_FORMATS ? &formats[i] : NULL;
}

bool hd_format_row_bytes(const hd_format *f, int64_t n, size_t *bytes)
{
    size_t v;
    if (n < 0 || n % f->block != 0) return false;
    if (__builtin_mul_overflow((uint64_t)(n / f->block), (size_t)f->bytes, &v)) return false;
    *bytes = v;
    return true;
}
