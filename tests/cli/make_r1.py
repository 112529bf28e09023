"""DeepSeek-R1 in its real size and shapes, as sparse files that take up almost nothing: make_r1.py gguf|hf DIR.

Shapes follow the published configuration of DeepSeek-V3 and R1 (arXiv:2412.19437, section 4.2; the config.json beside the
weights): 61 layers, 256 experts, one multi-token-prediction layer.  No weight is written; holes read as zeros."""
import json
import os
import struct
import sys

D, V, FFN, MOE, E, H, LAYERS, DENSE = 7168, 129280, 18432, 2048, 256, 128, 61, 3
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "bos_token_id": 0, "eos_token_id": 1,
    "hidden_act": "silu", "hidden_size": D, "intermediate_size": FFN, "vocab_size": V, "num_hidden_layers": LAYERS,
    "num_attention_heads": H, "num_key_value_heads": H, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": E, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": MOE,
    "moe_layer_freq": 1, "first_k_dense_replace": DENSE, "n_group": 8, "topk_group": 4, "topk_method": "noaux_tc",
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "num_nextn_predict_layers": 1,
    "rope_theta": 10000, "tie_word_embeddings": False, "attention_bias": False,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                            "weight_block_size": [128, 128]},
}
ATTN = [("q_a_proj", "attn_q_a", [1536, D]), ("q_b_proj", "attn_q_b", [H * 192, 1536]),
        ("kv_a_proj_with_mqa", "attn_kv_a_mqa", [576, D]), ("kv_b_proj", "attn_kv_b", [H * 256, 512]),
        ("o_proj", "attn_output", [D, H * 128])]


# ---- Hugging Face: FP8 with a scale for each block of 128 x 128 ----

def hf_tensors():
    def fp8(name, shape):
        yield name, "F8_E4M3", shape
        yield name + "_scale_inv", "F32", [-(-shape[0] // 128), -(-shape[1] // 128)]

    def mlp(prefix, width):
        yield from fp8(prefix + "gate_proj.weight", [width, D])
        yield from fp8(prefix + "up_proj.weight", [width, D])
        yield from fp8(prefix + "down_proj.weight", [D, width])

    yield "model.embed_tokens.weight", "BF16", [V, D]
    for i in range(LAYERS + 1):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", "BF16", [D]
        yield p + "post_attention_layernorm.weight", "BF16", [D]
        for name, _, shape in ATTN:
            yield from fp8(p + f"self_attn.{name}.weight", shape)
        yield p + "self_attn.q_a_layernorm.weight", "BF16", [1536]
        yield p + "self_attn.kv_a_layernorm.weight", "BF16", [512]
        if i < DENSE:
            yield from mlp(p + "mlp.", FFN)
            continue
        yield p + "mlp.gate.weight", "BF16", [E, D]
        yield p + "mlp.gate.e_score_correction_bias", "F32", [E]
        yield from mlp(p + "mlp.shared_experts.", MOE)
        for e in range(E):
            yield from mlp(p + f"mlp.experts.{e}.", MOE)
        if i == LAYERS:
            yield p + "enorm.weight", "BF16", [D]
            yield p + "hnorm.weight", "BF16", [D]
            yield p + "eh_proj.weight", "BF16", [D, 2 * D]
            yield p + "embed_tokens.weight", "BF16", [V, D]
            yield p + "shared_head.norm.weight", "BF16", [D]
            yield p + "shared_head.head.weight", "BF16", [V, D]
    yield "model.norm.weight", "BF16", [D]
    yield "lm_head.weight", "BF16", [V, D]


def hf(folder):
    bytes_of = {"F8_E4M3": 1, "BF16": 2, "F32": 4}
    shards, at = [{}], 0
    for name, dtype, shape in hf_tensors():
        size = bytes_of[dtype]
        for d in shape:
            size *= d
        if at + size > 4.3e9:
            shards.append({})
            at = 0
        shards[-1][name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    where, total = {}, 0
    for k, shard in enumerate(shards):
        file = f"model-{k + 1:05d}-of-{len(shards):06d}.safetensors"
        end = max(t["data_offsets"][1] for t in shard.values())
        head = json.dumps(shard).encode()
        head += b" " * (-len(head) % 8)
        with open(os.path.join(folder, file), "wb") as f:
            f.write(struct.pack("<Q", len(head)) + head)
            f.truncate(8 + len(head) + end)
        where.update(dict.fromkeys(shard, file))
        total += end
    for name, value in [("config.json", CONFIG),
                        ("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})]:
        with open(os.path.join(folder, name), "w") as f:
            json.dump(value, f)


# ---- GGUF: deepseek2, Q4_K with Q6_K downward matrices, in parts ----

F32, Q4_K, Q6_K = 0, 12, 14
BLOCK = {F32: (1, 4), Q4_K: (256, 144), Q6_K: (256, 210)}


def gguf_tensors():
    yield "token_embd.weight", Q4_K, [V, D]
    for i in range(LAYERS):
        p = f"blk.{i}."
        for name, n in [("attn_norm", D), ("ffn_norm", D), ("attn_q_a_norm", 1536), ("attn_kv_a_norm", 512)]:
            yield p + name + ".weight", F32, [n]
        for _, name, shape in ATTN:
            yield p + name + ".weight", Q4_K, shape
        if i < DENSE:
            kinds = [("", [], FFN)]
        else:
            yield p + "ffn_gate_inp.weight", F32, [E, D]
            yield p + "exp_probs_b.bias", F32, [E]
            kinds = [("_exps", [E], MOE), ("_shexp", [], MOE)]
        for kind, stack, width in kinds:
            yield p + f"ffn_gate{kind}.weight", Q4_K, stack + [width, D]
            yield p + f"ffn_up{kind}.weight", Q4_K, stack + [width, D]
            yield p + f"ffn_down{kind}.weight", Q6_K, stack + [D, width]
    yield "output_norm.weight", F32, [D]
    yield "output.weight", Q6_K, [V, D]


def key(name, value):
    kind, fmt = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f"), str: (8, None)}[type(value)]
    body = struct.pack(fmt, value) if fmt else struct.pack("<Q", len(value)) + value.encode()
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + body


def gguf(folder):
    keys = [("general.architecture", "deepseek2"), ("general.name", "DeepSeek R1")]
    keys += [("deepseek2." + k, v) for k, v in {
        "block_count": LAYERS, "context_length": 163840, "embedding_length": D, "feed_forward_length": FFN,
        "attention.head_count": H, "attention.head_count_kv": H, "rope.freq_base": 10000.0,
        "attention.layer_norm_rms_epsilon": 1e-6, "expert_used_count": 8, "leading_dense_block_count": DENSE,
        "vocab_size": V, "attention.q_lora_rank": 1536, "attention.kv_lora_rank": 512, "attention.key_length": 192,
        "attention.value_length": 128, "expert_feed_forward_length": MOE, "expert_count": E, "expert_shared_count": 1,
        "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_gating_func": 2, "rope.dimension_count": 64,
        "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_log_multiplier": 0.1}.items()]
    tensors, parts = list(gguf_tensors()), 9
    per = -(-len(tensors) // parts)
    for k in range(parts):
        own = keys if k == 0 else []
        own = own + [("split.no", k), ("split.count", parts), ("split.tensors.count", len(tensors))]
        mine, at, infos = tensors[k * per:(k + 1) * per], 0, b""
        for name, kind, shape in mine:
            n = 1
            for d in shape:
                n *= d
            infos += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
            infos += b"".join(struct.pack("<Q", d) for d in reversed(shape)) + struct.pack("<IQ", kind, at)
            at += n // BLOCK[kind][0] * BLOCK[kind][1]
            at += -at % 32
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(mine), len(own)) + b"".join(key(*kv) for kv in own) + infos
        head += b"\0" * (-len(head) % 32)
        with open(os.path.join(folder, f"r1-{k + 1:05d}-of-{parts:05d}.gguf"), "wb") as f:
            f.write(head)
            f.truncate(len(head) + at)


os.makedirs(sys.argv[2], exist_ok=True)
{"gguf": gguf, "hf": hf}[sys.argv[1]](sys.argv[2])
