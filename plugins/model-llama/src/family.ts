import type { ModelFamily } from "@sloth/model"
import { fromGguf, fromHuggingFace, toGguf, toHuggingFace, type LlamaConfig } from "./config.ts"
import { build } from "./model.ts"

/** The Llama family: Llama 1 to 3.x, Mistral, TinyLlama, SmolLM2 and SmolLM3. */
export const llamaFamily: ModelFamily<LlamaConfig> = {
  name: "llama",
  architectures: ["LlamaForCausalLM", "MistralForCausalLM", "SmolLM3ForCausalLM"],
  ggufArchitectures: ["llama", "smollm3"],
  fromHuggingFace,
  fromGguf,
  toHuggingFace,
  toGguf,
  build,
  weights: [
    { huggingFace: "model.embed_tokens.weight", gguf: "token_embd.weight" },
    { huggingFace: "model.norm.weight", gguf: "output_norm.weight" },
    { huggingFace: "lm_head.weight", gguf: "output.weight" },
    { huggingFace: "model.layers.{i}.input_layernorm.weight", gguf: "blk.{i}.attn_norm.weight" },
    {
      huggingFace: "model.layers.{i}.self_attn.q_proj.weight",
      gguf: "blk.{i}.attn_q.weight",
      permute: (c) => ({ heads: c.heads }),
    },
    {
      huggingFace: "model.layers.{i}.self_attn.k_proj.weight",
      gguf: "blk.{i}.attn_k.weight",
      permute: (c) => ({ heads: c.kvHeads }),
    },
    { huggingFace: "model.layers.{i}.self_attn.v_proj.weight", gguf: "blk.{i}.attn_v.weight" },
    { huggingFace: "model.layers.{i}.self_attn.o_proj.weight", gguf: "blk.{i}.attn_output.weight" },
    {
      huggingFace: "model.layers.{i}.self_attn.q_proj.bias",
      gguf: "blk.{i}.attn_q.bias",
      permute: (c) => ({ heads: c.heads }),
    },
    {
      huggingFace: "model.layers.{i}.self_attn.k_proj.bias",
      gguf: "blk.{i}.attn_k.bias",
      permute: (c) => ({ heads: c.kvHeads }),
    },
    { huggingFace: "model.layers.{i}.self_attn.v_proj.bias", gguf: "blk.{i}.attn_v.bias" },
    { huggingFace: "model.layers.{i}.self_attn.o_proj.bias", gguf: "blk.{i}.attn_output.bias" },
    { huggingFace: "model.layers.{i}.post_attention_layernorm.weight", gguf: "blk.{i}.ffn_norm.weight" },
    { huggingFace: "model.layers.{i}.mlp.gate_proj.weight", gguf: "blk.{i}.ffn_gate.weight" },
    { huggingFace: "model.layers.{i}.mlp.up_proj.weight", gguf: "blk.{i}.ffn_up.weight" },
    { huggingFace: "model.layers.{i}.mlp.down_proj.weight", gguf: "blk.{i}.ffn_down.weight" },
    { huggingFace: "model.layers.{i}.mlp.gate_proj.bias", gguf: "blk.{i}.ffn_gate.bias" },
    { huggingFace: "model.layers.{i}.mlp.up_proj.bias", gguf: "blk.{i}.ffn_up.bias" },
    { huggingFace: "model.layers.{i}.mlp.down_proj.bias", gguf: "blk.{i}.ffn_down.bias" },
  ],
}
