"""The GRPO peer: TRL's GRPOTrainer on SmolLM2-135M (its GGUF dequantised), LoRA r 16 on all linear layers, f32; whole steps with sampling, reward and update. One JSON object on stdout.

Prompts, reward and sizes are those of bench/jobs/grpo.ts; every completion goes to its limit.
"""

import argparse
import json
import os
import tempfile
import time
import warnings

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
warnings.filterwarnings("ignore")

from peer import peak_resident_bytes  # first: it puts tests/golden on the path

import torch
import transformers
import trl
from datasets import Dataset
from smollm2_model import load, lora
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--prompts", type=int, default=2)
    a.add_argument("--prompt", type=int, default=256)
    a.add_argument("--group", type=int, default=8)
    a.add_argument("--completion", type=int, default=64)
    a.add_argument("--steps", type=int, default=2, help="measured steps")
    a.add_argument("--warmup", type=int, default=1)
    a.add_argument("--threads", type=int, default=2)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model, _, _ = load(torch.float32, "sdpa")
    vocab = model.config.vocab_size
    # Ids written as words, so that the prompts are the ids that are meant.
    words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(vocab)}, unk_token="<0>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<2>", pad_token="<0>", unk_token="<0>")
    rows = [{"prompt": " ".join(f"<{100 + (r * 7919 + t * 131) % 40000}>" for t in range(o.prompt))} for r in range(o.prompts)]
    seconds, rollout = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kw):
            self.began = time.perf_counter()

        def on_step_end(self, *args, **kw):
            seconds.append(time.perf_counter() - self.began)

    class Timed(GRPOTrainer):
        def _generate_single_turn(self, *args, **kw):
            began = time.perf_counter()
            out = super()._generate_single_turn(*args, **kw)
            rollout.append(time.perf_counter() - began)
            assert all(len(ids) == o.completion for ids in out[0]), [len(ids) for ids in out[0]]
            return out

    def varied(completion_ids, **kw):
        return [len(set(ids)) / len(ids) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as work:
        args = GRPOConfig(
            output_dir=work, use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True, gradient_checkpointing=False, logging_strategy="no", max_steps=o.warmup + o.steps,
            per_device_train_batch_size=o.prompts * o.group, num_generations=o.group, max_completion_length=o.completion, shuffle_dataset=False, learning_rate=1e-5, optim="adamw_torch_fused",
            generation_kwargs={"min_new_tokens": o.completion},
        )
        Timed(model=lora(model, 16, 32, zero_b=True), reward_funcs=[varied], args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Clock()]).train()
    print(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__, "seconds": seconds[o.warmup :], "rollout": rollout[o.warmup :],
        "tokens": o.prompts * o.group * (o.prompt + o.completion), "peakRssBytes": peak_resident_bytes(),
    }))


main()
