"""Writes dynamic-map.json: the 8-bit dynamic maps as torch computes them in f32 (definition of bitsandbytes' create_dynamic_map).

Run: python make-dynamic-map.py   (needs torch)
"""
import json
from pathlib import Path

import torch


def dynamic_map(signed: bool) -> torch.Tensor:
    parts = [torch.tensor([0.0, 1.0])]
    for i in range(7):
        edges = torch.linspace(0.1, 1, (2**i if signed else 2 ** (i + 1)) + 1, dtype=torch.float32)
        values = 10.0 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2.0)
        parts += [values, -values] if signed else [values]
    return torch.cat(parts).sort().values


out = {"generator": "packages/tensor/src/reference/golden/make-dynamic-map.py", "versions": {"torch": torch.__version__}}
for name, signed in (("signed", True), ("unsigned", False)):
    out[name] = dynamic_map(signed).numpy().tobytes().hex()
Path(__file__).with_name("dynamic-map.json").write_text(json.dumps(out, indent=1) + "\n")
