#!/usr/bin/env python3
"""learn.py [--data DIR] [--steps N] [--precision f32|bf16] [NAME...]: small runs that must learn, beside PyTorch.

hadal trains four models (shakespeare and tales, dense and moe of equal active size) for a few hundred steps; PyTorch trains
transformers' models in f32 from the same first weights on the same batches, as tests/probe/data_probe tells them.  Both are
validated on the same ids: bits per byte must fall by a third from those of the random model, and agree within 1 %.

  --data DIR    ($HADAL_DATA) holds tinyshakespeare/input.txt and fairytales-en/{train,val}.txt.  Without it the text is made up:
                sentences of a small grammar
"""
import argparse, json, math, os, pathlib, random, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/oracle"))
import counted
from counted import check, finish
HADAL = pathlib.Path(os.environ.get("HADAL", ROOT / "build/hadal"))
PROBE = pathlib.Path(os.environ.get("HADAL_BUILD", ROOT / "build")) / "tests/probe/data_probe"
try:
    import torch, transformers  # noqa: E401
except ImportError:
    venv = os.environ.get("HADAL_VENV")
    if venv and not sys.executable.startswith(venv):
        os.execv(f"{venv}/bin/python", [f"{venv}/bin/python", *sys.argv])
    sys.exit("learn.py: needs torch and transformers: HADAL_VENV=DIR names a Python that has them")
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, logging

counted.tells = True

DENSE = dict(architecture="LlamaForCausalLM", hidden_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=256, tie_word_embeddings="true")
MOE = dict(architecture="DeepseekV3ForCausalLM", hidden_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
           q_lora_rank=0, kv_lora_rank=48, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24, intermediate_size=256,
           first_k_dense_replace=1, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3, moe_intermediate_size=64, n_group=1,
           topk_group=1, routed_scaling_factor=1, num_nextn_predict_layers=0, tie_word_embeddings="true")
BETAS, EPS, DECAY, LR, WARMUP, LAST, BATCH, SEQ, SPEED, CLIP = (0.9, 0.95), 1e-8, 0.1, 3e-3, 20, 100, 16, 128, 1e-3, 1.0


# ---- Data --------------------------------------------------------------------------------------------------------------

def made_up(folder):
    """Sentences of who does what where, with agreement of numbers: there is something to learn."""
    r = random.Random(1)
    who = ["king", "fox", "girl", "miller", "wolf", "fisherman", "queen", "giant"]
    does = [("sees", "see"), ("asks", "ask"), ("follows", "follow"), ("helps", "help")]
    where = ["in the wood", "by the river", "at the castle", "on the hill"]

    def sentence():
        many, v = r.random() < 0.5, r.choice(does)
        a, b = r.sample(who, 2)
        return f"The {a}{'s' if many else ''} {v[many]} the {b} {r.choice(where)}."

    def text(n):
        return "\n".join(" ".join(sentence() for _ in range(r.randint(3, 12))) for _ in range(n)) + "\n"

    (folder / "train.txt").write_text(text(3000))
    (folder / "val.txt").write_text(text(200))


def make_text(name, data, folder):
    """train.txt and val.txt; the line that ends a document."""
    if not data:
        made_up(folder)
        return "\\n"
    if name.startswith("shakespeare"):
        text = (data / "tinyshakespeare/input.txt").read_text()
        (folder / "train.txt").write_text(text[:1000000])
        (folder / "val.txt").write_text(text[1000000:])
        return None
    for part in ("train", "val"):
        (folder / f"{part}.txt").write_bytes((data / f"fairytales-en/{part}.txt").read_bytes())
    return "<|endofdoc|>"


# ---- The two runs --------------------------------------------------------------------------------------------------------

def run_hadal(folder, model, divider, o):
    base = (ROOT / "tests/learn/base.ini").read_text()
    keys = "\n".join(f"{k} = {v}" for k, v in model.items())
    if divider:
        base = base.replace("[data]\n", f'[data]\ndivider = "{divider}"\n')
    (folder / "run.ini").write_text(f"[model]\n{keys}\n{base}")
    cmd = [HADAL, "pretrain", "run.ini", "-s", "out=run", "-s", f"steps={o.steps}", "-s", f"eval_every={o.steps}",
           "-s", f"precision={o.precision}", "-s", f"decay={o.steps // 3}"]
    p = subprocess.run([str(x) for x in cmd], cwd=folder, capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(p.stderr.strip().splitlines()[-1:])
    val = (folder / "run/val.csv").read_text().splitlines()[-1].split(",")
    return float(val[2])


def probe(folder, where, vocab, *args):
    out = subprocess.run([PROBE, folder / "run/data" / where, str(SEQ), "1", str(vocab), *map(str, args)], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(out.stderr)
    return [json.loads(x) for x in out.stdout.splitlines()]


def padded(b):
    """Documents as rows of one length; what is added has no target."""
    n = max(b["len"])
    tok, target, at = torch.zeros(len(b["len"]), n, dtype=torch.long), torch.full((len(b["len"]), n), -1), 0
    for i, m in enumerate(b["len"]):
        tok[i, :m], target[i, :m] = torch.tensor(b["tok"][at:at + m]), torch.tensor(b["target"][at:at + m])
        at += m
    return tok, target


def losses(model, b):
    tok, target = padded(b)
    logits = model(tok, use_cache=False).logits
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), target.view(-1), ignore_index=-1, reduction="sum"), (target >= 0).sum().item()


def rate(step, steps):
    """Warm-up, stable, 1 - sqrt (as src/train/schedule.c)."""
    decay = steps // 3
    left = steps - step
    lr = LR * min(1.0, step / WARMUP)
    return LR * (1 - math.sqrt(1 - left / decay)) if left < decay else lr


def validate(model, val, per_token):
    nats = n = 0
    with torch.no_grad():
        for b in val:
            a, m = losses(model, b)
            nats, n = nats + a.item(), n + m
    return nats / math.log(2) / (n * per_token)


def run_torch(folder, o):
    model = AutoModelForCausalLM.from_pretrained(folder / "run/init", dtype=torch.float32, attn_implementation="eager")
    model.config._experts_implementation = "eager"
    vocab = model.config.vocab_size
    gates, loads = [], {}
    for name, m in model.named_modules():
        if name.endswith("mlp.gate"):
            gates.append(m)
            m.register_forward_hook(lambda g, a, out, m=m: loads.__setitem__(m, out[2]))
    val = probe(folder, "val", vocab, "--walk", 16 * SEQ, 20000)
    per_token = val.pop()["bytes_per_token"]
    before = validate(model, val, per_token)
    wide = [p for n, p in model.named_parameters() if p.dim() > 1 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.dim() > 1 and "embed" not in n)]
    opt = torch.optim.AdamW([dict(params=wide, weight_decay=DECAY), dict(params=rest, weight_decay=0.0)], lr=LR, betas=BETAS, eps=EPS)
    batches = probe(folder, "0", vocab, 0, o.steps * BATCH, BATCH)
    for step, b in enumerate(batches, 1):
        for g in opt.param_groups:
            g["lr"] = rate(step, o.steps)
        loss, n = losses(model, b)
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        opt.step()
        opt.zero_grad()
        balance(gates, loads, b)
    return before, validate(model, val, per_token)


def balance(gates, loads, b):
    """Biases of overloaded experts fall, of others rise; padding does not count."""
    n = max(b["len"])
    real = torch.cat([torch.arange(n) < m for m in b["len"]])
    for g in gates:
        load = torch.bincount(loads[g][real].reshape(-1), minlength=g.num_experts)
        over = load * g.num_experts - load.sum()
        g.e_score_correction_bias -= SPEED * over.sign()


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", default=os.environ.get("HADAL_DATA"))
    a.add_argument("--steps", type=int, default=300)
    a.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    a.add_argument("names", nargs="*", default=["shakespeare-dense", "shakespeare-moe", "tales-dense", "tales-moe"])
    o = a.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in o.names:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            divider = make_text(name, o.data and pathlib.Path(o.data), folder)
            ours = run_hadal(folder, MOE if name.endswith("moe") else DENSE, divider, o)
            before, theirs = run_torch(folder, o)
        check(ours < 0.65 * before, f"{name}: learnt: {before:.3f} bits per byte at first, {ours:.3f} after {o.steps} steps")
        check(abs(ours - theirs) <= 0.01 * theirs, f"{name}: {ours:.4f} bits per byte, PyTorch {theirs:.4f} ({(ours / theirs - 1) * 100:+.2f} %)")
    finish()


if __name__ == "__main__":
    main()
