"""RoPE tables of transformers (LlamaRotaryEmbedding, float32) for every scaling type. See README.md."""

import torch
from common import arr, header, num, write_json
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

POSITIONS = [0, 1, 2, 7, 63, 100, 1000, 5000]
LONG = [1.0 + 0.37 * k for k in range(8)]
SHORT = [1.0 + 0.05 * k for k in range(8)]
CASES = [
    ("default", {"rope_type": "default"}, 2048, 10000.0, None),
    ("linear", {"rope_type": "linear", "factor": 4.0}, 2048, 10000.0, None),
    ("dynamic, within", {"rope_type": "dynamic", "factor": 2.0}, 2048, 10000.0, 1500),
    ("dynamic, beyond", {"rope_type": "dynamic", "factor": 2.0}, 2048, 10000.0, 5001),
    ("llama3 (3.1 8B values)", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, 131072, 500000.0, None),
    ("llama3 (3.2 1B values)", {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, 131072, 500000.0, None),
    ("yarn", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048, 10000.0, None),
    ("yarn, betas", {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 1024, "beta_fast": 16.0, "beta_slow": 2.0}, 8192, 10000.0, None),
    ("yarn, attention_factor", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "attention_factor": 0.8}, 2048, 10000.0, None),
    ("yarn, mscale", {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 256, "mscale": 1.0, "mscale_all_dim": 0.7}, 10240, 10000.0, None),
    ("yarn, no truncate", {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 256, "truncate": False, "beta_fast": 32.0, "beta_slow": 1.0}, 8192, 150000.0, None),
    ("longrope, short", {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 4096}, 16384, 10000.0, 4000),
    ("longrope, long", {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 4096}, 16384, 10000.0, 5001),
    ("longrope, attention_factor", {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 4096, "attention_factor": 1.3}, 16384, 10000.0, 5001),
]

cases = []
for name, scaling, max_pos, theta, seq_len in CASES:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=max_pos, rope_parameters={"rope_theta": theta, **scaling})
    rope = LlamaRotaryEmbedding(config)
    positions = [p for p in POSITIONS if seq_len is None or p < seq_len]
    # the scaling types that look at the length see the largest position of the call
    ids = positions + ([seq_len - 1] if seq_len is not None and seq_len - 1 not in positions else [])
    cos, sin = rope(torch.zeros(1, dtype=torch.float32), torch.tensor([ids]))
    half = cos.shape[-1] // 2
    assert torch.equal(cos[..., :half], cos[..., half:])
    cases.append({
        "name": name, "headDim": 16, "theta": theta, "maxPositionEmbeddings": max_pos, "scaling": scaling, "seqLen": seq_len,
        "inverseFrequencies": arr(rope.inv_freq), "attentionFactor": num(rope.attention_scaling), "positions": ids,
        "cos": arr(cos[0, :, :half]), "sin": arr(sin[0, :, :half]),
    })
write_json("rope.json", {"header": header("rope.py"), "cases": cases})
