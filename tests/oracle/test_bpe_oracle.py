#!/usr/bin/env python3
"""Tokenizers that `hadal tokenizer` makes, against Hugging Face's tokenizers: the same merges and ids from the same texts, the
same ids when its own library loads the files, the same conversations through the chat template.

    HADAL_DATA=DIR    a folder of texts (*/*.txt): some megabytes more are compared

Without the Python package tokenizers nothing is compared (transformers and jinja2 where they are there).
"""
import glob
import json
import os
import random
import subprocess
import tempfile

from counted import check, finish

HADAL = os.environ.get("HADAL", "build/hadal")


try:
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
except ImportError:
    print("the Python package tokenizers is not here: nothing is compared")
    finish()


def hadal(args, data=None):
    run = subprocess.run([HADAL, *args], input=data, capture_output=True)
    if run.returncode:
        raise RuntimeError(run.stderr.decode("utf-8", "replace"))
    return run.stdout


def ids_of(directory, data):
    return [int(i) for i in hadal(["tokenize", directory], data).split()]


def peer(texts, n, digits, min_count):
    pattern = json.load(open(f"{tmp}/tok/tokenizer.json"))["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    assert ("{1,3}" in pattern) != digits
    t = Tokenizer(models.BPE(ignore_merges=not digits))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=n - 1, min_frequency=min_count, show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    return t


def model(directory=None, text=None):
    m = (json.load(open(f"{directory}/tokenizer.json")) if directory else json.loads(text))["model"]
    return m["vocab"], [tuple(x.split(" ")) if isinstance(x, str) else tuple(x) for x in m["merges"]]


MIXED = ["Hello, world! It's 1984; they'll pay $3.50.", "L'été à Noël : où êtes-vous ? Œuvre, cœur, naïf.", "你好，世界。机器学习与深度学习。",
         "😀 👩‍👩‍👧‍👦 🇫🇷 e\u0301 \u00a0\u3000wide", "\tdef f(x):\n\t\treturn x**2  # ok\n\n\n", "Привет мир, שלום, مرحبا, สวัสดี, 12345 ١٢٣",
         "<|endoftext|><think> </s>", " lead  and   trail ", "\r\n\r\n a\r\nb", "ſ'S İ ǅ ŉ 'LL"]


def compare(name, texts, n, digits=True, min_count=2):
    names = []
    for i, text in enumerate(texts):
        names.append(f"{tmp}/{i}.txt")
        open(names[-1], "w", encoding="utf-8", newline="").write(text)
    for threads in ("1", "2"):
        hadal(["tokenizer", *names, "-o", f"{tmp}/tok", "--vocab", str(n), "--min-count", str(min_count), "-t", threads]
              + ([] if digits else ["--no-digits"]))
        want, ours = peer(texts, n, digits, min_count), model(f"{tmp}/tok")
        theirs = model(text=want.to_str())
        check(ours == theirs, f"{name}, {threads} threads: {len(ours[1])} and {len(theirs[1])} merges")
    loaded = Tokenizer.from_file(f"{tmp}/tok/tokenizer.json")
    for s in MIXED + [texts[0][:20000]]:
        got = ids_of(f"{tmp}/tok", s.encode())
        # what a text spells like a special token stays text here: the peer is asked without its added tokens
        plain = want.encode(s, add_special_tokens=False).ids if "<|endoftext|>" not in s else None
        if plain is not None:
            check(got == plain, f"{name}: {s[:30]!r}")
            check(got == loaded.encode(s, add_special_tokens=False).ids, f"{name}: loaded: {s[:30]!r}")
        check(loaded.decode(got, skip_special_tokens=False) == s, f"{name}: decoded: {s[:30]!r}")


def made_up(seed, n, alphabet):
    r = random.Random(seed)
    words = ["".join(r.choice(alphabet) for _ in range(r.choice([1, 2, 3, 5, 8]))) for _ in range(400)]
    gaps = [" "] * 30 + ["\n", "\n\n", ". ", ", ", "  ", "'s ", " 42 ", "\t", " \n ", "!?", " 😀 ", "\u00a0"]
    out, size = [], 0
    while size < n:
        out += [words[int(400 * r.random() ** 3)], r.choice(gaps)]
        size += len(out[-1]) + len(out[-2])
    return "".join(out)


def chats():
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return
    text = made_up(5, 20000, "abcdefghij")
    open(f"{tmp}/0.txt", "w").write(text)
    golden = json.load(open("tests/golden/chat.json"))["conversations"]
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    for fmt in ("chatml", "deepseek-v3", "deepseek-r1", "llama3"):
        hadal(["tokenizer", f"{tmp}/0.txt", "-o", f"{tmp}/chat", "--vocab", "500", "--chat-format", fmt, "--special", "<|im_more|>"])
        config = json.load(open(f"{tmp}/chat/tokenizer_config.json"))
        loaded = Tokenizer.from_file(f"{tmp}/chat/tokenizer.json")
        bos = [loaded.token_to_id(config["bos_token"])] if config["add_bos_token"] else []
        check(loaded.encode("hi").ids[:len(bos)] == bos and loaded.encode("hi").ids[len(bos):] == ids_of(f"{tmp}/chat", b"hi"), f"{fmt}: bos")
        for messages in golden:
            if any("\ue000" in m["content"] for m in messages):
                continue
            json.dump(messages, open(f"{tmp}/messages", "w"))
            text = env.from_string(config["chat_template"]).render(messages=messages, add_generation_prompt=True, bos_token=config["bos_token"],
                                                                   eos_token=config["eos_token"])
            want = loaded.encode(text, add_special_tokens=False).ids
            got = json.loads(hadal(["tokenize", f"{tmp}/chat", "--chat", f"{tmp}/messages", "--json"]))
            spelled = any(t in m["content"] for m in messages for t in ("<think>", "</think>"))  # what is typed is no special token
            check(got["format"] == fmt and (got["ids"] == want or spelled), f"{fmt}: {messages}")
            decoded = loaded.decode(got["ids"], skip_special_tokens=False)
            check(decoded == text, f"{fmt}: {decoded!r} and {text!r}")
        try:
            from transformers import AutoTokenizer
        except ImportError:
            continue
        auto = AutoTokenizer.from_pretrained(f"{tmp}/chat")
        check((auto.bos_token, auto.eos_token, auto.pad_token) == (config["bos_token"], config["eos_token"], config["pad_token"]), f"{fmt}: tokens")
        check(auto("hello wörld").input_ids == bos + ids_of(f"{tmp}/chat", "hello wörld".encode()), f"{fmt}: transformers")
        messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi 12"}, {"role": "user", "content": "so?"}]
        json.dump(messages, open(f"{tmp}/messages", "w"))
        got = json.loads(hadal(["tokenize", f"{tmp}/chat", "--chat", f"{tmp}/messages", "--json"]))["ids"]
        text = auto.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        check(auto(text, add_special_tokens=False).input_ids == got, f"{fmt}: apply_chat_template")


with tempfile.TemporaryDirectory() as tmp:
    compare("words", [made_up(1, 300000, "abcdefghijklmnopqrstuvwxyz")], 2000)
    compare("few letters", [made_up(2, 20000, "ab")], 600, min_count=1)
    compare("scripts", [made_up(3, 60000, "aéèœ中文字日本語бвгあい"), made_up(4, 5000, "xyz'0123456789")], 1500, digits=False)
    compare("mixed", MIXED * 3, 700)
    for i in range(12):  # small ones, where pairs tie
        compare(f"small {i}", [made_up(100 + i, 400 * (i + 1), "abc"[:2 + i % 2])], 300 + 20 * i, min_count=1 + i % 2)
    # Bytes that are no UTF-8: both sides see U+FFFD.
    raw = b"caf\xe9 caf\xe9 \xff\xfe ok \xf0\x9f caf\xe9"
    open(f"{tmp}/raw.txt", "wb").write(raw * 5)
    hadal(["tokenizer", f"{tmp}/raw.txt", "-o", f"{tmp}/tok", "--vocab", "280"])
    loaded = Tokenizer.from_file(f"{tmp}/tok/tokenizer.json")
    check(model(f"{tmp}/tok") == model(text=peer([(raw * 5).decode("utf-8", "replace")], 280, True, 2).to_str()), "invalid bytes: merges")
    check(ids_of(f"{tmp}/tok", raw) == loaded.encode(raw.decode("utf-8", "replace")).ids, "invalid bytes: ids")
    chats()
    data = os.environ.get("HADAL_DATA")
    if data:
        files = sorted(glob.glob(f"{data}/*/*.txt"), key=os.path.getsize)[-8:]
        compare("texts", [open(f, encoding="utf-8", errors="replace", newline="").read() for f in files], 8000)
finish()
