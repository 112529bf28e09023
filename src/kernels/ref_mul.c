/* Products in plain C: what every other level is tested against, and what runs where there is nothing better.
 * Sums in double, one rounding at the end. */
#include "base/num.h"
#include "kernels/inline.h"
#include "kernels/level.h"
#include "kernels/panel.h"

/* n numbers (at most `block`) with one scale; returns the scale. */
static float quantize(int8_t *q, const float *x, int64_t n, int64_t block)
{
    float top = 0;
    for (int64_t i = 0; i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    float inv = top > 0 ? 127.0f / top : 0;
    for (int64_t i = 0; i < block; i++) {
        float v = i < n ? rintf(x[i] * inv) : 0;
        q[i] = (int8_t)(v > 127 ? 127 : v > -127 ? v : -127); // NaN, and the infinite top: anything but undefined
    }
    return top / 127.0f;
}

static void sums(int16_t *sum, const int8_t *q, int64_t kp, int block)
{
    for (int64_t b = 0; b < kp / block; b++) {
        int s = 0;
        for (int i = 0; i < block; i++) s += q[b * block + i];
        sum[b] = (int16_t)s;
    }
}

static void pack_q8(uint8_t *blob, const float *x, int64_t k, int64_t kp, int64_t block)
{
    int8_t *q = (int8_t *)blob;
    float *scale = (float *)(void *)(blob + kp);
    for (int64_t i = 0; i < kp; i += block) {
        int64_t left = k - i, n = left < 0 ? 0 : left < block ? left : block;
        scale[i / block] = quantize(q + i, x + (n > 0 ? i : 0), n, block);
    }
    if (block == 32) {
        float *xsum = scale + kp / 32;
        int16_t *sum = (int16_t *)(void *)(xsum + kp / 32);
        sums(sum, q, kp, 32);
        for (int64_t b = 0; b < kp / 32; b++) xsum[b] = scale[b] * (float)sum[b];
    } else {
        int16_t *sum = (int16_t *)(void *)(scale + kp / block);
        sums(sum, q, kp, 16);
        sums(sum + kp / 16, q, kp, 32);
    }
}

static void act_pack(hd_act_kind kind, void *blob, const float *x, int64_t k)
{
    int64_t kp = (k + 63) / 64 * 64;
    switch (kind) {
    case HD_ACT_F32:
        memcpy(blob, x, (size_t)k * 4);
        memset((float *)blob + k, 0, (size_t)(kp - k) * 4);
        break;
    case HD_ACT_BF16: {
        uint16_t *q = blob;
        for (int64_t i = 0; i < kp; i++) q[i] = i < k ? hd_f32_to_bf16(x[i]) : 0;
        break;
    }
    case HD_ACT_WIDE: {
        float *q = blob;
        for (int64_t i = 0; i < kp; i++) q[i] = i < k ? hd_bf16_to_f32(hd_f32_to_bf16(x[i])) : 0;
        break;
    }
    case HD_ACT_Q8: pack_q8(blob, x, k, kp, 32); break;
    case HD_ACT_Q8K: pack_q8(blob, x, k, (k + 255) / 256 * 256, HD_Q8K_GROUP); break;
    case HD_N_ACT: break;
    }
}

/* Element i of the rows of a float panel, and of a row of activations for it. */
INLINE double weight(hd_panel_id id, const uint8_t *panel, int64_t i, int r)
{
    const void *p = panel;
    const uint8_t *group = panel + i / 128 * P_F8; // fp8
    float scale;
    switch (id) {
    case HD_PANEL_F32: return ((const float *)p)[i * 32 + r];
    case HD_PANEL_F16: return hd_f16_to_f32(((const uint16_t *)p)[i * 32 + r]);
    case HD_PANEL_BF16: return hd_bf16_to_f32(((const uint16_t *)p)[(i / 2 * 32 + r) * 2 + i % 2]);
    default:
        memcpy(&scale, group, sizeof scale);
        return (double)scale * hd_f8e4m3_to_f32(group[64 + (i % 128 / 2 * 32 + r) * 2 + i % 2]);
    }
}

INLINE float number(hd_panel_id id, const uint8_t *blob, int64_t i)
{
    const void *p = blob;
    return id == HD_PANEL_F32 || id == HD_PANEL_F16 ? ((const float *)p)[i] : hd_bf16_to_f32(((const uint16_t *)p)[i]);
}

INLINE void mul_float(hd_panel_id id, MUL_PARAMS)
{
    (void)scratch;
    for (int m = 0; m < M; m++) {
        double s[32] = {0};
        for (int64_t i = 0; i < k; i++)
            for (int r = 0; r < 32; r++) s[r] += weight(id, panel, i, r) * number(id, act + (size_t)m * stride, i);
        for (int r = 0; r < 32; r++) y[m * ldy + r] = (float)s[r];
    }
}

/* y = sum over blocks b of  scale_b (d (sc0 <q, x>_0 + sc1 <q, x>_1) - dmin min sum_b) */
static void mul_int(hd_panel_id id, MUL_PARAMS)
{
    (void)scratch;
    bool grouped = hd_panel_get(id)->act == HD_ACT_Q8K;
    int64_t kp = grouped ? (k + 255) / 256 * 256 : (k + 63) / 64 * 64, group = grouped ? HD_Q8K_GROUP : 32;
    hd_panel_block o;
    for (int m0 = 0; m0 < M; m0 += 16) { // a few rows share a decoded block
        int n = M - m0 < 16 ? M - m0 : 16;
        double s[16][32] = {{0}};
        for (int64_t b = 0; b < k / 32; b++) {
            hd_panel_block_get(&o, id, panel, b);
            for (int m = 0; m < n; m++) {
                const uint8_t *blob = act + (size_t)(m0 + m) * stride;
                const int8_t *q = (const int8_t *)blob + b * 32;
                double scale = ((const float *)(const void *)(blob + kp))[b * 32 / group];
                int sum = 0;
                for (int i = 0; i < 32; i++) sum += q[i];
                for (int r = 0; r < 32; r++) {
                    int dot[2] = {0, 0};
                    for (int i = 0; i < 32; i++) dot[i / 16] += o.q[r][i] * q[i];
                    s[m][r] += scale * ((double)o.d[r] * (o.sc[0][r] * dot[0] + o.sc[1][r] * dot[1]) -
                                        (double)o.dmin[r] * o.min[r] * sum);
                }
            }
        }
        for (int m = 0; m < n; m++)
            for (int r = 0; r < 32; r++) y[(m0 + m) * ldy + r] = (float)s[m][r];
    }
}

#define MUL_FLOAT(name, ID)                                                                                  \
    static void mul_##name(MUL_PARAMS) { mul_float(HD_PANEL_##ID, panel, k, act, stride, M, y, ldy, scratch); }
#define MUL_INT(name, ID)                                                                                    \
    static void mul_##name(MUL_PARAMS) { mul_int(HD_PANEL_##ID, panel, k, act, stride, M, y, ldy, scratch); }
FLOAT_PANELS(MUL_FLOAT)
SIMPLE_PANELS(MUL_INT)
K_PANELS(MUL_INT)

void hd_fill_mul_ref(hd_kernels *k)
{
    k->act_pack = act_pack;
    FLOAT_PANELS(MUL_FILL)
    SIMPLE_PANELS(MUL_FILL)
    K_PANELS(MUL_FILL)
}
