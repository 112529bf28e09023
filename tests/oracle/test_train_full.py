#!/usr/bin/env python3
"""Training beside PyTorch: one step's loss and gradients, and the weights after ten steps of AdamW and of Muon.

    HADAL_VENV=DIR    a Python with torch, transformers and safetensors, when this one has none

The same weights and batches go to build/tests/probe/train_probe and to transformers' models in float32 with autograd
(tests/golden/make_train.py has the models, what transformers lacks of the loss, and the optimizers).  Several documents a batch;
seeds whose routes are far from ties, in all ten steps.  Loss to 1e-5, each gradient to 1e-3 of its norm, each tensor of
weights after ten steps to 1e-3 of its norm; with --recompute and with one thread the same bits as without.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
try:
    import safetensors, torch, transformers  # noqa: E401
except ImportError:
    venv = os.environ.get("HADAL_VENV")
    if venv and not sys.executable.startswith(venv):
        os.execv(f"{venv}/bin/python", [f"{venv}/bin/python", *sys.argv])
    print("skipped: no torch, transformers, safetensors here; HADAL_VENV=DIR names a Python that has them")
    print("1 passed, 0 failed")
    sys.exit(0)

sys.path.insert(0, str(ROOT / "tests/golden"))
import counted
import make_train as mt
from counted import check, finish
from safetensors.torch import load_file, save_file

PROBE = pathlib.Path(os.environ.get("HADAL_BUILD", ROOT / "build")) / "tests/probe/train_probe"
STEPS, BATCHES = 10, 4
counted.tells = bool(os.environ.get("HADAL_TEST_VERBOSE"))


def probe(folder, batches, o, *args):
    """(lines told, tensors written)"""
    (folder / "batch.json").write_text(json.dumps(dict(batches=batches) | o))
    out = folder / "out.safetensors"
    p = subprocess.run([PROBE, folder, folder / "batch.json", out, *map(str, args)], capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(p.stderr.strip())
    return [json.loads(x) for x in p.stdout.splitlines()], load_file(out)


def off(got, want):
    """The distance, as a part of the norm."""
    scale = want.double().norm().item()
    d = (got.double() - want.double()).norm().item()
    return d / scale if scale > 0 else d


def compare_loss(name, got, want):
    for part in ("loss", "mtp_loss", "distil_loss", "balance_loss"):
        far = abs(got[part] - want[part])
        check(far <= 1e-5 * abs(want[part]), f"{name}: {part} {got[part]:.8g}, not {want[part]:.8g}")


def worst(name, what, got, want, limit):
    far = {n: off(got[n], w) for n, w in want.items()}
    for n, d in far.items():
        check(d <= limit, f"{name}: {what} of {n} is off by {d:.2g} of its norm {want[n].norm():.3g}")
    if os.environ.get("HADAL_TEST_VERBOSE"):
        n = max(far, key=far.get)
        print(f"      {name}: {what}: {len(far)} tensors, worst {far[n]:.2g} ({n})")


def ten_steps(kind, c, o, weights, batches, margins):
    """Weights and losses of PyTorch; the nearest tie of any route goes into margins."""
    w, told = {k: v.clone() for k, v in weights.items()}, []
    m, opt = mt.Model(c, w), mt.Optimizer(kind, lr=LR[kind])
    for i in range(STEPS):
        m.set(w)
        parts, grads = m.step(batches[i % BATCHES], o)
        told.append(parts)
        opt.step(w, grads)
    margins += m.margins
    return w, told


LR = dict(adamw=2e-3, muon=2e-3)


def example(c, o):
    """A seed whose routes are no near ties in any step of either optimizer."""
    for seed in range(200):
        _, weights = mt.base.weights(c, torch.float32, seed)
        batches = [with_teacher(mt.batch(1000 * seed + i, vocab=c["vocab_size"]), o, seed + i) for i in range(BATCHES)]
        m = mt.Model(c, weights)
        parts, grads = m.step(batches[0], o)
        runs, margins = {}, list(m.margins)
        for kind in LR:
            if min(margins) > 1e-4:
                runs[kind] = ten_steps(kind, c, o, weights, batches, margins)
        if min(margins) > 1e-4:
            return weights, batches, parts, grads, runs
    raise SystemExit("no seed without near ties")


def with_teacher(b, o, seed):
    if not o.get("distil_weight"):
        return b
    rng = torch.Generator().manual_seed(seed)
    lp, ids = torch.randn(len(b["tok"]), mt.V, generator=rng).mul(2).log_softmax(-1).topk(5, -1)
    ids[::3, 3:] = -1  # shorter lists
    weight = 0.5 + torch.rand(len(b["tok"]), generator=rng)
    return b | dict(teacher_id=ids.tolist(), teacher_logp=lp.tolist(), weight=weight.tolist())


def test(name, c, o):
    c = c | dict(dtype="float32")
    weights, batches, parts, grads, runs = example(c, o)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps(c))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        told, out = probe(folder, batches[:1], o)
        compare_loss(name, told[0], parts)
        worst(name, "gradient", {n: out["grad." + n] for n in grads}, grads, 1e-3)
        for args in (["--threads", 1], ["--recompute"]):
            again = probe(folder, batches[:1], o, *args)
            check(again[0] == told and all(torch.equal(again[1][k], v) for k, v in out.items()), f"{name}: {args}: the same bits")
        for kind, (want, want_told) in runs.items():
            told, out = probe(folder, batches, o, "--steps", STEPS, "--optim", kind, "--lr", LR[kind])
            for i in (0, STEPS - 1):
                for part in ("loss", "mtp_loss"):
                    a, b = told[i][part], want_told[i][part]
                    check(abs(a - b) <= (1e-5 if i == 0 else 1e-3) * abs(b), f"{name}, {kind}, step {i}: {part} {a:.8g}, not {b:.8g}")
            worst(name, f"weights after {STEPS} steps of {kind}", {n: out["weight." + n] for n in want}, want, 1e-3)
            still = [n for n in grads if grads[n].norm() > 0 and torch.equal(out["weight." + n], weights[n])]
            check(not still, f"{name}: {kind} moves every weight with a gradient: {still}")


def main():
    more = {"qwen2_distil": (mt.MODELS["qwen2"][0], dict(distil_weight=0.7, temperature=2.0, zloss=1e-3))}
    models = mt.MODELS | more
    for name in sys.argv[1:] or models:
        test(name, *models[name])
    finish()


if __name__ == "__main__":
    main()
