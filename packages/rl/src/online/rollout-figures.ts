import type { Reward } from "@sloth/core"
import type { SampleRecord } from "@sloth/train"
import type { PromptExample } from "../data/prompts.ts"
import { mean } from "../internal/math.ts"
import type { Sampled } from "./group-sampler.ts"

/** The figures that are numbers. */
export const finite = (figures: Readonly<Record<string, number>>): Record<string, number> =>
  Object.fromEntries(Object.entries(figures).filter(([, value]) => Number.isFinite(value)))

/** Lengths of completions, and of those that ended by themselves. */
export const lengths = (sampled: readonly Sampled[]): Record<string, number> => {
  const of = (some: readonly Sampled[], name: string): Record<string, number> => {
    const values = some.map(({ completion }) => completion.tokens.length)
    return values.length === 0
      ? {}
      : {
          [`completions/mean_${name}`]: mean(values),
          [`completions/min_${name}`]: Math.min(...values),
          [`completions/max_${name}`]: Math.max(...values),
        }
  }
  return {
    ...of(sampled, "length"),
    ...of(
      sampled.filter(({ completion }) => completion.finishReason === "stop"),
      "terminated_length",
    ),
  }
}

/** Means and deviations of scores, where completions have been exchanged since the rewards were run. */
export const scoreMetrics = (
  rewards: readonly Reward[],
  scores: readonly (readonly (number | null)[])[],
): Record<string, number> => {
  const metrics: Record<string, number> = {}
  for (const [k, { name }] of rewards.entries()) {
    const values = scores[k]!.filter((score) => score !== null)
    if (values.length === 0) continue
    const center = mean(values)
    metrics[`rewards/${name}/mean`] = center
    metrics[`rewards/${name}/std`] =
      values.length < 2 ? 0 : Math.sqrt(values.reduce((n, x) => n + (x - center) ** 2, 0) / (values.length - 1))
  }
  return metrics
}

/** The lines of `samples.jsonl` for a rollout with `count` completions a prompt. */
export const sampleRecords = (
  step: number,
  count: number,
  sampled: readonly Sampled[],
  judged: {
    readonly rewards: readonly Reward[]
    readonly scores: readonly (readonly (number | null)[])[]
    readonly totals: Float64Array
    readonly advantages: readonly (number | Float64Array)[]
  },
): SampleRecord[] =>
  sampled.map(({ example, completion, text }, i) => {
    const advantage = judged.advantages[i]!
    return {
      step,
      row: example.row,
      index: i % count,
      prompt: example.prompt,
      completion: text,
      tokens: completion.tokens.length,
      finish: completion.finishReason,
      rewards: Object.fromEntries(judged.rewards.map(({ name }, k) => [name, judged.scores[k]![i]])),
      reward: Number.isNaN(judged.totals[i]!) ? null : judged.totals[i]!,
      advantage: typeof advantage === "number" ? advantage : mean(advantage),
      ...completion.details,
    }
  })

/** Best and worst completion of the group whose rewards differ most; one where they are the same. */
export const extremes = (rewards: Float64Array, count: number): ReadonlySet<number> => {
  let best: readonly [high: number, low: number] = [0, 0]
  for (let g = 0; g < rewards.length; g += count) {
    const places = Array.from({ length: count }, (_, i) => g + i).filter((i) => !Number.isNaN(rewards[i]!))
    if (places.length === 0) continue
    const high = places.reduce((a, b) => (rewards[b]! > rewards[a]! ? b : a))
    const low = places.reduce((a, b) => (rewards[b]! < rewards[a]! ? b : a))
    if (g === 0 || rewards[high]! - rewards[low]! > rewards[best[0]]! - rewards[best[1]]!) best = [high, low]
  }
  return new Set(best)
}

/** What a person asked last. */
export const questionOf = (prompt: PromptExample["prompt"]): string =>
  typeof prompt === "string" ? prompt : (prompt.findLast(({ role }) => role !== "assistant")?.content ?? "")
