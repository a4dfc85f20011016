import type { RewardMessage } from "@sloth/core"
import { scoreSteps, scoreTexts, type ScoreTextsOptions, type ScoringModel } from "../reward-model/score-texts.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"

/** Options of {@link rewardModelScorer}. */
export interface RewardModelOptions extends Omit<ScoreTextsOptions, "signal"> {
  /** Its name in events and samples; "reward_model" when absent. */
  readonly name?: string
  /** Factor in the sum of rewards; 1 when absent. */
  readonly weight?: number
}

/**
 * A reward that is the score of a reward model, such as one that the method `reward` trained and `sloth.open` opened. A completion without text has no score.
 * Errors, when it scores: those of {@link scoreTexts}.
 */
export const rewardModelScorer = (judge: ScoringModel, options: RewardModelOptions = {}): DefinedReward => {
  const { name = "reward_model", weight, ...how } = options
  return defineReward({
    name,
    ...(weight === undefined ? {} : { weight }),
    score: async (samples, { signal }) => {
      const spoken = samples.flatMap(({ completion }, i) => (completion === "" ? [] : [i]))
      const out: (number | null)[] = samples.map(() => null)
      if (spoken.length === 0) return out
      const scores = await scoreTexts(
        judge,
        spoken.map((i) => samples[i]!),
        { ...how, signal },
      )
      for (const [k, i] of spoken.entries()) out[i] = scores[k]!
      return out
    },
  })
}

/** How the probabilities of steps become one score. */
export const STEP_SCORES = ["min", "mean", "product", "last"] as const

/** One of {@link STEP_SCORES}. */
export type StepScore = (typeof STEP_SCORES)[number]

/** Options of {@link processRewardScorer}. */
export interface ProcessRewardOptions extends Omit<RewardModelOptions, "template"> {
  /** How the probabilities of steps become one score; "min", the weakest step, when absent. */
  readonly steps?: StepScore
}

const combine: Readonly<Record<StepScore, (values: Float64Array) => number>> = {
  min: (values) => values.reduce((a, b) => Math.min(a, b)),
  mean: (values) => values.reduce((a, b) => a + b, 0) / values.length,
  product: (values) => values.reduce((a, b) => a * b, 1),
  last: (values) => values.at(-1)!,
}

const questionOf = (prompt: string | readonly RewardMessage[]): string =>
  typeof prompt === "string" ? prompt : (prompt.findLast(({ role }) => role === "user")?.content ?? "")

/**
 * A reward that is what a process reward model says of a completion's steps, its lines that are not empty: the weakest of them when not told otherwise, 0 to 1. A completion
 * without a line has no score. Errors, when it scores: those of {@link scoreSteps}. Source: Lightman et al. 2023 (product); Wang et al. 2023, Math-Shepherd (min).
 */
export const processRewardScorer = (judge: ScoringModel, options: ProcessRewardOptions = {}): DefinedReward => {
  const { name = "process_reward", weight, steps: how = "min", ...rest } = options
  return defineReward({
    name,
    ...(weight === undefined ? {} : { weight }),
    score: async (samples, { signal, metric }) => {
      const solutions = samples.map(({ prompt, completion }) => ({
        prompt: questionOf(prompt),
        steps: completion.split("\n").filter((line) => line.trim() !== ""),
      }))
      const scored = await scoreSteps(judge, solutions, { ...rest, signal })
      return scored.map((values) => {
        if (values.length === 0) return null
        metric("steps", values.length)
        return combine[how](values)
      })
    },
  })
}
