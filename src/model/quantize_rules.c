/* Which tensor gets which format.
 *
 * The mixes are llama.cpp's (llama-quant.cpp, its choices taken as facts so that files of one name are
 * alike): the value projection and the second matrix of the feed-forward network suffer most from rounding,
 * and the first and last layers more than those between, so these get one format better; the output matrix
 * (and an embedding that doubles as one) gets q6_k.  Vectors, norms and the router are f32: they are small,
 * and a router's near ties choose other experts. */
#include <regex.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "model/quantize.h"

enum mix_id { F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q2_K_S, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S,
              Q5_K_M, Q6_K };

static const hd_quant_mix mixes[] = {
    [F32] = {"f32", HD_F32, 0},           [F16] = {"f16", HD_F16, 1},           [BF16] = {"bf16", HD_BF16, 32},
    [Q8_0] = {"q8_0", HD_Q8_0, 7},        [Q4_0] = {"q4_0", HD_Q4_0, 2},        [Q4_1] = {"q4_1", HD_Q4_1, 3},
    [Q5_0] = {"q5_0", HD_Q5_0, 8},        [Q5_1] = {"q5_1", HD_Q5_1, 9},        [Q2_K] = {"q2_k", HD_Q2_K, 10},
    [Q2_K_S] = {"q2_k_s", HD_Q2_K, 21},   [Q3_K_S] = {"q3_k_s", HD_Q3_K, 11},   [Q3_K_M] = {"q3_k_m", HD_Q3_K, 12},
    [Q3_K_L] = {"q3_k_l", HD_Q3_K, 13},   [Q4_K_S] = {"q4_k_s", HD_Q4_K, 14},   [Q4_K_M] = {"q4_k_m", HD_Q4_K, 15},
    [Q5_K_S] = {"q5_k_s", HD_Q5_K, 16},   [Q5_K_M] = {"q5_k_m", HD_Q5_K, 17},   [Q6_K] = {"q6_k", HD_Q6_K, 18},
};
enum { N_MIXES = sizeof mixes / sizeof mixes[0], MAX_RULES = 64 };

const hd_quant_mix *hd_quant_mix_at(int i) { return i >= 0 && i < N_MIXES ? &mixes[i] : NULL; }

const hd_quant_mix *hd_quant_mix_named(const char *name)
{
    static const char *const alias[][2] = {{"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}};
    for (int i = 0; i < 3; i++)
        if (strcasecmp(name, alias[i][0]) == 0) name = alias[i][1];
    for (int i = 0; i < N_MIXES; i++)
        if (strcasecmp(mixes[i].name, name) == 0) return &mixes[i];
    return NULL;
}

/* ---- The mix's choice ---- */

static bool has(const char *name, const char *part) { return strstr(name, part) != NULL; }

static bool stays_f32(const hd_export_tensor *t)
{
    size_t n = strlen(t->name);
    return t->n_dims < 2 || n < 6 || strcmp(t->name + n - 6, "weight") != 0 || has(t->name, "_norm.weight") ||
           has(t->name, "ffn_gate_inp.weight");
}

typedef struct {
    enum mix_id mix;
    int n_layers, n_experts, gqa; // gqa: query heads per key head
    bool tied, importance, huge;  // huge: the 80-layer models, whose value matrix is an eighth of the query's
} facts;

/* The first and last eighth of the layers, and every third between. */
static bool more_bits(int layer, int n) { return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2; }

static hd_type for_value(const facts *f, int layer, hd_type base)
{
    hd_type t = base;
    switch (f->mix) {
    case Q2_K: t = f->gqa >= 4 ? HD_Q4_K : HD_Q3_K; break;
    case Q2_K_S: t = f->gqa >= 4 ? HD_Q4_K : base; break;
    case Q3_K_M: t = layer < 2 ? HD_Q5_K : HD_Q4_K; break;
    case Q3_K_L: t = HD_Q5_K; break;
    case Q4_K_S: t = layer < 4 ? HD_Q5_K : base; break;
    case Q4_K_M:
    case Q5_K_M: t = more_bits(layer, f->n_layers) ? HD_Q6_K : base; break;
    default: break;
    }
    if (f->huge && (t == HD_Q3_K || t == HD_Q4_K)) t = HD_Q5_K;
    return f->n_experts == 8 ? HD_Q8_0 : t;
}

static hd_type for_down(const facts *f, int layer, hd_type base)
{
    int n = f->n_layers;
    switch (f->mix) {
    case Q2_K: return HD_Q3_K;
    case Q2_K_S: return layer < n / 8 ? HD_Q4_K : base;
    case Q3_K_M: return layer < n / 16 ? HD_Q5_K : HD_Q4_K;
    case Q3_K_L: return HD_Q5_K;
    case Q4_K_S: return layer < n / 8 ? HD_Q5_K : base;
    case Q4_K_M:
    case Q5_K_M: return more_bits(layer, n) ? HD_Q6_K : base;
    case Q4_0: return f->importance && layer < n / 8 ? HD_Q4_1 : base;
    case Q5_0: return f->importance && layer < n / 8 ? HD_Q5_1 : base;
    default: return base;
    }
}

static hd_type for_output(const facts *f, hd_type base)
{
    switch (f->mix) {
    case Q2_K: return f->n_experts == 8 ? HD_Q5_K : HD_Q3_K;
    case Q3_K_S:
    case Q4_K_S:
    case Q4_K_M: return f->n_experts == 8 ? HD_Q5_K : base;
    case Q3_K_M: return f->n_experts == 8 ? HD_Q5_K : HD_Q4_K;
    case Q3_K_L: return f->n_experts == 8 ? base : HD_Q5_K;
    default: return base;
    }
}

static hd_type choose(const facts *f, const hd_export_tensor *t, hd_type base)
{
    const char *name = t->name;
    bool embed = strcmp(name, "token_embd.weight") == 0;
    if (hd_format_get((int)base)->block == 1) return base;
    if (strcmp(name, "output.weight") == 0 || (embed && f->tied)) {
        if (base == HD_Q8_0 || hd_export_cols(t) % hd_format_get((int)base)->block != 0) return HD_Q8_0;
        return HD_Q6_K;
    }
    if (has(name, "attn_v.weight") || has(name, "attn_kv_b.weight")) return for_value(f, t->layer, base);
    if (has(name, "attn_k.weight")) return f->n_experts == 8 ? HD_Q8_0 : base;
    if (has(name, "attn_output.weight")) return for_output(f, base);
    if (has(name, "ffn_down")) return for_down(f, t->layer, base);
    return base;
}

/* ---- Rows that do not fit ---- */

static hd_type fallback(hd_type type, int64_t cols)
{
    if (cols % hd_format_get((int)type)->block == 0) return type;
    switch (type) {
    case HD_Q2_K:
    case HD_Q3_K: type = HD_Q4_0; break;
    case HD_Q4_K: type = HD_Q5_0; break;
    case HD_Q5_K: type = HD_Q5_1; break;
    case HD_Q6_K: type = HD_Q8_0; break;
    default: break;
    }
    return cols % hd_format_get((int)type)->block == 0 ? type : HD_F16;
}

/* ---- The user's rules ---- */

typedef struct {
    regex_t re;
    hd_type type;
} rule;

static hd_status parse_rule(rule *r, const char *text, size_t n, hd_err *err)
{
    char pattern[256];
    if (n >= sizeof pattern) return hd_fail(err, HD_USAGE, "quantize: rule %.40s...: longer than 255 bytes", text);
    memcpy(pattern, text, n);
    pattern[n] = 0;
    char *eq = strrchr(pattern, '=');
    if (!eq || eq == pattern) return hd_fail(err, HD_USAGE, "quantize: rule '%s': is not PATTERN=TYPE", pattern);
    *eq = 0;
    const hd_format *f = hd_format_named(eq + 1);
    if (!f || !f->quant)
        return hd_fail(err, HD_USAGE, "quantize: rule '%s': format '%s' cannot be written", pattern, eq + 1);
    int e = regcomp(&r->re, pattern, REG_EXTENDED | REG_NOSUB);
    if (e == REG_ESPACE) return hd_fail(err, HD_NOMEM, "quantize: rule '%s': no memory", pattern);
    if (e != 0) return hd_fail(err, HD_USAGE, "quantize: rule '%s': no regular expression", pattern);
    r->type = f->type;
    return HD_OK;
}

/* The first rule found in the name decides; *want stays when none is. */
static hd_status match_rules(const rule *rules, int n, const char *name, hd_type *want, hd_err *err)
{
    for (int r = 0; r < n; r++) {
        int e = regexec(&rules[r].re, name, 0, NULL, 0);
        if (e == 0) {
            *want = rules[r].type;
            return HD_OK;
        }
        if (e != REG_NOMATCH) return hd_fail(err, HD_NOMEM, "quantize: rules on %s: no memory", name);
    }
    return HD_OK;
}

hd_status hd_quant_rules_apply(hd_export *e, const hd_quant_mix *mix, const char *rules, bool importance, int *n_fallback,
                               hd_err *err)
{
    hd_status st = HD_OK;
    rule rule_of[MAX_RULES];
    int n_rules = 0, fell = 0;
    const hd_config *c = hd_source_config(e->s);
    facts f = {.mix = (enum mix_id)(mix - mixes), .n_layers = c->n_layers + c->n_mtp, .n_experts = c->n_experts,
               .tied = true, .importance = importance};
    f.gqa = c->kv_lora_rank > 0 ? c->n_heads : c->n_heads / c->n_kv_heads;
    f.huge = c->n_layers == 80 && c->kv_lora_rank == 0;
    for (int64_t i = 0; i < e->n; i++) f.tied &= strcmp(e->tensor[i].name, "output.weight") != 0;

    for (const char *p = rules; p && *p;) {
        size_t n = strcspn(p, ",");
        if (n_rules == MAX_RULES) {
            st = hd_fail(err, HD_USAGE, "quantize: more than %d rules", MAX_RULES);
            goto fail;
        }
        HD_TRY(parse_rule(&rule_of[n_rules], p, n, err));
        n_rules++;
        p += n + (p[n] == ',');
    }
    for (int64_t i = 0; i < e->n; i++) {
        hd_export_tensor *t = &e->tensor[i];
        if (stays_f32(t)) {
            t->type = HD_F32;
            continue;
        }
        hd_type want = choose(&f, t, mix->base);
        HD_TRY(match_rules(rule_of, n_rules, t->name, &want, err));
        t->type = fallback(want, hd_export_cols(t));
        fell += t->type != want;
    }
    *n_fallback = fell;
fail:
    for (int i = 0; i < n_rules; i++) regfree(&rule_of[i].re);
    return st;
}
