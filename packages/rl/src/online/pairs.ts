import { field, withDefault } from "@sloth/core"
import type { LogprobBatch, LogprobLoss } from "@sloth/train"
import { logSigmoid, sigmoid } from "../internal/math.ts"
import { unpackCounts } from "../internal/counts.ts"
import { pick, putGradient } from "../preference/completions-unit.ts"
import { weightedRewards } from "./advantages.ts"
import type { GroupMethod, SampledFacts } from "./group-method.ts"
import { rewardFigures } from "./group-objective.ts"
import { rolloutFields } from "./grpo-settings.ts"
import { maskedCount } from "./importance.ts"
import { judgeFields } from "./judge-settings.ts"
import { sampledSize } from "./policy-objective.ts"
import type { SampledUnit } from "./sampled-unit.ts"

const {
  numGenerations: _count,
  maskTruncated: _mask,
  temperature: _temperature,
  maxCompletionLength: _length,
  ...common
} = rolloutFields({ numGenerations: 2 })

/** Settings of methods that compare two completions of each prompt. */
export const pairFields = {
  ...common,
  maxCompletionLength: field
    .int({ description: "Most tokens of a completion.", unit: "tokens", min: 1, aka: ["max_new_tokens"] })
    .pipe(withDefault(64)),
  temperature: field.number({ description: "Temperature of sampling.", above: 0, max: 100 }).pipe(withDefault(0.9)),
  beta: field
    .number({ description: "How strongly the policy is kept near the reference.", above: 0 })
    .pipe(withDefault(0.1)),
  missingEndPenalty: field
    .number({
      description: "Taken off the reward of completions that were cut at maxCompletionLength.",
      min: 0,
      aka: ["missing_eos_penalty"],
    })
    .pipe(withDefault(0)),
  ...judgeFields,
}

/** What a pair of equal rewards teaches. */
export const tiesField = field
  .choice(["first", "skip"], {
    description:
      "What to do with pairs of equal rewards: take the first as the better one, or learn nothing from them, which is better where rewards are often equal, as of answers that are right or wrong.",
  })
  .pipe(withDefault("first"))

/** How a pair that was sampled becomes a loss. */
export const pairLossField = field
  .choice(["sigmoid", "ipo"], {
    description: "The loss of a pair: that of DPO, or of IPO over whole completions.",
    aka: ["loss_type"],
  })
  .pipe(withDefault("sigmoid"))

/** The settings of {@link pairFields}, decoded. */
export interface PairSettings {
  readonly beta: number
  readonly missingEndPenalty: number
}

/** Scores of completions less the penalty of those that were cut. */
export const penalised = (scores: Float64Array, finish: SampledFacts["finish"], penalty: number): Float64Array =>
  scores.map((score, i) => (finish[i] === "length" ? score - penalty : score))

/**
 * 1 for the better completion of each pair and -1 for the other, the first where they are equal; 0 for both where one has no score, and with `skipTies` where they are equal.
 */
export const pairSigns = (scores: Float64Array, skipTies = false): Float64Array =>
  scores.map((score, i) => {
    const other = scores[i ^ 1]!
    if (Number.isNaN(score) || Number.isNaN(other) || (skipTies && score === other)) return 0
    const isFirst = i % 2 === 0
    return (isFirst ? score >= other : score > other) ? 1 : -1
  })

/** The two completions of a prompt, with log-probs of their tokens that count, nats. */
export interface SampledPair {
  readonly policy: readonly [Float64Array, Float64Array]
  readonly reference: readonly [Float64Array, Float64Array]
  /** Advantages, as {@link pairSigns} gives them or as a method has them. */
  readonly signs: readonly [number, number]
}

/** A loss over pairs with its gradients by the policy's log-probs. */
export interface SampledPairResult {
  readonly loss: number
  readonly gradients: readonly (readonly [Float64Array, Float64Array])[]
  readonly metrics: Readonly<Record<string, number>>
}

const total = (values: Float64Array): number => values.reduce((a, b) => a + b, 0)

/**
 * The loss of DPO or IPO over pairs that were sampled, as a part of a step with `pairs` of them, and `alpha` times the log-prob of the second completion of each, which pushes
 * the policy away from what the reference says (XPO). Source: Guo et al. 2024 (online DPO); Xie et al. 2024 (XPO); as TRL 1.10 and later, whose IPO divides by no length here.
 */
export const pairLoss = (
  sampled: readonly SampledPair[],
  settings: { readonly loss: "sigmoid" | "ipo"; readonly beta: number; readonly alpha?: number },
  pairs: number,
): SampledPairResult => {
  const { beta, alpha = 0 } = settings
  const sums = { loss: 0, chosen: 0, rejected: 0, accuracies: 0, bonus: 0 }
  const logps = { chosen: 0, rejected: 0 }
  let kl = 0
  const gradients = sampled.map(({ policy, reference, signs }): readonly [Float64Array, Float64Array] => {
    if (signs[0] === 0) return [new Float64Array(policy[0].length), new Float64Array(policy[1].length)]
    const chosen = signs[0] > 0 ? 0 : 1
    const own = [total(policy[0]), total(policy[1])] as const
    const ratios = [own[0] - total(reference[0]), own[1] - total(reference[1])] as const
    const [better, worse] = [ratios[chosen]!, ratios[1 - chosen]!]
    const z = better - worse
    const off = z - 1 / (2 * beta)
    const [value, slope] =
      settings.loss === "sigmoid" ? [-logSigmoid(beta * z), -beta * sigmoid(-beta * z)] : [off * off, 2 * off]
    sums.loss += (value + alpha * own[1]) / pairs
    sums.bonus += (alpha * own[1]) / pairs
    sums.chosen += (beta * better) / pairs
    sums.rejected += (beta * worse) / pairs
    sums.accuracies += (z > 0 ? 1 : 0) / pairs
    logps.chosen += own[chosen]! / pairs
    logps.rejected += own[1 - chosen]! / pairs
    kl += (ratios[0] + ratios[1]) / (2 * pairs)
    return [0, 1].map((k) =>
      policy[k]!.map(() => ((k === chosen ? slope : -slope) + (k === 1 ? alpha : 0)) / pairs),
    ) as unknown as readonly [Float64Array, Float64Array]
  })
  return {
    loss: sums.loss,
    gradients,
    metrics: {
      "rewards/chosen": sums.chosen,
      "rewards/rejected": sums.rejected,
      "rewards/margins": sums.chosen - sums.rejected,
      "rewards/accuracies": sums.accuracies,
      "logps/chosen": logps.chosen,
      "logps/rejected": logps.rejected,
      "kl/sequence": kl,
      ...(alpha === 0 ? {} : { exploration_loss: sums.bonus }),
    },
  }
}

/** A loss over pairs as a loss of the step runner; a unit holds the two completions of a prompt. `temperature` is that of the log-probs that it compares, 1 when absent. */
export const pairObjectiveLoss = (
  compute: (sampled: readonly SampledPair[], pairs: number) => SampledPairResult,
  temperature?: number,
): LogprobLoss<SampledUnit> => ({
  kind: "logprobs",
  reference: true,
  ...(temperature === undefined ? {} : { temperature }),
  size: sampledSize,
  compute: (batch: LogprobBatch<SampledUnit>) => {
    const places = batch.units.map(({ samples, completions }) =>
      samples.map(({ mask, tokens }, k) =>
        maskedCount(mask, tokens.length) === tokens.length
          ? completions[k]!
          : completions[k]!.filter((_, t) => mask![t] === 1),
      ),
    )
    const of = (values: Float32Array, u: number) =>
      [0, 1].map((k) => pick(values, batch.starts[u]!, places[u]![k]!)) as unknown as SampledPair["policy"]
    const sampled = batch.units.map(({ samples }, u): SampledPair => ({
      policy: of(batch.logprobs, u),
      reference: of(batch.reference!, u),
      signs: [samples[0]!.advantage as number, samples[1]!.advantage as number],
    }))
    const { loss, gradients, metrics } = compute(sampled, unpackCounts(batch.normaliser).rows / 2)
    const dlogp = new Float64Array(batch.logprobs.length)
    for (const [u, own] of places.entries())
      for (const k of [0, 1]) putGradient(dlogp, batch.starts[u]!, own[k]!, gradients[u]![k]!)
    return { loss, dlogp, metrics }
  },
})

/** How far the scores of the better completions are above the others, mean over pairs. */
export const scoresMargin = (scores: Float64Array): number => {
  let [sum, pairs] = [0, 0]
  for (let i = 0; i < scores.length; i += 2) {
    const margin = Math.abs(scores[i]! - scores[i + 1]!)
    if (Number.isNaN(margin)) continue
    sum += margin
    pairs++
  }
  return sum / Math.max(1, pairs)
}

/** How a method of pairs turns scores into what its loss knows of each completion: `told` gives that, and figures of its own. */
export const judgedPairs = (
  { missingEndPenalty }: Pick<PairSettings, "missingEndPenalty">,
  told: (
    scores: Float64Array,
    judged: boolean,
  ) => {
    readonly advantages: Float64Array
    readonly metrics?: Readonly<Record<string, number>>
  },
): Pick<GroupMethod, "advantages"> => ({
  advantages: (scores, weights, groupSizes, _lengths, _kl, { finish, judged = false }) => {
    const own = penalised(weightedRewards(scores, weights), finish, missingEndPenalty)
    const figures = rewardFigures(scores, weights, groupSizes)
    const { advantages, metrics } = told(own, judged)
    return {
      ...figures,
      advantages: Array.from(advantages),
      metrics: { ...figures.metrics, "rewards/score_margin": scoresMargin(own), ...metrics },
    }
  },
})
