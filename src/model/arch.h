/* Architectures as tables: one row per weight says what it is called in both kinds of file, how large it is,
 * when it exists and where it lives in memory.  Loading, saving, conversion, quantisation rules and optimizer
 * groups all walk these rows; nothing else in the program spells a weight's name.
 *
 * A table is usable without a loaded model: names, shapes and conditions need only a configuration. */
#ifndef HD_MODEL_ARCH_H
#define HD_MODEL_ARCH_H

#include "model/source.h"

/* Lengths that appear in shapes. */
typedef enum {
    HD_DIM_NONE,      // unused second dimension: the weight is a vector
    HD_DIM_MODEL,     // d_model
    HD_DIM_2MODEL,    // 2 d_model: the MTP layer joins two states
    HD_DIM_VOCAB,
    HD_DIM_Q,         // n_heads * head_dim
    HD_DIM_KV,        // n_kv_heads * head_dim
    HD_DIM_HEAD,      // head_dim
    HD_DIM_HALF_HEAD, // rotary pairs of a head
    HD_DIM_FFN,
    HD_DIM_EXPERTS,
    HD_DIM_EXPERT_FFN,
    HD_DIM_SHARED_FFN, // n_shared_experts * moe_ffn
    HD_DIM_Q_LORA,
    HD_DIM_KV_LORA,
    HD_DIM_KV_A, // kv_lora_rank + qk_rope_head_dim
    HD_DIM_QK,   // n_heads * (qk_nope_head_dim + qk_rope_head_dim)
    HD_DIM_KV_B, // n_heads * (qk_nope_head_dim + v_head_dim)
    HD_DIM_V,    // n_heads * v_head_dim
    HD_DIM_HEADS,
    HD_DIM_NOPE,
    HD_DIM_V_HEAD,
} hd_dim;

typedef enum {
    HD_SLOT_MATRIX,    // [rows, cols], any weight format, multiplied
    HD_SLOT_EMBED,     // token embedding: rows are looked up
    HD_SLOT_HEAD,      // output matrix; absent when embeddings are tied
    HD_SLOT_ROUTER,    // matrix kept in f32: a tie broken otherwise picks another expert
    HD_SLOT_EXPERT,    // one matrix per expert; GGUF stacks them as [experts, rows, cols]
    HD_SLOT_KV_B,      // MLA: per head [nope, lora] keys, then [v, lora] values
    HD_SLOT_K_B,       // MLA, GGUF's split form: [heads, lora, nope], transposed already
    HD_SLOT_V_B,       // MLA, GGUF's split form: [heads, v, lora]
    HD_SLOT_NORM,      // vector, f32 in memory
    HD_SLOT_BIAS,      // vector, f32 in memory
    HD_SLOT_ROPE_FREQ, // GGUF: divisors of the rotary frequencies (how llama.cpp stores the llama3 rule)
} hd_slot_kind;

/* When a slot exists; all bits must hold. */
enum {
    HD_IF_DENSE = 1 << 0,     // layer with one feed-forward network
    HD_IF_MOE = 1 << 1,       // layer with experts
    HD_IF_SHARED = 1 << 2,    // such a layer with shared experts
    HD_IF_CORRECTION = 1 << 3, // noaux_tc: a bias per expert chooses
    HD_IF_Q_LORA = 1 << 4,    // queries through a latent
    HD_IF_NO_Q_LORA = 1 << 5,
    HD_IF_QKV_BIAS = 1 << 6,
    HD_IF_O_BIAS = 1 << 7,
    HD_IF_MLP_BIAS = 1 << 8,
    HD_IF_QK_NORM = 1 << 9,
    HD_IF_UNTIED = 1 << 10,
    HD_IF_MTP = 1 << 11,      // only in the multi-token-prediction layer
    HD_IF_GGUF = 1 << 12,     // only in GGUF
};

/* Facts about a slot. */
enum {
    HD_SLOT_ROTARY = 1 << 0,   // rows are rotated heads: GGUF `llama` files store them as adjacent pairs
    HD_SLOT_PRESENCE = 1 << 1, // GGUF has no key that says whether it exists: the tensor's presence decides
    HD_SLOT_OPTIONAL = 1 << 2, // may be absent anywhere
};

typedef struct {
    size_t field;       // offset in hd_layer, or in hd_model_weights for a slot without a layer (model/block.h)
    bool per_layer;
    const char *hf;     // name pattern: %d is the layer, a second %d the expert; NULL: not in this kind of file
    const char *gguf;   // experts: the stacked tensor
    const char *gguf_each; // experts: old files with one tensor each, or NULL
    hd_dim rows, cols;
    hd_slot_kind kind;
    unsigned when, flags;
} hd_slot;

typedef struct {
    const char *name;      // config.json "architectures"
    const char *gguf_name; // general.architecture
    const hd_slot *slots;
    int n_slots;
} hd_arch;

/* The table row for config.arch; an unknown one is HD_UNSUPPORTED and lists those that are known. */
hd_status hd_arch_find(const hd_arch **out, const hd_config *c, hd_err *err);
const hd_arch *hd_arch_at(int i); // walk the table; NULL past its end

int64_t hd_dim_size(const hd_config *c, hd_dim d); // 1 for HD_DIM_NONE
/* Does this weight exist in `layer` of a model with this configuration?  Slots with HD_IF_GGUF
 * exist only in GGUF. */
bool hd_slot_exists(const hd_slot *s, const hd_config *c, hd_source_kind kind, int layer);
/* Number of layers a slot may appear in: n_layers + n_mtp, or 1 for a slot without a layer. */
int hd_slot_layers(const hd_slot *s, const hd_config *c);
/* A pattern with its numbers put in; `expert` is ignored by patterns with one %d. */
void hd_slot_name(char out[128], const char *pattern, int layer, int expert);
/* Is `name` a weight of this architecture in this kind of file, whatever its numbers? */
bool hd_arch_knows(const hd_arch *a, hd_source_kind kind, const char *name);

extern const hd_arch hd_arch_deepseek_v2, hd_arch_deepseek_v3, hd_arch_qwen2, hd_arch_qwen3, hd_arch_llama;

#endif
