import { SlothError } from "@sloth/core"
import {
  ggufNumber,
  ggufNumbers,
  ggufString,
  type GgufMetadata,
  type GgufTensorView,
  type GgufValue,
  type ModelShape,
} from "@sloth/model"
import { ropeFrequencies, type RopeConfig, type RopeScaling } from "@sloth/tensor"

/** Configuration of the Llama family: Llama 1 to 3.x, Mistral, TinyLlama, SmolLM2 and SmolLM3. */
export interface LlamaConfig extends ModelShape {
  readonly architecture: "llama" | "mistral" | "smollm3"
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly intermediate: number
  readonly rmsNormEps: number
  readonly attentionBias: boolean
  readonly mlpBias: boolean
  /** Positions a row sees; 0 means all. */
  readonly slidingWindow: number
  /** Layers without rotary positions (SmolLM3). */
  readonly withoutRope: readonly number[]
  readonly rope: RopeConfig
  readonly bosTokenId: number | undefined
  readonly eosTokenId: readonly number[]
}

type Raw = Readonly<Record<string, unknown>>

const wrong = (key: string, got: unknown, expected: string): SlothError =>
  new SlothError("SLOTH_MODEL_CONFIG", {
    what: `config.json has ${key} = ${JSON.stringify(got)}, but ${expected}.`,
    next: "Check that the file belongs to a Llama-family model and is whole.",
    fields: { key, got: got === undefined ? null : got },
  })

const integer = (raw: Raw, key: string, fallback?: number): number => {
  const v = raw[key] ?? fallback
  if (typeof v !== "number" || !Number.isInteger(v) || v < 1 || v > 2 ** 31)
    throw wrong(key, raw[key], "a whole number from 1 is needed")
  return v
}
const positive = (raw: Raw, key: string, fallback?: number): number => {
  const v = raw[key] ?? fallback
  if (typeof v !== "number" || !(v > 0) || !Number.isFinite(v)) throw wrong(key, raw[key], "a number above 0 is needed")
  return v
}

const scalingOf = (p: Raw, maxPositions: number): RopeScaling | undefined => {
  const type = String(p["rope_type"] ?? p["type"] ?? "default")
  const original =
    typeof p["original_max_position_embeddings"] === "number" ? p["original_max_position_embeddings"] : maxPositions
  const optional = (key: string) => (typeof p[key] === "number" ? (p[key] as number) : undefined)
  switch (type) {
    case "default":
      return undefined
    case "linear":
      return { type, factor: positive(p, "factor") }
    case "dynamic":
      return { type, factor: positive(p, "factor") }
    case "llama3":
      return {
        type,
        factor: positive(p, "factor"),
        lowFreqFactor: positive(p, "low_freq_factor"),
        highFreqFactor: positive(p, "high_freq_factor"),
        originalMaxPositions: original,
      }
    case "yarn":
      return {
        type,
        factor: positive(p, "factor"),
        originalMaxPositions: original,
        betaFast: optional("beta_fast"),
        betaSlow: optional("beta_slow"),
        attentionFactor: optional("attention_factor"),
        mscale: optional("mscale"),
        mscaleAllDim: optional("mscale_all_dim"),
        truncate: p["truncate"] !== false,
      }
    case "longrope":
      return {
        type,
        shortFactor: p["short_factor"] as number[],
        longFactor: p["long_factor"] as number[],
        originalMaxPositions: original,
        factor: optional("factor"),
        attentionFactor: optional("attention_factor"),
      }
    default:
      throw wrong("rope_scaling.rope_type", type, "only default, linear, dynamic, llama3, yarn and longrope are known")
  }
}

const ids = (v: unknown): number[] =>
  typeof v === "number" ? [v] : Array.isArray(v) ? v.filter((n): n is number => typeof n === "number") : []

/** Reads a Hugging Face config.json of version 4 or 5 of transformers. */
export const fromHuggingFace = (raw: Raw): LlamaConfig => {
  const name = (raw["architectures"] as string[] | undefined)?.[0] ?? "LlamaForCausalLM"
  const architecture = name.startsWith("Mistral") ? "mistral" : name.startsWith("SmolLM3") ? "smollm3" : "llama"
  const act = raw["hidden_act"] ?? "silu"
  if (act !== "silu" && act !== "swish") throw wrong("hidden_act", act, "this family uses silu")
  const hidden = integer(raw, "hidden_size")
  const heads = integer(raw, "num_attention_heads")
  const kvHeads = integer(raw, "num_key_value_heads", heads)
  const headDim = integer(raw, "head_dim", hidden / heads)
  if (heads % kvHeads !== 0) throw wrong("num_key_value_heads", kvHeads, `it must divide the ${heads} heads`)
  if (headDim % 2 !== 0) throw wrong("head_dim", headDim, "it must be even")
  const layers = integer(raw, "num_hidden_layers")
  const maxPositions = integer(raw, "max_position_embeddings", 2048)
  const parameters = (raw["rope_parameters"] ?? raw["rope_scaling"] ?? {}) as Raw
  const theta = positive({ rope_theta: parameters["rope_theta"] ?? raw["rope_theta"] ?? 10000 }, "rope_theta")
  const partial = (parameters["partial_rotary_factor"] ?? raw["partial_rotary_factor"] ?? 1) as number
  const window = raw["sliding_window"]
  // SmolLM3 lists 1 for layers that rotate, 0 for those that do not.
  const ropeLayers = raw["no_rope_layers"]
  let withoutRope: number[] = []
  if (architecture === "smollm3") {
    const interval = integer(raw, "no_rope_layer_interval", 4)
    withoutRope = Array.isArray(ropeLayers)
      ? ropeLayers.flatMap((v, i) => (v === 0 ? [i] : []))
      : Array.from({ length: layers }, (_, i) => i).filter((i) => (i + 1) % interval === 0)
    if (raw["use_sliding_window"] === true)
      throw wrong("use_sliding_window", true, "sliding windows of SmolLM3 differ by layer and are not supported")
  }
  return {
    architecture,
    vocab: integer(raw, "vocab_size"),
    hidden,
    layers,
    maxPositions,
    tied: raw["tie_word_embeddings"] === true || (architecture === "smollm3" && raw["tie_word_embeddings"] !== false),
    heads,
    kvHeads,
    headDim,
    intermediate: integer(raw, "intermediate_size"),
    rmsNormEps: positive(raw, "rms_norm_eps", 1e-6),
    attentionBias: raw["attention_bias"] === true,
    mlpBias: raw["mlp_bias"] === true,
    slidingWindow: architecture === "mistral" && typeof window === "number" ? window : 0,
    withoutRope,
    rope: {
      theta,
      rotary: 2 * Math.floor((headDim * partial) / 2),
      maxPositions,
      scaling: scalingOf(parameters, maxPositions),
    },
    bosTokenId: ids(raw["bos_token_id"])[0],
    eosTokenId: ids(raw["eos_token_id"]),
  }
}

/** config.json as transformers 5 writes it (version 4 reads it too: both spellings of the rotary settings are given). */
export const toHuggingFace = (c: LlamaConfig): Record<string, unknown> => {
  const architectures = { llama: "LlamaForCausalLM", mistral: "MistralForCausalLM", smollm3: "SmolLM3ForCausalLM" }
  const s = c.rope.scaling
  const original =
    s !== undefined && "originalMaxPositions" in s ? { original_max_position_embeddings: s.originalMaxPositions } : {}
  const scaling: Record<string, unknown> | null =
    s === undefined
      ? null
      : s.type === "llama3"
        ? {
            rope_type: s.type,
            factor: s.factor,
            low_freq_factor: s.lowFreqFactor,
            high_freq_factor: s.highFreqFactor,
            ...original,
          }
        : s.type === "yarn"
          ? {
              rope_type: s.type,
              factor: s.factor,
              beta_fast: s.betaFast,
              beta_slow: s.betaSlow,
              attention_factor: s.attentionFactor,
              mscale: s.mscale,
              mscale_all_dim: s.mscaleAllDim,
              truncate: s.truncate,
              ...original,
            }
          : s.type === "longrope"
            ? {
                rope_type: s.type,
                short_factor: s.shortFactor,
                long_factor: s.longFactor,
                factor: s.factor,
                attention_factor: s.attentionFactor,
                ...original,
              }
            : s.type === "factors"
              ? llama3FromFactors(c.rope, s.factors)
              : { rope_type: s.type, factor: s.factor }
  return {
    architectures: [architectures[c.architecture]],
    model_type: c.architecture,
    vocab_size: c.vocab,
    hidden_size: c.hidden,
    intermediate_size: c.intermediate,
    num_hidden_layers: c.layers,
    num_attention_heads: c.heads,
    num_key_value_heads: c.kvHeads,
    head_dim: c.headDim,
    hidden_act: "silu",
    max_position_embeddings: c.maxPositions,
    rms_norm_eps: c.rmsNormEps,
    tie_word_embeddings: c.tied,
    attention_bias: c.attentionBias,
    mlp_bias: c.mlpBias,
    rope_theta: c.rope.theta,
    rope_scaling: scaling,
    rope_parameters: {
      rope_type: "default",
      rope_theta: c.rope.theta,
      ...(c.rope.rotary === c.headDim ? {} : { partial_rotary_factor: c.rope.rotary / c.headDim }),
      ...scaling,
    },
    ...(c.architecture === "mistral" ? { sliding_window: c.slidingWindow || null } : {}),
    ...(c.architecture === "smollm3"
      ? {
          no_rope_layers: Array.from({ length: c.layers }, (_, i) => (c.withoutRope.includes(i) ? 0 : 1)),
          use_sliding_window: false,
        }
      : {}),
    bos_token_id: c.bosTokenId ?? null,
    eos_token_id: c.eosTokenId.length === 1 ? c.eosTokenId[0] : c.eosTokenId.length === 0 ? null : c.eosTokenId,
    use_cache: true,
  }
}

/** The llama3 rule whose factors a GGUF file lists; transformers has no name for arbitrary ones. */
const llama3FromFactors = (rope: RopeConfig, factors: readonly number[]): Record<string, unknown> => {
  const factor = Math.max(...factors)
  for (const [low, high, original] of [[1, 4, 8192]] as const) {
    const rule: RopeScaling = {
      type: "llama3",
      factor,
      lowFreqFactor: low,
      highFreqFactor: high,
      originalMaxPositions: original,
    }
    const made = ropeFrequencies({ ...rope, scaling: rule }, 1).inverse
    const listed = ropeFrequencies(rope, 1).inverse
    if (made.every((f, i) => Math.abs(f / listed[i]! - 1) < 1e-5))
      return {
        rope_type: "llama3",
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
      }
  }
  throw new SlothError("SLOTH_MODEL_CONFIG", {
    what: "The rope factors of this GGUF file follow no rule that config.json can name.",
    next: "Export to GGUF, or start from the safetensors of the base model.",
  })
}

/** Reads GGUF metadata of the architectures "llama" and "smollm3". */
export const fromGguf = (m: GgufMetadata, tensors: GgufTensorView): LlamaConfig => {
  const arch = ggufString(m, "general.architecture") as "llama" | "smollm3"
  const need = (key: string, fallback?: number): number => {
    const v = ggufNumber(m, `${arch}.${key}`) ?? fallback
    if (v === undefined || !Number.isInteger(v) || v < 1 || v > 2 ** 31)
      throw new SlothError("SLOTH_MODEL_CONFIG", {
        what: `The GGUF file has no usable ${arch}.${key}.`,
        why: `Found ${String(v)}.`,
        next: "Download the file again or convert it with a current converter.",
        fields: { key },
      })
    return v
  }
  if ((ggufNumber(m, `${arch}.expert_count`) ?? 0) > 0)
    throw new SlothError("SLOTH_MODEL_CONFIG", {
      what: "This GGUF file is a mixture of experts, which the Llama family plugin does not build.",
      next: "Use a dense model.",
      fields: { key: `${arch}.expert_count` },
    })
  const hidden = need("embedding_length")
  const heads = need("attention.head_count")
  const headDim = need("attention.key_length", hidden / heads)
  const layers = need("block_count")
  const maxPositions = need("context_length")
  const type = ggufString(m, `${arch}.rope.scaling.type`) ?? "none"
  const factor = ggufNumber(m, `${arch}.rope.scaling.factor`)
  const original = ggufNumber(m, `${arch}.rope.scaling.original_context_length`) ?? maxPositions
  let scaling: RopeScaling | undefined
  const factors = tensors.floats("rope_freqs.weight")
  if (factors !== undefined) scaling = { type: "factors", factors }
  else if (type === "linear" && factor !== undefined && factor !== 1) scaling = { type, factor }
  else if (type === "yarn" && factor !== undefined) scaling = { type, factor, originalMaxPositions: original }
  else if (type !== "none" && type !== "linear")
    throw new SlothError("SLOTH_MODEL_CONFIG", {
      what: `The GGUF file scales rotary positions by "${type}", which is not supported for this architecture.`,
      next: "Use the safetensors of the model.",
      fields: { type },
    })
  const vocab =
    ggufNumber(m, `${arch}.vocab_size`) ??
    (m.get("tokenizer.ggml.tokens")?.value as readonly unknown[] | undefined)?.length ??
    need("vocab_size")
  const eos = [ggufNumber(m, "tokenizer.ggml.eos_token_id"), ggufNumber(m, "tokenizer.ggml.eot_token_id")].filter(
    (v): v is number => v !== undefined,
  )
  const kv = ggufNumbers(m, `${arch}.attention.head_count_kv`)
  if (kv !== undefined && new Set(kv).size > 1)
    throw new SlothError("SLOTH_MODEL_CONFIG", {
      what: "The layers of this GGUF file have different numbers of key heads, which is not supported.",
      fields: { kv },
    })
  return {
    architecture: arch,
    vocab,
    hidden,
    layers,
    maxPositions,
    tied: !tensors.has("output.weight"),
    heads,
    kvHeads: kv?.[0] ?? need("attention.head_count_kv", heads),
    headDim,
    intermediate: need("feed_forward_length"),
    rmsNormEps: ggufNumber(m, `${arch}.attention.layer_norm_rms_epsilon`) ?? 1e-6,
    attentionBias: tensors.has("blk.0.attn_q.bias"),
    mlpBias: tensors.has("blk.0.ffn_up.bias"),
    slidingWindow: 0,
    withoutRope: arch === "smollm3" ? Array.from({ length: layers }, (_, i) => i).filter((i) => (i + 1) % 4 === 0) : [],
    rope: {
      theta: ggufNumber(m, `${arch}.rope.freq_base`) ?? 10000,
      rotary: need("rope.dimension_count", headDim),
      maxPositions,
      scaling,
    },
    bosTokenId: ggufNumber(m, "tokenizer.ggml.bos_token_id"),
    eosTokenId: [...new Set(eos)],
  }
}

/** Metadata of an exported GGUF file. Errors: SLOTH_EXPORT_UNSUPPORTED for what llama.cpp's architecture cannot express. */
export const toGguf = (
  c: LlamaConfig,
): {
  metadata: readonly (readonly [string, GgufValue])[]
  tensors: readonly { name: string; values: Float32Array }[]
} => {
  const unsupported = (what: string): SlothError =>
    new SlothError("SLOTH_EXPORT_UNSUPPORTED", {
      what,
      why: "llama.cpp's llama architecture has no field for it.",
      next: "Export safetensors instead.",
    })
  if (c.slidingWindow > 0 && c.slidingWindow < c.maxPositions)
    throw unsupported(`The model attends over a sliding window of ${c.slidingWindow} tokens.`)
  if (c.rope.rotary !== c.headDim) throw unsupported("The model rotates only a part of each head.")
  const arch = c.architecture === "smollm3" ? "smollm3" : "llama"
  if (arch === "smollm3" && c.withoutRope.some((l) => (l + 1) % 4 !== 0))
    throw unsupported("The layers without rotary positions are not every fourth one.")
  const u32 = (key: string, value: number): readonly [string, GgufValue] => [`${arch}.${key}`, { type: "u32", value }]
  const f32 = (key: string, value: number): readonly [string, GgufValue] => [`${arch}.${key}`, { type: "f32", value }]
  const metadata: (readonly [string, GgufValue])[] = [
    ["general.architecture", { type: "string", value: arch }],
    u32("context_length", c.maxPositions),
    u32("embedding_length", c.hidden),
    u32("block_count", c.layers),
    u32("feed_forward_length", c.intermediate),
    u32("attention.head_count", c.heads),
    u32("attention.head_count_kv", c.kvHeads),
    u32("attention.key_length", c.headDim),
    u32("attention.value_length", c.headDim),
    f32("attention.layer_norm_rms_epsilon", c.rmsNormEps),
    u32("rope.dimension_count", c.headDim),
    f32("rope.freq_base", c.rope.theta),
    u32("vocab_size", c.vocab),
  ]
  const tensors: { name: string; values: Float32Array }[] = []
  const s = c.rope.scaling
  const text = (key: string, value: string): readonly [string, GgufValue] => [
    `${arch}.${key}`,
    { type: "string", value },
  ]
  if (s?.type === "linear") metadata.push(text("rope.scaling.type", "linear"), f32("rope.scaling.factor", s.factor))
  else if (s?.type === "yarn") {
    if (
      s.attentionFactor !== undefined ||
      s.mscale !== undefined ||
      (s.betaFast ?? 32) !== 32 ||
      (s.betaSlow ?? 1) !== 1
    )
      throw unsupported("The model changes YaRN's own constants.")
    metadata.push(
      text("rope.scaling.type", "yarn"),
      f32("rope.scaling.factor", s.factor),
      u32("rope.scaling.original_context_length", s.originalMaxPositions),
    )
  } else if (s?.type === "llama3" || s?.type === "factors") {
    const plain = ropeFrequencies({ ...c.rope, scaling: undefined }, 1).inverse
    const scaled = ropeFrequencies(c.rope, 1).inverse
    tensors.push({ name: "rope_freqs.weight", values: Float32Array.from(plain, (f, i) => f / scaled[i]!) })
  } else if (s !== undefined) throw unsupported(`The model scales rotary positions by the rule "${s.type}".`)
  return { metadata, tensors }
}
