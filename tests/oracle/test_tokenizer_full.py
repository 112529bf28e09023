#!/usr/bin/env python3
"""Real vocabularies against Hugging Face's tokenizers, and against vectors that come with vocabularies.

    HADAL_TEST_TOKENIZERS=DIR:DIR...   folders with a tokenizer.json (or below it, one level), compared on texts made here;
                                       without it HADAL_DATA/tokenizers
    HADAL_TEST_MODELS=DIR              of Qwen 2 in GGUF (*qwen2*.gguf): beside what transformers makes of the same file
    HADAL_TEST_VECTORS=DIR             NAME.gguf with NAME.gguf.inp (texts between lines __ggml_vocab_test__) and NAME.gguf.out
                                       (ids, a line a text), as in the folder models/ of llama.cpp's sources; those of
                                       known pre-tokenizers are read.  Without it those of the sources in HADAL_TEST_PEERS
    HADAL_TEST_TEXT=FILE:FILE...       more text, a megabyte or so

Without them, or without the Python packages tokenizers and transformers, nothing is compared.
"""
import glob
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import unicodedata

import counted
from counted import check, finish

counted.tells = True
HADAL = os.environ.get("HADAL", "build/hadal")
KNOWN = ("deepseek-llm", "deepseek-coder", "qwen2", "llama-bpe", "gpt-2")


def hadal(model, data):
    run = subprocess.run([HADAL, "tokenize", model], input=data, capture_output=True)
    if run.returncode:
        return run.stderr.decode("utf-8", "replace")
    return [int(i) for i in run.stdout.split()]


SAID = ["L'été où Zoë naquit, l'œuvre coûtait déjà 1 234,50 € ; qu'en dites-vous ?", "你好，世界！机器学习与深度学习，２０２４年。", "它的价格是￥99。「好」",
        "Qu’est-ce que c’est ? — Ça ne m'étonne guère.", "😀👩‍💻 ok 👍🏽 🇫🇷❤️", "It's 3:45; they'll pay $1,000.00.", "日本語のかな漢字, 한국어 문장."]


def mixed(rng):
    """A megabyte: this project's code line by line, between French, Chinese, emoji, and here and there invalid bytes."""
    root = pathlib.Path(__file__).resolve().parents[2]
    code = [line for f in sorted([*root.glob("src/**/*.c"), *root.glob("web/*.js")]) for line in f.read_bytes().split(b"\n")]
    out, size = [], 0
    while size < 1 << 20:
        at = rng.randrange(len(code))
        some = [*code[at:at + rng.randrange(8)], rng.choice(SAID).encode(), rng.choice([b"", b"", b"  ", b"\n\n", b"\xff\xe2\x82"])]
        out += some
        size += sum(map(len, some)) + len(some)
    return b"\n".join(out)


def texts(rng, vocabulary):
    """Bytes of every kind: words of the vocabulary, all assigned characters, white space, digits, marks, emoji, damage."""
    def any_char():
        while True:
            c = rng.choice([rng.randrange(0x80, 0x3000), rng.randrange(0x3000, 0xd800), rng.randrange(0xe000, 0x10000),
                            rng.randrange(0x10000, 0x32000), rng.randrange(0x1d000, 0x1fb00)])
            if not 0xd800 <= c < 0xe000:
                return chr(c)
    # marks that Unicode 3.2 does not know are left to the random characters: tokenizers 0.23 composes by tables from before Unicode 10
    assigned = [c for c in map(chr, range(0x20, 0x2ffff)) if unicodedata.category(c) not in ("Cn", "Cs", "Co") and
                unicodedata.combining(c) == unicodedata.ucd_3_2_0.combining(c)]
    yield "mixed", mixed(rng)
    yield "words", "".join(rng.choice(vocabulary) for _ in range(40000)).encode()
    yield "words apart", " ".join(rng.choice(vocabulary) for _ in range(20000)).encode()
    yield "characters", "".join(c + rng.choice(["", " ", "a"]) for c in assigned if rng.random() < 0.5).encode()
    yield "random characters", "".join(any_char() + rng.choice(["", "", " ", "x", "1", "\n", "!"]) for _ in range(20000)).encode()
    space = [" ", "  ", "\t", "\n", "\r\n", "\r", "\u3000", "\u00a0", "\u2028", "\x0b", "\x85", "a", "B", "9", ".", "'s", "'LL", "ſ"]
    yield "space", "".join(rng.choice(space) for _ in range(30000)).encode()
    yield "digits", "".join(rng.choice("0123456789٣五½²Ⅷ") + rng.choice(["", "", " ", "."]) for _ in range(20000)).encode()
    yield "decomposed", unicodedata.normalize("NFD", "".join(rng.choice("éèàçüñåệ각한글がabc ") for _ in range(20000))).encode()
    emoji = ["😀", "👩‍💻", "🇫🇷", "👍🏽", "❤️", "🏳️‍🌈", "1️⃣", "☺", " ", "a"]
    yield "emoji", "".join(rng.choice(emoji) for _ in range(10000)).encode()
    bad = [b"ok ", b"\xff", b"\xc0\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\n", "中".encode()]
    yield "damaged", b"".join(rng.choice(bad + [bytes([rng.randrange(256)])]) for _ in range(20000))
    for path in filter(None, os.environ.get("HADAL_TEST_TEXT", "").split(":")):
        yield path, open(path, "rb").read()


def looks_special(s):
    return re.fullmatch(r"<\|.*\|>|<｜.*｜>", s, re.S) is not None


def compare(model, config):
    """The model as hadal reads it beside a tokenizer.json's contents."""
    from tokenizers import Tokenizer
    for token in config["added_tokens"]:
        if looks_special(token["content"]):
            token.update(special=True, normalized=False)
    theirs = Tokenizer.from_str(json.dumps(config))
    theirs.encode_special_tokens = True
    special = {t["id"] for t in config["added_tokens"] if t["special"]}
    rng = random.Random(1)
    vocabulary = [theirs.decode([i]) for i in range(0, theirs.get_vocab_size(), 7)]
    vocabulary = [w for w in vocabulary if "\ufffd" not in w and not re.fullmatch("<.*>", w)]
    added = [t["content"] for t in config["added_tokens"]][-60:]
    typed = added + [a[:-1] for a in added] + [a[1:] for a in added] + [" ", "\n", "<", "|", "word", "é", "中"]
    cases = list(texts(rng, vocabulary)) + [("added tokens", "".join(rng.choice(typed) for _ in range(30000)).encode())]
    for name, data in cases:
        want = theirs.encode(data.decode("utf-8", "replace"), add_special_tokens=False).ids
        got = hadal(model, data)
        check(got == want, f"{model}: {name}, {len(data)} bytes: {got if isinstance(got, str) else f'{len(got)} ids, {len(want)} wanted'}")
        check(not isinstance(got, str) and not special.intersection(got), f"{model}: {name}: no special token comes from text")


def of_folder(folder):
    return json.load(open(os.path.join(folder, "tokenizer.json")))


def of_gguf(path):
    from transformers import AutoTokenizer
    config = json.loads(AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path)).backend_tokenizer.to_str())
    return config | {"normalizer": {"type": "NFC"}}  # transformers' Qwen2Tokenizer has it; from GGUF, which has no key for it, it is lost


def vectors(path):
    cases = open(path + ".inp", encoding="utf-8", newline="").read().split("\n__ggml_vocab_test__\n")
    lines = open(path + ".out").read().split("\n")
    got = [hadal(path, text.encode()) for text in cases]
    wrong = [i for i, line in enumerate(lines[:len(cases)]) if got[i] != [int(x) for x in line.split()]]
    check(len(cases) <= len(lines) and not wrong, f"{path}: {len(cases)} texts, wrong: {wrong}")


def main():
    data, models, peers = (os.environ.get("HADAL_" + x) or "/nowhere" for x in ("DATA", "TEST_MODELS", "TEST_PEERS"))
    folders = (os.environ.get("HADAL_TEST_TOKENIZERS") or data + "/tokenizers").split(":")
    found = [(os.path.dirname(f), of_folder) for d in folders
             for f in sorted(glob.glob(d + "/tokenizer.json") + glob.glob(d + "/*/tokenizer.json"))]
    found += [(f, of_gguf) for f in sorted(glob.glob(models + "/*qwen2*.gguf"))]
    for model, read in found:
        try:
            compare(model, read(model))
        except ImportError as e:
            print(f"the Python package {e.name} is missing: {model} is not compared", file=sys.stderr)
    known = os.environ.get("HADAL_TEST_VECTORS") or peers + "/llama_cpp_python-*/vendor/llama.cpp/models"
    for path in sorted(glob.glob(known + "/*.gguf")):
        if path.endswith(tuple(f"-{name}.gguf" for name in KNOWN)):
            vectors(path)
    finish()


main()
