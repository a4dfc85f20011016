"""20 LoRA steps of SmolLM2-135M by each of TRL's preference trainers: DPO, ORPO, KTO, SimPO, and a reward model. See README.md.

    python preference.py [dpo orpo kto simpo reward]        some minutes each on one thread
    python preference.py --float64 dpo                      the same in float64, as preference-dpo-f64.json
"""

import json
import os
import sys
import tempfile
import warnings

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
warnings.filterwarnings("ignore")

import torch
from common import HERE, arr, fill, header, num, write_json
from datasets import Dataset
from smollm2_model import load, lora, plain
from torch.utils.data import SequentialSampler
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast, TrainerCallback

torch.set_num_threads(int(os.environ.get("THREADS", "1")))

STEPS, PAIRS = 20, 40
LEARNING_RATE = 2e-4
DOUBLE = "--float64" in sys.argv


def texts():
    """40 pairs of windows over the hand-written texts: a prompt, what follows it, and a stretch of another text."""
    source = json.load(open(os.path.join(HERE, "smollm2", "inputs.json"), encoding="utf-8"))["texts"]
    words = [(t["text"] if "text" in t else " ".join(m["content"] for m in t["messages"])).split() for t in source]
    rows = []
    for k in range(PAIRS):
        own, other = words[k % len(words)], words[(k * 3 + 1) % len(words)]
        a, b = (k * 11) % (len(own) - 24), (k * 7) % (len(other) - 12)
        n, c, r = 4 + k % 5, 4 + (k * 5) % 7, 3 + (k * 3) % 8
        rows.append({"prompt": " ".join(own[a : a + n]), "chosen": " " + " ".join(own[a + n : a + n + c]), "rejected": " " + " ".join(other[b : b + r])})
    return rows


def common_args(batch, work):
    return dict(
        output_dir=work, per_device_train_batch_size=batch, gradient_accumulation_steps=1, max_steps=STEPS, learning_rate=LEARNING_RATE, weight_decay=0.0,
        lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, optim="adamw_torch",
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, seed=0, disable_tqdm=True, bf16=False, gradient_checkpointing=False,
    )


def in_order(cls, losses, grads):
    class InOrder(cls):
        def _get_train_sampler(self, *a, **k):
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *a, **k):
            r = super().compute_loss(*a, **k)
            losses.append(float((r[0] if isinstance(r, tuple) else r).detach()))
            return r

    return InOrder


class Logs(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_log(self, args, state, control, logs=None, **kw):
        if logs and "grad_norm" in logs:
            self.steps.append(dict(logs))


def run(method):
    model, tok, _ = load(torch.float64 if DOUBLE else torch.float32)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    rows = texts()
    ids = lambda s: tok.encode(s, add_special_tokens=False).ids
    end = wrapped.eos_token_id
    stored = []
    for r in rows:
        p = ids(r["prompt"])
        both = [ids(r["prompt"] + r[k]) for k in ("chosen", "rejected")]
        assert all(b[: len(p)] == p for b in both), r
        stored.append({"prompt": p, "chosen": both[0][len(p) :] + [end], "rejected": both[1][len(p) :] + [end]})
    losses, logs, grads = [], Logs(), []
    settings, batch = {}, 4
    with tempfile.TemporaryDirectory() as work:
        if method == "reward":
            model.config.num_labels = 1
            base = LlamaForSequenceClassification._from_config(model.config, attn_implementation="eager")
            base.model.load_state_dict(model.model.state_dict())
            base.config.pad_token_id = wrapped.pad_token_id
            from peft import LoraConfig, get_peft_model

            m = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], modules_to_save=["score"], task_type="SEQ_CLS"))
            with torch.no_grad():
                for n, p in m.named_parameters():
                    if "lora_A" in n:
                        p.copy_(fill(plain(n), p.shape, 1 / p.shape[1] ** 0.5))
                    elif "lora_B" in n:
                        p.zero_()
                    elif "score" in n:
                        p.copy_(fill("score.weight", p.shape, 0.02))
        else:
            m = lora(model, zero_b=True)
            m = m.double() if DOUBLE else m
        data = Dataset.from_list(rows)
        common = common_args(batch, work)
        if method == "dpo":
            from trl import DPOConfig, DPOTrainer

            settings = {"beta": 0.1}
            trainer = in_order(DPOTrainer, losses, grads)(model=m, args=DPOConfig(**common, beta=0.1, max_length=None), train_dataset=data, processing_class=wrapped, callbacks=[logs])
        elif method == "orpo":
            from trl.experimental.orpo import ORPOConfig, ORPOTrainer

            settings = {"beta": 0.1}
            trainer = in_order(ORPOTrainer, losses, grads)(model=m, args=ORPOConfig(**common, beta=0.1, max_length=128), train_dataset=data, processing_class=wrapped, callbacks=[logs])
        elif method == "simpo":
            from trl.experimental.cpo import CPOConfig, CPOTrainer

            settings = {"beta": 2.0, "gamma": 0.5}
            args = CPOConfig(**common, loss_type="simpo", beta=2.0, simpo_gamma=0.5, cpo_alpha=0.0, max_length=128)
            trainer = in_order(CPOTrainer, losses, grads)(model=m, args=args, train_dataset=data, processing_class=wrapped, callbacks=[logs])
        elif method == "kto":
            from trl import KTOConfig, KTOTrainer

            batch = 8
            settings = {"beta": 0.1, "klBlock": 8}
            rated = [{"prompt": r["prompt"], "completion": r["chosen" if k % 2 == 0 else "rejected"], "label": k % 2 == 0} for k, r in enumerate(rows)]
            args = KTOConfig(**{**common, "per_device_train_batch_size": batch}, beta=0.1, max_length=None)
            trainer = in_order(KTOTrainer, losses, grads)(model=m, args=args, train_dataset=Dataset.from_list(rated), processing_class=wrapped, callbacks=[logs])
        elif method == "reward":
            from trl import RewardConfig, RewardTrainer

            settings = {"centring": 0.01}
            margins = [{**r, "margin": (k % 3) * 0.25} for k, r in enumerate(rows)]
            args = RewardConfig(**common, center_rewards_coefficient=0.01, max_length=None)
            trainer = in_order(RewardTrainer, losses, grads)(model=m, args=args, train_dataset=Dataset.from_list(margins), processing_class=wrapped, callbacks=[logs])
        else:
            raise SystemExit(f"no method {method}")
        first = next(iter(trainer.get_train_dataloader()))
        print(method, {k: tuple(v.shape) for k, v in first.items() if hasattr(v, "shape")}, flush=True)
        if "input_ids" in first:
            expected = [s["prompt"] + s["chosen" if method != "kto" or k % 2 == 0 else "rejected"] for k, s in enumerate(stored[:batch])]
            if method == "reward":
                expected = [s["prompt"] + s["chosen"] for s in stored[:batch]]
            for k, e in enumerate(expected):
                got = first["input_ids"][k][first["attention_mask"][k].bool()].tolist()
                assert got == e, (k, got, e)
        else:
            for k in range(batch):
                got = first["chosen_input_ids"][k][first["chosen_attention_mask"][k].bool()].tolist()
                assert got == stored[k]["prompt"] + stored[k]["chosen"], (k, got)
        trainer.train()
    assert len(losses) == len(logs.steps) == STEPS, (len(losses), len(logs.steps))
    steps = []
    for s in range(STEPS):
        log = logs.steps[s]
        kept = {k: num(v, 7) for k, v in log.items() if isinstance(v, (int, float)) and (k.startswith(("rewards/", "logps/")) or k in ("kl", "margin", "accuracy", "mean_reward", "nll_loss"))}
        steps.append({"step": s + 1, "loss": num(losses[s]), "gradNorm": num(log["grad_norm"], 9 if DOUBLE else 7), "metrics": kept})
        print(method, steps[-1], flush=True)
    import trl

    head = header("preference.py", model="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float64" if DOUBLE else "float32", device="cpu")
    head["versions"]["trl"] = trl.__version__
    return head, stored, {"method": method, "settings": settings, "batch": batch, "steps": steps}


def main():
    for method in [a for a in sys.argv[1:] if a != "--float64"] or ["dpo", "orpo", "kto", "simpo", "reward"]:
        head, rows, result = run(method)
        write_json(f"smollm2/preference-{method}{'-f64' if DOUBLE else ''}.json", {
            "header": {**head, "formula": "A = fill(name, 1/sqrt(in)); B = 0; r 16; alpha 32; all linear layers but the output; score = fill('score.weight', 0.02)"},
            "learningRate": LEARNING_RATE, "settings": result["settings"], "batch": result["batch"], "steps": result["steps"],
        })
        if not DOUBLE:
            write_json("smollm2/preference-rows.json", {"header": head, "rows": rows})


main()
