import { existsSync, readdirSync, statSync } from "node:fs"
import { join, resolve } from "node:path"
import { isRunDirectory, isSlothError, listCheckpoints, readEvents, runPaths, SlothError } from "@sloth/core"
import type { RunEventOf } from "@sloth/core"
import type { DataReport, PreviewPiece } from "@sloth/data"
import type { LoraConfig, ModelFiles, ModelShape, TensorEntry } from "@sloth/model"
import type { SlothContext } from "./context.ts"
import { openFiles } from "./opened-model.ts"
import { resolveModel } from "./resolve-model.ts"
import { readRunRecord } from "./run-record.ts"

/** Facts about a model that a loaded family reads. */
export interface ModelFacts {
  readonly kind: "model"
  readonly path: string
  readonly format: "gguf" | "safetensors"
  readonly name: string
  readonly family: string
  readonly config: ModelShape
  readonly parameters: number
  readonly bytes: number
  /** Bytes of weights by stored format. */
  readonly formats: Readonly<Record<string, number>>
  readonly tokenizer: {
    readonly vocab: number
    readonly chatTemplate: boolean
    readonly bos: string | undefined
    readonly eos: string | undefined
    /** Tokens that end a generation. */
    readonly ends: readonly string[]
  }
  /** Names of linear layers, as adapter targets take them. */
  readonly targets: readonly string[]
  /** Tensors in the files that the family does not use. */
  readonly unused: readonly string[]
  readonly fingerprint: string
}

/** Facts about a file of tensors that no loaded family reads. */
export interface TensorFacts {
  readonly kind: "tensors"
  readonly path: string
  readonly format: "gguf" | "safetensors"
  /** Architecture that the file names, where it does. */
  readonly architecture: string | undefined
  readonly parameters: number
  readonly bytes: number
  readonly formats: Readonly<Record<string, number>>
  readonly tensors: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[] }[]
  readonly metadata: Readonly<Record<string, string>>
}

/** Facts about a PEFT adapter. */
export interface AdapterFacts extends LoraConfig {
  readonly kind: "adapter"
  readonly path: string
  readonly base: string | undefined
  readonly parameters: number
  readonly tensors: number
  readonly bytes: number
}

/** Facts about a data file; tokens only where a model was given. */
export interface DatasetFacts {
  readonly kind: "dataset"
  readonly path: string
  readonly rows: number
  readonly bytes: number
  readonly rowKind: string
  readonly statement: string
  readonly report: DataReport | undefined
  readonly preview: readonly PreviewPiece[] | undefined
}

/** Facts about a run. */
export interface RunFacts {
  readonly kind: "run"
  readonly path: string
  readonly name: string
  readonly createdAt: string
  readonly method: string | undefined
  readonly model: string | undefined
  readonly data: readonly string[]
  /** "running", or how it ended; undefined where it broke off. */
  readonly status: "completed" | "interrupted" | "stopped" | "failed" | undefined
  readonly step: number
  readonly steps: number | undefined
  readonly firstLoss: number | undefined
  readonly loss: number | undefined
  readonly evaluation: { readonly step: number; readonly loss: number } | undefined
  readonly checkpoints: readonly number[]
  readonly exports: readonly Pick<RunEventOf<"export">, "format" | "path" | "bytes">[]
  readonly adapter: AdapterFacts | undefined
  readonly config: Readonly<Record<string, unknown>>
}

/** What `inspect` found. */
export type Facts = ModelFacts | TensorFacts | AdapterFacts | DatasetFacts | RunFacts

/** Options of `sloth.inspect`. */
export interface InspectOptions {
  /** Model whose tokenizer counts the tokens of a data file. */
  readonly model?: string
  readonly signal?: AbortSignal
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

const bytesBelow = (path: string): number => {
  const stat = statSync(path)
  return stat.isDirectory() ? readdirSync(path).reduce((n, name) => n + bytesBelow(join(path, name)), 0) : stat.size
}

const factsOfFiles = (files: ModelFiles): ModelFacts => {
  const { tokenizer, config } = files
  const { special } = tokenizer
  const text = (id: number | undefined): string | undefined => (id === undefined ? undefined : tokenizer.idToToken(id))
  const weights = [...files.weights]
  const targets = new Set<string>()
  for (const [name, { entry }] of weights)
    if (entry.shape.length === 2 && /\.layers\.\d+\./.test(name)) targets.add(name.split(".").at(-2)!)
  return {
    kind: "model",
    path: files.path,
    format: files.kind,
    name: files.name,
    family: files.family.name,
    config,
    parameters: weights.reduce((n, [, { entry }]) => n + sizeOf(entry.shape), 0),
    bytes: files.bytes,
    formats: files.formats,
    tokenizer: {
      vocab: tokenizer.vocabSize,
      chatTemplate: tokenizer.chatTemplate !== undefined,
      bos: text(special.bos),
      eos: text(special.eos),
      ends: [...tokenizer.endOfGeneration].map((id) => text(id) ?? String(id)),
    },
    targets: [...targets],
    unused: files.unused,
    fingerprint: files.fingerprint,
  }
}

const factsOfTensors = (
  path: string,
  format: TensorFacts["format"],
  tensors: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): TensorFacts => {
  const formats: Record<string, number> = {}
  for (const t of tensors) formats[t.dtype.toLowerCase()] = (formats[t.dtype.toLowerCase()] ?? 0) + t.bytes
  return {
    kind: "tensors",
    path,
    format,
    architecture: metadata["general.architecture"],
    parameters: tensors.reduce((n, t) => n + sizeOf(t.shape), 0),
    bytes: tensors.reduce((n, t) => n + t.bytes, 0),
    formats,
    tensors: tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    metadata,
  }
}

/** Metadata as short texts; long lists are told by their length. */
const metadataTexts = (metadata: ReadonlyMap<string, { readonly value: unknown }>): Record<string, string> =>
  Object.fromEntries(
    [...metadata].map(([key, { value }]) => [
      key,
      Array.isArray(value) && value.length > 8
        ? `${value.length} values`
        : typeof value === "string"
          ? value.length > 200
            ? `${value.slice(0, 200)}...`
            : value
          : Array.isArray(value)
            ? value.map(String).join(", ")
            : String(value),
    ]),
  )

const inspectModel = async (context: SlothContext, target: string, options: InspectOptions): Promise<Facts> => {
  const source = await resolveModel(context, target, { signal: options.signal })
  try {
    return factsOfFiles(await openFiles(context, source))
  } catch (error) {
    if (!isSlothError(error) || !["SLOTH_MODEL_ARCHITECTURE", "SLOTH_MODEL_KIND"].includes(error.code)) throw error
    const { readGguf, readSafetensors } = await import("@sloth/model")
    if (source.path.toLowerCase().endsWith(".gguf")) {
      const table = readGguf(source.path)
      return factsOfTensors(source.path, "gguf", table.tensors, metadataTexts(table.metadata))
    }
    const architecture = error.fields["architecture"]
    return factsOfTensors(
      source.path,
      "safetensors",
      readSafetensors(source.path).tensors,
      typeof architecture === "string" ? { "general.architecture": architecture } : {},
    )
  }
}

const inspectAdapter = async (path: string): Promise<AdapterFacts> => {
  const { readPeftConfig, readSafetensors } = await import("@sloth/model")
  const { config, base } = readPeftConfig(path)
  const { tensors } = readSafetensors(join(path, "adapter_model.safetensors"))
  return {
    ...config,
    kind: "adapter",
    path,
    base,
    parameters: tensors.reduce((n, t) => n + sizeOf(t.shape), 0),
    tensors: tensors.length,
    bytes: bytesBelow(path),
  }
}

const inspectRun = async (directory: string): Promise<RunFacts> => {
  const record = readRunRecord(directory)
  const paths = runPaths(directory)
  const events = existsSync(paths.events) ? readEvents(paths.events) : []
  const steps = events.filter((event) => event.type === "step")
  const last = events.at(-1)
  const evaluation = events.findLast((event) => event.type === "eval")
  const plan = record.config.details?.["plan"] as { readonly steps?: number } | undefined
  return {
    kind: "run",
    path: paths.root,
    name: record.config.name,
    createdAt: record.config.createdAt,
    method: record.method,
    model: record.model,
    data: record.data,
    status: last?.type === "run-end" ? last.reason : events.findLast((event) => event.type === "run-end")?.reason,
    step: steps.at(-1)?.step ?? 0,
    steps: plan?.steps,
    firstLoss: steps[0]?.loss,
    loss: steps.at(-1)?.loss,
    evaluation: evaluation === undefined ? undefined : { step: evaluation.step, loss: evaluation.loss },
    checkpoints: listCheckpoints(directory).map(({ step }) => step),
    exports: events
      .filter((event) => event.type === "export")
      .map(({ format, path, bytes }) => ({ format, path, ...(bytes === undefined ? {} : { bytes }) })),
    adapter: existsSync(join(paths.adapter, "adapter_config.json")) ? await inspectAdapter(paths.adapter) : undefined,
    config: record.config.config,
  }
}

const inspectDataset = async (context: SlothContext, path: string, options: InspectOptions): Promise<DatasetFacts> => {
  const { openDataset, readRows, recognise } = await import("@sloth/data")
  const registry = await context.readers()
  const { bytes, rows } = { bytes: statSync(path).size, rows: await readRows(path, { registry }) }
  const found = recognise(rows)
  const facts = {
    kind: "dataset",
    path,
    rows: rows.length,
    bytes,
    rowKind: found.kind,
    statement: found.statement,
  } as const
  if (options.model === undefined) return { ...facts, report: undefined, preview: undefined }
  const source = await resolveModel(context, options.model, { signal: options.signal })
  const { tokenizer } = await openFiles(context, source)
  const data = await openDataset(path, { tokenizer, registry, signal: options.signal })
  return { ...facts, report: data.report, preview: data.preview }
}

/**
 * Says what a thing is: a model (folder, .gguf, hub id, nano), a file of tensors, an adapter folder, a data file or a run folder.
 * Errors: SLOTH_MODEL_NOT_FOUND, SLOTH_INSPECT_UNKNOWN, and those of reading what it is.
 */
export const inspectTarget = async (
  context: SlothContext,
  target: string,
  options: InspectOptions = {},
): Promise<Facts> => {
  const path = resolve(context.cwd, target)
  const stat = statSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return inspectModel(context, target, options)
  if (stat.isDirectory()) {
    if (isRunDirectory(path)) return inspectRun(path)
    if (existsSync(join(path, "adapter_config.json")) && !existsSync(join(path, "config.json")))
      return inspectAdapter(path)
    if (existsSync(join(path, "config.json"))) return inspectModel(context, target, options)
    throw new SlothError("SLOTH_INSPECT_UNKNOWN", {
      what: `${path} is neither a model, an adapter nor a run.`,
      why: "It holds no config.json and no adapter_config.json.",
      next: "Name a file in it, or another folder.",
      fields: { path },
    })
  }
  if (path.toLowerCase().endsWith(".gguf")) return inspectModel(context, target, options)
  if (path.toLowerCase().endsWith(".safetensors")) {
    const { readSafetensors } = await import("@sloth/model")
    return factsOfTensors(path, "safetensors", readSafetensors(path).tensors, {})
  }
  return inspectDataset(context, path, options)
}
