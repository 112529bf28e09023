/* The element-by-element halves of an optimizer's step, on flat arrays.  No sums, no fused operations: every
 * level gives the same bits. */
#ifndef HD_KERNELS_OPTIM_H
#define HD_KERNELS_OPTIM_H

#include <stdint.h>

typedef struct {
    float grad_scale;                  // multiplies g first
    float beta1, beta2, rest1, rest2;  // rest = 1 - beta
    float rate;                        // lr / (1 - beta1^step)
    float root;                        // 1 / sqrt(1 - beta2^step)
    float eps, keep;                   // keep = 1 - lr * weight decay
} hd_adamw;

/* Arrays of n numbers, any n >= 0, that do not overlap.  bf16: moments kept in bf16; the step itself is made
 * with the moments before they are rounded. */
typedef struct hd_optim_kernels {
    /* m += (1 - beta1) (g - m)    v = beta2 v + (1 - beta2) g^2
     * w = keep w - rate m / (root sqrt(v) + eps)                                            (arXiv:1711.05101) */
    void (*adamw)(float *w, float *m, float *v, const float *g, int64_t n, const hd_adamw *a);
    void (*adamw_bf16)(float *w, uint16_t *m, uint16_t *v, const float *g, int64_t n, const hd_adamw *a);
    /* m += (1 - beta) (g - m)     u = g + beta (m - g)      (g: times grad_scale) */
    void (*nesterov)(float *u, float *m, const float *g, int64_t n, float beta, float grad_scale);
    void (*nesterov_bf16)(float *u, uint16_t *m, const float *g, int64_t n, float beta, float grad_scale);
    /* w = keep w - rate x */
    void (*descend)(float *w, const float *x, int64_t n, float keep, float rate);
} hd_optim_kernels;

#endif
