/* The sampler: one id out of a row of logits.
 *
 *   x = logits + bias                                      few ids are touched: they are listed, not searched
 *   x = repetition(x), x -= presence, x -= frequency * count
 *   w = e^((x - max x) / temperature)                      weights; probabilities up to a factor
 *   top-k, top-p, min-p shorten the list; one random number chooses from what is left in proportion to w
 *
 * A vocabulary has 150 000 ids and a token of a small model takes a few milliseconds, so nothing here sorts
 * it.  The row is seen as blocks of 64 and each block's maximum is noted.  The k-th largest of these maxima
 * is a bound that at least k logits reach; only blocks whose maximum reaches it are looked into, and only
 * what is found there is sorted.
 *
 * One pick with temperature takes exactly one random number.  Speculation relies on that: it picks the same
 * ids in the same order, only from rows that were computed earlier. */
#include "infer/sample.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

enum { LANES = 16, BLOCK = 64 };

typedef struct {
    float x;
    int32_t id;
} candidate;

struct hd_sampler {
    hd_sample_opts o;
    hd_bias *bias;
    int64_t n_vocab, n_blocks;
    hd_rng rng;
    uint32_t *count;  // [n_vocab] how often each id was generated
    uint8_t *seen;    // [n_vocab] is it listed in `touched`?
    int32_t *touched; // ids of prompt and text, each once
    int64_t n_touched;
    float *x;        // [n_vocab] the changed logits
    float *max;      // [n_blocks] a block's largest
    float *order;    // [n_vocab] scratch of the selection
    double *sum;     // [n_blocks] a block's weights together
    candidate *cand; // [n_vocab]
};

/* ---- Leaf loops, written in lanes so that compilers make vectors of them ---- */

static inline float larger(float a, float b) { return a > b ? a : b; } // NaN as `a` gives b

/* The largest of n <= BLOCK numbers; NaN counts as -inf. */
static float max_of(const float *x, int64_t n)
{
    float m[LANES];
    for (int j = 0; j < LANES; j++) m[j] = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) m[j] = larger(x[i + j], m[j]);
    for (; i < n; i++) m[0] = larger(x[i], m[0]);
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) m[j] = larger(m[j + half], m[j]);
    return m[0];
}

/* e^d for d <= 0 within 3e-7 of itself; below -87, and for NaN, 0.   e^d = 2^n e^f, |f| <= ln(2)/2, by
 * Taylor's series */
static inline float exp_neg(float d)
{
    const float round = 12582912.0f; // 1.5 * 2^23: adding it leaves no fraction
    float c = d > -87.0f ? d : -87.0f;
    float n = (c * 1.44269504f + round) - round;
    float f = (c - n * 0.693359375f) + n * 2.12194440e-4f; // ln(2) in two parts
    float p = 1.0f / 720;
    p = p * f + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    union {
        int32_t i;
        float f;
    } scale = {((int32_t)n + 127) * (1 << 23)};
    return d > -87.0f ? p * scale.f : 0.0f;
}

/* exp_neg of four numbers at once, the same operations.  Compilers do not find this by themselves: the loop
 * over lanes cost 4 ns a number, this one 1.7. */
typedef float four __attribute__((vector_size(16)));
typedef int32_t four_int __attribute__((vector_size(16)));

static inline four exp_neg4(four d)
{
    const float round = 12582912.0f;
    four_int in = d > -87.0f; // all bits or none; none for NaN
    four c = (four)((four_int)d & in);
    four n = (c * 1.44269504f + round) - round;
    four f = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    four p = f * (1.0f / 720) + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    four scale = (four)((__builtin_convertvector(n, four_int) + 127) * (1 << 23));
    return (four)((four_int)(p * scale) & in);
}

/* Sum of e^((x - max) * beta) over n <= BLOCK numbers. */
static double weight_of(const float *x, int64_t n, float max, float beta)
{
    four s[LANES / 4] = {{0}};
    float tail = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES / 4; j++) {
            four v;
            memcpy(&v, x + i + 4 * j, sizeof v);
            s[j] += exp_neg4((v - max) * beta);
        }
    for (; i < n; i++) tail += exp_neg((x[i] - max) * beta);
    double sum = (double)tail;
    for (int j = 0; j < LANES / 4; j++)
        for (int k = 0; k < 4; k++) sum += (double)s[j][k];
    return sum;
}

static int64_t block_len(int64_t n, int64_t b) { return n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK; }

static int32_t first_equal(const float *x, int64_t n, float v)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] == v) return (int32_t)i;
    return 0; // nothing but NaN
}

int32_t hd_likeliest(const float *x, int64_t n, float *prob)
{
    float max = -INFINITY;
    int64_t best = 0; // block of the first maximum
    for (int64_t b = 0; b * BLOCK < n; b++) {
        float m = max_of(x + b * BLOCK, block_len(n, b));
        if (m > max) max = m, best = b;
    }
    int32_t id = (int32_t)(best * BLOCK) + first_equal(x + best * BLOCK, block_len(n, best), max);
    if (!prob) return id;
    double sum = 0;
    for (int64_t b = 0; b * BLOCK < n; b++) sum += weight_of(x + b * BLOCK, block_len(n, b), max, 1);
    *prob = sum > 0 ? (float)(1 / sum) : 0; // 0: no finite logit
    return id;
}

/* ---- Life ---- */

static bool finite_in(float v, float lo, float hi) { return v >= lo && v <= hi; } // NaN is in no interval

static hd_status check(const hd_sample_opts *o, int64_t n_vocab, hd_err *err)
{
    const float big = 1e30f;
    const struct {
        const char *name, *range;
        float value;
        bool good;
    } rule[] = {
        {"temperature", "0 or more", o->temperature, finite_in(o->temperature, 0, big)},
        {"top_k", "0 or more", (float)o->top_k, o->top_k >= 0},
        {"top_p", "above 0, at most 1", o->top_p, finite_in(o->top_p, 0, 1) && o->top_p > 0},
        {"min_p", "0 or more, below 1", o->min_p, finite_in(o->min_p, 0, 1) && o->min_p < 1},
        {"repetition_penalty", "above 0", o->repetition_penalty,
         finite_in(o->repetition_penalty, 0, big) && o->repetition_penalty > 0},
        {"presence_penalty", "finite", o->presence_penalty, finite_in(o->presence_penalty, -big, big)},
        {"frequency_penalty", "finite", o->frequency_penalty, finite_in(o->frequency_penalty, -big, big)},
    };
    for (size_t i = 0; i < sizeof rule / sizeof rule[0]; i++)
        if (!rule[i].good)
            return hd_fail(err, HD_USAGE, "sampler: %s: %g: must be %s", rule[i].name, (double)rule[i].value,
                           rule[i].range);
    if (n_vocab < 1 || n_vocab > INT32_MAX)
        return hd_fail(err, HD_USAGE, "sampler: %lld logits a row: must be 1 to 2^31 - 1",
                       (long long)n_vocab);
    if (o->n_bias < 0 || (o->n_bias > 0 && !o->bias))
        return hd_fail(err, HD_USAGE, "sampler: bias: %d entries without a list", o->n_bias);
    for (int i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || o->bias[i].id >= n_vocab)
            return hd_fail(err, HD_USAGE, "sampler: bias: id %d: the vocabulary has 0 to %lld", o->bias[i].id,
                           (long long)n_vocab - 1);
        if (!(o->bias[i].add < INFINITY))
            return hd_fail(err, HD_USAGE, "sampler: bias: id %d: %g: must be a number or -infinity",
                           o->bias[i].id, (double)o->bias[i].add);
    }
    return HD_OK;
}

hd_status hd_sampler_open(hd_sampler **out, const hd_sample_opts *o, int64_t n_vocab, hd_err *err)
{
    static const hd_sample_opts greedy = {.top_p = 1, .repetition_penalty = 1};
    hd_status st;
    hd_sampler *s = NULL;
    *out = NULL;
    if (!o) o = &greedy;
    HD_TRY(check(o, n_vocab, err));
    size_t n = (size_t)n_vocab, blocks = (n + BLOCK - 1) / BLOCK;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    s->o = *o;
    s->n_vocab = n_vocab;
    s->n_blocks = (int64_t)blocks;
    HD_TRY(hd_alloc_n(&s->bias, (size_t)o->n_bias, sizeof *s->bias, err));
    if (o->n_bias) memcpy(s->bias, o->bias, (size_t)o->n_bias * sizeof *s->bias);
    s->o.bias = s->bias;
    HD_TRY(hd_alloc_n(&s->count, n, sizeof *s->count, err));
    HD_TRY(hd_alloc_n(&s->seen, n, sizeof *s->seen, err));
    HD_TRY(hd_alloc_n(&s->touched, n, sizeof *s->touched, err));
    HD_TRY(hd_alloc_n(&s->x, n, sizeof *s->x, err));
    HD_TRY(hd_alloc_n(&s->order, n, sizeof *s->order, err));
    HD_TRY(hd_alloc_n(&s->cand, n, sizeof *s->cand, err));
    HD_TRY(hd_alloc_n(&s->max, blocks, sizeof *s->max, err));
    HD_TRY(hd_alloc_n(&s->sum, blocks, sizeof *s->sum, err));
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
    free(s->count);
    free(s->seen);
    free(s->touched);
    free(s->x);
    free(s->order);
    free(s->cand);
    free(s->max);
    free(s->sum);
    free(s);
}

static void touch(hd_sampler *s, int32_t id)
{
    if (s->seen[id]) return;
    s->seen[id] = 1;
    s->touched[s->n_touched++] = id;
}

static bool known(const hd_sampler *s, int32_t id) { return id >= 0 && id < s->n_vocab; }

void hd_sampler_reset(hd_sampler *s, const int32_t *prompt, int64_t n)
{
    for (int64_t i = 0; i < s->n_touched; i++) {
        s->seen[s->touched[i]] = 0;
        s->count[s->touched[i]] = 0;
    }
    s->n_touched = 0;
    hd_rng_seed(&s->rng, s->o.seed, 0);
    for (int64_t i = 0; i < n; i++)
        if (known(s, prompt[i])) touch(s, prompt[i]);
}

void hd_sampler_accept(hd_sampler *s, int32_t id)
{
    if (!known(s, id)) return;
    touch(s, id);
    if (s->count[id] < UINT32_MAX) s->count[id]++;
}

/* ---- Changing logits ---- */

static const float *changed(hd_sampler *s, const float *logits)
{
    const hd_sample_opts *o = &s->o;
    bool penalties = o->repetition_penalty != 1 || o->presence_penalty != 0 || o->frequency_penalty != 0;
    if (o->n_bias == 0 && (!penalties || s->n_touched == 0)) return logits;
    memcpy(s->x, logits, (size_t)s->n_vocab * sizeof *s->x);
    for (int i = 0; i < o->n_bias; i++) s->x[s->bias[i].id] += s->bias[i].add;
    for (int64_t i = 0; penalties && i < s->n_touched; i++) {
        int32_t id = s->touched[i];
        float *x = &s->x[id];
        *x = *x > 0 ? *x / o->repetition_penalty : *x * o->repetition_penalty;
        if (s->count[id]) *x -= o->presence_penalty + o->frequency_penalty * (float)s->count[id];
    }
    return s->x;
}

/* ---- Selection ---- */

/* The k-th largest of v[0..n), 1 <= k <= n, no NaN; v is reordered.  Hoare's FIND with the middle one of
 * three. */
static float kth_largest(float *v, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        float a = v[lo], b = v[lo + (hi - lo) / 2], c = v[hi];
        float pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (v[i] > pivot) i++;
            while (v[j] < pivot) j--;
            if (i > j) break;
            float t = v[i];
            v[i++] = v[j];
            v[j--] = t;
        }
        if (k - 1 <= j) hi = j;
        else if (k - 1 >= i) lo = i;
        else break; // between the parts all are equal to the pivot
    }
    return v[k - 1];
}

static int by_rank(const void *pa, const void *pb)
{
    const candidate *a = pa, *b = pb;
    if (a->x != b->x) return a->x > b->x ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

/* All ids whose logit is t or more, and no -inf: into cand, in order of ids. */
static int64_t gather(hd_sampler *s, const float *x, float t)
{
    int64_t n = 0;
    for (int64_t b = 0; b < s->n_blocks; b++) {
        if (!(s->max[b] >= t)) continue;
        int64_t end = b * BLOCK + block_len(s->n_vocab, b);
        for (int64_t i = b * BLOCK; i < end; i++)
            if (x[i] >= t && x[i] > -INFINITY) s->cand[n++] = (candidate){x[i], (int32_t)i};
    }
    return n;
}

/* The k likeliest (fewer when the others are -inf), by falling logit and rising id. */
static int64_t top(hd_sampler *s, const float *x, int64_t k)
{
    float t = -INFINITY;
    if (k <= s->n_blocks) {
        memcpy(s->order, s->max, (size_t)s->n_blocks * sizeof *s->order);
        t = kth_largest(s->order, s->n_blocks, k);
    } else if (k < s->n_vocab) { // too many for the blocks' maxima to tell
        for (int64_t i = 0; i < s->n_vocab; i++) s->order[i] = x[i] == x[i] ? x[i] : -INFINITY;
        t = kth_largest(s->order, s->n_vocab, k);
    }
    int64_t n = gather(s, x, t);
    qsort(s->cand, (size_t)n, sizeof *s->cand, by_rank);
    return n < k ? n : k;
}

static float weight(const hd_sampler *s, float x, float max) { return exp_neg((x - max) / s->o.temperature); }

static double total(hd_sampler *s, const float *x, float max)
{
    double z = 0;
    for (int64_t b = 0; b < s->n_blocks; b++) {
        s->sum[b] = weight_of(x + b * BLOCK, block_len(s->n_vocab, b), max, 1 / s->o.temperature);
        z += s->sum[b];
    }
    return z;
}

/* How many of the n candidates it takes to reach `goal`; n + 1 when they do not. */
static int64_t reach(const hd_sampler *s, int64_t n, float max, double goal)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)weight(s, s->cand[i].x, max);
        if (sum >= goal) return i + 1;
    }
    return n + 1;
}

/* Candidates after top-k, top-p and min-p; -1: nothing shortens the list. */
static int64_t shorten(hd_sampler *s, const float *x, float max)
{
    const hd_sample_opts *o = &s->o;
    int64_t n;
    bool by_k = o->top_k > 0 && o->top_k < s->n_vocab;
    if (by_k) {
        n = top(s, x, o->top_k);
        if (o->top_p < 1) {
            double z = 0;
            for (int64_t i = 0; i < n; i++) z += (double)weight(s, s->cand[i].x, max);
            int64_t k = reach(s, n, max, o->top_p * z);
            if (k < n) n = k;
        }
    } else if (o->top_p < 1) { // how many it takes is not known: try few, then more
        double goal = o->top_p * total(s, x, max);
        for (int64_t k = 64;; k = k * 8 < s->n_vocab ? k * 8 : s->n_vocab) {
            n = top(s, x, k);
            int64_t r = reach(s, n, max, goal);
            if (r <= n) n = r;
            if (r <= n || n < k || k == s->n_vocab) break;
        }
    } else if (o->min_p > 0) {
        n = gather(s, x, max + s->o.temperature * logf(o->min_p));
    } else {
        return -1;
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) // the maximum's weight is 1
        if (weight(s, s->cand[i].x, max) >= o->min_p) s->cand[kept++] = s->cand[i];
    return kept;
}

/* ---- The pick ---- */

/* One of n candidates in proportion to their weights. */
static int32_t draw_candidate(hd_sampler *s, int64_t n, float max, double u)
{
    double z = 0, sum = 0;
    int64_t i = 0;
    for (int64_t k = 0; k < n; k++) z += (double)weight(s, s->cand[k].x, max);
    for (; i < n - 1; i++) {
        sum += (double)weight(s, s->cand[i].x, max);
        if (u * z < sum) break;
    }
    return s->cand[i].id;
}

/* One of all ids: first its block, then the id. */
static int32_t draw_any(hd_sampler *s, const float *x, float max, double u)
{
    double goal = u * total(s, x, max);
    int64_t last = -1;
    for (int64_t b = 0; b < s->n_blocks; b++) {
        if (!(s->sum[b] > 0)) continue;
        if (goal >= s->sum[b]) {
            goal -= s->sum[b];
            last = b;
            continue;
        }
        last = b;
        break;
    }
    int32_t id = 0; // the block's sum was rounded otherwise: its last possible id then
    for (int64_t i = last * BLOCK; i < last * BLOCK + block_len(s->n_vocab, last); i++) {
        double w = (double)exp_neg((x[i] - max) * (1 / s->o.temperature));
        if (w > 0) id = (int32_t)i;
        if (w > 0 && goal < w) break;
        goal -= w;
    }
    return id;
}

/* Infinite logits leave no proportions: one of them, each as likely. */
static int32_t draw_infinite(const hd_sampler *s, const float *x, double u)
{
    int64_t n = 0, k;
    for (int64_t i = 0; i < s->n_vocab; i++) n += x[i] == INFINITY;
    k = (int64_t)(u * (double)n);
    for (int64_t i = 0; i < s->n_vocab; i++)
        if (x[i] == INFINITY && k-- == 0) return (int32_t)i;
    return 0;
}

int32_t hd_sampler_pick(hd_sampler *s, const float *logits)
{
    const float *x = changed(s, logits);
    if (s->o.temperature == 0) return hd_likeliest(x, s->n_vocab, NULL);
    double u = hd_rng_unit(&s->rng);
    float max = -INFINITY;
    for (int64_t b = 0; b < s->n_blocks; b++) {
        s->max[b] = max_of(x + b * BLOCK, block_len(s->n_vocab, b));
        max = larger(s->max[b], max);
    }
    if (max == -INFINITY) return 0; // every id forbidden: there is no right answer
    if (max == INFINITY) return draw_infinite(s, x, u);
    if (1 / s->o.temperature == INFINITY) return hd_likeliest(x, s->n_vocab, NULL);
    int64_t n = shorten(s, x, max);
    return n < 0 ? draw_any(s, x, max, u) : draw_candidate(s, n, max, u);
}
