import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import type { LogprobLoss } from "@sloth/train"
import type { PreferenceExample } from "../data/examples.ts"
import { openPreferences, rowObjective } from "../data/open.ts"
import { packCounts, unpackCounts, type StepCounts } from "../internal/counts.ts"
import { sum } from "../internal/math.ts"
import { completionLogprobs, completionsUnit, putGradient, type CompletionsUnit } from "./completions-unit.ts"
import type { PairResult } from "./dpo-math.ts"
import { isPerToken, referenceFreePair, summarise, type ReferenceFreeSettings } from "./reference-free.ts"

const beta = field
  .number({ description: "Scale of the margin between the completions; SimPO's paper uses 2 to 10.", above: 0 })
  .pipe(withDefault(0.1))
const labelSmoothing = field
  .number({
    description: "Share of pairs that are the wrong way round.",
    min: 0,
    below: 0.5,
    aka: ["label_smoothing"],
  })
  .pipe(withDefault(0))
const gamma = field
  .number({
    description: "Margin that the chosen completion should have, in units of beta times nats per token.",
    aka: ["simpo_gamma"],
  })
  .pipe(withDefault(0.5))
const nllWeight = (weight: number) =>
  field
    .number({
      description: "Weight of the mean negative log-prob of the chosen completions' tokens.",
      min: 0,
      aka: ["cpo_alpha"],
    })
    .pipe(withDefault(weight))
const alpha = (value: number) =>
  field
    .number({ description: "Curvature of AlphaPO's rewards; 0 gives log-probs.", aka: ["alpha"] })
    .pipe(withDefault(value))

/** Settings of CPO. */
export const CpoSettingsSchema = Schema.Struct({
  loss: field
    .choice(["sigmoid", "hinge", "ipo"], { description: "Form of the preference loss.", aka: ["loss_type"] })
    .pipe(withDefault("sigmoid")),
  beta,
  labelSmoothing,
  nllWeight: nllWeight(1),
})

/** Settings of SimPO. */
export const SimpoSettingsSchema = Schema.Struct({ beta, gamma, labelSmoothing, nllWeight: nllWeight(0) })

/** Settings of AlphaPO. */
export const AlphapoSettingsSchema = Schema.Struct({
  beta,
  gamma,
  alpha: alpha(0.25),
  labelSmoothing,
  nllWeight: nllWeight(0),
})

/** Settings of {@link cpoLoss}. */
export interface CpoMathSettings extends ReferenceFreeSettings {
  readonly nllWeight: number
}

/**
 * CPO, SimPO and AlphaPO over pairs, as a part of a step that has `counts.rows` pairs and `counts.tokens` chosen tokens.
 * Source: Xu et al. 2024; Meng et al. 2024; Gupta et al. 2025; as TRL 1.13.
 */
export const cpoLoss = (
  pairs: readonly { readonly chosen: Float64Array; readonly rejected: Float64Array }[],
  settings: CpoMathSettings,
  counts: StepCounts,
): PairResult => {
  const perToken = isPerToken(settings.loss)
  const nll = settings.nllWeight === 0 ? 0 : settings.nllWeight / counts.tokens
  let loss = 0
  const metrics = {
    "rewards/chosen": 0,
    "rewards/rejected": 0,
    "rewards/accuracies": 0,
    "rewards/margins": 0,
    nll_loss: 0,
  }
  const gradients = pairs.map((pair) => {
    const chosen = summarise(pair.chosen, perToken)
    const rejected = summarise(pair.rejected, perToken)
    const { value, dChosen, dRejected } = referenceFreePair(chosen.x, rejected.x, settings)
    const negative = -sum(pair.chosen)
    loss += value / counts.rows + nll * negative
    metrics["rewards/chosen"] += (settings.beta * chosen.x) / counts.rows
    metrics["rewards/rejected"] += (settings.beta * rejected.x) / counts.rows
    metrics["rewards/accuracies"] += (chosen.x > rejected.x ? 1 : 0) / counts.rows
    metrics["rewards/margins"] += (settings.beta * (chosen.x - rejected.x)) / counts.rows
    metrics.nll_loss += counts.tokens === 0 ? 0 : negative / counts.tokens
    return {
      chosen: new Float64Array(pair.chosen.length).fill((dChosen * chosen.share) / counts.rows - nll),
      rejected: new Float64Array(pair.rejected.length).fill((dRejected * rejected.share) / counts.rows),
    }
  })
  return { loss, gradients, metrics }
}

/** A pair as one forest, chosen first, without a reference. */
export const referenceFreeUnit = (example: PreferenceExample): CompletionsUnit =>
  completionsUnit([example.chosen, example.rejected], example.row)

const cpoLogprobLoss = (settings: CpoMathSettings): LogprobLoss<CompletionsUnit> => ({
  kind: "logprobs",
  size: (unit) => packCounts(1, unit.completions[0]!.length),
  compute: (batch) => {
    const [chosen, rejected] = [completionLogprobs(batch, 0), completionLogprobs(batch, 1)]
    const { loss, gradients, metrics } = cpoLoss(
      batch.units.map((_, u) => ({ chosen: chosen[u]!.policy, rejected: rejected[u]!.policy })),
      settings,
      unpackCounts(batch.normaliser),
    )
    const dlogp = new Float64Array(batch.logprobs.length)
    for (const [u, { completions }] of batch.units.entries()) {
      putGradient(dlogp, batch.starts[u]!, completions[0]!, gradients[u]!.chosen)
      putGradient(dlogp, batch.starts[u]!, completions[1]!, gradients[u]!.rejected)
    }
    return { loss, dlogp, metrics }
  },
})

/** Contrastive preference optimisation: no reference, and the chosen completion is learnt as well. Source: Xu et al. 2024. */
export const cpo = rowObjective<PreferenceExample, CompletionsUnit>()({
  name: "cpo",
  config: CpoSettingsSchema,
  open: openPreferences,
  prepare: (rows) => rows.map(referenceFreeUnit),
  loss: (settings) => cpoLogprobLoss({ ...(settings as typeof CpoSettingsSchema.Type), gamma: 0, alpha: 0 }),
})

/** SimPO: means over tokens, a target margin, no reference. Source: Meng et al. 2024. */
export const simpo = rowObjective<PreferenceExample, CompletionsUnit>()({
  name: "simpo",
  config: SimpoSettingsSchema,
  open: openPreferences,
  prepare: (rows) => rows.map(referenceFreeUnit),
  loss: (settings) => cpoLogprobLoss({ ...(settings as typeof SimpoSettingsSchema.Type), loss: "simpo", alpha: 0 }),
})

/** AlphaPO: SimPO on bent rewards. Source: Gupta et al. 2025. */
export const alphapo = rowObjective<PreferenceExample, CompletionsUnit>()({
  name: "alphapo",
  config: AlphapoSettingsSchema,
  open: openPreferences,
  prepare: (rows) => rows.map(referenceFreeUnit),
  loss: (settings) => cpoLogprobLoss({ ...(settings as typeof AlphapoSettingsSchema.Type), loss: "simpo" }),
})
