import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import type { LogprobLoss } from "@sloth/train"
import { mean, standardDeviation } from "../internal/math.ts"
import { unpackCounts } from "../internal/counts.ts"
import { syncedReference, syncedReferenceFields } from "../internal/reference.ts"
import { pick, putGradient } from "../preference/completions-unit.ts"
import { weightedRewards, whiten } from "./advantages.ts"
import { generalisedAdvantages, tokenRewards, valueLoss } from "./gae.ts"
import { groupObjective, rewardFigures } from "./group-objective.ts"
import type { SampledFacts } from "./group-method.ts"
import { rolloutFields, tokenRewardFields } from "./grpo-settings.ts"
import { POLICY_LOSS_DEFAULTS, policyLoss } from "./policy-loss.ts"
import { policyResultOf, sampledSize, sequencesOf } from "./policy-objective.ts"
import type { SampledUnit } from "./sampled-unit.ts"

/** Settings of PPO. */
export const PpoSettingsSchema = Schema.Struct({
  ...rolloutFields({ numGenerations: 1 }),
  temperature: field
    .number({ description: "Temperature of sampling; log-probs are those of this distribution.", above: 0, max: 100 })
    .pipe(withDefault(0.7)),
  numIterations: field
    .int({
      description: "How often the completions of a rollout are trained on.",
      min: 1,
      aka: ["num_ppo_epochs", "num_iterations"],
    })
    .pipe(withDefault(4)),
  ...tokenRewardFields(0.05, { clip: ["cliprange"], klCoef: ["kl_coef"] }),
  klEstimator: field
    .choice(["k1", "k3"], { description: "How the KL divergence is estimated.", aka: ["kl_estimator"] })
    .pipe(withDefault("k1")),
  ...syncedReferenceFields,
  valueCoef: field
    .number({ description: "Weight of the critic's loss.", min: 0, aka: ["vf_coef"] })
    .pipe(withDefault(0.1)),
  valueClip: field
    .number({
      description: "How far a value counts from what the critic said when the rollout was made.",
      above: 0,
      aka: ["cliprange_value"],
    })
    .pipe(withDefault(0.2)),
  lambda: field
    .number({
      description: "Mixes what came after a token (1) with what the critic says of it (0) in its advantage.",
      min: 0,
      max: 1,
      aka: ["lam"],
    })
    .pipe(withDefault(0.95)),
  whitenRewards: field
    .boolean({
      description: "Divide the rewards of tokens by their standard deviation over the rollout.",
      aka: ["whiten_rewards"],
    })
    .pipe(withDefault(false)),
  missingEndPenalty: field
    .number({
      description: "Taken off the reward of completions that were cut at maxCompletionLength.",
      min: 0,
      aka: ["missing_eos_penalty"],
    })
    .pipe(withDefault(0)),
})

/** Decoded {@link PpoSettingsSchema}. */
export type PpoSettings = typeof PpoSettingsSchema.Type

/** Places of the tokens that count. */
const placesOf = (mask: Uint8Array | undefined, length: number): Int32Array =>
  Int32Array.from({ length }, (_, t) => t).filter((t) => mask === undefined || mask[t] === 1)

const scattered = (values: Float64Array, places: Int32Array, length: number): Float64Array => {
  const out = new Float64Array(length)
  for (const [k, t] of places.entries()) out[t] = values[k]!
  return out
}

/**
 * Advantages and returns of every token of a rollout: the score of a completion at its last token, less the KL divergence at each, through generalised advantage estimation;
 * advantages are whitened over the rollout. Tokens that do not count are left out as if they were not there. A completion without a score has advantages of 0, and its critic is right.
 * Source: Schulman et al. 2017; Ouyang et al. 2022; as TRL 1.10, which gives the score of a completion that ends early to the padding behind it.
 */
export const ppoAdvantages = (
  scores: Float64Array,
  lengths: readonly number[],
  kl: readonly Float64Array[] | undefined,
  { masks, finish, values }: SampledFacts,
  settings: Pick<PpoSettings, "klCoef" | "klEstimator" | "gamma" | "lambda" | "whitenRewards" | "missingEndPenalty">,
): { readonly advantages: readonly Float64Array[]; readonly returns: readonly Float64Array[] } => {
  const parts = lengths.flatMap((length, i) => {
    const places = placesOf(masks[i], length)
    if (Number.isNaN(scores[i]!) || places.length === 0) return []
    // k1 is old - reference; k3 of the same difference d is exp(-d) - 1 + d.
    const own = Float64Array.from(places, (t) => {
      const d = kl?.[i]?.[t] ?? 0
      return settings.klEstimator === "k1" ? d : Math.expm1(-d) + d
    })
    const score = scores[i]! - (finish[i] === "length" ? settings.missingEndPenalty : 0)
    return [{ i, places, rewards: tokenRewards(score, own, settings.klCoef) }]
  })
  const rewards = parts.map((part) => part.rewards)
  const used = settings.whitenRewards ? whiten(rewards, true) : rewards
  const estimates = parts.map(({ i, places }, k) =>
    generalisedAdvantages(
      used[k]!,
      Float64Array.from(places, (t) => values![i]![t]!),
      settings,
    ),
  )
  const white = whiten(estimates.map(({ advantages }) => advantages))
  const [advantages, returns] = [
    lengths.map((length): Float64Array => new Float64Array(length)),
    lengths.map((_, i) => values![i]!.slice()),
  ]
  for (const [k, { i, places }] of parts.entries()) {
    advantages[i] = scattered(white[k]!, places, lengths[i]!)
    for (const [at, t] of places.entries()) returns[i]![t] = estimates[k]!.returns[at]!
  }
  return { advantages, returns }
}

/** PPO's loss: the clipped policy gradient as a mean over tokens, and `valueCoef` times the critic's clipped loss. */
export const ppoObjectiveLoss = (
  settings: Pick<PpoSettings, "clip" | "clipHigh" | "valueCoef" | "valueClip" | "maxCompletionLength"> & {
    readonly temperature?: number
  },
): LogprobLoss<SampledUnit> => ({
  kind: "logprobs",
  values: true,
  entropy: true,
  ...(settings.temperature === undefined ? {} : { temperature: settings.temperature }),
  size: sampledSize,
  compute: (batch) => {
    const totals = unpackCounts(batch.normaliser)
    const policy = policyResultOf(
      batch,
      policyLoss(
        sequencesOf(batch),
        {
          ...POLICY_LOSS_DEFAULTS,
          loss: "bnpo",
          epsilon: settings.clip,
          epsilonHigh: settings.clipHigh ?? settings.clip,
          maxCompletionLength: settings.maxCompletionLength,
        },
        totals,
      ),
    )
    const parts = batch.units.flatMap(({ samples, completions }, u) =>
      samples.map((sample, k) => {
        const places = placesOf(sample.mask, sample.tokens.length)
        const of = (all: Float64Array): Float64Array => Float64Array.from(places, (t) => all[t]!)
        return {
          start: batch.starts[u]!,
          positions: Int32Array.from(places, (t) => completions[k]![t]!),
          sequence: {
            values: of(pick(batch.values!, batch.starts[u]!, completions[k]!)),
            old: of(sample.value!),
            returns: of(sample.returns!),
          },
        }
      }),
    )
    const tokens = Math.max(1, totals.tokens)
    const critic = valueLoss(
      parts.map(({ sequence }) => sequence),
      settings.valueClip,
      tokens,
    )
    const dvalues = new Float64Array(batch.logprobs.length)
    for (const [i, { start, positions }] of parts.entries())
      putGradient(
        dvalues,
        start,
        positions,
        critic.gradients[i]!.map((g) => g * settings.valueCoef),
      )
    const share = (of: (part: (typeof parts)[number]["sequence"]) => Float64Array): number =>
      parts.reduce((n, { sequence }) => n + of(sequence).reduce((a, b) => a + b, 0), 0) / tokens
    return {
      ...policy,
      loss: policy.loss + settings.valueCoef * critic.loss,
      dvalues,
      metrics: {
        ...policy.metrics,
        policy_loss: policy.loss,
        value_loss: critic.loss,
        value_clip_ratio: critic.clipFraction,
        "value/mean": share(({ values }) => values),
        "returns/mean": share(({ returns }) => returns),
      },
    }
  },
})

/** How much of the returns' variance the critic explains: 1 when it is right, 0 and below when a constant would do as well. */
export const explainedVariance = (values: readonly Float64Array[], returns: readonly Float64Array[]): number => {
  const all = returns.flatMap((row) => [...row])
  const errors = returns.flatMap((row, i) => Array.from(row, (x, t) => x - values[i]![t]!))
  const spread = standardDeviation(all)
  return all.length < 2 || spread === 0 ? 0 : 1 - (standardDeviation(errors) / spread) ** 2
}

/**
 * PPO with a critic: a linear head on the hidden states of the model that is trained, so that policy and critic share the model and its adapter. Source: Schulman et al. 2017;
 * TRL 1.10, which trains a second model as the critic.
 */
export const ppo = groupObjective<"ppo", typeof PpoSettingsSchema, PpoSettings>({
  name: "ppo",
  config: PpoSettingsSchema,
  loss: (settings) => ({
    ...ppoObjectiveLoss(settings),
    ...syncedReference("ppo", settings, settings.klCoef === 0 ? "klCoef is 0" : undefined),
  }),
  method: (settings) => ({
    dynamicSampling: 0,
    needsKl: settings.klCoef !== 0,
    needsValues: true,
    advantages: (scores, weights, groupSizes, lengths, kl, facts) => {
      const { metrics, ...figures } = rewardFigures(scores, weights, groupSizes)
      const made = ppoAdvantages(weightedRewards(scores, weights), lengths, kl, facts, settings)
      // A group of one always has equal rewards, which says nothing here.
      const { frac_reward_zero_std: _, ...told } = metrics
      return {
        ...figures,
        ...made,
        metrics: {
          ...told,
          "value/explained_variance": explainedVariance(facts.values!, made.returns),
          "advantage/abs_mean": mean(made.advantages.map((row) => mean(row.map(Math.abs)))),
        },
      }
    },
  }),
})
