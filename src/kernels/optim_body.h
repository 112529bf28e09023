/* The optimizers' loops, included by each level's file.  Contracts: optim.h.
 *
 * Plain C: the compiler makes 16, 8 or 4 lanes of them by the level's flags (gcc 12 and clang 14 both do).
 * They move 16 to 28 bytes a number and wait for memory, not for arithmetic. */
#include <math.h>

#include "base/num.h"
#include "kernels/level.h"
#include "kernels/optim.h"

/* hd_f32_to_bf16 without its branch, which would keep the loop scalar. */
static inline uint16_t to_bf16(float f)
{
    uint32_t u = hd_f32_bits(f), nan = (u & 0x7fffffff) > 0x7f800000;
    uint32_t near = (u + 0x7fff + (u >> 16 & 1)) >> 16, quiet = u >> 16 | 0x40;
    return (uint16_t)(nan ? quiet : near);
}

static inline void adamw_one(float *w, float *m, float *v, float g, const hd_adamw *a)
{
    g *= a->grad_scale;
    *m += a->rest1 * (g - *m);
    *v = a->beta2 * *v + a->rest2 * (g * g);
    *w = a->keep * *w - a->rate * (*m / (a->root * sqrtf(*v) + a->eps));
}

static void adamw(float *restrict w, float *restrict m, float *restrict v, const float *restrict g, int64_t n, const hd_adamw *p)
{
    const hd_adamw a = *p;
    for (int64_t i = 0; i < n; i++) adamw_one(w + i, m + i, v + i, g[i], &a);
}

static void adamw_bf16(float *restrict w, uint16_t *restrict m, uint16_t *restrict v, const float *restrict g, int64_t n,
                       const hd_adamw *p)
{
    const hd_adamw a = *p;
    for (int64_t i = 0; i < n; i++) {
        float mi = hd_bf16_to_f32(m[i]), vi = hd_bf16_to_f32(v[i]);
        adamw_one(w + i, &mi, &vi, g[i], &a);
        m[i] = to_bf16(mi);
        v[i] = to_bf16(vi);
    }
}

static inline float nesterov_one(float *m, float g, float beta, float rest)
{
    *m += rest * (g - *m);
    return g + beta * (*m - g);
}

static void nesterov(float *restrict u, float *restrict m, const float *restrict g, int64_t n, float beta, float grad_scale)
{
    const float rest = (float)(1 - (double)beta);
    for (int64_t i = 0; i < n; i++) u[i] = nesterov_one(m + i, g[i] * grad_scale, beta, rest);
}

static void nesterov_bf16(float *restrict u, uint16_t *restrict m, const float *restrict g, int64_t n, float beta, float grad_scale)
{
    const float rest = (float)(1 - (double)beta);
    for (int64_t i = 0; i < n; i++) {
        float mi = hd_bf16_to_f32(m[i]);
        u[i] = nesterov_one(&mi, g[i] * grad_scale, beta, rest);
        m[i] = to_bf16(mi);
    }
}

static void descend(float *restrict w, const float *restrict x, int64_t n, float keep, float rate)
{
    for (int64_t i = 0; i < n; i++) w[i] = keep * w[i] - rate * x[i];
}

#define OPTIM_FILL(level)                                                                                              \
    void hd_fill_optim_##level(hd_kernels *k)                                                                          \
    {                                                                                                                  \
        static const hd_optim_kernels table = {adamw, adamw_bf16, nesterov, nesterov_bf16, descend};                   \
        k->optim = &table;                                                                                             \
    }
