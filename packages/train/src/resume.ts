import { createHash } from "node:crypto"
import { SlothError } from "@sloth/core"
import type { TrainConfig } from "./config.ts"

/** Settings that may change when a run is resumed: they do not change a number of the training. */
const FREE: readonly (keyof TrainConfig)[] = [
  "threads",
  "memoryBudget",
  "run",
  "logEvery",
  "evalData",
  "evalEvery",
  "saveEvery",
  "keepCheckpoints",
]

/** A setting that differs between a run and its resumption. */
export interface ConfigDifference {
  readonly key: string
  readonly was: unknown
  readonly now: unknown
}

const canonical = (value: unknown): string => JSON.stringify(value ?? null)

/** The settings that decide the numbers of a run, in a fixed order. */
const decisive = (config: TrainConfig): [string, unknown][] =>
  Object.entries(config)
    .filter(([key, value]) => value !== undefined && !FREE.includes(key as keyof TrainConfig))
    .sort(([a], [b]) => (a < b ? -1 : 1))

/**
 * Settings that decide the numbers and differ. With a constant schedule the length of the run is not one of them, so that a finished run can go on.
 */
export const configDifferences = (was: TrainConfig, now: TrainConfig): ConfigDifference[] => {
  const before = new Map(decisive(was))
  const after = new Map(decisive(now))
  const keys = [...new Set([...before.keys(), ...after.keys()])]
  const extendable = was.schedule === "constant" && now.schedule === "constant" && was.warmupRatio === 0
  return keys
    .filter((key) => canonical(before.get(key)) !== canonical(after.get(key)))
    .filter((key) => !(extendable && (key === "steps" || key === "epochs")))
    .map((key) => ({ key, was: before.get(key), now: after.get(key) }))
}

/** Refuses to resume with other settings. Errors: SLOTH_RESUME_CONFIG, listing the differences. */
export const requireSameConfig = (was: TrainConfig, now: TrainConfig, directory: string): void => {
  const differences = configDifferences(was, now)
  if (differences.length === 0) return
  throw new SlothError("SLOTH_RESUME_CONFIG", {
    what: `The run in ${directory} cannot be resumed with other settings.`,
    why: differences.map((d) => `${d.key} was ${canonical(d.was)} and is now ${canonical(d.now)}.`).join(" "),
    next: "Leave these settings out, or start a new run; --adapter continues from the old run's adapter.",
    fields: { path: directory, differences },
  })
}

/** In words, which settings of a method and which rewards differ from those of the run; empty where none do. */
export const settingsDifferences = (
  was: { readonly settings: unknown; readonly rewards: unknown },
  now: { readonly settings: unknown; readonly rewards: unknown },
): string => {
  const [before, after] = [was.settings, now.settings].map(
    (value) => (value ?? {}) as Readonly<Record<string, unknown>>,
  )
  const keys = [...new Set([...Object.keys(before!), ...Object.keys(after!)])]
  const said = keys
    .filter((key) => canonical(before![key]) !== canonical(after![key]))
    .map((key) => `${key} was ${canonical(before![key])} and is now ${canonical(after![key])}.`)
  if (typeof was.rewards === "string" && was.rewards !== now.rewards)
    said.push(`The rewards were ${was.rewards || "none"} and are now ${String(now.rewards) || "none"}.`)
  return said.join(" ")
}

/** SHA-256 of what decides the numbers of a run: method, settings, split and activation policy. */
export const hashConfig = (
  config: TrainConfig,
  method: string,
  settings: unknown,
  decided: { readonly tokenBudget: number; readonly policy: string; readonly packing: boolean },
): string => {
  const extendable = config.schedule === "constant" && config.warmupRatio === 0
  const entries = decisive(config)
    .filter(([key]) => !(extendable && (key === "steps" || key === "epochs")))
    // Runs from before there was a choice have the hash of f32.
    .filter(([key, value]) => !(key === "precision" && value === "f32"))
    .filter(([key]) => key !== "referenceModel" || config.adapter !== undefined)
  const { tokenBudget, policy, packing } = decided
  return createHash("sha256")
    .update(JSON.stringify([method, settings ?? null, entries, tokenBudget, policy, packing]))
    .digest("hex")
}
