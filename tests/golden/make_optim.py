#!/usr/bin/env python3
"""Ten steps of torch's AdamW and Muon in float32, and of a Muon written out here in float64.

  make_optim.py      write optim/steps.bin

steps.bin, little endian, float32: for each of the three shapes below
  w[n][k]; g[10][n][k]; then what they become: AdamW w, exp_avg, exp_avg_sq; torch's Muon w; the float64 Muon's w (as float64)
AdamW: lr 3e-3, betas 0.9 and 0.95, eps 1e-8, decay 0.1.  Muon: lr 0.02, momentum 0.95, Nesterov, 5 steps, decay 0.1, update
times 0.2 sqrt(max(n, k)).

torch's Muon makes its products in bfloat16: it is a check of the rule, to a percent; the float64 one is the reference.

pip install torch numpy
"""
import pathlib

import numpy as np
import torch

SHAPES = [(20, 17), (13, 40), (48, 5)]
STEPS = 10
out = open(pathlib.Path(__file__).parent / "optim" / "steps.bin", "wb")


def muon64(w, grads, lr, mu, decay):
    w = w.astype(np.float64)
    m = np.zeros_like(w)
    for g in grads.astype(np.float64):
        m = mu * m + (1 - mu) * g
        x = (1 - mu) * g + mu * m
        tall = x.shape[0] > x.shape[1]
        if tall:
            x = x.T
        x = x / (np.linalg.norm(x) + 1e-7)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        if tall:
            x = x.T
        w = w * (1 - lr * decay) - lr * 0.2 * max(w.shape) ** 0.5 * x
    return w


for i, (n, k) in enumerate(SHAPES):
    rng = np.random.default_rng(i)
    w = rng.normal(0, 0.1, (n, k)).astype(np.float32)
    g = (rng.normal(0, 1, (STEPS, n, k)) * 10.0 ** rng.uniform(-4, 0, (1, n, k))).astype(np.float32)
    out.write(w.tobytes() + g.tobytes())
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    adam = torch.optim.AdamW([p], lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for s in range(STEPS):
        p.grad = torch.from_numpy(g[s].copy())
        adam.step()
    state = adam.state[p]
    for t in (p, state["exp_avg"], state["exp_avg_sq"]):
        out.write(t.detach().numpy().tobytes())
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    muon = torch.optim.Muon([p], lr=0.02, momentum=0.95, nesterov=True, ns_steps=5, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for s in range(STEPS):
        p.grad = torch.from_numpy(g[s].copy())
        muon.step()
    want = muon64(w, g, 0.02, 0.95, 0.1)
    print(n, k, "torch against float64:", np.linalg.norm(p.detach().numpy() - want) / np.linalg.norm(want - w))
    out.write(p.detach().numpy().tobytes() + want.tobytes())
