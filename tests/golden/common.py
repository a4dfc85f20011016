"""What the golden scripts share: the fill formula, number formatting, and the version header."""

import json
import os
import platform
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def phase(name: str) -> float:
    """The phase of a named tensor: sum of (position + 1) * UTF-8 byte, modulo 9973."""
    return float(sum((k + 1) * b for k, b in enumerate(name.encode("utf-8"))) % 9973)


def fill(name: str, shape, scale: float, offset: float = 0.0) -> torch.Tensor:
    """The fill formula, all in float64, rounded once to float32.

    x_i = sin((i + 1) * 12.9898 + phase(name)) * 43758.5453
    value_i = offset + scale * (2 * (x_i - floor(x_i)) - 1)        i = row-major index
    """
    n = int(np.prod(shape))
    i = np.arange(1, n + 1, dtype=np.float64)
    x = np.sin(i * 12.9898 + phase(name)) * 43758.5453
    v = offset + scale * (2.0 * (x - np.floor(x)) - 1.0)
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


def header(script: str, **extra) -> dict:
    """Who made a file, with which versions."""
    import transformers

    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    try:
        import peft

        versions["peft"] = peft.__version__
    except ImportError:
        pass
    try:
        from importlib.metadata import version

        versions["gguf"] = version("gguf")
    except Exception:
        pass
    return {"script": f"tests/golden/{script}", "versions": versions, **extra}


def num(x: float, digits: int = 9):
    """A number as a short decimal with `digits` significant digits."""
    return float(f"{float(x.detach() if isinstance(x, torch.Tensor) else x):.{digits}g}")


def arr(t, digits: int = 9):
    """A tensor as nested lists."""
    if isinstance(t, torch.Tensor):
        t = t.detach().tolist()
    if isinstance(t, (list, tuple)):
        return [arr(v, digits) for v in t]
    return t if isinstance(t, (int, bool)) else num(t, digits)


def write_json(path: str, value) -> None:
    """JSON, one top-level key (and one item of a top-level list of objects) a line."""
    full = os.path.join(HERE, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    dump = lambda v: json.dumps(v, ensure_ascii=False, separators=(",", ":"))
    parts = []
    for k, v in value.items():
        if isinstance(v, list) and v and isinstance(v[0], dict):
            parts.append(f"{json.dumps(k)}:[\n" + ",\n".join(dump(e) for e in v) + "\n]")
        else:
            parts.append(f"{json.dumps(k)}:{dump(v)}")
    with open(full, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(parts) + "\n}\n")
    print(f"{path}: {os.path.getsize(full)} bytes", file=sys.stderr)


def save_tensors(path: str, tensors: dict, head: dict) -> None:
    """A safetensors file with the header as JSON in its metadata under `golden`."""
    from safetensors.torch import save_file

    full = os.path.join(HERE, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    save_file({k: v.detach().contiguous().clone() for k, v in sorted(tensors.items())}, full, metadata={"golden": json.dumps(head, sort_keys=True)})
    print(f"{path}: {os.path.getsize(full)} bytes", file=sys.stderr)


def row_loss(model, rows, reduction="mean"):
    """Token-mean loss of rows {"tokens","mask"}, each row run alone (no padding). Token 0 of a row is never scored.
    A float64 model stays in float64: torch's f32 log_softmax over 49,152 logits loses 3e-6 to 1e-5 of the sum, always in the same direction."""
    total, scored = 0.0, 0
    for r in rows:
        ids = torch.tensor([r["tokens"]])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        lp = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]
        m = torch.tensor(r["mask"][1:], dtype=lp.dtype)
        total = total - (lp * m).sum()
        scored += int(m.sum())
    return total / scored if reduction == "mean" else total, scored


def train_with_trainer(model, rows, steps, batch, lr, weight_decay, out_dir):
    """Optimizer steps with transformers.Trainer: rows in order, `batch` rows a step, linear schedule, no warm-up, clip 1.0.

    Rows of a step are padded on the right with labels -100; the Trainer divides the summed loss by the scored tokens of the
    whole step. Returns one record a step (loss before the update, gradient norm before clipping, learning rate used).
    """
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainerCallback, TrainingArguments

    def collate(items):
        n = max(len(r["tokens"]) for r in items)
        ids, labels, att = [], [], []
        for r in items:
            pad = n - len(r["tokens"])
            ids.append(r["tokens"] + [0] * pad)
            labels.append([t if m else -100 for t, m in zip(r["tokens"], r["mask"])] + [-100] * pad)
            att.append([1] * len(r["tokens"]) + [0] * pad)
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "attention_mask": torch.tensor(att)}

    losses, logs = [], []

    class Recorder(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kw):
            if logs and "grad_norm" in logs:
                record.append({"gradNorm": float(logs["grad_norm"]), "learningRate": float(logs["learning_rate"])})

    record = logs

    class InOrder(Trainer):
        def _get_train_sampler(self, *a, **k):
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *a, **k):
            r = super().compute_loss(*a, **k)
            losses.append(float(r.detach()))
            return r

    args = TrainingArguments(
        output_dir=out_dir, per_device_train_batch_size=batch, gradient_accumulation_steps=1, max_steps=steps, learning_rate=lr, weight_decay=weight_decay,
        lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, optim="adamw_torch",
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, remove_unused_columns=False, seed=0, disable_tqdm=True, dataloader_num_workers=0,
    )
    InOrder(model=model, args=args, train_dataset=rows, data_collator=collate, callbacks=[Recorder()]).train()
    assert len(losses) == len(logs) == steps, (len(losses), len(logs))
    out = []
    for s in range(steps):
        window = rows[s * batch : (s + 1) * batch]
        out.append({
            "step": s + 1, "loss": num(losses[s]), "gradNorm": num(logs[s]["gradNorm"]), "learningRate": num(lr * (1 - s / steps)),
            "loggedLearningRate": num(logs[s]["learningRate"]), "scoredTokens": sum(sum(r["mask"][1:]) for r in window),
        })
    return out
