import type { LogprobBatch, LogprobLoss, LogprobResult } from "@sloth/train"
import { packCounts, requireWholeStep, unpackCounts } from "../internal/counts.ts"
import { settingsError } from "../internal/settings.ts"
import { pick, putGradient } from "../preference/completions-unit.ts"
import { EntropyControl, type AdaptiveEntropySettings } from "./entropy-control.ts"
import { maskedCount } from "./importance.ts"
import {
  entropyThreshold,
  policyLoss,
  POLICY_LOSS_DEFAULTS,
  type PolicyLossSettings,
  type PolicyResult,
  type PolicySequence,
} from "./policy-loss.ts"
import { rlooLoss } from "./rloo.ts"
import type { SampledUnit } from "./sampled-unit.ts"

/** Settings of {@link policyObjectiveLoss}. */
export interface PolicyObjectiveSettings extends Omit<PolicyLossSettings, "entropyThreshold"> {
  /** Steers the weight of the entropy bonus, which then begins at `entropyCoef`. */
  readonly adaptiveEntropy?: AdaptiveEntropySettings
  /** Share of the tokens, those of the highest entropy, that are learnt from; 1 takes all. Below 1 a step must fit into one micro-batch. */
  readonly topEntropy: number
  /** Tokens that dapo, cispo and vespo divide by, where a generated batch feeds several steps: those of an average step. Units may bring their own (`stepTokens`). */
  readonly generationTokens?: number
  /** Temperature that completions are sampled with; log-probs are those of that distribution. 1 when absent. */
  readonly temperature?: number
}

/** The settings when nothing is said. */
export const POLICY_OBJECTIVE_DEFAULTS: PolicyObjectiveSettings = { ...POLICY_LOSS_DEFAULTS, topEntropy: 1 }

/** Completions and their tokens that count, for the normaliser of a step. */
export const sampledSize = ({ samples }: SampledUnit): number =>
  packCounts(
    samples.length,
    samples.reduce((n, { mask, tokens }) => n + maskedCount(mask, tokens.length), 0),
  )

/** The completions of a micro-batch in the form of the formulas. */
export const sequencesOf = (batch: LogprobBatch<SampledUnit>): PolicySequence[] =>
  batch.units.flatMap(({ samples, completions }, u) =>
    samples.map((sample, k): PolicySequence => {
      const of = (values: Float32Array): Float64Array => pick(values, batch.starts[u]!, completions[k]!)
      return {
        policy: of(batch.logprobs),
        ...(batch.reference === undefined ? {} : { reference: of(batch.reference) }),
        ...(batch.entropy === undefined ? {} : { entropy: of(batch.entropy) }),
        old: sample.old,
        sampling: sample.sampling,
        mask: sample.mask,
        advantage: sample.advantage,
      }
    }),
  )

/** Puts gradients, an array a completion, in their places. */
export const policyResultOf = (
  batch: LogprobBatch<SampledUnit>,
  { loss, gradients, entropyGradients, metrics }: PolicyResult,
): LogprobResult => {
  const placed = (values: readonly Float64Array[]): Float64Array => {
    const all = new Float64Array(batch.logprobs.length)
    let at = 0
    for (const [u, { completions }] of batch.units.entries())
      for (const positions of completions) putGradient(all, batch.starts[u]!, positions, values[at++]!)
    return all
  }
  return {
    loss,
    dlogp: placed(gradients),
    ...(entropyGradients === undefined ? {} : { dentropy: placed(entropyGradients) }),
    metrics,
  }
}

/** Entropies of the tokens that count, added up, and how many they are. */
const entropySum = (
  sequences: readonly PolicySequence[],
  threshold: number | undefined,
): { readonly sum: number; readonly tokens: number } => {
  let [sum, tokens] = [0, 0]
  for (const { entropy, mask } of sequences)
    for (const [t, h] of entropy!.entries()) {
      if ((mask !== undefined && mask[t] === 0) || (threshold !== undefined && h < threshold)) continue
      sum += h
      tokens++
    }
  return { sum, tokens }
}

/**
 * The GRPO family as a loss of the step runner: units of sampled completions in, one optimizer step out. The reference, where `beta` is not 0, is the model without its
 * adapter. Errors: SLOTH_RL_SETTINGS, SLOTH_RL_STEP_SPLIT.
 */
export const policyObjectiveLoss = (given: Partial<PolicyObjectiveSettings> = {}): LogprobLoss<SampledUnit> => {
  const { topEntropy, generationTokens, temperature, entropyCoef, adaptiveEntropy, ...settings } = {
    ...POLICY_OBJECTIVE_DEFAULTS,
    ...given,
  }
  if (!(topEntropy > 0 && topEntropy <= 1))
    throw settingsError("policy gradient", `topEntropy is ${topEntropy}.`, "Give a share above 0 and up to 1.")
  const masked = topEntropy < 1
  const control = adaptiveEntropy === undefined ? undefined : new EntropyControl(entropyCoef, adaptiveEntropy)
  const hasBonus = entropyCoef !== 0 || control !== undefined
  return {
    kind: "logprobs",
    reference: settings.beta !== 0,
    ...(temperature === undefined ? {} : { temperature }),
    entropy: true,
    size: sampledSize,
    ...(control === undefined ? {} : { state: control }),
    compute: (batch) => {
      if (masked) requireWholeStep(batch, sampledSize, "An entropy mask")
      const sequences = sequencesOf(batch)
      const totals = {
        ...unpackCounts(batch.normaliser),
        generationTokens: generationTokens ?? batch.units[0]?.stepTokens,
      }
      const top = masked ? entropyThreshold(sequences, topEntropy) : undefined
      const coef = control === undefined ? entropyCoef : control.weight(batch.step)
      const result = policyResultOf(
        batch,
        policyLoss(
          sequences,
          { ...settings, ...(top === undefined ? {} : { entropyThreshold: top.threshold }), entropyCoef: coef },
          { ...totals, ...(top === undefined ? {} : { entropyTokens: top.tokens }) },
        ),
      )
      if (!hasBonus) return result
      const { sum, tokens } = entropySum(sequences, top?.threshold)
      control?.add(batch.step, sum, tokens)
      return {
        ...result,
        metrics: {
          ...result.metrics,
          policy_loss: result.loss + (coef * sum) / Math.max(1, top?.tokens ?? totals.tokens),
          // Figures of the parts of a step are added up: the weight is one of them.
          ...(batch.indices.includes(0) ? { entropy_coef: coef } : {}),
        },
      }
    },
  }
}

/** RLOO as a loss of the step runner; its KL divergence is part of the rewards (`rlooAdvantages`). */
export const rlooObjectiveLoss = (
  settings: { readonly epsilon: number; readonly epsilonHigh: number; readonly temperature?: number } = {
    epsilon: 0.2,
    epsilonHigh: 0.2,
  },
): LogprobLoss<SampledUnit> => ({
  kind: "logprobs",
  ...(settings.temperature === undefined ? {} : { temperature: settings.temperature }),
  size: sampledSize,
  compute: (batch) =>
    policyResultOf(batch, rlooLoss(sequencesOf(batch), settings, unpackCounts(batch.normaliser).rows)),
})
