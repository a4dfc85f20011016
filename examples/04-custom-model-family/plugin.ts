import { definePlugin } from "@sloth/core"
import type { ModelFamily } from "@sloth/model"
import { fromGguf, fromHuggingFace, toGguf, toHuggingFace, type Qwen2Config } from "./config.ts"
import { build } from "./model.ts"

/** The Qwen2 family (Qwen2 and Qwen2.5, dense), written outside Sloth's repository as far as its code knows. */
export const qwen2Family: ModelFamily<Qwen2Config> = {
  name: "qwen2",
  architectures: ["Qwen2ForCausalLM"],
  ggufArchitectures: ["qwen2"],
  fromHuggingFace,
  fromGguf,
  toHuggingFace,
  toGguf,
  build,
  // One table, read in both directions. llama.cpp rotates halves for this architecture, so no rows are interleaved.
  weights: [
    { huggingFace: "model.embed_tokens.weight", gguf: "token_embd.weight" },
    { huggingFace: "model.norm.weight", gguf: "output_norm.weight" },
    { huggingFace: "lm_head.weight", gguf: "output.weight" },
    { huggingFace: "model.layers.{i}.input_layernorm.weight", gguf: "blk.{i}.attn_norm.weight" },
    { huggingFace: "model.layers.{i}.self_attn.q_proj.weight", gguf: "blk.{i}.attn_q.weight" },
    { huggingFace: "model.layers.{i}.self_attn.q_proj.bias", gguf: "blk.{i}.attn_q.bias" },
    { huggingFace: "model.layers.{i}.self_attn.k_proj.weight", gguf: "blk.{i}.attn_k.weight" },
    { huggingFace: "model.layers.{i}.self_attn.k_proj.bias", gguf: "blk.{i}.attn_k.bias" },
    { huggingFace: "model.layers.{i}.self_attn.v_proj.weight", gguf: "blk.{i}.attn_v.weight" },
    { huggingFace: "model.layers.{i}.self_attn.v_proj.bias", gguf: "blk.{i}.attn_v.bias" },
    { huggingFace: "model.layers.{i}.self_attn.o_proj.weight", gguf: "blk.{i}.attn_output.weight" },
    { huggingFace: "model.layers.{i}.post_attention_layernorm.weight", gguf: "blk.{i}.ffn_norm.weight" },
    { huggingFace: "model.layers.{i}.mlp.gate_proj.weight", gguf: "blk.{i}.ffn_gate.weight" },
    { huggingFace: "model.layers.{i}.mlp.up_proj.weight", gguf: "blk.{i}.ffn_up.weight" },
    { huggingFace: "model.layers.{i}.mlp.down_proj.weight", gguf: "blk.{i}.ffn_down.weight" },
  ],
}

/** The plugin; `sloth --plugin ./plugin.ts` loads it by its default export. */
export const qwen2 = () =>
  definePlugin({
    name: "sloth-plugin-qwen2-example",
    version: "1.0.0",
    apiVersion: 1,
    sloth: "^0.1.0",
    provides: { models: [qwen2Family] },
  })

export default qwen2()
