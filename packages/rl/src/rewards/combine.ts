import type { Reward } from "@sloth/core"
import { clamp, mean, standardDeviation } from "../internal/math.ts"
import { innerScores, type Scores } from "../internal/inner-scores.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"

interface Named {
  readonly name?: string
  readonly weight?: number
}

const combined = (
  rewards: readonly Reward[],
  { name, weight }: { readonly name: string; readonly weight?: number },
  combine: (scores: Scores) => number | null,
): DefinedReward =>
  defineReward({
    name,
    weight,
    score: async (samples, context) => {
      const columns = await innerScores(rewards, samples, context)
      return samples.map((_, i) => combine(columns.map((column) => column[i]!)))
    },
  })

const joined = (word: string, rewards: readonly Reward[]): string => `${word}(${rewards.map((r) => r.name).join(",")})`

/** The sum of rewards by their weights; null counts nothing, and all null is null. */
export const sumOf = (rewards: readonly Reward[], options: Named = {}): DefinedReward =>
  combined(rewards, { name: joined("sum", rewards), ...options }, (scores) =>
    scores.every((score) => score === null)
      ? null
      : scores.reduce<number>((n, score, k) => n + (score ?? 0) * (rewards[k]!.weight ?? 1), 0),
  )

/** The product of rewards; null where one is null. */
export const productOf = (rewards: readonly Reward[], options: Named = {}): DefinedReward =>
  combined(rewards, { name: joined("product", rewards), ...options }, (scores) =>
    scores.reduce<number | null>((n, score) => (n === null || score === null ? null : n * score), 1),
  )

/**
 * A reward that only counts where a condition, another reward, reaches `threshold`; elsewhere it is `closed`. Only completions that pass are scored, so that a dear reward
 * can stand behind a cheap one. Null of the condition is null.
 */
export const gate = (
  condition: Reward,
  reward: Reward,
  options: Named & {
    /** 0.5 when absent. */
    readonly threshold?: number
    /** Score where the gate is closed; 0 when absent. */
    readonly closed?: number
  } = {},
): DefinedReward => {
  const { name = `${condition.name}&${reward.name}`, weight, threshold = 0.5, closed = 0 } = options
  return defineReward({
    name,
    weight,
    score: async (samples, context) => {
      const [open] = await innerScores([condition], samples, context)
      const passing = samples.filter((_, i) => open![i] !== null && open![i]! >= threshold)
      const scores = passing.length === 0 ? [] : (await innerScores([reward], passing, context))[0]!
      let at = 0
      return open!.map((score) => (score === null ? null : score >= threshold ? scores[at++]! : closed))
    },
  })
}

/** A reward held between two values. */
export const clipped = (
  reward: Reward,
  range: readonly [low: number, high: number],
  options: Named = {},
): DefinedReward =>
  combined([reward], { name: reward.name, ...options }, ([score]) =>
    score === null ? null : clamp(score!, range[0], range[1]),
  )

/** A reward with mean 0 and standard deviation 1 over the completions that are scored together; equal scores become 0. */
export const normalised = (reward: Reward, options: Named = {}): DefinedReward =>
  defineReward({
    name: options.name ?? reward.name,
    weight: options.weight,
    score: async (samples, context) => {
      const scores = (await innerScores([reward], samples, context))[0]!
      const values = scores.filter((score) => score !== null)
      const [center, deviation] = [mean(values), values.length < 2 ? 0 : standardDeviation(values)]
      return scores.map((score) => (score === null ? null : deviation < 1e-12 ? 0 : (score - center) / deviation))
    },
  })
