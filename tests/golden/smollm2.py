"""SmolLM2-135M goldens: token ids, log-probs, greedy tokens, LoRA gradients, 20 LoRA steps. See README.md."""

import json
import os
import shutil
import tempfile

import torch
from common import HERE, arr, header, num, row_loss, save_tensors, train_with_trainer, write_json
from smollm2_model import load, lora, plain, render

torch.set_num_threads(int(os.environ.get("THREADS", "1")))


def main():
    model, tok, template = load()
    head = header("smollm2.py", model="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32", device="cpu")
    texts = json.load(open(os.path.join(HERE, "smollm2", "inputs.json"), encoding="utf-8"))

    out = []
    for t in texts["texts"]:
        text = render(template, t["messages"]) if "messages" in t else t["text"]
        ids = tok.encode(text, add_special_tokens=False).ids
        assert tok.decode(ids, skip_special_tokens=False) == text and len(ids) >= 200, (t["name"], len(ids))
        with torch.no_grad():
            lp = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1], -1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
        print(t["name"], len(ids), "mean nats", float(-lp.mean()), flush=True)
        out.append({"name": t["name"], **({"messages": t["messages"]} if "messages" in t else {}), "text": text, "tokens": ids, "logprobs": [None] + arr(lp, 7)})
    write_json("smollm2/logprobs.json", {"header": head, "texts": out})

    greedy = []
    for p in texts["prompts"]:
        text = render(template, [{"role": "user", "content": p["chat"]}], True) if "chat" in p else p["text"]
        ids = tok.encode(text, add_special_tokens=False).ids
        got, margins, lps, cache, feed = [], [], [], None, torch.tensor([ids])
        with torch.no_grad():
            for _ in range(64):
                o = model(input_ids=feed, past_key_values=cache, use_cache=True)
                cache = o.past_key_values
                row = torch.log_softmax(o.logits[0, -1], -1)
                top = row.topk(2)
                got.append(int(top.indices[0]))
                lps.append(float(top.values[0]))
                margins.append(float(top.values[0] - top.values[1]))
                feed = torch.tensor([[got[-1]]])
        stop = next((k for k, t in enumerate(got) if t == 2), None)
        print(repr(text[-40:]), "->", repr(tok.decode(got, skip_special_tokens=False)), "margin", min(margins), "stop", stop, flush=True)
        greedy.append({"prompt": text, "tokens": ids, "greedy": got, "logprobs": arr(lps, 7), "firstStop": stop, "smallestMargin": num(min(margins), 4), "text": tok.decode(got, skip_special_tokens=False)})
    write_json("smollm2/greedy.json", {"header": {**head, "note": "64 tokens each, end tokens do not stop; smallestMargin in nats between best and second"}, "prompts": greedy})

    all_ids = [t["tokens"] for t in out]
    batch = [{"tokens": all_ids[k][:96 - 7 * k], "mask": [0] * (10 * k) + [1] * (96 - 17 * k)} for k in range(4)]
    # In float64 (weights and adapter stay their f32 values): torch's own f32 gradients are up to 2e-4 away from these, for its log_softmax is biased.
    m = lora(model).double()
    loss, scored = row_loss(m, batch)
    loss.backward()
    grads = {plain(n): p.grad.detach().float() for n, p in m.named_parameters() if p.requires_grad}
    full = [
        "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.15.mlp.gate_proj.lora_A.weight", "base_model.model.model.layers.29.self_attn.v_proj.lora_B.weight",
    ]
    names = sorted(grads)
    index = lambda n: [(k * 2654435761 + 12345) % n for k in range(64)]
    tens = {f"grad.{n}": grads[n] for n in full}
    tens["samples"] = torch.stack([grads[n].flatten()[index(grads[n].numel())] for n in names])
    save_tensors("smollm2/lora-grad.safetensors", tens, head)
    write_json("smollm2/lora-grad.json", {
        "header": {**head, "formula": "A = fill(name, 1/sqrt(in)); B = fill(name, 0.02); r 16; alpha 32; all linear layers but lm_head", "sampleIndex": "(k * 2654435761 + 12345) mod size, k = 0..63, row-major"},
        "rows": batch, "loss": num(float(loss.detach())), "scored": scored, "full": full, "tensors": [{"name": n, "shape": list(grads[n].shape), "norm": num(grads[n].double().norm())} for n in names],
        "gradNorm": num(torch.sqrt(sum((g.double() ** 2).sum() for g in grads.values()))),
    })
    m = m.unload().float()

    rows = []
    for k in range(80):
        src = all_ids[(k * 3) % 10]
        start = (k * 17) % 90
        n = 24 + (k * 29) % 105
        toks = src[start : start + n]
        cut = (k % 4) * 6
        rows.append({"tokens": toks, "mask": [0] * cut + [1] * (len(toks) - cut)})
    assert max(len(r["tokens"]) for r in rows) <= 128
    work = tempfile.mkdtemp()
    m = lora(m, zero_b=True)
    steps = train_with_trainer(m, rows, 20, 4, 2e-4, 0.0, work)
    shutil.rmtree(work)
    for s in steps:
        print(s)
    norms = [{"name": plain(n), "norm": num(p.detach().double().norm())} for n, p in m.named_parameters() if p.requires_grad and "lora_B" in n]
    write_json("smollm2/lora-steps.json", {
        "header": {**head, "formula": "A = fill(name, 1/sqrt(in)); B = 0; r 16; alpha 32; all linear layers but lm_head"},
        "config": {"batch": 4, "learningRate": 2e-4, "schedule": "linear", "warmup": 0, "clip": 1.0, "weightDecay": 0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "steps": 20},
        "rows": rows, "steps": steps, "finalBNorms": norms,
    })


main()
