#!/usr/bin/env python3
"""Models that hadal wrote, as transformers and llama.cpp see them.

    HADAL_TEST_MODEL=FILE.gguf   exported to a directory: transformers gives the same ids and the same logits
    HADAL_TEST_PEERS=DIR         holds llama.cpp with bin/llama-completion: the same greedy text from exported GGUF files

Random models of every architecture (hd_model_init, through build/tests/test_model_init DIR) are compared in any case.
Without the Python packages torch and transformers nothing is compared.
"""
import array
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import counted
from counted import check, finish

HADAL = os.environ.get("HADAL", "build/hadal")
counted.tells = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HADAL_BUILD", "build"))


def run(*cmd, data=None, env=None):
    p = subprocess.run([str(c) for c in cmd], capture_output=True, input=data or b"", env=env)
    if p.returncode:
        raise RuntimeError(f"{pathlib.Path(cmd[0]).name}: status {p.returncode}: {p.stderr.decode(errors='replace').strip().splitlines()[-3:]}")
    return p.stdout


TEXTS = ["Hello, world! It's 12345.67 o'clock.", "  two  spaces\n\n\tand tabs\r\n", "L'été déjà — œuvre; 汉字かな한국어 🚀✅ e\u0301",
         "def f(x):\n    return x**2  # x_1 != y\n", "<|im_start|> is text here? [PAD1] <s>", "ＡＢＣ １２３ ½² ٣٤ \u00a0\u200b x" * 3]


def hadal_logits(model, ids, folder):
    """Of every row, [ids, vocabulary], in f32 throughout."""
    import torch
    out = folder / "logits"
    run(HADAL, "score", model, "--tokens", ",".join(map(str, ids)), "--no-bos", "--exact", "--logits", out)
    a = array.array("f", out.read_bytes())
    return torch.tensor(a).view(len(ids), -1)


def compare(folder, source, work, what, ids):
    """Logits of transformers on `folder` beside hadal's on `source`."""
    import torch
    import transformers
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                                    output_loading_info=True)
    n = model.config.num_hidden_layers
    extra = [k for k in info["unexpected_keys"] if f"layers.{n}." not in k]  # transformers has no MTP layer
    check(not info["missing_keys"] and not extra and not info["mismatched_keys"], f"{what}: every weight has its place {extra} {info['missing_keys']}")
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0]
    ours = hadal_logits(source, ids, work)
    scale = theirs.abs().max().item()
    worst = (ours - theirs).abs().max().item()
    check(ours.shape == theirs.shape and worst < 1e-4 * max(scale, 1), f"{what}: logits, at most {worst:.2e} apart of {scale:.2f}")


def random_models(work):
    run(BUILD / "tests" / "test_model_init", work)
    for folder in sorted(work.glob("*ForCausalLM")):
        compare(folder, folder, work, folder.name, [1, 7, 33, 150, 2, 2, 90, 31, 5, 64, 12, 101])


def small_model(gguf, work):
    import transformers
    folder = work / "exported"
    run(HADAL, "export", gguf, "-o", folder, "--type", "f32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ours = [int(i) for i in run(HADAL, "tokenize", gguf, data=text.encode()).split()]
        plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        check(ours == plain and tokenizer.decode(ours) == text, f"ids of {text[:20]!r}")
    messages = [{"role": "user", "content": "Name three rivers."}]
    ours = [int(i) for i in run(HADAL, "tokenize", gguf, "--chat", "-", data=json.dumps(messages).encode()).split()]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    theirs = theirs["input_ids"] if hasattr(theirs, "keys") else theirs
    check(ours == list(theirs), "ids of a conversation")
    check(tokenizer.eos_token_id == json.load(open(folder / "config.json"))["eos_token_id"], "the end of a turn")
    ids = [int(i) for i in run(HADAL, "tokenize", gguf, data=b"Paris is the capital of France, and Rome that of Italy. Water boils").split()]
    compare(folder, gguf, work, "the default model", ids)
    first = work / "checkpoint"  # what a run that starts from this file would save
    run(BUILD / "tests" / "test_checkpoint", gguf, first)
    compare(first, gguf, work, "a checkpoint of the default model", ids)
    check(run("cmp", first / "model.safetensors", folder / "model.safetensors") == b"", "a checkpoint's weights are the export's")
    return first


def greedy(peer, model, prompt, n, what):
    ours = run(HADAL, "generate", model, "-p", prompt, "--temp", 0, "-n", n).decode().strip()
    theirs = run(peer / "llama-completion", "-m", model, "-p", prompt, "-n", n, "--temp", 0, "-no-cnv", "--no-display-prompt", "-t", 1,
                 "--no-warmup").decode().replace("[end of text]", "").strip()
    check(ours and ours == theirs, f"{what}: greedy text: {ours[:60]!r} and {theirs[:60]!r}")


def perplexity(peer, model, text, what):
    """A number that all logits make; what bytes a random model would say is no text to compare."""
    ours = json.loads(run(HADAL, "score", model, "-f", text, "-c", 128, "--chunks", 8, "--exact", "--json"))["perplexity"]
    theirs = float("nan")
    for _ in range(10):  # its last lines are lost now and then
        p = subprocess.run([peer / "llama-perplexity", "-m", model, "-f", text, "-c", "128", "--chunks", "8", "-t", "1", "-fa", "off",
                            "-ctk", "f32", "-ctv", "f32"], capture_output=True, text=True, errors="replace")
        found = re.search(r"\[8\]([\d.]+)", p.stdout + p.stderr)
        if found:
            theirs = float(found.group(1))
            break
    check(abs(ours / theirs - 1) < 1e-6, f"{what}: perplexity {ours:.4f} and {theirs:.4f}")


def in_llama_cpp(peer, folder, work):
    for kind in "f32", "bf16", "q8_0":  # a tale; where activations are rounded, a text without near ties
        out = work / f"{kind}.gguf"
        run(HADAL, "export", folder, "-o", out, "--type", kind)
        prompt = "Once upon a time there was a" if kind != "q8_0" else "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,"
        greedy(peer, out, prompt, 24, f"the default model in {kind}")


def random_in_llama_cpp(peer, work):
    """Every architecture, with the vocabulary of tests/failalloc's models and weights wide enough for clear choices."""
    run(sys.executable, ROOT / "tests" / "failalloc" / "make_models.py", work / "tiny")
    run(BUILD / "tests" / "test_model_init", work / "worded", work / "tiny" / "qwen2")
    text = work / "text"
    text.write_bytes((ROOT / "CONTRIBUTING.md").read_bytes()[:6000])
    for folder in sorted((work / "worded").glob("*ForCausalLM")):
        out = work / f"{folder.name}.gguf"
        run(HADAL, "export", folder, "-o", out, "--type", "f32")
        perplexity(peer, out, text, folder.name)


def main():
    try:
        import torch  # noqa: F401
        import transformers
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
    except ImportError:
        print("torch or transformers is missing: nothing is compared")
        return
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        random_models(work)
        if os.environ.get("HADAL_TEST_MODEL"):
            folder = small_model(os.environ["HADAL_TEST_MODEL"], work)
            peer = pathlib.Path(os.environ.get("HADAL_TEST_PEERS", "/nonexistent")) / "llama.cpp" / "bin"
            if (peer / "llama-completion").exists():
                in_llama_cpp(peer, folder, work)
                random_in_llama_cpp(peer, work)


main()
finish()
