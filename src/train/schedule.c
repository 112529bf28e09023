/* See schedule.h. */
#include "train/schedule.h"

#include <math.h>

enum { WINDOW = 128, LEAST = 32 };

float hd_schedule_lr(const hd_schedule *s, int64_t step)
{
    double low = s->min_lr, fall = 0; // 0: still at the top, 1: at the end
    if (step < 1) step = 1;
    if (step <= s->warmup) return (float)((double)s->lr * (double)step / (double)s->warmup);
    if (step > s->steps) step = s->steps;
    switch (s->kind) {
    case HD_SCHED_CONSTANT: break;
    case HD_SCHED_COSINE:
        if (s->steps > s->warmup)
            fall = (1 - cos(M_PI * (double)(step - s->warmup) / (double)(s->steps - s->warmup))) / 2;
        break;
    case HD_SCHED_WSD: {
        int64_t past = step - (s->steps - s->decay);
        if (past > 0) fall = sqrt((double)past / (double)s->decay);
        break;
    }
    }
    return (float)((double)s->lr * (low + (1 - low) * (1 - fall)));
}

int64_t hd_schedule_micro(const hd_schedule *s, int64_t step, int64_t n)
{
    if (step < 1) step = 1;
    if (step > s->batch_ramp) return n;
    double share = 0.25 + 0.75 * (double)(step - 1) / (double)s->batch_ramp;
    int64_t m = llround(share * (double)n);
    return m < 1 ? 1 : m;
}

/* The highest value that is no spike, from what is known so far. */
static double limit(const double *x, int n, double sigmas)
{
    double mean = 0, var = 0;
    for (int i = 0; i < n; i++) mean += x[i];
    mean /= n;
    for (int i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
    double dev = sqrt(var / n), least = 1e-3 * fabs(mean); // a flat record makes no spike of rounding
    return mean + sigmas * (dev > least ? dev : least);
}

bool hd_spikes_seen(hd_spikes *s, double loss, double grad_norm, double sigmas)
{
    bool spike = false;
    if (!isfinite(loss) || !isfinite(grad_norm)) return true;
    if (s->n >= LEAST && sigmas > 0) {
        double top_loss = limit(s->loss, s->n, sigmas), top_grad = limit(s->grad, s->n, sigmas);
        spike = loss > top_loss || grad_norm > top_grad;
        loss = fmin(loss, top_loss);
        grad_norm = fmin(grad_norm, top_grad);
    }
    s->loss[s->at] = loss;
    s->grad[s->at] = grad_norm;
    s->at = (s->at + 1) % WINDOW;
    if (s->n < WINDOW) s->n++;
    return spike;
}
