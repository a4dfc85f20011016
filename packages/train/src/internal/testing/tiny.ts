import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Example } from "@sloth/data"
import { CausalLM, fileWeights, randomWeights, readSafetensors, type StoredWeight } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { ModuleBuilder, type Engine } from "@sloth/tensor"
import type { TrainModel } from "../../model-files.ts"

/** The folder of golden values. */
export const goldenDir = join(import.meta.dirname, "..", "..", "..", "..", "..", "tests", "golden", "tiny")

/** A row of the golden files. */
interface Row {
  readonly tokens: readonly number[]
  readonly mask: readonly number[]
}

/** One step that transformers' Trainer made. */
export interface GoldenStep {
  readonly step: number
  readonly loss: number
  readonly gradNorm: number
  readonly learningRate: number
  readonly scoredTokens: number
}

/** A golden file of the tiny Llamas. */
export interface Golden {
  readonly rows: readonly Row[]
  readonly logprobs: readonly (readonly (number | null)[])[]
  readonly trainRows: readonly Row[]
  readonly batch: number
  readonly [run: `run:${string}`]: {
    readonly learningRate: number
    readonly weightDecay: number
    readonly steps: readonly GoldenStep[]
  }
}

/** Reads a golden file. */
export const readGolden = (name: string): Golden =>
  JSON.parse(readFileSync(join(goldenDir, name, "golden.json"), "utf8")) as Golden

/** Rows as data examples. */
export const examplesOf = (rows: readonly Row[]): Example[] =>
  rows.map((r, row) => ({
    tokens: Int32Array.from(r.tokens),
    mask: Uint8Array.from(r.mask, (m, t) => (t === 0 ? 0 : m)),
    row,
  }))

/** One of the tiny golden Llamas as files that build. */
export const tinyFiles = (name: string): TrainModel => {
  const folder = join(goldenDir, name)
  const config = llamaFamily.fromHuggingFace(JSON.parse(readFileSync(join(folder, "config.json"), "utf8")))
  const entries = readSafetensors(folder).tensors
  const table = new Map<string, StoredWeight>(
    entries.map((entry) => [entry.name, { entry, interleavedHeadDim: undefined }]),
  )
  return {
    name: `tiny-${name}`,
    path: folder,
    fingerprint: name,
    bytes: entries.reduce((n, e) => n + e.bytes, 0),
    config,
    build: (engine: Engine) => new CausalLM(llamaFamily, config, new ModuleBuilder(engine, fileWeights(engine, table))),
  }
}

/** A small random Llama that needs no file. */
export const randomFiles = (
  options: { layers?: number; hidden?: number; vocab?: number; seed?: number } = {},
): TrainModel => {
  const { layers = 2, hidden = 32, vocab = 64, seed = 7 } = options
  const config = llamaFamily.fromHuggingFace({
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: hidden,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: hidden * 2,
    num_hidden_layers: layers,
    vocab_size: vocab,
    rms_norm_eps: 1e-5,
    hidden_act: "silu",
    max_position_embeddings: 256,
    rope_theta: 10000,
    tie_word_embeddings: true,
    torch_dtype: "float32",
  })
  return {
    name: "random",
    path: "random",
    fingerprint: JSON.stringify([layers, hidden, vocab, seed]),
    bytes: 0,
    config,
    build: (engine: Engine) =>
      new CausalLM(llamaFamily, config, new ModuleBuilder(engine, randomWeights(engine, seed))),
  }
}

/** Rows of several lengths with something to learn: counting upwards. */
export const countingExamples = (n: number, vocab = 64): Example[] =>
  Array.from({ length: n }, (_, row) => {
    const length = 5 + ((row * 7) % 19)
    const tokens = Int32Array.from({ length }, (_, k) => (k === 0 ? 1 : 3 + ((row * 5 + 2 * k) % (vocab - 3))))
    return { tokens, mask: Uint8Array.from(tokens, (_, k) => (k > row % 4 ? 1 : 0)), row }
  })
