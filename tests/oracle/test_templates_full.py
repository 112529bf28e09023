#!/usr/bin/env python3
"""Official chat templates, wherever some are at hand: they render what tests/golden/chat.json says, with which test_chat compares the
formats, and test_chat tells each as the format that it is.

    HADAL_TEST_PEERS=DIR    models/templates of llama.cpp's sources below it
    HADAL_DATA=DIR          tokenizers/*/tokenizer_config.json and *.gguf below it
    HADAL_TEST_MODELS=DIR   *.gguf, and the default model

Needs the Python package jinja2.
"""
import glob
import json
import mmap
import os
import pathlib
import subprocess
import sys
import tempfile

import counted
from counted import check, finish

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.environ.get("HADAL_BUILD", "build")
counted.tells = True
PLACES = {  # a part of the path, in small letters: the format.  llama.cpp's R1-Distill-Qwen has a switch that DeepSeek's has not
    "deepseek-r1-distill-llama": "deepseek-r1-distill", "deepseek_r1_distill_qwen": "deepseek-r1-distill-0120",
    "deepseek-ai-deepseek-v3.1": "deepseek-v3.1-pair", "tokenizers/deepseek_v3/": "deepseek-v3", "qwen2.5": "qwen2.5", "qwen3-0.6b": "qwen3",
    "meta-llama-llama-3.1": "llama3.1", "meta-llama-llama-3.2": "llama3.2", "meta-llama-llama-3.3": "llama3.1", "smollm2": "smollm2"}


def template_of(path):
    if path.endswith(".jinja"):
        return open(path, encoding="utf-8").read()
    if path.endswith(".json"):
        return json.load(open(path, encoding="utf-8")).get("chat_template")
    key = b"tokenizer.chat_template\x08\0\0\0"  # a string: 64 bits of length, then its bytes
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
        at = m.find(key) + len(key)
        return m[at + 8:at + 8 + int.from_bytes(m[at:at + 8], "little")].decode()


def compare(path, name, golden, folder):
    source = template_of(path)
    got = list(render(name, source))
    wrong = [case[1:4] for case in got if case not in golden]
    check(not wrong, f"{path}: {name}: {len(got)} conversations as in chat.json{', but ' if wrong else ''}{wrong or ''}")
    (folder / f"{name}.jinja").write_text(source, encoding="utf-8")
    told = subprocess.run([f"{BUILD}/tests/test_chat"], env=dict(os.environ, HADAL_TEST_TEMPLATES=str(folder)), capture_output=True, text=True)
    (folder / f"{name}.jinja").unlink()
    check(told.returncode == 0, f"{path}: told as {name} {told.stderr[-300:]}")


def main():
    data, models, peers = (os.environ.get("HADAL_" + x) or "/nowhere" for x in ("DATA", "TEST_MODELS", "TEST_PEERS"))
    golden = json.load(open(ROOT / "tests/golden/chat.json", encoding="utf-8"))["cases"]
    found = sorted(glob.glob(peers + "/llama_cpp_python-*/vendor/llama.cpp/models/templates/*.jinja") + glob.glob(models + "/*.gguf") +
                   glob.glob(data + "/tokenizers/*/tokenizer_config.json") + glob.glob(data + "/tokenizers/*/*.gguf"))
    with tempfile.TemporaryDirectory() as folder:
        for path in [*found, *filter(None, [os.environ.get("HADAL_TEST_MODEL")])]:
            name = next((f for part, f in PLACES.items() if part in path.lower()), None)
            if name:
                compare(path, name, golden, pathlib.Path(folder))


try:
    sys.path.insert(0, str(ROOT / "tests/golden"))
    from make_chat import render
    main()
except ImportError as e:
    print(f"the Python package {e.name} is missing: nothing is compared")
finish()
