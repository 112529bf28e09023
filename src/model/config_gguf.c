/* hd_config from GGUF metadata: llama, qwen2, qwen3, deepseek2.
 *
 * The keys say less than config.json, so some facts come from which tensors are there (tied heads, biases, a
 * kept MTP layer) and a few from the published models.  The traps, all of llama.cpp's converter:
 *   - block_count counts the MTP layers where nextn_predict_layers stands, and most files hold none of them;
 *   - deepseek2 with absorbed attention gives the latent's sizes as key_length and value_length; the heads'
 *     own sizes are then in key_length_mla and value_length_mla, and head_count_kv is 1;
 *   - yarn_log_multiplier is 0.1 x mscale_all_dim, and mscale itself is not kept (published models have both
 *     equal);
 *   - no expert_gating_func means softmax (DeepSeek-V2);
 *   - llama files alone permute the rotary dimensions, from halves to adjacent pairs;
 *   - Llama 3.1's frequency rule is a tensor of divisors, rope_freqs.weight: a weight, so rope.kind stays
 *     NONE here. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "model/gguf.h"
#include "model/source_parts.h"

typedef struct {
    const hd_source *s;
    const hd_gguf *g;
    char arch[32];
    const char *where;
    hd_err *err;
} reader;

/* ---- Keys of the architecture: "llama." + name ---- */

static const hd_gguf_kv *find(const reader *r, const char *name)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", r->arch, name);
    return hd_gguf_find(r->g, key);
}

/* An int of 0..INT_MAX; an array counts as its element when all are equal.  Absent: *v stays, an error when
 * required. */
static hd_status get_int(const reader *r, const char *name, bool required, int *v)
{
    const hd_gguf_kv *kv = find(r, name);
    int64_t x = -1, y = -1;
    char key[128];
    if (!kv) {
        if (!required) return HD_OK;
        return hd_fail(r->err, HD_FORMAT, "config: %s: key %s.%s is missing", r->where, r->arch, name);
    }
    snprintf(key, sizeof key, "%s.%s", r->arch, name);
    if (kv->type != HD_GGUF_ARR) {
        if (!hd_gguf_i64(r->g, key, &x)) x = -1;
    } else {
        if (!hd_gguf_arr_i64(kv, 0, &x)) x = -1;
        for (uint64_t i = 1; i < kv->n; i++)
            if (!hd_gguf_arr_i64(kv, i, &y) || y != x)
                return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: key %s: layers that differ cannot be run",
                               r->where, key);
    }
    if (x < 0 || x > INT_MAX)
        return hd_fail(r->err, HD_FORMAT, "config: %s: key %s is no number from 0 to %d", r->where, key,
                       INT_MAX);
    *v = (int)x;
    return HD_OK;
}

static hd_status get_int64(const reader *r, const char *name, bool required, int64_t *v)
{
    int x = (int)*v;
    hd_status st = get_int(r, name, required, &x);
    *v = x;
    return st;
}

static hd_status get_float(const reader *r, const char *name, bool required, double *v)
{
    const hd_gguf_kv *kv = find(r, name);
    char key[128];
    if (!kv && !required) return HD_OK;
    snprintf(key, sizeof key, "%s.%s", r->arch, name);
    if (!kv) return hd_fail(r->err, HD_FORMAT, "config: %s: key %s is missing", r->where, key);
    if (!hd_gguf_f64(r->g, key, v) || !isfinite(*v))
        return hd_fail(r->err, HD_FORMAT, "config: %s: key %s is no finite number", r->where, key);
    return HD_OK;
}

static hd_status get_bool(const reader *r, const char *name, bool *v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", r->arch, name);
    if (find(r, name) && !hd_gguf_bool(r->g, key, v))
        return hd_fail(r->err, HD_FORMAT, "config: %s: key %s is no boolean", r->where, key);
    return HD_OK;
}

/* A factor as f32 arithmetic left it: 0.0707f / 0.1 is 0.70699996, and 0.707 was meant. */
static double round_micro(double v) { return nearbyint(v * 1e6) / 1e6; }

/* ---- Rotary parameters ---- */

static hd_status read_rope(const reader *r, hd_config *c)
{
    hd_status st;
    hd_rope_config *p = &c->rope;
    hd_gguf_str kind = {"", 0};
    char key[128];
    double log_mul = 0, attn = 1;
    int original = 0;
    p->theta = 10000;
    p->factor = 1;
    p->beta_fast = 32;
    p->beta_slow = 1;
    p->truncate = true;
    HD_TRY(get_float(r, "rope.freq_base", false, &p->theta));
    HD_TRY(get_float(r, "rope.scale_linear", false, &p->factor)); // files of 2023
    HD_TRY(get_float(r, "rope.scaling.factor", false, &p->factor));
    HD_TRY(get_int(r, "rope.scaling.original_context_length", false, &original));
    HD_TRY(get_float(r, "rope.scaling.yarn_log_multiplier", false, &log_mul));
    HD_TRY(get_float(r, "rope.scaling.yarn_beta_fast", false, &p->beta_fast));
    HD_TRY(get_float(r, "rope.scaling.yarn_beta_slow", false, &p->beta_slow));
    HD_TRY(get_float(r, "rope.scaling.yarn_attn_factor", false, &p->attn_factor));
    HD_TRY(get_float(r, "rope.scaling.attn_factor", false, &attn));
    p->original_max_pos = original ? original : c->max_pos;
    if (p->factor == 0) p->factor = 1;
    snprintf(key, sizeof key, "%s.rope.scaling.type", r->arch);
    if (hd_gguf_find(r->g, key) && !hd_gguf_string(r->g, key, &kind))
        return hd_fail(r->err, HD_FORMAT, "config: %s: key %s is no string", r->where, key);
    if (attn != 1)
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: rope.scaling.attn_factor %g cannot be run",
                       r->where, attn);
    if (kind.n == 4 && memcmp(kind.p, "yarn", 4) == 0) {
        p->kind = HD_ROPE_YARN;
        p->mscale_all_dim = round_micro(log_mul * 10);
        p->mscale = p->mscale_all_dim;
    } else if (kind.n == 0 || (kind.n == 6 && memcmp(kind.p, "linear", 6) == 0)) {
        p->kind = p->factor == 1 ? HD_ROPE_NONE : HD_ROPE_LINEAR;
    } else if (kind.n == 4 && memcmp(kind.p, "none", 4) == 0) {
        p->kind = HD_ROPE_NONE;
    } else {
        char text[40];
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: rope.scaling.type '%s' cannot be run", r->where,
                       hd_name_show(text, sizeof text, kind.p, kind.n));
    }
fail:
    return st;
}

/* ---- Architectures ---- */

static hd_status read_gqa(const reader *r, hd_config *c)
{
    hd_status st;
    int rot;
    if (c->n_heads > 0) c->head_dim = (int)(c->d_model / c->n_heads);
    HD_TRY(get_int(r, "attention.key_length", false, &c->head_dim));
    int v = c->head_dim;
    HD_TRY(get_int(r, "attention.value_length", false, &v));
    rot = c->head_dim;
    HD_TRY(get_int(r, "rope.dimension_count", false, &rot));
    if (v != c->head_dim || rot != c->head_dim)
        return hd_fail(r->err, HD_UNSUPPORTED,
                       "config: %s: keys of %d, values of %d, %d rotated: they must be equal", r->where,
                       c->head_dim, v, rot);
fail:
    return st;
}

static hd_status read_llama(const reader *r, hd_config *c)
{
    int experts = 0;
    hd_status st = get_int(r, "expert_count", false, &experts);
    if (st == HD_OK && experts > 0)
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: llama with experts (Mixtral) cannot be run",
                       r->where);
    c->rope.pairs = true;
    return st == HD_OK ? read_gqa(r, c) : st;
}

static hd_status read_qwen3(const reader *r, hd_config *c)
{
    c->qk_norm = true;
    return read_gqa(r, c);
}

/* Which experts are asked.  Files made before the group keys existed are told by their size. */
static hd_status read_router(const reader *r, hd_config *c)
{
    hd_status st;
    int gating = 1;
    double scale = 1;
    HD_TRY(get_int(r, "expert_used_count", true, &c->n_experts_per_tok));
    HD_TRY(get_int(r, "expert_shared_count", false, &c->n_shared_experts));
    HD_TRY(get_int(r, "expert_feed_forward_length", true, &c->moe_ffn));
    HD_TRY(get_float(r, "expert_weights_scale", false, &scale));
    HD_TRY(get_bool(r, "expert_weights_norm", &c->norm_topk_prob));
    HD_TRY(get_int(r, "expert_gating_func", false, &gating));
    if (gating == 0) gating = 1;
    if (gating != 1 && gating != 2)
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: expert_gating_func %d cannot be run", r->where,
                       gating);
    c->routed_scaling = scale == 0 ? 1 : (float)scale;
    c->score = gating == 2 ? HD_SCORE_SIGMOID : HD_SCORE_SOFTMAX;
    c->n_group = c->topk_group = 1;
    if (find(r, "expert_group_count")) {
        HD_TRY(get_int(r, "expert_group_count", true, &c->n_group));
        HD_TRY(get_int(r, "expert_group_used_count", true, &c->topk_group));
    } else if (c->n_layers == 60 && c->n_experts == 160) { // DeepSeek-V2, V2.5, Coder-V2
        c->n_group = 8;
        c->topk_group = 3;
    } else if (c->n_layers == 61 && c->n_experts == 256) { // DeepSeek-V3, R1
        c->n_group = 8;
        c->topk_group = 4;
    }
    if (gating == 2) c->topk = HD_TOPK_NOAUX;
    else c->topk = c->n_group > 1 ? HD_TOPK_GROUP_LIMITED : HD_TOPK_GREEDY;
fail:
    return st;
}

static hd_status read_deepseek2(const reader *r, hd_config *c)
{
    hd_status st;
    int qk, v;
    c->rope.pairs = true;
    if (find(r, "attention.temperature_scale"))
        return hd_fail(r->err, HD_UNSUPPORTED, "config: %s: attention.temperature_scale cannot be run",
                       r->where);
    HD_TRY(get_int(r, "attention.q_lora_rank", false, &c->q_lora_rank));
    HD_TRY(get_int(r, "attention.kv_lora_rank", true, &c->kv_lora_rank));
    HD_TRY(get_int(r, "rope.dimension_count", true, &c->qk_rope_head_dim));
    bool mla = find(r, "attention.key_length_mla");
    HD_TRY(get_int(r, mla ? "attention.key_length_mla" : "attention.key_length", true, &qk));
    HD_TRY(get_int(r, mla ? "attention.value_length_mla" : "attention.value_length", true, &v));
    c->qk_nope_head_dim = qk - c->qk_rope_head_dim;
    c->v_head_dim = v;
    c->head_dim = qk;
    c->n_kv_heads = c->n_heads; // absorbed files say 1
    HD_TRY(get_int(r, "leading_dense_block_count", false, &c->first_k_dense));
    HD_TRY(get_int(r, "expert_count", false, &c->n_experts));
    if (c->n_experts > 0) HD_TRY(read_router(r, c));
    if (c->n_experts > 0 && c->score == HD_SCORE_SIGMOID) strcpy(c->arch, "DeepseekV3ForCausalLM");
fail:
    return st;
}

static const struct {
    const char *gguf, *hf;
    hd_status (*read)(const reader *r, hd_config *c);
} architectures[] = {
    {"llama", "LlamaForCausalLM", read_llama},
    {"qwen2", "Qwen2ForCausalLM", read_gqa},
    {"qwen3", "Qwen3ForCausalLM", read_qwen3},
    {"deepseek2", "DeepseekV2ForCausalLM", read_deepseek2},
};
enum { N_ARCH = sizeof architectures / sizeof architectures[0] };

/* ---- What every architecture has ---- */

static bool has(const reader *r, const char *tensor) { return hd_source_find(r->s, tensor) != NULL; }

static hd_status read_common(const reader *r, hd_config *c)
{
    hd_status st;
    int blocks = 0;
    double eps = 0;
    HD_TRY(get_int(r, "block_count", true, &blocks));
    HD_TRY(get_int(r, "nextn_predict_layers", false, &c->n_mtp));
    HD_TRY(get_int64(r, "embedding_length", true, &c->d_model));
    HD_TRY(get_int64(r, "feed_forward_length", true, &c->n_ffn));
    HD_TRY(get_int64(r, "context_length", true, &c->max_pos));
    HD_TRY(get_int(r, "attention.head_count", true, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    HD_TRY(get_int(r, "attention.head_count_kv", false, &c->n_kv_heads));
    HD_TRY(get_float(r, "attention.layer_norm_rms_epsilon", true, &eps));
    c->norm_eps = (float)eps;
    if (c->n_mtp > blocks)
        return hd_fail(r->err, HD_FORMAT, "config: %s: nextn_predict_layers exceeds block_count", r->where);
    c->n_layers = blocks - c->n_mtp;
    HD_TRY(get_int64(r, "vocab_size", false, &c->n_vocab));
    const hd_tensor_info *embd = hd_source_find(r->s, "token_embd.weight");
    const hd_gguf_kv *tokens = hd_gguf_find(r->g, "tokenizer.ggml.tokens");
    if (embd && embd->n_dims == 2) c->n_vocab = embd->dim[0]; // may be padded past the vocabulary
    else if (!c->n_vocab && tokens && tokens->n <= INT_MAX) c->n_vocab = (int64_t)tokens->n;
    if (hd_source_n_tensors(r->s) > 0) {
        char mtp[64];
        snprintf(mtp, sizeof mtp, "blk.%d.nextn.eh_proj.weight", c->n_layers);
        if (!has(r, mtp)) c->n_mtp = 0;
    }
    c->tie_embeddings = embd && !has(r, "output.weight");
    c->qkv_bias = has(r, "blk.0.attn_q.bias") || strcmp(r->arch, "qwen2") == 0;
    c->o_bias = has(r, "blk.0.attn_output.bias");
    c->mlp_bias = has(r, "blk.0.ffn_down.bias");
fail:
    return st;
}

/* Ids past the vocabulary are dropped: published files have them (pad ids of another vocabulary). */
static int32_t token_id(const reader *r, const hd_config *c, const char *key)
{
    int64_t v;
    if (!hd_gguf_find(r->g, key)) return -1;
    if (!hd_gguf_i64(r->g, key, &v) || v < 0 || v >= c->n_vocab) {
        hd_warn("config: %s: %s is no id of the vocabulary and is ignored", r->where, key);
        return -1;
    }
    return (int32_t)v;
}

static void read_tokens(const reader *r, hd_config *c)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    double f;
    int64_t i;
    c->bos = token_id(r, c, "tokenizer.ggml.bos_token_id");
    c->pad = token_id(r, c, "tokenizer.ggml.padding_token_id");
    for (int k = 0; k < 3; k++) hd_config_add_eos(c, token_id(r, c, ends[k]));
    if (hd_gguf_f64(r->g, "general.sampling.temp", &f) && isfinite(f)) c->sampling.temperature = (float)f;
    if (hd_gguf_f64(r->g, "general.sampling.top_p", &f) && isfinite(f)) c->sampling.top_p = (float)f;
    if (hd_gguf_f64(r->g, "general.sampling.min_p", &f) && isfinite(f)) c->sampling.min_p = (float)f;
    if (hd_gguf_f64(r->g, "general.sampling.penalty_repeat", &f) && isfinite(f))
        c->sampling.repetition_penalty = (float)f;
    if (hd_gguf_i64(r->g, "general.sampling.top_k", &i) && i >= 0 && i <= INT_MAX) c->sampling.top_k = (int)i;
}

hd_status hd_config_from_gguf(hd_config *c, const hd_source *s, const char *where, hd_err *err)
{
    hd_status st;
    reader r = {s, hd_source_gguf(s), "", where, err};
    hd_gguf_str arch;
    int a = 0;
    char text[40];
    hd_config_init(c);
    if (!hd_gguf_string(r.g, "general.architecture", &arch))
        return hd_fail(err, HD_FORMAT, "config: %s: key general.architecture is missing", where);
    while (a < N_ARCH &&
           (strlen(architectures[a].gguf) != arch.n || memcmp(architectures[a].gguf, arch.p, arch.n) != 0))
        a++;
    if (a == N_ARCH)
        return hd_fail(err, HD_UNSUPPORTED,
                       "config: %s: architecture '%s' is not known (llama, qwen2, qwen3, deepseek2 are)",
                       where, hd_name_show(text, sizeof text, arch.p, arch.n));
    strcpy(r.arch, architectures[a].gguf);
    strcpy(c->arch, architectures[a].hf);
    HD_TRY(read_common(&r, c));
    HD_TRY(read_rope(&r, c));
    HD_TRY(architectures[a].read(&r, c));
    read_tokens(&r, c);
    HD_TRY(hd_config_check(c, where, err));
fail:
    return st;
}
