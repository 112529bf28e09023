#!/usr/bin/env python3
"""Official chat templates, wherever some are at hand: they render what tests/golden/chat.json says, with which test_chat compares the
formats, and test_chat tells each as the format that it is.

    HADAL_TEST_PEERS=DIR    models/templates of llama.cpp's sources below it
    HADAL_DATA=DIR          tokenizers/*/tokenizer_config.json and *.gguf below it
    HADAL_TEST_MODELS=DIR   *.gguf, and the default model

Needs the Python packages jinja2 and, for the templates in GGUF, gguf.
"""
import glob
import json
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
PLACES = {  # a part of the path, in small letters: the format
    "deepseek-r1-distill-": "deepseek-r1-distill", "deepseek_r1_distill": "deepseek-r1-distill", "deepseek-v3.1": "deepseek-v3.1",
    "tokenizers/deepseek_v3/": "deepseek-v3", "qwen2.5": "qwen2.5", "qwen3-0.6b": "qwen3", "llama-3.1": "llama3.1",
    "llama-3.2": "llama3.2", "llama-3.3": "llama3.1", "smollm2": "smollm2"}


def template_of(path):
    if path.endswith(".jinja"):
        return open(path, encoding="utf-8").read()
    if path.endswith(".json"):
        return json.load(open(path, encoding="utf-8")).get("chat_template")
    from gguf import GGUFReader
    field = GGUFReader(path).fields.get("tokenizer.chat_template")
    return field.contents() if field else None


def compare(path, name, golden, folder):
    source = template_of(path)
    got = list(render(name, source))
    wrong = [case[1:4] for case in got if case not in golden]
    check(not wrong, f"{path}: {name}: {len(got)} conversations, other than in chat.json: {wrong}")
    (folder / f"{name}.jinja").write_text(source, encoding="utf-8")
    told = subprocess.run([f"{BUILD}/tests/test_chat"], env=dict(os.environ, HADAL_TEST_TEMPLATES=str(folder)), capture_output=True, text=True)
    (folder / f"{name}.jinja").unlink()
    check(told.returncode == 0, f"{path}: told as {name}, whose conversations come out the same {told.stderr[-300:]}")


def main():
    data, models, peers = (os.environ.get("HADAL_" + x) or "/nowhere" for x in ("DATA", "TEST_MODELS", "TEST_PEERS"))
    golden = json.load(open(ROOT / "tests/golden/chat.json", encoding="utf-8"))["cases"]
    found = sorted(glob.glob(peers + "/llama_cpp_python-*/vendor/llama.cpp/models/templates/*.jinja") + glob.glob(models + "/*.gguf") +
                   glob.glob(data + "/tokenizers/*/tokenizer_config.json") + glob.glob(data + "/tokenizers/*/*.gguf"))
    with tempfile.TemporaryDirectory() as folder:
        for path in [*found, *filter(None, [os.environ.get("HADAL_TEST_MODEL")])]:
            name = next((f for part, f in PLACES.items() if part in path.lower()), None)
            try:
                if name:
                    compare(path, name, golden, pathlib.Path(folder))
            except ImportError as e:
                print(f"the Python package {e.name} is missing: {path} is not compared")


try:
    sys.path.insert(0, str(ROOT / "tests/golden"))
    from make_chat import render
    main()
except ImportError as e:
    print(f"the Python package {e.name} is missing: nothing is compared")
finish()
