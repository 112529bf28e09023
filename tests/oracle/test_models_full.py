#!/usr/bin/env python3
"""Real models: their answers; the same bits in every way; their logits beside transformers'; beside llama.cpp perplexity,
divergence from f32, files that `hadal quantize` writes; guesses by look-up and by a smaller model.

    HADAL_TEST_MODELS=DIR   folder of GGUF files; the small default model is always one
    HADAL_TEST_PEERS=DIR    holds llama.cpp with bin/llama-perplexity, llama-quantize, llama-completion
    HADAL_TEST_TEXT=FILE    the text; its first 60,000 bytes are read.  Without it HADAL_DATA/wikitext2/test.txt
    HADAL_TEST_CHUNKS=N     chunks of 512 ids for perplexity (24)
    HADAL_TEST_THREADS=N    of llama.cpp (2); one is faster where others work too

Without peer and text, or without the Python packages torch and transformers, less is compared.  Needs room for each model in f32 in the
temporary folder, and in memory.
"""
import array
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
THREADS = os.environ.get("HADAL_TEST_THREADS", "2")
KL_CHUNKS = "4"
EDIT = pathlib.Path(__file__).resolve().parents[2] / "bench/edit.txt"  # a change of code that somebody asks for
ASKED = [("How many days are there in a week?", r"\b(7|seven)\b"), ("What is 2 + 3?", r"\b(5|five)\b"),
         ("Write a Python function that returns the larger of two numbers.", r"def \w+\(\w+, *\w+\).*return")]


def run(*cmd):
    p = subprocess.run([str(c) for c in cmd], capture_output=True, stdin=subprocess.DEVNULL)
    out, err = p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace")
    if p.returncode:
        raise RuntimeError(f"{pathlib.Path(cmd[0]).name}: status {p.returncode}: {err.strip().splitlines()[-1:]}")
    return out, err


def ours(model, text, chunks, *more):
    return json.loads(run(HADAL, "score", model, "-f", text, "-c", 512, "--chunks", chunks, "--json", *more)[0])


def ids_of(model, data):
    return [int(i) for i in subprocess.run([HADAL, "tokenize", str(model)], input=data, capture_output=True, check=True).stdout.split()]


class Llama:
    def __init__(self, folder):
        self.bin = folder

    def perplexity(self, model, text, chunks, *more):
        out, err = run(self.bin / "llama-perplexity", "-m", model, "-f", text, "-c", 512, "--chunks", chunks, "-t", THREADS, *more)
        return out + err

    def final(self, model, text, chunks):
        for _ in range(5):  # its last lines are lost now and then
            found = re.search(r"Final estimate: PPL = ([\d.]+)", self.perplexity(model, text, chunks))
            if found:
                return float(found.group(1))
        raise RuntimeError(f"llama-perplexity: no estimate for {model.name}")

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

    def continued(self, model, prompt, n, *more):
        out, _ = run(self.bin / "llama-completion", "-m", model, "-p", prompt, "-n", n, "-t", THREADS, "--temp", 0, "-no-cnv",
                     "--no-display-prompt", "--ignore-eos", "--repeat-penalty", 1, "-c", 512, *more)
        return out


LLAMA_WAYS = ["", "-fa off", "-nr", "-nr -fa off"]  # of attention and of products: they round differently


def followed(llama, model, prompt, text):
    """How far llama.cpp writes the text: at first by itself; where it parts, one of its ways has to go on as the text does, from the
    prompt or from the text's last space on (what is before it is the same ids).  Returns the length, the ways, and what is said instead
    of the rest by the one that follows furthest."""
    at, ways, other = 0, [], ""
    while at < len(text):
        starts = sorted({0, max(text.rfind(" ", 0, at), 0)})
        for start, way in ((s, w) for s in starts for w in LLAMA_WAYS):
            told = llama.continued(model, prompt + text[:start], 48, *way.split()).rstrip()
            far = start + len(os.path.commonprefix([text[start:], told]))
            if far > at or not other:
                other = text[:start] + told
            if far > at:
                break
        else:
            break
        at = far
        ways.append(f"{way or 'default'} to {at}")
    return at, ways, other


def near_tie(model, prompt, a, b):
    """Where two continuations part, is it between ids of nearly the same likelihood?  The gap in nats."""
    same = os.path.commonprefix([a, b])
    ends = []
    for text in (a, b):
        mine, other = (ids_of(model, (prompt + t).encode()) for t in (text, b if text is a else a))
        part = next(i for i, (x, y) in enumerate(zip(mine, other)) if x != y)
        r = json.loads(run(HADAL, "score", model, "--tokens", ",".join(map(str, mine[:part + 1])), "--json")[0])
        ends.append(r["logprobs"][-1])
    return abs(ends[0] - ends[1]), same


def same_text(llama, model, what):
    """llama.cpp parts from itself at near ties.  hadal has two ways to say the text, too: as it runs, and exact.  Where all of these part, the ids
    that the furthest ones part at must be so near that rounding decides: 0.05 nats; what the ways of llama.cpp part at was up to 0.12."""
    prompt = "The largest rivers of Europe are"
    said = []
    for way in ((), ("--exact",)):
        text = run(HADAL, "generate", model, "-p", prompt, "-n", 48, "--temp", 0, "--repeat-penalty", 1, *way)[0].rstrip()[:-1]
        n, ways, other = followed(llama, model, prompt, text)
        said.append(f"{' '.join(way)} {n} of {len(text)} characters ({', '.join(ways)})")
        if 40 < n == len(text):
            return check(True, f"{what}: greedy text is llama.cpp's:{said[-1]}")
    n = min(len(text), len(other)) - 1
    gap, same = near_tie(model, prompt, text[:n], other[:n])
    check(gap < 0.05, f"{what}: greedy text parts from llama.cpp's after {len(same)} characters, between ids {gap:.3f} nats apart:{'; '.join(said)}")


def answers(model, name):
    for question, wanted in ASKED:
        said = run(HADAL, "generate", model, "--chat", "-p", question, "-n", 160, "--temp", 0)[0]
        check(re.search(wanted, said, re.S), f"{name}: {question} {' '.join(said.split())[:90]}")


def logits(model, ids, work, *more):
    import torch
    run(HADAL, "score", model, "--tokens", ",".join(map(str, ids)), "--no-bos", "--logits", work / "logits", *more)
    out = torch.tensor(array.array("f", (work / "logits").read_bytes())).view(len(ids), -1)
    (work / "logits").unlink()
    return out


def reference(model, text, work, name):
    """The reference in f32 is transformers', which dequantizes the same file."""
    os.environ["TQDM_DISABLE"] = "1"
    try:
        import torch
        import transformers
    except ImportError as e:
        return print(f"the Python package {e.name} is missing: {name} is not compared with transformers")
    transformers.logging.set_verbosity_error()
    ids = ids_of(model, text.read_bytes()[:2000])[:128]
    m = transformers.AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        theirs = m(torch.tensor([ids])).logits[0]
    del m
    exact = logits(model, ids, work, "--exact")
    scale, worst = theirs.abs().max().item(), (exact - theirs).abs().max().item()
    check(exact.shape == theirs.shape and worst < 2e-4 * scale, f"{name}: --exact logits at most {worst:.1e} from transformers', of {scale:.1f}")
    p, e, q = (x.double().log_softmax(-1) for x in (theirs, exact, logits(model, ids, work)))
    kl = [(x.exp() * (x - q)).sum(-1).mean().item() for x in (p, e)]
    check(abs(kl[0] - kl[1]) < 1e-5, f"{name}: KL of the default from transformers {kl[0]:.6f}, from --exact {kl[1]:.6f}, over {len(ids)} ids")


def bits(model, text, work, name):
    """Threads and slices change nothing."""
    ids = ",".join(map(str, ids_of(model, text.read_bytes()[:2000])[:128]))
    got = set()
    for threads, slice_ in ((1, 512), (2, 512), (1, 7), (2, 1)):
        run(HADAL, "score", model, "--tokens", ids, "-t", threads, "--slice", slice_, "--logits", work / "logits")
        got.add((work / "logits").read_bytes())
    check(len(got) == 1 and len(got.pop()) > 0, f"{name}: the same bits for 1 and 2 threads, for slices of 1, 7 and 512")


def guesses(models):
    """Of look-up and of a smaller model with the same vocabulary: the same text in fewer passes."""
    small, big = ([m for m in models if size in m.name.lower()] for size in ("0.5b", "1.5b"))
    for m, what in [(m, "lookup") for m in small + big] + [(b, s) for b in big for s in small]:
        said = [json.loads(run(HADAL, "generate", m, "--chat", "-f", EDIT, "-n", 160, "--temp", 0, "--json", *more)[0])
                for more in ((), ("--draft", what))]
        passes = len(said[1]["ids"]) / max(said[1]["passes"], 1)
        check(said[0]["ids"] == said[1]["ids"] and passes > 1.5, f"{m.stem}: guesses by {pathlib.Path(what).stem}: the same "
              f"{len(said[1]['ids'])} ids, {passes:.2f} a pass, {said[1]['accepted']} of {said[1]['drafted']} right")


def beside(llama, m, first, work):
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


def main():
    models = pathlib.Path(os.environ.get("HADAL_TEST_MODELS") or "/nonexistent")
    peers = pathlib.Path(os.environ.get("HADAL_TEST_PEERS") or "/nonexistent")
    text = os.environ.get("HADAL_TEST_TEXT", "").split(":")[0] or os.environ.get("HADAL_DATA", "/nonexistent") + "/wikitext2/test.txt"
    text = pathlib.Path(text)
    found = [d for d in (peers / "llama.cpp/bin", peers / "llama.cpp/build/bin") if (d / "llama-perplexity").is_file()]
    small = pathlib.Path(os.environ.get("HADAL_TEST_MODEL") or "/nonexistent")
    all_models = [small] if small.is_file() else []
    all_models += [m for m in sorted(models.glob("*.gguf")) if "smollm2" not in m.name.lower()]
    for m in all_models:
        answers(m, m.stem)
    guesses(all_models)
    if not text.is_file():
        return print("no text: nothing compared")
    with tempfile.TemporaryDirectory(prefix="hadal-models-") as d:
        work = pathlib.Path(d)
        first = work / "text"
        first.write_bytes(text.read_bytes()[:60000])
        for m in all_models:
            bits(m, first, work, m.stem)
            reference(m, first, work, m.stem)
            if found:
                beside(Llama(found[0]), m, first, work)
    if not found:
        print("no llama.cpp: nothing compared with it")


try:
    main()
except (RuntimeError, AttributeError, ValueError) as why:
    check(False, f"stopped: {why}")
finish()
