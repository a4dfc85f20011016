import * as fs from "node:fs"
import { homedir } from "node:os"
import { basename, dirname, join, resolve } from "node:path"
import { fileError, SlothError } from "@sloth/core"
import { distance } from "fastest-levenshtein"
import { ggufShardPaths } from "./gguf.ts"
import { looksLikeHubRef } from "./hub-ref.ts"
import { downloadHub, planHubModel, type HubOptions, type HubPlan } from "./hub.ts"
import { findSafetensors } from "./safetensors.ts"

/** Where a model lies on this machine, and in what form. */
export type ModelSource =
  | {
      readonly kind: "gguf"
      /** What the user wrote. */
      readonly spec: string
      /** The GGUF file, or the first part of a split one. */
      readonly path: string
      /** The download it came from. */
      readonly hub?: HubPlan
    }
  | {
      readonly kind: "safetensors"
      readonly spec: string
      /** The folder with config.json, tokenizer.json and the weights. */
      readonly folder: string
      readonly hub?: HubPlan
    }
  | {
      readonly kind: "run"
      readonly spec: string
      /** A run folder of Sloth. */
      readonly folder: string
    }

/** Settings of {@link resolveModelSource}. */
export interface ModelSourceOptions extends HubOptions {
  /** Short names and what they stand for: a path or a hub id. */
  readonly aliases?: Readonly<Record<string, string>>
  /** Hears what would be downloaded before the download starts; it may throw to refuse. */
  readonly onPlan?: (plan: HubPlan) => void | Promise<void>
  /** Folder that relative paths start from. Default: the working directory. */
  readonly cwd?: string
}

const list = (folder: string): string[] => {
  try {
    return fs.readdirSync(folder)
  } catch {
    return []
  }
}

/** The candidate that differs least, if it differs little enough to be a slip. */
const nearest = (typed: string, candidates: readonly string[]): string | undefined => {
  const wanted = typed.toLowerCase()
  const limit = Math.max(2, Math.floor(typed.length / 3))
  let best: string | undefined
  let least = limit + 1
  for (const name of candidates) {
    const lower = name.toLowerCase()
    const far = lower.startsWith(wanted) ? Math.min(limit, distance(wanted, lower)) : distance(wanted, lower)
    if (far < least) {
      least = far
      best = name
    }
  }
  return best
}

const notFound = (spec: string, path: string, aliases: readonly string[]): SlothError => {
  const folder = dirname(path)
  const names = list(folder)
  const sibling = nearest(basename(path), names)
  const alias = nearest(spec, aliases)
  const near = alias ?? (sibling === undefined ? undefined : join(dirname(spec), sibling))
  const inFolder = fs.existsSync(folder) ? "" : ` The folder ${folder} does not exist either.`
  const forms = [...aliases, "a folder", "a .gguf file", "a run folder", "a hub id (org/name)"].join(", ")
  return new SlothError("SLOTH_MODEL_NOT_FOUND", {
    what: `There is no model ${JSON.stringify(spec)}.${inFolder}`,
    next: near === undefined ? `A model is one of: ${forms}.` : `Did you mean ${near}?`,
    fields: { spec, path, suggestion: near },
  })
}

const isRunFolder = (folder: string): boolean => {
  if (fs.existsSync(join(folder, "events.jsonl"))) return true
  try {
    const config: unknown = JSON.parse(fs.readFileSync(join(folder, "config.json"), "utf8"))
    return typeof config === "object" && config !== null && Object.hasOwn(config, "sloth")
  } catch {
    return false
  }
}

/** GGUF models among the names of a folder: of a split one only its first part counts, projectors do not. */
const ggufNames = (names: readonly string[]): string[] =>
  names.filter(
    (n) =>
      n.endsWith(".gguf") &&
      !/^mmproj-/i.test(n) &&
      (ggufShardPaths(n) === undefined || /-00001-of-\d{5}\.gguf$/.test(n)),
  )

const fromFolder = (spec: string, folder: string): ModelSource => {
  if (isRunFolder(folder)) return { kind: "run", spec, folder }
  const names = list(folder)
  if (names.includes("adapter_config.json") && !names.includes("config.json")) {
    throw new SlothError("SLOTH_MODEL_IS_ADAPTER", {
      what: `${folder} holds an adapter, not a model.`,
      next: "Name the base model as the model and give this folder as the adapter.",
      fields: { path: folder },
    })
  }
  const weights = findSafetensors(folder)
  if (weights !== undefined) {
    if (names.includes("config.json")) return { kind: "safetensors", spec, folder }
    throw new SlothError("SLOTH_MODEL_NO_CONFIG", {
      what: `${folder} has weights (${basename(weights)}) but no config.json.`,
      next: "Put the model's config.json and tokenizer.json beside them.",
      fields: { path: folder },
    })
  }
  const ggufs = ggufNames(names)
  if (ggufs.length === 1) return { kind: "gguf", spec, path: join(folder, ggufs[0]!) }
  if (ggufs.length > 1) {
    throw new SlothError("SLOTH_MODEL_CHOOSE", {
      what: `${folder} has ${ggufs.length} GGUF files.`,
      next: `Name one of: ${ggufs.map((n) => join(spec, n)).join(", ")}.`,
      fields: { path: folder, choices: ggufs },
    })
  }
  const other = names.filter((n) => /\.(bin|pt|pth|safetensors|ckpt|onnx)$/.test(n))
  throw new SlothError("SLOTH_MODEL_NO_WEIGHTS", {
    what: `The folder ${folder} has no weights: no model.safetensors, no index of shards, no .gguf file.`,
    ...(other.length === 0 ? {} : { why: `It has only ${other.slice(0, 5).join(", ")}.` }),
    next: "Name the folder that has them.",
    fields: { path: folder, found: names.slice(0, 20) },
  })
}

const fromFile = (spec: string, path: string): ModelSource => {
  const name = basename(path)
  if (name === "model.safetensors" || name === "model.safetensors.index.json") {
    return fromFolder(spec, dirname(path))
  }
  if (name.endsWith(".gguf") || startsWithGguf(path)) return { kind: "gguf", spec, path }
  throw new SlothError("SLOTH_MODEL_KIND", {
    what: `${path} is not a model file of a kind that is read.`,
    next: "A model is a .gguf file, or a folder with config.json, tokenizer.json and safetensors weights.",
    fields: { path },
  })
}

const startsWithGguf = (path: string): boolean => {
  let fd: number
  try {
    fd = fs.openSync(path, "r")
  } catch (error) {
    throw fileError(error, path, "open")
  }
  try {
    const magic = Buffer.alloc(4)
    fs.readSync(fd, magic, 0, 4, 0)
    return magic.toString("latin1") === "GGUF"
  } finally {
    fs.closeSync(fd)
  }
}

const looksLikePath = (spec: string): boolean =>
  /^(\.{0,2}[/\\]|~|[A-Za-z]:[/\\])/.test(spec) || /\.(gguf|safetensors|json)$/i.test(spec) || spec.includes("\\")

/** True where a name next to a missing local path is so near that the user surely meant it, not a hub id. */
const nearLocal = (path: string): boolean => nearest(basename(path), list(dirname(path))) !== undefined

/**
 * Finds the model that a text names: an alias, a folder of safetensors, a `.gguf` file, a run folder, or a hub id, which is downloaded first.
 * What exists on disk goes before the hub.
 *
 * **Errors**: `SLOTH_MODEL_NOT_FOUND` (with a suggestion), `SLOTH_MODEL_KIND`, `SLOTH_MODEL_NO_WEIGHTS`, `SLOTH_MODEL_NO_CONFIG`, `SLOTH_MODEL_CHOOSE`,
 * `SLOTH_MODEL_IS_ADAPTER`, `SLOTH_FILE_*`, and those of `planHubModel` and `downloadHub`.
 */
export const resolveModelSource = async (spec: string, options: ModelSourceOptions = {}): Promise<ModelSource> => {
  const { aliases = {}, onPlan, cwd = process.cwd() } = options
  const target = Object.hasOwn(aliases, spec) ? aliases[spec]! : spec
  const names = Object.keys(aliases)
  const path = resolve(cwd, target.replace(/^~(?=$|[/\\])/, homedir()))
  if (target === "") throw notFound(spec, path, names)
  let stat: fs.Stats | undefined
  try {
    stat = fs.statSync(path)
  } catch (error) {
    const code = (error as { code?: unknown }).code
    if (code !== "ENOENT" && code !== "ENOTDIR") throw fileError(error, path, "open")
  }
  if (stat !== undefined) {
    if (!stat.isDirectory()) return fromFile(spec, path)
    if (path.endsWith(".gguf")) throw fileError({ code: "EISDIR" }, path, "read")
    return fromFolder(spec, path)
  }
  if (looksLikePath(target) || !looksLikeHubRef(target) || nearLocal(path)) throw notFound(spec, path, names)
  const plan = await planHubModel(target, options)
  if (plan.missingBytes > 0) await onPlan?.(plan)
  const hub = await downloadHub(plan, options)
  return hub.kind === "gguf"
    ? { kind: "gguf", spec, path: hub.mainPath, hub }
    : { ...asModel(fromFolder(spec, hub.folder)), hub }
}

/** A downloaded folder is never a run; an odd one that looks like a run is still only weights. */
const asModel = (source: ModelSource): Extract<ModelSource, { kind: "gguf" | "safetensors" }> =>
  source.kind === "run" ? { kind: "safetensors", spec: source.spec, folder: source.folder } : source
