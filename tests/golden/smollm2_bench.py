"""The training peer of bench/: transformers + PEFT on SmolLM2-135M (dequantised GGUF), one JSON object on stdout.

LoRA r 16 on all linear layers (or --full), `--rows` rows of `--length` tokens a step, every token scored, AdamW, CPU.
Tokens per second are rows * length / median seconds of the measured steps; peak memory is the process's high-water mark.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
from common import header
from smollm2_model import load, lora


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rows", type=int, default=4)
    a.add_argument("--length", type=int, default=512)
    a.add_argument("--steps", type=int, default=3, help="measured steps")
    a.add_argument("--warmup", type=int, default=1)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--rank", type=int, default=16)
    a.add_argument("--bf16", action="store_true", help="model in bfloat16")
    a.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    a.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    a.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    a.add_argument("--compile", action="store_true", help="torch.compile the model (needs a C++ compiler)")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    model, _, _ = load(torch.bfloat16 if o.bf16 else torch.float32, o.attention)
    if o.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if not o.full:
        model = lora(model, o.rank, 2 * o.rank, zero_b=True)
    model.train()
    if o.compile:
        model = torch.compile(model)
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=2e-4 if not o.full else 1e-5, weight_decay=0.0)
    vocab = 49152
    ids = torch.tensor([[(r * 7919 + k * k * 31 + k * 101) % (vocab - 20) + 17 for k in range(o.length)] for r in range(o.rows)])
    base_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    seconds, losses = [], []
    for step in range(o.warmup + o.steps):
        t = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= o.warmup:
            seconds.append(time.perf_counter() - t)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    tokens = o.rows * o.length
    print(json.dumps({
        "peer": "transformers" if o.full else "transformers+peft", **header("smollm2_bench.py"), "options": vars(o), "trainable": sum(p.numel() for p in params), "tokensPerStep": tokens,
        "secondsPerStep": seconds, "tokensPerSecond": tokens / statistics.median(seconds), "peakRssBytes": peak, "rssAfterLoadBytes": base_rss, "losses": losses,
    }))


main()
