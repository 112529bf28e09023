/* Frequencies of the rotary embedding; the rules stand in rope.h. */
#include <math.h>

#include "model/rope.h"

int hd_rope_dim(const hd_config *c) { return c->kv_lora_rank > 0 ? c->qk_rope_head_dim : c->head_dim; }

/* YaRN's correction of the attention's temperature: longer contexts flatten the softmax. */
static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

float hd_attn_scale(const hd_config *c)
{
    bool mla = c->kv_lora_rank > 0;
    double scale = 1 / sqrt(mla ? c->qk_nope_head_dim + c->qk_rope_head_dim : c->head_dim);
    if (mla && c->rope.kind != HD_ROPE_NONE && c->rope.mscale_all_dim != 0) {
        double m = yarn_mscale(c->rope.factor, c->rope.mscale_all_dim);
        scale *= m * m;
    }
    return (float)scale;
}

/* The pair (as a real number) that turns n_rot times over the original context. */
static double yarn_pair(double n_rot, int dim, const hd_rope_config *r)
{
    return dim * log((double)r->original_max_pos / (n_rot * 2 * M_PI)) / (2 * log(r->theta));
}

static void yarn_freq(float *freq, int n_pairs, const hd_rope_config *r)
{
    int dim = 2 * n_pairs;
    double low = yarn_pair(r->beta_fast, dim, r), high = yarn_pair(r->beta_slow, dim, r);
    if (r->truncate) low = floor(low), high = ceil(high);
    if (low < 0) low = 0;
    if (high > dim - 1) high = dim - 1;
    if (low == high) high += 0.001; // a step, not a division by zero
    for (int i = 0; i < n_pairs; i++) {
        double ramp = (i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        freq[i] = (float)(freq[i] / r->factor * ramp + freq[i] * (1 - ramp));
    }
}

static void llama3_freq(float *freq, int n_pairs, const hd_rope_config *r)
{
    double old = (double)r->original_max_pos, low = r->low_freq_factor, high = r->high_freq_factor;
    for (int i = 0; i < n_pairs; i++) {
        double turns = old * freq[i] / (2 * M_PI); // waves in the original context
        if (turns < low) freq[i] = (float)(freq[i] / r->factor);
        else if (turns <= high) {
            double smooth = (turns - low) / (high - low);
            freq[i] = (float)((1 - smooth) * freq[i] / r->factor + smooth * freq[i]);
        }
    }
}

hd_status hd_rope_open(hd_rope *r, const hd_config *c, const float *freq_div, hd_err *err)
{
    hd_status st;
    const hd_rope_config *rc = &c->rope;
    *r = (hd_rope){.n_pairs = hd_rope_dim(c) / 2, .scale = 1};
    HD_TRY(hd_alloc_n(&r->freq, (size_t)r->n_pairs, sizeof *r->freq, err));
    for (int i = 0; i < r->n_pairs; i++) r->freq[i] = (float)pow(rc->theta, -(double)i / r->n_pairs);
    switch (rc->kind) {
    case HD_ROPE_NONE: break;
    case HD_ROPE_LINEAR:
        for (int i = 0; i < r->n_pairs; i++) r->freq[i] /= (float)rc->factor;
        break;
    case HD_ROPE_LLAMA3: llama3_freq(r->freq, r->n_pairs, rc); break;
    case HD_ROPE_YARN:
        yarn_freq(r->freq, r->n_pairs, rc);
        if (rc->attn_factor != 0) r->scale = (float)rc->attn_factor;
        else if (rc->mscale != 0 && rc->mscale_all_dim != 0)
            r->scale = (float)(yarn_mscale(rc->factor, rc->mscale) / yarn_mscale(rc->factor, rc->mscale_all_dim));
        else r->scale = (float)yarn_mscale(rc->factor, 1);
        break;
    }
    if (freq_div)
        for (int i = 0; i < r->n_pairs; i++) r->freq[i] /= freq_div[i];
    return HD_OK;
fail:
    return st;
}

void hd_rope_close(hd_rope *r)
{
    free(r->freq);
    r->freq = NULL;
}

void hd_rope_row(const hd_rope *r, float *cs, int32_t pos)
{
    for (int i = 0; i < r->n_pairs; i++) {
        float s, c;
        sincosf((float)pos * r->freq[i], &s, &c);
        cs[2 * i] = c * r->scale;
        cs[2 * i + 1] = s * r->scale;
    }
}
