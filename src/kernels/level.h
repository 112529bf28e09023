/* How a level fills its table: it inherits the lower level's entries and replaces what it does better.
 * Private to src/kernels; kernels.c walks the levels. */
#ifndef HD_KERNELS_LEVEL_H
#define HD_KERNELS_LEVEL_H

#include "kernels/back.h"

void hd_fill_act_avx2(hd_kernels *k);
void hd_fill_act_vnni(hd_kernels *k);
void hd_fill_act_zen4(hd_kernels *k);
void hd_fill_act_neon(hd_kernels *k);
void hd_fill_mul_ref(hd_kernels *k); // integers; here floats and act_pack too
void hd_fill_mul_avx2(hd_kernels *k);
void hd_fill_mul_vnni(hd_kernels *k);
void hd_fill_mul_zen4(hd_kernels *k);
void hd_fill_mul_amx(hd_kernels *k);
void hd_fill_mul_dotprod(hd_kernels *k);
void hd_fill_float_avx2(hd_kernels *k);
void hd_fill_float_vnni(hd_kernels *k);
void hd_fill_float_zen4(hd_kernels *k);
void hd_fill_float_amx(hd_kernels *k);
void hd_fill_float_neon(hd_kernels *k);
void hd_fill_bf12_avx2(hd_kernels *k);
void hd_fill_bf12_vnni(hd_kernels *k);
void hd_fill_bf12_neon(hd_kernels *k);
void hd_fill_rows_ref(hd_kernels *k);
void hd_fill_rows_avx2(hd_kernels *k);
void hd_fill_rows_vnni(hd_kernels *k);
void hd_fill_rows_neon(hd_kernels *k);
void hd_fill_optim_ref(hd_kernels *k);
void hd_fill_optim_avx2(hd_kernels *k);
void hd_fill_optim_vnni(hd_kernels *k);
void hd_fill_attn_ref(hd_kernels *k);
void hd_fill_attn_avx2(hd_kernels *k);
void hd_fill_attn_vnni(hd_kernels *k);
void hd_fill_attn_bf16(hd_kernels *k);
void hd_fill_attn_amx(hd_kernels *k);
void hd_fill_attn_neon(hd_kernels *k);

#endif
