"""A model that thinks, made here: thinker.py FILE writes a GGUF file in which every id has one successor.

Ids are one-hot vectors, blocks add nothing, and the head holds the successors: so whatever is asked, it thinks "abc...z" behind
"<think>\\n" and answers "word 0, word 1, ... " up to the end of the turn, in DeepSeek-R1's chat format.  The words are tokens that no
text is cut into; told again they are letters, as with models that spell in their own way.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "failalloc"))
import make_models as models  # noqa: E402

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
SPECIAL = [EOS, BOS, USER, ASSISTANT, "<think>", "</think>"]
WORDS = [f"word {i}, " for i in range(40)]
THOUGHT, ANSWER = "".join(map(chr, range(ord("a"), ord("z") + 1))), "".join(WORDS)
TEMPLATE = ("{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
            "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}"
            "{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}"
            "{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}"
            "{% set ns.system_prompt = ns.system_prompt + '\n\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}"
            "{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}"
            "{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}"
            "{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
            "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
            "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
            "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}")
LAYERS, WIDTH, HEADS = 1, 384, 6


def write(path):
    spell = models.byte_alphabet()
    tokens = list(spell)
    tokens += ["".join(spell[b] for b in w.encode()) for w in WORDS] + SPECIAL + ["qq"]
    at = {t: i for i, t in enumerate(tokens)}
    words = [256 + i for i in range(len(WORDS))]
    chain = [ord("\n")] + [ord(c) for c in THOUGHT] + [at["</think>"]] + words + [at[EOS]]
    after = {t: at[EOS] for t in range(len(tokens))}
    after.update(zip(chain, chain[1:]))
    after[at["<think>"]] = ord("\n")
    eye = [[float(r == c) for c in range(WIDTH)] for r in range(len(tokens))]
    head = [[0.0] * WIDTH for _ in tokens]
    for t, u in after.items():
        head[u][t] = 4.0
    given = {"token_embd.weight": eye, "output.weight": head}

    def weights(name, shape):
        if name in given:
            return [x for row in given[name] for x in row]
        n = 1
        for d in shape:
            n *= d
        return [1.0 if "norm" in name else 0.0] * n

    models.weights, models.VOCAB = weights, len(tokens)
    keys = models.common_keys("llama", WIDTH, 64, LAYERS, HEADS)
    keys |= {"llama.attention.head_count_kv": HEADS, "llama.rope.dimension_count": WIDTH // HEADS, "llama.context_length": 2048,
             "general.name": "thinker", "tokenizer.ggml.pre": "deepseek-r1-qwen", "tokenizer.ggml.tokens": tokens,
             "tokenizer.ggml.token_type": [3 if t in SPECIAL else 1 for t in tokens], "tokenizer.ggml.merges": ["q q"],
             "tokenizer.ggml.eos_token_id": at[EOS], "tokenizer.ggml.bos_token_id": at[BOS], "tokenizer.ggml.add_bos_token": True,
             "tokenizer.chat_template": TEMPLATE}
    t, d = [("token_embd.weight", (len(tokens), WIDTH)), ("output_norm.weight", (WIDTH,)), ("output.weight", (len(tokens), WIDTH))], WIDTH
    for i in range(LAYERS):
        b = f"blk.{i}."
        t += [(b + "attn_norm.weight", (d,)), (b + "attn_q.weight", (d, d)), (b + "attn_k.weight", (d, d)), (b + "attn_v.weight", (d, d)),
              (b + "attn_output.weight", (d, d)), (b + "ffn_norm.weight", (d,)), (b + "ffn_gate.weight", (64, d)),
              (b + "ffn_up.weight", (64, d)), (b + "ffn_down.weight", (d, 64))]
    models.write_gguf(path, keys, t)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: thinker.py FILE")
    write(sys.argv[1])
