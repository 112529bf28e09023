#!/usr/bin/env python3
"""make_models.py DIR: writes tiny models with random weights into DIR, for tests that run a whole verb many times.

    llama.gguf      LlamaForCausalLM in f32, two layers of 64: grouped-query attention, tied head, ChatML
    deepseek.gguf   deepseek2 in f32 with a dense and a MoE layer, query latent, sigmoid router with groups
    qwen2/          Qwen2ForCausalLM in bf16 as a Hugging Face directory

Byte-level BPE over the 256 bytes and a few merges, so any text works.  Only Python's own library is used, and the numbers
come from a generator of our own: the files are the same everywhere.  The weights mean nothing; all that matters is that
every part of a model is there and small.
"""
import json
import os
import struct
import sys

STRING, ARRAY, U32, F32, BOOL, I32 = 8, 9, 4, 6, 7, 5
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġ t", "Ġt he"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def byte_alphabet():
    """GPT-2's spelling of the 256 bytes as printable characters."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in own else chr(next(spare)) for b in range(256)]


TOKENS = byte_alphabet() + [m.replace(" ", "") for m in MERGES] + SPECIAL
VOCAB = len(TOKENS)
END, TURN_END = TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")


class Random:
    """Numbers in (-1, 1) from a 64-bit congruential generator (Knuth's MMIX constants)."""

    def __init__(self):
        self.x = 1

    def next(self):
        self.x = (self.x * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.x >> 40) / 2**23 - 1


RANDOM = Random()


def weights(name, shape):
    """Norms near one, matrices so that rows keep the size of what they multiply."""
    n = 1
    for d in shape:
        n *= d
    if "norm" in name:
        return [1 + 0.1 * RANDOM.next() for _ in range(n)]
    scale = (3 / shape[-1]) ** 0.5
    return [scale * RANDOM.next() for _ in range(n)]


# ---- GGUF ----

def string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    if isinstance(v, str):
        return STRING, string(v)
    if isinstance(v, bool):
        return BOOL, struct.pack("<B", v)
    if isinstance(v, float):
        return F32, struct.pack("<f", v)
    if isinstance(v, list):
        kind = value(v[0])[0]
        return ARRAY, struct.pack("<IQ", kind, len(v)) + b"".join(value(x)[1] for x in v)
    return U32, struct.pack("<I", v)


def write_gguf(path, keys, tensors):
    """tensors: (name, shape outermost first); all f32."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for k, v in keys.items():
        kind, data = value(v)
        head += string(k) + struct.pack("<I", kind) + data
    data = b""
    for name, shape in tensors:
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", 0, len(data))
        w = weights(name, shape)
        data += struct.pack(f"<{len(w)}f", *w)
        data += bytes(-len(data) % 32)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + data)


def common_keys(arch, d, ffn, layers, heads):
    return {
        "general.architecture": arch, "general.name": "tiny " + arch, f"{arch}.block_count": layers,
        f"{arch}.context_length": 256, f"{arch}.embedding_length": d, f"{arch}.feed_forward_length": ffn,
        f"{arch}.attention.head_count": heads, f"{arch}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{arch}.rope.freq_base": 10000.0, f"{arch}.vocab_size": VOCAB,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3 if t in SPECIAL else 1 for t in TOKENS], "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": TURN_END, "tokenizer.ggml.bos_token_id": END,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": CHATML,
    }


def llama(path):
    d, ffn, layers, heads, kv, hd = 64, 96, 2, 4, 2, 16
    keys = common_keys("llama", d, ffn, layers, heads)
    keys |= {"llama.attention.head_count_kv": kv, "llama.rope.dimension_count": hd}
    t = [("token_embd.weight", (VOCAB, d)), ("output_norm.weight", (d,))]
    for i in range(layers):
        b = f"blk.{i}."
        t += [(b + "attn_norm.weight", (d,)), (b + "attn_q.weight", (heads * hd, d)), (b + "attn_k.weight", (kv * hd, d)),
              (b + "attn_v.weight", (kv * hd, d)), (b + "attn_output.weight", (d, heads * hd)), (b + "ffn_norm.weight", (d,)),
              (b + "ffn_gate.weight", (ffn, d)), (b + "ffn_up.weight", (ffn, d)), (b + "ffn_down.weight", (d, ffn))]
    write_gguf(path, keys, t)


def deepseek(path):
    d, ffn, layers, heads, q_lora, lora, nope, rope, v, experts, moe = 64, 96, 2, 2, 32, 32, 32, 16, 32, 8, 32
    keys = common_keys("deepseek2", d, ffn, layers, heads)
    a = "deepseek2."
    keys |= {
        a + "attention.head_count_kv": 1, a + "attention.q_lora_rank": q_lora, a + "attention.kv_lora_rank": lora,
        a + "attention.key_length": lora + rope, a + "attention.value_length": lora, a + "attention.key_length_mla": nope + rope,
        a + "attention.value_length_mla": v, a + "rope.dimension_count": rope, a + "leading_dense_block_count": 1,
        a + "expert_count": experts, a + "expert_used_count": 2, a + "expert_shared_count": 1,
        a + "expert_feed_forward_length": moe, a + "expert_weights_scale": 2.5, a + "expert_weights_norm": True,
        a + "expert_gating_func": 2, a + "expert_group_count": 4, a + "expert_group_used_count": 2,
    }
    t = [("token_embd.weight", (VOCAB, d)), ("output_norm.weight", (d,)), ("output.weight", (VOCAB, d))]
    for i in range(layers):
        b = f"blk.{i}."
        t += [(b + "attn_norm.weight", (d,)), (b + "attn_q_a.weight", (q_lora, d)), (b + "attn_q_a_norm.weight", (q_lora,)),
              (b + "attn_q_b.weight", (heads * (nope + rope), q_lora)), (b + "attn_kv_a_mqa.weight", (lora + rope, d)),
              (b + "attn_kv_a_norm.weight", (lora,)), (b + "attn_k_b.weight", (heads, lora, nope)),
              (b + "attn_v_b.weight", (heads, v, lora)), (b + "attn_output.weight", (d, heads * v)), (b + "ffn_norm.weight", (d,))]
        if i == 0:
            t += [(b + "ffn_gate.weight", (ffn, d)), (b + "ffn_up.weight", (ffn, d)), (b + "ffn_down.weight", (d, ffn))]
        else:
            t += [(b + "ffn_gate_inp.weight", (experts, d)), (b + "exp_probs_b.bias", (experts,)),
                  (b + "ffn_gate_shexp.weight", (moe, d)), (b + "ffn_up_shexp.weight", (moe, d)), (b + "ffn_down_shexp.weight", (d, moe)),
                  (b + "ffn_gate_exps.weight", (experts, moe, d)), (b + "ffn_up_exps.weight", (experts, moe, d)),
                  (b + "ffn_down_exps.weight", (experts, d, moe))]
    write_gguf(path, keys, t)


# ---- Hugging Face ----

def dump(path, obj):
    with open(path, "w") as f:
        json.dump(obj, f)


def qwen2(path):
    d, ffn, layers, heads, kv, hd = 64, 96, 2, 4, 2, 16
    os.makedirs(path, exist_ok=True)
    dump(path + "/config.json", {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": d, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "hidden_act": "silu", "torch_dtype": "bfloat16", "eos_token_id": TURN_END, "bos_token_id": END})
    added = [{"id": TOKENS.index(s), "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for s in SPECIAL]
    dump(path + "/tokenizer.json", {
        "version": "1.0", "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(TOKENS) if t not in SPECIAL}, "merges": MERGES}})
    dump(path + "/tokenizer_config.json", {"chat_template": CHATML, "eos_token": "<|im_end|>", "tokenizer_class": "Qwen2Tokenizer"})
    shapes = {"model.embed_tokens.weight": (VOCAB, d), "model.norm.weight": (d,)}
    for i in range(layers):
        b = f"model.layers.{i}."
        shapes |= {b + "input_layernorm.weight": (d,), b + "post_attention_layernorm.weight": (d,),
                   b + "self_attn.q_proj.weight": (heads * hd, d), b + "self_attn.q_proj.bias": (heads * hd,),
                   b + "self_attn.k_proj.weight": (kv * hd, d), b + "self_attn.k_proj.bias": (kv * hd,),
                   b + "self_attn.v_proj.weight": (kv * hd, d), b + "self_attn.v_proj.bias": (kv * hd,),
                   b + "self_attn.o_proj.weight": (d, heads * hd), b + "mlp.gate_proj.weight": (ffn, d),
                   b + "mlp.up_proj.weight": (ffn, d), b + "mlp.down_proj.weight": (d, ffn)}
    header, data = {}, b""
    for name, shape in shapes.items():
        w = weights(name, shape)
        part = b"".join(struct.pack("<f", x)[2:] for x in w)  # bf16: the upper half of an f32
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path + "/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_models.py DIR")
    os.makedirs(sys.argv[1], exist_ok=True)
    llama(sys.argv[1] + "/llama.gguf")
    deepseek(sys.argv[1] + "/deepseek.gguf")
    qwen2(sys.argv[1] + "/qwen2")
