/* Floating-point formats: F32, F16, BF16, and the codes of F8 E4M3 (whose scales lie in a tensor of their
 * own, so the decoder here gives the raw value: hd_rows carries the scales). */
#include "kernels/fmt.h"

void fmt_f32_dequant(float *y, const void *x, int64_t n)
{
    memcpy(y, x, (size_t)n * 4);
}

void fmt_f16_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t i = 0; i < n; i++) y[i] = fmt_f16(p + 2 * i);
}

void fmt_bf16_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t i = 0; i < n; i++) y[i] = hd_bf16_to_f32(fmt_u16(p + 2 * i));
}

void fmt_f8_dequant(float *y, const void *x, int64_t n)
{
    const uint8_t *p = x;
    for (int64_t i = 0; i < n; i++) y[i] = hd_f8e4m3_to_f32(p[i]);
}

void fmt_f32_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance;
    memcpy(y, x, (size_t)n * 4);
}

void fmt_f16_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance;
    uint8_t *p = y;
    for (int64_t i = 0; i < n; i++) fmt_put_f16(p + 2 * i, x[i]);
}

void fmt_bf16_quant(void *y, const float *x, int64_t n, const float *importance)
{
    (void)importance;
    uint8_t *p = y;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = hd_f32_to_bf16(x[i]);
        memcpy(p + 2 * i, &h, 2);
    }
}
