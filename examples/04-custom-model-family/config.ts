import { SlothError } from "@sloth/core"
import { ggufNumber, type GgufMetadata, type GgufTensorView, type GgufValue, type ModelShape } from "@sloth/model"

/** Configuration of Qwen2: a Llama whose query, key and value projections have biases. */
export interface Qwen2Config extends ModelShape {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly intermediate: number
  readonly rmsNormEps: number
  readonly ropeTheta: number
  readonly bosTokenId: number | undefined
  readonly eosTokenId: number | undefined
}

type Raw = Readonly<Record<string, unknown>>

/** A setting that this family cannot honour is an error: nothing is ignored in silence. */
const wrong = (key: string, found: unknown, expected: string): SlothError =>
  new SlothError("SLOTH_MODEL_CONFIG", {
    what: `${key} is ${JSON.stringify(found) ?? "missing"}, but ${expected}.`,
    next: "Check that the file belongs to a Qwen2 model.",
    fields: { key, found: found ?? null },
  })

const count = (raw: Raw, key: string): number => {
  const value = raw[key]
  if (typeof value === "number" && Number.isInteger(value) && value > 0) return value
  throw wrong(key, value, "a whole number above 0 is needed")
}

const optional = (value: unknown): number | undefined => (typeof value === "number" ? value : undefined)

const checked = (config: Qwen2Config): Qwen2Config => {
  const { heads, kvHeads, headDim } = config
  if (heads % kvHeads !== 0) throw wrong("num_key_value_heads", kvHeads, `it must divide the ${heads} heads`)
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) throw wrong("head_dim", headDim, "it must be even")
  return config
}

/** Reads config.json, as transformers 4 and 5 write it. */
export const fromHuggingFace = (raw: Raw): Qwen2Config => {
  if (raw["use_sliding_window"] === true) throw wrong("use_sliding_window", true, "this family attends over all tokens")
  const rope = (raw["rope_parameters"] ?? raw["rope_scaling"] ?? {}) as Raw
  const rule = rope["rope_type"] ?? rope["type"] ?? "default"
  if (rule !== "default") throw wrong("rope_type", rule, "only default is read here")
  const hidden = count(raw, "hidden_size")
  const heads = count(raw, "num_attention_heads")
  return checked({
    vocab: count(raw, "vocab_size"),
    hidden,
    layers: count(raw, "num_hidden_layers"),
    maxPositions: count(raw, "max_position_embeddings"),
    tied: raw["tie_word_embeddings"] === true,
    heads,
    kvHeads: raw["num_key_value_heads"] === undefined ? heads : count(raw, "num_key_value_heads"),
    headDim: hidden / heads,
    intermediate: count(raw, "intermediate_size"),
    rmsNormEps: optional(raw["rms_norm_eps"]) ?? 1e-6,
    ropeTheta: optional(rope["rope_theta"]) ?? optional(raw["rope_theta"]) ?? 10000,
    bosTokenId: optional(raw["bos_token_id"]),
    eosTokenId: optional(raw["eos_token_id"]),
  })
}

/** Writes config.json. */
export const toHuggingFace = (c: Qwen2Config): Record<string, unknown> => ({
  architectures: ["Qwen2ForCausalLM"],
  model_type: "qwen2",
  vocab_size: c.vocab,
  hidden_size: c.hidden,
  intermediate_size: c.intermediate,
  num_hidden_layers: c.layers,
  num_attention_heads: c.heads,
  num_key_value_heads: c.kvHeads,
  hidden_act: "silu",
  max_position_embeddings: c.maxPositions,
  rms_norm_eps: c.rmsNormEps,
  rope_theta: c.ropeTheta,
  tie_word_embeddings: c.tied,
  use_sliding_window: false,
  bos_token_id: c.bosTokenId ?? null,
  eos_token_id: c.eosTokenId ?? null,
})

/** Reads the metadata of a GGUF file of the architecture "qwen2". */
export const fromGguf = (m: GgufMetadata, tensors: GgufTensorView): Qwen2Config => {
  const need = (key: string): number => {
    const value = ggufNumber(m, `qwen2.${key}`)
    if (value === undefined) throw wrong(`qwen2.${key}`, undefined, "it is needed")
    return value
  }
  const hidden = need("embedding_length")
  const heads = need("attention.head_count")
  const tokens = m.get("tokenizer.ggml.tokens")?.value as readonly unknown[] | undefined
  return checked({
    vocab: tokens?.length ?? need("vocab_size"),
    hidden,
    layers: need("block_count"),
    maxPositions: need("context_length"),
    tied: !tensors.has("output.weight"),
    heads,
    kvHeads: ggufNumber(m, "qwen2.attention.head_count_kv") ?? heads,
    headDim: hidden / heads,
    intermediate: need("feed_forward_length"),
    rmsNormEps: need("attention.layer_norm_rms_epsilon"),
    ropeTheta: ggufNumber(m, "qwen2.rope.freq_base") ?? 10000,
    bosTokenId: ggufNumber(m, "tokenizer.ggml.bos_token_id"),
    eosTokenId: ggufNumber(m, "tokenizer.ggml.eos_token_id"),
  })
}

/** The metadata of a GGUF file, as llama.cpp reads it. */
export const toGguf = (c: Qwen2Config): { metadata: (readonly [string, GgufValue])[]; tensors: [] } => {
  const u32 = (key: string, value: number): readonly [string, GgufValue] => [`qwen2.${key}`, { type: "u32", value }]
  const f32 = (key: string, value: number): readonly [string, GgufValue] => [`qwen2.${key}`, { type: "f32", value }]
  return {
    metadata: [
      ["general.architecture", { type: "string", value: "qwen2" }],
      u32("context_length", c.maxPositions),
      u32("embedding_length", c.hidden),
      u32("block_count", c.layers),
      u32("feed_forward_length", c.intermediate),
      u32("attention.head_count", c.heads),
      u32("attention.head_count_kv", c.kvHeads),
      f32("attention.layer_norm_rms_epsilon", c.rmsNormEps),
      f32("rope.freq_base", c.ropeTheta),
      u32("vocab_size", c.vocab),
    ],
    tensors: [],
  }
}
