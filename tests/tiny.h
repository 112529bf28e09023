/* Tiny random models for tests: a configuration in, a GGUF file out, with a tokenizer of 256 bytes and a few
 * added tokens.  Weights are drawn per output so that activations stay near 1; norms, biases and the
 * correction bias are random too. */
#ifndef HD_TESTS_TINY_H
#define HD_TESTS_TINY_H

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "base/rng.h"
#include "kernels/format.h"
#include "model/arch.h"
#include "model/gguf.h"

typedef enum { TINY_LLAMA, TINY_QWEN2, TINY_QWEN3, TINY_V2, TINY_V3, N_TINY } tiny_kind;

/* Ids 0..255 are bytes; then these.  The vocabulary is padded to TINY_VOCAB rows. */
enum { TINY_BOS = 256, TINY_EOS = 257, TINY_THINK = 258, TINY_END_THINK = 259, TINY_TH = 266, TINY_TOKENS = 267, TINY_VOCAB = 272 };

typedef struct {
    tiny_kind kind;
    hd_type type;     // of matrices; rows that do not fit its block get Q8_0, then BF16
    uint64_t seed;    // 0: all weights are zero, for tests of the files alone
    bool split_kv_b;  // MLA: k_b and v_b instead of kv_b
    bool no_mtp;      // V3 without its extra layer
    bool foresees;    // V3 whose next id depends on the last one alone, so that its extra layer knows it, too
    /* Damage, by GGUF name (NULL: none): a tensor that is not there, one with a row more, one of bytes. */
    const char *leave_out, *one_more, *as_bytes;
} tiny_opts;

static inline hd_config tiny_config(const tiny_opts *o)
{
    static const char *const arch[N_TINY] = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "DeepseekV2ForCausalLM",
                                             "DeepseekV3ForCausalLM"};
    hd_config c = {.n_layers = 2, .d_model = 256, .n_ffn = 512, .n_vocab = TINY_VOCAB, .n_heads = 4, .n_kv_heads = 2,
                   .head_dim = 64, .max_pos = 4096, .norm_eps = 1e-6f, .bos = TINY_BOS, .pad = -1};
    snprintf(c.arch, sizeof c.arch, "%s", arch[o->kind]);
    c.rope = (hd_rope_config){.theta = 10000, .factor = 1, .pairs = o->kind == TINY_LLAMA || o->kind >= TINY_V2};
    c.tie_embeddings = o->kind == TINY_QWEN2;
    c.qkv_bias = o->kind == TINY_QWEN2;
    c.qk_norm = o->kind == TINY_QWEN3;
    if (o->kind < TINY_V2) return c;
    bool v3 = o->kind == TINY_V3;
    c.n_layers = 3;
    c.n_mtp = v3 && !o->no_mtp;
    c.n_kv_heads = c.n_heads;
    c.q_lora_rank = v3 ? 96 : 0;
    c.kv_lora_rank = 64;
    c.qk_nope_head_dim = 32;
    c.qk_rope_head_dim = 16;
    c.v_head_dim = 32;
    c.head_dim = 48;
    c.n_experts = 8;
    c.n_shared_experts = 1;
    c.n_experts_per_tok = 3;
    c.moe_ffn = 64;
    c.first_k_dense = 1;
    c.moe_layer_freq = 1;
    c.n_group = v3 ? 4 : 1;
    c.topk_group = v3 ? 2 : 1;
    c.score = v3 ? HD_SCORE_SIGMOID : HD_SCORE_SOFTMAX;
    c.topk = v3 ? HD_TOPK_NOAUX : HD_TOPK_GREEDY;
    c.norm_topk_prob = v3;
    c.routed_scaling = v3 ? 2.5f : 1;
    return c;
}

typedef struct tiny_writer {
    hd_gguf_writer *w;
    const hd_config *c;
    const hd_arch *a;
    const tiny_opts *o;
    hd_rng rng;
    hd_err *err;
    hd_status (*rows)(struct tiny_writer *t, const hd_slot *s, hd_type type, int64_t rows, int64_t k);
    hd_status (*vocab)(struct tiny_writer *t);
} tiny_writer;

/* ---- Keys ---- */

static inline hd_status tiny_u32(tiny_writer *t, const char *name, int64_t v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", t->a->gguf_name, name);
    return hd_gguf_put_u32(t->w, key, (uint32_t)v, t->err);
}

static inline hd_status tiny_f32(tiny_writer *t, const char *name, double v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", t->a->gguf_name, name);
    return hd_gguf_put_f32(t->w, key, (float)v, t->err);
}

static inline hd_status tiny_mla_keys(tiny_writer *t)
{
    hd_status st;
    const hd_config *c = t->c;
    bool split = t->o->split_kv_b;
    const char *norm = "deepseek2.expert_weights_norm";
    if (c->q_lora_rank > 0) HD_TRY(tiny_u32(t, "attention.q_lora_rank", c->q_lora_rank));
    HD_TRY(tiny_u32(t, "attention.kv_lora_rank", c->kv_lora_rank));
    HD_TRY(tiny_u32(t, "rope.dimension_count", c->qk_rope_head_dim));
    HD_TRY(tiny_u32(t, split ? "attention.key_length_mla" : "attention.key_length", c->head_dim));
    HD_TRY(tiny_u32(t, split ? "attention.value_length_mla" : "attention.value_length", c->v_head_dim));
    if (split) { // the sizes of what is cached
        HD_TRY(tiny_u32(t, "attention.key_length", c->kv_lora_rank + c->qk_rope_head_dim));
        HD_TRY(tiny_u32(t, "attention.value_length", c->kv_lora_rank));
    }
    HD_TRY(tiny_u32(t, "leading_dense_block_count", c->first_k_dense));
    HD_TRY(tiny_u32(t, "expert_count", c->n_experts));
    HD_TRY(tiny_u32(t, "expert_shared_count", c->n_shared_experts));
    HD_TRY(tiny_u32(t, "expert_used_count", c->n_experts_per_tok));
    HD_TRY(tiny_u32(t, "expert_feed_forward_length", c->moe_ffn));
    HD_TRY(tiny_u32(t, "expert_group_count", c->n_group));
    HD_TRY(tiny_u32(t, "expert_group_used_count", c->topk_group));
    HD_TRY(tiny_u32(t, "expert_gating_func", c->score == HD_SCORE_SIGMOID ? 2 : 1));
    HD_TRY(tiny_f32(t, "expert_weights_scale", (double)c->routed_scaling));
    HD_TRY(hd_gguf_put_bool(t->w, norm, c->norm_topk_prob, t->err));
    if (c->n_mtp > 0) HD_TRY(tiny_u32(t, "nextn_predict_layers", c->n_mtp));
fail:
    return st;
}

static inline hd_status tiny_keys(tiny_writer *t)
{
    hd_status st;
    const hd_config *c = t->c;
    bool mla = c->kv_lora_rank > 0;
    HD_TRY(hd_gguf_put_str(t->w, "general.architecture", t->a->gguf_name, strlen(t->a->gguf_name), t->err));
    HD_TRY(tiny_u32(t, "block_count", c->n_layers + c->n_mtp));
    HD_TRY(tiny_u32(t, "context_length", c->max_pos));
    HD_TRY(tiny_u32(t, "embedding_length", c->d_model));
    HD_TRY(tiny_u32(t, "feed_forward_length", c->n_ffn));
    HD_TRY(tiny_u32(t, "attention.head_count", c->n_heads));
    HD_TRY(tiny_u32(t, "attention.head_count_kv", mla && t->o->split_kv_b ? 1 : c->n_kv_heads));
    HD_TRY(tiny_f32(t, "attention.layer_norm_rms_epsilon", (double)c->norm_eps));
    HD_TRY(tiny_f32(t, "rope.freq_base", c->rope.theta));
    if (mla) HD_TRY(tiny_mla_keys(t));
fail:
    return st;
}

/* Byte b as GPT-2 spells it: printable ones as themselves, the others from U+0100 on. */
static inline size_t tiny_byte(char out[4], int b, int *others)
{
    bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    int u = plain ? b : 256 + (*others)++;
    if (u < 128) return out[0] = (char)u, 1;
    out[0] = (char)(0xc0 | u >> 6);
    out[1] = (char)(0x80 | (u & 63));
    return 2;
}

static inline hd_status tiny_vocab(tiny_writer *t)
{
    static const char *const added[] = {"<|bos|>", "<|eos|>", "<think>", "</think>", "<|User|>", "<|Assistant|>",
                                        /* what the chat formats of DeepSeek need */
                                        "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
                                        "th"}; // no control token: what the one merge makes
    hd_status st;
    char bytes[256][4];
    hd_gguf_str token[TINY_TOKENS], merge = {"t h", 3};
    int32_t type[TINY_TOKENS];
    int others = 0;
    for (int i = 0; i < TINY_TOKENS; i++) {
        if (i < 256) token[i] = (hd_gguf_str){bytes[i], tiny_byte(bytes[i], i, &others)};
        else token[i] = (hd_gguf_str){added[i - 256], strlen(added[i - 256])};
        type[i] = i < 256 || i == TINY_TH ? 1 : 3;
    }
    HD_TRY(hd_gguf_put_str(t->w, "tokenizer.ggml.model", "gpt2", 4, t->err));
    HD_TRY(hd_gguf_put_str(t->w, "tokenizer.ggml.pre", "default", 7, t->err));
    HD_TRY(hd_gguf_put_arr_str(t->w, "tokenizer.ggml.tokens", token, TINY_TOKENS, t->err));
    HD_TRY(hd_gguf_put_arr(t->w, "tokenizer.ggml.token_type", HD_GGUF_I32, type, TINY_TOKENS, t->err));
    HD_TRY(hd_gguf_put_arr_str(t->w, "tokenizer.ggml.merges", &merge, 1, t->err));
    HD_TRY(hd_gguf_put_u32(t->w, "tokenizer.ggml.bos_token_id", TINY_BOS, t->err));
    HD_TRY(hd_gguf_put_u32(t->w, "tokenizer.ggml.eos_token_id", TINY_EOS, t->err));
fail:
    return st;
}

/* ---- Tensors, in two walks: declare, then write ---- */

static inline bool tiny_has(const tiny_writer *t, const hd_slot *s, int layer)
{
    bool half = s->kind == HD_SLOT_K_B || s->kind == HD_SLOT_V_B;
    if (half || s->kind == HD_SLOT_KV_B) return half == t->o->split_kv_b;
    if (s->kind == HD_SLOT_ROPE_FREQ) return false;
    return hd_slot_exists(s, t->c, HD_SOURCE_HF, layer); // its conditions are the configuration's own
}

static inline hd_type tiny_type(const tiny_writer *t, const hd_slot *s, int64_t k)
{
    if (s->kind == HD_SLOT_NORM || s->kind == HD_SLOT_BIAS || s->kind == HD_SLOT_ROUTER) return HD_F32;
    if (k % hd_format_get((int)t->o->type)->block == 0) return t->o->type;
    return k % 32 == 0 ? HD_Q8_0 : HD_BF16;
}

/* Layers add nothing, the extra one passes the embedding on, and the head is sure of what it says. */
static inline void tiny_foresee(const hd_slot *s, int64_t row, int64_t k, float *x)
{
    bool out = strstr(s->gguf, "attn_output") || strstr(s->gguf, "ffn_down"), join = strstr(s->gguf, "eh_proj");
    for (int64_t i = 0; i < k; i++) {
        if (s->kind == HD_SLOT_NORM) x[i] = 1;
        else if (out) x[i] = 0;
        else if (join) x[i] = i == row;
        else if (strcmp(s->gguf, "output.weight") == 0) x[i] *= 8;
    }
}

static inline hd_status tiny_rows(tiny_writer *t, const hd_slot *s, hd_type type, int64_t rows, int64_t k)
{
    hd_status st = HD_OK;
    const hd_format *f = hd_format_get((int)type);
    size_t row_bytes = 0;
    float x[1024];
    uint8_t q[4096];
    if (k > 1024 || !hd_format_row_bytes(f, k, &row_bytes)) abort();
    bool vector = s->kind == HD_SLOT_NORM || s->kind == HD_SLOT_BIAS;
    float mean = s->kind == HD_SLOT_NORM ? 1.0f : 0.0f;
    float dev = s->kind == HD_SLOT_EMBED ? 1.0f : vector ? 0.2f : 1.5f / sqrtf((float)k);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; t->o->seed && i < k; i++) x[i] = mean + dev * hd_rng_normal(&t->rng);
        if (t->o->foresees) tiny_foresee(s, r, k, x);
        if (f->quant && t->o->seed) f->quant(q, x, k, NULL);
        else memset(q, 0, row_bytes);
        HD_TRY(hd_gguf_write(t->w, q, row_bytes, t->err));
    }
fail:
    return st;
}

static inline hd_status tiny_slot(tiny_writer *t, const hd_slot *s, int layer, bool declare)
{
    char name[128];
    int64_t dim[3] = {1, hd_dim_size(t->c, s->rows), hd_dim_size(t->c, s->cols)}, n_rows;
    bool vector = s->cols == HD_DIM_NONE;
    int n_dims = vector ? 1 : 2;
    if (s->kind == HD_SLOT_EXPERT) dim[0] = t->c->n_experts, n_dims = 3;
    if (s->kind == HD_SLOT_K_B || s->kind == HD_SLOT_V_B) dim[0] = t->c->n_heads, n_dims = 3;
    if (vector) dim[2] = dim[1], dim[1] = 1;
    hd_type type = tiny_type(t, s, dim[2]);
    hd_slot_name(name, s->gguf, layer, 0);
    if (t->o->leave_out && !strcmp(name, t->o->leave_out)) return HD_OK;
    if (t->o->one_more && !strcmp(name, t->o->one_more)) dim[vector ? 2 : 1]++;
    if (t->o->as_bytes && !strcmp(name, t->o->as_bytes)) type = HD_I8;
    n_rows = dim[0] * dim[1];
    if (!declare) return t->rows(t, s, type, n_rows, dim[2]);
    return hd_gguf_put_tensor(t->w, name, type, n_dims, dim + 3 - n_dims, t->err);
}

static inline hd_status tiny_walk(tiny_writer *t, bool declare)
{
    hd_status st = HD_OK;
    for (int i = 0; i < t->a->n_slots; i++)
        for (int il = 0; il < hd_slot_layers(&t->a->slots[i], t->c); il++)
            if (tiny_has(t, &t->a->slots[i], il)) HD_TRY(tiny_slot(t, &t->a->slots[i], il, declare));
fail:
    return st;
}

/* t: of which config, options, error, rows and vocabulary are set. */
static inline hd_status tiny_write_by(tiny_writer *t, const char *path)
{
    hd_status st;
    hd_rng_seed(&t->rng, t->o->seed, 1);
    HD_TRY(hd_arch_find(&t->a, t->c, t->err));
    HD_TRY(hd_gguf_writer_open(&t->w, path, t->err));
    HD_TRY(tiny_keys(t));
    HD_TRY(t->vocab(t));
    HD_TRY(tiny_walk(t, true));
    HD_TRY(hd_gguf_begin_data(t->w, t->err));
    HD_TRY(tiny_walk(t, false));
    HD_TRY(hd_gguf_commit(t->w, t->err));
fail:
    hd_gguf_writer_close(t->w);
    return st;
}

static inline hd_status tiny_write(const char *path, const tiny_opts *o, hd_err *err)
{
    hd_config c = tiny_config(o);
    tiny_writer t = {.c = &c, .o = o, .err = err, .rows = tiny_rows, .vocab = tiny_vocab};
    return tiny_write_by(&t, path);
}

#endif
