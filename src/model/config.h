/* What a model is made of, from config.json (both spellings of the rotary parameters) or
 * from GGUF metadata. */
#ifndef HD_MODEL_CONFIG_H
#define HD_MODEL_CONFIG_H

#include <jansson.h>

#include "base/err.h"

enum { HD_MAX_EOS = 16 };

typedef enum { HD_ROPE_NONE, HD_ROPE_LINEAR, HD_ROPE_LLAMA3, HD_ROPE_YARN } hd_rope_kind;

typedef struct {
    hd_rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor;            // llama3
    double beta_fast, beta_slow, mscale, mscale_all_dim; // yarn (arXiv:2309.00071); 0 mscale_all_dim: absent
    double attn_factor;                                  // yarn: explicit attention_factor, 0 when absent
    int64_t original_max_pos;
    bool pairs; // the checkpoint's pairs are adjacent numbers (DeepSeek; llama GGUF), else halves
    bool truncate; // yarn: ramp bounds rounded outward (the default)
} hd_rope_config;

typedef enum { HD_SCORE_SOFTMAX, HD_SCORE_SIGMOID } hd_score_kind;
typedef enum { HD_TOPK_GREEDY, HD_TOPK_GROUP_LIMITED, HD_TOPK_NOAUX } hd_topk_kind;

typedef struct {
    char arch[64];            // "DeepseekV3ForCausalLM", "Qwen2ForCausalLM", ...
    int n_layers, n_mtp;      // main layers; multi-token-prediction layers after them (num_nextn_predict_layers)
    int64_t d_model, n_ffn, n_vocab;
    int n_heads, n_kv_heads, head_dim;
    int64_t max_pos;          // max_position_embeddings
    float norm_eps;
    bool tie_embeddings, qkv_bias, o_bias, mlp_bias, qk_norm;
    hd_rope_config rope;

    /* MLA; kv_lora_rank 0 means plain GQA */
    int q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim;

    /* MoE; n_experts 0 means dense */
    int n_experts, n_shared_experts, n_experts_per_tok, moe_ffn;
    int first_k_dense, moe_layer_freq;
    int n_group, topk_group;
    hd_score_kind score;
    hd_topk_kind topk;
    bool norm_topk_prob;
    float routed_scaling;

    int32_t bos, pad;                  // -1: none
    int32_t eos[HD_MAX_EOS];
    int n_eos;                         // every end-of-turn id of config, generation_config, GGUF
    struct {
        float temperature, top_p, min_p, repetition_penalty; // -1: the file does not say
        int top_k;
    } sampling;                        // defaults from generation_config.json or general.sampling.*
} hd_config;

/* From parsed config.json; generation: parsed generation_config.json or NULL.  where: the file's
 * name, for messages. */
hd_status hd_config_from_json(hd_config *c, const json_t *config, const json_t *generation,
                              const char *where, hd_err *err);
/* Every relation that later code relies on (positive sizes, divisibility, caps): called by both readers. */
hd_status hd_config_check(const hd_config *c, const char *where, hd_err *err);
bool hd_config_layer_is_moe(const hd_config *c, int layer);

#endif
