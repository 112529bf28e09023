"""make_hostile.py DIR: models that lie, one file or directory each, named after the lie; every one must be refused.

They begin as the tiny models of tests/failalloc/make_models.py.  The mechanisms are those of published holes in readers of
GGUF: lengths and counts that wrap, products of dimensions, offsets past the file, zero dimensions, divisors of zero."""
import json
import os
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "failalloc"))
import make_models  # noqa: E402

out = sys.argv[1]
base = os.path.join(out, "..", "base")
os.makedirs(out, exist_ok=True)
os.makedirs(base, exist_ok=True)
make_models.llama(os.path.join(base, "llama.gguf"))
make_models.qwen2(os.path.join(base, "qwen2"))
good = open(os.path.join(base, "llama.gguf"), "rb").read()
EVIL = {"zero": 0, "max32": 2**32 - 1, "2to61": 2**61, "2to63": 2**63, "max": 2**64 - 1, "pattern": 0x1D1D1D1D1D1D1D1D}


def save(name, data):
    with open(os.path.join(out, name + ".gguf"), "wb") as f:
        f.write(data)


def patch(at, value, width):
    return good[:at] + struct.pack({4: "<I", 8: "<Q"}[width], value & (256**width - 1)) + good[at + width:]


def after(text):
    """The byte behind a key or a tensor's name."""
    at = good.index(struct.pack("<Q", len(text)) + text.encode())
    return at + 8 + len(text)


def set_key(key, value):
    """A u32 key's new value."""
    return patch(after(key) + 4, value, 4)


# The head
save("empty", b"")
save("magic-alone", b"GGUF")
for n in (1, 5, 23, 30, 100):
    save(f"first-{n}-bytes", good[:n])
for version in (0, 1, 4, 0x03000000):
    save(f"version-{version}", patch(4, version, 4))
for name, v in EVIL.items():
    if v:
        save(f"tensors-{name}", patch(8, v, 8))
        save(f"keys-{name}", patch(16, v, 8))
        save(f"key-length-{name}", patch(24, v, 8))
        save(f"string-length-{name}", patch(after("general.architecture") + 4, v, 8))
        save(f"tokens-{name}", patch(after("tokenizer.ggml.tokens") + 8, v, 8))
        save(f"token-length-{name}", patch(after("tokenizer.ggml.tokens") + 16, v, 8))
    # A tensor: name, number of dimensions, dimensions (innermost first), type, offset
    t = after("blk.0.attn_q.weight")
    save(f"n-dims-{name}", patch(t, v, 4))
    save(f"dim-{name}", patch(t + 4, v, 8))
    save(f"outer-dim-{name}", patch(t + 12, v, 8))
    if v:
        save(f"offset-{name}", patch(t + 24, v & ~31, 8))
save("string-length-file", patch(after("general.architecture") + 4, len(good) + 1, 8))
save("arrays-of-arrays", patch(after("tokenizer.ggml.tokens") + 4, 9, 4))
save("array-of-type-99", patch(after("tokenizer.ggml.tokens") + 4, 99, 4))
save("value-of-type-99", patch(after("general.architecture"), 99, 4))
t = after("blk.0.attn_q.weight")
save("product-wraps", good[:t + 4] + struct.pack("<QQ", 2**32, 2**32) + good[t + 20:])
save("bytes-wrap", good[:t + 4] + struct.pack("<QQ", 2**31, 2**31) + good[t + 20:])
save("exabyte-tensor", good[:t + 4] + struct.pack("<QQ", 2**30, 2**30) + good[t + 20:])
save("offset-one-past", patch(t + 24, len(good), 8))
save("offset-unaligned", patch(t + 24, 33, 8))
save("overlap", patch(t + 24, 32, 8))
for kind in (4, 5, 31, 36, 99, 1000, 2**31, 2**32 - 1):
    save(f"tensor-type-{kind}", patch(t + 20, kind, 4))
save("blocks-do-not-fit", patch(t + 20, 12, 4))  # rows of 64 numbers in blocks of 256
for v in (0, 3, 4, 12, 2**31, 2**32 - 1):
    body = struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, v)
    save(f"alignment-{v}", good[:16] + struct.pack("<Q", struct.unpack_from("<Q", good, 16)[0] + 1) + body + good[24:])
save("data-missing", good[:-100])
# Names
save("twice-a-tensor", good.replace(b"blk.1.attn_k.weight", b"blk.1.attn_v.weight", 1))
save("twice-a-key", good.replace(b"tokenizer.ggml.eos_token_id", b"tokenizer.ggml.bos_token_id", 1))
save("escape-in-a-name", good.replace(b"blk.1.attn_k.weight", b"blk.1\x1b[2J_k.weight", 1))
save("no-utf8-in-a-name", good.replace(b"blk.1.attn_k.weight", b"blk.1.att\xff\xfe.weight", 1))
save("missing-weight", good.replace(b"blk.1.attn_k.weight", b"blk.1.nothing.weigh", 1))
# Settings
for key in ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "rope.dimension_count",
            "feed_forward_length", "context_length"):
    for v in (0, 7, 2**31 - 1, 2**31, 2**32 - 1):
        if (key, v) != ("context_length", 7) and (key, v) != ("context_length", 2**31 - 1):
            save(f"{key}-{v}", set_key("llama." + key, v))
save("unknown-architecture", good.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamma", 1))
# Parts
save("part-00001-of-00002", good)
save("part-00003-of-00002", good[:50])
save("part-00001-of-99999", good)


# Directories
def folder(name, config=None, tensors=None, index=None, raw=None):
    d = os.path.join(out, name)
    os.makedirs(d)
    q = os.path.join(base, "qwen2")
    for f in os.listdir(q):
        with open(os.path.join(q, f), "rb") as src, open(os.path.join(d, f), "wb") as dst:
            dst.write(src.read())
    if config is not None:
        with open(os.path.join(d, "config.json"), "wb") as f:
            f.write(config)
    if index is not None:
        with open(os.path.join(d, "model.safetensors.index.json"), "w") as f:
            json.dump({"weight_map": index}, f)
    if raw is not None:
        with open(os.path.join(d, "model.safetensors"), "wb") as f:
            f.write(raw)
    return d


head_n = struct.unpack("<Q", open(os.path.join(base, "qwen2", "model.safetensors"), "rb").read(8))[0]
whole = open(os.path.join(base, "qwen2", "model.safetensors"), "rb").read()
header = json.loads(whole[8:8 + head_n])
first = next(k for k in header if k != "__metadata__")


def tensors_file(name, change=None, text=None):
    h = json.loads(json.dumps(header))
    if change:
        h[first].update(change)
    t = text if text is not None else json.dumps(h).encode()
    folder(name, raw=struct.pack("<Q", len(t)) + t + whole[8 + head_n:])


for name, v in EVIL.items():
    folder(f"hf-header-{name}", raw=struct.pack("<Q", v) + whole[8:])
    tensors_file(f"hf-dim-{name}", {"shape": [v, 2]})
    tensors_file(f"hf-end-{name}", {"data_offsets": [0, v]})
    tensors_file(f"hf-begin-{name}-1", {"data_offsets": [v + 1, v + 2]})
tensors_file("hf-negative-dim", {"shape": [-1, 4]})
tensors_file("hf-float-dim", {"shape": [1.5, 4]})
tensors_file("hf-backwards", {"data_offsets": [100, 0]})
tensors_file("hf-eight-dims", {"shape": [1] * 8})
tensors_file("hf-dtype", {"dtype": "\x1b[31m"})
tensors_file("hf-deep", text=b"[" * 100_000)
tensors_file("hf-deep-object", text=b'{"a":' * 100_000)
tensors_file("hf-no-utf8", text=json.dumps(header).encode().replace(first.encode(), b"\xff\xfe" + first.encode()[2:], 1))
tensors_file("hf-twice", text=json.dumps(header).encode().replace(b"{", b'{"' + first.encode() + b'": {}, ', 1))
tensors_file("hf-nothing", text=b"")
folder("hf-cut", raw=whole[:-10])
folder("hf-more", raw=whole + b"more")
config = open(os.path.join(base, "qwen2", "config.json"), "rb").read()
folder("config-empty", config=b"")
folder("config-list", config=b"[]")
folder("config-cut", config=config[:-5])
folder("config-deep", config=b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
folder("config-many", config=b"[" + b"[]," * 5_000_000 + b"[]]")
folder("config-twice", config=config.replace(b"{", b'{"hidden_size": 1, "hidden_size": 2, ', 1))
folder("config-no-utf8", config=config.replace(b"{", b'{"a": "\xff\xfe", ', 1))
for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size", "intermediate_size"):
    for v in (0, -1, 1.5, 2**31, 2**63 - 1, "8", [1]):
        c = json.loads(config)
        c[key] = v
        folder(f"config-{key}-{v}".replace("[", "").replace("]", "l"), config=json.dumps(c).encode())
for name, to in {"up": "../model.safetensors", "absolute": "/etc/passwd", "hidden": ".model.safetensors", "other": "config.json",
                 "missing": "model-2.safetensors", "number": 3}.items():
    folder(f"index-{name}", index={k: to for k in header if k != "__metadata__"})
d = folder("link-loop")
os.remove(os.path.join(d, "model.safetensors"))
os.symlink("model.safetensors", os.path.join(d, "model.safetensors"))
os.symlink("loop.gguf", os.path.join(out, "loop.gguf"))
os.symlink("/dev/zero", os.path.join(out, "zero.gguf"))
d = folder("fifo-inside")
os.remove(os.path.join(d, "model.safetensors"))
os.mkfifo(os.path.join(d, "model.safetensors"))
d = folder("fifo-config")
os.remove(os.path.join(d, "config.json"))
os.mkfifo(os.path.join(d, "config.json"))
os.mkfifo(os.path.join(out, "fifo.gguf"))
os.makedirs(os.path.join(out, "empty-folder"))
