#!/usr/bin/env python3
"""Makes tests/golden/tokenizer.json: ids by Hugging Face's tokenizers, for tests/unit/test_tokenizer.c.

    make_tokenizer.py > tests/golden/tokenizer.json       needs tokenizers

One small vocabulary (byte-level BPE, trained on TRAINING) is used with the normalizers and pre-tokenizers of the models
that hadal knows; the test puts the same parts together, as tokenizer.json and, where `pre` names them, as GGUF.  Texts
that are not UTF-8 are given in hexadecimal; tokenizers sees them with U+FFFD for what is invalid.

Special tokens are looked for but left as text (encode_special_tokens), which is what hadal does with what users type.
"""
import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TRAINING = """
The tokenizer cuts a text into words, and every word into the pieces that it knows. It's the reader's first step; they'll
see that we've done it with care, and I'd say you're right. THE END, WE'LL SEE.
Le lecteur coupe le texte en mots, et chaque mot en morceaux déjà connus : c'est la première étape, l'été, où ça naît.
模型先把文本切成词，再把每个词切成已知的片段。这是第一步，读者会看到我们很仔细。你好，世界！
Модель сначала режет текст на слова, а каждое слово на известные куски. Это первый шаг.
モデルはまずテキストを単語に切り、それから既知の断片に切ります。한국어 문장도 하나 있습니다.
for (int i = 0; i < n; i++) { sum += x[i] * y[i]; }    // a loop, 100 times, 1234567 steps in 2024
def step(self, x):\n        return self.scale * x + self.bias  # two spaces\n\n\n    if x == 3.14159: pass
""".replace("\\n", "\n")

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern, behavior="Isolated", invert=False, literal=False):
    return {"type": "Split", "pattern": {"String" if literal else "Regex": pattern}, "behavior": behavior, "invert": invert}


def bytes_level(use_regex, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": False, "use_regex": use_regex}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


NFC = {"type": "NFC"}
CONFIGS = [
    ("deepseek-v3", "deepseek-v3", None, sequence(split(r"\p{N}{1,3}"), split(r"[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3),
                                                 bytes_level(False)), False),
    ("qwen2", "qwen2", NFC, sequence(split(QWEN), bytes_level(False)), False),
    ("r1-qwen", "deepseek-r1-qwen", NFC, sequence(split(QWEN), bytes_level(False)), False),
    ("llama3", "llama-bpe", None, sequence(split(LLAMA), bytes_level(False)), True),
    ("gpt2", "gpt-2", None, bytes_level(True), False),
    ("smollm", "smollm", None, sequence({"type": "Digits", "individual_digits": True}, bytes_level(True)), False),
    ("deepseek-coder", "deepseek-coder", None, sequence(
        split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
        {"type": "Digits", "individual_digits": True}, bytes_level(False)), False),
    ("removed", None, {"type": "Sequence", "normalizers": [{"type": "NFKC"}]},
     sequence(split(" ", "Removed", literal=True), bytes_level(False)), False),
    ("previous", None, {"type": "NFD"}, sequence(split(r"[,.;]+", "MergedWithPrevious"), bytes_level(False)), False),
    ("next", None, {"type": "NFKD"}, sequence(split(r"\s", "MergedWithNext"), bytes_level(False)), False),
    ("contiguous", None, None, sequence(split(r"\p{L}", "Contiguous", True), bytes_level(False)), False),
    ("prefix", None, None, bytes_level(True, True), False),
]

TEXTS = [
    "", " ", "a", "\n", "Hello, world!", " The reader's THE END, WE'LL'll ſ'ſ 'S", "l'été où ça naît, déjà vu : œuvre",
    "模型先把文本切成词。Hello世界1234567，２０２４年", "Модель режет ТЕКСТ", "モデルはテキスト・한국어 문장",
    "for (int i = 0; i < n; i++) {\r\n\tsum += x[i]*y[i];\r\n\r\n}  // 100 times", "   leading,  double,   triple   ",
    "tabs\t\tand\u3000wide\u00a0spaces\u2028line\x85next\x0b\x0c", "\n\n \n  \n x \n", "😀👩‍💻🇫🇷👍🏽1️⃣☺️",
    "e\u0301te\u0301 Å \u212b ﬁ ½ ² ﷺ 각 \u1112\u1161\u11ab \u0301\u0323 q\u0323\u0307 q\u0307\u0323",
    "३४५ ٣٤٥ Ⅳ ⅷ ① 1½ 3.14159 1e-7 0x1F", "ᾳͅ ǅ ʰ ª नमस्ते ไทย אבג العربية", "\u200b\u200c\u200d\ufeff\u00ad",
    "a" * 70 + "b" * 200, " " * 100 + "x", "the" * 60, "!?" * 50, "0" * 30, "中" * 40, "\u0301" * 70, "x\n" * 20,
    "<think>maybe</think> <thinking> <|end|> <|end| <｜User｜> x<|end|>y", "a <sp> b<sp>c  <sp>  d", "word wordy swordy word!",
    "normé normé <E\u0301> <\u00c9>", "\U0001f9d1\U00010348\U000e0041 \U0002a6d6\U00010ffd",
]
BROKEN = ["ff", "61ff62", "c0806180", "e282", "f09f98", "eda080", "f4908080", "e4b8e4b8ad", "c3c3a9", "80bf", "f8888080806f6b",
          "7468655fe2"]
ADDED = [("<think>", False, {}), ("</think>", False, {}), ("<|end|>", True, {}), ("<｜User｜>", True, {}),
         ("<sp>", False, {"lstrip": True, "rstrip": True}), ("word", False, {"single_word": True}),
         ("<\u00c9>", False, {"normalized": True})]


def train():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([TRAINING] * 2, trainers.BpeTrainer(vocab_size=620, show_progress=False,
                          initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return json.loads(t.to_str())["model"]


def main():
    model = train()
    vocab = model["vocab"]
    # ignore_merges takes whole words that no chain of merges makes: one such.
    vocab[" swordy".replace(" ", "Ġ")] = len(vocab)
    first = len(vocab)
    added = [dict({"id": first + i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                   "special": special}, **flags) for i, (c, special, flags) in enumerate(ADDED)]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    print(json.dumps({"vocab": vocab, "merges": merges, "added_tokens": added}, ensure_ascii=False)[:-1] + ',\n"texts": [')
    texts = [["text", t] for t in TEXTS] + [["hex", h] for h in BROKEN]
    print(",\n".join(json.dumps(t) for t in texts) + '],\n"configs": [')
    rows = []
    for name, pre, normalizer, pretok, ignore in CONFIGS:
        whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
                 "pre_tokenizer": pretok, "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": False,
                 "trim_offsets": False, "use_regex": False}, "model": dict(model, vocab=vocab, merges=merges, ignore_merges=ignore)}
        t = Tokenizer.from_str(json.dumps(whole))
        t.encode_special_tokens = True
        ids = [t.encode(s if kind == "text" else bytes.fromhex(s).decode("utf-8", "replace"), add_special_tokens=False).ids
               for kind, s in texts]
        rows.append(json.dumps({"name": name, "pre": pre, "normalizer": normalizer, "pre_tokenizer": pretok,
                                "ignore_merges": ignore}, ensure_ascii=False)[:-1] + ', "ids": [\n' +
                    ",\n".join(json.dumps(i, separators=(",", ":")) for i in ids) + "]}")
    print(",\n".join(rows) + "\n]}")


main()
