/* See fmt_fit.h for the problem; here is the search. */
#include "kernels/fmt_fit.h"

#include <math.h>
#include <string.h>

typedef float v4 __attribute__((vector_size(16)));

static inline v4 load(const float *p)
{
    v4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float total(v4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }

/* Round to nearest by adding 1.5 x 2^23: the sum's last bit is worth 1.  The clamp comes first, so |v| is
 * small (and NaN has become lo). */
static inline float round_code(float v, float lo, float hi)
{
    v = v > lo ? v : lo;
    v = v < hi ? v : hi;
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

static inline void codes(int n, const float *x, float inv, float m, float lo, float hi, float *q)
{
    for (int i = 0; i < n; i++) q[i] = round_code((x[i] - m) * inv, lo, hi);
}

void fit_weights(float *w, const float *x, const float *importance, int n, float sigma2)
{
    for (int i = 0; i < n; i++) w[i] = sqrtf(sigma2 + x[i] * x[i]);
    if (importance)
        for (int i = 0; i < n; i++) w[i] *= importance[i];
}

float fit_codes(int n, const float *x, const float *w, float d, float m, int lo, int hi, float *q)
{
    codes(n, x, d ? 1 / d : 0, m, (float)lo, (float)hi, q);
    v4 e = {0};
    for (int i = 0; i < n; i += 4) {
        v4 r = load(x + i) - d * load(q + i) - m;
        e += load(w + i) * r * r;
    }
    return total(e);
}

/* With d = Sxq / Sqq the error is Sxx - Sxq^2 / Sqq: the second term is to be made large.  Starting
 * scales put the number of largest magnitude near the lowest code, or near the highest, a little
 * inside or outside. */
float fit_scale(int n, const float *x, const float *w, int lo, int hi)
{
    float top = 0, q[FIT_MAX], wx[FIT_MAX];
    for (int i = 0; i < n; i++) {
        top = fabsf(x[i]) > fabsf(top) ? x[i] : top;
        wx[i] = w[i] * x[i];
    }
    if (!(fabsf(top) > 1e-30f)) return 0;

    enum { STEPS = 9, POLISH = 3 };
    float best_d = top / (float)lo, best_gain = 0;
    for (int k = -2 * STEPS - 1; k <= STEPS; k++) {
        float inv = k >= -STEPS ? ((float)lo - 0.1f * (float)k) / top : ((float)hi + 0.1f * (float)(k + STEPS + 5)) / top;
        for (int polish = 0;; polish++) {
            codes(n, x, inv, 0, (float)lo, (float)hi, q);
            v4 axq = {0}, aqq = {0};
            for (int i = 0; i < n; i += 4) {
                v4 qi = load(q + i);
                axq += load(wx + i) * qi;
                aqq += load(w + i) * qi * qi;
            }
            float xq = total(axq), qq = total(aqq);
            if (!(qq > 0) || !(xq * xq > best_gain * qq)) break;
            best_gain = xq * xq / qq;
            best_d = xq / qq;
            if (polish == POLISH) break;
            inv = qq / xq;
        }
    }
    return best_d;
}

/* With the sums S of w, wx, wq, wxq, wqq, the best pair solves
 *   d Sqq + m Sq = Sxq,   d Sq + m S1 = Sx,
 * and lowers the error from Sxx by  d Sxq + m Sx. */
void fit_range(int n, const float *x, const float *w, int hi, bool no_plus, float *d, float *m)
{
    float low = x[0], high = x[0], q[FIT_MAX], wx[FIT_MAX];
    v4 a1 = {0}, ax = {0};
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        wx[i] = w[i] * x[i];
    }
    for (int i = 0; i < n; i += 4) {
        a1 += load(w + i);
        ax += load(wx + i);
    }
    float s1 = total(a1), sx = total(ax);
    if (no_plus && low > 0) low = 0;
    *m = low;
    *d = (high - low) / (float)hi;
    if (!(*d > 1e-30f)) {
        *d = 0;
        return;
    }

    enum { STEPS = 20, POLISH = 3 };
    float best_gain = -1, d0 = *d, m0 = low;
    for (int k = 0; k <= STEPS; k++) {
        float inv = ((float)hi - 1 + 0.1f * (float)k) / (d0 * (float)hi), shift = m0;
        for (int polish = 0;; polish++) {
            codes(n, x, inv, shift, 0, (float)hi, q);
            v4 aq = {0}, axq = {0}, aqq = {0};
            for (int i = 0; i < n; i += 4) {
                v4 qi = load(q + i), wq = load(w + i) * qi;
                aq += wq;
                axq += load(wx + i) * qi;
                aqq += wq * qi;
            }
            float sq = total(aq), xq = total(axq), qq = total(aqq), det = s1 * qq - sq * sq;
            if (!(det > 0)) break;
            float try_d = (s1 * xq - sq * sx) / det, try_m = (qq * sx - sq * xq) / det;
            if (no_plus && try_m > 0) {
                try_m = 0;
                try_d = xq / qq;
            }
            float gain = try_d * xq + try_m * sx;
            if (!(try_d > 0) || !(gain > best_gain)) break;
            best_gain = gain;
            *d = try_d;
            *m = try_m;
            if (polish == POLISH) break;
            inv = 1 / try_d;
            shift = try_m;
        }
    }
}
