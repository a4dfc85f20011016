"""Tiny Llama goldens: model folders, logits, log-probs, every gradient, LoRA adapter, 20 optimizer steps. See README.md."""

import copy
import json
import os
import shutil
import tempfile

import torch
from common import HERE, arr, fill, header, num, row_loss, save_tensors, train_with_trainer, write_json
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)

VOCAB = 131
COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 80, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32", "initializer_range": 0.02,
}
# `untied`: headDim = hidden / heads = 12, two layers. `tied`: explicit head_dim 16 (q is 64 wide, wider than hidden).
# `llama3`: one layer, tied, llama3 rope scaling that bends within the test's positions. Config keys are in three historical styles.
VARIANTS = {
    "untied": {"num_hidden_layers": 2, "max_position_embeddings": 256, "rope_theta": 10000.0, "tie_word_embeddings": False},
    "tied": {"num_hidden_layers": 2, "max_position_embeddings": 256, "head_dim": 16, "tie_word_embeddings": True,
             "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
    "llama3": {"num_hidden_layers": 1, "max_position_embeddings": 512, "rope_theta": 500000.0, "tie_word_embeddings": True,
               "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
}


def weights(model):
    sd = {}
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            sd[name] = fill(name, p.shape, 0.2, 1.0)
        elif name.startswith("model.embed_tokens"):
            sd[name] = fill(name, p.shape, 0.5)
        else:
            sd[name] = fill(name, p.shape, 2.0 / p.shape[1] ** 0.5)
    return sd


def load(folder):
    return LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def tokens(seed, n):
    return [int((seed * 37 + k * k * 11 + k * 29) % (VOCAB - 3)) + 3 for k in range(n)]


def rows(n):
    out = []
    for r in range(n):
        length = 5 + (r * 7) % 19
        prompt = (r * 3) % 4 if r % 5 else length // 2
        # every row starts alike and counts upward, so that there is something to learn
        toks = [1] + [3 + (r * 5 + 2 * k) % (VOCAB - 3) for k in range(length - 2)] + [2]
        out.append({"tokens": toks, "mask": [0 if k < prompt else 1 for k in range(length)]})
    return out


def grads_of(model, pair):
    model.zero_grad()
    loss, scored = row_loss(model, pair)
    loss.backward()
    return float(loss.detach()), scored, {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def decayed(m):
    """The parameters that transformers.Trainer gives weight decay."""
    from transformers import Trainer

    return set(Trainer.get_decay_parameter_names(None, m))


def plain(n):
    return n.replace(".default.", ".")


def main():
    work = tempfile.mkdtemp()
    for variant, extra in VARIANTS.items():
        folder = os.path.join(HERE, "tiny", variant)
        os.makedirs(folder, exist_ok=True)
        config = {**COMMON, **extra}
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f, indent=2, sort_keys=True)
            f.write("\n")
        sd = weights(LlamaForCausalLM(LlamaConfig.from_pretrained(folder)))
        save_file(sd, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        model = load(folder).eval()
        for n, p in model.named_parameters():
            assert torch.equal(p, sd[n]), n
        lens = (23, 14) if variant != "llama3" else (150, 40)
        pair = [{"tokens": tokens(1, lens[0]), "mask": [0] * 6 + [1] * (lens[0] - 6)}, {"tokens": tokens(2, lens[1]), "mask": [1] * lens[1]}]
        out, tens = {"header": header("tiny.py", variant=variant)}, {}
        out["rows"] = pair
        lps = []
        with torch.no_grad():
            for k, r in enumerate(pair):
                ids = torch.tensor([r["tokens"]])
                logits = model(input_ids=ids).logits[0]
                tens[f"logits.{k}"] = logits[-24:]
                lps.append([None] + arr(torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None])[:, 0]))
        out["logprobs"] = lps
        loss, scored, g = grads_of(model, pair)
        out["full"] = {"loss": num(loss), "scored": scored, "gradNorm": num(torch.sqrt(sum((v.double() ** 2).sum() for v in g.values())))}
        tens.update({f"grad.{n}": v for n, v in g.items()})

        # the adapter: r 4, alpha 8, all linear layers, B not zero
        base = load(folder)
        peft = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"))
        with torch.no_grad():
            for n, p in peft.named_parameters():
                if "lora_" in n:
                    p.copy_(fill(plain(n), p.shape, 1 / p.shape[1] ** 0.5 if "lora_A" in n else 0.1))
        adapter = os.path.join(folder, "adapter")
        shutil.rmtree(adapter, ignore_errors=True)
        peft.save_pretrained(adapter)
        # no path of the machine, and a fixed order
        with open(os.path.join(adapter, "adapter_config.json")) as f:
            adapter_config = json.load(f)
        adapter_config["base_model_name_or_path"] = None
        adapter_config["target_modules"].sort()
        with open(os.path.join(adapter, "adapter_config.json"), "w") as f:
            json.dump(adapter_config, f, indent=2, sort_keys=True)
            f.write("\n")
        for extra_file in os.listdir(adapter):
            if extra_file not in ("adapter_config.json", "adapter_model.safetensors"):
                os.remove(os.path.join(adapter, extra_file))
        with torch.no_grad():
            for k, r in enumerate(pair):
                tens[f"lora.logits.{k}"] = peft(input_ids=torch.tensor([r["tokens"]])).logits[0][-24:]
        loss, scored, g = grads_of(peft, pair)
        g = {plain(n): v for n, v in g.items()}
        assert set(g) == set(load_file(os.path.join(adapter, "adapter_model.safetensors"))), "adapter names"
        out["lora"] = {"loss": num(loss), "scored": scored, "gradNorm": num(torch.sqrt(sum((v.double() ** 2).sum() for v in g.values()))), "r": 4, "alpha": 8}
        tens.update({f"lora.grad.{n}": v for n, v in g.items()})

        # 20 optimizer steps of 4 rows
        train_rows = rows(80)
        runs = {}
        final = {}
        plans = [("full", 3e-3, 0.0), ("full-wd", 3e-3, 0.01), ("lora", 1e-2, 0.0), ("lora-wd", 1e-2, 0.01)] if variant != "llama3" else [("lora", 1e-2, 0.0)]
        for name, lr, wd in plans:
            m = load(folder)
            if name.startswith("lora"):
                m = PeftModel.from_pretrained(m, adapter, is_trainable=True)
            steps = train_with_trainer(m, copy.deepcopy(train_rows), 20, 4, lr, wd, work)
            decay = sorted(plain(n) for n, p in m.named_parameters() if p.requires_grad and n in decayed(m))
            still = sorted(plain(n) for n, p in m.named_parameters() if p.requires_grad and n not in decayed(m))
            runs[name] = {"learningRate": lr, "weightDecay": wd, "decayed": "all" if not still else decay, "notDecayed": still, "steps": steps}
            for n, p in m.named_parameters():
                if p.requires_grad and (name.startswith("lora") or n in ("model.layers.0.self_attn.q_proj.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight")):
                    final[f"final.{name}.{plain(n)}"] = p.detach()
        tens.update(final)
        out["trainRows"] = train_rows
        out["batch"] = 4
        for k, v in runs.items():
            out[f"run:{k}"] = v
            print(variant, k, v["steps"][0], v["steps"][-1])
        write_json(f"tiny/{variant}/golden.json", out)
        save_tensors(f"tiny/{variant}/golden.safetensors", tens, out["header"])
    shutil.rmtree(work)


main()
