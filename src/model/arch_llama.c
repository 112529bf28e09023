/* Llama (arXiv:2302.13971): grouped-query attention and SwiGLU; biases by choice, tied heads by choice.
 *
 * GGUF `llama` files store the rows of q and k so that the pairs that rotate together are adjacent
 * (HD_SLOT_ROTARY); the Hugging Face form rotates halves.  Both give the same products q.k, so the weights
 * stay as they are and only the rotation differs (config.rope.pairs).  The llama3 frequency rule arrives in
 * GGUF as ready divisors, `rope_freqs`. */
#include "model/arch_rows.h"

// clang-format off
static const hd_slot slots[] = {
    HD_MODEL_ROWS,

    NORM(attn_norm, "input_layernorm.weight", "attn_norm.weight", MODEL, 0, 0),
    MATRIX(q, "self_attn.q_proj.weight", "attn_q.weight", Q, MODEL, 0, HD_SLOT_ROTARY),
    BIAS(q.bias, "self_attn.q_proj.bias", "attn_q.bias", Q, HD_IF_QKV_BIAS, HD_SLOT_ROTARY),
    MATRIX(k, "self_attn.k_proj.weight", "attn_k.weight", KV, MODEL, 0, HD_SLOT_ROTARY),
    BIAS(k.bias, "self_attn.k_proj.bias", "attn_k.bias", KV, HD_IF_QKV_BIAS, HD_SLOT_ROTARY),
    MATRIX(v, "self_attn.v_proj.weight", "attn_v.weight", KV, MODEL, 0, 0),
    BIAS(v.bias, "self_attn.v_proj.bias", "attn_v.bias", KV, HD_IF_QKV_BIAS, 0),
    MATRIX(o, "self_attn.o_proj.weight", "attn_output.weight", MODEL, Q, 0, 0),
    BIAS(o.bias, "self_attn.o_proj.bias", "attn_output.bias", MODEL, HD_IF_O_BIAS, 0),

    NORM(ffn_norm, "post_attention_layernorm.weight", "ffn_norm.weight", MODEL, 0, 0),
    MATRIX(ffn.gate, "mlp.gate_proj.weight", "ffn_gate.weight", FFN, MODEL, 0, 0),
    BIAS(ffn.gate.bias, "mlp.gate_proj.bias", "ffn_gate.bias", FFN, HD_IF_MLP_BIAS, 0),
    MATRIX(ffn.up, "mlp.up_proj.weight", "ffn_up.weight", FFN, MODEL, 0, 0),
    BIAS(ffn.up.bias, "mlp.up_proj.bias", "ffn_up.bias", FFN, HD_IF_MLP_BIAS, 0),
    MATRIX(ffn.down, "mlp.down_proj.weight", "ffn_down.weight", MODEL, FFN, 0, 0),
    BIAS(ffn.down.bias, "mlp.down_proj.bias", "ffn_down.bias", MODEL, HD_IF_MLP_BIAS, 0),
};
// clang-format on

const hd_arch hd_arch_llama = {"LlamaForCausalLM", "llama", slots, sizeof slots / sizeof slots[0]};
