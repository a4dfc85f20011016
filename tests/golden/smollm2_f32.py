"""How far torch's own f32 gradients are from the float64 ones of smollm2/lora-grad.*, by the measure that tests use for Sloth. Writes smollm2/lora-grad-f32.json. See README.md."""

import json
import os

import torch
from common import HERE, header, num, row_loss, write_json
from safetensors.torch import load_file
from smollm2_model import load, lora, plain

torch.set_num_threads(int(os.environ.get("THREADS", "1")))


def relative(got, want):
    """Norm of the difference over the norm of what is wanted."""
    got, want = got.double().flatten(), want.double().flatten()
    return float((got - want).norm() / want.norm())


class Exact(torch.nn.Module):
    """The same f32 model whose logits go into the loss as float64: everything but log_softmax is torch's f32."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        out = self.model(**inputs)
        out.logits = out.logits.double()
        return out


def measure(m, run, golden, files):
    m.zero_grad()
    loss, _ = row_loss(run, golden["rows"])
    loss.backward()
    grads = {plain(n): p.grad.detach() for n, p in m.named_parameters() if p.requires_grad}
    worst, where = 0.0, None
    for i, t in enumerate(golden["tensors"]):
        g = grads[t["name"]]
        index = [(k * 2654435761 + 12345) % g.numel() for k in range(64)]
        errors = [abs(float(g.double().norm()) / t["norm"] - 1), relative(g.flatten()[index], files["samples"][i])]
        if t["name"] in golden["full"]:
            errors.append(relative(g, files[f"grad.{t['name']}"]))
        if max(errors) > worst:
            worst, where = max(errors), t["name"]
    return {"worst": num(worst), "tensor": where, "loss": num(abs(float(loss.detach()) - golden["loss"]))}


def main():
    golden = json.load(open(os.path.join(HERE, "smollm2", "lora-grad.json"), encoding="utf-8"))
    files = load_file(os.path.join(HERE, "smollm2", "lora-grad.safetensors"))
    model, _, _ = load()
    m = lora(model)
    result = {"float32": measure(m, m, golden, files), "float64LogSoftmax": measure(m, Exact(m), golden, files)}
    write_json("smollm2/lora-grad-f32.json", {"header": header("smollm2_f32.py", model="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32", device="cpu"), **result})
    print(result)


main()
