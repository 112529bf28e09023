/* The sampler: from a row of logits to one id.
 *
 *   bias, penalties -> temperature -> top-k -> top-p -> min-p -> draw
 *
 * Greedy needs the maximum alone.  Otherwise the candidates are those within CUT of the highest logit (all
 * others together have a probability below 1e-7), kept as a heap: top-k and top-p take from its top only as
 * many as they need, so that a vocabulary of 150,000 is never sorted.  One random number is drawn for each
 * pick, so that what a session says depends on the seed and the number of picks, not on how the passes were
 * cut. */
#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "infer/engine.h"

#define CUT 30.0f // e^-30 = 9e-14

typedef struct {
    float logit;
    int32_t id;
} candidate;

struct hd_sampler {
    hd_sample_opts o;
    hd_bias *bias; // owned copy
    hd_rng rng;
    int64_t n_vocab;
    float *row;       // [n_vocab] logits with bias and penalties
    candidate *heap;  // [n_vocab]
    uint8_t *seen;    // [n_vocab] in the prompt or generated
    uint16_t *times;  // [n_vocab] generated, saturating
    int32_t *touched; // ids with seen set, so that few are visited
    int64_t n_touched;
};

/* ---- Opening
 * ------------------------------------------------------------------------------------------------------ */

static uint64_t system_seed(void)
{
    uint64_t s;
    if (getrandom(&s, sizeof s, GRND_NONBLOCK) == (ssize_t)sizeof s) return s;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000007u ^ (uint64_t)t.tv_nsec;
}

void hd_engine_sampling(const hd_engine *e, hd_sample_opts *o)
{
    const hd_config *c = hd_model_config(e->model);
    *o =
        (hd_sample_opts){.temperature = 0.6f, .top_p = 0.95f, .repetition_penalty = 1, .seed = system_seed()};
    if (c->sampling.temperature >= 0) o->temperature = c->sampling.temperature;
    if (c->sampling.top_p >= 0) o->top_p = c->sampling.top_p;
    if (c->sampling.top_k >= 0) o->top_k = c->sampling.top_k;
    if (c->sampling.min_p >= 0) o->min_p = c->sampling.min_p;
    if (c->sampling.repetition_penalty > 0) o->repetition_penalty = c->sampling.repetition_penalty;
}

static hd_status check(const hd_sample_opts *o, int64_t n_vocab, hd_err *err)
{
    /* Written so that a NaN fails. */
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return hd_fail(err, HD_USAGE, "sampling: temperature %g: must be 0 to 100", (double)o->temperature);
    if (o->top_k < 0) return hd_fail(err, HD_USAGE, "sampling: top_k %d: must be 0 or more", o->top_k);
    if (!(o->top_p > 0 && o->top_p <= 1))
        return hd_fail(err, HD_USAGE, "sampling: top_p %g: must be above 0, at most 1", (double)o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return hd_fail(err, HD_USAGE, "sampling: min_p %g: must be 0 to 1", (double)o->min_p);
    if (!(o->repetition_penalty > 0 && o->repetition_penalty <= 100))
        return hd_fail(err, HD_USAGE, "sampling: repetition_penalty %g: must be above 0, at most 100",
                       (double)o->repetition_penalty);
    if (!(fabsf(o->presence_penalty) <= 100) || !(fabsf(o->frequency_penalty) <= 100))
        return hd_fail(err, HD_USAGE,
                       "sampling: presence_penalty %g, frequency_penalty %g: must be -100 to 100",
                       (double)o->presence_penalty, (double)o->frequency_penalty);
    if (n_vocab < 1 || n_vocab > INT32_MAX)
        return hd_fail(err, HD_USAGE, "sampling: a vocabulary of %lld", (long long)n_vocab);
    if (o->n_bias < 0 || (o->n_bias > 0 && !o->bias))
        return hd_fail(err, HD_USAGE, "sampling: %d biases", o->n_bias);
    for (int i = 0; i < o->n_bias; i++)
        if (o->bias[i].id < 0 || o->bias[i].id >= n_vocab || isnan(o->bias[i].add))
            return hd_fail(err, HD_USAGE, "sampling: bias for id %d: ids are 0 to %lld", o->bias[i].id,
                           (long long)n_vocab - 1);
    return HD_OK;
}

hd_status hd_sampler_open(hd_sampler **out, const hd_sample_opts *o, int64_t n_vocab, hd_err *err)
{
    hd_status st;
    hd_sampler *s = NULL;
    *out = NULL;
    HD_TRY(check(o, n_vocab, err));
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    s->o = *o;
    s->n_vocab = n_vocab;
    HD_TRY(hd_alloc_n(&s->bias, (size_t)o->n_bias, sizeof *s->bias, err));
    if (o->n_bias > 0) memcpy(s->bias, o->bias, (size_t)o->n_bias * sizeof *s->bias);
    HD_TRY(hd_alloc_n(&s->row, (size_t)n_vocab, sizeof *s->row, err));
    HD_TRY(hd_alloc_n(&s->heap, (size_t)n_vocab, sizeof *s->heap, err));
    HD_TRY(hd_alloc_n(&s->seen, (size_t)n_vocab, sizeof *s->seen, err));
    HD_TRY(hd_alloc_n(&s->times, (size_t)n_vocab, sizeof *s->times, err));
    HD_TRY(hd_alloc_n(&s->touched, (size_t)n_vocab, sizeof *s->touched, err));
    hd_sampler_reset(s, NULL, 0);
    *out = s;
    return HD_OK;
fail:
    hd_sampler_close(s);
    return st;
}

void hd_sampler_close(hd_sampler *s)
{
    if (!s) return;
    free(s->bias);
    free(s->row);
    free(s->heap);
    free(s->seen);
    free(s->times);
    free(s->touched);
    free(s);
}

/* ---- What was said
 * ------------------------------------------------------------------------------------------------ */

static void touch(hd_sampler *s, int32_t id)
{
    if (id < 0 || id >= s->n_vocab || s->seen[id]) return;
    s->seen[id] = 1;
    s->touched[s->n_touched++] = id;
}

void hd_sampler_reset(hd_sampler *s, const int32_t *prompt, int64_t n)
{
    for (int64_t i = 0; i < s->n_touched; i++) {
        s->seen[s->touched[i]] = 0;
        s->times[s->touched[i]] = 0;
    }
    s->n_touched = 0;
    for (int64_t i = 0; i < n; i++) touch(s, prompt[i]);
    hd_rng_seed(&s->rng, s->o.seed, 1);
}

void hd_sampler_accept(hd_sampler *s, int32_t id)
{
    if (id < 0 || id >= s->n_vocab) return;
    touch(s, id);
    if (s->times[id] < UINT16_MAX) s->times[id]++;
}

static const float *penalized(hd_sampler *s, const float *logits)
{
    const hd_sample_opts *o = &s->o;
    bool penalties = o->repetition_penalty != 1 || o->presence_penalty != 0 || o->frequency_penalty != 0;
    if (o->n_bias == 0 && !penalties) return logits;
    memcpy(s->row, logits, (size_t)s->n_vocab * sizeof *s->row);
    for (int i = 0; i < o->n_bias; i++) s->row[s->bias[i].id] += s->bias[i].add;
    for (int64_t i = 0; penalties && i < s->n_touched; i++) {
        int32_t id = s->touched[i];
        float v = s->row[id];
        v = v > 0 ? v / o->repetition_penalty : v * o->repetition_penalty; // arXiv:1909.05858, eq. 3
        if (s->times[id] > 0) v -= o->presence_penalty + o->frequency_penalty * (float)s->times[id];
        s->row[id] = v;
    }
    return s->row;
}

/* ---- Choosing
 * ----------------------------------------------------------------------------------------------------- */

/* Lowest id among equals; a NaN never wins. */
static int32_t argmax(const float *x, int64_t n)
{
    enum { STEP = 64 };
    float best = -INFINITY;
    int64_t at = -1;
    for (int64_t b = 0; b < n; b += STEP) { // the maximum of a stretch first: that loop has no branches
        int64_t end = b + STEP < n ? b + STEP : n;
        float top = -INFINITY;
        for (int64_t i = b; i < end; i++) top = x[i] > top ? x[i] : top;
        if (top > best) best = top, at = b;
    }
    if (at < 0) return 0;
    while (x[at] != best) at++;
    return (int32_t)at;
}

static bool before(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift(candidate *h, int64_t n, int64_t i)
{
    candidate c = h[i];
    for (int64_t kid; (kid = 2 * i + 1) < n; i = kid) {
        if (kid + 1 < n && before(h[kid + 1], h[kid])) kid++;
        if (!before(h[kid], c)) break;
        h[i] = h[kid];
    }
    h[i] = c;
}

/* Take the k best from the heap's n: they end at heap[n-1], heap[n-2], ... */
static int64_t pop(candidate *h, int64_t left)
{
    candidate top = h[0];
    h[0] = h[left - 1];
    sift(h, left - 1, 0);
    h[left - 1] = top;
    return left - 1;
}

static double weight(candidate c, float max, float temperature)
{
    return exp((double)(c.logit - max) / (double)temperature);
}

/* Candidates [first, n) of the array, best last: cut by top-k and top-p.  Returns first. */
static int64_t shorten(hd_sampler *s, int64_t n, float max)
{
    const hd_sample_opts *o = &s->o;
    candidate *h = s->heap;
    int64_t left = n, k = o->top_k > 0 && o->top_k < n ? o->top_k : n;
    double total = 0, sum = 0;
    for (int64_t i = n / 2 - 1; i >= 0; i--) sift(h, n, i);
    if (k < n) {
        while (left > n - k) left = pop(h, left);
        for (int64_t i = left; i < n; i++) total += weight(h[i], max, o->temperature);
        if (o->top_p >= 1) return left;
        int64_t first = n;
        while (first > left && sum < (double)o->top_p * total) sum += weight(h[--first], max, o->temperature);
        return first;
    }
    for (int64_t i = 0; i < n; i++) total += weight(h[i], max, o->temperature);
    while (left > 0 && sum < (double)o->top_p * total) {
        left = pop(h, left);
        sum += weight(h[left], max, o->temperature);
    }
    return left;
}

int32_t hd_sampler_pick(hd_sampler *s, const float *logits)
{
    const hd_sample_opts *o = &s->o;
    const float *x = penalized(s, logits);
    int32_t best = argmax(x, s->n_vocab);
    float max = x[best], cut = max - CUT * o->temperature;
    if (o->temperature == 0) return best;
    double u = hd_rng_unit(&s->rng), total = 0, sum = 0;
    if (!isfinite(max)) return best; // one certain id, or nothing to choose from

    candidate *c = s->heap;
    int64_t n = 0, first = 0;
    for (int64_t i = 0; i < s->n_vocab; i++)
        if (x[i] >= cut) c[n++] = (candidate){x[i], (int32_t)i};
    if (o->top_k > 0 || o->top_p < 1) first = shorten(s, n, max);
    for (int64_t i = first; i < n; i++) {
        double w = weight(c[i], max, o->temperature);
        if (w < (double)o->min_p) c[i].id = -1; // relative to the likeliest, whose weight is 1
        else total += w;
    }
    int32_t last = best;
    for (int64_t i = n - 1; i >= first; i--) {
        if (c[i].id < 0) continue;
        last = c[i].id;
        sum += weight(c[i], max, o->temperature);
        if (sum > u * total) break;
    }
    return last;
}
