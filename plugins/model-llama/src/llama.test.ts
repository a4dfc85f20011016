import { describe, expect, test } from "bun:test"
import { describeModel } from "@sloth/testing"
import { fromHuggingFace, llamaFamily } from "./index.ts"

const base = {
  architectures: ["LlamaForCausalLM"],
  vocab_size: 97,
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  bos_token_id: 1,
  eos_token_id: 2,
}

describeModel(llamaFamily, {
  plain: { config: base, expectConfig: { headDim: 6, kvHeads: 2, tied: false } },
  "tied, one key head, biases": {
    config: {
      ...base,
      num_key_value_heads: 1,
      head_dim: 8,
      tie_word_embeddings: true,
      attention_bias: true,
      mlp_bias: true,
    },
    gguf: false,
    expectConfig: { headDim: 8, tied: true },
  },
  "llama3 scaling": {
    config: {
      ...base,
      rope_theta: 500000,
      rope_scaling: {
        rope_type: "llama3",
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 64,
      },
    },
  },
  "yarn, version 5 spelling": {
    config: {
      ...base,
      rope_parameters: { rope_type: "yarn", rope_theta: 1e4, factor: 4, original_max_position_embeddings: 32 },
    },
  },
  mistral: {
    config: { ...base, architectures: ["MistralForCausalLM"], sliding_window: 4 },
    gguf: false,
    expectConfig: { slidingWindow: 4 },
  },
  smollm3: {
    config: {
      ...base,
      architectures: ["SmolLM3ForCausalLM"],
      num_hidden_layers: 4,
      no_rope_layers: [1, 1, 1, 0],
      tie_word_embeddings: true,
    },
    expectConfig: { withoutRope: [3] },
  },
})

describe("configurations that cannot be honoured", () => {
  const code = (raw: Record<string, unknown>): string => {
    try {
      fromHuggingFace({ ...base, ...raw })
      return "none"
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  for (const [name, raw] of Object.entries<Record<string, unknown>>({
    "another activation": { hidden_act: "relu" },
    "key heads that do not divide": { num_key_value_heads: 3 },
    "an odd head": { head_dim: 7 },
    "no size": { hidden_size: undefined },
    "absurd layers": { num_hidden_layers: 1e12 },
    "an unknown rope rule": { rope_scaling: { rope_type: "spiral", factor: 2 } },
    "sliding windows by layer": { architectures: ["SmolLM3ForCausalLM"], use_sliding_window: true },
  }))
    test(name, () => expect(code(raw)).toBe("SLOTH_MODEL_CONFIG"))
})
