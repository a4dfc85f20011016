"""Writes weight-formats.json: bytes of every weight format as gguf-py encodes and decodes them.

Run: python make-golden.py   (needs numpy and gguf)
"""
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T, quants

rng = np.random.default_rng(20261121)
rows = [
    rng.standard_normal(32),
    rng.standard_normal(32) * 1e-3,
    rng.standard_normal(32) * 1e4,
    np.zeros(32),
    np.full(32, 0.37),
    np.linspace(-1, 1, 32),
    np.linspace(-8, 7.5, 32),            # ties of the 4-bit codes
    np.concatenate([[127.0], np.arange(31) - 15.5]),  # ties of the 8-bit codes
    np.concatenate([[-3.0, 3.0], np.zeros(30)]),      # equal magnitudes: the first one decides
    rng.standard_normal(32) * 2.0 ** rng.integers(-30, 10, 32),
]
x = np.stack(rows).astype(np.float32)
# values for the 16-bit floats: ties, subnormals, overflow, infinities, NaN, signed zero
special = np.array(
    [0.0, -0.0, 1.0, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 65504, 65519.996, 65520, 1e30, -1e30, 3.4028235e38,
     2**-14, 2**-14 - 2**-25, 2**-24, 2**-25, 2**-25 * 1.5, 3 * 2**-25, 2**-26, 5.9e-8, -6.1e-5, 1e-40, -1e-45, np.inf, -np.inf,
     1 / 3, -2 / 3, 1e-7, 123.456, -0.1, 7e-5], dtype=np.float32)


def case(a, t):
    a = np.ascontiguousarray(a, dtype=np.float32)
    q = np.ascontiguousarray(a.astype(np.float16)).view(np.uint8) if t == T.F16 else quants.quantize(a, t)
    back = quants.dequantize(q, t).astype(np.float32)
    return {"input": a.tobytes().hex(), "bytes": np.ascontiguousarray(q).view(np.uint8).tobytes().hex(), "values": back.tobytes().hex()}


out = {
    "generator": "packages/tensor/src/formats/golden/make-golden.py",
    "versions": {"gguf": version("gguf"), "numpy": version("numpy")},
    "formats": {
        "f16": [case(x, T.F16), case(special, T.F16)],
        "bf16": [case(x, T.BF16), case(special, T.BF16)],
        "q4_0": [case(x, T.Q4_0)],
        "q4_1": [case(x, T.Q4_1)],
        "q8_0": [case(x, T.Q8_0)],
    },
}
Path(__file__).with_name("weight-formats.json").write_text(json.dumps(out, indent=1) + "\n")
