#!/usr/bin/env python3
"""Real models beside llama.cpp: perplexity, divergence from f32, files that `hadal quantize` writes.

    HADAL_TEST_MODELS=DIR   folder of GGUF files; the small default model is always one
    HADAL_TEST_PEERS=DIR    holds llama.cpp with bin/llama-perplexity, llama-quantize, llama-completion
    HADAL_TEST_TEXT=FILE    the text (wikitext-2's test text, say); its first 60,000 bytes are read
    HADAL_TEST_CHUNKS=N     chunks of 512 ids for perplexity (24)

Without a peer or a text nothing is compared.  Needs room for each model in f32 in the temporary folder.
"""
import json
import os
import pathlib
import re
import subprocess
import tempfile

import counted
from counted import check, finish

HADAL = os.environ.get("HADAL", "build/hadal")
counted.tells = True
CHUNKS = os.environ.get("HADAL_TEST_CHUNKS", "24")
KL_CHUNKS = "4"


def run(*cmd):
    p = subprocess.run([str(c) for c in cmd], capture_output=True, stdin=subprocess.DEVNULL)
    out, err = p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace")
    if p.returncode:
        raise RuntimeError(f"{pathlib.Path(cmd[0]).name}: status {p.returncode}: {err.strip().splitlines()[-1:]}")
    return out, err


def ours(model, text, chunks, *more):
    return json.loads(run(HADAL, "score", model, "-f", text, "-c", 512, "--chunks", chunks, "--json", *more)[0])


class Llama:
    def __init__(self, folder):
        self.bin = folder

    def perplexity(self, model, text, chunks, *more):
        out, err = run(self.bin / "llama-perplexity", "-m", model, "-f", text, "-c", 512, "--chunks", chunks, "-t", 2, *more)
        return out + err

    def final(self, model, text, chunks):
        return float(re.search(r"Final estimate: PPL = ([\d.]+)", self.perplexity(model, text, chunks)).group(1))

    def quantize(self, source, target, kind):
        run(self.bin / "llama-quantize", "--allow-requantize", source, target, kind)

    def kl(self, model, text, work):
        """Of the model as llama.cpp runs it, from itself in f32 with an f32 cache."""
        exact, base = work / "exact.gguf", work / "base.kld"
        self.quantize(model, exact, "F32")
        self.perplexity(exact, text, KL_CHUNKS, "-ctk", "f32", "-ctv", "f32", "--kl-divergence-base", base)
        exact.unlink()
        said = self.perplexity(model, text, KL_CHUNKS, "--kl-divergence-base", base, "--kl-divergence")
        base.unlink()
        m = re.search(r"Mean\s+KLD:\s+([\d.e+-]+)\s+.\s+([\d.e+-]+)", said)
        return float(m.group(1)), float(m.group(2))

    def continued(self, model, prompt, n):
        out, _ = run(self.bin / "llama-completion", "-m", model, "-p", prompt, "-n", n, "-t", 2, "--temp", 0, "-no-cnv",
                     "--no-display-prompt", "--ignore-eos", "--repeat-penalty", 1, "-c", 512)
        return out


def near_tie(model, prompt, a, b):
    """Where two continuations part, is it between ids of nearly the same likelihood?  The gap in nats."""
    same = os.path.commonprefix([a, b])
    ends = []
    for text in (a, b):
        ids = lambda t: [int(i) for i in subprocess.run([HADAL, "tokenize", str(model)], input=t.encode(),
                                                         capture_output=True, check=True).stdout.split()]
        mine, other = ids(prompt + text), ids(prompt + (b if text is a else a))
        part = next(i for i, (x, y) in enumerate(zip(mine, other)) if x != y)
        r = json.loads(run(HADAL, "score", model, "--tokens", ",".join(map(str, mine[:part + 1])), "--json")[0])
        ends.append(r["logprobs"][-1])
    return abs(ends[0] - ends[1]), same


def same_text(llama, model, what):
    prompt = "The largest rivers of Europe are"
    mine = run(HADAL, "generate", model, "-p", prompt, "-n", 48, "--temp", 0, "--repeat-penalty", 1)[0]
    other = llama.continued(model, prompt, 48)
    n = min(len(mine.rstrip()), len(other.rstrip())) - 1
    if mine[:n] == other[:n]:
        return check(n > 40, f"{what}: the same {n} characters of greedy text in llama.cpp")
    gap, same = near_tie(model, prompt, mine[:n], other[:n])
    check(gap < 0.15, f"{what}: greedy text parts from llama.cpp's after {len(same)} characters, between ids {gap:.3f} nats apart")


def main():
    models = pathlib.Path(os.environ.get("HADAL_TEST_MODELS") or "/nonexistent")
    peers = pathlib.Path(os.environ.get("HADAL_TEST_PEERS") or "/nonexistent")
    text = pathlib.Path((os.environ.get("HADAL_TEST_TEXT") or "/nonexistent").split(":")[0])
    found = [d for d in (peers / "llama.cpp/bin", peers / "llama.cpp/build/bin") if (d / "llama-perplexity").is_file()]
    if not found or not text.is_file():
        print("no llama.cpp or no text: nothing compared")
        return
    llama = Llama(found[0])
    small = pathlib.Path(os.environ.get("HADAL_TEST_MODEL") or "/nonexistent")
    all_models = [small] if small.is_file() else []
    all_models += [m for m in sorted(models.glob("*.gguf")) if "smollm2" not in m.name.lower()]
    with tempfile.TemporaryDirectory(prefix="hadal-models-") as d:
        work = pathlib.Path(d)
        first = work / "text"
        first.write_bytes(text.read_bytes()[:60000])
        for m in all_models:
            name = m.stem
            a, b = ours(m, first, CHUNKS)["perplexity"], llama.final(m, first, CHUNKS)
            check(abs(a / b - 1) < 0.005, f"{name}: perplexity {a:.4f}, llama.cpp {b:.4f}")
            same_text(llama, m, name)
            k = ours(m, first, KL_CHUNKS, "--kl")
            kl, error = llama.kl(m, first, work)
            check(k["kl"] <= kl + 2 * (error ** 2 + k["kl_error"] ** 2) ** 0.5,
                  f"{name}: KL from f32 {k['kl']:.6f} +- {k['kl_error']:.6f}, llama.cpp {kl:.6f} +- {error:.6f}")
            base = work / "bf16.gguf"
            run(HADAL, "quantize", m, base, "--type", "bf16")
            for kind in ("q8_0", "q4_k_m"):
                mine, theirs = work / "mine.gguf", work / "theirs.gguf"
                run(HADAL, "quantize", base, mine, "--type", kind)
                llama.quantize(base, theirs, kind.upper())
                a, b = llama.final(mine, first, CHUNKS), llama.final(theirs, first, CHUNKS)
                check(a / b - 1 < 0.01, f"{name}: {kind} by hadal {a:.4f}, by llama-quantize {b:.4f} (both run by llama.cpp)")
                same_text(llama, mine, f"{name}: {kind} by hadal")
                mine.unlink()
                theirs.unlink()
            base.unlink()


try:
    main()
except (RuntimeError, AttributeError, ValueError) as why:
    check(False, f"stopped: {why}")
finish()
