"""GRPO goldens: TRL's GRPOTrainer makes one step of its own, in float64; completions, rewards, advantages, losses and gradients are written down. See README.md.

    python grpo.py [tiny smollm2]        the second takes some minutes on one thread, and 8 GB
"""

import json
import os
import sys
import tempfile

import torch
import trl
from common import HERE, arr, header, num, save_tensors, write_json
from datasets import Dataset
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

torch.manual_seed(0)
torch.set_num_threads(int(os.environ.get("THREADS", "1")))
EOS = 2

# What is written down: TRL's names, and how far old log-probs are shifted away from those of the policy so that ratios are not 1.
CASES = {
    "dapo": ({"loss_type": "dapo"}, 0.0),
    "dapo-kl": ({"loss_type": "dapo", "beta": 0.1, "epsilon_high": 0.28}, 0.3),
    "grpo": ({"loss_type": "grpo"}, 0.3),
    "bnpo": ({"loss_type": "bnpo"}, 0.3),
    "dr_grpo": ({"loss_type": "dr_grpo", "scale_rewards": "none"}, 0.3),
    "gspo": ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, 0.3),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 5.0}, 0.3),
    "sapo": ({"loss_type": "sapo"}, 0.3),
    "vespo": ({"loss_type": "vespo"}, 0.3),
    "luspo": ({"loss_type": "luspo", "importance_sampling_level": "sequence"}, 0.3),
    "two-sided": ({"loss_type": "dapo", "delta": 1.1}, 0.3),
    "temperature": ({"loss_type": "dapo", "temperature": 0.7}, 0.3),
    "entropy": ({"loss_type": "dapo", "entropy_coef": 0.05}, 0.3),
    "entropy-top": ({"loss_type": "bnpo", "entropy_coef": 0.05, "top_entropy_quantile": 0.5}, 0.3),
}


def words(vocab):
    """A tokenizer that writes token ids as words, so that text and ids are the same thing."""
    tok = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(vocab)}, unk_token="<0>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token=f"<{EOS}>", pad_token="<0>", unk_token="<0>")


def even(completion_ids, **kwargs):
    return [sum(t % 2 == 0 for t in ids) / len(ids) for ids in completion_ids]


def short(completion_ids, want, **kwargs):
    """Has nothing to say where `want` is 0."""
    return [None if w == 0 else -len(ids) / 10 for ids, w in zip(completion_ids, want)]


def shift(size, t, k):
    """Differences of old log-probs in [-size, size], by completion and token."""
    return size * torch.sin(torch.arange(t, dtype=torch.float64) * 1.7 + k * 0.9)


def run(model, vocab, prompts, completions, group, length, settings, moved):
    """One step over given completions, or over those that TRL samples; what TRL saw on the way."""
    seen = {"loss": 0.0}

    class Recorder(GRPOTrainer):
        def _generate_single_turn(self, *args, **kwargs):
            if completions is None:
                return super()._generate_single_turn(*args, **kwargs)
            # transformers cannot sample in float64 here; the completions are given.
            return [list(c) for c in completions], None

        def _compute_loss(self, model, inputs):
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
            n = inputs["completion_ids"].size(1)
            with torch.no_grad():
                lp = self._get_per_token_logps_and_entropies(model, ids, mask, n)[0]
            if moved > 0:
                inputs["old_per_token_logps"] = lp + torch.stack([shift(moved, n, k) for k in range(len(lp))])
            if "ref_per_token_logps" in inputs:
                # TRL takes a copy of a loaded adapter as the reference; here it is the model below the adapter.
                with torch.no_grad(), self.accelerator.unwrap_model(model).disable_adapter():
                    inputs["ref_per_token_logps"] = self._get_per_token_logps_and_entropies(model, ids, mask, n)[0]
            loss = super()._compute_loss(model, inputs)
            keep = inputs["completion_mask"].bool()
            seen.update(
                prompts=[p[m.bool()].tolist() for p, m in zip(inputs["prompt_ids"], inputs["prompt_mask"])],
                completions=[c[m].tolist() for c, m in zip(inputs["completion_ids"], keep)],
                advantages=inputs["advantages"].tolist(), loss=float(loss.detach()),
                logprobs=[row[m].tolist() for row, m in zip(lp, keep)],
            )
            seen["grads"] = dict(zip(trainable, torch.autograd.grad(loss, list(trainable.values()), retain_graph=True)))
            return loss

    trainable = {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}
    with tempfile.TemporaryDirectory() as out:
        args = GRPOConfig(
            output_dir=out, use_cpu=True, bf16=False, report_to="none", save_strategy="no", max_steps=1, learning_rate=0.0, gradient_checkpointing=False,
            num_generations=group, per_device_train_batch_size=group * len(prompts), max_completion_length=length, reward_weights=[1.0, 0.5], shuffle_dataset=False,
            disable_tqdm=True, seed=3, **settings,
        )
        data = Dataset.from_list([{"prompt": " ".join(f"<{t}>" for t in p), "want": k} for k, p in enumerate(prompts)])
        Recorder(model=model, reward_funcs=[even, short], args=args, train_dataset=data, processing_class=words(vocab)).train()
    return seen


def made_up(vocab, count, length):
    """Some end by themselves, with the end token; the others are cut at the limit."""
    completions = []
    for k in range(count):
        n = 2 + (k * 5) % (length + 2)
        ids = [3 + (k * 131 + t * 17 + k * t * t) % (vocab - 3) for t in range(length)]
        completions.append(ids[: n - 1] + [EOS] if n <= length else ids)
    return completions


def sampled(g, count=64):
    """Entries of a flat gradient at (k * 2654435761 + 12345) mod its size."""
    return g[[(k * 2654435761 + 12345) % g.numel() for k in range(count)]]


def record(name, model, vocab, prompts, completions, group, length, head, cases, whole):
    """`whole` says of which tensors all entries are kept; of the others 64 samples, in the order of the norms."""
    out, tensors = {"header": head}, {}
    for case in cases:
        settings, moved = CASES[case]
        seen = run(model, vocab, prompts, completions, group, length, settings, moved)
        if "rows" not in out:
            out["rows"] = [{"prompt": p, "completion": c, "want": next(k for k, q in enumerate(prompts) if q == p)} for p, c in zip(seen["prompts"], seen["completions"])]
            out["group"], out["maxCompletionLength"] = group, length
        # TRL shuffles completions before it cuts them into steps; one step takes them all, in an order that every case repeats.
        assert [r["completion"] for r in out["rows"]] == seen["completions"], case
        out[f"case:{case}"] = {
            "trl": settings, "shift": moved, "advantages": arr(seen["advantages"]), "loss": num(seen["loss"], 12), "logprobs": arr(seen["logprobs"], 12),
            "gradNorm": num(torch.sqrt(sum((g.double() ** 2).sum() for g in seen["grads"].values()))),
        }
        for n, g in seen["grads"].items():
            flat = g.double().flatten()
            out[f"case:{case}"].setdefault("norms", {})[n] = num(flat.norm())
            if whole(n):
                tensors[f"{case}.{n}"] = flat.float()
        if not all(whole(n) for n in seen["grads"]):
            tensors[f"{case}.samples"] = torch.stack([sampled(g.double().flatten()) for g in seen["grads"].values()]).float()
        print(case, seen["loss"], out[f"case:{case}"]["gradNorm"])
    write_json(f"{name}.json", out)
    save_tensors(f"{name}.safetensors", tensors, head)


def tiny():
    folder = os.path.join(HERE, "tiny", "untied")
    base = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64)
    model = PeftModel.from_pretrained(base, os.path.join(folder, "adapter"), is_trainable=True).double()
    # Prompts of one length: the mask of left padding makes a NaN in float64.
    prompts = [[1, 9, 14, 7, 22, 30], [1, 5, 8, 8, 61, 100], [1, 40, 41, 90, 3, 17]]
    record("tiny/grpo", model, 131, prompts, made_up(131, 12, 7), 4, 7, header("grpo.py", trl=trl.__version__, variant="untied"), CASES, lambda n: True)


def smollm2():
    """TRL samples in float32, as it trains; the step over its completions is made in float64."""
    from smollm2_model import load, lora

    texts = json.load(open(os.path.join(HERE, "smollm2", "logprobs.json"), encoding="utf-8"))["texts"]
    prompts = [t["tokens"][:20] for t in texts[:2]]
    group, length = 4, 16
    single = lora(load(torch.float32, "eager")[0])
    torch.manual_seed(0)
    vocab = single.config.vocab_size
    seen = run(single, vocab, prompts, None, group, length, {"loss_type": "dapo"}, 0.0)
    # Back from TRL's own shuffling to the order of the prompts, in which they are given again.
    completions = [c for p in prompts for q, c in zip(seen["prompts"], seen["completions"]) if q == p]
    print([len(c) for c in completions], flush=True)
    del single
    model = lora(load(torch.float64, "eager")[0]).double()
    head = header("grpo.py", trl=trl.__version__, model="SmolLM2-135M-Instruct.Q4_1.gguf", formula="LoRA r 16, alpha 32, all-linear: A = fill(name, 1/sqrt(in)), B = fill(name, 0.02)")
    kept = ("layers.0.self_attn.q_proj.lora_A", "layers.14.mlp.down_proj.lora_B", "layers.29.self_attn.o_proj.lora_A")
    record("smollm2/grpo", model, vocab, prompts, completions, group, length, head, ["dapo", "dapo-kl", "gspo"], lambda n: any(k in n for k in kept))


if __name__ == "__main__":
    for name in sys.argv[1:] or ["tiny", "smollm2"]:
        {"tiny": tiny, "smollm2": smollm2}[name]()
