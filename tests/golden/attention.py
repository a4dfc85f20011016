"""Small exact goldens of single ops, float64 with torch autograd: attention, cross entropy, RMSNorm, SwiGLU/GeGLU, AdamW. See README.md."""

import math

import torch
from common import arr, fill, header, num, write_json

torch.set_num_threads(1)
D = torch.float64


def leaf(name, shape, scale, offset=0.0):
    return fill(name, shape, scale, offset).to(D).requires_grad_(True)


def visible(segments, window):
    """Which key each query sees: itself and before in its segment, all of its ancestors; positions continue the parent's."""
    n = sum(s["length"] for s in segments)
    pos, seg = [0] * n, [0] * n
    for si, s in enumerate(segments):
        first = 0 if s["parent"] is None else pos[segments[s["parent"]]["start"] + segments[s["parent"]]["length"] - 1] + 1
        for k in range(s["length"]):
            pos[s["start"] + k], seg[s["start"] + k] = first + k, si
    ok = torch.zeros(n, n, dtype=torch.bool)
    for q in range(n):
        anc, a = set(), seg[q]
        while a is not None:
            anc.add(a)
            a = segments[a]["parent"]
        for k in range(n):
            if seg[k] in anc and pos[k] <= pos[q] and (window is None or pos[q] - pos[k] < window):
                ok[q, k] = True
    return ok, pos


def attention(q, k, v, ok, scale, softcap, sinks):
    """q [tokens, heads, dim]; k, v [tokens, kvHeads, dim]; query head h uses key head floor(h * kvHeads / heads)."""
    group = q.shape[1] // k.shape[1]
    kk, vv = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = torch.einsum("qhd,khd->hqk", q, kk) * scale
    if softcap is not None:
        s = softcap * torch.tanh(s / softcap)
    s = s.masked_fill(~ok[None], -math.inf)
    if sinks is not None:
        # a sink is one more logit of the softmax, with no value
        s = torch.cat([s, sinks[:, None, None].expand(-1, s.shape[1], 1)], -1)
    p = torch.softmax(s, -1)
    lse = torch.logsumexp(s, -1)
    return torch.einsum("hqk,khd->qhd", p[..., : ok.shape[1]], vv), lse


def attention_cases():
    one = [{"start": 0, "length": 9, "parent": None}]
    two = [{"start": 0, "length": 5, "parent": None}, {"start": 5, "length": 7, "parent": None}]
    forest = [{"start": 0, "length": 5, "parent": None}, {"start": 5, "length": 4, "parent": 0}, {"start": 9, "length": 3, "parent": 0}, {"start": 12, "length": 2, "parent": 2}]
    plans = [
        ("causal", one, None, None, False, None), ("packed pair", two, None, None, False, None), ("sliding window", one, 4, None, False, None),
        ("soft cap", one, None, 1.5, False, None), ("sinks", one, None, None, True, None), ("scale", two, None, None, False, 0.75),
        ("forest", forest, None, None, False, None), ("everything on a forest", forest, 5, 2.0, True, 0.5),
    ]
    out = []
    for name, segs, window, cap, use_sinks, scale in plans:
        n = sum(s["length"] for s in segs)
        heads, kv, dim = 4, 2, 6
        q, k, v = leaf("q", (n, heads, dim), 2.0), leaf("k", (n, kv, dim), 2.0), leaf("v", (n, kv, dim), 1.0)
        sinks = leaf("sinks", (heads,), 1.5) if use_sinks else None
        ok, pos = visible(segs, window)
        o, lse = attention(q, k, v, ok, scale or dim**-0.5, cap, sinks)
        do = fill("dOut", (n, heads, dim), 1.0).to(D)
        o.backward(do)
        out.append({
            "name": name, "segments": segs, "positions": pos, "window": window, "softcap": cap, "scale": num(scale or dim**-0.5, 12), "heads": heads, "kvHeads": kv, "headDim": dim,
            "q": arr(q), "k": arr(k), "v": arr(v), "sinks": arr(sinks) if use_sinks else None, "dOut": arr(do), "out": arr(o), "lse": arr(lse.T), "dq": arr(q.grad), "dk": arr(k.grad),
            "dv": arr(v.grad), "dsinks": arr(sinks.grad) if use_sinks else None,
        })
    return out


def cross_entropy_cases():
    out = []
    for name, cap, mult in [("plain", None, 1.0), ("soft cap", 3.0, 1.0), ("soft cap after a logit scale", 5.0, 0.4)]:
        x, w = leaf("hidden", (5, 8), 1.5), leaf("head", (11, 8), 1.0)
        labels = [3, 10, -100, 0, 7]
        logits = (x @ w.T) * mult
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        lp = torch.log_softmax(logits, -1)
        rows = [k for k, t in enumerate(labels) if t >= 0]
        loss = -sum(lp[k, labels[k]] for k in rows) / len(rows)
        loss.backward()
        entropy = -(lp.exp() * lp).sum(-1)
        out.append({"name": name, "softcap": cap, "logitScale": mult, "hidden": arr(x), "weight": arr(w), "labels": labels, "loss": num(loss), "logprobs": [num(lp[k, t]) if t >= 0 else None for k, t in enumerate(labels)],
                    "entropy": arr(entropy), "dHidden": arr(x.grad), "dWeight": arr(w.grad)})
    return out


def norm_cases():
    out = []
    for name, eps, unit in [("llama", 1e-5, False), ("gemma (1 + weight)", 1e-6, True), ("tiny rows, large eps", 1e-2, False)]:
        x, w = leaf("x", (3, 10), 0.05 if "tiny" in name else 2.0), leaf("w", (10,), 0.5, 0.0 if unit else 1.0)
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * ((1 + w) if unit else w)
        do = fill("dy", (3, 10), 1.0).to(D)
        y.backward(do)
        out.append({"name": name, "eps": eps, "unitOffset": unit, "x": arr(x), "weight": arr(w), "dOut": arr(do), "out": arr(y), "dx": arr(x.grad), "dWeight": arr(w.grad)})
    return out


def glu_cases():
    acts = [("silu", torch.nn.functional.silu), ("gelu_tanh", lambda g: torch.nn.functional.gelu(g, approximate="tanh")), ("gelu", torch.nn.functional.gelu)]
    out = []
    for name, act in acts:
        g, u = leaf("gate", (4, 7), 6.0), leaf("up", (4, 7), 2.0)
        y = act(g) * u
        do = fill("dglu", (4, 7), 1.0).to(D)
        y.backward(do)
        out.append({"name": name, "gate": arr(g), "up": arr(u), "dOut": arr(do), "out": arr(y), "dGate": arr(g.grad), "dUp": arr(u.grad)})
    return out


def adamw_cases():
    out = []
    for name, wd, clip, b2, eps in [("plain", 0.0, None, 0.999, 1e-8), ("weight decay", 0.1, None, 0.999, 1e-8), ("clip", 0.01, 1.0, 0.999, 1e-8), ("betas, eps", 0.0, None, 0.95, 1e-5)]:
        p = leaf("p", (13,), 1.0)
        opt = torch.optim.AdamW([p], lr=1.0, betas=(0.9, b2), eps=eps, weight_decay=wd)
        steps = []
        for s in range(8):
            lr = 0.02 * (1 - s / 8)
            g = fill(f"g{s}", (13,), 10.0 ** (s % 3 - 1)).to(D)
            p.grad = g.clone()
            norm = torch.linalg.vector_norm(g)
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([p], clip)
            opt.param_groups[0]["lr"] = lr
            opt.step()
            st = opt.state[p]
            steps.append({"learningRate": num(lr, 12), "grad": arr(g), "gradNorm": num(norm), "param": arr(p), "m": arr(st["exp_avg"]), "v": arr(st["exp_avg_sq"])})
        out.append({"name": name, "weightDecay": wd, "clip": clip, "beta1": 0.9, "beta2": b2, "eps": eps, "start": arr(fill("p", (13,), 1.0)), "steps": steps})
    return out


write_json("ops.json", {
    "header": header("attention.py", dtype="float64"), "attention": attention_cases(), "crossEntropy": cross_entropy_cases(), "rmsNorm": norm_cases(), "glu": glu_cases(), "adamw": adamw_cases(),
})
