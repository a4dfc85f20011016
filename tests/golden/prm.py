"""One step of TRL's PRMTrainer (1.13, the last release that has it) on the model tiny/untied with its adapter, in float64: ids, labels, loss and gradients. See README.md.

The classifier has two labels; a model with one score is the difference of the two, so the head's gradient is that of label 1.
"""

import os
import tempfile

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import numpy as np
import torch
import trl
from common import HERE, arr, fill, header, num, write_json
from datasets import Dataset
from peft import PeftConfig, PeftModel
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaForTokenClassification, PreTrainedTokenizerFast, TrainerCallback
from trl.experimental.prm import PRMConfig, PRMTrainer

torch.set_default_dtype(torch.float64)

ROWS = [
    {"prompt": "What is 2 + 3 * 4?", "completions": ["3 * 4 = 12", "2 + 12 = 15"], "labels": [True, False]},
    {"prompt": "Halve 10.", "completions": ["10 / 2 = 5", "so: 5", "done"], "labels": [True, True, False]},
]


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a character, by its code; 0 pads and 1 begins."""
    vocab = {"<pad>": 0, "<s>": 1, **{chr(c): c for c in (10, *range(32, 127))}}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", pad_token="<pad>")


def step(last_only: bool):
    folder = os.path.join(HERE, "tiny", "untied")
    model = LlamaForTokenClassification.from_pretrained(folder, num_labels=2, dtype=torch.float64)
    head = fill("score.weight", (2, model.config.hidden_size), 0.3).double()
    with torch.no_grad():
        model.score.weight.copy_(head)
        model.score.bias.zero_()
    model.score.requires_grad_(True)
    config = PeftConfig.from_pretrained(os.path.join(folder, "adapter"))
    config.task_type = None
    model = PeftModel.from_pretrained(model, os.path.join(folder, "adapter"), config=config, is_trainable=True)
    for name, p in model.named_parameters():
        p.data = p.data.double()
        if "score" in name:
            p.requires_grad_(True)
    seen = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            seen["grads"] = {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                seen["loss"] = logs["loss"]

    with tempfile.TemporaryDirectory() as out:
        trainer = PRMTrainer(
            model=model,
            args=PRMConfig(
                output_dir=out, per_device_train_batch_size=2, max_steps=1, learning_rate=0.0, max_grad_norm=1e9, logging_steps=1, report_to="none",
                use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None, train_on_last_step_only=last_only, save_strategy="no", disable_tqdm=True,
            ),
            processing_class=tokenizer(),
            train_dataset=Dataset.from_list(ROWS),
            callbacks=[Keep()],
        )
        data = [trainer.train_dataset[i] for i in range(len(ROWS))]
        batch = {k: v for k, v in trainer.data_collator(data).items()}
        with torch.no_grad():
            loss = trainer.model(**batch).loss
        trainer.train()
    return data, loss, seen


out, tensors = {"header": header("prm.py", trl=trl.__version__, note="float64"), "rows": ROWS, "forms": []}, {}
for last_only in (False, True):
    data, loss, seen = step(last_only)
    # What the trainer logs is rounded to four digits.
    assert abs(seen["loss"] - float(loss)) < 1e-4, (seen["loss"], float(loss))
    form = "last" if last_only else "all"
    norms = {}
    for name, grad in seen["grads"].items():
        short = name.replace("modules_to_save.default.", "").replace("original_module.", "").replace(".default.", ".")
        if "lora_" in short:
            tensors[f"{form}.{short}"] = grad.numpy().astype(np.float32)
            norms[short] = num(grad.norm())
        elif short.endswith("score.weight"):
            assert torch.allclose(grad[0], -grad[1])
            tensors[f"{form}.score.weight"] = grad[1:].numpy().astype(np.float32)
    out["forms"].append({"lastStepOnly": last_only, "loss": num(loss, 12), "inputIds": [d["input_ids"] for d in data], "labels": [d["labels"] for d in data], "norms": norms})
write_json("tiny/prm.json", out)
save_file(tensors, os.path.join(HERE, "tiny", "prm.safetensors"), metadata={"golden": "prm.py"})
print("tensors", len(tensors), [f["loss"] for f in out["forms"]])
