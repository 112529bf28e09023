/* hd_config from config.json, and the checks that both readers end with.
 *
 * Defaults are those of transformers' configuration classes, since a file may leave out what equals them. The
 * rotary parameters come in two spellings: rope_theta beside a rope_scaling object (or null), and since
 * transformers 5 one rope_parameters object, which may be nested by kind of layer. */
#include "model/config.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "model/source_parts.h"

/* ---- What later code relies on ---- */

void hd_config_init(hd_config *c)
{
    *c = (hd_config){.bos = -1, .pad = -1, .moe_layer_freq = 1, .routed_scaling = 1};
    c->sampling.temperature = c->sampling.top_p = c->sampling.min_p = c->sampling.repetition_penalty = -1;
    c->sampling.top_k = -1;
    c->rope.theta = 10000;
    c->rope.factor = 1;
    c->rope.beta_fast = 32;
    c->rope.beta_slow = 1;
    c->rope.truncate = true;
}

void hd_config_add_eos(hd_config *c, int32_t id)
{
    if (id < 0 || c->n_eos == HD_MAX_EOS) return;
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return;
    c->eos[c->n_eos++] = id;
}

bool hd_config_layer_is_moe(const hd_config *c, int layer)
{
    return c->n_experts > 0 && layer >= c->first_k_dense && layer % c->moe_layer_freq == 0;
}

/* One relation; the message names the field as config.json does. */
#define NEED(cond, ...)                                                                                      \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            char why_[160];                                                                                  \
            snprintf(why_, sizeof why_, __VA_ARGS__);                                                        \
            return hd_fail(err, HD_FORMAT, "config: %s: %s", where, why_);                                   \
        }                                                                                                    \
    } while (0)
#define RANGE(v, lo, hi)                                                                                     \
    NEED((v) >= (lo) && (v) <= (hi), #v " is %lld, not %lld to %lld", (long long)(v), (long long)(lo),       \
         (long long)(hi))
#define FINITE(v, lo, hi)                                                                                    \
    NEED((v) >= (lo) && (v) <= (hi), #v " is %g, not %g to %g", (double)(v), (double)(lo), (double)(hi))

/* No published width comes near; products of two of them fit in 48 bits. */
enum {
    MAX_WIDTH = 1 << 20,
    MAX_HEADS = 4096,
    MAX_HEAD = 8192,
    MAX_LAYERS = 4096,
    MAX_VOCAB = 1 << 24,
    MAX_EXPERTS = 8192
};

static hd_status check_rope(const hd_config *c, const char *where, hd_err *err)
{
    const hd_rope_config *rope = &c->rope;
    FINITE(rope->theta, 1, 1e15);
    FINITE(rope->factor, 1e-3, 1e6);
    FINITE(rope->attn_factor, 0, 1e3);
    if (rope->kind == HD_ROPE_LLAMA3) {
        RANGE(rope->original_max_pos, 1, INT_MAX);
        FINITE(rope->low_freq_factor, 1e-3, 1e6);
        FINITE(rope->high_freq_factor, 1e-3, 1e6);
        NEED(rope->high_freq_factor > rope->low_freq_factor, "high_freq_factor is not above low_freq_factor");
    }
    if (rope->kind == HD_ROPE_YARN) {
        NEED(rope->theta > 1, "yarn with a rope_theta of 1");
        RANGE(rope->original_max_pos, 1, INT_MAX);
        FINITE(rope->beta_fast, 1e-6, 1e6);
        FINITE(rope->beta_slow, 1e-6, 1e6);
        NEED(rope->beta_fast >= rope->beta_slow, "beta_fast is below beta_slow");
        FINITE(rope->mscale, 0, 100);
        FINITE(rope->mscale_all_dim, 0, 100);
    }
    return HD_OK;
}

static hd_status check_mla(const hd_config *c, const char *where, hd_err *err)
{
    RANGE(c->kv_lora_rank, 1, MAX_WIDTH);
    RANGE(c->q_lora_rank, 0, MAX_WIDTH);
    RANGE(c->qk_nope_head_dim, 1, MAX_HEAD);
    RANGE(c->qk_rope_head_dim, 2, MAX_HEAD);
    RANGE(c->v_head_dim, 1, MAX_HEAD);
    NEED(c->qk_rope_head_dim % 2 == 0, "qk_rope_head_dim is odd");
    NEED(c->head_dim == c->qk_nope_head_dim + c->qk_rope_head_dim,
         "head_dim is not qk_nope_head_dim + qk_rope_head_dim");
    NEED(c->n_kv_heads == c->n_heads,
         "num_key_value_heads must equal num_attention_heads beside kv_lora_rank");
    return HD_OK;
}

static hd_status check_moe(const hd_config *c, const char *where, hd_err *err)
{
    RANGE(c->n_experts, 1, MAX_EXPERTS);
    RANGE(c->n_experts_per_tok, 1, c->n_experts);
    RANGE(c->n_shared_experts, 0, 1024);
    RANGE(c->moe_ffn, 1, MAX_WIDTH);
    RANGE(c->first_k_dense, 0, c->n_layers);
    RANGE(c->moe_layer_freq, 1, MAX_LAYERS);
    RANGE(c->n_group, 1, c->n_experts);
    RANGE(c->topk_group, 1, c->n_group);
    NEED(c->n_experts % c->n_group == 0, "%d experts do not make %d groups", c->n_experts, c->n_group);
    NEED(c->topk == HD_TOPK_GREEDY || c->n_experts_per_tok <= c->topk_group * (c->n_experts / c->n_group),
         "%d experts a token cannot come from %d groups of %d", c->n_experts_per_tok, c->topk_group,
         c->n_experts / c->n_group);
    NEED(c->topk != HD_TOPK_NOAUX || c->n_group == 1 || c->n_experts / c->n_group >= 2,
         "a group's score is the sum of two experts, and groups hold one");
    FINITE(c->routed_scaling, 0, 1e6f);
    return HD_OK;
}

hd_status hd_config_check(const hd_config *c, const char *where, hd_err *err)
{
    hd_status st;
    RANGE(c->n_layers, 1, MAX_LAYERS);
    RANGE(c->n_mtp, 0, 16);
    RANGE(c->d_model, 1, MAX_WIDTH);
    RANGE(c->n_ffn, 1, MAX_WIDTH);
    RANGE(c->n_vocab, 1, MAX_VOCAB);
    RANGE(c->n_heads, 1, MAX_HEADS);
    RANGE(c->n_kv_heads, 1, c->n_heads);
    RANGE(c->head_dim, 2, 2 * MAX_HEAD);
    NEED(c->n_heads % c->n_kv_heads == 0, "%d query heads do not share %d key heads evenly", c->n_heads,
         c->n_kv_heads);
    NEED(c->head_dim % 2 == 0, "head_dim is odd");
    RANGE(c->max_pos, 1, INT_MAX);
    FINITE(c->norm_eps, 0, 1);
    RANGE(c->bos, -1, c->n_vocab - 1);
    RANGE(c->pad, -1, c->n_vocab - 1);
    RANGE(c->n_eos, 0, HD_MAX_EOS);
    for (int i = 0; i < c->n_eos; i++) RANGE(c->eos[i], 0, c->n_vocab - 1);
    HD_TRY(check_rope(c, where, err));
    if (c->kv_lora_rank != 0) HD_TRY(check_mla(c, where, err));
    if (c->n_experts != 0) HD_TRY(check_moe(c, where, err));
fail:
    return st;
}

/* ---- Values of config.json ---- */

typedef struct {
    const json_t *o; // the object read from
    const char *where;
    hd_err *err;
} reader;

/* null counts as absent everywhere, as in transformers. */
static const json_t *get(const reader *r, const char *key)
{
    const json_t *v = json_object_get(r->o, key);
    return v && !json_is_null(v) ? v : NULL;
}

static hd_status get_int64(const reader *r, const char *key, int64_t *v)
{
    const json_t *j = get(r, key);
    if (!j) return HD_OK;
    double d = json_is_real(j) ? json_real_value(j) : 0.5; // a whole number spelled 8192.0 will do
    int64_t x = json_is_integer(j)                ? json_integer_value(j)
                : d == floor(d) && fabs(d) < 1e15 ? (int64_t)d
                                                  : -1;
    if (x < 0 || x > INT_MAX)
        return hd_fail(r->err, HD_FORMAT, "config: %s: %s is no whole number from 0 to %d", r->where, key,
                       INT_MAX);
    *v = x;
    return HD_OK;
}

static hd_status get_int(const reader *r, const char *key, int *v)
{
    int64_t x = *v;
    hd_status st = get_int64(r, key, &x);
    *v = (int)x;
    return st;
}

static hd_status get_double(const reader *r, const char *key, double *v)
{
    const json_t *j = get(r, key);
    if (!j) return HD_OK;
    if (!json_is_number(j) || !isfinite(json_number_value(j)))
        return hd_fail(r->err, HD_FORMAT, "config: %s: %s is no number", r->where, key);
    *v = json_number_value(j);
    return HD_OK;
}

static hd_status get_float(const reader *r, const char *key, float *v)
{
    double d = *v;
    hd_status st = get_double(r, key, &d);
    *v = (float)d;
    return st;
}

static hd_status get_bool(const reader *r, const char *key, bool *v)
{
    const json_t *j = get(r, key);
    if (!j) return HD_OK;
    if (!json_is_boolean(j))
        return hd_fail(r->err, HD_FORMAT, "config: %s: %s is neither true nor false", r->where, key);
    *v = json_is_true(j);
    return HD_OK;
}

/* The position of a string in a list that NULL ends; absent: *v stays. */
static hd_status get_choice(const reader *r, const char *key, const char *const *choices, int *v)
{
    const json_t *j = get(r, key);
    if (!j) return HD_OK;
    char shown[40] = "(no string)";
    if (json_is_string(j)) {
        for (int i = 0; choices[i]; i++)
            if (strcmp(json_string_value(j), choices[i]) == 0) {
                *v = i;
                return HD_OK;
            }
        hd_name_show(shown, sizeof shown, json_string_value(j), json_string_length(j));
    }
    return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: %s '%s' cannot be run", r->where, key, shown);
}

/* ---- Rotary parameters ---- */

/* The object with rope_type, factor, ...: NULL when there is none.  Nested by kind of layer: only when all
 * layers are of one kind, or all kinds agree. */
static hd_status find_rope(const reader *r, const json_t **rope)
{
    const json_t *o = get(r, "rope_parameters"), *v, *only = NULL;
    const char *key;
    if (!o) o = get(r, "rope_scaling");
    *rope = o;
    if (!o) return HD_OK;
    if (!json_is_object(o))
        return hd_fail(r->err, HD_FORMAT, "config: %s: rope_parameters is no object", r->where);
    json_object_foreach((json_t *)o, key, v)
    {
        if (!json_is_object(v)) continue;
        if (only && !json_equal(only, v))
            return hd_fail(r->err, HD_UNSUPPORTED,
                           "config: %s: rotary parameters that differ by layer cannot be run", r->where);
        only = v;
    }
    if (only) *rope = only;
    return HD_OK;
}

static hd_status read_rope(const reader *r, hd_config *c)
{
    static const char *const kinds[] = {"default", "linear", "llama3", "yarn",
                                        NULL}; // in the order of hd_rope_kind
    hd_status st;
    hd_rope_config *p = &c->rope;
    reader rr = *r;
    int kind = HD_ROPE_NONE;
    double partial = 1, original = 0;
    HD_TRY(get_double(r, "rope_theta", &p->theta));
    HD_TRY(get_double(r, "partial_rotary_factor", &partial));
    HD_TRY(find_rope(r, &rr.o));
    p->original_max_pos = c->max_pos;
    if (rr.o) {
        HD_TRY(get_choice(&rr, "type", kinds, &kind));
        HD_TRY(get_choice(&rr, "rope_type", kinds, &kind));
        HD_TRY(get_double(&rr, "rope_theta", &p->theta));
        HD_TRY(get_double(&rr, "partial_rotary_factor", &partial));
        HD_TRY(get_double(&rr, "low_freq_factor", &p->low_freq_factor));
        HD_TRY(get_double(&rr, "high_freq_factor", &p->high_freq_factor));
        HD_TRY(get_double(&rr, "beta_fast", &p->beta_fast));
        HD_TRY(get_double(&rr, "beta_slow", &p->beta_slow));
        HD_TRY(get_double(&rr, "mscale", &p->mscale));
        HD_TRY(get_double(&rr, "mscale_all_dim", &p->mscale_all_dim));
        HD_TRY(get_double(&rr, "attention_factor", &p->attn_factor));
        HD_TRY(get_bool(&rr, "truncate", &p->truncate));
        HD_TRY(get_double(&rr, "original_max_position_embeddings", &original));
        if (original >= 1 && original <= INT_MAX) p->original_max_pos = (int64_t)original;
        p->factor = 0;
        HD_TRY(get_double(&rr, "factor", &p->factor));
        if (p->factor == 0) { // yarn without a factor: the ratio of the two context lengths
            if (kind == HD_ROPE_LINEAR || kind == HD_ROPE_LLAMA3)
                return hd_fail(r->err, HD_FORMAT, "config: %s: rope_type '%s' without a factor", r->where,
                               kinds[kind]);
            p->factor = kind == HD_ROPE_YARN ? (double)c->max_pos / (double)p->original_max_pos : 1;
        }
    }
    p->kind = kind;
    if (partial != 1)
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: partial_rotary_factor %g cannot be run", r->where,
                       partial);
fail:
    return st;
}

/* ---- Architectures ---- */

/* Attention that sees only a window is not what the attention kernel computes. */
static hd_status refuse_window(const reader *r)
{
    bool window = false;
    size_t i;
    json_t *v;
    hd_status st = get_bool(r, "use_sliding_window", &window);
    if (st != HD_OK) return st;
    json_array_foreach((json_t *)get(r, "layer_types"), i,
                       v) if (!json_is_string(v) || strcmp(json_string_value(v), "full_attention") != 0)
        window = true;
    return window ? hd_fail(r->err, HD_UNSUPPORTED, "config: %s: sliding-window attention cannot be run",
                            r->where)
                  : HD_OK;
}

static hd_status read_gqa(const reader *r, hd_config *c)
{
    if (c->head_dim == 0 && c->n_heads > 0) c->head_dim = (int)(c->d_model / c->n_heads);
    hd_status st = get_int(r, "head_dim", &c->head_dim);
    return st == HD_OK ? refuse_window(r) : st;
}

static hd_status read_llama(const reader *r, hd_config *c)
{
    hd_status st;
    bool bias = false;
    HD_TRY(get_bool(r, "attention_bias", &bias));
    HD_TRY(get_bool(r, "mlp_bias", &c->mlp_bias));
    c->qkv_bias = c->o_bias = bias;
    HD_TRY(read_gqa(r, c));
fail:
    return st;
}

static hd_status read_qwen2(const reader *r, hd_config *c)
{
    c->qkv_bias = true; // of the architecture, not of the file
    return read_gqa(r, c);
}

static hd_status read_qwen3(const reader *r, hd_config *c)
{
    hd_status st;
    bool bias = false;
    c->qk_norm = true;
    c->head_dim = 128; // the class's default is a number, not d_model / n_heads
    HD_TRY(get_bool(r, "attention_bias", &bias));
    c->qkv_bias = c->o_bias = bias;
    HD_TRY(read_gqa(r, c));
fail:
    return st;
}

/* q_lora_rank alone may be null on purpose: queries without a latent (V2-Lite). */
static hd_status read_mla(const reader *r, hd_config *c)
{
    hd_status st;
    bool bias = false, interleave = true;
    c->kv_lora_rank = 512;
    c->q_lora_rank = json_is_null(json_object_get(r->o, "q_lora_rank")) ? 0 : 1536;
    c->qk_nope_head_dim = c->v_head_dim = 128;
    c->qk_rope_head_dim = 64;
    HD_TRY(get_int(r, "kv_lora_rank", &c->kv_lora_rank));
    HD_TRY(get_int(r, "q_lora_rank", &c->q_lora_rank));
    HD_TRY(get_int(r, "qk_nope_head_dim", &c->qk_nope_head_dim));
    HD_TRY(get_int(r, "qk_rope_head_dim", &c->qk_rope_head_dim));
    HD_TRY(get_int(r, "v_head_dim", &c->v_head_dim));
    HD_TRY(get_bool(r, "attention_bias", &bias));
    HD_TRY(get_bool(r, "rope_interleave", &interleave));
    if (c->kv_lora_rank < 1 || c->qk_nope_head_dim > MAX_HEAD || c->qk_rope_head_dim > MAX_HEAD)
        return hd_fail(r->err, HD_FORMAT,
                       "config: %s: kv_lora_rank, qk_nope_head_dim or qk_rope_head_dim makes no sense",
                       r->where);
    c->qkv_bias = c->o_bias = bias;
    c->head_dim = c->qk_nope_head_dim + c->qk_rope_head_dim;
    c->n_kv_heads =
        c->n_heads; // every head has its own keys once expanded, whatever num_key_value_heads says
    c->rope.pairs = interleave;
fail:
    return st;
}

static hd_status read_experts(const reader *r, hd_config *c)
{
    static const char *const scores[] = {"softmax", "sigmoid", NULL};
    hd_status st;
    int score = (int)c->score;
    HD_TRY(get_int(r, "n_routed_experts", &c->n_experts));
    HD_TRY(get_int(r, "num_local_experts", &c->n_experts));
    HD_TRY(get_int(r, "n_shared_experts", &c->n_shared_experts));
    HD_TRY(get_int(r, "num_experts_per_tok", &c->n_experts_per_tok));
    HD_TRY(get_int(r, "moe_intermediate_size", &c->moe_ffn));
    HD_TRY(get_int(r, "first_k_dense_replace", &c->first_k_dense));
    HD_TRY(get_int(r, "moe_layer_freq", &c->moe_layer_freq));
    HD_TRY(get_int(r, "n_group", &c->n_group));
    HD_TRY(get_int(r, "topk_group", &c->topk_group));
    HD_TRY(get_bool(r, "norm_topk_prob", &c->norm_topk_prob));
    HD_TRY(get_float(r, "routed_scaling_factor", &c->routed_scaling));
    HD_TRY(get_choice(r, "scoring_func", scores, &score));
    if (score != (int)c->score)
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: %s with scoring_func '%s' cannot be run",
                       r->where, c->arch, scores[score]);
    if (c->first_k_dense > c->n_layers) c->first_k_dense = c->n_layers;
    if (c->n_experts == 0) c->n_experts_per_tok = 0;
fail:
    return st;
}

static hd_status read_deepseek_v2(const reader *r, hd_config *c)
{
    static const char *const methods[] = {"greedy", "group_limited_greedy", NULL};
    hd_status st;
    int method = HD_TOPK_GREEDY;
    c->score = HD_SCORE_SOFTMAX;
    c->n_experts = 64;
    c->n_shared_experts = 2;
    c->moe_ffn = 1407;
    c->n_group = c->topk_group = 1;
    HD_TRY(read_mla(r, c));
    HD_TRY(get_bool(r, "mlp_bias", &c->mlp_bias));
    if (c->mlp_bias)
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: experts with mlp_bias cannot be run", r->where);
    HD_TRY(read_experts(r, c));
    HD_TRY(get_choice(r, "topk_method", methods, &method));
    c->topk = method;
    c->rope.pairs = true; // V2 has no switch
fail:
    return st;
}

static hd_status read_deepseek_v3(const reader *r, hd_config *c)
{
    static const char *const methods[] = {"noaux_tc", NULL};
    hd_status st;
    int method = 0;
    c->score = HD_SCORE_SIGMOID;
    c->topk = HD_TOPK_NOAUX;
    c->n_experts = 256;
    c->n_shared_experts = 1;
    c->n_experts_per_tok = 8;
    c->moe_ffn = 2048;
    c->first_k_dense = 3;
    c->n_group = 8;
    c->topk_group = 4;
    c->norm_topk_prob = true;
    c->routed_scaling = 2.5f;
    HD_TRY(read_mla(r, c));
    HD_TRY(read_experts(r, c));
    HD_TRY(get_choice(r, "topk_method", methods, &method));
    HD_TRY(get_int(r, "num_mtp_layers", &c->n_mtp));
    HD_TRY(get_int(r, "num_nextn_predict_layers", &c->n_mtp));
fail:
    return st;
}

static const struct {
    const char *name;
    hd_status (*read)(const reader *r, hd_config *c);
    int64_t n_vocab, d_model, n_ffn, max_pos; // defaults
    int n_layers, n_heads, n_kv_heads;        // n_kv_heads 0: as many as heads
    int bos, eos;
} architectures[] = {
    {"LlamaForCausalLM", read_llama, 32000, 4096, 11008, 2048, 32, 32, 0, 1, 2},
    {"Qwen2ForCausalLM", read_qwen2, 151936, 4096, 22016, 32768, 32, 32, 32, -1, -1},
    {"Qwen3ForCausalLM", read_qwen3, 151936, 4096, 22016, 32768, 32, 32, 32, -1, -1},
    {"DeepseekV2ForCausalLM", read_deepseek_v2, 102400, 4096, 11008, 2048, 32, 32, 0, 1, 2},
    {"DeepseekV3ForCausalLM", read_deepseek_v3, 129280, 7168, 18432, 4096, 61, 128, 128, 0, 1},
};
enum { N_ARCH = sizeof architectures / sizeof architectures[0] };

/* ---- Token ids and sampling ---- */

/* An id, or -1 for none; ids past the vocabulary stand in published files and are dropped, with a warning
 * when key is given. */
static int32_t token_id(const reader *r, const hd_config *c, const json_t *j, const char *key)
{
    if (!j || json_is_null(j)) return -1;
    json_int_t v = json_is_integer(j) ? json_integer_value(j) : -1;
    if (v >= 0 && v < c->n_vocab) return (int32_t)v;
    if (key) hd_warn("config: %s: %s is no id of the vocabulary and is ignored", r->where, key);
    return -1;
}

static void read_eos(const reader *r, hd_config *c)
{
    const json_t *j = get(r, "eos_token_id");
    if (!json_is_array(j)) hd_config_add_eos(c, token_id(r, c, j, "eos_token_id"));
    for (size_t i = 0; i < json_array_size(j) && i < 64; i++)
        hd_config_add_eos(c, token_id(r, c, json_array_get(j, i), "eos_token_id"));
}

static hd_status read_sampling(const reader *r, hd_config *c)
{
    hd_status st;
    HD_TRY(get_float(r, "temperature", &c->sampling.temperature));
    HD_TRY(get_float(r, "top_p", &c->sampling.top_p));
    HD_TRY(get_float(r, "min_p", &c->sampling.min_p));
    HD_TRY(get_float(r, "repetition_penalty", &c->sampling.repetition_penalty));
    HD_TRY(get_int(r, "top_k", &c->sampling.top_k));
fail:
    return st;
}

/* ---- The whole ---- */

/* Weights that are not stored as numbers (AWQ, GPTQ, bitsandbytes, ...) are told by name. */
static hd_status check_quantization(const reader *r)
{
    static const char *const methods[] = {"fp8", NULL}, *const fmts[] = {"e4m3", NULL};
    hd_status st;
    int method = 0, fmt = 0;
    reader q = {get(r, "quantization_config"), r->where, r->err};
    if (!q.o) return HD_OK;
    HD_TRY(get_choice(&q, "quant_method", methods, &method));
    HD_TRY(get_choice(&q, "fmt", fmts, &fmt));
    const json_t *block = get(&q, "weight_block_size");
    for (size_t i = 0; i < 2; i++)
        if (block && json_integer_value(json_array_get(block, i)) != 128)
            return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: weight_block_size is not [128, 128]",
                           r->where);
fail:
    return st;
}

static hd_status find_architecture(const reader *r, int *index)
{
    char shown[60] = "(none)", known[200] = "";
    const json_t *name = json_array_get(get(r, "architectures"), 0);
    for (int i = 0; i < N_ARCH; i++) {
        if (json_is_string(name) && strcmp(json_string_value(name), architectures[i].name) == 0) {
            *index = i;
            return HD_OK;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", architectures[i].name);
    }
    if (json_is_string(name))
        hd_name_show(shown, sizeof shown, json_string_value(name), json_string_length(name));
    return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: architecture '%s' is not known (%s are)", r->where,
                   shown, known);
}

hd_status hd_config_from_json(hd_config *c, const json_t *config, const json_t *generation, const char *where,
                              hd_err *err)
{
    static const char *const acts[] = {"silu", NULL};
    hd_status st;
    reader r = {config, where, err}, g = {generation, where, err};
    int a = 0, act = 0;
    hd_config_init(c);
    if (!json_is_object(config))
        return hd_fail(err, HD_FORMAT, "config: %s: config.json is no object", where);
    if (generation && !json_is_object(generation))
        return hd_fail(err, HD_FORMAT, "config: %s: generation_config.json is no object", where);
    HD_TRY(find_architecture(&r, &a));
    strcpy(c->arch, architectures[a].name);
    c->n_vocab = architectures[a].n_vocab;
    c->d_model = architectures[a].d_model;
    c->n_ffn = architectures[a].n_ffn;
    c->max_pos = architectures[a].max_pos;
    c->n_layers = architectures[a].n_layers;
    c->n_heads = architectures[a].n_heads;
    double eps = 1e-6;
    HD_TRY(get_int64(&r, "vocab_size", &c->n_vocab));
    HD_TRY(get_int64(&r, "hidden_size", &c->d_model));
    HD_TRY(get_int64(&r, "intermediate_size", &c->n_ffn));
    HD_TRY(get_int64(&r, "max_position_embeddings", &c->max_pos));
    HD_TRY(get_int(&r, "num_hidden_layers", &c->n_layers));
    HD_TRY(get_int(&r, "num_attention_heads", &c->n_heads));
    bool null_kv = json_is_null(json_object_get(config, "num_key_value_heads"));
    c->n_kv_heads = architectures[a].n_kv_heads && !null_kv ? architectures[a].n_kv_heads : c->n_heads;
    HD_TRY(get_int(&r, "num_key_value_heads", &c->n_kv_heads));
    HD_TRY(get_double(&r, "rms_norm_eps", &eps));
    c->norm_eps = (float)eps;
    HD_TRY(get_bool(&r, "tie_word_embeddings", &c->tie_embeddings));
    HD_TRY(get_choice(&r, "hidden_act", acts, &act));
    HD_TRY(check_quantization(&r));
    HD_TRY(read_rope(&r, c));
    HD_TRY(architectures[a].read(&r, c));

    const json_t *bos = json_object_get(config, "bos_token_id");
    c->bos = bos                                 ? token_id(&r, c, bos, "bos_token_id")
             : architectures[a].bos < c->n_vocab ? architectures[a].bos
                                                 : -1;
    c->pad = token_id(&r, c, get(&r, "pad_token_id"), NULL);
    if (generation) {
        read_eos(&g, c);
        HD_TRY(read_sampling(&g, c));
    }
    read_eos(&r, c);
    if (!c->n_eos && !json_object_get(config, "eos_token_id") && architectures[a].eos < c->n_vocab)
        hd_config_add_eos(c, architectures[a].eos);
    HD_TRY(hd_config_check(c, where, err));
fail:
    return st;
}
