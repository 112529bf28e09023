/* The keys of a GGUF file: another file's, or those that llama.cpp's converter writes for a Hugging Face
 * configuration (gguf-py/gguf/constants.py names them).  Three facts of deepseek2 that its names do not tell:
 * the file describes absorbed attention, so there is one key head whose key is latent and rotary part
 * together; the heads' own sizes have `_mla` names; and yarn_log_multiplier is 0.1 x mscale_all_dim. */
#include <stdio.h>
#include <string.h>

#include "model/export.h"

typedef struct {
    hd_gguf_writer *w;
    const char *arch;
    hd_err *err;
} writer;

static hd_status put_int(const writer *w, const char *name, int64_t v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", w->arch, name);
    if (v < 0 || v > UINT32_MAX) return hd_fail(w->err, HD_UNSUPPORTED, "export: %s: %lld does not fit GGUF", key, (long long)v);
    return hd_gguf_put_u32(w->w, key, (uint32_t)v, w->err);
}

static hd_status put_float(const writer *w, const char *name, double v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", w->arch, name);
    return hd_gguf_put_f32(w->w, key, (float)v, w->err);
}

static hd_status put_str(const writer *w, const char *name, const char *v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", w->arch, name);
    return hd_gguf_put_str(w->w, key, v, strlen(v), w->err);
}

static hd_status put_rope(const writer *w, const hd_config *c)
{
    hd_status st;
    const hd_rope_config *r = &c->rope;
    HD_TRY(put_float(w, "rope.freq_base", r->theta));
    HD_TRY(put_int(w, "rope.dimension_count", c->kv_lora_rank > 0 ? c->qk_rope_head_dim : c->head_dim));
    if (r->kind == HD_ROPE_LINEAR) {
        HD_TRY(put_str(w, "rope.scaling.type", "linear"));
        HD_TRY(put_float(w, "rope.scaling.factor", r->factor));
    } else if (r->kind == HD_ROPE_YARN) {
        HD_TRY(put_str(w, "rope.scaling.type", "yarn"));
        HD_TRY(put_float(w, "rope.scaling.factor", r->factor));
        HD_TRY(put_int(w, "rope.scaling.original_context_length", r->original_max_pos));
        HD_TRY(put_float(w, "rope.scaling.yarn_beta_fast", r->beta_fast));
        HD_TRY(put_float(w, "rope.scaling.yarn_beta_slow", r->beta_slow));
        if (r->attn_factor != 0) HD_TRY(put_float(w, "rope.scaling.yarn_attn_factor", r->attn_factor));
        if (r->mscale_all_dim != 0) HD_TRY(put_float(w, "rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim));
    }
fail:
    return st;
}

static hd_status put_gqa(const writer *w, const hd_config *c)
{
    hd_status st;
    HD_TRY(put_int(w, "attention.head_count_kv", c->n_kv_heads));
    HD_TRY(put_int(w, "attention.key_length", c->head_dim));
    HD_TRY(put_int(w, "attention.value_length", c->head_dim));
fail:
    return st;
}

static hd_status put_mla(const writer *w, const hd_config *c)
{
    hd_status st;
    HD_TRY(put_int(w, "attention.head_count_kv", 1));
    /* llama.cpp wants the key, though it be 0, but for the numbers of layers by which it tells
     * DeepSeek-V2-Lite. */
    if (c->q_lora_rank > 0 || (c->n_layers != 26 && c->n_layers != 27))
        HD_TRY(put_int(w, "attention.q_lora_rank", c->q_lora_rank));
    HD_TRY(put_int(w, "attention.kv_lora_rank", c->kv_lora_rank));
    HD_TRY(put_int(w, "attention.key_length", (int64_t)c->kv_lora_rank + c->qk_rope_head_dim));
    HD_TRY(put_int(w, "attention.value_length", c->kv_lora_rank));
    HD_TRY(put_int(w, "attention.key_length_mla", (int64_t)c->qk_nope_head_dim + c->qk_rope_head_dim));
    HD_TRY(put_int(w, "attention.value_length_mla", c->v_head_dim));
fail:
    return st;
}

static hd_status put_experts(const writer *w, const hd_config *c)
{
    hd_status st;
    char key[128];
    HD_TRY(put_int(w, "leading_dense_block_count", c->n_experts > 0 ? c->first_k_dense : c->n_layers));
    HD_TRY(put_int(w, "expert_feed_forward_length", c->n_experts > 0 ? c->moe_ffn : c->n_ffn));
    HD_TRY(put_int(w, "expert_count", c->n_experts));
    HD_TRY(put_int(w, "expert_shared_count", c->n_shared_experts));
    if (c->n_experts == 0) return HD_OK;
    HD_TRY(put_int(w, "expert_used_count", c->n_experts_per_tok));
    HD_TRY(put_float(w, "expert_weights_scale", c->routed_scaling));
    snprintf(key, sizeof key, "%s.expert_weights_norm", w->arch);
    HD_TRY(hd_gguf_put_bool(w->w, key, c->norm_topk_prob, w->err));
    HD_TRY(put_int(w, "expert_gating_func", c->score == HD_SCORE_SIGMOID ? 2 : 1));
    bool grouped = c->topk != HD_TOPK_GREEDY && c->n_group > 1;
    HD_TRY(put_int(w, "expert_group_count", grouped ? c->n_group : 1));
    HD_TRY(put_int(w, "expert_group_used_count", grouped ? c->topk_group : 1));
fail:
    return st;
}

/* general.sampling.*: what generation_config.json recommends. */
static hd_status put_sampling(hd_gguf_writer *w, const hd_config *c, hd_err *err)
{
    hd_status st = HD_OK;
    if (c->sampling.temperature >= 0) HD_TRY(hd_gguf_put_f32(w, "general.sampling.temp", c->sampling.temperature, err));
    if (c->sampling.top_p >= 0) HD_TRY(hd_gguf_put_f32(w, "general.sampling.top_p", c->sampling.top_p, err));
    if (c->sampling.min_p >= 0) HD_TRY(hd_gguf_put_f32(w, "general.sampling.min_p", c->sampling.min_p, err));
    if (c->sampling.repetition_penalty >= 0)
        HD_TRY(hd_gguf_put_f32(w, "general.sampling.penalty_repeat", c->sampling.repetition_penalty, err));
    if (c->sampling.top_k >= 0) {
        int32_t k = c->sampling.top_k;
        hd_gguf_kv kv = {{"general.sampling.top_k", 22}, HD_GGUF_I32, HD_GGUF_I32, 1, (const uint8_t *)&k, sizeof k};
        HD_TRY(hd_gguf_put_kv(w, &kv, err));
    }
fail:
    return st;
}

/* The folder's own name: "models/R1-1.5B/" is R1-1.5B. */
static hd_status put_name(hd_gguf_writer *w, const char *path, hd_err *err)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    return hd_gguf_put_str(w, "general.name", path + begin, end - begin, err);
}

static hd_status from_config(hd_gguf_writer *gw, const hd_source *s, hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_source_config(s);
    const hd_arch *a;
    HD_TRY(hd_arch_find(&a, c, err));
    writer w = {gw, a->gguf_name, err};
    HD_TRY(hd_gguf_put_str(gw, "general.architecture", a->gguf_name, strlen(a->gguf_name), err));
    HD_TRY(hd_gguf_put_str(gw, "general.type", "model", 5, err));
    HD_TRY(put_name(gw, hd_source_path(s), err));
    HD_TRY(put_sampling(gw, c, err));
    HD_TRY(put_int(&w, "block_count", c->n_layers));
    HD_TRY(put_int(&w, "context_length", c->max_pos));
    HD_TRY(put_int(&w, "embedding_length", c->d_model));
    HD_TRY(put_int(&w, "feed_forward_length", c->n_ffn));
    HD_TRY(put_int(&w, "vocab_size", c->n_vocab));
    HD_TRY(put_int(&w, "attention.head_count", c->n_heads));
    HD_TRY(put_float(&w, "attention.layer_norm_rms_epsilon", c->norm_eps));
    HD_TRY(put_rope(&w, c));
    HD_TRY(c->kv_lora_rank > 0 ? put_mla(&w, c) : put_gqa(&w, c));
    if (c->kv_lora_rank > 0) HD_TRY(put_experts(&w, c));
    HD_TRY(hd_export_vocab(gw, s, err));
fail:
    return st;
}

static bool starts(const hd_gguf_kv *kv, const char *with)
{
    size_t n = strlen(with);
    return kv->key.n >= n && memcmp(kv->key.p, with, n) == 0;
}

static hd_status from_gguf(hd_gguf_writer *w, const hd_gguf *g, hd_err *err)
{
    hd_status st = HD_OK;
    for (int64_t i = 0; i < hd_gguf_n_kv(g); i++) {
        const hd_gguf_kv *kv = hd_gguf_kv_at(g, i);
        if (starts(kv, "general.file_type") || starts(kv, "general.quantization_version") ||
            starts(kv, "general.alignment") || starts(kv, "split.") || starts(kv, "quantize."))
            continue;
        HD_TRY(hd_gguf_put_kv(w, kv, err));
    }
fail:
    return st;
}

hd_status hd_export_keys(hd_gguf_writer *w, const hd_source *s, hd_err *err)
{
    const hd_gguf *g = hd_source_gguf(s);
    return g ? from_gguf(w, g, err) : from_config(w, s, err);
}
