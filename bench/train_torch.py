#!/usr/bin/env python3
"""train_torch.py SHAPE [--compile] [--weights autocast|copy|f32] [--experts loop|grouped] [--micro N] [--threads N]

A training step as lean as PyTorch allows, to be measured beside hadal: fused q/k/v and gate/up products, rms_norm and
scaled_dot_product_attention of the library, fused AdamW over f32 masters, bf16 products with f32 sums.

  --weights autocast   torch.autocast casts the f32 weights anew each step
  --weights copy       the model is bf16; masters, moments and updates are f32, gradients come over once a step
  --weights f32        all in f32: faster where a processor multiplies bf16 at half the rate of f32 (Xeons whose AMX is hidden)
  --experts grouped    rows sorted by expert, torch.nn.functional.grouped_mm, which transformers uses
  --experts loop       rows sorted by expert, one product after another
  --micro N            sequences of a pass; a step's gradients are summed over passes.  All at once unless told

Reads lines from stdin: `go N` runs N steps and answers one line of JSON (seconds of each step, loss, peak resident bytes); the
end of stdin ends the program.  Between the lines nothing runs, so that several programs can be measured in turn.
"""
import argparse, json, resource, sys, time

import torch
import torch.nn.functional as F
from torch import nn

# vocabulary, width, layers, heads, ffn width, sequences, rows of each
DENSE = {"1M": (512, 128, 5, 4, 344, 32, 256), "10M": (4096, 320, 7, 5, 864, 16, 256), "100M": (16384, 768, 12, 12, 2048, 4, 512)}
MOE = {"moe": (4096, 320, 7, 5, 864, 16, 256)}
EXPERTS, TOP, EXPERT_FFN, KV_LORA, NOPE, ROPE = 32, 4, 176, 128, 64, 32


def rotate(x, cs):
    a, b = x.float().chunk(2, -1)
    cos, sin = cs
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-6)


class Attention(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h, self.n = h, d // h
        self.qkv, self.o = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)

    def forward(self, x, cs):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.h, self.n).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, cs), rotate(k, cs), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


class Mla(nn.Module):
    """Multi-head latent attention as it is trained: keys and values expanded (arXiv:2405.04434, 2.1)."""

    def __init__(self, d, h):
        super().__init__()
        self.h, self.v = h, d // h
        self.q_kv_a = nn.Linear(d, h * (NOPE + ROPE) + KV_LORA + ROPE, bias=False)
        self.kv_norm, self.kv_b = Norm(KV_LORA), nn.Linear(KV_LORA, h * (NOPE + self.v), bias=False)
        self.o = nn.Linear(h * self.v, d, bias=False)

    def forward(self, x, cs):
        b, t, d = x.shape
        q, c, kr = self.q_kv_a(x).split([self.h * (NOPE + ROPE), KV_LORA, ROPE], -1)
        qn, qr = q.view(b, t, self.h, NOPE + ROPE).transpose(1, 2).split([NOPE, ROPE], -1)
        kn, v = self.kv_b(self.kv_norm(c)).view(b, t, self.h, NOPE + self.v).transpose(1, 2).split([NOPE, self.v], -1)
        kr = rotate(kr.view(b, t, 1, ROPE).transpose(1, 2), cs).expand(-1, self.h, -1, -1)
        y = F.scaled_dot_product_attention(torch.cat([qn, rotate(qr, cs)], -1), torch.cat([kn, kr], -1), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


class Ffn(nn.Module):
    def __init__(self, d, f):
        super().__init__()
        self.up, self.down = nn.Linear(d, 2 * f, bias=False), nn.Linear(f, d, bias=False)

    def forward(self, x):
        g, u = self.up(x).chunk(2, -1)
        return self.down(F.silu(g) * u)


class Loop(torch.autograd.Function):
    """y[rows of e] = x[rows of e] w[e]^T, one product after another; gradients land in their place without sums."""

    @staticmethod
    def forward(ctx, x, w, ends):
        ctx.save_for_backward(x, w)
        ctx.ends = ends
        y = x.new_empty(x.shape[0], w.shape[1])
        for e, (a, z) in enumerate(zip([0] + ends[:-1], ends)):
            torch.mm(x[a:z], w[e].t(), out=y[a:z])
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dy, dx, dw = dy.contiguous(), torch.empty_like(x), torch.empty_like(w)
        for e, (a, z) in enumerate(zip([0] + ctx.ends[:-1], ctx.ends)):
            torch.mm(dy[a:z], w[e], out=dx[a:z])
            torch.mm(dy[a:z].t(), x[a:z], out=dw[e])
        return dx, dw, None


class Moe(nn.Module):
    """DeepSeek-V3's experts: sigmoid scores, the best four of 32, weights normalised, one shared expert."""

    def __init__(self, d, how):
        super().__init__()
        self.router, self.shared, self.how = nn.Linear(d, EXPERTS, bias=False), Ffn(d, EXPERT_FFN), how
        self.up = nn.Parameter(torch.randn(EXPERTS, 2 * EXPERT_FFN, d) * 0.02)
        self.down = nn.Parameter(torch.randn(EXPERTS, d, EXPERT_FFN) * 0.02)

    def product(self, x, w, ends):
        if torch.is_autocast_enabled("cpu"):
            w = w.to(torch.bfloat16)
        x = x.to(w.dtype)
        if self.how == "grouped":
            return F.grouped_mm(x, w.transpose(1, 2), offs=ends)
        return Loop.apply(x, w, ends.tolist())

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        with torch.autocast("cpu", enabled=False):
            s = F.linear(flat.float(), self.router.weight.float()).sigmoid()
        p, e = s.topk(TOP, -1)
        p = p / p.sum(-1, keepdim=True)
        order = e.reshape(-1).argsort(stable=True)
        ends = torch.bincount(e.reshape(-1), minlength=EXPERTS).cumsum(0).to(torch.int32)
        g, u = self.product(flat[order // TOP], self.up, ends).chunk(2, -1)
        y = self.product(F.silu(g) * u, self.down, ends) * p.reshape(-1)[order, None].to(g.dtype)
        y = torch.empty_like(y).index_copy_(0, order, y).view(-1, TOP, x.shape[-1]).sum(1)
        return y.view_as(x) + self.shared(x)


class Model(nn.Module):
    def __init__(self, shape, how):
        super().__init__()
        v, d, n, h, f, _, t = DENSE.get(shape) or MOE[shape]
        mla, rope = shape in MOE, ROPE if shape in MOE else d // h
        self.embed = nn.Embedding(v, d)
        self.layers = nn.ModuleList(nn.ModuleList([Norm(d), (Mla if mla else Attention)(d, h), Norm(d),
                                                   Moe(d, how) if mla and i else Ffn(d, f)]) for i in range(n))
        self.norm = Norm(d)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)
        at = torch.arange(t)[:, None] * 10000.0 ** (-torch.arange(0, rope, 2) / rope)
        self.cos, self.sin = nn.Buffer(at.cos()), nn.Buffer(at.sin())

    def forward(self, tok, target):
        x, cs = self.embed(tok), (self.cos, self.sin)
        for n1, attn, n2, ffn in self.layers:
            x = x + attn(n1(x), cs)
            x = x + ffn(n2(x))
        z = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(z.float().view(-1, z.shape[-1]), target.reshape(-1))


class Trainer:
    def __init__(self, o):
        torch.set_num_threads(o.threads)
        torch.manual_seed(1)
        shape = DENSE.get(o.shape) or MOE[o.shape]
        self.model, self.o = Model(o.shape, o.experts), o
        self.tok = torch.randint(0, shape[0], (8, shape[5], shape[6] + 1))
        self.masters = list(self.model.parameters())
        if o.weights == "copy":
            self.masters = [p.detach().clone().requires_grad_() for p in self.masters]
            self.model.to(torch.bfloat16)
            self.model.cos, self.model.sin = self.model.cos.float(), self.model.sin.float()
        groups = [{"params": [p for p in self.masters if (p.dim() > 1) == wide], "weight_decay": 0.1 * wide} for wide in (True, False)]
        self.opt = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
        self.run = torch.compile(self.model) if o.compile else self.model
        self.n = 0

    def step(self):
        batch = self.tok[self.n % 8]
        self.n += 1
        loss = 0.0
        for part in batch.split(self.o.micro or len(batch)):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.o.weights == "autocast"):
                share = self.run(part[:, :-1], part[:, 1:]) * (len(part) / len(batch))
            share.backward()
            loss += share.item()
        weights = list(self.model.parameters())
        if self.o.weights == "copy":
            for m, w in zip(self.masters, weights):
                m.grad = w.grad.float()
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.opt.step()
        self.opt.zero_grad()
        if self.o.weights == "copy":
            with torch.no_grad():
                torch._foreach_copy_(weights, self.masters)
            for w in weights:
                w.grad = None
        return loss

    def go(self, n):
        seconds, processor, loss = [], [], 0.0
        for _ in range(n):
            a, p = time.perf_counter(), time.process_time()
            loss = self.step()
            seconds.append(time.perf_counter() - a)
            processor.append(time.process_time() - p)
        return {"seconds": seconds, "processor": processor, "loss": loss, "rows": self.tok[0, :, 1:].numel(),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "weights": sum(p.numel() for p in self.masters)}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("shape", choices=[*DENSE, *MOE])
    a.add_argument("--compile", action="store_true")
    a.add_argument("--weights", choices=["autocast", "copy", "f32"], default="autocast")
    a.add_argument("--experts", choices=["loop", "grouped"], default="loop")
    a.add_argument("--micro", type=int, default=0)
    a.add_argument("--threads", type=int, default=2)
    t = Trainer(a.parse_args())
    for line in sys.stdin:
        word = line.split()
        if len(word) == 2 and word[0] == "go":
            print(json.dumps(t.go(int(word[1]))), flush=True)


if __name__ == "__main__":
    main()
