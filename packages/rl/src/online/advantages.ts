import { SlothError } from "@sloth/core"
import { clamp, mean, standardDeviation, sum } from "../internal/math.ts"

/** Scores of completions: one list a reward, in the order of the completions; null where the reward has nothing to say. */
export type RewardTable = readonly (readonly (number | null)[])[]

/** How rewards become advantages. */
export interface AdvantageSettings {
  /** What the deviation from the group's mean is divided by: the group's standard deviation, that of the batch, or nothing. */
  readonly scale: "group" | "batch" | "none"
  /** Several rewards: their weighted sum is normalised, or each is normalised in its group and then summed (GDPO). */
  readonly aggregation: "sum_then_normalize" | "normalize_then_sum"
  /** One for each reward; 1 each when absent. */
  readonly weights?: readonly number[]
  /** Added to standard deviations; 1e-4 when absent, as TRL has it. */
  readonly epsilon?: number
}

/** Advantages with what they were made of. */
export interface Advantages {
  /** One for each completion; 0 where no reward could score it. */
  readonly advantages: Float64Array
  /** Weighted sums of rewards; NaN where no reward could score. */
  readonly rewards: Float64Array
  /** Groups in which all scored completions have the same reward, and so teach nothing. */
  readonly flatGroups: readonly number[]
  /** reward, reward_std, frac_reward_zero_std. */
  readonly metrics: Readonly<Record<string, number>>
}

/** The values that are numbers. */
const known = (values: ArrayLike<number>): number[] => Array.from(values).filter((x) => !Number.isNaN(x))
const knownMean = (values: ArrayLike<number>): number => mean(known(values))
const knownDeviation = (values: ArrayLike<number>): number => standardDeviation(known(values))
const orZero = (x: number): number => (Number.isFinite(x) ? x : 0)

/** First index and end of each group. */
const bounds = (groupSizes: readonly number[]): (readonly [number, number])[] => {
  let start = 0
  return groupSizes.map((size) => {
    const first = start
    start += size
    return [first, start]
  })
}

const checkTable = (rewards: RewardTable, weights: readonly number[], groupSizes: readonly number[]): number => {
  const n = groupSizes.reduce((a, b) => a + b, 0)
  const wrong = rewards.findIndex((column) => column.length !== n)
  if (wrong >= 0 || weights.length !== rewards.length || rewards.length === 0)
    throw new SlothError("SLOTH_RL_REWARD_TABLE", {
      what:
        wrong >= 0
          ? `Reward ${wrong} has ${rewards[wrong]!.length} scores for ${n} completions.`
          : `There are ${rewards.length} rewards and ${weights.length} weights.`,
      next: "Give one score a completion for every reward, and one weight a reward.",
      fields: { rewards: rewards.length, weights: weights.length, completions: n },
    })
  return n
}

/** Weighted sums over rewards, null counting nothing; NaN where all are null. */
export const weightedRewards = (
  rewards: RewardTable,
  weights: readonly number[] = rewards.map(() => 1),
): Float64Array =>
  Float64Array.from({ length: rewards[0]?.length ?? 0 }, (_, i) => {
    const scored = rewards.some((column) => column[i] !== null)
    return scored ? rewards.reduce((n, column, k) => n + weights[k]! * (column[i] ?? 0), 0) : Number.NaN
  })

/**
 * Advantages of groups of completions, each group from one prompt and standing together. Source: Shao et al. 2024 (GRPO), Liu et al. 2025 (Dr. GRPO: scale "none"),
 * Liu et al. 2026 (GDPO); as TRL 1.13: deviations with Bessel's correction, 1e-4 added.
 */
export const groupAdvantages = (
  rewards: RewardTable,
  groupSizes: readonly number[],
  settings: AdvantageSettings,
): Advantages => {
  const { scale, aggregation, weights = rewards.map(() => 1), epsilon = 1e-4 } = settings
  const n = checkTable(rewards, weights, groupSizes)
  const groups = bounds(groupSizes)
  const sums = weightedRewards(rewards, weights)
  const advantages = new Float64Array(n)
  const deviations = groups.map(([a, b]) => knownDeviation(sums.subarray(a, b)))
  if (aggregation === "sum_then_normalize") {
    const batch = knownDeviation(sums)
    for (const [g, [a, b]] of groups.entries()) {
      const center = knownMean(sums.subarray(a, b))
      const divisor = scale === "none" ? 1 : (scale === "group" ? deviations[g]! : batch) + epsilon
      for (let i = a; i < b; i++) advantages[i] = orZero((sums[i]! - center) / divisor)
    }
  } else {
    const total = Float64Array.from(sums, (x) => (Number.isNaN(x) ? Number.NaN : 0))
    for (const [k, column] of rewards.entries()) {
      const values = Float64Array.from(column, (x) => x ?? Number.NaN)
      for (const [a, b] of groups) {
        const part = values.subarray(a, b)
        const [center, deviation] = [knownMean(part), knownDeviation(part)]
        for (let i = a; i < b; i++) total[i]! += weights[k]! * orZero((values[i]! - center) / (deviation + epsilon))
      }
    }
    const [center, deviation] = [knownMean(total), knownDeviation(total)]
    for (let i = 0; i < n; i++) advantages[i] = orZero((total[i]! - center) / (deviation + epsilon))
  }
  const flatGroups = groups.flatMap(([a, b], g) => {
    const scored = known(sums.subarray(a, b))
    return scored.every((x) => Math.abs(x - scored[0]!) < 1e-8) ? [g] : []
  })
  return {
    advantages,
    rewards: sums,
    flatGroups,
    metrics: {
      reward: orZero(knownMean(sums)),
      reward_std: orZero(knownDeviation(sums)),
      frac_reward_zero_std: groups.length === 0 ? 0 : flatGroups.length / groups.length,
    },
  }
}

/** Settings of {@link rlooAdvantages}. */
export interface RlooSettings {
  /** Weight of the KL divergence that is taken off the rewards. */
  readonly beta: number
  /** Rewards are held between these before the KL divergence is taken off. */
  readonly clip?: readonly [low: number, high: number]
  /** Divides by the standard deviation of all advantages. */
  readonly normalize: boolean
}

/**
 * Leave-one-out advantages: the reward of a completion, less its KL divergence from the reference (the sum of old - reference over tokens), against the mean of
 * its siblings. Source: Ahmadian et al. 2024; as TRL 1.13.
 */
export const rlooAdvantages = (
  rewards: Float64Array,
  groupSizes: readonly number[],
  settings: RlooSettings,
  kl?: Float64Array,
): Float64Array => {
  const { beta, clip, normalize } = settings
  const r = rewards.map((x, i) => (clip === undefined ? x : clamp(x, clip[0], clip[1])) - beta * (kl?.[i] ?? 0))
  const advantages = new Float64Array(r.length)
  for (const [a, b] of bounds(groupSizes)) {
    const scored = known(r.subarray(a, b))
    const total = sum(scored)
    for (let i = a; i < b; i++)
      advantages[i] = scored.length < 2 ? 0 : orZero(r[i]! - (total - r[i]!) / (scored.length - 1))
  }
  if (!normalize) return advantages
  const [center, deviation] = [mean(advantages), standardDeviation(advantages)]
  return advantages.map((x) => orZero((x - center) / (deviation + 1e-4)))
}

/** Settings of {@link reinforceAdvantages}. */
export interface ReinforceSettings {
  /** Discount from token to token. */
  readonly gamma: number
  /** Weight of each token's KL divergence from the reference (old - reference), taken off its reward. */
  readonly klCoef: number
  /** Takes the mean reward of the prompt's group off first (REINFORCE++-baseline). */
  readonly baseline: boolean
}

/**
 * REINFORCE++: the discounted sum of what is still to come, at every token, whitened over all tokens of the batch. `kl` has one array a completion; `lengths` its
 * tokens. Source: Hu 2025; as verl, `reinforce_plus_plus` and `reinforce_plus_plus_baseline` (which spreads the reward over all tokens undiscounted).
 */
export const reinforceAdvantages = (
  rewards: Float64Array,
  groupSizes: readonly number[],
  lengths: readonly number[],
  settings: ReinforceSettings,
  kl?: readonly Float64Array[],
): Float64Array[] => {
  const { gamma, klCoef, baseline } = settings
  const scores = rewards.map(orZero)
  if (baseline)
    for (const [a, b] of bounds(groupSizes)) {
      const center = b - a > 1 ? orZero(knownMean(rewards.subarray(a, b))) : 0
      for (let i = a; i < b; i++) scores[i] = Number.isNaN(rewards[i]!) ? 0 : scores[i]! - center
    }
  const returns = lengths.map((length, i) => {
    const out = new Float64Array(length)
    if (baseline && klCoef === 0) return out.fill(scores[i]!)
    let running = 0
    for (let t = length - 1; t >= 0; t--) {
      const reward = (t === length - 1 ? scores[i]! : 0) - klCoef * (kl?.[i]?.[t] ?? 0)
      running = reward + gamma * running
      out[t] = running
    }
    return out
  })
  return whiten(returns)
}

/** Subtracts the mean of all tokens and divides by their standard deviation (Bessel's correction, 1e-8 added to the variance). */
export const whiten = (values: readonly Float64Array[], keepMean = false): Float64Array[] => {
  const all = Float64Array.from(values.flatMap((row) => [...row]))
  if (all.length === 0) return values.map((row) => row.slice())
  const center = mean(all)
  const variance = all.length < 2 ? 0 : standardDeviation(all) ** 2
  const divisor = Math.sqrt(variance + 1e-8)
  return values.map((row) => row.map((x) => (x - center) / divisor + (keepMean ? center : 0)))
}
