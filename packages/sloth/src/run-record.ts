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
