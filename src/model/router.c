/* Which experts a token goes to, and with what weight.
 *
 *   V2 (arXiv:2405.04434, eq. 20-22)   scores = softmax(logits); the best k, or the best k within the groups
 *                                      whose best expert is highest
 *   V3 (arXiv:2412.19437, eq. 13-16)   scores = sigmoid(logits); a correction bias joins in the choice alone;
 *                                      a group counts by the sum of its best two
 *
 * Weights are the scores without bias, divided by their sum where the model asks for it, then scaled.  Among
 * equals the lower number wins. */
#include <math.h>

#include "model/block.h"

static void scores_of(const hd_config *c, const float *logits, float *score)
{
    int E = c->n_experts;
    if (c->score == HD_SCORE_SIGMOID) {
        for (int e = 0; e < E; e++) score[e] = 1 / (1 + expf(-logits[e]));
        return;
    }
    float max = logits[0], sum = 0;
    for (int e = 1; e < E; e++) max = logits[e] > max ? logits[e] : max;
    for (int e = 0; e < E; e++) sum += score[e] = expf(logits[e] - max);
    for (int e = 0; e < E; e++) score[e] /= sum;
}

/* The best expert of a group, or the sum of its best two. */
static float group_score(const hd_config *c, const float *choice, int first, int n)
{
    float a = -INFINITY, b = -INFINITY;
    for (int e = first; e < first + n; e++) {
        if (choice[e] > a) b = a, a = choice[e];
        else if (choice[e] > b) b = choice[e];
    }
    return c->topk == HD_TOPK_NOAUX ? a + b : a;
}

/* Experts outside the best topk_group groups cannot be chosen. */
static void limit_groups(const hd_config *c, float *choice)
{
    int n = c->n_experts / c->n_group, outside = c->n_group - c->topk_group;
    bool out[c->n_group]; // config caps the number of groups at the number of experts
    float score[c->n_group];
    for (int g = 0; g < c->n_group; g++) {
        score[g] = group_score(c, choice, g * n, n);
        out[g] = false;
    }
    for (int i = 0; i < outside; i++) {
        int worst = -1;
        for (int g = 0; g < c->n_group; g++)
            if (!out[g] && (worst < 0 || score[g] <= score[worst])) worst = g;
        out[worst] = true;
    }
    for (int e = 0; e < c->n_experts; e++)
        if (out[e / n]) choice[e] = -INFINITY;
}

void hd_router_choose(const hd_config *c, const float *logits, const float *bias, int *id, float *weight,
                      float *scratch)
{
    int E = c->n_experts, k = c->n_experts_per_tok;
    float *score = scratch, *choice = scratch + E, sum = 0;
    scores_of(c, logits, score);
    for (int e = 0; e < E; e++) choice[e] = score[e] + (bias ? bias[e] : 0);
    if (c->topk != HD_TOPK_GREEDY && c->n_group > 1) limit_groups(c, choice);
    for (int i = 0; i < k; i++) {
        int best = -1;
        for (int e = 0; e < E; e++)
            if (!isnan(choice[e]) && (best < 0 || choice[e] > choice[best])) best = e;
        if (best < 0) best = i; // all taken or NaN: any expert gives NaN, none may be out of range
        id[i] = best;
        weight[i] = score[best];
        choice[best] = NAN;
        sum += weight[i];
    }
    for (int i = 0; i < k; i++)
        weight[i] = (c->norm_topk_prob ? weight[i] / (sum + 1e-20f) : weight[i]) * c->routed_scaling;
}
