import type { StepCounts } from "../internal/counts.ts"
import { mean, sum } from "../internal/math.ts"
import { divergenceScore, type Divergence } from "./divergence.ts"
import {
  alignmentLoss,
  PAIR_LOSSES,
  type DpoLoss,
  type PairLossSettings,
  type PairTerms,
  type PairValue,
} from "./dpo-losses.ts"

/** Log-probs of one completion, nats. */
export interface CompletionLogprobs {
  /** Of each token under the model that is trained. */
  readonly policy: Float64Array
  /** Of each token under the reference, or their sum; absent for methods without a reference. */
  readonly reference?: Float64Array | number
  /** Log of the sum of squared probabilities at each token, for WPO. */
  readonly collision?: Float64Array
}

/** A chosen and a rejected completion of one prompt. */
export interface PairLogprobs {
  readonly chosen: CompletionLogprobs
  readonly rejected: CompletionLogprobs
}

/** Settings of {@link dpoLoss}. */
export interface DpoMathSettings extends PairLossSettings {
  readonly losses: readonly DpoLoss[]
  /** One for each loss; not normalised. */
  readonly weights: readonly number[]
  readonly divergence: Divergence
  /** Alpha of the alpha divergence. */
  readonly divergenceAlpha: number
  /** Weight of the tokens beyond the shorter length of the pair (LD-DPO); 1 counts them fully. */
  readonly ldAlpha: number
  /** Weighs every pair by how likely the policy itself would write it (WPO); needs `collision`. */
  readonly wpo: boolean
}

/** What a preference loss gives: its value, the gradient by each token's log-prob, and additive figures for the step's event. */
export interface PairResult {
  readonly loss: number
  readonly gradients: readonly { readonly chosen: Float64Array; readonly rejected: Float64Array }[]
  readonly metrics: Readonly<Record<string, number>>
}

/** Sum in which the tokens from `shared` on count `tail` times. */
const weightedSum = (values: Float64Array, shared: number, tail: number): number =>
  tail === 1 ? sum(values) : sum(values.subarray(0, shared)) + tail * sum(values.subarray(shared))

const referenceSum = ({ reference }: CompletionLogprobs, shared: number, tail: number): number =>
  typeof reference === "number" ? reference : weightedSum(reference ?? new Float64Array(), shared, tail)

/** Summed log-probs of a pair, nats: of the policy for chosen and rejected, of the reference for both. */
export type PairSums = readonly [number, number, number, number]

/** Sums of a pair in which the tokens beyond the shorter length count `ldAlpha` times. */
export const pairSums = ({ chosen, rejected }: PairLogprobs, ldAlpha: number): PairSums => {
  const shared = Math.min(chosen.policy.length, rejected.policy.length)
  return [
    weightedSum(chosen.policy, shared, ldAlpha),
    weightedSum(rejected.policy, shared, ldAlpha),
    referenceSum(chosen, shared, ldAlpha),
    referenceSum(rejected, shared, ldAlpha),
  ]
}

/** exp of the mean over tokens of log p minus the log of what p is on average where the policy itself draws. Source: Zhou et al. 2024, WPO. */
const likelihoodWeight = ({ policy, collision }: CompletionLogprobs): number =>
  policy.length === 0 ? 1 : Math.exp(mean(policy.map((lp, t) => lp - collision![t]!)))

/**
 * The losses of the DPO family over pairs, as a part of a step that has `counts.rows` pairs and `counts.tokens` chosen tokens: the mean over pairs of the weighted
 * sum of the losses. `aot` and `aot_unpaired` compare pairs by the order of their sums among all of the step, which `whole` holds with the place of each pair given;
 * without it the pairs given are the whole step.
 * Source: Rafailov et al. 2023; every loss as TRL 1.13.
 */
export const dpoLoss = (
  pairs: readonly PairLogprobs[],
  settings: DpoMathSettings,
  counts: StepCounts,
  whole?: { readonly sums: readonly PairSums[]; readonly indices: readonly number[] },
): PairResult => {
  const { ldAlpha, divergence, divergenceAlpha, beta } = settings
  const n = pairs.length
  const shared = pairs.map((p) => Math.min(p.chosen.policy.length, p.rejected.policy.length))
  const sums = pairs.map((pair) => pairSums(pair, ldAlpha))
  const policy = { chosen: sums.map((s) => s[0]), rejected: sums.map((s) => s[1]) }
  const reference = { chosen: sums.map((s) => s[2]), rejected: sums.map((s) => s[3]) }
  const terms = pairs.map((pair, i): PairTerms => {
    const chosen = policy.chosen[i]! - reference.chosen[i]!
    const rejected = policy.rejected[i]! - reference.rejected[i]!
    return {
      chosen,
      rejected,
      chosenScore: divergenceScore(divergence, chosen, divergenceAlpha),
      rejectedScore: divergenceScore(divergence, rejected, divergenceAlpha),
      chosenLength: pair.chosen.policy.length,
      rejectedLength: pair.rejected.policy.length,
    }
  })
  const likelihood = pairs.map((p) => (settings.wpo ? likelihoodWeight(p.chosen) * likelihoodWeight(p.rejected) : 1))

  let loss = 0
  const [dChosen, dRejected] = [new Float64Array(n), new Float64Array(n)]
  // The weight of the mean negative log-prob of chosen tokens, which is not a function of sums.
  let supervised = 0
  const add = (i: number, weight: number, { value, dChosen: c, dRejected: r }: PairValue): void => {
    loss += (weight * value) / counts.rows
    dChosen[i]! += (weight * c) / counts.rows
    dRejected[i]! += (weight * r) / counts.rows
  }
  for (const [k, name] of settings.losses.entries()) {
    const weight = settings.weights[k]!
    if (name === "sft") supervised += weight
    else if (name === "aot" || name === "aot_unpaired") {
      const all = whole?.sums ?? sums
      const side = (k: 0 | 1 | 2 | 3): Float64Array => Float64Array.from(all, (s) => s[k])
      const aligned = alignmentLoss(
        name,
        { chosen: side(0), rejected: side(1) },
        { chosen: side(2), rejected: side(3) },
        settings,
      )
      for (let i = 0; i < n; i++) {
        // The value of a rank stands at the pair of that number: over the whole step the values are the same ones.
        const at = whole?.indices[i] ?? i
        add(i, weight, { value: aligned.values[at]!, dChosen: aligned.dChosen[at]!, dRejected: aligned.dRejected[at]! })
      }
    } else for (const [i, pair] of terms.entries()) add(i, weight * likelihood[i]!, PAIR_LOSSES[name](pair, settings))
  }
  // One weight of the step for all: with WPO TRL weighs the token mean by the mean of the pairs' weights.
  const supervisedWeight = settings.wpo ? supervised * (sum(likelihood) / Math.max(1, n)) : supervised
  const perToken = supervised === 0 ? 0 : supervisedWeight / counts.tokens
  for (const pair of pairs) loss -= perToken * sum(pair.chosen.policy)

  const perPair = (value: (pair: PairTerms, i: number) => number): number =>
    terms.reduce((total, pair, i) => total + value(pair, i), 0) / counts.rows
  return {
    loss,
    gradients: pairs.map((pair, i) => ({
      chosen: pair.chosen.policy.map((_, t) => dChosen[i]! * (t < shared[i]! ? 1 : ldAlpha) - perToken),
      rejected: pair.rejected.policy.map((_, t) => dRejected[i]! * (t < shared[i]! ? 1 : ldAlpha)),
    })),
    metrics: {
      "rewards/chosen": perPair((p) => beta * p.chosen),
      "rewards/rejected": perPair((p) => beta * p.rejected),
      "rewards/accuracies": perPair((p) => (p.chosen > p.rejected ? 1 : 0)),
      "rewards/margins": perPair((p) => beta * (p.chosen - p.rejected)),
      "logps/chosen": perPair((_, i) => policy.chosen[i]!),
      "logps/rejected": perPair((_, i) => policy.rejected[i]!),
    },
  }
}
