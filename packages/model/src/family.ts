import type { ForwardContext, ModuleBuilder, Tensor, WeightRef } from "@sloth/tensor"
import type { GgufMetadata, GgufValue } from "./gguf-types.ts"

/** What every causal language model says about itself, whatever its family. */
export interface ModelShape {
  readonly vocab: number
  readonly hidden: number
  readonly layers: number
  /** Longest text the model was made for, in tokens. */
  readonly maxPositions: number
  /** True when the output layer is the embedding table. */
  readonly tied: boolean
}

/** How final hidden states become logits: softcap(logitScale · h · Wᵀ). */
export interface Head {
  readonly weight: WeightRef
  readonly softcap: number
  readonly logitScale: number
}

/** The modules of one model, built by its family. */
export interface ModelBody {
  /** Token ids i32 [tokens] to final, normalised hidden states [tokens, hidden]. */
  forward(ctx: ForwardContext, tokens: Tensor): Tensor
  readonly head: Head
  /** Width of the key and value cache of each layer. */
  readonly cache: readonly { readonly kvHeads: number; readonly headDim: number }[]
}

/** Rows of a weight that GGUF stores in another order. */
export interface HeadPermutation {
  /** Heads whose rows were re-ordered from "rotate half" to interleaved pairs. */
  readonly heads: number
}

/**
 * One line of a family's weight table, read in both directions. `{i}` stands for the layer number.
 * `permute` says that GGUF interleaves the rows of each head (llama.cpp's conversion of Llama); it undoes itself on loading.
 */
export interface WeightMapping<C> {
  readonly huggingFace: string
  readonly gguf: string
  permute?(config: C): HeadPermutation
}

/** What a family may ask about the tensors of a GGUF file besides its metadata: biases, an own output layer, rope factors. */
export interface GgufTensorView {
  has(name: string): boolean
  /** Values of a small f32 tensor, such as `rope_freqs.weight`. */
  floats(name: string): readonly number[] | undefined
}

/**
 * A model family: it reads a configuration from Hugging Face's config.json or from GGUF metadata, builds modules whose parameter names are the
 * Hugging Face names, and maps weights between the two formats.
 */
export interface ModelFamily<C extends ModelShape = ModelShape> {
  readonly name: string
  /** `architectures` entries of config.json that it reads. */
  readonly architectures: readonly string[]
  /** `general.architecture` values that it reads. */
  readonly ggufArchitectures: readonly string[]
  /** Reads config.json. Errors: SLOTH_MODEL_CONFIG for a value it cannot honour; nothing is ignored silently. */
  fromHuggingFace(raw: Readonly<Record<string, unknown>>): C
  /** Reads GGUF metadata. Errors: SLOTH_MODEL_CONFIG. */
  fromGguf(metadata: GgufMetadata, tensors: GgufTensorView): C
  /** config.json of an exported model. */
  toHuggingFace(config: C): Record<string, unknown>
  /** Architecture metadata of an exported GGUF file, `general.architecture` included, and tensors that hold configuration (`rope_freqs.weight`). */
  toGguf(config: C): {
    readonly metadata: readonly (readonly [string, GgufValue])[]
    readonly tensors: readonly { readonly name: string; readonly values: Float32Array }[]
  }
  readonly weights: readonly WeightMapping<C>[]
  build(config: C, m: ModuleBuilder): ModelBody
}

/** Looks one weight up in a family's table by its Hugging Face name. */
export const ggufNameOf = <C extends ModelShape>(
  family: ModelFamily<C>,
  config: C,
  name: string,
): { gguf: string; permute: HeadPermutation | undefined } | undefined => {
  const layer = /\.layers\.(\d+)\./.exec(name)?.[1]
  const pattern = layer === undefined ? name : name.replace(`.layers.${layer}.`, ".layers.{i}.")
  const line = family.weights.find((w) => w.huggingFace === pattern)
  return line && { gguf: line.gguf.replace("{i}", layer ?? ""), permute: line.permute?.(config) }
}

/**
 * Where row `row` of a "rotate half" weight stands in GGUF's interleaved order, for heads of `headDim` rows: channel c of the first half goes to 2c, of the second to 2c + 1.
 * Source: llama.cpp `convert_hf_to_gguf.py`, LlamaModel.permute.
 */
export const interleavedRow = (row: number, headDim: number): number => {
  const head = Math.floor(row / headDim)
  const c = row % headDim
  const half = headDim / 2
  return head * headDim + (c < half ? 2 * c : 2 * (c - half) + 1)
}
