/* Encoders of the K formats.
 *
 * A super-block is solved in three steps.  (1) Each block alone: the scale s_j and minimum m_j of least
 * weighted error (fmt_fit.h).  (2) Both are themselves rounded to 4, 6 or 8 bits against the super-block's d
 * and dmin; that rounding moves the optimum, so each block tries the neighbouring integers too, with its
 * codes rounded anew.  (3) With all integers fixed, d and dmin are a linear least-squares problem over the
 * 256 numbers; solve it and repeat (2) once. */
#include "kernels/fmt.h"
#include "kernels/fmt_fit.h"

/* What every K format stores before packing: x = d s[j] q - dmin m[j]. */
typedef struct {
    float d, dmin;
    int s[16], m[16];
    float q[HD_QK];
} super;

typedef struct {
    int len;              // of a block
    int q_lo, q_hi;       // codes
    int s_lo, s_hi;       // block scales; minima are 0..s_hi
    bool has_min;
} shape;

static const shape q2_k = {16, 0, 3, 0, 15, true}, q3_k = {16, -4, 3, -32, 31, false}, q4_k = {32, 0, 15, 0, 63, true},
                   q5_k = {32, 0, 31, 0, 63, true}, q6_k = {16, -32, 31, -128, 127, false};

static inline float round_f16(float v) { return hd_f16_to_f32(hd_f32_to_f16(v)); }

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }

/* Step 2 for one block: integers near (scale/d, min/dmin), at most `reach` away, of least error;
 * codes into u->q. */
static void settle_block(super *u, const shape *f, int j, const float *x, const float *w, float scale, float min, int reach)
{
    float *out = u->q + j * f->len, q[FIT_MAX], best = INFINITY;
    int s0 = u->d ? fmt_round(scale / u->d, f->s_lo, f->s_hi) : 0;
    int m0 = f->has_min && u->dmin ? fmt_round(min / u->dmin, 0, f->s_hi) : 0;
    int m_reach = f->has_min ? reach : 0;
    u->s[j] = s0;
    u->m[j] = m0;
    memset(out, 0, (size_t)f->len * sizeof *out);
    for (int s = clamp(s0 - reach, f->s_lo, f->s_hi); s <= clamp(s0 + reach, f->s_lo, f->s_hi); s++) {
        for (int m = clamp(m0 - m_reach, 0, f->s_hi); m <= clamp(m0 + m_reach, 0, f->s_hi); m++) {
            float e = fit_codes(f->len, x, w, u->d * (float)s, -u->dmin * (float)m, f->q_lo, f->q_hi, q);
            if (!(e < best)) continue;
            best = e;
            u->s[j] = s;
            u->m[j] = m;
            memcpy(out, q, (size_t)f->len * sizeof *out);
        }
    }
}

/* Step 3: least squares for x = d a - dmin b with a = s q, b = m. */
static void refit(super *u, const shape *f, const float *x, const float *w)
{
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int i = 0; i < HD_QK; i++) {
        double a = (double)u->s[i / f->len] * (double)u->q[i], b = -(double)u->m[i / f->len];
        aa += w[i] * a * a;
        ab += w[i] * a * b;
        bb += w[i] * b * b;
        xa += w[i] * x[i] * a;
        xb += w[i] * x[i] * b;
    }
    double det = aa * bb - ab * ab;
    double d = bb > 0 && det > 1e-9 * aa * bb ? (bb * xa - ab * xb) / det : aa > 0 ? xa / aa : 0;
    double dmin = bb > 0 && det > 1e-9 * aa * bb ? (aa * xb - ab * xa) / det : u->dmin;
    if (!isfinite(d) || !isfinite(dmin) || dmin < 0) return;
    u->d = round_f16((float)d);
    u->dmin = round_f16((float)dmin);
}

static void solve(super *u, const shape *f, const float *x, const float *importance)
{
    float w[HD_QK], scale[16], min[16], sum2 = 0, top_s = 0, top_m = 0;
    int blocks = HD_QK / f->len;
    for (int i = 0; i < HD_QK; i++) sum2 += x[i] * x[i];
    fit_weights(w, x, importance, HD_QK, 2 * sum2 / HD_QK);

    memset(u, 0, sizeof *u);
    for (int j = 0; j < blocks; j++) {
        const float *xj = x + j * f->len, *wj = w + j * f->len;
        min[j] = 0;
        if (f->has_min) fit_range(f->len, xj, wj, f->q_hi, true, &scale[j], &min[j]);
        else scale[j] = fit_scale(f->len, xj, wj, f->q_lo, f->q_hi);
        min[j] = -min[j];
        top_s = fabsf(scale[j]) > fabsf(top_s) ? scale[j] : top_s;
        top_m = min[j] > top_m ? min[j] : top_m;
    }
    /* the scale of largest magnitude takes the end of the range that has no mirror image, as codes do */
    u->d = round_f16(top_s / (float)(f->s_lo ? f->s_lo : f->s_hi));
    u->dmin = round_f16(top_m / (float)f->s_hi);
    for (int pass = 0; pass < 2; pass++) {
        if (pass) refit(u, f, x, w);
        for (int j = 0; j < blocks; j++)
            settle_block(u, f, j, x + j * f->len, w + j * f->len, scale[j], min[j], 1);
    }
}

/* ---- packing ---- */

static void put_q2_k(uint8_t *p, const super *u)
{
    for (int j = 0; j < 16; j++) p[j] = (uint8_t)(u->s[j] | u->m[j] << 4);
    for (int i = 0; i < HD_QK; i++) p[16 + i / 128 * 32 + i % 32] |= (uint8_t)((int)u->q[i] << i % 128 / 32 * 2);
    fmt_put_f16(p + 80, u->d);
    fmt_put_f16(p + 82, u->dmin);
}

static void put_q3_k(uint8_t *p, const super *u)
{
    int8_t scale[16];
    for (int j = 0; j < 16; j++) scale[j] = (int8_t)u->s[j];
    for (int i = 0; i < HD_QK; i++) {
        int q = (int)u->q[i] + 4;
        p[i % 32] |= (uint8_t)((q >> 2) << i / 32);
        p[32 + i / 128 * 32 + i % 32] |= (uint8_t)((q & 3) << i % 128 / 32 * 2);
    }
    fmt_q3_k_scales_put(p + 96, scale);
    fmt_put_f16(p + 108, u->d);
}

/* d, dmin, scales and nibbles, alike in q4_k and q5_k */
static void put_45(uint8_t *p, uint8_t *nibbles, const super *u)
{
    uint8_t scale[8], min[8];
    for (int j = 0; j < 8; j++) {
        scale[j] = (uint8_t)u->s[j];
        min[j] = (uint8_t)u->m[j];
    }
    fmt_put_f16(p, u->d);
    fmt_put_f16(p + 2, u->dmin);
    fmt_k_scales_put(p + 4, scale, min);
    for (int i = 0; i < HD_QK; i++) nibbles[i / 64 * 32 + i % 32] |= (uint8_t)(((int)u->q[i] & 15) << i % 64 / 32 * 4);
}

static void put_q4_k(uint8_t *p, const super *u) { put_45(p, p + 16, u); }

static void put_q5_k(uint8_t *p, const super *u)
{
    put_45(p, p + 48, u);
    for (int i = 0; i < HD_QK; i++) p[16 + i % 32] |= (uint8_t)(((int)u->q[i] >> 4) << i / 32);
}

static void put_q6_k(uint8_t *p, const super *u)
{
    for (int i = 0; i < HD_QK; i++) {
        int q = (int)u->q[i] + 32;
        p[i / 128 * 64 + i % 64] |= (uint8_t)((q & 15) << i % 128 / 64 * 4);
        p[128 + i / 128 * 32 + i % 32] |= (uint8_t)((q >> 4) << i % 128 / 32 * 2);
    }
    for (int j = 0; j < 16; j++) p[192 + j] = (uint8_t)(int8_t)u->s[j];
    fmt_put_f16(p + 208, u->d);
}

static void quant(const shape *f, size_t bytes, void (*put)(uint8_t *p, const super *u), uint8_t *p, const float *x, int64_t n,
                  const float *importance)
{
    for (int64_t i = 0; i < n; i += HD_QK, p += bytes) {
        super u;
        solve(&u, f, x + i, importance ? importance + i : NULL);
        memset(p, 0, bytes);
        put(p, &u);
    }
}

#define QUANT(name, bytes)                                                                                   \
    void fmt_##name##_quant(void *y, const float *x, int64_t n, const float *importance)                     \
    {                                                                                                        \
        quant(&name, bytes, put_##name, y, x, n, importance);                                                \
    }
QUANT(q2_k, 84)
QUANT(q3_k, 110)
QUANT(q4_k, 144)
QUANT(q5_k, 176)
QUANT(q6_k, 210)
