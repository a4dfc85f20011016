import { existsSync, statSync } from "node:fs"
import { isAbsolute, join, resolve } from "node:path"
import { formatBytes, isRunDirectory, isSlothError, runPaths, SlothError } from "@sloth/core"
import type { HubPlan, HubProgress } from "@sloth/model"
import type { SlothContext } from "./context.ts"
import { readRunRecord } from "./run-record.ts"

/** Where a model given in words lies on disk. */
export interface ResolvedModel {
  /** What was asked for. */
  readonly spec: string
  readonly kind: "nano" | "folder" | "gguf" | "run" | "hub"
  /** The folder or `.gguf` file of the weights. */
  readonly path: string
  /** Adapter that belongs to it: that of a run. */
  readonly adapter: string | undefined
  /** Folder of weights that replace those at `path`: those of a fully fine-tuned run. */
  readonly weights: string | undefined
  /** Name of the base model for records: a hub id, an absolute path, or `nano`. */
  readonly base: string
  /** What a record keeps to find exactly this model again. */
  readonly pinned: string
  /** The run folder, if it is one. */
  readonly run: string | undefined
}

/** Name of the model that comes with Sloth. */
export const NANO = "nano"

/** Options of {@link resolveModel}. */
export interface ResolveOptions {
  /** The base model of a run, without what the run trained. */
  readonly baseOnly?: boolean
  readonly onProgress?: (progress: HubProgress) => void
  readonly signal?: AbortSignal
}

const looksLikePath = (spec: string): boolean =>
  /^[.~]/.test(spec) || isAbsolute(spec) || spec.endsWith(".gguf") || spec.endsWith("/") || spec.split("/").length > 2

const missing = (spec: string, path: string): SlothError =>
  new SlothError("SLOTH_MODEL_NOT_FOUND", {
    what: `There is no model at ${path}.`,
    why: "Neither a file nor a folder of that name exists.",
    next: 'Give a folder with config.json and safetensors, a .gguf file, a run folder, a hub id such as org/name, or "nano".',
    fields: { model: spec, path },
  })

const resolveRun = async (
  context: SlothContext,
  spec: string,
  directory: string,
  options: ResolveOptions,
): Promise<ResolvedModel> => {
  const record = readRunRecord(directory)
  const { adapter } = runPaths(directory)
  const weights = join(directory, "weights")
  const hasAdapter = existsSync(join(adapter, "adapter_config.json"))
  const hasWeights = existsSync(join(weights, "weights.json"))
  if (options.baseOnly !== true && !hasAdapter && !hasWeights)
    throw new SlothError("SLOTH_RUN_NO_RESULT", {
      what: `The run ${directory} has no trained weights yet.`,
      why: "It ended before they were written.",
      next: `Finish it: sloth train --resume --run ${spec}`,
      fields: { run: directory },
    })
  if (record.model === undefined)
    throw new SlothError("SLOTH_RUN_NO_MODEL", {
      what: `The run ${directory} does not say which model it trained.`,
      why: "It was started in code with a model of its own.",
      next: `Give the base model with --model and the adapter with --adapter ${adapter}.`,
      fields: { run: directory },
    })
  const source = await resolveModel(context, record.model, options)
  return {
    ...source,
    spec,
    kind: "run",
    adapter: options.baseOnly === true || !hasAdapter ? undefined : adapter,
    weights: options.baseOnly === true || !hasWeights ? source.weights : weights,
    pinned: options.baseOnly === true || !hasWeights ? source.pinned : directory,
    run: directory,
  }
}

/** A hub model, from the cache where it is complete there; else it is downloaded, and its size is told first. */
export const resolveHub = async (
  context: SlothContext,
  spec: string,
  options: ResolveOptions = {},
): Promise<HubPlan> => {
  const { downloadHub, formatHubRef, planHubModel } = await import("@sloth/model")
  const settings = {
    cacheDir: join(context.paths.cache, "hub"),
    signal: options.signal,
    onProgress: options.onProgress,
  }
  try {
    const cached = await planHubModel(spec, { ...settings, offline: true })
    if (cached.missingBytes === 0) return cached
  } catch (error) {
    if (!isSlothError(error) || error.code !== "SLOTH_HUB_OFFLINE") throw error
  }
  if (context.offline)
    return downloadHub(await planHubModel(spec, { ...settings, offline: true }), { ...settings, offline: true })
  const plan = await planHubModel(spec, settings)
  context.logger.info(`Downloading ${formatHubRef(plan.ref)}: ${formatBytes(plan.missingBytes)} to ${plan.folder}`)
  return downloadHub(plan, settings)
}

/**
 * Finds a model: `nano`, a folder of safetensors, a `.gguf` file, a run folder, or a hub id `org/name[@revision][:file]`, which is downloaded when the cache does
 * not hold it. Errors: SLOTH_MODEL_NOT_FOUND, SLOTH_MODEL_KIND, SLOTH_RUN_NO_RESULT, SLOTH_RUN_NO_MODEL, SLOTH_HUB_*.
 */
export const resolveModel = async (
  context: SlothContext,
  spec: string,
  options: ResolveOptions = {},
): Promise<ResolvedModel> => {
  const plain = { spec, adapter: undefined, weights: undefined, run: undefined }
  const path = resolve(context.cwd, spec)
  const stat = statSync(path, { throwIfNoEntry: false })
  if (spec === NANO && stat === undefined) {
    const { nanoFiles } = await import("@sloth/nano")
    return { ...plain, kind: "nano", path: nanoFiles().model, base: NANO, pinned: NANO }
  }
  if (stat === undefined) {
    const { looksLikeHubRef } = await import("@sloth/model")
    if (looksLikePath(spec) || !looksLikeHubRef(spec)) throw missing(spec, path)
    const plan = await resolveHub(context, spec, options)
    return {
      ...plain,
      kind: "hub",
      path: plan.kind === "gguf" ? plan.mainPath : plan.folder,
      base: plan.ref.name,
      pinned: `${plan.ref.name}@${plan.commit}${plan.ref.file === undefined ? "" : `:${plan.ref.file}`}`,
    }
  }
  if (stat.isFile()) {
    if (!path.toLowerCase().endsWith(".gguf"))
      throw new SlothError("SLOTH_MODEL_KIND", {
        what: `${path} is a file, but not a .gguf file.`,
        next: "Give the folder that holds config.json and the safetensors, or a .gguf file.",
        fields: { path },
      })
    return { ...plain, kind: "gguf", path, base: path, pinned: path }
  }
  if (isRunDirectory(path)) return resolveRun(context, spec, path, options)
  if (existsSync(join(path, "adapter_config.json")) && !existsSync(join(path, "config.json")))
    throw new SlothError("SLOTH_MODEL_KIND", {
      what: `${path} holds an adapter, not a model.`,
      next: `Give its base model with --model and the adapter with --adapter ${spec}.`,
      fields: { path },
    })
  return { ...plain, kind: "folder", path, base: path, pinned: path }
}
