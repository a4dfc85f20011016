import { existsSync } from "node:fs"
import { readEvents, readRunConfig, runPaths, type RunConfig, type RunEventOf, type StepEvent } from "@sloth/core"
import { describeConfig } from "@sloth/core"
import { readSamples, TrainConfigSchema, type RunPlan } from "@sloth/train"

/** An answer before and after. */
export interface ReportSample {
  readonly prompt: string
  readonly before: string | undefined
  readonly after: string | undefined
}

/** A completion of a rollout. */
export interface ReportCompletion {
  readonly step: number
  readonly prompt: string
  readonly completion: string
  readonly reward: number | null
  readonly rewards: Readonly<Record<string, number | null>>
  /** How often the same was said to the same prompt, and earned the same. */
  readonly times: number
}

/** One line of the settings table. */
export interface ReportSetting {
  readonly key: string
  readonly value: string
  readonly description: string
  /** True where the value is not the default. */
  readonly changed: boolean
}

/** Everything that a report shows. */
export interface ReportData {
  readonly config: RunConfig
  readonly status: "completed" | "interrupted" | "stopped" | "failed" | "unfinished"
  readonly message: string | undefined
  readonly steps: readonly StepEvent[]
  readonly evaluations: readonly RunEventOf<"eval">[]
  readonly samples: readonly ReportSample[]
  /** Completions of the last rollout, best first; empty for methods that sample none. */
  readonly completions: readonly ReportCompletion[]
  readonly exports: readonly RunEventOf<"export">[]
  readonly warnings: readonly RunEventOf<"warning">[]
  readonly plan: RunPlan | undefined
  readonly settings: readonly ReportSetting[]
  /** The method's own, with rewards and environment. */
  readonly methodSettings: readonly ReportSetting[]
  readonly statement: string | undefined
  readonly method: string | undefined
  readonly model: string | undefined
  readonly data: readonly string[]
}

const shown = (value: unknown): string =>
  value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value)

const settingsOf = (config: RunConfig): ReportSetting[] => {
  const fields = new Map(describeConfig(TrainConfigSchema).map((field) => [field.key, field]))
  return Object.entries(config.config).map(([key, value]) => {
    const field = fields.get(key)
    return {
      key,
      value: shown(value),
      description: field?.description ?? "",
      changed: JSON.stringify(value) !== JSON.stringify(field?.default),
    }
  })
}

const methodSettingsOf = (details: Readonly<Record<string, unknown>>): ReportSetting[] => {
  const inputs = (details["inputs"] ?? {}) as Readonly<Record<string, unknown>>
  const { rewards, environment, environmentSettings } = inputs
  const own = (details["settings"] ?? {}) as Readonly<Record<string, unknown>>
  return Object.entries({ rewards, environment, environmentSettings, ...own })
    .filter(([, value]) => value !== undefined && value !== null && JSON.stringify(value) !== "[]")
    .map(([key, value]) => ({ key, value: shown(value), description: "", changed: false }))
}

const samplesOf = (events: readonly RunEventOf<"sample">[]): ReportSample[] => {
  const byPrompt = new Map<string, { before?: string; after?: string }>()
  for (const { prompt, phase, completion } of events) {
    // Completions of a rollout are no answers to fixed questions.
    if (phase === "during") continue
    const entry = byPrompt.get(prompt) ?? {}
    if (phase === "before") entry.before = completion
    else entry.after = completion
    byPrompt.set(prompt, entry)
  }
  return [...byPrompt].map(([prompt, { before, after }]) => ({ prompt, before, after }))
}

/** Most completions that a report shows, half of them the best and half the worst. */
const MOST_COMPLETIONS = 12

const completionsOf = (path: string): ReportCompletion[] => {
  const all = readSamples(path)
  const last = all.at(-1)?.step
  const same = new Map<string, ReportCompletion>()
  for (const sample of all) {
    if (sample.step !== last) continue
    const key = JSON.stringify([sample["prompt"], sample["completion"], sample["reward"]])
    same.set(key, {
      times: (same.get(key)?.times ?? 0) + 1,
      step: sample.step,
      prompt: questionOf(sample["prompt"]),
      completion: String(sample["completion"] ?? ""),
      reward: typeof sample["reward"] === "number" ? sample["reward"] : null,
      rewards: (sample["rewards"] ?? {}) as ReportCompletion["rewards"],
    })
  }
  const sorted = [...same.values()].sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity))
  return sorted.length <= MOST_COMPLETIONS
    ? sorted
    : [...sorted.slice(0, MOST_COMPLETIONS / 2), ...sorted.slice(-MOST_COMPLETIONS / 2)]
}

/** What a person asked last in a prompt of `samples.jsonl`. */
export const questionOf = (prompt: unknown): string => {
  if (!Array.isArray(prompt)) return String(prompt ?? "")
  const messages = prompt as readonly { readonly role?: unknown; readonly content?: unknown }[]
  return String(messages.findLast(({ role }) => role !== "assistant")?.content ?? "")
}

/** Reads what a run folder holds. Errors: SLOTH_RUN_NOT_A_RUN, SLOTH_EVENTS_CORRUPT. */
export const readReportData = (run: string): ReportData => {
  const config = readRunConfig(run)
  const paths = runPaths(run)
  const events = existsSync(paths.events) ? readEvents(paths.events) : []
  const of = <T extends (typeof events)[number]["type"]>(type: T): RunEventOf<T>[] =>
    events.filter((event): event is RunEventOf<T> => event.type === type)
  const end = of("run-end").at(-1)
  const details = config.details ?? {}
  const inputs = (details["inputs"] ?? {}) as { readonly model?: string; readonly data?: readonly string[] }
  const exportsByPath = new Map(of("export").map((event) => [event.path, event]))
  return {
    config,
    status: end?.reason ?? "unfinished",
    message: end?.reason === "failed" || end?.reason === "stopped" ? end.message : undefined,
    steps: of("step"),
    evaluations: of("eval"),
    samples: samplesOf(of("sample")),
    completions: completionsOf(paths.samples),
    exports: [...exportsByPath.values()],
    warnings: of("warning"),
    plan: (of("plan").at(-1)?.plan ?? details["plan"]) as RunPlan | undefined,
    settings: settingsOf(config),
    methodSettings: methodSettingsOf(details),
    statement: typeof details["statement"] === "string" ? details["statement"] : undefined,
    method: typeof details["method"] === "string" ? details["method"] : undefined,
    model: inputs.model,
    data: inputs.data ?? [],
  }
}
