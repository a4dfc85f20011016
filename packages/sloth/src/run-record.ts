import { isAbsolute, resolve } from "node:path"
import { existsSync } from "node:fs"
import { readRunConfig, type RunConfig } from "@sloth/core"
import type { MaskMode } from "@sloth/data"

/** What a run folder says about where its model and data came from. */
export interface RunRecord {
  readonly config: RunConfig
  /** The model as `resolveModel` takes it: an absolute path, a hub id with its commit, or `nano`. */
  readonly model: string | undefined
  /** Absolute paths of the data files; empty where rows were given in code. */
  readonly data: readonly string[]
  /** Rewards by name or absolute path; empty where there are none or they were given in code. */
  readonly rewards: readonly string[]
  /** The environment by name or absolute path, with its settings; absent where there is none or it was given in code. */
  readonly environment: string | undefined
  readonly environmentSettings: unknown
  readonly template: string | undefined
  /** The engine that generates, by name; absent where it is the local one. */
  readonly rollout: string | undefined
  /** The teacher as `resolveModel` takes it. */
  readonly teacher: string | undefined
  readonly trackers: readonly string[]
  /** What the command line noted for itself. */
  readonly commandLine: unknown
  readonly method: string | undefined
  readonly settings: unknown
  readonly mask: MaskMode
  readonly maxLength: number | undefined
}

/** What `train` writes into the record. */
export interface RunInputs {
  readonly model: string
  readonly data: readonly string[]
  readonly rewards?: readonly string[]
  readonly environment?: string
  readonly environmentSettings?: unknown
  readonly template?: string
  readonly rollout?: string
  readonly teacher?: string
  readonly trackers?: readonly string[]
  readonly commandLine?: unknown
}

const texts = (value: unknown): readonly string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === "string") : []

/** Reads the record of a run. Errors: SLOTH_RUN_NOT_A_RUN, SLOTH_RUN_FORMAT. */
export const readRunRecord = (directory: string): RunRecord => {
  const config = readRunConfig(directory)
  const inputs = (config.details?.["inputs"] ?? {}) as Readonly<Record<string, unknown>>
  const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)
  return {
    config,
    model: text(inputs["model"]),
    data: texts(inputs["data"]),
    rewards: texts(inputs["rewards"]),
    environment: text(inputs["environment"]),
    environmentSettings: inputs["environmentSettings"] ?? undefined,
    template: text(inputs["template"]),
    rollout: text(inputs["rollout"]),
    teacher: text(inputs["teacher"]),
    trackers: texts(inputs["trackers"]),
    commandLine: inputs["commandLine"],
    method: text(config.details?.["method"]),
    settings: config.details?.["settings"] ?? undefined,
    mask: (text(config.config["mask"]) ?? "assistant") as MaskMode,
    maxLength: typeof config.config["maxLength"] === "number" ? config.config["maxLength"] : undefined,
  }
}

/** Paths made absolute, so that a record still finds its files from another folder; other texts stay as they are. */
export const absolutePath = (cwd: string, path: string): string => {
  if (isAbsolute(path)) return path
  const full = resolve(cwd, path)
  return existsSync(full) ? full : path
}
