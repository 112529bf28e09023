/* Qwen2 (arXiv:2407.10671) and Qwen3 (arXiv:2505.09388): Llama's layer with biases on q, k, v (Qwen2), or
 * with an RMSNorm over each head of q and k before the rotation (Qwen3).  One table; the configuration
 * tells which rows exist.  R1's distillations use both.  Rows of q and k are in Hugging Face order in GGUF
 * too: halves rotate. */
#include "model/arch_rows.h"

// clang-format off
static const hd_slot slots[] = {
    HD_MODEL_ROWS,

    NORM(attn_norm, "input_layernorm.weight", "attn_norm.weight", MODEL, 0, 0),
    MATRIX(q, "self_attn.q_proj.weight", "attn_q.weight", Q, MODEL, 0, 0),
    BIAS(q.bias, "self_attn.q_proj.bias", "attn_q.bias", Q, HD_IF_QKV_BIAS, 0),
    MATRIX(k, "self_attn.k_proj.weight", "attn_k.weight", KV, MODEL, 0, 0),
    BIAS(k.bias, "self_attn.k_proj.bias", "attn_k.bias", KV, HD_IF_QKV_BIAS, 0),
    MATRIX(v, "self_attn.v_proj.weight", "attn_v.weight", KV, MODEL, 0, 0),
    BIAS(v.bias, "self_attn.v_proj.bias", "attn_v.bias", KV, HD_IF_QKV_BIAS, 0),
    NORM(q_norm, "self_attn.q_norm.weight", "attn_q_norm.weight", HEAD, HD_IF_QK_NORM, 0),
    NORM(k_norm, "self_attn.k_norm.weight", "attn_k_norm.weight", HEAD, HD_IF_QK_NORM, 0),
    MATRIX(o, "self_attn.o_proj.weight", "attn_output.weight", MODEL, Q, 0, 0),

    NORM(ffn_norm, "post_attention_layernorm.weight", "ffn_norm.weight", MODEL, 0, 0),
    MATRIX(ffn.gate, "mlp.gate_proj.weight", "ffn_gate.weight", FFN, MODEL, 0, 0),
    MATRIX(ffn.up, "mlp.up_proj.weight", "ffn_up.weight", FFN, MODEL, 0, 0),
    MATRIX(ffn.down, "mlp.down_proj.weight", "ffn_down.weight", MODEL, FFN, 0, 0),
};
// clang-format on

const hd_arch hd_arch_qwen2 = {"Qwen2ForCausalLM", "qwen2", slots, sizeof slots / sizeof slots[0]};
const hd_arch hd_arch_qwen3 = {"Qwen3ForCausalLM", "qwen3", slots, sizeof slots / sizeof slots[0]};
