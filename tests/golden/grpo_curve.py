"""60 steps of TRL's GRPOTrainer on SmolLM2-135M with a format reward, one curve a seed, in float32. See README.md.

    python grpo_curve.py [seed ...]        0 1 2; some minutes each on one thread
"""

import json
import os
import re
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")

import torch
import trl
from common import HERE, header, num, write_json
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from smollm2_model import load
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

torch.set_num_threads(int(os.environ.get("THREADS", "1")))
torch.set_flush_denormal(True)

STEPS, PROMPTS, GROUP, LENGTH, LEARNING_RATE = 60, 2, 4, 16, float(os.environ.get("LR", "5e-4"))
QUESTIONS = [
    "Name three animals that live in the sea.", "What do you see in a kitchen?", "Tell me about the city of Rome.", "Which fruits do you like best?", "Write a line about the winter.",
    "How do people travel to work?", "Describe a house near a lake.", "What is a good present for a friend?", "Name some tools of a carpenter.", "Tell me a fact about the moon.",
    "What can one do on a rainy day?", "Give me an idea for dinner.",
]


def capitals(completions, **kwargs):
    """The share of words that begin with a capital letter of ASCII; 0 where there is no word."""
    out = []
    for text in completions:
        words = re.findall(r"[A-Za-z]+", text)
        out.append(sum("A" <= w[0] <= "Z" for w in words) / len(words) if words else 0.0)
    return out


class Logs(TrainerCallback):
    def __init__(self):
        self.steps, self.began = [], time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kw):
        if logs and "reward" in logs:
            now = time.perf_counter()
            self.steps.append({
                "step": state.global_step, "reward": num(logs["reward"], 6), "length": num(logs["completions/mean_length"], 6), "entropy": num(logs["entropy"], 6),
                "gradNorm": num(logs["grad_norm"], 6), "seconds": num(now - self.began, 4),
            })
            self.began = now
            print(self.steps[-1], flush=True)


def curve(seed):
    model, tok, _ = load(torch.float32, "sdpa")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    torch.manual_seed(seed)
    m = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
    rows = [{"prompt": f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n"} for q in QUESTIONS]
    logs = Logs()
    with tempfile.TemporaryDirectory() as work:
        args = GRPOConfig(
            output_dir=work, use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True, gradient_checkpointing=False, logging_steps=1, seed=seed,
            max_steps=STEPS, per_device_train_batch_size=PROMPTS * GROUP, gradient_accumulation_steps=1, num_generations=GROUP, max_completion_length=LENGTH, shuffle_dataset=False,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch", temperature=1.0,
        )
        GRPOTrainer(model=m, reward_funcs=[capitals], args=args, train_dataset=Dataset.from_list(rows), processing_class=wrapped, callbacks=[logs]).train()
    ids = [tok.encode(r["prompt"], add_special_tokens=False).ids for r in rows]
    return ids, logs.steps


def main():
    path = os.path.join(HERE, "smollm2", "grpo-curve.json")
    seeds = [int(s) for s in sys.argv[1:]] or [0, 1, 2]
    for seed in seeds:
        ids, steps = curve(seed)
        # Read now: another process may have written its seeds meanwhile.
        kept = json.load(open(path, encoding="utf-8"))["curves"] if os.path.exists(path) else []
        kept = sorted([c for c in kept if c["seed"] != seed] + [{"seed": seed, "steps": steps}], key=lambda c: c["seed"])
        head = header("grpo_curve.py", model="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32", device="cpu")
        head["versions"]["trl"] = trl.__version__
        write_json("smollm2/grpo-curve.json", {
            "header": head,
            "settings": {
                "steps": STEPS, "prompts": PROMPTS, "group": GROUP, "completion": LENGTH, "learningRate": LEARNING_RATE, "schedule": "constant", "maxGradNorm": 1.0, "rank": 16, "alpha": 32,
                "loss": "dapo", "beta": 0.0, "scale": "group", "temperature": 1.0, "order": "sequential",
            },
            "questions": [{"text": q, "tokens": t} for q, t in zip(QUESTIONS, ids)],
            "curves": kept,
        })


main()
