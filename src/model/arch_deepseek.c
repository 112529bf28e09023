/* DeepSeek-V2 (arXiv:2405.04434) and V3 (arXiv:2412.19437): multi-head latent attention, experts after the
 * first dense layers, and V3's layer of multi-token prediction behind the last one.
 *
 * Both share one table: what differs (router scores, correction bias, MTP) is told by the configuration.
 * GGUF knows both as `deepseek2`; its older files hold kv_b as one tensor, newer ones as k_b (transposed
 * per head) and v_b. */
#include "model/arch_rows.h"

// clang-format off
static const hd_slot slots[] = {
    HD_MODEL_ROWS,

    NORM(attn_norm, "input_layernorm.weight", "attn_norm.weight", MODEL, 0, 0),
    MATRIX(q_b, "self_attn.q_proj.weight", "attn_q.weight", QK, MODEL, HD_IF_NO_Q_LORA, 0),
    MATRIX(q_a, "self_attn.q_a_proj.weight", "attn_q_a.weight", Q_LORA, MODEL, HD_IF_Q_LORA, 0),
    BIAS(q_a.bias, "self_attn.q_a_proj.bias", "attn_q_a.bias", Q_LORA, HD_IF_Q_LORA | HD_IF_QKV_BIAS, 0),
    NORM(q_a_norm, "self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight", Q_LORA, HD_IF_Q_LORA, 0),
    MATRIX(q_b, "self_attn.q_b_proj.weight", "attn_q_b.weight", QK, Q_LORA, HD_IF_Q_LORA, 0),
    MATRIX(kv_a, "self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight", KV_A, MODEL, 0, 0),
    BIAS(kv_a.bias, "self_attn.kv_a_proj_with_mqa.bias", "attn_kv_a_mqa.bias", KV_A, HD_IF_QKV_BIAS, 0),
    NORM(kv_a_norm, "self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight", KV_LORA, 0, 0),
    KV_B(k_b, "self_attn.kv_b_proj.weight", "attn_kv_b.weight", KV_B, KV_LORA),
    SPLIT(k_b, "attn_k_b.weight", KV_LORA, NOPE, HD_SLOT_K_B),
    SPLIT(v_b, "attn_v_b.weight", V_HEAD, KV_LORA, HD_SLOT_V_B),
    MATRIX(o, "self_attn.o_proj.weight", "attn_output.weight", MODEL, V, 0, 0),
    BIAS(o.bias, "self_attn.o_proj.bias", "attn_output.bias", MODEL, HD_IF_O_BIAS, 0),

    NORM(ffn_norm, "post_attention_layernorm.weight", "ffn_norm.weight", MODEL, 0, 0),
    MATRIX(ffn.gate, "mlp.gate_proj.weight", "ffn_gate.weight", FFN, MODEL, HD_IF_DENSE, 0),
    MATRIX(ffn.up, "mlp.up_proj.weight", "ffn_up.weight", FFN, MODEL, HD_IF_DENSE, 0),
    MATRIX(ffn.down, "mlp.down_proj.weight", "ffn_down.weight", MODEL, FFN, HD_IF_DENSE, 0),

    ROUTER(router, "mlp.gate.weight", "ffn_gate_inp.weight", EXPERTS, MODEL, HD_IF_MOE),
    BIAS(router_bias, "mlp.gate.e_score_correction_bias", "exp_probs_b.bias", EXPERTS, HD_IF_MOE | HD_IF_CORRECTION, 0),
    MATRIX(ffn.gate, "mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight", SHARED_FFN, MODEL, HD_IF_SHARED, 0),
    MATRIX(ffn.up, "mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight", SHARED_FFN, MODEL, HD_IF_SHARED, 0),
    MATRIX(ffn.down, "mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight", MODEL, SHARED_FFN, HD_IF_SHARED, 0),
    EXPERT(gate, "mlp.experts.%d.gate_proj.weight", "ffn_gate_exps.weight", "ffn_gate.%d.weight", EXPERT_FFN, MODEL),
    EXPERT(up, "mlp.experts.%d.up_proj.weight", "ffn_up_exps.weight", "ffn_up.%d.weight", EXPERT_FFN, MODEL),
    EXPERT(down, "mlp.experts.%d.down_proj.weight", "ffn_down_exps.weight", "ffn_down.%d.weight", MODEL, EXPERT_FFN),

    MATRIX(eh_proj, "eh_proj.weight", "nextn.eh_proj.weight", MODEL, 2MODEL, HD_IF_MTP, 0),
    NORM(enorm, "enorm.weight", "nextn.enorm.weight", MODEL, HD_IF_MTP, 0),
    NORM(hnorm, "hnorm.weight", "nextn.hnorm.weight", MODEL, HD_IF_MTP, 0),
    NORM(head_norm, "shared_head.norm.weight", "nextn.shared_head_norm.weight", MODEL, HD_IF_MTP, HD_SLOT_OPTIONAL),
};
// clang-format on

const hd_arch hd_arch_deepseek_v2 = {"DeepseekV2ForCausalLM", "deepseek2", slots, sizeof slots / sizeof slots[0]};
const hd_arch hd_arch_deepseek_v3 = {"DeepseekV3ForCausalLM", "deepseek2", slots, sizeof slots / sizeof slots[0]};
