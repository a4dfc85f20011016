"""PPO's advantages, returns, losses and gradients on a small batch, in float64, by the formulas of TRL 1.10's PPOTrainer; and the divergences of TRL's GKDTrainer with their gradients. See README.md.
"""

import os
import types

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import torch.nn.functional as F
import trl
from common import HERE, arr, header, num, write_json
from peft import PeftModel
from transformers import LlamaForCausalLM
from trl.experimental.gkd import GKDTrainer

torch.set_default_dtype(torch.float64)


def wave(rows, cols, a, b, phase, scale=1.0):
    return scale * torch.sin(a * torch.arange(rows).double()[:, None] + b * torch.arange(cols).double()[None, :] + phase)


def whiten(x, shift=True):
    w = (x - x.mean()) * torch.rsqrt(x.var() + 1e-8)
    return w if shift else w + x.mean()


def ppo(kl_estimator, whiten_rewards, gamma, lam):
    n, t = 4, 5
    old = -0.8 + wave(n, t, 0.7, 1.3, 0.0, 0.5)
    ref = -0.9 + wave(n, t, 0.7, 1.3, 0.5, 0.5)
    values = wave(n, t, 1.1, 0.4, 0.2, 0.6)
    scores = torch.tensor([1.0, -0.5, 0.25, 2.0])
    logr = ref - old
    kl = -logr if kl_estimator == "k1" else logr.exp() - 1 - logr
    rewards = -0.05 * kl
    rewards[:, -1] += scores
    if whiten_rewards:
        rewards = whiten(rewards, shift=False)
    last, out = torch.zeros(n), []
    for k in reversed(range(t)):
        following = values[:, k + 1] if k + 1 < t else torch.zeros(n)
        delta = rewards[:, k] + gamma * following - values[:, k]
        last = delta + gamma * lam * last
        out.append(last)
    advantages = torch.stack(out[::-1], 1)
    returns = advantages + values
    advantages = whiten(advantages)
    new = (old + wave(n, t, 0.9, 1.7, 0.3, 0.35)).requires_grad_()
    said = (values + wave(n, t, 0.5, 2.1, 0.1, 0.4)).requires_grad_()
    clipped = torch.clamp(said, values - 0.2, values + 0.2)
    a, b = (said - returns) ** 2, (clipped - returns) ** 2
    vf = 0.5 * torch.max(a, b).mean()
    ratio = torch.exp(new - old)
    pg = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 0.8, 1.2)).mean()
    loss = pg + 0.1 * vf
    dnew, dsaid = torch.autograd.grad(loss, [new, said])
    return {
        "klEstimator": kl_estimator, "whitenRewards": whiten_rewards, "gamma": gamma, "lambda": lam,
        "old": arr(old.tolist(), 12), "reference": arr(ref.tolist(), 12), "values": arr(values.tolist(), 12), "scores": arr(scores.tolist()),
        "policy": arr(new.tolist(), 12), "said": arr(said.tolist(), 12),
        "advantages": arr(advantages.tolist(), 12), "returns": arr(returns.tolist(), 12), "policyLoss": num(pg.detach(), 12), "valueLoss": num(vf.detach(), 12), "loss": num(loss.detach(), 12),
        "dpolicy": arr(dnew.tolist(), 12), "dvalues": arr(dsaid.tolist(), 12), "valueClipFraction": num((b > a).double().mean(), 12),
    }


def gkd(beta):
    """One row a scored position, vocabulary of 7."""
    student = wave(6, 7, 0.7, 0.9, 0.0, 2.0).requires_grad_()
    teacher = wave(6, 7, 0.7, 0.9, 0.5, 2.0)
    each = GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta, reduction="none").sum(-1)
    (d,) = torch.autograd.grad((each * (1 + torch.arange(6).double())).sum(), [student])
    return {"beta": beta, "values": arr(each.tolist(), 12), "gradient": arr(d.tolist(), 12)}


def gkd_model(beta):
    """TRL's own loss of a step: the model tiny/untied with its adapter against tiny/tied."""
    student = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(os.path.join(HERE, "tiny", "untied"), attn_implementation="eager", dtype=torch.float64),
        os.path.join(HERE, "tiny", "untied", "adapter"), is_trainable=True,
    ).double()
    teacher = LlamaForCausalLM.from_pretrained(os.path.join(HERE, "tiny", "tied"), attn_implementation="eager", dtype=torch.float64)
    ids = torch.tensor([[3 + (k * 31 + t * 17 + k * t * t) % 120 for t in range(12)] for k in range(3)])
    labels = ids.clone()
    labels[:, :5] = -100
    me = types.SimpleNamespace(teacher_model=teacher, beta=beta, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss)
    loss = GKDTrainer.compute_loss(me, student, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}, num_items_in_batch=torch.tensor(21))
    named = {n.replace(".default.", "."): q for n, q in student.named_parameters() if q.requires_grad}
    grads = torch.autograd.grad(loss, list(named.values()))
    return {
        "beta": beta, "rows": ids.tolist(), "prompt": 5, "loss": num(loss.detach(), 12),
        "norms": {n: num(g.norm(), 9) for n, g in zip(named, grads)},
    }


def pairs(loss_type):
    """Three pairs of completions of 4 and 3 tokens by the formulas of TRL's OnlineDPOTrainer and, of 1.10, XPOTrainer and NashMDTrainer: the first of a pair is the policy's, the second the opponent's."""
    n, beta, alpha = 3, 0.1, 0.01
    own = (-0.9 + wave(n, 4, 0.8, 1.1, 0.0, 0.5)).requires_grad_()
    other = (-1.1 + wave(n, 3, 0.6, 1.4, 0.4, 0.5)).requires_grad_()
    own_ref, other_ref = -0.8 + wave(n, 4, 0.8, 1.1, 0.6, 0.5), -1.0 + wave(n, 3, 0.6, 1.4, 0.9, 0.5)
    scores = torch.tensor([[1.0, 0.2], [0.3, 0.9], [0.5, 0.5]])
    first = scores[:, 0] >= scores[:, 1]
    a, b = own.sum(1) - own_ref.sum(1), other.sum(1) - other_ref.sum(1)
    z = torch.where(first, a - b, b - a)
    dpo = -F.logsigmoid(beta * z) if loss_type == "sigmoid" else (z - 1 / (2 * beta)) ** 2
    probability = torch.sigmoid(scores[:, 0] - scores[:, 1])
    ratio = (own - own_ref).detach()
    losses = {
        "onlineDpo": dpo.mean(), "xpo": (dpo + alpha * other.sum(1)).mean(),
        "nash": (beta * (ratio * own).sum(1) - (probability - 0.5) * own.sum(1)).mean(),
    }
    out = {
        "loss": loss_type, "beta": beta, "alpha": alpha, "scores": arr(scores.flatten().tolist()), "policy": [arr(own.tolist(), 12), arr(other.tolist(), 12)],
        "reference": [arr(own_ref.tolist(), 12), arr(other_ref.tolist(), 12)],
    }
    for name, value in losses.items():
        d, e = torch.autograd.grad(value, [own, other], retain_graph=True, allow_unused=True)
        out[name] = {"loss": num(value.detach(), 12), "own": arr(d.tolist(), 12), "other": None if e is None else arr(e.tolist(), 12)}
    return out


write_json("online.json", {
    "header": header("online.py", trl=trl.__version__),
    "ppo": [ppo("k1", False, 1.0, 0.95), ppo("k3", True, 0.9, 0.8)],
    "pairs": [pairs("sigmoid"), pairs("ipo")],
    "gkd": [gkd(b) for b in (0, 0.1, 0.5, 1)],
    "gkdModel": [gkd_model(b) for b in (0, 0.5, 1)],
})
