#!/usr/bin/env python3
"""Small random models, a batch of documents, and the loss and the gradients that PyTorch's autograd computes from them.

  make_train.py [NAME...]    write train/NAME/{config.json, model.safetensors, golden.bin}

The models are those of transformers in float32; each document of the batch is a sequence of its own.  What transformers lacks is
written here from the papers: the multi-token-prediction layer's loss (arXiv:2412.19437, eq. 21-25), the sequence-wise balance
loss (eq. 17-20; arXiv:2405.04434, eq. 23-25), the z-loss, distillation; and two optimizers, AdamW and Muon.  A seed is kept only
if no token's choice of experts or groups is nearly tied.  tests/oracle/test_train_full.py uses all of it for longer runs.

golden.bin, little endian: int32 rows, documents; int32 len[documents], token[rows], target[rows];
  float32 mtp_weight, balance_alpha, zloss; float64 loss, mtp loss (sums over targets), balance loss (sum);
  then the gradient of every tensor of model.safetensors, float32, in the order of their names; without the router's bias.

pip install torch transformers safetensors
"""
import json
import pathlib
import struct
import sys
import tempfile

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import make_logits as base
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "train"
V, LEN = 36, [13, 1, 9, 2, 12]  # odd sizes; one document without a target
DENSE = base.DENSE | dict(vocab_size=V, hidden_size=24, intermediate_size=28, num_attention_heads=4, num_key_value_heads=2)
MLA = dict(vocab_size=V, hidden_size=21, intermediate_size=28, num_attention_heads=3, num_key_value_heads=3, kv_lora_rank=14,
           qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10, n_routed_experts=6, num_experts_per_tok=2,
           moe_intermediate_size=10, n_group=3, topk_group=2)
V3, V2 = base.V3 | MLA | base.new(), base.V2 | MLA | base.new()
YARN = base.new("yarn", mscale=1.0, mscale_all_dim=0.7, **base.YARN)

# configuration, and what the loss is made of beside cross-entropy
MODELS = {
    "v3_mtp": (V3 | dict(q_lora_rank=17, num_nextn_predict_layers=1), dict(mtp_weight=0.3, balance_alpha=0.1, zloss=1e-3)),
    "v3": (V3 | YARN | dict(q_lora_rank=None, norm_topk_prob=False, n_shared_experts=2, topk_group=3), dict(balance_alpha=0.05)),
    "v2": (V2 | dict(q_lora_rank=17, topk_method="group_limited_greedy", routed_scaling_factor=3.0), dict(balance_alpha=0.1)),
    "v2_lite": (V2 | YARN | dict(q_lora_rank=None, topk_method="greedy", attention_bias=True, n_shared_experts=2), dict()),
    "qwen2": (base.QWEN2 | DENSE | base.new() | dict(tie_word_embeddings=True), dict()),
    "qwen3": (base.QWEN3 | DENSE | base.new() | dict(head_dim=10), dict(zloss=1e-3)),
    "llama": (base.LLAMA | DENSE | base.new() | dict(attention_bias=True, mlp_bias=True), dict()),
    "llama_tied": (base.LLAMA | DENSE | base.new("linear", factor=4.0) | dict(tie_word_embeddings=True), dict()),
}


# ---- A batch ---------------------------------------------------------------------------------------------------------

def batch(seed, lens=LEN, vocab=V):
    """Documents of random ids; the first rows of the third are a prompt: nothing is learnt from them."""
    rng = torch.Generator().manual_seed(seed)
    tok = torch.randint(0, vocab, (sum(lens),), generator=rng).tolist()
    target, at = [], 0
    for i, n in enumerate(lens):
        t = tok[at + 1:at + n] + [-1]
        target += [-1] * min(4, n) + t[4:] if i == 2 else t
        at += n
    return dict(tok=tok, target=target, len=lens)


def documents(b):
    at = 0
    for n in b["len"]:
        yield slice(at, at + n)
        at += n


def mtp_targets(b):
    """[(row, target)] a document: rows whose own target and whose successor's exist."""
    return [[b["target"][t + 1] if b["target"][t] >= 0 else -1 for t in range(d.start, d.stop - 1)] for d in documents(b)]


# ---- A model and its loss ----------------------------------------------------------------------------------------------

class Model:
    """transformers' model, and the extra layer; weights and gradients go by their names in checkpoints."""

    def __init__(self, c, weights):
        self.c, self.names = c, sorted(weights)
        with tempfile.TemporaryDirectory() as folder:
            self.main = base.load(c, weights, pathlib.Path(folder))
        self.main.config._experts_implementation = "eager"
        self.margins, self.routes = [1.0], []
        self.extra = base.Mtp(self.main, {k: v.clone() for k, v in weights.items()}, c, self.margins) if self.mtp() else None
        for name, module in self.main.named_modules():
            if name.endswith("mlp.gate"):
                self.watch(module)
        if self.extra:  # the embedding is shared: one tensor
            self.extra.w["model.embed_tokens.weight"] = self.main.model.embed_tokens.weight
            self.watch(self.extra.layer.mlp.gate, False)
        self.places = {name: self.find(name) for name in self.names}
        for where in self.places.values():
            where[0].requires_grad_(not self.frozen(where[2]))

    def mtp(self):
        return self.c.get("num_nextn_predict_layers", 0)

    @staticmethod
    def frozen(name):
        return name.endswith("e_score_correction_bias")

    def watch(self, gate, margins=True):
        if margins:
            base.watch_margins(gate, self.margins)
        gate.register_forward_hook(lambda gate, args, out: self.routes.append((out[0], out[2])))

    def find(self, name):
        """(tensor, part of it, name): the published file holds experts one by one, the model all of a layer's as one tensor."""
        module, rest = self.main, name
        p = f"model.layers.{self.c['num_hidden_layers']}."
        if self.extra and name.startswith(p):
            rest = name[len(p):]
            if name in self.extra.w and rest in ("enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight"):
                return self.extra.w[name], (), name
            module = self.extra.layer
        part = ()
        if ".experts." in rest:
            head, tail = rest.split(".experts.")
            e, which = tail.split(".")[:2]
            f = self.c["moe_intermediate_size"]
            rows = {"gate_proj": slice(0, f), "up_proj": slice(f, 2 * f), "down_proj": slice(None)}[which]
            part, rest = (int(e), rows), head + (".experts.down_proj" if which == "down_proj" else ".experts.gate_up_proj")
        for x in rest.split("."):
            module = getattr(module, x)
        return module, part, name

    def set(self, weights):
        with torch.no_grad():
            for name, (tensor, part, _) in self.places.items():
                tensor[part] = weights[name]

    def grads(self):
        return {n: (torch.zeros_like(t[p]) if t.grad is None else t.grad[p].clone())
                for n, (t, p, _) in self.places.items() if not self.frozen(n)}

    def balance(self):
        """Of the router calls since the last time: one for each layer with experts and each document."""
        c, total = self.c, 0.0
        for logits, chosen in self.routes:
            s = logits.sigmoid() if c["model_type"] == "deepseek_v3" else logits.softmax(-1)
            s = s / s.sum(-1, keepdim=True)
            n, k = c["n_routed_experts"], c["num_experts_per_tok"]
            f = torch.zeros(n).index_add_(0, chosen.reshape(-1), torch.ones(chosen.numel())) * n / (k * len(s))
            total = total + (f * s.mean(0)).sum()
        self.routes.clear()
        return total

    def loss(self, b, o):
        """(what is minimised, parts as sums).  o: mtp_weight, balance_alpha, zloss, distil_weight, temperature."""
        tok, target = torch.tensor(b["tok"]), torch.tensor(b["target"])
        weight = torch.tensor(b["weight"]) if "weight" in b else torch.ones(len(tok))
        n, n_mtp = (target >= 0).sum().item(), sum(t >= 0 for d in mtp_targets(b) for t in d)
        ce = z = mtp = distil = torch.zeros(())
        self.routes.clear()
        for d, next_target in zip(documents(b), mtp_targets(b)):
            state = self.main.model(tok[None, d], use_cache=False).last_hidden_state[0]
            logits = self.main.lm_head(state)
            has = target[d] >= 0
            each = F.cross_entropy(logits[has], target[d][has], reduction="none")
            ce = ce + (each * weight[d][has]).sum()
            z = z + (logits[has].logsumexp(-1) ** 2 * weight[d][has]).sum()
            if "teacher_id" in b and o.get("distil_weight"):
                distil = distil + self.distil(b, o, d, logits, has, weight)
            if o.get("mtp_weight") and len(next_target):
                guess = torch.tensor(next_target)
                _, further = self.extra.run(self.extra.join(tok[d][1:], state[:-1]))
                mtp = mtp + F.cross_entropy(further[guess >= 0], guess[guess >= 0], reduction="sum")
        w, t2 = o.get("distil_weight", 0.0), o.get("temperature", 1.0) ** 2  # T^2: arXiv:1503.02531, 2
        total = (1 - w) * (ce + o.get("zloss", 0.0) * z) / n + w * t2 * distil / n
        total = total + o.get("mtp_weight", 0.0) * mtp / max(n_mtp, 1)
        balance = self.balance() if o.get("balance_alpha") else torch.zeros(())
        total = total + o.get("balance_alpha", 0.0) * balance / len(b["len"])
        return total, dict(loss=ce.item(), mtp_loss=mtp.item(), distil_loss=distil.item(), balance_loss=float(balance.detach()))

    @staticmethod
    def distil(b, o, d, logits, has, weight):
        """Against the teacher's best ids alone, their probabilities at this temperature made to sum to 1."""
        t = o.get("temperature", 1.0)
        ids, lp = torch.tensor(b["teacher_id"])[d][has], torch.tensor(b["teacher_logp"])[d][has]
        p = torch.where(ids >= 0, lp / t, torch.tensor(float("-inf"))).softmax(-1).nan_to_num(0.0)
        q = (logits[has] / t).log_softmax(-1).gather(1, ids.clamp(min=0))
        each = -torch.where(ids >= 0, p * q, torch.zeros(())).sum(-1)
        return (each * weight[d][has]).sum()

    def step(self, b, o):
        """(parts of the loss, gradients by name)"""
        for tensor, _, _ in self.places.values():
            tensor.grad = None
        total, parts = self.loss(b, o)
        total.backward()
        return parts | dict(total=total.item()), self.grads()


def find(c, o, batches=1, seeds=400, margin=1e-4):
    """Weights and batches whose routes are no near ties."""
    for seed in range(seeds):
        _, weights = base.weights(c, torch.float32, seed)
        b = [batch(1000 * seed + i, vocab=c["vocab_size"]) for i in range(batches)]
        m = Model(c, weights)
        parts, grads = m.step(b[0], o)
        if min(m.margins) > margin:
            return seed, weights, b, m, parts, grads
    raise SystemExit("no seed without near ties")


# ---- Optimizers --------------------------------------------------------------------------------------------------------

def uses_muon(name, w):
    """Matrices inside layers; not routers, embeddings, heads."""
    return w.dim() == 2 and "layers." in name and not name.endswith("mlp.gate.weight")


def newton_schulz(g, steps=5):
    """A matrix of the same singular vectors, its singular values near 1 (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)
    x = x.T if g.shape[0] > g.shape[1] else x
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if g.shape[0] > g.shape[1] else x


class Optimizer:
    """In double, by the papers: AdamW for all, or Muon for the matrices inside layers."""

    def __init__(self, kind, lr, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, momentum=0.95):
        self.o, self.state, self.n = locals(), {}, 0

    def step(self, weights, grads):
        o, self.n = self.o, self.n + 1
        for name, g in grads.items():
            w, g = weights[name].double(), g.double()
            m, v = self.state.get(name, (torch.zeros_like(g), torch.zeros_like(g)))
            wide = w.dim() == 2 and "embed_tokens" not in name and "lm_head" not in name
            w = w * (1 - o["lr"] * o["weight_decay"] * wide)
            if o["kind"] == "muon" and uses_muon(name, w):
                m = o["momentum"] * m + g
                u = newton_schulz(g + o["momentum"] * m)
                w = w - o["lr"] * 0.2 * max(w.shape) ** 0.5 * u
            else:
                m, v = o["beta1"] * m + (1 - o["beta1"]) * g, o["beta2"] * v + (1 - o["beta2"]) * g * g
                w = w - o["lr"] * (m / (1 - o["beta1"] ** self.n)) / ((v / (1 - o["beta2"] ** self.n)).sqrt() + o["eps"])
            self.state[name], weights[name] = (m, v), w.float()


# ---- Golden files ------------------------------------------------------------------------------------------------------

def make(name):
    c, o = MODELS[name]
    c = c | dict(dtype="float32")
    seed, weights, (b,), m, parts, grads = find(c, o)
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    out = struct.pack("<2i", len(b["tok"]), len(b["len"]))
    out += b"".join(struct.pack(f"<{len(b[k])}i", *b[k]) for k in ("len", "tok", "target"))
    out += struct.pack("<3f3d", *(o.get(k, 0.0) for k in ("mtp_weight", "balance_alpha", "zloss")), parts["loss"], parts["mtp_loss"],
                       parts["balance_loss"])
    out += b"".join(grads[n].numpy().astype("<f4").tobytes() for n in m.names if n in grads)
    (folder / "golden.bin").write_bytes(out)
    print(f"{name}: seed {seed}, margin {min(m.margins):.5f}, loss {parts['loss']:.4f}, {len(out)} bytes")


if __name__ == "__main__":
    for one in sys.argv[1:] or MODELS:
        make(one)
