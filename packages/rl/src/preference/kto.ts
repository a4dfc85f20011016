import * as Schema from "effect/Schema"
import { field, SlothError, withDefault } from "@sloth/core"
import type { LogprobBatch, LogprobLoss } from "@sloth/train"
import type { RatedExample } from "../data/examples.ts"
import { openRatings, rowObjective } from "../data/open.ts"
import { mean, sigmoid, sum } from "../internal/math.ts"
import { missingReference, syncedReference, syncedReferenceFields } from "../internal/reference.ts"
import { settingsError } from "../internal/settings.ts"
import { completionLogprobs, putGradient } from "./completions-unit.ts"
import {
  mismatchedUnits,
  ratedCounts,
  ratedLogprobs,
  ratedMetrics,
  ratedSize,
  ratedSums,
  ratedUnits,
  type RatedCounts,
  type RatedLogprobs,
  type RatedResult,
  type RatedUnit,
} from "./rated-unit.ts"

/** Settings of KTO. */
export const KtoSettingsSchema = Schema.Struct({
  loss: field
    .choice(["kto", "apo_zero_unpaired"], {
      description: "KTO, or APO-zero on rated completions, which needs no estimate of the KL divergence.",
      aka: ["loss_type"],
    })
    .pipe(withDefault("kto")),
  beta: field
    .number({ description: "How strongly the policy is kept near the reference.", above: 0 })
    .pipe(withDefault(0.1)),
  desirableWeight: field
    .number({ description: "Weight of the good completions.", min: 0, aka: ["desirable_weight"] })
    .pipe(withDefault(1)),
  undesirableWeight: field
    .number({ description: "Weight of the bad completions.", min: 0, aka: ["undesirable_weight"] })
    .pipe(withDefault(1)),
  klBlock: field
    .int({
      description:
        "Rows of the data set among which completions are passed on to estimate the KL divergence; all of them when absent. TRL passes them on within a batch.",
      unit: "rows",
      min: 2,
    })
    .pipe(Schema.optionalKey),
  reference: field
    .choice(["base", "row"], {
      description:
        "Where the reference's log-probs come from: the model without its adapter, at every step; or the rows (apo_zero_unpaired only).",
      aka: ["precompute_ref_log_probs"],
    })
    .pipe(withDefault("base")),
  ...syncedReferenceFields,
})

/** Decoded {@link KtoSettingsSchema}. */
export type KtoSettings = typeof KtoSettingsSchema.Type

/** Estimate of KL(policy, reference) from completions of other prompts: the mean of their log-ratios, sums over tokens in nats, at least 0. */
export const klEstimate = (ratios: readonly number[]): number => (ratios.length === 0 ? 0 : Math.max(0, mean(ratios)))

/**
 * KTO or APO-zero over rated completions, as a part of a step with `counts.rows` rows. `kl` is the estimate of the whole step; it has no gradient.
 * Source: Ethayarajh et al. 2024; D'Oosterlinck et al. 2024; as TRL 1.13.
 */
export const ktoLoss = (
  rows: readonly RatedLogprobs[],
  settings: Pick<KtoSettings, "loss" | "beta" | "desirableWeight" | "undesirableWeight">,
  counts: RatedCounts,
  kl: number,
): RatedResult => {
  const { beta } = settings
  const sums = rows.map(ratedSums)
  let loss = 0
  const gradients = Float64Array.from(rows, ({ desirable }, i) => {
    const weight = (desirable ? settings.desirableWeight : settings.undesirableWeight) / counts.rows
    const sign = desirable ? 1 : -1
    const z = sign * beta * (sums[i]!.ratio - (settings.loss === "kto" ? kl : 0))
    // 1 - s(z), in both losses and for both kinds of rows.
    loss += weight * sigmoid(-z)
    return -weight * sign * beta * sigmoid(z) * sigmoid(-z)
  })
  return { loss, gradients, metrics: ratedMetrics(rows, sums, beta, counts) }
}

/** Kahneman-Tversky optimisation: completions rated good or bad, without pairs. Source: Ethayarajh et al. 2024; TRL 1.13, `KTOTrainer`. */
export const kto = rowObjective<RatedExample, RatedUnit>()({
  name: "kto",
  config: KtoSettingsSchema,
  open: openRatings,
  prepare: (rows, { settings }) => {
    const { loss, reference, klBlock } = settings as KtoSettings
    if (reference === "row") for (const row of rows) if (row.reference === undefined) throw missingReference(row.row)
    if (loss === "apo_zero_unpaired" || rows.length === 0) return ratedUnits(rows)
    if (rows.length === 1)
      throw new SlothError("SLOTH_RL_KL_ROWS", {
        what: "KTO estimates the KL divergence from completions of other rows, and there is only one row.",
        next: 'Add rows, or use loss "apo_zero_unpaired".',
      })
    return mismatchedUnits(rows, klBlock ?? rows.length)
  },
  loss: (given): LogprobLoss<RatedUnit> => {
    const settings = given as KtoSettings
    const fromRow = settings.reference === "row"
    if (fromRow && settings.loss === "kto")
      throw settingsError(
        "kto",
        "the reference's log-probs of completions under other prompts are not in the rows.",
        'Use reference "base", or loss "apo_zero_unpaired".',
      )
    return {
      kind: "logprobs",
      reference: !fromRow,
      ...syncedReference("kto", settings, fromRow ? "the reference's log-probs come from the rows" : undefined),
      size: ratedSize,
      ...(settings.loss === "kto"
        ? {
            gather: (batch: LogprobBatch<RatedUnit>) =>
              completionLogprobs(batch, 1).map(({ policy, reference }) => [sum(policy) - sum(reference!)]),
          }
        : {}),
      compute: (batch) => {
        const kl = settings.loss === "kto" ? klEstimate(batch.gathered!.map(([ratio]) => ratio!)) : 0
        const counts = ratedCounts(batch.normaliser)
        const { loss, gradients, metrics } = ktoLoss(ratedLogprobs(batch, fromRow), settings, counts, kl)
        const dlogp = new Float64Array(batch.logprobs.length)
        for (const [u, { completions }] of batch.units.entries())
          putGradient(dlogp, batch.starts[u]!, completions[0]!, gradients[u]!)
        // Parts add up.
        const share = batch.units.length / counts.rows
        return { loss, dlogp, metrics: settings.loss === "kto" ? { ...metrics, kl: kl * share } : metrics }
      },
    }
  },
})
