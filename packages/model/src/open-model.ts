import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { basename, join } from "node:path"
import { SlothError } from "@sloth/core"
import { ModuleBuilder, type Engine } from "@sloth/tensor"
import { CausalLM, SCORE_WEIGHT } from "./causal-lm.ts"
import { asFloats } from "./internal/as-floats.ts"
import { ggufNameOf, type ModelFamily, type ModelShape } from "./family.ts"
import { readGguf } from "./gguf.ts"
import { ggufNumber, ggufString, type GgufMetadata } from "./gguf-types.ts"
import { readSafetensors } from "./safetensors.ts"
import type { TensorEntry } from "./tensor-table.ts"
import { loadTokenizerFolder } from "./tokenizer-hf.ts"
import { tokenizerFromGguf } from "./tokenizer-gguf.ts"
import type { Tokenizer } from "./tokenizer.ts"
import { fileWeights, type StoredWeight } from "./weights.ts"

/** A model on disk, headers read: enough to plan, and to build it on any engine. */
export interface ModelFiles {
  readonly kind: "gguf" | "safetensors"
  /** The file or the folder. */
  readonly path: string
  readonly name: string
  readonly family: ModelFamily
  readonly config: ModelShape
  readonly tokenizer: Tokenizer
  /** sha256 (hex) of the contents; see {@link fingerprintFiles}. */
  readonly fingerprint: string
  /** Bytes of weights on disk. */
  readonly bytes: number
  /** Bytes of weights by stored format. */
  readonly formats: Readonly<Record<string, number>>
  readonly weights: ReadonlyMap<string, StoredWeight>
  /** Tensors in the files that the family did not ask for. */
  readonly unused: readonly string[]
  /** The score head of a sequence classifier with one output, f32 [hidden]; the model is built with it. */
  readonly scoreHead?: Float32Array
  /** Metadata of a GGUF file. */
  readonly gguf: GgufMetadata | undefined
  /** Builds the model on an engine; weights are used in place. */
  build(engine: Engine): CausalLM
}

/**
 * sha256 of model files. Up to 512 MB a file is hashed whole; of a larger one the length, the first and last megabyte and 256 blocks of 64 KB at equal
 * distances, which sees every change that a training or a conversion makes without reading tens of gigabytes.
 */
export const fingerprintFiles = (paths: readonly string[]): string => {
  const hash = createHash("sha256")
  const chunk = Buffer.allocUnsafe(1 << 22)
  for (const path of paths) {
    const fd = fs.openSync(path, "r")
    try {
      const { size } = fs.fstatSync(fd)
      hash.update(`${basename(path)}:${size}\n`)
      const part = (offset: number, length: number) => {
        for (let at = offset; at < Math.min(size, offset + length);) {
          const n = fs.readSync(fd, chunk, 0, Math.min(chunk.length, offset + length - at, size - at), at)
          if (n === 0) break
          hash.update(chunk.subarray(0, n))
          at += n
        }
      }
      if (size <= 512e6) part(0, size)
      else {
        part(0, 1 << 20)
        for (let i = 0; i < 256; i++) part(Math.floor((size / 256) * i), 1 << 16)
        part(size - (1 << 20), 1 << 20)
      }
    } finally {
      fs.closeSync(fd)
    }
  }
  return hash.digest("hex")
}

const unknownArchitecture = (found: string, path: string, known: readonly string[]): SlothError =>
  new SlothError("SLOTH_MODEL_ARCHITECTURE", {
    what: `The architecture "${found}" of ${path} is not known.`,
    why: `The loaded model families read: ${known.join(", ") || "nothing (no family is loaded)"}.`,
    next: 'Add a plugin that provides it (see docs/plugins.md, "A model family"), with --plugin or in sloth.config.ts.',
    fields: { architecture: found, path, known },
  })

const readJson = (path: string): Record<string, unknown> => {
  let text: string
  try {
    text = fs.readFileSync(path, "utf8")
  } catch (cause) {
    throw new SlothError("SLOTH_MODEL_CONFIG", {
      what: `${path} is missing or cannot be read.`,
      next: "A folder with safetensors needs a config.json beside them.",
      fields: { path },
      cause,
    })
  }
  try {
    const value: unknown = JSON.parse(text)
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>
    throw new Error("it is not an object")
  } catch (cause) {
    throw new SlothError("SLOTH_MODEL_CONFIG", {
      what: `${path} is not valid JSON.`,
      why: String((cause as Error).message),
      next: "Download the file again.",
      fields: { path },
      cause,
    })
  }
}

const checkTokenizer = (tokenizer: Tokenizer, config: ModelShape, path: string): void => {
  if (tokenizer.vocabSize > config.vocab)
    throw new SlothError("SLOTH_MODEL_TOKENIZER", {
      what: `The tokenizer of ${path} has ${tokenizer.vocabSize} tokens, but the model only ${config.vocab} rows.`,
      why: "They do not belong together: some tokens would have no embedding.",
      next: "Use the tokenizer files that came with the model.",
      fields: { tokenizer: tokenizer.vocabSize, model: config.vocab, path },
    })
}

const finish = (files: Omit<ModelFiles, "build" | "bytes" | "formats">): ModelFiles => {
  const formats: Record<string, number> = {}
  let bytes = 0
  for (const { entry } of files.weights.values()) {
    const id = entry.dtype.toLowerCase()
    formats[id] = (formats[id] ?? 0) + entry.bytes
    bytes += entry.bytes
  }
  return {
    ...files,
    bytes,
    formats,
    build: (engine) => {
      const builder = new ModuleBuilder(engine, fileWeights(engine, files.weights))
      try {
        const model = new CausalLM(files.family, files.config, builder)
        if (files.scoreHead !== undefined) model.addScoreHead(0, files.scoreHead, false)
        return model
      } catch (error) {
        builder[Symbol.dispose]()
        throw error
      }
    },
  }
}

const openGguf = async (path: string, families: readonly ModelFamily[]): Promise<ModelFiles> => {
  const table = readGguf(path)
  const arch = ggufString(table.metadata, "general.architecture") ?? "(none)"
  if (ggufString(table.metadata, "general.type") === "adapter")
    throw new SlothError("SLOTH_MODEL_KIND", {
      what: `${path} is an adapter, not a model.`,
      next: "Give the base model with --model and the adapter with --adapter.",
      fields: { path },
    })
  const family = families.find((f) => f.ggufArchitectures.includes(arch))
  if (family === undefined)
    throw unknownArchitecture(
      arch,
      path,
      families.flatMap((f) => f.ggufArchitectures),
    )
  const byName = new Map(table.tensors.map((t) => [t.name, t]))
  const config = family.fromGguf(table.metadata, {
    has: (name) => byName.has(name),
    floats: (name) => {
      const t = byName.get(name)
      if (t === undefined || t.dtype !== "F32" || t.bytes > 1 << 20) return undefined
      const buffer = Buffer.alloc(t.bytes)
      const fd = fs.openSync(t.path, "r")
      try {
        fs.readSync(fd, buffer, 0, t.bytes, t.offset)
      } finally {
        fs.closeSync(fd)
      }
      return Array.from({ length: t.bytes / 4 }, (_, i) => buffer.readFloatLE(i * 4))
    },
  })
  const weights = new Map<string, StoredWeight>()
  const used = new Set<string>(["rope_freqs.weight"])
  for (const line of family.weights)
    for (let i = 0; i < (line.huggingFace.includes("{i}") ? config.layers : 1); i++) {
      const name = line.huggingFace.replace("{i}", String(i))
      const mapped = ggufNameOf(family, config, name)!
      const entry = byName.get(mapped.gguf)
      if (entry === undefined) continue
      used.add(mapped.gguf)
      const heads = mapped.permute?.heads
      weights.set(name, { entry, interleavedHeadDim: heads === undefined ? undefined : entry.shape[0]! / heads })
    }
  const tokenizer = await tokenizerFromGguf(table.metadata, path)
  checkTokenizer(tokenizer, config, path)
  return finish({
    kind: "gguf",
    path,
    name: ggufString(table.metadata, "general.name") ?? basename(path),
    family,
    config,
    tokenizer,
    fingerprint: fingerprintFiles(table.files),
    weights,
    unused: table.tensors.map((t) => t.name).filter((n) => !used.has(n)),
    gguf: table.metadata,
  })
}

/** The head of a sequence classifier with one output, f32 [hidden], which is a reward model. Errors: SLOTH_MODEL_SCORE. */
const readScoreHead = (folder: string, entry: TensorEntry): Float32Array => {
  const wrong = (what: string): SlothError =>
    new SlothError("SLOTH_MODEL_SCORE", {
      what: `The classifier ${folder} ${what}.`,
      why: "A reward model gives a text one number.",
      next: "Use a classifier with num_labels 1, stored as F32, F16 or BF16.",
      fields: { folder, shape: entry.shape, dtype: entry.dtype },
    })
  if (entry.shape[0] !== 1) throw wrong(`has ${entry.shape[0]} labels`)
  const bytes = Buffer.alloc(entry.bytes)
  const fd = fs.openSync(entry.path, "r")
  try {
    fs.readSync(fd, bytes, 0, entry.bytes, entry.offset)
  } finally {
    fs.closeSync(fd)
  }
  const values = asFloats(entry.dtype, bytes)
  if (values === undefined) throw wrong(`stores its head as ${entry.dtype}`)
  return values
}

const CLASSIFIER = /ForSequenceClassification$/

const openFolder = async (folder: string, families: readonly ModelFamily[]): Promise<ModelFiles> => {
  const stored = readJson(join(folder, "config.json"))
  const named = Array.isArray(stored["architectures"]) ? stored["architectures"].map(String) : []
  const archs = named.map((name) => name.replace(CLASSIFIER, "ForCausalLM"))
  const classifies = named.some((name) => CLASSIFIER.test(name))
  const family = families.find((f) => archs.some((a) => f.architectures.includes(a)))
  if (family === undefined)
    throw unknownArchitecture(
      archs.join(", ") || "(none)",
      folder,
      families.flatMap((f) => f.architectures),
    )
  const table = readSafetensors(folder)
  // A classifier has no output layer of its own; what would be one is never run.
  const headless = classifies && !table.tensors.some(({ name }) => name === "lm_head.weight")
  const raw: Record<string, unknown> = {
    ...stored,
    architectures: archs,
    ...(headless ? { tie_word_embeddings: true } : {}),
  }
  if (raw["quantization_config"] !== undefined)
    throw new SlothError("SLOTH_MODEL_FORMAT", {
      what: `${folder} holds weights quantised by "${String((raw["quantization_config"] as Record<string, unknown>)["quant_method"])}".`,
      next: "Use the unquantised model, or a GGUF file.",
      fields: { folder },
    })
  const config = family.fromHuggingFace(raw)
  const score = classifies ? table.tensors.find(({ name }) => name === SCORE_WEIGHT) : undefined
  const scoreHead = score === undefined ? undefined : readScoreHead(folder, score)
  const weights = new Map<string, StoredWeight>()
  for (const entry of table.tensors) weights.set(entry.name, { entry, interleavedHeadDim: undefined })
  const mapped = new Set(
    family.weights.flatMap((l) =>
      Array.from({ length: l.huggingFace.includes("{i}") ? config.layers : 1 }, (_, i) =>
        l.huggingFace.replace("{i}", String(i)),
      ),
    ),
  )
  const tokenizer = await loadTokenizerFolder(folder)
  checkTokenizer(tokenizer, config, folder)
  return finish({
    kind: "safetensors",
    path: folder,
    name:
      typeof raw["_name_or_path"] === "string" && raw["_name_or_path"] !== "" ? raw["_name_or_path"] : basename(folder),
    family,
    config,
    tokenizer,
    fingerprint: fingerprintFiles([join(folder, "config.json"), ...table.files]),
    weights,
    unused: table.tensors
      .map((t: TensorEntry) => t.name)
      .filter((n) => !mapped.has(n) && n !== score?.name && !n.endsWith("rotary_emb.inv_freq")),
    gguf: undefined,
    ...(scoreHead === undefined ? {} : { scoreHead }),
  })
}

/**
 * Reads the headers of a model: a `.gguf` file (the first of a split one) or a folder with config.json, safetensors and tokenizer files.
 * Errors: SLOTH_MODEL_ARCHITECTURE, SLOTH_MODEL_CONFIG, SLOTH_MODEL_FORMAT, SLOTH_MODEL_TOKENIZER, SLOTH_GGUF_*, SLOTH_SAFETENSORS_*.
 */
export const openModelFiles = (path: string, families: readonly ModelFamily[]): Promise<ModelFiles> =>
  fs.statSync(path).isDirectory() ? openFolder(path, families) : openGguf(path, families)

/** The context length that a GGUF or config names, in tokens. */
export const contextLength = (files: ModelFiles): number =>
  files.gguf === undefined
    ? files.config.maxPositions
    : (ggufNumber(files.gguf, `${ggufString(files.gguf, "general.architecture")}.context_length`) ??
      files.config.maxPositions)
