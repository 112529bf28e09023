/* The router against its definition, written once more with sorting and doubles; ties, and numbers that are
 * none. */
#include <math.h>

#include "base/rng.h"
#include "model/block.h"
#include "test.h"

enum { E = 24, MAX_K = 8 };

static hd_config config(hd_score_kind score, hd_topk_kind topk, int n_group, int topk_group, int k)
{
    return (hd_config){.n_experts = E,
                       .n_experts_per_tok = k,
                       .n_group = n_group,
                       .topk_group = topk_group,
                       .score = score,
                       .topk = topk,
                       .routed_scaling = 2.5f};
}

/* ---- The definition ---- */

typedef struct {
    double key;
    int id;
} ranked;

static int by_key(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    return x->id - y->id;
}

static double group_key(const hd_config *c, const double *choice, int first, int n)
{
    ranked r[E];
    for (int i = 0; i < n; i++) r[i] = (ranked){choice[first + i], i};
    qsort(r, (size_t)n, sizeof r[0], by_key);
    return c->topk == HD_TOPK_NOAUX ? r[0].key + r[1].key : r[0].key;
}

static void define(const hd_config *c, const float *logits, const float *bias, int *id, double *weight)
{
    double score[E], choice[E], total = 0, sum = 0;
    bool allowed[E];
    ranked r[E];
    int n = 0, size = E / c->n_group;
    for (int e = 0; e < E; e++) total += exp((double)logits[e]);
    for (int e = 0; e < E; e++) {
        score[e] =
            c->score == HD_SCORE_SIGMOID ? 1 / (1 + exp(-(double)logits[e])) : exp((double)logits[e]) / total;
        choice[e] = score[e] + (bias ? (double)bias[e] : 0);
        allowed[e] = c->topk == HD_TOPK_GREEDY;
    }
    for (int g = 0; g < c->n_group; g++) r[g] = (ranked){group_key(c, choice, g * size, size), g};
    qsort(r, (size_t)c->n_group, sizeof r[0], by_key);
    for (int g = 0; g < c->topk_group; g++)
        for (int i = 0; i < size; i++) allowed[r[g].id * size + i] = true;
    for (int e = 0; e < E; e++)
        if (allowed[e]) r[n++] = (ranked){choice[e], e};
    qsort(r, (size_t)n, sizeof r[0], by_key);
    for (int i = 0; i < c->n_experts_per_tok; i++) sum += weight[i] = score[id[i] = r[i].id];
    for (int i = 0; i < c->n_experts_per_tok; i++)
        weight[i] *= (double)c->routed_scaling / (c->norm_topk_prob ? sum : 1);
}

/* ---- Tests ---- */

static void test_against_definition(void)
{
    static const struct {
        hd_score_kind score;
        hd_topk_kind topk;
        int n_group, topk_group;
    } kinds[] = {
        {HD_SCORE_SOFTMAX, HD_TOPK_GREEDY, 1, 1},        {HD_SCORE_SOFTMAX, HD_TOPK_GROUP_LIMITED, 4, 2},
        {HD_SCORE_SOFTMAX, HD_TOPK_GROUP_LIMITED, 8, 3}, {HD_SCORE_SIGMOID, HD_TOPK_NOAUX, 1, 1},
        {HD_SCORE_SIGMOID, HD_TOPK_NOAUX, 4, 2},         {HD_SCORE_SIGMOID, HD_TOPK_NOAUX, 12, 5},
        {HD_SCORE_SIGMOID, HD_TOPK_NOAUX, 8, 8},
    };
    hd_rng rng;
    hd_rng_seed(&rng, 11, 1);
    for (int run = 0; run < 700; run++) {
        int i = run % 7, id[MAX_K], want_id[MAX_K];
        hd_config c =
            config(kinds[i].score, kinds[i].topk, kinds[i].n_group, kinds[i].topk_group, 1 + run % MAX_K);
        float logits[E], bias[E], weight[MAX_K], scratch[2 * E];
        double want[MAX_K];
        c.norm_topk_prob = run / 7 % 2;
        for (int e = 0; e < E; e++) {
            logits[e] = 2 * hd_rng_normal(&rng);
            bias[e] = 0.3f * hd_rng_normal(&rng);
        }
        const float *b = c.topk == HD_TOPK_NOAUX && run % 3 ? bias : NULL;
        hd_router_choose(&c, logits, b, id, weight, scratch);
        define(&c, logits, b, want_id, want);
        for (int j = 0; j < c.n_experts_per_tok; j++) {
            CHECK(id[j] == want_id[j], "run %d, choice %d: %d, not %d", run, j, id[j], want_id[j]);
            CHECK(fabs((double)weight[j] - want[j]) <= 1e-5 * want[j], "run %d, weight %d: %g, not %g", run,
                  j, (double)weight[j], want[j]);
        }
    }
}

/* The bias chooses but does not weigh. */
static void test_bias(void)
{
    hd_config c = config(HD_SCORE_SIGMOID, HD_TOPK_NOAUX, 1, 1, 2);
    float logits[E] = {[3] = 1, [5] = 2}, bias[E] = {[7] = 1}, weight[2], scratch[2 * E];
    int id[2];
    hd_router_choose(&c, logits, bias, id, weight, scratch);
    CHECK(id[0] == 7 && id[1] == 5);
    CHECK(fabsf(weight[0] - 2.5f * 0.5f) < 1e-6f);
}

/* V2 counts a group by its best expert, V3 by its best two. */
static void test_groups(void)
{
    float logits[E], weight[1], scratch[2 * E];
    int id[1];
    for (int e = 0; e < E; e++) logits[e] = -5;
    logits[0] = 2;                  // first group of 12: one very good
    logits[12] = logits[13] = 1.5f; // second group: two good
    hd_config v2 = config(HD_SCORE_SOFTMAX, HD_TOPK_GROUP_LIMITED, 2, 1, 1);
    hd_router_choose(&v2, logits, NULL, id, weight, scratch);
    CHECK(id[0] == 0);
    hd_config v3 = config(HD_SCORE_SIGMOID, HD_TOPK_NOAUX, 2, 1, 1);
    hd_router_choose(&v3, logits, NULL, id, weight, scratch);
    CHECK(id[0] == 12);
}

static void test_ties(void)
{
    float logits[E] = {0}, weight[MAX_K], scratch[2 * E];
    int id[MAX_K];
    hd_config c = config(HD_SCORE_SOFTMAX, HD_TOPK_GREEDY, 1, 1, 4);
    hd_router_choose(&c, logits, NULL, id, weight, scratch);
    for (int i = 0; i < 4; i++) CHECK(id[i] == i, "equal scores: the lower number first, not %d", id[i]);
    c = config(HD_SCORE_SIGMOID, HD_TOPK_NOAUX, 4, 2, 8);
    hd_router_choose(&c, logits, NULL, id, weight, scratch);
    for (int i = 0; i < 8; i++) CHECK(id[i] == i, "equal groups: the lower number first, not %d", id[i]);
}

/* Whatever a broken model computes, an expert's number is in range. */
static void test_not_numbers(void)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
    static const hd_topk_kind topk[] = {HD_TOPK_GREEDY, HD_TOPK_GROUP_LIMITED, HD_TOPK_NOAUX};
    hd_rng rng;
    hd_rng_seed(&rng, 12, 1);
    for (int run = 0; run < 300; run++) {
        hd_config c = config(run % 2 ? HD_SCORE_SOFTMAX : HD_SCORE_SIGMOID, topk[run % 3], 4, 2, MAX_K);
        float logits[E], weight[MAX_K], scratch[2 * E];
        int id[MAX_K];
        if (run % 3 == 0) c.n_group = c.topk_group = 1;
        for (int e = 0; e < E; e++) {
            uint32_t r =
                hd_rng_u32(&rng) % (run % 5 == 0 ? 5 : 12); // some runs without a single ordinary number
            logits[e] = r < 5 ? odd[run % 7 == 0 ? 0 : r] : hd_rng_normal(&rng);
        }
        hd_router_choose(&c, logits, NULL, id, weight, scratch);
        for (int i = 0; i < MAX_K; i++) CHECK(id[i] >= 0 && id[i] < E, "run %d: expert %d", run, id[i]);
    }
}

int main(void)
{
    test_against_definition();
    test_bias();
    test_groups();
    test_ties();
    test_not_numbers();
    return hd_test_end();
}
