"""The training peer: transformers + PEFT on SmolLM2-135M (its GGUF dequantised), one JSON object on stdout.

LoRA r 16 on all linear layers, or --full. Without --data: `--rows` rows of `--length` tokens, all scored. With --data FILE (JSON lines {"tokens", "mask"}): padded batches of --batch rows in the
order of the file, loss on the masked tokens, gradients accumulated over all batches of the step, as the Trainer does it. AdamW, clipping at 1.
"""

import argparse
import json
import time

from peer import peak_resident_bytes, token_ids  # first: it puts tests/golden on the path

import torch
import transformers
from smollm2_model import load, lora


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rows", type=int, default=4)
    a.add_argument("--length", type=int, default=512)
    a.add_argument("--data")
    a.add_argument("--batch", type=int, default=8)
    a.add_argument("--steps", type=int, default=3, help="measured steps")
    a.add_argument("--warmup", type=int, default=1)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--bf16", action="store_true", help="model in bfloat16")
    a.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    a.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model, _, _ = load(torch.bfloat16 if o.bf16 else torch.float32, "sdpa")
    if o.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if not o.full:
        model = lora(model, 16, 32, zero_b=True)
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    # The fused optimizer is the fastest that torch has on a CPU.
    opt = torch.optim.AdamW(params, lr=1e-5 if o.full else 2e-4, weight_decay=0.0, fused=True)

    if o.data:
        rows = [json.loads(line) for line in open(o.data, encoding="utf-8")]
    else:
        rows = [{"tokens": token_ids(r, o.length), "mask": [1] * o.length} for r in range(o.rows)]
        o.batch = o.rows
    batches = []
    for at in range(0, len(rows), o.batch):
        part = rows[at : at + o.batch]
        longest = max(len(r["tokens"]) for r in part)
        pad = [longest - len(r["tokens"]) for r in part]
        batches.append({
            "input_ids": torch.tensor([r["tokens"] + [0] * p for r, p in zip(part, pad)]),
            "labels": torch.tensor([[t if m else -100 for t, m in zip(r["tokens"], r["mask"])] + [-100] * p for r, p in zip(part, pad)]),
            # Equal rows need no mask, and without one attention takes its faster causal path.
            **({"attention_mask": torch.tensor([[1] * len(r["tokens"]) + [0] * p for r, p in zip(part, pad)])} if any(pad) else {}),
        })
    scored = sum(int((b["labels"][:, 1:] != -100).sum()) for b in batches)
    tokens = sum(len(r["tokens"]) for r in rows)
    seconds, losses = [], []
    for step in range(o.warmup + o.steps):
        t = time.perf_counter()
        total = 0.0
        for b in batches:
            loss = model(**b, use_cache=False, num_items_in_batch=scored).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        losses.append(total)
        if step >= o.warmup:
            seconds.append(time.perf_counter() - t)
    print(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__, "tokens": tokens, "padded": sum(b["input_ids"].numel() for b in batches), "scored": scored,
        "seconds": seconds, "losses": losses, "peakRssBytes": peak_resident_bytes(),
    }))


main()
