import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { sigmoid } from "../internal/math.ts"
import { groupObjective } from "./group-objective.ts"
import { judgedPairs, pairFields, pairObjectiveLoss, type SampledPair, type SampledPairResult } from "./pairs.ts"

/** Settings of Nash-MD. */
export const NashMdSettingsSchema = Schema.Struct({
  ...pairFields,
  mixture: field
    .number({
      description:
        "Share of the reference in the logits of the opponent, the geometric mixture of reference and policy; 1 is the reference, 0 the policy.",
      min: 0,
      max: 1,
      aka: ["mixture_coef"],
    })
    .pipe(withDefault(0.5)),
})

/** Decoded {@link NashMdSettingsSchema}. */
export type NashMdSettings = typeof NashMdSettingsSchema.Type

/**
 * How likely the first completion of each pair is preferred to the second, less one half, at its place; 0 for the second, and where one has no score. Preference is the sigmoid of the difference of scores; of a
 * judge it is the score.
 */
export const preferenceMargins = (scores: Float64Array, judged = false): Float64Array =>
  scores.map((score, i) => {
    if (i % 2 === 1) return 0
    const p = judged ? score : sigmoid(score - scores[i + 1]!)
    return Number.isNaN(p) ? 0 : p - 0.5
  })

/**
 * The loss of Nash-MD over pairs, as a part of a step with `pairs` of them: the policy's own completions, by their preference over the mixture's, with a KL divergence from the reference whose
 * gradient is that of REINFORCE. Source: Munos et al. 2023; as TRL 1.10, `NashMDTrainer`.
 */
export const nashMdLoss = (
  sampled: readonly SampledPair[],
  { beta }: { readonly beta: number },
  pairs: number,
): SampledPairResult => {
  let [loss, kl, score] = [0, 0, 0]
  const gradients = sampled.map(({ policy, reference, signs }): readonly [Float64Array, Float64Array] => {
    const own = policy[0].map((lp, t) => {
      const ratio = lp - reference[0][t]!
      loss += ((beta * ratio - signs[0]) * lp) / pairs
      kl += ratio / pairs
      score += (signs[0] * lp) / pairs
      // The ratio is a weight here: it has no gradient of its own.
      return (beta * ratio - signs[0]) / pairs
    })
    return [own, new Float64Array(policy[1].length)]
  })
  return { loss, gradients, metrics: { "kl/sequence": kl, "loss/score": score } }
}

/** Nash-MD (Munos et al. 2023) with TRL's settings: a completion of the policy against one of the geometric mixture of policy and reference. */
export const nashMd = groupObjective<"nash_md", typeof NashMdSettingsSchema, NashMdSettings>({
  name: "nash_md",
  config: NashMdSettingsSchema,
  pairs: true,
  // A policy gradient is that of the distribution which was sampled, temperature included.
  loss: (settings) => pairObjectiveLoss((sampled, pairs) => nashMdLoss(sampled, settings, pairs), settings.temperature),
  method: (settings) => ({
    dynamicSampling: 0,
    needsKl: false,
    opponent: { mixture: settings.mixture },
    ...judgedPairs(settings, (scores, judged) => {
      const margins = preferenceMargins(scores, judged)
      const wins = margins.reduce((n, m) => n + m, 0) / Math.max(1, margins.length / 2) + 0.5
      return { advantages: margins, metrics: { "rewards/preferred": wins } }
    }),
  }),
})
